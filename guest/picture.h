/* SPDX-License-Identifier: MIT */
/* A test picture: the same pixels for the same size, on every machine. */
#ifndef PICTURE_H
#define PICTURE_H

#include <stdint.h>
#include <stdio.h>

/* @stride is in bytes; pixels are XRGB8888 in the machine's byte order. */
void picture_draw(uint8_t *pixels, uint32_t width, uint32_t height, uint32_t stride);

/* As binary PPM. Returns 0, or -1 with errno set. */
int picture_write(FILE *file, const uint8_t *pixels, uint32_t width, uint32_t height, uint32_t stride);

#endif

/* SPDX-License-Identifier: MIT */
/* Puts a blob on the screen through KMS, as any compositor would. */
#ifndef SCREEN_H
#define SCREEN_H

#include "blob.h"

#include <xf86drmMode.h>

struct screen {
	uint32_t connector;
	uint32_t crtc;
	drmModeModeInfo mode;
};

/*
 * The first connected connector, and its mode of @width x @height, or with 0 the
 * one that it prefers. Returns 0, or a negative errno after a message.
 */
int screen_find(int node, uint32_t width, uint32_t height, struct screen *screen);

/* Returns 0, or a negative errno after a message on stderr. */
int screen_show(const struct screen *screen, const struct blob *blob, uint32_t stride);

#endif

/* SPDX-License-Identifier: MIT */
/* How public structures are read and written where the VMM was built with another version. */
#ifndef STRUCTURES_H
#define STRUCTURES_H

#include <stddef.h>

/*
 * Read the structure @from, which begins with its struct_size, into one of @size bytes.
 * What it does not have is filled with @missing; what it has beyond that must be that,
 * too. Returns 0, -EINVAL for a size that is none, or -E2BIG.
 */
int hostblob_structure_read(void *to, size_t size, const void *from, unsigned char missing);

/* Write @known bytes of @from to a structure of @size bytes; the rest of it gets zeros. */
void hostblob_structure_write(void *to, size_t size, const void *from, size_t known);

#endif

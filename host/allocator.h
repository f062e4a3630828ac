/* SPDX-License-Identifier: MIT */
/* What the kinds of allocators share; allocator.c chooses among them. */
#ifndef ALLOCATOR_H
#define ALLOCATOR_H

#include "hostblob.h"

/* An allocator on a DRM node; the node is borrowed. */
struct node_allocator {
	struct hostblob_allocator base;
	int node;
};

extern const struct hostblob_allocator_ops hostblob_allocator_amdgpu_ops;
extern const struct hostblob_allocator_ops hostblob_allocator_memfd_ops;
extern const struct hostblob_allocator_ops hostblob_allocator_dumb_ops;
extern const struct hostblob_allocator_ops hostblob_allocator_radeon_ops;

/*
 * The dma-buf of a GEM handle. It keeps the memory alive; the handle is the
 * caller's to close. Returns a file descriptor or a negative errno.
 */
int hostblob_allocator_export(int node, uint32_t handle);

void hostblob_allocator_free(struct hostblob_allocator *allocator);

#endif

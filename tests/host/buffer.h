/* SPDX-License-Identifier: MIT */
/*
 * Buffers that a TTM driver of this host allocates in system memory, mapped in
 * the two ways that user space can: through the DRM node, and through a dma-buf.
 */
#ifndef BUFFER_H
#define BUFFER_H

#include <stdint.h>

enum buffer_path { BUFFER_DMA_BUF, BUFFER_DRM_FD };

struct buffer {
	int fd;		 /* what to mmap() */
	uint64_t offset; /* where in fd */
	uint64_t size;
	uint32_t handle; /* of GEM */
};

/*
 * Open @path, or with NULL the first node whose driver is known to give system
 * pages of TTM; its name goes to @driver. Returns a file descriptor or a
 * negative errno.
 */
int node_open(const char *path, char *driver, unsigned int driver_size);

/*
 * Of what the buffers are made that the TTM test driver gives through @node from
 * now on: "order-0" or "order-3", blocks of at most that order; "compound";
 * "reserved"; "write-combined"; "uncached". Returns 0, or a negative errno: -EINVAL
 * for another name, -ENOTTY of other drivers.
 */
int buffer_choose_kind(int node, const char *kind);

/* Returns 0 or a negative errno. The buffer lives for as long as the node. */
int buffer_create(int node, const char *driver, enum buffer_path path, uint64_t size,
		  struct buffer *buffer);

/* A new shared mapping of all of it; NULL with errno set. */
void *buffer_map(const struct buffer *buffer);

#endif

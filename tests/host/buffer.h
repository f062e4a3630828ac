/* SPDX-License-Identifier: MIT */
/*
 * Buffers that a TTM driver of this host allocates in system memory, mapped in
 * the two ways that user space can: through the DRM node, and through a dma-buf.
 */
#ifndef BUFFER_H
#define BUFFER_H

#include <hostblob_ttm.h>

#include <stdbool.h>
#include <stdint.h>

#define HUGE_BYTES 0x200000ul /* what an entry of the host's next larger kind maps */

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
#define NO_NODE "no DRM node of a driver that is known to use TTM"

/*
 * Of what the buffers are made that amdgpu gives from now on: "gtt", "write-combined" or "vram"; or the
 * TTM test driver, through @node: "order-0", "order-3" or "order-8", blocks of at most that order; "shuffled";
 * "iomem"; "iomem-contiguous"; "compound"; "reserved"; "write-combined"; "uncached". Or how they are mapped:
 * "tracking", by a driver that wants to be told of writes; "own-open", by one with an
 * open() of its own. Returns 0, or a negative errno: -EINVAL for another name, -ENOTTY
 * of other drivers.
 */
int buffer_choose_kind(int node, const char *kind);

/* Returns 0 or a negative errno. The buffer lives for as long as the node. */
int buffer_create(int node, const char *driver, enum buffer_path path, uint64_t size,
		  struct buffer *buffer);

/* The TTM test driver of tests/kmod, by its own name. */
#define TEST_DRIVER "amdgpu"
bool test_driver_is_loaded(void);

/* Returns a file descriptor or a negative errno. */
int test_driver_open(void);

/* Ask it something about @buffer. Returns false after a message on stderr. */
bool test_driver_ask(int node, const struct buffer *buffer, struct hostblob_ttm_test *test);

/* The same where a count is all that goes there and comes back; @answer may be NULL. */
bool test_driver_request(int node, const struct buffer *buffer, enum hostblob_ttm_request request, uint32_t count,
			 uint32_t *answer);

/* A new shared mapping of all of it; NULL with errno set. */
void *buffer_map(const struct buffer *buffer);

/*
 * Address space of @size that begins at a multiple of HUGE_BYTES, with some to spare;
 * or NULL. What is mapped there has an address that is known to agree, or not.
 */
void *area_reserve(uint64_t size);

/* Map @size bytes of the buffer, from @first on, in the place of what is at @address. */
bool buffer_map_at(const struct buffer *buffer, void *address, uint64_t first, uint64_t size);

#endif

/* SPDX-License-Identifier: MIT */
/* The host-visible window, with all the blobs in it and all the holes between them. */
#ifndef WINDOW_H
#define WINDOW_H

#include <stdint.h>

#define PAGE_BYTES 4096u

struct window {
	volatile uint64_t *words;
	uint64_t size;
};

/*
 * Map the window of @node's device. Needs root and, with CONFIG_IO_STRICT_DEVMEM,
 * iomem=relaxed on the kernel's command line. Returns 0, or a negative errno after a
 * message on stderr.
 */
int window_map(int node, struct window *window);

#endif

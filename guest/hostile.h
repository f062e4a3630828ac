/* SPDX-License-Identifier: MIT */
/* What a guest's user space can send to the device that it should not. */
#ifndef HOSTILE_H
#define HOSTILE_H

#include <stdint.h>

struct hostile_window {
	volatile uint64_t *words;
	uint64_t size;
};

/*
 * Two processes of two contexts each make, share, map and free blobs with what values
 * they like, and submit what they like, @count times; a third one writes all over the
 * window meanwhile. How any of it is answered does not matter. Returns 0 if all of
 * them lived to the end, or a negative errno after a message on stderr.
 */
int hostile_run(const char *node_path, uint64_t count, const struct hostile_window *window);

#endif

/* SPDX-License-Identifier: MIT */
/* Images that the host lays out: virtio-gpu's cross-domain capset. */
#ifndef IMAGE_H
#define IMAGE_H

#include "blob.h"

#include <stdbool.h>

struct image_plane {
	uint32_t stride;
	uint32_t offset;
	uint32_t row_bytes; /* what the format has in a row */
	uint32_t rows;
};

struct image {
	uint32_t planes;
	struct image_plane plane[3];
	uint64_t size;
	uint32_t blob_id; /* to make blobs of this kind with, by the same node */
};

/* The formats that image_query() knows, as one string for a message. */
const char *image_formats(void);

/* What minigbm is told that an image is for, as one string for a message. */
const char *image_uses(void);

/* The flags for a list of uses, with commas. Returns 0, or -EINVAL after a message. */
int image_parse_uses(const char *list, uint32_t *uses);

/*
 * Ask the device for an image of a DRM format, for the given uses. The node must be one that nothing was
 * done with yet: it gets a context of the capset. Returns 0, or a negative errno after
 * a message on stderr, also if the layout that the device answers with can't be true.
 */
int image_query(int node, const char *format, uint32_t width, uint32_t height, uint32_t uses,
		struct image *image);

/*
 * Make such an image, with what minigbm asks for. It takes the kernel's parameter 8 for
 * an offer to make handles of guest memory, which only ChromeOS's kernels mean by it;
 * without @guest_handle that is not looked at. Returns as blob_create().
 */
int image_create(int node, const struct image *image, bool guest_handle, struct blob *blob);

#endif

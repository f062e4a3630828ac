// SPDX-License-Identifier: MIT
/*
 * Dumb buffers of KMS drivers, for those drivers that make them of cached system
 * pages. allocator.c has the list.
 */
#include "allocator.h"

#include <errno.h>
#include <unistd.h>
#include <xf86drmMode.h>

/* Pixels of 4 bytes: one line is 4096 bytes, so that no driver has to pad it. */
#define LINE_PIXELS 1024
#define LINE_BYTES 4096

static int allocate(struct hostblob_allocator *allocator, const struct hostblob_request *request,
		    struct hostblob_buffer *buffer, char *error, unsigned int error_size)
{
	uint64_t size = request->size;
	int node = ((struct node_allocator *)allocator)->node;
	uint32_t handle, pitch;
	uint64_t real_size;
	int fd, result;

	(void)error, (void)error_size;
	if (size % LINE_BYTES || size / LINE_BYTES > UINT32_MAX)
		return -EINVAL;
	result = drmModeCreateDumbBuffer(node, LINE_PIXELS, (uint32_t)(size / LINE_BYTES), 32, 0, &handle,
					 &pitch, &real_size);
	if (result)
		return result;
	fd = real_size >= size ? hostblob_allocator_export(node, handle) : -EINVAL;
	drmModeDestroyDumbBuffer(node, handle);
	if (fd < 0)
		return fd;
	*buffer = (struct hostblob_buffer){ .fd = fd, .size = size, .caching = HOSTBLOB_CACHED };
	return 0;
}

const struct hostblob_allocator_ops hostblob_allocator_dumb_ops = {
	.struct_size = sizeof(struct hostblob_allocator_ops),
	.name = "dumb",
	.allocate = allocate,
	.destroy = hostblob_allocator_free,
};

// SPDX-License-Identifier: MIT
/*
 * Buffers of the radeon driver in its CPU domain: cached system pages, which the
 * driver moves to the GPU's reach only if the GPU is to use them. Its dumb
 * buffers are video memory.
 */
#include "allocator.h"

#include <errno.h>
#include <radeon_drm.h>
#include <xf86drm.h>

static int allocate(struct hostblob_allocator *allocator, const struct hostblob_request *request,
		    struct hostblob_buffer *buffer, char *error, unsigned int error_size)
{
	uint64_t size = request->size;
	int node = ((struct node_allocator *)allocator)->node;
	struct drm_radeon_gem_create create = {
		.size = size,
		.alignment = 4096,
		.initial_domain = RADEON_GEM_DOMAIN_CPU,
	};
	int fd, result = drmCommandWriteRead(node, DRM_RADEON_GEM_CREATE, &create, sizeof(create));

	(void)error, (void)error_size;
	if (result)
		return result;
	fd = hostblob_allocator_export(node, create.handle);
	drmCloseBufferHandle(node, create.handle);
	if (fd < 0)
		return fd;
	*buffer = (struct hostblob_buffer){ .fd = fd, .size = size, .caching = HOSTBLOB_CACHED };
	return 0;
}

const struct hostblob_allocator_ops hostblob_allocator_radeon_ops = {
	.struct_size = sizeof(struct hostblob_allocator_ops),
	.name = "radeon",
	.allocate = allocate,
	.destroy = hostblob_allocator_free,
};

// SPDX-License-Identifier: MIT
/*
 * Buffers of amdgpu in GTT: cached system pages, which the CPU and the GPU both
 * reach where they are. Video memory is never asked for. Works on a render node.
 */
#include "allocator.h"

#include <amdgpu_drm.h>
#include <errno.h>
#include <stdint.h>
#include <xf86drm.h>

/* What the driver made of the request: it may change flags. */
static int check(int node, uint32_t handle, uint64_t size, enum hostblob_caching *caching)
{
	struct drm_amdgpu_gem_create_in info = { 0 };
	struct drm_amdgpu_gem_op op = {
		.handle = handle,
		.op = AMDGPU_GEM_OP_GET_GEM_CREATE_INFO,
		.value = (uintptr_t)&info,
	};
	int result = drmCommandWriteRead(node, DRM_AMDGPU_GEM_OP, &op, sizeof(op));

	if (result)
		return result;
	if (info.domains != AMDGPU_GEM_DOMAIN_GTT || info.bo_size != size)
		return -ENODEV;
	*caching = info.domain_flags & AMDGPU_GEM_CREATE_CPU_GTT_USWC ? HOSTBLOB_WRITE_COMBINED :
									HOSTBLOB_CACHED;
	return 0;
}

static int allocate(struct hostblob_allocator *allocator, uint64_t size, struct hostblob_buffer *buffer)
{
	int node = ((struct node_allocator *)allocator)->node;
	union drm_amdgpu_gem_create create = {
		.in = { .bo_size = size, .alignment = 4096, .domains = AMDGPU_GEM_DOMAIN_GTT },
	};
	enum hostblob_caching caching = HOSTBLOB_CACHED;
	uint32_t handle;
	int result = drmCommandWriteRead(node, DRM_AMDGPU_GEM_CREATE, &create, sizeof(create));

	if (result)
		return result;
	handle = create.out.handle;
	result = check(node, handle, size, &caching);
	if (!result)
		result = hostblob_allocator_export(node, handle);
	drmCloseBufferHandle(node, handle);
	if (result < 0)
		return result;
	*buffer = (struct hostblob_buffer){ .fd = result, .size = size, .caching = caching };
	return 0;
}

const struct hostblob_allocator_ops hostblob_allocator_amdgpu_ops = {
	.struct_size = sizeof(struct hostblob_allocator_ops),
	.name = "amdgpu",
	.allocate = allocate,
	.destroy = hostblob_allocator_free,
};

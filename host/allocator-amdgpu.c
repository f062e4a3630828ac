// SPDX-License-Identifier: MIT
/*
 * Buffers of amdgpu. GTT, i.e. system pages that the CPU and the GPU both reach where
 * they are, but for what a display is to read: that is video memory where the CPU
 * reaches all of it. What need not be cached is write-combined, wherever it is, so that
 * the GPU need not snoop the CPU's caches. Works on a render node.
 */
#include "allocator.h"

#include <amdgpu_drm.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <xf86drm.h>

static int query_memory(int node, struct drm_amdgpu_memory_info *memory)
{
	struct drm_amdgpu_info info = {
		.return_pointer = (uintptr_t)memory,
		.return_size = sizeof(*memory),
		.query = AMDGPU_INFO_MEMORY,
	};

	return drmCommandWrite(node, DRM_AMDGPU_INFO, &info, sizeof(info));
}

/* The display needs no copy from there; a small BAR is left to those who have no choice. */
static bool has_large_bar(int node)
{
	struct drm_amdgpu_memory_info memory = { 0 };

	return !query_memory(node, &memory) && memory.vram.total_heap_size &&
	       memory.cpu_accessible_vram.total_heap_size >= memory.vram.total_heap_size;
}

/*
 * CPU_GTT_USWC in video memory, too: the driver may have to move the buffer to GTT, and
 * its memory type must not change under a guest that has it mapped.
 */
static union drm_amdgpu_gem_create describe(int node, const struct hostblob_request *request)
{
	union drm_amdgpu_gem_create create = {
		.in = { .bo_size = request->size, .alignment = 4096, .domains = AMDGPU_GEM_DOMAIN_GTT },
	};

	if (request->cached)
		return create;
	create.in.domain_flags = AMDGPU_GEM_CREATE_CPU_GTT_USWC;
	if (request->scanout && has_large_bar(node)) {
		create.in.domains = AMDGPU_GEM_DOMAIN_VRAM;
		create.in.domain_flags |= AMDGPU_GEM_CREATE_CPU_ACCESS_REQUIRED |
					  AMDGPU_GEM_CREATE_VRAM_CLEARED;
	}
	return create;
}

/* What the driver made of the request: it may change flags, and add GTT to video memory. */
static int check(int node, uint32_t handle, const union drm_amdgpu_gem_create *wanted,
		 enum hostblob_caching *caching)
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
	if (info.bo_size != wanted->in.bo_size || !info.domains ||
	    (info.domains & ~(wanted->in.domains | AMDGPU_GEM_DOMAIN_GTT)))
		return -ENODEV;
	if (info.domain_flags & AMDGPU_GEM_CREATE_CPU_GTT_USWC)
		*caching = HOSTBLOB_WRITE_COMBINED;
	else if (info.domains == AMDGPU_GEM_DOMAIN_GTT)
		*caching = HOSTBLOB_CACHED;
	else
		return -ENODEV;
	return 0;
}

/* The driver says only that there was no memory. */
static void explain(int node, char *error, unsigned int error_size)
{
	struct drm_amdgpu_memory_info memory = { 0 };

	if (!query_memory(node, &memory))
		snprintf(error, error_size,
			 "amdgpu has no room for it, %llu of %llu MiB of GTT are in use; "
			 "raise amdgpu.gttsize and ttm.pages_limit, or let guests have less",
			 memory.gtt.heap_usage >> 20, memory.gtt.total_heap_size >> 20);
}

static int allocate(struct hostblob_allocator *allocator, const struct hostblob_request *request,
		    struct hostblob_buffer *buffer, char *error, unsigned int error_size)
{
	int node = ((struct node_allocator *)allocator)->node;
	const union drm_amdgpu_gem_create wanted = describe(node, request);
	union drm_amdgpu_gem_create create = wanted;
	enum hostblob_caching caching = HOSTBLOB_CACHED;
	uint32_t handle;
	int result = drmCommandWriteRead(node, DRM_AMDGPU_GEM_CREATE, &create, sizeof(create));

	if (result) {
		if (result == -ENOMEM)
			explain(node, error, error_size);
		return result;
	}
	handle = create.out.handle;
	result = check(node, handle, &wanted, &caching);
	if (!result)
		result = hostblob_allocator_export(node, handle);
	drmCloseBufferHandle(node, handle);
	if (result < 0)
		return result;
	*buffer = (struct hostblob_buffer){ .fd = result, .size = request->size, .caching = caching };
	return 0;
}

const struct hostblob_allocator_ops hostblob_allocator_amdgpu_ops = {
	.struct_size = sizeof(struct hostblob_allocator_ops),
	.name = "amdgpu",
	.allocate = allocate,
	.destroy = hostblob_allocator_free,
	.write_combined = true,
};

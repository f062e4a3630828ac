// SPDX-License-Identifier: MIT
/* Linux's interface is in amdgpu_drm.h; the packets are those of its cik_sdma.c. */
#include "gpu.h"
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xf86drm.h>

#define COMMANDS_BYTES (16 * PAGE_BYTES)
#define COPY_MOST 0x1ffffcu /* bytes of one packet, in whole dwords */
#define COPY_DWORDS 7

/* Buffers come one after the other here. */
#define ADDRESSES_BEGIN (1ull << 32)

static int open_node(void)
{
	for (int minor = 128; minor < 136; minor++) {
		char path[64];

		snprintf(path, sizeof(path), "/dev/dri/renderD%d", minor);
		int node = open(path, O_RDWR | O_CLOEXEC);
		drmVersionPtr version = node >= 0 ? drmGetVersion(node) : NULL;
		bool found = version && !strcmp(version->name, "amdgpu");

		drmFreeVersion(version);
		if (found)
			return node;
		if (node >= 0)
			close(node);
	}
	return -ENODEV;
}

int gpu_open(struct gpu *gpu)
{
	union drm_amdgpu_ctx context = { .in.op = AMDGPU_CTX_OP_ALLOC_CTX };
	glob_t found = { 0 };
	int result;

	/* The test driver has the same name, but no GPU. */
	*gpu = (struct gpu){ .node = access("/sys/module/amdgpu", F_OK) ? -ENODEV : open_node(),
			     .next_address = ADDRESSES_BEGIN };
	if (gpu->node < 0)
		return gpu->node;
	if (!glob("/sys/kernel/debug/dri/*/amdgpu_evict_gtt", 0, NULL, &found))
		snprintf(gpu->debugfs, sizeof(gpu->debugfs), "%.*s",
			 (int)(strrchr(found.gl_pathv[0], '/') - found.gl_pathv[0]), found.gl_pathv[0]);
	globfree(&found);
	result = drmCommandWriteRead(gpu->node, DRM_AMDGPU_CTX, &context, sizeof(context));
	gpu->context = context.out.alloc.ctx_id;
	if (!result)
		result = gpu_buffer_create(gpu, COMMANDS_BYTES, AMDGPU_GEM_DOMAIN_GTT, &gpu->commands);
	if (result)
		fprintf(stderr, "the GPU takes no commands: %s\n", strerror(-result));
	return result;
}

static int set_address(const struct gpu *gpu, const struct gpu_buffer *buffer, uint32_t operation)
{
	struct drm_amdgpu_gem_va va = {
		.handle = buffer->handle,
		.operation = operation,
		.flags = AMDGPU_VM_PAGE_READABLE | AMDGPU_VM_PAGE_WRITEABLE | AMDGPU_VM_PAGE_EXECUTABLE,
		.va_address = buffer->address,
		.map_size = buffer->size,
	};

	return drmCommandWriteRead(gpu->node, DRM_AMDGPU_GEM_VA, &va, sizeof(va));
}

int gpu_buffer_create(struct gpu *gpu, uint64_t size, uint32_t domain, struct gpu_buffer *buffer)
{
	union drm_amdgpu_gem_create create = {
		.in = {
			.bo_size = size,
			.alignment = PAGE_BYTES,
			.domains = domain,
			.domain_flags = AMDGPU_GEM_CREATE_CPU_ACCESS_REQUIRED,
		},
	};
	union drm_amdgpu_gem_mmap map = { 0 };
	int result = drmCommandWriteRead(gpu->node, DRM_AMDGPU_GEM_CREATE, &create, sizeof(create));

	if (result)
		return result;
	*buffer = (struct gpu_buffer){ .handle = create.out.handle, .address = gpu->next_address, .size = size };
	gpu->next_address += size;
	map.in.handle = buffer->handle;
	result = drmCommandWriteRead(gpu->node, DRM_AMDGPU_GEM_MMAP, &map, sizeof(map));
	if (!result) {
		buffer->words = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, gpu->node, (off_t)map.out.addr_ptr);
		result = buffer->words == MAP_FAILED ? -errno : set_address(gpu, buffer, AMDGPU_VA_OP_MAP);
	}
	if (result) {
		drmCloseBufferHandle(gpu->node, buffer->handle);
		buffer->words = NULL;
	}
	return result;
}

void gpu_buffer_destroy(struct gpu *gpu, struct gpu_buffer *buffer)
{
	if (!buffer->words)
		return;
	set_address(gpu, buffer, AMDGPU_VA_OP_UNMAP);
	munmap(buffer->words, buffer->size);
	drmCloseBufferHandle(gpu->node, buffer->handle);
	buffer->words = NULL;
	/*
	 * Page tables that were used once stay, and each eviction from VRAM moves all of them: the
	 * last one's address is the next one's.
	 */
	if (buffer->address + buffer->size == gpu->next_address)
		gpu->next_address = buffer->address;
}

int gpu_buffer_export(const struct gpu *gpu, const struct gpu_buffer *buffer)
{
	int fd;

	return drmPrimeHandleToFD(gpu->node, buffer->handle, DRM_CLOEXEC | DRM_RDWR, &fd) ? -errno : fd;
}

/* Runs what is in gpu->commands and waits for its end. */
static int submit(struct gpu *gpu, uint32_t dwords, const struct gpu_buffer *one, const struct gpu_buffer *other)
{
	struct drm_amdgpu_bo_list_entry used[] = {
		{ .bo_handle = gpu->commands.handle },
		{ .bo_handle = one->handle },
		{ .bo_handle = other ? other->handle : 0 },
	};
	struct drm_amdgpu_bo_list_in list = {
		.operation = ~0u,
		.list_handle = ~0u,
		.bo_number = other ? 3 : 2,
		.bo_info_size = sizeof(used[0]),
		.bo_info_ptr = (uintptr_t)used,
	};
	struct drm_amdgpu_cs_chunk_ib ib = {
		.va_start = gpu->commands.address,
		.ib_bytes = dwords * 4,
		.ip_type = AMDGPU_HW_IP_DMA,
	};
	struct drm_amdgpu_cs_chunk chunks[] = {
		{ AMDGPU_CHUNK_ID_BO_HANDLES, sizeof(list) / 4, (uintptr_t)&list },
		{ AMDGPU_CHUNK_ID_IB, sizeof(ib) / 4, (uintptr_t)&ib },
	};
	uint64_t pointers[] = { (uintptr_t)&chunks[0], (uintptr_t)&chunks[1] };
	union drm_amdgpu_cs commands = {
		.in = { .ctx_id = gpu->context, .num_chunks = 2, .chunks = (uintptr_t)pointers },
	};
	union drm_amdgpu_wait_cs wait = {
		.in = { .timeout = INT64_MAX, .ip_type = AMDGPU_HW_IP_DMA, .ctx_id = gpu->context },
	};
	int result = drmCommandWriteRead(gpu->node, DRM_AMDGPU_CS, &commands, sizeof(commands));

	if (result)
		return result;
	wait.in.handle = commands.out.handle;
	result = drmCommandWriteRead(gpu->node, DRM_AMDGPU_WAIT_CS, &wait, sizeof(wait));
	return result ? result : wait.out.status ? -ETIME : 0;
}

int gpu_buffer_place(struct gpu *gpu, const struct gpu_buffer *buffer, uint32_t domain)
{
	struct drm_amdgpu_gem_op op = { .handle = buffer->handle, .op = AMDGPU_GEM_OP_SET_PLACEMENT, .value = domain };
	int result = drmCommandWriteRead(gpu->node, DRM_AMDGPU_GEM_OP, &op, sizeof(op));

	if (result)
		return result;
	memset(gpu->commands.words, 0, 8 * 4); /* NOPs */
	return submit(gpu, 8, buffer, NULL);
}

int gpu_copy(struct gpu *gpu, const struct gpu_buffer *from, const struct gpu_buffer *to)
{
	uint32_t *packets = gpu->commands.words, dwords = 0;

	for (uint64_t done = 0; done < to->size; done += packets[dwords + 1], dwords += COPY_DWORDS) {
		uint64_t source = from->address + done, target = to->address + done, left = to->size - done;
		uint32_t *packet = packets + dwords;

		if (dwords + COPY_DWORDS > COMMANDS_BYTES / 4)
			return -EFBIG;
		packet[0] = 1; /* COPY, linear */
		packet[1] = left < COPY_MOST ? (uint32_t)left : COPY_MOST;
		packet[2] = 0;
		packet[3] = (uint32_t)source;
		packet[4] = (uint32_t)(source >> 32);
		packet[5] = (uint32_t)target;
		packet[6] = (uint32_t)(target >> 32);
	}
	return submit(gpu, dwords, from, to);
}

int gpu_evict(const struct gpu *gpu, enum gpu_eviction eviction)
{
	static const char *const names[] = { [GPU_EVICT_GTT] = "amdgpu_evict_gtt", [GPU_EVICT_VRAM] = "amdgpu_evict_vram" };
	char path[128], said[64] = "";
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", gpu->debugfs, names[eviction]);
	file = fopen(path, "r");
	if (!file)
		return -errno;
	/* The eviction's own result, in decimal, comes after it. */
	int result = fgets(said, sizeof(said), file) ? (int)strtol(said, NULL, 10) : -EIO;

	fclose(file);
	return result;
}

static int query(const struct gpu *gpu, uint32_t what, uint64_t *value)
{
	struct drm_amdgpu_info info = {
		.return_pointer = (uintptr_t)value,
		.return_size = sizeof(*value),
		.query = what,
	};

	return drmCommandWrite(gpu->node, DRM_AMDGPU_INFO, &info, sizeof(info));
}

int gpu_bytes_moved(const struct gpu *gpu, uint64_t *bytes)
{
	return query(gpu, AMDGPU_INFO_NUM_BYTES_MOVED, bytes);
}

/* The file has, for each process, a line with its id, and then one for each of its buffers. */
int gpu_buffer_find(const struct gpu *gpu, const struct gpu_buffer *buffer, char *domain, size_t size)
{
	char path[128], line[256], word[16];
	int result = -ENOENT, process, ours = 0;
	unsigned int handle;
	FILE *file;

	snprintf(path, sizeof(path), "%s/amdgpu_gem_info", gpu->debugfs);
	file = fopen(path, "r");
	if (!file)
		return -errno;
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "pid %d", &process) == 1)
			ours = process == getpid();
		else if (ours && sscanf(line, " 0x%x: %*u byte %15s", &handle, word) == 2 && handle == buffer->handle)
			result = snprintf(domain, size, "%s", word) < 0;
	}
	fclose(file);
	return result;
}

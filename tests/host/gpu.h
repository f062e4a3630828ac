/* SPDX-License-Identifier: MIT */
/*
 * What amdgpu does with a buffer besides having it mapped: moves between GTT and VRAM, and copies,
 * by the GPU's copy engine. The packets are CIK's, so it works on the model of tests/amdgpu and on
 * real GPUs of that family. Not by libdrm_amdgpu: that asks for what the model's driver lacks, as
 * amdgpu without its gfx block follows a null pointer in AMDGPU_INFO_DEV_INFO.
 */
#ifndef GPU_H
#define GPU_H

#include <amdgpu_drm.h>
#include <stddef.h>
#include <stdint.h>

/* Mapped in the GPU's address space as well, at @address. */
struct gpu_buffer {
	uint32_t handle;
	uint64_t address, size;
	void *words; /* for the CPU; NULL: there is no such buffer */
};

struct gpu {
	int node;
	uint32_t context;
	uint64_t next_address;
	struct gpu_buffer commands;
	char debugfs[64];
};

/* Which of amdgpu's files in debugfs has it move all buffers out of GTT or VRAM. */
enum gpu_eviction { GPU_EVICT_GTT, GPU_EVICT_VRAM };

/* All return 0 or a negative errno, the first one after a message on stderr. -ENODEV: no amdgpu. */
int gpu_open(struct gpu *gpu);

/* @domain is an AMDGPU_GEM_DOMAIN_*: where it is at first. */
int gpu_buffer_create(struct gpu *gpu, uint64_t size, uint32_t domain, struct gpu_buffer *buffer);
void gpu_buffer_destroy(struct gpu *gpu, struct gpu_buffer *buffer);

/* A new file descriptor of its dma-buf. */
int gpu_buffer_export(const struct gpu *gpu, const struct gpu_buffer *buffer);

/*
 * The driver moves the buffer to @domain, if it has room there, as commands use it. These do
 * nothing, and have ended on return.
 */
int gpu_buffer_place(struct gpu *gpu, const struct gpu_buffer *buffer, uint32_t domain);

/* By the GPU, all of it. Has ended on return. */
int gpu_copy(struct gpu *gpu, const struct gpu_buffer *from, const struct gpu_buffer *to);

/* By any thread. */
int gpu_evict(const struct gpu *gpu, enum gpu_eviction eviction);

/* So much has the driver moved since it was loaded: not between GTT and system. */
int gpu_bytes_moved(const struct gpu *gpu, uint64_t *bytes);

/* Where the buffer is: "VRAM", "GTT", or "CPU" in system memory that the GPU does not reach. */
int gpu_buffer_find(const struct gpu *gpu, const struct gpu_buffer *buffer, char *domain, size_t size);

#endif

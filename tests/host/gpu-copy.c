// SPDX-License-Identifier: MIT
/*
 * The GPU writes to a buffer, by commands of this process, and a guest reads what it wrote, while
 * the driver evicts the buffer again and again.
 *
 * Usage: gpu-copy COPIES
 */
#include "buffer.h"
#include "gpu.h"
#include "machine.h"
#include "test.h"

#include <amdgpu_drm.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGES 64
#define BYTES (PAGES * PAGE_BYTES)

struct evictor {
	struct gpu *gpu;
	atomic_bool stop;
	_Atomic uint64_t evictions;
	int error;
};

static void *evict(void *opaque)
{
	struct evictor *evictor = opaque;

	while (!evictor->stop && !evictor->error) {
		evictor->error = gpu_evict(evictor->gpu, evictor->evictions % 2 ? GPU_EVICT_GTT : GPU_EVICT_VRAM);
		if (evictor->error == -EBUSY) /* Linux 6.1, where a buffer is in use just then */
			evictor->error = 0;
		else
			evictor->evictions++;
	}
	return NULL;
}

/* Copies @number to the guest, from a buffer where page P begins with this and P. */
static int copy(struct gpu *gpu, const struct gpu_buffer *from, const struct gpu_buffer *to, struct machine *machine,
		uint32_t number, uint64_t *wrong)
{
	enum page_result results[PAGES];
	uint32_t *words = from->words, first = number * PAGES;
	int result;

	for (uint32_t page = 0; page < PAGES; page++)
		words[page * PAGE_BYTES / 4] = first + page;
	/* Commands have it in VRAM and in GTT by turns. */
	result = gpu_buffer_place(gpu, to, number % 2 ? AMDGPU_GEM_DOMAIN_VRAM : AMDGPU_GEM_DOMAIN_GTT);
	if (!result)
		result = gpu_copy(gpu, from, to);
	if (!result)
		result = machine_read_pages(machine, PAGES, first, results);
	for (uint32_t page = 0; page < PAGES && !result; page++)
		*wrong += results[page] != PAGE_REACHED;
	return result;
}

int main(int argc, char **argv)
{
	struct gpu_buffer from, to;
	struct machine machine;
	struct gpu gpu;
	struct evictor evictor = { .gpu = &gpu };
	uint32_t copies = argc == 2 ? (uint32_t)strtoul(argv[1], NULL, 10) : 0, done = 0;
	uint64_t wrong = 0;
	pthread_t thread;
	void *for_guest;
	int result;

	if (!copies) {
		fputs("Usage: gpu-copy COPIES\n", stderr);
		return 2;
	}
	result = gpu_open(&gpu);
	if (result == -ENODEV)
		return skip("there is no amdgpu");
	if (result)
		return 1;
	if (gpu_buffer_create(&gpu, BYTES, AMDGPU_GEM_DOMAIN_GTT, &from) ||
	    gpu_buffer_create(&gpu, BYTES, AMDGPU_GEM_DOMAIN_GTT, &to)) {
		fputs("the GPU gives no buffers\n", stderr);
		return 1;
	}
	for_guest = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, gpu_buffer_export(&gpu, &to), 0);
	if (for_guest == MAP_FAILED || machine_create(&machine, 1) ||
	    machine_set_memory(&machine, 1, MACHINE_MEMORY, for_guest, BYTES) ||
	    pthread_create(&thread, NULL, evict, &evictor))
		return 1;
	while (done < copies && !result)
		result = copy(&gpu, &from, &to, &machine, done++, &wrong);
	/* Evictions that came too late would prove nothing. */
	uint64_t evictions = evictor.evictions;

	evictor.stop = true;
	pthread_join(thread, NULL);
	machine_destroy(&machine);
	if (result || evictor.error)
		fprintf(stderr, "%s\n", strerror(-(result ? result : evictor.error)));
	printf("%" PRIu32 " copies of %d pages, %" PRIu64 " evictions meanwhile: the guest read %" PRIu64
	       " pages wrong\n", done, PAGES, evictions, wrong);
	return result || evictor.error || wrong || evictions < done;
}

// SPDX-License-Identifier: MIT
/*
 * What a process on the host pays for the first touch of a buffer, with no guest: page faults and
 * time. And how often the address that Linux picks agrees with pages of 2 MiB.
 *
 * Usage: native   prints rows of CSV after "native,"
 */
#include "buffer.h"
#include "test.h"

#include <err.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>
#include <xf86drm.h>

#define SIZE (256ul << 20)
#define MAPPINGS 100

static double milliseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static long faults(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_minflt;
}

/*
 * Of MAPPINGS that are there at the same time, of 2 to 18 MiB in whole pages, how many begin at a
 * multiple of 2 MiB. A large one is followed by others in the same way as by itself, so that all of
 * one size would tell nothing.
 */
static unsigned int count_agreeing(const struct buffer *buffer)
{
	uint64_t sizes[MAPPINGS];
	void *mappings[MAPPINGS];
	unsigned int agreeing = 0;

	for (unsigned int i = 0; i < MAPPINGS; i++) {
		sizes[i] = HUGE_BYTES + i * 2654435761u % 4096 * PAGE_BYTES;
		mappings[i] = mmap(NULL, sizes[i], PROT_READ | PROT_WRITE, MAP_SHARED, buffer->fd, (off_t)buffer->offset);
		agreeing += mappings[i] != MAP_FAILED && (uintptr_t)mappings[i] % HUGE_BYTES == 0;
	}
	for (unsigned int i = 0; i < MAPPINGS; i++) {
		if (mappings[i] != MAP_FAILED)
			munmap(mappings[i], sizes[i]);
	}
	return agreeing;
}

static void touch(const char *memory, const char *path, const char *place, volatile uint8_t *at, unsigned int agreeing)
{
	long before = faults();
	double begin = milliseconds();

	for (uint64_t page = 0; page < SIZE; page += PAGE_BYTES)
		at[page] = 1;
	printf("native,%s,%s,%s,%ld,%.0f,%u\n", memory, path, place, faults() - before, milliseconds() - begin, agreeing);
	munmap((void *)at, SIZE);
}

static void measure(int node, const char *driver, const char *memory, enum buffer_path path, const char *path_name)
{
	struct buffer buffer;
	void *own, *area;

	if (buffer_create(node, driver, path, SIZE, &buffer)) {
		fprintf(stderr, "%s gives no 256 MiB of %s\n", driver, memory);
		return;
	}
	own = buffer_map(&buffer);
	area = area_reserve(SIZE);
	if (!own || !area || !buffer_map_at(&buffer, area, 0, SIZE))
		err(1, "mmap");
	touch(memory, path_name, "Linux's", own, count_agreeing(&buffer));
	touch(memory, path_name, "agrees", area, MAPPINGS);
	if (path == BUFFER_DMA_BUF)
		close(buffer.fd);
	drmCloseBufferHandle(node, buffer.handle);
}

int main(void)
{
	char driver[32];
	int node = node_open(NULL, driver, sizeof(driver));

	if (node < 0)
		return skip(NO_NODE);
	printf("# native,memory,by,address,page_faults,ms,agreeing_of_%d\n", MAPPINGS);
	for (int vram = 0; vram < 2; vram++) {
		if (vram && buffer_choose_kind(node, "vram"))
			break;
		measure(node, driver, vram ? "VRAM" : "GTT", BUFFER_DRM_FD, "DRM node");
		measure(node, driver, vram ? "VRAM" : "GTT", BUFFER_DMA_BUF, "dma-buf");
	}
	return 0;
}

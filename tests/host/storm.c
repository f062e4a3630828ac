// SPDX-License-Identifier: MIT
/*
 * A guest counts in each page of a buffer while the driver takes the pages away:
 * by swapping them out, which gives the guest other pages, by moving the buffer,
 * and by removing PTEs just when they were inserted. See --help.
 */
#include "buffer.h"
#include "machine.h"

#include <hostblob_ttm.h>

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xf86drm.h>

#define PAGE_BYTES 4096
#define SKIPPED 77
#define ZAPS 2 /* after each eviction */

struct storm {
	int node;
	uint32_t handle;
	atomic_bool guest_has_ended;
	uint64_t moves, swap_outs, swapped_pages, zaps;
	int error;
};

static int ask(struct storm *storm, enum hostblob_ttm_request request, uint32_t count, uint32_t *answer)
{
	struct hostblob_ttm_test test = { .handle = storm->handle, .request = request, .count = count };

	if (drmIoctl(storm->node, DRM_IOCTL_HOSTBLOB_TTM_TEST, &test)) {
		storm->error = -errno;
		perror("the test driver");
		return storm->error;
	}
	*answer = test.count;
	return 0;
}

static void *blow(void *opaque)
{
	struct storm *storm = opaque;
	uint32_t answer = 0, asked = 0;

	while (!atomic_load(&storm->guest_has_ended)) {
		if (ask(storm, HOSTBLOB_TTM_SWAP_OUT, 0, &answer))
			break;
		storm->swap_outs += answer != 0;
		storm->swapped_pages += answer;
		if (ask(storm, HOSTBLOB_TTM_MOVE, 0, &answer))
			break;
		storm->moves++;
		/* How many are left over says how many came to pass. */
		if (ask(storm, HOSTBLOB_TTM_FAULT_ZAP, ZAPS, &answer))
			break;
		storm->zaps += asked - answer;
		asked = ZAPS;
	}
	return NULL;
}

static int run_storm(struct storm *storm, uint64_t pages, uint32_t rounds, uint64_t *faults, uint64_t *wrong)
{
	struct buffer buffer;
	struct machine machine;
	pthread_t thread;

	if (buffer_create(storm->node, "amdgpu", BUFFER_DMA_BUF, pages * PAGE_BYTES, &buffer)) {
		fputs("the test driver gives no buffer\n", stderr);
		return -EIO;
	}
	volatile uint32_t *for_host = buffer_map(&buffer);
	void *for_guest = buffer_map(&buffer);

	if (!for_host || !for_guest || machine_create(&machine))
		return -EIO;
	storm->handle = buffer.handle;
	int result = machine_set_memory(&machine, 1, MACHINE_MEMORY, for_guest, pages * PAGE_BYTES);

	if (!result && pthread_create(&thread, NULL, blow, storm))
		result = -EAGAIN;
	if (!result) {
		result = machine_count_rounds(&machine, pages, rounds, faults);
		atomic_store(&storm->guest_has_ended, true);
		pthread_join(thread, NULL);
	}
	*wrong = 0;
	for (uint64_t page = 0; page < pages; page++)
		*wrong += for_host[page * PAGE_BYTES / 4] != rounds;
	machine_destroy(&machine);
	return result ? result : storm->error;
}

int main(int argc, char **argv)
{
	bool survived = argc == 2 && !strcmp(argv[1], "survived");
	struct storm storm = { 0 };
	uint64_t faults, wrong;
	char driver[32];

	if (argc != 2 || (!survived && strcmp(argv[1], "fatal"))) {
		fputs("Usage: storm survived|fatal\n"
		      "Fail unless KVM_RUN never fails and no count is lost; or unless KVM_RUN fails\n"
		      "with -EFAULT, as on stock kernels.\n\n"
		      "Exit status: 0 as expected, 1 not so, 2 bad usage, 77 skipped.\n",
		      argc == 2 && !strcmp(argv[1], "--help") ? stdout : stderr);
		return argc == 2 && !strcmp(argv[1], "--help") ? 0 : 2;
	}
	storm.node = node_open(NULL, driver, sizeof(driver));
	if (storm.node < 0 || strcmp(driver, "amdgpu") || access("/sys/module/hostblob_ttm", F_OK)) {
		puts("skipped: the TTM test driver is not loaded");
		return SKIPPED;
	}
	/* Stock KVM maps a page that is a block of its own. */
	uint64_t pages = survived ? 64 : 1;
	uint32_t rounds = survived ? 1000000 : 5000000;

	if (run_storm(&storm, pages, rounds, &faults, &wrong))
		return 1;
	printf("%" PRIu64 " pages, %u rounds: %" PRIu64 " moves, %" PRIu64 " swap-outs of %" PRIu64
	       " pages, %" PRIu64 " PTEs removed at once; KVM_RUN failed %" PRIu64 " times, %" PRIu64 " pages are wrong\n",
	       pages, rounds, storm.moves, storm.swap_outs, storm.swapped_pages, storm.zaps, faults, wrong);
	if (wrong || !storm.moves || !storm.swap_outs || !storm.zaps)
		return 1;
	return survived ? faults != 0 : faults == 0;
}

// SPDX-License-Identifier: MIT
/*
 * A guest counts in each page of one of amdgpu's buffers while the driver moves it in all the ways
 * that it has itself, by the GPU's copies as well. See --help.
 */
#include "buffer.h"
#include "gpu.h"
#include "machine.h"
#include "test.h"

#include <amdgpu_drm.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define STRANGE 0x57a46e00u

/* For filling GTT: twice what scripts/host-vm lets the driver have. */
#define FILLERS 96
#define FILLER_BYTES (8ul << 20)

/* One round of moves. The buffer begins and ends in system memory, out of the GPU's reach. */
enum move { BIND, TO_VRAM, EVICT_VRAM, BACK_TO_VRAM, TO_GTT, EVICT_GTT, SWAP_OUT, MOVES };

static const struct {
	const char *name;
	bool copies, takes_pages;
} moves[MOVES] = {
	[BIND] = { "bound to GTT", false, false },
	[TO_VRAM] = { "placed in VRAM", true, true },
	[EVICT_VRAM] = { "evicted from VRAM", true, true },
	[BACK_TO_VRAM] = { "placed in VRAM", true, true },
	[TO_GTT] = { "placed in GTT", true, true },
	[EVICT_GTT] = { "evicted from GTT", false, true },
	[SWAP_OUT] = { "swapped out", false, true },
};

struct vcpu {
	struct storm *storm;
	unsigned int number;
	pthread_t thread;
	struct machine_counts counts;
	int error;
};

struct storm {
	uint64_t pages, evictions, vcpu_count;
	struct gpu gpu;
	struct gpu_buffer buffer;
	struct machine machine;
	struct vcpu vcpus[MACHINE_VCPUS];
	void *for_guest;
	uint64_t happened[MOVES], by_limit, faults, rounds, wrong, foreign, waits;
};

/* Has TTM write buffers to swap space until the guest's, the last that was used, is among them. */
static int swap_out(const struct storm *storm)
{
	char said[64];
	FILE *file = fopen("/sys/kernel/debug/ttm/tt_shrink", "r");

	(void)storm;
	if (!file)
		return -errno;
	char *line = fgets(said, sizeof(said), file);

	fclose(file);
	return line ? 0 : -EIO;
}

static int move(struct storm *storm, enum move move)
{
	uint64_t before = 0, after = 0;
	int result = gpu_bytes_moved(&storm->gpu, &before);

	if (result)
		return result;
	switch (move) {
	case TO_VRAM:
	case BACK_TO_VRAM:
		result = gpu_buffer_place(&storm->gpu, &storm->buffer, AMDGPU_GEM_DOMAIN_VRAM);
		break;
	case BIND:
	case TO_GTT:
		result = gpu_buffer_place(&storm->gpu, &storm->buffer, AMDGPU_GEM_DOMAIN_GTT);
		break;
	case EVICT_VRAM: result = gpu_evict(&storm->gpu, GPU_EVICT_VRAM); break;
	case EVICT_GTT: result = gpu_evict(&storm->gpu, GPU_EVICT_GTT); break;
	case SWAP_OUT: result = swap_out(storm); break;
	case MOVES: return -EINVAL;
	}
	if (!result)
		result = gpu_bytes_moved(&storm->gpu, &after);
	/* The driver may put it off: a copy that was none is not counted. */
	if (!result && (!moves[move].copies || after - before >= storm->buffer.size))
		storm->happened[move]++;
	return result;
}

/* Somebody else's buffer, which gets the memory that the guest's has left. */
static int stranger_create(struct storm *storm, uint32_t domain, struct gpu_buffer *stranger)
{
	uint32_t *words;
	int result = gpu_buffer_create(&storm->gpu, storm->buffer.size, domain, stranger);

	if (result)
		return result;
	words = stranger->words;
	for (uint64_t page = 0; page < storm->pages; page++)
		for (unsigned int word = 0; word < MACHINE_VCPUS; word++)
			words[page * PAGE_BYTES / 4 + word] = STRANGE + word;
	return 0;
}

static void stranger_destroy(struct storm *storm, struct gpu_buffer *stranger)
{
	const volatile uint32_t *words = stranger->words;

	for (uint64_t page = 0; words && page < storm->pages; page++)
		for (unsigned int word = 0; word < MACHINE_VCPUS; word++)
			storm->foreign += words[page * PAGE_BYTES / 4 + word] != STRANGE + word;
	gpu_buffer_destroy(&storm->gpu, stranger);
}

/* Until each vCPU was in all pages after the move; or, every other time, not at all. */
static int wait_for_guest(struct storm *storm)
{
	if (storm->waits++ % 2)
		return 0;
	for (unsigned int i = 0; i < storm->machine.vcpu_count; i++) {
		uint32_t before = machine_rounds(&storm->machine, i);

		while (machine_rounds(&storm->machine, i) - before < 2) {
			if (machine_ended(&storm->machine, i))
				return -EIO;
			sched_yield();
		}
	}
	return 0;
}

static uint64_t evictions_so_far(const struct storm *storm)
{
	uint64_t sum = 0;

	for (enum move move = 0; move < MOVES; move++)
		sum += moves[move].takes_pages ? storm->happened[move] : 0;
	return sum;
}

/*
 * Buffers of others, until GTT has no room and the driver moves those out of it that were used
 * longest ago, the guest's among them.
 */
static int fill_gtt(struct storm *storm)
{
	static struct gpu_buffer fillers[FILLERS];
	char domain[16] = "";
	int result = gpu_buffer_place(&storm->gpu, &storm->buffer, AMDGPU_GEM_DOMAIN_GTT);

	if (!result)
		result = gpu_buffer_find(&storm->gpu, &storm->buffer, domain, sizeof(domain));
	if (!result && strcmp(domain, "GTT"))
		result = -EXDEV;
	for (unsigned int i = 0; i < FILLERS && !result && strcmp(domain, "CPU"); i++) {
		result = gpu_buffer_create(&storm->gpu, FILLER_BYTES, AMDGPU_GEM_DOMAIN_GTT, &fillers[i]);
		if (!result)
			result = gpu_buffer_find(&storm->gpu, &storm->buffer, domain, sizeof(domain));
	}
	if (!result)
		result = wait_for_guest(storm);
	for (unsigned int i = FILLERS; i > 0; i--)
		gpu_buffer_destroy(&storm->gpu, &fillers[i - 1]);
	storm->by_limit = !strcmp(domain, "CPU");
	if (result)
		fprintf(stderr, "filling GTT: %s\n", strerror(-result));
	return result;
}

/* Returns 0, or a negative errno after a message. */
static int move_about(struct storm *storm)
{
	int result = fill_gtt(storm);

	while (!result && evictions_so_far(storm) < storm->evictions) {
		struct gpu_buffer stranger = { 0 };

		for (enum move step = 0; step < MOVES && !result; step++) {
			result = move(storm, step);
			if (result) {
				fprintf(stderr, "%s: %s\n", moves[step].name, strerror(-result));
				break;
			}
			if (step == TO_VRAM || step == EVICT_VRAM || step == TO_GTT) {
				stranger_destroy(storm, &stranger);
				result = stranger_create(storm,
							 step == TO_VRAM ? AMDGPU_GEM_DOMAIN_GTT : AMDGPU_GEM_DOMAIN_VRAM,
							 &stranger);
			}
			if (!result)
				result = wait_for_guest(storm);
		}
		stranger_destroy(storm, &stranger);
	}
	storm->waits = 0;
	return result ? result : wait_for_guest(storm);
}

static void *run_vcpu(void *opaque)
{
	struct vcpu *vcpu = opaque;

	vcpu->error = machine_count(&vcpu->storm->machine, vcpu->number, vcpu->storm->pages, &vcpu->counts);
	return NULL;
}

/* Returns 0, or a negative errno after a message. */
static int start(struct storm *storm)
{
	uint64_t bytes = storm->pages * PAGE_BYTES;
	unsigned int vcpu_count = (unsigned int)storm->vcpu_count;
	int fd, result = gpu_buffer_create(&storm->gpu, bytes, AMDGPU_GEM_DOMAIN_GTT, &storm->buffer);

	fd = result ? result : gpu_buffer_export(&storm->gpu, &storm->buffer);
	if (fd < 0) {
		fprintf(stderr, "the GPU gives no buffer: %s\n", strerror(-fd));
		return fd;
	}
	storm->for_guest = area_reserve(bytes);
	if (!storm->for_guest || mmap(storm->for_guest, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED ||
	    machine_create(&storm->machine, vcpu_count))
		return -EIO;
	close(fd);
	memset(storm->for_guest, 0, bytes);
	result = machine_set_memory(&storm->machine, 1, MACHINE_MEMORY, storm->for_guest, bytes);
	for (unsigned int i = 0; i < vcpu_count && !result; i++) {
		struct vcpu *vcpu = &storm->vcpus[i];

		*vcpu = (struct vcpu){ .storm = storm, .number = i };
		result = -pthread_create(&vcpu->thread, NULL, run_vcpu, vcpu);
	}
	return result;
}

/* Returns 0, or a negative errno. */
static int run_storm(struct storm *storm)
{
	const volatile uint32_t *words = storm->buffer.words;
	int result = move_about(storm);

	machine_stop(&storm->machine);
	for (unsigned int i = 0; i < storm->vcpu_count; i++) {
		struct vcpu *vcpu = &storm->vcpus[i];

		pthread_join(vcpu->thread, NULL);
		result = result ? result : vcpu->error;
		storm->faults += vcpu->counts.faults;
		storm->rounds += vcpu->counts.rounds;
		for (uint64_t page = 0; page < storm->pages; page++)
			storm->wrong += words[page * PAGE_BYTES / 4 + i] !=
					(uint32_t)vcpu->counts.rounds + (page < vcpu->counts.pages);
	}
	/* Waits for ever if KVM has missed the end of an invalidation. */
	if (!result)
		result = machine_set_memory(&storm->machine, 1, MACHINE_MEMORY, storm->for_guest, storm->buffer.size);
	machine_destroy(&storm->machine);
	return result;
}

static void usage(FILE *stream)
{
	fputs("Usage: gpu-storm [OPTION]... survived|fatal|either\n"
	      "Fail unless KVM_RUN never fails, no count is lost and no other buffer is written\n"
	      "to while amdgpu moves a buffer between VRAM, GTT and swap space; or unless one of\n"
	      "these happens; or say what happened.\n\n"
	      "  --vcpus N      1 (default) or 2\n"
	      "  --pages N      of the buffer (default: 64)\n"
	      "  --evictions N  until the end (default: 600)\n"
	      "  --help         this text\n\n"
	      "Exit status: 0 as expected, 1 not so, 2 bad usage, 77 skipped.\n",
	      stream);
}

static bool parse_number(const char *text, uint64_t most, uint64_t *number)
{
	char *end;

	*number = strtoull(text, &end, 10);
	return *text && !*end && *number && *number <= most;
}

/* Returns whether all that it was asked for makes sense. */
static bool parse(int argc, char **argv, struct storm *storm, const char **expected)
{
	static const struct option options[] = {
		{ "vcpus", required_argument, NULL, 'v' },
		{ "pages", required_argument, NULL, 'p' },
		{ "evictions", required_argument, NULL, 'e' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	bool good = true;
	int option;

	*storm = (struct storm){ .pages = 64, .evictions = 600, .vcpu_count = 1 };
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'v': good &= parse_number(optarg, MACHINE_VCPUS, &storm->vcpu_count); break;
		case 'p': good &= parse_number(optarg, 65536, &storm->pages); break;
		case 'e': good &= parse_number(optarg, UINT32_MAX, &storm->evictions); break;
		case 'h': usage(stdout); exit(0);
		default: good = false;
		}
	}
	if (!good || optind != argc - 1)
		return false;
	*expected = argv[optind];
	return !strcmp(*expected, "fatal") || !strcmp(*expected, "survived") || !strcmp(*expected, "either");
}

/* Returns whether all kinds of moves happened. */
static bool report(const struct storm *storm)
{
	uint64_t copies = 0;
	bool all = storm->by_limit;

	for (enum move move = 0; move < MOVES; move++) {
		copies += moves[move].copies ? storm->happened[move] : 0;
		all &= storm->happened[move] != 0;
	}
	printf("%" PRIu64 " pages, %" PRIu64 " vCPUs, %" PRIu64 " rounds; %" PRIu64 " evictions, %" PRIu64
	       " of them by the GPU's copies (%" PRIu64 " to VRAM), %" PRIu64 " from GTT, %" PRIu64
	       " swapped out, and %" PRIu64 " as GTT was full; KVM_RUN failed %" PRIu64 " times, %" PRIu64 " counts are wrong, %" PRIu64
	       " words written to others\n",
	       storm->pages, storm->vcpu_count, storm->rounds, evictions_so_far(storm), copies,
	       storm->happened[TO_VRAM] + storm->happened[BACK_TO_VRAM], storm->happened[EVICT_GTT],
	       storm->happened[SWAP_OUT], storm->by_limit, storm->faults, storm->wrong, storm->foreign);
	return all;
}

int main(int argc, char **argv)
{
	const char *expected;
	struct storm storm;

	if (!parse(argc, argv, &storm, &expected)) {
		usage(stderr);
		return 2;
	}
	int result = gpu_open(&storm.gpu);

	if (result == -ENODEV)
		return skip("there is no amdgpu");
	if (result || start(&storm))
		return 1;
	result = run_storm(&storm);
	bool all = report(&storm), bad = storm.faults || storm.wrong || storm.foreign;

	if (!strcmp(expected, "fatal"))
		return !bad;
	/* A storm that never was proves nothing. A guest that ended may have ended the storm. */
	return ((result || !all || !storm.rounds) && !bad) || (bad && !strcmp(expected, "survived"));
}

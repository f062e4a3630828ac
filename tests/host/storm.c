// SPDX-License-Identifier: MIT
/*
 * A guest counts in each page of a buffer while the driver takes the pages away
 * in every way that it has, and gives those that it frees to another buffer. See
 * --help.
 */
#include "buffer.h"
#include "machine.h"
#include "test.h"

#include <hostblob_ttm.h>

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include <xf86drm.h>

#define FAULTS 2 /* that are asked to go wrong, after each eviction */
#define STRANGE 0x57a46e00u

enum way { SWAP_OUT, MOVE, EVICT, LIMIT, FREE, GUT, ZAP, NOPAGE, READ_ONLY, WAYS };

static const struct {
	const char *name;
	enum hostblob_ttm_request request;
	bool of_faults; /* else the request is an eviction by itself, or counts them */
} ways[WAYS] = {
	[SWAP_OUT] = { "swap-out", HOSTBLOB_TTM_SWAP_OUT, false },
	[MOVE] = { "move", HOSTBLOB_TTM_MOVE, false },
	[EVICT] = { "evict", HOSTBLOB_TTM_EVICT, false },
	[LIMIT] = { "limit", HOSTBLOB_TTM_POPULATED, false },
	[FREE] = { "free", 0, false },
	[GUT] = { "gut", HOSTBLOB_TTM_GUT, false },
	[ZAP] = { "zap", HOSTBLOB_TTM_FAULT_ZAP, true },
	[NOPAGE] = { "nopage", HOSTBLOB_TTM_FAULT_NOPAGE, true },
	[READ_ONLY] = { "read-only", HOSTBLOB_TTM_FAULT_READ_ONLY, true },
};

struct vcpu {
	struct storm *storm;
	unsigned int number;
	pthread_t thread;
	struct machine_counts counts;
	int error;
};

struct storm {
	/* What was asked for. */
	uint64_t pages, evictions, vcpu_count;
	const char *kind;
	bool with[WAYS], huge;
	/* What is there. */
	struct machine machine;
	struct vcpu vcpus[MACHINE_VCPUS];
	int node;
	struct buffer buffer;
	void *for_guest;
	uint64_t limit; /* TTM's, before */
	uint64_t waits;
	int error;
	/* What came of it. */
	uint64_t happened[WAYS], faults, rounds, wrong, foreign;
	uint32_t huge_faults;
};

static int ask(struct storm *storm, enum way way, uint32_t count, uint32_t *answer)
{
	if (!test_driver_request(storm->node, &storm->buffer, ways[way].request, count, answer))
		storm->error = -EIO;
	return storm->error;
}

/* Somebody else's buffer, which gets the pages that were freed last. */
struct stranger {
	struct buffer buffer;
	volatile uint32_t *words;
};

static void stranger_create(struct storm *storm, struct stranger *stranger)
{
	stranger->words = NULL;
	if (buffer_create(storm->node, TEST_DRIVER, BUFFER_DRM_FD, storm->pages * PAGE_BYTES, &stranger->buffer)) {
		storm->error = -ENOMEM;
		return;
	}
	stranger->words = buffer_map(&stranger->buffer);
	for (uint64_t page = 0; stranger->words && page < storm->pages; page++)
		for (unsigned int word = 0; word < MACHINE_VCPUS; word++)
			stranger->words[page * PAGE_BYTES / 4 + word] = STRANGE + word;
}

static void stranger_destroy(struct storm *storm, struct stranger *stranger)
{
	if (!stranger->words)
		return;
	for (uint64_t page = 0; page < storm->pages; page++)
		for (unsigned int word = 0; word < MACHINE_VCPUS; word++)
			storm->foreign += stranger->words[page * PAGE_BYTES / 4 + word] != STRANGE + word;
	munmap((void *)stranger->words, storm->pages * PAGE_BYTES);
	drmCloseBufferHandle(storm->node, stranger->buffer.handle);
}

/* TTM's limit for all drivers together; 0: as it was before. */
static int limit_pages(struct storm *storm, uint64_t pages)
{
	static const char path[] = "/sys/module/ttm/parameters/pages_limit";
	FILE *file = fopen(path, "r+");
	int written = -1;

	if (file && (storm->limit || fscanf(file, "%" SCNu64, &storm->limit) == 1)) {
		written = fseek(file, 0, SEEK_SET) ? -1 : fprintf(file, "%" PRIu64 "\n", pages ? pages : storm->limit);
	}
	if (!file || fclose(file) || written < 0) {
		perror(path);
		storm->error = -EIO;
	}
	return storm->error;
}

/*
 * Let each vCPU get through a round, so that it meets what was done, in pages
 * that may be another's by mistake; or, every other time, just begin to.
 */
static void wait_for_guest(struct storm *storm)
{
	if (storm->waits++ % 2) {
		sched_yield();
		return;
	}
	for (unsigned int i = 0; i < storm->machine.vcpu_count; i++) {
		uint32_t before = machine_rounds(&storm->machine, i);

		while (machine_rounds(&storm->machine, i) - before < 2 && !storm->error) {
			if (machine_ended(&storm->machine, i))
				storm->error = -EIO;
			sched_yield();
		}
	}
}

static int create_buffer(struct storm *storm)
{
	if (buffer_create(storm->node, TEST_DRIVER, BUFFER_DMA_BUF, storm->pages * PAGE_BYTES, &storm->buffer)) {
		fputs("the test driver gives no buffer\n", stderr);
		return -EIO;
	}
	return 0;
}

static int show_guest(struct storm *storm, int flags, int fd)
{
	void *address = mmap(storm->for_guest, storm->pages * PAGE_BYTES, PROT_READ | PROT_WRITE,
			     MAP_SHARED | MAP_FIXED | flags, fd, 0);

	return address == MAP_FAILED ? -errno : 0;
}

/* As a VMM that unmaps a blob and maps another one: the first one's pages are somebody else's in between. */
static void free_buffer(struct storm *storm)
{
	struct stranger stranger;

	storm->error = show_guest(storm, MAP_ANONYMOUS, -1);
	close(storm->buffer.fd);
	drmCloseBufferHandle(storm->node, storm->buffer.handle);
	stranger_create(storm, &stranger);
	wait_for_guest(storm);
	stranger_destroy(storm, &stranger);
	if (!storm->error)
		storm->error = create_buffer(storm);
	if (!storm->error)
		storm->error = show_guest(storm, 0, storm->buffer.fd);
}

/* How many evictions it was, by what the driver has answered. */
static uint32_t evictions_of(enum way way, uint32_t answer)
{
	if (way == LIMIT)
		return answer;
	if (way == SWAP_OUT || way == EVICT)
		return answer != 0;
	return 1;
}

/* Returns how many evictions it was. */
static uint32_t take_pages_by(struct storm *storm, enum way way, uint32_t *asked)
{
	uint32_t answer = 0, times;

	if (way == FREE)
		free_buffer(storm);
	else if (ask(storm, way, FAULTS, &answer))
		return 0;
	if (ways[way].of_faults) {
		/* How many are left over says how many came to pass. */
		storm->happened[way] += *asked - answer;
		*asked = FAULTS;
		return 0;
	}
	wait_for_guest(storm);
	times = evictions_of(way, answer);
	storm->happened[way] += times;
	return times;
}

static void take_pages_away(struct storm *storm)
{
	uint32_t asked[WAYS] = { 0 };
	struct stranger stranger;
	uint64_t done = 0;

	while (done < storm->evictions && !storm->error) {
		stranger_create(storm, &stranger);
		for (enum way way = 0; way < WAYS && !storm->error; way++) {
			if (storm->with[way])
				done += take_pages_by(storm, way, &asked[way]);
		}
		stranger_destroy(storm, &stranger);
	}
	storm->waits = 0;
	wait_for_guest(storm);
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
	uint32_t populated;
	int result;

	if (create_buffer(storm))
		return -EIO;
	/* By huge pages, where they are large enough for one, and TTM has them. */
	storm->for_guest = area_reserve(bytes);
	if (!storm->for_guest || show_guest(storm, 0, storm->buffer.fd) || machine_create(&storm->machine, vcpu_count))
		return -EIO;
	result = machine_set_memory(&storm->machine, 1, MACHINE_MEMORY, storm->for_guest, bytes);
	if (!result)
		result = ask(storm, LIMIT, 0, &populated);
	/* The guest's buffer fits, but not beside another one. */
	if (!result && storm->with[LIMIT])
		result = limit_pages(storm, storm->pages * 2 - 1);
	for (unsigned int i = 0; i < vcpu_count && !result; i++) {
		struct vcpu *vcpu = &storm->vcpus[i];

		*vcpu = (struct vcpu){ .storm = storm, .number = i };
		result = -pthread_create(&vcpu->thread, NULL, run_vcpu, vcpu);
	}
	return result;
}

/* How many of the vCPU's counts are not what it has counted to. */
static uint64_t count_wrong(const struct storm *storm, const struct vcpu *vcpu, const volatile uint32_t *for_host)
{
	bool thrown_away = storm->with[GUT] || storm->with[FREE];
	uint64_t wrong = 0;

	for (uint64_t page = 0; page < storm->pages; page++) {
		uint32_t count = for_host[page * PAGE_BYTES / 4 + vcpu->number];
		uint32_t expected = (uint32_t)vcpu->counts.rounds + (page < vcpu->counts.pages);

		/* What was thrown away begins with 0 again, in pages that the guest has. */
		wrong += thrown_away ? !count || count > expected : count != expected;
	}
	return wrong;
}

/* Returns 0, or a negative errno. */
static int run_storm(struct storm *storm)
{
	struct hostblob_ttm_test mapped = { .request = HOSTBLOB_TTM_FAULTS };
	volatile uint32_t *for_host;
	int result = 0;

	take_pages_away(storm);
	machine_stop(&storm->machine);
	if (!test_driver_ask(storm->node, &storm->buffer, &mapped))
		storm->error = -EIO;
	storm->huge_faults = mapped.value;
	/* Mapped only now, so that it shows what the buffer has. */
	for_host = buffer_map(&storm->buffer);
	for (unsigned int i = 0; i < storm->vcpu_count; i++) {
		struct vcpu *vcpu = &storm->vcpus[i];

		pthread_join(vcpu->thread, NULL);
		result = result ? result : vcpu->error;
		storm->faults += vcpu->counts.faults;
		storm->rounds += vcpu->counts.rounds;
		storm->wrong += for_host ? count_wrong(storm, vcpu, for_host) : 0;
	}
	/* Waits for ever if KVM has missed the end of an invalidation. */
	if (!result)
		result = machine_set_memory(&storm->machine, 1, MACHINE_MEMORY, storm->for_guest,
					    storm->pages * PAGE_BYTES);
	machine_destroy(&storm->machine);
	if (storm->with[LIMIT])
		limit_pages(storm, 0);
	if (!for_host)
		return -ENOMEM;
	return result ? result : storm->error;
}

static void usage(FILE *stream)
{
	fputs("Usage: storm [OPTION]... survived|fatal|either\n"
	      "Fail unless KVM_RUN never fails, no count is lost and no other buffer is written\n"
	      "to; or unless one of these happens, as on kernels that lack a patch; or, where it\n"
	      "is chance whether KVM_RUN fails, only if one of the others happens.\n\n"
	      "  --vcpus N      1 (default) or 2\n"
	      "  --pages N      of the buffer (default: 64)\n"
	      "  --huge         fail unless faults have mapped 2 MiB of it, too\n"
	      "  --kind NAME    what it is made of, as for kvm-coverage\n"
	      "  --evictions N  until the end (default: 3000)\n"
	      "  --with WAYS    of these, with commas (default: swap-out, move, evict\n"
	      "                 and all three kinds of faults):\n"
	      "                 swap-out, move, evict: the driver takes the pages;\n"
	      "                 limit: TTM takes them for want of others (all drivers' limit);\n"
	      "                 free: the buffer is unmapped and freed, and a new one mapped;\n"
	      "                 gut: it throws them away, and what the guest has written;\n"
	      "                 zap, nopage, read-only: faults go wrong after each of them\n"
	      "  --help         this text\n\n"
	      "Exit status: 0 as expected, 1 not so, 2 bad usage, 77 skipped.\n",
	      stream);
}

static bool parse_ways(char *list, bool *with)
{
	enum way way;

	memset(with, 0, WAYS * sizeof(*with));
	for (char *name = strtok(list, ","); name; name = strtok(NULL, ",")) {
		for (way = 0; way < WAYS && strcmp(name, ways[way].name); way++)
			;
		if (way == WAYS)
			return false;
		with[way] = true;
	}
	return with[SWAP_OUT] || with[EVICT] || with[MOVE] || with[LIMIT] || with[FREE] || with[GUT];
}

static bool parse_number(const char *text, uint64_t most, uint64_t *number)
{
	char *end;

	*number = strtoull(text, &end, 10);
	return *text && !*end && *number && *number <= most;
}

/* Returns what is expected, or NULL if that makes no sense. */
static const char *parse(int argc, char **argv, struct storm *storm)
{
	static const struct option options[] = {
		{ "vcpus", required_argument, NULL, 'v' },     { "pages", required_argument, NULL, 'p' },
		{ "kind", required_argument, NULL, 'k' },      { "huge", no_argument, NULL, 'H' },
		{ "evictions", required_argument, NULL, 'e' }, { "with", required_argument, NULL, 'w' },
		{ "help", no_argument, NULL, 'h' },	       { 0 },
	};
	bool good = true;
	int option;

	*storm = (struct storm){ .pages = 64, .evictions = 3000, .vcpu_count = 1 };
	for (enum way way = 0; way < WAYS; way++)
		storm->with[way] = way != LIMIT && way != FREE && way != GUT;
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'v': good &= parse_number(optarg, MACHINE_VCPUS, &storm->vcpu_count); break;
		case 'p': good &= parse_number(optarg, 65536, &storm->pages); break;
		case 'k': storm->kind = optarg; break;
		case 'H': storm->huge = true; break;
		case 'e': good &= parse_number(optarg, UINT32_MAX, &storm->evictions); break;
		case 'w': good &= parse_ways(optarg, storm->with); break;
		case 'h': usage(stdout); exit(0);
		default: good = false;
		}
	}
	if (!good || optind != argc - 1)
		return NULL;
	const char *expected = argv[optind];

	return strcmp(expected, "survived") && strcmp(expected, "fatal") && strcmp(expected, "either") ? NULL : expected;
}

/* Returns whether all happened that was asked for. */
static bool report(const struct storm *storm, long seconds, int error)
{
	bool all = true;

	printf("%" PRIu64 " pages, %" PRIu64 " vCPUs, %ld s, %" PRIu64 " rounds;", storm->pages, storm->vcpu_count,
	       seconds, storm->rounds);
	for (enum way way = 0; way < WAYS; way++) {
		if (!storm->with[way])
			continue;
		printf(" %" PRIu64 " %s,", storm->happened[way], ways[way].name);
		all &= storm->happened[way] != 0;
	}
	if (storm->huge) {
		printf(" %" PRIu32 " faults of 2 MiB,", storm->huge_faults);
		all &= storm->huge_faults != 0;
	}
	printf(" KVM_RUN failed %" PRIu64 " times%s, %" PRIu64 " counts are wrong, %" PRIu64 " words written to others\n",
	       storm->faults, error ? " and for good" : "", storm->wrong, storm->foreign);
	return all;
}

int main(int argc, char **argv)
{
	struct timespec begin, end;
	struct storm storm;
	const char *expected = parse(argc, argv, &storm);

	if (!expected) {
		usage(stderr);
		return 2;
	}
	storm.node = test_driver_open();
	if (storm.node < 0)
		return skip("the TTM test driver is not loaded");
	if (storm.kind && buffer_choose_kind(storm.node, storm.kind)) {
		fprintf(stderr, "the test driver gives no buffer that is %s\n", storm.kind);
		return 1;
	}
	if (start(&storm))
		return 1;
	clock_gettime(CLOCK_MONOTONIC, &begin);
	int error = run_storm(&storm);

	clock_gettime(CLOCK_MONOTONIC, &end);
	bool fatal = !strcmp(expected, "fatal"), either = !strcmp(expected, "either");

	if (error && !fatal)
		return 1;
	bool all_happened = report(&storm, (long)(end.tv_sec - begin.tv_sec), error);

	if (fatal)
		return !error && !storm.faults && !storm.wrong && !storm.foreign;
	/* A storm that never was proves nothing. */
	return !all_happened || !storm.rounds || (storm.faults && !either) || storm.wrong || storm.foreign;
}

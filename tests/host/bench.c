// SPDX-License-Identifier: MIT
/*
 * What it costs to give a guest a buffer of a TTM driver and to take it away again, in
 * faults, entries and time. Prints lines of CSV; scripts/bench makes tables of them.
 */
#include "buffer.h"
#include "machine.h"
#include "test.h"

#include <hostblob_ttm.h>

#include <fcntl.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include <xf86drm.h>

#define SLOT 1
#define CYCLED_PAGES 16ul
#define CYCLED_BYTES (CYCLED_PAGES * PAGE_BYTES)
#define MAX_SAMPLES 1000

static int node;
static char driver[32];
static bool test_driver;

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec * 1e6 + (double)time.tv_nsec / 1e3;
}

static int compare(const void *a, const void *b)
{
	double first = *(const double *)a, second = *(const double *)b;

	return (first > second) - (first < second);
}

/* The @percent-th percentile of the @count times, which it sorts. */
static double percentile(double *times, unsigned int count, unsigned int percent)
{
	qsort(times, count, sizeof(*times), compare);
	return times[(count - 1) * percent / 100];
}

/* A buffer that is all that a guest has. */
struct subject {
	struct machine machine;
	struct buffer buffer;
	uint8_t *area;
};

static bool show(struct subject *subject, uint64_t bytes)
{
	subject->area = area_reserve(bytes);
	return subject->area && !buffer_create(node, driver, BUFFER_DRM_FD, bytes, &subject->buffer) &&
	       !machine_create(&subject->machine, 1) && buffer_map_at(&subject->buffer, subject->area, 0, bytes) &&
	       !machine_set_memory(&subject->machine, SLOT, MACHINE_MEMORY, subject->area, bytes);
}

static void hide(struct subject *subject)
{
	machine_destroy(&subject->machine);
	munmap(subject->area, subject->buffer.size);
	drmCloseBufferHandle(node, subject->buffer.handle);
}

/* The guest's first touch of a buffer whose addresses agree, of 4 KiB to 256 MiB. */
static bool first_touch(void)
{
	static const uint64_t sizes[] = { 1, 16, 256, 512, 4096, 16384, 65536 };
	enum page_result *results = calloc(65536, sizeof(*results));
	bool good = results != NULL;

	puts("# first-touch,bytes,kvm_faults,driver_faults,pages_4k,pages_2m,exits");
	for (unsigned int i = 0; good && i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct hostblob_ttm_test faults = { .request = HOSTBLOB_TTM_FAULTS }, none = faults;
		uint64_t bytes = sizes[i] * PAGE_BYTES, failed = 0;
		struct machine_figures before, after;
		struct subject subject;

		if (!show(&subject, bytes)) {
			good = false;
			break;
		}
		good = !machine_get_figures(&subject.machine, &before) &&
		       (!test_driver || test_driver_ask(node, &subject.buffer, &none)) &&
		       !machine_write_pages(&subject.machine, sizes[i], 1, results) &&
		       !machine_get_figures(&subject.machine, &after) &&
		       (!test_driver || test_driver_ask(node, &subject.buffer, &faults));
		for (uint64_t page = 0; good && page < sizes[i]; page++)
			failed += results[page] != PAGE_REACHED;
		good = good && !failed;
		char driver_faults[16] = "";

		if (test_driver)
			snprintf(driver_faults, sizeof(driver_faults), "%" PRIu32, faults.count);
		/* One fault and one entry are for the page of the guest's code. */
		if (good)
			printf("first-touch,%" PRIu64 ",%" PRIu64 ",%s,%" PRIu64 ",%" PRIu64 ",%" PRIu64 "\n", bytes,
			       after.faults - before.faults - 1, driver_faults, after.pages_4k - 1, after.pages_2m,
			       after.exits - before.exits);
		hide(&subject);
	}
	free(results);
	return good;
}

/*
 * The ways to show a guest buffers: all in one memslot, as our device does, or each in a
 * memslot of its own.
 */
struct way {
	const char *name;
	bool slots;
	bool zap_all; /* KVM forgets the whole guest where a memslot is deleted: its default */
};

struct cycle {
	const struct way *way;
	unsigned int live, samples;
	struct machine machine;
	struct buffer *buffers; /* the live ones, behind the one that comes and goes */
	uint8_t *area;
	enum page_result *results;
	double whole[MAX_SAMPLES], map[MAX_SAMPLES];
	uint64_t zapped; /* entries of others, in all */
};

/* The @number-th buffer of the guest. */
static bool map_one(struct cycle *cycle, const struct buffer *buffer, unsigned int number)
{
	struct kvm_userspace_memory_region region = {
		.slot = SLOT + number,
		.guest_phys_addr = MACHINE_MEMORY + number * CYCLED_BYTES,
		.memory_size = CYCLED_BYTES,
		.userspace_addr = (uint64_t)(uintptr_t)cycle->area + number * CYCLED_BYTES,
	};

	return buffer_map_at(buffer, cycle->area + number * CYCLED_BYTES, 0, CYCLED_BYTES) &&
	       (!cycle->way->slots || !ioctl(cycle->machine.vm, KVM_SET_USER_MEMORY_REGION, &region));
}

static bool unmap_one(struct cycle *cycle, unsigned int number)
{
	struct kvm_userspace_memory_region gone = { .slot = SLOT + number };
	void *place = cycle->area + number * CYCLED_BYTES;

	return (!cycle->way->slots || !ioctl(cycle->machine.vm, KVM_SET_USER_MEMORY_REGION, &gone)) &&
	       mmap(place, CYCLED_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == place;
}

static bool begin(struct cycle *cycle)
{
	uint64_t bytes = (cycle->live + 1) * CYCLED_BYTES;
	struct kvm_enable_cap quirks = { .cap = KVM_CAP_DISABLE_QUIRKS2, .args = { 1u << 7 /* SLOT_ZAP_ALL */ } };

	cycle->buffers = calloc(cycle->live + 1, sizeof(*cycle->buffers));
	cycle->results = calloc((cycle->live + 1) * CYCLED_PAGES, sizeof(*cycle->results));
	cycle->area = area_reserve(bytes);
	if (!cycle->buffers || !cycle->results || !cycle->area || machine_create(&cycle->machine, 1))
		return false;
	if (!cycle->way->zap_all && ioctl(cycle->machine.vm, KVM_ENABLE_CAP, &quirks)) {
		fprintf(stderr, "this kernel's memslots can't be deleted without all of the guest's entries\n");
		return false;
	}
	if (!cycle->way->slots && machine_set_memory(&cycle->machine, SLOT, MACHINE_MEMORY, cycle->area, bytes))
		return false;
	for (unsigned int i = 0; i <= cycle->live; i++) {
		if (buffer_create(node, driver, BUFFER_DRM_FD, CYCLED_BYTES, &cycle->buffers[i]) ||
		    !map_one(cycle, &cycle->buffers[i], i))
			return false;
	}
	/* So that all of them have entries. */
	return !machine_write_pages(&cycle->machine, (cycle->live + 1) * CYCLED_PAGES, 1, cycle->results);
}

static bool sample(struct cycle *cycle, unsigned int number)
{
	struct buffer *buffer = &cycle->buffers[0];
	struct machine_figures before, after;
	double start, mapping, mapped, unmapping, unmapped;
	bool good;

	start = now();
	good = !buffer_create(node, driver, BUFFER_DRM_FD, CYCLED_BYTES, buffer);
	mapping = now();
	good = good && map_one(cycle, buffer, 0);
	mapped = now();
	good = good && !machine_write_pages(&cycle->machine, CYCLED_PAGES, 1, cycle->results);
	for (unsigned int page = 0; page < CYCLED_PAGES; page++)
		good = good && cycle->results[page] == PAGE_REACHED;
	/* Not a part of what a VMM does; others use their buffers meanwhile. */
	double counting = now();

	good = good && !machine_write_pages(&cycle->machine, (cycle->live + 1) * CYCLED_PAGES, 1, cycle->results) &&
	       !machine_get_figures(&cycle->machine, &before);
	unmapping = now();
	good = good && unmap_one(cycle, 0);
	unmapped = now();
	good = good && !machine_get_figures(&cycle->machine, &after);
	if (good)
		cycle->zapped += before.pages_4k - after.pages_4k - CYCLED_PAGES;
	double freeing = now();

	drmCloseBufferHandle(node, buffer->handle);
	cycle->whole[number] = now() - start - (unmapping - counting) - (freeing - unmapped);
	cycle->map[number] = mapped - mapping + unmapped - unmapping;
	return good;
}

static bool cycle_with(const struct way *way, unsigned int live, unsigned int samples)
{
	struct cycle cycle = { .way = way, .live = live, .samples = samples };
	bool good = begin(&cycle) && unmap_one(&cycle, 0);

	/* The machine and the buffers end with the program. */
	if (!good)
		return false;
	drmCloseBufferHandle(node, cycle.buffers[0].handle);
	for (unsigned int i = 0; i < samples && good; i++)
		good = sample(&cycle, i);
	if (good)
		printf("cycle,%s,%u,%u,%.1f,%.1f,%.1f,%.1f,%.1f\n", way->name, live, samples,
		       percentile(cycle.whole, samples, 50), percentile(cycle.whole, samples, 99),
		       percentile(cycle.map, samples, 50), percentile(cycle.map, samples, 99),
		       (double)cycle.zapped / samples);
	machine_destroy(&cycle.machine);
	for (unsigned int i = 1; i <= live; i++)
		drmCloseBufferHandle(node, cycle.buffers[i].handle);
	munmap(cycle.area, (live + 1) * CYCLED_BYTES);
	free(cycle.results);
	free(cycle.buffers);
	return good;
}

static bool cycles(void)
{
	static const struct way ways[] = {
		{ "window", false, true },
		{ "slot", true, false },
		{ "slot-zap-all", true, true },
	};
	static const unsigned int lives[] = { 1, 64, 512, 4096 };
	int vm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	int quirks = vm < 0 ? 0 : ioctl(vm, KVM_CHECK_EXTENSION, KVM_CAP_DISABLE_QUIRKS2);
	bool good = true;

	close(vm);
	puts("# cycle,way,live,samples,cycle_p50_us,cycle_p99_us,map_unmap_p50_us,map_unmap_p99_us,entries_of_others_zapped");
	for (unsigned int i = 0; i < sizeof(lives) / sizeof(lives[0]); i++) {
		for (unsigned int j = 0; j < sizeof(ways) / sizeof(ways[0]); j++) {
			if (ways[j].zap_all || quirks & 1 << 7)
				good &= cycle_with(&ways[j], lives[i], 200);
		}
	}
	return good;
}

/* From the beginning of an eviction until the guest has all of it again. */
static bool revokes(void)
{
	static const uint64_t sizes[] = { 1, 512, 4096 };
	enum page_result *results = calloc(4096, sizeof(*results));
	bool good = results != NULL;

	puts("# revoke,bytes,samples,evict_p50_us,evict_p99_us,refault_p50_us,refault_p99_us,kvm_faults");
	for (unsigned int i = 0; good && i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		double evict[100], refault[100];
		uint64_t bytes = sizes[i] * PAGE_BYTES;
		struct machine_figures before, after;
		struct subject subject;

		if (!show(&subject, bytes)) {
			good = false;
			break;
		}
		good = !machine_write_pages(&subject.machine, sizes[i], 1, results) &&
		       !machine_get_figures(&subject.machine, &before);
		for (unsigned int j = 0; good && j < 100; j++) {
			struct hostblob_ttm_test test = { .request = HOSTBLOB_TTM_EVICT };
			double start, evicted;

			/* It has to be there, which may take a request, and the guest's, to be evicted. */
			do {
				test = (struct hostblob_ttm_test){ .request = HOSTBLOB_TTM_EVICT };
				good = test_driver_ask(node, &subject.buffer, &test);
			} while (good && test.count);
			good = good && !machine_write_pages(&subject.machine, sizes[i], 1, results);
			start = now();
			good = good && test_driver_ask(node, &subject.buffer, &test) && test.count == 1;
			evicted = now();
			good = good && !machine_write_pages(&subject.machine, sizes[i], 1, results);
			refault[j] = now() - evicted;
			evict[j] = evicted - start;
			for (uint64_t page = 0; page < sizes[i]; page++)
				good = good && results[page] == PAGE_REACHED;
		}
		good = good && !machine_get_figures(&subject.machine, &after);
		if (good)
			printf("revoke,%" PRIu64 ",100,%.1f,%.1f,%.1f,%.1f,%" PRIu64 "\n", bytes, percentile(evict, 100, 50),
			       percentile(evict, 100, 99), percentile(refault, 100, 50), percentile(refault, 100, 99),
			       (after.faults - before.faults) / 200);
		hide(&subject);
	}
	free(results);
	return good;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		bool (*run)(void);
	} all[] = { { "first-touch", first_touch }, { "cycle", cycles }, { "revoke", revokes } };

	for (unsigned int i = 0; argc == 2 && i < sizeof(all) / sizeof(all[0]); i++) {
		if (strcmp(argv[1], all[i].name))
			continue;
		node = node_open(NULL, driver, sizeof(driver));
		if (node < 0)
			return skip(NO_NODE);
		test_driver = test_driver_is_loaded();
		return all[i].run() ? 0 : 1;
	}
	bool help = argc == 2 && !strcmp(argv[1], "--help");

	fputs("Usage: bench first-touch|cycle|revoke\n"
	      "Print as CSV what a guest's buffer costs:\n\n"
	      "  first-touch  faults, entries and exits of the first touch of 4 KiB to 256 MiB\n"
	      "  cycle        time to make, map, touch, unmap and free 64 KiB, beside up to 4096\n"
	      "               others, with one memslot for all or one for each\n"
	      "  revoke       time to evict a buffer, and until the guest has it again\n\n"
	      "Exit status: 0, 1 if anything failed, 2 bad usage, 77 skipped.\n",
	      help ? stdout : stderr);
	return help ? 0 : 2;
}

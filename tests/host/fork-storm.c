// SPDX-License-Identifier: MIT
/*
 * A process that has a buffer mapped forks, over and over, while the buffer loses its pages:
 * by a process beside it, by the parent once it has forked, and by the test driver in the
 * midst of the fork, where the kernel has read the entry for 2 MiB and has not yet taken the
 * lock that guards it. The pages go to another buffer. A child must never see that one's.
 * Or the process moves the mapping with mremap(), which has the entry in neither place
 * for a moment. See --help.
 */
#include "buffer.h"
#include "test.h"

#include <hostblob_ttm.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xf86drm.h>

#define PAGE_WORDS (PAGE_BYTES / sizeof(uint32_t))
#define PAGES (HUGE_BYTES / PAGE_BYTES)
#define LOOKED_AT 8  /* of the pages */
#define LOSES_AFTER 16 /* forks, to give most of the time to forks */

#define OWN 0x5eed0000u
#define OTHERS 0xbad00000u

enum { SAW_OWN, SAW_NOTHING, SAW_OTHERS, SAW_NONSENSE, SIGHTS };

static int node;
static volatile uint32_t *words; /* of the buffer */
static uint8_t *free_place;	 /* where one entry can map all of it, too */

static bool ask(const struct buffer *buffer, uint32_t request, uint32_t count, uint32_t *answer)
{
	struct hostblob_ttm_test test = { .handle = buffer->handle, .request = request, .count = count };

	if (drmIoctl(node, DRM_IOCTL_HOSTBLOB_TTM_TEST, &test))
		return false;
	if (answer)
		*answer = test.count;
	return true;
}

/* Where one entry can map all of the buffer. */
static volatile uint32_t *map(const struct buffer *buffer)
{
	uint8_t *area = area_reserve(HUGE_BYTES);

	return area && buffer_map_at(buffer, area, 0, HUGE_BYTES) ? (volatile uint32_t *)area : NULL;
}

static void fill(volatile uint32_t *where, uint32_t value)
{
	for (uint32_t page = 0; page < PAGES; page += PAGES / LOOKED_AT)
		where[page * PAGE_WORDS] = value + page;
}

static int look(void)
{
	int saw = SAW_OWN;

	for (uint32_t page = 0; page < PAGES; page += PAGES / LOOKED_AT) {
		uint32_t word = words[page * PAGE_WORDS];

		if (word == OTHERS + page)
			return SAW_OTHERS;
		if (!word && saw == SAW_OWN)
			saw = SAW_NOTHING;
		else if (word && word != OWN + page)
			saw = SAW_NONSENSE;
	}
	return saw;
}

/* A process that throws the buffer's pages away for each byte in @orders. */
static pid_t start_losing(const struct buffer *buffer, const int orders[2])
{
	pid_t child = fork();
	char byte;

	if (child)
		return child;
	close(orders[1]);
	while (read(orders[0], &byte, 1) == 1 && ask(buffer, HOSTBLOB_TTM_GUT, 0, NULL))
		;
	_exit(0);
}

static enum hostblob_ttm_calls call = HOSTBLOB_TTM_IN_FORK;
static uint64_t interrupted;

/*
 * Whether calls were interrupted since this was asked before. Those that follow will be,
 * if they can be on this kernel.
 */
static bool interrupt(const struct buffer *buffer, bool *before)
{
	uint32_t count = 0;

	if (!ask(buffer, HOSTBLOB_TTM_INTERRUPT, call, &count) && errno != EOPNOTSUPP)
		return false;
	interrupted += count;
	*before = count > 0;
	return true;
}

struct others {
	struct buffer buffer;
	volatile uint32_t *words;
};

static bool others_take(struct others *others)
{
	others->words = NULL;
	if (buffer_create(node, TEST_DRIVER, BUFFER_DRM_FD, HUGE_BYTES, &others->buffer))
		return false;
	others->words = map(&others->buffer);
	if (others->words)
		fill(others->words, OTHERS);
	return others->words;
}

static void others_leave(struct others *others)
{
	if (!others->words)
		return;
	munmap((void *)others->words, HUGE_BYTES);
	drmCloseBufferHandle(node, others->buffer.handle);
}

/* Another buffer has the pages for as long as the child looks. Returns what it saw, or -1. */
static int fork_and_lose(const struct buffer *own)
{
	struct others others = { .words = NULL };
	int go[2], status = -1;
	bool lost;

	if (!interrupt(own, &lost) || pipe(go))
		return -1;
	pid_t child = fork();
	char byte = 0;

	if (!child)
		_exit(read(go[0], &byte, 1) == 1 ? look() : SAW_NONSENSE);
	/* Once is enough: another time would take away what is not to be there. */
	bool good = child > 0 && interrupt(own, &lost) && (lost || ask(own, HOSTBLOB_TTM_GUT, 0, NULL)) &&
		    others_take(&others);

	good = write(go[1], &byte, 1) == 1 && good;
	close(go[0]);
	close(go[1]);
	good = child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && good;
	others_leave(&others);
	return good ? WEXITSTATUS(status) : -1;
}

static int fork_once(void)
{
	int status;
	pid_t child = fork();

	if (!child)
		_exit(look());
	return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* To the other place, where the first one is then free. */
static bool move(void)
{
	uint8_t *before = (uint8_t *)words;

	if (mremap(before, HUGE_BYTES, HUGE_BYTES, MREMAP_MAYMOVE | MREMAP_FIXED, free_place) == MAP_FAILED)
		return false;
	words = (volatile uint32_t *)free_place;
	free_place = before;
	return mmap(before, HUGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == before;
}

/* As above, but it is this process that looks, where it has moved the mapping to. */
static int move_and_lose(const struct buffer *own)
{
	struct others others = { .words = NULL };
	bool lost, good = interrupt(own, &lost) && move() && interrupt(own, &lost) &&
			  (lost || ask(own, HOSTBLOB_TTM_GUT, 0, NULL)) && others_take(&others);
	int saw = good ? look() : -1;

	others_leave(&others);
	return saw;
}

static int move_once(void)
{
	return move() ? look() : -1;
}

static const struct way {
	const char *name;
	enum hostblob_ttm_calls call;
	int (*once)(void);
	int (*and_lose)(const struct buffer *own);
} ways[] = {
	{ "fork", HOSTBLOB_TTM_IN_FORK, fork_once, fork_and_lose },
	{ "mremap", HOSTBLOB_TTM_IN_MREMAP, move_once, move_and_lose },
};

/* Returns whether all went as it should but for what was seen. */
static bool call_all(const struct buffer *own, const struct way *way, uint64_t calls, int orders,
		     uint64_t saw[SIGHTS])
{
	for (uint64_t i = 0; i < calls; i++) {
		/* A stale entry of an earlier call would be in the way of a new one. */
		if (i % LOSES_AFTER == 0 && !ask(own, HOSTBLOB_TTM_GUT, 0, NULL))
			return false;
		fill(words, OWN);
		if (i % LOSES_AFTER == LOSES_AFTER / 2 && write(orders, "", 1) != 1)
			return false;
		int result = i % LOSES_AFTER ? way->once() : way->and_lose(own);

		if (result < 0 || result >= SIGHTS)
			return false;
		saw[result]++;
	}
	return true;
}

static int storm(const struct way *way, uint64_t calls, bool stale)
{
	uint64_t saw[SIGHTS] = { 0 };
	struct buffer own;
	int orders[2];
	bool before;

	/* Of these TTM's pool gives the next buffer what was freed last. */
	if (buffer_choose_kind(node, "write-combined") ||
	    buffer_create(node, TEST_DRIVER, BUFFER_DRM_FD, HUGE_BYTES, &own) || pipe(orders))
		return 1;
	call = way->call;
	words = map(&own);
	free_place = area_reserve(HUGE_BYTES);
	pid_t losing = words && free_place ? start_losing(&own, orders) : -1;

	if (losing < 0)
		return 1;
	bool good = call_all(&own, way, calls, orders[1], saw);

	good &= interrupt(&own, &before);
	ask(&own, HOSTBLOB_TTM_INTERRUPT, HOSTBLOB_TTM_IN_NONE, NULL);
	close(orders[1]);
	good &= waitpid(losing, NULL, 0) == losing && !saw[SAW_NONSENSE];
	printf("%" PRIu64 " times %s(), %" PRIu64 " interrupted: saw its own data %" PRIu64 " times, an empty page %" PRIu64
	       " times, another buffer's data %" PRIu64 " times, other things %" PRIu64 " times\n",
	       calls, way->name, interrupted, saw[SAW_OWN], saw[SAW_NOTHING], saw[SAW_OTHERS], saw[SAW_NONSENSE]);
	return good && !saw[SAW_OTHERS] != stale ? 0 : 1;
}

static const struct way *way_of(const char *name)
{
	for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
		if (!strcmp(ways[i].name, name))
			return &ways[i];
	}
	return NULL;
}

int main(int argc, char **argv)
{
	static const char usage[] = "Usage: fork-storm TIMES safe|stale [fork|mremap]\n"
				    "Fork that often while a buffer loses its pages to another one, or move its\n"
				    "mapping with mremap().\n\n"
				    "safe: nobody may see the other buffer; stale: somebody has to at least once.\n\n"
				    "Exit status: 0 as expected, 1 not so, 2 bad usage, 77 skipped.\n";
	char *end = NULL;

	if (argc == 2 && !strcmp(argv[1], "--help")) {
		fputs(usage, stdout);
		return 0;
	}
	uint64_t calls = argc == 3 || argc == 4 ? strtoull(argv[1], &end, 10) : 0;
	const struct way *way = way_of(argc == 4 ? argv[3] : "fork");

	if (!calls || *end || !way || (strcmp(argv[2], "safe") && strcmp(argv[2], "stale"))) {
		fputs(usage, stderr);
		return 2;
	}
	node = test_driver_open();
	if (node < 0)
		return skip("the TTM test driver is not loaded");
	return storm(way, calls, !strcmp(argv[2], "stale"));
}

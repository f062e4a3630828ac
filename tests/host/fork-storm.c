// SPDX-License-Identifier: MIT
/*
 * A process that has a buffer mapped forks, over and over, while the buffer loses its pages:
 * by a process beside it, by the parent once it has forked, and by the test driver in the
 * midst of the fork, where the kernel has read the entry for 2 MiB and has not yet taken the
 * lock that guards it. The pages go to another buffer. A child must never see that one's.
 * See --help.
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

static void fill(volatile uint32_t *words, uint32_t value)
{
	for (uint32_t page = 0; page < PAGES; page += PAGES / LOOKED_AT)
		words[page * PAGE_WORDS] = value + page;
}

static int look(volatile uint32_t *words)
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

static uint64_t interrupted;

/*
 * Whether forks were interrupted since this was asked before. Those that follow will be,
 * if they can be on this kernel.
 */
static bool interrupt(const struct buffer *buffer, bool *before)
{
	uint32_t count = 0;

	if (!ask(buffer, HOSTBLOB_TTM_FORK, 1, &count) && errno != EOPNOTSUPP)
		return false;
	interrupted += count;
	*before = count > 0;
	return true;
}

/* Another buffer has the pages for as long as the child looks. Returns what it saw, or -1. */
static int fork_and_lose(const struct buffer *own, volatile uint32_t *words)
{
	volatile uint32_t *others_words = NULL;
	struct buffer others;
	int go[2], status = -1;
	bool lost;

	if (!interrupt(own, &lost) || pipe(go))
		return -1;
	pid_t child = fork();
	char byte = 0;

	if (!child)
		_exit(read(go[0], &byte, 1) == 1 ? look(words) : SAW_NONSENSE);
	/* Once is enough: another time would take away what is not to be there. */
	bool good = child > 0 && interrupt(own, &lost) && (lost || ask(own, HOSTBLOB_TTM_GUT, 0, NULL));

	if (good && !buffer_create(node, TEST_DRIVER, BUFFER_DRM_FD, HUGE_BYTES, &others))
		others_words = map(&others);
	if (others_words)
		fill(others_words, OTHERS);
	good = write(go[1], &byte, 1) == 1 && others_words;
	close(go[0]);
	close(go[1]);
	good = child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && good;
	if (others_words) {
		munmap((void *)others_words, HUGE_BYTES);
		drmCloseBufferHandle(node, others.handle);
	}
	return good ? WEXITSTATUS(status) : -1;
}

static int fork_once(volatile uint32_t *words)
{
	int status;
	pid_t child = fork();

	if (!child)
		_exit(look(words));
	return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* Returns whether all went as it should but for what the children saw. */
static bool fork_all(const struct buffer *own, volatile uint32_t *words, uint64_t forks, int orders, uint64_t saw[SIGHTS])
{
	for (uint64_t i = 0; i < forks; i++) {
		fill(words, OWN);
		if (i % LOSES_AFTER == LOSES_AFTER / 2 && write(orders, "", 1) != 1)
			return false;
		int result = i % LOSES_AFTER ? fork_once(words) : fork_and_lose(own, words);

		if (result < 0 || result >= SIGHTS)
			return false;
		saw[result]++;
	}
	return true;
}

static int storm(uint64_t forks, bool stale)
{
	uint64_t saw[SIGHTS] = { 0 };
	struct buffer own;
	int orders[2];
	bool before;

	/* Of these TTM's pool gives the next buffer what was freed last. */
	if (buffer_choose_kind(node, "write-combined") ||
	    buffer_create(node, TEST_DRIVER, BUFFER_DRM_FD, HUGE_BYTES, &own) || pipe(orders))
		return 1;
	volatile uint32_t *words = map(&own);
	pid_t losing = words ? start_losing(&own, orders) : -1;

	if (losing < 0)
		return 1;
	bool good = fork_all(&own, words, forks, orders[1], saw);

	good &= interrupt(&own, &before);
	ask(&own, HOSTBLOB_TTM_FORK, 0, NULL);
	close(orders[1]);
	good &= waitpid(losing, NULL, 0) == losing && !saw[SAW_NONSENSE];
	printf("%" PRIu64 " forks, %" PRIu64 " interrupted: the child saw its own data %" PRIu64 " times, an empty page %" PRIu64
	       " times, another buffer's data %" PRIu64 " times, other things %" PRIu64 " times\n",
	       forks, interrupted, saw[SAW_OWN], saw[SAW_NOTHING], saw[SAW_OTHERS], saw[SAW_NONSENSE]);
	return good && !saw[SAW_OTHERS] != stale ? 0 : 1;
}

int main(int argc, char **argv)
{
	static const char usage[] = "Usage: fork-storm FORKS safe|stale\n"
				    "Fork that often while a buffer loses its pages to another one.\n\n"
				    "safe: no child may see the other buffer; stale: at least one has to.\n\n"
				    "Exit status: 0 as expected, 1 not so, 2 bad usage, 77 skipped.\n";
	char *end = NULL;

	if (argc == 2 && !strcmp(argv[1], "--help")) {
		fputs(usage, stdout);
		return 0;
	}
	uint64_t forks = argc == 3 ? strtoull(argv[1], &end, 10) : 0;

	if (!forks || *end || (strcmp(argv[2], "safe") && strcmp(argv[2], "stale"))) {
		fputs(usage, stderr);
		return 2;
	}
	node = test_driver_open();
	if (node < 0)
		return skip("the TTM test driver is not loaded");
	return storm(forks, !strcmp(argv[2], "stale"));
}

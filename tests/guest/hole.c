// SPDX-License-Identifier: MIT
/*
 * Shows that nothing of a blob is left in the window once it is freed, and that a hole
 * in the window takes writes. It overwrites every other blob of this guest.
 */
#include "blob.h"
#include "window.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PAGES 256u
#define SECRET 0x5ec7e7b10b5ec7e7u

static uint64_t find_secret(const struct window *window)
{
	uint64_t found = 0;

	for (uint64_t byte = 0; byte < window->size; byte += PAGE_BYTES)
		found += window->words[byte / 8] == SECRET;
	return found;
}

/*
 * The kernel has a worker free a blob once the device has answered to other commands.
 * Waiting for a command of our own gives it the time that it needs.
 */
static uint64_t find_secret_later(int node, const struct window *window)
{
	uint64_t left = find_secret(window);
	struct blob other;

	for (int round = 0; round < 1000 && left; round++) {
		if (blob_create(node, PAGE_BYTES, &other))
			return left;
		blob_destroy(&other);
		left = find_secret(window);
	}
	return left;
}

static uint64_t count_holes_that_take_no_write(const struct window *window)
{
	uint64_t wrong = 0;

	for (uint64_t byte = 0; byte < window->size; byte += PAGE_BYTES) {
		window->words[byte / 8] = byte;
		wrong += window->words[byte / 8] != byte;
	}
	return wrong;
}

int main(void)
{
	const uint64_t secret = SECRET;
	uint64_t seen, left, wrong;
	struct window window;
	struct blob blob;
	char path[256];
	int node = blob_open_node(NULL, path, sizeof(path));

	if (node < 0 || window_map(node, &window) || blob_create(node, PAGES * PAGE_BYTES, &blob))
		return 1;
	for (uint64_t page = 0; page < PAGES; page++)
		memcpy(blob.data + page * PAGE_BYTES, &secret, sizeof(secret));
	seen = find_secret(&window);
	blob_destroy(&blob);
	left = find_secret_later(node, &window);
	/* The window is one hole now, but for a page at most. */
	wrong = count_holes_that_take_no_write(&window);
	printf("window of %" PRIu64 " bytes: %" PRIu64 " pages of the blob seen, %" PRIu64
	       " left after it was freed, %" PRIu64 " holes that do not take a write\n",
	       window.size, seen, left, wrong);
	close(node);
	return seen == PAGES && !left && !wrong ? 0 : 1;
}

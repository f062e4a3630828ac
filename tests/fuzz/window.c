// SPDX-License-Identifier: MIT
/*
 * Sequences of commands on a device with the library's own window and memfds, where
 * the pages themselves are the oracle: a mapped blob shows what was written to it, at
 * its place and nowhere else, and a hole shows nothing of any blob. A lost blob is one
 * more blob, of zeros. What the commands answer is another target's subject.
 */
#include "fuzz.h"
#include "hostblob.h"

#include <dirent.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096ull
#define PAGES 16ull
#define BLOBS 6

struct blob {
	bool exists, mapped, lost;
	uint64_t pages, place;
	uint32_t word[PAGES]; /* the first of each page */
};

static struct blob blobs[BLOBS];
static uint32_t holes[PAGES]; /* the first word of each page of the sink */
static uint32_t next_word;    /* no two writes write the same */
static struct hostblob_allocator *allocator;
static struct hostblob_window *window;
static struct hostblob_device *device;

static unsigned int count_files(void)
{
	DIR *folder = opendir("/proc/self/fd");
	unsigned int count = 0;

	CHECK(folder);
	while (readdir(folder))
		count++;
	closedir(folder);
	return count;
}

static volatile uint32_t *page_at(uint64_t page)
{
	return (volatile uint32_t *)((char *)hostblob_window_base(window) + page * PAGE);
}

/* What the first word of a page of the window has to be. */
static uint32_t *word_at(uint64_t page)
{
	for (int i = 0; i < BLOBS; i++) {
		struct blob *blob = &blobs[i];

		if (blob->mapped && page >= blob->place && page < blob->place + blob->pages)
			return &blob->word[page - blob->place];
	}
	return &holes[page];
}

static void create(uint32_t id, uint64_t pages)
{
	if (hostblob_blob_create(device, 1, id + 1, 1, 0, pages * PAGE))
		return;
	CHECK(!blobs[id].exists);
	blobs[id] = (struct blob){ .exists = true, .pages = pages };
}

static void map(uint32_t id, uint64_t page)
{
	uint32_t map_info;

	if (hostblob_blob_map(device, id + 1, page * PAGE, &map_info))
		return;
	CHECK(blobs[id].exists && !blobs[id].mapped && page + blobs[id].pages <= PAGES);
	blobs[id].mapped = true;
	blobs[id].place = page;
	if (blobs[id].lost)
		memset(blobs[id].word, 0, sizeof(blobs[id].word));
}

static void unref(uint32_t id)
{
	if (!hostblob_resource_unref(device, id + 1))
		blobs[id] = (struct blob){ 0 };
}

static void lose(uint64_t page)
{
	if (hostblob_device_lose(device, page * PAGE))
		return;
	for (int i = 0; i < BLOBS; i++) {
		struct blob *blob = &blobs[i];

		if (blob->mapped && page >= blob->place && page < blob->place + blob->pages) {
			blob->lost = true;
			memset(blob->word, 0, sizeof(blob->word));
		}
	}
}

static void reset(void)
{
	hostblob_device_reset(device);
	hostblob_window_clear_sink(window);
	CHECK(!hostblob_context_create(device, 1, 0));
	memset(blobs, 0, sizeof(blobs));
	memset(holes, 0, sizeof(holes));
}

static void run(struct input *input)
{
	uint8_t command = take(input), value = take(input);
	uint32_t id = value % BLOBS;
	uint64_t page = value / BLOBS % (PAGES + 1);

	switch (command % 8) {
	case 0: create(id, page); break;
	case 1: map(id, page); break;
	case 2:
		if (!hostblob_blob_unmap(device, id + 1))
			blobs[id].mapped = false;
		break;
	case 3: unref(id); break;
	case 4: lose(page); break;
	case 5: reset(); break;
	default:
		page = value % PAGES;
		*word_at(page) = *page_at(page) = ++next_word;
	}
	for (page = 0; page < PAGES; page++)
		CHECK(*page_at(page) == *word_at(page));
}

static void end(void *opaque)
{
	(void)opaque;
	CHECK(!"the window has a gap");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input input = { data, size };
	unsigned int files;

	/* One window for all inputs: its mappings take longer than all the rest. */
	if (!window) {
		struct hostblob_window_config window_config = { .struct_size = sizeof(window_config),
								.size = PAGES * PAGE, .fatal = end };
		struct hostblob_config config = { .struct_size = sizeof(config), .window_size = PAGES * PAGE };
		char error[256];

		CHECK(!hostblob_allocator_open(NULL, -1, &allocator, error, sizeof(error)));
		CHECK(!hostblob_window_create(&window_config, &window));
		config.allocator = allocator;
		config.mapper = hostblob_window_mapper(window);
		CHECK(!hostblob_device_create(&config, &device));
	}
	next_word = 0;
	reset();
	files = count_files();
	while (input.left)
		run(&input);
	reset();
	CHECK(count_files() == files);
	return 0;
}

// SPDX-License-Identifier: MIT
/*
 * The window of a VMM that maps in its own process: one reservation, which is
 * never shorter and never has a gap, with buffers and the sink laid over it. A blob that
 * was lost has memory of its own instead. KVM follows through its mmu_notifier, so that no
 * memslot changes.
 */
#include "hostblob.h"
#include "structures.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* Given back when the process has no mappings left, so that unmapping can't fail. */
#define SPARE_MAPPINGS 16

/*
 * A process may have 65530 mappings, and the blobs need two each. An 8 GiB window takes
 * 512 of them idle; one of more than 64 GiB has a larger sink in place of more mappings.
 */
#define SINK_BYTES (16ull << 20)
#define SINK_MAPPINGS 4096
#define ALIGNMENT_MAX (1ull << 30)

struct hostblob_window {
	uint8_t *base;
	uint64_t size;
	int sink;
	uint64_t sink_size;
	int lost;
	bool has_lost;
	uint8_t *spare;
	void (*fatal)(void *opaque);
	void *opaque;
	bool broken; /* there is a gap, and the VMM runs on */
};

/* Guest memory belongs in no child process, and a guest's buffers in no core dump. */
static void keep_private(void *address, uint64_t size)
{
	madvise(address, size, MADV_DONTFORK);
	madvise(address, size, MADV_DONTDUMP);
}

static int map_sink(struct hostblob_window *window, uint64_t offset, uint64_t size, uint64_t sink_offset)
{
	void *address = mmap(window->base + offset, size, PROT_READ | PROT_WRITE,
			     MAP_SHARED | MAP_FIXED, window->sink, (off_t)sink_offset);

	if (address == MAP_FAILED)
		return -errno;
	keep_private(address, size);
	/*
	 * As QEMU asks for all guest memory: what is laid later has to be like what
	 * was there, or each hole that a guest makes is a mapping for good.
	 */
	madvise(address, size, MADV_HUGEPAGE);
	return 0;
}

/* Each offset of the window always has the same place in the sink. */
static int lay_sink(struct hostblob_window *window, uint64_t offset, uint64_t size)
{
	while (size) {
		uint64_t place = offset % window->sink_size;
		uint64_t length = window->sink_size - place < size ? window->sink_size - place : size;
		int result = map_sink(window, offset, length, place);

		if (result)
			return result;
		offset += length;
		size -= length;
	}
	return 0;
}

static size_t page_bytes(void)
{
	return (size_t)sysconf(_SC_PAGESIZE);
}

static void release_spare(struct hostblob_window *window)
{
	if (window->spare)
		munmap(window->spare, SPARE_MAPPINGS * page_bytes());
	window->spare = NULL;
}

/* Neighbours with different protection are mappings of their own. */
static int make_spare(struct hostblob_window *window)
{
	void *spare;

	if (window->spare)
		return 0;
	spare = mmap(NULL, SPARE_MAPPINGS * page_bytes(), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (spare == MAP_FAILED)
		return -errno;
	window->spare = spare;
	for (unsigned int i = 1; i < SPARE_MAPPINGS; i += 2) {
		if (mprotect(window->spare + i * page_bytes(), page_bytes(), PROT_READ)) {
			int error = errno;

			release_spare(window);
			return -error;
		}
	}
	return 0;
}

/* What becomes of the process is the VMM's to decide. */
static void report_gap(struct hostblob_window *window)
{
	window->broken = true;
	window->fatal(window->opaque);
}

/*
 * The sink takes several mappings where a large buffer took one, and the process
 * may have too many. Then it becomes one mapping, which costs memory of its own,
 * from the same file. Whatever the process maps next could land in a gap, in the
 * guest's reach: if nothing fits, only an end will do.
 */
static void restore_sink(struct hostblob_window *window, uint64_t offset, uint64_t size)
{
	if (!lay_sink(window, offset, size))
		return;
	release_spare(window);
	if (map_sink(window, offset, size, offset))
		report_gap(window);
}

static bool has_gap(struct hostblob_window *window, uint64_t offset, uint64_t size)
{
	return msync(window->base + offset, size, MS_ASYNC) && errno == ENOMEM;
}

/*
 * Where the place of an offset of the window is among the lost blobs'. There is room
 * between neighbours: else they would be one mapping, and to unmap one of them would
 * take another.
 */
static uint64_t lost_place(uint64_t offset)
{
	return 2 * offset;
}

static int lay_lost(struct hostblob_window *window, uint64_t offset, uint64_t size)
{
	void *address = mmap(window->base + offset, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
			     window->lost, (off_t)lost_place(offset));

	if (address == MAP_FAILED)
		return -errno;
	keep_private(address, size);
	return 0;
}

static void clear(int fd, uint64_t offset, uint64_t size)
{
	fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)size);
}

static int make_file(const char *name, uint64_t size)
{
	int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)size) || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)) {
		int error = errno;

		close(fd);
		return -error;
	}
	return fd;
}

/* Addresses for @size bytes, aligned, that nothing else in the process gets. */
static uint8_t *reserve(uint64_t size, uint64_t alignment)
{
	uint64_t total;
	uint8_t *address, *aligned;

	if (__builtin_add_overflow(size, alignment, &total) || total > SIZE_MAX)
		return NULL;
	address = mmap(NULL, total, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (address == MAP_FAILED)
		return NULL;
	aligned = (uint8_t *)(((uintptr_t)address + alignment - 1) & ~(uintptr_t)(alignment - 1));
	if (aligned > address)
		munmap(address, (size_t)(aligned - address));
	munmap(aligned + size, (size_t)(address + total - (aligned + size)));
	return aligned;
}

static uint64_t sink_size_of(uint64_t size)
{
	uint64_t sink = size / SINK_MAPPINGS > SINK_BYTES ? size / SINK_MAPPINGS : SINK_BYTES;

	return size < sink ? size : sink;
}

int hostblob_window_create(const struct hostblob_window_config *given, struct hostblob_window **result)
{
	struct hostblob_window_config config;
	struct hostblob_window *window;
	int error = hostblob_structure_read(&config, sizeof(config), given, 0);
	uint64_t size;

	if (error)
		return error;
	size = config.size;
	if (size < page_bytes() || (size & (size - 1)) || !config.fatal)
		return -EINVAL;
	window = calloc(1, sizeof(*window));
	if (!window)
		return -ENOMEM;
	window->size = size;
	window->fatal = config.fatal;
	window->opaque = config.opaque;
	window->sink_size = sink_size_of(size);
	window->sink = make_file("hostblob-sink", size);
	if (window->sink < 0) {
		error = window->sink;
		goto free_window;
	}
	window->lost = make_file("hostblob-lost", lost_place(size));
	if (window->lost < 0) {
		error = window->lost;
		goto close_sink;
	}
	error = -ENOMEM;
	window->base = reserve(size, size < ALIGNMENT_MAX ? size : ALIGNMENT_MAX);
	if (!window->base)
		goto close_lost;
	error = lay_sink(window, 0, size);
	if (!error)
		error = make_spare(window);
	if (error)
		goto release;
	*result = window;
	return 0;
release:
	munmap(window->base, size);
close_lost:
	close(window->lost);
close_sink:
	close(window->sink);
free_window:
	free(window);
	return error;
}

void hostblob_window_destroy(struct hostblob_window *window)
{
	if (!window)
		return;
	release_spare(window);
	munmap(window->base, window->size);
	close(window->lost);
	close(window->sink);
	free(window);
}

void *hostblob_window_base(const struct hostblob_window *window)
{
	return window->base;
}

static int window_map(void *opaque, uint64_t offset, const struct hostblob_buffer *buffer)
{
	struct hostblob_window *window = opaque;
	int error = window->broken ? -ENOTRECOVERABLE : make_spare(window);
	void *address;

	if (error)
		return error;
	/*
	 * Mapped elsewhere first: where a driver refuses, MAP_FIXED has removed what
	 * was there, and another thread's mapping may land in the gap.
	 */
	address = mmap(NULL, buffer->size, PROT_READ | PROT_WRITE, MAP_SHARED, buffer->fd, 0);
	if (address == MAP_FAILED)
		return -errno;
	keep_private(address, buffer->size);
	if (mremap(address, buffer->size, buffer->size, MREMAP_MAYMOVE | MREMAP_FIXED,
		   window->base + offset) != MAP_FAILED)
		return 0;
	error = errno;
	munmap(address, buffer->size);
	if (has_gap(window, offset, buffer->size))
		restore_sink(window, offset, buffer->size);
	return -error;
}

static void window_unmap(void *opaque, uint64_t offset, uint64_t size)
{
	struct hostblob_window *window = opaque;

	restore_sink(window, offset, size);
	/* Whose it was is not known here. The next blob that is lost there has to be zero. */
	if (window->has_lost)
		clear(window->lost, lost_place(offset), size);
}

/*
 * Can run in a signal handler, as it makes system calls only. What was there has to go,
 * even where the process has no mapping to spare.
 */
static int window_lose(void *opaque, uint64_t offset, uint64_t size)
{
	struct hostblob_window *window = opaque;
	int error;

	if (window->broken)
		return -ENOTRECOVERABLE;
	window->has_lost = true;
	error = lay_lost(window, offset, size);
	if (!error)
		return 0;
	release_spare(window);
	error = lay_lost(window, offset, size);
	if (error && has_gap(window, offset, size))
		report_gap(window);
	return error;
}

struct hostblob_mapper hostblob_window_mapper(struct hostblob_window *window)
{
	return (struct hostblob_mapper){
		.map = window_map,
		.unmap = window_unmap,
		.lose = window_lose,
		.opaque = window,
	};
}

void hostblob_window_clear_sink(struct hostblob_window *window)
{
	clear(window->sink, 0, window->size);
}

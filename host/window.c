// SPDX-License-Identifier: MIT
/*
 * The window of a VMM that maps in its own process: one reservation, which is
 * never shorter and never has a gap, with buffers laid over it by MAP_FIXED. KVM
 * follows through its mmu_notifier, so that no memslot changes.
 */
#include "hostblob.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* A process may have 65530 mappings; an 8 GiB window needs 512 of them idle. */
#define SINK_MAX (16ull << 20)
#define ALIGNMENT_MAX (1ull << 30)

struct hostblob_window {
	uint8_t *base;
	uint64_t size;
	int sink;
	uint64_t sink_size;
};

static int lay(struct hostblob_window *window, uint64_t offset, uint64_t size, int fd,
	       uint64_t fd_offset)
{
	void *address = mmap(window->base + offset, size, PROT_READ | PROT_WRITE,
			     MAP_SHARED | MAP_FIXED, fd, (off_t)fd_offset);

	return address == MAP_FAILED ? -errno : 0;
}

/* Each offset of the window always has the same place in the sink. */
static int lay_sink(struct hostblob_window *window, uint64_t offset, uint64_t size)
{
	while (size) {
		uint64_t place = offset % window->sink_size;
		uint64_t length = window->sink_size - place < size ? window->sink_size - place : size;
		int result = lay(window, offset, length, window->sink, place);

		if (result)
			return result;
		offset += length;
		size -= length;
	}
	return 0;
}

/*
 * A failed MAP_FIXED may have removed what was there. Whatever the process maps
 * next could land in the gap, in the guest's reach: only the sink or an end will
 * do.
 */
static void restore_sink(struct hostblob_window *window, uint64_t offset, uint64_t size)
{
	if (lay_sink(window, offset, size))
		abort();
}

static int make_sink(uint64_t size)
{
	int fd = memfd_create("hostblob-sink", MFD_CLOEXEC | MFD_ALLOW_SEALING);

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

int hostblob_window_create(uint64_t size, struct hostblob_window **result)
{
	struct hostblob_window *window;
	int error = -ENOMEM;

	if (!size || (size & (size - 1)) || size < (uint64_t)sysconf(_SC_PAGESIZE))
		return -EINVAL;
	window = calloc(1, sizeof(*window));
	if (!window)
		return -ENOMEM;
	window->size = size;
	window->sink_size = size < SINK_MAX ? size : SINK_MAX;
	window->sink = make_sink(window->sink_size);
	if (window->sink < 0) {
		error = window->sink;
		goto free_window;
	}
	window->base = reserve(size, size < ALIGNMENT_MAX ? size : ALIGNMENT_MAX);
	if (!window->base)
		goto close_sink;
	error = lay_sink(window, 0, size);
	if (error)
		goto release;
	*result = window;
	return 0;
release:
	munmap(window->base, size);
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
	munmap(window->base, window->size);
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
	int result = lay(window, offset, buffer->size, buffer->fd, 0);

	if (result)
		restore_sink(window, offset, buffer->size);
	return result;
}

static void window_unmap(void *opaque, uint64_t offset, uint64_t size)
{
	restore_sink(opaque, offset, size);
}

struct hostblob_mapper hostblob_window_mapper(struct hostblob_window *window)
{
	return (struct hostblob_mapper){
		.map = window_map,
		.unmap = window_unmap,
		.opaque = window,
	};
}

void hostblob_window_clear_sink(struct hostblob_window *window)
{
	fallocate(window->sink, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)window->sink_size);
}

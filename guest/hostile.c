// SPDX-License-Identifier: MIT
/*
 * All values come from a generator with a seed, so that two runs differ in their
 * timing only. Sizes of what the guest's own memory backs are small: this is to hurt
 * the host, not the guest.
 */
#include "hostile.h"
#include "blob.h"

#include <drm/virtgpu_drm.h>
#include <drm_fourcc.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xf86drm.h>

#define HANDLES 16
#define PAGE 4096u

struct side {
	int node;
	uint32_t handles[HANDLES];
	uint64_t sizes[HANDLES];
};

struct fighter {
	const char *path;
	unsigned int seed;
	struct side sides[2];
};

static uint32_t any(struct fighter *fighter, uint32_t below)
{
	return (uint32_t)rand_r(&fighter->seed) % below;
}

/* Numbers that mean something to somebody: small ones, ids, sizes, ends of ranges. */
static uint32_t any_word(struct fighter *fighter)
{
	static const uint32_t ends[] = { UINT32_MAX, 1u << 31, INT32_MAX, UINT32_MAX - PAGE + 1 };
	uint32_t kind = any(fighter, 64);

	if (kind == 0)
		return ends[any(fighter, 4)];
	if (kind < 8)
		return DRM_FORMAT_NV12;
	return kind < 24 ? PAGE * any(fighter, 64) : any(fighter, kind < 48 ? 16 : 256);
}

static void open_side(struct fighter *fighter, struct side *side)
{
	static const uint32_t capsets[] = { 5, 5, 5, 0, 1, 63, 64 };
	struct drm_virtgpu_context_set_param parameters[] = {
		{ .param = VIRTGPU_CONTEXT_PARAM_CAPSET_ID, .value = capsets[any(fighter, 7)] },
		{ .param = VIRTGPU_CONTEXT_PARAM_NUM_RINGS, .value = 1 + any(fighter, 3) },
	};
	struct drm_virtgpu_context_init context = { .num_params = 2, .ctx_set_params = (uintptr_t)parameters };
	char found[256];

	close(side->node);
	*side = (struct side){ .node = blob_open_node(fighter->path, found, sizeof(found)) };
	if (any(fighter, 4))
		drmIoctl(side->node, DRM_IOCTL_VIRTGPU_CONTEXT_INIT, &context);
}

static void create(struct fighter *fighter, struct side *side, uint32_t slot)
{
	struct drm_virtgpu_resource_create_blob create = {
		.blob_mem = any(fighter, 8) ? VIRTGPU_BLOB_MEM_HOST3D : any(fighter, 5),
		.blob_flags = any(fighter, 4) ? VIRTGPU_BLOB_FLAG_USE_MAPPABLE : any(fighter, 16),
		.blob_id = any(fighter, 2) ? 0 : any_word(fighter),
		.size = (uint64_t)PAGE * any(fighter, 512),
	};

	if (any(fighter, 16) == 0 && create.blob_mem == VIRTGPU_BLOB_MEM_HOST3D)
		create.size = (uint64_t)any_word(fighter) << any(fighter, 33);
	if (drmIoctl(side->node, DRM_IOCTL_VIRTGPU_RESOURCE_CREATE_BLOB, &create))
		return;
	if (side->handles[slot])
		drmCloseBufferHandle(side->node, side->handles[slot]);
	side->handles[slot] = create.bo_handle;
	side->sizes[slot] = create.size;
}

/* Often freed by its handle, or by the end of its node, while it is mapped here. */
static void touch(struct fighter *fighter, struct side *side, uint32_t slot)
{
	struct drm_virtgpu_map map = { .handle = side->handles[slot] };
	uint64_t size = side->sizes[slot];
	volatile uint8_t *data;

	if (!size || drmIoctl(side->node, DRM_IOCTL_VIRTGPU_MAP, &map))
		return;
	data = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, side->node, (off_t)map.offset);
	if (data == MAP_FAILED)
		return;
	if (any(fighter, 2)) {
		drmCloseBufferHandle(side->node, side->handles[slot]);
		side->handles[slot] = 0;
		side->sizes[slot] = 0;
	}
	for (uint64_t i = 0; i < 8; i++)
		data[any(fighter, (uint32_t)size)] = (uint8_t)i;
	munmap((void *)data, size);
}

/* The other context gets the resource as well. */
static void hand_over(struct fighter *fighter, struct side *from, struct side *to)
{
	uint32_t source = any(fighter, HANDLES), slot = any(fighter, HANDLES), handle;
	int fd;

	if (drmPrimeHandleToFD(from->node, from->handles[source], DRM_CLOEXEC | DRM_RDWR, &fd))
		return;
	if (!drmPrimeFDToHandle(to->node, fd, &handle) && !to->handles[slot]) {
		to->handles[slot] = handle;
		to->sizes[slot] = from->sizes[source];
	}
	close(fd);
}

static void submit(struct fighter *fighter, struct side *side)
{
	static const uint32_t sizes[] = { 0, 4, 8, 16, 20, 24, 24, 36, 4096, 65535 };
	uint32_t words[32];
	struct drm_virtgpu_execbuffer execute = {
		.command = (uintptr_t)words,
		.size = any(fighter, sizeof(words) + 1),
		.flags = any(fighter, 2) ? VIRTGPU_EXECBUF_RING_IDX : 0,
		.ring_idx = any(fighter, 4),
	};

	for (unsigned int i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		words[i] = any_word(fighter);
	for (unsigned int i = 0; i < sizeof(words) / sizeof(words[0]); i += 6)
		words[i] = any(fighter, 5) | sizes[any(fighter, 10)] << 16;
	drmIoctl(side->node, DRM_IOCTL_VIRTGPU_EXECBUFFER, &execute);
}

static void get_caps(struct fighter *fighter, struct side *side)
{
	uint8_t data[256];
	struct drm_virtgpu_get_caps caps = {
		.cap_set_id = any(fighter, 2) ? 5 : any_word(fighter),
		.cap_set_ver = any(fighter, 4) ? 0 : any_word(fighter),
		.addr = (uintptr_t)data,
		.size = any(fighter, sizeof(data) + 1),
	};

	drmIoctl(side->node, DRM_IOCTL_VIRTGPU_GET_CAPS, &caps);
}

/* Any of the driver's own ioctls; addresses among the words are none of ours. */
static void call(struct fighter *fighter, struct side *side)
{
	uint32_t words[16], number = DRM_COMMAND_BASE + any(fighter, DRM_COMMAND_END - DRM_COMMAND_BASE);

	if (any(fighter, 4))
		number = DRM_COMMAND_BASE + any(fighter, 16);
	for (unsigned int i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		words[i] = any_word(fighter);
	ioctl(side->node, _IOC(_IOC_READ | _IOC_WRITE, DRM_IOCTL_BASE, number, 4 * any(fighter, 17)), words);
}

static void fight(const char *path, unsigned int seed, uint64_t count)
{
	struct fighter fighter = { .path = path, .seed = seed, .sides = { { .node = -1 }, { .node = -1 } } };

	for (uint64_t i = 0; i < count; i++) {
		struct side *side = &fighter.sides[i % 2], *other = &fighter.sides[!(i % 2)];
		uint32_t slot = any(&fighter, HANDLES);

		uint32_t kind = side->node < 0 ? 0 : any(&fighter, 32);

		if (kind == 0)
			open_side(&fighter, side);
		else if (kind < 11)
			create(&fighter, side, slot);
		else if (kind < 19)
			touch(&fighter, side, slot);
		else if (kind < 21)
			hand_over(&fighter, side, other);
		else if (kind < 26)
			submit(&fighter, side);
		else if (kind == 26)
			get_caps(&fighter, side);
		else if (kind < 31)
			call(&fighter, side);
		else
			drmCloseBufferHandle(side->node, any_word(&fighter));
	}
}

static void write_all_over(const struct hostile_window *window)
{
	for (uint64_t value = 1;; value++) {
		for (uint64_t byte = 0; byte < window->size; byte += PAGE)
			window->words[byte / 8] += value;
	}
}

int hostile_run(const char *path, uint64_t count, const struct hostile_window *window)
{
	pid_t children[3];
	int status, result = 0;

	for (int i = 0; i < 3; i++) {
		children[i] = fork();
		if (children[i] < 0) {
			fprintf(stderr, "guestblob: fork: %s\n", strerror(errno));
			return -EAGAIN;
		}
		if (children[i])
			continue;
		if (i == 2)
			write_all_over(window);
		fight(path, (unsigned int)i + 1, count);
		_exit(0);
	}
	for (int i = 0; i < 2; i++) {
		if (waitpid(children[i], &status, 0) < 0 || !WIFEXITED(status)) {
			fprintf(stderr, "guestblob: a process was ended by signal %d\n", WTERMSIG(status));
			result = -EIO;
		}
	}
	/* It has no end of its own: dead now, it was killed by something else. */
	if (waitpid(children[2], &status, WNOHANG)) {
		fputs("guestblob: writing to the window ended a process\n", stderr);
		return -EIO;
	}
	kill(children[2], SIGKILL);
	waitpid(children[2], &status, 0);
	return result;
}

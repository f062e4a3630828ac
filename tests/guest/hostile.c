// SPDX-License-Identifier: MIT
/*
 * What a guest's user space can send to the device that it should not. Two processes of
 * two contexts each make, share, map and free blobs with what values they like, and submit
 * what they like; a third one writes all over the window meanwhile. How any of it is
 * answered does not matter, only that they live to the end. It overwrites every other
 * blob of this guest.
 *
 * All values come from a generator with a seed, so that two runs differ in their
 * timing only. Sizes of what the guest's own memory backs are small: this is to hurt
 * the host, not the guest.
 */
#include "blob.h"
#include "window.h"

#include <drm/virtgpu_drm.h>
#include <drm_fourcc.h>
#include <err.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xf86drm.h>

#define HANDLES 16

struct context {
	int node;
	uint32_t handles[HANDLES];
	uint64_t sizes[HANDLES];
};

struct caller {
	unsigned int seed;
	struct context contexts[2];
};

static uint32_t any(struct caller *caller, uint32_t below)
{
	return (uint32_t)rand_r(&caller->seed) % below;
}

/* Numbers that mean something to somebody: small ones, ids, sizes, ends of ranges. */
static uint32_t any_word(struct caller *caller)
{
	static const uint32_t ends[] = { UINT32_MAX, 1u << 31, INT32_MAX, UINT32_MAX - PAGE_BYTES + 1 };
	uint32_t kind = any(caller, 64);

	if (kind == 0)
		return ends[any(caller, 4)];
	if (kind < 8)
		return DRM_FORMAT_NV12;
	if (kind < 24)
		return PAGE_BYTES * any(caller, 64);
	return any(caller, kind < 48 ? 16 : 256);
}

static void open_context(struct caller *caller, struct context *context)
{
	static const uint32_t capsets[] = { 5, 5, 5, 0, 1, 63, 64 };
	struct drm_virtgpu_context_set_param parameters[] = {
		{ .param = VIRTGPU_CONTEXT_PARAM_CAPSET_ID, .value = capsets[any(caller, 7)] },
		{ .param = VIRTGPU_CONTEXT_PARAM_NUM_RINGS, .value = 1 + any(caller, 3) },
	};
	struct drm_virtgpu_context_init init = { .num_params = 2, .ctx_set_params = (uintptr_t)parameters };
	char found[256];

	close(context->node);
	*context = (struct context){ .node = blob_open_node(NULL, found, sizeof(found)) };
	if (any(caller, 4))
		drmIoctl(context->node, DRM_IOCTL_VIRTGPU_CONTEXT_INIT, &init);
}

static void create(struct caller *caller, struct context *context, uint32_t slot)
{
	struct drm_virtgpu_resource_create_blob create = {
		.blob_mem = any(caller, 8) ? VIRTGPU_BLOB_MEM_HOST3D : any(caller, 5),
		.blob_flags = any(caller, 4) ? VIRTGPU_BLOB_FLAG_USE_MAPPABLE : any(caller, 16),
		.blob_id = any(caller, 2) ? 0 : any_word(caller),
		.size = (uint64_t)PAGE_BYTES * any(caller, 512),
	};

	if (any(caller, 16) == 0 && create.blob_mem == VIRTGPU_BLOB_MEM_HOST3D)
		create.size = (uint64_t)any_word(caller) << any(caller, 33);
	if (drmIoctl(context->node, DRM_IOCTL_VIRTGPU_RESOURCE_CREATE_BLOB, &create))
		return;
	if (context->handles[slot])
		drmCloseBufferHandle(context->node, context->handles[slot]);
	context->handles[slot] = create.bo_handle;
	context->sizes[slot] = create.size;
}

/* Often freed by its handle, or by the end of its node, while it is mapped here. */
static void touch(struct caller *caller, struct context *context, uint32_t slot)
{
	struct drm_virtgpu_map map = { .handle = context->handles[slot] };
	uint64_t size = context->sizes[slot];
	volatile uint8_t *data;

	if (!size || drmIoctl(context->node, DRM_IOCTL_VIRTGPU_MAP, &map))
		return;
	data = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, context->node, (off_t)map.offset);
	if (data == MAP_FAILED)
		return;
	if (any(caller, 2)) {
		drmCloseBufferHandle(context->node, context->handles[slot]);
		context->handles[slot] = 0;
		context->sizes[slot] = 0;
	}
	for (uint64_t i = 0; i < 8; i++)
		data[any(caller, (uint32_t)size)] = (uint8_t)i;
	munmap((void *)data, size);
}

/* The other context gets the resource as well. */
static void hand_over(struct caller *caller, struct context *from, struct context *to)
{
	uint32_t source = any(caller, HANDLES), slot = any(caller, HANDLES), handle;
	int fd;

	if (drmPrimeHandleToFD(from->node, from->handles[source], DRM_CLOEXEC | DRM_RDWR, &fd))
		return;
	if (!drmPrimeFDToHandle(to->node, fd, &handle) && !to->handles[slot]) {
		to->handles[slot] = handle;
		to->sizes[slot] = from->sizes[source];
	}
	close(fd);
}

static void submit(struct caller *caller, struct context *context)
{
	static const uint32_t sizes[] = { 0, 4, 8, 16, 20, 24, 24, 36, 4096, 65535 };
	uint32_t words[32];
	struct drm_virtgpu_execbuffer execute = {
		.command = (uintptr_t)words,
		.size = any(caller, sizeof(words) + 1),
		.flags = any(caller, 2) ? VIRTGPU_EXECBUF_RING_IDX : 0,
		.ring_idx = any(caller, 4),
	};

	for (unsigned int i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		words[i] = any_word(caller);
	for (unsigned int i = 0; i < sizeof(words) / sizeof(words[0]); i += 6)
		words[i] = any(caller, 5) | sizes[any(caller, 10)] << 16;
	drmIoctl(context->node, DRM_IOCTL_VIRTGPU_EXECBUFFER, &execute);
}

static void get_caps(struct caller *caller, struct context *context)
{
	uint8_t data[256];
	struct drm_virtgpu_get_caps caps = {
		.cap_set_id = any(caller, 2) ? 5 : any_word(caller),
		.cap_set_ver = any(caller, 4) ? 0 : any_word(caller),
		.addr = (uintptr_t)data,
		.size = any(caller, sizeof(data) + 1),
	};

	drmIoctl(context->node, DRM_IOCTL_VIRTGPU_GET_CAPS, &caps);
}

/* Any of the driver's own ioctls; addresses among the words are none of ours. */
static void call(struct caller *caller, struct context *context)
{
	uint32_t words[16], number = DRM_COMMAND_BASE + any(caller, DRM_COMMAND_END - DRM_COMMAND_BASE);

	if (any(caller, 4))
		number = DRM_COMMAND_BASE + any(caller, 16);
	for (unsigned int i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		words[i] = any_word(caller);
	ioctl(context->node, _IOC(_IOC_READ | _IOC_WRITE, DRM_IOCTL_BASE, number, 4 * any(caller, 17)), words);
}

static void make_calls(unsigned int seed, uint64_t count)
{
	struct caller caller = { .seed = seed, .contexts = { { .node = -1 }, { .node = -1 } } };

	for (uint64_t i = 0; i < count; i++) {
		struct context *context = &caller.contexts[i % 2], *other = &caller.contexts[!(i % 2)];
		uint32_t slot = any(&caller, HANDLES);
		uint32_t kind = context->node < 0 ? 0 : any(&caller, 32);

		if (kind == 0)
			open_context(&caller, context);
		else if (kind < 11)
			create(&caller, context, slot);
		else if (kind < 19)
			touch(&caller, context, slot);
		else if (kind < 21)
			hand_over(&caller, context, other);
		else if (kind < 26)
			submit(&caller, context);
		else if (kind == 26)
			get_caps(&caller, context);
		else if (kind < 31)
			call(&caller, context);
		else
			drmCloseBufferHandle(context->node, any_word(&caller));
	}
}

static void write_all_over(const struct window *window)
{
	for (uint64_t value = 1;; value++) {
		for (uint64_t byte = 0; byte < window->size; byte += PAGE_BYTES)
			window->words[byte / 8] += value;
	}
}

static int run(uint64_t count, const struct window *window)
{
	pid_t children[3];
	int status, result = 0;

	for (int i = 0; i < 3; i++) {
		children[i] = fork();
		if (children[i] < 0) {
			warn("fork");
			return 1;
		}
		if (children[i])
			continue;
		if (i == 2)
			write_all_over(window);
		make_calls((unsigned int)i + 1, count);
		_exit(0);
	}
	for (int i = 0; i < 2; i++) {
		if (waitpid(children[i], &status, 0) < 0 || !WIFEXITED(status)) {
			warnx("a process was ended by signal %d", WTERMSIG(status));
			result = 1;
		}
	}
	/* It has no end of its own: dead now, it was killed by something else. */
	if (waitpid(children[2], &status, WNOHANG)) {
		warnx("writing to the window ended a process");
		return 1;
	}
	kill(children[2], SIGKILL);
	waitpid(children[2], &status, 0);
	return result;
}

int main(int argc, char **argv)
{
	uint64_t count = argc == 2 ? strtoull(argv[1], NULL, 10) : 0;
	struct window window;
	char path[256];
	int node;

	if (!count) {
		fputs("Usage: hostile CALLS\n", stderr);
		return 2;
	}
	node = blob_open_node(NULL, path, sizeof(path));
	if (node < 0 || window_map(node, &window) || run(count, &window))
		return 1;
	close(node);
	printf("%" PRIu64 " calls of two processes each survived\n", count);
	return 0;
}

// SPDX-License-Identifier: MIT
/*
 * Properties of libhostblob that need no DRM node and no KVM. Built with ASan and
 * UBSan; a leak fails the run.
 */
#include "hostblob.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <drm_fourcc.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_gpu.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE 4096ull
#define WINDOW (64 * PAGE)
#define MAPPABLE VIRTIO_GPU_BLOB_FLAG_USE_MAPPABLE

struct fixture {
	struct hostblob_allocator *allocator;
	struct hostblob_window *window;
	struct hostblob_device *device;
	uint8_t *base;
	uint32_t ring; /* the resource that has guest memory behind it */
	uint8_t ring_data[64];
	unsigned int ring_writes;
};

static int write_to_guest(void *opaque, uint32_t resource_id, const void *data, uint64_t size)
{
	struct fixture *fixture = opaque;

	if (resource_id != fixture->ring)
		return -EINVAL;
	assert_true(size <= sizeof(fixture->ring_data));
	memcpy(fixture->ring_data, data, size);
	fixture->ring_writes++;
	return 0;
}

static void do_not_end(void *opaque)
{
	(void)opaque;
	fail_msg("the window has a gap");
}

static struct hostblob_window *make_window(uint64_t size)
{
	const struct hostblob_window_config config = { .struct_size = sizeof(config), .size = size,
						       .fatal = do_not_end };
	struct hostblob_window *window;

	assert_int_equal(hostblob_window_create(&config, &window), 0);
	return window;
}

static struct hostblob_limits default_limits(void)
{
	struct hostblob_limits limits;

	hostblob_limits_init(&limits, sizeof(limits));
	return limits;
}

static struct hostblob_usage usage_of(const struct hostblob_device *device)
{
	struct hostblob_usage usage;

	hostblob_device_usage(device, &usage, sizeof(usage));
	return usage;
}

static int query(const struct hostblob_device *device, uint32_t resource_id, struct hostblob_blob_info *info)
{
	return hostblob_blob_query(device, resource_id, info, sizeof(*info));
}

static void make_device(struct fixture *fixture, struct hostblob_limits limits)
{
	struct hostblob_config config = { .struct_size = sizeof(config), .window_size = WINDOW, .limits = &limits };
	char error[256];

	assert_int_equal(hostblob_allocator_open(NULL, -1, &fixture->allocator, error, sizeof(error)), 0);
	fixture->window = make_window(WINDOW);
	fixture->base = hostblob_window_base(fixture->window);
	config.allocator = fixture->allocator;
	config.mapper = hostblob_window_mapper(fixture->window);
	config.guest = (struct hostblob_guest){ write_to_guest, fixture };
	assert_int_equal(hostblob_device_create(&config, &fixture->device), 0);
	assert_int_equal(hostblob_context_create(fixture->device, 1, 0), 0);
}

static int setup(void **state)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));

	make_device(fixture, default_limits());
	*state = fixture;
	return 0;
}

static int setup_small(void **state)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));
	struct hostblob_limits limits = default_limits();

	limits.bytes = 8 * PAGE;
	limits.blobs = 3;
	limits.mapped_blobs = 2;
	limits.contexts = 2;
	limits.resources = 4;
	limits.attachments = 3;
	limits.items = 2;
	make_device(fixture, limits);
	*state = fixture;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *fixture = *state;

	hostblob_device_destroy(fixture->device);
	hostblob_window_destroy(fixture->window);
	hostblob_allocator_close(fixture->allocator);
	free(fixture);
	return 0;
}

static int allocate(struct fixture *fixture, uint64_t size, struct hostblob_buffer *buffer)
{
	const struct hostblob_request request = { .struct_size = sizeof(request), .size = size };
	char error[256];

	return fixture->allocator->ops->allocate(fixture->allocator, &request, buffer, error, sizeof(error));
}

static int create(struct fixture *fixture, uint32_t id, uint64_t pages)
{
	return hostblob_blob_create(fixture->device, 1, id, MAPPABLE, 0, pages * PAGE);
}

static int map(struct fixture *fixture, uint32_t id, uint64_t offset)
{
	uint32_t map_info;

	return hostblob_blob_map(fixture->device, id, offset, &map_info);
}

static unsigned int count_files(void)
{
	DIR *folder = opendir("/proc/self/fd");
	unsigned int count = 0;

	if (!folder)
		abort();
	while (readdir(folder))
		count++;
	closedir(folder);
	return count;
}

static unsigned int count_mappings(void)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	unsigned int count = 0;
	int character;

	if (!maps)
		abort();
	while ((character = getc(maps)) != EOF)
		count += character == '\n';
	fclose(maps);
	return count;
}

static void assert_empty(struct fixture *fixture)
{
	struct hostblob_usage usage = usage_of(fixture->device);

	assert_int_equal(usage.bytes, 0);
	assert_int_equal(usage.mapped_bytes, 0);
	assert_int_equal(usage.blobs, 0);
	assert_int_equal(usage.mapped_blobs, 0);
	assert_int_equal(usage.resources, 0);
	assert_int_equal(usage.attachments, 0);
}

/* --- ids ------------------------------------------------------------------ */

static void context_ids_are_checked(void **state)
{
	struct fixture *fixture = *state;

	assert_int_equal(hostblob_context_create(fixture->device, 0, 0), -EINVAL);
	assert_int_equal(hostblob_context_create(fixture->device, 1, 0), -EALREADY);
	assert_int_equal(hostblob_context_create(fixture->device, 2, 6), -EINVAL);
	assert_int_equal(hostblob_context_create(fixture->device, 2, 1u << 31), -EINVAL);
	assert_int_equal(hostblob_context_destroy(fixture->device, 2), -ESRCH);
	assert_int_equal(hostblob_context_create(fixture->device, UINT32_MAX, 0), 0);
	assert_int_equal(hostblob_context_destroy(fixture->device, UINT32_MAX), 0);
	assert_int_equal(hostblob_context_create(fixture->device, UINT32_MAX, 0), 0);
}

static void attach_needs_both_ids(void **state)
{
	struct fixture *fixture = *state;

	assert_int_equal(create(fixture, 7, 1), 0);
	assert_int_equal(hostblob_context_attach(fixture->device, 1, 7), 0);
	assert_int_equal(hostblob_context_attach(fixture->device, 1, 7), 0);
	assert_int_equal(hostblob_context_attach(fixture->device, 2, 7), -ESRCH);
	assert_int_equal(hostblob_context_attach(fixture->device, 1, 8), -ENOENT);
	assert_int_equal(hostblob_context_detach(fixture->device, 1, 8), -ENOENT);
	assert_int_equal(hostblob_context_detach(fixture->device, 1, 7), 0);
}

static void resource_ids_are_one_space(void **state)
{
	struct fixture *fixture = *state;

	assert_int_equal(hostblob_resource_register(fixture->device, 0), -EINVAL);
	assert_int_equal(hostblob_resource_register(fixture->device, 3), 0);
	assert_int_equal(hostblob_resource_register(fixture->device, 3), -EEXIST);
	assert_int_equal(create(fixture, 3, 1), -EEXIST);
	assert_int_equal(create(fixture, 4, 1), 0);
	assert_int_equal(hostblob_resource_register(fixture->device, 4), -EEXIST);
	assert_int_equal(hostblob_resource_unref(fixture->device, 3), 0);
	assert_int_equal(hostblob_resource_unref(fixture->device, 3), -ENOENT);
	assert_int_equal(create(fixture, 3, 1), 0);
}

static void resources_of_the_vmm_are_no_blobs(void **state)
{
	struct fixture *fixture = *state;
	struct hostblob_blob_info info;

	assert_int_equal(hostblob_resource_register(fixture->device, 3), 0);
	assert_int_equal(map(fixture, 3, 0), -ENOENT);
	assert_int_equal(hostblob_blob_unmap(fixture->device, 3), -ENOENT);
	assert_int_equal(query(fixture->device, 3, &info), -ENOENT);
}

static void create_checks_every_argument(void **state)
{
	struct fixture *fixture = *state;
	struct hostblob_device *device = fixture->device;

	assert_int_equal(hostblob_blob_create(device, 1, 0, MAPPABLE, 0, PAGE), -EINVAL);
	assert_int_equal(hostblob_blob_create(device, 2, 9, MAPPABLE, 0, PAGE), -ESRCH);
	assert_int_equal(hostblob_blob_create(device, 0, 9, MAPPABLE, 0, PAGE), -ESRCH);
	assert_int_equal(hostblob_blob_create(device, 1, 9, 8, 0, PAGE), -EINVAL);
	assert_int_equal(hostblob_blob_create(device, 1, 9, UINT32_MAX, 0, PAGE), -EINVAL);
	assert_int_equal(hostblob_blob_create(device, 1, 9, MAPPABLE, 1, PAGE), -EINVAL);
	assert_int_equal(hostblob_blob_create(device, 1, 9, MAPPABLE, UINT64_MAX, PAGE), -EINVAL);
	assert_int_equal(hostblob_blob_create(device, 1, 9, MAPPABLE, 0, 0), -EINVAL);
	assert_int_equal(hostblob_blob_create(device, 1, 9, MAPPABLE, 0, PAGE + 1), -EINVAL);
	assert_int_equal(hostblob_blob_create(device, 1, 9, MAPPABLE, 0, UINT64_MAX), -EINVAL);
	assert_int_equal(hostblob_blob_create(device, 1, 9, MAPPABLE, 0, -PAGE), -ENOSPC);
	assert_int_equal(hostblob_blob_create(device, 1, 9, MAPPABLE, 0, 1ull << 63), -ENOSPC);
	assert_empty(fixture);
}

/* --- limits --------------------------------------------------------------- */

static void bytes_are_limited_and_returned(void **state)
{
	struct fixture *fixture = *state;

	assert_int_equal(create(fixture, 1, 9), -ENOSPC);
	assert_int_equal(create(fixture, 1, 5), 0);
	assert_int_equal(create(fixture, 2, 4), -ENOSPC);
	assert_int_equal(create(fixture, 2, 3), 0);
	assert_int_equal(create(fixture, 3, 1), -ENOSPC);
	assert_int_equal(hostblob_resource_unref(fixture->device, 1), 0);
	assert_int_equal(create(fixture, 3, 5), 0);
}

static void counts_are_limited(void **state)
{
	struct fixture *fixture = *state;

	for (uint32_t id = 1; id <= 3; id++)
		assert_int_equal(create(fixture, id, 1), 0);
	assert_int_equal(create(fixture, 4, 1), -ENOSPC);
	assert_int_equal(hostblob_resource_register(fixture->device, 4), 0);
	assert_int_equal(hostblob_resource_register(fixture->device, 5), -ENOSPC);
	assert_int_equal(hostblob_context_create(fixture->device, 2, 0), 0);
	assert_int_equal(hostblob_context_create(fixture->device, 3, 0), -ENOSPC);
}

static void mapped_blobs_are_limited(void **state)
{
	struct fixture *fixture = *state;

	for (uint32_t id = 1; id <= 3; id++)
		assert_int_equal(create(fixture, id, 1), 0);
	assert_int_equal(map(fixture, 1, 0), 0);
	assert_int_equal(map(fixture, 2, PAGE), 0);
	assert_int_equal(map(fixture, 3, 2 * PAGE), -ENOSPC);
	assert_int_equal(hostblob_blob_unmap(fixture->device, 1), 0);
	assert_int_equal(map(fixture, 3, 2 * PAGE), 0);
	assert_int_equal(map(fixture, 1, 0), -ENOSPC);
	assert_int_equal(hostblob_resource_unref(fixture->device, 2), 0);
	assert_int_equal(map(fixture, 1, 0), 0);
}

static int create_in(struct fixture *fixture, uint32_t context, uint32_t id, uint64_t pages)
{
	return hostblob_blob_create(fixture->device, context, id, MAPPABLE, 0, pages * PAGE);
}

static int setup_shares(void **state)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));
	struct hostblob_limits limits = default_limits();

	limits.context_bytes = 4 * PAGE;
	limits.context_blobs = 2;
	make_device(fixture, limits);
	assert_int_equal(hostblob_context_create(fixture->device, 2, 0), 0);
	*state = fixture;
	return 0;
}

static void contexts_have_shares(void **state)
{
	struct fixture *fixture = *state;

	assert_int_equal(create_in(fixture, 1, 1, 5), -ENOSPC);
	assert_int_equal(create_in(fixture, 1, 1, 3), 0);
	assert_int_equal(create_in(fixture, 1, 2, 2), -ENOSPC);
	assert_int_equal(create_in(fixture, 1, 2, 1), 0);
	assert_int_equal(create_in(fixture, 2, 3, 1), 0);
	assert_int_equal(create_in(fixture, 2, 4, 1), 0);
	assert_int_equal(create_in(fixture, 2, 5, 1), -ENOSPC);
	assert_int_equal(hostblob_resource_unref(fixture->device, 4), 0);
	assert_int_equal(create_in(fixture, 2, 5, 3), 0);
}

/* A blob that outlives its context is no part of the next one with its id. */
static void shares_are_not_inherited(void **state)
{
	struct fixture *fixture = *state;

	assert_int_equal(create_in(fixture, 2, 1, 4), 0);
	assert_int_equal(hostblob_context_destroy(fixture->device, 2), 0);
	assert_int_equal(hostblob_context_create(fixture->device, 2, 0), 0);
	assert_int_equal(create_in(fixture, 2, 2, 4), 0);
	assert_int_equal(hostblob_resource_unref(fixture->device, 1), 0);
	assert_int_equal(create_in(fixture, 2, 3, 1), -ENOSPC);
}

static void limits_have_defaults(void **state)
{
	struct fixture *fixture = *state;
	struct hostblob_limits limits;

	hostblob_device_limits(fixture->device, &limits, sizeof(limits));

	assert_int_equal(limits.bytes, WINDOW);
	assert_int_equal(limits.context_bytes, WINDOW);
	assert_in_range(limits.blobs, 1, 16384);
	assert_int_equal(limits.mapped_blobs, limits.blobs);
	assert_int_equal(limits.context_blobs, limits.blobs);
	assert_int_equal(limits.contexts, 4096);
	assert_int_equal(limits.resources, limits.blobs);
	assert_int_equal(limits.blob_bytes, WINDOW);
}

/* 0 is none of them, and not the default. */
static void limits_can_be_zero(void **state)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));
	struct hostblob_limits limits = default_limits();

	limits.blobs = 0;
	make_device(fixture, limits);
	*state = fixture;
	assert_int_equal(create(fixture, 1, 1), -ENOSPC);
	hostblob_device_limits(fixture->device, &limits, sizeof(limits));
	assert_int_equal(limits.mapped_blobs, 0);
	assert_int_equal(hostblob_resource_register(fixture->device, 1), 0);
	teardown(state);
}

/* --- VMMs that were built with another version ------------------------------------ */

/* What a later version might add, after what this one has. */
struct later_config {
	struct hostblob_config config;
	uint64_t more;
};

struct later_limits {
	struct hostblob_limits limits;
	uint64_t more;
};

static int create_device(struct fixture *fixture, const struct hostblob_config *config)
{
	struct hostblob_device *device;
	int result = hostblob_device_create(config, &device);

	(void)fixture;
	if (!result)
		hostblob_device_destroy(device);
	return result;
}

static void structures_of_other_versions_are_read(void **state)
{
	struct fixture *fixture = *state;
	struct later_limits limits;
	struct later_config later = { .config = {
		.struct_size = sizeof(later),
		.allocator = fixture->allocator,
		.mapper = hostblob_window_mapper(fixture->window),
		.window_size = WINDOW,
	} };

	/* One that is not set, or was not initialized. */
	assert_int_equal(create_device(fixture, &later.config), 0);
	later.config.struct_size = 0;
	assert_int_equal(create_device(fixture, &later.config), -EINVAL);
	later.config.struct_size = SIZE_MAX;
	assert_int_equal(create_device(fixture, &later.config), -EINVAL);

	/* Newer than the library: only if it asks for nothing that is new. */
	later.config.struct_size = sizeof(later);
	later.more = 1ull << 63;
	assert_int_equal(create_device(fixture, &later.config), -E2BIG);
	later.more = 0;
	hostblob_limits_init(&limits.limits, sizeof(limits));
	later.config.limits = &limits.limits;
	assert_int_equal(create_device(fixture, &later.config), 0);
	limits.more = 7;
	assert_int_equal(create_device(fixture, &later.config), -E2BIG);

	/* Older: the members that it hasn't are not looked at. */
	limits.limits.struct_size = offsetof(struct hostblob_limits, bytes);
	assert_int_equal(create_device(fixture, &later.config), 0);
	limits.limits.struct_size = 1;
	assert_int_equal(create_device(fixture, &later.config), -EINVAL);
	later.config.struct_size = offsetof(struct hostblob_config, limits);
	assert_int_equal(create_device(fixture, &later.config), 0);
}

static void structures_of_other_versions_are_written(void **state)
{
	struct fixture *fixture = *state;
	struct {
		struct hostblob_usage usage;
		uint64_t more;
	} later;
	struct hostblob_usage usage;
	struct hostblob_limits limits;
	struct hostblob_blob_info info;

	assert_int_equal(create(fixture, 7, 1), 0);
	memset(&later, 0xa5, sizeof(later));
	hostblob_device_usage(fixture->device, &later.usage, sizeof(later));
	assert_int_equal(later.usage.bytes, PAGE);
	assert_int_equal(later.more, 0);
	memset(&usage, 0xa5, sizeof(usage));
	hostblob_device_usage(fixture->device, &usage, offsetof(struct hostblob_usage, mapped_bytes));
	assert_int_equal(usage.bytes, PAGE);
	assert_int_equal(usage.mapped_bytes, 0xa5a5a5a5a5a5a5a5);
	memset(&info, 0xa5, sizeof(info));
	assert_int_equal(hostblob_blob_query(fixture->device, 7, &info, sizeof(info.resource_id)), 0);
	assert_int_equal(info.resource_id, 7);
	assert_int_equal(info.context_id, 0xa5a5a5a5);
	/* What was read can be used to make a device alike. */
	hostblob_device_limits(fixture->device, &limits, sizeof(limits));
	assert_int_equal(limits.struct_size, sizeof(limits));
}

static void library_is_of_the_header_s_version(void **state)
{
	(void)state;
	assert_int_equal(hostblob_version(), HOSTBLOB_VERSION);
	assert_true(HOSTBLOB_VERSION >= HOSTBLOB_VERSION_NUMBER(0, 2, 0));
	assert_true(HOSTBLOB_VERSION_NUMBER(1, 0, 0) > HOSTBLOB_VERSION_NUMBER(0, 255, 255));
}

static void reset_returns_everything(void **state)
{
	struct fixture *fixture = *state;
	unsigned int files = count_files(), mappings = count_mappings();

	for (int round = 0; round < 3; round++) {
		assert_int_equal(create(fixture, 1, 2), 0);
		assert_int_equal(map(fixture, 1, 4 * PAGE), 0);
		assert_int_equal(hostblob_resource_register(fixture->device, 2), 0);
		hostblob_device_reset(fixture->device);
		assert_empty(fixture);
		assert_int_equal(usage_of(fixture->device).contexts, 0);
		assert_int_equal(hostblob_context_create(fixture->device, 1, 0), 0);
	}
	assert_int_equal(count_files(), files);
	assert_int_equal(count_mappings(), mappings);
}

/* --- the window ------------------------------------------------------------ */

static void map_shows_the_buffer_and_unmap_hides_it(void **state)
{
	struct fixture *fixture = *state;
	struct hostblob_blob_info info;
	uint32_t map_info = 0;

	assert_int_equal(create(fixture, 1, 2), 0);
	assert_int_equal(hostblob_blob_map(fixture->device, 1, 3 * PAGE, &map_info), 0);
	assert_int_equal(map_info, VIRTIO_GPU_MAP_CACHE_CACHED);
	assert_int_equal(fixture->base[3 * PAGE], 0);
	memset(fixture->base + 3 * PAGE, 0x5a, 2 * PAGE);

	assert_int_equal(query(fixture->device, 1, &info), 0);
	assert_true(info.mapped);
	assert_int_equal(info.offset, 3 * PAGE);
	uint8_t byte = 0;
	assert_int_equal(pread(info.buffer.fd, &byte, 1, PAGE), 1);
	assert_int_equal(byte, 0x5a);

	assert_int_equal(hostblob_blob_unmap(fixture->device, 1), 0);
	for (uint64_t offset = 0; offset < WINDOW; offset++)
		assert_int_equal(fixture->base[offset], 0);
	memset(fixture->base, 0xff, WINDOW);
	assert_int_equal(pread(info.buffer.fd, &byte, 1, PAGE), 1);
	assert_int_equal(byte, 0x5a);
	/* Linux unmaps what never was mapped. */
	assert_int_equal(hostblob_blob_unmap(fixture->device, 1), 0);
}

static void unref_of_a_mapped_blob_leaves_a_hole(void **state)
{
	struct fixture *fixture = *state;

	assert_int_equal(create(fixture, 1, 1), 0);
	assert_int_equal(map(fixture, 1, 0), 0);
	memset(fixture->base, 0x5a, PAGE);
	assert_int_equal(hostblob_resource_unref(fixture->device, 1), 0);
	assert_int_equal(fixture->base[0], 0);
	assert_empty(fixture);
	assert_int_equal(create(fixture, 2, 1), 0);
	assert_int_equal(map(fixture, 2, 0), 0);
}

static void map_stays_in_the_window(void **state)
{
	static const uint64_t bad[] = {
		WINDOW - PAGE, WINDOW, WINDOW + PAGE, 1, PAGE - 1, PAGE + 1, 1ull << 32,
		1ull << 63, UINT64_MAX - PAGE + 1, UINT64_MAX - 2 * PAGE + 1, UINT64_MAX,
	};
	struct fixture *fixture = *state;

	assert_int_equal(create(fixture, 1, 2), 0);
	for (unsigned int i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(map(fixture, 1, bad[i]), -EINVAL);
	assert_int_equal(usage_of(fixture->device).mapped_blobs, 0);
	assert_int_equal(map(fixture, 1, WINDOW - 2 * PAGE), 0);
}

static void maps_never_overlap(void **state)
{
	struct fixture *fixture = *state;

	assert_int_equal(create(fixture, 1, 4), 0);
	assert_int_equal(create(fixture, 2, 2), 0);
	assert_int_equal(map(fixture, 1, 8 * PAGE), 0);
	for (uint64_t page = 0; page < 20; page++) {
		bool overlaps = page + 2 > 8 && page < 12;

		assert_int_equal(map(fixture, 2, page * PAGE), overlaps ? -EINVAL : 0);
		assert_int_equal(hostblob_blob_unmap(fixture->device, 2), 0);
	}
	assert_int_equal(hostblob_blob_unmap(fixture->device, 1), 0);
	assert_int_equal(map(fixture, 2, 9 * PAGE), 0);
	assert_int_equal(map(fixture, 1, 8 * PAGE), -EINVAL);
}

static void map_needs_the_flag_and_happens_once(void **state)
{
	struct fixture *fixture = *state;

	assert_int_equal(hostblob_blob_create(fixture->device, 1, 1, 0, 0, PAGE), 0);
	assert_int_equal(map(fixture, 1, 0), -EPERM);
	assert_int_equal(create(fixture, 2, 1), 0);
	assert_int_equal(map(fixture, 2, 0), 0);
	assert_int_equal(map(fixture, 2, 0), -EBUSY);
	assert_int_equal(map(fixture, 2, PAGE), -EBUSY);
	assert_int_equal(map(fixture, 9, 0), -ENOENT);
}

static void cycles_leave_nothing_behind(void **state)
{
	struct fixture *fixture = *state;
	unsigned int files = count_files(), mappings = count_mappings();

	for (uint32_t i = 0; i < 10000; i++) {
		assert_int_equal(create(fixture, i + 1, 2), 0);
		assert_int_equal(map(fixture, i + 1, (i % 60) * PAGE), 0);
		fixture->base[(i % 60) * PAGE] = 1;
		assert_int_equal(hostblob_blob_unmap(fixture->device, i + 1), 0);
		assert_int_equal(hostblob_resource_unref(fixture->device, i + 1), 0);
	}
	assert_int_equal(count_files(), files);
	assert_int_equal(count_mappings(), mappings);
	assert_empty(fixture);
}

static void window_is_aligned_and_its_holes_are_bounded(void **state)
{
	uint64_t size = 256ull << 20;
	struct hostblob_window *window;
	struct stat status;
	char path[64], target[64] = "";
	uint8_t *base;
	int sink = -1;

	(void)state;
	window = make_window(size);
	base = hostblob_window_base(window);
	assert_int_equal((uintptr_t)base % size, 0);
	for (uint64_t offset = 0; offset < size; offset += PAGE)
		base[offset] = 1;
	for (int fd = 0; fd < 64 && sink < 0; fd++) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		if (readlink(path, target, sizeof(target) - 1) > 0 && strstr(target, "hostblob-sink"))
			sink = fd;
	}
	assert_true(sink >= 0);
	assert_int_equal(fstat(sink, &status), 0);
	assert_int_equal(status.st_blocks * 512, 16 << 20);
	hostblob_window_clear_sink(window);
	assert_int_equal(base[0], 0);
	assert_int_equal(base[size - PAGE], 0);
	hostblob_window_destroy(window);
}

/* As QEMU does with all guest memory; neighbours of other flags do not merge. */
static void holes_cost_no_mappings(void **state)
{
	struct fixture *fixture = *state;
	unsigned int mappings;

	madvise(fixture->base, WINDOW, MADV_HUGEPAGE);
	mappings = count_mappings();
	for (uint64_t page = 1; page < WINDOW / PAGE; page += 2) {
		assert_int_equal(create(fixture, 1, 1), 0);
		assert_int_equal(map(fixture, 1, page * PAGE), 0);
		assert_int_equal(hostblob_resource_unref(fixture->device, 1), 0);
	}
	assert_int_equal(count_mappings(), mappings);
}

static void window_sizes_are_checked(void **state)
{
	static const uint64_t bad[] = { 0, 1, PAGE / 2, 3 * PAGE, UINT64_MAX, 1ull << 63, 1ull << 60 };
	struct hostblob_window_config config = { .struct_size = sizeof(config), .fatal = do_not_end };
	struct hostblob_window *window;

	(void)state;
	for (unsigned int i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		config.size = bad[i];
		assert_true(hostblob_window_create(&config, &window) < 0);
	}
	config.size = PAGE;
	config.fatal = NULL;
	assert_int_equal(hostblob_window_create(&config, &window), -EINVAL);
}

static void devices_that_cannot_be_are_refused(void **state)
{
	struct fixture *fixture = *state;
	struct hostblob_config config = { .struct_size = sizeof(config), .allocator = fixture->allocator,
					  .window_size = WINDOW };
	struct hostblob_allocator_ops ops = *fixture->allocator->ops;
	struct hostblob_allocator old = { .ops = &ops };
	struct hostblob_device *device;

	assert_int_equal(hostblob_device_create(&config, &device), -EINVAL);
	config.mapper.map = hostblob_window_mapper(fixture->window).map;
	assert_int_equal(hostblob_device_create(&config, &device), -EINVAL);
	config.mapper = hostblob_window_mapper(fixture->window);
	config.window_size = 3 * PAGE;
	assert_int_equal(hostblob_device_create(&config, &device), -EINVAL);
	config.window_size = WINDOW;
	config.allocator = NULL;
	assert_int_equal(hostblob_device_create(&config, &device), -EINVAL);
	config.allocator = &old;
	ops.struct_size--;
	assert_int_equal(hostblob_device_create(&config, &device), -EINVAL);
}

/* --- what goes wrong on the host's side -------------------------------------- */

static int fail_to_map(void *opaque, uint64_t offset, const struct hostblob_buffer *buffer)
{
	(void)offset;
	(void)buffer;
	return *(int *)opaque;
}

static void do_not_unmap(void *opaque, uint64_t offset, uint64_t size)
{
	(void)opaque;
	(void)offset;
	(void)size;
}

static void failed_map_changes_nothing(void **state)
{
	struct fixture *fixture = *state;
	int answer = -ENOMEM;
	struct hostblob_config config = {
		.struct_size = sizeof(config),
		.allocator = fixture->allocator,
		.mapper = { .map = fail_to_map, .unmap = do_not_unmap, .opaque = &answer },
		.window_size = WINDOW,
	};
	struct hostblob_device *device;
	uint32_t map_info;

	assert_int_equal(hostblob_device_create(&config, &device), 0);
	assert_int_equal(hostblob_context_create(device, 1, 0), 0);
	assert_int_equal(hostblob_blob_create(device, 1, 1, MAPPABLE, 0, PAGE), 0);
	assert_int_equal(hostblob_blob_map(device, 1, 0, &map_info), -ENOMEM);
	assert_int_equal(usage_of(device).mapped_blobs, 0);
	answer = 0;
	assert_int_equal(hostblob_blob_map(device, 1, 0, &map_info), 0);
	hostblob_device_destroy(device);
}

/* Splits mappings until the process may have no more. The caller unmaps it. */
static uint8_t *use_up_mappings(size_t size)
{
	uint8_t *filler = mmap(NULL, size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(filler, MAP_FAILED);
	for (size_t place = 0; place < size; place += 2 * PAGE) {
		if (mprotect(filler + place, PAGE, PROT_NONE)) {
			assert_int_equal(errno, ENOMEM);
			return filler;
		}
	}
	fail_msg("this process may have too many mappings for the test");
	return filler;
}

/* The sanitizer must not need a mapping of its own where there is none left. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "clear_shadow_mmap_threshold=1073741824";
}

static void no_more_mappings_is_no_end(void **state)
{
	struct fixture *fixture = *state;
	uint64_t size = 64ull << 20, filler_size = 1ull << 30;
	struct hostblob_buffer large, small;
	struct hostblob_window *window;

	window = make_window(size);
	struct hostblob_mapper mapper = hostblob_window_mapper(window);
	volatile uint8_t *base = hostblob_window_base(window);
	unsigned int mappings = count_mappings();

	assert_int_equal(allocate(fixture, size / 2, &large), 0);
	assert_int_equal(allocate(fixture, PAGE, &small), 0);
	assert_int_equal(mapper.map(mapper.opaque, 0, &large), 0);
	base[0] = base[size / 2 - 1] = 1;
	base[size - 3 * PAGE] = 2;

	uint8_t *filler = use_up_mappings(filler_size);
	int result = mapper.map(mapper.opaque, size - 3 * PAGE, &small);
	int hole_lost = mapper.lose(mapper.opaque, size - 3 * PAGE, PAGE);
	uint8_t sink = base[size - 3 * PAGE];
	mapper.unmap(mapper.opaque, size - 3 * PAGE, PAGE);
	int lost = mapper.lose(mapper.opaque, 0, size / 2);
	uint8_t middle = base[0];

	/* Two mappings of the sink are to take the place of one of the blob. */
	mapper.unmap(mapper.opaque, 0, size / 2);
	uint8_t first = base[0], last = base[size / 2 - 1];

	munmap(filler, filler_size);
	assert_int_equal(result, -ENOMEM);
	/* With those that the window keeps for this. */
	assert_int_equal(hole_lost, 0);
	assert_int_equal(sink, 0);
	assert_int_equal(lost, 0);
	assert_int_equal(middle, 0);
	assert_int_equal(first, 0);
	assert_int_equal(last, 0);
	assert_true(count_mappings() <= mappings);
	assert_int_equal(mapper.map(mapper.opaque, size - 3 * PAGE, &small), 0);
	assert_int_equal(base[size - 3 * PAGE], 0);
	close(large.fd);
	close(small.fd);
	hostblob_window_destroy(window);
}

/* A dma-buf's driver may refuse to map it. */
static void refused_mapping_leaves_the_sink(void **state)
{
	struct fixture *fixture = *state;
	struct hostblob_mapper mapper = hostblob_window_mapper(fixture->window);
	struct hostblob_buffer buffer = { .size = PAGE, .caching = HOSTBLOB_CACHED };

	fixture->base[PAGE] = 7;
	buffer.fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	assert_true(buffer.fd >= 0);
	assert_int_equal(mapper.map(mapper.opaque, PAGE, &buffer), -EACCES);
	assert_int_equal(fixture->base[PAGE], 7);
	close(buffer.fd);
}

static int fail_to_allocate(struct hostblob_allocator *allocator, const struct hostblob_request *request,
			    struct hostblob_buffer *buffer, char *error, unsigned int error_size)
{
	(void)allocator, (void)request, (void)buffer, (void)error, (void)error_size;
	return -EIO;
}

static void count_line(void *opaque, const char *line)
{
	assert_non_null(strstr(line, "allocating a host blob of 4096 bytes failed: Input/output error"));
	assert_null(strchr(line, '\n'));
	++*(unsigned int *)opaque;
}

static int fail_and_explain(struct hostblob_allocator *allocator, const struct hostblob_request *request,
			    struct hostblob_buffer *buffer, char *error, unsigned int error_size)
{
	(void)allocator, (void)request, (void)buffer;
	memset(error, '.', error_size);
	snprintf(error + error_size - sizeof("full"), sizeof("full"), "full");
	return -ENOMEM;
}

static void take_line(void *line, const char *text)
{
	snprintf(line, 400, "%s", text);
}

/* Room for all that an allocator may write is in the line, too. */
static void an_allocator_explains_its_failure(void **state)
{
	static const struct hostblob_allocator_ops ops = { .struct_size = sizeof(ops), .name = "full", .allocate = fail_and_explain };
	struct hostblob_allocator full = { .ops = &ops };
	char line[400] = "";
	struct hostblob_limits limits = default_limits();
	struct hostblob_config config = { .struct_size = sizeof(config), .allocator = &full, .limits = &limits,
					  .log = take_line, .log_opaque = line };
	struct hostblob_device *device;

	(void)state;
	limits.bytes = UINT64_MAX - 1;
	limits.blob_bytes = UINT64_MAX - 1;
	assert_int_equal(hostblob_device_create(&config, &device), 0);
	assert_int_equal(hostblob_context_create(device, 1, 0), 0);
	assert_int_equal(hostblob_blob_create(device, 1, 1, 0, 0, 0 - PAGE * 2), -ENOMEM);
	assert_non_null(strstr(line, "allocating a host blob of 18446744073709543424 bytes failed: ..."));
	assert_non_null(strstr(line, "full (failure 1)"));
	hostblob_device_destroy(device);
}

static void failed_allocation_changes_nothing(void **state)
{
	static const struct hostblob_allocator_ops ops = { .struct_size = sizeof(ops), .name = "failing", .allocate = fail_to_allocate };
	struct hostblob_allocator failing = { .ops = &ops };
	unsigned int lines = 0;
	struct hostblob_config config = { .struct_size = sizeof(config), .allocator = &failing,
					  .log = count_line, .log_opaque = &lines };
	struct hostblob_limits limits = default_limits();
	struct hostblob_device *device;

	(void)state;
	limits.bytes = PAGE;
	config.limits = &limits;
	assert_int_equal(hostblob_device_create(&config, &device), 0);
	assert_int_equal(hostblob_context_create(device, 1, 0), 0);
	for (int i = 0; i < 1000; i++)
		assert_int_equal(hostblob_blob_create(device, 1, 1, 0, 0, PAGE), -EIO);
	assert_int_equal(lines, 10);
	assert_int_equal(usage_of(device).bytes, 0);
	assert_int_equal(usage_of(device).resources, 0);
	hostblob_device_destroy(device);
}

static void memfd_buffers_are_zero_and_sealed(void **state)
{
	struct fixture *fixture = *state;
	struct hostblob_buffer buffer;
	uint8_t *data;

	assert_int_equal(allocate(fixture, 2 * PAGE, &buffer), 0);
	assert_int_equal(buffer.caching, HOSTBLOB_CACHED);
	assert_int_equal(ftruncate(buffer.fd, PAGE), -1);
	assert_int_equal(ftruncate(buffer.fd, 3 * PAGE), -1);
	data = mmap(NULL, buffer.size, PROT_READ, MAP_SHARED, buffer.fd, 0);
	assert_ptr_not_equal(data, MAP_FAILED);
	for (uint64_t i = 0; i < buffer.size; i++)
		assert_int_equal(data[i], 0);
	munmap(data, buffer.size);
	close(buffer.fd);
}

static void allocators_say_what_is_wrong(void **state)
{
	struct hostblob_allocator *allocator = NULL;
	char error[256];
	int file = open("/dev/null", O_RDWR | O_CLOEXEC);

	(void)state;
	assert_int_equal(hostblob_allocator_open("vulkan", -1, &allocator, error, sizeof(error)), -ENOENT);
	assert_non_null(strstr(error, "vulkan"));
	assert_int_equal(hostblob_allocator_open("dumb", -1, &allocator, error, sizeof(error)), -EINVAL);
	assert_non_null(strstr(error, "needs a DRM node"));
	assert_int_equal(hostblob_allocator_open(NULL, file, &allocator, error, sizeof(error)), -EINVAL);
	assert_non_null(strstr(error, "no DRM node"));
	assert_int_equal(hostblob_allocator_open("memfd", file, &allocator, error, sizeof(error)), -EINVAL);
	assert_null(allocator);
	close(file);
}

static void responses_are_those_of_the_specification(void **state)
{
	(void)state;
	assert_int_equal(hostblob_virtio_response(0), VIRTIO_GPU_RESP_OK_NODATA);
	assert_int_equal(hostblob_virtio_response(-ENOENT), VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID);
	assert_int_equal(hostblob_virtio_response(-EEXIST), VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID);
	assert_int_equal(hostblob_virtio_response(-ESRCH), VIRTIO_GPU_RESP_ERR_INVALID_CONTEXT_ID);
	assert_int_equal(hostblob_virtio_response(-EALREADY), VIRTIO_GPU_RESP_ERR_INVALID_CONTEXT_ID);
	assert_int_equal(hostblob_virtio_response(-EINVAL), VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER);
	assert_int_equal(hostblob_virtio_response(-EPERM), VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER);
	assert_int_equal(hostblob_virtio_response(-EBUSY), VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER);
	assert_int_equal(hostblob_virtio_response(-ENOSPC), VIRTIO_GPU_RESP_ERR_OUT_OF_MEMORY);
	assert_int_equal(hostblob_virtio_response(-ENOMEM), VIRTIO_GPU_RESP_ERR_OUT_OF_MEMORY);
	assert_int_equal(hostblob_virtio_response(-EIO), VIRTIO_GPU_RESP_ERR_UNSPEC);
	assert_int_equal(hostblob_virtio_response(INT32_MIN), VIRTIO_GPU_RESP_ERR_UNSPEC);
}

/* --- blobs whose memory the host can't supply any more ------------------------- */

static void lost_blob_has_other_memory_for_good(void **state)
{
	struct fixture *fixture = *state;
	unsigned int files = count_files(), mappings = count_mappings();
	struct hostblob_usage before, after;
	struct hostblob_blob_info info;
	uint8_t byte;

	assert_int_equal(create(fixture, 1, 3), 0);
	assert_int_equal(create(fixture, 2, 1), 0);
	assert_int_equal(map(fixture, 1, 4 * PAGE), 0);
	assert_int_equal(map(fixture, 2, 7 * PAGE), 0);
	memset(fixture->base + 4 * PAGE, 0x5a, 4 * PAGE);
	/* Not by usage_of(): a copy of a structure may leave out its padding. */
	hostblob_device_usage(fixture->device, &before, sizeof(before));

	assert_int_equal(hostblob_device_lose(fixture->device, 6 * PAGE + 123), 0);
	for (uint64_t offset = 4 * PAGE; offset < 7 * PAGE; offset++)
		assert_int_equal(fixture->base[offset], 0);
	assert_int_equal(fixture->base[7 * PAGE], 0x5a);
	assert_int_equal(query(fixture->device, 1, &info), 0);
	assert_true(info.lost && info.mapped);
	assert_int_equal(query(fixture->device, 2, &info), 0);
	assert_false(info.lost);
	hostblob_device_usage(fixture->device, &after, sizeof(after));
	assert_memory_equal(&before, &after, sizeof(before));

	/* Its place stays its own, wherever the guest maps it. */
	assert_int_equal(map(fixture, 1, 8 * PAGE), -EBUSY);
	memset(fixture->base + 4 * PAGE, 0xff, PAGE);
	assert_int_equal(hostblob_blob_unmap(fixture->device, 1), 0);
	assert_int_equal(fixture->base[4 * PAGE], 0);
	for (uint64_t place = 4 * PAGE; place <= 8 * PAGE; place += 4 * PAGE) {
		assert_int_equal(map(fixture, 1, place), 0);
		assert_int_equal(fixture->base[place], 0);
		if (place == 4 * PAGE)
			assert_int_equal(hostblob_blob_unmap(fixture->device, 1), 0);
	}
	assert_int_equal(hostblob_blob_unmap(fixture->device, 2), 0);
	assert_int_equal(map(fixture, 2, 10 * PAGE), -EINVAL);
	memset(fixture->base + 8 * PAGE, 0xff, PAGE);
	assert_int_equal(query(fixture->device, 1, &info), 0);
	assert_int_equal(pread(info.buffer.fd, &byte, 1, 0), 1);
	assert_int_equal(byte, 0x5a);

	assert_int_equal(hostblob_resource_unref(fixture->device, 1), 0);
	assert_int_equal(hostblob_resource_unref(fixture->device, 2), 0);
	assert_empty(fixture);
	assert_int_equal(create(fixture, 1, 3), 0);
	assert_int_equal(map(fixture, 1, 4 * PAGE), 0);
	assert_int_equal(hostblob_device_lose(fixture->device, 4 * PAGE), 0);
	hostblob_device_reset(fixture->device);
	assert_empty(fixture);
	assert_int_equal(count_files(), files);
	assert_int_equal(count_mappings(), mappings);
}

/* The sink is there again every 16 MiB. What was lost must not be as good as shared. */
static void lost_blobs_share_nothing(void **state)
{
	const uint64_t size = 64ull << 20, tile = 16ull << 20;
	struct fixture fixture = { 0 };
	struct hostblob_config config = { .struct_size = sizeof(config), .window_size = size };
	unsigned int files = count_files(), mappings = count_mappings(), all;
	char error[256];

	(void)state;
	assert_int_equal(hostblob_allocator_open(NULL, -1, &fixture.allocator, error, sizeof(error)), 0);
	fixture.window = make_window(size);
	fixture.base = hostblob_window_base(fixture.window);
	config.allocator = fixture.allocator;
	config.mapper = hostblob_window_mapper(fixture.window);
	assert_int_equal(hostblob_device_create(&config, &fixture.device), 0);
	assert_int_equal(hostblob_context_create(fixture.device, 1, 0), 0);
	all = count_mappings();
	for (uint32_t round = 0; round < 2; round++) {
		/* Four at the same place of a tile, and a neighbour of each. */
		for (uint32_t id = 1; id <= 8; id++) {
			uint64_t place = (id - 1) / 2 * tile + (id % 2 ? 0 : PAGE);

			assert_int_equal(create(&fixture, id, 1), 0);
			assert_int_equal(map(&fixture, id, place), 0);
			assert_int_equal(hostblob_device_lose(fixture.device, place), 0);
			for (uint64_t i = 0; i < PAGE; i++)
				assert_int_equal(fixture.base[place + i], 0);
			memset(fixture.base + place, (int)id, PAGE);
		}
		for (uint32_t id = 1; id <= 8; id++)
			assert_int_equal(fixture.base[(id - 1) / 2 * tile + (id % 2 ? 0 : PAGE)], id);
		/* A neighbour that is unmapped must not need another mapping. */
		assert_int_equal(count_mappings(), all + 8);
		/* Nor is it in the sink. */
		assert_int_equal(fixture.base[2 * PAGE], 0);
		for (uint32_t id = 1; id <= 8 && !round; id++)
			assert_int_equal(hostblob_resource_unref(fixture.device, id), 0);
	}
	hostblob_device_reset(fixture.device);
	assert_int_equal(count_mappings(), all);
	for (uint64_t place = 0; place < size; place += PAGE)
		assert_int_equal(fixture.base[place], 0);
	hostblob_device_destroy(fixture.device);
	hostblob_window_destroy(fixture.window);
	hostblob_allocator_close(fixture.allocator);
	assert_int_equal(count_files(), files);
	assert_int_equal(count_mappings(), mappings);
}

static int map_nothing(void *opaque, uint64_t offset, const struct hostblob_buffer *buffer)
{
	(void)opaque;
	(void)offset;
	(void)buffer;
	return 0;
}

static int lose_nothing(void *opaque, uint64_t offset, uint64_t size)
{
	(void)offset;
	(void)size;
	return *(int *)opaque;
}

static void blob_that_the_mapper_cannot_lose_is_not_lost(void **state)
{
	struct fixture *fixture = *state, mapped = { .allocator = fixture->allocator };
	int error = -ENOMEM;
	struct hostblob_config config = {
		.struct_size = sizeof(config),
		.allocator = fixture->allocator,
		.mapper = { .map = map_nothing, .unmap = do_not_unmap },
		.window_size = WINDOW,
	};
	struct hostblob_blob_info info;

	for (int can = 0; can < 2; can++) {
		config.mapper.lose = can ? lose_nothing : NULL;
		config.mapper.opaque = &error;
		assert_int_equal(hostblob_device_create(&config, &mapped.device), 0);
		assert_int_equal(hostblob_context_create(mapped.device, 1, 0), 0);
		assert_int_equal(create(&mapped, 1, 1), 0);
		assert_int_equal(map(&mapped, 1, 0), 0);
		assert_int_equal(hostblob_device_lose(mapped.device, 0), can ? -ENOMEM : -EOPNOTSUPP);
		assert_int_equal(query(mapped.device, 1, &info), 0);
		assert_false(info.lost);
		hostblob_device_destroy(mapped.device);
	}
}

static void only_a_mapped_blob_is_lost_and_only_once(void **state)
{
	static const uint64_t nothing_there[] = { 0, 4 * PAGE - 1, 6 * PAGE, WINDOW - 1, WINDOW, UINT64_MAX };
	struct fixture *fixture = *state;
	struct hostblob_blob_info info;

	assert_int_equal(create(fixture, 1, 2), 0);
	assert_int_equal(hostblob_device_lose(fixture->device, 0), -ENOENT);
	assert_int_equal(map(fixture, 1, 4 * PAGE), 0);
	for (unsigned int i = 0; i < sizeof(nothing_there) / sizeof(nothing_there[0]); i++)
		assert_int_equal(hostblob_device_lose(fixture->device, nothing_there[i]), -ENOENT);
	assert_int_equal(query(fixture->device, 1, &info), 0);
	assert_false(info.lost);
	assert_int_equal(hostblob_device_lose(fixture->device, 4 * PAGE), 0);
	assert_int_equal(hostblob_device_lose(fixture->device, 5 * PAGE), -ENOENT);
}

/* What backs it can be taken away, unlike the library's own memory. */
static int allocate_unsealed(struct hostblob_allocator *allocator, const struct hostblob_request *request,
			     struct hostblob_buffer *buffer, char *error, unsigned int error_size)
{
	(void)allocator, (void)error, (void)error_size;
	*buffer = (struct hostblob_buffer){ .size = request->size, .caching = HOSTBLOB_CACHED };
	buffer->fd = memfd_create("unsealed", MFD_CLOEXEC);
	return ftruncate(buffer->fd, (off_t)request->size);
}

static int allocate_write_combined(struct hostblob_allocator *allocator, const struct hostblob_request *request,
				   struct hostblob_buffer *buffer, char *error, unsigned int error_size)
{
	int result = allocate_unsealed(allocator, request, buffer, error, error_size);

	buffer->caching = HOSTBLOB_WRITE_COMBINED;
	return result;
}

static void count_lines(void *lines, const char *line)
{
	if (strstr(line, "the guest would see it cached"))
		++*(unsigned int *)lines;
}

static void uncached_memory_is_refused_where_guests_get_it_cached(void **state)
{
	static const struct hostblob_allocator_ops ops = { .struct_size = sizeof(ops), .name = "wc", .allocate = allocate_write_combined };
	struct hostblob_allocator allocator = { .ops = &ops };
	unsigned int files = count_files(), lines = 0;
	struct hostblob_limits limits = default_limits();
	struct hostblob_config config = {
		.struct_size = sizeof(config),
		.allocator = &allocator,
		.limits = &limits,
		.log = count_lines,
		.log_opaque = &lines,
	};
	struct hostblob_blob_info info;
	struct hostblob_device *device;

	(void)state;
	limits.bytes = PAGE;
	for (int cached_only = 0; cached_only < 2; cached_only++) {
		config.cached_only = cached_only;
		assert_int_equal(hostblob_device_create(&config, &device), 0);
		assert_int_equal(hostblob_context_create(device, 1, 0), 0);
		for (int i = 0; i < 1 + cached_only; i++)
			assert_int_equal(hostblob_blob_create(device, 1, 1, 0, 0, PAGE),
					 cached_only ? -EOPNOTSUPP : 0);
		assert_int_equal(query(device, 1, &info), cached_only ? -ENOENT : 0);
		hostblob_device_destroy(device);
		assert_int_equal(count_files(), files);
	}
	assert_int_equal(lines, 2);
}

static struct fixture failing;
static atomic_uint signals;

static void lose_what_failed(int number, siginfo_t *info, void *context)
{
	uint64_t offset = (uint64_t)((uint8_t *)info->si_addr - failing.base);

	(void)number;
	(void)context;
	if (info->si_code != BUS_ADRERR || offset >= WINDOW)
		abort();
	signals++;
	hostblob_device_lose(failing.device, offset);
}

static atomic_bool ended;

/* As a vCPU: TSan, which looks after the library, would hold back the signal. */
__attribute__((no_sanitize_thread)) static void touch(uint64_t place)
{
	*(volatile uint8_t *)(failing.base + place) = 1;
}

static void *use_window(void *unused)
{
	while (!ended) {
		for (uint64_t page = 0; page < WINDOW / PAGE; page++)
			touch(page * PAGE);
	}
	return unused;
}

/* Blobs come, fail and go while two threads of the VMM access the window. */
static void memory_that_fails_costs_the_blob_only(void **state)
{
	static const struct hostblob_allocator_ops ops = { .struct_size = sizeof(ops), .name = "unsealed", .allocate = allocate_unsealed };
	struct sigaction action = { .sa_sigaction = lose_what_failed, .sa_flags = SA_SIGINFO }, before;
	struct hostblob_allocator allocator = { .ops = &ops };
	struct hostblob_config config = { .struct_size = sizeof(config), .allocator = &allocator,
					  .window_size = WINDOW };
	unsigned int files = count_files(), lost = 0;
	struct hostblob_blob_info info;
	pthread_t users[2];

	(void)state;
	failing.window = make_window(WINDOW);
	failing.base = hostblob_window_base(failing.window);
	config.mapper = hostblob_window_mapper(failing.window);
	assert_int_equal(hostblob_device_create(&config, &failing.device), 0);
	assert_int_equal(hostblob_context_create(failing.device, 1, 0), 0);
	assert_int_equal(sigaction(SIGBUS, &action, &before), 0);
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&users[i], NULL, use_window, NULL), 0);
	for (uint32_t id = 1; id <= 2000; id++) {
		uint64_t place = id % 60 * PAGE;

		assert_int_equal(create(&failing, id, 4), 0);
		assert_int_equal(map(&failing, id, place), 0);
		assert_int_equal(query(failing.device, id, &info), 0);
		assert_int_equal(ftruncate(info.buffer.fd, 0), 0);
		/* Every other one goes while it may be about to be lost. */
		if (id % 2)
			touch(place + PAGE);
		assert_int_equal(query(failing.device, id, &info), 0);
		assert_true(info.lost || !(id % 2));
		lost += info.lost;
		assert_int_equal(hostblob_resource_unref(failing.device, id), 0);
	}
	ended = true;
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_join(users[i], NULL), 0);
	assert_int_equal(sigaction(SIGBUS, &before, NULL), 0);
	assert_true(signals >= lost && lost >= 1000);
	assert_empty(&failing);
	hostblob_device_destroy(failing.device);
	hostblob_window_destroy(failing.window);
	assert_int_equal(count_files(), files);
}

/* --- blobs that another thread allocates ----------------------------------------- */

static int begin_creation(struct fixture *fixture, uint32_t id, uint64_t pages,
			  struct hostblob_creation **creation)
{
	return hostblob_creation_begin(fixture->device, 1, id, MAPPABLE, 0, pages * PAGE, creation);
}

/* A blob that is being made has its id and its share, and is no blob yet. */
static void creation_holds_its_place(void **state)
{
	struct fixture *fixture = *state;
	struct hostblob_device *device = fixture->device;
	struct hostblob_creation *creation, *second;
	struct hostblob_blob_info info;

	assert_int_equal(begin_creation(fixture, 1, 5, &creation), 0);
	assert_int_equal(begin_creation(fixture, 1, 1, &second), -EEXIST);
	assert_int_equal(begin_creation(fixture, 2, 4, &second), -ENOSPC);
	assert_int_equal(create(fixture, 1, 1), -EEXIST);
	assert_int_equal(hostblob_resource_register(device, 1), -EEXIST);
	assert_int_equal(map(fixture, 1, 0), -ENOENT);
	assert_int_equal(hostblob_blob_unmap(device, 1), -ENOENT);
	assert_int_equal(hostblob_context_attach(device, 1, 1), -ENOENT);
	assert_int_equal(hostblob_context_detach(device, 1, 1), -ENOENT);
	assert_int_equal(query(device, 1, &info), -ENOENT);
	assert_int_equal(hostblob_resource_unref(device, 1), -ENOENT);
	assert_int_equal(usage_of(device).bytes, 5 * PAGE);
	assert_int_equal(usage_of(device).blobs, 1);
	hostblob_creation_allocate(creation);
	assert_int_equal(query(device, 1, &info), -ENOENT);
	assert_int_equal(hostblob_creation_finish(creation), 0);
	assert_int_equal(map(fixture, 1, 0), 0);
	assert_int_equal(usage_of(device).bytes, 5 * PAGE);
	assert_int_equal(hostblob_resource_unref(device, 1), 0);
	assert_empty(fixture);
}

/* With its memory or without. The id is free at once, and the memory counts to the end. */
static void creation_can_be_given_up(void **state)
{
	struct fixture *fixture = *state;
	unsigned int files = count_files();
	struct hostblob_creation *creation;

	for (int allocated = 0; allocated < 2; allocated++) {
		assert_int_equal(begin_creation(fixture, 1, 5, &creation), 0);
		if (allocated)
			hostblob_creation_allocate(creation);
		hostblob_creation_cancel(creation);
		hostblob_creation_cancel(creation);
		assert_int_equal(create(fixture, 1, 4), -ENOSPC);
		assert_int_equal(create(fixture, 1, 3), 0);
		assert_int_equal(usage_of(fixture->device).bytes, 8 * PAGE);
		assert_int_equal(hostblob_resource_unref(fixture->device, 1), 0);
		assert_int_equal(hostblob_creation_finish(creation), -ECANCELED);
		assert_empty(fixture);
		assert_int_equal(count_files(), files);
	}
	assert_int_equal(begin_creation(fixture, 1, 5, &creation), 0);
	assert_int_equal(hostblob_creation_finish(creation), -ECANCELED);
	assert_empty(fixture);
}

/* The blob outlives the context, as any other; the next one of that id has its share. */
static void creation_outlives_its_context(void **state)
{
	struct fixture *fixture = *state;
	struct hostblob_creation *creation;

	assert_int_equal(hostblob_creation_begin(fixture->device, 2, 1, MAPPABLE, 0, 4 * PAGE, &creation), 0);
	assert_int_equal(create_in(fixture, 2, 2, 1), -ENOSPC);
	assert_int_equal(hostblob_context_destroy(fixture->device, 2), 0);
	assert_int_equal(hostblob_context_create(fixture->device, 2, 0), 0);
	hostblob_creation_allocate(creation);
	assert_int_equal(create_in(fixture, 2, 2, 4), 0);
	assert_int_equal(hostblob_creation_finish(creation), 0);
	assert_int_equal(map(fixture, 1, 0), 0);
	assert_int_equal(create_in(fixture, 2, 3, 1), -ENOSPC);
}

static pthread_barrier_t allocating;

/* Two waits: one says that it has begun, the other lets it go on. */
static int allocate_slowly(struct hostblob_allocator *allocator, const struct hostblob_request *request,
			   struct hostblob_buffer *buffer, char *error, unsigned int error_size)
{
	pthread_barrier_wait(&allocating);
	pthread_barrier_wait(&allocating);
	return allocate_unsealed(allocator, request, buffer, error, error_size);
}

static void *allocate_in_thread(void *creation)
{
	hostblob_creation_allocate(creation);
	return NULL;
}

/* The device is reset or destroyed, and used again, while an allocator is at work. */
static void reset_does_not_wait_for_an_allocator(void **state)
{
	static const struct hostblob_allocator_ops slow_ops = { .struct_size = sizeof(slow_ops), .name = "slow",
								.allocate = allocate_slowly };
	struct hostblob_allocator slow = { .ops = &slow_ops };
	struct hostblob_limits limits = default_limits();
	struct hostblob_config config = { .struct_size = sizeof(config), .allocator = &slow, .limits = &limits };
	unsigned int files = count_files();
	struct hostblob_creation *creation, *second;
	struct hostblob_device *device;
	pthread_t thread;

	(void)state;
	limits.bytes = 4 * PAGE;
	assert_int_equal(pthread_barrier_init(&allocating, NULL, 2), 0);
	for (int destroy = 0; destroy < 2; destroy++) {
		assert_int_equal(hostblob_device_create(&config, &device), 0);
		assert_int_equal(hostblob_context_create(device, 1, 0), 0);
		assert_int_equal(hostblob_creation_begin(device, 1, 1, 0, 0, 3 * PAGE, &creation), 0);
		assert_int_equal(pthread_create(&thread, NULL, allocate_in_thread, creation), 0);
		pthread_barrier_wait(&allocating);
		if (destroy) {
			hostblob_device_destroy(device);
		} else {
			hostblob_device_reset(device);
			assert_int_equal(usage_of(device).resources, 0);
			/* What may come of it counts, or resets would give a guest any amount. */
			assert_int_equal(usage_of(device).bytes, 3 * PAGE);
			assert_int_equal(hostblob_context_create(device, 1, 0), 0);
			assert_int_equal(hostblob_creation_begin(device, 1, 1, 0, 0, 2 * PAGE, &second), -ENOSPC);
			assert_int_equal(hostblob_creation_begin(device, 1, 1, 0, 0, PAGE, &second), 0);
		}
		pthread_barrier_wait(&allocating);
		assert_int_equal(pthread_join(thread, NULL), 0);
		assert_int_equal(hostblob_creation_finish(creation), -ECANCELED);
		if (!destroy) {
			assert_int_equal(usage_of(device).bytes, PAGE);
			assert_int_equal(hostblob_creation_finish(second), -ECANCELED);
			assert_int_equal(usage_of(device).bytes, 0);
			hostblob_device_destroy(device);
		}
		assert_int_equal(count_files(), files);
	}
	pthread_barrier_destroy(&allocating);
}

/* --- cross-domain ------------------------------------------------------------ */

#define CAPSET HOSTBLOB_CAPSET_CROSS_DOMAIN
#define RING 100
#define PROTECTED (1u << 8) /* minigbm's BO_USE_PROTECTED */

/* The answer to GET_IMAGE_REQUIREMENTS, as the protocol has it. */
struct requirements {
	uint32_t strides[4];
	uint32_t offsets[4];
	uint64_t modifier;
	uint64_t size;
	uint32_t blob_id;
	uint32_t map_info;
	int32_t indices[2];
};

static int submit(struct fixture *fixture, uint32_t context, const uint32_t *words, uint64_t bytes)
{
	/* Exactly as long, so that the sanitizer sees what is read beyond the end. */
	uint8_t *commands = malloc(bytes);
	int result;

	if (bytes)
		memcpy(commands, words, bytes);
	result = hostblob_context_submit(fixture->device, context, commands, bytes);
	free(commands);
	return result;
}

/* A command's first word: its number and its size. */
static uint32_t header(uint32_t command, uint32_t size)
{
	return command | size << 16;
}

static int initialize(struct fixture *fixture, uint32_t context, uint32_t ring)
{
	const uint32_t words[] = { header(1, 16), 0, ring, 0 };

	return submit(fixture, context, words, sizeof(words));
}

/* A context of the capset with a ring, as minigbm makes it. */
static void begin(struct fixture *fixture, uint32_t context)
{
	fixture->ring = RING;
	hostblob_resource_register(fixture->device, RING);
	assert_int_equal(hostblob_context_create(fixture->device, context, CAPSET), 0);
	assert_int_equal(hostblob_context_attach(fixture->device, context, RING), 0);
	assert_int_equal(initialize(fixture, context, RING), 0);
}

static int ask(struct fixture *fixture, uint32_t context, uint32_t width, uint32_t height, uint32_t format,
	       uint32_t flags, struct requirements *answer)
{
	const uint32_t words[] = { header(2, 24), 0, width, height, format, flags };
	int result;

	memset(fixture->ring_data, 0xee, sizeof(fixture->ring_data));
	result = submit(fixture, context, words, sizeof(words));
	memcpy(answer, fixture->ring_data, sizeof(*answer));
	return result;
}

static void capset_says_allocation_only(void **state)
{
	struct fixture *fixture = *state;
	struct hostblob_config config = { .struct_size = sizeof(config), .allocator = fixture->allocator };
	struct hostblob_cross_domain data = { 0 };
	struct hostblob_device *without;
	struct hostblob_capset capset;

	assert_int_equal(hostblob_capset_query(fixture->device, 0, &capset), 0);
	assert_int_equal(capset.id, 5);
	assert_int_equal(capset.max_version, 0);
	assert_int_equal(capset.size, 16);
	assert_int_equal(hostblob_capset_query(fixture->device, 1, &capset), -EINVAL);
	assert_int_equal(hostblob_capset_query(fixture->device, UINT32_MAX, &capset), -EINVAL);
	assert_int_equal(hostblob_capset_read(fixture->device, 5, 0, &data), 0);
	assert_int_equal(data.version, 1);
	assert_int_equal(data.supported_channels, 0);
	assert_int_equal(data.supports_dmabuf, 1);
	assert_int_equal(data.supports_external_gpu_memory, 1);
	assert_int_equal(hostblob_capset_read(fixture->device, 5, 1, &data), -EINVAL);
	assert_int_equal(hostblob_capset_read(fixture->device, 0, 0, &data), -EINVAL);

	/* A VMM that can't write to the guest has no capset. */
	assert_int_equal(hostblob_device_create(&config, &without), 0);
	assert_int_equal(hostblob_capset_query(without, 0, &capset), -EINVAL);
	assert_int_equal(hostblob_capset_read(without, 5, 0, &data), -EINVAL);
	assert_int_equal(hostblob_context_create(without, 1, CAPSET), -EINVAL);
	hostblob_device_destroy(without);
}

static void init_has_three_sizes(void **state)
{
	const uint32_t words[] = { header(1, 36), 0, RING, 0, 0, 1, 2, 3, 4 };
	struct fixture *fixture = *state;
	struct requirements answer;

	assert_int_equal(hostblob_resource_register(fixture->device, RING), 0);
	fixture->ring = RING;
	for (uint32_t size = 0; size <= 36; size++) {
		bool known = size == 16 || size == 20 || size == 36;
		uint32_t copy[9];

		memcpy(copy, words, sizeof(copy));
		copy[0] = header(1, size);
		assert_int_equal(hostblob_context_create(fixture->device, 2, CAPSET), 0);
		assert_int_equal(hostblob_context_attach(fixture->device, 2, RING), 0);
		assert_int_equal(submit(fixture, 2, copy, size), known || !size ? 0 : -EINVAL);
		assert_int_equal(ask(fixture, 2, 1, 1, DRM_FORMAT_R8, 0, &answer), known ? 0 : -EINVAL);
		assert_int_equal(hostblob_context_destroy(fixture->device, 2), 0);
	}
}

static void channels_are_refused(void **state)
{
	const uint32_t first[] = { header(1, 16), 0, RING, 1 };
	const uint32_t later[] = { header(1, 20), 0, RING, RING, 0x10 };
	struct fixture *fixture = *state;
	struct requirements answer;

	fixture->ring = RING;
	assert_int_equal(hostblob_resource_register(fixture->device, RING), 0);
	assert_int_equal(hostblob_context_create(fixture->device, 2, CAPSET), 0);
	assert_int_equal(hostblob_context_attach(fixture->device, 2, RING), 0);
	assert_int_equal(submit(fixture, 2, first, sizeof(first)), -ENOTSUP);
	assert_int_equal(submit(fixture, 2, later, sizeof(later)), -ENOTSUP);
	assert_int_equal(ask(fixture, 2, 1, 1, DRM_FORMAT_R8, 0, &answer), -EINVAL);
	assert_int_equal(initialize(fixture, 2, RING), 0);
	assert_int_equal(initialize(fixture, 2, RING), -EBUSY);
}

/* Any process of the guest can name any resource: only the kernel attaches them. */
static void ring_must_be_attached_to_its_context(void **state)
{
	struct fixture *fixture = *state;
	struct hostblob_device *device = fixture->device;
	struct requirements answer;

	fixture->ring = RING;
	assert_int_equal(hostblob_resource_register(device, RING), 0);
	assert_int_equal(hostblob_context_create(device, 2, CAPSET), 0);
	assert_int_equal(hostblob_context_create(device, 3, CAPSET), 0);
	assert_int_equal(hostblob_context_attach(device, 3, RING), 0);
	assert_int_equal(initialize(fixture, 2, RING), -ENOENT);
	assert_int_equal(initialize(fixture, 2, 99), -ENOENT);
	assert_int_equal(hostblob_context_attach(device, 2, RING), 0);
	assert_int_equal(initialize(fixture, 2, RING), 0);
	assert_int_equal(ask(fixture, 2, 1, 1, DRM_FORMAT_R8, 0, &answer), 0);
	assert_int_equal(fixture->ring_writes, 1);

	assert_int_equal(hostblob_context_detach(device, 2, RING), 0);
	assert_int_equal(ask(fixture, 2, 1, 1, DRM_FORMAT_R8, 0, &answer), -ENOENT);
	assert_int_equal(hostblob_context_attach(device, 2, RING), 0);
	assert_int_equal(ask(fixture, 2, 1, 1, DRM_FORMAT_R8, 0, &answer), 0);

	/* The id is another process's now. */
	assert_int_equal(hostblob_resource_unref(device, RING), 0);
	assert_int_equal(hostblob_resource_register(device, RING), 0);
	assert_int_equal(ask(fixture, 2, 1, 1, DRM_FORMAT_R8, 0, &answer), -ENOENT);
	assert_int_equal(fixture->ring_writes, 2);

	/* What the VMM does not back is no ring. */
	assert_int_equal(hostblob_context_create(device, 4, CAPSET), 0);
	assert_int_equal(create(fixture, 5, 1), 0);
	assert_int_equal(hostblob_context_attach(device, 4, 5), 0);
	assert_int_equal(initialize(fixture, 4, 5), -EINVAL);
	assert_int_equal(hostblob_context_attach(device, 4, RING), 0);
	assert_int_equal(initialize(fixture, 4, RING), 0);
	fixture->ring = 0;
	assert_int_equal(ask(fixture, 4, 1, 1, DRM_FORMAT_R8, 0, &answer), -EINVAL);
	assert_int_equal(hostblob_context_destroy(device, 4), 0);
	assert_int_equal(hostblob_context_destroy(device, 3), 0);
	assert_int_equal(usage_of(device).attachments, 0);
}

/* Whether each row has room for its pixels and no row shares a byte with another. */
static void images_have_the_layout_of_their_format(void **state)
{
	/* Bytes of a row of @samples samples in each plane, for 1 x 1 or 2 x 2 pixels. */
	static const struct {
		uint32_t format;
		uint32_t bytes[3];
	} formats[] = {
		{ DRM_FORMAT_R8, { 1 } },	    { DRM_FORMAT_R16, { 2 } },
		{ DRM_FORMAT_GR88, { 2 } },	    { DRM_FORMAT_RG88, { 2 } },
		{ DRM_FORMAT_RGB565, { 2 } },	    { DRM_FORMAT_RGB888, { 3 } },
		{ DRM_FORMAT_BGR888, { 3 } },	    { DRM_FORMAT_XRGB8888, { 4 } },
		{ DRM_FORMAT_ARGB8888, { 4 } },	    { DRM_FORMAT_XBGR8888, { 4 } },
		{ DRM_FORMAT_ABGR8888, { 4 } },	    { DRM_FORMAT_XRGB2101010, { 4 } },
		{ DRM_FORMAT_ARGB2101010, { 4 } },  { DRM_FORMAT_XBGR2101010, { 4 } },
		{ DRM_FORMAT_ABGR2101010, { 4 } },  { DRM_FORMAT_ABGR16161616F, { 8 } },
		{ DRM_FORMAT_NV12, { 1, 2 } },	    { DRM_FORMAT_NV21, { 1, 2 } },
		{ DRM_FORMAT_P010, { 2, 4 } },	    { DRM_FORMAT_YUV420, { 1, 1, 1 } },
		{ DRM_FORMAT_YVU420, { 1, 1, 1 } }, { fourcc_code('9', '9', '9', '7'), { 1, 1, 1 } },
	};
	static const uint32_t sizes[][2] = { { 1, 1 }, { 2, 2 }, { 3, 5 }, { 255, 3 }, { 257, 7 }, { 129, 33 } };
	struct fixture *fixture = *state;
	uint32_t id = 1;

	begin(fixture, 2);
	for (unsigned int i = 0; i < sizeof(formats) / sizeof(formats[0]); i++) {
		for (unsigned int j = 0; j < sizeof(sizes) / sizeof(sizes[0]); j++) {
			uint32_t width = sizes[j][0], height = sizes[j][1];
			struct requirements answer;
			uint64_t end = 0;

			assert_int_equal(ask(fixture, 2, width, height, formats[i].format, 0, &answer), 0);
			for (unsigned int plane = 0; plane < 4; plane++) {
				uint32_t bytes = plane < 3 ? formats[i].bytes[plane] : 0;
				uint64_t samples = plane ? (width + 1) / 2 : width;
				uint64_t rows = plane ? (height + 1) / 2 : height;

				if (!bytes) {
					assert_int_equal(answer.strides[plane], 0);
					assert_int_equal(answer.offsets[plane], 0);
					continue;
				}
				assert_true(answer.strides[plane] >= samples * bytes);
				assert_true(answer.strides[plane] < samples * bytes + 512);
				assert_int_equal(answer.strides[plane] % 256, 0);
				assert_int_equal(answer.offsets[plane] % 256, 0);
				assert_int_equal(answer.offsets[plane], end);
				end += answer.strides[plane] * rows;
			}
			if (formats[i].bytes[2])
				assert_int_equal(answer.strides[0], 2 * answer.strides[1]);
			assert_true(answer.size >= end && answer.size < end + PAGE);
			assert_int_equal(answer.size % PAGE, 0);
			assert_int_equal(answer.modifier, 0);
			assert_int_equal(answer.blob_id, id++);
			assert_int_equal(answer.map_info, VIRTIO_GPU_MAP_CACHE_CACHED);
			assert_int_equal(answer.indices[0], -1);
			assert_int_equal(answer.indices[1], -1);
		}
	}
}

static struct hostblob_request requested;

static int note_request(struct hostblob_allocator *allocator, const struct hostblob_request *request,
			struct hostblob_buffer *buffer, char *error, unsigned int error_size)
{
	requested = *request;
	return allocate_unsealed(allocator, request, buffer, error, error_size);
}

/* The memory suits what a guest will do with it, as far as the VMM trusts the guest. */
static void images_are_in_memory_that_suits_them(void **state)
{
	enum { SCANOUT = 1, READ_OFTEN = 1 << 9, NO_IMAGE = 1 << 30, OTHERS = 0xfc };
	static const struct {
		bool cached_only, uncached;
		uint32_t uses;
		bool cached, scanout;
	} cases[] = {
		{ false, false, 0, true, false },
		{ false, false, SCANOUT | OTHERS, true, true },
		{ false, true, 0, false, false },
		{ false, true, OTHERS, false, false },
		{ false, true, SCANOUT, false, true },
		{ false, true, READ_OFTEN, true, false },
		{ false, true, SCANOUT | READ_OFTEN, true, true },
		{ false, true, NO_IMAGE, true, false },
		{ true, true, OTHERS, true, false },
		{ true, true, SCANOUT, true, true },
	};
	struct hostblob_allocator_ops ops = { .struct_size = sizeof(ops), .name = "noting", .allocate = note_request };
	struct hostblob_allocator allocator = { .ops = &ops };

	(void)state;
	for (unsigned int i = 0; i < 2 * sizeof(cases) / sizeof(cases[0]); i++) {
		bool write_combined = ops.write_combined = i % 2, image = cases[i / 2].uses != NO_IMAGE;
		struct fixture fixture = { 0 };
		const struct hostblob_config config = {
			.struct_size = sizeof(config),
			.allocator = &allocator,
			.guest = { .write = write_to_guest, .opaque = &fixture },
			.cached_only = cases[i / 2].cached_only,
			.uncached = cases[i / 2].uncached,
			.limits = &(struct hostblob_limits){ .struct_size = sizeof(struct hostblob_limits),
				.bytes = WINDOW, .blobs = 1, .contexts = 2, .resources = 2, .attachments = 1,
				.items = 1, .context_bytes = WINDOW, .context_blobs = 1, .blob_bytes = WINDOW },
		};
		struct requirements answer = { .size = 2 * PAGE, .map_info = HOSTBLOB_CACHED };

		assert_int_equal(hostblob_device_create(&config, &fixture.device), 0);
		assert_int_equal(hostblob_context_create(fixture.device, 3, 0), 0);
		begin(&fixture, 2);
		if (image)
			assert_int_equal(ask(&fixture, 2, 32, 32, DRM_FORMAT_ARGB8888, cases[i / 2].uses, &answer), 0);
		assert_int_equal(hostblob_blob_create(fixture.device, image ? 2 : 3, 1, 0, answer.blob_id,
						      answer.size), 0);
		assert_int_equal(requested.size, answer.size);
		assert_int_equal(requested.cached, cases[i / 2].cached);
		assert_int_equal(requested.scanout, cases[i / 2].scanout);
		assert_int_equal(answer.map_info, write_combined && !requested.cached ? HOSTBLOB_WRITE_COMBINED :
											HOSTBLOB_CACHED);
		hostblob_device_destroy(fixture.device);
	}
}

static void impossible_images_are_answered_with_zeros(void **state)
{
	static const struct {
		uint32_t width, height, format, flags;
		int result;
	} bad[] = {
		{ 0, 1, DRM_FORMAT_R8, 0, -EINVAL },
		{ 1, 0, DRM_FORMAT_R8, 0, -EINVAL },
		{ 1, 1, 0, 0, -ENOTSUP },
		{ 1, 1, UINT32_MAX, 0, -ENOTSUP },
		{ 1, 1, DRM_FORMAT_YUYV, 0, -ENOTSUP },
		{ 1, 1, DRM_FORMAT_R8, PROTECTED, -ENOTSUP },
		{ WINDOW + 1, 1, DRM_FORMAT_R8, 0, -ENOSPC },
		{ 1, WINDOW / 256 + 1, DRM_FORMAT_R8, 0, -ENOSPC },
		{ UINT32_MAX, 1, DRM_FORMAT_R8, 0, -EINVAL },
		{ 1u << 30, 1, DRM_FORMAT_XRGB8888, 0, -EINVAL },
		{ UINT32_MAX, UINT32_MAX, DRM_FORMAT_ABGR16161616F, 0, -EINVAL },
		{ UINT32_MAX - 255, UINT32_MAX, DRM_FORMAT_R8, 0, -ENOSPC },
		{ 1u << 20, 1u << 12, DRM_FORMAT_NV12, 0, -EINVAL },
		{ UINT32_MAX - 511, UINT32_MAX, DRM_FORMAT_YVU420, 0, -EINVAL },
	};
	struct fixture *fixture = *state;
	struct requirements answer, zeros = { 0 };

	begin(fixture, 2);
	for (unsigned int i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(ask(fixture, 2, bad[i].width, bad[i].height, bad[i].format, bad[i].flags, &answer),
				 bad[i].result);
		assert_memory_equal(&answer, &zeros, sizeof(answer));
	}
	assert_int_equal(ask(fixture, 2, WINDOW, 1, DRM_FORMAT_R8, 0, &answer), 0);
	assert_int_equal(answer.size, WINDOW);
	assert_int_equal(answer.blob_id, 1);
}

static void same_image_has_the_same_id_and_ids_are_limited(void **state)
{
	struct fixture *fixture = *state;
	struct requirements answer, zeros = { 0 };

	begin(fixture, 2);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(ask(fixture, 2, 5, 5, DRM_FORMAT_R8, 0, &answer), 0);
		assert_int_equal(answer.blob_id, 1);
	}
	assert_int_equal(ask(fixture, 2, 5, 5, DRM_FORMAT_R8, 1, &answer), 0);
	assert_int_equal(answer.blob_id, 2);
	assert_int_equal(ask(fixture, 2, 5, 6, DRM_FORMAT_R8, 0, &answer), -ENOSPC);
	assert_memory_equal(&answer, &zeros, sizeof(answer));
	assert_int_equal(ask(fixture, 2, 5, 5, DRM_FORMAT_R8, 1, &answer), 0);
	assert_int_equal(answer.blob_id, 2);
}

static void blobs_of_an_image_have_its_size(void **state)
{
	struct fixture *fixture = *state;
	struct hostblob_device *device = fixture->device;
	struct requirements answer;

	begin(fixture, 2);
	assert_int_equal(ask(fixture, 2, 65, 33, DRM_FORMAT_NV12, 0, &answer), 0);
	for (uint32_t id = 1; id <= 3; id++)
		assert_int_equal(hostblob_blob_create(device, 2, id, MAPPABLE, answer.blob_id, answer.size), 0);
	assert_int_equal(hostblob_blob_create(device, 2, 4, MAPPABLE, answer.blob_id, answer.size + PAGE), -EINVAL);
	assert_int_equal(hostblob_blob_create(device, 2, 4, MAPPABLE, answer.blob_id, answer.size - PAGE), -EINVAL);
	assert_int_equal(hostblob_blob_create(device, 2, 4, MAPPABLE, answer.blob_id + 1, answer.size), -EINVAL);
	assert_int_equal(hostblob_blob_create(device, 2, 4, MAPPABLE, UINT64_MAX, answer.size), -EINVAL);
	assert_int_equal(hostblob_blob_create(device, 2, 4, MAPPABLE, 1ull << 32 | answer.blob_id, answer.size), -EINVAL);
	assert_int_equal(hostblob_blob_create(device, 2, 4, MAPPABLE, 0, answer.size), -EINVAL);
	/* The id is that context's alone. */
	assert_int_equal(hostblob_blob_create(device, 1, 4, MAPPABLE, answer.blob_id, answer.size), -EINVAL);
	assert_int_equal(hostblob_context_create(device, 3, CAPSET), 0);
	assert_int_equal(hostblob_blob_create(device, 3, 4, MAPPABLE, answer.blob_id, answer.size), -EINVAL);
	assert_int_equal(map(fixture, 1, 0), 0);
	assert_int_equal(hostblob_context_destroy(device, 2), 0);
	fixture->base[0] = 1;
}

static void one_blob_is_limited(void **state)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));
	struct hostblob_limits limits = default_limits();
	struct requirements answer;

	limits.blob_bytes = 4 * PAGE;
	make_device(fixture, limits);
	*state = fixture;
	assert_int_equal(create(fixture, 1, 5), -ENOSPC);
	assert_int_equal(create(fixture, 1, 4), 0);
	assert_int_equal(create(fixture, 2, 4), 0);
	/* The guest's user space learns it as early as it asks. */
	begin(fixture, 2);
	assert_int_equal(ask(fixture, 2, 4 * PAGE + 1, 1, DRM_FORMAT_R8, 0, &answer), -ENOSPC);
	assert_int_equal(ask(fixture, 2, 4 * PAGE, 1, DRM_FORMAT_R8, 0, &answer), 0);
	teardown(state);
}

static void packed_commands_are_walked_safely(void **state)
{
	const uint32_t packed[] = { header(3, 8), 0, header(2, 24), 0, 3, 3, DRM_FORMAT_R8, 0,
				    header(3, 8), 0, header(2, 24), 0, 9, 9, DRM_FORMAT_R8, 0 };
	struct fixture *fixture = *state;

	begin(fixture, 2);
	assert_int_equal(submit(fixture, 2, packed, sizeof(packed)), 0);
	assert_int_equal(fixture->ring_writes, 2);
	/* Cut off anywhere, what was whole before the cut is done. */
	for (uint64_t bytes = 0; bytes < sizeof(packed); bytes++) {
		bool whole = bytes == 0 || bytes == 8 || bytes == 32 || bytes == 40;

		fixture->ring_writes = 0;
		assert_int_equal(submit(fixture, 2, packed, bytes), whole ? 0 : -EINVAL);
		assert_int_equal(fixture->ring_writes, bytes >= 32);
	}
	for (uint32_t size = 0; size < 8; size++) {
		const uint32_t small[] = { header(3, size), 0 };

		assert_int_equal(submit(fixture, 2, small, sizeof(small)), -EINVAL);
	}
	for (uint32_t size = 9; size < 0x10000; size += 997) {
		const uint32_t beyond[] = { header(3, size), 0 };

		assert_int_equal(submit(fixture, 2, beyond, sizeof(beyond)), -EINVAL);
	}
	for (uint32_t command = 0; command < 256; command++) {
		const uint32_t unknown[] = { header(command, 8), 0 };
		int expected = -ENOTSUP;

		if (command == 1 || command == 2)
			expected = -EINVAL;
		else if (command == 3)
			expected = 0;
		assert_int_equal(submit(fixture, 2, unknown, sizeof(unknown)), expected);
	}
}

static void only_contexts_of_the_capset_take_commands(void **state)
{
	const uint32_t poll[] = { header(3, 8), 0 };
	struct fixture *fixture = *state;
	uint32_t *large = calloc(1, HOSTBLOB_SUBMIT_MAX + 8);

	begin(fixture, 2);
	assert_int_equal(submit(fixture, 2, poll, sizeof(poll)), 0);
	assert_int_equal(submit(fixture, 1, poll, sizeof(poll)), -EINVAL);
	assert_int_equal(submit(fixture, 1, poll, 0), 0);
	assert_int_equal(submit(fixture, 3, poll, sizeof(poll)), -ESRCH);
	assert_int_equal(submit(fixture, 3, poll, 0), -ESRCH);
	for (uint32_t i = 0; i < HOSTBLOB_SUBMIT_MAX / 8 + 1; i++)
		large[2 * i] = poll[0];
	assert_int_equal(submit(fixture, 2, large, HOSTBLOB_SUBMIT_MAX), 0);
	assert_int_equal(submit(fixture, 2, large, HOSTBLOB_SUBMIT_MAX + 8), -EINVAL);
	free(large);
}

static void attachments_are_limited_and_returned(void **state)
{
	struct fixture *fixture = *state;
	struct hostblob_device *device = fixture->device;

	for (uint32_t id = 1; id <= 4; id++)
		assert_int_equal(hostblob_resource_register(device, id), 0);
	for (int round = 0; round < 2; round++) {
		for (uint32_t id = 1; id <= 3; id++)
			assert_int_equal(hostblob_context_attach(device, 1, id), 0);
		assert_int_equal(hostblob_context_attach(device, 1, 4), -ENOSPC);
		assert_int_equal(hostblob_context_attach(device, 1, 3), 0);
		assert_int_equal(hostblob_resource_unref(device, 2), 0);
		assert_int_equal(hostblob_resource_register(device, 2), 0);
		assert_int_equal(hostblob_context_attach(device, 1, 4), 0);
		assert_int_equal(usage_of(device).attachments, 3);
		assert_int_equal(hostblob_context_destroy(device, 1), 0);
		assert_int_equal(usage_of(device).attachments, 0);
		assert_int_equal(hostblob_context_create(device, 1, 0), 0);
	}
	assert_int_equal(hostblob_context_attach(device, 1, 1), 0);
	hostblob_device_reset(device);
	assert_empty(fixture);
}

/* --- all together ------------------------------------------------------------ */

/* What a device of 8 ids and 16 pages of window should do, in the plainest way. */
struct model {
	uint64_t pages[9]; /* 0: no such blob */
	int64_t place[9];  /* -1: not mapped */
};

static bool model_is_free(const struct model *model, uint64_t page, uint64_t pages)
{
	for (int id = 1; id <= 8; id++) {
		if (model->place[id] >= 0 && page < (uint64_t)model->place[id] + model->pages[id] &&
		    (uint64_t)model->place[id] < page + pages)
			return false;
	}
	return page + pages <= WINDOW / PAGE;
}

static int model_expects_of_map(const struct model *model, uint32_t id, uint64_t page)
{
	if (!model->pages[id])
		return -ENOENT;
	if (model->place[id] >= 0)
		return -EBUSY;
	return model_is_free(model, page, model->pages[id]) ? 0 : -EINVAL;
}

static void random_commands_match_a_model(void **state)
{
	struct fixture *fixture = *state;
	struct model model = { 0 };
	unsigned int seed = 1;

	memset(model.place, -1, sizeof(model.place));
	for (int i = 0; i < 100000; i++) {
		uint32_t id = 1 + (unsigned int)rand_r(&seed) % 8;
		uint64_t value = (unsigned int)rand_r(&seed) % 70;
		int expected;

		switch (rand_r(&seed) % 4) {
		case 0:
			value = 1 + value % 6;
			expected = model.pages[id] ? -EEXIST : 0;
			assert_int_equal(create(fixture, id, value), expected);
			if (!expected)
				model.pages[id] = value;
			break;
		case 1:
			expected = model_expects_of_map(&model, id, value);
			assert_int_equal(map(fixture, id, value * PAGE), expected);
			if (!expected) {
				model.place[id] = (int64_t)value;
				fixture->base[value * PAGE] = (uint8_t)id;
			}
			break;
		case 2:
			expected = model.pages[id] ? 0 : -ENOENT;
			assert_int_equal(hostblob_blob_unmap(fixture->device, id), expected);
			model.place[id] = -1;
			break;
		default:
			expected = model.pages[id] ? 0 : -ENOENT;
			assert_int_equal(hostblob_resource_unref(fixture->device, id), expected);
			model.pages[id] = 0;
			model.place[id] = -1;
		}
		for (id = 1; id <= 8; id++) {
			if (model.place[id] >= 0)
				assert_int_equal(fixture->base[model.place[id] * (int64_t)PAGE], id);
		}
	}
}

#define WITH(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
#define WITH_SMALL(test) cmocka_unit_test_setup_teardown(test, setup_small, teardown)

/* Runs all tests, or those that match a pattern. */
int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		WITH(context_ids_are_checked),
		WITH(attach_needs_both_ids),
		WITH(resource_ids_are_one_space),
		WITH(resources_of_the_vmm_are_no_blobs),
		WITH(create_checks_every_argument),
		WITH_SMALL(bytes_are_limited_and_returned),
		WITH_SMALL(counts_are_limited),
		WITH_SMALL(mapped_blobs_are_limited),
		cmocka_unit_test_setup_teardown(contexts_have_shares, setup_shares, teardown),
		cmocka_unit_test_setup_teardown(shares_are_not_inherited, setup_shares, teardown),
		WITH(limits_have_defaults),
		cmocka_unit_test(one_blob_is_limited),
		cmocka_unit_test(limits_can_be_zero),
		WITH(structures_of_other_versions_are_read),
		WITH(structures_of_other_versions_are_written),
		cmocka_unit_test(library_is_of_the_header_s_version),
		WITH(reset_returns_everything),
		WITH(map_shows_the_buffer_and_unmap_hides_it),
		WITH(unref_of_a_mapped_blob_leaves_a_hole),
		WITH(map_stays_in_the_window),
		WITH(maps_never_overlap),
		WITH(map_needs_the_flag_and_happens_once),
		WITH(cycles_leave_nothing_behind),
		cmocka_unit_test(window_is_aligned_and_its_holes_are_bounded),
		WITH(holes_cost_no_mappings),
		cmocka_unit_test(window_sizes_are_checked),
		WITH(devices_that_cannot_be_are_refused),
		WITH(failed_map_changes_nothing),
		WITH(no_more_mappings_is_no_end),
		WITH(refused_mapping_leaves_the_sink),
		cmocka_unit_test(failed_allocation_changes_nothing),
		WITH(memfd_buffers_are_zero_and_sealed),
		cmocka_unit_test(allocators_say_what_is_wrong),
		cmocka_unit_test(an_allocator_explains_its_failure),
		cmocka_unit_test(images_are_in_memory_that_suits_them),
		cmocka_unit_test(responses_are_those_of_the_specification),
		WITH(lost_blob_has_other_memory_for_good),
		cmocka_unit_test(lost_blobs_share_nothing),
		WITH(blob_that_the_mapper_cannot_lose_is_not_lost),
		WITH(only_a_mapped_blob_is_lost_and_only_once),
		cmocka_unit_test(memory_that_fails_costs_the_blob_only),
		cmocka_unit_test(uncached_memory_is_refused_where_guests_get_it_cached),
		WITH_SMALL(creation_holds_its_place),
		WITH_SMALL(creation_can_be_given_up),
		cmocka_unit_test_setup_teardown(creation_outlives_its_context, setup_shares, teardown),
		cmocka_unit_test(reset_does_not_wait_for_an_allocator),
		WITH(capset_says_allocation_only),
		WITH(init_has_three_sizes),
		WITH(channels_are_refused),
		WITH(ring_must_be_attached_to_its_context),
		WITH(images_have_the_layout_of_their_format),
		WITH(impossible_images_are_answered_with_zeros),
		WITH_SMALL(same_image_has_the_same_id_and_ids_are_limited),
		WITH(blobs_of_an_image_have_its_size),
		WITH(packed_commands_are_walked_safely),
		WITH(only_contexts_of_the_capset_take_commands),
		WITH_SMALL(attachments_are_limited_and_returned),
		WITH(random_commands_match_a_model),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests_name("libhostblob", tests, NULL, NULL);
}

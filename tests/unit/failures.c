// SPDX-License-Identifier: MIT
/*
 * The library where the host fails it: each call into libc fails once, and a DRM
 * driver answers what drivers may answer. The linker puts these functions in place
 * of the real ones: see the file wrap. Built with ASan and UBSan; a leak fails the
 * run.
 */
#include "hostblob.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <amdgpu_drm.h>
#include <cmocka.h>
#include <dirent.h>
#include <drm_fourcc.h>
#include <errno.h>
#include <fcntl.h>
#include <radeon_drm.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xf86drm.h>
#include <xf86drmMode.h>

#define PAGE 4096ull
#define WINDOW (16 * PAGE)

/* --- libc, of which one call fails ------------------------------------------- */

static unsigned int countdown; /* to the call that fails; 0: none does */
static bool always;	       /* and all after it */

static bool fails(int error)
{
	if (!countdown || --countdown)
		return false;
	countdown = always;
	errno = error;
	return true;
}

#define WRAP(type, name, failure, error, parameters, arguments) \
	type __real_##name parameters; \
	type __wrap_##name parameters; \
	type __wrap_##name parameters \
	{ \
		return fails(error) ? (failure) : __real_##name arguments; \
	}

WRAP(void *, malloc, NULL, ENOMEM, (size_t size), (size))
WRAP(void *, calloc, NULL, ENOMEM, (size_t count, size_t size), (count, size))
WRAP(void *, reallocarray, NULL, ENOMEM, (void *old, size_t count, size_t size), (old, count, size))
WRAP(void *, tsearch, NULL, ENOMEM, (const void *key, void **root, comparison_fn_t compare), (key, root, compare))
WRAP(int, memfd_create, -1, EMFILE, (const char *name, unsigned int flags), (name, flags))
WRAP(int, ftruncate64, -1, ENOSPC, (int fd, off_t size), (fd, size))
WRAP(int, fcntl64, -1, EPERM, (int fd, int command, int argument), (fd, command, argument))
WRAP(void *, mmap64, MAP_FAILED, ENOMEM,
     (void *address, size_t size, int protection, int flags, int fd, off_t offset),
     (address, size, protection, flags, fd, offset))
WRAP(void *, mremap, MAP_FAILED, ENOMEM,
     (void *address, size_t size, size_t new_size, int flags, void *new_address),
     (address, size, new_size, flags, new_address))
WRAP(int, mprotect, -1, ENOMEM, (void *address, size_t size, int protection), (address, size, protection))

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

/* --- a DRM driver -------------------------------------------------------------- */

static struct {
	const char *driver; /* NULL: the node is none of DRM's */
	int open_handles;
	bool refuses, cannot_export, cannot_tell;
	uint64_t asked_domain, asked_flags; /* of amdgpu */
	uint64_t domain, domain_flags;	    /* what it made of them */
	uint64_t visible, vram;
	bool tells_no_memory;
	int64_t more;		       /* bytes than were asked for */
	uint64_t size;
	uint64_t dumb_bytes;
} drm;

#define FUNCTION(type, name, parameters) \
	type __wrap_##name parameters; \
	type __wrap_##name parameters

FUNCTION(drmVersionPtr, drmGetVersion, (int node))
{
	drmVersionPtr version = drm.driver ? calloc(1, sizeof(*version)) : NULL;

	(void)node;
	if (version)
		version->name = strdup(drm.driver);
	return version;
}

FUNCTION(void, drmFreeVersion, (drmVersionPtr version))
{
	free(version->name);
	free(version);
}

FUNCTION(int, drmCommandWriteRead, (int node, unsigned long command, void *data, unsigned long size))
{
	union drm_amdgpu_gem_create *amdgpu = data;
	struct drm_radeon_gem_create *radeon = data;
	struct drm_amdgpu_gem_op *op = data;

	(void)node;
	if (drm.refuses)
		return -ENOMEM;
	if (!strcmp(drm.driver, "radeon")) {
		assert_int_equal(command, DRM_RADEON_GEM_CREATE);
		assert_int_equal(size, sizeof(*radeon));
		assert_int_equal(radeon->initial_domain, RADEON_GEM_DOMAIN_CPU);
		drm.size = radeon->size;
		radeon->handle = 1;
	} else if (command == DRM_AMDGPU_GEM_CREATE) {
		assert_int_equal(size, sizeof(*amdgpu));
		drm.asked_domain = amdgpu->in.domains;
		drm.asked_flags = amdgpu->in.domain_flags;
		drm.size = amdgpu->in.bo_size;
		amdgpu->out.handle = 1;
	} else {
		struct drm_amdgpu_gem_create_in *info = (void *)(uintptr_t)op->value;

		assert_int_equal(command, DRM_AMDGPU_GEM_OP);
		assert_int_equal(op->op, AMDGPU_GEM_OP_GET_GEM_CREATE_INFO);
		if (drm.cannot_tell)
			return -EINVAL;
		info->domains = drm.domain;
		info->domain_flags = drm.domain_flags;
		info->bo_size = drm.size + (uint64_t)drm.more;
		return 0;
	}
	drm.open_handles++;
	return 0;
}

FUNCTION(int, drmCommandWrite, (int node, unsigned long command, void *data, unsigned long size))
{
	const struct drm_amdgpu_info *info = data;
	struct drm_amdgpu_memory_info *memory = (void *)(uintptr_t)info->return_pointer;

	(void)node;
	assert_int_equal(command, DRM_AMDGPU_INFO);
	assert_int_equal(size, sizeof(*info));
	assert_int_equal(info->query, AMDGPU_INFO_MEMORY);
	assert_int_equal(info->return_size, sizeof(*memory));
	if (drm.tells_no_memory)
		return -EINVAL;
	*memory = (struct drm_amdgpu_memory_info){
		.vram = { .total_heap_size = drm.vram },
		.cpu_accessible_vram = { .total_heap_size = drm.visible },
		.gtt = { .total_heap_size = 512 << 20, .heap_usage = 510 << 20 },
	};
	return 0;
}

FUNCTION(int, drmModeCreateDumbBuffer, (int node, uint32_t width, uint32_t height, uint32_t bits, uint32_t flags,
					uint32_t *handle, uint32_t *pitch, uint64_t *size))
{
	(void)node;
	assert_int_equal(flags, 0);
	if (drm.refuses)
		return -ENOMEM;
	drm.open_handles++;
	drm.size = (uint64_t)width * height * bits / 8;
	*handle = 1;
	*pitch = width * bits / 8;
	*size = drm.size + (uint64_t)drm.more;
	return 0;
}

static int close_handle(uint32_t handle)
{
	assert_int_equal(handle, 1);
	drm.open_handles--;
	return 0;
}

FUNCTION(int, drmModeDestroyDumbBuffer, (int node, uint32_t handle))
{
	(void)node;
	return close_handle(handle);
}

FUNCTION(int, drmCloseBufferHandle, (int node, uint32_t handle))
{
	(void)node;
	return close_handle(handle);
}

FUNCTION(int, drmPrimeHandleToFD, (int node, uint32_t handle, uint32_t flags, int *fd))
{
	(void)node;
	assert_int_equal(handle, 1);
	assert_int_equal(flags, DRM_CLOEXEC | DRM_RDWR);
	if (drm.cannot_export) {
		errno = ENOSYS;
		return -1;
	}
	*fd = memfd_create("dma-buf", MFD_CLOEXEC);
	return ftruncate(*fd, (off_t)drm.size);
}

/* --- allocators on it ---------------------------------------------------------- */

static const struct {
	const char *driver, *allocator;
} drivers[] = {
	{ "qxl", "dumb" }, { "bochs-drm", "dumb" }, { "radeon", "radeon" }, { "amdgpu", "amdgpu" },
};

#define DRIVERS (sizeof(drivers) / sizeof(drivers[0]))

static void use_driver(const char *name)
{
	memset(&drm, 0, sizeof(drm));
	drm.driver = name;
	drm.domain = AMDGPU_GEM_DOMAIN_GTT;
}

static struct hostblob_allocator *open_driver(const char *name)
{
	struct hostblob_allocator *allocator;
	char error[256];

	use_driver(name);
	assert_int_equal(hostblob_allocator_open(NULL, STDIN_FILENO, &allocator, error, sizeof(error)), 0);
	return allocator;
}

static char message[160];

static int request(struct hostblob_allocator *allocator, struct hostblob_request what, struct hostblob_buffer *buffer)
{
	int result;

	what.struct_size = sizeof(what);
	message[0] = 0;
	result = allocator->ops->allocate(allocator, &what, buffer, message, sizeof(message));
	/* The dma-buf is what keeps the memory. */
	assert_int_equal(drm.open_handles, 0);
	return result;
}

static int allocate(struct hostblob_allocator *allocator, uint64_t size, struct hostblob_buffer *buffer)
{
	return request(allocator, (struct hostblob_request){ .size = size, .cached = true }, buffer);
}

static void each_known_driver_has_its_allocator(void **state)
{
	struct hostblob_allocator *allocator;
	struct hostblob_buffer buffer;
	char error[256];

	(void)state;
	for (unsigned int i = 0; i < DRIVERS; i++) {
		allocator = open_driver(drivers[i].driver);
		assert_string_equal(allocator->ops->name, drivers[i].allocator);
		assert_int_equal(allocate(allocator, 8 * PAGE, &buffer), 0);
		assert_int_equal(lseek(buffer.fd, 0, SEEK_END), 8 * PAGE);
		assert_int_equal(buffer.size, 8 * PAGE);
		assert_int_equal(buffer.caching, HOSTBLOB_CACHED);
		close(buffer.fd);
		hostblob_allocator_close(allocator);
		assert_int_equal(hostblob_allocator_open(drivers[i].allocator, STDIN_FILENO, &allocator, error,
							 sizeof(error)), 0);
		hostblob_allocator_close(allocator);
	}
	hostblob_allocator_close(NULL);
}

static void other_drivers_are_refused(void **state)
{
	struct hostblob_allocator *allocator = NULL;
	char error[256];

	(void)state;
	use_driver("nouveau");
	assert_int_equal(hostblob_allocator_open(NULL, STDIN_FILENO, &allocator, error, sizeof(error)), -ENODEV);
	assert_non_null(strstr(error, "no allocator knows the driver nouveau"));
	use_driver("qxl");
	assert_int_equal(hostblob_allocator_open("amdgpu", STDIN_FILENO, &allocator, error, sizeof(error)), -ENODEV);
	assert_non_null(strstr(error, "amdgpu cannot use the driver qxl; use dumb"));
	use_driver(NULL);
	assert_int_equal(hostblob_allocator_open(NULL, STDIN_FILENO, &allocator, error, sizeof(error)), -EINVAL);
	assert_null(allocator);
}

static void drivers_that_fail_leave_no_handle(void **state)
{
	unsigned int files = count_files();
	struct hostblob_buffer buffer;

	(void)state;
	for (unsigned int i = 0; i < DRIVERS; i++) {
		struct hostblob_allocator *allocator = open_driver(drivers[i].driver);

		drm.refuses = true;
		assert_int_equal(allocate(allocator, PAGE, &buffer), -ENOMEM);
		drm.refuses = false;
		drm.cannot_export = true;
		assert_int_equal(allocate(allocator, PAGE, &buffer), -ENOSYS);
		hostblob_allocator_close(allocator);
	}
	assert_int_equal(count_files(), files);
}

static void amdgpu_chooses_by_what_is_asked_for(void **state)
{
	const uint64_t wc = AMDGPU_GEM_CREATE_CPU_GTT_USWC, gtt = AMDGPU_GEM_DOMAIN_GTT;
	const uint64_t vram = AMDGPU_GEM_DOMAIN_VRAM;
	const uint64_t vram_flags = wc | AMDGPU_GEM_CREATE_CPU_ACCESS_REQUIRED | AMDGPU_GEM_CREATE_VRAM_CLEARED;
	const struct {
		bool cached, scanout, tells_no_memory;
		uint64_t visible, vram, asked, asked_flags, domain;
	} cases[] = {
		{ true, false, false, 512, 512, gtt, 0, gtt },
		{ true, true, false, 512, 512, gtt, 0, gtt },
		{ false, false, false, 512, 512, gtt, wc, gtt },
		{ false, true, false, 512, 512, vram, vram_flags, vram },
		{ false, true, false, 512, 512, vram, vram_flags, vram | gtt },
		{ false, true, false, 256, 512, gtt, wc, gtt },
		{ false, true, false, 0, 0, gtt, wc, gtt },
		{ false, true, true, 512, 512, gtt, wc, gtt },
	};
	struct hostblob_allocator *allocator = open_driver("amdgpu");
	struct hostblob_buffer buffer;

	(void)state;
	assert_true(allocator->ops->write_combined);
	for (unsigned int i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		drm.visible = cases[i].visible;
		drm.vram = cases[i].vram;
		drm.tells_no_memory = cases[i].tells_no_memory;
		drm.domain = cases[i].domain;
		drm.domain_flags = cases[i].cached ? 0 : cases[i].asked_flags;
		assert_int_equal(request(allocator, (struct hostblob_request){ .size = PAGE, .cached = cases[i].cached,
				 .scanout = cases[i].scanout }, &buffer), 0);
		assert_int_equal(drm.asked_domain, cases[i].asked);
		assert_int_equal(drm.asked_flags, cases[i].asked_flags);
		assert_int_equal(buffer.caching, cases[i].cached ? HOSTBLOB_CACHED : HOSTBLOB_WRITE_COMBINED);
		close(buffer.fd);
	}
	/* Its memory type would change with its place. */
	drm.tells_no_memory = false;
	drm.domain_flags = 0;
	drm.domain = vram;
	assert_int_equal(request(allocator, (struct hostblob_request){ .size = PAGE, .scanout = true }, &buffer), -ENODEV);
	drm.domain = 0;
	assert_int_equal(allocate(allocator, PAGE, &buffer), -ENODEV);
	hostblob_allocator_close(allocator);
}

static void amdgpu_says_that_it_is_full(void **state)
{
	struct hostblob_allocator *allocator = open_driver("amdgpu");
	struct hostblob_buffer buffer;

	(void)state;
	drm.refuses = true;
	assert_int_equal(allocate(allocator, PAGE, &buffer), -ENOMEM);
	assert_non_null(strstr(message, "510 of 512 MiB of GTT are in use"));
	assert_non_null(strstr(message, "let guests have less"));
	drm.tells_no_memory = true;
	assert_int_equal(allocate(allocator, PAGE, &buffer), -ENOMEM);
	assert_string_equal(message, "");
	hostblob_allocator_close(allocator);
}

/* Nor may it be video memory that nobody asked for: KVM maps that as a device's. */
static void amdgpu_tells_what_it_made(void **state)
{
	struct hostblob_allocator *allocator = open_driver("amdgpu");
	struct hostblob_buffer buffer;

	(void)state;
	drm.domain_flags = AMDGPU_GEM_CREATE_CPU_GTT_USWC;
	assert_int_equal(allocate(allocator, PAGE, &buffer), 0);
	assert_int_equal(buffer.caching, HOSTBLOB_WRITE_COMBINED);
	close(buffer.fd);
	drm.domain = AMDGPU_GEM_DOMAIN_VRAM;
	assert_int_equal(allocate(allocator, PAGE, &buffer), -ENODEV);
	drm.domain = AMDGPU_GEM_DOMAIN_VRAM | AMDGPU_GEM_DOMAIN_GTT;
	assert_int_equal(allocate(allocator, PAGE, &buffer), -ENODEV);
	drm.domain = AMDGPU_GEM_DOMAIN_GTT;
	drm.more = -4096;
	assert_int_equal(allocate(allocator, 2 * PAGE, &buffer), -ENODEV);
	drm.more = 0;
	drm.cannot_tell = true;
	assert_int_equal(allocate(allocator, PAGE, &buffer), -EINVAL);
	hostblob_allocator_close(allocator);
}

static void dumb_buffers_are_as_large_as_asked_for(void **state)
{
	struct hostblob_allocator *allocator = open_driver("qxl");
	struct hostblob_buffer buffer;

	(void)state;
	assert_int_equal(allocate(allocator, PAGE + 1, &buffer), -EINVAL);
	assert_int_equal(allocate(allocator, PAGE << 32, &buffer), -EINVAL);
	drm.more = -1;
	assert_int_equal(allocate(allocator, 4 * PAGE, &buffer), -EINVAL);
	drm.more = 4096;
	assert_int_equal(allocate(allocator, 4 * PAGE, &buffer), 0);
	assert_int_equal(buffer.size, 4 * PAGE);
	close(buffer.fd);
	hostblob_allocator_close(allocator);
}

static void memfd_larger_than_a_file_is_refused(void **state)
{
	struct hostblob_allocator *allocator;
	struct hostblob_buffer buffer;
	char error[256];

	(void)state;
	assert_int_equal(hostblob_allocator_open(NULL, -1, &allocator, error, sizeof(error)), 0);
	assert_int_equal(allocate(allocator, 1ull << 63, &buffer), -ENOMEM);
	hostblob_allocator_close(allocator);
}

/* --- one call fails, whichever it is ------------------------------------------- */

static int do_not_write(void *opaque, uint32_t resource_id, const void *data, uint64_t size)
{
	(void)opaque;
	(void)resource_id;
	(void)data;
	(void)size;
	return 0;
}

struct life {
	struct hostblob_allocator *allocator;
	struct hostblob_window *window;
	struct hostblob_device *device;
};

static int ask_for_an_image(struct hostblob_device *device)
{
	const uint32_t words[] = { 1 | 16 << 16, 0, 7, 0, 2 | 24 << 16, 0, 64, 64, DRM_FORMAT_R8, 0 };

	return hostblob_context_submit(device, 2, words, sizeof(words));
}

/* Each step needs those before it; the first that fails has changed nothing. */
static int use_device(struct hostblob_device *device)
{
	struct hostblob_usage before, after;
	int result = 0;

	for (int step = 0; !result && step < 8; step++) {
		uint32_t map_info;

		hostblob_device_usage(device, &before, sizeof(before));
		switch (step) {
		case 0: result = hostblob_context_create(device, 1, 0); break;
		case 1: result = hostblob_context_create(device, 2, HOSTBLOB_CAPSET_CROSS_DOMAIN); break;
		case 2: result = hostblob_resource_register(device, 7); break;
		case 3: result = hostblob_context_attach(device, 2, 7); break;
		case 4: result = ask_for_an_image(device); break;
		case 5: result = hostblob_blob_create(device, 1, 1, 1, 0, 4 * PAGE); break;
		case 6: result = hostblob_blob_map(device, 1, 4 * PAGE, &map_info); break;
		default: result = hostblob_blob_unmap(device, 1);
		}
		hostblob_device_usage(device, &after, sizeof(after));
		if (result)
			assert_memory_equal(&before, &after, sizeof(before));
	}
	return result;
}

static unsigned int gaps;

static void count_gap(void *opaque)
{
	(void)opaque;
	gaps++;
}

static const struct hostblob_window_config window_config = {
	.struct_size = sizeof(window_config), .size = WINDOW, .fatal = count_gap,
};

static int live(struct life *life)
{
	struct hostblob_config config = { .struct_size = sizeof(config), .window_size = WINDOW,
					  .guest.write = do_not_write };
	char error[256];
	uint8_t *base;
	int result = hostblob_allocator_open(NULL, -1, &life->allocator, error, sizeof(error));

	if (!result)
		result = hostblob_window_create(&window_config, &life->window);
	if (result)
		return result;
	config.allocator = life->allocator;
	config.mapper = hostblob_window_mapper(life->window);
	result = hostblob_device_create(&config, &life->device);
	if (result)
		return result;
	result = use_device(life->device);
	/* All of the window is there, whatever happened. */
	base = hostblob_window_base(life->window);
	for (uint64_t offset = 0; offset < WINDOW; offset += PAGE)
		*(volatile uint8_t *)(base + offset) = 1;
	return result;
}

static void whichever_call_fails_nothing_is_left_behind(void **state)
{
	unsigned int files = count_files(), failures = 0, call = 0;
	bool failed = true;

	(void)state;
	while (failed) {
		struct life life = { 0 };
		int result;

		countdown = ++call;
		result = live(&life);
		failed = !countdown;
		countdown = 0;
		failures += !!result;
		assert_true(failed || !result);
		hostblob_device_destroy(life.device);
		hostblob_window_destroy(life.window);
		hostblob_allocator_close(life.allocator);
		assert_int_equal(count_files(), files);
	}
	/* Only an unmap can do without what it asked for. */
	assert_true(failures >= 30 && call - 1 - failures <= 2);
}

/* The VMM decides what becomes of the process; the window only must not be used any more. */
static void gap_that_stays_is_the_vmm_s_to_deal_with(void **state)
{
	struct hostblob_buffer buffer = { .size = PAGE, .caching = HOSTBLOB_CACHED };
	struct hostblob_window *window;
	struct hostblob_mapper mapper;

	(void)state;
	assert_int_equal(hostblob_window_create(&window_config, &window), 0);
	mapper = hostblob_window_mapper(window);
	buffer.fd = memfd_create("buffer", MFD_CLOEXEC);
	assert_int_equal(ftruncate(buffer.fd, PAGE), 0);
	assert_int_equal(mapper.map(mapper.opaque, 0, &buffer), 0);
	gaps = 0;
	countdown = 1, always = true;
	mapper.unmap(mapper.opaque, 0, PAGE);
	countdown = 0, always = false;
	assert_int_equal(gaps, 1);
	assert_int_equal(mapper.map(mapper.opaque, 0, &buffer), -ENOTRECOVERABLE);
	mapper.unmap(mapper.opaque, 0, PAGE);
	close(buffer.fd);
	hostblob_window_destroy(window);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_known_driver_has_its_allocator),
		cmocka_unit_test(amdgpu_chooses_by_what_is_asked_for),
		cmocka_unit_test(amdgpu_says_that_it_is_full),
		cmocka_unit_test(other_drivers_are_refused),
		cmocka_unit_test(drivers_that_fail_leave_no_handle),
		cmocka_unit_test(amdgpu_tells_what_it_made),
		cmocka_unit_test(dumb_buffers_are_as_large_as_asked_for),
		cmocka_unit_test(memfd_larger_than_a_file_is_refused),
		cmocka_unit_test(whichever_call_fails_nothing_is_left_behind),
		cmocka_unit_test(gap_that_stays_is_the_vmm_s_to_deal_with),
	};

	return cmocka_run_group_tests_name("libhostblob's host", tests, NULL, NULL);
}

// SPDX-License-Identifier: MIT
/*
 * Allocates from the drivers that an emulated host can have: qxl and bochs give
 * system pages for dumb buffers, radeon for its CPU domain, and amdgpu, and the TTM test
 * driver, which says that it is amdgpu, for GTT. Uses the kernel's
 * interfaces directly, because the tests of KVM stand below the library.
 */
#include "buffer.h"
#include "test.h"

#include <amdgpu_drm.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <radeon_drm.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xf86drm.h>
#include <xf86drmMode.h>

static int driver_of(int node, char *driver, unsigned int driver_size)
{
	static const char *const known[] = { "qxl", "bochs-drm", "radeon", TEST_DRIVER };
	drmVersionPtr version = drmGetVersion(node);
	int result = -ENODEV;

	if (!version)
		return -ENODEV;
	for (unsigned int i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		if (!strcmp(version->name, known[i])) {
			snprintf(driver, driver_size, "%s", known[i]);
			result = 0;
		}
	}
	drmFreeVersion(version);
	return result;
}

int node_open(const char *path, char *driver, unsigned int driver_size)
{
	static const char *const patterns[] = { "/dev/dri/renderD%d", "/dev/dri/card%d" };
	static const int first[] = { 128, 0 };
	char name[64];

	for (unsigned int i = 0; i < 2 && !path; i++) {
		for (int minor = first[i]; minor < first[i] + 8; minor++) {
			snprintf(name, sizeof(name), patterns[i], minor);
			int node = node_open(name, driver, driver_size);

			if (node >= 0)
				return node;
		}
	}
	if (!path)
		return -ENODEV;

	int node = open(path, O_RDWR | O_CLOEXEC);

	if (node < 0)
		return -errno;
	int result = driver_of(node, driver, driver_size);

	if (result < 0) {
		close(node);
		return result;
	}
	return node;
}

bool test_driver_is_loaded(void)
{
	return !access("/sys/module/hostblob_ttm", F_OK);
}

int test_driver_open(void)
{
	char driver[32];
	int node = test_driver_is_loaded() ? node_open(NULL, driver, sizeof(driver)) : -ENODEV;

	if (node < 0 || !strcmp(driver, TEST_DRIVER))
		return node;
	close(node);
	return -ENODEV;
}

bool test_driver_ask(int node, const struct buffer *buffer, struct hostblob_ttm_test *test)
{
	test->handle = buffer->handle;
	if (!drmIoctl(node, DRM_IOCTL_HOSTBLOB_TTM_TEST, test))
		return true;
	warn("the test driver, asked for %u", test->request);
	return false;
}

bool test_driver_request(int node, const struct buffer *buffer, enum hostblob_ttm_request request, uint32_t count,
			 uint32_t *answer)
{
	struct hostblob_ttm_test test = { .request = request, .count = count };

	if (!test_driver_ask(node, buffer, &test))
		return false;
	if (answer)
		*answer = test.count;
	return true;
}

static int create_radeon(int node, uint64_t size, uint32_t *handle, uint64_t *offset)
{
	struct drm_radeon_gem_create create = {
		.size = size,
		.alignment = PAGE_BYTES,
		.initial_domain = RADEON_GEM_DOMAIN_CPU,
	};
	struct drm_radeon_gem_mmap map = { .size = size };
	int result = drmCommandWriteRead(node, DRM_RADEON_GEM_CREATE, &create, sizeof(create));

	if (result < 0)
		return result;
	map.handle = create.handle;
	result = drmCommandWriteRead(node, DRM_RADEON_GEM_MMAP, &map, sizeof(map));
	*handle = create.handle;
	*offset = map.addr_ptr;
	return result;
}

/* What amdgpu itself is asked for; the test driver keeps it for a node. */
static struct {
	uint64_t domain, flags;
} amdgpu_kind = { .domain = AMDGPU_GEM_DOMAIN_GTT };

static int choose_amdgpu_kind(const char *kind)
{
	amdgpu_kind.domain = AMDGPU_GEM_DOMAIN_GTT;
	amdgpu_kind.flags = 0;
	if (!strcmp(kind, "write-combined"))
		amdgpu_kind.flags = AMDGPU_GEM_CREATE_CPU_GTT_USWC;
	else if (!strcmp(kind, "vram"))
		amdgpu_kind.domain = AMDGPU_GEM_DOMAIN_VRAM;
	else if (strcmp(kind, "gtt"))
		return -EINVAL;
	return 0;
}

static int create_amdgpu(int node, uint64_t size, uint32_t *handle, uint64_t *offset)
{
	union drm_amdgpu_gem_create create = {
		.in = { .bo_size = size, .alignment = PAGE_BYTES, .domains = amdgpu_kind.domain,
			.domain_flags = amdgpu_kind.flags },
	};
	union drm_amdgpu_gem_mmap map = { 0 };
	int result = drmCommandWriteRead(node, DRM_AMDGPU_GEM_CREATE, &create, sizeof(create));

	if (result < 0)
		return result;
	map.in.handle = *handle = create.out.handle;
	result = drmCommandWriteRead(node, DRM_AMDGPU_GEM_MMAP, &map, sizeof(map));
	*offset = map.out.addr_ptr;
	return result;
}

static int create_dumb(int node, uint64_t size, uint32_t *handle, uint64_t *offset)
{
	uint32_t pitch;
	uint64_t real_size;
	int result = drmModeCreateDumbBuffer(node, 1024, (uint32_t)(size / PAGE_BYTES), 32, 0, handle,
					     &pitch, &real_size);

	if (result < 0)
		return result;
	if (real_size != size)
		return -EINVAL;
	return drmModeMapDumbBuffer(node, *handle, offset);
}

int buffer_choose_kind(int node, const char *kind)
{
	static const struct {
		const char *name;
		struct hostblob_ttm_test request;
	} kinds[] = {
		{ "order-0", { .request = HOSTBLOB_TTM_PAGES, .count = HOSTBLOB_TTM_BLOCKS, .value = 0 } },
		{ "order-3", { .request = HOSTBLOB_TTM_PAGES, .count = HOSTBLOB_TTM_BLOCKS, .value = 3 } },
		{ "order-8", { .request = HOSTBLOB_TTM_PAGES, .count = HOSTBLOB_TTM_BLOCKS, .value = 8 } },
		{ "shuffled", { .request = HOSTBLOB_TTM_PAGES, .count = HOSTBLOB_TTM_SHUFFLED, .value = 9 } },
		{ "iomem", { .request = HOSTBLOB_TTM_PAGES, .count = HOSTBLOB_TTM_IOMEM, .value = 9 } },
		{ "iomem-contiguous",
		  { .request = HOSTBLOB_TTM_PAGES, .count = HOSTBLOB_TTM_IOMEM_CONTIGUOUS, .value = 10 } },
		{ "compound", { .request = HOSTBLOB_TTM_PAGES, .count = HOSTBLOB_TTM_COMPOUND, .value = 9 } },
		{ "reserved", { .request = HOSTBLOB_TTM_PAGES, .count = HOSTBLOB_TTM_RESERVED, .value = 9 } },
		{ "write-combined", { .request = HOSTBLOB_TTM_CACHING, .count = HOSTBLOB_TTM_WRITE_COMBINED } },
		{ "uncached", { .request = HOSTBLOB_TTM_CACHING, .count = HOSTBLOB_TTM_UNCACHED } },
		{ "tracking", { .request = HOSTBLOB_TTM_OPERATIONS, .count = HOSTBLOB_TTM_TRACKING } },
		{ "own-open", { .request = HOSTBLOB_TTM_OPERATIONS, .count = HOSTBLOB_TTM_OWN_OPEN } },
	};

	if (!test_driver_is_loaded())
		return choose_amdgpu_kind(kind);
	for (unsigned int i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		struct hostblob_ttm_test request = kinds[i].request;

		if (!strcmp(kinds[i].name, kind))
			return drmIoctl(node, DRM_IOCTL_HOSTBLOB_TTM_TEST, &request) ? -errno : 0;
	}
	return -EINVAL;
}

int buffer_create(int node, const char *driver, enum buffer_path path, uint64_t size,
		  struct buffer *buffer)
{
	int (*create)(int node, uint64_t size, uint32_t *handle, uint64_t *offset) = create_dumb;

	if (!strcmp(driver, "radeon"))
		create = create_radeon;
	else if (!strcmp(driver, TEST_DRIVER))
		create = create_amdgpu;
	int result = create(node, size, &buffer->handle, &buffer->offset);

	if (result < 0)
		return result;
	buffer->size = size;
	buffer->fd = node;
	if (path == BUFFER_DRM_FD)
		return 0;
	buffer->offset = 0;
	return drmPrimeHandleToFD(node, buffer->handle, DRM_CLOEXEC | DRM_RDWR, &buffer->fd) ? -errno : 0;
}

void *buffer_map(const struct buffer *buffer)
{
	void *address = mmap(NULL, buffer->size, PROT_READ | PROT_WRITE, MAP_SHARED, buffer->fd,
			     (off_t)buffer->offset);

	return address == MAP_FAILED ? NULL : address;
}

void *area_reserve(uint64_t size)
{
	uint8_t *all = mmap(NULL, size + 2 * HUGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return all == MAP_FAILED ? NULL : all + (HUGE_BYTES - (uintptr_t)all % HUGE_BYTES);
}

bool buffer_map_at(const struct buffer *buffer, void *address, uint64_t first, uint64_t size)
{
	return mmap(address, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, buffer->fd,
		    (off_t)(buffer->offset + first)) != MAP_FAILED;
}

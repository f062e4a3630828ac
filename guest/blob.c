// SPDX-License-Identifier: MIT
/*
 * Creates blobs with blob_id 0, which the device takes as "linear memory of this
 * size", and maps any. That needs no context and no capset; the kernel makes a context
 * of its own for each open file. Of other devices those with Venus have such blobs,
 * too, in a context of that capset; the rest have buffers of OpenGL.
 */
#include "blob.h"

#include <drm/virtgpu_drm.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include <xf86drm.h>

/* The window is BAR 4 of QEMU's device; crosvm has it there, too. */
#define WINDOW_BAR 4

/* Their numbers in the virtio specification, which VIRTGPU_PARAM_* has as bits. */
#define CAPSET_VIRGL2 2
#define CAPSET_VENUS 4
#define CAPSET_CROSS_DOMAIN 5

static int is_virtio_gpu(int node)
{
	drmVersionPtr version = drmGetVersion(node);
	int result = version && !strcmp(version->name, "virtio_gpu");

	drmFreeVersion(version);
	return result;
}

/*
 * The capset whose blobs a device has, 0 for those without one. They come first: only such
 * blobs are for user space to map, and for nobody else.
 */
static uint32_t capset_of(int node)
{
	int capsets = blob_parameter(node, VIRTGPU_PARAM_SUPPORTED_CAPSET_IDs);

	if (capsets & 1 << CAPSET_CROSS_DOMAIN)
		return 0;
	if (capsets & 1 << CAPSET_VENUS)
		return CAPSET_VENUS;
	return capsets & 1 << CAPSET_VIRGL2 ? CAPSET_VIRGL2 : 0;
}

/* Returns @node, or a negative errno after a message. */
static int make_context(int node)
{
	struct drm_virtgpu_context_set_param capset = {
		.param = VIRTGPU_CONTEXT_PARAM_CAPSET_ID,
		.value = capset_of(node),
	};
	struct drm_virtgpu_context_init context = { .num_params = 1, .ctx_set_params = (uintptr_t)&capset };
	int error;

	if (!capset.value || !drmIoctl(node, DRM_IOCTL_VIRTGPU_CONTEXT_INIT, &context))
		return node;
	error = errno;
	warn("making a context of capset %" PRIu64, (uint64_t)capset.value);
	close(node);
	return -error;
}

int blob_open_node(const char *path, char *found, unsigned int found_size)
{
	int node;

	for (int minor = 0; !path && minor < 16; minor++) {
		snprintf(found, found_size, "/dev/dri/card%d", minor);
		node = open(found, O_RDWR | O_CLOEXEC);
		if (node < 0)
			continue;
		if (is_virtio_gpu(node))
			return make_context(node);
		close(node);
	}
	if (!path) {
		warnx("no virtio-gpu here: load the module virtio_gpu, and give the virtual machine "
		      "a device such as virtio-gpu-hostblob-pci");
		return -ENODEV;
	}
	snprintf(found, found_size, "%s", path);
	node = open(path, O_RDWR | O_CLOEXEC);
	if (node < 0) {
		int error = errno;

		warn("%s", path);
		return -error;
	}
	if (!is_virtio_gpu(node)) {
		warnx("%s is no DRM node of the virtio_gpu driver", path);
		close(node);
		return -ENODEV;
	}
	return make_context(node);
}

int blob_parameter(int node, uint64_t parameter)
{
	int value = 0;
	struct drm_virtgpu_getparam get = { .param = parameter, .value = (uintptr_t)&value };

	return drmIoctl(node, DRM_IOCTL_VIRTGPU_GETPARAM, &get) ? 0 : value;
}

static int fail(struct blob *blob, const char *what, const char *hint)
{
	int error = errno;

	warnx("%s of %" PRIu64 " bytes: %s: %s", what, blob->size, strerror(error), hint);
	blob_destroy(blob);
	return -error;
}

static int check_offer(int node)
{
	if (blob_parameter(node, VIRTGPU_PARAM_RESOURCE_BLOB) && blob_parameter(node, VIRTGPU_PARAM_3D_FEATURES) &&
	    blob_parameter(node, VIRTGPU_PARAM_HOST_VISIBLE))
		return 0;
	warnx("this virtio-gpu offers no host blobs: the virtual machine needs a device "
	      "such as virtio-gpu-hostblob-pci");
	return -ENOTSUP;
}

/* virglrenderer's PIPE_RESOURCE_CREATE: a buffer that can be mapped, which a blob is made of. */
#define BUFFER_WORDS 12
#define CREATE_RESOURCE (48 | (BUFFER_WORDS - 1) << 16)
#define FORMAT_R8_UNORM 64
#define BIND_VERTICES (1 << 4)
#define PERSISTENT_AND_COHERENT (1 << 1 | 1 << 2)

int blob_create(int node, uint64_t size, struct blob *blob)
{
	static uint32_t buffers;
	uint32_t command[BUFFER_WORDS] = {
		CREATE_RESOURCE, 0, FORMAT_R8_UNORM, BIND_VERTICES, (uint32_t)size, 1, 1, 1, 0, 0,
		PERSISTENT_AND_COHERENT,
	};
	uint32_t capset = capset_of(node);
	struct drm_virtgpu_resource_create_blob create = {
		.blob_mem = VIRTGPU_BLOB_MEM_HOST3D,
		.blob_flags = VIRTGPU_BLOB_FLAG_USE_MAPPABLE,
		.size = size,
	};

	/* Renderers refuse any other flag. */
	if (!capset)
		create.blob_flags |= VIRTGPU_BLOB_FLAG_USE_SHAREABLE;
	if (capset == CAPSET_VIRGL2) {
		create.blob_id = command[BUFFER_WORDS - 1] = ++buffers;
		create.cmd = (uintptr_t)command;
		create.cmd_size = sizeof(command);
	}
	return blob_request(node, &create, NULL, blob);
}

int blob_request(int node, struct drm_virtgpu_resource_create_blob *create, const char *hint, struct blob *blob)
{
	struct drm_virtgpu_map map = { 0 };
	int result = check_offer(node);
	void *data;

	*blob = (struct blob){ .node = node, .size = create->size };
	if (result)
		return result;
	if (drmIoctl(node, DRM_IOCTL_VIRTGPU_RESOURCE_CREATE_BLOB, create))
		return fail(blob, "creating a blob",
			    hint ? hint : "it has to fit in what is free of the device's window (hostmem=)");
	blob->handle = create->bo_handle;
	map.handle = create->bo_handle;
	if (drmIoctl(node, DRM_IOCTL_VIRTGPU_MAP, &map))
		return fail(blob, "finding a blob", "the guest's kernel does not let it be mapped");
	data = mmap(NULL, blob->size, PROT_READ | PROT_WRITE, MAP_SHARED, node, (off_t)map.offset);
	/* The kernel does not wait for the device's answer before this. */
	if (data == MAP_FAILED)
		return fail(blob, "mapping a blob",
			    "the device refused it, or the host has no memory: see the device's limits "
			    "and the host's log");
	blob->data = data;
	return 0;
}

void blob_destroy(struct blob *blob)
{
	if (blob->data)
		munmap(blob->data, blob->size);
	if (blob->handle)
		drmCloseBufferHandle(blob->node, blob->handle);
	blob->data = NULL;
	blob->handle = 0;
}

uint64_t blob_window(int node, char *path, unsigned int path_size)
{
	char name[128];
	uint64_t start = 0, end = 0;
	struct stat status;
	FILE *resources;

	if (fstat(node, &status))
		return 0;
	snprintf(name, sizeof(name), "/sys/dev/char/%u:%u/device", major(status.st_rdev), minor(status.st_rdev));
	snprintf(path, path_size, "%s/resource%d", name, WINDOW_BAR);
	strncat(name, "/resource", sizeof(name) - strlen(name) - 1);
	resources = fopen(name, "re");
	if (!resources)
		return 0;
	for (int bar = 0; bar <= WINDOW_BAR; bar++) {
		if (fscanf(resources, "%" SCNx64 " %" SCNx64 " %*x", &start, &end) == 2)
			continue;
		start = end = 0;
		break;
	}
	fclose(resources);
	return end ? end - start + 1 : 0;
}

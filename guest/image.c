// SPDX-License-Identifier: MIT
/*
 * Asks for an image's layout as ChromeOS's minigbm does: a context of the capset with
 * one ring, a page of guest memory that the device writes its answer to, and a
 * command whose fence says that it did. Then makes the image with the same flags.
 */
#include "image.h"

#include <drm/virtgpu_drm.h>
#include <err.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <drm_fourcc.h>
#include <xf86drm.h>

#define CAPSET_CROSS_DOMAIN 5

/*
 * Only in ChromeOS's kernels. Linux has had another parameter by that number since
 * 6.8, VIRTGPU_PARAM_EXPLICIT_DEBUG_NAME (commit 7add80126bce), and knows no such flag.
 */
#define PARAM_CREATE_GUEST_HANDLE 8
#define BLOB_FLAG_CREATE_GUEST_HANDLE 0x8

static const struct format {
	const char *name;
	uint32_t format;
	uint32_t planes;
	uint32_t bytes[3]; /* for 1 x 1 pixels in the first plane, for 2 x 2 in others */
} formats[] = {
	{ "R8", DRM_FORMAT_R8, 1, { 1 } },
	{ "RGB565", DRM_FORMAT_RGB565, 1, { 2 } },
	{ "XRGB8888", DRM_FORMAT_XRGB8888, 1, { 4 } },
	{ "ABGR16161616F", DRM_FORMAT_ABGR16161616F, 1, { 8 } },
	{ "NV12", DRM_FORMAT_NV12, 2, { 1, 2 } },
	{ "P010", DRM_FORMAT_P010, 2, { 2, 4 } },
	{ "YVU420", DRM_FORMAT_YVU420, 3, { 1, 1, 1 } },
	{ "YUYV", DRM_FORMAT_YUYV, 1, { 2 } }, /* for a refusal: the device has no such images */
};

/* BO_USE_* of minigbm */
static const struct use {
	const char *name;
	uint32_t flag;
} known_uses[] = {
	{ "scanout", 1u << 0 },	   { "rendering", 1u << 2 },   { "texturing", 1u << 5 },
	{ "read-often", 1u << 9 }, { "write-often", 1u << 11 },
};

/* What the device writes to the ring. */
struct requirements {
	uint32_t strides[4];
	uint32_t offsets[4];
	uint64_t modifier;
	uint64_t size;
	uint32_t blob_id;
	uint32_t map_info;
	int32_t memory_idx;
	int32_t physical_device_idx;
};

struct ring {
	int node;
	uint32_t handle;
	uint32_t resource;
	void *data;
};

const char *image_formats(void)
{
	static char text[128];

	text[0] = '\0';
	for (unsigned int i = 0; i < sizeof(formats) / sizeof(formats[0]); i++) {
		strncat(text, i ? ", " : "", sizeof(text) - strlen(text) - 1);
		strncat(text, formats[i].name, sizeof(text) - strlen(text) - 1);
	}
	return text;
}

const char *image_uses(void)
{
	static char text[128];

	text[0] = '\0';
	for (unsigned int i = 0; i < sizeof(known_uses) / sizeof(known_uses[0]); i++) {
		strncat(text, i ? ", " : "", sizeof(text) - strlen(text) - 1);
		strncat(text, known_uses[i].name, sizeof(text) - strlen(text) - 1);
	}
	return text;
}

int image_parse_uses(const char *list, uint32_t *uses)
{
	*uses = 0;
	while (*list) {
		size_t length = strcspn(list, ",");
		uint32_t flag = 0;

		for (unsigned int i = 0; i < sizeof(known_uses) / sizeof(known_uses[0]); i++) {
			if (length == strlen(known_uses[i].name) && !strncmp(list, known_uses[i].name, length))
				flag = known_uses[i].flag;
		}
		if (!flag) {
			warnx("unknown use %.*s: %s", (int)length, list, image_uses());
			return -EINVAL;
		}
		*uses |= flag;
		list += length + (list[length] == ',');
	}
	return 0;
}

static int fail(const char *what)
{
	int error = errno;

	warn("%s", what);
	return -error;
}

static int begin(int node)
{
	/* As the device has it: version, channels, dma-bufs, external memory. */
	uint32_t capset[4] = { 0 };
	struct drm_virtgpu_get_caps caps = {
		.cap_set_id = CAPSET_CROSS_DOMAIN,
		.addr = (uintptr_t)capset,
		.size = sizeof(capset),
	};
	struct drm_virtgpu_context_set_param parameters[] = {
		{ .param = VIRTGPU_CONTEXT_PARAM_CAPSET_ID, .value = CAPSET_CROSS_DOMAIN },
		{ .param = VIRTGPU_CONTEXT_PARAM_NUM_RINGS, .value = 1 },
	};
	struct drm_virtgpu_context_init context = {
		.num_params = 2,
		.ctx_set_params = (uintptr_t)parameters,
	};

	if (drmIoctl(node, DRM_IOCTL_VIRTGPU_GET_CAPS, &caps))
		return fail("this virtio-gpu lays out no images, which takes a device such as "
			    "virtio-gpu-hostblob-pci (capset cross-domain)");
	if (!capset[3]) {
		warnx("this virtio-gpu's images are not for user space to map");
		return -ENOTSUP;
	}
	return drmIoctl(node, DRM_IOCTL_VIRTGPU_CONTEXT_INIT, &context) ? fail("making a context for images") : 0;
}

static int make_ring(int node, struct ring *ring)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	struct drm_virtgpu_resource_create_blob create = {
		.blob_mem = VIRTGPU_BLOB_MEM_GUEST,
		.blob_flags = VIRTGPU_BLOB_FLAG_USE_MAPPABLE,
		.size = page,
	};
	struct drm_virtgpu_map map = { 0 };

	*ring = (struct ring){ .node = node };
	if (drmIoctl(node, DRM_IOCTL_VIRTGPU_RESOURCE_CREATE_BLOB, &create))
		return fail("making a page for the device's answers");
	ring->handle = map.handle = create.bo_handle;
	ring->resource = create.res_handle;
	if (drmIoctl(node, DRM_IOCTL_VIRTGPU_MAP, &map))
		return fail("finding the page for answers");
	ring->data = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, node, (off_t)map.offset);
	return ring->data == MAP_FAILED ? fail("mapping the page for answers") : 0;
}

/* Have the device read a command, and wait until it has done what it says. */
static int submit(const struct ring *ring, const uint32_t *words, uint32_t bytes)
{
	struct drm_virtgpu_execbuffer execute = {
		.flags = VIRTGPU_EXECBUF_RING_IDX,
		.command = (uintptr_t)words,
		.size = bytes,
		.bo_handles = (uintptr_t)&ring->handle,
		.num_bo_handles = 1,
	};
	struct drm_virtgpu_3d_wait wait = { .handle = ring->handle };

	if (drmIoctl(ring->node, DRM_IOCTL_VIRTGPU_EXECBUFFER, &execute))
		return fail("sending the device a command");
	return drmIoctl(ring->node, DRM_IOCTL_VIRTGPU_WAIT, &wait) ? fail("waiting for the device's answer") : 0;
}

/* Each plane has room for its pixels, behind the one before it, and in the image. */
static bool is_plausible(const struct image *image)
{
	uint64_t end = 0;

	for (uint32_t i = 0; i < image->planes; i++) {
		const struct image_plane *plane = &image->plane[i];

		if (plane->stride < plane->row_bytes || plane->offset < end)
			return false;
		end = plane->offset + (uint64_t)plane->stride * plane->rows;
	}
	return image->blob_id && end <= image->size;
}

static void describe(const struct format *format, uint32_t width, uint32_t height,
		     const struct requirements *answer, struct image *image)
{
	*image = (struct image){ .planes = format->planes, .size = answer->size, .blob_id = answer->blob_id };
	for (uint32_t i = 0; i < format->planes; i++) {
		image->plane[i] = (struct image_plane){
			.stride = answer->strides[i],
			.offset = answer->offsets[i],
			.row_bytes = (i ? (width + 1) / 2 : width) * format->bytes[i],
			.rows = i ? (height + 1) / 2 : height,
		};
	}
}

static int ask(const struct ring *ring, const struct format *format, uint32_t width, uint32_t height,
	       uint32_t uses, struct image *image)
{
	const uint32_t initialize[] = { 1 | 16 << 16, 0, ring->resource, 0 };
	const uint32_t get[] = { 2 | 24 << 16, 0, width, height, format->format, uses };
	struct requirements answer;
	int result = submit(ring, initialize, sizeof(initialize));

	if (!result)
		result = submit(ring, get, sizeof(get));
	if (result)
		return result;
	memcpy(&answer, ring->data, sizeof(answer));
	if (!answer.size) {
		warnx("the host has no images of %ux%u in %s", width, height, format->name);
		return -ENOTSUP;
	}
	describe(format, width, height, &answer, image);
	if (!is_plausible(image)) {
		warnx("the image as the host lays it out has no room for its pixels");
		return -EPROTO;
	}
	return 0;
}

int image_query(int node, const char *name, uint32_t width, uint32_t height, uint32_t uses,
		struct image *image)
{
	const struct format *format = NULL;
	struct ring ring;
	int result;

	for (unsigned int i = 0; i < sizeof(formats) / sizeof(formats[0]); i++) {
		if (!strcmp(name, formats[i].name))
			format = &formats[i];
	}
	if (!format) {
		warnx("unknown format %s: %s", name, image_formats());
		return -EINVAL;
	}
	result = begin(node);
	if (!result)
		result = make_ring(node, &ring);
	/* The ring stays until the node is closed. */
	return result ? result : ask(&ring, format, width, height, uses, image);
}

int image_create(int node, const struct image *image, bool guest_handle, struct blob *blob)
{
	const char *hint = NULL;
	struct drm_virtgpu_resource_create_blob create = {
		.blob_mem = VIRTGPU_BLOB_MEM_HOST3D,
		.blob_flags = VIRTGPU_BLOB_FLAG_USE_MAPPABLE | VIRTGPU_BLOB_FLAG_USE_SHAREABLE,
		.blob_id = image->blob_id,
		.size = image->size,
	};

	/* An export is to have a name for other devices. */
	if (blob_parameter(node, VIRTGPU_PARAM_CROSS_DEVICE))
		create.blob_flags |= VIRTGPU_BLOB_FLAG_USE_CROSS_DEVICE;
	if (guest_handle && blob_parameter(node, PARAM_CREATE_GUEST_HANDLE)) {
		create.blob_mem = VIRTGPU_BLOB_MEM_GUEST;
		create.blob_flags |= BLOB_FLAG_CREATE_GUEST_HANDLE;
		hint = "minigbm takes this kernel's parameter 8 for CREATE_GUEST_HANDLE, but since Linux 6.8 it "
		       "is EXPLICIT_DEBUG_NAME. Use a minigbm that does not ask for it, which is what "
		       "--no-guest-handle tries, or an older kernel in the guest";
	}
	return blob_request(node, &create, hint, blob);
}

// SPDX-License-Identifier: MIT
/*
 * Bytes as a guest submits them to a context of the cross-domain capset. A second
 * reading of the same bytes says what each command should do; what the device wrote
 * to the ring, how it ended, and which blobs can be made after that must agree.
 *
 * Input: a byte of options, a byte that says after how many words the commands are
 * cut in two, and the commands.
 */
#include "fuzz.h"
#include "hostblob.h"

#include <drm_fourcc.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#define PAGE 4096ull
#define CONTEXT 3
#define RING 7
#define BLOB 9
#define BYTES (1ull << 34) /* a row can be longer than 32 bits */
#define ITEMS 4
#define EVENTS 4096

enum option {
	BEGIN = 1,
	DETACH = 2,
	REUSE = 4,
	CACHED_ONLY = 8,
	UNCACHED = 16,
	WRITE_COMBINED = 32,
};

/* Bytes for one pixel in the first plane and for 2 x 2 in others, in any format. */
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

struct answer {
	uint32_t strides[4];
	uint32_t offsets[4];
	uint64_t modifier;
	uint64_t size;
	uint32_t blob_id;
	uint32_t map_info;
	int32_t indices[2];
};

struct image {
	uint32_t width, height, format, flags;
};

static struct {
	uint8_t options;
	bool attached, initialized;
	uint32_t items;
	struct image item[ITEMS];
	uint64_t size[ITEMS];
	const struct image *wanted; /* the allocator is called for it */
} model;

static struct answer written[EVENTS];
static unsigned int writes;

static bool is_cached(const struct image *image)
{
	return !(model.options & UNCACHED) || (model.options & CACHED_ONLY) || (image->flags & 1 << 9);
}

static int allocate(struct hostblob_allocator *allocator, const struct hostblob_request *request,
		    struct hostblob_buffer *buffer, char *error, unsigned int error_size)
{
	(void)allocator, (void)error, (void)error_size;
	CHECK(model.wanted && request->cached == is_cached(model.wanted));
	CHECK(request->scanout == (model.wanted->flags & 1));
	*buffer = (struct hostblob_buffer){ .size = request->size, .caching = HOSTBLOB_CACHED };
	buffer->fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 100);
	return buffer->fd < 0 ? -errno : 0;
}

static int write_to_guest(void *opaque, uint32_t resource_id, const void *data, uint64_t size)
{
	(void)opaque;
	CHECK(resource_id == RING && model.attached && size == sizeof(struct answer));
	CHECK(writes < EVENTS);
	memcpy(&written[writes++], data, size);
	return 0;
}

static uint32_t word(const uint8_t *bytes)
{
	return bytes[0] | bytes[1] << 8 | bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

static __int128 round_up(__int128 value, uint64_t to)
{
	return (value + to - 1) / to * to;
}

/* What an image must look like, in numbers that nothing overflows. */
static __int128 lay_out(const struct image *image, struct allowed *allowed, __int128 strides[3],
			__int128 offsets[3])
{
	const uint32_t *bytes = NULL;
	__int128 end = 0;

	for (unsigned int i = 0; i < sizeof(formats) / sizeof(formats[0]); i++) {
		if (formats[i].format == image->format)
			bytes = formats[i].bytes;
	}
	allow_if(allowed, !bytes || image->flags & 1 << 8, ENOTSUP);
	allow_if(allowed, !image->width || !image->height, EINVAL);
	if (allowed->count)
		return 0;
	for (int plane = 0; plane < 3 && bytes[plane]; plane++) {
		__int128 rows = plane ? ((__int128)image->height + 1) / 2 : image->height;
		__int128 columns = plane ? ((__int128)image->width + 1) / 2 : image->width;

		strides[plane] = round_up(columns * bytes[plane], 256);
		if (bytes[2])
			strides[plane] = round_up(image->width, 512) / (plane ? 2 : 1);
		CHECK(strides[plane] >= columns * bytes[plane]);
		offsets[plane] = end;
		end += strides[plane] * rows;
		allow_if(allowed, strides[plane] > UINT32_MAX || offsets[plane] > UINT32_MAX, EINVAL);
	}
	allow_if(allowed, round_up(end, PAGE) > (__int128)BYTES, ENOSPC);
	return round_up(end, PAGE);
}

static void check_image(const struct image *image, const struct answer *answer, struct allowed *allowed)
{
	static const struct answer zeros;
	__int128 strides[3] = { 0 }, offsets[3] = { 0 };
	__int128 size = lay_out(image, allowed, strides, offsets);
	uint32_t id = 0;

	while (id < model.items && memcmp(&model.item[id], image, sizeof(*image)))
		id++;
	allow_if(allowed, !allowed->count && id == ITEMS, ENOSPC);
	if (allowed->count) {
		CHECK(!memcmp(answer, &zeros, sizeof(zeros)));
		return;
	}
	for (int plane = 0; plane < 3; plane++) {
		CHECK(answer->strides[plane] == strides[plane]);
		CHECK(answer->offsets[plane] == offsets[plane]);
	}
	CHECK(!answer->strides[3] && !answer->offsets[3] && !answer->modifier);
	CHECK(answer->size == size && answer->blob_id == id + 1);
	CHECK(answer->map_info == ((model.options & WRITE_COMBINED) && !is_cached(image) ?
					   HOSTBLOB_WRITE_COMBINED : HOSTBLOB_CACHED));
	CHECK(answer->indices[0] == -1 && answer->indices[1] == -1);
	if (id == model.items) {
		model.item[id] = *image;
		model.size[id] = (uint64_t)size;
		model.items++;
	}
}

static void initialize(const uint8_t *command, size_t size, struct allowed *allowed)
{
	bool known = size == 16 || size == 20 || size == 36;
	uint32_t ring = known ? word(command + 8) : 0;

	allow_if(allowed, !known, EINVAL);
	allow_if(allowed, model.initialized, EBUSY);
	allow_if(allowed, known && word(command + (size == 16 ? 12 : 16)), ENOTSUP);
	allow_if(allowed, known && (ring != RING || !model.attached), ENOENT);
	model.initialized |= !allowed->count;
}

/* Walk the commands as the device has to, next to what it has written. */
static void check_submit(const uint8_t *commands, size_t size, int result)
{
	struct allowed allowed = { 0 };
	unsigned int seen = 0;

	allow_if(&allowed, size > HOSTBLOB_SUBMIT_MAX, EINVAL);
	while (size && !allowed.count) {
		size_t length = size < 8 ? 0 : commands[2] | commands[3] << 8;

		allow_if(&allowed, length < 8 || length > size, EINVAL);
		if (allowed.count)
			break;
		if (commands[0] == 1) {
			initialize(commands, length, &allowed);
		} else if (commands[0] == 2 && (length != 24 || !model.initialized)) {
			allow_if(&allowed, true, EINVAL);
		} else if (commands[0] == 2 && !model.attached) {
			allow_if(&allowed, true, ENOENT);
		} else if (commands[0] == 2) {
			const struct image image = { word(commands + 8), word(commands + 12), word(commands + 16),
						     word(commands + 20) };

			CHECK(seen < writes);
			check_image(&image, &written[seen++], &allowed);
		} else {
			allow_if(&allowed, commands[0] != 3, ENOTSUP);
		}
		commands += length;
		size -= length;
	}
	CHECK(seen == writes);
	check_result(result, &allowed);
}

static void submit(struct hostblob_device *device, const uint8_t *data, size_t size)
{
	/* Of exactly that size, so that the sanitizer sees what is read beyond it. */
	uint8_t *commands = malloc(size);
	int result;

	if (size)
		memcpy(commands, data, size);
	writes = 0;
	result = hostblob_context_submit(device, CONTEXT, commands, size);
	check_submit(commands, size, result);
	free(commands);
}

static void make_blobs(struct hostblob_device *device)
{
	for (uint32_t id = 0; id <= ITEMS + 1; id++) {
		uint64_t size = id && id <= model.items ? model.size[id - 1] : 0;

		model.wanted = size ? &model.item[id - 1] : NULL;
		CHECK(hostblob_blob_create(device, CONTEXT, BLOB, 1, id, size + PAGE));
		CHECK(hostblob_blob_create(device, CONTEXT, BLOB, 1, id | 1ull << 32, size ? size : PAGE));
		CHECK(hostblob_blob_create(device, CONTEXT, BLOB, 1, id, size) == (size ? 0 : -EINVAL));
		CHECK(hostblob_resource_unref(device, BLOB) == (size ? 0 : -ENOENT));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct hostblob_allocator_ops ops = { .struct_size = sizeof(ops), .name = "model", .allocate = allocate };
	static const uint8_t begin[] = { 1, 0, 16, 0, 0, 0, 0, 0, RING, 0, 0, 0, 0, 0, 0, 0 };
	struct hostblob_allocator allocator = { .ops = &ops };
	struct hostblob_limits limits;
	struct hostblob_config config = {
		.struct_size = sizeof(config),
		.allocator = &allocator,
		.guest = { .write = write_to_guest },
		.limits = &limits,
	};
	struct input input = { data, size };
	uint8_t options = take(&input);
	size_t first = take(&input) * 4u;
	struct hostblob_device *device;

	memset(&model, 0, sizeof(model));
	model.options = options;
	ops.write_combined = options & WRITE_COMBINED;
	config.cached_only = options & CACHED_ONLY;
	config.uncached = options & UNCACHED;
	hostblob_limits_init(&limits, sizeof(limits));
	limits.bytes = limits.blob_bytes = BYTES;
	limits.items = ITEMS;
	CHECK(!hostblob_device_create(&config, &device));
	CHECK(!hostblob_context_create(device, CONTEXT, HOSTBLOB_CAPSET_CROSS_DOMAIN));
	CHECK(!hostblob_resource_register(device, RING));
	CHECK(!hostblob_context_attach(device, CONTEXT, RING));
	model.attached = true;
	if (options & BEGIN)
		submit(device, begin, sizeof(begin));
	first = first < input.left ? first : input.left;
	submit(device, input.next, first);
	if (options & (DETACH | REUSE)) {
		CHECK(!hostblob_context_detach(device, CONTEXT, RING));
		model.attached = false;
	}
	if (options & REUSE) {
		CHECK(!hostblob_resource_unref(device, RING));
		CHECK(!hostblob_resource_register(device, RING));
	}
	submit(device, input.next + first, input.left - first);
	make_blobs(device);
	hostblob_device_destroy(device);
	return 0;
}

// SPDX-License-Identifier: MIT
/*
 * The commands of a context of the cross-domain capset, as far as allocating
 * images needs them: a guest asks what an image of some size and format takes,
 * gets the answer in a page of its own, the ring, and makes blobs of it. All images
 * are linear. Channels, e.g. to a Wayland compositor, are not built.
 *
 * Numbers on the wire are little-endian, and so is every host that this is built for.
 */
#include "cross-domain.h"
#include "hostblob.h"

#include <drm_fourcc.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "structs are the wire format");

enum command {
	COMMAND_INIT = 1,
	COMMAND_GET_IMAGE_REQUIREMENTS = 2,
	COMMAND_POLL = 3,
};

struct header {
	uint8_t command;
	uint8_t ring_idx;
	uint16_t size; /* of the command, with this */
	uint32_t padding;
};

/* Three generations of guests send three sizes, told apart by header.size. */
struct init_first {
	struct header header;
	uint32_t query_ring;
	uint32_t channel_type;
};

struct init {
	struct header header;
	uint32_t query_ring;
	uint32_t channel_ring;
	uint32_t channel_type;
};

struct init_uuid {
	struct init init;
	uint8_t uuid[16];
};

struct image {
	uint32_t width;
	uint32_t height;
	uint32_t format; /* DRM_FORMAT_* */
	uint32_t flags;	 /* CROSS_DOMAIN_USE_*, and others */
};

struct get_image_requirements {
	struct header header;
	struct image image;
};

struct image_requirements {
	uint32_t strides[4];
	uint32_t offsets[4];
	uint64_t modifier;
	uint64_t size;
	uint32_t blob_id;
	uint32_t map_info;
	int32_t memory_idx; /* of Vulkan; there is none */
	int32_t physical_device_idx;
};

_Static_assert(sizeof(struct init_first) == 16 && sizeof(struct init) == 20 && sizeof(struct init_uuid) == 36 &&
	       sizeof(struct get_image_requirements) == 24 && sizeof(struct image_requirements) == 64,
	       "structs are the wire format");

/* AMD's GPUs take linear images whose rows and planes begin at multiples of this. */
#define ALIGNMENT 256u

/* Planes after the first one have a sample of each kind for 2 x 2 pixels. */
struct format {
	uint32_t format;
	uint32_t planes;
	uint32_t bytes; /* of a sample of the first plane */
};

/* YV12 as Android lays it out; only Android's own headers have the number. */
#define FORMAT_YVU420_ANDROID fourcc_code('9', '9', '9', '7')

static const struct format formats[] = {
	{ DRM_FORMAT_R8, 1, 1 },
	{ DRM_FORMAT_R16, 1, 2 },
	{ DRM_FORMAT_GR88, 1, 2 },
	{ DRM_FORMAT_RG88, 1, 2 },
	{ DRM_FORMAT_RGB565, 1, 2 },
	{ DRM_FORMAT_RGB888, 1, 3 },
	{ DRM_FORMAT_BGR888, 1, 3 },
	{ DRM_FORMAT_XRGB8888, 1, 4 },
	{ DRM_FORMAT_ARGB8888, 1, 4 },
	{ DRM_FORMAT_XBGR8888, 1, 4 },
	{ DRM_FORMAT_ABGR8888, 1, 4 },
	{ DRM_FORMAT_XRGB2101010, 1, 4 },
	{ DRM_FORMAT_ARGB2101010, 1, 4 },
	{ DRM_FORMAT_XBGR2101010, 1, 4 },
	{ DRM_FORMAT_ABGR2101010, 1, 4 },
	{ DRM_FORMAT_ABGR16161616F, 1, 8 },
	{ DRM_FORMAT_NV12, 2, 1 },
	{ DRM_FORMAT_NV21, 2, 1 },
	{ DRM_FORMAT_P010, 2, 2 },
	{ DRM_FORMAT_YUV420, 3, 1 },
	{ DRM_FORMAT_YVU420, 3, 1 },
	{ FORMAT_YVU420_ANDROID, 3, 1 },
};

struct item {
	struct image image;
	uint64_t size;
};

struct cross_domain {
	bool initialized;
	uint32_t ring;
	uint32_t count;
	struct item *items; /* a blob id is an index in it, and 1 */
};

struct cross_domain *hostblob_cross_domain_create(void)
{
	return calloc(1, sizeof(struct cross_domain));
}

void hostblob_cross_domain_destroy(struct cross_domain *state)
{
	if (state)
		free(state->items);
	free(state);
}

uint64_t hostblob_cross_domain_item_size(const struct cross_domain *state, uint64_t blob_id)
{
	return blob_id && blob_id <= state->count ? state->items[blob_id - 1].size : 0;
}

uint32_t hostblob_cross_domain_uses(const struct cross_domain *state, uint64_t blob_id)
{
	return state ? state->items[blob_id - 1].image.flags : CROSS_DOMAIN_USE_CPU_READ;
}

static int init(struct cross_domain *state, const struct cross_domain_host *host, const void *command,
		uint16_t size)
{
	struct init_first first;
	struct init later;
	uint32_t ring, channel;
	int result;

	if (size == sizeof(first)) {
		memcpy(&first, command, sizeof(first));
		ring = first.query_ring;
		channel = first.channel_type;
	} else if (size == sizeof(later) || size == sizeof(struct init_uuid)) {
		memcpy(&later, command, sizeof(later));
		ring = later.query_ring;
		channel = later.channel_type;
	} else {
		return -EINVAL;
	}
	if (state->initialized)
		return -EBUSY;
	if (channel)
		return -ENOTSUP;
	result = host->check_ring(host->opaque, ring);
	if (result)
		return result;
	state->ring = ring;
	state->initialized = true;
	return 0;
}

static uint64_t align(uint64_t value, uint64_t alignment)
{
	return (value + alignment - 1) / alignment * alignment;
}

static const struct format *find_format(uint32_t format)
{
	for (unsigned int i = 0; i < sizeof(formats) / sizeof(formats[0]); i++) {
		if (formats[i].format == format)
			return &formats[i];
	}
	return NULL;
}

/*
 * Nothing overflows: a row has less than 2^36 bytes, and less than 2^32 once it was
 * checked, as has all that is before a plane; and 2^32 rows of 2^32 bytes are none.
 */
static int lay_out(const struct image *image, const struct cross_domain_host *host,
		   struct image_requirements *requirements)
{
	const struct format *format = find_format(image->format);
	uint64_t stride, offset = 0;

	if (!format || (image->flags & CROSS_DOMAIN_USE_PROTECTED))
		return -ENOTSUP;
	if (!image->width || !image->height)
		return -EINVAL;
	/* A row of the third plane is half of one of the first, by definition. */
	stride = align((uint64_t)image->width * format->bytes, format->planes == 3 ? 2 * ALIGNMENT : ALIGNMENT);
	for (uint32_t plane = 0; plane < format->planes; plane++) {
		uint64_t rows = plane ? ((uint64_t)image->height + 1) / 2 : image->height;
		uint64_t row = plane && format->planes == 3 ? stride / 2 : stride;

		if (row > UINT32_MAX || offset > UINT32_MAX)
			return -EINVAL;
		requirements->strides[plane] = (uint32_t)row;
		requirements->offsets[plane] = (uint32_t)offset;
		offset += row * rows;
	}
	if (offset > host->max_bytes)
		return -ENOSPC;
	requirements->modifier = DRM_FORMAT_MOD_LINEAR;
	requirements->size = align(offset, host->page_size);
	/* The answer to MAP_BLOB says what came of it. */
	requirements->map_info = host->caching(host->opaque, image->flags);
	requirements->memory_idx = -1;
	requirements->physical_device_idx = -1;
	return requirements->size > host->max_bytes ? -ENOSPC : 0;
}

/* The same image always has the same id, so that asking again costs nothing. */
static int add_item(struct cross_domain *state, const struct image *image, uint64_t size, uint32_t max_items,
		    uint32_t *blob_id)
{
	struct item *items;
	uint32_t i;

	for (i = 0; i < state->count; i++) {
		if (!memcmp(&state->items[i].image, image, sizeof(*image)))
			goto found;
	}
	if (i >= max_items)
		return -ENOSPC;
	items = reallocarray(state->items, (size_t)i + 1, sizeof(*items));
	if (!items)
		return -ENOMEM;
	state->items = items;
	items[i] = (struct item){ .image = *image, .size = size };
	state->count++;
found:
	*blob_id = i + 1;
	return 0;
}

/*
 * The guest's user space does not see how the command ended, only what is in the
 * ring: a refusal is an answer of zeros there, or it would take the last image's.
 */
static int get_image_requirements(struct cross_domain *state, const struct cross_domain_host *host,
				  const void *command, uint16_t size)
{
	struct image_requirements requirements = { 0 };
	struct get_image_requirements get;
	int result, written;

	if (size != sizeof(get) || !state->initialized)
		return -EINVAL;
	memcpy(&get, command, sizeof(get));
	result = host->check_ring(host->opaque, state->ring);
	if (result)
		return result;
	result = lay_out(&get.image, host, &requirements);
	if (!result)
		result = add_item(state, &get.image, requirements.size, host->max_items, &requirements.blob_id);
	if (result)
		requirements = (struct image_requirements){ 0 };
	written = host->write(host->opaque, state->ring, &requirements, sizeof(requirements));
	return result ? result : written;
}

static int run(struct cross_domain *state, const struct cross_domain_host *host, const struct header *header,
	       const void *command)
{
	switch (header->command) {
	case COMMAND_INIT:
		return init(state, host, command, header->size);
	case COMMAND_GET_IMAGE_REQUIREMENTS:
		return get_image_requirements(state, host, command, header->size);
	case COMMAND_POLL:
		/* There is no channel that something could come from. */
		return 0;
	default:
		return -ENOTSUP;
	}
}

int hostblob_cross_domain_submit(struct cross_domain *state, const struct cross_domain_host *host,
			const void *commands, uint64_t size)
{
	const uint8_t *next = commands;
	struct header header;
	int result = 0;

	while (size && !result) {
		if (size < sizeof(header))
			return -EINVAL;
		memcpy(&header, next, sizeof(header));
		if (header.size < sizeof(header) || header.size > size)
			return -EINVAL;
		result = run(state, host, &header, next);
		next += header.size;
		size -= header.size;
	}
	return result;
}

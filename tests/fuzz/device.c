// SPDX-License-Identifier: MIT
/*
 * Sequences of commands on a small device, beside a model of it. The model is as
 * plain as it can be: arrays, no trees. For each call it knows which errors apply;
 * where none does the call must succeed, else it must fail with one of them. After
 * each call the device and the window are what the model says.
 *
 * The allocator and the mapper are models, too: they check what they are asked for,
 * and take no time.
 */
#include "fuzz.h"
#include "hostblob.h"

#include <drm_fourcc.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_gpu.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PAGE 4096ull
#define PAGES 16ull
#define CONTEXTS 5
#define RESOURCES 9
#define CREATIONS 3
#define LOST (-1)
#define MAPPABLE VIRTIO_GPU_BLOB_FLAG_USE_MAPPABLE

static struct hostblob_limits limits = {
	.struct_size = sizeof(limits),
	.bytes = 12 * PAGE, .blobs = 4, .contexts = 3, .resources = 6, .attachments = 5, .items = 2,
	.mapped_blobs = HOSTBLOB_LIMIT_DEFAULT,
	.context_bytes = HOSTBLOB_BYTES_DEFAULT, .context_blobs = HOSTBLOB_LIMIT_DEFAULT,
};

struct context {
	bool exists;
	bool cross_domain;
	bool attached[RESOURCES];
	uint32_t ring; /* 0: not initialized */
	uint32_t items;
	struct {
		uint32_t width, format;
		uint64_t size;
	} item[2];
};

struct resource {
	bool exists, is_blob, mapped, lost;
	uint32_t context, flags;
	uint64_t blob_id, pages, place;
	int fd;
};

/* What is to be a blob, and isn't in the other array yet. */
struct creation {
	struct hostblob_creation *creation; /* NULL: there is none */
	uint32_t id; /* 0: cancelled */
	bool allocated;
	int result;
	struct resource blob;
};

/* All of it is the model, but for what the mapper and the allocator were told last. */
static struct {
	struct context context[CONTEXTS];
	struct resource resource[RESOURCES];
	struct creation creation[CREATIONS];
	int window[PAGES]; /* the fd that a page shows, LOST, or 0 */
	int failure;	   /* what the next call of the allocator or the mapper ends with */
	int last_fd;
	bool in_creation; /* the allocator is called for what is a creation in the model */
	uint32_t writer; /* the context whose command runs */
	uint32_t answer[16];
	unsigned int answers;
} model;

static struct hostblob_device *device;

static int take_failure(void)
{
	int failure = model.failure;

	model.failure = 0;
	return failure;
}

static int allocate(struct hostblob_allocator *allocator, const struct hostblob_request *request,
		    struct hostblob_buffer *buffer, char *error, unsigned int error_size)
{
	uint64_t size = request->size, used = model.in_creation ? 0 : size / PAGE;
	int failure = take_failure();

	(void)allocator;
	snprintf(error, error_size, "%d", failure);
	for (int i = 0; i < RESOURCES; i++)
		used += model.resource[i].is_blob ? model.resource[i].pages : 0;
	for (int i = 0; i < CREATIONS; i++)
		used += model.creation[i].blob.pages;
	CHECK(size && size % PAGE == 0 && size <= limits.blob_bytes && used * PAGE <= limits.bytes);
	if (failure)
		return failure;
	*buffer = (struct hostblob_buffer){ .size = size, .caching = HOSTBLOB_CACHED };
	buffer->fd = model.last_fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 100);
	CHECK(buffer->fd >= 0);
	return 0;
}

static int map(void *opaque, uint64_t offset, const struct hostblob_buffer *buffer)
{
	uint64_t page = offset / PAGE, pages = buffer->size / PAGE;
	int failure = take_failure();

	(void)opaque;
	CHECK(offset % PAGE == 0 && page < PAGES && pages <= PAGES - page);
	CHECK(fcntl(buffer->fd, F_GETFD) >= 0);
	for (uint64_t i = page; i < page + pages; i++)
		CHECK(!model.window[i]);
	for (uint64_t i = page; !failure && i < page + pages; i++)
		model.window[i] = buffer->fd;
	return failure;
}

static void unmap(void *opaque, uint64_t offset, uint64_t size)
{
	uint64_t page = offset / PAGE, pages = size / PAGE;

	(void)opaque;
	CHECK(offset % PAGE == 0 && size % PAGE == 0 && page < PAGES && pages && pages <= PAGES - page);
	for (uint64_t i = page; i < page + pages; i++) {
		CHECK(model.window[i] && model.window[i] == model.window[page]);
		CHECK(model.window[i] == LOST || fcntl(model.window[i], F_GETFD) >= 0);
	}
	memset(model.window + page, 0, pages * sizeof(model.window[0]));
}

/* In place of what is mapped, or where nothing is, but of no part of it. */
static int lose_memory(void *opaque, uint64_t offset, uint64_t size)
{
	uint64_t page = offset / PAGE, pages = size / PAGE;
	int failure = take_failure();

	(void)opaque;
	CHECK(offset % PAGE == 0 && size % PAGE == 0 && page < PAGES && pages && pages <= PAGES - page);
	for (uint64_t i = page; i < page + pages; i++)
		CHECK(model.window[i] == model.window[page] && model.window[i] != LOST);
	for (uint64_t i = page; !failure && i < page + pages; i++)
		model.window[i] = LOST;
	return failure;
}

static int write_to_guest(void *opaque, uint32_t resource_id, const void *data, uint64_t size)
{
	(void)opaque;
	CHECK(resource_id < RESOURCES && model.resource[resource_id].exists);
	CHECK(!model.resource[resource_id].is_blob);
	CHECK(model.context[model.writer].attached[resource_id]);
	CHECK(model.context[model.writer].ring == resource_id);
	CHECK(size == sizeof(model.answer));
	memcpy(model.answer, data, size);
	model.answers++;
	return 0;
}

/* Mostly ids that are in use or could be; 0 and the largest now and then. */
static uint32_t take_id(struct input *input, uint32_t count)
{
	uint32_t value = take(input) % (count + 1);

	return value == count ? UINT32_MAX : value;
}

static struct context *context_of(uint32_t id)
{
	return id < CONTEXTS && model.context[id].exists ? &model.context[id] : NULL;
}

static struct resource *resource_of(uint32_t id)
{
	return id < RESOURCES && model.resource[id].exists ? &model.resource[id] : NULL;
}

static struct resource *blob_of(uint32_t id)
{
	struct resource *resource = resource_of(id);

	return resource && resource->is_blob ? resource : NULL;
}

/* Whether a blob is being made that has this id. */
static bool is_being_made(uint32_t id)
{
	for (int i = 0; i < CREATIONS; i++) {
		if (id && model.creation[i].id == id)
			return true;
	}
	return false;
}

static struct hostblob_usage count(void)
{
	struct hostblob_usage usage = { 0 };

	for (int i = 0; i < CREATIONS; i++) {
		const struct creation *creation = &model.creation[i];

		usage.resources += !!creation->id;
		usage.blobs += !!creation->creation;
		usage.bytes += creation->blob.pages * PAGE;
	}

	for (int i = 0; i < RESOURCES; i++) {
		const struct resource *resource = &model.resource[i];

		usage.resources += resource->exists;
		usage.blobs += resource->is_blob;
		usage.bytes += resource->pages * PAGE;
		usage.mapped_blobs += resource->mapped;
		usage.mapped_bytes += resource->mapped ? resource->pages * PAGE : 0;
	}
	for (int i = 0; i < CONTEXTS; i++) {
		usage.contexts += model.context[i].exists;
		for (int j = 0; j < RESOURCES; j++)
			usage.attachments += model.context[i].attached[j];
	}
	return usage;
}

/* Multiples of pages, and values near where arithmetic wraps. */
static uint64_t take_bytes(struct input *input)
{
	static const uint64_t odd[] = { 1,	   PAGE - 1,	   1ull << 32,	      1ull << 63,
					0 - PAGE,  0 - 2 * PAGE,   UINT64_MAX,	      PAGES * PAGE - 1,
					0 - PAGES * PAGE, (1ull << 63) - PAGE };
	uint8_t value = take(input);

	return value >= 0xf0 ? odd[(value - 0xf0) % (sizeof(odd) / sizeof(odd[0]))] : value % (PAGES + 2) * PAGE;
}

static void create_context(struct input *input)
{
	static const uint32_t inits[] = { 0, 5, 0, 5, 4, 0x105, UINT32_MAX, 0x80000005 };
	uint32_t id = take_id(input, CONTEXTS), init = inits[take(input) % 8];
	struct allowed allowed = { 0 };
	int result = hostblob_context_create(device, id, init);

	allow_if(&allowed, !id || (init && init != 5), EINVAL);
	allow_if(&allowed, !!context_of(id), EALREADY);
	allow_if(&allowed, count().contexts >= limits.contexts, ENOSPC);
	/* The model has fewer ids than the device: an id that it lacks goes at once. */
	check_result(result, &allowed);
	if (!result && id >= CONTEXTS)
		CHECK(!hostblob_context_destroy(device, id));
	else if (!result)
		model.context[id] = (struct context){ .exists = true, .cross_domain = init == 5 };
}

static void destroy_context(struct input *input)
{
	uint32_t id = take_id(input, CONTEXTS);
	struct allowed allowed = { 0 };

	allow_if(&allowed, !context_of(id), ESRCH);
	check_result(hostblob_context_destroy(device, id), &allowed);
	if (context_of(id))
		model.context[id] = (struct context){ 0 };
}

static void attach(struct input *input, bool on)
{
	uint32_t context_id = take_id(input, CONTEXTS), resource_id = take_id(input, RESOURCES);
	struct context *context = context_of(context_id);
	struct resource *resource = resource_of(resource_id);
	struct allowed allowed = { 0 };
	int result;

	allow_if(&allowed, !context, ESRCH);
	allow_if(&allowed, !resource, ENOENT);
	if (on && context && resource && !context->attached[resource_id])
		allow_if(&allowed, count().attachments >= limits.attachments, ENOSPC);
	result = (on ? hostblob_context_attach : hostblob_context_detach)(device, context_id, resource_id);
	check_result(result, &allowed);
	if (!result)
		context->attached[resource_id] = on;
}

static void allow_new_resource(struct allowed *allowed, uint32_t id)
{
	allow_if(allowed, !id, EINVAL);
	allow_if(allowed, resource_of(id) || is_being_made(id), EEXIST);
	allow_if(allowed, count().resources >= limits.resources, ENOSPC);
}

static void add(uint32_t id, struct resource resource)
{
	if (id >= RESOURCES) {
		CHECK(!hostblob_resource_unref(device, id));
		return;
	}
	resource.exists = true;
	model.resource[id] = resource;
}

static void register_resource(struct input *input)
{
	uint32_t id = take_id(input, RESOURCES);
	struct allowed allowed = { 0 };
	int result = hostblob_resource_register(device, id);

	allow_new_resource(&allowed, id);
	check_result(result, &allowed);
	if (!result)
		add(id, (struct resource){ 0 });
}

static bool is_blob_id(const struct context *context, uint64_t blob_id, uint64_t size)
{
	if (!context->cross_domain)
		return !blob_id;
	return blob_id && blob_id <= context->items && context->item[blob_id - 1].size == size;
}

static struct creation *free_creation(void)
{
	for (int i = 0; i < CREATIONS; i++) {
		if (!model.creation[i].creation)
			return &model.creation[i];
	}
	return NULL;
}

/* At once, or, if there is a @creation, the first step. */
static void create_blob(struct input *input, struct creation *creation)
{
	static const uint32_t flags[] = { 1, 1, 1, 3, 7, 0, 8, UINT32_MAX };
	uint32_t context_id = take_id(input, CONTEXTS), id = take_id(input, RESOURCES);
	struct context *context = context_of(context_id);
	uint8_t options = take(input);
	uint32_t blob_flags = flags[options % 8];
	uint64_t blob_id = (options >> 3) % 4, size = take_bytes(input);
	struct hostblob_usage usage = count();
	struct allowed allowed = { 0 };
	int result;

	if (options >> 5 == 7)
		blob_id |= 1ull << 32;
	allow_new_resource(&allowed, id);
	allow_if(&allowed, !context, ESRCH);
	allow_if(&allowed, blob_flags > 7 || !size || size % PAGE, EINVAL);
	allow_if(&allowed, context && !is_blob_id(context, blob_id, size), EINVAL);
	allow_if(&allowed, usage.blobs >= limits.blobs || size > limits.bytes - usage.bytes, ENOSPC);
	allow_if(&allowed, size > limits.blob_bytes, ENOSPC);
	if (!allowed.count && !creation)
		allow_if(&allowed, model.failure, -model.failure);
	if (creation)
		result = hostblob_creation_begin(device, context_id, id, blob_flags, blob_id, size,
						 &creation->creation);
	else
		result = hostblob_blob_create(device, context_id, id, blob_flags, blob_id, size);
	check_result(result, &allowed);
	if (result)
		return;
	struct resource blob = { .is_blob = true, .context = context_id, .flags = blob_flags,
				 .blob_id = blob_id, .pages = size / PAGE, .fd = model.last_fd };
	if (creation) {
		creation->id = id;
		creation->blob = blob;
	} else {
		add(id, blob);
	}
}

static void allocate_blob(struct creation *creation)
{
	if (creation->allocated)
		return;
	creation->result = model.failure;
	model.in_creation = true;
	hostblob_creation_allocate(creation->creation);
	model.in_creation = false;
	creation->allocated = true;
	creation->blob.fd = model.last_fd;
}

static void finish_blob(struct creation *creation)
{
	struct creation done = *creation;
	struct allowed allowed = { 0 };

	allow_if(&allowed, !done.id || !done.allocated, ECANCELED);
	if (!allowed.count)
		allow_if(&allowed, done.result, -done.result);
	*creation = (struct creation){ 0 };
	check_result(hostblob_creation_finish(done.creation), &allowed);
	if (!allowed.count)
		add(done.id, done.blob);
	else
		CHECK(!done.allocated || done.result || fcntl(done.blob.fd, F_GETFD) < 0);
}

static void go_on(struct input *input)
{
	uint8_t value = take(input);
	struct creation *creation = &model.creation[value % CREATIONS];

	if (!creation->creation)
		return;
	switch (value / CREATIONS % 4) {
	case 0:
		hostblob_creation_cancel(creation->creation);
		creation->id = 0;
		break;
	case 1: finish_blob(creation); break;
	default: allocate_blob(creation);
	}
}

/* The blob that has a place in a part of the window, lost or not. */
static struct resource *blob_at(uint64_t page, uint64_t pages)
{
	for (int i = 0; i < RESOURCES; i++) {
		struct resource *resource = &model.resource[i];

		if (resource->mapped && page < resource->place + resource->pages &&
		    resource->place < page + pages)
			return resource;
	}
	return NULL;
}

static void map_blob(struct input *input)
{
	uint32_t id = take_id(input, RESOURCES), map_info = 0;
	uint64_t offset = take_bytes(input);
	struct resource *blob = blob_of(id);
	struct allowed allowed = { 0 };
	int result;

	allow_if(&allowed, !blob, ENOENT);
	if (blob) {
		bool outside = offset % PAGE || offset / PAGE > PAGES || blob->pages > PAGES - offset / PAGE;

		allow_if(&allowed, !(blob->flags & MAPPABLE), EPERM);
		allow_if(&allowed, blob->mapped, EBUSY);
		allow_if(&allowed, outside || blob_at(offset / PAGE, blob->pages), EINVAL);
	}
	if (!allowed.count)
		allow_if(&allowed, model.failure, -model.failure);
	result = hostblob_blob_map(device, id, offset, &map_info);
	check_result(result, &allowed);
	if (result)
		return;
	CHECK(map_info == VIRTIO_GPU_MAP_CACHE_CACHED);
	blob->mapped = true;
	blob->place = offset / PAGE;
}

static void unmap_blob(struct input *input)
{
	uint32_t id = take_id(input, RESOURCES);
	struct resource *blob = blob_of(id);
	struct allowed allowed = { 0 };

	allow_if(&allowed, !blob, ENOENT);
	check_result(hostblob_blob_unmap(device, id), &allowed);
	if (blob)
		blob->mapped = false;
}

static void unref(struct input *input)
{
	uint32_t id = take_id(input, RESOURCES);
	struct allowed allowed = { 0 };

	allow_if(&allowed, !resource_of(id), ENOENT);
	check_result(hostblob_resource_unref(device, id), &allowed);
	if (!resource_of(id))
		return;
	CHECK(!model.resource[id].is_blob || fcntl(model.resource[id].fd, F_GETFD) < 0);
	model.resource[id] = (struct resource){ 0 };
	for (int i = 0; i < CONTEXTS; i++)
		model.context[i].attached[id] = false;
}

static void lose(struct input *input)
{
	uint64_t offset = take_bytes(input) + take(input);
	struct resource *blob = offset < PAGES * PAGE ? blob_at(offset / PAGE, 1) : NULL;
	struct allowed allowed = { 0 };
	int result;

	allow_if(&allowed, !blob || blob->lost, ENOENT);
	if (!allowed.count)
		allow_if(&allowed, model.failure, -model.failure);
	result = hostblob_device_lose(device, offset);
	check_result(result, &allowed);
	if (blob && !result)
		blob->lost = true;
}

static void reset(void)
{
	int fds[RESOURCES];

	for (int i = 0; i < RESOURCES; i++)
		fds[i] = model.resource[i].is_blob ? model.resource[i].fd : -1;
	hostblob_device_reset(device);
	for (int i = 0; i < RESOURCES; i++)
		CHECK(fds[i] < 0 || fcntl(fds[i], F_GETFD) < 0);
	memset(model.context, 0, sizeof(model.context));
	memset(model.resource, 0, sizeof(model.resource));
	for (int i = 0; i < CREATIONS; i++)
		model.creation[i].id = 0;
}

static void allow_ring(struct allowed *allowed, const struct context *context, uint32_t ring)
{
	bool attached = context && ring < RESOURCES && context->attached[ring];

	allow_if(allowed, !attached, ENOENT);
	allow_if(allowed, attached && model.resource[ring].is_blob, EINVAL);
}

static void initialize(struct input *input)
{
	uint32_t context_id = take_id(input, CONTEXTS), ring = take_id(input, RESOURCES);
	const uint32_t words[] = { 1 | 16 << 16, 0, ring, take(input) >> 7 };
	struct context *context = context_of(context_id);
	struct allowed allowed = { 0 };
	int result;

	allow_if(&allowed, !context, ESRCH);
	allow_if(&allowed, context && !context->cross_domain, EINVAL);
	allow_if(&allowed, context && context->ring, EBUSY);
	allow_if(&allowed, words[3], ENOTSUP);
	allow_ring(&allowed, context, ring);
	result = hostblob_context_submit(device, context_id, words, sizeof(words));
	check_result(result, &allowed);
	if (!result)
		context->ring = ring;
}

/* The layout of images is another target's subject: here they are one row of R8. */
static void ask(struct input *input)
{
	uint32_t context_id = take_id(input, CONTEXTS), width = take(input) % 8 * 4096, id;
	uint32_t format = take(input) % 8 ? DRM_FORMAT_R8 : DRM_FORMAT_YUYV;
	const uint32_t words[] = { 2 | 24 << 16, 0, width, 1, format, 0 };
	struct context *context = context_of(context_id);
	struct allowed allowed = { 0 };
	uint64_t size;
	int result;

	allow_if(&allowed, !context, ESRCH);
	allow_if(&allowed, context && !context->ring, EINVAL);
	if (!allowed.count)
		allow_ring(&allowed, context, context->ring);
	bool answered = !allowed.count;

	model.writer = context_id;
	model.answers = 0;
	result = hostblob_context_submit(device, context_id, words, sizeof(words));
	CHECK(model.answers == answered);
	if (!answered) {
		check_result(result, &allowed);
		return;
	}
	allow_if(&allowed, !width, EINVAL);
	allow_if(&allowed, format != DRM_FORMAT_R8, ENOTSUP);
	for (id = 1; id <= context->items && context->item[id - 1].width != width; id++)
		;
	allow_if(&allowed, id > limits.items, ENOSPC);
	check_result(result, &allowed);
	memcpy(&size, model.answer + 10, sizeof(size));
	CHECK(size == (result ? 0 : width));
	CHECK(model.answer[12] == (result ? 0 : id));
	if (!result && id > context->items) {
		context->items = id;
		context->item[id - 1].width = width;
		context->item[id - 1].size = size;
	}
}

static void check_state(void)
{
	struct hostblob_usage usage, expected = count();
	struct hostblob_blob_info info;

	hostblob_device_usage(device, &usage, sizeof(usage));
	/* NOLINTNEXTLINE(bugprone-suspicious-memory-comparison): the padding is 0 in both */
	CHECK(!memcmp(&usage, &expected, sizeof(usage)));
	for (uint32_t id = 0; id < RESOURCES; id++) {
		const struct resource *blob = blob_of(id);

		CHECK(hostblob_blob_query(device, id, &info, sizeof(info)) == (blob ? 0 : -ENOENT));
		if (!blob)
			continue;
		CHECK(info.resource_id == id && info.context_id == blob->context && info.blob_flags == blob->flags);
		CHECK(info.blob_id == blob->blob_id && info.buffer.size == blob->pages * PAGE);
		CHECK(info.buffer.fd == blob->fd && info.mapped == blob->mapped && info.lost == blob->lost);
		CHECK(info.offset == (blob->mapped ? blob->place * PAGE : 0));
	}
	for (uint64_t page = 0; page < PAGES; page++) {
		const struct resource *blob = blob_at(page, 1);

		int shown = blob ? blob->fd : 0;

		if (blob && blob->lost)
			shown = LOST;
		CHECK(model.window[page] == shown);
	}
}

static void other(struct input *input)
{
	uint8_t value = take(input);

	if (value < 0x40)
		reset();
	else if (value < 0x60 && free_creation())
		create_blob(input, free_creation());
	else if (value < 0xc0)
		go_on(input);
	else
		model.failure = -EIO;
}

static void run(struct input *input)
{
	switch (take(input) % 14) {
	case 0: create_context(input); break;
	case 1: destroy_context(input); break;
	case 2: attach(input, true); break;
	case 3: attach(input, false); break;
	case 4: register_resource(input); break;
	case 5:
	case 6: create_blob(input, NULL); break;
	case 7: map_blob(input); break;
	case 8: unmap_blob(input); break;
	case 9: unref(input); break;
	case 10: lose(input); break;
	case 11: initialize(input); break;
	case 12: ask(input); break;
	default: other(input);
	}
	check_state();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct hostblob_allocator_ops ops = { .struct_size = sizeof(ops), .name = "model", .allocate = allocate };
	struct hostblob_allocator allocator = { .ops = &ops };
	const struct hostblob_config config = {
		.struct_size = sizeof(config),
		.allocator = &allocator,
		.mapper = { .map = map, .unmap = unmap, .lose = lose_memory },
		.window_size = PAGES * PAGE,
		.guest = { .write = write_to_guest },
		.limits = &limits,
	};
	struct input input = { data, size };
	bool late = size % 2;
	int fds[RESOURCES];

	memset(&model, 0, sizeof(model));
	/* Without such a limit sums of sizes might wrap. */
	limits.blob_bytes = size & 2 ? 10 * PAGE : UINT64_MAX - 1;
	CHECK(!hostblob_device_create(&config, &device));
	while (input.left)
		run(&input);
	/* Before the device goes, or after it. */
	for (int i = 0; !late && i < CREATIONS; i++) {
		if (model.creation[i].creation)
			finish_blob(&model.creation[i]);
	}
	for (int i = 0; i < RESOURCES; i++)
		fds[i] = model.resource[i].is_blob ? model.resource[i].fd : -1;
	hostblob_device_destroy(device);
	for (int i = 0; i < CREATIONS; i++) {
		model.creation[i].id = 0;
		if (model.creation[i].creation)
			finish_blob(&model.creation[i]);
	}
	for (int i = 0; i < RESOURCES; i++)
		CHECK(fds[i] < 0 || fcntl(fds[i], F_GETFD) < 0);
	for (uint64_t page = 0; page < PAGES; page++)
		CHECK(!model.window[page]);
	return 0;
}

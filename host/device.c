// SPDX-License-Identifier: MIT
/*
 * The device: contexts, resource ids and host blobs, and the checks of whatever
 * a guest says about them. Memory comes from an allocator and is placed by a
 * mapper; neither is called with a value that was not checked here.
 */
#include "cross-domain.h"
#include "hostblob.h"
#include "structures.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/virtio_gpu.h>
#include <pthread.h>
#include <search.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/resource.h>
#include <unistd.h>

#define BLOB_FLAGS (VIRTIO_GPU_BLOB_FLAG_USE_MAPPABLE | VIRTIO_GPU_BLOB_FLAG_USE_SHAREABLE | \
		    VIRTIO_GPU_BLOB_FLAG_USE_CROSS_DEVICE)

/* More than an image takes. It bounds how long one command can be under way. */
#define BLOB_BYTES (1ull << 30)

struct range {
	uint64_t offset;
	uint64_t size;
};

/* A context's claim on a resource. The key comes first: by_pair() takes a bare one. */
struct attachment {
	uint32_t key[2]; /* the context's id, the resource's id */
	LIST_ENTRY(attachment) of_context;
	LIST_ENTRY(attachment) of_resource;
};

LIST_HEAD(attachments, attachment);

/* The id comes first in both: by_id() serves both trees and bare ids. */
struct context {
	uint32_t id;
	uint32_t blobs;
	uint64_t bytes;
	uint64_t serial; /* tells it from another that had its id before */
	struct cross_domain *cross_domain; /* NULL: of no capset */
	struct attachments attachments;
};

struct resource {
	uint32_t id;
	bool is_blob; /* or else the VMM's own */
	bool mapped;
	atomic_bool lost; /* the mapper shows nothing of it, mapped or not, or is about to */
	uint32_t context_id;
	uint64_t context_serial;
	uint32_t blob_flags;
	uint64_t blob_id;
	struct hostblob_buffer buffer;
	struct range range; /* in the window, while mapped */
	struct hostblob_device *device;
	struct hostblob_creation *creation; /* not NULL: it is no blob yet */
	struct attachments attachments;
};

/*
 * What hostblob_creation_allocate() works with: nothing in it is anybody else's while
 * that runs, but for the three members at its beginning.
 */
struct hostblob_creation {
	struct hostblob_device *device; /* NULL: it is gone */
	struct resource *resource;	/* NULL: cancelled */
	LIST_ENTRY(hostblob_creation) of_device;
	struct hostblob_allocator *allocator;
	struct hostblob_request request;
	int result; /* of the allocator */
	struct hostblob_buffer buffer;
	char error[160]; /* of the allocator: empty if it has nothing to add */
};

struct hostblob_device {
	struct hostblob_config config;
	struct hostblob_limits limits;
	struct hostblob_usage usage;
	uint64_t page_size;
	void *contexts;	 /* trees of <search.h> */
	void *resources;
	void *attachments;
	void *mapped; /* of struct range */
	LIST_HEAD(, hostblob_creation) creations;
	/*
	 * For hostblob_device_lose(), which runs at any time: guards the tree of what
	 * is mapped, the resources in it, and the mapper. Whoever holds it touches no
	 * blob, so that a signal handler which waits for it never waits for itself.
	 */
	pthread_mutex_t lock;
	uint64_t failures; /* of the allocator and the mapper */
	uint64_t serials; /* of the contexts so far */
};

static int by_id(const void *a, const void *b)
{
	const uint32_t *left = a, *right = b;

	return (*left > *right) - (*left < *right);
}

static int by_pair(const void *a, const void *b)
{
	const uint32_t *left = a, *right = b;
	int order = by_id(left, right);

	return order ? order : by_id(left + 1, right + 1);
}

/* Ranges that overlap are equal, so that looking one up finds what is in its way. */
static int by_place(const void *a, const void *b)
{
	const struct range *left = a, *right = b;

	if (left->offset + left->size <= right->offset)
		return -1;
	return right->offset + right->size <= left->offset;
}

static void *find(void *const *tree, const uint32_t *id)
{
	void *const *node = tfind(id, tree, by_id);

	return node ? *node : NULL;
}

/* Not one that is still being made. */
static struct resource *find_resource(const struct hostblob_device *device, uint32_t id)
{
	struct resource *resource = find(&device->resources, &id);

	return resource && !resource->creation ? resource : NULL;
}

static struct resource *find_blob(const struct hostblob_device *device, uint32_t id)
{
	struct resource *resource = find_resource(device, id);

	return resource && resource->is_blob ? resource : NULL;
}

/* A guest can repeat what fails for as long as it likes: the log grows slower. */
static void log_failure(struct hostblob_device *device, const char *what, uint64_t size, const char *why)
{
	char line[320];

	device->failures++;
	if (!device->config.log || (device->failures & (device->failures - 1)))
		return;
	snprintf(line, sizeof(line), "%s a host blob of %" PRIu64 " bytes failed: %s (failure %" PRIu64 ")",
		 what, size, why, device->failures);
	device->config.log(device->config.log_opaque, line);
}

static uint32_t default_blobs(void)
{
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files) || files.rlim_cur / 2 > 16384)
		return 16384;
	return (uint32_t)(files.rlim_cur / 2);
}

static void default_bytes(uint64_t *limit, uint64_t value)
{
	if (*limit == HOSTBLOB_BYTES_DEFAULT)
		*limit = value;
}

static void default_number(uint32_t *limit, uint32_t value)
{
	if (*limit == HOSTBLOB_LIMIT_DEFAULT)
		*limit = value;
}

static void fill_in(struct hostblob_limits *limits, uint64_t window_size)
{
	default_bytes(&limits->bytes, window_size);
	default_bytes(&limits->blob_bytes, limits->bytes < BLOB_BYTES ? limits->bytes : BLOB_BYTES);
	default_bytes(&limits->context_bytes, limits->bytes);
	default_number(&limits->blobs, default_blobs());
	default_number(&limits->mapped_blobs, limits->blobs);
	default_number(&limits->context_blobs, limits->blobs);
	default_number(&limits->contexts, 4096);
	default_number(&limits->resources, default_blobs());
	default_number(&limits->attachments, 262144);
	default_number(&limits->items, 1024);
}

static int check_config(const struct hostblob_config *config)
{
	const struct hostblob_allocator *allocator = config->allocator;
	uint64_t size = config->window_size;

	if (!allocator || allocator->ops->struct_size < sizeof(*allocator->ops) || (size & (size - 1)))
		return -EINVAL;
	return size && (!config->mapper.map || !config->mapper.unmap) ? -EINVAL : 0;
}

int hostblob_device_create(const struct hostblob_config *given, struct hostblob_device **result)
{
	struct hostblob_config config;
	struct hostblob_limits limits;
	struct hostblob_device *device;
	int error = hostblob_structure_read(&config, sizeof(config), given, 0);

	hostblob_limits_init(&limits, sizeof(limits));
	if (!error && config.limits)
		error = hostblob_structure_read(&limits, sizeof(limits), config.limits, 0xff);
	if (!error)
		error = check_config(&config);
	if (error)
		return error;
	device = calloc(1, sizeof(*device));
	if (!device)
		return -ENOMEM;
	pthread_mutex_init(&device->lock, NULL);
	device->config = config;
	device->config.limits = NULL;
	device->page_size = (uint64_t)sysconf(_SC_PAGESIZE);
	device->limits = limits;
	fill_in(&device->limits, config.window_size);
	*result = device;
	return 0;
}

void hostblob_device_destroy(struct hostblob_device *device)
{
	if (!device)
		return;
	hostblob_device_reset(device);
	while (!LIST_EMPTY(&device->creations)) {
		LIST_FIRST(&device->creations)->device = NULL;
		LIST_REMOVE(LIST_FIRST(&device->creations), of_device);
	}
	pthread_mutex_destroy(&device->lock);
	free(device);
}

static void unmap(struct resource *resource)
{
	struct hostblob_device *device = resource->device;
	struct hostblob_mapper *mapper = &device->config.mapper;

	pthread_mutex_lock(&device->lock);
	tdelete(&resource->range, &device->mapped, by_place);
	mapper->unmap(mapper->opaque, resource->range.offset, resource->range.size);
	pthread_mutex_unlock(&device->lock);
	resource->mapped = false;
	device->usage.mapped_blobs--;
	device->usage.mapped_bytes -= resource->range.size;
}

/* The context of a blob, NULL if it is gone. */
static struct context *context_of(const struct resource *resource)
{
	struct context *context = find(&resource->device->contexts, &resource->context_id);

	return context && context->serial == resource->context_serial ? context : NULL;
}

static void free_resource(void *node)
{
	struct resource *resource = node;
	struct hostblob_device *device = resource->device;
	struct context *context;

	if (resource->mapped)
		unmap(resource);
	if (resource->is_blob) {
		context = context_of(resource);
		if (context) {
			context->blobs--;
			context->bytes -= resource->buffer.size;
		}
	}
	if (resource->creation) {
		/* Whose memory may come yet: hostblob_creation_finish() counts it. */
		resource->creation->resource = NULL;
	} else if (resource->is_blob) {
		close(resource->buffer.fd);
		device->usage.blobs--;
		device->usage.bytes -= resource->buffer.size;
	}
	device->usage.resources--;
	free(resource);
}

static void free_context(void *node)
{
	struct context *context = node;

	hostblob_cross_domain_destroy(context->cross_domain);
	free(context);
}

void hostblob_device_reset(struct hostblob_device *device)
{
	tdestroy(device->attachments, free);
	tdestroy(device->resources, free_resource);
	tdestroy(device->contexts, free_context);
	device->attachments = NULL;
	device->resources = NULL;
	device->contexts = NULL;
	device->usage.attachments = 0;
	device->usage.contexts = 0;
}

static bool has_cross_domain(const struct hostblob_device *device)
{
	return device->config.guest.write;
}

int hostblob_context_create(struct hostblob_device *device, uint32_t context_id,
			    uint32_t context_init)
{
	bool cross_domain = context_init == HOSTBLOB_CAPSET_CROSS_DOMAIN && has_cross_domain(device);
	struct context *context;

	if (!context_id || (context_init && !cross_domain))
		return -EINVAL;
	if (find(&device->contexts, &context_id))
		return -EALREADY;
	if (device->usage.contexts >= device->limits.contexts)
		return -ENOSPC;
	context = calloc(1, sizeof(*context));
	if (!context)
		return -ENOMEM;
	context->id = context_id;
	context->serial = ++device->serials;
	if (cross_domain)
		context->cross_domain = hostblob_cross_domain_create();
	if (cross_domain != !!context->cross_domain || !tsearch(context, &device->contexts, by_id)) {
		free_context(context);
		return -ENOMEM;
	}
	device->usage.contexts++;
	return 0;
}

static void detach(struct hostblob_device *device, struct attachment *attachment)
{
	LIST_REMOVE(attachment, of_context);
	LIST_REMOVE(attachment, of_resource);
	tdelete(attachment, &device->attachments, by_pair);
	free(attachment);
	device->usage.attachments--;
}

int hostblob_context_destroy(struct hostblob_device *device, uint32_t context_id)
{
	struct context *context = find(&device->contexts, &context_id);

	if (!context)
		return -ESRCH;
	while (!LIST_EMPTY(&context->attachments))
		/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): LIST_REMOVE() moves the first on */
		detach(device, LIST_FIRST(&context->attachments));
	tdelete(context, &device->contexts, by_id);
	free_context(context);
	device->usage.contexts--;
	return 0;
}

static struct attachment *find_attachment(const struct hostblob_device *device, uint32_t context_id,
					  uint32_t resource_id)
{
	const uint32_t key[2] = { context_id, resource_id };
	void *const *node = tfind(key, &device->attachments, by_pair);

	return node ? *node : NULL;
}

int hostblob_context_attach(struct hostblob_device *device, uint32_t context_id,
			    uint32_t resource_id)
{
	struct context *context = find(&device->contexts, &context_id);
	struct resource *resource = find_resource(device, resource_id);
	struct attachment *attachment;

	if (!context)
		return -ESRCH;
	if (!resource)
		return -ENOENT;
	if (find_attachment(device, context_id, resource_id))
		return 0;
	if (device->usage.attachments >= device->limits.attachments)
		return -ENOSPC;
	attachment = malloc(sizeof(*attachment));
	if (!attachment)
		return -ENOMEM;
	attachment->key[0] = context_id;
	attachment->key[1] = resource_id;
	if (!tsearch(attachment, &device->attachments, by_pair)) {
		free(attachment);
		return -ENOMEM;
	}
	LIST_INSERT_HEAD(&context->attachments, attachment, of_context);
	LIST_INSERT_HEAD(&resource->attachments, attachment, of_resource);
	device->usage.attachments++;
	return 0;
}

int hostblob_context_detach(struct hostblob_device *device, uint32_t context_id,
			    uint32_t resource_id)
{
	struct attachment *attachment = find_attachment(device, context_id, resource_id);

	if (!find(&device->contexts, &context_id))
		return -ESRCH;
	if (!find_resource(device, resource_id))
		return -ENOENT;
	if (attachment)
		detach(device, attachment);
	return 0;
}

/* Whether another resource may have this id. */
static int check_new_resource(struct hostblob_device *device, uint32_t resource_id)
{
	if (!resource_id)
		return -EINVAL;
	if (find(&device->resources, &resource_id))
		return -EEXIST;
	return device->usage.resources < device->limits.resources ? 0 : -ENOSPC;
}

static struct resource *add_resource(struct hostblob_device *device, uint32_t resource_id)
{
	struct resource *resource = calloc(1, sizeof(*resource));

	if (!resource)
		return NULL;
	resource->id = resource_id;
	resource->device = device;
	if (!tsearch(resource, &device->resources, by_id)) {
		free(resource);
		return NULL;
	}
	device->usage.resources++;
	return resource;
}

int hostblob_resource_register(struct hostblob_device *device, uint32_t resource_id)
{
	int result = check_new_resource(device, resource_id);

	if (result)
		return result;
	return add_resource(device, resource_id) ? 0 : -ENOMEM;
}

/* Whether the guest, and the context, may have another blob of this size. */
static bool has_room(const struct hostblob_device *device, const struct context *context, uint64_t size)
{
	const struct hostblob_limits *limits = &device->limits;

	return device->usage.blobs < limits->blobs && context->blobs < limits->context_blobs &&
	       size <= limits->blob_bytes && size <= limits->bytes - device->usage.bytes &&
	       size <= limits->context_bytes - context->bytes;
}

/* Whether the guest may make this blob; the context must exist. */
static int check_new_blob(struct hostblob_device *device, const struct context *context, uint32_t blob_flags,
			  uint64_t blob_id, uint64_t size)
{
	const struct cross_domain *cross_domain = context->cross_domain;

	if ((blob_flags & ~BLOB_FLAGS) || !size || size % device->page_size)
		return -EINVAL;
	if (cross_domain ? size != hostblob_cross_domain_item_size(cross_domain, blob_id) : blob_id)
		return -EINVAL;
	return has_room(device, context, size) ? 0 : -ENOSPC;
}

/* The memory that suits what a guest will do with it, @uses of hostblob_cross_domain_uses(). */
static struct hostblob_request describe(const struct hostblob_device *device, uint64_t size, uint32_t uses)
{
	const struct hostblob_config *config = &device->config;

	return (struct hostblob_request){
		.struct_size = sizeof(struct hostblob_request),
		.size = size,
		.cached = !config->uncached || config->cached_only || (uses & CROSS_DOMAIN_USE_CPU_READ),
		.scanout = uses & CROSS_DOMAIN_USE_SCANOUT,
	};
}

int hostblob_creation_begin(struct hostblob_device *device, uint32_t context_id, uint32_t resource_id,
			    uint32_t blob_flags, uint64_t blob_id, uint64_t size,
			    struct hostblob_creation **result)
{
	struct context *context = find(&device->contexts, &context_id);
	struct hostblob_creation *creation;
	struct resource *resource;
	int error = check_new_resource(device, resource_id);

	if (!error)
		error = context ? check_new_blob(device, context, blob_flags, blob_id, size) : -ESRCH;
	if (error)
		return error;
	creation = calloc(1, sizeof(*creation));
	if (!creation)
		return -ENOMEM;
	resource = add_resource(device, resource_id);
	if (!resource) {
		free(creation);
		return -ENOMEM;
	}
	resource->is_blob = true;
	resource->creation = creation;
	resource->context_id = context_id;
	resource->context_serial = context->serial;
	resource->blob_flags = blob_flags;
	resource->blob_id = blob_id;
	resource->buffer.size = size;
	device->usage.blobs++;
	device->usage.bytes += size;
	context->blobs++;
	context->bytes += size;
	creation->device = device;
	creation->resource = resource;
	creation->allocator = device->config.allocator;
	creation->request = describe(device, size, hostblob_cross_domain_uses(context->cross_domain, blob_id));
	creation->result = -ECANCELED;
	LIST_INSERT_HEAD(&device->creations, creation, of_device);
	*result = creation;
	return 0;
}

void hostblob_creation_allocate(struct hostblob_creation *creation)
{
	struct hostblob_allocator *allocator = creation->allocator;

	creation->result = allocator->ops->allocate(allocator, &creation->request, &creation->buffer,
						    creation->error, sizeof(creation->error));
}

/* No attachment refers to the resource, as nobody else could find it. */
void hostblob_creation_cancel(struct hostblob_creation *creation)
{
	struct resource *resource = creation->resource;

	if (!resource)
		return;
	tdelete(resource, &creation->device->resources, by_id);
	free_resource(resource);
}

/* Whether the guest may have what the allocator made. */
static int check_buffer(struct hostblob_creation *creation)
{
	struct hostblob_device *device = creation->device;

	if (creation->result) {
		if (creation->result != -ECANCELED)
			log_failure(device, "allocating", creation->request.size,
				    *creation->error ? creation->error : strerror(-creation->result));
		return creation->result;
	}
	if (device->config.cached_only && creation->buffer.caching != HOSTBLOB_CACHED) {
		log_failure(device, "allocating", creation->request.size,
			    "it is not cached, and the guest would see it cached");
		return -EOPNOTSUPP;
	}
	return 0;
}

int hostblob_creation_finish(struct hostblob_creation *creation)
{
	struct hostblob_device *device = creation->device;
	struct resource *resource = creation->resource;
	int result = resource ? check_buffer(creation) : -ECANCELED;

	if (!result) {
		resource->buffer = creation->buffer;
		resource->creation = NULL;
		goto done;
	}
	hostblob_creation_cancel(creation);
	if (!creation->result)
		close(creation->buffer.fd);
	if (device) {
		device->usage.blobs--;
		device->usage.bytes -= creation->request.size;
	}
done:
	if (device)
		LIST_REMOVE(creation, of_device);
	free(creation);
	return result;
}

int hostblob_blob_create(struct hostblob_device *device, uint32_t context_id, uint32_t resource_id,
			 uint32_t blob_flags, uint64_t blob_id, uint64_t size)
{
	struct hostblob_creation *creation;
	int result = hostblob_creation_begin(device, context_id, resource_id, blob_flags, blob_id, size,
					     &creation);

	if (result)
		return result;
	hostblob_creation_allocate(creation);
	return hostblob_creation_finish(creation);
}

static int show(struct resource *resource, bool *mapper_failed)
{
	struct hostblob_device *device = resource->device;
	struct hostblob_mapper *mapper = &device->config.mapper;
	struct range *range = &resource->range;
	void *const *node = tsearch(range, &device->mapped, by_place);
	int result = 0;

	if (!node)
		return -ENOMEM;
	if (*node != range)
		return -EINVAL;
	if (resource->lost)
		result = mapper->lose(mapper->opaque, range->offset, range->size);
	else
		result = mapper->map(mapper->opaque, range->offset, &resource->buffer);
	if (result)
		tdelete(range, &device->mapped, by_place);
	*mapper_failed = result;
	return result;
}

int hostblob_blob_map(struct hostblob_device *device, uint32_t resource_id, uint64_t offset,
		      uint32_t *map_info)
{
	uint64_t window = device->config.window_size;
	struct resource *resource = find_blob(device, resource_id);
	bool mapper_failed = false;
	int result;

	if (!resource)
		return -ENOENT;
	if (!(resource->blob_flags & VIRTIO_GPU_BLOB_FLAG_USE_MAPPABLE))
		return -EPERM;
	if (resource->mapped)
		return -EBUSY;
	if (device->usage.mapped_blobs >= device->limits.mapped_blobs)
		return -ENOSPC;
	if (offset % device->page_size || offset > window || resource->buffer.size > window - offset)
		return -EINVAL;

	resource->range = (struct range){ .offset = offset, .size = resource->buffer.size };
	pthread_mutex_lock(&device->lock);
	result = show(resource, &mapper_failed);
	pthread_mutex_unlock(&device->lock);
	if (mapper_failed)
		log_failure(device, "mapping", resource->range.size, strerror(-result));
	if (result)
		return result;
	resource->mapped = true;
	device->usage.mapped_blobs++;
	device->usage.mapped_bytes += resource->range.size;
	*map_info = resource->buffer.caching;
	return 0;
}

int hostblob_blob_unmap(struct hostblob_device *device, uint32_t resource_id)
{
	struct resource *resource = find_blob(device, resource_id);

	if (!resource)
		return -ENOENT;
	if (resource->mapped)
		unmap(resource);
	return 0;
}

int hostblob_device_lose(struct hostblob_device *device, uint64_t offset)
{
	struct range place = { .offset = offset, .size = 1 };
	struct hostblob_mapper *mapper = &device->config.mapper;
	struct resource *resource;
	void *const *node;
	int result = -ENOENT;

	if (offset >= device->config.window_size)
		return -ENOENT;
	if (!mapper->lose)
		return -EOPNOTSUPP;
	pthread_mutex_lock(&device->lock);
	node = tfind(&place, &device->mapped, by_place);
	resource = node ? (struct resource *)((char *)*node - offsetof(struct resource, range)) : NULL;
	if (resource && !resource->lost) {
		/* First: whoever sees other memory may ask why, without the lock. */
		resource->lost = true;
		result = mapper->lose(mapper->opaque, resource->range.offset, resource->range.size);
		if (result)
			resource->lost = false;
	}
	pthread_mutex_unlock(&device->lock);
	return result;
}

int hostblob_resource_unref(struct hostblob_device *device, uint32_t resource_id)
{
	struct resource *resource = find_resource(device, resource_id);

	if (!resource)
		return -ENOENT;
	while (!LIST_EMPTY(&resource->attachments))
		/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): LIST_REMOVE() moves the first on */
		detach(device, LIST_FIRST(&resource->attachments));
	tdelete(resource, &device->resources, by_id);
	free_resource(resource);
	return 0;
}

/* A context that submits commands. */
struct submitter {
	struct hostblob_device *device;
	uint32_t context_id;
};

/*
 * Only what the guest's kernel has attached to the context: the number is in a
 * command that it does not read, and any process of the guest can write one.
 */
static int check_ring(void *opaque, uint32_t resource_id)
{
	const struct submitter *submitter = opaque;

	if (!find_attachment(submitter->device, submitter->context_id, resource_id))
		return -ENOENT;
	return find_blob(submitter->device, resource_id) ? -EINVAL : 0;
}

static int write_ring(void *opaque, uint32_t resource_id, const void *data, uint64_t size)
{
	const struct submitter *submitter = opaque;
	const struct hostblob_guest *guest = &submitter->device->config.guest;

	return guest->write(guest->opaque, resource_id, data, size);
}

static enum hostblob_caching expected_caching(void *opaque, uint32_t uses)
{
	const struct submitter *submitter = opaque;
	const struct hostblob_config *config = &submitter->device->config;

	return config->allocator->ops->write_combined && !describe(submitter->device, 0, uses).cached ?
		       HOSTBLOB_WRITE_COMBINED :
		       HOSTBLOB_CACHED;
}

static uint64_t max_image(const struct hostblob_device *device)
{
	const struct hostblob_limits *limits = &device->limits;

	return limits->blob_bytes < limits->bytes ? limits->blob_bytes : limits->bytes;
}

int hostblob_context_submit(struct hostblob_device *device, uint32_t context_id, const void *commands,
			    uint64_t size)
{
	const struct context *context = find(&device->contexts, &context_id);
	struct submitter submitter = { .device = device, .context_id = context_id };
	const struct cross_domain_host host = {
		.page_size = device->page_size,
		.max_bytes = max_image(device),
		.max_items = device->limits.items,
		.check_ring = check_ring,
		.write = write_ring,
		.caching = expected_caching,
		.opaque = &submitter,
	};

	if (!context)
		return -ESRCH;
	if (size > HOSTBLOB_SUBMIT_MAX || (size && !context->cross_domain))
		return -EINVAL;
	return size ? hostblob_cross_domain_submit(context->cross_domain, &host, commands, size) : 0;
}

int hostblob_capset_query(const struct hostblob_device *device, uint32_t index,
			  struct hostblob_capset *capset)
{
	if (index || !has_cross_domain(device))
		return -EINVAL;
	*capset = (struct hostblob_capset){
		.id = HOSTBLOB_CAPSET_CROSS_DOMAIN,
		.max_version = 0,
		.size = sizeof(struct hostblob_cross_domain),
	};
	return 0;
}

int hostblob_capset_read(const struct hostblob_device *device, uint32_t id, uint32_t version,
			 struct hostblob_cross_domain *data)
{
	if (id != HOSTBLOB_CAPSET_CROSS_DOMAIN || version || !has_cross_domain(device))
		return -EINVAL;
	*data = (struct hostblob_cross_domain){
		.version = 1,
		.supports_dmabuf = 1,
		.supports_external_gpu_memory = 1,
	};
	return 0;
}

int hostblob_blob_query(const struct hostblob_device *device, uint32_t resource_id,
			struct hostblob_blob_info *info, size_t size)
{
	const struct resource *resource = find_blob(device, resource_id);
	struct hostblob_blob_info known;

	if (!resource)
		return -ENOENT;
	known = (struct hostblob_blob_info){
		.resource_id = resource->id,
		.context_id = resource->context_id,
		.blob_flags = resource->blob_flags,
		.blob_id = resource->blob_id,
		.buffer = resource->buffer,
		.mapped = resource->mapped,
		.offset = resource->mapped ? resource->range.offset : 0,
		.lost = resource->lost,
	};
	hostblob_structure_write(info, size, &known, sizeof(known));
	return 0;
}

void hostblob_device_usage(const struct hostblob_device *device, struct hostblob_usage *usage, size_t size)
{
	hostblob_structure_write(usage, size, &device->usage, sizeof(device->usage));
}

void hostblob_device_limits(const struct hostblob_device *device, struct hostblob_limits *limits, size_t size)
{
	hostblob_structure_write(limits, size, &device->limits, sizeof(device->limits));
	limits->struct_size = size;
}

uint32_t hostblob_virtio_response(int result)
{
	switch (result) {
	case 0:
		return VIRTIO_GPU_RESP_OK_NODATA;
	case -ENOENT:
	case -EEXIST:
		return VIRTIO_GPU_RESP_ERR_INVALID_RESOURCE_ID;
	case -ESRCH:
	case -EALREADY:
		return VIRTIO_GPU_RESP_ERR_INVALID_CONTEXT_ID;
	case -EINVAL:
	case -EPERM:
	case -EBUSY:
		return VIRTIO_GPU_RESP_ERR_INVALID_PARAMETER;
	case -ENOMEM:
	case -ENOSPC:
		return VIRTIO_GPU_RESP_ERR_OUT_OF_MEMORY;
	default:
		return VIRTIO_GPU_RESP_ERR_UNSPEC;
	}
}

/* SPDX-License-Identifier: MIT */
/*
 * libhostblob: the device model of virtio-gpu host blobs, for a virtual machine
 * monitor to embed. The VMM decodes virtio-gpu commands and forwards them; the
 * library owns every resource id of the device, allocates buffers through an
 * allocator, and asks a mapper to place them in the host-visible window.
 *
 * The library is passive: no threads, no global state, no output except through
 * hostblob_config.log, and it never ends the process. Calls on one device must not
 * run at the same time, but for hostblob_device_lose() and
 * hostblob_creation_allocate(); calls on different devices may. Unless said otherwise
 * a function returns 0, or a negative errno and then has changed nothing. Every
 * argument that a guest can choose may have any value.
 *
 * Structures may get more members, at their end. So the library has to know which
 * ones a VMM was built with. Those that the VMM fills in begin with struct_size, which
 * it sets to sizeof the structure; where the library fills one in, the size is an
 * argument. What an older VMM does not know is as if it was left out. What an older
 * library does not know must be left out, or the call fails with -E2BIG. Structures
 * without a size do not change.
 *
 * Words and numbers follow the virtio 1.3 specification, section 5.7 (GPU
 * Device), and Linux's include/uapi/linux/virtio_gpu.h.
 */
#ifndef HOSTBLOB_H
#define HOSTBLOB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The library's version is written here, and nowhere else. */
#define HOSTBLOB_VERSION_MAJOR 0
#define HOSTBLOB_VERSION_MINOR 2
#define HOSTBLOB_VERSION_MICRO 0

/** HOSTBLOB_VERSION_NUMBER() - versions as numbers that can be compared */
#define HOSTBLOB_VERSION_NUMBER(major, minor, micro) ((major) << 16 | (minor) << 8 | (micro))

/** HOSTBLOB_VERSION - the version that this header is of */
#define HOSTBLOB_VERSION \
	HOSTBLOB_VERSION_NUMBER(HOSTBLOB_VERSION_MAJOR, HOSTBLOB_VERSION_MINOR, HOSTBLOB_VERSION_MICRO)

/** HOSTBLOB_API - marks what the shared library exports */
#define HOSTBLOB_API __attribute__((visibility("default")))

/** hostblob_version() - the HOSTBLOB_VERSION of the library that is in use */
HOSTBLOB_API uint32_t hostblob_version(void);

/* --- Buffers and allocators ------------------------------------------------ */

/**
 * enum hostblob_caching - how the guest must map a buffer
 *
 * The values are those of VIRTIO_GPU_MAP_CACHE_* in the map_info of
 * RESP_OK_MAP_INFO.
 */
enum hostblob_caching {
	HOSTBLOB_CACHED = 1,
	HOSTBLOB_UNCACHED = 2,
	HOSTBLOB_WRITE_COMBINED = 3,
};

/**
 * struct hostblob_buffer - host memory that an allocator made
 * @fd: a dma-buf or memfd that can be mapped with MAP_SHARED
 * @size: bytes from the start of @fd; a multiple of the page size
 * @caching: the memory type of the host's own mappings
 */
struct hostblob_buffer {
	int fd;
	uint64_t size;
	enum hostblob_caching caching;
};

struct hostblob_allocator;

/**
 * struct hostblob_request - what an allocator is asked for
 * @struct_size: sizeof(struct hostblob_request)
 * @size: bytes; a non-zero multiple of the page size
 * @cached: CPUs will read it, or nobody knows who will: HOSTBLOB_CACHED, if the
 *	allocator can
 * @scanout: a display is to read it, without a copy. Memory that is best for that is
 *	wanted, but other memory will do.
 *
 * The device fills it in. An allocator that knows one kind of memory looks at @size.
 */
struct hostblob_request {
	size_t struct_size;
	uint64_t size;
	bool cached;
	bool scanout;
};

/**
 * struct hostblob_allocator_ops - one kind of host memory
 * @struct_size: sizeof(struct hostblob_allocator_ops)
 * @name: what a user calls it: "memfd", "dumb", "radeon", "amdgpu"
 * @allocate: make a zero-filled buffer of exactly the size of @request. The caller
 *	owns @buffer->fd and closes it; closing it, and unmapping what was mapped from
 *	it, frees the memory. On failure it may write a message of one line to @error,
 *	of @error_size bytes, that names the cause and the way out, where the result
 *	alone does not. May be called by any thread, and by several at a time.
 * @destroy: free the allocator; buffers outlive it.
 * @write_combined: what need not be cached is HOSTBLOB_WRITE_COMBINED
 */
struct hostblob_allocator_ops {
	size_t struct_size;
	const char *name;
	int (*allocate)(struct hostblob_allocator *allocator, const struct hostblob_request *request,
			struct hostblob_buffer *buffer, char *error, unsigned int error_size);
	void (*destroy)(struct hostblob_allocator *allocator);
	bool write_combined;
};

/**
 * struct hostblob_allocator - begins what an allocator keeps for itself
 * @ops: what it can do
 */
struct hostblob_allocator {
	const struct hostblob_allocator_ops *ops;
};

/**
 * hostblob_allocator_open() - the allocator for a DRM node, or for none
 * @name: an allocator's name, or NULL to choose by the node's driver
 * @node_fd: an open DRM node, or -1 for memory that belongs to no device.
 *	Borrowed: it must stay open for as long as the allocator lives.
 * @allocator: where the new allocator goes
 * @error: where a message for the user goes on failure: one line that names
 *	the cause and the way out; never touched on success
 * @error_size: size of @error
 *
 * Return: 0, -ENOENT if @name names no allocator, -ENODEV if no allocator knows
 * the node's driver or @name cannot serve it, -EINVAL if @node_fd is no DRM
 * node, is missing, or is given to an allocator that takes none.
 */
HOSTBLOB_API int hostblob_allocator_open(const char *name, int node_fd,
					 struct hostblob_allocator **allocator,
					 char *error, unsigned int error_size);

/** hostblob_allocator_close() - free an allocator; NULL is fine. */
HOSTBLOB_API void hostblob_allocator_close(struct hostblob_allocator *allocator);

/* --- Where buffers are placed ------------------------------------------------ */

/**
 * struct hostblob_mapper - what places buffers in the host-visible window
 * @map: make @buffer visible at @offset of the window, all of it. When it
 *	returns, the guest may touch it.
 * @unmap: undo one @map of the same offset and size. When it returns, no
 *	access through the window reaches the buffer. It must not fail: a
 *	mapper that cannot unmap has to stop the guest.
 * @lose: show @size bytes of zero-filled memory that nothing else shows, instead of
 *	a buffer that is mapped there, or where none is. @unmap undoes that, too, and
 *	nobody sees the memory again. Return: 0, or a negative errno and then nothing
 *	has changed. NULL where nothing can be lost.
 * @opaque: handed to all
 *
 * The device checks bounds, alignment and overlap before it calls. Another
 * mapper may be one for a VMM process that is not this one.
 */
struct hostblob_mapper {
	int (*map)(void *opaque, uint64_t offset, const struct hostblob_buffer *buffer);
	void (*unmap)(void *opaque, uint64_t offset, uint64_t size);
	int (*lose)(void *opaque, uint64_t offset, uint64_t size);
	void *opaque;
};

struct hostblob_window;

/**
 * struct hostblob_window_config - what a window is made of
 * @struct_size: sizeof(struct hostblob_window_config)
 * @size: bytes; a power of two, at least the page size
 * @fatal: stop the process. The window could not close a gap, or not take a buffer out
 *	of the guest's reach: whatever the process maps next may fall into the gap, and
 *	the guest would reach that, too. It happens only where the kernel has no memory
 *	left for a mapping, not even in place of those that the window keeps for this.
 *	Called by whoever called the mapper, in a signal handler, too, and must not
 *	return. If it does, the window maps nothing more.
 * @opaque: handed to @fatal
 */
struct hostblob_window_config {
	size_t struct_size;
	uint64_t size;
	void (*fatal)(void *opaque);
	void *opaque;
};

/**
 * hostblob_window_create() - reserve a window in this process
 * @config: copied
 * @window: where the new window goes
 *
 * The reservation is aligned to its size, to 1 GiB at the most, so that a guest
 * address and a host address agree modulo 2 MiB. It is mapped readable and
 * writable from end to end for as long as it lives: where no buffer is mapped
 * there is the sink, a bounded amount of memory that appears many times over
 * and holds nothing of any buffer. A lost blob has memory of its own instead, which
 * takes no more than the blob and goes when the blob is unmapped. The window is in no core dump and is not
 * inherited by fork(). One KVM memslot can therefore cover all of it
 * for the life of the VM.
 *
 * Return: 0, -EINVAL for a size that is none or without @fatal, -E2BIG, -ENOMEM if
 * there is no such room in the address space, or what memfd_create() said.
 */
HOSTBLOB_API int hostblob_window_create(const struct hostblob_window_config *config,
					struct hostblob_window **window);

/** hostblob_window_destroy() - unmap everything; NULL is fine. */
HOSTBLOB_API void hostblob_window_destroy(struct hostblob_window *window);

/** hostblob_window_base() - the host address of offset 0. */
HOSTBLOB_API void *hostblob_window_base(const struct hostblob_window *window);

/** hostblob_window_mapper() - the window as a mapper for a device. */
HOSTBLOB_API struct hostblob_mapper hostblob_window_mapper(struct hostblob_window *window);

/**
 * hostblob_window_clear_sink() - forget what the guest wrote where no buffer is
 *
 * For a device reset: the next guest driver must not read the last one's writes.
 */
HOSTBLOB_API void hostblob_window_clear_sink(struct hostblob_window *window);

/* --- The device ------------------------------------------------------------ */

/**
 * struct hostblob_guest - how the device writes to the guest's memory
 * @write: write @size bytes, at most a page, to the start of what backs a resource
 *	that the VMM registered. Return: 0, or -EINVAL if the resource has no backing
 *	or a smaller one. It must not call the device.
 * @opaque: handed to it
 *
 * Without it the device offers no capset.
 */
struct hostblob_guest {
	int (*write)(void *opaque, uint32_t resource_id, const void *data, uint64_t size);
	void *opaque;
};

/** HOSTBLOB_BYTES_DEFAULT - the default of a limit in bytes */
#define HOSTBLOB_BYTES_DEFAULT UINT64_MAX

/** HOSTBLOB_LIMIT_DEFAULT - the default of any other limit */
#define HOSTBLOB_LIMIT_DEFAULT UINT32_MAX

/**
 * struct hostblob_limits - what one guest may hold; 0 is none
 * @struct_size: sizeof(struct hostblob_limits)
 * @bytes: sum of all host blobs, mapped or not (default: the window's size)
 * @blobs: host blobs (default 16384, or half of RLIMIT_NOFILE if that is less:
 *	each takes a file descriptor, and two mappings while it is mapped)
 * @mapped_blobs: host blobs in the window at one time (default: @blobs)
 * @contexts: contexts (default 4096)
 * @resources: resource ids, the VMM's own included (default: as for @blobs, for the
 *	VMM's own may take as much)
 * @attachments: pairs of a context and a resource that it may use (default 262144)
 * @items: kinds of images that one context may ask for (default 1024)
 * @context_bytes: sum of the host blobs that one context has made (default: @bytes)
 * @context_blobs: host blobs that one context has made (default: @blobs)
 * @blob_bytes: one host blob (default: 1 GiB, or @bytes if that is less). It bounds how
 *	long the host is busy with one command: the memory is populated and zeroed.
 *
 * Begin with hostblob_limits_init(), then set those that matter.
 *
 * A context's share holds against the programs of a guest: its kernel makes the
 * contexts, and blobs that outlive theirs count for the guest alone.
 */
struct hostblob_limits {
	size_t struct_size;
	uint64_t bytes;
	uint32_t blobs;
	uint32_t mapped_blobs;
	uint32_t contexts;
	uint32_t resources;
	uint32_t attachments;
	uint32_t items;
	uint64_t context_bytes;
	uint32_t context_blobs;
	uint64_t blob_bytes;
};

/**
 * hostblob_limits_init() - the default for all of them
 * @size: sizeof(*@limits)
 */
HOSTBLOB_API void hostblob_limits_init(struct hostblob_limits *limits, size_t size);

/**
 * struct hostblob_config - what a device is made of
 * @struct_size: sizeof(struct hostblob_config)
 * @allocator: borrowed; must outlive the device
 * @mapper: copied
 * @window_size: bytes that @mapper can place buffers in; a power of two, or 0
 *	where blobs can be made but not mapped
 * @guest: copied; all NULL is fine
 * @limits: copied; NULL for the defaults
 * @cached_only: guests get all memory as write-back, whatever @map_info tells
 *	them, as with KVM on Intel CPUs where the guest's PAT is ignored. The
 *	device then refuses buffers that are not cached: what a guest writes to
 *	them would stay in the CPU's caches, and what it reads be stale.
 * @log: receives one line, with no newline, where the allocator or the mapper
 *	failed, or for a buffer that @cached_only refuses; not each time, if it
 *	happens often, and never for what is the guest's fault. May be NULL.
 * @log_opaque: handed to @log
 * @uncached: images of the guest's may be write-combined, or in video memory, where the
 *	allocator has that and the guest does not say that its CPUs read them often. For
 *	guests that are trusted: on AMD CPUs a guest may map such memory cached, and what
 *	it leaves in the CPU's caches may be written to memory that others have by then.
 */
struct hostblob_config {
	size_t struct_size;
	struct hostblob_allocator *allocator;
	struct hostblob_mapper mapper;
	uint64_t window_size;
	struct hostblob_guest guest;
	const struct hostblob_limits *limits;
	bool cached_only;
	void (*log)(void *opaque, const char *line);
	void *log_opaque;
	bool uncached;
};

struct hostblob_device;

/**
 * hostblob_device_create() - a device that holds nothing yet
 * @config: copied
 * @device: where the new device goes
 *
 * Return: 0, -EINVAL for a configuration that makes no sense, -E2BIG, -ENOMEM.
 */
HOSTBLOB_API int hostblob_device_create(const struct hostblob_config *config,
					struct hostblob_device **device);

/**
 * hostblob_device_destroy() - reset, then free; NULL is fine
 *
 * Creations that are under way may be finished later, too; what they need of
 * @config, i.e. the allocator, must live until then.
 */
HOSTBLOB_API void hostblob_device_destroy(struct hostblob_device *device);

/**
 * hostblob_device_reset() - unmap and free every blob, drop every context and id
 *
 * Ids that the VMM registered are forgotten too: it frees its own side itself.
 * Creations that are under way are cancelled, see hostblob_creation_cancel().
 */
HOSTBLOB_API void hostblob_device_reset(struct hostblob_device *device);

/**
 * hostblob_context_create() - VIRTIO_GPU_CMD_CTX_CREATE
 * @context_init: as on the wire; bits 0 to 7 are the capset id. 0 is a context of no
 *	capset, whose blobs are linear memory; the other one that is known is
 *	HOSTBLOB_CAPSET_CROSS_DOMAIN.
 *
 * Return: -EALREADY if the id is in use, -EINVAL for id 0 or an unknown capset,
 * -ENOSPC over the limit, -ENOMEM.
 */
HOSTBLOB_API int hostblob_context_create(struct hostblob_device *device, uint32_t context_id,
					 uint32_t context_init);

/** hostblob_context_destroy() - VIRTIO_GPU_CMD_CTX_DESTROY; its blobs live on. */
HOSTBLOB_API int hostblob_context_destroy(struct hostblob_device *device, uint32_t context_id);

/**
 * hostblob_context_attach() - VIRTIO_GPU_CMD_CTX_ATTACH_RESOURCE
 *
 * A context has the device write to no resource but those attached to it. The end of
 * either detaches them.
 *
 * Return: -ESRCH if there is no such context, -ENOENT if there is no such
 * resource, -ENOSPC over the limit, -ENOMEM. Attaching twice is no error, nor is
 * detaching what is not attached.
 */
HOSTBLOB_API int hostblob_context_attach(struct hostblob_device *device, uint32_t context_id,
					 uint32_t resource_id);

/**
 * hostblob_context_detach() - VIRTIO_GPU_CMD_CTX_DETACH_RESOURCE
 *
 * Return: -ESRCH if there is no such context, -ENOENT if there is no such resource.
 */
HOSTBLOB_API int hostblob_context_detach(struct hostblob_device *device, uint32_t context_id,
					 uint32_t resource_id);

/**
 * hostblob_resource_register() - claim an id for a resource of the VMM's own
 *
 * For 2D resources and guest blobs, so that one id space serves the device.
 *
 * Return: -EINVAL for id 0, -EEXIST if the id is in use, -ENOSPC, -ENOMEM.
 */
HOSTBLOB_API int hostblob_resource_register(struct hostblob_device *device, uint32_t resource_id);

/**
 * hostblob_blob_create() - RESOURCE_CREATE_BLOB of VIRTIO_GPU_BLOB_MEM_HOST3D
 * @context_id: the command header's; the context must exist
 * @blob_flags: VIRTIO_GPU_BLOB_FLAG_USE_*
 * @blob_id: in a context of no capset 0, which asks for linear memory of @size; in one
 *	of HOSTBLOB_CAPSET_CROSS_DOMAIN an id that the context was told
 * @size: bytes; a non-zero multiple of the page size, and that of the image if @blob_id
 *	stands for one
 *
 * It may take long: the allocator's driver may have to find the memory first, and
 * zeroes it. hostblob_creation_begin() is for a VMM that can't wait.
 *
 * Return: -EINVAL for a value that no device would take, -EEXIST if the id is in
 * use, -ESRCH if there is no such context, -ENOSPC over a limit, -ENOMEM if the
 * host has no memory, -EOPNOTSUPP if the memory isn't cached and has to be, or
 * what the allocator said.
 */
HOSTBLOB_API int hostblob_blob_create(struct hostblob_device *device, uint32_t context_id,
				      uint32_t resource_id, uint32_t blob_flags,
				      uint64_t blob_id, uint64_t size);

struct hostblob_creation;

/**
 * hostblob_creation_begin() - the part of hostblob_blob_create() that checks
 * @creation: where the new creation goes; hostblob_creation_finish() frees it
 *
 * Takes the id and what the limits count. Until hostblob_creation_finish() nothing but
 * this knows of the blob: for all other calls there is no such resource, but no other
 * can have its id.
 *
 * Return: as for hostblob_blob_create(), without what comes of the memory.
 */
HOSTBLOB_API int hostblob_creation_begin(struct hostblob_device *device, uint32_t context_id,
					 uint32_t resource_id, uint32_t blob_flags, uint64_t blob_id,
					 uint64_t size, struct hostblob_creation **creation);

/**
 * hostblob_creation_allocate() - the part that may take long
 *
 * May be called by any thread, once, while any other call on the device runs. How it
 * ended is what hostblob_creation_finish() returns. The VMM orders the two, e.g. by the
 * lock of its queue of work.
 */
HOSTBLOB_API void hostblob_creation_allocate(struct hostblob_creation *creation);

/**
 * hostblob_creation_cancel() - forget the blob, whatever comes of its memory
 *
 * The id is free at once. What the limits count is not until
 * hostblob_creation_finish(), as the memory may be there: a guest that resets its
 * device again and again gets no more of it. May be called while
 * hostblob_creation_allocate() runs.
 */
HOSTBLOB_API void hostblob_creation_cancel(struct hostblob_creation *creation);

/**
 * hostblob_creation_finish() - make the blob of what was allocated, or give all back
 *
 * Frees @creation. hostblob_creation_allocate() must have returned, or never be called.
 *
 * Return: 0 if there is a blob now, -ECANCELED if it was cancelled or nothing was
 * allocated, and otherwise as for hostblob_blob_create().
 */
HOSTBLOB_API int hostblob_creation_finish(struct hostblob_creation *creation);

/**
 * hostblob_blob_map() - VIRTIO_GPU_CMD_RESOURCE_MAP_BLOB
 * @offset: in the window; a multiple of the page size
 * @map_info: for RESP_OK_MAP_INFO
 *
 * Return: -ENOENT if there is no such blob, -EPERM without USE_MAPPABLE, -EBUSY
 * if it is mapped already, -ENOSPC over a limit, -EINVAL if it would not lie in the
 * window or would overlap another blob, or what the mapper said.
 */
HOSTBLOB_API int hostblob_blob_map(struct hostblob_device *device, uint32_t resource_id,
				   uint64_t offset, uint32_t *map_info);

/**
 * hostblob_blob_unmap() - VIRTIO_GPU_CMD_RESOURCE_UNMAP_BLOB
 *
 * Linux sends it even where the map failed, so unmapping what is not mapped is
 * no error.
 *
 * Return: -ENOENT if there is no such blob.
 */
HOSTBLOB_API int hostblob_blob_unmap(struct hostblob_device *device, uint32_t resource_id);

/**
 * hostblob_resource_unref() - VIRTIO_GPU_CMD_RESOURCE_UNREF, of any resource
 *
 * A blob is unmapped first and its buffer is closed.
 *
 * Return: -ENOENT if there is no such resource.
 */
HOSTBLOB_API int hostblob_resource_unref(struct hostblob_device *device, uint32_t resource_id);

/**
 * hostblob_device_lose() - give up a blob whose memory the host can't supply
 * @offset: in the window, anywhere in the blob
 *
 * For a VMM whose access to the window, or its guest's, goes on failing: the host has
 * no memory to bring the buffer back, and the access ends with SIGBUS, or KVM_RUN with
 * EFAULT. Such a failure may pass; a VMM should try again for a while first. The mapper
 * puts other memory there at once, so that the access works when it is repeated: zeros,
 * and the blob's own, which no other blob shows. For the guest the blob stays mapped. It
 * is lost for good: mapped again, it begins with zeros again.
 *
 * May be called by any thread, while another call on this device runs, and from a
 * signal handler, if the signal was raised by an access to the window and the
 * mapper is hostblob_window_mapper(). It logs nothing.
 *
 * Return: 0, or -ENOENT if nothing of a blob was there any more: it is unmapped, or
 * lost already, as when two threads meet it at the same time; -EOPNOTSUPP if the mapper
 * can't, or what it said.
 */
HOSTBLOB_API int hostblob_device_lose(struct hostblob_device *device, uint64_t offset);

/**
 * struct hostblob_blob_info - one blob as it is now
 * @buffer: its memory; the fd is borrowed, duplicate it to keep it
 * @mapped: whether it is in the window
 * @offset: where, if so
 * @lost: whether hostblob_device_lose() gave it up
 */
struct hostblob_blob_info {
	uint32_t resource_id;
	uint32_t context_id;
	uint32_t blob_flags;
	uint64_t blob_id;
	struct hostblob_buffer buffer;
	bool mapped;
	uint64_t offset;
	bool lost;
};

/**
 * hostblob_blob_query() - look at one blob
 * @size: sizeof(*@info)
 *
 * Return: 0, or -ENOENT if there is no such blob.
 */
HOSTBLOB_API int hostblob_blob_query(const struct hostblob_device *device, uint32_t resource_id,
				     struct hostblob_blob_info *info, size_t size);

/**
 * struct hostblob_usage - what a device holds, for diagnosis and tests
 *
 * Blobs that are being made count in @bytes and @blobs, and as long as they are not
 * cancelled in @resources.
 */
struct hostblob_usage {
	uint64_t bytes;
	uint64_t mapped_bytes;
	uint32_t blobs;
	uint32_t mapped_blobs;
	uint32_t contexts;
	uint32_t resources;
	uint32_t attachments;
};

/**
 * hostblob_device_usage() - what it holds
 * @size: sizeof(*@usage)
 */
HOSTBLOB_API void hostblob_device_usage(const struct hostblob_device *device,
					struct hostblob_usage *usage, size_t size);

/**
 * hostblob_device_limits() - what it may hold, the defaults filled in
 * @size: sizeof(*@limits)
 */
HOSTBLOB_API void hostblob_device_limits(const struct hostblob_device *device,
					 struct hostblob_limits *limits, size_t size);

/* --- Cross-domain: images as a ChromeOS guest allocates them ----------------- */

/** The capset's id; older virtio headers don't have it. */
#define HOSTBLOB_CAPSET_CROSS_DOMAIN 5

/** The most bytes of commands that are taken at a time. */
#define HOSTBLOB_SUBMIT_MAX 4096

/**
 * struct hostblob_capset - RESP_OK_CAPSET_INFO
 * @size: of what hostblob_capset_read() gives
 */
struct hostblob_capset {
	uint32_t id;
	uint32_t max_version;
	uint32_t size;
};

/**
 * struct hostblob_cross_domain - the capset's data, little-endian as on the wire
 * @supported_channels: none: the guest can allocate, but reach no Wayland compositor
 */
struct hostblob_cross_domain {
	uint32_t version;
	uint32_t supported_channels;
	uint32_t supports_dmabuf;
	uint32_t supports_external_gpu_memory;
};

/**
 * hostblob_capset_query() - VIRTIO_GPU_CMD_GET_CAPSET_INFO
 *
 * Return: 0, or -EINVAL for an index that is too high; there is one capset, or none.
 */
HOSTBLOB_API int hostblob_capset_query(const struct hostblob_device *device, uint32_t index,
				       struct hostblob_capset *capset);

/**
 * hostblob_capset_read() - VIRTIO_GPU_CMD_GET_CAPSET
 *
 * Return: 0, or -EINVAL for an id or a version that is not offered.
 */
HOSTBLOB_API int hostblob_capset_read(const struct hostblob_device *device, uint32_t id, uint32_t version,
				      struct hostblob_cross_domain *data);

/**
 * hostblob_context_submit() - VIRTIO_GPU_CMD_SUBMIT_3D
 * @commands: of a context of HOSTBLOB_CAPSET_CROSS_DOMAIN. They are read once; the
 *	guest must not be able to change them meanwhile.
 * @size: bytes; 0 is fine in any context
 *
 * All is done when it returns: fences of any ring can be signalled. Known commands:
 * INIT, in its three sizes, names the ring, a resource of the VMM's own that is
 * attached to the context. GET_IMAGE_REQUIREMENTS answers there, with how a linear
 * image is laid out and the id to make blobs of it with; the answer to what can't be
 * is an error and zeros. POLL does nothing.
 *
 * On failure the commands before the one that failed were done, none after it.
 *
 * Return: -ESRCH if there is no such context, -EINVAL for commands that are none,
 * -ENOTSUP for channels, other commands, unknown formats and protected memory,
 * -ENOENT if the ring is not attached, -ENOSPC if an image is larger than the guest's
 * limit or there are too many kinds of them, -ENOMEM, or what the VMM's write said.
 */
HOSTBLOB_API int hostblob_context_submit(struct hostblob_device *device, uint32_t context_id,
					 const void *commands, uint64_t size);

/**
 * hostblob_virtio_response() - the VIRTIO_GPU_RESP_* for a result of the above
 *
 * 0 gives RESP_OK_NODATA, which the caller replaces where a command answers with
 * data.
 */
HOSTBLOB_API uint32_t hostblob_virtio_response(int result);

#ifdef __cplusplus
}
#endif

#endif /* HOSTBLOB_H */

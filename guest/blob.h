/* SPDX-License-Identifier: MIT */
/* Host blobs as a guest's user space sees them: linux/virtgpu_drm.h. */
#ifndef BLOB_H
#define BLOB_H

#include <stdint.h>

struct blob {
	int node;
	uint32_t handle;
	uint64_t size;
	uint8_t *data; /* all of it, readable and writable */
};

/*
 * Open @path, or with NULL the first node of the virtio_gpu driver, whose path
 * goes to @found. Returns a file descriptor, or a negative errno after a message
 * on stderr.
 */
int blob_open_node(const char *path, char *found, unsigned int found_size);

/* The value of a VIRTGPU_PARAM_*, or 0 if the kernel does not know it. */
int blob_parameter(int node, uint64_t parameter);

/*
 * Ask the device for a host blob of @size bytes, a multiple of the page size, and
 * map it. Returns 0, or a negative errno after a message on stderr.
 */
int blob_create(int node, uint64_t size, struct blob *blob);

/*
 * The same for a blob of any kind. @hint: what to say if the kernel refuses it, or NULL.
 */
struct drm_virtgpu_resource_create_blob;
int blob_request(int node, struct drm_virtgpu_resource_create_blob *create, const char *hint, struct blob *blob);

void blob_destroy(struct blob *blob);

/*
 * The PCI BAR with the host-visible window: its bytes, or 0, and the sysfs file
 * that maps it.
 */
uint64_t blob_window(int node, char *path, unsigned int path_size);

#endif

// SPDX-License-Identifier: MIT
/*
 * Chooses the allocator for a DRM node by its driver. A driver is listed only if
 * it is known of what memory type its buffers are; those of others differ from card
 * to card.
 */
#include "allocator.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xf86drm.h>

static const struct hostblob_allocator_ops *const kinds[] = {
	&hostblob_allocator_memfd_ops,
	&hostblob_allocator_dumb_ops,
	&hostblob_allocator_radeon_ops,
	&hostblob_allocator_amdgpu_ops,
};

static const struct {
	const char *driver;
	const struct hostblob_allocator_ops *ops;
} drivers[] = {
	{ "qxl", &hostblob_allocator_dumb_ops },
	{ "bochs-drm", &hostblob_allocator_dumb_ops },
	{ "radeon", &hostblob_allocator_radeon_ops },
	{ "amdgpu", &hostblob_allocator_amdgpu_ops },
};

int hostblob_allocator_export(int node, uint32_t handle)
{
	int fd;

	return drmPrimeHandleToFD(node, handle, DRM_CLOEXEC | DRM_RDWR, &fd) ? -errno : fd;
}

void hostblob_allocator_free(struct hostblob_allocator *allocator)
{
	free(allocator);
}

static const struct hostblob_allocator_ops *find_kind(const char *name)
{
	for (unsigned int i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		if (!strcmp(kinds[i]->name, name))
			return kinds[i];
	}
	return NULL;
}

/* The allocator for a node's driver, which must be @wanted if that is not NULL. */
static int choose(int node_fd, const struct hostblob_allocator_ops *wanted,
		  const struct hostblob_allocator_ops **ops, char *error, unsigned int error_size)
{
	drmVersionPtr version = drmGetVersion(node_fd);
	int result = -ENODEV;

	if (!version) {
		snprintf(error, error_size, "this is no DRM node; name one in /dev/dri, e.g. /dev/dri/renderD128");
		return -EINVAL;
	}
	*ops = NULL;
	for (unsigned int i = 0; i < sizeof(drivers) / sizeof(drivers[0]); i++) {
		if (!strcmp(version->name, drivers[i].driver))
			*ops = drivers[i].ops;
	}
	if (!*ops)
		snprintf(error, error_size,
			 "no allocator knows the driver %s (known: amdgpu, radeon, qxl, bochs-drm), whose buffers "
			 "may be video memory or write-combined; name a node of another driver, or none",
			 version->name);
	else if (wanted && wanted != *ops)
		snprintf(error, error_size, "the allocator %s cannot use the driver %s; use %s, or leave it out",
			 wanted->name, version->name, (*ops)->name);
	else
		result = 0;
	drmFreeVersion(version);
	return result;
}

int hostblob_allocator_open(const char *name, int node_fd, struct hostblob_allocator **allocator,
			    char *error, unsigned int error_size)
{
	const struct hostblob_allocator_ops *ops = name ? find_kind(name) : NULL;
	struct node_allocator *result;

	if (name && !ops) {
		snprintf(error, error_size, "there is no allocator %s; there are memfd, dumb, radeon and amdgpu", name);
		return -ENOENT;
	}
	if (node_fd < 0 && ops && ops != &hostblob_allocator_memfd_ops) {
		snprintf(error, error_size, "the allocator %s needs a DRM node", name);
		return -EINVAL;
	}
	if (node_fd >= 0 && ops == &hostblob_allocator_memfd_ops) {
		snprintf(error, error_size, "the allocator memfd uses no DRM node; leave one of them out");
		return -EINVAL;
	}
	if (node_fd >= 0) {
		int status = choose(node_fd, ops, &ops, error, error_size);

		if (status)
			return status;
	} else {
		ops = &hostblob_allocator_memfd_ops;
	}

	result = malloc(sizeof(*result));
	if (!result) {
		snprintf(error, error_size, "out of memory");
		return -ENOMEM;
	}
	*result = (struct node_allocator){ .base.ops = ops, .node = node_fd };
	*allocator = &result->base;
	return 0;
}

void hostblob_allocator_close(struct hostblob_allocator *allocator)
{
	if (allocator)
		allocator->ops->destroy(allocator);
}

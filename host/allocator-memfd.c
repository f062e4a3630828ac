// SPDX-License-Identifier: MIT
/*
 * Plain shared memory, for machines and tests without a GPU. Sealed, so that
 * whoever else gets the file cannot shorten it under the guest.
 */
#include "allocator.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

static int allocate(struct hostblob_allocator *allocator, const struct hostblob_request *request,
		    struct hostblob_buffer *buffer, char *message, unsigned int message_size)
{
	uint64_t size = request->size;
	int fd, error;

	(void)allocator, (void)message, (void)message_size;
	if (size > INT64_MAX)
		return -ENOMEM;
	fd = memfd_create("hostblob", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)size) || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)) {
		error = errno;
		close(fd);
		return -error;
	}
	*buffer = (struct hostblob_buffer){ .fd = fd, .size = size, .caching = HOSTBLOB_CACHED };
	return 0;
}

const struct hostblob_allocator_ops hostblob_allocator_memfd_ops = {
	.struct_size = sizeof(struct hostblob_allocator_ops),
	.name = "memfd",
	.allocate = allocate,
	.destroy = hostblob_allocator_free,
};

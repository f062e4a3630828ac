// SPDX-License-Identifier: MIT
/*
 * Preloaded into QEMU and a renderer: the files behind blobs are not sealed, so that a test
 * can take away the memory behind one, as a driver may do whose GPU is gone. The guest's own
 * memory stays sealed, as udmabuf asks for that.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef int function(int fd, int command, ...);

static int is_blob(int fd)
{
	char path[32], target[64];
	ssize_t length;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	length = readlink(path, target, sizeof(target) - 1);
	if (length < 0)
		return 0;
	target[length] = '\0';
	return !strcmp(target, "/memfd:hostblob (deleted)") || !strncmp(target, "/memfd:vkr-shmem", 16);
}

static int unsealed(int fd, int command, va_list arguments)
{
	function *next;
	intptr_t argument = va_arg(arguments, intptr_t);

	if (command == F_ADD_SEALS && is_blob(fd))
		return 0;
	*(void **)&next = dlsym(RTLD_NEXT, "fcntl64");
	return next(fd, command, argument);
}

int fcntl64(int fd, int command, ...)
{
	va_list arguments;
	int result;

	va_start(arguments, command);
	result = unsealed(fd, command, arguments);
	va_end(arguments);
	return result;
}

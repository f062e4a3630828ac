// SPDX-License-Identifier: MIT
/*
 * Preloaded into a renderer: its files are not sealed, so that a test can take away the
 * memory behind a mapped blob, as a driver may do whose GPU is gone.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>

typedef int function(int fd, int command, ...);

static int unsealed(int fd, int command, va_list arguments)
{
	function *next;
	intptr_t argument = va_arg(arguments, intptr_t);

	if (command == F_ADD_SEALS)
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

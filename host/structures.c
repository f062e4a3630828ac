// SPDX-License-Identifier: MIT
/*
 * What makes the library one that VMMs of other versions can use: its own version, and
 * structures that have more or fewer members there.
 */
#include "structures.h"

#include "hostblob.h"

#include <errno.h>
#include <string.h>

/* A larger one is no structure, but memory that nobody has set. */
#define SIZE_LIMIT 4096

uint32_t hostblob_version(void)
{
	return HOSTBLOB_VERSION;
}

int hostblob_structure_read(void *to, size_t size, const void *from, unsigned char missing)
{
	const unsigned char *bytes = from;
	size_t given;

	memcpy(&given, from, sizeof(given));
	if (given < sizeof(given) || given > SIZE_LIMIT)
		return -EINVAL;
	for (size_t i = size; i < given; i++) {
		if (bytes[i] != missing)
			return -E2BIG;
	}
	memset(to, missing, size);
	memcpy(to, from, given < size ? given : size);
	memcpy(to, &size, sizeof(size));
	return 0;
}

void hostblob_structure_write(void *to, size_t size, const void *from, size_t known)
{
	memset(to, 0, size);
	memcpy(to, from, known < size ? known : size);
}

void hostblob_limits_init(struct hostblob_limits *limits, size_t size)
{
	/* Of any version: a limit is an unsigned number, and its default the highest. */
	memset(limits, 0xff, size);
	limits->struct_size = size;
}

/* SPDX-License-Identifier: MIT */
/* What all of these programs share. */
#ifndef TEST_H
#define TEST_H

#include <stdio.h>

#define PAGE_BYTES 4096ul

/* What a program ends with that cannot run here. */
#define SKIPPED 77

/* return skip("why"); */
static inline int skip(const char *why)
{
	printf("skipped: %s\n", why);
	return SKIPPED;
}

#endif

/* SPDX-License-Identifier: MIT */
/* What the targets share: checks that end a run, and values taken from the input. */
#ifndef FUZZ_H
#define FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define CHECK(condition) \
	do { \
		if (!(condition)) { \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
			abort(); \
		} \
	} while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The errors that one call may answer with; none: it must succeed. */
struct allowed {
	int errors[8];
	unsigned int count;
};

static inline void allow_if(struct allowed *allowed, int condition, int error)
{
	if (condition)
		allowed->errors[allowed->count++] = error;
}

static inline void check_result(int result, const struct allowed *allowed)
{
	unsigned int i = 0;

	if (!allowed->count && !result)
		return;
	while (i < allowed->count && allowed->errors[i] != -result)
		i++;
	if (i == allowed->count)
		fprintf(stderr, "the result is %d\n", result);
	CHECK(i < allowed->count);
}

struct input {
	const uint8_t *next;
	size_t left;
};

static inline uint8_t take(struct input *input)
{
	if (!input->left)
		return 0;
	input->left--;
	return *input->next++;
}

#endif

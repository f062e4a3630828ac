/* SPDX-License-Identifier: MIT */
/* What device.c uses of cross-domain.c: the state of one context of that capset. */
#ifndef CROSS_DOMAIN_H
#define CROSS_DOMAIN_H

#include "hostblob.h"

#include <stdint.h>

struct cross_domain;

/* What images are for: BO_USE_* of ChromeOS's minigbm, those that matter here. */
#define CROSS_DOMAIN_USE_SCANOUT (1u << 0)
#define CROSS_DOMAIN_USE_PROTECTED (1u << 8) /* not even the CPU can read it */
#define CROSS_DOMAIN_USE_CPU_READ (1u << 9)  /* SW_READ_OFTEN */

/**
 * struct cross_domain_host - what the commands of one call need of the device
 * @max_bytes: of one image
 * @max_items: kinds of images that a context may ask for
 * @check_ring: 0 if the context may have the device write to the resource
 * @write: write to the start of a resource that @check_ring allows
 * @caching: what a blob for these uses will be, as far as is known before it is made
 */
struct cross_domain_host {
	uint64_t page_size;
	uint64_t max_bytes;
	uint32_t max_items;
	int (*check_ring)(void *opaque, uint32_t resource_id);
	int (*write)(void *opaque, uint32_t resource_id, const void *data, uint64_t size);
	enum hostblob_caching (*caching)(void *opaque, uint32_t uses);
	void *opaque;
};

struct cross_domain *hostblob_cross_domain_create(void);
void hostblob_cross_domain_destroy(struct cross_domain *state);

/* See hostblob_context_submit(). */
int hostblob_cross_domain_submit(struct cross_domain *state, const struct cross_domain_host *host,
			const void *commands, uint64_t size);

/* The size of the images that a blob id stands for, or 0 if there is no such id. */
uint64_t hostblob_cross_domain_item_size(const struct cross_domain *state, uint64_t blob_id);

/*
 * What they are for. Of memory that is no image, in a context of no capset (NULL), nothing
 * is known but that CPUs may read it.
 */
uint32_t hostblob_cross_domain_uses(const struct cross_domain *state, uint64_t blob_id);

#endif

/* SPDX-License-Identifier: MIT */
/* What device.c uses of cross-domain.c: the state of one context of that capset. */
#ifndef CROSS_DOMAIN_H
#define CROSS_DOMAIN_H

#include <stdint.h>

struct cross_domain;

/**
 * struct cross_domain_host - what the commands of one call need of the device
 * @max_bytes: of one image
 * @max_items: kinds of images that a context may ask for
 * @check_ring: 0 if the context may have the device write to the resource
 * @write: write to the start of a resource that @check_ring allows
 */
struct cross_domain_host {
	uint64_t page_size;
	uint64_t max_bytes;
	uint32_t max_items;
	int (*check_ring)(void *opaque, uint32_t resource_id);
	int (*write)(void *opaque, uint32_t resource_id, const void *data, uint64_t size);
	void *opaque;
};

struct cross_domain *hostblob_cross_domain_create(void);
void hostblob_cross_domain_destroy(struct cross_domain *state);

/* See hostblob_context_submit(). */
int hostblob_cross_domain_submit(struct cross_domain *state, const struct cross_domain_host *host,
			const void *commands, uint64_t size);

/* The size of the images that a blob id stands for, or 0 if there is no such id. */
uint64_t hostblob_cross_domain_item_size(const struct cross_domain *state, uint64_t blob_id);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * What a mapping is made of, found without KVM: the page frame numbers as the
 * driver inserts them, and the struct pages behind them.
 */
#ifndef PAGES_H
#define PAGES_H

#include <stdint.h>

/*
 * Read one byte of each of the @count pages at @address, which nobody touched
 * before, and say which page frames the kernel put there. Needs root, tracefs
 * and a kprobe on vmf_insert_pfn_prot(), which every TTM driver calls. Returns
 * 0, or a negative errno and the reason in @why.
 */
int pages_fault_in(const volatile void *address, uint64_t count, uint64_t *pfns, const char **why);

/*
 * The reference count of each page frame, from struct page by way of
 * /proc/kcore. Returns 0, or a negative errno and the reason in @why.
 */
int pages_references(const uint64_t *pfns, uint64_t count, int32_t *references, const char **why);

/* What this thread did to the reference counts of a range of page frames. */
struct reference_events {
	uint64_t gets, puts, others;
};

/*
 * Trace every change of the reference counts of the page frames @first to @last
 * by this thread, until pages_stop_tracing_references() counts the changes.
 * Needs a kernel with CONFIG_DEBUG_PAGE_REF. Returns 0, or a negative errno and
 * the reason in @why.
 */
int pages_trace_references(uint64_t first, uint64_t last, const char **why);
void pages_stop_tracing_references(struct reference_events *events);

#endif

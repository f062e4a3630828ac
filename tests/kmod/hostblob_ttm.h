/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * What the TTM test driver can be told to do, on top of amdgpu's own requests.
 */
#ifndef HOSTBLOB_TTM_H
#define HOSTBLOB_TTM_H

#include <linux/types.h>
#include <drm/drm.h>

enum hostblob_ttm_request {
	/* The next @count faults on the buffer insert nothing: VM_FAULT_NOPAGE. */
	HOSTBLOB_TTM_FAULT_NOPAGE,
	/* So do these, which drop mmap_lock first as if they waited: VM_FAULT_RETRY. */
	HOSTBLOB_TTM_FAULT_WAIT,
	/* The next @count faults on the buffer fail: VM_FAULT_SIGBUS. */
	HOSTBLOB_TTM_FAULT_SIGBUS,
	/* The next @count faults insert PTEs that are read-only, till a write meets one. */
	HOSTBLOB_TTM_FAULT_READ_ONLY,
	/*
	 * The next @count faults insert PTEs and remove them at once, as an eviction
	 * does that wins the race against whoever asked for the fault.
	 */
	HOSTBLOB_TTM_FAULT_ZAP,
	/* Move the buffer to the other placement, which removes all PTEs. */
	HOSTBLOB_TTM_MOVE,
	/* Swap a buffer out, the least recently used; @count: its pages, or 0. */
	HOSTBLOB_TTM_SWAP_OUT,
	/*
	 * Evict all buffers from GTT, as for lack of space in it; @count: 1, or 0 if
	 * the buffer was not there and is now.
	 */
	HOSTBLOB_TTM_EVICT,
	/* @count: how often the buffer has got its pages since this was asked before. */
	HOSTBLOB_TTM_POPULATED,
	/* Evict the buffer to nowhere, as amdgpu does with those that are discardable. */
	HOSTBLOB_TTM_GUT,
	/*
	 * Buffers that this file creates from now on have pages of the kind
	 * @count, enum hostblob_ttm_pages, in blocks of the order @value at most;
	 * @handle is 0.
	 */
	HOSTBLOB_TTM_PAGES,
	/* The same for caching: @count is enum hostblob_ttm_caching. */
	HOSTBLOB_TTM_CACHING,
	/*
	 * @count: how many faults on the buffer have mapped something since this was
	 * asked before; @value: how many of them a huge page.
	 */
	HOSTBLOB_TTM_FAULTS,
	/* The same for how they are mapped: @count is enum hostblob_ttm_operations. */
	HOSTBLOB_TTM_OPERATIONS,
	/*
	 * The next @count faults on the buffer find that the device is gone, and map
	 * a dummy page.
	 */
	HOSTBLOB_TTM_FAULT_GONE,
	/*
	 * @count: how often TTM has looked up a page of the buffer's that is a GPU's
	 * memory since this was asked before.
	 */
	HOSTBLOB_TTM_LOOKUPS,
	/*
	 * Throw the buffer's pages away, as HOSTBLOB_TTM_GUT does, whenever the caller's
	 * process is in the midst of the call @count, enum hostblob_ttm_calls. Out: @count, how
	 * often that happened since this was asked before. -EOPNOTSUPP where the kernel is not
	 * built as Debian's.
	 */
	HOSTBLOB_TTM_INTERRUPT,
	/* Keep the buffer reserved until somebody waits for it, as a fault does. */
	HOSTBLOB_TTM_CONTEND,
};

enum hostblob_ttm_pages {
	HOSTBLOB_TTM_POOL, /* of TTM's pool, which takes no order */
	HOSTBLOB_TTM_BLOCKS,
	HOSTBLOB_TTM_COMPOUND,
	HOSTBLOB_TTM_RESERVED,
	HOSTBLOB_TTM_SHUFFLED, /* two pages in the midst of each block have changed places */
	HOSTBLOB_TTM_IOMEM, /* as if it were a GPU's memory, with the last block shuffled */
	HOSTBLOB_TTM_IOMEM_CONTIGUOUS, /* the same, as one block that is known to be one */
};

enum hostblob_ttm_caching {
	HOSTBLOB_TTM_CACHED,
	HOSTBLOB_TTM_WRITE_COMBINED,
	HOSTBLOB_TTM_UNCACHED,
};

enum hostblob_ttm_operations {
	HOSTBLOB_TTM_USUAL,
	HOSTBLOB_TTM_TRACKING, /* the driver wants to be told of writes */
	HOSTBLOB_TTM_OWN_OPEN, /* it has an open() of its own */
};

/* Those that copy or move a huge PMD, and where in them pages can be lost. */
enum hostblob_ttm_calls {
	HOSTBLOB_TTM_IN_NONE,
	HOSTBLOB_TTM_IN_FORK, /* between the read of the PMD and the lock that guards it */
	HOSTBLOB_TTM_IN_MREMAP, /* while the PMD is in neither place */
};

/**
 * struct hostblob_ttm_test - a request about one buffer
 * @handle: its GEM handle
 * @request: enum hostblob_ttm_request
 * @count: in: for the faults; out: how many of an earlier request are left
 * @value: see the request; else 0, in and out
 */
struct hostblob_ttm_test {
	__u32 handle;
	__u32 request;
	__u32 count;
	__u32 value;
};

#define DRM_HOSTBLOB_TTM_TEST 0x5f
#define DRM_IOCTL_HOSTBLOB_TTM_TEST \
	DRM_IOWR(DRM_COMMAND_BASE + DRM_HOSTBLOB_TTM_TEST, struct hostblob_ttm_test)

#endif

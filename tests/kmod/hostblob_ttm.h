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
};

/**
 * struct hostblob_ttm_test - a request about one buffer
 * @handle: its GEM handle
 * @request: enum hostblob_ttm_request
 * @count: in: for the faults; out: how many of an earlier request are left
 */
struct hostblob_ttm_test {
	__u32 handle;
	__u32 request;
	__u32 count;
	__u32 pad;
};

#define DRM_HOSTBLOB_TTM_TEST 0x5f
#define DRM_IOCTL_HOSTBLOB_TTM_TEST \
	DRM_IOWR(DRM_COMMAND_BASE + DRM_HOSTBLOB_TTM_TEST, struct hostblob_ttm_test)

#endif

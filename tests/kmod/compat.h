/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What TTM and DRM call by other names on some of the kernels that the test
 * driver is built for.
 */
#ifndef COMPAT_H
#define COMPAT_H

#include <linux/version.h>

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 3, 0)
#include <drm/ttm/ttm_bo_api.h>
#include <drm/ttm/ttm_bo_driver.h>
#else
#include <drm/ttm/ttm_bo.h>
#endif
#include <drm/ttm/ttm_device.h>
#include <drm/ttm/ttm_placement.h>

/* Else the driver's buffers could not be exported, or not be mapped then. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 6, 0)
#include <drm/drm_prime.h>
#define PRIME_FUNCTIONS \
	.prime_handle_to_fd = drm_gem_prime_handle_to_fd, \
	.gem_prime_mmap = drm_gem_prime_mmap,
#else
#define PRIME_FUNCTIONS
#endif

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 14, 0)
#define DRIVER_DATE .date = "20261121",
#else
#define DRIVER_DATE
#endif

#if LINUX_VERSION_CODE < KERNEL_VERSION(7, 0, 0)
#define ttm_bo_fini ttm_bo_put
#define ttm_bo_populate(bo, ctx) ttm_tt_populate((bo)->bdev, (bo)->ttm, ctx)
#define POOL_FLAGS false, false
#define is_waited_for(mutex) (!list_empty_careful(&(mutex)->wait_list))
#else
#define POOL_FLAGS 0
#define is_waited_for(mutex) data_race((mutex)->first_waiter)
#endif

#endif

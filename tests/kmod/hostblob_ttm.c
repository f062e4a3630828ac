// SPDX-License-Identifier: GPL-2.0
/*
 * A DRM driver for tests, with no hardware: its buffers come from TTM's own page
 * pool, and it answers the requests of amdgpu's that an allocator needs. See
 * README.md.
 */
#include <linux/gfp.h>
#include <linux/kallsyms.h>
#include <linux/kprobes.h>
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/platform_device.h>
#include <linux/uaccess.h>

#include <asm/text-patching.h>

#include <drm/amdgpu_drm.h>
#include <drm/drm_drv.h>
#include <drm/drm_file.h>
#include <drm/drm_gem.h>
#include <drm/drm_gem_ttm_helper.h>
#include <drm/drm_ioctl.h>
#include <drm/drm_managed.h>
#include <drm/ttm/ttm_pool.h>
#include <drm/ttm/ttm_range_manager.h>
#include <drm/ttm/ttm_tt.h>

#include "compat.h"
#include "hostblob_ttm.h"

/* Of the GTT placement; a test that wants eviction makes it smaller. */
static unsigned int gtt_mib = 1024;
module_param(gtt_mib, uint, 0444);
MODULE_PARM_DESC(gtt_mib, "size of the GTT placement in MiB (default 1024)");

struct test_device {
	struct drm_device drm;
	struct ttm_device bdev;
};

/* How a buffer gets its pages; a file's are those of its next buffers. */
struct test_source {
	enum hostblob_ttm_pages pages;
	unsigned int order;
	enum ttm_caching caching;
	enum hostblob_ttm_operations operations;
};

struct test_tt {
	struct ttm_tt tt;
	struct test_source source;
	atomic_t *populated; /* the buffer's */
};

struct test_bo {
	struct ttm_buffer_object bo;
	struct test_source source;
	atomic_t populated; /* how often */
	atomic_t nopage, wait, sigbus, read_only, zap, gone; /* faults left that end so */
	atomic_t faults, huge_faults; /* that mapped something */
	atomic_t lookups; /* of pages that are a GPU's memory */
};

static struct platform_device *platform;

/* For programs that have no handle of the buffer. */
static bool fail;

static int set_fail(const char *value, const struct kernel_param *parameter)
{
	struct test_device *test = platform ? platform_get_drvdata(platform) : NULL;
	int result = param_set_bool(value, parameter);

	if (!result && test)
		unmap_mapping_range(test->drm.anon_inode->i_mapping, 0, 0, 1);
	return result;
}

static const struct kernel_param_ops fail_ops = { .set = set_fail, .get = param_get_bool };
module_param_cb(fail, &fail_ops, &fail, 0644);
MODULE_PARM_DESC(fail, "all faults fail; to write it removes all PTEs");

/* As when there is no memory to bring a buffer back from swap; -1 for ever. */
static atomic_t fail_swap_in = ATOMIC_INIT(0);
module_param_named(fail_swap_in, fail_swap_in.counter, int, 0644);
MODULE_PARM_DESC(fail_swap_in, "swap-ins from now on that fail for want of memory; -1: all");

static atomic_t failed_swap_ins = ATOMIC_INIT(0);
module_param_named(failed_swap_ins, failed_swap_ins.counter, int, 0644);
MODULE_PARM_DESC(failed_swap_ins, "swap-ins that have failed so");

static int set_swap_out(const char *value, const struct kernel_param *parameter)
{
	struct test_device *test = platform ? platform_get_drvdata(platform) : NULL;
	struct ttm_operation_ctx ctx = { };
	int result;

	if (!test)
		return -ENODEV;
	do {
		result = ttm_device_swapout(&test->bdev, &ctx, GFP_KERNEL);
	} while (result > 0);
	return result;
}

static const struct kernel_param_ops swap_out_ops = { .set = set_swap_out };
module_param_cb(swap_out, &swap_out_ops, NULL, 0200);
MODULE_PARM_DESC(swap_out, "write to it to have all buffers swapped out");

static struct test_device *to_test_device(struct drm_device *drm)
{
	return container_of(drm, struct test_device, drm);
}

static struct test_bo *to_test_bo(struct drm_gem_object *gem)
{
	return container_of(gem, struct test_bo, bo.base);
}

static const struct ttm_place places[] = {
	{ .mem_type = TTM_PL_SYSTEM },
	{ .mem_type = TTM_PL_TT },
};

static const struct ttm_placement nowhere;
static const struct ttm_placement in_system = { .placement = &places[0], .num_placement = 1 };
static const struct ttm_placement in_gtt = { .placement = &places[1], .num_placement = 1 };

/* --- TTM --------------------------------------------------------------------- */

static struct ttm_tt *test_tt_create(struct ttm_buffer_object *bo, u32 page_flags)
{
	struct test_bo *test = container_of(bo, struct test_bo, bo);
	struct test_tt *tt = kzalloc(sizeof(*tt), GFP_KERNEL);

	if (!tt)
		return NULL;
	tt->source = test->source;
	tt->populated = &test->populated;
	if (ttm_tt_init(&tt->tt, bo, page_flags, test->source.caching, 0)) {
		kfree(tt);
		return NULL;
	}
	return &tt->tt;
}

static void test_tt_destroy(struct ttm_device *bdev, struct ttm_tt *tt)
{
	ttm_tt_fini(tt);
	kfree(container_of(tt, struct test_tt, tt));
}

static unsigned int order_at(const struct test_tt *test, u32 index)
{
	return min_t(unsigned int, test->source.order, ilog2(test->tt.num_pages - index));
}

static void test_tt_unpopulate(struct ttm_device *bdev, struct ttm_tt *tt)
{
	struct test_tt *test = container_of(tt, struct test_tt, tt);
	u32 index, page;

	if (test->source.pages == HOSTBLOB_TTM_POOL) {
		ttm_pool_free(&bdev->pool, tt);
		return;
	}
	for (index = 0; index < tt->num_pages && tt->pages[index]; index += 1 << order_at(test, index)) {
		unsigned int order = order_at(test, index);

		for (page = index; page < index + (1 << order); page++)
			if (test->source.pages == HOSTBLOB_TTM_RESERVED)
				ClearPageReserved(tt->pages[page]);
		__free_pages(tt->pages[index], order);
	}
	memset(tt->pages, 0, tt->num_pages * sizeof(*tt->pages));
}

static int test_tt_populate(struct ttm_device *bdev, struct ttm_tt *tt, struct ttm_operation_ctx *ctx)
{
	struct test_tt *test = container_of(tt, struct test_tt, tt);
	gfp_t flags = GFP_HIGHUSER | __GFP_ZERO | (test->source.pages == HOSTBLOB_TTM_COMPOUND ? __GFP_COMP : 0);
	u32 index, page;

	if ((tt->page_flags & TTM_TT_FLAG_SWAPPED) &&
	    (atomic_read(&fail_swap_in) < 0 || atomic_dec_if_positive(&fail_swap_in) >= 0)) {
		atomic_inc(&failed_swap_ins);
		return -ENOMEM;
	}
	atomic_inc(test->populated);
	if (test->source.pages == HOSTBLOB_TTM_POOL)
		return ttm_pool_alloc(&bdev->pool, tt, ctx);
	for (index = 0; index < tt->num_pages; index += 1 << order_at(test, index)) {
		unsigned int order = order_at(test, index);
		struct page *block = alloc_pages(flags, order);

		if (!block) {
			test_tt_unpopulate(bdev, tt);
			return -ENOMEM;
		}
		for (page = 0; page < 1 << order; page++) {
			tt->pages[index + page] = block + page;
			if (test->source.pages == HOSTBLOB_TTM_RESERVED)
				SetPageReserved(block + page);
		}
		/* Of iomem only the last, so that both kinds are seen. */
		if (order >= 2 && (test->source.pages == HOSTBLOB_TTM_SHUFFLED ||
				   (test->source.pages == HOSTBLOB_TTM_IOMEM && index + (1 << order) == tt->num_pages)))
			swap(tt->pages[index + (1 << order) / 4 + 1], tt->pages[index + (1 << order) / 2 + 1]);
	}
	return 0;
}

static bool is_iomem(const struct test_bo *test)
{
	return test->source.pages == HOSTBLOB_TTM_IOMEM || test->source.pages == HOSTBLOB_TTM_IOMEM_CONTIGUOUS;
}

static int test_io_mem_reserve(struct ttm_device *bdev, struct ttm_resource *mem)
{
	struct test_bo *test = container_of(mem->bo, struct test_bo, bo);

	mem->bus.is_iomem = is_iomem(test);
	mem->bus.caching = test->source.caching;
	return 0;
}

static unsigned long test_io_mem_pfn(struct ttm_buffer_object *bo, unsigned long page_offset)
{
	atomic_inc(&container_of(bo, struct test_bo, bo)->lookups);
	return page_to_pfn(bo->ttm->pages[page_offset]);
}

static void test_evict_flags(struct ttm_buffer_object *bo, struct ttm_placement *placement)
{
	*placement = in_system;
}

/* Both placements are the same pages. */
static int test_move(struct ttm_buffer_object *bo, bool evict, struct ttm_operation_ctx *ctx,
		     struct ttm_resource *new_mem, struct ttm_place *hop)
{
	ttm_bo_move_null(bo, new_mem);
	return 0;
}

static struct ttm_device_funcs test_funcs = {
	.ttm_tt_create = test_tt_create,
	.ttm_tt_populate = test_tt_populate,
	.ttm_tt_unpopulate = test_tt_unpopulate,
	.ttm_tt_destroy = test_tt_destroy,
	.eviction_valuable = ttm_bo_eviction_valuable,
	.evict_flags = test_evict_flags,
	.move = test_move,
	.io_mem_reserve = test_io_mem_reserve,
	.io_mem_pfn = test_io_mem_pfn,
};

/* --- buffers ------------------------------------------------------------------ */

/*
 * A buffer that was gutted is nowhere until somebody needs it, as amdgpu's are. A
 * GPU's memory is always there.
 */
static vm_fault_t bring_back(struct ttm_buffer_object *bo)
{
	struct ttm_operation_ctx ctx = { .interruptible = true };
	struct ttm_placement placement = in_gtt;
	int result = bo->resource ? 0 : ttm_bo_validate(bo, &placement, &ctx);

	if (!result && is_iomem(container_of(bo, struct test_bo, bo)))
		result = ttm_bo_populate(bo, &ctx);
	if (!result)
		return 0;
	return result == -ERESTARTSYS ? VM_FAULT_NOPAGE : VM_FAULT_SIGBUS;
}

static vm_fault_t test_fault(struct vm_fault *vmf)
{
	struct ttm_buffer_object *bo = vmf->vma->vm_private_data;
	struct test_bo *test = container_of(bo, struct test_bo, bo);
	pgprot_t protection = vmf->vma->vm_page_prot;
	vm_fault_t result;

	if (atomic_dec_if_positive(&test->nopage) >= 0)
		return VM_FAULT_NOPAGE;
	if (atomic_dec_if_positive(&test->wait) >= 0) {
		if (!fault_flag_allow_retry_first(vmf->flags))
			return VM_FAULT_NOPAGE;
		if (!(vmf->flags & FAULT_FLAG_RETRY_NOWAIT))
			mmap_read_unlock(vmf->vma->vm_mm);
		return VM_FAULT_RETRY;
	}
	if (READ_ONCE(fail) || atomic_dec_if_positive(&test->sigbus) >= 0)
		return VM_FAULT_SIGBUS;
	if (atomic_dec_if_positive(&test->read_only) >= 0)
		protection = vm_get_page_prot(vmf->vma->vm_flags & ~VM_WRITE);
	result = ttm_bo_vm_reserve(bo, vmf);
	if (result)
		return result;
	result = bring_back(bo);
	if (!result && atomic_dec_if_positive(&test->gone) >= 0)
		result = ttm_bo_vm_dummy_page(vmf, protection);
	else if (!result)
		result = ttm_bo_vm_fault_reserved(vmf, protection, TTM_BO_VM_NUM_PREFAULT);
	if (result == VM_FAULT_RETRY && !(vmf->flags & FAULT_FLAG_RETRY_NOWAIT))
		return result;
	if (result == VM_FAULT_NOPAGE) {
		atomic_inc(&test->faults);
		if (pmd_trans_huge(READ_ONCE(*vmf->pmd)))
			atomic_inc(&test->huge_faults);
		if (atomic_dec_if_positive(&test->zap) >= 0)
			ttm_bo_unmap_virtual(bo);
	}
	dma_resv_unlock(bo->base.resv);
	return result;
}

static vm_fault_t test_mkwrite(struct vm_fault *vmf)
{
	return 0;
}

static void test_open_vma(struct vm_area_struct *vma)
{
	ttm_bo_vm_open(vma);
}

static const struct vm_operations_struct test_vm_ops[] = {
	[HOSTBLOB_TTM_USUAL] = {
		.fault = test_fault,
		.open = ttm_bo_vm_open,
		.close = ttm_bo_vm_close,
		.access = ttm_bo_vm_access,
	},
	[HOSTBLOB_TTM_TRACKING] = {
		.fault = test_fault,
		.pfn_mkwrite = test_mkwrite,
		.open = ttm_bo_vm_open,
		.close = ttm_bo_vm_close,
		.access = ttm_bo_vm_access,
	},
	[HOSTBLOB_TTM_OWN_OPEN] = {
		.fault = test_fault,
		.open = test_open_vma,
		.close = ttm_bo_vm_close,
		.access = ttm_bo_vm_access,
	},
};

static void test_gem_free(struct drm_gem_object *gem)
{
	ttm_bo_fini(&to_test_bo(gem)->bo);
}

#define TEST_GEM_FUNCS(operations) { \
	.free = test_gem_free, \
	.mmap = drm_gem_ttm_mmap, \
	.vm_ops = &test_vm_ops[operations], \
}
static const struct drm_gem_object_funcs test_gem_funcs[] = {
	[HOSTBLOB_TTM_USUAL] = TEST_GEM_FUNCS(HOSTBLOB_TTM_USUAL),
	[HOSTBLOB_TTM_TRACKING] = TEST_GEM_FUNCS(HOSTBLOB_TTM_TRACKING),
	[HOSTBLOB_TTM_OWN_OPEN] = TEST_GEM_FUNCS(HOSTBLOB_TTM_OWN_OPEN),
};

static void test_bo_destroy(struct ttm_buffer_object *bo)
{
	drm_gem_object_release(&bo->base);
	kfree(container_of(bo, struct test_bo, bo));
}

static int test_gem_create(struct drm_device *drm, void *data, struct drm_file *file)
{
	union drm_amdgpu_gem_create *args = data;
	struct ttm_place place = places[1];
	struct ttm_placement placement = { .placement = &place, .num_placement = 1 };
	struct test_bo *test;
	const struct test_source *source = file->driver_priv;
	u64 size = args->in.bo_size, flags = args->in.domain_flags;
	int result;

	if (!size || !PAGE_ALIGNED(size) || size > (u64)gtt_mib << 20 ||
	    args->in.domains != AMDGPU_GEM_DOMAIN_GTT || flags & ~AMDGPU_GEM_CREATE_CPU_GTT_USWC)
		return -EINVAL;
	test = kzalloc(sizeof(*test), GFP_KERNEL);
	if (!test)
		return -ENOMEM;
	test->source = *source;
	if (flags)
		test->source.caching = ttm_write_combined;
	if (source->pages == HOSTBLOB_TTM_IOMEM_CONTIGUOUS)
		place.flags |= TTM_PL_FLAG_CONTIGUOUS;
	drm_gem_private_object_init(drm, &test->bo.base, size);
	test->bo.base.funcs = &test_gem_funcs[test->source.operations];
	/* On failure this calls test_bo_destroy(). */
	result = ttm_bo_init_validate(&to_test_device(drm)->bdev, &test->bo, ttm_bo_type_device, &placement, 0,
				      true, NULL, NULL, test_bo_destroy);
	if (result)
		return result;
	memset(args, 0, sizeof(*args));
	result = drm_gem_handle_create(file, &test->bo.base, &args->out.handle);
	drm_gem_object_put(&test->bo.base);
	return result;
}

static int test_gem_mmap(struct drm_device *drm, void *data, struct drm_file *file)
{
	union drm_amdgpu_gem_mmap *args = data;
	struct drm_gem_object *gem = drm_gem_object_lookup(file, args->in.handle);

	if (!gem)
		return -ENOENT;
	args->out.addr_ptr = drm_vma_node_offset_addr(&gem->vma_node);
	drm_gem_object_put(gem);
	return 0;
}

/* As amdgpu says what it made of a request; buffers here are as asked for. */
static int test_gem_op(struct drm_device *drm, void *data, struct drm_file *file)
{
	struct drm_amdgpu_gem_op *args = data;
	struct drm_gem_object *gem = drm_gem_object_lookup(file, args->handle);
	struct drm_amdgpu_gem_create_in info = { .alignment = PAGE_SIZE, .domains = AMDGPU_GEM_DOMAIN_GTT };

	if (!gem)
		return -ENOENT;
	info.bo_size = gem->size;
	if (to_test_bo(gem)->source.caching == ttm_write_combined)
		info.domain_flags = AMDGPU_GEM_CREATE_CPU_GTT_USWC;
	drm_gem_object_put(gem);
	if (args->op != AMDGPU_GEM_OP_GET_GEM_CREATE_INFO)
		return -EINVAL;
	return copy_to_user(u64_to_user_ptr(args->value), &info, sizeof(info)) ? -EFAULT : 0;
}

static int move_buffer(struct test_bo *test, bool away, bool no_wait)
{
	struct ttm_operation_ctx ctx = { .interruptible = true };
	struct ttm_placement placement = in_gtt;
	int result = ttm_bo_reserve(&test->bo, true, no_wait, NULL);

	if (result)
		return result;
	if (away)
		placement = nowhere;
	else if (test->bo.resource && test->bo.resource->mem_type == TTM_PL_TT)
		placement = in_system;
	result = ttm_bo_validate(&test->bo, &placement, &ctx);
	ttm_bo_unreserve(&test->bo);
	return result;
}

/* A buffer has to be in GTT to be evicted from it; a GPU's use brings it there. */
static int evict(struct test_device *device, struct test_bo *test, u32 *evicted)
{
	*evicted = test->bo.resource && test->bo.resource->mem_type == TTM_PL_TT;
	return *evicted ? ttm_resource_manager_evict_all(&device->bdev, ttm_manager_type(&device->bdev, TTM_PL_TT)) :
			  move_buffer(test, false, false);
}

/*
 * copy_huge_pmd() of the kernel reads a PMD, and after that takes the locks of the
 * page tables. move_huge_pmd() holds them, and has a PMD in neither place between its
 * removal and set_pmd(). For the process that asks for it, a buffer loses its pages at that
 * point, as memory pressure might do it there: what calls _raw_spin_lock() or set_pmd() in
 * those functions calls one of these instead. It can sleep, as these are calls like any other,
 * of which only the address has changed.
 */
struct diversion {
	const char *caller, *called;
	kprobe_pre_handler_t handler;
	struct kprobe probes[8];
	unsigned int count;
};

static DEFINE_MUTEX(interrupt_mutex);
static pid_t interrupted_process; /* these two are what interrupt_mutex guards */
static struct test_bo *interrupt_loses;
static atomic_t interrupts;

static void lose_pages(bool no_wait)
{
	mutex_lock(&interrupt_mutex);
	if (interrupt_loses && interrupt_loses->bo.resource && !move_buffer(interrupt_loses, true, no_wait))
		atomic_inc(&interrupts);
	mutex_unlock(&interrupt_mutex);
}

static void lock_late(raw_spinlock_t *lock)
{
	/* Not the second of the two locks. */
	if (preemptible() && READ_ONCE(interrupted_process) == current->tgid)
		lose_pages(false);
	_raw_spin_lock(lock);
}

static void set_pmd_late(pmd_t *entry, pmd_t value)
{
	/*
	 * It sleeps with spinlocks held. Whoever unmaps the buffer here at this time may want one of
	 * them, and has the reservation.
	 */
	if (READ_ONCE(interrupted_process) == current->tgid) {
		int count = preempt_count();

		preempt_count_set(0);
		lose_pages(true);
		preempt_count_set(count);
	}
	set_pmd(entry, value);
}

static int call_instead(struct kprobe *probe, struct pt_regs *regs, unsigned long function)
{
	regs->sp -= sizeof(unsigned long);
	*(unsigned long *)regs->sp = (unsigned long)probe->addr + CALL_INSN_SIZE;
	instruction_pointer_set(regs, function);
	return 1;
}

static int call_lock_late(struct kprobe *probe, struct pt_regs *regs)
{
	return call_instead(probe, regs, (unsigned long)lock_late);
}

static int call_set_pmd_late(struct kprobe *probe, struct pt_regs *regs)
{
	return call_instead(probe, regs, (unsigned long)set_pmd_late);
}

/* A probe that has this is not made a jump, which could not change the address. */
static void after_call(struct kprobe *probe, struct pt_regs *regs, unsigned long flags)
{
}

static struct diversion in_fork = { "copy_huge_pmd", "_raw_spin_lock", call_lock_late };
static struct diversion in_mremap = { "move_huge_pmd", "set_pmd", call_set_pmd_late };

static void end_diversion(struct diversion *diversion)
{
	while (diversion->count > 0)
		unregister_kprobe(&diversion->probes[--diversion->count]);
}

/* Whether this calls @function, or what paravirt calls where that is inlined. */
static bool is_call(const u8 *code, const char *function)
{
	char symbol[KSYM_SYMBOL_LEN], *name = symbol;
	s32 distance;

	if (*code != CALL_INSN_OPCODE)
		return false;
	memcpy(&distance, code + 1, sizeof(distance));
	sprint_symbol(symbol, (unsigned long)code + CALL_INSN_SIZE + distance);
	name += str_has_prefix(name, "native_");
	name += str_has_prefix(name, function);
	return str_has_prefix(name, "+0x0/");
}

static int divert_calls(struct diversion *diversion, u8 *code, u8 *end)
{
	for (; code + CALL_INSN_SIZE <= end && diversion->count < ARRAY_SIZE(diversion->probes); code++) {
		struct kprobe *probe = &diversion->probes[diversion->count];
		int result;

		if (!is_call(code, diversion->called))
			continue;
		*probe = (struct kprobe){
			.addr = code,
			.pre_handler = diversion->handler,
			.post_handler = after_call,
		};
		result = register_kprobe(probe);
		if (result) {
			end_diversion(diversion);
			return result;
		}
		diversion->count++;
	}
	return diversion->count ? 0 : -EOPNOTSUPP;
}

static int find_and_divert_calls(struct diversion *diversion)
{
	struct kprobe probe = { .symbol_name = diversion->caller };
	char symbol[KSYM_SYMBOL_LEN], *in_symbol;
	unsigned long offset, size;
	u8 *code;

	if (diversion->count)
		return 0;
	if (register_kprobe(&probe))
		return -EOPNOTSUPP;
	code = (u8 *)probe.addr;
	unregister_kprobe(&probe);
	sprint_symbol(symbol, (unsigned long)code);
	in_symbol = strchr(symbol, '+');
	if (!in_symbol || sscanf(in_symbol, "+%lx/%lx", &offset, &size) != 2)
		return -EOPNOTSUPP;
	return divert_calls(diversion, code, code + size - offset);
}

static int divert(u32 call)
{
	switch (call) {
	case HOSTBLOB_TTM_IN_FORK:
		return find_and_divert_calls(&in_fork);
	case HOSTBLOB_TTM_IN_MREMAP:
		return find_and_divert_calls(&in_mremap);
	default:
		return call ? -EINVAL : 0;
	}
}

static int interrupt(struct test_bo *test, struct hostblob_ttm_test *args)
{
	int result;

	mutex_lock(&interrupt_mutex);
	result = divert(args->count);
	if (interrupt_loses)
		drm_gem_object_put(&interrupt_loses->bo.base);
	interrupt_loses = NULL;
	if (args->count && !result) {
		drm_gem_object_get(&test->bo.base);
		interrupt_loses = test;
	}
	WRITE_ONCE(interrupted_process, interrupt_loses ? current->tgid : 0);
	args->count = atomic_xchg(&interrupts, 0);
	mutex_unlock(&interrupt_mutex);
	return result;
}

/* Whoever waits has to be a fault of the caller's: nobody else knows the buffer. */
static int contend(struct ttm_buffer_object *bo)
{
	int result = ttm_bo_reserve(bo, true, false, NULL);

	if (result)
		return result;
	while (!is_waited_for(&bo->base.resv->lock.base) && !signal_pending(current))
		schedule_timeout_interruptible(1);
	ttm_bo_unreserve(bo);
	return signal_pending(current) ? -EINTR : 0;
}

static int set_source(struct test_source *source, const struct hostblob_ttm_test *args)
{
	static const enum ttm_caching caching[] = {
		[HOSTBLOB_TTM_CACHED] = ttm_cached,
		[HOSTBLOB_TTM_WRITE_COMBINED] = ttm_write_combined,
		[HOSTBLOB_TTM_UNCACHED] = ttm_uncached,
	};

	if (args->request == HOSTBLOB_TTM_OPERATIONS) {
		if (args->count >= ARRAY_SIZE(test_vm_ops) || args->value)
			return -EINVAL;
		source->operations = args->count;
		return 0;
	}
	if (args->request == HOSTBLOB_TTM_CACHING) {
		if (args->count >= ARRAY_SIZE(caching) || args->value)
			return -EINVAL;
		source->caching = caching[args->count];
		return 0;
	}
	if (args->count > HOSTBLOB_TTM_IOMEM_CONTIGUOUS || args->value > 10)
		return -EINVAL;
	source->pages = args->count;
	source->order = args->value;
	return 0;
}

/* How many faults are left that are to go wrong in that way. */
static atomic_t *faults_left(struct test_bo *test, u32 request)
{
	switch (request) {
	case HOSTBLOB_TTM_FAULT_NOPAGE:
		return &test->nopage;
	case HOSTBLOB_TTM_FAULT_WAIT:
		return &test->wait;
	case HOSTBLOB_TTM_FAULT_SIGBUS:
		return &test->sigbus;
	case HOSTBLOB_TTM_FAULT_READ_ONLY:
		return &test->read_only;
	case HOSTBLOB_TTM_FAULT_ZAP:
		return &test->zap;
	case HOSTBLOB_TTM_FAULT_GONE:
		return &test->gone;
	default:
		return NULL;
	}
}

static int swap_out(struct test_device *device, u32 *pages)
{
	struct ttm_operation_ctx ctx = { .interruptible = true };
	int result = ttm_device_swapout(&device->bdev, &ctx, GFP_KERNEL);

	*pages = max(result, 0);
	/* A buffer that somebody uses at the moment stays where it is. */
	return result == -EBUSY ? 0 : min(result, 0);
}

static int ask_buffer(struct test_device *device, struct test_bo *test, struct hostblob_ttm_test *args)
{
	atomic_t *left = faults_left(test, args->request);

	if (left) {
		args->count = atomic_xchg(left, args->count);
		return 0;
	}
	switch (args->request) {
	case HOSTBLOB_TTM_LOOKUPS:
		args->count = atomic_xchg(&test->lookups, 0);
		return 0;
	case HOSTBLOB_TTM_POPULATED:
		args->count = atomic_xchg(&test->populated, 0);
		return 0;
	case HOSTBLOB_TTM_FAULTS:
		args->count = atomic_xchg(&test->faults, 0);
		args->value = atomic_xchg(&test->huge_faults, 0);
		return 0;
	case HOSTBLOB_TTM_INTERRUPT:
		return interrupt(test, args);
	case HOSTBLOB_TTM_CONTEND:
		return contend(&test->bo);
	case HOSTBLOB_TTM_MOVE:
	case HOSTBLOB_TTM_GUT:
		return move_buffer(test, args->request == HOSTBLOB_TTM_GUT, false);
	case HOSTBLOB_TTM_EVICT:
		return evict(device, test, &args->count);
	case HOSTBLOB_TTM_SWAP_OUT:
		return swap_out(device, &args->count);
	default:
		return -EINVAL;
	}
}

static int test_ioctl(struct drm_device *drm, void *data, struct drm_file *file)
{
	struct hostblob_ttm_test *args = data;
	struct drm_gem_object *gem;
	int result;

	switch (args->request) {
	case HOSTBLOB_TTM_PAGES:
	case HOSTBLOB_TTM_CACHING:
	case HOSTBLOB_TTM_OPERATIONS:
		return args->handle ? -EINVAL : set_source(file->driver_priv, args);
	}
	if (args->value || args->count > INT_MAX)
		return -EINVAL;
	gem = drm_gem_object_lookup(file, args->handle);
	if (!gem)
		return -ENOENT;
	result = ask_buffer(to_test_device(drm), to_test_bo(gem), args);
	drm_gem_object_put(gem);
	return result;
}

/* --- the device ---------------------------------------------------------------- */

static const struct drm_ioctl_desc test_ioctls[] = {
	DRM_IOCTL_DEF_DRV(AMDGPU_GEM_CREATE, test_gem_create, DRM_RENDER_ALLOW),
	DRM_IOCTL_DEF_DRV(AMDGPU_GEM_MMAP, test_gem_mmap, DRM_RENDER_ALLOW),
	DRM_IOCTL_DEF_DRV(AMDGPU_GEM_OP, test_gem_op, DRM_RENDER_ALLOW),
	DRM_IOCTL_DEF_DRV(HOSTBLOB_TTM_TEST, test_ioctl, DRM_RENDER_ALLOW),
};

static int test_open(struct drm_device *drm, struct drm_file *file)
{
	struct test_source *source = kzalloc(sizeof(*source), GFP_KERNEL);

	if (!source)
		return -ENOMEM;
	source->caching = ttm_cached;
	file->driver_priv = source;
	return 0;
}

static void test_postclose(struct drm_device *drm, struct drm_file *file)
{
	kfree(file->driver_priv);
}

static const struct file_operations test_fops = {
	.owner = THIS_MODULE,
	DRM_GEM_FOPS,
};

static const struct drm_driver test_driver = {
	.driver_features = DRIVER_GEM | DRIVER_RENDER,
	.open = test_open,
	.postclose = test_postclose,
	.fops = &test_fops,
	.ioctls = test_ioctls,
	.num_ioctls = ARRAY_SIZE(test_ioctls),
	PRIME_FUNCTIONS
	.name = "amdgpu",
	.desc = "hostblob's TTM test driver, with amdgpu's requests and no hardware",
	DRIVER_DATE
	.major = 3,
	.minor = 0,
};

static void test_ttm_fini(struct drm_device *drm, void *data)
{
	struct ttm_device *bdev = data;

	ttm_range_man_fini(bdev, TTM_PL_TT);
	ttm_device_fini(bdev);
}

static int __init test_init(void)
{
	struct test_device *test;
	int result;

	platform = platform_device_register_simple("hostblob_ttm", -1, NULL, 0);
	if (IS_ERR(platform))
		return PTR_ERR(platform);
	if (!devres_open_group(&platform->dev, NULL, GFP_KERNEL)) {
		result = -ENOMEM;
		goto unregister;
	}
	test = devm_drm_dev_alloc(&platform->dev, &test_driver, struct test_device, drm);
	if (IS_ERR(test)) {
		result = PTR_ERR(test);
		goto release;
	}
	result = ttm_device_init(&test->bdev, &test_funcs, test->drm.dev, test->drm.anon_inode->i_mapping,
				 test->drm.vma_offset_manager, POOL_FLAGS);
	if (result)
		goto release;
	result = ttm_range_man_init(&test->bdev, TTM_PL_TT, true, ((u64)gtt_mib << 20) >> PAGE_SHIFT);
	if (result) {
		ttm_device_fini(&test->bdev);
		goto release;
	}
	result = drmm_add_action_or_reset(&test->drm, test_ttm_fini, &test->bdev);
	if (!result)
		result = drm_dev_register(&test->drm, 0);
	if (result)
		goto release;
	platform_set_drvdata(platform, test);
	return 0;
release:
	devres_release_group(&platform->dev, NULL);
unregister:
	platform_device_unregister(platform);
	return result;
}

static void __exit test_exit(void)
{
	struct test_device *test = platform_get_drvdata(platform);

	end_diversion(&in_fork);
	end_diversion(&in_mremap);
	if (interrupt_loses)
		drm_gem_object_put(&interrupt_loses->bo.base);
	drm_dev_unplug(&test->drm);
	devres_release_group(&platform->dev, NULL);
	platform_device_unregister(platform);
}

module_init(test_init);
module_exit(test_exit);
MODULE_DESCRIPTION("TTM test driver of hostblob");
MODULE_LICENSE("GPL");

// SPDX-License-Identifier: MIT
/*
 * Whether TTM maps 2 MiB of a buffer by one fault and one entry where it can, so that
 * KVM does, and by 4 KiB where it must, of which KVM maps as many as TTM; and whether the
 * data is right either way and after all that may happen to a mapping. See --help.
 */
#include "buffer.h"
#include "machine.h"
#include "test.h"

#include <hostblob_ttm.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xf86drm.h>

#define PAGE_WORDS (PAGE_BYTES / 4)
#define HUGE_PAGES (HUGE_BYTES / PAGE_BYTES)
#define SLOT 1
#define MIB 256ul /* pages */

#define HOST_VALUE 0x5eed0000u
#define GUEST_VALUE 0xb10b0000u

static int node;
static char driver[32];
static bool test_driver, huge, stock;

/* A buffer, where the guest sees it, and where nothing ever is huge. */
struct subject {
	struct machine machine;
	struct buffer buffer;
	uint8_t *area;
	volatile uint32_t *words;
	uint64_t pages;
	enum page_result *results;
};

static bool ask(const struct subject *subject, struct hostblob_ttm_test *test)
{
	return test_driver_ask(node, &subject->buffer, test);
}

/* @kind: of the pages, or NULL. Nothing is mapped for the guest yet. */
static bool start(struct subject *subject, const char *kind, uint64_t pages)
{
	static const struct hostblob_ttm_test as_ever[] = {
		{ .request = HOSTBLOB_TTM_PAGES, .count = HOSTBLOB_TTM_POOL },
		{ .request = HOSTBLOB_TTM_CACHING, .count = HOSTBLOB_TTM_CACHED },
		{ .request = HOSTBLOB_TTM_OPERATIONS, .count = HOSTBLOB_TTM_USUAL },
	};
	uint64_t size = pages * PAGE_BYTES;

	*subject = (struct subject){ .pages = pages, .results = calloc(pages, sizeof(*subject->results)) };
	for (unsigned int i = 0; test_driver && i < sizeof(as_ever) / sizeof(as_ever[0]); i++) {
		struct hostblob_ttm_test request = as_ever[i];

		drmIoctl(node, DRM_IOCTL_HOSTBLOB_TTM_TEST, &request);
	}
	if (kind && buffer_choose_kind(node, kind)) {
		fprintf(stderr, "the test driver gives no buffer that is %s\n", kind);
		return false;
	}
	/* Older kernels can't map the dma-bufs of some. */
	enum buffer_path path = test_driver ? BUFFER_DMA_BUF : BUFFER_DRM_FD;
	uint8_t *odd = area_reserve(size + PAGE_BYTES);

	subject->area = area_reserve(size + HUGE_BYTES);
	if (!subject->results || buffer_create(node, driver, path, size, &subject->buffer) || !subject->area || !odd ||
	    !buffer_map_at(&subject->buffer, odd + PAGE_BYTES, 0, size)) {
		fprintf(stderr, "%s gives no buffer of %" PRIu64 " pages\n", driver, pages);
		return false;
	}
	subject->words = (uint32_t *)(odd + PAGE_BYTES);
	for (uint64_t page = 0; page < pages; page++)
		subject->words[page * PAGE_WORDS] = HOST_VALUE + (uint32_t)page;
	if (machine_create(&subject->machine, 1))
		return false;
	struct hostblob_ttm_test faults = { .request = HOSTBLOB_TTM_FAULTS };

	return !test_driver || ask(subject, &faults);
}

static void end(struct subject *subject)
{
	machine_destroy(&subject->machine);
	munmap((void *)subject->words, subject->pages * PAGE_BYTES);
	munmap(subject->area, subject->pages * PAGE_BYTES);
	if (subject->buffer.fd != node)
		close(subject->buffer.fd);
	drmCloseBufferHandle(node, subject->buffer.handle);
	free(subject->results);
}

/* The guest's memory is @count pages at @address, the buffer's from @first on. */
struct view {
	void *address;
	uint64_t first, count;
};

struct figures {
	struct machine_figures kvm;
	uint32_t faults, huge_faults; /* of the test driver */
	uint64_t wrong, failed;
};

static bool look(struct subject *subject, const struct view *view, struct figures *figures)
{
	uint32_t first = (uint32_t)view->first;
	struct hostblob_ttm_test faults = { .request = HOSTBLOB_TTM_FAULTS };
	struct machine_figures before;

	*figures = (struct figures){ 0 };
	if (machine_get_figures(&subject->machine, &before))
		return false;
	for (unsigned int i = 0; i < 2; i++) {
		int error = i ? machine_write_pages(&subject->machine, view->count, GUEST_VALUE + first, subject->results) :
				machine_read_pages(&subject->machine, view->count, HOST_VALUE + first, subject->results);

		if (error)
			return false;
		for (uint64_t page = 0; page < view->count; page++) {
			volatile uint32_t *word = subject->words + (view->first + page) * PAGE_WORDS + 2;
			bool arrived = *word == GUEST_VALUE + first + (uint32_t)page;

			figures->failed += subject->results[page] == PAGE_FAULT;
			figures->wrong += subject->results[page] == PAGE_WRONG_DATA;
			if (i)
				figures->wrong += arrived != (subject->results[page] == PAGE_REACHED);
			*word = 0;
		}
	}
	if (machine_get_figures(&subject->machine, &figures->kvm) || (test_driver && !ask(subject, &faults)))
		return false;
	figures->kvm.faults -= before.faults;
	figures->faults = faults.count;
	figures->huge_faults = faults.value;
	return true;
}

static bool show(struct subject *subject, const struct view *view)
{
	return !machine_set_memory(&subject->machine, SLOT, MACHINE_MEMORY, view->address, view->count * PAGE_BYTES);
}

static bool report(const char *what, const struct figures *figures, bool good)
{
	printf("%-46s KVM: %6" PRIu64 " faults, maps %6" PRIu64 " of 4 KiB, %3" PRIu64 " of 2 MiB; ", what,
	       figures->kvm.faults, figures->kvm.pages_4k, figures->kvm.pages_2m);
	if (test_driver)
		printf("TTM: %5" PRIu32 " faults, %3" PRIu32 " of 2 MiB; ", figures->faults, figures->huge_faults);
	printf("%" PRIu64 " wrong, %" PRIu64 " failed%s\n", figures->wrong, figures->failed, good ? "" : "  NOT AS EXPECTED");
	return good;
}

/*
 * The guest touches all of the view, which has @stretches of 2 MiB that can be mapped
 * by one entry. KVM's code page and its own tables are among the faults.
 */
static bool touch(const char *what, struct subject *subject, const struct view *view, uint64_t stretches)
{
	struct figures figures;

	if (!huge)
		stretches = 0;
	uint64_t small = view->count - stretches * HUGE_PAGES;

	if (!show(subject, view) || !look(subject, view, &figures))
		return false;
	if (stock)
		return report(what, &figures, !figures.wrong && !figures.failed && !figures.kvm.pages_2m &&
						      figures.kvm.faults >= view->count);
	/* Of 16 pages at once, and anew where one of the page tables ends. */
	uint64_t limit = stretches + small / 16 + 2 * (view->count / HUGE_PAGES + 1) + 1;

	return report(what, &figures,
		      !figures.wrong && !figures.failed && figures.kvm.pages_2m == stretches &&
			      figures.kvm.pages_4k <= small + 1 && figures.kvm.faults <= limit &&
			      (!test_driver || (figures.huge_faults == stretches && figures.faults <= limit)));
}

static bool of_kind(const char *what, const char *kind, uint64_t pages, uint64_t odd, uint64_t stretches)
{
	struct subject subject;
	struct view view = { .count = pages };

	if (!start(&subject, kind, pages))
		return false;
	view.address = subject.area + odd * PAGE_BYTES;
	bool good = buffer_map_at(&subject.buffer, view.address, 0, pages * PAGE_BYTES) &&
		    touch(what, &subject, &view, stretches);

	munmap(view.address, pages * PAGE_BYTES);
	end(&subject);
	return good;
}

static bool check_whole(void)
{
	return of_kind("8 MiB", NULL, 8 * MIB, 0, 4);
}

static bool check_large(void)
{
	return of_kind("256 MiB", NULL, 256 * MIB, 0, 128);
}

static bool check_end(void)
{
	return of_kind("5 MiB", NULL, 5 * MIB, 0, 2);
}

static bool check_odd(void)
{
	return of_kind("8 MiB, an address that doesn't agree", NULL, 8 * MIB, 1, 0);
}

/* Who asks for small pages gets them. */
static bool check_advised(void)
{
	struct subject subject;

	if (!start(&subject, NULL, 8 * MIB))
		return false;
	struct view view = { .address = subject.area, .count = 8 * MIB };
	bool good = buffer_map_at(&subject.buffer, view.address, 0, 8 * MIB * PAGE_BYTES) &&
		    !madvise(view.address, 8 * MIB * PAGE_BYTES, MADV_NOHUGEPAGE) &&
		    touch("8 MiB, MADV_NOHUGEPAGE", &subject, &view, 0);

	end(&subject);
	return good;
}

static bool check_shuffled(void)
{
	return of_kind("8 MiB, shuffled in blocks of 2 MiB", "shuffled", 8 * MIB, 0, 0);
}

static bool check_iomem(void)
{
	return of_kind("8 MiB of iomem, the last 2 MiB shuffled", "iomem", 8 * MIB, 0, 3);
}

/* Drivers walk a list to look up a page of a GPU's memory, so TTM must not ask for more than it needs. */
static bool check_lookups(void)
{
	static const struct {
		const char *kind;
		uint64_t odd;
		uint32_t most;
	} cases[] = {
		/* The first and the last page. */
		{ "iomem-contiguous", 0, 2 },
		/* Each page, once. */
		{ "iomem", 0, HUGE_PAGES },
		/* The first page of what can't be mapped by 2 MiB, once, and each of the fault's. */
		{ "iomem", 1, 2 + 16 },
	};
	bool good = true;

	for (unsigned int i = 0; i < sizeof(cases) / sizeof(cases[0]) && good; i++) {
		struct hostblob_ttm_test lookups = { .request = HOSTBLOB_TTM_LOOKUPS };
		struct subject subject;

		if (!start(&subject, cases[i].kind, 4 * MIB))
			return false;
		uint8_t *address = subject.area + cases[i].odd * PAGE_BYTES;

		good = buffer_map_at(&subject.buffer, address, 0, 4 * MIB * PAGE_BYTES) && ask(&subject, &lookups);
		lookups.count = 0;
		good = good && *(volatile uint32_t *)address == HOST_VALUE && ask(&subject, &lookups) &&
		       lookups.count > 0 && (!huge || lookups.count <= cases[i].most);
		printf("first touch of %s at page %" PRIu64 ": %" PRIu32 " pages looked up%s\n", cases[i].kind, cases[i].odd,
		       lookups.count, good ? "" : "  NOT AS EXPECTED");
		munmap(address, 4 * MIB * PAGE_BYTES);
		end(&subject);
	}
	return good;
}

/* Without PAT the caching is in the protection, which a huge page gets from the VMA. */
static bool check_caching(void)
{
	char parameters[4096] = "";
	int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
	bool pat = fd >= 0 && read(fd, parameters, sizeof(parameters) - 1) > 0 && !strstr(parameters, " nopat");
	bool good = of_kind("8 MiB, write-combined", "write-combined", 8 * MIB, 0, pat ? 4 : 0);

	close(fd);
	return good & of_kind("8 MiB, uncached", "uncached", 8 * MIB, 0, pat ? 4 : 0);
}

/* KVM is to map by 2 MiB what TTM does, however much that is, up to @most. */
static bool as_ttm(const char *what, const char *kind, uint64_t most)
{
	struct subject subject;
	struct figures figures;

	if (!start(&subject, kind, 8 * MIB))
		return false;
	struct view view = { .address = subject.area, .count = 8 * MIB };
	bool good = buffer_map_at(&subject.buffer, view.address, 0, 8 * MIB * PAGE_BYTES) && show(&subject, &view) &&
		    look(&subject, &view, &figures) &&
		    report(what, &figures,
			   !figures.wrong && !figures.failed && figures.huge_faults == figures.kvm.pages_2m &&
				   figures.huge_faults <= most);

	end(&subject);
	return good;
}

/* Blocks of 1 MiB may happen to lie side by side. */
static bool check_fragmented(void)
{
	return as_ttm("8 MiB in blocks of 1 MiB", "order-8", 4);
}

/* Drivers for which one entry for 2 MiB would not do. */
static bool check_drivers(void)
{
	bool good = as_ttm("8 MiB, the driver tracks writes", "tracking", 0);

	return good & as_ttm("8 MiB, the driver has an open() of its own", "own-open", 0);
}

/* 2 MiB of 4, with 1 MiB before and after it that is others'. */
static bool check_middle(void)
{
	struct subject subject;
	struct figures figures;
	bool good;

	if (!start(&subject, NULL, 4 * MIB))
		return false;
	struct view view = { subject.area + MIB * PAGE_BYTES, MIB, 2 * MIB };

	/* Nobody touches it before, or it would have page tables, which keeps huge pages away. */
	good = mmap(subject.area, 4 * MIB * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
		    -1, 0) == subject.area;
	good = good && buffer_map_at(&subject.buffer, view.address, MIB * PAGE_BYTES, view.count * PAGE_BYTES) &&
	       touch("2 MiB, its ends don't agree", &subject, &view, 0);
	for (uint64_t i = 0; i < MIB * PAGE_BYTES; i++)
		good &= !subject.area[i] && !subject.area[3 * MIB * PAGE_BYTES + i];
	/* At an address with no page tables yet, so that a huge page comes to lie next to small ones. */
	uint8_t *area = area_reserve(4 * MIB * PAGE_BYTES);

	view = (struct view){ area + MIB * PAGE_BYTES, MIB, 3 * MIB };
	good = good && area && buffer_map_at(&subject.buffer, view.address, MIB * PAGE_BYTES, 3 * MIB * PAGE_BYTES);
	for (uint64_t page = 2 * MIB; good && page >= 2 * MIB - 1; page--)
		good = *(volatile uint32_t *)(area + page * PAGE_BYTES) == HOST_VALUE + (uint32_t)page;
	/* KVM takes it by 4 KiB, as the guest's address doesn't agree with it. */
	good = good && show(&subject, &view) && look(&subject, &view, &figures) &&
	       report("3 MiB, its beginning doesn't agree", &figures,
		      !figures.wrong && !figures.failed && figures.huge_faults == huge);
	end(&subject);
	return good;
}

/* @change is made to the page in the middle of a buffer that the guest has in use. */
static bool with_change(const char *what, bool (*change)(uint8_t *page), uint64_t failed, uint64_t huge_after)
{
	struct subject subject;
	struct figures figures;

	if (!start(&subject, NULL, 8 * MIB))
		return false;
	struct view view = { .address = subject.area, .count = 8 * MIB };
	bool good = buffer_map_at(&subject.buffer, view.address, 0, 8 * MIB * PAGE_BYTES) &&
		    touch("8 MiB", &subject, &view, 4) && change(subject.area + 3 * MIB * PAGE_BYTES) &&
		    look(&subject, &view, &figures) &&
		    report(what, &figures, !figures.wrong && figures.failed == failed &&
						   figures.kvm.pages_2m == (huge ? huge_after : 0));

	end(&subject);
	return good;
}

static bool unmap_one(uint8_t *page)
{
	return !munmap(page, PAGE_BYTES);
}

static bool protect_one_and_back(uint8_t *page)
{
	return !mprotect(page, PAGE_BYTES, PROT_READ) && !mprotect(page, PAGE_BYTES, PROT_READ | PROT_WRITE);
}

static bool protect_all_and_back(uint8_t *page)
{
	uint8_t *first = page - 3 * MIB * PAGE_BYTES;

	return !mprotect(first, 8 * MIB * PAGE_BYTES, PROT_READ) &&
	       !mprotect(first, 8 * MIB * PAGE_BYTES, PROT_READ | PROT_WRITE);
}

/* Write-protects all entries, so that a write finds a huge page that is read-only. */
static bool clear_soft_dirty(uint8_t *page)
{
	int fd = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
	bool done = fd >= 0 && write(fd, "4", 1) == 1;

	close(fd);
	*(volatile uint8_t *)(page + 5) = 1;
	return done;
}

static bool check_unmap(void)
{
	/* Read and written. */
	return with_change("the same, one page unmapped", unmap_one, 2, 3);
}

static bool check_protect(void)
{
	bool good = with_change("the same, one page read-only and back", protect_one_and_back, 0, 3);

	good &= with_change("the same, all read-only and back", protect_all_and_back, 0, 4);
	return good & with_change("the same, soft-dirty bits cleared", clear_soft_dirty, 0, 4);
}

static bool check_move(void)
{
	struct subject subject;
	bool good = true;

	if (!start(&subject, NULL, 8 * MIB))
		return false;
	struct view view = { .address = subject.area, .count = 8 * MIB };

	good = buffer_map_at(&subject.buffer, view.address, 0, 8 * MIB * PAGE_BYTES) &&
	       touch("8 MiB", &subject, &view, 4);
	for (uint64_t odd = 0; odd < 2 && good; odd++) {
		struct figures figures;
		void *before = view.address;

		view.address = (uint8_t *)area_reserve(9 * MIB * PAGE_BYTES) + odd * PAGE_BYTES;
		good = mremap(before, 8 * MIB * PAGE_BYTES, 8 * MIB * PAGE_BYTES, MREMAP_MAYMOVE | MREMAP_FIXED,
			      view.address) == view.address &&
		       show(&subject, &view) && look(&subject, &view, &figures) &&
		       report(odd ? "the same, moved by a page" : "the same, moved", &figures,
			      !figures.wrong && !figures.failed && figures.kvm.pages_2m == (huge && !odd ? 4 : 0));
	}
	munmap(view.address, 8 * MIB * PAGE_BYTES);
	end(&subject);
	return good;
}

static bool check_fork(void)
{
	struct subject subject;
	struct figures figures;
	int status = 1;

	if (!start(&subject, NULL, 4 * MIB))
		return false;
	struct view view = { .address = subject.area, .count = 4 * MIB };
	bool good = buffer_map_at(&subject.buffer, view.address, 0, 4 * MIB * PAGE_BYTES) &&
		    touch("4 MiB", &subject, &view, 2);
	volatile uint32_t *words = (uint32_t *)view.address;
	pid_t child = fork();

	if (!child) {
		status = 0;
		for (uint64_t page = 0; page < view.count; page++) {
			status |= words[page * PAGE_WORDS] != HOST_VALUE + (uint32_t)page;
			words[page * PAGE_WORDS] = GUEST_VALUE + (uint32_t)page;
		}
		_exit(status);
	}
	good &= child > 0 && waitpid(child, &status, 0) == child && !status;
	for (uint64_t page = 0; page < view.count; page++) {
		good &= subject.words[page * PAGE_WORDS] == GUEST_VALUE + (uint32_t)page &&
			words[page * PAGE_WORDS] == GUEST_VALUE + (uint32_t)page;
		subject.words[page * PAGE_WORDS] = HOST_VALUE + (uint32_t)page;
	}
	good = good && look(&subject, &view, &figures) &&
	       report("the same, after a fork", &figures,
		      !figures.wrong && !figures.failed && figures.kvm.pages_2m == (huge ? 2 : 0));
	end(&subject);
	return good;
}

/* All of a mapping becomes one page, but for small ones that were there; no huge one stays. */
static bool check_gone(void)
{
	struct hostblob_ttm_test gone = { .request = HOSTBLOB_TTM_FAULT_GONE, .count = 1 };
	struct hostblob_ttm_test faults = { .request = HOSTBLOB_TTM_FAULTS };
	struct subject subject;
	uint64_t old = 0;

	if (!start(&subject, NULL, 4 * MIB))
		return false;
	volatile uint32_t *words = (uint32_t *)subject.area;
	bool good = buffer_map_at(&subject.buffer, subject.area, 0, 4 * MIB * PAGE_BYTES) && words[0] == HOST_VALUE &&
		    ask(&subject, &gone) && ask(&subject, &faults);

	for (uint64_t page = 4 * MIB; good && page-- > 0;)
		old += words[page * PAGE_WORDS] != 0;
	faults = (struct hostblob_ttm_test){ .request = HOSTBLOB_TTM_FAULTS };
	good = good && ask(&subject, &faults) && old <= (huge ? 0 : 16) && faults.count == 1 && !faults.value;
	printf("4 MiB whose device is gone: TTM: %" PRIu32 " faults, %" PRIu64 " pages are the buffer's%s\n", faults.count, old,
	       good ? "" : "  NOT AS EXPECTED");
	end(&subject);
	return good;
}

/* A huge page can't be copied on write; TTM allows none at all. */
static bool check_private(void)
{
	struct buffer buffer;
	bool good = !buffer_create(node, driver, BUFFER_DRM_FD, HUGE_BYTES, &buffer) &&
		    mmap(NULL, HUGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE, node, (off_t)buffer.offset) == MAP_FAILED &&
		    errno == EINVAL;

	printf("a private mapping is %s\n", good ? "refused" : "NOT REFUSED");
	drmCloseBufferHandle(node, buffer.handle);
	return good;
}

/* A protection that is not the VMA's must not become the VMA's. */
static bool check_read_only(void)
{
	struct hostblob_ttm_test read_only = { .request = HOSTBLOB_TTM_FAULT_READ_ONLY, .count = 1 };
	struct hostblob_ttm_test faults = { .request = HOSTBLOB_TTM_FAULTS };
	struct subject subject;

	if (!start(&subject, NULL, 2 * MIB))
		return false;
	bool good = buffer_map_at(&subject.buffer, subject.area, 0, HUGE_BYTES) && ask(&subject, &read_only);

	good = good && *(volatile uint32_t *)subject.area == HOST_VALUE && ask(&subject, &faults) && faults.count == 1 &&
	       faults.value == 0;
	printf("a fault whose protection is not the VMA's: %" PRIu32 ", of 2 MiB: %" PRIu32 "%s\n", faults.count,
	       faults.value, good ? "" : "  NOT AS EXPECTED");
	end(&subject);
	return good;
}

/* With a dirty log, the page that is written to is the only one that is dirty. */
static bool check_dirty(struct subject *subject)
{
	struct kvm_userspace_memory_region region = {
		.slot = SLOT,
		.flags = KVM_MEM_LOG_DIRTY_PAGES,
		.guest_phys_addr = MACHINE_MEMORY,
		.memory_size = 16 * PAGE_BYTES,
		.userspace_addr = (uint64_t)(uintptr_t)subject->area,
	};
	uint64_t dirty = 0;
	struct kvm_dirty_log log = { .slot = SLOT, .dirty_bitmap = &dirty };
	struct kvm_userspace_memory_region gone = { .slot = SLOT };
	/* It can't have another size as long as it exists. */
	bool good = !ioctl(subject->machine.vm, KVM_SET_USER_MEMORY_REGION, &gone);

	good = good && !ioctl(subject->machine.vm, KVM_SET_USER_MEMORY_REGION, &region) &&
	       !machine_write_pages(&subject->machine, 1, GUEST_VALUE, subject->results) &&
	       !ioctl(subject->machine.vm, KVM_GET_DIRTY_LOG, &log) && dirty == 1;
	printf("one page is written to, dirty are %#" PRIx64 "%s\n", dirty, good ? "" : "  NOT AS EXPECTED");
	return good;
}

/*
 * KVM maps more than the page of a fault, but nothing behind the memslot, and what is
 * read-only for the host only for reading.
 */
static bool check_neighbours(void)
{
	struct hostblob_ttm_test read_only = { .request = HOSTBLOB_TTM_FAULT_READ_ONLY, .count = 1 };
	struct machine_figures before = { 0 }, read = { 0 }, written = { 0 };
	struct subject subject;
	int behind = 0;

	/* It maps no neighbours, and gives up at the first page that is read-only. */
	if (stock)
		return true;
	if (!start(&subject, NULL, 16))
		return false;
	struct view view = { .address = subject.area, .count = 16 };
	bool good = buffer_map_at(&subject.buffer, view.address, 0, 16 * PAGE_BYTES) && show(&subject, &view) &&
		    ask(&subject, &read_only) && !machine_get_figures(&subject.machine, &before) &&
		    !machine_read_pages(&subject.machine, 16, HOST_VALUE, subject.results) &&
		    !machine_get_figures(&subject.machine, &read) &&
		    !machine_store_x87(&subject.machine, 16, subject.results) &&
		    !machine_get_figures(&subject.machine, &written);

	written.faults -= read.faults;
	read.faults -= before.faults;
	good = good && read.faults <= 2 && written.faults >= 16;
	printf("16 pages, read-only at first: %" PRIu64 " faults to read them, %" PRIu64 " to write them%s\n", read.faults,
	       written.faults, good ? "" : "  NOT AS EXPECTED");
	good = good && check_dirty(&subject);
	/* Last, as the guest's read of what is not there is not completed. */
	view.count = 8;
	if (good && show(&subject, &view))
		behind = machine_read_pages(&subject.machine, 16, HOST_VALUE, subject.results);
	printf("8 pages of them are in the memslot, and the guest reads %s\n", behind == -EPROTO ? "no more" : "MORE");
	end(&subject);
	return good && behind == -EPROTO;
}

struct contention {
	struct subject subject;
	atomic_bool over;
	bool good;
};

static void *hold(void *opaque)
{
	struct contention *contention = opaque;
	struct hostblob_ttm_test test = { .request = HOSTBLOB_TTM_CONTEND };

	contention->good = ask(&contention->subject, &test);
	atomic_store(&contention->over, true);
	return NULL;
}

/* Such a fault has to wait, and to drop the lock that it came with, not another one. */
static bool check_contended(void)
{
	struct contention contention = { 0 };
	struct subject *subject = &contention.subject;
	pthread_t thread;
	bool good = true;

	if (!start(subject, NULL, 2 * MIB))
		return false;
	if (pthread_create(&thread, NULL, hold, &contention))
		return false;
	while (!atomic_load(&contention.over) && good) {
		good = buffer_map_at(&subject->buffer, subject->area, 0, HUGE_BYTES);
		good = good && *(volatile uint32_t *)subject->area == HOST_VALUE;
	}
	pthread_join(thread, NULL);
	good &= contention.good;
	printf("a fault on a buffer that is reserved %s\n", good ? "waits" : "FAILS");
	end(subject);
	return good;
}

/* What the GPU has of its own, behind its BAR. */
static bool check_vram(void)
{
	bool good = of_kind("256 MiB of VRAM", "vram", 256 * MIB, 0, 128);

	return !buffer_choose_kind(node, "gtt") && good;
}

/* Which driver it takes. */
enum taker { ANY, TEST, GPU };

static const struct {
	const char *name;
	bool (*run)(void);
	enum taker taker;
} checks[] = {
	{ "whole", check_whole, ANY },		{ "large", check_large, ANY },
	{ "end", check_end, ANY },		{ "odd", check_odd, ANY },
	{ "advised", check_advised, ANY },	{ "vram", check_vram, GPU },
	{ "unmap", check_unmap, ANY },		{ "protect", check_protect, ANY },
	{ "move", check_move, ANY },		{ "fork", check_fork, ANY },
	{ "private", check_private, ANY },	{ "middle", check_middle, TEST },
	{ "shuffled", check_shuffled, TEST },	{ "fragmented", check_fragmented, TEST },
	{ "iomem", check_iomem, TEST },		{ "caching", check_caching, TEST },
	{ "drivers", check_drivers, TEST },	{ "neighbours", check_neighbours, TEST },
	{ "lookups", check_lookups, TEST },	{ "gone", check_gone, TEST },
	{ "read-only", check_read_only, TEST },	{ "contended", check_contended, TEST },
};

static bool is_for_driver(enum taker taker)
{
	return taker == ANY || (taker == TEST ? test_driver : !test_driver && !strcmp(driver, "amdgpu"));
}

int main(int argc, char **argv)
{
	const char *only = argc == 3 ? argv[1] : NULL, *expected = argc > 1 ? argv[argc - 1] : "";
	bool found = !only, good = true, list = !strcmp(expected, "--list");

	huge = !strcmp(expected, "huge");
	stock = !strcmp(expected, "stock");
	for (unsigned int i = 0; only && i < sizeof(checks) / sizeof(checks[0]); i++)
		found |= !strcmp(only, checks[i].name);
	if (argc < 2 || argc > 3 || !found || (!huge && !stock && !list && strcmp(expected, "small"))) {
		bool help = !strcmp(expected, "--help");

		fputs("Usage: huge [CHECK] huge|small|stock\n"
		      "       huge --list\n"
		      "Check one of these, or all that the driver can, which --list names:\n\n", help ? stdout : stderr);
		for (unsigned int i = 0; i < sizeof(checks) / sizeof(checks[0]); i++)
			fprintf(help ? stdout : stderr, "  %s\n", checks[i].name);
		fputs("\nhuge: 2 MiB are mapped by one fault where they can be, else 16 pages; small: TTM\n"
		      "never does so; stock: nor does KVM map more than one page. The data has to be right\n"
		      "in any case.\n\n"
		      "Exit status: 0 as expected, 1 not so, 2 bad usage, 77 skipped.\n",
		      help ? stdout : stderr);
		return help ? 0 : 2;
	}
	node = node_open(NULL, driver, sizeof(driver));
	if (node < 0)
		return skip(NO_NODE);
	test_driver = test_driver_is_loaded();
	for (unsigned int i = 0; i < sizeof(checks) / sizeof(checks[0]); i++) {
		if ((only && strcmp(only, checks[i].name)) || !is_for_driver(checks[i].taker))
			continue;
		if (list)
			puts(checks[i].name);
		else
			good &= checks[i].run();
	}
	return good ? 0 : 1;
}

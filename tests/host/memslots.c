// SPDX-License-Identifier: MIT
/*
 * What KVM offers for memslots, over plain memory and then over a TTM buffer's
 * mapping: a dirty log, read-only slots, other addresses, faults ahead of time,
 * and pages that KVM writes to by itself. See --help.
 */
#include "buffer.h"
#include "machine.h"
#include "pages.h"
#include "test.h"

#include <hostblob_ttm.h>

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include <xf86drm.h>

#define PAGE_WORDS (PAGE_BYTES / sizeof(uint32_t))
#define MOST_PAGES 1024
#define SLOT 1
#define OTHER_ADDRESS (2 * MACHINE_MEMORY)
#define NOPAGE_FAULTS 1000
#define MANY_FAULTS 1000000 /* more than there are before a signal comes */
#define UPDATES 1000
#define LONG 30 /* seconds, more than anything takes that ends at all */

/* What the guest or the host writes to a page, plus its number. */
#define FIRST 0x5eed0000u
#define SECOND 0x5eee0000u
#define THIRD 0x5eef0000u

struct test {
	int node;
	char driver[32];
	bool can_evict; /* it is the test driver */
	bool retried;	/* KVM retries faults that inserted nothing */
	uint64_t pages;
};

/* A machine and the memory under test, which is not in a slot yet. */
struct subject {
	const struct test *test;
	bool plain;
	struct machine machine;
	struct buffer buffer;
	uint64_t bytes;
	volatile uint32_t *for_host;
	void *for_guest;
	uint64_t clock; /* ns */
	uint32_t clock_version;
};

static const uint8_t code[] = {
	0x8b, 0x03, /* 0: mov (%ebx),%eax */
	0xf4,	    /* 2: hlt */
	0x89, 0x33, /* 3: mov %esi,(%ebx) */
	0xf4,	    /* 5: hlt */
};

enum access { READ = 0, NOTHING = 2, WRITE = 3 }; /* where in the code */
enum outcome { DONE, MMIO, FAILED };

static enum outcome guest(struct subject *subject, enum access access, uint64_t address, uint32_t *value)
{
	struct kvm_regs registers = {
		.rip = MACHINE_CODE + access, .rflags = 2, .rbx = address, .rsi = *value,
	};
	struct kvm_run *run = subject->machine.runs[0];
	int vcpu = subject->machine.vcpus[0];
	enum outcome outcome = DONE;

	if (ioctl(vcpu, KVM_SET_REGS, &registers) || ioctl(vcpu, KVM_RUN, 0))
		return FAILED;
	if (run->exit_reason == KVM_EXIT_MMIO) {
		outcome = MMIO;
		if (run->mmio.phys_addr != address || run->mmio.len != sizeof(*value) ||
		    run->mmio.is_write != (access == WRITE) ||
		    (access == WRITE && memcmp(run->mmio.data, value, sizeof(*value))))
			return FAILED;
		memset(run->mmio.data, 0xff, sizeof(*value));
		if (ioctl(vcpu, KVM_RUN, 0))
			return FAILED;
	}
	if (run->exit_reason != KVM_EXIT_HLT || ioctl(vcpu, KVM_GET_REGS, &registers))
		return FAILED;
	*value = (uint32_t)registers.rax;
	return outcome;
}

static bool guest_runs(struct subject *subject)
{
	uint32_t value = 0;

	return guest(subject, NOTHING, 0, &value) == DONE;
}

/* The guest writes to each @step'th page; true if @outcome came of all. */
static bool guest_writes(struct subject *subject, uint64_t address, uint64_t step, uint32_t first,
			 enum outcome outcome)
{
	for (uint64_t page = 0; page < subject->test->pages; page += step) {
		uint32_t value = first + (uint32_t)page;

		if (guest(subject, WRITE, address + page * PAGE_BYTES, &value) != outcome)
			return false;
	}
	return true;
}

/* True if each page reads as @first plus its number, or with MMIO as what answers there. */
static bool guest_reads(struct subject *subject, uint64_t address, uint32_t first, enum outcome outcome)
{
	for (uint64_t page = 0; page < subject->test->pages; page++) {
		uint32_t expected = outcome == MMIO ? UINT32_MAX : first + (uint32_t)page, value = 0;

		if (guest(subject, READ, address + page * PAGE_BYTES, &value) != outcome || value != expected)
			return false;
	}
	return true;
}

static void host_writes(struct subject *subject, uint32_t first)
{
	for (uint64_t page = 0; page < subject->test->pages; page++)
		subject->for_host[page * PAGE_WORDS] = first + (uint32_t)page;
}

static bool host_reads(struct subject *subject, uint64_t step, uint32_t first)
{
	for (uint64_t page = 0; page < subject->test->pages; page += step) {
		if (subject->for_host[page * PAGE_WORDS] != first + page)
			return false;
	}
	return true;
}

/* Without deleting the slot first, if there is one; without pages it is deleted. */
static bool set_slot(struct subject *subject, uint32_t flags, uint64_t address, uint64_t pages)
{
	struct kvm_userspace_memory_region region = {
		.slot = SLOT,
		.flags = flags,
		.guest_phys_addr = address,
		.memory_size = pages * PAGE_BYTES,
		.userspace_addr = (uint64_t)(uintptr_t)subject->for_guest,
	};

	return !ioctl(subject->machine.vm, KVM_SET_USER_MEMORY_REGION, &region);
}

static bool ask(struct subject *subject, enum hostblob_ttm_request request, uint32_t count, uint32_t *answer)
{
	return test_driver_request(subject->test->node, &subject->buffer, request, count, answer);
}

/* What is under test goes away; where no driver can be asked, from its mapping. */
static bool evict(struct subject *subject, enum hostblob_ttm_request request)
{
	uint32_t answer;

	if (subject->plain || !subject->test->can_evict)
		return !mprotect(subject->for_guest, subject->bytes, PROT_NONE) &&
		       !mprotect(subject->for_guest, subject->bytes, PROT_READ | PROT_WRITE);
	return ask(subject, request, 0, &answer) && (request != HOSTBLOB_TTM_SWAP_OUT || answer);
}

/* References to plain pages come and go without KVM: these are not counted. */
static bool count_references(struct subject *subject, int32_t *references)
{
	static uint64_t pfns[MOST_PAGES];
	const char *why = "it cannot be mapped";
	void *untouched;

	memset(references, 0, MOST_PAGES * sizeof(*references));
	if (subject->plain)
		return true;
	untouched = buffer_map(&subject->buffer);
	bool good = untouched && !pages_fault_in(untouched, subject->test->pages, pfns, &why) &&
		    !pages_references(pfns, subject->test->pages, references, &why);

	if (!good)
		fprintf(stderr, "references: %s\n", why);
	if (untouched)
		munmap(untouched, subject->bytes);
	return good;
}

/* --- the checks: NULL, or what is wrong ------------------------------------- */

/* KVM has to name the pages that the guest wrote to since it was asked last. */
static bool log_is_exact(struct subject *subject, uint64_t step, uint32_t first)
{
	uint64_t bitmap[MOST_PAGES / 64] = { 0 };
	struct kvm_dirty_log log = { .slot = SLOT, .dirty_bitmap = bitmap };

	if (!guest_writes(subject, MACHINE_MEMORY, step, first, DONE) || !host_reads(subject, step, first) ||
	    ioctl(subject->machine.vm, KVM_GET_DIRTY_LOG, &log))
		return false;
	for (uint64_t page = 0; page < subject->test->pages; page++) {
		if ((bitmap[page / 64] >> page % 64 & 1) != (page % step == 0))
			return false;
	}
	return true;
}

static const char *dirty_log(struct subject *subject)
{
	uint64_t pages = subject->test->pages;

	if (!set_slot(subject, KVM_MEM_LOG_DIRTY_PAGES, MACHINE_MEMORY, pages) || !log_is_exact(subject, 3, FIRST))
		return "the first log is wrong";
	if (!log_is_exact(subject, 5, SECOND))
		return "the second log is wrong";
	if (!evict(subject, HOSTBLOB_TTM_MOVE) || !log_is_exact(subject, 7, THIRD))
		return "the log is wrong after the buffer was moved";
	if (!evict(subject, HOSTBLOB_TTM_SWAP_OUT) || !log_is_exact(subject, 2, FIRST))
		return "the log is wrong after the buffer was swapped out";
	if (!set_slot(subject, 0, MACHINE_MEMORY, pages) || !guest_writes(subject, MACHINE_MEMORY, 1, SECOND, DONE))
		return "the guest cannot write when the log is off again";
	if (!set_slot(subject, KVM_MEM_LOG_DIRTY_PAGES, MACHINE_MEMORY, pages) || !log_is_exact(subject, 4, THIRD))
		return "the log is wrong when it is on again";
	return NULL;
}

static const char *read_only_slot(struct subject *subject)
{
	host_writes(subject, FIRST);
	if (!set_slot(subject, KVM_MEM_READONLY, MACHINE_MEMORY, subject->test->pages) ||
	    !guest_reads(subject, MACHINE_MEMORY, FIRST, DONE))
		return "the guest cannot read";
	if (!guest_writes(subject, MACHINE_MEMORY, 1, SECOND, MMIO))
		return "a write is not MMIO";
	if (!host_reads(subject, 1, FIRST))
		return "a write changed a page";
	if (!evict(subject, HOSTBLOB_TTM_MOVE) || !guest_writes(subject, MACHINE_MEMORY, 1, SECOND, MMIO) ||
	    !host_reads(subject, 1, FIRST))
		return "a write is not MMIO after the buffer was moved";
	host_writes(subject, THIRD);
	if (!guest_reads(subject, MACHINE_MEMORY, THIRD, DONE))
		return "the guest does not see what the host wrote";
	return NULL;
}

static const char *moved_slot(struct subject *subject)
{
	static int32_t before[MOST_PAGES], after[MOST_PAGES];
	uint64_t pages = subject->test->pages;

	if (!count_references(subject, before))
		return "references cannot be counted";
	host_writes(subject, FIRST);
	if (!set_slot(subject, 0, MACHINE_MEMORY, pages) || !guest_reads(subject, MACHINE_MEMORY, FIRST, DONE))
		return "the guest cannot read";
	if (!set_slot(subject, 0, OTHER_ADDRESS, pages) || !guest_reads(subject, OTHER_ADDRESS, FIRST, DONE) ||
	    !guest_writes(subject, OTHER_ADDRESS, 1, SECOND, DONE) || !host_reads(subject, 1, SECOND))
		return "the memory is not where it was moved to";
	if (!guest_reads(subject, MACHINE_MEMORY, 0, MMIO))
		return "the memory is still where it was moved from";
	if (!set_slot(subject, 0, 0, 0) || !guest_reads(subject, MACHINE_MEMORY, 0, MMIO) ||
	    !guest_reads(subject, OTHER_ADDRESS, 0, MMIO))
		return "a deleted slot is still there";
	if (!set_slot(subject, 0, MACHINE_MEMORY, pages) || !guest_reads(subject, MACHINE_MEMORY, SECOND, DONE) ||
	    !guest_writes(subject, MACHINE_MEMORY, 1, THIRD, DONE) || !host_reads(subject, 1, THIRD))
		return "the memory is not where it was put again";
	if (!set_slot(subject, 0, 0, 0) || !guest_reads(subject, MACHINE_MEMORY, 0, MMIO))
		return "a slot that was deleted again is still there";
	if (!count_references(subject, after) || memcmp(before, after, sizeof(before)))
		return "there are other references to pages than before";
	return NULL;
}

static int pre_fault(struct subject *subject)
{
	struct kvm_pre_fault_memory range = { .gpa = MACHINE_MEMORY, .size = subject->bytes };

	/* It succeeds if it came past a page. What can't be had right now is asked for again. */
	do {
		if (ioctl(subject->machine.vcpus[0], KVM_PRE_FAULT_MEMORY, &range) && errno != EAGAIN)
			return -errno;
	} while (range.size);
	return 0;
}

/* How many faults the guest had; 0 if it is not known, as it had some. */
static uint64_t faults_taken(struct subject *subject)
{
	char path[64];
	uint64_t count = 0;

	snprintf(path, sizeof(path), "/sys/kernel/debug/kvm/%d-%d/pf_taken", getpid(), subject->machine.vm);
	FILE *file = fopen(path, "re");

	if (!file || fscanf(file, "%" SCNu64, &count) != 1)
		perror(path);
	if (file)
		fclose(file);
	return count;
}

static const char *pre_faulted(struct subject *subject)
{
	host_writes(subject, FIRST);
	/* Runs, so that its code is no fault later. */
	if (!set_slot(subject, 0, MACHINE_MEMORY, subject->test->pages) || !guest_runs(subject))
		return "the guest does not run";
	if (pre_fault(subject))
		return "KVM_PRE_FAULT_MEMORY fails";
	uint64_t before = faults_taken(subject);

	if (!before || !guest_reads(subject, MACHINE_MEMORY, FIRST, DONE))
		return "the guest cannot read";
	if (faults_taken(subject) != before)
		return "the guest's reads fault";
	if (!evict(subject, HOSTBLOB_TTM_SWAP_OUT) || pre_fault(subject))
		return "KVM_PRE_FAULT_MEMORY fails after the buffer was swapped out";
	before = faults_taken(subject);
	if (!guest_reads(subject, MACHINE_MEMORY, FIRST, DONE) || faults_taken(subject) != before)
		return "the guest's reads fault after the buffer was swapped out";
	return NULL;
}

static const char *pre_faulted_in_vain(struct subject *subject)
{
	bool retried = subject->test->retried;
	uint32_t left;

	subject->machine.runs[0]->exit_reason = KVM_EXIT_UNKNOWN;
	if (!set_slot(subject, 0, MACHINE_MEMORY, subject->test->pages) ||
	    !ask(subject, HOSTBLOB_TTM_FAULT_SIGBUS, INT_MAX, &left) || pre_fault(subject) != -EFAULT ||
	    !ask(subject, HOSTBLOB_TTM_FAULT_SIGBUS, 0, &left))
		return "no EFAULT where every fault fails";
	if (subject->machine.runs[0]->exit_reason != KVM_EXIT_UNKNOWN)
		return "KVM_PRE_FAULT_MEMORY changes the exit of KVM_RUN";
	if (!ask(subject, HOSTBLOB_TTM_FAULT_NOPAGE, NOPAGE_FAULTS, &left) ||
	    pre_fault(subject) != (retried ? 0 : -EFAULT) || !ask(subject, HOSTBLOB_TTM_FAULT_NOPAGE, 0, &left) ||
	    left != (retried ? 0 : NOPAGE_FAULTS - 1))
		return "1000 faults that insert nothing are not as expected";
	if (!retried)
		return NULL;
	if (!evict(subject, HOSTBLOB_TTM_MOVE) || !ask(subject, HOSTBLOB_TTM_FAULT_NOPAGE, INT_MAX, &left))
		return "the test driver failed";
	machine_interrupt_repeatedly(true);
	int error = pre_fault(subject);

	machine_interrupt_repeatedly(false);
	if (!ask(subject, HOSTBLOB_TTM_FAULT_NOPAGE, 0, &left) || error != -EINTR)
		return "no EINTR where no fault inserts";
	return pre_fault(subject) ? "KVM_PRE_FAULT_MEMORY fails after that" : NULL;
}

/* struct pvclock_vcpu_time_info of KVM's documentation; @flags with its padding. */
struct guest_clock {
	uint32_t version, padding;
	uint64_t tsc, system_time;
	uint32_t multiplier;
	uint8_t shift, flags[3];
};

/* In the last page, and not what the others write to. */
#define CLOCK_OFFSET(pages) (((pages) - 1) * PAGE_BYTES + 0x40)

static bool clock_start(struct subject *subject)
{
	struct kvm_msrs *msrs = calloc(1, sizeof(*msrs) + sizeof(msrs->entries[0]));
	bool good;

	if (!msrs)
		return false;
	msrs->nmsrs = 1;
	msrs->entries[0].index = 0x4b564d01; /* MSR_KVM_SYSTEM_TIME_NEW */
	msrs->entries[0].data = (MACHINE_MEMORY + CLOCK_OFFSET(subject->test->pages)) | 1;
	good = set_slot(subject, 0, MACHINE_MEMORY, subject->test->pages) &&
	       ioctl(subject->machine.vcpus[0], KVM_SET_MSRS, msrs) == 1 && guest_runs(subject);
	free(msrs);
	return good;
}

/* KVM is to update the page before it enters the guest. */
static bool clock_set(struct subject *subject)
{
	struct kvm_clock_data data = { .clock = subject->clock + 1000000000 };

	subject->clock = data.clock;
	return !ioctl(subject->machine.vm, KVM_SET_CLOCK, &data);
}

static volatile struct guest_clock *clock_of(struct subject *subject)
{
	return (volatile void *)((volatile char *)subject->for_host + CLOCK_OFFSET(subject->test->pages));
}

static bool clock_says_stopped(struct subject *subject)
{
	return clock_of(subject)->flags[0] & 2; /* PVCLOCK_GUEST_STOPPED */
}

static bool clock_is_new(struct subject *subject)
{
	volatile struct guest_clock *clock = clock_of(subject);
	uint32_t before = subject->clock_version;
	struct kvm_clock_data now = { 0 };

	subject->clock_version = clock->version;
	return !ioctl(subject->machine.vm, KVM_GET_CLOCK, &now) && clock->version != before &&
	       clock->version % 2 == 0 && clock->multiplier && clock->system_time >= subject->clock &&
	       clock->system_time <= now.clock;
}

static bool clock_updated(struct subject *subject)
{
	return clock_set(subject) && guest_runs(subject) && clock_is_new(subject);
}

static const char *clock_page(struct subject *subject)
{
	static const enum hostblob_ttm_request ways[] = {
		HOSTBLOB_TTM_MOVE, HOSTBLOB_TTM_EVICT, HOSTBLOB_TTM_SWAP_OUT,
	};
	static int32_t before[MOST_PAGES], after[MOST_PAGES];

	if (!clock_start(subject) || !clock_is_new(subject))
		return "KVM does not fill it";
	for (unsigned int i = 0; i < UPDATES; i++) {
		if (!evict(subject, ways[i % 3]) || !clock_updated(subject))
			return "KVM does not update it after the buffer was evicted";
	}
	/* With the same pages all the time. */
	if (!count_references(subject, before))
		return "references cannot be counted";
	for (unsigned int i = 0; i < UPDATES / 10; i++) {
		if (!evict(subject, HOSTBLOB_TTM_MOVE) || !clock_updated(subject))
			return "KVM does not update it after the buffer was moved";
	}
	if (!count_references(subject, after) || memcmp(before, after, sizeof(before)))
		return "there are other references to pages than before";
	return NULL;
}

/* A signal comes while the update goes on, whose faults end as @request says. */
static const char *clock_page_interrupted(struct subject *subject, enum hostblob_ttm_request request)
{
	uint32_t left;

	if (!evict(subject, HOSTBLOB_TTM_MOVE) || !ask(subject, request, MANY_FAULTS, &left) || !clock_set(subject))
		return "the test driver failed";
	machine_interrupt_repeatedly(true);
	bool interrupted = !guest_runs(subject) && errno == EINTR;

	/* Other requests that came meanwhile would hide that this one is lost. */
	guest_runs(subject);
	machine_interrupt_repeatedly(false);
	if (!ask(subject, request, 0, &left) || !interrupted || !left)
		return "a signal does not end an update whose faults insert nothing";
	if (!guest_runs(subject) || !clock_is_new(subject))
		return "a signal ended the update and it was not made up for";
	return NULL;
}

static const char *clock_page_in_vain(struct subject *subject)
{
	bool retried = subject->test->retried;
	uint32_t left;

	if (!clock_start(subject) || !clock_is_new(subject))
		return "KVM does not fill it";
	/* KVM also has to tell the guest that it was stopped; it does so once. */
	if (!evict(subject, HOSTBLOB_TTM_MOVE) || !ask(subject, HOSTBLOB_TTM_FAULT_NOPAGE, NOPAGE_FAULTS, &left) ||
	    !clock_set(subject) || ioctl(subject->machine.vcpus[0], KVM_KVMCLOCK_CTRL, 0) || !guest_runs(subject) ||
	    !ask(subject, HOSTBLOB_TTM_FAULT_NOPAGE, 0, &left) || retried != !left ||
	    clock_is_new(subject) != retried || clock_says_stopped(subject) != retried)
		return "1000 faults that insert nothing are not as expected";
	if (!clock_updated(subject))
		return "KVM does not update it after that";
	if (!retried)
		return NULL;
	const char *error = clock_page_interrupted(subject, HOSTBLOB_TTM_FAULT_NOPAGE);

	return error ? error : clock_page_interrupted(subject, HOSTBLOB_TTM_FAULT_WAIT);
}

struct deletion {
	struct subject *subject;
	bool deleted;
	atomic_bool done;
};

static void *delete_slot(void *argument)
{
	struct deletion *deletion = argument;

	deletion->deleted = set_slot(deletion->subject, 0, 0, 0);
	atomic_store(&deletion->done, true);
	return NULL;
}

static void *run_guest(void *argument)
{
	return guest_runs(argument) ? argument : NULL;
}

/* True as soon as @done is; false if it has not come to that for long. */
static bool wait_for(const atomic_bool *done)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	for (time_t end = now.tv_sec + LONG; !atomic_load(done) && now.tv_sec < end; clock_gettime(CLOCK_MONOTONIC, &now))
		usleep(1000);
	return atomic_load(done);
}

/*
 * The slot is deleted while a vCPU cannot get the page of the clock that is in it;
 * after that it has no reason to wait for it any more.
 */
static const char *clock_page_deleted(struct subject *subject)
{
	struct deletion deletion = { .subject = subject };
	pthread_t vcpu, deleter;
	void *ran = NULL;
	uint32_t left;

	if (!subject->test->retried)
		return NULL; /* KVM gives up after one fault */
	if (!clock_start(subject) || !clock_is_new(subject))
		return "KVM does not fill it";
	if (!evict(subject, HOSTBLOB_TTM_MOVE) || !ask(subject, HOSTBLOB_TTM_FAULT_NOPAGE, INT_MAX, &left) ||
	    !clock_set(subject) || pthread_create(&vcpu, NULL, run_guest, subject))
		return "the test driver failed";
	do {
		usleep(1000);
		if (!ask(subject, HOSTBLOB_TTM_FAULT_NOPAGE, INT_MAX, &left))
			return "the test driver failed";
	} while (left == INT_MAX);
	if (pthread_create(&deleter, NULL, delete_slot, &deletion))
		return "there is no thread";
	bool hangs = !wait_for(&deletion.done);

	/* Ends it. */
	if (hangs && !ask(subject, HOSTBLOB_TTM_FAULT_NOPAGE, 0, &left))
		return "the test driver failed";
	pthread_join(deleter, NULL);
	pthread_join(vcpu, &ran);
	if (hangs)
		return "the slot cannot be deleted while a vCPU waits for the clock's page";
	if (!deletion.deleted || !ran)
		return "the slot is not deleted, or the guest does not run after that";
	return ask(subject, HOSTBLOB_TTM_FAULT_NOPAGE, 0, &left) ? NULL : "the test driver failed";
}

/* --------------------------------------------------------------------------- */

static const struct {
	const char *name;
	const char *(*check)(struct subject *subject);
	bool faults; /* of the test driver have to go wrong */
	bool pre_faults; /* by KVM_PRE_FAULT_MEMORY, which older kernels lack */
} checks[] = {
	{ "dirty-log", dirty_log, false, false },
	{ "read-only", read_only_slot, false, false },
	{ "move", moved_slot, false, false },
	{ "pre-fault", pre_faulted, false, true },
	{ "pre-fault-fails", pre_faulted_in_vain, true, true },
	{ "clock", clock_page, false, false },
	{ "clock-fails", clock_page_in_vain, true, false },
	{ "clock-deleted", clock_page_deleted, true, false },
};

static bool create(struct subject *subject)
{
	const struct test *test = subject->test;

	if (machine_create(&subject->machine, 1))
		return false;
	memcpy(subject->machine.code, code, sizeof(code));
	if (subject->plain) {
		void *memory = mmap(NULL, subject->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		subject->for_host = subject->for_guest = memory;
		/* Page by page, as a buffer is mapped. */
		return memory != MAP_FAILED && !madvise(memory, subject->bytes, MADV_NOHUGEPAGE);
	}
	if (buffer_create(test->node, test->driver, BUFFER_DRM_FD, subject->bytes, &subject->buffer))
		return false;
	subject->for_host = buffer_map(&subject->buffer);
	subject->for_guest = buffer_map(&subject->buffer);
	return subject->for_host && subject->for_guest;
}

static void destroy(struct subject *subject)
{
	machine_destroy(&subject->machine);
	munmap(subject->for_guest, subject->bytes);
	if (subject->plain)
		return;
	munmap((void *)subject->for_host, subject->bytes);
	drmCloseBufferHandle(subject->test->node, subject->buffer.handle);
}

static bool run(const struct test *test, unsigned int number, bool plain)
{
	struct subject subject = { .test = test, .plain = plain, .bytes = test->pages * PAGE_BYTES };

	if (!create(&subject)) {
		fputs("no machine or no memory for it\n", stderr);
		return false;
	}
	if (checks[number].pre_faults && !ioctl(subject.machine.vm, KVM_CHECK_EXTENSION, KVM_CAP_PRE_FAULT_MEMORY)) {
		printf("%-15s  %-9s  not offered by this kernel\n", checks[number].name, plain ? "plain" : test->driver);
		destroy(&subject);
		return true;
	}
	errno = 0;
	const char *wrong = checks[number].check(&subject);

	printf("%-15s  %-9s  %s%s%s\n", checks[number].name, plain ? "plain" : test->driver,
	       wrong ? wrong : "as expected", wrong && errno ? ": " : "", wrong && errno ? strerror(errno) : "");
	destroy(&subject);
	return !wrong;
}

int main(int argc, char **argv)
{
	const char *only = argc == 4 ? argv[2] : NULL, *expected = argc > 1 ? argv[argc - 1] : "";
	struct test test = { .retried = !strcmp(expected, "retried") };
	bool found = !only, good = true;
	char *end = "";

	for (unsigned int i = 0; only && i < sizeof(checks) / sizeof(checks[0]); i++)
		found |= !strcmp(only, checks[i].name);
	if (argc == 3 || argc == 4)
		test.pages = strtoull(argv[1], &end, 10);
	if (!test.pages || *end || test.pages > MOST_PAGES || !found ||
	    (!test.retried && strcmp(expected, "fatal"))) {
		bool help = !strcmp(expected, "--help");

		fputs("Usage: memslots PAGES [CHECK] retried|fatal\n"
		      "Check that a memslot over a TTM buffer of PAGES pages, 1024 at most, is as good as\n"
		      "one over plain memory, also after the driver took the pages:\n\n"
		      "  dirty-log        KVM names the pages that the guest wrote to\n"
		      "  read-only        a write to a read-only slot is MMIO\n"
		      "  move             the slot is moved, deleted and made again\n"
		      "  pre-fault        after KVM_PRE_FAULT_MEMORY the guest's reads don't fault\n"
		      "  pre-fault-fails  it fails with the driver's faults, and retries those that\n"
		      "                   inserted nothing until a signal comes\n"
		      "  clock            KVM fills the page of a guest's clock\n"
		      "  clock-fails      and does so when the fault inserted nothing or a signal came\n"
		      "  clock-deleted    its slot can be deleted while no fault inserts anything\n\n"
		      "fatal: no fault that inserted nothing is retried, as on stock kernels.\n\n"
		      "Exit status: 0 as expected, 1 not so, 2 bad usage, 77 skipped.\n",
		      help ? stdout : stderr);
		return help ? 0 : 2;
	}
	test.node = node_open(NULL, test.driver, sizeof(test.driver));
	if (test.node < 0)
		return skip(NO_NODE);
	test.can_evict = !strcmp(test.driver, TEST_DRIVER) && test_driver_is_loaded();
	for (unsigned int i = 0; i < sizeof(checks) / sizeof(checks[0]); i++) {
		if ((only && strcmp(only, checks[i].name)) || (checks[i].faults && !test.can_evict))
			continue;
		good &= checks[i].faults || run(&test, i, true);
		good &= run(&test, i, false);
	}
	return good ? 0 : 1;
}

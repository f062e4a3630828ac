/* SPDX-License-Identifier: MIT */
/*
 * The smallest virtual machine that can touch memory: one vCPU or two in 32-bit
 * protected mode without paging, and its code in memslot 0.
 */
#ifndef MACHINE_H
#define MACHINE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define MACHINE_CODE 0x1000
#define MACHINE_MEMORY 0x10000000 /* where the memory under test is */

#define MACHINE_VCPUS 2

struct machine {
	int kvm, vm, vcpus[MACHINE_VCPUS];
	struct kvm_run *runs[MACHINE_VCPUS];
	unsigned int vcpu_count;
	int run_size;
	uint8_t *code;
	uint64_t faults_told; /* those whose page KVM_EXIT_MEMORY_FAULT named */
	pthread_t threads[MACHINE_VCPUS];
	_Atomic enum { MACHINE_IDLE, MACHINE_COUNTS, MACHINE_ENDED } states[MACHINE_VCPUS];
	atomic_bool stopped;
};

/* What the guest got to, page by page. */
enum page_result { PAGE_REACHED, PAGE_WRONG_DATA, PAGE_FAULT };

/*
 * In machines that are made from now on the guest's PAT decides the memory type, as
 * always on AMD: Intel's have a quirk that ignores it, where it can be disabled.
 */
void machine_honor_guest_pat(void);

/* Return 0, or a negative errno after a message on stderr. */
int machine_create(struct machine *machine, unsigned int vcpus);
int machine_add_vcpu(struct machine *machine);

/* Give vCPU 0 all features of the CPU that KVM can. */
int machine_offer_features(struct machine *machine);

/*
 * Have KVM exit with KVM_EXIT_MEMORY_FAULT where the host cannot provide the
 * memory. Returns 0, or a negative errno: stock kernels have no such thing.
 */
int machine_tell_faults(struct machine *machine);

void machine_destroy(struct machine *machine);

/*
 * Make @memory the machine's at @address, in the place of what @slot was, so that
 * KVM starts anew with it.
 */
int machine_set_memory(struct machine *machine, uint32_t slot, uint64_t address, void *memory,
		       uint64_t size);

/*
 * The guest reads the first word of each page at MACHINE_MEMORY and compares it with @first plus
 * the page's number, or writes that value to the third word. A page where
 * KVM_RUN fails with -EFAULT is noted and skipped. Any other failure is returned
 * as a negative errno after a message on stderr.
 */
int machine_read_pages(struct machine *machine, uint64_t count, uint32_t first,
		       enum page_result *results);
int machine_write_pages(struct machine *machine, uint64_t count, uint32_t first,
			enum page_result *results);

/*
 * The guest stores 1.0 to the third word of each page with an instruction of the
 * x87, which KVM cannot emulate, and reads the first word. Returns as above, and
 * -EPROTO if KVM_RUN ends with KVM_EXIT_INTERNAL_ERROR.
 */
int machine_store_x87(struct machine *machine, uint64_t count, enum page_result *results);

/* Page by page a count is @rounds, and one more for the first @pages. */
struct machine_counts {
	uint64_t rounds, pages, faults;
};

/*
 * vCPU @vcpu adds 1 to the word of that number in each page, round after round,
 * until another thread calls machine_stop(). KVM_RUN is repeated where it fails
 * with -EFAULT; @counts->faults says how often.
 */
int machine_count(struct machine *machine, unsigned int vcpu, uint64_t count, struct machine_counts *counts);

/* Meanwhile: how many rounds @vcpu has been through, and whether it counts no more. */
uint32_t machine_rounds(const struct machine *machine, unsigned int vcpu);
bool machine_ended(const struct machine *machine, unsigned int vcpu);
void machine_stop(struct machine *machine);

/* What KVM has counted. */
struct machine_figures {
	uint64_t faults;	    /* for which it has installed an entry: pf_fixed */
	uint64_t pages_4k, pages_2m; /* that are mapped now */
	uint64_t exits;		    /* of vCPU 0 */
};

/* Returns 0, or a negative errno after a message on stderr. */
int machine_get_figures(const struct machine *machine, struct machine_figures *figures);

/* Signals end KVM_RUN: again and again, as the first one may come before it. */
void machine_interrupt_repeatedly(bool on);

#endif

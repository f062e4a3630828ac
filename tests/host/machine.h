/* SPDX-License-Identifier: MIT */
/*
 * The smallest virtual machine that can touch memory: one vCPU in 32-bit
 * protected mode without paging, and a page of code in memslot 0.
 */
#ifndef MACHINE_H
#define MACHINE_H

#include <stdint.h>

#define MACHINE_CODE 0x1000
#define MACHINE_MEMORY 0x10000000 /* where the memory under test is */

struct machine {
	int kvm, vm, vcpu;
	struct kvm_run *run;
	uint32_t run_size;
	uint8_t *code;
};

/* What the guest got to, page by page. */
enum page_result { PAGE_REACHED, PAGE_WRONG_DATA, PAGE_FAULT };

/* Return 0, or a negative errno after a message on stderr. */
int machine_create(struct machine *machine);
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

/*
 * The guest adds 1 to the first word of each page, @rounds times. KVM_RUN is
 * repeated where it fails with -EFAULT; @faults counts that.
 */
int machine_count_rounds(struct machine *machine, uint64_t count, uint32_t rounds, uint64_t *faults);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * A guest hypervisor (L1) that runs a guest of its own (L2) by VMX, both a few
 * instructions long. L1 executes VMPTRLD, VMLAUNCH and, when L2 has exited to it or
 * VMLAUNCH has failed, VMCLEAR. L2 writes 5 and 4 to CR8 and stops after each.
 */
#ifndef VMX_H
#define VMX_H

#include "machine.h"

/* What VMX needs in memory. One of the second line can be put elsewhere. */
enum page {
	PML4, PDPT, PAGE_DIRECTORY, VMXON_REGION,
	VMCS, VIRTUAL_APIC, MSR_BITMAP, APIC_ACCESS, POSTED_INTERRUPTS,
	LOW_PAGES
};

#define VMX_TPR 0x80 /* of the virtual-APIC page; CR8 is its upper half */

/* Nothing of it is for others to change. */
struct nested {
	struct machine machine;
	uint8_t *low;
	enum page moved;
	volatile uint8_t *hosts[LOW_PAGES]; /* where this program sees the page */
	uint64_t addresses[LOW_PAGES];
};

/* What KVM_RUN ends with: an OUT to a port, or KVM_EXIT_INTERNAL_ERROR. */
enum event { UNEXPECTED, INTERNAL_ERROR, L1_ENDS, L2_STOPS };

enum outcome { FAILED, ALLOWED, REFUSED, REPORTED, NOT_OFFERED };

/*
 * Make L1, with @moved at MACHINE_MEMORY, which is @memory for the guest and
 * @for_host here. Returns 0, -EOPNOTSUPP if KVM doesn't offer the guest what that
 * needs, or another negative errno after a message on stderr.
 */
int nested_create(struct nested *nested, enum page moved, void *memory, void *for_host);
void nested_destroy(struct nested *nested);

enum event nested_run(struct nested *nested);

/*
 * What @event, after which there is nothing left to do for L2, means: that L2 was
 * run and all its structures were used (ALLOWED), that VMLAUNCH failed as with an
 * invalid control (REFUSED), or that KVM_RUN did, before L2 (REPORTED).
 */
enum outcome nested_outcome(struct nested *nested, enum event event);

#endif

// SPDX-License-Identifier: MIT
/*
 * The VMCS is written to the guest's memory as KVM reads it from there, so that L1
 * needs no VMREAD and no VMWRITE.
 */
#include "vmx.h"
#include "test.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>


/* Intel's Software Developer's Manual, volume 3, 24 to 30 and appendix A. */
#define MSR_VMX_PROCBASED_CTLS2 0x48bu
#define MSR_VMX_TRUE_PINBASED_CTLS 0x48du
#define PIN_INTERRUPT_EXITS 1u
#define PIN_POSTED_INTERRUPTS (1u << 7)
#define PROCESSOR_TPR_SHADOW (1u << 21)
#define PROCESSOR_MSR_BITMAPS (1u << 28)
#define PROCESSOR_SECONDARY (1u << 31)
#define SECONDARY_APIC_ACCESSES 1u
#define SECONDARY_VIRTUAL_INTERRUPTS (1u << 9)
#define EXIT_HOST_64_BIT (1u << 9)
#define EXIT_ACKNOWLEDGES_INTERRUPT (1u << 15)
#define ENTRY_GUEST_64_BIT (1u << 9)
#define INVALID_CONTROL_FIELD 7
#define REASON_RDMSR 31
#define REASON_APIC_ACCESS 44
#define MSR_FS_BASE 0xc0000100u
#define READS_OF_HIGH_MSRS 1024 /* where they are in the MSR bitmap */
#define SPURIOUS_INTERRUPTS 0xf0 /* of an APIC, and its switch */
#define IRR 0x200
#define OUTSTANDING 32 /* of a posted-interrupt descriptor */
#define NOTIFICATION 0x50
#define POSTED 15 /* below any priority, so that L2 needs no handler */

#define CR0 0x80000031u /* PG, NE, ET, PE */
#define CR4 0x2020u	/* VMXE, PAE */
#define EFER 0x500u	/* LMA, LME */

/* What of it is used of KVM's VMCS, whose layout is its ABI: vmx/vmcs12.h. */
struct vmcs12 {
	uint32_t revision, abort, launch_state, reserved0[7];
	uint64_t io_bitmaps[2], msr_bitmap, msr_lists[3], tsc_offset;
	uint64_t virtual_apic_page, apic_access_page, posted_interrupts, reserved1[7], link, reserved2[30];
	uint64_t guest_cr0, guest_cr3, guest_cr4, reserved3[10];
	uint64_t guest_dr7, guest_rsp, guest_rip, guest_rflags, reserved4[3];
	uint64_t host_cr0, host_cr3, host_cr4, reserved5[8], host_rip, reserved6[8];
	uint32_t pin_based, processor_based, reserved7[4], exit, reserved8[2], entry, reserved9[5];
	uint32_t secondary, instruction_error, exit_reason, reserved10[6];
	uint32_t limits[10], access_rights[8], reserved11[12];
	uint16_t vpid, notification_vector, guest_selectors[8], interrupt_status, host_selectors[7];
} __attribute__((packed));

#define VMCS12_REVISION 0x11e57ed0u
_Static_assert(offsetof(struct vmcs12, guest_cr0) == 424, "see vmx_check_vmcs12_offsets()");
_Static_assert(offsetof(struct vmcs12, pin_based) == 744, "see vmx_check_vmcs12_offsets()");
_Static_assert(offsetof(struct vmcs12, limits) == 840, "see vmx_check_vmcs12_offsets()");
_Static_assert(offsetof(struct vmcs12, host_selectors) == 982, "see vmx_check_vmcs12_offsets()");

/* Where memslot 2 is, of all pages that are not moved. */
#define LOW 0x4000
#define AT(page) (LOW + (page) * PAGE_BYTES)

/* RDI: where the VMCS's address is. EBP: how often VMLAUNCH failed. */
static const uint8_t l1_code[] = {
	0x0f, 0xc7, 0x37,	/*  0: vmptrld (%rdi) */
	0x76, 0x09,		/*  3: jbe 14 */
	0x0f, 0x01, 0xc2,	/*  5: vmlaunch */
	0xff, 0xc5,		/*  8: inc %ebp */
	0x66, 0x0f, 0xc7, 0x37, /* 10: vmclear (%rdi) */
	0xe6, L1_ENDS,		/* 14: out */
};

/* EAX: the first priority. EBX: the APIC-access page or another. ECX: MSR_FS_BASE. */
static const uint8_t l2_code[] = {
	0x44, 0x0f, 0x22, 0xc0, /*  0: mov %rax,%cr8 */
	0xe6, L2_STOPS,		/*  4: out, which goes to this program, not to L1 */
	0xff, 0xc8,		/*  6: dec %eax */
	0x44, 0x0f, 0x22, 0xc0, /*  8: mov %rax,%cr8 */
	0xe6, L2_STOPS,		/* 12: out */
	0x0f, 0x32,		/* 14: rdmsr, which the MSR bitmap allows */
	0xff, 0xc1,		/* 16: inc %ecx */
	0x8b, 0x53, 0x20,	/* 18: mov 0x20(%rbx),%edx */
	0x0f, 0x32,		/* 21: rdmsr, which it doesn't */
};

#define L2_OFFSET 0x100
#define VMCS_ADDRESS_OFFSET 0x200

/* Make @controls what is wanted of it and what has to be set as well. */
static bool complete(int kvm, uint32_t msr, uint32_t *controls)
{
	struct kvm_msrs *msrs = calloc(1, sizeof(*msrs) + sizeof(msrs->entries[0]));
	uint64_t capability = 0;

	if (!msrs)
		return false;
	msrs->nmsrs = 1;
	msrs->entries[0].index = msr;
	if (ioctl(kvm, KVM_GET_MSRS, msrs) == 1)
		capability = msrs->entries[0].data;
	free(msrs);
	*controls |= (uint32_t)capability;
	return !(*controls & ~(capability >> 32));
}

static int fill_vmcs(struct nested *nested)
{
	bool posted = nested->moved == POSTED_INTERRUPTS;
	uint32_t pin_based = posted ? PIN_INTERRUPT_EXITS | PIN_POSTED_INTERRUPTS : 0;
	uint32_t processor_based = PROCESSOR_TPR_SHADOW | PROCESSOR_MSR_BITMAPS | PROCESSOR_SECONDARY;
	uint32_t secondary = posted ? SECONDARY_VIRTUAL_INTERRUPTS : 0;
	uint32_t exit = EXIT_HOST_64_BIT | (posted ? EXIT_ACKNOWLEDGES_INTERRUPT : 0), entry = ENTRY_GUEST_64_BIT;
	int kvm = nested->machine.kvm;

	if (nested->moved == APIC_ACCESS)
		secondary = SECONDARY_APIC_ACCESSES;
	if (!complete(kvm, MSR_VMX_TRUE_PINBASED_CTLS, &pin_based) ||
	    !complete(kvm, MSR_VMX_TRUE_PINBASED_CTLS + 1, &processor_based) ||
	    !complete(kvm, MSR_VMX_PROCBASED_CTLS2, &secondary) ||
	    !complete(kvm, MSR_VMX_TRUE_PINBASED_CTLS + 2, &exit) ||
	    !complete(kvm, MSR_VMX_TRUE_PINBASED_CTLS + 3, &entry))
		return -EOPNOTSUPP;
	struct vmcs12 vmcs = {
		.revision = VMCS12_REVISION,
		.msr_bitmap = nested->addresses[MSR_BITMAP],
		.virtual_apic_page = nested->addresses[VIRTUAL_APIC],
		.apic_access_page = nested->addresses[APIC_ACCESS],
		.posted_interrupts = nested->addresses[POSTED_INTERRUPTS],
		.notification_vector = NOTIFICATION,
		.link = ~0ull,
		.guest_cr0 = CR0, .guest_cr3 = AT(PML4), .guest_cr4 = CR4,
		.guest_dr7 = 0x400, .guest_rip = MACHINE_CODE + L2_OFFSET,
		/* Under Bochs the host's interrupts end L2 only if it takes interrupts. */
		.guest_rflags = 0x202,
		.host_cr0 = CR0, .host_cr3 = AT(PML4), .host_cr4 = CR4, .host_rip = MACHINE_CODE + 10,
		.pin_based = pin_based, .processor_based = processor_based, .secondary = secondary,
		.exit = exit, .entry = entry,
		/* ES, CS, SS, DS, FS, GS, LDTR, TR, GDTR, IDTR */
		.limits = { ~0u, ~0u, ~0u, ~0u, ~0u, ~0u, 0, 0x67, 0, 0 },
		.access_rights = { 0xc093, 0xa09b, 0xc093, 0xc093, 0xc093, 0xc093, 0x10000, 0x8b },
		.guest_selectors = { 16, 8, 16, 16, 16, 16, 0, 24 },
		.host_selectors = { 16, 8, 16, 16, 16, 16, 24 },
	};

	memcpy((void *)nested->hosts[VMCS], &vmcs, sizeof(vmcs));
	return 0;
}

/* For L2, and its notification, which L1 does not take before VMLAUNCH. */
static int post_interrupt(struct nested *nested)
{
	struct kvm_lapic_state apic;

	nested->hosts[POSTED_INTERRUPTS][POSTED / 8] = 1 << POSTED % 8;
	nested->hosts[POSTED_INTERRUPTS][OUTSTANDING] = 1;
	if (ioctl(nested->machine.vcpus[0], KVM_GET_LAPIC, &apic))
		return -errno;
	apic.regs[SPURIOUS_INTERRUPTS + 1] |= 1;
	apic.regs[IRR + NOTIFICATION / 32 * 16 + NOTIFICATION % 32 / 8] |= 1 << NOTIFICATION % 8;
	return ioctl(nested->machine.vcpus[0], KVM_SET_LAPIC, &apic) ? -errno : 0;
}

/* L1 in 64-bit mode, after VMXON, at its first instruction. */
static int prepare_l1(struct nested *nested)
{
	int vcpu = nested->machine.vcpus[0];
	struct kvm_nested_state state = {
		.format = KVM_STATE_NESTED_FORMAT_VMX,
		.size = sizeof(state),
		.hdr.vmx = { .vmxon_pa = AT(VMXON_REGION), .vmcs12_pa = ~0ull },
	};
	struct kvm_regs registers = {
		.rip = MACHINE_CODE,
		.rflags = 2,
		.rax = 5,
		.rbx = nested->addresses[APIC_ACCESS],
		.rcx = MSR_FS_BASE,
		.rdi = MACHINE_CODE + VMCS_ADDRESS_OFFSET,
	};
	struct kvm_sregs segments;

	if (machine_offer_features(&nested->machine) || ioctl(vcpu, KVM_GET_SREGS, &segments))
		return -errno;
	segments.cs.l = 1;
	segments.cs.db = 0;
	segments.cr0 = CR0;
	segments.cr3 = AT(PML4);
	segments.cr4 = CR4;
	segments.efer = EFER;
	/*
	 * For an APIC that isn't where it was at reset KVM uses no posted interrupts;
	 * Bochs takes no descriptor but one at the beginning of a page.
	 */
	segments.apic_base = 0xfed00900;
	if (ioctl(vcpu, KVM_SET_SREGS, &segments) || ioctl(vcpu, KVM_SET_REGS, &registers) ||
	    ioctl(vcpu, KVM_SET_NESTED_STATE, &state))
		return -errno;
	return nested->moved == POSTED_INTERRUPTS ? post_interrupt(nested) : 0;
}

void nested_destroy(struct nested *nested)
{
	machine_destroy(&nested->machine);
	munmap(nested->low, LOW_PAGES * PAGE_BYTES);
}

int nested_create(struct nested *nested, enum page moved, void *memory, void *for_host)
{
	/* MOV to CR8 goes to the virtual-APIC page only if L1 has a local APIC of KVM's. */
	struct kvm_enable_cap local_apics = { .cap = KVM_CAP_SPLIT_IRQCHIP, .args = { 24 } };
	int result = machine_create(&nested->machine, 0);

	if (result)
		return result;
	if (ioctl(nested->machine.vm, KVM_ENABLE_CAP, &local_apics))
		result = -errno;
	else
		result = machine_add_vcpu(&nested->machine);
	if (result) {
		machine_destroy(&nested->machine);
		return result;
	}
	nested->moved = moved;
	nested->low = mmap(NULL, LOW_PAGES * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (nested->low == MAP_FAILED)
		abort();
	for (enum page page = 0; page < LOW_PAGES; page++) {
		nested->hosts[page] = page == moved ? for_host : nested->low + page * PAGE_BYTES;
		nested->addresses[page] = page == moved ? MACHINE_MEMORY : AT(page);
	}
	memset(for_host, 0, PAGE_BYTES);
	uint64_t *tables = (uint64_t *)nested->low;

	/* All addresses as they are, by pages of 2 MiB. */
	tables[PML4 * 512] = AT(PDPT) | 3;
	tables[PDPT * 512] = AT(PAGE_DIRECTORY) | 3;
	for (uint64_t i = 0; i < 512; i++)
		tables[PAGE_DIRECTORY * 512 + i] = i << 21 | 0x83;
	nested->hosts[MSR_BITMAP][READS_OF_HIGH_MSRS + 0x101 / 8] = 1 << 0x101 % 8;
	memcpy(nested->machine.code, l1_code, sizeof(l1_code));
	memcpy(nested->machine.code + L2_OFFSET, l2_code, sizeof(l2_code));
	memcpy(nested->machine.code + VMCS_ADDRESS_OFFSET, &nested->addresses[VMCS], 8);
	result = machine_set_memory(&nested->machine, 2, LOW, nested->low, LOW_PAGES * PAGE_BYTES);
	if (!result)
		result = machine_set_memory(&nested->machine, 1, MACHINE_MEMORY, memory, PAGE_BYTES);
	if (!result)
		result = fill_vmcs(nested);
	if (!result)
		result = prepare_l1(nested);
	if (result)
		nested_destroy(nested);
	if (result && result != -EOPNOTSUPP)
		fprintf(stderr, "the nested guest can't be made: %s\n", strerror(-result));
	return result;
}

enum event nested_run(struct nested *nested)
{
	const struct kvm_run *run = nested->machine.runs[0];

	if (ioctl(nested->machine.vcpus[0], KVM_RUN, 0)) {
		perror("KVM_RUN");
		return UNEXPECTED;
	}
	if (run->exit_reason == KVM_EXIT_INTERNAL_ERROR)
		return INTERNAL_ERROR;
	if (run->exit_reason == KVM_EXIT_IO)
		return run->io.port;
	fprintf(stderr, "KVM_RUN: unexpected exit reason %u\n", run->exit_reason);
	return UNEXPECTED;
}

enum outcome nested_outcome(struct nested *nested, enum event event)
{
	bool apic_access = nested->moved == APIC_ACCESS, posted = nested->moved == POSTED_INTERRUPTS;
	uint8_t priority = nested->hosts[VIRTUAL_APIC][VMX_TPR];
	struct kvm_regs registers;
	struct vmcs12 vmcs;

	memcpy(&vmcs, (void *)nested->hosts[VMCS], sizeof(vmcs));
	if (ioctl(nested->machine.vcpus[0], KVM_GET_REGS, &registers))
		return FAILED;
	if (event == INTERNAL_ERROR && !priority)
		return REPORTED;
	if (event == L1_ENDS && registers.rbp && vmcs.instruction_error == INVALID_CONTROL_FIELD && !priority)
		return REFUSED;
	posted = !posted || (nested->hosts[VIRTUAL_APIC][IRR + POSTED / 8] == 1 << POSTED % 8 &&
			     !nested->hosts[POSTED_INTERRUPTS][OUTSTANDING]);
	if (event == L1_ENDS && !registers.rbp && priority == 0x40 && posted &&
	    vmcs.exit_reason == (apic_access ? REASON_APIC_ACCESS : REASON_RDMSR) &&
	    vmcs.guest_rip == MACHINE_CODE + L2_OFFSET + (apic_access ? 18 : 21))
		return ALLOWED;
	fprintf(stderr, "RIP 0x%llx; VMLAUNCH failed %llu times, error %u; L2's TPR 0x%x, exit reason 0x%x at 0x%llx\n",
		registers.rip, registers.rbp, vmcs.instruction_error, priority, vmcs.exit_reason,
		(unsigned long long)vmcs.guest_rip);
	return FAILED;
}

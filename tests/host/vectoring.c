// SPDX-License-Identifier: MIT
/*
 * What KVM does with MMIO just after an event was delivered, which is nothing
 * special, and with MMIO in the middle of a delivery, which it can't emulate and
 * has to report. Needs no GPU. See --help.
 */
#include "machine.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

/* In the page of the code, and one where the machine has no memory. */
#define HANDLER 0x1100
#define IDT 0x1400
#define STACK 0x1800
#define MMIO 0x8000
#define VECTOR 0x20

/* Real mode, as delivery needs no more than a vector and a stack there. */
static int start(struct machine *machine, const uint8_t *code, size_t size, uint64_t stack)
{
	static const uint8_t handler[] = {
		0xa3, MMIO & 0xff, MMIO >> 8, /* mov %ax,MMIO */
		0xf4,			      /* hlt */
	};
	struct kvm_regs registers = { .rip = MACHINE_CODE, .rflags = 0x202, .rsp = stack };
	struct kvm_segment segment = { .limit = 0xffff, .type = 3, .present = 1, .s = 1 };
	struct kvm_sregs special;
	uint16_t entry[2] = { HANDLER, 0 };

	if (machine_create(machine, 1))
		return -1;
	memcpy(machine->code, code, size);
	memcpy(machine->code + HANDLER - MACHINE_CODE, handler, sizeof(handler));
	memcpy(machine->code + IDT - MACHINE_CODE + VECTOR * sizeof(entry), entry, sizeof(entry));
	if (ioctl(machine->vcpus[0], KVM_GET_SREGS, &special)) {
		perror("KVM_GET_SREGS");
		return -1;
	}
	special.cr0 &= ~1ull;
	special.ds = special.es = special.fs = special.gs = special.ss = segment;
	segment.type = 11;
	special.cs = segment;
	special.idt.base = IDT;
	special.idt.limit = 0x3ff;
	if (ioctl(machine->vcpus[0], KVM_SET_SREGS, &special) || ioctl(machine->vcpus[0], KVM_SET_REGS, &registers)) {
		perror("setting the registers");
		return -1;
	}
	return 0;
}

/* A signal ends a vCPU that makes no progress. */
static int run(struct machine *machine)
{
	int error;

	machine_interrupt_repeatedly(true);
	error = ioctl(machine->vcpus[0], KVM_RUN, 0) ? errno : 0;
	machine_interrupt_repeatedly(false);
	return error;
}

static bool check(const char *what, const struct kvm_run *run, int error, bool good)
{
	printf("%-46s KVM_RUN: %s, exit reason %u, suberror %u%s\n", what, strerror(error), run->exit_reason,
	       run->exit_reason == KVM_EXIT_INTERNAL_ERROR ? run->internal.suberror : 0,
	       good ? "" : "  NOT AS EXPECTED");
	return good;
}

static bool mmio_after_delivery(void)
{
	static const uint8_t code[] = { 0xcd, VECTOR }; /* int $VECTOR */
	struct machine machine;

	if (start(&machine, code, sizeof(code), STACK))
		return false;
	int error = run(&machine);
	const struct kvm_run *exit = machine.runs[0];
	bool good = check("MMIO of a software interrupt's handler", exit, error,
			  !error && exit->exit_reason == KVM_EXIT_MMIO && exit->mmio.phys_addr == MMIO &&
				  exit->mmio.is_write && exit->mmio.len == 2);

	machine_destroy(&machine);
	return good;
}

static bool mmio_in_delivery(void)
{
	static const uint8_t code[] = { 0xeb, 0xfe }; /* jmp . */
	struct kvm_interrupt interrupt = { .irq = VECTOR };
	struct machine machine;

	if (start(&machine, code, sizeof(code), MMIO))
		return false;
	if (ioctl(machine.vcpus[0], KVM_INTERRUPT, &interrupt)) {
		perror("KVM_INTERRUPT");
		machine_destroy(&machine);
		return false;
	}
	int error = run(&machine);
	const struct kvm_run *exit = machine.runs[0];
	bool good = check("interrupt whose stack is MMIO", exit, error,
			  !error && exit->exit_reason == KVM_EXIT_INTERNAL_ERROR &&
				  exit->internal.suberror == KVM_INTERNAL_ERROR_DELIVERY_EV);

	machine_destroy(&machine);
	return good;
}

int main(int argc, char **argv)
{
	if (argc != 1) {
		printf("Usage: %s\n\n"
		       "MMIO just after the delivery of an event must reach the VMM, and MMIO in the\n"
		       "middle of a delivery must be reported. Exit status: 0 if so, 1 if not.\n",
		       argv[0]);
		return strcmp(argv[1], "--help") ? 2 : 0;
	}
	bool good = mmio_after_delivery();

	return mmio_in_delivery() && good ? 0 : 1;
}

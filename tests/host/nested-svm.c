// SPDX-License-Identifier: MIT
/*
 * Whether KVM keeps a mapping of its own to a page of a TTM buffer, which no
 * mmu_notifier protects: a guest executes VMRUN, VMLOAD and VMSAVE with a control
 * block (VMCB) in the buffer, and KVM has to map that, by kvm_vcpu_map(). The
 * block is empty, so VMRUN fails at once and no nested guest is needed. See
 * --help.
 */
#include "buffer.h"
#include "machine.h"
#include "pages.h"
#include "test.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#define PAGES 1024

#define PAGE_DIRECTORY 0x4000
#define HOST_SAVE_AREA 0x5000

/* AMD64 Architecture Programmer's Manual, volume 2, 15 and appendix B. */
#define EFER_SVME (1u << 12)
#define MSR_VM_HSAVE_PA 0xc0010117u
#define VMCB_EXIT_CODE 0x70
#define VMEXIT_INVALID (~0ull)

#define CR0_PE_PG 0x80000001u
#define CR4_PSE 0x10u

/* To refuse is an exception in the guest; newer kernels report it to the VMM. */
enum outcome { FAILED, ALLOWED, REFUSED, REPORTED };

static const char *const outcomes[] = { "failed", "allowed", "refused", "reported" };

static const struct {
	const char *name;
	uint8_t code[4];
} instructions[] = {
	{ "VMRUN", { 0x0f, 0x01, 0xd8, 0xf4 /* hlt */ } },
	{ "VMLOAD", { 0x0f, 0x01, 0xda, 0xf4 } },
	{ "VMSAVE", { 0x0f, 0x01, 0xdb, 0xf4 } },
};

#define INSTRUCTIONS (sizeof(instructions) / sizeof(instructions[0]))

static int set_host_save_area(struct machine *machine)
{
	struct kvm_msrs *msrs = calloc(1, sizeof(*msrs) + sizeof(msrs->entries[0]));

	if (!msrs)
		return -ENOMEM;
	msrs->nmsrs = 1;
	msrs->entries[0] = (struct kvm_msr_entry){ .index = MSR_VM_HSAVE_PA, .data = HOST_SAVE_AREA };
	int result = ioctl(machine->vcpus[0], KVM_SET_MSRS, msrs) == 1 ? 0 : -EIO;

	free(msrs);
	return result;
}

/* VMRUN wants paging: all addresses as they are, by pages of 4 MiB. */
static int prepare(struct machine *machine, uint32_t *page_directory)
{
	struct kvm_sregs registers;
	int result = machine_offer_features(machine);

	if (!result)
		result = machine_set_memory(machine, 2, PAGE_DIRECTORY, page_directory, PAGE_BYTES);
	if (result)
		return result;
	for (uint32_t i = 0; i < 1024; i++)
		page_directory[i] = i << 22 | 0x83;
	if (ioctl(machine->vcpus[0], KVM_GET_SREGS, &registers))
		return -errno;
	registers.cr0 |= CR0_PE_PG;
	registers.cr3 = PAGE_DIRECTORY;
	registers.cr4 |= CR4_PSE;
	registers.efer |= EFER_SVME;
	/* With no interrupt table an exception ends in a shutdown, which is seen here. */
	registers.idt.limit = 0;
	if (ioctl(machine->vcpus[0], KVM_SET_SREGS, &registers))
		return -errno;
	return set_host_save_area(machine);
}

/* With the VMCB in the first page of @memory, which is @for_host here. */
static enum outcome execute(unsigned int instruction, void *memory, const volatile void *for_host)
{
	struct kvm_regs registers = { .rip = MACHINE_CODE, .rflags = 2, .rax = MACHINE_MEMORY };
	const volatile uint64_t *exit_code = (const volatile void *)((const volatile char *)for_host + VMCB_EXIT_CODE);
	uint32_t *page_directory = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	enum outcome outcome = FAILED;
	struct machine machine;

	if (page_directory == MAP_FAILED || machine_create(&machine, 1))
		return FAILED;
	if (prepare(&machine, page_directory) || machine_set_memory(&machine, 1, MACHINE_MEMORY, memory, PAGE_BYTES)) {
		fputs("KVM gives the guest no SVM\n", stderr);
		goto out;
	}
	memcpy(machine.code, instructions[instruction].code, sizeof(instructions[instruction].code));
	if (ioctl(machine.vcpus[0], KVM_SET_REGS, &registers) || ioctl(machine.vcpus[0], KVM_RUN, 0)) {
		perror("KVM_RUN");
		goto out;
	}
	uint64_t expected = instruction ? 0 : VMEXIT_INVALID;

	if (machine.runs[0]->exit_reason == KVM_EXIT_HLT && *exit_code == expected)
		outcome = ALLOWED;
	else if (machine.runs[0]->exit_reason == KVM_EXIT_SHUTDOWN && *exit_code == 0)
		outcome = REFUSED;
	else if (machine.runs[0]->exit_reason == KVM_EXIT_INTERNAL_ERROR && *exit_code == 0)
		outcome = REPORTED;
	else
		fprintf(stderr, "exit reason %u, exit code 0x%llx\n", machine.runs[0]->exit_reason,
			(unsigned long long)*exit_code);
out:
	machine_destroy(&machine);
	munmap(page_directory, PAGE_BYTES);
	return outcome;
}

static enum outcome outcome_of(const char *name)
{
	for (enum outcome outcome = ALLOWED; outcome <= REPORTED; outcome++) {
		if (!strcmp(outcomes[outcome], name))
			return outcome;
	}
	return FAILED;
}

static void usage(FILE *stream)
{
	fputs("Usage: nested-svm [compound] allowed|refused|reported\n"
	      "Fail unless KVM treats a control block for VMRUN, VMLOAD and VMSAVE in a TTM\n"
	      "buffer like this, allows one in plain memory, and leaves no reference behind.\n"
	      "It is in the first page, which has a reference count; with compound in the\n"
	      "second page of a buffer of the TTM test driver.\n\n"
	      "Exit status: 0 as expected, 1 not so, 2 bad usage, 77 skipped.\n",
	      stream);
}

/* Returns 0 if all is as expected, 1 if not, SKIPPED after a message. */
static int check_buffer(bool compound, enum outcome expected, char *plain)
{
	const size_t offset = compound ? PAGE_BYTES : 0;
	static uint64_t pfns[PAGES];
	int32_t before, after;
	struct buffer buffer;
	bool good = true;
	const char *why;
	char driver[32];
	int node = node_open(NULL, driver, sizeof(driver));

	if (node < 0)
		return skip(NO_NODE);
	if ((compound && buffer_choose_kind(node, "compound")) ||
	    buffer_create(node, driver, BUFFER_DRM_FD, PAGES * PAGE_BYTES, &buffer)) {
		fprintf(stderr, "%s gives no buffer\n", driver);
		return 1;
	}
	char *for_guest = buffer_map(&buffer), *for_host = buffer_map(&buffer);

	if (!for_guest || !for_host) {
		perror("mmap of the buffer");
		return 1;
	}
	if (pages_fault_in(for_host, PAGES, pfns, &why) || pages_references(pfns, 1, &before, &why))
		return skip(why);
	if (!before)
		return skip("the first page has no reference count");
	for (unsigned int i = 0; i < INSTRUCTIONS; i++) {
		enum outcome in_plain = execute(i, plain, plain);
		enum outcome in_buffer = execute(i, for_guest + offset, for_host + offset);
		bool kept = pages_references(pfns, 1, &after, &why) || after != before;

		printf("VMCB of %s in plain memory: %s; in a buffer of %s: %s%s\n", instructions[i].name,
		       outcomes[in_plain], driver, outcomes[in_buffer], kept ? "; A REFERENCE IS LEFT" : "");
		good &= in_plain == ALLOWED && in_buffer == expected && !kept;
		memset(plain, 0, PAGE_BYTES);
		memset(for_host + offset, 0, PAGE_BYTES);
	}
	return good ? 0 : 1;
}

int main(int argc, char **argv)
{
	bool compound = argc == 3 && !strcmp(argv[1], "compound");
	enum outcome expected = argc == 2 || compound ? outcome_of(argv[argc - 1]) : FAILED;

	if (argc == 2 && !strcmp(argv[1], "--help")) {
		usage(stdout);
		return 0;
	}
	if (expected == FAILED) {
		usage(stderr);
		return 2;
	}
	char *plain = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (plain == MAP_FAILED) {
		perror("mmap");
		return 1;
	}
	/* Without KVM nothing else can be said. */
	if (execute(0, plain, plain) == FAILED)
		return 1;
	memset(plain, 0, PAGE_BYTES);
	return check_buffer(compound, expected, plain);
}

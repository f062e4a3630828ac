// SPDX-License-Identifier: MIT
/*
 * A guest keeps a page directory in a TTM buffer and changes an entry by the x87,
 * while it is on another directory. With shadow paging KVM watches the page, can't
 * emulate the store, and has to let the CPU do it. See --help.
 */
#include "buffer.h"
#include "machine.h"
#include "test.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#define PAGE_WORDS (PAGE_BYTES / sizeof(uint32_t))
#define PAGES 1024

#define OTHER_DIRECTORY 0x4000
#define MAPPED 0x20000000u
#define ENTRY (MAPPED >> 22)

#define CR0_PE_PG 0x80000001u
#define CR4_PSE 0x10u

#define FIRST 0x5eed0000u
#define SECOND 0x5eee0000u

/* The pages of the memory under test; none is the head of a block but the first. */
enum page { FIRST_DATA, DIRECTORY, SECOND_DATA, FIRST_TABLE, SECOND_TABLE, SCRATCH };

static uint32_t address_of(enum page page)
{
	return MACHINE_MEMORY + (uint32_t)page * PAGE_BYTES;
}

static const uint8_t code[] = {
	0x8b, 0x03,	  /* mov (%ebx),%eax: KVM shadows the directory */
	0x0f, 0x22, 0xda, /* mov %edx,%cr3: the other one */
	0xdb, 0x06,	  /* fildl (%esi) */
	0xdb, 0x1f,	  /* fistpl (%edi): the entry */
	0x0f, 0x22, 0xd9, /* mov %ecx,%cr3 */
	0x8b, 0x2b,	  /* mov (%ebx),%ebp */
	0xf4,		  /* hlt */
};

static int start(struct machine *machine, volatile uint32_t *memory, uint32_t *other_directory)
{
	struct kvm_regs registers = {
		.rip = MACHINE_CODE,
		.rflags = 2,
		.rbx = MAPPED,
		.rcx = address_of(DIRECTORY),
		.rdx = OTHER_DIRECTORY,
		.rsi = address_of(SCRATCH),
		.rdi = address_of(DIRECTORY) + ENTRY * sizeof(uint32_t),
	};
	struct kvm_sregs special;

	/* All addresses as they are, by pages of 4 MiB, but MAPPED. */
	for (uint32_t i = 0; i < PAGE_WORDS; i++)
		memory[DIRECTORY * PAGE_WORDS + i] = other_directory[i] = i << 22 | 0x83;
	memory[DIRECTORY * PAGE_WORDS + ENTRY] = address_of(FIRST_TABLE) | 3;
	memory[FIRST_TABLE * PAGE_WORDS] = address_of(FIRST_DATA) | 3;
	memory[SECOND_TABLE * PAGE_WORDS] = address_of(SECOND_DATA) | 3;
	memory[FIRST_DATA * PAGE_WORDS] = FIRST;
	memory[SECOND_DATA * PAGE_WORDS] = SECOND;
	memory[SCRATCH * PAGE_WORDS] = address_of(SECOND_TABLE) | 3;

	memcpy(machine->code, code, sizeof(code));
	int result = machine_set_memory(machine, 1, MACHINE_MEMORY, (void *)memory, PAGES * PAGE_BYTES);

	if (!result)
		result = machine_set_memory(machine, 2, OTHER_DIRECTORY, other_directory, PAGE_BYTES);
	if (result)
		return result;
	if (ioctl(machine->vcpus[0], KVM_GET_SREGS, &special))
		return -errno;
	special.cr0 |= CR0_PE_PG;
	special.cr3 = address_of(DIRECTORY);
	special.cr4 |= CR4_PSE;
	/* With no interrupt table an exception ends in a shutdown, which is seen here. */
	special.idt.limit = 0;
	return ioctl(machine->vcpus[0], KVM_SET_SREGS, &special) || ioctl(machine->vcpus[0], KVM_SET_REGS, &registers) ?
		       -errno : 0;
}

static bool check(const char *what, volatile uint32_t *memory)
{
	uint32_t *other_directory = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct kvm_regs registers = { 0 };
	struct machine machine;
	int error = 0;

	if (other_directory == MAP_FAILED || machine_create(&machine, 1) || start(&machine, memory, other_directory)) {
		fputs("KVM starts no guest\n", stderr);
		return false;
	}
	if (ioctl(machine.vcpus[0], KVM_RUN, 0) || ioctl(machine.vcpus[0], KVM_GET_REGS, &registers))
		error = errno;
	const struct kvm_run *run = machine.runs[0];
	bool good = !error && run->exit_reason == KVM_EXIT_HLT && registers.rax == FIRST && registers.rbp == SECOND;

	printf("page directory in %s: KVM_RUN: %s, exit reason %u, read %#llx and %#llx%s\n", what, strerror(error),
	       run->exit_reason, registers.rax, registers.rbp, good ? "" : "  NOT AS EXPECTED");
	machine_destroy(&machine);
	munmap(other_directory, PAGE_BYTES);
	return good;
}

int main(int argc, char **argv)
{
	struct buffer buffer;
	char driver[32];

	if (argc != 1) {
		printf("Usage: %s\n\n"
		       "A guest changes a page directory in a TTM buffer by an instruction that KVM\n"
		       "can't emulate. Only with shadow paging (kvm_amd.npt=0, kvm_intel.ept=0) does KVM\n"
		       "have to. Exit status: 0 if that works, 1 if not, 77 if there is no buffer.\n",
		       argv[0]);
		return strcmp(argv[1], "--help") ? 2 : 0;
	}
	void *plain = mmap(NULL, PAGES * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (plain == MAP_FAILED || !check("plain memory", plain))
		return 1;
	int node = node_open(NULL, driver, sizeof(driver));

	if (node < 0)
		return skip(NO_NODE);
	void *memory = buffer_create(node, driver, BUFFER_DRM_FD, PAGES * PAGE_BYTES, &buffer) ? NULL : buffer_map(&buffer);

	if (!memory) {
		fprintf(stderr, "%s gives no buffer\n", driver);
		return 1;
	}
	return check("a buffer", memory) ? 0 : 1;
}

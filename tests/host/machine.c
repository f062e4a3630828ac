// SPDX-License-Identifier: MIT
/*
 * Drives /dev/kvm with no VMM in between, so that what is measured is KVM. The
 * guest's loops stop at nothing but an error, a word that differs (port 1) and
 * their end (HLT).
 */
#include "machine.h"
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>

#define CODE_BYTES (2 * PAGE_BYTES) /* the second page: how many rounds there were */

/* EBX: address, ESI: value, EDI: end. After a fault the guest goes on at `next`. */
struct loop {
	uint8_t code[24];
	uint8_t next;
};

static const struct loop read_loop = {
	.code = {
		0x8b, 0x03,			    /*	0: mov (%ebx),%eax */
		0x39, 0xf0,			    /*	2: cmp %esi,%eax */
		0x74, 0x02,			    /*	4: je 8 */
		0xe6, 0x01,			    /*	6: out %al,$1 */
		0x81, 0xc3, 0x00, 0x10, 0x00, 0x00, /*	8: add $4096,%ebx */
		0x46,				    /* 14: inc %esi */
		0x39, 0xfb,			    /* 15: cmp %edi,%ebx */
		0x72, 0xed,			    /* 17: jb 0 */
		0xf4,				    /* 19: hlt */
	},
	.next = 8,
};

static const struct loop write_loop = {
	.code = {
		0x89, 0x73, 0x08,		    /*	0: mov %esi,8(%ebx) */
		0x81, 0xc3, 0x00, 0x10, 0x00, 0x00, /*	3: add $4096,%ebx */
		0x46,				    /*	9: inc %esi */
		0x39, 0xfb,			    /* 10: cmp %edi,%ebx */
		0x72, 0xf2,			    /* 12: jb 0 */
		0xf4,				    /* 14: hlt */
	},
	.next = 3,
};

static const struct loop x87_loop = {
	.code = {
		0xd9, 0xe8,			    /*	0: fld1 */
		0xd9, 0x5b, 0x08,		    /*	2: fstps 8(%ebx) */
		0x8b, 0x03,			    /*	5: mov (%ebx),%eax */
		0x81, 0xc3, 0x00, 0x10, 0x00, 0x00, /*	7: add $4096,%ebx */
		0x39, 0xfb,			    /* 13: cmp %edi,%ebx */
		0x72, 0xef,			    /* 15: jb 0 */
		0xf4,				    /* 17: hlt */
	},
	.next = 7,
};

static int failed(const char *what)
{
	int error = errno;

	fprintf(stderr, "%s: %s\n", what, strerror(error));
	return -error;
}

int machine_set_memory(struct machine *machine, uint32_t slot, uint64_t address, void *memory,
		       uint64_t size)
{
	struct kvm_userspace_memory_region region = { .slot = slot };

	/* Deleting a slot that there is not gives EINVAL, and does no harm. */
	ioctl(machine->vm, KVM_SET_USER_MEMORY_REGION, &region);
	region.guest_phys_addr = address;
	region.memory_size = size;
	region.userspace_addr = (uint64_t)(uintptr_t)memory;
	return ioctl(machine->vm, KVM_SET_USER_MEMORY_REGION, &region) ?
		       failed("KVM_SET_USER_MEMORY_REGION") : 0;
}

static int enter_protected_mode(int vcpu)
{
	struct kvm_segment flat = {
		.limit = 0xffffffff, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1, .selector = 16,
	};
	struct kvm_sregs registers;

	if (ioctl(vcpu, KVM_GET_SREGS, &registers))
		return failed("KVM_GET_SREGS");
	registers.ds = registers.es = registers.fs = registers.gs = registers.ss = flat;
	flat.type = 11;
	flat.selector = 8;
	registers.cs = flat;
	registers.cr0 |= 1;
	return ioctl(vcpu, KVM_SET_SREGS, &registers) ? failed("KVM_SET_SREGS") : 0;
}

int machine_add_vcpu(struct machine *machine)
{
	unsigned int i = machine->vcpu_count;

	machine->vcpus[i] = ioctl(machine->vm, KVM_CREATE_VCPU, i);
	if (machine->vcpus[i] < 0)
		return failed("KVM_CREATE_VCPU");
	machine->runs[i] = mmap(NULL, (size_t)machine->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, machine->vcpus[i], 0);
	if (machine->runs[i] == MAP_FAILED) {
		close(machine->vcpus[i]);
		return failed("mmap of the vCPU");
	}
	machine->vcpu_count++;
	return enter_protected_mode(machine->vcpus[i]);
}

static bool honor_guest_pat;

void machine_honor_guest_pat(void)
{
	honor_guest_pat = true;
}

static int disable_quirk(int vm)
{
	struct kvm_enable_cap quirk = {
		.cap = KVM_CAP_DISABLE_QUIRKS2, .args = { 1 << 9 /* KVM_X86_QUIRK_IGNORE_GUEST_PAT */ },
	};

	return ioctl(vm, KVM_ENABLE_CAP, &quirk) ? failed("to have the guest's PAT honored") : 0;
}

int machine_create(struct machine *machine, unsigned int vcpus)
{
	int result;

	*machine = (struct machine){ .kvm = -1, .vm = -1 };
	machine->code = mmap(NULL, CODE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (machine->code == MAP_FAILED) {
		machine->code = NULL;
		return failed("mmap");
	}
	machine->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (machine->kvm < 0) {
		result = failed("/dev/kvm");
		goto error;
	}
	machine->run_size = ioctl(machine->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (machine->run_size <= 0) {
		result = failed("KVM_GET_VCPU_MMAP_SIZE");
		goto error;
	}
	machine->vm = ioctl(machine->kvm, KVM_CREATE_VM, 0);
	if (machine->vm < 0) {
		result = failed("KVM_CREATE_VM");
		goto error;
	}
	result = honor_guest_pat ? disable_quirk(machine->vm) : 0;
	if (result)
		goto error;
	/* VMX without unrestricted guest needs both; out of the way of the slots. */
	uint64_t identity_map = 0xfffbc000;

	ioctl(machine->vm, KVM_SET_TSS_ADDR, 0xfffbd000);
	ioctl(machine->vm, KVM_SET_IDENTITY_MAP_ADDR, &identity_map);
	result = machine_set_memory(machine, 0, MACHINE_CODE, machine->code, CODE_BYTES);
	if (result)
		goto error;
	while (machine->vcpu_count < vcpus) {
		result = machine_add_vcpu(machine);
		if (result)
			goto error;
	}
	return 0;
error:
	machine_destroy(machine);
	return result;
}

int machine_offer_features(struct machine *machine)
{
	enum { ENTRIES = 100 };
	struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) + ENTRIES * sizeof(cpuid->entries[0]));
	int result = -ENOMEM;

	if (!cpuid)
		return result;
	cpuid->nent = ENTRIES;
	result = ioctl(machine->kvm, KVM_GET_SUPPORTED_CPUID, cpuid) ||
		 ioctl(machine->vcpus[0], KVM_SET_CPUID2, cpuid) ? failed("KVM_SET_CPUID2") : 0;
	free(cpuid);
	return result;
}

int machine_tell_faults(struct machine *machine)
{
	struct kvm_enable_cap faults = {
		.cap = 232 /* KVM_CAP_MEMORY_FAULT_INFO */, .args = { 1 << 1 /* KVM_MEMORY_FAULT_INFO_HOST */ },
	};

	return ioctl(machine->vm, KVM_ENABLE_CAP, &faults) ? -errno : 0;
}

void machine_destroy(struct machine *machine)
{
	for (unsigned int i = 0; i < machine->vcpu_count; i++) {
		munmap(machine->runs[i], (size_t)machine->run_size);
		close(machine->vcpus[i]);
	}
	if (machine->vm >= 0)
		close(machine->vm);
	if (machine->kvm >= 0)
		close(machine->kvm);
	if (machine->code)
		munmap(machine->code, CODE_BYTES);
}

static int run_loop(struct machine *machine, const struct loop *loop, uint64_t count, uint32_t first,
		    enum page_result *results)
{
	struct kvm_regs registers = {
		.rip = MACHINE_CODE,
		.rflags = 2,
		.rbx = MACHINE_MEMORY,
		.rsi = first,
		.rdi = MACHINE_MEMORY + count * PAGE_BYTES,
	};

	memcpy(machine->code, loop->code, sizeof(loop->code));
	for (uint64_t page = 0; page < count; page++)
		results[page] = PAGE_REACHED;
	if (ioctl(machine->vcpus[0], KVM_SET_REGS, &registers))
		return failed("KVM_SET_REGS");

	for (;;) {
		struct kvm_run *run = machine->runs[0];

		run->exit_reason = KVM_EXIT_UNKNOWN;
		int faulted = ioctl(machine->vcpus[0], KVM_RUN, 0) ? errno : 0;

		if (faulted && faulted != EFAULT)
			return failed("KVM_RUN");
		if (!faulted && run->exit_reason == KVM_EXIT_HLT)
			return 0;
		if (!faulted && run->exit_reason != KVM_EXIT_IO) {
			fprintf(stderr, "KVM_RUN: unexpected exit reason %u\n", run->exit_reason);
			return -EPROTO;
		}
		if (ioctl(machine->vcpus[0], KVM_GET_REGS, &registers))
			return failed("KVM_GET_REGS");
		uint64_t page = (registers.rbx - MACHINE_MEMORY) / PAGE_BYTES;

		if (page >= count) {
			fprintf(stderr, "KVM_RUN: fault outside of the memory under test\n");
			return -EPROTO;
		}
		results[page] = faulted ? PAGE_FAULT : PAGE_WRONG_DATA;
		machine->faults_told += faulted && run->exit_reason == KVM_EXIT_MEMORY_FAULT &&
					run->memory_fault.gpa == MACHINE_MEMORY + page * PAGE_BYTES &&
					run->memory_fault.size == PAGE_BYTES;
		if (!faulted)
			continue;
		registers.rip = MACHINE_CODE + loop->next;
		if (ioctl(machine->vcpus[0], KVM_SET_REGS, &registers))
			return failed("KVM_SET_REGS");
	}
}

int machine_read_pages(struct machine *machine, uint64_t count, uint32_t first,
		       enum page_result *results)
{
	return run_loop(machine, &read_loop, count, first, results);
}

uint32_t machine_rounds(const struct machine *machine, unsigned int vcpu)
{
	return ((const volatile uint32_t *)(machine->code + PAGE_BYTES))[vcpu];
}

bool machine_ended(const struct machine *machine, unsigned int vcpu)
{
	return atomic_load(&machine->states[vcpu]) == MACHINE_ENDED;
}

int machine_count(struct machine *machine, unsigned int vcpu, uint64_t count, struct machine_counts *counts)
{
	/* By the x87, because KVM cannot emulate that: a write has to find its page. */
	static const uint8_t code[] = {
		0xdb, 0x04, 0x2b,		    /*	0: fildl (%ebx,%ebp) */
		0xd9, 0xe8,			    /*	3: fld1 */
		0xde, 0xc1,			    /*	5: faddp */
		0xdb, 0x1c, 0x2b,		    /*	7: fistpl (%ebx,%ebp) */
		0x81, 0xc3, 0x00, 0x10, 0x00, 0x00, /* 10: add $4096,%ebx */
		0x39, 0xfb,			    /* 16: cmp %edi,%ebx */
		0x72, 0xec,			    /* 18: jb 0 */
		0x89, 0xf3,			    /* 20: mov %esi,%ebx */
		0xff, 0x85, 0x00, 0x20, 0x00, 0x00, /* 22: incl 0x2000(%ebp) */
		0xeb, 0xe2,			    /* 28: jmp 0 */
	};
	struct kvm_regs registers = {
		.rip = MACHINE_CODE,
		.rflags = 0x202, /* Bochs keeps an interrupt that should end the guest till the guest takes them */
		.rbx = MACHINE_MEMORY,
		.rsi = MACHINE_MEMORY,
		.rdi = MACHINE_MEMORY + count * PAGE_BYTES,
		.rbp = vcpu * sizeof(uint32_t),
	};
	struct kvm_run *run = machine->runs[vcpu];
	int result = 0;

	*counts = (struct machine_counts){ 0 };
	memcpy(machine->code, code, sizeof(code));
	if (ioctl(machine->vcpus[vcpu], KVM_SET_REGS, &registers))
		return failed("KVM_SET_REGS");
	machine->threads[vcpu] = pthread_self();
	atomic_store(&machine->states[vcpu], MACHINE_COUNTS);
	while (!atomic_load(&machine->stopped) && !result) {
		if (!ioctl(machine->vcpus[vcpu], KVM_RUN, 0)) {
			fprintf(stderr, "KVM_RUN: unexpected exit reason %u\n", run->exit_reason);
			result = -EPROTO;
		} else if (errno == EFAULT) {
			counts->faults++;
		} else if (errno != EINTR) {
			result = failed("KVM_RUN");
		}
	}
	atomic_store(&machine->states[vcpu], MACHINE_ENDED);
	if (ioctl(machine->vcpus[vcpu], KVM_GET_REGS, &registers))
		return failed("KVM_GET_REGS");
	counts->rounds = machine_rounds(machine, vcpu);
	counts->pages = (registers.rbx - MACHINE_MEMORY) / PAGE_BYTES + (registers.rip == MACHINE_CODE + 10);
	if (registers.rip == MACHINE_CODE + 22)
		counts->pages = count;
	return result;
}

/* The value that KVM's binary statistics of @fd, a VM or a vCPU, have for @name. */
static int read_statistic(int fd, const char *name, uint64_t *value)
{
	struct kvm_stats_header header;
	int result = -ENOENT, stats = ioctl(fd, KVM_GET_STATS_FD, NULL);

	if (stats < 0)
		return failed("KVM_GET_STATS_FD");
	if (pread(stats, &header, sizeof(header), 0) != sizeof(header))
		header.num_desc = 0;
	for (uint32_t i = 0; i < header.num_desc && result == -ENOENT; i++) {
		uint8_t bytes[sizeof(struct kvm_stats_desc) + 64] = { 0 };
		struct kvm_stats_desc *description = (struct kvm_stats_desc *)bytes;
		size_t size = sizeof(*description) + header.name_size;

		if (size >= sizeof(bytes) ||
		    pread(stats, bytes, size, header.desc_offset + (off_t)(i * size)) != (ssize_t)size)
			result = -EIO;
		else if (!strcmp(description->name, name))
			result = pread(stats, value, sizeof(*value), (off_t)header.data_offset + description->offset) ==
						 sizeof(*value) ? 0 : -EIO;
	}
	close(stats);
	if (result)
		fprintf(stderr, "KVM's statistics: %s: %s\n", name, strerror(-result));
	return result;
}

int machine_get_figures(const struct machine *machine, struct machine_figures *figures)
{
	int result = read_statistic(machine->vcpus[0], "pf_fixed", &figures->faults);

	if (!result)
		result = read_statistic(machine->vcpus[0], "exits", &figures->exits);
	if (!result)
		result = read_statistic(machine->vm, "pages_4k", &figures->pages_4k);
	return result ? result : read_statistic(machine->vm, "pages_2m", &figures->pages_2m);
}

static void wake(int signal)
{
	(void)signal;
}

void machine_interrupt_repeatedly(bool on)
{
	struct itimerval timer = { .it_value.tv_usec = on ? 100000 : 0, .it_interval.tv_usec = on ? 100000 : 0 };
	struct sigaction action = { .sa_handler = wake };

	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &timer, NULL);
}

void machine_stop(struct machine *machine)
{
	struct sigaction action = { .sa_handler = wake };

	sigaction(SIGUSR1, &action, NULL);
	atomic_store(&machine->stopped, true);
	for (unsigned int i = 0; i < machine->vcpu_count; i++) {
		/* If the signal comes before KVM_RUN, this ends it. */
		machine->runs[i]->immediate_exit = 1;
		if (atomic_load(&machine->states[i]) == MACHINE_COUNTS)
			pthread_kill(machine->threads[i], SIGUSR1);
	}
}

int machine_store_x87(struct machine *machine, uint64_t count, enum page_result *results)
{
	return run_loop(machine, &x87_loop, count, 0, results);
}

int machine_write_pages(struct machine *machine, uint64_t count, uint32_t first,
			enum page_result *results)
{
	return run_loop(machine, &write_loop, count, first, results);
}

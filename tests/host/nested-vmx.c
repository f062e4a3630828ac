// SPDX-License-Identifier: MIT
/*
 * Whether KVM keeps a mapping of its own to a page of a TTM buffer, which no
 * mmu_notifier protects: a guest hypervisor (L1) runs a guest of its own (L2) by
 * VMLAUNCH, with one of the structures that control it in the buffer. KVM maps
 * those by kvm_vcpu_map(), and the virtual-APIC page for as long as L2 runs. See
 * --help.
 */
#include "buffer.h"
#include "pages.h"
#include "test.h"
#include "vmx.h"

#include <errno.h>
#include <hostblob_ttm.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xf86drm.h>

#define PAGES 64
#define PATTERN 0x5a5a5a5au

static const char *const outcomes[] = {
	"failed", "allowed", "refused: VMLAUNCH fails", "reported: KVM_EXIT_INTERNAL_ERROR", "not offered",
};

/* How KVM does without a mapping is another matter for each of them. */
static const struct {
	enum page page;
	const char *name;
	enum outcome unmapped;
} structures[] = {
	{ VMCS, "VMCS", ALLOWED }, /* KVM copies it */
	{ VIRTUAL_APIC, "virtual-APIC page", REFUSED },
	{ MSR_BITMAP, "MSR bitmap", ALLOWED }, /* KVM looks at it at each access to an MSR */
	{ APIC_ACCESS, "APIC-access page", REPORTED },
	{ POSTED_INTERRUPTS, "posted-interrupt descriptor", REPORTED }, /* when an interrupt comes */
};

#define STRUCTURES (sizeof(structures) / sizeof(structures[0]))

static enum outcome execute(enum page in_buffer, void *memory, void *for_host)
{
	struct nested nested;
	int result = nested_create(&nested, in_buffer, memory, for_host);

	if (result)
		return result == -EOPNOTSUPP ? NOT_OFFERED : FAILED;
	enum event event = nested_run(&nested);

	for (unsigned int i = 0; i < 2 && event == L2_STOPS; i++)
		event = nested_run(&nested);
	enum outcome outcome = nested_outcome(&nested, event);

	nested_destroy(&nested);
	return outcome;
}

static int make_buffer(bool write_combined, int *node, struct buffer *buffer)
{
	char driver[32];

	*node = node_open(NULL, driver, sizeof(driver));
	if (*node < 0)
		return *node;
	int result = write_combined ? buffer_choose_kind(*node, "write-combined") : 0;

	if (result)
		return result;
	/* Older kernels can't map the dma-bufs of some drivers. */
	result = buffer_create(*node, driver, BUFFER_DMA_BUF, PAGES * PAGE_BYTES, buffer);
	return result ? buffer_create(*node, driver, BUFFER_DRM_FD, PAGES * PAGE_BYTES, buffer) : result;
}

/*
 * Another process, which stops before it creates a buffer of its own and again
 * when that is filled. It exits with 1 if somebody else has written to it then.
 */
static int other_process(void)
{
	const size_t count = PAGES * PAGE_BYTES / sizeof(uint32_t);
	size_t written = 0, first = 0;
	struct buffer buffer;
	int node;

	raise(SIGSTOP);
	volatile uint32_t *words = make_buffer(true, &node, &buffer) ? NULL : buffer_map(&buffer);

	if (!words)
		return 2;
	for (size_t i = 0; i < count; i++)
		words[i] = PATTERN;
	raise(SIGSTOP);
	for (size_t i = count; i-- > 0;) {
		written += words[i] != PATTERN;
		first = words[i] != PATTERN ? i : first;
	}
	printf("the other process's buffer: %zu words written to", written);
	if (written)
		printf(", the first at 0x%zx: 0x%x", first * sizeof(uint32_t), words[first]);
	putchar('\n');
	return written ? 1 : 0;
}

/* Until the other process stops again, or ends; returns what waitpid() says. */
static int let_other_go_on(pid_t other)
{
	int status = 0;

	kill(other, SIGCONT);
	waitpid(other, &status, WUNTRACED);
	return status;
}

static bool take_away(bool swap_out, int node, struct buffer *buffer, void *for_guest, void *for_host)
{
	uint32_t pages;

	if (swap_out)
		return test_driver_request(node, buffer, HOSTBLOB_TTM_SWAP_OUT, 0, &pages) && pages == PAGES;
	return !munmap(for_guest, buffer->size) && !munmap(for_host, buffer->size) && !close(buffer->fd) && !close(node);
}

/* Takes the buffer away while L2 runs with its virtual-APIC page there. */
static int write_to_others(bool swap_out, bool expected)
{
	/* Before there is a mapping that it would inherit. */
	pid_t other = fork();
	struct nested nested;
	struct buffer buffer;
	int node, status = 0;

	if (!other)
		exit(other_process());
	waitpid(other, &status, WUNTRACED);
	if (make_buffer(true, &node, &buffer)) {
		kill(other, SIGKILL);
		return skip("no TTM test driver here");
	}
	void *for_guest = buffer_map(&buffer), *for_host = buffer_map(&buffer);

	if (!for_guest || !for_host || nested_create(&nested, VIRTUAL_APIC, for_guest, for_host))
		goto failed;
	enum event event = nested_run(&nested);

	if (event != L2_STOPS) {
		enum outcome outcome = nested_outcome(&nested, event);

		printf("virtual-APIC page in the buffer: %s; nothing is written to others\n", outcomes[outcome]);
		kill(other, SIGKILL);
		nested_destroy(&nested);
		return outcome == REFUSED && !expected ? 0 : 1;
	}
	if (nested.hosts[VIRTUAL_APIC][VMX_TPR] != 0x50 || !take_away(swap_out, node, &buffer, for_guest, for_host) ||
	    !WIFSTOPPED(let_other_go_on(other)) || nested_run(&nested) != L2_STOPS)
		goto failed;
	printf("L2 runs, the buffer is %s, L2 goes on; ", swap_out ? "swapped out" : "freed");
	fflush(stdout);
	status = let_other_go_on(other);
	nested_destroy(&nested);
	return expected && WIFEXITED(status) && WEXITSTATUS(status) == 1 ? 0 : 1;
failed:
	perror("a buffer, or L2 on it");
	kill(other, SIGKILL);
	return 1;
}

static int use_structures(void *plain, bool mapped)
{
	static uint64_t pfns[PAGES];
	int32_t before, after;
	struct buffer buffer;
	bool good = true;
	const char *why;
	int node;

	if (make_buffer(false, &node, &buffer))
		return skip(NO_NODE);
	char *for_guest = buffer_map(&buffer), *for_host = buffer_map(&buffer);

	if (!for_guest || !for_host) {
		perror("mmap of the buffer");
		return 1;
	}
	if (pages_fault_in(for_host, PAGES, pfns, &why) || pages_references(pfns, 1, &before, &why) || !before)
		return skip(why);
	for (unsigned int i = 0; i < STRUCTURES; i++) {
		enum outcome expected = mapped ? ALLOWED : structures[i].unmapped;
		enum outcome in_plain = execute(structures[i].page, plain, plain);
		enum outcome in_buffer = execute(structures[i].page, for_guest, for_host);

		printf("%s in plain memory: %s; in a buffer: %s\n", structures[i].name, outcomes[in_plain],
		       outcomes[in_buffer]);
		if (in_plain == NOT_OFFERED && structures[i].page == POSTED_INTERRUPTS)
			continue;
		good &= in_plain == ALLOWED && in_buffer == expected;
	}
	if (pages_references(pfns, 1, &after, &why) || after != before) {
		puts("A REFERENCE IS LEFT");
		good = false;
	}
	return good ? 0 : 1;
}

int main(int argc, char **argv)
{
	const char *outcome = argc > 1 ? argv[argc - 1] : "";
	bool help = !strcmp(outcome, "--help"), refused = !strcmp(outcome, "refused");
	bool structures_wanted = argc == 2 && (refused || !strcmp(outcome, "allowed"));
	bool write_wanted = argc == 3 && (refused || !strcmp(outcome, "written")) &&
			    (!strcmp(argv[1], "swap-out") || !strcmp(argv[1], "free"));

	if (structures_wanted || write_wanted) {
		void *plain = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

		if (plain == MAP_FAILED)
			return 1;
		if (access("/sys/module/kvm_intel", F_OK) || execute(VMCS, plain, plain) == NOT_OFFERED)
			return skip("KVM offers its guests no VMX here");
		return write_wanted ? write_to_others(!strcmp(argv[1], "swap-out"), !refused) :
				      use_structures(plain, !refused);
	}
	fputs("Usage: nested-vmx allowed|refused\n"
	      "       nested-vmx swap-out|free written|refused\n"
	      "Fail unless KVM treats what controls a nested guest in a TTM buffer like this,\n"
	      "allows it in plain memory, and leaves no reference behind: the VMCS, and the pages\n"
	      "that it names. Where KVM refuses to map one it may do without.\n\n"
	      "With swap-out or free: the nested guest runs with its virtual-APIC page in a\n"
	      "write-combined buffer of the TTM test driver, the buffer is taken away, another\n"
	      "process creates one, and the guest writes to its CR8. Fail unless that is\n"
	      "written to the other's buffer, or the guest is refused.\n\n"
	      "Exit status: 0 as expected, 1 not so, 2 bad usage, 77 skipped.\n",
	      help ? stdout : stderr);
	return help ? 0 : 2;
}

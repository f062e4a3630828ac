// SPDX-License-Identifier: MIT
/*
 * What KVM does when the driver's fault handler inserts nothing, which handlers
 * may do, or fails. Needs the TTM test driver, which can be told to. See --help.
 */
#include "buffer.h"
#include "machine.h"

#include <hostblob_ttm.h>

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>
#include <xf86drm.h>

#define PAGE_BYTES 4096
#define SKIPPED 77
#define PAGES 1024
#define NOPAGE_FAULTS 1000

#define VALUE 0x5eed0000u

struct run {
	uint64_t reached, faulted;
	uint64_t told; /* of those that failed: KVM told the address */
	uint32_t left; /* faults that were asked for and did not happen */
	int error;
};

static int ask(int node, const struct buffer *buffer, enum hostblob_ttm_request request, uint32_t count,
	       uint32_t *left)
{
	struct hostblob_ttm_test test = { .handle = buffer->handle, .request = request, .count = count };

	if (drmIoctl(node, DRM_IOCTL_HOSTBLOB_TTM_TEST, &test)) {
		perror("the test driver");
		return -errno;
	}
	*left = test.count;
	return 0;
}

/*
 * A guest reads a new buffer of @pages, or with READ_ONLY writes to it; the
 * buffer's next @count faults go as requested.
 */
static struct run read_buffer(int node, uint64_t pages, enum hostblob_ttm_request request, uint32_t count)
{
	static enum page_result results[PAGES];
	struct run run = { .error = -EIO };
	struct machine machine;
	struct buffer buffer;

	if (buffer_create(node, "amdgpu", BUFFER_DMA_BUF, pages * PAGE_BYTES, &buffer)) {
		fputs("the test driver gives no buffer\n", stderr);
		return run;
	}
	volatile uint32_t *for_host = buffer_map(&buffer);
	void *for_guest = buffer_map(&buffer);

	if (!for_host || !for_guest || machine_create(&machine, 1))
		return run;
	for (uint64_t page = 0; page < pages; page++)
		for_host[page * PAGE_BYTES / 4] = VALUE + (uint32_t)page;
	run.error = machine_set_memory(&machine, 1, MACHINE_MEMORY, for_guest, pages * PAGE_BYTES);
	if (!run.error)
		run.error = ask(node, &buffer, request, count, &run.left);
	if (!run.error) {
		run.error = request == HOSTBLOB_TTM_FAULT_READ_ONLY ?
				    machine_store_x87(&machine, pages, results) :
				    machine_read_pages(&machine, pages, VALUE, results);
		if (ask(node, &buffer, request, 0, &run.left))
			run.error = -EIO;
	}
	for (uint64_t page = 0; page < pages && !run.error; page++) {
		run.reached += results[page] == PAGE_REACHED;
		run.faulted += results[page] == PAGE_FAULT;
	}
	run.told = machine.faults_told;
	machine_destroy(&machine);
	munmap((void *)for_host, pages * PAGE_BYTES);
	munmap(for_guest, pages * PAGE_BYTES);
	close(buffer.fd);
	return run;
}

/*
 * A guest reads a page before and after the buffer lost its pages. Returns what
 * it saw then, where the new page has to be empty.
 */
static enum page_result read_gutted(int node)
{
	enum page_result result = PAGE_REACHED;
	struct machine machine;
	struct buffer buffer;
	uint32_t left;

	if (buffer_create(node, "amdgpu", BUFFER_DMA_BUF, PAGES * PAGE_BYTES, &buffer))
		return PAGE_FAULT;
	volatile uint32_t *memory = buffer_map(&buffer);

	if (!memory || machine_create(&machine, 1))
		return PAGE_FAULT;
	memory[0] = VALUE;
	if (machine_set_memory(&machine, 1, MACHINE_MEMORY, (void *)memory, PAGES * PAGE_BYTES) ||
	    machine_read_pages(&machine, 1, VALUE, &result) || result != PAGE_REACHED ||
	    ask(node, &buffer, HOSTBLOB_TTM_GUT, 0, &left) || machine_read_pages(&machine, 1, 0, &result))
		result = PAGE_FAULT;
	machine_destroy(&machine);
	munmap((void *)memory, PAGES * PAGE_BYTES);
	close(buffer.fd);
	return result;
}

static void on_alarm(int signal)
{
	(void)signal;
}

/* Again and again, as the first one may come before KVM_RUN. */
static void interrupt_repeatedly(bool on)
{
	struct itimerval timer = { .it_value.tv_usec = on ? 100000 : 0, .it_interval.tv_usec = on ? 100000 : 0 };
	struct sigaction action = { .sa_handler = on_alarm };

	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &timer, NULL);
}

static bool check(const char *what, const struct run *run, bool good)
{
	printf("%-40s reached %" PRIu64 ", failed %" PRIu64 ", told of %" PRIu64 ", faults left %u, %s%s\n", what,
	       run->reached, run->faulted, run->told, run->left, run->error ? strerror(-run->error) : "ran to its end",
	       good ? "" : "  NOT AS EXPECTED");
	return good;
}

int main(int argc, char **argv)
{
	bool retried = argc == 2 && !strcmp(argv[1], "retried");
	char driver[32];

	if (argc != 2 || (!retried && strcmp(argv[1], "fatal"))) {
		fputs("Usage: faults retried|fatal\n"
		      "Fail unless KVM retries a fault that inserted nothing, until a signal comes;\n"
		      "or fails KVM_RUN with -EFAULT then, as stock kernels do; and the same of a\n"
		      "write that finds a read-only PTE, by an instruction that KVM can't emulate; and\n"
		      "unless KVM tells which page can't be faulted in, and a guest sees nothing of\n"
		      "the pages that its buffer lost; or fails to, and does.\n\n"
		      "Exit status: 0 as expected, 1 not so, 2 bad usage, 77 skipped.\n",
		      argc == 2 && !strcmp(argv[1], "--help") ? stdout : stderr);
		return argc == 2 && !strcmp(argv[1], "--help") ? 0 : 2;
	}
	int node = node_open(NULL, driver, sizeof(driver));

	if (node < 0 || strcmp(driver, "amdgpu") || access("/sys/module/hostblob_ttm", F_OK)) {
		puts("skipped: the TTM test driver is not loaded");
		return SKIPPED;
	}
	/* Stock KVM maps a page that is a block of its own, if it finds a PTE. */
	struct run run = read_buffer(node, 1, HOSTBLOB_TTM_FAULT_NOPAGE, 0);
	bool good = check("1 page, every fault served", &run, !run.error && run.reached == 1);

	run = read_buffer(node, 1, HOSTBLOB_TTM_FAULT_NOPAGE, NOPAGE_FAULTS);
	good &= check("1 page, 1000 faults insert nothing", &run,
		      !run.error && (retried ? run.reached == 1 && !run.left :
					       run.faulted == 1 && run.left == NOPAGE_FAULTS - 1));
	if (retried) {
		run = read_buffer(node, PAGES, HOSTBLOB_TTM_FAULT_NOPAGE, NOPAGE_FAULTS);
		good &= check("1024 pages, 1000 faults insert nothing", &run,
			      !run.error && run.reached == PAGES && !run.left);
		interrupt_repeatedly(true);
		run = read_buffer(node, 1, HOSTBLOB_TTM_FAULT_NOPAGE, INT_MAX);
		interrupt_repeatedly(false);
		good &= check("1 page, no fault inserts, then a signal", &run, run.error == -EINTR && run.left);
	}
	run = read_buffer(node, 1, HOSTBLOB_TTM_FAULT_READ_ONLY, INT_MAX);
	good &= check("1 page, faults make it read-only", &run,
		      retried ? !run.error && run.reached == 1 && run.left < INT_MAX : run.error == -EPROTO);
	run = read_buffer(node, 1, HOSTBLOB_TTM_FAULT_SIGBUS, INT_MAX);
	good &= check("1 page, every fault fails", &run, !run.error && run.faulted == 1 && run.told == retried);

	enum page_result gutted = read_gutted(node);

	printf("%-40s %s\n", "1 page, gone when read again",
	       gutted == PAGE_REACHED ? "empty" : gutted == PAGE_WRONG_DATA ? "the old one" : "failed");
	good &= gutted == (retried ? PAGE_REACHED : PAGE_WRONG_DATA);
	return good ? 0 : 1;
}

// SPDX-License-Identifier: MIT
/*
 * What KVM does when the driver's fault handler inserts nothing, which handlers
 * may do, or fails. Needs the TTM test driver, which can be told to. See --help.
 */
#include "buffer.h"
#include "machine.h"
#include "test.h"

#include <hostblob_ttm.h>

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xf86drm.h>

#define PAGES 1024
#define NOPAGE_FAULTS 1000
#define MANY_FAULTS 1000000 /* more than there are before a signal comes */

#define VALUE 0x5eed0000u

struct run {
	uint64_t reached, faulted;
	uint64_t told; /* of those that failed: KVM told the address */
	uint32_t left; /* faults that were asked for and did not happen */
	int error;
	bool tells; /* KVM can be asked to tell, and was */
};

/*
 * A guest reads a new buffer of @pages, or with READ_ONLY writes to it; the
 * buffer's next @count faults go as requested. With @tell KVM is asked to tell
 * the address of those that fail.
 */
static struct run read_buffer_told(int node, uint64_t pages, enum hostblob_ttm_request request, uint32_t count,
				   bool tell)
{
	static enum page_result results[PAGES];
	struct run run = { .error = -EIO };
	struct machine machine;
	struct buffer buffer;

	if (buffer_create(node, TEST_DRIVER, BUFFER_DMA_BUF, pages * PAGE_BYTES, &buffer)) {
		fputs("the test driver gives no buffer\n", stderr);
		return run;
	}
	volatile uint32_t *for_host = buffer_map(&buffer);
	void *for_guest = buffer_map(&buffer);

	if (!for_host || !for_guest || machine_create(&machine, 1))
		return run;
	run.tells = tell && !machine_tell_faults(&machine);
	for (uint64_t page = 0; page < pages; page++)
		for_host[page * PAGE_BYTES / 4] = VALUE + (uint32_t)page;
	run.error = machine_set_memory(&machine, 1, MACHINE_MEMORY, for_guest, pages * PAGE_BYTES);
	if (!run.error)
		run.error = test_driver_request(node, &buffer, request, count, &run.left) ? 0 : -EIO;
	if (!run.error) {
		run.error = request == HOSTBLOB_TTM_FAULT_READ_ONLY ?
				    machine_store_x87(&machine, pages, results) :
				    machine_read_pages(&machine, pages, VALUE, results);
		if (!test_driver_request(node, &buffer, request, 0, &run.left))
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

static struct run read_buffer(int node, uint64_t pages, enum hostblob_ttm_request request, uint32_t count)
{
	return read_buffer_told(node, pages, request, count, false);
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

	if (buffer_create(node, TEST_DRIVER, BUFFER_DMA_BUF, PAGES * PAGE_BYTES, &buffer))
		return PAGE_FAULT;
	volatile uint32_t *memory = buffer_map(&buffer);

	if (!memory || machine_create(&machine, 1))
		return PAGE_FAULT;
	memory[0] = VALUE;
	if (machine_set_memory(&machine, 1, MACHINE_MEMORY, (void *)memory, PAGES * PAGE_BYTES) ||
	    machine_read_pages(&machine, 1, VALUE, &result) || result != PAGE_REACHED ||
	    !test_driver_request(node, &buffer, HOSTBLOB_TTM_GUT, 0, NULL) || machine_read_pages(&machine, 1, 0, &result))
		result = PAGE_FAULT;
	machine_destroy(&machine);
	munmap((void *)memory, PAGES * PAGE_BYTES);
	close(buffer.fd);
	return result;
}

static bool check(const char *what, const struct run *run, bool good)
{
	printf("%-40s reached %" PRIu64 ", failed %" PRIu64 ", told of %" PRIu64 ", faults left %u, %s%s\n", what,
	       run->reached, run->faulted, run->told, run->left, run->error ? strerror(-run->error) : "ran to its end",
	       good ? "" : "  NOT AS EXPECTED");
	return good;
}

static bool check_nopage(int node, bool retried)
{
	struct run run = read_buffer(node, 1, HOSTBLOB_TTM_FAULT_NOPAGE, NOPAGE_FAULTS);
	bool good = check("1 page, 1000 faults insert nothing", &run,
			  !run.error && (retried ? run.reached == 1 && !run.left :
						   run.faulted == 1 && run.left == NOPAGE_FAULTS - 1));

	if (!retried)
		return good;
	run = read_buffer(node, PAGES, HOSTBLOB_TTM_FAULT_NOPAGE, NOPAGE_FAULTS);
	good &= check("1024 pages, 1000 faults insert nothing", &run,
		      !run.error && run.reached == PAGES && !run.left);
	machine_interrupt_repeatedly(true);
	run = read_buffer(node, 1, HOSTBLOB_TTM_FAULT_NOPAGE, MANY_FAULTS);
	good &= check("1 page, no fault inserts, then a signal", &run, run.error == -EINTR && run.left);
	run = read_buffer(node, 1, HOSTBLOB_TTM_FAULT_WAIT, MANY_FAULTS);
	good &= check("1 page, each fault waits, then a signal", &run, run.error == -EINTR && run.left);
	machine_interrupt_repeatedly(false);
	return good;
}

static bool check_read_only(int node, bool retried)
{
	struct run run = read_buffer(node, 1, HOSTBLOB_TTM_FAULT_READ_ONLY, INT_MAX);

	return check("1 page, faults make it read-only", &run,
		     retried ? !run.error && run.reached == 1 && run.left < INT_MAX : run.error == -EPROTO);
}

static bool check_sigbus(int node, bool retried)
{
	struct run run = read_buffer(node, 1, HOSTBLOB_TTM_FAULT_SIGBUS, INT_MAX);
	bool good = check("1 page, every fault fails", &run, !run.error && run.faulted == 1 && !run.told);

	run = read_buffer_told(node, 1, HOSTBLOB_TTM_FAULT_SIGBUS, INT_MAX, true);
	return good & check("1 page, every fault fails, KVM tells", &run,
			    !run.error && run.faulted == 1 && run.tells == retried && run.told == retried);
}

static bool check_gut(int node, bool retried)
{
	static const char *const results[] = {
		[PAGE_REACHED] = "empty", [PAGE_WRONG_DATA] = "the old one", [PAGE_FAULT] = "failed",
	};
	enum page_result gutted = read_gutted(node);

	printf("%-40s %s\n", "1 page, gone when read again", results[gutted]);
	return gutted == (retried ? PAGE_REACHED : PAGE_WRONG_DATA);
}

static const struct {
	const char *name;
	bool (*run)(int node, bool retried);
} checks[] = {
	{ "nopage", check_nopage },
	{ "read-only", check_read_only },
	{ "sigbus", check_sigbus },
	{ "gut", check_gut },
};

int main(int argc, char **argv)
{
	const char *only = argc == 3 ? argv[1] : NULL, *expected = argc > 1 ? argv[argc - 1] : "";
	bool retried = !strcmp(expected, "retried"), found = !only, good = true;

	for (unsigned int i = 0; only && i < sizeof(checks) / sizeof(checks[0]); i++)
		found |= !strcmp(only, checks[i].name);
	if (argc < 2 || argc > 3 || !found || (!retried && strcmp(expected, "fatal"))) {
		bool help = !strcmp(expected, "--help");

		fputs("Usage: faults [nopage|read-only|sigbus|gut] retried|fatal\n"
		      "Check one of these, or all:\n\n"
		      "  nopage     a fault that inserted nothing is retried until a signal comes\n"
		      "  read-only  so is a write that finds a read-only PTE, by an instruction that\n"
		      "             KVM can't emulate\n"
		      "  sigbus     KVM tells which page can't be faulted in, if it is asked to and\n"
		      "             not otherwise\n"
		      "  gut        a guest sees nothing of the pages that its buffer lost\n\n"
		      "fatal: none of it is so, as on stock kernels.\n\n"
		      "Exit status: 0 as expected, 1 not so, 2 bad usage, 77 skipped.\n",
		      help ? stdout : stderr);
		return help ? 0 : 2;
	}
	int node = test_driver_open();

	if (node < 0)
		return skip("the TTM test driver is not loaded");
	/* Stock KVM maps a page that is a block of its own, if it finds a PTE. */
	struct run run = read_buffer(node, 1, HOSTBLOB_TTM_FAULT_NOPAGE, 0);

	good = check("1 page, every fault served", &run, !run.error && run.reached == 1);
	for (unsigned int i = 0; i < sizeof(checks) / sizeof(checks[0]); i++) {
		if (!only || !strcmp(only, checks[i].name))
			good &= checks[i].run(node, retried);
	}
	return good ? 0 : 1;
}

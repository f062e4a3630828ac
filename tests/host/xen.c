// SPDX-License-Identifier: MIT
/*
 * The pages that KVM shares with a guest of its Xen interface, in a TTM buffer that
 * cannot be faulted in at once: KVM has to come back to what it could not write.
 * Needs the TTM test driver. See --help.
 */
#include "buffer.h"
#include "machine.h"
#include "test.h"

#include <hostblob_ttm.h>

#include <errno.h>
#include <limits.h>
#include <linux/kvm.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xf86drm.h>

#define PAGES 3
#define NOPAGE_FAULTS 1000

/* Where in the buffer, and what Xen's 32-bit structures have where. */
enum { SHARED_INFO, VCPU_INFO, RUNSTATE };
#define EVENTS_PENDING 0x800
#define UPCALL_PENDING 0
#define RUNSTATE_ENTRY_TIME 4

enum { SENT_EVENT = 1, TIMER_EVENT };

struct guest {
	int node;
	bool retried;
	struct machine machine;
	struct buffer buffer;
	volatile uint8_t *memory;
};

/* The buffer loses its PTEs, and the next @count faults on it go as requested. */
static bool take_away(struct guest *guest, enum hostblob_ttm_request request, uint32_t count)
{
	return test_driver_request(guest->node, &guest->buffer, HOSTBLOB_TTM_MOVE, 0, NULL) &&
	       test_driver_request(guest->node, &guest->buffer, request, count, NULL);
}

static bool give_back(struct guest *guest, enum hostblob_ttm_request request, uint32_t *left)
{
	return test_driver_request(guest->node, &guest->buffer, request, 0, left);
}

/* To its HLT, which is all that it does. */
static bool run(struct guest *guest)
{
	struct kvm_regs registers = { .rip = MACHINE_CODE, .rflags = 2 };

	return !ioctl(guest->machine.vcpus[0], KVM_SET_REGS, &registers) &&
	       !ioctl(guest->machine.vcpus[0], KVM_RUN, 0) && guest->machine.runs[0]->exit_reason == KVM_EXIT_HLT;
}

static bool set_vcpu(struct guest *guest, uint16_t type, uint64_t address)
{
	struct kvm_xen_vcpu_attr attribute = { .type = type, .u.gpa = address };

	return !ioctl(guest->machine.vcpus[0], KVM_XEN_VCPU_SET_ATTR, &attribute);
}

static int send_event(struct guest *guest)
{
	struct kvm_irq_routing_xen_evtchn event = {
		.port = SENT_EVENT, .priority = KVM_IRQ_ROUTING_XEN_EVTCHN_PRIO_2LEVEL,
	};

	return ioctl(guest->machine.vm, KVM_XEN_HVM_EVTCHN_SEND, &event) ? -errno : 0;
}

static bool is_pending(struct guest *guest, unsigned int event)
{
	return guest->memory[SHARED_INFO * PAGE_BYTES + EVENTS_PENDING] >> event & 1;
}

/* --- the checks: NULL, or what is wrong ------------------------------------- */

static const char *runstate(struct guest *guest)
{
	volatile uint8_t *entered = guest->memory + RUNSTATE * PAGE_BYTES + RUNSTATE_ENTRY_TIME;
	bool written = false;
	uint32_t left;

	if (!set_vcpu(guest, KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADDR, MACHINE_MEMORY + RUNSTATE * PAGE_BYTES) || !run(guest))
		return "the guest does not run";
	for (unsigned int i = 0; i < sizeof(uint64_t); i++)
		entered[i] = 0;
	if (!take_away(guest, HOSTBLOB_TTM_FAULT_NOPAGE, NOPAGE_FAULTS) || !run(guest) ||
	    !give_back(guest, HOSTBLOB_TTM_FAULT_NOPAGE, &left))
		return "the guest does not run while its page is away";
	for (unsigned int i = 0; i < sizeof(uint64_t); i++)
		written |= entered[i];
	return written == guest->retried && !left == guest->retried ? NULL : "it is not as expected after 1000 faults";
}

static const char *event(struct guest *guest)
{
	int error;

	if (!take_away(guest, HOSTBLOB_TTM_FAULT_NOPAGE, NOPAGE_FAULTS) ||
	    send_event(guest) != (guest->retried ? -EAGAIN : -EFAULT))
		return "the error is another one while its page is away";
	if (!give_back(guest, HOSTBLOB_TTM_FAULT_NOPAGE, NULL))
		return "the test driver failed";
	if (guest->retried) {
		/* A signal ends it, and would have it made again if the handler were such a one. */
		if (!take_away(guest, HOSTBLOB_TTM_FAULT_WAIT, INT_MAX))
			return "the test driver failed";
		machine_interrupt_repeatedly(true);
		error = send_event(guest);
		machine_interrupt_repeatedly(false);
		if (!give_back(guest, HOSTBLOB_TTM_FAULT_WAIT, NULL) || error != -EINTR)
			return "a signal does not interrupt it";
	}
	if (is_pending(guest, SENT_EVENT) || send_event(guest) || !is_pending(guest, SENT_EVENT))
		return "it is not delivered when its page is back";
	return NULL;
}

static const char *timer(struct guest *guest)
{
	struct kvm_xen_vcpu_attr attribute = {
		.type = KVM_XEN_VCPU_ATTR_TYPE_TIMER,
		.u.timer = {
			.port = TIMER_EVENT, .priority = KVM_IRQ_ROUTING_XEN_EVTCHN_PRIO_2LEVEL, .expires_ns = 1,
		},
	};
	uint32_t left;

	/*
	 * Without vcpu_info, whose clock KVM would come back for in any case. The timer has
	 * expired, so it is pending at once.
	 */
	if (!set_vcpu(guest, KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO, KVM_XEN_INVALID_GPA) ||
	    !take_away(guest, HOSTBLOB_TTM_FAULT_NOPAGE, NOPAGE_FAULTS) ||
	    ioctl(guest->machine.vcpus[0], KVM_XEN_VCPU_SET_ATTR, &attribute))
		return "it cannot be set";
	if (!run(guest) || !give_back(guest, HOSTBLOB_TTM_FAULT_NOPAGE, &left))
		return "the guest does not run while its page is away";
	return is_pending(guest, TIMER_EVENT) == guest->retried && !left == guest->retried ?
		       NULL : "its event is not as expected after 1000 faults";
}

/* An event that KVM keeps, as it could set its bit, but could not tell the vCPU. */
static const char *kept(struct guest *guest)
{
	uint32_t left;

	/* First the clock in vcpu_info is set, or KVM would come back for that one. */
	if (!run(guest) || !take_away(guest, HOSTBLOB_TTM_FAULT_NOPAGE, 0) || send_event(guest))
		return "it cannot be sent";
	if (!take_away(guest, HOSTBLOB_TTM_FAULT_NOPAGE, NOPAGE_FAULTS) || !run(guest) ||
	    !give_back(guest, HOSTBLOB_TTM_FAULT_NOPAGE, &left))
		return "the guest does not run while its page is away";
	return guest->memory[VCPU_INFO * PAGE_BYTES + UPCALL_PENDING] == guest->retried && !left == guest->retried ?
		       NULL : "it is not as expected after 1000 faults";
}

/* --------------------------------------------------------------------------- */

static const struct {
	const char *name;
	const char *(*check)(struct guest *guest);
} checks[] = {
	{ "runstate", runstate },
	{ "event", event },
	{ "timer", timer },
	{ "kept", kept },
};

static bool is_check(const char *name)
{
	for (unsigned int i = 0; i < sizeof(checks) / sizeof(checks[0]); i++) {
		if (!strcmp(checks[i].name, name))
			return true;
	}
	return false;
}

static bool create(struct guest *guest)
{
	struct kvm_xen_hvm_config config = { .flags = KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL, .msr = 0x40000000 };
	struct kvm_xen_hvm_attr shared_info = {
		.type = KVM_XEN_ATTR_TYPE_SHARED_INFO, .u.shared_info.gfn = MACHINE_MEMORY / PAGE_BYTES + SHARED_INFO,
	};

	if (machine_create(&guest->machine, 1))
		return false;
	if (!ioctl(guest->machine.vm, KVM_CHECK_EXTENSION, KVM_CAP_XEN_HVM)) {
		exit(skip("this kernel's KVM has no Xen interface"));
	}
	guest->machine.code[0] = 0xf4; /* hlt */
	if (buffer_create(guest->node, TEST_DRIVER, BUFFER_DMA_BUF, PAGES * PAGE_BYTES, &guest->buffer))
		return false;
	guest->memory = buffer_map(&guest->buffer);
	return guest->memory &&
	       !machine_set_memory(&guest->machine, 1, MACHINE_MEMORY, (void *)guest->memory, PAGES * PAGE_BYTES) &&
	       !ioctl(guest->machine.vm, KVM_XEN_HVM_CONFIG, &config) &&
	       !ioctl(guest->machine.vm, KVM_XEN_HVM_SET_ATTR, &shared_info) &&
	       set_vcpu(guest, KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO, MACHINE_MEMORY + VCPU_INFO * PAGE_BYTES);
}

static void destroy(struct guest *guest)
{
	machine_destroy(&guest->machine);
	munmap((void *)guest->memory, PAGES * PAGE_BYTES);
	close(guest->buffer.fd);
}

int main(int argc, char **argv)
{
	const char *expected = argc == 2 || argc == 3 ? argv[1] : "";
	struct guest guest = { .retried = !strcmp(expected, "retried") };
	bool good = true;

	if ((!guest.retried && strcmp(expected, "fatal")) || (argc == 3 && !is_check(argv[2]))) {
		bool help = !strcmp(expected, "--help");

		fputs("Usage: xen retried|fatal [runstate|event|timer|kept]\n"
		      "Check what KVM's Xen interface shares with a guest, while it is in a buffer whose\n"
		      "faults insert nothing: the vCPU's state, an event that is sent to it, its timer's,\n"
		      "and one that KVM has kept for the vCPU; or one of these.\n\n"
		      "fatal: what can't be written at once is lost, as on stock kernels.\n\n"
		      "Exit status: 0 as expected, 1 not so, 2 bad usage, 77 skipped.\n",
		      help ? stdout : stderr);
		return help ? 0 : 2;
	}
	guest.node = test_driver_open();
	if (guest.node < 0)
		return skip("the TTM test driver is not loaded");
	for (unsigned int i = 0; i < sizeof(checks) / sizeof(checks[0]); i++) {
		if (argc == 3 && strcmp(argv[2], checks[i].name))
			continue;
		if (!create(&guest)) {
			perror("a guest with the Xen interface");
			return 1;
		}
		errno = 0;
		const char *wrong = checks[i].check(&guest);

		printf("%-9s %s%s%s\n", checks[i].name, wrong ? wrong : "as expected", wrong && errno ? ": " : "",
		       wrong && errno ? strerror(errno) : "");
		good &= !wrong;
		destroy(&guest);
	}
	return good ? 0 : 1;
}

// SPDX-License-Identifier: MIT
/*
 * amdgpu is unbound from its GPU while a guest counts in one of its buffers, as with a GPU that is
 * pulled. The guest must go on, in pages that the driver gives to nobody else; what it has written
 * is gone. Nothing on the host can use the GPU afterwards.
 *
 * Usage: gpu-unbind
 */
#include "buffer.h"
#include "gpu.h"
#include "machine.h"
#include "test.h"

#include <amdgpu_drm.h>
#include <errno.h>
#include <glob.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#define PAGES 64
#define BYTES (PAGES * PAGE_BYTES)

struct guest {
	struct machine machine;
	struct machine_counts counts;
	int error;
};

static void *count(void *opaque)
{
	struct guest *guest = opaque;

	guest->error = machine_count(&guest->machine, 0, PAGES, &guest->counts);
	return NULL;
}

/* Rounds through all pages; false if the guest has ended. */
static bool wait_for_rounds(const struct machine *machine)
{
	uint32_t before = machine_rounds(machine, 0);

	while (machine_rounds(machine, 0) - before < 3) {
		if (machine_ended(machine, 0))
			return false;
		sched_yield();
	}
	return true;
}

/* Returns 0 or a negative errno. Takes as long as amdgpu does. */
static int unbind(void)
{
	glob_t devices = { 0 };
	FILE *file;
	int result = -ENOENT;

	if (!glob("/sys/bus/pci/drivers/amdgpu/*:*", 0, NULL, &devices)) {
		file = fopen("/sys/bus/pci/drivers/amdgpu/unbind", "w");
		if (file) {
			fputs(strrchr(devices.gl_pathv[0], '/') + 1, file);
			result = fclose(file) ? -errno : 0;
		}
	}
	globfree(&devices);
	return result;
}

int main(void)
{
	struct guest guest = { 0 };
	struct gpu_buffer buffer;
	struct gpu gpu;
	pthread_t thread;
	void *for_guest;
	int result = gpu_open(&gpu);

	if (result == -ENODEV)
		return skip("there is no amdgpu");
	if (result || gpu_buffer_create(&gpu, BYTES, AMDGPU_GEM_DOMAIN_GTT, &buffer))
		return 1;
	for_guest = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, gpu_buffer_export(&gpu, &buffer), 0);
	if (for_guest == MAP_FAILED || machine_create(&guest.machine, 1) ||
	    machine_set_memory(&guest.machine, 1, MACHINE_MEMORY, for_guest, BYTES) ||
	    pthread_create(&thread, NULL, count, &guest))
		return 1;
	bool before = wait_for_rounds(&guest.machine);

	result = unbind();
	bool after = before && wait_for_rounds(&guest.machine);

	machine_stop(&guest.machine);
	pthread_join(thread, NULL);
	machine_destroy(&guest.machine);
	printf("unbound: %s; the guest %s, KVM_RUN failed %" PRIu64 " times\n", result ? strerror(-result) : "yes",
	       after ? "goes on" : before ? "ended" : "never began", guest.counts.faults);
	return result || !after || guest.counts.faults || guest.error;
}

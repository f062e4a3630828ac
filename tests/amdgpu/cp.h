/* SPDX-License-Identifier: MIT */
/*
 * As much of the command processor of AMD's CIK chips as Linux's gfx_v7_0.c needs to find it alive:
 * rings and indirect buffers of PM4 packets, of which those that write registers and memory, wait
 * and raise interrupts do what they say. All others, draws and dispatches, are skipped.
 *
 * As with sdma.h, the guest chooses all that a ring holds, and none of it makes cp_run() abort,
 * loop for ever or read what it should not.
 */
#ifndef CP_H
#define CP_H

#include <stdbool.h>
#include <stdint.h>

/**
 * enum cp_result - why cp_run() came back
 * @CP_IDLE: no whole packet is left
 * @CP_BUSY: it has done enough for once; run it again soon
 * @CP_WAITING: a wait is not met; run it again when memory or registers may have changed
 * @CP_HALTED: a packet was bad; only cp_reset() mends that
 */
enum cp_result {
	CP_IDLE,
	CP_BUSY,
	CP_WAITING,
	CP_HALTED,
};

/**
 * struct cp_ring - a ring
 * @base: its GPU address
 * @dwords: its size, a power of two
 * @rptr: the next packet, in dwords, modulo @dwords
 * @wptr: behind the last packet, in the same way
 * @id: who it is, for interrupts
 * @fault: why it stands still, or NULL
 * @requested: the wait in work has written its register
 * @ib: the rest of the indirect buffer in work; no dwords if there is none
 * @running: guards against a callback that runs the ring again
 *
 * The device sets the members up to @id. All zeroes is an empty ring after cp_reset().
 */
struct cp_ring {
	uint64_t base;
	uint32_t dwords;
	uint32_t rptr;
	uint32_t wptr;
	uint8_t id;

	const char *fault;
	bool requested;
	struct {
		uint64_t address;
		uint32_t dwords;
		uint8_t vmid;
	} ib;
	bool running;
};

/**
 * struct cp_ops - what a ring needs of the GPU around it
 * @read: reads @dwords, a few, at an address of an address space; not 0 if it can't
 * @write: writes them
 * @read_register: reads a register; @index may be anything
 * @write_register: writes it
 * @interrupt: raises the interrupt at the end of a job
 * @stopped: says that the ring stands still, and why, once for each bad packet
 * @opaque: passed to all of them
 */
struct cp_ops {
	int (*read)(void *opaque, unsigned int vmid, uint64_t address, uint32_t *data, uint32_t dwords);
	int (*write)(void *opaque, unsigned int vmid, uint64_t address, const uint32_t *data, uint32_t dwords);
	uint32_t (*read_register)(void *opaque, uint32_t index);
	void (*write_register)(void *opaque, uint32_t index, uint32_t value);
	void (*interrupt)(void *opaque, const struct cp_ring *ring, unsigned int vmid);
	void (*stopped)(void *opaque, const struct cp_ring *ring, uint32_t header, const char *reason);
	void *opaque;
};

/**
 * cp_run() - execute packets
 * @ring: the ring
 * @ops: the GPU around it
 * @budget: about how many dwords of packets at most: the last may be longer
 *
 * Return: why it came back
 */
enum cp_result cp_run(struct cp_ring *ring, const struct cp_ops *ops, uint32_t budget);

/** cp_reset() - forget the fault and the indirect buffer; the ring stays as it is */
void cp_reset(struct cp_ring *ring);

#endif

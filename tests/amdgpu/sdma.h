/* SPDX-License-Identifier: MIT */
/*
 * The copy engine (SDMA) of AMD's CIK chips, in as far as Linux's cik_sdma.c uses it: rings and
 * indirect buffers of packets that copy, fill and write memory. It runs no microcode and knows
 * nothing of page tables, registers and interrupts: whoever emulates the GPU supplies these.
 *
 * The guest chooses all that a ring holds, and may change it at any time. Nothing of it makes
 * sdma_run() abort, loop for ever or read what it should not.
 */
#ifndef SDMA_H
#define SDMA_H

#include <stdbool.h>
#include <stdint.h>

/* The most bytes that are read or written by one callback. */
#define SDMA_CHUNK 4096

/**
 * enum sdma_result - why sdma_run() came back
 * @SDMA_IDLE: no whole packet is left; run it again when the write pointer has moved
 * @SDMA_BUSY: the budget is used up; run it again soon
 * @SDMA_WAITING: a poll is not met; run it again when memory or registers may have changed
 * @SDMA_HALTED: the driver halted it, or a packet was bad, which only sdma_reset() mends
 */
enum sdma_result {
	SDMA_IDLE,
	SDMA_BUSY,
	SDMA_WAITING,
	SDMA_HALTED,
};

/**
 * struct sdma_engine - an engine and its ring
 * @base: the GPU address of the ring
 * @size: its size in bytes, a power of two
 * @rptr: offset of the next packet, in bytes, modulo @size
 * @wptr: offset behind the last packet, in bytes, modulo @size
 * @vmid: the address space of the ring; an indirect buffer brings its own
 * @instance: 0 or 1; only the callbacks care
 * @halted: the driver wants it to stand still
 * @fault: what was wrong with the packet that halted it, or NULL; @packet begins with its header
 * @packet: the packet in work, as it was when it was fetched: the guest may write to the ring
 * @length: dwords of the packet in work, with all that follows it; 0 if there is none
 * @done: bytes of its work that are done, or whether a poll has written its register
 * @ib: the rest of the indirect buffer in work; no dwords if there is none
 * @running: guards against a callback that runs the engine again
 *
 * The device sets the members up to @halted whenever its registers change, also from a callback.
 * The others are sdma_run()'s. All zeroes is an engine as after sdma_reset().
 */
struct sdma_engine {
	uint64_t base;
	uint64_t size;
	uint64_t rptr;
	uint64_t wptr;
	uint8_t vmid;
	uint8_t instance;
	bool halted;

	const char *fault;
	uint32_t packet[10];
	uint64_t length;
	uint64_t done;
	struct {
		uint64_t address;
		uint32_t dwords;
		uint8_t vmid;
	} ib;
	bool running;
};

/**
 * struct sdma_ops - what an engine needs of the GPU around it
 * @read: reads @bytes, 1 to SDMA_CHUNK, at an address of an address space; not 0 if it can't
 * @write: writes them
 * @read_register: reads a register; @index counts dwords and may be anything
 * @write_register: writes a register, perhaps the engine's own
 * @trap: raises the interrupt that a TRAP packet asks for
 * @stopped: says that the engine halts, and why, once for each bad packet
 * @opaque: passed to all of them
 *
 * A callback may call sdma_reset() and change the engine's ring. If it calls sdma_run() for the
 * same engine, that returns SDMA_BUSY at once.
 */
struct sdma_ops {
	int (*read)(void *opaque, unsigned int vmid, uint64_t address, void *data, uint32_t bytes);
	int (*write)(void *opaque, unsigned int vmid, uint64_t address, const void *data, uint32_t bytes);
	uint32_t (*read_register)(void *opaque, uint32_t index);
	void (*write_register)(void *opaque, uint32_t index, uint32_t value);
	void (*trap)(void *opaque, const struct sdma_engine *engine, unsigned int vmid);
	void (*stopped)(void *opaque, const struct sdma_engine *engine, const char *reason);
	void *opaque;
};

/**
 * sdma_run() - execute packets
 * @engine: the engine
 * @ops: the GPU around it
 * @budget: about how many bytes of packets to fetch and of memory to write; 0 does nothing
 *
 * A call exceeds @budget by less than 40 bytes, and what it has not finished is continued by the
 * next. @engine->rptr moves past a packet when all its work is done,
 * but past an indirect buffer when that is about to begin.
 *
 * Return: why it came back
 */
enum sdma_result sdma_run(struct sdma_engine *engine, const struct sdma_ops *ops, uint64_t budget);

/**
 * sdma_reset() - forget the packet and the indirect buffer in work, and the fault
 * @engine: the engine; its ring stays as it is
 *
 * For a soft reset, and for when the ring is enabled again.
 */
void sdma_reset(struct sdma_engine *engine);

#endif

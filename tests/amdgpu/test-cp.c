// SPDX-License-Identifier: MIT
/*
 * Packets as Linux's gfx_v7_0.c emits them, and rings as a hostile guest may write them. The GPU
 * around the ring is one piece of memory, the same for all VMIDs, and some registers.
 */
#include "cp.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <endian.h>
#include <stdlib.h>
#include <string.h>

#define MEMORY 0x10000u
#define RING 256u	/* dwords, at address 0 */
#define SCRATCH 0xc040u /* a register */
#define PACKET3(op, n) (3u << 30 | (uint32_t)(n) << 16 | (uint32_t)(op) << 8)
#define SET_SCRATCH(value) PACKET3(0x79, 1), SCRATCH - 0xc000, value
#define IB(vmid, at, dwords) PACKET3(0x3f, 2), at, 0, (uint32_t)(vmid) << 24 | (dwords)
#define EOP(to, data_sel, int_sel, low, high) \
	PACKET3(0x47, 4), 0, to, (uint32_t)(data_sel) << 29 | (uint32_t)(int_sel) << 24, low, high
#define RELEASE(to, data_sel, int_sel, low, high) \
	PACKET3(0x49, 5), 0, (uint32_t)(data_sel) << 29 | (uint32_t)(int_sel) << 24, to, 0, low, high
#define WAIT_MEMORY(at, value) PACKET3(0x3c, 5), 1 << 4 | 3, at, 0, value, 0xffffffff, 4
#define REQ 0x1537u
#define DONE 0x1538u
#define FLUSH PACKET3(0x3c, 5), 1 << 6 | 3, REQ, DONE, 1, 1, 0x20
#define PUT(gpu, ...) put(gpu, (const uint32_t[]){ __VA_ARGS__ }, sizeof((uint32_t[]){ __VA_ARGS__ }) / 4)

struct gpu {
	struct cp_ring ring;
	struct cp_ops ops;
	uint32_t *memory;
	uint32_t registers[0x10000];
	unsigned int accesses, interrupts, stops, fail_at, vmid;
	uint64_t random;
};

static uint32_t *place(struct gpu *gpu, uint64_t address, uint32_t dwords)
{
	assert_int_equal(address % 4, 0);
	if (++gpu->accesses == gpu->fail_at || address > MEMORY - 4 * dwords)
		return NULL;
	return gpu->memory + address / 4;
}

static int read_memory(void *opaque, unsigned int vmid, uint64_t address, uint32_t *data, uint32_t dwords)
{
	struct gpu *gpu = opaque;
	const uint32_t *from = place(gpu, address, dwords);

	gpu->vmid |= 1u << vmid;
	return from ? (memcpy(data, from, 4 * dwords), 0) : -1;
}

static int write_memory(void *opaque, unsigned int vmid, uint64_t address, const uint32_t *data, uint32_t dwords)
{
	struct gpu *gpu = opaque;
	uint32_t *to = place(gpu, address, dwords);

	gpu->vmid |= 1u << vmid;
	return to ? (memcpy(to, data, 4 * dwords), 0) : -1;
}

static uint32_t read_register(void *opaque, uint32_t index)
{
	struct gpu *gpu = opaque;

	return index < 0x10000 ? gpu->registers[index] : 0;
}

static void write_register(void *opaque, uint32_t index, uint32_t value)
{
	struct gpu *gpu = opaque;

	if (index < 0x10000)
		gpu->registers[index] = value;
	/* A register may have the ring run. */
	if (index == SCRATCH)
		assert_int_equal(cp_run(&gpu->ring, &gpu->ops, 1), CP_BUSY);
}

static void interrupt(void *opaque, const struct cp_ring *ring, unsigned int vmid)
{
	struct gpu *gpu = opaque;

	assert_ptr_equal(ring, &gpu->ring);
	assert_in_range(vmid, 0, 15);
	gpu->interrupts++;
}

static void stopped(void *opaque, const struct cp_ring *ring, uint32_t header, const char *reason)
{
	struct gpu *gpu = opaque;

	(void)header;
	assert_ptr_equal(ring->fault, reason);
	gpu->stops++;
}

static void begin(struct gpu *gpu)
{
	uint32_t *memory = gpu->memory;

	memset(memory, 0, MEMORY);
	*gpu = (struct gpu){
		.ring = { .dwords = RING },
		.ops = { read_memory, write_memory, read_register, write_register, interrupt, stopped, gpu },
		.memory = memory,
	};
}

static int setup(void **state)
{
	struct gpu *gpu = calloc(1, sizeof(*gpu));

	gpu->memory = malloc(MEMORY);
	begin(gpu);
	*state = gpu;
	return 0;
}

static int teardown(void **state)
{
	struct gpu *gpu = *state;

	free(gpu->memory);
	free(gpu);
	return 0;
}

static void put(struct gpu *gpu, const uint32_t *packets, size_t dwords)
{
	for (size_t i = 0; i < dwords; i++) {
		gpu->memory[gpu->ring.wptr] = htole32(packets[i]);
		gpu->ring.wptr = (gpu->ring.wptr + 1) % RING;
	}
}

static enum cp_result run(struct gpu *gpu)
{
	return cp_run(&gpu->ring, &gpu->ops, 10000);
}

static uint32_t get(const struct gpu *gpu, uint32_t address)
{
	return le32toh(gpu->memory[address / 4]);
}

static void registers_are_written_wherever_the_ring_wraps(void **state)
{
	struct gpu *gpu = *state;

	/* 3 and 256 have no common divisor. */
	for (uint32_t i = 1; i <= RING; i++) {
		PUT(gpu, SET_SCRATCH(i));
		assert_int_equal(run(gpu), CP_IDLE);
		assert_int_equal(gpu->registers[SCRATCH], i);
	}
	PUT(gpu, PACKET3(0x79, 3), 0x40, 7, 8, 9, PACKET3(0x37, 4), 1 << 16, SCRATCH, 0, 1, 2);
	assert_int_equal(run(gpu), CP_IDLE);
	assert_int_equal(gpu->registers[SCRATCH + 1], 8);
	assert_int_equal(gpu->registers[SCRATCH + 2], 9);
	assert_int_equal(gpu->registers[SCRATCH], 2);
}

static void what_is_not_known_is_skipped(void **state)
{
	struct gpu *gpu = *state;

	PUT(gpu, PACKET3(0x10, 0x3fff), 2u << 30, PACKET3(0x10, 2), 1, 2, 3, PACKET3(0x2d, 1), 4, 5, 1u << 16, 6, 7,
	    SET_SCRATCH(1));
	assert_int_equal(run(gpu), CP_IDLE);
	assert_int_equal(gpu->ring.rptr, gpu->ring.wptr);
	assert_int_equal(gpu->registers[SCRATCH], 1);
}

static void memory_is_written_by_its_vmid(void **state)
{
	const uint32_t packets[] = { PACKET3(0x37, 4), 5 << 8, 0x1000, 0, 11, 12, SET_SCRATCH(3) };
	struct gpu *gpu = *state;

	for (uint32_t i = 0; i < sizeof(packets) / 4; i++)
		gpu->memory[0x2000 / 4 + i] = htole32(packets[i]);
	PUT(gpu, IB(5, 0x2000, sizeof(packets) / 4));
	assert_int_equal(run(gpu), CP_IDLE);
	assert_int_equal(get(gpu, 0x1004), 12);
	assert_int_equal(gpu->registers[SCRATCH], 3);
	assert_int_equal(gpu->vmid, 1 | 1 << 5);
}

static void jobs_end_with_what_was_asked_for(void **state)
{
	struct gpu *gpu = *state;

	PUT(gpu, EOP(0x1000, 1, 0, 1, 9), EOP(0x1010, 2, 2, 2, 3), RELEASE(0x1020, 1, 2, 4, 9), RELEASE(0x1030, 0, 0, 5, 5));
	assert_int_equal(run(gpu), CP_IDLE);
	assert_int_equal(get(gpu, 0x1000), 1);
	assert_int_equal(get(gpu, 0x1004), 0);
	assert_int_equal(get(gpu, 0x1014), 3);
	assert_int_equal(get(gpu, 0x1020), 4);
	assert_int_equal(get(gpu, 0x1030), 0);
	assert_int_equal(gpu->interrupts, 2);
}

static void waits_last_until_they_are_met(void **state)
{
	struct gpu *gpu = *state;

	PUT(gpu, WAIT_MEMORY(0x1000, 7), FLUSH, SET_SCRATCH(1));
	assert_int_equal(run(gpu), CP_WAITING);
	gpu->memory[0x1000 / 4] = htole32(7);
	assert_int_equal(run(gpu), CP_WAITING);
	assert_int_equal(gpu->registers[REQ], 1);
	/* It asks once. */
	gpu->registers[REQ] = 0;
	assert_int_equal(run(gpu), CP_WAITING);
	assert_int_equal(gpu->registers[REQ], 0);
	gpu->registers[DONE] = 1;
	assert_int_equal(run(gpu), CP_IDLE);
	assert_int_equal(gpu->registers[SCRATCH], 1);
}

static void packets_wait_for_their_last_dword(void **state)
{
	const uint32_t packet[] = { SET_SCRATCH(1) };
	struct gpu *gpu = *state;

	for (unsigned int i = 0; i < 3; i++) {
		assert_int_equal(gpu->registers[SCRATCH], 0);
		put(gpu, packet + i, 1);
		assert_int_equal(run(gpu), CP_IDLE);
	}
	assert_int_equal(gpu->registers[SCRATCH], 1);
}

static void bad_packets_halt_until_a_reset(void **state)
{
	struct gpu *gpu = *state;

	gpu->memory[0x2000 / 4] = htole32(PACKET3(0x3f, 2));
	PUT(gpu, IB(1, 0x2000, 4), SET_SCRATCH(1));
	assert_int_equal(run(gpu), CP_HALTED);
	assert_int_equal(run(gpu), CP_HALTED);
	assert_int_equal(gpu->stops, 1);
	cp_reset(&gpu->ring);
	assert_int_equal(run(gpu), CP_IDLE);
	PUT(gpu, EOP(MEMORY, 1, 0, 1, 1));
	assert_int_equal(run(gpu), CP_HALTED);
	cp_reset(&gpu->ring);
	for (gpu->ring.dwords = 0; gpu->ring.dwords < 4; gpu->ring.dwords += 3)
		assert_int_equal(run(gpu), CP_IDLE);
}

static uint32_t some(struct gpu *gpu, uint32_t limit)
{
	gpu->random ^= gpu->random << 13;
	gpu->random ^= gpu->random >> 7;
	gpu->random ^= gpu->random << 17;
	return (uint32_t)(gpu->random >> 16) % limit;
}

/* Rings and buffers that overwrite each other. Most end in a packet that is not whole. */
static void random_rings_neither_crash_nor_loop(void **state)
{
	static const uint32_t opcodes[] = { 0x10, 0x33, 0x37, 0x3c, 0x3f, 0x47, 0x49, 0x79 };
	unsigned int results[4] = { 0 }, interrupts = 0;
	struct gpu *gpu = *state;
	uint64_t random = 0x13198a2e03707344;

	for (unsigned int ring = 0; ring < 50000; ring++) {
		enum cp_result result = CP_BUSY;

		begin(gpu);
		gpu->random = random;
		for (unsigned int i = 0; i < 0x400; i++)
			gpu->memory[i] = htole32(some(gpu, 4) ? some(gpu, 16) << 24 | some(gpu, 0x400) :
				some(gpu, 64) ? PACKET3(opcodes[some(gpu, 8)], some(gpu, 6)) : some(gpu, 0xffffffff));
		gpu->ring.dwords = 1u << (2 + some(gpu, 8));
		gpu->ring.wptr = some(gpu, gpu->ring.dwords);
		gpu->fail_at = some(gpu, 4) ? 0 : some(gpu, 100);
		for (int runs = 0; runs < 4 && (result == CP_BUSY || result == CP_WAITING); runs++)
			result = cp_run(&gpu->ring, &gpu->ops, some(gpu, 16));
		results[result]++;
		interrupts += gpu->interrupts;
		random = gpu->random;
	}
	for (unsigned int i = 0; i < 4; i++)
		assert_true(results[i] > 10);
	assert_true(interrupts > 100);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		TEST(registers_are_written_wherever_the_ring_wraps),
		TEST(what_is_not_known_is_skipped),
		TEST(memory_is_written_by_its_vmid),
		TEST(jobs_end_with_what_was_asked_for),
		TEST(waits_last_until_they_are_met),
		TEST(packets_wait_for_their_last_dword),
		TEST(bad_packets_halt_until_a_reset),
		TEST(random_rings_neither_crash_nor_loop),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests_name("cp", tests, NULL, NULL);
}

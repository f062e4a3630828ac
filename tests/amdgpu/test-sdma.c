// SPDX-License-Identifier: MIT
/*
 * Packets as Linux's cik_sdma.c emits them, and rings as a hostile guest may write them. The GPU
 * around the engine is one piece of memory, the same for all VMIDs, and some registers.
 */
#include "sdma.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <endian.h>
#include <stdlib.h>
#include <string.h>

#define MEMORY (16u << 20)
#define RING 4096u
#define HEADER(op, extra) ((op) | (uint32_t)(extra) << 16)
#define LOW(address) ((uint32_t)(address))
#define HIGH(address) ((uint32_t)((address) >> 32))
#define COPY(from, to, bytes) HEADER(1, 0), bytes, 0, LOW(from), HIGH(from), LOW(to), HIGH(to)
#define WRITE(to, dwords) HEADER(2, 0), LOW(to), HIGH(to), dwords
#define IB(vmid, at, dwords) HEADER(4, vmid), LOW(at), HIGH(at), dwords
#define FENCE(to, value) HEADER(5, 0), LOW(to), HIGH(to), value
#define TRAP HEADER(6, 0)
#define FILL(to, value, bytes) HEADER(11, 0), LOW(to), HIGH(to), value, bytes
#define PTES(to, flags, from, step, count) \
	HEADER(12, 0), LOW(to), HIGH(to), LOW(flags), HIGH(flags), LOW(from), HIGH(from), LOW(step), \
		HIGH(step), count
#define WREG(index, value) HEADER(14, 0xf000), index, value
#define POLL_ONCE_SET(to, value) HEADER(8, 0xb000), LOW(to), HIGH(to), value, 0xffffffff, 0xfff << 16 | 4
/* Registers by dword: GPU_HDP_FLUSH_REQ and _DONE; the flush is polled for SDMA0's bit. */
#define REQ 0x1537u
#define DONE 0x1538u
#define FLUSH HEADER(8, 0x3400), DONE << 2, REQ << 2, 0x400, 0x400, 0xfff << 16 | 10
#define PUT(gpu, ...) put(gpu, (const uint32_t[]){ __VA_ARGS__ }, sizeof((uint32_t[]){ __VA_ARGS__ }) / 4)

struct gpu {
	struct sdma_engine engine;
	struct sdma_ops ops;
	uint8_t *memory;
	uint64_t origin; /* the address where it begins */
	uint32_t registers[0x4000];
	unsigned int accesses, register_writes, traps, stops;
	unsigned int fail_at; /* the access that fails, counted from 1; 0 for none */
	unsigned int reset_at; /* the access that resets the engine */
	unsigned int read_vmid, write_vmid;
	void (*on_register)(struct gpu *gpu, uint32_t index, uint32_t value);
	uint64_t random;
};

static void *place(struct gpu *gpu, uint64_t address, uint32_t bytes)
{
	uint64_t offset = address - gpu->origin;

	assert_in_range(bytes, 1, SDMA_CHUNK);
	if (++gpu->accesses == gpu->reset_at)
		sdma_reset(&gpu->engine);
	if (gpu->accesses == gpu->fail_at || offset > MEMORY - bytes)
		return NULL;
	return gpu->memory + offset;
}

static int read_memory(void *opaque, unsigned int vmid, uint64_t address, void *data, uint32_t bytes)
{
	struct gpu *gpu = opaque;
	void *from = place(gpu, address, bytes);

	gpu->read_vmid = vmid;
	return from ? (memcpy(data, from, bytes), 0) : -1;
}

static int write_memory(void *opaque, unsigned int vmid, uint64_t address, const void *data, uint32_t bytes)
{
	struct gpu *gpu = opaque;
	void *to = place(gpu, address, bytes);

	gpu->write_vmid = vmid;
	return to ? (memcpy(to, data, bytes), 0) : -1;
}

static uint32_t read_register(void *opaque, uint32_t index)
{
	struct gpu *gpu = opaque;

	return index < 0x4000 ? gpu->registers[index] : 0;
}

static void write_register(void *opaque, uint32_t index, uint32_t value)
{
	struct gpu *gpu = opaque;

	gpu->register_writes++;
	if (index < 0x4000)
		gpu->registers[index] = value;
	if (gpu->on_register)
		gpu->on_register(gpu, index, value);
}

static void trap(void *opaque, const struct sdma_engine *engine, unsigned int vmid)
{
	struct gpu *gpu = opaque;

	assert_ptr_equal(engine, &gpu->engine);
	assert_in_range(vmid, 0, 15);
	gpu->traps++;
}

static void stopped(void *opaque, const struct sdma_engine *engine, const char *reason)
{
	struct gpu *gpu = opaque;

	assert_ptr_equal(engine->fault, reason);
	gpu->stops++;
}

static void set(struct gpu *gpu, uint64_t address, uint32_t value)
{
	value = htole32(value);
	memcpy(gpu->memory + (address - gpu->origin), &value, 4);
}

static uint32_t get(struct gpu *gpu, uint64_t address)
{
	uint32_t value;

	memcpy(&value, gpu->memory + (address - gpu->origin), 4);
	return le32toh(value);
}

static void put(struct gpu *gpu, const uint32_t *dwords, uint32_t count)
{
	struct sdma_engine *engine = &gpu->engine;

	for (uint32_t i = 0; i < count; i++, engine->wptr = (engine->wptr + 4) % engine->size)
		set(gpu, engine->base + engine->wptr, dwords[i]);
}

/* A GPU as it is at first, with an empty ring at the beginning of its memory. */
static void begin(struct gpu *gpu, uint64_t origin)
{
	uint8_t *memory = gpu->memory;

	*gpu = (struct gpu){ .memory = memory, .origin = origin, .engine = { .base = origin, .size = RING } };
	gpu->ops = (struct sdma_ops){ read_memory, write_memory, read_register, write_register, trap, stopped, gpu };
}

static int setup(void **state)
{
	struct gpu *gpu = *state = calloc(1, sizeof(*gpu));

	gpu->memory = calloc(1, MEMORY);
	begin(gpu, 0);
	return 0;
}

static int teardown(void **state)
{
	free(((struct gpu *)*state)->memory);
	free(*state);
	return 0;
}

static enum sdma_result run(struct gpu *gpu)
{
	return sdma_run(&gpu->engine, &gpu->ops, 64u << 20);
}

static void nops_are_skipped(void **state)
{
	struct gpu *gpu = *state;

	PUT(gpu, HEADER(0, 3), 0xbad, 0xbad, 0xbad, HEADER(0, 0), HEADER(0, 0), TRAP);
	assert_int_equal(run(gpu), SDMA_IDLE);
	assert_int_equal(gpu->engine.rptr, 28);
	assert_int_equal(gpu->traps, 1);
}

static void copies_move_each_byte(void **state)
{
	static const uint32_t sizes[] = { 0, 1, 7, 8, 4095, 4096, 4097, 0x1fffff, 0x3fffff };
	struct gpu *gpu = *state;

	/* From below 2^32, and across it. */
	begin(gpu, 0xff800000);
	for (uint32_t i = RING; i < MEMORY / 2; i++)
		gpu->memory[i] = (uint8_t)(i * 7 ^ i >> 8);
	for (unsigned int i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		uint32_t from = RING + i, to = MEMORY / 2 + 5 + i;

		memset(gpu->memory + MEMORY / 2, 0xaa, MEMORY / 2);
		PUT(gpu, COPY(gpu->origin + from, gpu->origin + to, sizes[i]));
		assert_int_equal(run(gpu), SDMA_IDLE);
		assert_memory_equal(gpu->memory + to, gpu->memory + from, sizes[i]);
		assert_int_equal(gpu->memory[to - 1], 0xaa);
		assert_int_equal(gpu->memory[to + sizes[i]], 0xaa);
	}
}

static void fills_repeat_bytes_or_dwords(void **state)
{
	struct gpu *gpu = *state;

	PUT(gpu, FILL(0x2001ull, 0x12345678, 5), HEADER(11, 0x8000), 0x3000, 0, 0x12345678, 0x3002);
	assert_int_equal(run(gpu), SDMA_IDLE);
	assert_memory_equal(gpu->memory + 0x2000, "\0\x78\x78\x78\x78\x78\0", 7);
	for (uint32_t i = 0; i < 0x3000; i += 4)
		assert_int_equal(get(gpu, 0x3000 + i), 0x12345678);
	assert_int_equal(get(gpu, 0x6000), 0x5678);
}

static void registers_are_written_by_the_byte(void **state)
{
	struct gpu *gpu = *state;

	gpu->registers[0x51f] = 0x11223344;
	PUT(gpu, WREG(0x51e, 0xaabbccdd), HEADER(14, 0x5000), 0x51f, 0xaabbccdd);
	assert_int_equal(run(gpu), SDMA_IDLE);
	assert_int_equal(gpu->registers[0x51e], 0xaabbccdd);
	assert_int_equal(gpu->registers[0x51f], 0x11bb33dd);
}

static void flush_is_asked_for_once_and_waited_for(void **state)
{
	struct gpu *gpu = *state;

	PUT(gpu, FLUSH, TRAP);
	assert_int_equal(run(gpu), SDMA_WAITING);
	assert_int_equal(run(gpu), SDMA_WAITING);
	assert_int_equal(gpu->registers[REQ], 0x400);
	assert_int_equal(gpu->register_writes, 1);
	assert_int_equal(gpu->traps, 0);
	gpu->registers[DONE] = 0xc00; /* SDMA1's bit does not matter */
	assert_int_equal(run(gpu), SDMA_IDLE);
	assert_int_equal(gpu->traps, 1);
}

static void polls_compare_what_the_mask_leaves(void **state)
{
	/* For each function whether 0x20, 0x10 and 0x30 meet a reference of 0x20. */
	static const char met[] = "111" "010" "110" "100" "011" "101" "001";
	struct gpu *gpu = *state;

	/* First of a register, then of memory. */
	for (unsigned int i = 0; i < 42; i++) {
		uint32_t value = 0x0f00000f | (const uint32_t[]){ 0x20, 0x10, 0x30 }[i % 3];

		begin(gpu, 0);
		set(gpu, 0x2000, i < 21 ? 0 : value);
		gpu->registers[0x2000 / 4] = i < 21 ? value : 0;
		PUT(gpu, HEADER(8, (i % 21 / 3) << 12 | (i < 21 ? 0 : 0x8000)), 0x2000, 0, 0x20, 0xf0, 0);
		assert_int_equal(run(gpu), met[i % 21] == '1' ? SDMA_IDLE : SDMA_WAITING);
	}
}

static void page_table_entries_are_generated(void **state)
{
	const uint64_t flags = 0x8000000000000261, from = 0xfffff000, step = 0x100000200;
	struct gpu *gpu = *state;

	PUT(gpu, PTES(0x4000ull, flags, from, step, 3000));
	for (int i = 0; i < 20 && sdma_run(&gpu->engine, &gpu->ops, 4093) == SDMA_BUSY; i++)
		;
	for (uint32_t i = 0; i < 3000; i++) {
		assert_int_equal(get(gpu, 0x4000 + 8 * i), LOW((from + i * step) | flags));
		assert_int_equal(get(gpu, 0x4004 + 8 * i), HIGH((from + i * step) | flags));
	}
	assert_int_equal(get(gpu, 0x4000 + 8 * 3000), 0);
}

/* As amdgpu_ib_schedule() has it, with a flush of the VMID before it and a user's fence behind it. */
static void put_job(struct gpu *gpu)
{
	const struct sdma_engine engine = gpu->engine;

	memset(gpu->memory + RING, 0, 0x8000);
	memset(gpu->memory + 0x3000, 0x5a, 0x1000);
	memset(gpu->memory + 0x7000, 0x5a, 0x20);
	gpu->engine.base = gpu->origin + 0x2000;
	gpu->engine.wptr = 0;
	PUT(gpu, COPY(gpu->origin + 0x3000, gpu->origin + 0x4000, 0xfff), WRITE(gpu->origin + 0x5000, 4),
	    1, 2, 3, 4, PTES(gpu->origin + 0x6000, 0x61ull, 0x1000ull, 0x1000ull, 9),
	    FILL(gpu->origin + 0x7000, 0, 0x10));
	gpu->engine = engine;
	gpu->registers[DONE] = 0x400;
	PUT(gpu, POLL_ONCE_SET(gpu->origin + 0x5ff0, 0), WREG(0x551, 0x1234), WREG(0x51e, 2), HEADER(8, 0), 0x51e << 2,
	    0, 0, 0, 0xfff << 16 | 10, FLUSH, IB(2, gpu->origin + 0x2000, 30), WREG(0xbcc, 1),
	    FENCE(gpu->origin + 0x5fe0, 11), FENCE(gpu->origin + 0x5fe4, 22), TRAP, FENCE(gpu->origin + 0x5ff0, 7), TRAP,
	    HEADER(0, 2), 0, 0);
}

static void check_job(struct gpu *gpu)
{
	assert_int_equal(gpu->engine.rptr, gpu->engine.wptr);
	assert_memory_equal(gpu->memory + 0x4000, gpu->memory + 0x3000, 0xfff);
	assert_int_equal(gpu->memory[0x4fff], 0);
	assert_int_equal(gpu->memory[0x700f], 0);
	assert_int_equal(gpu->memory[0x7010], 0x5a);
	for (uint32_t i = 0; i < 4; i++)
		assert_int_equal(get(gpu, gpu->origin + 0x5000 + 4 * i), i + 1);
	assert_int_equal(get(gpu, gpu->origin + 0x6040), 0x9061);
	assert_int_equal(get(gpu, gpu->origin + 0x5fe0), 11);
	assert_int_equal(get(gpu, gpu->origin + 0x5fe4), 22);
	assert_int_equal(get(gpu, gpu->origin + 0x5ff0), 7);
	assert_int_equal(gpu->registers[0xbcc], 1);
	assert_int_equal(gpu->register_writes, 4);
	assert_int_equal(gpu->traps, 2);
}

static void jobs_run_at_each_place_of_the_ring(void **state)
{
	struct gpu *gpu = *state;

	for (uint32_t start = 0; start < 1024; start += 4) {
		begin(gpu, 0xfffffe00);
		gpu->engine.size = 1024;
		gpu->engine.rptr = gpu->engine.wptr = start;
		put_job(gpu);
		assert_int_equal(run(gpu), SDMA_IDLE);
		check_job(gpu);
		assert_int_equal(gpu->write_vmid, 0);
	}
}

static void indirect_buffers_bring_their_vmid(void **state)
{
	struct gpu *gpu = *state;

	gpu->engine.vmid = 1;
	set(gpu, 0x2000, HEADER(5, 0));
	set(gpu, 0x2004, 0x4000);
	set(gpu, 0x200c, 6);
	PUT(gpu, IB(9, 0x2000ull, 0), FENCE(0x3000ull, 1));
	assert_int_equal(run(gpu), SDMA_IDLE);
	assert_int_equal(gpu->write_vmid, 1);
	PUT(gpu, IB(9, 0x2000ull, 4));
	assert_int_equal(run(gpu), SDMA_IDLE);
	assert_int_equal(get(gpu, 0x4000), 6);
	assert_int_equal(gpu->read_vmid, 9);
	assert_int_equal(gpu->write_vmid, 9);
}

static void packets_wait_for_their_last_dword(void **state)
{
	static const uint32_t packets[][12] = {
		{ 3, HEADER(0, 2) },
		{ 7, COPY(0x2000ull, 0x3000ull, 4) },
		{ 6, WRITE(0x3000ull, 2), 5, 6 },
		{ 4, FENCE(0x3000ull, 5) },
		{ 6, FLUSH },
		{ 5, FILL(0x3000ull, 5, 4) },
		{ 10, PTES(0x3000ull, 1ull, 4ull, 1ull, 1) },
		{ 3, WREG(0x100, 5) },
		{ 4, IB(0, 0x4000ull, 1) },
	};
	struct gpu *gpu = *state;

	for (unsigned int i = 0; i < sizeof(packets) / sizeof(packets[0]); i++) {
		begin(gpu, 0);
		memset(gpu->memory, 0, 0x5000);
		set(gpu, 0x2000, 1);
		set(gpu, 0x4000, TRAP);
		gpu->registers[DONE] = 0x400;
		for (uint32_t n = 0; n < packets[i][0]; n++) {
			assert_int_equal(run(gpu), SDMA_IDLE);
			assert_int_equal(gpu->engine.rptr, 0);
			assert_int_equal(get(gpu, 0x3000) | gpu->register_writes | gpu->traps, 0);
			put(gpu, packets[i] + 1 + n, 1);
		}
		assert_int_equal(run(gpu), SDMA_IDLE);
		assert_int_equal(gpu->engine.rptr, 4 * packets[i][0]);
		assert_true(!i || get(gpu, 0x3000) | gpu->register_writes | gpu->traps);
	}
}

static void budgets_divide_the_work(void **state)
{
	struct gpu *gpu = *state;

	for (uint64_t budget = 1; budget < 6000; budget += budget < 50 ? 1 : 997) {
		enum sdma_result result = SDMA_BUSY;

		begin(gpu, 0);
		put_job(gpu);
		assert_int_equal(sdma_run(&gpu->engine, &gpu->ops, 0), SDMA_BUSY);
		assert_int_equal(gpu->accesses, 0);
		for (int runs = 0; result == SDMA_BUSY; runs++) {
			unsigned int accesses = gpu->accesses;

			assert_true(runs < 5000);
			result = sdma_run(&gpu->engine, &gpu->ops, budget);
			assert_true(gpu->accesses - accesses <= 2 * budget + 8);
		}
		assert_int_equal(result, SDMA_IDLE);
		check_job(gpu);
	}
	/* One packet may have far more to do than the budget. */
	begin(gpu, 0);
	PUT(gpu, FILL(0x100000ull, 0xff, 0x3fffff));
	assert_int_equal(sdma_run(&gpu->engine, &gpu->ops, 10000), SDMA_BUSY);
	assert_in_range(gpu->engine.done, 9900, 10040);
	/* What it has begun stays the same when the guest writes to the ring. */
	memset(gpu->memory, 0xee, RING);
	assert_int_equal(run(gpu), SDMA_IDLE);
	assert_int_equal(gpu->memory[0x4ffffe], 0xff);
	assert_int_equal(gpu->memory[0x4fffff], 0);
}

static void bad_packets_halt(void **state)
{
	static const uint32_t packets[][10] = {
		{ 3 }, { 7 }, { 9 }, { 10 }, { 13 }, { 15 }, { 0xff },
		{ HEADER(0, 0x4000) },
		{ 1 | 1 << 8 /* tiled */ },
		{ HEADER(1, 0x800) /* to two places */ },
		{ HEADER(1, 0), 4, 1 << 16 /* swapped */, 0x3000, 0, 0x3000 },
		{ COPY(0x2000ull, 0x3000ull, 0x400000) },
		{ COPY(0x2000ull, 0x3000ull, 0xffffffff) },
		{ COPY(0x2000ull, MEMORY - 1ull, 2) },
		{ 2 | 1 << 8 /* tiled */ },
		{ WRITE(0x2000ull, 1020) /* as large as the ring */ },
		{ WRITE(0x2000ull, 0xffffffff) },
		{ WRITE(0x2002ull, 1), 0 },
		{ IB(0, 0x2004ull, 8) },
		{ IB(0, 0x2000ull, 0x100000) },
		{ HEADER(4, 0x10), 0x2000, 0, 8 },
		{ FENCE(0x2001ull, 1) },
		{ HEADER(5, 0x8000), 0x2000, 0, 1 },
		{ HEADER(6, 1) },
		{ HEADER(8, 0x7000) },
		{ HEADER(8, 0xb400) /* a flush of memory */ },
		{ HEADER(8, 0xb000), 0x2001 },
		{ HEADER(8, 0x3400), 0x2000, 0x2002 },
		{ HEADER(11, 0x4000), 0x2000, 0, 0, 4 },
		{ FILL(0x2000ull, 0, 0x400000) },
		{ PTES(0x2000ull, 0ull, 0ull, 0ull, 0x80000) },
		{ PTES(0x2000ull, 0ull, 0ull, 0ull, 0xffffffff) },
		{ PTES(0x2002ull, 0ull, 0ull, 0ull, 1) },
		{ HEADER(14, 0xf001), 0x100, 1 },
	};
	struct gpu *gpu = *state;

	for (unsigned int i = 0; i < sizeof(packets) / sizeof(packets[0]); i++) {
		begin(gpu, 0);
		memset(gpu->memory, 0, 0x10000);
		put(gpu, packets[i], 10);
		assert_int_equal(run(gpu), SDMA_HALTED);
		assert_int_equal(run(gpu), SDMA_HALTED);
		assert_int_equal(gpu->stops, 1);
		assert_int_equal(gpu->engine.rptr, 0);
		assert_int_equal(gpu->engine.packet[0], packets[i][0]);
		assert_int_equal(gpu->register_writes | gpu->traps, 0);
		/* In the middle of an indirect buffer the same is bad, and a reset leaves it. */
		begin(gpu, 0);
		for (uint32_t dword = 0; dword < 10; dword++)
			set(gpu, 0x8004 + 4 * dword, packets[i][dword]);
		PUT(gpu, IB(3, 0x8000ull, 11), TRAP);
		assert_int_equal(run(gpu), SDMA_HALTED);
		sdma_reset(&gpu->engine);
		assert_int_equal(run(gpu), SDMA_IDLE);
		assert_int_equal(gpu->traps, 1);
	}
	/* In an indirect buffer there is no other, and nothing ends behind it. */
	memset(gpu->memory, 0, 0x10000);
	for (uint32_t dwords = 1; dwords <= 4; dwords++) {
		begin(gpu, 0);
		set(gpu, 0x8000, dwords == 4 ? HEADER(4, 0) : HEADER(5, 0));
		PUT(gpu, IB(0, 0x8000ull, dwords));
		assert_int_equal(run(gpu), SDMA_HALTED);
	}
	for (unsigned int i = 0; i < 4; i++) {
		begin(gpu, 0);
		gpu->engine.base = i == 3 ? UINT64_MAX - 100 : 0;
		gpu->engine.size = (const uint64_t[]){ 0, 2, 24, 128 }[i];
		assert_int_equal(run(gpu), SDMA_HALTED);
	}
}

static void nothing_goes_on_at_address_0(void **state)
{
	static const uint32_t packets[][10] = {
		{ COPY(0ull, 0xffffffffffff0000, 0x10001) },
		{ COPY(0xffffffffffff0000, 0ull, 0x10001) },
		{ WRITE(0xfffffffffffffffc, 2), 0, 0 },
		{ FILL(0xffffffffffffffff, 0, 2) },
		{ PTES(0xfffffffffffffff8, 0ull, 0ull, 0ull, 2) },
		{ IB(0, 0xffffffffffffffe0, 9) },
	};
	struct gpu *gpu = *state;

	/* There is memory on both sides, and up to the end all is well. */
	for (unsigned int i = 0; i < sizeof(packets) / sizeof(packets[0]); i++) {
		unsigned int count = (const unsigned int[]){ 1, 1, 3, 4, 9, 3 }[i];

		begin(gpu, 0ull - MEMORY / 2);
		put(gpu, packets[i], 10);
		assert_int_equal(run(gpu), SDMA_HALTED);
		assert_int_equal(gpu->accesses, 2);
		begin(gpu, 0ull - MEMORY / 2);
		put(gpu, packets[i], 10);
		set(gpu, gpu->engine.base + 4 * count, packets[i][count] - 1);
		gpu->engine.wptr = i == 2 ? 20 : i < 2 ? 28 : 4 * count + 4;
		assert_int_equal(run(gpu), SDMA_IDLE);
	}
}

static void memory_may_fail_at_each_access(void **state)
{
	struct gpu *gpu = *state;
	unsigned int failed = 0;

	do {
		begin(gpu, 0);
		gpu->engine.size = 1024;
		gpu->engine.rptr = gpu->engine.wptr = 1012;
		put_job(gpu);
		gpu->fail_at = ++failed;
		if (run(gpu) == SDMA_IDLE)
			break;
		assert_non_null(gpu->engine.fault);
		assert_int_equal(gpu->stops, 1);
		assert_int_equal(gpu->accesses, failed);
		assert_true(gpu->traps < 2 || get(gpu, 0x5ff0) == 7);
	} while (failed < 1000);
	check_job(gpu);
	assert_in_range(failed, 30, 100);
}

enum { RESET = 0x3800, HALT, AGAIN, RPTR, WPTR, BASE, SIZE };

static void change_engine(struct gpu *gpu, uint32_t index, uint32_t value)
{
	switch (index) {
	case RESET:
		sdma_reset(&gpu->engine);
		gpu->engine.rptr = gpu->engine.wptr = value;
		break;
	case HALT:
		gpu->engine.halted = value & 1;
		break;
	case AGAIN:
		assert_int_equal(run(gpu), SDMA_BUSY);
		break;
	case RPTR:
		gpu->engine.rptr = value;
		break;
	case WPTR:
		gpu->engine.wptr = value;
		break;
	case BASE:
		gpu->engine.base = value;
		break;
	default:
		if (index != SIZE)
			break;
		gpu->engine.size = value & 0x80000000 ? value : 1ull << value % 64;
		break;
	}
}

static void registers_of_the_engine_may_be_its_target(void **state)
{
	struct gpu *gpu = *state;

	gpu->on_register = change_engine;
	PUT(gpu, WREG(AGAIN, 0), WREG(HALT, 1), TRAP);
	assert_int_equal(run(gpu), SDMA_HALTED);
	assert_int_equal(gpu->traps | gpu->stops, 0);
	gpu->engine.halted = false;
	assert_int_equal(run(gpu), SDMA_IDLE);
	assert_int_equal(gpu->traps, 1);
	PUT(gpu, WREG(RESET, 0x80), TRAP);
	assert_int_equal(run(gpu), SDMA_IDLE);
	assert_int_equal(gpu->engine.rptr, 0x80);
	PUT(gpu, HEADER(8, 0x3400), DONE << 2, RESET << 2, 0x40, 0x40, 0, TRAP);
	assert_int_equal(run(gpu), SDMA_IDLE);
	assert_int_equal(gpu->engine.rptr, 0x40);
	/* In the middle of a copy the reset ends it; then it is begun anew. */
	PUT(gpu, FILL(0x2000ull, 1, 3 * SDMA_CHUNK));
	gpu->reset_at = gpu->accesses + 4;
	assert_int_equal(run(gpu), SDMA_IDLE);
	assert_int_equal(gpu->accesses, gpu->reset_at + 2 + 3);
	/* For ever behind its own tail, but not in one call. */
	begin(gpu, 0);
	gpu->on_register = change_engine;
	PUT(gpu, WREG(RPTR, RING - 12), 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(sdma_run(&gpu->engine, &gpu->ops, 10000), SDMA_BUSY);
}

static uint32_t some(struct gpu *gpu, uint32_t limit)
{
	gpu->random ^= gpu->random << 13;
	gpu->random ^= gpu->random >> 7;
	gpu->random ^= gpu->random << 17;
	return (uint32_t)(gpu->random >> 16) % limit;
}

/*
 * Mostly good packets with addresses of a small memory, in which they write to each other, too.
 * Returns how many bytes the packet has.
 */
static uint32_t put_random_packet(struct gpu *gpu, uint8_t *to)
{
	static const uint32_t headers[] = { 0, 1, 2, 0xf0004, 5, 6, 0xf4000008, 0x8000000b, 12, 0xf000000e };
	static const uint8_t lengths[] = { 1, 7, 4, 4, 4, 1, 6, 5, 10, 3 };
	uint32_t kind = some(gpu, 10), packet[10], extra = some(gpu, 8);

	packet[0] = headers[kind] & (some(gpu, 0xffffffff) | 0xff);
	for (unsigned int i = 1; i < 10; i++) {
		unsigned int how = some(gpu, 128);

		packet[i] = how == 0 ? some(gpu, 0xffffffff) : how < 60 ? some(gpu, 40) : some(gpu, 0x4000);
	}
	if (some(gpu, 32)) /* aligned, with the upper halves of addresses 0 */
		packet[1] &= ~31u;
	if (kind != 9 && some(gpu, 64))
		packet[2] = packet[4] = packet[6] = 0;
	if (kind == 9 && some(gpu, 8) == 0)
		packet[1] = RESET + some(gpu, 7);
	if (kind == 0)
		packet[0] = extra << 16;
	else if (kind == 2)
		packet[3] = extra;
	if (some(gpu, 128) == 0)
		packet[0] = some(gpu, 0xffffffff);
	for (unsigned int i = 0; i < 10; i++)
		packet[i] = htole32(packet[i]);
	memcpy(to, packet, sizeof(packet));
	return 4 * (lengths[kind] + (kind == 0 || kind == 2 ? extra : 0));
}

static void random_rings_neither_crash_nor_loop(void **state)
{
	unsigned int results[4] = { 0 }, traps = 0, from_ib = 0;
	struct gpu *gpu = *state;
	uint64_t random = 0x243f6a8885a308d3;

	for (unsigned int ring = 0; ring < 100000; ring++) {
		enum sdma_result result = SDMA_BUSY;

		begin(gpu, 0);
		gpu->random = random;
		gpu->on_register = change_engine;
		for (uint32_t at = 0; at < 0x3000; )
			at += put_random_packet(gpu, gpu->memory + at);
		gpu->engine.size = 8ull << some(gpu, 10);
		gpu->engine.wptr = some(gpu, 0x1000);
		gpu->fail_at = some(gpu, 4) ? 0 : some(gpu, 50);
		gpu->reset_at = some(gpu, 4) ? 0 : some(gpu, 50);
		for (int runs = 0; runs < 8 && (result == SDMA_BUSY || result == SDMA_WAITING); runs++) {
			unsigned int work = gpu->accesses + gpu->register_writes;
			uint32_t budget = some(gpu, 8192);

			result = sdma_run(&gpu->engine, &gpu->ops, budget);
			assert_true(gpu->accesses + gpu->register_writes - work <= 2 * budget + 8);
			assert_true(result != SDMA_HALTED || gpu->engine.fault || gpu->engine.halted);
		}
		results[result]++;
		traps += gpu->traps;
		from_ib += gpu->read_vmid != 0;
		random = gpu->random;
	}
	/* They reached what they are for. */
	for (unsigned int i = 0; i < 4; i++)
		assert_true(results[i] > 1000);
	assert_true(traps > 10000 && from_ib > 5000);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		TEST(nops_are_skipped),
		TEST(copies_move_each_byte),
		TEST(fills_repeat_bytes_or_dwords),
		TEST(registers_are_written_by_the_byte),
		TEST(flush_is_asked_for_once_and_waited_for),
		TEST(polls_compare_what_the_mask_leaves),
		TEST(page_table_entries_are_generated),
		TEST(jobs_run_at_each_place_of_the_ring),
		TEST(indirect_buffers_bring_their_vmid),
		TEST(packets_wait_for_their_last_dword),
		TEST(budgets_divide_the_work),
		TEST(bad_packets_halt),
		TEST(nothing_goes_on_at_address_0),
		TEST(memory_may_fail_at_each_access),
		TEST(registers_of_the_engine_may_be_its_target),
		TEST(random_rings_neither_crash_nor_loop),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests_name("sdma", tests, NULL, NULL);
}

// SPDX-License-Identifier: MIT
/*
 * Fetches, checks and executes SDMA packets. What amdgpu does not emit is refused, so that a test
 * says what is missing and does not pass by luck.
 */
#include "sdma.h"

#include <endian.h>
#include <stddef.h>

/* The count fields of COPY, WRITE and GENERATE_PTE_PDE have 22, 20 and 19 bits: all mean this. */
#define WORK_MAX ((4ull << 20) - 1)
/* An indirect buffer's size is a field of 20 bits. */
#define IB_DWORDS_MAX ((1u << 20) - 1)

enum opcode {
	NOP = 0,
	COPY = 1,
	WRITE = 2,
	INDIRECT_BUFFER = 4,
	FENCE = 5,
	TRAP = 6,
	POLL_REG_MEM = 8,
	CONSTANT_FILL = 11,
	GENERATE_PTE_PDE = 12,
	SRBM_WRITE = 14,
};

/*
 * How many dwords a packet has, without the data that follows WRITE, and which bits of its header
 * may be set besides the opcode. Where a variant of a packet is missing, the bits that choose it
 * are: only linear copies and writes, without a swap, are known, and no mailboxes. An opcode that
 * is missing is refused: amdgpu uses no SEMAPHORE, COND_EXEC and TIMESTAMP on these chips.
 */
static const struct {
	uint32_t dwords;
	uint32_t fields;
} layouts[] = {
	[NOP] = { 1, 0x3fff0000 },	      /* dwords to skip */
	[COPY] = { 7, 0 },
	[WRITE] = { 4, 0 },
	[INDIRECT_BUFFER] = { 4, 0x000f0000 }, /* VMID */
	[FENCE] = { 4, 0 },
	[TRAP] = { 1, 0 },		      /* later chips' has a second dword, a context */
	[POLL_REG_MEM] = { 6, 0xf4000000 },   /* operation, function, memory */
	[CONSTANT_FILL] = { 5, 0xc0000000 },  /* what is repeated: a byte or a dword */
	[GENERATE_PTE_PDE] = { 10, 0 },
	[SRBM_WRITE] = { 3, 0xf0000000 },     /* which bytes to write */
};

struct run {
	struct sdma_engine *engine;
	const struct sdma_ops *ops;
	uint64_t budget;
};

static enum sdma_result fail(struct run *run, const char *reason)
{
	run->engine->fault = reason;
	run->ops->stopped(run->ops->opaque, run->engine, reason);
	return SDMA_HALTED;
}

static void spend(struct run *run, uint64_t bytes)
{
	run->budget -= bytes < run->budget ? bytes : run->budget;
}

/* Whether a range goes on at address 0. Each packet's ranges are checked once, as a whole. */
static bool wraps(uint64_t address, uint64_t bytes)
{
	return bytes && address > UINT64_MAX - (bytes - 1);
}

static uint64_t lesser(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static enum opcode opcode_of(const struct sdma_engine *engine)
{
	return engine->packet[0] & 0xff;
}

static uint64_t quadword(const struct sdma_engine *engine, unsigned int index)
{
	return engine->packet[index] | (uint64_t)engine->packet[index + 1] << 32;
}

static unsigned int vmid_of(const struct sdma_engine *engine)
{
	return engine->ib.dwords ? engine->ib.vmid : engine->vmid;
}

static bool read_memory(struct run *run, uint64_t address, void *data, uint64_t bytes)
{
	if (!run->ops->read(run->ops->opaque, vmid_of(run->engine), address, data, (uint32_t)bytes))
		return true;
	fail(run, "memory can't be read");
	return false;
}

static bool write_memory(struct run *run, uint64_t address, const void *data, uint64_t bytes)
{
	if (!run->ops->write(run->ops->opaque, vmid_of(run->engine), address, data, (uint32_t)bytes))
		return true;
	fail(run, "memory can't be written");
	return false;
}

/* Reads of the packets that come next, in the indirect buffer or the ring, after @skip dwords. */
static bool read_packets(struct run *run, uint64_t skip, void *data, uint64_t bytes)
{
	const struct sdma_engine *engine = run->engine;
	uint64_t place, first;

	if (engine->ib.dwords)
		return read_memory(run, engine->ib.address + 4 * skip, data, bytes);
	place = ((engine->rptr & ~3ull) + 4 * skip) & (engine->size - 1);
	first = lesser(bytes, engine->size - place);
	return read_memory(run, engine->base + place, data, first) &&
	       (first == bytes || read_memory(run, engine->base, (uint8_t *)data + first, bytes - first));
}

static uint64_t dwords_left(const struct sdma_engine *engine)
{
	if (engine->ib.dwords)
		return engine->ib.dwords;
	return (((engine->wptr & ~3ull) - (engine->rptr & ~3ull)) & (engine->size - 1)) / 4;
}

/* Moves on to the next packet. If a callback has reset the engine, the length is 0. */
static enum sdma_result finish(struct sdma_engine *engine)
{
	if (engine->ib.dwords) {
		engine->ib.address += 4 * engine->length;
		engine->ib.dwords -= (uint32_t)engine->length;
	} else {
		engine->rptr = ((engine->rptr & ~3ull) + 4 * engine->length) & (engine->size - 1);
	}
	engine->length = 0;
	return SDMA_BUSY;
}

/* Takes the next packet into work. Each dword is read once, as the guest may change it. */
static enum sdma_result fetch(struct run *run)
{
	struct sdma_engine *engine = run->engine;
	uint64_t left, length;
	uint32_t header;

	if (engine->size < 4 || engine->size & (engine->size - 1) || wraps(engine->base, engine->size))
		return fail(run, "the ring has no such size");
	left = dwords_left(engine);
	if (!left)
		return SDMA_IDLE;

	spend(run, 4);
	if (!read_packets(run, 0, &header, 4))
		return SDMA_HALTED;
	engine->packet[0] = header = le32toh(header);
	if (opcode_of(engine) >= sizeof(layouts) / sizeof(layouts[0]) || !layouts[opcode_of(engine)].dwords)
		return fail(run, "a packet of this kind is not known");
	if (header & ~(layouts[opcode_of(engine)].fields | 0xff))
		return fail(run, "a variant of a packet is not known");

	length = layouts[opcode_of(engine)].dwords;
	if (left >= length && length > 1) {
		spend(run, 4 * (length - 1));
		if (!read_packets(run, 1, engine->packet + 1, 4 * (length - 1)))
			return SDMA_HALTED;
		for (unsigned int i = 1; i < length; i++)
			engine->packet[i] = le32toh(engine->packet[i]);
	}
	if (opcode_of(engine) == NOP)
		length += header >> 16;
	else if (opcode_of(engine) == WRITE && left >= length)
		length += engine->packet[3];

	if (left < length && engine->ib.dwords)
		return fail(run, "a packet ends behind its indirect buffer");
	if (left < length && 4 * length >= engine->size)
		return fail(run, "a packet is larger than its ring");
	if (left < length)
		return SDMA_IDLE;
	engine->length = length;
	engine->done = 0;
	return SDMA_BUSY;
}

/* What a packet that writes memory writes next. */
static bool produce(struct run *run, uint64_t *buffer, uint64_t bytes)
{
	const struct sdma_engine *engine = run->engine;
	uint64_t words = (bytes + 7) / 8;
	uint64_t value = engine->packet[3];

	switch (opcode_of(engine)) {
	case COPY:
		return read_memory(run, quadword(engine, 3) + engine->done, buffer, bytes);
	case WRITE:
		return read_packets(run, 4 + engine->done / 4, buffer, bytes);
	case CONSTANT_FILL:
		value = engine->packet[0] >> 30 ? value : (value & 0xff) * 0x01010101;
		for (uint64_t i = 0; i < words; i++)
			buffer[i] = htole64(value | value << 32);
		return true;
	default: /* GENERATE_PTE_PDE */
		value = quadword(engine, 5) + engine->done / 8 * quadword(engine, 7);
		for (uint64_t i = 0; i < words; i++, value += quadword(engine, 7))
			buffer[i] = htole64(value | quadword(engine, 3));
		return true;
	}
}

/*
 * COPY, WRITE, CONSTANT_FILL and GENERATE_PTE_PDE. Copies go upwards piece by piece; amdgpu makes
 * none that overlap. All pieces but the last are multiples of 8 bytes, so each begins with a whole
 * entry of a page table.
 */
static enum sdma_result transfer(struct run *run)
{
	struct sdma_engine *engine = run->engine;
	enum opcode opcode = opcode_of(engine);
	uint64_t destination = quadword(engine, opcode == COPY ? 5 : 1);
	uint64_t buffer[SDMA_CHUNK / 8], total;

	if (opcode == COPY)
		total = engine->packet[1];
	else if (opcode == WRITE)
		total = 4ull * engine->packet[3];
	else if (opcode == CONSTANT_FILL)
		total = engine->packet[4];
	else
		total = 8ull * engine->packet[9];

	if (total > WORK_MAX)
		return fail(run, "a packet has too much to do");
	if (wraps(destination, total) || (opcode == COPY && wraps(quadword(engine, 3), total)))
		return fail(run, "a packet's memory goes on at address 0");
	if (opcode == COPY && engine->packet[2])
		return fail(run, "COPY with a swap or a cache policy");
	if (opcode == CONSTANT_FILL && engine->packet[0] >> 30 & 1)
		return fail(run, "CONSTANT_FILL with neither bytes nor dwords");
	if ((opcode == WRITE || opcode == GENERATE_PTE_PDE) && destination & 3)
		return fail(run, "an address is not a multiple of 4");

	while (engine->length && engine->done < total) {
		uint64_t bytes = run->budget < 8 ? 8 : lesser(run->budget & ~7ull, SDMA_CHUNK);

		if (!run->budget)
			return SDMA_BUSY;
		bytes = lesser(bytes, total - engine->done);
		spend(run, bytes);
		if (!produce(run, buffer, bytes) ||
		    !write_memory(run, destination + engine->done, buffer, bytes))
			return SDMA_HALTED;
		engine->done += bytes;
	}
	return finish(engine);
}

static enum sdma_result begin_ib(struct run *run)
{
	struct sdma_engine *engine = run->engine;
	uint64_t address = quadword(engine, 1);
	uint32_t dwords = engine->packet[3];

	if (engine->ib.dwords)
		return fail(run, "an indirect buffer in an indirect buffer");
	if (address & 31 || dwords > IB_DWORDS_MAX || wraps(address, 4ull * dwords))
		return fail(run, "an indirect buffer has no such place");
	finish(engine);
	engine->ib.address = address;
	engine->ib.dwords = dwords;
	engine->ib.vmid = engine->packet[0] >> 16 & 0xf;
	return SDMA_BUSY;
}

static bool compare(uint32_t function, uint32_t value, uint32_t reference)
{
	switch (function) {
	case 0:
		return true;
	case 1:
		return value < reference;
	case 2:
		return value <= reference;
	case 3:
		return value == reference;
	case 4:
		return value != reference;
	case 5:
		return value >= reference;
	default:
		return value > reference;
	}
}

/*
 * Waits for memory or a register; operation 1 writes the reference to another register first. The
 * interval and the number of tries, the last dword, are the caller's: amdgpu has it try for ever.
 */
static enum sdma_result poll(struct run *run)
{
	struct sdma_engine *engine = run->engine;
	bool request = engine->packet[0] >> 26 & 1;
	uint32_t function = engine->packet[0] >> 28 & 7;
	bool memory = engine->packet[0] >> 31;
	uint32_t value;

	if (function == 7 || (request && memory))
		return fail(run, "POLL_REG_MEM of no known kind");
	if (engine->packet[1] & 3 || (request && engine->packet[2] & 3))
		return fail(run, "an address is not a multiple of 4");

	spend(run, 4);
	if (request && !engine->done) {
		engine->done = 1;
		run->ops->write_register(run->ops->opaque, engine->packet[2] / 4, engine->packet[3]);
	}
	if (!memory)
		value = run->ops->read_register(run->ops->opaque, engine->packet[1] / 4);
	else if (read_memory(run, quadword(engine, 1), &value, 4))
		value = le32toh(value);
	else
		return SDMA_HALTED;
	if (engine->length && !compare(function, value & engine->packet[4], engine->packet[3]))
		return SDMA_WAITING;
	return finish(engine);
}

static enum sdma_result write_register(struct run *run)
{
	const struct sdma_ops *ops = run->ops;
	uint32_t index = run->engine->packet[1], value = run->engine->packet[2];
	uint32_t enabled = run->engine->packet[0] >> 28, mask = 0;

	for (unsigned int byte = 0; byte < 4; byte++)
		mask |= enabled >> byte & 1 ? 0xffu << 8 * byte : 0;
	spend(run, 4);
	if (enabled != 0xf)
		value = (value & mask) | (ops->read_register(ops->opaque, index) & ~mask);
	ops->write_register(ops->opaque, index, value);
	return finish(run->engine);
}

static enum sdma_result write_fence(struct run *run)
{
	uint32_t value = htole32(run->engine->packet[3]);

	if (run->engine->packet[1] & 3)
		return fail(run, "an address is not a multiple of 4");
	spend(run, 4);
	if (!write_memory(run, quadword(run->engine, 1), &value, 4))
		return SDMA_HALTED;
	return finish(run->engine);
}

/* SDMA_BUSY if there may be more to do. */
static enum sdma_result step(struct run *run)
{
	struct sdma_engine *engine = run->engine;

	if (engine->halted || engine->fault)
		return SDMA_HALTED;
	if (!engine->length) {
		enum sdma_result result = fetch(run);

		if (result != SDMA_BUSY)
			return result;
	}
	switch (opcode_of(engine)) {
	case NOP:
		return finish(engine);
	case COPY:
	case WRITE:
	case CONSTANT_FILL:
	case GENERATE_PTE_PDE:
		return transfer(run);
	case INDIRECT_BUFFER:
		return begin_ib(run);
	case FENCE:
		return write_fence(run);
	case TRAP:
		run->ops->trap(run->ops->opaque, engine, vmid_of(engine));
		return finish(engine);
	case POLL_REG_MEM:
		return poll(run);
	case SRBM_WRITE:
		break;
	}
	return write_register(run);
}

enum sdma_result sdma_run(struct sdma_engine *engine, const struct sdma_ops *ops, uint64_t budget)
{
	struct run run = { engine, ops, budget };
	enum sdma_result result = SDMA_BUSY;

	if (engine->running)
		return SDMA_BUSY;
	engine->running = true;
	while (run.budget && result == SDMA_BUSY)
		result = step(&run);
	engine->running = false;
	return result;
}

void sdma_reset(struct sdma_engine *engine)
{
	engine->fault = NULL;
	engine->length = 0;
	engine->done = 0;
	engine->ib.dwords = 0;
}

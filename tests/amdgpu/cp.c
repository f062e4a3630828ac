/* SPDX-License-Identifier: MIT */
/* The packets are those of Linux's cikd.h. Packets and what they write are little-endian. */
#include "cp.h"

#include <endian.h>
#include <stddef.h>

enum opcode {
	NOP = 0x10,
	INDIRECT_BUFFER_CONST = 0x33,
	WRITE_DATA = 0x37,
	WAIT_REG_MEM = 0x3c,
	INDIRECT_BUFFER = 0x3f,
	EVENT_WRITE_EOP = 0x47,
	RELEASE_MEM = 0x49,
	SET_UCONFIG_REG = 0x79,
};

#define UCONFIG_REG_START 0xc000

/* Of the packets that do something none has more after its header, but for registers and data. */
#define BODY 6

struct packet {
	uint32_t header;
	uint32_t dwords; /* in all */
	uint64_t body;	 /* where what follows the header is: an address, or an index of the ring */
	bool in_ib;
	unsigned int vmid;
};

static enum cp_result fail(struct cp_ring *ring, const struct cp_ops *ops, uint32_t header, const char *reason)
{
	ring->fault = reason;
	ops->stopped(ops->opaque, ring, header, reason);
	return CP_HALTED;
}

/* Dword @index of what follows the header. */
static bool read_body(const struct cp_ring *ring, const struct cp_ops *ops, const struct packet *packet, uint32_t index,
		      uint32_t *value)
{
	uint64_t address = packet->body + 4ull * index;

	if (!packet->in_ib)
		address = ring->base + 4ull * ((packet->body + index) & (ring->dwords - 1));
	if (ops->read(ops->opaque, packet->in_ib ? packet->vmid : 0, address, value, 1))
		return false;
	*value = le32toh(*value);
	return true;
}

static bool write_memory(const struct cp_ops *ops, unsigned int vmid, uint64_t address, uint32_t value)
{
	value = htole32(value);
	return !ops->write(ops->opaque, vmid, address & ~3ull, &value, 1);
}

static bool compare(uint32_t function, uint32_t value, uint32_t reference)
{
	switch (function) {
	case 1: return value < reference;
	case 2: return value <= reference;
	case 3: return value == reference;
	case 4: return value != reference;
	case 5: return value >= reference;
	case 6: return value > reference;
	default: return true;
	}
}

/* What an event writes when the work before it is done, i.e. now. @selects: what, and whether an interrupt follows. */
static bool end_of_pipe(struct cp_ring *ring, const struct cp_ops *ops, unsigned int vmid, uint64_t address,
			uint32_t selects, const uint32_t *data)
{
	uint32_t data_sel = selects >> 29, int_sel = selects >> 24 & 3;

	if (data_sel == 1 || data_sel == 2) {
		if (!write_memory(ops, vmid, address, data[0]))
			return false;
		if (data_sel == 2 && !write_memory(ops, vmid, address + 4, data[1]))
			return false;
	}
	if (int_sel)
		ops->interrupt(ops->opaque, ring, vmid);
	return true;
}

static bool write_data(const struct cp_ring *ring, const struct cp_ops *ops, const struct packet *packet,
		       const uint32_t *body)
{
	uint32_t destination = body[0] >> 8 & 0xf; /* a register, or memory in one way or the other */
	bool one_address = body[0] >> 16 & 1;
	uint64_t address = body[1] | (uint64_t)body[2] << 32;

	if (destination != 0 && destination != 1 && destination != 2 && destination != 5)
		return false;
	for (uint32_t i = 3; i + 1 < packet->dwords; i++) {
		uint32_t value, step = one_address ? 0 : i - 3;

		if (!read_body(ring, ops, packet, i, &value))
			return false;
		if (destination == 0)
			ops->write_register(ops->opaque, (uint32_t)address + step, value);
		else if (!write_memory(ops, packet->vmid, address + 4ull * step, value))
			return false;
	}
	return true;
}

static bool set_uconfig_registers(const struct cp_ring *ring, const struct cp_ops *ops, const struct packet *packet,
				  const uint32_t *body)
{
	for (uint32_t i = 1; i + 1 < packet->dwords; i++) {
		uint32_t value;

		if (!read_body(ring, ops, packet, i, &value))
			return false;
		ops->write_register(ops->opaque, UCONFIG_REG_START + (body[0] & 0xffff) + i - 1, value);
	}
	return true;
}

/* Operation 1 writes the reference to the first register, once, and waits for the second. */
static bool wait_is_over(struct cp_ring *ring, const struct cp_ops *ops, const struct packet *packet,
			 const uint32_t *body, bool *readable)
{
	bool memory = body[0] >> 4 & 1, request = body[0] >> 6 & 1;
	uint32_t value;

	*readable = true;
	if (request && !memory && !ring->requested) {
		ring->requested = true;
		ops->write_register(ops->opaque, body[1], body[3]);
	}
	if (!memory) {
		value = ops->read_register(ops->opaque, request ? body[2] : body[1]);
	} else {
		*readable = !ops->read(ops->opaque, packet->vmid, (body[1] | (uint64_t)body[2] << 32) & ~3ull, &value, 1);
		if (!*readable)
			return false;
		value = le32toh(value);
	}
	return compare(body[0] & 7, value & body[4], body[3]);
}

static enum cp_result execute(struct cp_ring *ring, const struct cp_ops *ops, const struct packet *packet)
{
	uint32_t body[BODY] = { 0 };
	enum opcode opcode = packet->header >> 8 & 0xff;
	bool good = true, over;

	for (uint32_t i = 0; i < BODY && i + 1 < packet->dwords; i++) {
		if (!read_body(ring, ops, packet, i, &body[i]))
			return fail(ring, ops, packet->header, "the ring or its buffer can't be read");
	}
	switch (opcode) {
	case SET_UCONFIG_REG: good = set_uconfig_registers(ring, ops, packet, body); break;
	case WRITE_DATA: good = write_data(ring, ops, packet, body); break;
	case EVENT_WRITE_EOP:
		good = end_of_pipe(ring, ops, packet->vmid, body[1] | (uint64_t)(body[2] & 0xffff) << 32, body[2], body + 3);
		break;
	case RELEASE_MEM:
		good = end_of_pipe(ring, ops, packet->vmid, body[2] | (uint64_t)body[3] << 32, body[1], body + 4);
		break;
	case WAIT_REG_MEM:
		over = wait_is_over(ring, ops, packet, body, &good);
		if (good && !over)
			return CP_WAITING;
		break;
	case INDIRECT_BUFFER:
	case INDIRECT_BUFFER_CONST:
		if (packet->in_ib)
			return fail(ring, ops, packet->header, "an indirect buffer in an indirect buffer");
		ring->ib.address = (body[0] & ~3u) | (uint64_t)(body[1] & 0xffff) << 32;
		ring->ib.dwords = body[2] & 0xfffff;
		ring->ib.vmid = body[2] >> 24 & 0xf;
		break;
	default: break;
	}
	return good ? CP_BUSY : fail(ring, ops, packet->header, "memory can't be read or written");
}

/* The next packet; its length is 0 if it is not whole yet. */
static bool fetch(struct cp_ring *ring, const struct cp_ops *ops, struct packet *packet)
{
	uint32_t left = ring->ib.dwords;

	*packet = (struct packet){ .in_ib = left != 0, .vmid = left ? ring->ib.vmid : 0 };
	if (!packet->in_ib)
		left = (ring->wptr - ring->rptr) & (ring->dwords - 1);
	if (!left)
		return true;
	packet->body = packet->in_ib ? ring->ib.address : ring->rptr;
	if (!read_body(ring, ops, packet, 0, &packet->header))
		return false;
	packet->body += packet->in_ib ? 4 : 1;
	/* Type 2 is one dword, as is a NOP of type 3 with the largest count; type 0 is for registers of old. */
	packet->dwords = packet->header >> 30 == 2 ? 1 : (packet->header >> 16 & 0x3fff) + 2;
	if (packet->header >> 30 == 3 && packet->dwords == 0x3fff + 2)
		packet->dwords = 1;
	if (packet->dwords > left)
		packet->dwords = packet->in_ib ? left : 0;
	return true;
}

static void advance(struct cp_ring *ring, const struct packet *packet)
{
	ring->requested = false;
	if (packet->in_ib) {
		ring->ib.address += 4ull * packet->dwords;
		ring->ib.dwords -= packet->dwords;
	} else {
		ring->rptr = (ring->rptr + packet->dwords) & (ring->dwords - 1);
	}
}

static enum cp_result step(struct cp_ring *ring, const struct cp_ops *ops, uint32_t *budget)
{
	struct packet packet;
	enum cp_result result = CP_BUSY;

	if (ring->fault)
		return CP_HALTED;
	if (!ring->dwords || ring->dwords & (ring->dwords - 1))
		return CP_IDLE;
	if (!fetch(ring, ops, &packet))
		return fail(ring, ops, 0, "the ring or its buffer can't be read");
	if (!packet.dwords)
		return CP_IDLE;
	*budget -= packet.dwords < *budget ? packet.dwords : *budget;
	if (packet.header >> 30 == 3 && (packet.header >> 8 & 0xff) != NOP)
		result = execute(ring, ops, &packet);
	if (result == CP_BUSY && !(packet.in_ib && !ring->ib.dwords))
		advance(ring, &packet);
	return result;
}

enum cp_result cp_run(struct cp_ring *ring, const struct cp_ops *ops, uint32_t budget)
{
	enum cp_result result = CP_BUSY;

	if (ring->running)
		return CP_BUSY;
	ring->running = true;
	while (budget && result == CP_BUSY)
		result = step(ring, ops, &budget);
	ring->running = false;
	return result;
}

void cp_reset(struct cp_ring *ring)
{
	ring->fault = NULL;
	ring->ib.dwords = 0;
	ring->requested = false;
}

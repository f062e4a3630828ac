/* SPDX-License-Identifier: MIT */
/*
 * As much of an AMD GPU, a Kaveri (CIK), as Linux's amdgpu driver needs to bind and to use its
 * memory: a VRAM BAR, registers that mostly read back what was written, the two copy engines of
 * sdma.c and the command processor of cp.c with the page tables that they go through, and the ring
 * of interrupts. It has no display, no shaders and no power management, and needs the parameters
 * and the ROM that README.md names.
 *
 * For tests. It is built into QEMU as hw/display/amdgpu/amdgpu-model.c; scripts/lib/qemu.sh puts
 * it there.
 *
 * Registers have the names and the dword indexes of Linux's asic_reg headers: oss_2_0_d.h (SDMA,
 * IH, SRBM), gmc_7_1_d.h (VM, MC), gfx_7_2_d.h (CP) and bif_4_1_d.h (the rest).
 */
#include "qemu/osdep.h"
#include "qemu/units.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "qemu/timer.h"
#include "qapi/error.h"
#include "hw/pci/msi.h"
#include "hw/pci/pci_device.h"
#include "hw/pci/pcie.h"
#include "hw/qdev-properties.h"
#include "migration/vmstate.h"
#include "cp.h"
#include "sdma.h"

#define TYPE_AMDGPU_MODEL "amdgpu-model"
OBJECT_DECLARE_SIMPLE_TYPE(AmdgpuModel, AMDGPU_MODEL)

#define VENDOR_ID 0x1002
#define DEVICE_ID 0x130a /* a Kaveri; 0x1304 and others work, too */

#define MMIO_SIZE (512 * KiB)
#define REGISTERS (MMIO_SIZE / 4)
#define ENGINES 2
#define PAGE_BITS 12

/* Where the GPU sees its VRAM: as high as Linux puts it for no other chip, so that mistakes show. */
#define FB_BASE 0xf400000000ull

/*
 * A guest waits for an engine's work while it writes the write pointer: so little that no vCPU
 * is held up, and so much that a ring's test and a page table's update are done at once.
 */
#define BUDGET (1 * MiB)
#define CP_BUDGET (64 * KiB) /* dwords */
#define POLL_INTERVAL_NS SCALE_MS

/* Of a guest that resets a broken ring again and again. */
#define WARNINGS_MAX 16

enum {
    MM_INDEX = 0x0, MM_DATA = 0x1, MM_INDEX_HI = 0x6,

    PCIE_INDEX2 = 0xc, PCIE_DATA2 = 0xd, PCIE_INDEX = 0xe, PCIE_DATA = 0xf,
    SMC_IND_DATA_0 = 0x81, SMC_IND_DATA_11 = 0x1ad,

    SRBM_GFX_CNTL = 0x391, SRBM_SOFT_RESET = 0x398,

    VM_CONTEXT1_CNTL = 0x505,
    VM_CONTEXT8_PAGE_TABLE_BASE_ADDR = 0x50e,
    VM_INVALIDATE_REQUEST = 0x51e, VM_INVALIDATE_RESPONSE = 0x51f,
    VM_CONTEXT0_PAGE_TABLE_BASE_ADDR = 0x54f,
    VM_CONTEXT0_PAGE_TABLE_START_ADDR = 0x557,
    VM_CONTEXT0_PAGE_TABLE_END_ADDR = 0x55f, VM_CONTEXT1_PAGE_TABLE_END_ADDR = 0x560,

    BIOS_SCRATCH_7 = 0x5d0,

    MC_VM_FB_LOCATION = 0x809,

    IH_VMID_0_LUT = 0xf50,
    IH_RB_CNTL = 0xf80, IH_RB_BASE, IH_RB_RPTR, IH_RB_WPTR,
    IH_RB_WPTR_ADDR_HI, IH_RB_WPTR_ADDR_LO, IH_CNTL,

    CONFIG_MEMSIZE = 0x150a,
    GPU_HDP_FLUSH_REQ = 0x1537, GPU_HDP_FLUSH_DONE = 0x1538,

    CP_ME_CNTL = 0x21b6, CP_RB0_RPTR = 0x21c0,
    CP_RB0_BASE = 0x3040, CP_RB0_CNTL, CP_RB0_RPTR_ADDR = 0x3043, CP_RB0_RPTR_ADDR_HI,
    CP_RB0_WPTR, CP_RB0_BASE_HI = 0x30b1,
    CP_MQD_BASE_ADDR = 0x3245, /* the first of a compute queue's registers */
    CP_MQD_CONTROL = 0x3267, /* the last */

    SDMA0_UCODE_ADDR = 0x3400, /* the first register of engine 0 */
    SDMA_ENGINE_STRIDE = 0x200,
};

/* Of an engine, from its first register on. */
enum {
    SDMA_CNTL = 0x4,
    SDMA_F32_CNTL = 0x12,
    SDMA_GFX_RB_CNTL = 0x80, SDMA_GFX_RB_BASE, SDMA_GFX_RB_BASE_HI,
    SDMA_GFX_RB_RPTR, SDMA_GFX_RB_WPTR,
    SDMA_GFX_RB_RPTR_ADDR_HI = 0x88, SDMA_GFX_RB_RPTR_ADDR_LO,
};

/* Of a compute queue, from its first register on. */
enum {
    HQD_ACTIVE = 0x2,
    HQD_PQ_BASE = 0x8, HQD_PQ_BASE_HI, HQD_PQ_RPTR,
    HQD_PQ_RPTR_REPORT_ADDR, HQD_PQ_RPTR_REPORT_ADDR_HI,
    HQD_PQ_DOORBELL_CONTROL = 0xf, HQD_PQ_WPTR, HQD_PQ_CONTROL,
    HQD_DEQUEUE_REQUEST = 0x18,
    HQD_REGISTERS = CP_MQD_CONTROL - CP_MQD_BASE_ADDR + 1,
};

/* Of two micro engines, numbers 1 and 2, with 4 pipes of 8 queues each. */
#define QUEUES_PER_PIPE 8
#define PIPES_PER_ME 4
#define QUEUES (2 * PIPES_PER_ME * QUEUES_PER_PIPE)

#define CP_ME_CNTL__HALT (BIT(26) | BIT(28)) /* PFP_HALT, ME_HALT */
#define HQD_DOORBELL_EN BIT(30)

#define SDMA_CNTL__TRAP_ENABLE BIT(0)
#define SDMA_F32_CNTL__HALT BIT(0)
#define SDMA_RB_CNTL__RB_ENABLE BIT(0)
#define SDMA_RB_CNTL__RPTR_WRITEBACK_ENABLE BIT(12)

#define IH_RB_CNTL__RB_ENABLE BIT(0)
#define IH_RB_CNTL__WPTR_WRITEBACK_ENABLE BIT(8)
#define IH_RB_CNTL__WPTR_OVERFLOW_CLEAR BIT(31)
#define IH_RB_WPTR__RB_OVERFLOW BIT(0)
#define IH_CNTL__ENABLE_INTR BIT(0)
#define IH_CNTL__RPTR_REARM BIT(4)

#define SOURCE_CP_END_OF_PIPE 181
#define SOURCE_SDMA_TRAP 224
#define SOURCE_SDMA_ILLEGAL_INSTRUCTION 247

#define PTE_VALID BIT(0)
#define PTE_SYSTEM BIT(1)
#define PTE_READABLE BIT(5)
#define PTE_WRITEABLE BIT(6)
#define PTE_ADDRESS MAKE_64BIT_MASK(PAGE_BITS, 40 - PAGE_BITS)

struct AmdgpuModel {
    PCIDevice parent_obj;

    MemoryRegion vram, doorbell, mmio, io;
    uint32_t vram_mib;
    uint16_t device_id;
    uint8_t revision;

    uint32_t registers[REGISTERS];
    struct sdma_engine engines[ENGINES];
    struct cp_ring gfx;
    uint32_t queue_registers[QUEUES][HQD_REGISTERS];
    struct cp_ring queues[QUEUES];
    bool interrupt_armed;

    /* A ring is at work: what it writes to a register may ask for another one, which is to wait. */
    bool running;
    QEMUBH *bh;
    QEMUTimer *poll;
    unsigned int warnings;
};

/* A piece of memory that does not cross a page, as an engine sees it. */
typedef struct Place {
    bool is_vram;
    uint64_t address; /* of the bus, or an offset into VRAM */
} Place;

static uint32_t *engine_registers(AmdgpuModel *s, unsigned int instance)
{
    return s->registers + SDMA0_UCODE_ADDR + instance * SDMA_ENGINE_STRIDE;
}

static uint64_t vram_size(AmdgpuModel *s)
{
    return s->vram_mib * (uint64_t)MiB;
}

/* Memory ------------------------------------------------------------------ */

static bool vram_access(AmdgpuModel *s, uint64_t offset, void *data, uint32_t bytes, bool write)
{
    uint8_t *vram = memory_region_get_ram_ptr(&s->vram);

    if (offset > vram_size(s) || bytes > vram_size(s) - offset) {
        return false;
    }
    if (write) {
        memcpy(vram + offset, data, bytes);
        memory_region_set_dirty(&s->vram, offset, bytes);
    } else {
        memcpy(data, vram + offset, bytes);
    }
    return true;
}

/* Whether an address is VRAM by where the memory controller has it; then @offset is in VRAM. */
static bool in_framebuffer(AmdgpuModel *s, uint64_t address, uint64_t *offset)
{
    uint64_t base = (uint64_t)extract32(s->registers[MC_VM_FB_LOCATION], 0, 16) << 24;
    uint64_t end = ((uint64_t)extract32(s->registers[MC_VM_FB_LOCATION], 16, 16) + 1) << 24;

    *offset = address - base;
    return address >= base && address < end;
}

/* Page tables are in VRAM. Their entries have its addresses in either of two ways. */
static bool read_entry(AmdgpuModel *s, uint64_t table, uint64_t index, uint64_t *entry)
{
    uint64_t offset;

    if (!in_framebuffer(s, table, &offset)) {
        offset = table;
    }
    if (!vram_access(s, offset + 8 * index, entry, 8, false)) {
        return false;
    }
    *entry = le64_to_cpu(*entry);
    return *entry & PTE_VALID;
}

static uint64_t page_table_base(AmdgpuModel *s, unsigned int vmid)
{
    unsigned int index = vmid < 8 ? VM_CONTEXT0_PAGE_TABLE_BASE_ADDR + vmid :
                                    VM_CONTEXT8_PAGE_TABLE_BASE_ADDR + vmid - 8;

    return (uint64_t)s->registers[index] << PAGE_BITS;
}

/*
 * VMID 0 has one table, the GART; the others have a directory of tables. What is not mapped, or
 * not for this, is an error: the engine halts, where a chip would go on with a dummy page.
 */
static bool translate(AmdgpuModel *s, unsigned int vmid, uint64_t address, bool write, Place *place)
{
    uint64_t page = address >> PAGE_BITS, table = page_table_base(s, vmid), entry;
    uint64_t needed = write ? PTE_WRITEABLE : PTE_READABLE;

    if (vmid == 0) {
        uint64_t first = s->registers[VM_CONTEXT0_PAGE_TABLE_START_ADDR];

        place->is_vram = in_framebuffer(s, address, &place->address);
        if (place->is_vram) {
            return true;
        }
        if (page < first || page > s->registers[VM_CONTEXT0_PAGE_TABLE_END_ADDR] ||
            !read_entry(s, table, page - first, &entry)) {
            return false;
        }
    } else {
        unsigned int bits = 9 + extract32(s->registers[VM_CONTEXT1_CNTL], 24, 4);

        if (page > s->registers[VM_CONTEXT1_PAGE_TABLE_END_ADDR] ||
            !read_entry(s, table, page >> bits, &entry) || entry & PTE_SYSTEM ||
            !read_entry(s, entry & PTE_ADDRESS, extract64(page, 0, bits), &entry)) {
            return false;
        }
    }
    if (!(entry & needed)) {
        return false;
    }
    place->is_vram = !(entry & PTE_SYSTEM);
    if (!place->is_vram || !in_framebuffer(s, entry & PTE_ADDRESS, &place->address)) {
        place->address = entry & PTE_ADDRESS;
    }
    place->address |= extract64(address, 0, PAGE_BITS);
    return true;
}

static int gpu_access(AmdgpuModel *s, unsigned int vmid, uint64_t address, uint8_t *data,
                      uint32_t bytes, bool write)
{
    while (bytes) {
        uint32_t piece = MIN(bytes, BIT(PAGE_BITS) - extract64(address, 0, PAGE_BITS));
        Place place;

        if (!translate(s, vmid, address, write, &place)) {
            return -1;
        }
        if (place.is_vram) {
            if (!vram_access(s, place.address, data, piece, write)) {
                return -1;
            }
        } else if (pci_dma_rw(PCI_DEVICE(s), place.address, data, piece,
                              write ? DMA_DIRECTION_FROM_DEVICE : DMA_DIRECTION_TO_DEVICE,
                              MEMTXATTRS_UNSPECIFIED) != MEMTX_OK) {
            return -1;
        }
        address += piece;
        data += piece;
        bytes -= piece;
    }
    return 0;
}

static void write_back(AmdgpuModel *s, uint32_t high, uint32_t low, uint32_t value)
{
    value = cpu_to_le32(value);
    gpu_access(s, 0, (uint64_t)high << 32 | (low & ~3u), (uint8_t *)&value, sizeof(value), true);
}

/* Interrupts -------------------------------------------------------------- */

static void notify(AmdgpuModel *s)
{
    PCIDevice *pdev = PCI_DEVICE(s);
    uint32_t control = s->registers[IH_CNTL];
    /* A full ring looks like an empty one but for the bit that says so. */
    bool pending = s->registers[IH_RB_RPTR] != s->registers[IH_RB_WPTR];

    if (!(s->registers[IH_RB_CNTL] & IH_RB_CNTL__RB_ENABLE) || !(control & IH_CNTL__ENABLE_INTR)) {
        pending = false;
    }
    if (!msi_enabled(pdev)) {
        pci_set_irq(pdev, pending);
        return;
    }
    /* With RPTR_REARM the driver gets one message until it has moved its read pointer. */
    if (pending && (s->interrupt_armed || !(control & IH_CNTL__RPTR_REARM))) {
        s->interrupt_armed = false;
        msi_notify(pdev, 0);
    }
}

/* Adds a vector to the ring. One that is full loses its oldest, and the driver is told. */
static void raise_interrupt(AmdgpuModel *s, unsigned int source, unsigned int ring, unsigned int vmid)
{
    uint32_t control = s->registers[IH_RB_CNTL], pasid = s->registers[IH_VMID_0_LUT + vmid];
    uint32_t vector[4] = {
        cpu_to_le32(source), 0, cpu_to_le32(ring | vmid << 8 | pasid << 16), 0,
    };
    uint64_t size = 4ull << extract32(control, 1, 5);
    uint32_t overflow = s->registers[IH_RB_WPTR] & IH_RB_WPTR__RB_OVERFLOW;
    uint32_t at = s->registers[IH_RB_WPTR] & ~0xfu & (size - 1);

    if (!(control & IH_RB_CNTL__RB_ENABLE)) {
        return;
    }
    gpu_access(s, 0, ((uint64_t)s->registers[IH_RB_BASE] << 8) + at, (uint8_t *)vector, sizeof(vector), true);
    at = (at + sizeof(vector)) & (size - 1);
    if (at == s->registers[IH_RB_RPTR]) {
        overflow = IH_RB_WPTR__RB_OVERFLOW;
    }
    s->registers[IH_RB_WPTR] = at | overflow;
    if (control & IH_RB_CNTL__WPTR_WRITEBACK_ENABLE) {
        write_back(s, extract32(s->registers[IH_RB_WPTR_ADDR_HI], 0, 8), s->registers[IH_RB_WPTR_ADDR_LO],
                   s->registers[IH_RB_WPTR]);
    }
    notify(s);
}

/* Engines ----------------------------------------------------------------- */

static uint32_t read_register(AmdgpuModel *s, uint32_t index);
static void write_register(AmdgpuModel *s, uint32_t index, uint32_t value);

static int engine_read(void *opaque, unsigned int vmid, uint64_t address, void *data, uint32_t bytes)
{
    return gpu_access(opaque, vmid, address, data, bytes, false);
}

static int engine_write(void *opaque, unsigned int vmid, uint64_t address, const void *data, uint32_t bytes)
{
    return gpu_access(opaque, vmid, address, (uint8_t *)data, bytes, true);
}

static uint32_t engine_read_register(void *opaque, uint32_t index)
{
    return read_register(opaque, index);
}

static void engine_write_register(void *opaque, uint32_t index, uint32_t value)
{
    write_register(opaque, index, value);
}

static void engine_trap(void *opaque, const struct sdma_engine *engine, unsigned int vmid)
{
    AmdgpuModel *s = opaque;

    if (engine_registers(s, engine->instance)[SDMA_CNTL] & SDMA_CNTL__TRAP_ENABLE) {
        raise_interrupt(s, SOURCE_SDMA_TRAP, engine->instance, vmid);
    }
}

/* The driver would only say, after its timeout, that a job hangs. */
static void engine_stopped(void *opaque, const struct sdma_engine *engine, const char *reason)
{
    AmdgpuModel *s = opaque;

    if (s->warnings < WARNINGS_MAX) {
        s->warnings++;
        warn_report(TYPE_AMDGPU_MODEL ": SDMA%u halts at packet %08x, %s 0x%" PRIx64 ", VMID %u: %s",
                    engine->instance, engine->packet[0], engine->ib.dwords ? "IB" : "offset",
                    engine->ib.dwords ? engine->ib.address : engine->rptr,
                    engine->ib.dwords ? engine->ib.vmid : engine->vmid, reason);
    }
    raise_interrupt(s, SOURCE_SDMA_ILLEGAL_INSTRUCTION, engine->instance, engine->vmid);
}

static void run(AmdgpuModel *s, struct sdma_engine *engine)
{
    const struct sdma_ops ops = {
        .read = engine_read,
        .write = engine_write,
        .read_register = engine_read_register,
        .write_register = engine_write_register,
        .trap = engine_trap,
        .stopped = engine_stopped,
        .opaque = s,
    };
    const uint32_t *registers = engine_registers(s, engine->instance);
    uint64_t before = engine->rptr;
    enum sdma_result result;

    if (s->running) {
        qemu_bh_schedule(s->bh);
        return;
    }
    s->running = true;
    result = sdma_run(engine, &ops, BUDGET);
    s->running = false;
    switch (result) {
    case SDMA_BUSY:
        qemu_bh_schedule(s->bh);
        break;
    case SDMA_WAITING:
        timer_mod_anticipate(s->poll, qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL) + POLL_INTERVAL_NS);
        break;
    case SDMA_IDLE:
    case SDMA_HALTED:
        break;
    }
    if (engine->rptr != before && registers[SDMA_GFX_RB_CNTL] & SDMA_RB_CNTL__RPTR_WRITEBACK_ENABLE) {
        write_back(s, registers[SDMA_GFX_RB_RPTR_ADDR_HI], registers[SDMA_GFX_RB_RPTR_ADDR_LO], engine->rptr);
    }
}

/* Command processor -------------------------------------------------------- */

static int cp_read(void *opaque, unsigned int vmid, uint64_t address, uint32_t *data, uint32_t dwords)
{
    return gpu_access(opaque, vmid, address, (uint8_t *)data, 4 * dwords, false);
}

static int cp_write(void *opaque, unsigned int vmid, uint64_t address, const uint32_t *data, uint32_t dwords)
{
    return gpu_access(opaque, vmid, address, (uint8_t *)data, 4 * dwords, true);
}

static void cp_interrupt(void *opaque, const struct cp_ring *ring, unsigned int vmid)
{
    raise_interrupt(opaque, SOURCE_CP_END_OF_PIPE, ring->id, vmid);
}

static void cp_stopped(void *opaque, const struct cp_ring *ring, uint32_t header, const char *reason)
{
    AmdgpuModel *s = opaque;

    if (s->warnings < WARNINGS_MAX) {
        s->warnings++;
        warn_report(TYPE_AMDGPU_MODEL ": ring %02x halts at packet %08x, offset %u: %s", ring->id, header, ring->rptr,
                    reason);
    }
}

static void run_cp(AmdgpuModel *s, struct cp_ring *ring, uint32_t rptr_high, uint32_t rptr_low)
{
    const struct cp_ops ops = {
        .read = cp_read,
        .write = cp_write,
        .read_register = engine_read_register,
        .write_register = engine_write_register,
        .interrupt = cp_interrupt,
        .stopped = cp_stopped,
        .opaque = s,
    };
    uint32_t before = ring->rptr;
    enum cp_result result;

    if (s->running) {
        qemu_bh_schedule(s->bh);
        return;
    }
    s->running = true;
    result = cp_run(ring, &ops, CP_BUDGET);
    s->running = false;
    switch (result) {
    case CP_BUSY:
        qemu_bh_schedule(s->bh);
        break;
    case CP_WAITING:
        timer_mod_anticipate(s->poll, qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL) + POLL_INTERVAL_NS);
        break;
    case CP_IDLE:
    case CP_HALTED:
        break;
    }
    if (ring->rptr != before) {
        write_back(s, rptr_high, rptr_low, ring->rptr);
    }
}

/* CP_RB0_CNTL and CP_HQD_PQ_CONTROL have it in their lowest bits. */
static uint32_t ring_dwords(uint32_t control)
{
    unsigned int order = extract32(control, 0, 6) + 1;

    return order < 32 ? 1u << order : 0;
}

static void set_gfx_ring(AmdgpuModel *s)
{
    s->gfx.base = ((uint64_t)s->registers[CP_RB0_BASE_HI] << 32 | s->registers[CP_RB0_BASE]) << 8;
    s->gfx.dwords = ring_dwords(s->registers[CP_RB0_CNTL]);
    s->gfx.rptr = s->registers[CP_RB0_RPTR] & (s->gfx.dwords - 1);
    s->gfx.wptr = s->registers[CP_RB0_WPTR] & (s->gfx.dwords - 1);
}

static void run_gfx(AmdgpuModel *s)
{
    if (!(s->registers[CP_ME_CNTL] & CP_ME_CNTL__HALT)) {
        run_cp(s, &s->gfx, extract32(s->registers[CP_RB0_RPTR_ADDR_HI], 0, 8), s->registers[CP_RB0_RPTR_ADDR]);
        s->registers[CP_RB0_RPTR] = s->gfx.rptr;
    }
}

static void set_queue(AmdgpuModel *s, unsigned int number)
{
    const uint32_t *registers = s->queue_registers[number];
    struct cp_ring *ring = &s->queues[number];

    ring->id = (1 + number / (PIPES_PER_ME * QUEUES_PER_PIPE)) << 2 | number / QUEUES_PER_PIPE % PIPES_PER_ME |
               number % QUEUES_PER_PIPE << 4;
    ring->base = ((uint64_t)registers[HQD_PQ_BASE_HI] << 32 | registers[HQD_PQ_BASE]) << 8;
    ring->dwords = ring_dwords(registers[HQD_PQ_CONTROL]);
    ring->rptr = registers[HQD_PQ_RPTR] & (ring->dwords - 1);
    ring->wptr = registers[HQD_PQ_WPTR] & (ring->dwords - 1);
}

static void run_queue(AmdgpuModel *s, unsigned int number)
{
    uint32_t *registers = s->queue_registers[number];

    if (registers[HQD_ACTIVE] & 1) {
        run_cp(s, &s->queues[number], extract32(registers[HQD_PQ_RPTR_REPORT_ADDR_HI], 0, 16),
               registers[HQD_PQ_RPTR_REPORT_ADDR]);
        registers[HQD_PQ_RPTR] = s->queues[number].rptr;
    }
}

static void set_queue_register(AmdgpuModel *s, unsigned int number, uint32_t reg, uint32_t value)
{
    uint32_t *registers = s->queue_registers[number];
    bool was_active = registers[HQD_ACTIVE] & 1;

    registers[reg] = value;
    if (reg == HQD_DEQUEUE_REQUEST && value) {
        registers[HQD_ACTIVE] = 0;
    } else if (reg == HQD_ACTIVE && value & 1 && !was_active) {
        cp_reset(&s->queues[number]);
        set_queue(s, number);
        run_queue(s, number);
    }
}

/* The queue that is selected for access to such a register. */
static bool is_of_queue(AmdgpuModel *s, uint32_t index, unsigned int *number, uint32_t *reg)
{
    uint32_t selected = s->registers[SRBM_GFX_CNTL];
    unsigned int me = extract32(selected, 2, 2), pipe = extract32(selected, 0, 2), queue = extract32(selected, 8, 3);

    if (index < CP_MQD_BASE_ADDR || index > CP_MQD_CONTROL || me < 1 || me > 2) {
        return false;
    }
    *number = ((me - 1) * PIPES_PER_ME + pipe) * QUEUES_PER_PIPE + queue;
    *reg = index - CP_MQD_BASE_ADDR;
    return true;
}

/* A doorbell's value is the write pointer of the queue that has its number. */
static void doorbell_write(void *opaque, hwaddr addr, uint64_t value, unsigned size)
{
    AmdgpuModel *s = opaque;

    for (unsigned int i = 0; i < QUEUES; i++) {
        uint32_t *registers = s->queue_registers[i];
        uint32_t control = registers[HQD_PQ_DOORBELL_CONTROL];

        if (registers[HQD_ACTIVE] & 1 && control & HQD_DOORBELL_EN && extract32(control, 2, 21) == addr / 4) {
            registers[HQD_PQ_WPTR] = value;
            s->queues[i].wptr = value & (s->queues[i].dwords - 1);
            run_queue(s, i);
        }
    }
}

static uint64_t doorbell_read(void *opaque, hwaddr addr, unsigned size)
{
    return 0;
}

static const MemoryRegionOps doorbell_ops = {
    .read = doorbell_read,
    .write = doorbell_write,
    .endianness = DEVICE_LITTLE_ENDIAN,
    .impl = { .min_access_size = 4, .max_access_size = 4 },
    .valid = { .min_access_size = 4, .max_access_size = 4 },
};

static void run_all(void *opaque)
{
    AmdgpuModel *s = opaque;

    for (unsigned int i = 0; i < ENGINES; i++) {
        run(s, &s->engines[i]);
    }
    run_gfx(s);
    for (unsigned int i = 0; i < QUEUES; i++) {
        run_queue(s, i);
    }
}

/* In the bottom half, which keeps the engines from writing to the device's own BARs. */
static void poll_again(void *opaque)
{
    AmdgpuModel *s = opaque;

    qemu_bh_schedule(s->bh);
}

/* What the registers say of an engine's ring, but for the pointers. */
static void set_ring(AmdgpuModel *s, struct sdma_engine *engine)
{
    const uint32_t *registers = engine_registers(s, engine->instance);
    uint32_t control = registers[SDMA_GFX_RB_CNTL];

    engine->base = (uint64_t)registers[SDMA_GFX_RB_BASE] << 8 | (uint64_t)registers[SDMA_GFX_RB_BASE_HI] << 40;
    engine->size = 4ull << extract32(control, 1, 5);
    engine->vmid = extract32(control, 24, 4);
    engine->halted = !(control & SDMA_RB_CNTL__RB_ENABLE) || registers[SDMA_F32_CNTL] & SDMA_F32_CNTL__HALT;
}

static void set_engine_register(AmdgpuModel *s, unsigned int instance, uint32_t reg, uint32_t value)
{
    struct sdma_engine *engine = &s->engines[instance];
    uint32_t *registers = engine_registers(s, instance), before = registers[reg];

    registers[reg] = value;
    switch (reg) {
    case SDMA_GFX_RB_RPTR:
        engine->rptr = value & ~3u;
        return;
    case SDMA_GFX_RB_WPTR:
        engine->wptr = value & ~3u;
        break;
    case SDMA_GFX_RB_CNTL:
        /* A driver that is loaded again resets nothing else. */
        if (value & ~before & SDMA_RB_CNTL__RB_ENABLE) {
            sdma_reset(engine);
        }
        set_ring(s, engine);
        break;
    case SDMA_GFX_RB_BASE:
    case SDMA_GFX_RB_BASE_HI:
    case SDMA_F32_CNTL:
        set_ring(s, engine);
        break;
    default:
        return;
    }
    if (!engine->halted) {
        run(s, engine);
    }
}

static uint32_t get_engine_register(AmdgpuModel *s, unsigned int instance, uint32_t reg)
{
    return reg == SDMA_GFX_RB_RPTR ? s->engines[instance].rptr : engine_registers(s, instance)[reg];
}

/* Registers --------------------------------------------------------------- */

/* MM_INDEX's highest bit asks for VRAM, MM_INDEX_HI has the rest of the offset. */
static bool mm_index_is_vram(AmdgpuModel *s, uint64_t *offset)
{
    *offset = (uint64_t)s->registers[MM_INDEX_HI] << 31 | extract32(s->registers[MM_INDEX], 0, 31);
    return extract32(s->registers[MM_INDEX], 31, 1);
}

static bool is_of_engine(uint32_t index, unsigned int *instance, uint32_t *reg)
{
    if (index < SDMA0_UCODE_ADDR || index >= SDMA0_UCODE_ADDR + ENGINES * SDMA_ENGINE_STRIDE) {
        return false;
    }
    *instance = (index - SDMA0_UCODE_ADDR) / SDMA_ENGINE_STRIDE;
    *reg = (index - SDMA0_UCODE_ADDR) % SDMA_ENGINE_STRIDE;
    return true;
}

static uint32_t read_register(AmdgpuModel *s, uint32_t index)
{
    unsigned int instance;
    uint64_t offset;
    uint32_t reg, value = 0;

    if (index >= REGISTERS) {
        return 0;
    }
    if (is_of_engine(index, &instance, &reg)) {
        return get_engine_register(s, instance, reg);
    }
    if (is_of_queue(s, index, &instance, &reg)) {
        return s->queue_registers[instance][reg];
    }
    switch (index) {
    case MM_DATA:
        if (mm_index_is_vram(s, &offset)) {
            vram_access(s, offset, &value, sizeof(value), false);
            return le32_to_cpu(value);
        }
        return offset / 4 < REGISTERS && offset / 4 != MM_DATA ? read_register(s, offset / 4) : 0;
    /* What is behind pairs of registers is for the link and for power management. */
    case PCIE_DATA:
    case PCIE_DATA2:
    case SMC_IND_DATA_0:
    case SMC_IND_DATA_11:
        return 0;
    /* Nothing is cached. */
    case VM_INVALIDATE_RESPONSE:
        return s->registers[VM_INVALIDATE_REQUEST];
    case GPU_HDP_FLUSH_DONE:
        return s->registers[GPU_HDP_FLUSH_REQ];
    }
    return s->registers[index];
}

static void write_register(AmdgpuModel *s, uint32_t index, uint32_t value)
{
    /* Bits of SRBM_SOFT_RESET. */
    static const unsigned int soft_reset_bits[ENGINES] = { 20, 6 };
    unsigned int instance;
    uint64_t offset;
    uint32_t reg;

    if (index >= REGISTERS || index == CONFIG_MEMSIZE) {
        return;
    }
    if (is_of_engine(index, &instance, &reg)) {
        set_engine_register(s, instance, reg, value);
        return;
    }
    if (is_of_queue(s, index, &instance, &reg)) {
        set_queue_register(s, instance, reg, value);
        return;
    }
    if (index == MM_DATA) {
        if (mm_index_is_vram(s, &offset)) {
            value = cpu_to_le32(value);
            vram_access(s, offset, &value, sizeof(value), true);
        } else if (offset / 4 < REGISTERS && offset / 4 != MM_DATA) {
            write_register(s, offset / 4, value);
        }
        return;
    }

    s->registers[index] = value;
    switch (index) {
    case SRBM_SOFT_RESET:
        for (unsigned int i = 0; i < ENGINES; i++) {
            if (value & BIT(soft_reset_bits[i])) {
                sdma_reset(&s->engines[i]);
            }
        }
        break;
    case CP_ME_CNTL:
        if (value & CP_ME_CNTL__HALT) {
            cp_reset(&s->gfx);
        }
        run_gfx(s);
        break;
    case CP_RB0_BASE:
    case CP_RB0_BASE_HI:
    case CP_RB0_CNTL:
    case CP_RB0_RPTR:
        set_gfx_ring(s);
        break;
    case CP_RB0_WPTR:
        set_gfx_ring(s);
        run_gfx(s);
        break;
    case IH_RB_CNTL:
        if (value & IH_RB_CNTL__WPTR_OVERFLOW_CLEAR) {
            s->registers[IH_RB_WPTR] &= ~IH_RB_WPTR__RB_OVERFLOW;
        }
        s->registers[IH_RB_CNTL] &= ~IH_RB_CNTL__WPTR_OVERFLOW_CLEAR;
        notify(s);
        break;
    case IH_RB_RPTR:
    case IH_CNTL:
        s->interrupt_armed = true;
        notify(s);
        break;
    }
}

static uint64_t mmio_read(void *opaque, hwaddr addr, unsigned size)
{
    return read_register(opaque, addr / 4);
}

static void mmio_write(void *opaque, hwaddr addr, uint64_t value, unsigned size)
{
    write_register(opaque, addr / 4, value);
}

static const MemoryRegionOps mmio_ops = {
    .read = mmio_read,
    .write = mmio_write,
    .endianness = DEVICE_LITTLE_ENDIAN,
    .impl = { .min_access_size = 4, .max_access_size = 4 },
    .valid = { .min_access_size = 4, .max_access_size = 4 },
};

/* Device ------------------------------------------------------------------ */

static void amdgpu_model_reset(DeviceState *dev)
{
    AmdgpuModel *s = AMDGPU_MODEL(dev);

    qemu_bh_cancel(s->bh);
    timer_del(s->poll);
    memset(s->registers, 0, sizeof(s->registers));
    s->registers[CONFIG_MEMSIZE] = s->vram_mib;
    s->registers[MC_VM_FB_LOCATION] = (FB_BASE + vram_size(s) - 1) >> 24 << 16 | FB_BASE >> 24;
    /* That firmware has started the chip: else the driver runs programs of the ROM, which has none. */
    s->registers[BIOS_SCRATCH_7] = 0x200;
    s->interrupt_armed = true;
    for (unsigned int i = 0; i < ENGINES; i++) {
        s->engines[i] = (struct sdma_engine) { .instance = i };
        engine_registers(s, i)[SDMA_F32_CNTL] = SDMA_F32_CNTL__HALT;
        set_ring(s, &s->engines[i]);
    }
    s->gfx = (struct cp_ring) {};
    s->registers[CP_ME_CNTL] = CP_ME_CNTL__HALT;
    memset(s->queue_registers, 0, sizeof(s->queue_registers));
    memset(s->queues, 0, sizeof(s->queues));
}

static void amdgpu_model_realize(PCIDevice *pdev, Error **errp)
{
    AmdgpuModel *s = AMDGPU_MODEL(pdev);
    const uint8_t memory = PCI_BASE_ADDRESS_MEM_TYPE_64 | PCI_BASE_ADDRESS_MEM_PREFETCH;

    if (!is_power_of_2(s->vram_mib) || s->vram_mib < 16 || s->vram_mib > 16 * KiB) {
        error_setg(errp, "vram-mib takes a power of 2 from 16 to 16384");
        return;
    }
    pci_set_word(pdev->config + PCI_DEVICE_ID, s->device_id);
    pci_set_byte(pdev->config + PCI_REVISION_ID, s->revision);
    pci_config_set_interrupt_pin(pdev->config, 1);

    if (!memory_region_init_ram(&s->vram, OBJECT(s), TYPE_AMDGPU_MODEL ".vram", vram_size(s), errp)) {
        return;
    }
    memory_region_init_io(&s->doorbell, OBJECT(s), &doorbell_ops, s, TYPE_AMDGPU_MODEL ".doorbell", 2 * MiB);
    memory_region_init_io(&s->mmio, OBJECT(s), &mmio_ops, s, TYPE_AMDGPU_MODEL ".mmio", MMIO_SIZE);
    /* MM_INDEX and MM_DATA, and what is between them and the rest. */
    memory_region_init_alias(&s->io, OBJECT(s), TYPE_AMDGPU_MODEL ".io", &s->mmio, 0, 256);
    pci_register_bar(pdev, 0, memory, &s->vram);
    pci_register_bar(pdev, 2, memory, &s->doorbell);
    pci_register_bar(pdev, 4, PCI_BASE_ADDRESS_SPACE_IO, &s->io);
    pci_register_bar(pdev, 5, PCI_BASE_ADDRESS_SPACE_MEMORY, &s->mmio);
    if (pcie_endpoint_cap_init(pdev, 0) < 0) {
        error_setg(errp, "no room for a PCIe capability");
        return;
    }
    if (msi_init(pdev, 0, 1, true, false, errp) < 0) {
        pcie_cap_exit(pdev);
        return;
    }
    s->bh = qemu_bh_new_guarded(run_all, s, &DEVICE(s)->mem_reentrancy_guard);
    s->poll = timer_new_ns(QEMU_CLOCK_VIRTUAL, poll_again, s);
}

static void amdgpu_model_exit(PCIDevice *pdev)
{
    AmdgpuModel *s = AMDGPU_MODEL(pdev);

    timer_free(s->poll);
    qemu_bh_delete(s->bh);
    msi_uninit(pdev);
    pcie_cap_exit(pdev);
}

static bool cp_is_idle(const struct cp_ring *ring)
{
    return ring->rptr == ring->wptr && !ring->ib.dwords && !ring->fault;
}

/* What is idle has nothing but what its registers say. */
static int amdgpu_model_pre_save(void *opaque)
{
    AmdgpuModel *s = opaque;
    bool idle = cp_is_idle(&s->gfx) || s->registers[CP_ME_CNTL] & CP_ME_CNTL__HALT;

    for (unsigned int i = 0; i < QUEUES; i++) {
        idle &= cp_is_idle(&s->queues[i]) || !(s->queue_registers[i][HQD_ACTIVE] & 1);
    }
    if (!idle) {
        error_report(TYPE_AMDGPU_MODEL ": the command processor has work: try again");
        return -EBUSY;
    }

    for (unsigned int i = 0; i < ENGINES; i++) {
        const struct sdma_engine *engine = &s->engines[i];

        if (engine_registers(s, i)[SDMA_GFX_RB_CNTL] & SDMA_RB_CNTL__RB_ENABLE &&
            (engine->rptr != engine->wptr || engine->length || engine->ib.dwords || engine->fault)) {
            error_report(TYPE_AMDGPU_MODEL ": SDMA%u has work: try again", i);
            return -EBUSY;
        }
        engine_registers(s, i)[SDMA_GFX_RB_RPTR] = engine->rptr;
    }
    return 0;
}

static int amdgpu_model_post_load(void *opaque, int version_id)
{
    AmdgpuModel *s = opaque;

    for (unsigned int i = 0; i < ENGINES; i++) {
        s->engines[i] = (struct sdma_engine) {
            .instance = i,
            .rptr = engine_registers(s, i)[SDMA_GFX_RB_RPTR] & ~3u,
            .wptr = engine_registers(s, i)[SDMA_GFX_RB_WPTR] & ~3u,
        };
        set_ring(s, &s->engines[i]);
    }
    s->gfx = (struct cp_ring) {};
    set_gfx_ring(s);
    for (unsigned int i = 0; i < QUEUES; i++) {
        s->queues[i] = (struct cp_ring) {};
        set_queue(s, i);
    }
    return 0;
}

static const VMStateDescription amdgpu_model_vmstate = {
    .name = TYPE_AMDGPU_MODEL,
    .version_id = 1,
    .minimum_version_id = 1,
    .pre_save = amdgpu_model_pre_save,
    .post_load = amdgpu_model_post_load,
    .fields = (const VMStateField[]) {
        VMSTATE_PCI_DEVICE(parent_obj, AmdgpuModel),
        VMSTATE_UINT32_ARRAY(registers, AmdgpuModel, REGISTERS),
        VMSTATE_UINT32_2DARRAY(queue_registers, AmdgpuModel, QUEUES, HQD_REGISTERS),
        VMSTATE_BOOL(interrupt_armed, AmdgpuModel),
        VMSTATE_END_OF_LIST()
    },
};

static const Property amdgpu_model_properties[] = {
    DEFINE_PROP_UINT32("vram-mib", AmdgpuModel, vram_mib, 256),
    DEFINE_PROP_UINT16("device-id", AmdgpuModel, device_id, DEVICE_ID),
    DEFINE_PROP_UINT8("revision", AmdgpuModel, revision, 0),
};

static void amdgpu_model_class_init(ObjectClass *class, void *data)
{
    DeviceClass *dc = DEVICE_CLASS(class);
    PCIDeviceClass *k = PCI_DEVICE_CLASS(class);

    k->realize = amdgpu_model_realize;
    k->exit = amdgpu_model_exit;
    k->vendor_id = VENDOR_ID;
    k->device_id = DEVICE_ID;
    k->class_id = PCI_CLASS_DISPLAY_OTHER;
    device_class_set_legacy_reset(dc, amdgpu_model_reset);
    device_class_set_props(dc, amdgpu_model_properties);
    dc->desc = "Model of an AMD GPU's memory, for tests of amdgpu";
    dc->vmsd = &amdgpu_model_vmstate;
    dc->hotpluggable = false;
    set_bit(DEVICE_CATEGORY_DISPLAY, dc->categories);
}

static const TypeInfo amdgpu_model_info = {
    .name = TYPE_AMDGPU_MODEL,
    .parent = TYPE_PCI_DEVICE,
    .instance_size = sizeof(AmdgpuModel),
    .class_init = amdgpu_model_class_init,
    .interfaces = (InterfaceInfo[]) {
        { INTERFACE_PCIE_DEVICE },
        { }
    },
};

static void amdgpu_model_register(void)
{
    type_register_static(&amdgpu_model_info);
}
type_init(amdgpu_model_register)

// SPDX-License-Identifier: MIT
/*
 * Whether VFIO maps the pages of a buffer for a device to read and write, which it must not
 * where nothing keeps them from being freed meanwhile. Needs QEMU's edu device behind an
 * IOMMU, bound to vfio-pci; what that device reads is the proof. See --help.
 */
#include "buffer.h"
#include "pages.h"
#include "test.h"

#include <hostblob_ttm.h>
#include <qxl_drm.h>

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <inttypes.h>
#include <linux/iommufd.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xf86drm.h>

#define PAGE_WORDS (PAGE_BYTES / 8)
#define PAGES 1024ul /* of every buffer */

/* Where the device sees memory; below what the IOMMU keeps for interrupts. */
#define CONTROL_IOVA 0x01000000ul
#define SUBJECT_IOVA 0x10000000ul

#define HOST_VALUE 0x5eed0000ul
#define OTHER_VALUE 0x07e70000ul
#define UNREAD 0xdeadul

/* QEMU's docs/specs/edu.rst */
enum { EDU_DMA_SOURCE = 0x80, EDU_DMA_TARGET = 0x88, EDU_DMA_COUNT = 0x90, EDU_DMA_COMMAND = 0x98 };
enum { EDU_DMA_RUN = 1, EDU_DMA_TO_MEMORY = 2 };
#define EDU_BUFFER 0x40000u

static int node;
static char driver[32];

/* --- the device and its IOMMU ---------------------------------------------------- */

static struct {
	bool iommufd;
	int fd;	      /* the container, or iommufd */
	uint32_t ioas; /* of iommufd */
	int device;
	volatile uint64_t *registers;
	volatile uint64_t *control; /* two pages that are mapped for good */
} assigned;

static bool failed(const char *what)
{
	perror(what);
	return false;
}

/* The first path of that pattern. */
static bool find_path(const char *pattern, char *path, size_t size)
{
	glob_t paths;
	bool found = !glob(pattern, 0, NULL, &paths) && strlen(paths.gl_pathv[0]) < size;

	if (found)
		snprintf(path, size, "%s", paths.gl_pathv[0]);
	globfree(&paths);
	return found;
}

static const char *base_name(const char *path)
{
	return strrchr(path, '/') + 1;
}

static bool open_type1(const char *folder)
{
	char link[300], target[256] = "", name[300];

	snprintf(link, sizeof(link), "%s/iommu_group", folder);
	if (readlink(link, target, sizeof(target) - 1) < 0)
		return failed(link);
	snprintf(name, sizeof(name), "/dev/vfio/%s", base_name(target));
	assigned.fd = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);

	int group = open(name, O_RDWR | O_CLOEXEC);

	if (assigned.fd < 0 || group < 0 || ioctl(group, VFIO_GROUP_SET_CONTAINER, &assigned.fd) ||
	    ioctl(assigned.fd, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU))
		return failed(name);
	assigned.device = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, base_name(folder));
	return assigned.device >= 0 || failed("VFIO_GROUP_GET_DEVICE_FD");
}

static bool open_iommufd(const char *folder)
{
	struct vfio_device_bind_iommufd bind = { .argsz = sizeof(bind) };
	struct vfio_device_attach_iommufd_pt attach = { .argsz = sizeof(attach) };
	struct iommu_ioas_alloc alloc = { .size = sizeof(alloc) };
	char pattern[300], path[256], name[300];

	snprintf(pattern, sizeof(pattern), "%s/vfio-dev/vfio*", folder);
	if (!find_path(pattern, path, sizeof(path)))
		return failed(pattern);
	snprintf(name, sizeof(name), "/dev/vfio/devices/%s", base_name(path));
	assigned.device = open(name, O_RDWR | O_CLOEXEC);
	if (assigned.device < 0)
		return failed(name);
	bind.iommufd = assigned.fd;
	if (ioctl(assigned.device, VFIO_DEVICE_BIND_IOMMUFD, &bind) ||
	    ioctl(assigned.fd, IOMMU_IOAS_ALLOC, &alloc))
		return failed("VFIO_DEVICE_BIND_IOMMUFD");
	attach.pt_id = assigned.ioas = alloc.out_ioas_id;
	return !ioctl(assigned.device, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &attach) ||
	       failed("VFIO_DEVICE_ATTACH_IOMMUFD_PT");
}

static bool start_device(void)
{
	struct vfio_region_info config = { .argsz = sizeof(config), .index = VFIO_PCI_CONFIG_REGION_INDEX };
	struct vfio_region_info registers = { .argsz = sizeof(registers), .index = VFIO_PCI_BAR0_REGION_INDEX };
	uint16_t command = PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;

	if (ioctl(assigned.device, VFIO_DEVICE_GET_REGION_INFO, &config) ||
	    ioctl(assigned.device, VFIO_DEVICE_GET_REGION_INFO, &registers) ||
	    pwrite(assigned.device, &command, sizeof(command), (off_t)config.offset + PCI_COMMAND) !=
		    sizeof(command))
		return failed("the device's configuration");
	assigned.registers = mmap(NULL, registers.size, PROT_READ | PROT_WRITE, MAP_SHARED, assigned.device,
				  (off_t)registers.offset);
	return assigned.registers != MAP_FAILED || failed("the device's registers");
}

/* Returns 0 or a negative errno. */
static int dma_map(const volatile void *memory, uint64_t size, uint64_t iova, bool writable)
{
	struct vfio_iommu_type1_dma_map type1 = {
		.argsz = sizeof(type1),
		.flags = VFIO_DMA_MAP_FLAG_READ | (writable ? VFIO_DMA_MAP_FLAG_WRITE : 0),
		.vaddr = (uintptr_t)memory,
		.iova = iova,
		.size = size,
	};
	struct iommu_ioas_map ioas = {
		.size = sizeof(ioas),
		.flags = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE |
			 (writable ? IOMMU_IOAS_MAP_WRITEABLE : 0),
		.ioas_id = assigned.ioas,
		.user_va = (uintptr_t)memory,
		.length = size,
		.iova = iova,
	};
	int result = assigned.iommufd ? ioctl(assigned.fd, IOMMU_IOAS_MAP, &ioas) :
					ioctl(assigned.fd, VFIO_IOMMU_MAP_DMA, &type1);

	return result ? -errno : 0;
}

static bool dma_unmap(uint64_t iova, uint64_t size)
{
	struct vfio_iommu_type1_dma_unmap type1 = { .argsz = sizeof(type1), .iova = iova, .size = size };
	struct iommu_ioas_unmap ioas = {
		.size = sizeof(ioas), .ioas_id = assigned.ioas, .iova = iova, .length = size,
	};
	int result = assigned.iommufd ? ioctl(assigned.fd, IOMMU_IOAS_UNMAP, &ioas) :
					ioctl(assigned.fd, VFIO_IOMMU_UNMAP_DMA, &type1);

	return !result || failed("unmapping for DMA");
}

static void dma(uint64_t source, uint64_t target, uint64_t command)
{
	assigned.registers[EDU_DMA_SOURCE / 8] = source;
	assigned.registers[EDU_DMA_TARGET / 8] = target;
	assigned.registers[EDU_DMA_COUNT / 8] = sizeof(uint64_t);
	assigned.registers[EDU_DMA_COMMAND / 8] = EDU_DMA_RUN | command;
	while (assigned.registers[EDU_DMA_COMMAND / 8] & EDU_DMA_RUN)
		;
}

/* What the device reads there, by way of its own buffer and the second page that it can write to. */
static uint64_t device_reads(uint64_t iova)
{
	assigned.control[0] = UNREAD;
	dma(CONTROL_IOVA, EDU_BUFFER, 0);
	dma(iova, EDU_BUFFER, 0);
	dma(EDU_BUFFER, CONTROL_IOVA + PAGE_BYTES, EDU_DMA_TO_MEMORY);
	return assigned.control[PAGE_WORDS];
}

/* Plain memory is mapped, and the device reads and writes it: or nothing below is worth anything. */
static bool start_control(void)
{
	assigned.control = mmap(NULL, 2 * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (assigned.control == MAP_FAILED)
		return failed("mmap");
	int result = dma_map(assigned.control, 2 * PAGE_BYTES, CONTROL_IOVA, true);

	if (result) {
		fprintf(stderr, "plain memory is not mapped: %s\n", strerror(-result));
		return false;
	}
	assigned.control[8] = HOST_VALUE;

	uint64_t value = device_reads(CONTROL_IOVA + 8 * sizeof(uint64_t));

	if (value != HOST_VALUE)
		fprintf(stderr, "the device reads %#" PRIx64 " from plain memory, not %#lx\n", value, HOST_VALUE);
	return value == HOST_VALUE;
}

static int open_device(void)
{
	char folder[256];

	if (!find_path("/sys/bus/pci/drivers/vfio-pci/0000:*", folder, sizeof(folder)))
		return skip("no device is bound to vfio-pci (see scripts/host-vm --iommu)");
	if (assigned.iommufd) {
		assigned.fd = open("/dev/iommu", O_RDWR | O_CLOEXEC);
		if (assigned.fd < 0)
			return skip("this kernel has no iommufd");
	}
	if (!(assigned.iommufd ? open_iommufd(folder) : open_type1(folder)))
		return 1;
	return start_device() && start_control() ? 0 : 1;
}

/* --- what is mapped ---------------------------------------------------------------- */

struct subject {
	const char *kind;
	bool video_memory;
	struct buffer buffer;
	volatile uint64_t *memory;
	/* Of each page, where it's known: of 0 pages or all. */
	int32_t references[PAGES];
	uint64_t known;
};

/* What became of mapping each page by itself. */
struct singles {
	uint64_t heads, tails;		     /* pages that have a reference count, and that have none */
	uint64_t mapped_heads, mapped_tails;
	uint64_t other_errors;		     /* that are not EFAULT */
};

static bool create_video_memory(struct buffer *buffer)
{
	struct drm_qxl_alloc alloc = { .size = PAGES * PAGE_BYTES };
	struct drm_qxl_map map = { 0 };

	if (drmIoctl(node, DRM_IOCTL_QXL_ALLOC, &alloc))
		return failed("DRM_IOCTL_QXL_ALLOC");
	map.handle = alloc.handle;
	if (drmIoctl(node, DRM_IOCTL_QXL_MAP, &map))
		return failed("DRM_IOCTL_QXL_MAP");
	*buffer = (struct buffer){ .fd = node, .offset = map.offset, .size = alloc.size, .handle = alloc.handle };
	return true;
}

/* Which pages have a reference count, found by way of another mapping. */
static bool find_references(struct subject *subject)
{
	static uint64_t pfns[PAGES];
	const char *why = "no memory";
	void *other = buffer_map(&subject->buffer);
	int result = other ? pages_fault_in(other, PAGES, pfns, &why) : -ENOMEM;

	if (!result)
		result = pages_references(pfns, PAGES, subject->references, &why);
	if (result)
		fprintf(stderr, "which pages have a reference count is not known: %s\n", why);
	else
		subject->known = PAGES;
	return !result;
}

static bool start_subject(struct subject *subject)
{
	const char *kind = subject->kind;
	uint8_t *area = area_reserve(PAGES * PAGE_BYTES);
	bool huge = !strcmp(kind, "huge") || !strcmp(kind, "huge-reserved");

	if (!area)
		return failed("mmap");
	subject->memory = (volatile uint64_t *)area;
	if (!strcmp(kind, "plain"))
		return !mprotect(area, PAGES * PAGE_BYTES, PROT_READ | PROT_WRITE) || failed("mprotect");
	subject->video_memory = !strcmp(kind, "video-memory");
	if (!strcmp(kind, "huge-reserved"))
		kind = "reserved";
	if (subject->video_memory) {
		if (!create_video_memory(&subject->buffer))
			return false;
	} else {
		if (strcmp(kind, "pool") && strcmp(kind, "huge") && buffer_choose_kind(node, kind)) {
			fprintf(stderr, "%s gives no buffer that is %s\n", driver, kind);
			return false;
		}
		if (buffer_create(node, driver, BUFFER_DRM_FD, PAGES * PAGE_BYTES, &subject->buffer)) {
			fprintf(stderr, "%s gives no buffer\n", driver);
			return false;
		}
	}
	if (!buffer_map_at(&subject->buffer, area, 0, PAGES * PAGE_BYTES))
		return failed("mmap of the buffer");
	if (!huge)
		madvise(area, PAGES * PAGE_BYTES, MADV_NOHUGEPAGE);
	return subject->video_memory || find_references(subject);
}

/* Whether there was a fault since this was asked before, and all were for 2 MiB. */
static bool was_huge(const struct subject *subject)
{
	struct hostblob_ttm_test faults = { .request = HOSTBLOB_TTM_FAULTS };

	return test_driver_ask(node, &subject->buffer, &faults) && faults.value && faults.count == faults.value;
}

static bool map_each(const struct subject *subject, struct singles *singles)
{
	*singles = (struct singles){ 0 };
	for (uint64_t page = 0; page < PAGES; page++) {
		uint64_t iova = SUBJECT_IOVA + page * PAGE_BYTES;
		int result = dma_map(subject->memory + page * PAGE_WORDS, PAGE_BYTES, iova, true);
		/* Where it isn't known, or each page has one. */
		bool head = page >= subject->known || subject->references[page] > 0;

		singles->heads += head;
		singles->tails += !head;
		singles->mapped_heads += head && !result;
		singles->mapped_tails += !head && !result;
		singles->other_errors += result && result != -EFAULT;
		if (!result && !dma_unmap(iova, PAGE_BYTES))
			return false;
	}
	return true;
}

/* Map all of it, compare with @want, and unmap it. */
static bool map_all(const struct subject *subject, const char *how, bool writable, bool want)
{
	int result = dma_map(subject->memory, PAGES * PAGE_BYTES, SUBJECT_IOVA, writable);

	printf("  all at once, %s: %s\n", how, result ? strerror(-result) : "mapped");
	if (result != (want ? 0 : -EFAULT))
		return false;
	return result || dma_unmap(SUBJECT_IOVA, PAGES * PAGE_BYTES);
}

/* Whether the device reads what the host wrote to the first page and to the last. */
static bool device_reads_subject(const struct subject *subject, bool want)
{
	int result = dma_map(subject->memory, PAGES * PAGE_BYTES, SUBJECT_IOVA, true);
	unsigned int read = device_reads(SUBJECT_IOVA) == HOST_VALUE;

	read += device_reads(SUBJECT_IOVA + (PAGES - 1) * PAGE_BYTES) == HOST_VALUE + PAGES - 1;
	printf("  the device reads %u of 2 pages\n", read);
	return read == (want ? 2 : 0) && (result || dma_unmap(SUBJECT_IOVA, PAGES * PAGE_BYTES));
}

/*
 * The buffer is moved out of the video memory, by others that need the place. The device
 * still reads there, which is why nothing of a GPU's may be mapped for VFIO.
 */
static bool video_memory_is_not_revoked(const struct subject *subject)
{
	uint64_t value = 0;
	unsigned int others = 0;

	if (dma_map(subject->memory, PAGES * PAGE_BYTES, SUBJECT_IOVA, true))
		return false;
	while (value != OTHER_VALUE && others < 32) {
		struct buffer other;
		volatile uint64_t *memory;

		if (!create_video_memory(&other) || !(memory = buffer_map(&other)))
			return false;
		memory[0] = OTHER_VALUE;
		others++;
		/* Most DMA is for nothing before the 64 MiB are full. */
		if (others >= 8)
			value = device_reads(SUBJECT_IOVA);
	}
	printf("  after %u other buffers the host reads %#" PRIx64 " and the device %#" PRIx64 "\n", others,
	       subject->memory[0], value);
	return subject->memory[0] == HOST_VALUE && value == OTHER_VALUE &&
	       dma_unmap(SUBJECT_IOVA, PAGES * PAGE_BYTES);
}

static bool check(struct subject *subject, bool want)
{
	bool huge = !strncmp(subject->kind, "huge", 4), right;
	struct singles singles;

	printf("%s, %s\n", subject->kind, assigned.iommufd ? "iommufd" : "type1");
	if (huge)
		was_huge(subject);
	right = map_all(subject, "before anybody touched it", true, want);
	for (uint64_t page = 0; page < PAGES; page++)
		subject->memory[page * PAGE_WORDS] = HOST_VALUE + page;
	if (huge && !was_huge(subject)) {
		puts("  the buffer is not mapped by 2 MiB");
		return false;
	}
	right = map_all(subject, "touched", true, want) && right;
	right = map_all(subject, "for reading", false, want) && right;
	if (!map_each(subject, &singles))
		return false;
	printf("  one by one: %" PRIu64 " of %" PRIu64 " pages with a reference count, %" PRIu64 " of %" PRIu64
	       " without; other errors than EFAULT: %" PRIu64 "\n", singles.mapped_heads, singles.heads,
	       singles.mapped_tails, singles.tails, singles.other_errors);
	right = right && singles.mapped_heads + singles.mapped_tails == (want ? PAGES : 0) && !singles.other_errors;
	right = device_reads_subject(subject, want) && right;
	if (subject->video_memory && want)
		right = video_memory_is_not_revoked(subject) && right;
	return right;
}

int main(int argc, char **argv)
{
	static struct subject subject;
	int first = 1;

	if (argc > 1 && !strcmp(argv[1], "--iommufd")) {
		assigned.iommufd = true;
		first = 2;
	}
	if (argc != first + 2 || (strcmp(argv[first + 1], "mapped") && strcmp(argv[first + 1], "refused"))) {
		fputs("Usage: vfio [--iommufd] KIND mapped|refused\n"
		      "Whether VFIO maps 4 MiB for a device: all at once, and page by page.\n\n"
		      "  KIND       plain; of a TTM driver: pool, or video-memory (qxl); of the TTM test\n"
		      "             driver: order-0, order-3, shuffled, compound, reserved, iomem, huge\n"
		      "             or huge-reserved\n"
		      "  --iommufd  by iommufd, not by VFIO's type 1\n\n"
		      "Exit status: 0 as expected, 1 not so, 2 bad usage, 77 skipped.\n", stderr);
		return 2;
	}
	int result = open_device();

	if (result)
		return result;
	node = node_open(NULL, driver, sizeof(driver));
	if (node < 0)
		return skip(NO_NODE);
	subject.kind = argv[first];
	return start_subject(&subject) && check(&subject, !strcmp(argv[first + 1], "mapped")) ? 0 : 1;
}

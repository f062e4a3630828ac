// SPDX-License-Identifier: MIT
/*
 * /proc/self/pagemap gives no page frame numbers for a PFNMAP mapping and
 * /proc/kpagecount counts mappings, so this reads the kernel itself. x86-64
 * only, like the tests that use it.
 */
#include "pages.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TRACEFS "/sys/kernel/tracing/"
#define PAGE_BYTES 4096

/* struct page on x86-64, Linux 6.1 to 7.3; include/linux/mm_types.h. */
#define STRUCT_PAGE_BYTES 64
#define STRUCT_PAGE_REFCOUNT 0x34

__attribute__((format(printf, 2, 3))) static int write_file(const char *path, const char *format, ...)
{
	char text[256];
	va_list arguments;
	int fd = open(path, O_WRONLY | O_APPEND);

	if (fd < 0)
		return -errno;
	va_start(arguments, format);
	int length = vsnprintf(text, sizeof(text), format, arguments);

	va_end(arguments);
	int result = write(fd, text, (size_t)length) == length ? 0 : -errno;

	close(fd);
	return result;
}

/* Opening it for writing with O_TRUNC is what empties the ring buffer. */
static void clear_trace(void)
{
	int fd = open(TRACEFS "trace", O_WRONLY | O_TRUNC);

	if (fd >= 0)
		close(fd);
}

static uint64_t parse_trace(uint64_t start, uint64_t count, uint64_t *pfns)
{
	FILE *trace = fopen(TRACEFS "trace", "re");
	char line[512];
	uint64_t found = 0;

	if (!trace)
		return 0;
	while (fgets(line, sizeof(line), trace)) {
		const char *event = strstr(line, "addr=");
		uint64_t address, pfn;

		if (!event || sscanf(event, "addr=0x%" SCNx64 " pfn=0x%" SCNx64, &address, &pfn) != 2)
			continue;
		uint64_t page = (address - start) / PAGE_BYTES;

		if (address < start || page >= count)
			continue;
		found += pfns[page] == 0;
		pfns[page] = pfn;
	}
	fclose(trace);
	return found;
}

int pages_fault_in(const volatile void *address, uint64_t count, uint64_t *pfns, const char **why)
{
	const volatile char *byte = address;
	int result;

	memset(pfns, 0, count * sizeof(*pfns));
	*why = "no kprobe on vmf_insert_pfn_prot (needs root and tracefs)";
	result = write_file(TRACEFS "kprobe_events",
			    "p:hostblob/insert vmf_insert_pfn_prot addr=%%si:x64 pfn=%%dx:x64\n");
	if (result < 0)
		return result;
	clear_trace();
	result = write_file(TRACEFS "events/hostblob/insert/filter", "common_pid == %d\n", getpid());
	if (!result)
		result = write_file(TRACEFS "events/hostblob/insert/enable", "1\n");
	if (result)
		goto remove;

	for (uint64_t page = 0; page < count; page++)
		(void)byte[page * PAGE_BYTES];

	write_file(TRACEFS "events/hostblob/insert/enable", "0\n");
	if (parse_trace((uint64_t)(uintptr_t)address, count, pfns) != count) {
		*why = "the driver inserted some pages in another way";
		result = -ENODATA;
	}
remove:
	write_file(TRACEFS "kprobe_events", "-:hostblob/insert\n");
	clear_trace();
	return result;
}

/* A kernel virtual address in /proc/kcore; -1 if it has none. */
static off_t kcore_offset(const Elf64_Phdr *segments, unsigned int count, uint64_t address,
			  uint64_t length)
{
	for (unsigned int i = 0; i < count; i++) {
		const Elf64_Phdr *segment = &segments[i];

		if (segment->p_type == PT_LOAD && address >= segment->p_vaddr &&
		    address + length <= segment->p_vaddr + segment->p_memsz)
			return (off_t)(segment->p_offset + (address - segment->p_vaddr));
	}
	return -1;
}

static bool kcore_read(int kcore, const Elf64_Phdr *segments, unsigned int count, uint64_t address,
		       void *data, size_t length)
{
	off_t offset = kcore_offset(segments, count, address, length);

	return offset >= 0 && pread(kcore, data, length, offset) == (ssize_t)length;
}

static uint64_t kernel_symbol(const char *wanted)
{
	FILE *symbols = fopen("/proc/kallsyms", "re");
	char line[512], name[256];
	uint64_t address, result = 0;

	if (!symbols)
		return 0;
	while (!result && fgets(line, sizeof(line), symbols)) {
		if (sscanf(line, "%" SCNx64 " %*c %255s", &address, name) == 2 && !strcmp(name, wanted))
			result = address;
	}
	fclose(symbols);
	return result;
}

int pages_references(const uint64_t *pfns, uint64_t count, int32_t *references, const char **why)
{
	Elf64_Ehdr header;
	Elf64_Phdr *segments = NULL;
	uint64_t vmemmap = 0;
	int result = -ENODATA;
	int kcore = open("/proc/kcore", O_RDONLY | O_CLOEXEC);

	*why = "/proc/kcore cannot be read (needs root and a kernel that is not locked down)";
	if (kcore < 0)
		return -errno;
	if (pread(kcore, &header, sizeof(header), 0) != sizeof(header))
		goto out;
	segments = calloc(header.e_phnum, sizeof(*segments));
	if (!segments)
		goto out;
	ssize_t length = (ssize_t)(header.e_phnum * sizeof(*segments));

	if (pread(kcore, segments, (size_t)length, (off_t)header.e_phoff) != length)
		goto out;
	/* Where struct pages begin depends on KASLR; the kernel keeps it here. */
	*why = "vmemmap_base is not in /proc/kallsyms";
	uint64_t symbol = kernel_symbol("vmemmap_base");

	if (!symbol || !kcore_read(kcore, segments, header.e_phnum, symbol, &vmemmap, sizeof(vmemmap)))
		goto out;
	*why = "/proc/kcore does not have the struct pages";
	for (uint64_t i = 0; i < count; i++) {
		uint64_t address = vmemmap + pfns[i] * STRUCT_PAGE_BYTES + STRUCT_PAGE_REFCOUNT;

		if (!kcore_read(kcore, segments, header.e_phnum, address, &references[i],
				sizeof(references[i])))
			goto out;
	}
	result = 0;
out:
	free(segments);
	close(kcore);
	return result;
}

int pages_trace_references(uint64_t first, uint64_t last, const char **why)
{
	int result;

	*why = "no page_ref tracepoints (needs root, tracefs, and a kernel with CONFIG_DEBUG_PAGE_REF)";
	clear_trace();
	result = write_file(TRACEFS "events/page_ref/filter",
			    "common_pid == %d && pfn >= %" PRIu64 " && pfn <= %" PRIu64 "\n", getpid(), first, last);
	if (result)
		return result;
	return write_file(TRACEFS "events/page_ref/enable", "1\n");
}

void pages_stop_tracing_references(struct reference_events *events)
{
	FILE *trace;
	char line[512];

	*events = (struct reference_events){ 0 };
	write_file(TRACEFS "events/page_ref/enable", "0\n");
	trace = fopen(TRACEFS "trace", "re");
	if (!trace)
		return;
	while (fgets(line, sizeof(line), trace)) {
		/* What get_page_unless_zero() and put_page() come to. */
		if (strstr(line, " page_ref_mod_unless: "))
			events->gets += strstr(line, "ret=1") != NULL;
		else if (strstr(line, " page_ref_mod_and_test: "))
			events->puts++;
		else if (strstr(line, " page_ref_"))
			events->others++;
	}
	fclose(trace);
	write_file(TRACEFS "events/page_ref/filter", "0\n");
	clear_trace();
}

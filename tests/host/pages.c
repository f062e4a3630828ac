// SPDX-License-Identifier: MIT
/*
 * /proc/self/pagemap gives no page frame numbers for a PFNMAP mapping and
 * /proc/kpagecount counts mappings, so this reads the kernel itself. x86-64
 * only, like the tests that use it.
 */
#include "pages.h"
#include "test.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define TRACEFS "/sys/kernel/tracing"

/* struct page on x86-64, of every kernel that has a series; include/linux/mm_types.h. */
#define STRUCT_PAGE_BYTES 64
#define STRUCT_PAGE_REFCOUNT 0x34

/* A trace buffer of this process's own: others may be tracing, too. */
static void trace_path(char *path, size_t size, const char *file)
{
	snprintf(path, size, TRACEFS "/instances/hostblob-%d%s", getpid(), file);
}

static int make_trace(void)
{
	char path[256];

	trace_path(path, sizeof(path), "");
	return mkdir(path, 0700) ? -errno : 0;
}

static void remove_trace(void)
{
	char path[256];

	trace_path(path, sizeof(path), "");
	rmdir(path);
}

static FILE *open_trace(void)
{
	char path[256];

	trace_path(path, sizeof(path), "/trace");
	return fopen(path, "re");
}

__attribute__((format(printf, 2, 3))) static int write_file(const char *path, const char *format, ...)
{
	char text[256];
	va_list arguments;
	int fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	va_start(arguments, format);
	int length = vsnprintf(text, sizeof(text), format, arguments);

	va_end(arguments);
	int result = write(fd, text, (size_t)length) == length ? 0 : -errno;

	close(fd);
	return result;
}

__attribute__((format(printf, 2, 3))) static int write_trace_file(const char *file, const char *format, ...)
{
	char path[256], text[256];
	va_list arguments;

	trace_path(path, sizeof(path), file);
	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	return write_file(path, "%s", text);
}

static uint64_t parse_trace(uint64_t start, uint64_t count, uint64_t *pfns)
{
	FILE *trace = open_trace();
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
	char event[64];
	int result;

	memset(pfns, 0, count * sizeof(*pfns));
	/* A huge page would be inserted in another way, and by one call for many. */
	madvise((void *)(uintptr_t)address, count * PAGE_BYTES, MADV_NOHUGEPAGE);
	*why = "no kprobe on vmf_insert_pfn_prot (needs root and tracefs)";
	result = make_trace();
	if (result)
		return result;
	result = write_file(TRACEFS "/kprobe_events",
			    "p:hostblob/insert_%d vmf_insert_pfn_prot addr=%%si:x64 pfn=%%dx:x64\n", getpid());
	if (result)
		goto remove;
	snprintf(event, sizeof(event), "/events/hostblob/insert_%d/filter", getpid());
	result = write_trace_file(event, "common_pid == %d\n", getpid());
	snprintf(event, sizeof(event), "/events/hostblob/insert_%d/enable", getpid());
	if (!result)
		result = write_trace_file(event, "1\n");
	if (result)
		goto remove;

	for (uint64_t page = 0; page < count; page++)
		(void)byte[page * PAGE_BYTES];

	write_trace_file(event, "0\n");
	if (parse_trace((uint64_t)(uintptr_t)address, count, pfns) != count) {
		*why = "the driver inserted some pages in another way";
		result = -ENODATA;
	}
remove:
	remove_trace();
	write_file(TRACEFS "/kprobe_events", "-:hostblob/insert_%d\n", getpid());
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

/* HOSTBLOB_KALLSYMS names a file with the lines that are needed: the kernel takes its time for all. */
static uint64_t kernel_symbol(const char *wanted)
{
	const char *file = getenv("HOSTBLOB_KALLSYMS");
	FILE *symbols = fopen(file ? file : "/proc/kallsyms", "re");
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

/* /proc/kcore, and where struct pages are in it. */
struct kernel_memory {
	int kcore;
	Elf64_Phdr *segments;
	unsigned int count;
	uint64_t vmemmap;
};

static void close_kernel_memory(struct kernel_memory *memory)
{
	free(memory->segments);
	if (memory->kcore >= 0)
		close(memory->kcore);
}

static int open_kernel_memory(struct kernel_memory *memory, const char **why)
{
	Elf64_Ehdr header;
	uint64_t symbol;
	ssize_t length;

	*memory = (struct kernel_memory){ .kcore = open("/proc/kcore", O_RDONLY | O_CLOEXEC) };
	*why = "/proc/kcore cannot be read (needs root and a kernel that is not locked down)";
	if (memory->kcore < 0)
		return -errno;
	if (pread(memory->kcore, &header, sizeof(header), 0) != sizeof(header))
		goto error;
	memory->count = header.e_phnum;
	memory->segments = calloc(memory->count, sizeof(*memory->segments));
	length = (ssize_t)(memory->count * sizeof(*memory->segments));
	if (!memory->segments ||
	    pread(memory->kcore, memory->segments, (size_t)length, (off_t)header.e_phoff) != length)
		goto error;
	/* Where struct pages begin depends on KASLR; the kernel keeps it here. */
	*why = "vmemmap_base is not in /proc/kallsyms";
	symbol = kernel_symbol("vmemmap_base");
	if (!symbol || !kcore_read(memory->kcore, memory->segments, memory->count, symbol, &memory->vmemmap,
				   sizeof(memory->vmemmap)))
		goto error;
	return 0;
error:
	close_kernel_memory(memory);
	return -ENODATA;
}

static bool read_reference_count(const struct kernel_memory *memory, uint64_t pfn, int32_t *references)
{
	uint64_t address = memory->vmemmap + pfn * STRUCT_PAGE_BYTES + STRUCT_PAGE_REFCOUNT;

	return kcore_read(memory->kcore, memory->segments, memory->count, address, references,
			  sizeof(*references));
}

/* A page in a pipe has one more reference. */
static bool reference_is_seen(const struct kernel_memory *memory)
{
	void *page = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct iovec vector = { .iov_base = page, .iov_len = PAGE_BYTES };
	int pipe_ends[2], pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	int32_t before = 0, after = 0;
	uint64_t entry = 0;
	bool known = false;

	if (page == MAP_FAILED || pagemap < 0 || pipe2(pipe_ends, O_CLOEXEC))
		return false;
	*(volatile char *)page = 1;
	if (pread(pagemap, &entry, sizeof(entry), (off_t)((uintptr_t)page / PAGE_BYTES * sizeof(entry))) ==
	    sizeof(entry)) {
		uint64_t pfn = entry & ((1ull << 55) - 1);

		known = pfn && read_reference_count(memory, pfn, &before) &&
			vmsplice(pipe_ends[1], &vector, 1, 0) == PAGE_BYTES &&
			read_reference_count(memory, pfn, &after) && before > 0 && after == before + 1;
	}
	close(pipe_ends[0]);
	close(pipe_ends[1]);
	close(pagemap);
	munmap(page, PAGE_BYTES);
	return known;
}

/* Other references to a new page come and go, but not each time. */
static bool layout_is_known(const struct kernel_memory *memory)
{
	for (int attempt = 0; attempt < 10; attempt++) {
		if (reference_is_seen(memory))
			return true;
	}
	return false;
}

int pages_references(const uint64_t *pfns, uint64_t count, int32_t *references, const char **why)
{
	struct kernel_memory memory;
	int result = open_kernel_memory(&memory, why);

	if (result)
		return result;
	result = -ENODATA;
	*why = "this kernel's struct page has a layout that is not known here";
	if (!layout_is_known(&memory))
		goto out;
	*why = "/proc/kcore does not have the struct pages";
	for (uint64_t i = 0; i < count; i++) {
		if (!read_reference_count(&memory, pfns[i], &references[i]))
			goto out;
	}
	result = 0;
out:
	close_kernel_memory(&memory);
	return result;
}

int pages_trace_references(uint64_t first, uint64_t last, const char **why)
{
	int result;

	*why = "no page_ref tracepoints (needs root, tracefs, and a kernel with CONFIG_DEBUG_PAGE_REF)";
	result = make_trace();
	if (result)
		return result;
	result = write_trace_file("/events/page_ref/filter",
				  "common_pid == %d && pfn >= %" PRIu64 " && pfn <= %" PRIu64 "\n", getpid(), first, last);
	if (!result)
		result = write_trace_file("/events/page_ref/enable", "1\n");
	if (result)
		remove_trace();
	return result;
}

void pages_stop_tracing_references(struct reference_events *events)
{
	FILE *trace;
	char line[512];

	*events = (struct reference_events){ 0 };
	write_trace_file("/events/page_ref/enable", "0\n");
	trace = open_trace();
	while (trace && fgets(line, sizeof(line), trace)) {
		/* What get_page_unless_zero() and put_page() come to. */
		if (strstr(line, " page_ref_mod_unless: "))
			events->gets += strstr(line, "ret=1") != NULL;
		else if (strstr(line, " page_ref_mod_and_test: "))
			events->puts++;
		else if (strstr(line, " page_ref_"))
			events->others++;
	}
	if (trace)
		fclose(trace);
	remove_trace();
}

// SPDX-License-Identifier: MIT
/*
 * How many pages of a TTM buffer a guest reaches through KVM, for reading and
 * for writing, beside the blocks that TTM made the buffer of. See --help.
 */
#include "buffer.h"
#include "machine.h"
#include "pages.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGE_BYTES 4096
#define SKIPPED 77
#define SLOT 1

/* What the host writes for the guest to read, and the other way round. */
#define HOST_VALUE 0x5eed0000u
#define GUEST_VALUE 0xb10b0000u

enum expectation { EXPECT_NOTHING, EXPECT_ALL, EXPECT_HEADS };

/* What is expected of the page_ref tracepoints, if they are to be used. */
enum tracing { TRACE_NOTHING, TRACE_NO_REFERENCES, TRACE_SOME_REFERENCES };

struct options {
	const char *node, *kind;
	uint64_t pages;
	enum buffer_path path;
	enum expectation expect;
	enum tracing references;
	bool json;
};

struct measurement {
	char driver[32];
	uint64_t read, written, wrong;
	bool structure_known;
	uint64_t heads;
	bool references_changed;
	bool only_heads; /* reached are exactly the pages with a reference count */
	struct reference_events events;
	char blocks[256];
};

static void help(FILE *out)
{
	fputs("Usage: kvm-coverage [OPTION]...\n"
	      "Count the pages of a TTM buffer that a KVM guest reaches.\n\n"
	      "  --node PATH          DRM node (default: the first one of a known driver)\n"
	      "  --pages N            size of the buffer (default: 1024)\n"
	      "  --path dma-buf|drm-fd  how the buffer is mapped (default: dma-buf)\n"
	      "  --kind NAME          what the TTM test driver makes it of: order-0, order-3,\n"
	      "                       compound, reserved, write-combined or uncached\n"
	      "  --expect all         fail unless the guest reaches every page\n"
	      "  --expect heads       fail unless it reaches exactly the pages that have a\n"
	      "                       reference count, as on a kernel before 6.13\n"
	      "  --references none    fail if KVM changes a page's reference count, even for a\n"
	      "                       moment; needs a kernel with CONFIG_DEBUG_PAGE_REF\n"
	      "  --references some    fail unless it gets and puts references\n"
	      "  --honor-guest-pat    Intel: the guest's PAT decides the memory type, too\n"
	      "  --json               for programs\n"
	      "  --help               this text\n\n"
	      "Exit status: 0 as expected, 1 not so, 2 bad usage, 77 skipped.\n",
	      out);
}

static int parse(int argc, char **argv, struct options *options)
{
	static const struct option names[] = {
		{ "node", required_argument, NULL, 'n' },   { "pages", required_argument, NULL, 'p' },
		{ "path", required_argument, NULL, 'm' },   { "kind", required_argument, NULL, 'k' },
		{ "expect", required_argument, NULL, 'e' },
		{ "references", required_argument, NULL, 'r' },
		{ "honor-guest-pat", no_argument, NULL, 'q' },
		{ "json", no_argument, NULL, 'j' },	    { "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	char *end;
	int option;

	*options = (struct options){ .pages = 1024, .path = BUFFER_DMA_BUF };
	while ((option = getopt_long(argc, argv, "", names, NULL)) != -1) {
		switch (option) {
		case 'n':
			options->node = optarg;
			break;
		case 'p':
			options->pages = strtoull(optarg, &end, 10);
			/* The guest's window under test ends below 4 GiB. */
			if (*end || !options->pages || options->pages > 0x80000)
				return -EINVAL;
			break;
		case 'm':
			if (strcmp(optarg, "dma-buf") && strcmp(optarg, "drm-fd"))
				return -EINVAL;
			options->path = strcmp(optarg, "dma-buf") ? BUFFER_DRM_FD : BUFFER_DMA_BUF;
			break;
		case 'k':
			options->kind = optarg;
			break;
		case 'e':
			if (strcmp(optarg, "all") && strcmp(optarg, "heads"))
				return -EINVAL;
			options->expect = strcmp(optarg, "all") ? EXPECT_HEADS : EXPECT_ALL;
			break;
		case 'r':
			if (strcmp(optarg, "none") && strcmp(optarg, "some"))
				return -EINVAL;
			options->references = strcmp(optarg, "none") ? TRACE_SOME_REFERENCES : TRACE_NO_REFERENCES;
			break;
		case 'q':
			machine_honor_guest_pat();
			break;
		case 'j':
			options->json = true;
			break;
		case 'h':
			help(stdout);
			exit(0);
		default:
			return -EINVAL;
		}
	}
	return optind == argc ? 0 : -EINVAL;
}

/* "1024", or "512+256+128": a block is a page with references and those after it. */
static void describe_blocks(const uint64_t *pfns, const int32_t *references, uint64_t count,
			    char *text, size_t size)
{
	size_t used = 0;

	text[0] = '\0';
	for (uint64_t page = 0, next; page < count && used < size; page = next) {
		for (next = page + 1; next < count && references[next] == 0 &&
				      pfns[next] == pfns[next - 1] + 1; next++)
			;
		int length = snprintf(text + used, size - used, "%s%" PRIu64, used ? "+" : "", next - page);

		used += (size_t)length;
	}
	if (used >= size)
		memcpy(text + size - 4, "...", 4);
}

/* The buffer has to be one stretch, or others' pages would be traced as well. */
static int start_tracing(const uint64_t *pfns, uint64_t count, const char **why)
{
	*why = "the buffer is not one stretch of page frames";
	for (uint64_t page = 1; page < count; page++) {
		if (pfns[page] != pfns[0] + page)
			return -ENODATA;
	}
	return pages_trace_references(pfns[0], pfns[count - 1], why);
}

static int measure(const struct options *options, struct measurement *result)
{
	uint64_t count = options->pages;
	uint64_t *pfns = calloc(count, sizeof(*pfns));
	int32_t *before = calloc(count, sizeof(*before)), *after = calloc(count, sizeof(*after));
	enum page_result *reads = calloc(count, sizeof(*reads)), *writes = calloc(count, sizeof(*writes));
	struct buffer buffer;
	struct machine machine;
	const char *why = "";
	int error = -ENOMEM;

	if (!pfns || !before || !after || !reads || !writes)
		goto out;
	int node = node_open(options->node, result->driver, sizeof(result->driver));

	error = node;
	if (node == -ENODEV) {
		printf("skipped: %s\n", options->node ? "the node has no driver that is known to use TTM" :
							"no DRM node of qxl, bochs-drm or radeon here");
		goto out;
	}
	if (node < 0) {
		fprintf(stderr, "%s: %s\n", options->node, strerror(-node));
		goto out;
	}
	error = options->kind ? buffer_choose_kind(node, options->kind) : 0;
	if (error) {
		fprintf(stderr, "no kind %s of %s: %s\n", options->kind, result->driver, strerror(-error));
		goto out;
	}
	error = buffer_create(node, result->driver, options->path, count * PAGE_BYTES, &buffer);
	if (error) {
		fprintf(stderr, "%s gives no buffer of %" PRIu64 " pages: %s\n", result->driver, count,
			strerror(-error));
		goto out;
	}
	/*
	 * The guest's mappings are touched by nobody but KVM. Writes have their own,
	 * so that none meets what a read made writable.
	 */
	void *for_reads = buffer_map(&buffer), *for_writes = buffer_map(&buffer);
	volatile uint32_t *for_host = buffer_map(&buffer);

	if (!for_reads || !for_writes || !for_host) {
		error = -errno;
		perror("mmap of the buffer");
		goto out;
	}
	result->structure_known = !pages_fault_in(for_host, count, pfns, &why) &&
				  !pages_references(pfns, count, before, &why);
	for (uint64_t page = 0; page < count; page++)
		for_host[page * PAGE_BYTES / 4] = HOST_VALUE + (uint32_t)page;

	if (options->expect == EXPECT_HEADS && !result->structure_known) {
		printf("skipped: %s\n", why);
		error = -ENODEV;
		goto out;
	}
	error = machine_create(&machine, 1);
	if (error)
		goto out;
	if (options->references && (!result->structure_known || start_tracing(pfns, count, &why))) {
		printf("skipped: %s\n", why);
		machine_destroy(&machine);
		error = -ENODEV;
		goto out;
	}
	error = machine_set_memory(&machine, SLOT, MACHINE_MEMORY, for_reads, count * PAGE_BYTES);
	if (!error)
		error = machine_read_pages(&machine, count, HOST_VALUE, reads);
	if (!error)
		error = machine_set_memory(&machine, SLOT, MACHINE_MEMORY, for_writes, count * PAGE_BYTES);
	if (!error)
		error = machine_write_pages(&machine, count, GUEST_VALUE, writes);
	if (options->references)
		pages_stop_tracing_references(&result->events);
	if (!error && result->structure_known)
		result->structure_known = !pages_references(pfns, count, after, &why);
	machine_destroy(&machine);
	if (error)
		goto out;

	result->only_heads = true;
	for (uint64_t page = 0; page < count; page++) {
		bool arrived = for_host[page * PAGE_BYTES / 4 + 2] == GUEST_VALUE + (uint32_t)page;

		result->read += reads[page] == PAGE_REACHED;
		result->written += writes[page] == PAGE_REACHED && arrived;
		result->wrong += reads[page] == PAGE_WRONG_DATA || (writes[page] == PAGE_REACHED) != arrived;
		result->heads += before[page] != 0;
		result->references_changed |= result->structure_known && before[page] != after[page];
		result->only_heads &= (before[page] != 0) == (reads[page] == PAGE_REACHED) &&
				      (before[page] != 0) == (writes[page] == PAGE_REACHED);
	}
	if (result->structure_known)
		describe_blocks(pfns, before, count, result->blocks, sizeof(result->blocks));
	else
		snprintf(result->blocks, sizeof(result->blocks), "unknown: %s", why);
out:
	free(pfns);
	free(before);
	free(after);
	free(reads);
	free(writes);
	return error;
}

static bool as_expected(const struct options *options, const struct measurement *result)
{
	const struct reference_events *events = &result->events;

	if (result->wrong || result->references_changed)
		return false;
	if (options->references == TRACE_NO_REFERENCES && (events->gets || events->puts || events->others))
		return false;
	if (options->references == TRACE_SOME_REFERENCES && (!events->gets || !events->puts))
		return false;
	switch (options->expect) {
	case EXPECT_ALL:
		return result->read == options->pages && result->written == options->pages;
	case EXPECT_HEADS:
		return result->structure_known && result->only_heads;
	default:
		return true;
	}
}

int main(int argc, char **argv)
{
	struct measurement result = { 0 };
	struct options options;

	if (parse(argc, argv, &options)) {
		help(stderr);
		return 2;
	}
	int error = measure(&options, &result);

	if (error)
		return error == -ENODEV ? SKIPPED : 1;
	const char *path = options.path == BUFFER_DMA_BUF ? "dma-buf" : "drm-fd";
	bool passed = as_expected(&options, &result);

	if (options.json)
		printf("{\"driver\":\"%s\",\"path\":\"%s\",\"pages\":%" PRIu64 ",\"blocks\":\"%s\","
		       "\"heads\":%" PRIu64 ",\"read\":%" PRIu64 ",\"written\":%" PRIu64
		       ",\"wrong\":%" PRIu64 ",\"references_changed\":%s,\"as_expected\":%s}\n",
		       result.driver, path, options.pages, result.blocks, result.heads, result.read,
		       result.written, result.wrong, result.references_changed ? "true" : "false",
		       passed ? "true" : "false");
	else
		printf("%-9s  %-7s  %6" PRIu64 " pages  read %6" PRIu64 "  written %6" PRIu64
		       "  wrong %" PRIu64 "%s  blocks %s\n",
		       result.driver, path, options.pages, result.read, result.written, result.wrong,
		       result.references_changed ? "  REFERENCE COUNTS CHANGED" : "", result.blocks);
	if (options.references && !options.json)
		printf("references: %" PRIu64 " gets, %" PRIu64 " puts, %" PRIu64 " other changes\n",
		       result.events.gets, result.events.puts, result.events.others);
	return passed ? 0 : 1;
}

// SPDX-License-Identifier: MIT
/*
 * How many pages of a TTM buffer a guest reaches through KVM, for reading and
 * for writing, beside the blocks that TTM made the buffer of. See --help.
 */
#include "buffer.h"
#include "machine.h"
#include "pages.h"
#include "test.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

/* The buffer, three times mapped, and what is known of each page. */
struct subject {
	uint64_t count;
	struct buffer buffer;
	/*
	 * The guest's mappings are touched by nobody but KVM. Writes have their own,
	 * so that none meets what a read made writable.
	 */
	void *for_reads, *for_writes;
	volatile uint32_t *for_host;
	uint64_t *pfns;
	int32_t *before, *after; /* reference counts */
	enum page_result *reads, *writes;
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

/* Whether @text is one of two words, and which. */
static bool choose(const char *text, const char *first, const char *second, bool *is_first)
{
	*is_first = !strcmp(text, first);
	return *is_first || !strcmp(text, second);
}

static bool parse_pages(const char *text, uint64_t *pages)
{
	char *end;

	*pages = strtoull(text, &end, 10);
	/* The guest's window under test ends below 4 GiB. */
	return !*end && *pages && *pages <= 0x80000;
}

static int parse(int argc, char **argv, struct options *options)
{
	static const struct option names[] = {
		{ "node", required_argument, NULL, 'n' },
		{ "pages", required_argument, NULL, 'p' },
		{ "path", required_argument, NULL, 'm' },
		{ "kind", required_argument, NULL, 'k' },
		{ "expect", required_argument, NULL, 'e' },
		{ "references", required_argument, NULL, 'r' },
		{ "honor-guest-pat", no_argument, NULL, 'q' },
		{ "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	bool good = true, first;
	int option;

	*options = (struct options){ .pages = 1024, .path = BUFFER_DMA_BUF };
	while ((option = getopt_long(argc, argv, "", names, NULL)) != -1) {
		switch (option) {
		case 'n': options->node = optarg; break;
		case 'p': good &= parse_pages(optarg, &options->pages); break;
		case 'm':
			good &= choose(optarg, "dma-buf", "drm-fd", &first);
			options->path = first ? BUFFER_DMA_BUF : BUFFER_DRM_FD;
			break;
		case 'k': options->kind = optarg; break;
		case 'e':
			good &= choose(optarg, "all", "heads", &first);
			options->expect = first ? EXPECT_ALL : EXPECT_HEADS;
			break;
		case 'r':
			good &= choose(optarg, "none", "some", &first);
			options->references = first ? TRACE_NO_REFERENCES : TRACE_SOME_REFERENCES;
			break;
		case 'q': machine_honor_guest_pat(); break;
		case 'j': options->json = true; break;
		case 'h': help(stdout); exit(0);
		default: good = false;
		}
	}
	return good && optind == argc ? 0 : -EINVAL;
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

static void subject_destroy(struct subject *subject)
{
	free(subject->pfns);
	free(subject->before);
	free(subject->after);
	free(subject->reads);
	free(subject->writes);
}

/* Returns 0, -ENODEV if there is no driver, or another negative errno after a message. */
static int subject_create(const struct options *options, struct subject *subject, char *driver, unsigned int driver_size)
{
	uint64_t count = options->pages;
	int node = node_open(options->node, driver, driver_size), error;

	if (node == -ENODEV)
		skip(options->node ? "the node has no driver that is known to use TTM" : NO_NODE);
	else if (node < 0)
		fprintf(stderr, "%s: %s\n", options->node, strerror(-node));
	if (node < 0)
		return node;
	error = options->kind ? buffer_choose_kind(node, options->kind) : 0;
	if (error) {
		fprintf(stderr, "no kind %s of %s: %s\n", options->kind, driver, strerror(-error));
		return error;
	}
	error = buffer_create(node, driver, options->path, count * PAGE_BYTES, &subject->buffer);
	if (error) {
		fprintf(stderr, "%s gives no buffer of %" PRIu64 " pages: %s\n", driver, count, strerror(-error));
		return error;
	}
	*subject = (struct subject){
		.count = count,
		.buffer = subject->buffer,
		.for_reads = buffer_map(&subject->buffer),
		.for_writes = buffer_map(&subject->buffer),
		.for_host = buffer_map(&subject->buffer),
		.pfns = calloc(count, sizeof(*subject->pfns)),
		.before = calloc(count, sizeof(*subject->before)),
		.after = calloc(count, sizeof(*subject->after)),
		.reads = calloc(count, sizeof(*subject->reads)),
		.writes = calloc(count, sizeof(*subject->writes)),
	};
	if (subject->for_reads && subject->for_writes && subject->for_host && subject->pfns && subject->before &&
	    subject->after && subject->reads && subject->writes)
		return 0;
	perror("mmap of the buffer, or memory");
	subject_destroy(subject);
	return -ENOMEM;
}

/* The guest reads and writes each page. Returns 0, or a negative errno after a message. */
static int touch_pages(struct machine *machine, struct subject *subject)
{
	uint64_t count = subject->count;
	int error = machine_set_memory(machine, SLOT, MACHINE_MEMORY, subject->for_reads, count * PAGE_BYTES);

	if (!error)
		error = machine_read_pages(machine, count, HOST_VALUE, subject->reads);
	if (!error)
		error = machine_set_memory(machine, SLOT, MACHINE_MEMORY, subject->for_writes, count * PAGE_BYTES);
	if (!error)
		error = machine_write_pages(machine, count, GUEST_VALUE, subject->writes);
	return error;
}

static void compare(const struct subject *subject, struct measurement *result)
{
	result->only_heads = true;
	for (uint64_t page = 0; page < subject->count; page++) {
		enum page_result read = subject->reads[page], write = subject->writes[page];
		bool arrived = subject->for_host[page * PAGE_BYTES / 4 + 2] == GUEST_VALUE + (uint32_t)page;
		bool is_head = subject->before[page] != 0;

		result->read += read == PAGE_REACHED;
		result->written += write == PAGE_REACHED && arrived;
		result->wrong += read == PAGE_WRONG_DATA || (write == PAGE_REACHED) != arrived;
		result->heads += is_head;
		result->references_changed |= result->structure_known && subject->before[page] != subject->after[page];
		result->only_heads &= is_head == (read == PAGE_REACHED) && is_head == (write == PAGE_REACHED);
	}
}

/* Returns 0, -ENODEV if this can't be measured here, or another negative errno after a message. */
static int measure(const struct options *options, struct subject *subject, struct measurement *result)
{
	struct machine machine;
	const char *why = "";
	int error;

	result->structure_known = !pages_fault_in(subject->for_host, subject->count, subject->pfns, &why) &&
				  !pages_references(subject->pfns, subject->count, subject->before, &why);
	for (uint64_t page = 0; page < subject->count; page++)
		subject->for_host[page * PAGE_BYTES / 4] = HOST_VALUE + (uint32_t)page;
	if ((options->expect == EXPECT_HEADS || options->references) && !result->structure_known) {
		skip(why);
		return -ENODEV;
	}
	error = machine_create(&machine, 1);
	if (error)
		return error;
	if (options->references && start_tracing(subject->pfns, subject->count, &why)) {
		skip(why);
		machine_destroy(&machine);
		return -ENODEV;
	}
	error = touch_pages(&machine, subject);
	if (options->references)
		pages_stop_tracing_references(&result->events);
	if (!error && result->structure_known)
		result->structure_known = !pages_references(subject->pfns, subject->count, subject->after, &why);
	machine_destroy(&machine);
	if (error)
		return error;
	compare(subject, result);
	if (result->structure_known)
		describe_blocks(subject->pfns, subject->before, subject->count, result->blocks, sizeof(result->blocks));
	else
		snprintf(result->blocks, sizeof(result->blocks), "unknown: %s", why);
	return 0;
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

static void report(const struct options *options, const struct measurement *result, bool passed)
{
	const struct reference_events *events = &result->events;
	const char *path = options->path == BUFFER_DMA_BUF ? "dma-buf" : "drm-fd";

	if (options->json) {
		printf("{\"driver\":\"%s\",\"path\":\"%s\",\"pages\":%" PRIu64 ",\"blocks\":\"%s\","
		       "\"heads\":%" PRIu64 ",\"read\":%" PRIu64 ",\"written\":%" PRIu64
		       ",\"wrong\":%" PRIu64 ",\"references_changed\":%s,\"as_expected\":%s}\n",
		       result->driver, path, options->pages, result->blocks, result->heads, result->read,
		       result->written, result->wrong, result->references_changed ? "true" : "false",
		       passed ? "true" : "false");
		return;
	}
	printf("%-9s  %-7s  %6" PRIu64 " pages  read %6" PRIu64 "  written %6" PRIu64 "  wrong %" PRIu64
	       "%s  blocks %s\n",
	       result->driver, path, options->pages, result->read, result->written, result->wrong,
	       result->references_changed ? "  REFERENCE COUNTS CHANGED" : "", result->blocks);
	if (options->references)
		printf("references: %" PRIu64 " gets, %" PRIu64 " puts, %" PRIu64 " other changes\n", events->gets,
		       events->puts, events->others);
}

int main(int argc, char **argv)
{
	struct measurement result = { 0 };
	struct options options;
	struct subject subject;

	if (parse(argc, argv, &options)) {
		help(stderr);
		return 2;
	}
	int error = subject_create(&options, &subject, result.driver, sizeof(result.driver));

	if (!error) {
		error = measure(&options, &subject, &result);
		subject_destroy(&subject);
	}
	if (error)
		return error == -ENODEV ? SKIPPED : 1;
	bool passed = as_expected(&options, &result);

	report(&options, &result, passed);
	return passed ? 0 : 1;
}

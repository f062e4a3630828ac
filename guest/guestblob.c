// SPDX-License-Identifier: MIT
/*
 * The guest's command: what virtio-gpu offers, and host blobs put to use. Every
 * subcommand ends with 0, 1 (it went wrong, with a reason) or 2 (bad usage).
 */
#include "blob.h"
#include "image.h"
#include "picture.h"
#include "screen.h"

#include <drm/virtgpu_drm.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include <xf86drm.h>

struct options {
	const char *node;
	const char *format;
	const char *output;
	const char *uses;
	uint64_t size;
	uint64_t count;
	uint64_t live;
	uint32_t width, height;
	bool screen, hold, reference, guest_handle, json;
};

/* By their number, for getopt_long() and for the set of those that were given. */
enum option_id {
	NODE, SIZE, COUNT, LIVE, WIDTH, HEIGHT, FORMAT, OUTPUT, SCREEN, HOLD, REFERENCE,
	NO_GUEST_HANDLE, USE, JSON, OPTIONS,
};

#define TAKES(option) (1u << (option))

struct command {
	const char *name;
	int (*run)(const struct options *options);
	unsigned int takes;
	/* One of these changes what the command does, and with it what it takes. */
	unsigned int other_form, other_takes;
};

#define MAX_SAMPLES 1000000u

static uint64_t page_size;

static void help(FILE *out)
{
	fputs("Usage: guestblob COMMAND [OPTION]...\n"
	      "Use host blobs: memory of the host that a virtio-gpu device maps into this guest.\n\n"
	      "Commands:\n"
	      "  info       what the device offers\n"
	      "  paint      draw a test picture into a blob\n"
	      "  check      write and read every page of blobs\n"
	      "  image      make an image that the host lays out, write and read it\n"
	      "  stress     make and free blobs, one after another\n\n"
	      "Options:\n"
	      "  --node PATH       DRM node (default: the first one of virtio_gpu)\n"
	      "  --size BYTES      size of a blob, with K, M or G (check: 4M, stress: 64K)\n"
	      "  --count N         how many blobs (check: 1, stress: 1000)\n"
	      "  --width N, --height N  size of the picture (default: the screen's, or 1280 x 800)\n"
	      "  --format NAME     image: its DRM format (default: XRGB8888)\n"
	      "  --use NAME[,NAME]... image: what for: scanout, rendering, texturing, read-often,\n"
	      "                    write-often (default: texturing)\n"
	      "  --no-guest-handle image: ignore the kernel's parameter 8, which minigbm misreads\n"
	      "  --screen          paint: put the blob on the screen\n"
	      "  --hold            paint, check, image: keep the blob until standard input has a line\n"
	      "                    or ends; check: and check it again\n"
	      "  --live N          stress: beside N others that stay\n"
	      "  --output FILE     paint: write the picture to FILE, as PPM\n"
	      "  --reference       paint: draw into plain memory, with no device\n"
	      "  --json            print JSON\n"
	      "  -h, --help, --version\n",
	      out);
}

static int parse_number(const char *text, bool with_unit, uint64_t *number)
{
	static const char units[] = "KMG";
	const char *unit;
	char *end;

	errno = 0;
	*number = strtoull(text, &end, 10);
	if (errno || end == text || *text == '-' || *number > UINT64_MAX / 2)
		return -EINVAL;
	if (with_unit && *end && (unit = strchr(units, *end))) {
		unsigned int shift = 10 * (unsigned int)(unit - units + 1);

		if (*number > UINT64_MAX / 2 >> shift)
			return -EINVAL;
		*number <<= shift;
		end++;
	}
	return *end || !*number ? -EINVAL : 0;
}

static int parse_dimension(const char *text, uint32_t *dimension)
{
	uint64_t number;

	if (parse_number(text, false, &number) || number > 16384)
		return -EINVAL;
	*dimension = (uint32_t)number;
	return 0;
}

static const struct option names[OPTIONS + 1] = {
	[NODE] = { "node", required_argument, NULL, NODE },
	[SIZE] = { "size", required_argument, NULL, SIZE },
	[COUNT] = { "count", required_argument, NULL, COUNT },
	[LIVE] = { "live", required_argument, NULL, LIVE },
	[WIDTH] = { "width", required_argument, NULL, WIDTH },
	[HEIGHT] = { "height", required_argument, NULL, HEIGHT },
	[FORMAT] = { "format", required_argument, NULL, FORMAT },
	[OUTPUT] = { "output", required_argument, NULL, OUTPUT },
	[SCREEN] = { "screen", no_argument, NULL, SCREEN },
	[HOLD] = { "hold", no_argument, NULL, HOLD },
	[REFERENCE] = { "reference", no_argument, NULL, REFERENCE },
	[USE] = { "use", required_argument, NULL, USE },
	[NO_GUEST_HANDLE] = { "no-guest-handle", no_argument, NULL, NO_GUEST_HANDLE },
	[JSON] = { "json", no_argument, NULL, JSON },
};

static int set_option(struct options *options, int option)
{
	switch (option) {
	case NODE: options->node = optarg; return 0;
	case SIZE: return parse_number(optarg, true, &options->size);
	case COUNT: return parse_number(optarg, false, &options->count);
	case LIVE: return parse_number(optarg, false, &options->live);
	case WIDTH: return parse_dimension(optarg, &options->width);
	case HEIGHT: return parse_dimension(optarg, &options->height);
	case FORMAT: options->format = optarg; return 0;
	case OUTPUT: options->output = optarg; return 0;
	case USE: options->uses = optarg; return 0;
	case SCREEN: options->screen = true; return 0;
	case HOLD: options->hold = true; return 0;
	case REFERENCE: options->reference = true; return 0;
	case NO_GUEST_HANDLE: options->guest_handle = false; return 0;
	default: options->json = true; return 0;
	}
}

/* Whether @command takes each option of the set @given. */
static int check_options(const struct command *command, unsigned int given)
{
	bool other = given & command->other_form;
	unsigned int takes = other ? command->other_takes | command->other_form : command->takes;

	for (unsigned int i = 0; i < OPTIONS; i++) {
		if (given & ~takes & TAKES(i)) {
			warnx("%s%s%s takes no --%s", command->name, other ? " --" : "",
			      other ? names[__builtin_ctz(command->other_form)].name : "", names[i].name);
			return -EINVAL;
		}
	}
	return 0;
}

static int parse(int argc, char **argv, const struct command *command, struct options *options)
{
	unsigned int given = 0;
	int option;

	opterr = 0;
	while ((option = getopt_long(argc, argv, ":", names, NULL)) != -1) {
		if (option == ':' || option == '?') {
			warnx(option == ':' ? "'%s' needs a value" : "what is '%s'?", argv[optind - 1]);
			return -EINVAL;
		}
		if (set_option(options, option)) {
			warnx("--%s: '%s' is not a number that makes sense here", names[option].name, optarg);
			return -EINVAL;
		}
		given |= TAKES(option);
	}
	if (optind < argc) {
		warnx("what is '%s'?", argv[optind]);
		return -EINVAL;
	}
	if (!options->width != !options->height) {
		warnx("--width and --height go together");
		return -EINVAL;
	}
	return check_options(command, given);
}

static uint64_t round_to_pages(uint64_t size)
{
	return (size + page_size - 1) / page_size * page_size;
}

static int info(const struct options *options)
{
	static const struct {
		const char *name;
		uint64_t parameter;
	} features[] = {
		{ "3d_features", VIRTGPU_PARAM_3D_FEATURES },
		{ "resource_blob", VIRTGPU_PARAM_RESOURCE_BLOB },
		{ "host_visible", VIRTGPU_PARAM_HOST_VISIBLE },
		{ "cross_device", VIRTGPU_PARAM_CROSS_DEVICE },
		{ "context_init", VIRTGPU_PARAM_CONTEXT_INIT },
		{ "capset_ids", VIRTGPU_PARAM_SUPPORTED_CAPSET_IDs },
	};
	char path[256], window_path[256];
	int node = blob_open_node(options->node, path, sizeof(path));
	uint64_t window;

	if (node < 0)
		return 1;
	/* Without the feature the BAR is something else. */
	window = blob_parameter(node, VIRTGPU_PARAM_HOST_VISIBLE) ?
			 blob_window(node, window_path, sizeof(window_path)) : 0;
	printf(options->json ? "{\"node\":\"%s\",\"window\":%" PRIu64 : "node           %s\nwindow         %" PRIu64
	       " bytes\n", path, window);
	for (unsigned int i = 0; i < sizeof(features) / sizeof(features[0]); i++)
		printf(options->json ? ",\"%s\":%d" : "%-14s 0x%x\n", features[i].name,
		       blob_parameter(node, features[i].parameter));
	if (options->json)
		puts("}");
	close(node);
	return 0;
}

static int write_picture(const char *path, const uint8_t *pixels, uint32_t width, uint32_t height)
{
	FILE *file = fopen(path, "wbe");

	if (!file || picture_write(file, pixels, width, height, width * 4) || fclose(file)) {
		warn("%s", path);
		return 1;
	}
	return 0;
}

static int paint_reference(const struct options *options, uint32_t width, uint32_t height)
{
	uint8_t *pixels = calloc(height, (size_t)width * 4);
	int result;

	if (!pixels) {
		warnx("out of memory");
		return 1;
	}
	picture_draw(pixels, width, height, width * 4);
	result = options->output ? write_picture(options->output, pixels, width, height) : 0;
	free(pixels);
	return result;
}

static void wait_for_line(void)
{
	char byte;

	while (read(STDIN_FILENO, &byte, 1) > 0 && byte != '\n')
		;
}

static int paint(const struct options *options)
{
	uint32_t width = options->width ? options->width : 1280;
	uint32_t height = options->height ? options->height : 800;
	struct screen screen;
	struct blob blob;
	char path[256];
	int node, result = 0;

	if (options->reference)
		return paint_reference(options, width, height);
	node = blob_open_node(options->node, path, sizeof(path));
	if (node < 0)
		return 1;
	if (options->screen) {
		if (screen_find(node, options->width, options->height, &screen))
			return 1;
		width = screen.mode.hdisplay;
		height = screen.mode.vdisplay;
	}
	if (blob_create(node, round_to_pages((uint64_t)width * height * 4), &blob))
		return 1;
	picture_draw(blob.data, width, height, width * 4);
	if (options->output)
		result = write_picture(options->output, blob.data, width, height);
	if (!result && options->screen)
		result = screen_show(&screen, &blob, width * 4) ? 1 : 0;
	if (!result && options->json)
		printf("{\"width\":%u,\"height\":%u,\"pages\":%" PRIu64 ",\"screen\":%s}\n", width, height,
		       blob.size / page_size, options->screen ? "true" : "false");
	else if (!result)
		printf("painted %ux%u, %" PRIu64 " pages%s\n", width, height, blob.size / page_size,
		       options->screen ? ", on the screen" : "");
	fflush(stdout);
	if (!result && options->hold)
		wait_for_line();
	blob_destroy(&blob);
	close(node);
	return result;
}

/* The value for one word of one page; no two pages of a run share it. */
static uint64_t pattern(uint64_t blob, uint64_t page, uint64_t word)
{
	return (blob << 48 ^ page << 16 ^ word) * 0x9e3779b97f4a7c15u + 1;
}

static uint64_t count_good_pages(struct blob *blob, uint64_t number)
{
	volatile uint64_t *words = (volatile uint64_t *)blob->data;
	uint64_t pages = blob->size / page_size, per_page = page_size / 8, good = 0;

	for (uint64_t page = 0; page < pages; page++) {
		for (uint64_t word = 0; word < per_page; word++)
			words[page * per_page + word] = pattern(number, page, word);
	}
	for (uint64_t page = 0; page < pages; page++) {
		uint64_t right = 0;

		for (uint64_t word = 0; word < per_page; word++)
			right += words[page * per_page + word] == pattern(number, page, word);
		good += right == per_page;
	}
	return good;
}

static bool is_zero(const struct blob *blob)
{
	for (uint64_t byte = 0; byte < blob->size; byte++) {
		if (blob->data[byte])
			return false;
	}
	return true;
}

static int check(const struct options *options)
{
	uint64_t size = round_to_pages(options->size ? options->size : 4u << 20);
	uint64_t count = options->count ? options->count : 1, pages = 0, good = 0, dirty = 0;
	char path[256];
	int node = blob_open_node(options->node, path, sizeof(path));

	if (node < 0)
		return 1;
	for (uint64_t i = 0; i < count; i++) {
		struct blob blob;

		if (blob_create(node, size, &blob))
			return 1;
		dirty += !is_zero(&blob);
		pages += size / page_size;
		good += count_good_pages(&blob, i);
		if (options->hold) {
			warnx("holding the blob");
			wait_for_line();
			pages += size / page_size;
			good += count_good_pages(&blob, i);
		}
		blob_destroy(&blob);
	}
	close(node);
	if (options->json)
		printf("{\"pages\":%" PRIu64 ",\"good\":%" PRIu64 ",\"blobs_not_zero\":%" PRIu64 "}\n", pages, good, dirty);
	else
		printf("%" PRIu64 "/%" PRIu64 " pages, %" PRIu64 " blobs that were not zero\n", good, pages, dirty);
	return good == pages && !dirty ? 0 : 1;
}

/* The byte for one place of an image; neighbours in any direction differ. */
static uint8_t image_byte(uint32_t plane, uint32_t row, uint32_t column)
{
	return (uint8_t)(plane * 85 + row * 31 + column * 7 + 1);
}

static void write_image(uint8_t *data, const struct image *image)
{
	for (uint32_t i = 0; i < image->planes; i++) {
		const struct image_plane *plane = &image->plane[i];

		for (uint32_t row = 0; row < plane->rows; row++) {
			for (uint32_t column = 0; column < plane->row_bytes; column++)
				data[plane->offset + (uint64_t)row * plane->stride + column] = image_byte(i, row, column);
		}
	}
}

static uint64_t count_wrong_bytes(const uint8_t *data, const struct image *image)
{
	uint64_t wrong = 0;

	for (uint32_t i = 0; i < image->planes; i++) {
		const struct image_plane *plane = &image->plane[i];

		for (uint32_t row = 0; row < plane->rows; row++) {
			for (uint32_t column = 0; column < plane->row_bytes; column++)
				wrong += data[plane->offset + (uint64_t)row * plane->stride + column] !=
					 image_byte(i, row, column);
		}
	}
	return wrong;
}

/* What another process gets that is handed the image: its dma-buf. */
static int map_export(const struct blob *blob, uint8_t **data)
{
	int fd, error;

	if (drmPrimeHandleToFD(blob->node, blob->handle, DRM_CLOEXEC | DRM_RDWR, &fd)) {
		warn("exporting an image");
		return -1;
	}
	*data = mmap(NULL, blob->size, PROT_READ, MAP_SHARED, fd, 0);
	error = errno;
	close(fd);
	if (*data == MAP_FAILED)
		warnx("mapping an exported image: %s", strerror(error));
	return *data == MAP_FAILED ? -1 : 0;
}

static int image(const struct options *options)
{
	uint32_t width = options->width ? options->width : 1280;
	uint32_t height = options->height ? options->height : 800;
	const char *format = options->format ? options->format : "XRGB8888";
	struct image image;
	struct blob blob;
	char path[256];
	uint64_t wrong;
	uint32_t uses;
	uint8_t *data;
	int node;

	if (image_parse_uses(options->uses ? options->uses : "texturing", &uses))
		return 2;
	node = blob_open_node(options->node, path, sizeof(path));
	if (node < 0 || image_query(node, format, width, height, uses, &image) ||
	    image_create(node, &image, options->guest_handle, &blob) || map_export(&blob, &data))
		return 1;
	write_image(blob.data, &image);
	wrong = count_wrong_bytes(data, &image);
	munmap(data, image.size);
	printf(options->json ? "{\"format\":\"%s\",\"width\":%u,\"height\":%u,\"size\":%" PRIu64 ",\"wrong\":%" PRIu64
			       ",\"planes\":[" :
			       "%s %ux%u: %" PRIu64 " bytes, %" PRIu64 " wrong",
	       format, width, height, image.size, wrong);
	for (uint32_t i = 0; i < image.planes; i++) {
		if (options->json && i)
			putchar(',');
		printf(options->json ? "{\"stride\":%u,\"offset\":%u}" : "; stride %u, offset %u",
		       image.plane[i].stride, image.plane[i].offset);
	}
	puts(options->json ? "]}" : "");
	fflush(stdout);
	if (options->hold)
		wait_for_line();
	blob_destroy(&blob);
	close(node);
	return wrong ? 1 : 0;
}

static void show_progress(uint64_t done, uint64_t all)
{
	if (isatty(STDERR_FILENO) && done % 100 == 0)
		fprintf(stderr, "\r%" PRIu64 " of %" PRIu64, done, all);
}

static int make_and_touch(int node, uint64_t size, struct blob *blob)
{
	int result = blob_create(node, size, blob);

	if (!result) {
		blob->data[0] = 1;
		blob->data[size - 1] = 1;
	}
	return result;
}

static uint64_t microseconds(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * 1000000 + (uint64_t)time.tv_nsec / 1000;
}

static int compare_times(const void *a, const void *b)
{
	uint64_t first = *(const uint64_t *)a, second = *(const uint64_t *)b;

	return (first > second) - (first < second);
}

static int stress(const struct options *options)
{
	uint64_t size = round_to_pages(options->size ? options->size : 64u << 10);
	uint64_t count = options->count ? options->count : 1000;
	struct blob *live;
	uint64_t samples, *times;
	char path[256];
	int node, result = 0;

	live = calloc(options->live + 1, sizeof(*live));
	/* Of the last ones, if there are more. */
	samples = count < MAX_SAMPLES ? count : MAX_SAMPLES;
	times = calloc(samples, sizeof(*times));
	if (!live || !times) {
		warnx("out of memory");
		free(live);
		free(times);
		return 1;
	}
	node = blob_open_node(options->node, path, sizeof(path));
	result = node < 0;
	for (uint64_t i = 0; i < options->live && !result; i++) {
		result = make_and_touch(node, size, &live[i]);
		show_progress(i, options->live);
	}
	for (uint64_t i = 0; i < count && !result; i++) {
		uint64_t start = microseconds();
		struct blob blob;

		result = make_and_touch(node, size, &blob);
		if (!result)
			blob_destroy(&blob);
		times[i % samples] = microseconds() - start;
		show_progress(i, count);
	}
	if (!result) {
		qsort(times, samples, sizeof(*times), compare_times);
		printf(options->json ?
			       "{\"blobs\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"p50_us\":%" PRIu64 ",\"p99_us\":%" PRIu64 "}\n" :
			       "%" PRIu64 " blobs of %" PRIu64 " bytes made and freed, in %" PRIu64 " us (p50) and %" PRIu64
			       " us (p99) each\n", count, size, times[(samples - 1) / 2], times[(samples - 1) * 99 / 100]);
	}
	/* All that is left is freed with it. */
	if (node >= 0)
		close(node);
	free(live);
	free(times);
	return result ? 1 : 0;
}

int main(int argc, char **argv)
{
	static const struct command commands[] = {
		{ "info", info, TAKES(NODE) | TAKES(JSON), 0, 0 },
		{ "paint", paint,
		  TAKES(NODE) | TAKES(WIDTH) | TAKES(HEIGHT) | TAKES(OUTPUT) | TAKES(SCREEN) | TAKES(HOLD) | TAKES(JSON),
		  TAKES(REFERENCE), TAKES(WIDTH) | TAKES(HEIGHT) | TAKES(OUTPUT) },
		{ "check", check, TAKES(NODE) | TAKES(SIZE) | TAKES(COUNT) | TAKES(HOLD) | TAKES(JSON), 0, 0 },
		{ "image", image,
		  TAKES(NODE) | TAKES(FORMAT) | TAKES(WIDTH) | TAKES(HEIGHT) | TAKES(USE) | TAKES(NO_GUEST_HANDLE) | TAKES(HOLD) |
		  TAKES(JSON), 0, 0 },
		{ "stress", stress, TAKES(NODE) | TAKES(SIZE) | TAKES(COUNT) | TAKES(LIVE) | TAKES(JSON), 0, 0 },
	};
	struct options options = { .guest_handle = true };

	page_size = (uint64_t)sysconf(_SC_PAGESIZE);
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
			help(stdout);
			return 0;
		}
		if (!strcmp(argv[i], "--version")) {
			puts("guestblob " VERSION);
			return 0;
		}
	}
	for (unsigned int i = 0; argc > 1 && i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (strcmp(argv[1], commands[i].name))
			continue;
		if (parse(argc - 1, argv + 1, &commands[i], &options)) {
			warnx("see guestblob --help");
			return 2;
		}
		return commands[i].run(&options);
	}
	if (argc > 1)
		warnx("there is no command '%s'", argv[1]);
	help(stderr);
	return 2;
}

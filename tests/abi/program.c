// SPDX-License-Identifier: MIT
/*
 * A small VMM, built against the installed library: maps a blob, and says nothing if all
 * is well. Its argument is the version that pkg-config has.
 */
#include <hostblob.h>

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WINDOW (1u << 20)

/* Members stay where they are: programs that were built with 0.2 know them there. */
#define LAST(type, member, offset) \
	_Static_assert(offsetof(struct type, member) == (offset), #type " has changed")
LAST(hostblob_buffer, caching, 16);
LAST(hostblob_allocator_ops, destroy, 24);
LAST(hostblob_window_config, opaque, 24);
LAST(hostblob_guest, opaque, 8);
LAST(hostblob_capset, size, 8);
LAST(hostblob_cross_domain, supports_external_gpu_memory, 12);
LAST(hostblob_limits, blob_bytes, 56);
LAST(hostblob_config, log_opaque, 96);
LAST(hostblob_blob_info, lost, 64);
LAST(hostblob_usage, attachments, 32);

static void end(void *opaque)
{
	(void)opaque;
	abort();
}

static int check(int result, const char *what)
{
	if (result)
		printf("%s: %s\n", what, strerror(-result));
	return result;
}

/*
 * The largest that QEMU's hostmem can be for most guests. Not in a unit test: ASan would
 * write to all of its own memory for it. A process may have 65530 mappings.
 */
static int make_a_large_window(void)
{
	const struct hostblob_window_config config = {
		.struct_size = sizeof(config), .size = 1ull << 40, .fatal = end,
	};
	unsigned int mappings = 0;
	struct hostblob_window *window;
	FILE *maps;
	int character;

	if (check(hostblob_window_create(&config, &window), "window of 1 TiB"))
		return 1;
	maps = fopen("/proc/self/maps", "r");
	while (maps && (character = getc(maps)) != EOF)
		mappings += character == '\n';
	if (maps)
		fclose(maps);
	hostblob_window_destroy(window);
	if (mappings < 4096 || mappings > 4096 + 100)
		printf("a window of 1 TiB takes %u mappings\n", mappings);
	return 0;
}

static int map_a_blob(struct hostblob_device *device, struct hostblob_window *window)
{
	struct hostblob_usage usage;
	unsigned char *base = hostblob_window_base(window);
	uint32_t map_info;

	if (check(hostblob_context_create(device, 1, 0), "context") ||
	    check(hostblob_blob_create(device, 1, 1, 1, 0, 8192), "create") ||
	    check(hostblob_blob_map(device, 1, 4096, &map_info), "map"))
		return 1;
	base[4096] = 1;
	hostblob_device_usage(device, &usage, sizeof(usage));
	return usage.mapped_bytes != 8192 || map_info != HOSTBLOB_CACHED;
}

int main(int argc, char **argv)
{
	const struct hostblob_window_config window_config = {
		.struct_size = sizeof(window_config), .size = WINDOW, .fatal = end,
	};
	struct hostblob_config config = { .struct_size = sizeof(config), .window_size = WINDOW };
	struct hostblob_window *window;
	struct hostblob_device *device;
	char version[32], error[128];
	int result;

	snprintf(version, sizeof(version), "%d.%d.%d", HOSTBLOB_VERSION_MAJOR, HOSTBLOB_VERSION_MINOR,
		 HOSTBLOB_VERSION_MICRO);
	if (argc < 2 || strcmp(argv[1], version) || hostblob_version() != HOSTBLOB_VERSION) {
		printf("pkg-config has %s, the header %s, the library %#x\n", argv[1], version, hostblob_version());
		return 1;
	}
	if (check(hostblob_window_create(&window_config, &window), "window") ||
	    check(hostblob_allocator_open("memfd", -1, &config.allocator, error, sizeof(error)), "allocator"))
		return 1;
	config.mapper = hostblob_window_mapper(window);
	if (check(hostblob_device_create(&config, &device), "device"))
		return 1;
	result = map_a_blob(device, window) || make_a_large_window();
	hostblob_device_destroy(device);
	hostblob_window_destroy(window);
	hostblob_allocator_close(config.allocator);
	return result;
}

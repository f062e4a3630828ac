// SPDX-License-Identifier: MIT
#include "window.h"
#include "blob.h"

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int window_map(int node, struct window *window)
{
	char path[256];
	void *words = MAP_FAILED;
	int bar, error;

	window->size = blob_window(node, path, sizeof(path));
	if (!window->size) {
		warnx("sysfs does not tell where the window is");
		return -ENODEV;
	}
	bar = open(path, O_RDWR | O_CLOEXEC);
	if (bar >= 0)
		words = mmap(NULL, window->size, PROT_READ | PROT_WRITE, MAP_SHARED, bar, 0);
	error = errno;
	if (bar >= 0)
		close(bar);
	if (words == MAP_FAILED) {
		warnx("cannot map the window (%s): run this as root, on a kernel with iomem=relaxed", strerror(error));
		return -error;
	}
	window->words = words;
	return 0;
}

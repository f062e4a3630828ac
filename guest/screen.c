// SPDX-License-Identifier: MIT
/* Needs the node to be a card's primary node, and nobody else to be its master. */
#include "screen.h"

#include <drm_fourcc.h>
#include <err.h>
#include <errno.h>

static int failed(const char *what)
{
	int error = errno;

	warn("%s", what);
	return -error;
}

static int choose_mode(const drmModeConnector *connector, uint32_t width, uint32_t height,
		       drmModeModeInfo *mode)
{
	for (int i = 0; i < connector->count_modes; i++) {
		const drmModeModeInfo *candidate = &connector->modes[i];

		if (width ? candidate->hdisplay == width && candidate->vdisplay == height :
			    i == 0 || candidate->type & DRM_MODE_TYPE_PREFERRED) {
			*mode = *candidate;
			if (width || candidate->type & DRM_MODE_TYPE_PREFERRED)
				return 0;
		}
	}
	return !width && connector->count_modes ? 0 : -ENOENT;
}

static uint32_t choose_crtc(int node, const drmModeRes *resources, const drmModeConnector *connector)
{
	for (int i = 0; i < connector->count_encoders; i++) {
		drmModeEncoder *encoder = drmModeGetEncoder(node, connector->encoders[i]);
		uint32_t possible = encoder ? encoder->possible_crtcs : 0;

		drmModeFreeEncoder(encoder);
		for (int crtc = 0; crtc < resources->count_crtcs; crtc++) {
			if (possible & (1u << crtc))
				return resources->crtcs[crtc];
		}
	}
	return 0;
}

int screen_find(int node, uint32_t width, uint32_t height, struct screen *screen)
{
	drmModeRes *resources = drmModeGetResources(node);
	int result = -ENODEV;

	if (!resources)
		return failed("this node has no screens (use a card node)");
	for (int i = 0; i < resources->count_connectors && result; i++) {
		drmModeConnector *connector = drmModeGetConnector(node, resources->connectors[i]);

		if (connector && connector->connection == DRM_MODE_CONNECTED) {
			result = choose_mode(connector, width, height, &screen->mode);
			screen->connector = connector->connector_id;
			screen->crtc = choose_crtc(node, resources, connector);
		}
		drmModeFreeConnector(connector);
	}
	drmModeFreeResources(resources);
	if (result == -ENOENT && width)
		warnx("the screen has no mode of %ux%u: without --width and --height its own is taken", width, height);
	else if (result)
		warnx("no screen is connected that has a mode");
	return result;
}

int screen_show(const struct screen *screen, const struct blob *blob, uint32_t stride)
{
	uint32_t handles[4] = { blob->handle }, pitches[4] = { stride }, offsets[4] = { 0 };
	uint32_t connector = screen->connector, framebuffer;
	drmModeModeInfo mode = screen->mode;

	if (drmModeAddFB2(blob->node, mode.hdisplay, mode.vdisplay, DRM_FORMAT_XRGB8888, handles, pitches,
			  offsets, &framebuffer, 0))
		return failed("making a framebuffer of the blob");
	if (drmModeSetCrtc(blob->node, screen->crtc, framebuffer, 0, 0, &connector, 1, &mode))
		return failed("putting the framebuffer on the screen, which must be nobody else's");
	/* The device reads the blob when it is told that it changed. */
	return drmModeDirtyFB(blob->node, framebuffer, NULL, 0) ? failed("updating the screen") : 0;
}

// SPDX-License-Identifier: MIT
/*
 * Colour bars over a gradient that differs in every line, a ring, and a word.
 * Integers only, so that there is nothing to round.
 */
#include "picture.h"

#include <string.h>

/* 5 columns and 7 rows a letter, top row first, leftmost column in bit 4. */
static const struct {
	char letter;
	uint8_t rows[7];
} font[] = {
	{ 'B', { 0x1e, 0x11, 0x11, 0x1e, 0x11, 0x11, 0x1e } },
	{ 'H', { 0x11, 0x11, 0x11, 0x1f, 0x11, 0x11, 0x11 } },
	{ 'L', { 0x10, 0x10, 0x10, 0x10, 0x10, 0x10, 0x1f } },
	{ 'O', { 0x0e, 0x11, 0x11, 0x11, 0x11, 0x11, 0x0e } },
	{ 'S', { 0x0f, 0x10, 0x10, 0x0e, 0x01, 0x01, 0x1e } },
	{ 'T', { 0x1f, 0x04, 0x04, 0x04, 0x04, 0x04, 0x04 } },
};

static const char word[] = "HOSTBLOB";

#define LETTER_COLUMNS 6 /* with the gap */
#define WORD_COLUMNS ((int)(sizeof(word) - 1) * LETTER_COLUMNS)

static int letter_has(char letter, int column, int row)
{
	for (unsigned int i = 0; i < sizeof(font) / sizeof(font[0]); i++) {
		if (font[i].letter == letter)
			return column < 5 && (font[i].rows[row] >> (4 - column) & 1);
	}
	return 0;
}

/* Whether the word, centred, three quarters of the width wide, has this pixel. */
static int word_has(int64_t x, int64_t y, int64_t width, int64_t height)
{
	int64_t block = width * 3 / 4 / WORD_COLUMNS;

	if (!block)
		return 0;
	x -= (width - block * WORD_COLUMNS) / 2;
	y -= (height - block * 7) / 2;
	if (x < 0 || y < 0 || x >= block * WORD_COLUMNS || y >= block * 7)
		return 0;
	int column = (int)(x / block);

	return letter_has(word[column / LETTER_COLUMNS], column % LETTER_COLUMNS, (int)(y / block));
}

static uint32_t pixel(int64_t x, int64_t y, int64_t width, int64_t height)
{
	static const uint32_t bars[] = { 0xc0c0c0, 0xc0c000, 0x00c0c0, 0x00c000, 0xc000c0, 0xc00000, 0x0000c0 };
	int64_t dx = 2 * x - width, dy = 2 * y - height;
	int64_t distance = dx * dx + dy * dy, outer = height * 9 / 10, inner = height * 8 / 10;

	if (word_has(x, y, width, height))
		return 0xffffff;
	if (distance <= outer * outer && distance >= inner * inner)
		return 0xff8000;
	/* Place and line are in the low bits, too, so that no two pages look the same. */
	if (y < height / 6)
		return bars[x * 7 / width] |
		       (uint32_t)((x * 63 / width) << 16 | (y >> 6 & 0x3f) << 8 | (y & 0x3f));
	return (uint32_t)((x * 255 / width) << 16 | (y >> 8 & 0xff) << 8 | (y & 0xff));
}

void picture_draw(uint8_t *pixels, uint32_t width, uint32_t height, uint32_t stride)
{
	for (uint32_t y = 0; y < height; y++) {
		for (uint32_t x = 0; x < width; x++) {
			uint32_t value = pixel(x, y, width, height);

			memcpy(pixels + (uint64_t)y * stride + x * 4, &value, sizeof(value));
		}
	}
}

int picture_write(FILE *file, const uint8_t *pixels, uint32_t width, uint32_t height, uint32_t stride)
{
	fprintf(file, "P6\n%u %u\n255\n", width, height);
	for (uint32_t y = 0; y < height; y++) {
		for (uint32_t x = 0; x < width; x++) {
			uint32_t value;

			memcpy(&value, pixels + (uint64_t)y * stride + x * 4, sizeof(value));
			putc((int)(value >> 16 & 0xff), file);
			putc((int)(value >> 8 & 0xff), file);
			putc((int)(value & 0xff), file);
		}
	}
	return fflush(file) || ferror(file) ? -1 : 0;
}

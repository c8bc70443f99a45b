/*
 * What clients write. Every 512-byte sector says of which volume, which sector and which write it
 * is. So whatever comes back names its origin: old, new, torn, foreign or invented.
 */
#ifndef VP_TESTS_SIM_STAMP_H
#define VP_TESTS_SIM_STAMP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { STAMP_SECTOR = 512, STAMP_BLOCK = 4096, STAMP_BLOCK_SECTORS = 8 };

/* A write's number; 0 is "zeros". */
#define STAMP_ZERO    0U
#define STAMP_GARBAGE UINT32_MAX /* nobody wrote this, or somebody else did */

/* Fills one sector. */
void stamp_fill(uint64_t seed, uint32_t volume, uint64_t sector, uint32_t seq, void *out);
/* The write's number when the sector is whole and belongs here. */
uint32_t stamp_read(uint64_t seed, uint32_t volume, uint64_t sector, const void *in);
/* Whether it is a sector of some volume; *sector is its place there, *seq its write. */
bool stamp_find(const void *in, uint64_t *sector, uint32_t *seq);
/* Says what a sector holds, for a report. */
void stamp_describe(const void *in, char *out, size_t size);

#endif

/*
 * Which blocks of a volume have changed since they were copied: a bit for each block of 4 KiB.
 *
 * The volume is divided into regions of 128 MiB. A region in which nothing is dirty costs four
 * bytes. A region with dirty blocks has a leaf, a bit for each of its blocks, while there are
 * leaves. When all leaves are in use, a mark makes a region *coarse*: all of its blocks are dirty.
 * So memory is bounded, and a mark never fails and never allocates.
 *
 * One reactor; nothing here yields. Tested by tests/unit/migrate/test_dirty.c.
 */
#ifndef VP_MIGRATE_DIRTY_H
#define VP_MIGRATE_DIRTY_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

#define DIRTY_LEAF_BLOCKS 32768U
#define DIRTY_LEAVES_MAX  16384U /* 64 MiB of bits, for 2 TiB in which every region is dirty */

struct dirty_leaf;

struct dirty {
    uint64_t blocks; /* of the volume */
    uint64_t count;  /* that are dirty; all of a coarse region */
    uint64_t regions;
    uint64_t *summary;       /* a bit for each region: something in it is dirty */
    uint32_t *leaf_of;       /* by region: its leaf + 1; 0 with the bit of the summary: coarse */
    struct dirty_leaf *leaf; /* a page each; touched when first used */
    uint32_t *leaf_count;    /* by leaf: dirty blocks */
    uint32_t *unused;        /* a stack of leaves     */
    uint32_t unused_count, leaf_max;
    uint64_t open_at, open_end; /* what is left of a coarse region that is being taken */
};

/* For a volume of `blocks`; nothing is dirty. At most `leaf_max` leaves. VP_E_NO_MEMORY. */
int dirty_init(struct dirty *d, uint64_t blocks, uint32_t leaf_max) must_check;
/* Also of one that was never initialised, but is all zeros. */
void dirty_fini(struct dirty *d);

/* [block, block + count) are dirty. */
void dirty_mark(struct dirty *d, uint64_t block, uint64_t count);
/* They are not any more. Blocks of a coarse region stay dirty. */
void dirty_clear(struct dirty *d, uint64_t block, uint64_t count);
/* The length of the run from `block` on, at most `max`, that is all dirty, or all not. */
uint64_t dirty_run(const struct dirty *d, uint64_t block, uint64_t max, bool *is_dirty);

/* Whether it is dirty; also during a pass. */
bool dirty_has(const struct dirty *d, uint64_t block);

/* A pass begins, with a cursor of 0. What a pass that did not come to its end has left of a coarse
 * region is dirty again. */
void dirty_pass_begin(struct dirty *d);
/*
 * Takes the next run of dirty blocks that lies at *cursor or after it: they are not dirty any more,
 * and *cursor is behind them. Returns its length, at most `max`, and its first block; 0: there is
 * none. A region that became coarse behind *cursor waits for the next pass.
 */
uint64_t dirty_take(struct dirty *d, uint64_t *cursor, uint64_t max, uint64_t *block);

#endif

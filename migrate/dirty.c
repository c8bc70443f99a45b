/*
 * The map of dirty blocks (dirty.h).
 *
 * 1. The bit of the summary is set when something in the region is dirty. Then the region has a
 *    leaf, whose count is not 0, or it is coarse.
 * 2. `count` is the sum over leaves, coarse regions (all their blocks), and what is open.
 * 3. A coarse region is taken as a whole: what is left of it is `open`, and the region is clean at
 *    once. A mark meanwhile makes it dirty anew, in a leaf if there is one by then.
 */
#include "migrate/dirty.h"

#include "base/bitmap.h"
#include "base/bytes.h"
#include "base/verify.h"

#include <stdlib.h>
#include <string.h>

struct dirty_leaf {
    uint64_t bits[DIRTY_LEAF_BLOCKS / 64];
};

int dirty_init(struct dirty *d, uint64_t blocks, uint32_t leaf_max)
{
    *d = (struct dirty){.blocks = blocks, .regions = div_up(blocks, DIRTY_LEAF_BLOCKS)};
    d->leaf_max = (uint32_t)min_u64(d->regions, leaf_max);
    d->summary = calloc(bitmap_words(d->regions) + 1, sizeof(d->summary[0]));
    d->leaf_of = calloc(d->regions + 1, sizeof(d->leaf_of[0]));
    d->leaf = calloc(d->leaf_max + 1, sizeof(d->leaf[0]));
    d->leaf_count = calloc(d->leaf_max + 1, sizeof(d->leaf_count[0]));
    d->unused = calloc(d->leaf_max + 1, sizeof(d->unused[0]));
    if (!d->summary || !d->leaf_of || !d->leaf || !d->leaf_count || !d->unused) {
        dirty_fini(d);
        return VP_E_NO_MEMORY;
    }
    while (d->unused_count < d->leaf_max) {
        d->unused[d->unused_count] = d->leaf_max - 1 - d->unused_count;
        d->unused_count++;
    }
    return 0;
}

void dirty_fini(struct dirty *d)
{
    free(d->summary);
    free(d->leaf_of);
    free(d->leaf);
    free(d->leaf_count);
    free(d->unused);
    *d = (struct dirty){0};
}

/* ---- regions ------------------------------------------------------------------------------ */

/* A run of blocks in one region. */
struct part {
    uint64_t region, first, count;
};

static struct part part_of(uint64_t block, uint64_t count)
{
    struct part p = {.region = block / DIRTY_LEAF_BLOCKS, .first = block % DIRTY_LEAF_BLOCKS};
    p.count = min_u64(count, DIRTY_LEAF_BLOCKS - p.first);
    return p;
}

static uint64_t region_blocks(const struct dirty *d, uint64_t region)
{
    return min_u64(DIRTY_LEAF_BLOCKS, d->blocks - region * DIRTY_LEAF_BLOCKS);
}

static bool region_is_dirty(const struct dirty *d, uint64_t region)
{
    return bitmap_test(d->summary, region);
}

static bool region_is_coarse(const struct dirty *d, uint64_t region)
{
    return region_is_dirty(d, region) && !d->leaf_of[region];
}

/* The region has something dirty from now on. */
static void region_enter(struct dirty *d, uint64_t region)
{
    bitmap_set(d->summary, region);
    if (!d->unused_count) {
        d->count += region_blocks(d, region);
        return;
    }
    uint32_t leaf = d->unused[--d->unused_count];
    VP_VERIFY(d->leaf_count[leaf], ==, 0U);
    d->leaf_of[region] = leaf + 1;
}

static void region_leave(struct dirty *d, uint64_t region)
{
    uint32_t leaf = d->leaf_of[region];
    bitmap_clear(d->summary, region);
    d->leaf_of[region] = 0;
    if (leaf)
        d->unused[d->unused_count++] = leaf - 1;
}

/* Sets or clears the bits of a region that has a leaf. */
static void leaf_change(struct dirty *d, const struct part *p, bool to)
{
    uint32_t leaf = d->leaf_of[p->region] - 1;
    uint64_t *bits = d->leaf[leaf].bits;
    for (uint64_t at = p->first, end = p->first + p->count; at < end;) {
        uint64_t n = min_u64(64 - at % 64, end - at);
        uint64_t mask = UINT64_MAX >> (64 - n) << at % 64;
        uint64_t change = to ? mask & ~bits[at / 64] : mask & bits[at / 64];
        uint32_t changed = (uint32_t)__builtin_popcountll(change);
        bits[at / 64] ^= change;
        d->leaf_count[leaf] += to ? changed : 0U - changed;
        d->count += to ? changed : UINT64_C(0) - changed;
        at += n;
    }
    if (!d->leaf_count[leaf])
        region_leave(d, p->region);
}

void dirty_mark(struct dirty *d, uint64_t block, uint64_t count)
{
    VP_VERIFY(block + count, <=, d->blocks);
    while (count > 0) {
        struct part p = part_of(block, count);
        if (!region_is_dirty(d, p.region))
            region_enter(d, p.region);
        if (!region_is_coarse(d, p.region))
            leaf_change(d, &p, true);
        block += p.count;
        count -= p.count;
    }
}

void dirty_clear(struct dirty *d, uint64_t block, uint64_t count)
{
    VP_VERIFY(block + count, <=, d->blocks);
    while (count > 0) {
        struct part p = part_of(block, count);
        if (region_is_dirty(d, p.region) && !region_is_coarse(d, p.region))
            leaf_change(d, &p, false);
        block += p.count;
        count -= p.count;
    }
}

/* ---- looking and taking ------------------------------------------------------------------- */

static bool is_open(const struct dirty *d, uint64_t block)
{
    return block >= d->open_at && block < d->open_end;
}

uint64_t dirty_run(const struct dirty *d, uint64_t block, uint64_t max, bool *is_dirty)
{
    struct part p = part_of(block, max);
    VP_VERIFY(d->open_at, ==, d->open_end); /* nobody asks during a pass */
    *is_dirty = region_is_dirty(d, p.region);
    if (!*is_dirty || region_is_coarse(d, p.region))
        return p.count;
    const uint64_t *bits = d->leaf[d->leaf_of[p.region] - 1].bits;
    *is_dirty = bitmap_test(bits, p.first);
    return bitmap_find(bits, p.first + p.count, p.first, !*is_dirty) - p.first;
}

bool dirty_has(const struct dirty *d, uint64_t block)
{
    struct part p = part_of(block, 1);
    if (!region_is_dirty(d, p.region) || region_is_coarse(d, p.region))
        return region_is_dirty(d, p.region) || is_open(d, block);
    return bitmap_test(d->leaf[d->leaf_of[p.region] - 1].bits, p.first) || is_open(d, block);
}

void dirty_pass_begin(struct dirty *d)
{
    uint64_t at = d->open_at, left = d->open_end - d->open_at;
    d->open_at = d->open_end = 0;
    d->count -= left;
    if (left)
        dirty_mark(d, at, left);
}

static uint64_t open_take(struct dirty *d, uint64_t max, uint64_t *block)
{
    uint64_t n = min_u64(max, d->open_end - d->open_at);
    *block = d->open_at;
    d->open_at += n;
    d->count -= n;
    return n;
}

/* From `p` on, in a region that has a leaf. 0: there is none. */
static uint64_t leaf_take(struct dirty *d, const struct part *p, uint64_t max, uint64_t *block)
{
    const uint64_t *bits = d->leaf[d->leaf_of[p->region] - 1].bits;
    uint64_t end = p->first + p->count;
    struct part found = {.region = p->region, .first = bitmap_find(bits, end, p->first, true)};
    if (found.first >= end)
        return 0;
    end = min_u64(end, found.first + max);
    found.count = bitmap_find(bits, end, found.first, false) - found.first;
    leaf_change(d, &found, false);
    *block = p->region * DIRTY_LEAF_BLOCKS + found.first;
    return found.count;
}

/* Begins to take a coarse region. */
static void region_open(struct dirty *d, uint64_t region)
{
    d->open_at = region * DIRTY_LEAF_BLOCKS;
    d->open_end = d->open_at + region_blocks(d, region);
    region_leave(d, region);
}

static uint64_t region_take(struct dirty *d, const struct part *p, uint64_t max, uint64_t *block)
{
    if (!region_is_coarse(d, p->region))
        return leaf_take(d, p, max, block);
    if (p->first > 0)
        return 0;
    region_open(d, p->region);
    return open_take(d, max, block);
}

uint64_t dirty_take(struct dirty *d, uint64_t *cursor, uint64_t max, uint64_t *block)
{
    uint64_t n = is_open(d, *cursor) ? open_take(d, max, block) : 0;
    while (!n && *cursor < d->blocks) {
        struct part p = part_of(*cursor, d->blocks - *cursor);
        if (region_is_dirty(d, p.region))
            n = region_take(d, &p, max, block);
        if (!n) { /* to the next region with something in it */
            uint64_t next = bitmap_find(d->summary, d->regions, p.region + 1, true);
            *cursor = min_u64(next * DIRTY_LEAF_BLOCKS, d->blocks);
        }
    }
    if (n)
        *cursor = *block + n;
    return n;
}

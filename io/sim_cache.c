/* The volatile cache of simulated disks: see sim_world_impl.h. */
#include "io/sim_world_impl.h"

#include "base/bytes.h"
#include "base/verify.h"

#include <stdlib.h>
#include <string.h>

/* ---- one write ---------------------------------------------------------------------------- */

static struct sim_write *write_alloc(unsigned pieces)
{
    struct sim_write *x = sim_alloc(sizeof(*x) + pieces * sizeof(x->piece[0]));
    x->refs = 1;
    x->pieces = pieces;
    return x;
}

static uint8_t sector_mask(uint64_t page_no, uint64_t first, uint64_t end)
{
    uint64_t page_first = page_no * SIM_PAGE_SECTORS;
    uint64_t from = max_u64(first, page_first), to = min_u64(end, page_first + SIM_PAGE_SECTORS);
    return (uint8_t)((1U << (to - page_first)) - (1U << (from - page_first)));
}

/* The content of a page that starts at op's byte `at`, which is negative when the page starts
 * before op does. Only the sectors of `mask` are defined. */
static struct sim_page *piece_content(const struct io_op *op, int64_t at, uint8_t mask)
{
    if (op->kind == IO_DISCARD)
        return NULL;
    if (op->kind == IO_ZERO)
        return sim_page_get(sim_page_zero());
    struct sim_page *p = sim_page_new();
    const unsigned char *from = op->buf;
    if (mask == SIM_ALL_SECTORS) {
        memcpy(p->data, from + at, SIM_PAGE_BYTES);
        return p;
    }
    for (unsigned i = 0; i < SIM_PAGE_SECTORS; i++)
        if (mask >> i & 1)
            memcpy(p->data + (size_t)i * SIM_SECTOR_BYTES,
                   from + at + (int64_t)i * SIM_SECTOR_BYTES, SIM_SECTOR_BYTES);
    return p;
}

struct sim_write *sim_write_new(struct sim_disk *d, const struct io_op *op, uint64_t offset)
{
    uint64_t first_page = offset / SIM_PAGE_BYTES;
    uint64_t end_page = div_up(offset + op->len, SIM_PAGE_BYTES);
    struct sim_write *x = write_alloc((unsigned)(end_page - first_page));
    x->unit_sectors = d->config.atomic_bytes / SIM_SECTOR_BYTES;
    x->disk = d->index;
    x->done_seq = 0;
    x->first_sector = offset / SIM_SECTOR_BYTES;
    x->sectors = op->len / SIM_SECTOR_BYTES;
    for (unsigned i = 0; i < x->pieces; i++) {
        struct sim_piece *p = &x->piece[i];
        p->page_no = first_page + i;
        p->mask = sector_mask(p->page_no, x->first_sector, x->first_sector + x->sectors);
        p->page = piece_content(op, (int64_t)(p->page_no * SIM_PAGE_BYTES - offset), p->mask);
    }
    return x;
}

struct sim_write *sim_write_clone(const struct sim_write *w)
{
    struct sim_write *x = write_alloc(w->pieces);
    memcpy(x, w, sizeof(*w) + w->pieces * sizeof(w->piece[0]));
    x->refs = 1;
    for (unsigned i = 0; i < x->pieces; i++)
        sim_page_get(x->piece[i].page);
    return x;
}

void sim_write_put(struct sim_write *w)
{
    if (--w->refs)
        return;
    for (unsigned i = 0; i < w->pieces; i++)
        sim_page_put(w->piece[i].page);
    free(w);
}

unsigned sim_write_units(const struct sim_write *w)
{
    uint64_t first = w->first_sector / w->unit_sectors;
    return (unsigned)(div_up(w->first_sector + w->sectors, w->unit_sectors) - first);
}

/* The sectors of piece `p` that lie in units whose bit is set. */
static uint8_t unit_mask(const struct sim_write *w, const struct sim_piece *p, uint64_t units)
{
    if (units == UINT64_MAX)
        return p->mask;
    uint8_t mask = 0;
    uint64_t first_unit = w->first_sector / w->unit_sectors;
    for (unsigned i = 0; i < SIM_PAGE_SECTORS; i++) {
        uint64_t unit = (p->page_no * SIM_PAGE_SECTORS + i) / w->unit_sectors - first_unit;
        if (p->mask >> i & 1 && units >> unit % 64 & 1)
            mask |= (uint8_t)(1U << i);
    }
    return mask;
}

void sim_write_apply(const struct sim_write *w, uint64_t units, struct sim_image *img)
{
    for (unsigned i = 0; i < w->pieces; i++)
        sim_image_store(img, w->piece[i].page_no, unit_mask(w, &w->piece[i], units),
                        w->piece[i].page);
}

/* ---- the list of pending writes ----------------------------------------------------------- */

void sim_pending_add(struct sim_pending *p, struct sim_write *w)
{
    p->write = sim_grow(p->write, &p->capacity, p->count + 1, sizeof(struct sim_write *));
    p->write[p->count++] = w;
}

void sim_pending_fini(struct sim_pending *p)
{
    for (unsigned i = 0; i < p->count; i++)
        sim_write_put(p->write[i]);
    free(p->write);
}

void sim_pending_filter(struct sim_world *w, const struct sim_disk *d,
                        bool (*gone)(struct sim_disk *d, struct sim_write *x, void *arg), void *arg)
{
    struct sim_pending *p = &w->pending;
    unsigned kept = 0;
    for (unsigned i = 0; i < p->count; i++) {
        struct sim_write *x = p->write[i];
        if (x->disk == d->index && gone(w->disk[x->disk], x, arg))
            sim_write_put(x);
        else
            p->write[kept++] = x;
    }
    p->count = kept;
}

/* ---- what happens to them ----------------------------------------------------------------- */

static bool is_same(struct sim_disk *d, struct sim_write *x, void *arg)
{
    (void)d;
    return x == arg;
}

/* Makes *at a write that nobody shares, so that its pieces may change. */
static struct sim_write *write_own(struct sim_write **at)
{
    struct sim_write *x = *at;
    if (x->refs > 1) {
        x->refs--;
        *at = sim_write_clone(x);
    }
    return *at;
}

/* Takes sectors out of the completed writes of a disk, except `newer`: what is there now is newer
 * and durable, and what still waits in the cache must not come over it later. */
static void supersede(struct sim_disk *d, uint64_t first, uint64_t end,
                      const struct sim_write *newer)
{
    struct sim_pending *p = &d->world->pending;
    for (unsigned i = 0; i < p->count; i++) {
        struct sim_write *x = p->write[i];
        if (x == newer || !x->done_seq || x->disk != d->index || x->first_sector >= end ||
            first >= x->first_sector + x->sectors)
            continue;
        x = write_own(&p->write[i]);
        for (unsigned k = 0; k < x->pieces; k++) {
            struct sim_piece *piece = &x->piece[k];
            uint64_t page_first = piece->page_no * SIM_PAGE_SECTORS;
            if (page_first < end && first < page_first + SIM_PAGE_SECTORS)
                piece->mask &= (uint8_t)~sector_mask(piece->page_no, first, end);
        }
    }
}

void sim_cache_settle(struct sim_disk *d, uint64_t page_no)
{
    uint64_t first = page_no * SIM_PAGE_SECTORS;
    supersede(d, first, first + SIM_PAGE_SECTORS, NULL);
}

/* Evicts the oldest completed write of any disk. */
static void evict_one(struct sim_world *w)
{
    for (unsigned i = 0; i < w->pending.count; i++) {
        struct sim_write *x = w->pending.write[i];
        if (!x->done_seq)
            continue;
        struct sim_disk *d = w->disk[x->disk];
        sim_write_apply(x, UINT64_MAX, &d->durable);
        sim_pending_filter(w, d, is_same, x);
        return;
    }
}

/* Only some units of a failed write reached the cache. */
static void narrow(struct sim_world *w, const struct sim_write *x, uint64_t units)
{
    unsigned at = 0;
    while (w->pending.write[at] != x)
        at++;
    struct sim_write *own = write_own(&w->pending.write[at]);
    for (unsigned i = 0; i < own->pieces; i++)
        own->piece[i].mask = unit_mask(own, &own->piece[i], units);
}

void sim_cache_write_done(struct sim_disk *d, struct sim_write *x, uint64_t units, bool through)
{
    struct sim_world *w = d->world;
    x->done_seq = ++w->done_seq;
    sim_write_apply(x, units, &d->view);
    if (through) {
        sim_write_apply(x, units, &d->durable);
        supersede(d, x->first_sector, x->first_sector + x->sectors, x);
        sim_pending_filter(w, d, is_same, x);
    } else if (units != UINT64_MAX) {
        narrow(w, x, units);
    }
    if (w->pending.count > SIM_PENDING_MAX)
        evict_one(w);
}

static bool is_covered(const struct sim_write *x, uint64_t covers_seq)
{
    return x->done_seq && x->done_seq <= covers_seq;
}

static bool flush_one(struct sim_disk *d, struct sim_write *x, void *covers_seq)
{
    if (!is_covered(x, *(uint64_t *)covers_seq))
        return false;
    sim_write_apply(x, UINT64_MAX, &d->durable);
    return true;
}

void sim_cache_flush(struct sim_disk *d, uint64_t covers_seq)
{
    sim_pending_filter(d->world, d, flush_one, &covers_seq);
}

static bool lose_one(struct sim_disk *d, struct sim_write *x, void *covers_seq)
{
    return is_covered(x, *(uint64_t *)covers_seq) && sim_below(d->world, 2);
}

void sim_cache_flush_failed(struct sim_disk *d, uint64_t covers_seq)
{
    sim_pending_filter(d->world, d, lose_one, &covers_seq);
}

enum survival { NOTHING_SURVIVES, ALL_SURVIVES, SOME_SURVIVES };

static bool dies(struct sim_disk *d, struct sim_write *x, void *survival)
{
    if (!x->done_seq)
        return false; /* its completion deals with it */
    switch (*(enum survival *)survival) {
    case NOTHING_SURVIVES:
        return true;
    case ALL_SURVIVES:
        return false;
    default:
        return sim_below(d->world, 2);
    }
}

void sim_cache_return(struct sim_disk *d)
{
    enum survival survival = (enum survival)sim_below(d->world, 3);
    sim_pending_filter(d->world, d, dies, &survival);
    sim_image_fini(&d->view);
    d->view = sim_image_share(&d->durable);
    const struct sim_pending *p = &d->world->pending;
    for (unsigned i = 0; i < p->count; i++)
        if (p->write[i]->disk == d->index && p->write[i]->done_seq)
            sim_write_apply(p->write[i], UINT64_MAX, &d->view);
}

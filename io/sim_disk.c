/*
 * A simulated disk as a device. sim_world_impl.h has the states of a write.
 *
 * Two things end the program at once, because no promise could be kept on a real disk after them.
 * One is two writes (or discards, zeroes) in flight at the same sectors, unless they write the same
 * bytes (two readers that heal). The other is a transfer that is not aligned. A read during a write
 * of the same sectors gets each atomic unit old or new.
 */
#include "io/sim_world_impl.h"

#include "base/bytes.h"
#include "base/log.h"
#include "base/verify.h"

#include <stdlib.h>
#include <string.h>

/* ---- faults ------------------------------------------------------------------------------- */

void sim_disk_inject(struct sim_disk *d, enum sim_fault fault, unsigned kind_mask, uint64_t nth,
                     uint64_t arg)
{
    d->fault = sim_grow(d->fault, &d->fault_capacity, d->fault_count + 1, sizeof(*d->fault));
    d->fault[d->fault_count++] = (struct sim_planned_fault){fault, kind_mask, nth, arg};
}

void sim_disk_fail(struct sim_disk *d, unsigned kind_mask, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        sim_disk_inject(d, SIM_FAULT_ERROR, kind_mask, i, 0);
}

void sim_disk_set_dead(struct sim_disk *d, bool dead)
{
    if (dead == d->dead)
        return;
    d->dead = dead;
    struct sim_world *w = d->world;
    for (unsigned i = 0; i < w->flight_count; i++)
        if (w->flight[i].disk == d)
            w->flight[i].fails = true;
    if (!dead)
        sim_cache_return(d);
}

void sim_disk_hang(struct sim_disk *d, uint64_t ns)
{
    struct sim_world *w = d->world;
    d->hung_until_ns = w->now_ns + ns;
    unsigned count = w->flight_count;
    for (unsigned i = 0; i < count; i++) { /* a heap again, of the flights before it and this one */
        struct sim_flight f = w->flight[i];
        uint64_t soon = w->now_ns + d->config.latency_max_ns;
        if (f.disk == d)
            f.at_ns = ns ? max_u64(f.at_ns, d->hung_until_ns) : min_u64(f.at_ns, soon);
        w->flight_count = i;
        sim_flight_add(w, &f);
    }
    w->flight_count = count;
}

bool sim_disk_is_dead(const struct sim_disk *d)
{
    return d->dead;
}

void sim_disk_heal(struct sim_disk *d)
{
    d->fault_count = d->bad_pages = 0;
    d->full_until_ns = d->short_until_ns = 0;
    if (d->hung_until_ns > d->world->now_ns)
        sim_disk_hang(d, 0);
    sim_disk_set_dead(d, false);
}

uint64_t sim_disk_preallocated(const struct sim_disk *d)
{
    return d->preallocated_bytes;
}

uint64_t sim_disk_ops(const struct sim_disk *d, unsigned kind)
{
    VP_VERIFY(kind, <, (unsigned)IO_KINDS);
    return d->ops[kind];
}

void sim_disk_set_unreadable(struct sim_disk *d, uint64_t offset)
{
    VP_VERIFY_TRUE(is_aligned(offset, SIM_PAGE_BYTES));
    d->bad_page =
        sim_grow(d->bad_page, &d->bad_page_capacity, d->bad_pages + 1, sizeof(*d->bad_page));
    d->bad_page[d->bad_pages++] = offset / SIM_PAGE_BYTES;
}

/* Bad pages that begin at or after `from` and end at or before `end` are good again. */
static void bad_pages_rewritten(struct sim_disk *d, uint64_t from, uint64_t end)
{
    for (unsigned i = 0; i < d->bad_pages;) {
        uint64_t at = d->bad_page[i] * SIM_PAGE_BYTES;
        if (at >= from && at + SIM_PAGE_BYTES <= end)
            d->bad_page[i] = d->bad_page[--d->bad_pages];
        else
            i++;
    }
}

static bool touches_bad_page(const struct sim_disk *d, uint64_t from, uint64_t end)
{
    for (unsigned i = 0; i < d->bad_pages; i++) {
        uint64_t at = d->bad_page[i] * SIM_PAGE_BYTES;
        if (at < end && from < at + SIM_PAGE_BYTES)
            return true;
    }
    return false;
}

/* How an op that was just submitted will fare. */
struct fate {
    bool fails, lost, flips;
    uint64_t misdirected_to, flip_bit, late_ns;
};

static void disk_is_short(struct sim_disk *d, int rc, const struct sim_planned_fault *f)
{
    d->short_rc = rc;
    d->short_until_ns = d->world->now_ns + f->arg;
    d->short_flushes = rc != VP_E_NO_MEMORY || f->kind_mask >> IO_FLUSH & 1;
}

static void fate_apply(struct sim_disk *d, const struct sim_planned_fault *f,
                       const struct io_op *op, struct fate *fate)
{
    switch (f->fault) {
    case SIM_FAULT_ERROR:
        fate->fails = true;
        break;
    case SIM_FAULT_LOST:
        fate->lost = true;
        break;
    case SIM_FAULT_MISDIRECT:
        fate->misdirected_to = f->arg;
        break;
    case SIM_FAULT_FLIP:
        fate->flips = true;
        fate->flip_bit = f->arg;
        break;
    case SIM_FAULT_DEAD:
        sim_disk_set_dead(d, true);
        break;
    case SIM_FAULT_FULL:
        d->full_until_ns = d->world->now_ns + f->arg;
        break;
    case SIM_FAULT_HANG:
        sim_disk_hang(d, f->arg);
        break;
    case SIM_FAULT_STALL:
        fate->late_ns += f->arg;
        break;
    case SIM_FAULT_AGAIN:
        disk_is_short(d, VP_E_AGAIN, f);
        break;
    case SIM_FAULT_NO_MEMORY:
        disk_is_short(d, VP_E_NO_MEMORY, f);
        break;
    case SIM_FAULT_BAD_PAGE:
        sim_disk_set_unreadable(
            d, align_down(op->offset + f->arg * SIM_PAGE_BYTES % op->len, SIM_PAGE_BYTES));
        break;
    }
}

/* Counts down the planned faults; those that are due meet this op. */
static struct fate fate_of(struct sim_disk *d, const struct io_op *op)
{
    struct fate fate = {.misdirected_to = UINT64_MAX};
    for (unsigned i = 0; i < d->fault_count;) {
        struct sim_planned_fault *f = &d->fault[i];
        if (!(f->kind_mask >> op->kind & 1) || f->countdown--) {
            i++;
            continue;
        }
        struct sim_planned_fault due = *f;
        memmove(f, f + 1, (--d->fault_count - i) * sizeof(*f));
        fate_apply(d, &due, op, &fate);
    }
    return fate;
}

/* ---- submit ------------------------------------------------------------------------------- */

static bool changes_content(enum io_kind kind)
{
    return kind == IO_WRITE || kind == IO_DISCARD || kind == IO_ZERO;
}

static bool overlaps(const struct io_op *a, const struct io_op *b)
{
    return a->offset < b->offset + b->len && b->offset < a->offset + a->len;
}

static bool same_bytes(const struct io_op *a, const struct io_op *b)
{
    if (a->kind != IO_WRITE || b->kind != IO_WRITE)
        return a->kind == b->kind;
    uint64_t from = max_u64(a->offset, b->offset);
    uint64_t end = min_u64(a->offset + a->len, b->offset + b->len);
    return memcmp((const char *)a->buf + (from - a->offset),
                  (const char *)b->buf + (from - b->offset), end - from) == 0;
}

static void verify_alone(const struct sim_disk *d, const struct io_op *op)
{
    const struct sim_world *w = d->world;
    if (!changes_content(op->kind))
        return;
    for (unsigned i = 0; i < w->flight_count; i++) {
        const struct sim_flight *f = &w->flight[i];
        if (f->disk != d || f->late || !changes_content(f->op->kind) || !overlaps(f->op, op) ||
            same_bytes(f->op, op))
            continue;
        vp_error_log("%s: a write of %llu bytes at %llu while one of %llu bytes at %llu is in "
                     "flight",
                     d->name, (unsigned long long)op->len, (unsigned long long)op->offset,
                     (unsigned long long)f->op->len, (unsigned long long)f->op->offset);
        bool two_writes_in_flight = true;
        VP_VERIFY_TRUE(!two_writes_in_flight);
    }
}

/* 0, or the code with which the op will complete whatever else happens. */
static int check_op(const struct sim_disk *d, const struct io_op *op)
{
    if (op->kind == IO_FLUSH)
        return 0;
    VP_VERIFY_TRUE(is_aligned(op->offset | op->len, d->config.sector_bytes));
    VP_VERIFY_TRUE(op->len > 0);
    if (op->offset > d->config.size_bytes || op->len > d->config.size_bytes - op->offset)
        return VP_E_IO_SHORT;
    if ((op->kind == IO_DISCARD || op->kind == IO_ZERO) && !d->config.can_discard)
        return VP_E_NOT_SUPPORTED;
    verify_alone(d, op);
    return 0;
}

static void flip_payload(struct sim_write *x, uint64_t bit)
{
    uint64_t at = bit / 8 % (x->sectors * SIM_SECTOR_BYTES) + x->first_sector * SIM_SECTOR_BYTES;
    struct sim_piece *p = &x->piece[at / SIM_PAGE_BYTES - x->piece[0].page_no];
    if (p->page && p->page->refs == 1)
        p->page->data[at % SIM_PAGE_BYTES] ^= (unsigned char)(1U << bit % 8);
}

static struct sim_write *make_write(struct sim_disk *d, const struct io_op *op,
                                    const struct fate *fate)
{
    if (!changes_content(op->kind) || fate->lost || d->dead)
        return NULL;
    uint64_t offset = op->offset;
    if (fate->misdirected_to != UINT64_MAX)
        offset = min_u64(align_down(fate->misdirected_to, d->config.sector_bytes),
                         d->config.size_bytes - op->len);
    struct sim_write *x = sim_write_new(d, op, offset);
    if (fate->flips)
        flip_payload(x, fate->flip_bit);
    x->refs++; /* one for the flight, one for the list */
    sim_pending_add(&d->world->pending, x);
    return x;
}

void sim_world_on_write(struct sim_world *w, sim_write_fails_fn fn, void *arg)
{
    w->write_fails = fn;
    w->write_fails_arg = arg;
}

static bool write_fails(const struct sim_world *w, const struct io_op *op)
{
    return op->kind == IO_WRITE && w->write_fails &&
           w->write_fails(op->buf, op->len, w->write_fails_arg);
}

/* What the op lacks: room below, or something that the kernel does not have for now. */
static int short_of(const struct sim_disk *d, const struct io_op *op)
{
    uint64_t now = d->world->now_ns;
    if (op->kind != IO_READ && op->kind != IO_DISCARD && now < d->full_until_ns)
        return VP_E_NO_SPACE;
    bool meets = op->kind != IO_FLUSH || d->short_flushes;
    return meets && now < d->short_until_ns ? d->short_rc : 0;
}

static void sim_dev_submit(struct io_dev *dev, struct io_op *op)
{
    struct sim_disk *d = container_of(dev, struct sim_dev, dev)->disk;
    struct sim_world *w = d->world;
    if (!sim_world_event(w))
        return; /* the power is off: it never completes */
    op->rc = check_op(d, op);
    struct fate fate = fate_of(d, op);
    d->ops[op->kind]++;
    struct sim_flight f = {
        .at_ns = max_u64(w->now_ns, d->hung_until_ns) + fate.late_ns + d->config.latency_min_ns +
                 sim_below(w, d->config.latency_max_ns - d->config.latency_min_ns + 1),
        .seq = ++w->submit_seq,
        .disk = d,
        .op = op,
        .covers_seq = fate.lost ? 0 : w->done_seq,
        .fails = fate.fails || d->dead || write_fails(w, op),
        .flips = fate.flips,
        .flip_bit = fate.flip_bit,
    };
    f.short_rc = short_of(d, op);
    f.fails |= f.short_rc != 0;
    if (!op->rc)
        f.write = make_write(d, op, &fate);
    sim_flight_add(w, &f);
}

/* ---- complete ----------------------------------------------------------------------------- */

/* A write that is still in flight may show already, unit by unit. */
static void mix_in_flight(struct sim_disk *d, const struct io_op *op)
{
    struct sim_world *w = d->world;
    uint64_t op_end = op->offset + op->len;
    for (unsigned i = 0; i < w->flight_count; i++) {
        const struct sim_write *x = w->flight[i].write;
        if (!x || w->flight[i].disk != d)
            continue;
        uint64_t from = max_u64(x->first_sector * SIM_SECTOR_BYTES, op->offset);
        uint64_t end = min_u64((x->first_sector + x->sectors) * SIM_SECTOR_BYTES, op_end);
        if (from >= end)
            continue;
        struct sim_image seen = sim_image_share(&d->view);
        sim_write_apply(x, sim_random(w), &seen);
        sim_image_read(&seen, from, (unsigned char *)op->buf + (from - op->offset), end - from);
        sim_image_fini(&seen);
    }
}

static void complete_read(const struct sim_flight *f)
{
    struct io_op *op = f->op;
    sim_image_read(&f->disk->view, op->offset, op->buf, op->len);
    mix_in_flight(f->disk, op);
    if (f->flips)
        ((unsigned char *)op->buf)[f->flip_bit / 8 % op->len] ^=
            (unsigned char)(1U << f->flip_bit % 8);
}

/* A failed write may have happened in part; without a cache that part is on the medium. */
static void complete_write(const struct sim_flight *f)
{
    struct sim_disk *d = f->disk;
    uint64_t units = f->fails ? sim_random(d->world) : UINT64_MAX;
    bool through = !d->config.write_cache || (f->op->flags & IO_FUA && !f->fails);
    sim_cache_write_done(d, f->write, units, through);
    sim_write_put(f->write);
}

/* A write with IO_FUA is a write and a flush, and either of them may be what failed. What the
 * kernel has no memory for never began, unless it is a flush (io/device.c). */
static bool may_lose_cache(const struct io_op *op, int rc)
{
    if (op->kind == IO_FLUSH)
        return rc == VP_E_IO || rc == VP_E_NO_MEMORY;
    return rc == VP_E_IO && op->kind == IO_WRITE && op->flags & IO_FUA;
}

void sim_disk_complete(struct sim_flight *f)
{
    struct sim_disk *d = f->disk;
    struct io_op *op = f->op;
    int rc = op->rc;
    if (!rc && f->fails)
        rc = d->dead ? VP_E_IO_NO_DEVICE : f->short_rc ? f->short_rc : VP_E_IO;
    if (!rc && op->kind == IO_READ && touches_bad_page(d, op->offset, op->offset + op->len))
        rc = VP_E_IO;
    if (f->write)
        complete_write(f);
    if (f->write && !rc)
        bad_pages_rewritten(d, op->offset, op->offset + op->len);
    if (op->kind == IO_READ && !rc)
        complete_read(f);
    if (op->kind == IO_FLUSH && !rc)
        sim_cache_flush(d, f->covers_seq);
    if (may_lose_cache(op, rc))
        sim_cache_flush_failed(d, f->covers_seq);
    if (f->late)
        io_late_complete(op);
    else
        io_op_complete(op, rc);
}

/* The claim ends with the last request, as with the kernel's. */
static void sim_dev_close(struct io_dev *dev)
{
    (void)dev;
}

static void sim_dev_free(struct io_dev *dev)
{
    struct sim_dev *s = container_of(dev, struct sim_dev, dev);
    if (s->exclusive)
        s->disk->exclusive = false;
    list_del(&s->link);
    free(s);
}

static CO int sim_dev_preallocate(struct io_dev *dev, uint64_t offset, uint64_t len)
{
    struct sim_disk *d = container_of(dev, struct sim_dev, dev)->disk;
    VP_VERIFY(offset, <=, d->config.size_bytes);
    VP_VERIFY(len, <=, d->config.size_bytes - offset);
    if (d->world->now_ns < d->full_until_ns)
        return VP_E_NO_SPACE;
    d->preallocated_bytes += len;
    return 0;
}

const struct io_dev_ops sim_dev_ops = {.submit = sim_dev_submit,
                                       .close = sim_dev_close,
                                       .free = sim_dev_free,
                                       .preallocate = sim_dev_preallocate};

/* ---- raw access --------------------------------------------------------------------------- */

void sim_disk_peek(struct sim_disk *d, uint64_t offset, void *buf, size_t len)
{
    sim_image_read(&d->view, offset, buf, len);
}

static void poke_page(struct sim_disk *d, uint64_t page_no, struct sim_page *page)
{
    sim_image_store(&d->view, page_no, SIM_ALL_SECTORS, page);
    sim_image_store(&d->durable, page_no, SIM_ALL_SECTORS, page);
}

/* Lays `buf` over what is stored, also over what waits in the cache: a later flush must not bring
 * the old content back. */
void sim_disk_poke(struct sim_disk *d, uint64_t offset, const void *buf, size_t len)
{
    const unsigned char *from = buf;
    while (len) {
        uint64_t page_no = offset / SIM_PAGE_BYTES;
        size_t in = offset % SIM_PAGE_BYTES, part = min_u64(len, SIM_PAGE_BYTES - in);
        struct sim_page *page = sim_page_new();
        sim_image_read(&d->view, page_no * SIM_PAGE_BYTES, page->data, SIM_PAGE_BYTES);
        memcpy(page->data + in, from, part);
        sim_cache_settle(d, page_no);
        poke_page(d, page_no, page);
        sim_page_put(page);
        offset += part;
        from += part;
        len -= part;
    }
}

void sim_disk_flip_bit(struct sim_disk *d, uint64_t offset, unsigned bit)
{
    unsigned char byte;
    sim_disk_peek(d, offset, &byte, 1);
    byte ^= (unsigned char)(1U << bit % 8);
    sim_disk_poke(d, offset, &byte, 1);
}

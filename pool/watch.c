/*
 * Whether a disk in use is still what it was. Somebody may overwrite its labels and roots (mkfs on
 * the wrong name), truncate its file, or remove it. Nothing fails then until the next import, and
 * then the pool is gone. So disks in use are looked at from time to time.
 *
 * Labels and roots that are damaged on a disk in service are written again, since the pool knows
 * all that they say: the labels in all copies, and roots until each slot has one. There are two
 * exceptions: a whole label of another pool, and a root of this pool that is newer than ours. Then
 * somebody else has this disk in use, and what it wrote is not ours to overwrite. After a newer
 * root all of the pool is in use by another daemon, which gives our space to others: the pool is
 * fenced. The disk's `finding` says what was found until the pool closes, since data may have been
 * overwritten as well.
 */
#include "base/log.h"
#include "io/buffer.h"
#include "pool/disk_impl.h"
#include "pool/label_format.h"
#include "pool/meta_impl.h"

#include <stdio.h>
#include <string.h>

enum { ROOT_TRIES = 3, SLOTS_BYTES = POOL_ROOT_SLOTS * ROOT_BYTES };
static const char moved[] = "it is not at its path any more";

/* What was found in the places of labels and of the newest root. */
struct sight {
    unsigned labels, roots; /* damaged copies */
    bool foreign;           /* some label is whole, and another pool's */
    bool newer;             /* some root is whole, and newer than ours */
};

/* Other read errors are for the error counters to tell. */
static bool is_beyond_end(int rc)
{
    return rc == VP_E_IO_SHORT;
}

/* CO. */
static CO void labels_look(const struct pool_disk *d, void *block, struct sight *s)
{
    for (unsigned copy = 0; copy < POOL_LABEL_COPIES; copy++) {
        struct pool_label l;
        int rc = io_dev_read(d->io.dev, pool_label_at(d->tail_bytes, copy), block, POOL_BLOCK);
        if (rc) {
            s->labels += is_beyond_end(rc);
            continue;
        }
        rc = pool_label_decode(block, &l);
        bool our_pool = !rc && vp_uuid_equal(l.pool_uuid, d->pool->uuid);
        s->labels += !our_pool || !(vp_uuid_equal(l.disk_uuid, d->uuid) ||
                                    vp_uuid_equal(l.was_uuid, d->uuid)); /* a return cut off */
        s->foreign |= !our_pool && (!rc || rc == VP_E_LABEL_VERSION || rc == VP_E_FEATURE_UNKNOWN);
    }
}

/* CO. Of the newest root, once none is being written. */
static CO uint64_t root_number(struct pool *p)
{
    co_mutex_lock(&p->root.lock);
    uint64_t number = p->root.now.number;
    co_mutex_unlock(&p->root.lock);
    return number;
}

/* CO. Whether root `number` is in its slot, and no newer one in any. */
static CO void slots_look(const struct pool_disk *d, uint64_t number, uint8_t *slots,
                          struct sight *s)
{
    for (unsigned tail = 0; tail < 2; tail++) {
        uint64_t at = POOL_ROOT_AT + (tail ? d->tail_bytes : 0), found;
        int rc = io_dev_read(d->io.dev, at, slots, SLOTS_BYTES);
        bool damaged = !rc || is_beyond_end(rc);
        for (unsigned i = 0; !rc && i < POOL_ROOT_SLOTS; i++) {
            if (!root_block_check(slots + (size_t)i * ROOT_BYTES, d->pool->uuid, &found))
                continue;
            damaged &= i != number % POOL_ROOT_SLOTS || found != number;
            s->newer |= found > number;
        }
        s->roots += damaged;
    }
}

/* CO. Roots are written meanwhile, since the disk may not answer for long: then it is looked at
 * again, or the next time. */
static CO void roots_look(struct pool *p, const struct pool_disk *d, uint8_t *slots,
                          struct sight *s)
{
    for (unsigned tries = ROOT_TRIES; tries; tries--) {
        uint64_t number = root_number(p);
        struct sight seen = *s;
        slots_look(d, number, slots, &seen);
        if (root_number(p) != number)
            continue;
        *s = seen;
        return;
    }
}

/* CO. Flushes by raid_flush, which alone may flush a disk in use. The kernel reports a failed flush
 * to one caller only, and that caller must take the disk out of service. */
static CO int disk_flush(struct pool *p, struct pool_disk *d)
{
    atomic_fetch_add(&d->io.writes_done, 1);
    int rc = raid_flush(&p->raid_disk[d->io.index], 1);
    return rc || atomic_load(&d->io.in_service) ? rc : VP_E_RAID_DISK_OUT;
}

/* CO. Labels, and a root for each slot. The last block is unused; a file that was truncated is as
 * long again with it. */
static CO int disk_write_again(struct pool *p, struct pool_disk *d)
{
    int rc = io_dev_write(d->io.dev, d->size_bytes - POOL_BLOCK, io_zeros, POOL_BLOCK, 0);
    if (!rc)
        rc = pool_label_write(d);
    if (!rc)
        rc = disk_flush(p, d);
    for (unsigned i = 0; i < POOL_ROOT_SLOTS && !rc; i++)
        rc = pool_root_write(p, &p->root.now);
    return rc;
}

static CO void look_at_blocks(struct pool *p, struct pool_disk *d)
{
    struct sight s = {0};
    struct vp_uuid uuid = d->uuid;
    void *block = io_buffer_get(SLOTS_BYTES);
    bool takes_roots = d->state != POOL_DISK_OUT;
    labels_look(d, block, &s);
    if (takes_roots)
        roots_look(p, d, block, &s);
    io_buffer_put(block, SLOTS_BYTES);
    if (d->returns || !vp_uuid_equal(d->uuid, uuid))
        return; /* it got a new label meanwhile */
    if (takes_roots && d->state == POOL_DISK_OUT)
        return; /* it left meanwhile, and has no newer root */
    if (s.newer) {
        pool_fence(p, "a disk has a newer root, so another daemon has the pool in use");
        (void)snprintf(
            d->finding, sizeof(d->finding),
            "another daemon that has the pool in use wrote a newer root to it; end one of "
            "them");
        return;
    }
    if (!s.labels && !s.roots)
        return;
    bool writable = !s.foreign && atomic_load(&d->io.in_service) && !pool_is_fenced(p);
    int rc = writable ? disk_write_again(p, d) : VP_E_RAID_DISK_OUT;
    if (d->finding[0] && strcmp(d->finding, moved) != 0 && !s.foreign)
        return;
    (void)snprintf(d->finding, sizeof(d->finding),
                   "%u copies of its label and %u of the newest root were overwritten by %s",
                   s.labels, s.roots,
                   s.foreign ? "another pool that has this disk, and were left as they are"
                   : rc      ? "something else, and could not be written again"
                             : "something else, and have been written again");
}

static CO void look_at_name(struct pool_disk *d)
{
    struct io_dev_sight s;
    char have[16], need[16];
    if (io_dev_look(d->io.dev, &s) != 0)
        return;
    if (s.removed)
        (void)snprintf(d->finding, sizeof(d->finding),
                       "its file was removed and lives only until vpoold ends");
    else if (s.size_bytes < d->size_bytes)
        (void)snprintf(d->finding, sizeof(d->finding), "it was truncated to %s; it had %s",
                       bytes_format_size(s.size_bytes, have, sizeof(have)),
                       bytes_format_size(d->size_bytes, need, sizeof(need)));
    else if (!s.at_path && !d->finding[0])
        (void)snprintf(d->finding, sizeof(d->finding), "%s", moved);
    else if (s.at_path && strcmp(d->finding, moved) == 0)
        d->finding[0] = 0;
}

CO void pool_disk_look(struct pool *p, unsigned i)
{
    struct pool_disk *d = &p->disk[i];
    if (!d->io.dev || !(atomic_load(&d->io.in_service) || raid_disk_is_data_only(&d->io)))
        return;
    d->looks++;
    look_at_name(d);
    if (d->state != POOL_DISK_NONE)
        look_at_blocks(p, d);
    d->looks--;
}

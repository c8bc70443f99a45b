/*
 * Whether a disk in use is still what it was. Somebody may overwrite its labels and roots (mkfs on
 * the wrong name), truncate its file or remove it: nothing of that fails before the next import,
 * and then the pool is gone. So this is looked at from time to time.
 *
 * Labels and roots that are damaged on a disk in service are written again, since the pool knows
 * all that they say: the labels in all copies, and roots until each slot has one. Not so where a
 * whole label of another pool stands, or a root of this pool that is newer than ours: somebody else
 * has this disk in use, and what it wrote is not ours to overwrite. What is found is kept in
 * the disk's `finding` until the pool closes, since data may have been overwritten as well.
 */
#include "base/log.h"
#include "io/buffer.h"
#include "pool/disk_impl.h"
#include "pool/keep.h"
#include "pool/label_format.h"
#include "pool/meta_impl.h"

#include <stdio.h>
#include <string.h>

static const char moved[] = "it is not at its path any more";

/* What was found in the places of labels and of the newest root. */
struct sight {
    unsigned labels, roots; /* damaged copies */
    bool foreign;           /* some copy is whole, and somebody else's */
};

/* What cannot be read for another reason is for the error counters to tell. */
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
        s->labels += !our_pool || !vp_uuid_equal(l.disk_uuid, d->uuid);
        s->foreign |= !our_pool && (!rc || rc == VP_E_LABEL_VERSION || rc == VP_E_FEATURE_UNKNOWN);
    }
}

/* CO. Of the newest root, which stands still meanwhile. */
static CO void roots_look(struct pool *p, const struct pool_disk *d, uint8_t *block,
                          struct sight *s)
{
    co_mutex_lock(&p->root.lock);
    uint64_t number = p->root.now.number, found;
    uint64_t at = POOL_ROOT_AT + number % POOL_ROOT_SLOTS * ROOT_BYTES;
    for (unsigned tail = 0; tail < 2; tail++) {
        int rc = io_dev_read(d->io.dev, at + (tail ? d->tail_bytes : 0), block, ROOT_BYTES);
        bool whole = !rc && root_block_check(block, p->uuid, &found);
        s->roots += rc ? is_beyond_end(rc) : !whole || found != number;
        s->foreign |= whole && found > number;
    }
    co_mutex_unlock(&p->root.lock);
}

/* CO. By raid_flush, which alone may flush a disk in use: of a failed flush the kernel tells one
 * caller, and whoever it is must take the disk out of service. */
static CO int disk_flush(struct pool *p, struct pool_disk *d)
{
    atomic_fetch_add(&d->io.writes_done, 1);
    int rc = raid_flush(&p->raid_disk[d->io.index], 1);
    if (rc)
        pool_keep_forget_all(p);
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
    void *block = io_buffer_get(POOL_BLOCK);
    labels_look(d, block, &s);
    if (d->state == POOL_DISK_ONLINE)
        roots_look(p, d, block, &s);
    io_buffer_put(block, POOL_BLOCK);
    if (!s.labels && !s.roots)
        return;
    bool writable = !s.foreign && atomic_load(&d->io.in_service) && !pool_is_fenced(p);
    int rc = writable ? disk_write_again(p, d) : VP_E_RAID_DISK_OUT;
    if (d->finding[0] && strcmp(d->finding, moved) != 0 && !s.foreign)
        return;
    (void)snprintf(d->finding, sizeof(d->finding),
                   "%u copies of its label and %u of the newest root were overwritten by %s",
                   s.labels, s.roots,
                   s.foreign
                       ? "another pool or daemon that has this disk, and were left as they are"
                   : rc ? "something else, and could not be written again"
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
    look_at_name(d);
    look_at_blocks(p, d);
}

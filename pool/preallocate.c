/*
 * Room for metadata in the file systems below: on disks that are files, each metadata group has its
 * room there before it is needed. When such a file system runs full later, what was written can
 * still be committed, and a checkpoint ends.
 *
 * The first group gets its room when the pool is created, or the pool is refused. The others get it
 * at the beginning of the next checkpoint, which forms most of them. A group that finds no room is
 * kept all the same: without it the log could not be extended, and the pool would be fenced. Its
 * writes may have to wait for room (io/device.c), and the next checkpoint asks again.
 *
 * Label areas, with the roots, have their room since the pool's creation wiped them.
 */
#include "base/log.h"
#include "pool/meta_impl.h"

/* Of an extent: what a checkpoint and the log need, and little on a disk of any size. One half is
 * at the front, where single pages are taken, and one at the back, where segments are (meta.c). */
#define PREALLOCATED_MAX (64U << 20)

static CO int extent_preallocate(struct io_dev *dev, uint64_t base_bytes, uint64_t len)
{
    uint64_t half = PREALLOCATED_MAX / 2;
    if (len <= PREALLOCATED_MAX)
        return io_dev_preallocate(dev, base_bytes, len);
    int rc = io_dev_preallocate(dev, base_bytes, half);
    return rc ? rc : io_dev_preallocate(dev, base_bytes + len - half, half);
}

static CO int group_preallocate(const struct pool_group *g, const struct pool_disk **full)
{
    for (unsigned m = 0; m < g->raid->width; m++) {
        const struct pool_disk *d = g->disk[m];
        if (!atomic_load(&d->io.in_service))
            continue;
        int rc =
            extent_preallocate(d->io.dev, g->raid->base_bytes[m], d->pool->geometry.extent_bytes);
        *full = rc == VP_E_NO_SPACE ? d : NULL;
        if (rc)
            return rc;
    }
    return 0;
}

CO int pool_meta_preallocate(struct pool *p, const struct pool_disk **full)
{
    *full = NULL;
    for (unsigned i = 0; i < p->meta.groups; i++) { /* more may come meanwhile */
        struct pool_meta_group *g = p->meta.group[i];
        int rc = g->allocated ? 0 : group_preallocate(g->group, full);
        if (rc)
            return rc;
        g->allocated = true;
    }
    return 0;
}

CO void pool_meta_preallocate_ahead(struct pool *p)
{
    const struct pool_disk *full;
    int rc = pool_meta_preallocate(p, &full);
    if (rc == VP_E_NO_SPACE && !p->meta.full_below)
        vp_warn("pool %s: disk %u (%s): the file system that holds it has no room for all "
                "metadata of the pool, whose writes may have to wait: make room there",
                p->name, full->io.index, full->path);
    p->meta.full_below = rc == VP_E_NO_SPACE;
}

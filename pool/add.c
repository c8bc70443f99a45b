/*
 * A pool gets one more disk, while it serves.
 *
 *  A1  The label comes first, then the newest root as it is, then a root whose disk table has one
 *      more row. A crash before that root leaves a device with a label of the pool that is none of
 *      its disks: an import passes over it, and the next try needs --force.
 *  A2  The disk comes as one that is behind (return.c): in service for writes, not counted on. It
 *      has no groups, so no data are copied. Metadata groups that lack a copy get one there. Like a
 *      disk that returns, it counts after a checkpoint and a root in each of its slots (fill.c).
 *  A3  The tables of groups have room for its extents before a group can be formed there
 *      (group_table.c). All of the new disk is complete before `disk_count` says that it is there:
 *      other reactors look at disks up to that number.
 */
#include "base/log.h"
#include "pool/disk_impl.h"
#include "pool/meta_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct adding {
    struct pool *pool;
    struct pool_disk *disk; /* the next row of the table */
    struct io_dev *dev;
    uint64_t size_bytes; /* of it, as used */
    bool entered;
    struct pool_space_growth growth;
};

static CO int check_free(const struct adding *a, const char *path, struct vp_error *err)
{
    struct pool_label l;
    if (!pool_label_read(a->dev, &l) && vp_uuid_equal(l.pool_uuid, a->pool->uuid))
        return vp_fail(err, VP_E_DISK_HOLDS_DATA,
                       "%s is or was disk %u of this pool, or a crash cut off its addition: `vpool "
                       "online` takes a disk back, and --force overwrites it",
                       path, l.disk_index);
    return pool_disk_probe(a->dev, path, err);
}

static CO int device_open(struct adding *a, const char *path, bool force, struct vp_error *err)
{
    struct pool *p = a->pool;
    if (strlen(path) >= sizeof(a->disk->path))
        return vp_fail(err, VP_E_INVALID, "%s: the path is too long", path);
    int rc = io_dev_open(path, 0, &a->dev, err);
    if (rc == VP_E_IO_BUSY_DEVICE)
        return vp_fail(err, rc, "%s is in use: by a pool, a mount, or named twice", path);
    if (!rc)
        pool_device_watch(a->dev);
    if (!rc && !force)
        rc = check_free(a, path, err);
    if (rc)
        return rc;
    uint64_t size = align_down(io_dev_info(a->dev)->size_bytes, POOL_BLOCK);
    uint64_t least = pool_disk_min_bytes(p->geometry.extent_bytes);
    char have[16], need[16];
    if (size < least)
        return vp_fail(err, VP_E_DISK_TOO_SMALL, "%s has %s; a disk of pool %s needs at least %s",
                       path, bytes_format_size(size, have, sizeof(have)), p->name,
                       bytes_format_size(least, need, sizeof(need)));
    a->size_bytes = size;
    return 0;
}

/* What I/O and groups need of it. Nobody sees it yet. */
static int disk_prepare(struct adding *a, const char *path)
{
    struct pool_disk *d = a->disk;
    uint8_t random[16];
    reactor_random(random, sizeof(random));
    d->uuid = vp_uuid_from_random(random);
    d->state = POOL_DISK_BEHIND;
    d->label_epoch = 1;
    d->size_bytes = a->size_bytes;
    d->extents_total = pool_disk_extents(a->size_bytes, a->pool->geometry.extent_bytes);
    int rc = pool_space_growth_prepare(a->pool, d->extents_total, &a->growth);
    if (!rc)
        rc = pool_disk_init(a->pool, a->pool->disk_count, a->dev, path);
    if (!rc)
        io_dev_wait_for_room(a->dev);
    return rc;
}

/* CO. A1. */
static CO int label_write(struct adding *a)
{
    struct pool_label label = pool_label_of(a->disk);
    label.disk_count++;
    int rc = pool_disk_wipe(a->dev, a->disk->tail_bytes);
    if (!rc)
        rc = pool_label_put(a->dev, &label);
    if (!rc)
        rc = io_dev_flush(a->dev);
    return rc;
}

/* A3. */
static int disk_enter(void *arg)
{
    struct adding *a = arg;
    struct pool *p = a->pool;
    pool_space_grow(p, &a->growth);
    atomic_fetch_add(&a->disk->io.writes_done, 1); /* its label and root */
    p->disk_count++;
    p->disk_changes++;
    a->entered = true;
    pool_meta_room_update(p);
    return 0;
}

static CO void adding_undo(struct adding *a)
{
    pool_space_growth_free(&a->growth);
    if (a->entered)
        return;
    io_dev_close(a->dev);
    raid_disk_figures_free(&a->disk->io);
    free(a->disk->extent_map);
    a->pool->raid_disk[a->pool->disk_count] = NULL;
    memset(a->disk, 0, sizeof(*a->disk));
}

static CO int disk_add(struct adding *a, const char *path, bool force, struct vp_error *err)
{
    struct pool *p = a->pool;
    struct pool_disk *d = a->disk;
    int rc = device_open(a, path, force, err);
    if (rc)
        return rc;
    rc = disk_prepare(a, path);
    if (rc)
        return vp_fail(err, rc, "pool %s: %s", p->name, vp_err_text(rc));
    bool labelled = false;
    rc = label_write(a);
    if (!rc) {
        labelled = true;
        rc = pool_root_enter(p, a->dev, d->tail_bytes, disk_enter, a);
    }
    if (!a->entered) /* it is as empty as the next try wants it */
        vp_ignore(pool_disk_wipe(a->dev, d->tail_bytes), "rc says enough");
    if (rc && !labelled)
        return vp_fail(err, rc, "%s: its label cannot be written: %s", path, vp_err_text(rc));
    if (rc)
        return vp_fail(err, rc, "pool %s: that %s is one of its disks cannot be recorded: %s",
                       p->name, path, vp_err_text(rc));
    if (d->state == POOL_DISK_OUT)
        return vp_fail(err, VP_E_RAID_DISK_OUT,
                       "pool %s: %s is disk %u now, but has failed already: %s; `vpool replace` "
                       "puts another one in its place",
                       p->name, path, d->io.index, d->reason);
    vp_info("pool %s: disk %u (%s) was added", p->name, d->io.index, d->path);
    return 0;
}

CO int pool_device_check(struct pool *p, const char *path, bool wipe, uint64_t *size_bytes,
                         struct vp_error *err)
{
    uint64_t least = UINT64_MAX;
    struct io_dev *dev = NULL;
    int rc = io_dev_open(path, 0, &dev, err);
    if (rc == VP_E_IO_BUSY_DEVICE)
        return vp_fail(err, rc, "%s is in use: by a pool, a mount, or named twice", path);
    if (rc)
        return rc;
    uint64_t size = align_down(io_dev_info(dev)->size_bytes, POOL_BLOCK);
    char have[16], need[16];
    *size_bytes = size;
    for (unsigned i = 0; i < p->disk_count; i++)
        least = p->disk[i].state == POOL_DISK_NONE
                    ? least
                    : min_u64(least, pool_disk_least_bytes(&p->disk[i]));
    if (size < least)
        rc = vp_fail(err, VP_E_DISK_TOO_SMALL, "%s has %s; the smallest disk of pool %s uses %s",
                     path, bytes_format_size(size, have, sizeof(have)), p->name,
                     bytes_format_size(least, need, sizeof(need)));
    if (!rc && !wipe)
        rc = pool_disk_probe(dev, path, err);
    if (!rc && wipe) {
        rc = pool_disk_wipe(dev, pool_tail_bytes(size));
        if (rc)
            rc = vp_fail(err, rc, "%s cannot be wiped: %s", path, vp_err_text(rc));
    }
    io_dev_close(dev);
    return rc;
}

static int check_pool(const struct pool *p, struct vp_error *err)
{
    if (pool_is_fenced(p))
        return vp_fail(err, VP_E_POOL_FENCED, "pool %s: %s", p->name,
                       vp_err_text(VP_E_POOL_FENCED));
    if (p->adding)
        return vp_fail(err, VP_E_BUSY, "pool %s: another command adds a disk", p->name);
    if (p->disk_count == POOL_DISKS_MAX)
        return vp_fail(err, VP_E_TOO_BIG, "pool %s has %u disks already, which is the most",
                       p->name, POOL_DISKS_MAX);
    return 0;
}

CO int pool_disk_add_check(struct pool *p, const char *path, bool force, struct vp_error *err)
{
    struct adding a = {.pool = p};
    int rc = check_pool(p, err);
    if (!rc)
        rc = device_open(&a, path, force, err);
    io_dev_close(a.dev);
    return rc;
}

CO int pool_disk_add(struct pool *p, const char *path, bool force, unsigned *index,
                     struct vp_error *err)
{
    int rc = check_pool(p, err);
    if (rc)
        return rc;
    struct adding a = {.pool = p, .disk = &p->disk[p->disk_count]};
    *index = p->disk_count;
    p->adding = true;
    rc = disk_add(&a, path, force, err);
    adding_undo(&a);
    p->adding = false;
    return rc;
}

/*
 * A disk that is behind (return.c) gets what it lacks, and then counts again.
 *
 *  B3  The disk counts as current when all data and metadata were copied to it and are durable
 *      (GUARD_FILL_BEFORE_ONLINE). Data are copied by volumes/ (fill.c there), chunk by chunk,
 *      under block locks. The pages of trees are copied here, by a checkpoint before it writes
 *      anything; then it cuts the log and writes a full image, which the disk gets like all others.
 *      Metadata groups that were formed without the disk get a copy there before (widen.c).
 *  B4  A crash before that finds the disk behind, and it goes on being filled.
 */
#include "base/log.h"
#include "io/guard.h"
#include "pool/disk_impl.h"
#include "pool/meta_impl.h"

#include <stdio.h>
#include <stdlib.h>

bool pool_disk_to_fill(struct pool *p, unsigned from, struct pool_disk_filling *out)
{
    for (unsigned i = from; i < p->disk_count; i++) {
        struct pool_disk *d = &p->disk[i];
        if (d->state != POOL_DISK_BEHIND || d->leaves)
            continue;
        *out = (struct pool_disk_filling){.disk = i,
                                          .uuid = d->uuid,
                                          .returned = d->has_most,
                                          .empty = !d->extents_used,
                                          .io = &d->io};
        (void)snprintf(out->path, sizeof(out->path), "%s", d->path);
        return true;
    }
    return false;
}

/* CO. Inside a checkpoint, before it writes anything: all pages of trees (B3). */
CO int pool_meta_fill(struct pool *p, struct pool_disk *d)
{
    struct vp_uuid uuid = d->uuid;
    int rc = 0;
    if (!io_guard_on(GUARD_FILL_BEFORE_ONLINE)) {
        p->checkpoint.filled = true;
        return 0;
    }
    for (unsigned i = 0; i < p->meta.groups && !rc; i++) { /* more may come meanwhile */
        const struct pool_meta_group *g = p->meta.group[i];
        for (unsigned m = 0; m < g->group->raid->width && !rc; m++)
            if (g->group->disk[m] == d)
                rc = pool_meta_pages_copy(p, g, g->group->raid, m);
    }
    free(p->checkpoint.copy);
    p->checkpoint.copy = NULL;
    if (!rc)
        rc = raid_flush(p->raid_disk, p->disk_count);
    if (!rc && d->state != POOL_DISK_BEHIND)
        rc = VP_E_RAID_DISK_OUT;
    p->checkpoint.filled = !rc;
    if ((rc == VP_E_IO || rc == VP_E_IO_NO_DEVICE) && vp_uuid_equal(d->uuid, uuid))
        vp_ignore(pool_disk_eject(p, d, rc, "a write of metadata failed"), "it says so itself");
    if (rc && !pool_is_fenced(p))
        vp_warn("pool %s: the metadata cannot be copied to disk %u (%s) now: %s", p->name,
                d->io.index, d->path, vp_err_text(rc));
    return pool_is_fenced(p) ? VP_E_POOL_FENCED : 0; /* the checkpoint is made all the same */
}

/* CO. A root in each slot of the disk (root.c, R1), before it can be the only one. */
static CO int slots_fill(struct pool *p)
{
    int rc = 0;
    for (unsigned i = 0; i < POOL_ROOT_SLOTS && !rc; i++)
        rc = pool_root_write(p, &p->root.now);
    return rc;
}

CO int pool_disk_filled(struct pool *p, unsigned disk)
{
    struct pool_disk *d = &p->disk[disk];
    struct pool_checkpoint_state *ck = &p->checkpoint;
    struct vp_uuid uuid = d->uuid;
    ck->filled = false;
    ck->fill = d;
    pool_meta_room_update(p);
    int rc = pool_checkpoint(p);
    ck->fill = NULL;
    pool_meta_room_update(p);
    if (!rc && ck->filled)
        rc = slots_fill(p);
    bool same = d->state == POOL_DISK_BEHIND && vp_uuid_equal(d->uuid, uuid);
    if (rc || !ck->filled || !same)
        return rc ? rc : same ? VP_E_AGAIN : VP_E_RAID_DISK_OUT;
    d->state = POOL_DISK_ONLINE;
    d->may_have_lost = false;
    atomic_store(&d->io.behind, false); /* another disk that fails this root is not the last one */
    p->disk_changes++;
    rc = pool_root_update(p);
    if (rc)
        return rc;
    if (d->state != POOL_DISK_ONLINE)
        return VP_E_RAID_DISK_OUT;
    pool_groups_disk_entered(p);
    pool_meta_room_update(p);
    pool_space_changed(p);
    vp_info("pool %s: disk %u (%s) has all that it lacked", p->name, disk, d->path);
    return 0;
}

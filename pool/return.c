/*
 * A disk comes into service again, or another device in its place.
 *
 *     OUT ── pool_disk_return ──> BEHIND ── filled by volumes/, pool_disk_filled ──> ONLINE
 *      └──────────────────────────  it fails, or is missing  ─────────────────────────┘
 *
 * A disk that is behind is in service for writes, flushes, roots and the log. So it misses nothing
 * from then on. It is not read, except where it has the only copy: data without redundancy that it
 * went on serving while it was out. No group counts on it, and none is formed on it alone. Nothing
 * moves: each extent of the disk stays with its group, under the same number.
 *
 * fill.c has how it gets what it lacks (B3, B4).
 *
 *  B1  A disk returns under a new uuid. Its old identity stays out for ever. So an image of the
 *      disk from before, and roots that call the old identity out, can never be mistaken for it
 *      (import.c, I4, I9).
 *  B2  The label comes first, then the newest root as it is, then a root whose disk table has the
 *      new uuid. The label remembers the uuid before. So a crash in between finds the disk as it
 *      was: out.
 *
 * Metadata cannot return to a disk as long as no other disk has them, nor data of a mirror: then
 * the return is refused.
 */
#include "base/log.h"
#include "io/guard.h"
#include "pool/disk_impl.h"
#include "pool/meta_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GROUPS_A_TURN 512U

static struct pool_disk *disk_find(struct pool *p, unsigned index, struct vp_error *err)
{
    if (index < p->disk_count && p->disk[index].state != POOL_DISK_NONE)
        return &p->disk[index];
    vp_ignore(vp_fail(err, VP_E_NOT_FOUND, "pool %s has no disk %u: `vpool status %s` shows all",
                      p->name, index, p->name),
              "NULL says it");
    return NULL;
}

/* ---- what the groups need ------------------------------------------------------------------ */

/* What a group with a member on the disk loses without it, or if its copy there is not read. */
struct needs {
    uint64_t single_bytes; /* data that only this disk has, without redundancy      */
    uint64_t mirror_bytes; /* data of mirrors of which no other copy is current     */
    bool metadata;         /* no other copy of some metadata is current             */
};

static void needs_add(struct needs *n, const struct pool_group *g, const struct pool_disk *d)
{
    bool member = false, other = false;
    for (unsigned m = 0; m < g->raid->width; m++) {
        member |= g->disk[m] == d;
        other |= g->disk[m] != d && raid_disk_is_current(&g->disk[m]->io);
    }
    if (!member || other || pool_group_is_empty(g))
        return;
    if (g->role == POOL_GROUP_META)
        n->metadata = true;
    else if (g->raid->width == 1)
        n->single_bytes += g->raid->data_bytes;
    else
        n->mirror_bytes += g->raid->data_bytes;
}

static CO struct needs needs_of(struct pool *p, const struct pool_disk *d)
{
    struct needs n = {0};
    vp_ignore(pool_groups_reclaim(p), "empty groups need nothing");
    for (uint32_t id = 1; id < p->space->id.size; id++) {
        const struct pool_group *g = pool_group_find(p, id);
        if (g)
            needs_add(&n, g, d);
        if (id % GROUPS_A_TURN == 0)
            co_yield ();
    }
    return n;
}

/* The same, of a moment in which no disk came or left. */
static CO struct needs needs_now(struct pool *p, const struct pool_disk *d, uint64_t *disk_changes)
{
    struct needs n;
    do {
        *disk_changes = p->disk_changes;
        n = needs_of(p, d);
    } while (*disk_changes != p->disk_changes);
    return n;
}

/* `leaves`: nothing can be read from it afterwards. Else data of mirrors that it alone may have are
 * read while it is filled, as far as their checksums say that they are right (raid/fill.c). */
static int check_needs(const struct pool_disk *d, const struct needs *n, bool leaves, bool force,
                       struct vp_error *err)
{
    const char *pool = d->pool->name;
    char bytes[16];
    if (n->metadata || (n->mirror_bytes && leaves && !force))
        return vp_fail(
            err, VP_E_RAID_NO_COPY,
            "pool %s: no other disk in service has a copy of %s of disk %u; let the other "
            "disks be rebuilt, or bring them back, first%s",
            pool, n->metadata ? "the metadata" : "some data", d->io.index,
            n->metadata ? ""
                        : "; if the disk is lost, `vpool replace --force` gives these data up");
    if (!n->single_bytes)
        return 0;
    bytes_format_size(n->single_bytes, bytes, sizeof(bytes));
    if (leaves)
        return vp_fail(
            err, VP_E_RAID_NO_COPY,
            "pool %s: up to %s of data without redundancy are on disk %u alone, and would "
            "be lost; move or delete the volumes that `vpool status %s` names first",
            pool, bytes, d->io.index, pool);
    if (raid_disk_is_read_only(&d->io))
        return vp_fail(
            err, VP_E_RAID_NO_COPY,
            "pool %s: up to %s of data without redundancy are on disk %u alone, and may lack "
            "writes, so they can only be read. Move or delete the volumes that `vpool status "
            "%s` names first",
            pool, bytes, d->io.index, pool);
    if (!raid_disk_is_data_only(&d->io))
        return vp_fail(
            err, VP_E_RAID_NO_COPY,
            "pool %s: up to %s of data without redundancy are on disk %u alone, and it is not "
            "open; `vpool export %s` and `vpool import %s` find it with them",
            pool, bytes, d->io.index, pool, pool);
    return 0;
}

/* ---- the device ---------------------------------------------------------------------------- */

/* What takes part in a return, until the disk has it. */
struct coming {
    struct pool_disk *disk;
    struct io_dev *dev;
    bool opened; /* `dev` is ours to close; else the disk has it already */
    struct pool_label label;
    bool serves;                  /* the disk goes on serving data without redundancy */
    uint64_t disk_changes;        /* of the pool, when it was looked at what its groups need */
    struct pool_retired *retired; /* memory for the device that leaves */
    char path[sizeof(((struct pool_disk *)0)->path)];
};

static CO void coming_free(struct coming *c)
{
    if (c->opened)
        io_dev_close(c->dev);
    free(c->retired);
}

static CO int device_open(const struct pool_disk *d, const struct pool_return_options *o,
                          bool has_single, struct coming *c, struct vp_error *err)
{
    const char *path = o->path ? o->path : d->path;
    if (!o->path && !d->io.dev)
        return vp_fail(
            err, VP_E_NOT_FOUND,
            "pool %s: disk %u is missing; say where it is now: `vpool online %s %u PATH`",
            d->pool->name, d->io.index, d->pool->name, d->io.index);
    if (strlen(path) >= sizeof(c->path))
        return vp_fail(err, VP_E_INVALID, "%s: the path is too long", path);
    (void)snprintf(c->path, sizeof(c->path), "%s", path);
    c->retired = calloc(1, sizeof(*c->retired));
    if (!c->retired)
        return vp_fail(err, VP_E_NO_MEMORY, "out of memory");
    if (!o->replace && d->io.dev && strcmp(path, d->path) == 0) {
        unsigned late = io_dev_late(d->io.dev);
        if (late && io_guard_on(GUARD_LATE_IO))
            return vp_fail(err, VP_E_BUSY,
                           "pool %s: disk %u (%s) still has %u requests that were given up when it "
                           "did not answer; it can return when they have ended",
                           d->pool->name, d->io.index, path, late);
        io_dev_take_back(d->io.dev);
        c->dev = d->io.dev;
        return 0;
    }
    if (!o->replace && has_single)
        return vp_fail(
            err, VP_E_RAID_NO_COPY,
            "pool %s: data without redundancy are on disk %u alone, which is in use as %s; "
            "`vpool export %s` and `vpool import %s` find it elsewhere",
            d->pool->name, d->io.index, d->path, d->pool->name, d->pool->name);
    int rc = io_dev_open(path, 0, &c->dev, err);
    if (rc == VP_E_IO_BUSY_DEVICE)
        return vp_fail(err, rc, "%s is in use: by a pool, a mount, or named twice", path);
    c->opened = rc == 0;
    if (c->opened)
        pool_device_watch(c->dev);
    return rc;
}

/* The disk itself, as its label says. */
static CO int check_same(const struct pool_disk *d, struct coming *c, struct vp_error *err)
{
    const char *pool = d->pool->name;
    int rc = pool_label_read(c->dev, &c->label);
    if (rc)
        return vp_fail(err, rc,
                       "%s: %s; if the disk is lost, `vpool replace %s %u DEVICE` puts another "
                       "one in its place",
                       c->path, vp_err_text(rc), pool, d->io.index);
    if (!vp_uuid_equal(c->label.pool_uuid, d->pool->uuid) ||
        (!vp_uuid_equal(c->label.disk_uuid, d->uuid) && !vp_uuid_equal(c->label.was_uuid, d->uuid)))
        return vp_fail(
            err, VP_E_INVALID,
            "%s is not disk %u of pool %s, but disk %u of pool %s, or it was replaced there",
            c->path, d->io.index, pool, c->label.disk_index, c->label.pool_name);
    if (c->label.size_bytes != d->size_bytes)
        return vp_fail(err, VP_E_INVALID, "%s: its label has another size than the pool knows",
                       c->path);
    rc = pool_roots_are_ours(d->pool, c->dev, pool_tail_bytes(d->size_bytes));
    if (rc == VP_E_POOL_SPLIT)
        return vp_fail(
            err, rc,
            "%s was used without the other disks of pool %s since, and knows what they do "
            "not; `vpool replace %s %u %s --force` gives that up",
            c->path, pool, pool, d->io.index, c->path);
    return rc ? vp_fail(err, rc, "%s: %s", c->path, vp_err_text(rc)) : 0;
}

uint64_t pool_disk_least_bytes(const struct pool_disk *d)
{
    return (uint64_t)d->extents_total * d->pool->geometry.extent_bytes +
           2 * (uint64_t)POOL_LABEL_AREA;
}

/* It has room for as many extents: the numbers of groups depend on how many there are. */
static int check_size(const struct pool_disk *d, struct coming *c, struct vp_error *err)
{
    uint64_t size = align_down(io_dev_info(c->dev)->size_bytes, POOL_BLOCK);
    uint64_t least = pool_disk_least_bytes(d);
    char have[16], need[16];
    if (size < least)
        return vp_fail(err, VP_E_DISK_TOO_SMALL, "%s has %s; disk %u of pool %s uses %s", c->path,
                       bytes_format_size(size, have, sizeof(have)), d->io.index, d->pool->name,
                       bytes_format_size(least, need, sizeof(need)));
    c->label = (struct pool_label){.size_bytes = size};
    return 0;
}

/* Another device, which holds nothing that is needed. */
static CO int check_other(const struct pool_disk *d, const struct pool_return_options *o,
                          struct coming *c, struct vp_error *err)
{
    struct pool_label l;
    const char *pool = d->pool->name;
    int rc = o->force ? 0 : pool_label_read(c->dev, &l);
    if (!o->force && !rc && vp_uuid_equal(l.pool_uuid, d->pool->uuid))
        return vp_fail(
            err, VP_E_DISK_HOLDS_DATA,
            "%s is or was disk %u of this pool: `vpool online %s %u %s` takes it back, if "
            "it was not replaced, and --force overwrites it",
            c->path, l.disk_index, pool, l.disk_index, c->path);
    rc = o->force ? 0 : pool_disk_probe(c->dev, c->path, err);
    return rc ? rc : check_size(d, c, err);
}

/* CO. A device that is open already may be gone, and another one have its name. */
static CO int device_find(const struct pool_disk *d, const struct pool_return_options *o,
                          bool has_single, struct coming *c, struct vp_error *err)
{
    int rc = device_open(d, o, has_single, c, err);
    if (rc)
        return rc;
    if (o->replace)
        return check_other(d, o, c, err);
    rc = check_same(d, c, err);
    if (!rc || c->opened || has_single || rc == VP_E_POOL_SPLIT)
        return rc;
    struct vp_error again = {0};
    if (io_dev_open(c->path, 0, &c->dev, &again))
        return rc;
    c->opened = true;
    pool_device_watch(c->dev);
    *err = (struct vp_error){0};
    return check_same(d, c, err);
}

/* ---- coming into service ------------------------------------------------------------------- */

/* CO. B1, B2. */
static CO int label_write(struct pool_disk *d, bool replace, struct coming *c)
{
    uint8_t random[16];
    uint64_t size = c->label.size_bytes, epoch = c->label.epoch;
    int rc = replace ? pool_disk_wipe(c->dev, pool_tail_bytes(size)) : 0;
    if (rc)
        return rc;
    c->label = pool_label_of(d);
    c->label.size_bytes = size;
    c->label.epoch = epoch + 1;
    reactor_random(random, sizeof(random));
    c->label.disk_uuid = vp_uuid_from_random(random);
    c->label.was_uuid = replace ? (struct vp_uuid){{0}} : d->uuid;
    rc = pool_label_put(c->dev, &c->label);
    if (rc)
        return rc;
    if (!c->serves || !raid_disk_is_data_only(&d->io)) {
        rc = io_dev_flush(c->dev);
        if (rc && c->dev == d->io.dev)
            d->may_have_lost = true; /* the kernel says so once */
        return rc;
    }
    atomic_fetch_add(&d->io.writes_done, 1); /* it serves data: its flushes take turns */
    rc = raid_flush(&d->pool->raid_disk[d->io.index], 1);
    return rc || raid_disk_is_data_only(&d->io) ? rc : VP_E_RAID_DISK_OUT;
}

/* No yield. */
static void device_take(struct pool_disk *d, struct coming *c)
{
    struct pool *p = d->pool;
    if (c->opened && d->io.dev) {
        io_dev_watch(d->io.dev, NULL, NULL);
        io_dev_give_up(d->io.dev); /* nobody waits for what is in flight there */
        c->retired->dev = d->io.dev;
        list_add_tail(&p->retired, &c->retired->link);
        c->retired = NULL;
    }
    d->io.dev = c->dev;
    pool_disk_watch(d);
    c->opened = false;
    atomic_store(&c->dev->durable_failed, false);
    io_dev_wait_for_room(c->dev);
    memcpy(d->path, c->path, sizeof(d->path));
    d->size_bytes = c->label.size_bytes;
    d->tail_bytes = pool_tail_bytes(d->size_bytes);
}

/* Whether what can be read there is, or becomes, durable. A failed flush may have lost what a read
 * still shows. A process that found the disk out does not know whether there was one. */
static bool has_most(const struct pool_disk *d, const struct coming *c)
{
    return !c->opened && !d->may_have_lost;
}

/* VP_E_AGAIN: what was looked at before is not so any more. */
static int disk_enter(void *arg)
{
    struct coming *c = arg;
    struct pool_disk *d = c->disk;
    struct pool *p = d->pool;
    bool failed =
        atomic_load(&d->io.flush_failed) || (d->io.dev && atomic_load(&d->io.dev->durable_failed));
    if (p->disk_changes != c->disk_changes || (c->serves && failed))
        return VP_E_AGAIN;
    d->may_have_lost |= failed || c->opened || d->takes_no_roots;
    d->has_most = has_most(d, c);
    device_take(d, c);
    d->uuid = c->label.disk_uuid;
    d->was_uuid = c->label.was_uuid;
    d->label_epoch = c->label.epoch;
    d->state = POOL_DISK_BEHIND;
    d->out_after = 0;
    d->read_only = d->stale = d->takes_no_roots = d->by_request = false;
    d->reason[0] = d->finding[0] = 0;
    atomic_fetch_add(&d->io.writes_done, 1);
    atomic_store(&d->io.flush_failed, 0);
    atomic_store(&d->io.behind, true);
    atomic_store(&d->io.in_service, true);
    atomic_store(&d->io.data_only, false);
    atomic_store(&d->io.eject_pending, false);
    p->disk_changes++;
    pool_meta_room_update(p);
    return 0;
}

static CO int disk_return(struct pool_disk *d, const struct pool_return_options *o,
                          struct coming *c, struct vp_error *err)
{
    struct pool *p = d->pool;
    int rc = pool_root_update(p); /* that it is out */
    if (rc)
        return vp_fail(err, rc, "pool %s: %s", p->name, vp_err_text(rc));
    struct needs needs = needs_now(p, d, &c->disk_changes);
    rc = check_needs(d, &needs, o->replace, o->force, err);
    if (!rc)
        rc = device_find(d, o, needs.single_bytes != 0, c, err);
    if (rc)
        return rc;
    if (p->disk_changes != c->disk_changes)
        return vp_fail(err, VP_E_AGAIN, "pool %s: disks came or left meanwhile; try again",
                       p->name);
    if (o->dry_run)
        return 0;
    c->serves = !o->replace && needs.single_bytes;
    rc = label_write(d, o->replace, c);
    if (rc)
        return vp_fail(err, rc, "%s: its label cannot be written: %s", c->path, vp_err_text(rc));
    rc = pool_root_enter(p, c->dev, pool_tail_bytes(c->label.size_bytes), disk_enter, c);
    if (!rc && (d->state == POOL_DISK_OUT || !vp_uuid_equal(d->uuid, c->label.disk_uuid)))
        rc = VP_E_RAID_DISK_OUT;       /* it failed that root */
    if (rc && o->replace && c->opened) /* the device is as empty as the next try wants it */
        vp_ignore(pool_disk_wipe(c->dev, pool_tail_bytes(c->label.size_bytes)), "rc says enough");
    if (rc)
        return vp_fail(err, rc, "pool %s: the return of disk %u cannot be recorded: %s", p->name,
                       d->io.index, vp_err_text(rc));
    pool_groups_disk_entered(p);
    pool_space_changed(p);
    vp_info("pool %s: disk %u (%s) is in service again and gets what it lacks", p->name,
            d->io.index, d->path);
    return 0;
}

CO int pool_disk_return(struct pool *p, const struct pool_return_options *o, struct vp_error *err)
{
    struct pool_disk *d = disk_find(p, o->disk, err);
    if (!d)
        return VP_E_NOT_FOUND;
    if (pool_is_fenced(p))
        return vp_fail(err, VP_E_POOL_FENCED, "pool %s: %s", p->name,
                       vp_err_text(VP_E_POOL_FENCED));
    if (d->state != POOL_DISK_OUT)
        return vp_fail(err, VP_E_BUSY,
                       "pool %s: disk %u (%s) is in service; `vpool offline %s %u` takes it out",
                       p->name, d->io.index, d->path, p->name, d->io.index);
    if (d->returns)
        return vp_fail(err, VP_E_BUSY, "pool %s: another command works on disk %u", p->name,
                       d->io.index);
    if (d->leaves)
        return vp_fail(err, VP_E_BUSY,
                       "pool %s: disk %u is being removed; `vpool remove %s %u --cancel` ends that",
                       p->name, d->io.index, p->name, d->io.index);
    struct coming c = {.disk = d};
    d->returns = true;
    int rc = disk_return(d, o, &c, err);
    d->returns = false;
    coming_free(&c);
    return rc;
}

/* ---- leaving on command -------------------------------------------------------------------- */

CO int pool_disk_offline_check(struct pool *p, unsigned index, struct vp_error *err)
{
    struct pool_disk *d = disk_find(p, index, err);
    if (!d)
        return VP_E_NOT_FOUND;
    if (d->state == POOL_DISK_OUT)
        return vp_fail(err, VP_E_BUSY, "pool %s: disk %u is out of service already", p->name,
                       index);
    uint64_t changes;
    struct needs needs = needs_now(p, d, &changes);
    return check_needs(d, &needs, true, false, err);
}

CO int pool_disk_offline(struct pool *p, unsigned index, struct vp_error *err)
{
    int rc = pool_disk_offline_check(p, index, err);
    if (rc)
        return rc;
    struct pool_disk *d = &p->disk[index];
    if (d->state == POOL_DISK_OUT ||
        pool_disk_mark_out(p, d, 0, "an operator took it out of service"))
        return vp_fail(err, VP_E_RAID_NO_COPY,
                       "pool %s: disk %u is the last one in service, or has left service", p->name,
                       index);
    d->by_request = true;
    rc = pool_disk_eject(p, d, VP_E_RAID_DISK_OUT, "out of service"); /* durably */
    return rc ? vp_fail(err, rc, "pool %s: that disk %u is out cannot be recorded: %s", p->name,
                        index, vp_err_text(rc))
              : 0;
}

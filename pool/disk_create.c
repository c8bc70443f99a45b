/*
 * The disks of a new pool: opened or created, examined, measured. Nothing is written to them here.
 * The labels are written last of all (pool_labels_write), so a crash leaves nothing that imports.
 */
#include "io/offload.h"
#include "pool/disk_impl.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Disks opened so far; `created` are files that did not exist before. */
struct opening {
    struct io_dev *dev[POOL_DISKS_MAX];
    const char *path[POOL_DISKS_MAX];
    bool created[POOL_DISKS_MAX];
    unsigned count;
};

static int unlink_blocking(void *arg)
{
    return unlink(arg);
}

static CO void file_remove(const char *path)
{
    vp_ignore(offload_run(unlink_blocking, (void *)(uintptr_t)path), "it holds nothing");
}

static CO void opening_undo(struct opening *o)
{
    for (unsigned i = 0; i < o->count; i++) {
        io_dev_close(o->dev[i]);
        if (o->created[i])
            file_remove(o->path[i]);
    }
}

static CO int open_disk(struct opening *o, const char *path,
                        const struct pool_create_options *options, struct vp_error *err)
{
    unsigned i = o->count;
    if (strlen(path) >= sizeof(((struct pool_disk *)0)->path))
        return vp_fail(err, VP_E_INVALID, "%s: the path is too long", path);
    int rc = io_dev_open(path, 0, &o->dev[i], err);
    o->created[i] = rc == VP_E_NOT_FOUND && options->create_size_bytes;
    if (o->created[i]) {
        rc = io_file_create(path, align_down(options->create_size_bytes, POOL_BLOCK), err);
        o->created[i] = rc == 0;
        if (rc == 0)
            rc = io_dev_open(path, 0, &o->dev[i], err);
    }
    if (rc == VP_E_IO_BUSY_DEVICE)
        return vp_fail(err, rc, "%s is in use: by a pool, a mount, or named twice", path);
    if (rc) {
        if (o->created[i])
            file_remove(path);
        return rc;
    }
    o->path[i] = path;
    o->count++;
    return o->created[i] || options->force ? 0 : pool_disk_probe(o->dev[i], path, err);
}

CO void pool_disks_remove_created(struct pool *p)
{
    for (unsigned i = 0; i < p->disk_count; i++)
        if (p->disk[i].created)
            file_remove(p->disk[i].path);
}

/* Checks the sizes and decides the geometry. */
static int choose_geometry(struct pool *p, const struct opening *o, struct vp_error *err)
{
    uint64_t smallest = UINT64_MAX;
    unsigned which = 0;
    for (unsigned i = 0; i < o->count; i++) {
        uint64_t size = io_dev_info(o->dev[i])->size_bytes;
        if (size < smallest) {
            smallest = size;
            which = i;
        }
    }
    int rc = pool_geometry_choose(&p->geometry, smallest, err);
    if (rc)
        return rc;
    uint64_t least = pool_disk_min_bytes(p->geometry.extent_bytes);
    char have[16], need[16];
    if (smallest < least)
        return vp_fail(err, VP_E_DISK_TOO_SMALL, "%s has %s; a disk needs at least %s",
                       o->path[which], bytes_format_size(smallest, have, sizeof(have)),
                       bytes_format_size(least, need, sizeof(need)));
    return 0;
}

static struct vp_uuid new_uuid(void)
{
    uint8_t random[16];
    reactor_random(random, sizeof(random));
    return vp_uuid_from_random(random);
}

/* Hands the opened disks over to the pool. */
static int take_disks(struct pool *p, struct opening *o)
{
    for (unsigned i = 0; i < o->count; i++) {
        struct pool_disk *d = &p->disk[i];
        d->uuid = new_uuid();
        d->state = POOL_DISK_ONLINE;
        d->size_bytes = align_down(io_dev_info(o->dev[i])->size_bytes, POOL_BLOCK);
        d->extents_total = pool_disk_extents(d->size_bytes, p->geometry.extent_bytes);
        int rc = pool_disk_init(p, i, o->dev[i], o->path[i]);
        if (rc)
            return rc;
        o->dev[i] = NULL;
        d->created = o->created[i];
        p->disk_count = i + 1;
    }
    pool_records_reserve(p);
    return pool_space_map_new(p);
}

static int check_options(const struct pool_create_options *o, unsigned count, struct vp_error *err)
{
    char text[RAID_PROFILE_TEXT];
    raid_profile_format(o->profile, text);
    if (count == 0 || count > POOL_DISKS_MAX)
        return vp_fail(err, VP_E_INVALID, "%u disks: a pool has 1 to %u", count, POOL_DISKS_MAX);
    unsigned width = raid_profile_width(o->profile);
    if (width > count)
        return vp_fail(err, VP_E_DISK_TOO_FEW, "the profile %s needs %u disks, %u are given", text,
                       width, count);
    return 0;
}

CO int pool_disks_create(struct pool *p, const struct pool_create_options *o,
                         const char *const *paths, unsigned count, struct vp_error *err)
{
    int rc = check_options(o, count, err);
    if (rc)
        return rc;
    struct opening opening = {.count = 0};
    for (unsigned i = 0; i < count && !rc; i++)
        rc = open_disk(&opening, paths[i], o, err);
    p->geometry = o->geometry;
    if (!rc)
        rc = choose_geometry(p, &opening, err);
    if (!rc) {
        rc = take_disks(p, &opening);
        if (rc)
            rc = vp_fail(err, rc, "%s", vp_err_text(rc));
    }
    if (rc)
        opening_undo(&opening);
    return rc;
}

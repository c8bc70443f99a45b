/*
 * Disks that leave a pool and come into service again, or others in their place: operations
 * (rig.h).
 *
 * The rig knows which disks are bad: a fault hit them, or may hit them, and they have not been
 * filled since. At most as many are bad as the profile survives. So a disk does not die here while
 * another one is bad. A disk is bad no more when the pool says that all of its disks count.
 */
#include "tests/sim/rig.h"

#include "base/verify.h"
#include "io/reactor.h"
#include "pool/disk_impl.h"
#include "pool/label_format.h"

#include <stdio.h>
#include <string.h>

enum { ROUNDS_MAX = 12 };
#define REST_MAX_NS UINT64_C(300000000000) /* of a removal that something stopped */

void rig_disk_is_bad(struct rig *r, unsigned disk)
{
    r->bads++;
    r->bad |= 1U << disk;
    if (r->model)
        model_bad_set(r->model, r->bad);
}

/* By what it holds, past all faults. */
bool rig_has_label(const struct rig *r, unsigned disk)
{
    uint8_t block[POOL_BLOCK];
    struct pool_label l;
    bool found = r->config->spares == 0 && !r->config->removes;
    for (unsigned copy = 0; copy < POOL_LABEL_COPIES && !found; copy++) {
        uint64_t at = pool_label_at(pool_tail_bytes(r->config->disk_bytes), copy);
        sim_disk_peek(rig_disk(r, disk), at, block, sizeof(block));
        found = pool_label_decode(block, &l) == 0;
    }
    return found;
}

int rig_dies(struct rig *r, const struct op *op)
{
    unsigned disk = (unsigned)op->at;
    if (!rig_survives(r->config, r->bad | 1U << disk))
        return 0;
    rig_disk_is_bad(r, disk);
    if (op->count)
        sim_disk_fail(rig_disk(r, disk), 1U << IO_WRITE | 1U << IO_FLUSH, (unsigned)op->count);
    else
        sim_disk_set_dead(rig_disk(r, disk), true);
    return 0;
}

#define HANG_NS UINT64_C(40000000000)

int rig_hangs(struct rig *r, const struct op *op)
{
    unsigned disk = (unsigned)op->at;
    if (!rig_survives(r->config, r->bad | 1U << disk))
        return 0;
    rig_disk_is_bad(r, disk);
    if (!op->count)
        sim_disk_hang(rig_disk(r, disk), HANG_NS);
    for (uint64_t n = 0; n < op->count; n++)
        sim_disk_inject(rig_disk(r, disk), SIM_FAULT_STALL, 1U << IO_WRITE, n, HANG_NS);
    return 0;
}

static unsigned late_count(struct rig *r)
{
    unsigned disks, late = 0;
    struct raid_disk *const *d = pool_disks(volumes_pool(r->vs[0]), &disks);
    for (unsigned i = 0; i < disks; i++)
        late += d[i]->dev ? io_dev_late(d[i]->dev) : 0;
    return late;
}

CO int rig_await_late(struct rig *r)
{
    while (late_count(r))
        vp_ignore(co_sleep_ns(UINT64_C(100000000)), "it looks again anyway");
    return 0;
}

/* ---- returning ----------------------------------------------------------------------------- */

static bool is_state(const struct pool_disk_info *info, const char *state)
{
    return strcmp(info->state, state) == 0;
}

static bool is_out(const struct pool_disk_info *info)
{
    return !info->removed && !info->leaves && !is_state(info, "online") &&
           !is_state(info, "rebuilding");
}

/* The device is one of those in service, or is being removed. */
static bool is_used(struct pool *p, const char *path)
{
    struct pool_disk_info info;
    for (unsigned i = 0; i < p->disk_count; i++) {
        pool_disk_info_get(p, i, &info);
        if (!is_out(&info) && !info.removed && strcmp(info.path, path) == 0)
            return true;
    }
    return false;
}

/* Some device that is in no use becomes the disk: itself, or another one in its place. Others are
 * refused. */
static int disk_return(struct rig *r, struct pool *p, unsigned disk, bool replace)
{
    struct pool_disk_info info;
    int rc = VP_E_NOT_FOUND;
    pool_disk_info_get(p, disk, &info);
    for (unsigned n = 0; n < r->config->disks && rc; n++) {
        unsigned i = replace ? r->config->disks - 1 - n : n;
        char path[16];
        struct vp_error err = {0};
        (void)snprintf(path, sizeof(path), "d%u", i);
        struct pool_return_options o = {
            .disk = disk, .path = path, .replace = replace, .force = true};
        bool own = strcmp(info.path, path) == 0;
        if (own && !replace && !is_state(&info, "missing") && sim_below(r->w, 2))
            o.path = NULL;
        if (is_used(p, path) || (own && replace))
            continue;
        rc = pool_disk_return(p, &o, &err);
        if (rc == VP_E_BUSY && late_count(r)) { /* it says so */
            rc = rig_await_late(r);
            err = (struct vp_error){0};
            rc = pool_disk_return(p, &o, &err);
        }
        if (rc && !err.text[0])
            rig_fail(r, "the return of disk %u fails with %s and does not say why", disk,
                     vp_err_name(rc));
    }
    return rc;
}

static int disks_return(struct rig *r, bool replace)
{
    struct pool *p = volumes_pool(r->vs[0]);
    struct pool_disk_info info;
    int rc = 0;
    for (unsigned i = 0; i < r->config->disks; i++)
        sim_disk_heal(rig_disk(r, i));
    for (unsigned i = 0; i < p->disk_count && !rc; i++) {
        pool_disk_info_get(p, i, &info);
        if (!is_out(&info))
            continue;
        rc = disk_return(r, p, i, replace && r->config->spares);
        if (rc && replace)
            rc = disk_return(r, p, i, false);
    }
    return rc;
}

int rig_return(struct rig *r, const struct op *op)
{
    int rc = VP_E_IO;
    unsigned bads;
    do {
        bads = r->bads;
        rc = disks_return(r, op->flags & OP_REPLACE);
    } while (rc && r->bads != bads); /* the fault has begun meanwhile */
    return rc;
}

/* ---- one more disk ------------------------------------------------------------------------- */

int rig_add(struct rig *r)
{
    struct pool *p = volumes_pool(r->vs[0]);
    int rc = 0;
    for (unsigned i = 0; i < r->config->disks && !rc; i++) {
        char path[16];
        unsigned index;
        struct vp_error err = {0};
        (void)snprintf(path, sizeof(path), "d%u", i);
        if (is_used(p, path))
            continue;
        rc = pool_disk_add(p, path, true, &index, &err);
        if (rc && !err.text[0])
            rig_fail(r, "disk %u cannot be added: %s, and it does not say why", i, vp_err_name(rc));
    }
    return rc;
}

/* ---- one disk less ------------------------------------------------------------------------- */

int rig_remove(struct rig *r, const struct op *op)
{
    struct volumes *vs = r->vs[0];
    struct vp_error err = {0};
    struct pool_leaving now;
    int rc;
    if (op->flags & OP_BALANCE)
        return volumes_balance_start(vs, 0, &err) && !err.text[0] ? VP_E_IO : 0;
    if (op->flags & OP_STAYS)
        rc = pool_disk_to_empty(volumes_pool(vs), 0, &now) ? volumes_disk_stays(vs, now.disk, &err)
                                                           : 0;
    else
        rc = pool_disk_leave_begin(volumes_pool(vs), (unsigned)op->at, &err);
    if (rc && !err.text[0])
        rig_fail(r, "a disk cannot be removed: %s, and it does not say why", vp_err_name(rc));
    bool refused =
        rc == VP_E_NO_SPACE || rc == VP_E_BUSY || rc == VP_E_NOT_FOUND || rc == VP_E_RAID_NO_COPY;
    if (refused || rc || op->flags & OP_STAYS)
        return refused ? 0 : rc;
    return volumes_disk_leaves(vs, 0);
}

/* ---- being filled -------------------------------------------------------------------------- */

static const char *not_counted(struct rig *r, struct pool_disk_info *info)
{
    struct pool *p = volumes_pool(r->vs[0]);
    for (unsigned i = 0; i < p->disk_count; i++) {
        pool_disk_info_get(p, i, info);
        if (!info->removed && !is_state(info, "online"))
            return info->state;
    }
    return NULL;
}

int rig_filled(struct rig *r)
{
    struct pool_disk_info info = {0};
    int rc = VP_E_IO;
    for (unsigned n = 0; n < ROUNDS_MAX && !r->failed; n++) {
        unsigned bads = r->bads;
        rc = disks_return(r, n % 2);
        for (bool more = true; !rc && more;)
            rc = volumes_background_step(r->vs[0], &more);
        if (rc || r->bads != bads || not_counted(r, &info)) {
            if (info.leaves)
                vp_ignore(co_sleep_ns(REST_MAX_NS), "nobody cancels it");
            continue;
        }
        r->bad = 0;
        if (r->model)
            model_bad_set(r->model, 0);
        return 0;
    }
    rig_fail(r, "disk %u is %s and does not come to be filled: %s", info.index,
             not_counted(r, &info), vp_err_name(rc));
    return rc;
}

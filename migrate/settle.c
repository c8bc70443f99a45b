/*
 * What moves of an earlier life left: the records of both pools decide (volumes/owner.h).
 *
 *     source    target             is settled by
 *     INTENT    pool not open      nothing: the volume is in doubt
 *     INTENT    a damaged record   nothing, while the target is not found
 *     INTENT    none, or another's the source is the owner
 *     INTENT    TARGET             the target is deleted, then the source is the owner
 *     INTENT    ARRIVED            the source is deleted, then the target is plainly the owner
 *     INTENT    a higher epoch     the source is deleted: the target arrived, and was told so
 *     another's TARGET             the target is deleted
 *     another's ARRIVED            the target is plainly the owner, unless the source is an owner
 *                                  with a higher epoch
 *
 * A move between two daemons, of which only one side's pool is open here:
 *
 *     INTENT    nothing: the other daemon is asked (migrate_decide)
 *     TARGET    is deleted: nobody copies to it any more, and its daemon tells the source so
 *     ARRIVED   nothing: it is the volume, and the source will say that it is deleted
 *
 * "Another's": the volume is not there, or its record is not of this move. Each row may be cut off
 * and done again. Then of two owners the one with the lower epoch is superseded.
 */
#include "migrate/migrate_impl.h"

#include "base/log.h"
#include "io/guard.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct left { /* a volume with a record of a move */
    char name[VOLUME_NAME_MAX + 1];
    struct volume_owner_info owner;
};

struct side {
    struct volumes *vs;
    struct left volume; /* name "": it is not there */
};

struct settle {
    struct volumes *const *open;
    unsigned open_count;
    const struct migrate_exports *exports;
};

static struct volumes *pool_of_uuid(const struct settle *s, struct vp_uuid uuid)
{
    for (unsigned i = 0; i < s->open_count; i++)
        if (vp_uuid_equal(pool_uuid(volumes_pool(s->open[i])), uuid))
            return s->open[i];
    return NULL;
}

/* The volume of this uuid in vs, if it has one. */
static struct side side_of(struct volumes *vs, struct vp_uuid uuid)
{
    struct side side = {.vs = vs};
    const char *name = volume_name_of_uuid(vs, uuid);
    if (!name || volume_owner_get(vs, name, &side.volume.owner))
        return side;
    memcpy(side.volume.name, name, strlen(name) + 1);
    return side;
}

static bool is_of_move(const struct side *s, enum volume_ownership what, struct vp_uuid move)
{
    return s->volume.name[0] && s->volume.owner.ownership == what &&
           vp_uuid_equal(s->volume.owner.move.id, move);
}

/* Where the target's record is not ARRIVED any more there is nothing to confirm. */
static CO int settle_left(const struct settle *s, const struct side *source,
                          const struct side *target, struct vp_error *err)
{
    struct volume_info info;
    struct pool_batch b;
    int rc = volume_info_get(source->vs, source->volume.name, &info);
    if (rc)
        return rc;
    pool_batch_init(&b);
    if (s->exports && s->exports->leave)
        rc = s->exports->leave(s->exports->arg, source->vs, info.id, &b);
    if (!rc)
        rc = volume_intent_leave(source->vs, source->volume.name, &b, err);
    pool_batch_fini(&b);
    if (rc || target->volume.owner.ownership != VOLUME_ARRIVED)
        return rc;
    return volume_arrival_confirm(target->vs, target->volume.name, err);
}

static bool is_newer_owner(const struct side *s, uint64_t epoch)
{
    return s->volume.name[0] && s->volume.owner.ownership != VOLUME_TARGET &&
           s->volume.owner.epoch > epoch;
}

static CO int settle_source(const struct settle *s, const struct side *source, struct vp_error *err)
{
    struct vp_uuid move = source->volume.owner.move.id;
    struct volumes *vs = pool_of_uuid(s, source->volume.owner.move.pool);
    if (!vs)
        return 0;
    struct side target = side_of(vs, source->volume.owner.uuid);
    int rc = 0;
    if (is_newer_owner(&target, source->volume.owner.epoch))
        return settle_left(s, source, &target, err);
    if (!target.volume.name[0] && volumes_have_damaged_record(vs))
        return 0; /* it may be that one */
    if (is_of_move(&target, VOLUME_TARGET, move) && io_guard_on(GUARD_MOVE_DECLINES_FIRST))
        rc = volume_target_delete(target.vs, target.volume.name, err);
    return rc ? rc : volume_intent_end(source->vs, source->volume.name, 0, err);
}

static CO int settle_target(const struct settle *s, const struct side *target, struct vp_error *err)
{
    const struct volume_owner_info *o = &target->volume.owner;
    struct volumes *vs = pool_of_uuid(s, o->move.pool);
    if (!vs && o->move.peer[0] && o->ownership == VOLUME_TARGET)
        return volume_target_delete(target->vs, target->volume.name, err);
    if (!vs)
        return 0;
    struct side source = side_of(vs, o->uuid);
    if (!source.volume.name[0] && volumes_have_damaged_record(vs))
        return 0;
    if (is_of_move(&source, VOLUME_INTENT, o->move.id))
        return source.volume.owner.attended ? 0 : settle_source(s, &source, err);
    if (o->ownership == VOLUME_TARGET)
        return volume_target_delete(target->vs, target->volume.name, err);
    return is_newer_owner(&source, o->epoch)
               ? 0 /* superseded, below */
               : volume_arrival_confirm(target->vs, target->volume.name, err);
}

static CO int settle_one(const struct settle *s, const struct side *side)
{
    struct vp_error err = {0};
    if (side->volume.owner.attended || side->volume.owner.ownership == VOLUME_SUPERSEDED)
        return 0;
    int rc = side->volume.owner.ownership == VOLUME_INTENT ? settle_source(s, side, &err)
                                                           : settle_target(s, side, &err);
    if (rc)
        vp_warn("the move of volume %s/%s could not be settled: %s",
                pool_name(volumes_pool(side->vs)), side->volume.name,
                err.text[0] ? err.text : vp_err_text(rc));
    return rc;
}

/* ---- all of a pool ------------------------------------------------------------------------ */

struct gather {
    struct left *volume; /* NULL: they are counted */
    size_t count, capacity;
};

static int gather_one(const char *name, const struct volume_owner_info *o, void *arg)
{
    struct gather *g = arg;
    if (g->volume && g->count < g->capacity) {
        memcpy(g->volume[g->count].name, name, strlen(name) + 1);
        g->volume[g->count].owner = *o;
    }
    g->count++;
    return 0;
}

static int gather_moved(struct volumes *vs, struct gather *g)
{
    *g = (struct gather){0};
    vp_ignore(volume_each_moved(vs, gather_one, g), "gather_one never fails");
    g->capacity = g->count;
    g->volume = calloc(g->count ? g->count : 1, sizeof(g->volume[0]));
    if (!g->volume)
        return VP_E_NO_MEMORY;
    g->count = 0;
    vp_ignore(volume_each_moved(vs, gather_one, g), "gather_one never fails");
    return 0;
}

static bool is_owner(const struct side *s)
{
    return s->volume.name[0] && (s->volume.owner.ownership == VOLUME_OWNER ||
                                 s->volume.owner.ownership == VOLUME_ARRIVED);
}

/* Of two owners the one with the lower epoch is served no more. */
static CO int supersede_one(const struct side *a, struct volumes *other)
{
    struct vp_error err = {0};
    struct side b = side_of(other, a->volume.owner.uuid);
    uint64_t epoch = a->volume.owner.epoch, other_epoch = b.volume.owner.epoch;
    if (!is_owner(a) || !is_owner(&b) || epoch == other_epoch)
        return 0;
    const struct side *newer = epoch > other_epoch ? a : &b, *older = newer == a ? &b : a;
    struct volume_move by = {.pool = pool_uuid(volumes_pool(newer->vs))};
    (void)snprintf(by.volume, sizeof(by.volume), "%s/%s", pool_name(volumes_pool(newer->vs)),
                   newer->volume.name);
    int rc = volume_supersede(older->vs, older->volume.name, &by, &err);
    if (rc)
        vp_warn("%s", err.text);
    return rc;
}

/* Those of `from` that ever moved, against `others`. */
static CO int supersede_of(struct volumes *from, struct volumes *const *others, unsigned count)
{
    struct gather g;
    int rc = gather_moved(from, &g);
    for (size_t k = 0; !rc && k < g.count; k++)
        for (unsigned i = 0; !rc && i < count; i++) {
            /* As it is now. */
            struct side a = side_of(from, g.volume[k].owner.uuid);
            if (others[i] != from)
                rc = supersede_one(&a, others[i]);
        }
    free(g.volume);
    return rc;
}

/* A volume of epoch 1 is found from the side of the other one, which is higher. */
static CO int supersede_all(const struct settle *s, struct volumes *vs)
{
    int rc = supersede_of(vs, s->open, s->open_count);
    for (unsigned i = 0; !rc && i < s->open_count; i++)
        if (s->open[i] != vs)
            rc = supersede_of(s->open[i], &vs, 1);
    return rc;
}

CO int migrate_settle(struct volumes *vs, struct volumes *const *open, unsigned open_count,
                      const struct migrate_exports *exports)
{
    struct settle s = {open, open_count, exports};
    struct gather g;
    int rc = gather_moved(vs, &g);
    if (rc)
        return rc;
    for (size_t i = 0; i < g.count; i++) {
        /* The one before may have settled this one too. */
        struct side side = {.vs = vs};
        memcpy(side.volume.name, g.volume[i].name, sizeof(side.volume.name));
        if (volume_owner_get(vs, side.volume.name, &side.volume.owner) ||
            side.volume.owner.ownership == VOLUME_OWNER)
            continue;
        int one = settle_one(&s, &side);
        rc = rc ? rc : one;
    }
    free(g.volume);
    int superseded = supersede_all(&s, vs);
    return rc ? rc : superseded;
}

CO int migrate_decide(struct volumes *vs, const char *volume, bool arrived,
                      const struct migrate_exports *exports, struct vp_error *err)
{
    struct settle s = {.exports = exports};
    struct side source = {.vs = vs}, nobody = {0};
    int rc = volume_owner_get(vs, volume, &source.volume.owner);
    (void)snprintf(source.volume.name, sizeof(source.volume.name), "%s", volume);
    if (rc || !source.volume.owner.in_doubt)
        return vp_fail(err, rc ? rc : VP_E_INVALID, "volume %s/%s is not in doubt any more",
                       pool_name(volumes_pool(vs)), volume);
    return arrived ? settle_left(&s, &source, &nobody, err) : volume_intent_end(vs, volume, 0, err);
}

/* ---- giving the other side up ------------------------------------------------------------- */

/* The other side may be asked: then it is not given up. */
static CO int forget_check(const struct settle *s, struct volumes *vs, const char *volume,
                           struct volume_owner_info *o, struct vp_error *err)
{
    const char *pool = pool_name(volumes_pool(vs));
    if (o->attended)
        return vp_fail(err, VP_E_BUSY,
                       "the move of volume %s/%s is at work: see `vpool migrate status`", pool,
                       volume);
    if (o->ownership == VOLUME_SUPERSEDED)
        return vp_fail(err, VP_E_VOLUME_SUPERSEDED,
                       "volume %s/%s is an older copy of %s: delete one of them", pool, volume,
                       o->move.volume);
    if (!pool_of_uuid(s, o->move.pool))
        return 0;
    vp_ignore(migrate_settle(vs, s->open, s->open_count, s->exports), "its outcome is looked at");
    int rc = volume_owner_get(vs, volume, o);
    if (rc || o->ownership == VOLUME_OWNER)
        return 0;
    return vp_fail(err, VP_E_BUSY,
                   "the pool of %s is open, and what it says could not be recorded: nothing is "
                   "given up while it can be asked; `vpool status` says what is wrong with the "
                   "pools",
                   o->move.volume);
}

CO int migrate_forget(struct volumes *vs, const char *volume, struct volumes *const *open,
                      unsigned open_count, const struct migrate_exports *exports,
                      struct vp_error *err)
{
    struct settle s = {open, open_count, exports};
    struct volume_owner_info o;
    const char *pool = pool_name(volumes_pool(vs));
    int rc = volume_owner_get(vs, volume, &o);
    if (rc)
        return vp_fail(err, rc, "no volume %s/%s", pool, volume);
    if (o.ownership == VOLUME_OWNER)
        return vp_fail(err, VP_E_INVALID, "volume %s/%s does not move: there is nothing to forget",
                       pool, volume);
    rc = forget_check(&s, vs, volume, &o, err);
    if (rc || volume_owner_get(vs, volume, &o))
        return rc;                    /* or it is settled, and gone */
    if (o.ownership == VOLUME_INTENT) /* more than what may have arrived */
        return volume_intent_end(vs, volume, 2, err);
    if (o.ownership == VOLUME_TARGET)
        return volume_target_delete(vs, volume, err);
    return o.ownership == VOLUME_ARRIVED ? volume_arrival_confirm(vs, volume, err) : 0;
}

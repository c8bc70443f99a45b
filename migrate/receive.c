/*
 * The side that a volume comes to from another daemon (receive.h). The records are those of a move
 * within a daemon (volumes/owner.h); what the source does there with a call, it does here with a
 * message, which may come late, twice, or never.
 *
 * 1. The volume is frozen while its arrival is recorded: a request that a session has left over
 *    would be noticed, and could not land after the commit.
 * 2. An arrival that failed before its commit was tried is declined at once: the source needs an
 *    answer that stays true. When that fails too, nobody knows, and the source asks again.
 * 3. A commit that was tried and failed may be durable. The pool is fenced then, so nothing here
 *    can be deleted, and what its disks say is known when the pool is opened again.
 * 4. Clients may wait for the volume (receive_admit). The exports by which they do are recorded
 *    with its arrival. They end before the volume is closed, when it does not arrive or nobody
 *    knows.
 *
 * Tested by tests/unit/migrate/test_receive.c and by the simulator's moves between hosts.
 */
#include "migrate/receive.h"

#include "base/log.h"
#include "base/verify.h"
#include "io/guard.h"
#include "io/reactor.h"
#include "migrate/migrate_impl.h"
#include "volumes/front.h"

#include <stdlib.h>
#include <string.h>

struct receive {
    struct volumes *vs;
    char name[VOLUME_NAME_MAX + 1];
    enum receive_state state;
    bool declining;        /* its deletion was tried: it does not arrive any more */
    struct volume *target; /* NULL: not open any more */
    struct front *way;     /* to the target, for the session; NULL: its clients do not wait */
    struct receive_exports exports;
    struct vp_error why; /* why it has not arrived, or is in doubt */
};

static void receive_move(struct receive *r, enum receive_state to)
{
    VP_VERIFY_TRUE(r->state == RECEIVE_OPEN && to != RECEIVE_OPEN);
    r->state = to;
}

static CO void receive_close(struct receive *r)
{
    struct volume *v = r->target;
    struct front *way = r->way;
    r->target = NULL;
    r->way = NULL;
    if (way) {
        r->exports.end(r->exports.arg);
        volume_await_end(v, way, false);
    }
    if (v)
        volume_close(v);
}

CO int receive_begin(struct volumes *vs, const char *name, const struct migrate_offer *offer,
                     struct receive **out, struct vp_error *err)
{
    struct migrate_plan plan;
    struct vp_error ignored;
    int rc = migrate_target_check(vs, name, offer->info, &plan, err);
    if (rc)
        return rc;
    struct receive *r = calloc(1, sizeof(*r));
    if (!r)
        return vp_fail(err, VP_E_NO_MEMORY, "out of memory");
    r->vs = vs;
    r->state = RECEIVE_OPEN;
    memcpy(r->name, name, strlen(name) + 1);
    rc = volume_target_create(vs, name, offer->info, offer->epoch, &offer->source, err);
    if (rc) {
        free(r);
        return rc;
    }
    rc = volume_open_to_move(vs, name, NULL, &r->target, err);
    if (!rc) {
        *out = r;
        return 0;
    }
    vp_ignore(receive_decline(r, &ignored), "the source has no INTENT; a target is deleted later");
    receive_free(r);
    return rc;
}

struct volume *receive_volume(const struct receive *r)
{
    return r->target;
}

struct front *receive_front(const struct receive *r)
{
    return r->way ? r->way : volume_front(r->target);
}

CO int receive_admit(struct receive *r, const struct receive_exports *x)
{
    VP_VERIFY_TRUE(r->state == RECEIVE_OPEN && r->target && !r->way);
    r->exports = *x;
    return volume_await_begin(r->target, &r->way);
}

enum receive_state receive_state(const struct receive *r)
{
    return r->state;
}

/* ---- the arrival -------------------------------------------------------------------------- */

/* Does not wait: whoever ended the session has waited for its requests. */
static CO int quiet_on_reactor(void *front)
{
    struct front_late late;
    int rc = front_freeze(front, reactor_now_ns(), &late);
    return rc == VP_E_TIMED_OUT ? VP_E_BUSY : rc;
}

static int thaw_on_reactor(void *front)
{
    front_thaw(front);
    return 0;
}

/* ARRIVED, in one commit with the records of the exports. */
static CO int receive_record(struct receive *r, bool *in_doubt)
{
    struct pool_batch b;
    pool_batch_init(&b);
    int rc = r->way ? r->exports.arrive(r->exports.arg, &b) : 0;
    if (!rc)
        rc = volume_arrive(r->vs, r->name, &b, in_doubt);
    pool_batch_fini(&b);
    return rc;
}

static CO int receive_commit(struct receive *r, bool *in_doubt)
{
    struct volume *v = r->target;
    struct front *way = receive_front(r);
    *in_doubt = false;
    int rc = reactor_call(volume_reactor(v), quiet_on_reactor, way);
    if (rc)
        return rc;
    rc = receive_record(r, in_doubt);
    if (rc || !r->way) {
        vp_ignore(reactor_call(volume_reactor(v), thaw_on_reactor, way), "it cannot fail");
        return rc;
    }
    r->way = NULL;
    volume_await_end(v, way, true); /* clients that wait are served */
    return 0;
}

/* Nobody answers for its record any more: ARRIVED is confirmed by the source or given up. */
static CO void receive_end(struct receive *r, enum receive_state as)
{
    receive_move(r, as);
    receive_close(r);
    volume_move_unattended(r->vs, r->name);
}

/* As it is now. An OPEN one cannot arrive any more, and is declined first. */
static CO int receive_verdict(struct receive *r, enum migrate_verdict *verdict,
                              struct vp_error *err)
{
    struct vp_error deletion;
    if (r->state == RECEIVE_OPEN)
        vp_ignore(receive_decline(r, &deletion), "it stays OPEN then");
    *err = r->why;
    switch (r->state) {
    case RECEIVE_ARRIVED:
        *verdict = MIGRATE_HAS_ARRIVED;
        return 0;
    case RECEIVE_DECLINED:
        *verdict = MIGRATE_HAS_NOT;
        return 0;
    case RECEIVE_OPEN:
    case RECEIVE_IN_DOUBT:
        break;
    }
    *verdict = MIGRATE_NOT_KNOWN;
    return r->why.rc;
}

CO int receive_arrive(struct receive *r, enum migrate_verdict *verdict, struct vp_error *err)
{
    const char *pool = pool_name(volumes_pool(r->vs));
    bool in_doubt;
    *verdict = MIGRATE_NOT_KNOWN;
    if (r->state != RECEIVE_OPEN || r->declining)
        return receive_verdict(r, verdict, err);
    int rc = receive_commit(r, &in_doubt);
    if (rc == VP_E_BUSY)
        return vp_fail(err, rc, "requests of the source to volume %s/%s are still at work", pool,
                       r->name);
    if (rc)
        vp_ignore(vp_fail(&r->why, rc, "the arrival at %s/%s could not be recorded: %s", pool,
                          r->name, vp_err_text(rc)),
                  "it is kept");
    if (!rc || in_doubt)
        receive_end(r, rc ? RECEIVE_IN_DOUBT : RECEIVE_ARRIVED);
    return receive_verdict(r, verdict, err);
}

CO int receive_decline(struct receive *r, struct vp_error *err)
{
    const char *pool = pool_name(volumes_pool(r->vs));
    if (r->state == RECEIVE_DECLINED)
        return 0;
    if (r->state != RECEIVE_OPEN)
        return vp_fail(err, VP_E_BUSY, "volume %s/%s %s: that cannot be undone here", pool, r->name,
                       r->state == RECEIVE_ARRIVED ? "has arrived" : "may have arrived");
    r->declining = true;
    receive_close(r);
    int rc = volume_target_delete(r->vs, r->name, err);
    if (!rc)
        receive_move(r, RECEIVE_DECLINED);
    if (!r->why.rc)
        vp_ignore(vp_fail(&r->why, rc ? rc : VP_E_CANCELLED, "volume %s/%s was declined%s%s", pool,
                          r->name, rc ? ", and that could not be recorded: " : "",
                          rc ? err->text : ""),
                  "it is kept");
    return rc;
}

CO void receive_free(struct receive *r)
{
    if (!r)
        return;
    receive_close(r);
    if (r->state == RECEIVE_OPEN)
        volume_move_unattended(r->vs, r->name);
    free(r);
}

/* ---- moves that nobody here is at work for ------------------------------------------------ */

/* The volume's record, if there is one. The name is copied. */
static bool claim_find(struct volumes *vs, const struct receive_claim *c, char *name,
                       struct volume_owner_info *o)
{
    const char *found = volume_name_of_uuid(vs, c->volume);
    if (!found || volume_owner_get(vs, found, o))
        return false;
    memcpy(name, found, strlen(found) + 1);
    return true;
}

static int claim_is_damaged(struct volumes *vs, struct vp_error *err)
{
    return vp_fail(err, VP_E_RECORD_BAD,
                   "the record of a volume of pool %s is damaged, and it may be this one",
                   pool_name(volumes_pool(vs)));
}

/* `target`: what is there of the move, or NULL. */
static CO int claim_has_not(struct volumes *vs, const char *target, enum migrate_verdict *verdict,
                            struct vp_error *err)
{
    int rc = target && io_guard_on(GUARD_MOVE_DECLINES_FIRST)
                 ? volume_target_delete(vs, target, err)
                 : 0;
    if (rc)
        return rc;
    vp_ignore(vp_fail(err, VP_E_NOT_FOUND, "the volume has not arrived in pool %s",
                      pool_name(volumes_pool(vs))),
              "the verdict says it");
    *verdict = MIGRATE_HAS_NOT;
    return 0;
}

CO int receive_decide(struct volumes *vs, const struct receive_claim *c,
                      enum migrate_verdict *verdict, struct vp_error *err)
{
    char name[VOLUME_NAME_MAX + 1];
    struct volume_owner_info o;
    *verdict = MIGRATE_NOT_KNOWN;
    if (!claim_find(vs, c, name, &o))
        return volumes_have_damaged_record(vs) ? claim_is_damaged(vs, err)
                                               : claim_has_not(vs, NULL, verdict, err);
    if (o.ownership != VOLUME_TARGET && o.epoch > c->epoch) {
        *verdict = MIGRATE_HAS_ARRIVED;
        return 0;
    }
    bool target = o.ownership == VOLUME_TARGET && vp_uuid_equal(o.move.id, c->move);
    return claim_has_not(vs, target ? name : NULL, verdict, err);
}

CO int receive_confirm(struct volumes *vs, const struct receive_claim *c, struct vp_error *err)
{
    char name[VOLUME_NAME_MAX + 1];
    struct volume_owner_info o;
    if (!claim_find(vs, c, name, &o))
        return volumes_have_damaged_record(vs) ? claim_is_damaged(vs, err) : 0;
    bool arrived = o.ownership == VOLUME_ARRIVED && vp_uuid_equal(o.move.id, c->move);
    return arrived ? volume_arrival_confirm(vs, name, err) : 0;
}

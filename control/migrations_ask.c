/*
 * Other daemons are asked again and again:
 *
 * - what became of volumes in doubt, whose other side they have;
 * - to confirm that they know of volumes that have become theirs and are deleted here
 *   (volumes/left.c). Without that they would not delete such a volume.
 *
 * Neither the daemon's lock nor a pool is held while another daemon is waited for. What it says
 * stays true, since it says "arrived" or "never will": so it does not matter what happened here
 * meanwhile, as long as it is still this move that is in doubt.
 */
#include "control/migrate_exports.h"
#include "control/move_out.h"

#include "base/log.h"
#include "io/reactor.h"

#include <stdio.h>
#include <string.h>

struct question {
    struct vp_uuid pool; /* it is found again when there is an answer: whoever takes a pool away
                            waits for references on it, with the lock held */
    char volume[VOLUME_NAME_MAX + 1];
    struct volume_owner_info owner;
};

static bool is_asked(const struct volume_owner_info *o)
{
    return o->ownership == VOLUME_INTENT && o->in_doubt && o->move.peer[0];
}

struct question_walk {
    struct question *question;
    unsigned skip;
};

static int question_find(const char *name, const struct volume_owner_info *o, void *arg)
{
    struct question_walk *w = arg;
    if (!is_asked(o) || w->skip-- > 0)
        return 0;
    memcpy(w->question->volume, name, strlen(name) + 1);
    w->question->owner = *o;
    return 1;
}

/* The n-th one. False: there are less. */
static bool question_next(struct control *c, unsigned n, struct question *q)
{
    struct question_walk w = {.question = q, .skip = n};
    const struct control_pool *p;
    list_for_each (p, &c->pools, link) {
        if (!p->vs || !volume_each_moved(p->vs, question_find, &w))
            continue;
        q->pool = p->uuid;
        return true;
    }
    return false;
}

/* Whether it is still this move of this volume that is in doubt. */
static bool question_stands(const struct control_pool *p, const struct question *q)
{
    struct volume_owner_info o;
    return p && p->vs && volume_owner_get(p->vs, q->volume, &o) == 0 && is_asked(&o) &&
           vp_uuid_equal(o.uuid, q->owner.uuid) && vp_uuid_equal(o.move.id, q->owner.move.id);
}

/* Told once, until one is settled. */
static void answer_tell_failed(struct control *c, const char *volume, const struct vp_error *err)
{
    if (!c->migrations.answer_failed)
        control_event(c, VP_LOG_WARN, "migration.in-doubt", volume,
                      "what became of it could not be recorded (%s): it is tried again", err->text);
    c->migrations.answer_failed = true;
}

/* control.lock is held. Whether it is settled. */
static CO bool answer_settle(struct control *c, struct control_pool *p, const struct question *q,
                             bool arrived)
{
    const struct migrate_exports exports = control_settle_exports(c);
    struct vp_error err = {0};
    char full[VOLUME_FULL_NAME_BYTES];
    control_volume_name(p->name, q->volume, full);
    if (migrate_decide(p->vs, q->volume, arrived, &exports, &err)) {
        answer_tell_failed(c, full, &err);
        return false;
    }
    c->migrations.answer_failed = false;
    control_event(c, VP_LOG_INFO, "migration.settled", full, "%s %s at %s",
                  arrived ? "is gone: it has become"
                          : "stays here: the move ended without effect, there is no",
                  q->owner.move.volume, q->owner.move.peer);
    attachments_retry_now(c);
    return true;
}

static CO bool answer_take(struct control *c, const struct question *q, bool arrived)
{
    char uuid[VP_UUID_TEXT];
    co_mutex_lock(&c->lock);
    struct control_pool *p = control_pool_find(c, vp_uuid_format(q->pool, uuid));
    bool settled = !c->stopping && question_stands(p, q) && answer_settle(c, p, q, arrived);
    co_mutex_unlock(&c->lock);
    return settled;
}

/* Whether it is settled. */
static CO bool question_ask(struct control *c, const struct question *q)
{
    const struct volume_owner_info *o = &q->owner;
    const struct receive_claim claim = {.move = o->move.id, .volume = o->uuid, .epoch = o->epoch};
    enum migrate_verdict verdict;
    struct vp_error err = {0};
    int rc = move_out_decide(o->move.peer, o->move.pool, &claim, &verdict, &err);
    if (rc || verdict == MIGRATE_NOT_KNOWN) {
        vp_debug("volume %s is in doubt: %s", q->volume, err.text);
        return false;
    }
    bool arrived = verdict == MIGRATE_HAS_ARRIVED;
    if (!answer_take(c, q, arrived))
        return false;
    if (arrived)
        c->migrations.tell_ns = 0; /* it is told at once that the source is deleted */
    return true;
}

/* ---- volumes that have left ---------------------------------------------------------------- */

#define TELL_NS UINT64_C(5000000000) /* between two times that all are told */

struct left_find {
    struct control *c;
    struct volume_left *left;
    unsigned skip;
};

/* A move at work tells it itself. */
static int left_find(const struct volume_left *l, void *arg)
{
    struct left_find *f = arg;
    const struct migration *g = migration_find(f->c, l->move.id);
    if ((g && !migration_has_ended(g)) || f->skip-- > 0)
        return 0;
    *f->left = *l;
    return 1;
}

/* The n-th one, and its pool's uuid. False: there are less. */
static bool left_next(struct control *c, unsigned n, struct vp_uuid *pool, struct volume_left *l)
{
    struct left_find f = {.c = c, .left = l, .skip = n};
    const struct control_pool *p;
    list_for_each (p, &c->pools, link) {
        if (!p->vs || !volumes_left_each(p->vs, left_find, &f))
            continue;
        *pool = p->uuid;
        return true;
    }
    return false;
}

/* control.lock is held. Whether the pool there, which is open in this daemon now, knows it. */
static CO bool left_tell_here(struct control *c, const struct volume_left *l,
                              const struct receive_claim *claim)
{
    struct vp_error err = {0};
    char uuid[VP_UUID_TEXT];
    const struct control_pool *there = control_pool_find(c, vp_uuid_format(l->move.pool, uuid));
    if (!there || !there->vs)
        return false;
    int rc = receive_confirm(there->vs, claim, &err);
    if (rc)
        vp_debug("%s: %s", l->move.volume, err.text);
    return rc == 0;
}

/* The note goes. */
static CO bool left_take(struct control *c, struct vp_uuid pool, const struct volume_left *l,
                         const struct receive_claim *claim, bool is_told)
{
    char uuid[VP_UUID_TEXT];
    co_mutex_lock(&c->lock);
    struct control_pool *p = c->stopping ? NULL : control_pool_find(c, vp_uuid_format(pool, uuid));
    if (p && p->vs && !is_told)
        is_told = left_tell_here(c, l, claim);
    bool gone =
        p && p->vs && is_told && volumes_left_forget(p->vs, l->move.id) == 0; /* else told again */
    co_mutex_unlock(&c->lock);
    return gone;
}

/* Whether nobody has to be told any more. */
static CO bool left_tell(struct control *c, struct vp_uuid pool, const struct volume_left *l)
{
    const struct receive_claim claim = {.move = l->move.id, .volume = l->uuid, .epoch = l->epoch};
    struct vp_error err = {0};
    if (left_take(c, pool, l, &claim, false))
        return true;
    int rc = move_out_confirm(l->move.peer, l->move.pool, &claim, &c->stopping, &err);
    if (rc)
        vp_debug("%s has left for %s: %s", l->name, l->move.volume, err.text);
    return rc == 0 && left_take(c, pool, l, &claim, true);
}

static CO void tell_all(struct control *c)
{
    struct volume_left l;
    struct vp_uuid pool;
    unsigned skip = 0;
    if (reactor_now_ns() < c->migrations.tell_ns)
        return;
    while (!c->stopping && left_next(c, skip, &pool, &l))
        if (!left_tell(c, pool, &l))
            skip++;
    c->migrations.tell_ns = reactor_now_ns() + TELL_NS;
}

/* ---- all ------------------------------------------------------------------------------------ */

static CO void ask_all(void *arg)
{
    struct control *c = arg;
    struct question q;
    unsigned skip = 0;
    while (!c->stopping && question_next(c, skip, &q))
        if (!question_ask(c, &q))
            skip++;
    tell_all(c);
    migrations_look_left(c);
    c->migrations.asking = false;
    if (c->stopping)
        co_queue_wake_all(&c->state_changed);
}

void migrations_ask(struct control *c)
{
    struct question q;
    struct volume_left l;
    struct vp_uuid pool;
    bool tells = reactor_now_ns() >= c->migrations.tell_ns && left_next(c, 0, &pool, &l);
    if (c->migrations.asking || c->stopping || !(tells || question_next(c, 0, &q)))
        return;
    c->migrations.asking = true;
    if (co_spawn(ask_all, c, "asking other daemons about moves"))
        c->migrations.asking = false; /* at the next look, then */
}

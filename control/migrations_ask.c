/*
 * Volumes in doubt whose other side is in another daemon: that one is asked, again and again, what
 * became of them.
 *
 * The daemon's lock is not held while another daemon is waited for. What it says stays true, since
 * it says "arrived" or "never will": so it does not matter what happened here meanwhile, except
 * that the volume may not be in doubt any more.
 */
#include "control/migrate_exports.h"
#include "control/move_out.h"

#include "base/log.h"

#include <stdio.h>
#include <string.h>

struct question {
    struct control_pool *pool; /* a reference */
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

/* The n-th one, with a reference on its pool. False: there are less. */
static bool question_next(struct control *c, unsigned n, struct question *q)
{
    struct question_walk w = {.question = q, .skip = n};
    struct control_pool *p;
    list_for_each (p, &c->pools, link) {
        if (!p->vs || !volume_each_moved(p->vs, question_find, &w))
            continue;
        q->pool = p;
        p->users++;
        return true;
    }
    return false;
}

/* control.lock is held. */
static CO int answer_settle(struct control *c, struct question *q, bool arrived)
{
    const struct migrate_exports exports = control_settle_exports(c);
    struct vp_error err = {0};
    char full[VOLUME_FULL_NAME_BYTES];
    int rc = migrate_decide(q->pool->vs, q->volume, arrived, &exports, &err);
    control_volume_name(q->pool->name, q->volume, full);
    if (rc == 0)
        control_event(c, VP_LOG_INFO, "migration.settled", full, "%s %s at %s",
                      arrived ? "is gone: it has become"
                              : "stays here: the move ended without effect, there is no",
                      q->owner.move.volume, q->owner.move.peer);
    else if (rc != VP_E_INVALID && rc != VP_E_NOT_FOUND)
        control_event(c, VP_LOG_WARN, "migration.in-doubt", full,
                      "what became of it could not be recorded (%s): it is tried again", err.text);
    if (rc == 0)
        attachments_retry_now(c);
    return rc;
}

/* Whether it is settled. */
static CO bool question_ask(struct control *c, struct question *q)
{
    const struct volume_owner_info *o = &q->owner;
    const struct receive_claim claim = {.move = o->move.id, .volume = o->uuid, .epoch = o->epoch};
    enum migrate_verdict verdict;
    struct vp_error err = {0};
    int rc = move_out_decide(o->move.peer, o->move.pool, &claim, &verdict, &err);
    if (rc || verdict == MIGRATE_NOT_KNOWN) {
        vp_debug("%s/%s is in doubt: %s", q->pool->name, q->volume, err.text);
        return false;
    }
    co_mutex_lock(&c->lock);
    bool settled =
        !c->stopping && q->pool->vs && answer_settle(c, q, verdict == MIGRATE_HAS_ARRIVED) == 0;
    co_mutex_unlock(&c->lock);
    if (settled && verdict == MIGRATE_HAS_ARRIVED &&
        move_out_confirm(o->move.peer, o->move.pool, &claim, &err))
        vp_warn("%s/%s: %s", q->pool->name, q->volume, err.text);
    return settled;
}

static CO void ask_all(void *arg)
{
    struct control *c = arg;
    struct question q;
    unsigned skip = 0;
    while (!c->stopping && question_next(c, skip, &q)) {
        if (!question_ask(c, &q))
            skip++;
        control_pool_put(q.pool);
    }
    migrations_look_left(c);
    c->migrations.asking = false;
    if (c->stopping)
        co_queue_wake_all(&c->state_changed);
}

void migrations_ask(struct control *c)
{
    struct question q;
    if (c->migrations.asking || c->stopping || !question_next(c, 0, &q))
        return;
    control_pool_put(q.pool);
    c->migrations.asking = true;
    if (co_spawn(ask_all, c, "asking about volumes in doubt"))
        c->migrations.asking = false; /* at the next look, then */
}

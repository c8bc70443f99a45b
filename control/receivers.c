/* See receivers.h. */
#include "control/receivers_impl.h"

#include "base/verify.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INT(v)    ((json_int_t)(v))
#define SECOND_NS UINT64_C(1000000000)

void receivers_init(struct receivers *rs)
{
    uint8_t random[16];
    list_init(&rs->at_work);
    list_init(&rs->ended);
    list_init(&rs->messages);
    co_queue_init(&rs->unwatched);
    reactor_random(random, sizeof(random));
    rs->life = vp_uuid_from_random(random);
}

void receivers_fini(struct receivers *rs)
{
    struct receiver *r, *next;
    VP_VERIFY_TRUE(list_empty(&rs->at_work));
    list_for_each_safe (r, next, &rs->ended, link) {
        VP_VERIFY(r->users, ==, 0U);
        list_del(&r->link);
        free(r);
    }
}

/* ---- one message at a time ----------------------------------------------------------------- */

struct receiver *receiver_find(const struct control *c, struct vp_uuid id)
{
    struct receiver *r;
    list_for_each (r, &c->receivers.at_work, link)
        if (vp_uuid_equal(r->id, id))
            return r;
    return NULL;
}

static void receiver_put(struct receiver *r)
{
    if (--r->users == 0 && r->forgotten)
        free(r);
}

void receiver_unlock(struct receiver *r)
{
    co_mutex_unlock(&r->lock);
    receiver_put(r);
}

CO bool receiver_lock(struct receiver *r)
{
    r->users++;
    co_mutex_lock(&r->lock);
    if (r->receive)
        return true;
    receiver_unlock(r);
    return false;
}

/* ---- the end ------------------------------------------------------------------------------- */

CO void receiver_session_end(struct receiver *r)
{
    struct nbdx_server *s = r->session;
    r->session = NULL;
    if (s)
        nbdx_server_stop(s, 0);
}

static uint64_t receiver_copied(const struct receiver *r)
{
    struct volume_info info;
    const char *slash = strchr(r->volume, '/');
    if (!r->pool || !r->receive || volume_info_get(r->pool->vs, slash + 1, &info))
        return r->copied_bytes;
    return info.valid_bytes;
}

static void receiver_tell_end(struct receiver *r)
{
    struct control *c = r->control;
    switch (receive_state(r->receive)) {
    case RECEIVE_ARRIVED:
        r->phase = migrate_phase_name(MIGRATE_DONE);
        control_event(c, VP_LOG_INFO, "migration.arrived", r->volume, "it was %s of %s", r->from,
                      r->host);
        break;
    case RECEIVE_DECLINED:
        r->phase = migrate_phase_name(MIGRATE_CANCELLED);
        control_event(c, VP_LOG_INFO, "migration.declined", r->volume,
                      "it does not come from %s of %s, and is deleted: %s", r->from, r->host,
                      r->error);
        break;
    case RECEIVE_OPEN:
        r->phase = migrate_phase_name(MIGRATE_FAILED);
        control_event(c, VP_LOG_ERROR, "migration.failed", r->volume,
                      "it does not come from %s of %s, and could not be deleted yet: %s", r->from,
                      r->host, r->error);
        break;
    case RECEIVE_IN_DOUBT:
        r->phase = migrate_phase_name(MIGRATE_IN_DOUBT);
        control_event(c, VP_LOG_ERROR, "migration.failed", r->volume,
                      "nobody knows whether it has come from %s of %s: %s", r->from, r->host,
                      r->error);
    }
}

static void receiver_forget(struct receiver *r)
{
    list_del(&r->link);
    r->forgotten = true;
    if (r->users == 0)
        free(r);
}

CO void receiver_end(struct receiver *r)
{
    struct control *c = r->control;
    struct receivers *rs = &c->receivers;
    enum receive_state state = receive_state(r->receive);
    receiver_session_end(r);
    r->copied_bytes = receiver_copied(r);
    receiver_tell_end(r);
    receive_free(r->receive);
    r->receive = NULL;
    r->ended_at = reactor_wall_seconds();
    c->migrations.unsettled |= state == RECEIVE_OPEN || state == RECEIVE_IN_DOUBT;
    control_pool_put(r->pool);
    r->pool = NULL;
    list_del(&r->link);
    rs->count--;
    list_add_tail(&rs->ended, &r->link);
    co_queue_wake_all(&r->ended);
    if (rs->ended_count++ < RECEIVERS_REMEMBERED)
        return;
    rs->ended_count--;
    receiver_forget(list_first(&rs->ended, struct receiver, link));
}

void receiver_note(struct receiver *r, const char *why)
{
    if (!r->error[0])
        (void)snprintf(r->error, sizeof(r->error), "%s", why);
}

CO int receiver_decline(struct receiver *r, const char *why, struct vp_error *err)
{
    receiver_session_end(r);
    int rc = receive_decline(r->receive, err);
    receiver_note(r, rc ? err->text : why);
    receiver_end(r);
    return rc;
}

/* ---- the source's silence ------------------------------------------------------------------ */

static CO void receiver_watch(void *arg)
{
    struct receiver *r = arg;
    struct receivers *rs = &r->control->receivers;
    const uint64_t patience_ns = RECEIVER_PATIENCE_S * SECOND_NS;
    struct vp_error err;
    while (r->pool) {
        uint64_t due_ns = r->heard_ns + patience_ns;
        if (reactor_now_ns() < due_ns) {
            vp_ignore(co_queue_wait_until(&r->ended, due_ns, "news of a move's source"),
                      "it looks again");
        } else if (receiver_lock(r)) {
            if (reactor_now_ns() >= r->heard_ns + patience_ns)
                vp_ignore(receiver_decline(r, "its source was silent for 60 s", &err),
                          "an event has told");
            receiver_unlock(r);
        }
    }
    receiver_put(r);
    rs->watched--;
    co_queue_wake_all(&rs->unwatched);
}

static int receiver_watch_begin(struct receiver *r)
{
    r->users++;
    r->control->receivers.watched++;
    int rc = co_spawn(receiver_watch, r, "source of a move");
    if (rc) {
        r->users--;
        r->control->receivers.watched--;
    }
    return rc;
}

/* ---- the begin ----------------------------------------------------------------------------- */

static void secret_draw(char out[static RECEIVER_SECRET_TEXT])
{
    uint8_t random[(RECEIVER_SECRET_TEXT - 1) / 2];
    reactor_random(random, sizeof(random));
    for (size_t i = 0; i < sizeof(random); i++)
        (void)snprintf(out + 2 * i, 3, "%02x", random[i]);
}

static int make_check(struct control *c, const struct control_pool *p, const char *volume,
                      const struct migrate_offer *o, struct vp_error *err)
{
    const struct receiver *r;
    if (c->stopping)
        return vp_fail(err, VP_E_SHUTDOWN, "the daemon is stopping");
    if (control_pool_is_leaving(p))
        return vp_fail(err, VP_E_NOT_FOUND, "pool '%s' is being closed", p->name);
    if (c->receivers.count >= RECEIVERS_MAX)
        return vp_fail(err, VP_E_AGAIN, "%d volumes come here already: try again later",
                       RECEIVERS_MAX);
    list_for_each (r, &c->receivers.at_work, link) {
        const char *name = strchr(r->volume, '/') + 1;
        if (vp_uuid_equal(r->id, o->source.id) ||
            (r->pool == p &&
             (vp_uuid_equal(r->volume_uuid, o->info->uuid) || strcmp(name, volume) == 0)))
            return vp_fail(err, VP_E_EXISTS,
                           "%s comes from %s of %s already: wait for that, or end it with `vpool "
                           "migrate cancel %s` here",
                           r->volume, r->from, r->host, r->volume);
    }
    return 0;
}

static struct receiver *receiver_new(struct control *c, struct control_pool *p, const char *volume,
                                     const struct migrate_offer *o)
{
    struct receiver *r = calloc(1, sizeof(*r));
    if (!r)
        return NULL;
    r->control = c;
    r->pool = p;
    p->users++;
    co_mutex_init(&r->lock);
    co_queue_init(&r->ended);
    r->id = o->source.id;
    r->source_pool = o->source.pool;
    r->volume_uuid = o->info->uuid;
    r->epoch = o->epoch;
    r->total_bytes = o->info->valid_bytes;
    control_volume_name(p->name, volume, r->volume);
    (void)snprintf(r->from, sizeof(r->from), "%s", o->source.volume);
    (void)snprintf(r->host, sizeof(r->host), "%s", o->source.peer);
    secret_draw(r->secret);
    r->heard_ns = reactor_now_ns();
    r->started = reactor_wall_seconds();
    r->phase = "receiving";
    list_add_tail(&c->receivers.at_work, &r->link);
    c->receivers.count++;
    return r;
}

/* It has not begun. In the lock. */
static void receiver_abandon(struct receiver *r)
{
    control_pool_put(r->pool);
    r->pool = NULL;
    r->control->receivers.count--;
    receiver_forget(r);
}

/* In the lock. */
static CO int receiver_begin(struct receiver *r, const char *volume, const struct migrate_offer *o,
                             struct vp_error *err)
{
    int rc = receive_begin(r->pool->vs, volume, o, &r->receive, err);
    if (rc) {
        receiver_abandon(r);
        return rc;
    }
    const struct receive_exports exports = receiver_exports(r);
    rc = receive_admit(r->receive, &exports);
    if (!rc)
        rc = receiver_watch_begin(r);
    if (!rc)
        return 0;
    struct vp_error ignored;
    vp_ignore(receiver_decline(r, "too much is going on", &ignored), "an event has told");
    return vp_fail(err, rc, "too much is going on: try again");
}

/* A source that offers its volume again has lost what it knew of the move before, which never
 * arrives then: its pool says OWNER. */
static struct receiver *receiver_before(const struct control *c, const struct migrate_offer *o)
{
    struct receiver *r;
    list_for_each (r, &c->receivers.at_work, link)
        if (!vp_uuid_equal(r->id, o->source.id) && vp_uuid_equal(r->volume_uuid, o->info->uuid) &&
            vp_uuid_equal(r->source_pool, o->source.pool))
            return r;
    return NULL;
}

static CO void receiver_replace(struct control *c, const struct migrate_offer *o)
{
    struct receiver *r;
    struct vp_error err = {0};
    bool failed = false;
    while (!failed && (r = receiver_before(c, o))) {
        if (!receiver_lock(r))
            continue;
        failed =
            receiver_decline(r, "its source has begun anew", &err) != 0; /* make_check says it */
        receiver_unlock(r);
    }
}

CO int receiver_make(struct control *c, struct control_pool *p, const char *volume,
                     const struct migrate_offer *o, struct receiver_made *out, struct vp_error *err)
{
    receiver_replace(c, o);
    int rc = make_check(c, p, volume, o, err);
    if (rc)
        return rc;
    struct receiver *r = receiver_new(c, p, volume, o);
    if (!r)
        return vp_fail(err, VP_E_NO_MEMORY, "out of memory");
    r->users++;
    co_mutex_lock(&r->lock);
    rc = receiver_begin(r, volume, o, err);
    if (rc == 0) {
        memcpy(out->volume, r->volume, sizeof(out->volume));
        memcpy(out->secret, r->secret, sizeof(out->secret));
        control_event(c, VP_LOG_INFO, "migration.receiving", r->volume, "from %s of %s", r->from,
                      r->host);
    }
    receiver_unlock(r);
    return rc;
}

/* ---- finding and showing ------------------------------------------------------------------- */

static json_t *number_or_null(uint64_t n)
{
    return n ? json_integer(INT(n)) : json_null();
}

/* With the keys of a move that starts here (migration_json), as far as they are known. */
static json_t *receiver_json(const struct receiver *r)
{
    char id[VP_UUID_TEXT];
    return json_pack("{s:s, s:s, s:s, s:s, s:b, s:n, s:s, s:n, s:I, s:o, s:I, s:I, s:s}", "id",
                     vp_uuid_format(r->id, id), "from", r->from, "to", r->volume, "peer", r->host,
                     "incoming", 1, "mode", "phase", r->phase, "job", "started", INT(r->started),
                     "ended", number_or_null(r->ended_at), "total_bytes", INT(r->total_bytes),
                     "copied_bytes", INT(receiver_copied(r)), "error", r->error);
}

void receivers_add_json(struct control *c, const char *volume, json_t *all)
{
    struct list *const lists[] = {&c->receivers.at_work, &c->receivers.ended};
    for (unsigned i = 0; i < 2; i++) {
        const struct receiver *r;
        list_for_each (r, lists[i], link)
            if ((r->receive || !r->pool) && (!volume || strcmp(r->volume, volume) == 0) &&
                json_array_append_new(all, receiver_json(r)))
                return; /* no memory: some are missing */
    }
}

json_t *receiver_json_of(struct control *c, struct vp_uuid id)
{
    struct list *const lists[] = {&c->receivers.at_work, &c->receivers.ended};
    for (unsigned i = 0; i < 2; i++) {
        const struct receiver *r;
        list_for_each (r, lists[i], link)
            if (vp_uuid_equal(r->id, id))
                return receiver_json(r);
    }
    return NULL;
}

int receivers_refuse(const struct control *c, const struct control_pool *p, const char *what,
                     struct vp_error *err)
{
    const struct receiver *r;
    list_for_each (r, &c->receivers.at_work, link)
        if (r->pool == p)
            return vp_fail(err, VP_E_BUSY,
                           "%s comes from %s of %s: wait for its end or cancel it (`vpool migrate "
                           "cancel %s`) before you %s pool '%s'",
                           r->volume, r->from, r->host, r->volume, what, p->name);
    return 0;
}

/* ---- asked to end -------------------------------------------------------------------------- */

static struct receiver *receiver_by_volume(struct control *c, const char *volume)
{
    struct receiver *r;
    list_for_each (r, &c->receivers.at_work, link)
        if (strcmp(r->volume, volume) == 0)
            return r;
    return NULL;
}

static int receiver_none(const char *volume, struct vp_error *err)
{
    return vp_fail(err, VP_E_NOT_FOUND,
                   "%s does not move: `vpool migrate status` shows what moves, and what has "
                   "moved",
                   volume);
}

int receiver_refuse(struct control *c, const char *volume, const char *what, struct vp_error *err)
{
    const struct receiver *r = receiver_by_volume(c, volume);
    return r ? vp_fail(err, VP_E_INVALID,
                       "%s comes from the daemon %s, which copies it: %s the move of %s there",
                       volume, r->host, what, r->from)
             : receiver_none(volume, err);
}

CO int receiver_cancel(struct control *c, const char *volume, json_t **out, struct vp_error *err)
{
    struct receiver *found = receiver_by_volume(c, volume);
    if (!found || !receiver_lock(found))
        return receiver_none(volume, err);
    int rc = receiver_decline(found, "it was cancelled here", err);
    if (rc == 0)
        *out = receiver_json(found);
    receiver_unlock(found);
    return rc;
}

CO void receivers_end(struct control *c)
{
    struct receivers *rs = &c->receivers;
    struct vp_error err;
    while (!list_empty(&rs->at_work)) {
        struct receiver *r = list_first(&rs->at_work, struct receiver, link);
        if (!receiver_lock(r))
            continue;
        vp_ignore(receiver_decline(r, "the daemon stops", &err), "it is settled at the next start");
        receiver_unlock(r);
    }
    while (rs->watched)
        co_queue_wait(&rs->unwatched, "moves that came here have ended");
}

/*
 * Who owns a volume that moves: the changes of its record (owner.h), and who may open it.
 *
 * 1. A change is durable before it is seen, also by those who open the volume.
 * 2. `attended`: a move that is at work in this daemon answers for INTENT, TARGET and ARRIVED.
 *    After an import nobody does, until migrate_settle or the operator has decided.
 *
 * Tested by tests/unit/volumes/test_owner.c, and by the simulator's moves.
 */
#include "base/log.h"
#include "base/verify.h"
#include "io/guard.h"
#include "volumes/volumes_impl.h"

/* ---- looking ------------------------------------------------------------------------------ */

/* For everybody but the records: a volume that is about to leave is treated as INTENT. */
static enum volume_ownership volume_ownership(const struct volume *v)
{
    return v->leaving ? VOLUME_INTENT : v->owner.ownership;
}

static bool is_in_doubt(const struct volume *v)
{
    return v->owner.ownership == VOLUME_INTENT && !v->attended;
}

static void owner_fill(const struct volume *v, struct volume_owner_info *out)
{
    *out = (struct volume_owner_info){.ownership = volume_ownership(v),
                                      .in_doubt = is_in_doubt(v),
                                      .attended = v->attended,
                                      .epoch = v->owner.epoch,
                                      .uuid = v->uuid,
                                      .move = v->leaving ? *v->leaving : v->owner.move};
}

int volume_owner_get(struct volumes *vs, const char *name, struct volume_owner_info *out)
{
    const struct volume *v = volume_find(vs, name);
    if (!v)
        return VP_E_NOT_FOUND;
    owner_fill(v, out);
    return 0;
}

static bool is_live(const struct volume *v)
{
    return v->state != VOLUME_DELETING && !v->name->pending;
}

const char *volume_name_of_uuid(struct volumes *vs, struct vp_uuid uuid)
{
    const struct volume *v;
    list_for_each (v, &vs->all, link)
        if (is_live(v) && vp_uuid_equal(v->uuid, uuid))
            return volume_text(v);
    return NULL;
}

bool volumes_have_damaged_record(const struct volumes *vs)
{
    return vs->damaged_record;
}

int volume_each_moved(struct volumes *vs,
                      int (*fn)(const char *name, const struct volume_owner_info *o, void *arg),
                      void *arg)
{
    const struct volume *v;
    list_for_each (v, &vs->all, link) {
        struct volume_owner_info o;
        int rc = 0;
        if (!is_live(v) || (volume_ownership(v) == VOLUME_OWNER && v->owner.epoch == 1))
            continue;
        owner_fill(v, &o);
        CO_NO_YIELD {
            rc = fn(volume_text(v), &o, arg);
        }
        if (rc)
            return rc;
    }
    return 0;
}

static int check_stays_arrived(const struct volume *v, struct vp_error *err)
{
    const struct volume_move *m = &v->owner.move;
    if (m->peer[0])
        return vp_fail(err, VP_E_VOLUME_MOVING,
                       "volume %s has arrived from %s of %s, which has not said yet that it is "
                       "deleted there: wait, or use `vpool migrate forget %s` if it never will",
                       volume_full_name(v), m->volume, m->peer, volume_full_name(v));
    return vp_fail(err, VP_E_VOLUME_MOVING,
                   "volume %s has arrived from %s, and that pool has not been told yet: it is "
                   "when both pools are open, or use `vpool migrate forget %s` if the old pool "
                   "will never come back",
                   volume_full_name(v), m->volume, volume_full_name(v));
}

/* A move within a daemon is cancelled by the name of its source. */
static int check_stays_target(const struct volume *v, struct vp_error *err)
{
    const struct volume_move *m = &v->owner.move;
    bool here = !v->attended || m->peer[0];
    return vp_fail(err, VP_E_VOLUME_MOVING,
                   "volume %s is the target of a move from %s%s%s: end that with `vpool migrate %s "
                   "%s`",
                   volume_full_name(v), m->volume, m->peer[0] ? " of " : "", m->peer,
                   v->attended ? "cancel" : "forget", here ? volume_full_name(v) : m->volume);
}

int volume_owner_check_stays(const struct volume *v, struct vp_error *err)
{
    const char *other = v->leaving ? v->leaving->volume : v->owner.move.volume;
    switch (volume_ownership(v)) {
    case VOLUME_OWNER:
    case VOLUME_SUPERSEDED:
        return 0;
    case VOLUME_ARRIVED:
        if (!io_guard_on(GUARD_MOVE_KEEPS_ARRIVED))
            return 0;
        return check_stays_arrived(v, err);
    case VOLUME_INTENT:
        return vp_fail(err, VP_E_VOLUME_MOVING,
                       "volume %s moves to %s: wait, or end that with `vpool migrate %s %s`",
                       volume_full_name(v), other, v->attended ? "cancel" : "forget",
                       volume_full_name(v));
    case VOLUME_TARGET:
        return check_stays_target(v, err);
    }
    return 0;
}

int volume_check_stays(struct volumes *vs, const char *name, struct vp_error *err)
{
    const struct volume *v = volume_find(vs, name);
    return v ? volume_owner_check_stays(v, err) : 0;
}

int volume_owner_check_open(const struct volume *v, struct vp_error *err)
{
    const char *other = v->owner.move.volume;
    if (v->awaited)
        return 0;
    if (v->owner.ownership == VOLUME_TARGET)
        return vp_fail(err, VP_E_VOLUME_MOVING,
                       "volume %s is the target of a move from %s that has not ended",
                       volume_full_name(v), other);
    if (v->owner.ownership == VOLUME_SUPERSEDED)
        return vp_fail(err, VP_E_VOLUME_SUPERSEDED,
                       "volume %s is an older copy of %s: use that one, and delete this one",
                       volume_full_name(v), other);
    if (v->owner.ownership == VOLUME_INTENT && v->switching)
        return vp_fail(err, VP_E_VOLUME_MOVING, "volume %s is becoming %s: use that one",
                       volume_full_name(v), other);
    if (!is_in_doubt(v) || !io_guard_on(GUARD_MOVE_DOUBT))
        return 0;
    return vp_fail(err, VP_E_VOLUME_MOVING,
                   "volume %s may have moved to %s, and that pool cannot be asked: `vpool migrate "
                   "status` says why; if it is lost, use `vpool migrate forget %s`",
                   volume_full_name(v), other, volume_full_name(v));
}

/* ---- records ------------------------------------------------------------------------------ */

/* v's record with another owner; control is held. */
static CO int owner_commit(struct volume *v, const struct volume_owner *to, struct pool_batch *with)
{
    struct pool_batch own;
    struct volume_owner before = v->owner;
    pool_batch_init(&own);
    struct pool_batch *b = with ? with : &own;
    v->owner = *to;
    volume_record_put(v, volume_text(v), &v->options, false, b);
    v->owner = before; /* until it is durable */
    int rc = pool_commit(v->vs->pool, b);
    if (!rc)
        v->owner = *to;
    pool_batch_fini(&own);
    return rc;
}

/* A change of the owner of a volume that is `from`; VP_E_INVALID when it is something else. */
static CO int owner_change(struct volume *v, enum volume_ownership from,
                           const struct volume_owner *to, struct pool_batch *with,
                           struct vp_error *err)
{
    if (v->owner.ownership != from)
        return vp_fail(err, VP_E_INVALID, "the move of volume %s has gone on meanwhile",
                       volume_full_name(v));
    int rc = owner_commit(v, to, with);
    return rc ? vp_fail(err, rc, "who owns volume %s could not be recorded: %s",
                        volume_full_name(v), vp_err_text(rc))
              : 0;
}

static struct volume_owner plain_owner(uint64_t epoch)
{
    return (struct volume_owner){.ownership = VOLUME_OWNER, .epoch = epoch};
}

/* ---- the source --------------------------------------------------------------------------- */

static int leave_check(const struct volume *v, struct vp_error *err)
{
    if (v->state == VOLUME_FAULTED)
        return vp_fail(err, VP_E_VOLUME_FAULTED, "volume %s is faulted: %s", volume_full_name(v),
                       v->fault ? v->fault : "damaged");
    return volume_owner_check_stays(v, err);
}

CO int volume_leave_begin(struct volume *v, const char *name, const struct volume_move *m,
                          struct vp_error *err)
{
    co_mutex_lock(&v->control);
    int rc = strcmp(volume_text(v), name) == 0
                 ? leave_check(v, err)
                 : vp_fail(err, VP_E_NOT_FOUND, "volume %s has another name now: %s", name,
                           volume_full_name(v));
    if (!rc) {
        v->attended = true;
        v->leaving = m;
    }
    co_mutex_unlock(&v->control);
    return rc;
}

void volume_leave_end(struct volume *v)
{
    VP_VERIFY_TRUE(v->leaving && v->owner.ownership == VOLUME_OWNER);
    v->leaving = NULL;
}

CO int volume_intent_begin(struct volume *v, struct vp_error *err)
{
    VP_VERIFY_TRUE(v->leaving != NULL);
    co_mutex_lock(&v->control);
    struct volume_owner to = {
        .ownership = VOLUME_INTENT, .epoch = v->owner.epoch, .move = *v->leaving};
    int rc = owner_change(v, VOLUME_OWNER, &to, NULL, err);
    co_mutex_unlock(&v->control);
    return rc;
}

void volume_intent_switches(struct volume *v, bool switches)
{
    v->switching = switches;
}

static int thaw_on_reactor(void *front)
{
    if (((struct front *)front)->gate == FRONT_FROZEN)
        front_thaw(front);
    return 0;
}

CO int volume_intent_end(struct volumes *vs, const char *name, unsigned epochs,
                         struct vp_error *err)
{
    struct volume *v;
    int rc = volume_control_begin(vs, name, &v, err);
    if (rc)
        return rc;
    struct volume_owner to = plain_owner(v->owner.epoch + epochs);
    rc = owner_change(v, VOLUME_INTENT, &to, NULL, err);
    if (!rc) {
        v->leaving = NULL;
        v->switching = false;
    }
    if (!rc && v->io)
        vp_ignore(reactor_call(v->reactor, thaw_on_reactor, volume_front(v)), "it cannot fail");
    co_mutex_unlock(&v->control);
    return rc;
}

void volume_move_unattended(struct volumes *vs, const char *name)
{
    struct volume *v = volume_find(vs, name);
    if (!v)
        return;
    v->attended = false;
    v->leaving = NULL;
}

CO int volume_intent_leave(struct volumes *vs, const char *name, struct pool_batch *with,
                           struct vp_error *err)
{
    struct left_note *note = NULL;
    struct volume *v;
    int rc = volume_control_begin(vs, name, &v, err);
    if (rc)
        return rc;
    if (v->owner.ownership != VOLUME_INTENT)
        rc = vp_fail(err, VP_E_INVALID, "volume %s does not move", volume_full_name(v));
    else if (v->owner.move.peer[0] && !(note = volume_left_put(v, with)))
        rc = vp_fail(err, VP_E_NO_MEMORY, "out of memory");
    if (!rc)
        rc = volume_delete_locked(v, with, err);
    if (!rc)
        v->leaving = NULL;
    volume_left_end(vs, note, rc == 0);
    co_mutex_unlock(&v->control);
    return rc;
}

/* ---- the target --------------------------------------------------------------------------- */

/* Also one that is being made. */
static const struct volume *volume_of_uuid(const struct volumes *vs, struct vp_uuid uuid)
{
    const struct volume *v;
    list_for_each (v, &vs->all, link)
        if (v->state != VOLUME_DELETING && vp_uuid_equal(v->uuid, uuid))
            return v;
    return NULL;
}

CO int volume_target_create(struct volumes *vs, const char *name, const struct volume_info *source,
                            uint64_t epoch, const struct volume_move *m, struct vp_error *err)
{
    const struct volume *same = volume_of_uuid(vs, source->uuid);
    if (same)
        return vp_fail(err, VP_E_EXISTS, "volume %s/%s has the same identity already",
                       pool_name(vs->pool), volume_text(same));
    if (!volume_move_is_sound(m))
        return vp_fail(err, VP_E_INVALID, "'%.100s' of '%.100s' cannot be recorded", m->volume,
                       m->peer);
    struct volume_identity identity = {
        .uuid = source->uuid,
        .created_seconds = source->created_seconds,
        .owner = {.ownership = VOLUME_TARGET, .epoch = epoch, .move = *m}};
    return volume_create_as(vs, name, &source->options, &identity, err);
}

CO int volume_target_delete(struct volumes *vs, const char *name, struct vp_error *err)
{
    struct pool_batch b;
    struct volume *v;
    int rc = volume_control_begin(vs, name, &v, err);
    if (rc)
        return rc;
    pool_batch_init(&b);
    rc = v->owner.ownership == VOLUME_TARGET
             ? volume_delete_locked(v, &b, err)
             : vp_fail(err, VP_E_INVALID, "volume %s is not the target of a move",
                       volume_full_name(v));
    pool_batch_fini(&b);
    co_mutex_unlock(&v->control);
    return rc;
}

CO int volume_arrive(struct volumes *vs, const char *name, struct pool_batch *with, bool *in_doubt)
{
    struct vp_error err;
    struct volume *v;
    *in_doubt = false;
    int rc = volume_control_begin(vs, name, &v, &err);
    if (rc)
        return rc;
    struct volume_owner to = v->owner;
    VP_VERIFY_TRUE(to.ownership == VOLUME_TARGET);
    to.ownership = VOLUME_ARRIVED;
    to.epoch++;
    rc = pool_acknowledges(vs->pool) ? 0 : VP_E_POOL_FENCED;
    if (!rc) {
        rc = owner_commit(v, &to, with);
        *in_doubt = rc && rc != VP_E_NO_MEMORY && rc != VP_E_POOL_FULL_META;
    }
    if (!rc)
        volume_options_apply(v, &v->options);
    co_mutex_unlock(&v->control);
    return rc;
}

CO int volume_arrival_confirm(struct volumes *vs, const char *name, struct vp_error *err)
{
    struct volume *v;
    int rc = volume_control_begin(vs, name, &v, err);
    if (rc)
        return rc;
    struct volume_owner to = plain_owner(v->owner.epoch);
    rc = owner_change(v, VOLUME_ARRIVED, &to, NULL, err);
    co_mutex_unlock(&v->control);
    return rc;
}

/* ---- two owners --------------------------------------------------------------------------- */

CO int volume_supersede(struct volumes *vs, const char *name, const struct volume_move *by,
                        struct vp_error *err)
{
    struct volume *v;
    int rc = volume_control_begin(vs, name, &v, err);
    if (rc)
        return rc;
    struct volume_owner to = {.ownership = VOLUME_SUPERSEDED, .epoch = v->owner.epoch, .move = *by};
    vp_error_log("volume %s is an older copy of %s", volume_full_name(v), by->volume);
    rc = v->owner.ownership == VOLUME_OWNER || v->owner.ownership == VOLUME_ARRIVED
             ? owner_change(v, v->owner.ownership, &to, NULL, err)
             : vp_fail(err, VP_E_INVALID, "volume %s is not an owner", volume_full_name(v));
    co_mutex_unlock(&v->control);
    return rc;
}

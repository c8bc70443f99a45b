/*
 * A volume moves to another pool of this daemon (migrate.h).
 *
 *     1. A TARGET is made as the source is, and is opened on the source's reactor. From now on
 *        nobody resizes, renames or deletes the source.
 *     2. Live: its data are copied while its clients write (live.c).
 *     3. The source's record says INTENT, durably.
 *     4. The source is frozen: its clients wait at the gate. What is left (offline: all) is copied,
 *        and the target is flushed.
 *     5. The target's record says ARRIVED, with the records of the exports, in one commit. Now the
 *        target is the volume.
 *     6. The fronts are exchanged, and the gate opens: clients are served by the target.
 *     7. The source is deleted, with the records of its exports, in one commit. The target's record
 *        says OWNER.
 *
 * Before 5 every error, and a cancel, ends in undo: the gate opens, the target is deleted, and the
 * source's record says OWNER. Clients have waited, and see no error. An error of 5 leaves the
 * volume in doubt, because its record may be durable or not: its exports end, and settle.c decides
 * when the target's pool is there again. An error of 7 is left to settle.c, too.
 *
 * A move holds no lock while it copies. volumes/ refuses to change, delete or move a volume that is
 * about to leave, or is a TARGET. Only home runs this file, except for the steps of the copy, the
 * freeze, and the exchange, which run on the reactor of both volumes.
 */
#include "migrate/migrate_impl.h"

#include "base/log.h"
#include "base/verify.h"
#include "io/guard.h"
#include "volumes/front.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CLIENTS_WAIT                                                                               \
    "the volume's clients wait for it, or will in a moment: it is neither paused nor limited, "    \
    "but it can be cancelled"
#define TURN_NS   UINT64_C(50000000) /* a move that is paused or limited looks again after this */
#define FREEZE_MS 10000U
#define PAUSE_MS  20U
#define HOLD_MS   5000U
#define MIRROR_MS 1000U
#define MS_NS     UINT64_C(1000000)

/* ---- states ------------------------------------------------------------------------------- */

#define TO(phase) (1U << (phase))

static const unsigned phase_moves[] = {
    [MIGRATE_PREPARING] = TO(MIGRATE_COPYING) | TO(MIGRATE_FREEZING) | TO(MIGRATE_UNDOING),
    [MIGRATE_COPYING] = TO(MIGRATE_MIRRORING) | TO(MIGRATE_FREEZING) | TO(MIGRATE_UNDOING),
    [MIGRATE_MIRRORING] = TO(MIGRATE_FREEZING) | TO(MIGRATE_UNDOING),
    [MIGRATE_FREEZING] = TO(MIGRATE_DRAINING) | TO(MIGRATE_MIRRORING) | TO(MIGRATE_UNDOING),
    [MIGRATE_DRAINING] = TO(MIGRATE_SWITCHING) | TO(MIGRATE_UNDOING),
    [MIGRATE_SWITCHING] = TO(MIGRATE_LEAVING) | TO(MIGRATE_UNDOING) | TO(MIGRATE_IN_DOUBT),
    [MIGRATE_LEAVING] = TO(MIGRATE_DONE),
    [MIGRATE_UNDOING] = TO(MIGRATE_FAILED) | TO(MIGRATE_CANCELLED),
    [MIGRATE_DONE] = 0,
    [MIGRATE_FAILED] = 0,
    [MIGRATE_CANCELLED] = 0,
    [MIGRATE_IN_DOUBT] = 0,
};

void migrate_phase_move(struct migrate *m, enum migrate_phase to)
{
    VP_VERIFY_TRUE(phase_moves[m->status.phase] & TO(to));
    m->status.phase = to;
    vp_debug("migration of %s to %s: %s", m->status.from, m->status.to, migrate_phase_name(to));
}

bool migrate_has_ended(const struct migrate *m)
{
    return phase_moves[m->status.phase] == 0;
}

int migrate_fail(struct migrate *m, int rc, const char *fmt, ...)
{
    va_list args;
    if (m->status.rc)
        return rc;
    m->status.rc = rc;
    va_start(args, fmt);
    (void)vsnprintf(m->status.error, sizeof(m->status.error), fmt, args);
    va_end(args);
    return rc;
}

/* ---- preparing ---------------------------------------------------------------------------- */

static struct migrate *move_new(const struct migrate_options *o)
{
    static const struct migrate_exports none;
    struct migrate *m = calloc(1, sizeof(*m));
    const struct pool *from = volumes_pool(o->from), *to = volumes_pool(o->to);
    uint8_t random[16];
    if (!m)
        return NULL;
    reactor_random(random, sizeof(random));
    m->from_vs = o->from;
    m->to_vs = o->to;
    m->exports = o->exports ? *o->exports : none;
    m->freeze_ns = (o->freeze_ms ? o->freeze_ms : FREEZE_MS) * MS_NS;
    m->limit_bytes = o->limit_bytes;
    m->hold_ns = (o->hold_ms ? o->hold_ms : HOLD_MS) * MS_NS;
    m->pause_ns = (o->pause_ms ? o->pause_ms : PAUSE_MS) * MS_NS;
    m->mirror_ns = (o->mirror_ms ? o->mirror_ms : MIRROR_MS) * MS_NS;
    (void)snprintf(m->volume, sizeof(m->volume), "%s", o->volume);
    (void)snprintf(m->name, sizeof(m->name), "%s", o->name);
    struct migrate_status *s = &m->status;
    s->id = vp_uuid_from_random(random);
    s->mode = o->mode;
    s->phase = MIGRATE_PREPARING;
    s->started = reactor_wall_seconds();
    (void)snprintf(s->from, sizeof(s->from), "%s/%s", pool_name(from), m->volume);
    (void)snprintf(s->to, sizeof(s->to), "%s/%s", pool_name(to), m->name);
    m->there = (struct volume_move){.id = s->id, .pool = pool_uuid(to)};
    m->here = (struct volume_move){.id = s->id, .pool = pool_uuid(from)};
    memcpy(m->there.volume, s->to, sizeof(s->to));
    memcpy(m->here.volume, s->from, sizeof(s->from));
    co_queue_init(&m->ended);
    co_queue_init(&m->turn);
    co_queue_init(&m->hold);
    return m;
}

/* The source's job. From now on nobody changes the source. */
static CO int source_take(struct migrate *m, struct vp_error *err)
{
    struct volume_info info;
    int rc = volume_info_get(m->from_vs, m->volume, &info);
    if (rc)
        return vp_fail(err, rc, "no volume %s", m->status.from);
    m->volume_id = info.id;
    m->job = pool_job_take(volumes_pool(m->from_vs), POOL_JOB_MIGRATE, m->volume_id, m->volume);
    if (!m->job)
        return vp_fail(err, VP_E_NO_MEMORY, "out of memory");
    if (m->status.mode == MIGRATE_OFFLINE)
        m->job->hurry = CLIENTS_WAIT;
    else
        m->job->limit = m->limit_bytes;
    m->status.job = m->job->id;
    rc = volume_leave_begin(m->source, m->volume, &m->there, err);
    m->leaving = !rc;
    return rc;
}

static CO int target_make(struct migrate *m, struct vp_error *err)
{
    struct volume_info info;
    struct volume_owner_info owner;
    int rc = volume_info_get(m->from_vs, m->volume, &info);
    if (!rc)
        rc = volume_owner_get(m->from_vs, m->volume, &owner);
    if (rc)
        return vp_fail(err, rc, "no volume %s", m->status.from);
    m->status.total_bytes = info.valid_bytes;
    pool_job_count(m->job, m->status.total_bytes);
    rc = volume_target_create(m->to_vs, m->name, &info, owner.epoch, &m->here, err);
    if (rc)
        return rc;
    m->targeted = true;
    return volume_open_to_move(m->to_vs, m->name, volume_reactor(m->source), &m->target, err);
}

static CO int move_prepare(struct migrate *m, struct vp_error *err)
{
    int rc = volume_open_to_move(m->from_vs, m->volume, NULL, &m->source, err);
    if (!rc)
        rc = source_take(m, err);
    if (!rc)
        rc = target_make(m, err);
    if (!rc && m->exports.prepare) {
        rc = m->exports.prepare(m->exports.arg, m->source, m->target, err);
        m->held = !rc;
    }
    return rc;
}

/* ---- freeze and copy ---------------------------------------------------------------------- */

struct freeze_call {
    struct front *front;
    uint64_t wait_ns;
    struct front_late late;
};

static CO int freeze_on_reactor(void *arg)
{
    struct freeze_call *c = arg;
    return front_freeze(c->front, reactor_now_ns() + c->wait_ns, &c->late);
}

static int thaw_on_reactor(void *front)
{
    front_thaw(front);
    return 0;
}

CO void migrate_thaw(struct migrate *m, struct volume *v)
{
    vp_ignore(reactor_call(volume_reactor(v), thaw_on_reactor, volume_front(v)), "it cannot fail");
    m->frozen = false;
    m->status.frozen_ns = reactor_now_ns() - m->frozen_at_ns;
}

static CO int move_freeze(struct migrate *m)
{
    struct freeze_call c = {.front = volume_front(m->source), .wait_ns = m->freeze_ns};
    m->frozen_at_ns = reactor_now_ns();
    int rc = reactor_call_for_client(volume_reactor(m->source), freeze_on_reactor, &c);
    m->frozen = !rc;
    if (!rc)
        return 0;
    return migrate_fail(m, rc, "clients of %s could not be stopped: %s%s%s", m->status.from,
                        vp_err_text(rc), c.late.count ? ", in flight: " : "", c.late.text);
}

/* From now on, until the end is known, both pools are asked who owns the volume. */
static CO int move_intend(struct migrate *m)
{
    struct vp_error err = {0};
    if (!io_guard_on(GUARD_MOVE_INTENT_FIRST))
        return 0;
    int rc = volume_intent_begin(m->source, &err);
    m->intended = !rc;
    return rc ? migrate_fail(m, rc, "%s", err.text) : 0;
}

static void copy_tell(struct migrate *m)
{
    const struct copy *c = &m->copy;
    struct migrate_status *s = &m->status;
    uint64_t before = s->copied_bytes + s->zero_bytes;
    s->copied_bytes = c->copied_bytes;
    s->zero_bytes = c->zero_bytes;
    s->again_bytes = c->again_bytes;
    s->dirty_bytes = c->seen.dirty_bytes;
    s->mirrored_bytes = c->seen.mirrored_bytes;
    pool_job_advance(m->job, c->copied_bytes + c->zero_bytes - before, 0);
}

CO void migrate_look(struct migrate *m)
{
    vp_ignore(reactor_call(volume_reactor(m->source), copy_look, &m->copy), "it does not fail");
    copy_tell(m);
}

CO void migrate_rest(struct migrate *m, uint64_t until_ns)
{
    until_ns = min_u64(until_ns, reactor_now_ns() + TURN_NS);
    vp_ignore(co_queue_wait_until(&m->turn, until_ns, "the turn of a migration"), "it looks again");
}

/* Its job may be paused or limited while clients do not wait for it. */
CO int migrate_await_turn(struct migrate *m)
{
    while (!m->cancelled && !m->job->hurry && !pool_job_may_go_on(m->job))
        migrate_rest(m, m->job->state == POOL_JOB_RUNNING ? m->job->due_ns : UINT64_MAX);
    if (m->overdue)
        return migrate_fail(m, VP_E_TIMED_OUT,
                            "%s has not taken what was left within the %" PRIu64
                            " ms for which clients of %s may wait: look at the disks of its pool",
                            m->status.to, m->hold_ns / MS_NS, m->status.from);
    return m->cancelled ? migrate_fail(m, VP_E_CANCELLED, "it was cancelled") : 0;
}

/* A limited copy goes in small steps, so that its reads and writes are spread over time. */
#define STEPS_A_SECOND 20U

CO int migrate_copy_step(struct migrate *m)
{
    int rc = migrate_await_turn(m);
    if (rc)
        return rc;
    m->copy.step_bytes = min_u64(
        m->job->hurry ? UINT64_MAX : pool_job_step_units(m->job) / STEPS_A_SECOND, COPY_STEP_BYTES);
    uint64_t since_ns = reactor_now_ns();
    rc = reactor_call_for_client(volume_reactor(m->source), copy_step, &m->copy);
    m->steps_ns += reactor_now_ns() - since_ns;
    copy_tell(m);
    if (!rc)
        return 0;
    bool there = m->copy.failed_there;
    return migrate_fail(m, rc, "%s %s at byte %" PRIu64 ": %s", there ? "writing" : "reading",
                        there ? m->status.to : m->status.from, m->copy.failed_at, vp_err_text(rc));
}

CO int migrate_flush(struct migrate *m)
{
    if (!io_guard_on(GUARD_MOVE_ARRIVES_LAST))
        return 0;
    int rc = reactor_call_for_client(volume_reactor(m->target), copy_flush, &m->copy);
    copy_tell(m);
    return rc ? migrate_fail(m, rc, "flushing %s: %s", m->status.to, vp_err_text(rc)) : 0;
}

/* ---- switching ---------------------------------------------------------------------------- */

/* *in_doubt: whether the volume arrived is not known. */
static CO int move_arrive(struct migrate *m, bool *in_doubt)
{
    struct pool_batch b;
    *in_doubt = false;
    pool_batch_init(&b);
    int rc = m->exports.arrive ? m->exports.arrive(m->exports.arg, m->target, &b) : 0;
    if (!rc)
        rc = volume_arrive(m->to_vs, m->name, &b, in_doubt);
    pool_batch_fini(&b);
    return rc ? migrate_fail(m, rc, "the arrival at %s could not be recorded: %s", m->status.to,
                             vp_err_text(rc))
              : 0;
}

struct exchange_call {
    struct volume *from, *to;
};

/* Both gates are closed for the exchange. Nobody but this move sends requests to the target. */
static CO int exchange_on_reactor(void *arg)
{
    const struct exchange_call *c = arg;
    struct front_late late;
    int rc = front_freeze(volume_front(c->to), 0, &late);
    if (!rc)
        volume_fronts_exchange(c->from, c->to);
    return rc;
}

/* Clients are served by the target from now on. */
static CO void move_exchange(struct migrate *m)
{
    struct exchange_call c = {m->source, m->target};
    int rc = reactor_call(volume_reactor(m->target), exchange_on_reactor, &c);
    VP_VERIFY(rc, ==, 0); /* the pools are open until the move ends, and the gate was open */
    if (m->exports.switched)
        m->exports.switched(m->exports.arg, m->source, m->target);
    migrate_thaw(m, m->target);
}

/* ---- the ends ----------------------------------------------------------------------------- */

static CO void close_both(struct migrate *m)
{
    if (m->target)
        volume_close(m->target);
    if (m->source)
        volume_close(m->source);
    m->source = m->target = NULL;
}

static void move_end(struct migrate *m, enum migrate_phase as, enum pool_job_state state)
{
    if (m->job) {
        if (m->status.rc)
            m->job->rc = m->status.rc;
        pool_job_end(volumes_pool(m->from_vs), m->job, state);
    }
    m->job = NULL;
    m->status.ended = reactor_wall_seconds();
    migrate_phase_move(m, as);
    co_queue_wake_all(&m->ended);
}

/* The source is deleted. What fails here is left for migrate_settle: the target is the volume. */
static CO void move_leave(struct migrate *m)
{
    struct vp_error err = {0};
    struct pool_batch b;
    live_end(m);
    close_both(m);
    pool_batch_init(&b);
    int rc = m->exports.leave ? m->exports.leave(m->exports.arg, m->from_vs, m->volume_id, &b) : 0;
    if (!rc)
        rc = volume_intent_leave(m->from_vs, m->volume, &b, &err);
    pool_batch_fini(&b);
    if (!rc)
        rc = volume_arrival_confirm(m->to_vs, m->name, &err);
    if (rc) {
        vp_warn("migration of %s to %s: %s", m->status.from, m->status.to,
                err.text[0] ? err.text : vp_err_text(rc));
        volume_move_unattended(m->from_vs, m->volume);
        volume_move_unattended(m->to_vs, m->name);
    }
    move_end(m, MIGRATE_DONE, POOL_JOB_DONE);
}

/* The source goes on as if nothing had been. */
static CO void move_undo(struct migrate *m)
{
    struct vp_error err = {0};
    migrate_phase_move(m, MIGRATE_UNDOING);
    if (m->frozen)
        migrate_thaw(m, m->source);
    live_end(m);
    if (m->held && m->exports.kept)
        m->exports.kept(m->exports.arg);
    if (m->leaving && !m->intended)
        volume_leave_end(m->source);
    close_both(m);
    int rc = m->targeted ? volume_target_delete(m->to_vs, m->name, &err) : 0;
    if (rc) { /* settle.c tries that again */
        vp_warn("migration of %s to %s: %s", m->status.from, m->status.to, err.text);
        volume_move_unattended(m->to_vs, m->name);
    }
    rc = m->intended ? volume_intent_end(m->from_vs, m->volume, 0, &err) : 0;
    if (rc) { /* the same; until then the volume is in doubt, and its clients go on */
        vp_warn("migration of %s to %s: %s", m->status.from, m->status.to, err.text);
        volume_move_unattended(m->from_vs, m->volume);
    }
    bool cancelled = m->status.rc == VP_E_CANCELLED;
    move_end(m, cancelled ? MIGRATE_CANCELLED : MIGRATE_FAILED,
             cancelled ? POOL_JOB_CANCELLED : POOL_JOB_FAILED);
}

static CO void move_doubt(struct migrate *m)
{
    live_end(m);
    volume_move_unattended(m->from_vs, m->volume);
    volume_move_unattended(m->to_vs, m->name);
    if (m->exports.withdraw)
        m->exports.withdraw(m->exports.arg, m->source);
    close_both(m); /* the gate stays closed: volume_intent_end opens it */
    move_end(m, MIGRATE_IN_DOUBT, POOL_JOB_FAILED);
}

/* ---- all of it ---------------------------------------------------------------------------- */

static CO void move_switch(struct migrate *m)
{
    bool in_doubt;
    copy_verify_whole(&m->copy);
    migrate_phase_move(m, MIGRATE_SWITCHING);
    volume_intent_switches(m->source, true);
    int rc = move_arrive(m, &in_doubt);
    if (rc && in_doubt) {
        move_doubt(m);
    } else if (rc) {
        volume_intent_switches(m->source, false);
        move_undo(m);
    } else {
        move_exchange(m);
        migrate_phase_move(m, MIGRATE_LEAVING);
        move_leave(m);
    }
}

/* While the intent is committed clients go on to write, and may write more than the pause allows:
 * then another round follows. */
static CO int move_copy_live(struct migrate *m)
{
    migrate_phase_move(m, MIGRATE_COPYING);
    int rc = live_begin(m);
    if (!rc)
        rc = live_rounds(m);
    m->job->hurry = CLIENTS_WAIT;
    if (!rc)
        rc = move_intend(m);
    return rc ? rc : live_rounds(m);
}

/* Nothing is copied while a write of the mirror is late, and clients would wait for it. So they go
 * on, and are stopped later. Each time the mirror has stopped once more, which live_rounds counts.
 */
static CO int move_stop_clients(struct migrate *m)
{
    for (;;) {
        migrate_phase_move(m, MIGRATE_FREEZING);
        int rc =
            m->cancelled ? migrate_fail(m, VP_E_CANCELLED, "it was cancelled") : move_freeze(m);
        if (rc)
            return rc;
        migrate_look(m);
        if (!m->copy.seen.late)
            return 0;
        migrate_thaw(m, m->source);
        migrate_phase_move(m, MIGRATE_MIRRORING);
        rc = live_rounds(m);
        if (rc)
            return rc;
    }
}

static CO int move_copy(struct migrate *m)
{
    copy_init(&m->copy, m->source, m->target);
    int rc = m->status.mode == MIGRATE_OFFLINE ? move_intend(m) : move_copy_live(m);
    if (rc)
        return rc;
    rc = move_stop_clients(m);
    if (rc)
        return rc;
    migrate_phase_move(m, MIGRATE_DRAINING);
    rc = watch_begin(m);
    if (!rc)
        rc = live_drain(m);
    watch_end(m);
    return rc ? rc : migrate_await_turn(m);
}

static CO void move_run(void *arg)
{
    struct migrate *m = arg;
    if (move_copy(m))
        move_undo(m);
    else
        move_switch(m);
}

CO int migrate_start(const struct migrate_options *o, struct migrate **out, struct vp_error *err)
{
    struct migrate_plan plan;
    int rc = migrate_plan(o, &plan, err);
    if (rc)
        return rc;
    struct migrate *m = move_new(o);
    if (!m)
        return vp_fail(err, VP_E_NO_MEMORY, "out of memory");
    rc = move_prepare(m, err);
    if (!rc && co_spawn(move_run, m, "migration"))
        rc = vp_fail(err, VP_E_IO_TOO_MANY_COROUTINES, "too much is going on: try again");
    if (rc) {
        vp_ignore(migrate_fail(m, rc, "%s", err->text), "it is returned");
        move_undo(m);
        free(m);
        return rc;
    }
    *out = m;
    return 0;
}

const struct migrate_status *migrate_status(const struct migrate *m)
{
    return &m->status;
}

int migrate_cancel(struct migrate *m, struct vp_error *err)
{
    if (m->status.phase >= MIGRATE_SWITCHING)
        return vp_fail(err, VP_E_BUSY, "the migration of %s to %s is %s: it cannot be cancelled",
                       m->status.from, m->status.to, migrate_phase_name(m->status.phase));
    m->cancelled = true;
    co_queue_wake_all(&m->turn);
    co_queue_wake_all(&m->hold);
    return 0;
}

CO void migrate_wait(struct migrate *m)
{
    while (!migrate_has_ended(m))
        co_queue_wait(&m->ended, "the end of a migration");
}

void migrate_free(struct migrate *m)
{
    VP_VERIFY_TRUE(!m || migrate_has_ended(m));
    free(m);
}

/*
 * The ends of a move (migrate.c has its way to here).
 *
 *                    the other side says
 *     SWITCHING ──── it has arrived ──→ clients go there, the source is deleted        DONE
 *          ├──────── it has not ──────→ undo: clients go on here                       FAILED
 *          └──────── nothing ─────────→ the volume is in doubt, and is not served      IN_DOUBT
 *
 * Before the other side is told to let the volume arrive, every error ends in undo. From then on
 * the source serves nobody before the other side has denied it, durably
 * (GUARD_MOVE_AWAITS_VERDICT). Another daemon is asked for some time while the clients wait; then
 * its answer, or settle.c, or the operator decides later.
 *
 * A source that has left for another daemon stays open until its clients are gone. It answers their
 * flushes, since a hypervisor flushes once more when it lets go of a disk, and refuses the rest.
 */
#include "base/log.h"
#include "base/verify.h"
#include "io/guard.h"
#include "migrate/migrate_impl.h"
#include "volumes/front.h"

#define ASK_NS UINT64_C(500000000) /* between two questions whether the volume has arrived */

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

static CO void source_close(struct migrate *m)
{
    if (m->source)
        volume_close(m->source);
    m->source = NULL;
}

static CO void peer_close(struct migrate *m)
{
    if (m->peer.ops->close)
        m->peer.ops->close(m->peer.arg);
}

/* ---- clients go there --------------------------------------------------------------------- */

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
    struct volume *target = m->local.target;
    struct exchange_call c = {m->source, target};
    int rc = reactor_call(volume_reactor(target), exchange_on_reactor, &c);
    VP_VERIFY(rc, ==, 0); /* the pools are open until the move ends, and the gate was open */
    if (m->exports.switched)
        m->exports.switched(m->exports.arg, m->source, target);
    migrate_thaw(m, target);
}

static CO int left_refuse(void *arg, struct front_request *r)
{
    (void)arg, (void)r;
    return VP_E_VOLUME_LEFT;
}

static CO int left_flush(void *arg, struct front_request *r)
{
    (void)arg, (void)r;
    return 0;
}

static void left_rouse(void *arg)
{
    (void)arg; /* nobody waits */
}

static const struct front_ops left_ops = {.run = {[FRONT_READ] = left_refuse,
                                                  [FRONT_WRITE] = left_refuse,
                                                  [FRONT_FLUSH] = left_flush,
                                                  [FRONT_DISCARD] = left_refuse,
                                                  [FRONT_ZERO] = left_refuse,
                                                  [FRONT_EXTENTS] = left_refuse},
                                          .rouse = left_rouse};

static int part_on_reactor(void *front)
{
    front_swap(front, &left_ops, NULL);
    return 0;
}

/* Clients of the source get nothing more from it. */
static CO void move_part(struct migrate *m)
{
    struct front *f = volume_front(m->source);
    vp_ignore(reactor_call(front_reactor(f), part_on_reactor, f), "it cannot fail");
    migrate_thaw(m, m->source);
}

/* Another daemon that cannot be told now is told later: the pool has noted it (volumes/left.c). */
static CO int move_confirm(struct migrate *m, struct vp_error *err)
{
    int rc = m->peer.ops->confirm(m->peer.arg, err);
    return rc || !m->status.peer[0] ? rc : volumes_left_forget(m->from_vs, m->there.id);
}

/* The source is deleted. What fails here is done later: the target is the volume. */
static CO void move_leave(struct migrate *m)
{
    struct vp_error err = {0};
    struct pool_batch b;
    live_end(m);
    if (m->status.peer[0] && m->exports.left)
        m->exports.left(m->exports.arg, m->source);
    source_close(m);
    pool_batch_init(&b);
    int rc = m->exports.leave ? m->exports.leave(m->exports.arg, m->from_vs, m->volume_id, &b) : 0;
    if (!rc)
        rc = volume_intent_leave(m->from_vs, m->volume, &b, &err);
    pool_batch_fini(&b);
    if (rc)
        volume_move_unattended(m->from_vs, m->volume);
    else
        rc = move_confirm(m, &err);
    if (rc)
        vp_warn("migration of %s to %s: %s", m->status.from, m->status.to,
                err.text[0] ? err.text : vp_err_text(rc));
    peer_close(m);
    move_end(m, MIGRATE_DONE, POOL_JOB_DONE);
}

/* ---- clients stay ------------------------------------------------------------------------- */

static CO void peer_decline(struct migrate *m)
{
    struct vp_error err = {0};
    if (!m->made)
        return;
    migrate_wait_begin(m);
    if (m->peer.ops->decline(m->peer.arg, &err))
        vp_warn("migration of %s to %s: %s", m->status.from, m->status.to, err.text);
    migrate_wait_end(m);
}

CO void migrate_undo(struct migrate *m)
{
    struct vp_error err = {0};
    migrate_phase_move(m, MIGRATE_UNDOING);
    if (m->frozen)
        migrate_thaw(m, m->source);
    migrate_cut(m);
    live_end(m);
    if (m->held && m->exports.kept)
        m->exports.kept(m->exports.arg);
    if (m->leaving && !m->intended)
        volume_leave_end(m->source);
    source_close(m);
    peer_decline(m);
    peer_close(m);
    int rc = m->intended ? volume_intent_end(m->from_vs, m->volume, 0, &err) : 0;
    if (rc) { /* settle.c tries that again; until then the volume is in doubt, and clients go on */
        vp_warn("migration of %s to %s: %s", m->status.from, m->status.to, err.text);
        volume_move_unattended(m->from_vs, m->volume);
    }
    bool cancelled = m->status.rc == VP_E_CANCELLED;
    move_end(m, cancelled ? MIGRATE_CANCELLED : MIGRATE_FAILED,
             cancelled ? POOL_JOB_CANCELLED : POOL_JOB_FAILED);
}

static CO void move_doubt(struct migrate *m)
{
    migrate_cut(m);
    live_end(m);
    volume_move_unattended(m->from_vs, m->volume);
    if (m->exports.withdraw)
        m->exports.withdraw(m->exports.arg, m->source);
    source_close(m); /* the gate stays closed: volume_intent_end opens it */
    peer_close(m);
    move_end(m, MIGRATE_IN_DOUBT, POOL_JOB_FAILED);
}

/* ---- the switch --------------------------------------------------------------------------- */

/* Another daemon is asked again, unless this one stops: the same question has the same answer. */
static CO int move_arrive(struct migrate *m, enum migrate_verdict *verdict, struct vp_error *err)
{
    uint64_t deadline_ns = reactor_now_ns() + m->answer_ns;
    for (;;) {
        *verdict = MIGRATE_NOT_KNOWN;
        int rc = m->peer.ops->arrive(m->peer.arg, verdict, err);
        VP_VERIFY_TRUE((rc == 0) == (*verdict == MIGRATE_HAS_ARRIVED));
        if (*verdict == MIGRATE_NOT_KNOWN && !io_guard_on(GUARD_MOVE_AWAITS_VERDICT))
            *verdict = MIGRATE_HAS_NOT;
        uint64_t now_ns = reactor_now_ns();
        bool is_last = m->stopping || !m->status.peer[0] || now_ns >= deadline_ns;
        if (*verdict != MIGRATE_NOT_KNOWN || is_last)
            return rc;
        vp_debug("migration of %s to %s: %s", m->status.from, m->status.to, err->text);
        vp_ignore(co_queue_wait_until(&m->hold, min_u64(now_ns + ASK_NS, deadline_ns),
                                      "the answer whether a volume has arrived"),
                  "it is asked again");
    }
}

CO void migrate_switch(struct migrate *m)
{
    struct vp_error err = {0};
    enum migrate_verdict verdict;
    copy_verify_whole(&m->copy);
    migrate_phase_move(m, MIGRATE_SWITCHING);
    volume_intent_switches(m->source, true);
    migrate_wait_begin(m);
    int rc = move_arrive(m, &verdict, &err);
    migrate_wait_end(m);
    if (rc)
        vp_ignore(migrate_fail(m, rc, "the arrival at %s could not be recorded: %s", m->status.to,
                               err.text),
                  "the verdict counts");
    if (verdict == MIGRATE_NOT_KNOWN) {
        move_doubt(m);
    } else if (verdict == MIGRATE_HAS_NOT) {
        volume_intent_switches(m->source, false);
        migrate_undo(m);
    } else {
        if (m->local.target)
            move_exchange(m);
        else
            move_part(m);
        migrate_phase_move(m, MIGRATE_LEAVING);
        move_leave(m);
    }
}

/*
 * What an operator does to a move that goes on: it is paused, and resumed.
 *
 * The job of the move (pool/job.h) has the pause. Whoever takes a step of the copy waits for the
 * job's turn first (migrate_await_turn), so a pause begins when the step under way has ended. What
 * clients change meanwhile is dirty, or is mirrored as before. Nobody waits for a move that is
 * paused. From the intent on clients wait for the copy, or will in a moment: then the job is in a
 * hurry, and is not paused.
 *
 * The time of a pause is no time of the move: rates and the wait for a guest are measured without
 * it (migrate_clock_ns).
 */
#include "io/reactor.h"
#include "migrate/migrate_impl.h"

/* The other daemon is looked for so often while nothing is copied. */
#define PAUSED_PROBE_NS UINT64_C(5000000000)

static int pause_check(const struct migrate *m, struct vp_error *err)
{
    const struct migrate_status *s = &m->status;
    if (s->phase >= MIGRATE_SWITCHING)
        return vp_fail(err, VP_E_BUSY,
                       "the migration of %s to %s is %s: it is neither paused nor resumed", s->from,
                       s->to, migrate_phase_name(s->phase));
    if (s->mode == MIGRATE_OFFLINE)
        return vp_fail(err, VP_E_NOT_SUPPORTED,
                       "clients of %s wait while it is copied to %s: it is not paused, but it can "
                       "be cancelled",
                       s->from, s->to);
    if (m->job->hurry)
        return vp_fail(err, VP_E_BUSY,
                       "the switch of %s to %s has begun, and its clients wait for it, or will in "
                       "a moment: it is not paused, but it can be cancelled",
                       s->from, s->to);
    return 0;
}

CO int migrate_pause(struct migrate *m, struct vp_error *err)
{
    int rc = pause_check(m, err);
    return rc ? rc : pool_job_pause(volumes_pool(m->from_vs), m->status.job, err);
}

CO int migrate_resume(struct migrate *m, struct vp_error *err)
{
    int rc = pause_check(m, err);
    return rc ? rc : pool_job_resume(volumes_pool(m->from_vs), m->status.job, err);
}

bool migrate_is_paused(const struct migrate *m)
{
    return m->status.phase < MIGRATE_FREEZING && m->job && !m->job->hurry &&
           m->job->state == POOL_JOB_PAUSED;
}

uint64_t migrate_clock_ns(const struct migrate *m)
{
    return reactor_now_ns() - m->paused_ns;
}

/* One look while it is paused. The target is flushed from time to time: so a connection that is
 * lost is noticed and made again, as while it copies. */
static CO int pause_look(struct migrate *m)
{
    uint64_t now_ns = reactor_now_ns();
    migrate_look(m);
    if (!m->copy.tracked || now_ns < m->pause_probe_ns)
        return 0;
    m->pause_probe_ns = now_ns + PAUSED_PROBE_NS;
    return migrate_flush(m);
}

CO int migrate_await_job(struct migrate *m)
{
    int rc = 0;
    m->pause_probe_ns = reactor_now_ns() + PAUSED_PROBE_NS;
    while (!rc && !m->cancelled && !m->job->hurry && !pool_job_may_go_on(m->job)) {
        bool paused = m->job->state == POOL_JOB_PAUSED;
        uint64_t since_ns = reactor_now_ns();
        migrate_rest(m, paused ? UINT64_MAX : m->job->due_ns);
        if (paused && !m->cancelled)
            rc = pause_look(m);
        if (paused)
            m->paused_ns += reactor_now_ns() - since_ns;
    }
    return rc;
}

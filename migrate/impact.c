/*
 * What a move costs the clients of its volume, measured, and how hard it copies (governor.h).
 *
 * What a request takes is the sum of two figures, each the 99th percentile of its kind:
 *
 *     requests    from the arrival at the volume to the end: the volume's own histograms
 *     waits       until the reactor looks at its sockets again: how late a coroutine runs that
 *                 slept for a millisecond; a request that has come meanwhile has waited as long
 *
 * What they took before the copy, or without it, is measured while the copy rests: at the begin of
 * the move, again each 10 s, and when the first request comes. Nothing is counted for this where no
 * volume moves.
 *
 * The coroutine runs on the volume's reactor, and only adds to its histogram. All else is home's.
 */
#include "base/bytes.h"
#include "base/verify.h"
#include "migrate/migrate_impl.h"

#define MS_NS            UINT64_C(1000000)
#define WAIT_LOOK_NS     MS_NS        /* the coroutine's sleep */
#define LOOK_NS          (20 * MS_NS) /* between two decisions, at least */
#define LOOK_REQUESTS    32U          /* that a decision needs … */
#define LOOK_MAX_NS      (200 * MS_NS) /* … unless there are fewer for so long, or never were any */
#define PROBE_NS         (200 * MS_NS) /* the copy rests for so long at most … */
#define PROBE_REQUESTS   400U          /* … or until there were so many requests, */
#define PROBE_AGAIN_NS   (10000 * MS_NS)
#define PROBE_UNKNOWN_NS (400 * MS_NS) /* after a probe without a request */
#define STEP_BYTES_MIN   (UINT64_C(256) << 10)
#define PERMILLE         990U

/* ---- the coroutine ------------------------------------------------------------------------ */

static CO void impact_wait_work(void *arg)
{
    struct impact *i = arg;
    while (!i->ending) {
        uint64_t due_ns = reactor_now_ns() + WAIT_LOOK_NS;
        vp_ignore(co_sleep_ns(WAIT_LOOK_NS), "nobody cancels it");
        uint64_t now_ns = reactor_now_ns();
        histogram_add(&i->waits, now_ns > due_ns ? now_ns - due_ns : 0);
    }
    co_group_leave(&i->watcher, 0);
}

static int impact_start(void *impact)
{
    struct impact *i = impact;
    co_group_init(&i->watcher);
    co_group_enter(&i->watcher);
    i->watches = !co_spawn(impact_wait_work, i, "clients of a volume that moves");
    if (!i->watches) /* requests alone say it then */
        co_group_leave(&i->watcher, 0);
    return 0;
}

static CO int impact_stop(void *impact)
{
    struct impact *i = impact;
    i->ending = true;
    return co_group_wait(&i->watcher);
}

/* ---- measuring ---------------------------------------------------------------------------- */

static void requests_add(const struct volume *v, struct histogram *to)
{
    const struct volume_figures *f = volume_figures(v);
    histogram_merge(to, f->read_latency);
    histogram_merge(to, f->write_latency);
    histogram_merge(to, f->flush_latency);
}

static void requests_now(const struct migrate *m, struct histogram *to)
{
    *to = (struct histogram){0};
    requests_add(m->source, to);
}

static void impact_since_now(struct migrate *m)
{
    struct impact *i = &m->impact;
    requests_now(m, &i->requests_since);
    i->waits_since = (struct histogram){0};
    histogram_merge(&i->waits_since, &i->waits);
    i->since_ns = reactor_now_ns();
    i->steps_ns = 0;
    i->bytes_since = migrate_done_bytes(m);
    i->dirtied_since = m->copy.seen.dirtied_bytes;
}

/* How many requests have ended since, and what they took. */
static uint64_t impact_measure(const struct migrate *m, uint64_t *latency_ns)
{
    const struct impact *i = &m->impact;
    struct histogram requests, waits = {0};
    requests_now(m, &requests);
    histogram_subtract(&requests, &i->requests_since);
    histogram_merge(&waits, &i->waits);
    histogram_subtract(&waits, &i->waits_since);
    uint64_t count = histogram_count(&requests);
    *latency_ns =
        histogram_permille_ns(&requests, PERMILLE) + histogram_permille_ns(&waits, PERMILLE);
    return count;
}

/* Without the copy. Ends early where nobody sends requests, or many. */
static CO void impact_probe(struct migrate *m, bool expected)
{
    struct impact *i = &m->impact;
    uint64_t count, ns, now_ns;
    impact_since_now(m);
    do {
        migrate_rest(m, reactor_now_ns() + LOOK_NS);
        count = impact_measure(m, &ns);
        now_ns = reactor_now_ns();
    } while (!m->cancelled && (count || expected) && count < PROBE_REQUESTS &&
             now_ns - i->since_ns < PROBE_NS);
    if (count)
        i->law.before_ns = i->law.before_ns ? (i->law.before_ns + ns) / 2 : ns;
    i->probed_ns = now_ns;
    impact_since_now(m);
}

CO void impact_begin(struct migrate *m)
{
    struct impact *i = &m->impact;
    governor_init(&i->law, m->impact_percent);
    if (m->impact_percent) {
        vp_ignore(reactor_call(volume_reactor(m->source), impact_start, i), "it does not fail");
        i->on = true;
        impact_probe(m, false);
    }
    requests_now(m, &i->requests_begin);
    impact_since_now(m);
    i->began = true;
}

/* What requests have taken since the copy began. Those that waited at the gate end at the target,
 * which counts from the exchange of the fronts on. */
static void impact_tell(struct migrate *m)
{
    struct migrate_status *s = &m->status;
    struct histogram requests, waits = {0};
    requests_now(m, &requests);
    histogram_subtract(&requests, &m->impact.requests_begin);
    if (m->local.target && m->status.phase == MIGRATE_LEAVING)
        requests_add(m->local.target, &requests);
    histogram_merge(&waits, &m->impact.waits);
    s->requests = histogram_count(&requests);
    s->before_ns = m->impact.law.before_ns;
    if (!s->requests)
        return;
    s->during_ns =
        histogram_permille_ns(&requests, PERMILLE) + histogram_permille_ns(&waits, PERMILLE);
    s->longest_ns = max_u64(histogram_permille_ns(&requests, 1000), s->during_ns);
}

CO void impact_end(struct migrate *m)
{
    struct impact *i = &m->impact;
    if (i->began && m->source)
        impact_tell(m);
    i->began = false;
    if (i->watches)
        vp_ignore(reactor_call_for_client(volume_reactor(m->source), impact_stop, i),
                  "it reports nothing");
    i->watches = i->on = false;
}

/* ---- steering ----------------------------------------------------------------------------- */

uint64_t impact_pace(struct migrate *m)
{
    const struct impact *i = &m->impact;
    struct copy *c = &m->copy;
    if (!i->on)
        return COPY_STEP_BYTES;
    if (m->frozen) {
        copy_pace_full(c);
        return COPY_STEP_BYTES;
    }
    struct governor_pace p = governor_pace(&i->law);
    c->worker_count = p.workers;
    c->piece_bytes = p.piece_bytes;
    c->rest_ns = max_u64(p.rest_ns, 1); /* the sockets at least come first */
    uint64_t step = (uint64_t)((double)i->rate_bytes * (double)LOOK_NS / 1e9);
    return min_u64(max_u64(step, STEP_BYTES_MIN), COPY_STEP_BYTES);
}

static uint64_t per_second(uint64_t units, uint64_t ns)
{
    return (uint64_t)((double)units * 1e9 / (double)max_u64(ns, 1));
}

/* The rate is that of the scan or the round, with the time that it waited for its limit. */
static void outlook_tell(struct migrate *m)
{
    struct migrate_status *s = &m->status;
    uint64_t once = s->copied_bytes + s->zero_bytes - s->again_bytes;
    bool scans = !copy_scan_is_done(&m->copy);
    uint64_t left = scans && s->total_bytes > once ? s->total_bytes - once : 0;
    s->outlook = outlook_of(&(struct outlook_now){
        .left_bytes = left,
        .dirty_bytes = s->dirty_bytes,
        .check_bytes = m->verifies ? left + s->dirty_bytes + s->unchecked_bytes : 0,
        .rate_bytes = s->rate_bytes,
        .dirtied_bytes = s->dirtied_bytes,
    });
}

static void impact_decide(struct migrate *m, uint64_t latency_ns, uint64_t elapsed_ns)
{
    struct impact *i = &m->impact;
    uint64_t bytes = migrate_done_bytes(m) - i->bytes_since;
    uint64_t dirtied = m->copy.seen.dirtied_bytes - i->dirtied_since;
    i->rate_bytes = per_second(bytes, i->steps_ns);
    m->status.dirtied_bytes = per_second(dirtied, elapsed_ns);
    governor_decide(&i->law, &(struct governor_look){
                                 .latency_ns = latency_ns,
                                 .rate_bytes = i->rate_bytes,
                                 .dirtied_bytes = m->status.dirtied_bytes,
                             });
    impact_since_now(m);
    impact_tell(m);
    outlook_tell(m);
}

CO void impact_look(struct migrate *m, uint64_t step_ns)
{
    struct impact *i = &m->impact;
    uint64_t now_ns = reactor_now_ns(), elapsed_ns = now_ns - i->since_ns, latency_ns;
    i->steps_ns += step_ns;
    if (!i->began || m->frozen || elapsed_ns < LOOK_NS)
        return;
    uint64_t count = impact_measure(m, &latency_ns);
    bool nobody = !count && !i->law.before_ns; /* since the begin of the move */
    if (count < LOOK_REQUESTS && elapsed_ns < LOOK_MAX_NS && !nobody)
        return;
    uint64_t again_ns = i->law.before_ns ? PROBE_AGAIN_NS : PROBE_UNKNOWN_NS;
    impact_decide(m, count ? latency_ns : 0, elapsed_ns);
    if (i->on && count && now_ns - i->probed_ns >= again_ns)
        impact_probe(m, true);
}

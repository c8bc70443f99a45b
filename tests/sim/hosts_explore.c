/*
 * Explores a scenario of hosts: every mishap at every event of the run.
 *
 * The run is made once. At each event a copy of the process is made for each mishap, and the run
 * goes on in it with that mishap: a host that stays up is there with all of its memory. The same
 * state is reached by a run from the seed whose mishap is given (--mishap).
 */
#include "tests/sim/hosts.h"
#include "tests/sim/scenarios.h"

#include "base/hash.h"

#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ALARM_SECONDS = 60 };

struct mishap_kind {
    enum mishap kind;
    unsigned disk;
};
static const struct mishap_kind mishaps[] = {
    {MISHAP_KILL, 0}, {MISHAP_POWER, 0}, {MISHAP_KILL, 1},  {MISHAP_POWER, 1}, {MISHAP_CUT, 0},
    {MISHAP_CUT, 1},  {MISHAP_CUT, 2},   {MISHAP_BREAK, 0}, {MISHAP_BREAK, 1},
};
/* What is on its way has other fates in each. */
static const struct mishap_kind breaks[] = {
    {MISHAP_BREAK, 0}, {MISHAP_BREAK, 2},  {MISHAP_BREAK, 4},  {MISHAP_BREAK, 6},
    {MISHAP_BREAK, 8}, {MISHAP_BREAK, 10}, {MISHAP_BREAK, 12}, {MISHAP_BREAK, 14},
};

struct exploration {
    const struct scenario *sc;
    uint64_t seed, states_max;
    unsigned stride; /* of moments, for each mishap */
    struct explore_counts *counts;
    bool broken;
};

/* True in the copy. */
static bool go_on_with(struct exploration *x, const struct mishap_kind *k, uint64_t event)
{
    int status = 0;
    (void)fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        position.mishap = (struct mishap_at){k->kind, k->disk, event};
        (void)alarm(ALARM_SECONDS);
        return true;
    }
    bool ok = child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) &&
              WEXITSTATUS(status) == 0;
    x->broken |= !ok;
    x->counts->states++;
    x->counts->runs++;
    return false;
}

static bool is_enough(const struct exploration *x)
{
    return x->broken || (x->states_max && x->counts->states >= x->states_max);
}

static void moment(struct hosts *h)
{
    struct exploration *x = h->arg;
    unsigned stride = x->stride;
    if (h->is_copy || is_enough(x))
        return;
    x->counts->events++;
    bool only_breaks = x->sc->flags & SCENARIO_BREAKS;
    const struct mishap_kind *kinds = only_breaks ? breaks : mishaps;
    unsigned count =
        only_breaks ? sizeof(breaks) / sizeof(breaks[0]) : sizeof(mishaps) / sizeof(mishaps[0]);
    for (unsigned i = 0; i < count && !is_enough(x); i++) {
        if ((h->model->event + i) % stride)
            continue;
        if (go_on_with(x, &kinds[i], h->model->event)) {
            h->is_copy = true;
            return;
        }
    }
}

static bool run(struct exploration *x, void (*at_moments)(struct hosts *h))
{
    struct hosts h;
    bool ok = hosts_run(&h, x->sc, x->seed, at_moments, x);
    x->counts->runs++;
    if (!ok)
        position_report(h.why);
    if (h.is_copy) {
        (void)fflush(stdout);
        _exit(ok ? 0 : 1);
    }
    hosts_free(&h);
    return ok && !x->broken;
}

static double cpu_seconds_of_copies(void)
{
    struct rusage u;
    (void)getrusage(RUSAGE_CHILDREN, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

bool hosts_explore(const struct scenario *sc, uint64_t seed, const struct explore_filter *filter,
                   uint64_t states_max, struct explore_counts *counts)
{
    struct exploration x = {.sc = sc, .seed = seed, .states_max = states_max, .counts = counts};
    x.stride = filter->deep_every ? filter->deep_every : sc->crash_stride ? sc->crash_stride : 1;
    double from = cpu_seconds() + cpu_seconds_of_copies();
    bool ok = true;
    position.scenario = sc;
    position.seed = seed;
    position.choices = NULL;
    position.variant = filter->variant;
    position.mishap = filter->mishap;
    if (filter->mishap.kind != MISHAP_NONE) {
        ok = run(&x, NULL); /* only that one */
    } else {
        for (unsigned v = 0; ok && (v == 0 || v < sc->variants); v++) {
            position.variant = v;
            ok = run(&x, moment);
        }
    }
    position.scenario = NULL;
    position.variant = 0;
    position.mishap.kind = MISHAP_NONE;
    counts->seconds += cpu_seconds() + cpu_seconds_of_copies() - from;
    return ok;
}

/* A run of its own process: what a host that ends has allocated is lost there. */
bool hosts_random(uint64_t seed, struct explore_counts *counts)
{
    enum { FIRST_EVENT = 150, EVENTS = 160 };
    uint64_t rng = hash_mix(seed ^ 0x72616e646f6dULL);
    const struct scenario *sc = &host_scenarios[rng % host_scenario_count];
    const struct mishap_kind *k = &mishaps[rng / 16 % (sizeof(mishaps) / sizeof(mishaps[0]))];
    const struct explore_filter filter = {
        .variant = sc->variants ? (unsigned)(rng / 512 % sc->variants) : 0,
        .mishap = {k->kind, k->disk, FIRST_EVENT + (rng >> 32) % EVENTS},
    };
    double from = cpu_seconds_of_copies();
    int status = 0;
    (void)fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        struct explore_counts own = {0};
        (void)alarm(ALARM_SECONDS);
        bool ok = hosts_explore(sc, seed, &filter, 0, &own);
        (void)fflush(stdout);
        _exit(ok ? 0 : 1);
    }
    bool ok = child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) &&
              WEXITSTATUS(status) == 0;
    counts->runs++;
    counts->states++;
    counts->seconds += cpu_seconds_of_copies() - from;
    return ok;
}

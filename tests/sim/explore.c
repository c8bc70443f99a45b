/* See explore.h. */
#include "tests/sim/explore.h"
#include "tests/sim/hosts.h"

#include "base/hash.h"
#include "base/verify.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* ---- a set of hashes ---------------------------------------------------------------------- */

static void set_put(struct hash_set *s, uint64_t v)
{
    uint64_t at = v & s->mask;
    while (s->slot[at])
        at = (at + 1) & s->mask;
    s->slot[at] = v;
    s->count++;
}

static void set_grow(struct hash_set *s)
{
    struct hash_set old = *s;
    uint64_t n = old.slot ? (old.mask + 1) * 2 : 1024;
    s->slot = calloc(n, sizeof(*s->slot));
    VP_VERIFY_TRUE(s->slot != NULL);
    s->mask = n - 1;
    s->count = 0;
    for (uint64_t i = 0; old.slot && i <= old.mask; i++)
        if (old.slot[i])
            set_put(s, old.slot[i]);
    free(old.slot);
}

bool hash_set_add(struct hash_set *s, uint64_t v)
{
    v = hash_mix(v) | 1; /* 0 marks a free slot */
    if (!s->slot || s->count * 2 > s->mask)
        set_grow(s);
    for (uint64_t at = v & s->mask; s->slot[at]; at = (at + 1) & s->mask)
        if (s->slot[at] == v)
            return false;
    set_put(s, v);
    return true;
}

void hash_set_fini(struct hash_set *s)
{
    free(s->slot);
    memset(s, 0, sizeof(*s));
}

/* ---- points ------------------------------------------------------------------------------- */

void points_add(struct points *p, struct sim_world *w, uint64_t event)
{
    if (p->count == p->capacity) {
        p->capacity = p->capacity ? 2 * p->capacity : 256;
        p->at = realloc(p->at, p->capacity * sizeof(*p->at));
        VP_VERIFY_TRUE(p->at != NULL);
    }
    p->at[p->count++] = (struct point){sim_snapshot_take(w), event};
}

void points_fini(struct points *p)
{
    for (unsigned i = 0; i < p->count; i++)
        sim_snapshot_free(p->at[i].snapshot);
    free(p->at);
    memset(p, 0, sizeof(*p));
}

uint64_t point_signature(const struct point *p)
{
    unsigned n = sim_snapshot_pending(p->snapshot);
    struct sim_choice *c = calloc(n + 1, sizeof(*c));
    VP_VERIFY_TRUE(c != NULL);
    uint64_t none = sim_snapshot_hash(p->snapshot, c);
    for (unsigned i = 0; i < n; i++)
        c[i].fate = SIM_KEEP;
    uint64_t all = sim_snapshot_hash(p->snapshot, c);
    free(c);
    return hash_mix(none + hash_mix(all + n));
}

/* ---- where we are ------------------------------------------------------------------------- */

struct position position;

static const char *const mishap_names[] = {"none", "dead",  "back", "error", "breaks",
                                           "kill", "power", "cut",  "break"};

/* DISK:EVENT:dead|back|error|breaks|kill|power|cut|break */
bool mishap_parse(const char *text, struct mishap_at *out)
{
    char *end;
    out->disk = (unsigned)strtoul(text, &end, 10);
    if (*end != ':')
        return false;
    out->event = strtoull(end + 1, &end, 10);
    for (enum mishap k = MISHAP_DEAD; *end == ':' && k <= MISHAP_BREAK; k++)
        if (strcmp(end + 1, mishap_names[k]) == 0) {
            out->kind = k;
            return true;
        }
    return false;
}

void position_report(const char *why)
{
    printf("FAIL %s: %s | reproduce: sim", position.scenario ? position.scenario->name : "random",
           why);
    if (position.guard)
        printf(" --guard %s", position.guard);
    if (position.scenario)
        printf(" --scenario %s", position.scenario->name);
    printf(" --seed %" PRIu64, position.seed);
    if (position.variant)
        printf(" --variant %u", position.variant);
    if (position.mishap.kind)
        printf(" --mishap %u:%" PRIu64 ":%s", position.mishap.disk, position.mishap.event,
               mishap_names[position.mishap.kind]);
    if (position.scenario && position.choices) {
        static char text[8192];
        choices_format(position.choices, position.choice_count, position.killed, text,
                       sizeof(text));
        printf(" --event %" PRIu64 " --choice %s", position.event, text);
    }
    printf("%s%s%s\n", position.step ? " (" : "", position.step ? position.step : "",
           position.step ? ")" : "");
    (void)fflush(stdout);
}

static void on_signal(int sig)
{
    (void)signal(SIGABRT, SIG_DFL);
    position_report(sig == SIGALRM ? "no progress for a while" : "the process died here");
    if (sig == SIGALRM)
        _exit(1);
    (void)signal(sig, SIG_DFL);
    (void)raise(sig);
}

void position_catch_signals(void)
{
    (void)signal(SIGABRT, on_signal);
    (void)signal(SIGSEGV, on_signal);
    (void)signal(SIGBUS, on_signal);
    (void)signal(SIGALRM, on_signal);
}

/* ---- recording the workload --------------------------------------------------------------- */

struct explorer {
    const struct scenario *sc;
    uint64_t seed, states_max;
    const struct explore_filter *filter;
    struct explore_counts *counts;
    struct model *model;
    struct points points;
    bool recording, broken;
    uint64_t first_event, last_event; /* of the body */
    unsigned stride;                  /* every so many points are crash points */
    struct seen seen;
    /* the point that is being enumerated */
    struct crash_state state;
    enum choice_depth depth;
};

enum { BREAKS_OPS = 32 };

/* Not to one more disk than the profile survives. */
static void happen(struct rig *r)
{
    if (r->bad && !rig_survives(r->config, r->bad | 1U << position.mishap.disk))
        return;
    const unsigned any = 1U << IO_READ | 1U << IO_WRITE | 1U << IO_FLUSH;
    struct sim_disk *d = rig_disk(r, position.mishap.disk);
    if (position.mishap.kind == MISHAP_ERROR)
        sim_disk_inject(d, SIM_FAULT_ERROR, any, 0, 0);
    else if (position.mishap.kind == MISHAP_BREAKS)
        sim_disk_fail(d, 1U << IO_WRITE | 1U << IO_FLUSH, BREAKS_OPS);
    else
        sim_disk_set_dead(d, true);
    rig_disk_is_bad(r, position.mishap.disk);
}

static void on_event(struct rig *r, uint64_t event)
{
    struct explorer *x = r->arg;
    if (position.mishap.kind && event == position.mishap.event)
        happen(r);
    if (x->recording)
        points_add(&x->points, r->w, event + 1);
}

static void workload(struct rig *r)
{
    struct explorer *x = r->arg;
    if (!rig_create_pools(r))
        return;
    rig_ops(r, x->sc->setup);
    x->first_event = r->model->event - 1;
    x->recording = true;
    rig_ops(r, x->sc->body ? x->sc->body : x->sc->make(position.variant));
    x->last_event = r->model->event - 1;
    x->recording = false;
    points_add(&x->points, r->w, r->model->event);
}

static void forget(struct explorer *x)
{
    points_fini(&x->points);
    model_free(x->model);
    x->model = NULL;
}

static void broken(struct explorer *x, const char *why)
{
    position_report(why);
    x->broken = true;
}

/* Of two pools without other copies, the one that the mishap hits. */
static unsigned failing_pools(const struct rig_config *config)
{
    bool fails =
        position.mishap.kind && config->second_disks && strcmp(config->profile, "single") == 0;
    return fails ? 1U << rig_pool_of_disk(config, position.mishap.disk) : 0;
}

static bool record(struct explorer *x)
{
    forget(x);
    position.choices = NULL;
    position.step = "the workload itself";
    (void)alarm(20);
    /* Each variant has its own latencies, hence its own order of completions. */
    uint64_t seed = x->seed + position.variant * UINT64_C(1000003);
    x->model = model_new(seed);
    x->state.seed = seed + 1;
    struct rig r = {.w = rig_world_new(x->sc->config, seed),
                    .config = x->sc->config,
                    .model = x->model,
                    .on_event = on_event,
                    .faults_planned =
                        position.mishap.kind || x->sc->flags & (SCENARIO_ROT | SCENARIO_FILLS),
                    /* Without another copy an error is an error. */
                    .errors_allowed = position.mishap.kind && x->sc->config->disks == 1,
                    .failing_pools = failing_pools(x->sc->config),
                    .arg = x};
    x->state.faults_planned = r.faults_planned;
    x->state.unsure = r.errors_allowed || r.failing_pools;
    bool ok = rig_run(&r, workload);
    if (!ok)
        broken(x, r.why);
    sim_world_free(r.w);
    x->counts->runs++;
    return ok;
}

/* ---- states ------------------------------------------------------------------------------- */

static unsigned or_default(unsigned v, unsigned value)
{
    return v ? v : value;
}

static bool look(struct explorer *x, uint64_t hash)
{
    char why[1024];
    struct verify_output out = {0};
    (void)alarm(20);
    position.step = NULL;
    x->counts->states++;
    bool ok = verify_state(&x->state, &out, why, sizeof(why));
    unsigned every = or_default(x->filter->deep_every, or_default(x->sc->deep_every, 64));
    bool deep = x->filter->only || hash_mix(hash) % every == 0;
    if (ok && deep && x->sc->flags & SCENARIO_IMPORT_FAULTS)
        ok = import_faults_look(&x->state, &x->seen, x->counts, why, sizeof(why));
    else if (ok && deep)
        ok = deep_look(&x->state, x->sc->flags, &x->seen, x->counts, why, sizeof(why));
    unsigned fill_every = or_default(x->filter->deep_every, or_default(x->sc->fill_every, 16));
    if (ok && x->sc->flags & SCENARIO_FILLS &&
        (x->filter->only || hash_mix(hash + 1) % fill_every == 0))
        ok = fill_look(&x->state, x->counts, why, sizeof(why));
    if (!ok)
        broken(x, why);
    return ok;
}

static bool on_choice(void *arg, const struct sim_choice *choices, unsigned count)
{
    struct explorer *x = arg;
    x->counts->tried++;
    uint64_t hash = sim_snapshot_hash(x->state.snapshot, choices);
    uint64_t key = hash_mix(hash + model_promises_at(x->model, x->state.event));
    if (x->state.killed)
        key += choices_kill_key(x->state.snapshot, x->model, x->state.event);
    key += x->state.back_disks + ((uint64_t)position.variant << 32);
    if (!x->filter->only && !hash_set_add(&x->seen.states, key))
        return true;
    x->counts->images += hash_set_add(&x->seen.images, hash);
    x->state.order = hash_mix(hash) % RIG_ORDERS;
    x->state.choices = position.choices = choices;
    position.choice_count = count;
    if (!look(x, hash))
        return false;
    return !x->states_max || x->counts->states < x->states_max;
}

static bool only_choice(struct explorer *x)
{
    unsigned n = sim_snapshot_pending(x->state.snapshot);
    struct sim_choice *c = calloc(n + 1, sizeof(*c));
    VP_VERIFY_TRUE(c != NULL);
    bool ok = choices_parse(x->filter->choice, c, n, &x->state.killed);
    if (!ok)
        broken(x, "--choice does not fit: one of k, d or t<hex>. for each pending write; before "
                  "them K for a kill");
    position.killed = x->state.killed;
    ok = ok && on_choice(x, c, n);
    free(c);
    return ok;
}

/* The states that can follow a point, after a power cut or a kill. */
static bool explore_point(struct explorer *x, const struct point *p, bool killed)
{
    x->state.killed = position.killed = killed;
    return killed ? choices_each_kill(p->snapshot, x->depth, on_choice, x)
                  : choices_each(p->snapshot, x->depth, on_choice, x);
}

/* Looks at disks as they were before the body, with what was kept at `p`. That is no more than a
 * power cut, and the disks must not take what was kept. */
static bool look_set_back(struct explorer *x, const struct point *p)
{
    const struct point *back = &x->points.at[0];
    unsigned n = sim_snapshot_pending(back->snapshot);
    struct sim_choice *all = calloc(n + 1, sizeof(*all));
    struct crash_state s = x->state;
    char why[1024];
    VP_VERIFY_TRUE(all != NULL);
    for (unsigned i = 0; i < n; i++)
        all[i].fate = SIM_KEEP;
    s.snapshot = back->snapshot;
    s.event = back->event;
    s.choices = all;
    s.keeps = p->snapshot;
    uint64_t key = sim_snapshot_hash(s.snapshot, all) + sim_snapshot_keeps_hash(s.keeps);
    bool ok = true;
    if (hash_set_add(&x->seen.states, key)) {
        x->counts->states++;
        position.choices = NULL;
        position.step = "set back";
        ok = verify_state(&s, NULL, why, sizeof(why));
    }
    if (!ok)
        broken(x, why);
    free(all);
    return ok;
}

static bool explore_points(struct explorer *x)
{
    uint64_t last[2] = {0, 0};
    /* Rot and overwrites under way do not go together (docs/testing.md). */
    bool kills = !(x->sc->flags & SCENARIO_ROT);
    for (unsigned i = 0; i < x->points.count; i++) {
        const struct point *p = &x->points.at[i];
        if (x->filter->only ? x->filter->event != p->event
                            : i % x->stride != 0 && i + 1 != x->points.count)
            continue;
        x->state.snapshot = p->snapshot;
        x->state.event = position.event = p->event;
        if (x->sc->flags & SCENARIO_SET_BACK && !look_set_back(x, p))
            return false;
        if (x->filter->only) {
            if (!only_choice(x))
                return false;
            continue;
        }
        uint64_t now = point_signature(p) + model_promises_at(x->model, p->event);
        uint64_t now_kill = now + choices_kill_key(p->snapshot, x->model, p->event);
        x->counts->events += now != last[0];
        if ((now != last[0] && !explore_point(x, p, false)) ||
            (kills && now_kill != last[1] && !explore_point(x, p, true)))
            return false;
        last[0] = now;
        last[1] = now_kill;
    }
    return true;
}

/* One run of the workload and all states that it could leave. A dead disk is tried both still dead
 * and back. False to stop: a failure, or enough states. */
static bool explore_run(struct explorer *x)
{
    if (!record(x))
        return false;
    x->state.model = x->model;
    if (position.mishap.kind != MISHAP_DEAD)
        return explore_points(x);
    bool go_on = explore_points(x);
    if (go_on) {
        position.mishap.kind = MISHAP_BACK;
        x->state.back_disks = 1U << position.mishap.disk;
        go_on = explore_points(x);
        x->state.back_disks = 0;
    }
    return go_on;
}

/* Runs the workload again for each event before which something could happen to a disk. */
static bool explore_mishaps(struct explorer *x, enum mishap kind, uint64_t from, uint64_t to)
{
    x->depth = CHOICES_THIN;
    x->stride = or_default(x->sc->crash_stride, 1);
    for (uint64_t event = from; event < to; event++)
        for (unsigned d = 0; d < x->sc->config->disks; d++) {
            position.mishap = (struct mishap_at){kind, d, event};
            if (!explore_run(x))
                return false;
        }
    return true;
}

static void explore_everything(struct explorer *x)
{
    for (unsigned v = 0; v == 0 || v < x->sc->variants; v++) {
        position.variant = v;
        x->depth = CHOICES_FULL;
        x->stride = 1;
        position.mishap.kind = MISHAP_NONE;
        if (!explore_run(x))
            return;
        uint64_t from = x->first_event, to = x->last_event;
        if (x->sc->flags & SCENARIO_DEATHS && !explore_mishaps(x, MISHAP_DEAD, from, to))
            return;
        if (x->sc->flags & SCENARIO_ERRORS && !explore_mishaps(x, MISHAP_ERROR, from, to))
            return;
        if (x->sc->flags & SCENARIO_BREAKS && !explore_mishaps(x, MISHAP_BREAKS, from, to))
            return;
    }
}

/* The one state that was asked for. */
static void explore_only(struct explorer *x)
{
    position.variant = x->filter->variant;
    position.mishap = x->filter->mishap;
    x->state.back_disks = position.mishap.kind == MISHAP_BACK ? 1U << position.mishap.disk : 0;
    if (!record(x))
        return;
    x->state.model = x->model;
    (void)explore_points(x);
}

double cpu_seconds(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

bool explore(const struct scenario *sc, uint64_t seed, const struct explore_filter *filter,
             uint64_t states_max, struct explore_counts *counts)
{
    static const struct explore_filter everything;
    if (sc->flags & SCENARIO_HOSTS)
        return hosts_explore(sc, seed, filter ? filter : &everything, states_max, counts);
    double from = cpu_seconds();
    struct explorer x = {.sc = sc,
                         .seed = seed,
                         .states_max = states_max,
                         .filter = filter ? filter : &everything,
                         .counts = counts,
                         .stride = 1};
    x.state.config = sc->config;
    position.scenario = sc;
    position.seed = seed;
    if (x.filter->only)
        explore_only(&x);
    else
        explore_everything(&x);
    (void)alarm(0);
    forget(&x);
    hash_set_fini(&x.seen.states);
    hash_set_fini(&x.seen.images);
    position.scenario = NULL;
    position.choices = NULL;
    position.variant = 0;
    position.killed = false;
    position.mishap.kind = MISHAP_NONE;
    counts->seconds += cpu_seconds() - from;
    return !x.broken;
}

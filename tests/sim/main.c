/* The simulator's command line: see README.md. */
#include "tests/sim/explore.h"
#include "tests/sim/guards.h"

#include "base/log.h"
#include "io/guard.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    CI_SEEDS = 2,          /* of each scenario                    */
    CI_RANDOM_ITEMS = 8,   /* pieces of work, for several jobs    */
    CI_RANDOM_SEEDS = 100, /* in each piece                       */
    CI_HOSTS_EVERY = 4,    /* one seed in so many is one of hosts, too */
    QUICK_STATES = 2000,   /* at most, of each scenario           */
    QUICK_RANDOM_SEEDS = 5,
    JOBS_MAX = 64,
};

static const char usage[] =
    "usage: sim --ci [--quick] [--jobs N]       everything, as CI does; or a little of it\n"
    "       sim --scenario NAME [--seed S] [--max STATES]\n"
    "           [--variant V] [--mishap DISK:EVENT:dead|back|error|breaks] [--event E --choice C]\n"
    "           [--deep-every N]                one state in about N is looked at deeper\n"
    "       sim --seed N [--count N]            random runs\n"
    "       sim --guards                        each guard switched off must be noticed\n"
    "       sim --guard NAME …                  with that guard switched off\n"
    "       sim --list                          scenarios and guards\n"
    "A failure prints the line that repeats it.\n";

struct options {
    bool ci, quick, guards, list, have_seed, have_event;
    const struct scenario *scenario;
    uint64_t seed, count, max;
    unsigned jobs;
    struct explore_filter filter;
};

static void print_counts(const char *name, const struct explore_counts *c)
{
    double rate = c->seconds > 0 ? (double)c->states * 60 / c->seconds : 0;
    printf("%-18s %8" PRIu64 " states (%8" PRIu64 " images, %8" PRIu64 " after crashed "
           "recoveries) of %8" PRIu64 " tried, %6" PRIu64 " crash points, %5" PRIu64
           " runs, %6.1f s CPU, %8.0f states/min\n",
           name, c->states, c->images, c->again, c->tried, c->events, c->runs, c->seconds, rate);
    (void)fflush(stdout);
}

static void add_counts(struct explore_counts *to, const struct explore_counts *from)
{
    to->events += from->events;
    to->tried += from->tried;
    to->states += from->states;
    to->images += from->images;
    to->again += from->again;
    to->runs += from->runs;
    to->seconds += from->seconds;
}

/* ---- CI ----------------------------------------------------------------------------------- */

/* A piece of the work; in memory that the jobs share. */
struct work {
    bool ok;
    struct explore_counts counts;
};

static void do_scenario(const struct scenario *sc, bool quick, struct work *w)
{
    w->ok = true;
    for (uint64_t seed = 1; w->ok && seed <= (quick ? 1 : CI_SEEDS); seed++)
        w->ok = explore(sc, seed, NULL, quick ? QUICK_STATES : 0, &w->counts);
    print_counts(sc->name, &w->counts);
}

static void do_random(unsigned item, bool quick, struct work *w)
{
    uint64_t first = 1 + (uint64_t)item * CI_RANDOM_SEEDS;
    uint64_t seeds = quick ? QUICK_RANDOM_SEEDS : CI_RANDOM_SEEDS;
    char name[32];
    w->ok = true;
    for (uint64_t seed = first; w->ok && seed < first + seeds; seed++)
        w->ok = random_run(seed, &w->counts) &&
                (seed % CI_HOSTS_EVERY || hosts_random(seed, &w->counts));
    (void)snprintf(name, sizeof(name), "random %" PRIu64 "…", first);
    print_counts(name, &w->counts);
}

static void do_item(unsigned item, bool quick, struct work *work)
{
    if (item < scenario_count())
        do_scenario(scenario_at(item), quick, &work[item]);
    else
        do_random(item - scenario_count(), quick, &work[item]);
}

static bool run_items(unsigned items, const struct options *o, struct work *work)
{
    pid_t child[JOBS_MAX];
    for (unsigned j = 0; j < o->jobs; j++) {
        (void)fflush(stdout);
        child[j] = o->jobs > 1 ? fork() : 0;
        if (child[j])
            continue;
        for (unsigned i = j; i < items; i += o->jobs)
            do_item(i, o->quick, work);
        if (o->jobs > 1)
            _exit(0);
    }
    for (unsigned j = 0; o->jobs > 1 && j < o->jobs; j++)
        (void)waitpid(child[j], NULL, 0);
    bool ok = true;
    for (unsigned i = 0; i < items; i++)
        ok &= work[i].ok;
    return ok;
}

static int run_ci(const struct options *o)
{
    unsigned items = scenario_count() + CI_RANDOM_ITEMS;
    struct work *work = mmap(NULL, items * sizeof(*work), PROT_READ | PROT_WRITE,
                             MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (work == MAP_FAILED)
        return 1;
    bool ok = run_items(items, o, work);
    struct explore_counts all = {0};
    for (unsigned i = 0; i < items; i++)
        add_counts(&all, &work[i].counts);
    print_counts("all", &all);
    bool guards = o->quick || guards_prove(o->jobs, !ok);
    printf("sim: %s: %" PRIu64 " distinct crash states (%" PRIu64 " distinct images), guards %s\n",
           ok && guards ? "ok" : "FAILED", all.states, all.images,
           o->quick ? "not tried"
           : guards ? "all caught"
                    : "NOT all caught");
    return ok && guards ? 0 : 1;
}

/* ---- the rest ----------------------------------------------------------------------------- */

static int run_list(void)
{
    for (unsigned i = 0; i < scenario_count(); i++)
        printf("scenario %-18s %s\n", scenario_at(i)->name, scenario_at(i)->what);
    for (unsigned i = 0; i < GUARD_COUNT; i++)
        printf("guard %-24s %s\n", io_guard_name((enum io_guard)i),
               io_guard_text((enum io_guard)i));
    return 0;
}

static int run_scenario(const struct options *o)
{
    struct explore_counts counts = {0};
    bool ok = explore(o->scenario, o->have_seed ? o->seed : 1, &o->filter, o->max, &counts);
    print_counts(o->scenario->name, &counts);
    return ok ? 0 : 1;
}

static int run_random(const struct options *o)
{
    struct explore_counts counts = {0};
    bool ok = true;
    for (uint64_t i = 0; ok && i < o->count; i++)
        ok = random_run(o->seed + i, &counts) && hosts_random(o->seed + i, &counts);
    print_counts("random", &counts);
    return ok ? 0 : 1;
}

static bool disable_guard(const char *name)
{
    for (unsigned i = 0; i < GUARD_COUNT; i++)
        if (strcmp(io_guard_name((enum io_guard)i), name) == 0) {
            io_guard_disabled[i] = true;
            position.guard = io_guard_name((enum io_guard)i);
            return true;
        }
    return false;
}

/* An option with a value. */
static bool parse_value(struct options *o, const char *name, const char *value)
{
    if (strcmp(name, "--scenario") == 0)
        return (o->scenario = scenario_find(value)) != NULL;
    if (strcmp(name, "--guard") == 0)
        return disable_guard(value);
    if (strcmp(name, "--mishap") == 0)
        return mishap_parse(value, &o->filter.mishap);
    if (strcmp(name, "--choice") == 0) {
        o->filter.choice = value;
        return true;
    }
    char *end;
    uint64_t number = strtoull(value, &end, 10);
    if (*end)
        return false;
    if (strcmp(name, "--seed") == 0) {
        o->have_seed = true;
        o->seed = number;
    } else if (strcmp(name, "--count") == 0) {
        o->count = number;
    } else if (strcmp(name, "--variant") == 0) {
        o->filter.variant = (unsigned)number;
    } else if (strcmp(name, "--deep-every") == 0) {
        o->filter.deep_every = (unsigned)number;
    } else if (strcmp(name, "--max") == 0) {
        o->max = number;
    } else if (strcmp(name, "--jobs") == 0 && number >= 1 && number <= JOBS_MAX) {
        o->jobs = (unsigned)number;
    } else if (strcmp(name, "--event") == 0) {
        o->have_event = true;
        o->filter.event = number;
    } else {
        return false;
    }
    return true;
}

static bool parse(struct options *o, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--ci") == 0)
            o->ci = true;
        else if (strcmp(argv[i], "--quick") == 0)
            o->quick = true;
        else if (strcmp(argv[i], "--guards") == 0)
            o->guards = true;
        else if (strcmp(argv[i], "--list") == 0)
            o->list = true;
        else if (i + 1 < argc && parse_value(o, argv[i], argv[i + 1]))
            i++;
        else
            return false;
    }
    o->filter.only = o->have_event && o->filter.choice;
    return o->have_event == (o->filter.choice != NULL);
}

int main(int argc, char **argv)
{
    struct options o = {.count = 1, .jobs = 1};
    vp_log_set_level(VP_LOG_ERROR);
    if (!parse(&o, argc, argv)) {
        (void)fputs(usage, stderr);
        return 2;
    }
    position_catch_signals();
    if (o.list)
        return run_list();
    if (o.ci)
        return run_ci(&o);
    if (o.guards)
        return guards_prove(o.jobs, true) ? 0 : 1;
    if (o.scenario)
        return run_scenario(&o);
    if (o.have_seed)
        return run_random(&o);
    (void)fputs(usage, stderr);
    return 2;
}

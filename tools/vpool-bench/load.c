/* The load: `depth` coroutines that each send one request after the other. */
#include "bench.h"

#include "base/bytes.h"
#include "io/buffer.h"
#include "io/reactor.h"

#include <stdlib.h>
#include <sys/resource.h>

/* ---- latencies ---------------------------------------------------------------------------- */

static unsigned bucket_of(uint64_t ns)
{
    if (ns < LATENCY_STEPS)
        return (unsigned)ns;
    unsigned power = 63 - (unsigned)__builtin_clzll(ns);
    unsigned step = (unsigned)(ns >> (power - 5)) - LATENCY_STEPS;
    return (power - 4) * LATENCY_STEPS + step;
}

static uint64_t bucket_end(unsigned bucket)
{
    if (bucket < LATENCY_STEPS)
        return bucket;
    unsigned power = bucket / LATENCY_STEPS + 4;
    uint64_t step = bucket % LATENCY_STEPS + LATENCY_STEPS;
    return ((step + 1) << (power - 5)) - 1;
}

void latencies_add(struct latencies *h, uint64_t ns)
{
    h->count[bucket_of(ns)]++;
    h->total++;
}

uint64_t latencies_quantile(const struct latencies *h, double part)
{
    uint64_t seen = 0, wanted = (uint64_t)((double)h->total * part);
    for (unsigned i = 0; i < 64 * LATENCY_STEPS; i++) {
        seen += h->count[i];
        if (seen > wanted)
            return bucket_end(i);
    }
    return 0;
}

/* ---- requests ----------------------------------------------------------------------------- */

struct load {
    const struct bench_options *o;
    const struct bench_target *target;
    struct bench_result *result;
    uint64_t units; /* blocks of block_bytes */
    uint64_t next;  /* sequential, and index of first writes */
    uint64_t begun; /* requests                              */
    uint64_t random;
    uint64_t end_ns;
    bool filling;
    struct co_group workers;
};

/* xorshift64*: repeatable, and cheap beside a request. */
static uint64_t load_random(struct load *l)
{
    l->random ^= l->random >> 12;
    l->random ^= l->random << 25;
    l->random ^= l->random >> 27;
    return l->random * 0x2545f4914f6cdd1dULL;
}

/* Visits every number below a power of two once, in no visible order, and skips those beyond
 * `units`. */
static bool first_write_next(struct load *l, uint64_t *unit)
{
    uint64_t mask = 1;
    while (mask < l->units)
        mask <<= 1;
    while (l->next < mask) {
        uint64_t n = (l->next++ * 0x9e3779b97f4a7c15ULL + 0x7f4a7c15ULL) & (mask - 1);
        if (n < l->units) {
            *unit = n;
            return true;
        }
    }
    return false;
}

static bool load_next(struct load *l, uint64_t now, uint64_t *unit)
{
    if (l->filling) {
        *unit = l->next++;
        return *unit < l->units;
    }
    if (now >= l->end_ns || (l->o->requests && l->begun == l->o->requests))
        return false;
    l->begun++;
    if (l->o->first_write && l->o->random)
        return first_write_next(l, unit);
    if (l->o->random)
        *unit = load_random(l) % l->units;
    else
        *unit = l->next++ % l->units;
    return !l->o->first_write || l->next <= l->units;
}

static CO int request(struct load *l, uint8_t *buf, uint32_t len, uint64_t unit)
{
    const struct bench_target *t = l->target;
    uint64_t offset = unit * len;
    if (!l->filling && !l->o->write)
        return t->read(t->arg, offset, buf, len);
    memcpy(buf, &unit, sizeof(unit)); /* no two blocks alike */
    return t->write(t->arg, offset, buf, len);
}

static CO void worker(void *arg)
{
    struct load *l = arg;
    uint32_t len = l->filling ? 1U << 20 : l->o->block_bytes;
    uint8_t *buf = io_buffer_get(len);
    memset(buf, 0x5a, len);
    uint64_t unit, begin, now = reactor_now_ns();
    int rc = 0;
    while (!rc && load_next(l, now, &unit)) {
        begin = now; /* the clock is looked at once a request: it costs what is measured */
        rc = request(l, buf, len, unit);
        if (rc || l->filling)
            continue;
        now = reactor_now_ns();
        latencies_add(&l->result->latency, now - begin);
        l->result->requests++;
        l->result->bytes += len;
    }
    io_buffer_put(buf, len);
    co_group_leave(&l->workers, rc);
}

static CO int load_run(struct load *l, unsigned depth)
{
    int rc = 0;
    co_group_init(&l->workers);
    for (unsigned i = 0; i < depth && !rc; i++) {
        co_group_enter(&l->workers);
        rc = co_spawn(worker, l, "load");
        if (rc)
            co_group_leave(&l->workers, rc);
    }
    return co_group_wait(&l->workers);
}

static CO int fill(struct load *l)
{
    l->filling = true;
    l->next = 0;
    l->units = l->o->size_bytes >> 20;
    int rc = load_run(l, 8);
    return rc ? rc : l->target->flush(l->target->arg);
}

static double seconds_of(struct timeval t)
{
    return (double)t.tv_sec + (double)t.tv_usec / 1e6;
}

static CO int measure(struct load *l)
{
    struct bench_result *out = l->result;
    struct rusage before, after;
    const struct reactor_figures *f = reactor_figures(reactor_self());
    uint64_t enters = figure_get(&f->enters), turns = figure_get(&f->turns);
    uint64_t switches = figure_get(&f->switches);
    getrusage(RUSAGE_SELF, &before);
    uint64_t begin = reactor_now_ns();
    l->end_ns = begin + (uint64_t)(l->o->runtime_seconds * 1e9);
    int rc = load_run(l, l->o->depth);
    out->seconds = (double)(reactor_now_ns() - begin) / 1e9;
    getrusage(RUSAGE_SELF, &after);
    out->cpu_user_seconds = seconds_of(after.ru_utime) - seconds_of(before.ru_utime);
    out->cpu_system_seconds = seconds_of(after.ru_stime) - seconds_of(before.ru_stime);
    out->enters = figure_get(&f->enters) - enters;
    out->turns = figure_get(&f->turns) - turns;
    out->switches = figure_get(&f->switches) - switches;
    return rc;
}

CO int bench_run(const struct bench_options *o, const struct bench_target *target,
                 struct bench_result *out)
{
    struct load l = {.o = o, .target = target, .result = out, .random = 0x9e3779b97f4a7c15ULL};
    int rc = o->first_write ? 0 : fill(&l);
    if (rc)
        return rc;
    l.filling = false;
    l.next = 0;
    l.units = o->size_bytes / o->block_bytes;
    return measure(&l);
}

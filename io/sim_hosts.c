/* See sim_hosts.h. */
#include "io/sim_hosts.h"
#include "io/reactor_impl.h"
#include "io/sim_world_impl.h"

#include "base/bytes.h"
#include "base/hash.h"
#include "base/verify.h"

#include <stdlib.h>
#include <string.h>

struct sim_host {
    struct sim_world *w;
    struct reactor *r; /* NULL: it is not up */
    bool busy;         /* it may have something to run */
};

struct sim_later {
    uint64_t at_ns;
    void (*fn)(void *arg);
    void *arg;
};

struct sim_hosts {
    uint64_t random, now_ns;
    struct sim_host host[SIM_HOSTS_MAX];
    struct sim_later *later; /* in the order of their time, then of their calls */
    unsigned later_count, later_capacity;
};

struct sim_hosts *sim_hosts_new(uint64_t seed)
{
    struct sim_hosts *h = calloc(1, sizeof(*h));
    VP_VERIFY_TRUE(h != NULL);
    h->random = hash_mix(seed ^ 0x686f737473ULL);
    return h;
}

void sim_hosts_free(struct sim_hosts *h)
{
    if (!h)
        return;
    free(h->later);
    free(h);
}

uint64_t sim_hosts_now_ns(const struct sim_hosts *h)
{
    return h->now_ns;
}

uint64_t sim_hosts_below(struct sim_hosts *h, uint64_t bound)
{
    return (uint64_t)((unsigned __int128)sim_mix(&h->random) * bound >> 64);
}

/* ---- hosts --------------------------------------------------------------------------------- */

static void advance(struct sim_hosts *h, uint64_t now_ns)
{
    h->now_ns = max_u64(h->now_ns, now_ns);
    for (unsigned i = 0; i < SIM_HOSTS_MAX; i++)
        if (h->host[i].r)
            sim_world_advance(h->host[i].w, h->now_ns);
}

void sim_hosts_start(struct sim_hosts *h, unsigned at, struct sim_world *w, struct reactor *r,
                     void (*first)(void *arg), void *arg)
{
    VP_VERIFY(at, <, (unsigned)SIM_HOSTS_MAX);
    VP_VERIFY(h->host[at].r, ==, NULL);
    VP_VERIFY(r->config.sim, ==, w);
    h->host[at] = (struct sim_host){.w = w, .r = r, .busy = true};
    advance(h, sim_now_ns(w));
    reactor_enter(r);
    VP_VERIFY(co_spawn(first, arg, "first"), ==, 0);
    reactor_exit();
}

void sim_hosts_stop(struct sim_hosts *h, unsigned at)
{
    VP_VERIFY(at, <, (unsigned)SIM_HOSTS_MAX);
    VP_VERIFY(reactor_current, ==, NULL);
    h->host[at] = (struct sim_host){0};
}

bool sim_hosts_is_up(const struct sim_hosts *h, unsigned at)
{
    return h->host[at].r != NULL;
}

void sim_hosts_on(struct sim_hosts *h, unsigned at, void (*fn)(void *arg), void *arg)
{
    struct sim_host *host = &h->host[at];
    VP_VERIFY(host->r, !=, NULL);
    reactor_enter(host->r);
    fn(arg);
    reactor_exit();
    host->busy = true;
}

void sim_hosts_later(struct sim_hosts *h, uint64_t delay_ns, void (*fn)(void *arg), void *arg)
{
    h->later = sim_grow(h->later, &h->later_capacity, h->later_count + 1, sizeof(*h->later));
    unsigned at = h->later_count++;
    uint64_t at_ns = h->now_ns + delay_ns;
    for (; at && h->later[at - 1].at_ns > at_ns; at--)
        h->later[at] = h->later[at - 1];
    h->later[at] = (struct sim_later){at_ns, fn, arg};
}

/* ---- one step ------------------------------------------------------------------------------ */

static void run_host(struct sim_host *host)
{
    bool idle = false;
    reactor_enter(host->r);
    bool goes_on = reactor_turn_simulated(host->r, &idle);
    reactor_exit();
    host->busy = !idle;
    if (!goes_on)
        *host = (struct sim_host){0};
}

static uint64_t host_next_ns(const struct sim_host *host)
{
    return host->r ? min_u64(sim_world_next_ns(host->w), reactor_next_timer_ns(host->r))
                   : UINT64_MAX;
}

/* A host of those in `set`, a bit each. */
static struct sim_host *choose(struct sim_hosts *h, unsigned set)
{
    uint64_t skip = sim_hosts_below(h, (uint64_t)__builtin_popcount(set));
    while (skip--)
        set &= set - 1;
    return &h->host[__builtin_ctz(set)];
}

static void run_later(struct sim_hosts *h)
{
    struct sim_later first = h->later[0];
    memmove(h->later, h->later + 1, --h->later_count * sizeof(*h->later));
    advance(h, first.at_ns);
    first.fn(first.arg);
}

/* The next disk event or timer of a host. */
static void step_host(struct sim_host *host)
{
    reactor_enter(host->r);
    bool goes_on = sim_reactor_step(host->w, reactor_next_timer_ns(host->r));
    reactor_exit();
    host->busy = true;
    if (!goes_on)
        *host = (struct sim_host){0};
}

bool sim_hosts_step(struct sim_hosts *h)
{
    unsigned busy = 0, next = 0;
    uint64_t next_ns = UINT64_MAX;
    for (unsigned i = 0; i < SIM_HOSTS_MAX; i++) {
        uint64_t at_ns = host_next_ns(&h->host[i]);
        busy |= h->host[i].busy ? 1U << i : 0;
        if (at_ns < next_ns)
            next = 0;
        next_ns = min_u64(next_ns, at_ns);
        next |= at_ns == next_ns && at_ns < UINT64_MAX ? 1U << i : 0;
    }
    if (busy) {
        run_host(choose(h, busy));
        return true;
    }
    if (h->later_count && h->later[0].at_ns <= next_ns) {
        run_later(h);
        return true;
    }
    if (!next)
        return false;
    advance(h, next_ns);
    step_host(choose(h, next));
    return true;
}

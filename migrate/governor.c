#include "migrate/governor.h"

#include "base/bytes.h"

#define BLOCK 4096U

void governor_init(struct governor *g, unsigned impact_percent)
{
    *g = (struct governor){.impact_percent = impact_percent,
                           .flight_bytes =
                               impact_percent ? 2 * GOVERNOR_FLIGHT_MIN : GOVERNOR_FLIGHT_MAX};
}

uint64_t governor_limit_ns(const struct governor *g)
{
    if (!g->impact_percent || !g->before_ns)
        return UINT64_MAX;
    return max_u64((uint64_t)((double)g->before_ns * g->impact_percent / 100),
                   g->before_ns + GOVERNOR_GRACE_NS);
}

static void governor_leap(struct governor *g)
{
    g->rest_ns = g->rest_ns / 4 < GOVERNOR_REST_MIN_NS ? 0 : g->rest_ns / 4;
    g->flight_bytes = min_u64(g->flight_bytes * 2, GOVERNOR_FLIGHT_MAX);
}

static void governor_step(struct governor *g)
{
    if (g->rest_ns)
        g->rest_ns = g->rest_ns / 2 < GOVERNOR_REST_MIN_NS ? 0 : g->rest_ns / 2;
    else
        g->flight_bytes = min_u64(g->flight_bytes + GOVERNOR_FLIGHT_STEP, GOVERNOR_FLIGHT_MAX);
}

/* Half as much, but no less than `least` of what is in flight now (a share, up to 1). */
static void governor_back_off(struct governor *g, double least)
{
    uint64_t flight = (uint64_t)((double)g->flight_bytes * (least > 0.5 ? least : 0.5));
    g->settled = true;
    if (g->flight_bytes > GOVERNOR_FLIGHT_MIN)
        g->flight_bytes = max_u64(flight, GOVERNOR_FLIGHT_MIN);
    else if (least <= 0.5)
        g->rest_ns = min_u64(max_u64(g->rest_ns * 2, GOVERNOR_REST_MIN_NS), GOVERNOR_REST_MAX_NS);
}

void governor_decide(struct governor *g, const struct governor_look *l)
{
    double needed = (double)l->dirtied_bytes * GOVERNOR_ABOVE_PERCENT / 100;
    double rate = (double)max_u64(l->rate_bytes, 1);
    if (!g->impact_percent)
        return;
    if (!l->latency_ns || !g->before_ns || rate < needed)
        governor_leap(g);
    else if (l->latency_ns > governor_limit_ns(g))
        governor_back_off(g, needed / rate);
    else if (g->settled)
        governor_step(g);
    else
        governor_leap(g);
}

struct governor_pace governor_pace(const struct governor *g)
{
    unsigned workers = (unsigned)div_up(g->flight_bytes, GOVERNOR_PIECE_MAX);
    return (struct governor_pace){
        .workers = workers,
        .piece_bytes = max_u64(align_down(g->flight_bytes / workers, BLOCK), BLOCK),
        .rest_ns = g->rest_ns,
    };
}

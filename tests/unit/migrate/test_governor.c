/* The law by which a move slows its copy down for the clients' sake: a plant instead of a pool. */
#include "migrate/governor.h"

#include "base/bytes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#define US(n)  ((uint64_t)(n)*1000)
#define MIB(n) ((uint64_t)(n) << 20)

/* What is in flight delays each request by so much a KiB, on top of what it took before. */
struct plant {
    uint64_t before_ns, ns_per_kib;
    uint64_t rate_per_kib; /* bytes a second that a KiB in flight makes */
    uint64_t dirtied;      /* bytes a second */
};

static double plant_share(const struct governor *g)
{
    return 1e6 / (1e6 + (double)g->rest_ns);
}

static struct governor_look plant_look(const struct plant *p, const struct governor *g)
{
    uint64_t kib = g->flight_bytes >> 10;
    return (struct governor_look){
        .latency_ns = p->before_ns + (uint64_t)((double)(p->ns_per_kib * kib) * plant_share(g)),
        .rate_bytes = (uint64_t)((double)(p->rate_per_kib * kib) * plant_share(g)),
        .dirtied_bytes = p->dirtied};
}

/* Means over the last half of the looks. */
struct result {
    double latency, rate, flight;
    unsigned above; /* looks at which requests took too long */
};

static struct result plant_run(const struct plant *p, struct governor *g, unsigned looks)
{
    struct result r = {0};
    g->before_ns = p->before_ns;
    for (unsigned i = 0; i < looks; i++) {
        struct governor_look l = plant_look(p, g);
        if (i >= looks / 2) {
            r.latency += (double)l.latency_ns * 2 / looks;
            r.rate += (double)l.rate_bytes * 2 / looks;
            r.flight += (double)g->flight_bytes * 2 / looks;
            r.above += l.latency_ns > governor_limit_ns(g);
        }
        governor_decide(g, &l);
    }
    return r;
}

static void a_copy_that_disturbs_nobody_goes_at_full_speed(void **state)
{
    const struct plant p = {US(300), 10, MIB(4), 0};
    struct governor g;
    (void)state;
    governor_init(&g, 200);
    (void)plant_run(&p, &g, 20);
    assert_int_equal(g.flight_bytes, GOVERNOR_FLIGHT_MAX);
    assert_int_equal(g.rest_ns, 0);
    assert_false(g.settled);
}

static void requests_take_about_as_long_as_is_allowed(void **state)
{
    const struct plant p = {US(300), 1000, MIB(4), 0}; /* 300 KiB in flight are the limit */
    struct governor g;
    (void)state;
    governor_init(&g, 200);
    struct result r = plant_run(&p, &g, 400);
    assert_in_range((uint64_t)r.latency, US(450), US(600));
    assert_in_range((uint64_t)r.flight, 150 << 10, 300 << 10);
    assert_true(r.above <= 200 / 3);
}

static void more_impact_is_more_speed(void **state)
{
    const struct plant p = {US(300), 1000, MIB(4), 0};
    const unsigned percent[] = {120, 150, 200, 300};
    double rate = 0;
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        struct governor g;
        governor_init(&g, percent[i]);
        struct result r = plant_run(&p, &g, 400);
        assert_true(r.rate > rate * 1.2);
        rate = r.rate;
    }
}

/* At the least that is in flight they still take too long: the copy rests, but not for ever. */
static void a_copy_rests_where_the_least_is_too_much(void **state)
{
    const struct plant p = {US(300), US(60), MIB(4), 0};
    struct governor g;
    (void)state;
    governor_init(&g, 200);
    struct result r = plant_run(&p, &g, 400);
    assert_in_range((uint64_t)r.flight, GOVERNOR_FLIGHT_MIN, GOVERNOR_FLIGHT_MIN * 3 / 2);
    assert_true(r.latency < (double)US(1000)); /* without rests: 1260 */
    const struct plant hopeless = {US(300), US(6000), MIB(4), 0};
    (void)plant_run(&hopeless, &g, 100);
    assert_int_equal(g.rest_ns, GOVERNOR_REST_MAX_NS);
}

static void a_copy_stays_above_the_rate_of_the_changes(void **state)
{
    /* the latency alone would allow 300 KiB and 1200 MiB/s */
    const struct plant p = {US(300), 1000, MIB(4), MIB(1600)};
    struct governor g;
    (void)state;
    governor_init(&g, 200);
    struct result r = plant_run(&p, &g, 400);
    assert_true(r.rate >= (double)MIB(1600) * 1.2);
    assert_true(r.latency > (double)US(600)); /* the price */
}

static void time_without_requests_is_used(void **state)
{
    struct governor g;
    (void)state;
    governor_init(&g, 200);
    g.before_ns = US(100);
    for (unsigned i = 0; i < 40; i++)
        governor_decide(&g, &(struct governor_look){.latency_ns = US(9000), .rate_bytes = 1});
    assert_int_equal(g.rest_ns, GOVERNOR_REST_MAX_NS);
    for (unsigned i = 0; i < 12; i++)
        governor_decide(&g, &(struct governor_look){.latency_ns = 0, .rate_bytes = 1});
    assert_int_equal(g.rest_ns, 0);
    assert_int_equal(g.flight_bytes, GOVERNOR_FLIGHT_MAX);
}

static void a_delay_that_nobody_notices_is_not_too_much(void **state)
{
    struct governor g;
    (void)state;
    governor_init(&g, 200);
    g.before_ns = US(5);
    assert_int_equal(governor_limit_ns(&g), US(5) + GOVERNOR_GRACE_NS);
    g.before_ns = 0;
    assert_true(governor_limit_ns(&g) == UINT64_MAX);
}

static void a_governor_that_is_off_decides_nothing(void **state)
{
    struct governor g;
    (void)state;
    governor_init(&g, 0);
    g.before_ns = US(100);
    assert_true(governor_limit_ns(&g) == UINT64_MAX);
    governor_decide(&g, &(struct governor_look){.latency_ns = US(9000), .rate_bytes = 1});
    assert_int_equal(g.flight_bytes, GOVERNOR_FLIGHT_MAX);
    assert_int_equal(g.rest_ns, 0);
}

static void a_pace_has_whole_blocks_and_no_more_than_is_in_flight(void **state)
{
    struct governor g;
    (void)state;
    governor_init(&g, 200);
    for (g.flight_bytes = GOVERNOR_FLIGHT_MIN; g.flight_bytes <= GOVERNOR_FLIGHT_MAX;
         g.flight_bytes += 1000) {
        struct governor_pace p = governor_pace(&g);
        assert_in_range(p.workers, 1, GOVERNOR_FLIGHT_MAX / GOVERNOR_PIECE_MAX);
        assert_true(p.piece_bytes > 0 && p.piece_bytes <= GOVERNOR_PIECE_MAX);
        assert_true(is_aligned(p.piece_bytes, 4096));
        assert_true(p.workers * p.piece_bytes <= g.flight_bytes);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_copy_that_disturbs_nobody_goes_at_full_speed),
        cmocka_unit_test(requests_take_about_as_long_as_is_allowed),
        cmocka_unit_test(more_impact_is_more_speed),
        cmocka_unit_test(a_copy_rests_where_the_least_is_too_much),
        cmocka_unit_test(a_copy_stays_above_the_rate_of_the_changes),
        cmocka_unit_test(time_without_requests_is_used),
        cmocka_unit_test(a_delay_that_nobody_notices_is_not_too_much),
        cmocka_unit_test(a_governor_that_is_off_decides_nothing),
        cmocka_unit_test(a_pace_has_whole_blocks_and_no_more_than_is_in_flight),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

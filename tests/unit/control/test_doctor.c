/* The collection of kept memory: what nobody will take goes a day after its last change. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "control/control_impl.h"
#include "io/keep.h"
#include "tests/lib/on_reactor.h"
#include "tests/lib/sim_pool.h"

#define HOUR_NS (UINT64_C(3600) * 1000000000)
#define UNKNOWN "00000000-1111-4222-8333-000000000001"
#define KNOWN   "00000000-1111-4222-8333-000000000002"

static struct control control;
static struct control_pool known;

static void drop_line(enum vp_log_level level, const char *line, void *arg)
{
    (void)level;
    (void)line;
    (void)arg;
}

static int setup(void **state)
{
    (void)state;
    vp_log_set_sink(drop_line, NULL);
    control = (struct control){0};
    known = (struct control_pool){.name = "tank"};
    list_init(&control.pools);
    list_add_tail(&control.pools, &known.link);
    assert_true(vp_uuid_parse(KNOWN, &known.uuid));
    return event_ring_init(&control.events);
}

static int teardown(void **state)
{
    (void)state;
    event_ring_fini(&control.events);
    vp_log_set_sink(NULL, NULL);
    return 0;
}

/* Of a volume of the pool, with a living owner until io_keep_close. */
static void keep(const char *pool, unsigned volume, struct io_keep *k)
{
    char name[IO_KEEP_NAME_MAX + 1];
    (void)snprintf(name, sizeof(name), "vpool-%s-%u-0123456789abcdef", pool, volume);
    check_ok(io_keep_new(name, 8192, k));
    check_ok(io_keep_reserve(k, 0, 4096));
}

static void keep_without_owner(const char *pool, unsigned volume)
{
    struct io_keep k;
    keep(pool, volume, &k);
    io_keep_close(&k);
}

static int count_one(const char *name, void *arg)
{
    (void)name;
    ++*(unsigned *)arg;
    return 0;
}

static unsigned kept_of(const char *pool)
{
    char prefix[64];
    unsigned n = 0;
    (void)snprintf(prefix, sizeof(prefix), "vpool-%s-", pool);
    check_ok(io_keep_each(prefix, count_one, &n));
    return n;
}

static void collect_after(unsigned hours)
{
    check_ok(co_sleep_ns(hours * HOUR_NS));
    doctor_collect(&control);
}

static bool event_tells(const char *subject, const char *text)
{
    json_t *r = event_list(&control.events, 0, 10);
    const json_t *e;
    bool tells = false;
    size_t i;
    json_array_foreach(json_object_get(r, "events"), i, e)
    {
        tells |= strcmp(json_string_value(json_object_get(e, "kind")), "daemon.kept-memory") == 0 &&
                 strcmp(json_string_value(json_object_get(e, "subject")), subject) == 0 &&
                 strstr(json_string_value(json_object_get(e, "text")), text);
    }
    json_decref(r);
    return tells;
}

static void in_world(void (*body)(void *arg))
{
    struct sim_world *w = sim_pool_world(1, 1);
    sim_pool_run(w, body, NULL);
    sim_world_free(w);
    assert_checked();
}

/* ---- tests ---------------------------------------------------------------------------------- */

static void body_unknown(void *arg)
{
    (void)arg;
    keep_without_owner(UNKNOWN, 1);
    collect_after(22);
    keep_without_owner(UNKNOWN, 2); /* the pool is as young as its youngest */
    collect_after(22);
    check_equal(kept_of(UNKNOWN), 2);
    check(!event_is_there(&control.events, 0));
    collect_after(3);
    check_equal(kept_of(UNKNOWN), 0);
    check(event_tells(UNKNOWN, "8K of memory"));
}
static void of_an_unknown_pool_it_goes_after_a_day_and_an_event_says_so(void **state)
{
    (void)state;
    in_world(body_unknown);
}

static void body_known(void *arg)
{
    (void)arg;
    keep_without_owner(KNOWN, 1);
    collect_after(48);
    check_equal(kept_of(KNOWN), 1);
    check(!event_is_there(&control.events, 0));
    /* It is open, and took what was its own. */
    known.vs = (struct volumes *)&known;
    collect_after(2);
    check_equal(kept_of(KNOWN), 0);
    check(event_tells(KNOWN, "4K of memory"));
}
static void of_a_known_pool_it_stays_until_the_pool_is_open(void **state)
{
    (void)state;
    in_world(body_known);
}

static void body_owned(void *arg)
{
    (void)arg;
    struct io_keep k;
    keep(UNKNOWN, 1, &k);
    keep_without_owner(UNKNOWN, 2); /* its owner's pool is served by a daemon that lives */
    collect_after(48);
    check_equal(kept_of(UNKNOWN), 2);
    known.vs = (struct volumes *)&known;
    struct io_keep own;
    keep(KNOWN, 1, &own);
    keep_without_owner(KNOWN, 2);
    collect_after(48);
    check_equal(kept_of(KNOWN), 1); /* the open volume's */
    io_keep_close(&own);
    io_keep_close(&k);
    collect_after(2);
    check_equal(kept_of(UNKNOWN), 0);
}
static void of_a_living_owner_it_stays(void **state)
{
    (void)state;
    in_world(body_owned);
}

static void body_hourly(void *arg)
{
    (void)arg;
    collect_after(0);
    keep_without_owner(UNKNOWN, 1);
    control.next_collect_ns += 30 * HOUR_NS;
    collect_after(30);
    check_equal(kept_of(UNKNOWN), 1);
    collect_after(1);
    check_equal(kept_of(UNKNOWN), 0);
}
static void nobody_looks_before_it_is_time(void **state)
{
    (void)state;
    in_world(body_hourly);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(of_an_unknown_pool_it_goes_after_a_day_and_an_event_says_so,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(of_a_known_pool_it_stays_until_the_pool_is_open, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(of_a_living_owner_it_stays, setup, teardown),
        cmocka_unit_test_setup_teardown(nobody_looks_before_it_is_time, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

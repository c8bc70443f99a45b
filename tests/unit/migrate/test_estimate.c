/* What a move would take, before it begins. */
#include "tests/lib/on_reactor.h"
#include "tests/lib/sim_volumes.h"

#include "base/bytes.h"
#include "migrate/migrate.h"
#include "volumes/front.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MIB(n)    ((uint64_t)(n) << 20)
#define SECOND_NS UINT64_C(1000000000)
#define DATA      MIB(6)

static uint8_t data[1 << 20] __attribute__((aligned(4096)));

static void play(void (*body)(struct sim_volumes *s))
{
    struct sim_volumes *s =
        sim_volumes_new(&(struct sim_volumes_config){.seed = 1, .two_pools = true});
    sim_volumes_run(s, body);
    sim_volumes_free(s);
    assert_checked();
}

struct client { /* writes a MiB, again and again, until it is told to stop */
    struct front_client client;
    uint64_t pause_ns;
    bool stop, stopped;
};

static CO void client_work(void *arg)
{
    struct client *c = arg;
    while (!c->stop) {
        check_ok(front_write(&c->client, 0, sizeof(data), data, 0));
        vp_ignore(co_sleep_ns(c->pause_ns), "nobody cancels it");
    }
    c->stopped = true;
}

static CO struct volume *volume_with_data(struct sim_volumes *s, struct client *c)
{
    struct volume *v = sim_volumes_volume(s, "v", MIB(8));
    memset(data, 7, sizeof(data));
    front_client_init(&c->client, volume_front(v));
    for (uint64_t at = 0; at < DATA; at += sizeof(data))
        check_ok(front_write(&c->client, at, sizeof(data), data, 0));
    return v;
}

static CO struct migrate_estimate estimate(struct sim_volumes *s, struct migrate_options *o)
{
    struct migrate_estimate e = {0};
    struct migrate_plan plan;
    struct vp_error err = {0};
    o->from = s->vs;
    o->to = s->other;
    o->volume = o->name = "v";
    check_ok(migrate_plan(o, &plan, &err));
    uint64_t since_ns = reactor_now_ns();
    check_ok(migrate_estimate(o, &plan, &e, &err));
    uint64_t took_ns = reactor_now_ns() - since_ns;
    check(took_ns >= SECOND_NS && took_ns < SECOND_NS * 3 / 2);
    return e;
}

static CO void idle_body(struct sim_volumes *s)
{
    struct client c = {0};
    struct volume *v = volume_with_data(s, &c);
    struct migrate_options o = {.mode = MIGRATE_LIVE};
    struct migrate_estimate e = estimate(s, &o);
    check(e.bytes == DATA && e.written_bytes == 0 && e.rate_bytes > 0);
    check(e.outlook.known && !e.outlook.never && e.pause_ns == 0);
    check(e.outlook.ns == (uint64_t)((double)DATA * 1e9 / (double)e.rate_bytes));
    o.limit_bytes = MIB(2);
    e = estimate(s, &o);
    check(e.rate_bytes == MIB(2) && e.outlook.ns == 3 * SECOND_NS);
    o.verify = true; /* read once more */
    e = estimate(s, &o);
    check(e.rate_bytes == MIB(2) && e.outlook.ns == 6 * SECOND_NS);
    o = (struct migrate_options){.mode = MIGRATE_OFFLINE, .verify = true}; /* which is refused */
    e = estimate(s, &o);
    check(e.pause_ns == e.outlook.ns);
    volume_close(v);
}

static CO void busy_body(struct sim_volumes *s)
{
    struct client c = {.pause_ns = SECOND_NS / 8};
    struct volume *v = volume_with_data(s, &c);
    struct migrate_options o = {.mode = MIGRATE_LIVE, .limit_bytes = MIB(4)};
    check_ok(co_spawn(client_work, &c, "client"));
    struct migrate_estimate e = estimate(s, &o);
    check(e.written_bytes > MIB(6) && e.written_bytes <= MIB(8));
    check(e.outlook.never);
    check(e.pause_ns > 0 && e.pause_ns <= SECOND_NS / 50);
    o.limit_bytes = MIB(16);
    e = estimate(s, &o);
    check(!e.outlook.never && e.outlook.ns > SECOND_NS / 2);
    c.stop = true;
    while (!c.stopped)
        vp_ignore(co_sleep_ns(1000000), "nobody cancels it");
    volume_close(v);
}

static CO void empty_body(struct sim_volumes *s)
{
    struct volume *v = sim_volumes_volume(s, "v", MIB(8));
    struct migrate_options o = {.mode = MIGRATE_LIVE};
    struct migrate_estimate e = estimate(s, &o);
    check(e.bytes == 0 && !e.outlook.never);
    volume_close(v);
}

static void a_volume_that_nobody_writes_takes_its_bytes_by_the_rate(void **state)
{
    (void)state;
    play(idle_body);
}

static void clients_that_write_more_than_is_copied_are_noticed_before(void **state)
{
    (void)state;
    play(busy_body);
}

static void an_empty_volume_has_no_rate(void **state)
{
    (void)state;
    play(empty_body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_volume_that_nobody_writes_takes_its_bytes_by_the_rate),
        cmocka_unit_test(clients_that_write_more_than_is_copied_are_noticed_before),
        cmocka_unit_test(an_empty_volume_has_no_rate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

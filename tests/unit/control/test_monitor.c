/*
 * When the monitor looks at disks by itself: once a minute, and soon after an error. What it finds
 * there is pool/test_disks.c's.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "control/control_impl.h"
#include "tests/lib/events_of.h"
#include "tests/lib/on_reactor.h"
#include "tests/lib/sim_volumes.h"

enum { SECOND_NS = 1000000000, VOLUME_BYTES = 1 << 20, BLOCK = 4096 };

static struct control control;
static struct control_pool tank;
static uint8_t block[BLOCK] __attribute__((aligned(BLOCK)));

static void drop_line(enum vp_log_level level, const char *line, void *arg)
{
    (void)level;
    (void)line;
    (void)arg;
}

/* The daemon's loop, once a second. */
static CO void seconds_pass(unsigned n)
{
    for (; n; n--) {
        check_ok(co_sleep_ns(SECOND_NS));
        monitor_look(&control);
        monitor_tend(&control);
    }
    while (control.looking)
        check_ok(co_sleep_ns(SECOND_NS / 1000));
}

static void label_overwrite(struct sim_volumes *s)
{
    static const uint8_t noise[BLOCK] = {1, 2, 3};
    sim_disk_poke(sim_disk_find(s->world, "d1"), 0, noise, sizeof(noise));
}

static bool is_found(void)
{
    struct pool_disk_info d;
    pool_disk_info_get(volumes_pool(tank.vs), 1, &d);
    return d.finding[0];
}

/* `tending` keeps the monitor from what it does besides. */
static void control_begin(struct sim_volumes *s)
{
    control = (struct control){.tending = true};
    migrations_init(&control.migrations);
    tank = (struct control_pool){.name = "p", .control = &control, .vs = s->vs};
    list_init(&control.pools);
    list_init(&control.attachments);
    co_queue_init(&tank.unused);
    health_init(&tank.health);
    list_add_tail(&control.pools, &tank.link);
    check_ok(event_ring_init(&control.events));
    seconds_pass(1); /* the first look */
    check(!is_found());
}

static void control_end(struct sim_volumes *s)
{
    event_ring_fini(&control.events);
    health_fini(&tank.health);
    check_ok(sim_volumes_close(s));
}

static void play(void (*body)(struct sim_volumes *s))
{
    struct sim_volumes *s =
        sim_volumes_new(&(struct sim_volumes_config){.seed = 3, .profile = "mirror"});
    vp_log_set_sink(drop_line, NULL);
    sim_volumes_run(s, body);
    vp_log_set_sink(NULL, NULL);
    sim_volumes_free(s);
    assert_checked();
}

/* ---- tests ---------------------------------------------------------------------------------- */

static CO void wait_a_minute(struct sim_volumes *s)
{
    control_begin(s);
    label_overwrite(s);
    seconds_pass(57);
    check(!is_found());
    seconds_pass(4);
    check(is_found());
    seconds_pass(1);
    check_equal(events_of(&control.events, "disk.changed"), 1);
    seconds_pass(130);
    check_equal(events_of(&control.events, "disk.changed"), 1); /* told once */
    control_end(s);
}

static void a_label_that_was_overwritten_is_found_within_a_minute(void **state)
{
    (void)state;
    play(wait_a_minute);
}

static CO void meet_an_error(struct sim_volumes *s)
{
    struct volume *v = sim_volumes_volume(s, "v", VOLUME_BYTES);
    if (!v)
        return;
    check_ok(volume_write(v, 0, BLOCK, block, VOLUME_FUA));
    control_begin(s);
    label_overwrite(s);
    seconds_pass(5);
    check(!is_found());
    for (unsigned i = 0; i < 2; i++)
        sim_disk_inject(sim_disk_find(s->world, s->name[i]), SIM_FAULT_ERROR, 1U << IO_READ, 0, 0);
    vp_ignore(volume_read(v, 0, BLOCK, block), "the error is wanted, on one disk or on both");
    seconds_pass(2);
    check(is_found());
    seconds_pass(1);
    check_equal(events_of(&control.events, "disk.errors") > 0, true);
    check_equal(events_of(&control.events, "disk.changed"), 1);
    volume_close(v);
    control_end(s);
}

static void after_an_error_a_disk_is_looked_at_soon(void **state)
{
    (void)state;
    play(meet_an_error);
}

static CO void stop(struct sim_volumes *s)
{
    control_begin(s);
    label_overwrite(s);
    control.stopping = true;
    seconds_pass(70);
    check(!is_found());
    control_end(s);
}

static void a_daemon_that_ends_begins_no_look(void **state)
{
    (void)state;
    play(stop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_label_that_was_overwritten_is_found_within_a_minute),
        cmocka_unit_test(after_an_error_a_disk_is_looked_at_soon),
        cmocka_unit_test(a_daemon_that_ends_begins_no_look),
    };
    return cmocka_run_group_tests_name("control/monitor", tests, NULL, NULL);
}

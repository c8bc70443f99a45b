/* Disks that are slow: who did not write there does not wait for them. */
#include "tests/lib/on_reactor.h"
#include "tests/lib/sim_volumes.h"

#include "io/reactor.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { LEN = 1 << 20, BLOCK = 4096, DISKS = 4 };
static const uint64_t soon_ns = 10000000, long_ns = 2000000000;

static uint8_t data[LEN] __attribute__((aligned(4096)));
static struct sim_volumes *world;

static const struct raid_disk *disk(unsigned i)
{
    unsigned count;
    struct raid_disk *const *d = pool_disks(volumes_pool(world->vs), &count);
    return i < count ? d[i] : NULL;
}

/* Disks with completed writes that no flush has covered, as bits. */
static unsigned unflushed(void)
{
    unsigned set = 0;
    for (unsigned i = 0; i < DISKS; i++)
        if (atomic_load(&disk(i)->writes_done) != atomic_load(&disk(i)->writes_flushed))
            set |= 1U << i;
    return set;
}

static uint64_t flushes(void)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < DISKS; i++)
        n += figure_get(&disk(i)->figures.flushes);
    return n;
}

/* The next flush of each disk in the set takes long. */
static void slow_down(unsigned set)
{
    for (unsigned i = 0; i < DISKS; i++)
        if (set >> i & 1)
            sim_disk_inject(sim_disk_find(world->world, world->name[i]), SIM_FAULT_STALL,
                            1U << IO_FLUSH, 0, long_ns);
}

static CO uint64_t flush_took_ns(struct volume *v)
{
    uint64_t began = reactor_now_ns();
    check_ok(volume_flush(v));
    return reactor_now_ns() - began;
}

/* Two volumes with one block each, on different disks; returns the disk of the first as a bit. */
static CO unsigned two_volumes(struct sim_volumes *s, struct volume **a, struct volume **b)
{
    world = s;
    *a = sim_volumes_volume(s, "a", LEN);
    *b = sim_volumes_volume(s, "b", LEN);
    check(*a && *b);
    check_ok(pool_checkpoint(volumes_pool(s->vs)));
    check_equal(unflushed(), 0);
    check_ok(volume_write(*a, 0, BLOCK, data, 0));
    unsigned mine = unflushed();
    check_equal(__builtin_popcount(mine), 1);
    check_ok(volume_write(*b, 0, BLOCK, data, 0));
    check_equal(__builtin_popcount(unflushed()), 2);
    return mine;
}

static CO void others_flush(struct sim_volumes *s)
{
    struct volume *a, *b;
    unsigned mine = two_volumes(s, &a, &b);
    slow_down(mine);
    check(flush_took_ns(b) < soon_ns);
    check_equal(unflushed(), mine);
    check(flush_took_ns(a) >= long_ns);
    check_equal(unflushed(), 0);
    volume_close(a);
    volume_close(b);
}

static void run(void (*body)(struct sim_volumes *s))
{
    struct sim_volumes *s =
        sim_volumes_new(&(struct sim_volumes_config){.seed = 3, .disks = DISKS});
    sim_volumes_run(s, body);
    sim_volumes_free(s);
    assert_checked();
}

static void a_flush_waits_only_for_disks_that_its_volume_wrote_to(void **state)
{
    (void)state;
    run(others_flush);
}

struct flush_call {
    struct volume *v;
    uint64_t took_ns;
    bool ended;
};

static CO void flush_main(void *arg)
{
    struct flush_call *c = arg;
    c->took_ns = flush_took_ns(c->v);
    c->ended = true;
}

/* While a flush of the slow disk is under way, all of the other volume's requests go on. */
static CO void others_go_on(struct sim_volumes *s)
{
    struct flush_call c = {0};
    struct volume *b;
    slow_down(two_volumes(s, &c.v, &b));
    check_ok(co_spawn(flush_main, &c, "flush"));
    uint64_t began = reactor_now_ns();
    for (unsigned i = 0; i < 20; i++) {
        check_ok(volume_write(b, 0, BLOCK, data, i % 2 ? VOLUME_FUA : 0));
        check_ok(volume_flush(b));
    }
    check(!c.ended && reactor_now_ns() - began < 20 * soon_ns);
    while (!c.ended)
        check_ok(co_sleep_ns(soon_ns));
    check(c.took_ns >= long_ns);
    volume_close(c.v);
    volume_close(b);
}

static void a_volume_elsewhere_sees_nothing_of_a_flush_that_hangs(void **state)
{
    (void)state;
    run(others_go_on);
}

static CO void many_disks(struct sim_volumes *s)
{
    struct volume *a, *b;
    unsigned mine = two_volumes(s, &a, &b);
    check_ok(volume_flush(a));
    check_ok(volume_flush(b));
    uint64_t before = flushes();
    check_ok(volume_flush(a)); /* nothing was written */
    check_equal(flushes(), before);
    check_ok(volume_write(a, 0, LEN, data, 0));
    check_equal(unflushed(), (1U << DISKS) - 1);
    slow_down(~mine);
    check(flush_took_ns(a) >= long_ns);
    check_equal(unflushed(), 0);
    volume_close(a);
    volume_close(b);
}

static void a_flush_covers_all_disks_that_its_volume_wrote_to(void **state)
{
    (void)state;
    run(many_disks);
}

/* What is written while a flush is under way belongs to the next one. */
static CO void write_meanwhile(struct sim_volumes *s)
{
    struct flush_call c = {0};
    struct volume *b;
    unsigned mine = two_volumes(s, &c.v, &b);
    slow_down(mine);
    check_ok(co_spawn(flush_main, &c, "flush"));
    check_ok(co_sleep_ns(soon_ns));
    check_ok(volume_write(c.v, 0, BLOCK, data, 0));
    check(!c.ended);
    while (!c.ended)
        check_ok(co_sleep_ns(soon_ns));
    check_equal(unflushed() & mine, mine);
    check_ok(volume_flush(c.v));
    check_equal(unflushed() & mine, 0);
    volume_close(c.v);
    volume_close(b);
}

static void a_write_during_a_flush_is_covered_by_the_next_one(void **state)
{
    (void)state;
    run(write_meanwhile);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_flush_waits_only_for_disks_that_its_volume_wrote_to),
        cmocka_unit_test(a_volume_elsewhere_sees_nothing_of_a_flush_that_hangs),
        cmocka_unit_test(a_flush_covers_all_disks_that_its_volume_wrote_to),
        cmocka_unit_test(a_write_during_a_flush_is_covered_by_the_next_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

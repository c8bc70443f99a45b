/* A disk that does not answer: who waits for how long, what becomes of the disk and of the pool. */
#include "tests/lib/on_reactor.h"
#include "tests/lib/sim_volumes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { LEN = 4 << 20, BLOCK = 4096, BLOCKS = LEN / BLOCK, CLIENTS = 8 };
#define SECONDS(n) (UINT64_C(1000000000) * (n))
#define LONGEST    SECONDS(2)

static uint8_t data[LEN] __attribute__((aligned(4096)));
static uint8_t copy[LEN] __attribute__((aligned(4096)));
static struct sim_volumes *world;

static struct sim_disk *disk(unsigned i)
{
    return sim_disk_find(world->world, world->name[i]);
}

static struct pool *pool(void)
{
    return volumes_pool(world->vs);
}

static struct pool_disk_info info_of(unsigned i)
{
    struct pool_disk_info info;
    pool_disk_info_get(pool(), i, &info);
    return info;
}

static void data_new(unsigned seed)
{
    for (size_t i = 0; i < LEN; i++)
        data[i] = (uint8_t)(seed + (i & 4095) + i / BLOCK);
}

static CO void write_all(struct volume *v, unsigned seed)
{
    data_new(seed);
    check_ok(volume_write(v, 0, LEN, data, 0));
    check_ok(volume_flush(v));
}

static CO void check_all(struct volume *v)
{
    memset(copy, 0, LEN);
    check_ok(volume_read(v, 0, LEN, copy));
    check(memcmp(copy, data, LEN) == 0);
}

/* ---- clients that note how long they wait ---------------------------------------------------- */

struct clients {
    struct volume *v;
    bool stop;
    unsigned running, requests;
    uint64_t longest_ns;
};

struct client {
    struct clients *all;
    unsigned number;
};

static CO void client_main(void *arg)
{
    struct client *c = arg;
    struct clients *all = c->all;
    uint8_t *buf = aligned_alloc(BLOCK, BLOCK);
    for (unsigned n = 0; buf && !all->stop; n++) {
        uint64_t at = (uint64_t)((n * CLIENTS + c->number) % BLOCKS) * BLOCK;
        uint64_t begin_ns = reactor_now_ns();
        memcpy(buf, data + at, BLOCK);
        if (n % 4 == 3)
            check_ok(volume_flush(all->v));
        else if (n % 4 == c->number % 4)
            check_ok(volume_read(all->v, at, BLOCK, buf));
        else
            check_ok(volume_write(all->v, at, BLOCK, buf, 0));
        check(memcmp(buf, data + at, BLOCK) == 0);
        uint64_t took_ns = reactor_now_ns() - begin_ns;
        all->longest_ns = took_ns > all->longest_ns ? took_ns : all->longest_ns;
        all->requests++;
        check_ok(co_sleep_ns(1000000));
    }
    free(buf);
    all->running--;
    free(c);
}

static void clients_begin(struct clients *all, struct volume *v)
{
    *all = (struct clients){.v = v, .running = CLIENTS};
    for (unsigned i = 0; i < CLIENTS; i++) {
        struct client *c = calloc(1, sizeof(*c));
        c->all = all;
        c->number = i;
        check_ok(co_spawn(client_main, c, "client"));
    }
}

static CO void clients_end(struct clients *all)
{
    all->stop = true;
    while (all->running)
        check_ok(co_sleep_ns(1000000));
}

/* ---- another disk has the data --------------------------------------------------------------- */

static CO void leaves(struct sim_volumes *s)
{
    struct clients all;
    struct vp_error err = {0};
    world = s;
    struct volume *v = sim_volumes_volume(s, "a", LEN);
    if (!v)
        return;
    write_all(v, 1);
    clients_begin(&all, v);
    check_ok(co_sleep_ns(SECONDS(1) / 2));
    check(all.longest_ns < SECONDS(1) / 10);
    sim_disk_hang(disk(1), SECONDS(30));
    check_ok(co_sleep_ns(SECONDS(3)));
    printf("the longest request waited %llu ms\n", (unsigned long long)(all.longest_ns / 1000000));
    check(all.longest_ns > SECONDS(1) && all.longest_ns < LONGEST);
    all.longest_ns = 0; /* once */
    check_ok(co_sleep_ns(SECONDS(3)));
    check(all.longest_ns < SECONDS(1) / 10);
    check(strcmp(info_of(1).state, "ejected") == 0);
    check(strstr(info_of(1).reason, "does not answer") != NULL);
    check(pool_acknowledges(pool()));

    /* It does not come back before the old requests have ended; then it gets what it lacks. */
    struct pool_return_options o = {.disk = 1};
    check_equal(pool_disk_return(pool(), &o, &err), VP_E_BUSY);
    check(strstr(err.text, "requests that were given up") != NULL);
    check_ok(co_sleep_ns(SECONDS(30)));
    check_equal(io_dev_late(info_of(1).io->dev), 0);
    err = (struct vp_error){0};
    check_ok(pool_disk_return(pool(), &o, &err));
    clients_end(&all);
    sim_volumes_settle(s);
    check(strcmp(info_of(1).state, "online") == 0);
    check_ok(volume_flush(v));
    check_ok(pool_disk_offline(pool(), 0, &err)); /* the one that returned is alone now */
    check_all(v);
    volume_close(v);
}

/* ---- it has the only copy -------------------------------------------------------------------- */

static CO void waits(struct sim_volumes *s)
{
    world = s;
    struct volume *v = sim_volumes_volume(s, "a", LEN);
    if (!v)
        return;
    write_all(v, 1);
    struct clients all;
    clients_begin(&all, v);
    check_ok(co_sleep_ns(SECONDS(1) / 10));
    for (unsigned i = 0; i < 2; i++)
        sim_disk_hang(disk(i), SECONDS(10));
    check_ok(co_sleep_ns(SECONDS(5)));
    struct pool_disk_info info = info_of(info_of(0).silent ? 0 : 1);
    check(info.silent && strstr(info.reason, "no other disk") != NULL);
    check(strcmp(pool_state(pool()), "online") == 0);
    check_ok(co_sleep_ns(SECONDS(10)));
    check(!info_of(0).silent && !info_of(0).reason[0] && !info_of(1).silent);
    clients_end(&all);
    check(all.longest_ns > SECONDS(8));
    check(strcmp(pool_state(pool()), "online") == 0);
    check_all(v);
    volume_close(v);
}

/* ---- the end, and the next import, while requests hang --------------------------------------- */

static CO void ends(struct sim_volumes *s)
{
    world = s;
    struct volume *v = sim_volumes_volume(s, "a", LEN);
    if (!v)
        return;
    write_all(v, 1);
    sim_disk_hang(disk(1), SECONDS(3600));
    uint64_t begin_ns = reactor_now_ns();
    volume_close(v);
    check_ok(sim_volumes_close(s));
    check(reactor_now_ns() - begin_ns < SECONDS(5)); /* a hang in the flush and in the root */
}

static CO void comes_up_again(struct sim_volumes *s)
{
    world = s;
    struct volume *v = sim_volumes_open(s, "a");
    if (!v)
        return;
    check_all(v);
    write_all(v, 2);
    check_all(v);
    volume_close(v);
}

/* ---- running --------------------------------------------------------------------------------- */

static void run(const char *profile, unsigned disks, sim_volumes_body *const *bodies,
                unsigned count)
{
    struct sim_volumes *s = sim_volumes_new(
        &(struct sim_volumes_config){.seed = 5, .disks = disks, .profile = profile});
    for (unsigned i = 0; i < count; i++)
        sim_volumes_run(s, bodies[i]);
    sim_volumes_free(s);
    assert_checked();
}

static void a_disk_that_hangs_leaves_and_no_request_waits_for_long(void **state)
{
    (void)state;
    run("mirror", 2, (sim_volumes_body *const[]){leaves}, 1);
    run("mirror", 3, (sim_volumes_body *const[]){leaves}, 1);
}

static void who_needs_the_only_copy_waits_for_it(void **state)
{
    (void)state;
    run("single", 2, (sim_volumes_body *const[]){waits}, 1);
}

static void both_disks_of_a_mirror_that_hang_are_waited_for(void **state)
{
    (void)state;
    run("mirror", 2, (sim_volumes_body *const[]){waits}, 1);
}

static void a_pool_is_closed_and_imported_while_a_disk_hangs(void **state)
{
    (void)state;
    run("mirror", 2, (sim_volumes_body *const[]){ends, comes_up_again}, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_disk_that_hangs_leaves_and_no_request_waits_for_long),
        cmocka_unit_test(who_needs_the_only_copy_waits_for_it),
        cmocka_unit_test(both_disks_of_a_mirror_that_hang_are_waited_for),
        cmocka_unit_test(a_pool_is_closed_and_imported_while_a_disk_hangs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

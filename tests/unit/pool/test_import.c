/* Import: what it finds after clean ends, power cuts, lost and stale disks, damage (import.c). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/lib/on_reactor.h"
#include "tests/lib/sim_pool.h"

static struct pool *pool;
static struct vp_error err;
static unsigned disks;

static void create_and_commit(void *arg)
{
    uint64_t commits = (uintptr_t)arg;
    check_ok(sim_pool_create(disks, &pool, &err));
    for (uint64_t i = 0; i < commits && pool; i++)
        check_ok(sim_pool_commit_counter(pool, i % 10, i));
}

static void import(void *arg)
{
    (void)arg;
    int rc = sim_pool_import(disks, NULL, &pool, &err);
    if (rc)
        print_error("%s\n", err.text);
    check_ok(rc);
}

static void check_counters(uint64_t commits)
{
    for (uint64_t i = commits < 10 ? 0 : commits - 10; i < commits; i++)
        check_equal(sim_pool_counter(pool, i % 10), i);
}

static void what_was_committed_is_there_after_a_power_cut(void **state)
{
    (void)state;
    for (disks = 1; disks <= 3; disks++) {
        for (uint64_t commits = 0; commits < 40; commits += 3) {
            struct sim_world *w = sim_pool_world(commits, disks);
            sim_pool_run(w, create_and_commit, (void *)(uintptr_t)commits);
            pool_abandon(pool);
            w = sim_pool_power_cut(w, commits);
            sim_pool_run(w, import, NULL);
            check_counters(commits);
            pool_abandon(pool);
            sim_world_free(w);
            assert_checked();
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_committed_is_there_after_a_power_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

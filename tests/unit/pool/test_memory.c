/*
 * Memory that runs out, one allocation at a time: whatever a pool does either succeeds or fails
 * cleanly. Then the pool goes on, the same succeeds when it is tried again, and the pool can be
 * imported with all that was acknowledged.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>

#include "pool/disk_impl.h"
#include "pool/meta_impl.h"
#include "tests/lib/failing_malloc.h"
#include "tests/lib/on_reactor.h"
#include "tests/lib/sim_pool.h"

enum { OWNER = 7, ALLOCATIONS_MAX = 1000, MANY = 3 };
static const struct raid_profile mirror = {RAID_MIRROR, 1, 1};
static struct pool *pool;

/* ---- operations ---------------------------------------------------------------------------- */

static CO int create(void)
{
    return sim_pool_create(2, &pool, NULL);
}

static CO int import(void)
{
    return sim_pool_import(2, NULL, &pool, NULL);
}

static CO int checkpoint(void)
{
    return pool_checkpoint(pool);
}

static CO int lease(void)
{
    struct pool_arena a;
    return pool_arena_lease(pool, OWNER, mirror, 0, &a);
}

static CO int lease_many(void)
{
    unsigned got;
    return pool_arena_lease_many(pool, OWNER, mirror, 0, MANY, &got);
}

static CO int return_all(void)
{
    return pool_arena_return_all(pool, OWNER);
}

static CO int property(void)
{
    return pool_property_set(pool, "answer", "42");
}

/* More than a segment of the log holds. */
static CO int commit(void)
{
    struct pool_batch b;
    uint8_t value[POOL_RECORD_VALUE_MAX / 2] = {1};
    pool_batch_init(&b);
    for (uint64_t key = 0; key < 12; key++)
        pool_batch_set(&b, POOL_RECORD_COUNTER, 3, key, value, sizeof(value));
    int rc = pool_commit(pool, &b);
    pool_batch_fini(&b);
    return rc;
}

struct operation {
    const char *name;
    CO int (*run)(void);
    bool begins; /* there is no pool before it */
};

static const struct operation operations[] = {
    {"create", create, true},          {"lease", lease, false},   {"lease many", lease_many, false},
    {"return", return_all, false},     {"commit", commit, false}, {"property", property, false},
    {"checkpoint", checkpoint, false},
};

/* ---- one allocation ------------------------------------------------------------------------ */

struct trial {
    const struct operation *op;
    long k;
    bool failed; /* there was a k-th allocation */
    uint64_t leased;
};

static uint64_t leased_now(void)
{
    return pool_arena_count(pool, OWNER);
}

/* What is leased and formed in memory is in the records. */
static void check_groups_have_records(void)
{
    const struct pool_group *g;
    struct pool_record r;
    list_for_each (g, &pool->groups, link)
        check(pool_group_is_empty(g) ||
              pool_record_get(pool, POOL_RECORD_GROUP, 0, g->raid->id, &r));
    list_for_each (g, &pool->meta_groups, link)
        check(pool_record_get(pool, POOL_RECORD_GROUP, 0, g->raid->id, &r));
}

static CO int with_failure(struct trial *t)
{
    fail_in = t->k;
    int rc = t->op->run();
    t->failed = fail_in < 0;
    fail_in = -1;
    return rc;
}

static void operate(void *arg)
{
    struct trial *t = arg;
    if (!t->op->begins) {
        check_ok(create());
        check_ok(lease());
        check_ok(sim_pool_commit_counter(pool, 1, 11));
    }
    int rc = with_failure(t);
    check(!rc || rc == VP_E_NO_MEMORY);
    if (rc && !check_ok(t->op->run()))
        return;
    check_groups_have_records();
    check_ok(sim_pool_commit_counter(pool, 1, 12));
    t->leased = leased_now();
}

static CO void check_contents(const struct trial *t)
{
    check_equal(sim_pool_counter(pool, 1), 12);
    check_equal(leased_now(), t->leased);
    check_ok(sim_pool_commit_counter(pool, 1, 13));
    check_ok(checkpoint());
}

static void import_and_look(void *arg)
{
    if (check_ok(import()))
        check_contents(arg);
}

static void operation_without_memory(const struct operation *op)
{
    struct trial t = {.op = op, .failed = true};
    for (; t.failed && t.k < ALLOCATIONS_MAX; t.k++) {
        struct sim_world *w = sim_pool_world(3, 2);
        sim_pool_run(w, operate, &t);
        pool_abandon(pool);
        w = sim_pool_power_cut(w, 5);
        sim_pool_run(w, import_and_look, &t);
        pool_abandon(pool);
        sim_world_free(w);
        if (check_failures()) {
            print_error("%s, allocation %ld\n", op->name, t.k);
            fail();
        }
    }
    assert_true(t.k > 1 && t.k < ALLOCATIONS_MAX);
}

static void a_pool_goes_on_after_any_allocation_failed(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(operations) / sizeof(operations[0]); i++)
        operation_without_memory(&operations[i]);
}

/* ---- import -------------------------------------------------------------------------------- */

static void live(void *arg)
{
    struct trial *t = arg;
    check_ok(create());
    check_ok(lease_many());
    check_ok(checkpoint());
    check_ok(commit());
    check_ok(sim_pool_commit_counter(pool, 1, 12));
    t->leased = leased_now();
}

/* The failed import is followed by another one, of the disks as it left them. */
static void import_twice(void *arg)
{
    struct trial *t = arg;
    int rc = with_failure(t);
    check(!rc || rc == VP_E_NO_MEMORY);
    if (rc && !check_ok(import()))
        return;
    check_contents(t);
}

static const struct operation import_operation = {"import", import, true};

static void an_import_for_which_memory_runs_out_harms_nothing(void **state)
{
    (void)state;
    struct trial t = {.op = &import_operation, .failed = true};
    for (; t.failed && t.k < ALLOCATIONS_MAX; t.k++) {
        struct sim_world *w = sim_pool_world(3, 2);
        sim_pool_run(w, live, &t);
        pool_abandon(pool);
        w = sim_pool_reboot(w, 5);
        sim_pool_run(w, import_twice, &t);
        pool_abandon(pool);
        sim_world_free(w);
        if (check_failures()) {
            print_error("import, allocation %ld\n", t.k);
            fail();
        }
    }
    assert_true(t.k > 1 && t.k < ALLOCATIONS_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pool_goes_on_after_any_allocation_failed),
        cmocka_unit_test(an_import_for_which_memory_runs_out_harms_nothing),
    };
    return cmocka_run_group_tests_name("pool/memory", tests, NULL, NULL);
}

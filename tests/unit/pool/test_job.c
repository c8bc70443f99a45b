/* What commands can do with a job of a kind that can be cancelled (job.c). Jobs that are paused,
 * limited, counted and that go on after a restart are volumes/test_jobs.c's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "pool/job.h"
#include "tests/lib/fake_client.h"
#include "tests/lib/on_reactor.h"
#include "tests/lib/sim_pool.h"

#define SECOND_NS UINT64_C(1000000000)

static struct pool *pool;
static struct fake_client client;
static struct vp_error err;

static unsigned asked;
static int answer;

static int cancel(void *arg, struct vp_error *why)
{
    check(arg == &asked);
    asked++;
    return answer ? vp_fail(why, answer, "it is past the point") : 0;
}

static CO struct pool_job *job_start(void)
{
    struct pool_batch b;
    client = (struct fake_client){0};
    check_ok(sim_pool_create(2, &pool, &err));
    struct pool_client c = fake_client_of(&client);
    client.pool = pool;
    pool_set_client(pool, &c);
    struct pool_job *j = pool_job_new(pool, POOL_JOB_MIGRATE, 1, "v");
    check(j != NULL);
    pool_batch_init(&b);
    pool_job_put(pool, j, &b);
    check_ok(pool_commit(pool, &b));
    pool_batch_fini(&b);
    asked = 0;
    answer = 0;
    return j;
}

static void run(void (*body)(void *arg))
{
    struct sim_world *w = sim_pool_world(1, 2);
    sim_pool_run(w, body, NULL);
    pool_abandon(pool);
    pool = NULL;
    sim_world_free(w);
    assert_checked();
}

static CO void migration(void *arg)
{
    struct pool_job *j = job_start();
    (void)arg;
    check(strcmp(pool_job_kind_name(j->kind), "migrate") == 0);
    check(strcmp(pool_job_unit(j->kind), "bytes") == 0);
    j->hurry = "somebody waits for it";
    check_equal(pool_job_pause(pool, j->id, &err), VP_E_NOT_SUPPORTED);
    check(strstr(err.text, "somebody waits for it") != NULL);
    check_equal(pool_job_limit(pool, j->id, 1, &err), VP_E_NOT_SUPPORTED);
    check(j->state == POOL_JOB_RUNNING && j->limit == 0);
    j->hurry = NULL;
    check_ok(pool_job_limit(pool, j->id, 1, &err));
    check_ok(pool_job_pause(pool, j->id, &err));
    check(j->state == POOL_JOB_PAUSED && j->limit == 1);
}

static void a_job_in_a_hurry_is_neither_paused_nor_limited(void **state)
{
    (void)state;
    run(migration);
}

/* What a limit leaves over begins with it: nothing is saved up before. */
static CO void limited(void *arg)
{
    struct pool_job *j = job_start();
    (void)arg;
    check(co_sleep_ns(5 * SECOND_NS) == 0);
    check_ok(pool_job_limit(pool, j->id, 1000, &err));
    check(pool_job_may_go_on(j));
    pool_job_advance(j, pool_job_step_units(j), 0);
    check(!pool_job_may_go_on(j));
    check(co_sleep_ns(SECOND_NS / 2) == 0);
    check(!pool_job_may_go_on(j));
    check(co_sleep_ns(SECOND_NS / 2) == 0);
    check(pool_job_may_go_on(j));
    check(co_sleep_ns(SECOND_NS / 2) == 0); /* a step that begins late is made up for */
    pool_job_advance(j, 1000, 0);
    check(co_sleep_ns(SECOND_NS / 2) == 0);
    check(pool_job_may_go_on(j));
}

static void a_limit_does_not_begin_with_what_was_not_done_before_it(void **state)
{
    (void)state;
    run(limited);
}

static CO void cancelled(void *arg)
{
    struct pool_job *j = job_start();
    (void)arg;
    check_equal(pool_job_cancel(pool, j->id, &err), VP_E_BUSY);
    pool_job_cancel_by(j, cancel, &asked);
    check_ok(pool_job_cancel(pool, j->id, &err));
    check_equal(asked, 1);
    check_equal(j->state, POOL_JOB_RUNNING);
    answer = VP_E_BUSY;
    check_equal(pool_job_cancel(pool, j->id, &err), VP_E_BUSY);
    check(strcmp(err.text, "it is past the point") == 0);
    pool_job_end(pool, j, POOL_JOB_CANCELLED);
    check_equal(pool_job_cancel(pool, j->id, &err), VP_E_NOT_FOUND);
    check_equal(asked, 2);
}

static void a_cancel_asks_the_owner_who_ends_the_job(void **state)
{
    (void)state;
    run(cancelled);
}

static CO void ending(void *arg)
{
    struct pool_job *j = job_start();
    (void)arg;
    pool_job_cancel_by(j, cancel, &asked);
    pool_job_ending(j);
    check_equal(pool_job_cancel(pool, j->id, &err), VP_E_BUSY);
    check_equal(asked, 0);
}

static void a_job_that_is_ending_is_not_cancelled(void **state)
{
    (void)state;
    run(ending);
}

static CO void start_only(void *arg)
{
    (void)arg;
    (void)job_start();
}

static CO void import(void *arg)
{
    (void)arg;
    client = (struct fake_client){0};
    struct pool_client c = fake_client_of(&client);
    check_ok(sim_pool_import(2, &c, &pool, &err));
    check_ok(fake_load(&client, pool));
    const struct pool_job *j = pool_job_find(pool, 1);
    check(j && j->kind == POOL_JOB_MIGRATE && j->volume == 1);
    pool_jobs_forget_left(pool);
    check(!pool_job_find(pool, 1));
    j = pool_job_new(pool, POOL_JOB_MIGRATE, 1, "v");
    check(j && j->id == 2);
}

static void a_migration_of_an_earlier_life_is_forgotten_and_its_number_not_used_again(void **state)
{
    (void)state;
    struct sim_world *w = sim_pool_world(1, 2);
    sim_pool_run(w, start_only, NULL);
    pool_abandon(pool);
    w = sim_pool_power_cut(w, 3);
    sim_pool_run(w, import, NULL);
    pool_abandon(pool);
    pool = NULL;
    sim_world_free(w);
    assert_checked();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_job_in_a_hurry_is_neither_paused_nor_limited),
        cmocka_unit_test(a_limit_does_not_begin_with_what_was_not_done_before_it),
        cmocka_unit_test(a_cancel_asks_the_owner_who_ends_the_job),
        cmocka_unit_test(a_job_that_is_ending_is_not_cancelled),
        cmocka_unit_test(a_migration_of_an_earlier_life_is_forgotten_and_its_number_not_used_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

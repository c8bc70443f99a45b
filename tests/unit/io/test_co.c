/* Coroutines: order, queues, mutexes, groups, sleep, cancellation, no-yield scopes. */
#include "io/co.h"
#include "tests/lib/aborts.h"
#include "tests/lib/on_reactor.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MS 1000000ULL

static char trace[256];

static void note(const char *what)
{
    size_t used = strlen(trace);
    (void)snprintf(trace + used, sizeof(trace) - used, "%s", what);
}

/* fn gets its name as its argument. */
static void spawn_named(void (*fn)(void *arg), const char *name)
{
    check_ok(co_spawn(fn, (void *)(uintptr_t)name, name));
}

static void run(void (*body)(void *arg))
{
    trace[0] = '\0';
    on_reactor(NULL, body, NULL);
    assert_checked();
}

/* ---- order --------------------------------------------------------------------------------- */

static void note_twice(void *arg)
{
    note(arg);
    co_yield ();
    note(arg);
}

static void spawn_three(void *arg)
{
    (void)arg;
    spawn_named(note_twice, "a");
    spawn_named(note_twice, "b");
    spawn_named(note_twice, "c");
    note("0");
}

static void coroutines_run_in_the_order_of_spawning(void **state)
{
    (void)state;
    run(spawn_three);
    assert_string_equal(trace, "0abcabc");
}

static unsigned finished;

static void count_and_finish(void *arg)
{
    (void)arg;
    finished++;
}

static void spawn_too_many(void *arg)
{
    (void)arg;
    int rc;
    unsigned spawned = 0;
    while ((rc = co_spawn(count_and_finish, NULL, "one")) == 0)
        spawned++;
    check_equal(rc, VP_E_IO_TOO_MANY_COROUTINES);
    check_equal(spawned, 49); /* and this one */
    co_yield ();
    check_equal(finished, 49);
    check_ok(co_spawn(count_and_finish, NULL, "one more"));
}

static void the_pool_of_stacks_is_a_bound(void **state)
{
    (void)state;
    struct reactor_config config = {.max_coroutines = 50};
    finished = 0;
    on_reactor(&config, spawn_too_many, NULL);
    assert_checked();
    assert_int_equal(finished, 50);
}

/* ---- queues -------------------------------------------------------------------------------- */

static struct co_queue queue;

static void wait_and_note(void *arg)
{
    co_queue_wait(&queue, "test");
    note(arg);
}

static void wake_in_order(void *arg)
{
    (void)arg;
    co_queue_init(&queue);
    spawn_named(wait_and_note, "a");
    spawn_named(wait_and_note, "b");
    spawn_named(wait_and_note, "c");
    co_yield ();
    check(!co_queue_is_empty(&queue));
    co_queue_wake_one(&queue);
    co_yield ();
    note("-");
    co_queue_wake_all(&queue);
    check(co_queue_is_empty(&queue));
    co_yield ();
    co_queue_wake_one(&queue); /* nobody: no effect */
}

static void a_queue_wakes_first_in_first_out(void **state)
{
    (void)state;
    run(wake_in_order);
    assert_string_equal(trace, "a-bc");
}

static void wait_in_vain(void *arg)
{
    (void)arg;
    co_queue_init(&queue);
    uint64_t deadline = reactor_now_ns() + 3 * MS;
    check_equal(co_queue_wait_until(&queue, deadline, "test"), VP_E_TIMED_OUT);
    check(reactor_now_ns() >= deadline);
    check(co_queue_is_empty(&queue));
    check_equal(co_queue_wait_until(&queue, 1, "long past"), VP_E_TIMED_OUT);
}

static void waiting_ends_at_the_deadline(void **state)
{
    (void)state;
    run(wait_in_vain);
}

/* ---- cancellation -------------------------------------------------------------------------- */

struct victim {
    struct co *co;
    int rc;
    bool done;
};

static void sleeper(void *arg)
{
    struct victim *v = arg;
    v->co = co_self();
    v->rc = co_sleep_ns(3600 * 1000 * MS);
    v->done = true;
}

static void queue_waiter(void *arg)
{
    struct victim *v = arg;
    v->co = co_self();
    v->rc = co_queue_wait_until(&queue, 0, "test");
    v->done = true;
}

static void cancel_both(void *arg)
{
    (void)arg;
    struct victim a = {0}, b = {0};
    co_queue_init(&queue);
    check_ok(co_spawn(sleeper, &a, "sleeper"));
    check_ok(co_spawn(queue_waiter, &b, "queue"));
    co_yield ();
    co_cancel(a.co);
    co_cancel(a.co); /* once is enough, twice does no harm */
    co_cancel(b.co);
    co_yield ();
    check(a.done && b.done);
    check_equal(a.rc, VP_E_CANCELLED);
    check_equal(b.rc, VP_E_CANCELLED);
    check(co_queue_is_empty(&queue));
}

static void sleep_and_queue_waits_can_be_cancelled(void **state)
{
    (void)state;
    run(cancel_both);
}

static void wake_then_cancel(void *arg)
{
    (void)arg;
    struct victim v = {.rc = 1};
    co_queue_init(&queue);
    check_ok(co_spawn(queue_waiter, &v, "queue"));
    co_yield ();
    co_queue_wake_one(&queue);
    co_cancel(v.co);
    co_yield ();
    check(v.done);
    check_ok(v.rc);
}

static void a_cancel_after_the_wake_up_changes_nothing(void **state)
{
    (void)state;
    run(wake_then_cancel);
}

static void sleep_shortly(void *arg)
{
    (void)arg;
    uint64_t began = reactor_now_ns();
    check_ok(co_sleep_ns(2 * MS));
    check(reactor_now_ns() - began >= 2 * MS);
}

static void sleep_takes_at_least_its_time(void **state)
{
    (void)state;
    run(sleep_shortly);
}

/* ---- mutex and group ----------------------------------------------------------------------- */

static struct co_mutex mutex;

static void lock_and_note(void *arg)
{
    co_mutex_lock(&mutex);
    note(arg);
    co_yield ();
    note(arg);
    co_mutex_unlock(&mutex);
}

static void contend(void *arg)
{
    (void)arg;
    co_mutex_init(&mutex);
    spawn_named(lock_and_note, "a");
    spawn_named(lock_and_note, "b");
    spawn_named(lock_and_note, "c");
}

static void a_mutex_is_held_across_yields_and_handed_over_in_order(void **state)
{
    (void)state;
    run(contend);
    assert_string_equal(trace, "aabbcc");
}

struct part {
    struct co_group *group;
    int rc;
};

static void part(void *arg)
{
    struct part *p = arg;
    co_yield ();
    note(".");
    co_group_leave(p->group, p->rc);
}

static void gather(void *arg)
{
    (void)arg;
    struct co_group g;
    co_group_init(&g);
    check_ok(co_group_wait(&g)); /* of none */
    struct part parts[4] = {{&g, 0}, {&g, VP_E_IO}, {&g, VP_E_NO_SPACE}, {&g, 0}};
    for (int i = 0; i < 4; i++) {
        co_group_enter(&g);
        check_ok(co_spawn(part, &parts[i], "part"));
    }
    check_equal(co_group_wait(&g), VP_E_IO);
    note("|");
}

static void a_group_waits_for_all_and_returns_the_first_error(void **state)
{
    (void)state;
    run(gather);
    assert_string_equal(trace, "....|");
}

/* ---- no-yield ------------------------------------------------------------------------------ */

static void fine_scope(void *arg)
{
    (void)arg;
    CO_NO_YIELD {
        note("in");
    }
    co_yield ();
    note("out");
}

static void yielding_outside_the_scope_is_fine(void **state)
{
    (void)state;
    run(fine_scope);
    assert_string_equal(trace, "inout");
}

static void yield_inside(void *arg)
{
    (void)arg;
    CO_NO_YIELD {
        co_yield ();
    }
}

static void run_yield_inside(void *arg)
{
    on_reactor(NULL, yield_inside, arg);
}

static void yielding_inside_a_no_yield_scope_aborts(void **state)
{
    (void)state;
    assert_true(call_aborts(run_yield_inside, NULL));
}

/* ---- depth --------------------------------------------------------------------------------- */

static unsigned sum_down(volatile unsigned char *above, unsigned depth)
{
    volatile unsigned char mine[256];
    mine[0] = (unsigned char)(above[0] + 1);
    if (depth == 0) {
        co_yield ();
        return mine[0];
    }
    return sum_down(mine, depth - 1) + (mine[0] == above[0] ? 1 : 0);
}

static void go_deep(void *arg)
{
    (void)arg;
    volatile unsigned char first[1] = {0};
    check_equal(sum_down(first, 99), 100);
}

static void a_stack_holds_a_hundred_frames_across_a_yield(void **state)
{
    (void)state;
    run(go_deep);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(coroutines_run_in_the_order_of_spawning),
        cmocka_unit_test(the_pool_of_stacks_is_a_bound),
        cmocka_unit_test(a_queue_wakes_first_in_first_out),
        cmocka_unit_test(waiting_ends_at_the_deadline),
        cmocka_unit_test(sleep_and_queue_waits_can_be_cancelled),
        cmocka_unit_test(a_cancel_after_the_wake_up_changes_nothing),
        cmocka_unit_test(sleep_takes_at_least_its_time),
        cmocka_unit_test(a_mutex_is_held_across_yields_and_handed_over_in_order),
        cmocka_unit_test(a_group_waits_for_all_and_returns_the_first_error),
        cmocka_unit_test(yielding_outside_the_scope_is_fine),
        cmocka_unit_test(yielding_inside_a_no_yield_scope_aborts),
        cmocka_unit_test(a_stack_holds_a_hundred_frames_across_a_yield),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

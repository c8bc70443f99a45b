/* What is held while something is waited for: each rule of io/hold.c, kept and broken.
 * threads: yes */
#include "io/hold.h"
#include "io/reactor.h"
#include "tests/lib/aborts.h"
#include "tests/lib/on_reactor.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

/* ---- running what may abort ---------------------------------------------------------------- */

struct call {
    void (*body)(void *arg);
    void *arg;
};

static void run_call(void *arg)
{
    struct call *c = arg;
    on_reactor(NULL, c->body, c->arg);
}

static bool aborts(void (*body)(void *arg), void *arg)
{
    return call_aborts(run_call, &(struct call){body, arg});
}

/* ---- locks --------------------------------------------------------------------------------- */

struct wait {
    enum resource held, wanted;
    bool is_excused, after_the_end;
};

static CO void verify_excused(const struct wait *w)
{
    AUTO_HOLD struct hold_exception e = hold_may_await_checkpoint();
    if (!w->after_the_end)
        hold_verify(w->wanted);
}

static void wait_with_lock(void *arg)
{
    const struct wait *w = arg;
    struct co_mutex m;
    co_mutex_init_for(&m, w->held);
    co_mutex_lock(&m);
    if (w->is_excused)
        verify_excused(w);
    if (!w->is_excused || w->after_the_end)
        hold_verify(w->wanted);
    co_mutex_unlock(&m);
    hold_verify(w->wanted);
}

static void no_holder_of_a_control_lock_waits_for_a_checkpoint_or_for_room(void **state)
{
    (void)state;
    static const enum resource control[] = {RESOURCE_COMMANDS, RESOURCE_VOLUME_CONTROL};
    for (unsigned i = 0; i < 2; i++) {
        struct wait checkpoint = {.held = control[i], .wanted = RESOURCE_CHECKPOINT};
        struct wait room = {.held = control[i], .wanted = RESOURCE_ROOM};
        struct wait call = {.held = control[i], .wanted = RESOURCE_CLIENT_CALL};
        assert_true(aborts(wait_with_lock, &checkpoint));
        assert_true(aborts(wait_with_lock, &room));
        assert_false(aborts(wait_with_lock, &call));
    }
}

static void an_exception_is_for_the_checkpoint_alone_and_ends_with_its_scope(void **state)
{
    (void)state;
    struct wait checkpoint = {RESOURCE_VOLUME_CONTROL, RESOURCE_CHECKPOINT, .is_excused = true};
    struct wait later = {RESOURCE_VOLUME_CONTROL, RESOURCE_CHECKPOINT, true, .after_the_end = true};
    struct wait room = {RESOURCE_VOLUME_CONTROL, RESOURCE_ROOM, .is_excused = true};
    struct wait opening = {RESOURCE_VOLUME_OPENING, RESOURCE_CHECKPOINT, .is_excused = true};
    assert_false(aborts(wait_with_lock, &checkpoint));
    assert_true(aborts(wait_with_lock, &later));
    assert_true(aborts(wait_with_lock, &room));
    assert_true(aborts(wait_with_lock, &opening));
}

static void lock_in_order(void *arg)
{
    const struct wait *w = arg;
    struct co_mutex outer, inner;
    co_mutex_init_for(&outer, w->held);
    co_mutex_init_for(&inner, w->wanted);
    co_mutex_lock(&outer);
    co_mutex_lock(&inner);
    co_mutex_unlock(&inner);
    co_mutex_unlock(&outer);
}

static void control_locks_are_taken_from_the_outer_to_the_inner(void **state)
{
    (void)state;
    static const enum resource lock[] = {RESOURCE_COMMANDS, RESOURCE_VOLUME_CONTROL,
                                         RESOURCE_VOLUME_OPENING};
    for (unsigned outer = 0; outer < 3; outer++)
        for (unsigned inner = 0; inner < 3; inner++) {
            struct wait w = {.held = lock[outer], .wanted = lock[inner]};
            assert_int_equal(aborts(lock_in_order, &w), outer >= inner);
        }
}

/* ---- the reserve --------------------------------------------------------------------------- */

static int verify_there(void *arg)
{
    hold_verify(*(const enum resource *)arg);
    return 0;
}

static int call_for_client_there(void *arg)
{
    return reactor_call_for_client(reactor_self(), verify_there, arg);
}

static void client_call(void *arg)
{
    check_ok(reactor_call_for_client(reactor_self(), verify_there, arg));
}

static void plain_call(void *arg)
{
    check_ok(reactor_call(reactor_self(), verify_there, arg));
}

static void client_call_inside_plain_call(void *arg)
{
    check_ok(reactor_call(reactor_self(), call_for_client_there, arg));
}

static void what_waits_for_a_checkpoint_is_called_for_a_client_also_on_one_reactor(void **state)
{
    (void)state;
    enum resource checkpoint = RESOURCE_CHECKPOINT, room = RESOURCE_ROOM;
    assert_false(aborts(client_call, &checkpoint));
    assert_false(aborts(client_call, &room));
    assert_true(aborts(plain_call, &checkpoint));
    assert_true(aborts(plain_call, &room));
    assert_true(aborts(client_call_inside_plain_call, &checkpoint));
}

static void reserved_main(void *arg)
{
    (void)arg;
    hold_verify(RESOURCE_ROOM);
}

static void spawn_reserved(void *arg)
{
    (void)arg;
    check_ok(co_spawn_reserved(reserved_main, NULL, "reserved"));
}

static void what_is_spawned_in_the_reserve_waits_for_no_room(void **state)
{
    (void)state;
    assert_true(aborts(spawn_reserved, NULL));
}

/* ---- between reactors ---------------------------------------------------------------------- */

static int marks_there(void *arg)
{
    *(unsigned *)arg = hold_marks();
    return 0;
}

struct travel {
    struct reactor *to;
    unsigned here, plain, for_client, after;
};

static int travel(void *arg)
{
    struct travel *t = arg;
    hold_begin(RESOURCE_VOLUME_CONTROL);
    t->here = hold_marks();
    check_ok(reactor_call_for_client(t->to, marks_there, &t->for_client));
    check_ok(reactor_call(t->to, marks_there, &t->plain));
    t->after = hold_marks();
    hold_end(RESOURCE_VOLUME_CONTROL);
    return 0;
}

static void a_call_of_another_reactor_takes_the_marks_of_its_caller_along(void **state)
{
    (void)state;
    if (!reactor_threads_work())
        skip();
    struct reactor_thread *from = reactor_thread_start(NULL), *to = reactor_thread_start(NULL);
    struct travel t = {.to = reactor_thread_reactor(to)};
    assert_int_equal(reactor_call_blocking(reactor_thread_reactor(from), travel, &t), 0);
    reactor_thread_join(from);
    reactor_thread_join(to);
    assert_checked();
    assert_int_equal(t.here, HOLD_MARK(RESOURCE_VOLUME_CONTROL));
    assert_int_equal(t.for_client, t.here);
    assert_int_equal(t.plain, t.here | HOLD_MARK(RESOURCE_RESERVE));
    assert_int_equal(t.after, t.here);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_holder_of_a_control_lock_waits_for_a_checkpoint_or_for_room),
        cmocka_unit_test(an_exception_is_for_the_checkpoint_alone_and_ends_with_its_scope),
        cmocka_unit_test(control_locks_are_taken_from_the_outer_to_the_inner),
        cmocka_unit_test(what_waits_for_a_checkpoint_is_called_for_a_client_also_on_one_reactor),
        cmocka_unit_test(what_is_spawned_in_the_reserve_waits_for_no_room),
        cmocka_unit_test(a_call_of_another_reactor_takes_the_marks_of_its_caller_along),
    };
    return cmocka_run_group_tests_name("io/hold", tests, NULL, NULL);
}

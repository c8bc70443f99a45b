/* The states of a ublk target. What a target does with a kernel is tested in tests/vm. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/lib/aborts.h"
#include "ublk/target_impl.h"

static struct ublkx_target target;

static void walk(const enum ublkx_state *way)
{
    target.state = UBLKX_NEW;
    for (unsigned i = 0; way[i] != UBLKX_NEW; i++) {
        ublkx_target_move(&target, way[i]);
        assert_int_equal(target.state, way[i]);
    }
}

static void every_life_of_a_target_is_legal(void **state)
{
    (void)state;
    walk((enum ublkx_state[]){UBLKX_SERVING, UBLKX_STOPPING, UBLKX_CLOSED, UBLKX_NEW});
    walk((enum ublkx_state[]){UBLKX_STOPPING, UBLKX_CLOSED, UBLKX_NEW}); /* did not start */
    walk((enum ublkx_state[]){UBLKX_LEFT, UBLKX_NEW});
    walk((enum ublkx_state[]){UBLKX_SERVING, UBLKX_LEFT, UBLKX_NEW});
    /* The kernel does not stop it: tried again, then left. */
    walk(
        (enum ublkx_state[]){UBLKX_SERVING, UBLKX_STOPPING, UBLKX_STOPPING, UBLKX_LEFT, UBLKX_NEW});
}

static void move(void *arg)
{
    ublkx_target_move(&target, *(enum ublkx_state *)arg);
}

static bool move_aborts(enum ublkx_state from, enum ublkx_state to)
{
    target.state = from;
    return call_aborts(move, &to);
}

static void a_target_that_was_left_or_closed_does_not_come_back(void **state)
{
    (void)state;
    assert_true(move_aborts(UBLKX_LEFT, UBLKX_SERVING));
    assert_true(move_aborts(UBLKX_LEFT, UBLKX_STOPPING));
    assert_true(move_aborts(UBLKX_CLOSED, UBLKX_SERVING));
    assert_true(move_aborts(UBLKX_STOPPING, UBLKX_SERVING));
    assert_true(move_aborts(UBLKX_SERVING, UBLKX_CLOSED));
    assert_false(move_aborts(UBLKX_SERVING, UBLKX_STOPPING));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_life_of_a_target_is_legal),
        cmocka_unit_test(a_target_that_was_left_or_closed_does_not_come_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

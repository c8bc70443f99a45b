/* The states of a ublk target. What a target does with a kernel is tested in tests/vm. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

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

static bool move_aborts(enum ublkx_state from, enum ublkx_state to)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        if (!freopen("/dev/null", "w", stderr))
            _exit(1);
        (void)signal(SIGABRT, SIG_DFL);
        target.state = from;
        ublkx_target_move(&target, to);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
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

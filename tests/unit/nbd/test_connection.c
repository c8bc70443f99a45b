/* The states of an NBD connection. What it does in each of them is tested in test_hangup.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "nbd/connection_impl.h"
#include "tests/lib/aborts.h"

static struct nbdx_connection connection;

static void move(void *arg)
{
    nbdx_connection_move(&connection, *(enum nbdx_connection_state *)arg);
}

static bool move_aborts(enum nbdx_connection_state from, enum nbdx_connection_state to)
{
    connection.state = from;
    return call_aborts(move, &to);
}

static void a_connection_goes_forward_only(void **state)
{
    (void)state;
    for (int from = NBDX_OPEN; from <= NBDX_ENDING; from++)
        for (int to = NBDX_OPEN; to <= NBDX_ENDING; to++)
            assert_int_equal(move_aborts(from, to), to <= from);
}

static void a_connection_is_gone_until_its_end(void **state)
{
    (void)state;
    static const bool gone[] = {false, false, true, true};
    for (int s = NBDX_OPEN; s <= NBDX_ENDING; s++) {
        connection.state = s;
        assert_int_equal(nbdx_is_gone(&connection), gone[s]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_connection_goes_forward_only),
        cmocka_unit_test(a_connection_is_gone_until_its_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

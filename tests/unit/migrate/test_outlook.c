/* How long a move will take. */
#include "migrate/outlook.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#define MIB(n) ((uint64_t)(n) << 20)
#define S(n)   ((uint64_t)(n)*1000000000)

static void a_volume_that_nobody_writes_takes_its_bytes_by_the_rate(void **state)
{
    (void)state;
    struct outlook o =
        outlook_of(&(struct outlook_now){.left_bytes = MIB(1000), .rate_bytes = MIB(100)});
    assert_true(o.known && !o.never);
    assert_int_equal(o.ns, S(10));
}

static void rounds_are_counted_as_if_they_were_done_one_by_one(void **state)
{
    (void)state;
    struct outlook o = outlook_of(&(struct outlook_now){.left_bytes = MIB(900),
                                                        .dirty_bytes = MIB(100),
                                                        .rate_bytes = MIB(100),
                                                        .dirtied_bytes = MIB(50)});
    double left = 1000, seconds = 0;
    for (unsigned round = 0; round < 60; round++) {
        seconds += left / 100;
        left = left / 100 * 50;
    }
    assert_false(o.never);
    assert_in_range(o.ns, S(seconds) - 1000000, S(seconds) + 1000000);
}

static void what_is_to_be_compared_takes_as_long_as_a_copy_of_it(void **state)
{
    (void)state;
    struct outlook_now now = {
        .dirty_bytes = MIB(100), .rate_bytes = MIB(100), .dirtied_bytes = MIB(50)};
    uint64_t without_ns = outlook_of(&now).ns;
    now.check_bytes = MIB(300);
    assert_int_equal(outlook_of(&now).ns, without_ns + S(3));
    now.dirtied_bytes = MIB(100);
    assert_true(outlook_of(&now).never);
}

static void a_copy_that_is_no_faster_than_the_changes_never_ends(void **state)
{
    (void)state;
    struct outlook_now now = {
        .dirty_bytes = MIB(1), .rate_bytes = MIB(100), .dirtied_bytes = MIB(100)};
    assert_true(outlook_of(&now).never);
    assert_true(outlook_of(&now).drift >= 0);
    now.dirtied_bytes = 0; /* they are mirrored */
    assert_false(outlook_of(&now).never);
    assert_true(outlook_of(&now).drift < 0);
}

static void nothing_is_known_without_a_rate(void **state)
{
    (void)state;
    assert_false(outlook_of(&(struct outlook_now){.left_bytes = MIB(1)}).known);
}

static void a_very_slow_copy_takes_very_long_and_does_not_overflow(void **state)
{
    (void)state;
    struct outlook o = outlook_of(&(struct outlook_now){.left_bytes = UINT64_MAX, .rate_bytes = 1});
    assert_true(o.ns == UINT64_C(1000000000000000000));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_volume_that_nobody_writes_takes_its_bytes_by_the_rate),
        cmocka_unit_test(rounds_are_counted_as_if_they_were_done_one_by_one),
        cmocka_unit_test(what_is_to_be_compared_takes_as_long_as_a_copy_of_it),
        cmocka_unit_test(a_copy_that_is_no_faster_than_the_changes_never_ends),
        cmocka_unit_test(nothing_is_known_without_a_rate),
        cmocka_unit_test(a_very_slow_copy_takes_very_long_and_does_not_overflow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Fair shares (io/share.h). */
#include "io/share.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define HOLDERS 64U

static struct io_share share = {.max = 2048, .guarantee = 16};
static struct io_share_holder holders[HOLDERS];

static void join_all(void)
{
    share.used = share.extra = 0;
    for (unsigned i = 0; i < HOLDERS; i++)
        holders[i] = (struct io_share_holder){.share = &share, .max = SIZE_MAX};
}

static size_t take_all(struct io_share_holder *h)
{
    while (io_share_may_take(h, 1))
        io_share_take(h, 1);
    return h->held;
}

static void holders_that_never_give_leave_the_others_their_guarantee_and_more(void **state)
{
    (void)state;
    join_all();
    size_t first = take_all(&holders[0]);
    assert_int_equal(first, share.guarantee + share.max / 4);
    for (unsigned i = 1; i < HOLDERS; i++)
        assert_true(take_all(&holders[i]) >= share.guarantee);
    assert_true(share.used <= share.max);
    assert_true(share.extra <= share.max / 2);
    assert_true(holders[1].held > holders[2].held && holders[2].held > share.guarantee);
}

static void what_is_given_can_be_taken_again(void **state)
{
    (void)state;
    join_all();
    for (unsigned i = 0; i < HOLDERS; i++)
        (void)take_all(&holders[i]);
    for (unsigned i = 0; i < HOLDERS; i++)
        while (holders[i].held)
            io_share_give(&holders[i], 1);
    assert_int_equal(share.used, 0);
    assert_int_equal(share.extra, 0);
    assert_int_equal(take_all(&holders[5]), share.guarantee + share.max / 4);
}

static void a_holder_has_a_bound_of_its_own(void **state)
{
    (void)state;
    join_all();
    holders[3].max = 20;
    assert_int_equal(take_all(&holders[3]), 20);
    assert_true(!io_share_may_take(&holders[4], 2048));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(holders_that_never_give_leave_the_others_their_guarantee_and_more),
        cmocka_unit_test(what_is_given_can_be_taken_again),
        cmocka_unit_test(a_holder_has_a_bound_of_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

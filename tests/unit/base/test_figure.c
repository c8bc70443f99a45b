/* Figures: rows of a table, counters, histograms. */
#include "base/figure.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

/* A set as a folder declares it, but for the rows, which stand here and not in a figures.def. */
#define ROWS(FIGURE)                                                                               \
    FIGURE(COUNTER, parcels, ONE, "parcels that left")                                             \
    FIGURE(HISTOGRAM, transit, NANOSECONDS, "from door to door")                                   \
    FIGURE(GAUGE, on_the_way, ONE, "parcels that are under way")                                   \
    FIGURE(HISTOGRAM, queue, NANOSECONDS, "at the counter")
struct post_figures {
    ROWS(FIGURE_FIELD)
};
#define POST_ROW(...) FIGURE_ROW(struct post_figures, __VA_ARGS__)
static const struct figure rows[] = {ROWS(POST_ROW)};
static const struct figure_set post = {"post", rows, sizeof(rows) / sizeof(rows[0])};

static void a_row_gives_a_field_and_its_description(void **state)
{
    (void)state;
    struct post_figures f = {0};
    figure_add(&f.parcels, 3);
    figure_add_shared(&f.parcels, 4);
    figure_put(&f.on_the_way, 5);
    assert_int_equal(post.count, 4);
    assert_string_equal(rows[0].name, "parcels");
    assert_int_equal(rows[0].kind, FIGURE_COUNTER);
    assert_int_equal(rows[1].unit, FIGURE_NANOSECONDS);
    assert_string_equal(rows[2].sentence, "parcels that are under way");
    assert_int_equal(figure_value(&rows[0], &f), 7);
    assert_int_equal(figure_value(&rows[2], &f), 5);
    assert_null(figure_histogram(&rows[1], &f));
}

/* ---- histograms ---------------------------------------------------------------------------- */

static void buckets_follow_each_other_without_a_gap(void **state)
{
    (void)state;
    uint64_t begin = 0;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
        uint64_t end = histogram_bucket_end_ns(i);
        assert_true(end >= begin);
        assert_int_equal(histogram_bucket_of(begin), i);
        assert_int_equal(histogram_bucket_of(begin + (end - begin) / 2), i);
        assert_int_equal(histogram_bucket_of(end), i);
        if (begin >= 1024)
            assert_true((end - begin + 1) * HISTOGRAM_SUB <= begin);
        begin = end + 1;
    }
    assert_true(begin > UINT64_C(60000000000));
    assert_int_equal(histogram_bucket_of(UINT64_MAX), HISTOGRAM_BUCKETS - 1);
}

static void percentiles_and_the_mean_are_right_to_an_eighth(void **state)
{
    (void)state;
    struct histogram h = {0};
    for (uint64_t us = 1; us <= 1000; us++)
        histogram_add(&h, us * 1000);
    const unsigned permille[] = {1, 100, 500, 900, 990, 999};
    assert_int_equal(histogram_count(&h), 1000);
    for (unsigned i = 0; i < sizeof(permille) / sizeof(permille[0]); i++) {
        uint64_t exact = permille[i] * UINT64_C(1000), got = histogram_permille_ns(&h, permille[i]);
        assert_in_range(got, exact, exact + exact / 8 + 1128);
    }
    assert_in_range(histogram_mean_ns(&h), 500500 - 500500 / 16, 500500 + 500500 / 16);
}

static void what_a_histogram_had_earlier_can_be_taken_away(void **state)
{
    (void)state;
    struct histogram h = {0}, earlier = {0};
    for (unsigned i = 0; i < 100; i++)
        histogram_add(&h, 1000000);
    histogram_merge(&earlier, &h);
    for (unsigned i = 0; i < 10; i++)
        histogram_add(&h, 5000);
    histogram_subtract(&h, &earlier);
    assert_int_equal(histogram_count(&h), 10);
    assert_in_range(histogram_permille_ns(&h, 1000), 5000, 6000);
}

static void an_empty_histogram_says_zero(void **state)
{
    (void)state;
    struct histogram h = {0};
    assert_int_equal(histogram_count(&h), 0);
    assert_int_equal(histogram_mean_ns(&h), 0);
    assert_int_equal(histogram_permille_ns(&h, 500), 0);
}

static void the_extremes_are_told_by_any_percentile_of_one_value(void **state)
{
    (void)state;
    const uint64_t ns[] = {0, 127, UINT64_C(90000000000)};
    for (unsigned i = 0; i < 3; i++) {
        struct histogram h = {0};
        histogram_add(&h, ns[i]);
        uint64_t end = histogram_bucket_end_ns(i < 2 ? 0 : HISTOGRAM_BUCKETS - 1);
        assert_int_equal(histogram_permille_ns(&h, 0), end);
        assert_int_equal(histogram_permille_ns(&h, 500), end);
        assert_int_equal(histogram_permille_ns(&h, 1000), end);
    }
}

/* ---- sets ---------------------------------------------------------------------------------- */

static void sets_of_several_threads_are_summed_up(void **state)
{
    (void)state;
    struct post_figures a = {0}, b = {0}, sum = {0}, in_short = {0};
    assert_true(figure_histograms_new(&post, &a));
    assert_true(figure_histograms_new(&post, &sum));
    histogram_add(a.transit, 5000);
    histogram_add(a.queue, 7000000);
    figure_add(&a.parcels, 1);
    figure_add(&b.parcels, 10); /* which never had a histogram */
    struct histogram *before = a.transit;
    assert_true(figure_histograms_new(&post, &a)); /* it has them: nothing happens */
    assert_ptr_equal(a.transit, before);

    figure_set_add(&post, &sum, &a);
    figure_set_add(&post, &sum, &a);
    figure_set_add(&post, &sum, &b);
    assert_int_equal(figure_get(&sum.parcels), 12);
    assert_int_equal(histogram_count(sum.transit), 2);
    assert_in_range(histogram_mean_ns(sum.queue), 6500000, 7500000);
    figure_set_add(&post, &in_short, &a); /* counters alone are asked for */
    assert_int_equal(figure_get(&in_short.parcels), 1);
    figure_histograms_free(&post, &a);
    figure_histograms_free(&post, &a);
    figure_histograms_free(&post, &b);
    figure_histograms_free(&post, &sum);
    assert_null(a.queue);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_row_gives_a_field_and_its_description),
        cmocka_unit_test(buckets_follow_each_other_without_a_gap),
        cmocka_unit_test(percentiles_and_the_mean_are_right_to_an_eighth),
        cmocka_unit_test(what_a_histogram_had_earlier_can_be_taken_away),
        cmocka_unit_test(an_empty_histogram_says_zero),
        cmocka_unit_test(the_extremes_are_told_by_any_percentile_of_one_value),
        cmocka_unit_test(sets_of_several_threads_are_summed_up),
    };
    return cmocka_run_group_tests_name("base/figure", tests, NULL, NULL);
}

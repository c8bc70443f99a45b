/* The simulator's oracle: what a block may show, live and after a power cut. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/sim/model.c" /* not a library: the simulator is one program */

enum { BLOCK = 3 };

static struct model *m;
static struct model_volume *v;

static int setup(void **state)
{
    (void)state;
    m = model_new(1);
    m->event = 10;
    v = model_volume_add(m, "a", 16, 16);
    model_answer(m, &v->created, false, true);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    model_free(m);
    return 0;
}

/* A write of sectors of BLOCK at the model's event, answered `later` events after it. */
static uint32_t write_sectors(unsigned from, unsigned count, bool durable, uint64_t later)
{
    struct model_write w =
        model_write_call(m, v, BLOCK * STAMP_BLOCK_SECTORS + from, count, false, durable);
    m->event += later;
    model_write_answer(m, &w, MODEL_DONE);
    return w.seq;
}

static void flush_all(void)
{
    unsigned f = model_flush_call(m, v);
    m->event += 10;
    model_flush_answer(m, v, f, false);
}

static bool permits(const struct model_view *view, const struct model_sectors *got)
{
    char why[400];
    return model_permits(m, v, BLOCK, view, got, why, sizeof(why));
}

/* Whether all of BLOCK may show write `seq` when power is cut before `event`. */
static bool after_cut(uint64_t event, uint32_t seq)
{
    struct model_sectors got;
    for (unsigned i = 0; i < STAMP_BLOCK_SECTORS; i++)
        got.seq[i] = seq;
    struct model_view view = model_view_crash(v, event, true);
    return permits(&view, &got);
}

static void an_unflushed_write_is_old_or_new(void **state)
{
    (void)state;
    uint32_t seq = write_sectors(0, 8, false, 10);
    assert_true(after_cut(m->event, STAMP_ZERO));
    assert_true(after_cut(m->event, seq));
    assert_false(after_cut(m->event, seq + 1));
}

static void a_write_shows_only_after_it_was_called(void **state)
{
    (void)state;
    m->event = 50;
    uint32_t seq = write_sectors(0, 8, false, 10);
    assert_false(after_cut(50, seq));
    assert_true(after_cut(51, seq));
}

static void a_flush_settles_what_was_answered_before_it_was_called(void **state)
{
    (void)state;
    uint32_t first = write_sectors(0, 8, false, 10);
    flush_all();
    uint64_t answered = m->event;
    assert_true(after_cut(answered - 1, STAMP_ZERO));
    assert_false(after_cut(answered, STAMP_ZERO));
    uint32_t second = write_sectors(0, 8, false, 10);
    assert_true(after_cut(m->event, first));
    assert_true(after_cut(m->event, second));
}

static void a_flush_does_not_settle_what_was_answered_later(void **state)
{
    (void)state;
    unsigned f = model_flush_call(m, v);
    (void)write_sectors(0, 8, false, 5);
    model_flush_answer(m, v, f, false);
    assert_true(after_cut(m->event + 1, STAMP_ZERO));
}

static void a_durable_write_settles_itself_and_what_is_older(void **state)
{
    (void)state;
    uint32_t old = write_sectors(0, 8, false, 5);
    uint32_t fua = write_sectors(0, 8, true, 5);
    assert_false(after_cut(m->event, STAMP_ZERO));
    assert_false(after_cut(m->event, old));
    assert_true(after_cut(m->event, fua));
}

static void a_failed_write_may_have_happened_and_settles_nothing(void **state)
{
    (void)state;
    struct model_write w =
        model_write_call(m, v, BLOCK * STAMP_BLOCK_SECTORS, STAMP_BLOCK_SECTORS, false, true);
    m->event += 5;
    model_write_answer(m, &w, MODEL_FAILED);
    flush_all();
    assert_true(after_cut(m->event, STAMP_ZERO));
    assert_true(after_cut(m->event, w.seq));
}

static void a_refused_write_did_not_happen(void **state)
{
    (void)state;
    struct model_write w =
        model_write_call(m, v, BLOCK * STAMP_BLOCK_SECTORS, STAMP_BLOCK_SECTORS, false, false);
    model_write_answer(m, &w, MODEL_REFUSED);
    assert_false(after_cut(m->event + 1, w.seq));
}

static void sectors_of_a_block_are_of_one_moment(void **state)
{
    (void)state;
    uint32_t first = write_sectors(0, 4, false, 5), second = write_sectors(2, 4, false, 5);
    struct model_view view = model_view_crash(v, m->event, true);
    struct model_sectors both = {{first, first, second, second, second, second, 0, 0}};
    struct model_sectors torn = {{0, 0, second, second, second, second, 0, 0}};
    assert_true(permits(&view, &both));
    assert_false(permits(&view, &torn));
    view.whole_blocks = false;
    assert_true(permits(&view, &torn));
}

static void a_live_read_shows_what_was_acknowledged(void **state)
{
    (void)state;
    struct model_sectors zeros = {{0}};
    (void)write_sectors(0, 8, false, 5);
    struct model_time called = {++m->tick, m->event};
    struct model_view view = model_view_live(called, true);
    assert_false(permits(&view, &zeros));
}

static void concurrent_writes_may_land_in_any_order(void **state)
{
    (void)state;
    uint64_t at = BLOCK * STAMP_BLOCK_SECTORS;
    struct model_write a = model_write_call(m, v, at, STAMP_BLOCK_SECTORS, false, false);
    struct model_write b = model_write_call(m, v, at, STAMP_BLOCK_SECTORS, false, false);
    m->event += 5;
    model_write_answer(m, &b, MODEL_DONE);
    model_write_answer(m, &a, MODEL_DONE);
    flush_all();
    assert_true(after_cut(m->event, a.seq));
    assert_true(after_cut(m->event, b.seq));
    assert_false(after_cut(m->event, STAMP_ZERO));
}

static void a_volume_exists_between_its_creation_and_its_deletion(void **state)
{
    (void)state;
    assert_false(model_may_exist(v, 9));
    assert_true(model_must_exist(v, 10));
    m->event = 20;
    model_call(m, &v->deleted);
    m->event = 30;
    assert_false(model_must_exist(v, 25));
    assert_true(model_may_exist(v, 25));
    model_answer(m, &v->deleted, false, true);
    assert_false(model_may_exist(v, 30));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(an_unflushed_write_is_old_or_new),
        TEST(a_write_shows_only_after_it_was_called),
        TEST(a_flush_settles_what_was_answered_before_it_was_called),
        TEST(a_flush_does_not_settle_what_was_answered_later),
        TEST(a_durable_write_settles_itself_and_what_is_older),
        TEST(a_failed_write_may_have_happened_and_settles_nothing),
        TEST(a_refused_write_did_not_happen),
        TEST(sectors_of_a_block_are_of_one_moment),
        TEST(a_live_read_shows_what_was_acknowledged),
        TEST(concurrent_writes_may_land_in_any_order),
        TEST(a_volume_exists_between_its_creation_and_its_deletion),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

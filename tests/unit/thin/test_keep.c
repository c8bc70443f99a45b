/* What a volume has answered and not committed, over a kill (keep.c). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "io/co.h"
#include "io/reactor.h"
#include "tests/lib/on_reactor.h"
#include "tests/lib/sim_thin.h"
#include "thin/thin_impl.h"

enum { CHUNK = 16 }; /* blocks */

static uint8_t buf[CHUNK * POOL_BLOCK] __attribute__((aligned(4096)));

/* With a record of the volume: what is kept of others is not taken over. */
static CO bool create(struct sim_thin *st)
{
    struct pool_batch b;
    if (!check_ok(sim_thin_create(st)))
        return false;
    pool_batch_init(&b);
    pool_batch_set(&b, POOL_RECORD_VOLUME, 1, 0, "v", 1);
    int rc = pool_commit(st->pool, &b);
    pool_batch_fini(&b);
    return check_ok(rc);
}

static CO void write_chunk(struct thin *t, uint64_t chunk, int byte)
{
    memset(buf, byte, sizeof(buf));
    check_ok(thin_write(t, chunk * CHUNK, CHUNK, buf));
}

static CO void check_chunk(struct thin *t, uint64_t chunk, int byte)
{
    check_ok(thin_read(t, chunk * CHUNK, CHUNK, buf));
    check(buf[0] == byte && memcmp(buf, buf + 1, sizeof(buf) - 1) == 0);
}

static CO bool kill_and_import(struct sim_thin *st)
{
    sim_thin_abandon(st);
    return check_ok(sim_thin_import(st));
}

static void run(void (*body)(struct sim_thin *st, void *arg))
{
    struct sim_thin_config config = {.seed = 5};
    struct sim_thin *st = sim_thin_new(&config);
    sim_thin_run(st, body, NULL);
    sim_thin_free(st);
    assert_checked();
}

/* ---- tests ---------------------------------------------------------------------------------- */

static void body_kill(struct sim_thin *st, void *arg)
{
    (void)arg;
    if (!create(st))
        return;
    write_chunk(st->thin, 0, 1);
    write_chunk(st->thin, 3, 2);
    check_ok(thin_zero(st->thin, 3 * CHUNK, CHUNK, false));
    check_equal(figure_get(&thin_figures(st->thin)->commits), 0);
    if (!kill_and_import(st))
        return;
    check_chunk(st->thin, 0, 1);
    check_chunk(st->thin, 3, 0);
    check_equal(figure_get(&thin_figures(st->thin)->allocated_chunks), 1);
    check_ok(sim_thin_close(st));
}
static void what_was_answered_survives_a_kill_without_a_commit(void **state)
{
    (void)state;
    run(body_kill);
}

static void body_no_room(struct sim_thin *st, void *arg)
{
    (void)arg;
    if (!create(st))
        return;
    sim_world_limit_keeps(st->world, 1); /* a header, and no area */
    for (uint64_t i = 0; i < 8; i++) {
        uint64_t before = figure_get(&thin_figures(st->thin)->commits);
        write_chunk(st->thin, i, (int)i + 1);
        check_equal(figure_get(&thin_figures(st->thin)->commits), before + 1);
    }
    if (!kill_and_import(st))
        return;
    for (uint64_t i = 0; i < 8; i++)
        check_chunk(st->thin, i, (int)i + 1);
    check_ok(sim_thin_close(st));
}
static void without_room_to_keep_it_a_change_is_committed_before_it_is_answered(void **state)
{
    (void)state;
    run(body_no_room);
}

static bool answered_too_early;

static void zero_two_leaves(void *arg)
{
    struct thin *t = arg;
    /* A chunk, and then holes in a leaf that is not in memory: it waits between its change and the
     * end. */
    check_ok(thin_zero(t, 0, 54 * CHUNK, false));
    answered_too_early = t->committing;
}

static void body_standing_in(struct sim_thin *st, void *arg)
{
    (void)arg;
    if (!create(st))
        return;
    write_chunk(st->thin, 0, 1);
    write_chunk(st->thin, 60, 1);
    check_ok(sim_thin_close(st));
    if (!check_ok(sim_thin_import(st)))
        return;
    struct thin *t = st->thin;
    write_chunk(t, 200, 1);
    check_ok(co_spawn(zero_two_leaves, t, "zero"));
    while (!t->unkept_bytes)
        check_ok(co_sleep_ns(500));
    t->keep_by_commit = true; /* as another request does that finds too much for an append */
    check_ok(thin_commit(t));
    check(!answered_too_early);
    check_ok(sim_thin_close(st));
}
static void a_change_that_a_commit_keeps_is_answered_when_that_is_durable(void **state)
{
    (void)state;
    run(body_standing_in);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_answered_survives_a_kill_without_a_commit),
        cmocka_unit_test(without_room_to_keep_it_a_change_is_committed_before_it_is_answered),
        cmocka_unit_test(a_change_that_a_commit_keeps_is_answered_when_that_is_durable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

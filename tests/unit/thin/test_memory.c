/* Memory that is taken before requests need it (cache.c, keep.c): then they take none; and requests
 * that are slowed down where it is short. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/bytes.h"
#include "io/co.h"
#include "pool/pool_impl.h"
#include "tests/lib/on_reactor.h"
#include "tests/lib/sim_thin.h"
#include "thin/thin_impl.h"

enum { CHUNK = 16, CHUNKS = 480, CHUNKS_OF_A_LEAF = 48 };

static uint8_t block[POOL_BLOCK] __attribute__((aligned(4096)));

static CO void write_chunks(struct thin *t, uint64_t from, uint64_t to)
{
    memset(block, 7, sizeof(block));
    for (uint64_t i = from; i < to; i++)
        check_ok(thin_write(t, i * CHUNK, 1, block));
}

static void run(void (*body)(struct sim_thin *st, void *arg))
{
    struct sim_thin_config config = {
        .seed = 5, .volume_blocks = CHUNKS * CHUNK, .cache_bytes = 256 * POOL_PAGE};
    struct sim_thin *st = sim_thin_new(&config);
    sim_thin_run(st, body, NULL);
    sim_thin_free(st);
    assert_checked();
}

static void body_taken(struct sim_thin *st, void *arg)
{
    (void)arg;
    if (!check_ok(sim_thin_create(st)))
        return;
    struct thin *t = st->thin;
    struct thin_cache *c = st->cache;
    check(thin_take_memory(t));
    size_t pages = c->slab_pages, batch = t->batch.capacity;
    check(pages >= CHUNKS / CHUNKS_OF_A_LEAF + 2); /* the map's leaves and their parent, space */
    write_chunks(t, 0, CHUNKS);
    check_ok(thin_commit(t));
    check_ok(pool_checkpoint(st->pool));
    write_chunks(t, 0, CHUNKS);
    check_ok(thin_commit(t));
    check_equal(c->slab_pages, pages);
    check_equal(t->batch.capacity, batch);
    check_equal(c->wanted_used, c->pages);
    check_ok(thin_resize(t, 64 * CHUNKS * CHUNK)); /* grows: so does what it has a right to */
    check(c->slab_pages - c->pages >= 64 * CHUNKS / CHUNKS_OF_A_LEAF ||
          c->slab_pages >= c->limit_pages / 4 * 3);
    check_ok(thin_resize(t, CHUNKS * CHUNK));
    check_ok(sim_thin_close(st));
}
static void a_volume_that_took_its_memory_needs_no_more(void **state)
{
    (void)state;
    run(body_taken);
}

static void body_shared(struct sim_thin *st, void *arg)
{
    (void)arg;
    struct thin *other;
    if (!check_ok(sim_thin_create(st)))
        return;
    struct thin_config config = st->thin->config;
    struct thin_cache *c = st->cache;
    config.id = 2;
    config.size_blocks = (uint64_t)8 * CHUNKS * CHUNK;
    if (!check_ok(thin_open(&config, NULL, &other)))
        return;
    write_chunks(other, 0, CHUNKS); /* pages that are there, and not for st->thin */
    check(thin_take_memory(st->thin));
    size_t right = st->thin->wanted_pages;
    check(c->slab_pages - c->pages >= right);
    for (uint64_t i = CHUNKS; i < 4 * CHUNKS; i += CHUNKS_OF_A_LEAF)
        write_chunks(other, i, i + 1);
    check(c->slab_pages - c->pages >= right);
    check(c->slab_pages <= c->limit_pages);
    size_t pages = c->slab_pages;
    write_chunks(st->thin, 0, CHUNKS);
    check_equal(c->slab_pages, pages);
    check_equal(c->wanted_used, st->thin->pages);
    check_ok(thin_commit(other));
    thin_quiesce(other);
    thin_close(other);
    check_equal(c->wanted_pages, right);
    check_equal(c->pages, st->thin->pages);
    sim_thin_abandon(st);
}
static void others_leave_it_what_it_has_a_right_to(void **state)
{
    (void)state;
    run(body_shared);
}

/* ---- slowing changes down ------------------------------------------------------------------ */

enum { SLOWED = 1000 };

static struct {
    struct thin *thin;
    uint64_t longest_ns;
    struct co_group group;
} slowed;

static void slowed_main(void *arg)
{
    (void)arg;
    uint64_t began = reactor_now_ns();
    check_ok(thin_throttle(slowed.thin));
    slowed.longest_ns = max_u64(slowed.longest_ns, reactor_now_ns() - began);
    co_group_leave(&slowed.group, 0);
}

/* Checkpoints that take a millisecond a page, and a cache that is dirty beyond the half. */
static void body_slowed(struct sim_thin *st, void *arg)
{
    (void)arg;
    if (!check_ok(sim_thin_create(st)))
        return;
    struct thin_cache *c = st->cache;
    size_t dirty = c->dirty;
    c->dirty = c->limit_pages / 8 * 5;
    c->page_ns = 1000000;
    slowed.thin = st->thin;
    slowed.longest_ns = 0;
    co_group_init(&slowed.group);
    for (unsigned i = 0; i < SLOWED; i++) {
        co_group_enter(&slowed.group);
        check_ok(co_spawn(slowed_main, NULL, "slowed"));
    }
    check_ok(co_group_wait(&slowed.group));
    c->dirty = dirty;
    check(slowed.longest_ns > 1000000);
    check(slowed.longest_ns < 20000000);
    check_ok(sim_thin_close(st));
}

static void many_changes_that_are_slowed_down_do_not_wait_in_a_long_line(void **state)
{
    (void)state;
    run(body_slowed);
}

/* A block below each of many interior pages: half of the pages are interior ones. */
static void body_wide(struct sim_thin *st, void *arg)
{
    (void)arg;
    enum { SPOTS = 300 };
    const uint64_t apart = (uint64_t)THIN_FANOUT * CHUNKS_OF_A_LEAF * CHUNK;
    if (!check_ok(sim_thin_create(st)))
        return;
    const struct thin_cache *c = st->cache;
    check_ok(thin_resize(st->thin, SPOTS * apart));
    size_t most = 0;
    for (uint64_t i = 0; i < SPOTS; i++) {
        check_ok(thin_write(st->thin, i * apart, 1, block));
        most = max_u64(most, c->interior);
        uint64_t bytes = (c->pages + 8) * (POOL_PAGE + sizeof(struct thin_page));
        bytes += c->interior * THIN_FANOUT * sizeof(struct thin_page *);
        check(bytes <= (c->limit_pages + 16) * POOL_PAGE);
    }
    check(most > c->limit_pages / 4);
    check_ok(sim_thin_close(st));
}

static void the_limit_counts_descriptions_and_the_pointers_of_interior_pages(void **state)
{
    (void)state;
    run(body_wide);
}

static unsigned open_slots(const struct thin *t)
{
    unsigned n = 0;
    for (unsigned i = 0; i < t->space.width; i++)
        n += t->space.open[i] != NULL;
    return n;
}

static void body_exceeded(struct sim_thin *st, void *arg)
{
    (void)arg;
    if (!check_ok(sim_thin_create(st)))
        return;
    write_chunks(st->thin, 0, 4);
    check_ok(thin_commit(st->thin));
    check(open_slots(st->thin) > 0); /* they stay as long as there is memory */
    size_t limit = st->cache->limit_pages;
    st->cache->limit_pages = 1;
    check_ok(thin_commit(st->thin));
    write_chunks(st->thin, 4, 8);
    check_ok(thin_commit(st->thin));
    check_equal(open_slots(st->thin), 0);
    write_chunks(st->thin, 8, 12); /* in the same arenas */
    st->cache->limit_pages = limit;
    check_equal(figure_get(&thin_figures(st->thin)->leased_arenas), 2 * st->thin->space.width);
    struct thin_audit a;
    check_ok(thin_check(st->thin, &a));
    check(a.mapped == 12 && !a.leaked && !a.doubled && !a.unmarked);
    check_ok(sim_thin_close(st));
}

static void beyond_the_limit_a_commit_unpins_the_leaves_of_open_arenas(void **state)
{
    (void)state;
    run(body_exceeded);
}

/* ---- commits that fail --------------------------------------------------------------------- */

/* One block more of each of the first chunks, which has no intent to wait for. */
static CO void write_row(struct thin *t, uint64_t row)
{
    for (uint64_t chunk = 0; chunk < CHUNKS_OF_A_LEAF; chunk++)
        check_ok(thin_write(t, chunk * CHUNK + row, 1, block));
}

static void body_commits_fail(struct sim_thin *st, void *arg)
{
    (void)arg;
    if (!check_ok(sim_thin_create(st)))
        return;
    struct thin *t = st->thin;
    write_row(t, 0);
    check_ok(thin_commit(t));
    write_row(t, 1);
    atomic_store(&st->pool->fenced, true); /* no commit from here on: the log takes nothing */
    check_equal(thin_commit(t), VP_E_POOL_FENCED);
    size_t bytes = t->batch.len;
    uint64_t pages = t->batch_pages;
    check(bytes > 0);
    for (uint64_t row = 2; row < CHUNK; row++) {
        write_row(t, row);
        for (unsigned i = 0; i < 10; i++)
            check_equal(thin_commit(t), VP_E_POOL_FENCED);
        check_equal(t->batch.len, bytes);
        check_equal(t->batch_pages, pages);
    }
    atomic_store(&st->pool->fenced, false);
    check_ok(thin_commit(t));
    check_equal(t->batch.len, 0);
    check_equal(t->batch_pages, 0);
}

static void body_all_rows_are_there(struct sim_thin *st, void *arg)
{
    (void)arg;
    static uint8_t seen[POOL_BLOCK] __attribute__((aligned(4096)));
    if (!check_ok(sim_thin_import(st)))
        return;
    for (uint64_t i = 0; i < (uint64_t)CHUNKS_OF_A_LEAF * CHUNK; i++)
        if (!check_ok(thin_read(st->thin, i, 1, seen)) || !check_equal(seen[0], block[0]))
            return;
    check_ok(sim_thin_close(st));
}

static void commits_that_fail_again_and_again_keep_one_batch_and_lose_nothing(void **state)
{
    (void)state;
    struct sim_thin_config config = {
        .seed = 5, .volume_blocks = CHUNKS * CHUNK, .cache_bytes = 256 * POOL_PAGE};
    struct sim_thin *st = sim_thin_new(&config);
    memset(block, 7, sizeof(block));
    sim_thin_run(st, body_commits_fail, NULL);
    sim_thin_power_cut(st, 1);
    sim_thin_run(st, body_all_rows_are_there, NULL);
    sim_thin_free(st);
    assert_checked();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_volume_that_took_its_memory_needs_no_more),
        cmocka_unit_test(others_leave_it_what_it_has_a_right_to),
        cmocka_unit_test(many_changes_that_are_slowed_down_do_not_wait_in_a_long_line),
        cmocka_unit_test(the_limit_counts_descriptions_and_the_pointers_of_interior_pages),
        cmocka_unit_test(commits_that_fail_again_and_again_keep_one_batch_and_lose_nothing),
        cmocka_unit_test(beyond_the_limit_a_commit_unpins_the_leaves_of_open_arenas),
    };
    return cmocka_run_group_tests_name("thin memory", tests, NULL, NULL);
}

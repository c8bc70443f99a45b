/* Checkpoints and what a power cut at any moment around them leaves (checkpoint.c, C1 … C3). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "pool/meta_impl.h"
#include "tests/lib/fake_client.h"
#include "tests/lib/on_reactor.h"
#include "tests/lib/sim_pool.h"

static struct pool *pool;
static struct fake_client client;
static struct vp_error err;
static unsigned disks = 2;

static void start(void)
{
    client = (struct fake_client){0};
    check_ok(sim_pool_create(disks, &pool, &err));
    struct pool_client c = fake_client_of(&client);
    client.pool = pool;
    pool_set_client(pool, &c);
}

static void import(void *arg)
{
    int *rc = arg;
    struct fake_client fresh = {0};
    client = fresh;
    struct pool_client c = fake_client_of(&client);
    *rc = sim_pool_import(disks, &c, &pool, &err);
    if (!*rc)
        *rc = fake_load(&client, pool);
}

/* ---- simple behaviour --------------------------------------------------------------------- */

static void commit_many(void *arg)
{
    (void)arg;
    start();
    for (uint64_t i = 1; i <= 2000; i++)
        check_ok(fake_commit(&client, i % FAKE_KEYS, i, i % 100 ? 0 : 20000));
}

static void a_log_that_outgrows_its_limit_is_shortened_and_nothing_is_lost(void **state)
{
    (void)state;
    struct sim_world *w = sim_pool_world(1, disks);
    sim_pool_run(w, commit_many, NULL);
    struct pool_space space;
    pool_space_get(pool, &space);
    assert_true(client.checkpoints > 3);
    assert_true(space.meta_pages_used < space.meta_pages_total);
    pool_abandon(pool);
    w = sim_pool_power_cut(w, 2);
    int rc;
    sim_pool_run(w, import, &rc);
    check_ok(rc);
    for (uint64_t i = 2000 - FAKE_KEYS + 1; i <= 2000; i++) {
        check_equal(client.value[i % FAKE_KEYS], i);
        check_equal(sim_pool_counter(pool, i % FAKE_KEYS), i);
    }
    pool_abandon(pool);
    sim_world_free(w);
    assert_checked();
}

/* Whoever reads references in memory and heals their pages holds checkpoints off (scrub.c, S1). */
static CO void hold_off(void *arg)
{
    (void)arg;
    start();
    uint32_t before = pool_checkpoint_number(pool);
    pool_checkpoints_hold_off(pool);
    pool_checkpoint_request(pool);
    check(co_sleep_ns(UINT64_C(1000000000)) == 0);
    check_equal(pool_checkpoint_number(pool), before);
    check_equal(client.checkpoints, 0);
    pool_checkpoints_go_on(pool);
    while (pool_checkpoint_number(pool) == before)
        check(co_sleep_ns(1000000) == 0);
    /* One that is under way is waited for. */
    pool_checkpoint_request(pool);
    while (!pool->checkpoint.running)
        co_yield ();
    pool_checkpoints_hold_off(pool);
    uint32_t now = pool_checkpoint_number(pool);
    check_equal(now, before + 2);
    check(co_sleep_ns(UINT64_C(1000000000)) == 0);
    check_equal(pool_checkpoint_number(pool), now);
    pool_checkpoints_go_on(pool);
}

static void no_checkpoint_begins_while_they_are_held_off(void **state)
{
    (void)state;
    struct sim_world *w = sim_pool_world(4, disks);
    sim_pool_run(w, hold_off, NULL);
    pool_abandon(pool);
    sim_world_free(w);
    assert_checked();
}

static void fail_a_checkpoint(void *arg)
{
    (void)arg;
    start();
    check_ok(fake_commit(&client, 1, 11, 0));
    check_ok(pool_checkpoint(pool));
    check_ok(fake_commit(&client, 1, 12, 0));
    client.fail_checkpoint = VP_E_PAGE_DAMAGED;
    check_equal(pool_checkpoint(pool), VP_E_PAGE_DAMAGED);
    check_ok(fake_commit(&client, 2, 13, 0));
    check_equal(pool_checkpoint_number(pool), 2);
}

static void a_failed_checkpoint_changes_nothing_and_does_not_fence(void **state)
{
    (void)state;
    struct sim_world *w = sim_pool_world(1, disks);
    sim_pool_run(w, fail_a_checkpoint, NULL);
    pool_abandon(pool);
    w = sim_pool_power_cut(w, 2);
    int rc;
    sim_pool_run(w, import, &rc);
    check_ok(rc);
    check_equal(client.value[1], 12);
    check_equal(client.value[2], 13);
    pool_abandon(pool);
    sim_world_free(w);
    assert_checked();
}

static bool slow_commit_done;

static void commit_slowly(void *arg)
{
    (void)arg;
    check_ok(fake_commit(&client, 3, 33, 0));
    slow_commit_done = true;
}

/* Its write takes longer than all that is left of the checkpoint would. */
static int begin_a_slow_commit(void *arg)
{
    struct sim_world *w = arg;
    sim_disk_inject(sim_disk_find(w, "d0"), SIM_FAULT_STALL, 1U << IO_WRITE, 0, 1000000000);
    check_ok(co_spawn(commit_slowly, NULL, "committer"));
    co_yield ();
    return 0;
}

static void checkpoint_amid_a_commit(void *arg)
{
    start();
    const struct pool_client c = {.checkpoint = begin_a_slow_commit, .arg = arg};
    pool_set_client(pool, &c);
    check_ok(pool_checkpoint(pool));
    check(slow_commit_done);
}

/* C2: the table that its root names has the commit's records, so the log must have it as well. */
static void a_root_does_not_come_before_the_commits_that_its_table_has(void **state)
{
    (void)state;
    struct sim_world *w = sim_pool_world(1, disks);
    sim_pool_run(w, checkpoint_amid_a_commit, w);
    pool_abandon(pool);
    sim_world_free(w);
    assert_checked();
}

static unsigned joined;

static void join(void *arg)
{
    (void)arg;
    check_ok(pool_checkpoint(pool));
    joined++;
}

static void join_from_many(void *arg)
{
    (void)arg;
    start();
    check_ok(fake_commit(&client, 1, 1, 0));
    for (unsigned i = 0; i < 10; i++)
        check_ok(co_spawn(join, NULL, "join"));
    co_yield ();
    check_ok(pool_checkpoint(pool));
    joined++;
}

static void those_who_ask_during_a_checkpoint_share_the_next_one(void **state)
{
    (void)state;
    struct sim_world *w = sim_pool_world(1, disks);
    joined = 0;
    sim_pool_run(w, join_from_many, NULL);
    check_equal(joined, 11);
    check_equal(pool_checkpoint_number(pool), 3); /* creation's, the first, the shared one */
    pool_abandon(pool);
    sim_world_free(w);
    assert_checked();
}

/* Asked for while one runs, as if memory ran short again: by checkpoint 2's own client. */
static int asks_again(void *arg)
{
    struct fake_client *c = arg;
    if (c->checkpoints++ == 0)
        pool_checkpoint_request(c->pool);
    return 0;
}

static void ask_during_one(void *arg)
{
    (void)arg;
    start();
    struct pool_client c = fake_client_of(&client);
    c.checkpoint = asks_again;
    pool_set_client(pool, &c);
    check_ok(pool_checkpoint(pool));
    vp_ignore(co_sleep_ns(10000000), "time for another");
}

static void a_request_that_comes_while_a_checkpoint_runs_makes_another(void **state)
{
    (void)state;
    struct sim_world *w = sim_pool_world(1, disks);
    sim_pool_run(w, ask_during_one, NULL);
    check_equal(client.checkpoints, 2);
    check_equal(pool_checkpoint_number(pool), 3);
    pool_abandon(pool);
    sim_world_free(w);
    assert_checked();
}

static unsigned failures_told;

static void count_failure(void *arg, int rc)
{
    (void)arg;
    check_equal(rc, VP_E_PAGE_DAMAGED);
    failures_told++;
}

static void fail_for_a_while(void *arg)
{
    (void)arg;
    start();
    struct pool_client c = fake_client_of(&client);
    c.checkpoint_failed = count_failure;
    pool_set_client(pool, &c);
    check_ok(fake_commit(&client, 1, 11, 0));
    client.fail_checkpoint = VP_E_PAGE_DAMAGED;
    uint64_t log_pages = pool->log.stream.total_pages;
    check_equal(pool_checkpoint(pool), VP_E_PAGE_DAMAGED);
    check(pool->log.stream.total_pages > log_pages); /* all of it, and the JUMP */
    pool_checkpoint_request(pool);
    vp_ignore(co_sleep_ns(UINT64_C(3500000000)), "some tries");
    check_equal(pool_checkpoint_number(pool), 1);
    check_equal(failures_told, 4);
    client.fail_checkpoint = 0;
    vp_ignore(co_sleep_ns(UINT64_C(1100000000)), "one more");
    check_equal(pool_checkpoint_number(pool), 2);
    pool_checkpoints_stop(pool);
}

static void a_checkpoint_that_failed_is_tried_until_it_succeeds(void **state)
{
    (void)state;
    struct sim_world *w = sim_pool_world(1, disks);
    failures_told = 0;
    sim_pool_run(w, fail_for_a_while, NULL);
    pool_abandon(pool);
    sim_world_free(w);
    assert_checked();
}

static int damaged(void *arg)
{
    uint64_t addr;
    struct fake_client *c = arg;
    check_ok(pool_page_alloc(c->pool, 1, &addr));
    pool_page_release(c->pool, &addr, 1);
    return VP_E_PAGE_DAMAGED;
}

static void fail_often(void *arg)
{
    (void)arg;
    struct pool_space before, after;
    start();
    struct pool_client c = fake_client_of(&client);
    c.checkpoint = damaged;
    pool_set_client(pool, &c);
    check_equal(pool_checkpoint(pool), VP_E_PAGE_DAMAGED);
    pool_space_get(pool, &before);
    for (unsigned i = 0; i < 10; i++)
        check_equal(pool_checkpoint(pool), VP_E_PAGE_DAMAGED);
    pool_space_get(pool, &after);
    /* Each one leaves the log in a segment of its own, and nothing else. */
    uint64_t segment = sim_pool_geometry.log_segment_bytes / POOL_PAGE;
    check(after.meta_pages_used <= before.meta_pages_used + 10 * segment);
}

static void a_failed_checkpoint_gives_back_what_it_wrote(void **state)
{
    (void)state;
    struct sim_world *w = sim_pool_world(1, disks);
    sim_pool_run(w, fail_often, NULL);
    pool_abandon(pool);
    sim_world_free(w);
    assert_checked();
}

static void fill(void *arg)
{
    int *rc = arg;
    uint64_t addr, n = 0;
    start();
    while (pool_meta_has_room(pool, 1) && !pool_page_alloc(pool, 1, &addr))
        n++;
    check(n > 100);
    /* Nobody gave a page back: full, and yet commits and checkpoints go on. */
    for (uint64_t i = 1; i < 300; i++)
        check_ok(fake_commit(&client, i % FAKE_KEYS, i, 0));
    check_ok(pool_checkpoint(pool));
    *rc = pool_close(pool, true);
}

static void full_metadata_refuses_pages_but_commits_and_checkpoints_go_on(void **state)
{
    (void)state;
    int rc;
    struct sim_world *w = sim_pool_world(1, disks);
    sim_pool_run(w, fill, &rc);
    check_ok(rc);
    sim_pool_run(w, import, &rc);
    check_ok(rc);
    check_equal(client.value[299 % FAKE_KEYS], 299);
    check_equal(client.replays, 0);
    pool_abandon(pool);
    sim_world_free(w);
    assert_checked();
}

/* ---- large tables ------------------------------------------------------------------------- */

enum { MANY_RECORDS = 8000, RECORDS_A_STEP_MAX = 3000 };

static unsigned turns;
static bool watching;

static void count_turns(void *arg)
{
    (void)arg;
    for (; watching; turns++)
        co_yield ();
}

static void close_large(void *arg)
{
    (void)arg;
    struct pool_batch b;
    pool_batch_init(&b);
    start();
    for (uint64_t key = 1; key <= MANY_RECORDS; key++) {
        pool_batch_set(&b, POOL_RECORD_COUNTER, 7, key, &key, sizeof(key));
        if (key % 1000 == 0)
            check_ok(pool_commit(pool, &b));
        if (key % 1000 == 0)
            pool_batch_clear(&b);
    }
    pool_batch_fini(&b);
    pool_checkpoints_stop(pool);
    watching = true;
    check_ok(co_spawn(count_turns, NULL, "turns"));
    pool_abandon_in_turns(pool); /* no I/O: each turn of the other is one that it gave */
    watching = false;
    check(turns >= MANY_RECORDS / RECORDS_A_STEP_MAX);
}

static void a_large_pool_is_freed_in_turns(void **state)
{
    (void)state;
    struct sim_world *w = sim_pool_world(1, disks);
    sim_pool_run(w, close_large, NULL);
    sim_world_free(w);
    assert_checked();
}

static CO uint64_t image_pages_of_checkpoint(void)
{
    pool->checkpoint.stream.total_pages = 0;
    check_ok(pool_checkpoint(pool));
    return pool->checkpoint.stream.total_pages;
}

/* Pages that log and images may have: every segment that is not one of an image is the log's. */
static uint64_t pages_of_log(void)
{
    uint64_t pages = 0;
    for (unsigned i = 0; i < pool->meta.groups; i++)
        pages += bitmap_count(pool->meta.group[i]->segment, pool->meta.group[i]->pages);
    for (unsigned i = 0; i < pool->checkpoint.images; i++)
        for (unsigned k = 0; k < pool->checkpoint.image[i].segments; k++)
            pages -= pool->checkpoint.image[i].segment[k].pages;
    return pages;
}

static CO void change_little(void *arg)
{
    (void)arg;
    struct pool_batch b;
    pool_batch_init(&b);
    check_ok(sim_pool_create(disks, &pool, &err));
    for (uint64_t key = 1; key <= 1000; key++)
        pool_batch_set(&b, POOL_RECORD_COUNTER, 7, key, &key, sizeof(key));
    check_ok(pool_commit(pool, &b));
    pool_batch_fini(&b);
    check(image_pages_of_checkpoint() >= 1000 * 24 / POOL_PAGE);
    check_equal(image_pages_of_checkpoint(), 0);
    uint64_t pages = 0;
    for (uint64_t i = 1; i <= 40; i++) {
        check_ok(sim_pool_commit_counter(pool, i % 3, i));
        pages += image_pages_of_checkpoint();
        check(pages_of_log() <= 2 * pool_segment_pages(pool));
    }
    check(pages < 3 * 40); /* one page mostly */
    check(pool->root.now.deltas > 0 && pool->root.now.deltas <= POOL_DELTAS);
    for (uint64_t key = 1; key <= 1000; key += 2)
        pool_batch_delete(&b, POOL_RECORD_COUNTER, 7, key);
    check_ok(pool_commit(pool, &b));
    pool_batch_fini(&b);
    check_ok(pool_checkpoint(pool));
}

static CO void find_little(void *arg)
{
    int *rc = arg;
    struct pool_record r;
    *rc = sim_pool_import(disks, NULL, &pool, &err);
    for (uint64_t key = 1; key <= 1000 && !*rc; key++)
        check_equal(pool_record_get(pool, POOL_RECORD_COUNTER, 7, key, &r), key % 2 == 0);
    check_equal(sim_pool_counter(pool, 1), 40);
    check_ok(pool_close(pool, true));
}

static void a_checkpoint_writes_what_changed(void **state)
{
    (void)state;
    int rc;
    struct sim_world *w = sim_pool_world(1, disks);
    sim_pool_run(w, change_little, NULL);
    pool_abandon(pool);
    w = sim_pool_power_cut(w, 2);
    sim_pool_run(w, find_little, &rc);
    check_ok(rc);
    sim_world_free(w);
    assert_checked();
}

/* ---- every crash point -------------------------------------------------------------------- */

/* A world at one event, and what had been acknowledged by then. */
struct moment {
    struct sim_snapshot *snapshot;
    uint64_t acked[FAKE_KEYS], issued[FAKE_KEYS];
};

enum { MOMENTS_MAX = 4000 };
static struct moment *moments;
static unsigned moment_count;
static uint64_t acked[FAKE_KEYS], issued[FAKE_KEYS];
static bool created;

static bool on_event(struct sim_world *w, uint64_t event, void *arg)
{
    (void)event;
    (void)arg;
    if (!created || moment_count == MOMENTS_MAX)
        return true;
    struct moment *m = &moments[moment_count++];
    m->snapshot = sim_snapshot_take(w);
    memcpy(m->acked, acked, sizeof(acked));
    memcpy(m->issued, issued, sizeof(issued));
    return true;
}

static void commit_one(uint64_t number, size_t ballast)
{
    unsigned key = (unsigned)(number % 3);
    issued[key] = number;
    check_ok(fake_commit(&client, key, number, ballast));
    acked[key] = number;
}

static void committer(void *arg)
{
    uint64_t base = (uintptr_t)arg;
    for (uint64_t i = 1; i < 12; i++)
        commit_one(base + 3 * i, 0);
}

static void commit_and_checkpoint(void *arg)
{
    (void)arg;
    start();
    created = true;
    for (uintptr_t k = 1; k <= 2; k++)
        check_ok(co_spawn(committer, (void *)k, "committer"));
    for (uint64_t i = 1; i <= 3; i++) {
        commit_one(100 + 3 * i - 100 % 3, i == 2 ? 15000 : 0);
        check_ok(pool_checkpoint(pool));
    }
}

static bool is_within(const struct moment *m, unsigned key, uint64_t found)
{
    return found >= m->acked[key] && found <= m->issued[key];
}

static void check_state(const struct moment *m, const struct sim_choice *choices, uint64_t seed)
{
    int rc;
    struct sim_world *w = sim_world_from_snapshot(m->snapshot, choices, seed);
    sim_pool_run(w, import, &rc);
    check_ok(rc);
    for (unsigned key = 0; key < 3 && !rc; key++) {
        uint64_t counter = sim_pool_counter(pool, key);
        counter = counter == UINT64_MAX ? 0 : counter;
        check_equal(counter, client.value[key]);
        check(is_within(m, key, client.value[key]));
    }
    pool_abandon(pool);
    sim_world_free(w);
}

static void random_choices(struct sim_choice *choices, unsigned n, uint64_t *random)
{
    for (unsigned i = 0; i < n; i++) {
        *random = *random * 6364136223846793005ULL + 1442695040888963407ULL;
        choices[i].fate = (enum sim_fate)((*random >> 40) % 3);
        choices[i].units = *random >> 8;
    }
}

/* All lost, all kept, and some in between. */
static void check_moment(const struct moment *m, uint64_t seed)
{
    unsigned n = sim_snapshot_pending(m->snapshot);
    struct sim_choice *choices = calloc(n + 1, sizeof(*choices));
    uint64_t random = seed;
    assert_non_null(choices);
    check_state(m, choices, seed);
    for (unsigned i = 0; i < n; i++)
        choices[i].fate = SIM_KEEP;
    check_state(m, choices, seed);
    for (unsigned k = 0; k < 20 && n; k++) {
        random_choices(choices, n, &random);
        check_state(m, choices, seed);
    }
    free(choices);
}

static void a_power_cut_at_any_event_keeps_what_was_acknowledged_and_whole(void **state)
{
    (void)state;
    moments = calloc(MOMENTS_MAX, sizeof(*moments));
    assert_non_null(moments);
    for (disks = 1; disks <= 3; disks++) {
        memset(acked, 0, sizeof(acked));
        memset(issued, 0, sizeof(issued));
        created = false;
        moment_count = 0;
        struct sim_world *w = sim_pool_world(disks, disks);
        sim_world_on_event(w, on_event, NULL);
        sim_pool_run(w, commit_and_checkpoint, NULL);
        pool_abandon(pool);
        sim_world_free(w);
        assert_in_range(moment_count, 50, MOMENTS_MAX - 1);
        for (unsigned i = 0; i < moment_count; i++) {
            check_moment(&moments[i], i);
            sim_snapshot_free(moments[i].snapshot);
        }
        assert_checked();
    }
    free(moments);
    disks = 2;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_log_that_outgrows_its_limit_is_shortened_and_nothing_is_lost),
        cmocka_unit_test(no_checkpoint_begins_while_they_are_held_off),
        cmocka_unit_test(a_failed_checkpoint_changes_nothing_and_does_not_fence),
        cmocka_unit_test(a_root_does_not_come_before_the_commits_that_its_table_has),
        cmocka_unit_test(a_failed_checkpoint_gives_back_what_it_wrote),
        cmocka_unit_test(a_large_pool_is_freed_in_turns),
        cmocka_unit_test(a_checkpoint_writes_what_changed),
        cmocka_unit_test(a_request_that_comes_while_a_checkpoint_runs_makes_another),
        cmocka_unit_test(a_checkpoint_that_failed_is_tried_until_it_succeeds),
        cmocka_unit_test(those_who_ask_during_a_checkpoint_share_the_next_one),
        cmocka_unit_test(full_metadata_refuses_pages_but_commits_and_checkpoints_go_on),
        cmocka_unit_test(a_power_cut_at_any_event_keeps_what_was_acknowledged_and_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The log: group commit, chains, torn and damaged batches, fencing (log.c, log_read.c).
 * threads: yes */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pool/meta_impl.h"
#include "tests/lib/fake_client.h"
#include "tests/lib/on_reactor.h"
#include "tests/lib/sim_pool.h"

static struct pool *pool;
static struct fake_client client;
static struct vp_error err;

static void start(void)
{
    client = (struct fake_client){0};
    check_ok(sim_pool_create(2, &pool, &err));
    struct pool_client c = fake_client_of(&client);
    client.pool = pool;
    pool_set_client(pool, &c);
}

static int import_rc;

static void import(void *arg)
{
    (void)arg;
    client = (struct fake_client){0};
    struct pool_client c = fake_client_of(&client);
    import_rc = sim_pool_import(2, &c, &pool, &err);
    if (!import_rc)
        import_rc = fake_load(&client, pool);
}

static struct sim_world *run_new(void (*body)(void *arg))
{
    struct sim_world *w = sim_pool_world(1, 2);
    sim_pool_run(w, body, NULL);
    return w;
}

static struct sim_world *run_import(struct sim_world *w)
{
    pool_abandon(pool);
    pool = NULL;
    w = sim_pool_power_cut(w, 3);
    sim_pool_run(w, import, NULL);
    return w;
}

static void end(struct sim_world *w)
{
    pool_abandon(pool);
    pool = NULL;
    sim_world_free(w);
    assert_checked();
}

/* ---- commits ------------------------------------------------------------------------------ */

static unsigned done;

static void commit_one(void *arg)
{
    uint64_t n = (uintptr_t)arg;
    check_ok(fake_commit(&client, n % FAKE_KEYS, n, 0));
    done++;
}

static void commit_together(void *arg)
{
    (void)arg;
    start();
    done = 0;
    for (uintptr_t i = 1; i <= 40; i++)
        check_ok(co_spawn(commit_one, (void *)i, "committer"));
}

static void commits_that_come_together_share_a_write(void **state)
{
    (void)state;
    struct sim_world *w = run_new(commit_together);
    check_equal(done, 40);
    check(pool->log.stream.next_seq < 1 + 6);
    w = run_import(w);
    check_ok(import_rc);
    for (unsigned n = 25; n <= 40; n++)
        check_equal(client.value[n % FAKE_KEYS], n);
    end(w);
}

static void append_then_commit(void *arg)
{
    struct pool_batch b;
    uint64_t one = 1;
    (void)arg;
    start();
    uint64_t seq = pool->log.stream.next_seq;
    pool_batch_init(&b);
    pool_batch_set(&b, POOL_RECORD_STAT, 1, 1, &one, sizeof(one));
    check_ok(pool_log_append_nowait(pool, &b));
    check_equal(b.len, 0);
    check_equal(pool->log.stream.next_seq, seq); /* nothing is written for it alone */
    check_ok(fake_commit(&client, 1, 5, 0));
}

static void what_is_appended_without_waiting_is_durable_with_the_next_commit(void **state)
{
    (void)state;
    struct pool_record r;
    struct sim_world *w = run_import(run_new(append_then_commit));
    check_ok(import_rc);
    check_equal(client.value[1], 5);
    check(pool_record_get(pool, POOL_RECORD_STAT, 1, 1, &r));
    end(w);
}

static void commit_large(void *arg)
{
    (void)arg;
    start();
    for (unsigned i = 1; i <= 5; i++)
        check_ok(fake_commit(&client, i, i, 60000)); /* five segments each */
    check_equal(pool_checkpoint_number(pool), 1);
}

static void a_commit_longer_than_segments_is_found_again(void **state)
{
    (void)state;
    struct sim_world *w = run_import(run_new(commit_large));
    check_ok(import_rc);
    for (unsigned i = 1; i <= 5; i++)
        check_equal(client.value[i], i);
    end(w);
}

static void replaying_twice_is_replaying_once(void **state)
{
    (void)state;
    struct sim_world *w = run_import(run_new(commit_together));
    unsigned replays = client.replays;
    uint64_t value[FAKE_KEYS];
    memcpy(value, client.value, sizeof(value));
    w = run_import(w);
    check_ok(import_rc);
    check_equal(client.replays, replays);
    check(memcmp(value, client.value, sizeof(value)) == 0);
    end(w);
}

static void commit_failed_batch(void *arg)
{
    struct pool_batch b;
    (void)arg;
    start();
    pool_batch_init(&b);
    b.failed = true;
    check_equal(pool_commit(pool, &b), VP_E_NO_MEMORY);
    pool_batch_fini(&b);
    check_ok(fake_commit(&client, 1, 1, 0));
}

static void a_failed_allocation_fails_the_commit_and_nothing_else(void **state)
{
    (void)state;
    end(run_new(commit_failed_batch));
}

/* ---- torn and damaged --------------------------------------------------------------------- */

static struct pool_segment first_segment;

static void commit_two(void *arg)
{
    (void)arg;
    start();
    first_segment = pool->log.stream.segment;
    /* With the batch of the creation they fill the segment up to its JUMP. */
    for (unsigned i = 1; i <= 2; i++)
        check_ok(fake_commit(&client, i, i, 0));
}

/* Flips a bit in the body of batch `n` (0 …) of the first segment on a copy. */
static void damage_batch(struct sim_world *w, unsigned n, unsigned copy)
{
    sim_disk_flip_bit(sim_disk_find(w, copy ? "d1" : "d0"),
                      first_segment.place.at_bytes[copy] + n * POOL_PAGE + 70, 2);
}

static void a_damaged_batch_is_taken_from_the_other_copy_and_healed(void **state)
{
    (void)state;
    for (unsigned n = 0; n < 3; n++) {
        struct sim_world *w = run_new(commit_two);
        damage_batch(w, n, n % 2);
        w = run_import(w);
        check_ok(import_rc);
        check_equal(client.value[2], 2);
        check(figure_get(&pool->disk[n % 2].io.figures.healed_blocks) > 0);
        w = run_import(w);
        check_ok(import_rc);
        check_equal(figure_get(&pool->disk[n % 2].io.figures.healed_blocks), 0);
        end(w);
    }
}

static void a_batch_damaged_on_all_copies_is_damage_not_the_end(void **state)
{
    (void)state;
    for (unsigned n = 0; n < 3; n++) {
        struct sim_world *w = run_new(commit_two);
        damage_batch(w, n, 0);
        damage_batch(w, n, 1);
        w = run_import(w);
        check_equal(import_rc, VP_E_LOG_DAMAGED);
        end(w);
    }
}

static void a_batch_that_reached_one_copy_only_is_kept_on_both(void **state)
{
    (void)state;
    static uint8_t noise[POOL_PAGE];
    memset(noise, 0x33, sizeof(noise));
    for (unsigned copy = 0; copy < 2; copy++) {
        struct sim_world *w = run_new(commit_two);
        uint64_t at = first_segment.place.at_bytes[copy] + 2 * POOL_PAGE;
        sim_disk_poke(sim_disk_find(w, copy ? "d1" : "d0"), at, noise, sizeof(noise));
        w = run_import(w);
        check_equal(client.value[2], 2);
        uint8_t now[POOL_PAGE];
        sim_disk_peek(sim_disk_find(w, copy ? "d1" : "d0"), at, now, sizeof(now));
        check(memcmp(now, noise, sizeof(now)) != 0);
        end(w);
    }
}

static void a_batch_that_reached_no_copy_never_was(void **state)
{
    (void)state;
    static uint8_t noise[POOL_PAGE];
    struct sim_world *w = run_new(commit_two);
    for (unsigned copy = 0; copy < 2; copy++)
        sim_disk_poke(sim_disk_find(w, copy ? "d1" : "d0"),
                      first_segment.place.at_bytes[copy] + 2 * POOL_PAGE, noise, sizeof(noise));
    w = run_import(w);
    check_ok(import_rc);
    check_equal(client.value[1], 1);
    check_equal(client.value[2], 0);
    end(w);
}

static void a_rotten_batch_that_the_other_copy_never_had_was_not_acknowledged(void **state)
{
    (void)state;
    static uint8_t old[POOL_PAGE];
    struct sim_world *w = run_new(commit_two);
    damage_batch(w, 2, 0);
    sim_disk_poke(sim_disk_find(w, "d1"), first_segment.place.at_bytes[1] + 2 * POOL_PAGE, old,
                  sizeof(old));
    w = run_import(w);
    check_ok(import_rc);
    check_equal(client.value[1], 1);
    check_equal(client.value[2], 0);
    end(w);
}

static void a_jump_to_nowhere_is_refused(void **state)
{
    (void)state;
    struct pool_segment s = first_segment, out;
    struct pool_geometry g = {.extent_bytes = 1 << 20, .log_segment_bytes = 4 * POOL_PAGE};
    struct log_segment disk;
    s.pages = 4;
    s.place.copies = 2;
    log_segment_encode(&s, &g, &disk);
    assert_true(log_segment_decode(&disk, &g, &out));
    g.log_segment_bytes = 3 * POOL_PAGE;
    assert_false(log_segment_decode(&disk, &g, &out));
    g.log_segment_bytes = 4 * POOL_PAGE;
    disk.copies = POOL_META_COPIES_MAX + 1;
    assert_false(log_segment_decode(&disk, &g, &out));
    disk.copies = 0;
    assert_false(log_segment_decode(&disk, &g, &out));
    disk.copies = 2;
    disk.place[1] = le64_make((uint64_t)POOL_DISKS_MAX << LOG_PLACE_DISK_SHIFT);
    assert_false(log_segment_decode(&disk, &g, &out));
}

static void a_segment_of_many_copies_keeps_its_places(void **state)
{
    (void)state;
    const struct pool_geometry g = {.extent_bytes = 1 << 30, .log_segment_bytes = 1 << 20};
    for (unsigned copies = 1; copies <= POOL_META_COPIES_MAX; copies++) {
        struct pool_segment s = {.pages = 256, .place.copies = copies}, out;
        struct log_segment disk;
        for (unsigned i = 0; i < copies; i++) {
            s.place.disk[i] = (uint16_t)(POOL_DISKS_MAX - 1 - i);
            s.place.at_bytes[i] =
                POOL_LABEL_AREA + (1000000ULL + i) * g.extent_bytes + 0x3ff00ULL * POOL_PAGE;
        }
        log_segment_encode(&s, &g, &disk);
        assert_true(log_segment_decode(&disk, &g, &out));
        assert_int_equal(out.pages, s.pages);
        assert_int_equal(out.place.copies, copies);
        for (unsigned i = 0; i < copies; i++) {
            assert_int_equal(out.place.disk[i], s.place.disk[i]);
            assert_int_equal(out.place.at_bytes[i], s.place.at_bytes[i]);
        }
        if (copies <= LOG_PLACES)
            continue;
        ((struct log_segment_wide *)&disk)->disk[copies - 1] = POOL_DISKS_MAX;
        assert_false(log_segment_decode(&disk, &g, &out));
    }
}

/* ---- a log that grows into a new metadata group --------------------------------------------- */

static uint64_t committed;

/* Ends right after the commit during which the group was formed. */
static void fill_until_a_group_is_formed(void *arg)
{
    (void)arg;
    start();
    uint64_t addr;
    while (pool->meta.pages_free > 8)
        check_ok(pool_page_alloc(pool, 1, &addr));
    for (committed = 0; pool->meta.groups == 1 && committed < 200;)
        check_ok(sim_pool_commit_counter(pool, 7, ++committed));
    check_equal(pool->meta.groups, 2);
}

static void import_and_look(void *arg)
{
    import(arg);
    check_ok(import_rc);
    if (!import_rc)
        check_equal(sim_pool_counter(pool, 7), committed);
}

/* Twice, because the first import forms the group again and ends without a commit. */
static void a_crash_right_after_a_metadata_group_was_formed_loses_nothing(void **state)
{
    (void)state;
    struct sim_world *w = run_new(fill_until_a_group_is_formed);
    for (unsigned i = 0; i < 2; i++) {
        pool_abandon(pool);
        pool = NULL;
        w = sim_pool_power_cut(w, 3 + i);
        sim_pool_run(w, import_and_look, NULL);
    }
    end(w);
}

/* ---- disks -------------------------------------------------------------------------------- */

static void commit_without_disks(void *arg)
{
    struct sim_world *w = *(struct sim_world **)arg;
    uint8_t *page = aligned_alloc(POOL_PAGE, POOL_PAGE);
    start();
    check_ok(fake_commit(&client, 1, 1, 0));
    check_ok(pool_checkpoint(pool));
    for (unsigned i = 0; i < 2; i++)
        sim_disk_fail(sim_disk_find(w, i ? "d1" : "d0"), 1 << IO_WRITE, RAID_METADATA_TRIES);
    check_equal(fake_commit(&client, 2, 2, 0), VP_E_POOL_FENCED);
    check_equal(fake_commit(&client, 3, 3, 0), VP_E_POOL_FENCED);
    check_equal(pool_checkpoint(pool), VP_E_POOL_FENCED);
    check(!strcmp(pool_state(pool), "fenced"));
    check_ok(pool_page_read(pool, client.page, page)); /* reads go on */
    check_equal(pool_close(pool, false), VP_E_POOL_FENCED);
    pool = NULL;
    free(page);
}

static void without_any_disk_that_takes_the_log_the_pool_is_fenced(void **state)
{
    (void)state;
    struct sim_world *w = sim_pool_world(1, 2);
    sim_pool_run(w, commit_without_disks, &w);
    sim_pool_run(w, import, NULL);
    check_ok(import_rc);
    check_equal(client.value[1], 1);
    end(w);
}

/* ---- several reactors, real files --------------------------------------------------------- */

enum { THREADS = 2, EACH = 50 };
static char directory[64];

static int commit_from_elsewhere(void *arg)
{
    uint64_t base = (uintptr_t)arg;
    int rc = 0;
    for (uint64_t i = 0; i < EACH && !rc; i++)
        rc = sim_pool_commit_counter(pool, base + i, i);
    return rc;
}

static void commit_part(void *arg)
{
    struct co_group *g = ((void **)arg)[0];
    struct reactor *r = ((void **)arg)[1];
    co_group_leave(g, reactor_call(r, commit_from_elsewhere, ((void **)arg)[2]));
}

static void commit_on_files(void *arg)
{
    struct reactor_thread **threads = arg;
    struct pool_create_options o = {
        .name = "files", .profile = {RAID_MIRROR, 1, 1}, .create_size_bytes = 16 << 20};
    char path[2][96];
    const char *paths[2] = {path[0], path[1]};
    struct co_group g;
    void *parts[THREADS][3];
    snprintf(path[0], sizeof(path[0]), "%s/a", directory);
    snprintf(path[1], sizeof(path[1]), "%s/b", directory);
    if (!check_note_equal(pool_create(&o, paths, 2, &pool, &err), 0, __FILE__, __LINE__, err.text))
        return;
    co_group_init(&g);
    for (uintptr_t t = 0; t < THREADS; t++) {
        parts[t][0] = &g;
        parts[t][1] = reactor_thread_reactor(threads[t]);
        parts[t][2] = (void *)(t * 1000);
        co_group_enter(&g);
        check_ok(co_spawn(commit_part, parts[t], "part"));
    }
    check_ok(co_group_wait(&g));
    check_ok(pool_close(pool, false));
    check_ok(pool_import(paths, 2, 0, NULL, &pool, &err));
    for (uint64_t i = 0; i < EACH; i++)
        for (uint64_t t = 0; t < THREADS; t++)
            check_equal(sim_pool_counter(pool, t * 1000 + i), i);
    check_ok(pool_destroy(pool, &err));
    check_equal(pool_import(paths, 2, 0, NULL, &pool, &err), VP_E_LABEL_NONE);
    unlink(path[0]);
    unlink(path[1]);
}

static void commits_from_other_reactors_go_home_and_survive_on_files(void **state)
{
    (void)state;
    if (!reactor_threads_work()) {
        print_message("two reactors cannot run under valgrind\n");
        skip();
    }
    struct reactor_thread *threads[THREADS];
    struct reactor_config config = {.index = 1, .max_coroutines = 32, .buffer_bytes = 8 << 20};
    snprintf(directory, sizeof(directory), "build/vpool-test-XXXXXX");
    assert_non_null(mkdtemp(directory));
    for (unsigned t = 0; t < THREADS; t++)
        threads[t] = reactor_thread_start(&config);
    config.index = 0;
    on_reactor(&config, commit_on_files, threads);
    for (unsigned t = 0; t < THREADS; t++)
        reactor_thread_join(threads[t]);
    rmdir(directory);
    assert_checked();
}

/* ---- metadata that outgrow their group ----------------------------------------------------- */

/* Takes pages until no segment fits into the groups there are. */
static int use_up_pages(void *arg)
{
    uint64_t addr;
    int rc = 0;
    (void)arg;
    while (!rc && pool->meta.pages_free >= pool_segment_pages(pool))
        rc = pool_page_alloc(pool, 1, &addr);
    return rc;
}

static void outgrow_by_commits(void *arg)
{
    (void)arg;
    start();
    check_ok(use_up_pages(NULL));
    for (uint64_t n = 1; pool->meta.groups == 1; n++)
        check_ok(fake_commit(&client, 1, n, 0));
}

static void a_log_that_goes_on_in_a_new_group_is_found_after_a_crash(void **state)
{
    (void)state;
    struct sim_world *w = run_new(outgrow_by_commits);
    uint64_t last = client.value[1];
    w = run_import(w);
    check_ok(import_rc);
    check_equal(client.value[1], last);
    check_equal(pool->meta.groups, 2);
    end(w);
}

static void outgrow_by_table_image(void *arg)
{
    struct pool_client c = {.checkpoint = use_up_pages};
    (void)arg;
    start();
    check_ok(fake_commit(&client, 1, 7, 0));
    check_ok(pool_checkpoint(pool));
    pool_set_client(pool, &c);
    check_ok(pool_checkpoint(pool));
    check_equal(pool->meta.groups, 2);
}

static void a_table_image_that_lies_in_a_new_group_is_found_after_a_crash(void **state)
{
    (void)state;
    struct sim_world *w = run_new(outgrow_by_table_image);
    w = run_import(w);
    check_ok(import_rc);
    check_equal(client.value[1], 7);
    end(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(commits_that_come_together_share_a_write),
        cmocka_unit_test(what_is_appended_without_waiting_is_durable_with_the_next_commit),
        cmocka_unit_test(a_commit_longer_than_segments_is_found_again),
        cmocka_unit_test(replaying_twice_is_replaying_once),
        cmocka_unit_test(a_failed_allocation_fails_the_commit_and_nothing_else),
        cmocka_unit_test(a_damaged_batch_is_taken_from_the_other_copy_and_healed),
        cmocka_unit_test(a_batch_damaged_on_all_copies_is_damage_not_the_end),
        cmocka_unit_test(a_batch_that_reached_one_copy_only_is_kept_on_both),
        cmocka_unit_test(a_batch_that_reached_no_copy_never_was),
        cmocka_unit_test(a_rotten_batch_that_the_other_copy_never_had_was_not_acknowledged),
        cmocka_unit_test(a_jump_to_nowhere_is_refused),
        cmocka_unit_test(a_segment_of_many_copies_keeps_its_places),
        cmocka_unit_test(a_crash_right_after_a_metadata_group_was_formed_loses_nothing),
        cmocka_unit_test(without_any_disk_that_takes_the_log_the_pool_is_fenced),
        cmocka_unit_test(a_log_that_goes_on_in_a_new_group_is_found_after_a_crash),
        cmocka_unit_test(a_table_image_that_lies_in_a_new_group_is_found_after_a_crash),
        cmocka_unit_test(commits_from_other_reactors_go_home_and_survive_on_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

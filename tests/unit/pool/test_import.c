/* Import: what it finds after power cuts, with lost and stale disks (import.c, I1 … I4). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/device.h"
#include "pool/pool_impl.h"
#include "tests/lib/on_reactor.h"
#include "tests/lib/sim_pool.h"

static struct pool *pool;
static struct vp_error err;
static unsigned disks;
static uint64_t commits, committed; /* how many to do, how many were acknowledged */

static void commit_some(void)
{
    for (uint64_t i = 0; i < commits && pool; i++) {
        check_ok(sim_pool_commit_counter(pool, committed % 10, committed));
        committed++;
    }
}

static void create_and_commit(void *arg)
{
    (void)arg;
    committed = 0;
    check_ok(sim_pool_create(disks, &pool, &err));
    commit_some();
}

/* A new world with a pool of `n` disks and `count` commits in it, open. */
static struct sim_world *world_with_pool(unsigned n, uint64_t count)
{
    struct sim_world *w = sim_pool_world(n * 100 + count, n);
    disks = n;
    commits = count;
    sim_pool_run(w, create_and_commit, NULL);
    return w;
}

struct import_call {
    const char *paths[4];
    unsigned count;
    unsigned flags;
    bool commit; /* some more afterwards */
    int rc;
};

static void import(void *arg)
{
    struct import_call *c = arg;
    c->rc = pool_import(c->paths, c->count, c->flags, NULL, &pool, &err);
    if (!c->rc && c->commit)
        commit_some();
}

/* 0, or the error; the pool is left open. */
static int import_disks(struct sim_world *w, const char *paths, bool commit)
{
    struct import_call c = {.commit = commit};
    static const char *const names[] = {"d0", "d1", "d2", "d3"};
    for (const char *digit = paths; *digit; digit++)
        c.paths[c.count++] = names[*digit - '0'];
    sim_pool_run(w, import, &c);
    return c.rc;
}

/* The last ten commits are there; the one under way at a cut, number `committed`, may be. */
static void check_counters(void)
{
    for (uint64_t i = committed < 10 ? 0 : committed - 10; i < committed; i++) {
        uint64_t found = sim_pool_counter(pool, i % 10);
        check(found == i || (found == committed && i + 10 == committed));
    }
}

static void end(struct sim_world *w)
{
    pool_abandon(pool);
    pool = NULL;
    sim_world_free(w);
    assert_checked();
}

static struct sim_world *power_cut(struct sim_world *w)
{
    pool_abandon(pool);
    pool = NULL;
    return sim_pool_power_cut(w, 77);
}

/* A cut that loses nothing, or everything that could be lost. */
static struct sim_world *cut_either_way(struct sim_world *w, uint64_t n)
{
    pool_abandon(pool);
    pool = NULL;
    return n % 2 ? sim_pool_power_cut(w, n) : sim_pool_reboot(w, n);
}

/* ---- power cuts --------------------------------------------------------------------------- */

static void what_was_committed_is_there_after_a_power_cut(void **state)
{
    (void)state;
    for (unsigned n = 1; n <= 3; n++) {
        for (uint64_t count = 0; count < 40; count += 3) {
            struct sim_world *w = power_cut(world_with_pool(n, count));
            check_ok(import_disks(w, n == 1 ? "0" : n == 2 ? "01" : "012", false));
            check_counters();
            end(w);
        }
    }
}

static uint64_t cut_at, events;

static bool cut_there(struct sim_world *w, uint64_t event, void *arg)
{
    (void)w;
    (void)event;
    (void)arg;
    return events++ < cut_at;
}

/* Cuts the power at the n-th event from now. */
static void cut_after(struct sim_world *w, uint64_t n)
{
    cut_at = n;
    events = 0;
    sim_world_on_event(w, cut_there, NULL);
}

/* `merges`: it has two pieces of the log to merge. */
static void cut_imports(bool merges)
{
    bool cut = true;
    struct sim_world *w = power_cut(world_with_pool(2, 17));
    if (merges) {
        check_ok(import_disks(w, "01", true));
        check_equal(pool->root.now.pieces, 2);
        w = power_cut(w);
    }
    struct sim_snapshot *s = sim_snapshot_take(w);
    sim_world_free(w);
    for (uint64_t n = 0; cut; n++) {
        w = sim_world_from_snapshot(s, NULL, n);
        cut_after(w, n);
        vp_ignore(import_disks(w, "01", false), "it may have been cut");
        cut = events > cut_at;
        check(cut || pool->root.now.pieces == (merges ? 1 : 2));
        w = cut_either_way(w, n);
        check_ok(import_disks(w, "01", false));
        check_counters();
        end(w);
    }
    sim_snapshot_free(s);
}

static void an_import_that_is_cut_anywhere_can_be_done_again(void **state)
{
    (void)state;
    cut_imports(false);
    cut_imports(true);
}

static void a_creation_that_is_cut_leaves_a_pool_or_none(void **state)
{
    (void)state;
    bool cut = true;
    for (uint64_t n = 0; cut; n++) {
        struct sim_world *w = sim_pool_world(n, 2);
        cut_after(w, n);
        disks = 2;
        commits = 0;
        sim_pool_run(w, create_and_commit, NULL);
        cut = events > cut_at;
        w = cut_either_way(w, n);
        int rc = import_disks(w, "01", false);
        check(rc == 0 || rc == VP_E_LABEL_NONE || rc == VP_E_LABEL_BAD);
        if (!cut)
            check_ok(rc);
        end(w);
    }
}

static bool cut_at_commit(struct sim_world *w, uint64_t event, void *arg)
{
    (void)w;
    (void)event;
    return committed < *(const uint64_t *)arg;
}

static void pieces_are_merged_when_no_checkpoint_comes_between_imports(void **state)
{
    (void)state;
    struct sim_world *w = power_cut(world_with_pool(2, 3));
    const uint64_t segment_pages = sim_pool_geometry.log_segment_bytes / POOL_PAGE;
    unsigned merged = 0;
    for (unsigned i = 0; i < 30; i++) {
        uint64_t before = committed, target = before + 1;
        /* The power goes after the first commit, before a checkpoint can be complete. */
        commits = 2;
        sim_world_on_event(w, cut_at_commit, &target);
        check_ok(import_disks(w, "01", true));
        check(committed > before);
        check_counters();
        if (pool->root.now.pieces == 1) {
            /* A table image, the merged piece, a segment for the commit: what was merged is
             * free. */
            check(pool->meta.pages_total - pool->meta.pages_free <= 3 * segment_pages);
            merged++;
        }
        w = power_cut(w);
    }
    check(merged > 1);
    check_ok(import_disks(w, "01", false));
    check_counters();
    end(w);
}

/* ---- lost and stale disks ----------------------------------------------------------------- */

static void a_disk_that_fails_while_committing_is_ejected_and_nothing_is_lost(void **state)
{
    (void)state;
    static const enum sim_fault faults[] = {SIM_FAULT_ERROR, SIM_FAULT_DEAD};
    for (unsigned f = 0; f < 2; f++) {
        for (uint64_t nth = 0; nth < 50; nth++) {
            struct sim_world *w = world_with_pool(2 + nth % 2, 0);
            struct sim_disk *victim = sim_disk_find(w, "d1");
            commits = 15;
            pool_abandon(pool);
            w = sim_pool_reboot(w, nth);
            victim = sim_disk_find(w, "d1");
            sim_disk_inject(victim, faults[f], 1 << IO_WRITE, nth, 0);
            check_ok(import_disks(w, nth % 2 ? "012" : "01", true));
            check_equal(committed, 15);
            sim_disk_set_dead(victim, false);
            w = power_cut(w);
            check_ok(import_disks(w, nth % 2 ? "012" : "01", false));
            check_counters();
            end(w);
        }
    }
}

static void a_disk_that_was_away_is_stale_and_not_read(void **state)
{
    (void)state;
    struct sim_world *w = power_cut(world_with_pool(2, 5));
    commits = 5;
    sim_disk_set_dead(sim_disk_find(w, "d1"), true);
    check_ok(import_disks(w, "0", true));
    assert_string_equal(pool_state(pool), "degraded");
    w = power_cut(w);
    sim_disk_set_dead(sim_disk_find(w, "d1"), false);
    check_ok(import_disks(w, "10", false));
    struct pool_disk_info info;
    pool_disk_info_get(pool, 1, &info);
    assert_string_equal(info.state, "stale");
    check_counters();
    end(w);
}

static void disks_that_went_separate_ways_are_refused_together(void **state)
{
    (void)state;
    struct sim_world *w = power_cut(world_with_pool(2, 5));
    check_ok(import_disks(w, "0", true));
    w = power_cut(w);
    check_ok(import_disks(w, "1", true));
    w = power_cut(w);
    check_equal(import_disks(w, "01", false), VP_E_POOL_SPLIT);
    assert_null(pool);
    check_ok(import_disks(w, "1", false));
    end(w);
}

static void one_disk_of_three_is_not_enough(void **state)
{
    (void)state;
    struct sim_world *w = power_cut(world_with_pool(3, 5));
    check_equal(import_disks(w, "2", false), VP_E_POOL_MISSING_DISK);
    check_ok(import_disks(w, "20", false));
    check_counters();
    end(w);
}

static void a_tail_found_once_is_found_again_on_each_disk_alone(void **state)
{
    (void)state;
    for (uint64_t n = 0; n < 120; n++) {
        struct sim_world *w = sim_pool_world(n, 2);
        disks = 2;
        commits = 10;
        cut_after(w, 160 + n);
        sim_pool_run(w, create_and_commit, NULL);
        w = cut_either_way(w, n);
        check_ok(import_disks(w, "01", false));
        uint64_t found[10];
        for (unsigned k = 0; k < 10; k++)
            found[k] = sim_pool_counter(pool, k);
        w = power_cut(w);
        check_ok(import_disks(w, n % 3 ? "0" : "1", false));
        for (unsigned k = 0; k < 10 && pool; k++)
            check_equal(sim_pool_counter(pool, k), found[k]);
        end(w);
    }
}

/* ---- damage ------------------------------------------------------------------------------- */

/* A page that the pool wrote: a label, a root, or the beginning of a batch. */
static bool is_metadata(struct sim_world *w, const char *disk, uint64_t at)
{
    static const uint8_t log_magic[4] = {'V', 'P', 'G', 'L'};
    uint8_t head[8];
    sim_disk_peek(sim_disk_find(w, disk), at, head, sizeof(head));
    return memcmp(head, log_magic, sizeof(log_magic)) == 0 || memcmp(head, "vpoolRT1", 8) == 0 ||
           memcmp(head, "VPOOLLBL", 8) == 0;
}

/* Flips bits of the metadata in use on one disk: the other one has it all. */
static void a_flipped_bit_anywhere_on_one_disk_changes_nothing(void **state)
{
    (void)state;
    struct sim_world *base = power_cut(world_with_pool(2, 8));
    struct sim_snapshot *s = sim_snapshot_take(base);
    unsigned flips = 0;
    for (uint64_t at = 0; at < SIM_POOL_DISK_BYTES; at += 4096) {
        if (!is_metadata(base, "d1", at))
            continue;
        for (unsigned i = 0; i < 4096; i += i < 160 ? 1 : 61) {
            struct sim_world *w = sim_world_from_snapshot(s, NULL, at + i);
            sim_disk_flip_bit(sim_disk_find(w, "d1"), at + i, i % 8);
            check_ok(import_disks(w, "01", false));
            if (pool)
                check_counters();
            pool_abandon(pool);
            pool = NULL;
            sim_world_free(w);
            flips++;
        }
    }
    assert_true(flips > 1000);
    sim_snapshot_free(s);
    end(base);
}

/* The only disk is damaged: an import that succeeds shows every commit, or at least its beginning:
 * the last batch is not told from one that was never acknowledged. */
static void a_flipped_bit_on_the_only_disk_is_refused_or_harmless(void **state)
{
    (void)state;
    struct sim_world *base = power_cut(world_with_pool(1, 8));
    struct sim_snapshot *s = sim_snapshot_take(base);
    unsigned refused = 0;
    for (uint64_t at = 0; at < SIM_POOL_DISK_BYTES; at += 4096) {
        if (!is_metadata(base, "d0", at))
            continue;
        for (unsigned i = 0; i < 4096; i += i < 160 ? 1 : 509) {
            struct sim_world *w = sim_world_from_snapshot(s, NULL, at + i);
            sim_disk_flip_bit(sim_disk_find(w, "d0"), at + i, i % 8);
            int rc = import_disks(w, "0", false);
            refused += rc != 0;
            for (uint64_t k = 0; k < 8 && !rc; k++) {
                uint64_t found = sim_pool_counter(pool, k);
                check(found == k || found == UINT64_MAX);
            }
            pool_abandon(pool);
            pool = NULL;
            sim_world_free(w);
        }
    }
    assert_true(refused > 100);
    sim_snapshot_free(s);
    end(base);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_committed_is_there_after_a_power_cut),
        cmocka_unit_test(an_import_that_is_cut_anywhere_can_be_done_again),
        cmocka_unit_test(a_creation_that_is_cut_leaves_a_pool_or_none),
        cmocka_unit_test(pieces_are_merged_when_no_checkpoint_comes_between_imports),
        cmocka_unit_test(a_disk_that_fails_while_committing_is_ejected_and_nothing_is_lost),
        cmocka_unit_test(a_disk_that_was_away_is_stale_and_not_read),
        cmocka_unit_test(disks_that_went_separate_ways_are_refused_together),
        cmocka_unit_test(one_disk_of_three_is_not_enough),
        cmocka_unit_test(a_tail_found_once_is_found_again_on_each_disk_alone),
        cmocka_unit_test(a_flipped_bit_anywhere_on_one_disk_changes_nothing),
        cmocka_unit_test(a_flipped_bit_on_the_only_disk_is_refused_or_harmless),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

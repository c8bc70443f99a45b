/*
 * Disks that fail while a pool is imported: whatever could not be read is not taken for what is not
 * there. An import that succeeds has every acknowledged commit; one that is refused changes
 * nothing, so the next one has them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/crc.h"
#include "io/guard.h"
#include "pool/meta_impl.h"
#include "tests/lib/on_reactor.h"
#include "tests/lib/sim_pool.h"

enum { KEYS = 10, READS = 40, FOR_EVER = 1000, LABEL_READS = 4 };

static struct pool *pool;
static struct vp_error err;
static uint64_t committed;

/* What a body does and what it found. */
struct attempt {
    unsigned disks; /* given to the import */
    int rc;
};

static void commits_make(unsigned count)
{
    for (unsigned i = 0; i < count; i++, committed++)
        check_ok(sim_pool_commit_counter(pool, committed % KEYS, committed));
}

static unsigned commits_lost(void)
{
    unsigned lost = 0;
    for (uint64_t i = committed - KEYS; i < committed; i++)
        lost += sim_pool_counter(pool, i % KEYS) != i;
    return lost;
}

static void pool_leave(void)
{
    pool_abandon(pool);
    pool = NULL;
}

static void import_body(void *arg)
{
    struct attempt *a = arg;
    a->rc = sim_pool_import(a->disks, NULL, &pool, &err);
    if (!a->rc)
        check(commits_lost() == 0);
}

/* The import fails or has everything; without faults it has everything. Frees the world. */
static void import_twice(struct sim_world *w, struct attempt *a)
{
    sim_pool_run(w, import_body, a);
    pool_leave();
    w = sim_pool_reboot(w, 78);
    struct attempt again = {.disks = a->disks};
    sim_pool_run(w, import_body, &again);
    assert_int_equal(again.rc, 0);
    pool_leave();
    sim_world_free(w);
}

static void create_body(void *arg)
{
    committed = 0;
    check_ok(sim_pool_create(*(const unsigned *)arg, &pool, &err));
    commits_make(17);
}

/* ---- reads -------------------------------------------------------------------------------- */

/* Each read of each disk fails once, or from then on. */
static void reads_fail(unsigned disks, unsigned given, unsigned faults)
{
    for (uint64_t n = 0; n < READS; n++) {
        struct sim_world *w = sim_pool_world(5 + n, disks);
        sim_pool_run(w, create_body, &disks);
        pool_leave();
        w = sim_pool_reboot(w, 77);
        for (unsigned d = 0; d < given; d++)
            for (unsigned i = 0; i < faults; i++)
                sim_disk_inject(sim_disk_find(w, d ? "d1" : "d0"), SIM_FAULT_ERROR, 1U << IO_READ,
                                n + i, 0);
        import_twice(w, &(struct attempt){.disks = given});
    }
    assert_checked();
}

static void a_read_that_fails_once_loses_no_commit(void **state)
{
    (void)state;
    reads_fail(1, 1, 1);
    reads_fail(2, 2, 1);
}

static void with_a_disk_missing_a_read_that_fails_loses_no_commit(void **state)
{
    (void)state;
    reads_fail(2, 1, 1);
}

static void reads_that_fail_from_some_moment_on_lose_no_commit(void **state)
{
    (void)state;
    reads_fail(1, 1, FOR_EVER);
    reads_fail(2, 2, FOR_EVER);
}

/* ---- roots -------------------------------------------------------------------------------- */

static void create_and_eject_body(void *arg)
{
    (void)arg;
    committed = 0;
    check_ok(sim_pool_create(2, &pool, &err));
    commits_make(15);
    check_ok(pool_disk_eject(pool, &pool->disk[0], VP_E_IO, "test"));
    commits_make(25);
    check_ok(pool_checkpoint(pool));
    commits_make(20);
}

static void roots_that_cannot_be_read_do_not_set_the_pool_back(void **state)
{
    (void)state;
    for (uint64_t first = LABEL_READS; first < LABEL_READS + 10; first++) {
        for (unsigned faults = 1; faults < 64; faults *= 2) {
            struct sim_world *w = sim_pool_world(5, 2);
            sim_pool_run(w, create_and_eject_body, NULL);
            pool_leave();
            w = sim_pool_reboot(w, 77);
            for (unsigned i = 0; i < faults; i++)
                sim_disk_inject(sim_disk_find(w, "d1"), SIM_FAULT_ERROR, 1U << IO_READ, first + i,
                                0);
            import_twice(w, &(struct attempt){.disks = 2});
        }
    }
    assert_checked();
}

/* ---- repairs ------------------------------------------------------------------------------ */

static struct pool_page_ref page_ref;
static uint8_t page[POOL_PAGE] __attribute__((aligned(POOL_PAGE)));
static uint64_t last_batch_at; /* on the disk that fails its repair */

/* A page whose only copy left is on d0, and the log's last batch on d0 and d3. */
static void last_holder_body(void *arg)
{
    static uint64_t addr[4096];
    (void)arg;
    committed = 0;
    last_batch_at = 0;
    check_ok(sim_pool_create(4, &pool, &err));
    check_ok(pool_page_alloc(pool, 1, &addr[0]));
    memset(page, 0x5a, sizeof(page));
    page_ref = (struct pool_page_ref){.addr = addr[0], .crc = vp_crc32c(page, sizeof(page))};
    check_ok(pool_page_write(pool, addr, (void *const[]){page}, 1));
    check_ok(pool_disk_eject(pool, &pool->disk[1], VP_E_IO, "test"));
    check_ok(pool_disk_eject(pool, &pool->disk[2], VP_E_IO, "test"));
    for (unsigned n = 1; pool->meta.pages_free; n++)
        check_ok(pool_page_alloc(pool, 1, &addr[n]));
    check_ok(pool_checkpoint(pool));
    commits_make(12);
    const struct pool_segment *s = &pool->log.stream.segment;
    for (unsigned i = 0; i < s->place.copies; i++)
        if (s->place.disk[i] == 0)
            last_batch_at =
                s->place.at_bytes[i] + (uint64_t)(pool->log.stream.used_pages - 1) * POOL_PAGE;
}

static void page_body(void *arg)
{
    import_body(arg);
    if (pool)
        check_ok(pool_page_read(pool, page_ref, page));
}

static void a_repair_that_fails_does_not_eject_the_last_holder_of_metadata(void **state)
{
    (void)state;
    struct sim_world *w = sim_pool_world(3, 4);
    struct attempt a = {.disks = 4};
    sim_pool_run(w, last_holder_body, NULL);
    pool_leave();
    w = sim_pool_reboot(w, 5);
    assert_int_not_equal(last_batch_at, 0);
    memset(page, 0xee, sizeof(page));
    sim_disk_poke(sim_disk_find(w, "d0"), last_batch_at, page, sizeof(page));
    sim_disk_inject(sim_disk_find(w, "d0"), SIM_FAULT_ERROR, 1U << IO_WRITE, 0, 0);
    sim_pool_run(w, page_body, &a);
    assert_int_equal(a.rc, VP_E_POOL_FENCED);
    pool_leave();
    w = sim_pool_reboot(w, 6);
    sim_pool_run(w, page_body, &a);
    assert_int_equal(a.rc, 0);
    pool_leave();
    sim_world_free(w);
    assert_checked();
}

/* The log's last two batches lie together; where, on d1. */
static void two_batches_body(void *arg)
{
    (void)arg;
    committed = 0;
    check_ok(sim_pool_create(2, &pool, &err));
    const struct pool_stream *s = &pool->log.stream;
    do
        commits_make(KEYS + 1);
    while (s->used_pages < 2);
    const struct pool_segment *at = &s->segment;
    unsigned copy = at->place.disk[0] == 1 ? 0 : 1;
    check_equal(at->place.disk[copy], 1);
    last_batch_at = at->place.at_bytes[copy] + (uint64_t)(s->used_pages - 1) * POOL_PAGE;
}

static void d1_is_out_body(void *arg)
{
    import_body(arg);
    check(pool && pool->disk[1].state == POOL_DISK_OUT);
}

/* The first one fails; the second one would not. */
static void a_disk_that_failed_one_of_two_repairs_is_out(void **state)
{
    (void)state;
    struct sim_world *w = sim_pool_world(3, 2);
    struct attempt a = {.disks = 2};
    sim_pool_run(w, two_batches_body, NULL);
    pool_leave();
    w = sim_pool_reboot(w, 5);
    memset(page, 0xee, sizeof(page));
    for (uint64_t i = 0; i < 2; i++)
        sim_disk_poke(sim_disk_find(w, "d1"), last_batch_at - i * POOL_PAGE, page, sizeof(page));
    sim_disk_inject(sim_disk_find(w, "d1"), SIM_FAULT_ERROR, 1U << IO_WRITE, 0, 0);
    sim_pool_run(w, d1_is_out_body, &a);
    assert_int_equal(a.rc, 0);
    pool_leave();
    sim_world_free(w);
    assert_checked();
}

/* ---- other operations, and bad places ----------------------------------------------------- */

static void import_and_commit_body(void *arg)
{
    import_body(arg);
    commits_make(3);
}

/* The pool of create_body on so many disks, everything durable. With two pieces of the log the next
 * import merges them. */
static struct sim_snapshot *snapshot_of_pool(unsigned disks, unsigned pieces)
{
    struct sim_world *w = sim_pool_world(disks, disks);
    sim_pool_run(w, create_body, &disks);
    pool_leave();
    w = sim_pool_reboot(w, 77);
    if (pieces == 2) {
        sim_pool_run(w, import_and_commit_body, &(struct attempt){.disks = disks});
        assert_int_equal(pool->root.now.pieces, 2);
        pool_leave();
        w = sim_pool_reboot(w, 78);
    }
    struct sim_snapshot *s = sim_snapshot_take(w);
    sim_world_free(w);
    return s;
}

static void writes_and_flushes_that_fail_lose_no_commit(void **state)
{
    static const enum io_kind kinds[] = {IO_WRITE, IO_FLUSH};
    (void)state;
    for (unsigned pool_of = 0; pool_of < 6; pool_of++) {
        unsigned disks = 1 + pool_of % 3;
        struct sim_snapshot *s = snapshot_of_pool(disks, 1 + pool_of / 3);
        for (uint64_t n = 0; n < READS; n++) {
            for (unsigned k = 0; k < 4; k++) {
                struct sim_world *w = sim_world_from_snapshot(s, NULL, n);
                for (unsigned i = 0; i < (k < 2 ? 1 : READS); i++)
                    sim_disk_inject(sim_disk_find(w, "d0"), SIM_FAULT_ERROR, 1U << kinds[k % 2],
                                    n + i, 0);
                import_twice(w, &(struct attempt){.disks = disks});
            }
        }
        sim_snapshot_free(s);
    }
    assert_checked();
}

static void a_page_that_cannot_be_read_loses_no_commit(void **state)
{
    (void)state;
    for (unsigned disks = 1; disks <= 2; disks++) {
        struct sim_snapshot *s = snapshot_of_pool(disks, 1);
        for (uint64_t at = 0; at < SIM_POOL_DISK_BYTES; at += POOL_PAGE) {
            struct sim_world *w = sim_world_from_snapshot(s, NULL, at);
            sim_disk_set_unreadable(sim_disk_find(w, "d0"), at);
            if (disks > 1)
                sim_disk_set_unreadable(sim_disk_find(w, "d1"), at);
            import_twice(w, &(struct attempt){.disks = disks});
        }
        sim_snapshot_free(s);
    }
    assert_checked();
}

/* ---- a bad page on each of two mirrors ------------------------------------------------------ */

enum { BIG_KEYS = 220, BIG_FROM = 100 };

static unsigned big_keys_found;

/* A commit of two pages. */
static void big_commit(uint64_t value)
{
    struct pool_batch b;
    struct le64 le = le64_make(value);
    pool_batch_init(&b);
    for (uint64_t i = 0; i < BIG_KEYS; i++)
        pool_batch_set(&b, POOL_RECORD_COUNTER, 0, BIG_FROM + i, &le, sizeof(le));
    check_ok(pool_commit(pool, &b));
    pool_batch_fini(&b);
}

struct log_end {
    unsigned commits; /* of one page each                */
    bool big;         /* and one of two pages behind them */
};

static void log_end_body(void *arg)
{
    const struct log_end *end = arg;
    committed = 0;
    check_ok(sim_pool_create(2, &pool, &err));
    commits_make(KEYS + end->commits);
    if (end->big)
        big_commit(committed);
}

static void import_log_end_body(void *arg)
{
    import_body(arg);
    for (uint64_t i = 0; pool && i < BIG_KEYS; i++) {
        uint64_t found_value = sim_pool_counter(pool, BIG_FROM + i);
        check(found_value == UINT64_MAX || found_value == committed);
        big_keys_found += found_value == committed;
    }
}

/* One page of the open segment is bad for good on d0, and another one on d1. */
static int import_with_bad_pages(const struct sim_snapshot *s, const struct pool_place *segment,
                                 unsigned page0, unsigned page1)
{
    struct sim_world *w = sim_world_from_snapshot(s, NULL, page0);
    for (unsigned i = 0; i < segment->copies; i++) {
        unsigned d = segment->disk[i];
        sim_disk_set_unreadable(sim_disk_find(w, d ? "d1" : "d0"),
                                segment->at_bytes[i] + (d ? page1 : page0) * (uint64_t)POOL_PAGE);
    }
    struct attempt a = {.disks = 2};
    big_keys_found = 0;
    sim_pool_run(w, import_log_end_body, &a);
    pool_leave();
    sim_world_free(w);
    return a.rc;
}

/* True: some pair refused the import. */
static bool bad_pages_in_pairs(const struct log_end *end)
{
    struct sim_world *w = sim_pool_world(5, 2);
    sim_pool_run(w, log_end_body, (void *)end);
    const struct pool_segment *at = &pool->log.stream.segment;
    struct pool_place segment = at->place;
    unsigned pages = at->pages;
    bool refused = false;
    assert_int_equal(segment.copies, 2);
    pool_leave();
    w = sim_pool_reboot(w, 77);
    struct sim_snapshot *s = sim_snapshot_take(w);
    sim_world_free(w);
    for (unsigned i = 0; i < pages * pages; i++) {
        if (i / pages == i % pages)
            continue;
        int rc = import_with_bad_pages(s, &segment, i / pages, i % pages);
        assert_true(rc == 0 || (end->big && rc == VP_E_LOG_UNREADABLE));
        assert_int_equal(big_keys_found, !rc && end->big ? BIG_KEYS : 0);
        refused |= rc != 0;
    }
    sim_snapshot_free(s);
    return refused;
}

/* Commits of one page have a good copy somewhere. One of two pages may have none; then nobody knows
 * that the log ends there, and the import is refused. */
static void bad_pages_at_different_places_of_two_mirrors_lose_no_commit(void **state)
{
    (void)state;
    bool refused = false;
    for (unsigned commits = 0; commits < 8; commits++) {
        bad_pages_in_pairs(&(struct log_end){.commits = commits});
        refused |= bad_pages_in_pairs(&(struct log_end){.commits = commits, .big = true});
    }
    assert_true(refused);
    assert_checked();
}

static void commit_into_a_new_segment_body(void *arg)
{
    (void)arg;
    committed = 0;
    check_ok(sim_pool_create(1, &pool, &err));
    commits_make(KEYS);
    while (pool->log.stream.used_pages != 1)
        commits_make(1);
}

/* A bad page where nothing was written yet does not hide what stands before it. */
static void a_bad_page_behind_the_end_of_the_log_is_no_obstacle(void **state)
{
    (void)state;
    struct sim_world *w = sim_pool_world(5, 1);
    sim_pool_run(w, commit_into_a_new_segment_body, NULL);
    const struct pool_segment *s = &pool->log.stream.segment;
    uint64_t at = s->place.at_bytes[0] + (uint64_t)(s->pages - 1) * POOL_PAGE;
    pool_leave();
    w = sim_pool_reboot(w, 77);
    sim_disk_set_unreadable(sim_disk_find(w, "d0"), at);
    struct attempt a = {.disks = 1};
    sim_pool_run(w, import_body, &a);
    assert_int_equal(a.rc, 0);
    pool_leave();
    sim_world_free(w);
    assert_checked();
}

/* ---- the log's tail ------------------------------------------------------------------------ */

static struct sim_snapshot *moment[400];
static unsigned moments;
static uint64_t found;

static bool moment_take(struct sim_world *w, uint64_t event, void *arg)
{
    (void)event;
    (void)arg;
    if (moments < sizeof(moment) / sizeof(moment[0]))
        moment[moments++] = sim_snapshot_take(w);
    return true;
}

static void commit_one_by_one_body(void *arg)
{
    struct sim_world *w = arg;
    check_ok(sim_pool_create(1, &pool, &err));
    sim_world_on_event(w, moment_take, NULL);
    for (uint64_t i = 1; i <= 9; i++) /* into a third segment */
        check_ok(sim_pool_commit_counter(pool, 1, i));
    sim_world_on_event(w, NULL, NULL);
}

static void import_counter_body(void *arg)
{
    (void)arg;
    check_ok(sim_pool_import(1, NULL, &pool, &err));
    found = pool ? sim_pool_counter(pool, 1) : 0;
}

/* What an import found in a disk's cache is durable without its flush, which may follow a failed
 * one (GUARD_LOG_TAIL_WRITTEN): the last batch, and the JUMP that leads to it. */
static void the_tail_that_was_found_is_there_after_a_power_cut(void **state)
{
    (void)state;
    static struct sim_choice all[64];
    struct sim_world *w = sim_pool_world(5, 1);
    moments = 0;
    sim_pool_run(w, commit_one_by_one_body, w);
    pool_leave();
    sim_world_free(w);
    for (unsigned i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        all[i].fate = SIM_KEEP;
    for (unsigned i = 0; i < moments; i++) {
        assert_in_range(sim_snapshot_pending(moment[i]), 0, sizeof(all) / sizeof(all[0]));
        w = sim_world_after_kill(moment[i], all, i);
        io_guard_disabled[GUARD_IMPORT_FLUSH] = true;
        sim_pool_run(w, import_counter_body, NULL);
        io_guard_disabled[GUARD_IMPORT_FLUSH] = false;
        pool_leave();
        uint64_t first = found;
        w = sim_pool_power_cut(w, i);
        sim_pool_run(w, import_counter_body, NULL);
        pool_leave();
        assert_int_equal(found, first);
        sim_world_free(w);
        sim_snapshot_free(moment[i]);
    }
    assert_checked();
}

/* ---- set back ----------------------------------------------------------------------------- */

static uint8_t old_image[SIM_POOL_DISK_BYTES];

static void create_and_checkpoint_body(void *arg)
{
    (void)arg;
    committed = 0;
    check_ok(sim_pool_create(2, &pool, &err));
    commits_make(15);
    check_ok(pool_checkpoint(pool));
}

static void import_and_checkpoint_body(void *arg)
{
    struct attempt *a = arg;
    import_body(a);
    if (!pool)
        return;
    commits_make(15);
    check_ok(pool_checkpoint(pool));
    commits_make(3);
}

static void set_back_body(void *arg)
{
    import_body(arg);
    check(pool && pool->disk[0].state == POOL_DISK_OUT && pool->disk[1].state == POOL_DISK_ONLINE);
    check(pool && strstr(pool->disk[0].reason, "older state"));
}

static void a_disk_that_was_set_back_is_out_by_name(void **state)
{
    (void)state;
    struct attempt a = {.disks = 2};
    struct sim_world *w = sim_pool_world(5, 2);
    sim_pool_run(w, create_and_checkpoint_body, NULL);
    pool_leave();
    w = sim_pool_reboot(w, 6);
    sim_disk_peek(sim_disk_find(w, "d0"), 0, old_image, sizeof(old_image));
    sim_pool_run(w, import_and_checkpoint_body, &a);
    assert_int_equal(a.rc, 0);
    pool_leave();
    w = sim_pool_reboot(w, 7);
    sim_disk_poke(sim_disk_find(w, "d0"), 0, old_image, sizeof(old_image));
    sim_pool_run(w, set_back_body, &a);
    assert_int_equal(a.rc, 0);
    pool_leave();
    sim_world_free(w);
    assert_checked();
}

/* ---- a disk that does not answer ------------------------------------------------------------- */

#define SECONDS(n) (UINT64_C(1000000000) * (n))

/* Read `nth` of d1 takes very long, and the pool goes on without it. */
static void silent_body(void *arg)
{
    const char *path[] = {"d0", "d1"};
    struct sim_disk *d1 = sim_disk_find(arg, "d1");
    uint64_t began = sim_now_ns(arg);
    vp_ignore(pool_import(path + 1, 1, 0, NULL, &pool, &err), "looked at below");
    check_equal(err.rc, VP_E_TIMED_OUT);
    check(strstr(err.text, "d1 does not answer") != NULL);
    uint64_t alone = sim_now_ns(arg);
    check(alone - began < SECONDS(21));
    check_ok(sim_pool_import(2, NULL, &pool, &err)); /* d1 is known to be silent */
    check(sim_now_ns(arg) - alone < SECONDS(1));
    check(pool && pool->disk[1].state == POOL_DISK_OUT && pool_disks_out(pool) == 1);
    check(commits_lost() == 0);
    check(sim_disk_ops(d1, IO_WRITE) == 0);
    vp_ignore(co_sleep_ns(SECONDS(200)), "until it answers");
    check(!pool_is_fenced(pool));
}

static void an_import_waits_a_while_for_a_silent_disk_and_goes_on_without_it(void **state)
{
    (void)state;
    for (unsigned nth = 0; nth < LABEL_READS + 2; nth++) { /* of labels, of roots */
        struct sim_world *w = sim_pool_world(5, 2);
        sim_pool_run(w, create_and_checkpoint_body, NULL);
        pool_leave();
        w = sim_pool_reboot(w, 6);
        sim_disk_inject(sim_disk_find(w, "d1"), SIM_FAULT_STALL, 1 << IO_READ, nth, SECONDS(100));
        sim_pool_run(w, silent_body, w);
        pool_leave();
        sim_world_free(w);
        assert_checked();
    }
}

/* A disk that left goes on with what has no other copy there; the pool's roots tell the disk from
 * an image of it, also from one that was made after it had left (root.c, R4). */
static void eject_and_go_on_body(void *arg)
{
    struct sim_world *w = arg;
    committed = 0;
    check_ok(sim_pool_create(2, &pool, &err));
    commits_make(15);
    check_ok(pool_disk_eject(pool, &pool->disk[0], VP_E_IO, "test"));
    sim_disk_peek(sim_disk_find(w, "d0"), 0, old_image, sizeof(old_image));
    for (unsigned i = 0; i < 3; i++)
        check_ok(pool_checkpoint(pool));
}

static void import_an_image_of_it(bool image, bool served)
{
    struct attempt a = {.disks = 2};
    struct sim_world *w = sim_pool_world(5, 2);
    sim_pool_run(w, eject_and_go_on_body, w);
    pool_leave();
    w = sim_pool_reboot(w, 6);
    if (image)
        sim_disk_poke(sim_disk_find(w, "d0"), 0, old_image, sizeof(old_image));
    sim_pool_run(w, import_body, &a);
    assert_int_equal(a.rc, 0);
    assert_int_equal(raid_disk_is_data_only(&pool->disk[0].io), served);
    pool_leave();
    sim_world_free(w);
    assert_checked();
}

static void an_image_of_a_disk_that_had_left_is_not_served(void **state)
{
    (void)state;
    import_an_image_of_it(false, true);
    import_an_image_of_it(true, false);
}

/* ---- crashes in a row --------------------------------------------------------------------- */

enum { ROOTS_BYTES = POOL_ROOT_SLOTS * ROOT_BYTES };

static void roots_peek(struct sim_world *w, const char *disk, uint64_t area, uint8_t *roots)
{
    sim_disk_peek(sim_disk_find(w, disk), area + POOL_ROOT_AT, roots, ROOTS_BYTES);
}

static void roots_poke(struct sim_world *w, const char *disk, uint64_t area, const uint8_t *roots)
{
    sim_disk_poke(sim_disk_find(w, disk), area + POOL_ROOT_AT, roots, ROOTS_BYTES);
}

/* A pool of two disks whose newest root got no further than to the head of d0. */
static struct sim_snapshot *snapshot_of_half_a_root(void)
{
    static uint8_t head[ROOTS_BYTES], tail[ROOTS_BYTES];
    const uint64_t tail_at = SIM_POOL_DISK_BYTES - POOL_LABEL_AREA;
    struct sim_world *w = sim_pool_world(5, 2);
    sim_pool_run(w, create_and_checkpoint_body, NULL);
    pool_leave();
    w = sim_pool_reboot(w, 6);
    roots_peek(w, "d1", 0, head);
    roots_peek(w, "d1", tail_at, tail);
    sim_pool_run(w, import_body, &(struct attempt){.disks = 2});
    pool_leave();
    w = sim_pool_reboot(w, 7);
    roots_poke(w, "d0", tail_at, tail);
    roots_poke(w, "d1", tail_at, tail);
    roots_poke(w, "d1", 0, head);
    struct sim_snapshot *s = sim_snapshot_take(w);
    sim_world_free(w);
    return s;
}

static uint64_t events_left;

static bool event_is_left(struct sim_world *w, uint64_t event, void *arg)
{
    (void)w;
    (void)event;
    (void)arg;
    return events_left && --events_left;
}

static void import_online_body(void *arg)
{
    import_body(arg);
    check(pool && strcmp(pool_state(pool), "online") == 0);
}

/* All that was in flight is kept, but for write `dropped`. */
static void import_after_a_cut(const struct sim_snapshot *cut, unsigned dropped)
{
    enum { PENDING_MAX = 256 };
    static struct sim_choice choices[PENDING_MAX];
    assert_true(sim_snapshot_pending(cut) <= PENDING_MAX);
    for (unsigned i = 0; i < sim_snapshot_pending(cut); i++)
        choices[i].fate = i == dropped ? SIM_DROP : SIM_KEEP;
    struct sim_world *w = sim_world_from_snapshot(cut, choices, dropped);
    sim_pool_run(w, import_online_body, &(struct attempt){.disks = 2});
    pool_leave();
    sim_world_free(w);
}

static void crashes_in_a_row_do_not_make_a_disk_look_set_back(void **state)
{
    (void)state;
    struct sim_snapshot *s = snapshot_of_half_a_root();
    bool cut = true;
    for (uint64_t n = 1; cut; n++) {
        struct sim_world *w = sim_world_from_snapshot(s, NULL, n);
        events_left = n;
        sim_world_on_event(w, event_is_left, NULL);
        sim_pool_run(w, import_body, &(struct attempt){.disks = 2});
        cut = !events_left;
        pool_leave();
        struct sim_snapshot *at = sim_snapshot_take(w);
        for (unsigned i = 0; i <= sim_snapshot_pending(at); i++)
            import_after_a_cut(at, i);
        sim_snapshot_free(at);
        sim_world_free(w);
    }
    sim_snapshot_free(s);
    assert_checked();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_read_that_fails_once_loses_no_commit),
        cmocka_unit_test(with_a_disk_missing_a_read_that_fails_loses_no_commit),
        cmocka_unit_test(reads_that_fail_from_some_moment_on_lose_no_commit),
        cmocka_unit_test(roots_that_cannot_be_read_do_not_set_the_pool_back),
        cmocka_unit_test(writes_and_flushes_that_fail_lose_no_commit),
        cmocka_unit_test(a_page_that_cannot_be_read_loses_no_commit),
        cmocka_unit_test(bad_pages_at_different_places_of_two_mirrors_lose_no_commit),
        cmocka_unit_test(a_bad_page_behind_the_end_of_the_log_is_no_obstacle),
        cmocka_unit_test(the_tail_that_was_found_is_there_after_a_power_cut),
        cmocka_unit_test(a_disk_that_was_set_back_is_out_by_name),
        cmocka_unit_test(an_import_waits_a_while_for_a_silent_disk_and_goes_on_without_it),
        cmocka_unit_test(an_image_of_a_disk_that_had_left_is_not_served),
        cmocka_unit_test(crashes_in_a_row_do_not_make_a_disk_look_set_back),
        cmocka_unit_test(a_disk_that_failed_one_of_two_repairs_is_out),
        cmocka_unit_test(a_repair_that_fails_does_not_eject_the_last_holder_of_metadata),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Metadata groups: forming them, what they leave to data, and memory that runs out (meta.c). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "pool/disk_impl.h"
#include "pool/meta_impl.h"
#include "tests/lib/failing_malloc.h"
#include "tests/lib/on_reactor.h"
#include "tests/lib/sim_pool.h"

static struct pool *pool;
static const struct raid_profile mirror = {RAID_MIRROR, 1, 1};

/* ---- memory that runs out ------------------------------------------------------------------ */

enum { ALLOCATIONS = 12 }; /* of forming a group: fewer */
static unsigned failures;

static unsigned groups_in_memory(void)
{
    unsigned n = 0;
    const struct pool_group *g;
    list_for_each (g, &pool->groups, link)
        n++;
    list_for_each (g, &pool->meta_groups, link)
        n++;
    return n;
}

static unsigned groups_with_record(void)
{
    unsigned n = 0;
    struct pool_record r;
    for (uint64_t id = 1; id < 32; id++)
        n += pool_record_get(pool, POOL_RECORD_GROUP, 0, id, &r);
    return n;
}

static void form_without_memory(void *arg)
{
    static uint64_t addr[4096];
    static uint8_t page[POOL_PAGE] __attribute__((aligned(POOL_PAGE)));
    void *pages[] = {page};
    unsigned n = 0;
    check_ok(sim_pool_create(2, &pool, NULL));
    while (pool->meta.pages_free)
        check_ok(pool_page_alloc(pool, 1, &addr[n++]));
    fail_in = *(long *)arg;
    int rc = pool_page_alloc(pool, 1, &addr[n]);
    fail_in = -1;
    failures += rc != 0;
    check_equal(groups_in_memory(), groups_with_record());
    if (rc)
        check_ok(pool_page_alloc(pool, 1, &addr[n]));
    check_ok(pool_page_write(pool, &addr[n], pages, 1));
    check_equal(groups_in_memory(), groups_with_record());
    check_ok(pool_checkpoint(pool));
}

static void import(void *arg)
{
    (void)arg;
    check_ok(sim_pool_import(2, NULL, &pool, NULL));
}

static void a_group_for_which_memory_runs_out_is_not_used_without_its_record(void **state)
{
    (void)state;
    for (long k = 0; k < ALLOCATIONS; k++) {
        struct sim_world *w = sim_pool_world(3, 2);
        sim_pool_run(w, form_without_memory, &k);
        pool_abandon(pool);
        w = sim_pool_reboot(w, 5);
        sim_pool_run(w, import, NULL);
        pool_abandon(pool);
        sim_world_free(w);
    }
    assert_true(failures >= 3);
    assert_checked();
}

/* ---- room ---------------------------------------------------------------------------------- */

static void metadata_take_what_data_leave(void *arg)
{
    (void)arg;
    struct pool_arena arena;
    uint64_t addr;
    unsigned n = 0;
    check_ok(sim_pool_create(2, &pool, NULL));
    while (pool_meta_has_room(pool, 1) && !pool_page_alloc(pool, 1, &addr))
        n++;
    check(n > 3 * SIM_POOL_DISK_BYTES / 4 / POOL_PAGE / 2); /* of six groups */
    struct pool_space s;
    pool_space_get(pool, &s);
    check_equal(pool_arena_lease(pool, 7, mirror, 0, &arena), VP_E_NO_SPACE);
    for (uint64_t i = 0; i < 100; i++)
        check_ok(sim_pool_commit_counter(pool, i % 10, i));
    for (unsigned i = 0; i < 3; i++)
        check_ok(pool_checkpoint(pool));
}

static void metadata_grow_while_extents_are_free_and_keep_what_a_checkpoint_needs(void **state)
{
    (void)state;
    struct sim_world *w = sim_pool_world(3, 2);
    sim_pool_run(w, metadata_take_what_data_leave, NULL);
    pool_abandon(pool);
    sim_world_free(w);
    assert_checked();
}

/* ---- room below ----------------------------------------------------------------------------- */

/* Whether each group has its room in the file systems below both disks. */
static void check_preallocated(struct sim_world *w, uint64_t groups)
{
    uint64_t bytes = groups * pool->geometry.extent_bytes;
    check_equal(sim_disk_preallocated(sim_disk_find(w, "d0")), bytes);
    check_equal(sim_disk_preallocated(sim_disk_find(w, "d1")), bytes);
}

static void grow_over_full_file_system(void *arg)
{
    struct sim_world *w = arg;
    uint64_t addr;
    check_ok(sim_pool_create(2, &pool, NULL));
    check_preallocated(w, 1);
    while (pool->meta.groups < 2)
        check_ok(pool_page_alloc(pool, 1, &addr));
    check_preallocated(w, 1);
    check_ok(pool_checkpoint(pool));
    check_preallocated(w, 2);

    while (pool->meta.groups < 3)
        check_ok(pool_page_alloc(pool, 1, &addr));
    sim_disk_inject(sim_disk_find(w, "d0"), SIM_FAULT_FULL, 1U << IO_WRITE, 0, 500000000);
    check_ok(sim_pool_commit_counter(pool, 1, 1)); /* waits for room; then there is some */
    check_ok(pool_checkpoint(pool));
    check(!pool->meta.full_below);
    check_preallocated(w, 3);
}

static void full_at_the_checkpoint(void *arg)
{
    struct sim_world *w = arg;
    struct sim_disk *d1 = sim_disk_find(w, "d1");
    uint64_t addr;
    check_ok(sim_pool_create(2, &pool, NULL));
    while (pool->meta.groups < 2)
        check_ok(pool_page_alloc(pool, 1, &addr));
    sim_disk_inject(d1, SIM_FAULT_FULL, 1U << IO_READ, 0, 500000000);
    uint8_t *page = aligned_alloc(POOL_PAGE, POOL_PAGE);
    check_ok(io_dev_read(pool->disk[1].io.dev, 0, page, POOL_PAGE)); /* from now on it is full */
    free(page);
    check_ok(pool_checkpoint(pool));
    check(pool->meta.full_below);
    check_equal(sim_disk_preallocated(d1), pool->geometry.extent_bytes);
    check(!strcmp(pool_state(pool), "online"));
    check_ok(pool_checkpoint(pool));
    check(!pool->meta.full_below);
    check_equal(sim_disk_preallocated(d1), 2 * pool->geometry.extent_bytes);
}

static void each_metadata_group_gets_its_room_below_at_the_next_checkpoint(void **state)
{
    (void)state;
    static void (*const body[])(void *) = {grow_over_full_file_system, full_at_the_checkpoint};
    for (unsigned i = 0; i < 2; i++) {
        struct sim_world *w = sim_pool_world(3, 2);
        sim_pool_run(w, body[i], w);
        pool_abandon(pool);
        sim_world_free(w);
    }
    assert_checked();
}

/* ---- disks of different sizes -------------------------------------------------------------- */

static const char *const disk_name[] = {"d0", "d1", "d2", "d3"};

static struct sim_world *world_of(const uint64_t *mib, unsigned disks)
{
    struct sim_world *w = sim_world_new(9);
    for (unsigned i = 0; i < disks; i++) {
        struct sim_disk_config c = {.name = disk_name[i],
                                    .size_bytes = mib[i] << 20,
                                    .sector_bytes = 512,
                                    .atomic_bytes = 4096,
                                    .write_cache = true,
                                    .latency_min_ns = 1000,
                                    .latency_max_ns = 50000};
        (void)sim_disk_add(w, &c);
    }
    return w;
}

struct disks {
    uint64_t mib[4];
    unsigned count;
    bool eject; /* the first one */
};

static void lease_a_quarter(void *arg)
{
    const struct disks *d = arg;
    struct pool_create_options o = {
        .name = "tank",
        .profile = mirror,
        .force = true,
        .geometry = {.chunk_bytes = 64 << 10},
    };
    struct pool_arena a;
    check_ok(pool_create(&o, disk_name, d->count, &pool, NULL));
    if (d->eject)
        check_ok(pool_disk_eject(pool, &pool->disk[0], VP_E_IO, "a test"));
    uint64_t bytes = 0;
    for (unsigned i = 0; bytes < d->mib[1] << 18; i++) {
        if (!check(pool_arena_lease(pool, 7, mirror, i, &a) == 0))
            return;
        bytes += (uint64_t)a.chunks * o.geometry.chunk_bytes;
    }
    struct pool_space s;
    pool_space_get(pool, &s);
    check_equal(s.level, POOL_OK);
}

static void a_small_disk_does_not_keep_data_from_the_large_ones(void **state)
{
    (void)state;
    struct disks d[] = {
        {{256, 256, 16}, 3, false},
        {{256, 256, 8}, 3, false},
        {{1024, 1024, 1024, 32}, 4, true},
    };
    for (unsigned i = 0; i < 3; i++) {
        struct sim_world *w = world_of(d[i].mib, d[i].count);
        sim_pool_run(w, lease_a_quarter, &d[i]);
        pool_abandon(pool);
        sim_world_free(w);
    }
    assert_checked();
}

static void lease_all(void *arg)
{
    (void)arg;
    struct pool_create_options o = {
        .name = "tank", .profile = mirror, .force = true, .geometry = {.chunk_bytes = 64 << 10}};
    struct pool_arena a;
    struct pool_space s;
    check_ok(pool_create(&o, disk_name, 3, &pool, NULL));
    for (unsigned i = 0; !pool_arena_lease(pool, 7, mirror, i, &a); i++)
        ;
    pool_space_get(pool, &s);
    check(s.free_bytes > s.total_bytes / 2);
    check_equal(s.level, POOL_FULL);
}

static void free_space_on_one_disk_is_no_room_for_a_mirror(void **state)
{
    (void)state;
    const uint64_t mib[] = {64, 64, 1024};
    struct sim_world *w = world_of(mib, 3);
    sim_pool_run(w, lease_all, NULL);
    pool_abandon(pool);
    sim_world_free(w);
    assert_checked();
}

/* Metadata groups of three copies, until the third disk is full. */
static void take_pages_of_a_full_third_disk(void *arg)
{
    (void)arg;
    struct pool_create_options o = {
        .name = "tank", .profile = mirror, .force = true, .geometry = {.chunk_bytes = 64 << 10}};
    uint64_t addr;
    check_ok(pool_create(&o, disk_name, 3, &pool, NULL));
    const struct pool_disk *third = &pool->disk[2];
    const struct pool_group *g = list_first(&pool->meta_groups, struct pool_group, link);
    check_equal(g->raid->width, 3);
    while (third->extents_used < third->extents_total)
        if (!check(pool_page_alloc(pool, 1, &addr) == 0))
            return;
    unsigned groups = pool->meta.groups;
    while (pool->meta.groups == groups)
        if (!check(pool_page_alloc(pool, 1, &addr) == 0))
            return;
    unsigned of_two = 0;
    list_for_each (g, &pool->meta_groups, link) {
        check(g->raid->width == 3 || g->raid->width == 2);
        of_two += g->raid->width == 2;
        check(g->raid->width == 3 || (g->raid->disk[0]->index < 2 && g->raid->disk[1]->index < 2 &&
                                      g->raid->disk[0]->index != g->raid->disk[1]->index));
    }
    check_equal(of_two, 1);
    check_ok(sim_pool_commit_counter(pool, 1, 1));
    check_ok(pool_checkpoint(pool));
}

static void where_the_third_disk_is_full_a_new_group_has_two_copies(void **state)
{
    (void)state;
    const uint64_t mib[] = {64, 64, 16};
    struct sim_world *w = world_of(mib, 3);
    sim_pool_run(w, take_pages_of_a_full_third_disk, NULL);
    pool_abandon(pool);
    sim_world_free(w);
    assert_checked();
}

/* Data have room all the time: an arena is leased, and more of its group is free. */
static void metadata_fill_up(void *arg)
{
    (void)arg;
    struct pool_arena arena;
    struct pool_space s;
    uint64_t addr;
    bool was_tight = false;
    struct pool_create_options o = {.name = "tank",
                                    .profile = mirror,
                                    .force = true,
                                    .geometry = {.chunk_bytes = 16 << 10, .extent_bytes = 8 << 20}};
    check_ok(pool_create(&o, disk_name, 2, &pool, NULL));
    check_ok(pool_arena_lease(pool, 7, mirror, 0, &arena));
    pool_space_get(pool, &s);
    check_equal(s.level, POOL_OK);
    while (pool_meta_has_room(pool, 1) && !pool_page_alloc(pool, 1, &addr)) {
        pool_space_get(pool, &s);
        bool tight = pool_meta_groups_formable(pool) <= 1 && s.meta_pages_room &&
                     s.meta_pages_room < s.meta_pages_total / 100 * 5;
        check(s.meta_pages_room == 0 ? s.level == POOL_FULL
              : tight                ? s.level == POOL_TIGHT
                                     : s.level <= POOL_WARN);
        was_tight |= tight;
    }
    check(was_tight);
    check_equal(s.meta_pages_room, 0);
    check_equal(s.level, POOL_FULL);
    pool_space_update_level(pool);
    check_equal(pool_level(pool), POOL_FULL);
    check(s.writable_bytes > 0);
}

static void metadata_without_room_make_a_pool_tight_and_full(void **state)
{
    (void)state;
    const uint64_t mib[] = {64, 64};
    struct sim_world *w = world_of(mib, 2);
    sim_pool_run(w, metadata_fill_up, NULL);
    pool_abandon(pool);
    sim_world_free(w);
    assert_checked();
}

/* ---- where pages lie ----------------------------------------------------------------------- */

static int no_checkpoint(void *arg)
{
    (void)arg;
    return *(const int *)arg;
}

/* Pages of a small tree, written again and again. Checkpoints fail with `rc`, if it is not 0. */
static void pages_come_and_go(void *arg)
{
    struct pool_client c = {.checkpoint = no_checkpoint, .arg = arg};
    uint64_t addr[8], last = 0;
    check_ok(sim_pool_create(2, &pool, NULL));
    pool_set_client(pool, &c);
    for (unsigned i = 0; i < 100; i++) {
        check_ok(pool_page_alloc(pool, 8, addr));
        pool_page_release(pool, addr, 8);
        check_equal(pool_checkpoint(pool), *(const int *)arg);
        last = max_u64(last, addr[7]);
    }
    /* At the front, where they leave the log whole segments behind them. */
    check((last & ((1U << POOL_META_PAGES_BITS) - 1)) < 64);
    check_equal(pool->meta.groups, 1);
}

static void single_pages_stay_at_the_front_of_a_group(void **state)
{
    (void)state;
    struct sim_world *w = sim_pool_world(3, 2);
    sim_pool_run(w, pages_come_and_go, &(int){0});
    pool_abandon(pool);
    sim_world_free(w);
    assert_checked();
}

static void free_pages_are_found(void *arg)
{
    uint64_t first, addr[64];
    struct pool_batch b;
    (void)arg;
    check_ok(sim_pool_create(2, &pool, NULL));
    check_ok(pool_page_alloc(pool, 1, &first));
    while (pool->meta.pages_free || pool->meta.formable_pages)
        check_ok(pool_page_alloc(pool, 1, addr));
    /* in the first group, where the last search did not begin */
    pool_batch_init(&b);
    pool_page_release(pool, &first, 1);
    for (unsigned i = 0; i < pool->meta.groups; i++)
        pool_meta_encode(pool, pool->meta.group[i], 0,
                         &b); /* a checkpoint does; there is no room for one */
    pool_meta_commit(pool);
    pool_batch_fini(&b);
    /* those that were taken before the rest could not be had */
    check_equal(pool_page_alloc(pool, 64, addr), VP_E_POOL_FULL_META);
    check_ok(pool_page_alloc(pool, 1, addr));
    check_equal(addr[0], first);
}

static void pages_that_came_free_are_found(void **state)
{
    (void)state;
    struct sim_world *w = sim_pool_world(3, 2);
    sim_pool_run(w, free_pages_are_found, NULL);
    pool_abandon(pool);
    sim_world_free(w);
    assert_checked();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_group_for_which_memory_runs_out_is_not_used_without_its_record),
        cmocka_unit_test(metadata_grow_while_extents_are_free_and_keep_what_a_checkpoint_needs),
        cmocka_unit_test(each_metadata_group_gets_its_room_below_at_the_next_checkpoint),
        cmocka_unit_test(metadata_without_room_make_a_pool_tight_and_full),
        cmocka_unit_test(a_small_disk_does_not_keep_data_from_the_large_ones),
        cmocka_unit_test(free_space_on_one_disk_is_no_room_for_a_mirror),
        cmocka_unit_test(where_the_third_disk_is_full_a_new_group_has_two_copies),
        cmocka_unit_test(single_pages_stay_at_the_front_of_a_group),
        cmocka_unit_test(pages_that_came_free_are_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Extents, groups and arenas: leases, their records, room, figures, hostile records. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "io/guard.h"
#include "pool/disk_impl.h"
#include "pool/group_format.h"
#include "tests/lib/on_reactor.h"
#include "tests/lib/pool_audit.h"
#include "tests/lib/sim_pool.h"

enum { LEASES_MAX = 512 };

static const struct raid_profile single = {RAID_SINGLE, 1, 0};
static const struct raid_profile mirror = {RAID_MIRROR, 1, 1};

static struct sim_world *world;
static unsigned disk_total;

static void in_world(unsigned disks, void (*body)(void *arg))
{
    disk_total = disks;
    world = sim_pool_world(5, disks);
    sim_pool_run(world, body, NULL);
    sim_world_free(world);
    assert_checked();
}

static struct pool *open_new(void)
{
    struct pool *p = NULL;
    check_ok(sim_pool_create(disk_total, &p, NULL));
    return p;
}

/* After a crash (nothing in flight is kept from memory), or a clean close. */
static struct pool *open_again(struct pool *p, bool crash)
{
    if (crash)
        pool_abandon(p);
    else
        check_ok(pool_close(p, false));
    check_ok(sim_pool_import(disk_total, NULL, &p, NULL));
    return p;
}

/* Leases until there is no room; returns how many. */
static unsigned fill(struct pool *p, uint32_t owner, struct raid_profile profile,
                     struct pool_arena *out)
{
    unsigned n = 0;
    int rc = 0;
    while (n < LEASES_MAX && (rc = pool_arena_lease(p, owner, profile, n, &out[n])) == 0)
        n++;
    check_equal(rc, VP_E_NO_SPACE);
    return n;
}

static void check_figures(struct pool *p)
{
    const char *wrong = pool_audit(p);
    if (wrong)
        print_error("%s\n", wrong);
    check(!wrong);
}

static struct pool_arena arena[LEASES_MAX];

/* ---- places -------------------------------------------------------------------------------- */

static void body_places(void *arg)
{
    (void)arg;
    static uint8_t taken[4][SIM_POOL_DISK_BYTES / (64 << 10)];
    memset(taken, 0, sizeof(taken));
    struct pool *p = open_new();
    unsigned n = fill(p, 7, mirror, arena);
    check(n > 0);
    for (unsigned i = 0; i < n; i++)
        for (unsigned c = 0; c < arena[i].chunks; c++) {
            struct raid_group *g;
            uint64_t at;
            check(pool_chunk_locate(p, pchunk_make(arena[i].number, c), &g, &at));
            check(g == arena[i].group);
            check_equal(at, arena[i].at_bytes + ((uint64_t)c << 16));
            for (unsigned m = 0; m < g->width; m++) {
                uint64_t byte = g->base_bytes[m] + at;
                check(byte >= POOL_LABEL_AREA &&
                      byte + (64 << 10) <= SIM_POOL_DISK_BYTES - POOL_LABEL_AREA);
                check(!taken[g->disk[m]->index][byte >> 16]++);
            }
        }
    check_figures(p);
    check_ok(pool_close(p, false));
}
static void no_two_chunks_share_a_place(void **state)
{
    (void)state;
    in_world(4, body_places);
}

static void body_garbage(void *arg)
{
    (void)arg;
    struct pool *p = open_new();
    struct raid_group *g;
    struct pool_arena a;
    uint64_t at;
    check_ok(pool_arena_lease(p, 1, single, 0, &a));
    check(!pool_chunk_locate(p, (struct pchunk){0}, &g, &at));
    check(!pool_chunk_locate(p, (struct pchunk){UINT64_MAX}, &g, &at));
    check(!pool_chunk_locate(p, pchunk_make(a.number, a.chunks), &g, &at));
    check(!pool_arena_find(p, a.number + 1, &a));
    for (unsigned i = 0; i < 100000; i++) {
        uint64_t n = sim_random(world) >> sim_below(world, 64);
        if (pool_chunk_locate(p, (struct pchunk){n}, &g, &at))
            check(at + (64 << 10) <= g->data_bytes);
    }
    check_ok(pool_close(p, false));
}
static void a_chunk_number_from_a_damaged_map_is_refused(void **state)
{
    (void)state;
    in_world(2, body_garbage);
}

static void body_spread(void *arg)
{
    (void)arg;
    struct pool *p = open_new();
    for (unsigned i = 0; i < 6; i++) {
        check_ok(pool_arena_lease(p, 1, single, i, &arena[i]));
        check_equal(arena[i].group->disk[0]->index, i % 3);
    }
    check_ok(pool_arena_lease(p, 1, mirror, 1, &arena[6]));
    check_equal(arena[6].group->disk[0]->index, 1);
    check_ok(pool_close(p, false));
}
static void successive_leases_go_round_the_disks(void **state)
{
    (void)state;
    in_world(3, body_spread);
}

static void shapes_hold_whole_stripes(void **state)
{
    (void)state;
    for (uint32_t chunk = 16 << 10; chunk <= 1 << 20; chunk *= 2)
        for (uint32_t extent = 1 << 20; extent <= 1 << 30; extent *= 2)
            for (unsigned k = 1; k < RAID_WIDTH_MAX; k++) {
                struct pool_geometry g = {chunk, extent, 64 << 10};
                struct raid_profile p = {k == 1 ? RAID_SINGLE : RAID_PARITY, (uint8_t)k,
                                         k > 1 ? 1 : 0};
                struct pool_group_shape s = pool_group_shape(&g, p);
                assert_true(s.arena_chunks >= 1 && s.arena_chunks <= POOL_ARENA_CHUNKS);
                assert_int_equal(s.arena_chunks % k, 0);
                assert_int_equal((uint64_t)s.arenas * s.arena_chunks,
                                 (uint64_t)k * (extent / chunk));
                uint32_t per_slot = extent / chunk > 64 ? extent / chunk / 64 : 1;
                assert_true((uint64_t)s.slots * per_slot >= s.arenas);
                if (k == 1)
                    assert_int_equal(s.slots, 1);
                assert_true(s.slots <= 2 * (k + 1)); /* the table's size relies on it */
            }
}

static void an_arena_is_as_many_whole_stripes_as_its_bitmap_holds(void **state)
{
    (void)state;
    static const uint32_t chunks[] = {64, 64, 48, 64, 40, 48, 56, 64}; /* 1 … 8 data disks */
    static struct pool p;
    p.geometry = (struct pool_geometry){64 << 10, 256 << 20, 64 << 10};
    for (unsigned k = 1; k <= 8; k++) {
        struct raid_profile profile = {RAID_PARITY, (uint8_t)k, 1};
        assert_int_equal(pool_arena_bytes(&p, profile), (uint64_t)chunks[k - 1] * (64 << 10));
    }
    p.geometry.extent_bytes = 1 << 20; /* a row for each of its 16 chunks, at most */
    for (unsigned k = 1; k <= 3; k++) {
        struct raid_profile profile = {RAID_PARITY, (uint8_t)k, 1};
        assert_int_equal(pool_arena_bytes(&p, profile), (uint64_t)k << 20);
    }
    p.geometry.extent_bytes = 256 << 20;
    assert_int_equal(pool_arena_bytes(&p, mirror), 4 << 20);
}

/* ---- leases -------------------------------------------------------------------------------- */

static void body_survive(void *arg)
{
    (void)arg;
    struct pool *p = open_new();
    uint64_t numbers[8], from = 0;
    for (unsigned i = 0; i < 3; i++)
        check_ok(pool_arena_lease(p, 42, mirror, i, &arena[i]));
    check_ok(sim_pool_commit_counter(p, 1, 1)); /* leases precede what is committed later */
    p = open_again(p, true);
    check_equal(pool_arena_list(p, 42, &from, numbers, 8), 3);
    p = open_again(p, false);
    from = 0; /* and in two windows */
    check_equal(pool_arena_list(p, 42, &from, numbers, 2), 2);
    check_equal(pool_arena_list(p, 42, &from, numbers + 2, 6), 1);
    check(numbers[0] < numbers[1] && numbers[1] < numbers[2]);
    struct pool_arena a;
    check(pool_arena_find(p, arena[1].number, &a));
    check_equal(a.at_bytes, arena[1].at_bytes);
    check_equal(a.group->base_bytes[1], a.group->base_bytes[1]);
    check_figures(p);
    check_ok(pool_close(p, false));
}
static void leases_survive_a_crash_and_a_checkpoint(void **state)
{
    (void)state;
    in_world(3, body_survive);
}

static void body_return(void *arg)
{
    (void)arg;
    struct pool *p = open_new();
    struct pool_space before, after;
    pool_space_get(p, &before);
    unsigned n = fill(p, 7, mirror, arena);
    check_equal(pool_arena_return(p, 8, &arena[0].number, 1), VP_E_NOT_FOUND);
    check_equal(pool_arena_return(p, 7, &(uint64_t){1 << 30}, 1), VP_E_NOT_FOUND);
    check_ok(pool_arena_return(p, 7, &arena[0].number, 1));
    check_equal(pool_arena_return(p, 7, &arena[0].number, 1), VP_E_NOT_FOUND);
    struct pool_arena again;
    check_ok(pool_arena_lease(p, 9, mirror, 0, &again));
    check_ok(pool_arena_return_all(p, 7));
    check_equal(pool_arena_count(p, 7), 0);
    check_equal(pool_arena_count(p, 9), 1);
    check_ok(pool_arena_return_all(p, 9));
    check_ok(pool_arena_return_all(p, 9));
    pool_space_get(p, &after);
    check_equal(after.leased_bytes, 0);
    check(after.data_bytes <= 2 * p->geometry.extent_bytes); /* the last group stays */
    check_figures(p);
    check_equal(fill(p, 7, mirror, arena), n);
    p = open_again(p, true);
    check_figures(p);
    check_ok(pool_close(p, false));
}
static void returned_arenas_and_empty_groups_come_back(void **state)
{
    (void)state;
    in_world(3, body_return);
}

static void body_profiles(void *arg)
{
    (void)arg;
    struct pool *p = open_new();
    check(fill(p, 1, mirror, arena) > 0);
    check_ok(pool_arena_return_all(p, 1));
    /* One empty mirror group was kept; it goes when somebody else needs its extents. */
    unsigned n = fill(p, 2, single, arena);
    struct pool_space s;
    pool_space_get(p, &s);
    check_equal(s.data_bytes, (uint64_t)n * p->geometry.extent_bytes);
    check_figures(p);
    check_ok(pool_close(p, false));
}
static void a_kept_empty_group_gives_way_to_another_profile(void **state)
{
    (void)state;
    in_world(3, body_profiles);
}

/* While the return of an arena is being made durable nobody else may have it. */
static struct pool *shared;
static int lease_rc;
static void lease_meanwhile(void *arg)
{
    struct pool_arena a;
    lease_rc = pool_arena_lease(shared, 9, single, 0, &a);
    co_group_leave(arg, 0);
}
static void held_lease(bool guard)
{
    io_guard_disabled[GUARD_FREE_BEFORE_REUSE] = !guard;
    shared = open_new();
    check(fill(shared, 7, single, arena) > 0);
    struct co_group g;
    co_group_init(&g);
    co_group_enter(&g);
    check_ok(co_spawn(lease_meanwhile, &g, "lease"));
    check_ok(pool_arena_return(shared, 7, &arena[0].number, 1));
    check_ok(co_group_wait(&g));
    io_guard_disabled[GUARD_FREE_BEFORE_REUSE] = false;
    check_ok(pool_close(shared, false));
}
static void body_held(void *arg)
{
    (void)arg;
    held_lease(true);
    check_equal(lease_rc, VP_E_NO_SPACE);
}
static void body_not_held(void *arg)
{
    (void)arg;
    held_lease(false);
    check_equal(lease_rc, 0);
}
static void an_arena_is_leased_again_only_when_its_return_is_durable(void **state)
{
    (void)state;
    in_world(1, body_held);
    in_world(1, body_not_held);
}

/* ---- many arenas --------------------------------------------------------------------------- */

/* More than one commit returns, whose first ends amid a group: it has an arena of somebody else. */
static void body_many(void *arg)
{
    (void)arg;
    enum { MANY = 1100 };
    static const char *const name = "large";
    const struct pool_create_options o = {
        .name = "tank",
        .profile = single,
        .geometry = {.chunk_bytes = 16 << 10, .extent_bytes = 16 << 20, .log_segment_bytes = 65536},
        .force = true,
    };
    struct pool *p;
    unsigned leased = 0, got = 1;
    check_ok(pool_create(&o, &name, 1, &p, NULL));
    check_ok(pool_arena_lease(p, 9, single, 0, &arena[0]));
    while (leased < MANY && got) {
        check_ok(pool_arena_lease_many(p, 7, single, 0, MANY - leased, &got));
        leased += got;
    }
    check_equal(pool_arena_count(p, 7), MANY);
    check_ok(pool_arena_return_all(p, 7));
    check_equal(pool_arena_count(p, 7), 0);
    check_equal(pool_arena_count(p, 9), 1);
    check_figures(p);
    check_ok(pool_close(p, false));
}
static void more_arenas_than_a_commit_returns_are_all_returned(void **state)
{
    (void)state;
    const struct sim_disk_config config = {.name = "large",
                                           .size_bytes = UINT64_C(1536) << 20,
                                           .sector_bytes = 4096,
                                           .atomic_bytes = 4096,
                                           .latency_max_ns = 1000};
    world = sim_pool_world(5, 0);
    (void)sim_disk_add(world, &config);
    sim_pool_run(world, body_many, NULL);
    sim_world_free(world);
    assert_checked();
}

/* ---- room ---------------------------------------------------------------------------------- */

static void body_reserve(void *arg)
{
    (void)arg;
    struct pool *p = open_new();
    struct pool_space s;
    (void)fill(p, 7, single, arena);
    pool_space_get(p, &s);
    check_equal(s.level, POOL_FULL);
    check(s.reserved_bytes > 0);
    check(pool_groups_formable(p, pool_meta_copies(p)) >= pool_meta_reserve_groups(p));
    check_ok(pool_checkpoint(p));
    check_ok(sim_pool_commit_counter(p, 1, 2));
    check_ok(pool_close(p, false));
}
static void data_leave_the_extents_that_metadata_may_need(void **state)
{
    (void)state;
    for (unsigned disks = 1; disks <= 4; disks++)
        in_world(disks, body_reserve);
}

static void body_degraded(void *arg)
{
    (void)arg;
    struct pool *p = open_new();
    struct raid_disk *d = pool_disks(p, &(unsigned){0})[1];
    check_ok(pool_arena_lease(p, 7, mirror, 0, &arena[0]));
    check_ok(d->eject(d, VP_E_IO, "a test"));
    struct pool_arena a;
    for (unsigned i = 0; i < 3; i++) {
        check_ok(pool_arena_lease(p, 7, mirror, i, &a));
        check(raid_group_is_alive(a.group));
    }
    check_equal(pool_arena_lease(p, 7, (struct raid_profile){RAID_MIRROR, 1, 2}, 0, &a),
                VP_E_NO_SPACE);
    check_ok(sim_pool_commit_counter(p, 1, 1));
    p = open_again(p, true);
    check_equal(pool_arena_count(p, 7), 4);
    check_ok(pool_close(p, false));
}
static void a_mirror_without_one_disk_still_takes_new_data(void **state)
{
    (void)state;
    in_world(2, body_degraded);
}

/* An empty group, which stays open for its profile, goes out of service with its disk. */
static void body_dead_group(void *arg)
{
    (void)arg;
    struct pool *p = open_new();
    struct raid_disk *d = pool_disks(p, &(unsigned){0})[0];
    check_ok(pool_arena_lease(p, 7, single, 0, &arena[0]));
    check_equal(arena[0].group->disk[0]->index, 0);
    check_ok(pool_arena_return(p, 7, &arena[0].number, 1));
    check_ok(d->eject(d, VP_E_IO, "a test"));
    check_figures(p);
    unsigned n = fill(p, 7, single, arena);
    for (unsigned i = 0; i < n; i++)
        check(arena[i].group->disk[0]->index != 0);
    check_figures(p);
    check_ok(pool_close(p, false));
}
static void nothing_is_leased_on_a_disk_that_has_left(void **state)
{
    (void)state;
    in_world(2, body_dead_group);
}

static void wait_then_note(void *arg)
{
    check_ok(pool_wait_for_room(shared));
    struct pool_arena a;
    check_ok(pool_arena_lease(shared, 9, single, 0, &a));
    co_group_leave(arg, 0);
}
static void body_wait(void *arg)
{
    (void)arg;
    shared = open_new();
    (void)fill(shared, 7, single, arena);
    struct co_group g;
    co_group_init(&g);
    co_group_enter(&g);
    check_ok(co_spawn(wait_then_note, &g, "waiter"));
    co_yield ();
    check_ok(pool_arena_return(shared, 7, &arena[0].number, 1));
    check_ok(co_group_wait(&g));
    /* Room that came before the wait is not slept through. */
    struct pool_arena a;
    check_equal(pool_arena_lease(shared, 9, single, 0, &a), VP_E_NO_SPACE);
    check_ok(pool_arena_return(shared, 7, &arena[1].number, 1));
    uint64_t before = reactor_now_ns();
    check_ok(pool_wait_for_room(shared));
    check_equal(reactor_now_ns(), before);
    check_ok(pool_close(shared, false));
}
static void who_waits_for_room_is_woken(void **state)
{
    (void)state;
    in_world(1, body_wait);
}

/* ---- records ------------------------------------------------------------------------------- */

/* Writes a changed GROUP record behind the pool's back and tries to import it. */
static void import_with(struct pool *p, uint64_t id, const void *value, size_t len)
{
    struct pool_batch b;
    pool_batch_init(&b);
    pool_batch_set(&b, POOL_RECORD_GROUP, 0, id, value, len);
    check_ok(pool_commit(p, &b));
    pool_batch_fini(&b);
    pool_abandon(p);
    struct vp_error err = {0};
    check_equal(sim_pool_import(disk_total, NULL, &p, &err), VP_E_RECORD_BAD);
    check(strstr(err.text, "group") != NULL);
    if (p)
        pool_abandon(p);
}

static unsigned damage;
static void body_bad_record(void *arg)
{
    (void)arg;
    struct pool *p = open_new();
    check_ok(pool_arena_lease(p, 7, mirror, 0, &arena[0]));
    check_ok(pool_arena_lease(p, 7, mirror, 1, &arena[1]));
    struct pool_record r;
    uint64_t id = arena[0].group->id;
    check(pool_record_get(p, POOL_RECORD_GROUP, 0, id, &r));
    uint8_t value[4096];
    size_t len = r.len;
    memcpy(value, r.value, len);
    struct pool_group_disk head;
    struct pool_group_member_disk m[2];
    memcpy(&head, value, sizeof(head));
    memcpy(m, value + sizeof(head), sizeof(m));
    switch (damage) {
    case 0:
        id = 5000;
        break;
    case 1:
        m[0].disk = le32_make(90);
        break;
    case 2:
        m[0].extent = le32_make(UINT32_MAX);
        break;
    case 3:
        m[1].disk = m[0].disk;
        m[1].extent = le32_make(le32_get(m[0].extent) + 3);
        break;
    case 4: /* an extent of the metadata group */
        m[0].extent = le32_make(0);
        break;
    case 5:
        head.first_slot = le64_make(UINT64_MAX);
        break;
    case 6:
        head.first_slot = le64_make(arena[1].number);
        break;
    case 7:
        head.slots = le32_make(2);
        break;
    case 8:
        head.kind = RAID_PARITY;
        break;
    case 9:
        head.role = 3;
        break;
    default:
        len--;
    }
    memcpy(value, &head, sizeof(head));
    memcpy(value + sizeof(head), m, sizeof(m));
    import_with(p, id, value, len);
}
static void a_group_record_that_can_not_be_is_refused(void **state)
{
    (void)state;
    for (damage = 0; damage <= 10; damage++)
        in_world(2, body_bad_record);
}

static void garbage_never_reaches_past_a_record(void **state)
{
    (void)state;
    srandom(1);
    for (unsigned round = 0; round < 200000; round++) {
        size_t len = (size_t)random() % 100;
        uint8_t *value = malloc(len ? len : 1); /* exact, so that asan sees a step beyond */
        for (size_t i = 0; i < len; i++)
            value[i] = (uint8_t)(random() % 4);
        struct pool_group_info info;
        if (pool_group_decode(value, len, &info) == 0) {
            uint32_t sum = 0;
            for (uint32_t a = 0; a < info.arenas; a++)
                sum += le32_get(info.owner[a]);
            assert_true(sum <= UINT32_MAX);
        }
        free(value);
    }
}

static void drop_line(enum vp_log_level level, const char *line, void *arg)
{
    (void)level;
    (void)line;
    (void)arg;
}

static void body_failed_return(void *arg)
{
    (void)arg;
    struct pool *p = open_new();
    check_ok(pool_arena_lease(p, 7, mirror, 0, &arena[0]));
    check_ok(pool_arena_lease(p, 7, mirror, 0, &arena[1]));
    uint64_t queued = p->log.queued_bytes;
    p->log.queued_bytes = UINT32_MAX; /* as if the log had no room for one more commit */
    check_equal(pool_arena_return(p, 7, &arena[0].number, 1), VP_E_POOL_FULL_META);
    check_equal(pool_arena_return_all(p, 7), VP_E_POOL_FULL_META);
    p->log.queued_bytes = queued;
    check_equal(pool_arena_count(p, 7), 2);
    /* The record of the same group is written again; the arenas must not be free in it. */
    check_ok(pool_arena_lease(p, 8, mirror, 0, &arena[2]));
    check_ok(sim_pool_commit_counter(p, 1, 1));
    p = open_again(p, true);
    check_equal(pool_arena_count(p, 7), 2);
    unsigned n = fill(p, 9, mirror, arena + 3);
    for (unsigned i = 3; i < 3 + n; i++)
        check(arena[i].number != arena[0].number && arena[i].number != arena[1].number);
    check_ok(pool_arena_return_all(p, 7));
    check_figures(p);
    check_ok(pool_close(p, false));
}
static void a_return_that_can_not_be_recorded_did_not_happen(void **state)
{
    (void)state;
    in_world(4, body_failed_return);
}

int main(void)
{
    vp_log_set_sink(drop_line, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_return_that_can_not_be_recorded_did_not_happen),
        cmocka_unit_test(no_two_chunks_share_a_place),
        cmocka_unit_test(a_chunk_number_from_a_damaged_map_is_refused),
        cmocka_unit_test(successive_leases_go_round_the_disks),
        cmocka_unit_test(shapes_hold_whole_stripes),
        cmocka_unit_test(an_arena_is_as_many_whole_stripes_as_its_bitmap_holds),
        cmocka_unit_test(leases_survive_a_crash_and_a_checkpoint),
        cmocka_unit_test(returned_arenas_and_empty_groups_come_back),
        cmocka_unit_test(a_kept_empty_group_gives_way_to_another_profile),
        cmocka_unit_test(an_arena_is_leased_again_only_when_its_return_is_durable),
        cmocka_unit_test(data_leave_the_extents_that_metadata_may_need),
        cmocka_unit_test(a_mirror_without_one_disk_still_takes_new_data),
        cmocka_unit_test(nothing_is_leased_on_a_disk_that_has_left),
        cmocka_unit_test(more_arenas_than_a_commit_returns_are_all_returned),
        cmocka_unit_test(who_waits_for_room_is_woken),
        cmocka_unit_test(a_group_record_that_can_not_be_is_refused),
        cmocka_unit_test(garbage_never_reaches_past_a_record),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

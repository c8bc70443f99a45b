/*
 * What a pool promises of disks that are lost (promise.c), and imports with fewer than half of the
 * disks (import.c, I4).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "pool/meta_impl.h"
#include "tests/lib/fake_client.h"
#include "tests/lib/on_reactor.h"
#include "tests/lib/sim_pool.h"

enum { DISKS_MAX = 5, COMMITS = 40 };

static struct pool *pool;
static struct vp_error err;
static unsigned disks, copies;

static void create_and_commit(void *arg)
{
    (void)arg;
    check_ok(sim_pool_create_mirror(disks, copies, &pool, &err));
    for (uint64_t i = 0; i < COMMITS; i++) {
        check_ok(sim_pool_commit_counter(pool, i % 8, i));
        if (i % 16 == 9)
            check_ok(pool_checkpoint(pool));
    }
}

static struct sim_world *world_with_mirror(unsigned n, unsigned mirrored)
{
    struct sim_world *w = sim_pool_world(n * 10 + mirrored, n);
    disks = n;
    copies = mirrored;
    sim_pool_run(w, create_and_commit, NULL);
    return w;
}

static struct sim_world *power_cut(struct sim_world *w)
{
    pool_abandon(pool);
    pool = NULL;
    return sim_pool_power_cut(w, 5);
}

struct import_call {
    unsigned set; /* of disks: bits */
    unsigned flags;
    int rc;
    uint64_t writes; /* a counter to write afterwards; 0: none */
    const struct pool_client *client;
};

static void import(void *arg)
{
    static const char *const names[] = {"d0", "d1", "d2", "d3", "d4"};
    const char *paths[DISKS_MAX];
    struct import_call *c = arg;
    unsigned count = 0;
    for (unsigned i = 0; i < disks; i++)
        if (c->set >> i & 1)
            paths[count++] = names[i];
    c->rc = pool_import(paths, count, c->flags, c->client, &pool, &err);
    if (!c->rc && c->writes)
        check_ok(sim_pool_commit_counter(pool, 100, c->writes));
}

static int import_set(struct sim_world *w, unsigned set, unsigned flags)
{
    struct import_call c = {.set = set, .flags = flags};
    sim_pool_run(w, import, &c);
    return c.rc;
}

static void check_counters(void)
{
    for (uint64_t i = COMMITS - 8; i < COMMITS; i++)
        check_equal(sim_pool_counter(pool, i % 8), i);
}

static void end(struct sim_world *w)
{
    pool_abandon(pool);
    pool = NULL;
    sim_world_free(w);
    assert_checked();
}

/* ---- copies ------------------------------------------------------------------------------- */

/* Of a pool that was cut, with these disks alone. */
static void look_at_survivors(const struct sim_snapshot *s, unsigned set)
{
    struct sim_choice choices[64] = {{SIM_DROP, 0}};
    assert_true(sim_snapshot_pending(s) <= 64);
    struct sim_world *w = sim_world_from_snapshot(s, choices, set);
    check_ok(import_set(w, set, POOL_IMPORT_DEGRADED));
    if (pool)
        check_counters();
    end(w);
}

static void metadata_survive_as_many_disks_as_the_groups_of_their_pool(void **state)
{
    (void)state;
    for (unsigned n = 2; n <= DISKS_MAX; n++)
        for (unsigned mirrored = 2; mirrored <= n; mirrored++) {
            struct sim_world *w = power_cut(world_with_mirror(n, mirrored));
            struct sim_snapshot *s = sim_snapshot_take(w);
            for (unsigned set = 1; set < 1U << n; set++)
                if ((unsigned)__builtin_popcount(set) + mirrored > n)
                    look_at_survivors(s, set);
            sim_snapshot_free(s);
            end(w);
        }
}

static void metadata_have_three_copies_at_least_and_five_at_most(void **state)
{
    (void)state;
    static const unsigned want[] = {0, 3, 3, 3, 4, 5};
    for (unsigned mirrored = 1; mirrored <= 5; mirrored++) {
        struct sim_world *w = world_with_mirror(5, mirrored);
        check_equal(pool_meta_copies(pool), want[mirrored]);
        const struct pool_group *g;
        list_for_each (g, &pool->meta_groups, link)
            check_equal(g->raid->width, want[mirrored]);
        end(w);
    }
}

static void an_older_release_refuses_metadata_of_many_copies_by_a_feature(void **state)
{
    (void)state;
    for (unsigned mirrored = 3; mirrored <= 4; mirrored++) {
        struct sim_world *w = world_with_mirror(4, mirrored);
        const struct root_block *b = (const struct root_block *)pool->root.page;
        check_equal(le64_get(b->features_incompat) & ROOT_FEATURE_WIDE,
                    mirrored > 3 ? ROOT_FEATURE_WIDE : 0);
        end(w);
    }
}

static void create_too_wide(void *arg)
{
    (void)arg;
    check_equal(sim_pool_create_mirror(6, 6, &pool, &err), VP_E_NOT_SUPPORTED);
    assert_non_null(strstr(err.text, "mirror:6"));
    assert_non_null(strstr(err.text, "5 copies"));
}

static void a_wider_mirror_than_metadata_have_copies_is_refused_by_name(void **state)
{
    (void)state;
    struct sim_world *w = sim_pool_world(1, 6);
    sim_pool_run(w, create_too_wide, NULL);
    end(w);
}

/* ---- imports with fewer than half of the disks ---------------------------------------------- */

static void fewer_than_half_of_the_disks_need_a_word(void **state)
{
    (void)state;
    struct sim_world *w = power_cut(world_with_mirror(3, 3));
    check_equal(import_set(w, 2, 0), VP_E_POOL_MISSING_DISK);
    assert_non_null(strstr(err.text, "--degraded"));
    check_ok(import_set(w, 2, POOL_IMPORT_DEGRADED));
    check_counters();
    assert_string_equal(pool_state(pool), "degraded");
    w = power_cut(w);
    check_ok(import_set(w, 2, 0)); /* the others are out now, so this is all there is */
    check_counters();
    end(w);
}

static void a_group_without_a_copy_is_not_given_up(void **state)
{
    (void)state;
    struct sim_world *w = power_cut(world_with_mirror(5, 2)); /* metadata: on three of them */
    unsigned refused = 0;
    for (unsigned i = 0; i < 5; i++) {
        int rc = import_set(w, 1U << i, POOL_IMPORT_DEGRADED);
        check(rc != 0 || pool);
        refused += rc != 0;
        w = power_cut(w);
    }
    check(refused >= 2);
    end(w);
}

/* It serves what has no other copy, so it gets the roots that call it out. */
static void import_and_eject(void *arg)
{
    struct import_call c = {.set = 3};
    (void)arg;
    import(&c);
    check_ok(pool_disk_eject(pool, &pool->disk[1], VP_E_IO, "a test"));
    check_ok(sim_pool_commit_counter(pool, 100, 1));
}

static void a_disk_that_knows_that_it_is_out_is_not_enough(void **state)
{
    (void)state;
    struct sim_world *w = world_with_mirror(2, 2);
    w = power_cut(w);
    sim_pool_run(w, import_and_eject, NULL);
    w = power_cut(w);
    check_equal(import_set(w, 2, POOL_IMPORT_DEGRADED), VP_E_POOL_MISSING_DISK);
    check_ok(import_set(w, 1, 0));
    end(w);
}

static void halves_that_were_both_imported_are_refused_together(void **state)
{
    (void)state;
    struct sim_world *w = power_cut(world_with_mirror(3, 3));
    check_ok(import_set(w, 1, POOL_IMPORT_DEGRADED));
    w = power_cut(w);
    check_ok(import_set(w, 2 + 4, 0));
    w = power_cut(w);
    for (unsigned flags = 0; flags <= POOL_IMPORT_DEGRADED; flags++) {
        check_equal(import_set(w, 1 + 2, flags), VP_E_POOL_SPLIT);
        check_equal(import_set(w, 1 + 2 + 4, flags), VP_E_POOL_SPLIT);
    }
    check_ok(import_set(w, 2 + 4, 0));
    end(w);
}

/*
 * Any subsets of the disks are imported one after the other, each time as an operator who says that
 * the rest is lost. A state is what was written after an import; its parent is what that import had
 * found. A disk has the state of the last import in which it was in service. What an import finds
 * must follow from the states of all disks that it was given. If it does not, nobody has noticed
 * that they went separate ways.
 */
enum { WALKS = 300, STEPS = 12 };

static bool follows(const unsigned *parent, unsigned state, unsigned from)
{
    while (state > from)
        state = parent[state];
    return state == from;
}

static void check_step(struct sim_world *w, const struct import_call *c, unsigned *parent,
                       unsigned *of_disk, unsigned now)
{
    (void)w;
    unsigned newest = 0;
    for (unsigned i = 0; i < disks; i++)
        if (c->set >> i & 1 && of_disk[i] > newest)
            newest = of_disk[i];
    bool together = true;
    unsigned found = c->rc ? newest : parent[now];
    for (unsigned i = 0; i < disks; i++)
        if (c->set >> i & 1)
            together &= follows(parent, found, of_disk[i]);
    check(c->rc == 0 ? together : !together || c->rc == VP_E_POOL_MISSING_DISK);
    for (unsigned i = 0; !c->rc && i < disks; i++)
        if (atomic_load(&pool->disk[i].io.in_service))
            of_disk[i] = now;
}

static void look_and_write(void *arg)
{
    struct import_call *c = arg;
    uint64_t writes = c->writes;
    c->writes = 0;
    import(c);
    if (c->rc)
        return;
    c->writes = sim_pool_counter(pool, 100); /* what it found */
    check_ok(sim_pool_commit_counter(pool, 100, writes));
}

static void ways_that_parted_are_never_joined_unnoticed(void **state)
{
    (void)state;
    unsigned split = 0, joined = 0;
    for (uint64_t walk = 0; walk < WALKS; walk++) {
        uint64_t rng = hash_mix(walk + 1);
        unsigned parent[STEPS + 2] = {0}, of_disk[DISKS_MAX] = {0};
        unsigned n = 3 + (unsigned)(walk % 3);
        struct sim_world *w = world_with_mirror(n, n);
        for (unsigned now = 1; now <= STEPS; now++) {
            w = power_cut(w);
            rng = hash_mix(rng);
            struct import_call c = {.set = 1 + (unsigned)(rng % ((1U << n) - 1)),
                                    .flags = POOL_IMPORT_DEGRADED,
                                    .writes = now};
            sim_pool_run(w, look_and_write, &c);
            if (!c.rc)
                parent[now] = c.writes == UINT64_MAX ? 0 : (unsigned)c.writes;
            check_step(w, &c, parent, of_disk, now);
            split += c.rc == VP_E_POOL_SPLIT;
            joined += c.rc == 0;
        }
        end(w);
    }
    assert_true(split > 100 && joined > 100);
}

/* ---- a root that not all disks have ------------------------------------------------------- */

static struct sim_snapshot *moment[400];
static unsigned moments;

static bool moment_take(struct sim_world *w, uint64_t event, void *arg)
{
    (void)event;
    (void)arg;
    if (moments < sizeof(moment) / sizeof(moment[0]))
        moment[moments++] = sim_snapshot_take(w);
    return true;
}

static void checkpoint_with_moments(void *arg)
{
    struct sim_world *w = arg;
    check_ok(sim_pool_create_mirror(2, 2, &pool, &err));
    check_ok(sim_pool_commit_counter(pool, 1, 1));
    sim_world_on_event(w, moment_take, NULL);
    check_ok(pool_checkpoint(pool));
    sim_world_on_event(w, NULL, NULL);
}

struct order_call {
    const char *paths[2];
    uint64_t counter;
    int rc;
};

static void import_in_order(void *arg)
{
    struct order_call *c = arg;
    c->rc = pool_import(c->paths, 2, 0, NULL, &pool, &err);
    c->counter = c->rc ? 0 : sim_pool_counter(pool, 100);
}

/* The disk `alone` goes on without the other one, which comes back later, first or second. */
static void goes_on_alone(const struct sim_snapshot *s, unsigned alone, bool first)
{
    static const char *const names[] = {"d0", "d1"};
    struct sim_choice drop[64] = {{SIM_DROP, 0}};
    assert_true(sim_snapshot_pending(s) <= 64);
    struct sim_world *w = sim_world_from_snapshot(s, drop, 3);
    struct import_call c = {.set = 1U << alone, .writes = 7};
    struct order_call both = {
        .paths = {names[first ? alone : !alone], names[first ? !alone : alone]}};
    disks = 2;
    sim_pool_run(w, import, &c);
    check_ok(c.rc);
    if (pool)
        pool_abandon(pool);
    pool = NULL;
    w = sim_pool_reboot(w, 4);
    sim_pool_run(w, import_in_order, &both);
    check_ok(both.rc);
    check_equal(both.counter, 7);
    end(w);
}

static void what_a_disk_wrote_alone_wins_over_a_root_that_only_the_other_one_has(void **state)
{
    (void)state;
    struct sim_world *w = sim_pool_world(12, 2);
    moments = 0;
    sim_pool_run(w, checkpoint_with_moments, w);
    assert_true(moments > 8 && moments < sizeof(moment) / sizeof(moment[0]));
    end(w);
    for (unsigned i = 0; i < moments; i++) {
        for (unsigned alone = 0; alone < 2; alone++)
            for (unsigned first = 0; first < 2; first++)
                goes_on_alone(moment[i], alone, first);
        sim_snapshot_free(moment[i]);
    }
}

/* ---- volumes that are wider than what was promised before ----------------------------------- */

static const struct raid_profile mirror4 = {RAID_MIRROR, 1, 3};
static struct fake_client client;

/* With a page of a tree on three disks. */
static void create_with_a_page(void)
{
    client = (struct fake_client){0};
    check_ok(sim_pool_create_mirror(disks, 2, &pool, &err));
    client.pool = pool;
    struct pool_client c = fake_client_of(&client);
    pool_set_client(pool, &c);
    check_ok(fake_commit(&client, 1, 11, 0));
    check_ok(pool_checkpoint(pool));
    check_equal(pool_meta_copies_least(pool), disks < 3 ? disks : 3);
}

static void promise_and_commit(void *arg)
{
    (void)arg;
    create_with_a_page();
    check_ok(pool_promise(pool, mirror4, &err));
    check_equal(pool_meta_copies_least(pool), 4);
    check_equal(pool_promised_width(pool), 4);
    check_ok(fake_commit(&client, 2, 22, 0));
}

static void import_with_page(void *arg)
{
    struct import_call *c = arg;
    client = (struct fake_client){0};
    struct pool_client calls = fake_client_of(&client);
    c->client = &calls;
    import(c);
    if (!c->rc)
        check_ok(fake_load(&client, pool));
}

static void metadata_get_their_copies_before_a_wider_volume_is_promised(void **state)
{
    (void)state;
    struct sim_world *w = sim_pool_world(4, disks = 4);
    sim_pool_run(w, promise_and_commit, NULL);
    w = power_cut(w);
    struct sim_snapshot *s = sim_snapshot_take(w);
    for (unsigned i = 0; i < 4; i++) { /* any one disk has all */
        struct sim_choice choices[64] = {{SIM_DROP, 0}};
        struct sim_world *one = sim_world_from_snapshot(s, choices, i);
        struct import_call c = {.set = 1U << i, .flags = POOL_IMPORT_DEGRADED};
        sim_pool_run(one, import_with_page, &c);
        check_ok(c.rc);
        check_equal(client.value[1], 11);
        check_equal(client.value[2], 22);
        check_equal(pool_promised_width(pool), 4);
        end(one);
    }
    sim_snapshot_free(s);
    end(w);
}

static void promise_without_disks(void *arg)
{
    (void)arg;
    create_with_a_page();
    check_equal(pool_promise(pool, mirror4, &err), VP_E_DISK_TOO_FEW);
    check(strstr(err.text, "mirror:4 needs 4 disks in service, and there are 3") != NULL);
    check_equal(pool_promised_width(pool), 2);
    check_ok(pool_promise(pool, (struct raid_profile){RAID_MIRROR, 1, 2}, &err));
}

static void a_promise_without_disks_for_the_metadata_is_refused(void **state)
{
    (void)state;
    struct sim_world *w = sim_pool_world(3, disks = 3);
    sim_pool_run(w, promise_without_disks, NULL);
    end(w);
}

/* Data have all of a disk. */
static void promise_without_room(void *arg)
{
    (void)arg;
    create_with_a_page();
    struct pool_disk *d = &pool->disk[3];
    uint32_t used = d->extents_used;
    check_equal(d->extents_meta, 0);
    uint64_t map = d->extent_map[0];
    d->extents_used = d->extents_total;
    bitmap_set_range(d->extent_map, 0, d->extents_total);
    check_equal(pool_promise(pool, mirror4, &err), VP_E_NO_SPACE);
    check(strstr(err.text, "no room for 4 copies") != NULL);
    check_equal(pool_promised_width(pool), 2);
    check_equal(pool_meta_copies_least(pool), 3);
    d->extents_used = used;
    d->extent_map[0] = map;
    pool_meta_room_update(pool);
    check_ok(pool_promise(pool, mirror4, &err));
    check_equal(pool_meta_copies_least(pool), 4);
}

static void a_promise_without_room_for_the_metadata_is_refused(void **state)
{
    (void)state;
    struct sim_world *w = sim_pool_world(5, disks = 4);
    sim_pool_run(w, promise_without_room, NULL);
    end(w);
}

static void checkpoint_of_an_older_pool(void *arg)
{
    (void)arg;
    create_with_a_page();
    pool_promise_found(pool, 4); /* as an import that finds such a group */
    check(pool_meta_is_narrow(pool));
    check_ok(pool_checkpoint(pool));
    check_equal(pool_meta_copies_least(pool), 4);
    check(!pool_meta_is_narrow(pool));
}

static void a_checkpoint_gives_metadata_the_copies_that_an_older_release_did_not(void **state)
{
    (void)state;
    struct sim_world *w = sim_pool_world(6, disks = 4);
    sim_pool_run(w, checkpoint_of_an_older_pool, NULL);
    end(w);
}

static void promise_on_a_bad_disk(void *arg)
{
    struct sim_world *w = arg;
    create_with_a_page();
    /* after a root's two writes, that of the copy */
    sim_disk_inject(sim_disk_find(w, "d3"), SIM_FAULT_ERROR, 1U << IO_WRITE, 2, 0);
    check(pool_promise(pool, mirror4, &err) != 0);
    check_ok(fake_commit(&client, 3, 33, 0));
    check(pool_acknowledges(pool));
    check_ok(pool_promise(pool, mirror4, &err));
    check_equal(pool_meta_copies_least(pool), 4);
}

static void a_copy_that_fails_is_tried_again_by_the_next_promise(void **state)
{
    (void)state;
    struct sim_world *w = sim_pool_world(7, disks = 4);
    sim_pool_run(w, promise_on_a_bad_disk, w);
    end(w);
}

/* ---- what older releases are told ---------------------------------------------------------- */

struct wide_call {
    unsigned set;
    bool before, after; /* the newest root's bit, as found and after the import */
    unsigned copies;    /* of the metadata that have most                       */
};

static bool newest_root_is_wide(const char *path)
{
    static uint8_t slots[POOL_ROOT_SLOTS * ROOT_BYTES] __attribute__((aligned(4096)));
    struct io_dev *dev;
    struct root_image *image = calloc(1, sizeof(*image));
    uint64_t newest = 0, number;
    bool wide = false;
    assert_non_null(image);
    check_ok(io_dev_open(path, IO_OPEN_READ_ONLY | IO_OPEN_SHARED, &dev, &err));
    check_ok(io_dev_read(dev, POOL_ROOT_AT, slots, sizeof(slots)));
    io_dev_close(dev);
    for (unsigned i = 0; i < POOL_ROOT_SLOTS; i++) {
        uint8_t *slot = slots + (size_t)i * ROOT_BYTES;
        struct vp_uuid uuid;
        memcpy(uuid.b, ((struct root_block *)slot)->pool_uuid, sizeof(uuid.b));
        if (!root_block_check(slot, uuid, &number) || number <= newest)
            continue;
        check_ok(root_block_decode(slot, image));
        newest = number;
        wide = image->wide;
    }
    free(image);
    return wide;
}

static void look_whether_wide(void *arg)
{
    struct wide_call *c = arg;
    struct import_call i = {.set = 15};
    c->before = newest_root_is_wide("d0");
    import_with_page(&i);
    check_ok(i.rc);
    c->after = pool_is_wide(pool);
    c->copies = 0;
    for (unsigned g = 0; g < pool->meta.groups; g++)
        if (pool->meta.group[g]->group->raid->width > c->copies)
            c->copies = pool->meta.group[g]->group->raid->width;
}

static void promise_with_moments(void *arg)
{
    struct sim_world *w = arg;
    create_with_a_page();
    check(!newest_root_is_wide("d0"));
    sim_world_on_event(w, moment_take, NULL);
    check_ok(pool_promise(pool, mirror4, &err));
    sim_world_on_event(w, NULL, NULL);
    check(newest_root_is_wide("d0"));
}

static void no_metadata_have_four_copies_before_a_root_says_so(void **state)
{
    (void)state;
    struct sim_world *w = sim_pool_world(15, disks = 4);
    struct sim_choice keep[64];
    unsigned wide = 0;
    for (unsigned i = 0; i < 64; i++)
        keep[i] = (struct sim_choice){SIM_KEEP, 0};
    moments = 0;
    sim_pool_run(w, promise_with_moments, w);
    assert_true(moments > 8 && moments < sizeof(moment) / sizeof(moment[0]));
    end(w);
    for (unsigned i = 0; i < moments; i++) {
        struct wide_call c = {0};
        assert_true(sim_snapshot_pending(moment[i]) <= 64);
        w = sim_world_from_snapshot(moment[i], keep, i);
        sim_pool_run(w, look_whether_wide, &c);
        check(c.copies <= 3 || c.before);
        check_equal(c.after, c.copies > 3 || pool_promised_width(pool) > 3);
        wide += c.copies > 3;
        end(w);
        sim_snapshot_free(moment[i]);
    }
    assert_true(wide > 0 && wide < moments);
}

static void refused_promise(void *arg)
{
    (void)arg;
    create_with_a_page();
    struct pool_disk *d = &pool->disk[3];
    uint32_t used = d->extents_used;
    uint64_t map = d->extent_map[0];
    d->extents_used = d->extents_total;
    bitmap_set_range(d->extent_map, 0, d->extents_total);
    check_equal(pool_promise(pool, mirror4, &err), VP_E_NO_SPACE);
    d->extents_used = used;
    d->extent_map[0] = map;
    check_ok(pool_checkpoint(pool));
    check(!newest_root_is_wide("d0"));
}

static void a_refused_promise_leaves_the_pool_to_older_releases(void **state)
{
    (void)state;
    struct sim_world *w = sim_pool_world(16, disks = 4);
    sim_pool_run(w, refused_promise, NULL);
    end(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(metadata_survive_as_many_disks_as_the_groups_of_their_pool),
        cmocka_unit_test(metadata_have_three_copies_at_least_and_five_at_most),
        cmocka_unit_test(an_older_release_refuses_metadata_of_many_copies_by_a_feature),
        cmocka_unit_test(a_wider_mirror_than_metadata_have_copies_is_refused_by_name),
        cmocka_unit_test(fewer_than_half_of_the_disks_need_a_word),
        cmocka_unit_test(a_group_without_a_copy_is_not_given_up),
        cmocka_unit_test(a_disk_that_knows_that_it_is_out_is_not_enough),
        cmocka_unit_test(halves_that_were_both_imported_are_refused_together),
        cmocka_unit_test(ways_that_parted_are_never_joined_unnoticed),
        cmocka_unit_test(what_a_disk_wrote_alone_wins_over_a_root_that_only_the_other_one_has),
        cmocka_unit_test(metadata_get_their_copies_before_a_wider_volume_is_promised),
        cmocka_unit_test(a_promise_without_disks_for_the_metadata_is_refused),
        cmocka_unit_test(a_promise_without_room_for_the_metadata_is_refused),
        cmocka_unit_test(a_checkpoint_gives_metadata_the_copies_that_an_older_release_did_not),
        cmocka_unit_test(a_copy_that_fails_is_tried_again_by_the_next_promise),
        cmocka_unit_test(no_metadata_have_four_copies_before_a_root_says_so),
        cmocka_unit_test(a_refused_promise_leaves_the_pool_to_older_releases),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

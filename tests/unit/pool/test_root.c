/* Roots: bytes, slots, and which one an import believes (root.c, R1 and R2). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc.h"
#include "pool/meta_impl.h"
#include "tests/lib/on_reactor.h"
#include "tests/lib/sim_pool.h"

static struct pool *pool;
static struct vp_error err;
static unsigned disks;

/* ---- bytes -------------------------------------------------------------------------------- */

static struct pool *example(void)
{
    struct pool *p = calloc(1, sizeof(*p));
    assert_non_null(p);
    memset(p->uuid.b, 0x5a, sizeof(p->uuid.b));
    memcpy(p->name, "tank", 5);
    p->geometry = sim_pool_geometry;
    p->default_profile = (struct raid_profile){RAID_MIRROR, 1, 1};
    p->disk_count = 3;
    for (unsigned i = 0; i < 3; i++) {
        p->disk[i].state = i == 1 ? POOL_DISK_OUT : POOL_DISK_ONLINE;
        p->disk[i].uuid.b[0] = (uint8_t)(i + 1);
        p->disk[i].extents_total = 6;
        p->disk[i].size_bytes = 8 << 20;
    }
    return p;
}

static struct pool_segment segment(uint64_t at)
{
    return (struct pool_segment){
        .pages = 4, .place = {.copies = 2, .disk = {0, 2}, .at_bytes = {at, at + 4096}}};
}

static struct pool_root example_root(void)
{
    return (struct pool_root){
        .number = 77,
        .checkpoint = 5,
        .exported = true,
        .table_image = {.start = segment(1 << 20), .stream = 11, .batches = 3},
        .piece = {{segment(2 << 20), 12, 1, 9}, {segment(3 << 20), 13, 4, POOL_LOG_OPEN}},
        .pieces = 2,
    };
}

static uint8_t block[ROOT_BYTES] __attribute__((aligned(8)));

static void encode_example(struct pool *p)
{
    struct pool_root root = example_root();
    root_block_encode(p, &root, block);
}

/* After a test changed the block. */
static void seal_block(void)
{
    struct root_block *b = (struct root_block *)block;
    b->crc = le32_make(0);
    b->crc = le32_make(vp_crc32c(block, ROOT_BYTES));
}

static void a_root_decodes_to_what_was_encoded(void **state)
{
    (void)state;
    struct pool *p = example();
    struct root_image image;
    uint64_t number;
    encode_example(p);
    assert_true(root_block_check(block, p->uuid, &number));
    assert_int_equal(number, 77);
    assert_int_equal(root_block_decode(block, &image), 0);
    assert_string_equal(image.name, "tank");
    assert_int_equal(image.disks, 3);
    assert_int_equal(image.disk[1].state, POOL_DISK_OUT);
    assert_int_equal(image.disk[2].uuid.b[0], 3);
    struct pool_root want = example_root();
    assert_true(image.root.exported);
    assert_int_equal(image.root.checkpoint, 5);
    assert_int_equal(image.root.pieces, 2);
    assert_memory_equal(&image.root.piece[1].start, &want.piece[1].start,
                        sizeof(want.piece[1].start));
    assert_true(image.root.piece[1].last_seq == POOL_LOG_OPEN);
    assert_int_equal(image.root.table_image.batches, 3);
    free(p);
}

static void deltas_are_known_by_an_incompatible_feature(void **state)
{
    (void)state;
    struct pool *p = example();
    struct root_block *b = (struct root_block *)block;
    struct root_image image;
    struct pool_root root = example_root();
    root_block_encode(p, &root, block);
    assert_int_equal(le64_get(b->features_incompat), 0); /* an older release opens it */
    root.deltas = ROOT_DELTAS;
    for (unsigned i = 0; i < ROOT_DELTAS; i++)
        root.delta[i] = (struct pool_table_image_ref){segment((4 + i) << 20), 20 + i, 1 + i};
    root_block_encode(p, &root, block);
    assert_int_equal(le64_get(b->features_incompat), ROOT_FEATURE_DELTAS);
    assert_int_equal(root_block_decode(block, &image), 0);
    assert_int_equal(image.features_incompat, 0); /* of the root, not of the pool */
    assert_int_equal(image.root.deltas, ROOT_DELTAS);
    for (unsigned i = 0; i < ROOT_DELTAS; i++) {
        assert_memory_equal(&image.root.delta[i].start, &root.delta[i].start,
                            sizeof(root.delta[i].start));
        assert_int_equal(image.root.delta[i].stream, 20 + i);
        assert_int_equal(image.root.delta[i].batches, 1 + i);
    }
    b->deltas = le16_make(ROOT_DELTAS + 1);
    seal_block();
    assert_int_equal(root_block_decode(block, &image), VP_E_ROOT_BAD);
    b->features_incompat = le64_make(2 * ROOT_FEATURE_REMOVED);
    seal_block();
    assert_int_equal(root_block_decode(block, &image), VP_E_FEATURE_UNKNOWN);
    free(p);
}

static void a_disk_that_is_filled_is_known_by_an_incompatible_feature(void **state)
{
    (void)state;
    struct pool *p = example();
    const struct root_block *b = (const struct root_block *)block;
    struct root_image image;
    struct pool_root root = example_root();
    p->disk[0].state = POOL_DISK_BEHIND;
    root_block_encode(p, &root, block);
    assert_int_equal(le64_get(b->features_incompat), ROOT_FEATURE_BEHIND);
    assert_int_equal(root_block_decode(block, &image), 0);
    assert_int_equal(image.disk[0].state, POOL_DISK_BEHIND);
    p->disk[0].state = POOL_DISK_BEHIND + 1;
    root_block_encode(p, &root, block);
    assert_int_equal(root_block_decode(block, &image), VP_E_ROOT_BAD);
    free(p);
}

static void a_root_with_any_bit_flipped_is_not_a_root(void **state)
{
    (void)state;
    struct pool *p = example();
    uint64_t number;
    encode_example(p);
    for (unsigned i = 0; i < ROOT_BYTES * 8; i++) {
        block[i / 8] ^= (uint8_t)(1U << i % 8);
        assert_false(root_block_check(block, p->uuid, &number));
        block[i / 8] ^= (uint8_t)(1U << i % 8);
    }
    assert_true(root_block_check(block, p->uuid, &number));
    free(p);
}

static void a_root_of_another_pool_is_not_a_root(void **state)
{
    (void)state;
    struct pool *p = example();
    uint64_t number;
    encode_example(p);
    p->uuid.b[3] ^= 1;
    assert_false(root_block_check(block, p->uuid, &number));
    free(p);
}

static void unknown_features_and_versions_are_refused_by_name(void **state)
{
    (void)state;
    struct pool *p = example();
    struct root_image image;
    p->features_incompat = 2 * ROOT_FEATURE_REMOVED;
    encode_example(p);
    assert_int_equal(root_block_decode(block, &image), VP_E_FEATURE_UNKNOWN);
    p->features_incompat = 0;
    p->features_compat = 4; /* whoever does not know it may use the pool */
    encode_example(p);
    assert_int_equal(root_block_decode(block, &image), 0);
    ((struct root_block *)block)->version = le32_make(2);
    assert_int_equal(root_block_decode(block, &image), VP_E_FEATURE_UNKNOWN);
    free(p);
}

/* Roots whose checksum is right but whose content is not: each byte replaced, sealed again. */
static void sealed_nonsense_is_refused_or_decodes_within_bounds(void **state)
{
    (void)state;
    struct pool *p = example();
    struct root_image image;
    for (unsigned i = 96; i < 96 + 700; i++) {
        for (unsigned v = 0; v < 3; v++) {
            static const uint8_t value[] = {0, 0x7f, 0xff};
            encode_example(p);
            block[i] = value[v];
            seal_block();
            if (root_block_decode(block, &image))
                continue;
            assert_in_range(image.disks, 1, POOL_DISKS_MAX);
            assert_in_range(image.root.pieces, 1, POOL_LOG_PIECES);
            for (unsigned k = 0; k < image.root.pieces; k++)
                assert_in_range(image.root.piece[k].start.place.copies, 1, POOL_META_COPIES_MAX);
        }
    }
    free(p);
}

/* ---- on disks ----------------------------------------------------------------------------- */

static void create(void *arg)
{
    uint64_t checkpoints = (uintptr_t)arg;
    check_ok(sim_pool_create(disks, &pool, &err));
    for (uint64_t i = 0; i < checkpoints; i++) {
        check_ok(sim_pool_commit_counter(pool, 1, i));
        check_ok(pool_checkpoint(pool));
    }
}

static int import_rc;

static void import(void *arg)
{
    (void)arg;
    import_rc = sim_pool_import(disks, NULL, &pool, &err);
}

enum { FIRST_ROOT = POOL_ROOT_SLOTS + 1 }; /* of a new pool */

/* A closed world with root number `last`. */
static struct sim_world *world_with_roots(unsigned n, uint64_t last)
{
    struct sim_world *w = sim_pool_world(n, n);
    disks = n;
    sim_pool_run(w, create, (void *)(uintptr_t)(last - FIRST_ROOT));
    assert_true(pool->root.now.number == last);
    pool_abandon(pool);
    pool = NULL;
    return sim_pool_reboot(w, 5);
}

static uint64_t slot_at(uint64_t number, bool tail)
{
    uint64_t area = tail ? SIM_POOL_DISK_BYTES - POOL_LABEL_AREA : 0;
    return area + POOL_ROOT_AT + number % POOL_ROOT_SLOTS * ROOT_BYTES;
}

static void damage(struct sim_world *w, const char *disk, uint64_t number, bool tail)
{
    sim_disk_flip_bit(sim_disk_find(w, disk), slot_at(number, tail) + 100, 3);
}

static void end(struct sim_world *w)
{
    pool_abandon(pool);
    pool = NULL;
    sim_world_free(w);
    assert_checked();
}

static void one_whole_copy_of_the_newest_root_is_enough(void **state)
{
    (void)state;
    for (unsigned good = 0; good < 4; good++) {
        struct sim_world *w = world_with_roots(2, 20);
        for (unsigned i = 0; i < 4; i++)
            if (i != good)
                damage(w, i / 2 ? "d1" : "d0", 20, i % 2);
        sim_pool_run(w, import, NULL);
        check_ok(import_rc);
        check_equal(sim_pool_counter(pool, 1), 10);
        check_equal(pool->root.now.number, 21);
        end(w);
    }
}

static void a_newest_root_damaged_in_every_copy_is_refused_not_forgotten(void **state)
{
    (void)state;
    for (uint64_t last = FIRST_ROOT; last < FIRST_ROOT + 18; last++) {
        struct sim_world *w = world_with_roots(2, last);
        for (unsigned i = 0; i < 4; i++)
            damage(w, i / 2 ? "d1" : "d0", last, i % 2);
        sim_pool_run(w, import, NULL);
        check_equal(import_rc, VP_E_ROOT_STALE);
        end(w);
    }
}

static void a_newest_root_that_is_empty_in_every_copy_is_refused_too(void **state)
{
    (void)state;
    static uint8_t zeros[ROOT_BYTES];
    for (uint64_t last = FIRST_ROOT; last < FIRST_ROOT + 10; last++) {
        struct sim_world *w = world_with_roots(2, last);
        for (unsigned i = 0; i < 4; i++)
            sim_disk_poke(sim_disk_find(w, i / 2 ? "d1" : "d0"), slot_at(last, i % 2), zeros,
                          sizeof(zeros));
        sim_pool_run(w, import, NULL);
        check_equal(import_rc, VP_E_ROOT_STALE);
        end(w);
    }
}

static void a_root_torn_on_all_heads_never_was(void **state)
{
    (void)state;
    struct sim_world *w = world_with_roots(2, 20);
    /* What a cut leaves on disks that tear a page: the heads of root 21 in pieces. */
    uint8_t torn[512];
    memset(torn, 0x77, sizeof(torn));
    sim_disk_poke(sim_disk_find(w, "d0"), slot_at(21, false), torn, sizeof(torn));
    sim_disk_poke(sim_disk_find(w, "d1"), slot_at(21, false), torn, sizeof(torn));
    sim_pool_run(w, import, NULL);
    check_ok(import_rc);
    check_equal(sim_pool_counter(pool, 1), 10);
    end(w);
}

static void no_root_at_all_is_said_so(void **state)
{
    (void)state;
    struct sim_world *w = world_with_roots(1, FIRST_ROOT);
    static uint8_t zeros[POOL_ROOT_SLOTS * ROOT_BYTES];
    sim_disk_poke(sim_disk_find(w, "d0"), slot_at(0, false), zeros, sizeof(zeros));
    sim_disk_poke(sim_disk_find(w, "d0"), slot_at(0, true), zeros, sizeof(zeros));
    sim_pool_run(w, import, NULL);
    check_equal(import_rc, VP_E_ROOT_NONE);
    end(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_root_decodes_to_what_was_encoded),
        cmocka_unit_test(deltas_are_known_by_an_incompatible_feature),
        cmocka_unit_test(a_disk_that_is_filled_is_known_by_an_incompatible_feature),
        cmocka_unit_test(a_root_with_any_bit_flipped_is_not_a_root),
        cmocka_unit_test(a_root_of_another_pool_is_not_a_root),
        cmocka_unit_test(unknown_features_and_versions_are_refused_by_name),
        cmocka_unit_test(sealed_nonsense_is_refused_or_decodes_within_bounds),
        cmocka_unit_test(one_whole_copy_of_the_newest_root_is_enough),
        cmocka_unit_test(a_newest_root_damaged_in_every_copy_is_refused_not_forgotten),
        cmocka_unit_test(a_newest_root_that_is_empty_in_every_copy_is_refused_too),
        cmocka_unit_test(a_root_torn_on_all_heads_never_was),
        cmocka_unit_test(no_root_at_all_is_said_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

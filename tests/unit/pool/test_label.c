/* Labels: every flipped bit, torn and missing copies, hostile fields, swapped disks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/crc.h"
#include "io/sim.h"
#include "pool/disk_impl.h"
#include "pool/label_format.h"
#include "tests/lib/on_reactor.h"

enum { DISK_BYTES = 16 << 20 };

static struct pool_label sample(void)
{
    struct pool_label l = {
        .pool_uuid = {{1, 2, 3}},
        .disk_uuid = {{9, 8, 7}},
        .pool_name = "tank",
        .disk_index = 1,
        .disk_count = 3,
        .geometry = {64 << 10, 1 << 20, 64 << 10},
        .size_bytes = DISK_BYTES,
        .epoch = 1,
    };
    return l;
}

static void seal(struct pool_label_disk *d)
{
    d->crc = le32_make(0);
    d->crc = le32_make(vp_crc32c(d, sizeof(*d)));
}

static void a_label_survives_encoding(void **state)
{
    (void)state;
    struct pool_label in = sample(), out;
    uint8_t block[4096];
    pool_label_encode(&in, block);
    assert_int_equal(pool_label_decode(block, &out), 0);
    assert_true(vp_uuid_equal(in.pool_uuid, out.pool_uuid));
    assert_true(vp_uuid_equal(in.disk_uuid, out.disk_uuid));
    assert_string_equal(in.pool_name, out.pool_name);
    assert_memory_equal(&in.geometry, &out.geometry, sizeof(in.geometry));
    assert_int_equal(in.size_bytes, out.size_bytes);
    assert_int_equal(in.disk_index, out.disk_index);
    assert_int_equal(in.disk_count, out.disk_count);
    assert_int_equal(in.epoch, out.epoch);
}

static void every_flipped_bit_is_noticed(void **state)
{
    (void)state;
    struct pool_label in = sample(), out;
    uint8_t block[4096];
    pool_label_encode(&in, block);
    for (unsigned bit = 0; bit < sizeof(block) * 8; bit++) {
        block[bit / 8] ^= (uint8_t)(1U << bit % 8);
        int rc = pool_label_decode(block, &out);
        assert_true(rc == VP_E_LABEL_BAD || rc == VP_E_LABEL_NONE);
        block[bit / 8] ^= (uint8_t)(1U << bit % 8);
    }
}

static void an_unknown_version_or_feature_is_refused_by_name(void **state)
{
    (void)state;
    struct pool_label in = sample(), out;
    struct pool_label_disk d;
    pool_label_encode(&in, &d);
    d.version = le32_make(POOL_LABEL_VERSION + 1);
    seal(&d);
    assert_int_equal(pool_label_decode(&d, &out), VP_E_LABEL_VERSION);
    in.features_incompat = UINT64_C(1) << 63;
    pool_label_encode(&in, &d);
    assert_int_equal(pool_label_decode(&d, &out), VP_E_FEATURE_UNKNOWN);
    in = sample();
    in.features_ro = 1;
    pool_label_encode(&in, &d);
    assert_int_equal(pool_label_decode(&d, &out), VP_E_FEATURE_UNKNOWN);
    in = sample();
    in.features_compat = ~UINT64_C(0);
    pool_label_encode(&in, &d);
    assert_int_equal(pool_label_decode(&d, &out), 0);
}

static void fields_out_of_range_are_refused_behind_a_good_checksum(void **state)
{
    (void)state;
    struct pool_label good = sample(), bad[11], out;
    for (unsigned i = 0; i < 11; i++)
        bad[i] = good;
    bad[0].pool_name[0] = 0;
    bad[1].disk_index = POOL_DISKS_MAX;
    bad[2].disk_count = 0;
    bad[3].disk_count = POOL_DISKS_MAX + 1;
    bad[4].geometry.chunk_bytes = 65537;
    bad[5].geometry.extent_bytes = 0;
    bad[6].geometry.log_segment_bytes = 2 << 20;
    bad[7].size_bytes = 4096;
    bad[8].size_bytes = DISK_BYTES + 512;
    bad[9].size_bytes = UINT64_MAX - 4095;
    bad[10].epoch = 0;
    for (unsigned i = 0; i < 11; i++) {
        uint8_t block[4096];
        pool_label_encode(&bad[i], block);
        assert_int_equal(pool_label_decode(block, &out), VP_E_LABEL_BAD);
    }
}

/* ---- on a disk ----------------------------------------------------------------------------- */

static struct sim_world *world;
static struct sim_disk *disk;

static void with_disk(uint64_t bytes, void (*body)(void *arg))
{
    world = sim_world_new(3);
    struct sim_disk_config c = {.name = "d0",
                                .size_bytes = bytes,
                                .sector_bytes = 4096,
                                .atomic_bytes = 4096,
                                .latency_min_ns = 1,
                                .latency_max_ns = 9};
    disk = sim_disk_add(world, &c);
    struct reactor_config config = {.sim = world};
    on_reactor(&config, body, NULL);
    sim_world_free(world);
    assert_checked();
}

static void poke_label(const struct pool_label *l, unsigned copy)
{
    uint8_t block[4096];
    pool_label_encode(l, block);
    sim_disk_poke(disk, pool_label_at(pool_tail_bytes(l->size_bytes), copy), block, sizeof(block));
}

static int read_label(struct pool_label *out)
{
    struct io_dev *dev;
    check_ok(io_dev_open("d0", IO_OPEN_READ_ONLY | IO_OPEN_SHARED, &dev, NULL));
    int rc = pool_label_read(dev, out);
    io_dev_close(dev);
    return rc;
}

static void body_any_copy(void *arg)
{
    (void)arg;
    struct pool_label l = sample(), out;
    check_equal(read_label(&out), VP_E_LABEL_NONE); /* noise */
    for (unsigned copy = 0; copy < POOL_LABEL_COPIES; copy++) {
        for (unsigned other = 0; other < POOL_LABEL_COPIES; other++) {
            poke_label(&l, other);
            if (other != copy)
                sim_disk_flip_bit(disk, pool_label_at(pool_tail_bytes(DISK_BYTES), other) + 700, 3);
        }
        check_ok(read_label(&out));
        check(strcmp(out.pool_name, "tank") == 0);
    }
    for (unsigned copy = 0; copy < POOL_LABEL_COPIES; copy++)
        sim_disk_flip_bit(disk, pool_label_at(pool_tail_bytes(DISK_BYTES), copy) + 900, 1);
    check_equal(read_label(&out), VP_E_LABEL_BAD);
}
static void a_torn_label_falls_back_to_its_copy(void **state)
{
    (void)state;
    with_disk(DISK_BYTES, body_any_copy);
}

static void body_unreadable(void *arg)
{
    (void)arg;
    struct pool_label l = sample(), out;
    for (unsigned copy = 0; copy < POOL_LABEL_COPIES; copy++)
        poke_label(&l, copy);
    for (unsigned copy = 0; copy < POOL_LABEL_COPIES - 1; copy++)
        sim_disk_inject(disk, SIM_FAULT_ERROR, 1 << IO_READ, 0, 0);
    check_ok(read_label(&out));
}
static void unreadable_copies_fall_back_too(void **state)
{
    (void)state;
    with_disk(DISK_BYTES, body_unreadable);
}

static void body_newest(void *arg)
{
    (void)arg;
    struct pool_label l = sample(), out;
    for (unsigned copy = 0; copy < POOL_LABEL_COPIES; copy++) {
        l.epoch = copy == 2 ? 7 : copy + 1;
        poke_label(&l, copy);
    }
    check_ok(read_label(&out));
    check_equal(out.epoch, 7);
}
static void of_copies_that_differ_the_highest_epoch_counts(void **state)
{
    (void)state;
    with_disk(DISK_BYTES, body_newest);
}

static void body_grown(void *arg)
{
    (void)arg;
    struct pool_label l = sample(), out;
    l.size_bytes = DISK_BYTES / 2;
    poke_label(&l, 0);
    check_ok(read_label(&out));
    check_equal(out.size_bytes, DISK_BYTES / 2);
}
static void a_disk_that_has_grown_keeps_its_size(void **state)
{
    (void)state;
    with_disk(DISK_BYTES, body_grown);
}

static void body_shrunk(void *arg)
{
    (void)arg;
    struct pool_label l = sample(), out;
    uint8_t block[4096];
    l.size_bytes = DISK_BYTES;
    pool_label_encode(&l, block);
    sim_disk_poke(disk, 0, block, sizeof(block));
    check_equal(read_label(&out), VP_E_LABEL_BAD);
}
static void a_disk_that_has_shrunk_is_refused(void **state)
{
    (void)state;
    with_disk(DISK_BYTES - 4096, body_shrunk);
}

static void body_tiny(void *arg)
{
    (void)arg;
    struct pool_label out;
    check_equal(read_label(&out), VP_E_LABEL_NONE);
}
static void a_disk_too_small_for_a_label_has_none(void **state)
{
    (void)state;
    with_disk(4096, body_tiny);
    with_disk(1 << 20, body_tiny);
    with_disk((8 << 20) - 4096, body_tiny);
}

/* ---- geometry ------------------------------------------------------------------------------ */

static void the_geometry_follows_the_smallest_disk(void **state)
{
    (void)state;
    static const struct {
        uint64_t size;
        uint32_t extent, segment;
    } want[] = {
        {UINT64_C(16) << 20, 1 << 20, 64 << 10},  {UINT64_C(4) << 30, 1 << 20, 64 << 10},
        {UINT64_C(100) << 30, 16 << 20, 1 << 20}, {UINT64_C(1) << 40, 256 << 20, 1 << 20},
        {UINT64_C(20) << 40, 1 << 30, 1 << 20},
    };
    for (unsigned i = 0; i < sizeof(want) / sizeof(want[0]); i++) {
        struct pool_geometry g = {0};
        assert_int_equal(pool_geometry_choose(&g, want[i].size, NULL), 0);
        assert_int_equal(g.chunk_bytes, 64 << 10);
        assert_int_equal(g.extent_bytes, want[i].extent);
        assert_int_equal(g.log_segment_bytes, want[i].segment);
        assert_true(pool_geometry_is_valid(&g));
    }
}

static void a_bad_geometry_is_refused_with_a_sentence(void **state)
{
    (void)state;
    static const struct pool_geometry bad[] = {
        {8 << 10, 0, 0}, {2 << 20, 0, 0}, {48 << 10, 0, 0},      {0, 512 << 10, 0},
        {0, 3 << 20, 0}, {0, 0, 8 << 10}, {0, 1 << 20, 2 << 20}, {0, 0, 20000},
    };
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct pool_geometry g = bad[i];
        struct vp_error err = {0};
        assert_int_equal(pool_geometry_choose(&g, UINT64_C(1) << 40, &err), VP_E_INVALID);
        assert_true(err.text[0] != 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_label_survives_encoding),
        cmocka_unit_test(every_flipped_bit_is_noticed),
        cmocka_unit_test(an_unknown_version_or_feature_is_refused_by_name),
        cmocka_unit_test(fields_out_of_range_are_refused_behind_a_good_checksum),
        cmocka_unit_test(a_torn_label_falls_back_to_its_copy),
        cmocka_unit_test(unreadable_copies_fall_back_too),
        cmocka_unit_test(of_copies_that_differ_the_highest_epoch_counts),
        cmocka_unit_test(a_disk_that_has_grown_keeps_its_size),
        cmocka_unit_test(a_disk_that_has_shrunk_is_refused),
        cmocka_unit_test(a_disk_too_small_for_a_label_has_none),
        cmocka_unit_test(the_geometry_follows_the_smallest_disk),
        cmocka_unit_test(a_bad_geometry_is_refused_with_a_sentence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Requests: any byte range, parallel ones, zero, discard, extents, resize under way. */
#include "tests/lib/on_reactor.h"
#include "tests/lib/sim_volumes.h"

#include "base/bytes.h"
#include "base/hash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define KIB(n) ((uint64_t)(n) << 10)
#define MIB(n) ((uint64_t)(n) << 20)

static void play(void (*body)(struct sim_volumes *s), uint64_t seed)
{
    struct sim_volumes *s = sim_volumes_new(&(struct sim_volumes_config){.seed = seed});
    sim_volumes_run(s, body);
    sim_volumes_free(s);
    assert_checked();
}

/* ---- against a model ---------------------------------------------------------------------- */

enum { MODEL_BYTES = 300 << 10 };
static uint8_t model[MODEL_BYTES], seen[MODEL_BYTES], data[MODEL_BYTES];

static CO void compare(struct volume *v, const char *when)
{
    check_ok(volume_read(v, 0, MODEL_BYTES, seen));
    if (!check(memcmp(seen, model, MODEL_BYTES) == 0))
        fprintf(stderr, "  %s\n", when);
}

static CO void write_both(struct volume *v, uint64_t offset, uint64_t len, uint8_t value)
{
    memset(data, value, len);
    memset(model + offset, value, len);
    check_ok(volume_write(v, offset, len, data, 0));
}

static CO void one_byte_everywhere(struct sim_volumes *s)
{
    struct volume *v = sim_volumes_volume(s, "v", MODEL_BYTES);
    if (!v)
        return;
    memset(model, 0, MODEL_BYTES);
    static const uint64_t places[] = {0,    1,     511,   512,   4095,  4096,           4097,
                                      8191, 65535, 65536, 65537, 99999, MODEL_BYTES - 1};
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++)
        write_both(v, places[i], 1, (uint8_t)(i + 1));
    compare(v, "after single bytes");
    for (uint64_t i = 0; i < 600; i++)
        write_both(v, 4096 * 20 - 300 + i, 1, (uint8_t)i);
    compare(v, "after each byte across a block's end");
}

static void one_byte_can_be_written_at_any_offset(void **state)
{
    (void)state;
    play(one_byte_everywhere, 1);
}

static CO void random_operation(struct volume *v, uint64_t r)
{
    uint64_t offset = hash_mix(r) % MODEL_BYTES;
    uint64_t most = r & 1 ? 10000 : 100000;
    uint64_t len = 1 + hash_mix(r + 1) % min_u64(most, MODEL_BYTES - offset);
    uint64_t whole = align_up(offset, 4096), whole_end = align_down(offset + len, 4096);
    switch (hash_mix(r + 2) % 6) {
    case 0:
        memset(model + offset, 0, len);
        check_ok(volume_zero(v, offset, len, r & 2 ? VOLUME_NO_HOLE : 0));
        break;
    case 1:
        if (whole < whole_end)
            memset(model + whole, 0, whole_end - whole);
        check_ok(volume_discard(v, offset, len, 0));
        break;
    case 2:
        check_ok(volume_flush(v));
        break;
    default:
        write_both(v, offset, len, (uint8_t)r);
    }
}

static CO void random_operations(struct sim_volumes *s)
{
    struct volume *v = sim_volumes_volume(s, "v", MODEL_BYTES);
    memset(model, 0, MODEL_BYTES);
    for (uint64_t i = 0; v && i < 400; i++) {
        random_operation(v, hash_mix(s->config.seed * 1000 + i));
        if (i % 20 == 0)
            compare(v, "after random operations");
        if (i % 97 == 0)
            check_ok(pool_checkpoint(volumes_pool(s->vs)));
    }
}

static void random_ranges_behave_like_a_model(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 5; seed++) {
        print_message("seed %llu\n", (unsigned long long)seed);
        play(random_operations, seed);
    }
}

static void model_is_there_again(struct sim_volumes *s)
{
    struct volume *v = sim_volumes_open(s, "v");
    if (v)
        compare(v, "after a restart");
}

static CO void random_operations_flushed(struct sim_volumes *s)
{
    random_operations(s);
    struct volume *v = sim_volumes_open(s, "v");
    check_ok(volume_flush(v));
}

static void what_was_flushed_is_there_after_a_power_cut(void **state)
{
    (void)state;
    for (uint64_t seed = 11; seed <= 15; seed++) {
        struct sim_volumes *s = sim_volumes_new(&(struct sim_volumes_config){.seed = seed});
        sim_volumes_run(s, random_operations_flushed);
        sim_volumes_power_cut(s, seed);
        sim_volumes_run(s, model_is_there_again);
        sim_volumes_power_cut(s, seed + 100);
        sim_volumes_run(s, model_is_there_again);
        sim_volumes_free(s);
        print_message("seed %llu\n", (unsigned long long)seed);
        assert_checked();
    }
}

/* ---- in parallel -------------------------------------------------------------------------- */

struct part {
    struct volume *v;
    struct co_group *group;
    uint64_t offset, len;
    uint8_t value;
    bool whole;
    uint8_t *buf;
};

static void part_write(void *arg)
{
    struct part *p = arg;
    memset(p->buf, p->value, p->len);
    co_group_leave(p->group, volume_write(p->v, p->offset, p->len, p->buf, 0));
}

static uint8_t part_buffer[16][MODEL_BYTES] __attribute__((aligned(4096)));

static CO void neighbours(struct sim_volumes *s)
{
    struct volume *v = sim_volumes_volume(s, "v", MODEL_BYTES);
    struct part part[16];
    struct co_group g;
    for (unsigned round = 0; v && round < 5; round++) {
        co_group_init(&g);
        for (unsigned i = 0; i < 16; i++) {
            part[i] = (struct part){
                v, &g, 4096 + i * 256, 256, (uint8_t)(round * 16 + i), false, part_buffer[i]};
            co_group_enter(&g);
            check_ok(co_spawn(part_write, &part[i], "part"));
        }
        check_ok(co_group_wait(&g));
        check_ok(volume_read(v, 4096, 4096, seen));
        for (unsigned i = 0; i < 4096; i++)
            check_equal(seen[i], (uint8_t)(round * 16 + i / 256));
    }
}

static void parallel_writers_of_one_blocks_parts_lose_nothing(void **state)
{
    (void)state;
    play(neighbours, 3);
}

static void part_read(void *arg)
{
    struct part *p = arg;
    int rc = volume_read(p->v, p->offset, p->len, p->buf);
    for (uint64_t b = 0; b < p->len; b += 4096)
        for (uint64_t i = 1; i < 4096; i++)
            if (p->buf[b + i] != p->buf[b]) {
                check(p->buf[b + i] == p->buf[b]);
                i = 4096;
            }
    co_group_leave(p->group, rc);
}

static CO void overlapping(struct sim_volumes *s)
{
    struct volume *v = sim_volumes_volume(s, "v", MODEL_BYTES);
    struct part part[16];
    struct co_group g;
    for (unsigned round = 0; v && round < 10; round++) {
        co_group_init(&g);
        for (unsigned i = 0; i < 16; i++) {
            uint64_t r = hash_mix(round * 16 + i);
            uint64_t block = r % 60, count = 1 + (r >> 20) % (70 - block);
            part[i] = (struct part){
                v, &g, block * 4096, count * 4096, (uint8_t)(r >> 40), false, part_buffer[i]};
            co_group_enter(&g);
            check_ok(co_spawn(i % 2 ? part_write : part_read, &part[i], "part"));
        }
        check_ok(co_group_wait(&g));
    }
}

static void readers_see_whole_blocks_while_writers_overlap(void **state)
{
    (void)state;
    play(overlapping, 4);
}

/* ---- bounds ------------------------------------------------------------------------------- */

static CO void bounds(struct sim_volumes *s)
{
    struct volume *v = sim_volumes_volume(s, "v", KIB(100) + 512);
    if (!v)
        return;
    uint64_t size = KIB(100) + 512;
    check_equal(volume_size(v), size);
    check_ok(volume_write(v, size - 512, 512, data, VOLUME_FUA));
    check_equal(volume_write(v, size - 511, 512, data, 0), VP_E_RANGE);
    check_equal(volume_read(v, size, 1, seen), VP_E_RANGE);
    check_equal(volume_read(v, UINT64_MAX, 2, seen), VP_E_RANGE);
    check_equal(volume_zero(v, 1, UINT64_MAX, 0), VP_E_RANGE);
    check_equal(volume_discard(v, size + 1, 0, 0), VP_E_RANGE);
    check_ok(volume_read(v, size, 0, seen));
    check_ok(volume_write(v, size, 0, data, 0));
}

static void requests_beyond_the_end_are_refused(void **state)
{
    (void)state;
    play(bounds, 5);
}

static CO void read_only(struct sim_volumes *s)
{
    struct vp_error err;
    struct volume *v = sim_volumes_volume(s, "v", MIB(1));
    if (!v)
        return;
    check(!volume_is_read_only(v));
    check_ok(volume_property_set(s->vs, "v", "read-only", "on", &err));
    check(volume_is_read_only(v));
    check_equal(volume_write(v, 0, 512, data, 0), VP_E_READ_ONLY);
    check_equal(volume_zero(v, 0, 512, 0), VP_E_READ_ONLY);
    check_equal(volume_discard(v, 0, 4096, 0), VP_E_READ_ONLY);
    check_ok(volume_read(v, 0, 512, seen));
}

static void a_read_only_volume_refuses_changes(void **state)
{
    (void)state;
    play(read_only, 6);
}

/* ---- zero and extents --------------------------------------------------------------------- */

static CO void holes(struct sim_volumes *s)
{
    struct volume *v = sim_volumes_volume(s, "v", MIB(1));
    struct volume_extent e[8];
    unsigned n;
    if (!v)
        return;
    memset(data, 7, KIB(128));
    check_ok(volume_write(v, KIB(64), KIB(128), data, 0));
    check_ok(volume_discard(v, KIB(128), KIB(64), 0));
    check_ok(volume_extents(v, 100, MIB(1) - 100, e, 8, &n));
    check_equal(n, 3);
    check(e[0].offset == 100 && e[0].len == KIB(64) - 100 && e[0].hole && e[0].zero);
    check(e[1].offset == KIB(64) && e[1].len == KIB(64) && !e[1].hole && !e[1].zero);
    check(e[2].offset == KIB(128) && e[2].offset + e[2].len == MIB(1) && e[2].hole && e[2].zero);
    check_ok(volume_extents(v, 0, MIB(1), e, 1, &n));
    check_equal(n, 1);
}

static void extents_tell_holes_from_data(void **state)
{
    (void)state;
    play(holes, 7);
}

static CO void zero_detect(struct sim_volumes *s)
{
    struct vp_error err;
    struct volume *v = sim_volumes_volume(s, "v", MIB(1));
    struct volume_info info;
    if (!v)
        return;
    check_ok(volume_property_set(s->vs, "v", "zero-detect", "on", &err));
    memset(data, 0, KIB(128));
    data[KIB(64)] = 1;
    check_ok(volume_write(v, 0, KIB(128), data, 0));
    check_ok(volume_info_get(s->vs, "v", &info));
    check_equal(info.allocated_bytes, KIB(64));
    check_equal(info.valid_bytes, 4096);
}

static void zero_detection_leaves_holes(void **state)
{
    (void)state;
    play(zero_detect, 8);
}

static CO void huge_discard(struct sim_volumes *s)
{
    struct volume *v = sim_volumes_volume(s, "v", UINT64_C(1) << 49);
    struct volume_info info;
    if (!v)
        return;
    check_ok(volume_write(v, UINT64_C(1) << 40, 4096, data, 0));
    check_ok(volume_write(v, UINT64_C(1) << 48, 4096, data, 0));
    check_ok(volume_discard(v, 0, UINT64_C(1) << 49, 0));
    check_ok(volume_info_get(s->vs, "v", &info));
    check_equal(info.allocated_bytes, 0);
}

static void discarding_a_huge_empty_volume_skips_its_holes(void **state)
{
    (void)state;
    play(huge_discard, 9);
}

/* ---- shrinking and growing ---------------------------------------------------------------- */

static CO void shrink_and_grow(struct sim_volumes *s)
{
    struct vp_error err;
    struct volume *v = sim_volumes_volume(s, "v", KIB(256));
    if (!v)
        return;
    memset(data, 9, KIB(256));
    memset(model, 9, KIB(256));
    check_ok(volume_write(v, 0, KIB(256), data, 0));
    check_equal(volume_resize(s->vs, "v", KIB(100) + 512, false, &err), VP_E_SHRINK_REFUSED);
    check_ok(volume_resize(s->vs, "v", KIB(100) + 512, true, &err));
    check_equal(volume_size(v), KIB(100) + 512);
    check_equal(volume_read(v, KIB(101), 1, seen), VP_E_RANGE);
    check_ok(volume_resize(s->vs, "v", KIB(256), false, &err));
    memset(model + KIB(100) + 512, 0, KIB(156) - 512);
    check_ok(volume_read(v, 0, KIB(256), seen));
    check(memcmp(seen, model, KIB(256)) == 0);
}

static void what_a_shrink_cut_off_reads_as_zeros_after_growing_again(void **state)
{
    (void)state;
    play(shrink_and_grow, 10);
}

static CO void shrink_under_writes(struct sim_volumes *s)
{
    struct vp_error err;
    struct volume *v = sim_volumes_volume(s, "v", MODEL_BYTES);
    struct part part[8];
    struct co_group g;
    if (!v)
        return;
    co_group_init(&g);
    for (unsigned i = 0; i < 8; i++) {
        part[i] =
            (struct part){v, &g, i * KIB(32), KIB(32), (uint8_t)(i + 1), true, part_buffer[i]};
        co_group_enter(&g);
        check_ok(co_spawn(part_write, &part[i], "part"));
    }
    co_yield ();
    check_ok(volume_resize(s->vs, "v", KIB(128), true, &err));
    vp_ignore(co_group_wait(&g), "those beyond the end may be refused");
    check_ok(volume_resize(s->vs, "v", MODEL_BYTES, true, &err));
    check_ok(volume_read(v, 0, MODEL_BYTES, seen));
    check(bytes_are_zero(seen + KIB(128), MODEL_BYTES - KIB(128)));
}

static void a_write_under_way_does_not_survive_the_shrink_that_cuts_it_off(void **state)
{
    (void)state;
    play(shrink_under_writes, 11);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_byte_can_be_written_at_any_offset),
        cmocka_unit_test(random_ranges_behave_like_a_model),
        cmocka_unit_test(what_was_flushed_is_there_after_a_power_cut),
        cmocka_unit_test(parallel_writers_of_one_blocks_parts_lose_nothing),
        cmocka_unit_test(readers_see_whole_blocks_while_writers_overlap),
        cmocka_unit_test(requests_beyond_the_end_are_refused),
        cmocka_unit_test(a_read_only_volume_refuses_changes),
        cmocka_unit_test(extents_tell_holes_from_data),
        cmocka_unit_test(zero_detection_leaves_holes),
        cmocka_unit_test(discarding_a_huge_empty_volume_skips_its_holes),
        cmocka_unit_test(what_a_shrink_cut_off_reads_as_zeros_after_growing_again),
        cmocka_unit_test(a_write_under_way_does_not_survive_the_shrink_that_cuts_it_off),
    };
    return cmocka_run_group_tests_name("volumes/request", tests, NULL, NULL);
}

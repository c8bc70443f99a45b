/* A volume's counters of errors are kept in the pool, and go with the volume. */
#include "tests/lib/on_reactor.h"
#include "tests/lib/sim_volumes.h"

#include "base/bytes.h"
#include "volumes/volume_format.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { BLOCK = 4096, LEN = 8 * BLOCK };
static uint8_t data[LEN] __attribute__((aligned(4096)));
static uint8_t back[LEN] __attribute__((aligned(4096)));

/* Flips a bit of block `b` on the disks from `first` to `last`; returns of how many copies. */
static unsigned damage(struct sim_volumes *s, unsigned b, unsigned first, unsigned last)
{
    unsigned hits = 0;
    for (unsigned d = first; d <= last; d++) {
        struct sim_disk *disk = sim_disk_find(s->world, s->name[d]);
        for (uint64_t at = 0; at < s->config.disk_bytes; at += BLOCK) {
            uint8_t there[BLOCK];
            sim_disk_peek(disk, at, there, sizeof(there));
            if (memcmp(there, data + b * BLOCK, BLOCK) != 0)
                continue;
            sim_disk_flip_bit(disk, at + 100, 3);
            hits++;
        }
    }
    return hits;
}

/* No copy of the block can be read. */
static void make_unreadable(struct sim_volumes *s, unsigned b)
{
    for (unsigned d = 0; d < 2; d++) {
        struct sim_disk *disk = sim_disk_find(s->world, s->name[d]);
        for (uint64_t at = 0; at < s->config.disk_bytes; at += BLOCK) {
            uint8_t there[BLOCK];
            sim_disk_peek(disk, at, there, sizeof(there));
            if (memcmp(there, data + b * BLOCK, BLOCK) == 0)
                sim_disk_set_unreadable(disk, at);
        }
    }
}

static CO struct volume_info info_of(struct sim_volumes *s, const char *name)
{
    struct volume_info info = {0};
    check_ok(volume_info_get(s->vs, name, &info));
    return info;
}

static uint64_t healed; /* blocks of v, before the power cut */

static CO void have_errors(struct sim_volumes *s)
{
    struct volume *v = sim_volumes_volume(s, "v", LEN), *w = sim_volumes_volume(s, "w", LEN);
    if (!v || !w)
        return;
    for (unsigned b = 0; b < LEN / BLOCK; b++)
        memset(data + b * BLOCK, 'a' + (int)b, BLOCK);
    check_ok(volume_write(v, 0, LEN, data, VOLUME_FUA));
    /* A read takes one copy, in the end always the same one: it meets the damage of block 0 or that
     * of block 1. */
    check_equal(damage(s, 0, 0, 0), 1);
    check_equal(damage(s, 1, 1, 1), 1);
    check_equal(damage(s, 2, 0, 1), 2);
    for (unsigned i = 0; i < 8; i++)
        check_ok(volume_read(v, i % 2 * BLOCK, BLOCK, back));
    healed = figure_get(&info_of(s, "v").figures->healed_blocks);
    check(healed >= 1 && healed <= 2);
    check_equal(volume_read(v, 2 * BLOCK, BLOCK, back), VP_E_CHECKSUM);
    make_unreadable(s, 3);
    check_equal(volume_read(v, 3 * BLOCK, BLOCK, back), VP_E_RAID_NO_COPY);
    check_equal(figure_get(&info_of(s, "v").figures->checksum_errors), 2);
    check_ok(volumes_errors_save(s->vs));
    check_equal(volume_read(v, 2 * BLOCK, BLOCK, back), VP_E_CHECKSUM); /* after the last save */
}

static CO void see_them(struct sim_volumes *s)
{
    struct volume_info v = info_of(s, "v"), w = info_of(s, "w");
    check_equal(figure_get(&v.figures->checksum_errors), 2);
    check_equal(figure_get(&v.figures->healed_blocks), healed);
    check_equal(figure_get(&w.figures->checksum_errors) + figure_get(&w.figures->healed_blocks), 0);
    check(v.errors_since > 0 && v.errors_since <= reactor_wall_seconds());
    check(pool_record_get(volumes_pool(s->vs), POOL_RECORD_COUNTER, v.id, VOLUME_COUNTER_ERRORS,
                          &(struct pool_record){0}));
    check(!pool_record_get(volumes_pool(s->vs), POOL_RECORD_COUNTER, w.id, VOLUME_COUNTER_ERRORS,
                           &(struct pool_record){0}));
}

static CO void go_on(struct sim_volumes *s)
{
    see_them(s);
    struct volume *v = sim_volumes_open(s, "v");
    if (!v)
        return;
    check_equal(volume_read(v, 2 * BLOCK, BLOCK, back), VP_E_CHECKSUM);
    volume_close(v);
    check_equal(figure_get(&info_of(s, "v").figures->checksum_errors), 3);
    check_ok(volumes_errors_save(s->vs));
    check_ok(sim_volumes_close(s));
}

static CO void clear(struct sim_volumes *s)
{
    check_equal(figure_get(&info_of(s, "v").figures->checksum_errors), 3);
    volumes_errors_clear(s->vs);
    check_equal(figure_get(&info_of(s, "v").figures->checksum_errors), 0);
    check_equal(figure_get(&info_of(s, "v").figures->healed_blocks), 0);
    check_ok(volumes_errors_save(s->vs));
}

static CO void see_none_and_delete(struct sim_volumes *s)
{
    struct vp_error err = {0};
    struct pool_record r;
    struct volume_info v = info_of(s, "v");
    check_equal(figure_get(&v.figures->checksum_errors) + figure_get(&v.figures->healed_blocks), 0);
    check(
        pool_record_get(volumes_pool(s->vs), POOL_RECORD_COUNTER, v.id, VOLUME_COUNTER_ERRORS, &r));
    volumes_errors_clear(s->vs); /* to be saved, but for a volume that goes */
    check_ok(volume_delete(s->vs, "v", &err));
    for (unsigned i = 0; i < 2; i++) {
        check_ok(volumes_errors_save(s->vs));
        sim_volumes_settle(s);
        check_ok(pool_checkpoint(volumes_pool(s->vs)));
    }
    sim_volumes_settle(s);
    check(!pool_record_get(volumes_pool(s->vs), POOL_RECORD_VOLUME, v.id, 0, &r));
    check(!pool_record_get(volumes_pool(s->vs), POOL_RECORD_COUNTER, v.id, VOLUME_COUNTER_ERRORS,
                           &r));
}

static void errors_are_known_after_a_power_cut_until_they_are_cleared(void **state)
{
    (void)state;
    struct sim_volumes *s =
        sim_volumes_new(&(struct sim_volumes_config){.seed = 1, .profile = "mirror"});
    sim_volumes_run(s, have_errors);
    assert_checked();
    sim_volumes_power_cut(s, 2);
    sim_volumes_run(s, see_them);
    assert_checked();
    sim_volumes_run(s, go_on);
    sim_volumes_run(s, clear);
    sim_volumes_power_cut(s, 3);
    sim_volumes_run(s, see_none_and_delete);
    sim_volumes_free(s);
    assert_checked();
}

/* A record that is too short, or one that a later release made longer. */
static CO void foreign_records(struct sim_volumes *s)
{
    struct volume *v = sim_volumes_volume(s, "v", LEN), *w = sim_volumes_volume(s, "w", LEN);
    if (!v || !w)
        return;
    uint8_t bytes[sizeof(struct volume_errors_disk) + 8];
    memset(bytes, 1, sizeof(bytes));
    struct pool_batch b;
    pool_batch_init(&b);
    pool_batch_set(&b, POOL_RECORD_COUNTER, info_of(s, "v").id, VOLUME_COUNTER_ERRORS, bytes, 23);
    pool_batch_set(&b, POOL_RECORD_COUNTER, info_of(s, "w").id, VOLUME_COUNTER_ERRORS, bytes,
                   sizeof(bytes));
    check_ok(pool_commit(volumes_pool(s->vs), &b));
    pool_batch_fini(&b);
}

static CO void see_what_decodes(struct sim_volumes *s)
{
    check_equal(figure_get(&info_of(s, "v").figures->checksum_errors), 0);
    check_equal(figure_get(&info_of(s, "w").figures->checksum_errors),
                UINT64_C(0x0101010101010101));
}

static void a_record_that_does_not_decode_counts_from_zero(void **state)
{
    (void)state;
    struct sim_volumes *s = sim_volumes_new(&(struct sim_volumes_config){.seed = 4});
    sim_volumes_run(s, foreign_records);
    sim_volumes_run(s, see_what_decodes);
    sim_volumes_free(s);
    assert_checked();
}

/* ---- saves that fail ------------------------------------------------------------------------ */

static CO void save_twice(struct sim_volumes *s)
{
    struct volume *v = sim_volumes_volume(s, "v", LEN);
    if (!v)
        return;
    memset(data, 'x', LEN);
    check_ok(volume_write(v, 0, LEN, data, VOLUME_FUA));
    check(damage(s, 0, 0, 0) > 0);
    check_equal(volume_read(v, 0, LEN, back), VP_E_CHECKSUM);
    check_ok(volumes_errors_save(s->vs));
    sim_disk_fail(sim_disk_find(s->world, "d0"), 1 << IO_WRITE, RAID_METADATA_TRIES);
    check_ok(volumes_errors_save(s->vs)); /* nothing has changed: nothing is written */
    check_equal(volume_read(v, 0, LEN, back), VP_E_CHECKSUM);
    check(volumes_errors_save(s->vs) != 0);
    check(volumes_errors_save(s->vs) != 0); /* tried again */
}

static void a_save_that_failed_is_tried_again(void **state)
{
    (void)state;
    struct sim_volumes *s = sim_volumes_new(&(struct sim_volumes_config){.seed = 5, .disks = 1});
    sim_volumes_run(s, save_twice);
    sim_volumes_free(s);
    assert_checked();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors_are_known_after_a_power_cut_until_they_are_cleared),
        cmocka_unit_test(a_record_that_does_not_decode_counts_from_zero),
        cmocka_unit_test(a_save_that_failed_is_tried_again),
    };
    return cmocka_run_group_tests_name("volumes/errors", tests, NULL, NULL);
}

/* All copies are compared with their checksums, healed and named. */
#include "tests/lib/on_reactor.h"
#include "tests/lib/sim_volumes.h"

#include "base/bitmap.h"
#include "pool/disk_impl.h"
#include "pool/job.h"
#include "pool/meta_impl.h"
#include "volumes/volume_format.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { LEN = 8 << 20, BLOCK = 4096, DISK_BYTES = 64 << 20 };
static uint8_t data[LEN] __attribute__((aligned(4096)));
static uint8_t copy[LEN] __attribute__((aligned(4096)));

/* No two blocks are equal. */
static void data_new(unsigned seed)
{
    for (size_t i = 0; i < LEN; i++)
        data[i] = (uint8_t)(seed + (i & 4095));
    for (uint32_t b = 0; b < LEN / BLOCK; b++)
        memcpy(data + (size_t)b * BLOCK, &b, sizeof(b));
}

static CO struct volume *mirrored(struct sim_volumes *s, const char *name)
{
    struct volume_options o = {.size_bytes = LEN, .has_profile = true};
    struct vp_error err;
    (void)raid_profile_parse("mirror", &o.profile);
    check_ok(volume_create(s->vs, name, &o, &err));
    return sim_volumes_open(s, name);
}

static CO void write_all(struct volume *v, unsigned seed)
{
    data_new(seed);
    check_ok(volume_write(v, 0, LEN, data, 0));
    check_ok(volume_flush(v));
}

static CO void check_all(struct volume *v)
{
    memset(copy, 0, LEN);
    check_ok(volume_read(v, 0, LEN, copy));
    check(memcmp(copy, data, LEN) == 0);
}

static struct sim_disk *disk(struct sim_volumes *s, unsigned i)
{
    return sim_disk_find(s->world, s->name[i]);
}

/* Where block number `block` of the data is on a disk; 0: nowhere. */
static uint64_t place_of(struct sim_disk *d, uint32_t block)
{
    static uint8_t there[BLOCK];
    for (uint64_t at = 0; at < DISK_BYTES; at += BLOCK) {
        sim_disk_peek(d, at, there, BLOCK);
        if (memcmp(there, data + (size_t)block * BLOCK, BLOCK) == 0)
            return at;
    }
    check(!"the block is on the disk");
    return 0;
}

static void rot(struct sim_volumes *s, unsigned i, uint32_t block)
{
    sim_disk_flip_bit(disk(s, i), place_of(disk(s, i), block) + 100, 3);
}

static CO void starts(struct sim_volumes *s, uint64_t limit)
{
    struct vp_error err = {0};
    check_ok(volumes_scrub_start(s->vs, limit, &err));
    check(volumes_scrub_job(s->vs) != NULL);
    check_equal(volumes_scrub_start(s->vs, 0, &err), VP_E_BUSY);
}

static CO const struct volumes_scrub_report *scrubbed(struct sim_volumes *s)
{
    starts(s, 0);
    sim_volumes_settle(s);
    const struct volumes_scrub_report *r = volumes_scrub_report(s->vs);
    check(volumes_scrub_job(s->vs) == NULL);
    check(r->ended != 0);
    return r;
}

static void check_finding(const struct volumes_scrub_report *r, unsigned i, unsigned in_disk,
                          uint32_t block, uint32_t count, enum raid_found found)
{
    check(r->findings > i);
    const struct volumes_scrub_finding *f = &r->finding[i];
    if (f->disk != in_disk || f->offset != (uint64_t)block * BLOCK ||
        f->bytes != (uint64_t)count * BLOCK || f->found != found)
        print_error("finding %u: disk %u, %llu bytes at %llu, %d\n", i, f->disk,
                    (unsigned long long)f->bytes, (unsigned long long)f->offset, (int)f->found);
    check_equal(f->disk, in_disk);
    check_equal(f->offset, (uint64_t)block * BLOCK);
    check_equal(f->bytes, (uint64_t)count * BLOCK);
    check_equal(f->found, found);
}

/* One life after the other; with a power cut in between. */
static void run_bodies(unsigned disks, sim_volumes_body *const *bodies, unsigned count)
{
    sim_volumes_lives(&(struct sim_volumes_config){.seed = 7, .disks = disks, .profile = "mirror"},
                      bodies, count);
    assert_checked();
}

/* ---- what it finds -------------------------------------------------------------------------- */

static CO void is_sound(struct sim_volumes *s)
{
    struct volume *v = mirrored(s, "safe");
    check_equal(volumes_scrub_report(s->vs)->state, VOLUMES_SCRUB_NONE);
    struct vp_error err = {0};
    check_equal(volumes_scrub_stop(s->vs, &err), VP_E_NOT_FOUND);
    if (!v)
        return;
    write_all(v, 1);
    check_ok(volume_discard(v, LEN / 2, LEN / 4, 0));
    const struct volumes_scrub_report *r = scrubbed(s);
    check_equal(r->state, VOLUMES_SCRUB_DONE);
    check_equal(r->compared_bytes, 2 * (LEN - LEN / 4)); /* only what is allocated */
    check_equal(r->findings, 0);
    check_equal(r->healed_blocks + r->bad_blocks + r->lost_blocks, 0);
    volume_close(v);
}

static void a_scrub_compares_all_copies_of_what_is_allocated(void **state)
{
    (void)state;
    run_bodies(2, (sim_volumes_body *const[]){is_sound}, 1);
}

static CO void rots(struct sim_volumes *s)
{
    struct volume *v = mirrored(s, "safe");
    if (!v)
        return;
    write_all(v, 1);
    uint64_t place = place_of(disk(s, 0), 1000);
    for (uint32_t b = 300; b < 303; b++)
        rot(s, 1, b);
    rot(s, 0, 301);
    rot(s, 0, 1000); /* and on the other disk, below: lost */
    rot(s, 1, 1000);
    const struct volumes_scrub_report *r = scrubbed(s);
    check_equal(r->state, VOLUMES_SCRUB_DONE);
    check_equal(r->healed_blocks, 2);
    check_equal(r->lost_blocks, 4); /* bad copies: blocks 301 and 1000, of both disks */
    check_finding(r, 0, 1, 300, 1, RAID_HEALED);
    check_finding(r, 1, 0, 301, 1, RAID_LOST);
    check_finding(r, 2, 1, 301, 1, RAID_LOST);
    check_finding(r, 3, 1, 302, 1, RAID_HEALED);
    check_equal(r->findings, 6);
    sim_disk_flip_bit(disk(s, 0), place + 100, 3); /* it is good again on one of them */
    r = scrubbed(s);
    check_equal(r->healed_blocks, 1);
    check_equal(r->lost_blocks, 2);
    check_finding(r, 2, 1, 1000, 1, RAID_HEALED);
    check_ok(volume_write(v, (uint64_t)301 * BLOCK, BLOCK, data + (size_t)301 * BLOCK, 0));
    check_ok(volume_flush(v));
    r = scrubbed(s);
    check_equal(r->findings, 0);
    check_all(v);
    volume_close(v);
}

/* What was healed is so after a power cut: disk 0 is not asked. */
static CO void is_healed(struct sim_volumes *s)
{
    const struct volumes_scrub_report *r = volumes_scrub_report(s->vs);
    check_equal(r->state, VOLUMES_SCRUB_DONE); /* the last one is known still */
    check(volumes_scrub_job(s->vs) == NULL);
    struct vp_error err = {0};
    check_ok(pool_disk_offline(volumes_pool(s->vs), 0, &err));
    struct volume *v = sim_volumes_open(s, "safe");
    if (!v)
        return;
    check_all(v);
    r = scrubbed(s);
    check_equal(r->compared_bytes, LEN); /* one copy is in service */
    volume_close(v);
}

static void bad_copies_are_healed_durably_and_lost_blocks_are_named(void **state)
{
    (void)state;
    run_bodies(2, (sim_volumes_body *const[]){rots, is_healed}, 2);
}

static CO void cannot_be_read(struct sim_volumes *s)
{
    struct volume *v = mirrored(s, "safe");
    if (!v)
        return;
    write_all(v, 1);
    for (uint32_t b = 40; b < 42; b++)
        sim_disk_set_unreadable(disk(s, 0), place_of(disk(s, 0), b));
    const struct volumes_scrub_report *r = scrubbed(s);
    check_finding(r, 0, 0, 40, 2, RAID_HEALED); /* one run */
    check(r->finding[0].unreadable);
    check_equal(r->findings, 1);
    check_equal(r->healed_blocks, 2);
    r = scrubbed(s);
    check_equal(r->findings, 0);
    volume_close(v);
}

static void what_a_disk_cannot_read_is_rewritten(void **state)
{
    (void)state;
    run_bodies(2, (sim_volumes_body *const[]){cannot_be_read}, 1);
}

/* Data of the volume: the write of a heal. */
static bool heal_fails(const void *buf, uint64_t len, void *arg)
{
    (void)arg;
    return len == BLOCK && memcmp(buf, data + (size_t)77 * BLOCK, BLOCK) == 0;
}

static CO void cannot_be_healed(struct sim_volumes *s)
{
    struct volume *v = mirrored(s, "safe");
    if (!v)
        return;
    write_all(v, 1);
    rot(s, 1, 77);
    sim_world_on_write(s->world, heal_fails, NULL);
    const struct volumes_scrub_report *r = scrubbed(s);
    sim_world_on_write(s->world, NULL, NULL);
    check_finding(r, 0, 1, 77, 1, RAID_NOT_HEALED);
    check_equal(r->bad_blocks, 1);
    check_equal(r->healed_blocks, 0);
    check_all(v);
    volume_close(v);
}

static void a_copy_that_cannot_be_rewritten_is_not_called_healed(void **state)
{
    (void)state;
    run_bodies(2, (sim_volumes_body *const[]){cannot_be_healed}, 1);
}

static CO void is_alone(struct sim_volumes *s)
{
    struct volume *v = sim_volumes_volume(s, "alone", LEN);
    if (!v)
        return;
    write_all(v, 1);
    uint64_t on[] = {0, 0};
    static uint8_t there[BLOCK];
    for (unsigned i = 0; i < 2; i++)
        for (uint64_t at = 0; at < DISK_BYTES && !on[i]; at += BLOCK) {
            sim_disk_peek(disk(s, i), at, there, BLOCK);
            if (memcmp(there, data + (size_t)9 * BLOCK, BLOCK) == 0)
                on[i] = at;
        }
    unsigned i = on[0] ? 0 : 1;
    check(on[i] != 0 && !on[1 - i]);
    sim_disk_flip_bit(disk(s, i), on[i], 0);
    const struct volumes_scrub_report *r = scrubbed(s);
    check_equal(r->compared_bytes, LEN);
    check_finding(r, 0, i, 9, 1, RAID_LOST);
    volume_close(v);
}

static void data_without_redundancy_are_verified_too(void **state)
{
    (void)state;
    struct sim_volumes *s = sim_volumes_new(&(struct sim_volumes_config){.seed = 3});
    sim_volumes_run(s, is_alone);
    sim_volumes_free(s);
    assert_checked();
}

/* ---- metadata -------------------------------------------------------------------------------- */

/* A bit of each page of trees is flipped on the disk of its group's member `member`, with `both`
 * also on the next one's. How many pages there are. */
static unsigned rot_pages(struct sim_volumes *s, unsigned member, bool both)
{
    const struct pool_meta *m = &volumes_pool(s->vs)->meta;
    unsigned pages = 0;
    for (unsigned i = 0; i < m->groups; i++) {
        const struct pool_meta_group *g = m->group[i];
        for (uint64_t page = 0; page < g->pages; page++) {
            if (!bitmap_test(g->used, page) || bitmap_test(g->segment, page))
                continue;
            for (unsigned c = member; c <= member + both; c++)
                sim_disk_flip_bit(disk(s, g->group->disk[c]->io.index),
                                  g->group->raid->base_bytes[c] + page * POOL_PAGE + 70, 1);
            pages++;
        }
    }
    return pages;
}

static CO void has_rotten_pages(struct sim_volumes *s)
{
    struct volume *v = mirrored(s, "safe"), *w = mirrored(s, "more");
    if (!v || !w)
        return;
    write_all(w, 2);
    write_all(v, 1);
    check_ok(pool_checkpoint(volumes_pool(s->vs)));
    unsigned pages = rot_pages(s, 0, false);
    check(pages >= 8); /* leaves and roots of two trees of two volumes */
    check_ok(volume_write(v, 0, 1 << 20, data, 0)); /* pages change meanwhile */
    const struct volumes_scrub_report *r = scrubbed(s);
    check_equal(r->state, VOLUMES_SCRUB_DONE);
    check_equal(r->healed_blocks, pages);
    check_equal(r->bad_blocks + r->lost_blocks, 0);
    check(r->finding[0].metadata && r->finding[0].disk == 0);
    check_equal(r->metadata_bytes, 2 * pages * POOL_PAGE);
    check_equal(r->compared_bytes, 4 * LEN);
    r = scrubbed(s);
    check_equal(r->findings, 0);
    pages = rot_pages(s, 1, false); /* and the other copies */
    check_equal(scrubbed(s)->healed_blocks, pages);
    volume_close(v);
    volume_close(w);
}

static CO void reads_with_one_disk(struct sim_volumes *s)
{
    struct vp_error err = {0};
    check_ok(pool_disk_offline(volumes_pool(s->vs), 1, &err));
    struct volume *v = sim_volumes_open(s, "safe");
    if (!v)
        return;
    data_new(1);
    check_all(v);
    volume_close(v);
}

static void metadata_are_healed_too(void **state)
{
    (void)state;
    run_bodies(2, (sim_volumes_body *const[]){has_rotten_pages, reads_with_one_disk}, 2);
}

static CO void loses_pages(struct sim_volumes *s)
{
    struct volume *v = mirrored(s, "safe");
    if (!v)
        return;
    write_all(v, 1);
    check_ok(pool_checkpoint(volumes_pool(s->vs)));
    unsigned pages = rot_pages(s, 0, true);
    const struct volumes_scrub_report *r = scrubbed(s);
    check_equal(r->lost_blocks, 2 * pages);
    check_equal(r->finding[0].found, RAID_LOST);
    check(r->finding[0].metadata);
    check_all(v); /* its pages are in memory */
    volume_close(v);
}

static void lost_pages_are_named(void **state)
{
    (void)state;
    run_bodies(2, (sim_volumes_body *const[]){loses_pages}, 1);
}

/* ---- a disk that is gone, or behind ---------------------------------------------------------- */

static const char *state_of(struct sim_volumes *s, unsigned i)
{
    struct pool_disk_info info;
    pool_disk_info_get(volumes_pool(s->vs), i, &info);
    return info.state;
}

static CO void dies(struct sim_volumes *s)
{
    struct volume *v = mirrored(s, "safe");
    if (!v)
        return;
    write_all(v, 1);
    starts(s, 0);
    sim_disk_set_dead(disk(s, 1), true);
    sim_volumes_settle(s);
    check(strcmp(state_of(s, 1), "ejected") == 0);
    const struct volumes_scrub_report *r = volumes_scrub_report(s->vs);
    check_equal(r->state, VOLUMES_SCRUB_DONE);
    check_equal(r->findings, 0); /* a disk that is gone has no bad blocks */
    sim_disk_set_dead(disk(s, 1), false);
    struct vp_error err = {0};
    check_ok(pool_disk_return(volumes_pool(s->vs), &(struct pool_return_options){.disk = 1}, &err));
    starts(s, 0);
    struct pool_job *j = pool_job_find_of(volumes_pool(s->vs), POOL_JOB_SCRUB, 0);
    bool more = true;
    while (strcmp(state_of(s, 1), "rebuilding") == 0 && more) {
        check_equal(j->done, 0); /* the disk comes first */
        check_ok(volumes_background_step(s->vs, &more));
    }
    sim_volumes_settle(s);
    check(strcmp(state_of(s, 1), "online") == 0);
    check(co_sleep_ns(UINT64_C(2000000000)) == 0); /* the scrub looks again */
    sim_volumes_settle(s);
    check_equal(volumes_scrub_report(s->vs)->findings, 0);
    check_equal(volumes_scrub_report(s->vs)->compared_bytes, 2 * LEN);
    volume_close(v);
}

static void a_disk_that_dies_leaves_and_a_disk_that_is_filled_goes_first(void **state)
{
    (void)state;
    run_bodies(2, (sim_volumes_body *const[]){dies}, 1);
}

/* Data without redundancy, on both disks; one dies. */
static CO void has_no_copy(struct sim_volumes *s)
{
    struct volume *a = sim_volumes_volume(s, "a", LEN), *b = sim_volumes_volume(s, "b", LEN);
    if (!a || !b)
        return;
    write_all(a, 1);
    write_all(b, 1);
    sim_disk_set_dead(disk(s, 0), true);
    const struct volumes_scrub_report *r = scrubbed(s);
    check_equal(r->state, VOLUMES_SCRUB_FAILED);
    check(r->missing_bytes > 0);
    check(r->compared_bytes + r->missing_bytes >= 2 * LEN);
    volume_close(a);
    volume_close(b);
}

static void what_has_no_copy_in_service_is_counted(void **state)
{
    (void)state;
    sim_volumes_lives(&(struct sim_volumes_config){.seed = 3},
                      (sim_volumes_body *const[]){has_no_copy}, 1);
    assert_checked();
}

/* A position within a chunk, as of a record that is wrong. */
static CO void records_a_wrong_place(struct sim_volumes *s)
{
    struct pool_record r;
    struct volume_scrub_disk d;
    struct pool_batch b;
    struct volume *v = mirrored(s, "safe");
    if (!v)
        return;
    write_all(v, 1);
    starts(s, 0);
    check(pool_record_get(volumes_pool(s->vs), POOL_RECORD_COUNTER, 0, VOLUME_COUNTER_SCRUB, &r));
    memcpy(&d, r.value, sizeof(d));
    d.block = le64_make(1);
    d.volume = le32_make(1);
    pool_batch_init(&b);
    pool_batch_set(&b, POOL_RECORD_COUNTER, 0, VOLUME_COUNTER_SCRUB, &d, sizeof(d));
    check_ok(pool_commit(volumes_pool(s->vs), &b));
    pool_batch_fini(&b);
}

static CO void begins_at_the_chunk(struct sim_volumes *s)
{
    sim_volumes_settle(s);
    check_equal(volumes_scrub_report(s->vs)->state, VOLUMES_SCRUB_DONE);
    check_equal(volumes_scrub_report(s->vs)->compared_bytes, 2 * LEN);
}

static void a_wrong_position_does_no_harm(void **state)
{
    (void)state;
    run_bodies(2, (sim_volumes_body *const[]){records_a_wrong_place, begins_at_the_chunk}, 2);
}

/* Both disks fail: the pool is fenced. */
static CO void is_fenced(struct sim_volumes *s)
{
    struct vp_error err = {0};
    bool more;
    struct volume *v = mirrored(s, "safe");
    if (!v)
        return;
    write_all(v, 1);
    starts(s, 0);
    for (unsigned i = 0; i < 2; i++)
        sim_disk_set_dead(disk(s, i), true);
    check(pool_checkpoint(volumes_pool(s->vs)) != 0);
    for (unsigned i = 0; i < 2; i++)
        sim_disk_set_dead(disk(s, i), false);
    check(strcmp(pool_state(volumes_pool(s->vs)), "fenced") == 0);
    check_equal(volumes_background_step(s->vs, &more), VP_E_POOL_FENCED);
    check_equal(volumes_scrub_report(s->vs)->compared_bytes, 0);
    check_ok(volumes_scrub_stop(s->vs, &err));
    vp_ignore(volumes_background_step(s->vs, &more), "it ends the job in memory");
    check(volumes_scrub_job(s->vs) == NULL);
    volume_close(v);
}

static void a_fenced_pool_is_not_scrubbed(void **state)
{
    (void)state;
    run_bodies(2, (sim_volumes_body *const[]){is_fenced}, 1);
}

/* ---- commands and restarts ------------------------------------------------------------------- */

static CO void stops(struct sim_volumes *s)
{
    struct vp_error err = {0};
    bool more;
    struct volume *v = mirrored(s, "safe");
    if (!v)
        return;
    write_all(v, 1);
    starts(s, LEN / 2);
    check_ok(volumes_background_step(s->vs, &more));
    struct pool_job *j = pool_job_find_of(volumes_pool(s->vs), POOL_JOB_SCRUB, 0);
    check_equal(j->done, LEN / 2);
    check_ok(volumes_background_step(s->vs, &more));
    check_equal(j->done, LEN / 2); /* that was its limit */
    check_ok(pool_job_pause(volumes_pool(s->vs), j->id, &err));
    check_ok(pool_job_limit(volumes_pool(s->vs), j->id, 0, &err));
    sim_volumes_settle(s);
    check_equal(j->done, LEN / 2);
    check_ok(pool_job_cancel(volumes_pool(s->vs), j->id, &err));
    sim_volumes_settle(s);
    check_equal(j->state, POOL_JOB_CANCELLED);
    check_equal(volumes_scrub_report(s->vs)->state, VOLUMES_SCRUB_STOPPED);
    check_equal(scrubbed(s)->compared_bytes, 2 * LEN); /* from the beginning */
    volume_close(v);
}

static void a_scrub_is_limited_paused_and_stopped(void **state)
{
    (void)state;
    run_bodies(2, (sim_volumes_body *const[]){stops}, 1);
}

static CO void has_two(struct sim_volumes *s)
{
    bool more;
    struct volume *first = mirrored(s, "first");
    if (!first)
        return;
    write_all(first, 1);
    rot(s, 1, 5);
    struct volume *second = mirrored(s, "second");
    if (!second)
        return;
    write_all(second, 2);
    starts(s, 0);
    check_ok(volumes_background_step(s->vs, &more)); /* the first one; its finding is recorded */
    check_equal(volumes_scrub_report(s->vs)->healed_blocks, 1);
    volume_close(first);
    volume_close(second);
}

static CO void goes_on(struct sim_volumes *s)
{
    const struct volumes_scrub_report *r = volumes_scrub_report(s->vs);
    check_equal(r->state, VOLUMES_SCRUB_RUNNING);
    check_equal(r->findings, 1);
    check_finding(r, 0, 1, 5, 1, RAID_HEALED);
    check(volumes_scrub_job(s->vs) != NULL);
    uint64_t before = r->compared_bytes;
    check_equal(before, 2 * LEN);
    sim_volumes_settle(s);
    check_equal(r->state, VOLUMES_SCRUB_DONE);
    check_equal(r->compared_bytes, 4 * LEN); /* the first volume once */
    check_equal(r->findings, 1);
}

static void a_scrub_goes_on_after_a_crash_where_it_was(void **state)
{
    (void)state;
    run_bodies(2, (sim_volumes_body *const[]){has_two, goes_on}, 2);
}

static CO void is_deleted(struct sim_volumes *s)
{
    struct vp_error err = {0};
    struct volume *v = mirrored(s, "safe");
    bool more;
    if (!v)
        return;
    write_all(v, 1);
    volume_close(v);
    starts(s, LEN / 2);
    check_ok(volumes_background_step(s->vs, &more));
    check_ok(volume_delete(s->vs, "safe", &err));
    struct pool_job *j = pool_job_find_of(volumes_pool(s->vs), POOL_JOB_SCRUB, 0);
    check_ok(pool_job_limit(volumes_pool(s->vs), j->id, 0, &err));
    sim_volumes_settle(s);
    check_equal(volumes_scrub_report(s->vs)->state, VOLUMES_SCRUB_DONE);
}

static void a_volume_may_be_deleted_meanwhile(void **state)
{
    (void)state;
    run_bodies(2, (sim_volumes_body *const[]){is_deleted}, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_scrub_compares_all_copies_of_what_is_allocated),
        cmocka_unit_test(bad_copies_are_healed_durably_and_lost_blocks_are_named),
        cmocka_unit_test(what_a_disk_cannot_read_is_rewritten),
        cmocka_unit_test(a_copy_that_cannot_be_rewritten_is_not_called_healed),
        cmocka_unit_test(data_without_redundancy_are_verified_too),
        cmocka_unit_test(metadata_are_healed_too),
        cmocka_unit_test(lost_pages_are_named),
        cmocka_unit_test(a_disk_that_dies_leaves_and_a_disk_that_is_filled_goes_first),
        cmocka_unit_test(what_has_no_copy_in_service_is_counted),
        cmocka_unit_test(a_wrong_position_does_no_harm),
        cmocka_unit_test(a_fenced_pool_is_not_scrubbed),
        cmocka_unit_test(a_scrub_is_limited_paused_and_stopped),
        cmocka_unit_test(a_scrub_goes_on_after_a_crash_where_it_was),
        cmocka_unit_test(a_volume_may_be_deleted_meanwhile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

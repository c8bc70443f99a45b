/*
 * A pool that is full, data and metadata, while clients overwrite blocks that lie far apart, so
 * that each of them makes a path of metadata pages dirty. All goes on, and what needs a checkpoint
 * gets it.
 */
#include "tests/lib/on_reactor.h"
#include "tests/lib/sim_volumes.h"

#include "io/reactor.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define MIB(n) ((uint64_t)(n) << 20)
#define GIB(n) ((uint64_t)(n) << 30)

enum { SPARSE = 160, BLOCK = 4096, DENSE = 64 << 10, WRITERS = 8 };
static const uint64_t stride = GIB(50);
static uint8_t data[DENSE] __attribute__((aligned(4096)));
static unsigned written, writers;

static CO void write_sparse(struct volume *v, unsigned first, unsigned step, uint8_t value)
{
    static uint8_t block[256][BLOCK] __attribute__((aligned(4096)));
    memset(block[value], value, BLOCK);
    for (unsigned i = first; i < written; i += step)
        if (!check_ok(volume_write(v, i * stride, BLOCK, block[value], 0)))
            return;
}

/* Sparse blocks, then another volume takes the rest of the pool. */
static CO struct volume *fill_pool(struct sim_volumes *s)
{
    struct vp_error err;
    struct volume *v = sim_volumes_volume(s, "sparse", GIB(16384));
    struct volume *dense = sim_volumes_volume(s, "dense", GIB(1));
    check_ok(volume_property_set(s->vs, "dense", "full-policy", "enospc", &err));
    check_ok(volume_property_set(s->vs, "sparse", "full-policy", "enospc", &err));
    written = SPARSE;
    write_sparse(v, 0, 1, 1);
    check_ok(pool_checkpoint(volumes_pool(s->vs)));
    int rc = 0;
    for (uint64_t at = 0; !rc; at += DENSE)
        rc = volume_write(dense, at, DENSE, data, 0);
    check_equal(rc, VP_E_NO_SPACE);
    volume_close(dense);
    return v;
}

static CO void check_all(struct volume *v, uint8_t value)
{
    static uint8_t seen[BLOCK] __attribute__((aligned(4096)));
    for (unsigned i = 0; i < written; i++)
        if (!check_ok(volume_read(v, i * stride, BLOCK, seen)) || !check_equal(seen[0], value) ||
            !check_equal(seen[BLOCK - 1], value))
            return;
}

/* ---- overwrites ------------------------------------------------------------------------------ */

static CO void overwrite_all(struct sim_volumes *s)
{
    struct volume *v = fill_pool(s);
    for (uint8_t round = 2; round < 6; round++) {
        write_sparse(v, 0, 1, round);
        check_ok(volume_flush(v));
    }
    check_ok(pool_checkpoint(volumes_pool(s->vs)));
    check_all(v, 5);
    write_sparse(v, 0, 1, 6); /* not flushed, but by what its checkpoints needed */
    check_ok(volume_flush(v));
}

static CO void delete_after_import(struct sim_volumes *s)
{
    struct vp_error err;
    struct volume *v = sim_volumes_open(s, "sparse");
    struct pool_space space;
    check_all(v, 6);
    write_sparse(v, 0, 1, 7);
    check_ok(pool_checkpoint(volumes_pool(s->vs)));
    check_ok(volume_delete(s->vs, "dense", &err));
    sim_volumes_settle(s);
    check_ok(pool_checkpoint(volumes_pool(s->vs)));
    pool_space_get(volumes_pool(s->vs), &space);
    check(space.free_bytes > MIB(16));
    check_all(v, 7);
}

static struct sim_volumes *pool_new(uint64_t seed)
{
    return sim_volumes_new(&(struct sim_volumes_config){
        .seed = seed, .disk_bytes = MIB(24), .metadata_bytes = MIB(16)});
}

static void overwrites_of_a_full_pool_wait_for_checkpoints_and_never_wedge_it(void **state)
{
    (void)state;
    struct sim_volumes *s = pool_new(1);
    sim_volumes_run(s, overwrite_all);
    sim_volumes_power_cut(s, 2);
    sim_volumes_run(s, delete_after_import);
    sim_volumes_free(s);
    assert_checked();
}

/* ---- shrinking ------------------------------------------------------------------------------- */

static bool shrunk;

static void shrink_main(void *arg)
{
    struct sim_volumes *s = arg;
    struct vp_error err;
    /* Not to whole blocks: the block at the new end is overwritten. */
    check_ok(volume_resize(s->vs, "sparse", stride * (SPARSE / 2) + 512, true, &err));
    shrunk = true;
}

static CO void shrink_full(struct sim_volumes *s)
{
    struct vp_error err;
    struct volume *v = fill_pool(s);
    check_ok(volume_property_set(s->vs, "sparse", "full-policy", "pause", &err));
    write_sparse(v, 0, 1, 2);
    check_ok(co_spawn(shrink_main, s, "shrink"));
    for (unsigned i = 0; i < 600 && !shrunk; i++)
        vp_ignore(co_sleep_ns(100000000), "nobody cancels it");
    check(shrunk);
    written = SPARSE / 2;
    check_all(v, 2);
    check_ok(volume_delete(s->vs, "dense", &err));
    sim_volumes_settle(s);
    check_ok(volume_flush(v));
}

static void a_shrink_in_a_full_pool_ends_without_waiting_for_room(void **state)
{
    (void)state;
    struct sim_volumes *s = pool_new(3);
    sim_volumes_run(s, shrink_full);
    sim_volumes_free(s);
    assert_checked();
}

/* ---- many at once ---------------------------------------------------------------------------- */

static struct volume *shared;

static void writer(void *arg)
{
    unsigned first = *(unsigned *)arg;
    for (uint8_t round = 2; round < 5; round++)
        write_sparse(shared, first, WRITERS, round);
    writers--;
}

static CO void overwrite_at_once(struct sim_volumes *s)
{
    static unsigned first[WRITERS];
    shared = fill_pool(s);
    for (unsigned i = 0; i < WRITERS; i++) {
        first[i] = i;
        writers++;
        check_ok(co_spawn(writer, &first[i], "writer"));
    }
    while (writers)
        vp_ignore(co_sleep_ns(1000000), "nobody cancels it");
    check_ok(volume_flush(shared));
    check_all(shared, 4);
    /* The import has what a killed daemon kept to put into the log, too. */
    write_sparse(shared, 0, 1, 6);
}

static void an_import_after_a_kill_finds_room_for_what_was_kept(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed < 5; seed++) {
        struct sim_volumes *s = pool_new(seed);
        sim_volumes_run(s, overwrite_at_once);
        sim_volumes_run(s, delete_after_import);
        sim_volumes_free(s);
    }
    assert_checked();
}

/* ---- one crash after the other --------------------------------------------------------------- */

static CO void fill_and_overwrite(struct sim_volumes *s)
{
    struct volume *v = fill_pool(s);
    write_sparse(v, 0, 1, 6);
    check_ok(volume_flush(v));
}

static CO void change_a_setting(struct sim_volumes *s)
{
    struct vp_error err;
    check_ok(volume_property_set(s->vs, "dense", "full-policy", "pause", &err));
}

/* No checkpoint comes between the imports, and each takes a segment for its log. */
static void imports_in_a_row_leave_room_for_the_next_checkpoint(void **state)
{
    (void)state;
    for (unsigned imports = 1; imports <= 12; imports++) {
        struct sim_volumes *s = pool_new(imports);
        sim_volumes_run(s, fill_and_overwrite);
        for (unsigned i = 0; i < imports; i++) {
            sim_volumes_power_cut(s, 100 * imports + i);
            sim_volumes_run(s, change_a_setting);
        }
        sim_volumes_power_cut(s, imports);
        sim_volumes_run(s, delete_after_import);
        sim_volumes_free(s);
    }
    assert_checked();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(overwrites_of_a_full_pool_wait_for_checkpoints_and_never_wedge_it),
        cmocka_unit_test(a_shrink_in_a_full_pool_ends_without_waiting_for_room),
        cmocka_unit_test(an_import_after_a_kill_finds_room_for_what_was_kept),
        cmocka_unit_test(imports_in_a_row_leave_room_for_the_next_checkpoint),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

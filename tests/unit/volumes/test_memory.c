/*
 * Memory that runs out, one allocation at a time: whatever is done with a volume either succeeds or
 * fails cleanly, and then succeeds when it is tried again. Then the volumes have all that was
 * flushed, also after a power cut.
 */
#include "tests/lib/failing_malloc.h"
#include "tests/lib/on_reactor.h"
#include "tests/lib/sim_volumes.h"

#include "base/bytes.h"
#include "pool/pool_impl.h"
#include "volumes/volumes_impl.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define KIB(n) ((uint64_t)(n) << 10)
#define MIB(n) ((uint64_t)(n) << 20)

enum { ALLOCATIONS_MAX = 1000, KEPT = 128 << 10 };

/* Where what is in the volume "v": noise that no operation changes, noise that some take away, and
 * beyond that nothing. */
#define KEPT_AT MIB(1)
#define LOST_AT MIB(4)
#define FREE_AT MIB(6)
#define SIZE    MIB(8)

static uint8_t noise[KEPT] __attribute__((aligned(4096)));
static uint8_t seen[KEPT] __attribute__((aligned(4096)));

struct trial {
    struct sim_volumes *s;
    struct volume *v;
    const struct operation *op;
    long k;
    bool failed; /* there was a k-th allocation */
};

struct operation {
    const char *name;
    CO int (*run)(struct trial *t);
};

/* ---- operations ---------------------------------------------------------------------------- */

static CO int op_create(struct trial *t)
{
    struct volume_options o = {.size_bytes = MIB(4), .reserve_bytes = MIB(4)};
    return volume_create(t->s->vs, "new", &o, NULL);
}

static CO int op_rename(struct trial *t)
{
    int rc = volume_find(t->s->vs, "other") ? volume_rename(t->s->vs, "other", "another", NULL) : 0;
    return rc ? rc : volume_rename(t->s->vs, "another", "other", NULL);
}

static CO int op_delete(struct trial *t)
{
    bool more = true;
    int rc = volume_find(t->s->vs, "other") ? volume_delete(t->s->vs, "other", NULL) : 0;
    while (!rc && more)
        rc = volumes_background_step(t->s->vs, &more);
    return rc;
}

static CO int op_open(struct trial *t)
{
    struct volume *other;
    int rc = volume_open(t->s->vs, "other", false, &other, NULL);
    if (!rc)
        volume_close(other);
    return rc;
}

static CO int op_first_write(struct trial *t)
{
    return volume_write(t->v, FREE_AT, KEPT, noise, 0);
}

static CO int op_overwrite(struct trial *t)
{
    return volume_write(t->v, KEPT_AT, KEPT, noise, VOLUME_FUA);
}

static CO int op_part_of_a_block(struct trial *t)
{
    return volume_write(t->v, FREE_AT + 512, 1024, noise, VOLUME_FUA);
}

static CO int op_zero(struct trial *t)
{
    return volume_zero(t->v, LOST_AT + 512, KIB(100), VOLUME_FUA);
}

static CO int op_discard(struct trial *t)
{
    int rc = volume_discard(t->v, LOST_AT, KEPT, 0);
    return rc ? rc : volume_flush(t->v);
}

static CO int op_give_back(struct trial *t)
{
    int rc = volume_discard(t->v, LOST_AT, KEPT, 0);
    return rc ? rc : thin_give_back(t->v->io->thin);
}

static CO int op_shrink_and_grow(struct trial *t)
{
    int rc = volume_resize(t->s->vs, "v", LOST_AT, true, NULL);
    return rc ? rc : volume_resize(t->s->vs, "v", SIZE, false, NULL);
}

static CO int op_reserve(struct trial *t)
{
    int rc = volume_property_set(t->s->vs, "other", "reserve", "4M", NULL);
    return rc ? rc : volume_property_set(t->s->vs, "other", "reserve", "0", NULL);
}

static CO int op_checkpoint(struct trial *t)
{
    return pool_checkpoint(volumes_pool(t->s->vs));
}

/* What a clean end could not write is found by the import. */
static CO int op_close_and_import(struct trial *t)
{
    int rc = 0;
    if (t->v) {
        t->v = NULL;
        rc = sim_volumes_close(t->s);
    }
    if (!rc && !t->s->vs)
        rc = sim_volumes_reopen(t->s);
    return rc ? rc : volume_open(t->s->vs, "v", false, &t->v, NULL);
}

static const struct operation operations[] = {
    {"create", op_create},
    {"rename", op_rename},
    {"delete", op_delete},
    {"open", op_open},
    {"first write", op_first_write},
    {"overwrite", op_overwrite},
    {"part of a block", op_part_of_a_block},
    {"zero", op_zero},
    {"discard", op_discard},
    {"give back", op_give_back},
    {"shrink and grow", op_shrink_and_grow},
    {"reserve", op_reserve},
    {"checkpoint", op_checkpoint},
    {"close and import", op_close_and_import},
};

/* ---- one allocation ------------------------------------------------------------------------ */

static struct trial *trial; /* of the body that runs */

static CO void check_kept(struct volume *v)
{
    if (v && check_ok(volume_read(v, KEPT_AT, KEPT, seen)))
        check(memcmp(seen, noise, KEPT) == 0);
}

static CO void prepare(struct trial *t)
{
    struct volume *other = sim_volumes_volume(t->s, "other", MIB(4));
    t->v = sim_volumes_volume(t->s, "v", SIZE);
    check_ok(volume_write(other, 0, KEPT, noise, 0));
    check_ok(volume_flush(other));
    volume_close(other);
    check_ok(volume_write(t->v, LOST_AT, KEPT, noise, 0));
    check_ok(volume_flush(t->v));
    check_ok(pool_checkpoint(volumes_pool(t->s->vs)));
    check_ok(volume_write(t->v, KEPT_AT, KEPT, noise, VOLUME_FUA));
}

static CO void operate(struct sim_volumes *s)
{
    struct trial *t = trial;
    t->s = s;
    prepare(t);
    fail_in = t->k;
    int rc = t->op->run(t);
    t->failed = fail_in < 0;
    fail_in = -1;
    check(!rc || rc == VP_E_NO_MEMORY);
    if (rc && !check_ok(t->op->run(t)))
        return;
    check_kept(t->v);
    check_ok(volume_flush(t->v));
    check_ok(pool_checkpoint(volumes_pool(s->vs)));
    check_ok(volume_write(t->v, 0, 4096, noise, VOLUME_FUA));
}

static CO void look(struct sim_volumes *s)
{
    struct volume *v = sim_volumes_open(s, "v");
    check_kept(v);
    if (!v)
        return;
    check_ok(volume_write(v, 0, KEPT, noise, VOLUME_FUA));
    check_ok(sim_volumes_close(s));
}

/* A new pool for each allocation that `body` makes, which fails (trial->k), until there are no more
 * of them. `after`, when there is one, sees each pool after a power cut. */
static void fail_each_allocation(const struct operation *op, void (*body)(struct sim_volumes *s),
                                 void (*after)(struct sim_volumes *s))
{
    struct trial t = {.op = op, .failed = true};
    trial = &t;
    for (; t.failed && t.k < ALLOCATIONS_MAX; t.k++) {
        struct sim_volumes *s = sim_volumes_new(
            &(struct sim_volumes_config){.seed = 3, .disk_bytes = MIB(32), .metadata_bytes = 1});
        sim_volumes_run(s, body);
        unsigned failures = check_failures();
        if (after) {
            sim_volumes_power_cut(s, 5);
            sim_volumes_run(s, after);
            failures += check_failures();
        }
        sim_volumes_free(s);
        if (failures) {
            print_error("%s, allocation %ld\n", op->name, t.k);
            fail();
        }
    }
    assert_true(t.k < ALLOCATIONS_MAX);
}

static void a_volume_goes_on_after_any_allocation_failed(void **state)
{
    (void)state;
    for (unsigned i = 0; i < sizeof(noise); i++)
        noise[i] = (uint8_t)(i * 7 + (i >> 8) + 1);
    for (size_t i = 0; i < sizeof(operations) / sizeof(operations[0]); i++)
        fail_each_allocation(&operations[i], operate, look);
}

/* ---- a reserve ----------------------------------------------------------------------------- */

static uint64_t reserve_recorded; /* of "other" */

static CO uint64_t reserve_shown(struct sim_volumes *s)
{
    struct volume_info info = {0};
    check_ok(volume_info_get(s->vs, "other", &info));
    return info.options.reserve_bytes;
}

static CO void set_reserve(struct sim_volumes *s)
{
    struct trial *t = trial;
    check(sim_volumes_volume(s, "v", SIZE) != NULL); /* "other" is not open */
    struct volume *other = sim_volumes_volume(s, "other", MIB(4));
    volume_close(other);
    check_ok(volume_property_set(s->vs, "other", "reserve", "1M", NULL));
    fail_in = t->k;
    int rc = volume_property_set(s->vs, "other", "reserve", "3M", NULL);
    t->failed = fail_in < 0;
    fail_in = -1;
    reserve_recorded = rc ? MIB(1) : MIB(3);
    check_equal(reserve_shown(s), reserve_recorded);
}

static CO void look_at_reserve(struct sim_volumes *s)
{
    check_equal(reserve_shown(s), reserve_recorded);
}

static void a_reserve_that_could_not_be_recorded_is_not_shown(void **state)
{
    (void)state;
    const struct operation op = {"set a reserve", NULL};
    fail_each_allocation(&op, set_reserve, look_at_reserve);
}

/* ---- deletion ------------------------------------------------------------------------------ */

/* Of trees: the table image has more or fewer parts. */
static uint64_t meta_pages_used(const struct sim_volumes *s)
{
    const struct pool_meta *m = &volumes_pool(s->vs)->meta;
    uint64_t used = 0;
    for (unsigned i = 0; i < m->groups; i++) {
        const struct pool_meta_group *g = m->group[i];
        used += bitmap_count(g->used, g->pages) - bitmap_count(g->segment, g->pages);
    }
    return used;
}

/* The map of "w" has two leaves and a page above them. */
static CO void create_and_delete(struct sim_volumes *s)
{
    struct volume *w = sim_volumes_volume(s, "w", SIZE);
    check_ok(volume_write(w, 0, KEPT, noise, 0));
    check_ok(volume_write(w, SIZE - KEPT, KEPT, noise, 0));
    volume_close(w);
    check_ok(pool_checkpoint(volumes_pool(s->vs)));
    check_ok(volume_delete(s->vs, "w", NULL));
    sim_volumes_settle(s);
}

static CO void delete_without_memory(struct sim_volumes *s)
{
    struct trial *t = trial;
    struct pool *p = volumes_pool(s->vs);
    check_ok(pool_checkpoint(p));
    uint64_t before = meta_pages_used(s);
    create_and_delete(s);
    fail_in = t->k;
    int rc = pool_checkpoint(p);
    t->failed = fail_in < 0;
    fail_in = -1;
    check(!rc || rc == VP_E_NO_MEMORY);
    for (unsigned i = 0; i < 3; i++) { /* pages, records, and what is free after these */
        check_ok(pool_checkpoint(p));
        sim_volumes_settle(s);
    }
    check_equal(meta_pages_used(s), before);
}

static void a_deletion_for_which_memory_runs_out_leaks_no_page(void **state)
{
    (void)state;
    fail_each_allocation(&(struct operation){.name = "checkpoint of a deletion"},
                         delete_without_memory, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_volume_goes_on_after_any_allocation_failed),
        cmocka_unit_test(a_reserve_that_could_not_be_recorded_is_not_shown),
        cmocka_unit_test(a_deletion_for_which_memory_runs_out_leaks_no_page),
    };
    return cmocka_run_group_tests_name("volumes/memory", tests, NULL, NULL);
}

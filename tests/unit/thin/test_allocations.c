/*
 * Memory that runs out, one allocation at a time: whatever is done with a volume either succeeds or
 * fails cleanly, and succeeds when it is tried again. Then all that was committed is there, map and
 * space agree, every chunk of the pool can still be written, and so it is after a power cut.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/log.h"
#include "pool/pool_impl.h"
#include "tests/lib/failing_malloc.h"
#include "tests/lib/on_reactor.h"
#include "tests/lib/sim_thin.h"
#include "thin/thin_impl.h"

enum { ALLOCATIONS_MAX = 1000, CHUNK_BYTES = 128 << 10, CHUNK = CHUNK_BYTES / POOL_BLOCK };

/* Where what is, in chunks. A leaf of the map holds 27, a region of intents 1,024. */
enum {
    KEPT = 0,     /* committed; no operation changes it      */
    LOST = 8,     /* committed; some take it away            */
    UNEQUAL = 12, /* was being overwritten when power went   */
    FULL = 1040,  /* what fills the pool goes here           */
    FREE = 2100,  /* nothing; a region without an intent     */
    FAR = 7000,   /* nothing; the map must grow to reach it  */
    CHUNKS = 8000,
    FEW = 3,    /* chunks of each kind … */
    BLOCKS = 6, /* … and blocks at the beginning of each */
};

static uint8_t block[POOL_BLOCK] __attribute__((aligned(4096)));
static uint8_t blocks[BLOCKS * POOL_BLOCK] __attribute__((aligned(4096)));

struct trial {
    const struct operation *op;
    long k;
    bool failed; /* there was a k-th allocation */
};

struct operation {
    const char *name;
    CO int (*run)(struct sim_thin *st);
};

/* ---- operations ---------------------------------------------------------------------------- */

/* Blocks that all say the same. */
static CO int write_chunks(struct thin *t, uint64_t from, unsigned count, int byte)
{
    int rc = 0;
    memset(blocks, byte, sizeof(blocks));
    for (unsigned i = 0; i < count && !rc; i++)
        rc = thin_write(t, (from + i) * CHUNK, BLOCKS, blocks);
    return rc;
}

static CO int op_new(struct sim_thin *st)
{
    struct thin_config c = st->thin->config;
    struct thin *other;
    c.id = 2;
    c.reserve_bytes = 3 * CHUNK_BYTES;
    int rc = thin_open(&c, NULL, &other);
    if (rc)
        return rc;
    rc = thin_write(other, 0, 1, block);
    if (!rc)
        rc = thin_commit(other);
    thin_quiesce(other);
    thin_close(other);
    return rc ? rc : pool_arena_return_all(st->pool, c.id);
}

static CO int op_read(struct sim_thin *st)
{
    int rc = thin_read(st->thin, KEPT * CHUNK, BLOCKS, blocks);
    return rc ? rc : thin_read(st->thin, FAR * CHUNK, BLOCKS, blocks);
}

static CO int op_first_write(struct sim_thin *st)
{
    return write_chunks(st->thin, FREE, FEW, 'f');
}

static CO int op_far_write(struct sim_thin *st)
{
    return write_chunks(st->thin, FAR, FEW, 'F');
}

static CO int op_overwrite(struct sim_thin *st)
{
    int rc = write_chunks(st->thin, LOST, FEW, 'l');
    return rc ? rc : thin_commit(st->thin);
}

static CO int op_part_of_a_chunk(struct sim_thin *st)
{
    int rc = thin_zero(st->thin, LOST * CHUNK + 3, 2, false);
    return rc ? rc : thin_write(st->thin, LOST * CHUNK + 4, 2, blocks);
}

static CO int op_zero(struct sim_thin *st)
{
    return thin_zero(st->thin, LOST * CHUNK + 1, (UNEQUAL - LOST) * CHUNK - 1, false);
}

static CO int op_zero_and_keep(struct sim_thin *st)
{
    return thin_zero(st->thin, (FREE - 1) * CHUNK, 2 * CHUNK, true);
}

static CO int op_trim(struct sim_thin *st)
{
    int rc = thin_zero(st->thin, LOST * CHUNK, FEW * CHUNK, false);
    return rc ? rc : thin_commit(st->thin);
}

static CO int op_trim_and_reuse(struct sim_thin *st)
{
    int rc = op_trim(st);
    return rc ? rc : write_chunks(st->thin, LOST, FEW, 'r');
}

static CO int op_give_back(struct sim_thin *st)
{
    int rc = thin_zero(st->thin, LOST * CHUNK, FEW * CHUNK, false);
    return rc ? rc : thin_give_back(st->thin);
}

static CO int op_grow(struct sim_thin *st)
{
    return thin_resize(st->thin, st->thin->size_blocks * 100);
}

static CO int op_resync(struct sim_thin *st)
{
    bool more = true;
    int rc = 0;
    st->thin->resync_next = 0; /* a region that failed is not looked at again in this life */
    while (more && !rc)
        rc = thin_resync_step(st->thin, &more);
    return rc;
}

/* A kill, and the import. When it is tried again, the import may be all that is left to do. */
static CO int op_checkpoint_and_open(struct sim_thin *st)
{
    int rc = 0;
    if (st->thin) {
        rc = write_chunks(st->thin, LOST, FEW, 'c');
        if (!rc)
            rc = pool_checkpoint(st->pool);
        if (!rc)
            rc = write_chunks(st->thin, FREE, FEW, 'o');
        if (rc)
            return rc;
        sim_thin_abandon(st);
    }
    return sim_thin_import(st);
}

static CO int op_look(struct sim_thin *st)
{
    struct thin_extent x[8];
    struct thin_audit a;
    uint64_t next;
    unsigned n;
    int rc = thin_check(st->thin, &a);
    if (!rc)
        rc = thin_extents(st->thin, 0, st->thin->size_blocks, x, 8, &n);
    return rc ? rc : thin_next_mapped(st->thin, 0, st->thin->size_blocks, &next);
}

static CO int op_take_memory(struct sim_thin *st)
{
    (void)thin_take_memory(st->thin);
    return write_chunks(st->thin, FREE, FEW, 't');
}

static const struct operation operations[] = {
    {"new", op_new},
    {"read", op_read},
    {"first write", op_first_write},
    {"far write", op_far_write},
    {"overwrite", op_overwrite},
    {"part of a chunk", op_part_of_a_chunk},
    {"zero", op_zero},
    {"zero and keep", op_zero_and_keep},
    {"trim", op_trim},
    {"trim and reuse", op_trim_and_reuse},
    {"give back", op_give_back},
    {"grow", op_grow},
    {"resync", op_resync},
    {"checkpoint and open", op_checkpoint_and_open},
    {"look", op_look},
    {"take memory", op_take_memory},
};

/* ---- what must hold ------------------------------------------------------------------------ */

static bool all_bytes_are(const uint8_t *bytes, size_t len, uint8_t byte)
{
    return bytes[0] == byte && memcmp(bytes, bytes + 1, len - 1) == 0;
}

/* Each block old or new, and the same when it is read again. */
static CO void check_unequal(struct thin *t)
{
    uint8_t seen[BLOCKS];
    for (unsigned again = 0; again < 2; again++) {
        if (!check_ok(thin_read(t, UNEQUAL * CHUNK, BLOCKS, blocks)))
            return;
        for (unsigned i = 0; i < BLOCKS; i++) {
            const uint8_t *b = blocks + (size_t)i * POOL_BLOCK;
            check(all_bytes_are(b, POOL_BLOCK, b[0]) && (b[0] == 'u' || b[0] == 'U'));
            check(!again || b[0] == seen[i]);
            seen[i] = b[0];
        }
    }
}

static CO void check_contents(struct sim_thin *st)
{
    struct thin_audit a;
    for (unsigned i = 0; i < FEW; i++)
        if (check_ok(thin_read(st->thin, (KEPT + i) * CHUNK, BLOCKS, blocks)))
            check(all_bytes_are(blocks, sizeof(blocks), 'k'));
    check_unequal(st->thin);
    if (check_ok(thin_check(st->thin, &a)))
        check_equal(a.doubled + a.leaked + a.unmarked, 0);
    check_equal(a.mapped, figure_get(&thin_figures(st->thin)->allocated_chunks));
}

/* No chunk is out of reach: when nothing more can be allocated all that is leased is in use, and
 * all of it can be given back. */
static CO void check_space(struct sim_thin *st)
{
    struct thin *t = st->thin;
    int rc = 0;
    uint64_t n = 0;
    for (; !rc; n += !rc)
        rc = thin_write(t, (FULL + n) * CHUNK, 1, block);
    check_equal(rc, VP_E_NO_SPACE);
    const struct thin_figures *f = thin_figures(t);
    check_equal(figure_get(&f->leased_arenas), pool_arena_count(st->pool, t->id));
    check_equal(figure_get(&f->allocated_chunks),
                figure_get(&f->leased_arenas) * POOL_ARENA_CHUNKS / 4);
    check_ok(thin_zero(t, FULL * CHUNK, n * CHUNK, false));
    check_ok(thin_give_back(t));
    check_equal(figure_get(&f->leased_arenas), pool_arena_count(st->pool, t->id));
    check(figure_get(&f->leased_arenas) <= figure_get(&f->allocated_chunks));
    check_equal(t->space.quarantined, 0);
}

/* Pages that are due, and memory, are counted right: nothing is left when all is written. */
static CO void check_clean(struct sim_thin *st)
{
    check_ok(pool_checkpoint(st->pool));
    check_equal(st->thin->cache->dirty, 0);
    check_equal(atomic_load(&st->pool->meta.dirty), 0);
}

/* ---- one allocation ------------------------------------------------------------------------ */

static void live(struct sim_thin *st, void *arg)
{
    (void)arg;
    struct pool_batch b;
    if (!check_ok(sim_thin_create(st)))
        return;
    pool_batch_init(&b);
    pool_batch_set(&b, POOL_RECORD_VOLUME, st->thin->id, 0, "v", 1);
    check_ok(pool_commit(st->pool, &b));
    pool_batch_fini(&b);
    check_ok(write_chunks(st->thin, KEPT, FEW, 'k'));
    check_ok(write_chunks(st->thin, LOST, FEW, 'l'));
    check_ok(pool_checkpoint(st->pool));
    check_ok(write_chunks(st->thin, UNEQUAL, 1, 'u'));
    check_ok(thin_commit(st->thin));
    check_ok(write_chunks(st->thin, UNEQUAL, 1, 'U'));
}

static void operate(struct sim_thin *st, void *arg)
{
    struct trial *t = arg;
    if (!check_ok(sim_thin_import(st)))
        return;
    fail_in = t->k;
    int rc = t->op->run(st);
    t->failed = fail_in < 0;
    fail_in = -1;
    check(!rc || rc == VP_E_NO_MEMORY);
    if (rc && !check_ok(t->op->run(st)))
        return;
    check_contents(st);
    check_space(st);
    check_clean(st);
    check_ok(write_chunks(st->thin, UNEQUAL, 1, 'U'));
}

static void look(struct sim_thin *st, void *arg)
{
    (void)arg;
    if (!check_ok(sim_thin_import(st)))
        return;
    check_contents(st);
    check_ok(write_chunks(st->thin, FREE, FEW, 'f'));
    check_ok(sim_thin_close(st));
}

/* Runs a body, then cuts the power. */
static unsigned failures_of(struct sim_thin *st, void (*body)(struct sim_thin *st, void *arg),
                            struct trial *t)
{
    sim_thin_run(st, body, t);
    sim_thin_power_cut(st, 5);
    return check_failures();
}

/* `lived`: the disks after `live` and a power cut. */
static void operation_without_memory(struct sim_thin *st, const struct sim_snapshot *lived,
                                     const struct operation *op)
{
    struct trial t = {.op = op, .failed = true};
    for (; t.failed && t.k < ALLOCATIONS_MAX; t.k++) {
        sim_world_free(st->world);
        st->world = sim_world_from_snapshot(lived, NULL, 5);
        if (failures_of(st, operate, &t) + failures_of(st, look, &t)) {
            print_error("%s, allocation %ld\n", op->name, t.k);
            fail();
        }
    }
    assert_true(t.k < ALLOCATIONS_MAX);
}

static void a_volume_goes_on_after_any_allocation_failed(void **state)
{
    (void)state;
    struct sim_thin_config config = {
        .seed = 3,
        .disks = 4,
        .disk_bytes = 14 << 20,
        .profile = "mirror:2",
        .geometry = {.chunk_bytes = CHUNK_BYTES, .extent_bytes = 16 * CHUNK_BYTES},
        .volume_blocks = CHUNKS * CHUNK,
    };
    struct sim_thin *st = sim_thin_new(&config);
    memset(block, 'b', sizeof(block));
    vp_log_set_level(VP_LOG_ERROR); /* pools run full and checkpoints fail all the time */
    assert_int_equal(failures_of(st, live, NULL), 0);
    struct sim_snapshot *lived = sim_snapshot_take(st->world);
    for (size_t i = 0; i < sizeof(operations) / sizeof(operations[0]); i++)
        operation_without_memory(st, lived, &operations[i]);
    sim_snapshot_free(lived);
    sim_thin_free(st);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_volume_goes_on_after_any_allocation_failed),
    };
    return cmocka_run_group_tests_name("thin allocations", tests, NULL, NULL);
}

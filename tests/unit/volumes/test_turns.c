/*
 * How much large trims, zeroes, shrinks and block statuses do before others on their reactor get a
 * turn. Counted in chunks, leaves and turns: a clock would measure the machine.
 */
#include "tests/lib/on_reactor.h"
#include "tests/lib/sim_volumes.h"
#include "volumes/volumes_impl.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define MIB(n) ((uint64_t)(n) << 20)

enum {
    CHUNKS_A_TURN = 8 * 64, /* windows, chunks in each */
    IDLE_TURNS = 100,
};

/* Runs beside a change, and sees how many chunks are allocated whenever it has its turn. It ends
 * when the change is at its disk accesses: simulated disks get on when nobody is ready. */
struct observer {
    struct volume *v;
    struct co_group done;
    uint64_t seen, most; /* chunks between two turns */
    uint64_t turns;
};

static uint64_t chunks_now(const struct observer *o)
{
    return figure_get(&thin_figures(o->v->io->thin)->allocated_chunks);
}

static void observe(void *arg)
{
    struct observer *o = arg;
    for (unsigned idle = 0; idle < IDLE_TURNS; co_yield ()) {
        uint64_t now = chunks_now(o), moved = now > o->seen ? now - o->seen : o->seen - now;
        o->most = max_u64(o->most, moved);
        o->seen = now;
        o->turns += moved > 0;
        idle = moved ? 0 : idle + 1;
    }
    co_group_leave(&o->done, 0);
}

static void observer_start(struct observer *o, struct volume *v)
{
    *o = (struct observer){.v = v};
    o->seen = chunks_now(o);
    co_group_init(&o->done);
    co_group_enter(&o->done);
    check_ok(co_spawn(observe, o, "observer"));
}

static CO void observer_stop(struct observer *o)
{
    check_ok(co_group_wait(&o->done));
    check(o->most <= CHUNKS_A_TURN);
}

static CO int change(struct sim_volumes *s, struct volume *v, unsigned kind, uint64_t len)
{
    struct vp_error err;
    switch (kind) {
    case 0:
        return volume_discard(v, 0, len, 0);
    case 1:
        return volume_zero(v, 0, len, 0);
    default:
        return volume_resize(s->vs, "v", volume_size(v) - len, true, &err);
    }
}

/* Turns of an observer beside a change of `len` bytes, all of them allocated. */
static CO uint64_t turns_of(struct sim_volumes *s, struct volume *v, unsigned kind, uint64_t len)
{
    struct observer o;
    struct vp_error err;
    check_ok(volume_resize(s->vs, "v", MIB(1024), false, &err));
    check_ok(volume_zero(v, 0, MIB(1024), VOLUME_NO_HOLE));
    check_ok(volume_flush(v));
    observer_start(&o, v);
    check_ok(change(s, v, kind, len));
    check_ok(volume_flush(v));
    observer_stop(&o);
    return o.turns;
}

static CO void large_changes(struct sim_volumes *s)
{
    struct volume *v = sim_volumes_volume(s, "v", MIB(1024));
    if (!v)
        return;
    for (unsigned kind = 0; kind < 3; kind++) {
        uint64_t one = turns_of(s, v, kind, MIB(256)),
                 four = turns_of(s, v, kind, MIB(1024) - MIB(4));
        check(one >= MIB(256) / (64 << 10) / CHUNKS_A_TURN);
        check(four < 6 * one); /* it is not quadratic */
    }
}

static void trims_zeroes_and_shrinks_give_others_a_turn_every_few_chunks(void **state)
{
    (void)state;
    struct sim_volumes *s = sim_volumes_new(&(struct sim_volumes_config){
        .seed = 5, .disk_bytes = MIB(1024), .metadata_bytes = MIB(32)});
    sim_volumes_run(s, large_changes);
    sim_volumes_free(s);
    assert_checked();
}

/* ---- block status --------------------------------------------------------------------------- */

static bool looked;

static void count_turns(void *arg)
{
    uint64_t *turns = arg;
    for (; !looked; co_yield ())
        ++*turns;
}

/* One extent over many leaves, all of them in memory. */
static CO void long_extents(struct sim_volumes *s)
{
    enum { EXTENTS = 4, CHUNKS_OF_A_LEAF = 48, LEAVES_A_TURN = 16 };
    struct volume_extent extent[EXTENTS];
    struct volume *v = sim_volumes_volume(s, "v", MIB(1024));
    unsigned n = 0;
    uint64_t turns = 0;
    if (!v)
        return;
    check_ok(volume_zero(v, 0, MIB(1024), VOLUME_NO_HOLE));
    looked = false;
    check_ok(co_spawn(count_turns, &turns, "observer"));
    check_ok(volume_extents(v, 0, MIB(1024), extent, EXTENTS, &n));
    looked = true;
    check_equal(n, 1);
    check_equal(extent[0].len, MIB(1024));
    check(turns >= MIB(1024) / (64 << 10) / CHUNKS_OF_A_LEAF / LEAVES_A_TURN);
}

static void a_block_status_over_many_leaves_gives_others_a_turn_every_few(void **state)
{
    (void)state;
    struct sim_volumes *s = sim_volumes_new(&(struct sim_volumes_config){
        .seed = 6, .disk_bytes = MIB(1024), .metadata_bytes = MIB(32)});
    sim_volumes_run(s, long_extents);
    sim_volumes_free(s);
    assert_checked();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(trims_zeroes_and_shrinks_give_others_a_turn_every_few_chunks),
        cmocka_unit_test(a_block_status_over_many_leaves_gives_others_a_turn_every_few),
    };
    return cmocka_run_group_tests_name("volumes/turns", tests, NULL, NULL);
}

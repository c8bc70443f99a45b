/* Two frozen volumes of two pools exchange their fronts: where requests go, what clients see, what
 * ends when. And reads beside the gate of a frozen volume. */
#include "tests/lib/aborts.h"
#include "tests/lib/on_reactor.h"
#include "tests/lib/sent.h"
#include "tests/lib/sim_volumes.h"

#include "base/bytes.h"
#include "volumes/volumes_impl.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define MIB(n) ((uint64_t)(n) << 20)
#define MS(n)  ((uint64_t)(n)*1000000)

enum { BLOCK = 4096, FROM = 0x11, TO = 0x22, NEW = 0x33 };
static uint8_t data[64 << 10] __attribute__((aligned(4096)));
static uint8_t seen[64 << 10] __attribute__((aligned(4096)));

/* ---- two volumes, and clients of the first -------------------------------------------------- */

struct pair {
    struct sim_volumes *s;
    struct volume *from, *to; /* "p/v" with bytes FROM, "q/v" with bytes TO */
    struct front *front;      /* what clients hold: at first that of `from`, later that of `to` */
};

static void play(void (*body)(struct sim_volumes *s), uint64_t seed)
{
    struct sim_volumes *s = sim_volumes_new(&(struct sim_volumes_config){
        .seed = seed, .disk_bytes = MIB(24), .metadata_bytes = MIB(1), .two_pools = true});
    sim_volumes_run(s, body);
    sim_volumes_free(s);
    assert_checked();
}

static CO void pass_time(uint64_t ns)
{
    vp_ignore(co_sleep_ns(ns), "nobody cancels");
}

static CO struct volume *volume_make(struct volumes *vs, const struct volume_options *o,
                                     uint8_t byte)
{
    struct vp_error err = {0};
    struct volume *v = NULL;
    check_ok(volume_create(vs, "v", o, &err));
    if (!check_ok(volume_open_to_move(vs, "v", reactor_self(), &v, &err)))
        (void)fprintf(stderr, "%s\n", err.text);
    memset(data, byte, sizeof(data));
    check_ok(volume_write(v, 0, sizeof(data), data, VOLUME_FUA));
    return v;
}

static CO struct pair pair_make(struct sim_volumes *s)
{
    struct pair p = {.s = s};
    p.from = volume_make(s->vs, &(struct volume_options){.size_bytes = MIB(4)}, FROM);
    p.to = volume_make(s->other,
                       &(struct volume_options){.size_bytes = MIB(8), .sector_bytes = 4096}, TO);
    p.front = volume_front(p.from);
    return p;
}

static CO void pair_freeze(const struct pair *p)
{
    struct front_late late;
    check_ok(front_freeze(volume_front(p->from), 0, &late));
    check_ok(front_freeze(volume_front(p->to), 0, &late));
}

/* Both volumes; the source stays frozen. */
static void pair_switch(const struct pair *p)
{
    volume_fronts_exchange(p->from, p->to);
    check(volume_front(p->to) == p->front);
    front_thaw(p->front);
}

static CO uint8_t beside_byte(struct volume *v, uint64_t block)
{
    bool zero;
    check_ok(volume_beside_read(v, block, 1, seen, &zero));
    return zero ? 0 : seen[0];
}

static CO void send(struct sent *t, struct front *f, int (*run)(struct sent *t), uint64_t block)
{
    sent_begin_and_yield(t, f, run, block * BLOCK);
}

static CO int run_write(struct sent *t)
{
    static uint8_t block[BLOCK] __attribute__((aligned(4096)));
    memset(block, NEW, BLOCK);
    return front_write(&t->client, t->at, BLOCK, block, 0);
}

static CO int run_read(struct sent *t)
{
    return front_read(&t->client, t->at, 1, &t->byte);
}

static CO int run_admit(struct sent *t)
{
    return front_admit(&t->client, BLOCK);
}

/* ---- held requests -------------------------------------------------------------------------- */

enum { MARKS_MAX = 32 };
struct marked {
    unsigned count;
    uint64_t block[MARKS_MAX]; /* that changed, in this order */
};

static void mark(void *arg, uint64_t block, uint64_t count)
{
    struct marked *m = arg;
    (void)count;
    if (m->count < MARKS_MAX)
        m->block[m->count] = block;
    m->count++;
}

static CO void held(struct sim_volumes *s)
{
    enum { WRITES = 8 };
    struct pair p = pair_make(s);
    struct marked at_from = {0}, at_to = {0};
    struct sent write[WRITES], read;
    pair_freeze(&p);
    volume_marks_set(p.from, &(struct volume_marks){.mark = mark, .arg = &at_from});
    volume_marks_set(p.to, &(struct volume_marks){.mark = mark, .arg = &at_to});
    for (unsigned i = 0; i < WRITES; i++)
        send(&write[i], p.front, run_write, i);
    send(&read, p.front, run_read, WRITES);
    pair_switch(&p);
    check_ok(volume_write(p.to, MIB(1), BLOCK, data, 0)); /* before they had a turn */
    pass_time(MS(1));
    check_equal(at_to.count, WRITES + 1);
    for (unsigned i = 0; i < WRITES; i++) {
        check(write[i].done && write[i].rc == 0);
        check_equal(at_to.block[i], i);
    }
    check_equal(at_to.block[WRITES], MIB(1) / BLOCK);
    check(read.done && read.rc == 0 && read.byte == TO);
    check_equal(at_from.count, 0);
    for (unsigned i = 0; i <= WRITES; i++) {
        check_equal(beside_byte(p.from, i), FROM);
        check_ok(volume_read(p.to, (uint64_t)i * BLOCK, BLOCK, seen));
        check_equal(seen[0], i < WRITES ? NEW : TO);
    }
}

static void held_requests_go_to_the_other_volume_in_order_and_each_once(void **state)
{
    (void)state;
    play(held, 1);
}

/* A discard that a freeze has cut: its first part is done here, and the rest there. */
static CO int run_discard(struct sent *t)
{
    return front_discard(&t->client, 0, MIB(160), 0);
}

static CO void cut(struct sim_volumes *s)
{
    struct pair p = {.s = s};
    struct sent t;
    struct volume_options o = {.size_bytes = MIB(160)};
    p.from = volume_make(s->vs, &o, FROM);
    p.to = volume_make(s->other, &o, TO);
    p.front = volume_front(p.from);
    for (uint64_t at = 0; at < MIB(160); at += MIB(4)) {
        check_ok(volume_write(p.from, at, BLOCK, data, 0));
        check_ok(volume_write(p.to, at, BLOCK, data, 0));
    }
    send(&t, p.front, run_discard, 0);
    pair_freeze(&p);
    check(!t.done);
    pair_switch(&p);
    while (!t.done)
        pass_time(MS(1));
    check_ok(t.rc);
    bool was_here = true;
    for (uint64_t at = 0; at < MIB(160); at += MIB(4)) {
        bool here = beside_byte(p.from, at / BLOCK) == 0;
        check_ok(volume_read(p.to, at, BLOCK, seen));
        check(here != bytes_are_zero(seen, BLOCK));
        check(was_here || !here); /* one cut */
        was_here = here;
    }
    check(!was_here);
}

static void a_request_that_came_back_does_the_rest_at_the_other_volume(void **state)
{
    (void)state;
    play(cut, 2);
}

/* ---- what clients see, and what is counted -------------------------------------------------- */

static uint64_t writes_of(const struct volume *v)
{
    return figure_get(&v->figures.writes);
}

static CO void follow(struct sim_volumes *s)
{
    struct pair p = pair_make(s);
    struct vp_error err = {0};
    struct sent t;
    send(&t, p.front, run_write, 0);
    pair_freeze(&p);
    uint64_t from_writes = writes_of(p.from), to_writes = writes_of(p.to);
    check_equal(front_size(p.front), MIB(4));
    check_equal(front_sector_bytes(p.front), 512);
    pair_switch(&p);
    check_equal(front_size(p.front), MIB(8));
    check_equal(front_sector_bytes(p.front), 4096);
    check(!front_is_read_only(p.front));
    send(&t, p.front, run_write, MIB(4) / BLOCK); /* beyond the end of the source */
    pass_time(MS(1));
    check(t.done && t.rc == 0);
    check_equal(writes_of(p.from), from_writes);
    check_equal(writes_of(p.to), to_writes + 1);

    check_ok(volume_property_set(s->other, "v", "read-only", "on", &err));
    check_ok(volume_resize(s->other, "v", MIB(16), false, &err));
    check_ok(volume_resize(s->other, "v", MIB(8), true, &err)); /* freezes the clients' front */
    check(front_is_read_only(p.front));
    check_equal(front_size(p.front), MIB(8));
    send(&t, p.front, run_write, 0);
    check(t.done && t.rc == VP_E_READ_ONLY);
}

static void size_sector_read_only_and_figures_are_those_of_the_other_volume(void **state)
{
    (void)state;
    play(follow, 3);
}

static CO void back(struct sim_volumes *s)
{
    struct pair p = pair_make(s);
    struct sent t;
    pair_freeze(&p);
    send(&t, p.front, run_write, 0);
    volume_fronts_exchange(p.from, p.to);
    volume_fronts_exchange(p.from, p.to);
    check(volume_front(p.from) == p.front);
    front_thaw(volume_front(p.from));
    front_thaw(volume_front(p.to));
    check_ok(volume_read(p.to, 0, BLOCK, seen));
    check_equal(seen[0], TO);
    check_ok(volume_read(p.from, 0, BLOCK, seen));
    check(t.done && t.rc == 0);
    check_equal(seen[0], NEW);
}

static void an_exchange_is_undone_by_another(void **state)
{
    (void)state;
    play(back, 4);
}

/* ---- clients that go ------------------------------------------------------------------------ */

static CO void goes(struct sim_volumes *s)
{
    struct pair p = pair_make(s);
    struct sent before, after, stays, admit;
    pair_freeze(&p);
    send(&before, p.front, run_write, 0);
    send(&after, p.front, run_write, 1);
    send(&stays, p.front, run_write, 2);
    send(&admit, p.front, run_admit, 0);
    front_client_go(&before.client);
    volume_fronts_exchange(p.from, p.to);
    front_client_go(&after.client);
    co_yield ();
    check(before.done && before.rc == VP_E_CANCELLED);
    check(after.done && after.rc == VP_E_CANCELLED);
    check(!stays.done && !admit.done);
    front_thaw(p.front);
    pass_time(MS(1));
    check(stays.done && stays.rc == 0);
    check(admit.done && admit.rc == 0);
    for (unsigned i = 0; i < 3; i++) {
        check_ok(volume_read(p.to, (uint64_t)i * BLOCK, BLOCK, seen));
        check_equal(seen[0], i < 2 ? TO : NEW);
    }
}

static void a_client_that_goes_while_the_fronts_are_exchanged_changes_nothing(void **state)
{
    (void)state;
    play(goes, 5);
}

/* Writes until there is no space. */
static CO void fill(struct volumes *vs, const char *name, struct volume *v)
{
    struct vp_error err = {0};
    int rc = volume_property_set(vs, name, "full-policy", "enospc", &err);
    for (uint64_t at = 0; !rc; at += sizeof(data))
        rc = volume_write(v, at, sizeof(data), data, 0);
    check_equal(rc, VP_E_NO_SPACE);
    check_ok(volume_property_set(vs, name, "full-policy", "pause", &err));
}

static CO void full(struct sim_volumes *s)
{
    struct pair p = pair_make(s);
    struct vp_error err = {0};
    struct volume *big;
    struct sent leaves, waits;
    check_ok(
        volume_create(s->other, "big", &(struct volume_options){.size_bytes = MIB(200)}, &err));
    check_ok(volume_open(s->other, "big", false, &big, &err));
    fill(s->other, "big", big);
    fill(s->other, "v", p.to);
    pair_freeze(&p);
    send(&leaves, p.front, run_write, MIB(7) / BLOCK);
    send(&waits, p.front, run_write, MIB(6) / BLOCK);
    pair_switch(&p);
    pass_time(MS(50));
    check(!leaves.done && !waits.done);
    check_equal(figure_get(&p.to->figures.waiting_for_space), 2);
    check_equal(figure_get(&p.from->figures.waiting_for_space), 0);
    front_client_leave(&leaves.client); /* wakes what waits at the target */
    pass_time(MS(1));
    check(leaves.done && leaves.rc == VP_E_CANCELLED);
    check_ok(volume_discard(big, 0, MIB(8), VOLUME_FUA));
    pass_time(MS(50));
    check(waits.done && waits.rc == 0);
    check_equal(figure_get(&p.to->figures.waiting_for_space), 0);
    check_equal(s->other->room_waiters, 0);
}

static void a_client_waits_for_space_in_the_pool_that_its_volume_is_in_now(void **state)
{
    (void)state;
    play(full, 6);
}

/* ---- the source goes ------------------------------------------------------------------------ */

static CO void after(struct sim_volumes *s)
{
    struct pair p = pair_make(s);
    struct vp_error err = {0};
    struct sent t, held_one;
    pair_freeze(&p);
    send(&held_one, p.front, run_write, 1);
    pair_switch(&p);
    volume_close(p.from);
    check_ok(volume_delete(s->vs, "v", &err));
    sim_volumes_settle(s);
    check_ok(pool_checkpoint(volumes_pool(s->vs)));
    sim_volumes_settle(s);
    send(&t, p.front, run_write, 0);
    pass_time(MS(1));
    check(t.done && t.rc == 0 && held_one.done && held_one.rc == 0);
    check_ok(sim_volumes_close(s));
    send(&t, p.front, run_read, 0);
    pass_time(MS(1));
    check(t.done && t.rc == 0 && t.byte == NEW);

    struct front_late late;
    check_ok(front_freeze(p.front, 0, &late));
    send(&held_one, p.front, run_write, 1);
    int rc = volumes_close(s->other, false);
    s->other = NULL;
    check_ok(rc);
    check(held_one.done && held_one.rc == VP_E_CANCELLED);
}

static void clients_go_on_after_the_source_and_its_pool_have_gone(void **state)
{
    (void)state;
    play(after, 7);
}

/* The pool of the source ends as it is: the source open and frozen. */
static CO void source_ends(struct sim_volumes *s)
{
    struct pair p = pair_make(s);
    struct sent t;
    pair_freeze(&p);
    send(&t, p.front, run_write, 0);
    volume_fronts_exchange(p.from, p.to);
    check_ok(sim_volumes_close(s));
    check(!t.done);
    front_thaw(p.front);
    pass_time(MS(1));
    check(t.done && t.rc == 0);
}

static void the_end_of_the_sources_pool_leaves_held_requests_alone(void **state)
{
    (void)state;
    play(source_ends, 8);
}

/* ---- beside the gate ------------------------------------------------------------------------ */

static CO int run_beside(struct sent *t)
{
    bool zero;
    int rc = volume_beside_read(t->client.front->volume, t->at / BLOCK, 1, seen, &zero);
    t->byte = seen[0];
    return rc;
}

static CO int refuse(void *arg, struct front_request *r)
{
    (void)arg, (void)r;
    return VP_E_IO;
}

static void refuse_rouse(void *arg)
{
    (void)arg;
}

static CO void beside(struct sim_volumes *s)
{
    static const struct front_ops refuses = {
        .run = {refuse, refuse, refuse, refuse, refuse, refuse}, .rouse = refuse_rouse};
    struct pair p = pair_make(s);
    struct front_late late;
    struct volume_extent e[4];
    struct sent held_one, t;
    uint64_t reads = figure_get(&p.from->figures.reads);
    unsigned n;
    bool zero;
    check_equal(beside_byte(p.from, 0), FROM); /* the gate is open */
    check_ok(front_freeze(p.front, 0, &late));
    send(&held_one, p.front, run_write, 0);
    front_swap(p.front, &refuses, NULL); /* they ask the volume, not what is behind its front */
    check_equal(beside_byte(p.from, 0), FROM);
    check_ok(volume_beside_extents(p.from, 0, MIB(4), e, 4, &n));
    check_equal(n, 2);
    check(e[0].len == sizeof(data) && !e[0].zero && e[1].zero);
    check_equal(volume_beside_read(p.from, MIB(4) / BLOCK - 1, 2, seen, &zero), VP_E_RANGE);
    check_ok(volume_beside_read(p.from, MIB(4) / BLOCK - 16, 16, seen, &zero));
    check(zero);
    check_equal(reads, figure_get(&p.from->figures.reads));
    check(!held_one.done);
    front_swap(p.front, &volume_front_ops, p.from);

    send(&t, p.front, run_beside, 1);
    check(!t.done);
    check_ok(sim_volumes_close(s)); /* waits for it */
    check(t.done && t.rc == 0 && t.byte == FROM);
    check(held_one.done && held_one.rc == VP_E_CANCELLED);
}

static void a_volume_is_read_beside_its_gate_open_or_frozen(void **state)
{
    (void)state;
    play(beside, 9);
}

static CO void beside_the_end(struct sim_volumes *s)
{
    struct pair p = pair_make(s);
    struct front_late late;
    struct volume_extent e;
    unsigned n;
    bool zero;
    check_ok(front_freeze(p.front, 0, &late));
    front_end(p.front);
    check_equal(volume_beside_read(p.from, 0, 1, seen, &zero), VP_E_CANCELLED);
    check_equal(volume_beside_extents(p.from, 0, BLOCK, &e, 1, &n), VP_E_CANCELLED);
}

static void nothing_is_read_beside_the_gate_of_a_pool_that_is_closed(void **state)
{
    (void)state;
    play(beside_the_end, 10);
}

/* ---- invariants ----------------------------------------------------------------------------- */

static CO void exchange_open(struct sim_volumes *s)
{
    struct pair p = pair_make(s);
    struct front_late late;
    check_ok(front_freeze(p.front, 0, &late));
    volume_fronts_exchange(p.from, p.to);
}

static CO void exchange_read(struct sim_volumes *s)
{
    struct pair p = pair_make(s);
    struct sent t;
    pair_freeze(&p);
    send(&t, p.front, run_beside, 0);
    volume_fronts_exchange(p.from, p.to);
}

static void play_body(void *arg)
{
    void (*const *body)(struct sim_volumes * s) = arg;
    play(*body, 11);
}

static void what_is_not_frozen_or_still_read_aborts(void **state)
{
    void (*body[])(struct sim_volumes * s) = {exchange_open, exchange_read};
    (void)state;
    for (unsigned i = 0; i < sizeof(body) / sizeof(body[0]); i++)
        assert_true(call_aborts(play_body, &body[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(held_requests_go_to_the_other_volume_in_order_and_each_once),
        cmocka_unit_test(a_request_that_came_back_does_the_rest_at_the_other_volume),
        cmocka_unit_test(size_sector_read_only_and_figures_are_those_of_the_other_volume),
        cmocka_unit_test(an_exchange_is_undone_by_another),
        cmocka_unit_test(a_client_that_goes_while_the_fronts_are_exchanged_changes_nothing),
        cmocka_unit_test(a_client_waits_for_space_in_the_pool_that_its_volume_is_in_now),
        cmocka_unit_test(clients_go_on_after_the_source_and_its_pool_have_gone),
        cmocka_unit_test(the_end_of_the_sources_pool_leaves_held_requests_alone),
        cmocka_unit_test(a_volume_is_read_beside_its_gate_open_or_frozen),
        cmocka_unit_test(nothing_is_read_beside_the_gate_of_a_pool_that_is_closed),
        cmocka_unit_test(what_is_not_frozen_or_still_read_aborts),
    };
    return cmocka_run_group_tests_name("volumes/exchange", tests, NULL, NULL);
}

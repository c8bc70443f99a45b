/* The gate of a volume: who waits there, in which order it goes on, and what ends the waiting. */
#include "tests/lib/on_reactor.h"
#include "tests/lib/sent.h"
#include "tests/lib/sim_volumes.h"

#include "base/bytes.h"
#include "io/buffer.h"
#include "volumes/volumes_impl.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define MIB(n) ((uint64_t)(n) << 20)
#define MS(n)  ((uint64_t)(n)*1000000)

enum { STEP = 64 << 10 };
static uint8_t data[STEP] __attribute__((aligned(4096)));
static uint8_t seen[STEP] __attribute__((aligned(4096)));

static void play(void (*body)(struct sim_volumes *s), uint64_t seed)
{
    struct sim_volumes *s = sim_volumes_new(&(struct sim_volumes_config){
        .seed = seed, .disk_bytes = MIB(24), .metadata_bytes = MIB(1)});
    sim_volumes_run(s, body);
    sim_volumes_free(s);
    assert_checked();
}

static CO void pass_time(uint64_t ns)
{
    vp_ignore(co_sleep_ns(ns), "nobody cancels");
}

/* ---- something behind a front that does as it is told --------------------------------------- */

enum { SEEN_MAX = 32 };
struct script {
    unsigned stuck; /* requests of this kind stay until `let_go` */
    bool let_go;
    unsigned seen;
    uint64_t offset[SEEN_MAX]; /* of the requests that came, in this order */
    struct co_queue queue;
};

static CO int script_run(void *arg, struct front_request *r)
{
    struct script *s = arg;
    if (s->seen < SEEN_MAX)
        s->offset[s->seen] = r->offset;
    s->seen++;
    while (r->kind == s->stuck && !s->let_go)
        co_queue_wait(&s->queue, "stuck by the test");
    return 0;
}

static void script_rouse(void *arg)
{
    (void)arg;
}

static const struct front_ops script_ops = {
    .run = {[FRONT_READ] = script_run,
            [FRONT_WRITE] = script_run,
            [FRONT_FLUSH] = script_run,
            [FRONT_DISCARD] = script_run,
            [FRONT_ZERO] = script_run,
            [FRONT_EXTENTS] = script_run},
    .rouse = script_rouse,
};

static CO void script_put(struct script *s, struct front *f)
{
    struct front_late late;
    *s = (struct script){.stuck = FRONT_KINDS};
    co_queue_init(&s->queue);
    check_ok(front_freeze(f, 0, &late));
    front_swap(f, &script_ops, s);
    front_thaw(f);
}

static CO void script_take(struct script *s, struct front *f, struct volume *v)
{
    struct front_late late;
    s->let_go = true;
    co_queue_wake_all(&s->queue);
    check_ok(front_freeze(f, 0, &late));
    front_swap(f, &volume_front_ops, v);
    front_thaw(f);
}

/* ---- requests beside the test --------------------------------------------------------------- */

static CO int run_write(struct sent *t)
{
    return front_write(&t->client, t->at, 4096, data, 0);
}

static CO int run_write_unaligned(struct sent *t)
{
    return front_write(&t->client, t->at + 1, 4096, data, 0);
}

static CO int run_read(struct sent *t)
{
    return front_read(&t->client, t->at, 4096, seen);
}

static CO int run_flush(struct sent *t)
{
    return front_flush(&t->client);
}

static CO int run_pass(struct sent *t)
{
    return front_pass(&t->client);
}

static CO int run_admit(struct sent *t)
{
    return front_admit(&t->client, t->at);
}

static CO int run_discard(struct sent *t)
{
    return front_discard(&t->client, t->at, MIB(160), 0);
}

/* A freeze, as a request beside the test; its gate stays closed when it succeeds. */
static CO int run_freeze(struct sent *t)
{
    struct front_late late;
    return front_freeze(t->client.front, reactor_now_ns() + MS(100), &late);
}

/* ---- order ---------------------------------------------------------------------------------- */

static CO void order(struct sim_volumes *s)
{
    struct volume *v = sim_volumes_volume(s, "v", MIB(4));
    struct front *f = volume_front(v);
    struct front_late late;
    struct script script;
    struct sent t[8], last;
    script_put(&script, f);
    check_ok(front_freeze(f, 0, &late));
    for (unsigned i = 0; i < 8; i++)
        sent_begin_and_yield(&t[i], f, i % 3 ? run_write : run_read, i * 4096);
    check_equal(script.seen, 0);
    front_thaw(f);
    check_ok(volume_write(v, MIB(1), 4096, data, 0)); /* comes before they had a turn */
    sent_begin_and_yield(&last, f, run_write, MIB(2));
    pass_time(MS(1));
    check_equal(script.seen, 10);
    for (unsigned i = 0; i < 8; i++) {
        check(t[i].done && t[i].rc == 0);
        check_equal(script.offset[i], i * 4096);
    }
    check_equal(script.offset[8], MIB(1));
    check_equal(script.offset[9], MIB(2));
    check(front_is_idle(f));
    script_take(&script, f, v);
}

static void held_requests_go_on_in_order_of_arrival_and_each_once(void **state)
{
    (void)state;
    play(order, 1);
}

/* Frozen again when some of them have passed. */
static CO void freeze_again(struct sim_volumes *s)
{
    struct volume *v = sim_volumes_volume(s, "v", MIB(4));
    struct front *f = volume_front(v);
    struct front_late late;
    struct script script;
    struct sent t[4];
    script_put(&script, f);
    check_ok(front_freeze(f, 0, &late));
    for (unsigned i = 0; i < 4; i++)
        sent_begin_and_yield(&t[i], f, run_write, i * 4096);
    front_thaw(f);
    co_yield ();
    check_ok(front_freeze(f, 0, &late));
    unsigned passed = script.seen;
    check(passed < 4);
    pass_time(MS(1));
    check_equal(script.seen, passed);
    front_thaw(f);
    pass_time(MS(1));
    check_equal(script.seen, 4);
    for (unsigned i = 0; i < 4; i++)
        check_equal(script.offset[i], i * 4096);
    script_take(&script, f, v);
}

static void a_freeze_while_held_requests_go_on_keeps_their_order(void **state)
{
    (void)state;
    play(freeze_again, 2);
}

/* ---- what a freeze waits for ---------------------------------------------------------------- */

static CO void deadline(struct sim_volumes *s)
{
    struct volume *v = sim_volumes_volume(s, "v", MIB(4));
    struct front *f = volume_front(v);
    struct front_late late = {0};
    struct script script;
    struct sent t[3], held;
    script_put(&script, f);
    script.stuck = FRONT_WRITE;
    sent_begin_and_yield(&t[0], f, run_write, 0);
    sent_begin_and_yield(&t[1], f, run_write, 4096);
    sent_begin_and_yield(&t[2], f, run_flush, 0);
    uint64_t until = reactor_now_ns() + MS(50);
    sent_begin(&held, f, run_read, 8192);
    check_equal(front_freeze(f, until, &late), VP_E_TIMED_OUT);
    check(reactor_now_ns() >= until);
    check_equal(late.count, 2);
    check(strcmp(late.text, "2 writes") == 0);
    pass_time(MS(1));
    check(held.done && held.rc == 0); /* the gate is open again */
    script_take(&script, f, v);
    check(t[0].done && t[1].done && t[2].done);
}

static void a_freeze_whose_deadline_passes_opens_the_gate_and_names_the_late(void **state)
{
    (void)state;
    play(deadline, 3);
}

static CO void at_the_disk(struct sim_volumes *s)
{
    struct volume *v = sim_volumes_volume(s, "v", MIB(4));
    struct front *f = volume_front(v);
    struct front_late late;
    struct sent t;
    memset(data, 0x5a, sizeof(data));
    sent_begin_and_yield(&t, f, run_write, 0);
    check(!t.done);
    check_ok(front_freeze(f, 0, &late));
    check(t.done && t.rc == 0);
    front_thaw(f);
    check_ok(volume_read(v, 0, 4096, seen));
    check(memcmp(seen, data, 4096) == 0);
}

static void a_frozen_volume_has_nothing_in_flight(void **state)
{
    (void)state;
    play(at_the_disk, 4);
}

/* A discard of many windows, in the middle. */
static CO void long_discard(struct sim_volumes *s)
{
    struct volume *v = sim_volumes_volume(s, "v", MIB(200));
    struct front *f = volume_front(v);
    struct front_late late;
    struct volume_info info;
    struct sent t;
    memset(data, 0x5a, sizeof(data));
    for (uint64_t at = 0; at < MIB(200); at += MIB(4))
        check_ok(volume_write(v, at, 4096, data, 0));
    check_ok(volume_flush(v));
    sent_begin_and_yield(&t, f, run_discard, 0);
    check_ok(front_freeze(f, 0, &late));
    check(!t.done);
    front_thaw(f);
    while (!t.done)
        pass_time(MS(1));
    check_ok(t.rc);
    check_ok(volume_info_get(s->vs, "v", &info));
    check_equal(figure_get(&info.figures->discards), 1);
    for (uint64_t at = 0; at < MIB(200); at += MIB(4)) {
        check_ok(volume_read(v, at, 4096, seen));
        check_equal(bytes_are_zero(seen, 4096), at < MIB(160));
    }
}

static void a_discard_that_is_frozen_in_the_middle_does_the_rest_later(void **state)
{
    (void)state;
    play(long_discard, 5);
}

/* ---- a full pool ---------------------------------------------------------------------------- */

/* How many buffers of the largest kind there are. */
static unsigned buffers_free(void)
{
    void *buf[16];
    unsigned n = 0;
    while (n < 16 && (buf[n] = io_buffer_try(IO_BUFFER_MAX)))
        n++;
    for (unsigned i = 0; i < n; i++)
        io_buffer_put(buf[i], IO_BUFFER_MAX);
    return n;
}

static CO void full(struct sim_volumes *s)
{
    struct vp_error err;
    struct front_late late;
    struct volume_info info;
    struct sent t[2], held;
    struct volume *big = sim_volumes_volume(s, "big", MIB(200));
    struct volume *v = sim_volumes_volume(s, "v", MIB(4));
    struct front *f = volume_front(v);
    int rc = volume_property_set(s->vs, "big", "full-policy", "enospc", &err);
    for (uint64_t at = 0; !rc; at += STEP)
        rc = volume_write(big, at, STEP, data, 0);
    check_equal(rc, VP_E_NO_SPACE);
    unsigned buffers = buffers_free();
    memset(data, 0x77, sizeof(data));
    sent_begin(&t[0], f, run_write, 0);
    sent_begin(&t[1], f, run_write_unaligned, MIB(1));
    pass_time(MS(50));
    check(!t[0].done && !t[1].done);

    check_ok(front_freeze(f, 0, &late)); /* they do not keep it from being frozen */
    check_ok(volume_info_get(s->vs, "v", &info));
    check_equal(figure_get(&info.figures->waiting_for_space), 0);
    sent_begin_and_yield(&held, f, run_write_unaligned, MIB(2));
    check_equal(buffers_free(), buffers);
    check_ok(volume_discard(big, 0, MIB(8), 0)); /* room, while they are not there to see it */
    pass_time(MS(50));
    check(!t[0].done && !t[1].done && !held.done);
    front_thaw(f);
    pass_time(MS(50));
    check(t[0].done && t[1].done && held.done);
    check(!t[0].rc && !t[1].rc && !held.rc);
    check_ok(volume_info_get(s->vs, "v", &info));
    check_equal(figure_get(&info.figures->writes), 3);
    check_equal(figure_get(&info.figures->bytes_written), 3 * 4096);
    check_ok(volume_read(v, MIB(1) + 1, 4096, seen));
    check(memcmp(seen, data, 4096) == 0);
}

static void a_write_that_waits_for_space_comes_back_to_the_gate_and_goes_on_later(void **state)
{
    (void)state;
    play(full, 6);
}

/* ---- clients, and others who freeze --------------------------------------------------------- */

static CO void clients(struct sim_volumes *s)
{
    struct volume *v = sim_volumes_volume(s, "v", MIB(4));
    struct front *f = volume_front(v);
    struct front_late late;
    struct script script;
    struct sent goes, leaves, passes;
    script_put(&script, f);
    check_ok(front_freeze(f, 0, &late));
    sent_begin_and_yield(&goes, f, run_write, 0);
    sent_begin_and_yield(&leaves, f, run_write, 4096);
    sent_begin_and_yield(&passes, f, run_pass, 0);
    front_client_leave(&leaves.client);
    front_client_go(&goes.client);
    front_client_go(&passes.client);
    co_yield ();
    check(goes.done && goes.rc == VP_E_CANCELLED);
    check(passes.done && passes.rc == VP_E_CANCELLED);
    check(!leaves.done);
    front_thaw(f);
    pass_time(MS(1));
    check(leaves.done && leaves.rc == 0);
    check_equal(script.seen, 1);
    script_take(&script, f, v);
}

static void a_client_that_goes_waits_at_no_gate(void **state)
{
    (void)state;
    play(clients, 7);
}

static CO void two_freeze(struct sim_volumes *s)
{
    struct vp_error err = {0};
    struct volume *v = sim_volumes_volume(s, "v", MIB(4));
    struct front *f = volume_front(v);
    struct front_late late;
    struct script script;
    struct sent stuck, other;
    script_put(&script, f);
    check_ok(front_freeze(f, 0, &late));
    check_equal(front_freeze(f, 0, &late), VP_E_BUSY);
    /* What else may come while a volume is frozen. */
    check_equal(volume_resize(s->vs, "v", MIB(2), true, &err), VP_E_BUSY);
    check_equal(volume_size(v), MIB(4));
    check_ok(volume_resize(s->vs, "v", MIB(8), false, &err));
    check_equal(volume_delete(s->vs, "v", &err), VP_E_BUSY);
    check_ok(volume_rename(s->vs, "v", "w", &err));
    check_ok(pool_checkpoint(volumes_pool(s->vs)));
    front_thaw(f);

    script.stuck = FRONT_WRITE;
    sent_begin_and_yield(&stuck, f, run_write, 0);
    sent_begin_and_yield(&other, f, run_freeze, 0);
    check_equal(front_freeze(f, 0, &late), VP_E_BUSY);
    pass_time(MS(200));
    check(other.done && other.rc == VP_E_TIMED_OUT);
    script_take(&script, f, v);
}

static void one_freezes_a_volume_at_a_time(void **state)
{
    (void)state;
    play(two_freeze, 8);
}

static CO void shrink_late(struct sim_volumes *s)
{
    struct vp_error err = {0};
    struct volume *v = sim_volumes_volume(s, "v", MIB(4));
    struct front *f = volume_front(v);
    struct script script;
    struct sent t;
    script_put(&script, f);
    script.stuck = FRONT_WRITE;
    sent_begin_and_yield(&t, f, run_write, MIB(3));
    check_equal(volume_resize(s->vs, "v", MIB(2), true, &err), VP_E_TIMED_OUT);
    check(strstr(err.text, "requests in flight (1 write) did not end within 10 s") != NULL);
    check_equal(volume_size(v), MIB(4));
    script_take(&script, f, v);
    check_ok(volume_resize(s->vs, "v", MIB(2), true, &err));
    check_equal(volume_size(v), MIB(2));
}

static void a_shrink_does_not_go_on_without_the_requests_that_are_late(void **state)
{
    (void)state;
    play(shrink_late, 9);
}

/* ---- tokens ---------------------------------------------------------------------------------- */

struct bucket {
    uint64_t bytes, taken;
    unsigned waiting;
    struct co_queue queue;
};

static CO int bucket_take(void *arg, const struct front_client *c, uint64_t bytes)
{
    struct bucket *b = arg;
    b->waiting++;
    while (b->bytes < bytes && !front_client_is_off(c))
        co_queue_wait(&b->queue, "tokens");
    b->waiting--;
    if (front_client_is_off(c))
        return VP_E_CANCELLED;
    b->bytes -= bytes;
    b->taken += bytes;
    return 0;
}

static void bucket_rouse(void *arg)
{
    struct bucket *b = arg;
    co_queue_wake_all(&b->queue);
}

static CO void tokens(struct sim_volumes *s)
{
    struct volume *v = sim_volumes_volume(s, "v", MIB(4));
    struct front *f = volume_front(v);
    struct front_late late;
    struct bucket b = {.bytes = 4096};
    struct front_tokens t = {bucket_take, bucket_rouse, &b};
    struct sent first, goes, waits, flush;
    co_queue_init(&b.queue);
    front_tokens_set(f, &t);
    sent_begin_and_yield(&first, f, run_admit, 4096);
    sent_begin_and_yield(&goes, f, run_admit, 4096);
    sent_begin_and_yield(&waits, f, run_admit, 8192);
    sent_begin_and_yield(&flush, f, run_admit, 0);
    check(first.done && first.rc == 0 && flush.done && flush.rc == 0);
    check_equal(b.waiting, 2);
    check_ok(front_freeze(f, 0, &late)); /* who waits for tokens is not in flight */
    front_client_go(&goes.client);
    co_yield ();
    check(goes.done && goes.rc == VP_E_CANCELLED);
    b.bytes = 8192;
    co_queue_wake_all(&b.queue);
    pass_time(MS(1));
    check_equal(b.taken, 4096 + 8192);
    check(!waits.done); /* it has its tokens, and waits at the gate */
    front_thaw(f);
    pass_time(MS(1));
    check(waits.done && waits.rc == 0);
    front_tokens_set(f, NULL);
    sent_begin_and_yield(&first, f, run_admit, MIB(1));
    check(first.done && first.rc == 0);
}

static void a_request_takes_its_tokens_before_it_is_in_flight(void **state)
{
    (void)state;
    play(tokens, 12);
}

/* ---- marks ----------------------------------------------------------------------------------- */

enum { MARK_BLOCKS = 1024 };
struct marked {
    struct volume *v;
    bool block[MARK_BLOCKS];
    bool unlocked;
};

static void mark(void *arg, uint64_t block, uint64_t count)
{
    struct marked *m = arg;
    m->unlocked |= lock_table_is_empty(&m->v->io->locks);
    for (uint64_t i = block; i < block + count && i < MARK_BLOCKS; i++)
        m->block[i] = true;
}

/* Whether the blocks [from, end) are marked and no others; then none is. */
static bool marked_just(struct marked *m, uint64_t from, uint64_t end)
{
    bool just = true;
    for (uint64_t i = 0; i < MARK_BLOCKS; i++)
        just &= m->block[i] == (from <= i && i < end);
    memset(m->block, 0, sizeof(m->block));
    return just;
}

static CO void marks(struct sim_volumes *s)
{
    struct volume *v = sim_volumes_volume(s, "v", MIB(4));
    struct marked m = {.v = v};
    check_ok(volume_write(v, 0, 4096, data, 0));
    volume_marks_set(v, &(struct volume_marks){.mark = mark, .arg = &m});
    check(marked_just(&m, 0, 0));
    check_ok(volume_write(v, 8192, 8192, data, 0));
    check(marked_just(&m, 2, 4));
    check_ok(volume_write(v, 8191, 2, data, 0)); /* parts of two blocks */
    check(marked_just(&m, 1, 3));
    check_ok(volume_zero(v, 100, 8192, 0));
    check(marked_just(&m, 0, 3));
    check_ok(volume_discard(v, 4096, 12288, 0));
    check(marked_just(&m, 1, 4));
    check_ok(volume_read(v, 0, STEP, seen));
    check_ok(volume_flush(v));
    check(marked_just(&m, 0, 0));
    check(!m.unlocked);
    volume_marks_set(v, NULL);
    check_ok(volume_write(v, 8192, 8192, data, 0));
    check(marked_just(&m, 0, 0));
}

static void every_change_is_marked_under_its_lock(void **state)
{
    (void)state;
    play(marks, 13);
}

/* ---- the end -------------------------------------------------------------------------------- */

static CO void end(struct sim_volumes *s)
{
    struct volume *v = sim_volumes_volume(s, "v", MIB(4));
    struct front *f = volume_front(v);
    struct front_late late;
    struct sent held, passes;
    check_ok(front_freeze(f, 0, &late));
    sent_begin_and_yield(&held, f, run_write, 0);
    sent_begin_and_yield(&passes, f, run_pass, 0);
    check_ok(sim_volumes_close(s));
    check(held.done && held.rc == VP_E_CANCELLED);
    check(passes.done && passes.rc == VP_E_CANCELLED);
}

static void a_pool_that_is_closed_ends_what_is_held(void **state)
{
    (void)state;
    play(end, 10);
}

/* The pool is closed while somebody waits for its requests to end. */
static CO void end_while_closing(struct sim_volumes *s)
{
    struct volume *v = sim_volumes_volume(s, "v", MIB(4));
    struct front *f = volume_front(v);
    struct front_late late;
    struct script script;
    struct sent stuck, freezes;
    script_put(&script, f);
    script.stuck = FRONT_WRITE;
    sent_begin_and_yield(&stuck, f, run_write, 0);
    sent_begin_and_yield(&freezes, f, run_freeze, 0);
    script.let_go = true;
    co_queue_wake_all(&script.queue);
    front_end(f);
    pass_time(MS(1));
    check(stuck.done && stuck.rc == 0);
    check(freezes.done && freezes.rc == VP_E_CANCELLED);
    check_equal(front_freeze(f, 0, &late), VP_E_CANCELLED);
    check_equal(volume_write(v, 0, 4096, data, 0), VP_E_CANCELLED);
    front_thaw(f); /* of somebody who had frozen it before */
}

static void a_freeze_ends_when_the_pool_is_closed(void **state)
{
    (void)state;
    play(end_while_closing, 11);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(held_requests_go_on_in_order_of_arrival_and_each_once),
        cmocka_unit_test(a_freeze_while_held_requests_go_on_keeps_their_order),
        cmocka_unit_test(a_freeze_whose_deadline_passes_opens_the_gate_and_names_the_late),
        cmocka_unit_test(a_frozen_volume_has_nothing_in_flight),
        cmocka_unit_test(a_discard_that_is_frozen_in_the_middle_does_the_rest_later),
        cmocka_unit_test(a_write_that_waits_for_space_comes_back_to_the_gate_and_goes_on_later),
        cmocka_unit_test(a_client_that_goes_waits_at_no_gate),
        cmocka_unit_test(one_freezes_a_volume_at_a_time),
        cmocka_unit_test(a_shrink_does_not_go_on_without_the_requests_that_are_late),
        cmocka_unit_test(a_request_takes_its_tokens_before_it_is_in_flight),
        cmocka_unit_test(every_change_is_marked_under_its_lock),
        cmocka_unit_test(a_pool_that_is_closed_ends_what_is_held),
        cmocka_unit_test(a_freeze_ends_when_the_pool_is_closed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

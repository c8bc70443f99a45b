/* A full pool: who waits, who fails, who goes on, and what ends the waiting. */
#include "tests/lib/on_reactor.h"
#include "tests/lib/sim_volumes.h"

#include "base/bytes.h"
#include "io/device.h"
#include "pool/pool_impl.h"
#include "thin/thin_impl.h"
#include "volumes/volumes_impl.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define KIB(n) ((uint64_t)(n) << 10)
#define MIB(n) ((uint64_t)(n) << 20)

enum { STEP = 64 << 10 };
static uint8_t data[STEP] __attribute__((aligned(4096)));
static uint8_t seen[STEP] __attribute__((aligned(4096)));

static void play(void (*body)(struct sim_volumes *s), uint64_t seed, const char *profile)
{
    struct sim_volumes *s = sim_volumes_new(&(struct sim_volumes_config){
        .seed = seed, .disk_bytes = MIB(24), .profile = profile, .metadata_bytes = MIB(1)});
    sim_volumes_run(s, body);
    sim_volumes_free(s);
    assert_checked();
}

static void mark(uint64_t at)
{
    for (unsigned i = 0; i < STEP; i += 8)
        memcpy(data + i, &at, sizeof(at));
}

/* A volume of policy enospc, written until the pool is full; *end is where. */
static CO struct volume *fill_pool(struct sim_volumes *s, uint64_t *end)
{
    struct vp_error err;
    struct volume *v = sim_volumes_volume(s, "big", MIB(200));
    int rc = v ? volume_property_set(s->vs, "big", "full-policy", "enospc", &err) : VP_E_INVALID;
    check_ok(rc);
    for (*end = 0; !rc; *end += STEP) {
        mark(*end);
        rc = volume_write(v, *end, STEP, data, 0);
    }
    check_equal(rc, VP_E_NO_SPACE);
    *end -= STEP;
    return v;
}

static CO void check_content(struct volume *v, uint64_t end)
{
    for (uint64_t at = 0; at < end; at += STEP) {
        mark(at);
        if (!check_ok(volume_read(v, at, STEP, seen)) || !check(memcmp(data, seen, STEP) == 0))
            return;
    }
}

/* ---- enospc ------------------------------------------------------------------------------- */

static CO void enospc_exact(struct sim_volumes *s)
{
    uint64_t end;
    struct volume_info info;
    struct volume *v = fill_pool(s, &end);
    check_ok(volume_info_get(s->vs, "big", &info));
    check_equal(info.allocated_bytes, end);
    check(end > MIB(20));
    struct pool_space space;
    pool_space_get(volumes_pool(s->vs), &space);
    check_equal(space.level, POOL_FULL);
    check_equal(space.leased_bytes, end); /* every chunk of every arena is used */

    /* Whatever needs no space works: overwrite, flush, read, metadata. */
    for (uint64_t at = 0; at < end; at += MIB(1)) {
        mark(at);
        check_ok(volume_write(v, at, STEP, data, VOLUME_FUA));
    }
    check_equal(volume_write(v, end, 512, data, 0), VP_E_NO_SPACE);
    check_equal(volume_write(v, MIB(199), 4096, data, 0), VP_E_NO_SPACE);
    check_ok(volume_read(v, end, STEP, seen));
    check(bytes_are_zero(seen, STEP));
    check_ok(pool_checkpoint(volumes_pool(s->vs)));
    check_content(v, end);

    /* Exactly what is given back can be used again. */
    check_ok(volume_discard(v, STEP * 3, STEP * 2, 0));
    check_ok(volume_write(v, end, STEP, data, 0));
    check_ok(volume_write(v, end + STEP, STEP, data, 0));
    check_equal(volume_write(v, end + STEP * 2, STEP, data, 0), VP_E_NO_SPACE);
    check_ok(volume_info_get(s->vs, "big", &info));
    check_equal(info.allocated_bytes, end);
    check_equal(figure_get(&info.figures->waiting_for_space), 0);
}

static void enospc_is_exact_and_what_needs_no_space_goes_on(void **state)
{
    (void)state;
    play(enospc_exact, 1, "single");
}

static void enospc_is_exact_on_a_mirror(void **state)
{
    (void)state;
    struct sim_volumes *s = sim_volumes_new(&(struct sim_volumes_config){
        .seed = 2, .disk_bytes = MIB(48), .profile = "mirror:2", .metadata_bytes = MIB(1)});
    sim_volumes_run(s, enospc_exact);
    sim_volumes_free(s);
    assert_checked();
}

/* What another volume freed is room at once: nobody needs to flush that volume first, also when the
 * pool had nothing to give a moment ago. */
static CO void enospc_and_discard_elsewhere(struct sim_volumes *s)
{
    uint64_t end;
    struct volume *small = sim_volumes_volume(s, "small", MIB(64));
    for (uint64_t at = 0; at < MIB(8); at += STEP)
        check_ok(volume_write(small, at, STEP, data, 0));
    struct volume *big = fill_pool(s, &end);
    check_ok(volume_discard(small, 0, MIB(4), 0));
    for (uint64_t at = 0; at < MIB(4); at += STEP)
        if (!check_ok(volume_write(big, end + at, STEP, data, 0)))
            break;
    check_ok(volume_discard(small, MIB(4), MIB(4), 0));
    for (uint64_t at = MIB(4); at < MIB(8); at += STEP)
        if (!check_ok(volume_write(big, end + at, STEP, data, 0)))
            break;
    check_equal(volume_write(big, end + MIB(8), STEP, data, 0), VP_E_NO_SPACE);
}

static void a_discard_in_another_volume_is_room_before_any_write_fails(void **state)
{
    (void)state;
    play(enospc_and_discard_elsewhere, 7, "single");
}

/* ---- pause -------------------------------------------------------------------------------- */

struct writer {
    struct volume *v;
    uint64_t at;
    bool done;
    int rc;
    struct co_queue ended;
};

static void writer_run(void *arg)
{
    struct writer *w = arg;
    static uint8_t buf[STEP] __attribute__((aligned(4096)));
    memset(buf, 0xee, STEP);
    w->rc = volume_write(w->v, w->at, STEP, buf, 0);
    w->done = true;
    co_queue_wake_all(&w->ended);
}

static CO void writer_start(struct writer *w, struct volume *v, uint64_t at)
{
    *w = (struct writer){.v = v, .at = at};
    co_queue_init(&w->ended);
    check_ok(co_spawn(writer_run, w, "writer"));
    /* Long enough for it to try: simulated time costs nothing. */
    vp_ignore(co_sleep_ns(50000000), "nobody cancels");
}

static CO int writer_end(struct writer *w)
{
    uint64_t deadline = reactor_now_ns() + UINT64_C(5000000000);
    while (!w->done) {
        int rc = co_queue_wait_until(&w->ended, deadline, "writer");
        if (rc)
            return rc;
    }
    return w->rc;
}

static CO unsigned waiting(struct sim_volumes *s, const char *name)
{
    struct volume_info info;
    check_ok(volume_info_get(s->vs, name, &info));
    return (unsigned)figure_get(&info.figures->waiting_for_space);
}

static CO void pause_and_discard(struct sim_volumes *s)
{
    struct vp_error err;
    uint64_t end;
    struct writer w;
    struct volume *v = fill_pool(s, &end);
    check_ok(volume_property_set(s->vs, "big", "full-policy", "pause", &err));
    writer_start(&w, v, end);
    check(!w.done);
    check_equal(waiting(s, "big"), 1);
    check_ok(volume_write(v, 0, STEP, data, VOLUME_FUA)); /* overwrites do not wait */
    check_ok(volume_discard(v, STEP * 7, STEP, 0));
    check_ok(writer_end(&w));
    check_equal(waiting(s, "big"), 0);
    check_ok(volume_read(v, end, STEP, seen));
    check_equal(seen[100], 0xee);
}

static void a_paused_write_goes_on_after_a_discard_in_its_volume(void **state)
{
    (void)state;
    play(pause_and_discard, 3, "single");
}

static CO void pause_and_delete(struct sim_volumes *s)
{
    struct vp_error err;
    uint64_t end;
    struct writer w[3];
    struct volume *small = sim_volumes_volume(s, "small", MIB(64));
    struct volume *big = fill_pool(s, &end);
    for (unsigned i = 0; i < 3; i++)
        writer_start(&w[i], small, i * MIB(1));
    check_equal(waiting(s, "small"), 3);
    volume_close(big);
    check_ok(volume_delete(s->vs, "big", &err));
    sim_volumes_settle(s);
    for (unsigned i = 0; i < 3; i++)
        check_ok(writer_end(&w[i]));
    check_equal(waiting(s, "small"), 0);
}

static void paused_writes_go_on_after_another_volume_is_deleted(void **state)
{
    (void)state;
    play(pause_and_delete, 4, "single");
}

static CO void pause_and_discard_elsewhere(struct sim_volumes *s)
{
    uint64_t end;
    struct writer w;
    struct volume *small = sim_volumes_volume(s, "small", MIB(64));
    struct volume *big = fill_pool(s, &end);
    writer_start(&w, small, 0);
    check(!w.done);
    check_ok(volume_discard(big, 0, MIB(200), 0));
    check_ok(volume_flush(big));
    check_ok(writer_end(&w));
}

static void a_paused_write_goes_on_after_a_discard_in_another_volume(void **state)
{
    (void)state;
    play(pause_and_discard_elsewhere, 5, "single");
}

static CO void pause_and_close(struct sim_volumes *s)
{
    uint64_t end;
    struct writer w;
    struct volume *small = sim_volumes_volume(s, "small", MIB(64));
    struct volume *big = fill_pool(s, &end);
    writer_start(&w, small, 0);
    volume_close(big);
    check(!w.done);
    check_ok(sim_volumes_close(s));
    check_equal(w.rc, VP_E_CANCELLED);
    check(w.done);
}

static void waiting_for_room_ends_when_the_pool_closes(void **state)
{
    (void)state;
    play(pause_and_close, 6, "single");
}

/* More arenas with room than are kept in memory: those that hold nothing go back, the others are
 * looked at once. */
static CO void fragmented(struct sim_volumes *s)
{
    struct volume_info before, after;
    struct volume *v = sim_volumes_volume(s, "v", MIB(4200));
    check_ok(volume_zero(v, 0, MIB(4200), VOLUME_NO_HOLE));
    /* Downwards, so that those that are not kept are the last ones that are looked at. */
    for (uint64_t at = MIB(4200); at > 0; at -= MIB(1))
        check_ok(volume_discard(v, at - MIB(1), 2 * STEP, 0));
    check_ok(volume_flush(v));
    check_ok(volume_info_get(s->vs, "v", &before));
    struct thin *t = v->io->thin;
    check(figure_get(&thin_figures(t)->leased_arenas) > 4096);
    check_ok(thin_give_back(t));
    check_ok(thin_give_back(t));
    check_ok(volume_write(v, 0, STEP, data, 0));
    check_ok(volume_info_get(s->vs, "v", &after));
    check_equal(after.allocated_bytes, before.allocated_bytes + STEP);
}

static void a_volume_with_many_fragments_gives_back_and_comes_to_an_end(void **state)
{
    (void)state;
    struct sim_volumes *s = sim_volumes_new(&(struct sim_volumes_config){
        .seed = 1, .disk_bytes = MIB(2600), .metadata_bytes = MIB(64)});
    sim_volumes_run(s, fragmented);
    sim_volumes_free(s);
    assert_checked();
}

/* The volumes take longer to answer than a moment, and several requests wait for that. */
static CO void give_back_slowly(struct sim_volumes *s)
{
    uint64_t end;
    struct writer w[3];
    struct volume *small = sim_volumes_volume(s, "small", MIB(64));
    check(fill_pool(s, &end) != NULL);
    uint64_t began_ns = reactor_now_ns();
    s->vs->giving_back = true;
    s->vs->given_back_ns = began_ns;
    for (unsigned i = 0; i < 3; i++) {
        w[i] = (struct writer){.v = small, .at = i * (uint64_t)STEP};
        co_queue_init(&w[i].ended);
        check_ok(co_spawn(writer_run, &w[i], "writer"));
    }
    vp_ignore(co_sleep_ns(300000000), "nobody cancels");
    s->vs->giving_back = false;
    co_queue_wake_all(&s->vs->given_back);
    vp_ignore(co_sleep_ns(50000000), "nobody cancels");
    check_equal(s->vs->given_back_ns, began_ns);
    check_equal(small->figures.waiting_for_space, 3);
    check_ok(sim_volumes_close(s));
}

static void requests_that_waited_for_what_others_give_back_do_not_each_ask_again(void **state)
{
    (void)state;
    play(give_back_slowly, 11, "single");
}

/* ---- reserve ------------------------------------------------------------------------------ */

static CO void reserve(struct sim_volumes *s)
{
    struct vp_error err;
    struct volume_options o = {.size_bytes = MIB(8), .reserve_bytes = MIB(8)};
    struct volume_info info;
    uint64_t end;
    check_ok(volume_create(s->vs, "sure", &o, &err));
    fill_pool(s, &end);
    struct volume *v = sim_volumes_open(s, "sure");
    for (uint64_t at = 0; v && at < MIB(8); at += STEP)
        check_ok(volume_write(v, at, STEP, data, 0));
    check_ok(volume_info_get(s->vs, "sure", &info));
    check_equal(info.allocated_bytes, MIB(8));

    o.size_bytes = o.reserve_bytes = MIB(4);
    check_equal(volume_create(s->vs, "late", &o, &err), VP_E_NO_SPACE);
    check_equal(volume_info_get(s->vs, "late", &info), VP_E_NOT_FOUND);
    o.reserve_bytes = 0; /* its name is free again, at once and later */
    check_ok(volume_create(s->vs, "late", &o, &err));
    sim_volumes_settle(s);
    check_ok(volume_info_get(s->vs, "late", &info));
}

static void a_reserve_is_honoured_in_a_full_pool_or_refused_at_once(void **state)
{
    (void)state;
    play(reserve, 7, "single");
}

/* ---- clients that go ---------------------------------------------------------------------- */

struct change {
    struct front_client client;
    int (*run)(struct change *c);
    bool done;
    int rc;
};

static uint8_t large[MIB(1) + 4096] __attribute__((aligned(4096)));

static CO int change_zero(struct change *c)
{
    return front_zero(&c->client, 0, MIB(16), 0);
}

static CO int change_discard(struct change *c)
{
    return front_discard(&c->client, 0, MIB(16), 0);
}

/* Of more blocks than a bounce buffer has. */
static CO int change_write_unaligned(struct change *c)
{
    return front_write(&c->client, 512, MIB(1), large, 0);
}

static CO int change_write_large(struct change *c)
{
    return front_write(&c->client, 0, STEP, data, 0);
}

static void change_run(void *arg)
{
    struct change *c = arg;
    c->rc = c->run(c);
    c->done = true;
}

static CO int change_in_the_way(struct change *c)
{
    return front_write(&c->client, MIB(5), STEP, data, 0);
}

/* The client goes after the first window, while the second waits for another's locks or the first
 * is at work; the next client writes where the last window would. */
static CO void client_goes(struct sim_volumes *s, int (*run)(struct change *c), uint64_t at)
{
    struct volume *v = sim_volumes_volume(s, "v", MIB(64));
    for (uint64_t to = 0; to < MIB(16); to += STEP) {
        mark(to);
        check_ok(volume_write(v, to, STEP, data, 0));
    }
    check_ok(volume_flush(v));
    struct change c = {.run = run}, other = {.run = change_in_the_way};
    memset(large, 0x11, sizeof(large));
    front_client_init(&other.client, volume_front(v));
    check_ok(co_spawn(change_run, &other, "change"));
    front_client_init(&c.client, volume_front(v));
    check_ok(co_spawn(change_run, &c, "change"));
    co_yield ();
    check(!c.done);
    front_client_go(&c.client);
    while (!other.done)
        vp_ignore(co_sleep_ns(1000000), "nobody cancels");
    check_ok(other.rc);
    memset(data, 0x22, 4096);
    check_ok(volume_write(v, at, 4096, data, VOLUME_FUA));
    while (!c.done)
        vp_ignore(co_sleep_ns(1000000), "nobody cancels");
    check_equal(c.rc, VP_E_CANCELLED);
    check_ok(volume_read(v, at, 4096, seen));
    check(memcmp(seen, data, 4096) == 0);
}

static CO void zero_of_a_client_that_goes(struct sim_volumes *s)
{
    client_goes(s, change_zero, MIB(16) - 4096);
}

static CO void discard_of_a_client_that_goes(struct sim_volumes *s)
{
    client_goes(s, change_discard, MIB(16) - 4096);
}

static CO void write_of_a_client_that_goes(struct sim_volumes *s)
{
    client_goes(s, change_write_unaligned, MIB(1));
}

static void what_a_client_began_does_not_go_on_once_it_is_gone(void **state)
{
    (void)state;
    play(zero_of_a_client_that_goes, 7, "single");
    play(discard_of_a_client_that_goes, 8, "single");
    play(write_of_a_client_that_goes, 9, "single");
}

/* Room comes after the client went, and before its request has looked again. */
static CO void wait_of_a_client_that_goes(struct sim_volumes *s)
{
    uint64_t end;
    struct volume *small = sim_volumes_volume(s, "small", MIB(64));
    check(fill_pool(s, &end) != NULL);
    struct change c = {.run = change_write_large}, other = c;
    front_client_init(&c.client, volume_front(small));
    front_client_init(&other.client, volume_front(small));
    check_ok(co_spawn(change_run, &c, "change"));
    check_ok(co_spawn(change_run, &other, "change"));
    vp_ignore(co_sleep_ns(50000000), "nobody cancels");
    check(!c.done && !other.done);
    front_client_go(&c.client);
    vp_ignore(co_sleep_ns(50000000), "nobody cancels");
    check(c.done && !other.done);
    check_equal(c.rc, VP_E_CANCELLED);
    front_client_leave(&other.client);
    vp_ignore(co_sleep_ns(50000000), "nobody cancels");
    check(other.done);
    check_equal(other.rc, VP_E_CANCELLED);
}

static void a_client_that_leaves_waits_for_no_room_and_others_do(void **state)
{
    (void)state;
    play(wait_of_a_client_that_goes, 10, "single");
}

/* ---- clients that go while a request finds out what it can have ----------------------------- */

/* The client goes at a place where its write waits and looks at nothing, and room is there when the
 * wait ends. */
struct wait_place {
    void (*prepare)(struct sim_volumes *s, struct volume *v);
    bool (*is_there)(struct volume *v);
    void (*make_room)(struct sim_volumes *s, struct volume *v);
};

static uint64_t behind; /* the full volume's first block without a chunk */

static CO int change_write_behind(struct change *c)
{
    return front_write(&c->client, behind, STEP, large, 0);
}

static bool waits_for_space(const struct volume *v)
{
    return figure_get(&v->figures.waiting_for_space) > 0;
}

static CO void give_back_stands_still(struct sim_volumes *s, struct volume *v)
{
    (void)v;
    s->vs->giving_back = true;
}

static bool is_at_give_back(struct volume *v)
{
    return v->vs->room_waiters > 0 && !waits_for_space(v);
}

static CO void give_back_goes_on(struct sim_volumes *s, struct volume *v)
{
    check_ok(volume_discard(v, 3 * STEP, 2 * STEP, VOLUME_FUA));
    s->vs->giving_back = false;
    co_queue_wake_all(&s->vs->given_back);
}

static void give_back_is_over(struct sim_volumes *s)
{
    s->vs->given_back_ns = reactor_now_ns();
    s->vs->given_back_frees = UINT64_MAX;
}

static CO void commit_stands_still(struct sim_volumes *s, struct volume *v)
{
    check_ok(volume_write(v, 0, STEP, data, 0));
    give_back_is_over(s);
    for (unsigned i = 0; i < 2; i++)
        sim_disk_inject(sim_disk_find(s->world, s->name[i]), SIM_FAULT_STALL, 1U << IO_FLUSH, 0,
                        UINT64_C(1000000000));
}

static bool is_at_commit(struct volume *v)
{
    return waits_for_space(v) && v->io->thin->committing;
}

static CO void commit_goes_on(struct sim_volumes *s, struct volume *v)
{
    (void)s;
    check_ok(volume_discard(v, 3 * STEP, 2 * STEP, VOLUME_FUA)); /* room from its beginning on */
}

enum { MANY_PAGES = 1 << 20 };

/* There is space, and no room for metadata. */
static CO void metadata_have_no_room(struct sim_volumes *s, struct volume *v)
{
    check_ok(volume_discard(v, 3 * STEP, 2 * STEP, VOLUME_FUA));
    check_ok(volume_write(v, 0, STEP, data, 0)); /* its page is to be written anyway */
    give_back_is_over(s);
    pool_meta_dirty_add(volumes_pool(s->vs), MANY_PAGES);
}

static bool is_at_checkpoint(struct volume *v)
{
    return waits_for_space(v) && !v->io->thin->committing && v->vs->pool->checkpoint.running;
}

static CO void metadata_have_room(struct sim_volumes *s, struct volume *v)
{
    (void)v;
    pool_meta_dirty_add(volumes_pool(s->vs), -(int64_t)MANY_PAGES);
}

static const struct wait_place places[] = {
    {give_back_stands_still, is_at_give_back, give_back_goes_on},
    {commit_stands_still, is_at_commit, commit_goes_on},
    {metadata_have_no_room, is_at_checkpoint, metadata_have_room},
};
static const struct wait_place *place;

static CO void client_goes_there(struct sim_volumes *s)
{
    struct vp_error err;
    struct volume *v = fill_pool(s, &behind);
    check_ok(volume_property_set(s->vs, "big", "full-policy", "pause", &err));
    place->prepare(s, v);
    memset(large, 0x11, STEP);
    struct change gone = {.run = change_write_behind}, next = gone;
    front_client_init(&gone.client, volume_front(v));
    front_client_init(&next.client, volume_front(v));
    check_ok(co_spawn(change_run, &gone, "change"));
    for (unsigned i = 0; i < 1000000 && !place->is_there(v) && !gone.done; i++)
        vp_ignore(co_sleep_ns(100), "nobody cancels");
    check(place->is_there(v) && !gone.done);
    front_client_go(&gone.client);
    place->make_room(s, v);
    while (!gone.done)
        vp_ignore(co_sleep_ns(1000000), "nobody cancels");
    check_equal(gone.rc, VP_E_CANCELLED);
    check_ok(volume_read(v, behind, STEP, seen));
    check(bytes_are_zero(seen, STEP));
    memset(large, 0x22, STEP);
    check_ok(change_write_behind(&next));
    check_ok(volume_flush(v));
    check_ok(volume_read(v, behind, STEP, seen));
    check(memcmp(seen, large, STEP) == 0);
}

static void a_client_that_goes_while_its_write_waits_writes_nothing_afterwards(void **state)
{
    (void)state;
    for (unsigned i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        place = &places[i];
        play(client_goes_there, 12 + i, "single");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(enospc_is_exact_and_what_needs_no_space_goes_on),
        cmocka_unit_test(enospc_is_exact_on_a_mirror),
        cmocka_unit_test(a_discard_in_another_volume_is_room_before_any_write_fails),
        cmocka_unit_test(a_paused_write_goes_on_after_a_discard_in_its_volume),
        cmocka_unit_test(paused_writes_go_on_after_another_volume_is_deleted),
        cmocka_unit_test(a_paused_write_goes_on_after_a_discard_in_another_volume),
        cmocka_unit_test(waiting_for_room_ends_when_the_pool_closes),
        cmocka_unit_test(a_volume_with_many_fragments_gives_back_and_comes_to_an_end),
        cmocka_unit_test(requests_that_waited_for_what_others_give_back_do_not_each_ask_again),
        cmocka_unit_test(a_reserve_is_honoured_in_a_full_pool_or_refused_at_once),
        cmocka_unit_test(what_a_client_began_does_not_go_on_once_it_is_gone),
        cmocka_unit_test(a_client_that_leaves_waits_for_no_room_and_others_do),
        cmocka_unit_test(a_client_that_goes_while_its_write_waits_writes_nothing_afterwards),
    };
    return cmocka_run_group_tests_name("volumes/full", tests, NULL, NULL);
}

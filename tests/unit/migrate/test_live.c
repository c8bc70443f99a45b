/* A volume moves while its clients write: rounds, mirroring, what the target does to clients. */
#include "tests/lib/on_reactor.h"
#include "tests/lib/sim_volumes.h"

#include "base/bytes.h"
#include "io/device.h"
#include "migrate/migrate.h"
#include "volumes/front.h"
#include "volumes/volumes_impl.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define KIB(n) ((uint64_t)(n) << 10)
#define MIB(n) ((uint64_t)(n) << 20)
#define MS(n)  ((uint64_t)(n)*1000000)
#define BLOCK  4096U
#define SIZE   (MIB(8) + 512) /* the last block is short */

static uint8_t data[1 << 20] __attribute__((aligned(4096)));

static void play(void (*body)(struct sim_volumes *s), uint64_t seed)
{
    struct sim_volumes *s =
        sim_volumes_new(&(struct sim_volumes_config){.seed = seed, .two_pools = true});
    sim_volumes_run(s, body);
    sim_volumes_free(s);
    assert_checked();
}

static CO void pass_time(uint64_t ns)
{
    vp_ignore(co_sleep_ns(ns), "nobody cancels it");
}

/* ---- clients ------------------------------------------------------------------------------ */

enum { CLIENTS = 4, CLIENT_BYTES = 128 << 10 };

struct clients;
struct client { /* sends one request after the other, as its random numbers say */
    struct clients *all;
    struct front_client client;
    uint64_t random;
    uint8_t buf[CLIENT_BYTES] __attribute__((aligned(4096)));
    bool stopped;
};
struct clients {
    struct sim_volumes *s;
    struct volume *v; /* that they have open */
    uint64_t pause_ns, longest_ns;
    unsigned requests;
    bool whole_blocks, writes_only, zeros_only, stop;
    bool verify;       /* what was copied is compared while they write */
    bool not_compared; /* at the switch: clients do not wait for that */
    struct client client[CLIENTS];
};

static uint64_t draw(struct client *c, uint64_t below)
{
    c->random = c->random * UINT64_C(6364136223846793005) + 1442695040888963407U;
    return (c->random >> 33) % below;
}

static CO int client_send(struct client *c)
{
    uint64_t at = draw(c, SIZE), len = 1 + draw(c, draw(c, 3) ? KIB(8) : CLIENT_BYTES - BLOCK);
    uint64_t kind = c->all->writes_only ? 9 : c->all->zeros_only ? 0 : draw(c, 10);
    if (c->all->whole_blocks) {
        at = align_down(at, BLOCK);
        len = align_up(len, BLOCK);
    }
    len = min_u64(len, SIZE - at);
    memset(c->buf, (int)draw(c, 5), len);
    if (kind == 0)
        return front_zero(&c->client, at, len, draw(c, 2) ? VOLUME_NO_HOLE : 0);
    if (kind == 1)
        return front_discard(&c->client, at, len * 8 < SIZE - at ? len * 8 : len, 0);
    if (kind == 2)
        return front_flush(&c->client);
    return front_write(&c->client, at, len, c->buf, draw(c, 8) ? 0 : VOLUME_FUA);
}

static CO void client_work(void *arg)
{
    struct client *c = arg;
    struct clients *all = c->all;
    while (!all->stop) {
        uint64_t since_ns = reactor_now_ns();
        check_ok(client_send(c));
        all->longest_ns = max_u64(all->longest_ns, reactor_now_ns() - since_ns);
        all->requests++;
        pass_time(all->pause_ns);
    }
    c->stopped = true;
}

static CO struct clients *clients_begin(struct sim_volumes *s, uint64_t pause_ns, uint64_t seed)
{
    struct clients *all = aligned_alloc(BLOCK, sizeof(*all)); /* as its buffers are */
    memset(all, 0, sizeof(*all));
    all->s = s;
    all->v = sim_volumes_volume(s, "v", SIZE);
    all->pause_ns = pause_ns;
    for (unsigned i = 0; i < CLIENTS; i++) {
        struct client *c = &all->client[i];
        c->all = all;
        c->random = seed * CLIENTS + i;
        front_client_init(&c->client, volume_front(all->v));
    }
    return all;
}

static CO void clients_go(struct clients *all)
{
    for (unsigned i = 0; i < CLIENTS; i++)
        check_ok(co_spawn(client_work, &all->client[i], "client"));
}

/* The volume is closed then. */
static CO void clients_end(struct clients *all)
{
    all->stop = true;
    for (unsigned i = 0; i < CLIENTS; i++)
        while (!all->client[i].stopped)
            pass_time(1000);
    volume_close(all->v);
    free(all);
}

/* ---- exports: both sides are compared while they are frozen --------------------------------- */

static CO bool block_is_same(struct volume *a, struct volume *b, uint64_t block)
{
    static uint8_t here[BLOCK] __attribute__((aligned(4096)));
    static uint8_t there[BLOCK] __attribute__((aligned(4096)));
    bool zero_here, zero_there;
    check_ok(volume_beside_read(a, block, 1, here, &zero_here));
    check_ok(volume_beside_read(b, block, 1, there, &zero_there));
    if (zero_here)
        memset(here, 0, sizeof(here));
    if (zero_there)
        memset(there, 0, sizeof(there));
    return memcmp(here, there, BLOCK) == 0;
}

static CO void export_switched(void *arg, struct volume *source, struct volume *target)
{
    struct clients *all = arg;
    struct volume *v;
    struct vp_error err = {0};
    for (uint64_t block = 0; block < div_up(SIZE, BLOCK) && !all->not_compared; block++)
        if (!check(block_is_same(source, target, block)))
            (void)fprintf(stderr, "block %llu differs\n", (unsigned long long)block);
    check_ok(volume_open(all->s->other, "w", false, &v, &err));
    check(v == target);
    all->v = target;
    volume_close(source);
}

static CO struct migrate *move_begin_limited(struct clients *all, enum migrate_mode mode,
                                             uint64_t mirror_ms, uint64_t limit_bytes)
{
    struct migrate_exports exports = {.switched = export_switched, .arg = all};
    struct migrate_options o = {.from = all->s->vs,
                                .to = all->s->other,
                                .volume = "v",
                                .name = "w",
                                .mode = mode,
                                .mirror_ms = mirror_ms,
                                .limit_bytes = limit_bytes,
                                .verify = all->verify,
                                .exports = &exports};
    struct vp_error err = {0};
    struct migrate *m = NULL;
    if (!check_ok(migrate_start(&o, &m, &err)))
        (void)fprintf(stderr, "%s\n", err.text);
    return m;
}

static CO struct migrate *move_begin(struct clients *all, enum migrate_mode mode,
                                     uint64_t mirror_ms)
{
    return move_begin_limited(all, mode, mirror_ms, 0);
}

/* Copies the end of m out of it. */
static CO struct migrate_status move_end(struct migrate *m)
{
    migrate_wait(m);
    struct migrate_status s = *migrate_status(m);
    migrate_free(m);
    return s;
}

static CO void wait_for(const struct migrate *m, enum migrate_phase phase)
{
    while (!migrate_has_ended(m) && migrate_status(m)->phase < phase)
        pass_time(1000);
}

static bool has(struct volumes *vs, const char *name)
{
    struct volume_owner_info o;
    return volume_owner_get(vs, name, &o) == 0;
}

/* ---- moves -------------------------------------------------------------------------------- */

static enum migrate_mode the_mode;
static uint64_t the_seed;

/* Of so many writes of the target's disks that come, every 7th takes long. */
static void target_hiccups(struct sim_volumes *s, unsigned writes)
{
    for (unsigned d = 2; d < 4; d++)
        for (unsigned i = d; i < writes; i += 7)
            sim_disk_inject(sim_disk_find(s->world, s->name[d]), SIM_FAULT_STALL, 1 << IO_WRITE, i,
                            MS(20));
}

static CO void moves_under_chaos(struct sim_volumes *s)
{
    struct clients *all = clients_begin(s, MS(1), the_seed);
    for (uint64_t at = 0; at < MIB(8); at += MIB(2)) {
        memset(data, 77, sizeof(data));
        check_ok(volume_write(all->v, at, sizeof(data), data, 0));
    }
    clients_go(all);
    pass_time(MS(the_seed % 7));
    target_hiccups(s, the_seed % 2 ? 300 : 0);
    all->verify = the_mode != MIGRATE_OFFLINE && the_seed % 3 == 0;
    struct migrate *m = move_begin(all, the_mode, 0);
    struct migrate_status is = move_end(m);
    if (!check_equal(is.phase, MIGRATE_DONE))
        (void)fprintf(stderr, "%s\n", is.error);
    check(all->verify == (is.checked_bytes > MIB(4)));
    unsigned before = all->requests;
    while (all->requests < before + 20)
        pass_time(MS(1));
    clients_end(all);
    check(!has(s->vs, "v") && has(s->other, "w"));
}

static void both_sides_are_the_same_at_the_switch_whatever_clients_do(void **state)
{
    (void)state;
    static const enum migrate_mode modes[] = {MIGRATE_LIVE, MIGRATE_MIRROR, MIGRATE_OFFLINE};
    for (unsigned i = 0; i < 3; i++)
        for (the_seed = 1; the_seed <= 12; the_seed++) {
            the_mode = modes[i];
            play(moves_under_chaos, the_seed);
        }
}

/* A piece of the scan is written run by run, and its first run takes long. Meanwhile the other
 * workers come to the end of the scan, and block 2, which is in the last run, is dirty: they leave
 * it to the round. */
static CO void scan_is_late(struct sim_volumes *s)
{
    struct clients *all = clients_begin(s, 0, 15);
    for (uint64_t at = 0; at < MIB(4); at += MIB(1))
        check_ok(volume_write(all->v, at, sizeof(data), memset(data, 1, sizeof(data)), 0));
    check_ok(volume_write(all->v, BLOCK, BLOCK, memset(data, 0, BLOCK), 0));
    struct migrate *m = move_begin(all, MIGRATE_LIVE, 0);
    for (unsigned d = 2; d < 4; d++)
        sim_disk_inject(sim_disk_find(s->world, s->name[d]), SIM_FAULT_STALL, 1 << IO_WRITE,
                        the_seed, MS(100));
    for (unsigned i = 0; i < 8; i++) {
        check_ok(
            volume_write(all->v, UINT64_C(2) * BLOCK, BLOCK, memset(data, (int)i + 2, BLOCK), 0));
        pass_time(MS(1) / 4);
    }
    check_equal(move_end(m).phase, MIGRATE_DONE);
    volume_close(all->v);
    free(all);
}

static void a_round_begins_when_the_scan_was_written(void **state)
{
    (void)state;
    for (the_seed = 0; the_seed < 20; the_seed++)
        play(scan_is_late, the_seed);
}

static CO void moves_in_rounds(struct sim_volumes *s)
{
    struct clients *all = clients_begin(s, MS(3), 5);
    for (uint64_t at = 0; at < MIB(8); at += MIB(1))
        check_ok(volume_write(all->v, at, sizeof(data), memset(data, 7, sizeof(data)), 0));
    all->not_compared = true;
    clients_go(all);
    struct migrate_status is = move_end(move_begin(all, MIGRATE_LIVE, 0));
    check_equal(is.phase, MIGRATE_DONE);
    check(is.rate_bytes > 0 && is.again_bytes > 0);
    check(is.frozen_ns < MS(100));
    check_equal(is.mirrored_bytes, 0);
    clients_end(all);
}

static void slow_clients_need_rounds_only(void **state)
{
    (void)state;
    play(moves_in_rounds, 3);
}

/* The commit of the intent takes long, and clients write meanwhile. */
static CO void intends_slowly(struct sim_volumes *s)
{
    struct clients *all = clients_begin(s, MS(1), 11);
    for (uint64_t at = 0; at < MIB(8); at += MIB(1))
        check_ok(volume_write(all->v, at, sizeof(data), memset(data, 7, sizeof(data)), 0));
    all->not_compared = all->zeros_only = all->whole_blocks = true; /* they write to no disk */
    clients_go(all);
    struct migrate *m = move_begin(all, MIGRATE_LIVE, 0);
    for (unsigned d = 0; d < 2; d++)
        for (unsigned i = 0; i < 8; i++)
            sim_disk_inject(sim_disk_find(s->world, s->name[d]), SIM_FAULT_STALL, 1 << IO_WRITE, i,
                            MS(100));
    struct migrate_status is = move_end(m);
    check_equal(is.phase, MIGRATE_DONE);
    check(is.again_bytes > MIB(1) && is.rounds > 0);
    clients_end(all);
}

static void what_changes_while_the_intent_is_recorded_is_copied_before_the_pause(void **state)
{
    (void)state;
    play(intends_slowly, 10);
}

static CO void moves_mirrored(struct sim_volumes *s)
{
    struct clients *all = clients_begin(s, 1, 6);
    clients_go(all);
    struct migrate *m = move_begin(all, MIGRATE_MIRROR, 0);
    while (!migrate_has_ended(m) && migrate_status(m)->phase < MIGRATE_MIRRORING)
        pass_time(1000);
    check_equal(migrate_status(m)->phase, MIGRATE_MIRRORING);
    struct migrate_status is = move_end(m);
    check_equal(is.phase, MIGRATE_DONE);
    check(is.mirrored_bytes > 0);
    check(is.again_bytes <= is.copied_bytes + is.zero_bytes);
    clients_end(all);
}

static void what_clients_write_goes_to_both_sides(void **state)
{
    (void)state;
    play(moves_mirrored, 4);
}

static CO void holes(struct sim_volumes *s)
{
    struct clients *all = clients_begin(s, MS(1), 7);
    struct volume_info info;
    memset(data, 3, sizeof(data));
    check_ok(volume_write(all->v, 0, MIB(1), data, 0));
    check_ok(volume_write(all->v, MIB(4), MIB(1), data, 0));
    struct migrate *m = move_begin(all, MIGRATE_MIRROR, 0);
    while (!migrate_has_ended(m) && migrate_status(m)->phase < MIGRATE_MIRRORING)
        pass_time(1000);
    check_ok(volume_discard(all->v, KIB(64), KIB(512), 0));
    struct migrate_status is = move_end(m);
    check_equal(is.phase, MIGRATE_DONE);
    check_ok(volume_info_get(s->other, "w", &info));
    check_equal(info.valid_bytes, MIB(2) - KIB(512));
    volume_close(all->v);
    free(all);
}

static void a_hole_at_the_source_is_a_hole_at_the_target(void **state)
{
    (void)state;
    play(holes, 5);
}

static CO void paused(struct sim_volumes *s)
{
    struct clients *all = clients_begin(s, MS(1), 11);
    struct vp_error err = {0};
    for (uint64_t at = 0; at < MIB(8); at += MIB(1))
        check_ok(volume_write(all->v, at, sizeof(data), memset(data, 7, sizeof(data)), 0));
    clients_go(all);
    struct migrate *m = move_begin_limited(all, MIGRATE_LIVE, 0, MIB(2));
    const struct migrate_status *now = migrate_status(m);
    struct pool *pool = volumes_pool(s->vs);
    uint32_t job = now->job;
    pass_time(MS(1000));
    check_equal(now->phase, MIGRATE_COPYING);
    check(now->copied_bytes >= MIB(1) && now->copied_bytes <= MIB(3));
    check_ok(pool_job_pause(pool, job, &err));
    pass_time(MS(300)); /* the step that was under way */
    uint64_t copied = now->copied_bytes;
    pass_time(MS(5000));
    check_equal(now->copied_bytes, copied);
    check_equal(now->phase, MIGRATE_COPYING);
    check_ok(pool_job_limit(pool, job, 0, &err));
    check_ok(pool_job_resume(pool, job, &err));
    check_equal(move_end(m).phase, MIGRATE_DONE);
    clients_end(all);
}

static void a_live_move_is_paused_limited_and_resumed(void **state)
{
    (void)state;
    play(paused, 12);
}

static CO void paused_and_cancelled(struct sim_volumes *s)
{
    struct clients *all = clients_begin(s, MS(1), 13);
    struct vp_error err = {0};
    clients_go(all);
    struct migrate *m = move_begin(all, MIGRATE_LIVE, 0);
    check_ok(pool_job_pause(volumes_pool(s->vs), migrate_status(m)->job, &err));
    pass_time(MS(1000));
    check_equal(migrate_status(m)->phase, MIGRATE_COPYING);
    check_ok(migrate_cancel(m, &err));
    check_equal(move_end(m).phase, MIGRATE_CANCELLED);
    clients_end(all);
}

static void a_paused_move_is_cancelled(void **state)
{
    (void)state;
    play(paused_and_cancelled, 13);
}

/* ---- the target and the clients ----------------------------------------------------------- */

/* Every write of the target's disks takes long, from now on. */
static void target_stalls(struct sim_volumes *s, unsigned writes, uint64_t ns)
{
    for (unsigned d = 2; d < 4; d++)
        for (unsigned i = 0; i < writes; i++)
            sim_disk_inject(sim_disk_find(s->world, s->name[d]), SIM_FAULT_STALL, 1 << IO_WRITE, i,
                            ns);
}

static CO void late(struct sim_volumes *s)
{
    struct clients *all = clients_begin(s, 1, 8);
    all->whole_blocks = all->writes_only = true;
    clients_go(all);
    struct migrate *m = move_begin(all, MIGRATE_MIRROR, 5);
    wait_for(m, MIGRATE_MIRRORING);
    all->longest_ns = 0;
    target_stalls(s, 2, MS(300));
    struct migrate_status is = move_end(m);
    check_equal(is.phase, MIGRATE_DONE);
    check(all->longest_ns < MS(150) + is.frozen_ns);
    clients_end(all);
}

static void a_client_waits_for_a_late_target_for_a_bounded_time(void **state)
{
    (void)state;
    play(late, 6);
}

/* A mirrored write, and after a cancel the end of the move as well, wait for disks that hang. */
static CO void hangs(struct sim_volumes *s)
{
    struct clients *all = clients_begin(s, MS(20), 8);
    struct vp_error err = {0};
    all->whole_blocks = all->writes_only = true;
    clients_go(all);
    struct migrate *m = move_begin(all, MIGRATE_MIRROR, 100);
    wait_for(m, MIGRATE_MIRRORING);
    check_equal(migrate_waits_ns(m), 0);
    target_stalls(s, 2, MS(40000));
    pass_time(MS(15000));
    unsigned before = all->requests;
    check(migrate_waits_ns(m) >= MS(14000));
    check_ok(migrate_cancel(m, &err));
    pass_time(MS(12000));
    check(!migrate_has_ended(m));
    check(migrate_waits_ns(m) >= MS(10000));
    check(all->requests > before + 100); /* clients do not notice */
    struct migrate_status is = move_end(m);
    check_equal(is.phase, MIGRATE_CANCELLED);
    clients_end(all);
}

static void a_move_says_that_it_waits_for_a_write_that_does_not_end(void **state)
{
    (void)state;
    play(hangs, 8);
}

static CO void never(struct sim_volumes *s)
{
    struct clients *all = clients_begin(s, 1, 9);
    all->whole_blocks = all->writes_only = true;
    clients_go(all);
    struct migrate *m = move_begin(all, MIGRATE_MIRROR, 1);
    for (unsigned i = 0; i < 8; i++) {
        target_stalls(s, 4, MS(50));
        pass_time(MS(60));
    }
    struct migrate_status is = move_end(m);
    if (is.phase != MIGRATE_DONE) { /* it may have been quick enough */
        check_equal(is.phase, MIGRATE_FAILED);
        check_equal(is.rc, VP_E_TIMED_OUT);
        check(strstr(is.error, "never at this rate") != NULL);
        check(!has(s->other, "w"));
    }
    unsigned before = all->requests;
    while (all->requests < before + 20)
        pass_time(MS(1));
    clients_end(all);
}

static void a_target_that_is_always_too_slow_ends_the_move_and_clients_go_on(void **state)
{
    (void)state;
    play(never, 7);
}

/* The flush of the target takes long, while the clients wait for it. */
static CO struct migrate *drain_stalls(struct clients *all, enum migrate_mode mode)
{
    clients_go(all);
    pass_time(MS(20));
    struct migrate *m = move_begin(all, mode, 0);
    while (!migrate_has_ended(m) && migrate_status(m)->phase < MIGRATE_FREEZING)
        pass_time(1000);
    for (unsigned d = 2; d < 4; d++)
        sim_disk_inject(sim_disk_find(all->s->world, all->s->name[d]), SIM_FAULT_STALL,
                        1 << IO_FLUSH, 0, MS(7000));
    while (!migrate_has_ended(m) && migrate_status(m)->phase < MIGRATE_DRAINING)
        pass_time(1000);
    check_equal(migrate_status(m)->phase, MIGRATE_DRAINING);
    return m;
}

static CO void held_too_long(struct sim_volumes *s)
{
    struct clients *all = clients_begin(s, MS(1), 16);
    struct migrate *m = drain_stalls(all, MIGRATE_LIVE);
    uint64_t since_ns = reactor_now_ns();
    struct migrate_status is = move_end(m);
    check(reactor_now_ns() - since_ns > MS(6500)); /* the flush has come back */
    check_equal(is.phase, MIGRATE_FAILED);
    check_equal(is.rc, VP_E_TIMED_OUT);
    check(strstr(is.error, "has not taken what was left within the 5000 ms") != NULL);
    check(all->longest_ns > MS(4000) && all->longest_ns < MS(6000));
    check(is.frozen_ns < MS(6000));
    check(!has(s->other, "w"));
    clients_end(all);
}

static void clients_do_not_wait_for_a_target_that_hangs_at_the_end(void **state)
{
    (void)state;
    play(held_too_long, 20);
}

static CO void cancelled_while_held(struct sim_volumes *s)
{
    struct clients *all = clients_begin(s, MS(1), 17);
    struct vp_error err = {0};
    struct migrate *m = drain_stalls(all, the_mode);
    pass_time(MS(100));
    check_ok(migrate_cancel(m, &err));
    unsigned before = all->requests;
    pass_time(MS(100)); /* the flush still hangs */
    check(all->requests > before + 20);
    check_equal(migrate_status(m)->phase, MIGRATE_DRAINING);
    check_equal(move_end(m).phase, MIGRATE_CANCELLED);
    clients_end(all);
}

static void a_cancel_lets_clients_go_on_at_once(void **state)
{
    (void)state;
    for (the_mode = MIGRATE_OFFLINE; the_mode <= MIGRATE_LIVE; the_mode++)
        play(cancelled_while_held, 17);
}

static enum migrate_phase the_phase;

static CO void target_dies(struct sim_volumes *s)
{
    struct clients *all = clients_begin(s, 1, 10);
    clients_go(all);
    struct migrate *m = move_begin(all, MIGRATE_MIRROR, 0);
    wait_for(m, the_phase);
    for (unsigned d = 2; d < 4; d++)
        sim_disk_set_dead(sim_disk_find(s->world, s->name[d]), true);
    struct migrate_status is = move_end(m);
    if (check(is.phase == MIGRATE_FAILED || is.phase == MIGRATE_IN_DOUBT))
        check(is.error[0] != '\0');
    unsigned before = all->requests;
    while (is.phase == MIGRATE_FAILED && all->requests < before + 20)
        pass_time(MS(1)); /* none of them sees an error */
    if (is.phase == MIGRATE_FAILED)
        clients_end(all);
}

static void a_target_that_dies_is_no_error_for_clients(void **state)
{
    (void)state;
    for (the_phase = MIGRATE_COPYING; the_phase <= MIGRATE_MIRRORING; the_phase++)
        play(target_dies, 8);
}

static CO void is_cancelled(struct sim_volumes *s)
{
    struct clients *all = clients_begin(s, MS(1), the_seed);
    struct vp_error err = {0};
    clients_go(all);
    struct migrate *m = move_begin(all, the_mode, 0);
    wait_for(m, the_phase);
    pass_time(the_seed * 20000);
    bool can = migrate_cancel(m, &err) == 0;
    struct migrate_status is = move_end(m);
    check(can ? is.phase == MIGRATE_CANCELLED || is.phase == MIGRATE_DONE
              : is.phase == MIGRATE_DONE);
    check(has(s->vs, "v") == (is.phase != MIGRATE_DONE));
    check(has(s->other, "w") == (is.phase == MIGRATE_DONE));
    unsigned before = all->requests;
    while (all->requests < before + 20)
        pass_time(MS(1));
    clients_end(all);
    if (is.phase != MIGRATE_DONE)
        check_ok(volume_resize(s->vs, "v", SIZE + 4096, false, &err));
}

static void a_move_is_cancelled_in_each_phase(void **state)
{
    (void)state;
    for (the_phase = MIGRATE_PREPARING; the_phase <= MIGRATE_DRAINING; the_phase++)
        for (the_seed = 1; the_seed <= 4; the_seed++) {
            the_mode = the_seed % 2 ? MIGRATE_MIRROR : MIGRATE_LIVE;
            play(is_cancelled, 9);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_sides_are_the_same_at_the_switch_whatever_clients_do),
        cmocka_unit_test(a_round_begins_when_the_scan_was_written),
        cmocka_unit_test(slow_clients_need_rounds_only),
        cmocka_unit_test(what_changes_while_the_intent_is_recorded_is_copied_before_the_pause),
        cmocka_unit_test(what_clients_write_goes_to_both_sides),
        cmocka_unit_test(a_hole_at_the_source_is_a_hole_at_the_target),
        cmocka_unit_test(a_live_move_is_paused_limited_and_resumed),
        cmocka_unit_test(a_paused_move_is_cancelled),
        cmocka_unit_test(a_client_waits_for_a_late_target_for_a_bounded_time),
        cmocka_unit_test(a_move_says_that_it_waits_for_a_write_that_does_not_end),
        cmocka_unit_test(a_target_that_is_always_too_slow_ends_the_move_and_clients_go_on),
        cmocka_unit_test(clients_do_not_wait_for_a_target_that_hangs_at_the_end),
        cmocka_unit_test(a_cancel_lets_clients_go_on_at_once),
        cmocka_unit_test(a_target_that_dies_is_no_error_for_clients),
        cmocka_unit_test(a_move_is_cancelled_in_each_phase),
    };
    return cmocka_run_group_tests_name("migrate/live", tests, NULL, NULL);
}

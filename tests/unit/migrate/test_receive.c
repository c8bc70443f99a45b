/* A volume comes to pool "q" from another daemon, whose messages this test plays. */
#include "tests/lib/failing_malloc.h"
#include "tests/lib/on_reactor.h"
#include "tests/lib/sim_volumes.h"

#include "io/guard.h"
#include "migrate/receive.h"
#include "volumes/front.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define KIB(n) ((uint64_t)(n) << 10)
#define MIB(n) ((uint64_t)(n) << 20)
#define EPOCH  UINT64_C(5)

static uint8_t data[1 << 16] __attribute__((aligned(4096)));
static uint8_t seen[1 << 16] __attribute__((aligned(4096)));

static struct sim_volumes *start(void)
{
    return sim_volumes_new(&(struct sim_volumes_config){.seed = 1, .two_pools = true});
}

static void play(void (*body)(struct sim_volumes *s))
{
    struct sim_volumes *s = start();
    sim_volumes_run(s, body);
    sim_volumes_free(s);
    assert_checked();
}

/* ---- the source ---------------------------------------------------------------------------- */

static const struct vp_uuid move_id = {{1, 2, 3}}, source_pool = {{4, 5, 6}},
                            volume_id = {{7, 8, 9}};

static struct volume_info info(void)
{
    struct volume_info i = {.uuid = volume_id,
                            .created_seconds = 1700000000,
                            .options = {.size_bytes = MIB(4) + 512,
                                        .has_profile = true,
                                        .sector_bytes = 512,
                                        .read_only = true},
                            .valid_bytes = KIB(64)};
    check(raid_profile_parse("single", &i.options.profile));
    return i;
}

static struct migrate_offer offer(const struct volume_info *source)
{
    return (struct migrate_offer){.source = {.id = move_id, .pool = source_pool, .volume = "far/v"},
                                  .epoch = EPOCH,
                                  .info = source};
}

static struct receive_claim claim(void)
{
    return (struct receive_claim){.move = move_id, .volume = volume_id, .epoch = EPOCH};
}

static CO struct receive *begin(struct sim_volumes *s)
{
    struct volume_info source = info();
    struct migrate_offer o = offer(&source);
    struct vp_error err = {0};
    struct receive *r = NULL;
    check_ok(receive_begin(s->other, "w", &o, &r, &err));
    return r;
}

static CO void write_all(struct volume *v)
{
    memset(data, 0x5a, sizeof(data));
    check_ok(volume_write(v, 0, sizeof(data), data, 0));
    check_ok(volume_flush(v));
}

static CO void check_served(struct sim_volumes *s)
{
    struct vp_error err = {0};
    struct volume *v = NULL;
    if (!check_ok(volume_open(s->other, "w", true, &v, &err)))
        return;
    check_ok(volume_read(v, 0, sizeof(seen), seen));
    memset(data, 0x5a, sizeof(data));
    check(memcmp(seen, data, sizeof(seen)) == 0);
    volume_close(v);
}

static CO void check_arrives(struct receive *r, enum migrate_verdict expected)
{
    struct vp_error err = {0};
    enum migrate_verdict verdict;
    int rc = receive_arrive(r, &verdict, &err);
    check_equal(verdict, expected);
    check((rc != 0) == (expected == MIGRATE_NOT_KNOWN));
    check((err.text[0] != 0) == (expected != MIGRATE_HAS_ARRIVED));
}

static CO void check_decided(struct sim_volumes *s, enum migrate_verdict expected)
{
    struct receive_claim c = claim();
    struct vp_error err = {0};
    enum migrate_verdict verdict;
    int rc = receive_decide(s->other, &c, &verdict, &err);
    check_equal(verdict, expected);
    check((rc != 0) == (expected == MIGRATE_NOT_KNOWN));
    check((err.text[0] != 0) == (expected != MIGRATE_HAS_ARRIVED));
}

static CO void check_confirmed(struct sim_volumes *s)
{
    struct receive_claim c = claim();
    struct vp_error err = {0};
    check_ok(receive_confirm(s->other, &c, &err));
}

static CO void check_is(struct sim_volumes *s, enum volume_ownership is, uint64_t epoch)
{
    struct volume_owner_info o = {0};
    if (!check_ok(volume_owner_get(s->other, "w", &o)))
        return;
    check_equal(o.ownership, is);
    check_equal(o.epoch, epoch);
}

static CO void check_gone(struct sim_volumes *s)
{
    struct volume_owner_info o;
    check_equal(volume_owner_get(s->other, "w", &o), VP_E_NOT_FOUND);
}

/* ---- the way of a volume that comes --------------------------------------------------------- */

static CO void arrives(struct sim_volumes *s)
{
    struct volume_info seen_info, sent = info();
    struct volume_owner_info o = {0};
    struct receive *r = begin(s);
    write_all(receive_volume(r));
    check_is(s, VOLUME_TARGET, EPOCH);
    check_arrives(r, MIGRATE_HAS_ARRIVED);
    check_equal(receive_state(r), RECEIVE_ARRIVED);
    check(receive_volume(r) == NULL);
    check_ok(volume_owner_get(s->other, "w", &o));
    check(vp_uuid_equal(o.move.id, move_id) && vp_uuid_equal(o.move.pool, source_pool));
    check_equal(strcmp(o.move.volume, "far/v"), 0);
    check_is(s, VOLUME_ARRIVED, EPOCH + 1);
    check_served(s);
    check_ok(volume_info_get(s->other, "w", &seen_info));
    check(vp_uuid_equal(seen_info.uuid, volume_id));
    check_equal(seen_info.created_seconds, sent.created_seconds);
    check_equal(seen_info.options.size_bytes, sent.options.size_bytes);
    check(seen_info.options.read_only);
    check_confirmed(s);
    check_is(s, VOLUME_OWNER, EPOCH + 1);
    receive_free(r);
    check_served(s);
}

static void a_volume_arrives_with_its_data_and_its_identity(void **state)
{
    (void)state;
    play(arrives);
}

static CO void messages_repeat(struct sim_volumes *s)
{
    struct vp_error err = {0};
    struct receive *r = begin(s);
    write_all(receive_volume(r));
    check_arrives(r, MIGRATE_HAS_ARRIVED);
    check_arrives(r, MIGRATE_HAS_ARRIVED);
    check_equal(receive_decline(r, &err), VP_E_BUSY);
    receive_free(r);
    check_decided(s, MIGRATE_HAS_ARRIVED);
    check_confirmed(s);
    check_confirmed(s);
    check_decided(s, MIGRATE_HAS_ARRIVED);
    check_is(s, VOLUME_OWNER, EPOCH + 1);
}

static void a_message_that_comes_twice_has_the_same_answer(void **state)
{
    (void)state;
    play(messages_repeat);
}

struct writer {
    struct volume *v;
    bool ended;
    int rc;
};

static CO void writer_run(void *arg)
{
    struct writer *w = arg;
    w->rc = volume_write(w->v, 0, sizeof(data), data, 0);
    w->ended = true;
}

static CO void writes_at_the_arrival(struct sim_volumes *s)
{
    struct vp_error err = {0};
    enum migrate_verdict verdict;
    struct receive *r = begin(s);
    struct writer w = {.v = receive_volume(r)};
    memset(data, 0x5a, sizeof(data));
    check_ok(co_spawn(writer_run, &w, "writer"));
    co_yield ();
    check(!w.ended);
    check_equal(receive_arrive(r, &verdict, &err), VP_E_BUSY);
    check_equal(verdict, MIGRATE_NOT_KNOWN);
    check_is(s, VOLUME_TARGET, EPOCH);
    while (!w.ended)
        vp_ignore(co_sleep_ns(1000), "nobody cancels it");
    check_equal(w.rc, 0);
    check_arrives(r, MIGRATE_HAS_ARRIVED);
    receive_free(r);
    check_served(s);
}

static void a_volume_does_not_arrive_while_a_request_of_its_source_is_at_work(void **state)
{
    (void)state;
    play(writes_at_the_arrival);
}

/* ---- clients that wait ---------------------------------------------------------------------- */

static struct waiting {
    struct volume *v; /* open for the client */
    struct front_client client;
    unsigned arrivals, ends; /* what was called */
    int arrive_rc;
} waiting;

static int waiting_arrives(void *arg, struct pool_batch *b)
{
    (void)arg;
    check(b != NULL);
    waiting.arrivals++;
    return waiting.arrive_rc;
}

static CO void waiting_end(void *arg)
{
    struct waiting *w = arg;
    w->ends++;
    volume_close(w->v);
    w->v = NULL;
}

static CO struct receive *begin_with_client(struct sim_volumes *s)
{
    const struct receive_exports x = {waiting_arrives, waiting_end, &waiting};
    struct vp_error err = {0};
    struct front_client mover;
    waiting = (struct waiting){0};
    struct receive *r = begin(s);
    check_ok(receive_admit(r, &x));
    check_ok(volume_open(s->other, "w", true, &waiting.v, &err));
    front_client_init(&waiting.client, volume_front(waiting.v));
    front_client_init(&mover, receive_front(r));
    memset(data, 0x5a, sizeof(data));
    check_ok(front_write(&mover, 0, sizeof(data), data, 0));
    check_equal(front_read(&waiting.client, 0, sizeof(seen), seen), VP_E_VOLUME_AWAITED);
    return r;
}

static CO void arrives_for_client(struct sim_volumes *s)
{
    struct receive *r = begin_with_client(s);
    check_arrives(r, MIGRATE_HAS_ARRIVED);
    check_arrives(r, MIGRATE_HAS_ARRIVED);
    check_equal(waiting.arrivals, 1);
    check_equal(waiting.ends, 0);
    check_ok(front_read(&waiting.client, 0, sizeof(seen), seen));
    check(memcmp(seen, data, sizeof(seen)) == 0);
    receive_free(r);
    volume_close(waiting.v);
    check_served(s);
}

static void a_client_that_waits_is_served_at_the_arrival(void **state)
{
    (void)state;
    play(arrives_for_client);
}

static CO void declined_with_client(struct sim_volumes *s)
{
    struct vp_error err = {0};
    struct receive *r = begin_with_client(s);
    check_ok(receive_decline(r, &err));
    check_equal(waiting.arrivals, 0);
    check_equal(waiting.ends, 1);
    check_gone(s);
    receive_free(r);
}

static void a_client_that_waits_does_not_keep_what_is_declined(void **state)
{
    (void)state;
    play(declined_with_client);
}

static CO void not_recorded(struct sim_volumes *s)
{
    struct receive *r = begin_with_client(s);
    waiting.arrive_rc = VP_E_NO_MEMORY;
    check_arrives(r, MIGRATE_HAS_NOT);
    check_equal(waiting.ends, 1);
    check_gone(s);
    receive_free(r);
}

static void a_volume_does_not_arrive_without_the_records_of_its_exports(void **state)
{
    (void)state;
    play(not_recorded);
}

/* ---- declined ------------------------------------------------------------------------------- */

static CO void declines(struct sim_volumes *s)
{
    struct vp_error err = {0};
    struct receive *r = begin(s);
    write_all(receive_volume(r));
    check_ok(receive_decline(r, &err));
    check_gone(s);
    check_arrives(r, MIGRATE_HAS_NOT);
    check_ok(receive_decline(r, &err));
    receive_free(r);
    check_decided(s, MIGRATE_HAS_NOT);
    check_confirmed(s);
    r = begin(s); /* the name and the uuid are free */
    check_equal(receive_state(r), RECEIVE_OPEN);
    receive_free(r);
}

static void what_was_declined_never_arrives(void **state)
{
    (void)state;
    play(declines);
}

static CO void check_refused(struct sim_volumes *s, const char *name,
                             const struct volume_info *source, int expected, const char *says)
{
    struct migrate_offer o = offer(source);
    struct vp_error err = {0};
    struct receive *r;
    unsigned before = volumes_count(s->other);
    check_equal(receive_begin(s->other, name, &o, &r, &err), expected);
    check(strstr(err.text, says) != NULL);
    check_equal(volumes_count(s->other), before);
}

static CO void refuses(struct sim_volumes *s)
{
    struct vp_error err = {0};
    struct volume_info source = info();
    struct receive *r = begin(s);
    check_refused(s, "x", &source, VP_E_EXISTS, "the same identity");
    source.uuid.b[0]++;
    check_refused(s, "w", &source, VP_E_EXISTS, "exists already");
    check_refused(s, "-x", &source, VP_E_NAME_INVALID, "not a volume's name");
    source.valid_bytes = MIB(4096);
    check_refused(s, "x", &source, VP_E_NO_SPACE, "has room for");
    source.valid_bytes = 0;
    source.options.size_bytes = 513;
    check_refused(s, "x", &source, VP_E_INVALID, "multiple of the sector");
    check_ok(receive_decline(r, &err));
    receive_free(r);
}

static void what_cannot_be_here_is_refused_and_leaves_nothing(void **state)
{
    (void)state;
    play(refuses);
}

struct beginner {
    struct sim_volumes *s;
    const char *name;
    struct receive *r;
    int rc;
    bool ended;
};

static CO void beginner_run(void *arg)
{
    struct beginner *b = arg;
    struct volume_info source = info();
    struct migrate_offer o = offer(&source);
    struct vp_error err = {0};
    b->rc = receive_begin(b->s->other, b->name, &o, &b->r, &err);
    b->ended = true;
}

static CO void begins_twice(struct sim_volumes *s)
{
    struct vp_error err = {0};
    struct beginner b[2] = {{.s = s, .name = "w"}, {.s = s, .name = "x"}};
    for (unsigned i = 0; i < 2; i++)
        check_ok(co_spawn(beginner_run, &b[i], "beginner"));
    while (!b[0].ended || !b[1].ended)
        vp_ignore(co_sleep_ns(1000), "nobody cancels it");
    check_ok(b[0].rc);
    check_equal(b[1].rc, VP_E_EXISTS);
    check_equal(volumes_count(s->other), 1);
    check_ok(receive_decline(b[0].r, &err));
    receive_free(b[0].r);
}

static void of_two_that_bring_one_volume_at_once_one_is_refused(void **state)
{
    (void)state;
    play(begins_twice);
}

/* ---- after a kill --------------------------------------------------------------------------- */

static CO void is_cut_off(struct sim_volumes *s)
{
    struct receive *r = begin(s);
    write_all(receive_volume(r));
    free(r); /* the daemon is killed */
}

static CO void decides_not(struct sim_volumes *s)
{
    struct receive_claim other = claim();
    struct vp_error err = {0};
    enum migrate_verdict verdict;
    check_is(s, VOLUME_TARGET, EPOCH);
    other.move.b[0]++;
    check_ok(receive_decide(s->other, &other, &verdict, &err));
    check_equal(verdict, MIGRATE_HAS_NOT); /* and the target is of another move */
    check_is(s, VOLUME_TARGET, EPOCH);
    check_decided(s, MIGRATE_HAS_NOT);
    check_gone(s);
}

static CO void stays_gone(struct sim_volumes *s)
{
    check_gone(s);
    check_decided(s, MIGRATE_HAS_NOT);
}

static void after_a_kill_a_target_is_deleted_before_the_source_is_told(void **state)
{
    (void)state;
    struct sim_volumes *s = start();
    sim_volumes_run(s, is_cut_off);
    sim_volumes_run(s, decides_not);
    sim_volumes_power_cut(s, 3);
    sim_volumes_run(s, stays_gone);
    sim_volumes_free(s);
    assert_checked();
}

static CO void arrives_and_is_cut_off(struct sim_volumes *s)
{
    struct receive *r = begin(s);
    write_all(receive_volume(r));
    check_arrives(r, MIGRATE_HAS_ARRIVED);
    free(r);
}

static CO void is_there(struct sim_volumes *s)
{
    struct receive_claim newer = claim();
    struct vp_error err = {0};
    enum migrate_verdict verdict;
    check_is(s, VOLUME_ARRIVED, EPOCH + 1);
    check_decided(s, MIGRATE_HAS_ARRIVED);
    newer.epoch = EPOCH + 1; /* of a source that was given up, and is ahead */
    check_ok(receive_decide(s->other, &newer, &verdict, &err));
    check_equal(verdict, MIGRATE_HAS_NOT);
    newer.epoch = EPOCH;
    newer.move.b[0]++;
    check_ok(receive_confirm(s->other, &newer, &err));
    check_is(s, VOLUME_ARRIVED, EPOCH + 1);
    check_served(s);
    check_confirmed(s);
    check_decided(s, MIGRATE_HAS_ARRIVED);
}

static void after_a_power_cut_a_volume_that_has_arrived_is_there(void **state)
{
    (void)state;
    struct sim_volumes *s = start();
    sim_volumes_run(s, arrives_and_is_cut_off);
    sim_volumes_power_cut(s, 3);
    sim_volumes_run(s, is_there);
    sim_volumes_free(s);
    assert_checked();
}

static CO void is_at_work(struct sim_volumes *s)
{
    struct receive *r = begin(s);
    check_decided(s, MIGRATE_NOT_KNOWN);
    check_is(s, VOLUME_TARGET, EPOCH);
    write_all(receive_volume(r));
    check_arrives(r, MIGRATE_HAS_ARRIVED);
    receive_free(r);
}

static void nothing_is_decided_while_a_receiver_is_at_work(void **state)
{
    (void)state;
    play(is_at_work);
}

/* ---- a pool that fails ---------------------------------------------------------------------- */

static CO void fails_in_the_commit(struct sim_volumes *s)
{
    struct vp_error err = {0};
    struct receive *r = begin(s);
    write_all(receive_volume(r));
    for (unsigned i = 0; i < 2; i++)
        sim_disk_set_dead(sim_disk_find(s->world, s->name[i + s->config.disks]), true);
    check_arrives(r, MIGRATE_NOT_KNOWN);
    check_equal(receive_state(r), RECEIVE_IN_DOUBT);
    check_arrives(r, MIGRATE_NOT_KNOWN);
    check_equal(receive_decline(r, &err), VP_E_BUSY);
    receive_free(r);
    check_decided(s, MIGRATE_NOT_KNOWN);
    for (unsigned i = 0; i < 2; i++)
        sim_disk_heal(sim_disk_find(s->world, s->name[i + s->config.disks]));
}

static CO void knows_again(struct sim_volumes *s)
{
    struct receive_claim c = claim();
    struct vp_error err = {0};
    enum migrate_verdict verdict, again;
    check_ok(receive_decide(s->other, &c, &verdict, &err));
    check_ok(receive_decide(s->other, &c, &again, &err));
    check(verdict == again && verdict != MIGRATE_NOT_KNOWN);
    if (verdict == MIGRATE_HAS_ARRIVED)
        check_served(s);
    else
        check_gone(s);
}

static void a_commit_that_failed_is_not_known_until_the_pool_is_opened_again(void **state)
{
    (void)state;
    struct sim_volumes *s = start();
    sim_volumes_run(s, fails_in_the_commit);
    sim_volumes_run(s, knows_again);
    sim_volumes_free(s);
    assert_checked();
}

static CO void fails_before_the_commit(struct sim_volumes *s)
{
    struct receive *r = begin(s);
    write_all(receive_volume(r));
    fail_in = 0;
    check_arrives(r, MIGRATE_HAS_NOT);
    fail_in = -1;
    check_equal(receive_state(r), RECEIVE_DECLINED);
    check_gone(s);
    receive_free(r);
    check_decided(s, MIGRATE_HAS_NOT);
}

static void an_arrival_that_is_not_tried_is_declined(void **state)
{
    (void)state;
    play(fails_before_the_commit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_volume_arrives_with_its_data_and_its_identity),
        cmocka_unit_test(a_message_that_comes_twice_has_the_same_answer),
        cmocka_unit_test(a_volume_does_not_arrive_while_a_request_of_its_source_is_at_work),
        cmocka_unit_test(a_client_that_waits_is_served_at_the_arrival),
        cmocka_unit_test(a_client_that_waits_does_not_keep_what_is_declined),
        cmocka_unit_test(a_volume_does_not_arrive_without_the_records_of_its_exports),
        cmocka_unit_test(what_was_declined_never_arrives),
        cmocka_unit_test(what_cannot_be_here_is_refused_and_leaves_nothing),
        cmocka_unit_test(of_two_that_bring_one_volume_at_once_one_is_refused),
        cmocka_unit_test(after_a_kill_a_target_is_deleted_before_the_source_is_told),
        cmocka_unit_test(after_a_power_cut_a_volume_that_has_arrived_is_there),
        cmocka_unit_test(nothing_is_decided_while_a_receiver_is_at_work),
        cmocka_unit_test(a_commit_that_failed_is_not_known_until_the_pool_is_opened_again),
        cmocka_unit_test(an_arrival_that_is_not_tried_is_declined),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

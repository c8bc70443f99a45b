/* Volumes that come from another daemon, whose messages this test plays. Data do not come: the
 * reactor is simulated, and has no sockets. */
#include "control/control_impl.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/events_of.h"
#include "tests/lib/on_reactor.h"
#include "tests/lib/sim_volumes.h"

#define SECOND_NS UINT64_C(1000000000)

static struct control control;
static struct control_pool pool; /* "p" */
static struct control_config config;

static void drop_line(enum vp_log_level level, const char *line, void *arg)
{
    (void)level, (void)line, (void)arg;
}

static CO void control_begin(struct sim_volumes *s)
{
    control = (struct control){.started = true, .config = &config};
    control_config_defaults(&config);
    list_init(&control.pools);
    list_init(&control.attachments);
    list_init(&control.attachment_changes);
    co_queue_init(&control.attachment_changed);
    migrations_init(&control.migrations);
    receivers_init(&control.receivers);
    check_ok(event_ring_init(&control.events));
    pool = (struct control_pool){
        .control = &control, .name = "p", .uuid = pool_uuid(volumes_pool(s->vs)), .vs = s->vs};
    co_queue_init(&pool.unused);
    list_add_tail(&control.pools, &pool.link);
}

static CO void control_end(void)
{
    receivers_end(&control);
    check_equal(pool.users, 0);
    receivers_fini(&control.receivers);
    migrations_fini(&control.migrations);
    event_ring_fini(&control.events);
}

static CO void (*the_body)(struct sim_volumes *s);

static CO void run(struct sim_volumes *s)
{
    control_begin(s);
    the_body(s);
    control_end();
}

static void play(CO void (*body)(struct sim_volumes *s))
{
    struct sim_volumes *s = sim_volumes_new(&(struct sim_volumes_config){.seed = 1});
    vp_log_set_sink(drop_line, NULL);
    the_body = body;
    sim_volumes_run(s, run);
    sim_volumes_free(s);
    vp_log_set_sink(NULL, NULL);
    assert_checked();
}

/* ---- the source ---------------------------------------------------------------------------- */

struct source { /* its n-th move */
    uint8_t n;
    struct receiver_made made;
};

static struct vp_uuid id_of(const struct source *f, uint8_t what)
{
    return (struct vp_uuid){{f->n, what, 1}};
}

static struct receiver_key key_of(const struct source *f)
{
    return (struct receiver_key){id_of(f, 1), f->made.secret};
}

static struct receiver_claim claim_of(const struct source *f)
{
    return (struct receiver_claim){
        .pool = pool.uuid, .claim = {.move = id_of(f, 1), .volume = id_of(f, 2), .epoch = 4}};
}

static CO int make(struct source *f, const char *name, struct vp_error *err)
{
    struct volume_info info = {.uuid = id_of(f, 2),
                               .options = {.size_bytes = 1 << 20, .sector_bytes = 512}};
    struct migrate_offer o = {
        .source = {.id = id_of(f, 1), .pool = {{9}}, .volume = "far/v", .peer = "far"},
        .epoch = 4,
        .info = &info};
    check(raid_profile_parse("single", &info.options.profile));
    return receiver_make(&control, &pool, name, &o, &f->made, err);
}

static CO struct source begin(const char *name)
{
    struct source f = {.n = 1};
    struct vp_error err = {0};
    check_ok(make(&f, name, &err));
    return f;
}

static bool is_there(const char *name)
{
    struct volume_owner_info o;
    return volume_owner_get(pool.vs, name, &o) == 0;
}

static CO void sleep_s(uint64_t seconds)
{
    check_ok(co_sleep_ns(seconds * SECOND_NS));
}

/* ---- tests --------------------------------------------------------------------------------- */

static CO void is_silent(struct sim_volumes *s)
{
    (void)s;
    struct source f = begin("v");
    struct receiver_key k = key_of(&f);
    struct vp_error err = {0};
    enum migrate_verdict verdict;
    struct receiver_claim claim = claim_of(&f);
    sleep_s(RECEIVER_PATIENCE_S - 1);
    check_ok(receiver_keep(&control, &k, &err));
    sleep_s(RECEIVER_PATIENCE_S - 1);
    check(is_there("v"));
    check_equal(pool.users, 1);
    sleep_s(2);
    check(!is_there("v"));
    check_equal(pool.users, 0);
    check_equal(events_of(&control.events, "migration.declined"), 1);
    check_equal(receiver_keep(&control, &k, &err), VP_E_NOT_FOUND);
    check_ok(receivers_verdict(&control, &claim, true, &verdict, &err));
    check_equal(verdict, MIGRATE_HAS_NOT);
}

static void a_source_that_is_silent_for_a_minute_is_given_up(void **state)
{
    (void)state;
    play(is_silent);
}

static CO void are_many(struct sim_volumes *s)
{
    (void)s;
    struct source f[RECEIVERS_MAX + 1] = {0};
    struct vp_error err = {0};
    char name[8];
    for (unsigned i = 0; i <= RECEIVERS_MAX; i++) {
        f[i].n = (uint8_t)(i + 1);
        (void)snprintf(name, sizeof(name), "v%u", i);
        check_equal(make(&f[i], name, &err), i < RECEIVERS_MAX ? 0 : VP_E_AGAIN);
    }
    check(receivers_refuse(&control, &pool, "export", &err) == VP_E_BUSY);
    json_t *one = NULL;
    check_ok(receiver_cancel(&control, "p/v3", &one, &err));
    check(strcmp(json_string_value(json_object_get(one, "phase")), "cancelled") == 0);
    json_decref(one);
    check_ok(make(&f[RECEIVERS_MAX], "w", &err));
    check_equal(volumes_count(pool.vs), RECEIVERS_MAX);
    receivers_end(&control);
    check_equal(volumes_count(pool.vs), 0);
    check_ok(receivers_refuse(&control, &pool, "export", &err));
    json_t *all = json_array();
    receivers_add_json(&control, NULL, all);
    check_equal(json_array_size(all), RECEIVERS_REMEMBERED);
    json_decref(all);
}

static void their_number_is_bounded_and_the_stop_declines_all(void **state)
{
    (void)state;
    play(are_many);
}

static CO void has_sessions(struct sim_volumes *s)
{
    (void)s;
    struct source f = begin("v");
    struct receiver_key k = key_of(&f), wrong = {k.id, "00000000000000000000000000000000"};
    struct vp_error err = {0};
    uint64_t generation = 0;
    check_equal(receiver_data_check(&control, &k, 0, &err), VP_E_INVALID);
    check_ok(receiver_session(&control, &k, &generation, &err));
    check_equal(generation, 1);
    check_ok(receiver_data_check(&control, &k, 1, &err));
    check_ok(receiver_session(&control, &k, &generation, &err));
    check_equal(generation, 2);
    check_equal(receiver_data_check(&control, &k, 1, &err), VP_E_INVALID);
    check_equal(receiver_data_check(&control, &wrong, 2, &err), VP_E_PERMISSION);
    check_equal(receiver_session(&control, &wrong, &generation, &err), VP_E_PERMISSION);
}

static void only_the_last_session_takes_data(void **state)
{
    (void)state;
    play(has_sessions);
}

static CO void check_key_refused(const struct receiver_key *k, int rc)
{
    struct vp_error err = {0};
    uint64_t generation = 0;
    check_equal(receiver_session(&control, k, &generation, &err), rc);
    check_equal(receiver_data_check(&control, k, 1, &err), rc);
    check_equal(receiver_keep(&control, k, &err), rc);
}

static CO void has_a_secret(struct sim_volumes *s)
{
    (void)s;
    struct source f = begin("v");
    struct vp_error err = {0};
    char other[RECEIVER_SECRET_TEXT + 1];
    struct receiver_key k = {key_of(&f).id, other};
    const size_t len = strlen(f.made.secret);
    for (size_t i = 0; i < len; i++) {
        memcpy(other, f.made.secret, len + 1);
        other[i] = other[i] == '0' ? '1' : '0';
        check_equal(receiver_keep(&control, &k, &err), VP_E_PERMISSION);
        other[i] = 0; /* its begin alone */
        check_equal(receiver_keep(&control, &k, &err), VP_E_PERMISSION);
    }
    (void)snprintf(other, sizeof(other), "%s0", f.made.secret);
    check_key_refused(&k, VP_E_PERMISSION);
    k.secret = f.made.secret;
    check_ok(receiver_keep(&control, &k, &err));
}

static void a_secret_is_the_whole_of_it(void **state)
{
    (void)state;
    play(has_a_secret);
}

/* A secret opens nothing any more, and verdicts, which need none, stay as they are. */
static CO void has_ended(struct sim_volumes *s)
{
    (void)s;
    struct vp_error err = {0};
    for (unsigned arrives = 0; arrives < 2; arrives++) {
        struct source f = begin("v");
        struct receiver_key k = key_of(&f), wrong = {k.id, "00000000000000000000000000000000"};
        struct receiver_claim claim = claim_of(&f);
        enum migrate_verdict verdict;
        check_ok(receivers_verdict(&control, &claim, arrives, &verdict, &err));
        check_key_refused(&k, VP_E_NOT_FOUND);
        check_key_refused(&wrong, VP_E_NOT_FOUND);
        for (unsigned i = 0; i < 4; i++) { /* arrive and decide, whatever was said before */
            check_ok(receivers_verdict(&control, &claim, i % 2, &verdict, &err));
            check_equal(verdict, arrives ? MIGRATE_HAS_ARRIVED : MIGRATE_HAS_NOT);
        }
        check(is_there("v") == (arrives == 1));
    }
}

static void after_its_end_a_move_has_no_secret_and_the_same_verdict(void **state)
{
    (void)state;
    play(has_ended);
}

/* ---- a pool that fails --------------------------------------------------------------------- */

static void all_die(struct sim_volumes *s)
{
    for (unsigned i = 0; i < s->config.disks; i++)
        sim_disk_set_dead(sim_disk_find(s->world, s->name[i]), true);
}

static CO void fails(struct sim_volumes *s)
{
    struct source f = begin("v");
    struct receiver_claim k = claim_of(&f);
    struct vp_error err = {0};
    enum migrate_verdict verdict;
    all_die(s);
    for (unsigned i = 0; i < 2; i++) { /* the second time no move is at work */
        check(receivers_verdict(&control, &k, i == 0, &verdict, &err) != 0);
        check_equal(verdict, MIGRATE_NOT_KNOWN);
        check(err.text[0] != 0);
    }
    check_equal(events_of(&control.events, "migration.failed"), 1);
    check(control.migrations.unsettled);
    check_equal(pool.users, 0);
    json_t *one = receiver_json_of(&control, k.claim.move);
    check(strcmp(json_string_value(json_object_get(one, "phase")), "in doubt") == 0);
    json_decref(one);
}

static void when_the_pool_fails_in_the_arrival_nobody_knows(void **state)
{
    (void)state;
    play(fails);
}

static CO void cannot_decline(struct sim_volumes *s)
{
    struct source f = begin("v");
    struct receiver_claim k = claim_of(&f);
    struct vp_error err = {0};
    enum migrate_verdict verdict;
    all_die(s);
    sleep_s(RECEIVER_PATIENCE_S + 1);
    check_equal(events_of(&control.events, "migration.failed"), 1);
    check(is_there("v") && control.migrations.unsettled);
    check(receivers_verdict(&control, &k, false, &verdict, &err) != 0);
    check_equal(verdict, MIGRATE_NOT_KNOWN);
}

static void what_cannot_be_deleted_durably_is_not_denied(void **state)
{
    (void)state;
    play(cannot_decline);
}

/* ---- messages that meet -------------------------------------------------------------------- */

struct message {
    const struct source *from;
    bool arrive, ended;
    enum migrate_verdict verdict;
    int rc;
};

static CO void message_run(void *arg)
{
    struct message *m = arg;
    struct receiver_claim k = claim_of(m->from);
    struct vp_error err = {0};
    m->rc = receivers_verdict(&control, &k, m->arrive, &m->verdict, &err);
    m->ended = true;
}

static CO void meet(struct sim_volumes *s)
{
    (void)s;
    for (unsigned first = 0; first < 2; first++) {
        struct source f = begin("v");
        struct message m[2] = {{.from = &f, .arrive = first == 0},
                               {.from = &f, .arrive = first != 0}};
        check_ok(co_spawn(message_run, &m[0], "message"));
        check_ok(co_spawn(message_run, &m[1], "message"));
        while (!m[0].ended || !m[1].ended)
            vp_ignore(co_sleep_ns(1000), "nobody cancels it");
        check_ok(m[0].rc);
        check_ok(m[1].rc);
        check_equal(m[0].verdict, m[1].verdict);
        check_equal(m[0].verdict, first == 0 ? MIGRATE_HAS_ARRIVED : MIGRATE_HAS_NOT);
        check(is_there("v") == (first == 0));
        struct receiver_claim k = claim_of(&f);
        struct vp_error err = {0};
        check_ok(receivers_confirm(&control, &k, &err));
        if (first == 0)
            check_ok(volume_delete(pool.vs, "v", &err));
    }
}

static void messages_that_meet_have_one_verdict(void **state)
{
    (void)state;
    play(meet);
}

/* A source that is not answered repeats its message, over a new connection each time. */
static CO void hangs(struct sim_volumes *s)
{
    struct source f = begin("v");
    struct message m[6];
    struct receiver_key k = key_of(&f);
    struct vp_error err = {0};
    uint64_t generation;
    for (unsigned i = 0; i < s->config.disks; i++)
        sim_disk_inject(sim_disk_find(s->world, s->name[i]), SIM_FAULT_STALL, 1 << IO_WRITE, 0,
                        20 * SECOND_NS);
    for (unsigned i = 0; i < 6; i++) {
        m[i] = (struct message){.from = &f, .arrive = i % 2 == 0};
        check_ok(co_spawn(message_run, &m[i], "message"));
        sleep_s(1);
        check(m[i].ended == (i >= 2));
        if (i >= 2)
            check_equal(m[i].rc, VP_E_AGAIN);
    }
    check_equal(receiver_session(&control, &k, &generation, &err), VP_E_AGAIN);
    check_ok(receiver_keep(&control, &k, &err)); /* it waits for nothing */
    while (!m[0].ended || !m[1].ended)
        sleep_s(1);
    check_equal(m[0].verdict, MIGRATE_HAS_ARRIVED);
    check_equal(m[1].verdict, MIGRATE_HAS_ARRIVED);
    check(list_empty(&control.receivers.messages));
}

static void of_messages_that_wait_for_a_disk_there_are_two(void **state)
{
    (void)state;
    play(hangs);
}

struct making {
    struct source from;
    int rc;
    bool ended;
};

static CO void making_run(void *arg)
{
    struct making *m = arg;
    struct vp_error err = {0};
    m->rc = make(&m->from, "v", &err);
    m->ended = true;
}

static CO void is_cancelled_at_once(struct sim_volumes *s)
{
    (void)s;
    struct making m = {.from = {.n = 1}}, other = {.from = {.n = 2}};
    struct vp_error err = {0};
    json_t *ended = NULL;
    check_ok(co_spawn(making_run, &m, "making"));
    check_ok(co_spawn(making_run, &other, "making"));
    co_yield ();
    check(!m.ended);
    check_equal(other.rc, VP_E_EXISTS); /* the name is taken before the volume is there */
    check_ok(receiver_cancel(&control, "p/v", &ended, &err));
    check(m.ended && !is_there("v"));
    check_ok(m.rc);
    json_decref(ended);
}

static void a_move_that_is_being_made_is_cancelled_when_it_is_there(void **state)
{
    (void)state;
    play(is_cancelled_at_once);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_source_that_is_silent_for_a_minute_is_given_up),
        cmocka_unit_test(their_number_is_bounded_and_the_stop_declines_all),
        cmocka_unit_test(only_the_last_session_takes_data),
        cmocka_unit_test(a_secret_is_the_whole_of_it),
        cmocka_unit_test(after_its_end_a_move_has_no_secret_and_the_same_verdict),
        cmocka_unit_test(when_the_pool_fails_in_the_arrival_nobody_knows),
        cmocka_unit_test(what_cannot_be_deleted_durably_is_not_denied),
        cmocka_unit_test(messages_that_meet_have_one_verdict),
        cmocka_unit_test(of_messages_that_wait_for_a_disk_there_are_two),
        cmocka_unit_test(a_move_that_is_being_made_is_cancelled_when_it_is_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

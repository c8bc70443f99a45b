/* Attachments follow their volume to another pool, and neither come nor go meanwhile. */
#include "control/migrate_exports.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "control/export.h"
#include "tests/lib/events_of.h"
#include "tests/lib/on_reactor.h"
#include "tests/lib/sim_volumes.h"

enum { VOLUME_BYTES = 8 << 20 };

static struct control control;
static struct control_pool pool[2]; /* "p", "q" */
static struct control_move the_move;

/* ---- exports that serve nobody ------------------------------------------------------------- */

static unsigned fake_moves, fake_starts;
static int fake_verdict;
static const char *fake_name;           /* that volumes get */
static CO void (*fake_hook)(void);      /* in the middle of `moved` */
static CO void (*fake_stop_hook)(void); /* the same of `stop` */

static int fake_check(struct control *c, const struct attachment_options *o, struct vp_error *err)
{
    (void)c, (void)o, (void)err;
    return 0;
}

static CO int fake_start(struct control *c, struct attachment *a, struct vp_error *err)
{
    (void)c, (void)err;
    fake_starts++;
    a->served = a;
    (void)snprintf(a->uri, sizeof(a->uri), "fake:%s", volume_full_name(a->v));
    return 0;
}

static CO void fake_leave(struct attachment *a)
{
    a->served = NULL;
}

static CO int fake_stop(struct attachment *a, struct vp_error *err)
{
    (void)err;
    a->served = NULL;
    if (fake_stop_hook)
        fake_stop_hook();
    return 0;
}

static CO int fake_check_move(const struct attachment *a, struct volume *target,
                              struct vp_error *err)
{
    (void)a, (void)target;
    return fake_verdict ? vp_fail(err, fake_verdict, "it cannot") : 0;
}

static CO void fake_moved(struct control *c, struct attachment *a)
{
    (void)c;
    fake_moves++;
    check(strcmp(volume_full_name(a->v), fake_name) == 0);
    if (fake_hook)
        fake_hook();
}

static const struct export_kind fake = {.name = "nbd",
                                        .number = ATTACHMENT_NBD,
                                        .check = fake_check,
                                        .start = fake_start,
                                        .stop = fake_stop,
                                        .leave = fake_leave,
                                        .check_move = fake_check_move,
                                        .moved = fake_moved};

static CO struct attachment *attach(const char *volume, const char *address)
{
    struct attachment_options o = {
        .kind = &fake, .address = address, .socket = attachment_socket_default()};
    struct attachment *a = NULL;
    struct vp_error err = {0};
    check_ok(attachment_add(&control, &pool[0], volume, &o, &a, &err));
    return a;
}

/* ---- a daemon of two pools ----------------------------------------------------------------- */

static void drop_line(enum vp_log_level level, const char *line, void *arg)
{
    (void)level, (void)line, (void)arg;
}

static void pool_begin(struct control_pool *p, const char *name, struct volumes *vs)
{
    *p = (struct control_pool){
        .control = &control, .uuid = pool_uuid(volumes_pool(vs)), .vs = vs, .next_attachment = 1};
    memcpy(p->name, name, strlen(name) + 1);
    co_queue_init(&p->unused);
    list_add_tail(&control.pools, &p->link);
}

static CO void control_begin(struct sim_volumes *s)
{
    control = (struct control){.started = true};
    list_init(&control.pools);
    list_init(&control.attachments);
    list_init(&control.moves);
    migrations_init(&control.migrations);
    receivers_init(&control.receivers);
    list_init(&control.attachment_changes);
    co_queue_init(&control.attachment_changed);
    check_ok(event_ring_init(&control.events));
    pool_begin(&pool[0], "p", s->vs);
    pool_begin(&pool[1], "q", s->other);
    fake_moves = fake_starts = 0;
    fake_verdict = 0;
    fake_name = "q/w";
    fake_hook = fake_stop_hook = NULL;
    volume_close(sim_volumes_volume(s, "v", VOLUME_BYTES));
}

static CO void control_end(void)
{
    attachments_stop(&control, &pool[0], true);
    attachments_stop(&control, &pool[1], true);
    check(list_empty(&control.attachments) && list_empty(&control.moves));
    migrations_fini(&control.migrations);
    move_reports_fini(&control.reports);
    event_ring_fini(&control.events);
}

static void play(void (*body)(struct sim_volumes *s))
{
    struct sim_volumes *s =
        sim_volumes_new(&(struct sim_volumes_config){.seed = 3, .two_pools = true});
    vp_log_set_sink(drop_line, NULL);
    sim_volumes_run(s, body);
    vp_log_set_sink(NULL, NULL);
    sim_volumes_free(s);
    assert_checked();
}

static CO int move_start(struct sim_volumes *s, struct migrate **out)
{
    struct vp_error err = {0};
    struct migrate_options o = {.from = s->vs,
                                .to = s->other,
                                .volume = "v",
                                .name = "w",
                                .mode = MIGRATE_OFFLINE,
                                .exports = &the_move.exports};
    control_move_init(&the_move, &control, &pool[0], "v", &pool[1], "w");
    int rc = migrate_start(&o, out, &err);
    if (rc)
        control_move_end(&the_move);
    return rc;
}

static CO void move_end(struct migrate *m, enum migrate_phase as)
{
    migrate_wait(m);
    check_equal(migrate_status(m)->phase, as);
    migrate_free(m);
    control_move_end(&the_move);
}

/* ---- records --------------------------------------------------------------------------------- */

struct found {
    unsigned count;
    struct attachment_record last;
};

static int find_record(const struct pool_record *r, void *arg)
{
    struct found *f = arg;
    check(attachment_record_decode(r->value, r->len, &f->last));
    f->count++;
    return 0;
}

static struct found records_of(struct volumes *vs)
{
    struct found f = {0};
    check_ok(pool_record_each(volumes_pool(vs), POOL_RECORD_ATTACHMENT, find_record, &f));
    return f;
}

/* ---- tests ----------------------------------------------------------------------------------- */

static CO void follow(struct sim_volumes *s)
{
    struct migrate *m = NULL;
    struct volume_info info;
    control_begin(s);
    pool[1].next_attachment = 7;
    struct attachment *a = attach("v", "unix:/a"), *b = attach("v", "unix:/b");
    fake.leave(b); /* one that failed */
    volume_close(b->v);
    b->v = NULL;
    check_equal(records_of(s->vs).count, 2);
    check_ok(move_start(s, &m));
    move_end(m, MIGRATE_DONE);
    check_ok(volume_info_get(s->other, "w", &info));
    check_equal(info.open_count, 1);
    check(a->pool == &pool[1] && b->pool == &pool[1]);
    check(strcmp(a->volume, "w") == 0 && a->volume_id == info.id);
    check_equal(a->id, 7);
    check_equal(b->id, 8);
    check(strcmp(volume_full_name(a->v), "q/w") == 0);
    check_equal(fake_moves, 1);
    check_equal(events_of(&control.events, "attachment.moved"), 1);
    check_equal(records_of(s->vs).count, 0);
    struct found there = records_of(s->other);
    check_equal(there.count, 2);
    check_equal(there.last.volume_id, info.id);
    check_equal(there.last.aliases.count, 1);
    check(strcmp(there.last.aliases.name[0], "p/v") == 0);
    check_equal(attachment_count(&pool[0], NULL), 0);
    check_equal(attachment_count(&pool[1], "w"), 2);
    control_end();
}

static void attachments_follow_their_volume_with_their_former_name(void **state)
{
    (void)state;
    play(follow);
}

static void changes_are_refused(void)
{
    struct attachment_change ch;
    struct vp_error err = {0};
    check_equal(attachment_change_begin(&control, &ch, &pool[0], "v", &err), VP_E_VOLUME_MOVING);
    check(strstr(err.text, "p/v moves to q/w") != NULL);
    check_equal(attachment_change_begin(&control, &ch, &pool[1], "w", &err), VP_E_VOLUME_MOVING);
    check_ok(attachment_change_begin(&control, &ch, &pool[1], "v", &err));
    attachment_change_end(&control, &ch);
}

static CO void hold(struct sim_volumes *s)
{
    struct migrate *m = NULL;
    struct attachment_change ch;
    struct vp_error err = {0};
    control_begin(s);
    attach("v", "unix:/a");
    fake_hook = changes_are_refused;
    check_ok(move_start(s, &m));
    changes_are_refused();
    move_end(m, MIGRATE_DONE);
    check_equal(fake_moves, 1);
    check_ok(attachment_change_begin(&control, &ch, &pool[1], "w", &err));
    attachment_change_end(&control, &ch);
    control_end();
}

static void nothing_is_attached_or_detached_while_a_volume_moves(void **state)
{
    (void)state;
    play(hold);
}

static struct attachment_change under_way;
static bool under_way_ended;

/* To another daemon: only from shortly before the freeze on. */
static CO void hold_out(struct sim_volumes *s)
{
    struct attachment_change ch;
    struct vp_error err = {0};
    (void)s;
    control_move_init_out(&the_move, &control, &pool[0], "v", "far/v");
    check_ok(attachment_change_begin(&control, &ch, &pool[0], "v", &err));
    attachment_change_end(&control, &ch);
    check_ok(the_move.exports.hold(the_move.exports.arg, &err));
    check_equal(attachment_change_begin(&control, &ch, &pool[0], "v", &err), VP_E_VOLUME_MOVING);
    check(strstr(err.text, "moves to far/v") != NULL);
    check_ok(attachment_change_begin(&control, &ch, &pool[0], "other", &err));
    attachment_change_end(&control, &ch);
    control_move_end(&the_move);
    check_ok(attachment_change_begin(&control, &ch, &pool[0], "v", &err));
    attachment_change_end(&control, &ch);
}

static CO void held_out(struct sim_volumes *s)
{
    control_begin(s);
    hold_out(s);
    control_end();
}

static void a_move_to_another_daemon_holds_attachments_from_before_the_freeze_on(void **state)
{
    (void)state;
    play(held_out);
}

static CO void end_change(void *arg)
{
    (void)arg;
    check_ok(co_sleep_ns(5000000000));
    under_way_ended = true;
    attachment_change_end(&control, &under_way);
}

static CO void wait_for_change(struct sim_volumes *s)
{
    struct migrate *m = NULL;
    struct vp_error err = {0};
    control_begin(s);
    attach("v", "unix:/a");
    under_way_ended = false;
    check_ok(attachment_change_begin(&control, &under_way, &pool[0], "v", &err));
    check_ok(co_spawn(end_change, NULL, "an attach"));
    check_ok(move_start(s, &m));
    check(under_way_ended);
    move_end(m, MIGRATE_DONE);
    control_end();
}

static void a_move_waits_for_an_attach_that_is_under_way(void **state)
{
    (void)state;
    play(wait_for_change);
}

static CO void give_up(struct sim_volumes *s)
{
    struct migrate *m = NULL;
    struct attachment_change ch;
    struct vp_error err = {0};
    control_begin(s);
    check_ok(attachment_change_begin(&control, &ch, &pool[0], "v", &err));
    check_equal(move_start(s, &m), VP_E_BUSY);
    attachment_change_end(&control, &ch);
    check(list_empty(&control.moves));
    control_end();
}

static void a_move_does_not_wait_for_ever(void **state)
{
    (void)state;
    play(give_up);
}

static CO void check_stayed(struct sim_volumes *s, const struct attachment *a)
{
    struct volume_info info;
    check(a->pool == &pool[0] && a->served && !a->there.v);
    check(list_empty(&control.moves));
    check_ok(volume_info_get(s->vs, "v", &info));
    check_equal(info.open_count, 1);
    check_equal(volume_info_get(s->other, "w", &info), VP_E_NOT_FOUND);
    check_equal(records_of(s->vs).count, 1);
    check_equal(records_of(s->other).count, 0);
    check_equal(fake_moves, 0);
}

static CO void stay(struct sim_volumes *s)
{
    struct migrate *m = NULL;
    struct vp_error err = {0};
    control_begin(s);
    const struct attachment *a = attach("v", "unix:/a");
    check_ok(move_start(s, &m));
    check_ok(migrate_cancel(m, &err));
    move_end(m, MIGRATE_CANCELLED);
    check_stayed(s, a);
    fake_verdict = VP_E_NOT_SUPPORTED;
    check_equal(move_start(s, &m), VP_E_NOT_SUPPORTED);
    check_stayed(s, a);
    control_end();
}

static void a_move_that_is_cancelled_or_refused_leaves_attachments_as_they_were(void **state)
{
    (void)state;
    play(stay);
}

/* As migrate/ does it, when the commit that makes the volume arrive fails. */
static CO void doubt(struct sim_volumes *s)
{
    struct volume_move move = {.volume = "q/w"};
    struct vp_error err = {0};
    struct volume *v = NULL;
    control_begin(s);
    struct attachment *a = attach("v", "unix:/a");
    check_ok(volume_open_to_move(s->vs, "v", NULL, &v, &err));
    control_move_init(&the_move, &control, &pool[0], "v", &pool[1], "w");
    list_add_tail(&control.moves, &the_move.link);
    check_ok(volume_leave_begin(v, "v", &move, &err));
    check_ok(volume_intent_begin(v, &err));
    volume_move_unattended(s->vs, "v");
    the_move.exports.withdraw(&the_move, v);
    volume_close(v);
    check(!a->served && !a->v);
    control_move_end(&the_move);
    check(strstr(a->error, "vpool migrate forget p/v") != NULL);
    attachments_retry_now(&control);
    check(!a->served);
    check_equal(events_of(&control.events, "attachment.failed"), 1);
    check_ok(migrate_forget(s->vs, "v", NULL, 0, NULL, &err));
    attachments_retry_now(&control);
    check(a->served && a->v);
    check_equal(a->error[0], 0);
    control_end();
}

static void attachments_of_a_volume_in_doubt_end_and_come_back_when_it_is_settled(void **state)
{
    (void)state;
    play(doubt);
}

static CO void forget(struct sim_volumes *s)
{
    struct migrate_exports settle = control_settle_exports(&control);
    struct pool_batch b;
    control_begin(s);
    struct attachment *a = attach("v", "unix:/a");
    volume_close(sim_volumes_volume(s, "x", VOLUME_BYTES));
    attach("x", "unix:/x");
    pool_batch_init(&b);
    check_equal(settle.leave(settle.arg, s->vs, a->volume_id, &b), VP_E_BUSY); /* it is served */
    fake.leave(a);
    volume_close(a->v);
    a->v = NULL;
    control_move_init(&the_move, &control, &pool[0], "v", &pool[1], "w");
    list_add_tail(&control.moves, &the_move.link);
    check_equal(settle.leave(settle.arg, s->vs, a->volume_id, &b), VP_E_BUSY); /* it is withdrawn */
    control_move_end(&the_move);
    check_equal(attachment_count(&pool[0], "v"), 1);
    check_ok(settle.leave(settle.arg, s->vs, a->volume_id, &b));
    check_ok(pool_commit(volumes_pool(s->vs), &b));
    pool_batch_fini(&b);
    check_equal(attachment_count(&pool[0], "v"), 0);
    check_equal(attachment_count(&pool[0], NULL), 1);
    check_equal(records_of(s->vs).count, 1);
    control_end();
}

static void attachments_of_a_volume_that_has_left_are_forgotten(void **state)
{
    (void)state;
    play(forget);
}

static uint8_t late_data[4096] __attribute__((aligned(4096)));
static bool late_ended;
static int late_rc;

/* Again and again, until it is not refused because the volume moves. */
static CO void attach_late(void *arg)
{
    struct attachment_options o = {
        .kind = &fake, .address = "unix:/late", .socket = attachment_socket_default()};
    struct attachment *a = NULL;
    struct vp_error err = {0};
    (void)arg;
    while ((late_rc = attachment_add(&control, &pool[0], "v", &o, &a, &err)) == VP_E_VOLUME_MOVING)
        check_ok(co_sleep_ns(100));
    late_ended = true;
}

static CO void attach_late_begin(void)
{
    check_ok(co_spawn(attach_late, NULL, "attach"));
    check_ok(co_sleep_ns(1000)); /* the kernel is told the names */
}

static CO void late(struct sim_volumes *s)
{
    struct migrate *m = NULL;
    struct volumes *const both[] = {s->vs, s->other};
    struct migrate_exports settle = control_settle_exports(&control);
    control_begin(s);
    struct attachment *a = attach("v", "unix:/a");
    check_ok(volume_write(a->v, 0, sizeof(late_data), late_data, 0)); /* to be deleted */
    late_ended = false;
    fake_hook = attach_late_begin;
    check_ok(move_start(s, &m));
    move_end(m, MIGRATE_DONE);
    while (!late_ended)
        check_ok(co_sleep_ns(1000));
    check_equal(late_rc, VP_E_NOT_FOUND);
    check_ok(migrate_settle(s->vs, both, 2, &settle)); /* some pool is opened */
    check_equal(records_of(s->vs).count, 0);
    control_end();
}

static void a_volume_that_has_moved_is_not_attached_while_its_source_is_deleted(void **state)
{
    (void)state;
    play(late);
}

static struct control_move second_move;
static int second_rc;
static bool second_ended;

static CO void move_second(void *arg)
{
    struct sim_volumes *s = arg;
    struct vp_error err = {0};
    struct migrate *m = NULL;
    struct migrate_options o = {.from = s->vs,
                                .to = s->other,
                                .volume = "v",
                                .name = "x",
                                .mode = MIGRATE_OFFLINE,
                                .exports = &second_move.exports};
    control_move_init(&second_move, &control, &pool[0], "v", &pool[1], "x");
    second_rc = migrate_start(&o, &m, &err);
    if (second_rc == 0) {
        migrate_wait(m);
        migrate_free(m);
    }
    control_move_end(&second_move);
    second_ended = true;
}

static CO void two_at_once(struct sim_volumes *s)
{
    struct migrate *m = NULL;
    control_begin(s);
    attach("v", "unix:/a");
    second_ended = false;
    check_ok(co_spawn(move_second, s, "second"));
    int rc = move_start(s, &m);
    if (rc == 0) {
        migrate_wait(m);
        migrate_free(m);
        control_move_end(&the_move);
    }
    while (!second_ended)
        check_ok(co_sleep_ns(1000000));
    check((rc == 0) != (second_rc == 0));
    check_equal(rc ? rc : second_rc, VP_E_VOLUME_MOVING);
    check_equal(attachment_count(&pool[1], rc ? "x" : "w"), 1);
    control_end();
}

static void of_two_moves_of_one_volume_that_begin_at_once_one_is_refused(void **state)
{
    (void)state;
    play(two_at_once);
}

/* All have ended, and nothing of them is held. */
static CO void migrations_wait(void)
{
    while (!list_empty(&control.migrations.at_work)) {
        check_ok(co_sleep_ns(1000000));
        migrations_reap(&control);
    }
    check(list_empty(&control.moves));
    check_equal(pool[0].users + pool[1].users, 0);
}

static CO int migration_begin(const char *volume, const char *name, const struct migration **g,
                              struct vp_error *err)
{
    const struct migrate_options o = {.from = pool[0].vs,
                                      .to = pool[1].vs,
                                      .volume = volume,
                                      .name = name,
                                      .mode = MIGRATE_OFFLINE};
    return migration_start(&control, &pool[0], &pool[1], NULL, &o, g, err);
}

static CO void start_twice(struct sim_volumes *s)
{
    static const struct {
        const char *volume, *name;
    } others[] = {{"v", "x"}, {"x", "w"}};
    const struct migration *g = NULL;
    struct vp_error err = {0};
    control_begin(s);
    volume_close(sim_volumes_volume(s, "x", VOLUME_BYTES));
    check_ok(migration_begin("v", "w", &g, &err));
    for (unsigned i = 0; i < 2; i++) {
        check_equal(migration_begin(others[i].volume, others[i].name, &g, &err),
                    VP_E_VOLUME_MOVING);
        check(strstr(err.text, "p/v moves already, to q/w") != NULL);
    }
    migrations_wait();
    check(!control.migrations.unsettled);
    check_equal(events_of(&control.events, "migration.done"), 1);
    control_end();
}

static void a_volume_that_moves_or_is_moved_to_is_not_moved_again(void **state)
{
    (void)state;
    play(start_twice);
}

static CO void waits_for_disks(struct sim_volumes *s)
{
    const struct migration *g = NULL;
    struct vp_error err = {0};
    control_begin(s);
    check_ok(migration_begin("v", "w", &g, &err));
    for (unsigned d = 2; d < 4; d++)
        sim_disk_inject(sim_disk_find(s->world, s->name[d]), SIM_FAULT_STALL, 1 << IO_WRITE, 0,
                        UINT64_C(25000000000));
    for (unsigned i = 0; i < 20; i++) {
        check_ok(co_sleep_ns(1000000000));
        migrations_look(&control);
    }
    check_equal(events_of(&control.events, "migration.waits"), 1);
    json_t *is = migration_json(g);
    check(strstr(json_string_value(json_object_get(is, "waits")), "of p/v or of q/w") != NULL);
    json_decref(is);
    migrations_wait();
    check_equal(events_of(&control.events, "migration.done"), 1);
    control_end();
}

static void a_move_that_waits_for_disks_says_so_once(void **state)
{
    (void)state;
    play(waits_for_disks);
}

static struct sim_volumes *sim;

static void source_dies(void)
{
    for (unsigned i = 0; i < 2; i++)
        sim_disk_set_dead(sim_disk_find(sim->world, sim->name[i]), true);
}

static CO void unrecorded(struct sim_volumes *s)
{
    const struct migration *g = NULL;
    struct vp_error err = {0};
    sim = s;
    control_begin(s);
    attach("v", "unix:/a");
    fake_hook = source_dies;
    check_ok(migration_begin("v", "w", &g, &err));
    migrations_wait();
    check_equal(events_of(&control.events, "migration.done"), 1);
    check(control.migrations.unsettled);
    migrations_look_left(&control);
    json_t *left = migrations_left_json(&control, "q/w");
    const json_t *why = json_object_get(json_array_get(left, 0), "why");
    check(why && strstr(json_string_value(why), "pool 'p' is fenced") != NULL);
    json_decref(left);
    json_decref(pool[0].left);
    json_decref(pool[1].left);
    control_end();
}

static void a_move_that_could_not_record_its_end_is_settled_later(void **state)
{
    (void)state;
    play(unrecorded);
}

/* A move takes p/x to q/v. */
static CO void move_meanwhile(void)
{
    struct migrate_options o = {.from = pool[0].vs,
                                .to = pool[1].vs,
                                .volume = "x",
                                .name = "v",
                                .mode = MIGRATE_OFFLINE,
                                .exports = &the_move.exports};
    struct vp_error err = {0};
    struct migrate *m = NULL;
    fake_stop_hook = NULL;
    control_move_init(&the_move, &control, &pool[0], "x", &pool[1], "v");
    check_ok(migrate_start(&o, &m, &err));
    move_end(m, MIGRATE_DONE);
}

static CO void detach(const char *volume)
{
    const struct method *m = methods_attach;
    unsigned char args[PARAM_ARGS_MAX] __attribute__((aligned(16))) = {0};
    json_t *params = json_pack("{s:s, s:b, s:b}", "volume", volume, "all", true, "force", true);
    json_t *result = NULL;
    struct vp_error err = {0};
    while (strcmp(m->name, "detach") != 0)
        m++;
    check_ok(params_decode(m->params, params, args, &err));
    check_ok(m->fn(&control, args, &result, &err));
    json_decref(result);
    json_decref(params);
}

static CO void detach_beside(struct sim_volumes *s)
{
    control_begin(s);
    volume_close(sim_volumes_volume(s, "x", VOLUME_BYTES));
    attach("v", "unix:/a");
    const struct attachment *x = attach("x", "unix:/x");
    fake_name = "q/v";
    fake_stop_hook = move_meanwhile;
    detach("p/v");
    check_equal(attachment_count(&pool[0], NULL), 0);
    check_equal(attachment_count(&pool[1], "v"), 1);
    check(x->pool == &pool[1] && x->served);
    control_end();
}

static void a_detach_leaves_alone_what_moves_away_meanwhile_and_gets_its_name(void **state)
{
    (void)state;
    play(detach_beside);
}

/* As `find_record`, of those that attachments in memory have no part in. */
static int find_newer(const struct pool_record *r, void *arg)
{
    struct found *f = arg;
    check(attachment_record_decode(r->value, r->len, &f->last));
    f->count += f->last.kind == 3 && strncmp(f->last.address, "vhost:/x", 8) == 0 &&
                memcmp((const char *)r->value + r->len - 4, "more", 4) == 0;
    return 0;
}

static CO void newer_kind_add(struct sim_volumes *s, uint32_t volume_id)
{
    const struct attachment_record r = {.kind = 3,
                                        .volume_id = volume_id,
                                        .address = "vhost:/x",
                                        .address_len = 8,
                                        .socket = attachment_socket_default()};
    unsigned char value[ATTACHMENT_RECORD_MAX + 4];
    struct pool_batch b;
    size_t len = attachment_record_encode(&r, value);
    memcpy(value + len, "more", 4); /* what only that release knows */
    pool_batch_init(&b);
    pool_batch_set(&b, POOL_RECORD_ATTACHMENT, 0, 5, value, len + 4);
    check_ok(pool_commit(volumes_pool(s->vs), &b));
    pool_batch_fini(&b);
}

static CO void newer_kind(struct sim_volumes *s)
{
    struct migrate *m = NULL;
    struct volume_info info;
    struct found f = {0};
    control_begin(s);
    attach("v", "unix:/a");
    check_ok(volume_info_get(s->vs, "v", &info));
    newer_kind_add(s, info.id);
    check_ok(move_start(s, &m));
    move_end(m, MIGRATE_DONE);
    check_equal(records_of(s->vs).count, 0);
    check_equal(records_of(s->other).count, 2);
    check_ok(pool_record_each(volumes_pool(s->other), POOL_RECORD_ATTACHMENT, find_newer, &f));
    check_equal(f.count, 1);
    check_ok(volume_info_get(s->other, "w", &info));
    check_equal(f.last.volume_id, info.id);
    control_end();
}

static void an_attachment_of_a_kind_that_only_a_newer_release_knows_goes_along(void **state)
{
    (void)state;
    play(newer_kind);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attachments_follow_their_volume_with_their_former_name),
        cmocka_unit_test(nothing_is_attached_or_detached_while_a_volume_moves),
        cmocka_unit_test(a_move_to_another_daemon_holds_attachments_from_before_the_freeze_on),
        cmocka_unit_test(a_move_waits_for_an_attach_that_is_under_way),
        cmocka_unit_test(a_move_does_not_wait_for_ever),
        cmocka_unit_test(a_move_that_is_cancelled_or_refused_leaves_attachments_as_they_were),
        cmocka_unit_test(attachments_of_a_volume_in_doubt_end_and_come_back_when_it_is_settled),
        cmocka_unit_test(attachments_of_a_volume_that_has_left_are_forgotten),
        cmocka_unit_test(a_volume_that_has_moved_is_not_attached_while_its_source_is_deleted),
        cmocka_unit_test(of_two_moves_of_one_volume_that_begin_at_once_one_is_refused),
        cmocka_unit_test(a_move_that_waits_for_disks_says_so_once),
        cmocka_unit_test(a_volume_that_moves_or_is_moved_to_is_not_moved_again),
        cmocka_unit_test(a_move_that_could_not_record_its_end_is_settled_later),
        cmocka_unit_test(a_detach_leaves_alone_what_moves_away_meanwhile_and_gets_its_name),
        cmocka_unit_test(an_attachment_of_a_kind_that_only_a_newer_release_knows_goes_along),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

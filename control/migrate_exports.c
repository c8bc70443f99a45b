/* Exports of a volume that moves to another pool, or to another daemon. */
#include "control/migrate_exports.h"

#include "base/verify.h"
#include "control/export.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SETTLE_NS UINT64_C(30000000000) /* for an attach or detach that is under way     */
#define LINGER_NS UINT64_C(10000000000) /* for clients of a volume that has left         */
#define LOOK_NS   UINT64_C(20000000)    /* between two looks at the users                */

/* ---- exports stay as they are ---------------------------------------------------------------- */

static bool is_of(const struct control_pool *p, const char *volume, const struct control_pool *q,
                  const char *name)
{
    return p == q && strcmp(volume, name) == 0;
}

/* The move that holds the exports of this volume, on either side; NULL. */
static const struct control_move *move_of(const struct control *c, const struct control_pool *p,
                                          const char *volume)
{
    const struct control_move *m;
    list_for_each (m, &c->moves, link)
        if (is_of(m->from, m->volume, p, volume) || is_of(m->to, m->name, p, volume))
            return m;
    return NULL;
}

static int refuse_while_moving(const struct control *c, const struct control_pool *p,
                               const char *volume, struct vp_error *err)
{
    const struct control_move *m = move_of(c, p, volume);
    return m ? vp_fail(err, VP_E_VOLUME_MOVING,
                       "%s/%s moves to %s, and its exports with it: try again when that has "
                       "ended (`vpool migrate status`)",
                       m->from->name, m->volume, m->target)
             : 0;
}

int attachment_change_begin(struct control *c, struct attachment_change *ch,
                            const struct control_pool *p, const char *volume, struct vp_error *err)
{
    migrations_reap(c); /* one that has ended holds nothing */
    int rc = refuse_while_moving(c, p, volume, err);
    if (rc == 0)
        rc = receivers_refuse_change(c, p, volume, err);
    if (rc)
        return rc;
    *ch = (struct attachment_change){.pool = p, .volume = volume};
    list_add_tail(&c->attachment_changes, &ch->link);
    return 0;
}

void attachment_change_end(struct control *c, struct attachment_change *ch)
{
    list_del(&ch->link);
    co_queue_wake_all(&c->attachment_changed);
}

static bool has_changes(const struct control *c, const struct control_pool *p, const char *volume)
{
    const struct attachment_change *ch;
    list_for_each (ch, &c->attachment_changes, link)
        if (is_of(p, volume, ch->pool, ch->volume))
            return true;
    return false;
}

CO void attachment_changes_await(struct control *c, const struct control_pool *p,
                                 const char *volume)
{
    while (has_changes(c, p, volume))
        co_queue_wait(&c->attachment_changed, "attach or detach of a volume");
}

static bool move_has_changes(const struct control_move *m)
{
    return has_changes(m->control, m->from, m->volume) || has_changes(m->control, m->to, m->name);
}

/* None begins any more, and those under way end. */
static CO int move_hold(struct control_move *m, struct vp_error *err)
{
    struct control *c = m->control;
    uint64_t until_ns = reactor_now_ns() + SETTLE_NS;
    int rc = refuse_while_moving(c, m->from, m->volume, err);
    if (rc == 0 && m->to)
        rc = refuse_while_moving(c, m->to, m->name, err);
    if (rc)
        return rc;
    list_add_tail(&c->moves, &m->link);
    while (!rc && move_has_changes(m))
        rc = co_queue_wait_until(&c->attachment_changed, until_ns, "attach or detach of a volume");
    return rc ? vp_fail(
                    err, rc == VP_E_TIMED_OUT ? VP_E_BUSY : rc,
                    "%s/%s is being attached or detached, and that does not end (%s): try again "
                    "later",
                    m->from->name, m->volume, vp_err_text(rc))
              : 0;
}

/* The attachment of the volume after `a`, which is one too; NULL: the first one. It may have moved
 * already. None of them goes while the move holds them. */
static struct attachment *move_next(const struct control_move *m, const struct attachment *a)
{
    struct attachment *next = attachment_next(m->from, a);
    while (next && strcmp(next->volume, m->volume) != 0)
        next = attachment_next(m->from, next);
    return next;
}

/* ---- before the freeze ----------------------------------------------------------------------- */

static CO void move_close_there(struct control_move *m)
{
    for (struct attachment *a = NULL; (a = move_next(m, a));) {
        struct volume *v = a->there.v;
        a->there.v = NULL;
        if (v)
            volume_close(v);
    }
}

static CO int move_open_there(struct control_move *m, struct volume *source, struct volume *target,
                              struct vp_error *err)
{
    int rc = 0;
    for (struct attachment *a = NULL; rc == 0 && (a = move_next(m, a));) {
        if (!a->served)
            continue;
        rc = a->kind->check_move ? a->kind->check_move(a, target, err) : 0;
        if (rc == 0)
            rc = volume_open_to_move(m->to->vs, m->name, volume_reactor(source), &a->there.v, err);
    }
    return rc;
}

static CO int move_prepare(void *arg, struct volume *source, struct volume *target,
                           struct vp_error *err)
{
    struct control_move *m = arg;
    struct volume_info info;
    int rc = volume_info_get(m->from->vs, m->volume, &info);
    if (rc)
        return vp_fail(err, rc, "volume %s/%s: %s", m->from->name, m->volume, vp_err_text(rc));
    m->source_id = info.id;
    rc = volume_info_get(m->to->vs, m->name, &info);
    if (rc)
        return vp_fail(err, rc, "volume %s/%s: %s", m->to->name, m->name, vp_err_text(rc));
    m->target_id = info.id;
    rc = move_hold(m, err);
    if (rc == 0)
        rc = move_open_there(m, source, target, err);
    if (rc)
        move_close_there(m);
    return rc;
}

/* ---- the switch ------------------------------------------------------------------------------ */

/* What clients were told stays a name of the export. A block device has its number. */
static struct attachment_aliases aliases_there(const struct control_move *m,
                                               const struct attachment *a,
                                               char dropped[static VOLUME_FULL_NAME_BYTES])
{
    char before[VOLUME_FULL_NAME_BYTES], now[VOLUME_FULL_NAME_BYTES];
    struct attachment_aliases aliases = a->aliases;
    dropped[0] = 0;
    if (a->kind->is_device)
        return aliases;
    control_volume_name(m->from->name, m->volume, before);
    control_volume_name(m->to->name, m->name, now);
    attachment_aliases_follow(&aliases, before, now, dropped);
    return aliases;
}

static bool move_has_id(const struct control_move *m, uint64_t id)
{
    for (const struct attachment *a = NULL; (a = move_next(m, a));)
        if (a->id == id)
            return true;
    return false;
}

struct rest {
    const struct control_move *move;
    struct pool_batch *batch;
};

/* A record that is no attachment in memory, since its kind is a newer release's, or there was no
 * memory to read it: it goes along as it is. */
static int record_arrive(const struct pool_record *r, void *arg)
{
    const struct rest *rest = arg;
    const struct control_move *m = rest->move;
    struct attachment_record d;
    if (!attachment_record_decode(r->value, r->len, &d) || d.volume_id != m->source_id ||
        move_has_id(m, r->key))
        return 0;
    void *value = malloc(r->len);
    if (!value)
        return VP_E_NO_MEMORY;
    memcpy(value, r->value, r->len);
    attachment_record_set_volume(value, m->target_id);
    pool_batch_set(rest->batch, POOL_RECORD_ATTACHMENT, 0, m->to->next_attachment++, value, r->len);
    free(value);
    return 0;
}

static int move_arrive(void *arg, struct volume *target, struct pool_batch *b)
{
    struct control_move *m = arg;
    (void)target;
    for (struct attachment *a = NULL; (a = move_next(m, a));) {
        char dropped[VOLUME_FULL_NAME_BYTES];
        struct attachment_aliases aliases = aliases_there(m, a, dropped);
        a->there.id = m->to->next_attachment++;
        attachment_record_add(a, a->there.id, m->target_id, &aliases, b);
    }
    struct rest rest = {m, b};
    return pool_record_each(volumes_pool(m->from->vs), POOL_RECORD_ATTACHMENT, record_arrive,
                            &rest);
}

/* Of one attachment: what arrive has recorded. Whoever waits somewhere with `a` in its hands finds
 * the new pool when it goes on. */
static void attachment_go_there(const struct control_move *m, struct attachment *a)
{
    char dropped[VOLUME_FULL_NAME_BYTES], now[VOLUME_FULL_NAME_BYTES];
    a->aliases = aliases_there(m, a, dropped);
    a->pool = m->to;
    a->id = a->there.id;
    a->volume_id = m->target_id;
    memcpy(a->volume, m->name, sizeof(a->volume));
    control_volume_name(m->to->name, m->name, now);
    if (dropped[0])
        control_event(
            m->control, VP_LOG_WARN, "attachment.name", now,
            "%s: clients do not find it as '%s' any more, since it has had too many names",
            a->address, dropped);
}

static CO void move_switched(void *arg, struct volume *source, struct volume *target)
{
    struct control_move *m = arg;
    (void)source, (void)target;
    for (struct attachment *a = move_next(m, NULL), *next; a; a = next) {
        struct volume *before = a->v;
        next = move_next(m, a);
        attachment_go_there(m, a);
        if (!a->served)
            continue;
        VP_VERIFY_TRUE(a->there.v);
        a->v = a->there.v;
        a->there.v = NULL;
        a->kind->moved(m->control, a);
        volume_close(before);
        control_event(m->control, VP_LOG_INFO, "attachment.moved", volume_full_name(a->v),
                      "%s, from %s/%s", a->uri, m->from->name, m->volume);
    }
}

static CO void move_kept(void *arg)
{
    move_close_there(arg);
}

static CO void move_withdraw(void *arg, struct volume *source)
{
    struct control_move *m = arg;
    (void)source;
    move_close_there(m);
    for (struct attachment *a = NULL; (a = move_next(m, a));)
        attachment_withdraw(m->control, a);
}

/* ---- to another daemon ----------------------------------------------------------------------- */

/* Clients close what they have open at the source when they have it at the target. */
static CO void left_linger(const struct control_move *m)
{
    uint64_t until_ns = reactor_now_ns() + LINGER_NS;
    for (struct attachment *a = NULL; (a = move_next(m, a));) {
        struct vp_error users;
        if (a->served && a->kind->close)
            a->kind->close(a);
        while (a->served && !m->control->stopping && reactor_now_ns() < until_ns &&
               a->kind->check_unused(a, &users) == VP_E_BUSY)
            vp_ignore(co_sleep_ns(LOOK_NS), "nobody cancels it");
    }
}

static CO int move_hold_out(void *arg, struct vp_error *err)
{
    struct control_move *m = arg;
    int rc = move_hold(m, err);
    if (rc)
        control_move_end(m);
    return rc;
}

static CO void move_left(void *arg, struct volume *source)
{
    struct control_move *m = arg;
    struct control *c = m->control;
    (void)source;
    left_linger(m);
    co_mutex_lock(&c->lock); /* nobody who has it waits for a move */
    for (struct attachment *a; (a = move_next(m, NULL));)
        attachment_end(c, a);
    co_mutex_unlock(&c->lock);
}

/* ---- the volume has left --------------------------------------------------------------------- */

struct leave {
    uint32_t volume_id;
    struct pool_batch *batch;
};

static int record_leave(const struct pool_record *r, void *arg)
{
    const struct leave *l = arg;
    struct attachment_record d;
    if (attachment_record_decode(r->value, r->len, &d) && d.volume_id == l->volume_id)
        pool_batch_delete(l->batch, POOL_RECORD_ATTACHMENT, 0, r->key);
    return 0;
}

static int leave_records(struct volumes *vs, uint32_t volume_id, struct pool_batch *b)
{
    struct leave l = {volume_id, b};
    return pool_record_each(volumes_pool(vs), POOL_RECORD_ATTACHMENT, record_leave, &l);
}

/* After a switch none is left in memory. */
static int move_leave(void *arg, struct volumes *vs, uint32_t volume_id, struct pool_batch *b)
{
    (void)arg;
    return leave_records(vs, volume_id, b);
}

/* At the start, attachments of a volume in doubt have been read, and are not served. */
static int settle_leave(void *arg, struct volumes *vs, uint32_t volume_id, struct pool_batch *b)
{
    int rc = attachments_forget(arg, vs, volume_id);
    return rc ? rc : leave_records(vs, volume_id, b);
}

bool control_moves_hold(const struct control *c, const struct control_pool *p, const char *volume)
{
    return move_of(c, p, volume) != NULL;
}

void control_move_init(struct control_move *m, struct control *c, struct control_pool *from,
                       const char *volume, struct control_pool *to, const char *name)
{
    *m = (struct control_move){.control = c,
                               .from = from,
                               .to = to,
                               .exports = {.prepare = move_prepare,
                                           .arrive = move_arrive,
                                           .kept = move_kept,
                                           .switched = move_switched,
                                           .withdraw = move_withdraw,
                                           .leave = move_leave,
                                           .arg = m}};
    memcpy(m->volume, volume, strnlen(volume, VOLUME_NAME_MAX));
    memcpy(m->name, name, strnlen(name, VOLUME_NAME_MAX));
    control_volume_name(to->name, name, m->target);
    list_init(&m->link);
}

void control_move_init_out(struct control_move *m, struct control *c, struct control_pool *from,
                           const char *volume, const char *target)
{
    *m = (struct control_move){.control = c,
                               .from = from,
                               .exports = {.hold = move_hold_out,
                                           .left = move_left,
                                           .withdraw = move_withdraw,
                                           .leave = move_leave,
                                           .arg = m}};
    memcpy(m->volume, volume, strnlen(volume, VOLUME_NAME_MAX));
    memcpy(m->name, volume, strnlen(volume, VOLUME_NAME_MAX));
    (void)snprintf(m->target, sizeof(m->target), "%s", target);
    list_init(&m->link);
}

void control_move_end(struct control_move *m)
{
    list_del(&m->link); /* if it is there */
}

struct migrate_exports control_settle_exports(struct control *c)
{
    return (struct migrate_exports){.leave = settle_leave, .arg = c};
}

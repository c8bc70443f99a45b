/*
 * Attachments: exports of volumes that the pool remembers.
 *
 * The record is committed after the server listens and before the client is told, and is deleted
 * before the server stops: at every crash a remembered attachment is one that was promised, and a
 * detached one does not come back.
 */
#include "base/hash.h"
#include "base/verify.h"
#include "control/export.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORKERS_MAX 32                   /* attachments started or stopped at the same time */
#define RETRY_NS    UINT64_C(5000000000) /* and twice as long each time, up to 80 s */

/* ---- one attachment ------------------------------------------------------------------------ */

/* Opens the volume and serves it. */
static CO int attachment_start(struct control *c, struct attachment *a, struct vp_error *err)
{
    struct attachment_options o = {
        .address = a->address, .read_only = a->read_only, .socket = a->socket};
    int rc = a->kind->check(c, &o, err);
    if (rc == 0)
        rc = volume_open(a->pool->vs, a->volume, a->read_only, &a->v, err);
    if (rc)
        return rc;
    rc = a->kind->start(c, a, err);
    if (rc) {
        volume_close(a->v);
        a->v = NULL;
    }
    return rc;
}

enum stop {
    STOP_LEAVE,     /* the daemon ends, and the next one goes on */
    STOP_POOL_GOES, /* it serves no more in any case; an error: something of it is still there */
    STOP_FOR_GOOD,  /* an error: something is still there, and perhaps served (a->served) */
};

static CO int attachment_stop(struct attachment *a, enum stop how, struct vp_error *err)
{
    if (!a->served)
        return 0;
    int rc = how == STOP_LEAVE ? 0 : a->kind->stop(a, err);
    if (a->served && how == STOP_FOR_GOOD)
        return rc;
    if (a->served)
        a->kind->leave(a);
    volume_close(a->v);
    a->v = NULL;
    return rc;
}

static void attachment_free(struct attachment *a)
{
    if (!a)
        return;
    list_del(&a->link);
    free(a);
}

static struct attachment *attachment_new(struct control_pool *p, const struct export_kind *kind,
                                         const char *address, size_t len)
{
    struct attachment *a = len <= ATTACHMENT_ADDRESS_MAX ? calloc(1, sizeof(*a)) : NULL;
    if (!a)
        return NULL;
    list_init(&a->link);
    a->pool = p;
    a->kind = kind;
    memcpy(a->address, address, len);
    a->socket = attachment_socket_default();
    return a;
}

/* ---- records ------------------------------------------------------------------------------- */

/* In a frame of its own, which is gone when the batch is committed. */
__attribute__((noinline)) void attachment_record_add(const struct attachment *a, uint64_t id,
                                                     uint32_t volume_id,
                                                     const struct attachment_aliases *aliases,
                                                     struct pool_batch *b)
{
    const struct attachment_record r = {.kind = a->kind->number,
                                        .read_only = a->read_only,
                                        .volume_id = volume_id,
                                        .address = a->address,
                                        .address_len = strlen(a->address),
                                        .socket = a->socket,
                                        .aliases = *aliases};
    unsigned char value[ATTACHMENT_RECORD_MAX];
    size_t len = attachment_record_encode(&r, value);
    pool_batch_set(b, POOL_RECORD_ATTACHMENT, 0, id, value, len);
}

static CO int record_write(const struct attachment *a)
{
    struct pool_batch batch;
    pool_batch_init(&batch);
    attachment_record_add(a, a->id, a->volume_id, &a->aliases, &batch);
    int rc = pool_commit(volumes_pool(a->pool->vs), &batch);
    pool_batch_fini(&batch);
    return rc;
}

static CO int record_delete(const struct attachment *a)
{
    struct pool_batch batch;
    pool_batch_init(&batch);
    pool_batch_delete(&batch, POOL_RECORD_ATTACHMENT, 0, a->id);
    int rc = pool_commit(volumes_pool(a->pool->vs), &batch);
    pool_batch_fini(&batch);
    return rc;
}

/* Reads one record. It comes from disk, so nothing about it is trusted. A record that does not
 * decode is left alone, because a newer release may know it. */
static int record_read(const struct pool_record *r, void *arg)
{
    struct control_pool *p = arg;
    struct attachment_record d;
    if (r->key >= p->next_attachment && r->key < UINT64_MAX)
        p->next_attachment = r->key + 1;
    const struct export_kind *kind =
        attachment_record_decode(r->value, r->len, &d) ? export_by_number(d.kind) : NULL;
    if (!kind) {
        vp_warn("pool '%s': attachment %llu does not decode and is left alone", p->name,
                (unsigned long long)r->key);
        return 0;
    }
    struct attachment *a = attachment_new(p, kind, d.address, d.address_len);
    if (!a)
        return 0;
    a->id = r->key;
    a->volume_id = d.volume_id;
    a->read_only = d.read_only;
    a->socket = d.socket;
    a->aliases = d.aliases;
    list_add_tail(&p->control->attachments, &a->link);
    return 0;
}

/* ---- all of a pool ------------------------------------------------------------------------- */

struct named { /* attachments by volume id, for one pass over all volumes */
    struct hash_node node;
    struct attachment *a;
};

static int name_volume(const struct volume_info *info, void *arg)
{
    struct hash *by_id = arg;
    for (const struct hash_node *n = hash_find(by_id, info->id); n; n = hash_find_next(n))
        memcpy(container_of(n, struct named, node)->a->volume, info->name, sizeof(info->name));
    return 0;
}

static int resolve_names(struct control_pool *p)
{
    unsigned count = attachment_count(p, NULL);
    struct named *named = calloc(count ? count : 1, sizeof(*named));
    struct hash by_id;
    if (!named || !hash_init(&by_id, count + 1)) {
        free(named);
        return VP_E_NO_MEMORY;
    }
    struct named *next = named;
    for (struct attachment *a = NULL; (a = attachment_next(p, a)); next++) {
        next->a = a;
        hash_add(&by_id, &next->node, a->volume_id);
    }
    volume_each(p->vs, name_volume, &by_id);
    hash_fini(&by_id);
    free(named);
    return 0;
}

/* Several coroutines walk one list: each takes the next attachment until there is none. */
struct walk {
    struct control *c;
    struct control_pool *p;
    struct attachment *next;
    void (*fn)(struct control *c, struct attachment *a);
    struct co_group group;
};

static CO void walk_work(struct walk *w)
{
    for (struct attachment *a; (a = w->next);) {
        w->next = attachment_next(w->p, a);
        w->fn(w->c, a);
    }
}

static CO void walk_worker(void *arg)
{
    struct walk *w = arg;
    walk_work(w);
    co_group_leave(&w->group, 0);
}

/* The list does not change meanwhile: the caller holds control.lock. */
static CO void attachments_walk(struct control *c, struct control_pool *p,
                                void (*fn)(struct control *c, struct attachment *a))
{
    struct walk w = {.c = c, .p = p, .next = attachment_next(p, NULL), .fn = fn};
    co_group_init(&w.group);
    for (unsigned i = 1; i < WORKERS_MAX; i++) {
        co_group_enter(&w.group);
        if (co_spawn(walk_worker, &w, "attachments")) {
            co_group_leave(&w.group, 0);
            break;
        }
    }
    walk_work(&w);
    vp_ignore(co_group_wait(&w.group), "workers report by attachment");
}

static void schedule_retry(struct attachment *a)
{
    a->retry_ns = reactor_now_ns() + (RETRY_NS << (a->retries < 4 ? a->retries : 4));
    a->retries++;
}

/* Says why once, not at every try. While the daemon starts, the pool that knows what became of a
 * volume may be the next one that it imports. */
static void start_failed(struct control *c, struct attachment *a, const struct vp_error *why)
{
    char subject[VOLUME_FULL_NAME_BYTES];
    schedule_retry(a);
    if (a->told && strcmp(a->error, why->text) == 0)
        return;
    (void)snprintf(a->error, sizeof(a->error), "%s", why->text);
    a->told = c->started || a->rc != VP_E_VOLUME_MOVING;
    if (!a->told)
        return;
    control_volume_name(a->pool->name, a->volume, subject);
    control_event(c, VP_LOG_ERROR, "attachment.failed", subject, "%s: %s; it is tried again",
                  a->address, why->text);
}

static CO void restart_one(struct control *c, struct attachment *a)
{
    struct vp_error err = {0};
    if (!a->volume[0])
        a->rc =
            vp_fail(&err, VP_E_NOT_FOUND, "volume number %u does not exist any more", a->volume_id);
    else
        do
            a->rc = attachment_start(c, a, &err);
        while (control_predecessor_lets_go(c, a->rc));
    if (a->rc)
        start_failed(c, a, &err);
}

static CO void retry_one(struct control *c, struct attachment *a)
{
    struct vp_error err = {0};
    struct attachment_change change;
    if (!a->pool || a->served || !a->volume[0] || reactor_now_ns() < a->retry_ns ||
        attachment_change_begin(c, &change, a->pool, a->volume, &err))
        return;
    a->rc = attachment_start(c, a, &err);
    attachment_change_end(c, &change);
    if (a->rc) {
        start_failed(c, a, &err);
        return;
    }
    a->error[0] = 0;
    a->retries = 0;
    control_event(c, VP_LOG_INFO, "attachment.restored", volume_full_name(a->v), "%s", a->uri);
}

static CO void leave_one(struct control *c, struct attachment *a)
{
    struct vp_error err = {0};
    (void)c;
    vp_ignore(attachment_stop(a, STOP_LEAVE, &err), "leaving never fails");
}

static CO void end_one(struct control *c, struct attachment *a)
{
    struct vp_error err = {0};
    char subject[VOLUME_FULL_NAME_BYTES];
    control_volume_name(a->pool->name, a->volume, subject);
    if (attachment_stop(a, STOP_POOL_GOES, &err))
        control_event(c, VP_LOG_ERROR, "attachment.failed", subject, "%s: %s", a->address,
                      err.text);
}

CO void attachments_start(struct control *c, struct control_pool *p)
{
    pool_record_each(volumes_pool(p->vs), POOL_RECORD_ATTACHMENT, record_read, p);
    if (resolve_names(p))
        vp_error_log("pool '%s': no memory to start its attachments", p->name);
    attachments_walk(c, p, restart_one);
}

CO void attachments_retry(struct control *c, struct control_pool *p)
{
    bool any = false;
    for (const struct attachment *a = NULL; (a = attachment_next(p, a));)
        any |= !a->served && reactor_now_ns() >= a->retry_ns;
    if (any)
        attachments_walk(c, p, retry_one);
}

CO void attachments_retry_now(struct control *c)
{
    struct attachment *a;
    struct control_pool *p;
    list_for_each (a, &c->attachments, link)
        a->retry_ns = 0;
    list_for_each (p, &c->pools, link)
        attachments_retry(c, p);
}

CO void attachment_withdraw(struct control *c, struct attachment *a)
{
    struct vp_error err = {0};
    if (!a->served)
        return;
    vp_ignore(attachment_stop(a, STOP_LEAVE, &err), "leaving never fails");
    restart_one(c, a); /* says why not */
}

CO void attachment_end(struct control *c, struct attachment *a)
{
    struct vp_error err = {0};
    char subject[VOLUME_FULL_NAME_BYTES];
    control_volume_name(a->pool->name, a->volume, subject);
    int rc = attachment_stop(a, STOP_POOL_GOES, &err);
    control_event(c, rc ? VP_LOG_ERROR : VP_LOG_INFO, "attachment.removed", subject, "%s%s%s",
                  a->address, rc ? ": " : "", rc ? err.text : "");
    attachment_free(a);
}

CO void attachment_drop(struct control *c, struct attachment *a)
{
    struct vp_error err = {0};
    char subject[VOLUME_FULL_NAME_BYTES];
    control_volume_name(a->pool->name, a->volume, subject);
    a->pool = NULL;
    vp_ignore(attachment_stop(a, STOP_POOL_GOES, &err), "what is served without a device can stop");
    control_event(c, VP_LOG_INFO, "attachment.removed", subject, "%s", a->address);
}

void attachments_reap(struct control *c)
{
    struct attachment *a, *next;
    list_for_each_safe (a, next, &c->attachments, link)
        if (!a->pool && !a->v)
            attachment_free(a);
}

static bool attachment_is_of(const struct attachment *a, const struct volumes *vs,
                             uint32_t volume_id)
{
    return a->pool && a->pool->vs == vs && a->volume_id == volume_id;
}

int attachments_forget(struct control *c, const struct volumes *vs, uint32_t volume_id)
{
    struct attachment *a, *next;
    list_for_each (a, &c->attachments, link)
        if (attachment_is_of(a, vs, volume_id) &&
            (a->served || control_moves_hold(c, a->pool, a->volume)))
            return VP_E_BUSY;
    list_for_each_safe (a, next, &c->attachments, link)
        if (attachment_is_of(a, vs, volume_id))
            attachment_free(a);
    return 0;
}

CO void attachments_stop(struct control *c, struct control_pool *p, bool leave)
{
    attachments_walk(c, p, leave ? leave_one : end_one);
    struct attachment *a;
    while ((a = attachment_next(p, NULL)))
        attachment_free(a);
}

/* ---- attach ----------------------------------------------------------------------------- */

static struct attachment *find(struct control *c, const char *address)
{
    struct attachment *a;
    list_for_each (a, &c->attachments, link)
        if (a->pool && strcmp(a->address, address) == 0)
            return a;
    return NULL;
}

static struct attachment *find_device(struct control_pool *p, const char *volume)
{
    struct attachment *a = NULL;
    while ((a = attachment_next(p, a)) && !(a->kind->is_device && strcmp(a->volume, volume) == 0))
        ;
    return a;
}

/* One that is served. */
static const char *shown_as(const struct attachment *a)
{
    return a->kind->is_device ? a->uri : a->address;
}

/* The address is taken by another attachment, or by this volume: then a failed one is tried again.
 */
static CO int attach_again(struct control *c, struct attachment *a, struct control_pool *p,
                           const char *volume, const struct attachment_options *o,
                           struct vp_error *err)
{
    if (a->pool != p || strcmp(a->volume, volume) != 0)
        return vp_fail(err, VP_E_EXISTS, "%s serves %s/%s already: choose another address",
                       a->address, a->pool->name, a->volume);
    if (a->served)
        return vp_fail(err, VP_E_EXISTS, "%s/%s is attached %s %s already", p->name, volume,
                       a->kind->is_device ? "as" : "at", shown_as(a));
    if (!attachment_socket_equal(a->socket, o->socket))
        return vp_fail(err, VP_E_EXISTS,
                       "%s/%s has an attachment at %s whose socket has another owner, group or "
                       "mode: detach it first",
                       p->name, volume, a->address);
    if (a->read_only != o->read_only)
        return vp_fail(err, VP_E_EXISTS,
                       "%s/%s has an attachment at %s that is %s: detach it first", p->name, volume,
                       a->address, a->read_only ? "read-only" : "writable");
    int rc = a->kind->check_same ? a->kind->check_same(a, o->address, err) : 0;
    if (rc)
        return rc;
    struct vp_error why = {0};
    a->rc = attachment_start(c, a, &why);
    (void)snprintf(a->error, sizeof(a->error), "%s", why.text); /* or none any more */
    a->told = true;
    return a->rc ? vp_fail(err, a->rc, "%s", why.text) : 0;
}

/* Starts and remembers a; on failure nothing is left but `a` itself. */
static CO int attach_new(struct control *c, struct attachment *a, const char *volume,
                         struct vp_error *err)
{
    struct control_pool *p = a->pool;
    struct volume_info info;
    int rc = volume_info_get(p->vs, volume, &info);
    if (rc)
        return vp_fail(err, rc, "no volume '%s' in pool '%s'", volume, p->name);
    memcpy(a->volume, info.name, sizeof(a->volume));
    a->volume_id = info.id;
    a->id = p->next_attachment++;
    a->awaits = volume_is_awaited(p->vs, volume);
    if (a->awaits && a->kind->is_device)
        return vp_fail(err, VP_E_VOLUME_MOVING,
                       "%s/%s has not arrived yet, and the kernel reads a block device as soon as "
                       "there is one: attach it when it has arrived, or with --nbd",
                       p->name, volume);
    rc = attachment_start(c, a, err);
    if (rc || a->awaits) /* its record comes with the volume */
        return rc;
    rc = record_write(a);
    if (rc == 0)
        return 0;
    struct vp_error stop = {0};
    if (attachment_stop(a, STOP_POOL_GOES, &stop))
        vp_error_log("%s", stop.text);
    return vp_fail(err, rc, "the attachment could not be recorded in the pool: %s",
                   vp_err_text(rc));
}

static CO int attachment_add_here(struct control *c, struct control_pool *p, const char *volume,
                                  const struct attachment_options *o, struct attachment **out,
                                  struct vp_error *err)
{
    const struct export_kind *kind = o->kind;
    struct attachment *a = kind->is_device ? find_device(p, volume) : find(c, o->address);
    if (a) {
        *out = a;
        return attach_again(c, a, p, volume, o, err);
    }
    a = attachment_new(p, kind, o->address, strlen(o->address));
    if (!a)
        return vp_fail(err, VP_E_NO_MEMORY, "out of memory");
    a->read_only = o->read_only;
    a->socket = o->socket;
    int rc = attach_new(c, a, volume, err);
    if (rc) {
        attachment_free(a);
        return rc;
    }
    list_add_tail(&c->attachments, &a->link);
    control_event(c, VP_LOG_INFO, "attachment.added", volume_full_name(a->v), "%s", a->uri);
    *out = a;
    return 0;
}

CO int attachment_add(struct control *c, struct control_pool *p, const char *volume,
                      const struct attachment_options *o, struct attachment **out,
                      struct vp_error *err)
{
    struct attachment_change change;
    int rc = attachment_change_begin(c, &change, p, volume, err);
    if (rc)
        return rc;
    rc = attachment_add_here(c, p, volume, o, out, err);
    attachment_change_end(c, &change);
    return rc;
}

/* ---- who uses it --------------------------------------------------------------------------- */

CO int attachment_check_unused(const struct attachment *a, struct vp_error *err)
{
    if (!a->served)
        return 0;
    return a->kind->check_unused(a, err);
}

CO void attachments_used_by(const struct control_pool *p, const char *volume, char *text,
                            size_t size)
{
    size_t len = 0;
    text[0] = 0;
    for (const struct attachment *a = NULL; (a = attachment_next(p, a));) {
        char users[400];
        if (strcmp(a->volume, volume) != 0 || !a->served)
            continue;
        a->kind->users(a, users, sizeof(users));
        if (users[0] && len < size)
            len += (size_t)snprintf(text + len, size - len, "%s%s: %s", len ? "; " : "",
                                    shown_as(a), users);
    }
}

CO void attachments_resize(struct control *c, struct control_pool *p, const char *volume)
{
    for (struct attachment *a = NULL; (a = attachment_next(p, a));) {
        struct vp_error err = {0};
        char subject[VOLUME_FULL_NAME_BYTES];
        control_volume_name(a->pool->name, a->volume, subject);
        if (strcmp(a->volume, volume) == 0 && a->served && a->kind->resize &&
            a->kind->resize(a, &err))
            control_event(c, VP_LOG_WARN, "attachment.size", subject, "%s", err.text);
    }
}

/* ---- detach -------------------------------------------------------------------------------- */

/* The kernel did not let go of its device, which is served on. So it stays an attachment, also for
 * the next daemon: else that one would leave the device alone, or make a second one of the
 * volume. */
static CO int remove_undo(struct control *c, struct attachment *a, const char *subject, int rc,
                          struct vp_error *err)
{
    int record_rc = record_write(a);
    if (record_rc)
        vp_error_log("%s: the attachment as %s could not be recorded again (%s)", subject,
                     a->address, vp_err_text(record_rc));
    control_event(c, VP_LOG_ERROR, "attachment.stuck", subject, "%s stays: %s", a->address,
                  err->text);
    return rc;
}

CO int attachment_remove(struct control *c, struct attachment *a, struct vp_error *err)
{
    int rc = a->awaits ? 0 : record_delete(a);
    if (rc)
        return vp_fail(err, rc, "the pool could not record the detachment: %s", vp_err_text(rc));
    char subject[VOLUME_FULL_NAME_BYTES];
    control_volume_name(a->pool->name, a->volume, subject);
    rc = attachment_stop(a, STOP_FOR_GOOD, err);
    if (a->served)
        return remove_undo(c, a, subject, rc, err);
    control_event(c, rc ? VP_LOG_ERROR : VP_LOG_INFO, "attachment.removed", subject, "%s%s%s",
                  a->address, rc ? ": " : "", rc ? err->text : "");
    attachment_free(a);
    return rc;
}

struct attachment *attachment_next(const struct control_pool *p, const struct attachment *a)
{
    struct list *all = &p->control->attachments;
    struct list *at = a ? a->link.next : all->next;
    while (at != all && container_of(at, struct attachment, link)->pool != p)
        at = at->next;
    return at == all ? NULL : container_of(at, struct attachment, link);
}

unsigned attachment_count(const struct control_pool *p, const char *volume)
{
    unsigned count = 0;
    for (const struct attachment *a = NULL; (a = attachment_next(p, a));)
        if (!volume || strcmp(a->volume, volume) == 0)
            count++;
    return count;
}

static const char *attachment_state(const struct attachment *a)
{
    return !a->served ? "failed" : a->awaits ? "waiting" : "serving";
}

CO json_t *attachment_json(const struct attachment *a)
{
    char subject[VOLUME_FULL_NAME_BYTES];
    control_volume_name(a->pool->name, a->volume, subject);
    json_t *shown = json_pack("{s:s, s:s, s:s, s:s, s:s, s:b, s:s}", "volume", subject, "kind",
                              a->kind->name, "address", a->address, "uri", a->uri, "state",
                              attachment_state(a), "read_only", a->read_only, "error", a->error);
    json_t *figures = a->kind->figures(a, false), *more = a->kind->describe(a);
    vp_ignore(json_object_update(shown, figures), "no memory: figures are missing in the reply");
    vp_ignore(json_object_update(shown, more), "no memory: the same");
    json_decref(figures);
    json_decref(more);
    return shown;
}

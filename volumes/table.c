/*
 * The table of volumes: names, and what changes them. All at home.
 *
 * 1. A change is visible once its record is durable. While the record is being written its name is
 *    taken (`pending`) but not found, so that nobody else takes it and nobody uses it too soon.
 * 2. Ids come from a COUNTER record that is committed together with the volume: an id is never used
 *    twice, so a stale record or log entry cannot be taken for another volume's.
 */
#include "base/verify.h"
#include "io/guard.h"
#include "volumes/volumes_impl.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- names and structs -------------------------------------------------------------------- */

struct volume_name *volume_name_add(struct volumes *vs, struct volume *v, const char *text,
                                    bool pending)
{
    const char *pool = pool_name(vs->pool);
    size_t pool_len = strlen(pool), len = strlen(text);
    struct volume_name *n = calloc(1, sizeof(*n) + pool_len + 1 + len + 1);
    if (!n)
        return NULL;
    memcpy(n->full, pool, pool_len);
    n->full[pool_len] = '/';
    memcpy(n->full + pool_len + 1, text, len + 1);
    n->text = n->full + pool_len + 1;
    n->owner = v;
    n->pending = pending;
    hash_add(&vs->by_name, &n->node, hash_bytes(text, len));
    return n;
}

void volume_name_drop(struct volumes *vs, struct volume_name *n)
{
    hash_del(&vs->by_name, &n->node);
    free(n);
}

void volume_names_free_retired(struct volume *v)
{
    struct volume_name *n = atomic_load_explicit(&v->name, memory_order_relaxed);
    if (!n)
        return;
    while (n->retired) {
        struct volume_name *old = n->retired;
        n->retired = old->retired;
        free(old);
    }
}

static struct volume_name *name_lookup(struct volumes *vs, const char *name)
{
    struct hash_node *n = hash_find(&vs->by_name, hash_bytes(name, strlen(name)));
    for (; n; n = hash_find_next(n)) {
        struct volume_name *found = container_of(n, struct volume_name, node);
        if (strcmp(found->text, name) == 0)
            return found;
    }
    return NULL;
}

struct volume *volume_find(struct volumes *vs, const char *name)
{
    struct volume_name *n = name_lookup(vs, name);
    return n && !n->pending ? n->owner : NULL;
}

struct volume *volume_find_id(struct volumes *vs, uint32_t id)
{
    struct hash_node *n = hash_find(&vs->by_id, id);
    return n ? container_of(n, struct volume, by_id) : NULL;
}

const char *volume_full_name(const struct volume *v)
{
    return atomic_load_explicit(&v->name, memory_order_acquire)->full;
}

const char *volume_text(const struct volume *v)
{
    return atomic_load_explicit(&v->name, memory_order_acquire)->text;
}

struct volume *volume_new(struct volumes *vs, uint32_t id)
{
    struct volume *v = calloc(1, sizeof(*v));
    if (!v)
        return NULL;
    v->vs = vs;
    v->id = id;
    v->owner = VOLUME_OWNER_FIRST;
    list_init(&v->active_link);
    list_init(&v->replay_link);
    list_init(&v->resync_link);
    list_init(&v->delete_link);
    co_mutex_init_for(&v->control, RESOURCE_VOLUME_CONTROL);
    co_mutex_init_for(&v->opening, RESOURCE_VOLUME_OPENING);
    co_queue_init(&v->unpinned);
    hash_add(&vs->by_id, &v->by_id, id);
    list_add_tail(&vs->all, &v->link);
    volume_errors_load(v);
    return v;
}

void volume_free(struct volume *v)
{
    VP_VERIFY_TRUE(!v->io);
    list_del(&v->link);
    list_del(&v->active_link);
    list_del(&v->resync_link);
    list_del(&v->delete_link);
    hash_del(&v->vs->by_id, &v->by_id);
    volume_names_free_retired(v);
    if (v->name)
        free(v->name);
    volume_replay_drop(v);
    figure_histograms_free(&volume_figure_set, &v->figures);
    free(v->fault);
    free(v);
}

void volume_options_apply(struct volume *v, const struct volume_options *o)
{
    unsigned flags = (o->read_only ? VOLUME_IS_READ_ONLY : 0) |
                     (o->zero_detect ? VOLUME_IS_ZERO_DETECT : 0) |
                     (o->sync_always ? VOLUME_IS_SYNC_ALWAYS : 0) |
                     (o->full_policy == VOLUME_FULL_ENOSPC ? VOLUME_IS_ENOSPC : 0);
    if (v->owner.ownership == VOLUME_TARGET)
        /* Only the move writes to it, and waits for no room. */
        flags = VOLUME_IS_ENOSPC | (o->read_only ? VOLUME_WILL_BE_READ_ONLY : 0);
    v->options = *o;
    atomic_store_explicit(&v->flags, flags, memory_order_relaxed);
    atomic_store_explicit(&v->size_bytes, o->size_bytes, memory_order_relaxed);
}

/* A record that does not decode still names a volume that exists: shown, faulted, untouched. */
static int adopt_damaged(struct volumes *vs, struct volume *v)
{
    char name[32];
    snprintf(name, sizeof(name), "damaged-record-%u", v->id);
    v->options.sector_bytes = v->sector_bytes = 512;
    v->name = volume_name_add(vs, v, name, false);
    if (!v->name)
        return VP_E_NO_MEMORY;
    vs->count++;
    vs->damaged_record = true;
    volume_fault(v, VP_E_RECORD_BAD);
    return 0;
}

int volume_adopt_record(struct volumes *vs, const struct pool_record *record)
{
    struct volume_record r;
    struct volume *v = volume_new(vs, record->scope);
    if (!v)
        return VP_E_NO_MEMORY;
    vs->next_id = max_u64(vs->next_id, (uint64_t)record->scope + 1);
    if (volume_record_decode(record->value, record->len, &r) ||
        (!r.deleting && name_lookup(vs, r.name)))
        return adopt_damaged(vs, v);

    v->uuid = r.uuid;
    v->created_seconds = r.created_seconds;
    v->owner = r.owner;
    v->attended = r.owner.ownership == VOLUME_OWNER;
    v->sector_bytes = r.options.sector_bytes;
    volume_options_apply(v, &r.options);
    v->name = volume_name_add(vs, v, r.name, false);
    if (!v->name)
        return VP_E_NO_MEMORY;
    if (r.deleting) {
        hash_del(&vs->by_name, &v->name->node);
        v->state = VOLUME_DELETING;
        list_add_tail(&vs->deleting, &v->delete_link);
    } else {
        vs->count++;
    }
    return 0;
}

unsigned volumes_count(const struct volumes *vs)
{
    return vs->count;
}

/* ---- create ------------------------------------------------------------------------------- */

int volume_options_check(const struct volumes *vs, const struct volume_options *o,
                         struct vp_error *err)
{
    (void)vs;
    if (o->sector_bytes != 512 && o->sector_bytes != 4096)
        return vp_fail(err, VP_E_INVALID, "a sector is 512 or 4096 bytes, not %u", o->sector_bytes);
    if (o->size_bytes == 0 || !is_aligned(o->size_bytes, o->sector_bytes))
        return vp_fail(err, VP_E_INVALID, "size %llu is not a positive multiple of the sector, %u",
                       (unsigned long long)o->size_bytes, o->sector_bytes);
    if (o->size_bytes > VOLUME_SIZE_MAX)
        return vp_fail(err, VP_E_TOO_BIG, "a volume has at most 1 PiB");
    if (o->reserve_bytes > o->size_bytes)
        return vp_fail(err, VP_E_INVALID, "the reserve is larger than the volume");
    return 0;
}

static int name_check_free(struct volumes *vs, const char *name, struct vp_error *err)
{
    if (!volume_name_is_valid(name))
        return vp_fail(err, VP_E_NAME_INVALID,
                       "'%s' is not a volume name: a letter or digit, then up to %d letters, "
                       "digits and _ . : -",
                       name, VOLUME_NAME_MAX - 1);
    if (name_lookup(vs, name))
        return vp_fail(err, VP_E_EXISTS, "volume %s/%s exists already", pool_name(vs->pool), name);
    return 0;
}

static struct volume_identity identity_new(void)
{
    uint8_t random[16];
    reactor_random(random, sizeof(random));
    return (struct volume_identity){.uuid = vp_uuid_from_random(random),
                                    .created_seconds = reactor_wall_seconds(),
                                    .owner = VOLUME_OWNER_FIRST};
}

static struct volume *create_struct(struct volumes *vs, const char *name,
                                    const struct volume_options *o,
                                    const struct volume_identity *identity)
{
    struct volume *v = volume_new(vs, (uint32_t)vs->next_id);
    if (!v)
        return NULL;
    vs->next_id++;
    v->uuid = identity->uuid;
    v->created_seconds = identity->created_seconds;
    v->owner = identity->owner;
    v->attended = true;
    v->sector_bytes = o->sector_bytes;
    volume_options_apply(v, o);
    v->name = volume_name_add(vs, v, name, true);
    if (v->name)
        return v;
    volume_free(v);
    return NULL;
}

/* Forgets a volume whose creation failed. */
static void create_undo(struct volume *v)
{
    hash_del(&v->vs->by_name, &v->name->node);
    volume_free(v);
}

/* Leases the reserve at once: a promise that cannot be kept is refused now, not later. Until it is
 * kept the record says that the volume is being deleted, so that a failure, or a crash, leaves
 * nothing to undo: what was leased goes the way of a deleted volume. */
static CO int create_reserve(struct volume *v, struct vp_error *err)
{
    co_mutex_lock(&v->control);
    int rc = volume_activate(v, true);
    if (rc) {
        vp_fail(err, rc, "no room for a reserve of %llu bytes: %s",
                (unsigned long long)v->options.reserve_bytes, vp_err_text(rc));
    } else {
        rc = volume_record_commit(v, volume_text(v), &v->options, false);
        if (rc)
            vp_fail(err, rc, "volume %s could not be recorded: %s", volume_text(v),
                    vp_err_text(rc));
    }
    co_mutex_unlock(&v->control);
    if (!rc)
        return 0;
    struct volumes *vs = v->vs;
    hash_del(&vs->by_name, &v->name->node);
    free(v->fault);
    v->fault = NULL;
    v->state = VOLUME_DELETING;
    list_add_tail(&vs->deleting, &v->delete_link);
    vp_ignore(volume_delete_take_job(v), "no memory: its first step tries again");
    co_queue_wake_all(&vs->work);
    return rc;
}

CO int volume_create(struct volumes *vs, const char *name, const struct volume_options *options,
                     struct vp_error *err)
{
    struct volume_identity identity = identity_new();
    return volume_create_as(vs, name, options, &identity, err);
}

CO int volume_create_as(struct volumes *vs, const char *name, const struct volume_options *options,
                        const struct volume_identity *identity, struct vp_error *err)
{
    struct volume_options o = *options;
    if (!o.sector_bytes)
        o.sector_bytes = 512;
    if (!o.has_profile)
        o.profile = pool_default_profile(vs->pool);
    o.has_profile = true;
    int rc = volume_options_check(vs, &o, err);
    if (!rc) /* wider ones of older releases go on */
        rc = pool_profile_check(o.profile, err);
    if (!rc)
        rc = name_check_free(vs, name, err);
    if (!rc)
        rc = pool_promise(vs->pool, o.profile, err);
    if (!rc) /* it may have waited */
        rc = name_check_free(vs, name, err);
    if (rc)
        return rc;
    if (vs->next_id > UINT32_MAX)
        return vp_fail(err, VP_E_TOO_BIG, "the pool has used up its volume numbers");

    struct volume *v = create_struct(vs, name, &o, identity);
    if (!v)
        return vp_fail(err, VP_E_NO_MEMORY, "out of memory");
    rc = volume_record_commit(v, name, &o, o.reserve_bytes > 0);
    if (rc) {
        create_undo(v);
        return vp_fail(err, rc, "volume %s could not be recorded: %s", name, vp_err_text(rc));
    }
    if (o.reserve_bytes > 0)
        rc = create_reserve(v, err);
    if (rc)
        return rc;
    v->name->pending = false;
    vs->count++;
    return 0;
}

/* ---- delete, rename ----------------------------------------------------------------------- */

/* Finds v by name and takes its control mutex; the name may have gone while waiting. */
CO int volume_control_begin(struct volumes *vs, const char *name, struct volume **out,
                            struct vp_error *err)
{
    struct volume *v = volume_find(vs, name);
    uint32_t id = v ? v->id : 0;
    if (v) {
        co_mutex_lock(&v->control);
        if (volume_find_id(vs, id) == v && volume_find(vs, name) == v) {
            *out = v;
            return 0;
        }
        co_mutex_unlock(&v->control);
    }
    return vp_fail(err, VP_E_NOT_FOUND, "no volume %s/%s", pool_name(vs->pool), name);
}

/* The same, for a change that a volume that moves does not allow (volume_owner_check_stays). */
static CO int change_begin(struct volumes *vs, const char *name, struct volume **out,
                           struct vp_error *err)
{
    struct volume *v;
    int rc = volume_control_begin(vs, name, &v, err);
    if (rc)
        return rc;
    rc = volume_owner_check_stays(v, err);
    if (rc)
        co_mutex_unlock(&v->control);
    else
        *out = v;
    return rc;
}

/* The record says that v goes, and its job is there, or neither. `b`: what goes with it. */
static CO int delete_commit(struct volume *v, const char *name, struct pool_batch *b)
{
    struct pool *p = v->vs->pool;
    struct pool_job *job = pool_job_new(p, POOL_JOB_DELETE, v->id, name);
    if (!job)
        return VP_E_NO_MEMORY;
    pool_job_count(job, volume_delete_bytes(v));
    volume_record_put(v, name, &v->options, true, b);
    pool_job_put(p, job, b);
    int rc = pool_commit(p, b);
    if (rc)
        pool_job_drop(job);
    else
        v->delete_job = job;
    return rc;
}

CO int volume_delete_locked(struct volume *v, struct pool_batch *b, struct vp_error *err)
{
    struct volumes *vs = v->vs;
    if (v->open_count > 0)
        return vp_fail(err, VP_E_BUSY, "volume %s is in use; detach it first", volume_full_name(v));
    v->name->pending = true; /* nobody opens it from here on */
    int rc = delete_commit(v, volume_text(v), b);
    if (rc) {
        v->name->pending = false;
        return vp_fail(err, rc, "the deletion could not be recorded: %s", vp_err_text(rc));
    }
    hash_del(&vs->by_name, &v->name->node);
    vs->count--;
    v->state = VOLUME_DELETING;
    volume_resync_end(v, POOL_JOB_CANCELLED);
    list_add_tail(&vs->deleting, &v->delete_link);
    co_queue_wake_all(&vs->work);
    return 0;
}

CO int volume_delete(struct volumes *vs, const char *name, struct vp_error *err)
{
    struct volume *v;
    int rc = change_begin(vs, name, &v, err);
    if (rc)
        return rc;
    struct pool_batch b;
    pool_batch_init(&b);
    rc = volume_delete_locked(v, &b, err);
    pool_batch_fini(&b);
    co_mutex_unlock(&v->control);
    return rc;
}

CO int volume_rename(struct volumes *vs, const char *name, const char *to, struct vp_error *err)
{
    struct volume *v;
    int rc = change_begin(vs, name, &v, err);
    if (rc)
        return rc;
    struct volume_name *from = v->name, *n = NULL;
    rc = name_check_free(vs, to, err);
    if (!rc) {
        n = volume_name_add(vs, v, to, true);
        rc = n ? volume_record_commit(v, to, &v->options, false) : VP_E_NO_MEMORY;
        if (rc)
            vp_fail(err, rc, "the new name could not be recorded: %s", vp_err_text(rc));
    }
    if (!rc) {
        n->pending = false;
        n->retired = from;
        hash_del(&vs->by_name, &from->node);
        atomic_store_explicit(&v->name, n, memory_order_release);
    } else if (n) {
        volume_name_drop(vs, n);
    }
    co_mutex_unlock(&v->control);
    return rc;
}

/* ---- resize ------------------------------------------------------------------------------- */

/* Requests that are at work when a volume shrinks have this long to end. */
#define SHRINK_WAIT_S 10U

struct resize_call {
    struct volume *v;
    uint64_t old_bytes, new_bytes;
    struct front_late late; /* shrinking: requests that did not end in time */
    bool zeroing;           /* shrinking: it has begun, and …               */
    uint64_t zeroed_to;     /* … [new_bytes, this) is gone                  */
};

static CO int resize_map(void *arg)
{
    const struct resize_call *c = arg;
    return thin_resize(c->v->io->thin, div_up(c->new_bytes, VOLUME_BLOCK));
}

/* Requests see the new end from now on, and none is at work that saw the old one: such a write
 * could fill again what the shrink has zeroed, or what still looked like a hole to it. */
static CO int shrink_size(void *arg)
{
    struct resize_call *c = arg;
    struct front *front = volume_front(c->v);
    uint64_t deadline_ns = reactor_now_ns() + SHRINK_WAIT_S * UINT64_C(1000000000);
    bool freeze = io_guard_on(GUARD_SHRINK_AFTER_WRITERS);
    int rc = freeze ? front_freeze(front, deadline_ns, &c->late) : 0;
    if (rc)
        return rc;
    atomic_store_explicit(&c->v->size_bytes, c->new_bytes, memory_order_relaxed);
    if (freeze)
        front_thaw(front);
    return 0;
}

/* Requests see the new end already. What lies behind it is zeroed, and durably so before the record
 * says that it is gone: a volume that grows again shows zeros there. */
static CO int shrink_tail(void *arg)
{
    struct resize_call *c = arg;
    c->zeroing = true;
    int rc = volume_zero_tail(c->v, &c->zeroed_to, c->old_bytes);
    return rc ? rc : volume_io_commit(c->v->io);
}

static CO int shrink(struct volume *v, struct resize_call *c, const struct volume_options *o)
{
    /* A tail that dirties more pages than the memory holds is zeroed over several checkpoints. They
     * end, because they take `opening`, never the locks that this command holds. */
    AUTO_HOLD struct hold_exception e = hold_may_await_checkpoint();
    int rc = volume_activate(v, false);
    if (rc)
        return rc;
    volume_pin(v);
    rc = reactor_call_for_client(v->reactor, shrink_size, c);
    if (!rc)
        rc = reactor_call_for_client(v->reactor, shrink_tail, c);
    if (!rc)
        rc = volume_record_commit(v, volume_text(v), o, false);
    if (!rc)
        rc = reactor_call(v->reactor, resize_map, c);
    if (rc)
        atomic_store_explicit(&v->size_bytes, c->old_bytes, memory_order_relaxed);
    volume_unpin(v);
    return rc;
}

static CO int grow(struct volume *v, struct resize_call *c, const struct volume_options *o)
{
    volume_pin(v);
    int rc = v->io ? reactor_call(v->reactor, resize_map, c) : 0;
    if (!rc)
        rc = volume_record_commit(v, volume_text(v), o, false);
    volume_unpin(v);
    return rc;
}

/* The size is the old one. A shrink zeroes upwards, a window at a time; the one that failed may be
 * done in part. */
static int resize_fail(const struct resize_call *c, int rc, struct vp_error *err)
{
    if (c->late.count)
        return vp_fail(
            err, rc,
            "%s could not be shrunk and is as it was: requests in flight (%s) did not end within "
            "%u s. Try again",
            volume_full_name(c->v), c->late.text, SHRINK_WAIT_S);
    if (!c->zeroing)
        return vp_fail(err, rc, "%s could not be resized and is as it was: %s",
                       volume_full_name(c->v), vp_err_text(rc));
    uint64_t window = min_u64(c->old_bytes - c->zeroed_to, VOLUME_WINDOW_BLOCKS * VOLUME_BLOCK);
    return vp_fail(err, rc,
                   "%s could not be shrunk to %llu bytes: %s. It still has %llu bytes; behind the "
                   "first %llu of them, %llu are discarded and up to %llu more may be. Try again",
                   volume_full_name(c->v), (unsigned long long)c->new_bytes, vp_err_text(rc),
                   (unsigned long long)c->old_bytes, (unsigned long long)c->new_bytes,
                   (unsigned long long)(c->zeroed_to - c->new_bytes), (unsigned long long)window);
}

static CO int resize_locked(struct volume *v, uint64_t size_bytes, bool force, struct vp_error *err)
{
    struct volume_options o = v->options;
    struct resize_call c = {v, o.size_bytes, size_bytes, .zeroed_to = size_bytes};
    o.size_bytes = size_bytes;
    o.reserve_bytes = min_u64(o.reserve_bytes, size_bytes);
    int rc = volume_options_check(v->vs, &o, err);
    if (rc || c.new_bytes == c.old_bytes)
        return rc;
    if (v->state == VOLUME_FAULTED)
        return vp_fail(err, VP_E_VOLUME_FAULTED, "volume %s is faulted: %s", volume_full_name(v),
                       v->fault);
    if (c.new_bytes < c.old_bytes && !force)
        return vp_fail(
            err, VP_E_SHRINK_REFUSED,
            "shrinking %s from %llu to %llu bytes discards what lies behind; use --force",
            volume_full_name(v), (unsigned long long)c.old_bytes, (unsigned long long)c.new_bytes);
    rc = c.new_bytes < c.old_bytes ? shrink(v, &c, &o) : grow(v, &c, &o);
    if (rc)
        return resize_fail(&c, rc, err);
    volume_options_apply(v, &o);
    return 0;
}

CO int volume_resize(struct volumes *vs, const char *name, uint64_t size_bytes, bool force,
                     struct vp_error *err)
{
    struct volume *v;
    int rc = change_begin(vs, name, &v, err);
    if (rc)
        return rc;
    rc = resize_locked(v, size_bytes, force, err);
    co_mutex_unlock(&v->control);
    return rc;
}

/* ---- properties --------------------------------------------------------------------------- */

/* A reserve is leased when the map is opened, so the volume must not be open now. */
static CO int reserve_change(struct volume *v, const struct volume_options *o, struct vp_error *err)
{
    /* Only a checkpoint makes the map clean, so that it can be closed. See shrink. */
    AUTO_HOLD struct hold_exception e = hold_may_await_checkpoint();
    bool closed = !v->io;
    if (v->open_count > 0)
        return vp_fail(err, VP_E_BUSY, "volume %s is in use; detach it to change its reserve",
                       volume_full_name(v));
    int rc = closed ? 0 : volume_deactivate(v, &closed);
    if (!rc && !closed) {
        rc = pool_checkpoint(v->vs->pool);
        if (!rc)
            rc = volume_deactivate(v, &closed);
    }
    if (!rc && !closed)
        rc = VP_E_BUSY;
    if (rc)
        return vp_fail(err, rc, "volume %s: %s", volume_full_name(v), vp_err_text(rc));

    struct volume_options old = v->options;
    v->options = *o;
    rc = volume_activate(v, true);
    if (rc)
        v->options = old;
    return rc ? vp_fail(err, rc, "no room for this reserve: %s", vp_err_text(rc)) : 0;
}

static CO int property_locked(struct volume *v, const char *key, const char *value,
                              struct vp_error *err)
{
    struct volume_options o = v->options, old = o;
    int rc = volume_property_parse(key, value, &o, err);
    if (!rc)
        rc = volume_options_check(v->vs, &o, err);
    if (!rc && o.reserve_bytes != v->options.reserve_bytes)
        rc = reserve_change(v, &o, err);
    if (rc)
        return rc;
    rc = volume_record_commit(v, volume_text(v), &o, false);
    if (rc) {
        v->options = old; /* a reserve was tried with the new ones */
        return vp_fail(err, rc, "the property could not be recorded: %s", vp_err_text(rc));
    }
    volume_options_apply(v, &o);
    return 0;
}

CO int volume_property_set(struct volumes *vs, const char *name, const char *key, const char *value,
                           struct vp_error *err)
{
    struct volume *v;
    int rc = change_begin(vs, name, &v, err);
    if (rc)
        return rc;
    rc = property_locked(v, key, value, err);
    co_mutex_unlock(&v->control);
    return rc;
}

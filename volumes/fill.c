/*
 * Filling: a disk that came into service again gets what its mirrors have of the data
 * (pool/return.c has the whole way). One disk at a time, volume by volume in the order of their
 * numbers, and chunk by chunk of each volume. Only chunks that are in use are looked at.
 *
 * 1. A window of chunks (walk.c) is copied under block locks, as a reader. So no block of it is
 *    written meanwhile. A block that is written later goes to the disk as to all others.
 * 2. A position is recorded, now and then, after what was copied before it is durable on the disk.
 *    A crash goes on there. It counts only for the same return of the same disk.
 * 3. Volumes that are created later have nothing that the disk lacks. They may be looked at all the
 *    same.
 * 4. A block that no copy has is named, and not waited for. A volume that cannot be filled, for
 *    example because its map is damaged, is left out and tried again when the others have all. The
 *    disk stays behind until then, or until the volume is deleted.
 *
 * Tested in tests/unit/volumes/test_fill.c.
 */
#include "base/log.h"
#include "volumes/volumes_impl.h"

#include <stdio.h>
#include <string.h>

enum { FILL_RECORD_STEPS = 8 };
#define FILL_REST_NS     UINT64_C(5000000000) /* after a failure, and twice as long each time */
#define FILL_REST_MAX_NS UINT64_C(300000000000)

/* ---- the disk ------------------------------------------------------------------------------- */

/* The disk that is being filled is so still; not another one, or the same after another return. */
static bool goes_on(const struct volumes *vs)
{
    const struct volumes_fill *f = &vs->fill;
    struct pool_disk_filling now;
    return f->job && pool_disk_to_fill(vs->pool, f->disk.disk, &now) && now.disk == f->disk.disk &&
           vp_uuid_equal(now.uuid, f->disk.uuid);
}

static void position_load(struct volumes *vs)
{
    struct volumes_fill *f = &vs->fill;
    struct volume_fill_disk d = {0};
    struct pool_record r;
    struct volume *v;
    if (pool_record_get(vs->pool, POOL_RECORD_COUNTER, f->disk.disk, VOLUME_COUNTER_FILL, &r) &&
        r.len == sizeof(d))
        memcpy(&d, r.value, sizeof(d));
    bool counts = memcmp(d.disk_uuid, f->disk.uuid.b, sizeof(d.disk_uuid)) == 0;
    f->volume = counts ? le32_get(d.volume) : 0;
    f->block = counts ? le64_get(d.block) : 0;
    list_for_each (v, &vs->all, link) {
        bool unequal = !list_empty(&v->resync_link); /* the crash cut off writes there */
        v->fill = f->disk.empty || (v->id < f->volume && !unequal) ? VOLUME_FILLED : VOLUME_TO_FILL;
        v->fill_waits = false;
        if (v->id == f->volume && unequal)
            f->block = 0;
    }
}

/* Everything before it is on the disk. */
static struct volume_fill_disk position_of(const struct volumes *vs)
{
    const struct volumes_fill *f = &vs->fill;
    struct volume_fill_disk d = {.volume = le32_make(f->volume), .block = le64_make(f->block)};
    const struct volume *v;
    memcpy(d.disk_uuid, f->disk.uuid.b, sizeof(d.disk_uuid));
    list_for_each (v, &vs->all, link) {
        if (v->id == f->volume && v->fill_waits && v->id == le32_get(d.volume))
            d.block = le64_make(0);
        if (v->fill == VOLUME_FILLED || v->id >= le32_get(d.volume))
            continue;
        d.volume = le32_make(v->id); /* it could not be filled */
        d.block = le64_make(0);
    }
    return d;
}

/* CO. 2. Of a disk that has left meanwhile nothing is recorded. */
static CO int position_save(struct volumes *vs)
{
    struct volumes_fill *f = &vs->fill;
    struct volume_fill_disk d = position_of(vs);
    struct raid_disk *disk = f->disk.io;
    struct pool_batch b;
    int rc = raid_flush(&disk, 1);
    if (rc || !goes_on(vs))
        return rc;
    pool_batch_init(&b);
    pool_batch_set(&b, POOL_RECORD_COUNTER, f->disk.disk, VOLUME_COUNTER_FILL, &d, sizeof(d));
    pool_job_put(vs->pool, f->job, &b);
    rc = pool_commit(vs->pool, &b);
    pool_batch_fini(&b);
    f->unsaved = 0;
    return rc;
}

/* Of the volumes that are still to be walked. */
static uint64_t bytes_left(struct volumes *vs)
{
    uint64_t bytes = 0;
    struct volume *v;
    list_for_each (v, &vs->all, link)
        if (v->state != VOLUME_DELETING && v->fill != VOLUME_FILLED)
            bytes += volume_allocated_bytes(v);
    return bytes;
}

static CO void fill_end(struct volumes *vs, enum pool_job_state state)
{
    struct pool_batch b;
    pool_batch_init(&b);
    pool_batch_delete(&b, POOL_RECORD_COUNTER, vs->fill.disk.disk, VOLUME_COUNTER_FILL);
    vp_ignore(pool_commit(vs->pool, &b), "a record of another return does not count");
    pool_batch_fini(&b);
    pool_job_end(vs->pool, vs->fill.job, state);
    vs->fill.job = NULL;
}

/* CO. The limit that the command gave which brought the disk. */
static CO int limit_take(struct volumes_fill *f, struct pool *p)
{
    uint64_t limit = f->limit;
    f->limit = 0;
    if (f->limit_disk != f->disk.disk)
        return 0;
    struct vp_error err = {0};
    int rc = pool_job_limit(p, f->job->id, limit, &err);
    if (rc)
        vp_warn("%s", err.text);
    return rc;
}

static CO int fill_begin(struct volumes *vs)
{
    struct volumes_fill *f = &vs->fill;
    char name[POOL_JOB_NAME_MAX + 1];
    if (f->job && !goes_on(vs))
        fill_end(vs, POOL_JOB_CANCELLED);
    if (f->job || !pool_disk_to_fill(vs->pool, 0, &f->disk))
        return 0;
    (void)snprintf(name, sizeof(name), "disk %u", f->disk.disk);
    f->job = pool_job_take(vs->pool, POOL_JOB_REBUILD, f->disk.disk, name);
    if (!f->job)
        return VP_E_NO_MEMORY;
    f->unsaved = 0;
    f->told = false;
    f->rest_until_ns = f->rest_ns = 0;
    position_load(vs);
    return f->limit ? limit_take(f, vs->pool) : 0;
}

/* ---- one step ------------------------------------------------------------------------------ */

struct fill_call {
    struct volume_walk walk;
    const struct pool_disk_filling *disk;
    struct thin_fill_result result;
};

static CO int window_fill(struct thin *t, uint64_t block, uint64_t count, void *arg)
{
    struct fill_call *c = arg;
    return thin_fill(t, block, count, c->disk->io, c->disk->returned, &c->result);
}

/* The one with the lowest number, so that the position says all. */
static struct volume *volume_next(struct volumes *vs)
{
    struct volume *v, *first = NULL;
    list_for_each (v, &vs->all, link)
        if (v->state != VOLUME_DELETING && v->fill == VOLUME_TO_FILL &&
            (!first || v->id < first->id))
            first = v;
    return first;
}

/* 4. Those that could not be filled are tried again. False: there are none. */
static bool try_again(struct volumes *vs)
{
    bool any = false;
    struct volume *v;
    list_for_each (v, &vs->all, link) {
        if (v->state == VOLUME_DELETING || v->fill != VOLUME_NOT_FILLED)
            continue;
        v->fill = VOLUME_TO_FILL;
        v->fill_waits = false;
        any = true;
    }
    return any;
}

static CO int volume_fill(struct volumes *vs, struct fill_call *c)
{
    int rc = volume_walk(&c->walk);
    /* A device that gives nothing at all is not taken for one with bad blocks. */
    *(c->result.filled_bytes ? &c->result.lost_bytes : &c->result.waits_bytes) +=
        c->result.unread_bytes;
    if (c->result.lost_bytes)
        vp_warn(
            "volume %s: no copy has %llu bytes that disk %u of pool %s should get; they lie before "
            "byte %llu",
            volume_full_name(c->walk.v), (unsigned long long)c->result.lost_bytes, c->disk->disk,
            pool_name(vs->pool), (unsigned long long)(c->walk.at * VOLUME_BLOCK));
    return rc;
}

/* The disk or the pool is not what it was: nothing is wrong with the volume. */
static bool ends_all(int rc)
{
    return rc == VP_E_RAID_DISK_OUT || rc == VP_E_POOL_FENCED || rc == VP_E_NO_MEMORY;
}

static void tell_once(struct volumes *vs, const struct volume *v, int rc)
{
    struct volumes_fill *f = &vs->fill;
    if (!f->told)
        vp_warn(
            "volume %s: disk %u of pool %s cannot get all of its data now: %s; it is tried again",
            volume_full_name(v), f->disk.disk, pool_name(vs->pool), vp_err_text(rc));
    f->told = true;
}

/* After a step, which ended with c->walk.at. */
static void step_count(struct volumes *vs, struct volume *v, const struct fill_call *c, int rc)
{
    struct volumes_fill *f = &vs->fill;
    uint64_t lost = min_u64(c->result.lost_bytes, c->walk.bytes);
    v->fill_waits |= c->result.waits_bytes != 0;
    if (rc && !ends_all(rc))
        v->fill = VOLUME_NOT_FILLED;
    else if (c->walk.done)
        v->fill = v->fill_waits ? VOLUME_NOT_FILLED : VOLUME_FILLED;
    if (v->fill == VOLUME_NOT_FILLED)
        tell_once(vs, v, rc ? rc : VP_E_RAID_NO_COPY);
    f->volume = v->fill == VOLUME_TO_FILL ? v->id : v->id + 1;
    f->block = v->fill == VOLUME_TO_FILL ? c->walk.at : 0;
    f->unsaved += c->walk.bytes;
    pool_job_advance(f->job, c->walk.bytes - lost, 0);
    if (lost)
        pool_job_advance(f->job, lost, VP_E_CHECKSUM);
}

/* CO. The next chunks of a volume. */
static CO int step_of_volume(struct volumes *vs, struct volume *v)
{
    struct volumes_fill *f = &vs->fill;
    struct fill_call c = {.disk = &f->disk};
    c.walk =
        (struct volume_walk){.v = v,
                             .window = window_fill,
                             .arg = &c,
                             .at = v->id == f->volume ? f->block : 0,
                             .bytes = min_u64(pool_job_step_units(f->job), vs->config.fill_bytes)};
    volume_pin(v);
    int rc = volume_fill(vs, &c);
    if (goes_on(vs))
        step_count(vs, v, &c, rc);
    volume_unpin(v);
    return ends_all(rc) ? rc : 0;
}

/* Each try may read all of a volume, or copy all metadata. */
static void rest(struct volumes_fill *f)
{
    f->rest_ns = f->rest_ns ? min_u64(2 * f->rest_ns, FILL_REST_MAX_NS) : FILL_REST_NS;
    f->rest_until_ns = reactor_now_ns() + f->rest_ns;
}

/* CO. All data are there; then metadata, and the disk counts. */
static CO int step_last(struct volumes *vs)
{
    struct volumes_fill *f = &vs->fill;
    struct raid_disk *disk = f->disk.io;
    pool_job_ending(f->job);
    int rc = raid_flush(&disk, 1);
    if (rc || !goes_on(vs))
        return rc;
    rc = pool_disk_filled(vs->pool, f->disk.disk);
    if (!rc)
        fill_end(vs, f->job->rc ? POOL_JOB_FAILED : POOL_JOB_DONE);
    else
        rest(f);
    return rc;
}

static CO int fill_step(struct volumes *vs, bool *more)
{
    struct volumes_fill *f = &vs->fill;
    int rc = fill_begin(vs);
    if (rc || !f->job)
        return rc;
    if (reactor_now_ns() < f->rest_until_ns)
        return 0;
    if (f->job->state != POOL_JOB_ENDING && !pool_job_may_go_on(f->job))
        return 0;
    if (!f->job->counted)
        pool_job_count(f->job, bytes_left(vs));
    *more = true;
    struct volume *v = volume_next(vs);
    if (!v && try_again(vs)) {
        rest(f);
        return 0;
    }
    if (!v)
        return step_last(vs);
    rc = step_of_volume(vs, v);
    if (!rc && f->unsaved >= FILL_RECORD_STEPS * vs->config.fill_bytes)
        rc = position_save(vs);
    return rc;
}

/* ---- one at a time -------------------------------------------------------------------------- */

CO int volumes_fill_begin(struct volumes *vs)
{
    if (vs->fill.busy)
        return 0; /* it looks again after its step */
    vs->fill.busy = true;
    int rc = fill_begin(vs);
    vs->fill.busy = false;
    return rc;
}

CO int volumes_fill_step(struct volumes *vs, bool *more)
{
    if (vs->fill.busy)
        return 0;
    vs->fill.busy = true;
    int rc = fill_step(vs, more);
    vs->fill.busy = false;
    return rc;
}

CO int volumes_disk_came(struct volumes *vs, unsigned disk, uint64_t limit)
{
    vs->fill.limit = limit;
    vs->fill.limit_disk = disk;
    co_queue_wake_all(&vs->work);
    return volumes_fill_begin(vs);
}

const struct pool_job *volumes_fill_job(const struct volumes *vs, unsigned disk)
{
    return goes_on(vs) && vs->fill.disk.disk == disk ? vs->fill.job : NULL;
}

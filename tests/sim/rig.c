/* See rig.h. */
#include "tests/sim/rig.h"
#include "tests/sim/hosts.h"

#include "base/bytes.h"
#include "base/log.h"
#include "base/verify.h"
#include "io/reactor.h"
#include "pool/job.h"
#include "tests/lib/pool_audit.h"

#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LABEL_AREA_BYTES = 1 << 20, READ_STEP_BLOCKS = 16, EVENTS_MAX = 4000000 };

void rig_fail(struct rig *r, const char *fmt, ...)
{
    if (r->failed)
        return;
    r->failed = true;
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(r->why, sizeof(r->why), fmt, ap);
    va_end(ap);
}

/* ---- running ------------------------------------------------------------------------------ */

struct run {
    struct rig *r;
    void (*body)(struct rig *r);
};

static void run_body(void *arg)
{
    const struct run *run = arg;
    run->body(run->r);
    run->r->running = false;
}

static bool on_world_event(struct sim_world *w, uint64_t event, void *arg)
{
    struct rig *r = arg;
    (void)w;
    if (r->host)
        host_event(r->host);
    if (r->on_event)
        r->on_event(r, event);
    /* The model counts from 1, so that what a run starts with is before its first event. Several
     * hosts count together. */
    if (r->model)
        r->model->event = r->host ? r->model->event + 1 : event + 2;
    co_queue_wake_all(&r->events);
    if (event == EVENTS_MAX)
        rig_fail(r, "it does not come to an end");
    return event < EVENTS_MAX;
}

/* The devices fail each write that carries a sector of the write that is to fail, and do a part of
 * it. So a write fails too that came after that one, of other sectors of the same block. */
static bool on_device_write(const void *buf, uint64_t len, void *arg)
{
    struct rig *r = arg;
    uint64_t sector;
    uint32_t seq;
    bool fails = false, others = false;
    for (uint64_t at = 0; r->failing_seq && at < len; at += STAMP_SECTOR)
        if (stamp_find((const char *)buf + at, &sector, &seq))
            *(seq == r->failing_seq ? &fails : &others) = true;
    r->fails_along |= fails && others;
    r->write_failed |= fails;
    return fails;
}

/* An error that no planned fault explains fails the run, also when it is only logged. */
static void on_log(enum vp_log_level level, const char *line, void *arg)
{
    struct rig *r = arg;
    if (level == VP_LOG_ERROR && !r->faults_planned)
        rig_fail(r, "logged: %s", line);
}

static void no_log(enum vp_log_level level, const char *line, void *arg)
{
    (void)level, (void)line, (void)arg;
}

struct reactor *rig_begin(struct rig *r)
{
    struct reactor_config config = {
        .sim = r->w,
        .max_coroutines = r->config->coroutines ? r->config->coroutines : 256,
        .buffer_bytes = r->config->buffer_bytes,
    };
    struct reactor *reactor;
    struct vp_error err;
    int rc = reactor_new(&config, &reactor, &err);
    VP_VERIFY(rc, ==, 0);
    sim_world_on_event(r->w, on_world_event, r);
    sim_world_on_write(r->w, on_device_write, r);
    vp_log_set_sink(on_log, r);
    co_group_init(&r->dying);
    list_init(&r->clients);
    co_queue_init(&r->events);
    return reactor;
}

void rig_end(struct rig *r, struct reactor *reactor)
{
    sim_world_on_event(r->w, NULL, NULL);
    sim_world_on_write(r->w, NULL, NULL);
    vp_log_set_sink(no_log, NULL);
    rig_abandon(r); /* a power cut: whatever coroutines are left never run again */
    memset(r->open, 0, sizeof(r->open));
    reactor_free(reactor);
}

bool rig_run(struct rig *r, void (*body)(struct rig *r))
{
    struct run run = {r, body};
    struct reactor *reactor = rig_begin(r);
    r->running = true;
    if (r->model)
        r->model->event = 1;
    reactor_run(reactor, run_body, &run);
    if (r->running)
        rig_fail(r, "stuck: something waits for ever");
    rig_end(r, reactor);
    return !r->failed;
}

/* ---- reading ------------------------------------------------------------------------------ */

static void *aligned(size_t len)
{
    void *p = aligned_alloc(STAMP_BLOCK, align_up(len, STAMP_BLOCK));
    VP_VERIFY_TRUE(p != NULL);
    return p;
}

int rig_read_blocks(struct rig *r, struct rig_open *o, uint32_t uid, uint64_t block, uint64_t count,
                    struct model_sectors *out)
{
    unsigned char *buf = aligned(count * STAMP_BLOCK);
    struct rig_client c;
    rig_client_begin(r, &c, o);
    int rc = front_admit(&c.client, count * STAMP_BLOCK);
    if (!rc)
        rc = front_read(&c.client, block * STAMP_BLOCK, count * STAMP_BLOCK, buf);
    rig_client_end(&c);
    if (!rc && r->host)
        host_served(r->host);
    for (uint64_t i = 0; !rc && i < count * STAMP_BLOCK_SECTORS; i++) {
        const unsigned char *at = buf + i * STAMP_SECTOR;
        uint64_t sector = block * STAMP_BLOCK_SECTORS + i;
        uint32_t seq = stamp_read(r->model->seed, uid, sector, at);
        out[i / STAMP_BLOCK_SECTORS].seq[i % STAMP_BLOCK_SECTORS] = seq;
        if (seq == STAMP_GARBAGE) {
            char what[128];
            stamp_describe(at, what, sizeof(what));
            rig_fail(r, "%s sector %" PRIu64 " shows %s", o->name, sector, what);
        }
    }
    free(buf);
    return rc;
}

static int op_read(struct rig *r, const struct op *op, struct rig_open *o, struct model_volume *mv)
{
    struct model_sectors got[READ_STEP_BLOCKS];
    bool whole = r->config->atomic_bytes >= STAMP_BLOCK;
    uint64_t block = op->at / STAMP_BLOCK_SECTORS;
    uint64_t end = div_up(op->at + op->count, STAMP_BLOCK_SECTORS);
    int rc = 0;
    while (!rc && !r->failed && block < end) {
        uint64_t n = min_u64(READ_STEP_BLOCKS, end - block);
        struct model_time called = {++r->model->tick, r->model->event};
        rc = rig_read_blocks(r, o, mv->uid, block, n, got);
        struct model_view view = r->forgets ? model_view_crash(mv, r->model->event, whole)
                                            : model_view_live(called, whole);
        for (uint64_t i = 0; !rc && !r->failed && i < n; i++) {
            char why[800];
            if (!model_permits(r->model, mv, block + i, &view, &got[i], why, sizeof(why)))
                rig_fail(r, "live: %s", why);
        }
        block += n;
    }
    return rc;
}

/* ---- changing ----------------------------------------------------------------------------- */

static enum model_result result_of(int rc, const struct op *op)
{
    if (!rc)
        return MODEL_DONE;
    if (rc == VP_E_RANGE && op->kind == OP_WRITE)
        return MODEL_REFUSED; /* looked at before anything else of its only window */
    /* Within one chunk, out of space means that nothing happened. */
    bool one_block = op->at / STAMP_BLOCK_SECTORS == (op->at + op->count - 1) / STAMP_BLOCK_SECTORS;
    return rc == VP_E_NO_SPACE && one_block ? MODEL_REFUSED : MODEL_FAILED;
}

/* A write, zero or discard. It outlives its operation when its client dies meanwhile. */
struct change {
    struct rig *r;
    struct op op;
    struct rig_client client;
    void *buf; /* of a write; zeros written as data */
    bool done, orphan;
    int rc;
};

static struct change *change_new(struct rig *r, const struct op *op, const struct rig_open *o)
{
    struct change *c = calloc(1, sizeof(*c));
    VP_VERIFY_TRUE(c != NULL);
    *c = (struct change){.r = r, .op = *op};
    rig_client_begin(r, &c->client, o);
    if (op->kind == OP_WRITE || (op->kind == OP_ZERO && op->flags & OP_AS_DATA)) {
        c->buf = aligned(op->count * STAMP_SECTOR);
        memset(c->buf, 0, op->count * STAMP_SECTOR);
    }
    return c;
}

static void change_free(struct change *c)
{
    rig_client_end(&c->client);
    free(c->buf);
    free(c);
}

static struct model_write change_call(struct change *c, struct model_volume *mv)
{
    const struct op *op = &c->op;
    struct model *m = c->r->model;
    bool fua = op->flags & OP_FUA;
    if (op->kind == OP_WRITE) {
        struct model_write w = model_write_call(m, mv, op->at, op->count, false, fua || mv->sync);
        for (uint64_t i = 0; i < op->count; i++)
            stamp_fill(m->seed, mv->uid, op->at + i, w.seq,
                       (unsigned char *)c->buf + i * STAMP_SECTOR);
        return w;
    }
    uint64_t from = op->at, end = op->at + op->count;
    if (op->kind == OP_DISCARD) { /* whole blocks inside the range */
        from = align_up(from, STAMP_BLOCK_SECTORS);
        end = max_u64(from, align_down(end, STAMP_BLOCK_SECTORS));
    }
    return model_write_call(m, mv, from, end - from, true,
                            fua || (mv->sync && op->flags & OP_AS_DATA));
}

static CO int change_run(struct change *c)
{
    const struct op *op = &c->op;
    unsigned flags = (op->flags & OP_FUA ? (unsigned)VOLUME_FUA : 0U) |
                     (op->flags & OP_NO_HOLE ? (unsigned)VOLUME_NO_HOLE : 0U);
    uint64_t offset = op->at * STAMP_SECTOR, len = op->count * STAMP_SECTOR;
    int rc = front_admit(&c->client.client, c->buf ? len : 0);
    if (rc)
        return rc;
    if (c->buf)
        return front_write(&c->client.client, offset, len, c->buf, flags);
    return op->kind == OP_DISCARD ? front_discard(&c->client.client, offset, len, flags)
                                  : front_zero(&c->client.client, offset, len, flags);
}

static void change_main(void *arg)
{
    struct change *c = arg;
    struct rig *r = c->r;
    c->rc = change_run(c);
    c->done = true;
    if (!c->rc && r->host)
        host_served(r->host);
    if (c->orphan) {
        if (c->rc && c->rc != VP_E_CANCELLED && c->rc != VP_E_RANGE && c->rc != VP_E_NO_SPACE &&
            !r->errors_allowed && !r->failing_pools &&
            !(c->rc == VP_E_RAID_NO_COPY && r->fails_along))
            rig_fail(r, "of a client that died: unexpected %s", vp_err_name(c->rc));
        change_free(c);
    }
    co_group_leave(&r->dying, 0);
}

/* The client of the change dies after a moment. False when the change had ended by then, or has not
 * begun because no coroutine was left for it. */
static CO bool change_dies(struct change *c)
{
    struct rig *r = c->r;
    co_group_enter(&r->dying);
    if (co_spawn(change_main, c, "client that dies")) {
        co_group_leave(&r->dying, 0);
        return false;
    }
    uint64_t lives_ns = sim_below(r->w, 2 * r->config->latency_max_ns + 2);
    vp_ignore(co_sleep_ns(lives_ns), "nobody cancels clients");
    if (c->done)
        return false;
    front_client_go(&c->client.client);
    c->orphan = true;
    return true;
}

static int op_change(struct rig *r, const struct op *op, struct rig_open *o,
                     struct model_volume *mv)
{
    struct change *c = change_new(r, op, o);
    struct model_write w = change_call(c, mv);
    bool fails = op->flags & OP_FAILS && !r->failing_seq;
    if (fails)
        r->failing_seq = w.seq;
    bool died = op->flags & OP_DIES && change_dies(c);
    if (!died && !c->done) {
        c->rc = change_run(c);
        if (!c->rc && r->host)
            host_served(r->host);
    }
    if (fails)
        r->failing_seq = 0;
    int rc = died ? 0 : c->rc;
    model_write_answer(r->model, &w, died ? MODEL_GONE : result_of(rc, op));
    if (!died)
        change_free(c);
    return rc;
}

static int op_flush(struct rig *r, struct rig_open *o, struct model_volume *mv)
{
    struct rig_client c;
    rig_client_begin(r, &c, o);
    unsigned flush = model_flush_call(r->model, mv);
    int rc = front_admit(&c.client, 0);
    if (!rc)
        rc = front_flush(&c.client);
    rig_client_end(&c);
    model_flush_answer(r->model, mv, flush, rc != 0);
    return rc;
}

static int op_fill(struct rig *r, const struct op *op, struct rig_open *o, struct model_volume *mv)
{
    struct op one = {.kind = OP_WRITE, .at = op->at, .count = STAMP_BLOCK_SECTORS};
    uint64_t end = mv->blocks_max * STAMP_BLOCK_SECTORS;
    int rc = 0;
    for (r->fills = 0; !rc && one.at < end; one.at += op->count) {
        rc = op_change(r, &one, o, mv);
        r->fills += !rc;
    }
    return rc == VP_E_NO_SPACE ? 0 : rc;
}

static int op_create(struct rig *r, const struct op *op)
{
    struct volume_options o = {
        .size_bytes = op->count * STAMP_SECTOR,
        .full_policy = op->flags & OP_PAUSE ? VOLUME_FULL_PAUSE : VOLUME_FULL_ENOSPC,
        .sync_always = op->flags & OP_SYNC,
        .zero_detect = op->flags & OP_ZERO_DETECT,
        .has_profile = op->flags & OP_WIDER,
        .profile = {RAID_MIRROR, 1, 3},
    };
    struct model_volume *mv = model_volume_add(
        r->model, op->volume, op->count / STAMP_BLOCK_SECTORS, op->at / STAMP_BLOCK_SECTORS);
    mv->sync = o.sync_always;
    mv->place[0].pool = op->flags & OP_SECOND ? 1 : 0;
    struct vp_error err = {0};
    int rc = volume_create(r->vs[mv->place[0].pool], op->volume, &o, &err);
    model_answer(r->model, &mv->created, rc != 0, true);
    return rc;
}

static int op_delete(struct rig *r, const struct op *op, struct model_volume *mv)
{
    struct vp_error err = {0};
    rig_close_volume(r, op->volume);
    model_call(r->model, &mv->deleted);
    int rc = volume_delete(r->vs[model_place(mv)], op->volume, &err);
    if (rc == VP_E_VOLUME_MOVING) /* refused */
        mv->deleted.called = mv->deleted.answered;
    model_answer(r->model, &mv->deleted, rc != 0, true);
    return rc;
}

static int op_resize(struct rig *r, const struct op *op, struct model_volume *mv)
{
    struct vp_error err = {0};
    uint64_t blocks = op->count / STAMP_BLOCK_SECTORS;
    unsigned size = model_size_call(r->model, mv, blocks);
    /* What is beyond the new end must read as zeros if the volume grows again. */
    struct model_write cut = model_write_call(
        r->model, mv, op->count, (mv->blocks_max - blocks) * STAMP_BLOCK_SECTORS, true, true);
    r->resizes++;
    unsigned pool = model_place(mv);
    int rc = volume_resize(r->vs[pool], op->volume, op->count * STAMP_SECTOR, true, &err);
    r->resizes++;
    model_answer(r->model, &mv->size[size].call, rc != 0, true);
    if (rc == VP_E_VOLUME_MOVING || (rc == VP_E_NOT_FOUND && rig_has(r, !pool, op->volume))) {
        /* refused, or it has left meanwhile */
        mv->size_count = size;
        model_write_answer(r->model, &cut, MODEL_REFUSED);
        return 0;
    }
    model_write_answer(r->model, &cut, rc ? MODEL_FAILED : MODEL_DONE);
    if (!rc) { /* nor does what was written meanwhile come back */
        cut = model_write_call(r->model, mv, op->count,
                               (mv->blocks_max - blocks) * STAMP_BLOCK_SECTORS, true, true);
        model_write_answer(r->model, &cut, MODEL_DONE);
    }
    return rc;
}

static int op_background(struct rig *r)
{
    int rc = 0;
    for (unsigned p = 0; !rc && p < rig_pools(r->config); p++)
        for (bool more = true; !rc && more;)
            rc = volumes_background_step(r->vs[p], &more);
    return rc;
}

static int op_checkpoint(struct rig *r)
{
    int rc = 0;
    for (unsigned p = 0; !rc && p < rig_pools(r->config); p++)
        rc = pool_checkpoint(volumes_pool(r->vs[p]));
    return rc;
}

static int note_job(struct pool_job *j, void *arg)
{
    uint32_t *id = arg;
    if (j->kind == POOL_JOB_DELETE && !pool_job_has_ended(j) && !*id)
        *id = j->id;
    return 0;
}

/* One deletion at a time, in the first pool: scripts have no more. */
static int op_jobs(struct rig *r, const struct op *op)
{
    struct vp_error err;
    struct pool *p = volumes_pool(r->vs[0]);
    struct model_call *call = op->at ? &r->model->pause : &r->model->resume;
    uint32_t id = 0;
    vp_ignore(pool_job_each(p, note_job, &id), "note_job never fails");
    model_call(r->model, call);
    int rc = op->at ? pool_job_pause(p, id, &err) : pool_job_resume(p, id, &err);
    model_answer(r->model, call, rc != 0, true);
    return rc;
}

static CO int op_scrub(struct rig *r)
{
    struct vp_error err = {0};
    int rc = volumes_scrub_start(r->vs[0], 0, &err);
    return rc == VP_E_BUSY ? 0 : rc;
}

/* Whether it has arrived is known again. */
static void note_place(struct rig *r, struct model_volume *mv)
{
    unsigned last = mv->place_count - 1;
    const struct model_place *p = &mv->place[last];
    if (p->call.answered.event == MODEL_NEVER)
        model_move_answer(r->model, mv, last, rig_has(r, p->pool, mv->name));
}

static void faults_end(struct rig *r)
{
    for (unsigned i = 0; r->failing_pools && i < r->config->disks; i++)
        sim_disk_heal(rig_disk(r, i));
}

static int op_reimport(struct rig *r)
{
    struct vp_error err = {0};
    int rc = rig_close_pools(r);
    if (rc && !r->failing_pools)
        return rc;
    r->forgets |= r->failing_pools != 0;
    faults_end(r);
    rc = rig_try_import(r, &err);
    if (rc && r->failing_pools) { /* the fault has begun meanwhile */
        faults_end(r);
        rc = rig_try_import(r, &err);
    }
    if (rc)
        rig_fail(r, "not imported: %s: %s", vp_err_name(rc), err.text);
    for (unsigned i = 0; !rc && i < r->model->volume_count; i++)
        note_place(r, &r->model->volume[i]);
    return rc;
}

/* Flips a bit in each sector of some blocks; the labels and roots at the disk's end stay. */
static int op_rot(struct rig *r, const struct op *op)
{
    struct sim_disk *d = rig_disk(r, (unsigned)op->at);
    uint64_t end = r->config->disk_bytes - LABEL_AREA_BYTES;
    for (uint64_t page = 0; page < end; page += STAMP_BLOCK) {
        if (sim_below(r->w, op->count))
            continue;
        for (uint64_t sector = 0; sector < STAMP_BLOCK; sector += STAMP_SECTOR)
            sim_disk_flip_bit(d, page + sector + sim_below(r->w, STAMP_SECTOR),
                              (unsigned)sim_below(r->w, 8));
    }
    return 0;
}

/* Nobody gives these pages back: from now on the pool's metadata are at their limit. */
static int op_hog(struct rig *r, const struct op *op)
{
    struct pool *pool = volumes_pool(r->vs[op->flags & OP_SECOND ? 1 : 0]);
    uint64_t page;
    int rc = 0;
    while (!rc && pool_meta_has_room(pool, 1))
        rc = pool_page_alloc(pool, 1, &page);
    return rc;
}

/* Each stored block of a volume becomes unreadable on all disks but one. Which disk keeps it goes
 * round with the number of the block. So the spare copies of a mirror are lost, and nothing
 * else. */
static int op_unreadable(struct rig *r)
{
    uint64_t end = r->config->disk_bytes - LABEL_AREA_BYTES, sector;
    uint32_t seq;
    unsigned char page[STAMP_BLOCK];
    unsigned second = r->config->second_disks, first = r->config->disks - second;
    for (unsigned i = 0; i < r->config->disks; i++) {
        struct sim_disk *d = rig_disk(r, i);
        unsigned keeper = i < first ? i : i - first, keepers = i < first ? first : second;
        for (uint64_t at = 0; at < end; at += STAMP_BLOCK) {
            sim_disk_peek(d, at, page, sizeof(page));
            if (stamp_find(page, &sector, &seq) && sector / STAMP_BLOCK_SECTORS % keepers != keeper)
                sim_disk_set_unreadable(d, at);
        }
    }
    return 0;
}

static int op_on_open(struct rig *r, const struct op *op, struct rig_open *o,
                      struct model_volume *mv)
{
    switch (op->kind) {
    case OP_WRITE:
    case OP_ZERO:
    case OP_DISCARD:
        return op_change(r, op, o, mv);
    case OP_READ:
        return op_read(r, op, o, mv);
    case OP_FLUSH:
        return op_flush(r, o, mv);
    default:
        return op_fill(r, op, o, mv);
    }
}

static int op_on_volume(struct rig *r, const struct op *op, struct model_volume *mv)
{
    struct rig_open *o = rig_volume(r, op->volume);
    if (!o)
        return r->failed ? VP_E_IO : VP_E_NOT_FOUND;
    o->ops++;
    int rc = op_on_open(r, op, o, mv);
    o->ops--;
    return rc;
}

static int op_any(struct rig *r, const struct op *op)
{
    struct model_volume *mv = op->volume ? model_volume_find(r->model, op->volume) : NULL;
    switch (op->kind) {
    case OP_CREATE:
        return op_create(r, op);
    case OP_DELETE:
        return op_delete(r, op, mv);
    case OP_RESIZE:
        return op_resize(r, op, mv);
    case OP_CHECKPOINT:
        return op_checkpoint(r);
    case OP_BACKGROUND:
        return op_background(r);
    case OP_REIMPORT:
        return op_reimport(r);
    case OP_JOBS:
        return op_jobs(r, op);
    case OP_ROT:
        return op_rot(r, op);
    case OP_HOG:
        return op_hog(r, op);
    case OP_UNREADABLE:
        return op_unreadable(r);
    case OP_MIGRATE:
        return r->host ? host_migrate(r->host, op) : rig_migrate(r, op, mv);
    case OP_CANCEL:
        return rig_cancel(r, op);
    case OP_BUSY:
        return rig_busy(r, op);
    case OP_STALL:
        return rig_stall(r, op);
    case OP_LEAVE:
        return rig_dies(r, op);
    case OP_HANG:
        return rig_hangs(r, op);
    case OP_LATE:
        return rig_await_late(r);
    case OP_RETURN:
        return rig_return(r, op);
    case OP_FILLED:
        return rig_filled(r);
    case OP_ADD:
        return rig_add(r);
    case OP_REMOVE:
        return rig_remove(r, op);
    case OP_SCRUB:
        return op_scrub(r);
    default:
        return op_on_volume(r, op, mv);
    }
}

/* At home, between two turns: what a pool keeps about its groups agrees with them. */
static void rig_audit(struct rig *r)
{
    for (unsigned p = 0; p < rig_pools(r->config); p++) {
        const char *wrong = r->vs[p] ? pool_audit(volumes_pool(r->vs[p])) : NULL;
        if (wrong)
            rig_fail(r, "the pool's figures differ from its groups: %s", wrong);
    }
}

/* The pools whose faults a client of the operation may notice. A move brings its clients those of
 * the new pool, from the switch on. */
static unsigned pools_of(struct rig *r, const struct op *op)
{
    const struct rig_open *o =
        op->volume && op->kind < OP_CREATE ? rig_find_open(r, op->volume) : NULL;
    return o ? 1U << o->pool : ~0U;
}

static bool is_expected(struct rig *r, const struct op *op, int rc, unsigned pools)
{
    return rc == VP_E_NO_SPACE || r->errors_allowed ||
           (rc == VP_E_DISK_TOO_FEW && op->flags & OP_WIDER && r->faults_planned) ||
           op->flags & OP_FAILS || r->failing_pools & pools ||
           (op->kind == OP_BACKGROUND && r->bad &&
            (rc == VP_E_RAID_DISK_OUT || rc == VP_E_AGAIN)) ||
           (rc == VP_E_RAID_NO_COPY && r->fails_along) || (rc == VP_E_CANCELLED && r->withdrawn) ||
           (r->host && host_expects(r->host, op, rc)) ||
           (op->kind == OP_MIGRATE && r->write_failed) ||
           (rc == VP_E_IO_TOO_MANY_COROUTINES && op->kind == OP_MIGRATE && r->config->coroutines);
}

int rig_op(struct rig *r, const struct op *op)
{
    static const char *const names[] = {[OP_WRITE] = "write",
                                        [OP_ZERO] = "zero",
                                        [OP_DISCARD] = "discard",
                                        [OP_READ] = "read",
                                        [OP_FLUSH] = "flush",
                                        [OP_BUSY] = "busy",
                                        [OP_CREATE] = "create",
                                        [OP_DELETE] = "delete",
                                        [OP_RESIZE] = "resize",
                                        [OP_CHECKPOINT] = "checkpoint",
                                        [OP_BACKGROUND] = "background",
                                        [OP_FILL] = "fill",
                                        [OP_REIMPORT] = "reimport",
                                        [OP_REPEAT] = "repeat",
                                        [OP_ROT] = "rot",
                                        [OP_HOG] = "hog",
                                        [OP_JOBS] = "jobs",
                                        [OP_UNREADABLE] = "unreadable",
                                        [OP_MIGRATE] = "migrate",
                                        [OP_CANCEL] = "cancel",
                                        [OP_STALL] = "stall",
                                        [OP_LEAVE] = "leave",
                                        [OP_HANG] = "hang",
                                        [OP_LATE] = "late",
                                        [OP_RETURN] = "return",
                                        [OP_FILLED] = "filling",
                                        [OP_ADD] = "add",
                                        [OP_REMOVE] = "remove",
                                        [OP_SCRUB] = "scrub"};
    if (r->failed)
        return VP_E_CANCELLED;
    unsigned resizes = r->resizes, pools = pools_of(r, op);
    int rc = op_any(r, op);
    pools |= pools_of(r, op);
    rig_audit(r);
    /* Odd: a resize is under way. */
    if (rc == VP_E_RANGE && (r->resizes != resizes || resizes % 2))
        return rc;
    if (rc && !is_expected(r, op, rc, pools))
        rig_fail(r, "%s of %s at %" PRIu64 "+%" PRIu64 ": unexpected %s", names[op->kind],
                 op->volume ? op->volume : "the pool", op->at, op->count, vp_err_name(rc));
    return rc;
}

/* ---- scripts ------------------------------------------------------------------------------ */

struct part {
    struct rig *r;
    const struct op *op;
    struct co_group *group;
};

static void run_part(void *arg)
{
    struct part *p = arg;
    int rc = rig_op(p->r, p->op);
    vp_ignore(rc, "rig_op has reported what was not expected");
    co_group_leave(p->group, 0);
}

/* Runs `count` operations at the same time. */
static void run_together(struct rig *r, const struct op *ops, unsigned count)
{
    enum { TOGETHER_MAX = 16 };
    struct part part[TOGETHER_MAX];
    struct co_group group;
    VP_VERIFY(count, <=, (unsigned)TOGETHER_MAX);
    for (unsigned i = 0; i < count; i++) /* opening waits: not in parallel */
        if (ops[i].volume && ops[i].kind < OP_CREATE)
            (void)rig_volume(r, ops[i].volume);
    co_group_init(&group);
    for (unsigned i = 0; i < count; i++) {
        part[i] = (struct part){r, &ops[i], &group};
        co_group_enter(&group);
        int rc = co_spawn(run_part, &part[i], "client");
        VP_VERIFY(rc, ==, 0);
    }
    int rc = co_group_wait(&group);
    vp_ignore(rc, "rig_op has reported what was not expected");
}

static void run_once(struct rig *r, const struct op *ops, const struct op *end)
{
    while (ops < end && !r->failed) {
        unsigned together = 1;
        while (ops[together - 1].flags & OP_WITH_NEXT)
            together++;
        if (together > 1) {
            run_together(r, ops, together);
        } else if (ops->kind == OP_REPEAT) {
            for (uint64_t i = 0; i < ops->count; i++)
                run_once(r, ops - ops->at, ops);
        } else {
            int rc = rig_op(r, ops);
            vp_ignore(rc, "rig_op has reported what was not expected");
        }
        ops += together;
    }
}

void rig_ops(struct rig *r, const struct op *ops)
{
    const struct op *end = ops;
    while (end->kind != OP_END)
        end++;
    run_once(r, ops, end);
}

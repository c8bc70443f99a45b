/* See rig.h. */
#include "tests/sim/rig.h"

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

static const char *const disk_names[RIG_DISKS_MAX] = {"d0", "d1", "d2", "d3", "d4", "d5"};

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

struct sim_world *rig_world_new(const struct rig_config *config, uint64_t seed)
{
    struct sim_world *w = sim_world_new(seed);
    for (unsigned i = 0; i < config->disks; i++) {
        struct sim_disk_config disk = {
            .name = disk_names[i],
            .size_bytes = config->disk_bytes,
            .sector_bytes = config->sector_bytes,
            .atomic_bytes = config->atomic_bytes,
            .write_cache = config->write_cache,
            .can_discard = config->can_discard,
            .latency_min_ns = config->latency_min_ns,
            .latency_max_ns = config->latency_max_ns,
        };
        (void)sim_disk_add(w, &disk);
    }
    return w;
}

/* ---- the pool ----------------------------------------------------------------------------- */

static struct volumes_config volumes_config(const struct rig *r, struct reactor **self)
{
    *self = reactor_self();
    return (struct volumes_config){
        .reactors = self,
        .reactor_count = 1,
        .metadata_bytes = r->config->metadata_bytes ? r->config->metadata_bytes : 4 << 20,
        .commit_interval_ms = UINT_MAX,
    };
}

bool rig_create_pool(struct rig *r)
{
    struct pool_create_options o = {
        .name = "sim",
        .geometry = {r->config->chunk_bytes, r->config->extent_bytes, r->config->log_segment_bytes},
        .force = true,
    };
    char property[RIG_PROPERTY_MAX + sizeof("property=")] = "property=";
    VP_VERIFY(r->config->property, <=, (unsigned)RIG_PROPERTY_MAX);
    memset(property + strlen(property), '.', r->config->property);
    const char *const properties[] = {property};
    if (r->config->property) {
        o.properties = properties;
        o.property_count = 1;
    }
    if (!raid_profile_parse(r->config->profile, &o.profile)) {
        rig_fail(r, "profile %s", r->config->profile);
        return false;
    }
    struct reactor *self;
    struct volumes_config config = volumes_config(r, &self);
    struct vp_error err = {0};
    if (volumes_create(&o, disk_names, r->config->disks, &config, &r->vs, &err))
        rig_fail(r, "pool not created: %s", err.text);
    return !r->failed;
}

int rig_try_import(struct rig *r, struct vp_error *err)
{
    struct reactor *self;
    struct volumes_config config = volumes_config(r, &self);
    const char *there[RIG_DISKS_MAX];
    unsigned count = 0;
    for (unsigned i = 0; i < r->config->disks; i++)
        if (!sim_disk_is_dead(sim_disk_find(r->w, disk_names[i])))
            there[count++] = disk_names[i];
    int rc = volumes_import(there, count, &config, &r->vs, err);
    if (rc)
        r->vs = NULL;
    return rc;
}

bool rig_import(struct rig *r)
{
    struct vp_error err = {0};
    int rc = rig_try_import(r, &err);
    if (rc)
        rig_fail(r, "not imported: %s: %s", vp_err_name(rc), err.text);
    return !r->failed;
}

struct volume *rig_volume(struct rig *r, const char *name)
{
    struct rig_open *slot = NULL;
    if (!r->vs)
        return NULL; /* the pool failed to come back */
    for (unsigned i = 0; i < RIG_OPEN_MAX; i++) {
        if (r->open[i].v && strcmp(r->open[i].name, name) == 0)
            return r->open[i].v;
        if (!r->open[i].v && !slot)
            slot = &r->open[i];
    }
    VP_VERIFY_TRUE(slot != NULL);
    struct vp_error err = {0};
    struct volume *v;
    int rc = volume_open(r->vs, name, false, &v, &err);
    if (rc) {
        if (rc != VP_E_NOT_FOUND && !r->errors_allowed)
            rig_fail(r, "volume %s not opened: %s: %s", name, vp_err_name(rc), err.text);
        return NULL;
    }
    (void)snprintf(slot->name, sizeof(slot->name), "%s", name);
    slot->v = v;
    return v;
}

void rig_close_volume(struct rig *r, const char *name)
{
    vp_ignore(co_group_wait(&r->dying), "they report to the rig");
    for (unsigned i = 0; i < RIG_OPEN_MAX; i++)
        if (r->open[i].v && strcmp(r->open[i].name, name) == 0) {
            volume_close(r->open[i].v);
            r->open[i].v = NULL;
        }
}

static void close_volumes(struct rig *r)
{
    for (unsigned i = 0; i < RIG_OPEN_MAX; i++)
        if (r->open[i].v)
            rig_close_volume(r, r->open[i].name);
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
    if (r->on_event)
        r->on_event(r, event);
    /* The model counts from 1, so that what a run starts with is before its first event. */
    if (r->model)
        r->model->event = event + 2;
    if (event == EVENTS_MAX)
        rig_fail(r, "it does not come to an end");
    return event < EVENTS_MAX;
}

/* The devices fail each write that carries a sector of the write that is to fail, and do a part of
 * it. */
static bool on_device_write(const void *buf, uint64_t len, void *arg)
{
    const struct rig *r = arg;
    uint64_t sector;
    uint32_t seq;
    for (uint64_t at = 0; r->failing_seq && at < len; at += STAMP_SECTOR)
        if (stamp_find((const char *)buf + at, &sector, &seq) && seq == r->failing_seq)
            return true;
    return false;
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

bool rig_run(struct rig *r, void (*body)(struct rig *r))
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
    struct run run = {r, body};
    sim_world_on_event(r->w, on_world_event, r);
    sim_world_on_write(r->w, on_device_write, r);
    vp_log_set_sink(on_log, r);
    co_group_init(&r->dying);
    r->running = true;
    if (r->model)
        r->model->event = 1;
    reactor_run(reactor, run_body, &run);
    if (r->running)
        rig_fail(r, "stuck: something waits for ever");
    sim_world_on_event(r->w, NULL, NULL);
    sim_world_on_write(r->w, NULL, NULL);
    vp_log_set_sink(no_log, NULL);
    if (r->vs) /* a power cut: whatever coroutines are left never run again */
        volumes_abandon(r->vs);
    r->vs = NULL;
    memset(r->open, 0, sizeof(r->open));
    reactor_free(reactor);
    return !r->failed;
}

/* ---- reading ------------------------------------------------------------------------------ */

static void *aligned(size_t len)
{
    void *p = aligned_alloc(STAMP_BLOCK, align_up(len, STAMP_BLOCK));
    VP_VERIFY_TRUE(p != NULL);
    return p;
}

int rig_read_blocks(struct rig *r, struct volume *v, uint32_t uid, uint64_t block, uint64_t count,
                    struct model_sectors *out)
{
    unsigned char *buf = aligned(count * STAMP_BLOCK);
    int rc = volume_read(v, block * STAMP_BLOCK, count * STAMP_BLOCK, buf);
    for (uint64_t i = 0; !rc && i < count * STAMP_BLOCK_SECTORS; i++) {
        const unsigned char *at = buf + i * STAMP_SECTOR;
        uint64_t sector = block * STAMP_BLOCK_SECTORS + i;
        uint32_t seq = stamp_read(r->model->seed, uid, sector, at);
        out[i / STAMP_BLOCK_SECTORS].seq[i % STAMP_BLOCK_SECTORS] = seq;
        if (seq == STAMP_GARBAGE) {
            char what[128];
            stamp_describe(at, what, sizeof(what));
            rig_fail(r, "%s sector %" PRIu64 " shows %s", volume_full_name(v), sector, what);
        }
    }
    free(buf);
    return rc;
}

static int op_read(struct rig *r, const struct op *op, struct volume *v, struct model_volume *mv)
{
    struct model_sectors got[READ_STEP_BLOCKS];
    bool whole = r->config->atomic_bytes >= STAMP_BLOCK;
    uint64_t block = op->at / STAMP_BLOCK_SECTORS;
    uint64_t end = div_up(op->at + op->count, STAMP_BLOCK_SECTORS);
    int rc = 0;
    while (!rc && !r->failed && block < end) {
        uint64_t n = min_u64(READ_STEP_BLOCKS, end - block);
        struct model_time called = {++r->model->tick, r->model->event};
        rc = rig_read_blocks(r, v, mv->uid, block, n, got);
        struct model_view view = model_view_live(called, whole);
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
    struct front_client client;
    void *buf; /* of a write; zeros written as data */
    bool done, orphan;
    int rc;
};

static struct change *change_new(struct rig *r, const struct op *op, struct volume *v)
{
    struct change *c = calloc(1, sizeof(*c));
    VP_VERIFY_TRUE(c != NULL);
    *c = (struct change){.r = r, .op = *op};
    front_client_init(&c->client, volume_front(v));
    if (op->kind == OP_WRITE || (op->kind == OP_ZERO && op->flags & OP_AS_DATA)) {
        c->buf = aligned(op->count * STAMP_SECTOR);
        memset(c->buf, 0, op->count * STAMP_SECTOR);
    }
    return c;
}

static void change_free(struct change *c)
{
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
    if (c->buf)
        return front_write(&c->client, offset, len, c->buf, flags);
    return op->kind == OP_DISCARD ? front_discard(&c->client, offset, len, flags)
                                  : front_zero(&c->client, offset, len, flags);
}

static void change_main(void *arg)
{
    struct change *c = arg;
    struct rig *r = c->r;
    c->rc = change_run(c);
    c->done = true;
    if (c->orphan) {
        if (c->rc && c->rc != VP_E_CANCELLED && c->rc != VP_E_RANGE && c->rc != VP_E_NO_SPACE &&
            !r->errors_allowed)
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
    front_client_go(&c->client);
    c->orphan = true;
    return true;
}

static int op_change(struct rig *r, const struct op *op, struct volume *v, struct model_volume *mv)
{
    struct change *c = change_new(r, op, v);
    struct model_write w = change_call(c, mv);
    bool fails = op->flags & OP_FAILS && !r->failing_seq;
    if (fails)
        r->failing_seq = w.seq;
    bool died = op->flags & OP_DIES && change_dies(c);
    if (!died && !c->done)
        c->rc = change_run(c);
    if (fails)
        r->failing_seq = 0;
    int rc = died ? 0 : c->rc;
    model_write_answer(r->model, &w, died ? MODEL_GONE : result_of(rc, op));
    if (!died)
        change_free(c);
    return rc;
}

static int op_flush(struct rig *r, struct volume *v, struct model_volume *mv)
{
    unsigned flush = model_flush_call(r->model, mv);
    int rc = volume_flush(v);
    model_flush_answer(r->model, mv, flush, rc != 0);
    return rc;
}

static int op_fill(struct rig *r, const struct op *op, struct volume *v, struct model_volume *mv)
{
    struct op one = {.kind = OP_WRITE, .at = op->at, .count = STAMP_BLOCK_SECTORS};
    uint64_t end = mv->blocks_max * STAMP_BLOCK_SECTORS;
    int rc = 0;
    for (r->fills = 0; !rc && one.at < end; one.at += op->count) {
        rc = op_change(r, &one, v, mv);
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
    };
    struct model_volume *mv = model_volume_add(
        r->model, op->volume, op->count / STAMP_BLOCK_SECTORS, op->at / STAMP_BLOCK_SECTORS);
    mv->sync = o.sync_always;
    struct vp_error err = {0};
    int rc = volume_create(r->vs, op->volume, &o, &err);
    model_answer(r->model, &mv->created, rc != 0, true);
    return rc;
}

static int op_delete(struct rig *r, const struct op *op, struct model_volume *mv)
{
    struct vp_error err = {0};
    rig_close_volume(r, op->volume);
    model_call(r->model, &mv->deleted);
    int rc = volume_delete(r->vs, op->volume, &err);
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
    int rc = volume_resize(r->vs, op->volume, op->count * STAMP_SECTOR, true, &err);
    r->resizes++;
    model_answer(r->model, &mv->size[size].call, rc != 0, true);
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
    bool more = true;
    int rc = 0;
    while (!rc && more)
        rc = volumes_background_step(r->vs, &more);
    return rc;
}

static int note_job(struct pool_job *j, void *arg)
{
    uint32_t *id = arg;
    if (j->kind == POOL_JOB_DELETE && !pool_job_has_ended(j) && !*id)
        *id = j->id;
    return 0;
}

/* One deletion at a time: scripts have no more. */
static int op_jobs(struct rig *r, const struct op *op)
{
    struct vp_error err;
    struct pool *p = volumes_pool(r->vs);
    struct model_call *call = op->at ? &r->model->pause : &r->model->resume;
    uint32_t id = 0;
    vp_ignore(pool_job_each(p, note_job, &id), "note_job never fails");
    model_call(r->model, call);
    int rc = op->at ? pool_job_pause(p, id, &err) : pool_job_resume(p, id, &err);
    model_answer(r->model, call, rc != 0, true);
    return rc;
}

static int op_reimport(struct rig *r)
{
    close_volumes(r);
    int rc = volumes_close(r->vs, false);
    r->vs = NULL;
    return rc ? rc : (rig_import(r) ? 0 : VP_E_IO);
}

/* Flips a bit in each sector of some blocks; the labels and roots at the disk's end stay. */
static int op_rot(struct rig *r, const struct op *op)
{
    struct sim_disk *d = sim_disk_find(r->w, disk_names[op->at]);
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
static int op_hog(struct rig *r)
{
    struct pool *pool = volumes_pool(r->vs);
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
    for (unsigned i = 0; i < r->config->disks; i++) {
        struct sim_disk *d = sim_disk_find(r->w, disk_names[i]);
        for (uint64_t at = 0; at < end; at += STAMP_BLOCK) {
            sim_disk_peek(d, at, page, sizeof(page));
            if (stamp_find(page, &sector, &seq) &&
                sector / STAMP_BLOCK_SECTORS % r->config->disks != i)
                sim_disk_set_unreadable(d, at);
        }
    }
    return 0;
}

static int op_on_volume(struct rig *r, const struct op *op, struct model_volume *mv)
{
    struct volume *v = rig_volume(r, op->volume);
    if (!v)
        return r->failed ? VP_E_IO : VP_E_NOT_FOUND;
    switch (op->kind) {
    case OP_WRITE:
    case OP_ZERO:
    case OP_DISCARD:
        return op_change(r, op, v, mv);
    case OP_READ:
        return op_read(r, op, v, mv);
    case OP_FLUSH:
        return op_flush(r, v, mv);
    default:
        return op_fill(r, op, v, mv);
    }
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
        return pool_checkpoint(volumes_pool(r->vs));
    case OP_BACKGROUND:
        return op_background(r);
    case OP_REIMPORT:
        return op_reimport(r);
    case OP_JOBS:
        return op_jobs(r, op);
    case OP_ROT:
        return op_rot(r, op);
    case OP_HOG:
        return op_hog(r);
    case OP_UNREADABLE:
        return op_unreadable(r);
    default:
        return op_on_volume(r, op, mv);
    }
}

/* At home, between two turns: what the pool keeps about its groups agrees with them. */
static void rig_audit(struct rig *r)
{
    const char *wrong = r->vs ? pool_audit(volumes_pool(r->vs)) : NULL;
    if (wrong)
        rig_fail(r, "the pool's figures differ from its groups: %s", wrong);
}

int rig_op(struct rig *r, const struct op *op)
{
    static const char *const names[] = {
        "end",      "write",  "zero",   "discard",    "read",       "flush",
        "create",   "delete", "resize", "checkpoint", "background", "fill",
        "reimport", "repeat", "rot",    "hog",        "jobs",       "unreadable"};
    if (r->failed)
        return VP_E_CANCELLED;
    unsigned resizes = r->resizes;
    int rc = op_any(r, op);
    rig_audit(r);
    /* Odd: a resize is under way. */
    if (rc == VP_E_RANGE && (r->resizes != resizes || resizes % 2))
        return rc;
    if (rc && rc != VP_E_NO_SPACE && !r->errors_allowed && !(op->flags & OP_FAILS))
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

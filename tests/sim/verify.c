/* See verify.h. */
#include "tests/sim/verify.h"

#include "base/bytes.h"
#include "base/verify.h"
#include "thin/thin.h"
#include "volumes/volumes_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    READ_BLOCKS = 16,
    EXTENTS_MAX = 64,
    READ_ALL_BLOCKS = 256,
    SAMPLE_BLOCKS = 64,
    SAMPLES = 128
};

static void *zeroed(size_t count, size_t item)
{
    void *p = calloc(count ? count : 1, item);
    VP_VERIFY_TRUE(p != NULL);
    return p;
}

struct observation *observation_new(const struct model *m)
{
    struct observation *o = zeroed(1, sizeof(*o));
    o->volume_count = m->volume_count;
    for (unsigned i = 0; i < m->volume_count; i++) {
        o->volume[i].seq = zeroed(m->volume[i].blocks_max, sizeof(struct model_sectors));
        o->volume[i].read_event = zeroed(m->volume[i].blocks_max, sizeof(uint64_t));
    }
    return o;
}

void observation_free(struct observation *o)
{
    if (!o)
        return;
    for (unsigned i = 0; i < o->volume_count; i++) {
        free(o->volume[i].seq);
        free(o->volume[i].read_event);
    }
    free(o);
}

struct model *observation_model(const struct observation *o, const struct model *m)
{
    struct model *next = model_new(m->seed);
    next->seq = m->seq;
    next->uid = m->uid;
    for (unsigned i = 0; i < o->volume_count; i++) {
        const struct model_volume *from = &m->volume[i];
        if (!o->volume[i].exists)
            continue;
        struct model_volume *v =
            model_volume_add(next, from->name, o->volume[i].blocks, from->blocks_max);
        model_answer(next, &v->created, false, false);
        v->uid = from->uid;
        v->sync = from->sync;
        v->place[0].pool = o->volume[i].pool;
        v->initial = zeroed(from->blocks_max, sizeof(struct model_sectors));
        memcpy(v->initial, o->volume[i].seq, o->volume[i].blocks * sizeof(struct model_sectors));
    }
    next->uid = m->uid;
    return next;
}

/* ---- one recovery ------------------------------------------------------------------------- */

struct check {
    struct rig rig; /* first: the body gets it */
    const struct crash_state *s;
    struct verify_output *out;
    uint64_t leased_bytes[RIG_POOLS];
};

static void check_block(struct check *c, unsigned index, uint64_t block,
                        const struct model_view *view, const struct model_sectors *got,
                        uint64_t read_event)
{
    const struct crash_state *s = c->s;
    char why[800];
    if (!model_permits(s->model, &s->model->volume[index], block, view, got, why, sizeof(why))) {
        rig_fail(&c->rig, "%s", why);
        return;
    }
    if (s->prior && s->prior->volume[index].exists &&
        s->prior->volume[index].read_event[block] <= s->prior_event &&
        memcmp(&s->prior->volume[index].seq[block], got, sizeof(*got)) != 0)
        rig_fail(&c->rig,
                 "%s block %" PRIu64 " showed write %u after one recovery and %u after "
                 "the next",
                 s->model->volume[index].name, block, s->prior->volume[index].seq[block].seq[0],
                 got->seq[0]);
    if (c->out->observed) {
        c->out->observed->volume[index].seq[block] = *got;
        c->out->observed->volume[index].read_event[block] = read_event;
    }
}

static bool was_there(const struct model_volume *mv, uint64_t block)
{
    static const struct model_sectors nothing;
    return mv->newest[block] ||
           (mv->initial && memcmp(&mv->initial[block], &nothing, sizeof(nothing)) != 0);
}

/* What to read at *at. Volumes are read in windows; of large volumes only what was ever written,
 * and samples. */
static uint64_t next_window(const struct model_volume *mv, uint64_t *at, uint64_t blocks)
{
    if (blocks <= READ_ALL_BLOCKS)
        return min_u64(READ_BLOCKS, blocks - *at);
    uint64_t stride = max_u64(SAMPLE_BLOCKS, blocks / SAMPLES);
    while (*at < blocks && !was_there(mv, *at) && *at % stride)
        ++*at;
    return *at < blocks;
}

static void check_content(struct check *c, unsigned index, struct rig_open *o, uint64_t blocks)
{
    struct model_volume *mv = &c->s->model->volume[index];
    bool whole = c->s->config->atomic_bytes >= STAMP_BLOCK;
    struct model_view view =
        c->s->killed || c->s->killed_first
            ? model_view_kill(mv, c->s->event, whole, !c->s->killed || c->s->unsure)
            : model_view_crash(mv, c->s->event, whole);
    struct model_sectors got[READ_BLOCKS];
    for (uint64_t at = 0, n; !c->rig.failed && (n = next_window(mv, &at, blocks)) > 0; at += n) {
        int rc = rig_read_blocks(&c->rig, o, mv->uid, at, n, got);
        if (rc && !c->rig.failed)
            rig_fail(&c->rig, "%s block %" PRIu64 "+%" PRIu64 " not read: %s", mv->name, at, n,
                     vp_err_name(rc));
        uint64_t now = c->rig.model->event;
        for (uint64_t i = 0; i < n && !c->rig.failed; i++)
            check_block(c, index, at + i, &view, &got[i], now);
    }
}

/* Chunks that [from, from+len) touches and that begin at or after *next, which moves on. */
static uint64_t new_chunks(uint64_t from, uint64_t len, uint64_t chunk, uint64_t *next)
{
    uint64_t first = max_u64(*next, align_down(from, chunk)), end = align_up(from + len, chunk);
    *next = max_u64(*next, end);
    return end > first ? (end - first) / chunk : 0;
}

/* The space that the volume claims to use must be what its block status shows. */
static void check_usage(struct check *c, const struct rig_open *o, const char *name)
{
    struct volume *v = o->v;
    struct volume_info info;
    int rc = volume_info_get(c->rig.vs[o->pool], name, &info);
    uint64_t size = volume_size(v), chunk = volume_chunk_bytes(v);
    uint64_t valid = 0, allocated = 0, next_chunk = 0;
    for (uint64_t at = 0; !rc && at < size;) {
        struct volume_extent e[EXTENTS_MAX];
        unsigned n = 0;
        rc = volume_extents(v, at, size - at, e, EXTENTS_MAX, &n);
        for (unsigned i = 0; !rc && i < n; i++) {
            valid += e[i].zero ? 0 : e[i].len;
            if (!e[i].hole)
                allocated += chunk * new_chunks(e[i].offset, e[i].len, chunk, &next_chunk);
            at = e[i].offset + e[i].len;
        }
    }
    if (rc)
        rig_fail(&c->rig, "%s: no block status: %s", name, vp_err_name(rc));
    else if (valid != info.valid_bytes || allocated != info.allocated_bytes)
        rig_fail(&c->rig,
                 "%s accounts for %" PRIu64 " valid and %" PRIu64 " allocated bytes and shows "
                 "%" PRIu64 " and %" PRIu64,
                 name, info.valid_bytes, info.allocated_bytes, valid, allocated);
    else if (info.allocated_bytes > info.leased_bytes)
        rig_fail(&c->rig, "%s has allocated more than it leased", name);
    c->leased_bytes[o->pool] += info.leased_bytes;
}

/* The space tree marks the chunks that the map uses, each once, and no other. */
static void check_chunks(struct check *c, struct volume *v, const char *name)
{
    struct thin_audit audit;
    int rc = thin_check(v->io->thin, &audit);
    if (rc)
        rig_fail(&c->rig, "%s: map not walked: %s", name, vp_err_name(rc));
    else if (audit.doubled || audit.unmarked || audit.leaked)
        rig_fail(&c->rig,
                 "%s: of %" PRIu64 " chunks %" PRIu64 " are used twice, %" PRIu64
                 " are not marked, %" PRIu64 " are leaked",
                 name, audit.mapped, audit.doubled, audit.unmarked, audit.leaked);
}

static void check_volume(struct check *c, unsigned index)
{
    struct model_volume *mv = &c->s->model->volume[index];
    struct rig_open *o = rig_volume(&c->rig, mv->name);
    if (c->rig.failed)
        return;
    if (!o) {
        if (model_must_exist(mv, c->s->event))
            rig_fail(&c->rig, "volume %s is gone", mv->name);
        return;
    }
    uint64_t blocks = volume_size(o->v) / STAMP_BLOCK;
    if (!model_permits_place(mv, c->s->event, o->pool)) {
        rig_fail(&c->rig, "volume %s is in pool %u", mv->name, o->pool);
        return;
    }
    if (!model_permits_size(mv, c->s->event, blocks)) {
        rig_fail(&c->rig, "volume %s has %" PRIu64 " blocks", mv->name, blocks);
        return;
    }
    if (c->out->observed) {
        c->out->observed->volume[index].exists = true;
        c->out->observed->volume[index].blocks = blocks;
        c->out->observed->volume[index].pool = o->pool;
    }
    check_content(c, index, o, blocks);
    if (!c->rig.failed)
        check_usage(c, o, mv->name);
    if (!c->rig.failed)
        check_chunks(c, o->v, mv->name);
}

/* A pool has no volume that no client made. */
static void check_strangers(struct check *c, unsigned p)
{
    const struct model *m = c->s->model;
    struct rig_names names;
    rig_names(&c->rig, p, &names);
    for (unsigned n = 0; n < names.count; n++) {
        unsigned i = 0;
        while (i < m->volume_count && !(strcmp(m->volume[i].name, names.name[n]) == 0 &&
                                        model_may_exist(&m->volume[i], c->s->event)))
            i++;
        if (i == m->volume_count)
            rig_fail(&c->rig, "pool %u has a volume %s", p, names.name[n]);
    }
}

/* A deleted name is free. */
static void check_gone(struct check *c, unsigned index)
{
    const struct model *m = c->s->model;
    for (unsigned i = 0; i < m->volume_count; i++)
        if (strcmp(m->volume[i].name, m->volume[index].name) == 0 &&
            model_may_exist(&m->volume[i], c->s->event))
            return;
    if (rig_volume(&c->rig, m->volume[index].name))
        rig_fail(&c->rig, "volume %s is back", m->volume[index].name);
}

static int is_deleting(struct pool_job *j, void *arg)
{
    (void)arg;
    return j->kind == POOL_JOB_DELETE && !pool_job_has_ended(j);
}

static void check_space(struct check *c, unsigned p)
{
    struct pool_space space;
    pool_space_get(volumes_pool(c->rig.vs[p]), &space);
    if (space.total_bytes != space.data_bytes + space.metadata_bytes + space.free_bytes)
        rig_fail(&c->rig,
                 "space does not add up: %" PRIu64 " is not %" PRIu64 " + %" PRIu64 " + %" PRIu64,
                 space.total_bytes, space.data_bytes, space.metadata_bytes, space.free_bytes);
    /* Volumes that are being deleted still hold some; nobody else does. */
    bool deletes = pool_job_each(volumes_pool(c->rig.vs[p]), is_deleting, NULL) != 0;
    if (space.leased_bytes < c->leased_bytes[p] ||
        (!deletes && space.leased_bytes != c->leased_bytes[p]))
        rig_fail(&c->rig, "volumes lease %" PRIu64 " bytes, the pool counts %" PRIu64,
                 c->leased_bytes[p], space.leased_bytes);
    if (space.meta_pages_used > space.meta_pages_total)
        rig_fail(&c->rig, "more metadata pages in use than there are");
}

static int check_job(struct pool_job *j, void *arg)
{
    struct check *c = arg;
    enum model_pause wanted = model_pause_at(c->s->model, c->s->event);
    if (j->kind != POOL_JOB_DELETE || pool_job_has_ended(j) || wanted == MODEL_PAUSE_OPEN)
        return 0;
    if ((j->state == POOL_JOB_PAUSED) != (wanted == MODEL_PAUSED))
        rig_fail(&c->rig, "job %u is %s, and was %s", j->id, pool_job_state_name(j->state),
                 wanted == MODEL_PAUSED ? "paused" : "resumed");
    return 0;
}

static void check_jobs(struct check *c)
{
    vp_ignore(pool_job_each(volumes_pool(c->rig.vs[0]), check_job, c), "check_job never fails");
}

static void check_body(struct rig *r)
{
    struct check *c = (struct check *)r;
    if (!(c->out->import ? c->out->import(r) : rig_import(r)))
        return;
    for (unsigned i = 0; i < c->s->model->volume_count && !r->failed; i++) {
        if (model_may_exist(&c->s->model->volume[i], c->s->event))
            check_volume(c, i);
        else
            check_gone(c, i);
    }
    for (unsigned p = 0; p < rig_pools(r->config) && !r->failed; p++)
        check_strangers(c, p), check_space(c, p);
    if (!r->failed)
        check_jobs(c);
    if (!r->failed && c->out->then)
        c->out->then(r);
    if (c->out->want_end)
        c->out->end = sim_snapshot_take(r->w);
}

static void set_disks(struct sim_world *w, const struct crash_state *s)
{
    for (unsigned i = 0; i < s->config->disks; i++) {
        char name[16];
        (void)snprintf(name, sizeof(name), "d%u", i);
        if (s->back_disks >> i & 1)
            sim_disk_set_dead(sim_disk_find(w, name), false);
        if (s->lost_disks >> i & 1)
            sim_disk_set_dead(sim_disk_find(w, name), true);
    }
}

bool verify_state(const struct crash_state *s, struct verify_output *out, char *why, size_t size)
{
    static const struct verify_output nothing;
    struct verify_output none = nothing;
    struct check c = {.s = s, .out = out ? out : &none};
    c.rig.w = s->killed ? sim_world_after_kill(s->snapshot, s->choices, s->seed)
                        : sim_world_from_snapshot(s->snapshot, s->choices, s->seed);
    if (s->keeps)
        sim_world_set_keeps(c.rig.w, s->keeps);
    c.rig.config = s->config;
    c.rig.model = s->model;
    c.rig.faults_planned = s->faults_planned || s->lost_disks;
    c.rig.order = s->order;
    c.rig.import_flags = __builtin_popcount(s->lost_disks) > 1 ? POOL_IMPORT_DEGRADED : 0;
    c.rig.on_event = c.out->on_event;
    c.rig.arg = c.out->arg;
    /* The recovery's events are its own; the model only lends its clock. */
    uint64_t event = s->model->event;
    set_disks(c.rig.w, s);
    bool ok = rig_run(&c.rig, check_body);
    s->model->event = event;
    if (!ok)
        (void)snprintf(why, size, "%s", c.rig.why);
    sim_world_free(c.rig.w);
    return ok;
}

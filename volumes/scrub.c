/*
 * Scrubbing: all copies of everything that volumes have are read and compared with the checksums.
 * What is bad is healed where another copy is good, and named. Volume by volume in the order of
 * their numbers, chunk by chunk of each.
 *
 * 1. Chunks are read in windows under block locks, as a reader (walk.c).
 * 2. A position and the findings are recorded now and then, after the disks that were healed were
 *    flushed. So a block that the record calls healed is healed durably. A crash goes on at the
 *    last position, and may find again what it found after that.
 * 3. While a disk is being filled, the scrub waits: what the disk lacks matters more.
 * 4. After the data of a volume come the pages of its trees, leaf by leaf (pool/scrub.c). After a
 *    restart these begin anew. The log and the table image are written anew at the end.
 * 5. A volume that cannot be scrubbed, for example because its map is damaged, is left out and
 *    counted. Volumes that are created meanwhile are scrubbed too.
 *
 * Tested in tests/unit/volumes/test_scrub.c.
 */
#include "base/log.h"
#include "volumes/volumes_impl.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { SCRUB_RECORD_STEPS = 8, SCRUB_LEAVES_A_STEP = 64 };
#define WAIT_NS UINT64_C(1000000000)

/* ---- records --------------------------------------------------------------------------------- */

struct scrub_record {
    struct volume_scrub_disk fixed;
    struct volume_scrub_finding_disk finding[VOLUMES_SCRUB_FINDINGS];
};
static_assert(sizeof(struct scrub_record) <= POOL_RECORD_VALUE_MAX, "it fits into a record");

static struct volume_scrub_finding_disk finding_encode(const struct volumes_scrub_finding *f)
{
    uint64_t block = f->metadata ? f->offset : f->offset / VOLUME_BLOCK;
    return (struct volume_scrub_finding_disk){.volume = le32_make(f->volume),
                                              .disk = le32_make(f->disk),
                                              .block = le64_make(block),
                                              .count = le64_make(f->bytes / VOLUME_BLOCK),
                                              .seconds = le64_make(f->seconds),
                                              .found = (uint8_t)f->found,
                                              .unreadable = f->unreadable,
                                              .metadata = f->metadata};
}

static struct volumes_scrub_finding finding_decode(const struct volume_scrub_finding_disk *d)
{
    uint64_t block = le64_get(d->block);
    return (struct volumes_scrub_finding){.volume = le32_get(d->volume),
                                          .disk = le32_get(d->disk),
                                          .offset = d->metadata ? block : block * VOLUME_BLOCK,
                                          .bytes = le64_get(d->count) * VOLUME_BLOCK,
                                          .seconds = le64_get(d->seconds),
                                          .found = (enum raid_found)d->found,
                                          .unreadable = d->unreadable != 0,
                                          .metadata = d->metadata != 0};
}

static void record_put(const struct volumes *vs, struct pool_batch *b)
{
    const struct volumes_scrub *s = &vs->scrub;
    const struct volumes_scrub_report *r = &s->report;
    struct scrub_record d = {.fixed = {.state = (uint8_t)r->state,
                                       .findings = le32_make(r->findings),
                                       .started = le64_make(r->started),
                                       .ended = le64_make(r->ended),
                                       .volume = le32_make(s->volume),
                                       .skipped_volumes = le32_make(r->skipped_volumes),
                                       .block = le64_make(s->block),
                                       .compared_bytes = le64_make(r->compared_bytes),
                                       .healed_blocks = le64_make(r->healed_blocks),
                                       .bad_blocks = le64_make(r->bad_blocks),
                                       .lost_blocks = le64_make(r->lost_blocks),
                                       .findings_left_out = le64_make(r->findings_left_out),
                                       .metadata_bytes = le64_make(r->metadata_bytes),
                                       .missing_bytes = le64_make(r->missing_bytes)}};
    for (unsigned i = 0; i < r->findings; i++)
        d.finding[i] = finding_encode(&r->finding[i]);
    pool_batch_set(b, POOL_RECORD_COUNTER, 0, VOLUME_COUNTER_SCRUB, &d,
                   offsetof(struct scrub_record, finding) + r->findings * sizeof(d.finding[0]));
}

/* What does not decode was no scrub. */
static void record_load(struct volumes *vs)
{
    struct volumes_scrub *s = &vs->scrub;
    struct volumes_scrub_report *r = &s->report;
    struct scrub_record d = {0};
    struct pool_record record;
    if (!pool_record_get(vs->pool, POOL_RECORD_COUNTER, 0, VOLUME_COUNTER_SCRUB, &record) ||
        record.len < sizeof(d.fixed) || record.len > sizeof(d))
        return;
    memcpy(&d, record.value, record.len);
    uint32_t findings = le32_get(d.fixed.findings);
    if (findings > VOLUMES_SCRUB_FINDINGS ||
        record.len != sizeof(d.fixed) + findings * sizeof(d.finding[0]) ||
        d.fixed.state > VOLUMES_SCRUB_STOPPED)
        return;
    s->volume = le32_get(d.fixed.volume);
    s->block = le64_get(d.fixed.block);
    *r = (struct volumes_scrub_report){.state = (enum volumes_scrub_state)d.fixed.state,
                                       .started = le64_get(d.fixed.started),
                                       .ended = le64_get(d.fixed.ended),
                                       .compared_bytes = le64_get(d.fixed.compared_bytes),
                                       .metadata_bytes = le64_get(d.fixed.metadata_bytes),
                                       .missing_bytes = le64_get(d.fixed.missing_bytes),
                                       .healed_blocks = le64_get(d.fixed.healed_blocks),
                                       .bad_blocks = le64_get(d.fixed.bad_blocks),
                                       .lost_blocks = le64_get(d.fixed.lost_blocks),
                                       .skipped_volumes = le32_get(d.fixed.skipped_volumes),
                                       .findings = findings,
                                       .findings_left_out = le64_get(d.fixed.findings_left_out)};
    for (unsigned i = 0; i < findings; i++)
        r->finding[i] = finding_decode(&d.finding[i]);
}

/* CO. What was healed, durably. */
static CO int healed_flush(struct volumes *vs)
{
    struct raid_disk *disk[POOL_DISKS_MAX];
    struct raid_disk_set healed = vs->scrub.healed;
    unsigned all, n = 0;
    struct raid_disk *const *disks = pool_disks(vs->pool, &all);
    for (uint64_t i = 0; (i = bitmap_find(healed.word, all, i, true)) < all; i++)
        disk[n++] = disks[i];
    vs->scrub.healed = (struct raid_disk_set){0};
    int rc = n ? raid_flush(disk, n) : 0;
    for (unsigned i = 0; rc && i < RAID_DISKS_MAX / 64; i++)
        vs->scrub.healed.word[i] |= healed.word[i];
    return rc;
}

/* CO. 2. */
static CO int position_save(struct volumes *vs)
{
    struct volumes_scrub *s = &vs->scrub;
    struct pool_batch b;
    int rc = healed_flush(vs);
    if (rc)
        return rc;
    s->unsaved = 0;
    pool_batch_init(&b);
    record_put(vs, &b);
    if (s->job && !pool_job_has_ended(s->job))
        pool_job_put(vs->pool, s->job, &b);
    rc = pool_commit(vs->pool, &b);
    pool_batch_fini(&b);
    return rc;
}

/* ---- findings -------------------------------------------------------------------------------- */

/* One step: what it is about, what it found. */
struct scrub_call {
    struct volume_walk walk;
    struct thin_scrub scrub;
    uint64_t metadata_bytes, missing_bytes;
    struct pool_page_ref ref[THIN_WALK_LEVELS];
    uint8_t *buf;                   /* room for as many pages */
    uint64_t blocks[RAID_LOST + 1]; /* by enum raid_found */
    struct raid_disk_set healed;
    unsigned findings, left_out; /* runs of blocks */
    struct volumes_scrub_finding finding[VOLUMES_SCRUB_FINDINGS];
};

/* The run that the block follows: that of the same copy. Copies of one block come one after the
 * other. */
static struct volumes_scrub_finding *run_of(struct scrub_call *c,
                                            const struct volumes_scrub_finding *f)
{
    for (unsigned i = c->findings; i-- > 0 && !f->metadata;) {
        struct volumes_scrub_finding *r = &c->finding[i];
        if (r->disk == f->disk && r->found == f->found && r->unreadable == f->unreadable)
            return r->offset + r->bytes == f->offset ? r : NULL;
    }
    return NULL;
}

static void finding_add(struct scrub_call *c, uint64_t offset, const struct raid_finding *f,
                        bool metadata)
{
    const struct volumes_scrub_finding add = {.volume = c->walk.v->id,
                                              .disk = f->disk,
                                              .offset = offset,
                                              .bytes = VOLUME_BLOCK,
                                              .seconds = reactor_wall_seconds(),
                                              .found = f->state,
                                              .unreadable = f->unreadable,
                                              .metadata = metadata};
    struct volumes_scrub_finding *run = run_of(c, &add);
    c->blocks[f->state]++;
    if (f->state == RAID_HEALED)
        bitmap_set(c->healed.word, f->disk);
    if (run)
        run->bytes += VOLUME_BLOCK;
    else if (c->findings == VOLUMES_SCRUB_FINDINGS)
        c->left_out++;
    else
        c->finding[c->findings++] = add;
}

static void found(uint64_t block, const struct raid_finding *f, void *arg)
{
    finding_add(arg, block * VOLUME_BLOCK, f, false);
}

static void found_page(const struct raid_finding *f, void *arg)
{
    struct scrub_call *c = arg;
    finding_add(c, c->ref[f->piece].addr, f, true);
}

static void findings_take(struct volumes *vs, const struct scrub_call *c)
{
    struct volumes_scrub *s = &vs->scrub;
    struct volumes_scrub_report *r = &s->report;
    r->compared_bytes += c->scrub.compared_bytes;
    r->metadata_bytes += c->metadata_bytes;
    r->missing_bytes += c->scrub.missing_bytes + c->missing_bytes;
    r->healed_blocks += c->blocks[RAID_HEALED];
    r->bad_blocks += c->blocks[RAID_NOT_HEALED];
    r->lost_blocks += c->blocks[RAID_LOST];
    r->findings_left_out += c->left_out;
    for (unsigned i = 0; i < RAID_DISKS_MAX / 64; i++)
        s->healed.word[i] |= c->healed.word[i];
    for (unsigned i = 0; i < c->findings; i++) {
        if (r->findings < VOLUMES_SCRUB_FINDINGS)
            r->finding[r->findings++] = c->finding[i];
        else
            r->findings_left_out++;
    }
}

/* ---- one step -------------------------------------------------------------------------------- */

static CO int window_scrub(struct thin *t, uint64_t block, uint64_t count, void *arg)
{
    struct scrub_call *c = arg;
    return thin_scrub(t, block, count, &c->scrub);
}

/* The next one in the order of numbers. */
static struct volume *volume_next(struct volumes *vs)
{
    struct volume *v, *first = NULL;
    list_for_each (v, &vs->all, link)
        if (v->state != VOLUME_DELETING && v->id >= vs->scrub.volume &&
            (!first || v->id < first->id))
            first = v;
    return first;
}

static uint64_t bytes_left(struct volumes *vs)
{
    uint64_t bytes = 0;
    struct volume *v;
    list_for_each (v, &vs->all, link)
        if (v->state != VOLUME_DELETING && v->id >= vs->scrub.volume)
            bytes += volume_allocated_bytes(v);
    return bytes;
}

/* The pool is not what it was: nothing is wrong with the volume. */
static bool ends_all(int rc)
{
    return rc == VP_E_POOL_FENCED || rc == VP_E_NO_MEMORY;
}

/* CO. The next chunks of a volume. */
static CO int step_of_data(struct volumes *vs, struct scrub_call *c)
{
    struct volumes_scrub *s = &vs->scrub;
    c->scrub = (struct thin_scrub){.found = found, .arg = c};
    c->walk.window = window_scrub;
    c->walk.arg = c;
    c->walk.at = c->walk.v->id == s->volume ? s->block : 0;
    c->walk.bytes = min_u64(pool_job_step_units(s->job), vs->config.fill_bytes);
    int rc = volume_walk(&c->walk);
    pool_job_advance(s->job, c->walk.bytes, 0);
    s->unsaved += c->walk.bytes;
    s->volume = c->walk.v->id;
    s->block = c->walk.at;
    s->in_pages = !rc && c->walk.done;
    s->pages = (struct thin_page_walk){0};
    return rc;
}

/* ---- pages of trees ------------------------------------------------------------------------- */

struct pages_call {
    struct volume *v;
    struct thin_page_walk *walk;
    struct pool_page_ref *ref;
    unsigned count;
};

static CO int next_on_reactor(void *arg)
{
    const struct pages_call *c = arg;
    return thin_page_walk_next(c->v->io->thin, c->walk);
}

static CO int take_on_reactor(void *arg)
{
    struct pages_call *c = arg;
    c->count = thin_page_walk_take(c->walk, c->ref);
    return 0;
}

/* CO. A leaf, and pages above it. */
static CO int leaf_scrub(struct volumes *vs, struct scrub_call *c)
{
    struct pages_call call = {.v = c->walk.v, .walk = &vs->scrub.pages, .ref = c->ref};
    struct raid_scrub scrub = {.found = found_page, .arg = c};
    int rc = reactor_call(call.v->reactor, next_on_reactor, &call);
    if (rc || !call.walk->leaf)
        return rc;
    pool_checkpoints_hold_off(vs->pool);
    vp_ignore(reactor_call(call.v->reactor, take_on_reactor, &call), "it does not fail");
    rc = pool_pages_scrub(vs->pool, c->ref, call.count, c->buf, &scrub);
    pool_checkpoints_go_on(vs->pool);
    c->metadata_bytes += scrub.compared_bytes;
    c->missing_bytes += scrub.missing_bytes;
    return rc;
}

/* CO. Some leaves of its trees. */
static CO int step_of_pages(struct volumes *vs, struct scrub_call *c)
{
    struct volumes_scrub *s = &vs->scrub;
    bool more = false;
    int rc = volume_open_for_work(c->walk.v, &more);
    c->buf = aligned_alloc(POOL_PAGE, (size_t)THIN_WALK_LEVELS * POOL_PAGE);
    if (!c->buf)
        rc = VP_E_NO_MEMORY;
    for (unsigned i = 0; i < SCRUB_LEAVES_A_STEP && more && !rc; i++) {
        rc = leaf_scrub(vs, c);
        more = s->pages.tree < THIN_WALK_TREES;
        vp_ignore(co_sleep_ns(1), "requests of clients come before the next leaf");
    }
    free(c->buf);
    if (rc || more)
        return rc;
    s->in_pages = false;
    s->volume = c->walk.v->id + 1;
    s->block = 0;
    return 0;
}

/* CO. */
static CO int step_of_volume(struct volumes *vs, struct volume *v, struct scrub_call *c)
{
    struct volumes_scrub *s = &vs->scrub;
    c->walk.v = v;
    volume_pin(v);
    int rc = s->in_pages && v->id == s->volume ? step_of_pages(vs, c) : step_of_data(vs, c);
    findings_take(vs, c);
    if (rc && !ends_all(rc)) {
        s->in_pages = false;
        s->volume = v->id + 1;
        s->block = 0;
        s->report.skipped_volumes++;
        pool_job_advance(s->job, 0, rc);
        vp_warn("volume %s cannot be scrubbed: %s", volume_full_name(v), vp_err_text(rc));
    }
    volume_unpin(v);
    return ends_all(rc) ? rc : 0;
}

/* CO. */
static CO int scrub_end(struct volumes *vs, enum volumes_scrub_state state)
{
    static const enum pool_job_state ends[] = {[VOLUMES_SCRUB_DONE] = POOL_JOB_DONE,
                                               [VOLUMES_SCRUB_FAILED] = POOL_JOB_FAILED,
                                               [VOLUMES_SCRUB_STOPPED] = POOL_JOB_CANCELLED};
    struct volumes_scrub *s = &vs->scrub;
    int rc = state == VOLUMES_SCRUB_STOPPED ? 0 : pool_metadata_renew(vs->pool);
    if (rc)
        return rc;
    s->report.state = state;
    s->report.ended = reactor_wall_seconds();
    rc = position_save(vs);
    if (rc) { /* it has not ended then */
        s->report.state = VOLUMES_SCRUB_RUNNING;
        s->report.ended = 0;
        return rc;
    }
    pool_job_end(vs->pool, s->job, ends[state]);
    s->job = NULL;
    s->stop = false;
    return 0;
}

/* Of a fenced pool: the record stays as it is, and the next import goes on, or is told to stop. */
static int scrub_give_up(struct volumes *vs)
{
    struct volumes_scrub *s = &vs->scrub;
    s->report.state = VOLUMES_SCRUB_STOPPED;
    s->report.ended = reactor_wall_seconds();
    pool_job_end(vs->pool, s->job, POOL_JOB_CANCELLED);
    s->job = NULL;
    s->stop = false;
    return 0;
}

CO int volumes_scrub_step(struct volumes *vs, bool *more)
{
    struct volumes_scrub *s = &vs->scrub;
    struct pool_disk_filling filling;
    if (!s->job)
        return 0;
    if (!pool_acknowledges(vs->pool)) /* others may use its disks: nothing is healed */
        return s->stop ? scrub_give_up(vs) : VP_E_POOL_FENCED;
    if (s->stop) {
        *more = true;
        return scrub_end(vs, VOLUMES_SCRUB_STOPPED);
    }
    if (!pool_job_may_go_on(s->job))
        return 0;
    if (pool_disk_to_fill(vs->pool, 0, &filling)) {
        s->job->due_ns = reactor_now_ns() + WAIT_NS; /* 3; it is looked again then */
        return 0;
    }
    if (!s->job->counted)
        pool_job_count(s->job, bytes_left(vs));
    *more = true;
    struct volume *v = volume_next(vs);
    if (!v)
        return scrub_end(vs, s->report.skipped_volumes || s->report.missing_bytes
                                 ? VOLUMES_SCRUB_FAILED
                                 : VOLUMES_SCRUB_DONE);
    struct scrub_call *c = calloc(1, sizeof(*c));
    if (!c)
        return VP_E_NO_MEMORY;
    int rc = step_of_volume(vs, v, c);
    bool news = c->findings != 0;
    free(c);
    if (!rc && (news || s->unsaved >= SCRUB_RECORD_STEPS * vs->config.fill_bytes))
        rc = position_save(vs);
    return rc;
}

/* ---- commands -------------------------------------------------------------------------------- */

/* pool_job_cancel. */
static int scrub_cancel(void *arg, struct vp_error *err)
{
    struct volumes *vs = arg;
    (void)err;
    vs->scrub.stop = true;
    co_queue_wake_all(&vs->work);
    return 0;
}

CO int volumes_scrub_start(struct volumes *vs, uint64_t limit, struct vp_error *err)
{
    struct volumes_scrub *s = &vs->scrub;
    struct pool_batch b;
    if (s->job || s->starting)
        return vp_fail(err, VP_E_BUSY,
                       "pool %s is being scrubbed already; `vpool scrub %s --show` says what was "
                       "found so far",
                       pool_name(vs->pool), pool_name(vs->pool));
    struct volumes_scrub *before = malloc(sizeof(*before));
    struct pool_job *j =
        before ? pool_job_new(vs->pool, POOL_JOB_SCRUB, 0, pool_name(vs->pool)) : NULL;
    if (!j) {
        free(before);
        return vp_fail(err, VP_E_NO_MEMORY, "out of memory");
    }
    *before = *s;
    *s = (struct volumes_scrub){.starting = true};
    s->report.state = VOLUMES_SCRUB_RUNNING;
    s->report.started = j->started;
    j->limit = limit;
    pool_batch_init(&b);
    record_put(vs, &b);
    pool_job_put(vs->pool, j, &b);
    int rc = pool_commit(vs->pool, &b);
    pool_batch_fini(&b);
    if (rc) {
        pool_job_drop(j);
        *s = *before;
    } else {
        s->starting = false;
        s->job = j;
        pool_job_cancel_by(j, scrub_cancel, vs);
        co_queue_wake_all(&vs->work);
    }
    free(before);
    return rc ? vp_fail(err, rc, "pool %s: the scrub cannot be recorded: %s", pool_name(vs->pool),
                        vp_err_text(rc))
              : 0;
}

int volumes_scrub_stop(struct volumes *vs, struct vp_error *err)
{
    if (!vs->scrub.job)
        return vp_fail(err, VP_E_NOT_FOUND, "pool %s is not being scrubbed", pool_name(vs->pool));
    return scrub_cancel(vs, err);
}

int volumes_scrub_load(struct volumes *vs)
{
    struct volumes_scrub *s = &vs->scrub;
    record_load(vs);
    if (s->report.state != VOLUMES_SCRUB_RUNNING)
        return 0;
    s->job = pool_job_take(vs->pool, POOL_JOB_SCRUB, 0, pool_name(vs->pool));
    if (!s->job)
        return VP_E_NO_MEMORY;
    pool_job_cancel_by(s->job, scrub_cancel, vs);
    return 0;
}

const struct volumes_scrub_report *volumes_scrub_report(const struct volumes *vs)
{
    return &vs->scrub.report;
}

const struct pool_job *volumes_scrub_job(const struct volumes *vs)
{
    return vs->scrub.job;
}

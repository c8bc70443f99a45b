/*
 * Import: from labelled disks to a pool that serves.
 *
 *     roots of all disks ─ the newest counts ─ disk table: who is in service, who is stale
 *       ─ snapshot ─ log pieces, the open one to its end ─ groups, page bitmaps ─ sealing root
 *
 *  I1  The open piece ends at the first batch that no copy has whole. What was acknowledged is on
 *      every disk that was in service, so on every one that the newest root lets us read.
 *  I2  The sealing root fixes that end: pieces found are closed, a new stream begins. A batch that
 *      was found will be found again (copies were made equal), one that was not never appears.
 *  I3  Nothing is served before the sealing root is durable; a crash until then changes nothing.
 *  I4  A disk that the newest root calls out is stale: not read (GUARD_STALE_DISK). One that the
 *      root counts on but that is not here goes out with the sealing root, if at least half of the
 *      disks and some copy of every group are here. Two disks that each call the other out went
 *      separate ways: VP_E_POOL_SPLIT, nobody can know which one the user wants.
 *
 *  I5  What was found is durable before anything builds upon it (GUARD_IMPORT_FLUSH): a daemon that
 *      was killed leaves it in the disks' caches.
 *  I6  What a killed daemon kept in memory goes into the log before anything is served.
 *
 * When the root has no place for one more piece, the new stream begins with a copy of all records
 * of the old ones, and is the only piece.
 *
 * Everything read here is untrusted. Cost: labels, roots, snapshot, log.
 */
#include "pool/keep_impl.h"
#include "pool/meta_impl.h"

#include "base/log.h"
#include "io/guard.h"

#include <stdlib.h>

enum {
    SLOTS_BYTES = POOL_ROOT_SLOTS * ROOT_BYTES,
    PIECES_WANTED = 4, /* beyond, the next commit asks for a checkpoint */
};

struct pool_import_state {
    struct pool *p;
    struct vp_error *err;
    struct pool_candidate *candidate;
    unsigned candidates;
    uint8_t *slots;         /* of each candidate: head's, tail's                          */
    struct io_op *op;       /* two of each candidate                                      */
    const uint8_t **newest; /* of each candidate, its newest valid root in slots, or NULL */
    unsigned winner;        /* the candidate that has the newest of all                   */
    struct root_image image, other;
    struct pool_root next; /* the sealing one: the newest, with its pieces as they were found */
    int of_disk[POOL_DISKS_MAX]; /* candidate of a disk of the table, or -1             */
    bool missing[POOL_DISKS_MAX];

    struct log_reader reader;
    struct pool_batch run;        /* bytes of a run of several batches                          */
    struct pool_batch keep;       /* bytes of the whole log, when pieces are to be merged       */
    struct pool_segment *segment; /* walked                                             */
    unsigned segments, segments_kept, segment_capacity;
    uint64_t log_pages;
    struct list keeps; /* of the daemon before, if it was killed (keep_recover.c) */
};

void pool_import_state_free(struct pool_import_state *im)
{
    if (!im)
        return;
    pool_keeps_free(&im->keeps);
    log_reader_fini(&im->reader);
    pool_batch_fini(&im->run);
    pool_batch_fini(&im->keep);
    if (im->candidate)
        pool_candidates_free(im->candidate, im->candidates);
    free(im->segment);
    free(im->newest);
    free(im->op);
    free(im->slots);
    free(im);
}

static const char *name_of(const struct pool_import_state *im)
{
    return im->candidate[0].label.pool_name;
}

/* ---- roots -------------------------------------------------------------------------------- */

static uint8_t *slots_of(const struct pool_import_state *im, unsigned candidate, unsigned side)
{
    return im->slots + (2 * (size_t)candidate + side) * SLOTS_BYTES;
}

/* CO. All slots of all candidates; what can not be read is zero and marked in its op. */
static int roots_read(struct pool_import_state *im)
{
    struct io_batch batch;
    unsigned n = im->candidates;
    im->slots = aligned_alloc(ROOT_BYTES, 2 * (size_t)n * SLOTS_BYTES);
    im->op = calloc(2 * (size_t)n, sizeof(*im->op));
    im->newest = calloc(n, sizeof(*im->newest));
    if (!im->slots || !im->op || !im->newest)
        return VP_E_NO_MEMORY;
    io_batch_init(&batch);
    for (unsigned i = 0; i < 2 * n; i++) {
        const struct pool_candidate *c = &im->candidate[i / 2];
        io_op_set(&im->op[i], c->dev, IO_READ, POOL_ROOT_AT + (i % 2 ? c->tail_bytes : 0),
                  slots_of(im, i / 2, i % 2), SLOTS_BYTES, 0);
        io_batch_add(&batch, &im->op[i]);
    }
    vp_ignore(io_batch_wait(&batch), "each op has its own result");
    for (unsigned i = 0; i < 2 * n; i++)
        if (im->op[i].rc)
            memset(slots_of(im, i / 2, i % 2), 0, SLOTS_BYTES);
    return 0;
}

/* The slot that claims the highest number below `below`; NULL when none does. */
static const uint8_t *root_claim(const struct pool_import_state *im, unsigned candidate,
                                 uint64_t below)
{
    const uint8_t *best = NULL;
    uint64_t best_number = 0;
    for (unsigned i = 0; i < 2 * POOL_ROOT_SLOTS; i++) {
        const uint8_t *block =
            slots_of(im, candidate, i / POOL_ROOT_SLOTS) + i % POOL_ROOT_SLOTS * ROOT_BYTES;
        uint64_t n = le64_get(((const struct root_block *)block)->number);
        if (n >= below || n < best_number || (n == best_number && best))
            continue;
        best_number = n;
        best = block;
    }
    return best;
}

/* The candidate's newest valid root; claims are checked from the highest down. */
static bool root_newest(struct pool_import_state *im, unsigned candidate, uint64_t *number)
{
    const uint8_t *block;
    uint64_t below = UINT64_MAX;
    while ((block = root_claim(im, candidate, below))) {
        below = le64_get(((const struct root_block *)block)->number);
        for (unsigned side = 0; side < 2; side++) {
            block = slots_of(im, candidate, side) + below % POOL_ROOT_SLOTS * ROOT_BYTES;
            if (!root_block_check(block, im->candidate[0].label.pool_uuid, number) ||
                *number != below)
                continue;
            im->newest[candidate] = block;
            return true;
        }
    }
    return false;
}

static int roots_choose(struct pool_import_state *im)
{
    bool found = false;
    uint64_t best = 0, number = 0;
    for (unsigned i = 0; i < im->candidates; i++) {
        if (!root_newest(im, i, &number) || (found && number <= best))
            continue;
        found = true;
        best = number;
        im->winner = i;
    }
    if (!found)
        return vp_fail(im->err, VP_E_ROOT_NONE,
                       "pool %s: none of the %u disks has a valid root record; `vpool-check` shows "
                       "what is on them",
                       name_of(im), im->candidates);
    int rc = root_block_decode(im->newest[im->winner], &im->image);
    if (rc)
        return vp_fail(im->err, rc, "pool %s: root %llu on %s: %s", name_of(im),
                       (unsigned long long)best, im->candidate[im->winner].path, vp_err_text(rc));
    return 0;
}

/* Some copy of the slot that the next root would have taken shows what was there before it. */
static bool next_root_never_was(const struct pool_import_state *im)
{
    uint64_t slot = (im->image.root.number + 1) % POOL_ROOT_SLOTS, number;
    for (unsigned d = 0; d < im->image.disks; d++) {
        if (im->image.disk[d].state != POOL_DISK_ONLINE || im->of_disk[d] < 0)
            continue;
        for (unsigned side = 0; side < 2; side++) {
            unsigned c = (unsigned)im->of_disk[d];
            const uint8_t *block = slots_of(im, c, side) + slot * ROOT_BYTES;
            if (im->op[2 * c + side].rc)
                continue;
            if (bytes_are_zero(block, ROOT_BYTES) ||
                root_block_check(block, im->image.pool_uuid, &number))
                return true;
        }
    }
    return false;
}

/* ---- disks -------------------------------------------------------------------------------- */

static void identity_adopt(struct pool *p, const struct root_image *r)
{
    memcpy(p->name, r->name, sizeof(p->name));
    p->uuid = r->pool_uuid;
    p->geometry = r->geometry;
    p->default_profile = r->profile;
    p->features_compat = r->features_compat;
    p->features_ro = r->features_ro;
    p->features_incompat = r->features_incompat;
    p->root.now = r->root;
    p->disk_count = r->disks;
    for (unsigned i = 0; i < r->disks; i++) {
        struct pool_disk *d = &p->disk[i];
        d->pool = p;
        d->uuid = r->disk[i].uuid;
        d->state = r->disk[i].state;
        d->extents_total = r->disk[i].extents;
        d->size_bytes = r->disk[i].size_bytes;
        d->tail_bytes = d->size_bytes - POOL_LABEL_AREA;
    }
}

/* Which candidate is which disk of the table. */
static int disks_match(struct pool_import_state *im)
{
    struct pool *p = im->p;
    for (unsigned d = 0; d < POOL_DISKS_MAX; d++)
        im->of_disk[d] = -1;
    for (unsigned c = 0; c < im->candidates; c++) {
        unsigned d = 0;
        while (d < p->disk_count &&
               (!p->disk[d].state ||
                !vp_uuid_equal(p->disk[d].uuid, im->candidate[c].label.disk_uuid)))
            d++;
        if (d == p->disk_count) {
            vp_warn("pool %s: %s has its label but is none of its disks; not used", p->name,
                    im->candidate[c].path);
            continue;
        }
        if (im->of_disk[d] >= 0)
            return vp_fail(im->err, VP_E_EXISTS,
                           "pool %s: %s and %s are copies of the same disk; give only one of them",
                           p->name, im->candidate[im->of_disk[d]].path, im->candidate[c].path);
        if (io_dev_info(im->candidate[c].dev)->size_bytes < p->disk[d].size_bytes)
            return vp_fail(im->err, VP_E_DISK_TOO_SMALL,
                           "pool %s: %s has shrunk to %llu bytes; the pool uses %llu", p->name,
                           im->candidate[c].path,
                           (unsigned long long)io_dev_info(im->candidate[c].dev)->size_bytes,
                           (unsigned long long)p->disk[d].size_bytes);
        im->of_disk[d] = (int)c;
    }
    return 0;
}

/* The stale disk's own newest root calls a disk out that the winner counts on. */
static bool went_separate_ways(struct pool_import_state *im, unsigned disk)
{
    const uint8_t *block = im->newest[im->of_disk[disk]];
    if (!block || root_block_decode(block, &im->other))
        return false;
    for (unsigned i = 0; i < im->image.disks && i < im->other.disks; i++)
        if (im->image.disk[i].state == POOL_DISK_ONLINE && im->other.disk[i].state == POOL_DISK_OUT)
            return true;
    return false;
}

static int disks_check(struct pool_import_state *im)
{
    struct pool *p = im->p;
    unsigned online = 0, here = 0;
    for (unsigned i = 0; i < p->disk_count; i++) {
        struct pool_disk *d = &p->disk[i];
        if (d->state == POOL_DISK_ONLINE) {
            online++;
            here += im->of_disk[i] >= 0;
        } else if (d->state == POOL_DISK_OUT && im->of_disk[i] >= 0 &&
                   io_guard_on(GUARD_STALE_DISK) && went_separate_ways(im, i)) {
            return vp_fail(
                im->err, VP_E_POOL_SPLIT,
                "pool %s: %s and %s were used one without the other since; give only the "
                "one whose data you want",
                p->name, im->candidate[im->winner].path, im->candidate[im->of_disk[i]].path);
        }
    }
    if (!here || 2 * here < online)
        return vp_fail(im->err, VP_E_POOL_MISSING_DISK,
                       "pool %s: only %u of its %u disks in service were found; at least half are "
                       "needed",
                       p->name, here, online);
    if (!next_root_never_was(im))
        return vp_fail(
            im->err, VP_E_ROOT_STALE,
            "pool %s: the root after number %llu is damaged in every copy; what that one "
            "names may be used again already. `vpool-check` shows more",
            p->name, (unsigned long long)im->image.root.number);
    return 0;
}

static int disks_adopt(struct pool_import_state *im)
{
    struct pool *p = im->p;
    for (unsigned i = 0; i < p->disk_count; i++) {
        struct pool_disk *d = &p->disk[i];
        bool here = im->of_disk[i] >= 0;
        if (d->state == POOL_DISK_ONLINE && !here) {
            d->state = POOL_DISK_OUT;
            im->missing[i] = true;
            p->disk_changes++;
            vp_warn("pool %s: disk %u is missing; going on without it", p->name, i);
        } else if (d->state == POOL_DISK_OUT && here && !io_guard_on(GUARD_STALE_DISK)) {
            d->state = POOL_DISK_ONLINE;
        }
        int rc = here ? pool_disk_adopt(p, i, &im->candidate[im->of_disk[i]])
                      : pool_disk_adopt_missing(p, i, "missing at import");
        if (rc)
            return rc;
    }
    return 0;
}

static int import_roots(struct pool_import_state *im)
{
    int rc = roots_read(im);
    if (!rc)
        rc = roots_choose(im);
    if (rc)
        return rc;
    identity_adopt(im->p, &im->image);
    rc = disks_match(im);
    if (!rc)
        rc = disks_check(im);
    return rc ? rc : disks_adopt(im);
}

/* ---- snapshot and log --------------------------------------------------------------------- */

static int segment_note(void *arg, const struct pool_segment *s)
{
    struct pool_import_state *im = arg;
    if (im->segments == im->segment_capacity) {
        unsigned capacity = im->segment_capacity ? 2 * im->segment_capacity : 16;
        struct pool_segment *grown = realloc(im->segment, capacity * sizeof(*grown));
        if (!grown)
            return VP_E_NO_MEMORY;
        im->segment = grown;
        im->segment_capacity = capacity;
    }
    im->segment[im->segments++] = *s;
    return 0;
}

static int bytes_append(struct pool_batch *b, const uint8_t *bytes, size_t len)
{
    if (b->len + len > b->capacity) {
        size_t capacity = 2 * (b->len + len);
        uint8_t *grown = realloc(b->bytes, capacity);
        if (!grown)
            return VP_E_NO_MEMORY;
        b->bytes = grown;
        b->capacity = capacity;
    }
    if (len)
        memcpy(b->bytes + b->len, bytes, len);
    b->len += len;
    return 0;
}

/* Checks all records of a whole run; hands those of trees to the client. */
static int run_replay(struct pool_import_state *im, const uint8_t *bytes, size_t len, bool is_log)
{
    const struct pool_client *client = &im->p->client;
    struct record_view v;
    size_t at = 0;
    int rc;
    while ((rc = record_decode(bytes, len, &at, &v)) > 0) {
        bool is_tree = v.r.kind >= POOL_RECORD_TABLE_MAX;
        if (is_tree ? !is_log : is_log && v.r.kind == POOL_RECORD_METAMAP)
            return VP_E_RECORD_MISPLACED;
        if (!is_tree || !client->replay)
            continue;
        pool_meta_replayed(im->p, 1);
        rc = client->replay(client->arg, (enum pool_record_kind)v.r.kind, v.op == RECORD_DELETE,
                            v.r.scope, v.r.key, v.r.value, v.r.len);
        if (rc)
            return rc;
    }
    return rc;
}

static int run_apply(struct pool_import_state *im, const uint8_t *bytes, size_t len, bool is_log)
{
    int rc = run_replay(im, bytes, len, is_log);
    if (!rc && is_log && im->image.root.pieces == POOL_LOG_PIECES)
        rc = bytes_append(&im->keep, bytes, len);
    return rc ? rc : pool_records_apply(&im->p->records, bytes, len);
}

/* Adds a batch to its run; applies the run when it is whole. */
static int run_add(struct pool_import_state *im, const struct log_batch *b, bool is_log)
{
    bool more = b->flags & LOG_BATCH_MORE;
    if (!more && !im->run.len)
        return run_apply(im, b->body, b->body_bytes, is_log);
    int rc = bytes_append(&im->run, b->body, b->body_bytes);
    if (rc || more)
        return rc;
    rc = run_apply(im, im->run.bytes, im->run.len, is_log);
    im->run.len = 0;
    return rc;
}

/* CO. */
static int import_snapshot(struct pool_import_state *im)
{
    const struct pool_snapshot_ref *s = &im->image.root.snapshot;
    struct log_reader *r = &im->reader;
    struct log_batch b = {.flags = LOG_BATCH_MORE};
    int rc = log_reader_start(r, &s->start, s->stream, 1, false);
    while (!rc && r->seq <= s->batches) {
        rc = log_reader_next(r, &b);
        if (rc == 0 || rc == VP_E_LOG_DAMAGED)
            rc = VP_E_SNAPSHOT_DAMAGED;
        if (rc == 1)
            rc = run_add(im, &b, false);
    }
    if (!rc && (b.flags & LOG_BATCH_MORE))
        rc = VP_E_SNAPSHOT_DAMAGED;
    im->segments_kept = im->segments;
    if (rc)
        return vp_fail(im->err, rc, "pool %s: snapshot of root %llu, batch %llu: %s", im->p->name,
                       (unsigned long long)im->image.root.number, (unsigned long long)r->seq,
                       vp_err_text(rc));
    return 0;
}

/* CO. Walks a piece; sets the last sequence number of its last whole run. */
static int piece_walk(struct pool_import_state *im, struct pool_log_piece *piece)
{
    bool open = piece->last_seq == POOL_LOG_OPEN;
    struct log_reader *r = &im->reader;
    struct log_batch b;
    uint64_t complete = piece->first_seq - 1;
    im->run.len = 0;
    int rc = log_reader_start(r, &piece->start, piece->stream, piece->first_seq, open);
    while (!rc && r->seq <= piece->last_seq) {
        rc = log_reader_next(r, &b);
        if (rc <= 0)
            break;
        rc = run_add(im, &b, true);
        im->log_pages += div_up(b.bytes, POOL_PAGE);
        if (rc || (b.flags & LOG_BATCH_MORE))
            continue;
        complete = r->seq - 1;
        im->segments_kept = im->segments;
    }
    im->segments = im->segments_kept;
    if (!rc && !open && complete != piece->last_seq)
        rc = VP_E_LOG_DAMAGED;
    piece->last_seq = complete;
    return rc;
}

/* CO. All pieces; im->next.piece becomes what the sealing root says of them. An ejection on the way
 * writes the newest root again, with its last piece open. */
static int import_log(struct pool_import_state *im)
{
    struct pool_root *root = &im->next;
    *root = im->p->root.now;
    for (unsigned i = 0; i < root->pieces; i++) {
        int rc = piece_walk(im, &root->piece[i]);
        if (rc)
            return vp_fail(im->err, rc, "pool %s: log of root %llu, piece %u of %u, batch %llu: %s",
                           im->p->name, (unsigned long long)root->number, i + 1, root->pieces,
                           (unsigned long long)im->reader.seq, vp_err_text(rc));
    }
    const struct pool_log_piece *last = &root->piece[root->pieces - 1];
    if (last->last_seq < last->first_seq)
        root->pieces--; /* nothing in it: nothing to seal */
    return 0;
}

static int import_records(struct pool_import_state *im)
{
    int rc = log_reader_init(&im->reader, im->p);
    if (rc)
        return rc;
    im->reader.enter = segment_note;
    im->reader.enter_arg = im;
    rc = import_snapshot(im);
    return rc ? rc : import_log(im);
}

/* ---- space -------------------------------------------------------------------------------- */

static bool group_is_cut_off(const struct pool_import_state *im, const struct pool_group *g)
{
    bool would_help = false;
    for (unsigned i = 0; i < g->raid.width; i++) {
        if (atomic_load_explicit(&g->raid.disk[i]->in_service, memory_order_acquire))
            return false;
        would_help |= im->missing[g->raid.disk[i]->index];
    }
    return would_help;
}

static bool segment_is_known(const struct pool *p, const struct pool_segment *s)
{
    const struct pool_group *g;
    list_for_each (g, &p->groups, link) {
        uint64_t base = g->raid.base_bytes[0];
        if (g->role == POOL_GROUP_META && g->raid.disk[0]->index == s->place.disk[0] &&
            s->place.at_bytes[0] >= base && s->place.at_bytes[0] - base < g->raid.data_bytes)
            return true;
    }
    return false;
}

/*
 * A chain or a root may lead into a metadata group that was formed a moment before the crash, whose
 * GROUP record was still queued behind what was written to it. Nothing durable names its number or
 * a page of it, and nobody else was given its extents; so it is formed again where it was. Its
 * record goes out with the first commit; until then the next import would do the same.
 */
static int groups_adopt(struct pool_import_state *im)
{
    struct pool *p = im->p;
    int rc = 0;
    for (unsigned i = 0; i < im->segments && !rc; i++) {
        struct pool_batch b;
        if (segment_is_known(p, &im->segment[i]))
            continue;
        pool_batch_init(&b);
        rc = pool_group_adopt(p, &im->segment[i].place, &b);
        if (!rc)
            rc = pool_log_append_nowait(p, &b);
        pool_batch_fini(&b);
    }
    return rc;
}

static int groups_check(struct pool_import_state *im)
{
    struct pool_group *g;
    list_for_each (g, &im->p->groups, link) {
        if (group_is_cut_off(im, g))
            return vp_fail(
                im->err, VP_E_POOL_MISSING_DISK,
                "pool %s: no copy of group %u is on the disks found; the missing ones are "
                "needed",
                im->p->name, g->raid.id);
        int rc = g->role == POOL_GROUP_META ? pool_meta_group_attach(im->p, g) : 0;
        if (rc)
            return rc;
    }
    return 0;
}

static int import_space(struct pool_import_state *im)
{
    int rc = pool_groups_load(im->p, im->err);
    if (!rc)
        rc = groups_adopt(im);
    if (!rc)
        rc = groups_check(im);
    if (!rc)
        rc = pool_meta_load(im->p);
    for (unsigned i = 0; i < im->segments && !rc; i++)
        rc = pool_segment_mark(im->p, &im->segment[i]);
    pool_meta_room_update(im->p);
    return rc;
}

/* ---- the sealing root --------------------------------------------------------------------- */

/* CO. After a kill what we read may be in the disks' caches only, written by a daemon that nobody
 * counts for any more. */
static int flush_what_was_found(struct pool *p)
{
    if (!io_guard_on(GUARD_IMPORT_FLUSH))
        return 0;
    for (unsigned i = 0; i < p->disk_count; i++)
        atomic_fetch_add(&p->disk[i].io.writes_done, 1);
    int rc = raid_flush(p->raid_disk, p->disk_count);
    if (rc) /* what they were to make durable is not to be believed, now or later */
        pool_keep_forget_all(p);
    return rc;
}

/* CO. */
static int import_seal(struct pool_import_state *im)
{
    struct pool *p = im->p;
    struct pool_root next = im->next;
    int rc = pool_log_open(p);
    if (!rc)
        rc = flush_what_was_found(p);
    if (!rc)
        rc = pool_keeps_accept(&im->keeps, p->log.stream.id);
    if (rc)
        return rc;
    next.exported = false;
    if (next.pieces == POOL_LOG_PIECES)
        next.pieces = 0;
    next.piece[next.pieces++] = pool_log_piece_here(p);
    if (next.pieces == 1 && im->keep.len)
        rc = pool_stream_write(p, &p->log.stream, im->keep.bytes, im->keep.len);
    if (!rc) /* the record of a group that was formed for the new segment */
        rc = pool_log_drain(p);
    if (!rc)
        rc = pool_root_write(p, &next);
    p->log.stream.total_pages = next.pieces > PIECES_WANTED ? p->log.limit_pages : im->log_pages;
    return rc;
}

/* The incarnation that the newest root names; none after a clean end of a pool that never served. */
static uint64_t stream_of_last_log(const struct pool_import_state *im)
{
    const struct pool_root *r = &im->image.root;
    return r->pieces ? r->piece[r->pieces - 1].stream : 0;
}

static int import_run(struct pool_import_state *im)
{
    int rc = import_roots(im);
    if (!rc)
        rc = import_records(im);
    if (!rc)
        rc = import_space(im);
    if (!rc)
        rc = pool_keeps_find(im->p, stream_of_last_log(im), &im->keeps);
    if (!rc)
        rc = import_seal(im);
    return rc ? rc : pool_keeps_replay(im->p, &im->keeps);
}

int pool_import(const char *const *paths, unsigned count, const struct pool_client *client,
                struct pool **out, struct vp_error *err)
{
    struct pool *p = *out = pool_new();
    if (!p)
        return vp_fail(err, VP_E_NO_MEMORY, "out of memory");
    struct pool_import_state *im = p->import = calloc(1, sizeof(*im));
    int rc = im ? 0 : VP_E_NO_MEMORY;
    if (client)
        p->client = *client;
    if (!rc) {
        im->p = p;
        im->err = err;
        list_init(&im->keeps);
        /* Whoever asks for a checkpoint before the client is ready has asked too early. */
        atomic_store(&p->checkpoint.requested, true);
        rc = pool_candidates_open(paths, count, &im->candidate, &im->candidates, err);
    }
    if (!rc)
        rc = import_run(im);
    pool_import_state_free(im);
    p->import = NULL;
    atomic_store(&p->checkpoint.requested, false);
    if (!rc)
        return 0;
    if (err && err->rc != rc)
        vp_ignore(vp_fail(err, rc, "pool %s: %s", p->name, vp_err_text(rc)), "rc says it");
    *out = NULL;
    pool_abandon(p);
    return rc;
}

/*
 * Import: from labelled disks to a pool that serves.
 *
 *     roots of all disks ─ the newest counts ─ disk table: who is in service, who is stale
 *       ─ table image ─ log pieces, the open one to its end ─ groups, page bitmaps ─ sealing root
 *
 *  I1  The open piece ends at the first batch that no copy has whole. An acknowledged batch is on
 *      every disk that was in service, so it is on every disk that the newest root lets us read.
 *  I2  The sealing root fixes that end: it closes the pieces found, and a new stream begins. A
 *      batch that was found will be found again, because its copies were made equal. A batch that
 *      was not found never appears.
 *  I3  Nothing is served before the sealing root is durable. A crash until then changes nothing.
 *  I4  A disk that the newest root calls out is stale and is not read (GUARD_STALE_DISK). A disk
 *      that the root counts on but that is not here goes out with the sealing root, if at least
 *      half of the disks and some copy of every group are here. With fewer than half, the disks
 *      that are not here may have gone on without these, so only an operator can say that they are
 *      lost (POOL_IMPORT_DEGRADED). One disk in service is always needed: one that says itself that
 *      it is out knows that it is behind. Two disks of which one calls the other out, and is out
 *      for it, went separate ways: VP_E_POOL_SPLIT, since nobody can know which one the user wants.
 *      Disks of two such ways are always told apart. They part at a root on which both count. The
 *      disks that go on one way are out on the other, since they were not there; and a disk that is
 *      out comes back only under another uuid (return.c, B1). A root that a crash cut off before
 *      all disks had it is no way of its own: a disk that went on without the one that has it calls
 *      that one out in a root of the same number, and is called out by nobody. That root is the
 *      newest.
 *  I5  What was found is durable before anything builds on it (GUARD_IMPORT_FLUSH), because a
 *      killed daemon leaves it in the disks' caches. The log's tail is also written again
 *      (log_read.c), so that it does not depend on a flush that follows a failed one.
 *  I6  What a killed daemon kept in memory goes into the log before anything is served. Where that
 *      memory cannot be looked at, the import is refused and the memory stays.
 *  I7  What could not be read is not taken for what is not there. Where no copy of the log can be
 *      read, its end is not known (VP_E_LOG_UNREADABLE). A disk whose root slots cannot be read, or
 *      that has no valid root, may know a newer root than the others, so no other disk's root
 *      counts on it. The disk is missing where the roots of more than half of the disks in service
 *      are known. Else the import is refused (VP_E_ROOT_UNREADABLE).
 *  I8  A disk that does not take a repair of the log goes out only when the groups are known, and
 *      not at all if it holds the last copy of metadata. A failed flush (I5) is the one thing that
 *      changes something durable before the sealing root: a root of its own, with the same table
 *      image and log, calls the disk out. This is needed: a later import would find the disk in
 *      order, flush it with success, and believe what the failed flush has lost. That root is like
 *      any other (root.c), and the next import finds the same log without that disk. If the disk
 *      has the last copy of data, which could only be read then, the import is refused instead. A
 *      durable write that fails before the import has flushed the disk counts as a failed flush.
 *      An import that fails after that, with the disk still in service, forgets what was kept.
 *  I9  A disk in service whose own newest root is older than it can be was set back (an old image
 *      was put in its place). It is out, like a missing disk.
 *
 * Each import takes a segment, and a pool whose metadata are full has few segments to give. So when
 * there are several pieces, because no checkpoint came between imports, the new stream begins with
 * a copy of all their records, and is the only piece. Where the copy finds no room the pieces stay,
 * as long as the root has a place for one more.
 *
 * Everything read here is untrusted. Cost: labels, roots, table image, log.
 */
#include "pool/import_impl.h"
#include "pool/keep_impl.h"

#include "base/log.h"
#include "io/guard.h"

#include <stdlib.h>

enum {
    PIECES_WANTED = 4,          /* beyond, the next commit asks for a checkpoint */
    MERGE_BYTES_MAX = 64 << 20, /* of records, unless pieces must be merged */
    APPLY_A_TURN = 64 << 10,    /* bytes of records */
    RECORDS_A_TURN = 1024,
    GROUPS_A_TURN = 512,
};

CO void pool_import_state_free(struct pool_import_state *im)
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
    free(im);
}

/* ---- table image and log --------------------------------------------------------------------- */

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
static CO int run_replay(struct pool_import_state *im, const uint8_t *bytes, size_t len,
                         bool is_log)
{
    const struct pool_client *client = &im->p->client;
    struct record_view v;
    size_t at = 0;
    unsigned n = 0;
    int rc;
    while ((rc = record_decode(bytes, len, &at, &v)) > 0) {
        if (++n % RECORDS_A_TURN == 0)
            co_yield ();
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

/* Nobody else uses the table during an import, and one that fails ends here. */
static CO int run_apply_in_turns(struct pool_records *t, const uint8_t *bytes, size_t len)
{
    struct record_view v;
    size_t at = 0, from = 0;
    int rc;
    while ((rc = record_decode(bytes, len, &at, &v)) > 0) {
        if (at - from < APPLY_A_TURN)
            continue;
        rc = pool_records_apply(t, bytes + from, at - from);
        if (rc)
            return rc;
        from = at;
        co_yield ();
    }
    return rc ? rc : pool_records_apply(t, bytes + from, len - from);
}

/* Keeps the bytes of a run, for merging the pieces. They have to be merged only when the root is
 * full. */
static int run_keep(struct pool_import_state *im, const uint8_t *bytes, size_t len)
{
    struct pool_batch *keep = &im->keep;
    bool must = im->image.root.pieces == POOL_LOG_PIECES;
    if (im->image.root.pieces == 1 || keep->failed)
        return 0;
    int rc =
        must || keep->len + len <= MERGE_BYTES_MAX ? bytes_append(keep, bytes, len) : VP_E_TOO_BIG;
    keep->failed = rc != 0;
    return must ? rc : 0;
}

static CO int run_apply(struct pool_import_state *im, const uint8_t *bytes, size_t len, bool is_log)
{
    int rc = run_replay(im, bytes, len, is_log);
    if (!rc && is_log)
        rc = run_keep(im, bytes, len);
    return rc ? rc : run_apply_in_turns(&im->p->records, bytes, len);
}

/* Adds a batch of the log to its run; applies the run when it is whole. */
static CO int run_add(struct pool_import_state *im, const struct log_batch *b)
{
    bool more = b->flags & LOG_BATCH_MORE;
    if (!more && !im->run.len)
        return run_apply(im, b->body, b->body_bytes, true);
    int rc = bytes_append(&im->run, b->body, b->body_bytes);
    if (rc || more)
        return rc;
    rc = run_apply(im, im->run.bytes, im->run.len, true);
    im->run.len = 0;
    return rc;
}

/* The image is one run, too, and as long as the table. But no part of it counts unless the import
 * succeeds, so its records are applied as they come. What is left of im->run begins a record that
 * the next batch ends. */
static CO int table_image_add(struct pool_import_state *im, const struct log_batch *b)
{
    struct pool_batch *run = &im->run;
    struct record_view v;
    size_t whole = 0;
    int rc = bytes_append(run, b->body, b->body_bytes);
    while (!rc && (rc = record_decode(run->bytes, run->len, &whole, &v)) > 0)
        rc = 0;
    if (rc == VP_E_RECORD_SHORT && b->flags & LOG_BATCH_MORE)
        rc = 0;
    if (!rc)
        rc = run_apply(im, run->bytes, whole, false);
    if (rc)
        return rc;
    run->len -= whole;
    memmove(run->bytes, run->bytes + whole, run->len);
    co_yield ();
    return 0;
}

/* The full image, or a delta. */
static CO int import_image(struct pool_import_state *im, const struct pool_table_image_ref *s,
                           const char *what)
{
    struct log_reader *r = &im->reader;
    struct log_batch b = {.flags = LOG_BATCH_MORE};
    unsigned before = im->segments;
    int rc = log_reader_start(r, &s->start, s->stream, 1, false);
    while (!rc && r->seq <= s->batches) {
        rc = log_reader_next(r, &b);
        if (rc == 0 || rc == VP_E_LOG_DAMAGED)
            rc = VP_E_TABLE_IMAGE_DAMAGED;
        if (rc == 1)
            rc = table_image_add(im, &b);
    }
    if (!rc && (b.flags & LOG_BATCH_MORE))
        rc = VP_E_TABLE_IMAGE_DAMAGED;
    if (!rc)
        rc = pool_image_found(im->p, im->segment + before, im->segments - before);
    if (rc)
        return vp_fail(im->err, rc, "pool %s: %s of root %llu, batch %llu: %s", im->p->name, what,
                       (unsigned long long)im->image.root.number, (unsigned long long)r->seq,
                       vp_err_text(rc));
    return 0;
}

/* The full image, and its deltas over it. */
static CO int import_images(struct pool_import_state *im)
{
    const struct pool_root *root = &im->image.root;
    struct pool_records *t = &im->p->records;
    pool_records_load_begin(t);
    int rc = import_image(im, &root->table_image, "table image");
    for (unsigned i = 0; i < root->deltas && !rc; i++) {
        pool_records_range_begin(t);
        rc = import_image(im, &root->delta[i], "a delta");
    }
    if (rc)
        return rc;
    pool_records_range_begin(t);
    pool_records_load_end(t);
    im->segments_kept = im->segments_of_images = im->segments;
    return 0;
}

/* CO. Walks a piece; sets the last sequence number of its last whole run. */
static CO int piece_walk(struct pool_import_state *im, struct pool_log_piece *piece)
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
        rc = run_add(im, &b);
        im->log_pages += div_up(b.bytes, POOL_PAGE);
        if (rc || (b.flags & LOG_BATCH_MORE))
            continue;
        complete = r->seq - 1;
        im->segments_kept = im->segments;
    }
    im->segments = im->segments_kept;
    if (!rc && open)
        log_reader_settle(r);
    if (!rc && !open && complete != piece->last_seq)
        rc = VP_E_LOG_DAMAGED;
    piece->last_seq = complete;
    return rc;
}

/* CO. All pieces; im->next.piece becomes what the sealing root says of them. An ejection on the way
 * writes the newest root again, with its last piece open. */
static CO int import_log(struct pool_import_state *im)
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

static CO int import_records(struct pool_import_state *im)
{
    int rc = log_reader_init(&im->reader, im->p);
    if (rc)
        return rc;
    pool_records_reserve(im->p);
    im->reader.enter = segment_note;
    im->reader.enter_arg = im;
    rc = import_images(im);
    return rc ? rc : import_log(im);
}

/* ---- space -------------------------------------------------------------------------------- */

static bool group_is_cut_off(const struct pool_import_state *im, const struct pool_group *g)
{
    bool would_help = false;
    for (unsigned i = 0; i < g->raid->width; i++) {
        if (raid_disk_is_current(g->raid->disk[i]))
            return false;
        unsigned disk = g->raid->disk[i]->index;
        would_help |= im->missing[disk] && (g->raid->width == 1 || !im->was_behind[disk]);
    }
    return would_help;
}

static bool segment_is_known(const struct pool *p, const struct pool_segment *s)
{
    const struct pool_group *g;
    list_for_each (g, &p->meta_groups, link) {
        uint64_t base = g->raid->base_bytes[0];
        if (g->raid->disk[0]->index == s->place.disk[0] && s->place.at_bytes[0] >= base &&
            s->place.at_bytes[0] - base < g->raid->data_bytes)
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

static CO int groups_check(struct pool_import_state *im, struct list *groups)
{
    struct pool_group *g;
    unsigned n = 0;
    list_for_each (g, groups, link) {
        if (group_is_cut_off(im, g))
            return vp_fail(
                im->err, VP_E_POOL_MISSING_DISK,
                "pool %s: no copy of group %u is on the disks found; the missing ones are "
                "needed",
                im->p->name, g->raid->id);
        int rc = g->role == POOL_GROUP_META ? pool_meta_group_attach(im->p, g) : 0;
        if (rc)
            return rc;
        if (++n % GROUPS_A_TURN == 0)
            co_yield ();
    }
    return 0;
}

/* Disks that did not take a repair of the log (I8). */
static int disks_leave(struct pool_import_state *im)
{
    struct pool *p = im->p;
    for (unsigned i = 0; i < p->disk_count; i++) {
        int cause = im->reader.repair_rc[i];
        if (!cause)
            continue;
        int rc = pool_disk_mark_out(p, &p->disk[i], cause,
                                    "a copy of the metadata log cannot be repaired");
        if (rc)
            return vp_fail(im->err, rc,
                           "pool %s: disk %u (%s) holds the last copy of some metadata and cannot "
                           "be written: %s; nothing was changed, try again",
                           p->name, i, p->disk[i].path, vp_err_text(cause));
    }
    return 0;
}

static CO int import_space(struct pool_import_state *im)
{
    int rc = pool_groups_load(im->p, im->err);
    if (!rc)
        rc = groups_adopt(im);
    if (!rc)
        rc = groups_check(im, &im->p->meta_groups);
    if (!rc)
        rc = groups_check(im, &im->p->groups);
    if (!rc)
        rc = disks_leave(im);
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
static CO int flush_what_was_found(struct pool_import_state *im)
{
    struct pool *p = im->p;
    if (!io_guard_on(GUARD_IMPORT_FLUSH))
        return 0;
    int rc = raid_flush(p->raid_disk, p->disk_count);
    if (!rc)
        return 0;
    for (unsigned i = 0; i < p->disk_count; i++)
        if (!p->disk[i].stale && atomic_load(&p->disk[i].io.flush_failed))
            return vp_fail(im->err, rc,
                           "pool %s: disk %u (%s) holds the last copy of some metadata or data and "
                           "cannot be flushed: %s; try again",
                           p->name, i, p->disk[i].path,
                           vp_err_text(atomic_load(&p->disk[i].io.flush_failed)));
    return rc;
}

/* The sealing root names the merged piece alone. What it replaces is free at once: until the next
 * checkpoint there may be no room for both. */
static void merged_pieces_free(struct pool_import_state *im)
{
    for (unsigned i = im->segments_of_images; i < im->segments; i++)
        pool_segment_free(im->p, &im->segment[i]);
    pool_meta_room_update(im->p);
}

/* Whether the new stream replaces the pieces that were found: when the root has no place for one
 * more; and else when there are several and whole segments for the copy. */
static bool pieces_are_to_merge(const struct pool_import_state *im)
{
    unsigned pieces = im->next.pieces;
    return pieces == POOL_LOG_PIECES ||
           (pieces > 1 && !im->keep.failed &&
            pool_run_segments(im->p, im->keep.len) <= pool_segments_free(im->p));
}

/* CO. */
static CO int import_seal(struct pool_import_state *im)
{
    struct pool *p = im->p;
    struct pool_root next = im->next;
    bool merge = pieces_are_to_merge(im);
    int rc = pool_import_roots_level(im);
    if (!rc)
        rc = pool_log_open(p);
    if (!rc)
        rc = flush_what_was_found(im);
    if (!rc)
        rc = pool_keeps_accept(p, &im->keeps, p->log.stream.id, im->err);
    if (rc)
        return rc;
    next.exported = false;
    next.pieces = merge ? 0 : next.pieces;
    next.piece[next.pieces++] = pool_log_piece_here(p);
    if (merge)
        rc = pool_stream_write(p, &p->log.stream, im->keep.bytes, im->keep.len, false);
    if (!rc) /* the record of a group that was formed for the new segment */
        rc = pool_log_drain(p);
    if (!rc)
        rc = pool_root_write(p, &next);
    if (!rc && merge)
        merged_pieces_free(im);
    if (!merge)
        p->log.stream.total_pages =
            next.pieces > PIECES_WANTED ? p->log.limit_pages : im->log_pages;
    return rc;
}

/* CO. The root's last piece, as it was found, tells whether what was kept is ours; also where it is
 * empty, and im->next does not count it any more. */
static CO int import_keeps_find(struct pool_import_state *im)
{
    int rc = pool_keeps_find(im->p, &im->next.piece[im->image.root.pieces - 1], &im->keeps);
    if (rc)
        return vp_fail(im->err, rc,
                       "pool %s: what a killed daemon may have kept in memory cannot be read: %s; "
                       "it stays, and another import tries again",
                       im->p->name, vp_err_text(rc));
    return 0;
}

static CO int import_steps(struct pool_import_state *im)
{
    int rc = pool_import_roots(im);
    if (!rc)
        rc = import_records(im);
    if (!rc)
        rc = import_space(im);
    if (!rc)
        rc = import_keeps_find(im);
    if (!rc)
        rc = import_seal(im);
    if (!rc)
        rc = pool_keeps_replay(im->p, &im->keeps, im->err);
    return rc ? rc : pool_jobs_load(im->p);
}

/* CO. A later import would find a disk in order whose flush failed now, and believe what was lost.
 * So what was kept is forgotten, unless a durable root calls the disk out. */
static CO int import_run(struct pool_import_state *im)
{
    struct pool *p = im->p;
    int rc = import_steps(im);
    if (rc && pool_disks_lost_writes(p))
        pool_keeps_forget(p, p->root.now.piece[p->root.now.pieces - 1].stream);
    return rc;
}

CO int pool_import(const char *const *paths, unsigned count, unsigned flags,
                   const struct pool_client *client, struct pool **out, struct vp_error *err)
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
        im->degraded = flags & POOL_IMPORT_DEGRADED;
        list_init(&im->keeps);
        /* Before the client is ready there are no checkpoints in the background. */
        pool_checkpoints_hold(p);
        rc = pool_candidates_open(paths, count, &im->candidate, &im->candidates, err);
    }
    if (!rc)
        rc = import_run(im);
    pool_import_state_free(im);
    p->import = NULL;
    if (!rc) {
        pool_checkpoints_release(p);
        return 0;
    }
    if (err && err->rc != rc)
        vp_ignore(vp_fail(err, rc, "pool %s: %s", p->name, vp_err_text(rc)), "rc says it");
    pool_abandon_in_turns(p);
    *out = NULL;
    return rc;
}

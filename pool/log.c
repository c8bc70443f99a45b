/*
 * The log: commits become runs of batches, and runs become durable one after the other.
 *
 * A commit applies its records to the table, queues its bytes and waits. A commit that finds no
 * writer becomes the writer. The writer takes what is queued (group commit), writes it as one run,
 * and wakes the commits whose bytes went with the run. At most one batch is in flight. Import
 * relies on two consequences:
 *
 *  L1  A batch follows in the same segment only when the batch before was durable on every copy in
 *      service. So a gap with a later batch behind it is damage, never a torn tail.
 *  L2  Only the last batch (and the JUMP written beside it) can be missing on some copies.
 *
 * When metadata outgrow their groups, a group is formed for the next segment:
 *
 *  L3  The record of that group is in the first run that counts on the group, and like the rest of
 *      the run it counts whole or not at all. It may even be in the new segment, because walking
 *      the log needs no groups. So such a run takes everything with it that is queued, up to that
 *      record.
 *
 *     segment  │ 1 │ 2   │ 3 (MORE) │ JUMP 4 │          segment │ 5 │ 6 …
 *                                      └ written with 5 ─────────┘
 *
 * One page at the end of each segment is kept for the JUMP. A run goes to a new segment when it
 * does not fit in the rest of this segment but would fit there. A longer run is cut to fill what
 * there is.
 *
 * A copy that cannot be written is ejected, durably, by a new root (root.c), before the commit is
 * acknowledged. When no copy is left, the pool is fenced.
 *
 * Memory: each stream has one segment's buffer. A commit allocates nothing but table nodes.
 */
#include "pool/meta_impl.h"

#include "io/guard.h"

#include <stdlib.h>

enum { RUN_MAX_BYTES = 256 << 10 }; /* commits are gathered up to this */

/* A commit on its way. On its caller's stack, or on the heap when nobody waits for it. */
struct log_entry {
    struct list link; /* queue, or the run being written */
    struct list own;  /* log.owned, when on the heap     */
    const uint8_t *bytes;
    size_t len;
    struct co *waiter; /* suspended */
    bool done;
    int rc;
    struct pool_batch batch; /* the bytes, when on the heap */
};

/* ---- writing one batch to all copies ------------------------------------------------------ */

/* A batch, and the JUMP that leads to its segment, in flight. */
struct stream_io {
    struct io_batch batch;
    struct io_op op[2 * POOL_META_COPIES_MAX];
    struct pool_disk *disk[2 * POOL_META_COPIES_MAX];
    unsigned part[2 * POOL_META_COPIES_MAX]; /* 0 or 1: which of the two writes */
    unsigned count, parts;
    struct pool_disk *left_out; /* a disk whose ejection is not durable yet, or NULL */
};

static bool disk_serves(const struct pool_disk *d)
{
    return atomic_load_explicit(&d->io.in_service, memory_order_acquire);
}

static void stream_io_add(struct pool *p, struct stream_io *io, const struct pool_segment *s,
                          uint32_t page, const void *buf, uint32_t pages, bool durable)
{
    for (unsigned i = 0; i < s->place.copies; i++) {
        struct pool_disk *d = &p->disk[s->place.disk[i]];
        if (!disk_serves(d)) {
            if (atomic_load_explicit(&d->io.eject_pending, memory_order_acquire))
                io->left_out = d;
            continue;
        }
        struct io_op *op = &io->op[io->count];
        io_op_set(op, d->io.dev, IO_WRITE, s->place.at_bytes[i] + (uint64_t)page * POOL_PAGE, buf,
                  (uint64_t)pages * POOL_PAGE, durable ? IO_FUA : 0);
        io->disk[io->count] = d;
        io->part[io->count++] = io->parts;
        io_batch_add(&io->batch, op);
    }
    io->parts++;
}

static void stream_io_account(struct stream_io *io)
{
    for (unsigned i = 0; i < io->count; i++) {
        struct raid_disk *d = &io->disk[i]->io;
        raid_figure_write(d, io->op[i].rc, io->op[i].len, io_op_took_ns(&io->op[i]));
        if (!io->op[i].rc && !(io->op[i].flags & IO_FUA))
            d->writes_done++; /* for the next flush to cover */
    }
}

/* Each of the writes is on some disk that is still in service and not behind. */
static bool stream_io_survived(const struct stream_io *io)
{
    for (unsigned part = 0; part < io->parts; part++) {
        bool found = false;
        for (unsigned i = 0; i < io->count; i++)
            found |= io->part[i] == part && !io->op[i].rc && raid_disk_is_current(&io->disk[i]->io);
        if (!found)
            return false;
    }
    return true;
}

static CO void stream_io_retry(struct stream_io *io)
{
    struct raid_disk *disk[2 * POOL_META_COPIES_MAX];
    for (unsigned i = 0; i < io->count; i++)
        disk[i] = &io->disk[i]->io;
    raid_retry(disk, io->op, io->count);
}

/* CO. Waits, tries what failed again, ejects what failed for good. */
static CO int stream_io_finish(struct pool *p, struct stream_io *io)
{
    if (io_batch_wait(&io->batch))
        stream_io_retry(io);
    stream_io_account(io);
    /* A write that goes on without a disk waits until the ejection of that disk is durable, whoever
     * ejected it. One such call covers every disk that is out by now. */
    if (io->left_out && io_guard_on(GUARD_EJECT_BEFORE_ACK)) {
        int rc = pool_disk_eject(p, io->left_out, VP_E_RAID_DISK_OUT, "out of service");
        if (rc)
            return rc;
    }
    for (unsigned i = 0; i < io->count; i++) {
        bool replaced = io->op[i].dev != io->disk[i]->io.dev; /* so it was out, and is behind */
        if (!io->op[i].rc)
            continue;
        int rc = pool_disk_eject(p, io->disk[i], replaced ? VP_E_RAID_DISK_OUT : io->op[i].rc,
                                 "a write of metadata failed");
        if (rc) {
            pool_fence(p, "a disk failed a write of metadata and cannot be taken out");
            return rc;
        }
    }
    if (stream_io_survived(io))
        return 0;
    pool_fence(p, "no copy of the metadata log can be written");
    return VP_E_POOL_FENCED;
}

/* ---- streams ------------------------------------------------------------------------------ */

uint32_t pool_segment_pages(const struct pool *p)
{
    return p->geometry.log_segment_bytes / POOL_PAGE;
}

/* A segment of an image: it is freed with the image. */
static int image_segment_take(struct pool *p, const struct pool_segment *s)
{
    struct pool_image *im = &p->checkpoint.writing;
    pool_segment_mark_young(p, s);
    if (im->segments == im->capacity) {
        unsigned capacity = im->capacity ? 2 * im->capacity : 4;
        struct pool_segment *grown = realloc(im->segment, capacity * sizeof(*grown));
        if (!grown)
            return VP_E_NO_MEMORY;
        im->segment = grown;
        im->capacity = capacity;
    }
    im->segment[im->segments++] = *s;
    return 0;
}

int pool_stream_open(struct pool *p, struct pool_stream *s, bool durable)
{
    size_t buf_bytes = ((size_t)pool_segment_pages(p) + 1) * POOL_PAGE;
    if (!s->buf) {
        s->buf = aligned_alloc(POOL_PAGE, buf_bytes);
        if (!s->buf)
            return VP_E_NO_MEMORY;
        memset(s->buf, 0, buf_bytes); /* no commit has to wait for memory */
    }
    int rc = pool_segment_alloc(p, pool_segment_pages(p), &s->segment);
    if (!rc && !durable)
        rc = image_segment_take(p, &s->segment);
    if (rc)
        return rc;
    reactor_random(&s->id, sizeof(s->id));
    s->next_seq = 1;
    s->used_pages = 0;
    s->total_pages = 0;
    s->durable = durable;
    return 0;
}

void pool_stream_close(struct pool_stream *s)
{
    free(s->buf);
    *s = (struct pool_stream){0};
}

/* Bytes of records that a batch of so many pages holds. */
static size_t body_room(uint32_t pages)
{
    return pages ? (size_t)pages * POOL_PAGE - sizeof(struct log_batch_header) : 0;
}

uint64_t pool_run_segments(const struct pool *p, size_t bytes)
{
    return div_up(bytes, body_room(pool_segment_pages(p) - 1));
}

/* Pages for batches that the segment has left. */
static uint32_t stream_room_pages(const struct pool_stream *s)
{
    return s->segment.pages - 1 - s->used_pages;
}

size_t pool_stream_room(const struct pool *p, const struct pool_stream *s)
{
    size_t here = body_room(stream_room_pages(s));
    return here ? here : body_room(pool_segment_pages(p) - 1);
}

static bool stream_must_jump(const struct pool *p, const struct pool_stream *s, size_t left)
{
    size_t here = body_room(stream_room_pages(s));
    return left > here && (!here || left <= body_room(pool_segment_pages(p) - 1));
}

/* Builds the JUMP to `to` in the buffer's last page; its write is added to io. */
static void stream_jump(struct pool *p, struct pool_stream *s, const struct pool_segment *to,
                        struct stream_io *io)
{
    uint8_t *page = s->buf + (size_t)pool_segment_pages(p) * POOL_PAGE;
    struct log_segment target;
    log_segment_encode(to, &p->geometry, &target);
    memcpy(page + sizeof(struct log_batch_header), &target, sizeof(target));
    log_batch_seal(page, p->uuid, s->id, s->next_seq++, LOG_BATCH_JUMP, sizeof(target));
    stream_io_add(p, io, &s->segment, s->used_pages, page, 1, s->durable);
    s->segment = *to;
    s->used_pages = 0;
    s->total_pages++;
}

/* The bytes of a list of entries, taken piece by piece. */
struct run {
    struct pool_log *log; /* whose queue it may take more from; NULL: none */
    struct list *entries;
    struct log_entry *entry;
    size_t offset, left;
    bool more; /* what is here is not the end of the run */
};

static void run_take(struct run *r, uint8_t *to, size_t len)
{
    r->left -= len;
    while (len) {
        size_t n = min_u64(len, r->entry->len - r->offset);
        if (n)
            memcpy(to, r->entry->bytes + r->offset, n);
        to += n;
        len -= n;
        r->offset += n;
        if (r->offset == r->entry->len && r->entry->link.next != r->entries) {
            r->entry = list_first(&r->entry->link, struct log_entry, link);
            r->offset = 0;
        }
    }
}

/* Moves queued commits to `run`, up to a limit, or all of them (L3). Returns their bytes. */
static size_t queue_take(struct pool_log *l, struct list *run)
{
    size_t total = 0;
    while (!list_empty(&l->queue)) {
        struct log_entry *e = list_first(&l->queue, struct log_entry, link);
        if (total && total + e->len > RUN_MAX_BYTES && !l->group_due)
            break;
        list_del(&e->link);
        list_add_tail(run, &e->link);
        total += e->len;
    }
    if (list_empty(&l->queue))
        l->group_due = false;
    VP_VERIFY(l->queued_bytes, >=, total);
    l->queued_bytes -= total;
    return total;
}

/* CO. The next batch of the run, with a JUMP before it where it needs one. */
static CO int stream_write_batch(struct pool *p, struct pool_stream *s, struct run *r)
{
    struct stream_io io = {0};
    io_batch_init(&io.batch);
    if (stream_must_jump(p, s, r->left)) {
        struct pool_segment next;
        int rc = pool_segment_alloc(p, pool_segment_pages(p), &next);
        if (!rc && !s->durable)
            rc = image_segment_take(p, &next);
        if (rc)
            return rc;
        if (r->log && r->log->group_due)
            r->left += queue_take(r->log, r->entries);
        stream_jump(p, s, &next, &io);
    }
    size_t body = min_u64(r->left, body_room(stream_room_pages(s)));
    run_take(r, s->buf + sizeof(struct log_batch_header), body);
    uint32_t pages = log_batch_seal(s->buf, p->uuid, s->id, s->next_seq++,
                                    r->left || r->more ? LOG_BATCH_MORE : 0, (uint32_t)body);
    bool durable = s->durable && io_guard_on(GUARD_LOG_FLUSH);
    stream_io_add(p, &io, &s->segment, s->used_pages, s->buf, pages, durable);
    s->used_pages += pages;
    s->total_pages += pages;
    return stream_io_finish(p, &io);
}

static CO int stream_write_run(struct pool *p, struct pool_stream *s, struct run *r)
{
    while (r->left) {
        if (pool_is_fenced(p))
            return VP_E_POOL_FENCED;
        int rc = stream_write_batch(p, s, r);
        if (rc)
            return rc;
    }
    return 0;
}

/* All entries as one run; from `log`, if it is that, more may come. */
static struct run run_of(struct pool_log *log, struct list *entries, size_t total)
{
    return (struct run){
        .log = log,
        .entries = entries,
        .entry = list_first(entries, struct log_entry, link),
        .left = total,
    };
}

CO int pool_stream_write(struct pool *p, struct pool_stream *s, const uint8_t *bytes, size_t len,
                         bool more)
{
    struct log_entry e = {.bytes = bytes, .len = len};
    struct list entries;
    list_init(&entries);
    list_add_tail(&entries, &e.link);
    struct run r = run_of(NULL, &entries, len);
    r.more = more;
    return stream_write_run(p, s, &r);
}

/* ---- the writer --------------------------------------------------------------------------- */

static void entry_wake(struct log_entry *e)
{
    if (!e->waiter)
        return;
    struct co *co = e->waiter;
    e->waiter = NULL;
    co_wake(co);
}

/* Lets the next one write: a cut, which is handed the writer's place, so that commits that follow
 * one another closely cannot keep it waiting; else a queued commit. */
static void writer_leave(struct pool_log *l)
{
    if (!co_queue_is_empty(&l->idle)) {
        co_queue_wake_one(&l->idle);
        return;
    }
    l->writing = false;
    struct log_entry *e;
    list_for_each (e, &l->queue, link) {
        if (e->waiter) {
            entry_wake(e);
            return;
        }
    }
}

static void entry_finish(struct log_entry *e, int rc)
{
    list_del(&e->link);
    e->rc = rc;
    e->done = true;
    if (e->batch.bytes) {
        list_del(&e->own);
        pool_batch_fini(&e->batch);
        free(e);
        return;
    }
    entry_wake(e);
}

/* CO. As the writer: one run. */
static CO void log_write_some(struct pool *p)
{
    struct pool_log *l = &p->log;
    struct list run;
    list_init(&run);
    size_t total = queue_take(l, &run);
    struct run r = run_of(l, &run, total);
    int rc = pool_is_fenced(p) ? VP_E_POOL_FENCED : stream_write_run(p, &l->stream, &r);
    if (rc)
        pool_fence(p, "the metadata log cannot be extended");
    else /* before whoever waits for one of these commits goes on */
        atomic_store_explicit(&l->durable_seq, l->stream.next_seq - 1, memory_order_relaxed);
    while (!list_empty(&run))
        entry_finish(list_first(&run, struct log_entry, link), rc ? VP_E_POOL_FENCED : 0);
    if (l->stream.total_pages > l->limit_pages)
        pool_checkpoint_request(p);
}

/* CO. */
static CO int log_wait(struct pool *p, struct log_entry *e)
{
    struct pool_log *l = &p->log;
    while (!e->done) {
        if (l->writing) {
            e->waiter = co_self();
            co_suspend("log");
            continue;
        }
        l->writing = true;
        log_write_some(p);
        writer_leave(l);
    }
    return e->rc;
}

/* CO. Becomes the writer without writing. */
static CO void writer_enter(struct pool_log *l)
{
    if (l->writing)
        co_queue_wait(&l->idle, "log writer"); /* writer_leave hands its place over */
    l->writing = true;
}

/* ---- commits ------------------------------------------------------------------------------ */

/* Room for what is queued and `len` more is certain, also if it needs new segments. */
static bool log_has_room(const struct pool *p, size_t len)
{
    uint64_t segments = pool_run_segments(p, p->log.queued_bytes + len) + 1;
    return segments * pool_segment_pages(p) <= p->meta.pages_free + p->meta.formable_pages;
}

static int commit_apply(struct pool *p, const struct pool_batch *b)
{
    if (b->failed)
        return VP_E_NO_MEMORY;
    if (pool_is_fenced(p))
        return VP_E_POOL_FENCED;
    if (!log_has_room(p, b->len))
        return VP_E_POOL_FULL_META;
    return pool_records_apply(&p->records, b->bytes, b->len);
}

static void log_enqueue(struct pool_log *l, struct log_entry *e)
{
    list_add_tail(&l->queue, &e->link);
    l->queued_bytes += e->len;
}

CO int pool_commit_home(struct pool *p, struct pool_batch *b)
{
    int rc = commit_apply(p, b);
    if (rc)
        return rc;
    struct log_entry e = {.bytes = b->bytes, .len = b->len};
    log_enqueue(&p->log, &e);
    return log_wait(p, &e);
}

int pool_log_append_nowait(struct pool *p, struct pool_batch *b)
{
    if (b->failed)
        return VP_E_NO_MEMORY;
    if (!b->len)
        return 0;
    struct log_entry *e = calloc(1, sizeof(*e));
    if (!e)
        return VP_E_NO_MEMORY;
    int rc = pool_records_apply(&p->records, b->bytes, b->len);
    if (rc) {
        free(e);
        return rc;
    }
    e->batch = *b;
    pool_batch_init(b);
    e->bytes = e->batch.bytes;
    e->len = e->batch.len;
    list_add_tail(&p->log.owned, &e->own);
    log_enqueue(&p->log, e);
    return 0;
}

struct commit_call {
    struct pool *p;
    struct pool_batch *b;
};

static CO int commit_call_run(void *arg)
{
    struct commit_call *c = arg;
    return pool_commit_home(c->p, c->b);
}

CO int pool_commit(struct pool *p, struct pool_batch *b)
{
    struct commit_call c = {p, b};
    return reactor_call(p->home, commit_call_run, &c);
}

CO int pool_log_drain(struct pool *p)
{
    if (list_empty(&p->log.queue) && !p->log.writing)
        return pool_is_fenced(p) ? VP_E_POOL_FENCED : 0;
    struct log_entry e = {0};
    log_enqueue(&p->log, &e);
    return log_wait(p, &e);
}

/* ---- life --------------------------------------------------------------------------------- */

void pool_log_init(struct pool *p)
{
    list_init(&p->log.queue);
    list_init(&p->log.owned);
    co_queue_init(&p->log.idle);
}

void pool_log_fini(struct pool *p)
{
    /* The queue's other entries are on stacks that may be gone: only what we own is touched. */
    struct list *e;
    while ((e = list_pop(&p->log.owned))) {
        struct log_entry *entry = container_of(e, struct log_entry, own);
        pool_batch_fini(&entry->batch);
        free(entry);
    }
    pool_stream_close(&p->log.stream);
}

int pool_log_open(struct pool *p)
{
    return pool_stream_open(p, &p->log.stream, true);
}

struct pool_log_piece pool_log_piece_here(const struct pool *p)
{
    const struct pool_stream *s = &p->log.stream;
    return (struct pool_log_piece){
        .start = s->segment, .stream = s->id, .first_seq = s->next_seq, .last_seq = POOL_LOG_OPEN};
}

/* CO. As the writer. */
static CO int log_cut_now(struct pool *p, struct pool_log_piece *piece)
{
    struct pool_stream *s = &p->log.stream;
    struct stream_io io = {0};
    struct pool_segment next;
    io_batch_init(&io.batch);
    p->log.cut_pages = 0;
    if (pool_is_fenced(p))
        return VP_E_POOL_FENCED;
    pool_meta_cut(p);
    int rc = pool_segment_alloc(p, pool_segment_pages(p), &next);
    if (rc)
        return rc;
    stream_jump(p, s, &next, &io);
    p->log.cut_pages = s->total_pages;
    s->total_pages = 0;
    *piece = pool_log_piece_here(p);
    return stream_io_finish(p, &io);
}

CO int pool_log_cut(struct pool *p, struct pool_log_piece *piece)
{
    writer_enter(&p->log);
    int rc = log_cut_now(p, piece);
    writer_leave(&p->log);
    return rc;
}

void pool_log_cut_undo(struct pool *p)
{
    p->log.stream.total_pages += p->log.cut_pages;
    p->log.cut_pages = 0;
}

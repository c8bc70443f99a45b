/*
 * The chains: table image and log. Each batch is looked for on every copy of its segment. One good
 * copy is enough to go on. A disk in service that lacks a batch while another disk has it is a
 * problem, with one exception: a power cut may leave the last batch of the open log on some copies
 * only.
 */
#include "tools/vpool-check/check.h"

#include <stdlib.h>
#include <string.h>

struct chain {
    struct check *c;
    const char *name; /* "image" or "log" */
    struct check_records *records;
    bool is_log;
    uint64_t stream, seq;
    struct pool_segment segment;
    uint32_t page;
    uint8_t *buf
        [POOL_META_COPIES_MAX]; /* the segment's copies, by what the disks gave; zeros elsewhere */
    bool readable[POOL_META_COPIES_MAX];
    uint8_t *run; /* bodies of a run of batches */
    size_t run_len;
    unsigned batches;
    /* Copies that lack the last batch, and the JUMP written beside it. Whether that is wrong is
     * known when another batch follows. */
    struct lack {
        struct pool_segment segment;
        uint64_t seq;
        unsigned copies, damaged; /* bit masks; damaged: the copy had it once */
    } last, jump;
    json_t *list;
};

static const struct check_disk *copy_disk(const struct chain *ch, const struct pool_segment *s,
                                          unsigned copy)
{
    unsigned d = s->place.disk[copy];
    const struct check_disk *disk = d < POOL_DISKS_MAX ? ch->c->of[d] : NULL;
    return disk && disk->counts ? disk : NULL;
}

/* Reads page by page, after reading all at once failed. A page that cannot be read holds no
 * batch. */
static void load_pages(struct chain *ch, const struct check_disk *d, unsigned copy)
{
    uint64_t at = ch->segment.place.at_bytes[copy], first = 0;
    unsigned unread = 0;
    for (uint32_t page = 0; page < ch->segment.pages; page++, at += POOL_PAGE) {
        uint8_t *to = ch->buf[copy] + (size_t)page * POOL_PAGE;
        if (check_read(d, at, to, POOL_PAGE))
            continue;
        memset(to, 0, POOL_PAGE);
        first = unread++ ? first : at;
    }
    ch->readable[copy] = unread < ch->segment.pages;
    if (unread)
        check_problem(ch->c, ch->name,
                      "%s: %u of %u pages of a segment cannot be read, the first at byte %llu",
                      d->path, unread, ch->segment.pages, (unsigned long long)first);
}

static void load_copies(struct chain *ch)
{
    size_t len = (size_t)ch->segment.pages * POOL_PAGE;
    for (unsigned i = 0; i < ch->segment.place.copies; i++) {
        const struct check_disk *d = copy_disk(ch, &ch->segment, i);
        ch->readable[i] = d && check_read(d, ch->segment.place.at_bytes[i], ch->buf[i], len);
        if (d && !ch->readable[i])
            load_pages(ch, d, i);
    }
}

static void enter_segment(struct chain *ch, const struct pool_segment *s)
{
    struct check *c = ch->c;
    ch->segment = *s;
    ch->page = 0;
    c->segment = check_grow(c->segment, c->segments + 1, sizeof(*c->segment));
    c->segment[c->segments++] = *s;
    load_copies(ch);
}

static void report_lack(struct chain *ch, struct lack *l, bool is_end)
{
    for (unsigned i = 0; i < l->segment.place.copies; i++) {
        const struct check_disk *d = copy_disk(ch, &l->segment, i);
        if (!(l->copies >> i & 1) || !d)
            continue;
        if (is_end && !(l->damaged >> i & 1))
            check_note(ch->c, ch->name, "%s: batch %llu, at the end, is not on this copy", d->path,
                       (unsigned long long)l->seq);
        else
            check_problem(ch->c, ch->name, "%s: batch %llu is damaged or missing on this copy",
                          d->path, (unsigned long long)l->seq);
    }
    l->copies = 0;
}

/* Copies that hold damage in the place of the next batch, and not what was there before. */
static unsigned damaged_copies(const struct chain *ch)
{
    unsigned mask = 0;
    for (unsigned i = 0; i < ch->segment.place.copies; i++)
        if (ch->readable[i] && log_batch_is_damaged(ch->buf[i] + (size_t)ch->page * POOL_PAGE,
                                                    ch->c->pool, ch->stream, ch->seq))
            mask |= 1U << i;
    return mask;
}

/* Another batch was found. So a copy that lacks earlier batches is wrong, except for a JUMP just
 * before this batch. */
static void note_lack(struct chain *ch, unsigned copies, bool is_jump)
{
    report_lack(ch, &ch->last, false);
    struct lack now = {ch->segment, ch->seq, copies, damaged_copies(ch)};
    if (is_jump) {
        ch->jump = now;
        return;
    }
    if (ch->jump.seq + 1 < ch->seq)
        report_lack(ch, &ch->jump, false);
    ch->last = now;
}

/* Finds the batch that comes next on any copy. */
static bool find_batch(struct chain *ch, struct log_batch *out)
{
    bool found = false;
    unsigned lacking = 0;
    uint32_t room = (ch->segment.pages - ch->page) * POOL_PAGE;
    for (unsigned i = 0; i < ch->segment.place.copies; i++) {
        struct log_batch b;
        if (!ch->readable[i])
            continue;
        if (!log_batch_check(ch->buf[i] + (size_t)ch->page * POOL_PAGE, room, ch->c->pool,
                             ch->stream, ch->seq, &b)) {
            lacking |= 1U << i;
            continue;
        }
        if (!found)
            *out = b;
        found = true;
        check_target_add(ch->c, ch->name, copy_disk(ch, &ch->segment, i),
                         ch->segment.place.at_bytes[i] + (uint64_t)ch->page * POOL_PAGE, b.bytes,
                         ch->c->units);
    }
    ch->c->units++;
    if (found) {
        note_lack(ch, lacking, out->flags & LOG_BATCH_JUMP);
        ch->batches++;
    }
    return found;
}

/* A later batch is behind a gap, or the missing batch was whole once. So the chain did not end
 * here; it is broken. */
static bool is_broken(const struct chain *ch)
{
    if (ch->page < ch->segment.pages && damaged_copies(ch))
        return true;
    for (unsigned i = 0; i < ch->segment.place.copies; i++)
        for (uint32_t page = ch->page; ch->readable[i] && page < ch->segment.pages; page++)
            if (log_batch_is_later(ch->buf[i] + (size_t)page * POOL_PAGE,
                                   (ch->segment.pages - page) * POOL_PAGE, ch->c->pool, ch->stream,
                                   ch->seq))
                return true;
    return false;
}

static void dump_batch(struct chain *ch, const struct log_batch *b)
{
    if (ch->c->dump)
        json_array_append_new(
            ch->list,
            json_pack("{s:I, s:I, s:i, s:i, s:b, s:b}", "stream", (json_int_t)ch->stream, "seq",
                      (json_int_t)ch->seq, "page", (int)ch->page, "bytes", (int)b->bytes, "more",
                      b->flags & LOG_BATCH_MORE, "jump", b->flags & LOG_BATCH_JUMP));
}

/* Takes over the records of a whole run. */
static void take_run(struct chain *ch)
{
    struct record_view v;
    size_t at = 0;
    int rc;
    while ((rc = record_decode(ch->run, ch->run_len, &at, &v)) > 0) {
        bool is_tree = v.r.kind >= POOL_RECORD_TABLE_MAX;
        if (is_tree ? !ch->is_log : ch->is_log && v.r.kind == POOL_RECORD_METAMAP)
            check_problem(ch->c, "record", "batch %llu: a %s record does not belong here",
                          (unsigned long long)ch->seq, check_record_kind(v.r.kind));
        else
            check_records_add(is_tree ? &ch->c->trees : ch->records, &v);
    }
    if (rc < 0)
        check_problem(ch->c, "record", "%s, run that ends with batch %llu: %s", ch->name,
                      (unsigned long long)ch->seq, vp_err_text(rc));
    ch->run_len = 0;
}

/* False when the chain cannot be followed any further. */
static bool take_batch(struct chain *ch, const struct log_batch *b)
{
    struct pool_segment next;
    if (b->flags & LOG_BATCH_JUMP) {
        struct log_segment to;
        bool ok = b->body_bytes == sizeof(to);
        if (ok) {
            memcpy(&to, b->body, sizeof(to));
            ok = log_segment_decode(&to, &ch->c->root.geometry, &next);
        }
        if (!ok) {
            check_problem(ch->c, ch->name, "batch %llu leads nowhere", (unsigned long long)ch->seq);
            return false;
        }
        enter_segment(ch, &next);
        return true;
    }
    ch->run = check_grow(ch->run, ch->run_len + b->body_bytes, 1);
    memcpy(ch->run + ch->run_len, b->body, b->body_bytes);
    ch->run_len += b->body_bytes;
    if (!(b->flags & LOG_BATCH_MORE))
        take_run(ch);
    ch->page += (uint32_t)div_up(b->bytes, POOL_PAGE);
    return true;
}

/* Walks up to batch `last`, or, with POOL_LOG_OPEN, to the end. */
static void walk(struct chain *ch, const struct pool_segment *start, uint64_t stream,
                 uint64_t first, uint64_t last)
{
    bool open = last == POOL_LOG_OPEN, more = false;
    struct log_batch b;
    ch->stream = stream;
    ch->seq = first;
    ch->run_len = 0;
    enter_segment(ch, start);
    unsigned kept = ch->c->segments;
    while (ch->seq <= last && ch->page < ch->segment.pages) {
        if (!find_batch(ch, &b))
            break;
        dump_batch(ch, &b);
        bool jump = b.flags & LOG_BATCH_JUMP;
        if (!take_batch(ch, &b))
            return;
        ch->seq++;
        more = !jump && b.flags & LOG_BATCH_MORE;
        if (!jump && !more)
            kept = ch->c->segments;
    }
    report_lack(ch, &ch->jump, open);
    report_lack(ch, &ch->last, open);
    if (!open && ch->seq <= last)
        check_problem(ch->c, ch->name, "batch %llu of %llu is damaged on every copy",
                      (unsigned long long)ch->seq, (unsigned long long)last);
    else if (open && is_broken(ch))
        check_problem(ch->c, ch->name, "batch %llu is damaged on every copy",
                      (unsigned long long)ch->seq);
    else if (open && ch->run_len)
        check_note(ch->c, ch->name, "a commit of several batches was never finished");
    else if (open && !ch->c->root.root.exported)
        check_note(ch->c, ch->name,
                   "it ends before batch %llu: one that was there and lost its header on every "
                   "copy cannot be told from one that was never finished",
                   (unsigned long long)ch->seq);
    if (open) /* what comes behind the last whole run belongs to nobody */
        ch->c->segments = kept;
}

static void chain_init(struct chain *ch, struct check *c, bool is_log)
{
    *ch = (struct chain){.c = c,
                         .is_log = is_log,
                         .name = is_log ? "log" : "image",
                         .records = is_log ? &c->table : &c->table_image,
                         .list = json_array()};
    for (unsigned i = 0; i < POOL_META_COPIES_MAX; i++)
        ch->buf[i] = check_grow(NULL, c->root.geometry.log_segment_bytes, 1);
}

static void chain_end(struct chain *ch)
{
    json_t *o = json_pack("{s:i}", "batches", (int)ch->batches);
    if (!o)
        check_out_of_memory();
    if (ch->c->dump)
        check_put(o, "batch", json_incref(ch->list));
    check_put(ch->c->out, ch->name, o);
    check_say(ch->c, "%s: %u batches", ch->name, ch->batches);
    json_decref(ch->list);
    for (unsigned i = 0; i < POOL_META_COPIES_MAX; i++)
        free(ch->buf[i]);
    free(ch->run);
}

void check_chains(struct check *c)
{
    const struct pool_root *r = &c->root.root;
    struct chain ch;
    chain_init(&ch, c, false);
    walk(&ch, &r->table_image.start, r->table_image.stream, 1, r->table_image.batches);
    for (unsigned i = 0; i < r->deltas; i++)
        walk(&ch, &r->delta[i].start, r->delta[i].stream, 1, r->delta[i].batches);
    chain_end(&ch);
    check_records_fold(&c->table_image, true);
    check_records_copy(&c->table, &c->table_image);

    chain_init(&ch, c, true);
    for (unsigned i = 0; i < r->pieces; i++)
        walk(&ch, &r->piece[i].start, r->piece[i].stream, r->piece[i].first_seq,
             r->piece[i].last_seq);
    chain_end(&ch);
    check_records_fold(&c->table, true);
    check_records_fold(&c->trees, false);
}

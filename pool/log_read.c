/*
 * Walking a chain of segments, of the log or of a table image, over all copies. Untrusted.
 *
 * A batch counts when any copy has it whole. Copies that were looked at and lack the batch are
 * rewritten from the copy that has it. In an open piece these are all copies, so the tail found
 * here cannot differ at the next import, whichever disks are there then.
 *
 * What cannot be read is not taken for what is not there. A segment is read at once; if that fails
 * it is read page by page. An acknowledged batch is on every copy in service. So one copy that was
 * read and lacks the batch says where the log ends. Where every copy is unreadable at that place,
 * nobody knows (GUARD_LOG_END_WAS_READ), and the walk ends with VP_E_LOG_UNREADABLE.
 *
 * What can be read need not be durable. When the writer was killed, the last batch and the JUMP
 * beside it (log.c, L2) may be only in the disks' caches. They are written once more before a root
 * says that the piece ends there (GUARD_LOG_TAIL_WRITTEN). A flush is not enough: it may follow a
 * failed flush, which has lost them while reads still show them.
 */
#include "pool/meta_impl.h"

#include "base/bitmap.h"
#include "base/verify.h"
#include "io/guard.h"

#include <stdlib.h>

int log_reader_init(struct log_reader *r, struct pool *p)
{
    *r = (struct log_reader){.p = p, .buf_pages = pool_segment_pages(p)};
    VP_VERIFY(r->buf_pages, <=, LOG_SEGMENT_PAGES_MAX);
    size_t pages = (size_t)POOL_META_COPIES_MAX * r->buf_pages + 1;
    r->buf = aligned_alloc(POOL_PAGE, pages * POOL_PAGE);
    return r->buf ? 0 : VP_E_NO_MEMORY;
}

void log_reader_fini(struct log_reader *r)
{
    free(r->buf);
    r->buf = NULL;
}

static uint8_t *copy_at(const struct log_reader *r, unsigned copy, uint32_t page)
{
    return r->buf + ((size_t)copy * r->buf_pages + page) * POOL_PAGE;
}

/* The last JUMP. */
static uint8_t *jump_at(const struct log_reader *r)
{
    return copy_at(r, POOL_META_COPIES_MAX, 0);
}

static struct pool_disk *segment_disk(const struct log_reader *r, const struct pool_segment *s,
                                      unsigned copy)
{
    struct pool_disk *d = &r->p->disk[s->place.disk[copy]];
    return raid_disk_is_current(&d->io) ? d : NULL;
}

static struct pool_disk *copy_disk(const struct log_reader *r, unsigned copy)
{
    return segment_disk(r, &r->segment, copy);
}

/* The copy lies in its disk's extents, if the disk is there. */
static bool copy_is_in_bounds(const struct log_reader *r, const struct pool_segment *s,
                              unsigned copy)
{
    const struct pool_disk *d = &r->p->disk[s->place.disk[copy]];
    uint64_t len = (uint64_t)s->pages * POOL_PAGE, at = s->place.at_bytes[copy];
    uint64_t end = POOL_LABEL_AREA + (uint64_t)d->extents_total * r->p->geometry.extent_bytes;
    return s->place.disk[copy] < r->p->disk_count && at >= POOL_LABEL_AREA && at <= end &&
           len <= end - at;
}

static int reader_enter(struct log_reader *r, const struct pool_segment *s)
{
    for (unsigned i = 0; i < s->place.copies; i++) {
        if (!copy_is_in_bounds(r, s, i))
            return VP_E_SEGMENT_BAD;
        r->loaded[i] = false;
    }
    r->segment = *s;
    r->page = r->last_pages = 0;
    return r->enter ? r->enter(r->enter_arg, s) : 0;
}

CO int log_reader_start(struct log_reader *r, const struct pool_segment *at, uint64_t stream,
                        uint64_t seq, bool all_copies)
{
    r->stream = stream;
    r->seq = seq;
    r->all_copies = all_copies;
    r->jump_from.place.copies = 0;
    return reader_enter(r, at);
}

static CO int copy_read(struct log_reader *r, struct pool_disk *d, unsigned copy, uint32_t page,
                        uint32_t pages)
{
    uint64_t at = r->segment.place.at_bytes[copy] + (uint64_t)page * POOL_PAGE;
    return io_dev_read(d->io.dev, at, copy_at(r, copy, page), pages * POOL_PAGE);
}

/* CO. After the copy could not be read as a whole. A page has two tries; a disk that is gone has
 * none. */
static CO void copy_read_pages(struct log_reader *r, struct pool_disk *d, unsigned copy)
{
    int rc = 0;
    for (uint32_t page = 0; page < r->segment.pages; page++) {
        for (unsigned tries = 2; tries && rc != VP_E_IO_NO_DEVICE; tries--) {
            rc = copy_read(r, d, copy, page, 1);
            if (!rc)
                break;
            figure_add_shared(&d->io.figures.read_errors, 1);
        }
        if (!rc)
            continue;
        bitmap_set(r->unread[copy], page);
        memset(copy_at(r, copy, page), 0, POOL_PAGE);
    }
}

/* CO. Once for each segment. False: the copy's disk is not in service. */
static CO bool copy_load(struct log_reader *r, unsigned copy)
{
    struct pool_disk *d = copy_disk(r, copy);
    if (r->loaded[copy] || !d)
        return r->loaded[copy];
    r->loaded[copy] = true;
    memset(r->unread[copy], 0, sizeof(r->unread[copy]));
    if (copy_read(r, d, copy, 0, r->segment.pages)) {
        figure_add_shared(&d->io.figures.read_errors, 1);
        copy_read_pages(r, d, copy);
    }
    return true;
}

static bool copy_check(const struct log_reader *r, unsigned copy, struct log_batch *out)
{
    uint32_t room = (r->segment.pages - r->page) * POOL_PAGE;
    return log_batch_check(copy_at(r, copy, r->page), room, r->p->uuid, r->stream, r->seq, out);
}

/* The copy was read as far as it takes to know that it lacks the batch that should come. */
static bool copy_lacks(const struct log_reader *r, unsigned copy)
{
    uint32_t room = (r->segment.pages - r->page) * POOL_PAGE;
    if (!r->loaded[copy] || bitmap_test(r->unread[copy], r->page))
        return false;
    uint32_t claim =
        log_batch_claim(copy_at(r, copy, r->page), room, r->p->uuid, r->stream, r->seq);
    return bitmap_find(r->unread[copy], r->page + claim, r->page, true) == r->page + claim;
}

/* CO. Pages of a copy of the segment, unless its disk failed such a write before. The disk that has
 * them now; NULL: it has not, or is not in service. */
static CO struct pool_disk *copy_write(struct log_reader *r, const struct pool_segment *s,
                                       unsigned copy, uint32_t page, const void *buf,
                                       uint32_t pages)
{
    struct pool_disk *d = segment_disk(r, s, copy);
    if (!d || r->repair_rc[d->io.index])
        return NULL;
    uint64_t at = s->place.at_bytes[copy] + (uint64_t)page * POOL_PAGE;
    int rc = io_dev_write(d->io.dev, at, buf, pages * POOL_PAGE, IO_FUA);
    r->repair_rc[d->io.index] = rc;
    if (!rc)
        return d;
    raid_durable_write_failed(&d->io, rc);
    return NULL;
}

/* CO. Puts the batch onto a copy that lacks it. */
static CO void copy_repair(struct log_reader *r, unsigned copy, unsigned from, uint32_t pages)
{
    struct pool_disk *d =
        copy_write(r, &r->segment, copy, r->page, copy_at(r, from, r->page), pages);
    if (d)
        figure_add_shared(&d->io.figures.healed_blocks, pages * (POOL_PAGE / POOL_BLOCK));
}

CO void log_reader_settle(struct log_reader *r)
{
    if (!r->last_pages || !io_guard_on(GUARD_LOG_TAIL_WRITTEN))
        return;
    for (unsigned i = 0; r->last_page == 0 && i < r->jump_from.place.copies; i++)
        (void)copy_write(r, &r->jump_from, i, r->jump_page, jump_at(r), 1);
    for (unsigned i = 0; i < r->segment.place.copies; i++)
        (void)copy_write(r, &r->segment, i, r->last_page, copy_at(r, r->good, r->last_page),
                         r->last_pages);
}

/* CO. True: found on some copy, the others are equal or their disks noted. */
static CO bool reader_find(struct log_reader *r, struct log_batch *out)
{
    unsigned copies = r->segment.place.copies, good = copies, lacking = 0;
    for (unsigned i = 0; i < copies && (good == copies || r->all_copies); i++) {
        struct log_batch b;
        if (copy_load(r, i) && copy_check(r, i, &b)) {
            if (good == copies) {
                good = i;
                *out = b;
            }
        } else {
            lacking |= 1U << i;
        }
    }
    if (good == copies)
        return false;
    r->good = good;
    for (unsigned i = 0; i < copies; i++)
        if (lacking >> i & 1)
            copy_repair(r, i, good, (uint32_t)div_up(out->bytes, POOL_PAGE));
    return true;
}

static bool copy_has_later(const struct log_reader *r, unsigned copy)
{
    for (uint32_t page = r->page; page < r->segment.pages; page++) {
        uint32_t room = (r->segment.pages - page) * POOL_PAGE;
        if (log_batch_is_later(copy_at(r, copy, page), room, r->p->uuid, r->stream, r->seq))
            return true;
    }
    return false;
}

/* A page that is neither old nor new, on a disk that writes a page at once. */
static bool copy_is_damaged(const struct log_reader *r, unsigned copy)
{
    const struct pool_disk *d = copy_disk(r, copy);
    return d && io_dev_info(d->io.dev)->atomic_bytes >= POOL_PAGE &&
           log_batch_is_damaged(copy_at(r, copy, r->page), r->p->uuid, r->stream, r->seq);
}

/* No copy has the batch that should come. It is damaged, not torn, when a later one is behind it
 * (log.c, L1), or when its page is damaged on every copy: one that is merely old says that the
 * batch was never acknowledged, whatever became of the others. */
static int reader_end(const struct log_reader *r)
{
    unsigned lacking = 0, damaged = 0;
    for (unsigned i = 0; i < r->segment.place.copies; i++) {
        if (r->loaded[i] && copy_has_later(r, i))
            return VP_E_LOG_DAMAGED;
        if (!copy_lacks(r, i))
            continue;
        lacking++;
        damaged += copy_is_damaged(r, i);
    }
    if (!lacking && io_guard_on(GUARD_LOG_END_WAS_READ))
        return VP_E_LOG_UNREADABLE;
    return lacking && damaged == lacking ? VP_E_LOG_DAMAGED : 0;
}

static int reader_jump(struct log_reader *r, const struct log_batch *b)
{
    struct log_segment target;
    struct pool_segment to;
    if (b->body_bytes != sizeof(target))
        return VP_E_SEGMENT_BAD;
    memcpy(&target, b->body, sizeof(target));
    if (!log_segment_decode(&target, &r->p->geometry, &to))
        return VP_E_SEGMENT_BAD;
    r->jump_from = r->segment;
    r->jump_page = r->page;
    memcpy(jump_at(r), copy_at(r, r->good, r->page), POOL_PAGE);
    return reader_enter(r, &to);
}

CO int log_reader_next(struct log_reader *r, struct log_batch *out)
{
    for (;;) {
        if (r->page >= r->segment.pages)
            return 0;
        if (!reader_find(r, out))
            return reader_end(r);
        r->seq++;
        if (out->flags & LOG_BATCH_JUMP) {
            int rc = reader_jump(r, out);
            if (rc)
                return rc;
            continue;
        }
        r->last_page = r->page;
        r->last_pages = (uint32_t)div_up(out->bytes, POOL_PAGE);
        r->page += r->last_pages;
        return 1;
    }
}

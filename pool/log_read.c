/*
 * Walking a chain of segments, of the log or of a snapshot, over all copies. Untrusted.
 *
 * A batch counts when any copy has it whole. Copies that were looked at and lack it are rewritten
 * from the one that has it: in an open piece all of them, so that the tail found here can not
 * differ at the next import whichever disks are there then.
 */
#include "pool/meta_impl.h"

#include "io/guard.h"

#include <stdlib.h>

int log_reader_init(struct log_reader *r, struct pool *p)
{
    *r = (struct log_reader){.p = p, .buf_pages = pool_segment_pages(p)};
    r->buf = aligned_alloc(POOL_PAGE, (size_t)POOL_META_COPIES * r->buf_pages * POOL_PAGE);
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

static struct pool_disk *copy_disk(const struct log_reader *r, unsigned copy)
{
    struct pool_disk *d = &r->p->disk[r->segment.place.disk[copy]];
    return atomic_load_explicit(&d->io.in_service, memory_order_acquire) ? d : NULL;
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
    r->page = 0;
    return r->enter ? r->enter(r->enter_arg, s) : 0;
}

int log_reader_start(struct log_reader *r, const struct pool_segment *at, uint64_t stream,
                     uint64_t seq, bool all_copies)
{
    r->stream = stream;
    r->seq = seq;
    r->all_copies = all_copies;
    return reader_enter(r, at);
}

/* CO. Reads the copy of the whole segment once. */
static bool copy_load(struct log_reader *r, unsigned copy)
{
    if (r->loaded[copy])
        return r->readable[copy];
    r->loaded[copy] = true;
    r->readable[copy] = false;
    struct pool_disk *d = copy_disk(r, copy);
    if (!d)
        return false;
    uint32_t len = r->segment.pages * POOL_PAGE;
    int rc = io_dev_read(d->io.dev, r->segment.place.at_bytes[copy], copy_at(r, copy, 0), len);
    if (rc)
        d->io.read_errors++;
    r->readable[copy] = !rc;
    return !rc;
}

static bool copy_check(const struct log_reader *r, unsigned copy, struct log_batch *out)
{
    uint32_t room = (r->segment.pages - r->page) * POOL_PAGE;
    return log_batch_check(copy_at(r, copy, r->page), room, r->p->uuid, r->stream, r->seq, out);
}

/* CO. Puts the batch onto a copy that lacks it; a disk that can not take it goes out of service,
 * durably with the next root. */
static int copy_repair(struct log_reader *r, unsigned copy, unsigned from, uint32_t bytes)
{
    struct pool_disk *d = copy_disk(r, copy);
    if (!d)
        return 0;
    uint32_t len = (uint32_t)align_up(bytes, POOL_PAGE);
    uint64_t at = r->segment.place.at_bytes[copy] + (uint64_t)r->page * POOL_PAGE;
    int rc = io_dev_write(d->io.dev, at, copy_at(r, from, r->page), len, IO_FUA);
    if (rc)
        return pool_disk_mark_out(r->p, d, rc, "a copy of the metadata log can not be repaired");
    d->io.healed_blocks += len / POOL_BLOCK;
    return 0;
}

/* CO. 1: found on some copy, the others are equal; 0: none has it. */
static int reader_find(struct log_reader *r, struct log_batch *out)
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
        return 0;
    for (unsigned i = 0; i < copies; i++) {
        int rc = lacking >> i & 1 ? copy_repair(r, i, good, out->bytes) : 0;
        if (rc)
            return rc;
    }
    return 1;
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
    unsigned readable = 0, damaged = 0;
    for (unsigned i = 0; i < r->segment.place.copies; i++) {
        if (!r->loaded[i] || !r->readable[i])
            continue;
        if (copy_has_later(r, i))
            return VP_E_LOG_DAMAGED;
        readable++;
        damaged += copy_is_damaged(r, i);
    }
    return readable && damaged == readable ? VP_E_LOG_DAMAGED : 0;
}

static int reader_jump(struct log_reader *r, const struct log_batch *b)
{
    struct log_segment target;
    struct pool_segment to;
    if (b->body_bytes != sizeof(target))
        return VP_E_SEGMENT_BAD;
    memcpy(&target, b->body, sizeof(target));
    if (!log_segment_decode(&target, r->buf_pages, &to))
        return VP_E_SEGMENT_BAD;
    return reader_enter(r, &to);
}

int log_reader_next(struct log_reader *r, struct log_batch *out)
{
    for (;;) {
        if (r->page >= r->segment.pages)
            return 0;
        int rc = reader_find(r, out);
        if (rc < 0)
            return rc;
        if (!rc)
            return reader_end(r);
        r->seq++;
        r->page += (uint32_t)div_up(out->bytes, POOL_PAGE);
        if (!(out->flags & LOG_BATCH_JUMP))
            return 1;
        rc = reader_jump(r, out);
        if (rc)
            return rc;
    }
}

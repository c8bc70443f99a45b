/* One log batch and one segment reference, in memory: encoding and decoding. */
#include "pool/meta_impl.h"

#include "base/crc.h"
#include "base/verify.h"
#include "io/guard.h"

/* Header (its crc field taken as zero) and body. */
static uint32_t batch_crc(const uint8_t *buf, uint32_t bytes)
{
    struct log_batch_header h;
    memcpy(&h, buf, sizeof(h));
    h.crc = le32_make(0);
    uint32_t crc = vp_crc32c(&h, sizeof(h));
    return vp_crc32c_more(crc, buf + sizeof(h), bytes - sizeof(h));
}

uint32_t log_batch_seal(uint8_t *buf, struct vp_uuid pool, uint64_t stream, uint64_t seq,
                        uint16_t flags, uint32_t body_bytes)
{
    uint32_t bytes = (uint32_t)sizeof(struct log_batch_header) + body_bytes;
    struct log_batch_header h = {
        .magic = le32_make(LOG_BATCH_MAGIC),
        .stream = le64_make(stream),
        .seq = le64_make(seq),
        .bytes = le32_make(bytes),
        .flags = le16_make(flags),
    };
    memcpy(h.pool_uuid, pool.b, sizeof(h.pool_uuid));
    memcpy(buf, &h, sizeof(h));
    h.crc = le32_make(batch_crc(buf, bytes));
    memcpy(buf, &h, sizeof(h));
    uint32_t pages = (uint32_t)div_up(bytes, POOL_PAGE);
    memset(buf + bytes, 0, pages * POOL_PAGE - bytes);
    return pages;
}

/* The header says that a batch of the stream is here that fits into the room. */
static bool header_fits(const struct log_batch_header *h, uint32_t room_bytes, struct vp_uuid pool,
                        uint64_t stream)
{
    uint32_t bytes = le32_get(h->bytes);
    return le32_get(h->magic) == LOG_BATCH_MAGIC && le64_get(h->stream) == stream &&
           memcmp(h->pool_uuid, pool.b, sizeof(pool.b)) == 0 && bytes >= sizeof(*h) &&
           bytes <= room_bytes;
}

bool log_batch_check(const uint8_t *buf, uint32_t room_bytes, struct vp_uuid pool, uint64_t stream,
                     uint64_t seq, struct log_batch *out)
{
    struct log_batch_header h;
    memcpy(&h, buf, sizeof(h));
    if (!header_fits(&h, room_bytes, pool, stream) || le64_get(h.seq) != seq)
        return false;
    uint32_t bytes = le32_get(h.bytes);
    if (io_guard_on(GUARD_LOG_CHECKSUM) && batch_crc(buf, bytes) != le32_get(h.crc))
        return false;
    *out = (struct log_batch){
        .bytes = bytes,
        .flags = le16_get(h.flags),
        .body = buf + sizeof(h),
        .body_bytes = bytes - (uint32_t)sizeof(h),
    };
    return true;
}

uint32_t log_batch_claim(const uint8_t *buf, uint32_t room_bytes, struct vp_uuid pool,
                         uint64_t stream, uint64_t seq)
{
    struct log_batch_header h;
    memcpy(&h, buf, sizeof(h));
    bool here = header_fits(&h, room_bytes, pool, stream) && le64_get(h.seq) == seq;
    return here ? (uint32_t)div_up(le32_get(h.bytes), POOL_PAGE) : 0;
}

bool log_batch_is_later(const uint8_t *buf, uint32_t room_bytes, struct vp_uuid pool,
                        uint64_t stream, uint64_t seq)
{
    struct log_batch_header h;
    memcpy(&h, buf, sizeof(h));
    return header_fits(&h, room_bytes, pool, stream) && le64_get(h.seq) > seq &&
           batch_crc(buf, le32_get(h.bytes)) == le32_get(h.crc);
}

bool log_batch_is_damaged(const uint8_t *buf, struct vp_uuid pool, uint64_t stream, uint64_t seq)
{
    struct log_batch_header h;
    memcpy(&h, buf, sizeof(h));
    uint32_t bytes = le32_get(h.bytes);
    bool ours = le64_get(h.stream) == stream && memcmp(h.pool_uuid, pool.b, sizeof(pool.b)) == 0;
    bool expected = le64_get(h.seq) == seq && le32_get(h.magic) == LOG_BATCH_MAGIC;
    return (ours || expected) && bytes >= sizeof(h) && bytes <= POOL_PAGE &&
           batch_crc(buf, bytes) != le32_get(h.crc);
}

/* ---- where a segment is ------------------------------------------------------------------- */

static void segment_encode_wide(const struct pool_segment *s, uint32_t extent_bytes,
                                struct log_segment *out)
{
    uint64_t page = (s->place.at_bytes[0] - POOL_LABEL_AREA) % extent_bytes / POOL_PAGE;
    struct log_segment_wide w = {
        .pages = le16_make((uint16_t)s->pages),
        .page_low = le16_make((uint16_t)page),
        .page_high = (uint8_t)(page >> 16),
        .copies = (uint8_t)s->place.copies,
    };
    for (unsigned i = 0; i < s->place.copies; i++) {
        uint64_t at = s->place.at_bytes[i] - POOL_LABEL_AREA;
        VP_VERIFY(at % extent_bytes / POOL_PAGE, ==, page);
        w.disk[i] = (uint8_t)s->place.disk[i];
        w.extent[i] = le32_make((uint32_t)(at / extent_bytes));
    }
    memcpy(out, &w, sizeof(w));
}

void log_segment_encode(const struct pool_segment *s, const struct pool_geometry *g,
                        struct log_segment *out)
{
    if (s->place.copies > LOG_PLACES) {
        segment_encode_wide(s, g->extent_bytes, out);
        return;
    }
    *out = (struct log_segment){.pages = le32_make(s->pages), .copies = (uint8_t)s->place.copies};
    for (unsigned i = 0; i < s->place.copies; i++)
        out->place[i] = le64_make((uint64_t)s->place.disk[i] << LOG_PLACE_DISK_SHIFT |
                                  s->place.at_bytes[i] / POOL_PAGE);
}

static void segment_decode_wide(const struct log_segment *in, uint32_t extent_bytes,
                                struct pool_segment *out)
{
    struct log_segment_wide w;
    memcpy(&w, in, sizeof(w));
    uint64_t page = le16_get(w.page_low) | (uint64_t)w.page_high << 16;
    out->pages = le16_get(w.pages);
    for (unsigned i = 0; i < out->place.copies; i++) {
        out->place.disk[i] = w.disk[i];
        out->place.at_bytes[i] =
            POOL_LABEL_AREA + (uint64_t)le32_get(w.extent[i]) * extent_bytes + page * POOL_PAGE;
    }
}

static void segment_decode_places(const struct log_segment *in, struct pool_segment *out)
{
    out->pages = le32_get(in->pages);
    for (unsigned i = 0; i < out->place.copies; i++) {
        uint64_t place = le64_get(in->place[i]);
        out->place.disk[i] = (uint16_t)(place >> LOG_PLACE_DISK_SHIFT);
        out->place.at_bytes[i] = (place & ((UINT64_C(1) << LOG_PLACE_DISK_SHIFT) - 1)) * POOL_PAGE;
    }
}

bool log_segment_decode(const struct log_segment *in, const struct pool_geometry *g,
                        struct pool_segment *out)
{
    *out = (struct pool_segment){.place.copies = in->copies};
    if (!in->copies || in->copies > POOL_META_COPIES_MAX)
        return false;
    if (in->copies > LOG_PLACES)
        segment_decode_wide(in, g->extent_bytes, out);
    else
        segment_decode_places(in, out);
    for (unsigned i = 0; i < in->copies; i++)
        if (out->place.disk[i] >= POOL_DISKS_MAX)
            return false;
    return out->pages >= 2 && out->pages <= g->log_segment_bytes / POOL_PAGE;
}

/*
 * Labels: encoding, decoding, and their four copies on a disk.
 *
 * A torn or damaged copy falls back to the others; of copies that differ the highest epoch counts.
 * Nothing in a label is believed before its checksum and its ranges are right. On a disk that has
 * grown and lost its copies at the start, the roots there say where those at the end may be.
 */
#include "pool/label_format.h"

#include "base/crc.h"
#include "io/buffer.h"
#include "pool/disk_impl.h"
#include "pool/meta_impl.h"

#include <string.h>

static uint32_t label_crc(const struct pool_label_disk *d)
{
    static const uint8_t zero[sizeof(d->crc)];
    size_t at = offsetof(struct pool_label_disk, crc);
    uint32_t crc = vp_crc32c(d, at);
    crc = vp_crc32c_more(crc, zero, sizeof(zero));
    return vp_crc32c_more(crc, (const uint8_t *)d + at + sizeof(zero),
                          sizeof(*d) - at - sizeof(zero));
}

void pool_label_encode(const struct pool_label *l, void *block)
{
    struct pool_label_disk *d = block;
    memset(d, 0, sizeof(*d));
    memcpy(d->magic, POOL_LABEL_MAGIC, sizeof(d->magic));
    d->version = le32_make(POOL_LABEL_VERSION);
    memcpy(d->pool_uuid, l->pool_uuid.b, sizeof(d->pool_uuid));
    memcpy(d->disk_uuid, l->disk_uuid.b, sizeof(d->disk_uuid));
    memcpy(d->was_uuid, l->was_uuid.b, sizeof(d->was_uuid));
    memcpy(d->pool_name, l->pool_name, strnlen(l->pool_name, POOL_NAME_MAX));
    d->disk_index = le32_make(l->disk_index);
    d->disk_count = le32_make(l->disk_count);
    d->chunk_bytes = le32_make(l->geometry.chunk_bytes);
    d->extent_bytes = le32_make(l->geometry.extent_bytes);
    d->log_segment_bytes = le32_make(l->geometry.log_segment_bytes);
    d->size_bytes = le64_make(l->size_bytes);
    d->features_compat = le64_make(l->features_compat);
    d->features_ro_compat = le64_make(l->features_ro);
    d->features_incompat = le64_make(l->features_incompat);
    d->epoch = le64_make(l->epoch);
    d->crc = le32_make(label_crc(d));
}

static bool label_is_sane(const struct pool_label *l)
{
    return l->pool_name[0] && l->disk_index < POOL_DISKS_MAX && l->disk_count >= 1 &&
           l->disk_count <= POOL_DISKS_MAX && pool_geometry_is_valid(&l->geometry) &&
           l->size_bytes >= pool_disk_min_bytes(l->geometry.extent_bytes) &&
           is_aligned(l->size_bytes, POOL_BLOCK) && l->size_bytes <= INT64_MAX && l->epoch >= 1;
}

int pool_label_decode(const void *block, struct pool_label *out)
{
    const struct pool_label_disk *d = block;
    if (memcmp(d->magic, POOL_LABEL_MAGIC, sizeof(d->magic)) != 0)
        return VP_E_LABEL_NONE;
    if (le32_get(d->crc) != label_crc(d))
        return VP_E_LABEL_BAD;
    if (le32_get(d->version) != POOL_LABEL_VERSION)
        return VP_E_LABEL_VERSION;
    *out = (struct pool_label){
        .disk_index = le32_get(d->disk_index),
        .disk_count = le32_get(d->disk_count),
        .geometry = {.chunk_bytes = le32_get(d->chunk_bytes),
                     .extent_bytes = le32_get(d->extent_bytes),
                     .log_segment_bytes = le32_get(d->log_segment_bytes)},
        .size_bytes = le64_get(d->size_bytes),
        .features_compat = le64_get(d->features_compat),
        .features_ro = le64_get(d->features_ro_compat),
        .features_incompat = le64_get(d->features_incompat),
        .epoch = le64_get(d->epoch),
    };
    memcpy(out->pool_uuid.b, d->pool_uuid, sizeof(d->pool_uuid));
    memcpy(out->disk_uuid.b, d->disk_uuid, sizeof(d->disk_uuid));
    memcpy(out->was_uuid.b, d->was_uuid, sizeof(d->was_uuid));
    memcpy(out->pool_name, d->pool_name, POOL_NAME_MAX);
    if (out->features_incompat & ~POOL_FEATURES_INCOMPAT ||
        out->features_ro & ~POOL_FEATURES_RO_COMPAT)
        return VP_E_FEATURE_UNKNOWN;
    return label_is_sane(out) ? 0 : VP_E_LABEL_BAD;
}

uint64_t pool_tail_bytes(uint64_t size_bytes)
{
    return align_down(size_bytes, POOL_BLOCK) - POOL_LABEL_AREA;
}

uint64_t pool_label_at(uint64_t tail_bytes, unsigned copy)
{
    return (copy < POOL_LABEL_COPIES / 2 ? 0 : tail_bytes) + (copy % 2) * POOL_BLOCK;
}

/* The error to report for a disk without a valid copy: the one that tells most. */
static int worse(int a, int b)
{
    static const int order[] = {VP_E_FEATURE_UNKNOWN, VP_E_LABEL_VERSION, VP_E_LABEL_BAD,
                                VP_E_LABEL_NONE};
    for (unsigned i = 0; i < sizeof(order) / sizeof(order[0]); i++)
        if (a == order[i] || b == order[i])
            return order[i];
    return a;
}

/* CO. A copy, read twice before it counts as unreadable, which is one more damaged copy. */
static CO int label_copy_read(struct io_dev *dev, uint64_t at, void *block, struct pool_label *out)
{
    int rc = io_dev_read(dev, at, block, POOL_BLOCK);
    if (rc && rc != VP_E_IO_NO_DEVICE)
        rc = io_dev_read(dev, at, block, POOL_BLOCK);
    return rc ? VP_E_LABEL_BAD : pool_label_decode(block, out);
}

/* CO. The copies from `first` on, to *out whatever is better than what stands there by `result`.
 * Returns the new result. */
static CO int label_copies_read(struct io_dev *dev, uint64_t tail, unsigned first, int result,
                                struct pool_label *out)
{
    uint64_t size = io_dev_info(dev)->size_bytes;
    void *block = io_buffer_get(POOL_BLOCK);
    for (unsigned copy = first; copy < POOL_LABEL_COPIES; copy++) {
        struct pool_label l;
        int rc = label_copy_read(dev, pool_label_at(tail, copy), block, &l);
        if (rc == 0 && l.size_bytes > size)
            rc = VP_E_LABEL_BAD;
        if (rc == 0 && (result || l.epoch > out->epoch)) {
            *out = l;
            result = 0;
            /* A disk that has grown keeps its second area where it was. */
            tail = pool_tail_bytes(l.size_bytes);
        } else if (rc && result) {
            result = worse(result, rc);
        }
    }
    io_buffer_put(block, POOL_BLOCK);
    return result;
}

/* CO. A disk that has grown, and whose labels at the start are damaged: where its second area is
 * says one of the sizes in the disk table of its roots. */
static CO int label_read_by_roots(struct io_dev *dev, int result, struct pool_label *out)
{
    uint64_t size = io_dev_info(dev)->size_bytes;
    uint8_t *block = io_buffer_get(ROOT_BYTES);
    for (unsigned slot = 0; slot < POOL_ROOT_SLOTS && result; slot++) {
        struct vp_uuid pool;
        uint64_t number;
        uint64_t sizes[ROOT_DISKS];
        if (io_dev_read(dev, POOL_ROOT_AT + slot * ROOT_BYTES, block, ROOT_BYTES) != 0)
            continue;
        memcpy(pool.b, ((const struct root_block *)block)->pool_uuid, sizeof(pool.b));
        if (!root_block_check(block, pool, &number))
            continue;
        unsigned count = root_block_sizes(block, sizes);
        for (unsigned i = 0; i < count && result; i++)
            if (sizes[i] < size && sizes[i] >= pool_disk_min_bytes(POOL_EXTENT_MIN))
                result = label_copies_read(dev, pool_tail_bytes(sizes[i]), POOL_LABEL_COPIES / 2,
                                           result, out);
    }
    io_buffer_put(block, ROOT_BYTES);
    return result;
}

CO int pool_label_read(struct io_dev *dev, struct pool_label *out)
{
    uint64_t size = io_dev_info(dev)->size_bytes;
    if (size < pool_disk_min_bytes(POOL_EXTENT_MIN))
        return VP_E_LABEL_NONE;
    int result = label_copies_read(dev, pool_tail_bytes(size), 0, VP_E_LABEL_NONE, out);
    return result ? label_read_by_roots(dev, result, out) : 0;
}

/* ---- writing ------------------------------------------------------------------------------- */

static const char *write_error_text(int rc)
{
    return rc == VP_E_NO_SPACE ? "the file system that holds it is full" : vp_err_text(rc);
}

struct pool_label pool_label_of(const struct pool_disk *d)
{
    const struct pool *p = d->pool;
    struct pool_label l = {
        .pool_uuid = p->uuid,
        .disk_uuid = d->uuid,
        .was_uuid = d->was_uuid,
        .disk_index = d->io.index,
        .disk_count = p->disk_count,
        .geometry = p->geometry,
        .size_bytes = d->size_bytes,
        .features_compat = p->features_compat,
        .features_ro = p->features_ro,
        .features_incompat = p->features_incompat,
        .epoch = d->label_epoch ? d->label_epoch : 1,
    };
    memcpy(l.pool_name, p->name, sizeof(l.pool_name));
    return l;
}

CO int pool_label_put(struct io_dev *dev, const struct pool_label *l)
{
    void *block = io_buffer_get(POOL_BLOCK);
    uint64_t tail = pool_tail_bytes(l->size_bytes);
    int rc = 0;
    pool_label_encode(l, block);
    for (unsigned copy = 0; copy < POOL_LABEL_COPIES && !rc; copy++)
        rc = io_dev_write(dev, pool_label_at(tail, copy), block, POOL_BLOCK, 0);
    io_buffer_put(block, POOL_BLOCK);
    return rc;
}

CO int pool_label_write(struct pool_disk *d)
{
    const struct pool_label l = pool_label_of(d);
    return pool_label_put(d->io.dev, &l);
}

CO int pool_labels_write(struct pool *p, struct vp_error *err)
{
    int rc = 0;
    for (unsigned i = 0; i < p->disk_count && !rc; i++)
        if (p->disk[i].io.dev) {
            rc = pool_label_write(&p->disk[i]);
            if (!rc)
                rc = io_dev_flush(p->disk[i].io.dev);
            if (rc)
                rc = vp_fail(err, rc, "%s: the label cannot be written: %s", p->disk[i].path,
                             write_error_text(rc));
        }
    return rc;
}

/* Labels go first: without them no other zeroed part of the disk is looked for. */
CO int pool_disk_wipe(struct io_dev *dev, uint64_t tail_bytes)
{
    int first_rc = 0;
    for (unsigned copy = 0; copy < POOL_LABEL_COPIES; copy++) {
        int rc = io_dev_write(dev, pool_label_at(tail_bytes, copy), io_zeros, POOL_BLOCK, 0);
        first_rc = first_rc ? first_rc : rc;
    }
    int rc = io_dev_flush(dev);
    first_rc = first_rc ? first_rc : rc;
    const uint64_t area[] = {0, tail_bytes};
    for (unsigned i = 0; i < 2; i++) {
        rc = io_dev_write(dev, area[i], io_zeros, POOL_LABEL_AREA, 0);
        first_rc = first_rc ? first_rc : rc;
    }
    rc = io_dev_flush(dev);
    return first_rc ? first_rc : rc;
}

CO int pool_disks_wipe(struct pool *p, struct vp_error *err)
{
    int first_rc = 0;
    for (unsigned i = 0; i < p->disk_count; i++) {
        if (!p->disk[i].io.dev)
            continue;
        int rc = pool_disk_wipe(p->disk[i].io.dev, p->disk[i].tail_bytes);
        if (rc && !first_rc)
            first_rc =
                vp_fail(err, rc, "%s: cannot be wiped: %s", p->disk[i].path, write_error_text(rc));
    }
    return first_rc;
}

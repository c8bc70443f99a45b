/*
 * Bytes of a disk against the decoders that import and vpool-check use: labels, roots, batches,
 * records, groups, and kept memory. The first byte chooses the decoder; where a checksum guards it,
 * the right one is put in, so that what lies behind is reached.
 */
#include "base/crc.h"
#include "pool/disk_impl.h"
#include "pool/keep_impl.h"
#include "pool/label_format.h"
#include "pool/meta_impl.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static _Alignas(4096) uint8_t block[POOL_BLOCK];

/* The input as a block whose checksum field, at `crc_at`, is right. */
static void seal(const uint8_t *data, size_t size, size_t crc_at)
{
    memset(block, 0, sizeof(block));
    memcpy(block, data, size < sizeof(block) ? size : sizeof(block));
    memset(block + crc_at, 0, sizeof(struct le32));
    struct le32 crc = le32_make(vp_crc32c(block, sizeof(block)));
    memcpy(block + crc_at, &crc, sizeof(crc));
}

static void try_label(const uint8_t *data, size_t size)
{
    struct pool_label l;
    seal(data, size, offsetof(struct pool_label_disk, crc));
    if (pool_label_decode(block, &l) != 0)
        return;
    VP_VERIFY(strlen(l.pool_name), <=, (size_t)POOL_NAME_MAX);
    VP_VERIFY(pool_disk_extents(l.size_bytes, l.geometry.extent_bytes), >=, POOL_DISK_EXTENTS_MIN);
}

static void try_root(const uint8_t *data, size_t size)
{
    static struct root_image image;
    seal(data, size, offsetof(struct root_block, crc));
    if (root_block_decode(block, &image) != 0)
        return;
    VP_VERIFY(image.disks, <=, (unsigned)POOL_DISKS_MAX);
    VP_VERIFY(image.root.pieces, <=, (unsigned)POOL_LOG_PIECES);
}

/* A batch whose identity is what the reader expects: length, flags and checksum are the input's. */
static void try_batch(const uint8_t *data, size_t size)
{
    struct vp_uuid pool = {{0}};
    struct log_batch b;
    uint8_t *buf = calloc(1, POOL_PAGE);
    if (!buf)
        return;
    memcpy(buf, data, size < POOL_PAGE ? size : POOL_PAGE);
    if (log_batch_check(buf, POOL_PAGE, pool, 0, 0, &b))
        VP_VERIFY(b.bytes, <=, POOL_PAGE);
    (void)log_batch_is_later(buf, POOL_PAGE, pool, 0, 0);
    (void)log_batch_is_damaged(buf, pool, 0, 0);
    struct log_segment at;
    struct pool_segment s;
    memcpy(&at, buf, sizeof(at));
    static const struct pool_geometry g = {.extent_bytes = 1U << 30, .log_segment_bytes = 1U << 20};
    if (log_segment_decode(&at, &g, &s))
        VP_VERIFY(s.place.copies, <=, (unsigned)POOL_META_COPIES_MAX);
    free(buf);
}

/* Walks records in memory of exactly their length; groups among them are decoded. */
static void try_records(const uint8_t *data, size_t size)
{
    struct record_view v;
    struct pool_group_info g;
    size_t at = 0;
    uint8_t *bytes = malloc(size ? size : 1);
    if (!bytes)
        return;
    memcpy(bytes, data, size);
    while (record_decode(bytes, size, &at, &v) == 1) {
        uint32_t owners = 0;
        if (pool_group_decode(v.r.value, v.r.len, &g) == 0)
            for (uint32_t a = 0; a < g.arenas; a++)
                owners += le32_get(g.owner[a]) != 0;
        VP_VERIFY(owners, <=, v.r.len);
    }
    if (pool_group_decode(bytes, size, &g) == 0)
        VP_VERIFY(g.members, <=, (unsigned)RAID_WIDTH_MAX);
    free(bytes);
}

/* Groups of volume 1, in memory of exactly their length, with right checksums where they fit. */
static void try_keep(const uint8_t *data, size_t size)
{
    uint8_t *bytes = malloc(size);
    struct pool_batch b;
    if (!bytes)
        return;
    memcpy(bytes, data, size);
    for (size_t at = 0; size - at >= sizeof(struct keep_group_header);) {
        struct keep_group_header *h = (void *)(bytes + at);
        at += sizeof(*h);
        if (le32_get(h->bytes) > size - at)
            break;
        h->crc = le32_make(keep_group_crc(h));
        at += le32_get(h->bytes);
    }
    pool_batch_init(&b);
    if (keep_groups_decode(bytes, size, 1, 2, &b) == 0)
        VP_VERIFY(b.len, <=, size);
    pool_batch_fini(&b);
    free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const decoder[])(const uint8_t *, size_t) = {try_label, try_root, try_batch,
                                                               try_records, try_keep};
    if (size > 1)
        decoder[data[0] % 5](data + 1, size - 1);
    return 0;
}

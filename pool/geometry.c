/* Sizes: chunk, extent, log segment, and how much of a disk they use. */
#include "pool/disk_impl.h"

enum { CHUNK_MIN = 16 << 10, CHUNK_MAX = 1 << 20, CHUNK_DEFAULT = 64 << 10 };
enum { SEGMENT_MIN = 16 << 10, SEGMENT_MAX = 1 << 20 };
/* Extents on the smallest disk that the choice aims at. */
#define EXTENTS_WANTED 4096U

static bool is_pow2_within(uint32_t v, uint32_t low, uint32_t high)
{
    return is_pow2(v) && v >= low && v <= high;
}

bool pool_geometry_is_valid(const struct pool_geometry *g)
{
    return is_pow2_within(g->chunk_bytes, CHUNK_MIN, CHUNK_MAX) &&
           is_pow2_within(g->extent_bytes, POOL_EXTENT_MIN, POOL_EXTENT_MAX) &&
           is_pow2_within(g->log_segment_bytes, SEGMENT_MIN, SEGMENT_MAX) &&
           g->log_segment_bytes <= g->extent_bytes;
}

/* The largest power of two that is not above v, within limits that are powers of two. */
static uint32_t pow2_floor_within(uint64_t v, uint32_t low, uint32_t high)
{
    uint32_t p = high;
    while (p > low && p > v)
        p /= 2;
    return p;
}

int pool_geometry_choose(struct pool_geometry *g, uint64_t smallest_bytes, struct vp_error *err)
{
    if (!g->chunk_bytes)
        g->chunk_bytes = CHUNK_DEFAULT;
    if (!g->extent_bytes)
        g->extent_bytes =
            pow2_floor_within(smallest_bytes / EXTENTS_WANTED, POOL_EXTENT_MIN, POOL_EXTENT_MAX);
    if (!g->log_segment_bytes)
        g->log_segment_bytes = pow2_floor_within(g->extent_bytes / 16, SEGMENT_MIN, SEGMENT_MAX);
    if (!is_pow2_within(g->chunk_bytes, CHUNK_MIN, CHUNK_MAX))
        return vp_fail(err, VP_E_INVALID, "a chunk of %u bytes: use a power of two, 16K to 1M",
                       g->chunk_bytes);
    if (!is_pow2_within(g->extent_bytes, POOL_EXTENT_MIN, POOL_EXTENT_MAX))
        return vp_fail(err, VP_E_INVALID, "an extent of %u bytes: use a power of two, 1M to 1G",
                       g->extent_bytes);
    if (!pool_geometry_is_valid(g))
        return vp_fail(err, VP_E_INVALID,
                       "a log segment of %u bytes: use a power of two, 16K to 1M, not above the "
                       "extent",
                       g->log_segment_bytes);
    return 0;
}

uint64_t pool_disk_min_bytes(uint32_t extent_bytes)
{
    return 2 * (uint64_t)POOL_LABEL_AREA + (uint64_t)POOL_DISK_EXTENTS_MIN * extent_bytes;
}

uint32_t pool_disk_extents(uint64_t size_bytes, uint32_t extent_bytes)
{
    uint64_t n = (pool_tail_bytes(size_bytes) - POOL_LABEL_AREA) / extent_bytes;
    return n > UINT32_MAX ? UINT32_MAX : (uint32_t)n;
}

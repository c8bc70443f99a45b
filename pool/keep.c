/*
 * Kept memory: writing it. See keep.h for what it is for.
 *
 * Two areas take turns, so that appending never waits for a commit. A commit that begins covers the
 * area in use, and appends go on in the other area. When the commit is durable, the covered area is
 * emptied.
 *
 *     append ──▶ [ area 0 ]        commit begins        [ area 0 ] covered ──durable──▶ empty
 *                [ area 1 ] empty  ─────────────▶  append ──▶ [ area 1 ]
 *
 * After a failed commit both areas may be in use. Then the next commit that succeeds empties the
 * older one.
 *
 * A kill comes between any two instructions. A group counts once `used` covers it, by one store
 * after its bytes. An area is emptied by one store as well.
 */
#include "pool/keep_impl.h"

#include "base/crc.h"
#include "base/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    GROWTH_BYTES = 16 << 10,
    AREA_RECORDS = 8192, /* that fit into an area at least, within: */
    AREA_BYTES_MIN = 1 << 20,
    AREA_BYTES_MAX = 8 << 20,
    NO_AREA = KEEP_AREAS,
};

struct keep_area {
    size_t used, reserved;
};

struct pool_keep {
    struct pool *pool;
    uint32_t volume;
    size_t area_bytes;
    struct io_keep mem;
    bool unavailable, warned;
    unsigned current, covered; /* areas; NO_AREA */
    uint64_t seq;              /* of the current area */
    uint64_t commit;           /* the last one that began */
    uint64_t log_seq;          /* of the header */
    struct keep_area area[KEEP_AREAS];
};

void pool_keep_prefix(struct vp_uuid pool, char out[static POOL_KEEP_PREFIX_BYTES])
{
    char uuid[VP_UUID_TEXT];
    (void)snprintf(out, POOL_KEEP_PREFIX_BYTES, "vpool-%s-", vp_uuid_format(pool, uuid));
}

static void name_of(const struct pool *p, uint32_t volume, char out[static IO_KEEP_NAME_MAX + 1])
{
    char prefix[POOL_KEEP_PREFIX_BYTES];
    pool_keep_prefix(p->uuid, prefix);
    (void)snprintf(out, IO_KEEP_NAME_MAX + 1, "%s%" PRIu32 "-%016" PRIx64, prefix, volume,
                   p->log.stream.id);
}

int pool_keep_open(struct pool *p, uint32_t volume, size_t record_bytes, uint64_t commit,
                   struct pool_keep **out)
{
    struct pool_keep *k = calloc(1, sizeof(*k));
    if (!k)
        return VP_E_NO_MEMORY;
    size_t area = AREA_RECORDS * (record_bytes + sizeof(struct keep_group_header));
    area = area < AREA_BYTES_MIN ? AREA_BYTES_MIN : area > AREA_BYTES_MAX ? AREA_BYTES_MAX : area;
    k->pool = p;
    k->volume = volume;
    k->area_bytes = align_up(area, GROWTH_BYTES);
    k->covered = NO_AREA;
    k->commit = commit;
    *out = k;
    return 0;
}

/* ---- fields that change --------------------------------------------------------------------- */

static void store(struct pool_keep *k, size_t at, uint64_t v)
{
    struct le64 le = le64_make(v);
    uint64_t word;
    memcpy(&word, &le, sizeof(word));
    __atomic_store_n((uint64_t *)(void *)(k->mem.base + at), word, __ATOMIC_RELEASE);
}

static size_t area_field(unsigned area)
{
    return offsetof(struct keep_header, area) + area * sizeof(struct keep_area_header);
}

static void area_set_used(struct pool_keep *k, unsigned area, size_t used)
{
    k->area[area].used = used;
    store(k, area_field(area) + offsetof(struct keep_area_header, used), used);
}

/* Notes how far the log is durable. An append relies on leases, intents and commits that are in the
 * log up to here. The note never says more than the log has, so a kill may come before or after
 * it. */
static void log_note(struct pool_keep *k)
{
    uint64_t seq = atomic_load_explicit(&k->pool->log.durable_seq, memory_order_relaxed);
    if (seq == k->log_seq)
        return;
    k->log_seq = seq;
    store(k, offsetof(struct keep_header, log_seq), seq);
}

/* An empty area becomes the one that is appended to. */
static void area_enter(struct pool_keep *k, unsigned area)
{
    k->current = area;
    store(k, area_field(area) + offsetof(struct keep_area_header, seq), ++k->seq);
}

static size_t area_offset(const struct pool_keep *k, unsigned area)
{
    return KEEP_HEADER_PAGE + area * k->area_bytes;
}

static unsigned char *area_at(struct pool_keep *k, unsigned area)
{
    return k->mem.base + area_offset(k, area);
}

/* ---- life ----------------------------------------------------------------------------------- */

static int header_write(struct pool_keep *k)
{
    struct keep_header h = {
        .magic = le32_make(KEEP_MAGIC),
        .version = le32_make(KEEP_VERSION),
        .volume = le32_make(k->volume),
        .area_bytes = le32_make((uint32_t)k->area_bytes),
        .stream = {le64_make(k->pool->log.stream.id)},
        .durable = le64_make(0),
        .log_stream = le64_make(k->pool->log.stream.id),
    };
    int rc = io_boot_id(h.boot_id);
    memcpy(h.pool_uuid, k->pool->uuid.b, sizeof(h.pool_uuid));
    h.crc = le32_make(vp_crc32c(&h, offsetof(struct keep_header, crc)));
    if (!rc)
        memcpy(k->mem.base, &h, sizeof(h));
    return rc;
}

/* Memory that cannot be had now may be had later. What this system does not have is not asked for
 * again. */
static void begin_failed(struct pool_keep *k, const char *name, int rc)
{
    io_keep_close(&k->mem);
    io_keep_remove(name);
    k->unavailable = rc != VP_E_NO_MEMORY;
    if (!k->warned)
        vp_warn("pool %s: volume %u: %s: %s", k->pool->name, k->volume, vp_err_text(rc),
                k->unavailable ? "what is not flushed will not survive a kill of the daemon"
                               : "so that a kill of the daemon loses nothing, each write is "
                                 "committed");
    k->warned = true;
}

static bool keep_begin(struct pool_keep *k)
{
    char name[IO_KEEP_NAME_MAX + 1];
    if (k->mem.base || k->unavailable || pool_is_fenced(k->pool))
        return k->mem.base;
    name_of(k->pool, k->volume, name);
    int rc = io_keep_new(name, KEEP_HEADER_PAGE + KEEP_AREAS * k->area_bytes, &k->mem);
    if (!rc)
        rc = io_keep_reserve(&k->mem, 0, KEEP_HEADER_PAGE);
    if (!rc)
        rc = header_write(k);
    if (rc) {
        begin_failed(k, name, rc);
        return false;
    }
    area_enter(k, 0);
    return true;
}

bool pool_keep_take_memory(struct pool_keep *k)
{
    size_t missing = 0;
    if (!keep_begin(k))
        return false;
    for (unsigned i = 0; i < KEEP_AREAS; i++)
        missing += k->area_bytes - k->area[i].reserved;
    if (!io_keep_has_room(&k->mem, missing))
        return true; /* appends take their part as they come */
    for (unsigned i = 0; i < KEEP_AREAS; i++) {
        struct keep_area *a = &k->area[i];
        if (io_keep_reserve(&k->mem, area_offset(k, i) + a->reserved, k->area_bytes - a->reserved))
            break; /* likewise */
        a->reserved = k->area_bytes;
    }
    return true;
}

size_t pool_keep_bytes_max(const struct pool_keep *k)
{
    return k->area_bytes;
}

void pool_keep_close(struct pool_keep *k)
{
    char name[IO_KEEP_NAME_MAX + 1];
    if (!k)
        return;
    if (k->mem.base && !k->area[0].used && !k->area[1].used) {
        name_of(k->pool, k->volume, name);
        io_keep_remove(name);
    }
    io_keep_close(&k->mem);
    free(k);
}

void pool_keep_forget(const struct pool *p, uint32_t volume)
{
    char name[IO_KEEP_NAME_MAX + 1];
    name_of(p, volume, name);
    io_keep_remove(name);
}

/* Of the stream whose digits `arg` has. */
static int forget_one(const char *name, void *arg)
{
    const char *dash = strrchr(name, '-');
    if (dash && strcmp(dash + 1, arg) == 0)
        io_keep_remove(name);
    return 0;
}

void pool_keep_forget_all(const struct pool *p)
{
    char prefix[POOL_KEEP_PREFIX_BYTES], stream[17];
    pool_keep_prefix(p->uuid, prefix);
    (void)snprintf(stream, sizeof(stream), "%016" PRIx64, p->log.stream.id);
    int rc = io_keep_each(prefix, forget_one, stream);
    if (rc)
        vp_warn("pool %s: kept memory cannot be looked through: %s; remove /dev/shm/%s*%s, "
                "which is not to be believed",
                p->name, vp_err_text(rc), prefix, stream);
}

/* ---- appending ------------------------------------------------------------------------------ */

/* The header and its records, which follow it in memory, but for the CRC itself. */
uint32_t keep_group_crc(const struct keep_group_header *h)
{
    return vp_crc32c(&h->bytes, sizeof(*h) - sizeof(h->crc) + le32_get(h->bytes));
}

/* Room for `len` more bytes in the current area. */
static bool area_extend(struct pool_keep *k, size_t len)
{
    struct keep_area *a = &k->area[k->current];
    if (len > k->area_bytes - a->used)
        return false;
    if (a->used + len <= a->reserved)
        return true;
    size_t more = align_up(a->used + len - a->reserved, GROWTH_BYTES);
    if (io_keep_reserve(&k->mem, area_offset(k, k->current) + a->reserved, more))
        return false; /* no memory now: a commit does as well */
    a->reserved += more;
    return true;
}

enum pool_keep_result pool_keep_append_begin(struct pool_keep *k, size_t bytes,
                                             struct pool_batch *b)
{
    if (!k->mem.base && !keep_begin(k))
        return k->unavailable ? POOL_KEEP_NONE : POOL_KEEP_FULL;
    size_t len = sizeof(struct keep_group_header) + bytes;
    if (len > k->area_bytes)
        return POOL_KEEP_TOO_BIG;
    if (!area_extend(k, len))
        return POOL_KEEP_FULL;
    unsigned char *at = area_at(k, k->current) + k->area[k->current].used;
    *b = (struct pool_batch){
        .bytes = at + sizeof(struct keep_group_header), .capacity = bytes, .borrowed = true};
    return POOL_KEPT;
}

void pool_keep_append_end(struct pool_keep *k, const struct pool_batch *b)
{
    size_t used = k->area[k->current].used;
    struct keep_group_header *h = (void *)(area_at(k, k->current) + used);
    VP_VERIFY_TRUE(!b->failed);
    h->bytes = le32_make((uint32_t)b->len);
    h->commit = le64_make(k->commit);
    h->crc = le32_make(keep_group_crc(h));
    log_note(k);
    area_set_used(k, k->current, used + sizeof(*h) + b->len);
}

void pool_keep_commit_begin(struct pool_keep *k, uint64_t number)
{
    unsigned other = !k->current;
    k->commit = number;
    if (!k->mem.base)
        return;
    if (k->area[other].used) {
        k->covered = other; /* of a commit that failed; this one has its records, too */
    } else {
        k->covered = k->current;
        if (k->area[k->current].used)
            area_enter(k, other);
    }
}

void pool_keep_commit_end(struct pool_keep *k, bool durable)
{
    if (durable && k->mem.base)
        store(k, offsetof(struct keep_header, durable), k->commit);
    if (durable && k->covered != NO_AREA && k->covered != k->current)
        area_set_used(k, k->covered, 0);
    k->covered = NO_AREA;
}

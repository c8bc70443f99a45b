/*
 * Kept memory: what the next import does with it. See keep.h for what it is for.
 *
 *     find ─ the memory of the incarnation that the newest root names, if its log has all that was
 *            durable; other memory is of another time or other disks, and stays (K5)
 *     accept ─ the memory belongs to our incarnation as well, before its root is written: whichever
 *            root the next import finds, it takes the memory
 *     replay ─ the records go into the log and to the volumes, and the memory is removed. What they
 *            name is durable: the import has flushed the disks (GUARD_IMPORT_FLUSH)
 *
 * So the import ends the dead daemon's commit in its place. A kill or a power cut at any point
 * leaves records that are in the log, or still kept, or both. Both does no harm: records are
 * absolute, and the newest comes last.
 */
#include "pool/keep_impl.h"

#include "base/crc.h"
#include "base/hash.h"
#include "base/log.h"
#include "io/guard.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of one volume. Owned by its list. */
struct keep_found {
    struct list link;
    char name[IO_KEEP_NAME_MAX + 1];
    struct keep_header header;
    uint32_t volume, area_bytes;
    unsigned stream; /* which of the two is ours */
};

enum {
    AREA_BYTES_MAX = 64 << 20, /* that anybody would believe */
    KEY_BITS = 48,             /* of chunk and arena numbers, with room to spare */
};
#define OWNER_PAUSE_NS (UINT64_C(10) * 1000000)
#define OWNER_WAIT_NS  (UINT64_C(1000) * 1000000)

void pool_keeps_free(struct list *found)
{
    struct list *l;
    while ((l = list_pop(found)))
        free(container_of(l, struct keep_found, link));
}

/* ---- find ----------------------------------------------------------------------------------- */

static bool is_whole(struct keep_found *f)
{
    const struct keep_header *h = &f->header;
    f->volume = le32_get(h->volume);
    f->area_bytes = le32_get(h->area_bytes);
    return le32_get(h->magic) == KEEP_MAGIC && le32_get(h->version) == KEEP_VERSION &&
           le32_get(h->crc) == vp_crc32c(h, offsetof(struct keep_header, crc)) &&
           f->area_bytes <= (uint32_t)AREA_BYTES_MAX;
}

/* Of this pool, since the machine was started. */
static bool is_of_now(const struct pool *p, const struct keep_found *f, const uint8_t *boot_id)
{
    return memcmp(f->header.boot_id, boot_id, IO_BOOT_ID_BYTES) == 0 &&
           memcmp(f->header.pool_uuid, p->uuid.b, sizeof(f->header.pool_uuid)) == 0;
}

/* Of the volume's commits, the last one that is in the log. */
static uint64_t last_commit(struct pool *p, uint32_t volume)
{
    struct pool_record r;
    struct le64 le;
    if (!pool_record_get(p, POOL_RECORD_COUNTER, volume, POOL_COUNTER_COMMITS, &r) ||
        r.len != sizeof(le))
        return 0;
    memcpy(&le, r.value, sizeof(le));
    return le64_get(le);
}

/* The log that was found has what was durable at the last append: leases of the volume's arenas,
 * intents. Where its last piece is of a later incarnation, the import that began that one has
 * looked, and sealed what it found. */
static bool log_is_long_enough(const struct keep_header *h, const struct pool_log_piece *last)
{
    return le64_get(h->log_stream) != last->stream || le64_get(h->log_seq) <= last->last_seq ||
           !io_guard_on(GUARD_KEEP_NEEDS_LOG);
}

static bool is_of_stream(struct keep_found *f, uint64_t stream)
{
    f->stream = le64_get(f->header.stream[0]) == stream ? 0 : 1;
    return le64_get(f->header.stream[f->stream]) == stream;
}

/* K4: of the incarnation that the newest root names, whose log has what was durable. A volume that
 * is not there was deleted, or not yet created. */
static bool is_ours(struct pool *p, struct keep_found *f, const struct pool_log_piece *last)
{
    const struct keep_header *h = &f->header;
    struct pool_record volume;
    return is_of_stream(f, last->stream) &&
           pool_record_get(p, POOL_RECORD_VOLUME, f->volume, 0, &volume) &&
           le64_get(h->durable) <= last_commit(p, f->volume) && log_is_long_enough(h, last);
}

/* Collects the names. */
static int find_one(const char *name, void *found)
{
    struct keep_found *f = calloc(1, sizeof(*f));
    if (!f)
        return VP_E_NO_MEMORY;
    (void)snprintf(f->name, sizeof(f->name), "%s", name);
    list_add_tail(found, &f->link);
    return 0;
}

/* CO. Its owner lives: its pool's disks are not these, but what these are a copy of. A process that
 * was killed may take a moment to be gone, until `deadline_ns` for all. */
static CO int belongs_to_the_living(const struct keep_found *f, uint64_t deadline_ns, bool *owned)
{
    int rc = io_keep_is_owned(f->name, owned);
    while (!rc && *owned && reactor_now_ns() < deadline_ns && !co_sleep_ns(OWNER_PAUSE_NS))
        rc = io_keep_is_owned(f->name, owned);
    return rc;
}

/* CO. Reads the header. *whole: it may be somebody's. What cannot be anybody's goes (K5); what
 * cannot be read stays. */
static CO int look(struct pool *p, struct keep_found *f, uint64_t deadline_ns, bool *whole)
{
    uint8_t boot_id[IO_BOOT_ID_BYTES];
    bool foreign;
    *whole = false;
    int rc = io_boot_id(boot_id);
    if (!rc)
        rc = belongs_to_the_living(f, deadline_ns, &foreign);
    if (rc)
        return rc;
    rc = io_keep_read(f->name, 0, &f->header, sizeof(f->header));
    if (rc == VP_E_NOT_FOUND)
        return 0;
    if (foreign || rc == VP_E_PERMISSION) {
        vp_warn("pool %s: %s belongs to %s and is not used", p->name, f->name,
                foreign ? "a daemon that runs (are these disks copies?)" : "another user");
        return 0;
    }
    if (rc && rc != VP_E_IO_SHORT)
        return rc;
    if (rc || !is_whole(f) || !is_of_now(p, f, boot_id)) {
        vp_info("pool %s: %s is damaged or from before a reboot: it is removed", p->name, f->name);
        io_keep_remove(f->name);
        return 0;
    }
    *whole = true;
    return 0;
}

/* CO. *use: it is ours. */
static CO int consider(struct pool *p, struct keep_found *f, const struct pool_log_piece *last,
                       uint64_t deadline_ns, bool *use)
{
    bool whole;
    *use = false;
    int rc = look(p, f, deadline_ns, &whole);
    if (rc || !whole)
        return rc;
    *use = is_ours(p, f, last);
    if (!*use)
        vp_warn("pool %s: %s holds what a killed daemon kept of another state of these disks and "
                "is not used; if they are an older copy, import the others instead (`vpool doctor` "
                "shows what is kept)",
                p->name, f->name);
    return 0;
}

CO int pool_keeps_find(struct pool *p, const struct pool_log_piece *last, struct list *found)
{
    char prefix[POOL_KEEP_PREFIX_BYTES];
    struct keep_found *f, *next;
    pool_keep_prefix(p->uuid, prefix);
    uint64_t deadline_ns = reactor_now_ns() + OWNER_WAIT_NS;
    int rc = io_keep_each(prefix, find_one, found);
    list_for_each_safe (f, next, found, link) {
        bool use = false;
        if (!rc)
            rc = consider(p, f, last, deadline_ns, &use);
        if (use)
            continue;
        list_del(&f->link);
        free(f);
    }
    return rc;
}

CO void pool_keeps_forget(struct pool *p, uint64_t stream)
{
    char prefix[POOL_KEEP_PREFIX_BYTES];
    struct keep_found *f;
    struct list found;
    pool_keep_prefix(p->uuid, prefix);
    uint64_t deadline_ns = reactor_now_ns() + OWNER_WAIT_NS;
    list_init(&found);
    int rc = io_keep_each(prefix, find_one, &found);
    list_for_each (f, &found, link) {
        bool whole;
        int look_rc = look(p, f, deadline_ns, &whole);
        if (look_rc && !rc)
            rc = look_rc;
        if (!look_rc && whole && is_of_stream(f, stream))
            io_keep_remove(f->name);
    }
    pool_keeps_free(&found);
    if (rc)
        vp_warn("pool %s: kept memory cannot be looked through: %s; remove /dev/shm/%s*, which is "
                "not to be believed",
                p->name, vp_err_text(rc), prefix);
}

int pool_keeps_accept(const struct pool *p, const struct list *found, uint64_t stream,
                      struct vp_error *err)
{
    struct le64 le = le64_make(stream);
    const struct keep_found *f;
    list_for_each (f, found, link) {
        size_t at = offsetof(struct keep_header, stream) + !f->stream * sizeof(le);
        int rc = io_keep_poke(f->name, at, &le, sizeof(le));
        if (rc)
            return vp_fail(err, rc,
                           "pool %s: volume %u: what a killed daemon kept in memory (%s) cannot be "
                           "changed: %s; it stays, and another import tries again",
                           p->name, f->volume, f->name, vp_err_text(rc));
    }
    return 0;
}

/* ---- decode --------------------------------------------------------------------------------- */

static bool record_fits(const struct record_view *v, uint32_t volume)
{
    return v->r.scope == volume && v->r.key >> KEY_BITS == 0 &&
           (v->r.kind == POOL_RECORD_MAP || v->r.kind == POOL_RECORD_SPACE ||
            v->r.kind == POOL_RECORD_STAT);
}

/* All records of a group, or VP_E_KEEP_DAMAGED. */
static int group_decode(const uint8_t *records, uint32_t bytes, uint32_t volume,
                        struct pool_batch *out)
{
    struct record_view v;
    size_t at = 0;
    int rc;
    while ((rc = record_decode(records, bytes, &at, &v)) > 0) {
        enum pool_record_kind kind = (enum pool_record_kind)v.r.kind;
        if (!record_fits(&v, volume))
            return VP_E_KEEP_DAMAGED;
        if (v.op == RECORD_DELETE)
            pool_batch_delete(out, kind, volume, v.r.key);
        else
            pool_batch_set(out, kind, volume, v.r.key, v.r.value, v.r.len);
    }
    return rc ? VP_E_KEEP_DAMAGED : out->failed ? VP_E_NO_MEMORY : 0;
}

/* The group at *at, which moves behind it; what commit `commit` covers is left out (K2). */
static int group_take(const uint8_t *area, size_t used, size_t *at, uint32_t volume,
                      uint64_t commit, struct pool_batch *out)
{
    struct keep_group_header h;
    if (used - *at < sizeof(h))
        return VP_E_KEEP_DAMAGED;
    memcpy(&h, area + *at, sizeof(h));
    const uint8_t *records = area + *at + sizeof(h);
    uint32_t bytes = le32_get(h.bytes);
    if (bytes > used - *at - sizeof(h) ||
        keep_group_crc((const void *)(area + *at)) != le32_get(h.crc))
        return VP_E_KEEP_DAMAGED;
    *at += sizeof(h) + bytes;
    if (le64_get(h.commit) < commit && io_guard_on(GUARD_KEEP_ORDER))
        return 0;
    size_t len = out->len;
    unsigned count = out->count;
    int rc = group_decode(records, bytes, volume, out);
    if (rc) {
        out->len = len;
        out->count = count;
    }
    return rc;
}

int keep_groups_decode(const uint8_t *bytes, size_t used, uint32_t volume, uint64_t commit,
                       struct pool_batch *out)
{
    int rc = 0;
    for (size_t at = 0; !rc && at < used;)
        rc = group_take(bytes, used, &at, volume, commit, out);
    return rc;
}

static int area_decode(const struct keep_found *f, unsigned area, uint64_t commit,
                       struct pool_batch *out)
{
    uint64_t used = le64_get(f->header.area[area].used);
    if (used > f->area_bytes)
        return VP_E_KEEP_DAMAGED;
    uint8_t *bytes = malloc(used + 1);
    if (!bytes)
        return VP_E_NO_MEMORY;
    int rc = io_keep_read(f->name, KEEP_HEADER_PAGE + area * (size_t)f->area_bytes, bytes, used);
    if (rc == VP_E_IO_SHORT)
        rc = VP_E_KEEP_DAMAGED;
    if (!rc)
        rc = keep_groups_decode(bytes, used, f->volume, commit, out);
    free(bytes);
    return rc;
}

/* The area with the older groups. */
static unsigned older_area(const struct keep_found *f)
{
    const struct keep_area_header *a = f->header.area;
    return le64_get(a[0].seq) <= le64_get(a[1].seq) ? 0 : 1;
}

/* All groups that count, of both areas, the older one first. */
static int keep_decode(struct pool *p, const struct keep_found *f, struct pool_batch *out)
{
    uint64_t commit = last_commit(p, f->volume);
    unsigned first = older_area(f);
    int rc = area_decode(f, first, commit, out);
    if (!rc)
        rc = area_decode(f, !first, commit, out);
    if (rc != VP_E_KEEP_DAMAGED)
        return rc;
    vp_warn("pool %s: volume %u: what a killed daemon kept in memory is damaged; writes that were "
            "not flushed may be lost, as after a power cut",
            p->name, f->volume);
    return 0;
}

/* ---- the last record of each key ------------------------------------------------------------- */

struct last {
    struct hash_node node; /* by kind and key */
    size_t at;             /* in the batch    */
};

/* Unique: keys have no more than KEY_BITS. */
static uint64_t id_of(const struct pool_record *r)
{
    return (uint64_t)r->kind << KEY_BITS | r->key;
}

/* Where each key's last record is. `last` has room for all. */
static int lasts_find(const struct pool_batch *b, struct hash *h, struct last *last)
{
    struct pool_record r;
    bool is_delete;
    int rc;
    for (size_t at = 0, begin = 0; (rc = pool_batch_next(b, &at, &r, &is_delete)) == 1;
         begin = at) {
        struct hash_node *n = hash_find(h, id_of(&r));
        if (!n) {
            n = &last->node;
            hash_add(h, n, id_of(&r));
            last++;
        }
        container_of(n, struct last, node)->at = begin;
    }
    return rc;
}

static int lasts_copy(const struct pool_batch *b, const struct hash *h, struct pool_batch *out)
{
    struct pool_record r;
    bool is_delete;
    int rc;
    for (size_t at = 0, begin = 0; (rc = pool_batch_next(b, &at, &r, &is_delete)) == 1;
         begin = at) {
        const struct hash_node *n = hash_find(h, id_of(&r));
        if (container_of(n, struct last, node)->at != begin)
            continue;
        if (is_delete)
            pool_batch_delete(out, (enum pool_record_kind)r.kind, r.scope, r.key);
        else
            pool_batch_set(out, (enum pool_record_kind)r.kind, r.scope, r.key, r.value, r.len);
    }
    return rc ? rc : out->failed ? VP_E_NO_MEMORY : 0;
}

/* Only the last record of each key, so that the log takes no more of it than of a commit. */
static int collapse(struct pool_batch *b)
{
    struct pool_batch out;
    struct hash h = {0};
    struct last *last = calloc(b->count + 1, sizeof(*last));
    pool_batch_init(&out);
    int rc = last && hash_init(&h, b->count + 1) ? lasts_find(b, &h, last) : VP_E_NO_MEMORY;
    if (!rc)
        rc = lasts_copy(b, &h, &out);
    if (h.bucket)
        hash_fini(&h);
    free(last);
    if (rc) {
        pool_batch_fini(&out);
        return rc;
    }
    pool_batch_fini(b);
    *b = out;
    return 0;
}

/* ---- replay ---------------------------------------------------------------------------------- */

/* Hands the map's records to the volumes. */
static int client_replay(struct pool *p, const struct pool_batch *b)
{
    const struct pool_client *client = &p->client;
    struct pool_record r;
    bool is_delete;
    size_t at = 0;
    int rc;
    while ((rc = pool_batch_next(b, &at, &r, &is_delete)) == 1) {
        if (r.kind < POOL_RECORD_TABLE_MAX || !client->replay)
            continue;
        pool_meta_replayed(p, 1);
        rc = client->replay(client->arg, (enum pool_record_kind)r.kind, is_delete, r.scope, r.key,
                            r.value, r.len);
        if (rc)
            return rc;
    }
    return rc;
}

/* From now on nothing of the area is taken. */
static int area_empty(const struct keep_found *f, unsigned area)
{
    const struct le64 none = {0};
    size_t at = offsetof(struct keep_header, area) + area * sizeof(struct keep_area_header) +
                offsetof(struct keep_area_header, used);
    return io_keep_poke(f->name, at, &none, sizeof(none));
}

/* Emptied first: should its name stay, nothing of it is taken again. The newer area is emptied
 * last: the older one alone, taken after all was in the log, would undo what the newer one says. */
static int keep_drop(const struct keep_found *f)
{
    unsigned first = older_area(f);
    int rc = area_empty(f, first);
    if (!rc)
        rc = area_empty(f, !first);
    if (!rc)
        io_keep_remove(f->name);
    return rc;
}

/* CO. */
static CO int keep_replay(struct pool *p, const struct keep_found *f, struct vp_error *err)
{
    struct pool_batch b;
    pool_batch_init(&b);
    int rc = keep_decode(p, f, &b);
    if (!rc && b.count)
        rc = collapse(&b);
    if (!rc && b.count) {
        vp_info("pool %s: volume %u: %u records of a killed daemon go into the log", p->name,
                f->volume, b.count);
        rc = pool_commit_home(p, &b);
        if (!rc)
            rc = client_replay(p, &b);
    }
    pool_batch_fini(&b);
    if (!rc)
        rc = keep_drop(f);
    if (rc)
        return vp_fail(err, rc,
                       "pool %s: volume %u: what a killed daemon kept in memory (%s) cannot be "
                       "taken: %s; it stays, and another import tries again",
                       p->name, f->volume, f->name, vp_err_text(rc));
    return 0;
}

CO int pool_keeps_replay(struct pool *p, struct list *found, struct vp_error *err)
{
    const struct keep_found *f;
    int rc = 0;
    list_for_each (f, found, link)
        if (!rc)
            rc = keep_replay(p, f, err);
    return rc;
}

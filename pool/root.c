/*
 * Roots: the block from which everything else is found, and the disk table.
 *
 * Root n goes to slot n mod 8, first to the heads of all disks in service, then to their tails,
 * each with FUA. The root is durable when all of them have it. Only then is anything used again
 * that it replaced.
 *
 *  R1  At any moment of a write of root n+1, slot (n+1) mod 8 has some whole copy: of root n+1
 *      itself, or of what it held before. The reason is that heads and tails are never in flight
 *      together. So when an import finds root n, and the next slot damaged in *every* copy, then
 *      n+1 was durable once, and n may lead to pages used again. The import refuses
 *      (VP_E_ROOT_STALE) instead of losing what n+1 knew. An empty slot is damaged as well. A new
 *      pool begins with root 9, after roots 1 to 8 with the same content, so none of its slots is
 *      empty. Pools of early releases had empty slots up to root 8.
 *  R2  A disk that fails the write is marked out, and the root is written again with the next
 *      number.
 *  R3  Root n+1 is begun when n is on all disks in service. After a crash in the middle of n the
 *      import sees to that (pool_root_repeat). Otherwise a few crashes in a row could leave a disk
 *      in service with a root so old that the disk seems to have been set back (import.c, I9).
 *      For the same reason a disk that comes into service has root n before n+1 says so
 *      (pool_root_enter).
 *  R4  A disk that is out but serves its data (disk.c) gets the roots as well, so that an image of
 *      it can be told from the disk: out_after in its row of the table says the newest root that it
 *      has. Nobody waits for more from it. When it fails a root, it gets none any more, and
 *      out_after stays.
 */
#include "pool/keep.h"
#include "pool/meta_impl.h"

#include "base/crc.h"
#include "base/log.h"

#include <stdlib.h>

/* ---- bytes -------------------------------------------------------------------------------- */

#define ROOT_FEATURES_KNOWN                                                                        \
    (uint64_t)(ROOT_FEATURE_DELTAS | ROOT_FEATURE_WIDE | ROOT_FEATURE_BEHIND | ROOT_FEATURE_REMOVED)

static uint32_t root_crc(const uint8_t *block)
{
    static const struct le32 zero;
    size_t at = offsetof(struct root_block, crc), after = at + sizeof(zero);
    uint32_t crc = vp_crc32c(block, at);
    crc = vp_crc32c_more(crc, &zero, sizeof(zero));
    return vp_crc32c_more(crc, block + after, ROOT_BYTES - after);
}

static void encode_disks(const struct pool *p, struct root_block *b)
{
    b->disks = le16_make((uint16_t)p->disk_count);
    for (unsigned i = 0; i < p->disk_count; i++) {
        const struct pool_disk *d = &p->disk[i];
        b->disk[i] = (struct root_disk){
            .state = (uint8_t)d->state,
            .extents = le32_make(d->extents_total),
            .size_bytes = le64_make(d->size_bytes),
        };
        memcpy(b->disk[i].uuid, d->uuid.b, sizeof(b->disk[i].uuid));
        for (unsigned k = 0; k < sizeof(b->disk[i].out_after); k++)
            b->disk[i].out_after[k] = (uint8_t)(d->out_after >> 8 * k);
        b->read_only[i / 8] |= (uint8_t)(d->read_only << i % 8);
        b->leaves[i / 8] |= (uint8_t)(d->leaves << i % 8);
    }
}

static void encode_identity(const struct pool *p, struct root_block *b)
{
    memcpy(b->magic, ROOT_MAGIC, sizeof(b->magic));
    b->version = le32_make(ROOT_VERSION);
    memcpy(b->pool_uuid, p->uuid.b, sizeof(b->pool_uuid));
    memcpy(b->name, p->name, strlen(p->name));
    b->features_compat = le64_make(p->features_compat);
    b->features_ro = le64_make(p->features_ro);
    b->chunk_bytes = le32_make(p->geometry.chunk_bytes);
    b->extent_bytes = le32_make(p->geometry.extent_bytes);
    b->log_segment_bytes = le32_make(p->geometry.log_segment_bytes);
    b->profile[0] = p->default_profile.kind;
    b->profile[1] = p->default_profile.data;
    b->profile[2] = p->default_profile.extra;
}

static void encode_image(const struct pool *p, const struct pool_table_image_ref *from,
                         struct root_table_image *to)
{
    log_segment_encode(&from->start, &p->geometry, &to->start);
    to->stream = le64_make(from->stream);
    to->batches = le64_make(from->batches);
}

static void encode_deltas(const struct pool *p, const struct pool_root *root, struct root_block *b)
{
    b->deltas = le16_make((uint16_t)root->deltas);
    for (unsigned i = 0; i < root->deltas; i++)
        encode_image(p, &root->delta[i], &b->delta[i]);
}

static bool some_disk_is(const struct pool *p, enum pool_disk_state state)
{
    for (unsigned i = 0; i < p->disk_count; i++)
        if (p->disk[i].state == state)
            return true;
    return false;
}

/* Of this root. */
static uint64_t features_incompat(const struct pool *p, const struct pool_root *root)
{
    return p->features_incompat | (root->deltas ? ROOT_FEATURE_DELTAS : 0) |
           (pool_is_wide(p) ? ROOT_FEATURE_WIDE : 0) |
           (some_disk_is(p, POOL_DISK_BEHIND) ? ROOT_FEATURE_BEHIND : 0) |
           (some_disk_is(p, POOL_DISK_NONE) ? ROOT_FEATURE_REMOVED : 0);
}

void root_block_encode(const struct pool *p, const struct pool_root *root, uint8_t *block)
{
    struct root_block *b = (struct root_block *)block;
    memset(block, 0, ROOT_BYTES);
    encode_identity(p, b);
    encode_disks(p, b);
    b->number = le64_make(root->number);
    b->checkpoint = le32_make(root->checkpoint);
    b->flags = root->exported ? ROOT_EXPORTED : 0;
    encode_image(p, &root->table_image, &b->table_image);
    encode_deltas(p, root, b);
    b->features_incompat = le64_make(features_incompat(p, root));
    b->promised = (uint8_t)p->promised;
    b->pieces = le16_make((uint16_t)root->pieces);
    for (unsigned i = 0; i < root->pieces; i++) {
        log_segment_encode(&root->piece[i].start, &p->geometry, &b->piece[i].start);
        b->piece[i].stream = le64_make(root->piece[i].stream);
        b->piece[i].first_seq = le64_make(root->piece[i].first_seq);
        b->piece[i].last_seq = le64_make(root->piece[i].last_seq);
    }
    b->crc = le32_make(root_crc(block));
}

unsigned root_block_sizes(const uint8_t *block, uint64_t sizes[static ROOT_DISKS])
{
    const struct root_block *b = (const struct root_block *)block;
    unsigned count = le16_get(b->disks);
    count = count > ROOT_DISKS ? ROOT_DISKS : count;
    for (unsigned i = 0; i < count; i++)
        sizes[i] = le64_get(b->disk[i].size_bytes);
    return count;
}

bool root_block_check(const uint8_t *block, struct vp_uuid pool, uint64_t *number)
{
    const struct root_block *b = (const struct root_block *)block;
    if (memcmp(b->magic, ROOT_MAGIC, sizeof(b->magic)) != 0 ||
        memcmp(b->pool_uuid, pool.b, sizeof(pool.b)) != 0 || le32_get(b->crc) != root_crc(block))
        return false;
    *number = le64_get(b->number);
    return true;
}

static bool decode_geometry(const struct root_block *b, struct pool_geometry *g)
{
    *g = (struct pool_geometry){
        .chunk_bytes = le32_get(b->chunk_bytes),
        .extent_bytes = le32_get(b->extent_bytes),
        .log_segment_bytes = le32_get(b->log_segment_bytes),
    };
    return is_pow2(g->chunk_bytes) && g->chunk_bytes >= 16U << 10 && g->chunk_bytes <= 1U << 20 &&
           is_pow2(g->extent_bytes) && g->extent_bytes >= 1U << 20 && g->extent_bytes <= 1U << 30 &&
           is_pow2(g->log_segment_bytes) && g->log_segment_bytes >= 16U << 10 &&
           g->log_segment_bytes <= 1U << 20;
}

static bool decode_disks(const struct root_block *b, struct root_image *out)
{
    out->disks = le16_get(b->disks);
    if (!out->disks || out->disks > ROOT_DISKS)
        return false;
    for (unsigned i = 0; i < out->disks; i++) {
        const struct root_disk *d = &b->disk[i];
        if (d->state > POOL_DISK_BEHIND)
            return false;
        memcpy(out->disk[i].uuid.b, d->uuid, sizeof(d->uuid));
        out->disk[i].state = (enum pool_disk_state)d->state;
        for (unsigned k = 0; k < sizeof(d->out_after); k++)
            out->disk[i].out_after |= (uint32_t)d->out_after[k] << 8 * k;
        out->disk[i].read_only = d->state == POOL_DISK_OUT && b->read_only[i / 8] >> i % 8 & 1;
        out->disk[i].leaves = d->state && b->leaves[i / 8] >> i % 8 & 1;
        out->disk[i].extents = le32_get(d->extents);
        out->disk[i].size_bytes = le64_get(d->size_bytes);
        uint64_t extents_bytes = (uint64_t)out->disk[i].extents * out->geometry.extent_bytes;
        if (d->state && (out->disk[i].size_bytes > INT64_MAX ||
                         extents_bytes + 2 * (uint64_t)POOL_LABEL_AREA > out->disk[i].size_bytes))
            return false;
    }
    return true;
}

static bool decode_image(const struct root_table_image *from, const struct pool_geometry *g,
                         struct pool_table_image_ref *to)
{
    to->stream = le64_get(from->stream);
    to->batches = le64_get(from->batches);
    return log_segment_decode(&from->start, g, &to->start);
}

static bool decode_deltas(const struct root_block *b, struct root_image *out)
{
    struct pool_root *r = &out->root;
    if (!(le64_get(b->features_incompat) & ROOT_FEATURE_DELTAS))
        return true;
    r->deltas = le16_get(b->deltas);
    if (r->deltas > ROOT_DELTAS)
        return false;
    for (unsigned i = 0; i < r->deltas; i++)
        if (!decode_image(&b->delta[i], &out->geometry, &r->delta[i]))
            return false;
    return true;
}

static bool decode_log(const struct root_block *b, struct root_image *out)
{
    struct pool_root *r = &out->root;
    r->pieces = le16_get(b->pieces);
    if (!decode_image(&b->table_image, &out->geometry, &r->table_image) || !decode_deltas(b, out) ||
        !r->pieces || r->pieces > ROOT_PIECES)
        return false;
    for (unsigned i = 0; i < r->pieces; i++) {
        struct pool_log_piece *piece = &r->piece[i];
        piece->stream = le64_get(b->piece[i].stream);
        piece->first_seq = le64_get(b->piece[i].first_seq);
        piece->last_seq = le64_get(b->piece[i].last_seq);
        bool last = i == r->pieces - 1;
        if (!log_segment_decode(&b->piece[i].start, &out->geometry, &piece->start) ||
            last != (piece->last_seq == POOL_LOG_OPEN) || piece->last_seq < piece->first_seq)
            return false;
    }
    return true;
}

int root_block_decode(const uint8_t *block, struct root_image *out)
{
    const struct root_block *b = (const struct root_block *)block;
    *out = (struct root_image){
        .root = {.number = le64_get(b->number),
                 .checkpoint = le32_get(b->checkpoint),
                 .exported = b->flags & ROOT_EXPORTED},
        .profile = {b->profile[0], b->profile[1], b->profile[2]},
        .features_compat = le64_get(b->features_compat),
        .features_ro = le64_get(b->features_ro),
        .features_incompat = le64_get(b->features_incompat) & ~ROOT_FEATURES_KNOWN,
        .wide = le64_get(b->features_incompat) & ROOT_FEATURE_WIDE,
        .promised = b->promised,
    };
    /* No other flag is defined yet, nor is there a read-only import: those refuse as well. */
    if (le32_get(b->version) != ROOT_VERSION || out->features_incompat || out->features_ro)
        return VP_E_FEATURE_UNKNOWN;
    memcpy(out->pool_uuid.b, b->pool_uuid, sizeof(b->pool_uuid));
    memcpy(out->name, b->name, sizeof(out->name));
    if (b->name[ROOT_NAME - 1] || !raid_profile_is_supported(out->profile) ||
        out->promised > RAID_WIDTH_MAX || !decode_geometry(b, &out->geometry) ||
        !decode_disks(b, out) || !decode_log(b, out))
        return VP_E_ROOT_BAD;
    return 0;
}

/* ---- writing ------------------------------------------------------------------------------ */

static bool takes_roots(const struct pool_disk *d)
{
    return atomic_load_explicit(&d->io.in_service, memory_order_acquire) ||
           (raid_disk_is_data_only(&d->io) && !d->takes_no_roots);
}

/* R4. */
static void roots_end(struct pool_disk *d, int rc)
{
    d->takes_no_roots = true;
    vp_warn("pool %s: disk %u (%s) is out of service and takes no more roots: %s; do not put an "
            "older copy of it in its place, which could not be told apart",
            d->pool->name, d->io.index, d->path, vp_err_text(rc));
}

static CO void root_retry(struct pool_disk *const *disk, struct io_op *op, unsigned count)
{
    struct raid_disk *raid_disk[POOL_DISKS_MAX];
    for (unsigned i = 0; i < count; i++)
        raid_disk[i] = &disk[i]->io;
    raid_retry(raid_disk, op, count);
}

/* CO. p->root.page to the slot of all heads, or all tails. Marks out what fails; *again then. */
static CO int write_side(struct pool *p, uint64_t number, bool tail, bool *again)
{
    struct io_batch batch;
    struct io_op op[POOL_DISKS_MAX];
    struct pool_disk *disk[POOL_DISKS_MAX];
    unsigned count = 0, online = 0;
    uint64_t at = POOL_ROOT_AT + number % POOL_ROOT_SLOTS * ROOT_BYTES;
    io_batch_init(&batch);
    for (unsigned i = 0; i < p->disk_count; i++) {
        struct pool_disk *d = &p->disk[i];
        if (!takes_roots(d))
            continue;
        online += d->state == POOL_DISK_ONLINE;
        io_op_set(&op[count], d->io.dev, IO_WRITE, at + (tail ? d->tail_bytes : 0), p->root.page,
                  ROOT_BYTES, IO_FUA);
        disk[count] = d;
        io_batch_add(&batch, &op[count++]);
    }
    if (io_batch_wait(&batch))
        root_retry(disk, op, count);
    if (!online)
        return VP_E_POOL_FENCED;
    for (unsigned i = 0; i < count; i++) {
        if (!op[i].rc)
            continue;
        if (disk[i]->state == POOL_DISK_OUT) {
            if (raid_disk_is_data_only(&disk[i]->io))
                roots_end(disk[i], op[i].rc);
            continue;
        }
        *again = true;
        int rc = pool_disk_mark_out(p, disk[i], op[i].rc, "a write of the root failed");
        if (rc)
            return rc;
    }
    return 0;
}

/* R4. The next root says so. */
static void data_disks_have_root(struct pool *p)
{
    for (unsigned i = 0; i < p->disk_count; i++) {
        struct pool_disk *d = &p->disk[i];
        if (d->out_after && d->state == POOL_DISK_OUT && takes_roots(d))
            d->out_after = pool_out_after(p->root.now.number);
    }
}

/* CO. Under the lock. */
static CO int root_write_locked(struct pool *p, const struct pool_root *next)
{
    struct pool_root root = *next;
    root.number = p->root.now.number;
    bool again;
    uint64_t changes;
    do {
        again = false;
        root.number++;
        changes = p->disk_changes;
        root_block_encode(p, &root, p->root.page);
        int rc = write_side(p, root.number, false, &again);
        if (!rc && !again)
            rc = write_side(p, root.number, true, &again);
        if (rc) {
            pool_fence(p, "no disk takes a new root");
            return VP_E_POOL_FENCED;
        }
    } while (again);
    p->root.now = root;
    p->root.durable_changes = changes;
    data_disks_have_root(p);
    return 0;
}

CO int pool_root_write(struct pool *p, const struct pool_root *next)
{
    co_mutex_lock(&p->root.lock);
    int rc = pool_is_fenced(p) ? VP_E_POOL_FENCED : root_write_locked(p, next);
    co_mutex_unlock(&p->root.lock);
    return rc;
}

CO int pool_root_repeat(struct pool *p, const uint8_t *block)
{
    bool failed = false;
    co_mutex_lock(&p->root.lock);
    memcpy(p->root.page, block, ROOT_BYTES);
    int rc = write_side(p, p->root.now.number, false, &failed);
    if (!rc)
        rc = write_side(p, p->root.now.number, true, &failed);
    co_mutex_unlock(&p->root.lock);
    return rc;
}

/* CO. What a root of the pool that is on a disk, and is not ours, says. */
static int root_is_foreign(const struct pool *p, const struct root_image *r)
{
    if (r->root.number > p->root.now.number)
        return VP_E_POOL_SPLIT;
    for (unsigned i = 0; i < r->disks && i < p->disk_count; i++)
        if (r->disk[i].state == POOL_DISK_OUT && p->disk[i].state != POOL_DISK_OUT &&
            p->disk[i].state != POOL_DISK_NONE && vp_uuid_equal(r->disk[i].uuid, p->disk[i].uuid))
            return VP_E_POOL_SPLIT;
    return 0;
}

/* CO. Of one slot. A root that is durable is on both sides. */
static CO int slot_is_ours(struct pool *p, struct io_dev *dev, uint64_t tail_bytes, unsigned slot,
                           uint8_t *block, struct root_image *image)
{
    unsigned unread = 0;
    for (unsigned tail = 0; tail < 2; tail++) {
        uint64_t at = POOL_ROOT_AT + slot * ROOT_BYTES + (tail ? tail_bytes : 0), number;
        if (io_dev_read(dev, at, block, ROOT_BYTES) != 0) {
            unread++;
            continue;
        }
        if (!root_block_check(block, p->uuid, &number))
            continue;
        int rc = root_block_decode(block, image) ? VP_E_POOL_SPLIT : root_is_foreign(p, image);
        if (rc)
            return rc;
    }
    return unread == 2 ? VP_E_ROOT_UNREADABLE : 0;
}

/* CO. */
static CO int slots_are_ours(struct pool *p, struct io_dev *dev, uint64_t tail_bytes)
{
    struct root_image *image = malloc(sizeof(*image));
    uint8_t *block = aligned_alloc(ROOT_BYTES, ROOT_BYTES);
    int rc = image && block ? 0 : VP_E_NO_MEMORY;
    for (unsigned slot = 0; slot < POOL_ROOT_SLOTS && !rc; slot++)
        rc = slot_is_ours(p, dev, tail_bytes, slot, block, image);
    free(image);
    free(block);
    return rc;
}

CO int pool_roots_are_ours(struct pool *p, struct io_dev *dev, uint64_t tail_bytes)
{
    int rc = VP_E_POOL_SPLIT;
    for (unsigned tries = 3; tries && rc == VP_E_POOL_SPLIT; tries--) {
        co_mutex_lock(&p->root.lock); /* a root that is written now is ours when it is written */
        co_mutex_unlock(&p->root.lock);
        rc = slots_are_ours(p, dev, tail_bytes);
    }
    return rc;
}

CO int pool_root_enter(struct pool *p, struct io_dev *dev, uint64_t tail_bytes,
                       int (*enter)(void *arg), void *arg)
{
    co_mutex_lock(&p->root.lock);
    uint64_t at = POOL_ROOT_AT + p->root.now.number % POOL_ROOT_SLOTS * ROOT_BYTES;
    int rc = pool_is_fenced(p) ? VP_E_POOL_FENCED : 0;
    for (unsigned tail = 0; tail < 2 && !rc; tail++) /* the page is the newest root */
        rc = io_dev_write(dev, at + (tail ? tail_bytes : 0), p->root.page, ROOT_BYTES, IO_FUA);
    if (!rc) {
        CO_NO_YIELD {
            rc = enter(arg);
        }
    }
    if (!rc)
        rc = root_write_locked(p, &p->root.now);
    co_mutex_unlock(&p->root.lock);
    return rc;
}

CO int pool_root_update(struct pool *p)
{
    int rc = 0;
    co_mutex_lock(&p->root.lock);
    if (pool_is_fenced(p))
        rc = VP_E_POOL_FENCED;
    else if (p->root.durable_changes != p->disk_changes)
        rc = root_write_locked(p, &p->root.now);
    co_mutex_unlock(&p->root.lock);
    return rc;
}

void pool_fence(struct pool *p, const char *why)
{
    bool was_fenced = atomic_exchange(&p->fenced, true);
    if (pool_disks_lost_writes(p)) /* the next import will count on such a disk */
        pool_keep_forget_all(p);
    if (was_fenced)
        return;
    vp_error_log("pool %s: fenced: %s; writes are refused from now on", p->name, why);
}

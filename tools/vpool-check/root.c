/*
 * Roots: which one counts, and what it says of the disks.
 *
 * After a power cut the newest root may be missing on some disks, and its slot may be torn. That is
 * no problem as long as one whole copy is there. A slot that this pool wrote and that does not
 * match its checksum is damage, unless it is the slot that the next root would have taken.
 */
#include "tools/vpool-check/check.h"

#include <stdlib.h>
#include <string.h>

enum { SLOTS = 2 * POOL_ROOT_SLOTS };

static uint64_t slot_at(const struct check_disk *d, unsigned slot)
{
    return POOL_ROOT_AT + (slot >= POOL_ROOT_SLOTS ? d->tail_bytes : 0) +
           (uint64_t)(slot % POOL_ROOT_SLOTS) * ROOT_BYTES;
}

static const uint8_t *slot_of(const struct check_disk *d, unsigned slot)
{
    return d->slots + (size_t)slot * ROOT_BYTES;
}

static void read_slots(struct check *c, struct check_disk *d)
{
    d->slots = check_grow(NULL, SLOTS, ROOT_BYTES);
    memset(d->slots, 0, (size_t)SLOTS * ROOT_BYTES);
    for (unsigned s = 0; s < SLOTS; s++)
        if (!check_read(d, slot_at(d, s), d->slots + (size_t)s * ROOT_BYTES, ROOT_BYTES))
            check_problem(c, "root", "%s: slot %u cannot be read", d->path, s);
}

static bool choose_root(struct check *c)
{
    uint64_t best = 0, n;
    for (unsigned i = 0; i < c->disks; i++)
        for (unsigned s = 0; s < SLOTS; s++) {
            const uint8_t *block = slot_of(&c->disk[i], s);
            if (!root_block_check(block, c->pool, &n) || (c->root_block && n <= best))
                continue;
            best = n;
            c->root_block = block;
        }
    if (!c->root_block) {
        check_problem(c, "root", "no disk has a valid root");
        return false;
    }
    int rc = root_block_decode(c->root_block, &c->root);
    if (rc)
        check_problem(c, "root", "root %llu: %s", (unsigned long long)best, vp_err_text(rc));
    return rc == 0;
}

/* ---- disks --------------------------------------------------------------------------------- */

static const char *state_name(enum pool_disk_state s)
{
    static const char *const names[] = {"removed", "online", "out", "rebuilding"};
    return (unsigned)s < 4 ? names[s] : "?";
}

static void match_disk(struct check *c, struct check_disk *d)
{
    for (unsigned i = 0; i < c->root.disks; i++) {
        struct vp_uuid uuid = c->root.disk[i].uuid; /* … until a root has what its label has */
        if (!c->root.disk[i].state ||
            (!vp_uuid_equal(uuid, d->label.disk_uuid) && !vp_uuid_equal(uuid, d->label.was_uuid)))
            continue;
        if (c->of[i]) {
            check_problem(c, "label", "%s and %s are copies of one disk", c->of[i]->path, d->path);
            return;
        }
        c->of[i] = d;
        d->index = (int)i;
        d->counts = c->root.disk[i].state == POOL_DISK_ONLINE;
        return;
    }
    check_problem(c, "label", "%s has the pool's label but is not in its disk table", d->path);
}

static uint64_t newest_root_of(const struct check *c, const struct check_disk *d)
{
    uint64_t newest = 0, n;
    for (unsigned s = 0; s < SLOTS; s++)
        if (root_block_check(slot_of(d, s), c->pool, &n) && n > newest)
            newest = n;
    return newest;
}

/* A disk that is out serves data without another copy, unless the disk was set back
 * (pool/import_roots.c). */
static void check_disk_out(struct check *c, unsigned index, struct check_disk *d)
{
    uint32_t out_after = c->root.disk[index].out_after;
    if (d && out_after) {
        uint32_t own = pool_out_after(newest_root_of(c, d));
        d->serves_data =
            (own + POOL_OUT_AFTER_MAX - out_after) % POOL_OUT_AFTER_MAX < POOL_OUT_AFTER_MAX / 2;
    }
    bool read_only = c->root.disk[index].read_only;
    if (d && read_only)
        d->serves_data = true;
    check_note(c, "disk", "disk %u (%s) is out of service%s", index, d ? d->path : "not given",
               d && read_only ? "; it may have lost writes that were not flushed, and data that "
                                "have no other copy can only be read"
               : d && d->serves_data ? "; data that have no other copy are served from it"
                                     : "");
    if (d && out_after && !d->serves_data)
        check_problem(
            c, "disk",
            "an older state of disk %u (%s) was put in its place: the data there that have "
            "no other copy are not served",
            index, d->path);
}

/* A disk that is written, and lacks what was written before it came (pool/return.c). */
static void check_disk_behind(struct check *c, unsigned index, struct check_disk *d)
{
    d->serves_data = d->is_behind = true;
    check_note(c, "disk",
               "disk %u (%s) is being rebuilt: only data that have no other copy are read from it",
               index, d->path);
}

static void check_disk_table(struct check *c, json_t *out)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < c->disks; i++)
        if (c->disk[i].labelled)
            match_disk(c, &c->disk[i]);
    for (unsigned i = 0; i < c->root.disks; i++) {
        enum pool_disk_state state = c->root.disk[i].state;
        struct check_disk *d = c->of[i];
        json_array_append_new(
            list, json_pack("{s:i, s:o, s:s, s:I, s:I, s:s?}", "index", (int)i, "uuid",
                            check_uuid(c->root.disk[i].uuid), "state", state_name(state), "extents",
                            (json_int_t)c->root.disk[i].extents, "size_bytes",
                            (json_int_t)c->root.disk[i].size_bytes, "path", d ? d->path : NULL));
        if ((state == POOL_DISK_ONLINE || state == POOL_DISK_BEHIND) && !d)
            check_problem(c, "disk", "disk %u of the pool is not among those given", i);
        if (state == POOL_DISK_OUT)
            check_disk_out(c, i, d);
        if (state == POOL_DISK_BEHIND && d)
            check_disk_behind(c, i, d);
        if (d && d->size_bytes < c->root.disk[i].size_bytes)
            check_problem(c, "disk", "%s has shrunk", d->path);
    }
    check_put(out, "disks", list);
}

/* ---- slots --------------------------------------------------------------------------------- */

/* Looks like a root of this pool that lost its checksum. */
static bool is_damaged_root(const struct check *c, const uint8_t *block)
{
    const struct root_block *b = (const struct root_block *)block;
    uint64_t n;
    if (root_block_check(block, c->pool, &n))
        return false;
    return memcmp(b->magic, ROOT_MAGIC, sizeof(b->magic)) == 0 ||
           memcmp(b->pool_uuid, c->pool.b, sizeof(c->pool.b)) == 0;
}

/* The slot of the newest root on a disk in service. A power cut may have left the older root there.
 * An empty slot is right only while the pool is young. */
static void check_newest_slot(struct check *c, const struct check_disk *d, unsigned s,
                              const uint8_t *block)
{
    uint64_t newest = c->root.root.number, n;
    if (bytes_are_zero(block, ROOT_BYTES) && newest > POOL_ROOT_SLOTS)
        check_problem(c, "root", "%s: slot %u is empty, root %llu should be there", d->path, s,
                      (unsigned long long)newest);
    else if (bytes_are_zero(block, ROOT_BYTES) ||
             (root_block_check(block, c->pool, &n) && n != newest))
        check_note(c, "root", "%s: slot %u does not hold root %llu", d->path, s,
                   (unsigned long long)newest);
}

static void check_slots(struct check *c, const struct check_disk *d, json_t *list)
{
    uint64_t newest = c->root.root.number, n;
    for (unsigned s = 0; s < SLOTS; s++) {
        const uint8_t *block = slot_of(d, s);
        bool next = s % POOL_ROOT_SLOTS == (newest + 1) % POOL_ROOT_SLOTS;
        if (root_block_check(block, c->pool, &n)) {
            json_array_append_new(list, json_pack("{s:s, s:i, s:I}", "disk", d->path, "slot",
                                                  (int)s, "number", (json_int_t)n));
            if (n == newest && d->counts)
                check_target_add(c, "root", d, slot_at(d, s), ROOT_BYTES, c->units);
        } else if (is_damaged_root(c, block) && next) {
            check_note(c, "root", "%s: slot %u holds a root that was never finished", d->path, s);
        } else if (is_damaged_root(c, block) && !d->counts) {
            check_note(c, "root", "%s: slot %u is torn; the disk is %s", d->path, s,
                       d->is_behind ? "being rebuilt" : "out of service");
        } else if (is_damaged_root(c, block)) {
            check_problem(c, "root", "%s: the root in slot %u does not match its checksum", d->path,
                          s);
        }
        if (newest % POOL_ROOT_SLOTS == s % POOL_ROOT_SLOTS && d->counts)
            check_newest_slot(c, d, s, block);
    }
}

/* Every copy of the slot after the newest root's is damaged, or empty though a root was there
 * before. Then the next root was durable once, and the one found may lead to pages that are used
 * again (pool/root.c, R1). Only in a pool of an early release a slot may be empty. */
static void check_next_root(struct check *c)
{
    uint64_t number = c->root.root.number + 1;
    bool may_be_new = false;
    for (unsigned i = 0; i < c->disks; i++)
        for (unsigned side = 0; side < 2 && c->disk[i].counts; side++) {
            const uint8_t *block =
                slot_of(&c->disk[i], side * POOL_ROOT_SLOTS + (unsigned)(number % POOL_ROOT_SLOTS));
            bool empty = bytes_are_zero(block, ROOT_BYTES);
            if (!empty && !is_damaged_root(c, block))
                return;
            may_be_new |= empty && number <= POOL_ROOT_SLOTS;
        }
    if (may_be_new)
        check_note(c, "root",
                   "no disk has root %llu: this pool is of an early release and young, so whether "
                   "it was never written or has been zeroed everywhere cannot be told",
                   (unsigned long long)number);
    else
        check_problem(c, "root",
                      "root %llu is damaged in every copy; the one before it does not count",
                      (unsigned long long)number);
}

static json_t *segment_json(const struct pool_segment *s)
{
    json_t *places = json_array();
    for (unsigned i = 0; i < s->place.copies; i++)
        json_array_append_new(places, json_pack("{s:i, s:I}", "disk", (int)s->place.disk[i],
                                                "at_bytes", (json_int_t)s->place.at_bytes[i]));
    return json_pack("{s:i, s:o}", "pages", (int)s->pages, "copies", places);
}

static json_t *pieces_json(const struct pool_root *r)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < r->pieces; i++) {
        const struct pool_log_piece *p = &r->piece[i];
        bool open = p->last_seq == POOL_LOG_OPEN;
        json_array_append_new(
            list,
            json_pack("{s:o, s:I, s:I, s:o}", "start", segment_json(&p->start), "stream",
                      (json_int_t)p->stream, "first_seq", (json_int_t)p->first_seq, "last_seq",
                      open ? json_null() : json_integer((json_int_t)p->last_seq)));
    }
    return list;
}

static json_t *deltas_json(const struct pool_root *r)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < r->deltas; i++)
        json_array_append_new(list, json_pack("{s:o, s:I, s:I}", "start",
                                              segment_json(&r->delta[i].start), "stream",
                                              (json_int_t)r->delta[i].stream, "batches",
                                              (json_int_t)r->delta[i].batches));
    return list;
}

static json_t *root_json(const struct check *c)
{
    const struct pool_root *r = &c->root.root;
    char profile[RAID_PROFILE_TEXT];
    json_t *name = json_string(c->root.name);
    return json_pack(
        "{s:o, s:o, s:I, s:I, s:b, s:s, s:I, s:I, s:I, s:o, s:I, s:I, s:o, s:o}", "uuid",
        check_uuid(c->root.pool_uuid), "name", name ? name : json_string("(not printable)"),
        "number", (json_int_t)r->number, "checkpoint", (json_int_t)r->checkpoint, "exported",
        r->exported, "profile", raid_profile_format(c->root.profile, profile), "chunk_bytes",
        (json_int_t)c->root.geometry.chunk_bytes, "extent_bytes",
        (json_int_t)c->root.geometry.extent_bytes, "log_segment_bytes",
        (json_int_t)c->root.geometry.log_segment_bytes, "table_image",
        segment_json(&r->table_image.start), "table_image_stream",
        (json_int_t)r->table_image.stream, "table_image_batches",
        (json_int_t)r->table_image.batches, "deltas", deltas_json(r), "log", pieces_json(r));
}

bool check_roots(struct check *c)
{
    for (unsigned i = 0; i < c->disks; i++)
        read_slots(c, &c->disk[i]);
    if (!choose_root(c))
        return false;
    json_t *out = root_json(c), *slots = json_array();
    if (!out)
        check_out_of_memory();
    check_disk_table(c, out);
    for (unsigned i = 0; i < c->disks; i++)
        if (c->disk[i].index >= 0)
            check_slots(c, &c->disk[i], slots);
    c->units++;
    check_next_root(c);
    check_put(out, "slots", slots);
    check_put(c->out, "root", out);
    check_say(c, "root %llu: checkpoint %u%s, %u deltas, %u log pieces",
              (unsigned long long)c->root.root.number, c->root.root.checkpoint,
              c->root.root.exported ? ", exported" : "", c->root.root.deltas, c->root.root.pieces);
    return true;
}

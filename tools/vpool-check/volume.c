/*
 * Volumes: compares what their maps use with their space trees, the arenas that they lease, and the
 * counts in their STAT records. With --data it also verifies every valid block of every copy
 * against its checksum.
 */
#include "tools/vpool-check/check.h"

#include "base/crc.h"
#include "thin/thin_format.h"
#include "volumes/volume_format.h"

#include <stdlib.h>
#include <string.h>

static struct check_arena *arena_of(struct check *c, uint64_t number)
{
    struct hash_node *n = hash_find(&c->arenas, number);
    if (n)
        return container_of(n, struct check_arena, node);
    struct check_arena *a = calloc(1, sizeof(*a));
    if (!a)
        check_out_of_memory();
    hash_add(&c->arenas, &a->node, number);
    return a;
}

/* ---- data ---------------------------------------------------------------------------------- */

/* Blocks of this region may differ from their checksums: an overwrite was under way. */
static bool is_uncertain(const struct check *c, uint64_t vchunk)
{
    uint64_t region = vchunk / THIN_REGION_CHUNKS;
    const struct check_record *r =
        check_records_find(&c->table, POOL_RECORD_INTENT, c->volume->id, region / 64);
    struct le64 word;
    if (!r || r->len != sizeof(word))
        return false;
    memcpy(&word, r->value, sizeof(word));
    return le64_get(word) >> (region % 64) & 1;
}

static void check_block(struct check *c, const struct check_group *g, uint64_t vchunk,
                        unsigned block, uint64_t at, uint32_t crc)
{
    uint8_t buf[POOL_BLOCK];
    uint64_t unit = c->units++, disk_at;
    bool uncertain = is_uncertain(c, vchunk);
    for (unsigned m = 0; m < g->info.members; m++) {
        const struct check_disk *d = check_copy(c, g, m, at, &disk_at);
        if (!d)
            continue;
        if (!uncertain)
            check_target_add(c, "data", d, disk_at, sizeof(buf), unit);
        c->volume->data_checked++;
        if (check_read(d, disk_at, buf, sizeof(buf)) && vp_crc32c(buf, sizeof(buf)) == crc)
            continue;
        if (uncertain)
            c->volume->data_uncertain++;
        else
            check_problem(c, "data",
                          "volume %u chunk %llu block %u: %s at byte %llu does not match its "
                          "checksum",
                          c->volume->id, (unsigned long long)vchunk, block, d->path,
                          (unsigned long long)disk_at);
    }
}

/* ---- records --------------------------------------------------------------------------------- */

static bool record_read(const struct check_record *r, struct volume_record_disk *out)
{
    if (!r || r->len < sizeof(*out))
        return false;
    memcpy(out, r->value, sizeof(*out));
    return true;
}

static bool is_deleting(const struct check_record *r)
{
    struct volume_record_disk v;
    return record_read(r, &v) && v.state == VOLUME_RECORD_DELETING;
}

/* Chunks that the volume has; what does not decode has been said by others. */
static uint64_t size_in_chunks(const struct check *c, const struct check_record *r)
{
    struct volume_record_disk v;
    return record_read(r, &v) ? div_up(le64_get(v.size_bytes), c->root.geometry.chunk_bytes)
                              : UINT64_MAX;
}

/* ---- entries ------------------------------------------------------------------------------- */

/* False when the chunk cannot be the volume's; said then. */
static bool claim_chunk(struct check *c, uint64_t vchunk, uint64_t pchunk, uint32_t owner)
{
    struct check_arena *a = arena_of(c, pchunk / POOL_ARENA_CHUNKS);
    uint64_t bit = UINT64_C(1) << pchunk % POOL_ARENA_CHUNKS;
    if (owner != c->volume->id) {
        check_problem(c, "map", "volume %u chunk %llu: pool chunk %llu is in an arena leased by %u",
                      c->volume->id, (unsigned long long)vchunk, (unsigned long long)pchunk, owner);
        return false;
    }
    if (a->mapped & bit)
        check_problem(c, "map", "volume %u chunk %llu: pool chunk %llu is mapped twice",
                      c->volume->id, (unsigned long long)vchunk, (unsigned long long)pchunk);
    a->mapped |= bit;
    return true;
}

static void map_entry(struct check *c, uint64_t vchunk, const uint8_t *entry)
{
    struct thin_map_entry_disk fixed;
    memcpy(&fixed, entry, sizeof(fixed));
    uint64_t pchunk = le64_get(fixed.pchunk), at;
    uint32_t blocks = c->root.geometry.chunk_bytes / POOL_BLOCK, owner = 0;
    const uint8_t *valid = entry + sizeof(fixed);
    const uint8_t *crcs = valid + max_u64(8, blocks / 8);
    if (pchunk == 0)
        return;
    if (vchunk >= c->volume->chunks_max)
        check_problem(c, "map", "volume %u chunk %llu is behind its end: it has %llu chunks",
                      c->volume->id, (unsigned long long)vchunk,
                      (unsigned long long)c->volume->chunks_max);
    const struct check_group *g = check_chunk_find(c, pchunk, &at, &owner);
    if (!g)
        check_problem(c, "map", "volume %u chunk %llu: pool chunk %llu does not exist",
                      c->volume->id, (unsigned long long)vchunk, (unsigned long long)pchunk);
    else if (!claim_chunk(c, vchunk, pchunk, owner))
        g = NULL;
    c->volume->mapped++;
    unsigned n = 0;
    for (unsigned b = 0; b < blocks; b++) {
        struct le32 crc;
        if (!(valid[b / 8] >> (b % 8) & 1))
            continue;
        n++;
        memcpy(&crc, crcs + b * sizeof(crc), sizeof(crc));
        if (g && c->data)
            check_block(c, g, vchunk, b, at + (uint64_t)b * POOL_BLOCK, le32_get(crc));
    }
    c->volume->valid_blocks += n;
    if (c->volume->chunks)
        json_array_append_new(
            c->volume->chunks,
            json_pack("{s:I, s:I, s:I, s:i}", "chunk", (json_int_t)vchunk, "pchunk",
                      (json_int_t)pchunk, "generation",
                      (json_int_t)(le32_get(fixed.generation_flags) & THIN_GENERATION_MASK),
                      "valid_blocks", (int)n));
}

static void space_entry(struct check *c, uint64_t number, const uint8_t *entry)
{
    struct thin_space_entry_disk e;
    uint32_t owner;
    memcpy(&e, entry, sizeof(e));
    if (!le64_get(e.used))
        return;
    if (!check_arena_owner(c, number, &owner) || owner != c->volume->id)
        check_problem(c, "space", "volume %u counts on arena %llu, which it does not lease",
                      c->volume->id, (unsigned long long)number);
    else
        arena_of(c, number)->marked |= le64_get(e.used);
}

/* ---- one volume ---------------------------------------------------------------------------- */

static void check_counts(struct check *c)
{
    const struct check_volume *v = c->volume;
    const struct check_record *r = check_records_find(&c->table, POOL_RECORD_STAT, v->id, 0);
    struct thin_stat_record_disk s = {0};
    if (v->damaged)
        return;
    if (r && r->len != sizeof(s)) {
        check_problem(c, "volume", "volume %u: its STAT record does not decode", v->id);
        return;
    }
    if (r)
        memcpy(&s, r->value, sizeof(s));
    if (le64_get(s.allocated_chunks) != v->mapped || le64_get(s.valid_blocks) != v->valid_blocks)
        check_problem(c, "volume",
                      "volume %u counts %llu chunks and %llu blocks; its map has %llu and %llu",
                      v->id, (unsigned long long)le64_get(s.allocated_chunks),
                      (unsigned long long)le64_get(s.valid_blocks), (unsigned long long)v->mapped,
                      (unsigned long long)v->valid_blocks);
}

/* Compares the maps with the space trees, arena by arena. */
static void compare_arena(struct hash_node *n, void *arg)
{
    struct check *c = arg;
    const struct check_arena *a = container_of(n, struct check_arena, node);
    uint64_t unmarked = a->mapped & ~a->marked, leaked = a->marked & ~a->mapped;
    if (unmarked)
        check_problem(c, "space", "volume %u, arena %llu: %d mapped chunks count as free",
                      c->volume->id, (unsigned long long)n->key, __builtin_popcountll(unmarked));
    if (leaked)
        check_problem(c, "space", "volume %u, arena %llu: %d chunks leaked", c->volume->id,
                      (unsigned long long)n->key, __builtin_popcountll(leaked));
}

static void arena_free(struct hash_node *n, void *arg)
{
    hash_del(arg, n);
    free(container_of(n, struct check_arena, node));
}

static json_t *volume_report(struct check *c, const struct check_record *record, json_t *pages)
{
    const struct check_volume *v = c->volume;
    json_t *o = json_pack("{s:I, s:I, s:I, s:b}", "id", (json_int_t)v->id, "allocated_chunks",
                          (json_int_t)v->mapped, "valid_blocks", (json_int_t)v->valid_blocks,
                          "damaged", v->damaged);
    if (!o)
        check_out_of_memory();
    if (record)
        check_put(o, "record", check_record_json(record));
    if (c->data) {
        check_put(o, "blocks_checked", json_integer((json_int_t)v->data_checked));
        check_put(o, "blocks_uncertain", json_integer((json_int_t)v->data_uncertain));
    }
    if (c->dump) {
        check_put(o, "chunks", v->chunks);
        check_put(o, "pages", pages);
    }
    return o;
}

/* `record` is NULL for a volume that was deleted since the table image. Only its pages count
 * then. */
static void check_volume(struct check *c, uint32_t id, const struct check_record *record,
                         json_t *list)
{
    struct check_volume v = {
        .id = id, .chunks_max = size_in_chunks(c, record), .chunks = c->dump ? json_array() : NULL};
    json_t *pages = c->dump ? json_array() : NULL;
    bool live = record && !is_deleting(record);
    c->volume = &v;
    if (!hash_init(&c->arenas, 64))
        check_out_of_memory();
    check_tree(c, POOL_TREE_MAP, live ? map_entry : NULL, pages);
    check_tree(c, POOL_TREE_SPACE, live ? space_entry : NULL, pages);
    if (live) {
        check_counts(c);
        if (!v.damaged)
            hash_for_each(&c->arenas, compare_arena, c);
        check_say(c, "volume %u: %llu chunks, %llu valid blocks%s", id,
                  (unsigned long long)v.mapped, (unsigned long long)v.valid_blocks,
                  v.damaged ? ", DAMAGED" : "");
    }
    if (v.data_uncertain)
        check_note(c, "data", "volume %u: %llu blocks were being overwritten when the pool stopped",
                   id, (unsigned long long)v.data_uncertain);
    json_array_append_new(list, volume_report(c, record, pages));
    hash_for_each(&c->arenas, arena_free, &c->arenas);
    hash_fini(&c->arenas);
    c->volume = NULL;
}

/* ---- all of them --------------------------------------------------------------------------- */

static bool volume_exists(const struct check *c, uint32_t id)
{
    return check_records_find(&c->table, POOL_RECORD_VOLUME, id, 0) != NULL;
}

static void check_leases(struct check *c)
{
    for (unsigned i = 0; i < c->groups; i++)
        for (uint32_t a = 0; a < c->group[i].info.arenas; a++) {
            uint32_t owner = le32_get(c->group[i].info.owner[a]);
            if (owner && !volume_exists(c, owner))
                check_problem(c, "space",
                              "group %u: an arena is leased by volume %u, which is gone",
                              c->group[i].id, owner);
        }
}

/* Whose scope is a volume's id. */
static bool is_of_volume(const struct check_record *r)
{
    return r->kind == POOL_RECORD_TREE || r->kind == POOL_RECORD_STAT ||
           r->kind == POOL_RECORD_INTENT ||
           (r->kind == POOL_RECORD_COUNTER && r->key == POOL_COUNTER_COMMITS);
}

/* A volume's other records are deleted together with its VOLUME record, in one commit. */
static void check_leftovers(struct check *c)
{
    for (size_t i = 0; i < c->table.count; i++) {
        const struct check_record *r = &c->table.r[i];
        if (is_of_volume(r) && !volume_exists(c, r->scope))
            check_problem(c, "record", "a %s record (key %llu) is of volume %u, which is gone",
                          check_record_kind(r->kind), (unsigned long long)r->key, r->scope);
    }
}

void check_volumes(struct check *c)
{
    json_t *list = json_array();
    for (size_t i = 0; i < c->table.count; i++) {
        const struct check_record *r = &c->table.r[i];
        if (r->kind == POOL_RECORD_VOLUME && r->key == 0)
            check_volume(c, r->scope, r, list);
    }
    /* A volume deleted since the table image owns its pages until the next checkpoint. */
    for (size_t i = 0; i < c->table_image.count; i++) {
        const struct check_record *r = &c->table_image.r[i];
        bool again = i && c->table_image.r[i - 1].kind == r->kind &&
                     c->table_image.r[i - 1].scope == r->scope;
        if (r->kind == POOL_RECORD_TREE && !again && !volume_exists(c, r->scope))
            check_volume(c, r->scope, NULL, list);
    }
    check_leases(c);
    check_leftovers(c);
    check_put(c->out, "volumes", list);
}

/* Groups, extents and metadata pages: what belongs to whom, and whether anything belongs to two. */
#include "tools/vpool-check/check.h"

#include <stdlib.h>

/* Beyond this many extents a root is not believed. */
#define EXTENTS_MAX (UINT64_C(1) << 26)

struct check_group *check_group_find(struct check *c, uint64_t id)
{
    unsigned low = 0, high = c->groups;
    while (low < high) {
        unsigned mid = low + (high - low) / 2;
        if (c->group[mid].id < id)
            low = mid + 1;
        else
            high = mid;
    }
    return low < c->groups && c->group[low].id == id ? &c->group[low] : NULL;
}

const struct check_disk *check_copy(const struct check *c, const struct check_group *g,
                                    unsigned copy, uint64_t at, uint64_t *disk_at)
{
    const struct check_disk *d = c->of[g->info.disk[copy]];
    *disk_at =
        POOL_LABEL_AREA + (uint64_t)g->info.extent[copy] * c->root.geometry.extent_bytes + at;
    bool serves = d && (d->counts || (d->serves_data && g->info.members == 1));
    return serves ? d : NULL;
}

/* ---- arenas and chunks --------------------------------------------------------------------- */

static unsigned slot_shift(const struct check *c)
{
    uint32_t n = c->root.geometry.extent_bytes / c->root.geometry.chunk_bytes;
    return n > POOL_ARENA_CHUNKS ? (unsigned)__builtin_ctz(n / POOL_ARENA_CHUNKS) : 0;
}

static const struct check_group *arena_find(const struct check *c, uint64_t number, uint32_t *index)
{
    uint64_t slot = number >> slot_shift(c);
    if (slot >= c->slots || !c->slot_group[slot])
        return NULL;
    const struct check_group *g = &c->group[c->slot_group[slot] - 1];
    uint64_t i = number - (g->info.first_slot << slot_shift(c));
    *index = (uint32_t)i;
    return i < g->info.arenas ? g : NULL;
}

bool check_arena_owner(const struct check *c, uint64_t number, uint32_t *owner)
{
    uint32_t i;
    const struct check_group *g = arena_find(c, number, &i);
    if (g)
        *owner = le32_get(g->info.owner[i]);
    return g != NULL;
}

const struct check_group *check_chunk_find(const struct check *c, uint64_t pchunk, uint64_t *at,
                                           uint32_t *owner)
{
    struct pchunk p = {pchunk};
    uint32_t i;
    const struct check_group *g = arena_find(c, pchunk_arena(p), &i);
    if (!g)
        return NULL;
    uint32_t chunks = pool_group_shape(&c->root.geometry, g->info.profile).arena_chunks;
    if (pchunk_index(p) >= chunks)
        return NULL;
    *owner = le32_get(g->info.owner[i]);
    *at = ((uint64_t)i * chunks + pchunk_index(p)) * c->root.geometry.chunk_bytes;
    return g;
}

/* ---- groups -------------------------------------------------------------------------------- */

/* Extents of all disks in a row: who has them. */
struct extents {
    uint64_t first[POOL_DISKS_MAX];
    uint32_t *owner;
    uint64_t total, data, metadata;
};

static bool extents_init(struct check *c, struct extents *x)
{
    *x = (struct extents){0};
    for (unsigned i = 0; i < c->root.disks; i++) {
        x->first[i] = x->total;
        x->total += c->root.disk[i].extents;
    }
    if (x->total > EXTENTS_MAX) {
        check_problem(c, "root", "%llu extents: more than any pool has",
                      (unsigned long long)x->total);
        return false;
    }
    c->slots = 2 * x->total + 1;
    c->slot_group = calloc(c->slots, sizeof(*c->slot_group));
    x->owner = calloc(x->total + 1, sizeof(*x->owner));
    if (!c->slot_group || !x->owner)
        check_out_of_memory();
    return true;
}

/* False: the group cannot be used for anything. */
static bool check_shape(struct check *c, uint64_t id, const struct pool_group_info *i)
{
    struct pool_group_shape want = {0};
    if (!raid_profile_is_supported(i->profile)) {
        check_problem(c, "group", "group %llu: its profile is not known", (unsigned long long)id);
        return false;
    }
    if (i->role == POOL_GROUP_DATA)
        want = pool_group_shape(&c->root.geometry, i->profile);
    if (i->arenas != want.arenas || i->slots != want.slots ||
        (i->slots &&
         (i->first_slot < 1 || i->first_slot >= c->slots || i->slots > c->slots - i->first_slot))) {
        check_problem(c, "group", "group %llu: its arenas do not fit the geometry",
                      (unsigned long long)id);
        return false;
    }
    for (unsigned m = 0; m < i->members; m++)
        if (i->disk[m] >= c->root.disks || !c->root.disk[i->disk[m]].state ||
            i->extent[m] >= c->root.disk[i->disk[m]].extents) {
            check_problem(c, "group", "group %llu: member %u is beyond the disks",
                          (unsigned long long)id, m);
            return false;
        }
    return true;
}

static void claim_extents(struct check *c, struct extents *x, const struct check_group *g)
{
    for (unsigned m = 0; m < g->info.members; m++) {
        uint32_t *owner = &x->owner[x->first[g->info.disk[m]] + g->info.extent[m]];
        if (*owner)
            check_problem(c, "group", "disk %u extent %u belongs to group %u and to group %u",
                          g->info.disk[m], g->info.extent[m], *owner, g->id);
        *owner = g->id;
        *(g->info.role == POOL_GROUP_DATA ? &x->data : &x->metadata) += 1;
        for (unsigned k = 0; k < m; k++)
            if (g->info.disk[k] == g->info.disk[m])
                check_problem(c, "group", "group %u has two members on disk %u", g->id,
                              g->info.disk[m]);
    }
    for (uint32_t k = 0; k < g->info.slots; k++) {
        uint32_t *slot = &c->slot_group[g->info.first_slot + k];
        if (*slot)
            check_problem(c, "group", "groups %u and %u share arena numbers",
                          c->group[*slot - 1].id, g->id);
        *slot = (uint32_t)(g - c->group) + 1;
    }
}

static void add_group(struct check *c, struct extents *x, const struct check_record *r)
{
    struct check_group g = {.id = (uint32_t)r->key};
    int rc = pool_group_decode(r->value, r->len, &g.info);
    if (rc || r->key == 0 || r->key > UINT32_MAX) {
        check_problem(c, "group", "group %llu: its record does not decode",
                      (unsigned long long)r->key);
        return;
    }
    if (!check_shape(c, r->key, &g.info))
        return;
    if (g.info.role == POOL_GROUP_META) {
        g.pages = c->root.geometry.extent_bytes / POOL_PAGE;
        g.page_used = calloc(bitmap_words(g.pages), sizeof(uint64_t));
        g.page_tree = calloc(bitmap_words(g.pages), sizeof(uint64_t));
        if (!g.page_used || !g.page_tree)
            check_out_of_memory();
    }
    c->group[c->groups++] = g;
    claim_extents(c, x, &c->group[c->groups - 1]);
}

void check_groups(struct check *c)
{
    const struct check_record *r;
    struct extents x;
    if (!extents_init(c, &x))
        return;
    size_t n = check_records_range(&c->table, POOL_RECORD_GROUP, 0, &r);
    c->group = check_grow(NULL, n, sizeof(*c->group));
    for (size_t i = 0; i < n; i++)
        add_group(c, &x, &r[i]);
    check_say(c, "groups: %u; extents: %llu, data %llu, metadata %llu, free %llu", c->groups,
              (unsigned long long)x.total, (unsigned long long)x.data,
              (unsigned long long)x.metadata, (unsigned long long)(x.total - x.data - x.metadata));
    check_put(c->out, "extents",
              json_pack("{s:I, s:I, s:I}", "total", (json_int_t)x.total, "data", (json_int_t)x.data,
                        "metadata", (json_int_t)x.metadata));
    free(x.owner);
}

/* ---- metadata pages ------------------------------------------------------------------------ */

bool check_page_mark(struct check *c, uint64_t addr, const char *what)
{
    struct check_group *g = check_group_find(c, addr >> POOL_META_PAGES_BITS);
    uint64_t page = addr & ((UINT64_C(1) << POOL_META_PAGES_BITS) - 1);
    if (!g || g->info.role != POOL_GROUP_META || page >= g->pages) {
        check_problem(c, "page", "%s: page %llx does not exist", what, (unsigned long long)addr);
        return false;
    }
    if (bitmap_test(g->page_used, page)) {
        check_problem(c, "page", "%s: page %llx is used by something else too", what,
                      (unsigned long long)addr);
        return false;
    }
    bitmap_set(g->page_used, page);
    bitmap_set(g->page_tree, page);
    return true;
}

/* Whether the copies of the segment are the first members of g (it may have got more since), at one
 * place; *page is it then. */
static bool segment_is_in(const struct check *c, const struct check_group *g,
                          const struct pool_segment *s, uint64_t *page)
{
    if (g->info.role != POOL_GROUP_META || s->place.copies > g->info.members)
        return false;
    for (unsigned m = 0; m < s->place.copies; m++) {
        uint64_t base =
            POOL_LABEL_AREA + (uint64_t)g->info.extent[m] * c->root.geometry.extent_bytes;
        uint64_t at = s->place.at_bytes[m];
        if (s->place.disk[m] != g->info.disk[m] || at < base ||
            (at - base) / POOL_PAGE + s->pages > g->pages)
            return false;
        if (m && (at - base) / POOL_PAGE != *page)
            return false;
        *page = (at - base) / POOL_PAGE;
    }
    return true;
}

void check_segments_mark(struct check *c)
{
    for (unsigned i = 0; i < c->segments; i++) {
        const struct pool_segment *s = &c->segment[i];
        uint64_t page = 0;
        unsigned k = 0;
        while (k < c->groups && !segment_is_in(c, &c->group[k], s, &page))
            k++;
        if (k == c->groups) {
            check_problem(c, "log", "the segment at disk %u byte %llu is in no metadata group",
                          s->place.disk[0], (unsigned long long)s->place.at_bytes[0]);
            continue;
        }
        for (uint32_t n = 0; n < s->pages; n++)
            if (bitmap_test(c->group[k].page_used, page + n))
                check_problem(c, "log", "page %llu of group %u is in two segments",
                              (unsigned long long)(page + n), c->group[k].id);
            else
                bitmap_set(c->group[k].page_used, page + n);
    }
}

static void compare_metamap(struct check *c, const struct check_group *g)
{
    const struct check_record *r =
        check_records_find(&c->table_image, POOL_RECORD_METAMAP, 0, g->id);
    uint64_t words = bitmap_words(g->pages), leaked = 0, missing = 0;
    if (r && r->len != words * sizeof(uint64_t)) {
        check_problem(c, "page", "group %u: its page bitmap has the wrong size", g->id);
        return;
    }
    for (uint64_t i = 0; i < words; i++) {
        uint64_t kept = r ? le64_get(((const struct le64 *)(const void *)r->value)[i]) : 0;
        leaked += (uint64_t)__builtin_popcountll(kept & ~g->page_tree[i]);
        missing += (uint64_t)__builtin_popcountll(g->page_tree[i] & ~kept);
    }
    if (leaked)
        check_problem(c, "page", "group %u: %llu pages count as used that no tree has", g->id,
                      (unsigned long long)leaked);
    if (missing)
        check_problem(c, "page", "group %u: %llu pages of trees count as free", g->id,
                      (unsigned long long)missing);
}

void check_metadata_space(struct check *c)
{
    uint64_t total = 0, used = 0;
    for (unsigned i = 0; i < c->groups; i++) {
        struct check_group *g = &c->group[i];
        if (g->info.role != POOL_GROUP_META)
            continue;
        compare_metamap(c, g);
        total += g->pages;
        used += bitmap_count(g->page_used, g->pages);
    }
    check_say(c, "metadata pages: %llu of %llu used", (unsigned long long)used,
              (unsigned long long)total);
    check_put(c->out, "metadata_pages",
              json_pack("{s:I, s:I}", "total", (json_int_t)total, "used", (json_int_t)used));
}

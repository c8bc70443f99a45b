/*
 * The page store: which metadata pages are in use, and when they may be used again.
 *
 * A metadata group has five bitmaps. The way of a page:
 *
 *     free ─alloc─▶ used ──pool_page_release──▶ released ─┐
 *                    │                                    ├ encode ─▶ freeing ─root durable─▶ free
 *                    └─ segment (log, table image) ─ cut ─┘
 *
 * Images of the table that the next root names, too, are not freed: a delta leaves the table image
 * and older deltas where they are (image.c, pool_meta_keep_segment).
 *
 * What a checkpoint wrote is `young` until its root is durable. When the checkpoint fails, two
 * things are free at once: its image or delta, and released pages that no durable root ever named.
 *
 *  M1  A page is free only when no durable root needs it: neither its tree, its table image nor its
 *      log (GUARD_ROOT_BEFORE_RELEASE).
 *  M2  The METAMAP records of a table image name the tree pages that its root needs, no more.
 *      Segments are found by walking. Pages that were allocated after the table image belong to
 *      nobody at the next import.
 *
 * Single pages are taken from the front of a group and from the first group on. Segments are taken
 * from the back of a group and from the last group back. Pages come free one by one where single
 * pages are taken, so segments find room in one piece.
 *
 * Room: pool_meta_has_room promises that the next checkpoint can be written. So it counts the pages
 * dirty now, twice the log's limit, and twice the table image as it would be now. Every group that
 * could be formed of free extents counts as room. Data take no extent that promised metadata may
 * need, and none of the reserve (pool_meta_reserve_groups).
 *
 * For this count a tree page is dirty together with all its ancestors, from before its change
 * begins (thin_page_due_update). Records that are not committed yet are counted as pages of the
 * log. A change of what is there already may go further, by half of what the log has (`working`),
 * so growth can never make it impossible. Then it waits for a checkpoint, which gives back what it
 * used. So at each moment there is room for all that is due, for two table images, and once more
 * for the log's limit: for commits, deletions, and the next import's log.
 */
#include "pool/meta_impl.h"

#include "base/log.h"
#include "io/guard.h"

#include <stdlib.h>

enum {
    RESERVE_SHIFT = 6,          /* metadata may always grow to 1/64 of the extents   */
    LOG_LIMIT_BYTES = 16 << 20, /* a checkpoint is made beyond                       */
    LOG_LIMIT_SHARE = 8,        /* or beyond this part of the metadata room          */
    LOG_LIMIT_SEGMENTS_MIN = 4,
    DELTA_ROOM_SHIFT = 3, /* deltas only while so much of the metadata groups is free */
};

static uint64_t page_addr(const struct pool_meta_group *g, uint64_t page)
{
    return (uint64_t)g->group->raid->id << POOL_META_PAGES_BITS | page;
}

static struct pool_meta_group *group_of(struct pool *p, uint64_t addr)
{
    uint64_t id = addr >> POOL_META_PAGES_BITS;
    const struct pool_group *g = id <= UINT32_MAX ? pool_group_find(p, (uint32_t)id) : NULL;
    return g ? g->meta : NULL;
}

/* Pages that may become dirty yet. Any reactor. */
int64_t pool_meta_room_left(const struct pool *p)
{
    return atomic_load_explicit(&p->meta.room, memory_order_relaxed) -
           atomic_load_explicit(&p->meta.dirty, memory_order_relaxed);
}

/* ---- groups ------------------------------------------------------------------------------- */

void pool_meta_init(struct pool *p)
{
    p->meta = (struct pool_meta){0};
}

void pool_pages_fini(struct pool *p)
{
    for (unsigned i = 0; i < p->meta.groups; i++)
        free(p->meta.group[i]);
    free(p->meta.group);
    pool_meta_init(p);
}

static struct pool_meta_group *meta_group_new(struct pool_group *group)
{
    uint64_t pages = group->raid->data_bytes / POOL_PAGE, words = bitmap_words(pages);
    struct pool_meta_group *g = calloc(1, sizeof(*g) + 5 * words * sizeof(uint64_t));
    if (!g)
        return NULL;
    uint64_t *maps = (uint64_t *)(g + 1);
    *g = (struct pool_meta_group){
        .group = group,
        .pages = (uint32_t)pages,
        .free = (uint32_t)pages,
        .used = maps,
        .segment = maps + words,
        .released = maps + 2 * words,
        .freeing = maps + 3 * words,
        .young = maps + 4 * words,
    };
    return g;
}

/* Everything that attaching `group` needs memory for; nothing of p->meta counts with it yet. */
static int meta_group_prepare(struct pool *p, struct pool_group *group,
                              struct pool_meta_group **out)
{
    struct pool_meta *m = &p->meta;
    if (group->raid->data_bytes / POOL_PAGE > UINT64_C(1) << POOL_META_PAGES_BITS)
        return VP_E_SEGMENT_BAD;
    if (m->groups == m->capacity) {
        unsigned capacity = m->capacity ? 2 * m->capacity : 4;
        struct pool_meta_group **grown =
            realloc(m->group, capacity * sizeof(struct pool_meta_group *));
        if (!grown)
            return VP_E_NO_MEMORY;
        m->group = grown;
        m->capacity = capacity;
    }
    *out = meta_group_new(group);
    return *out ? 0 : VP_E_NO_MEMORY;
}

static void meta_group_attach(struct pool *p, struct pool_meta_group *g)
{
    g->index = p->meta.groups;
    g->group->meta = g;
    p->meta.group[p->meta.groups++] = g;
    p->meta.pages_total += g->pages;
    p->meta.pages_free += g->free;
}

int pool_meta_group_attach(struct pool *p, struct pool_group *group)
{
    struct pool_meta_group *g;
    int rc = meta_group_prepare(p, group, &g);
    if (!rc)
        meta_group_attach(p, g);
    return rc;
}

unsigned pool_meta_copies_wanted(const struct pool *p)
{
    unsigned width = pool_promised_width(p);
    return width < POOL_META_COPIES_MIN   ? POOL_META_COPIES_MIN
           : width > POOL_META_COPIES_MAX ? POOL_META_COPIES_MAX
                                          : width;
}

unsigned pool_meta_copies(const struct pool *p)
{
    unsigned online = 0, wanted = pool_meta_copies_wanted(p);
    for (unsigned i = 0; i < p->disk_count; i++)
        online += (p->disk[i].state == POOL_DISK_ONLINE || &p->disk[i] == p->checkpoint.fill) &&
                  !p->disk[i].leaves;
    return online < wanted ? online : wanted;
}

unsigned pool_meta_copies_promised(const struct pool *p)
{
    unsigned copies = pool_meta_copies(p), promised = pool_promised_width(p);
    return promised < copies ? promised : copies;
}

struct raid_profile pool_meta_profile(unsigned copies)
{
    return (struct raid_profile){
        .kind = copies > 1 ? RAID_MIRROR : RAID_SINGLE,
        .data = 1,
        .extra = (uint8_t)(copies ? copies - 1 : 0),
    };
}

/* Its record is queued before anything counts with it, or the group is taken apart again: nobody
 * may write to a group that no record will name. */
static int meta_group_form(struct pool *p, unsigned copies)
{
    struct pool_batch b;
    struct pool_group *group;
    struct pool_meta_group *g = NULL;
    pool_batch_init(&b);
    int rc = pool_group_form(p, POOL_GROUP_META, pool_meta_profile(copies), 0, &b, &group);
    if (rc) {
        pool_batch_fini(&b);
        return rc;
    }
    rc = meta_group_prepare(p, group, &g);
    if (!rc)
        rc = pool_log_append_nowait(p, &b);
    pool_batch_fini(&b);
    if (rc) {
        free(g);
        pool_group_drop(p, group);
        return rc;
    }
    meta_group_attach(p, g);
    p->log.group_due = true;
    pool_meta_room_update(p);
    return 0;
}

/* Where so many copies cannot be had any more, fewer do, but not one. */
int pool_meta_group_add(struct pool *p)
{
    unsigned copies = pool_meta_copies(p), least = copies > 2 ? 2 : copies;
    int rc;
    while ((rc = meta_group_form(p, copies)) == VP_E_NO_SPACE && copies > least)
        copies--;
    return rc;
}

/* Groups that data must leave formable by policy: a part of all extents, as far as the disks could
 * ever give that many; and one at least, while they could. */
static unsigned reserve_by_share(const struct pool *p)
{
    uint64_t extents = 0, copies = pool_meta_copies(p);
    for (unsigned i = 0; i < p->disk_count; i++)
        if (p->disk[i].state == POOL_DISK_ONLINE && !p->disk[i].leaves)
            extents += p->disk[i].extents_total;
    unsigned formed = p->meta.groups, all = pool_meta_groups_of_all(p);
    unsigned target = 1 + (unsigned)(copies ? (extents / copies) >> RESERVE_SHIFT : 0);
    target = target > formed ? target - formed : 1;
    unsigned possible = all > formed ? all - formed : 0;
    return target < possible ? target : possible;
}

/* Groups without which what was promised could not be written. */
static unsigned reserve_by_promise(const struct pool *p)
{
    int64_t missing = (int64_t)(p->meta.formable_pages) - pool_meta_room_left(p);
    uint64_t pages = p->geometry.extent_bytes / POOL_PAGE;
    return missing > 0 ? (unsigned)div_up((uint64_t)missing, pages) : 0;
}

unsigned pool_meta_reserve_groups(const struct pool *p)
{
    unsigned share = reserve_by_share(p), promise = reserve_by_promise(p);
    return share > promise ? share : promise;
}

void pool_meta_usage(const struct pool *p, uint64_t *total, uint64_t *used, uint64_t *room)
{
    int64_t left = atomic_load_explicit(&p->meta.room, memory_order_relaxed);
    *room = left > 0 ? (uint64_t)left : 0;
    *total = p->meta.pages_total;
    *used = p->meta.pages_total - p->meta.pages_free;
}

/* ---- single pages ------------------------------------------------------------------------- */

static void take(struct pool *p, struct pool_meta_group *g, uint64_t page, uint64_t count)
{
    VP_VERIFY(g->free, >=, count);
    VP_VERIFY(p->meta.pages_free, >=, count);
    bitmap_set_range(g->used, page, count);
    g->free -= (uint32_t)count;
    p->meta.pages_free -= count;
    atomic_fetch_sub_explicit(&p->meta.room, (int64_t)count, memory_order_relaxed);
}

static bool page_take(struct pool *p, uint64_t *addr)
{
    for (; p->meta.first < p->meta.groups; p->meta.first++) {
        struct pool_meta_group *g = p->meta.group[p->meta.first];
        if (!g->free)
            continue;
        uint64_t page = bitmap_find(g->used, g->pages, g->next, false);
        if (page == g->pages)
            page = bitmap_find(g->used, g->pages, 0, false);
        take(p, g, page, 1);
        bitmap_set(g->young, page);
        g->touched = true;
        g->next = (uint32_t)page + 1;
        *addr = page_addr(g, page);
        return true;
    }
    return false;
}

/* Pages of the group came free: the next search begins at its front, and at no later group. */
static void meta_group_has_free(struct pool *p, struct pool_meta_group *g)
{
    g->next = 0;
    if (g->free && g->index < p->meta.first)
        p->meta.first = g->index;
}

static void meta_group_recount(struct pool *p, struct pool_meta_group *g)
{
    uint32_t before = g->free;
    g->free = g->pages - (uint32_t)bitmap_count(g->used, g->pages);
    p->meta.pages_free += g->free - before;
    meta_group_has_free(p, g);
}

static void page_give(struct pool *p, uint64_t addr)
{
    struct pool_meta_group *g = group_of(p, addr);
    uint64_t page = pool_page_in_group(addr);
    bitmap_clear(g->used, page);
    bitmap_clear(g->young, page);
    g->free++;
    p->meta.pages_free++;
    meta_group_has_free(p, g);
}

struct page_call {
    struct pool *p;
    unsigned count;
    uint64_t *addr;
    const uint64_t *released;
};

static int page_alloc_home(void *arg)
{
    struct page_call *c = arg;
    for (unsigned i = 0; i < c->count; i++) {
        if (page_take(c->p, &c->addr[i]))
            continue;
        int rc = pool_meta_group_add(c->p);
        if (!rc && page_take(c->p, &c->addr[i]))
            continue;
        while (i--)
            page_give(c->p, c->addr[i]);
        return VP_E_POOL_FULL_META;
    }
    return 0;
}

CO int pool_page_alloc(struct pool *p, unsigned count, uint64_t *addr)
{
    struct page_call c = {.p = p, .count = count, .addr = addr};
    return reactor_call(p->home, page_alloc_home, &c);
}

static int page_release_home(void *arg)
{
    struct page_call *c = arg;
    for (unsigned i = 0; i < c->count; i++) {
        struct pool_meta_group *g = group_of(c->p, c->released[i]);
        uint64_t page = pool_page_in_group(c->released[i]);
        /* Addresses come from tree pages, so in the end from a disk. */
        if (g && page < g->pages && bitmap_test(g->used, page) && !bitmap_test(g->segment, page)) {
            bitmap_set(g->released, page);
            g->touched = true;
        } else {
            vp_warn("pool %s: page %llx was released but is not a tree's", c->p->name,
                    (unsigned long long)c->released[i]);
        }
    }
    return 0;
}

CO void pool_page_release(struct pool *p, const uint64_t *addr, unsigned count)
{
    struct page_call c = {.p = p, .count = count, .released = addr};
    vp_ignore(reactor_call(p->home, page_release_home, &c),
              "at shutdown pages stay in use until the next import sees that nobody has them");
}

/* ---- segments ----------------------------------------------------------------------------- */

static void segment_describe(const struct pool_meta_group *g, uint64_t page, uint32_t pages,
                             struct pool_segment *out)
{
    const struct raid_group *raid = g->group->raid;
    *out = (struct pool_segment){.pages = pages, .place.copies = raid->width};
    for (unsigned i = 0; i < raid->width; i++) {
        out->place.disk[i] = (uint16_t)raid->disk[i]->index;
        out->place.at_bytes[i] = raid->base_bytes[i] + page * POOL_PAGE;
    }
}

/* Where the last free run, so aligned, of the first `end` pages of the group ends; 0: there is
 * none. */
static uint64_t segment_end(const struct pool_meta_group *g, uint32_t pages, uint64_t end)
{
    for (end -= end % pages; g->free >= pages && end >= pages; end -= pages)
        if (bitmap_find(g->used, end, end - pages, true) == end)
            return end;
    return 0;
}

static bool segment_take(struct pool *p, struct pool_meta_group *g, uint32_t pages,
                         struct pool_segment *out)
{
    uint64_t end = segment_end(g, pages, g->pages);
    if (!end)
        return false;
    take(p, g, end - pages, pages);
    bitmap_set_range(g->segment, end - pages, pages);
    segment_describe(g, end - pages, pages, out);
    return true;
}

static bool group_leaves(const struct pool_meta_group *g)
{
    for (unsigned m = 0; m < g->group->raid->width; m++)
        if (g->group->disk[m]->leaves)
            return true;
    return false;
}

/* Not on a disk that is being emptied, if that can be. */
static bool segment_find(struct pool *p, uint32_t pages, bool leaves, struct pool_segment *out)
{
    for (unsigned i = p->meta.groups; i-- > 0;)
        if (!p->meta.group[i]->closed && group_leaves(p->meta.group[i]) == leaves &&
            segment_take(p, p->meta.group[i], pages, out))
            return true;
    return false;
}

uint64_t pool_segments_free(const struct pool *p)
{
    uint32_t pages = pool_segment_pages(p);
    uint64_t n = p->meta.formable_pages / pages;
    for (unsigned i = 0; i < p->meta.groups; i++) {
        const struct pool_meta_group *g = p->meta.group[i];
        for (uint64_t end = g->pages; (end = segment_end(g, pages, end)) != 0; end -= pages)
            n++;
    }
    return n;
}

int pool_segment_alloc(struct pool *p, uint32_t want_pages, struct pool_segment *out)
{
    if (segment_find(p, want_pages, false, out))
        return 0;
    if (!pool_meta_group_add(p) && segment_find(p, want_pages, false, out))
        return 0;
    if (segment_find(p, want_pages, true, out))
        return 0;
    /* Free pages are scattered: shorter segments do as well, down to a batch and a JUMP. */
    for (uint32_t pages = want_pages / 2; pages >= 2; pages /= 2)
        if (segment_find(p, pages, false, out) || segment_find(p, pages, true, out))
            return 0;
    return VP_E_POOL_FULL_META;
}

/* Where the segment is in the group, if it is the group's. Members that the group got since come
 * after those that the segment is on (widen.c). */
static bool segment_is_in(const struct pool_meta_group *g, const struct pool_segment *s,
                          uint64_t *page)
{
    struct pool_segment same;
    if (s->place.disk[0] != g->group->raid->disk[0]->index ||
        s->place.at_bytes[0] < g->group->raid->base_bytes[0])
        return false;
    *page = (s->place.at_bytes[0] - g->group->raid->base_bytes[0]) / POOL_PAGE;
    if (*page > g->pages || s->pages > g->pages - *page)
        return false;
    segment_describe(g, *page, s->pages, &same);
    if (same.place.copies < s->place.copies)
        return false;
    for (unsigned i = 0; i < s->place.copies; i++)
        if (same.place.disk[i] != s->place.disk[i] ||
            same.place.at_bytes[i] != s->place.at_bytes[i])
            return false;
    return true;
}

int pool_segment_mark(struct pool *p, const struct pool_segment *s)
{
    uint64_t page;
    for (unsigned i = 0; i < p->meta.groups; i++) {
        struct pool_meta_group *g = p->meta.group[i];
        if (!segment_is_in(g, s, &page))
            continue;
        if (bitmap_find(g->used, page + s->pages, page, true) != page + s->pages)
            return VP_E_SEGMENT_SHARED;
        take(p, g, page, s->pages);
        bitmap_set_range(g->segment, page, s->pages);
        return 0;
    }
    return VP_E_SEGMENT_BAD;
}

void pool_segment_free(struct pool *p, const struct pool_segment *s)
{
    uint64_t page;
    for (unsigned i = 0; i < p->meta.groups; i++) {
        struct pool_meta_group *g = p->meta.group[i];
        if (!segment_is_in(g, s, &page))
            continue;
        for (uint64_t n = page; n < page + s->pages; n++) {
            bitmap_clear(g->segment, n);
            bitmap_clear(g->used, n);
        }
        g->free += s->pages;
        p->meta.pages_free += s->pages;
        meta_group_has_free(p, g);
        return;
    }
}

bool pool_segment_is_narrow(const struct pool *p, const struct pool_segment *s)
{
    uint64_t page;
    for (unsigned i = 0; i < p->meta.groups; i++)
        if (segment_is_in(p->meta.group[i], s, &page))
            return s->place.copies < p->meta.group[i]->group->raid->width;
    return false;
}

void pool_segment_mark_young(struct pool *p, const struct pool_segment *s)
{
    uint64_t page;
    for (unsigned i = 0; i < p->meta.groups; i++)
        if (segment_is_in(p->meta.group[i], s, &page))
            bitmap_set_range(p->meta.group[i]->young, page, s->pages);
}

void pool_meta_keep_segment(struct pool *p, const struct pool_segment *s)
{
    uint64_t page;
    for (unsigned i = 0; i < p->meta.groups; i++)
        if (segment_is_in(p->meta.group[i], s, &page))
            for (uint64_t n = page; n < page + s->pages; n++)
                bitmap_clear(p->meta.group[i]->freeing, n);
}

/* ---- METAMAP records ---------------------------------------------------------------------- */

static int metamap_load(const struct pool_record *r, void *arg)
{
    struct pool *p = arg;
    struct pool_meta_group *g =
        r->key <= UINT32_MAX ? group_of(p, r->key << POOL_META_PAGES_BITS) : NULL;
    if (!g || r->len != bitmap_words(g->pages) * sizeof(uint64_t))
        return VP_E_METAMAP_BAD;
    const struct le64 *words = r->value;
    for (uint64_t i = 0; i < bitmap_words(g->pages); i++)
        g->used[i] = le64_get(words[i]);
    uint64_t used = bitmap_count(g->used, bitmap_words(g->pages) * 64);
    if (used != bitmap_count(g->used, g->pages))
        return VP_E_METAMAP_BAD;
    p->meta.pages_free -= used;
    g->free -= (uint32_t)used;
    g->touched = p->root.now.deltas > 0; /* perhaps a delta has it: the next one has it again */
    return 0;
}

int pool_meta_load(struct pool *p)
{
    int rc = pool_record_each(p, POOL_RECORD_METAMAP, metamap_load, p);
    pool_records_clear_kind(&p->records, POOL_RECORD_METAMAP);
    return rc;
}

/* ---- around a root ------------------------------------------------------------------------ */

void pool_meta_cut(struct pool *p)
{
    for (unsigned i = 0; i < p->meta.groups; i++) {
        struct pool_meta_group *g = p->meta.group[i];
        memcpy(g->freeing, g->segment, bitmap_words(g->pages) * sizeof(uint64_t));
    }
}

static void metamap_put(struct pool_meta_group *g, bool always, struct pool_batch *b)
{
    uint64_t words = bitmap_words(g->pages);
    struct le64 *map = malloc(words * sizeof(*map));
    if (!map) {
        b->failed = true;
        return;
    }
    bool any = always;
    for (uint64_t i = 0; i < words; i++) {
        g->freeing[i] |= g->released[i];
        g->released[i] = 0;
        uint64_t live = g->used[i] & ~g->segment[i] & ~g->freeing[i];
        map[i] = le64_make(live);
        any |= live != 0;
    }
    if (any)
        pool_batch_set(b, POOL_RECORD_METAMAP, 0, g->group->raid->id, map, words * sizeof(*map));
    free(map);
}

void pool_meta_encode(struct pool *p, struct pool_meta_group *g, uint32_t from,
                      struct pool_batch *b)
{
    if (g->touched)
        g->changed = p->records.epoch - 1; /* as what the image has */
    g->touched = false;
    if (g->changed >= from)
        metamap_put(g, from != 0, b);
}

uint64_t pool_meta_changed_bytes(const struct pool *p, uint32_t from)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < p->meta.groups; i++) {
        const struct pool_meta_group *g = p->meta.group[i];
        if (g->touched || g->changed >= from)
            sum += sizeof(struct record_header) + bitmap_words(g->pages) * sizeof(struct le64);
    }
    return sum;
}

static void group_commit(struct pool *p, struct pool_meta_group *g)
{
    for (uint64_t i = 0; i < bitmap_words(g->pages); i++) {
        g->used[i] &= ~g->freeing[i];
        g->segment[i] &= ~g->freeing[i];
        g->freeing[i] = 0;
        g->young[i] = 0;
    }
    meta_group_recount(p, g);
}

void pool_meta_commit(struct pool *p)
{
    bool had_room = pool_meta_room_left(p) > 0;
    pool_meta_dirty_add(p, -(int64_t)p->meta.replayed_pages);
    p->meta.replayed_pages = 0;
    for (unsigned i = 0; i < p->meta.groups; i++)
        group_commit(p, p->meta.group[i]);
    pool_meta_room_update(p);
    if (!had_room && pool_meta_room_left(p) > 0)
        pool_space_changed(p);
}

static void group_rollback(struct pool *p, struct pool_meta_group *g)
{
    for (uint64_t w = 0; w < bitmap_words(g->pages); w++) {
        g->released[w] |= g->freeing[w] & ~g->segment[w];
        g->freeing[w] = 0;
        uint64_t unnamed = g->young[w] & (g->released[w] | g->segment[w]);
        g->used[w] &= ~unnamed;
        g->segment[w] &= ~unnamed;
        g->released[w] &= ~unnamed;
        g->young[w] &= ~unnamed;
    }
    meta_group_recount(p, g);
}

/* A root that could not be written may be durable on a disk all the same: then the pool is fenced,
 * and nothing is used again. */
void pool_meta_rollback(struct pool *p)
{
    for (unsigned i = 0; i < p->meta.groups && !pool_is_fenced(p); i++)
        group_rollback(p, p->meta.group[i]);
    pool_meta_room_update(p);
}

/* ---- room --------------------------------------------------------------------------------- */

/* The pages of an image of so many bytes. A segment keeps a page for its JUMP. */
static uint64_t image_pages(const struct pool *p, uint64_t bytes)
{
    uint32_t pages = pool_segment_pages(p);
    return div_up(bytes, (uint64_t)(pages - 1) * POOL_PAGE - sizeof(struct log_batch_header)) *
           pages;
}

/* The pages of a full table image as it would be now. */
static uint64_t table_image_pages(const struct pool *p)
{
    return image_pages(p, pool_table_image_bytes(p) + POOL_PAGE);
}

uint64_t pool_table_image_bytes(const struct pool *p)
{
    return pool_records_bytes(&p->records) + p->meta.pages_total / 8;
}

bool pool_meta_has_room_for_delta(const struct pool *p, uint64_t bytes)
{
    uint64_t plenty = p->meta.pages_total >> DELTA_ROOM_SHIFT;
    return pool_meta_room_left(p) >= (int64_t)(image_pages(p, bytes) + plenty);
}

/* The pages kept for the log and for two table images. One of these is the next image. The other
 * stands for as many records as an image has: a deletion may have to write them before that
 * image. */
static uint64_t kept_pages(const struct pool *p)
{
    return 2 * p->log.limit_pages + 2 * table_image_pages(p);
}

void pool_meta_room_update(struct pool *p)
{
    struct pool_meta *m = &p->meta;
    uint64_t extent_pages = p->geometry.extent_bytes / POOL_PAGE;
    m->formable_pages = pool_meta_groups_formable(p) * extent_pages;
    uint64_t certain = min_u64(m->formable_pages, reserve_by_share(p) * extent_pages);
    uint64_t share = (m->pages_total + certain) / LOG_LIMIT_SHARE;
    p->log.limit_pages = max_u64(min_u64(share, LOG_LIMIT_BYTES / POOL_PAGE),
                                 (uint64_t)LOG_LIMIT_SEGMENTS_MIN * pool_segment_pages(p));
    atomic_store_explicit(&m->room,
                          (int64_t)(m->pages_free + m->formable_pages) - (int64_t)kept_pages(p),
                          memory_order_relaxed);
    atomic_store_explicit(&m->working, (int64_t)p->log.limit_pages, memory_order_relaxed);
}

bool pool_meta_has_room(struct pool *p, uint64_t new_pages)
{
    if (pool_meta_room_left(p) >= (int64_t)new_pages)
        return true;
    pool_checkpoint_request(p);
    return false;
}

static int64_t working_room(const struct pool *p)
{
    return atomic_load_explicit(&p->meta.working, memory_order_relaxed);
}

bool pool_meta_may_change(struct pool *p, uint64_t pages)
{
    return pool_meta_room_left(p) + working_room(p) >= (int64_t)pages;
}

bool pool_meta_is_exhausted(struct pool *p, uint64_t pages)
{
    int64_t room = atomic_load_explicit(&p->meta.room, memory_order_relaxed);
    return room + working_room(p) < (int64_t)pages;
}

void pool_meta_replayed(struct pool *p, uint64_t pages)
{
    p->meta.replayed_pages += pages;
    pool_meta_dirty_add(p, (int64_t)pages);
}

void pool_meta_dirty_add(struct pool *p, int64_t pages)
{
    atomic_fetch_add_explicit(&p->meta.dirty, pages, memory_order_relaxed);
}

void pool_meta_prepare(struct pool *p)
{
    int64_t dirty = atomic_load_explicit(&p->meta.dirty, memory_order_relaxed);
    uint64_t need = (dirty > 0 ? (uint64_t)dirty : 0) + table_image_pages(p) +
                    2 * (uint64_t)pool_segment_pages(p);
    while (p->meta.pages_free < need)
        if (pool_meta_group_add(p))
            break; /* what there is may still do: allocation says so if not */
    pool_meta_room_update(p);
}

/*
 * Radix trees of pages: look-up, loading on demand, growth, the lists of changed entries.
 * tree_write.c writes them out.
 *
 * The page at level l and index i holds the keys [i × span(l), (i+1) × span(l)), with span(0) =
 * entries in a leaf and span(l+1) = span(l) × 252. The tree grows at the top, so a page's level and
 * index never change. In memory a page has pointers to its loaded children beside their references.
 * A page that is being loaded is there already and is marked. A caller that needs it waits and
 * starts again at the top.
 */
#include <string.h>

#include "base/bitmap.h"
#include "base/crc.h"
#include "thin/thin_impl.h"

struct pool_page_ref thin_ref_get(const struct thin_page_ref_disk *d)
{
    return (struct pool_page_ref){
        .addr = le64_get(d->addr),
        .crc = le32_get(d->crc),
        .generation = le32_get(d->generation),
    };
}

struct thin_page_ref_disk thin_ref_make(struct pool_page_ref ref)
{
    return (struct thin_page_ref_disk){
        .addr = le64_make(ref.addr),
        .crc = le32_make(ref.crc),
        .generation = le32_make(ref.generation),
    };
}

struct thin_page_ref_disk *thin_page_slot(const struct thin_page *interior, unsigned slot)
{
    return (struct thin_page_ref_disk *)(void *)(interior->data + sizeof(struct thin_page_header)) +
           slot;
}

/* ---- life ---------------------------------------------------------------------------------- */

void thin_tree_init(struct thin_tree *tree, struct thin *owner, enum pool_tree kind,
                    uint32_t entry_bytes)
{
    memset(tree, 0, sizeof(*tree));
    tree->owner = owner;
    tree->kind = kind;
    tree->entry_bytes = entry_bytes;
    tree->leaf_entries = THIN_PAGE_ROOM / entry_bytes;
    tree->mark_words = (unsigned)bitmap_words(tree->leaf_entries);
    tree->record_bytes = (uint32_t)pool_record_bytes(entry_bytes);
    VP_VERIFY(tree->mark_words, <=, (unsigned)THIN_MARK_WORDS);
    tree->span[0] = tree->leaf_entries;
    for (unsigned i = 0; i < THIN_LEVELS_MAX; i++) {
        tree->span[i + 1] =
            tree->span[i] > THIN_KEY_MAX ? tree->span[i] : tree->span[i] * THIN_FANOUT;
        list_init(&tree->dirty[i]);
    }
    list_init(&tree->writing);
    for (unsigned m = 0; m < THIN_MARK_KINDS; m++)
        list_init(&tree->marked[m]);
}

/* Levels that the highest key needs. */
static unsigned tree_height_max(const struct thin_tree *tree)
{
    unsigned h = 1;
    while (tree->span[h - 1] <= THIN_KEY_MAX)
        h++;
    return h;
}

int thin_tree_load(struct thin_tree *tree, const void *record, size_t len)
{
    const struct thin_tree_record_disk *r = record;
    if (len != sizeof(*r))
        return VP_E_MAP_BAD;
    if (r->height > tree_height_max(tree))
        return VP_E_MAP_TOO_DEEP;
    tree->height = r->height;
    tree->root_ref = thin_ref_get(&r->root);
    if ((tree->height == 0) != (tree->root_ref.addr == 0))
        return VP_E_MAP_BAD;
    tree->saved_ref = tree->root_ref;
    tree->saved_height = r->height;
    return 0;
}

/* Drops `p` and everything below it, children first. */
static void tree_drop(struct thin_page *p)
{
    while (p) {
        struct thin_page *child = NULL;
        for (unsigned i = 0; p->children && i < THIN_FANOUT && !child; i++)
            child = p->child[i];
        struct thin_page *up = p->parent;
        if (!child)
            thin_page_drop(p);
        p = child ? child : up;
    }
}

void thin_tree_fini(struct thin_tree *tree)
{
    tree_drop(tree->root);
    VP_VERIFY_TRUE(!tree->root);
}

bool thin_tree_is_dirty(const struct thin_tree *tree)
{
    for (unsigned i = 0; i < THIN_LEVELS_MAX; i++)
        if (!list_empty(&tree->dirty[i]))
            return true;
    return !list_empty(&tree->writing) || !list_empty(&tree->marked[THIN_UNCOMMITTED]);
}

/* ---- loading ------------------------------------------------------------------------------- */

/* The header is untrusted: the page must be the one that was asked for. */
static bool page_is_right(const struct thin_page *p)
{
    const struct thin_page_header *h = (const void *)p->data;
    return le32_get(h->magic) == THIN_PAGE_MAGIC && le16_get(h->version) == THIN_PAGE_VERSION &&
           h->tree == p->tree->kind && h->level == p->level &&
           le32_get(h->volume) == p->tree->owner->id &&
           le32_get(h->entry_bytes) == p->tree->entry_bytes && le64_get(h->index) == p->index;
}

/* Puts `p` where `parent` (NULL: the top) will find it. */
static void page_attach(struct thin_page *p, struct thin_page *parent, unsigned slot)
{
    p->parent = parent;
    p->slot = slot;
    if (parent) {
        parent->child[slot] = p;
        parent->children++;
        if (p->due) { /* the tree grew above it */
            parent->due_children++;
            thin_page_due_update(parent);
        }
    } else {
        p->tree->root = p;
    }
}

static CO int page_load(struct thin_tree *tree, struct thin_page *parent, unsigned slot,
                        struct pool_page_ref ref)
{
    struct thin_cache *c = tree->owner->cache;
    uint8_t level = (uint8_t)(parent ? parent->level - 1U : tree->height - 1);
    struct thin_page *p;
    if (parent)
        parent->pins++; /* against the eviction that a new page may cause */
    int rc = thin_page_new(c, tree, level, parent ? parent->index * THIN_FANOUT + slot : 0, &p);
    if (parent)
        parent->pins--;
    if (rc)
        return rc;
    c->misses++;
    page_attach(p, parent, slot);
    p->loading = true;
    rc = pool_page_read(tree->owner->pool, ref, p->data);
    if (!rc && !page_is_right(p))
        rc = VP_E_PAGE_DAMAGED;
    p->loading = false;
    if (rc)
        thin_page_drop(p);
    co_queue_wake_all(&c->loaded);
    return rc;
}

/* ---- look-up ------------------------------------------------------------------------------- */

static inline unsigned slot_of(const struct thin_page *interior, uint64_t key)
{
    const struct thin_tree *tree = interior->tree;
    return (unsigned)(key / tree->span[interior->level - 1] - interior->index * THIN_FANOUT);
}

static bool tree_covers(const struct thin_tree *tree, uint64_t key)
{
    return tree->height && key < tree->span[tree->height - 1];
}

struct thin_page *thin_tree_peek(struct thin_tree *tree, uint64_t key)
{
    struct thin_page *p = tree->root;
    if (!p || !tree_covers(tree, key))
        return NULL;
    while (p && !p->loading && p->level)
        p = p->child[slot_of(p, key)];
    if (!p || p->loading)
        return NULL;
    p->referenced = true;
    return p;
}

/* Adds one level on top. The old top becomes its first child. No yield. */
static int tree_grow(struct thin_tree *tree)
{
    if (tree->height == tree_height_max(tree))
        return VP_E_MAP_BAD;
    if (tree->height == 0) {
        tree->height = 1;
        return 0;
    }
    struct thin_page *top, *old;
    if (tree->root)
        tree->root->pins++;
    int rc = thin_page_new(tree->owner->cache, tree, (uint8_t)tree->height, 0, &top);
    old = tree->root;
    if (old)
        old->pins--;
    if (rc)
        return rc;
    *thin_page_slot(top, 0) = thin_ref_make(tree->root_ref);
    page_attach(top, NULL, 0);
    if (old)
        page_attach(old, top, 0);
    tree->height++;
    if (tree->root_ref.addr)
        thin_page_mark_dirty(top);
    tree->root_ref = (struct pool_page_ref){0};
    return 0;
}

/* An empty page below `parent`; not dirty before something is in it. No yield. */
static int page_create(struct thin_tree *tree, struct thin_page *parent, unsigned slot)
{
    struct thin_page *p;
    uint8_t level = (uint8_t)(parent ? parent->level - 1U : tree->height - 1);
    if (parent)
        parent->pins++;
    int rc = thin_page_new(tree->owner->cache, tree, level,
                           parent ? parent->index * THIN_FANOUT + slot : 0, &p);
    if (parent)
        parent->pins--;
    if (!rc)
        page_attach(p, parent, slot);
    return rc;
}

/*
 * Goes down from the top towards `key` until it is at `level` or something is missing. Returns 1
 * with the page, 0 when there is none (and not `create`), VP_E_AGAIN when it waited: start again;
 * or an error.
 */
static CO int tree_descend(struct thin_tree *tree, uint64_t key, unsigned level, bool create,
                           struct thin_page **out)
{
    struct thin_page *parent = NULL, *p = tree->root;
    unsigned slot = 0;
    struct pool_page_ref ref = tree->root_ref;
    for (;;) {
        if (!p) {
            if (!ref.addr && !create)
                return 0;
            int rc =
                ref.addr ? page_load(tree, parent, slot, ref) : page_create(tree, parent, slot);
            return rc ? rc : VP_E_AGAIN;
        }
        if (p->loading) {
            co_queue_wait(&tree->owner->cache->loaded, "page load");
            return VP_E_AGAIN;
        }
        p->referenced = true;
        if (p->level == level)
            break;
        parent = p;
        slot = slot_of(p, key);
        ref = thin_ref_get(thin_page_slot(p, slot));
        p = p->child[slot];
    }
    *out = p;
    return 1;
}

static CO int tree_find(struct thin_tree *tree, uint64_t key, unsigned level, bool create,
                        struct thin_page **out)
{
    int rc;
    do
        rc = tree_descend(tree, key, level, create, out);
    while (rc == VP_E_AGAIN);
    if (rc <= 0)
        return rc;
    thin_page_pin(*out);
    return 0;
}

CO int thin_tree_get(struct thin_tree *tree, uint64_t key, bool create, struct thin_page **out)
{
    struct thin_page *leaf = thin_tree_peek(tree, key);
    *out = leaf;
    if (leaf) {
        tree->owner->cache->hits++;
        thin_page_pin(leaf);
        return 0;
    }
    if (key >= THIN_KEY_MAX)
        return VP_E_MAP_BAD;
    while (create && !tree_covers(tree, key)) {
        int rc = tree_grow(tree);
        if (rc)
            return rc;
    }
    if (!tree_covers(tree, key))
        return 0;
    return tree_find(tree, key, 0, create, out);
}

CO int thin_tree_get_page(struct thin_tree *tree, uint64_t key, unsigned level,
                          struct thin_page **out)
{
    *out = NULL;
    if (!tree_covers(tree, key) || level >= tree->height)
        return 0;
    return tree_find(tree, key, level, false, out);
}

/* The first child of `p` at or after the slot of *key that exists; *key moves to its start.
 * False: none. */
static bool page_next_slot(const struct thin_page *p, uint64_t *key)
{
    uint64_t span = p->tree->span[p->level - 1];
    for (unsigned s = slot_of(p, *key); s < THIN_FANOUT; s++) {
        if (p->child[s] || thin_page_slot(p, s)->addr.raw) {
            *key = max_u64(*key, (p->index * THIN_FANOUT + s) * span);
            return true;
        }
    }
    *key = (p->index + 1) * THIN_FANOUT * span;
    return false;
}

CO int thin_tree_seek(struct thin_tree *tree, uint64_t *key, uint64_t end, struct thin_page **out)
{
    *out = NULL;
    while (*key < end && tree_covers(tree, *key)) {
        struct thin_page *p = tree->root;
        while (p && !p->loading && p->level && page_next_slot(p, key))
            p = p->child[slot_of(p, *key)];
        if (p && !p->loading && p->level)
            continue; /* nothing under p: *key is behind it now */
        if (*key >= end)
            break;
        int rc = thin_tree_get(tree, *key, false, out);
        if (rc || *out)
            return rc;
        if (!tree->root && !tree->root_ref.addr)
            break;
    }
    return 0;
}

/* ---- changes ------------------------------------------------------------------------------- */

/* False when it was marked already. */
static inline bool leaf_mark(struct thin_page *leaf, enum thin_mark m, unsigned slot)
{
    struct thin_marks *marks = &leaf->mark[m];
    if (bitmap_test(marks->bits, slot))
        return false;
    bitmap_set(marks->bits, slot);
    if (!thin_page_has_mark(leaf, m))
        list_add_tail(&leaf->tree->marked[m], &marks->link);
    return true;
}

void thin_leaf_changed(struct thin_page *leaf, uint64_t key, bool committed)
{
    unsigned slot = (unsigned)(key - thin_leaf_first(leaf));
    struct thin *t = leaf->tree->owner;
    if (!leaf->dirty)
        thin_page_mark_dirty(leaf);
    if (committed)
        return;
    if (leaf_mark(leaf, THIN_UNCOMMITTED, slot))
        thin_uncommitted_add(t, leaf->tree->record_bytes);
    if (leaf_mark(leaf, THIN_UNKEPT, slot))
        t->unkept_bytes += leaf->tree->record_bytes;
}

/* pchunk, or the bitmap */
static inline bool entry_is_empty(const uint8_t *e)
{
    uint64_t first;
    memcpy(&first, e, sizeof(first));
    return first == 0;
}

static inline void leaf_collect(const struct thin_page *leaf, enum thin_mark m,
                                struct pool_batch *b)
{
    const struct thin_tree *tree = leaf->tree;
    enum pool_record_kind kind = tree->kind == POOL_TREE_MAP ? POOL_RECORD_MAP : POOL_RECORD_SPACE;
    for (unsigned w = 0; w < tree->mark_words; w++) {
        for (uint64_t bits = leaf->mark[m].bits[w]; bits; bits &= bits - 1) {
            uint64_t slot = w * 64 + (unsigned)__builtin_ctzll(bits);
            uint64_t key = thin_leaf_first(leaf) + slot;
            const uint8_t *e = thin_leaf_slot(leaf, slot);
            if (entry_is_empty(e))
                pool_batch_delete(b, kind, tree->owner->id, key);
            else
                pool_batch_set(b, kind, tree->owner->id, key, e, tree->entry_bytes);
        }
    }
}

static struct thin_page *marked_leaf(struct list *link, enum thin_mark m)
{
    return container_of(link, struct thin_page, mark[m].link);
}

static inline void tree_collect(struct thin_tree *tree, enum thin_mark m, struct pool_batch *b)
{
    for (struct list *l = tree->marked[m].next; l != &tree->marked[m]; l = l->next)
        leaf_collect(marked_leaf(l, m), m, b);
}

void thin_marked_collect(struct thin *t, enum thin_mark m, struct pool_batch *b)
{
    tree_collect(&t->map, m, b);
    tree_collect(&t->space_tree, m, b);
}

static inline void tree_clear(struct thin_tree *tree, enum thin_mark m)
{
    struct list *l;
    while ((l = list_pop(&tree->marked[m])))
        for (unsigned w = 0; w < tree->mark_words; w++)
            marked_leaf(l, m)->mark[m].bits[w] = 0;
}

void thin_marked_clear(struct thin *t, enum thin_mark m)
{
    tree_clear(&t->map, m);
    tree_clear(&t->space_tree, m);
}

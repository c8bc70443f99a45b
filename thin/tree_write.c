/*
 * Writing a tree's dirty pages at a checkpoint, and releasing a whole tree.
 *
 * Pages are written level by level from the leaves. A page is copied at one moment and is clean
 * from then on. A later change makes it dirty again, for the next checkpoint. The copy is written
 * to a new address. Then the reference in the parent changes, which makes the parent dirty before
 * its level's turn comes. The old address is released. Requests go on meanwhile. A page that holds
 * nothing but zeros is not written: its reference becomes empty, which says the same.
 */
#include <string.h>

#include "base/crc.h"
#include "thin/thin_impl.h"

struct write_batch {
    unsigned count; /* pages taken from the dirty list             */
    unsigned full;  /* of these, that are to be written            */
    struct thin_page *page[THIN_WRITE_BATCH];
    struct pool_page_ref ref[THIN_WRITE_BATCH]; /* of page[i]; addr 0 = it is empty */
    uint64_t addr[THIN_WRITE_BATCH];            /* of the full ones, in order       */
    void *copy[THIN_WRITE_BATCH];
};

static bool page_is_empty(const struct thin_page *p)
{
    return bytes_are_zero(p->data + sizeof(struct thin_page_header), THIN_PAGE_ROOM);
}

static void page_stamp(const struct thin_page *p, uint8_t *copy, uint32_t generation)
{
    struct thin_page_header h = {
        .magic = le32_make(THIN_PAGE_MAGIC),
        .version = le16_make(THIN_PAGE_VERSION),
        .tree = (uint8_t)p->tree->kind,
        .level = p->level,
        .volume = le32_make(p->tree->owner->id),
        .entry_bytes = le32_make(p->tree->entry_bytes),
        .index = le64_make(p->index),
        .generation = le32_make(generation),
    };
    memcpy(copy, p->data, POOL_PAGE);
    memcpy(copy, &h, sizeof(h));
}

/* Copies up to `room` dirty pages; no yield. */
static void batch_take(struct write_batch *b, struct list *todo, unsigned room, uint8_t *buf,
                       uint32_t generation)
{
    b->count = b->full = 0;
    while (b->count < room && !list_empty(todo)) {
        struct thin_page *p = list_first(todo, struct thin_page, dirty_link);
        struct pool_page_ref *ref = &b->ref[b->count];
        *ref = (struct pool_page_ref){0};
        p->writing = true;
        thin_page_mark_clean(p);
        b->page[b->count++] = p;
        if (page_is_empty(p))
            continue;
        uint8_t *copy = buf + (size_t)b->full * POOL_PAGE;
        page_stamp(p, copy, generation);
        *ref = (struct pool_page_ref){b->addr[b->full], vp_crc32c(copy, POOL_PAGE), generation};
        b->copy[b->full++] = copy;
    }
}

/* The parent, or the tree, learns where p is now. Returns what is no longer needed. */
static uint64_t page_set_ref(struct thin_page *p, struct pool_page_ref ref)
{
    struct thin_tree *tree = p->tree;
    uint64_t old;
    if (p->parent) {
        struct thin_page_ref_disk *slot = thin_page_slot(p->parent, p->slot);
        old = le64_get(slot->addr);
        *slot = thin_ref_make(ref);
        if (old || ref.addr)
            thin_page_mark_dirty(p->parent);
    } else {
        old = tree->root_ref.addr;
        tree->root_ref = ref;
        tree->saved_ref = ref;
        tree->saved_height = (uint8_t)(ref.addr ? tree->height : 0);
    }
    return old;
}

static CO void batch_finish(struct write_batch *b, struct thin_tree *tree, int rc)
{
    uint64_t gone[THIN_WRITE_BATCH];
    unsigned n = 0;
    /* All of them at one moment: a page whose writing has ended is where its parent says. */
    CO_NO_YIELD {
        for (unsigned i = 0; i < b->count; i++) {
            struct thin_page *p = b->page[i];
            p->writing = false;
            if (rc) {
                thin_page_mark_dirty(p);
                continue;
            }
            uint64_t old = page_set_ref(p, b->ref[i]);
            thin_page_due_update(p);
            if (old)
                gone[n++] = old;
        }
    }
    if (rc)
        pool_page_release(tree->owner->pool, b->addr, b->full);
    else if (n)
        pool_page_release(tree->owner->pool, gone, n);
    co_queue_wake_all(&tree->owner->cache->room);
}

static unsigned list_count(const struct list *l, unsigned max)
{
    unsigned n = 0;
    for (const struct list *e = l->next; e != l && n < max; e = e->next)
        n++;
    return n;
}

/* Writes one batch from `todo`. Others dirty pages meanwhile, and wait for our buffer. */
static CO int batch_write(struct thin_tree *tree, struct list *todo, struct write_batch *b,
                          uint32_t generation)
{
    struct thin *t = tree->owner;
    unsigned want = list_count(todo, THIN_WRITE_BATCH);
    int rc = pool_page_alloc(t->pool, want, b->addr);
    if (rc)
        return rc;
    co_mutex_lock(&t->cache->writer);
    batch_take(b, todo, want, t->cache->write_buf, generation);
    if (b->full < want)
        pool_page_release(t->pool, b->addr + b->full, want - b->full);
    if (b->full)
        rc = pool_page_write(t->pool, b->addr, b->copy, b->full);
    co_mutex_unlock(&t->cache->writer);
    batch_finish(b, tree, rc);
    return rc;
}

static CO int level_write(struct thin_tree *tree, unsigned level, struct write_batch *b,
                          uint32_t generation)
{
    struct list *todo = &tree->writing;
    list_splice_tail(todo, &tree->dirty[level]);
    int rc = 0;
    while (!rc && !list_empty(todo))
        rc = batch_write(tree, todo, b, generation);
    list_splice_tail(&tree->dirty[level], todo);
    return rc;
}

CO int thin_tree_write(struct thin_tree *tree, uint32_t generation)
{
    struct write_batch b;
    for (unsigned level = 0; level < tree->height; level++) {
        int rc = level_write(tree, level, &b, generation);
        if (rc)
            return rc;
    }
    return 0;
}

/* ---- deletion ------------------------------------------------------------------------------ */

/* Releases what an interior page refers to. */
static CO void page_release_children(struct thin_page *p)
{
    uint64_t gone[THIN_FANOUT];
    unsigned n = 0;
    for (unsigned s = 0; s < THIN_FANOUT; s++)
        if (thin_page_slot(p, s)->addr.raw)
            gone[n++] = le64_get(thin_page_slot(p, s)->addr);
    memset(p->data, 0, POOL_PAGE);
    if (n)
        pool_page_release(p->tree->owner->pool, gone, n);
}

/*
 * Visits interior pages bottom-up: a page of level 1 is loaded for its references and dropped with
 * them, so that memory stays at one path. Damage is stepped over: pages that nobody can name any
 * more are found free by the next vpool-check.
 */
static CO int tree_destroy_below(struct thin_tree *tree, struct thin_page *p)
{
    int first = 0;
    for (unsigned s = 0; p->level > 1 && s < THIN_FANOUT; s++) {
        if (!p->child[s] && !thin_page_slot(p, s)->addr.raw)
            continue;
        struct thin_page *child;
        uint64_t key = (p->index * THIN_FANOUT + s) * tree->span[p->level - 1];
        int rc = thin_tree_get_page(tree, key, p->level - 1U, &child);
        if (!rc && child) {
            rc = tree_destroy_below(tree, child);
            thin_page_unpin(child);
        }
        first = first ? first : rc;
    }
    page_release_children(p);
    return first;
}

CO int thin_tree_destroy(struct thin_tree *tree)
{
    int rc = 0;
    if (tree->height > 1 && (tree->root || tree->root_ref.addr)) {
        struct thin_page *top;
        rc = thin_tree_get_page(tree, 0, tree->height - 1, &top);
        if (!rc && top) {
            rc = tree_destroy_below(tree, top);
            thin_page_unpin(top);
        }
    }
    if (tree->root_ref.addr)
        pool_page_release(tree->owner->pool, &tree->root_ref.addr, 1);
    thin_tree_fini(tree);
    tree->root_ref = tree->saved_ref = (struct pool_page_ref){0};
    tree->height = tree->saved_height = 0;
    return rc;
}

/*
 * The page cache of one reactor, with a limit. Memory comes in slabs and is kept until the cache
 * goes.
 *
 * Clean pages are in a clock list. The page at its head is evicted unless it was used since the
 * hand passed, or cannot go (thin_impl.h, invariant 3). Dirty pages are in the lists of their trees
 * until a checkpoint wrote them.
 *
 * Nothing here can deadlock, because a page is never waited for while another is pinned. When
 * nothing can be evicted the limit is exceeded instead. That is bounded: an operation that dirties
 * pages first passes thin_throttle, and waits there without any pin. A checkpoint needs only dirty
 * pages, which are loaded with their parents, and it has its own write buffer.
 *
 *     dirty pages  0 ─── ¼ of the limit ────────── ½ ───────────── ¾ ─────────
 *                          a checkpoint is asked    changes are     they wait
 *                          for                      slowed down     for one
 *
 * A change that is slowed down gets a time to start, behind the change before it. The distance is
 * what a page costs in the current checkpoints (the duration of a checkpoint divided by the pages
 * that it cleaned here), and it grows towards ¾. So what comes in and what goes out meet before
 * anything has to stop. A change that waits at ¾ is woken when pages were written, and when the
 * checkpoint fails.
 */
#include <stdlib.h>
#include <string.h>

#include "io/reactor.h"
#include "thin/thin_impl.h"

enum {
    SLAB_PAGES = 16,
    LIMIT_PAGES_MIN = 64,
    EVICT_STEPS = 64, /* of the clock's hand for one page */
};
#define ASK_AGAIN_NS     UINT64_C(20000) /* home's mailbox is full */
#define PACE_MAX         4U              /* page costs between two changes, at most */
#define PACE_WAIT_NS_MAX UINT64_C(10000000)
#define PACE_PAGE_NS_MAX UINT64_C(1000000)

struct thin_slab {
    struct thin_slab *next;
    uint8_t *data;
    struct thin_page page[SLAB_PAGES];
};

int thin_cache_new(size_t limit_bytes, struct thin_cache **out)
{
    struct thin_cache *c = calloc(1, sizeof(*c));
    if (!c)
        return VP_E_NO_MEMORY;
    c->limit_pages = max_u64(limit_bytes / POOL_PAGE, LIMIT_PAGES_MIN);
    c->write_buf = aligned_alloc(POOL_PAGE, (size_t)THIN_WRITE_BATCH * POOL_PAGE);
    list_init(&c->clean);
    list_init(&c->unused);
    co_queue_init(&c->loaded);
    co_queue_init(&c->room);
    co_mutex_init(&c->writer);
    if (!c->write_buf) {
        free(c);
        return VP_E_NO_MEMORY;
    }
    /* No checkpoint has to wait for memory. */
    memset(c->write_buf, 0, (size_t)THIN_WRITE_BATCH * POOL_PAGE);
    *out = c;
    return 0;
}

void thin_cache_free(struct thin_cache *c)
{
    if (!c)
        return;
    VP_VERIFY(c->pages, ==, 0U);
    while (c->slabs) {
        struct thin_slab *s = c->slabs;
        c->slabs = s->next;
        free(s->data);
        free(s);
    }
    free(c->write_buf);
    free(c);
}

struct thin_cache_stats thin_cache_stats(const struct thin_cache *c)
{
    return (struct thin_cache_stats){
        .pages = c->pages,
        .pages_dirty = c->dirty,
        .limit_pages = c->limit_pages,
        .hits = c->hits,
        .misses = c->misses,
        .evictions = c->evictions,
    };
}

static int slab_add(struct thin_cache *c)
{
    struct thin_slab *s = calloc(1, sizeof(*s));
    if (!s)
        return VP_E_NO_MEMORY;
    s->data = aligned_alloc(POOL_PAGE, (size_t)SLAB_PAGES * POOL_PAGE);
    if (!s->data) {
        free(s);
        return VP_E_NO_MEMORY;
    }
    for (unsigned i = 0; i < SLAB_PAGES; i++) {
        s->page[i].data = s->data + (size_t)i * POOL_PAGE;
        list_add_tail(&c->unused, &s->page[i].clock_link);
    }
    s->next = c->slabs;
    c->slabs = s;
    c->slab_pages += SLAB_PAGES;
    return 0;
}

/* Pages of a tree that has an entry for each of `keys` keys. */
static uint64_t tree_pages(const struct thin_tree *tree, uint64_t keys)
{
    uint64_t level = div_up(keys, tree->leaf_entries), pages = level;
    while (level > 1) {
        level = div_up(level, THIN_FANOUT);
        pages += level;
    }
    return pages;
}

/* Pages that were promised to volumes and are not in use: others leave memory for them. */
static size_t promised(const struct thin_cache *c)
{
    size_t all = min_u64(c->wanted_pages, c->limit_pages / 4 * 3);
    return all > c->wanted_used ? all - c->wanted_used : 0;
}

CO void thin_cache_take(struct thin *t)
{
    struct thin_cache *c = t->cache;
    uint64_t arenas =
        div_up(thin_chunks(t), 8 * sizeof(struct thin_space_entry_disk)); /* at least */
    if (!t->wanted_pages)
        c->wanted_used += t->pages;
    c->wanted_pages -= t->wanted_pages;
    t->wanted_pages = tree_pages(&t->map, thin_chunks(t)) + tree_pages(&t->space_tree, arenas);
    c->wanted_pages += t->wanted_pages;
    while (c->slab_pages - c->pages < promised(c) && !slab_add(c)) {
        memset(c->slabs->data, 0, (size_t)SLAB_PAGES * POOL_PAGE);
        co_yield ();
    }
}

static bool page_may_go(const struct thin_page *p)
{
    return !p->pins && !p->children && !p->loading && !p->writing &&
           !thin_page_has_mark(p, THIN_UNCOMMITTED) && !thin_page_has_mark(p, THIN_UNKEPT);
}

/* Moves the hand until a page is evicted or it is tired. */
static void cache_evict_one(struct thin_cache *c)
{
    for (unsigned i = 0; i < EVICT_STEPS && !list_empty(&c->clean); i++) {
        struct thin_page *p = list_first(&c->clean, struct thin_page, clock_link);
        if (page_may_go(p) && !p->referenced) {
            c->evictions++;
            thin_page_drop(p);
            return;
        }
        p->referenced = false;
        list_del(&p->clock_link);
        list_add_tail(&c->clean, &p->clock_link);
    }
}

static int page_init(struct thin_page *p, struct thin_tree *tree, uint8_t level, uint64_t index)
{
    uint8_t *data = p->data;
    memset(p, 0, sizeof(*p));
    p->data = data;
    p->tree = tree;
    p->level = level;
    p->index = index;
    p->referenced = true;
    list_init(&p->clock_link);
    list_init(&p->dirty_link);
    for (unsigned m = 0; m < THIN_MARK_KINDS; m++)
        list_init(&p->mark[m].link);
    memset(data, 0, POOL_PAGE);
    if (level) {
        p->child = calloc(THIN_FANOUT, sizeof(struct thin_page *));
        if (!p->child)
            return VP_E_NO_MEMORY;
    }
    return 0;
}

/* In pages: those in use with their descriptions, and what interior ones have beside theirs. */
static size_t used_pages(const struct thin_cache *c)
{
    size_t bytes = c->pages * (POOL_PAGE + sizeof(struct thin_page)) +
                   c->interior * sizeof(struct thin_page *) * THIN_FANOUT;
    return bytes / POOL_PAGE;
}

bool thin_cache_is_exceeded(const struct thin_cache *c)
{
    return used_pages(c) > c->limit_pages;
}

int thin_page_new(struct thin_cache *c, struct thin_tree *tree, uint8_t level, uint64_t index,
                  struct thin_page **out)
{
    struct thin *t = tree->owner;
    size_t others = t->wanted_pages ? 0 : promised(c);
    for (unsigned i = 0; i < 2 && used_pages(c) + others >= c->limit_pages; i++)
        cache_evict_one(c);
    int rc = c->slab_pages - c->pages <= others ? slab_add(c) : 0;
    if (list_empty(&c->unused))
        return rc;
    struct thin_page *p = container_of(list_pop(&c->unused), struct thin_page, clock_link);
    rc = page_init(p, tree, level, index);
    if (rc) {
        list_add_tail(&c->unused, &p->clock_link);
        return rc;
    }
    c->pages++;
    c->interior += level > 0;
    t->pages++;
    c->wanted_used += t->wanted_pages > 0;
    list_add_tail(&c->clean, &p->clock_link);
    *out = p;
    return 0;
}

void thin_page_drop(struct thin_page *p)
{
    struct thin_tree *tree = p->tree;
    struct thin_cache *c = tree->owner->cache;
    VP_VERIFY(p->children, ==, 0U);
    p->writing = false; /* after a simulated power cut it may have been */
    p->writers = p->due_children = 0;
    if (p->dirty)
        thin_page_mark_clean(p);
    else
        thin_page_due_update(p);
    for (unsigned m = 0; m < THIN_MARK_KINDS; m++)
        list_del(&p->mark[m].link);
    list_del(&p->clock_link);
    if (p->parent) {
        VP_VERIFY(p->parent->child[p->slot], ==, p);
        VP_VERIFY(p->parent->children, >, 0U);
        p->parent->child[p->slot] = NULL;
        p->parent->children--;
    } else if (tree->root == p) {
        tree->root = NULL;
    }
    free(p->child);
    p->child = NULL;
    VP_VERIFY(c->pages, >, 0U);
    VP_VERIFY(tree->owner->pages, >, 0U);
    c->pages--;
    c->interior -= p->level > 0;
    tree->owner->pages--;
    c->wanted_used -= tree->owner->wanted_pages > 0;
    list_add_head(&c->unused, &p->clock_link);
}

void thin_page_due_update(struct thin_page *p)
{
    while (p) {
        bool due = p->dirty || p->writing || p->writers || p->due_children;
        if (due == p->due)
            return;
        p->due = due;
        pool_meta_dirty_add(p->tree->owner->pool, due ? 1 : -1);
        p = p->parent;
        if (!p)
            return;
        p->due_children = (uint16_t)(p->due_children + (due ? 1 : -1));
        VP_VERIFY(p->due_children, <=, THIN_FANOUT); /* not below 0 either */
    }
}

void thin_page_mark_dirty(struct thin_page *p)
{
    struct thin *t = p->tree->owner;
    if (p->dirty)
        return;
    p->dirty = true;
    list_del(&p->clock_link);
    list_add_tail(&p->tree->dirty[p->level], &p->dirty_link);
    if (!p->due)
        thin_page_due_update(p);
    if (++t->cache->dirty >= t->cache->limit_pages / 4)
        pool_checkpoint_request(t->pool);
}

void thin_page_mark_clean(struct thin_page *p)
{
    struct thin *t = p->tree->owner;
    VP_VERIFY_TRUE(p->dirty);
    VP_VERIFY(t->cache->dirty, >, 0U);
    p->dirty = false;
    list_del(&p->dirty_link);
    list_add_tail(&t->cache->clean, &p->clock_link);
    thin_page_due_update(p);
    t->cache->dirty--;
    t->cache->cleaned++;
}

/* A leaf and its ancestors in both trees, one of them new, and a page of records. */
static uint64_t change_pages(const struct thin *t)
{
    return 3 + t->map.height + t->space_tree.height;
}

bool thin_has_meta_room(struct thin *t)
{
    return pool_meta_has_room(t->pool, change_pages(t)); /* else it asks for a checkpoint */
}

bool thin_may_change(struct thin *t)
{
    return pool_meta_may_change(t->pool, change_pages(t));
}

CO int thin_change_wait(struct thin *t)
{
    return pool_meta_is_exhausted(t->pool, change_pages(t)) ? VP_E_NO_SPACE
                                                            : pool_checkpoint(t->pool);
}

void thin_uncommitted_page(struct thin *t)
{
    t->uncommitted_pages++;
    pool_meta_dirty_add(t->pool, 1);
}

/* ---- back-pressure ------------------------------------------------------------------------- */

void thin_cache_checkpoint_begin(struct thin_cache *c, uint32_t number, uint64_t last_ns)
{
    if (c->checkpoint == number)
        return; /* another volume's turn */
    c->checkpoint = number;
    if (c->cleaned)
        c->page_ns = min_u64(last_ns / c->cleaned, PACE_PAGE_NS_MAX);
    c->cleaned = 0;
}

void thin_cache_checkpoint_failed(struct thin_cache *c, int rc)
{
    c->failures++;
    c->failure_rc = rc;
    co_queue_wake_all(&c->room);
}

static bool cache_is_full(const struct thin_cache *c)
{
    return c->dirty >= c->limit_pages / 4 * 3;
}

/* Waits until pages have become clean. */
static CO int room_wait(struct thin *t)
{
    struct thin_cache *c = t->cache;
    uint64_t failures = c->failures;
    int rc = pool_checkpoint_ask(t->pool);
    if (rc == VP_E_AGAIN) {
        vp_ignore(co_sleep_ns(ASK_AGAIN_NS), "it asks again");
        return 0;
    }
    if (rc)
        return rc;
    co_queue_wait(&c->room, "metadata memory");
    return c->failures != failures ? c->failure_rc : 0;
}

/* How long until this change's turn: not long, however many others have one before it, since room
 * may come any time, and the bound is cache_is_full. */
static uint64_t pace_take(struct thin_cache *c)
{
    size_t slow = c->limit_pages / 2, full = c->limit_pages / 4 * 3;
    if (c->dirty < slow || c->dirty >= full)
        return 0;
    uint64_t now = reactor_now_ns(), at = max_u64(now, c->pace_ns);
    uint64_t apart = c->page_ns * (c->dirty - slow) / (full - c->dirty);
    c->pace_ns = min_u64(at + min_u64(apart, c->page_ns * PACE_MAX), now + PACE_WAIT_NS_MAX);
    return at - now;
}

static CO int cache_throttle(struct thin *t)
{
    struct thin_cache *c = t->cache;
    hold_verify(RESOURCE_CHECKPOINT);
    uint64_t turn = pace_take(c);
    if (turn)
        vp_ignore(co_sleep_ns(turn), "a little early is no harm");
    int rc = 0;
    while (!rc && cache_is_full(c))
        rc = room_wait(t);
    return rc;
}

CO int thin_throttle_slow(struct thin *t)
{
    int rc = t->uncommitted_bytes >= THIN_COMMIT_BYTES_MAX ? thin_commit(t) : 0;
    if (!rc && t->cache->dirty >= t->cache->limit_pages / 2)
        rc = cache_throttle(t);
    return rc;
}

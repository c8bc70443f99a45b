/*
 * I/O buffers, cut from a region of address space by a buddy allocator.
 *
 * The region consists of slabs of 4 MiB, the largest buffer. A slab is opened when no open slab has
 * room. Opening it registers it with the ring, which pins its memory. So memory grows with use,
 * unless it was taken before (memory.c). Within a slab a free piece of 2^n pages merges with its
 * buddy. A few free pieces of each size stay unmerged in a stack in front of that, so that get and
 * put are a few instructions. They are merged when a caller finds no piece of its size.
 *
 * What is known about a piece is stored outside of the piece, under the number of its first page. A
 * caller that gets no buffer waits in line. Nobody overtakes, so large requests do not starve. One
 * thread. Tested in tests/unit/io/test_reactor.c.
 */
#include "io/region_impl.h"

#include "base/verify.h"
#include "io/buffer.h"
#include "io/memory_impl.h"
#include "io/reactor_impl.h"
#include "io/ring_impl.h"
#include "io/sanitize_impl.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE_SHIFT 12
#define ORDERS     11U /* 4 KiB … 4 MiB */
#define TOP        (ORDERS - 1)
#define SLAB_BYTES ((size_t)IO_BUFFER_MAX)
#define SLAB_PAGES (1U << TOP)
#define QUICK_MAX  32U
#define NONE       UINT32_MAX

_Static_assert((1U << (PAGE_SHIFT + TOP)) == IO_BUFFER_MAX, "orders cover the largest buffer");

const unsigned char io_zeros[1 << 20] __attribute__((aligned(4096)));

enum page_state { PAGE_INSIDE, PAGE_FREE, PAGE_QUICK, PAGE_USED };

/* Of the first page of a piece; PAGE_INSIDE for its other pages. */
struct page {
    uint32_t next, prev; /* in the list of free ones of this order */
    uint8_t order, state;
};

struct waiter {
    struct list link;
    struct co *co;
    unsigned order;
    void *buf;
};

struct region {
    unsigned char *base;
    size_t bytes;
    struct ring *ring;
    uint32_t slabs, slabs_open;
    struct page *page;
    bool *slab_fixed;
    bool *slab_stale; /* it was, and is to be registered again */
    uint32_t free_head[ORDERS];
    uint32_t quick[ORDERS][QUICK_MAX];
    unsigned quick_count[ORDERS];
    struct list waiters;
};

/* The last few regions of simulated reactors: making one costs more than a short simulation. */
#define CACHE_MAX 4U
static pthread_mutex_t cache_lock = PTHREAD_MUTEX_INITIALIZER;
static struct region *cached[CACHE_MAX];

/* ---- pieces -------------------------------------------------------------------------------- */

static void free_list_push(struct region *g, uint32_t at, unsigned order)
{
    uint32_t next = g->free_head[order];
    g->page[at] = (struct page){next, NONE, (uint8_t)order, PAGE_FREE};
    if (next != NONE)
        g->page[next].prev = at;
    g->free_head[order] = at;
}

static void free_list_remove(struct region *g, uint32_t at)
{
    struct page *p = &g->page[at];
    if (p->prev != NONE)
        g->page[p->prev].next = p->next;
    else
        g->free_head[p->order] = p->next;
    if (p->next != NONE)
        g->page[p->next].prev = p->prev;
    p->state = PAGE_INSIDE;
}

static void piece_merge(struct region *g, uint32_t at, unsigned order)
{
    g->page[at].state = PAGE_INSIDE;
    for (; order < TOP; order++) {
        uint32_t buddy = at ^ (1U << order);
        if (g->page[buddy].state != PAGE_FREE || g->page[buddy].order != order)
            break;
        free_list_remove(g, buddy);
        at &= ~(1U << order);
    }
    free_list_push(g, at, order);
}

static bool quick_merge_all(struct region *g)
{
    bool any = false;
    for (unsigned order = 0; order < ORDERS; order++)
        while (g->quick_count[order] > 0) {
            piece_merge(g, g->quick[order][--g->quick_count[order]], order);
            any = true;
        }
    return any;
}

/* How many stay unmerged: 2 MiB of a size at most, and at least two. */
static unsigned quick_limit(unsigned order)
{
    unsigned fit = (2U << 20) >> (PAGE_SHIFT + order);
    return fit > QUICK_MAX ? QUICK_MAX : fit < 2 ? 2 : fit;
}

static bool slab_open(struct region *g)
{
    if (g->slabs_open == g->slabs)
        return false;
    uint32_t slab = g->slabs_open++;
    memset(&g->page[slab * SLAB_PAGES], 0, SLAB_PAGES * sizeof(*g->page)); /* PAGE_INSIDE */
    if (g->ring) {
        void *base = g->base + slab * SLAB_BYTES;
        g->slab_fixed[slab] = ring_register_buffer(g->ring, slab, base, SLAB_BYTES);
    }
    free_list_push(g, slab * SLAB_PAGES, TOP);
    return true;
}

static bool piece_split_off(struct region *g, unsigned order, uint32_t *out)
{
    unsigned from = order;
    while (from < ORDERS && g->free_head[from] == NONE)
        from++;
    if (from == ORDERS)
        return false;
    uint32_t at = g->free_head[from];
    free_list_remove(g, at);
    while (from > order) {
        from--;
        free_list_push(g, at + (1U << from), from);
    }
    *out = at;
    return true;
}

static void *piece_get(struct region *g, unsigned order)
{
    uint32_t at;
    if (g->quick_count[order] > 0)
        at = g->quick[order][--g->quick_count[order]];
    else
        while (!piece_split_off(g, order, &at))
            if (!quick_merge_all(g) && !slab_open(g))
                return NULL;
    g->page[at].order = (uint8_t)order;
    g->page[at].state = PAGE_USED;
    void *buf = g->base + ((size_t)at << PAGE_SHIFT);
    san_unpoison(buf, (size_t)1 << (PAGE_SHIFT + order));
    return buf;
}

static void piece_put(struct region *g, uint32_t at, unsigned order, bool merge)
{
    san_poison(g->base + ((size_t)at << PAGE_SHIFT), (size_t)1 << (PAGE_SHIFT + order));
    if (merge || g->quick_count[order] >= quick_limit(order)) {
        piece_merge(g, at, order);
        return;
    }
    g->page[at].state = PAGE_QUICK;
    g->quick[order][g->quick_count[order]++] = at;
}

/* ---- regions ------------------------------------------------------------------------------- */

static void region_reset(struct region *g)
{
    memset(g->free_head, 0xff, sizeof(g->free_head));
    memset(g->quick_count, 0, sizeof(g->quick_count));
    san_unpoison(g->base, (size_t)g->slabs_open * SLAB_BYTES);
    g->slabs_open = 0;
    list_init(&g->waiters);
}

static struct region *region_take_cached(size_t bytes)
{
    struct region *g = NULL;
    pthread_mutex_lock(&cache_lock);
    for (unsigned i = 0; i < CACHE_MAX && !g; i++)
        if (cached[i] && cached[i]->bytes == bytes) {
            g = cached[i];
            cached[i] = NULL;
        }
    pthread_mutex_unlock(&cache_lock);
    return g;
}

static bool region_keep(struct region *g)
{
    bool kept = false;
    pthread_mutex_lock(&cache_lock);
    for (unsigned i = 0; i < CACHE_MAX && !kept; i++)
        if (!cached[i]) {
            cached[i] = g;
            kept = true;
        }
    pthread_mutex_unlock(&cache_lock);
    return kept;
}

struct region *region_new(size_t bytes, struct ring *ring)
{
    bytes = (bytes + SLAB_BYTES - 1) / SLAB_BYTES * SLAB_BYTES;
    struct region *g = ring ? NULL : region_take_cached(bytes);
    if (g)
        return g;
    g = calloc(1, sizeof(*g));
    if (!g)
        return NULL;
    g->bytes = bytes;
    g->ring = ring;
    g->slabs = (uint32_t)(bytes / SLAB_BYTES);
    g->page = calloc((size_t)g->slabs * SLAB_PAGES, sizeof(*g->page));
    g->slab_fixed = calloc(2 * (size_t)g->slabs, sizeof(*g->slab_fixed));
    g->slab_stale = g->slab_fixed ? g->slab_fixed + g->slabs : NULL;
    /* Aligned to a slab, and asking for huge pages: pinning a slab then takes two of them. */
    unsigned char *map = mmap(NULL, bytes + SLAB_BYTES, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED || !g->page || !g->slab_fixed) {
        if (map != MAP_FAILED)
            (void)munmap(map, bytes + SLAB_BYTES);
        region_free(g, false);
        return NULL;
    }
    size_t skip = (SLAB_BYTES - (uintptr_t)map % SLAB_BYTES) % SLAB_BYTES;
    g->base = map + skip;
    if (skip > 0)
        (void)munmap(map, skip);
    (void)munmap(g->base + bytes, SLAB_BYTES - skip);
    if (ring)
        (void)madvise(g->base, bytes, MADV_HUGEPAGE);
    region_reset(g);
    return g;
}

void region_free(struct region *g, bool cache)
{
    if (!g)
        return;
    if (g->base)
        region_reset(g);
    if (cache && g->base && region_keep(g))
        return;
    if (g->base)
        (void)munmap(g->base, g->bytes);
    free(g->page);
    free(g->slab_fixed);
    free(g);
}

bool region_take_slab(struct region *g)
{
    if (!slab_open(g))
        return false;
    uint32_t slab = g->slabs_open - 1;
    if (!g->slab_fixed[slab])
        vp_ignore(io_fault_in(g->base + slab * SLAB_BYTES, SLAB_BYTES),
                  "memory that is not there now is taken when it is used");
    return true;
}

void region_pages_changed(struct region *g, const void *buf, size_t len)
{
    size_t at = g ? (size_t)((uintptr_t)buf - (uintptr_t)g->base) : 0;
    if (!g || at >= g->bytes || !len)
        return;
    for (size_t slab = at / SLAB_BYTES; slab <= (at + len - 1) / SLAB_BYTES; slab++) {
        g->slab_stale[slab] |= g->slab_fixed[slab];
        g->slab_fixed[slab] = false;
    }
}

void region_register_again(struct region *g)
{
    for (uint32_t slab = 0; g && slab < g->slabs_open; slab++) {
        if (!g->slab_stale[slab])
            continue;
        g->slab_stale[slab] = false;
        g->slab_fixed[slab] =
            ring_register_buffer(g->ring, slab, g->base + slab * SLAB_BYTES, SLAB_BYTES);
    }
}

int region_fixed_index(const struct region *g, const void *buf, size_t len)
{
    if (!g)
        return -1;
    size_t at = (size_t)((uintptr_t)buf - (uintptr_t)g->base);
    if (at >= g->bytes)
        return -1;
    size_t slab = at / SLAB_BYTES;
    if (!g->slab_fixed[slab] || at % SLAB_BYTES + len > SLAB_BYTES)
        return -1;
    return (int)slab;
}

/* ---- buffer.h ------------------------------------------------------------------------------ */

static unsigned order_of(size_t len)
{
    VP_VERIFY(len, <=, (size_t)IO_BUFFER_MAX);
    return len <= 4096 ? 0 : 32U - (unsigned)__builtin_clz((unsigned)(len - 1) >> PAGE_SHIFT);
}

struct region *reactor_region(struct reactor *r)
{
    VP_VERIFY(r, !=, NULL);
    if (!r->region) {
        r->region = region_new(r->config.buffer_bytes, r->ring);
        VP_VERIFY(r->region, !=, NULL);
    }
    return r->region;
}

void *io_buffer_try(size_t len)
{
    struct reactor *r = reactor_current;
    struct region *g = reactor_region(r);
    unsigned order = order_of(len);
    void *buf = list_empty(&g->waiters) ? piece_get(g, order) : NULL;
    if (buf)
        figure_add(&r->figures.buffer_bytes_used, (uint64_t)1 << (PAGE_SHIFT + order));
    return buf;
}

CO void *io_buffer_get(size_t len)
{
    void *buf = io_buffer_try(len);
    if (buf)
        return buf;
    struct waiter w = {.co = co_self(), .order = order_of(len)};
    list_add_tail(&reactor_current->region->waiters, &w.link);
    co_suspend("buffer");
    return w.buf;
}

size_t io_buffer_total(void)
{
    return reactor_current->config.buffer_bytes;
}

/* Hands what is free to those in line, as far as it goes. */
static void serve_waiters(struct reactor *r, struct region *g)
{
    while (!list_empty(&g->waiters)) {
        struct waiter *w = list_first(&g->waiters, struct waiter, link);
        w->buf = piece_get(g, w->order);
        if (!w->buf)
            return;
        figure_add(&r->figures.buffer_bytes_used, (uint64_t)1 << (PAGE_SHIFT + w->order));
        list_del(&w->link);
        co_wake(w->co);
    }
}

void io_buffer_put(void *buf, size_t len)
{
    struct reactor *r = reactor_current;
    struct region *g = reactor_region(r);
    unsigned order = order_of(len);
    size_t at = (size_t)((uintptr_t)buf - (uintptr_t)g->base);
    VP_VERIFY(at, <, g->bytes);
    struct page *p = &g->page[at >> PAGE_SHIFT];
    VP_VERIFY_TRUE(p->state == PAGE_USED);
    VP_VERIFY(p->order, ==, order);
    figure_sub(&r->figures.buffer_bytes_used, (uint64_t)1 << (PAGE_SHIFT + order));
    piece_put(g, (uint32_t)(at >> PAGE_SHIFT), order, !list_empty(&g->waiters));
    serve_waiters(r, g);
}

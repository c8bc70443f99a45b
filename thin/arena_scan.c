/*
 * Finding leased arenas with room that are not in memory: after an import, and when more than
 * THIN_SPARES_MAX had room. Their numbers come from the pool in windows, ascending. They are walked
 * lazily, a few leaves of the space tree at a time, when a write needs room. So opening a volume
 * costs nothing for it, memory does not grow with the volume, and an arena that was leased just
 * before a crash and never used is found too.
 *
 * The volume may lease or return arenas while a scan is under way. A window that is fetched later
 * has the leased ones and lacks the returned ones. Arenas that are known to be leased are passed
 * over.
 */
#include <stdlib.h>

#include "thin/thin_impl.h"

enum {
    WINDOW = 256, /* numbers fetched at once: half of what a leaf of the space tree holds */
    ARENAS_A_TURN = 256,
};
#define SCAN_FORGOTTEN (UINT64_C(1) << 63) /* in the window, which is in ascending order */

/* Home: fetches the next window. */
static CO int window_fetch(void *arg)
{
    struct thin *t = arg;
    struct thin_space *s = &t->space;
    s->scan_at = 0;
    s->scan_count = pool_arena_list(t->pool, t->id, &s->scan_from, s->scan, WINDOW);
    return 0;
}

static bool window_is_done(const struct thin_space *s)
{
    return s->scan_at == s->scan_count;
}

/* A window that is not full was the last one. */
static bool scan_is_over(const struct thin_space *s)
{
    return window_is_done(s) && s->scan_count < WINDOW;
}

/* The next arena of the window, when it has room and is not known. `*loaded`: its leaf had to be
 * loaded. */
static CO int scan_next(struct thin *t, bool *loaded, struct thin_arena **found)
{
    struct thin_space *s = &t->space;
    uint64_t number = s->scan[s->scan_at++];
    struct pool_arena at;
    if (number & SCAN_FORGOTTEN || thin_arena_find(t, number) ||
        !pool_arena_find(t->pool, number, &at))
        return 0;
    struct thin_page *leaf;
    *loaded = !thin_tree_peek(&t->space_tree, number);
    int rc = thin_tree_get(&t->space_tree, number, false, &leaf);
    if (rc)
        return rc;
    uint64_t used = 0;
    if (leaf) {
        const struct thin_space_entry_disk *e = (const void *)thin_leaf_entry(leaf, number);
        used = le64_get(e->used);
        thin_page_unpin(leaf);
    }
    if (thin_arena_find(t, number)) /* a chunk was freed there meanwhile */
        return 0;
    struct thin_arena *a;
    rc = thin_arena_add(t, &at, used, &a);
    if (rc)
        return rc;
    if (thin_arena_free_mask(a))
        *found = a;
    else
        thin_arena_settle(t, a);
    return 0;
}

static CO int scan_begin(struct thin *t)
{
    struct thin_space *s = &t->space;
    thin_quiesce(t); /* a lease that is not durable yet must not be found */
    s->scan = malloc(WINDOW * sizeof(*s->scan));
    if (!s->scan)
        return VP_E_NO_MEMORY;
    s->scan_needed = false; /* what is forgotten from now on needs another one */
    s->scan_from = 0;
    s->scan_at = s->scan_count = WINDOW;
    return 0;
}

CO int thin_space_scan(struct thin *t, unsigned budget, struct thin_arena **found)
{
    struct thin_space *s = &t->space;
    *found = NULL;
    int rc = s->scan_needed && !s->scan ? scan_begin(t) : 0;
    if (rc || !s->scan)
        return rc;
    unsigned leaves = 0, looked_at = 0;
    while (!scan_is_over(s) && leaves < budget && !*found) {
        bool loaded = false, fetch = window_is_done(s);
        rc = fetch ? reactor_call(pool_home(t->pool), window_fetch, t)
                   : scan_next(t, &loaded, found);
        s->scan_at -= rc == VP_E_NO_MEMORY && !fetch; /* it is looked at again, not lost */
        if (rc)
            return rc;
        leaves += loaded;
        if (++looked_at % ARENAS_A_TURN == 0)
            co_yield (); /* the leaves may all be in memory */
    }
    if (scan_is_over(s)) {
        free(s->scan);
        s->scan = NULL;
    }
    return 0;
}

void thin_space_scan_forget(struct thin *t, uint64_t number)
{
    struct thin_space *s = &t->space;
    if (!s->scan)
        return;
    size_t low = s->scan_at, high = s->scan_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if ((s->scan[middle] & ~SCAN_FORGOTTEN) < number)
            low = middle + 1;
        else
            high = middle;
    }
    if (low < s->scan_count && s->scan[low] == number)
        s->scan[low] |= SCAN_FORGOTTEN;
}

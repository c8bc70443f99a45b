/*
 * Finding leased arenas with room that are not in memory: after an import, and when more than
 * THIN_SPARES_MAX had room. The list of leased arenas comes from the pool and is walked lazily, a
 * few leaves of the space tree at a time, when a write needs room; so opening a volume costs
 * nothing for it, and an arena that was leased just before a crash and never used is found too. The
 * list takes 8 bytes an arena (2 bytes for each MiB of the volume) until it is walked through.
 */
#include <stdlib.h>

#include "thin/thin_impl.h"

enum { ARENAS_A_TURN = 256 };
#define SCAN_FORGOTTEN (UINT64_C(1) << 63) /* in the list, which is in ascending order */

/* Home: fetches the numbers of all leased arenas. */
static CO int scan_fetch(void *arg)
{
    struct thin *t = arg;
    struct thin_space *s = &t->space;
    size_t n = pool_arena_count(t->pool, t->id);
    uint64_t *numbers = malloc((n ? n : 1) * sizeof(*numbers));
    if (!numbers)
        return VP_E_NO_MEMORY;
    s->scan_left = pool_arena_list(t->pool, t->id, numbers, n);
    s->scan = numbers;
    return 0;
}

/* The next arena of the list, when it has room and is not known. `*loaded`: its leaf had to be. */
static CO int scan_next(struct thin *t, bool *loaded, struct thin_arena **found)
{
    struct thin_space *s = &t->space;
    uint64_t number = s->scan[--s->scan_left];
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
    thin_quiesce(t);        /* a lease that is not durable yet must not be found */
    s->scan_needed = false; /* what is forgotten from now on needs another one */
    int rc = reactor_call(pool_home(t->pool), scan_fetch, t);
    s->scan_needed |= rc != 0;
    return rc;
}

CO int thin_space_scan(struct thin *t, unsigned budget, struct thin_arena **found)
{
    struct thin_space *s = &t->space;
    *found = NULL;
    int rc = s->scan_needed && !s->scan ? scan_begin(t) : 0;
    if (rc)
        return rc;
    unsigned leaves = 0, looked_at = 0;
    while (s->scan_left && leaves < budget && !*found) {
        bool loaded = false;
        rc = scan_next(t, &loaded, found);
        s->scan_left += rc == VP_E_NO_MEMORY; /* it is looked at again, not lost */
        if (rc)
            return rc;
        leaves += loaded;
        if (++looked_at % ARENAS_A_TURN == 0)
            co_yield (); /* the leaves may all be in memory */
    }
    if (!s->scan_left) {
        free(s->scan);
        s->scan = NULL;
    }
    return 0;
}

void thin_space_scan_forget(struct thin *t, uint64_t number)
{
    uint64_t *scan = t->space.scan;
    size_t low = 0, high = t->space.scan_left;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if ((scan[middle] & ~SCAN_FORGOTTEN) < number)
            low = middle + 1;
        else
            high = middle;
    }
    if (low < t->space.scan_left && scan[low] == number)
        scan[low] |= SCAN_FORGOTTEN;
}

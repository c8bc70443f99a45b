/*
 * Scrubbing: every copy of a volume's blocks is compared with their checksums (raid/scrub.c), chunk
 * by chunk (pass.c).
 *
 * A block in a region that a crash left behind has no checksum that counts before it is adopted:
 * the pass does that first.
 *
 * The pages of the trees are scrubbed by the pool (pool/scrub.c). A walk gives it their references,
 * leaf by leaf, with those of the pages above.
 */
#include "thin/thin_impl.h"

#include <assert.h>
#include <string.h>

static_assert(THIN_LEVELS_MAX == THIN_WALK_LEVELS, "a walk knows all levels");

struct scrub {
    struct thin_pass pass;
    struct thin_scrub *out;
};

static bool wants(const struct thin_pass *p, const struct raid_group *g)
{
    (void)p;
    (void)g;
    return true;
}

static void found(const struct raid_finding *f, void *arg)
{
    const struct scrub *s = arg;
    s->out->found(s->pass.block[f->piece] + f->block, f, s->out->arg);
}

static CO int window_scrub(struct thin_pass *p)
{
    struct scrub *s = container_of(p, struct scrub, pass);
    struct raid_scrub scrub = {.found = found, .arg = s};
    raid_scrub(&scrub, p->io, p->pieces);
    s->out->compared_bytes += scrub.compared_bytes;
    s->out->missing_bytes += scrub.missing_bytes;
    return 0;
}

CO int thin_scrub(struct thin *t, uint64_t block, uint64_t count, struct thin_scrub *out)
{
    struct scrub s = {.pass = {.t = t, .wants = wants, .run = window_scrub}, .out = out};
    return thin_pass(&s.pass, block, count);
}

/* ---- pages of trees -------------------------------------------------------------------------- */

static struct thin_tree *walk_tree(struct thin *t, const struct thin_page_walk *w)
{
    return w->tree == 0 ? &t->map : w->tree == 1 ? &t->space_tree : NULL;
}

CO int thin_page_walk_next(struct thin *t, struct thin_page_walk *w)
{
    struct thin_tree *tree;
    w->leaf = NULL;
    while ((tree = walk_tree(t, w))) {
        int rc = thin_tree_seek(tree, &w->key, THIN_KEY_MAX, &w->leaf);
        if (rc || w->leaf)
            return rc;
        w->tree++;
        w->key = 0;
        memset(w->told, 0, sizeof(w->told));
    }
    return 0;
}

unsigned thin_page_walk_take(struct thin_page_walk *w, struct pool_page_ref *ref)
{
    const struct thin_tree *tree = w->leaf->tree;
    unsigned n = 0;
    for (const struct thin_page *p = w->leaf; p && w->told[p->level] != p->index + 1;
         p = p->parent) {
        ref[n] = p->parent ? thin_ref_get(thin_page_slot(p->parent, p->slot)) : tree->root_ref;
        n += ref[n].addr != 0; /* else no checkpoint has written it yet */
        w->told[p->level] = p->index + 1;
    }
    w->key = thin_leaf_first(w->leaf) + tree->leaf_entries;
    thin_page_unpin(w->leaf);
    w->leaf = NULL;
    return n;
}

/* See pool_audit.h. */
#include "tests/lib/pool_audit.h"

#include "pool/disk_impl.h"

/* What the walk finds. */
struct walk {
    struct pool *p;
    unsigned open, empty;
    struct pool_group_figures figures;
    uint64_t leased, owned; /* arenas */
    const char *wrong;
};

static void walk_check(struct walk *w, bool right, const char *wrong)
{
    if (!right && !w->wrong)
        w->wrong = wrong;
}

static void walk_group(struct walk *w, const struct pool_group *g)
{
    uint32_t leased = 0, held = 0;
    for (uint32_t a = 0; a < g->arenas; a++) {
        leased += g->arena_owner[a] != 0;
        held += bitmap_test(g->held_map, a);
        walk_check(w, !g->arena_owner[a] || pool_owner_find(w->p, g->arena_owner[a]),
                   "an arena's owner is not known");
    }
    walk_check(w, leased == g->arenas_leased, "a group's count of leased arenas");
    walk_check(w, held == g->arenas_held, "a group's count of held arenas");
    bool open = leased + held < g->arenas && raid_group_is_in_service(g->raid);
    uint64_t arena_bytes = (uint64_t)g->arena_chunks * w->p->geometry.chunk_bytes;
    uint64_t usable = open ? (g->arenas - leased - held) * arena_bytes : 0;
    w->open += open;
    w->empty += pool_group_is_empty(g);
    w->leased += leased;
    w->figures.leased_bytes += leased * arena_bytes;
    w->figures.open_bytes += usable / g->raid->profile.data * g->raid->width;
    if (raid_profile_equal(g->raid->profile, w->p->default_profile))
        w->figures.writable_bytes += usable;
    walk_check(w, open == !list_empty(&g->open_link), "whether a group is open");
    walk_check(w, pool_group_is_empty(g) == !list_empty(&g->empty_link),
               "whether a group is empty");
}

static void walk_open_groups(struct walk *w)
{
    const struct pool_open_groups *k;
    const struct pool_group *g;
    list_for_each (k, &w->p->space->kinds, link) {
        unsigned count = 0;
        for (unsigned i = 0; i < w->p->disk_count; i++)
            list_for_each (g, &k->disk[i], open_link) {
                walk_check(w, g->kin == k && g->disk[0] == &w->p->disk[i],
                           "an open group is in another's list");
                count++;
            }
        walk_check(w, count == k->count, "the count of a profile's open groups");
        w->open -= count;
    }
    walk_check(w, w->open == 0, "the lists of open groups");
}

static void walk_owner(struct hash_node *n, void *arg)
{
    struct walk *w = arg;
    const struct pool_owner *o = container_of(n, struct pool_owner, node);
    const struct pool_group *g;
    uint64_t found = 0;
    list_for_each (g, &w->p->groups, link)
        for (uint32_t a = 0; a < g->arenas; a++) {
            if (!g->arena_owner[a] || pool_owner_find(w->p, g->arena_owner[a]) != o)
                continue;
            found++;
            walk_check(w, g->first_slot >= o->first_slot && g->first_slot <= o->last_slot,
                       "the slots between which an owner's arenas lie");
        }
    walk_check(w, found == o->arenas, "the count of an owner's arenas");
    w->owned += o->arenas;
}

static void walk_disks(struct walk *w)
{
    uint64_t used = 0;
    struct pool_space s;
    pool_space_get(w->p, &s);
    for (unsigned i = 0; i < w->p->disk_count; i++) {
        const struct pool_disk *d = &w->p->disk[i];
        walk_check(w, bitmap_count(d->extent_map, d->extents_total) == d->extents_used,
                   "the count of a disk's used extents");
        used += atomic_load(&d->io.in_service) ? d->extents_used : 0;
    }
    walk_check(w, used * w->p->geometry.extent_bytes == s.data_bytes + s.metadata_bytes,
               "bytes of data and metadata");
    walk_check(w, s.total_bytes == s.data_bytes + s.metadata_bytes + s.free_bytes, "bytes in all");
    walk_check(w, s.reserved_bytes <= s.free_bytes, "reserved bytes");
}

const char *pool_audit(struct pool *p)
{
    struct walk w = {.p = p};
    const struct pool_group *g;
    list_for_each (g, &p->groups, link)
        walk_group(&w, g);
    list_for_each (g, &p->space->empty, empty_link)
        w.empty--;
    walk_check(&w, w.empty == 0, "the list of empty groups");
    walk_check(&w, list_empty(&p->space->due), "a group is due and was not recorded");
    walk_open_groups(&w);
    hash_for_each(&p->space->owners, walk_owner, &w);
    walk_check(&w, w.owned == w.leased, "the sum of all owners' arenas");
    const struct pool_group_figures *f = &p->space->figures;
    walk_check(&w, f->leased_bytes == w.figures.leased_bytes, "leased bytes");
    walk_check(&w, f->open_bytes == w.figures.open_bytes, "open bytes");
    walk_check(&w, f->writable_bytes == w.figures.writable_bytes, "writable bytes");
    walk_disks(&w);
    return w.wrong;
}

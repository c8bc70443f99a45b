/*
 * Space of a volume: which chunks of its leased arenas are in use.
 *
 * The space tree (arena → bitmap) holds the truth. The arenas that matter now are in memory:
 *
 *  - up to eight *open* arenas on different disks. They give chunks in turn, so that successive
 *    chunks are on successive disks;
 *  - *spares* with room;
 *  - arenas with chunks in *quarantine*: the chunks were freed, but the commit that says so is not
 *    durable yet, or the devices are still being told (GUARD_FREE_BEFORE_REUSE).
 *
 *     used ──free──▶ freed ──commit begins──▶ committing ──durable──▶ discarding ──▶ free
 *                      ◀──────────── commit failed ──────┘
 *
 * An open slot that is used up is filled from the spares, from leased arenas that were not looked
 * at since the volume was opened (arena_scan.c), or by a new lease, in this order. All of this
 * waits, and runs under space->lock. Taking a chunk does neither.
 */
#include <stdlib.h>
#include <string.h>

#include "io/guard.h"
#include "thin/thin_impl.h"

enum {
    SCAN_LEAVES = 4,      /* of the space tree, looked through before a new arena is leased */
    RETURN_BATCH = 32,    /* arenas given back at once                                      */
    QUARANTINE_TURN = 64, /* arenas whose quarantine ends before others get their turn   */
};

/* Arenas that are to be there before they are needed: one for each open slot, unless others may
 * need the room more. */
static size_t spares_wanted(const struct thin *t)
{
    return pool_level(t->pool) == POOL_OK ? t->space.width : 0;
}

static CO void quarantine_end(struct thin *t);

uint64_t thin_arena_free_mask(const struct thin_arena *a)
{
    uint64_t all = a->at.chunks >= 64 ? UINT64_MAX : (UINT64_C(1) << a->at.chunks) - 1;
    return all & ~(a->used | a->freed | a->committing | a->discarding);
}

static bool arena_has_quarantine(const struct thin_arena *a)
{
    return a->freed || a->committing || a->discarding;
}

struct thin_arena *thin_arena_find(struct thin *t, uint64_t number)
{
    struct hash_node *n = hash_find(&t->space.arenas, number);
    return n ? container_of(n, struct thin_arena, node) : NULL;
}

int thin_arena_add(struct thin *t, const struct pool_arena *at, uint64_t used,
                   struct thin_arena **out)
{
    struct thin_arena *a = calloc(1, sizeof(*a));
    if (!a)
        return VP_E_NO_MEMORY;
    a->at = *at;
    a->used = used;
    a->state = THIN_ARENA_IDLE;
    list_init(&a->link);
    list_init(&a->freed_link);
    list_init(&a->discard_link);
    hash_add(&t->space.arenas, &a->node, at->number);
    *out = a;
    return 0;
}

static void arena_forget(struct thin *t, struct thin_arena *a)
{
    if (a->state == THIN_ARENA_SPARE) {
        VP_VERIFY(t->space.spares, >, 0U);
        t->space.spares--;
    }
    if (a->leaf)
        thin_page_unpin(a->leaf);
    list_del(&a->link);
    list_del(&a->freed_link);
    list_del(&a->discard_link);
    hash_del(&t->space.arenas, &a->node);
    free(a);
}

void thin_arena_settle(struct thin *t, struct thin_arena *a)
{
    struct thin_space *s = &t->space;
    if (a->state == THIN_ARENA_OPEN)
        return;
    bool roomy = thin_arena_free_mask(a) != 0;
    if (roomy && a->state == THIN_ARENA_IDLE && s->spares < THIN_SPARES_MAX) {
        a->state = THIN_ARENA_SPARE;
        list_add_tail(&s->spare, &a->link);
        s->spares++;
    }
    if (a->state == THIN_ARENA_IDLE && !arena_has_quarantine(a)) {
        s->scan_needed |= roomy;
        arena_forget(t, a);
    }
}

static void hash_arena_free(struct hash_node *n, void *arg)
{
    arena_forget(arg, container_of(n, struct thin_arena, node));
}

int thin_space_init(struct thin *t)
{
    struct thin_space *s = &t->space;
    unsigned disks;
    (void)pool_disks(t->pool, &disks);
    unsigned width = disks / raid_profile_width(t->config.profile);
    s->width = width < 1 ? 1 : width > THIN_OPEN_ARENAS ? THIN_OPEN_ARENAS : width;
    s->spread = t->id; /* volumes begin on different disks */
    list_init(&s->spare);
    list_init(&s->freed);
    list_init(&s->discarding);
    co_mutex_init(&s->lock);
    co_queue_init(&s->leased_ahead);
    return hash_init(&s->arenas, 16) ? 0 : VP_E_NO_MEMORY;
}

void thin_space_fini(struct thin *t)
{
    if (!t->space.arenas.bucket)
        return;
    hash_for_each(&t->space.arenas, hash_arena_free, t);
    hash_fini(&t->space.arenas);
    free(t->space.scan);
}

/* ---- allocation ---------------------------------------------------------------------------- */

static void arena_set_used(struct thin_page *leaf, uint64_t number, uint64_t used)
{
    struct thin_space_entry_disk *e = (void *)thin_leaf_entry(leaf, number);
    e->used = le64_make(used);
    thin_leaf_changed(leaf, number, false);
}

bool thin_space_take(struct thin *t, struct pchunk *out)
{
    struct thin_space *s = &t->space;
    for (unsigned i = 0; i < (s->tight ? s->width : 1); i++) {
        unsigned slot = (s->next + i) % s->width;
        struct thin_arena *a = s->open[slot];
        uint64_t room = a ? thin_arena_free_mask(a) : 0;
        if (!room)
            continue;
        unsigned index = (unsigned)__builtin_ctzll(room);
        a->used |= UINT64_C(1) << index;
        arena_set_used(a->leaf, a->at.number, a->used);
        *out = pchunk_make(a->at.number, index);
        s->next = (slot + 1) % s->width;
        return true;
    }
    return false;
}

int thin_space_free(struct thin *t, struct thin_page *leaf, struct pchunk c)
{
    struct thin_space *s = &t->space;
    uint64_t number = pchunk_arena(c), bit = UINT64_C(1) << pchunk_index(c);
    const struct thin_space_entry_disk *e = (const void *)thin_leaf_entry(leaf, number);
    struct thin_arena *a = thin_arena_find(t, number);
    struct pool_arena at;
    if (!(le64_get(e->used) & bit) || !pool_arena_find(t->pool, number, &at))
        return VP_E_MAP_BAD;
    int rc = a ? 0 : thin_arena_add(t, &at, le64_get(e->used), &a);
    if (rc)
        return rc;
    a->used &= ~bit;
    arena_set_used(leaf, number, a->used);
    if (io_guard_on(GUARD_FREE_BEFORE_REUSE)) {
        a->freed |= bit;
        s->quarantined++;
        if (list_empty(&a->freed_link))
            list_add_tail(&s->freed, &a->freed_link);
    }
    thin_arena_settle(t, a);
    return 0;
}

/* ---- finding room -------------------------------------------------------------------------- */

static CO int arena_lease(struct thin *t, struct thin_arena **out)
{
    struct thin_space *s = &t->space;
    struct pool_arena at;
    int rc = pool_arena_lease(t->pool, t->id, t->config.profile, s->spread, &at);
    if (rc)
        return rc;
    s->spread++;
    figure_add(&t->figures.leased_arenas, 1);
    rc = thin_arena_add(t, &at, 0, out);
    s->scan_needed |= rc != 0;
    return rc;
}

/* A spare, one found by a scan, or a new lease. Under space->lock. */
static CO int arena_find_room(struct thin *t, struct thin_arena **out)
{
    struct thin_space *s = &t->space;
    *out = NULL;
    if (!list_empty(&s->spare)) {
        *out = container_of(list_pop(&s->spare), struct thin_arena, link);
        (*out)->state = THIN_ARENA_IDLE;
        s->spares--;
        return 0;
    }
    int rc = thin_space_scan(t, SCAN_LEAVES, out);
    if (rc || *out)
        return rc;
    rc = arena_lease(t, out);
    if (rc != VP_E_NO_SPACE)
        return rc;
    rc = thin_space_scan(t, UINT32_MAX, out);
    if (rc || *out)
        return rc;
    return list_empty(&s->spare) ? VP_E_NO_SPACE : VP_E_AGAIN;
}

/* ---- leasing ahead ------------------------------------------------------------------------- */

/* A lease waits for the log. So that writes do not, the next ones are taken while there is room in
 * the open arenas, unless the pool is short of room. Others allocate, free and scan meanwhile. */
static CO void lease_ahead(struct thin *t)
{
    struct thin_space *s = &t->space;
    struct pool_arena at[THIN_OPEN_ARENAS];
    size_t spares = spares_wanted(t);
    if (s->spares >= spares)
        return; /* something was freed meanwhile */
    unsigned wanted = (unsigned)(spares - s->spares), got = 0;
    int rc = pool_arena_lease_ahead(t->pool, t->id, t->config.profile, s->spread, at, wanted, &got);
    vp_ignore(rc, "nobody needs them yet; who does will see the error");
    for (unsigned i = 0; i < got; i++) {
        struct thin_arena *a;
        s->spread++;
        figure_add(&t->figures.leased_arenas, 1);
        if (thin_arena_find(t, at[i].number))
            continue; /* scans wait for us, so a damaged map has named it */
        if (thin_arena_add(t, &at[i], 0, &a))
            s->scan_needed = true; /* it is found when it is needed */
        else
            thin_arena_settle(t, a);
    }
}

static CO void lease_ahead_main(void *arg)
{
    struct thin *t = arg;
    lease_ahead(t);
    t->space.leasing_ahead = false;
    co_queue_wake_all(&t->space.leased_ahead);
}

static void lease_ahead_start(struct thin *t)
{
    struct thin_space *s = &t->space;
    if (s->leasing_ahead || s->scan_needed || s->scan || s->spares >= spares_wanted(t))
        return;
    s->leasing_ahead = co_spawn(lease_ahead_main, t, "thin: leases ahead") == 0;
}

CO void thin_quiesce(struct thin *t)
{
    while (t->space.leasing_ahead)
        co_queue_wait(&t->space.leased_ahead, "leases ahead");
}

/* ---- open slots ---------------------------------------------------------------------------- */

static void slot_empty(struct thin *t, unsigned slot)
{
    struct thin_arena *a = t->space.open[slot];
    if (!a)
        return;
    t->space.open[slot] = NULL;
    thin_page_unpin(a->leaf);
    a->leaf = NULL;
    a->state = THIN_ARENA_IDLE;
    thin_arena_settle(t, a);
}

/* Puts an arena with room into the slot, whose own is used up. */
static CO int slot_fill(struct thin *t, unsigned slot)
{
    struct thin_space *s = &t->space;
    struct thin_arena *a;
    slot_empty(t, slot);
    int rc;
    do
        rc = arena_find_room(t, &a);
    while (rc == VP_E_AGAIN);
    if (rc)
        return rc;
    a->state = THIN_ARENA_OPEN; /* while we wait it is ours: nothing else settles it */
    struct thin_page *leaf;
    rc = thin_tree_get(&t->space_tree, a->at.number, true, &leaf);
    if (rc) {
        a->state = THIN_ARENA_IDLE;
        thin_arena_settle(t, a);
        return rc;
    }
    const struct thin_space_entry_disk *e = (const void *)thin_leaf_entry(leaf, a->at.number);
    a->leaf = leaf;
    a->used |= le64_get(e->used); /* equal, unless the tree was damaged: then rather less room */
    s->open[slot] = a;
    lease_ahead_start(t);
    return 0;
}

static bool space_has_room(const struct thin_space *s)
{
    for (unsigned i = 0; i < s->width; i++)
        if (s->open[i] && thin_arena_free_mask(s->open[i]))
            return true;
    return false;
}

/* Gives the slot whose turn it is an arena with room; when there is none, any slot will do. */
static CO int space_fill(struct thin *t)
{
    struct thin_space *s = &t->space;
    co_mutex_lock(&s->lock);
    const struct thin_arena *a = s->open[s->next];
    int rc = a && thin_arena_free_mask(a) ? 0 : slot_fill(t, s->next);
    s->tight = rc == VP_E_NO_SPACE;
    if (s->tight && space_has_room(s))
        rc = 0;
    co_mutex_unlock(&s->lock);
    return rc;
}

/* Chunks that were freed become usable by a commit, and when the devices have been told. The
 * tidying of another commit may have been past its quarantine already when ours became durable. */
static CO int quarantine_end_now(struct thin *t)
{
    int rc = t->space.quarantined ? thin_commit(t) : 0;
    if (rc || !t->space.quarantined)
        return rc;
    while (t->tidying)
        co_queue_wait(&t->commit_queue, "freed chunks");
    t->tidying = true;
    quarantine_end(t);
    t->tidying = false;
    co_queue_wake_all(&t->commit_queue);
    return 0;
}

/* Chunks that were freed become usable by a commit, and when the devices have been told. Others may
 * take those that this one waited for, and free more meanwhile: as long as there are any, there is
 * no reason to give up. */
CO int thin_space_refill(struct thin *t)
{
    int rc = space_fill(t);
    while (rc == VP_E_NO_SPACE && t->space.quarantined) {
        rc = quarantine_end_now(t);
        rc = rc ? rc : space_fill(t);
    }
    return rc;
}

/* ---- life ---------------------------------------------------------------------------------- */

static int space_count_leased(void *arg)
{
    struct thin *t = arg;
    figure_put(&t->figures.leased_arenas, pool_arena_count(t->pool, t->id));
    return 0;
}

/* A reserve of terabytes is some hundred thousand arenas. A scan finds them when they are
 * needed. */
static CO int reserve_lease(struct thin *t)
{
    struct thin_space *s = &t->space;
    int rc = 0;
    uint64_t has;
    while (!rc && (has = figure_get(&t->figures.leased_arenas)) < s->leased_min) {
        unsigned got, wanted = (unsigned)min_u64(s->leased_min - has, POOL_LEASE_MANY);
        rc = pool_arena_lease_many(t->pool, t->id, t->config.profile, s->spread, wanted, &got);
        figure_add(&t->figures.leased_arenas, got);
        s->spread += got;
        s->scan_needed |= got > 0;
    }
    return rc;
}

CO int thin_space_open(struct thin *t, bool fresh)
{
    struct thin_space *s = &t->space;
    if (!fresh) {
        int rc = reactor_call(pool_home(t->pool), space_count_leased, t);
        if (rc)
            return rc;
        s->scan_needed = figure_get(&t->figures.leased_arenas) != 0;
    }
    s->leased_min = div_up(t->config.reserve_bytes, pool_arena_bytes(t->pool, t->config.profile));
    return reserve_lease(t);
}

/* ---- quarantine ---------------------------------------------------------------------------- */

void thin_space_commit_begin(struct thin *t)
{
    struct thin_arena *a;
    list_for_each (a, &t->space.freed, freed_link) {
        VP_VERIFY(a->committing, ==, 0U); /* one commit at a time; what failed is in `freed` */
        a->committing = a->freed;
        a->freed = 0;
    }
}

void thin_space_commit_end(struct thin *t, bool durable)
{
    struct thin_space *s = &t->space;
    struct thin_arena *a, *tmp;
    list_for_each_safe (a, tmp, &s->freed, freed_link) {
        if (durable)
            a->discarding |= a->committing;
        else
            a->freed |= a->committing;
        a->committing = 0;
        if (!a->freed)
            list_del(&a->freed_link);
        if (a->discarding && list_empty(&a->discard_link))
            list_add_tail(&s->discarding, &a->discard_link);
    }
}

/* Tells the devices about chunks that were freed durably. Nobody writes to them meanwhile. */
static CO void arena_discard(struct thin *t, const struct thin_arena *a, uint64_t bits)
{
    struct pool_arena at;
    unsigned use = thin_use_begin(t);
    if (!pool_arena_find(t->pool, a->at.number, &at)) /* its members may have moved */
        bits = 0;
    while (bits) {
        unsigned first = (unsigned)__builtin_ctzll(bits);
        uint64_t rest = ~(bits >> first);
        unsigned run = rest ? (unsigned)__builtin_ctzll(rest) : 64 - first;
        raid_discard(at.group, at.at_bytes + (uint64_t)first * t->chunk_bytes,
                     (uint64_t)run * t->chunk_bytes);
        bits &= run == 64 ? 0 : ~(((UINT64_C(1) << run) - 1) << first);
    }
    thin_use_end(t, use);
}

/* Ends the quarantine of what is durable. An arena with a bit in `discarding` does not go away.
 * There may be very many of them, when devices are slower than trims. */
static CO void quarantine_end(struct thin *t)
{
    struct thin_space *s = &t->space;
    for (unsigned i = 1; !list_empty(&s->discarding); i++) {
        struct thin_arena *a =
            container_of(list_pop(&s->discarding), struct thin_arena, discard_link);
        uint64_t bits = a->discarding;
        if (t->config.discard_devices)
            arena_discard(t, a, bits);
        a->discarding &= ~bits; /* more was freed meanwhile: then it is in the list again */
        VP_VERIFY(s->quarantined, >=, (uint64_t)__builtin_popcountll(bits));
        s->quarantined -= (uint64_t)__builtin_popcountll(bits);
        thin_arena_settle(t, a);
        if (i % QUARANTINE_TURN == 0)
            co_yield ();
    }
}

/* How many arenas could go back without touching the reserve. */
static uint64_t leased_beyond_reserve(const struct thin *t)
{
    uint64_t leased = figure_get(&t->figures.leased_arenas);
    return leased > t->space.leased_min ? leased - t->space.leased_min : 0;
}

/* Spares without a used chunk that nothing needs here; they stay findable until they are gone. */
static unsigned empties_take(struct thin *t, size_t keep, struct thin_arena **out)
{
    struct thin_space *s = &t->space;
    struct thin_arena *a, *tmp;
    unsigned n = 0, kept = 0;
    list_for_each_safe (a, tmp, &s->spare, link) {
        if (a->used || arena_has_quarantine(a))
            continue;
        /* Some stay for the writes to come, so that leasing is not paid for again and again. */
        if (n == RETURN_BATCH)
            break;
        if (kept++ < keep || leased_beyond_reserve(t) <= n)
            continue;
        list_del(&a->link);
        s->spares--;
        a->state = THIN_ARENA_OPEN; /* nobody's: neither allocated from nor settled */
        out[n++] = a;
    }
    return n;
}

/* Gives back arenas that are nobody's. Under space->lock. */
static CO int arenas_return(struct thin *t, struct thin_arena **a, unsigned n)
{
    uint64_t number[RETURN_BATCH] = {0};
    for (unsigned i = 0; i < n; i++)
        number[i] = a[i]->at.number;
    int rc = pool_arena_return(t->pool, t->id, number, n);
    for (unsigned i = 0; i < n; i++) {
        a[i]->state = THIN_ARENA_IDLE;
        if (rc) {
            thin_arena_settle(t, a[i]);
            continue;
        }
        figure_sub(&t->figures.leased_arenas, 1);
        thin_space_scan_forget(t, number[i]);
        arena_forget(t, a[i]);
    }
    return rc;
}

/* All but `keep` of them. */
static CO void empties_return(struct thin *t, size_t keep)
{
    struct thin_space *s = &t->space;
    struct thin_arena *a[RETURN_BATCH];
    if (s->lock.owner)
        return; /* somebody looks for room and gets the empties; a later commit returns the rest */
    co_mutex_lock(&s->lock);
    unsigned n;
    int rc = 0;
    while (!rc && (n = empties_take(t, keep, a)) != 0)
        rc = arenas_return(t, a, n);
    co_mutex_unlock(&s->lock);
}

/* Goes once over the leased arenas that are not in memory. Those with room become spares; when
 * there are as many as may be, those that hold nothing go back at once, and the others are
 * forgotten again, so going on until none is unknown would never end. */
static CO int scan_all(struct thin *t)
{
    struct thin_space *s = &t->space;
    struct thin_arena *a, *empty[RETURN_BATCH];
    unsigned n = 0;
    int rc;
    co_mutex_lock(&s->lock);
    do {
        rc = thin_space_scan(t, UINT32_MAX, &a);
        if (a && !a->used && s->spares >= THIN_SPARES_MAX && leased_beyond_reserve(t) > n) {
            a->state = THIN_ARENA_OPEN; /* nobody's */
            empty[n++] = a;
        } else if (a) {
            thin_arena_settle(t, a);
        }
        if (n == RETURN_BATCH || (n && (rc || !s->scan))) {
            int return_rc = arenas_return(t, empty, n);
            rc = rc ? rc : return_rc;
            n = 0;
        }
    } while (!rc && s->scan);
    co_mutex_unlock(&s->lock);
    return rc;
}

/* Open arenas without a used chunk become spares. */
static CO void slots_without_chunks_empty(struct thin *t)
{
    struct thin_space *s = &t->space;
    co_mutex_lock(&s->lock);
    for (unsigned i = 0; i < s->width; i++)
        if (s->open[i] && !s->open[i]->used && !arena_has_quarantine(s->open[i]))
            slot_empty(t, i);
    co_mutex_unlock(&s->lock);
}

CO int thin_give_back(struct thin *t)
{
    int rc = scan_all(t);
    if (!rc)
        rc = quarantine_end_now(t);
    if (rc)
        return rc;
    slots_without_chunks_empty(t);
    empties_return(t, 0);
    return 0;
}

/* A volume pins the leaf of each open arena. Where there are so many volumes that the cache is
 * beyond its limit, open arenas become spares with each commit, and the next first write opens them
 * again. */
static CO void slots_unpin(struct thin *t)
{
    struct thin_space *s = &t->space;
    if (!thin_cache_is_exceeded(t->cache) || s->lock.owner)
        return;
    co_mutex_lock(&s->lock);
    for (unsigned i = 0; i < s->width; i++)
        slot_empty(t, i);
    co_mutex_unlock(&s->lock);
}

CO void thin_space_tidy(struct thin *t)
{
    quarantine_end(t);
    empties_return(t, 2 * spares_wanted(t));
    slots_unpin(t);
}

/*
 * Members of data groups move to other disks, while clients read and write: a disk is emptied
 * (leave.c), or all get about as full (balance.c). Addresses of chunks and maps of volumes do not
 * change.
 *
 *     begin    an extent of another disk is taken, and is the *target* of the group (raid.h): from
 *              now on it gets all writes
 *     copy     by volumes/ (evacuate.c there), chunk by chunk, under block locks, each block
 *              verified
 *     commit   what was copied is made durable; then a GROUP record has the target as a member;
 *              then I/O has it as one
 *     barrier  whoever uses the old member has ended
 *     free     the old extent (GUARD_MOVE_BEFORE_FREE)
 *
 *  V1  Who writes when a move begins may not know the target. It has mapped its chunk and holds its
 *      block locks by then. The copy begins later, so it finds the chunk and waits for the locks.
 *      No barrier is needed there.
 *  V2  A crash before the record is durable finds the group as it was: the old member got all
 *      writes until then. A crash after it finds the target as a member, with all that was
 *      acknowledged: what the target missed before keeps it from being recorded
 *      (GUARD_TARGET_LOST), and what it misses from then on is missed by a member (raid/write.c).
 *  V3  Between the queueing of the record and its end nobody knows whether the target is a member.
 *      Writes that it missed wait for that.
 *      A target whose disk leaves service is lost, also if the disk returns: what fills the disk
 *      then knows members only.
 *  V4  A group whose member moves is not given back, also when it is empty.
 *  V5  A move that is given up frees its target after a barrier, in the same way.
 *
 * All memory is taken at the beginning, so a move can always be given up.
 */
#include "base/attr.h"
#include "io/guard.h"
#include "pool/disk_impl.h"
#include "pool/meta_impl.h"

#include <stdlib.h>

enum { GROUPS_A_TURN = 512, RECORDS_A_COMMIT = 32 };

/* ---- beginning ------------------------------------------------------------------------------ */

static unsigned member_on(const struct pool_group *g, const struct pool_disk *d)
{
    unsigned m = 0;
    while (m < g->raid->width && g->disk[m] != d)
        m++;
    return m;
}

static void move_free(struct pool_move *m)
{
    if (m)
        pool_members_free(m->after);
    free(m);
}

int pool_move_begin(struct pool *p, struct pool_group *g, struct pool_disk *from,
                    struct pool_disk *to)
{
    struct pool_move *m = calloc(1, sizeof(*m));
    struct raid_group *with = pool_members_new(g);
    if (m)
        m->after = pool_members_new(g);
    if (!m || !m->after || !with) {
        pool_members_free(with);
        move_free(m);
        return VP_E_NO_MEMORY;
    }
    m->extent = pool_extent_take(to, POOL_GROUP_DATA);
    if (m->extent == UINT32_MAX) {
        pool_members_free(with);
        move_free(m);
        return VP_E_NO_SPACE;
    }
    m->to = to;
    m->group = g;
    m->member = member_on(g, from);
    m->from_disk = from;
    m->from = g->extent[m->member];
    with->written = with->width + 1;
    with->target_of = m->member;
    pool_members_put(with, raid_target(with), m->to, m->extent);
    g->move = m;
    list_add_tail(&p->moves.all, &m->link);
    p->moves.count++;
    pool_members_set(p, g, with);
    m->freed = !io_guard_on(GUARD_MOVE_BEFORE_FREE);
    if (m->freed)
        pool_extent_give(from, m->from, POOL_GROUP_DATA);
    return 0;
}

static bool may_begin(const struct pool_group *g, const struct pool_disk *from)
{
    return g && g->role == POOL_GROUP_DATA && !g->move && !pool_group_is_empty(g) &&
           g->raid->width < RAID_WIDTH_MAX && pool_group_has_member(g, from);
}

CO int pool_moves_begin(struct pool *p, unsigned disk, unsigned max, struct pool_moves_begun *out)
{
    struct pool_disk *from = &p->disk[disk];
    int rc = 0;
    *out = (struct pool_moves_begun){0};
    vp_ignore(pool_groups_reclaim(p), "empty groups need not move");
    for (uint32_t id = 1; id < p->space->id.size && out->begun < max && !rc; id++) {
        struct pool_group *g = pool_group_find(p, id);
        if (may_begin(g, from)) {
            struct pool_disk *to = pool_member_choose(p, g);
            rc = to ? pool_move_begin(p, g, from, to) : VP_E_NO_SPACE;
            out->begun += !rc;
            out->stuck += rc == VP_E_NO_SPACE;
            rc = rc == VP_E_NO_SPACE ? 0 : rc;
        }
        if (id % GROUPS_A_TURN == 0)
            co_yield ();
    }
    return out->begun ? 0 : rc;
}

void pool_moves_owners(struct pool *p, void (*fn)(void *arg, uint32_t owner), void *arg)
{
    struct pool_move *m;
    list_for_each (m, &p->moves.all, link) {
        uint32_t last = 0;
        for (uint32_t a = 0; a < m->group->arenas; a++) {
            uint32_t owner = m->group->arena_owner[a];
            if (owner && owner != last)
                fn(arg, owner);
            last = owner;
        }
    }
}

void pool_moves_owner_failed(struct pool *p, uint32_t owner)
{
    struct pool_move *m;
    list_for_each (m, &p->moves.all, link)
        for (uint32_t a = 0; a < m->group->arenas; a++)
            if (m->group->arena_owner[a] == owner)
                raid_target_is_lost(m->group->raid);
}

uint64_t pool_moves_bytes(const struct pool *p)
{
    const struct pool_move *m;
    uint64_t bytes = 0;
    list_for_each (m, &p->moves.all, link)
        bytes += ((uint64_t)m->group->arenas_leased * m->group->arena_chunks)
                 << p->space->chunk_shift;
    return bytes;
}

/* ---- the end -------------------------------------------------------------------------------- */

/* No yield. I/O has the members that the group has from now on. */
static void move_end(struct pool *p, struct pool_move *m, bool is_member)
{
    struct raid_group *with = m->group->raid;
    if (is_member)
        pool_members_put(m->after, m->member, m->to, m->extent);
    pool_members_set(p, m->group, steal(m->after));
    atomic_store(&with->move_state, is_member ? RAID_MOVE_DONE : RAID_MOVE_GIVEN_UP);
    m->is_member = is_member;
    m->ended = true;
}

static bool may_become_member(const struct pool_move *m)
{
    return pool_disk_takes_extents(m->to) &&
           !(atomic_load(&m->group->raid->target_lost) && io_guard_on(GUARD_TARGET_LOST));
}

/* No yield. V3: who finds the target lost later, sees that the move is being recorded. */
static bool move_record(struct pool_move *m, struct pool_batch *b)
{
    atomic_store(&m->group->raid->move_state, RAID_MOVE_RECORDS);
    if (!may_become_member(m))
        return false;
    m->group->disk[m->member] = m->to;
    m->group->extent[m->member] = m->extent;
    pool_group_record(b, m->group);
    return true;
}

/* No yield. As it was. */
static void move_record_undo(struct pool_move *m)
{
    m->group->disk[m->member] = m->from_disk;
    m->group->extent[m->member] = m->from;
}

/* CO. The next moves. When their commit fails, the pool is fenced, or nothing was applied. */
static CO int moves_commit_some(struct pool *p, unsigned *recorded, bool *more)
{
    struct pool_move *m, *some[RECORDS_A_COMMIT];
    struct pool_batch b;
    unsigned n = 0;
    *more = false;
    pool_batch_init(&b);
    list_for_each (m, &p->moves.all, link) {
        if (m->ended)
            continue;
        *more = n == RECORDS_A_COMMIT;
        if (*more)
            break;
        if (move_record(m, &b))
            some[n++] = m;
        else
            move_end(p, m, false);
    }
    int rc = n ? pool_commit_home(p, &b) : 0;
    pool_batch_fini(&b);
    for (unsigned i = 0; i < n; i++) {
        if (rc && !pool_is_fenced(p))
            move_record_undo(some[i]);
        move_end(p, some[i], !rc || pool_is_fenced(p));
    }
    *recorded += rc ? 0 : n;
    return rc;
}

static void extents_free(struct pool *p)
{
    struct pool_move *m, *next;
    list_for_each_safe (m, next, &p->moves.all, link) {
        if (!m->ended)
            continue;
        if (!pool_is_fenced(p) && !m->freed) /* else the record may be durable or not */
            pool_extent_give(m->is_member ? m->from_disk : m->to,
                             m->is_member ? m->from : m->extent, m->group->role);
        m->group->move = NULL;
        pool_group_members_changed(p, m->group); /* V4 */
        list_del(&m->link);
        p->moves.count--;
        move_free(m);
    }
}

CO int pool_moves_commit(struct pool *p, unsigned *recorded)
{
    bool more = true;
    int rc = raid_flush(p->raid_disk, p->disk_count);
    *recorded = 0;
    while (!rc && more)
        rc = moves_commit_some(p, recorded, &more);
    if (rc)
        pool_moves_give_up(p);
    return rc;
}

void pool_moves_give_up(struct pool *p)
{
    struct pool_move *m;
    list_for_each (m, &p->moves.all, link)
        if (!m->ended)
            move_end(p, m, false);
}

void pool_moves_free(struct pool *p)
{
    extents_free(p);
    pool_space_changed(p);
}

CO void pool_barrier(struct pool *p, void (*users)(void *arg), void *arg)
{
    struct list outdated;
    list_init(&outdated);
    list_splice_tail(&outdated, &p->space->outdated);
    pool_pages_barrier(p);
    users(arg);
    pool_members_free_all(&outdated);
}

void pool_moves_disk_left(struct pool *p, const struct pool_disk *d)
{
    struct pool_move *m;
    list_for_each (m, &p->moves.all, link)
        if (m->to == d && !m->ended)
            raid_target_is_lost(m->group->raid);
}

bool pool_moves_are_there(const struct pool *p)
{
    return p->moves.count != 0;
}

void pool_moves_fini(struct pool *p)
{
    while (!list_empty(&p->moves.all))
        move_free(container_of(list_pop(&p->moves.all), struct pool_move, link));
}

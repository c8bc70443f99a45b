/*
 * Block locks: a block is not read or written while it is being written (GUARD_RANGE_LOCK).
 *
 * The volume is divided into regions of 64 blocks. A lock is a mask of blocks in one region, shared
 * or exclusive. It is part of its request's frame, and it is in the list of the bucket to which its
 * region hashes. A request that spans regions takes one lock for each, in ascending order.
 *
 * 1. A list is in order of arrival. A lock is granted when no earlier entry of its region, granted
 *    or not, conflicts with it. So no entry is overtaken by an entry that conflicts with it, and a
 *    stream of readers does not starve a writer.
 * 2. A request that holds locks waits only for locks of higher regions: no cycles, no deadlock.
 *    Requests get their bounce buffer before they lock, and never wait for room while they hold
 *    locks.
 *
 * One reactor; tested by tests/unit/volumes/test_lock.c.
 */
#include "base/verify.h"
#include "io/guard.h"
#include "volumes/volumes_impl.h"

void lock_table_init(struct lock_table *t)
{
    for (unsigned i = 0; i < LOCK_BUCKETS; i++)
        list_init(&t->bucket[i]);
}

bool lock_table_is_empty(const struct lock_table *t)
{
    for (unsigned i = 0; i < LOCK_BUCKETS; i++)
        if (!list_empty(&t->bucket[i]))
            return false;
    return true;
}

/* Regions that follow each other have buckets of their own; those at a distance of a power of two
 * do not all meet in one. */
static struct list *bucket_of(struct lock_table *t, uint64_t region)
{
    return &t->bucket[region * UINT64_C(0x9e3779b97f4a7c15) >> (64 - LOCK_BUCKETS_LOG2)];
}

/* What the entries of one region, from the oldest on, hold or wait for. */
struct claims {
    uint64_t shared, exclusive;
};

static bool claims_allow(const struct claims *c, const struct lock_entry *e)
{
    uint64_t against = e->exclusive ? c->shared | c->exclusive : c->exclusive;
    return !(against & e->mask);
}

static void claims_add(struct claims *c, const struct lock_entry *e)
{
    if (e->exclusive)
        c->exclusive |= e->mask;
    else
        c->shared |= e->mask;
}

static __attribute__((noinline)) CO void entry_wait(struct lock_entry *e)
{
    e->waiter = co_self();
    co_suspend("block lock");
}

static CO void entry_take(struct lock_table *t, struct lock_entry *e)
{
    struct list *bucket = bucket_of(t, e->region);
    struct claims earlier = {0};
    struct lock_entry *it;
    list_for_each (it, bucket, link) {
        if (it->region == e->region)
            claims_add(&earlier, it);
    }
    list_add_tail(bucket, &e->link);
    e->waiter = NULL;
    if (!claims_allow(&earlier, e))
        entry_wait(e);
}

/* Grants what the entries that are left in the bucket of a region allow. */
static __attribute__((noinline)) void region_grant(struct list *bucket, uint64_t region)
{
    struct claims earlier = {0};
    struct lock_entry *it;
    list_for_each (it, bucket, link) {
        if (it->region != region)
            continue;
        if (it->waiter && claims_allow(&earlier, it)) {
            co_wake(it->waiter);
            it->waiter = NULL;
        }
        claims_add(&earlier, it);
    }
}

static void entry_drop(struct lock_table *t, struct lock_entry *e)
{
    bool is_alone = e->link.next == e->link.prev; /* its bucket is its neighbour on both sides */
    list_del(&e->link);
    if (!is_alone)
        region_grant(bucket_of(t, e->region), e->region);
}

static uint64_t mask_of(uint64_t first, uint64_t count)
{
    return UINT64_MAX >> (64 - count) << first;
}

CO void block_lock_take(struct lock_table *t, struct block_lock *l, uint64_t block, uint64_t count,
                        bool exclusive)
{
    VP_VERIFY(count, <=, VOLUME_WINDOW_BLOCKS);
    l->count = 0;
    if (!io_guard_on(GUARD_RANGE_LOCK))
        return;
    while (count > 0) {
        uint64_t first = block % LOCK_REGION_BLOCKS;
        uint64_t n = min_u64(count, LOCK_REGION_BLOCKS - first);
        struct lock_entry *e = &l->entry[l->count++];
        e->region = block / LOCK_REGION_BLOCKS;
        e->mask = mask_of(first, n);
        e->exclusive = exclusive;
        entry_take(t, e);
        block += n;
        count -= n;
    }
}

void lock_table_each_exclusive(const struct lock_table *t,
                               void (*fn)(void *arg, uint64_t block, uint64_t count), void *arg)
{
    for (unsigned i = 0; i < LOCK_BUCKETS; i++) {
        const struct lock_entry *e;
        list_for_each (e, &t->bucket[i], link) {
            uint64_t first = (uint64_t)__builtin_ctzll(e->mask);
            if (e->exclusive)
                fn(arg, e->region * LOCK_REGION_BLOCKS + first,
                   (uint64_t)__builtin_popcountll(e->mask));
        }
    }
}

void block_lock_drop(struct lock_table *t, struct block_lock *l)
{
    for (unsigned i = 0; i < l->count; i++)
        entry_drop(t, &l->entry[i]);
    l->count = 0;
}

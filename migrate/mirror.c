/*
 * Mirroring: a change goes to the source and to the target at the same time, so that what is dirty
 * does not grow any more.
 *
 * 1. `mirror_change_begin` is called under the exclusive lock of the change's blocks, which are
 *    marked dirty by then. It takes a copy of the data into a slot, and a coroutine of the slot
 *    writes them to the target. `mirror_change_end` waits for that, still under the lock. So the
 *    changes of a block reach the target in the order in which they reach the source.
 * 2. When both writes have succeeded the blocks are clean. After any error they stay dirty, and an
 *    error of the target ends the copy. The client gets the result of the source alone.
 * 3. A change is not mirrored, and its blocks stay dirty, when a copy of one of its blocks is under
 *    way (the older data could land last: GUARD_MOVE_MIRROR_ALONE), when no slot is free, or when
 *    it is larger than a slot, which only a request is that began before the marks were set.
 * 4. A client waits for the target at most `wait_ns`. Then the write is *late*: its blocks stay
 *    dirty, and mirroring stops. The late write may still land at any time. So nobody writes to the
 *    target until it has ended (mirror_await_late; GUARD_MOVE_AWAITS_LATE).
 *
 * A slot's data are the mirror's own, because the client's buffer is the client's as soon as it has
 * its answer. One reactor; on the path of a change nothing here allocates.
 */
#include "base/verify.h"
#include "io/guard.h"
#include "migrate/migrate_impl.h"

#include <stdlib.h>
#include <string.h>

#define MIRROR_SHARE 8U /* the coroutines of a reactor ÷ those that one mirror keeps */

/* ---- states ------------------------------------------------------------------------------- */

#define TO(state) (1U << (state))

static const unsigned slot_moves[] = {
    [MIRROR_FREE] = TO(MIRROR_WRITING),
    [MIRROR_WRITING] = TO(MIRROR_WRITTEN) | TO(MIRROR_LATE),
    [MIRROR_WRITTEN] = TO(MIRROR_FREE),
    [MIRROR_LATE] = TO(MIRROR_FREE),
};

static void slot_move(struct mirror_slot *s, enum mirror_state to)
{
    VP_VERIFY_TRUE(slot_moves[s->state] & TO(to));
    s->state = to;
}

struct mirror *mirror_new(struct copy *c, uint64_t wait_ns)
{
    struct mirror *m = calloc(1, sizeof(*m));
    if (!m)
        return NULL;
    m->memory = aligned_alloc(COPY_BLOCK, (size_t)MIRROR_SLOTS * MIRROR_SLOT_BYTES);
    if (!m->memory) {
        free(m);
        return NULL;
    }
    m->copy = c;
    m->wait_ns = wait_ns;
    list_init(&m->free);
    co_queue_init(&m->quiet);
    return m;
}

bool mirror_is_quiet(const struct mirror *m)
{
    unsigned n = 0;
    const struct mirror_slot *s;
    list_for_each (s, &m->free, link)
        n++;
    return n == m->slot_count;
}

uint64_t mirror_blocks(const struct mirror *m)
{
    uint64_t blocks = 0;
    for (unsigned i = 0; i < m->slot_count; i++) {
        const struct mirror_slot *s = &m->slot[i];
        if (s->state == MIRROR_WRITING || s->state == MIRROR_WRITTEN)
            blocks += s->count;
    }
    return blocks;
}

void mirror_free(struct mirror *m)
{
    if (!m)
        return;
    VP_VERIFY(m->workers.running, ==, 0U);
    free(m->memory);
    free(m);
}

/* ---- the target's side -------------------------------------------------------------------- */

static void slot_free(struct mirror_slot *s)
{
    struct mirror *m = s->mirror;
    slot_move(s, MIRROR_FREE);
    list_add_head(&m->free, &s->link);
    co_queue_wake_all(&m->quiet);
}

static void mirror_stop(struct mirror *m)
{
    m->stops += m->on;
    m->on = false;
}

static CO void slot_write(struct mirror_slot *s)
{
    struct mirror *m = s->mirror;
    s->rc = copy_write(m->copy, s->block, s->count, s->zero ? NULL : s->data, COPY_MIRRORED,
                       &m->mirrored_bytes, &m->mirrored_bytes);
    if (s->rc) {
        mirror_stop(m);
        copy_fail(m->copy, s->rc, s->block, COPY_WRITES);
    }
    if (s->state == MIRROR_WRITING) {
        slot_move(s, MIRROR_WRITTEN);
        co_queue_wake_all(&s->written);
        return;
    }
    m->late--;
    slot_free(s);
}

static CO void slot_work(void *slot)
{
    struct mirror_slot *s = slot;
    struct mirror *m = s->mirror;
    while (!m->ending || s->state != MIRROR_FREE) {
        if (s->state == MIRROR_WRITING)
            slot_write(s);
        else
            co_queue_wait(&s->work, "changes to mirror");
    }
    co_group_leave(&m->workers, 0);
}

static void slot_init(struct mirror *m, unsigned i)
{
    struct mirror_slot *s = &m->slot[i];
    *s = (struct mirror_slot){.mirror = m, .data = m->memory + (size_t)i * MIRROR_SLOT_BYTES};
    co_queue_init(&s->work);
    co_queue_init(&s->written);
    list_add_tail(&m->free, &s->link);
}

int mirror_start(void *mirror)
{
    struct mirror *m = mirror;
    unsigned slots = (unsigned)max_u64(co_clients_max() / MIRROR_SHARE, 1);
    int rc = 0;
    co_group_init(&m->workers);
    while (m->slot_count < MIRROR_SLOTS && m->slot_count < slots && !rc) {
        slot_init(m, m->slot_count);
        co_group_enter(&m->workers);
        rc = co_spawn(slot_work, &m->slot[m->slot_count], "mirror of a volume");
        if (rc) {
            co_group_leave(&m->workers, 0);
            list_del(&m->slot[m->slot_count].link);
        } else {
            m->slot_count++;
        }
    }
    if (!m->slot_count)
        return rc;
    m->copy->mirror = m;
    m->on = true;
    return 0;
}

CO void mirror_await_late(struct mirror *m)
{
    while (m->late > 0 && io_guard_on(GUARD_MOVE_AWAITS_LATE))
        co_queue_wait(&m->quiet, "a late write of a mirror");
}

CO int mirror_again(void *mirror)
{
    struct mirror *m = mirror;
    mirror_await_late(m);
    m->on = true;
    return 0;
}

CO void mirror_settle(struct mirror *m)
{
    m->on = false;
    while (!mirror_is_quiet(m))
        co_queue_wait(&m->quiet, "changes that are being mirrored");
}

CO int mirror_end(void *mirror)
{
    struct mirror *m = mirror;
    mirror_settle(m);
    m->ending = true;
    for (unsigned i = 0; i < m->slot_count; i++)
        co_queue_wake_all(&m->slot[i].work);
    return co_group_wait(&m->workers);
}

/* ---- the client's side -------------------------------------------------------------------- */

static bool change_is_mirrored(const struct mirror *m, uint64_t block, uint64_t count,
                               const void *data)
{
    if (!m || !m->on || list_empty(&m->free))
        return false;
    if (data && count * COPY_BLOCK > MIRROR_SLOT_BYTES)
        return false;
    return !copy_is_flying(m->copy, block, count) || !io_guard_on(GUARD_MOVE_MIRROR_ALONE);
}

void *mirror_change_begin(void *copy, uint64_t block, uint64_t count, const void *data)
{
    struct copy *c = copy;
    struct mirror *m = c->mirror;
    if (!change_is_mirrored(m, block, count, data))
        return NULL;
    struct mirror_slot *s = list_first(&m->free, struct mirror_slot, link);
    list_del(&s->link);
    slot_move(s, MIRROR_WRITING);
    s->block = block;
    s->count = count;
    s->zero = !data;
    s->deadline_ns = reactor_now_ns() + m->wait_ns;
    uint64_t marked = min_u64(c->marked_blocks, count);
    c->marked_blocks -= marked;
    c->dirtied_blocks -= marked;
    if (data)
        memcpy(s->data, data, count * COPY_BLOCK);
    co_queue_wake_all(&s->work);
    return s;
}

CO void mirror_change_end(void *copy, void *change, int rc)
{
    struct mirror_slot *s = change;
    struct mirror *m = s->mirror;
    int waited = 0;
    (void)copy;
    while (s->state == MIRROR_WRITING && !waited)
        waited = co_queue_wait_until(&s->written, s->deadline_ns, "the target of a mirrored write");
    if (s->state == MIRROR_WRITING) {
        slot_move(s, MIRROR_LATE);
        if (!io_guard_on(GUARD_MOVE_AWAITS_LATE)) /* as if it had landed */
            dirty_clear(&m->copy->dirty, s->block, s->count);
        m->late++;
        mirror_stop(m);
        return;
    }
    if (!rc && !s->rc) {
        copy_unchecked_mark(m->copy, s->block, s->count); /* before it is clean */
        dirty_clear(&m->copy->dirty, s->block, s->count);
    }
    slot_free(s);
}

/*
 * Making completed writes durable.
 *
 * A disk counts the writes that completed (writes_done). It also remembers the count that a
 * successful flush covered (writes_flushed). The count is taken before the flush is submitted. A
 * write that completes while the flush is in flight may or may not be covered by the device, so it
 * counts as not covered.
 *
 * After a failed flush nobody knows what the device's cache still holds, and the kernel reports the
 * failure only once. So the disk is ejected: it is never flushed again and believed. A failed
 * durable write (IO_FUA) may be such a failure. From the moment when one fails no flush of the disk
 * is believed, in flight or later, until retry.c has found that nothing was lost. For the same
 * reason two flushes of one disk are never in flight together. One of them could take the report,
 * and the other would say that all is well. A caller that comes while a flush is in flight waits
 * for it. The next flush serves all callers that waited, on whichever reactors they are.
 */
#include "io/reactor.h"
#include "raid/raid_impl.h"

#define FLUSH_WINDOW 16U

static bool is_clean(const struct raid_disk *d, uint64_t done)
{
    return atomic_load_explicit(&d->writes_flushed, memory_order_acquire) >= done ||
           !io_dev_info(d->dev)->write_cache;
}

static void advance_flushed(struct raid_disk *d, uint64_t done)
{
    uint64_t seen = atomic_load_explicit(&d->writes_flushed, memory_order_relaxed);
    while (seen < done && !atomic_compare_exchange_weak(&d->writes_flushed, &seen, done))
        ;
}

/* ---- taking turns -------------------------------------------------------------------------- */

/* One caller's flush of one disk, on the caller's stack. */
struct flush_turn {
    struct flush_turn *next; /* in raid_disk.flush_turn, or among `followers`              */
    struct raid_disk *disk;
    struct io_dev *dev;         /* the disk's, when the turn came */
    struct reactor_event ready; /* it leads now, or another turn has flushed for it           */
    struct flush_turn *followers;
    bool leads;    /* it inherited the next turn                                     */
    int rc;        /* of the device                                                  */
    uint64_t done; /* writes that this flush covers                                  */
    struct io_op op;
};

/* raid_disk.flush_turn: NULL when no flush is in flight, &flush_alone when nobody waits for it. */
static struct flush_turn flush_alone;

/* True: the caller leads and flushes. False: turn_await says when its flush is done. */
static bool turn_enter(struct flush_turn *t, struct raid_disk *d)
{
    struct flush_turn *seen = atomic_load(&d->flush_turn);
    t->disk = d;
    t->dev = d->dev;
    t->followers = NULL;
    t->rc = 0;
    reactor_event_init(&t->ready);
    t->leads = false;
    do
        t->next = seen == &flush_alone ? NULL : seen;
    while (!atomic_compare_exchange_weak(&d->flush_turn, &seen, seen ? t : &flush_alone));
    return !seen;
}

/* The device has answered the leader, so its followers are done as well. The callers that came
 * meanwhile get the next turn, one flush for all of them. */
static void turn_leave(struct flush_turn *t)
{
    for (struct flush_turn *f = t->followers, *next; f; f = next) {
        next = f->next;
        f->rc = t->rc;
        reactor_event_set(&f->ready);
    }
    struct flush_turn *alone = &flush_alone;
    if (atomic_compare_exchange_strong(&t->disk->flush_turn, &alone, NULL))
        return;
    struct flush_turn *heir = atomic_exchange(&t->disk->flush_turn, &flush_alone);
    heir->followers = heir->next;
    heir->leads = true;
    reactor_event_set(&heir->ready);
}

/* ---- flushing ------------------------------------------------------------------------------ */

/* Why the disk's flushes are not believed, or 0. */
static int flush_doubt(const struct raid_disk *d)
{
    int rc = atomic_load(&d->flush_failed);
    return rc ? rc : atomic_load(&d->dev->durable_failed) ? VP_E_IO : 0;
}

/* A disk that failed a flush is not asked again, also before its ejection is under way. */
static void turn_submit(struct flush_turn *t, struct io_batch *batch)
{
    struct raid_disk *d = t->disk;
    t->rc = flush_doubt(d);
    if (t->rc)
        return;
    t->done = atomic_load_explicit(&d->writes_done, memory_order_acquire);
    t->dev = d->dev;
    io_op_set(&t->op, d->dev, IO_FLUSH, 0, NULL, 0, 0);
    io_batch_add(batch, &t->op);
}

/* Turns follow each other, so the histogram has one writer at a time. */
static void turn_count(struct raid_disk *d, const struct io_op *op)
{
    figure_add_shared(&d->figures.flushes, 1);
    if (d->figures.flush_latency)
        histogram_add(d->figures.flush_latency, io_op_took_ns(op));
}

static void turn_finish(struct flush_turn *t)
{
    struct raid_disk *d = t->disk;
    if (!t->rc) {
        t->rc = t->op.rc ? t->op.rc : t->dev == d->dev ? flush_doubt(d) : 0;
        turn_count(d, &t->op);
        if (t->rc)
            figure_add_shared(&d->figures.write_errors, 1);
        else
            advance_flushed(d, t->done);
    }
    if (t->rc && t->dev == d->dev)
        atomic_store(&d->flush_failed, t->rc);
    turn_leave(t);
}

/* CO. For a turn that did not lead: waits until a flush has ended that began after this turn
 * came. */
static CO void turn_await(struct flush_turn *t)
{
    reactor_event_wait(&t->ready);
    if (!t->leads)
        return;
    struct io_batch batch;
    io_batch_init(&batch);
    turn_submit(t, &batch);
    vp_ignore(io_batch_wait(&batch), "the operation's result is looked at by turn_finish");
    turn_finish(t);
}

/* Enters a turn for each dirty one among `disks`, and submits those that lead. */
static unsigned flush_submit(struct raid_disk *const *disks, unsigned count, struct io_batch *batch,
                             struct flush_turn *turn, bool *waits)
{
    unsigned n = 0;
    for (unsigned i = 0; i < count; i++) {
        struct raid_disk *d = disks[i];
        if (!raid_disk_serves(d, 1) ||
            is_clean(d, atomic_load_explicit(&d->writes_done, memory_order_acquire)))
            continue;
        waits[n] = !turn_enter(&turn[n], d);
        if (!waits[n])
            turn_submit(&turn[n], batch);
        n++;
    }
    return n;
}

static CO int flush_window(struct raid_disk *const *disks, unsigned count)
{
    struct flush_turn turn[FLUSH_WINDOW];
    bool waits[FLUSH_WINDOW];
    struct io_batch batch;
    io_batch_init(&batch);
    unsigned n = flush_submit(disks, count, &batch, turn, waits);
    vp_ignore(io_batch_wait(&batch), "each operation's result is looked at below");
    for (unsigned i = 0; i < n; i++)
        if (!waits[i])
            turn_finish(&turn[i]);
    /* All turns end before an ejection is waited for, because others may wait for a turn inherited
     * here. */
    for (unsigned i = 0; i < n; i++)
        if (waits[i])
            turn_await(&turn[i]);
    int first_rc = 0;
    for (unsigned i = 0; i < n; i++) {
        int rc = turn[i].rc
                     ? raid_disk_leave(turn[i].disk, turn[i].dev, turn[i].rc, "a flush failed")
                     : 0;
        if (rc && !first_rc)
            first_rc = rc;
    }
    return first_rc;
}

CO int raid_flush(struct raid_disk *const *disks, unsigned count)
{
    int first_rc = 0;
    for (unsigned i = 0; i < count; i += FLUSH_WINDOW) {
        unsigned n = count - i < FLUSH_WINDOW ? count - i : FLUSH_WINDOW;
        int rc = flush_window(disks + i, n);
        if (rc && !first_rc)
            first_rc = rc;
    }
    for (unsigned i = 0; i < count; i++) {
        int rc = raid_disk_settle(disks[i]);
        if (rc && !first_rc)
            first_rc = rc;
    }
    return first_rc;
}

/*
 * Making completed writes durable.
 *
 * A disk counts the writes that completed (writes_done) and remembers the count that a successful
 * flush covered (writes_flushed). The count is taken before the flush is submitted: a write that
 * completes meanwhile may or may not be covered by the device, and is taken as not covered.
 *
 * After a failed flush nobody knows what the device's cache still holds, and the kernel reports it
 * once only: the disk is ejected, never flushed again and believed.
 */
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

/* Submits flushes of the dirty ones among `disks`; fills dirty[] and done[]. */
static unsigned flush_submit(struct raid_disk *const *disks, unsigned count, struct io_batch *batch,
                             struct io_op *op, struct raid_disk **dirty, uint64_t *done)
{
    unsigned n = 0;
    for (unsigned i = 0; i < count; i++) {
        struct raid_disk *d = disks[i];
        if (!raid_disk_is_in_service(d))
            continue;
        uint64_t now = atomic_load_explicit(&d->writes_done, memory_order_acquire);
        if (is_clean(d, now))
            continue;
        dirty[n] = d;
        done[n] = now;
        io_op_set(&op[n], d->dev, IO_FLUSH, 0, NULL, 0, 0);
        io_batch_add(batch, &op[n++]);
    }
    return n;
}

static int flush_window(struct raid_disk *const *disks, unsigned count)
{
    struct io_op op[FLUSH_WINDOW];
    struct raid_disk *dirty[FLUSH_WINDOW];
    uint64_t done[FLUSH_WINDOW];
    struct io_batch batch;
    io_batch_init(&batch);
    unsigned n = flush_submit(disks, count, &batch, op, dirty, done);
    if (n)
        vp_ignore(io_batch_wait(&batch), "each operation's result is looked at below");

    int first_rc = 0;
    for (unsigned i = 0; i < n; i++) {
        int rc = 0;
        raid_count(&dirty[i]->flushes, 1);
        if (op[i].rc == 0) {
            advance_flushed(dirty[i], done[i]);
        } else {
            raid_count(&dirty[i]->write_errors, 1);
            rc = raid_disk_leave(dirty[i], op[i].rc, "a flush failed");
        }
        if (rc && !first_rc)
            first_rc = rc;
    }
    return first_rc;
}

int raid_flush(struct raid_disk *const *disks, unsigned count)
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

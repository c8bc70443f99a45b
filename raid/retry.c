/*
 * Trying a write of metadata again.
 *
 * One failed write says little about a disk, and a disk that leaves takes redundancy with it. So a
 * write of metadata that failed with an I/O error is submitted again, at the same place, after
 * pauses that grow. Only the last failure counts. Other failures are final at once: a device that
 * is gone stays gone, and what the kernel lacked was waited for already (io/device.c).
 *
 * A durable write (IO_FUA) is a write and a flush in one, and nobody can tell which of the two
 * failed. A failed flush may have lost every completed write that no flush has covered, and the
 * next flush would not say so (flush.c). What can be lost is what completed on a disk with a
 * volatile cache since its last good flush. If there is nothing of that kind, up to the end of a
 * pause, the write is tried again. (The pause is there for the reactors that have not yet counted
 * their completed writes.) Otherwise the failure counts as a failed flush (flush_failed), with all
 * that follows from it: the disk is ejected, its flushes fail for good, and what it has no other
 * copy of can only be read.
 *
 * An import does not know what a killed daemon left in a disk's cache. So it counts a write as
 * completed on each disk before its first flush (pool_disk_adopt).
 *
 * The caller may hold the log's or the root's place meanwhile. That is no longer than a slow disk
 * may take for one write.
 */
#include "base/log.h"
#include "raid/raid_impl.h"

static const uint64_t pause_ns[RAID_METADATA_TRIES - 1] = {50000000, 200000000, 750000000};

static bool cache_may_be_lost(const struct raid_disk *d)
{
    return atomic_load(&d->flush_failed) ||
           (io_dev_info(d->dev)->write_cache &&
            atomic_load_explicit(&d->writes_done, memory_order_acquire) !=
                atomic_load_explicit(&d->writes_flushed, memory_order_acquire));
}

void raid_durable_write_failed(struct raid_disk *d, int rc)
{
    int none = 0;
    if (!cache_may_be_lost(d) || !io_guard_on(GUARD_DURABLE_FAILED)) {
        atomic_store(&d->dev->durable_failed, false);
        /* another one may have failed before that store */
        if (!cache_may_be_lost(d) || !io_guard_on(GUARD_DURABLE_FAILED))
            return;
    }
    (void)atomic_compare_exchange_strong(&d->flush_failed, &none, rc);
}

/* Of a durable write the question is decided here: it may be tried again, or its disk has lost
 * something. */
static bool op_may_retry(struct raid_disk *d, const struct io_op *op)
{
    if (op->rc != VP_E_IO || !raid_disk_is_in_service(d))
        return false;
    if (op->flags & IO_FUA)
        raid_durable_write_failed(d, op->rc);
    return !(op->flags & IO_FUA && cache_may_be_lost(d));
}

/* CO. Submits again what may be. False: nothing. */
static CO bool retry_once(struct raid_disk *const *disk, struct io_op *op, unsigned count)
{
    struct io_batch batch;
    bool any = false;
    io_batch_init(&batch);
    for (unsigned i = 0; i < count; i++) {
        if (!op_may_retry(disk[i], &op[i]))
            continue;
        vp_warn("disk %u: a write of metadata at byte %llu failed and is tried again: %s",
                disk[i]->index, (unsigned long long)op[i].offset, vp_err_text(op[i].rc));
        figure_add_shared(&disk[i]->figures.write_errors, 1);
        io_batch_add(&batch, &op[i]);
        any = true;
    }
    vp_ignore(io_batch_wait(&batch), "each operation has its own result");
    return any;
}

/* Some durable write failed for good, and its disk is not yet known to have lost something. */
static bool any_to_judge(struct raid_disk *const *disk, const struct io_op *op, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        if (op[i].rc && op[i].flags & IO_FUA && !atomic_load(&disk[i]->flush_failed))
            return true;
    return false;
}

CO void raid_retry(struct raid_disk *const *disk, struct io_op *op, unsigned count)
{
    bool any = false;
    for (unsigned i = 0; i < count; i++)
        any |= op[i].rc == VP_E_IO && raid_disk_is_in_service(disk[i]) &&
               !(op[i].flags & IO_FUA && cache_may_be_lost(disk[i]));
    for (unsigned t = 0; t < RAID_METADATA_TRIES - 1 && any; t++) {
        vp_ignore(co_sleep_ns(pause_ns[t]), "who is cancelled need not wait so long");
        any = retry_once(disk, op, count);
    }
    if (!any_to_judge(disk, op, count))
        return;
    vp_ignore(co_sleep_ns(pause_ns[0]), "likewise");
    for (unsigned i = 0; i < count; i++)
        if (op[i].rc && op[i].flags & IO_FUA)
            raid_durable_write_failed(disk[i], op[i].rc);
}

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
 * next flush would not say so (flush.c). So a durable write is tried again only if the disk had
 * nothing of that kind: either the disk has no volatile cache, or no write has completed on it
 * since the last good flush, up to the end of the pause. (The pause is there for the reactors that
 * have not yet counted their completed writes.) Otherwise the disk is ejected, as after a failed
 * flush.
 *
 * An import knows nothing of what a killed daemon left in a disk's cache, so it does not come here
 * with durable writes.
 *
 * The caller may hold the log's or the root's place meanwhile. That is no longer than a slow disk
 * may take for one write.
 */
#include "base/log.h"
#include "raid/raid_impl.h"

static const uint64_t pause_ns[RAID_METADATA_TRIES - 1] = {50000000, 200000000, 750000000};

/* Whether the failure of a durable write may have lost something of the disk's cache; `flushed` is
 * what flushes had covered when it failed. */
static bool cache_may_be_lost(const struct raid_disk *d, uint64_t flushed)
{
    return io_dev_info(d->dev)->write_cache &&
           atomic_load_explicit(&d->writes_done, memory_order_acquire) != flushed;
}

static bool op_may_retry(const struct raid_disk *d, const struct io_op *op, uint64_t flushed)
{
    if (op->rc != VP_E_IO || !raid_disk_is_in_service(d))
        return false;
    return !(op->flags & IO_FUA) || !cache_may_be_lost(d, flushed);
}

/* CO. Submits again what may be. */
static CO void retry_once(struct raid_disk *const *disk, struct io_op *op, unsigned count,
                          const uint64_t *flushed)
{
    struct io_batch batch;
    io_batch_init(&batch);
    for (unsigned i = 0; i < count; i++) {
        if (!op_may_retry(disk[i], &op[i], flushed[i]))
            continue;
        vp_warn("disk %u: a write of metadata at byte %llu failed and is tried again: %s",
                disk[i]->index, (unsigned long long)op[i].offset, vp_err_text(op[i].rc));
        figure_add_shared(&disk[i]->figures.write_errors, 1);
        io_batch_add(&batch, &op[i]);
    }
    vp_ignore(io_batch_wait(&batch), "each operation has its own result");
}

CO void raid_retry(struct raid_disk *const *disk, struct io_op *op, unsigned count)
{
    uint64_t flushed[RAID_RETRY_MAX];
    VP_VERIFY(count, <=, RAID_RETRY_MAX);
    for (unsigned i = 0; i < count; i++)
        flushed[i] = atomic_load_explicit(&disk[i]->writes_flushed, memory_order_acquire);
    for (unsigned t = 0; t < RAID_METADATA_TRIES - 1; t++) {
        bool any = false;
        for (unsigned i = 0; i < count && !any; i++)
            any = op_may_retry(disk[i], &op[i], flushed[i]);
        if (!any)
            return;
        vp_ignore(co_sleep_ns(pause_ns[t]), "who is cancelled need not wait so long");
        retry_once(disk, op, count, flushed);
    }
}

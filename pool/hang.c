/*
 * A disk that does not answer.
 *
 * io/ tells when a device is silent (io/hang.c). What happens then is decided at home:
 *
 *     state of the disk        others have its data    only it has some of them
 *     ONLINE, BEHIND           it leaves (below)       everybody who needs it waits; status says so
 *     OUT, serves its groups   the same                the same
 *     OUT                      its device is given up  -
 *
 * Others have the data when each group with anything in it, the metadata too, has another member
 * that counts and answers. A pool is never fenced, and no data become unreadable, because a disk is
 * slow: it may answer yet. When all disks fall silent together, as behind one controller, none of
 * them leaves. So that this is seen, a disk leaves when it is told the second time.
 *
 *  S1  The disk leaves service in memory. Then its device is given up, which ends all requests that
 *      hang there. Only then a root records that it is out: the writer of a root may be one of
 *      those who hang. Whoever acknowledges something that missed the disk waits for that root, as
 *      after any failure (disk.c).
 *  S2  A disk that left so serves nothing, and takes no roots. So the root says of it that nothing
 *      of it may be served (out_after 0).
 *  S3  It returns only when none of its old requests is left (return.c, GUARD_LATE_IO). Another
 *      process cannot open it before: the kernel keeps it claimed.
 *
 * While a pool is imported nothing is known of its groups for a while, so the import waits for a
 * disk that falls silent after its roots were read.
 */
#include "base/log.h"
#include "pool/disk_impl.h"

#include <stdio.h>

#define TOLD_AGAIN_NS  UINT64_C(60000000000)
#define SECOND_TIME_NS UINT64_C(1000000000)

static void note_waiting(struct pool *p, struct pool_disk *d)
{
    uint64_t now = reactor_now_ns();
    char why[128];
    if ((d->silence_told_ns && now - d->silence_told_ns < TOLD_AGAIN_NS) ||
        !pool_disk_silence(d, why, sizeof(why)))
        return;
    d->silence_told_ns = now;
    vp_warn("pool %s: disk %u (%s): %s", p->name, d->io.index, d->path, why);
}

/* CO. S1, S2. */
static CO int disk_give_up(struct pool *p, struct pool_disk *d)
{
    if (pool_disk_mark_out(p, d, VP_E_IO_SILENT, "a request did not end") != 0)
        return VP_E_POOL_FENCED; /* not here: nobody needs it */
    if (d->out_after) {
        d->out_after = 0;
        p->disk_changes++;
    }
    atomic_store(&d->io.data_only, false);
    io_dev_give_up(d->io.dev);
    return pool_disk_eject(p, d, VP_E_RAID_DISK_OUT, "out of service");
}

static CO int silent_at_home(void *arg)
{
    struct pool_disk *d = arg;
    struct pool *p = d->pool;
    if (p->import || !d->io.dev || !io_dev_silent_ns(d->io.dev))
        return 0;
    uint64_t told_ns = d->silent_at_ns;
    d->silent_at_ns = reactor_now_ns();
    if (d->silent_at_ns - told_ns > SECOND_TIME_NS)
        return 0;
    if (!pool_disk_is_needed(p, d))
        return disk_give_up(p, d);
    note_waiting(p, d);
    return 0;
}

/* Of some reactor. */
static CO void disk_told(void *arg)
{
    struct pool_disk *d = arg;
    vp_ignore(reactor_call(d->pool->home, silent_at_home, d),
              "eject reports by itself; a disk that is still silent is told again");
}

void pool_disk_watch(struct pool_disk *d)
{
    io_dev_watch(d->io.dev, disk_told, d);
}

static CO void device_told(void *arg)
{
    io_dev_give_up(arg);
}

void pool_device_watch(struct io_dev *dev)
{
    io_dev_watch(dev, device_told, dev);
}

bool pool_disk_silence(const struct pool_disk *d, char *out, size_t size)
{
    uint64_t ns = d->io.dev ? io_dev_silent_ns(d->io.dev) : 0;
    if (!ns)
        return false;
    (void)snprintf(
        out, size,
        "it has not answered for %llu s; no other disk that answers has some of its data, so "
        "requests wait for it",
        (unsigned long long)(ns / 1000000000));
    return true;
}

/*
 * What is promised of disks that are lost. A group with N copies survives N-1 of its disks only if
 * metadata do as well: so metadata have as many copies as the widest groups, up to
 * POOL_META_COPIES_MAX, and no profile with more copies is offered any more.
 *
 * When a volume is created that is wider than what was promised before, metadata get the copies
 * first (widen.c), or the volume is refused. The promise stays when the volume goes. Metadata
 * groups that are formed later have fewer copies only where no disk has room; the pool's status
 * says so.
 */
#include "pool/disk_impl.h"
#include "pool/meta_impl.h"

unsigned pool_promised_width(const struct pool *p)
{
    unsigned width = raid_profile_width(p->default_profile);
    return p->promised > width ? p->promised : width;
}

void pool_promise_found(struct pool *p, unsigned width)
{
    if (width > pool_promised_width(p))
        p->promised = width;
}

bool pool_is_wide(const struct pool *p)
{
    return p->wide || pool_meta_copies_wanted(p) > LOG_PLACES;
}

void pool_wide_update(struct pool *p)
{
    struct pool_group *g;
    p->wide = false;
    list_for_each (g, &p->meta_groups, link)
        p->wide |= g->raid->width > LOG_PLACES;
}

static unsigned disks_online(const struct pool *p)
{
    unsigned online = 0;
    for (unsigned i = 0; i < p->disk_count; i++)
        online += p->disk[i].state == POOL_DISK_ONLINE && !p->disk[i].leaves;
    return online;
}

static int fail_promise(struct pool *p, unsigned width, int rc, struct vp_error *err)
{
    unsigned online = disks_online(p);
    if (rc && rc != VP_E_NO_SPACE)
        return vp_fail(err, rc, "pool %s: its metadata cannot get %u copies now: %s", p->name,
                       width, vp_err_text(rc));
    if (online < width)
        return vp_fail(err, VP_E_DISK_TOO_FEW,
                       "pool %s: mirror:%u needs %u disks in service, and there are %u", p->name,
                       width, width, online);
    return vp_fail(err, VP_E_NO_SPACE,
                   "pool %s: mirror:%u would survive the loss of more disks than the pool's "
                   "metadata do, and there is no room for %u copies of these: use disks of about "
                   "the same size, or make room on those that are full",
                   p->name, width, width);
}

/* CO. A root says first that segments may have more than LOG_PLACES copies. The log comes to such a
 * segment before the next checkpoint's root. */
static CO int wide_announce(struct pool *p, unsigned width)
{
    if (width <= LOG_PLACES || pool_is_wide(p))
        return 0;
    p->wide = true;
    return pool_root_write(p, &p->root.now);
}

/* CO. A checkpoint gives metadata the copies that they lack, and its root says what is promised. */
static CO int promise_keep(struct pool *p, unsigned width)
{
    unsigned before = pool_meta_copies_wanted(p);
    int rc = wide_announce(p, width);
    int64_t room = pool_meta_room_left(p);
    if (rc)
        return rc;
    p->promised = width;
    pool_meta_room_update(p);
    if (room >= 0 && pool_meta_room_left(p) < 0) /* fewer groups could be formed than until now */
        return VP_E_NO_SPACE;
    if (pool_meta_is_narrow(p) || pool_meta_copies_wanted(p) > before)
        rc = pool_checkpoint(p);
    if (rc)
        return rc;
    return pool_meta_is_narrow(p) || pool_meta_copies(p) < width ? VP_E_NO_SPACE : 0;
}

CO int pool_promise(struct pool *p, struct raid_profile profile, struct vp_error *err)
{
    unsigned width = raid_profile_width(profile);
    /* The command that creates a volume holds control.lock, and no checkpoint takes it. */
    AUTO_HOLD struct hold_exception e = hold_may_await_checkpoint();
    co_mutex_lock(&p->promising);
    unsigned before = p->promised;
    int rc = 0;
    if (width > pool_promised_width(p) && disks_online(p) < width)
        rc = VP_E_NO_SPACE;
    else if (width > pool_promised_width(p))
        rc = promise_keep(p, width);
    if (rc) {
        p->promised = before;
        if (!p->checkpoint.running) /* else it may be making a group wide */
            pool_wide_update(p);
        pool_meta_room_update(p);
    }
    co_mutex_unlock(&p->promising);
    return rc ? fail_promise(p, width, rc, err) : 0;
}

int pool_profile_check(struct raid_profile profile, struct vp_error *err)
{
    char text[RAID_PROFILE_TEXT];
    raid_profile_format(profile, text);
    if (!raid_profile_is_supported(profile))
        return vp_fail(err, VP_E_NOT_SUPPORTED,
                       "'%s' is not supported by this release: use single or mirror:N", text);
    if (raid_profile_width(profile) > POOL_META_COPIES_MAX)
        return vp_fail(err, VP_E_NOT_SUPPORTED,
                       "'%s' would promise more than it keeps: a pool has at most %d copies of its "
                       "metadata, so use mirror:%d",
                       text, POOL_META_COPIES_MAX, POOL_META_COPIES_MAX);
    return 0;
}

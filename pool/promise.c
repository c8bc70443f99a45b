/*
 * What is promised of disks that are lost. A group with N copies survives N-1 of its disks only if
 * metadata do as well: so metadata have as many copies as the widest groups, up to
 * POOL_META_COPIES_MAX, and no profile with more copies is offered any more.
 */
#include "pool/disk_impl.h"

unsigned pool_promised_width(const struct pool *p)
{
    unsigned width = raid_profile_width(p->default_profile);
    return p->promised > width ? p->promised : width;
}

void pool_promise_found(struct pool *p)
{
    const struct pool_open_groups *kin;
    list_for_each (kin, &p->space->kinds, link) {
        unsigned width = raid_profile_width(kin->profile);
        if (width > pool_promised_width(p))
            p->promised = width;
    }
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

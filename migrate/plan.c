/* Whether a volume can move, and the names of modes and phases. */
#include "migrate/migrate_impl.h"

#include <string.h>

static const char *const mode_names[] = {
    [MIGRATE_OFFLINE] = "offline", [MIGRATE_LIVE] = "live", [MIGRATE_MIRROR] = "mirror"};

int migrate_mode_parse(const char *text, enum migrate_mode *out, struct vp_error *err)
{
    static const char *const not_yet[] = {"auto", "postcopy", "hybrid"};
    for (unsigned i = MIGRATE_OFFLINE; i <= MIGRATE_MIRROR; i++)
        if (strcmp(text, mode_names[i]) == 0) {
            *out = (enum migrate_mode)i;
            return 0;
        }
    for (unsigned i = 0; i < sizeof(not_yet) / sizeof(not_yet[0]); i++)
        if (strcmp(text, not_yet[i]) == 0)
            return vp_fail(err, VP_E_NOT_SUPPORTED,
                           "mode '%s' is not there yet: use 'live', or 'offline', which stops the "
                           "volume's clients while it copies",
                           text);
    return vp_fail(err, VP_E_INVALID, "'%.40s' is not a mode of migration: live, mirror or offline",
                   text);
}

const char *migrate_mode_name(enum migrate_mode mode)
{
    return mode_names[mode];
}

const char *migrate_phase_name(enum migrate_phase phase)
{
    static const char *const names[] = {
        [MIGRATE_PREPARING] = "preparing", [MIGRATE_COPYING] = "copying",
        [MIGRATE_MIRRORING] = "mirroring", [MIGRATE_FREEZING] = "freezing",
        [MIGRATE_DRAINING] = "draining",   [MIGRATE_SWITCHING] = "switching",
        [MIGRATE_LEAVING] = "leaving",     [MIGRATE_UNDOING] = "undoing",
        [MIGRATE_DONE] = "done",           [MIGRATE_FAILED] = "failed",
        [MIGRATE_CANCELLED] = "cancelled", [MIGRATE_IN_DOUBT] = "in doubt"};
    return names[phase];
}

static int source_check(const struct migrate_options *o, const struct volume_info *info,
                        struct vp_error *err)
{
    const char *pool = pool_name(volumes_pool(o->from));
    struct volume_owner_info owner;
    int rc = volume_owner_get(o->from, o->volume, &owner);
    if (rc)
        return vp_fail(err, rc, "no volume %s/%s", pool, o->volume);
    if (info->state == VOLUME_FAULTED)
        return vp_fail(err, VP_E_VOLUME_FAULTED, "volume %s/%s is faulted: %s", pool, o->volume,
                       info->fault);
    if (owner.ownership == VOLUME_OWNER)
        return 0;
    if (owner.ownership == VOLUME_SUPERSEDED)
        return vp_fail(err, VP_E_VOLUME_SUPERSEDED, "volume %s/%s is an older copy of %s", pool,
                       o->volume, owner.move.volume);
    return vp_fail(err, VP_E_VOLUME_MOVING,
                   "volume %s/%s moves already: %s %s, see `vpool migrate status`", pool, o->volume,
                   owner.ownership == VOLUME_INTENT ? "to" : "from", owner.move.volume);
}

int migrate_target_check(struct volumes *vs, const char *name, const struct volume_info *info,
                         struct migrate_plan *plan, struct vp_error *err)
{
    struct pool *to = volumes_pool(vs);
    struct raid_profile profile = info->options.profile;
    char allocated[24], room[24], text[RAID_PROFILE_TEXT];
    const char *same = volume_name_of_uuid(vs, info->uuid);
    struct volume_owner_info taken;
    *plan = (struct migrate_plan){.size_bytes = info->options.size_bytes,
                                  .allocated_bytes = info->valid_bytes};
    if (!volume_name_is_valid(name))
        return vp_fail(err, VP_E_NAME_INVALID, "'%.80s' is not a volume's name", name);
    if (volume_owner_get(vs, name, &taken) == 0)
        return vp_fail(err, VP_E_EXISTS,
                       "volume %s/%s exists already: give another name with --to %s/NAME",
                       pool_name(to), name, pool_name(to));
    if (same)
        return vp_fail(err, VP_E_EXISTS, "volume %s/%s has the same identity: delete one of them",
                       pool_name(to), same);
    int rc = pool_profile_check(profile, err);
    if (rc)
        return rc;
    if (!pool_profile_fits(to, profile))
        return vp_fail(err, VP_E_NO_SPACE, "pool %s has not enough disks for %s", pool_name(to),
                       raid_profile_format(profile, text));
    plan->room_bytes = pool_space_for(to, profile);
    if (plan->room_bytes >= plan->allocated_bytes ||
        !raid_profile_equal(profile, pool_default_profile(to)))
        return 0;
    return vp_fail(err, VP_E_NO_SPACE,
                   "pool %s has room for %s as %s, and %s are allocated: free space there, or add "
                   "disks",
                   pool_name(to), bytes_format_size(plan->room_bytes, room, sizeof(room)),
                   raid_profile_format(profile, text),
                   bytes_format_size(plan->allocated_bytes, allocated, sizeof(allocated)));
}

/* What is recorded of another daemon must be readable after a restart. */
static int way_check(const struct migrate_options *o, struct vp_error *err)
{
    struct volume_move m = {0};
    if (!o->peer)
        return 0;
    bool fits =
        strlen(o->to_name) <= VOLUME_FULL_NAME_MAX && strlen(o->peer_name) <= VOLUME_PEER_MAX;
    if (fits) {
        memcpy(m.volume, o->to_name, strlen(o->to_name) + 1);
        memcpy(m.peer, o->peer_name, strlen(o->peer_name) + 1);
    }
    return fits && volume_move_is_sound(&m)
               ? 0
               : vp_fail(err, VP_E_INVALID,
                         "'%.100s' at '%.200s' cannot be recorded: names are POOL/VOL, and an "
                         "address is printable, without spaces",
                         o->to_name, o->peer_name);
}

CO int migrate_plan(const struct migrate_options *o, struct migrate_plan *out, struct vp_error *err)
{
    struct volume_info info;
    const char *pool = pool_name(volumes_pool(o->from));
    if (!o->peer && o->from == o->to)
        return vp_fail(err, VP_E_INVALID, "volume %s/%s is in pool %s: name another pool", pool,
                       o->volume, pool);
    int rc = volume_info_get(o->from, o->volume, &info);
    if (rc)
        return vp_fail(err, rc, "no volume %s/%s", pool, o->volume);
    *out = (struct migrate_plan){.size_bytes = info.options.size_bytes,
                                 .allocated_bytes = info.valid_bytes};
    rc = source_check(o, &info, err);
    if (!rc)
        rc = way_check(o, err);
    return rc || o->peer ? rc : migrate_target_check(o->to, o->name, &info, out, err);
}

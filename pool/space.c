/* How much room there is: figures, levels, and waiting for room. */
#include "base/log.h"
#include "pool/disk_impl.h"

/* Free room for data below these shares of the whole (percent) is tight, or worth a warning. */
enum { TIGHT_PERCENT = 5, WARN_PERCENT = 15 };

/* A waiter looks again after this long even if nothing woke it: what it waits for may have become
 * possible by something else than an arena coming free. */
#define ROOM_RETRY_NS 1000000000ULL

static bool is_usable(const struct pool_disk *d)
{
    return atomic_load_explicit(&d->io.in_service, memory_order_relaxed);
}

/* Of room and the whole. */
static enum pool_level level_of_share(uint64_t room, uint64_t total)
{
    if (room == 0)
        return POOL_FULL;
    if (room < total / 100 * TIGHT_PERCENT)
        return POOL_TIGHT;
    return room < total / 100 * WARN_PERCENT ? POOL_WARN : POOL_OK;
}

/* Raw bytes in extents that groups of the pool's own profile can use: free space on one disk is no
 * room for a mirror. */
static enum pool_level level_of_data(struct pool *p, const struct pool_space *s,
                                     uint64_t open_bytes)
{
    if (!open_bytes && !pool_group_is_possible(p, p->default_profile))
        return POOL_FULL;
    unsigned width = raid_profile_width(p->default_profile);
    uint64_t group_bytes = width * p->geometry.extent_bytes;
    uint64_t formable = pool_groups_formable(p, width) * group_bytes;
    uint64_t all = pool_groups_of_all(p, width) * group_bytes;
    return level_of_share(min_u64(s->free_bytes - s->reserved_bytes, formable) + open_bytes, all);
}

/* Room for metadata is looked at when no extents are left of which more could be formed. */
static enum pool_level level_of_meta(const struct pool *p, uint64_t room_pages)
{
    if (pool_meta_groups_formable(p) > 1)
        return POOL_OK;
    return room_pages == 0                                          ? POOL_FULL
           : room_pages < p->meta.pages_total / 100 * TIGHT_PERCENT ? POOL_TIGHT
                                                                    : POOL_OK;
}

/* Of volumes with this profile, in groups that are not formed yet. */
static uint64_t formable_writable_bytes(const struct pool *p, const struct pool_space *s,
                                        struct raid_profile profile)
{
    unsigned width = raid_profile_width(profile);
    uint64_t group_bytes = (uint64_t)width * p->geometry.extent_bytes;
    uint64_t raw =
        min_u64(s->free_bytes - s->reserved_bytes, pool_groups_formable(p, width) * group_bytes);
    return raw / group_bytes * profile.data * p->geometry.extent_bytes;
}

void pool_space_get(struct pool *p, struct pool_space *out)
{
    const struct pool_group_figures *sum = &p->space->figures;
    uint64_t extents = 0, meta_extents = 0, used_extents = 0;
    for (unsigned i = 0; i < p->disk_count; i++) {
        const struct pool_disk *d = &p->disk[i];
        if (!is_usable(d))
            continue;
        extents += d->leaves ? d->extents_used : d->extents_total; /* nothing new goes there */
        used_extents += d->extents_used;
        meta_extents += d->extents_meta;
    }
    *out = (struct pool_space){
        .total_bytes = extents * p->geometry.extent_bytes,
        .metadata_bytes = meta_extents * p->geometry.extent_bytes,
        .data_bytes = (used_extents - meta_extents) * p->geometry.extent_bytes,
        .leased_bytes = sum->leased_bytes,
    };
    unsigned width = raid_profile_width(p->default_profile);
    uint64_t usable = pool_groups_of_all(p, width) * (uint64_t)width * p->geometry.extent_bytes;
    out->unusable_bytes = out->total_bytes - usable;
    out->free_bytes = out->total_bytes - out->data_bytes - out->metadata_bytes;
    uint64_t reserve = (uint64_t)pool_meta_reserve_groups(p) * pool_meta_copies(p);
    out->reserved_bytes = min_u64(out->free_bytes, reserve * p->geometry.extent_bytes);
    out->writable_bytes = sum->writable_bytes + formable_writable_bytes(p, out, p->default_profile);
    pool_meta_usage(p, &out->meta_pages_total, &out->meta_pages_used, &out->meta_pages_room);
    enum pool_level data = level_of_data(p, out, sum->open_bytes);
    enum pool_level meta = level_of_meta(p, out->meta_pages_room);
    out->level = data > meta ? data : meta;
}

bool pool_profile_fits(struct pool *p, struct raid_profile profile)
{
    return pool_groups_of_all(p, raid_profile_width(profile)) > 0;
}

uint64_t pool_space_for(struct pool *p, struct raid_profile profile)
{
    struct pool_space s;
    pool_space_get(p, &s);
    return raid_profile_equal(profile, p->default_profile)
               ? s.writable_bytes
               : formable_writable_bytes(p, &s, profile);
}

enum pool_level pool_level(const struct pool *p)
{
    return atomic_load_explicit(&p->space->level, memory_order_relaxed);
}

void pool_space_update_level(struct pool *p)
{
    static const char *const name[] = {"ok", "warn", "tight", "full"};
    struct pool_space now;
    pool_space_get(p, &now);
    enum pool_level before = p->space->level;
    char free_text[16];
    p->space->level = now.level;
    if (now.level != before)
        vp_log(
            now.level > before ? VP_LOG_WARN : VP_LOG_INFO, "pool %s: room is %s (was %s): %s free",
            p->name, name[now.level], name[before],
            bytes_format_size(now.free_bytes - now.reserved_bytes, free_text, sizeof(free_text)));
}

void pool_space_changed(struct pool *p)
{
    if (!p->space)
        return; /* still importing */
    pool_space_update_level(p);
    p->space->room_events++;
    co_queue_wake_all(&p->room);
}

/* Room that came between the failed lease and this call must not be slept through: room_events says
 * whether there was any since the last failure. */
static CO int wait_at_home(void *arg)
{
    struct pool *p = arg;
    if (!p->closing && p->space->room_events == p->space->failed_at) {
        int rc = co_queue_wait_until(&p->room, reactor_now_ns() + ROOM_RETRY_NS, "room");
        if (rc == VP_E_CANCELLED)
            return rc;
    }
    return p->closing ? VP_E_CANCELLED : 0;
}

CO int pool_wait_for_room(struct pool *p)
{
    hold_verify(RESOURCE_ROOM);
    return reactor_call_for_client(p->home, wait_at_home, p);
}

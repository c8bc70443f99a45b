/* GROUP records: encoding, decoding with bounds, and building all groups from them at import. */
#include "pool/group_format.h"

#include "pool/disk_impl.h"
#include "pool/meta_impl.h"

#include <stdlib.h>
#include <string.h>

static uint32_t extent_at(const struct pool_disk *d, uint64_t base_bytes)
{
    return (uint32_t)((base_bytes - POOL_LABEL_AREA) / d->pool->geometry.extent_bytes);
}

void pool_group_members_know(struct pool_group *g, const struct raid_group *members)
{
    for (unsigned m = 0; m < members->width; m++) {
        g->disk[m] = container_of(members->disk[m], struct pool_disk, io);
        g->extent[m] = extent_at(g->disk[m], members->base_bytes[m]);
    }
}

static void record_put(struct pool_batch *b, const struct pool_group *g, const struct raid_group *r,
                       struct pool_disk *const *disk, const uint32_t *extent)
{
    size_t len = sizeof(struct pool_group_disk) + r->width * sizeof(struct pool_group_member_disk) +
                 g->arenas * sizeof(struct le32);
    uint8_t *value = malloc(len);
    if (!value) {
        b->failed = true;
        return;
    }
    struct pool_group_disk head = {
        .role = (uint8_t)g->role,
        .kind = r->profile.kind,
        .data = r->profile.data,
        .extra = r->profile.extra,
        .members = (uint8_t)r->width,
        .arenas = le32_make(g->arenas),
        .slots = le32_make(g->slots),
        .first_slot = le64_make(g->first_slot),
    };
    memcpy(value, &head, sizeof(head));
    uint8_t *at = value + sizeof(head);
    for (unsigned m = 0; m < r->width; m++) {
        struct pool_group_member_disk member = {le32_make(disk[m]->io.index), le32_make(extent[m])};
        memcpy(at, &member, sizeof(member));
        at += sizeof(member);
    }
    for (uint32_t a = 0; a < g->arenas; a++, at += sizeof(struct le32)) {
        struct le32 owner = le32_make(g->arena_owner[a]);
        memcpy(at, &owner, sizeof(owner));
    }
    pool_batch_set(b, POOL_RECORD_GROUP, 0, r->id, value, len);
    free(value);
}

void pool_group_record(struct pool_batch *b, const struct pool_group *g)
{
    record_put(b, g, g->raid, g->disk, g->extent);
}

void pool_group_record_of(struct pool_batch *b, const struct pool_group *g,
                          const struct raid_group *members)
{
    struct pool_disk *disk[RAID_WIDTH_MAX];
    uint32_t extent[RAID_WIDTH_MAX];
    for (unsigned m = 0; m < members->width; m++) {
        disk[m] = container_of(members->disk[m], struct pool_disk, io);
        extent[m] = extent_at(disk[m], members->base_bytes[m]);
    }
    record_put(b, g, members, disk, extent);
}

int pool_group_decode(const void *value, size_t len, struct pool_group_info *out)
{
    struct pool_group_disk head;
    if (len < sizeof(head))
        return VP_E_RECORD_BAD;
    memcpy(&head, value, sizeof(head));
    uint64_t arenas = le32_get(head.arenas);
    size_t members_len = head.members * sizeof(struct pool_group_member_disk);
    if (head.members < 1 || head.members > RAID_WIDTH_MAX ||
        len != sizeof(head) + members_len + arenas * sizeof(struct le32))
        return VP_E_RECORD_BAD;
    *out = (struct pool_group_info){
        .role = head.role,
        .profile = {head.kind, head.data, head.extra},
        .members = head.members,
        .arenas = (uint32_t)arenas,
        .slots = le32_get(head.slots),
        .first_slot = le64_get(head.first_slot),
    };
    if ((out->role != POOL_GROUP_DATA && out->role != POOL_GROUP_META) ||
        raid_profile_width(out->profile) != head.members || head.data < 1)
        return VP_E_RECORD_BAD;
    const uint8_t *at = (const uint8_t *)value + sizeof(head);
    for (unsigned m = 0; m < head.members; m++, at += sizeof(struct pool_group_member_disk)) {
        struct pool_group_member_disk member;
        memcpy(&member, at, sizeof(member));
        out->disk[m] = le32_get(member.disk);
        out->extent[m] = le32_get(member.extent);
    }
    out->owner = (const struct le32 *)(const void *)at;
    return 0;
}

/* ---- import -------------------------------------------------------------------------------- */

struct load {
    struct pool *pool;
    struct vp_error *err;
};

/* What in the record disagrees with the pool; NULL for nothing. */
static const char *find_fault(const struct pool *p, uint64_t id, const struct pool_group_info *i)
{
    const struct pool_space_map *s = p->space;
    if (id < 1 || id >= s->id.size || pool_group_at(&s->id, id))
        return "its number is out of range or used twice";
    if (!raid_profile_is_supported(i->profile))
        return "its profile is not served by this release";
    for (unsigned m = 0; m < i->members; m++) {
        if (i->disk[m] >= p->disk_count || p->disk[i->disk[m]].state == POOL_DISK_NONE ||
            i->extent[m] >= p->disk[i->disk[m]].extents_total)
            return "a member is beyond the disks";
        if (bitmap_test(p->disk[i->disk[m]].extent_map, i->extent[m]))
            return "an extent belongs to another group too";
        for (unsigned k = 0; k < m; k++)
            if (i->disk[k] == i->disk[m])
                return "two members are on one disk";
    }
    struct pool_group_shape shape = {0};
    if (i->role == POOL_GROUP_DATA)
        shape = pool_group_shape(&p->geometry, i->profile);
    if (i->arenas != shape.arenas || i->slots != shape.slots)
        return "its arenas do not fit the geometry";
    if (i->role == POOL_GROUP_META)
        return NULL;
    if (i->first_slot < 1 || i->first_slot >= s->slot.size ||
        i->slots > s->slot.size - i->first_slot)
        return "its slots are out of range";
    for (uint32_t k = 0; k < i->slots; k++)
        if (pool_group_at(&s->slot, i->first_slot + k))
            return "its slots belong to another group too";
    return NULL;
}

static int load_group(const struct pool_record *r, void *arg)
{
    struct load *l = arg;
    struct pool_group_info info;
    int rc = pool_group_decode(r->value, r->len, &info);
    const char *fault = rc ? "it does not decode" : find_fault(l->pool, r->key, &info);
    if (fault)
        return vp_fail(l->err, VP_E_RECORD_BAD, "the record of group %llu is bad: %s",
                       (unsigned long long)r->key, fault);
    rc = pool_group_restore(l->pool, (uint32_t)r->key, &info);
    return rc ? vp_fail(l->err, rc, "group %llu: %s", (unsigned long long)r->key, vp_err_text(rc))
              : 0;
}

CO int pool_groups_load(struct pool *p, struct vp_error *err)
{
    int rc = pool_space_map_new(p);
    if (rc)
        return vp_fail(err, rc, "the group table: %s", vp_err_text(rc));
    struct load l = {.pool = p, .err = err};
    rc = pool_record_each_in_turns(p, POOL_RECORD_GROUP, load_group, &l);
    if (rc == 0) {
        pool_wide_update(p);
        pool_space_changed(p);
    }
    return rc;
}

/* ---- a group whose record never became durable ----------------------------------------------- */

static uint32_t free_id(const struct pool_space_map *s)
{
    uint32_t id = 1;
    while (pool_group_at(&s->id, id))
        id++;
    return id;
}

int pool_group_adopt(struct pool *p, const struct pool_place *at, struct pool_batch *b)
{
    struct pool_group_info info = {
        .role = POOL_GROUP_META,
        .profile = {.kind = at->copies > 1 ? RAID_MIRROR : RAID_SINGLE,
                    .data = 1,
                    .extra = (uint8_t)(at->copies - 1)},
        .members = at->copies,
    };
    for (unsigned m = 0; m < at->copies; m++) {
        if (at->at_bytes[m] < POOL_LABEL_AREA)
            return VP_E_SEGMENT_BAD;
        info.disk[m] = at->disk[m];
        info.extent[m] = (uint32_t)((at->at_bytes[m] - POOL_LABEL_AREA) / p->geometry.extent_bytes);
    }
    uint32_t id = free_id(p->space);
    if (find_fault(p, id, &info))
        return VP_E_SEGMENT_BAD;
    int rc = pool_group_restore(p, id, &info);
    if (rc == 0)
        pool_group_record(b, pool_group_find(p, id));
    return rc;
}

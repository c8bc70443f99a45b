/* The VOLUME record: bytes to struct and back. See volume_format.h. */
#include "volumes/volumes_impl.h"

size_t volume_record_encode(const struct volume_record *r, uint8_t out[VOLUME_RECORD_BYTES_MAX])
{
    const struct volume_options *o = &r->options;
    size_t name_len = strlen(r->name);
    unsigned flags = (o->zero_detect ? VOLUME_RECORD_ZERO_DETECT : 0) |
                     (o->sync_always ? VOLUME_RECORD_SYNC_ALWAYS : 0) |
                     (o->read_only ? VOLUME_RECORD_READ_ONLY : 0);
    struct volume_record_disk d = {
        .version = le16_make(VOLUME_RECORD_VERSION),
        .name_len = le16_make((uint16_t)name_len),
        .profile_kind = o->profile.kind,
        .profile_data = o->profile.data,
        .profile_extra = o->profile.extra,
        .state = r->deleting ? VOLUME_RECORD_DELETING : VOLUME_RECORD_LIVE,
        .size_bytes = le64_make(o->size_bytes),
        .reserve_bytes = le64_make(o->reserve_bytes),
        .created_seconds = le64_make(r->created_seconds),
        .sector_bytes = le32_make(o->sector_bytes),
        .flags = le16_make((uint16_t)flags),
        .full_policy =
            o->full_policy == VOLUME_FULL_ENOSPC ? VOLUME_RECORD_ENOSPC : VOLUME_RECORD_PAUSE,
    };
    memcpy(d.uuid, r->uuid.b, sizeof(d.uuid));
    memcpy(out, &d, sizeof(d));
    memcpy(out + sizeof(d), r->name, name_len);
    return sizeof(d) + name_len;
}

static bool fixed_part_is_sound(const struct volume_record_disk *d)
{
    uint32_t sector = le32_get(d->sector_bytes);
    uint64_t size = le64_get(d->size_bytes);
    return le16_get(d->version) == VOLUME_RECORD_VERSION &&
           !(le16_get(d->flags) & ~VOLUME_RECORD_FLAGS_KNOWN) &&
           (sector == 512 || sector == 4096) && size > 0 && size <= VOLUME_SIZE_MAX &&
           is_aligned(size, sector) &&
           (d->state == VOLUME_RECORD_LIVE || d->state == VOLUME_RECORD_DELETING) &&
           (d->full_policy == VOLUME_RECORD_PAUSE || d->full_policy == VOLUME_RECORD_ENOSPC);
}

int volume_record_decode(const void *bytes, size_t len, struct volume_record *out)
{
    struct volume_record_disk d;
    if (len < sizeof(d))
        return VP_E_RECORD_BAD;
    memcpy(&d, bytes, sizeof(d));
    size_t name_len = le16_get(d.name_len);
    if (!fixed_part_is_sound(&d) || name_len > VOLUME_NAME_MAX || len != sizeof(d) + name_len)
        return VP_E_RECORD_BAD;

    unsigned flags = le16_get(d.flags);
    *out = (struct volume_record){
        .created_seconds = le64_get(d.created_seconds),
        .deleting = d.state == VOLUME_RECORD_DELETING,
        .options =
            {
                .size_bytes = le64_get(d.size_bytes),
                .has_profile = true,
                .profile = {d.profile_kind, d.profile_data, d.profile_extra},
                .sector_bytes = le32_get(d.sector_bytes),
                .full_policy =
                    d.full_policy == VOLUME_RECORD_ENOSPC ? VOLUME_FULL_ENOSPC : VOLUME_FULL_PAUSE,
                .zero_detect = flags & VOLUME_RECORD_ZERO_DETECT,
                .sync_always = flags & VOLUME_RECORD_SYNC_ALWAYS,
                .read_only = flags & VOLUME_RECORD_READ_ONLY,
                .reserve_bytes = le64_get(d.reserve_bytes),
            },
    };
    memcpy(out->uuid.b, d.uuid, sizeof(d.uuid));
    memcpy(out->name, (const char *)bytes + sizeof(d), name_len);
    if (!volume_name_is_valid(out->name) || strlen(out->name) != name_len)
        return VP_E_RECORD_BAD;
    return raid_profile_is_supported(out->options.profile) ? 0 : VP_E_RECORD_BAD;
}

void volume_record_put(const struct volume *v, const char *name, const struct volume_options *o,
                       bool deleting, struct pool_batch *b)
{
    struct volume_record r = {.uuid = v->uuid,
                              .created_seconds = v->created_seconds,
                              .deleting = deleting,
                              .options = *o};
    memcpy(r.name, name, strlen(name) + 1);
    uint8_t bytes[VOLUME_RECORD_BYTES_MAX];
    size_t len = volume_record_encode(&r, bytes);

    pool_batch_set(b, POOL_RECORD_VOLUME, v->id, 0, bytes, len);
    struct le64 next = le64_make(v->vs->next_id);
    pool_batch_set(b, POOL_RECORD_COUNTER, 0, VOLUME_COUNTER_NEXT_ID, &next, sizeof(next));
}

CO int volume_record_commit(struct volume *v, const char *name, const struct volume_options *o,
                            bool deleting)
{
    struct pool_batch b;
    pool_batch_init(&b);
    volume_record_put(v, name, o, deleting, &b);
    int rc = pool_commit(v->vs->pool, &b);
    pool_batch_fini(&b);
    return rc;
}

/* The VOLUME record: bytes to struct and back. See volume_format.h. */
#include "volumes/volumes_impl.h"

#define EPOCH_MAX (UINT64_MAX / 2) /* in a record: so none overflows when it grows */

/* ---- the owner ---------------------------------------------------------------------------- */

/* Where a volume never moved there is nothing to write. */
static bool owner_is_first(const struct volume_owner *o)
{
    return o->ownership == VOLUME_OWNER && o->epoch == 1;
}

static size_t owner_encode(const struct volume_owner *o, uint8_t *out)
{
    struct volume_owner_disk d = {.epoch = le64_make(o->epoch),
                                  .ownership = (uint8_t)o->ownership,
                                  .other_len = (uint8_t)strlen(o->move.volume),
                                  .peer_len = (uint8_t)strlen(o->move.peer)};
    memcpy(d.move, o->move.id.b, sizeof(d.move));
    memcpy(d.pool, o->move.pool.b, sizeof(d.pool));
    memcpy(out, &d, sizeof(d));
    return sizeof(d);
}

/* "POOL/VOL", for people: both are names that pools and volumes may have. */
static bool other_name_is_sound(const char *name, size_t len)
{
    char pool[POOL_NAME_MAX + 1] = "";
    const char *slash = memchr(name, '/', len);
    if (!slash || slash - name > POOL_NAME_MAX || strlen(name) != len)
        return false;
    memcpy(pool, name, (size_t)(slash - name));
    return volume_name_is_valid(pool) && volume_name_is_valid(slash + 1);
}

static bool peer_is_sound(const char *peer, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (peer[i] <= ' ' || peer[i] > '~')
            return false;
    return true;
}

bool volume_move_is_sound(const struct volume_move *m)
{
    return other_name_is_sound(m->volume, strlen(m->volume)) &&
           peer_is_sound(m->peer, strlen(m->peer));
}

/* `other` is other_len and peer_len bytes. */
static int owner_decode(const struct volume_owner_disk *d, const char *other,
                        struct volume_owner *out)
{
    bool moves = d->ownership != VOLUME_OWNER;
    if (d->ownership < VOLUME_OWNER || d->ownership > VOLUME_SUPERSEDED || !le64_get(d->epoch) ||
        le64_get(d->epoch) > EPOCH_MAX || d->other_len > VOLUME_FULL_NAME_MAX ||
        moves != (d->other_len > 0) || (!moves && d->peer_len) ||
        !peer_is_sound(other + d->other_len, d->peer_len))
        return VP_E_RECORD_BAD;
    *out = (struct volume_owner){.ownership = (enum volume_ownership)d->ownership,
                                 .epoch = le64_get(d->epoch)};
    if (!moves)
        return 0;
    memcpy(out->move.id.b, d->move, sizeof(d->move));
    memcpy(out->move.pool.b, d->pool, sizeof(d->pool));
    memcpy(out->move.volume, other, d->other_len);
    memcpy(out->move.peer, other + d->other_len, d->peer_len);
    return other_name_is_sound(out->move.volume, d->other_len) ? 0 : VP_E_RECORD_BAD;
}

/* ---- the record --------------------------------------------------------------------------- */

size_t volume_record_encode(const struct volume_record *r, uint8_t out[VOLUME_RECORD_BYTES_MAX])
{
    const struct volume_options *o = &r->options;
    const struct volume_move *m = &r->owner.move;
    size_t name_len = strlen(r->name), other_len = strlen(m->volume), peer_len = strlen(m->peer);
    bool first = owner_is_first(&r->owner);
    unsigned flags = (o->zero_detect ? VOLUME_RECORD_ZERO_DETECT : 0) |
                     (o->sync_always ? VOLUME_RECORD_SYNC_ALWAYS : 0) |
                     (o->read_only ? VOLUME_RECORD_READ_ONLY : 0);
    struct volume_record_disk d = {
        .version = le16_make(first ? VOLUME_RECORD_VERSION : VOLUME_RECORD_VERSION_MOVED),
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
    size_t len = sizeof(d);
    if (!first)
        len += owner_encode(&r->owner, out + len);
    memcpy(out + len, r->name, name_len);
    len += name_len;
    memcpy(out + len, m->volume, other_len); /* of the first owner: nothing */
    len += other_len;
    memcpy(out + len, m->peer, peer_len);
    return len + peer_len;
}

static bool fixed_part_is_sound(const struct volume_record_disk *d)
{
    uint32_t sector = le32_get(d->sector_bytes);
    uint64_t size = le64_get(d->size_bytes);
    return !(le16_get(d->flags) & ~VOLUME_RECORD_FLAGS_KNOWN) &&
           (sector == 512 || sector == 4096) && size > 0 && size <= VOLUME_SIZE_MAX &&
           is_aligned(size, sector) &&
           (d->state == VOLUME_RECORD_LIVE || d->state == VOLUME_RECORD_DELETING) &&
           (d->full_policy == VOLUME_RECORD_PAUSE || d->full_policy == VOLUME_RECORD_ENOSPC);
}

/* Cuts a record into its parts. *name: name_len bytes. */
static int parts_decode(const uint8_t *at, size_t len, struct volume_record_disk *d,
                        const uint8_t **name, struct volume_owner *owner)
{
    struct volume_owner_disk o = {0};
    if (len < sizeof(*d))
        return VP_E_RECORD_BAD;
    memcpy(d, at, sizeof(*d));
    at += sizeof(*d);
    len -= sizeof(*d);
    unsigned version = le16_get(d->version);
    bool moved = version == VOLUME_RECORD_VERSION_MOVED;
    if ((version != VOLUME_RECORD_VERSION && !moved) || (moved && len < sizeof(o)))
        return VP_E_RECORD_BAD;
    if (moved) {
        memcpy(&o, at, sizeof(o));
        at += sizeof(o);
        len -= sizeof(o);
    }
    size_t name_len = le16_get(d->name_len);
    if (name_len > VOLUME_NAME_MAX || len != name_len + o.other_len + o.peer_len)
        return VP_E_RECORD_BAD;
    *name = at;
    *owner = VOLUME_OWNER_FIRST;
    return moved ? owner_decode(&o, (const char *)at + name_len, owner) : 0;
}

int volume_record_decode(const void *bytes, size_t len, struct volume_record *out)
{
    struct volume_record_disk d;
    struct volume_owner owner;
    const uint8_t *name;
    if (parts_decode(bytes, len, &d, &name, &owner) || !fixed_part_is_sound(&d))
        return VP_E_RECORD_BAD;

    size_t name_len = le16_get(d.name_len);
    unsigned flags = le16_get(d.flags);
    *out = (struct volume_record){
        .created_seconds = le64_get(d.created_seconds),
        .deleting = d.state == VOLUME_RECORD_DELETING,
        .owner = owner,
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
    memcpy(out->name, name, name_len);
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
                              .options = *o,
                              .owner = v->owner};
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

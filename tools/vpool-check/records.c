/* Records: a list that is folded into a table, and what they say as JSON. */
#include "tools/vpool-check/check.h"

#include "control/attachment_record.h"
#include "thin/thin_format.h"
#include "volumes/volume_format.h"

#include <stdlib.h>
#include <string.h>

static void add(struct check_records *t, const struct check_record *r)
{
    if (t->count == t->capacity) {
        t->capacity = t->capacity ? 2 * t->capacity : 64;
        t->r = check_grow(t->r, t->capacity, sizeof(*t->r));
    }
    struct check_record *to = &t->r[t->count];
    *to = *r;
    to->order = (uint32_t)t->count++;
    to->value = check_grow(NULL, r->len, 1);
    if (r->len)
        memcpy(to->value, r->value, r->len);
}

void check_records_add(struct check_records *t, const struct record_view *v)
{
    add(t, &(struct check_record){.kind = v->r.kind,
                                  .is_delete = v->op == RECORD_DELETE,
                                  .scope = v->r.scope,
                                  .len = v->r.len,
                                  .key = v->r.key,
                                  .value = (uint8_t *)(uintptr_t)v->r.value});
}

void check_records_copy(struct check_records *to, const struct check_records *from)
{
    for (size_t i = 0; i < from->count; i++)
        add(to, &from->r[i]);
}

void check_records_free(struct check_records *t)
{
    for (size_t i = 0; i < t->count; i++)
        free(t->r[i].value);
    free(t->r);
    *t = (struct check_records){0};
}

static int compare(const void *a, const void *b)
{
    const struct check_record *x = a, *y = b;
    if (x->kind != y->kind)
        return x->kind < y->kind ? -1 : 1;
    if (x->scope != y->scope)
        return x->scope < y->scope ? -1 : 1;
    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    return 0;
}

static int compare_ordered(const void *a, const void *b)
{
    const struct check_record *x = a, *y = b;
    int n = compare(a, b);
    return n ? n : x->order < y->order ? -1 : x->order > y->order;
}

void check_records_fold(struct check_records *t, bool drop)
{
    size_t kept = 0;
    if (t->count)
        qsort(t->r, t->count, sizeof(*t->r), compare_ordered);
    for (size_t i = 0; i < t->count; i++) {
        bool last = i + 1 == t->count || compare(&t->r[i], &t->r[i + 1]) != 0;
        if (last && !(drop && t->r[i].is_delete))
            t->r[kept++] = t->r[i];
        else
            free(t->r[i].value);
    }
    t->count = kept;
}

const struct check_record *check_records_find(const struct check_records *t, unsigned kind,
                                              uint32_t scope, uint64_t key)
{
    struct check_record want = {.kind = (uint16_t)kind, .scope = scope, .key = key};
    return t->count ? bsearch(&want, t->r, t->count, sizeof(want), compare) : NULL;
}

size_t check_records_range(const struct check_records *t, unsigned kind, uint32_t scope,
                           const struct check_record **first)
{
    struct check_record want = {.kind = (uint16_t)kind, .scope = scope};
    size_t low = 0, high = t->count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (compare(&t->r[mid], &want) < 0)
            low = mid + 1;
        else
            high = mid;
    }
    *first = t->r + low;
    size_t n = 0;
    while (low + n < t->count && t->r[low + n].kind == kind && t->r[low + n].scope == scope)
        n++;
    return n;
}

/* ---- JSON ---------------------------------------------------------------------------------- */

const char *check_record_kind(unsigned kind)
{
    static const char *const name[] = {
        [POOL_RECORD_DISK] = "DISK",       [POOL_RECORD_GROUP] = "GROUP",
        [POOL_RECORD_METAMAP] = "METAMAP", [POOL_RECORD_PROPERTY] = "PROPERTY",
        [POOL_RECORD_VOLUME] = "VOLUME",   [POOL_RECORD_TREE] = "TREE",
        [POOL_RECORD_STAT] = "STAT",       [POOL_RECORD_INTENT] = "INTENT",
        [POOL_RECORD_COUNTER] = "COUNTER", [POOL_RECORD_MAP] = "MAP",
        [POOL_RECORD_SPACE] = "SPACE",     [POOL_RECORD_ATTACHMENT] = "ATTACHMENT",
    };
    return kind < sizeof(name) / sizeof(name[0]) && name[kind] ? name[kind] : "?";
}

/* Bytes as text when they are that, else in hexadecimal. */
static json_t *bytes_json(const void *bytes, size_t len)
{
    json_t *text = len && !memchr(bytes, 0, len) ? json_stringn(bytes, len) : NULL;
    if (text)
        return text;
    char *hex = check_grow(NULL, 2 * len + 1, 1);
    static const char digit[] = "0123456789abcdef";
    for (size_t i = 0; i < len; i++) {
        hex[2 * i] = digit[((const uint8_t *)bytes)[i] >> 4];
        hex[2 * i + 1] = digit[((const uint8_t *)bytes)[i] & 15];
    }
    hex[2 * len] = 0;
    json_t *out = json_string(hex);
    free(hex);
    return out;
}

static json_t *group_json(const struct check_record *r)
{
    struct pool_group_info g;
    char profile[RAID_PROFILE_TEXT];
    if (pool_group_decode(r->value, r->len, &g) != 0)
        return NULL;
    json_t *members = json_array(), *owners = json_array();
    for (unsigned m = 0; m < g.members; m++)
        json_array_append_new(members, json_pack("{s:I, s:I}", "disk", (json_int_t)g.disk[m],
                                                 "extent", (json_int_t)g.extent[m]));
    for (uint32_t a = 0; a < g.arenas; a++)
        json_array_append_new(owners, json_integer(le32_get(g.owner[a])));
    return json_pack(
        "{s:s, s:s, s:I, s:I, s:o, s:o}", "role", g.role == POOL_GROUP_DATA ? "data" : "metadata",
        "profile", raid_profile_format(g.profile, profile), "first_slot", (json_int_t)g.first_slot,
        "slots", (json_int_t)g.slots, "members", members, "arena_owners", owners);
}

static json_t *volume_json(const struct check_record *r)
{
    struct volume_record_disk v;
    char profile[RAID_PROFILE_TEXT];
    if (r->len < sizeof(v))
        return NULL;
    memcpy(&v, r->value, sizeof(v));
    if (le16_get(v.name_len) != r->len - sizeof(v))
        return NULL;
    return json_pack(
        "{s:o, s:I, s:s, s:i, s:i, s:I}", "name",
        bytes_json(r->value + sizeof(v), r->len - sizeof(v)), "size_bytes",
        (json_int_t)le64_get(v.size_bytes), "profile",
        raid_profile_format((struct raid_profile){v.profile_kind, v.profile_data, v.profile_extra},
                            profile),
        "state", (int)v.state, "flags", (int)le16_get(v.flags), "reserve_bytes",
        (json_int_t)le64_get(v.reserve_bytes));
}

static json_t *tree_json(const struct check_record *r)
{
    struct thin_tree_record_disk t;
    if (r->len != sizeof(t))
        return NULL;
    memcpy(&t, r->value, sizeof(t));
    return json_pack("{s:I, s:I, s:I, s:i}", "addr", (json_int_t)le64_get(t.root.addr), "crc",
                     (json_int_t)le32_get(t.root.crc), "generation",
                     (json_int_t)le32_get(t.root.generation), "height", (int)t.height);
}

static json_t *stat_json(const struct check_record *r)
{
    struct thin_stat_record_disk s;
    if (r->len != sizeof(s))
        return NULL;
    memcpy(&s, r->value, sizeof(s));
    return json_pack("{s:I, s:I, s:I}", "allocated_chunks",
                     (json_int_t)le64_get(s.allocated_chunks), "valid_blocks",
                     (json_int_t)le64_get(s.valid_blocks), "generation",
                     (json_int_t)le64_get(s.generation));
}

static json_t *attachment_json(const struct check_record *r)
{
    struct attachment_record a;
    struct attachment_disk d;
    if (!attachment_record_decode(r->value, r->len, &a))
        return NULL;
    memcpy(&d, r->value, sizeof(d));
    json_t *aliases = json_array();
    for (unsigned i = 0; i < a.aliases.count; i++)
        (void)json_array_append_new(aliases, json_string(a.aliases.name[i]));
    return json_pack("{s:i, s:i, s:I, s:o, s:o}", "kind", (int)a.kind, "flags", (int)d.flags,
                     "volume_id", (json_int_t)a.volume_id, "address",
                     bytes_json(a.address, a.address_len), "aliases", aliases);
}

static json_t *value_json(const struct check_record *r)
{
    switch (r->kind) {
    case POOL_RECORD_GROUP:
        return group_json(r);
    case POOL_RECORD_VOLUME:
        return volume_json(r);
    case POOL_RECORD_TREE:
        return tree_json(r);
    case POOL_RECORD_STAT:
        return stat_json(r);
    case POOL_RECORD_ATTACHMENT:
        return attachment_json(r);
    case POOL_RECORD_PROPERTY: /* ends with a NUL */
        return bytes_json(r->value, strnlen((const char *)r->value, r->len));
    default:
        return NULL;
    }
}

json_t *check_record_json(const struct check_record *r)
{
    json_t *value = r->is_delete ? json_null() : value_json(r);
    if (!value)
        value = bytes_json(r->value, r->len);
    json_t *o = json_pack("{s:s, s:I, s:I, s:o}", "kind", check_record_kind(r->kind), "scope",
                          (json_int_t)r->scope, "key", (json_int_t)r->key, "value", value);
    if (!o)
        check_out_of_memory();
    return o;
}

/* Records of attachments. */
#include "control/attachment_record.h"

#include <string.h>

/* ---- names --------------------------------------------------------------------------------- */

static void alias_remove(struct attachment_aliases *a, unsigned i)
{
    memmove(a->name[i], a->name[i + 1], (a->count - i - 1) * sizeof(a->name[0]));
    a->count--;
}

/* a->count: it is not there. */
static unsigned alias_find(const struct attachment_aliases *a, const char *name)
{
    unsigned i = 0;
    while (i < a->count && strcmp(a->name[i], name) != 0)
        i++;
    return i;
}

static void alias_forget(struct attachment_aliases *a, const char *name)
{
    unsigned i = alias_find(a, name);
    if (i < a->count)
        alias_remove(a, i);
}

static void text_copy(char *out, const char *text, size_t len)
{
    memcpy(out, text, len);
    out[len] = 0;
}

void attachment_aliases_follow(struct attachment_aliases *a, const char *before, const char *now,
                               char dropped[static VOLUME_FULL_NAME_MAX + 1])
{
    dropped[0] = 0;
    alias_forget(a, now);
    alias_forget(a, before);
    if (a->count == ATTACHMENT_ALIASES_MAX) {
        text_copy(dropped, a->name[1], strlen(a->name[1]));
        alias_remove(a, 1);
    }
    text_copy(a->name[a->count++], before, strnlen(before, VOLUME_FULL_NAME_MAX));
}

/* "POOL/VOL". Pools are named by the same rule as volumes, but for the length. */
static bool is_full_name(const char *name)
{
    const char *slash = strchr(name, '/');
    char pool[POOL_NAME_MAX + 1];
    size_t len = slash ? (size_t)(slash - name) : 0;
    if (len == 0 || len > POOL_NAME_MAX)
        return false;
    text_copy(pool, name, len);
    return volume_name_is_valid(pool) && volume_name_is_valid(slash + 1);
}

/* ---- bytes --------------------------------------------------------------------------------- */

struct cursor {
    const unsigned char *at;
    size_t left;
};

/* NULL: there are not so many bytes. */
static const void *take(struct cursor *c, size_t len)
{
    const unsigned char *at = c->at;
    if (c->left < len)
        return NULL;
    c->at += len;
    c->left -= len;
    return at;
}

/* Names that are none, or are there already, are left out. */
static void aliases_decode(struct cursor *c, struct attachment_aliases *out)
{
    const unsigned char *count = take(c, 1), *len;
    for (unsigned left = count ? *count : 0; left > 0 && (len = take(c, 1)); left--) {
        const char *text = take(c, *len);
        if (!text)
            return;
        if (*len > VOLUME_FULL_NAME_MAX || out->count == ATTACHMENT_ALIASES_MAX ||
            memchr(text, 0, *len))
            continue;
        char *name = out->name[out->count];
        text_copy(name, text, *len);
        if (is_full_name(name) && alias_find(out, name) == out->count)
            out->count++;
    }
}

static struct attachment_socket socket_decode(struct cursor *c)
{
    struct attachment_socket_disk s;
    const void *at = take(c, sizeof(s));
    if (!at)
        return attachment_socket_default();
    memcpy(&s, at, sizeof(s));
    uint16_t mode = le16_get(s.mode);
    return (struct attachment_socket){.uid = le32_get(s.uid),
                                      .gid = le32_get(s.gid),
                                      .mode = mode <= 0777 ? mode : ATTACHMENT_MODE_UNSET};
}

bool attachment_record_decode(const void *value, size_t len, struct attachment_record *out)
{
    struct cursor c = {value, len};
    struct attachment_disk d;
    const void *head = take(&c, sizeof(d));
    if (!head)
        return false;
    memcpy(&d, head, sizeof(d));
    *out = (struct attachment_record){.kind = d.kind,
                                      .read_only = d.flags & ATTACHMENT_READ_ONLY,
                                      .volume_id = le32_get(d.volume_id),
                                      .address_len = le16_get(d.address_len),
                                      .socket = attachment_socket_default()};
    out->address = take(&c, out->address_len);
    if (le16_get(d.version) != ATTACHMENT_VERSION || !out->address ||
        out->address_len > ATTACHMENT_ADDRESS_MAX)
        return false;
    if (d.flags & ATTACHMENT_SOCKET)
        out->socket = socket_decode(&c);
    if (d.flags & ATTACHMENT_ALIASES)
        aliases_decode(&c, &out->aliases);
    return true;
}

void attachment_record_set_volume(void *value, uint32_t volume_id)
{
    struct attachment_disk d;
    memcpy(&d, value, sizeof(d));
    d.volume_id = le32_make(volume_id);
    memcpy(value, &d, sizeof(d));
}

static size_t put(unsigned char *out, size_t at, const void *data, size_t len)
{
    memcpy(out + at, data, len);
    return at + len;
}

static size_t aliases_encode(const struct attachment_aliases *a, unsigned char *out, size_t at)
{
    out[at++] = (unsigned char)a->count;
    for (unsigned i = 0; i < a->count; i++) {
        size_t len = strlen(a->name[i]);
        out[at++] = (unsigned char)len;
        at = put(out, at, a->name[i], len);
    }
    return at;
}

size_t attachment_record_encode(const struct attachment_record *r,
                                unsigned char out[static ATTACHMENT_RECORD_MAX])
{
    bool has_socket = !attachment_socket_is_default(r->socket);
    struct attachment_disk d = {.version = le16_make(ATTACHMENT_VERSION),
                                .kind = r->kind,
                                .flags = (uint8_t)((r->read_only ? ATTACHMENT_READ_ONLY : 0) |
                                                   (has_socket ? ATTACHMENT_SOCKET : 0) |
                                                   (r->aliases.count ? ATTACHMENT_ALIASES : 0)),
                                .volume_id = le32_make(r->volume_id),
                                .address_len = le16_make((uint16_t)r->address_len)};
    struct attachment_socket_disk socket = {.uid = le32_make(r->socket.uid),
                                            .gid = le32_make(r->socket.gid),
                                            .mode = le16_make(r->socket.mode)};
    size_t at = put(out, 0, &d, sizeof(d));
    at = put(out, at, r->address, r->address_len);
    if (has_socket)
        at = put(out, at, &socket, sizeof(socket));
    return r->aliases.count ? aliases_encode(&r->aliases, out, at) : at;
}

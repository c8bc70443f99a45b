/*
 * Fixed newstyle negotiation. Everything until transmission has one deadline, and an option's
 * payload is bounded by the stream's buffer, so a client that stalls, floods or sends garbage
 * costs one coroutine for that long.
 */
#include "nbd/connection_impl.h"

#include "io/net.h"

#include <string.h>

/* What is taken in; a longer payload is skipped and refused, a much longer one is no NBD client. */
#define OPTION_PAYLOAD_MAX ((size_t)64 << 10)
#define OPTION_SKIP_MAX    (32U << 20)
/* More than any client sends; the deadline bounds them too, this bounds the work. */
#define OPTIONS_MAX 1024U

/* ---- payloads ------------------------------------------------------------------------------ */

bool nbdx_cursor_u32(struct nbdx_cursor *d, uint32_t *out)
{
    struct be32 v;
    if (d->left < sizeof(v))
        return false;
    memcpy(&v, d->at, sizeof(v));
    d->at += sizeof(v);
    d->left -= sizeof(v);
    *out = be32_get(v);
    return true;
}

bool nbdx_cursor_u16(struct nbdx_cursor *d, uint16_t *out)
{
    struct be16 v;
    if (d->left < sizeof(v))
        return false;
    memcpy(&v, d->at, sizeof(v));
    d->at += sizeof(v);
    d->left -= sizeof(v);
    *out = be16_get(v);
    return true;
}

bool nbdx_cursor_string(struct nbdx_cursor *d, const char **out, uint32_t *len)
{
    if (!nbdx_cursor_u32(d, len) || *len > NBDX_STRING_MAX || *len > d->left)
        return false;
    *out = (const char *)d->at;
    d->at += *len;
    d->left -= *len;
    return true;
}

/* ---- replies ------------------------------------------------------------------------------- */

CO int nbdx_option_reply(struct nbdx_connection *c, uint32_t option, uint32_t type,
                         const void *data, size_t len)
{
    struct nbdx_option_reply h = {be64_make(NBDX_OPTION_REPLY_MAGIC), be32_make(option),
                                  be32_make(type), be32_make((uint32_t)len)};
    struct iovec iov[2] = {{&h, sizeof(h)}, {(void *)(uintptr_t)data, len}};
    return io_sendv_all(c->fd, iov, len ? 2 : 1, c->in.deadline_ns);
}

CO int nbdx_option_error(struct nbdx_connection *c, uint32_t option, uint32_t type,
                         const char *text)
{
    return nbdx_option_reply(c, option, type, text, strlen(text));
}

/* ---- exports ------------------------------------------------------------------------------- */

static bool text_is(const char *text, const char *name, size_t len)
{
    return strlen(text) == len && memcmp(text, name, len) == 0;
}

static bool names_have(const struct nbdx_names *n, const char *name, size_t len)
{
    bool have = text_is(n->name, name, len);
    for (unsigned i = 0; i < n->alias_count; i++)
        have |= text_is(n->alias[i], name, len);
    return have;
}

const struct nbdx_served *nbdx_export_find(const struct nbdx_connection *c, const char *name,
                                           size_t len)
{
    unsigned count;
    const struct nbdx_served *e = nbdx_server_exports(c->server, &count);
    if (len == 0)
        return count == 1 ? e : NULL;
    for (unsigned i = 0; i < count; i++)
        if (names_have(&e[i].names, name, len))
            return &e[i];
    return NULL;
}

/* CAN_MULTI_CONN is sound: nothing is cached per connection, and a volume's flush covers every
 * write that completed before it, whoever sent it. */
static uint16_t flags_of(const struct nbdx_connection *c, const struct nbdx_served *e)
{
    unsigned f = NBDX_FLAG_HAS_FLAGS | NBDX_FLAG_SEND_FLUSH | NBDX_FLAG_SEND_FUA |
                 NBDX_FLAG_SEND_TRIM | NBDX_FLAG_SEND_WRITE_ZEROES | NBDX_FLAG_CAN_MULTI_CONN |
                 NBDX_FLAG_SEND_CACHE | NBDX_FLAG_SEND_FAST_ZERO;
    if (e->read_only || front_is_read_only(e->front))
        f |= NBDX_FLAG_READ_ONLY;
    if (c->structured)
        f |= NBDX_FLAG_SEND_DF;
    return (uint16_t)f;
}

static void export_choose(struct nbdx_connection *c, const struct nbdx_served *e)
{
    c->export = e;
    c->transmission_flags = flags_of(c, e);
}

/* ---- options: each returns 0 to go on negotiating -------------------------------------------- */

/* The old way to choose an export: no header, no error reply. A client that asks for a missing
 * export is hung up on. */
static CO int option_export_name(struct nbdx_connection *c, struct nbdx_cursor d)
{
    const struct nbdx_served *e = nbdx_export_find(c, (const char *)d.at, d.left);
    if (!e || c->extended) /* [NBD_OPT_EXTENDED_HEADERS]: not after it */
        return VP_E_NBD_PROTOCOL;
    export_choose(c, e);
    struct {
        struct nbdx_export_name_reply reply;
        unsigned char zeros[NBDX_EXPORT_NAME_ZEROES];
    } __attribute__((packed))
    r = {.reply = {be64_make(front_size(e->front)), be16_make(c->transmission_flags)}};
    return io_send_all(c->fd, &r, c->no_zeroes ? sizeof(r.reply) : sizeof(r), c->in.deadline_ns);
}

static CO int option_list(struct nbdx_connection *c, struct nbdx_cursor d)
{
    if (d.left)
        return nbdx_option_error(c, NBDX_OPT_LIST, NBDX_REP_ERR_INVALID, "LIST has no payload");
    unsigned count;
    const struct nbdx_served *e = nbdx_server_exports(c->server, &count);
    for (unsigned i = 0; i < count; i++) {
        struct {
            struct be32 length;
            char text[NBDX_STRING_MAX];
        } __attribute__((packed)) r;
        const char *name = e[i].names.name;
        size_t n = strnlen(name, sizeof(r.text));
        size_t more = strnlen(e[i].description, sizeof(r.text) - n);
        r.length = be32_make((uint32_t)n);
        memcpy(r.text, name, n);
        memcpy(r.text + n, e[i].description, more);
        int rc =
            nbdx_option_reply(c, NBDX_OPT_LIST, NBDX_REP_SERVER, &r, sizeof(r.length) + n + more);
        if (rc)
            return rc;
    }
    return nbdx_option_reply(c, NBDX_OPT_LIST, NBDX_REP_ACK, NULL, 0);
}

static CO int info_text(struct nbdx_connection *c, uint32_t option, uint16_t type, const char *text)
{
    struct {
        struct be16 type;
        char text[NBDX_STRING_MAX];
    } __attribute__((packed)) r = {.type = be16_make(type)};
    size_t n = strnlen(text, sizeof(r.text));
    memcpy(r.text, text, n);
    return nbdx_option_reply(c, option, NBDX_REP_INFO, &r, sizeof(r.type) + n);
}

static CO int info_item(struct nbdx_connection *c, uint32_t option, const struct nbdx_served *e,
                        uint16_t type)
{
    switch (type) {
    case NBDX_INFO_EXPORT: {
        struct nbdx_info_export r = {be16_make(type), be64_make(front_size(e->front)),
                                     be16_make(flags_of(c, e))};
        return nbdx_option_reply(c, option, NBDX_REP_INFO, &r, sizeof(r));
    }
    case NBDX_INFO_NAME:
        return info_text(c, option, type, e->names.name);
    case NBDX_INFO_DESCRIPTION:
        return e->description[0] ? info_text(c, option, type, e->description) : 0;
    case NBDX_INFO_BLOCK_SIZE: {
        uint32_t sector = front_sector_bytes(e->front);
        struct nbdx_info_block_size r = {be16_make(type), be32_make(NBDX_BLOCK_MIN),
                                         be32_make((uint32_t)max_u64(sector, NBDX_BLOCK_PREFERRED)),
                                         be32_make(NBDX_BLOCK_MAX)};
        return nbdx_option_reply(c, option, NBDX_REP_INFO, &r, sizeof(r));
    }
    default:
        return 0; /* unknown ones are ignored: [NBD_OPT_INFO] */
    }
}

/* INFO and GO: EXPORT always, the others when asked for. GO then begins transmission. */
static CO int option_info(struct nbdx_connection *c, uint32_t option, struct nbdx_cursor d)
{
    const char *name;
    uint32_t name_len;
    uint16_t count, type;
    if (!nbdx_cursor_string(&d, &name, &name_len) || !nbdx_cursor_u16(&d, &count) ||
        d.left != count * sizeof(struct be16))
        return nbdx_option_error(c, option, NBDX_REP_ERR_INVALID, "malformed request");
    const struct nbdx_served *e = nbdx_export_find(c, name, name_len);
    if (!e)
        return nbdx_option_error(c, option, NBDX_REP_ERR_UNKNOWN, "no such export");
    unsigned asked = 0;
    while (nbdx_cursor_u16(&d, &type))
        if (type <= NBDX_INFO_BLOCK_SIZE)
            asked |= 1U << type;
    asked |= 1U << NBDX_INFO_EXPORT;
    for (uint16_t t = NBDX_INFO_EXPORT; t <= NBDX_INFO_BLOCK_SIZE; t++) {
        int rc = asked & (1U << t) ? info_item(c, option, e, t) : 0;
        if (rc)
            return rc;
    }
    if (option == NBDX_OPT_GO)
        export_choose(c, e);
    return nbdx_option_reply(c, option, NBDX_REP_ACK, NULL, 0);
}

static CO int option_switch(struct nbdx_connection *c, uint32_t option, struct nbdx_cursor d)
{
    if (d.left)
        return nbdx_option_error(c, option, NBDX_REP_ERR_INVALID, "this option has no payload");
    bool extended = option == NBDX_OPT_EXTENDED_HEADERS;
    if (c->extended && !extended)
        return nbdx_option_error(c, option, NBDX_REP_ERR_EXT_HEADER_REQD, "headers are extended");
    if (extended ? c->extended : c->structured)
        return nbdx_option_error(c, option, NBDX_REP_ERR_INVALID, "on already");
    c->structured = true;
    c->extended = extended;
    return nbdx_option_reply(c, option, NBDX_REP_ACK, NULL, 0);
}

/*
 * The one place that decides about TLS, which this release does not speak. Whoever adds it: nothing
 * negotiated before may survive STARTTLS, and nothing may be buffered in c->in at that point.
 */
static CO int option_starttls(struct nbdx_connection *c)
{
    return nbdx_option_error(c, NBDX_OPT_STARTTLS, NBDX_REP_ERR_POLICY,
                             "this server has no TLS; use a unix socket or a tunnel");
}

static CO int option_serve(struct nbdx_connection *c, uint32_t option, struct nbdx_cursor d)
{
    switch (option) {
    case NBDX_OPT_EXPORT_NAME:
        return option_export_name(c, d);
    case NBDX_OPT_ABORT: {
        int rc = nbdx_option_reply(c, option, NBDX_REP_ACK, NULL, 0);
        return rc ? rc : VP_E_CLOSED;
    }
    case NBDX_OPT_LIST:
        return option_list(c, d);
    case NBDX_OPT_STARTTLS:
        return option_starttls(c);
    case NBDX_OPT_INFO:
    case NBDX_OPT_GO:
        return option_info(c, option, d);
    case NBDX_OPT_STRUCTURED_REPLY:
    case NBDX_OPT_EXTENDED_HEADERS:
        return option_switch(c, option, d);
    case NBDX_OPT_LIST_META_CONTEXT:
    case NBDX_OPT_SET_META_CONTEXT:
        return nbdx_option_meta(c, option, d);
    default:
        return nbdx_option_error(c, option, NBDX_REP_ERR_UNSUP, "unknown option");
    }
}

/* ---- the conversation ------------------------------------------------------------------------ */

static CO int greet(struct nbdx_connection *c)
{
    struct nbdx_greeting g = {be64_make(NBDX_MAGIC), be64_make(NBDX_OPTION_MAGIC),
                              be16_make(NBDX_FLAG_FIXED_NEWSTYLE | NBDX_FLAG_NO_ZEROES)};
    int rc = io_send_all(c->fd, &g, sizeof(g), c->in.deadline_ns);
    if (rc)
        return rc;
    const void *p;
    rc = nbdx_stream_take(&c->in, sizeof(struct be32), &p);
    if (rc)
        return rc;
    uint32_t flags = be32_get(*(const struct be32 *)p);
    /* Unknown flags: "the server SHOULD close"; without fixed newstyle no errors can be told. */
    if (flags & ~(NBDX_FLAG_FIXED_NEWSTYLE | NBDX_FLAG_NO_ZEROES))
        return VP_E_NBD_PROTOCOL;
    c->no_zeroes = flags & NBDX_FLAG_NO_ZEROES;
    return 0;
}

static CO int option_next(struct nbdx_connection *c)
{
    const void *p;
    int rc = nbdx_stream_take(&c->in, sizeof(struct nbdx_option), &p);
    if (rc)
        return rc;
    struct nbdx_option o = *(const struct nbdx_option *)p;
    uint32_t option = be32_get(o.option), length = be32_get(o.length);
    if (be64_get(o.magic) != NBDX_OPTION_MAGIC || length > OPTION_SKIP_MAX)
        return VP_E_NBD_PROTOCOL;
    if (length > OPTION_PAYLOAD_MAX) {
        rc = nbdx_stream_skip(&c->in, length);
        if (rc || option == NBDX_OPT_EXPORT_NAME)
            return rc ? rc : VP_E_NBD_PROTOCOL;
        return nbdx_option_error(c, option, NBDX_REP_ERR_TOO_BIG, "payload too long");
    }
    rc = nbdx_stream_take(&c->in, length, &p);
    return rc ? rc : option_serve(c, option, (struct nbdx_cursor){p, length});
}

CO int nbdx_handshake(struct nbdx_connection *c)
{
    int rc = greet(c);
    for (unsigned i = 0; !rc && !c->export; i++)
        rc = i < OPTIONS_MAX ? option_next(c) : VP_E_NBD_PROTOCOL;
    return rc;
}

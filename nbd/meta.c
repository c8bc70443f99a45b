/* LIST_META_CONTEXT and SET_META_CONTEXT: [Metadata querying]. One context: base:allocation. */
#include "nbd/connection_impl.h"

#include <string.h>

static bool equals(const char *q, uint32_t len, const char *text)
{
    return len == strlen(text) && memcmp(q, text, len) == 0;
}

/* Does a query name base:allocation? Listing also takes the namespace alone. */
static bool query_matches(uint32_t option, const char *q, uint32_t len)
{
    return equals(q, len, NBDX_META_CONTEXT_ALLOCATION) ||
           (option == NBDX_OPT_LIST_META_CONTEXT && equals(q, len, "base:"));
}

static CO int context_reply(struct nbdx_connection *c, uint32_t option)
{
    struct {
        struct be32 id;
        char name[sizeof(NBDX_META_CONTEXT_ALLOCATION) - 1];
    } __attribute__((packed)) r;
    r.id = be32_make(option == NBDX_OPT_SET_META_CONTEXT ? NBDX_META_ID_ALLOCATION : 0);
    memcpy(r.name, NBDX_META_CONTEXT_ALLOCATION, sizeof(r.name));
    return nbdx_option_reply(c, option, NBDX_REP_META_CONTEXT, &r, sizeof(r));
}

CO int nbdx_option_meta(struct nbdx_connection *c, uint32_t option, struct nbdx_cursor d)
{
    bool set = option == NBDX_OPT_SET_META_CONTEXT;
    const char *name, *q;
    uint32_t name_len, queries, len;
    if (set)
        c->meta_export = NULL; /* a new choice replaces the old one even when it fails */
    if (!c->structured)
        return nbdx_option_error(c, option, NBDX_REP_ERR_INVALID, "needs structured replies");
    if (!nbdx_cursor_string(&d, &name, &name_len) || !nbdx_cursor_u32(&d, &queries))
        return nbdx_option_error(c, option, NBDX_REP_ERR_INVALID, "malformed request");
    const struct nbdx_served *e = nbdx_export_find(c, name, name_len);
    bool match = !set && queries == 0;
    for (uint32_t i = 0; i < queries; i++) {
        if (!nbdx_cursor_string(&d, &q, &len))
            return nbdx_option_error(c, option, NBDX_REP_ERR_INVALID, "malformed query");
        match = match || query_matches(option, q, len);
    }
    if (d.left)
        return nbdx_option_error(c, option, NBDX_REP_ERR_INVALID, "bytes behind the queries");
    if (!e)
        return nbdx_option_error(c, option, NBDX_REP_ERR_UNKNOWN, "no such export");
    if (match) {
        int rc = context_reply(c, option);
        if (rc)
            return rc;
        if (set)
            c->meta_export = e;
    }
    return nbdx_option_reply(c, option, NBDX_REP_ACK, NULL, 0);
}

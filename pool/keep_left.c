/* Kept memory without an owner: of pools that never came again. */
#include "pool/keep_impl.h"

#include <stdlib.h>
#include <string.h>

#define NAME_PREFIX "vpool-"

/* "vpool-POOL-…" */
static bool name_parse(const char *name, struct vp_uuid *pool)
{
    char uuid[VP_UUID_TEXT];
    size_t len = strlen(NAME_PREFIX);
    if (strlen(name) < len + VP_UUID_TEXT || name[len + VP_UUID_TEXT - 1] != '-')
        return false;
    memcpy(uuid, name + len, VP_UUID_TEXT - 1);
    uuid[VP_UUID_TEXT - 1] = 0;
    return vp_uuid_parse(uuid, pool);
}

struct left_walk {
    struct pool_keep_left *out;
    unsigned count;
};

static struct pool_keep_left *left_of(struct left_walk *w, struct vp_uuid pool)
{
    for (unsigned i = 0; i < w->count; i++)
        if (vp_uuid_equal(w->out[i].pool, pool))
            return &w->out[i];
    struct pool_keep_left *more = realloc(w->out, (w->count + 1) * sizeof(*more));
    if (!more)
        return NULL;
    w->out = more;
    struct pool_keep_left *l = &w->out[w->count++];
    *l = (struct pool_keep_left){.pool = pool, .age_seconds = UINT64_MAX};
    return l;
}

static int note_left(const char *name, void *arg)
{
    struct vp_uuid pool;
    uint64_t bytes, age_seconds;
    if (!name_parse(name, &pool) || io_keep_look(name, &bytes, &age_seconds))
        return 0;
    struct pool_keep_left *l = left_of(arg, pool);
    if (!l)
        return VP_E_NO_MEMORY;
    bool owned;
    int rc = io_keep_is_owned(name, &owned);
    if (rc || owned) {
        l->owned = true;
        return rc;
    }
    l->volumes++;
    l->bytes += bytes;
    l->age_seconds = min_u64(l->age_seconds, age_seconds);
    return 0;
}

int pool_keeps_left(struct pool_keep_left **out, unsigned *count)
{
    struct left_walk w = {0};
    int rc = io_keep_each(NAME_PREFIX, note_left, &w);
    if (rc) {
        free(w.out);
        w = (struct left_walk){0};
    }
    *out = w.out;
    *count = w.count;
    return rc;
}

/* Memory with a living owner stays, whatever the earlier look said. */
static int forget_left(const char *name, void *arg)
{
    struct vp_uuid pool;
    const struct vp_uuid *wanted = arg;
    bool owned;
    if (name_parse(name, &pool) && vp_uuid_equal(pool, *wanted) &&
        io_keep_is_owned(name, &owned) == 0 && !owned)
        io_keep_remove(name);
    return 0;
}

void pool_keeps_left_forget(struct vp_uuid pool)
{
    vp_ignore(io_keep_each(NAME_PREFIX, forget_left, &pool), "what stays is found the next time");
}

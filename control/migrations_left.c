/*
 * What moves have left: after a crash, or when a pool failed, a pool has volumes whose owner it
 * does not know alone (volumes/owner.h). Whenever a pool is opened, all open pools are asked again.
 *
 * The volumes of a pool that wait are noted once a second, in control_pool.left:
 *     {"VOL": {"side": "left" | "target" | "arrived", "other": "POOL/VOL", "why": "…"}}
 * "left" and "target" are not served; "arrived" is, and only cannot be deleted. A volume that has
 * left for another daemon, which has not confirmed it, is there as "gone/MOVE", with side "gone".
 *
 * Tested by tests/integration/t_migrate.sh and t_migrate_kill.py.
 */
#include "control/migrate_exports.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *migration_side(const struct volume_owner_info *o)
{
    static const char *const sides[] = {[VOLUME_OWNER] = NULL,
                                        [VOLUME_INTENT] = "left",
                                        [VOLUME_TARGET] = "target",
                                        [VOLUME_ARRIVED] = "arrived",
                                        [VOLUME_SUPERSEDED] = "superseded"};
    return sides[o->ownership];
}

json_t *migration_side_json(struct volumes *vs, const char *volume)
{
    struct volume_owner_info o;
    char id[VP_UUID_TEXT];
    if (volume_owner_get(vs, volume, &o) || !migration_side(&o))
        return json_null();
    return json_pack("{s:s, s:s, s:s}", "id", vp_uuid_format(o.move.id, id), "side",
                     migration_side(&o), "other", o.move.volume);
}

/* ---- noting ---------------------------------------------------------------------------------- */

static const struct control_pool *other_pool(struct control *c, const struct volume_owner_info *o)
{
    char uuid[VP_UUID_TEXT];
    return control_pool_find(c, vp_uuid_format(o->move.pool, uuid));
}

bool migration_other_is_open(struct control *c, const struct volume_owner_info *o)
{
    const struct control_pool *other = other_pool(c, o);
    return other && other->vs;
}

/* The one of two open pools that records nothing any more; NULL: both do. */
static const struct control_pool *fenced_of(const struct control_pool *p,
                                            const struct control_pool *q)
{
    if (!pool_acknowledges(volumes_pool(p->vs)))
        return p;
    return pool_acknowledges(volumes_pool(q->vs)) ? NULL : q;
}

/* Why it is not known, or not recorded, what became of the other side. */
static void left_why(struct control *c, const struct control_pool *p,
                     const struct volume_owner_info *o, char *to, size_t size)
{
    const struct control_pool *fenced, *other = other_pool(c, o);
    if (o->ownership == VOLUME_SUPERSEDED)
        (void)snprintf(to, size, "use that one, and delete this one");
    else if (!other && o->ownership == VOLUME_ARRIVED && o->move.peer[0])
        (void)snprintf(to, size, "%s has not said yet that it is deleted there", o->move.peer);
    else if (!other && o->ownership == VOLUME_TARGET && o->move.peer[0])
        (void)snprintf(to, size, "it could not be deleted yet: it is tried again");
    else if (!other && o->move.peer[0])
        (void)snprintf(to, size, "the daemon at %s has not answered yet: it is asked again",
                       o->move.peer);
    else if (!other)
        (void)snprintf(to, size, "the pool of %s is not here", o->move.volume);
    else if (!other->vs)
        (void)snprintf(to, size, "pool '%s' is not open: %.300s", other->name, other->error);
    else if ((fenced = fenced_of(p, other)))
        (void)snprintf(to, size,
                       "pool '%s' is fenced, and records nothing: repair what `vpool status %s` "
                       "says of its disks, then restart vpoold",
                       fenced->name, fenced->name);
    else if (!volume_name_of_uuid(other->vs, o->uuid) && volumes_have_damaged_record(other->vs))
        (void)snprintf(to, size,
                       "a volume of pool '%s' has a damaged record, and may be this one: `vpool "
                       "volume list %s` shows it",
                       other->name, other->name);
    else
        (void)snprintf(to, size,
                       "both pools are open, and the end of the move could not be recorded yet: it "
                       "is tried again");
}

struct left_walk {
    struct control *c;
    const struct control_pool *p;
    json_t *left;
};

static int left_note(const char *name, const struct volume_owner_info *o, void *arg)
{
    const struct left_walk *w = arg;
    char full[VOLUME_FULL_NAME_BYTES], why[500];
    const char *side = migration_side(o);
    control_volume_name(w->p->name, name, full);
    if (!side || o->attended)
        return 0;
    left_why(w->c, w->p, o, why, sizeof(why));
    bytes_make_printable(why);
    json_t *entry = json_pack("{s:s, s:s, s:s, s:s}", "volume", full, "side", side, "other",
                              o->move.volume, "why", why);
    return json_object_set_new(w->left, name, entry) ? VP_E_NO_MEMORY : 0;
}

/* A move at work tells the other daemon itself. */
static int gone_note(const struct volume_left *l, void *arg)
{
    const struct left_walk *w = arg;
    const struct migration *g = migration_find(w->c, l->move.id);
    char full[VOLUME_FULL_NAME_BYTES], id[VP_UUID_TEXT], key[VP_UUID_TEXT + 8], why[500];
    if (g && !migration_has_ended(g))
        return 0;
    control_volume_name(w->p->name, l->name, full);
    (void)snprintf(key, sizeof(key), "gone/%s", vp_uuid_format(l->move.id, id));
    (void)snprintf(why, sizeof(why),
                   "%s does not know yet that it is deleted here: it is told again", l->move.peer);
    json_t *entry = json_pack("{s:s, s:s, s:s, s:s}", "volume", full, "side", "gone", "other",
                              l->move.volume, "why", why);
    return json_object_set_new(w->left, key, entry) ? VP_E_NO_MEMORY : 0;
}

static json_t *left_walk(struct control *c, const struct control_pool *p)
{
    struct left_walk w = {.c = c, .p = p, .left = json_object()};
    vp_ignore(volume_each_moved(p->vs, left_note, &w), "no memory: some are missing");
    vp_ignore(volumes_left_each(p->vs, gone_note, &w), "no memory: some are missing");
    return w.left;
}

/* Or there is nothing left of it. */
static bool left_is_served(const json_t *entry)
{
    const char *side = json_string_value(json_object_get(entry, "side"));
    return strcmp(side, "arrived") == 0 || strcmp(side, "gone") == 0;
}

const char *migrations_left_text(const json_t *entry, char to[static MIGRATIONS_LEFT_TEXT])
{
    const char *side = json_string_value(json_object_get(entry, "side"));
    (void)snprintf(to, MIGRATIONS_LEFT_TEXT, "%s %s: %s",
                   strcmp(side, "left") == 0         ? "may have moved to"
                   : strcmp(side, "target") == 0     ? "is an unfinished copy of"
                   : strcmp(side, "superseded") == 0 ? "is an older copy of"
                   : strcmp(side, "gone") == 0       ? "has become"
                                                     : "has arrived from",
                   json_string_value(json_object_get(entry, "other")),
                   json_string_value(json_object_get(entry, "why")));
    return to;
}

static void left_tell(struct control *c, const json_t *entry)
{
    char text[MIGRATIONS_LEFT_TEXT];
    if (!left_is_served(entry))
        control_event(c, VP_LOG_ERROR, "migration.in-doubt",
                      json_string_value(json_object_get(entry, "volume")), "%s",
                      migrations_left_text(entry, text));
}

/* While the daemon starts, the other pool may be the next one: nothing is told until then. */
static void left_look(struct control *c, struct control_pool *p)
{
    json_t *now = left_walk(c, p), *entry;
    const char *name;
    if (c->started)
        json_object_foreach(now, name, entry)
        {
            if (!p->left_told || !json_object_get(p->left, name))
                left_tell(c, entry);
        }
    json_decref(p->left);
    if (json_object_size(now) == 0) {
        json_decref(now);
        now = NULL;
    }
    p->left = now;
    p->left_told = c->started;
}

void migrations_look_left(struct control *c)
{
    struct control_pool *p;
    list_for_each (p, &c->pools, link)
        if (p->vs)
            left_look(c, p);
}

json_t *migrations_left_of(const struct control_pool *p)
{
    return p->left;
}

unsigned migrations_left_unserved(const struct control_pool *p)
{
    unsigned count = 0;
    const char *name;
    json_t *entry;
    json_object_foreach(p->left, name, entry) count += !left_is_served(entry);
    return count;
}

bool migrations_left_unserved_is(const struct control_pool *p, const char *volume)
{
    const json_t *entry = json_object_get(p->left, volume);
    return entry && !left_is_served(entry);
}

static bool left_has(const json_t *entry, const char *volume)
{
    return strcmp(json_string_value(json_object_get(entry, "volume")), volume) == 0 ||
           strcmp(json_string_value(json_object_get(entry, "other")), volume) == 0;
}

json_t *migrations_left_json(const struct control *c, const char *volume)
{
    json_t *all = json_array();
    const struct control_pool *p;
    list_for_each (p, &c->pools, link) {
        const char *name;
        json_t *entry;
        json_object_foreach(p->left, name, entry)
        {
            if ((!volume || left_has(entry, volume)) && json_array_append(all, entry))
                return all; /* no memory: some are missing */
        }
    }
    return all;
}

/* ---- settling -------------------------------------------------------------------------------- */

/* What became of one that was left. */
static void left_settled(struct control *c, struct control_pool *p, const char *name,
                         const json_t *before)
{
    static const struct {
        const char *side, *stays, *goes;
    } texts[] = {
        {"left", "stays here: the move ended without effect, there is no",
         "is gone: it has become"},
        {"target", "is a volume now: it was",
         "is deleted: the move ended without effect, it stays"},
        {"arrived", "has arrived for good: there is no more", "is deleted: it was"},
    };
    struct volume_owner_info o;
    const char *side = json_string_value(json_object_get(before, "side"));
    bool is_gone = volume_owner_get(p->vs, name, &o) != 0;
    if (!is_gone && o.ownership != VOLUME_OWNER)
        return;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        if (strcmp(texts[i].side, side) == 0)
            control_event(c, VP_LOG_INFO, "migration.settled",
                          json_string_value(json_object_get(before, "volume")), "%s %s",
                          is_gone ? texts[i].goes : texts[i].stays,
                          json_string_value(json_object_get(before, "other")));
}

static int any_moved(const char *name, const struct volume_owner_info *o, void *arg)
{
    (void)name;
    (void)o;
    (void)arg;
    return 1;
}

static bool pool_has_moved(const struct control_pool *p)
{
    return p->vs && volume_each_moved(p->vs, any_moved, NULL);
}

/* NULL: no pool has volumes that ever moved, or there is no memory (*rc). */
static struct volumes **open_pools(const struct control *c, unsigned *count, int *rc)
{
    const struct control_pool *p;
    unsigned pools = 0;
    bool any = false;
    list_for_each (p, &c->pools, link) {
        pools++;
        any |= pool_has_moved(p);
    }
    struct volumes **open = any ? calloc(pools, sizeof(struct volumes *)) : NULL;
    *rc = any && !open ? VP_E_NO_MEMORY : 0;
    *count = 0;
    list_for_each (p, &c->pools, link)
        if (open && p->vs)
            open[(*count)++] = p->vs;
    return open;
}

static CO int settle_pools(struct control *c, struct volumes *const *open, unsigned count)
{
    const struct migrate_exports exports = control_settle_exports(c);
    struct control_pool *p;
    int first = 0;
    list_for_each (p, &c->pools, link) {
        int rc = p->vs ? migrate_settle(p->vs, open, count, &exports) : 0;
        if (rc && !c->migrations.unsettled)
            control_event(c, VP_LOG_WARN, "migration.in-doubt", p->name,
                          "what became of its volumes could not be recorded (%s): it is tried "
                          "again",
                          vp_err_text(rc));
        first = first ? first : rc;
    }
    return first;
}

/* `before`: what was left, by pool. One pool's turn may settle volumes of another. */
static void settle_tell(struct control *c, json_t *before)
{
    struct control_pool *p;
    list_for_each (p, &c->pools, link) {
        const char *name;
        json_t *entry;
        json_object_foreach(json_object_get(before, p->name), name, entry)
            left_settled(c, p, name, entry);
    }
}

CO void migrations_settle(struct control *c)
{
    unsigned count;
    int rc;
    migrations_reap(c); /* one that has ended holds nothing */
    struct volumes **open = open_pools(c, &count, &rc);
    json_t *before = json_object();
    const struct control_pool *p;
    list_for_each (p, &c->pools, link)
        if (open && p->vs)
            (void)json_object_set_new(before, p->name, left_walk(c, p)); /* else nothing is told */
    if (open)
        rc = settle_pools(c, open, count);
    c->migrations.unsettled = rc != 0;
    settle_tell(c, before);
    json_decref(before);
    migrations_look_left(c);
    if (open)
        attachments_retry_now(c);
    free(open);
}

/* ---- giving up ------------------------------------------------------------------------------- */

struct gone_find {
    const char *volume;
    struct volume_left *out;
};

static int gone_find(const struct volume_left *l, void *arg)
{
    const struct gone_find *f = arg;
    if (strcmp(l->name, f->volume) != 0)
        return 0;
    *f->out = *l;
    return 1;
}

bool migrations_gone_find(struct volumes *vs, const char *volume, struct volume_left *out)
{
    struct gone_find f = {volume, out};
    return volumes_left_each(vs, gone_find, &f);
}

CO int migrations_gone_forget(struct control *c, struct control_pool *p, const char *volume,
                              struct vp_error *err)
{
    struct volume_left l;
    char full[VOLUME_FULL_NAME_BYTES];
    control_volume_name(p->name, volume, full);
    while (migrations_gone_find(p->vs, volume, &l)) {
        int rc = volumes_left_forget(p->vs, l.move.id);
        if (rc)
            return vp_fail(err, rc, "that %s is told no more could not be recorded: %s",
                           l.move.peer, vp_err_text(rc));
        control_event(c, VP_LOG_WARN, "migration.settled", full,
                      "%s is not told any more that it is deleted here, by request: %s there may "
                      "need `vpool migrate forget`",
                      l.move.peer, l.move.volume);
    }
    migrations_look_left(c);
    return 0;
}

static void forgotten_tell(struct control *c, struct control_pool *p, const char *volume)
{
    struct volume_owner_info o;
    char full[VOLUME_FULL_NAME_BYTES];
    bool is_gone = volume_owner_get(p->vs, volume, &o) != 0;
    control_volume_name(p->name, volume, full);
    control_event(c, VP_LOG_WARN, "migration.settled", full,
                  "%s by request: the other side of its move is given up",
                  is_gone ? "is deleted" : "is the owner");
}

CO int migration_forget(struct control *c, struct control_pool *p, const char *volume,
                        struct vp_error *err)
{
    const struct migrate_exports exports = control_settle_exports(c);
    struct volume_owner_info o;
    unsigned count;
    int rc = volume_owner_get(p->vs, volume, &o);
    if (rc)
        return vp_fail(err, rc, "no volume %s/%s", p->name, volume);
    bool is_asked = migration_other_is_open(c, &o);
    json_t *before = left_walk(c, p);
    struct volumes **open = open_pools(c, &count, &rc);
    rc = rc ? vp_fail(err, rc, "out of memory")
            : migrate_forget(p->vs, volume, open, count, &exports, err);
    free(open);
    if (rc == 0 && is_asked)
        left_settled(c, p, volume, json_object_get(before, volume));
    else if (rc == 0)
        forgotten_tell(c, p, volume);
    json_decref(before);
    if (rc)
        return rc;
    migrations_look_left(c);
    attachments_retry_now(c);
    return 0;
}

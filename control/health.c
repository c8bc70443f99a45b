/* Flags of volumes and pools: gathered, compared with what was told, shown. */
#include "control/health.h"

#include "control/control_impl.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define WALK_AGAIN_NS UINT64_C(10000000000) /* while a disk is out: volumes lease space meanwhile */

static const char *const flag_names[] = {"unavailable", "fenced", "faulted", "damaged",
                                         "degraded",    "paused", "space",   "errors",
                                         "attachments", "disks",  "jobs",    "in doubt"};
#define FLAGS (sizeof(flag_names) / sizeof(flag_names[0]))

void health_init(struct health *h)
{
    *h = (struct health){0};
    list_init(&h->all);
    h->usable = hash_init(&h->by_id, 16);
}

static void entry_free(struct health *h, struct volume_health *v)
{
    hash_del(&h->by_id, &v->node);
    list_del(&v->link);
    free(v);
}

void health_fini(struct health *h)
{
    struct volume_health *v, *next;
    if (!h->usable)
        return;
    list_for_each_safe (v, next, &h->all, link)
        entry_free(h, v);
    hash_fini(&h->by_id);
    h->usable = false;
}

static struct volume_health *entry_find(const struct health *h, uint32_t id)
{
    struct hash_node *n = h->usable ? hash_find(&h->by_id, id) : NULL;
    return n ? container_of(n, struct volume_health, node) : NULL;
}

/* NULL: no memory. */
static struct volume_health *entry_get(struct health *h, uint32_t id)
{
    struct volume_health *v = entry_find(h, id);
    if (v || !h->usable || !(v = calloc(1, sizeof(*v))))
        return v;
    v->id = id;
    hash_add(&h->by_id, &v->node, id);
    list_add_tail(&h->all, &v->link);
    return v;
}

/* ---- what lost disks mean ------------------------------------------------------------------ */

static void note_at_risk(void *arg, uint32_t owner, bool lost)
{
    struct volume_health *v = entry_get(arg, owner);
    if (v)
        v->at_risk_next |= lost ? HEALTH_DAMAGED : HEALTH_DEGRADED;
}

CO void health_walk(struct control_pool *p)
{
    struct health *h = &p->health;
    struct pool *pool = volumes_pool(p->vs);
    unsigned out = pool_disks_out(pool);
    uint64_t now = reactor_now_ns();
    if (out == h->disks_out && (out == 0 || now < h->walked_ns + WALK_AGAIN_NS))
        return;
    struct volume_health *v;
    list_for_each (v, &h->all, link)
        v->at_risk_next = 0;
    pool_owners_at_risk(pool, note_at_risk, h);
    list_for_each (v, &h->all, link)
        v->at_risk = v->at_risk_next;
    h->disks_out = out;
    h->walked_ns = now;
}

/* ---- looking ------------------------------------------------------------------------------- */

static void note_trouble(const struct volume_trouble *t, void *arg)
{
    struct volume_health *v = entry_get(arg, t->id);
    if (!v)
        return;
    v->waiting = t->waiting_for_space;
    v->now |= (t->faulted ? HEALTH_FAULTED : 0U) | (t->checksum_errors ? HEALTH_DAMAGED : 0U) |
              (t->waiting_for_space ? HEALTH_PAUSED : 0U);
}

static void tell_paused(struct control *c, const struct volume_health *v, const char *subject)
{
    uint64_t seconds = reactor_wall_seconds() - v->paused_since;
    if (v->now & HEALTH_PAUSED)
        control_event(c, VP_LOG_ERROR, "volume.health", subject,
                      "paused: %u requests wait for space", v->waiting);
    else
        control_event(c, VP_LOG_INFO, "volume.health", subject,
                      "not paused any more, after %" PRIu64 " s", seconds);
}

/* One flag has changed, and stayed so for two looks. */
static void tell(struct control *c, const struct volume_health *v, unsigned flag,
                 const char *subject)
{
    static const struct {
        unsigned flag;
        enum vp_log_level level;
        const char *begins, *ends;
    } texts[] = {{HEALTH_FAULTED, VP_LOG_ERROR, "faulted: its metadata are damaged", "not faulted"},
                 {HEALTH_DAMAGED, VP_LOG_ERROR,
                  "damaged: some of its data cannot be read or written",
                  "not known to be damaged any more"},
                 {HEALTH_DEGRADED, VP_LOG_WARN,
                  "degraded: a copy of its data is out of service, or not complete",
                  "not degraded any more"}};
    if (flag == HEALTH_PAUSED)
        tell_paused(c, v, subject);
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        if (texts[i].flag == flag)
            control_event(c, v->now & flag ? texts[i].level : VP_LOG_INFO, "volume.health", subject,
                          "%s", v->now & flag ? texts[i].begins : texts[i].ends);
}

static void look_at_volume(struct control *c, struct control_pool *p, struct volume_health *v)
{
    const char *name = volume_name_of_id(p->vs, v->id);
    char subject[VOLUME_FULL_NAME_BYTES];
    if (!name) { /* deleted */
        v->now = v->before = v->told = 0;
        return;
    }
    control_volume_name(p->name, name, subject);
    if (v->now & HEALTH_PAUSED && !v->paused_since)
        v->paused_since = reactor_wall_seconds();
    unsigned changed = (v->now ^ v->told) & ~(v->now ^ v->before);
    for (unsigned i = 0; i < FLAGS; i++)
        if (changed & 1U << i)
            tell(c, v, 1U << i, subject);
    v->told ^= changed;
    if (!((v->now | v->before) & HEALTH_PAUSED))
        v->paused_since = 0;
}

void health_look(struct control *c, struct control_pool *p)
{
    struct health *h = &p->health;
    struct volume_health *v, *next;
    list_for_each (v, &h->all, link) {
        v->before = v->now;
        v->now = v->at_risk;
        v->waiting = 0;
    }
    volume_each_in_trouble(p->vs, note_trouble, h);
    list_for_each_safe (v, next, &h->all, link) {
        look_at_volume(c, p, v);
        /* An entry that a walk has just found stays until that walk ends. */
        if (!(v->now | v->before | v->told | v->at_risk | v->at_risk_next))
            entry_free(h, v);
    }
}

/* ---- showing ------------------------------------------------------------------------------- */

static unsigned health_of_disks(const struct pool *pool)
{
    unsigned flags = 0;
    for (unsigned i = 0; i < pool_disk_count(pool); i++) {
        struct pool_disk_info d;
        pool_disk_info_get(pool, i, &d);
        const struct raid_figures *f = &d.io->figures;
        if (figure_get(&f->read_errors) + figure_get(&f->write_errors) +
                figure_get(&f->checksum_errors) >
            0)
            flags |= HEALTH_ERRORS;
        if (d.full)
            flags |= HEALTH_SPACE;
        if (d.finding[0] || d.silent)
            flags |= HEALTH_DISKS;
    }
    return flags;
}

static int note_paused(struct pool_job *j, void *arg)
{
    unsigned *flags = arg;
    bool leaves_nothing_undone = j->kind == POOL_JOB_SCRUB || j->kind == POOL_JOB_BALANCE;
    if (j->state == POOL_JOB_PAUSED && !leaves_nothing_undone)
        *flags |= HEALTH_JOBS;
    return 0;
}

unsigned health_of_pool(const struct control_pool *p)
{
    unsigned flags = 0;
    if (!p->vs)
        return HEALTH_UNAVAILABLE;
    const struct pool *pool = volumes_pool(p->vs);
    if (strcmp(pool_state(pool), "fenced") == 0)
        flags |= HEALTH_FENCED;
    if (pool_disks_out(pool))
        flags |= HEALTH_DEGRADED;
    if (pool_level(pool) != POOL_OK)
        flags |= HEALTH_SPACE;
    flags |= health_of_disks(pool);
    vp_ignore(pool_job_each(volumes_pool(p->vs), note_paused, &flags), "note_paused never fails");
    const struct volume_health *v;
    list_for_each (v, &p->health.all, link)
        flags |= v->now;
    if (migrations_left_unserved(p))
        flags |= HEALTH_IN_DOUBT;
    for (const struct attachment *a = NULL; (a = attachment_next(p, a));)
        if (!a->served)
            flags |= HEALTH_ATTACHMENTS;
    return flags;
}

unsigned health_of_volume(const struct control_pool *p, const struct volume_info *v)
{
    const struct volume_health *h = entry_find(&p->health, v->id);
    return (migrations_left_unserved_is(p, v->name) ? HEALTH_IN_DOUBT : 0U) |
           (h ? h->at_risk : 0U) | (v->state == VOLUME_FAULTED ? HEALTH_FAULTED : 0U) |
           (figure_get(&v->figures->checksum_errors) ? HEALTH_DAMAGED : 0U) |
           (figure_get(&v->figures->waiting_for_space) ? HEALTH_PAUSED : 0U);
}

json_t *health_json(unsigned flags)
{
    json_t *names = json_array();
    for (unsigned i = 0; names && i < FLAGS; i++)
        if (flags & 1U << i && json_array_append_new(names, json_string(flag_names[i])))
            break;
    return names;
}

json_t *health_paused_json(const struct control_pool *p, const struct volume_info *v)
{
    const struct volume_health *h = entry_find(&p->health, v->id);
    uint64_t since = h && h->paused_since ? h->paused_since : reactor_wall_seconds();
    uint64_t requests = figure_get(&v->figures->waiting_for_space);
    if (!requests)
        return json_null();
    return json_pack("{s:i, s:I}", "requests", (int)requests, "since", (json_int_t)since);
}

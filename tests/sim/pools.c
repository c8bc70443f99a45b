/*
 * The pools of a world and the volumes that are open in them: see rig.h. A world has one pool, or
 * two pools of one daemon. Everything that befalls the daemon befalls both.
 */
#include "tests/sim/hosts.h"
#include "tests/sim/rig.h"

#include "base/verify.h"
#include "io/reactor.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

static const char *const disk_names[RIG_DISKS_MAX] = {"d0", "d1", "d2", "d3", "d4",
                                                      "d5", "d6", "d7", "d8", "d9"};
static const char *const pool_names[RIG_POOLS] = {"sim", "sim2"};

struct sim_world *rig_world_new(const struct rig_config *config, uint64_t seed)
{
    struct sim_world *w = sim_world_new(seed);
    for (unsigned i = 0; i < config->disks; i++) {
        struct sim_disk_config disk = {
            .name = disk_names[i],
            .size_bytes = config->disk_bytes,
            .sector_bytes = config->sector_bytes,
            .atomic_bytes = config->atomic_bytes,
            .write_cache = config->write_cache,
            .can_discard = config->can_discard,
            .latency_min_ns = config->latency_min_ns,
            .latency_max_ns = config->latency_max_ns,
        };
        (void)sim_disk_add(w, &disk);
    }
    return w;
}

struct sim_disk *rig_disk(const struct rig *r, unsigned i)
{
    return sim_disk_find(r->w, disk_names[i]);
}

unsigned rig_pools(const struct rig_config *config)
{
    return config->second_disks ? 2 : 1;
}

unsigned rig_pool_of_disk(const struct rig_config *config, unsigned disk)
{
    return disk >= config->disks - config->second_disks;
}

unsigned rig_losses(const struct rig_config *config)
{
    struct raid_profile p;
    if (config->losses)
        return config->losses;
    return raid_profile_parse(config->profile, &p) ? raid_profile_width(p) - 1 : 0;
}

bool rig_survives(const struct rig_config *config, unsigned lost)
{
    unsigned of_pool[RIG_POOLS] = {0};
    for (unsigned i = 0; i < config->disks; i++)
        of_pool[rig_pool_of_disk(config, i)] += lost >> i & 1;
    return of_pool[0] <= rig_losses(config) && of_pool[1] <= rig_losses(config);
}

/* ---- pools -------------------------------------------------------------------------------- */

static struct volumes_config volumes_config(const struct rig *r, struct reactor **self)
{
    *self = reactor_self();
    return (struct volumes_config){
        .reactors = self,
        .reactor_count = 1,
        .metadata_bytes = r->config->metadata_bytes ? r->config->metadata_bytes : 4 << 20,
        .commit_interval_ms = UINT_MAX,
        .import_flags = r->import_flags,
        .fill_bytes = r->config->chunk_bytes / 8, /* each chunk is a step, and recorded */
    };
}

/* The disks of pool `p`: those that a new one has, or, with `alive`, those that are there and have
 * a label of a pool. */
static unsigned disks_of_pool(const struct rig *r, unsigned p, bool alive, const char **out)
{
    unsigned count = 0;
    for (unsigned i = 0; i < r->config->disks; i++)
        if (rig_pool_of_disk(r->config, i) == p &&
            (alive ? !sim_disk_is_dead(rig_disk(r, i)) && rig_has_label(r, i)
                   : i < r->config->disks - r->config->spares))
            out[count++] = disk_names[i];
    return count;
}

static bool pool_create_one(struct rig *r, unsigned p)
{
    struct pool_create_options o = {
        .name = pool_names[r->host ? host_index(r->host) : p],
        .geometry = {r->config->chunk_bytes, r->config->extent_bytes, r->config->log_segment_bytes},
        .force = true,
    };
    char property[RIG_PROPERTY_MAX + sizeof("property=")] = "property=";
    VP_VERIFY(r->config->property, <=, (unsigned)RIG_PROPERTY_MAX);
    memset(property + strlen(property), '.', r->config->property);
    const char *const properties[] = {property};
    if (r->config->property) {
        o.properties = properties;
        o.property_count = 1;
    }
    if (!raid_profile_parse(r->config->profile, &o.profile)) {
        rig_fail(r, "profile %s", r->config->profile);
        return false;
    }
    struct reactor *self;
    struct volumes_config config = volumes_config(r, &self);
    const char *disks[RIG_DISKS_MAX];
    unsigned count = disks_of_pool(r, p, false, disks);
    struct vp_error err = {0};
    if (volumes_create(&o, disks, count, &config, &r->vs[p], &err))
        rig_fail(r, "pool not created: %s", err.text);
    return !r->failed;
}

bool rig_create_pools(struct rig *r)
{
    bool ok = true;
    for (unsigned p = 0; ok && p < rig_pools(r->config); p++)
        ok = pool_create_one(r, p);
    return ok;
}

int rig_import_one(struct rig *r, unsigned p, struct vp_error *err)
{
    struct reactor *self;
    struct volumes_config config = volumes_config(r, &self);
    const char *there[RIG_DISKS_MAX];
    unsigned count = disks_of_pool(r, p, true, there);
    int rc = volumes_import(there, count, &config, &r->vs[p], err);
    if (rc)
        r->vs[p] = NULL;
    return rc;
}

bool rig_import(struct rig *r)
{
    struct vp_error err = {0};
    int rc = rig_try_import(r, &err);
    if (rc)
        rig_fail(r, "not imported: %s: %s", vp_err_name(rc), err.text);
    return !r->failed;
}

int rig_close_pools(struct rig *r)
{
    int rc = 0;
    for (unsigned i = 0; i < RIG_OPEN_MAX; i++)
        if (r->open[i].v)
            rig_close_volume(r, r->open[i].name);
    for (unsigned p = 0; p < RIG_POOLS; p++) {
        int one = r->vs[p] ? volumes_close(r->vs[p], false) : 0;
        r->vs[p] = NULL;
        rc = rc ? rc : one;
    }
    return rc;
}

void rig_abandon(struct rig *r)
{
    for (unsigned p = 0; p < RIG_POOLS; p++) {
        if (r->vs[p])
            volumes_abandon(r->vs[p]);
        r->vs[p] = NULL;
    }
}

/* ---- volumes ------------------------------------------------------------------------------ */

struct rig_open *rig_find_open(struct rig *r, const char *name)
{
    for (unsigned i = 0; i < RIG_OPEN_MAX; i++)
        if (r->open[i].v && !r->open[i].withdrawn && strcmp(r->open[i].name, name) == 0)
            return &r->open[i];
    return NULL;
}

static struct rig_open *free_slot(struct rig *r)
{
    unsigned i = 0;
    while (r->open[i].v)
        VP_VERIFY(++i, <, (unsigned)RIG_OPEN_MAX);
    return &r->open[i];
}

/* In the pool that lets it be opened. */
struct rig_open *rig_volume(struct rig *r, const char *name)
{
    struct rig_open *slot = rig_find_open(r, name);
    if (slot)
        return slot;
    slot = free_slot(r);
    int rc = VP_E_NOT_FOUND;
    struct vp_error err = {0};
    for (unsigned p = 0; p < RIG_POOLS && !slot->v; p++) {
        struct vp_error one = {0};
        int one_rc = r->vs[p] ? volume_open(r->vs[p], name, false, &slot->v, &one) : VP_E_NOT_FOUND;
        if (one_rc)
            slot->v = NULL;
        slot->pool = p;
        if (one_rc != VP_E_NOT_FOUND) {
            rc = one_rc;
            err = one;
        }
    }
    if (!slot->v) {
        if (rc != VP_E_NOT_FOUND && !r->errors_allowed && !(r->withdrawn || r->failing_pools))
            rig_fail(r, "volume %s not opened: %s: %s", name, vp_err_name(rc), err.text);
        return NULL;
    }
    (void)snprintf(slot->name, sizeof(slot->name), "%s", name);
    slot->withdrawn = false;
    slot->front = volume_front(slot->v);
    return slot;
}

void rig_close_volume(struct rig *r, const char *name)
{
    vp_ignore(co_group_wait(&r->dying), "they report to the rig");
    struct rig_open *o = rig_find_open(r, name);
    if (!o)
        return;
    volume_close(o->v);
    o->v = NULL;
}

/* ---- clients ------------------------------------------------------------------------------ */

void rig_client_begin(struct rig *r, struct rig_client *c, const struct rig_open *o)
{
    front_client_init(&c->client, o->front);
    list_add_tail(&r->clients, &c->link);
    if (o->withdrawn)
        front_client_go(&c->client);
}

void rig_client_end(struct rig_client *c)
{
    list_del(&c->link);
}

static bool has_clients(const struct rig *r, const struct front *f)
{
    const struct rig_client *c;
    list_for_each (c, &r->clients, link)
        if (c->client.front == f)
            return true;
    return false;
}

void rig_withdraw(struct rig *r, const char *name)
{
    struct rig_open *o = rig_find_open(r, name);
    struct rig_client *c;
    if (!o)
        return;
    o->withdrawn = true; /* nobody finds it any more */
    list_for_each (c, &r->clients, link)
        if (c->client.front == o->front)
            front_client_go(&c->client);
    while (o->ops || has_clients(r, o->front))
        vp_ignore(co_sleep_ns(1000), "nobody cancels it");
    volume_close(o->v);
    o->v = NULL;
}

/* See sim_volumes.h. */
#include "tests/lib/sim_volumes.h"

#include "base/verify.h"
#include "tests/lib/on_reactor.h"

#include <stdio.h>
#include <stdlib.h>

struct sim_volumes *sim_volumes_new(const struct sim_volumes_config *config)
{
    struct sim_volumes *s = calloc(1, sizeof(*s));
    VP_VERIFY_TRUE(s != NULL);
    s->config = *config;
    s->config.disks = config->disks ? config->disks : 2;
    s->config.disk_bytes = config->disk_bytes ? config->disk_bytes : 64 << 20;
    s->config.profile = config->profile ? config->profile : "single";
    s->config.metadata_bytes = config->metadata_bytes ? config->metadata_bytes : 4 << 20;
    s->world = sim_world_new(config->seed);
    for (unsigned i = 0; i < s->config.disks * (config->two_pools ? 2 : 1); i++) {
        (void)snprintf(s->name[i], sizeof(s->name[i]), "d%u", i);
        sim_volumes_disk_add(s, s->name[i], s->config.disk_bytes);
    }
    return s;
}

void sim_volumes_disk_add(struct sim_volumes *s, const char *name, uint64_t size_bytes)
{
    const struct sim_disk_config d = {
        .name = name,
        .size_bytes = size_bytes,
        .sector_bytes = 4096,
        .atomic_bytes = 4096,
        .write_cache = true,
        .latency_min_ns = 1000,
        .latency_max_ns = 100000,
    };
    (void)sim_disk_add(s->world, &d);
}

void sim_volumes_lives(const struct sim_volumes_config *config, sim_volumes_body *const *bodies,
                       unsigned count)
{
    struct sim_volumes *s = sim_volumes_new(config);
    for (unsigned i = 0; i < count; i++) {
        if (i)
            sim_volumes_power_cut(s, i);
        sim_volumes_run(s, bodies[i]);
    }
    sim_volumes_free(s);
}

void sim_volumes_free(struct sim_volumes *s)
{
    sim_world_free(s->world);
    free(s);
}

static CO int create(const struct sim_volumes *s, const char *pool, const char *const *paths,
                     const struct volumes_config *config, struct volumes **out,
                     struct vp_error *err)
{
    struct pool_create_options o = {
        .name = pool, .geometry = {64 << 10, 1 << 20, 64 << 10}, .force = true};
    VP_VERIFY_TRUE(raid_profile_parse(s->config.profile, &o.profile));
    return volumes_create(&o, paths, s->config.disks, config, out, err);
}

/* On the disks from `first` on. */
static CO int pool_open(const struct sim_volumes *s, const char *pool, unsigned first,
                        struct volumes **out)
{
    struct reactor *self = reactor_self();
    struct volumes_config config = {.reactors = &self,
                                    .reactor_count = 1,
                                    .metadata_bytes = s->config.metadata_bytes,
                                    .commit_interval_ms = UINT32_MAX,
                                    .background = s->config.background};
    const char *paths[SIM_VOLUMES_DISKS_MAX];
    struct vp_error err = {0};
    for (unsigned i = 0; i < s->config.disks; i++)
        paths[i] = s->name[first + i];
    int rc = s->created ? volumes_import(paths, s->config.disks, &config, out, &err)
                        : create(s, pool, paths, &config, out, &err);
    if (rc)
        (void)fprintf(stderr, "seed %llu: %s\n", (unsigned long long)s->config.seed, err.text);
    return rc;
}

int sim_volumes_reopen(struct sim_volumes *s)
{
    int rc = pool_open(s, "p", 0, &s->vs);
    if (!rc && s->config.two_pools)
        rc = pool_open(s, "q", s->config.disks, &s->other);
    s->created = true;
    return rc;
}

static bool cut_now(struct sim_world *w, uint64_t event, void *arg)
{
    (void)w, (void)event, (void)arg;
    return false;
}

static void run_body(void *arg)
{
    struct sim_volumes *s = arg;
    if (check_ok(sim_volumes_reopen(s)))
        s->body(s);
    /* One under way has memory that only its stack knows. */
    if (s->vs)
        pool_checkpoints_stop(volumes_pool(s->vs));
    if (s->other)
        pool_checkpoints_stop(volumes_pool(s->other));
    if (s->vs || s->other)
        sim_world_on_event(s->world, cut_now, NULL);
}

void sim_volumes_run(struct sim_volumes *s, void (*body)(struct sim_volumes *s))
{
    struct reactor_config config = {.sim = s->world, .buffer_bytes = 16 << 20};
    s->body = body;
    on_reactor(&config, run_body, s);
    if (s->vs)
        volumes_abandon(s->vs);
    if (s->other)
        volumes_abandon(s->other);
    s->vs = s->other = NULL;
    sim_world_on_event(s->world, NULL, NULL);
}

void sim_volumes_power_cut(struct sim_volumes *s, uint64_t seed)
{
    struct sim_snapshot *snap = sim_snapshot_take(s->world);
    unsigned n = sim_snapshot_pending(snap);
    struct sim_choice *choice = calloc(n + 1, sizeof(*choice));
    VP_VERIFY_TRUE(choice != NULL);
    for (unsigned i = 0; i < n; i++) {
        choice[i].fate = (enum sim_fate)sim_below(s->world, 3);
        choice[i].units = sim_random(s->world);
    }
    struct sim_world *next = sim_world_from_snapshot(snap, choice, seed);
    sim_snapshot_free(snap);
    sim_world_free(s->world);
    free(choice);
    s->world = next;
}

int sim_volumes_close(struct sim_volumes *s)
{
    int rc = volumes_close(s->vs, false);
    s->vs = NULL;
    return rc;
}

void sim_volumes_settle(struct sim_volumes *s)
{
    bool more = true;
    while (more && check_ok(volumes_background_step(s->vs, &more)))
        ;
}

struct volume *sim_volumes_open(struct sim_volumes *s, const char *name)
{
    struct vp_error err = {0};
    struct volume *v = NULL;
    if (!check_ok(volume_open(s->vs, name, false, &v, &err)))
        (void)fprintf(stderr, "%s\n", err.text);
    return v;
}

struct volume *sim_volumes_volume(struct sim_volumes *s, const char *name, uint64_t size_bytes)
{
    struct vp_error err = {0};
    struct volume_options o = {.size_bytes = size_bytes};
    if (!check_ok(volume_create(s->vs, name, &o, &err))) {
        (void)fprintf(stderr, "%s\n", err.text);
        return NULL;
    }
    return sim_volumes_open(s, name);
}

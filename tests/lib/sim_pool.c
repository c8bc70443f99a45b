/* See sim_pool.h. */
#include "tests/lib/sim_pool.h"

#include "base/verify.h"
#include "io/reactor.h"
#include "tests/lib/on_reactor.h"

#include <stdlib.h>
#include <string.h>

static const char *const names[] = {"d0", "d1", "d2", "d3", "d4", "d5"};
enum { DISKS_MAX = sizeof(names) / sizeof(names[0]) };

const struct pool_geometry sim_pool_geometry = {
    .chunk_bytes = 64 << 10, .extent_bytes = 1 << 20, .log_segment_bytes = 16 << 10};

struct sim_world *sim_pool_world(uint64_t seed, unsigned disks)
{
    struct sim_world *w = sim_world_new(seed);
    VP_VERIFY(disks, <=, (unsigned)DISKS_MAX);
    for (unsigned i = 0; i < disks; i++) {
        struct sim_disk_config config = {.name = names[i],
                                         .size_bytes = SIM_POOL_DISK_BYTES,
                                         .sector_bytes = 512,
                                         .atomic_bytes = 4096,
                                         .write_cache = true,
                                         .can_discard = true,
                                         .latency_min_ns = 1000,
                                         .latency_max_ns = 50000};
        (void)sim_disk_add(w, &config);
    }
    return w;
}

void sim_pool_run(struct sim_world *w, void (*body)(void *arg), void *arg)
{
    struct reactor_config config = {
        .sim = w, .max_coroutines = 64, .buffer_bytes = 8 << 20, .stack_bytes = 128 << 10};
    struct reactor *r;
    struct vp_error err;
    int rc = reactor_new(&config, &r, &err);
    VP_VERIFY(rc, ==, 0);
    reactor_run(r, body, arg);
    reactor_free(r);
}

int sim_pool_create(unsigned disks, struct pool **out, struct vp_error *err)
{
    return sim_pool_create_mirror(disks, disks > 1 ? 2 : 1, out, err);
}

int sim_pool_create_mirror(unsigned disks, unsigned copies, struct pool **out, struct vp_error *err)
{
    struct pool_create_options o = {
        .name = "tank",
        .profile = {copies > 1 ? RAID_MIRROR : RAID_SINGLE, 1, (uint8_t)(copies - 1)},
        .geometry = sim_pool_geometry,
        .force = true,
    };
    return pool_create(&o, names, disks, out, err);
}

int sim_pool_import(unsigned disks, const struct pool_client *client, struct pool **out,
                    struct vp_error *err)
{
    return pool_import(names, disks, 0, client, out, err);
}

static struct sim_world *reboot(struct sim_world *w, uint64_t seed, enum sim_fate fate)
{
    struct sim_snapshot *s = sim_snapshot_take(w);
    unsigned pending = sim_snapshot_pending(s);
    struct sim_choice *choices = calloc(pending + 1, sizeof(*choices));
    VP_VERIFY_TRUE(choices != NULL);
    for (unsigned i = 0; i < pending; i++)
        choices[i].fate = fate;
    struct sim_world *next = sim_world_from_snapshot(s, choices, seed);
    free(choices);
    sim_snapshot_free(s);
    sim_world_free(w);
    return next;
}

struct sim_world *sim_pool_reboot(struct sim_world *w, uint64_t seed)
{
    return reboot(w, seed, SIM_KEEP);
}

struct sim_world *sim_pool_power_cut(struct sim_world *w, uint64_t seed)
{
    return reboot(w, seed, SIM_DROP);
}

int sim_pool_commit_counter(struct pool *p, uint64_t key, uint64_t value)
{
    uint8_t space[64]; /* not the heap's: a power cut may come before the commit returns */
    struct pool_batch b = {.bytes = space, .capacity = sizeof(space)};
    struct le64 v = le64_make(value);
    pool_batch_set(&b, POOL_RECORD_COUNTER, 0, key, &v, sizeof(v));
    return pool_commit(p, &b);
}

uint64_t sim_pool_counter(struct pool *p, uint64_t key)
{
    struct pool_record r;
    struct le64 v;
    if (!pool_record_get(p, POOL_RECORD_COUNTER, 0, key, &r) || r.len != sizeof(v))
        return UINT64_MAX;
    memcpy(&v, r.value, sizeof(v));
    return le64_get(v);
}

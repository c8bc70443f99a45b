/*
 * Pools on simulated disks: a world with disks named "d0" … "d<n-1>", and bodies that run as
 * coroutines in it. Inside a body use check() of on_reactor.h.
 */
#ifndef VP_TESTS_SIM_POOL_H
#define VP_TESTS_SIM_POOL_H

#include "io/sim.h"
#include "pool/pool.h"

#define SIM_POOL_DISK_BYTES (8U << 20)

/* Chunks of 64 KiB, extents of 1 MiB, log segments of 16 KiB. */
extern const struct pool_geometry sim_pool_geometry;

struct sim_world *sim_pool_world(uint64_t seed, unsigned disks);
/* Runs body(arg) until nothing can happen any more, or the power is cut. */
void sim_pool_run(struct sim_world *w, void (*body)(void *arg), void *arg);

/* CO. On disks d0 … d<disks-1>; mirrored where there are two or more. */
CO int sim_pool_create(unsigned disks, struct pool **out, struct vp_error *err);
/* The same with so many copies, 1: single. */
CO int sim_pool_create_mirror(unsigned disks, unsigned copies, struct pool **out,
                              struct vp_error *err) must_check;
CO int sim_pool_import(unsigned disks, const struct pool_client *client, struct pool **out,
                       struct vp_error *err);

/* A power cut that loses nothing that had completed: the durable image with all pending writes
 * kept. Frees w. */
struct sim_world *sim_pool_reboot(struct sim_world *w, uint64_t seed);
/* The same, but every pending write is lost. */
struct sim_world *sim_pool_power_cut(struct sim_world *w, uint64_t seed);

/* CO. Commits COUNTER `key` = value. */
CO int sim_pool_commit_counter(struct pool *p, uint64_t key, uint64_t value);
/* UINT64_MAX when there is none. */
uint64_t sim_pool_counter(struct pool *p, uint64_t key);

#endif

/*
 * A small pool with one thin volume on simulated disks, for tests of thin/ and above. It plays the
 * part of volumes/: it keeps replayed records and writes checkpoints.
 *
 *     struct sim_thin *st = sim_thin_new(&config);
 *     sim_thin_run(st, body, arg);       // body is a coroutine; it begins with sim_thin_create
 *     sim_thin_power_cut(st, seed);      // of what was not flushed some is lost, some is not
 *     sim_thin_run(st, body2, arg);      // … begins with sim_thin_import
 *     sim_thin_free(st);
 */
#ifndef VP_TESTS_SIM_THIN_H
#define VP_TESTS_SIM_THIN_H

#include "io/sim.h"
#include "pool/pool.h"
#include "thin/thin.h"

enum { SIM_THIN_DISKS_MAX = 8 };

struct sim_thin_config {
    uint64_t seed;
    unsigned disks;                /* 0 = 2                                            */
    uint64_t disk_bytes;           /* 0 = 64 MiB                                       */
    const char *profile;           /* NULL = "single"                                  */
    struct pool_geometry geometry; /* 0 = 64 KiB chunks, 1 MiB extents, 64 KiB segments */
    uint64_t volume_blocks;        /* 0 = 16 MiB                                       */
    size_t cache_bytes;            /* 0 = 1 MiB                                        */
    uint64_t reserve_bytes;
    bool discard;
};

struct sim_thin {
    struct sim_thin_config config;
    struct sim_world *world;
    char name[SIM_THIN_DISKS_MAX][16];
    struct pool *pool;
    struct thin_cache *cache;
    struct thin *thin; /* volume 1 */
    struct pool_batch replay, intents;
    uint64_t checkpoints;
    void (*body)(struct sim_thin *st, void *arg);
    void *arg;
};

struct sim_thin *sim_thin_new(const struct sim_thin_config *config);
void sim_thin_free(struct sim_thin *st);
/* Runs body on a reactor of the world, and abandons what the body left open. */
void sim_thin_run(struct sim_thin *st, void (*body)(struct sim_thin *st, void *arg), void *arg);
struct sim_disk *sim_thin_disk(struct sim_thin *st, unsigned i);
/* Between runs: each write that no flush covered is kept, dropped or torn, as the seed says. */
void sim_thin_power_cut(struct sim_thin *st, uint64_t seed);

/* In a body. */
CO int sim_thin_create(struct sim_thin *st) must_check;
CO int sim_thin_import(struct sim_thin *st) must_check;
/* Commit, checkpoint, close. */
CO int sim_thin_close(struct sim_thin *st) must_check;
/* The end of a killed daemon: nothing is written, and nothing that completed is lost. What the
 * daemon kept is taken over only if the pool has a VOLUME record for volume 1. */
void sim_thin_abandon(struct sim_thin *st);

#endif

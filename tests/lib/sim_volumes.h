/*
 * A pool "p" with its volumes on simulated disks, on one simulated reactor; or two, "p" and "q".
 *
 *     struct sim_volumes *s = sim_volumes_new(&(struct sim_volumes_config){.seed = 1});
 *     sim_volumes_run(s, body);         // a coroutine; s->vs is open: created, later imported
 *     sim_volumes_power_cut(s, seed);   // between runs
 *     sim_volumes_run(s, body2);
 *     sim_volumes_free(s);
 *
 * What a body leaves open is abandoned, as by SIGKILL; sim_volumes_close ends pool "p" cleanly.
 */
#ifndef VP_TESTS_SIM_VOLUMES_H
#define VP_TESTS_SIM_VOLUMES_H

#include "io/sim.h"
#include "volumes/volume.h"

enum { SIM_VOLUMES_DISKS_MAX = 4 };

struct sim_volumes_config {
    uint64_t seed;
    unsigned disks;          /* 0 = 2          */
    uint64_t disk_bytes;     /* 0 = 64 MiB     */
    const char *profile;     /* NULL = single  */
    uint64_t metadata_bytes; /* 0 = 4 MiB     */
    bool background;
    bool two_pools; /* as many disks for each */
};

struct sim_volumes {
    struct sim_volumes_config config;
    struct sim_world *world;
    char name[2 * SIM_VOLUMES_DISKS_MAX][16]; /* disks of "p", then those of "q" */
    bool created;
    struct volumes *vs;    /* of "p" */
    struct volumes *other; /* of "q" */
    void (*body)(struct sim_volumes *s);
};

typedef void sim_volumes_body(struct sim_volumes *s);

struct sim_volumes *sim_volumes_new(const struct sim_volumes_config *config);
void sim_volumes_free(struct sim_volumes *s);
/* Creates the pools in the first run, imports them in later ones. */
void sim_volumes_run(struct sim_volumes *s, void (*body)(struct sim_volumes *s));
void sim_volumes_power_cut(struct sim_volumes *s, uint64_t seed);
/* All of it: a world, and the bodies one after the other, each but the first after a power cut. */
void sim_volumes_lives(const struct sim_volumes_config *config, sim_volumes_body *const *bodies,
                       unsigned count);
/* One more disk, in no pool. */
void sim_volumes_disk_add(struct sim_volumes *s, const char *name, uint64_t size_bytes);
/* In a body: */
CO int sim_volumes_close(struct sim_volumes *s) must_check;
CO int sim_volumes_reopen(struct sim_volumes *s) must_check;
/* Runs background steps until there is nothing to do. */
CO void sim_volumes_settle(struct sim_volumes *s);
/* In pool "p": volume_create with defaults, and volume_open; a failure is noted and NULL returned.
 */
CO struct volume *sim_volumes_volume(struct sim_volumes *s, const char *name, uint64_t size_bytes);
CO struct volume *sim_volumes_open(struct sim_volumes *s, const char *name);

#endif

/*
 * Two hosts, each with a pool: clients, a volume that moves from the first to the second, and what
 * befalls one of them or the link between them, at one moment of a run.
 *
 * Each host is a world and a reactor (io/sim_hosts.h). They have one model, whose events are those
 * of both hosts' disks and the messages that are sent.
 *
 * A host that stays up keeps its memory. So a moment is no snapshot of disks: the run is made again
 * from its seed up to there, or goes on in a copy of the process (hosts_explore.c).
 */
#ifndef VP_TESTS_SIM_HOSTS_H
#define VP_TESTS_SIM_HOSTS_H

#include "tests/sim/explore.h"
#include "tests/sim/peer.h"

enum { HOSTS = 2 };

struct hosts;

struct host {
    struct rig rig;
    struct hosts *all;
    unsigned index;
    struct reactor *reactor; /* NULL: it is down */
    struct peers peers;
    struct co_group monitor;
    bool serves;  /* the pool is open, and moves of an earlier life are settled */
    bool ends;    /* it stops at this moment */
    bool crashed; /* it has been */
    bool forgets; /* … while it had the volume: that may have lost what was not flushed */
    bool done;    /* its main coroutine has ended */
    struct sim_snapshot *left; /* by its last life */
};

struct hosts {
    const struct scenario *sc;
    struct sim_hosts *sim;
    struct model *model;
    struct link link;
    struct host host[HOSTS];
    uint64_t seed;
    bool recording; /* the body runs */
    bool body_ended;
    bool closing;          /* all is settled: the hosts close their pools */
    bool is_copy;          /* of the process: its end frees the memory, sooner than we do */
    bool met;              /* the mishap */
    uint64_t met_event;    /* … before that event */
    unsigned arrive_flush; /* index + 1 of the model's flush that an arrival is */
    uint64_t served_epoch; /* of the last request that was served … */
    unsigned served_host;  /* … there */
    void (*moment)(struct hosts *h); /* before each event while the body runs; may be NULL */
    void *arg;
    char why[1024];
};

/* The clients' volume. Scenarios of hosts have one. */
#define HOSTS_VOLUME "a"

/* Runs a scenario, with what position.mishap says. False: it has failed, and *h says why. In any
 * case *h is to be freed. */
bool hosts_run(struct hosts *h, const struct scenario *sc, uint64_t seed,
               void (*moment)(struct hosts *h), void *arg);
void hosts_free(struct hosts *h);

/* Called before each disk event of a host. */
void host_event(struct host *h);
unsigned host_index(const struct host *h);
/* Whether a client may see this error of its operation: the volume leaves, or something befell the
 * hosts. */
bool host_expects(const struct host *h, const struct op *op, int rc);
/* A request of a client was served: no other host has served a newer epoch. */
void host_served(struct host *h);
/* The first coroutine of a host: its whole life, but for a crash. `arg`: the host. */
void host_main(void *arg);
/* Makes the move of OP_MIGRATE to the other host. CO. */
int host_migrate(struct host *h, const struct op *op);

/* Explores a scenario of hosts: each mishap at each event. As `explore`. */
bool hosts_explore(const struct scenario *sc, uint64_t seed, const struct explore_filter *filter,
                   uint64_t states_max, struct explore_counts *counts);

#endif

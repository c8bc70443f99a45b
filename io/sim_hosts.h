/*
 * Several hosts in one thread. A host is a simulated world (its disks, its kept memory, its random
 * numbers) and a reactor in it. Whoever drives the hosts calls sim_hosts_step again and again. All
 * hosts have one clock: what comes first in any of them happens first. Of hosts that could go on at
 * the same moment the seed chooses one. So a run is a function of the seeds.
 *
 * A power cut or a kill of one host: its world is copied (sim_snapshot_take), the host is stopped,
 * and a new host begins in the world that the copy leads to, while the others go on.
 */
#ifndef VP_IO_SIM_HOSTS_H
#define VP_IO_SIM_HOSTS_H

#include "io/sim.h"

struct reactor;
struct sim_hosts;

enum { SIM_HOSTS_MAX = 4 };

struct sim_hosts *sim_hosts_new(uint64_t seed);
/* The worlds and the reactors are their owners'. */
void sim_hosts_free(struct sim_hosts *h);
/* Of all hosts, also of one that begins later. */
uint64_t sim_hosts_now_ns(const struct sim_hosts *h);
/* Random numbers that belong to no host. */
uint64_t sim_hosts_below(struct sim_hosts *h, uint64_t bound);

/* Host `at` begins, with first(arg) as the first coroutine of `r`, whose config.sim is `w`. Both
 * stay until sim_hosts_stop. */
void sim_hosts_start(struct sim_hosts *h, unsigned at, struct sim_world *w, struct reactor *r,
                     void (*first)(void *arg), void *arg);
/* It never goes on. Not while it runs. */
void sim_hosts_stop(struct sim_hosts *h, unsigned at);
/* It was started, not stopped, and has neither ended nor lost its power. */
bool sim_hosts_is_up(const struct sim_hosts *h, unsigned at);

/* fn(arg) runs at once on a host that is up, in its reactor's own context: it must not yield, and
 * may spawn and wake. Not while a host runs. */
void sim_hosts_on(struct sim_hosts *h, unsigned at, void (*fn)(void *arg), void *arg);
/* fn(arg) runs `delay_ns` from now, on no host. */
void sim_hosts_later(struct sim_hosts *h, uint64_t delay_ns, void (*fn)(void *arg), void *arg);

/* Runs one host until it waits, or lets the next thing happen. False: nothing ever happens any
 * more. */
bool sim_hosts_step(struct sim_hosts *h);

#endif

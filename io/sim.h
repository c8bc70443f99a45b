/*
 * The simulated world: disks, clock and random numbers, all from one seed, for a reactor whose
 * config.sim points here. One thread, fully deterministic.
 *
 * The fault model (docs/design.md, "Faults"): a disk is a durable image and a volatile cache. Reads
 * see the cache. Between flushes any subset of completed or in-flight writes may persist, in any
 * order, each atomic unit by itself; a flush covers what had completed before it was submitted;
 * disks crash independently. Sectors that were never written read as seeded noise.
 */
#ifndef VP_IO_SIM_H
#define VP_IO_SIM_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sim_world;
struct sim_disk;

struct sim_world *sim_world_new(uint64_t seed);
void sim_world_free(struct sim_world *w);
uint64_t sim_random(struct sim_world *w);                /* 64 random bits      */
uint64_t sim_below(struct sim_world *w, uint64_t bound); /* 0 … bound-1         */
uint64_t sim_now_ns(const struct sim_world *w);

struct sim_disk_config {
    const char *name; /* what io_dev_open takes as its path */
    uint64_t size_bytes;
    uint32_t sector_bytes, atomic_bytes;
    bool write_cache; /* false: every completed write is durable        */
    bool can_discard;
    uint64_t latency_min_ns, latency_max_ns; /* each op draws from here: reorders          */
};
struct sim_disk *sim_disk_add(struct sim_world *w, const struct sim_disk_config *config);
struct sim_disk *sim_disk_find(struct sim_world *w, const char *name);

/* ---- faults ------------------------------------------------------------------------------- */

enum sim_fault {
    SIM_FAULT_ERROR,     /* the op fails with VP_E_IO                                       */
    SIM_FAULT_LOST,      /* a write is acknowledged and never happens                       */
    SIM_FAULT_MISDIRECT, /* a write lands elsewhere on the same disk (at `arg`)             */
    SIM_FAULT_FLIP,      /* a bit of what a write stored is flipped                         */
    SIM_FAULT_DEAD,      /* from this op on everything fails with VP_E_IO_NO_DEVICE         */
    SIM_FAULT_FULL,      /* for `arg` ns no write or flush finds room below it (VP_E_NO_SPACE)   */
    SIM_FAULT_STALL,     /* the op completes `arg` ns late                                  */
    SIM_FAULT_AGAIN,     /* for `arg` ns every op fails with VP_E_AGAIN                     */
    SIM_FAULT_NO_MEMORY, /* for `arg` ns every op fails with VP_E_NO_MEMORY; a flush only if
                            kind_mask has IO_FLUSH                                          */
    SIM_FAULT_HANG,      /* for `arg` ns the disk completes nothing: sim_disk_hang            */
    SIM_FAULT_BAD_PAGE,  /* page `arg` of the op's range cannot be read from now on (below)  */
};
/* The n-th op from now (0 = the next) of the kinds in `kind_mask` (1 << enum io_kind) meets it. */
void sim_disk_inject(struct sim_disk *d, enum sim_fault fault, unsigned kind_mask, uint64_t nth,
                     uint64_t arg);
/* The next `count` ops of these kinds fail with VP_E_IO. */
void sim_disk_fail(struct sim_disk *d, unsigned kind_mask, unsigned count);
void sim_disk_set_dead(struct sim_disk *d, bool dead); /* death and return */
/* The disk completes nothing for `ns` from now on, of what is in flight neither; then it does. 0: a
 * hang ends. */
void sim_disk_hang(struct sim_disk *d, uint64_t ns);
bool sim_disk_is_dead(const struct sim_disk *d);
/* Faults end: planned ones do not come, the disk is back, all of it can be read, nothing is
 * short. */
void sim_disk_heal(struct sim_disk *d);
/* Bytes that were preallocated on it. There is no room for them while it is SIM_FAULT_FULL. */
uint64_t sim_disk_preallocated(const struct sim_disk *d);
/* How many ops of a kind were submitted so far. */
uint64_t sim_disk_ops(const struct sim_disk *d, unsigned kind);
/* The 4 KiB at `offset` (aligned) cannot be read until they are written as a whole. A snapshot does
 * not have them: a new world's disks have no bad places. */
void sim_disk_set_unreadable(struct sim_disk *d, uint64_t offset);
/* Called for each write that is submitted; true: it fails with VP_E_IO and may have happened in
 * part. */
typedef bool (*sim_write_fails_fn)(const void *buf, uint64_t len, void *arg);
void sim_world_on_write(struct sim_world *w, sim_write_fails_fn fn, void *arg);
/* Flips a bit of what is stored now, durable and cached. */
void sim_disk_flip_bit(struct sim_disk *d, uint64_t offset, unsigned bit);
/* Raw access to the current content, past all faults (oracle and damage tests). */
void sim_disk_peek(struct sim_disk *d, uint64_t offset, void *buf, size_t len);
void sim_disk_poke(struct sim_disk *d, uint64_t offset, const void *buf, size_t len);

/* ---- crash points ------------------------------------------------------------------------- */

/*
 * Called before each event of any disk (op submitted, op completed), when set: the world may be
 * snapshotted there. `event` counts from 0. Returning false stops the reactor at once ("power
 * cut"): reactor_run returns, its coroutines are abandoned and reactor_free reclaims them.
 */
typedef bool (*sim_event_fn)(struct sim_world *w, uint64_t event, void *arg);
void sim_world_on_event(struct sim_world *w, sim_event_fn fn, void *arg);
/* The same at once, from anywhere. */
void sim_world_cut(struct sim_world *w);

/*
 * A copy of all disks, each a base image (copy-on-write, shared) plus its list of pending writes
 * (completed or not, not yet covered by a completed flush), numbered 0 … n-1 over all disks in
 * the order of submission.
 */
struct sim_snapshot;
struct sim_snapshot *sim_snapshot_take(struct sim_world *w);
void sim_snapshot_free(struct sim_snapshot *s);
unsigned sim_snapshot_pending(const struct sim_snapshot *s);
/* Atomic units of pending write i, how it could tear. */
unsigned sim_snapshot_units(const struct sim_snapshot *s, unsigned i);

enum sim_fate { SIM_DROP, SIM_KEEP, SIM_TEAR };
/* Fate of one pending write; for SIM_TEAR the units whose bit (modulo 64) is set persist. */
struct sim_choice {
    enum sim_fate fate;
    uint64_t units;
};
/* A hash of the disks' content that the choices lead to (equal images, equal hash), cheap, for
 * de-duplication. */
uint64_t sim_snapshot_hash(const struct sim_snapshot *s, const struct sim_choice *choices);
/* A new world (its random numbers from `seed`) whose disks hold what the choices left, caches
 * empty. Kept writes apply in the order of submission. Cheap: pages are shared until written. */
struct sim_world *sim_world_from_snapshot(const struct sim_snapshot *s,
                                          const struct sim_choice *choices, uint64_t seed);

/*
 * A new world after a kill of the process. The power stayed: completed writes are there, in the
 * disks' caches if they were not flushed. Writes in flight landed (SIM_KEEP) or did not. Kept
 * memory (io/keep.h) is there.
 */
struct sim_world *sim_world_after_kill(const struct sim_snapshot *s,
                                       const struct sim_choice *choices, uint64_t seed);
/* Kept memory that can be reserved from now on, in pages of 4 KiB over all; no limit at first. */
void sim_world_limit_keeps(struct sim_world *w, unsigned pages);
/* How often kept memory was looked for, read or changed by name so far (io/keep.h), and: the
 * operation after the next `n` of these fails with VP_E_IO. UINT64_MAX: none fails. */
uint64_t sim_world_keep_ops(const struct sim_world *w);
void sim_world_fail_keep_op(struct sim_world *w, uint64_t n);
bool sim_snapshot_is_complete(const struct sim_snapshot *s, unsigned i);
uint64_t sim_snapshot_keeps_hash(const struct sim_snapshot *s);
/* The disks were set back: kept memory is as it was at `s`, with these disks or others. */
void sim_world_set_keeps(struct sim_world *w, const struct sim_snapshot *s);

#endif

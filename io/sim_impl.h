/*
 * What a simulated world does for the reactor that runs in it, instead of a ring. Private to io/:
 * called by reactor*.c and device.c, defined in sim_*.c. One thread; nothing here yields.
 */
#ifndef VP_IO_SIM_IMPL_H
#define VP_IO_SIM_IMPL_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct io_dev;
struct io_keep;
struct io_op;
struct sim_world;

uint64_t sim_reactor_now_ns(struct sim_world *w);
void sim_reactor_random(struct sim_world *w, void *out, size_t len);

/* As io_dev_open; `path` is the name of a simulated disk. */
int sim_reactor_dev_open(struct sim_world *w, const char *path, unsigned flags, struct io_dev **out,
                         struct vp_error *err) must_check;

/*
 * The reactor has nothing to run until `wait_until_ns` (its next timer; UINT64_MAX: it has none).
 * Processes the next disk event, whose completions call io_op_complete, when one comes before that
 * time; else advances the clock to it. False when nothing can ever happen any more, or when the
 * world was cut.
 */
bool sim_reactor_step(struct sim_world *w, uint64_t wait_until_ns);

/* Asks `leave` of each op in flight that somebody waits for; true: it ends with VP_E_IO_SILENT, and
 * its disk completes it late, for nobody. False: there were none. */
bool sim_reactor_leave_ops(struct sim_world *w, bool (*leave)(struct io_op *op, void *arg),
                           void *arg);

/* When the next disk event comes; UINT64_MAX: none is under way. */
uint64_t sim_world_next_ns(const struct sim_world *w);
/* It is then, if it was earlier. */
void sim_world_advance(struct sim_world *w, uint64_t now_ns);

/* As io_keep_… (io/keep.h). */
int sim_keep_new(struct sim_world *w, const char *name, size_t capacity,
                 struct io_keep *out) must_check;
int sim_keep_reserve(struct io_keep *k, size_t offset, size_t len) must_check;
int sim_keep_read(struct sim_world *w, const char *name, size_t offset, void *bytes,
                  size_t len) must_check;
int sim_keep_poke(struct sim_world *w, const char *name, size_t offset, const void *bytes,
                  size_t len) must_check;
void sim_keep_close(struct io_keep *k);
bool sim_keep_is_owned(struct sim_world *w, const char *name);
int sim_keep_look(struct sim_world *w, const char *name, uint64_t *bytes,
                  uint64_t *age_seconds) must_check;
void sim_keep_remove(struct sim_world *w, const char *name);
int sim_keep_each(struct sim_world *w, const char *prefix, int (*fn)(const char *name, void *arg),
                  void *arg) must_check;

/* The power was cut: reactor_run returns at once and abandons its coroutines. */
bool sim_world_is_cut(const struct sim_world *w);

#endif

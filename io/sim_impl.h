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

/* The power was cut: reactor_run returns at once and abandons its coroutines. */
bool sim_world_is_cut(const struct sim_world *w);

#endif

/* Calls that may wait for a disk or a file system (open, stat, fsync, name look-ups). Each runs on
 * a thread of its own, so the reactor goes on serving. The disk may be one that this very reactor
 * serves. Control path only. */
#ifndef VP_IO_OFFLOAD_H
#define VP_IO_OFFLOAD_H

#include "base/error.h"
#include "io/co.h"

#include <stdint.h>

/*
 * Runs fn(arg) on a new thread and returns what fn returned. fn uses nothing of reactors. `arg`
 * belongs to fn until this call returns. In a simulated world, and where there is no reactor, fn
 * runs at once. VP_E_NO_MEMORY when no thread could be made.
 */
CO int offload_run(int (*fn)(void *arg), void *arg) must_check;

/*
 * The same for an fn that may last longer than its caller wants to wait, as a look-up in a name
 * server may. 0: fn has returned *fn_rc, and `arg` is the caller's again. Otherwise the caller does
 * not touch `arg` any more, and drop(arg) is called once, when fn has returned. Errors:
 * VP_E_TIMED_OUT (`deadline_ns` on the reactor's clock, 0 = none), VP_E_CANCELLED (co_cancel),
 * VP_E_NO_MEMORY.
 */
CO int offload_run_until(int (*fn)(void *arg), void *arg, void (*drop)(void *arg),
                         uint64_t deadline_ns, int *fn_rc) must_check;

#endif

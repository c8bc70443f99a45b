/* Calls that may wait for a disk or a file system (open, stat, fsync, name look-ups). Each runs on
 * a thread of its own, so the reactor goes on serving. The disk may be one that this very reactor
 * serves. Control path only. */
#ifndef VP_IO_OFFLOAD_H
#define VP_IO_OFFLOAD_H

#include "base/error.h"
#include "io/co.h"

/*
 * Runs fn(arg) on a new thread and returns what fn returned. fn uses nothing of reactors. `arg`
 * belongs to fn until this call returns. In a simulated world, and where there is no reactor, fn
 * runs at once. VP_E_NO_MEMORY when no thread could be made.
 */
CO int offload_run(int (*fn)(void *arg), void *arg) must_check;

#endif

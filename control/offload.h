/* Blocking work (fsync of a small file, name look-ups) on a thread of its own, so that the reactor
 * goes on serving. Control path only. */
#ifndef VP_CONTROL_OFFLOAD_H
#define VP_CONTROL_OFFLOAD_H

#include "base/error.h"
#include "io/co.h"

/* Runs fn(arg) on a new thread and returns what it returned. fn uses nothing of io/. `arg` belongs
 * to fn until this returns. VP_E_NO_MEMORY when no thread could be made. */
CO int offload_run(int (*fn)(void *arg), void *arg) must_check;

#endif

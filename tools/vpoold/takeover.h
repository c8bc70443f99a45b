/*
 * vpoold --takeover: a new daemon takes the place of a running one, for an upgrade.
 *
 * 1. The new process has read its configuration.
 * 2. takeover_check: is there a daemon on the socket, is it of the same user, does it answer? Are
 *    its pools those that this daemon would serve (the same state directory)? Could this daemon
 *    lock that directory and make the socket? Nothing has changed so far, and any failure leaves
 *    the running daemon alone.
 * 3. The new daemon opens its log and makes its reactors, and signals wait for them. Still nothing
 *    has changed.
 * 4. takeover_run: the old daemon writes checkpoints while it still serves, so that it has little
 *    to write at its end. Then it is asked, by its pid, to leave. It may refuse. If it agrees, its
 *    end is an ordinary one: devices stay, pools are closed, and the process ends. The new process
 *    waits for that end with a pidfd. It looks for SIGINT and SIGTERM right before the question.
 *    Later these signals end the new daemon, as they would end any daemon.
 * 5. The new process starts as always.
 *
 * An old daemon that has agreed and does not end in time is killed. That loses nothing, because
 * users wait for the next daemon already. An old daemon that has not answered is waited for equally
 * long and not killed.
 *
 * Tested by tests/integration/t_takeover.sh; with other users and under load, by
 * tests/vm/t_takeover.sh.
 */
#ifndef VP_TOOLS_VPOOLD_TAKEOVER_H
#define VP_TOOLS_VPOOLD_TAKEOVER_H

#include "base/error.h"
#include "control/config.h"

#include <stdbool.h>

struct takeover {
    bool found; /* else nobody is there, and this is an ordinary start */
    int pid, pid_fd;
    char version[32];
};

/* Blocks. VP_E_… with a sentence; VP_E_INVALID: it serves other pools. */
int takeover_check(const struct control_config *c, struct takeover *t,
                   struct vp_error *err) must_check;
/* When this returns 0 the old process is gone. Closes pid_fd. */
int takeover_run(const struct control_config *c, struct takeover *t,
                 struct vp_error *err) must_check;

#endif

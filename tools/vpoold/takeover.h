/*
 * vpoold --takeover: the place of a running daemon, for an upgrade.
 *
 * 1. The new process has read its configuration.
 * 2. takeover_check: is there a daemon on the socket, is it of the same user, does it answer, are
 *    its pools those that this one would serve (the same state directory), and could this one lock
 *    that directory and make the socket? Nothing has changed so far, and any failure leaves the
 *    running daemon alone.
 * 3. Its log is opened, its reactors are made, signals wait for them. Still nothing has changed.
 * 4. takeover_run: the old one writes checkpoints while it still serves, so that it has little to
 *    write at its end; then it is asked, by its pid, to leave. It may refuse. If it does not, it is
 *    an ordinary end: devices stay, pools are closed, the process ends, which this one waits for by
 *    its pidfd. SIGINT and SIGTERM are looked for right before the question: later they end the new
 *    daemon, as they would end any.
 * 5. The new process starts as ever.
 *
 * An old daemon that has agreed and does not end in time is killed, which loses nothing: users wait
 * for the next one already. One that has not answered is waited for as long and not killed.
 *
 * Tested by tests/integration/t_takeover.sh; with other users and under load,
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

/*
 * The daemon without its main(): pools, attachments, the control socket, events. One per process;
 * everything runs on the home reactor (reactors[0]).
 */
#ifndef VP_CONTROL_CONTROL_H
#define VP_CONTROL_CONTROL_H

#include "base/error.h"
#include "control/config.h"
#include "io/reactor.h"

struct control;

struct control_options {
    const struct control_config *config; /* borrowed for the object's life */
    struct reactor *const *reactors;     /* borrowed likewise */
    unsigned reactor_count;
    int signal_fd; /* a non-blocking signalfd: SIGTERM and SIGINT stop; borrowed */
    /* Called once: 0 when everything that comes back is back and requests are answered, or why it
     * cannot start. May be NULL. */
    void (*ready)(void *arg, int rc, const char *text);
    void *ready_arg;
    /* SIGHUP: opens the log file anew, after it was moved away. May be NULL; gets ready_arg. */
    void (*reopen_log)(void *arg);
};

int control_new(const struct control_options *o, struct control **out,
                struct vp_error *err) must_check;

/* The home reactor's first coroutine (arg = struct control): imports what was there, serves until a
 * signal comes, then ends exports, commits, checkpoints, closes, and stops all reactors. */
CO void control_main(void *arg);

/* 0, or why the daemon could not start or end cleanly. After reactor_run. */
int control_result(const struct control *c);
void control_free(struct control *c);

#endif

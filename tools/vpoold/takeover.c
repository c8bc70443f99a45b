/* The client's side of a takeover. Blocks: no reactor runs yet. */
#include "tools/vpoold/takeover.h"

#include "base/log.h"
#include "control/state.h"
#include "lib/client.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <libgen.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ANSWER_MS     5000  /* daemon.info, daemon.leave: no method answers sooner                */
#define CHECKPOINT_MS 60000 /* while the old daemon serves                                        */
#define BUSY_TRIES    100   /* another command is under way in the old daemon … */
#define BUSY_NAP_MS   100 /* … so many times so long                                            */
#define END_MS        10000
#define KILLED_MS     5000

static int fail(struct vp_error *err, const struct vpool_error *e, const char *what)
{
    return vp_fail(err, VP_E_NO_DAEMON, "%s: %s", what, e->text);
}

/* Takes the reference of `params`; returns the caller's reference, NULL on failure. */
static json_t *call(struct vpool_client *client, const char *method, json_t *params,
                    struct vpool_error *e)
{
    json_t *result = NULL;
    vp_ignore(vpool_call_json(client, method, params, &result, e), "then result is NULL");
    return result;
}

/* ---- before anything changes ----------------------------------------------------------------- */

static int check_group(const char *group, struct vp_error *err)
{
    if (!group[0] || getgrnam(group))
        return 0;
    return vp_fail(err, VP_E_NOT_FOUND,
                   "socket-group '%s' does not exist: the running daemon was left alone", group);
}

/* The kernel says which process to wait for and to kill, not the other side. The pidfd is there
 * before the first answer. A process that answers after that has not ended since, so the answer is
 * its own and not a successor's. */
static int check_peer(const struct control_config *c, const struct vpool_client *client,
                      struct takeover *t, struct vp_error *err)
{
    struct vpool_error e;
    uid_t uid;
    if (vpool_peer(client, &t->pid, &uid, &e))
        return fail(err, &e, "taking over");
    if (t->pid <= 0)
        return vp_fail(err, VP_E_NOT_SUPPORTED,
                       "what answers on %s runs outside of this container (pid namespace): it was "
                       "left alone",
                       c->socket);
    if (uid != geteuid())
        return vp_fail(err, VP_E_PERMISSION,
                       "the running daemon (pid %d) is user %u's, and this one would be user %u's: "
                       "it was left alone",
                       t->pid, uid, geteuid());
    t->pid_fd = (int)syscall(SYS_pidfd_open, t->pid, 0);
    return t->pid_fd < 0 ? vp_fail_errno(err, VP_E_SYSTEM, errno, "process %d", t->pid) : 0;
}

static int check_info(const struct control_config *c, const json_t *info, struct takeover *t,
                      struct vp_error *err)
{
    const char *dir = json_string_value(json_object_get(info, "state_dir"));
    const char *version = json_string_value(json_object_get(info, "version"));
    int pid = (int)json_integer_value(json_object_get(info, "pid"));
    if (!dir || !version || pid <= 0)
        return vp_fail(err, VP_E_RPC_PROTOCOL, "what answers on %s is no vpoold", c->socket);
    if (pid != t->pid)
        return vp_fail(err, VP_E_RPC_PROTOCOL,
                       "process %d listens on %s and says that it is process %d: it was left alone",
                       t->pid, c->socket, pid);
    (void)snprintf(t->version, sizeof(t->version), "%s", version);
    if (strcmp(dir, c->state_dir) != 0)
        return vp_fail(err, VP_E_INVALID,
                       "the running daemon (pid %d) has the state directory %s, and this one would "
                       "use %s and not find its pools: it was left alone",
                       t->pid, dir, c->state_dir);
    return 0;
}

static int check_daemon(const struct control_config *c, struct vpool_client *client,
                        struct takeover *t, struct vp_error *err)
{
    struct vpool_error e;
    int rc = check_peer(c, client, t, err);
    if (rc)
        return rc;
    json_t *info = call(client, "daemon.info", NULL, &e);
    if (!info)
        return vp_fail(err, VP_E_NO_DAEMON,
                       "the running daemon (pid %d) does not answer (%s); it was left alone. If it "
                       "hangs, kill -9 it and start this one: users of its block devices wait "
                       "meanwhile",
                       t->pid, e.text);
    rc = check_info(c, info, t, err);
    json_decref(info);
    return rc;
}

/* Tries, as far as possible, what this daemon cannot have before the other one has left. */
static int check_place(const struct control_config *c, struct vp_error *err)
{
    struct vp_error why = {0};
    int rc = state_lock_try(c->state_dir, &why);
    if (rc)
        return vp_fail(err, rc, "%s: the running daemon was left alone", why.text);
    char path[sizeof(c->socket)];
    (void)snprintf(path, sizeof(path), "%s", c->socket);
    const char *dir = dirname(path);
    if (faccessat(AT_FDCWD, dir, W_OK | X_OK, AT_EACCESS))
        return vp_fail(err, VP_E_PERMISSION,
                       "%s, where the socket would be made: %s: the running daemon was left alone",
                       dir, strerror(errno));
    return 0;
}

static void let_go(struct takeover *t)
{
    if (t->pid_fd >= 0)
        close(t->pid_fd);
    t->pid_fd = -1;
}

int takeover_check(const struct control_config *c, struct takeover *t, struct vp_error *err)
{
    struct vpool_error e;
    struct vpool_client *client;
    *t = (struct takeover){.pid_fd = -1};
    int rc = check_group(c->socket_group, err);
    if (rc)
        return rc;
    if (vpool_connect(c->socket, ANSWER_MS, &client, &e))
        return strcmp(e.name, "NO_DAEMON") == 0 ? 0 : fail(err, &e, "taking over");
    rc = check_daemon(c, client, t, err);
    vpool_close(client);
    if (rc == 0)
        rc = check_place(c, err);
    t->found = rc == 0;
    if (rc)
        let_go(t);
    return rc;
}

/* ---- the hand-over --------------------------------------------------------------------------- */

/* What the checkpoint holds need not be written while users wait. A pool that cannot write a
 * checkpoint is closed without one as well. */
static void write_checkpoints(struct vpool_client *client)
{
    struct vpool_error e;
    json_t *list = call(client, "pool.list", NULL, &e);
    size_t i;
    const json_t *p;
    json_array_foreach(json_object_get(list, "pools"), i, p)
    {
        json_t *params = json_pack("{s:O}", "pool", json_object_get(p, "uuid"));
        json_t *result = call(client, "pool.checkpoint", params, &e);
        if (!result)
            vp_info("no checkpoint before the takeover: %s", e.text);
        json_decref(result);
    }
    json_decref(list);
}

/* Both signals are blocked, and the new daemon would read them first of all. With the old daemon
 * gone, no daemon would be left. */
static int check_signals(struct vp_error *err)
{
    sigset_t pending;
    if (sigpending(&pending))
        return vp_fail_errno(err, VP_E_SYSTEM, errno, "sigpending");
    bool term = sigismember(&pending, SIGTERM) == 1;
    if (!term && sigismember(&pending, SIGINT) != 1)
        return 0;
    return vp_fail(err, VP_E_CANCELLED, "%s ended the takeover: the running daemon was left alone",
                   term ? "SIGTERM" : "SIGINT");
}

static bool has_ended(const struct takeover *t, int timeout_ms)
{
    struct pollfd p = {.fd = t->pid_fd, .events = POLLIN};
    return poll(&p, 1, timeout_ms) == 1;
}

static int wait_for_end(const struct takeover *t, struct vp_error *err)
{
    if (has_ended(t, END_MS))
        return 0;
    vp_warn("process %d has not ended after %d s: it is killed", t->pid, END_MS / 1000);
    if (syscall(SYS_pidfd_send_signal, t->pid_fd, SIGKILL, NULL, 0) && errno != ESRCH)
        return vp_fail_errno(err, VP_E_SYSTEM, errno, "killing process %d", t->pid);
    if (has_ended(t, KILLED_MS))
        return 0;
    return vp_fail(
        err, VP_E_TIMED_OUT,
        "process %d does not end, though it was killed: the kernel holds it (see `dmesg`); "
        "start this daemon when it is gone",
        t->pid);
}

/* The old daemon may have agreed, or be ending by itself, or never have seen the question. So it is
 * not killed. */
static int wait_unanswered(const struct takeover *t, const struct vpool_error *e,
                           struct vp_error *err)
{
    if (has_ended(t, END_MS))
        return 0;
    return vp_fail(err, VP_E_TIMED_OUT,
                   "the running daemon (pid %d) does not say whether it leaves (%s): it may still "
                   "do so. Start this one again with --takeover, which is right in both cases",
                   t->pid, e->text);
}

static int refused(const struct takeover *t, const struct vpool_error *e, struct vp_error *err)
{
    if (strcmp(e->name, "RPC_METHOD") == 0 || strcmp(e->name, "RPC_PARAMS") == 0)
        return vp_fail(err, VP_E_NOT_SUPPORTED,
                       "the running daemon (pid %d, version %s) cannot be taken over from: stop it "
                       "(SIGTERM; block devices stay, and their users wait) and start this one",
                       t->pid, t->version);
    return vp_fail(err, VP_E_BUSY, "the running daemon (pid %d) does not leave: %s", t->pid,
                   e->text);
}

static int leave(struct vpool_client *client, const struct takeover *t, struct vp_error *err)
{
    struct vpool_error e = {0};
    for (unsigned i = 0; i < BUSY_TRIES; i++) {
        int rc = check_signals(err);
        if (rc)
            return rc;
        json_t *result = call(client, "daemon.leave", json_pack("{s:i}", "pid", t->pid), &e);
        if (result) {
            json_decref(result);
            return wait_for_end(t, err);
        }
        if (strcmp(e.name, "BUSY") != 0)
            break;
        (void)poll(NULL, 0, BUSY_NAP_MS);
    }
    bool says_no = e.rpc_code && strcmp(e.name, "SHUTDOWN") != 0;
    return says_no ? refused(t, &e, err) : wait_unanswered(t, &e, err);
}

static int hand_over(const struct control_config *c, const struct takeover *t, struct vp_error *err)
{
    struct vpool_error e;
    struct vpool_client *client;
    if (vpool_connect(c->socket, CHECKPOINT_MS, &client, &e))
        return wait_unanswered(t, &e, err);
    write_checkpoints(client);
    vpool_close(client);
    if (vpool_connect(c->socket, ANSWER_MS, &client, &e))
        return wait_unanswered(t, &e, err);
    int rc = leave(client, t, err);
    vpool_close(client);
    return rc;
}

int takeover_run(const struct control_config *c, struct takeover *t, struct vp_error *err)
{
    int rc = hand_over(c, t, err);
    if (rc == 0)
        vp_info("took over from process %d, version %s", t->pid, t->version);
    let_go(t);
    return rc;
}

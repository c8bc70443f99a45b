/*
 * vpool-nbd is a captive NBD server. It opens a pool without a daemon, serves one volume until its
 * client is gone, and closes the pool. It serves `nbdcopy -- [ vpool-nbd … ] out.img`, socket
 * activation and rescue.
 */
#include "base/error.h"
#include "base/log.h"
#include "io/net.h"
#include "io/reactor.h"
#include "nbd/server.h"
#include "pool/pool.h"
#include "volumes/volume.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define STOP_MS     2000U
#define STACK_BYTES (256U << 10) /* libblkid runs on a coroutine's stack */
/* systemd's protocol: the first inherited socket (SD_LISTEN_FDS_START). */
#define LISTEN_FD 3

enum where { NOWHERE, CONNECTED, LISTENING, UNIX_PATH };

struct options {
    const char *paths[POOL_DISKS_MAX];
    unsigned path_count;
    char pool[POOL_NAME_MAX + 1];
    const char *volume;
    const char *full_name;
    bool read_only;
    enum where where;
    int fd;
    const char *unix_path;
};

static struct options options = {.fd = -1};

/* What runs, and what a signal must end. */
static struct {
    struct reactor *reactor;
    int rc;
    int signal_fd;
    bool signalled;
    struct co *watcher;
    bool watching;
    struct co_queue watcher_over;
    struct nbdx_server *server;
} run;

static const char usage[] =
    "usage: vpool-nbd [--readonly] [--disk PATH]… [-d DIR]… POOL/VOL\n"
    "                 (--stdin | --fd N | --listen-fds | --unix PATH)\n"
    "  -r, --readonly      clients may not write\n"
    "      --disk PATH     a disk of the pool (may be repeated)\n"
    "  -d, --dir DIR       look for the pool's disks in DIR (may be repeated; default:\n"
    "                      /dev/disk/by-id)\n"
    "      --stdin         the client is connected to standard input\n"
    "      --fd N          the client is connected to descriptor N\n"
    "      --listen-fds    listen on the socket given by LISTEN_FDS and LISTEN_PID (the default\n"
    "                      when these are set)\n"
    "      --unix PATH     listen on a new unix socket\n"
    "      --version, --help\n";

/* ---- command line -------------------------------------------------------------------------- */

static int usage_error(const char *what)
{
    fprintf(stderr, "vpool-nbd: %s\n%s", what, usage);
    return 2;
}

static bool parse_fd(const char *text, int *out)
{
    char *end;
    errno = 0;
    long v = strtol(text, &end, 10);
    *out = (int)v;
    return !errno && *text && !*end && v >= 0 && v <= 65535;
}

/* True when a service manager, or libnbd, passed exactly one listening socket to us. */
static bool activated(void)
{
    const char *fds = getenv("LISTEN_FDS"), *pid = getenv("LISTEN_PID");
    return fds && pid && strcmp(fds, "1") == 0 && strtol(pid, NULL, 10) == (long)getpid();
}

static int parse_name(const char *name)
{
    const char *slash = strchr(name, '/');
    if (!slash || slash == name || (size_t)(slash - name) > POOL_NAME_MAX ||
        !volume_name_is_valid(slash + 1))
        return usage_error("name one volume: POOL/VOL");
    memcpy(options.pool, name, (size_t)(slash - name));
    options.volume = slash + 1;
    options.full_name = name;
    return 0;
}

/* Where the client is; false when that was said before. */
static bool choose(enum where where, int fd)
{
    if (options.where != NOWHERE)
        return false;
    options.where = where;
    options.fd = fd;
    return true;
}

static int parse_option(int ch)
{
    int fd;
    switch (ch) {
    case 'r':
        options.read_only = true;
        return 0;
    case 'k':
    case 'd':
        if (options.path_count == POOL_DISKS_MAX)
            return usage_error("too many disks and directories");
        options.paths[options.path_count++] = optarg;
        return 0;
    case 's':
        return choose(CONNECTED, 0) ? 0 : usage_error("say once where the client is");
    case 'f':
        if (!parse_fd(optarg, &fd))
            return usage_error("--fd takes the number of a descriptor");
        return choose(CONNECTED, fd) ? 0 : usage_error("say once where the client is");
    case 'l':
        return choose(LISTENING, LISTEN_FD) ? 0 : usage_error("say once where the client is");
    case 'u':
        options.unix_path = optarg;
        return choose(UNIX_PATH, -1) ? 0 : usage_error("say once where the client is");
    case 'V':
        printf("vpool-nbd %s\n", VPOOL_VERSION);
        exit(0);
    case 'h':
        fputs(usage, stdout);
        exit(0);
    default:
        fputs(usage, stderr);
        return 2;
    }
}

static int parse_options(int argc, char **argv)
{
    static const struct option longs[] = {
        {"readonly", no_argument, NULL, 'r'},   {"disk", required_argument, NULL, 'k'},
        {"dir", required_argument, NULL, 'd'},  {"stdin", no_argument, NULL, 's'},
        {"fd", required_argument, NULL, 'f'},   {"listen-fds", no_argument, NULL, 'l'},
        {"unix", required_argument, NULL, 'u'}, {"version", no_argument, NULL, 'V'},
        {"help", no_argument, NULL, 'h'},       {0}};
    int ch;
    while ((ch = getopt_long(argc, argv, "rd:h", longs, NULL)) != -1) {
        int rc = parse_option(ch);
        if (rc)
            return rc;
    }
    if (optind + 1 != argc)
        return usage_error("name one volume: POOL/VOL");
    if (options.where == LISTENING && !activated())
        return usage_error("--listen-fds: LISTEN_FDS is not 1, or LISTEN_PID is not this process");
    if (options.where == NOWHERE && !(activated() && choose(LISTENING, LISTEN_FD)))
        return usage_error("say where the client is: --stdin, --fd, --listen-fds or --unix");
    if (!options.path_count)
        options.paths[options.path_count++] = "/dev/disk/by-id";
    return parse_name(argv[optind]);
}

static bool is_socket(int fd)
{
    int type;
    socklen_t len = sizeof(type);
    return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0 && type == SOCK_STREAM;
}

/* ---- serving ------------------------------------------------------------------------------- */

static CO int serve_connected(const struct nbdx_export *export, struct vp_error *err)
{
    if (run.signalled) {
        io_close(options.fd);
        return 0;
    }
    int rc = nbdx_serve_fd(options.fd, export, 1, NULL);
    if (rc && !run.signalled)
        return vp_fail(err, rc, "the client on descriptor %d: %s", options.fd, vp_err_text(rc));
    return 0;
}

static CO int serve_listening(const struct nbdx_export *export, struct vp_error *err)
{
    struct nbdx_server_options o = {.exports = export, .export_count = 1};
    o.address = (struct nbdx_address){.kind = NBDX_FD, .fd = options.fd};
    if (options.where == UNIX_PATH) {
        o.address.kind = NBDX_UNIX;
        if (strlen(options.unix_path) > NBDX_PATH_MAX)
            return vp_fail(err, VP_E_INVALID, "the socket path %s is too long", options.unix_path);
        memcpy(o.address.path, options.unix_path, strlen(options.unix_path) + 1);
    }
    int rc = nbdx_server_start(&o, &run.server, err);
    if (rc)
        return rc;
    if (!run.signalled)
        nbdx_server_wait_unused(run.server);
    struct nbdx_server *server = run.server;
    run.server = NULL;
    nbdx_server_stop(server, run.signalled ? STOP_MS : 0);
    return 0;
}

static CO int serve_volume(struct volumes *vs, struct vp_error *err)
{
    struct volume *v;
    int rc = volume_open(vs, options.volume, options.read_only, &v, err);
    if (rc)
        return rc;
    struct nbdx_export export = {
        .name = options.full_name, .front = volume_front(v), .read_only = options.read_only};
    rc = options.where == CONNECTED ? serve_connected(&export, err) : serve_listening(&export, err);
    volume_close(v);
    return rc;
}

/* Finds the disks of the pool that is asked for, in the given places. */
static CO int find_disks(struct pool_found **found, const struct pool_found **pool,
                         struct vp_error *err)
{
    unsigned count = 0, matching = 0;
    int rc = pool_scan(options.paths, options.path_count, NULL, found, &count, err);
    if (rc)
        return rc;
    for (unsigned i = 0; i < count; i++) {
        if (strcmp((*found)[i].name, options.pool) == 0) {
            *pool = &(*found)[i];
            matching++;
        }
    }
    if (matching == 1)
        return 0;
    return matching
               ? vp_fail(err, VP_E_EXISTS, "%u pools are named '%s': name the disks with --disk",
                         matching, options.pool)
               : vp_fail(err, VP_E_NOT_FOUND,
                         "no disk of a pool '%s' found in %s%s: name them with --disk or -d",
                         options.pool, options.paths[0],
                         options.path_count > 1 ? " and the other places" : "");
}

static CO int open_pool(struct volumes **out, struct vp_error *err)
{
    struct pool_found *found = NULL;
    const struct pool_found *pool = NULL;
    int rc = find_disks(&found, &pool, err);
    if (!rc) {
        const char *paths[POOL_DISKS_MAX];
        unsigned count = 0;
        for (; count < pool->path_count && count < POOL_DISKS_MAX; count++)
            paths[count] = pool->paths[count];
        struct volumes_config config = {
            .reactors = &run.reactor, .reactor_count = 1, .background = true};
        rc = volumes_import(paths, count, &config, out, err);
    }
    free(found);
    return rc;
}

/* ---- signals ------------------------------------------------------------------------------- */

/* SIGTERM and SIGINT end the service in order: requests that have started are finished, and the
 * pool is closed. */
static CO void watch_signals(void *arg)
{
    (void)arg;
    unsigned events;
    run.watcher = co_self();
    if (io_poll(run.signal_fd, POLLIN, 0, &events) == 0) {
        run.signalled = true;
        if (options.where == CONNECTED)
            io_shutdown(options.fd);
        else if (run.server)
            nbdx_server_end_wait(run.server);
    }
    run.watcher = NULL;
    run.watching = false;
    co_queue_wake_all(&run.watcher_over);
}

static int block_signals(struct vp_error *err)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    run.signal_fd = signalfd(-1, &set, SFD_CLOEXEC);
    return run.signal_fd >= 0 ? 0
                              : vp_fail_errno(err, VP_E_SYSTEM, errno, "cannot create a signalfd");
}

/* ---- main ---------------------------------------------------------------------------------- */

static CO int serve(struct vp_error *err)
{
    struct volumes *vs;
    int rc = open_pool(&vs, err);
    if (rc)
        return rc;
    rc = serve_volume(vs, err);
    int closed = volumes_close(vs, false);
    if (closed && !rc)
        return vp_fail(err, closed, "pool '%s' did not close cleanly: %s", options.pool,
                       vp_err_text(closed));
    return rc;
}

static CO void run_main(void *arg)
{
    struct vp_error *err = arg;
    co_queue_init(&run.watcher_over);
    run.rc = co_spawn(watch_signals, NULL, "signals");
    run.watching = !run.rc;
    if (!run.rc)
        run.rc = serve(err);
    while (run.watching) {
        if (run.watcher)
            co_cancel(run.watcher);
        co_queue_wait(&run.watcher_over, "the end of the signal watcher");
    }
    reactor_stop(run.reactor);
}

int main(int argc, char **argv)
{
    int rc = parse_options(argc, argv);
    if (rc)
        return rc;
    if (options.fd >= 0 && !is_socket(options.fd)) {
        fprintf(stderr, "vpool-nbd: descriptor %d is not a stream socket\n", options.fd);
        return 1;
    }
    vp_log_set_level(VP_LOG_WARN);
    struct vp_error err = {0};
    rc = block_signals(&err);
    if (!rc)
        rc = reactor_new(&(struct reactor_config){.stack_bytes = STACK_BYTES}, &run.reactor, &err);
    if (!rc) {
        reactor_run(run.reactor, run_main, &err);
        reactor_free(run.reactor);
        rc = run.rc;
    }
    if (rc)
        fprintf(stderr, "vpool-nbd: %s\n", err.text[0] ? err.text : vp_err_text(rc));
    return rc ? 1 : 0;
}

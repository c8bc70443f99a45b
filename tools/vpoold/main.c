/*
 * vpoold: options, configuration, signals, reactors and their threads. Everything else is in
 * control/.
 */
#include "base/error.h"
#include "base/log.h"
#include "control/config.h"
#include "control/control.h"
#include "control/state.h"
#include "io/device.h"
#include "io/reactor.h"
#include "tools/vpoold/takeover.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEFAULT_CONFIG "/etc/vpool/vpoold.conf"

/* Scanning for disks (libblkid) and JSON run on a coroutine's stack. Untouched pages of a stack
 * cost nothing. */
#define STACK_BYTES (256U << 10)

struct options {
    const char *config;
    const char *socket;
    const char *state_dir;
    bool foreground, check_only, takeover;
};

struct daemon {
    struct control_config config;
    struct reactor *reactor[CONTROL_REACTORS_MAX];
    pthread_t thread[CONTROL_REACTORS_MAX];
    unsigned reactor_count, thread_count;
    int signal_fd, lock_fd;
    int ready_fd; /* in the background: where the parent waits for the outcome; else -1 */
    struct control *control;
};

/* ---- options and configuration -------------------------------------------------------------- */

static const char usage[] =
    "usage: vpoold [-c FILE] [-s SOCKET] [--state-dir DIR] [--foreground] [--takeover]\n"
    "  -c, --config FILE     configuration (" DEFAULT_CONFIG " when it is there)\n"
    "  -s, --socket SOCKET   control socket, over the configuration's\n"
    "      --state-dir DIR   state directory, over the configuration's\n"
    "  -f, --foreground      stay in the foreground, log to stderr\n"
    "      --takeover        have the running daemon leave, and take its place\n"
    "      --check-config    read the configuration, say whether it is right, and end\n"
    "      --version, --help\n";

/* 0: go on; else the exit code + 1. */
static int parse_options(int argc, char **argv, struct options *o)
{
    static const struct option longs[] = {{"config", required_argument, NULL, 'c'},
                                          {"socket", required_argument, NULL, 's'},
                                          {"state-dir", required_argument, NULL, 'd'},
                                          {"foreground", no_argument, NULL, 'f'},
                                          {"takeover", no_argument, NULL, 'T'},
                                          {"check-config", no_argument, NULL, 'C'},
                                          {"version", no_argument, NULL, 'V'},
                                          {"help", no_argument, NULL, 'h'},
                                          {0}};
    int ch;
    while ((ch = getopt_long(argc, argv, "c:s:fh", longs, NULL)) != -1) {
        switch (ch) {
        case 'c':
            o->config = optarg;
            break;
        case 's':
            o->socket = optarg;
            break;
        case 'd':
            o->state_dir = optarg;
            break;
        case 'f':
            o->foreground = true;
            break;
        case 'T':
            o->takeover = true;
            break;
        case 'C':
            o->check_only = true;
            break;
        case 'V':
            printf("vpoold " VPOOL_VERSION "\n");
            return 1;
        case 'h':
            fputs(usage, stdout);
            return 1;
        default:
            fputs(usage, stderr);
            return 3;
        }
    }
    if (optind == argc)
        return 0;
    fprintf(stderr, "vpoold: unexpected argument '%s'\n%s", argv[optind], usage);
    return 3;
}

static int override(char *to, size_t size, const char *what, const char *value,
                    struct vp_error *err)
{
    if (!value)
        return 0;
    int n = value[0] == '/' ? snprintf(to, size, "%s", value) : -1;
    char *absolute = value[0] == '/' ? NULL : realpath(".", NULL);
    if (absolute)
        n = snprintf(to, size, "%s/%s", absolute, value);
    free(absolute);
    if (n < 1 || (size_t)n >= size)
        return vp_fail(err, VP_E_INVALID, "%s '%s' is too long (%zu bytes at most)", what, value,
                       size - 1);
    return 0;
}

static int load_config(const struct options *o, struct control_config *c, struct vp_error *err)
{
    control_config_defaults(c);
    int rc = 0;
    if (o->config)
        rc = control_config_load(c, o->config, err);
    else if (access(DEFAULT_CONFIG, F_OK) == 0)
        rc = control_config_load(c, DEFAULT_CONFIG, err);
    if (rc == 0)
        rc = override(c->socket, sizeof(c->socket), "socket", o->socket, err);
    if (rc == 0)
        rc = override(c->state_dir, sizeof(c->state_dir), "state directory", o->state_dir, err);
    return rc;
}

static unsigned reactors_of(const struct control_config *c)
{
    if (c->reactors)
        return (unsigned)c->reactors;
    cpu_set_t cores;
    int n = sched_getaffinity(0, sizeof(cores), &cores) == 0 ? CPU_COUNT(&cores) : 1;
    return n < 1 ? 1 : n > 4 ? 4 : (unsigned)n;
}

/* ---- background ------------------------------------------------------------------------------ */

/* The parent prints what the child says until the child is ready, and takes the child's outcome as
 * its exit code. */
static _Noreturn void wait_for_child(int fd)
{
    char text[600];
    size_t len = 0;
    ssize_t n;
    while (len < sizeof(text) - 1 && (n = read(fd, text + len, sizeof(text) - 1 - len)) > 0)
        len += (size_t)n;
    text[len] = 0;
    if (len == 0) {
        fputs("vpoold: the daemon ended before it was ready; see its log\n", stderr);
        exit(1);
    }
    if (text[0] == '+')
        exit(0);
    fprintf(stderr, "vpoold: %s\n", text + 1);
    exit(1);
}

static int open_log(struct daemon *d, struct vp_error *err)
{
    if (!d->config.log_file[0])
        return 0;
    int fd = open(d->config.log_file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
    if (fd < 0 || dup2(fd, STDERR_FILENO) < 0) {
        int rc =
            vp_fail_errno(err, vp_err_from_errno(errno), errno, "log file %s", d->config.log_file);
        if (fd >= 0)
            close(fd);
        return rc;
    }
    close(fd);
    return 0;
}

/* SIGHUP: the log file was moved away, and a new one begins. */
static void reopen_log(void *arg)
{
    struct daemon *d = arg;
    struct vp_error err = {0};
    if (!d->config.log_file[0])
        return;
    vp_info("SIGHUP: the log goes on in a new file");
    if (open_log(d, &err))
        vp_warn("%s; the log stays where it was", err.text);
}

/* Lines for journald have journald's priority and no time, since journald adds the time. Other
 * lines have the time. */
static void choose_log_form(void)
{
    const char *journal = getenv("JOURNAL_STREAM"); /* DEVICE:INODE, systemd.exec(5) */
    unsigned long device, inode;
    struct stat st;
    bool is_journal = journal && sscanf(journal, "%lu:%lu", &device, &inode) == 2 &&
                      fstat(STDERR_FILENO, &st) == 0 && st.st_dev == device && st.st_ino == inode;
    vp_log_set_form(is_journal ? VP_LOG_FOR_JOURNAL : VP_LOG_WITH_TIME);
}

/* Before any thread or ring exists. */
static int go_to_background(struct daemon *d, struct vp_error *err)
{
    int pipe_fd[2];
    if (pipe2(pipe_fd, O_CLOEXEC))
        return vp_fail_errno(err, VP_E_SYSTEM, errno, "pipe");
    pid_t child = fork();
    if (child < 0)
        return vp_fail_errno(err, VP_E_SYSTEM, errno, "fork");
    if (child > 0) {
        close(pipe_fd[1]);
        wait_for_child(pipe_fd[0]);
    }
    close(pipe_fd[0]);
    d->ready_fd = pipe_fd[1];
    setsid();
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(null, STDOUT_FILENO) < 0)
        return vp_fail_errno(err, VP_E_SYSTEM, errno, "/dev/null");
    close(null);
    if (!d->config.log_file[0] &&
        snprintf(d->config.log_file, sizeof(d->config.log_file), "%s/vpoold.log",
                 d->config.state_dir) >= (int)sizeof(d->config.log_file))
        return vp_fail(err, VP_E_TOO_BIG, "the log file's path is too long");
    return chdir("/") ? vp_fail_errno(err, VP_E_SYSTEM, errno, "chdir") : 0;
}

/* The outcome of the start: to the parent of a background daemon, else to stderr. */
static void tell_outcome(void *arg, int rc, const char *text)
{
    struct daemon *d = arg;
    if (rc)
        fprintf(stderr, "vpoold: %s\n", text);
    if (d->ready_fd < 0)
        return;
    if (dprintf(d->ready_fd, "%c%s", rc ? '-' : '+', text) < 0)
        vp_warn("the process that started the daemon is gone");
    close(d->ready_fd);
    d->ready_fd = -1;
}

/* ---- reactors and signals ----------------------------------------------------------------------
 */

static void *reactor_thread(void *arg)
{
    reactor_run(arg, NULL, NULL);
    return NULL;
}

/* Blocks the signals in this thread and in later ones. The home reactor reads them. */
static int block_signals(struct daemon *d, struct vp_error *err)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    d->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return d->signal_fd < 0 ? vp_fail_errno(err, VP_E_SYSTEM, errno, "signalfd") : 0;
}

static int make_reactors(struct daemon *d, struct vp_error *err)
{
    unsigned count = reactors_of(&d->config);
    for (unsigned i = 0; i < count; i++) {
        struct reactor_config config = {.index = i,
                                        .stack_bytes = STACK_BYTES,
                                        .buffer_bytes = d->config.buffer_bytes,
                                        .poll_us = (unsigned)d->config.poll_us};
        int rc = reactor_new(&config, &d->reactor[i], err);
        if (rc)
            return rc;
        d->reactor_count++;
    }
    return 0;
}

static int start_threads(struct daemon *d, struct vp_error *err)
{
    for (unsigned i = 1; i < d->reactor_count; i++) {
        int rc = pthread_create(&d->thread[i], NULL, reactor_thread, d->reactor[i]);
        if (rc)
            return vp_fail_errno(err, VP_E_NO_MEMORY, rc, "starting reactor %u", i);
        d->thread_count++;
    }
    return 0;
}

static void end_threads(struct daemon *d)
{
    for (unsigned i = 1; i <= d->thread_count; i++) {
        reactor_stop(d->reactor[i]);
        pthread_join(d->thread[i], NULL);
    }
    for (unsigned i = 0; i < d->reactor_count; i++)
        reactor_free(d->reactor[i]);
}

/* ---- main ------------------------------------------------------------------------------------ */

/* Takes the place of the running daemon once everything has succeeded that can fail without that
 * place. Without a running daemon it only takes the lock. */
static int take_over(struct daemon *d, struct takeover *t, struct vp_error *err)
{
    int rc = t->found ? takeover_run(&d->config, t, err) : 0;
    return rc || d->lock_fd >= 0 ? rc : state_lock(d->config.state_dir, &d->lock_fd, err);
}

static int start(struct daemon *d, const struct options *o, struct vp_error *err)
{
    struct takeover t = {.pid_fd = -1};
    int rc = o->foreground ? 0 : go_to_background(d, err);
    if (rc == 0 && o->takeover)
        rc = takeover_check(&d->config, &t, err);
    /* The lock comes first, because taking it creates the directory in which the log may be. */
    if (rc == 0 && !t.found)
        rc = state_lock(d->config.state_dir, &d->lock_fd, err);
    if (rc == 0)
        rc = open_log(d, err);
    choose_log_form();
    if (rc == 0)
        rc = block_signals(d, err);
    if (rc == 0)
        rc = make_reactors(d, err);
    struct control_options options = {.config = &d->config,
                                      .reactors = d->reactor,
                                      .reactor_count = d->reactor_count,
                                      .signal_fd = d->signal_fd,
                                      .ready = tell_outcome,
                                      .ready_arg = d,
                                      .reopen_log = reopen_log};
    if (rc == 0)
        rc = control_new(&options, &d->control, err);
    if (rc == 0)
        rc = start_threads(d, err);
    if (rc == 0)
        rc = take_over(d, &t, err);
    return rc;
}

/*
 * A thread whose ring has a request that a disk does not end may stay in the kernel for as long,
 * and the process with it, as a zombie. Everything else is closed by now, the pools and their other
 * disks too. So the next daemon can begin as soon as nobody has the state directory any more.
 */
static void leave_hung_requests(struct daemon *d, int rc)
{
    unsigned late = io_late_requests();
    if (!late)
        return;
    vp_warn("vpoold ends while %u requests to disks that do not answer have not ended; its process "
            "may stay until they do",
            late);
    if (d->lock_fd >= 0)
        close(d->lock_fd);
    (void)fflush(NULL);
    _exit(rc ? 1 : 0);
}

static int run(struct daemon *d, const struct options *o)
{
    struct vp_error err = {0};
    int rc = start(d, o, &err);
    if (rc) {
        tell_outcome(d, rc, err.text);
    } else {
        reactor_run(d->reactor[0], control_main, d->control);
        rc = control_result(d->control);
    }
    leave_hung_requests(d, rc);
    end_threads(d);
    control_free(d->control);
    return rc ? 1 : 0;
}

int main(int argc, char **argv)
{
    struct options o = {0};
    int ended = parse_options(argc, argv, &o);
    if (ended)
        return ended - 1;
    static struct daemon daemon = {.signal_fd = -1, .lock_fd = -1, .ready_fd = -1};
    struct vp_error err = {0};
    if (load_config(&o, &daemon.config, &err) ||
        (o.check_only && control_config_check(&daemon.config, &err))) {
        fprintf(stderr, "vpoold: %s\n", err.text);
        return 1;
    }
    if (o.check_only) {
        printf("the configuration is right: socket %s, state directory %s, %u reactors\n",
               daemon.config.socket, daemon.config.state_dir, reactors_of(&daemon.config));
        return 0;
    }
    vp_log_set_level(daemon.config.log_level);
    return run(&daemon, &o);
}

/*
 * What a link costs: writes of 4 KiB by many callers to an NBD server on a unix socket. Prints how
 * many a second, and the processor time of this process for each.
 *
 *   link_load SOCKET EXPORT [CALLERS [BYTES [SECONDS]]]      32 callers, 4096 bytes, 3 s
 *
 * It overwrites the export.
 */
#include "io/net.h"
#include "io/reactor.h"
#include "migrate/link.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

static struct {
    const char *path, *export;
    unsigned callers;
    uint64_t bytes;
    double seconds;
} opt = {.callers = 32, .bytes = 4096, .seconds = 3};

static struct link *l;
static uint64_t end_ns, done;
static unsigned running;
static int failed;

static double cpu_seconds(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void caller(void *arg)
{
    uint64_t random = (uintptr_t)arg, blocks = link_size(l) / opt.bytes;
    void *buf = aligned_alloc(4096, (opt.bytes + 4095) / 4096 * 4096);
    int rc = buf && blocks ? 0 : VP_E_NO_MEMORY;
    if (buf)
        memset(buf, (int)random, opt.bytes);
    while (rc == 0 && reactor_turn_ns() < end_ns) {
        random = random * UINT64_C(6364136223846793005) + 1442695040888963407U;
        rc = link_write(l, (random >> 20) % blocks * opt.bytes, opt.bytes, buf);
        done += rc == 0;
    }
    failed = rc ? rc : failed;
    running--;
    free(buf);
}

static void body(void *arg)
{
    struct vp_error err = {0};
    int fd;
    (void)arg;
    failed = io_connect_unix(opt.path, 0, &fd, &err);
    if (failed == 0)
        failed = link_open(fd, opt.export, 0, &l, &err);
    if (failed) {
        fprintf(stderr, "link_load: %s\n", err.text);
        return;
    }
    uint64_t begin = reactor_now_ns();
    double cpu = cpu_seconds();
    end_ns = begin + (uint64_t)(opt.seconds * 1e9);
    for (unsigned i = 0; i < opt.callers && failed == 0; i++) {
        failed = co_spawn(caller, (void *)(uintptr_t)(i + 1), "caller");
        running += failed == 0;
    }
    while (running > 0 && co_sleep_ns(1000000) == 0)
        ;
    double took = (double)(reactor_now_ns() - begin) / 1e9;
    cpu = cpu_seconds() - cpu;
    if (failed || !done)
        fprintf(stderr, "link_load: %s\n", failed ? vp_err_text(failed) : "nothing was written");
    else
        printf("%.0f writes/s of %llu bytes, %u callers, %.2f us of CPU each\n",
               (double)done / took, (unsigned long long)opt.bytes, opt.callers,
               cpu * 1e6 / (double)done);
    link_close(l);
}

static void body_and_stop(void *arg)
{
    body(arg);
    reactor_stop(reactor_self());
}

int main(int argc, char **argv)
{
    struct reactor *r;
    struct vp_error err = {0};
    if (argc < 3) {
        fprintf(stderr, "usage: link_load SOCKET EXPORT [CALLERS [BYTES [SECONDS]]]\n");
        return 2;
    }
    opt.path = argv[1];
    opt.export = argv[2];
    opt.callers = argc > 3 ? (unsigned)strtoul(argv[3], NULL, 10) : opt.callers;
    opt.bytes = argc > 4 ? strtoull(argv[4], NULL, 10) : opt.bytes;
    opt.seconds = argc > 5 ? strtod(argv[5], NULL) : opt.seconds;
    if (reactor_new(&(struct reactor_config){0}, &r, &err)) {
        fprintf(stderr, "link_load: %s\n", err.text);
        return 1;
    }
    reactor_run(r, body_and_stop, NULL);
    reactor_free(r);
    return failed ? 1 : 0;
}

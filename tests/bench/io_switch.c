/* What the parts of io/ cost: nanoseconds for each of many. Prints a table; no arguments. */
#include "io/buffer.h"
#include "io/device.h"
#include "io/reactor.h"
#include "io/sim.h"
#include "tests/lib/on_reactor.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define N 2000000U

static double now_ns(void)
{
    struct timespec ts;
    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

static void report(const char *what, double began_ns, unsigned n)
{
    printf("%-44s %8.1f ns\n", what, (now_ns() - began_ns) / n);
}

static void nothing(void *arg)
{
    (void)arg;
}

static void yielder(void *arg)
{
    for (unsigned i = 0; i < N / 100; i++)
        co_yield ();
    --*(unsigned *)arg;
}

static void coroutines(void *arg)
{
    (void)arg;
    double began = now_ns();
    for (unsigned i = 0; i < N; i += 32) {
        for (int k = 0; k < 32; k++)
            check_ok(co_spawn(nothing, NULL, "nothing"));
        co_yield ();
    }
    report("spawn, switch and finish (32 at a time)", began, N);
    unsigned left = 100;
    began = now_ns();
    for (int i = 0; i < 100; i++)
        check_ok(co_spawn(yielder, &left, "yielder"));
    while (left > 0)
        co_yield ();
    report("yield among 100 coroutines", began, N);
    began = now_ns();
    for (unsigned i = 0; i < N; i++)
        io_buffer_put(io_buffer_get(4096), 4096);
    report("buffer get and put", began, N);
}

static int answer(void *arg)
{
    (void)arg;
    return 0;
}

static void call_across(void *arg)
{
    double began = now_ns();
    for (unsigned i = 0; i < N / 100; i++)
        check_ok(reactor_call(arg, answer, NULL));
    report("call to another reactor, one at a time", began, N / 100);
}

#define DEPTH 32

static struct io_dev *dev;

static void reader(void *arg)
{
    unsigned seed = (unsigned)(uintptr_t)arg;
    void *buf = io_buffer_get(4096);
    for (unsigned i = 0; i < N / 10 / DEPTH; i++) {
        seed = seed * 1103515245 + 12345;
        check_ok(io_dev_read(dev, (uint64_t)(seed >> 8) % 4096 * 4096, buf, 4096));
    }
    io_buffer_put(buf, 4096);
}

static void start_readers(void *arg)
{
    (void)arg;
    for (uintptr_t i = 0; i < DEPTH; i++)
        check_ok(co_spawn(reader, (void *)i, "reader"));
}

static void read_file(const char *dir, const char *what)
{
    char path[128];
    (void)snprintf(path, sizeof(path), "%s/vpool-bench-XXXXXX", dir);
    int fd = mkstemp(path);
    static char block[1 << 20];
    for (int i = 0; i < 16 && fd >= 0; i++)
        check_equal(write(fd, block, sizeof(block)), sizeof(block));
    struct vp_error err;
    if (fd < 0 || fsync(fd) != 0 || io_dev_open(path, 0, &dev, &err) != 0) {
        printf("%-44s not possible here\n", what);
        return;
    }
    double began = now_ns();
    on_reactor(NULL, start_readers, NULL);
    report(what, began, N / 10);
    io_dev_close(dev);
    close(fd);
    (void)unlink(path);
}

int main(void)
{
    on_reactor(NULL, coroutines, NULL);
    struct reactor_thread *other = reactor_thread_start(NULL);
    on_reactor(NULL, call_across, reactor_thread_reactor(other));
    reactor_thread_join(other);
    read_file("/dev/shm", "4 KiB read, memory file, 32 deep");
    read_file(access("build", W_OK) == 0 ? "build" : ".", "4 KiB read, file, 32 deep");
    double began = now_ns();
    struct sim_world *w = sim_world_new(1);
    struct reactor_config simulated = {.sim = w};
    for (unsigned i = 0; i < N / 100; i++)
        on_reactor(&simulated, nothing, NULL);
    report("simulated reactor, made and freed", began, N / 100);
    sim_world_free(w);
    return check_failures() != 0;
}

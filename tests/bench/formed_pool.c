/*
 * What grows with a pool: its groups are all formed, and every step of the home reactor is timed.
 *
 *     formed_pool DIR [SIZE]     sparse files of 8 TiB each for SIZE (100T) in DIR, a tmpfs: other
 *                                file systems have no files of that size; DIR needs 1 GiB for it
 *
 * A volume whose reserve is the pool's size leases every arena, so all groups are formed, with
 * extents of 256 MiB as on disks of 1 TiB. Then come the events that used to look at every group. A
 * step is what the reactor does between two turns of a coroutine that is always ready, in CPU time
 * of the thread: what the machine does besides does not count.
 */
#include "base/bytes.h"
#include "io/reactor.h"
#include "volumes/volume.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define DISK_BYTES (UINT64_C(8) << 40)
#define RESERVED   "reserved"

enum { DISKS_MAX = 64, SMALL = 64 };

struct bench {
    struct reactor *reactor;
    char path[DISKS_MAX][256];
    const char *paths[DISKS_MAX];
    unsigned disks;
    uint64_t size_bytes;
    struct volumes_config config;
    struct volumes *vs;
    struct vp_error err;
    int rc;
    /* the watcher */
    bool watching;
    uint64_t longest_ns, steps, began_ns;
};

static uint64_t cpu_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void watch(void *arg)
{
    struct bench *b = arg;
    for (uint64_t at = cpu_ns(), now; b->watching; at = now) {
        co_yield ();
        now = cpu_ns();
        b->longest_ns = max_u64(b->longest_ns, now - at);
        b->steps++;
    }
}

static CO void event_begin(struct bench *b)
{
    co_yield (); /* what was before is not the event's */
    b->longest_ns = b->steps = 0;
    b->began_ns = reactor_now_ns();
}

static CO void event_end(struct bench *b, const char *what, int rc)
{
    co_yield (); /* the watcher sees the last step */
    printf("%-52s %9.1f ms, longest step %6.2f ms%s%s\n", what,
           (double)(reactor_now_ns() - b->began_ns) / 1e6, (double)b->longest_ns / 1e6,
           rc ? ": " : "", rc ? vp_err_name(rc) : "");
    fflush(stdout);
    b->rc = b->rc ? b->rc : rc;
}

/* Calls and times one event. */
#define EVENT(b, what, call)                                                                       \
    do {                                                                                           \
        event_begin(b);                                                                            \
        event_end(b, what, call);                                                                  \
    } while (0)

static CO int create_reserved(struct bench *b)
{
    struct volume_options o = {.size_bytes = b->size_bytes, .reserve_bytes = b->size_bytes};
    return volume_create(b->vs, RESERVED, &o, &b->err);
}

/* A small volume is created, opened, written to and closed. */
static CO int use_small(struct bench *b, unsigned n)
{
    static uint8_t block[4096] __attribute__((aligned(4096)));
    struct volume_options o = {.size_bytes = UINT64_C(1) << 30};
    struct volume *v;
    char name[32];
    (void)snprintf(name, sizeof(name), "small-%u", n);
    int rc = volume_create(b->vs, name, &o, &b->err);
    if (!rc)
        rc = volume_open(b->vs, name, false, &v, &b->err);
    if (rc)
        return rc;
    for (uint64_t at = 0; at < o.size_bytes && !rc; at += UINT64_C(64) << 20)
        rc = volume_write(v, at, sizeof(block), block, VOLUME_FUA);
    volume_close(v);
    return rc;
}

static CO int use_many_small(struct bench *b)
{
    int rc = 0;
    for (unsigned i = 0; i < SMALL && !rc; i++)
        rc = use_small(b, i);
    return rc;
}

static CO int discard_small(struct bench *b)
{
    struct volume *v;
    int rc = volume_open(b->vs, "small-0", false, &v, &b->err);
    if (rc)
        return rc;
    rc = volume_discard(v, 0, volume_size(v), 0);
    if (!rc)
        rc = volume_flush(v);
    volume_close(v);
    return rc;
}

static CO int write_reserved(struct bench *b)
{
    static uint8_t block[4096] __attribute__((aligned(4096)));
    struct volume *v;
    int rc = volume_open(b->vs, RESERVED, false, &v, &b->err);
    if (rc)
        return rc;
    rc = volume_write(v, 0, sizeof(block), block, VOLUME_FUA);
    volume_close(v);
    return rc;
}

static CO int look(struct bench *b)
{
    struct pool_space space;
    struct volume_info info;
    int rc = 0;
    for (unsigned i = 0; i < 1000 && !rc; i++) {
        pool_space_get(volumes_pool(b->vs), &space);
        rc = volume_info_get(b->vs, i % 2 ? RESERVED : "small-1", &info);
    }
    return rc;
}

static CO int delete_reserved(struct bench *b)
{
    int rc = volume_delete(b->vs, RESERVED, &b->err);
    struct pool_space space;
    do {
        vp_ignore(co_sleep_ns(10000000), "nobody cancels it");
        pool_space_get(volumes_pool(b->vs), &space);
    } while (!rc && space.leased_bytes > b->size_bytes / 2);
    return rc;
}

static CO void bench_events(struct bench *b)
{
    EVENT(b, "reserve all arenas", create_reserved(b));
    EVENT(b, "checkpoint", pool_checkpoint(volumes_pool(b->vs)));
    EVENT(b, "checkpoint, nothing changed", pool_checkpoint(volumes_pool(b->vs)));
    EVENT(b, "64 small volumes, 16 writes each", use_many_small(b));
    EVENT(b, "checkpoint after these", pool_checkpoint(volumes_pool(b->vs)));
    EVENT(b, "discard of a small volume", discard_small(b));
    EVENT(b, "1,000 times the pool's and a volume's figures", look(b));
    EVENT(b, "first write of the reserved volume: its list", write_reserved(b));
    EVENT(b, "close", volumes_close(b->vs, false));
    if (b->rc)
        return;
    EVENT(b, "import", volumes_import(b->paths, b->disks, &b->config, &b->vs, &b->err));
    if (b->rc)
        return;
    EVENT(b, "64 small volumes' figures, after the import", look(b));
    EVENT(b, "delete the reserved volume", delete_reserved(b));
    EVENT(b, "checkpoint", pool_checkpoint(volumes_pool(b->vs)));
    EVENT(b, "close", volumes_close(b->vs, false));
}

static CO void bench_run(struct bench *b)
{
    struct pool_create_options o = {
        .name = "formed",
        .profile = {RAID_SINGLE, 1, 0},
        .geometry.extent_bytes = 256 << 20,
        .create_size_bytes = DISK_BYTES,
    };
    b->watching = true;
    b->rc = co_spawn(watch, b, "watch");
    if (!b->rc)
        EVENT(b, "create", volumes_create(&o, b->paths, b->disks, &b->config, &b->vs, &b->err));
    if (!b->rc)
        bench_events(b);
    b->watching = false;
}

static void bench_main(void *arg)
{
    struct bench *b = arg;
    bench_run(b);
    reactor_stop(b->reactor);
}

int main(int argc, char **argv)
{
    static struct bench b = {.size_bytes = UINT64_C(100) << 40};
    if (argc < 2 || (argc > 2 && !bytes_parse_size(argv[2], &b.size_bytes)) ||
        b.size_bytes / DISK_BYTES + 2 > DISKS_MAX) {
        fprintf(stderr, "usage: formed_pool DIR [SIZE, up to 400T]\n");
        return 2;
    }
    /* Metadata have their reserve beside what the volume reserves. */
    b.disks = (unsigned)div_up(b.size_bytes + b.size_bytes / 16, DISK_BYTES);
    for (unsigned i = 0; i < b.disks; i++) {
        (void)snprintf(b.path[i], sizeof(b.path[i]), "%s/disk-%u", argv[1], i);
        b.paths[i] = b.path[i];
    }
    struct reactor_config config = {0};
    b.rc = reactor_new(&config, &b.reactor, &b.err);
    b.config =
        (struct volumes_config){.reactors = &b.reactor, .reactor_count = 1, .background = true};
    if (!b.rc)
        reactor_run(b.reactor, bench_main, &b);
    for (unsigned i = 0; i < b.disks; i++)
        unlink(b.path[i]);
    if (b.rc)
        fprintf(stderr, "%s %s\n", vp_err_name(b.rc), b.err.text);
    return b.rc != 0;
}

/*
 * What grows with a pool: its groups are all formed, and every step of the home reactor is timed.
 *
 *     formed_pool DIR [SIZE [EXTENT]]    sparse files of 8 TiB each for SIZE (100T) in a new
 *                                        directory in DIR, a tmpfs: other file systems have no
 *                                        files of that size; DIR needs 1 GiB for it
 *     formed_pool --check DIR [SIZE [EXTENT]]
 *                                        up to three times, and fails when an event has a step of
 *                                        more than 10 ms each time
 *
 * A volume whose reserve is the pool's size leases every arena, so all groups are formed, with
 * extents of 256 MiB as on disks of 1 TiB. (Smaller extents make as many groups of a smaller pool:
 * ./check has 6T and 16M.) Then come the events that used to look at every group. A step is what
 * the reactor does between two turns of a coroutine that is always ready, in CPU time of the
 * thread: what the machine does besides does not count. But time that a virtual machine loses does.
 */
#include "base/bytes.h"
#include "base/verify.h"
#include "io/reactor.h"
#include "volumes/volume.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define DISK_BYTES (UINT64_C(8) << 40)
#define RESERVED   "reserved"
#define LIMIT_NS   UINT64_C(10000000)

enum { DISKS_MAX = 64, SMALL = 64, EVENTS_MAX = 32, TRIES = 3 };

struct bench {
    struct reactor *reactor;
    char directory[128];
    char path[DISKS_MAX][160];
    const char *paths[DISKS_MAX];
    unsigned disks;
    uint64_t size_bytes, extent_bytes;
    struct volumes_config config;
    struct volumes *vs;
    struct vp_error err;
    int rc;
    /* the watcher */
    bool watching;
    uint64_t longest_ns, steps, began_ns;
    /* of each event, in their order: the longest step, in the try in which it was shortest */
    struct {
        const char *what;
        uint64_t longest_ns;
    } event[EVENTS_MAX];
    unsigned events; /* of this try so far */
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

static void event_note(struct bench *b, const char *what)
{
    unsigned i = b->events++;
    VP_VERIFY(i, <, (unsigned)EVENTS_MAX);
    bool is_first = !b->event[i].what;
    b->event[i].what = what;
    b->event[i].longest_ns =
        is_first ? b->longest_ns : min_u64(b->event[i].longest_ns, b->longest_ns);
}

static CO void event_end(struct bench *b, const char *what, int rc)
{
    co_yield (); /* the watcher sees the last step */
    event_note(b, what);
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
        .geometry.extent_bytes = (uint32_t)b->extent_bytes,
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

static bool bench_disks(struct bench *b, const char *dir)
{
    (void)snprintf(b->directory, sizeof(b->directory), "%.100s/formed_pool.XXXXXX", dir);
    if (!mkdtemp(b->directory)) {
        perror(b->directory);
        return false;
    }
    /* Metadata have their reserve beside what the volume reserves. */
    b->disks = (unsigned)div_up(b->size_bytes + b->size_bytes / 16, DISK_BYTES);
    for (unsigned i = 0; i < b->disks; i++) {
        (void)snprintf(b->path[i], sizeof(b->path[i]), "%s/disk-%u", b->directory, i);
        b->paths[i] = b->path[i];
    }
    return true;
}

static int bench_once(struct bench *b)
{
    struct reactor_config config = {0};
    b->events = 0;
    b->rc = reactor_new(&config, &b->reactor, &b->err);
    b->config =
        (struct volumes_config){.reactors = &b->reactor, .reactor_count = 1, .background = true};
    if (!b->rc) {
        reactor_run(b->reactor, bench_main, b);
        reactor_free(b->reactor);
    }
    for (unsigned i = 0; i < b->disks; i++)
        unlink(b->path[i]);
    if (b->rc)
        fprintf(stderr, "%s %s\n", vp_err_name(b->rc), b->err.text);
    return b->rc;
}

/* Prints the events that broke the limit in every try so far. */
static unsigned events_too_long(const struct bench *b)
{
    unsigned count = 0;
    for (unsigned i = 0; i < b->events; i++) {
        if (b->event[i].longest_ns <= LIMIT_NS)
            continue;
        printf("%s: a step of %.1f ms, more than %.0f ms\n", b->event[i].what,
               (double)b->event[i].longest_ns / 1e6, (double)LIMIT_NS / 1e6);
        count++;
    }
    return count;
}

int main(int argc, char **argv)
{
    static struct bench b = {.size_bytes = UINT64_C(100) << 40, .extent_bytes = 256 << 20};
    bool checks = argc > 1 && strcmp(argv[1], "--check") == 0;
    argc -= checks;
    argv += checks;
    if (argc < 2 || (argc > 2 && !bytes_parse_size(argv[2], &b.size_bytes)) ||
        (argc > 3 && !bytes_parse_size(argv[3], &b.extent_bytes)) ||
        b.size_bytes / DISK_BYTES + 2 > DISKS_MAX || b.extent_bytes > UINT32_MAX) {
        fprintf(stderr, "usage: formed_pool [--check] DIR [SIZE, up to 400T [EXTENT]]\n");
        return 2;
    }
    if (!bench_disks(&b, argv[1]))
        return 1;
    unsigned tries = 0, too_long;
    int rc;
    do {
        rc = bench_once(&b);
        too_long = events_too_long(&b);
    } while (!rc && checks && too_long && ++tries < TRIES);
    rmdir(b.directory);
    return rc || (checks && too_long);
}

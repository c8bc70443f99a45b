/*
 * vpool-bench measures the engine without a daemon and without NBD, in one process and on one
 * reactor. It makes a pool of its own on the given files, runs a load (or serves a volume to
 * whoever has a load), and removes the pool.
 */
#include "bench.h"

#include "base/attr.h"
#include "base/bytes.h"
#include "io/device.h"
#include "io/reactor.h"
#include "ublk/target.h"
#include "volumes/volume.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

struct program {
    struct bench_options options;
    struct reactor *reactor;
    struct bench_result *result;
    uint64_t created_files; /* bit i: disks[i] was made here */
    struct vp_error err;
    int rc;
};

/* ---- the io layer alone ------------------------------------------------------------------- */

static CO int raw_read(void *arg, uint64_t offset, void *buf, uint32_t len)
{
    return io_dev_read(arg, offset, buf, len);
}
static CO int raw_write(void *arg, uint64_t offset, const void *buf, uint32_t len)
{
    return io_dev_write(arg, offset, buf, len, 0);
}
static CO int raw_flush(void *arg)
{
    return io_dev_flush(arg);
}

static CO int run_raw(struct program *p)
{
    struct io_dev *dev;
    int rc = io_dev_open(p->options.disks[0], 0, &dev, &p->err);
    if (rc)
        return rc;
    struct bench_target target = {raw_read, raw_write, raw_flush, dev};
    rc = bench_run(&p->options, &target, p->result);
    io_dev_close(dev);
    return rc ? vp_fail(&p->err, rc, "%s", vp_err_text(rc)) : 0;
}

/* ---- a volume of a pool ------------------------------------------------------------------- */

static CO int volume_bench_read(void *arg, uint64_t offset, void *buf, uint32_t len)
{
    return volume_read(arg, offset, len, buf);
}
static CO int volume_bench_write(void *arg, uint64_t offset, const void *buf, uint32_t len)
{
    return volume_write(arg, offset, len, buf, 0);
}
static CO int volume_bench_flush(void *arg)
{
    return volume_flush(arg);
}

static CO int run_volume(struct program *p, struct volumes *vs)
{
    const struct bench_options *o = &p->options;
    struct volume_options vo = {
        .size_bytes = o->size_bytes, .has_profile = true, .profile = o->profile};
    struct volume *v;
    int rc = volume_create(vs, "bench", &vo, &p->err);
    if (!rc)
        rc = volume_open(vs, "bench", false, &v, &p->err);
    if (rc)
        return rc;
    if (o->mode == BENCH_UBLK_VOLUME) {
        rc = bench_serve_volume(o, v, &p->err);
    } else {
        struct bench_target target = {volume_bench_read, volume_bench_write, volume_bench_flush, v};
        rc = bench_run(o, &target, p->result);
        if (rc)
            vp_fail(&p->err, rc, "%s", vp_err_text(rc));
    }
    volume_close(v);
    return rc;
}

static CO int run_pool(struct program *p)
{
    const struct bench_options *o = &p->options;
    struct volumes_config config = {
        .reactors = &p->reactor, .reactor_count = 1, .background = true};
    struct pool_create_options co = {
        .name = "bench", .profile = o->profile, .create_size_bytes = o->disk_bytes};
    struct volumes *vs;
    int rc = volumes_create(&co, o->disks, o->disk_count, &config, &vs, &p->err);
    if (rc)
        return rc;
    rc = run_volume(p, vs);
    struct vp_error err;
    int destroy_rc = volumes_destroy(vs, &err);
    if (!rc && destroy_rc) {
        p->err = err;
        rc = destroy_rc;
    }
    return rc;
}

static CO void first(void *arg)
{
    struct program *p = arg;
    switch (p->options.mode) {
    case BENCH_RAW:
        p->rc = run_raw(p);
        break;
    case BENCH_UBLK_PASS:
        p->rc = bench_serve_disk(&p->options, &p->err);
        break;
    case BENCH_POOL:
    case BENCH_UBLK_VOLUME:
        p->rc = run_pool(p);
        break;
    }
    reactor_stop(p->reactor);
}

static bool is_ublk(enum bench_mode mode)
{
    return mode == BENCH_UBLK_PASS || mode == BENCH_UBLK_VOLUME;
}

/* ---- files -------------------------------------------------------------------------------- */

static int files_prepare(struct program *p)
{
    struct bench_options *o = &p->options;
    if (o->mode == BENCH_UBLK_PASS)
        return 0;
    unsigned copies = raid_profile_width(o->profile);
    if (!o->disk_bytes)
        o->disk_bytes =
            align_up(o->size_bytes * copies / o->disk_count * 5 / 4 + (512U << 20), 1 << 20);
    bool raw = o->mode == BENCH_RAW;
    if (raw)
        o->disk_bytes = o->size_bytes;
    for (unsigned i = 0; i < o->disk_count; i++) {
        if (access(o->disks[i], F_OK) == 0)
            continue;
        p->created_files |= UINT64_C(1) << i;
        AUTO_FD int fd = raw ? open(o->disks[i], O_CREAT | O_RDWR | O_CLOEXEC, 0600) : -1;
        if (raw && (fd < 0 || ftruncate(fd, (off_t)o->disk_bytes) < 0))
            return vp_fail_errno(&p->err, VP_E_SYSTEM, errno, "%s", o->disks[i]);
    }
    return 0;
}

static void files_remove(const struct program *p)
{
    const struct bench_options *o = &p->options;
    for (unsigned i = 0; i < o->disk_count && !o->keep; i++)
        if (p->created_files >> i & 1)
            unlink(o->disks[i]);
}

/* ---- figures ------------------------------------------------------------------------------ */

static void print(const struct bench_options *o, const struct bench_result *r)
{
    double n = r->requests ? (double)r->requests : 1;
    double iops = (double)r->requests / r->seconds;
    double cpu_us = (r->cpu_user_seconds + r->cpu_system_seconds) * 1e6 / n;
    double mib = (double)r->bytes / r->seconds / (1 << 20);
    double p50 = (double)latencies_quantile(&r->latency, 0.5) / 1e3;
    double p99 = (double)latencies_quantile(&r->latency, 0.99) / 1e3;
    if (o->json) {
        printf("{\"iops\": %.0f, \"mib_per_second\": %.1f, \"p50_us\": %.1f, \"p99_us\": %.1f, "
               "\"cpu_us\": %.2f, \"user_us\": %.2f, \"system_us\": %.2f, \"requests\": %llu, "
               "\"seconds\": %.3f, \"requests_per_enter\": %.2f}\n",
               iops, mib, p50, p99, cpu_us, r->cpu_user_seconds * 1e6 / n,
               r->cpu_system_seconds * 1e6 / n, (unsigned long long)r->requests, r->seconds,
               n / (double)(r->enters ? r->enters : 1));
        return;
    }
    printf("%.0f IOPS  %.1f MiB/s  p50 %.1f µs  p99 %.1f µs\n", iops, mib, p50, p99);
    printf("CPU %.2f µs a request (user %.2f, system %.2f), %.1f requests and %.1f switches an "
           "enter\n",
           cpu_us, r->cpu_user_seconds * 1e6 / n, r->cpu_system_seconds * 1e6 / n,
           n / (double)(r->enters ? r->enters : 1),
           (double)r->switches / (double)(r->enters ? r->enters : 1));
}

/* ---- command line ------------------------------------------------------------------------- */

static const char usage[] =
    "usage: vpool-bench --disk FILE [--disk FILE]... [POOL] [LOAD]\n"
    "       vpool-bench --raw --disk FILE [--size SIZE] [--keep] [LOAD]\n"
    "       vpool-bench --ublk-volume --disk FILE [--disk FILE]... [POOL] [DEVICE]\n"
    "       vpool-bench --ublk-pass DISK [--checksum | --zero-copy] [DEVICE]\n"
    "  --disk FILE        a disk of the pool; created, sparse, if it is missing\n"
    "  --raw              without a pool: the device layer on FILE (overwrites it)\n"
    "  --ublk-volume      serve the volume as a ublk device until SIGTERM or SIGINT\n"
    "  --ublk-pass DISK   the same for the bare DISK\n"
    "  --checksum         compute the checksums that a volume would\n"
    "  --zero-copy        the kernel's pages go to DISK as they are (Linux 6.16)\n"
    "POOL:\n"
    "  --disk-size SIZE   of created files\n"
    "  --profile P        single (default), mirror:N\n"
    "  --size SIZE        of the volume (1G)\n"
    "  --keep             leave created files\n"
    "LOAD:\n"
    "  --rw MODE          read, write, randread (default), randwrite\n"
    "  --bs SIZE          bytes a request (4K)\n"
    "  --depth N          requests at a time (32)\n"
    "  --runtime SECONDS  (5)\n"
    "  --requests N       end after N requests, if that is earlier\n"
    "  --first-write      write blocks that were never written, each once\n"
    "  --json             figures as JSON\n"
    "DEVICE:\n"
    "  --queues N         of the ublk device (1)\n"
    "  --depth N          requests at a time of each of its queues (64)\n";

enum {
    OPT_DISK = 1,
    OPT_DISK_SIZE,
    OPT_PROFILE,
    OPT_RAW,
    OPT_UBLK_PASS,
    OPT_CHECKSUM,
    OPT_ZERO_COPY,
    OPT_UBLK_VOLUME,
    OPT_QUEUES,
    OPT_RW,
    OPT_BS,
    OPT_DEPTH,
    OPT_SIZE,
    OPT_RUNTIME,
    OPT_REQUESTS,
    OPT_FIRST,
    OPT_KEEP,
    OPT_JSON,
    OPT_HELP
};

static const struct option long_options[] = {
    {"disk", required_argument, NULL, OPT_DISK},
    {"disk-size", required_argument, NULL, OPT_DISK_SIZE},
    {"profile", required_argument, NULL, OPT_PROFILE},
    {"raw", no_argument, NULL, OPT_RAW},
    {"rw", required_argument, NULL, OPT_RW},
    {"bs", required_argument, NULL, OPT_BS},
    {"ublk-pass", required_argument, NULL, OPT_UBLK_PASS},
    {"checksum", no_argument, NULL, OPT_CHECKSUM},
    {"zero-copy", no_argument, NULL, OPT_ZERO_COPY},
    {"ublk-volume", no_argument, NULL, OPT_UBLK_VOLUME},
    {"queues", required_argument, NULL, OPT_QUEUES},
    {"depth", required_argument, NULL, OPT_DEPTH},
    {"size", required_argument, NULL, OPT_SIZE},
    {"runtime", required_argument, NULL, OPT_RUNTIME},
    {"requests", required_argument, NULL, OPT_REQUESTS},
    {"first-write", no_argument, NULL, OPT_FIRST},
    {"keep", no_argument, NULL, OPT_KEEP},
    {"json", no_argument, NULL, OPT_JSON},
    {"help", no_argument, NULL, OPT_HELP},
    {NULL, 0, NULL, 0},
};

#define IN(mode) (1U << (mode))
#define LOADS    (IN(BENCH_POOL) | IN(BENCH_RAW))
#define SERVES   (IN(BENCH_UBLK_PASS) | IN(BENCH_UBLK_VOLUME))
#define POOLS    (IN(BENCH_POOL) | IN(BENCH_UBLK_VOLUME))

/* Where an option means something. */
static const unsigned char modes_of[] = {
    [OPT_DISK] = LOADS | POOLS,
    [OPT_DISK_SIZE] = POOLS,
    [OPT_PROFILE] = POOLS,
    [OPT_RAW] = IN(BENCH_RAW),
    [OPT_UBLK_PASS] = IN(BENCH_UBLK_PASS),
    [OPT_CHECKSUM] = IN(BENCH_UBLK_PASS),
    [OPT_ZERO_COPY] = IN(BENCH_UBLK_PASS),
    [OPT_UBLK_VOLUME] = IN(BENCH_UBLK_VOLUME),
    [OPT_QUEUES] = SERVES,
    [OPT_RW] = LOADS,
    [OPT_BS] = LOADS,
    [OPT_DEPTH] = LOADS | SERVES,
    [OPT_SIZE] = LOADS | POOLS,
    [OPT_RUNTIME] = LOADS,
    [OPT_REQUESTS] = LOADS,
    [OPT_FIRST] = LOADS,
    [OPT_KEEP] = LOADS | POOLS,
    [OPT_JSON] = LOADS,
};

static bool parse_mode(const char *text, struct bench_options *o)
{
    o->random = strncmp(text, "rand", 4) == 0;
    const char *kind = o->random ? text + 4 : text;
    o->write = strcmp(kind, "write") == 0;
    return o->write || strcmp(kind, "read") == 0;
}

static bool parse_number(const char *text, uint64_t min, uint64_t max, uint64_t *out)
{
    return bytes_parse_size(text, out) && *out >= min && *out <= max;
}

static bool parse_count(const char *text, uint64_t max, unsigned *out)
{
    uint64_t n;
    bool ok = parse_number(text, 1, max, &n);
    *out = ok ? (unsigned)n : 0;
    return ok;
}

static bool mode_set(struct bench_options *o, enum bench_mode mode)
{
    o->mode = mode; /* another one that was given before has no meaning then */
    return true;
}

static bool disk_add(struct bench_options *o, const char *path)
{
    if (o->disk_count == BENCH_DISKS_MAX)
        return false;
    o->disks[o->disk_count++] = path;
    return true;
}

static bool parse_one(int opt, struct bench_options *o)
{
    uint64_t n;
    char *end;
    switch (opt) {
    case OPT_DISK:
        return disk_add(o, optarg);
    case OPT_UBLK_PASS:
        return mode_set(o, BENCH_UBLK_PASS) && disk_add(o, optarg);
    case OPT_UBLK_VOLUME:
        return mode_set(o, BENCH_UBLK_VOLUME);
    case OPT_DISK_SIZE:
        return parse_number(optarg, 64U << 20, VOLUME_SIZE_MAX, &o->disk_bytes);
    case OPT_PROFILE:
        return raid_profile_parse(optarg, &o->profile) && raid_profile_is_supported(o->profile);
    case OPT_RW:
        return parse_mode(optarg, o);
    case OPT_BS:
        if (!parse_number(optarg, 512, 4U << 20, &n) || n % 512)
            return false;
        o->block_bytes = (uint32_t)n;
        return true;
    case OPT_DEPTH:
        return parse_count(optarg, BENCH_DEPTH_MAX, &o->depth);
    case OPT_QUEUES:
        return parse_count(optarg, UBLKX_QUEUES_MAX, &o->queues);
    case OPT_SIZE:
        return parse_number(optarg, 1U << 20, VOLUME_SIZE_MAX, &o->size_bytes) &&
               is_aligned(o->size_bytes, 1 << 20);
    case OPT_RUNTIME:
        o->runtime_seconds = strtod(optarg, &end);
        return *end == '\0' && o->runtime_seconds > 0;
    case OPT_REQUESTS:
        return parse_number(optarg, 1, UINT64_MAX, &o->requests);
    case OPT_RAW:
        return mode_set(o, BENCH_RAW);
    case OPT_FIRST:
        return o->first_write = true;
    case OPT_CHECKSUM:
        return o->checksum = true;
    case OPT_ZERO_COPY:
        return o->zero_copy = true;
    case OPT_KEEP:
        return o->keep = true;
    case OPT_JSON:
        return o->json = true;
    default:
        return false;
    }
}

static bool refuse(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static bool refuse(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fputs("vpool-bench: ", stderr);
    (void)vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    return false;
}

/* `given`: bit OPT_… */
static bool check_modes(const struct bench_options *o, uint32_t given)
{
    static const char *const where[] = {"for a load on a volume", "with --raw", "with --ublk-pass",
                                        "with --ublk-volume"};
    for (const struct option *l = long_options; l->name; l++)
        if (given >> l->val & 1 && !(modes_of[l->val] & IN(o->mode)))
            return refuse("--%s has no meaning %s", l->name, where[o->mode]);
    return true;
}

static bool check(struct bench_options *o, uint32_t given)
{
    if (!check_modes(o, given))
        return false;
    if (o->disk_count == 0)
        return refuse("no disk: give --disk FILE");
    if (o->disk_count > 1 && !(POOLS & IN(o->mode)))
        return refuse("--raw and --ublk-pass take one disk, not %u", o->disk_count);
    if (o->zero_copy && o->checksum)
        return refuse("--checksum has to see the data, which --zero-copy does not");
    if (o->first_write && given >> OPT_RW & 1 && !o->write)
        return refuse("--first-write goes with --rw write or randwrite");
    if (o->block_bytes > o->size_bytes)
        return refuse("--bs is more than --size");
    o->write |= o->first_write;
    return true;
}

static bool parse(int argc, char **argv, struct bench_options *o)
{
    int opt, index = 0;
    uint32_t given = 0;
    while ((opt = getopt_long(argc, argv, "", long_options, &index)) != -1) {
        if (opt == OPT_HELP) {
            fputs(usage, stdout);
            exit(0);
        }
        if (opt == '?')
            return false;
        if (!parse_one(opt, o))
            return refuse("--%s: '%s' is not valid", long_options[index].name,
                          optarg ? optarg : "");
        given |= UINT32_C(1) << opt;
    }
    return optind < argc ? refuse("'%s' is not an option", argv[optind]) : check(o, given);
}

int main(int argc, char **argv)
{
    static struct bench_result result;
    struct program p = {
        .options = {.profile = {RAID_SINGLE, 1, 0},
                    .random = true,
                    .block_bytes = 4096,
                    .size_bytes = UINT64_C(1) << 30,
                    .runtime_seconds = 5},
        .result = &result,
    };
    if (!parse(argc, argv, &p.options)) {
        fputs("`vpool-bench --help` shows the options\n", stderr);
        return 2;
    }
    bool serves = is_ublk(p.options.mode);
    if (!p.options.depth)
        p.options.depth = serves ? 64 : 32;
    struct reactor_config config = {.driver_buffers = p.options.zero_copy ? UBLKX_TAGS_MAX : 0};
    p.rc = files_prepare(&p);
    if (!p.rc && serves)
        p.rc = bench_serve_prepare(&p.err);
    if (!p.rc)
        p.rc = reactor_new(&config, &p.reactor, &p.err);
    if (!p.rc) {
        reactor_run(p.reactor, first, &p);
        reactor_free(p.reactor);
    }
    files_remove(&p);
    if (p.rc) {
        fprintf(stderr, "vpool-bench: %s\n", p.err.text);
        return 1;
    }
    if (!serves)
        print(&p.options, &result);
    return 0;
}

/* vpool-bench: the load, its options and its figures; serving as a ublk device. */
#ifndef VP_TOOLS_BENCH_H
#define VP_TOOLS_BENCH_H

#include "base/error.h"
#include "io/co.h"
#include "raid/profile.h"
#include "volumes/volume.h"

#include <stdbool.h>
#include <stdint.h>

#define BENCH_DISKS_MAX 32
#define BENCH_DEPTH_MAX 1024

enum bench_mode {
    BENCH_POOL,        /* a load on a volume of a pool made for it      */
    BENCH_RAW,         /* a load on the io layer alone, of the first disk */
    BENCH_UBLK_PASS,   /* the bare disk becomes a ublk device           */
    BENCH_UBLK_VOLUME, /* a volume of a pool made for it does           */
};

struct bench_options {
    enum bench_mode mode;
    const char *disks[BENCH_DISKS_MAX];
    unsigned disk_count;
    uint64_t disk_bytes; /* of files to create; 0 = chosen by size_bytes */
    struct raid_profile profile;
    bool write;       /* else reads */
    bool random;      /* else sequential */
    bool first_write; /* never written blocks, each once                  */
    bool checksum;    /* of a disk that is passed through, as volumes have them */
    bool zero_copy;   /* of a disk that is passed through                   */
    bool json;
    bool keep; /* do not remove created files */
    uint32_t block_bytes;
    unsigned depth;      /* requests at a time; of each queue */
    unsigned queues;     /* of a ublk device                  */
    uint64_t size_bytes; /* of the volume, or the part of the file    */
    double runtime_seconds;
    uint64_t requests; /* ends the run after these many, if it comes first; 0: the time does */
};

/* Latencies in ns: 32 steps for each power of two. */
#define LATENCY_STEPS 32
struct latencies {
    uint64_t count[64 * LATENCY_STEPS];
    uint64_t total;
};
void latencies_add(struct latencies *h, uint64_t ns);
/* The latency that `part` (0 … 1) of all requests do not exceed. */
uint64_t latencies_quantile(const struct latencies *h, double part);

struct bench_result {
    uint64_t requests, bytes;
    double seconds, cpu_user_seconds, cpu_system_seconds;
    struct latencies latency;
    uint64_t enters, turns, switches; /* of the reactor, during the run */
};

/* What is measured: one call is one request. */
struct bench_target {
    int (*read)(void *arg, uint64_t offset, void *buf, uint32_t len);
    int (*write)(void *arg, uint64_t offset, const void *buf, uint32_t len);
    int (*flush)(void *arg);
    void *arg;
};

/* Fills the target (not for first_write), then runs the load. On a reactor. */
CO int bench_run(const struct bench_options *o, const struct bench_target *target,
                 struct bench_result *out) must_check;

/* ---- serve.c: on a reactor, until SIGTERM or SIGINT ------------------------------------------ */

/* Before the process has threads: from now on these signals only end serving. */
int bench_serve_prepare(struct vp_error *err) must_check;
/* Prints the device's path and serves it; the device is gone when this returns. */
CO int bench_serve_disk(const struct bench_options *o, struct vp_error *err) must_check;
CO int bench_serve_volume(const struct bench_options *o, struct volume *v,
                          struct vp_error *err) must_check;

#endif

/*
 * How long the import of a large pool takes: after a kill and after a clean end.
 *
 *     large_pool DIR [TIB]       makes a sparse file of TIB (1) TiB and an eighth in DIR
 *
 * The volume is mapped completely, chunk by chunk, without writing data (zero with NO_HOLE).
 */
#include "base/bytes.h"
#include "io/reactor.h"
#include "volumes/volume.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

struct run {
    char path[256];
    const char *paths[1];
    uint64_t size_bytes;
    struct reactor *reactor;
    struct vp_error err;
    bool create, kill;
    int rc;
};

static double seconds_since(uint64_t begin)
{
    return (double)(reactor_now_ns() - begin) / 1e9;
}

static CO int map_all(struct volumes *vs, struct run *r)
{
    struct volume_options o = {.size_bytes = r->size_bytes};
    struct volume *v;
    int rc = volume_create(vs, "large", &o, &r->err);
    if (!rc)
        rc = volume_open(vs, "large", false, &v, &r->err);
    if (rc)
        return rc;
    uint64_t begin = reactor_now_ns(), step = UINT64_C(1) << 30;
    for (uint64_t at = 0; at < r->size_bytes && !rc; at += step)
        rc = volume_zero(v, at, step, VOLUME_NO_HOLE);
    if (!rc)
        rc = volume_flush(v);
    printf("mapped %llu GiB in %.1f s\n", (unsigned long long)(r->size_bytes >> 30),
           seconds_since(begin));
    volume_close(v);
    return rc;
}

static CO int use(struct volumes *vs, struct run *r)
{
    static uint8_t block[4096] __attribute__((aligned(4096)));
    struct volume *v;
    uint64_t begin = reactor_now_ns();
    int rc = volume_open(vs, "large", false, &v, &r->err);
    double opened = seconds_since(begin);
    if (!rc)
        rc = volume_write(v, r->size_bytes / 2, 4096, block, VOLUME_FUA);
    if (rc)
        return rc;
    printf("  open %.3f s, first write after %.3f s\n", opened, seconds_since(begin));
    volume_close(v);
    return 0;
}

static CO int body(struct run *r)
{
    struct volumes_config config = {
        .reactors = &r->reactor, .reactor_count = 1, .background = true};
    struct pool_create_options o = {.name = "large",
                                    .profile = {RAID_SINGLE, 1, 0},
                                    .create_size_bytes = r->size_bytes / 8 * 9};
    struct volumes *vs;
    uint64_t begin = reactor_now_ns();
    int rc = r->create ? volumes_create(&o, r->paths, 1, &config, &vs, &r->err)
                       : volumes_import(r->paths, 1, &config, &vs, &r->err);
    while (rc == VP_E_POOL_ACTIVE && seconds_since(begin) < 5) { /* the kernel ends its I/O yet */
        vp_ignore(co_sleep_ns(1000000), "nobody cancels");
        rc = volumes_import(r->paths, 1, &config, &vs, &r->err);
    }
    if (rc)
        return rc;
    if (!r->create)
        printf("import %.3f s\n", seconds_since(begin));
    rc = r->create ? map_all(vs, r) : use(vs, r);
    if (r->kill)
        fflush(NULL), _exit(rc != 0);
    begin = reactor_now_ns();
    int close_rc = volumes_close(vs, false);
    printf("close %.3f s\n", seconds_since(begin));
    return rc ? rc : close_rc;
}

static void first(void *arg)
{
    struct run *r = arg;
    r->rc = body(r);
    reactor_stop(r->reactor);
}

/* A process for each life, so that one can be killed. */
static bool life(struct run *r)
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        struct reactor_config config = {0};
        r->rc = reactor_new(&config, &r->reactor, &r->err);
        if (!r->rc)
            reactor_run(r->reactor, first, r);
        if (r->rc)
            fprintf(stderr, "%s %s\n", vp_err_name(r->rc), r->err.text);
        fflush(NULL);
        _exit(r->rc != 0);
    }
    int status;
    return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0;
}

int main(int argc, char **argv)
{
    struct run r = {.size_bytes = UINT64_C(1) << 40};
    if (argc < 2 || (argc > 2 && !bytes_parse_size(argv[2], &r.size_bytes))) {
        fprintf(stderr, "usage: large_pool DIR [SIZE]\n");
        return 2;
    }
    (void)snprintf(r.path, sizeof(r.path), "%s/large", argv[1]);
    r.paths[0] = r.path;
    r.create = r.kill = true;
    bool ok = life(&r);
    r.create = r.kill = false;
    printf("after a kill: ");
    ok = ok && life(&r);
    printf("after a clean end: ");
    ok = ok && life(&r);
    unlink(r.path);
    return ok ? 0 : 1;
}

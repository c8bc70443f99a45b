/*
 * How a pool with many volumes behaves: create, list, open, write, restart, delete.
 *
 *     many_volumes DIR [COUNT]        makes two files of 4 GiB (sparse) in DIR and removes them
 */
#include "base/bytes.h"
#include "io/reactor.h"
#include "volumes/volume.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

struct run {
    char path[2][256];
    const char *paths[2];
    unsigned count;
    struct reactor *reactor;
    struct volumes *vs;
    struct vp_error err;
    uint64_t worst_ns; /* one operation of the step under way */
    unsigned listed;
};

static int step_create(struct run *r, unsigned i, const char *name)
{
    (void)i;
    struct volume_options o = {.size_bytes = UINT64_C(100) << 30};
    return volume_create(r->vs, name, &o, &r->err);
}

static int step_open_close(struct run *r, unsigned i, const char *name)
{
    (void)i;
    struct volume *v;
    int rc = volume_open(r->vs, name, false, &v, &r->err);
    if (!rc)
        volume_close(v);
    return rc;
}

static int step_open_write_close(struct run *r, unsigned i, const char *name)
{
    static uint8_t block[4096] __attribute__((aligned(4096)));
    struct volume *v;
    int rc = volume_open(r->vs, name, false, &v, &r->err);
    if (rc)
        return rc;
    memcpy(block, &i, sizeof(i));
    rc = volume_write(v, (uint64_t)i << 20, 4096, block, 0);
    volume_close(v);
    return rc;
}

static int step_delete(struct run *r, unsigned i, const char *name)
{
    (void)i;
    return volume_delete(r->vs, name, &r->err);
}

static double memory_mib(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)u.ru_maxrss / 1024;
}

static CO int each(struct run *r, const char *what, unsigned every,
                   int (*step)(struct run *r, unsigned i, const char *name))
{
    uint64_t begin = reactor_now_ns(), worst = 0;
    unsigned n = 0;
    for (unsigned i = 0; i < r->count; i += every, n++) {
        char name[32];
        (void)snprintf(name, sizeof(name), "vm-%05u", (i * 7919U) % r->count);
        uint64_t at = reactor_now_ns();
        int rc = step(r, i, name);
        if (rc) {
            fprintf(stderr, "%s %s: %s\n", what, name, r->err.text);
            return rc;
        }
        worst = max_u64(worst, reactor_now_ns() - at);
    }
    double total = (double)(reactor_now_ns() - begin) / 1e9;
    printf("%-24s %6u in %7.3f s, %8.1f µs each, worst %8.1f µs, memory peak %.0f MiB\n", what, n,
           total, total * 1e6 / n, (double)worst / 1e3, memory_mib());
    return 0;
}

static int list_one(const struct volume_info *info, void *arg)
{
    struct run *r = arg;
    r->listed += info->options.size_bytes != 0;
    return 0;
}

static CO int timed(const char *what, struct run *r, int (*fn)(struct run *r))
{
    uint64_t begin = reactor_now_ns();
    int rc = fn(r);
    printf("%-24s %.3f s\n", what, (double)(reactor_now_ns() - begin) / 1e9);
    return rc;
}

static struct volumes_config config_of(struct run *r)
{
    return (struct volumes_config){.reactors = &r->reactor, .reactor_count = 1, .background = true};
}

static CO int pool_make(struct run *r)
{
    struct volumes_config config = config_of(r);
    struct pool_create_options o = {
        .name = "many", .profile = {RAID_MIRROR, 1, 1}, .create_size_bytes = UINT64_C(4) << 30};
    return volumes_create(&o, r->paths, 2, &config, &r->vs, &r->err);
}

static CO int restart(struct run *r)
{
    struct volumes_config config = config_of(r);
    int rc = volumes_close(r->vs, false);
    return rc ? rc : volumes_import(r->paths, 2, &config, &r->vs, &r->err);
}

static CO int list(struct run *r)
{
    return volume_each(r->vs, list_one, r);
}

static CO int run_all(struct run *r)
{
    int rc = timed("pool create", r, pool_make);
    rc = rc ? rc : each(r, "create", 1, step_create);
    rc = rc ? rc : timed("list", r, list);
    rc = rc ? rc : timed("restart", r, restart);
    rc = rc ? rc : each(r, "open, close", 1, step_open_close);
    rc = rc ? rc : each(r, "open, write, close", 20, step_open_write_close);
    rc = rc ? rc : timed("restart", r, restart);
    rc = rc ? rc : each(r, "open, close", 1, step_open_close);
    rc = rc ? rc : each(r, "delete", 10, step_delete);
    int close_rc = r->vs ? volumes_close(r->vs, false) : 0;
    return rc ? rc : close_rc;
}

static void first(void *arg)
{
    struct run *r = arg;
    int rc = run_all(r);
    if (rc)
        fprintf(stderr, "many_volumes: %s %s\n", vp_err_name(rc), r->err.text);
    reactor_stop(r->reactor);
}

int main(int argc, char **argv)
{
    static struct run r = {.count = 10000};
    if (argc < 2) {
        fprintf(stderr, "usage: many_volumes DIR [COUNT]\n");
        return 2;
    }
    if (argc > 2)
        r.count = (unsigned)strtoul(argv[2], NULL, 10);
    for (unsigned i = 0; i < 2; i++) {
        (void)snprintf(r.path[i], sizeof(r.path[i]), "%s/many-%u", argv[1], i);
        r.paths[i] = r.path[i];
    }
    struct reactor_config config = {0};
    int rc = reactor_new(&config, &r.reactor, &r.err);
    if (!rc) {
        reactor_run(r.reactor, first, &r);
        reactor_free(r.reactor);
    }
    unlink(r.path[0]);
    unlink(r.path[1]);
    return rc || r.err.text[0] != '\0';
}

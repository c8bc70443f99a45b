/* Volumes on several reactors, on real files. threads: yes, valgrind: no. */
#include "base/bytes.h"
#include "base/hash.h"
#include "tests/lib/on_reactor.h"
#include "volumes/front.h"
#include "volumes/owner.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define MIB(n) ((uint64_t)(n) << 20)

enum { REACTORS = 3, VOLUMES = 6, BLOCKS = 512 };

struct world {
    char dir[64];
    char path[2][96];
    struct reactor_thread *thread[REACTORS];
    struct reactor *reactor[REACTORS];
    struct volumes *vs;
};

struct job {
    struct volume *v;
    unsigned number, rounds;
    struct co_group *group;
    uint32_t version[BLOCKS];
};

static struct job jobs[VOLUMES];

static void stamp(uint8_t block[4096], unsigned job, uint64_t at, uint32_t version)
{
    uint64_t words[3] = {job, at, version};
    memset(block, (int)version, 4096);
    memcpy(block, words, sizeof(words));
}

/* On the volume's reactor: writes and reads random blocks of its own. */
static int job_on_reactor(void *arg)
{
    struct job *j = arg;
    uint8_t block[4096] __attribute__((aligned(4096))), seen[4096] __attribute__((aligned(4096)));
    check(reactor_self() == volume_reactor(j->v));
    for (unsigned i = 0; i < j->rounds; i++) {
        uint64_t at = hash_mix(i * 31 + j->number) % BLOCKS;
        stamp(block, j->number, at, ++j->version[at]);
        int rc = volume_write(j->v, at * 4096, 4096, block, i % 16 == 0 ? VOLUME_FUA : 0);
        if (!rc)
            rc = volume_read(j->v, at * 4096, 4096, seen);
        if (rc)
            return rc;
        check(memcmp(block, seen, 4096) == 0);
        if (i % 50 == 49)
            rc = volume_flush(j->v);
        if (rc)
            return rc;
    }
    return 0;
}

static int verify_on_reactor(void *arg)
{
    struct job *j = arg;
    uint8_t block[4096] __attribute__((aligned(4096))), seen[4096] __attribute__((aligned(4096)));
    for (uint64_t at = 0; at < BLOCKS; at++) {
        int rc = volume_read(j->v, at * 4096, 4096, seen);
        if (rc)
            return rc;
        stamp(block, j->number, at, j->version[at]);
        if (j->version[at] ? memcmp(block, seen, 4096) != 0 : !bytes_are_zero(seen, 4096))
            check(false && "content");
    }
    return 0;
}

static void job_run(void *arg)
{
    struct job *j = arg;
    co_group_leave(j->group, reactor_call(volume_reactor(j->v), job_on_reactor, j));
}

static CO void verify_all(void)
{
    for (unsigned i = 0; i < VOLUMES; i++)
        check_ok(reactor_call(volume_reactor(jobs[i].v), verify_on_reactor, &jobs[i]));
}

static int count_one(const struct volume_info *info, void *arg)
{
    *(unsigned *)arg += info->name[0] == 'v';
    return 0;
}

/* What home does meanwhile. */
static CO void administer(struct world *w, unsigned round)
{
    struct vp_error err;
    struct volume_info info;
    struct volume_options o = {.size_bytes = MIB(4)};
    unsigned seen = 0;
    check_ok(volume_create(w->vs, "other", &o, &err));
    check_ok(volume_info_get(w->vs, "v0", &info));
    check_ok(volume_each(w->vs, count_one, &seen));
    check_equal(seen, VOLUMES);
    check_ok(volume_rename(w->vs, "other", "another", &err));
    check_ok(volume_resize(w->vs, "v1", MIB(8 + round), false, &err));
    check_ok(volume_property_set(w->vs, "v2", "sync", round % 2 ? "always" : "standard", &err));
    check_ok(pool_checkpoint(volumes_pool(w->vs)));
    check_ok(volume_delete(w->vs, "another", &err));
}

static CO void jobs_run(struct world *w, unsigned rounds)
{
    struct co_group g;
    co_group_init(&g);
    for (unsigned i = 0; i < VOLUMES; i++) {
        jobs[i].group = &g;
        jobs[i].rounds = rounds;
        co_group_enter(&g);
        check_ok(co_spawn(job_run, &jobs[i], "job"));
    }
    for (unsigned round = 0; round < 5; round++)
        administer(w, round);
    check_ok(co_group_wait(&g));
}

static struct volumes_config config_of(struct world *w)
{
    return (struct volumes_config){.reactors = w->reactor,
                                   .reactor_count = REACTORS,
                                   .metadata_bytes = MIB(8),
                                   .commit_interval_ms = 5,
                                   .background = true};
}

static CO void open_all(struct world *w)
{
    struct vp_error err = {0};
    char name[16];
    for (unsigned i = 0; i < VOLUMES; i++) {
        (void)snprintf(name, sizeof(name), "v%u", i);
        if (!check_ok(volume_open(w->vs, name, false, &jobs[i].v, &err)))
            fprintf(stderr, "%s\n", err.text);
        jobs[i].number = i;
    }
}

static CO void close_all(struct world *w)
{
    for (unsigned i = 0; i < VOLUMES; i++)
        volume_close(jobs[i].v);
    check_ok(volumes_close(w->vs, false));
}

static int first_life(void *arg)
{
    struct world *w = arg;
    struct vp_error err = {0};
    const char *paths[2] = {w->path[0], w->path[1]};
    struct volumes_config config = config_of(w);
    struct pool_create_options o = {.name = "p",
                                    .profile = {RAID_MIRROR, 1, 1},
                                    .geometry = {64 << 10, 1 << 20, 64 << 10},
                                    .create_size_bytes = MIB(128)};
    if (!check_ok(volumes_create(&o, paths, 2, &config, &w->vs, &err))) {
        fprintf(stderr, "%s\n", err.text);
        return 0;
    }
    for (unsigned i = 0; i < VOLUMES; i++) {
        struct volume_options vo = {.size_bytes = MIB(8)};
        char name[16];
        (void)snprintf(name, sizeof(name), "v%u", i);
        check_ok(volume_create(w->vs, name, &vo, &err));
    }
    open_all(w);
    unsigned used[REACTORS] = {0};
    for (unsigned i = 0; i < VOLUMES; i++)
        used[reactor_index(volume_reactor(jobs[i].v))]++;
    for (unsigned i = 0; i < REACTORS; i++)
        check_equal(used[i], VOLUMES / REACTORS);
    jobs_run(w, 150);
    verify_all();
    close_all(w);
    return 0;
}

static int second_life(void *arg)
{
    struct world *w = arg;
    struct vp_error err = {0};
    const char *paths[2] = {w->path[0], w->path[1]};
    struct volumes_config config = config_of(w);
    if (!check_ok(volumes_import(paths, 2, &config, &w->vs, &err))) {
        fprintf(stderr, "%s\n", err.text);
        return 0;
    }
    open_all(w);
    verify_all();
    close_all(w);
    return 0;
}

static void world_begin(struct world *w)
{
    *w = (struct world){.dir = "/tmp/vpool-test-XXXXXX"};
    assert_non_null(mkdtemp(w->dir));
    for (unsigned i = 0; i < 2; i++)
        (void)snprintf(w->path[i], sizeof(w->path[i]), "%s/d%u", w->dir, i);
    for (unsigned i = 0; i < REACTORS; i++) {
        struct reactor_config config = {.index = i};
        w->thread[i] = reactor_thread_start(&config);
        w->reactor[i] = reactor_thread_reactor(w->thread[i]);
    }
}

static void world_end(struct world *w)
{
    for (unsigned i = REACTORS; i-- > 0;)
        reactor_thread_join(w->thread[i]);
    unlink(w->path[0]);
    unlink(w->path[1]);
    rmdir(w->dir);
    assert_checked();
}

static void volumes_work_on_three_reactors_while_home_administers_them(void **state)
{
    (void)state;
    struct world w;
    memset(jobs, 0, sizeof(jobs));
    world_begin(&w);
    assert_int_equal(reactor_call_blocking(w.reactor[0], first_life, &w), 0);
    assert_int_equal(reactor_call_blocking(w.reactor[0], second_life, &w), 0);
    world_end(&w);
}

/* ---- two pools ------------------------------------------------------------------------------ */

static CO struct volumes *pool_of_one_disk(struct world *w, unsigned i, uint64_t size_bytes)
{
    static const char *const names[] = {"p", "q"};
    struct volumes *vs = NULL;
    struct vp_error err = {0};
    const char *paths[1] = {w->path[i]};
    struct volumes_config config = config_of(w);
    struct volume_options vo = {.size_bytes = size_bytes};
    struct pool_create_options o = {.name = names[i],
                                    .profile = {RAID_SINGLE, 1, 0},
                                    .geometry = {64 << 10, 1 << 20, 64 << 10},
                                    .create_size_bytes = MIB(64)};
    if (check_ok(volumes_create(&o, paths, 1, &config, &vs, &err)))
        check_ok(volume_create(vs, "v", &vo, &err));
    else
        (void)fprintf(stderr, "%s\n", err.text);
    return vs;
}

enum { EXCHANGES = 200 };
struct exchange {
    struct volume *from, *to;
    struct front_client client;
    _Atomic bool exchanged; /* all of them */
    bool written;           /* the client has ended */
    struct co_group group;
};

/* A client of the front that goes to and fro. */
static void exchange_writes(void *arg)
{
    static const uint8_t block[4096] __attribute__((aligned(4096))) = {1};
    struct exchange *x = arg;
    for (uint64_t i = 0; !x->exchanged; i++)
        check_ok(front_write(&x->client, i % BLOCKS * 4096, 4096, block, 0));
    x->written = true;
}

static CO void exchange_once(struct exchange *x)
{
    struct front_late late;
    check_ok(front_freeze(volume_front(x->from), 0, &late));
    check_ok(front_freeze(volume_front(x->to), 0, &late));
    volume_fronts_exchange(x->from, x->to);
    front_thaw(volume_front(x->from));
    front_thaw(volume_front(x->to));
}

static int exchange_on_reactor(void *arg)
{
    struct exchange *x = arg;
    front_client_init(&x->client, volume_front(x->from));
    check_ok(co_spawn(exchange_writes, x, "writes"));
    for (unsigned i = 0; i < EXCHANGES; i++) {
        exchange_once(x);
        co_yield ();
    }
    x->exchanged = true;
    while (!x->written)
        co_yield ();
    return 0;
}

/* When the other volume has gone. */
static int exchange_reads(void *arg)
{
    struct exchange *x = arg;
    uint8_t block[4096] __attribute__((aligned(4096)));
    check_ok(volume_read(x->to, 0, 4096, block));
    check_equal(block[0], 1);
    return 0;
}

static void exchange_run(void *arg)
{
    struct exchange *x = arg;
    co_group_leave(&x->group, reactor_call(volume_reactor(x->from), exchange_on_reactor, x));
}

/* Home asks for sizes and fronts meanwhile. */
static CO void exchange_watch(struct exchange *x)
{
    struct front *front[2] = {volume_front(x->from), volume_front(x->to)};
    co_group_init(&x->group);
    co_group_enter(&x->group);
    check_ok(co_spawn(exchange_run, x, "exchange"));
    while (!x->exchanged) {
        const struct front *f = volume_front(x->from);
        check(f == front[0] || f == front[1]);
        uint64_t size_bytes = front_size(front[0]);
        check(size_bytes == volume_size(x->from) || size_bytes == volume_size(x->to));
        check(!front_is_read_only(front[1]));
        co_yield ();
    }
    check_ok(co_group_wait(&x->group));
}

static int move_life(void *arg)
{
    struct world *w = arg;
    struct vp_error err = {0};
    struct exchange x = {0};
    struct volumes *p = pool_of_one_disk(w, 0, MIB(4)), *q = pool_of_one_disk(w, 1, MIB(8));
    struct reactor *here = w->reactor[2]; /* not the one that comes first */
    check_ok(volume_open_to_move(p, "v", here, &x.from, &err));
    check_ok(volume_open_to_move(q, "v", here, &x.to, &err));
    check(volume_reactor(x.from) == here && volume_reactor(x.to) == here);
    check_equal(volume_open_to_move(q, "v", w->reactor[1], &x.to, &err), VP_E_BUSY);
    check(strstr(err.text, "q/v is active on reactor 2, and is wanted on reactor 1") != NULL);
    exchange_watch(&x);
    volume_close(x.from);
    check_ok(volumes_close(p, false));
    check_ok(reactor_call(here, exchange_reads, &x));
    volume_close(x.to);
    check_ok(volumes_close(q, false));
    return 0;
}

static void fronts_are_exchanged_on_their_reactor_while_home_looks_at_them(void **state)
{
    (void)state;
    struct world w;
    world_begin(&w);
    assert_int_equal(reactor_call_blocking(w.reactor[0], move_life, &w), 0);
    world_end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(volumes_work_on_three_reactors_while_home_administers_them),
        cmocka_unit_test(fronts_are_exchanged_on_their_reactor_while_home_looks_at_them),
    };
    return cmocka_run_group_tests_name("volumes/reactors", tests, NULL, NULL);
}

/*
 * An NBD connection of a move to our own server, over a volume in memory: on the same reactor, and
 * on another one. threads: yes
 */
#include "migrate/link.h"

#include "io/net.h"
#include "nbd/server.h"
#include "tests/lib/failing_malloc.h"
#include "tests/lib/on_reactor.h"
#include "tests/unit/nbd/fake_volume.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>

#include <cmocka.h>

#define SIZE  ((uint64_t)8 << 20)
#define BLOCK 4096U
#define MS    1000000ULL

/* ---- a server and a link ------------------------------------------------------------------- */

static struct front volume;
static _Atomic unsigned serving;

static void serve_main(void *arg)
{
    struct nbdx_export export = {.name = "move/secret", .front = &volume};
    vp_ignore(nbdx_serve_fd((int)(intptr_t)arg, &export, 1, NULL), "links are cut in many ways");
    serving--;
}

static int serve_spawn(void *fd)
{
    serving++;
    return co_spawn(serve_main, fd, "serve");
}

/* The server serves on the volume's reactor. */
static struct link *link_to_volume(const char *name, int want, struct vp_error *err)
{
    int fd[2];
    struct link *l = NULL;
    check_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
    void *server_end = (void *)(intptr_t)fd[1];
    if (volume.reactor == reactor_self())
        check_ok(serve_spawn(server_end));
    else
        check_ok(reactor_call_for_client(volume.reactor, serve_spawn, server_end));
    check_equal(link_open(fd[0], name, reactor_now_ns() + 5000 * MS, &l, err), want);
    return l;
}

/* Until so many are left. */
static void servers_end(unsigned left)
{
    while (serving > left)
        check_ok(co_sleep_ns(MS / 10));
}

static void (*test_body)(struct link *l);

static void body_with_link(void *arg)
{
    (void)arg;
    struct vp_error err = {0};
    if (!volume.reactor)
        volume.reactor = reactor_self();
    struct link *l = link_to_volume("move/secret", 0, &err);
    check_equal(link_size(l), SIZE);
    check(!link_is_lost(l) && link_why_lost(l)[0] == 0);
    test_body(l);
    link_close(l);
    servers_end(0);
}

static void run(void (*body)(struct link *l))
{
    fake_volume_init(&volume, NULL, SIZE);
    test_body = body;
    on_reactor(NULL, body_with_link, NULL);
    fake_volume_fini(&volume);
    assert_checked();
}

static void run_with_two_reactors(void (*body)(struct link *l))
{
    struct reactor_thread *t = reactor_thread_start(NULL);
    fake_volume_init(&volume, reactor_thread_reactor(t), SIZE);
    test_body = body;
    on_reactor(NULL, body_with_link, NULL);
    reactor_thread_join(t);
    fake_volume_fini(&volume);
    assert_checked();
}

/* ---- requests ------------------------------------------------------------------------------ */

static unsigned char buf[1 << 20];

static void requests(struct link *l)
{
    static unsigned char back[1 << 20];
    for (size_t i = 0; i < sizeof(buf); i++)
        buf[i] = (unsigned char)(i * 7 + (i >> 10));
    uint64_t before = link_bytes(l);
    check_ok(link_write(l, 3 * BLOCK, sizeof(buf), buf));
    check(link_bytes(l) - before >= sizeof(buf));
    check_equal(memcmp(volume.data + 3 * BLOCK, buf, sizeof(buf)), 0);
    before = link_bytes(l);
    check_ok(link_read(l, 3 * BLOCK, sizeof(back), back));
    check(link_bytes(l) - before >= sizeof(buf));
    check_equal(memcmp(back, buf, sizeof(buf)), 0);
    check_equal(volume.flushes, 0);
    check_ok(link_flush(l));
    check_equal(volume.flushes, 1);
    check_ok(link_zero(l, 4 * BLOCK, 2 * BLOCK));
    check_equal(volume.data[4 * BLOCK] | volume.data[6 * BLOCK - 1], 0);
    check(volume.data[6 * BLOCK] != 0);
    check(!volume.valid[4] && volume.no_hole == 0);
    check_ok(link_read(l, 0, 8 * BLOCK, back)); /* with holes, in chunks */
    check_equal(memcmp(back, volume.data, 8 * BLOCK), 0);
    check_ok(link_write(l, SIZE - 512, 512, buf));
    check_ok(link_zero(l, 0, SIZE));
    check_ok(link_write(l, SIZE, 0, buf));
}

static void requests_reach_the_volume(void **state)
{
    (void)state;
    run(requests);
}

static void errors(struct link *l)
{
    static const struct {
        int served, seen;
    } codes[] = {
        {VP_E_NO_SPACE, VP_E_NO_SPACE},
        {VP_E_IO, VP_E_IO},
        {VP_E_CHECKSUM, VP_E_IO},
        {VP_E_READ_ONLY, VP_E_PERMISSION},
        {VP_E_NOT_SUPPORTED, VP_E_NOT_SUPPORTED},
        {VP_E_VOLUME_SUPERSEDED, VP_E_IO},
    };
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        volume.fail = codes[i].served;
        check_equal(link_write(l, 0, BLOCK, buf), codes[i].seen);
        check_equal(link_read(l, 0, BLOCK, buf), codes[i].seen);
        check(!link_is_lost(l));
    }
    volume.fail = 0;
    check_equal(link_write(l, SIZE - BLOCK, BLOCK + 1, buf), VP_E_RANGE);
    check_equal(link_read(l, SIZE + 1, 0, buf), VP_E_RANGE);
    check_equal(link_zero(l, UINT64_MAX, 2), VP_E_RANGE);
    check_ok(link_write(l, 0, BLOCK, buf));
    volume.fail = VP_E_SHUTDOWN; /* the end for all of them */
    check_equal(link_flush(l), VP_E_PEER_LOST);
    check(link_is_lost(l) && strstr(link_why_lost(l), "shuts down"));
}

static void what_the_server_answers_is_told_apart(void **state)
{
    (void)state;
    run(errors);
}

static void unknown(struct link *l)
{
    struct vp_error err = {0};
    check(!link_to_volume("move/other-secret", VP_E_NOT_FOUND, &err));
    check(strstr(err.text, "does not know this export") && !strstr(err.text, "secret"));
    check_ok(link_flush(l));
}

static void an_unknown_name_is_told_and_not_shown(void **state)
{
    (void)state;
    run(unknown);
}

/* ---- many callers -------------------------------------------------------------------------- */

enum { CALLERS = 40, ROUNDS = 30, PART = 160 << 10 };

struct caller {
    struct link *l;
    unsigned index, rounds;
    int rc;
    unsigned *running;
    unsigned char *data;
    bool until_lost;
};

/* Each has its part of the volume. */
static void caller_main(void *arg)
{
    struct caller *c = arg;
    uint64_t at = (uint64_t)c->index * PART;
    unsigned char *back = c->data + PART;
    for (unsigned i = 0; c->rc == 0 && (c->until_lost || i < c->rounds); i++) {
        size_t len = (i * 13 + c->index) % 3 ? BLOCK : PART;
        memset(c->data, (int)(i + c->index), len);
        c->rc = link_write(c->l, at, len, c->data);
        if (c->rc == 0 && i % 7 == c->index % 7)
            c->rc = link_flush(c->l);
        if (c->rc == 0)
            c->rc = link_read(c->l, at, len, back);
        if (c->rc == 0)
            check_equal(memcmp(back, c->data, len), 0);
        memset(c->data, 0xee, 2 * PART); /* nobody may use them now */
    }
    --*c->running;
}

static unsigned running;
static struct caller caller[CALLERS];

static void callers_start(struct link *l, bool until_lost)
{
    running = CALLERS;
    for (unsigned i = 0; i < CALLERS; i++) {
        caller[i] = (struct caller){.l = l, .index = i, .rounds = ROUNDS, .running = &running};
        caller[i].data = malloc(2 * PART);
        caller[i].until_lost = until_lost;
        check_ok(co_spawn(caller_main, &caller[i], "caller"));
    }
}

static void callers_join(int want)
{
    while (running > 0)
        check_ok(co_sleep_ns(MS / 10));
    for (unsigned i = 0; i < CALLERS; i++) {
        check_equal(caller[i].rc, want);
        free(caller[i].data);
    }
}

static void many(struct link *l)
{
    callers_start(l, false);
    callers_join(0);
    check(!link_is_lost(l));
}

static void many_callers_are_served_at_once(void **state)
{
    (void)state;
    run(many);
}

static void many_callers_are_served_by_another_reactor(void **state)
{
    (void)state;
    if (!reactor_threads_work()) {
        print_message("two reactors do not work under valgrind\n");
        skip();
    }
    run_with_two_reactors(many);
}

static void cut_many(struct link *l)
{
    (void)l;
    struct vp_error err = {0};
    for (unsigned i = 0; i < 25; i++) {
        struct link *victim = link_to_volume("move/secret", 0, &err);
        if (!victim)
            return;
        callers_start(victim, true);
        check_ok(co_sleep_ns(i * MS / 5));
        link_cut(victim);
        check(link_is_lost(victim));
        check_equal(link_write(victim, 0, BLOCK, buf), VP_E_PEER_LOST);
        check_equal(link_flush(victim), VP_E_PEER_LOST);
        callers_join(VP_E_PEER_LOST);
        link_close(victim);
        servers_end(1);
    }
}

static void a_link_that_is_cut_ends_all_calls(void **state)
{
    (void)state;
    run(cut_many);
}

static void a_link_to_another_reactor_that_is_cut_ends_all_calls(void **state)
{
    (void)state;
    if (!reactor_threads_work()) {
        print_message("two reactors do not work under valgrind\n");
        skip();
    }
    run_with_two_reactors(cut_many);
}

/* ---- waiting ------------------------------------------------------------------------------- */

static void write_main(void *arg)
{
    struct caller *c = arg;
    c->rc = link_write(c->l, 0, BLOCK, buf);
    --*c->running;
}

/* The volume holds a write, so no answer comes. */
static struct caller *write_is_held(struct link *l)
{
    static struct caller c;
    running = 1;
    c = (struct caller){.l = l, .rc = 1, .running = &running};
    volume.hold = true;
    check_ok(co_spawn(write_main, &c, "caller"));
    while (volume.held == 0)
        check_ok(co_sleep_ns(MS / 10));
    return &c;
}

static void unanswered(struct link *l)
{
    struct caller *c = write_is_held(l);
    check_ok(co_sleep_ns(30 * MS));
    check_equal(running, 1); /* it waits for as long as we like */
    link_cut(l);
    check_equal(running, 1); /* no yield */
    co_yield ();
    check_equal(running, 0);
    check_equal(c->rc, VP_E_PEER_LOST);
    vp_ignore(fake_release_here(&volume), "the server cancels it");
}

static void a_call_without_an_answer_waits_until_the_link_is_cut(void **state)
{
    (void)state;
    run(unanswered);
}

static void cut_and_close(struct link *l)
{
    struct vp_error err = {0};
    struct link *victim = link_to_volume("move/secret", 0, &err);
    struct caller *c = write_is_held(victim);
    link_cut(victim);
    link_close(victim); /* the caller has not run since */
    check_equal(running, 0);
    check_equal(c->rc, VP_E_PEER_LOST);
    vp_ignore(fake_release_here(&volume), "the server cancels it");
    check_ok(link_flush(l));
}

static void a_link_may_be_closed_as_soon_as_it_is_cut(void **state)
{
    (void)state;
    run(cut_and_close);
}

/* ---- lack of resources --------------------------------------------------------------------- */

static void check_end_of_stream(int fd)
{
    char sink[512];
    size_t got = 1;
    while (got > 0 && io_recv(fd, sink, sizeof(sink), reactor_now_ns() + 5000 * MS, &got) == 0)
        ;
    check_equal(got, 0);
    io_close(fd);
}

static void no_memory(struct link *l)
{
    int fd[2];
    struct link *none = NULL;
    struct vp_error err = {0};
    check_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
    fail_in = 0;
    check_equal(link_open(fd[0], "move/secret", 0, &none, &err), VP_E_NO_MEMORY);
    fail_in = -1;
    check(!none && err.text[0]);
    check_end_of_stream(fd[1]);

    char name[6000];
    memset(name, 'x', sizeof(name) - 1);
    name[sizeof(name) - 1] = 0;
    check_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
    check_equal(link_open(fd[0], name, 0, &none, &err), VP_E_INVALID);
    check(!none && err.text[0]);
    check_end_of_stream(fd[1]);
    check_ok(link_flush(l));
}

static void a_link_that_cannot_be_made_closes_its_descriptor(void **state)
{
    (void)state;
    run(no_memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_reach_the_volume),
        cmocka_unit_test(what_the_server_answers_is_told_apart),
        cmocka_unit_test(an_unknown_name_is_told_and_not_shown),
        cmocka_unit_test(many_callers_are_served_at_once),
        cmocka_unit_test(many_callers_are_served_by_another_reactor),
        cmocka_unit_test(a_link_that_is_cut_ends_all_calls),
        cmocka_unit_test(a_link_to_another_reactor_that_is_cut_ends_all_calls),
        cmocka_unit_test(a_call_without_an_answer_waits_until_the_link_is_cut),
        cmocka_unit_test(a_link_may_be_closed_as_soon_as_it_is_cut),
        cmocka_unit_test(a_link_that_cannot_be_made_closes_its_descriptor),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

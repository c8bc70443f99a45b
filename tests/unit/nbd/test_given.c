/*
 * A server that does not listen: connections are given, from its own reactor and from another one.
 * threads: yes
 * valgrind: no (its one lock stays with the reactor's thread while that waits in its ring)
 */
#include "tests/unit/nbd/fixture.h"

#include "tests/lib/on_reactor.h"

static struct nbdx_server *server;
static struct reactor_thread *elsewhere;
static struct nbdx_total total;

static int start_here(void *arg)
{
    (void)arg;
    struct vp_error err = {0};
    struct nbdx_server_options o = {.address = {.kind = NBDX_GIVEN, .fd = -1},
                                    .exports = fx.exports,
                                    .export_count = fx.export_count,
                                    .limits = fx.limits,
                                    .total = &total};
    return nbdx_server_start(&o, &server, &err);
}

static int stop_here(void *arg)
{
    nbdx_server_stop(server, *(unsigned *)arg);
    return 0;
}

static void server_stop(unsigned deadline_ms)
{
    assert_int_equal(reactor_call_blocking(fx.reactor, stop_here, &deadline_ms), 0);
}

static int given_up(void **state)
{
    int rc = fixture_up(state);
    elsewhere = reactor_thread_start(NULL);
    total = (struct nbdx_total){.max = 3};
    return rc ? rc : reactor_call_blocking(fx.reactor, start_here, NULL);
}

static int given_down(void **state)
{
    reactor_thread_join(elsewhere);
    return fixture_down(state);
}

static int give_here(void *arg)
{
    return nbdx_server_give(server, (int)(intptr_t)arg);
}

/* The client's end; *rc is what the giver was told. */
static int give_from(struct reactor *r, int *rc)
{
    int fd[2];
    struct timeval t = {.tv_sec = PATIENCE_S};
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
    assert_int_equal(setsockopt(fd[0], SOL_SOCKET, SO_RCVTIMEO, &t, sizeof(t)), 0);
    *rc = reactor_call_blocking(r, give_here, (void *)(intptr_t)fd[1]);
    return fd[0];
}

/* Negotiates on a connection that was given. */
static int client_given(struct reactor *r)
{
    int rc;
    char buf[64];
    struct nbdx_greeting g;
    struct be32 flags = be32_make(3);
    int fd = give_from(r, &rc);
    assert_int_equal(rc, 0);
    client_recv(fd, &g, sizeof(g));
    assert_true(be64_get(g.magic) == NBDX_MAGIC);
    client_send(fd, &flags, sizeof(flags));
    option_send(fd, NBDX_OPT_GO, buf, info_payload(buf, "p/v", 0));
    option_expect(fd, NBDX_OPT_GO, NBDX_REP_INFO, NULL);
    option_expect(fd, NBDX_OPT_GO, NBDX_REP_ACK, NULL);
    return fd;
}

static void write_block(int fd, uint64_t cookie, uint64_t offset, int byte)
{
    unsigned char block[512];
    memset(block, byte, sizeof(block));
    command_send(fd, SIMPLE, NBDX_CMD_WRITE, 0, cookie, offset, sizeof(block));
    client_send(fd, block, sizeof(block));
}

/* ---- service ------------------------------------------------------------------------------- */

static void a_given_connection_is_served(void **state)
{
    (void)state;
    char uri[200];
    int own = client_given(fx.reactor);
    int foreign = client_given(reactor_thread_reactor(elsewhere));
    write_block(own, 1, 0, 'a');
    simple_expect(own, 1, 0);
    write_block(foreign, 2, 512, 'b');
    simple_expect(foreign, 2, 0);
    client_leave(own, SIMPLE);
    client_leave(foreign, SIMPLE);
    assert_int_equal(fx.volume.data[0], 'a');
    assert_int_equal(fx.volume.data[512], 'b');
    assert_false(nbdx_server_uri(server, 0, uri, sizeof(uri)));
    server_stop(0);
    assert_int_equal(total.used, 0);
}

static void given_connections_are_limited_as_accepted_ones(void **state)
{
    (void)state;
    int rc, client[3];
    for (unsigned i = 0; i < 3; i++) /* the total of all servers; the server itself has room */
        client[i] = client_given(reactor_thread_reactor(elsewhere));
    client_expect_end(give_from(fx.reactor, &rc));
    assert_int_equal(rc, VP_E_AGAIN);
    client_leave(client[0], SIMPLE);
    wait_for(total.used == 2);
    client[0] = client_given(fx.reactor);
    server_stop(1000);
    for (unsigned i = 0; i < 3; i++)
        client_expect_end(client[i]);
}

/* ---- stop ---------------------------------------------------------------------------------- */

static void nothing_of_a_given_connection_lands_after_the_stop(void **state)
{
    (void)state;
    int fd = client_given(reactor_thread_reactor(elsewhere));
    fx.volume.hold = true;
    write_block(fd, 1, 0, 'x');
    wait_for(fx.volume.held == 1);
    write_block(fd, 2, 512, 'y');
    server_stop(0);
    assert_int_equal(reactor_call_blocking(fx.reactor, fake_release_here, &fx.volume), 0);
    assert_int_equal(fx.volume.data[0], 0);
    assert_int_equal(fx.volume.data[512], 0);
    client_expect_end(fd);
    assert_int_equal(reactor_call_blocking(fx.reactor, start_here, NULL), 0); /* a new generation */
    fd = client_given(fx.reactor);
    write_block(fd, 3, 0, 'z');
    simple_expect(fd, 3, 0);
    client_leave(fd, SIMPLE);
    assert_int_equal(fx.volume.data[0], 'z');
    server_stop(0);
}

static void *stop_thread(void *arg)
{
    server_stop(60000);
    return arg;
}

static void a_connection_that_is_given_to_a_server_that_stops_is_closed(void **state)
{
    (void)state;
    int rc = 0, fd = client_given(fx.reactor), late = -1;
    fx.volume.busy = true; /* the stop has to wait for it */
    write_block(fd, 1, 0, 'x');
    wait_for(fx.volume.writes == 1);
    pthread_t stopper;
    assert_int_equal(pthread_create(&stopper, NULL, stop_thread, NULL), 0);
    time_t until = time(NULL) + PATIENCE_S;
    do { /* until the stop has begun: nobody frees the server before the write has ended */
        if (late >= 0)
            close(late);
        late = give_from(reactor_thread_reactor(elsewhere), &rc);
    } while (rc != VP_E_SHUTDOWN && time(NULL) < until);
    assert_int_equal(rc, VP_E_SHUTDOWN);
    client_expect_end(late);
    fx.volume.busy = false;
    simple_expect(fd, 1, 0);
    client_leave(fd, SIMPLE);
    pthread_join(stopper, NULL);
    assert_int_equal(fx.volume.data[0], 'x');
}

static _Atomic int given_rc;

static CO void give_main(void *arg)
{
    given_rc = nbdx_server_give(server, (int)(intptr_t)arg);
}

/* When it returns, the call is under way, and may have reached the server's reactor. */
static CO int give_spawn(void *arg)
{
    int rc = co_spawn(give_main, arg, "giver");
    co_yield ();
    return rc;
}

static void a_server_stops_while_another_reactor_gives_it_a_connection(void **state)
{
    (void)state;
    struct reactor *r = reactor_thread_reactor(elsewhere);
    for (unsigned i = 0; i < 300; i++) {
        int fd[2];
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
        given_rc = 1;
        assert_int_equal(reactor_call_blocking(r, give_spawn, (void *)(intptr_t)fd[1]), 0);
        server_stop(0); /* at once: a sleep would come too late */
        wait_for(given_rc != 1);
        assert_true(given_rc == 0 || given_rc == VP_E_SHUTDOWN);
        char sink[64];
        while (recv(fd[0], sink, sizeof(sink), 0) > 0)
            ; /* a greeting perhaps, and the end */
        close(fd[0]);
        assert_int_equal(reactor_call_blocking(fx.reactor, start_here, NULL), 0);
    }
    server_stop(0);
    assert_int_equal(total.used, 0);
}

#define given_test(fn) cmocka_unit_test_setup_teardown(fn, given_up, given_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        given_test(a_given_connection_is_served),
        given_test(given_connections_are_limited_as_accepted_ones),
        given_test(nothing_of_a_given_connection_lands_after_the_stop),
        given_test(a_connection_that_is_given_to_a_server_that_stops_is_closed),
        given_test(a_server_stops_while_another_reactor_gives_it_a_connection),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

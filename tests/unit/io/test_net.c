/* Sockets: whole and partial transfers, deadlines, cancellation, listening. threads: yes */
#include "io/net.h"
#include "io/reactor.h"
#include "tests/lib/on_reactor.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define MS 1000000ULL

static int pair[2];

static void open_pair(void)
{
    check_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
}

static void close_pair(void)
{
    io_close(pair[0]);
    io_close(pair[1]);
}

/* Runs `body` with a connected pair, with the kernel's features and without. */
static void run(void (*body)(void *arg))
{
    static const char *const without[] = {"", "defer_taskrun", "single_issuer,coop_taskrun"};
    for (size_t i = 0; i < 3; i++) {
        setenv("VPOOL_IO_DISABLE", without[i], 1);
        open_pair();
        on_reactor(NULL, body, NULL);
        close_pair();
        unsetenv("VPOOL_IO_DISABLE");
        assert_checked();
    }
}

/* ---- transfers ----------------------------------------------------------------------------- */

#define BIG (3U << 20)

static unsigned char byte_at(size_t i)
{
    return (unsigned char)(i * 31 + (i >> 8) * 7 + (i >> 16));
}

static void receive_big(void *arg)
{
    unsigned char *buf = malloc(BIG);
    check_ok(io_recv_all(pair[1], buf, BIG, 0));
    size_t wrong = 0;
    for (size_t i = 0; i < BIG; i++)
        wrong += buf[i] != byte_at(i);
    check_equal(wrong, 0);
    free(buf);
    *(bool *)arg = true;
}

static void send_huge_vector(void *arg)
{
    (void)arg;
    bool received = false;
    unsigned char *buf = malloc(BIG);
    /* Pieces of odd sizes, some empty, several times IOV_MAX of them. */
    struct iovec *iov = calloc(BIG, sizeof(*iov));
    unsigned count = 0;
    for (size_t at = 0; at < BIG; count++) {
        size_t len = count % 5 == 0 ? 0 : (size_t)(count * 37 % 1999);
        len = len < BIG - at ? len : BIG - at;
        iov[count] = (struct iovec){buf + at, len};
        at += len;
    }
    for (size_t i = 0; i < BIG; i++)
        buf[i] = byte_at(i);
    check(count > 3000);
    check_ok(co_spawn(receive_big, &received, "receiver"));
    check_ok(io_sendv_all(pair[0], iov, count, 0));
    while (!received)
        check_ok(co_sleep_ns(MS / 10));
    struct iovec empty[2] = {{buf, 0}, {buf, 0}};
    check_ok(io_sendv_all(pair[0], empty, 2, 0));
    free(iov);
    free(buf);
}

static void a_huge_vector_arrives_whole_through_a_small_socket(void **state)
{
    (void)state;
    run(send_huge_vector);
}

static void end_of_stream(void *arg)
{
    (void)arg;
    char buf[16];
    size_t got = 99;
    check_ok(io_send_all(pair[0], "abc", 3, 0));
    check_ok(io_recv(pair[1], buf, sizeof(buf), 0, &got));
    check_equal(got, 3);
    check_ok(io_send_all(pair[0], "de", 2, 0));
    io_shutdown(pair[0]);
    check_equal(io_recv_all(pair[1], buf, 3, 0), VP_E_CLOSED);
    check_ok(io_recv(pair[1], buf, sizeof(buf), 0, &got));
    check_equal(got, 0);
    check_equal(io_send_all(pair[0], "f", 1, 0), VP_E_CLOSED); /* and no SIGPIPE */
}

static void the_end_of_the_stream_is_told(void **state)
{
    (void)state;
    run(end_of_stream);
}

/* ---- deadlines and cancellation ------------------------------------------------------------- */

static void deadlines(void *arg)
{
    (void)arg;
    char buf[8];
    size_t got;
    unsigned revents;
    uint64_t deadline = reactor_now_ns() + 3 * MS;
    check_equal(io_recv(pair[0], buf, 8, deadline, &got), VP_E_TIMED_OUT);
    check(reactor_now_ns() >= deadline);
    check_equal(io_recv_all(pair[0], buf, 8, reactor_now_ns() + MS), VP_E_TIMED_OUT);
    check_ok(io_send_all(pair[1], "abcd", 4, 0));
    check_equal(io_recv_all(pair[0], buf, 8, reactor_now_ns() + MS), VP_E_TIMED_OUT);
    check_equal(io_poll(pair[0], POLLIN, reactor_now_ns() + MS, &revents), VP_E_TIMED_OUT);
    check_equal(io_poll(pair[0], POLLIN, 1, &revents), VP_E_TIMED_OUT);
    check_ok(io_send_all(pair[1], "x", 1, 0));
    check_ok(io_recv(pair[0], buf, 8, 0, &got)); /* the socket is as good as before */
    check_equal(got, 1);
}

static void a_deadline_ends_a_receive_and_leaves_the_socket_usable(void **state)
{
    (void)state;
    run(deadlines);
}

static void send_deadline(void *arg)
{
    (void)arg;
    unsigned char *buf = calloc(1, BIG);
    check_equal(io_send_all(pair[0], buf, BIG, reactor_now_ns() + 3 * MS), VP_E_TIMED_OUT);
    free(buf);
}

static void a_deadline_ends_a_send_that_nobody_reads(void **state)
{
    (void)state;
    run(send_deadline);
}

/* Lets a byte and the deadline come in one turn. */
static void send_late(void *arg)
{
    const uint64_t *deadline = arg;
    check_equal(write(pair[1], "x", 1), 1);
    while (reactor_now_ns() <= *deadline)
        ;
}

static void deadline_and_data(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < 20; i++) {
        uint64_t deadline = reactor_now_ns() + 2 * MS;
        char buf[8];
        size_t got;
        check_ok(co_spawn(send_late, &deadline, "late"));
        check_ok(io_recv(pair[0], buf, 8, deadline, &got));
        check_equal(got, 1);
        uint64_t next = reactor_now_ns() + 2 * MS; /* nothing is left of the first wait */
        check_equal(io_recv(pair[0], buf, 8, next, &got), VP_E_TIMED_OUT);
        check(reactor_now_ns() >= next);
    }
}

static void a_deadline_that_passes_when_the_data_are_there_cuts_nothing(void **state)
{
    (void)state;
    run(deadline_and_data);
}

struct victim {
    struct co *co;
    int fd, rc, accepted;
    size_t got;
    bool done;
};

static void victim_recv(void *arg)
{
    struct victim *v = arg;
    char buf[8];
    v->co = co_self();
    v->rc = io_recv(v->fd, buf, sizeof(buf), 0, &v->got);
    v->done = true;
}

static void victim_accept(void *arg)
{
    struct victim *v = arg;
    v->co = co_self();
    v->rc = io_accept(v->fd, 0, &v->accepted);
    v->done = true;
}

static void wait_done(struct victim *v)
{
    while (!v->done)
        check_ok(co_sleep_ns(MS / 10));
}

static int listen_somewhere(unsigned *port)
{
    int fd = -1;
    struct vp_error err = {0};
    check_ok(io_listen_tcp("127.0.0.1", "0", &fd, port, &err));
    return fd;
}

static void cancel_both(void *arg)
{
    (void)arg;
    unsigned port;
    struct victim r = {.fd = pair[0]}, a = {.fd = listen_somewhere(&port), .accepted = -1};
    check_ok(co_spawn(victim_recv, &r, "recv"));
    check_ok(co_spawn(victim_accept, &a, "accept"));
    check_ok(co_sleep_ns(MS)); /* both are in the kernel */
    co_cancel(r.co);
    co_cancel(r.co);
    co_cancel(a.co);
    wait_done(&r);
    wait_done(&a);
    check_equal(r.rc, VP_E_CANCELLED);
    check_equal(a.rc, VP_E_CANCELLED);
    io_close(a.fd);
}

static void receive_and_accept_can_be_cancelled(void **state)
{
    (void)state;
    run(cancel_both);
}

static void cancel_at_once(void *arg)
{
    (void)arg;
    struct victim r = {.fd = pair[0]};
    check_ok(co_spawn(victim_recv, &r, "recv"));
    co_yield (); /* queued, not submitted yet */
    co_cancel(r.co);
    wait_done(&r);
    check_equal(r.rc, VP_E_CANCELLED);
}

static void a_receive_that_is_not_even_submitted_can_be_cancelled(void **state)
{
    (void)state;
    run(cancel_at_once);
}

/* Data and cancellation race, with a seeded order: every byte is seen once. */
static void race(void *arg)
{
    (void)arg;
    unsigned sent = 0, got = 0, cancelled = 0;
    for (unsigned i = 0; i < 2000; i++) {
        struct victim r = {.fd = pair[0]};
        check_ok(co_spawn(victim_recv, &r, "recv"));
        co_yield ();
        if (i % 3 == 0)
            check_ok(co_sleep_ns(1000));
        if (i % 2 == 0) {
            check_equal(write(pair[1], "x", 1), 1);
            sent++;
        }
        co_cancel(r.co);
        while (!r.done)
            co_yield ();
        got += r.rc == 0 ? (unsigned)r.got : 0;
        cancelled += r.rc == VP_E_CANCELLED;
    }
    check(cancelled > 0);
    while (got < sent) {
        char buf[64];
        size_t more;
        check_ok(io_recv(pair[0], buf, sizeof(buf), 0, &more));
        got += (unsigned)more;
    }
    check_equal(got, sent);
}

static void data_that_came_in_the_race_with_a_cancel_are_not_lost(void **state)
{
    (void)state;
    run(race);
}

static void many_receivers(void *arg)
{
    (void)arg;
    static struct victim v[500];
    memset(v, 0, sizeof(v));
    for (int i = 0; i < 500; i++) {
        v[i].fd = pair[0];
        check_ok(co_spawn(victim_recv, &v[i], "recv"));
    }
    check_ok(co_sleep_ns(MS));
    for (int i = 0; i < 500; i++)
        co_cancel(v[i].co);
    for (int i = 0; i < 500; i++) {
        wait_done(&v[i]);
        check_equal(v[i].rc, VP_E_CANCELLED);
    }
}

static void more_waiters_than_the_ring_holds_can_all_be_cancelled(void **state)
{
    (void)state;
    struct reactor_config small = {.ring_entries = 8};
    open_pair();
    on_reactor(&small, many_receivers, NULL);
    close_pair();
    assert_checked();
}

/* ---- poll, accept, listen ------------------------------------------------------------------ */

static void poll_eventfd(void *arg)
{
    (void)arg;
    int fd = eventfd(0, EFD_CLOEXEC);
    unsigned revents = 0;
    check_equal(io_poll(fd, POLLIN, reactor_now_ns() + MS, &revents), VP_E_TIMED_OUT);
    check_equal(io_ready(fd, POLLIN), 0);
    check_equal(eventfd_write(fd, 1), 0);
    check_equal(io_ready(fd, POLLIN), POLLIN);
    check_ok(io_poll(fd, POLLIN, 0, &revents));
    check(revents & POLLIN);
    io_close(fd);
}

static void poll_waits_for_a_descriptor_that_is_no_socket(void **state)
{
    (void)state;
    run(poll_eventfd);
}

static char socket_path[64];

static void connect_client(void *arg)
{
    (void)arg;
    struct vp_error err = {0};
    int listener = -1, again = -1;
    struct stat file;
    check_ok(io_listen_unix(socket_path, 0600, &listener, &file, &err));
    struct stat st;
    check_equal(stat(socket_path, &st), 0);
    check_equal(st.st_mode & 0777, 0600);
    check_equal(io_listen_unix(socket_path, 0600, &again, &file, &err), VP_E_EXISTS);
    check(strstr(err.text, socket_path) != NULL);
    struct victim a = {.fd = listener};
    check_ok(co_spawn(victim_accept, &a, "accept"));
    wait_done(&a); /* the probe of the second listener connected, too */
    check_ok(a.rc);
    unsigned pid, uid, gid;
    check_ok(io_peer_credentials(a.accepted, &pid, &uid, &gid));
    check_equal(pid, getpid());
    check_equal(uid, getuid());
    io_close(a.accepted);
    io_close(listener);
    struct stat other = file;
    check_ok(
        io_listen_unix(socket_path, 0600, &listener, &file, &err)); /* the stale one is replaced */
    other.st_ino = file.st_ino + 1;
    io_unlisten_unix(socket_path, &other); /* somebody else's by now */
    check_ok(access(socket_path, F_OK));
    io_unlisten_unix(socket_path, &file);
    check_equal(access(socket_path, F_OK), -1);
    io_close(listener);
}

static void a_unix_socket_is_replaced_only_when_nobody_listens(void **state)
{
    (void)state;
    (void)snprintf(socket_path, sizeof(socket_path), "/tmp/vpool-test-%d.sock", getpid());
    run(connect_client);
}

static void a_file_in_the_way_of_a_socket_is_left_alone(void **state)
{
    (void)state;
    char path[64] = "/tmp/vpool-test-XXXXXX";
    int fd = mkstemp(path), listener = -1;
    struct stat file;
    struct vp_error err = {0};
    assert_true(fd >= 0);
    assert_int_equal(io_listen_unix(path, 0600, &listener, &file, &err), VP_E_EXISTS);
    assert_int_equal(unlink(path), 0);
    close(fd);
}

static void bad_listen_addresses_are_refused(void **state)
{
    (void)state;
    int fd = -1;
    unsigned port;
    char text[8];
    struct vp_error err = {0};
    assert_int_equal(io_listen_tcp("no such host", "0", &fd, &port, &err), VP_E_INVALID);
    int first = listen_somewhere(&port);
    (void)snprintf(text, sizeof(text), "%u", port);
    assert_int_equal(io_listen_tcp("127.0.0.1", text, &fd, &port, &err), VP_E_EXISTS);
    io_close(first);
    assert_checked();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_huge_vector_arrives_whole_through_a_small_socket),
        cmocka_unit_test(the_end_of_the_stream_is_told),
        cmocka_unit_test(a_deadline_ends_a_receive_and_leaves_the_socket_usable),
        cmocka_unit_test(a_deadline_ends_a_send_that_nobody_reads),
        cmocka_unit_test(a_deadline_that_passes_when_the_data_are_there_cuts_nothing),
        cmocka_unit_test(receive_and_accept_can_be_cancelled),
        cmocka_unit_test(a_receive_that_is_not_even_submitted_can_be_cancelled),
        cmocka_unit_test(data_that_came_in_the_race_with_a_cancel_are_not_lost),
        cmocka_unit_test(more_waiters_than_the_ring_holds_can_all_be_cancelled),
        cmocka_unit_test(poll_waits_for_a_descriptor_that_is_no_socket),
        cmocka_unit_test(a_unix_socket_is_replaced_only_when_nobody_listens),
        cmocka_unit_test(a_file_in_the_way_of_a_socket_is_left_alone),
        cmocka_unit_test(bad_listen_addresses_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

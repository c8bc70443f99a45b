/* Outgoing connections: what they are like, how they fail, deadlines, cancellation. threads: yes */
#include "io/net.h"
#include "io/offload.h"
#include "io/reactor.h"
#include "tests/lib/on_reactor.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/fsuid.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#define MS 1000000ULL

static void run(void (*body)(void *arg))
{
    on_reactor(NULL, body, NULL);
    assert_checked();
}

/* ---- helpers ------------------------------------------------------------------------------- */

static char path[80];

/* A listener at `path` whose queue takes `backlog` more than one. */
static int listen_at_path(int backlog)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    (void)snprintf(path, sizeof(path), "/tmp/vpool-connect-%d.sock", getpid());
    (void)unlink(path);
    memcpy(addr.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    check_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    check_equal(listen(fd, backlog), 0);
    return fd;
}

static int listen_tcp(char port[8], int backlog)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(addr);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    check_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    check_equal(listen(fd, backlog), 0);
    check_equal(getsockname(fd, (struct sockaddr *)&addr, &len), 0);
    (void)snprintf(port, 8, "%u", ntohs(addr.sin_port));
    return fd;
}

static int option(int fd, int level, int name)
{
    int value = -1;
    socklen_t len = sizeof(value);
    check_equal(getsockopt(fd, level, name, &value, &len), 0);
    return value;
}

static uint64_t soon(uint64_t ms)
{
    return reactor_now_ns() + ms * MS;
}

/* The other end of a connection on which a byte waits. A connection that an attempt began which was
 * left may be before it in the queue; that one is closed. */
static int accept_what_sends(int listener)
{
    for (;;) {
        int other = -1;
        char c = 0;
        check_ok(io_accept(listener, soon(5000), &other));
        if (other < 0 || io_recv_all(other, &c, 1, soon(5000)) == 0) {
            check_equal(c, 'a');
            return other;
        }
        io_close(other);
    }
}

/* A byte goes both ways, and the descriptor is as promised. */
static void check_connected(int fd, int listener)
{
    char c = 0;
    size_t got;
    uint64_t turns = figure_get(&reactor_figures(reactor_self())->turns);
    check_equal(io_recv(fd, &c, 1, soon(20), &got), VP_E_TIMED_OUT);
    turns = figure_get(&reactor_figures(reactor_self())->turns) - turns;
    check(turns < 10); /* the ring waits, though the descriptor does not */
    check_ok(io_send_all(fd, "a", 1, soon(5000)));
    int other = accept_what_sends(listener);
    check_ok(io_send_all(other, "b", 1, soon(5000)));
    check_ok(io_recv_all(fd, &c, 1, soon(5000)));
    check_equal(c, 'b');
    check(fcntl(fd, F_GETFL) & O_NONBLOCK);
    check(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    io_close(other);
    io_close(fd);
}

struct attempt {
    const char *port; /* NULL: unix */
    struct co *co;
    int fd, rc;
    struct vp_error err;
    bool done;
};

static void attempt_main(void *arg)
{
    struct attempt *a = arg;
    a->co = co_self();
    a->rc = a->port ? io_connect_tcp("127.0.0.1", a->port, 0, &a->fd, &a->err)
                    : io_connect_unix(path, 0, &a->fd, &a->err);
    a->done = true;
}

static void attempt_wait(const struct attempt *a)
{
    while (!a->done)
        check_ok(co_sleep_ns(MS));
}

/* ---- unix ---------------------------------------------------------------------------------- */

static void unix_works(void *arg)
{
    (void)arg;
    struct vp_error err = {0};
    int fd = -1, listener = listen_at_path(8);
    check_ok(io_connect_unix(path, soon(5000), &fd, &err));
    check_connected(fd, listener);
    io_close(listener);
}

static void a_unix_socket_is_connected_to(void **state)
{
    (void)state;
    run(unix_works);
}

static void unix_fails(void *arg)
{
    (void)arg;
    struct vp_error err = {0};
    char longer[200] = {0};
    int fd = -1, listener = listen_at_path(8);
    check_equal(chmod(path, 0), 0);
    uid_t own = (uid_t)setfsuid(65534); /* root may everything; the look-up's thread inherits it */
    check_equal(io_connect_unix(path, 0, &fd, &err), VP_E_PERMISSION);
    (void)setfsuid(own);
    check(strstr(err.text, path) && strstr(err.text, "no permission"));
    check_equal(chmod(path, 0700), 0);

    io_close(listener);
    check_equal(io_connect_unix(path, 0, &fd, &err), VP_E_REFUSED);
    check(strstr(err.text, path) && strstr(err.text, "nobody listens"));
    check_equal(unlink(path), 0);
    check_equal(io_connect_unix(path, 0, &fd, &err), VP_E_NOT_FOUND);
    check(strstr(err.text, path) && strstr(err.text, "no such socket"));

    memset(longer, 'x', sizeof(longer) - 1);
    check_equal(io_connect_unix(longer, 0, &fd, &err), VP_E_TOO_BIG);
    check_equal(fd, -1);
}

static void a_unix_socket_that_cannot_be_used_is_told_apart(void **state)
{
    (void)state;
    run(unix_fails);
}

static void unix_full(void *arg)
{
    (void)arg;
    struct vp_error err = {0};
    int listener = listen_at_path(0), fd = -1, first = -1, rest = -1;
    struct attempt cancelled = {.fd = -1}, later = {.fd = -1};
    check_ok(io_connect_unix(path, 0, &first, &err));
    check_equal(io_connect_unix(path, soon(30), &fd, &err), VP_E_TIMED_OUT);
    check(strstr(err.text, "no answer in time"));

    check_ok(co_spawn(attempt_main, &cancelled, "attempt"));
    check_ok(co_spawn(attempt_main, &later, "attempt"));
    check_ok(co_sleep_ns(30 * MS));
    check(!cancelled.done && !later.done);
    for (unsigned i = 0; i < 1000 && !cancelled.done; i++) {
        co_cancel(cancelled.co); /* no effect in the moment in which its thread ends */
        check_ok(co_sleep_ns(MS));
    }
    check_equal(cancelled.rc, VP_E_CANCELLED);

    check_ok(io_accept(listener, soon(5000), &rest));
    check_equal(listen(listener, 2), 0); /* the attempts that were left may take a place yet */
    attempt_wait(&later);
    check_ok(later.rc);
    io_close(rest);
    io_close(first);
    check_connected(later.fd, listener);
    io_close(listener);
    (void)unlink(path);
}

static void a_listener_with_a_full_queue_is_waited_for(void **state)
{
    (void)state;
    run(unix_full);
}

/* ---- tcp ----------------------------------------------------------------------------------- */

static void tcp_works(void *arg)
{
    (void)arg;
    static const char *const hosts[] = {"127.0.0.1", "localhost"};
    for (size_t i = 0; i < 2; i++) {
        char port[8];
        struct vp_error err = {0};
        int fd = -1, listener = listen_tcp(port, 8);
        check_ok(io_connect_tcp(hosts[i], port, soon(5000), &fd, &err));
        check_equal(err.text[0], 0);
        check(option(fd, IPPROTO_TCP, TCP_NODELAY));
        check(option(fd, SOL_SOCKET, SO_KEEPALIVE));
        check_equal(option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT), IO_CONNECT_SILENCE_MS);
        check_equal(
            1000 * (option(fd, IPPROTO_TCP, TCP_KEEPIDLE) +
                    option(fd, IPPROTO_TCP, TCP_KEEPINTVL) * option(fd, IPPROTO_TCP, TCP_KEEPCNT)),
            IO_CONNECT_SILENCE_MS);
        check_connected(fd, listener);
        io_close(listener);
    }
}

static void a_host_is_connected_to_by_number_and_by_name(void **state)
{
    (void)state;
    run(tcp_works);
}

static void tcp_fails(void *arg)
{
    (void)arg;
    char port[8], host[300] = {0};
    struct vp_error err = {0};
    int fd = -1;
    io_close(listen_tcp(port, 8));
    check_equal(io_connect_tcp("127.0.0.1", port, 0, &fd, &err), VP_E_REFUSED);
    check(strstr(err.text, "127.0.0.1") && strstr(err.text, port) &&
          strstr(err.text, "nobody listens"));
    check_equal(io_connect_tcp("224.0.0.1", port, 0, &fd, &err), VP_E_UNREACHABLE); /* multicast */
    check(strstr(err.text, "no way leads"));
    memset(host, 'x', 80); /* longer than a part of a name may be: no name server is asked */
    check_equal(io_connect_tcp(host, port, 0, &fd, &err), VP_E_NOT_FOUND);
    check(strstr(err.text, host) != NULL);
    check_equal(io_connect_tcp("127.0.0.1", "http", 0, &fd, &err), VP_E_NOT_FOUND);
    memset(host, 'x', 299);
    check_equal(io_connect_tcp(host, port, 0, &fd, &err), VP_E_TOO_BIG);
    check_equal(fd, -1);
}

static void a_host_that_cannot_be_reached_is_told_apart(void **state)
{
    (void)state;
    run(tcp_fails);
}

/* A listener whose queue is full drops what comes: the connection hangs. */
static void tcp_silent(void *arg)
{
    (void)arg;
    char port[8];
    struct vp_error err = {0};
    int listener = listen_tcp(port, 0), first = -1, fd = -1;
    struct attempt cancelled = {.port = port, .fd = -1};
    check_ok(io_connect_tcp("127.0.0.1", port, 0, &first, &err));
    uint64_t deadline = soon(30);
    check_equal(io_connect_tcp("127.0.0.1", port, deadline, &fd, &err), VP_E_TIMED_OUT);
    check(reactor_now_ns() >= deadline);
    check(strstr(err.text, "no answer in time"));
    check_equal(io_connect_tcp("127.0.0.1", port, 1, &fd, &err), VP_E_TIMED_OUT);

    check_ok(co_spawn(attempt_main, &cancelled, "attempt"));
    check_ok(co_sleep_ns(30 * MS));
    check(!cancelled.done);
    for (unsigned i = 0; i < 1000 && !cancelled.done; i++) {
        co_cancel(cancelled.co);
        check_ok(co_sleep_ns(MS));
    }
    check_equal(cancelled.rc, VP_E_CANCELLED);
    io_close(first);
    io_close(listener);
}

static void a_host_that_is_silent_is_waited_for_until_the_deadline(void **state)
{
    (void)state;
    run(tcp_silent);
}

/* ---- calls that are left ------------------------------------------------------------------- */

struct lasting_call {
    int gate; /* fn returns when it is readable */
    _Atomic bool dropped;
};

static int lasting_fn(void *arg)
{
    struct lasting_call *c = arg;
    uint64_t n;
    return read(c->gate, &n, sizeof(n)) == sizeof(n) ? 7 : -1;
}

static void lasting_drop(void *arg)
{
    ((struct lasting_call *)arg)->dropped = true;
}

static void leave(void *arg)
{
    (void)arg;
    struct lasting_call c = {.gate = eventfd(0, EFD_CLOEXEC)};
    int fn_rc = 0;
    check_equal(offload_run_until(lasting_fn, &c, lasting_drop, soon(20), &fn_rc), VP_E_TIMED_OUT);
    check_ok(co_sleep_ns(5 * MS));
    check(!c.dropped); /* its thread uses it still */
    check_equal(eventfd_write(c.gate, 1), 0);
    while (!c.dropped)
        check_ok(co_sleep_ns(MS));
    check_equal(fn_rc, 0);

    c.dropped = false;
    check_equal(eventfd_write(c.gate, 1), 0);
    check_ok(offload_run_until(lasting_fn, &c, lasting_drop, soon(5000), &fn_rc));
    check_equal(fn_rc, 7);
    check(!c.dropped);
    io_close(c.gate);
}

static void a_call_that_lasts_too_long_is_left_and_drops_its_argument_itself(void **state)
{
    (void)state;
    run(leave);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_unix_socket_is_connected_to),
        cmocka_unit_test(a_unix_socket_that_cannot_be_used_is_told_apart),
        cmocka_unit_test(a_listener_with_a_full_queue_is_waited_for),
        cmocka_unit_test(a_host_is_connected_to_by_number_and_by_name),
        cmocka_unit_test(a_host_that_cannot_be_reached_is_told_apart),
        cmocka_unit_test(a_host_that_is_silent_is_waited_for_until_the_deadline),
        cmocka_unit_test(a_call_that_lasts_too_long_is_left_and_drops_its_argument_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

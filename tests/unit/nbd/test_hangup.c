/*
 * Clients that leave, stall and return; servers that stop; limits. README.md's invariants 1 to 5.
 * threads: yes
 * valgrind: no (its one lock stays with the reactor's thread while that waits in its ring)
 */
#include "tests/unit/nbd/fixture.h"

#include "tests/lib/on_reactor.h"

#include <stdio.h>
#include <sys/stat.h>
#include <sys/un.h>

static unsigned char data[2 << 20];

/* ---- clients that leave -------------------------------------------------------------------- */

/* Invariant 1: the reader of a full connection still holds writes when the client vanishes. */
static void writes_queued_by_a_client_that_vanished_are_dropped(void **state)
{
    (void)state;
    fx.limits.requests = 4;
    int fd = client_ready(SIMPLE);
    fx.volume.hold = true;
    for (unsigned i = 0; i < 50; i++) {
        memset(data, 1 + i, 512);
        command_send(fd, SIMPLE, NBDX_CMD_WRITE, 0, i, i * 4096, 512);
        client_send(fd, data, 512);
    }
    wait_for(fx.volume.held == 4);
    close(fd);
    wait_for(fx.serving == 0);
    assert_int_equal(fx.volume.writes, 4);
    assert_int_equal(fx.volume.cancelled, 1);
    for (unsigned i = 0; i < 50; i++)
        assert_int_equal(fx.volume.data[i * 4096], 0);
}

static void a_request_that_waits_for_space_survives_another_clients_end(void **state)
{
    (void)state;
    int a = client_ready(SIMPLE), b = client_ready(SIMPLE);
    fx.volume.hold = true;
    memset(data, 7, 512);
    command_send(a, SIMPLE, NBDX_CMD_WRITE, 0, 1, 0, 512);
    client_send(a, data, 512);
    command_send(b, SIMPLE, NBDX_CMD_WRITE, 0, 1, 8192, 512);
    client_send(b, data, 512);
    wait_for(fx.volume.held == 2);
    close(a);
    wait_for(fx.serving == 1);
    assert_int_equal(reactor_call_blocking(fx.reactor, fake_release_here, &fx.volume), 0);
    simple_expect(b, 1, 0);
    fixture_sync();
    assert_int_equal(fx.volume.data[0], 0);
    assert_int_equal(fx.volume.data[8192], 7);
    client_leave(b, SIMPLE);
}

/* A read, and the reader with a write whose payload it has not received. */
static void requests_wait_at_a_closed_gate_without_a_buffer_and_go_on(void **state)
{
    (void)state;
    int fd = client_ready(SIMPLE);
    fx.volume.closed = true;
    memset(data, 7, 512);
    command_send(fd, SIMPLE, NBDX_CMD_READ, 0, 1, 4096, 512);
    command_send(fd, SIMPLE, NBDX_CMD_WRITE, 0, 2, 0, 512);
    client_send(fd, data, 512);
    wait_for(fx.volume.at_gate == 2);
    assert_int_equal(fx.volume.reads + fx.volume.writes, 0);
    assert_int_equal(fx.volume.admitted, 1024);
    assert_int_equal(reactor_call_blocking(fx.reactor, fake_release_here, &fx.volume), 0);
    simple_expect(fd, 1, 0);
    client_recv(fd, data, 512);
    simple_expect(fd, 2, 0);
    assert_int_equal(fx.volume.data[0], 7);
    client_leave(fd, SIMPLE);
}

static void a_client_that_vanishes_waits_at_no_gate(void **state)
{
    (void)state;
    int fd = client_ready(SIMPLE);
    fx.volume.closed = true;
    command_send(fd, SIMPLE, NBDX_CMD_READ, 0, 1, 4096, 512);
    command_send(fd, SIMPLE, NBDX_CMD_WRITE, 0, 2, 0, 512);
    wait_for(fx.volume.at_gate == 2);
    close(fd);
    wait_for(fx.serving == 0);
    assert_int_equal(fx.volume.reads + fx.volume.writes, 0);
}

/* It was at work when its client went. */
static void a_request_that_finds_no_space_after_the_hangup_ends_too(void **state)
{
    (void)state;
    fx.limits.requests = 4;
    int fd = client_ready(SIMPLE);
    fx.volume.hold = fx.volume.busy = true;
    memset(data, 7, 512);
    for (unsigned i = 0; i < 8; i++) {
        command_send(fd, SIMPLE, NBDX_CMD_WRITE, 0, i, i * 4096, 512);
        client_send(fd, data, 512);
    }
    wait_for(fx.volume.writes == 4);
    close(fd);
    wait_for(fx.volume.cancelled >= 1);
    fx.volume.busy = false;
    wait_for(fx.serving == 0);
    assert_int_equal(fx.volume.writes, 4);
}

static void a_write_whose_payload_is_cut_at_any_byte_does_not_happen(void **state)
{
    (void)state;
    unsigned char wire[28 + 64];
    size_t n = command_bytes(wire, SIMPLE, NBDX_CMD_WRITE, 0, 1, 0, 64);
    memset(wire + n, 5, 64);
    for (size_t cut = 0; cut < n + 64; cut++) {
        int fd = client_ready(SIMPLE);
        client_send(fd, wire, cut);
        close(fd);
        wait_for(fx.serving == 0);
    }
    assert_int_equal(fx.volume.writes, 0);
}

static void a_client_that_never_reads_is_stopped_and_harms_nobody(void **state)
{
    (void)state;
    int greedy = client_ready(SIMPLE);
    for (unsigned i = 0; i < 100; i++)
        command_send(greedy, SIMPLE, NBDX_CMD_READ, 0, i, 0, 1 << 20);
    wait_for(fx.volume.reads >= 1);
    int fd = client_ready(SIMPLE);
    for (unsigned i = 0; i < 100; i++) {
        command_send(fd, SIMPLE, NBDX_CMD_READ, 0, i, 0, 4096);
        simple_expect(fd, i, 0);
        client_recv(fd, data, 4096);
    }
    assert_true(fx.volume.reads <= 100 + 16 + 1); /* the greedy one's: what its buffers hold */
    client_leave(fd, SIMPLE);
    close(greedy);
}

/* A client that asks for 40 MiB and takes nothing. */
static int client_stalled(void)
{
    int fd = client_ready(SIMPLE);
    for (unsigned i = 0; i < 40; i++)
        command_send(fd, SIMPLE, NBDX_CMD_READ, 0, i, 0, 1 << 20);
    return fd;
}

/* Invariant 5: nobody waits for them, so nobody is hung up either. */
static void clients_that_stall_leave_buffers_to_the_others(void **state)
{
    (void)state;
    int stalled[30];
    for (unsigned k = 0; k < 30; k++)
        stalled[k] = client_stalled();
    fixture_sync();
    int fd = client_ready(SIMPLE);
    for (unsigned i = 0; i < 50; i++) {
        uint32_t len = i % 2 ? 1 << 20 : 4096;
        command_send(fd, SIMPLE, NBDX_CMD_READ, 0, i, 0, len);
        simple_expect(fd, i, 0);
        client_recv(fd, data, len);
        memset(data, (int)i, len);
        command_send(fd, SIMPLE, NBDX_CMD_WRITE, 0, i, 4096, len);
        client_send(fd, data, len);
        simple_expect(fd, i, 0);
        fixture_sync();
        assert_memory_equal(fx.volume.data + 4096, data, len);
    }
    client_leave(fd, SIMPLE);
    assert_int_equal(fx.serving, 30);
    for (unsigned k = 0; k < 30; k++)
        close(stalled[k]);
}

/* Invariant 5: an answer that may not be cut needs more than a guarantee. */
static void who_stalls_with_buffers_that_others_wait_for_is_hung_up(void **state)
{
    (void)state;
    int stalled[10];
    fx.limits.stall_ms = 50;
    for (unsigned k = 0; k < 10; k++)
        stalled[k] = client_stalled();
    fixture_sync();
    int patient = client_ready(STRUCTURED);
    for (unsigned i = 0; i < 20; i++) {
        command_send(patient, STRUCTURED, NBDX_CMD_READ, NBDX_CMD_FLAG_DF, i, 0, 1 << 20);
        (void)chunk_expect(patient, STRUCTURED, NBDX_REPLY_TYPE_OFFSET_DATA, 8);
        client_recv(patient, data, 1 << 20);
    }
    client_leave(patient, STRUCTURED);
    assert_true(fx.serving < 10);
    for (unsigned k = 0; k < 10; k++)
        close(stalled[k]);
}

/* ---- servers ------------------------------------------------------------------------------- */

struct server_call {
    struct nbdx_server_options options;
    struct nbdx_server *server;
    struct vp_error err;
    unsigned deadline_ms;
    struct nbdx_server_stats stats;
    struct nbdx_figures figures;
    struct nbdx_connection_info info[4];
    unsigned count;
};
static struct server_call sc;

static int start_here(void *arg)
{
    (void)arg;
    return nbdx_server_start(&sc.options, &sc.server, &sc.err);
}
static int stop_here(void *arg)
{
    (void)arg;
    nbdx_server_stop(sc.server, sc.deadline_ms);
    return 0;
}
static int stats_here(void *arg)
{
    (void)arg;
    nbdx_server_stats(sc.server, &sc.stats, sc.info, 4, &sc.count);
    figure_histograms_free(&nbdx_figure_set, &sc.figures);
    sc.figures = (struct nbdx_figures){0};
    if (!figure_histograms_new(&nbdx_figure_set, &sc.figures))
        return VP_E_NO_MEMORY;
    nbdx_server_figures(sc.server, &sc.figures);
    return 0;
}

static int server_up(const char *address)
{
    memset(&sc, 0, sizeof(sc));
    assert_int_equal(nbdx_address_parse(address, &sc.options.address, &sc.err), 0);
    sc.options.exports = fx.exports;
    sc.options.export_count = fx.export_count;
    sc.options.limits = fx.limits;
    return reactor_call_blocking(fx.reactor, start_here, NULL);
}
static void server_down(unsigned deadline_ms)
{
    sc.deadline_ms = deadline_ms;
    assert_int_equal(reactor_call_blocking(fx.reactor, stop_here, NULL), 0);
    figure_histograms_free(&nbdx_figure_set, &sc.figures);
}
static void *stopper_main(void *arg)
{
    server_down(60000);
    return arg;
}
static void server_look(void)
{
    assert_int_equal(reactor_call_blocking(fx.reactor, stats_here, NULL), 0);
}

static char socket_path[64];

static int socket_connect(void)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    struct timeval t = {.tv_sec = PATIENCE_S};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    snprintf(a.sun_path, sizeof(a.sun_path), "%s", socket_path);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof(t)), 0);
    if (connect(fd, (struct sockaddr *)&a, sizeof(a))) {
        close(fd);
        return -1;
    }
    return fd;
}

static int unix_server_up(void)
{
    char address[80];
    snprintf(socket_path, sizeof(socket_path), "/tmp/nbd-test-%d.sock", (int)getpid());
    snprintf(address, sizeof(address), "unix:%s", socket_path);
    return server_up(address);
}

/* The shortest negotiation. */
static int ready_for(const char *name)
{
    char buf[32];
    struct be32 flags = be32_make(3);
    int fd = socket_connect();
    assert_true(fd >= 0);
    client_recv(fd, buf, 18);
    client_send(fd, &flags, 4);
    option_send(fd, NBDX_OPT_EXPORT_NAME, name, (uint32_t)strlen(name));
    client_recv(fd, buf, 10);
    return fd;
}

static int socket_ready(void)
{
    return ready_for("p/v");
}

static void a_unix_socket_has_mode_0660_and_goes_away_with_its_server(void **state)
{
    (void)state;
    struct stat st;
    char uri[128];
    assert_int_equal(unix_server_up(), 0);
    assert_int_equal(stat(socket_path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0660);
    assert_true(nbdx_server_uri(sc.server, 0, uri, sizeof(uri)));
    assert_memory_equal(uri, "nbd+unix:///p/v?socket=/tmp/nbd-test-", 37);
    server_down(0);
    assert_int_equal(stat(socket_path, &st), -1);
}

static void a_second_server_on_the_same_socket_is_refused(void **state)
{
    (void)state;
    assert_int_equal(unix_server_up(), 0);
    struct server_call first = sc;
    assert_int_equal(unix_server_up(), VP_E_EXISTS);
    sc = first;
    server_down(0);
}

static void a_server_that_stops_answers_what_started_and_refuses_the_rest(void **state)
{
    (void)state;
    pthread_t stopper;
    assert_int_equal(unix_server_up(), 0);
    int fd = socket_ready();
    fx.volume.hold = true;
    command_send(fd, SIMPLE, NBDX_CMD_WRITE, 0, 1, 0, 512);
    client_send(fd, data, 512);
    wait_for(fx.volume.held == 1);
    assert_int_equal(pthread_create(&stopper, NULL, stopper_main, NULL), 0);
    wait_for(fx.volume.cancelled == 1); /* it waited for space: cancelled */
    simple_expect(fd, 1, NBDX_ESHUTDOWN);
    command_send(fd, SIMPLE, NBDX_CMD_WRITE, 0, 2, 0, 512);
    client_send(fd, data, 512);
    simple_expect(fd, 2, NBDX_ESHUTDOWN);
    assert_int_equal(socket_connect(), -1);
    client_leave(fd, SIMPLE);
    pthread_join(stopper, NULL);
    assert_int_equal(fx.volume.writes, 1);
}

static void clients_that_stay_are_cut_at_the_deadline(void **state)
{
    (void)state;
    assert_int_equal(unix_server_up(), 0);
    int a = socket_ready(), b = socket_connect();
    server_down(20);
    client_expect_end(a);
    close(b);
}

static void a_connection_over_the_limit_is_closed_at_once(void **state)
{
    (void)state;
    fx.limits.connections = 2;
    assert_int_equal(unix_server_up(), 0);
    int a = socket_ready(), b = socket_ready();
    client_expect_end(socket_connect());
    server_look();
    assert_int_equal(sc.stats.connections, 2);
    assert_int_equal(sc.stats.refused, 1);
    client_leave(a, SIMPLE);
    wait_for((server_look(), sc.stats.connections) == 1);
    client_leave(socket_ready(), SIMPLE);
    client_leave(b, SIMPLE);
    server_down(0);
}

static void figures_name_the_peer_and_count_requests(void **state)
{
    (void)state;
    assert_int_equal(unix_server_up(), 0);
    int fd = socket_ready();
    command_send(fd, SIMPLE, NBDX_CMD_READ, 0, 1, 0, 4096);
    simple_expect(fd, 1, 0);
    client_recv(fd, data, 4096);
    command_send(fd, SIMPLE, NBDX_CMD_READ, 0, 2, FIXTURE_SIZE, 4096);
    simple_expect(fd, 2, NBDX_EINVAL);
    server_look();
    assert_int_equal(sc.count, 1);
    assert_int_equal(sc.info[0].pid, getpid());
    assert_int_equal(sc.info[0].uid, getuid());
    assert_string_equal(sc.info[0].export_name, "p/v");
    assert_int_equal(figure_get(&sc.figures.requests), 2);
    assert_int_equal(figure_get(&sc.figures.bytes_read), 4096);
    assert_int_equal(figure_get(&sc.figures.errors), 1);
    client_leave(fd, SIMPLE);
    wait_for((server_look(), sc.stats.connections) == 0);
    assert_int_equal(figure_get(&sc.figures.requests), 2); /* of connections that are no more */
    assert_int_equal(histogram_count(sc.figures.read_latency), 2);
    server_down(0);
}

/* A request that its client sees answered after `ns` or more. */
static void request_takes(int fd, unsigned command, uint64_t cookie, uint64_t ns)
{
    fx.volume.hold = true;
    command_send(fd, SIMPLE, command, 0, cookie, 0, command == NBDX_CMD_FLUSH ? 0 : 4096);
    if (command == NBDX_CMD_WRITE)
        client_send(fd, data, 4096);
    wait_for(fx.volume.held == 1);
    uint64_t until = reactor_now_ns() + ns;
    wait_for(reactor_now_ns() >= until);
    assert_int_equal(reactor_call_blocking(fx.reactor, fake_release_here, &fx.volume), 0);
    simple_expect(fd, cookie, 0);
    if (command == NBDX_CMD_READ)
        client_recv(fd, data, 4096);
}

static void latencies_are_what_the_client_waits_for_each_kind_of_request(void **state)
{
    (void)state;
    assert_int_equal(unix_server_up(), 0);
    int fd = socket_ready();
    request_takes(fd, NBDX_CMD_READ, 1, 1000000);
    request_takes(fd, NBDX_CMD_WRITE, 2, 2000000);
    request_takes(fd, NBDX_CMD_FLUSH, 3, 3000000);
    request_takes(fd, NBDX_CMD_TRIM, 4, 4000000);
    request_takes(fd, NBDX_CMD_WRITE_ZEROES, 5, 5000000);
    client_leave(fd, SIMPLE);
    wait_for((server_look(), sc.stats.connections) == 0); /* all have been counted */
    const struct nbdx_figures *f = &sc.figures;
    assert_int_equal(histogram_count(f->read_latency), 1);
    assert_int_equal(histogram_count(f->write_latency), 1);
    assert_int_equal(histogram_count(f->flush_latency), 1);
    assert_int_equal(histogram_count(f->discard_latency), 2);
    assert_int_equal(histogram_count(f->status_latency), 0);
    assert_true(histogram_permille_ns(f->read_latency, 0) >= 1000000);
    assert_true(histogram_permille_ns(f->write_latency, 0) >= 2000000);
    assert_true(histogram_permille_ns(f->flush_latency, 0) >= 3000000);
    assert_true(histogram_permille_ns(f->discard_latency, 0) >= 4000000);
    server_down(0);
}

static void tcp_is_served_on_a_free_port_of_the_loopback(void **state)
{
    (void)state;
    char uri[128], want[64];
    assert_int_equal(server_up("tcp::0"), 0);
    unsigned port = nbdx_server_port(sc.server);
    assert_true(port > 0);
    snprintf(want, sizeof(want), "nbd://127.0.0.1:%u/p/v", port);
    assert_true(nbdx_server_uri(sc.server, 0, uri, sizeof(uri)));
    assert_string_equal(uri, want);
    server_down(0);
}

/* ---- names --------------------------------------------------------------------------------- */

static const char *const former[] = {"p/v", "q/v"};

static int rename_here(void *arg)
{
    return nbdx_server_rename(sc.server, 0, arg, former, 2);
}

/* "" where the server hangs up on who asks for `name`. */
static const char *name_shown_to(const char *name, char out[static 64])
{
    struct be32 flags = be32_make(3);
    char buf[256];
    int fd = socket_connect();
    client_recv(fd, buf, 18);
    client_send(fd, &flags, 4);
    struct be32 len = be32_make((uint32_t)strlen(name));
    struct be16 one = be16_make(1), which = be16_make(NBDX_INFO_NAME);
    memcpy(buf, &len, 4);
    memcpy(buf + 4, name, strlen(name));
    memcpy(buf + 4 + strlen(name), &one, 2);
    memcpy(buf + 6 + strlen(name), &which, 2);
    option_send(fd, NBDX_OPT_INFO, buf, (uint32_t)strlen(name) + 8);
    struct nbdx_option_reply r;
    client_recv(fd, &r, sizeof(r));
    size_t n = 2;
    if (be32_get(r.type) == NBDX_REP_INFO) { /* EXPORT, then NAME */
        client_recv(fd, buf, be32_get(r.length));
        n = option_expect(fd, NBDX_OPT_INFO, NBDX_REP_INFO, buf);
    }
    snprintf(out, 64, "%.*s", (int)(n - 2), buf + 2);
    close(fd);
    return out;
}

static void an_export_that_is_renamed_is_found_by_all_its_names(void **state)
{
    (void)state;
    char name[64], uri[128];
    assert_int_equal(unix_server_up(), 0);
    int early = socket_ready(), shaking = socket_connect();
    assert_string_equal(name_shown_to("p/v", name), "p/v");
    assert_string_equal(name_shown_to("r/w", name), "");
    char now[] = "r/w";
    assert_int_equal(reactor_call_blocking(fx.reactor, rename_here, now), 0);
    assert_string_equal(name_shown_to("r/w", name), "r/w");
    assert_string_equal(name_shown_to("p/v", name), "r/w");
    assert_string_equal(name_shown_to("q/v", name), "r/w");
    assert_string_equal(name_shown_to("", name), "r/w");
    assert_string_equal(name_shown_to("q/w", name), "");
    assert_string_equal(name_shown_to("q/vv", name), "");
    assert_true(nbdx_server_uri(sc.server, 0, uri, sizeof(uri)));
    assert_memory_equal(uri, "nbd+unix:///r/w?", 16);
    command_send(early, SIMPLE, NBDX_CMD_FLUSH, 0, 9, 0, 0);
    simple_expect(early, 9, 0);
    client_leave(early, SIMPLE);
    close(shaking);
    server_down(0);
}

static void connections_move_to_the_reactor_of_their_volume(void **state)
{
    (void)state;
    struct reactor_thread *second = reactor_thread_start(NULL);
    fx.other.reactor = reactor_thread_reactor(second);
    fx.export_count = 2;
    fx.limits.connections = 4;
    assert_int_equal(unix_server_up(), 0);
    int fd[4];
    for (unsigned k = 0; k < 4; k++)
        fd[k] = ready_for(k & 1 ? "p/other" : "p/v");
    for (unsigned i = 0; i < 200; i++) {
        int at = fd[i & 3];
        command_send(at, SIMPLE, NBDX_CMD_READ, 0, i, 0, 4096);
        simple_expect(at, i, 0);
        client_recv(at, data, 4096);
        if (i % 50 == 0)
            server_look();
    }
    server_look();
    assert_int_equal(sc.count, 4);
    assert_int_equal(figure_get(&sc.figures.requests), 200);
    client_leave(fd[1], SIMPLE);
    server_down(20); /* one has left, three are cut */
    client_expect_end(fd[0]);
    client_expect_end(fd[2]);
    client_expect_end(fd[3]);
    reactor_thread_join(second);
}

static void addresses_are_parsed_or_refused(void **state)
{
    (void)state;
    struct nbdx_address a;
    struct vp_error err;
    assert_int_equal(nbdx_address_parse("tcp:[::1]:10809", &a, &err), 0);
    assert_string_equal(a.host, "::1");
    assert_string_equal(a.port, "10809");
    assert_int_equal(nbdx_address_parse("tcp:host:1", &a, &err), 0);
    assert_string_equal(a.host, "host");
    static const char *const bad[] = {
        "",          "unix:",         "/path",          "tcp:",      "tcp:host",
        "tcp:host:", "tcp:host:port", "tcp:host:65536", "tcp:1:2:3", "tcp:h:123456"};
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(nbdx_address_parse(bad[i], &a, &err), VP_E_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        nbd_test(writes_queued_by_a_client_that_vanished_are_dropped),
        nbd_test(a_request_that_waits_for_space_survives_another_clients_end),
        nbd_test(requests_wait_at_a_closed_gate_without_a_buffer_and_go_on),
        nbd_test(a_client_that_vanishes_waits_at_no_gate),
        nbd_test(a_request_that_finds_no_space_after_the_hangup_ends_too),
        nbd_test(a_write_whose_payload_is_cut_at_any_byte_does_not_happen),
        nbd_test(a_client_that_never_reads_is_stopped_and_harms_nobody),
        nbd_test(clients_that_stall_leave_buffers_to_the_others),
        nbd_test(who_stalls_with_buffers_that_others_wait_for_is_hung_up),
        nbd_test(an_export_that_is_renamed_is_found_by_all_its_names),
        nbd_test(connections_move_to_the_reactor_of_their_volume),
        nbd_test(a_unix_socket_has_mode_0660_and_goes_away_with_its_server),
        nbd_test(a_second_server_on_the_same_socket_is_refused),
        nbd_test(a_server_that_stops_answers_what_started_and_refuses_the_rest),
        nbd_test(clients_that_stay_are_cut_at_the_deadline),
        nbd_test(a_connection_over_the_limit_is_closed_at_once),
        nbd_test(figures_name_the_peer_and_count_requests),
        nbd_test(latencies_are_what_the_client_waits_for_each_kind_of_request),
        nbd_test(tcp_is_served_on_a_free_port_of_the_loopback),
        nbd_test(addresses_are_parsed_or_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

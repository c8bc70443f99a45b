/*
 * A light NBD load generator: one thread, non-blocking sockets, simple replies, payload neither
 * looked at nor copied twice, so that the server is what is measured. Prints a line of JSON at its
 * end, and at each SIGUSR1 one about the time since the line before.
 *
 *   nbd_load --unix PATH [--export NAME] [--rw read|write|randread|randwrite|randrw] [--mix READ%]
 *            [--bs BYTES] [--depth N] [--connections N] [--runtime SECONDS] [--size BYTES] [--once]
 *            [--rate REQUESTS] [--follows]
 *
 * --depth is per connection. --once touches each block at most once and ends when all are done.
 * --rate sends so many requests a second (one connection). A latency then counts from the moment
 * at which the request was due, so a server that stands still is not measured too rarely.
 * --follows: the volume may leave. The first answer that says so (ESHUTDOWN), and the end of the
 * connection, are the end of the run and no error.
 */
#include "base/bytes.h"
#include "nbd/nbd_format.h"

#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define CONNECTIONS_MAX 64
#define DEPTH_MAX       1024
#define RECV_BYTES      (1U << 20)

static struct {
    const char *path, *export;
    bool random, once, follows;
    unsigned read_percent;
    uint32_t bs;
    unsigned depth, connections;
    double runtime;
    unsigned rate; /* requests a second; 0: as fast as they are answered */
    uint64_t size, seed;
} opt = {.export = "",
         .random = true,
         .read_percent = 100,
         .bs = 4096,
         .depth = 32,
         .connections = 1,
         .runtime = 5,
         .seed = 1};

struct slot {
    uint64_t start_ns;
    bool is_read;
    struct nbdx_request_compact header;
};

struct connection {
    int fd;
    struct slot slot[DEPTH_MAX];
    unsigned in_flight;
    unsigned idle[DEPTH_MAX], idle_count; /* --rate: slots without a request */
    /* What is to be sent: pairs of header and payload; `sent` counts bytes of the first. */
    struct iovec out[2 * DEPTH_MAX];
    unsigned out_head, out_tail;
    /* What comes: a header, then so much payload. */
    unsigned char header[sizeof(struct nbdx_simple_reply)];
    unsigned header_have;
    uint64_t payload_left;
    unsigned current; /* slot of that payload */
};

static struct connection connection[CONNECTIONS_MAX];
static unsigned char *payload, *sink;
static uint64_t blocks, next_block, issued, done_requests, errors, rng;
static bool ending, has_left;
static volatile sig_atomic_t window_ends;

/* Latencies: 64 octaves of 32 steps. */
static uint64_t histogram[64 * 32], longest_ns;

static void die(const char *what)
{
    fprintf(stderr, "nbd_load: %s%s%s\n", what, errno ? ": " : "", errno ? strerror(errno) : "");
    exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
}

static void histogram_add(uint64_t ns)
{
    longest_ns = max_u64(longest_ns, ns);
    unsigned octave = 63 - (unsigned)__builtin_clzll(ns | 32);
    histogram[octave * 32 + ((ns >> (octave - 5)) & 31)]++;
}

static double histogram_us(double part)
{
    uint64_t want = (uint64_t)(part * (double)done_requests), seen = 0;
    for (unsigned i = 5 * 32; i < 64 * 32; i++) {
        seen += histogram[i];
        if (seen > want)
            return (double)((UINT64_C(32) + i % 32) << (i / 32 - 5)) / 1000;
    }
    return 0;
}

/* ---- which block ------------------------------------------------------------------------------
 */

static uint64_t random_next(void)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return rng;
}

/* A permutation of the blocks: steps of a number without a common divisor. */
static uint64_t once_stride;

static void once_init(void)
{
    once_stride = blocks * 618 / 1000 | 1;
    for (;; once_stride += 2) {
        uint64_t a = blocks, b = once_stride;
        while (b) {
            uint64_t t = a % b;
            a = b;
            b = t;
        }
        if (a == 1)
            return;
    }
}

static uint64_t choose_block(void)
{
    if (opt.once && opt.random) {
        next_block = (next_block + once_stride) % blocks;
        return next_block;
    }
    return opt.random ? random_next() % blocks : next_block++ % blocks;
}

/* ---- sending -----------------------------------------------------------------------------------
 */

static void request_issue(struct connection *c, unsigned n, uint64_t now)
{
    struct slot *s = &c->slot[n];
    s->start_ns = now;
    s->is_read =
        opt.read_percent == 100 || (opt.read_percent > 0 && random_next() % 100 < opt.read_percent);
    s->header =
        (struct nbdx_request_compact){be32_make(NBDX_REQUEST_MAGIC),
                                      be16_make(0),
                                      be16_make(s->is_read ? NBDX_CMD_READ : NBDX_CMD_WRITE),
                                      be64_make(n),
                                      be64_make(choose_block() * opt.bs),
                                      be32_make(opt.bs)};
    c->out[c->out_tail++] = (struct iovec){&s->header, sizeof(s->header)};
    if (!s->is_read)
        c->out[c->out_tail++] = (struct iovec){payload + (issued % 16) * 64, opt.bs};
    c->in_flight++;
    issued++;
    if (opt.once && issued >= blocks)
        ending = true;
}

static void send_some(struct connection *c)
{
    while (c->out_head < c->out_tail) {
        unsigned n = c->out_tail - c->out_head;
        struct msghdr m = {.msg_iov = c->out + c->out_head, .msg_iovlen = n < 512 ? n : 512};
        ssize_t sent = sendmsg(c->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno == EAGAIN || errno == EINTR)
                return;
            if (opt.follows) {
                has_left = true;
                return;
            }
            die("send");
        }
        while (sent > 0) {
            struct iovec *v = &c->out[c->out_head];
            size_t step = (size_t)sent < v->iov_len ? (size_t)sent : v->iov_len;
            v->iov_base = (char *)v->iov_base + step;
            v->iov_len -= step;
            sent -= (ssize_t)step;
            if (!v->iov_len)
                c->out_head++;
        }
    }
    c->out_head = c->out_tail = 0;
}

/* Makes room behind what is still to be sent. */
static void out_compact(struct connection *c)
{
    if (!c->out_head)
        return;
    memmove(c->out, c->out + c->out_head, (c->out_tail - c->out_head) * sizeof(c->out[0]));
    c->out_tail -= c->out_head;
    c->out_head = 0;
}

/* ---- receiving ---------------------------------------------------------------------------------
 */

static void request_done(struct connection *c, unsigned n, uint64_t now)
{
    histogram_add(now - c->slot[n].start_ns);
    done_requests++;
    c->in_flight--;
    if (opt.rate)
        c->idle[c->idle_count++] = n;
    else if (!ending)
        request_issue(c, n, now);
}

static void reply_begin(struct connection *c, uint64_t now)
{
    struct nbdx_simple_reply r;
    memcpy(&r, c->header, sizeof(r));
    c->header_have = 0;
    c->current = (unsigned)be64_get(r.cookie);
    errno = 0;
    if (be32_get(r.magic) != NBDX_SIMPLE_REPLY_MAGIC || c->current >= opt.depth)
        die("the server sent garbage");
    if (opt.follows && be32_get(r.error) == NBDX_ESHUTDOWN)
        has_left = true;
    else if (be32_get(r.error))
        errors++;
    else if (c->slot[c->current].is_read)
        c->payload_left = opt.bs;
    if (!c->payload_left && !has_left)
        request_done(c, c->current, now);
}

static void consume(struct connection *c, const unsigned char *p, size_t len, uint64_t now)
{
    while (len && !has_left) {
        if (c->payload_left) {
            size_t step = min_u64(len, c->payload_left);
            c->payload_left -= step;
            p += step;
            len -= step;
            if (!c->payload_left)
                request_done(c, c->current, now);
            continue;
        }
        size_t step = min_u64(len, sizeof(c->header) - c->header_have);
        memcpy(c->header + c->header_have, p, step);
        c->header_have += (unsigned)step;
        p += step;
        len -= step;
        if (c->header_have == sizeof(c->header))
            reply_begin(c, now);
    }
}

static void receive_some(struct connection *c)
{
    ssize_t n = recv(c->fd, sink, RECV_BYTES, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    errno = n ? errno : 0;
    if (n <= 0 && opt.follows)
        has_left = true;
    else if (n <= 0)
        die("the server hung up");
    if (has_left)
        return;
    out_compact(c);
    consume(c, sink, (size_t)n, now_ns());
    if (!has_left)
        send_some(c);
}

/* ---- connecting ---------------------------------------------------------------------------------
 */

static void exchange(int fd, const void *out, size_t out_len, void *in, size_t in_len)
{
    if (out_len && send(fd, out, out_len, MSG_NOSIGNAL) != (ssize_t)out_len)
        die("handshake");
    if (in_len && recv(fd, in, in_len, MSG_WAITALL) != (ssize_t)in_len)
        die("handshake: the server hung up (wrong export?)");
}

/* The shortest handshake there is: EXPORT_NAME. Returns the size. */
static uint64_t handshake(int fd)
{
    struct nbdx_greeting g;
    struct nbdx_export_name_reply r;
    struct be32 flags = be32_make(NBDX_FLAG_FIXED_NEWSTYLE | NBDX_FLAG_NO_ZEROES);
    size_t len = strlen(opt.export);
    struct nbdx_option o = {be64_make(NBDX_OPTION_MAGIC), be32_make(NBDX_OPT_EXPORT_NAME),
                            be32_make((uint32_t)len)};
    exchange(fd, NULL, 0, &g, sizeof(g));
    exchange(fd, &flags, sizeof(flags), NULL, 0);
    exchange(fd, &o, sizeof(o), NULL, 0);
    exchange(fd, opt.export, len, &r, sizeof(r));
    return be64_get(r.size);
}

static uint64_t connect_one(struct connection *c)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    if (strlen(opt.path) >= sizeof(a.sun_path))
        die("the socket path is too long");
    memcpy(a.sun_path, opt.path, strlen(opt.path) + 1);
    c->fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&a, sizeof(a)))
        die(opt.path);
    return handshake(c->fd);
}

/* ---- main ---------------------------------------------------------------------------------- */

static bool parse_rw(const char *text)
{
    static const struct {
        const char *name;
        bool random;
        unsigned read_percent;
    } kinds[] = {{"read", false, 100},
                 {"write", false, 0},
                 {"randread", true, 100},
                 {"randwrite", true, 0},
                 {"randrw", true, 50}};
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (strcmp(text, kinds[i].name))
            continue;
        opt.random = kinds[i].random;
        opt.read_percent = kinds[i].read_percent;
        return true;
    }
    return false;
}

static unsigned parse_number(const char *text, unsigned max)
{
    uint64_t v;
    if (!bytes_parse_size(text, &v) || v < 1 || v > max) {
        fprintf(stderr, "nbd_load: %s is not a number from 1 to %u\n", text, max);
        exit(2);
    }
    return (unsigned)v;
}

static void parse_options(int argc, char **argv)
{
    static const struct option longs[] = {{"unix", 1, NULL, 'u'},    {"export", 1, NULL, 'e'},
                                          {"rw", 1, NULL, 'w'},      {"mix", 1, NULL, 'm'},
                                          {"bs", 1, NULL, 'b'},      {"depth", 1, NULL, 'd'},
                                          {"runtime", 1, NULL, 't'}, {"connections", 1, NULL, 'c'},
                                          {"size", 1, NULL, 's'},    {"once", 0, NULL, 'o'},
                                          {"seed", 1, NULL, 'S'},    {"rate", 1, NULL, 'r'},
                                          {"follows", 0, NULL, 'f'}, {0}};
    int ch;
    bool ok = true;
    while (ok && (ch = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        switch (ch) {
        case 'u':
            opt.path = optarg;
            break;
        case 'e':
            opt.export = optarg;
            break;
        case 'w':
            ok = parse_rw(optarg);
            break;
        case 'm':
            opt.read_percent = parse_number(optarg, 100);
            break;
        case 'b':
            opt.bs = parse_number(optarg, NBDX_BLOCK_MAX);
            break;
        case 'd':
            opt.depth = parse_number(optarg, DEPTH_MAX);
            break;
        case 'c':
            opt.connections = parse_number(optarg, CONNECTIONS_MAX);
            break;
        case 't':
            opt.runtime = (double)parse_number(optarg, 1000000);
            break;
        case 's':
            ok = bytes_parse_size(optarg, &opt.size);
            break;
        case 'S':
            opt.seed = parse_number(optarg, UINT32_MAX);
            break;
        case 'r':
            opt.rate = parse_number(optarg, 10000000);
            break;
        case 'f':
            opt.follows = true;
            break;
        case 'o':
            opt.once = true;
            break;
        default:
            ok = false;
        }
    }
    if (!ok || !opt.path || optind != argc || (opt.rate && opt.connections > 1)) {
        fprintf(stderr, "nbd_load: see the head of tests/bench/nbd_load.c for the options\n");
        exit(2);
    }
}

static void prepare(void)
{
    uint64_t size = UINT64_MAX;
    for (unsigned i = 0; i < opt.connections; i++)
        size = min_u64(size, connect_one(&connection[i]));
    if (opt.size)
        size = min_u64(size, opt.size);
    blocks = size / opt.bs;
    errno = 0;
    if (!blocks)
        die("the export is smaller than a block");
    payload = malloc(opt.bs + 1024);
    sink = malloc(RECV_BYTES);
    if (!payload || !sink)
        die("memory");
    rng = opt.seed * UINT64_C(0x9e3779b97f4a7c15);
    for (size_t i = 0; i < opt.bs + 1024; i++)
        payload[i] = (unsigned char)random_next();
    once_init();
}

/* ---- figures ------------------------------------------------------------------------------- */

static void print_figures(double seconds)
{
    printf("{\"requests\": %lu, \"errors\": %lu, \"seconds\": %.3f, \"iops\": %.0f, "
           "\"mb_s\": %.1f, \"p50_us\": %.1f, \"p99_us\": %.1f, \"p999_us\": %.1f, "
           "\"longest_us\": %.1f}\n",
           done_requests, errors, seconds, (double)done_requests / seconds,
           (double)done_requests * opt.bs / seconds / 1e6, histogram_us(0.5), histogram_us(0.99),
           histogram_us(0.999), (double)longest_ns / 1000);
    (void)fflush(stdout);
}

static void window_end(int number)
{
    (void)number;
    window_ends = 1;
}

/* The line of a window, and the next one begins. */
static void window_print(uint64_t *begin)
{
    uint64_t now = now_ns();
    window_ends = 0;
    print_figures((double)(now - *begin) / 1e9);
    *begin = now;
    memset(histogram, 0, sizeof(histogram));
    done_requests = longest_ns = 0;
}

/* ---- the load ------------------------------------------------------------------------------ */

/* --rate: what is due is sent, as far as there are slots. Returns the milliseconds to the next. */
static int issue_due(struct connection *c, uint64_t begin)
{
    uint64_t now = now_ns(), step = UINT64_C(1000000000) / opt.rate;
    while (!ending && c->idle_count && begin + issued * step <= now)
        request_issue(c, c->idle[--c->idle_count], begin + issued * step);
    send_some(c);
    if (!c->idle_count || ending)
        return 30000;
    uint64_t due = begin + issued * step;
    return due > now + 1000000 ? (int)((due - now) / 1000000) : 0;
}

static void load_begin(uint64_t begin)
{
    for (unsigned i = 0; i < opt.connections; i++) {
        struct connection *c = &connection[i];
        for (unsigned n = 0; n < opt.depth && !ending; n++)
            if (opt.rate)
                c->idle[c->idle_count++] = n;
            else
                request_issue(c, n, begin);
        send_some(c);
    }
}

/* Until the time is over and nothing is in flight. Returns how long the last window took. */
static double run(void)
{
    struct pollfd p[CONNECTIONS_MAX];
    uint64_t begin = now_ns(), end = begin + (uint64_t)(opt.runtime * 1e9), window = begin;
    load_begin(begin);
    for (bool busy = true; busy && !has_left;) {
        int wait_ms = opt.rate ? issue_due(&connection[0], begin) : 30000;
        busy = opt.rate && !ending;
        for (unsigned i = 0; i < opt.connections; i++) {
            struct connection *c = &connection[i];
            bool more = c->out_head < c->out_tail;
            p[i] = (struct pollfd){c->fd, (short)(POLLIN | (more ? POLLOUT : 0)), 0};
            busy = busy || c->in_flight;
        }
        if (!busy)
            break;
        int ready = poll(p, opt.connections, wait_ms);
        if (ready == 0 && wait_ms == 30000)
            die("no answer for 30 s");
        if (window_ends)
            window_print(&window);
        for (unsigned i = 0; i < opt.connections && ready > 0 && !has_left; i++) {
            if (p[i].revents & POLLOUT)
                send_some(&connection[i]);
            if (p[i].revents & (POLLIN | POLLHUP))
                receive_some(&connection[i]);
        }
        ending = ending || now_ns() >= end;
    }
    return (double)(now_ns() - window) / 1e9;
}

int main(int argc, char **argv)
{
    struct sigaction on = {.sa_handler = window_end, .sa_flags = SA_RESTART};
    (void)sigaction(SIGUSR1, &on, NULL);
    parse_options(argc, argv);
    prepare();
    print_figures(run());
    return errors ? 1 : 0;
}

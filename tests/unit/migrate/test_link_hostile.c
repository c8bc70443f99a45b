/*
 * An NBD connection of a move to servers that are dead, hostile or odd: a coroutine that sends what
 * the test says. All in one reactor.
 */
#include "migrate/link.h"

#include "io/net.h"
#include "nbd/nbd_format.h"
#include "tests/lib/on_reactor.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

#define SIZE  ((uint64_t)64 << 20)
#define BLOCK 4096U
#define MS    1000000ULL
#define FLAGS                                                                                      \
    (NBDX_FLAG_HAS_FLAGS | NBDX_FLAG_SEND_FLUSH | NBDX_FLAG_SEND_FUA | NBDX_FLAG_SEND_WRITE_ZEROES)

/* ---- the server ---------------------------------------------------------------------------- */

static struct server {
    int fd;
    bool running;
    long budget, sent; /* so many bytes it sends, and hangs up */
    uint64_t size;
    uint16_t flags;       /* 0: it says nothing about the export */
    uint32_t least, most; /* 0: it says nothing about sizes */
    uint32_t refusal;     /* what it answers to GO */
    void (*begin)(void);  /* instead of the handshake */
    void (*then)(void);   /* after it */
} server;

/* False: it has hung up. */
static bool say(const void *data, size_t len)
{
    size_t may = server.budget < (long)len ? (size_t)server.budget : len;
    server.budget -= (long)may;
    server.sent += (long)may;
    bool ok = io_send_all(server.fd, data, may, reactor_now_ns() + 5000 * MS) == 0 && may == len;
    if (!ok)
        io_shutdown(server.fd);
    return ok;
}

static bool hear(void *to, size_t len)
{
    return io_recv_all(server.fd, to, len, reactor_now_ns() + 5000 * MS) == 0;
}

static bool answer_option(uint32_t option, uint32_t type, const void *data, size_t len)
{
    struct nbdx_option_reply r = {be64_make(NBDX_OPTION_REPLY_MAGIC), be32_make(option),
                                  be32_make(type), be32_make((uint32_t)len)};
    return say(&r, sizeof(r)) && (len == 0 || say(data, len));
}

static bool answer_go(void)
{
    struct nbdx_info_export e = {be16_make(NBDX_INFO_EXPORT), be64_make(server.size),
                                 be16_make(server.flags)};
    struct nbdx_info_block_size b = {be16_make(NBDX_INFO_BLOCK_SIZE), be32_make(server.least),
                                     be32_make(server.least < 4096 ? 4096 : server.least),
                                     be32_make(server.most)};
    if (server.refusal)
        return answer_option(NBDX_OPT_GO, server.refusal, NULL, 0);
    return (!server.flags || answer_option(NBDX_OPT_GO, NBDX_REP_INFO, &e, sizeof(e))) &&
           (!server.most || answer_option(NBDX_OPT_GO, NBDX_REP_INFO, &b, sizeof(b))) &&
           answer_option(NBDX_OPT_GO, NBDX_REP_ACK, NULL, 0);
}

/* Until transmission. */
static bool handshake(void)
{
    struct nbdx_greeting g = {be64_make(NBDX_MAGIC), be64_make(NBDX_OPTION_MAGIC), be16_make(3)};
    struct be32 flags;
    if (!say(&g, sizeof(g)) || !hear(&flags, sizeof(flags)))
        return false;
    for (;;) {
        struct nbdx_option o;
        char data[8192];
        if (!hear(&o, sizeof(o)) || be32_get(o.length) > sizeof(data) ||
            !hear(data, be32_get(o.length)))
            return false;
        uint32_t option = be32_get(o.option);
        if (option == NBDX_OPT_GO)
            return answer_go() && !server.refusal;
        uint32_t type = option == NBDX_OPT_STRUCTURED_REPLY ? NBDX_REP_ACK : NBDX_REP_ERR_UNSUP;
        if (!answer_option(option, type, NULL, 0))
            return false;
    }
}

static void stay_silent(void)
{
    char sink[256];
    size_t got = 1;
    while (got > 0 && io_recv(server.fd, sink, sizeof(sink), 0, &got) == 0)
        ;
}

static void server_main(void *arg)
{
    (void)arg;
    if (server.begin)
        server.begin();
    else if (handshake() && server.then)
        server.then();
    else if (server.refusal)
        stay_silent(); /* the client says goodbye */
    io_close(server.fd);
    server.running = false;
}

static struct server honest(void)
{
    return (struct server){.budget = 1L << 40, .size = SIZE, .flags = FLAGS};
}

static struct link *connect_to(struct server s, uint64_t deadline_ms, int want, const char *text)
{
    int fd[2];
    struct link *l = NULL;
    struct vp_error err = {0};
    check_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd), 0);
    server = s;
    server.fd = fd[1];
    server.running = true;
    check_ok(co_spawn(server_main, NULL, "fake server"));
    check_equal(link_open(fd[0], "x", reactor_now_ns() + deadline_ms * MS, &l, &err), want);
    check((l != NULL) == (want == 0) && (want == 0) == (err.text[0] == 0));
    if (text && !strstr(err.text, text))
        print_error("%s\n", err.text);
    check(!text || strstr(err.text, text));
    return l;
}

static void server_end(void)
{
    while (server.running)
        check_ok(co_sleep_ns(MS / 10));
}

static void run(void (*body)(void *arg))
{
    on_reactor(NULL, body, NULL);
    assert_checked();
}

/* ---- the handshake ------------------------------------------------------------------------- */

static void hang_up_everywhere(void *arg)
{
    (void)arg;
    struct server s = honest();
    s.then = stay_silent;
    s.least = BLOCK;
    s.most = 1 << 20;
    struct link *l = connect_to(s, 5000, 0, NULL);
    long whole = server.sent;
    link_close(l);
    server_end();
    check(whole > 100);
    for (s.budget = 0; s.budget < whole; s.budget++) {
        link_close(connect_to(s, 5000, VP_E_PEER_LOST, "no NBD connection to the other daemon"));
        server_end();
    }
}

static void hang_up_at_once(void *arg)
{
    (void)arg;
    struct link *l = connect_to(honest(), 5000, 0, NULL);
    server_end();
    check_equal(link_flush(l), VP_E_PEER_LOST);
    check(link_is_lost(l) && link_why_lost(l)[0]);
    link_close(l);
}

static void a_server_that_hangs_up_at_any_byte_is_noticed(void **state)
{
    (void)state;
    run(hang_up_everywhere);
    run(hang_up_at_once);
}

static void be_silent(void *arg)
{
    (void)arg;
    struct server s = honest();
    s.begin = stay_silent;
    uint64_t begin = reactor_now_ns();
    check(!connect_to(s, 30, VP_E_TIMED_OUT, "no answer in time"));
    check(reactor_now_ns() >= begin + 30 * MS);
    server_end();
}

static void a_silent_server_ends_at_the_deadline(void **state)
{
    (void)state;
    run(be_silent);
}

static struct co *opener;

static void open_main(void *arg)
{
    struct server s = honest();
    s.begin = stay_silent;
    opener = co_self();
    check(!connect_to(s, 60000, VP_E_CANCELLED, NULL));
    *(bool *)arg = true;
}

static void cancel_open(void *arg)
{
    (void)arg;
    bool done = false;
    check_ok(co_spawn(open_main, &done, "opener"));
    check_ok(co_sleep_ns(5 * MS));
    check(!done);
    co_cancel(opener);
    while (!done)
        check_ok(co_sleep_ns(MS / 10));
    server_end();
}

static void the_handshake_can_be_cancelled(void **state)
{
    (void)state;
    run(cancel_open);
}

static uint64_t seed;

static void say_garbage(void)
{
    unsigned char bytes[300];
    struct nbdx_greeting g = {be64_make(NBDX_MAGIC), be64_make(NBDX_OPTION_MAGIC), be16_make(3)};
    for (size_t i = 0; i < sizeof(bytes); i++) {
        seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407U;
        bytes[i] = (unsigned char)(seed >> 56);
    }
    size_t begin = seed >> 40 & 1 ? sizeof(g) : 0; /* garbage at once, or behind the greeting */
    memcpy(bytes, &g, begin);
    if (say(bytes, sizeof(bytes)))
        stay_silent();
}

static void garbage(void *arg)
{
    (void)arg;
    struct server s = honest();
    s.begin = say_garbage;
    for (seed = 1; seed < 200; seed++) {
        uint64_t next = seed;
        link_close(connect_to(s, 5000, VP_E_PEER_LOST, "other daemon: "));
        server_end();
        seed = next;
    }
}

static void a_server_that_says_garbage_is_refused(void **state)
{
    (void)state;
    run(garbage);
}

static void limits(void *arg)
{
    (void)arg;
    static const struct {
        uint64_t size;
        uint16_t flags;
        uint32_t least, most, refusal;
        int want;
        const char *text;
    } table[] = {
        {UINT64_C(1) << 63, FLAGS, 0, 0, 0, VP_E_NOT_SUPPORTED, "too large"},
        {SIZE, 0, 0, 0, 0, VP_E_NOT_SUPPORTED, "no size"},
        {SIZE, FLAGS & ~NBDX_FLAG_SEND_FLUSH, 0, 0, 0, VP_E_NOT_SUPPORTED, "lacks FLUSH"},
        {SIZE, FLAGS & ~NBDX_FLAG_SEND_WRITE_ZEROES, 0, 0, 0, VP_E_NOT_SUPPORTED, "WRITE_ZEROES"},
        {SIZE, FLAGS, 65536, 1 << 20, 0, VP_E_NOT_SUPPORTED, "4096 bytes"},
        {SIZE, FLAGS, 0, 0, NBDX_REP_ERR_UNKNOWN, VP_E_NOT_FOUND, "does not know"},
        {SIZE, FLAGS, 0, 0, NBDX_REP_ERR_TLS_REQD, VP_E_NOT_SUPPORTED, "TLS"},
        {SIZE, FLAGS, 0, 0, NBDX_REP_ERR_SHUTDOWN, VP_E_PEER_LOST, "shutting down"},
        {SIZE, FLAGS, 0, 0, NBDX_REP_ERR_POLICY, VP_E_PEER_LOST, "policy"},
        {0, FLAGS, 512, UINT32_MAX, 0, 0, NULL},
    };
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        struct server s = honest();
        s.size = table[i].size;
        s.flags = table[i].flags;
        s.least = table[i].least;
        s.most = table[i].most;
        s.refusal = table[i].refusal;
        s.then = stay_silent;
        link_close(connect_to(s, 5000, table[i].want, table[i].text));
        server_end();
    }
}

static void a_server_that_cannot_take_a_volume_is_refused(void **state)
{
    (void)state;
    run(limits);
}

static bool sleepers_end;

static void sleeper(void *arg)
{
    (void)arg;
    while (!sleepers_end)
        check_ok(co_sleep_ns(MS));
}

/* Takes the last coroutines when the handshake ends. */
static void fill(void)
{
    while (co_spawn(sleeper, NULL, "sleeper") == 0)
        ;
    stay_silent();
}

static void no_coroutine(void *arg)
{
    (void)arg;
    struct server s = honest();
    s.then = fill;
    sleepers_end = false;
    check(!connect_to(s, 5000, VP_E_IO_TOO_MANY_COROUTINES, "no free coroutine"));
    sleepers_end = true;
    server_end();
}

static void a_link_without_a_coroutine_is_not_made(void **state)
{
    (void)state;
    on_reactor(&(struct reactor_config){.max_coroutines = 16}, no_coroutine, NULL);
    assert_checked();
}

/* ---- answers ------------------------------------------------------------------------------- */

static unsigned char data[8 << 20];

static struct nbdx_request_compact next_request(void)
{
    struct nbdx_request_compact r = {0};
    check(hear(&r, sizeof(r)));
    check_equal(be32_get(r.magic), NBDX_REQUEST_MAGIC);
    return r;
}

static void say_simple(uint32_t magic, uint32_t error, uint64_t cookie)
{
    struct nbdx_simple_reply r = {be32_make(magic), be32_make(error), be64_make(cookie)};
    vp_ignore(say(&r, sizeof(r)) ? 0 : VP_E_CLOSED, "the link may have hung up");
}

/* A chunk with a head (an offset, an error) and `zeros` bytes of data. */
static void say_chunk(uint16_t flags, uint16_t type, uint64_t cookie, const void *head,
                      size_t head_len, size_t zeros)
{
    static const unsigned char none[3 * BLOCK];
    struct nbdx_structured_reply r = {be32_make(NBDX_STRUCTURED_REPLY_MAGIC), be16_make(flags),
                                      be16_make(type), be64_make(cookie),
                                      be32_make((uint32_t)(head_len + zeros))};
    bool ok = say(&r, sizeof(r)) && say(head, head_len) && say(none, zeros);
    vp_ignore(ok ? 0 : VP_E_CLOSED, "the link may have hung up");
}

enum answer {
    WRONG_MAGIC,
    UNKNOWN_COOKIE,
    OUT_OF_BOUNDS,
    TOO_LONG,
    ENDLESS,
    HALF,
    NONE_WITHOUT_DONE,
    SERVER_FULL,
    STRANGE_ERROR,
    END_IN_DATA,
    TWICE,
    ANSWERS
};
static enum answer bad;

static void answer_badly(void)
{
    struct nbdx_request_compact r = next_request();
    uint64_t cookie = be64_get(r.cookie);
    struct be64 at = r.offset, beyond = be64_make(be64_get(r.offset) + BLOCK);
    struct {
        struct be32 error;
        struct be16 len;
    } __attribute__((packed)) full = {be32_make(NBDX_ENOSPC), be16_make(0)};
    struct nbdx_structured_reply endless = {be32_make(NBDX_STRUCTURED_REPLY_MAGIC), be16_make(0),
                                            be16_make(NBDX_REPLY_TYPE_OFFSET_DATA), r.cookie,
                                            be32_make(UINT32_MAX)};
    switch (bad) {
    case WRONG_MAGIC:
        say_simple(0x12345678, 0, cookie);
        break;
    case UNKNOWN_COOKIE:
        say_simple(NBDX_SIMPLE_REPLY_MAGIC, 0, cookie + 1);
        break;
    case OUT_OF_BOUNDS:
        say_chunk(NBDX_REPLY_FLAG_DONE, NBDX_REPLY_TYPE_OFFSET_DATA, cookie, &beyond, 8, BLOCK);
        break;
    case TOO_LONG:
        say_chunk(NBDX_REPLY_FLAG_DONE, NBDX_REPLY_TYPE_OFFSET_DATA, cookie, &at, 8, 2 * BLOCK);
        break;
    case ENDLESS:
        vp_ignore(say(&endless, sizeof(endless)) ? 0 : VP_E_CLOSED, "the link may have hung up");
        break;
    case HALF:
        say_chunk(NBDX_REPLY_FLAG_DONE, NBDX_REPLY_TYPE_OFFSET_DATA, cookie, &at, 8, BLOCK / 2);
        break;
    case NONE_WITHOUT_DONE:
        say_chunk(0, NBDX_REPLY_TYPE_NONE, cookie, NULL, 0, 0);
        break;
    case SERVER_FULL:
        say_chunk(NBDX_REPLY_FLAG_DONE, NBDX_REPLY_TYPE_ERROR, cookie, &full, sizeof(full), 0);
        break;
    case STRANGE_ERROR:
        full.error = be32_make(9999);
        say_chunk(NBDX_REPLY_FLAG_DONE, NBDX_REPLY_TYPE_ERROR, cookie, &full, sizeof(full), 0);
        break;
    case END_IN_DATA:
        server.budget = 100;
        say_chunk(NBDX_REPLY_FLAG_DONE, NBDX_REPLY_TYPE_OFFSET_DATA, cookie, &at, 8, BLOCK);
        break;
    case TWICE:
        for (unsigned i = 0; i < 2; i++)
            say_chunk(NBDX_REPLY_FLAG_DONE, NBDX_REPLY_TYPE_OFFSET_DATA, cookie, &at, 8, BLOCK);
        break;
    case ANSWERS:
        break;
    }
    stay_silent();
}

static void bad_answers(void *arg)
{
    (void)arg;
    static const struct {
        int want;
        bool lost;
    } table[ANSWERS] = {
        [WRONG_MAGIC] = {VP_E_PEER_LOST, true},
        [UNKNOWN_COOKIE] = {VP_E_PEER_LOST, true},
        [OUT_OF_BOUNDS] = {VP_E_PEER_LOST, true},
        [TOO_LONG] = {VP_E_PEER_LOST, true},
        [ENDLESS] = {VP_E_PEER_LOST, true},
        [HALF] = {VP_E_IO, false},
        [NONE_WITHOUT_DONE] = {VP_E_PEER_LOST, true},
        [SERVER_FULL] = {VP_E_NO_SPACE, false},
        [STRANGE_ERROR] = {VP_E_INVALID, false},
        [END_IN_DATA] = {VP_E_PEER_LOST, true},
        [TWICE] = {0, true},
    };
    struct server s = honest();
    s.then = answer_badly;
    for (bad = 0; bad < ANSWERS; bad++) {
        struct link *l = connect_to(s, 5000, 0, NULL);
        check_equal(link_read(l, 5 * BLOCK, BLOCK, data), table[bad].want);
        for (unsigned i = 0; i < 1000 && table[bad].lost && !link_is_lost(l); i++)
            check_ok(co_sleep_ns(MS / 10));
        check_equal(link_is_lost(l), table[bad].lost);
        check_equal(link_why_lost(l)[0] != 0, table[bad].lost);
        link_close(l);
        server_end();
    }
}

static void a_bad_answer_ends_the_link_or_the_request(void **state)
{
    (void)state;
    run(bad_answers);
}

/* ---- sizes and ends ------------------------------------------------------------------------ */

static uint64_t heard_bytes;
static unsigned heard, heard_disc;

/* Says yes to everything, and remembers. */
static void serve_small(void)
{
    struct nbdx_request_compact r;
    while (hear(&r, sizeof(r))) {
        unsigned type = be16_get(r.type);
        uint32_t len = be32_get(r.length);
        if (type == NBDX_CMD_DISC) {
            heard_disc++;
            continue;
        }
        check(len <= 3 * BLOCK && len % BLOCK == 0);
        check_equal(be64_get(r.offset), BLOCK + heard_bytes);
        if (type == NBDX_CMD_WRITE) {
            check(hear(data + (4 << 20), len));
            check_equal(memcmp(data + (4 << 20), data + heard_bytes, len), 0);
        }
        heard++;
        heard_bytes += len;
        say_simple(NBDX_SIMPLE_REPLY_MAGIC, 0, be64_get(r.cookie));
    }
}

static void small_server(void *arg)
{
    (void)arg;
    struct server s = honest();
    s.then = serve_small;
    s.least = 1;
    s.most = 3 * BLOCK + 100;
    struct link *l = connect_to(s, 5000, 0, NULL);
    for (size_t i = 0; i < (1 << 20); i++)
        data[i] = (unsigned char)(i ^ i >> 12);
    heard_bytes = heard = heard_disc = 0;
    check_ok(link_write(l, BLOCK, 10 * BLOCK, data));
    check_equal(heard, 4);
    check_equal(heard_bytes, 10 * BLOCK);
    check_equal(heard_disc, 0);
    link_close(l);
    server_end();
    check_equal(heard_disc, 1);
}

static void a_request_is_sent_in_parts_that_the_server_takes(void **state)
{
    (void)state;
    run(small_server);
}

static bool read_on;
static uint64_t seen, strange;

/* Takes nothing for a while, then all that was sent. */
static void take_late(void)
{
    static unsigned char sink[1 << 16];
    size_t got = 1;
    while (!read_on)
        check_ok(co_sleep_ns(MS / 10));
    while (got > 0 && io_recv(server.fd, sink, sizeof(sink), 0, &got) == 0) {
        seen += got;
        for (size_t i = 0; i < got; i++)
            strange += sink[i] == 0xee;
    }
}

struct writer {
    struct link *l;
    uint64_t offset;
    int rc;
};

static void writer_main(void *arg)
{
    struct writer *w = arg;
    w->rc = link_write(w->l, w->offset, 2 << 20, data + w->offset);
    memset(data + w->offset, 0xee, 2 << 20); /* it is the caller's again */
}

/* Four writes: a part of the first is in the socket, the others wait in libnbd. */
static void cut_unsent(void *arg)
{
    (void)arg;
    struct server s = honest();
    s.then = take_late;
    read_on = false;
    seen = strange = 0;
    struct link *l = connect_to(s, 5000, 0, NULL);
    struct writer w[4];
    memset(data, 0x11, sizeof(data));
    for (unsigned i = 0; i < 4; i++) {
        w[i] = (struct writer){.l = l, .offset = (uint64_t)i << 21, .rc = 1};
        check_ok(co_spawn(writer_main, &w[i], "writer"));
    }
    check_ok(co_sleep_ns(10 * MS));
    for (unsigned i = 0; i < 4; i++)
        check_equal(w[i].rc, 1);
    link_cut(l);
    co_yield ();
    for (unsigned i = 0; i < 4; i++)
        check_equal(w[i].rc, VP_E_PEER_LOST);
    check_ok(co_sleep_ns(5 * MS));
    read_on = true;
    server_end();
    check(seen > 28 && seen < 2 << 20); /* what the kernel had taken */
    check_equal(strange, 0);
    link_close(l);
}

static void nothing_is_sent_from_a_buffer_after_the_cut(void **state)
{
    (void)state;
    run(cut_unsent);
}

static void answer_late(void)
{
    struct nbdx_request_compact r = next_request();
    while (!read_on)
        check_ok(co_sleep_ns(MS / 10));
    say_chunk(NBDX_REPLY_FLAG_DONE, NBDX_REPLY_TYPE_OFFSET_DATA, be64_get(r.cookie), &r.offset, 8,
              BLOCK);
}

static void reader_main(void *arg)
{
    struct writer *w = arg;
    w->rc = link_read(w->l, 0, BLOCK, data);
}

static void cut_read(void *arg)
{
    (void)arg;
    struct server s = honest();
    s.then = answer_late;
    read_on = false;
    struct link *l = connect_to(s, 5000, 0, NULL);
    struct writer w = {.l = l, .rc = 1};
    check_ok(co_spawn(reader_main, &w, "reader"));
    check_ok(co_sleep_ns(5 * MS));
    link_cut(l);
    co_yield ();
    check_equal(w.rc, VP_E_PEER_LOST);
    memset(data, 0x77, BLOCK);
    read_on = true;
    server_end();
    check_ok(co_sleep_ns(5 * MS));
    for (unsigned i = 0; i < BLOCK; i++)
        check_equal(data[i], 0x77);
    link_close(l);
}

static void nothing_is_received_into_a_buffer_after_the_cut(void **state)
{
    (void)state;
    run(cut_read);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_server_that_hangs_up_at_any_byte_is_noticed),
        cmocka_unit_test(a_silent_server_ends_at_the_deadline),
        cmocka_unit_test(the_handshake_can_be_cancelled),
        cmocka_unit_test(a_server_that_says_garbage_is_refused),
        cmocka_unit_test(a_server_that_cannot_take_a_volume_is_refused),
        cmocka_unit_test(a_link_without_a_coroutine_is_not_made),
        cmocka_unit_test(a_bad_answer_ends_the_link_or_the_request),
        cmocka_unit_test(a_request_is_sent_in_parts_that_the_server_takes),
        cmocka_unit_test(nothing_is_sent_from_a_buffer_after_the_cut),
        cmocka_unit_test(nothing_is_received_into_a_buffer_after_the_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

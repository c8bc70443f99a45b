/*
 * The least that a server of 4 KiB NBD requests can do, as a peer of `make bench`: one thread, one
 * connection, one file. It receives what is there, computes the CRC32C of each block, calls pread
 * or pwrite on the file, and sends the answers to all received requests by one call. What vpool
 * takes beyond this is what its map, its redundancy and its promises cost.
 *
 *   bare_server SOCKET FILE
 *
 * It serves reads and writes of at most 128 KiB. It serves one client after the other until it is
 * killed, and hangs up on a client that sends anything else.
 */
#include "base/bytes.h"
#include "base/crc.h"
#include "nbd/nbd_format.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BLOCK     4096U
#define DATA_MAX  (128U << 10)
#define IN_BYTES  (1U << 20)
#define OUT_BYTES (4U << 20)

/* One client: bytes that came and were not served yet, answers that were not sent yet. */
struct client {
    int fd, file;
    size_t in_first, in_end, out_end;
    unsigned char *in, *out;
};

/* The server checks nothing; it computes what a server that checks would compute. */
static uint32_t checksums;

static void die(const char *what)
{
    fprintf(stderr, "bare_server: %s%s%s\n", what, errno ? ": " : "", errno ? strerror(errno) : "");
    exit(1);
}

static void checksums_add(const unsigned char *data, size_t len)
{
    for (size_t at = 0; at < len; at += BLOCK)
        checksums ^= vp_crc32c(data + at, min_u64(BLOCK, len - at));
}

static bool send_all(int fd, const void *data, size_t len)
{
    for (size_t sent = 0; sent < len;) {
        ssize_t n = send(fd, (const char *)data + sent, len - sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return false;
        sent += (size_t)n;
    }
    return true;
}

static bool receive_all(int fd, void *data, size_t len)
{
    return recv(fd, data, len, MSG_WAITALL) == (ssize_t)len;
}

/* Answers NBD_OPT_EXPORT_NAME of any name. */
static bool client_greet(const struct client *c)
{
    struct nbdx_greeting greeting = {be64_make(NBDX_MAGIC), be64_make(NBDX_OPTION_MAGIC),
                                     be16_make(NBDX_FLAG_FIXED_NEWSTYLE | NBDX_FLAG_NO_ZEROES)};
    struct be32 flags;
    struct nbdx_option option;
    char name[NBDX_STRING_MAX];
    struct stat st;
    if (!send_all(c->fd, &greeting, sizeof(greeting)) ||
        !receive_all(c->fd, &flags, sizeof(flags)) || !receive_all(c->fd, &option, sizeof(option)))
        return false;
    size_t len = be32_get(option.length);
    if (be32_get(option.option) != NBDX_OPT_EXPORT_NAME || len > sizeof(name) ||
        (len && !receive_all(c->fd, name, len)) || fstat(c->file, &st))
        return false;
    struct nbdx_export_name_reply reply = {be64_make((uint64_t)st.st_size),
                                           be16_make(NBDX_FLAG_HAS_FLAGS)};
    return send_all(c->fd, &reply, sizeof(reply));
}

static bool client_send(struct client *c)
{
    bool ok = send_all(c->fd, c->out, c->out_end);
    c->out_end = 0;
    return ok;
}

/* Serves one request that is there as a whole, with its payload. False hangs up. */
static bool client_serve(struct client *c, const struct nbdx_request_compact *r)
{
    struct nbdx_simple_reply reply = {be32_make(NBDX_SIMPLE_REPLY_MAGIC), be32_make(0), r->cookie};
    size_t len = be32_get(r->length), answer = sizeof(reply);
    off_t at = (off_t)be64_get(r->offset);
    if (c->out_end + sizeof(reply) + len > OUT_BYTES && !client_send(c))
        return false;
    unsigned char *out = c->out + c->out_end;
    if (be16_get(r->type) == NBDX_CMD_READ) {
        if (pread(c->file, out + sizeof(reply), len, at) != (ssize_t)len)
            return false;
        checksums_add(out + sizeof(reply), len);
        answer += len;
    } else {
        const unsigned char *data = (const unsigned char *)(r + 1);
        checksums_add(data, len);
        if (pwrite(c->file, data, len, at) != (ssize_t)len)
            return false;
    }
    memcpy(out, &reply, sizeof(reply));
    c->out_end += answer;
    return true;
}

/* Serves all requests that have come as a whole, and keeps the rest for the next turn. */
static bool client_serve_all(struct client *c)
{
    for (;;) {
        const struct nbdx_request_compact *r = (const void *)(c->in + c->in_first);
        if (c->in_end - c->in_first < sizeof(*r))
            break;
        unsigned type = be16_get(r->type);
        size_t len = be32_get(r->length);
        if (be32_get(r->magic) != NBDX_REQUEST_MAGIC || len > DATA_MAX ||
            (type != NBDX_CMD_READ && type != NBDX_CMD_WRITE))
            return false;
        size_t whole = sizeof(*r) + (type == NBDX_CMD_WRITE ? len : 0);
        if (c->in_end - c->in_first < whole)
            break;
        if (!client_serve(c, r))
            return false;
        c->in_first += whole;
    }
    memmove(c->in, c->in + c->in_first, c->in_end - c->in_first);
    c->in_end -= c->in_first;
    c->in_first = 0;
    return client_send(c);
}

static void client_run(struct client *c)
{
    if (!client_greet(c))
        return;
    for (;;) {
        ssize_t n = recv(c->fd, c->in + c->in_end, IN_BYTES - c->in_end, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return;
        c->in_end += (size_t)n;
        if (!client_serve_all(c))
            return;
    }
}

static int listen_at(const char *path)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(a.sun_path))
        die("the socket path is too long");
    memcpy(a.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) || listen(fd, 8))
        die(path);
    return fd;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: bare_server SOCKET FILE\n");
        return 2;
    }
    struct client c = {.in = malloc(IN_BYTES), .out = malloc(OUT_BYTES)};
    c.file = open(argv[2], O_RDWR | O_CLOEXEC);
    if (!c.in || !c.out || c.file < 0)
        die(argv[2]);
    int listener = listen_at(argv[1]);
    for (;;) {
        c.fd = accept(listener, NULL, NULL);
        if (c.fd < 0)
            die("accept");
        c.in_first = c.in_end = c.out_end = 0;
        client_run(&c);
        close(c.fd);
    }
}

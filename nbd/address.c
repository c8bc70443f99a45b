/* Addresses: as text, as URIs for clients, and of the peer. */
#include "nbd/connection_impl.h"

#include "io/net.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static int address_invalid(const char *text, struct vp_error *err)
{
    return vp_fail(err, VP_E_INVALID,
                   "'%s' is not an address: write unix:PATH, tcp:HOST:PORT or tcp:[V6]:PORT", text);
}

static bool copy_part(char *to, size_t size, const char *from, size_t len)
{
    if (len >= size)
        return false;
    memcpy(to, from, len);
    to[len] = 0;
    return true;
}

static int tcp_parse(const char *text, const char *rest, struct nbdx_address *out,
                     struct vp_error *err)
{
    const char *colon = strrchr(rest, ':');
    if (!colon || !colon[1] || strspn(colon + 1, "0123456789") != strlen(colon + 1) ||
        strlen(colon + 1) > 5 || strtoul(colon + 1, NULL, 10) > 65535)
        return address_invalid(text, err);
    const char *host = rest;
    size_t len = (size_t)(colon - rest);
    if (len >= 2 && host[0] == '[' && host[len - 1] == ']') {
        host++;
        len -= 2;
    } else if (memchr(host, ':', len)) {
        return address_invalid(text, err);
    }
    out->kind = NBDX_TCP;
    if (!copy_part(out->host, sizeof(out->host), len ? host : "127.0.0.1", len ? len : 9) ||
        !copy_part(out->port, sizeof(out->port), colon + 1, strlen(colon + 1)))
        return address_invalid(text, err);
    return 0;
}

int nbdx_address_parse(const char *text, struct nbdx_address *out, struct vp_error *err)
{
    *out = (struct nbdx_address){.fd = -1};
    if (strncmp(text, "tcp:", 4) == 0)
        return tcp_parse(text, text + 4, out, err);
    if (strncmp(text, "unix:", 5) != 0 || !text[5])
        return address_invalid(text, err);
    out->kind = NBDX_UNIX;
    if (!copy_part(out->path, sizeof(out->path), text + 5, strlen(text + 5)))
        return vp_fail(err, VP_E_INVALID, "the socket path %s is longer than %d bytes", text + 5,
                       NBDX_PATH_MAX);
    return 0;
}

/* Appends `text`, its unusual characters as %XX; false when there is no room. */
static bool uri_append(char **at, char *end, const char *text, bool escape)
{
    static const char plain[] =
        "/-._~ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    for (; *text; text++) {
        size_t room = (size_t)(end - *at);
        int n = !escape || strchr(plain, *text)
                    ? snprintf(*at, room, "%c", *text)
                    : snprintf(*at, room, "%%%02X", (unsigned char)*text);
        if (n < 0 || (size_t)n >= room)
            return false;
        *at += n;
    }
    return true;
}

bool nbdx_uri_format(const struct nbdx_address *a, unsigned port, const char *export, char *out,
                     size_t size)
{
    char *at = out, *end = out + size, head[300];
    if (!size)
        return false;
    *at = 0;
    if (a->kind == NBDX_UNIX)
        return uri_append(&at, end, "nbd+unix:///", false) && uri_append(&at, end, export, true) &&
               uri_append(&at, end, "?socket=", false) && uri_append(&at, end, a->path, true);
    if (a->kind != NBDX_TCP)
        return false;
    bool v6 = strchr(a->host, ':');
    snprintf(head, sizeof(head), "nbd://%s%s%s:%u/", v6 ? "[" : "", a->host, v6 ? "]" : "", port);
    return uri_append(&at, end, head, false) && uri_append(&at, end, export, true);
}

static void tcp_describe(struct nbdx_connection *c, const struct sockaddr_storage *a, socklen_t len)
{
    char host[46], port[6]; /* numeric, no scope longer than that */
    if (getnameinfo((const struct sockaddr *)a, len, host, sizeof(host), port, sizeof(port),
                    NI_NUMERICHOST | NI_NUMERICSERV))
        return;
    snprintf(c->peer, sizeof(c->peer), "%s:%s", host, port);
    /* Small replies go at once; a peer that lost its power is noticed after a few minutes. */
    static const struct {
        int level, name, value;
    } set[] = {{IPPROTO_TCP, TCP_NODELAY, 1},
               {SOL_SOCKET, SO_KEEPALIVE, 1},
               {IPPROTO_TCP, TCP_KEEPIDLE, 60},
               {IPPROTO_TCP, TCP_KEEPINTVL, 15},
               {IPPROTO_TCP, TCP_KEEPCNT, 4}};
    for (size_t i = 0; i < sizeof(set) / sizeof(set[0]); i++)
        vp_ignore(setsockopt(c->fd, set[i].level, set[i].name, &set[i].value, sizeof(int)),
                  "slower, not wrong");
}

void nbdx_peer_describe(struct nbdx_connection *c)
{
    struct sockaddr_storage a = {0};
    socklen_t len = sizeof(a);
    unsigned gid;
    snprintf(c->peer, sizeof(c->peer), "?");
    if (getpeername(c->fd, (struct sockaddr *)&a, &len))
        return;
    if (a.ss_family == AF_INET || a.ss_family == AF_INET6)
        tcp_describe(c, &a, len);
    else if (io_peer_credentials(c->fd, &c->pid, &c->uid, &gid) == 0)
        snprintf(c->peer, sizeof(c->peer), "pid %u uid %u", c->pid, c->uid);
}

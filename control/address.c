/* See address.h. */
#include "control/address.h"

#include <arpa/inet.h>
#include <string.h>

/* By number: what a name means is for its server to say. */
static bool host_is_loopback(const char *host)
{
    struct in_addr v4;
    return !host[0] || strcmp(host, "::1") == 0 || strcmp(host, "localhost") == 0 ||
           (inet_pton(AF_INET, host, &v4) == 1 && ntohl(v4.s_addr) >> 24 == 127);
}

int control_address_check(const struct nbdx_address *a, enum control_tcp_bind bind,
                          const char *what, const char *key, struct vp_error *err)
{
    if (a->kind == NBDX_UNIX)
        return a->path[0] == '/'
                   ? 0
                   : vp_fail(err, VP_E_INVALID, "unix:%s: the path must be absolute", a->path);
    if (a->kind != NBDX_TCP)
        return vp_fail(err, VP_E_INVALID, "%s listens on unix:PATH or tcp:HOST:PORT", what);
    if (bind == CONTROL_TCP_OFF)
        return vp_fail(err, VP_E_PERMISSION,
                       "%s over TCP is off: use unix:PATH, or set %s in vpoold.conf", what, key);
    if (host_is_loopback(a->host) || bind == CONTROL_TCP_ANY)
        return 0;
    return vp_fail(err, VP_E_PERMISSION,
                   "'%s' is not a loopback address, and %s without TLS is open to whoever reaches "
                   "it: use 127.0.0.1 or a unix socket, or set %s = \"any\" in vpoold.conf",
                   a->host, what, key);
}

int control_migrate_address(const struct control_config *c, struct nbdx_address *out,
                            struct vp_error *err)
{
    struct vp_error why = {0};
    if (!c->migrate_listen[0])
        return 0;
    int rc = nbdx_address_parse(c->migrate_listen, out, &why);
    if (!rc)
        rc = control_address_check(out, c->migrate_tcp_bind, "migration", "migrate.tcp-bind", &why);
    return rc ? vp_fail(err, rc, "migrate.listen: %s", why.text) : 0;
}

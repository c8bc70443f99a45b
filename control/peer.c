/* SO_PEERCRED and SO_PEERGROUPS: the kernel's word of the moment of connect(2). */
#include "control/peer.h"

#include "io/net.h"

#include <sys/socket.h>

bool peer_is_allowed(const struct peer *p, uid_t daemon_uid, gid_t socket_gid)
{
    if (p->uid == 0 || p->uid == daemon_uid || p->gid == socket_gid)
        return true;
    for (size_t i = 0; i < p->group_count; i++)
        if (p->groups[i] == socket_gid)
            return true;
    return false;
}

bool peer_of_socket(int fd, struct peer *out)
{
    unsigned pid, uid, gid;
    if (io_peer_credentials(fd, &pid, &uid, &gid))
        return false;
    *out = (struct peer){.pid = (pid_t)pid, .uid = uid, .gid = gid};
    socklen_t len = sizeof(out->groups);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, out->groups, &len) == 0)
        out->group_count = len / sizeof(gid_t);
    return true;
}

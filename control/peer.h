/* Who may use the control socket. */
#ifndef VP_CONTROL_PEER_H
#define VP_CONTROL_PEER_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct peer {
    pid_t pid;
    uid_t uid;
    gid_t gid;
    gid_t groups[1024]; /* supplementary; of somebody with more, none is known */
    size_t group_count;
};

/* Root, the daemon's own user, and members of the socket's group. There are no lesser rights: a
 * user that may call may destroy. */
bool peer_is_allowed(const struct peer *p, uid_t daemon_uid, gid_t socket_gid);

/* Fills in from the kernel; false when it does not say. */
bool peer_of_socket(int fd, struct peer *out);

#endif

/*
 * Who may connect to an attachment's unix socket: its owner, group and mode. The pool remembers
 * them with the attachment, so that they are the same after a restart.
 */
#ifndef VP_CONTROL_ATTACHMENT_SOCKET_H
#define VP_CONTROL_ATTACHMENT_SOCKET_H

#include "base/error.h"
#include "io/co.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#define ATTACHMENT_ID_UNSET   UINT32_MAX
#define ATTACHMENT_MODE_UNSET UINT16_MAX

struct attachment_socket {
    uint32_t uid, gid; /* ATTACHMENT_ID_UNSET: as the daemon's */
    uint16_t mode;     /* ATTACHMENT_MODE_UNSET: 0660 */
};

static inline struct attachment_socket attachment_socket_default(void)
{
    return (struct attachment_socket){ATTACHMENT_ID_UNSET, ATTACHMENT_ID_UNSET,
                                      ATTACHMENT_MODE_UNSET};
}
bool attachment_socket_is_default(struct attachment_socket s);
bool attachment_socket_equal(struct attachment_socket a, struct attachment_socket b);

/* From names or numbers, and octal digits; NULL leaves a default. CO: names may be looked up over a
 * network. VP_E_INVALID, VP_E_NOT_FOUND. */
CO int attachment_socket_parse(const char *owner, const char *group, const char *mode,
                               struct attachment_socket *out, struct vp_error *err) must_check;
/* Gives the socket file at `path` away. CO: its file system may wait for a device of ours.
 * VP_E_PERMISSION, VP_E_SYSTEM. */
CO int attachment_socket_apply(struct attachment_socket s, const char *path,
                               struct vp_error *err) must_check;
/* Sets "owner", "group" (numbers) and "mode" (octal digits) in `object`; null where it is the
 * default. */
void attachment_socket_show(struct attachment_socket s, json_t *object);

#endif

/*
 * The part of libvpool that only programs of this tree use. They link it statically. It is not
 * installed, not stable, and not exported by the shared library.
 */
#ifndef VP_LIB_CLIENT_H
#define VP_LIB_CLIENT_H

#include "lib/vpool.h"

#include <jansson.h>
#include <sys/types.h>

/* vpool_call with decoded JSON; takes the reference of `params` (NULL: none). *result is the
 * caller's reference. */
int vpool_call_json(struct vpool_client *c, const char *method, json_t *params, json_t **result,
                    struct vpool_error *err);

/* Who is at the other end, as the kernel noted it at listen(2). *pid is 0 for a process that cannot
 * be seen from here. */
int vpool_peer(const struct vpool_client *c, pid_t *pid, uid_t *uid, struct vpool_error *err);

#endif

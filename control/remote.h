/*
 * Calls of the methods of another daemon (docs/peer.md): lines of JSON-RPC over one connection,
 * which is made when it is needed, and made anew after it has failed.
 *
 * Home reactor, except what is marked otherwise.
 */
#ifndef VP_CONTROL_REMOTE_H
#define VP_CONTROL_REMOTE_H

#include "base/error.h"
#include "io/co.h"
#include "nbd/server.h"

#include <jansson.h>

#define REMOTE_TEXT_MAX 255

struct remote {
    char text[REMOTE_TEXT_MAX + 1]; /* its address, as somebody gave it */
    struct nbdx_address address;
    struct co_mutex lock; /* held by a call: one at a time */
    int fd;               /* -1: not connected */
    bool said_more;       /* behind its last answer */
    uint64_t next_id;
};

/* Does not connect. VP_E_INVALID, with what to write. */
int remote_init(struct remote *r, const char *address, struct vp_error *err) must_check;
/* No call is under way. */
void remote_fini(struct remote *r);

/*
 * Calls `method`; takes the reference of `params` (NULL: there was no memory for it). *result is
 * the caller's reference. Errors: VP_E_PEER_LOST: no answer within `timeout_ms`, or none that can
 * be understood, and nobody knows whether the call was carried out; what the other daemon answered,
 * by its name; VP_E_NO_MEMORY.
 */
CO int remote_call(struct remote *r, const char *method, json_t *params, unsigned timeout_ms,
                   json_t **result, struct vp_error *err) must_check;

/* A call after which its connection has another purpose. On any reactor. */
struct remote_handover {
    struct nbdx_address address;
    char *lines; /* what is sent; owned */
};
/* Home. As remote_call has `method` and `params`. VP_E_NO_MEMORY. */
int remote_handover_init(struct remote_handover *h, const struct remote *r, const char *method,
                         json_t *params) must_check;
/* On any reactor: connects and calls. *fd is the caller's, and the other daemon speaks next. Errors
 * as remote_call. */
CO int remote_handover_run(const struct remote_handover *h, unsigned timeout_ms, int *fd,
                           struct vp_error *err) must_check;
void remote_handover_fini(struct remote_handover *h);

#endif

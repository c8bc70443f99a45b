/*
 * JSON-RPC 2.0 without its transport: one frame in, one reply out. docs/rpc.md describes what
 * clients see.
 */
#ifndef VP_CONTROL_RPC_H
#define VP_CONTROL_RPC_H

#include "base/error.h"
#include "control/params.h"
#include "io/co.h"

#include <jansson.h>
#include <stddef.h>

#define RPC_FRAME_MAX (1U << 20)
#define RPC_DEPTH_MAX 16 /* of nested arrays and objects; the parser recurses */

enum rpc_error_code {
    RPC_PARSE_ERROR = -32700,
    RPC_INVALID_REQUEST = -32600,
    RPC_NO_METHOD = -32601,
    RPC_BAD_PARAMS = -32602,
    RPC_FAILED = -32000, /* data.name tells which error */
};

enum method_flags {
    METHOD_READS = 1,    /* changes nothing                                                  */
    METHOD_ALONE = 2,    /* one such method at a time: it changes pools or attachments       */
    METHOD_DESTROYS = 4, /* of those, one that loses data: takes dry_run                     */
    METHOD_EARLY = 8,    /* answers while the daemon still imports its pools                 */
};

struct control;

/* A method. `args` was decoded by `params`. On success *result is a new reference (never NULL).
 * CO: anything may change while it waits. */
typedef int rpc_method_fn(struct control *c, const void *args, json_t **result,
                          struct vp_error *err);

struct method {
    const char *name; /* NULL ends a table */
    const struct param *params;
    unsigned flags;
    CO rpc_method_fn *fn;
};

typedef int rpc_run_fn(struct control *c, const struct method *m, const void *args, json_t **result,
                       struct vp_error *err);

/* How a method is run (locks, waiting for the start); the tests give their own. */
struct rpc {
    const struct method *const *tables; /* ended by NULL */
    CO rpc_run_fn *run;
    struct control *control;
};

/*
 * Handles one frame (without its newline; not terminated). Returns the reply, malloc'ed, ended by
 * a newline, *reply_len bytes; NULL when there is none to send (a notification, or no memory: then
 * the connection is best closed). Never asserts on the frame. CO as its method.
 */
CO char *rpc_handle(const struct rpc *rpc, const char *frame, size_t len, size_t *reply_len);

/* Whether a text nests no deeper than RPC_DEPTH_MAX, so that the parser may see it. */
bool rpc_frame_is_shallow(const char *frame, size_t len);

/* A reply that refuses, for the transport's own reasons (frame too long, too many connections). */
char *rpc_refusal(int code, int rc, const char *text, size_t *reply_len);

#endif

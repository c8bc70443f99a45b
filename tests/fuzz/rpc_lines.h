/*
 * Lines of a client, through envelope, method table and parameters of real methods. `run` stands
 * for the methods. Every line gets a well-formed reply or, as a notification, none.
 */
#ifndef VP_TESTS_FUZZ_RPC_LINES_H
#define VP_TESTS_FUZZ_RPC_LINES_H

#include "control/control_impl.h"

#include <stdlib.h>
#include <string.h>

static void rpc_line_handle(const struct rpc *rpc, const char *frame, size_t len)
{
    size_t reply_len = 0;
    char *reply = rpc_handle(rpc, frame, len, &reply_len);
    if (!reply)
        return;
    json_t *decoded = json_loadb(reply, reply_len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
    if (!decoded || !json_object_get(decoded, "jsonrpc") ||
        !json_object_get(decoded, "result") == !json_object_get(decoded, "error") ||
        memchr(reply, '\n', reply_len) != reply + reply_len - 1)
        abort();
    json_decref(decoded);
    free(reply);
}

static void rpc_lines_handle(const struct rpc *rpc, const uint8_t *data, size_t size)
{
    const char *at = (const char *)data, *end = at + size;
    while (at < end) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        size_t len = (size_t)((newline ? newline : end) - at);
        if (len && len < RPC_FRAME_MAX)
            rpc_line_handle(rpc, at, len);
        at += len + 1;
    }
}

#endif

/*
 * Lines of a client of the control socket, through envelope, method table and parameters of the
 * real methods; the methods themselves are not called. Every line gets a well-formed reply or, as a
 * notification, none.
 */
#include "control/control_impl.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int run(struct control *c, const struct method *m, const void *args, json_t **result,
               struct vp_error *err)
{
    (void)c;
    (void)args;
    (void)err;
    *result = json_pack("{s:s}", "method", m->name);
    return 0;
}

static void handle(const char *frame, size_t len)
{
    const struct rpc rpc = {.tables = methods_all, .run = run};
    size_t reply_len = 0;
    char *reply = rpc_handle(&rpc, frame, len, &reply_len);
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *at = (const char *)data, *end = at + size;
    while (at < end) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        size_t len = (size_t)((newline ? newline : end) - at);
        if (len && len < RPC_FRAME_MAX)
            handle(at, len);
        at += len + 1;
    }
    return 0;
}

/*
 * Frames to method calls. What a client sends is refused with the standard codes; what a method
 * refuses is code -32000 with the error's name, so that programs need not parse sentences.
 */
#include "control/rpc.h"

#include "base/verify.h"

#include <stdlib.h>
#include <string.h>

/* jansson's parser recurses once a level, on a coroutine's small stack: refuse deep frames before
 * it sees them. Brackets inside strings do not count. */
bool rpc_frame_is_shallow(const char *frame, size_t len)
{
    unsigned depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < len; i++) {
        char ch = frame[i];
        if (in_string) {
            if (ch == '\\')
                i++;
            else if (ch == '"')
                in_string = false;
        } else if (ch == '"') {
            in_string = true;
        } else if (ch == '[' || ch == '{') {
            if (++depth > RPC_DEPTH_MAX)
                return false;
        } else if ((ch == ']' || ch == '}') && depth > 0) {
            depth--;
        }
    }
    return true;
}

/* Takes the reference. */
static char *finish(json_t *reply, size_t *reply_len)
{
    char *text = reply ? json_dumps(reply, JSON_COMPACT) : NULL;
    json_decref(reply);
    if (!text)
        return NULL;
    size_t len = strlen(text);
    char *framed = realloc(text, len + 2);
    if (!framed) {
        free(text);
        return NULL;
    }
    framed[len] = '\n';
    framed[len + 1] = 0;
    *reply_len = len + 1;
    return framed;
}

static json_t *error_json(json_t *id, int code, int rc, const char *text)
{
    return json_pack("{s:s, s:O?, s:{s:i, s:s, s:{s:s, s:i}}}", "jsonrpc", "2.0", "id", id, "error",
                     "code", code, "message", text, "data", "name", vp_err_name(rc), "errno",
                     vp_err_class(rc));
}

/* json_pack leaves a NULL "O?" out of no object: it packs null, which is what the standard wants.
 */
char *rpc_refusal(int code, int rc, const char *text, size_t *reply_len)
{
    return finish(error_json(NULL, code, rc, text), reply_len);
}

static const struct method *method_find(const struct rpc *rpc, const char *name)
{
    for (const struct method *const *t = rpc->tables; *t; t++)
        for (const struct method *m = *t; m->name; m++)
            if (strcmp(m->name, name) == 0)
                return m;
    return NULL;
}

static bool id_is_valid(const json_t *id)
{
    return !id || json_is_string(id) || json_is_number(id) || json_is_null(id);
}

/* NULL when the envelope is right, else what is wrong with it. */
static const char *envelope_fault(const json_t *request)
{
    if (json_is_array(request))
        return "batches are not supported: send one request a line";
    if (!json_is_object(request))
        return "a request is a JSON object";
    const char *version = json_string_value(json_object_get(request, "jsonrpc"));
    if (!version || strcmp(version, "2.0") != 0)
        return "\"jsonrpc\" must be \"2.0\"";
    const json_t *method = json_object_get(request, "method");
    if (!json_is_string(method) || strlen(json_string_value(method)) != json_string_length(method))
        return "\"method\" must be a string";
    if (!id_is_valid(json_object_get(request, "id")))
        return "\"id\" must be a string or a number";
    return NULL;
}

static int error_code_of(int rc)
{
    return rc == VP_E_RPC_METHOD   ? RPC_NO_METHOD
           : rc == VP_E_RPC_PARAMS ? RPC_BAD_PARAMS
                                   : RPC_FAILED;
}

/* The whole life of a well-formed request but its envelope. */
static int call(const struct rpc *rpc, const json_t *request, json_t **result, struct vp_error *err)
{
    const char *name = json_string_value(json_object_get(request, "method"));
    const struct method *m = method_find(rpc, name);
    if (!m)
        return vp_fail(err, VP_E_RPC_METHOD, "unknown method '%.60s'", name);
    _Alignas(16) char args[PARAM_ARGS_MAX] = {0};
    int rc = params_decode(m->params, json_object_get(request, "params"), args, err);
    if (rc)
        return rc;
    rc = rpc->run(rpc->control, m, args, result, err);
    if (rc == 0 && !*result)
        return vp_fail(err, VP_E_NO_MEMORY, "out of memory for the reply");
    return rc;
}

static char *answer(const struct rpc *rpc, const json_t *request, size_t *reply_len)
{
    const char *fault = envelope_fault(request);
    json_t *id = json_object_get(request, "id");
    if (fault)
        return finish(
            error_json(id_is_valid(id) ? id : NULL, RPC_INVALID_REQUEST, VP_E_RPC_PROTOCOL, fault),
            reply_len);
    struct vp_error err = {0};
    json_t *result = NULL;
    int rc = call(rpc, request, &result, &err);
    if (!id) { /* a notification: executed, never answered */
        json_decref(result);
        return NULL;
    }
    if (rc == 0)
        return finish(json_pack("{s:s, s:O, s:o}", "jsonrpc", "2.0", "id", id, "result", result),
                      reply_len);
    json_decref(result);
    return finish(error_json(id, error_code_of(rc), rc, err.text[0] ? err.text : vp_err_text(rc)),
                  reply_len);
}

/* A frame that is JSON, but has a number that no integer here can hold: the parser refuses all of
 * it. Read again with numbers that are not exact, for the id of the reply. */
static char *refuse_big_number(const char *frame, size_t len, size_t *reply_len)
{
    json_t *request = json_loadb(
        frame, len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_DECODE_INT_AS_REAL, NULL);
    json_t *id = json_object_get(request, "id");
    double number = json_real_value(id);
    json_t *exact = json_is_real(id) && number >= -9e15 && number <= 9e15
                        ? json_integer((json_int_t)number)
                    : json_is_string(id) ? json_incref(id)
                                         : NULL;
    json_t *error = error_json(exact, request ? RPC_BAD_PARAMS : RPC_PARSE_ERROR, VP_E_RPC_PARAMS,
                               "a number is out of bounds: whole numbers below 2^63 are possible");
    json_decref(exact);
    json_decref(request);
    return finish(error, reply_len);
}

CO char *rpc_handle(const struct rpc *rpc, const char *frame, size_t len, size_t *reply_len)
{
    *reply_len = 0;
    if (!rpc_frame_is_shallow(frame, len))
        return rpc_refusal(RPC_PARSE_ERROR, VP_E_RPC_PROTOCOL, "nested too deeply", reply_len);
    json_error_t why;
    json_t *request =
        json_loadb(frame, len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, &why);
    if (!request && json_error_code(&why) == json_error_numeric_overflow)
        return refuse_big_number(frame, len, reply_len);
    if (!request)
        return rpc_refusal(RPC_PARSE_ERROR, VP_E_RPC_PROTOCOL, why.text, reply_len);
    char *reply = answer(rpc, request, reply_len);
    json_decref(request);
    return reply;
}

/* Envelopes, parameters and replies, with methods of the test's own; peers. */
#include "control/peer.h"
#include "control/rpc.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- two methods ----------------------------------------------------------------------------- */

struct add_args {
    uint64_t a, b, inner;
    const char *unit;
    const json_t *list;
    bool loud;
};
static const struct param more_params[] = {PARAM(struct add_args, inner, PARAM_NUMBER, true, 0, 9),
                                           {0}};
static const struct param add_params[] = {PARAM(struct add_args, a, PARAM_NUMBER, true, 0, 100),
                                          PARAM(struct add_args, b, PARAM_NUMBER, false, 1, 100),
                                          PARAM(struct add_args, unit, PARAM_STRING, false, 0, 4),
                                          PARAM(struct add_args, list, PARAM_PATHS, false, 1, 2),
                                          PARAM(struct add_args, loud, PARAM_BOOL, false, 0, 0),
                                          PARAM_FIELDS("more", false, more_params),
                                          {0}};
static unsigned calls;

static int add(struct control *c, const void *args, json_t **result, struct vp_error *err)
{
    (void)c;
    (void)err;
    const struct add_args *a = args;
    calls++;
    *result =
        json_pack("{s:I, s:s, s:i, s:b}", "sum", (json_int_t)(a->a + a->b + a->inner), "unit",
                  a->unit ? a->unit : "", "paths", (int)params_count(a->list), "loud", a->loud);
    return 0;
}

static int refuse(struct control *c, const void *args, json_t **result, struct vp_error *err)
{
    (void)c;
    (void)args;
    (void)result;
    return vp_fail(err, VP_E_NO_SPACE, "full: delete something");
}

static const struct param none[] = {{0}};
static const struct method methods[] = {
    {"add", add_params, METHOD_READS, add}, {"refuse", none, 0, refuse}, {0}};
static const struct method *const tables[] = {methods, NULL};

static int run(struct control *c, const struct method *m, const void *args, json_t **result,
               struct vp_error *err)
{
    return m->fn(c, args, result, err);
}

static const struct rpc rpc = {.tables = tables, .run = run};

/* ---- helpers --------------------------------------------------------------------------------- */

static char *handle(const char *frame)
{
    size_t len = 0;
    char *reply = rpc_handle(&rpc, frame, strlen(frame), &len);
    if (reply) {
        assert_int_equal(strlen(reply), len);
        assert_int_equal(reply[len - 1], '\n');
    }
    return reply;
}

static void assert_reply(const char *frame, const char *wanted)
{
    char *reply = handle(frame);
    assert_non_null(reply);
    if (!strstr(reply, wanted))
        fail_msg("%s does not hold %s", reply, wanted);
    free(reply);
}

#define CALL(method, params)                                                                       \
    "{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"" method "\",\"params\":" params "}"

/* ---- tests ----------------------------------------------------------------------------------- */

static void a_call_gets_its_result_and_its_id(void **state)
{
    (void)state;
    assert_reply(CALL("add", "{\"a\":2,\"b\":3}"), "\"id\":3,\"result\":{\"sum\":5");
    assert_reply("{\"jsonrpc\":\"2.0\",\"id\":\"x\",\"method\":\"add\",\"params\":{\"a\":2}}",
                 "\"id\":\"x\"");
}

static void a_refusal_has_code_sentence_name_and_errno(void **state)
{
    (void)state;
    assert_reply(CALL("refuse", "{}"), "\"code\":-32000,\"message\":\"full: delete something\"");
    assert_reply(CALL("refuse", "{}"), "\"name\":\"NO_SPACE\",\"errno\":28");
}

static void malformed_frames_are_refused(void **state)
{
    (void)state;
    static const char *const parse[] = {"",           "{",           "nonsense",
                                        "{\"a\":1}x", "\"\\ud800\"", "{\"id\":1,\"id\":1}"};
    for (size_t i = 0; i < sizeof(parse) / sizeof(parse[0]); i++)
        assert_reply(parse[i], "\"id\":null,\"error\":{\"code\":-32700");
    static const char *const request[] = {"[]",
                                          "null",
                                          "7",
                                          "\"\\u0000\"",
                                          "{}",
                                          "{\"jsonrpc\":\"2.0\"}",
                                          "{\"jsonrpc\":\"1.0\",\"method\":\"add\"}",
                                          "{\"jsonrpc\":\"2.0\",\"method\":1}",
                                          "{\"jsonrpc\":\"2.0\",\"id\":[],\"method\":\"add\"}"};
    for (size_t i = 0; i < sizeof(request) / sizeof(request[0]); i++)
        assert_reply(request[i], "\"code\":-32600");
    assert_reply(CALL("subtract", "{}"), "\"code\":-32601");
}

static void what_is_json_gets_its_id_back_with_the_code_of_what_is_wrong(void **state)
{
    (void)state;
    assert_reply("{\"jsonrpc\":\"1.0\",\"id\":5,\"method\":\"add\"}",
                 "\"id\":5,\"error\":{\"code\":-32600");
    assert_reply("{\"jsonrpc\":\"2.0\",\"id\":6,\"method\":\"add\\u0000\"}",
                 "\"id\":6,\"error\":{\"code\":-32600");
    assert_reply(
        "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"add\",\"params\":{\"a\":9223372036854775808}}",
        "\"id\":7,\"error\":{\"code\":-32602");
    assert_reply("{\"jsonrpc\":\"2.0\",\"id\":\"x\",\"method\":\"add\",\"params\":{\"a\":"
                 "99999999999999999999}}",
                 "\"id\":\"x\",\"error\":{\"code\":-32602");
}

/* A sentence quotes so many bytes of the name, which may end within a character. */
static void a_refusal_that_quotes_half_a_character_is_still_sent(void **state)
{
    (void)state;
    char frame[400], name[200] = "x";
    for (int i = 0; i < 60; i++)
        memcpy(name + 1 + 2 * i, "\303\251", 3);
    snprintf(frame, sizeof(frame), "{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"%s\"}", name);
    assert_reply(frame, "\"id\":3,\"error\":{\"code\":-32601");
    snprintf(frame, sizeof(frame),
             "{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"add\",\"params\":{\"%s\":1}}", name);
    assert_reply(frame, "\"id\":3,\"error\":{\"code\":-32602");
}

static void a_deep_frame_is_refused_before_it_is_parsed(void **state)
{
    (void)state;
    size_t len = 500000;
    char *deep = malloc(len + 1);
    memset(deep, '[', len);
    deep[len] = 0;
    assert_reply(deep, "nested too deeply");
    free(deep);
}

static void brackets_inside_strings_are_not_nesting(void **state)
{
    (void)state;
    assert_reply("{\"jsonrpc\":\"2.0\",\"id\":\"[[[[[[[[[[[[[[[[[[[[\\\"[[\",\"method\":\"add\","
                 "\"params\":{\"a\":1}}",
                 "\"sum\":1");
}

static void a_notification_is_executed_and_not_answered(void **state)
{
    (void)state;
    calls = 0;
    assert_null(handle("{\"jsonrpc\":\"2.0\",\"method\":\"add\",\"params\":{\"a\":2}}"));
    assert_int_equal(calls, 1);
}

static void parameters_are_checked_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *params, *says;
    } bad[] = {
        {CALL("add", "{}"), "'a' is missing"},
        {CALL("add", "{\"a\":null}"), "'a' is missing"},
        {CALL("add", "null"), "'a' is missing"},
        {CALL("add", "[1]"), "named parameters"},
        {CALL("add", "{\"a\":1,\"c\":1}"), "unknown parameter 'c'"},
        {CALL("add", "{\"a\":101}"), "'a' is 101, which is not between 0 and 100"},
        {CALL("add", "{\"a\":-1}"), "not negative"},
        {CALL("add", "{\"a\":1.0}"), "a whole number"},
        {CALL("add", "{\"a\":99999999999999999999}"), "out of bounds"},
        {CALL("add", "{\"a\":1,\"unit\":7}"), "'unit' must be a string"},
        {CALL("add", "{\"a\":1,\"unit\":\"12345\"}"), "longer than 4"},
        {CALL("add", "{\"a\":1,\"unit\":\"a\\nb\"}"), "control characters"},
        {CALL("add", "{\"a\":1,\"list\":[]}"), "has 0 elements"},
        {CALL("add", "{\"a\":1,\"list\":[\"/a\",\"/b\",\"/c\"]}"), "has 3 elements"},
        {CALL("add", "{\"a\":1,\"list\":[\"rel\"]}"), "absolute path"},
        {CALL("add", "{\"a\":1,\"list\":[1]}"), "array of strings"},
        {CALL("add", "{\"a\":1,\"loud\":1}"), "true or false"},
        {CALL("add", "{\"a\":1,\"more\":1}"), "'more' must be an object"},
        {CALL("add", "{\"a\":1,\"more\":{}}"), "'inner' is missing"},
        {CALL("add", "{\"a\":1,\"more\":{\"inner\":1,\"a\":2}}"), "unknown parameter 'a'"},
        {CALL("add", "{\"a\":1,\"inner\":1}"), "unknown parameter 'inner'"},
    };
    calls = 0;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_reply(bad[i].params, bad[i].says);
    assert_int_equal(calls, 0);
    assert_reply(CALL("add", "{\"a\":1,\"unit\":\"MiB\",\"list\":[\"/a\"],\"loud\":true}"),
                 "\"unit\":\"MiB\",\"paths\":1,\"loud\":true");
    assert_reply(CALL("add", "{\"a\":1,\"more\":{\"inner\":5}}"), "\"sum\":6");
}

static void only_root_the_daemon_and_the_group_may_call(void **state)
{
    (void)state;
    struct peer root = {.uid = 0, .gid = 5};
    struct peer self = {.uid = 100, .gid = 5};
    struct peer primary = {.uid = 7, .gid = 50};
    struct peer member = {.uid = 7, .gid = 5, .groups = {1, 50}, .group_count = 2};
    struct peer other = {.uid = 7, .gid = 5, .groups = {1, 2}, .group_count = 2};
    assert_true(peer_is_allowed(&root, 100, 50));
    assert_true(peer_is_allowed(&self, 100, 50));
    assert_true(peer_is_allowed(&primary, 100, 50));
    assert_true(peer_is_allowed(&member, 100, 50));
    assert_false(peer_is_allowed(&other, 100, 50));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_call_gets_its_result_and_its_id),
        cmocka_unit_test(a_refusal_has_code_sentence_name_and_errno),
        cmocka_unit_test(malformed_frames_are_refused),
        cmocka_unit_test(what_is_json_gets_its_id_back_with_the_code_of_what_is_wrong),
        cmocka_unit_test(a_refusal_that_quotes_half_a_character_is_still_sent),
        cmocka_unit_test(a_deep_frame_is_refused_before_it_is_parsed),
        cmocka_unit_test(brackets_inside_strings_are_not_nesting),
        cmocka_unit_test(a_notification_is_executed_and_not_answered),
        cmocka_unit_test(parameters_are_checked_by_name),
        cmocka_unit_test(only_root_the_daemon_and_the_group_may_call),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

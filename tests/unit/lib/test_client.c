/* The client library against a server that is a thread with canned answers.
 * threads: yes */
#include "lib/client.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

/* Answers one request with `answer`; NULL: closes at once; "": says nothing until the client goes.
 */
struct server {
    char path[64];
    int fd;
    const char *answer;
    char request[1024];
    pthread_t thread;
};

static void *server_run(void *arg)
{
    struct server *s = arg;
    int fd = accept(s->fd, NULL, NULL);
    if (s->answer) {
        ssize_t n = recv(fd, s->request, sizeof(s->request) - 1, 0);
        s->request[n > 0 ? n : 0] = 0;
        (void)send(fd, s->answer, strlen(s->answer), MSG_NOSIGNAL);
        char rest;
        while (recv(fd, &rest, 1, 0) > 0)
            ;
    }
    close(fd);
    return NULL;
}

static void server_start_with(struct server *s, const char *answer, void *(*run)(void *arg))
{
    *s = (struct server){.answer = answer};
    (void)snprintf(s->path, sizeof(s->path), "/tmp/vpool-unit-%ld.sock", (long)getpid());
    (void)unlink(s->path);
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    memcpy(to.sun_path, s->path, strlen(s->path));
    s->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(s->fd, (struct sockaddr *)&to, sizeof(to)), 0);
    assert_int_equal(listen(s->fd, 1), 0);
    assert_int_equal(pthread_create(&s->thread, NULL, run, s), 0);
}

static void server_start(struct server *s, const char *answer)
{
    server_start_with(s, answer, server_run);
}

static void server_end(struct server *s)
{
    pthread_join(s->thread, NULL);
    close(s->fd);
    (void)unlink(s->path);
}

/* The outcome of vpool_call against `answer`. */
static int call_against(const char *answer, char **result, struct vpool_error *err)
{
    struct server s;
    struct vpool_client *c = NULL;
    server_start(&s, answer);
    *err = (struct vpool_error){0};
    assert_int_equal(vpool_connect(s.path, 300, &c, err), 0);
    int rc = vpool_call(c, "pool.list", "{}", result, err);
    vpool_close(c);
    server_end(&s);
    return rc;
}

static void a_result_comes_back_as_text(void **state)
{
    (void)state;
    struct vpool_error err;
    char *result = NULL;
    assert_int_equal(
        call_against("{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"pools\":[]}}\n", &result, &err),
        0);
    assert_string_equal(result, "{\"pools\":[]}");
    free(result);
}

static void a_refusal_fills_in_the_error(void **state)
{
    (void)state;
    struct vpool_error err;
    char *result = NULL;
    assert_int_equal(call_against("{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"code\":-32000,"
                                  "\"message\":\"full\",\"data\":{\"name\":\"NO_SPACE\","
                                  "\"errno\":28}}}\n",
                                  &result, &err),
                     -1);
    assert_string_equal(err.name, "NO_SPACE");
    assert_string_equal(err.text, "full");
    assert_int_equal(err.errnum, ENOSPC);
    assert_int_equal(err.rpc_code, -32000);
    assert_null(result);
}

static void broken_answers_are_protocol_errors(void **state)
{
    (void)state;
    static const char *const broken[] = {"nonsense\n", "{}\n", "[]\n",
                                         "{\"jsonrpc\":\"2.0\",\"id\":99,\"result\":1}\n"};
    for (size_t i = 0; i < sizeof(broken) / sizeof(broken[0]); i++) {
        struct vpool_error err;
        char *result = NULL;
        assert_int_equal(call_against(broken[i], &result, &err), -1);
        assert_string_equal(err.name, "RPC_PROTOCOL");
        assert_null(result);
    }
}

static void a_server_that_closes_is_reported(void **state)
{
    (void)state;
    struct vpool_error err;
    char *result = NULL;
    assert_int_equal(call_against(NULL, &result, &err), -1);
    assert_string_equal(err.name, "CLOSED");
}

static void a_silent_server_times_out(void **state)
{
    (void)state;
    struct vpool_error err;
    char *result = NULL;
    assert_int_equal(call_against("", &result, &err), -1);
    assert_string_equal(err.name, "TIMED_OUT");
    assert_int_equal(err.errnum, ETIMEDOUT);
}

static void no_daemon_says_what_to_do(void **state)
{
    (void)state;
    struct vpool_error err = {0};
    struct vpool_client *c = NULL;
    assert_int_equal(vpool_connect("/no/such/socket", 100, &c, &err), -1);
    assert_string_equal(err.name, "NO_DAEMON");
    assert_non_null(strstr(err.text, "start vpoold"));
}

static void the_peer_is_who_listens(void **state)
{
    (void)state;
    struct server s;
    struct vpool_client *c = NULL;
    struct vpool_error err = {0};
    pid_t pid = 0;
    uid_t uid = (uid_t)-1;
    server_start(&s, NULL);
    assert_int_equal(vpool_connect(s.path, 100, &c, &err), 0);
    assert_int_equal(vpool_peer(c, &pid, &uid, &err), 0);
    assert_int_equal(pid, getpid());
    assert_int_equal(uid, geteuid());
    vpool_close(c);
    server_end(&s);
}

static void parameters_that_are_not_json_never_leave(void **state)
{
    (void)state;
    struct server s;
    struct vpool_client *c = NULL;
    struct vpool_error err = {0};
    server_start(&s, NULL);
    assert_int_equal(vpool_connect(s.path, 100, &c, &err), 0);
    assert_int_equal(vpool_call(c, "pool.list", "{nonsense", NULL, &err), -1);
    assert_string_equal(err.name, "RPC_PARAMS");
    vpool_close(c);
    server_end(&s);
}

static void a_wrapper_sends_what_it_was_given(void **state)
{
    (void)state;
    struct server s;
    struct vpool_client *c = NULL;
    struct vpool_error err = {0};
    server_start(&s, "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"uri\":\"nbd://x\"}}\n");
    assert_int_equal(vpool_connect(s.path, 1000, &c, &err), 0);
    char *uri = NULL;
    assert_int_equal(vpool_attach_nbd(c, "tank/v", "unix:/n", true, &uri, &err), 0);
    assert_string_equal(uri, "nbd://x");
    free(uri);
    vpool_close(c);
    server_end(&s);
    assert_non_null(strstr(s.request, "\"method\":\"attach\""));
    assert_non_null(strstr(s.request, "\"volume\":\"tank/v\""));
    assert_non_null(strstr(s.request, "\"nbd\":\"unix:/n\""));
    assert_non_null(strstr(s.request, "\"readonly\":true"));
}

static void a_detachment_can_be_forced(void **state)
{
    (void)state;
    struct server s;
    struct vpool_client *c = NULL;
    struct vpool_error err = {0};
    server_start(&s, "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"detached\":1}}\n");
    assert_int_equal(vpool_connect(s.path, 1000, &c, &err), 0);
    assert_int_equal(vpool_detach(c, "tank/v", NULL, false, true, &err), 0);
    vpool_close(c);
    server_end(&s);
    assert_non_null(strstr(s.request, "\"method\":\"detach\""));
    assert_non_null(strstr(s.request, "\"force\":true"));
    assert_non_null(strstr(s.request, "\"all\":false"));
    assert_null(strstr(s.request, "\"nbd\""));
}

static int online(struct vpool_client *c, struct vpool_error *err)
{
    return vpool_pool_online(c, "tank", "1", NULL, err);
}

static int replace(struct vpool_client *c, struct vpool_error *err)
{
    return vpool_pool_replace(c, "tank", "1", "/dev/sdf", true, err);
}

static int offline(struct vpool_client *c, struct vpool_error *err)
{
    return vpool_pool_offline(c, "tank", "1", err);
}

static int add(struct vpool_client *c, struct vpool_error *err)
{
    return vpool_pool_add(c, "tank", "/dev/sdg", true, err);
}

static int scrub(struct vpool_client *c, struct vpool_error *err)
{
    return vpool_pool_scrub(c, "tank", "start", 4096, err);
}

static void disks_come_and_go_by_their_names(void **state)
{
    (void)state;
    static const struct {
        int (*call)(struct vpool_client *c, struct vpool_error *err);
        const char *method, *params[2];
        bool has_path;
    } calls[] = {{online, "\"pool.online\"", {"\"disk\":\"1\"", "\"pool\":\"tank\""}, false},
                 {replace, "\"pool.replace\"", {"\"path\":\"/dev/sdf\"", "\"force\":true"}, true},
                 {add, "\"pool.add\"", {"\"path\":\"/dev/sdg\"", "\"force\":true"}, true},
                 {scrub, "\"pool.scrub\"", {"\"action\":\"start\"", "\"limit\":4096"}, false},
                 {offline, "\"pool.offline\"", {"\"disk\":\"1\"", "\"pool\":\"tank\""}, false}};
    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        struct server s;
        struct vpool_client *c = NULL;
        struct vpool_error err = {0};
        server_start(&s, "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"disk\":1}}\n");
        assert_int_equal(vpool_connect(s.path, 1000, &c, &err), 0);
        assert_int_equal(calls[i].call(c, &err), 0);
        vpool_close(c);
        server_end(&s);
        assert_non_null(strstr(s.request, calls[i].method));
        assert_non_null(strstr(s.request, calls[i].params[0]));
        assert_non_null(strstr(s.request, calls[i].params[1]));
        assert_int_equal(strstr(s.request, "\"path\"") != NULL, calls[i].has_path);
    }
}

/* Answers the first request together with the second, when the client has given up on it. */
static void *late_server_run(void *arg)
{
    struct server *s = arg;
    int fd = accept(s->fd, NULL, NULL);
    for (int newlines = 0; newlines < 2;) {
        ssize_t n = recv(fd, s->request, sizeof(s->request), 0);
        for (ssize_t i = 0; i < n; i++)
            newlines += s->request[i] == '\n';
        if (n <= 0)
            break;
    }
    (void)send(fd, s->answer, strlen(s->answer), MSG_NOSIGNAL);
    close(fd);
    return NULL;
}

static void an_answer_that_comes_too_late_is_not_taken_for_the_next(void **state)
{
    (void)state;
    struct server s;
    struct vpool_client *c = NULL;
    struct vpool_error err = {0};
    char *result = NULL;
    server_start_with(&s,
                      "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":\"old\"}\n"
                      "{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":\"new\"}\n",
                      late_server_run);
    assert_int_equal(vpool_connect(s.path, 300, &c, &err), 0);
    assert_int_equal(vpool_call(c, "pool.list", NULL, NULL, &err), -1);
    assert_string_equal(err.name, "TIMED_OUT");
    assert_int_equal(vpool_call(c, "pool.list", NULL, &result, &err), 0);
    assert_string_equal(result, "\"new\"");
    free(result);
    vpool_close(c);
    server_end(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_result_comes_back_as_text),
        cmocka_unit_test(a_refusal_fills_in_the_error),
        cmocka_unit_test(broken_answers_are_protocol_errors),
        cmocka_unit_test(a_server_that_closes_is_reported),
        cmocka_unit_test(a_silent_server_times_out),
        cmocka_unit_test(no_daemon_says_what_to_do),
        cmocka_unit_test(the_peer_is_who_listens),
        cmocka_unit_test(parameters_that_are_not_json_never_leave),
        cmocka_unit_test(a_wrapper_sends_what_it_was_given),
        cmocka_unit_test(a_detachment_can_be_forced),
        cmocka_unit_test(disks_come_and_go_by_their_names),
        cmocka_unit_test(an_answer_that_comes_too_late_is_not_taken_for_the_next),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

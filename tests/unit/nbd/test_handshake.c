/*
 * Options, byte by byte, and what is refused.
 * threads: yes
 * valgrind: no (its one lock stays with the reactor's thread while that waits in its ring)
 */
#include "tests/unit/nbd/fixture.h"

static char buf[70000];

static void unknown_client_flags_end_the_connection(void **state)
{
    (void)state;
    client_expect_end(client_greeted(0x80000003));
    wait_for(fx.serving == 0);
    assert_int_equal(fx.rc, VP_E_NBD_PROTOCOL);
}

static void export_name_is_answered_with_124_zeros(void **state)
{
    (void)state;
    struct nbdx_export_name_reply r;
    int fd = client_greeted(NBDX_FLAG_FIXED_NEWSTYLE);
    option_send(fd, NBDX_OPT_EXPORT_NAME, "p/v", 3);
    client_recv(fd, &r, sizeof(r));
    assert_int_equal(be64_get(r.size), FIXTURE_SIZE);
    assert_int_equal(be16_get(r.flags) & (NBDX_FLAG_HAS_FLAGS | NBDX_FLAG_READ_ONLY), 1);
    client_recv(fd, buf, 124);
    assert_true(bytes_are_zero(buf, 124));
    client_leave(fd, SIMPLE);
}

static void no_zeroes_leaves_the_zeros_away(void **state)
{
    (void)state;
    struct nbdx_export_name_reply r;
    int fd = client_greeted(3);
    option_send(fd, NBDX_OPT_EXPORT_NAME, "", 0);
    client_recv(fd, &r, sizeof(r));
    command_send(fd, SIMPLE, NBDX_CMD_FLUSH, 0, 7, 0, 0);
    simple_expect(fd, 7, 0);
    client_leave(fd, SIMPLE);
}

static void an_unknown_export_name_is_hung_up_on(void **state)
{
    (void)state;
    int fd = client_greeted(3);
    option_send(fd, NBDX_OPT_EXPORT_NAME, "p/nothing", 9);
    client_expect_end(fd);
}

static void export_name_after_extended_headers_is_hung_up_on(void **state)
{
    (void)state;
    int fd = client_greeted(3);
    option_is_answered(fd, NBDX_OPT_EXTENDED_HEADERS, NULL, 0, NBDX_REP_ACK);
    option_send(fd, NBDX_OPT_EXPORT_NAME, "p/v", 3);
    client_expect_end(fd);
}

static void info_and_go_give_the_same_answer(void **state)
{
    (void)state;
    char a[64], b[64];
    int fd = client_greeted(3);
    option_send(fd, NBDX_OPT_INFO, buf, info_payload(buf, "p/v", 0));
    assert_int_equal(option_expect(fd, NBDX_OPT_INFO, NBDX_REP_INFO, a), 12);
    option_expect(fd, NBDX_OPT_INFO, NBDX_REP_ACK, NULL);
    option_send(fd, NBDX_OPT_GO, buf, info_payload(buf, "p/v", 0));
    assert_int_equal(option_expect(fd, NBDX_OPT_GO, NBDX_REP_INFO, b), 12);
    option_expect(fd, NBDX_OPT_GO, NBDX_REP_ACK, NULL);
    assert_memory_equal(a, b, 12);
    client_leave(fd, SIMPLE);
}

static void info_tells_name_description_and_block_sizes_when_asked(void **state)
{
    (void)state;
    fx.export_count = 2;
    int fd = client_greeted(3);
    option_send(fd, NBDX_OPT_INFO, buf, info_payload(buf, "p/other", 9));
    struct nbdx_info_export e;
    assert_int_equal(option_expect(fd, NBDX_OPT_INFO, NBDX_REP_INFO, &e), sizeof(e));
    assert_int_equal(be64_get(e.size), FIXTURE_SIZE / 2);
    assert_int_equal(option_expect(fd, NBDX_OPT_INFO, NBDX_REP_INFO, buf), 2 + 7);
    assert_memory_equal(buf + 2, "p/other", 7);
    assert_int_equal(option_expect(fd, NBDX_OPT_INFO, NBDX_REP_INFO, buf), 2 + 7);
    assert_memory_equal(buf + 2, "another", 7);
    struct nbdx_info_block_size b;
    assert_int_equal(option_expect(fd, NBDX_OPT_INFO, NBDX_REP_INFO, &b), sizeof(b));
    assert_int_equal(be32_get(b.minimum), 1);
    assert_int_equal(be32_get(b.preferred), 4096);
    assert_int_equal(be32_get(b.maximum), 32 << 20);
    option_expect(fd, NBDX_OPT_INFO, NBDX_REP_ACK, NULL);
    close(fd);
}

static void go_for_an_unknown_export_is_refused_and_talk_goes_on(void **state)
{
    (void)state;
    int fd = client_greeted(3);
    option_is_answered(fd, NBDX_OPT_GO, buf, info_payload(buf, "p/nothing", 0),
                       NBDX_REP_ERR_UNKNOWN);
    option_is_answered(fd, NBDX_OPT_ABORT, NULL, 0, NBDX_REP_ACK);
    client_expect_end(fd);
    wait_for(fx.serving == 0);
    assert_int_equal(fx.rc, 0);
}

static void a_malformed_info_is_invalid(void **state)
{
    (void)state;
    int fd = client_greeted(3);
    uint32_t len = info_payload(buf, "p/v", 2);
    for (uint32_t n = 0; n < len; n++)
        option_is_answered(fd, NBDX_OPT_INFO, buf, n, NBDX_REP_ERR_INVALID);
    option_is_answered(fd, NBDX_OPT_GO, buf, len + 1, NBDX_REP_ERR_INVALID);
    memset(buf, 0xff, 4);
    option_is_answered(fd, NBDX_OPT_INFO, buf, len, NBDX_REP_ERR_INVALID);
    close(fd);
}

static void list_names_every_export(void **state)
{
    (void)state;
    fx.export_count = 2;
    int fd = client_greeted(3);
    option_send(fd, NBDX_OPT_LIST, NULL, 0);
    assert_int_equal(option_expect(fd, NBDX_OPT_LIST, NBDX_REP_SERVER, buf), 4 + 3);
    assert_memory_equal(buf + 4, "p/v", 3);
    assert_int_equal(option_expect(fd, NBDX_OPT_LIST, NBDX_REP_SERVER, buf), 4 + 7 + 7);
    assert_memory_equal(buf + 4, "p/otheranother", 14);
    option_expect(fd, NBDX_OPT_LIST, NBDX_REP_ACK, NULL);
    option_is_answered(fd, NBDX_OPT_LIST, "x", 1, NBDX_REP_ERR_INVALID);
    close(fd);
}

static void the_empty_name_is_unknown_among_two_exports(void **state)
{
    (void)state;
    fx.export_count = 2;
    int fd = client_greeted(3);
    option_is_answered(fd, NBDX_OPT_GO, buf, info_payload(buf, "", 0), NBDX_REP_ERR_UNKNOWN);
    close(fd);
}

static void starttls_is_refused_by_policy(void **state)
{
    (void)state;
    int fd = client_greeted(3);
    option_is_answered(fd, NBDX_OPT_STARTTLS, NULL, 0, NBDX_REP_ERR_POLICY);
    close(fd);
}

static void an_unknown_option_is_unsupported_and_its_payload_skipped(void **state)
{
    (void)state;
    int fd = client_greeted(3);
    option_is_answered(fd, 0x77777777, buf, 65536, NBDX_REP_ERR_UNSUP);
    option_is_answered(fd, 0, "xyz", 3, NBDX_REP_ERR_UNSUP);
    option_is_answered(fd, NBDX_OPT_LIST_META_CONTEXT, buf, 65537, NBDX_REP_ERR_TOO_BIG);
    option_is_answered(fd, NBDX_OPT_ABORT, NULL, 0, NBDX_REP_ACK);
    client_expect_end(fd);
}

static void an_absurd_length_is_hung_up_on(void **state)
{
    (void)state;
    int fd = client_greeted(3);
    struct nbdx_option o = {be64_make(NBDX_OPTION_MAGIC), be32_make(NBDX_OPT_LIST),
                            be32_make(UINT32_MAX)};
    client_send(fd, &o, sizeof(o));
    client_expect_end(fd);
}

static void a_wrong_option_magic_is_hung_up_on(void **state)
{
    (void)state;
    int fd = client_greeted(3);
    struct nbdx_option o = {be64_make(1), be32_make(NBDX_OPT_LIST), be32_make(0)};
    client_send(fd, &o, sizeof(o));
    client_expect_end(fd);
}

static void reply_kinds_are_switched_on_once_and_in_order(void **state)
{
    (void)state;
    int fd = client_greeted(3);
    option_is_answered(fd, NBDX_OPT_STRUCTURED_REPLY, "x", 1, NBDX_REP_ERR_INVALID);
    option_is_answered(fd, NBDX_OPT_STRUCTURED_REPLY, NULL, 0, NBDX_REP_ACK);
    option_is_answered(fd, NBDX_OPT_STRUCTURED_REPLY, NULL, 0, NBDX_REP_ERR_INVALID);
    option_is_answered(fd, NBDX_OPT_EXTENDED_HEADERS, NULL, 0, NBDX_REP_ACK);
    option_is_answered(fd, NBDX_OPT_EXTENDED_HEADERS, NULL, 0, NBDX_REP_ERR_INVALID);
    option_is_answered(fd, NBDX_OPT_STRUCTURED_REPLY, NULL, 0, NBDX_REP_ERR_EXT_HEADER_REQD);
    close(fd);
}

static void contexts_need_structured_replies(void **state)
{
    (void)state;
    int fd = client_greeted(3);
    option_is_answered(fd, NBDX_OPT_SET_META_CONTEXT, buf,
                       meta_payload(buf, "p/v", "base:allocation"), NBDX_REP_ERR_INVALID);
    close(fd);
}

static void contexts_are_listed_with_and_without_a_query(void **state)
{
    (void)state;
    const char *queries[] = {NULL, "base:", "base:allocation"};
    int fd = client_greeted(3);
    option_is_answered(fd, NBDX_OPT_STRUCTURED_REPLY, NULL, 0, NBDX_REP_ACK);
    for (int i = 0; i < 3; i++) {
        option_send(fd, NBDX_OPT_LIST_META_CONTEXT, buf, meta_payload(buf, "p/v", queries[i]));
        assert_int_equal(option_expect(fd, NBDX_OPT_LIST_META_CONTEXT, NBDX_REP_META_CONTEXT, buf),
                         4 + 15);
        assert_memory_equal(buf + 4, "base:allocation", 15);
        option_expect(fd, NBDX_OPT_LIST_META_CONTEXT, NBDX_REP_ACK, NULL);
    }
    option_is_answered(fd, NBDX_OPT_LIST_META_CONTEXT, buf, meta_payload(buf, "p/v", "x:y"),
                       NBDX_REP_ACK);
    option_is_answered(fd, NBDX_OPT_LIST_META_CONTEXT, buf, meta_payload(buf, "p/x", "base:"),
                       NBDX_REP_ERR_UNKNOWN);
    uint32_t len = meta_payload(buf, "p/v", "base:");
    for (uint32_t n = 0; n < len; n++)
        option_is_answered(fd, NBDX_OPT_LIST_META_CONTEXT, buf, n, NBDX_REP_ERR_INVALID);
    close(fd);
}

static void a_failed_set_drops_the_contexts_chosen_before(void **state)
{
    (void)state;
    int fd = client_greeted(3);
    option_is_answered(fd, NBDX_OPT_STRUCTURED_REPLY, NULL, 0, NBDX_REP_ACK);
    option_send(fd, NBDX_OPT_SET_META_CONTEXT, buf, meta_payload(buf, "p/v", "base:allocation"));
    option_expect(fd, NBDX_OPT_SET_META_CONTEXT, NBDX_REP_META_CONTEXT, NULL);
    option_expect(fd, NBDX_OPT_SET_META_CONTEXT, NBDX_REP_ACK, NULL);
    option_is_answered(fd, NBDX_OPT_SET_META_CONTEXT, buf, 3, NBDX_REP_ERR_INVALID);
    option_send(fd, NBDX_OPT_GO, buf, info_payload(buf, "p/v", 0));
    option_expect(fd, NBDX_OPT_GO, NBDX_REP_INFO, NULL);
    option_expect(fd, NBDX_OPT_GO, NBDX_REP_ACK, NULL);
    command_send(fd, STRUCTURED, NBDX_CMD_BLOCK_STATUS, 0, 5, 0, 4096);
    chunk_error_expect(fd, STRUCTURED, 5, NBDX_EINVAL);
    client_leave(fd, STRUCTURED);
}

/* A whole conversation up to a finished write, as bytes. */
static size_t conversation(char *to)
{
    size_t n = 0;
    char p[64];
    struct be32 flags = be32_make(3);
    memcpy(to, &flags, 4);
    n += 4;
    struct nbdx_option o = {be64_make(NBDX_OPTION_MAGIC), be32_make(NBDX_OPT_GO),
                            be32_make(info_payload(p, "p/v", 0))};
    memcpy(to + n, &o, sizeof(o));
    n += sizeof(o);
    memcpy(to + n, p, be32_get(o.length));
    n += be32_get(o.length);
    n += command_bytes(to + n, SIMPLE, NBDX_CMD_WRITE, 0, 9, 4096, 512);
    memset(to + n, 0xab, 512);
    return n + 512;
}

static void bytes_may_come_one_at_a_time(void **state)
{
    (void)state;
    int fd = client_connect();
    size_t n = conversation(buf);
    for (size_t i = 0; i < n; i++)
        client_send(fd, buf + i, 1);
    client_recv(fd, buf, 18 + 20 + 12 + 20);
    simple_expect(fd, 9, 0);
    client_leave(fd, SIMPLE);
    assert_int_equal(fx.volume.data[4096 + 511], 0xab);
}

static void a_client_may_vanish_after_every_byte(void **state)
{
    (void)state;
    size_t n = conversation(buf);
    for (size_t i = 0; i < n; i++) {
        int fd = client_connect();
        client_send(fd, buf, i);
        close(fd);
        wait_for(fx.serving == 0);
        assert_int_equal(fx.volume.writes, 0);
    }
}

static void a_handshake_that_takes_too_long_is_cut(void **state)
{
    (void)state;
    fx.limits.handshake_ms = 30;
    int fd = client_greeted(3);
    client_expect_end(fd);
    wait_for(fx.serving == 0);
    assert_int_equal(fx.rc, VP_E_TIMED_OUT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        nbd_test(unknown_client_flags_end_the_connection),
        nbd_test(export_name_is_answered_with_124_zeros),
        nbd_test(no_zeroes_leaves_the_zeros_away),
        nbd_test(an_unknown_export_name_is_hung_up_on),
        nbd_test(export_name_after_extended_headers_is_hung_up_on),
        nbd_test(info_and_go_give_the_same_answer),
        nbd_test(info_tells_name_description_and_block_sizes_when_asked),
        nbd_test(go_for_an_unknown_export_is_refused_and_talk_goes_on),
        nbd_test(a_malformed_info_is_invalid),
        nbd_test(list_names_every_export),
        nbd_test(the_empty_name_is_unknown_among_two_exports),
        nbd_test(starttls_is_refused_by_policy),
        nbd_test(an_unknown_option_is_unsupported_and_its_payload_skipped),
        nbd_test(an_absurd_length_is_hung_up_on),
        nbd_test(a_wrong_option_magic_is_hung_up_on),
        nbd_test(reply_kinds_are_switched_on_once_and_in_order),
        nbd_test(contexts_need_structured_replies),
        nbd_test(contexts_are_listed_with_and_without_a_query),
        nbd_test(a_failed_set_drops_the_contexts_chosen_before),
        nbd_test(bytes_may_come_one_at_a_time),
        nbd_test(a_client_may_vanish_after_every_byte),
        nbd_test(a_handshake_that_takes_too_long_is_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

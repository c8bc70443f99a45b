/* The kinds of export: what each row has, and which addresses it takes. */
#include "control/export.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct control_config config;
static struct control control = {.config = &config};

static int check(const struct export_kind *kind, const char *address, const char *mode)
{
    struct attachment_options o = {
        .kind = kind, .address = address, .socket = attachment_socket_default()};
    struct vp_error err = {0};
    if (mode)
        o.socket.mode = (uint16_t)strtoul(mode, NULL, 8);
    int rc = kind->check(&control, &o, &err);
    if (rc)
        assert_true(err.text[0]);
    return rc;
}

static void every_row_is_found_by_its_number_and_has_what_it_must(void **state)
{
    (void)state;
    for (unsigned i = 0; export_kinds[i]; i++) {
        const struct export_kind *k = export_kinds[i];
        assert_ptr_equal(export_by_number(k->number), k);
        assert_non_null(k->name);
        assert_true(k->check && k->start && k->stop && k->leave);
        assert_true(k->check_unused && k->users && k->figures && k->describe);
    }
    assert_null(export_by_number(0));
    assert_null(export_by_number(200));
}

static void an_address_is_taken_by_its_own_kind_only(void **state)
{
    (void)state;
    config.nbd_tcp_bind = CONTROL_TCP_LOOPBACK;
    assert_int_equal(check(&export_nbd, "unix:/run/x", NULL), 0);
    assert_int_equal(check(&export_nbd, "tcp:127.0.0.1:0", NULL), 0);
    assert_int_equal(check(&export_nbd, "ublk:auto", NULL), VP_E_INVALID);
    assert_int_equal(check(&export_ublk, "ublk:auto", NULL), 0);
    assert_int_equal(check(&export_ublk, "ublk:3,queues=2,depth=8", NULL), 0);
    assert_int_equal(check(&export_ublk, "unix:/run/x", NULL), VP_E_INVALID);
    assert_int_equal(check(&export_ublk, "", NULL), VP_E_INVALID);
    assert_int_equal(check(&export_ublk, "ublk:", NULL), VP_E_INVALID);
    assert_int_equal(check(&export_ublk, "ublk:auto,queues=0x", NULL), VP_E_INVALID);
}

static void nbd_over_tcp_is_what_the_configuration_allows(void **state)
{
    (void)state;
    config.nbd_tcp_bind = CONTROL_TCP_OFF;
    assert_int_equal(check(&export_nbd, "tcp:127.0.0.1:0", NULL), VP_E_PERMISSION);
    assert_int_equal(check(&export_nbd, "unix:/run/x", NULL), 0);
    config.nbd_tcp_bind = CONTROL_TCP_LOOPBACK;
    assert_int_equal(check(&export_nbd, "tcp:10.0.0.1:0", NULL), VP_E_PERMISSION);
    config.nbd_tcp_bind = CONTROL_TCP_ANY;
    assert_int_equal(check(&export_nbd, "tcp:10.0.0.1:0", NULL), 0);
    assert_int_equal(check(&export_nbd, "unix:run/x", NULL), VP_E_INVALID);
}

static void only_a_unix_socket_has_a_mode(void **state)
{
    (void)state;
    config.nbd_tcp_bind = CONTROL_TCP_LOOPBACK;
    assert_int_equal(check(&export_nbd, "unix:/run/x", "0600"), 0);
    assert_int_equal(check(&export_nbd, "tcp:127.0.0.1:0", "0600"), VP_E_RPC_PARAMS);
    assert_int_equal(check(&export_ublk, "ublk:auto", "0600"), VP_E_RPC_PARAMS);
}

static void a_device_that_is_tried_again_keeps_its_number_queues_and_depth(void **state)
{
    (void)state;
    static struct control_pool pool = {.name = "tank"};
    struct attachment a = {
        .pool = &pool, .kind = &export_ublk, .volume = "a", .address = "ublk:3,queues=2,depth=8"};
    struct vp_error err = {0};
    assert_int_equal(export_ublk.check_same(&a, "ublk:auto", &err), 0);
    assert_int_equal(export_ublk.check_same(&a, "ublk:3,depth=8", &err), 0);
    assert_int_equal(export_ublk.check_same(&a, "ublk:4", &err), VP_E_EXISTS);
    assert_int_equal(export_ublk.check_same(&a, "ublk:auto,queues=1", &err), VP_E_EXISTS);
    assert_int_equal(export_ublk.check_same(&a, "ublk:x", &err), VP_E_INVALID);
    assert_int_equal(export_ublk_number(&a), -1); /* not served */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_is_found_by_its_number_and_has_what_it_must),
        cmocka_unit_test(an_address_is_taken_by_its_own_kind_only),
        cmocka_unit_test(nbd_over_tcp_is_what_the_configuration_allows),
        cmocka_unit_test(only_a_unix_socket_has_a_mode),
        cmocka_unit_test(a_device_that_is_tried_again_keeps_its_number_queues_and_depth),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

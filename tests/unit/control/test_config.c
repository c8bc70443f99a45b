/* The configuration: defaults, every kind of value, and mistakes with their lines. */
#include "control/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct control_config config;

static int parse(const char *text, struct vp_error *err)
{
    control_config_defaults(&config);
    *err = (struct vp_error){0};
    return control_config_parse(&config, text, "conf", err);
}

static void assert_refused(const char *text, const char *says)
{
    struct vp_error err;
    assert_int_equal(parse(text, &err), VP_E_CONFIG_BAD);
    if (!strstr(err.text, says))
        fail_msg("'%s' does not say '%s'", err.text, says);
}

static void an_empty_text_leaves_the_defaults(void **state)
{
    (void)state;
    struct control_config defaults;
    struct vp_error err;
    memset(&defaults, 0, sizeof(defaults));
    control_config_defaults(&defaults);
    assert_int_equal(parse("", &err), 0);
    assert_string_equal(config.socket, defaults.socket);
    assert_int_equal(config.metadata_bytes, 256 << 20);
    assert_int_equal(config.nbd_tcp_bind, CONTROL_TCP_LOOPBACK);
    assert_string_equal(config.migrate_listen, "");
    assert_int_equal(config.migrate_tcp_bind, CONTROL_TCP_LOOPBACK);
}

static void every_kind_of_value_is_read(void **state)
{
    (void)state;
    struct vp_error err;
    assert_int_equal(parse("socket = \"/a\"; socket-group = \"g\"; reactors = 3; poll-us = 5;\n"
                           "metadata-memory = \"1G\"; buffer-memory = 16777216;\n"
                           "log-level = \"debug\"; disk-dirs = [\"/x\", \"/y\"];\n"
                           "nbd: { tcp-bind = \"any\"; buffer-per-connection = \"4M\"; };\n"
                           "control: { max-connections = 7; };\n"
                           "migrate: { listen = \"tcp:[::1]:7\"; tcp-bind = \"off\"; };",
                           &err),
                     0);
    assert_string_equal(config.socket, "/a");
    assert_string_equal(config.socket_group, "g");
    assert_int_equal(config.reactors, 3);
    assert_int_equal(config.poll_us, 5);
    assert_int_equal(config.metadata_bytes, 1 << 30);
    assert_int_equal(config.buffer_bytes, 16 << 20);
    assert_int_equal(config.log_level, VP_LOG_DEBUG);
    assert_int_equal(config.disk_dir_count, 2);
    assert_string_equal(config.disk_dirs[1], "/y");
    assert_int_equal(config.nbd_tcp_bind, CONTROL_TCP_ANY);
    assert_int_equal(config.nbd_buffer_per_connection, 4 << 20);
    assert_int_equal(config.control_connections_max, 7);
    assert_string_equal(config.migrate_listen, "tcp:[::1]:7");
    assert_int_equal(config.migrate_tcp_bind, CONTROL_TCP_OFF);
}

static void an_unknown_key_is_refused_with_its_line_and_what_is_known(void **state)
{
    (void)state;
    assert_refused("\n\nsockett = \"/a\";", "conf:3: unknown key 'sockett'");
    assert_refused("sockett = 1;", "known here are: socket socket-group");
    assert_refused("nbd: {\n port = 1; };", "conf:2: unknown key 'port' in group nbd");
    assert_refused("disk: { };", "unknown key 'disk'");
}

static void a_value_of_the_wrong_type_is_refused(void **state)
{
    (void)state;
    assert_refused("socket = 1;", "conf:1: 'socket' must be a text");
    assert_refused("reactors = \"1\";", "'reactors' must be a number");
    assert_refused("reactors = 1.5;", "'reactors' must be a number");
    assert_refused("reactors = true;", "'reactors' must be a number");
    assert_refused("log-level = 3;", "'log-level' must be");
    assert_refused("nbd = \"x\";", "'nbd' must be a group");
    assert_refused("disk-dirs = [1];", "'disk-dirs' must be a list of absolute paths");
    assert_refused("metadata-memory = \"1X\";", "'metadata-memory' must be a size");
}

static void a_value_out_of_bounds_is_refused(void **state)
{
    (void)state;
    assert_refused("reactors = 65;", "is 65, which is not between 0 and 64");
    assert_refused("reactors = -1;", "not negative");
    assert_refused("commit-interval-ms = 9223372036854775807L;", "not between");
    assert_refused("socket = \"relative\";", "absolute path");
    assert_refused("socket = \"\";", "absolute path");
    char text[400] = "socket = \"/";
    memset(text + strlen(text), 'x', 200);
    strncat(text, "\";", sizeof(text) - strlen(text) - 1);
    assert_refused(text, "longer than 107 bytes");
}

static void a_syntax_error_has_its_line(void **state)
{
    (void)state;
    /* No text in it: libconfig 1.5 leaks the one that it was scanning. */
    assert_refused("reactors = 1;\npoll-us 5;", "conf:2: syntax error");
    assert_refused("reactors = 1; reactors = 2;", "conf:1: duplicate");
}

static void a_missing_file_is_named(void **state)
{
    (void)state;
    struct vp_error err = {0};
    control_config_defaults(&config);
    assert_int_equal(control_config_load(&config, "/no/such/file", &err), VP_E_NOT_FOUND);
    assert_non_null(strstr(err.text, "/no/such/file"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_text_leaves_the_defaults),
        cmocka_unit_test(every_kind_of_value_is_read),
        cmocka_unit_test(an_unknown_key_is_refused_with_its_line_and_what_is_known),
        cmocka_unit_test(a_value_of_the_wrong_type_is_refused),
        cmocka_unit_test(a_value_out_of_bounds_is_refused),
        cmocka_unit_test(a_syntax_error_has_its_line),
        cmocka_unit_test(a_missing_file_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

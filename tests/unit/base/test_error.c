/* The table is whole: each code has a name, a class and a sentence; strangers are EIO. */
#include "base/bytes.h"
#include "base/error.h"
#include "base/log.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void every_code_has_a_name_a_class_and_a_sentence(void **state)
{
    (void)state;
    for (int rc = VP_E_BASE + 1; rc < VP_E_END; rc++) {
        assert_true(vp_err_class(rc) > 0);
        assert_true(strlen(vp_err_name(rc)) > 1);
        assert_true(strlen(vp_err_text(rc)) > 4);
    }
    assert_string_equal(vp_err_name(VP_E_NO_SPACE), "NO_SPACE");
    assert_int_equal(vp_err_class(VP_E_NO_SPACE), ENOSPC);
}

static void numbers_outside_the_table_are_unknown_and_eio(void **state)
{
    (void)state;
    static const int strange[] = {-1, -EINVAL, VP_E_BASE, VP_E_END, 5};
    for (size_t i = 0; i < sizeof(strange) / sizeof(strange[0]); i++) {
        assert_int_equal(vp_err_class(strange[i]), EIO);
        assert_string_equal(vp_err_name(strange[i]), "UNKNOWN");
    }
    assert_int_equal(vp_err_class(0), 0);
}

static void a_failure_keeps_its_code_and_sentence(void **state)
{
    (void)state;
    struct vp_error err = {0};
    assert_int_equal(vp_fail(&err, VP_E_BUSY, "%s is open %d times", "x", 2), VP_E_BUSY);
    assert_string_equal(err.text, "x is open 2 times");
    assert_int_equal(vp_fail_errno(&err, VP_E_SYSTEM, ENOENT, "open %s", "y"), VP_E_SYSTEM);
    assert_string_equal(err.text, "open y: No such file or directory");
    assert_int_equal(vp_fail(NULL, VP_E_IO, "nobody listens"), VP_E_IO);
}

static char last_line[1100];

static void keep_line(enum vp_log_level level, const char *line, void *arg)
{
    (void)level;
    (void)arg;
    (void)strncpy(last_line, line, sizeof(last_line) - 1);
}

static void a_sentence_that_is_cut_inside_a_character_stays_utf8(void **state)
{
    (void)state;
    struct vp_error err;
    vp_fail(&err, VP_E_INVALID, "'%.2s' %.3s", "a\303\251", "\342\202\254");
    assert_string_equal(err.text, "'a?' \342\202\254");
    vp_fail_errno(&err, VP_E_INVALID, ENOENT, "\377.img \300\200 \355\240\200 \364\220\200\200");
    assert_string_equal(err.text, "?.img ?? ??? ????: No such file or directory");
    char text[] = "\303\251 \342\202\254 \360\237\222\276 \360\237\222";
    bytes_make_printable(text);
    assert_string_equal(text, "\303\251 \342\202\254 \360\237\222\276 ???");
}

static void control_characters_are_not_printed(void **state)
{
    (void)state;
    char text[] = "a\nb\033[2J\t\177 \302\233 \302\240";
    bytes_make_printable(text);
    assert_string_equal(text, "a?b?[2J?? ?? \302\240");
}

static void the_log_drops_what_is_above_its_level(void **state)
{
    (void)state;
    vp_log_set_sink(keep_line, NULL);
    vp_log_set_level(VP_LOG_WARN);
    vp_warn("seen %d", 1);
    assert_string_equal(last_line, "seen 1");
    vp_info("not seen");
    assert_string_equal(last_line, "seen 1");
    assert_int_equal(vp_log_level_parse("debug"), VP_LOG_DEBUG);
    assert_int_equal(vp_log_level_parse("loud"), -1);
    vp_log_set_sink(NULL, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_has_a_name_a_class_and_a_sentence),
        cmocka_unit_test(numbers_outside_the_table_are_unknown_and_eio),
        cmocka_unit_test(a_failure_keeps_its_code_and_sentence),
        cmocka_unit_test(a_sentence_that_is_cut_inside_a_character_stays_utf8),
        cmocka_unit_test(control_characters_are_not_printed),
        cmocka_unit_test(the_log_drops_what_is_above_its_level),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

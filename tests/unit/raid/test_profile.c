/* Names and encodings of redundancy profiles. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "raid/profile.h"

static void assert_parses(const char *text, uint8_t kind, uint8_t data, uint8_t extra)
{
    struct raid_profile p;
    assert_true(raid_profile_parse(text, &p));
    assert_true(raid_profile_equal(p, (struct raid_profile){kind, data, extra}));
}

static void every_profile_has_a_name(void **state)
{
    (void)state;
    assert_parses("single", RAID_SINGLE, 1, 0);
    assert_parses("mirror", RAID_MIRROR, 1, 1);
    assert_parses("mirror:3", RAID_MIRROR, 1, 2);
    assert_parses("raid5:4+1", RAID_PARITY, 4, 1);
    assert_parses("raid6:10+2", RAID_PARITY, 10, 2);
    assert_parses("raid:8+3", RAID_PARITY, 8, 3);
}

static void malformed_names_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",           "singl",     "single:1",         "mirror:",  "mirror:1",  "mirror:9",
        "mirror:02",  "mirror:-2", "mirror:2x",        "mirrors",  "raid5",     "raid5:3+2",
        "raid6:3+1",  "raid5:1+1", "raid:4",           "raid:4+0", "raid:40+2", "raid:31+2",
        "raid:4+2+1", "raid7:4+3", "raid:4294967300+1"};
    struct raid_profile p;
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        if (raid_profile_parse(bad[i], &p))
            fail_msg("\"%s\" was taken", bad[i]);
}

static void a_name_survives_formatting(void **state)
{
    (void)state;
    static const char *const names[] = {"single",    "mirror:2",  "mirror:8",
                                        "raid5:4+1", "raid6:8+2", "raid:16+3"};
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        struct raid_profile p;
        char text[RAID_PROFILE_TEXT];
        assert_true(raid_profile_parse(names[i], &p));
        assert_string_equal(raid_profile_format(p, text), names[i]);
    }
}

static void every_encoding_from_a_disk_is_judged(void **state)
{
    (void)state;
    unsigned supported = 0;
    for (unsigned v = 0; v < 1U << 24; v += 1) {
        struct raid_profile p = {(uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16)};
        supported += raid_profile_is_supported(p);
    }
    assert_int_equal(supported, 1 + 7); /* single, mirror:2 … mirror:8 */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_profile_has_a_name),
        cmocka_unit_test(malformed_names_are_refused),
        cmocka_unit_test(a_name_survives_formatting),
        cmocka_unit_test(every_encoding_from_a_disk_is_judged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

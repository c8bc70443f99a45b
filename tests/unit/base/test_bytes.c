/* Sizes as people write them, uuids, zero tests, CRC vectors. */
#include "base/bytes.h"
#include "base/crc.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static void sizes_are_read_with_binary_units(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t value;
    } good[] = {{"0", 0},
                {"4096", 4096},
                {"64K", 65536},
                {"64k", 65536},
                {"1M", 1 << 20},
                {"1.5G", UINT64_C(3) << 29},
                {"1GiB", 1 << 30},
                {"2TB", UINT64_C(2) << 40},
                {"1P", UINT64_C(1) << 50}};
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        uint64_t v = 1;
        assert_true(bytes_parse_size(good[i].text, &v));
        assert_int_equal(v, good[i].value);
    }
}

static void malformed_sizes_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"",     "-1", "K",   "1X",  "1KK", "1.3",
                                      "0x10", " 1", "1 G", "nan", "inf", "99999999P"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        uint64_t v;
        assert_false(bytes_parse_size(bad[i], &v));
    }
}

static void sizes_are_printed_short(void **state)
{
    (void)state;
    char buf[16];
    assert_string_equal(bytes_format_size(0, buf, sizeof(buf)), "0");
    assert_string_equal(bytes_format_size(1023, buf, sizeof(buf)), "1023");
    assert_string_equal(bytes_format_size(65536, buf, sizeof(buf)), "64K");
    assert_string_equal(bytes_format_size(UINT64_C(3) << 29, buf, sizeof(buf)), "1.5G");
    assert_string_equal(bytes_format_size(UINT64_C(1) << 50, buf, sizeof(buf)), "1P");
}

static void uuids_survive_their_text(void **state)
{
    (void)state;
    uint8_t random[16];
    for (int i = 0; i < 16; i++)
        random[i] = (uint8_t)(i * 37);
    struct vp_uuid u = vp_uuid_from_random(random), back;
    char text[VP_UUID_TEXT];
    assert_true(vp_uuid_parse(vp_uuid_format(u, text), &back));
    assert_true(vp_uuid_equal(u, back));
    assert_int_equal(text[14], '4');
    text[5] = 'x';
    assert_false(vp_uuid_parse(text, &back));
    assert_false(vp_uuid_parse("12345678-1234", &back));
}

static void one_set_bit_anywhere_is_not_zero(void **state)
{
    (void)state;
    uint8_t *p = calloc(1, 4096);
    assert_non_null(p);
    assert_true(bytes_are_zero(p, 4096));
    assert_true(bytes_are_zero(p, 0));
    for (int i = 0; i < 4096; i++) {
        p[i] = 1;
        assert_false(bytes_are_zero(p, 4096));
        p[i] = 0;
    }
    free(p);
}

static void secrets_differ_wherever_one_bit_does(void **state)
{
    (void)state;
    uint8_t a[33], b[33];
    memset(a, 0x5a, sizeof(a));
    memcpy(b, a, sizeof(b));
    assert_true(bytes_equal_secret(a, b, sizeof(a)));
    for (size_t i = 0; i < sizeof(a); i++) {
        b[i] ^= (uint8_t)(1U << i % 8);
        assert_false(bytes_equal_secret(a, b, sizeof(a)));
        assert_true(bytes_equal_secret(a, b, i));
        b[i] = a[i];
    }
    assert_true(bytes_equal_secret(a, b, 0));
}

static void crc32c_matches_the_published_vectors(void **state)
{
    (void)state;
    /* RFC 3720, appendix B.4 */
    uint8_t buf[32] = {0};
    assert_int_equal(vp_crc32c(buf, 32), 0x8a9136aa);
    memset(buf, 0xff, 32);
    assert_int_equal(vp_crc32c(buf, 32), 0x62a8ab43);
    for (int i = 0; i < 32; i++)
        buf[i] = (uint8_t)i;
    assert_int_equal(vp_crc32c(buf, 32), 0x46dd794e);
    assert_int_equal(vp_crc32c("123456789", 9), 0xe3069283);
    assert_int_equal(vp_crc32c_more(vp_crc32c("1234", 4), "56789", 5), 0xe3069283);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_are_read_with_binary_units),
        cmocka_unit_test(malformed_sizes_are_refused),
        cmocka_unit_test(sizes_are_printed_short),
        cmocka_unit_test(uuids_survive_their_text),
        cmocka_unit_test(one_set_bit_anywhere_is_not_zero),
        cmocka_unit_test(secrets_differ_wherever_one_bit_does),
        cmocka_unit_test(crc32c_matches_the_published_vectors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Map entries for every chunk size; no pool needed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "thin/thin_impl.h"

static void entries_have_the_documented_sizes(void **state)
{
    (void)state;
    static const struct {
        uint32_t chunk, entry, per_leaf;
    } expected[] = {{16 << 10, 36, 112},  {32 << 10, 52, 77},   {64 << 10, 84, 48},
                    {128 << 10, 148, 27}, {256 << 10, 276, 14}, {512 << 10, 540, 7},
                    {1 << 20, 1068, 3}};
    for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
        struct thin_map_layout l = thin_map_layout_make(expected[i].chunk);
        assert_int_equal(l.chunk_blocks, expected[i].chunk / 4096);
        assert_int_equal(l.entry_bytes, expected[i].entry);
        assert_int_equal(THIN_PAGE_ROOM / l.entry_bytes, expected[i].per_leaf);
        assert_true(expected[i].per_leaf <= THIN_MARK_WORDS * 64);
        assert_int_equal(l.entry_bytes % 4, 0);
    }
}

static void valid_bits_of_all_blocks_are_kept_apart(void **state)
{
    (void)state;
    for (uint32_t chunk = 16 << 10; chunk <= 1 << 20; chunk *= 2) {
        struct thin_map_layout l = thin_map_layout_make(chunk);
        uint8_t bytes[2048];
        memset(bytes, 0, sizeof(bytes));
        struct thin_map_entry e = {.fixed = (void *)bytes};
        for (unsigned i = 0; i < l.chunk_blocks; i++) {
            assert_int_equal(thin_map_set_valid(e, i, 1, true), 1);
            assert_int_equal(thin_map_count_valid(e, 0, l.chunk_blocks), i + 1);
            assert_int_equal(thin_map_run(e, 0, l.chunk_blocks), i + 1);
        }
        assert_int_equal(thin_map_set_valid(e, 0, l.chunk_blocks, true), 0);
        assert_int_equal(thin_map_set_valid(e, 1, 2, false), 2);
        assert_int_equal(thin_map_run(e, 0, l.chunk_blocks), 1);
        assert_int_equal(thin_map_run(e, 1, l.chunk_blocks), 2);
        assert_int_equal(e.fixed->pchunk.raw, 0);
        assert_int_equal(bytes[l.crc_offset], 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(entries_have_the_documented_sizes),
        cmocka_unit_test(valid_bits_of_all_blocks_are_kept_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

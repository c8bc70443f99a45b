/* See bitmap.h. */
#include "base/bitmap.h"

static uint64_t align64(uint64_t bit)
{
    return bit & ~UINT64_C(63);
}

void bitmap_set_range(uint64_t *map, uint64_t from, uint64_t count)
{
    for (uint64_t i = from; i < from + count; i++)
        bitmap_set(map, i);
}

void bitmap_clear_range(uint64_t *map, uint64_t from, uint64_t count)
{
    for (uint64_t i = from; i < from + count; i++)
        bitmap_clear(map, i);
}

uint64_t bitmap_count(const uint64_t *map, uint64_t bits)
{
    uint64_t n = 0;
    for (uint64_t w = 0; w < bits / 64; w++)
        n += (uint64_t)__builtin_popcountll(map[w]);
    if (bits % 64)
        n += (uint64_t)__builtin_popcountll(map[bits / 64] & ((UINT64_C(1) << bits % 64) - 1));
    return n;
}

uint64_t bitmap_find(const uint64_t *map, uint64_t bits, uint64_t from, bool value)
{
    while (from < bits) {
        uint64_t word = value ? map[from / 64] : ~map[from / 64];
        word &= ~UINT64_C(0) << (from % 64);
        if (word) {
            uint64_t at = align64(from) + (uint64_t)__builtin_ctzll(word);
            return at < bits ? at : bits;
        }
        from = align64(from) + 64;
    }
    return bits;
}

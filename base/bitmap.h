/* Bitmaps of 64-bit words in memory. Indexes are in bits; the owner knows the size. */
#ifndef VP_BASE_BITMAP_H
#define VP_BASE_BITMAP_H

#include <stdbool.h>
#include <stdint.h>

static inline uint64_t bitmap_words(uint64_t bits)
{
    return (bits + 63) / 64;
}
static inline bool bitmap_test(const uint64_t *map, uint64_t bit)
{
    return map[bit / 64] >> (bit % 64) & 1;
}
static inline void bitmap_set(uint64_t *map, uint64_t bit)
{
    map[bit / 64] |= UINT64_C(1) << (bit % 64);
}
static inline void bitmap_clear(uint64_t *map, uint64_t bit)
{
    map[bit / 64] &= ~(UINT64_C(1) << (bit % 64));
}

void bitmap_set_range(uint64_t *map, uint64_t from, uint64_t count);
void bitmap_clear_range(uint64_t *map, uint64_t from, uint64_t count);
uint64_t bitmap_count(const uint64_t *map, uint64_t bits);

/* The first bit at or after `from` that equals `value`; `bits` when there is none. */
uint64_t bitmap_find(const uint64_t *map, uint64_t bits, uint64_t from, bool value);

#endif

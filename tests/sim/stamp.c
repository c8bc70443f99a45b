/* See stamp.h. */
#include "tests/sim/stamp.h"

#include "base/bytes.h"
#include "base/crc.h"
#include "base/hash.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define STAMP_MAGIC UINT64_C(0x706d617473707651)

struct stamp {
    uint64_t magic, seed, sector;
    uint32_t volume, seq;
    uint32_t crc; /* of what is above */
    uint32_t pad;
    uint64_t filler[59]; /* follows from the crc */
};
_Static_assert(sizeof(struct stamp) == STAMP_SECTOR, "a stamp fills a sector");

static struct stamp stamp_make(uint64_t seed, uint32_t volume, uint64_t sector, uint32_t seq)
{
    struct stamp s = {
        .magic = STAMP_MAGIC, .seed = seed, .sector = sector, .volume = volume, .seq = seq};
    s.crc = vp_crc32c(&s, offsetof(struct stamp, crc));
    uint64_t step = hash_mix(s.crc) | 1;
    for (unsigned i = 0; i < 59; i++)
        s.filler[i] = step * (i + 1);
    return s;
}

void stamp_fill(uint64_t seed, uint32_t volume, uint64_t sector, uint32_t seq, void *out)
{
    if (seq == STAMP_ZERO) {
        memset(out, 0, STAMP_SECTOR);
        return;
    }
    struct stamp s = stamp_make(seed, volume, sector, seq);
    memcpy(out, &s, sizeof(s));
}

uint32_t stamp_read(uint64_t seed, uint32_t volume, uint64_t sector, const void *in)
{
    struct stamp s;
    memcpy(&s, in, offsetof(struct stamp, filler));
    if (s.magic == 0 && bytes_are_zero(in, STAMP_SECTOR))
        return STAMP_ZERO;
    bool ours = s.magic == STAMP_MAGIC && s.seed == seed && s.sector == sector &&
                s.volume == volume && s.pad == 0 &&
                s.crc == vp_crc32c(&s, offsetof(struct stamp, crc));
    const unsigned char *filler = (const unsigned char *)in + offsetof(struct stamp, filler);
    uint64_t step = hash_mix(s.crc) | 1, wrong = 0;
    for (uint64_t i = 0; i < 59; i++) {
        uint64_t word;
        memcpy(&word, filler + 8 * i, sizeof(word));
        wrong |= word ^ step * (i + 1);
    }
    return ours && !wrong ? s.seq : STAMP_GARBAGE;
}

bool stamp_find(const void *in, uint64_t *sector, uint32_t *seq)
{
    struct stamp s;
    memcpy(&s, in, sizeof(s));
    *sector = s.sector;
    *seq = s.seq;
    return s.magic == STAMP_MAGIC && s.crc == vp_crc32c(&s, offsetof(struct stamp, crc));
}

void stamp_describe(const void *in, char *out, size_t size)
{
    struct stamp s;
    memcpy(&s, in, sizeof(s));
    struct stamp right = stamp_make(s.seed, s.volume, s.sector, s.seq);
    if (bytes_are_zero(in, STAMP_SECTOR))
        (void)snprintf(out, size, "zeros");
    else if (s.magic != STAMP_MAGIC)
        (void)snprintf(out, size, "noise %016" PRIx64 "…", s.magic);
    else
        (void)snprintf(out, size, "write %u of volume %u, sector %" PRIu64 "%s", s.seq, s.volume,
                       s.sector, memcmp(&s, &right, sizeof(s)) ? ", damaged" : "");
}

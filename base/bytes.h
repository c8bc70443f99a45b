/*
 * Bytes: little- and big-endian fields of disk and wire structures as types of their own, so that
 * a raw field is never used as a number by mistake; alignment; uuids.
 */
#ifndef VP_BASE_BYTES_H
#define VP_BASE_BYTES_H

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct le16 {
    uint16_t raw;
} __attribute__((packed));
struct le32 {
    uint32_t raw;
} __attribute__((packed));
struct le64 {
    uint64_t raw;
} __attribute__((packed));
struct be16 {
    uint16_t raw;
} __attribute__((packed));
struct be32 {
    uint32_t raw;
} __attribute__((packed));
struct be64 {
    uint64_t raw;
} __attribute__((packed));

static inline uint16_t le16_get(struct le16 v)
{
    return le16toh(v.raw);
}
static inline uint32_t le32_get(struct le32 v)
{
    return le32toh(v.raw);
}
static inline uint64_t le64_get(struct le64 v)
{
    return le64toh(v.raw);
}
static inline struct le16 le16_make(uint16_t v)
{
    return (struct le16){htole16(v)};
}
static inline struct le32 le32_make(uint32_t v)
{
    return (struct le32){htole32(v)};
}
static inline struct le64 le64_make(uint64_t v)
{
    return (struct le64){htole64(v)};
}
static inline uint16_t be16_get(struct be16 v)
{
    return be16toh(v.raw);
}
static inline uint32_t be32_get(struct be32 v)
{
    return be32toh(v.raw);
}
static inline uint64_t be64_get(struct be64 v)
{
    return be64toh(v.raw);
}
static inline struct be16 be16_make(uint16_t v)
{
    return (struct be16){htobe16(v)};
}
static inline struct be32 be32_make(uint32_t v)
{
    return (struct be32){htobe32(v)};
}
static inline struct be64 be64_make(uint64_t v)
{
    return (struct be64){htobe64(v)};
}

/* `align` is a power of two in these three. */
static inline uint64_t align_down(uint64_t v, uint64_t align)
{
    return v & ~(align - 1);
}
static inline uint64_t align_up(uint64_t v, uint64_t align)
{
    return (v + align - 1) & ~(align - 1);
}
static inline bool is_aligned(uint64_t v, uint64_t align)
{
    return (v & (align - 1)) == 0;
}
static inline bool is_pow2(uint64_t v)
{
    return v && !(v & (v - 1));
}
static inline uint64_t div_up(uint64_t v, uint64_t by)
{
    return v / by + (v % by != 0);
}
static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}
static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* True when all `len` bytes are zero. */
bool bytes_are_zero(const void *p, size_t len);

/* Whether both have the same bytes. How long that takes says nothing about where they differ: for
 * secrets. */
bool bytes_equal_secret(const void *a, const void *b, size_t len);

/* Parses "4096", "64K", "1.5G" (K M G T P, powers of 1024, optional B or iB). False when malformed,
 * negative or beyond 2^63. */
bool bytes_parse_size(const char *text, uint64_t *out);

/* "64K", "1.5G": the shortest human form with at most one decimal. `buf` has at least 16 bytes. */
const char *bytes_format_size(uint64_t v, char *buf, size_t buf_size);

/* Puts '?' in place of every byte that is not part of whole, well-formed UTF-8 (JSON carries
 * nothing else), and of every control character (a terminal would obey it). Such bytes come from a
 * sentence cut in the middle of a character, from a file's name, or from a disk's serial number. */
void bytes_make_printable(char *text);

struct vp_uuid {
    uint8_t b[16];
};

#define VP_UUID_TEXT 37

/* Writes the 36 characters and a NUL into `out`; returns out. */
char *vp_uuid_format(struct vp_uuid u, char out[VP_UUID_TEXT]);
bool vp_uuid_parse(const char *text, struct vp_uuid *out);
/* A version 4 uuid from 16 random bytes of the caller (random numbers come from io/). */
struct vp_uuid vp_uuid_from_random(const uint8_t random[16]);

static inline bool vp_uuid_equal(struct vp_uuid a, struct vp_uuid b)
{
    return memcmp(a.b, b.b, sizeof(a.b)) == 0;
}
static inline bool vp_uuid_is_zero(struct vp_uuid a)
{
    return bytes_are_zero(a.b, sizeof(a.b));
}

#endif

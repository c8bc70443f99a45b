/* Zero tests, sizes as people write them, uuids. */
#include "base/bytes.h"

#include <ctype.h>
#include <isa-l.h>
#include <stdio.h>
#include <stdlib.h>

bool bytes_are_zero(const void *p, size_t len)
{
    if (len == 0)
        return true;
    /* ISA-L takes a non-const pointer but only reads. */
    return isal_zero_detect((void *)(uintptr_t)p, len) == 0;
}

bool bytes_equal_secret(const void *a, const void *b, size_t len)
{
    const uint8_t *x = a, *y = b;
    volatile uint8_t differs = 0; /* volatile: no compiler ends the loop early */
    for (size_t i = 0; i < len; i++)
        differs = (uint8_t)(differs | (x[i] ^ y[i]));
    return differs == 0;
}

static int unit_shift(char c)
{
    static const char units[] = "KMGTP";
    const char *at = strchr(units, toupper((unsigned char)c));
    return c && at ? (int)(10 * (at - units + 1)) : -1;
}

bool bytes_parse_size(const char *text, uint64_t *out)
{
    if (!isdigit((unsigned char)text[0]))
        return false;
    size_t digits = strspn(text, "0123456789."); /* no signs, exponents or hexadecimals */
    char *end;
    long double v = strtold(text, &end);
    if (end != text + digits)
        return false;
    int shift = unit_shift(*end);
    if (shift > 0) {
        end++;
        if (end[0] == 'i' && end[1] == 'B')
            end += 2;
        else if (end[0] == 'B')
            end++;
    }
    if (*end != '\0')
        return false;
    for (int i = 0; i < shift; i++)
        v *= 2;
    if (!(v >= 0) || v > 9223372036854775807.0L || (uint64_t)v != v)
        return false;
    *out = (uint64_t)v;
    return true;
}

const char *bytes_format_size(uint64_t v, char *buf, size_t buf_size)
{
    static const char units[] = "\0KMGTP";
    unsigned unit = 0;
    double d = (double)v;
    while (d >= 1024 && unit < 5) {
        d /= 1024;
        unit++;
    }
    bool whole = d >= 100 || d == (double)(uint64_t)d;
    (void)snprintf(buf, buf_size, whole ? "%.0f%.1s" : "%.1f%.1s", d, &units[unit]);
    return buf;
}

/* The length of the character at p, 0 when it is malformed (RFC 3629: shortest form, no
 * surrogates) or a control character (C0, DEL, C1). A NUL is no continuation, so this never looks
 * past the end. */
static size_t printable_length(const unsigned char *p)
{
    if (p[0] < 0x80)
        return p[0] >= 0x20 && p[0] != 0x7f;
    size_t len = p[0] >= 0xc2 && p[0] <= 0xdf ? 2 : (p[0] & 0xf0) == 0xe0 ? 3 : 4;
    if (p[0] < 0xc2 || p[0] > 0xf4)
        return 0;
    unsigned char low = p[0] == 0xe0 || p[0] == 0xc2 ? 0xa0 : p[0] == 0xf0 ? 0x90 : 0x80;
    unsigned char high = p[0] == 0xed ? 0x9f : p[0] == 0xf4 ? 0x8f : 0xbf;
    if (p[1] < low || p[1] > high)
        return 0;
    for (size_t i = 2; i < len; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    return len;
}

void bytes_make_printable(char *text)
{
    while (*text) {
        size_t len = printable_length((unsigned char *)text);
        if (!len)
            *text = '?';
        text += len ? len : 1;
    }
}

char *vp_uuid_format(struct vp_uuid u, char out[VP_UUID_TEXT])
{
    static const char hex[] = "0123456789abcdef";
    char *o = out;
    for (int i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            *o++ = '-';
        *o++ = hex[u.b[i] >> 4];
        *o++ = hex[u.b[i] & 15];
    }
    *o = '\0';
    return out;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)tolower((unsigned char)c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool vp_uuid_parse(const char *text, struct vp_uuid *out)
{
    for (int i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            if (*text++ != '-')
                return false;
        int hi = hex_digit(text[0]);
        int lo = hi < 0 ? -1 : hex_digit(text[1]);
        if (lo < 0)
            return false;
        out->b[i] = (uint8_t)(hi << 4 | lo);
        text += 2;
    }
    return *text == '\0';
}

struct vp_uuid vp_uuid_from_random(const uint8_t random[16])
{
    struct vp_uuid u;
    memcpy(u.b, random, sizeof(u.b));
    u.b[6] = (uint8_t)((u.b[6] & 0x0f) | 0x40);
    u.b[8] = (uint8_t)((u.b[8] & 0x3f) | 0x80);
    return u;
}

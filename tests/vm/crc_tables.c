/*
 * For tests/vm/bench --crc-tables, by LD_PRELOAD: ISA-L's crc32_iscsi by tables. QEMU's software
 * emulation computes the processor's crc32 instruction bit by bit, 26 µs for 4 KiB; slicing by
 * eight takes 7 µs there (a processor with the instruction: 0.1 to 0.2). So what a comparison in
 * the test machine shows is less of the emulator. Never used by the product or by a test.
 */
#include <endian.h>
#include <stdint.h>
#include <string.h>

#define POLYNOMIAL 0x82f63b78U /* Castagnoli, reflected */

unsigned crc32_iscsi(unsigned char *buffer, int len, unsigned crc);

static uint32_t table[8][256]; /* [k][b]: byte b, and k zero bytes after it */

__attribute__((constructor)) static void tables_make(void)
{
    for (unsigned b = 0; b < 256; b++) {
        uint32_t crc = b;
        for (unsigned bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? POLYNOMIAL : 0);
        table[0][b] = crc;
    }
    for (unsigned k = 1; k < 8; k++)
        for (unsigned b = 0; b < 256; b++)
            table[k][b] = table[k - 1][b] >> 8 ^ table[0][table[k - 1][b] & 0xff];
}

__attribute__((visibility("default"))) unsigned crc32_iscsi(unsigned char *buffer, int len,
                                                            unsigned crc)
{
    for (; len >= 8; len -= 8, buffer += 8) {
        uint64_t x;
        memcpy(&x, buffer, sizeof(x));
        x = le64toh(x) ^ crc;
        crc = table[7][x & 0xff] ^ table[6][x >> 8 & 0xff] ^ table[5][x >> 16 & 0xff] ^
              table[4][x >> 24 & 0xff] ^ table[3][x >> 32 & 0xff] ^ table[2][x >> 40 & 0xff] ^
              table[1][x >> 48 & 0xff] ^ table[0][x >> 56];
    }
    for (; len > 0; len--)
        crc = crc >> 8 ^ table[0][(crc ^ *buffer++) & 0xff];
    return crc;
}

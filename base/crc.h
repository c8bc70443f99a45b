/* CRC32C (Castagnoli), by ISA-L. crc32c(data) is the usual convention: all-ones in, inverted out.
 */
#ifndef VP_BASE_CRC_H
#define VP_BASE_CRC_H

#include <stddef.h>
#include <stdint.h>

uint32_t vp_crc32c(const void *p, size_t len);

/* Continues: vp_crc32c_more(vp_crc32c(a), b) == vp_crc32c(a followed by b). */
uint32_t vp_crc32c_more(uint32_t crc, const void *p, size_t len);

#endif

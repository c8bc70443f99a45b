/* ISA-L picks the implementation for this processor at load time. */
#include "base/crc.h"

#include <isa-l.h>

uint32_t vp_crc32c(const void *p, size_t len)
{
    return vp_crc32c_more(0, p, len);
}

uint32_t vp_crc32c_more(uint32_t crc, const void *p, size_t len)
{
    /* ISA-L takes a non-const pointer but only reads. */
    return ~crc32_iscsi((unsigned char *)(uintptr_t)p, (int)len, ~crc);
}

/*
 * A record as it stands in log batches and table images: this header, the value, zeros up to a
 * multiple of 8. Records follow one another; a run of batches is one byte stream, so a record may
 * begin in one batch and end in the next.
 */
#ifndef VP_POOL_RECORD_FORMAT_H
#define VP_POOL_RECORD_FORMAT_H

#include "base/bytes.h"

#include <assert.h>

enum record_op { RECORD_SET = 1, RECORD_DELETE = 2 };

struct record_header {
    uint8_t kind; /* enum pool_record_kind                        */
    uint8_t op;
    struct le16 len; /* of the value; 0 for RECORD_DELETE            */
    struct le32 scope;
    struct le64 key;
} __attribute__((packed));
static_assert(sizeof(struct record_header) == 16, "on disk");

#define RECORD_ALIGN 8U

#endif

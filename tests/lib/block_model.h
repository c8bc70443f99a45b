/*
 * What a volume must read as: one sequence number a block, 0 = zeros. Blocks that are written say
 * in their bytes which write and which block they are, so that a block that reads as something else
 * also says as what.
 */
#ifndef VP_TESTS_BLOCK_MODEL_H
#define VP_TESTS_BLOCK_MODEL_H

#include "thin/thin.h"

#include <stdint.h>

struct block_model {
    uint64_t blocks, seq;
    uint64_t *now;       /* what a read must give                                 */
    uint64_t *committed; /* what a crash may go back to, at most                  */
    bool *zeroed;        /* a zero came since the commit                          */
    uint8_t *buf;        /* 64 blocks, aligned                                    */
};
enum { BLOCK_MODEL_IO_MAX = 64 };

void block_model_init(struct block_model *m, uint64_t blocks);
void block_model_fini(struct block_model *m);
void block_fill(uint8_t *to, uint64_t seq, uint64_t block);

CO int block_model_write(struct block_model *m, struct thin *t, uint64_t block, unsigned count);
CO int block_model_zero(struct block_model *m, struct thin *t, uint64_t block, uint64_t count,
                        bool keep);
CO int block_model_commit(struct block_model *m, struct thin *t);
/* Blocks that do not read as they must; prints the first. */
CO uint64_t block_model_compare(struct block_model *m, struct thin *t);
/* After a crash: every block is the committed one or a later one; the model becomes what was read.
 * Returns the number of blocks that are neither. */
CO uint64_t block_model_recover(struct block_model *m, struct thin *t);

#endif

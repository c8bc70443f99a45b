/*
 * What a volume must read as: one sequence number for each block, 0 for zeros. The bytes of a
 * written block say which write and which block they are. So a block that reads wrong also says
 * what it is instead.
 */
#ifndef VP_TESTS_BLOCK_MODEL_H
#define VP_TESTS_BLOCK_MODEL_H

#include "thin/thin.h"

#include <stdint.h>

/* Writes, zeros and commits are numbered by one counter. */
struct block_model {
    uint64_t blocks, seq;
    uint64_t *now;       /* what a read must give: number of the write, 0 = zeros     */
    uint64_t *done;      /* number of the last operation on the block that ended     */
    uint64_t *committed; /* what a crash may go back to, at most …                   */
    uint64_t *floor;     /* … as of this operation                                   */
    uint64_t *zeroing;   /* number of the last zero that began                       */
    uint8_t *buf;        /* BLOCK_MODEL_IO_MAX blocks, aligned                       */
};
enum { BLOCK_MODEL_IO_MAX = 64 };

void block_model_init(struct block_model *m, uint64_t blocks);
void block_model_fini(struct block_model *m);
void block_fill(uint8_t *to, uint64_t seq, uint64_t block);

CO int block_model_write(struct block_model *m, struct thin *t, uint64_t block, unsigned count);
/* The same from the caller's buffer, for several writers at once (of different blocks). */
CO int block_model_write_from(struct block_model *m, struct thin *t, uint64_t block, unsigned count,
                              uint8_t *buf);
CO int block_model_zero(struct block_model *m, struct thin *t, uint64_t block, uint64_t count,
                        bool keep);
CO int block_model_commit(struct block_model *m, struct thin *t);
/* A commit that began after the last operation on this block has ended. */
void block_model_is_committed(struct block_model *m, uint64_t block);
/* Blocks that do not read as they must; prints the first. */
CO uint64_t block_model_compare(struct block_model *m, struct thin *t);
/* After a crash, every block must be the committed one or a later one. The model takes over what
 * was read. Returns the number of blocks that are neither. */
CO uint64_t block_model_recover(struct block_model *m, struct thin *t);

#endif

/* See block_model.h. */
#include "tests/lib/block_model.h"

#include "base/hash.h"
#include "base/verify.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void block_model_init(struct block_model *m, uint64_t blocks)
{
    uint64_t **arrays[] = {&m->now, &m->done, &m->committed, &m->floor, &m->zeroing};
    memset(m, 0, sizeof(*m));
    m->blocks = blocks;
    for (unsigned i = 0; i < sizeof(arrays) / sizeof(arrays[0]); i++) {
        *arrays[i] = calloc(blocks, sizeof(uint64_t));
        VP_VERIFY_TRUE(*arrays[i] != NULL);
    }
    m->buf = aligned_alloc(POOL_BLOCK, (size_t)BLOCK_MODEL_IO_MAX * POOL_BLOCK);
    VP_VERIFY_TRUE(m->buf != NULL);
}

void block_model_fini(struct block_model *m)
{
    free(m->now);
    free(m->done);
    free(m->committed);
    free(m->floor);
    free(m->zeroing);
    free(m->buf);
}

void block_fill(uint8_t *to, uint64_t seq, uint64_t block)
{
    uint64_t word[POOL_BLOCK / 8];
    for (unsigned i = 0; i < POOL_BLOCK / 8; i++)
        word[i] = seq ? hash_mix(seq * 131 + block * 7 + i) : 0;
    if (seq) {
        word[0] = seq;
        word[1] = block;
    }
    memcpy(to, word, POOL_BLOCK);
}

CO int block_model_write(struct block_model *m, struct thin *t, uint64_t block, unsigned count)
{
    return block_model_write_from(m, t, block, count, m->buf);
}

CO int block_model_write_from(struct block_model *m, struct thin *t, uint64_t block, unsigned count,
                              uint8_t *buf)
{
    uint64_t seq = ++m->seq;
    for (unsigned i = 0; i < count; i++)
        block_fill(buf + (size_t)i * POOL_BLOCK, seq, block + i);
    int rc = thin_write(t, block, count, buf);
    for (unsigned i = 0; i < count && !rc; i++)
        m->now[block + i] = m->done[block + i] = seq;
    return rc;
}

CO int block_model_zero(struct block_model *m, struct thin *t, uint64_t block, uint64_t count,
                        bool keep)
{
    uint64_t seq = ++m->seq;
    for (uint64_t i = 0; i < count; i++)
        m->zeroing[block + i] = seq;
    int rc = thin_zero(t, block, count, keep);
    for (uint64_t i = 0; i < count && !rc; i++) {
        m->now[block + i] = 0;
        m->done[block + i] = seq;
    }
    return rc;
}

void block_model_is_committed(struct block_model *m, uint64_t block)
{
    m->committed[block] = m->now[block];
    m->floor[block] = m->done[block];
}

CO int block_model_commit(struct block_model *m, struct thin *t)
{
    int rc = thin_commit(t);
    for (uint64_t i = 0; i < m->blocks && !rc; i++)
        block_model_is_committed(m, i);
    return rc;
}

/* The sequence number that a block's bytes say, UINT64_MAX when they say nothing sensible. */
static uint64_t block_seq(const uint8_t *bytes, uint64_t block)
{
    uint64_t seq;
    uint8_t expected[POOL_BLOCK];
    memcpy(&seq, bytes, sizeof(seq));
    block_fill(expected, seq, block);
    return memcmp(bytes, expected, POOL_BLOCK) == 0 ? seq : UINT64_MAX;
}

static bool seq_is_allowed(const struct block_model *m, uint64_t block, uint64_t seq)
{
    if (seq == m->committed[block])
        return true;
    if (seq == 0)
        return m->zeroing[block] > m->floor[block];
    return seq > m->floor[block] && seq <= m->seq;
}

static CO uint64_t model_read(struct block_model *m, struct thin *t, bool recover)
{
    uint64_t bad = 0;
    for (uint64_t at = 0; at < m->blocks; at += BLOCK_MODEL_IO_MAX) {
        unsigned n = (unsigned)min_u64(BLOCK_MODEL_IO_MAX, m->blocks - at);
        int rc = thin_read(t, at, n, m->buf);
        if (rc)
            (void)fprintf(stderr, "read at block %" PRIu64 ": %s\n", at, vp_err_name(rc));
        for (unsigned i = 0; i < n; i++) {
            uint64_t seq = rc ? UINT64_MAX : block_seq(m->buf + (size_t)i * POOL_BLOCK, at + i);
            bool ok = recover ? seq_is_allowed(m, at + i, seq) : seq == m->now[at + i];
            if (!ok && !bad++)
                (void)fprintf(stderr,
                              "block %" PRIu64 " reads as %" PRIi64 "; now %" PRIu64
                              ", committed %" PRIu64 "\n",
                              at + i, (int64_t)seq, m->now[at + i], m->committed[at + i]);
            if (recover && ok) { /* what survived a crash survives the next one too */
                m->now[at + i] = seq;
                m->done[at + i] = m->seq;
                block_model_is_committed(m, at + i);
            }
        }
    }
    return bad;
}

CO uint64_t block_model_compare(struct block_model *m, struct thin *t)
{
    return model_read(m, t, false);
}

CO uint64_t block_model_recover(struct block_model *m, struct thin *t)
{
    return model_read(m, t, true);
}

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
    memset(m, 0, sizeof(*m));
    m->blocks = blocks;
    m->now = calloc(blocks, sizeof(*m->now));
    m->committed = calloc(blocks, sizeof(*m->committed));
    m->zeroed = calloc(blocks, sizeof(*m->zeroed));
    m->buf = aligned_alloc(POOL_BLOCK, (size_t)BLOCK_MODEL_IO_MAX * POOL_BLOCK);
    VP_VERIFY_TRUE(m->now && m->committed && m->zeroed && m->buf);
}

void block_model_fini(struct block_model *m)
{
    free(m->now);
    free(m->committed);
    free(m->zeroed);
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
    uint64_t seq = ++m->seq;
    for (unsigned i = 0; i < count; i++)
        block_fill(m->buf + (size_t)i * POOL_BLOCK, seq, block + i);
    int rc = thin_write(t, block, count, m->buf);
    for (unsigned i = 0; i < count && !rc; i++)
        m->now[block + i] = seq;
    return rc;
}

CO int block_model_zero(struct block_model *m, struct thin *t, uint64_t block, uint64_t count,
                        bool keep)
{
    memset(m->zeroed + block, true, count * sizeof(*m->zeroed)); /* even if it fails half-way */
    int rc = thin_zero(t, block, count, keep);
    if (!rc)
        memset(m->now + block, 0, count * sizeof(*m->now));
    return rc;
}

CO int block_model_commit(struct block_model *m, struct thin *t)
{
    int rc = thin_commit(t);
    if (rc)
        return rc;
    memcpy(m->committed, m->now, m->blocks * sizeof(*m->now));
    memset(m->zeroed, 0, m->blocks * sizeof(*m->zeroed));
    return 0;
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
    if (seq == m->committed[block] || (seq == 0 && m->zeroed[block]))
        return true;
    return seq != UINT64_MAX && seq > m->committed[block] && seq <= m->seq;
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
                m->now[at + i] = m->committed[at + i] = seq;
                m->zeroed[at + i] = false;
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

/*
 * Combinations of operations. Most crash-consistency bugs need no more than three operations on
 * something small and fresh. So all pairs and triples of a vocabulary are explored.
 *
 * The words of the vocabulary work on a volume "a" of 64 blocks, in chunks of 4. Its blocks 0 … 11
 * are written.
 */
#include "tests/sim/explore.h"

#include "base/verify.h"

enum { WORD_OPS = 4, WORD_RESIZE = COMBINE_WORDS - 1, BODY_OPS = 3 * (WORD_OPS + 1) + 2 };

static const struct op words[COMBINE_WORDS][WORD_OPS] = {
    {{OP_WRITE, "a", BLOCKS(21), BLOCKS(1), 0}},     /* into a chunk that was never written */
    {{OP_WRITE, "a", BLOCKS(1), BLOCKS(1), 0}},      /* over a block               */
    {{OP_WRITE, "a", BLOCKS(10), BLOCKS(4), 0}},     /* both, in two chunks        */
    {{OP_WRITE, "a", BLOCKS(2) + 1, 2, 0}},          /* a part of a block          */
    {{OP_WRITE, "a", BLOCKS(6), BLOCKS(1), OP_FUA}}, /* durably                    */
    {{OP_WRITE, "a", BLOCKS(40), BLOCKS(16), 0}},    /* four chunks                */
    {{OP_ZERO, "a", BLOCKS(1) + 3, BLOCKS(1), 0}},   /* parts of two blocks        */
    {{OP_DISCARD, "a", BLOCKS(0), BLOCKS(4), 0}},    /* a chunk                    */
    {{OP_DISCARD, "a", BLOCKS(1), BLOCKS(5), 0}},    /* most of one, some of the next */
    {{OP_CHECKPOINT, NULL, 0, 0, 0}},
    {{OP_CREATE, "c", 0, BLOCKS(16), 0},
     {OP_WRITE, "c", BLOCKS(0), BLOCKS(5), OP_FUA},
     {OP_DELETE, "c", 0, 0, 0},
     {OP_BACKGROUND, NULL, 0, 0, 0}},
    {{OP_RESIZE, "a", 0, BLOCKS(6), 0}, {OP_RESIZE, "a", 0, BLOCKS(64), 0}},
};
static const struct op flush = {OP_FLUSH, "a", 0, 0, 0};

struct body {
    struct op op[BODY_OPS];
    unsigned count;
};

static void add(struct body *b, const struct op *op)
{
    VP_VERIFY(b->count, <, (unsigned)BODY_OPS - 1);
    b->op[b->count++] = *op;
}

static void add_word(struct body *b, unsigned word)
{
    for (unsigned i = 0; i < WORD_OPS && words[word][i].kind; i++)
        add(b, &words[word][i]);
}

/* Modes: one after the other; at once; with a flush between. */
const struct op *combine_pair(unsigned variant)
{
    static struct body b;
    unsigned mode = variant % 3, first = variant / 3 / COMBINE_WORDS;
    b = (struct body){.count = 0};
    add_word(&b, first);
    if (mode == 1 && first != WORD_RESIZE) /* a write beyond the end is no finding */
        b.op[b.count - 1].flags |= OP_WITH_NEXT;
    if (mode == 2)
        add(&b, &flush);
    add_word(&b, variant / 3 % COMBINE_WORDS);
    add(&b, &flush);
    return b.op;
}

const struct op *combine_triple(unsigned variant)
{
    static struct body b;
    b = (struct body){.count = 0};
    add_word(&b, variant / COMBINE_WORDS / COMBINE_WORDS);
    add_word(&b, variant / COMBINE_WORDS % COMBINE_WORDS);
    add_word(&b, variant % COMBINE_WORDS);
    add(&b, &flush);
    return b.op;
}

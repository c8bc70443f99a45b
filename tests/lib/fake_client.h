/*
 * A pool's client for tests: an array of numbers as a one-page "tree". MAP records set numbers, a
 * checkpoint writes the page, and an import reads the page and then replays. Every commit also sets
 * the same number in a COUNTER record, so a commit of which only half survived is noticed.
 */
#ifndef VP_TESTS_FAKE_CLIENT_H
#define VP_TESTS_FAKE_CLIENT_H

#include "pool/pool.h"

enum { FAKE_KEYS = 16, FAKE_SCOPE = 7 };

struct fake_client {
    struct pool *pool;
    uint64_t value[FAKE_KEYS];
    struct pool_page_ref page;
    bool dirty;
    bool replayed[FAKE_KEYS];
    unsigned checkpoints, replays;
    int fail_checkpoint; /* what the next checkpoints return; 0 = they work */
};

struct pool_client fake_client_of(struct fake_client *c);
/* CO. value[key] = number, in MAP and COUNTER records of one batch; `ballast` more bytes with it.
 */
CO int fake_commit(struct fake_client *c, unsigned key, uint64_t number, size_t ballast);
/* CO. After pool_import with this client: loads the page under what was replayed. */
CO int fake_load(struct fake_client *c, struct pool *p);

#endif

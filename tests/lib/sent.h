/*
 * Requests beside a test: each runs in a coroutine of its own, so that the test goes on while they
 * wait, and sees which are done.
 */
#ifndef VP_TESTS_SENT_H
#define VP_TESTS_SENT_H

#include "io/co.h"
#include "volumes/front.h"

struct sent {
    struct front_client client;
    CO int (*run)(struct sent *t); /* the request */
    uint64_t at;                   /* for `run`: a byte of the volume */
    uint8_t byte;                  /* … and what it read there        */
    bool done;
    int rc; /* once it is done */
};

/* A new client of `f` begins the request in this turn or the next. */
void sent_begin(struct sent *t, struct front *f, int (*run)(struct sent *t), uint64_t at);
/* The same; the request has come as far as it can when this returns. */
CO void sent_begin_and_yield(struct sent *t, struct front *f, int (*run)(struct sent *t),
                             uint64_t at);

#endif

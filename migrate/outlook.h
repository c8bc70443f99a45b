/*
 * How long a move will take, as it goes now, or whether it never ends. A law only: live.c and
 * estimates use it. Tested by tests/unit/migrate/test_outlook.c.
 */
#ifndef VP_MIGRATE_OUTLOOK_H
#define VP_MIGRATE_OUTLOOK_H

#include <stdbool.h>
#include <stdint.h>

struct outlook_now {
    uint64_t left_bytes;    /* that were never copied           */
    uint64_t dirty_bytes;   /* to be copied again               */
    uint64_t check_bytes;   /* to be compared on both sides, once, besides that */
    uint64_t rate_bytes;    /* a second, of the copy; 0: not known */
    uint64_t dirtied_bytes; /* a second, that become dirty; those that are mirrored do not */
};

struct outlook {
    bool known;
    bool never; /* more becomes dirty than is copied */
    uint64_t ns;
    /* How fast what is dirty becomes more (positive) or less, bytes a second. */
    double drift;
};

struct outlook outlook_of(const struct outlook_now *now);

#endif

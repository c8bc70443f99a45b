/* What a daemon's events say, for tests. */
#ifndef VP_TESTS_EVENTS_OF_H
#define VP_TESTS_EVENTS_OF_H

#include "control/event.h"

/* How many events of this kind there are among the first 100. */
unsigned events_of(const struct event_ring *events, const char *kind);

#endif

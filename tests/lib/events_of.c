/* What a daemon's events say, for tests. */
#include "tests/lib/events_of.h"

#include <string.h>

unsigned events_of(const struct event_ring *events, const char *kind)
{
    json_t *r = event_list(events, 0, 100);
    const json_t *e;
    unsigned n = 0;
    size_t i;
    json_array_foreach(json_object_get(r, "events"), i, e)
    {
        n += strcmp(json_string_value(json_object_get(e, "kind")), kind) == 0;
    }
    json_decref(r);
    return n;
}

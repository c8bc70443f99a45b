/* The ring of events. */
#include "control/event.h"

#include "base/bytes.h"
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static const char *const level_names[] = {"error", "warn", "info", "debug"};

int event_ring_init(struct event_ring *r)
{
    r->epoch = 0;
    r->slot = calloc(EVENT_RING, sizeof(*r->slot));
    r->last = 0;
    co_queue_init(&r->arrived);
    return r->slot ? 0 : VP_E_NO_MEMORY;
}

void event_ring_fini(struct event_ring *r)
{
    free(r->slot);
    r->slot = NULL;
}

void event_add(struct event_ring *r, uint64_t seconds, enum vp_log_level level, const char *kind,
               const char *subject, const char *fmt, ...)
{
    struct event *e = &r->slot[++r->last % EVENT_RING];
    *e = (struct event){.seq = r->last, .seconds = seconds, .level = level};
    (void)snprintf(e->kind, sizeof(e->kind), "%s", kind);
    (void)snprintf(e->subject, sizeof(e->subject), "%s", subject);
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(e->text, sizeof(e->text), fmt, ap);
    va_end(ap);
    bytes_make_printable(e->subject);
    bytes_make_printable(e->text);
    vp_log(level, "%s: %s: %s", kind, subject, e->text);
    co_queue_wake_all(&r->arrived);
}

void event_add_earlier(struct event_ring *r, const struct event *e)
{
    struct event *to = &r->slot[++r->last % EVENT_RING];
    *to = *e;
    to->seq = r->last;
    to->earlier = true;
    bytes_make_printable(to->kind);
    bytes_make_printable(to->subject);
    bytes_make_printable(to->text);
    co_queue_wake_all(&r->arrived);
}

static uint64_t first_after(const struct event_ring *r, uint64_t since)
{
    if (since > r->last)
        since = 0;
    uint64_t oldest = r->last > EVENT_RING ? r->last - EVENT_RING + 1 : 1;
    return since + 1 > oldest ? since + 1 : oldest;
}

bool event_is_there(const struct event_ring *r, uint64_t since)
{
    return first_after(r, since) <= r->last;
}

static json_t *event_json(const struct event *e)
{
    return json_pack("{s:I, s:I, s:b, s:s, s:s, s:s, s:s}", "seq", (json_int_t)e->seq, "time",
                     (json_int_t)e->seconds, "earlier", e->earlier, "level", level_names[e->level],
                     "kind", e->kind, "subject", e->subject, "text", e->text);
}

json_t *event_list(const struct event_ring *r, uint64_t since, unsigned max)
{
    json_t *list = json_array();
    uint64_t at = first_after(r, since);
    uint64_t lost = since <= r->last ? at - since - 1 : 0;
    for (; at <= r->last && json_array_size(list) < max; at++)
        if (json_array_append_new(list, event_json(&r->slot[at % EVENT_RING])))
            break;
    return json_pack("{s:o, s:I, s:I, s:I}", "events", list, "last", (json_int_t)(at - 1), "lost",
                     (json_int_t)lost, "epoch", (json_int_t)r->epoch);
}

/*
 * One operation on many volumes, several at a time: commits that run together share the log's next
 * write, and volumes of different reactors work in parallel. At home.
 */
#include "volumes/volumes_impl.h"

#include <stdlib.h>

#define SWEEP_WORKERS 16U

void sweep_add(struct sweep *s, struct volume *v)
{
    if (s->count == s->capacity) {
        size_t capacity = s->capacity ? s->capacity * 2 : 64;
        struct volume **more = realloc(s->volume, capacity * sizeof(struct volume *));
        if (!more) {
            s->failed = true;
            return;
        }
        s->volume = more;
        s->capacity = capacity;
    }
    volume_pin(v);
    s->volume[s->count++] = v;
}

static CO void work(struct sweep *s)
{
    while (s->next < s->count) {
        struct volume *v = s->volume[s->next++];
        bool skip = !s->fn || (s->rc && s->stop_on_error);
        int rc = skip ? 0 : s->fn(v);
        if (rc && !s->rc)
            s->rc = rc;
        volume_unpin(v);
    }
}

static CO void worker(void *arg)
{
    struct sweep *s = arg;
    hold_take(s->held);
    work(s);
    co_group_leave(&s->workers, 0);
}

CO int sweep_run(struct sweep *s, int (*fn)(struct volume *v), bool stop_on_error)
{
    s->fn = fn;
    s->held = hold_marks();
    s->stop_on_error = stop_on_error;
    co_group_init(&s->workers);
    for (size_t i = 1; i < SWEEP_WORKERS && i < s->count; i++) {
        co_group_enter(&s->workers);
        if (co_spawn(worker, s, "sweep")) { /* fewer hands: slower, not wrong */
            co_group_leave(&s->workers, 0);
            break;
        }
    }
    work(s);
    vp_ignore(co_group_wait(&s->workers), "errors are in s->rc");
    free(s->volume);
    return s->rc;
}

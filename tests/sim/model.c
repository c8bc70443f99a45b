/* See model.h. */
#include "tests/sim/model.h"

#include "base/bytes.h"
#include "base/verify.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *grown(void *array, unsigned count, unsigned *capacity, size_t item)
{
    if (count < *capacity)
        return array;
    *capacity = *capacity ? *capacity * 2 : 64;
    void *p = realloc(array, *capacity * item);
    VP_VERIFY_TRUE(p != NULL);
    return p;
}

static void *zeroed(size_t count, size_t item)
{
    void *p = calloc(count, item);
    VP_VERIFY_TRUE(p != NULL);
    return p;
}

struct model *model_new(uint64_t seed)
{
    struct model *m = zeroed(1, sizeof(*m));
    m->seed = seed;
    return m;
}

void model_free(struct model *m)
{
    if (!m)
        return;
    for (unsigned i = 0; i < m->volume_count; i++) {
        struct model_volume *v = &m->volume[i];
        free(v->size);
        free(v->place);
        free(v->newest);
        free(v->initial);
        free(v->flush);
    }
    free(m->version);
    free(m->promise_event);
    free(m->answer_event);
    free(m->bad);
    free(m);
}

/* ---- recording ---------------------------------------------------------------------------- */

static const struct model_time never = {MODEL_NEVER, MODEL_NEVER};

void model_call(struct model *m, struct model_call *c)
{
    c->called = (struct model_time){++m->tick, m->event};
    c->answered = never;
    c->failed = false;
}

static void promise(struct model *m)
{
    m->promise_event = grown(m->promise_event, (unsigned)m->promises, &m->promise_capacity,
                             sizeof(*m->promise_event));
    m->promise_event[m->promises++] = m->event;
}

void model_answer(struct model *m, struct model_call *c, bool failed, bool promises)
{
    c->failed = failed;
    if (failed)
        return; /* it may have happened, now or later */
    c->answered = (struct model_time){++m->tick, m->event};
    m->answer_event =
        grown(m->answer_event, (unsigned)m->answers, &m->answer_capacity, sizeof(*m->answer_event));
    m->answer_event[m->answers++] = m->event;
    if (promises)
        promise(m);
}

struct model_volume *model_volume_add(struct model *m, const char *name, uint64_t blocks,
                                      uint64_t blocks_max)
{
    VP_VERIFY(m->volume_count, <, (unsigned)MODEL_VOLUMES_MAX);
    struct model_volume *v = &m->volume[m->volume_count++];
    memset(v, 0, sizeof(*v));
    v->uid = ++m->uid;
    (void)snprintf(v->name, sizeof(v->name), "%s", name);
    v->blocks_max = max_u64(blocks, blocks_max);
    v->newest = zeroed(v->blocks_max, sizeof(*v->newest));
    v->deleted.called = v->deleted.answered = never;
    model_call(m, &v->created);
    unsigned first = model_size_call(m, v, blocks);
    model_answer(m, &v->size[first].call, false, false);
    first = model_move_call(m, v, 0);
    model_answer(m, &v->place[first].call, false, false);
    return v;
}

struct model_volume *model_volume_find(struct model *m, const char *name)
{
    for (unsigned i = m->volume_count; i-- > 0;)
        if (strcmp(m->volume[i].name, name) == 0 &&
            m->volume[i].deleted.answered.tick == MODEL_NEVER)
            return &m->volume[i];
    return NULL;
}

struct model_write model_write_call(struct model *m, struct model_volume *v, uint64_t sector,
                                    uint64_t sectors, bool zeros, bool durable)
{
    struct model_write w = {.seq = zeros ? STAMP_ZERO : ++m->seq, .first = m->version_count};
    struct model_call call;
    model_call(m, &call);
    for (uint64_t end = sector + sectors; sector < end;) {
        uint64_t block = sector / STAMP_BLOCK_SECTORS;
        uint64_t in = sector % STAMP_BLOCK_SECTORS;
        uint64_t part = min_u64(end - sector, STAMP_BLOCK_SECTORS - in);
        VP_VERIFY(block, <, v->blocks_max);
        m->version = grown(m->version, m->version_count, &m->version_capacity, sizeof(*m->version));
        m->version[m->version_count++] = (struct model_version){
            .call = call,
            .seq = w.seq,
            .mask = (uint8_t)(((1U << part) - 1) << in),
            .durable = durable,
            .older = v->newest[block],
        };
        v->newest[block] = m->version_count;
        sector += part;
        w.count++;
    }
    return w;
}

void model_write_answer(struct model *m, const struct model_write *w, enum model_result result)
{
    struct model_call call = {.called = never};
    bool ends = result == MODEL_DONE || result == MODEL_GONE;
    if (w->count)
        model_answer(m, &call, !ends, m->version[w->first].durable);
    for (unsigned i = w->first; i < w->first + w->count; i++) {
        m->version[i].call.answered = ends ? call.answered : never;
        m->version[i].call.failed = result != MODEL_DONE;
        m->version[i].void_ = result == MODEL_REFUSED;
    }
}

unsigned model_flush_call(struct model *m, struct model_volume *v)
{
    v->flush = realloc(v->flush, (v->flush_count + 1) * sizeof(*v->flush));
    VP_VERIFY_TRUE(v->flush != NULL);
    model_call(m, &v->flush[v->flush_count].call);
    return v->flush_count++;
}

void model_flush_answer(struct model *m, struct model_volume *v, unsigned flush, bool failed)
{
    model_answer(m, &v->flush[flush].call, failed, true);
}

unsigned model_size_call(struct model *m, struct model_volume *v, uint64_t blocks)
{
    v->size = realloc(v->size, (v->size_count + 1) * sizeof(*v->size));
    VP_VERIFY_TRUE(v->size != NULL);
    v->size[v->size_count].blocks = blocks;
    model_call(m, &v->size[v->size_count].call);
    return v->size_count++;
}

unsigned model_move_call(struct model *m, struct model_volume *v, unsigned pool)
{
    v->place = realloc(v->place, (v->place_count + 1) * sizeof(*v->place));
    VP_VERIFY_TRUE(v->place != NULL);
    v->place[v->place_count].pool = pool;
    model_call(m, &v->place[v->place_count].call);
    return v->place_count++;
}

unsigned model_place(const struct model_volume *v)
{
    unsigned i = v->place_count - 1;
    while (v->place[i].call.answered.event == MODEL_NEVER)
        i--;
    return v->place[i].pool;
}

void model_move_answer(struct model *m, struct model_volume *v, unsigned move, bool moved)
{
    unsigned back = moved ? move : model_move_call(m, v, model_place(v));
    model_answer(m, &v->place[back].call, false, true);
}

void model_bad_set(struct model *m, unsigned disks)
{
    m->bad = grown(m->bad, m->bad_count, &m->bad_capacity, sizeof(*m->bad));
    m->bad[m->bad_count++] = (struct model_bad){m->event, disks};
}

/* ---- asking ------------------------------------------------------------------------------- */

struct model_view model_view_live(struct model_time called, bool whole_blocks)
{
    return (struct model_view){.whole_blocks = whole_blocks, .tick = called.tick};
}

struct model_view model_view_crash(const struct model_volume *v, uint64_t event, bool whole_blocks)
{
    struct model_view view = {.crash = true, .whole_blocks = whole_blocks, .event = event};
    for (unsigned i = 0; i < v->flush_count; i++)
        if (v->flush[i].call.answered.event <= event)
            view.cover_tick = max_u64(view.cover_tick, v->flush[i].call.called.tick);
    return view;
}

struct model_view model_view_kill(const struct model_volume *v, uint64_t event, bool whole_blocks,
                                  bool power_cut)
{
    struct model_view view = model_view_crash(v, event, whole_blocks);
    view.kill = !power_cut;
    view.kept = true;
    return view;
}

/* A call that was answered without a disk event in between has happened, too. */
static bool is_called(const struct model_call *c, uint64_t event)
{
    return c->called.event < event || c->answered.event <= event;
}

/* A killed process may have kept in memory what it did without a disk event. */
static bool is_visible(const struct model_version *x, const struct model_view *view)
{
    if (x->void_)
        return false;
    return !view->crash || is_called(&x->call, view->event) ||
           (view->kept && x->call.called.event <= view->event);
}

static bool is_settled(const struct model_version *x, const struct model_view *view)
{
    if (x->call.failed)
        return false;
    if (view->kill)
        return x->call.answered.event <= view->event;
    if (!view->crash)
        return x->call.answered.tick < view->tick;
    return (x->durable && x->call.answered.event <= view->event) ||
           x->call.answered.tick < view->cover_tick;
}

static const struct model_version *version_at(const struct model *m, uint32_t index_plus_1)
{
    return index_plus_1 ? &m->version[index_plus_1 - 1] : NULL;
}

static uint32_t initial_seq(const struct model_volume *v, uint64_t block, unsigned sector)
{
    return v->initial ? v->initial[block].seq[sector] : STAMP_ZERO;
}

static bool permits_sector(const struct model *m, const struct model_volume *v, uint64_t block,
                           const struct model_view *view, unsigned sector, uint32_t seq)
{
    uint64_t settled_tick = 0;
    const struct model_version *x;
    for (x = version_at(m, v->newest[block]); x; x = version_at(m, x->older))
        if (x->mask >> sector & 1 && is_visible(x, view) && is_settled(x, view))
            settled_tick = max_u64(settled_tick, x->call.called.tick);
    for (x = version_at(m, v->newest[block]); x; x = version_at(m, x->older))
        if (x->seq == seq && x->mask >> sector & 1 && is_visible(x, view) &&
            x->call.answered.tick >= settled_tick)
            return true;
    return settled_tick == 0 && seq == initial_seq(v, block, sector);
}

/* Lays version x over `s`. */
static void lay(const struct model_version *x, struct model_sectors *s)
{
    for (unsigned i = 0; i < STAMP_BLOCK_SECTORS; i++)
        if (x->mask >> i & 1)
            s->seq[i] = x->seq;
}

enum { HISTORY_MAX = 512 };

/* The visible versions of the block, oldest first. False when their order is not known (concurrent
 * or failed writes) or there are too many. */
static bool ordered_history(const struct model *m, const struct model_volume *v, uint64_t block,
                            const struct model_view *view, const struct model_version **out,
                            unsigned *count)
{
    unsigned n = 0;
    uint64_t newer_called = MODEL_NEVER;
    for (const struct model_version *x = version_at(m, v->newest[block]); x;
         x = version_at(m, x->older)) {
        if (!is_visible(x, view))
            continue;
        bool last = newer_called == MODEL_NEVER;
        if (n == HISTORY_MAX || x->call.failed || (!last && x->call.answered.tick > newer_called))
            return false;
        newer_called = x->call.called.tick;
        out[n++] = x;
    }
    for (unsigned i = 0; i < n / 2; i++) {
        const struct model_version *t = out[i];
        out[i] = out[n - 1 - i];
        out[n - 1 - i] = t;
    }
    *count = n;
    return true;
}

static bool permits_whole(const struct model *m, const struct model_volume *v, uint64_t block,
                          const struct model_view *view, const struct model_sectors *got)
{
    const struct model_version *history[HISTORY_MAX];
    unsigned n;
    if (!ordered_history(m, v, block, view, history, &n))
        return true; /* sector by sector is all that can be said */
    struct model_sectors at = {{0}};
    for (unsigned i = 0; i < STAMP_BLOCK_SECTORS; i++)
        at.seq[i] = initial_seq(v, block, i);
    bool found = memcmp(&at, got, sizeof(at)) == 0;
    for (unsigned i = 0; i < n; i++) {
        lay(history[i], &at);
        if (is_settled(history[i], view))
            found = false;
        found |= memcmp(&at, got, sizeof(at)) == 0;
    }
    return found;
}

static size_t say(char *why, size_t size, size_t at, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
static size_t say(char *why, size_t size, size_t at, const char *fmt, ...)
{
    if (at >= size)
        return at;
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(why + at, size - at, fmt, ap);
    va_end(ap);
    return at + (size_t)(n > 0 ? n : 0);
}

static void explain(const struct model *m, const struct model_volume *v, uint64_t block,
                    const struct model_view *view, const struct model_sectors *got, char *why,
                    size_t size)
{
    size_t at = say(why, size, 0, "%s block %" PRIu64 " shows", v->name, block);
    for (unsigned i = 0; i < STAMP_BLOCK_SECTORS; i++)
        at = got->seq[i] == STAMP_GARBAGE ? say(why, size, at, " ?")
                                          : say(why, size, at, " %u", got->seq[i]);
    at = say(why, size, at, "; writes (newest first, ! settled):");
    unsigned n = 0;
    for (const struct model_version *x = version_at(m, v->newest[block]); x && n < 8;
         x = version_at(m, x->older), n++)
        at = say(why, size, at, " %u/%02x%s%s", x->seq, x->mask,
                 is_visible(x, view) ? "" : "(later)", is_settled(x, view) ? "!" : "");
    (void)say(why, size, at, " first %u", initial_seq(v, block, 0));
}

bool model_permits(const struct model *m, const struct model_volume *v, uint64_t block,
                   const struct model_view *view, const struct model_sectors *got, char *why,
                   size_t why_size)
{
    bool ok = true;
    for (unsigned i = 0; ok && i < STAMP_BLOCK_SECTORS; i++)
        ok = permits_sector(m, v, block, view, i, got->seq[i]);
    if (ok && view->whole_blocks)
        ok = permits_whole(m, v, block, view, got);
    if (!ok)
        explain(m, v, block, view, got, why, why_size);
    return ok;
}

unsigned model_bad_at(const struct model *m, uint64_t event)
{
    unsigned disks = 0;
    for (unsigned i = 0; i < m->bad_count && m->bad[i].event <= event; i++)
        disks = m->bad[i].event == event ? disks | m->bad[i].disks : m->bad[i].disks;
    return disks;
}

bool model_may_exist(const struct model_volume *v, uint64_t event)
{
    return is_called(&v->created, event) && v->deleted.answered.event > event;
}

enum model_pause model_pause_at(const struct model *m, uint64_t event)
{
    const struct model_call *pause = &m->pause, *resume = &m->resume;
    if (!pause->called.tick || pause->answered.event > event)
        return MODEL_PAUSE_OPEN;
    if (!resume->called.tick || resume->called.event > event)
        return MODEL_PAUSED;
    return resume->answered.event <= event ? MODEL_RESUMED : MODEL_PAUSE_OPEN;
}

bool model_must_exist(const struct model_volume *v, uint64_t event)
{
    bool no_delete_called =
        v->deleted.called.event == MODEL_NEVER || !is_called(&v->deleted, event);
    return v->created.answered.event <= event && no_delete_called;
}

bool model_permits_size(const struct model_volume *v, uint64_t event, uint64_t blocks)
{
    for (unsigned i = v->size_count; i-- > 0;) {
        const struct model_size *s = &v->size[i];
        bool settled = i == 0 || s->call.answered.event <= event;
        if ((i == 0 || is_called(&s->call, event)) && s->blocks == blocks)
            return true;
        if (settled)
            return false;
    }
    return false;
}

bool model_permits_place(const struct model_volume *v, uint64_t event, unsigned pool)
{
    for (unsigned i = v->place_count; i-- > 0;) {
        const struct model_place *p = &v->place[i];
        if ((i == 0 || is_called(&p->call, event)) && p->pool == pool)
            return true;
        if (i == 0 || p->call.answered.event <= event)
            return false;
    }
    return false;
}

/* How many of the ascending events are not after `event`. */
static uint64_t count_until(const uint64_t *events, uint64_t count, uint64_t event)
{
    uint64_t low = 0, high = count;
    while (low < high) {
        uint64_t mid = (low + high) / 2;
        if (events[mid] <= event)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

uint64_t model_promises_at(const struct model *m, uint64_t event)
{
    return count_until(m->promise_event, m->promises, event);
}

uint64_t model_answers_at(const struct model *m, uint64_t event)
{
    return count_until(m->answer_event, m->answers, event);
}

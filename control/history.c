/*
 * What a pool remembers about itself over restarts: error counters of its disks since an epoch,
 * where each disk was seen last, and its last events. Loaded when it is opened, saved by the
 * monitor every few seconds if anything changed, and before the pool closes. volumes/errors.c keeps
 * the error counters of volumes, at the same moments.
 */
#include "control/control_impl.h"
#include "control/history_format.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#define EVENT_BYTES_MAX                                                                            \
    (sizeof(struct history_event_disk) + sizeof(((struct event *)0)->kind) +                       \
     sizeof(((struct event *)0)->subject) + sizeof(((struct event *)0)->text))

/* ---- loading ------------------------------------------------------------------------------- */

/* Bytes from a disk: nothing about them is trusted but their checksum. */
static void load_disk(struct control_pool *p, struct raid_disk *io, unsigned i)
{
    struct pool_record r;
    struct history_disk_disk h;
    struct pool_disk_info d;
    struct pool *pool = volumes_pool(p->vs);
    p->history.disk[i].since = reactor_wall_seconds();
    pool_disk_info_get(pool, i, &d);
    if (!pool_record_get(pool, POOL_RECORD_COUNTER, i, HISTORY_DISK_KEY, &r) || r.len < sizeof(h))
        return;
    memcpy(&h, r.value, sizeof(h));
    if (!vp_uuid_equal(h.uuid, d.uuid))
        return;
    p->history.disk[i].since = le64_get(h.since);
    figure_add_shared(&io->figures.read_errors, le64_get(h.read_errors));
    figure_add_shared(&io->figures.write_errors, le64_get(h.write_errors));
    figure_add_shared(&io->figures.checksum_errors, le64_get(h.checksum_errors));
    figure_add_shared(&io->figures.healed_blocks, le64_get(h.healed_blocks));
}

static void load_place(struct control_pool *p, unsigned i)
{
    struct pool_record r;
    struct history_place_disk h;
    struct pool_disk_info d;
    struct disk_place *to = &p->history.disk[i].place;
    struct pool *pool = volumes_pool(p->vs);
    pool_disk_info_get(pool, i, &d);
    *to = (struct disk_place){0};
    p->history.disk[i].place_seen = p->history.disk[i].place_unsaved = false;
    if (!pool_record_get(pool, POOL_RECORD_COUNTER, i, HISTORY_PLACE_KEY, &r) || r.len < sizeof(h))
        return;
    memcpy(&h, r.value, sizeof(h));
    size_t path_len = le16_get(h.path_len), serial_len = h.serial_len;
    if (!vp_uuid_equal(h.uuid, d.uuid) || path_len >= sizeof(to->path) ||
        serial_len >= sizeof(to->serial) || sizeof(h) + path_len + serial_len > r.len)
        return;
    const char *text = (const char *)r.value + sizeof(h);
    memcpy(to->path, text, path_len);
    memcpy(to->serial, text + path_len, serial_len);
    bytes_make_printable(to->serial);
}

/* The event in `slot`; false when there is none that decodes. */
static bool event_decode(struct pool *pool, unsigned slot, struct event *e, uint64_t *number)
{
    struct pool_record r;
    struct history_event_disk h;
    if (!pool_record_get(pool, POOL_RECORD_COUNTER, slot, HISTORY_EVENT_KEY, &r) ||
        r.len < sizeof(h))
        return false;
    memcpy(&h, r.value, sizeof(h));
    size_t text_len = le32_get(h.text_len);
    if (h.kind_len >= sizeof(e->kind) || h.subject_len >= sizeof(e->subject) ||
        text_len >= sizeof(e->text) || h.level > VP_LOG_INFO ||
        le64_get(h.number) % HISTORY_EVENTS != slot ||
        sizeof(h) + h.kind_len + h.subject_len + text_len > r.len)
        return false;
    const char *at = (const char *)r.value + sizeof(h);
    *e = (struct event){.seconds = le64_get(h.seconds), .level = (enum vp_log_level)h.level};
    memcpy(e->kind, at, h.kind_len);
    memcpy(e->subject, at + h.kind_len, h.subject_len);
    memcpy(e->text, at + h.kind_len + h.subject_len, text_len);
    *number = le64_get(h.number);
    return true;
}

static void load_events(struct control *c, struct control_pool *p)
{
    struct pool *pool = volumes_pool(p->vs);
    struct event e;
    uint64_t number, next = 0;
    for (unsigned slot = 0; slot < HISTORY_EVENTS; slot++)
        if (event_decode(pool, slot, &e, &number) && number < UINT64_MAX / 2 && number >= next)
            next = number + 1;
    uint64_t first = next > HISTORY_EVENTS ? next - HISTORY_EVENTS : 0;
    for (uint64_t n = first; n < next; n++)
        if (event_decode(pool, n % HISTORY_EVENTS, &e, &number) && number == n)
            event_add_earlier(&c->events, &e);
    p->history.next_event = next;
}

void history_load(struct control *c, struct control_pool *p)
{
    unsigned count;
    struct raid_disk *const *io = pool_disks(volumes_pool(p->vs), &count);
    uint64_t since = c->events.last;
    for (unsigned i = 0; i < count && i < POOL_DISKS_MAX; i++) {
        load_disk(p, io[i], i);
        load_place(p, i);
        p->history.disk[i].saved = HISTORY_NOT_SAVED;
    }
    load_events(c, p);
    p->history.seen_event = since; /* what came from the pool is passed over as `earlier` */
}

/* ---- saving -------------------------------------------------------------------------------- */

static uint64_t sum_of(const struct raid_disk *io)
{
    return figure_get(&io->figures.read_errors) + figure_get(&io->figures.write_errors) +
           figure_get(&io->figures.checksum_errors) + figure_get(&io->figures.healed_blocks);
}

/* Counters only grow, but for a clear, so their sum tells whether they changed. */
static void save_disk(struct control_pool *p, const struct raid_disk *io, unsigned i,
                      struct pool_batch *b)
{
    uint64_t sum = sum_of(io);
    struct pool_disk_info d;
    bool first_zeros = p->history.disk[i].saved == HISTORY_NOT_SAVED && sum == 0;
    if (sum == p->history.disk[i].saved || first_zeros)
        return;
    pool_disk_info_get(volumes_pool(p->vs), i, &d);
    struct history_disk_disk h = {
        .uuid = d.uuid,
        .since = le64_make(p->history.disk[i].since),
        .read_errors = le64_make(figure_get(&io->figures.read_errors)),
        .write_errors = le64_make(figure_get(&io->figures.write_errors)),
        .checksum_errors = le64_make(figure_get(&io->figures.checksum_errors)),
        .healed_blocks = le64_make(figure_get(&io->figures.healed_blocks))};
    pool_batch_set(b, POOL_RECORD_COUNTER, i, HISTORY_DISK_KEY, &h, sizeof(h));
    p->history.disk[i].saving = sum;
}

/* Looks once, until the disk is another one: its path does not change while it is open. */
static CO void look_at_place(struct control_pool *p, unsigned i, const struct pool_disk_info *d)
{
    struct disk_place now = {0}, *place = &p->history.disk[i].place;
    if (p->history.disk[i].place_seen || !d->path[0])
        return;
    memcpy(now.path, d->path, sizeof(now.path));
    disk_place_look(&now);
    p->history.disk[i].place_seen = true;
    if (strcmp(now.path, place->path) != 0 || strcmp(now.serial, place->serial) != 0)
        p->history.disk[i].place_unsaved = true;
    *place = now;
}

static CO void save_place(struct control_pool *p, unsigned i, struct pool_batch *b)
{
    struct pool_disk_info d;
    pool_disk_info_get(volumes_pool(p->vs), i, &d);
    look_at_place(p, i, &d);
    if (!p->history.disk[i].place_unsaved)
        return;
    const struct disk_place *place = &p->history.disk[i].place;
    _Alignas(
        struct history_place_disk) char value[sizeof(struct history_place_disk) + sizeof(*place)];
    struct history_place_disk *h = (struct history_place_disk *)value;
    size_t path_len = strlen(place->path), serial_len = strlen(place->serial);
    *h = (struct history_place_disk){.uuid = d.uuid,
                                     .path_len = le16_make((uint16_t)path_len),
                                     .serial_len = (uint8_t)serial_len};
    memcpy(h->text, place->path, path_len);
    memcpy(h->text + path_len, place->serial, serial_len);
    pool_batch_set(b, POOL_RECORD_COUNTER, i, HISTORY_PLACE_KEY, value,
                   sizeof(*h) + path_len + serial_len);
}

static bool event_is_of(const struct control_pool *p, const struct event *e)
{
    size_t len = strlen(p->name);
    return !e->earlier && e->level <= VP_LOG_INFO && strncmp(e->subject, p->name, len) == 0 &&
           (e->subject[len] == 0 || e->subject[len] == '/');
}

static void save_event(const struct event *e, uint64_t number, struct pool_batch *b)
{
    _Alignas(struct history_event_disk) char value[EVENT_BYTES_MAX] = {0};
    struct history_event_disk *h = (struct history_event_disk *)value;
    size_t kind_len = strlen(e->kind), subject_len = strlen(e->subject), len = strlen(e->text);
    *h = (struct history_event_disk){.number = le64_make(number),
                                     .seconds = le64_make(e->seconds),
                                     .level = (uint8_t)e->level,
                                     .kind_len = (uint8_t)kind_len,
                                     .subject_len = (uint8_t)subject_len,
                                     .text_len = le32_make((uint32_t)len)};
    memcpy(h->text, e->kind, kind_len);
    memcpy(h->text + kind_len, e->subject, subject_len);
    memcpy(h->text + kind_len + subject_len, e->text, len);
    pool_batch_set(b, POOL_RECORD_COUNTER, (uint32_t)(number % HISTORY_EVENTS), HISTORY_EVENT_KEY,
                   value, sizeof(*h) + kind_len + subject_len + len);
}

/* Events that came since the last save, the newest HISTORY_EVENTS of them; returns the number of
 * the next one. */
static uint64_t save_events(struct control *c, struct control_pool *p, struct pool_batch *b)
{
    uint64_t next = p->history.next_event;
    uint64_t oldest = c->events.last > EVENT_RING ? c->events.last - EVENT_RING : 0;
    uint64_t from = p->history.seen_event > oldest ? p->history.seen_event : oldest;
    for (uint64_t seq = from + 1; seq <= c->events.last; seq++) {
        const struct event *e = &c->events.slot[seq % EVENT_RING];
        if (event_is_of(p, e))
            save_event(e, next++, b);
    }
    return next;
}

CO void history_save(struct control *c, struct control_pool *p)
{
    unsigned count;
    struct pool *pool = volumes_pool(p->vs);
    struct raid_disk *const *io = pool_disks(pool, &count);
    if (strcmp(pool_state(pool), "fenced") == 0)
        return;
    struct pool_batch b;
    pool_batch_init(&b);
    for (unsigned i = 0; i < count && i < POOL_DISKS_MAX; i++) {
        p->history.disk[i].saving = p->history.disk[i].saved;
        save_disk(p, io[i], i, &b);
        save_place(p, i, &b);
    }
    uint64_t seen = c->events.last, next = save_events(c, p, &b);
    int rc = b.count ? pool_commit(pool, &b) : 0;
    pool_batch_fini(&b);
    vp_ignore(volumes_errors_save(p->vs), "the next save tries again");
    if (rc)
        return; /* everything is tried again at the next save */
    for (unsigned i = 0; i < count && i < POOL_DISKS_MAX; i++) {
        p->history.disk[i].saved = p->history.disk[i].saving;
        if (p->history.disk[i].place_seen) /* else the disk came meanwhile */
            p->history.disk[i].place_unsaved = false;
    }
    p->history.seen_event = seen;
    p->history.next_event = next;
}

static void disk_clear(struct control_pool *p, struct raid_disk *io, unsigned i)
{
    figure_put(&io->figures.read_errors, 0);
    figure_put(&io->figures.write_errors, 0);
    figure_put(&io->figures.checksum_errors, 0);
    figure_put(&io->figures.healed_blocks, 0);
    p->history.disk[i].since = reactor_wall_seconds();
    p->seen.disk[i].errors = p->seen.disk[i].healed = 0;
}

/* Also when a save is under way. */
static void disk_save_anyway(struct control_pool *p, unsigned i)
{
    p->history.disk[i].saved = p->history.disk[i].saving = HISTORY_SAVE_ANYWAY;
}

void history_disk_came(struct control_pool *p, unsigned i, bool replaced)
{
    unsigned count;
    struct raid_disk *const *io = pool_disks(volumes_pool(p->vs), &count);
    if (replaced) {
        disk_clear(p, io[i], i);
        p->history.disk[i].place = (struct disk_place){0};
    }
    disk_save_anyway(p, i);
    p->history.disk[i].place_seen = false;
    p->history.disk[i].place_unsaved = true;
}

CO void history_clear(struct control *c, struct control_pool *p)
{
    unsigned count;
    struct raid_disk *const *io = pool_disks(volumes_pool(p->vs), &count);
    for (unsigned i = 0; i < count && i < POOL_DISKS_MAX; i++) {
        disk_clear(p, io[i], i);
        disk_save_anyway(p, i);
    }
    volumes_errors_clear(p->vs);
    history_save(c, p);
}

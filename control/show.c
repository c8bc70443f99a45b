/* What clients are shown, as JSON; docs/rpc.md is the schema. */
#include "control/control_impl.h"

#include "control/path.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#define INT(v)           ((json_int_t)(v))
#define VOLUMES_NAMED    8 /* in the warnings of a pool */
#define JOBS_NAMED       8 /* likewise */
#define UNUSABLE_PERCENT 5 /* of a pool: worth a warning */

const char *show_level(enum pool_level level)
{
    static const char *const names[] = {"ok", "warn", "tight", "full"};
    return (unsigned)level < 4 ? names[level] : "?";
}

const char *show_volume_state(enum volume_state state)
{
    static const char *const names[] = {"online", "faulted", "deleting"};
    return (unsigned)state < 3 ? names[state] : "?";
}

json_t *show_block_users(const struct block_users *users)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < users->count && i < BLOCK_USERS_MAX; i++) {
        const struct block_user *u = &users->user[i];
        json_t *entry = json_pack("{s:s, s:s, s:s, s:i}", "use", block_use_name(u->use), "device",
                                  u->device, "what", u->what, "pid", u->pid);
        if (json_array_append_new(list, entry))
            break;
    }
    return list;
}

/* ---- sums over a pool's volumes ------------------------------------------------------------- */

struct sums {
    unsigned count, faulted, waiting;
    uint64_t provisioned_bytes, allocated_bytes, valid_bytes;
};

static int sum_volume(const struct volume_info *v, void *arg)
{
    struct sums *s = arg;
    s->count++;
    s->faulted += v->state == VOLUME_FAULTED;
    s->waiting += (unsigned)figure_get(&v->figures->waiting_for_space);
    s->provisioned_bytes += v->options.size_bytes;
    s->allocated_bytes += v->allocated_bytes;
    s->valid_bytes += v->valid_bytes;
    return 0;
}

/*
 * volume_each has the figures of each volume's last commit; those of open volumes are asked from
 * their reactors afterwards.
 */
struct exact {
    struct sums sums;
    json_t *open; /* names */
};

static int sum_and_note(const struct volume_info *v, void *arg)
{
    struct exact *e = arg;
    if (v->open_count == 0)
        return sum_volume(v, &e->sums);
    return json_array_append_new(e->open, json_string(v->name)) ? VP_E_NO_MEMORY : 0;
}

static CO void sum_exactly(const struct control_pool *p, struct sums *out)
{
    struct exact e = {.open = json_array()};
    if (volume_each(p->vs, sum_and_note, &e))
        vp_warn("no memory to sum up the volumes of pool '%s'", p->name);
    size_t i;
    const json_t *name;
    json_array_foreach(e.open, i, name)
    {
        struct volume_info info;
        if (volume_info_get(p->vs, json_string_value(name), &info) == 0)
            sum_volume(&info, &e.sums);
    }
    json_decref(e.open);
    *out = e.sums;
}

static json_t *space_json(const struct pool_space *s, const struct sums *v)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "total_bytes",
                     INT(s->total_bytes), "data_bytes", INT(s->data_bytes), "metadata_bytes",
                     INT(s->metadata_bytes), "free_bytes", INT(s->free_bytes), "reserved_bytes",
                     INT(s->reserved_bytes), "writable_bytes", INT(s->writable_bytes),
                     "leased_bytes", INT(s->leased_bytes), "allocated_bytes",
                     INT(v->allocated_bytes), "valid_bytes", INT(v->valid_bytes),
                     "provisioned_bytes", INT(v->provisioned_bytes), "meta_pages_total",
                     INT(s->meta_pages_total), "meta_pages_used", INT(s->meta_pages_used));
}

/* ---- disks ---------------------------------------------------------------------------------- */

/* How far the disk is filled; null: it is not, or waits until another one is. */
static json_t *rebuild_json(const struct control_pool *p, unsigned disk)
{
    const struct pool_job *j = control_disk_job(p, disk);
    char name[JOB_NAME_BYTES];
    if (!j)
        return json_null();
    int64_t left = pool_job_seconds_left(j);
    return json_pack("{s:s, s:s, s:o, s:I, s:o}", "job", control_job_name(p, j->id, name), "state",
                     pool_job_state_name(j->state), "total",
                     j->total ? json_integer(INT(j->total)) : json_null(), "done", INT(j->done),
                     "seconds_left", left < 0 ? json_null() : json_integer(left));
}

static json_t *disk_json(const struct control_pool *p, const struct pool_disk_info *d)
{
    char uuid[VP_UUID_TEXT];
    uint64_t since = p->history.disk[d->index].since;
    const struct disk_place *last = &p->history.disk[d->index].place;
    return json_pack("{s:i, s:o, s:o, s:s, s:s, s:s, s:s, s:o, s:I, s:i, s:i, s:I, s:o}", "index",
                     (int)d->index, "path", path_shown(d->path), "last_path",
                     path_shown(d->path[0] ? d->path : last->path), "serial", last->serial, "uuid",
                     vp_uuid_format(d->uuid, uuid), "state", d->state, "reason", d->reason,
                     "rebuild", rebuild_json(p, d->index), "size_bytes", INT(d->size_bytes),
                     "extents_total", (int)d->extents_total, "extents_used", (int)d->extents_used,
                     "errors_since", INT(since), "counters", show_disk_figures(d, false));
}

static json_t *disks_json(const struct control_pool *p)
{
    const struct pool *pool = volumes_pool(p->vs);
    json_t *list = json_array();
    for (unsigned i = 0; list && i < pool_disk_count(pool); i++) {
        struct pool_disk_info d;
        pool_disk_info_get(pool, i, &d);
        if (!d.removed && json_array_append_new(list, disk_json(p, &d)))
            break;
    }
    return list;
}

/* ---- warnings: what is wrong, and what to do --------------------------------------------------
 */

static void warn(json_t *list, const char *action, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static void warn(json_t *list, const char *action, const char *fmt, ...)
{
    char text[800];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    bytes_make_printable(text);
    json_t *w = json_pack("{s:s, s:s}", "text", text, "action", action);
    (void)json_array_append_new(list, w); /* no memory: one warning less */
}

/* The command that helps with the last one. */
static void warn_command(json_t *list, const char *command)
{
    json_t *last = json_array_get(list, json_array_size(list) - 1);
    (void)json_object_set_new(last, "command", json_string(command)); /* no memory: without it */
}

/* "/dev/sdb, serial S4XN": what a person looks for, also when the disk is not there. */
static void disk_name(const struct pool_disk_info *d, const struct disk_place *last, char *to,
                      size_t size)
{
    const char *path = d->path[0] ? d->path : last->path;
    (void)snprintf(to, size, "%s%s%s%s", d->path[0] || !path[0] ? "" : "last at ",
                   path[0] ? path : "nobody knows where it was", last->serial[0] ? ", serial " : "",
                   last->serial);
}

/* "45% of 3.2G" */
static void rebuild_text(const struct pool_job *j, char *to, size_t size)
{
    char total[24];
    if (!j || !j->total)
        (void)snprintf(to, size, "%s", j ? "it has begun" : "it has not begun");
    else
        (void)snprintf(to, size, "%u%% of %s are done",
                       (unsigned)((double)j->done * 100 / (double)j->total),
                       bytes_format_size(j->total, total, sizeof(total)));
}

static void warn_rebuild(json_t *list, const struct control_pool *p, const struct pool_disk_info *d,
                         const char *name)
{
    char how_far[80], command[100];
    rebuild_text(control_disk_job(p, d->index), how_far, sizeof(how_far));
    warn(list,
         "it goes on by itself, and after a restart too; until then what the disk holds has a copy "
         "less",
         "disk %u (%s) is rebuilding: %s", d->index, name, how_far);
    (void)snprintf(command, sizeof(command), "vpool jobs %s", p->name);
    warn_command(list, command);
}

static void warn_leaving(json_t *list, const struct control_pool *p, const struct pool_disk_info *d,
                         const char *name)
{
    char command[100];
    warn(list, "it goes on by itself, and after a restart too; `vpool jobs` shows how far it is",
         "disk %u (%s) is being removed: what it has moves to other disks", d->index, name);
    (void)snprintf(command, sizeof(command), "vpool jobs %s", p->name);
    warn_command(list, command);
}

/* A disk that is out, by the state that it is in. */
static void warn_out(json_t *list, const struct control_pool *p, const struct pool_disk_info *d,
                     const char *name)
{
    char action[400], command[100];
    bool missing = strcmp(d->state, "missing") == 0;
    (void)snprintf(action, sizeof(action),
                   "what has copies elsewhere goes on; make a backup of what has none. %s `vpool "
                   "online %s %u`%s; if the disk is lost, `vpool replace %s %u DEVICE`",
                   missing ? "Bring the disk back, and then" : "When the disk is in order,",
                   p->name, d->index, missing ? " finds it" : " takes it back", p->name, d->index);
    warn(list, action, "disk %u (%s) is %s%s%s", d->index, name, d->state, d->reason[0] ? ": " : "",
         d->reason);
    (void)snprintf(command, sizeof(command), "vpool online %s %u", p->name, d->index);
    warn_command(list, command);
}

static void warn_disks(json_t *list, const struct control_pool *p)
{
    const struct pool *pool = volumes_pool(p->vs);
    for (unsigned i = 0; i < pool_disk_count(pool); i++) {
        struct pool_disk_info d;
        char name[400];
        pool_disk_info_get(pool, i, &d);
        if (d.removed)
            continue;
        disk_name(&d, &p->history.disk[i].place, name, sizeof(name));
        if (strcmp(d.state, "rebuilding") == 0)
            warn_rebuild(list, p, &d, name);
        else if (strcmp(d.state, "online") != 0 && strcmp(d.state, "removing") != 0)
            warn_out(list, p, &d, name);
        if (d.leaves)
            warn_leaving(list, p, &d, name);
        if (d.full)
            warn(list, "make room in that file system; writes go on by themselves",
                 "disk %u (%s): writes wait, because the file system that holds it is full",
                 d.index, name);
        if (d.finding[0])
            warn(list,
                 "find out what else uses it; before vpoold ends, see that the data have another "
                 "copy or a backup, and that disk-dirs or `vpool import -d` will lead to the disk",
                 "disk %u (%s): %s", d.index, name, d.finding);
        uint64_t errors =
            d.io ? figure_get(&d.io->figures.read_errors) + figure_get(&d.io->figures.write_errors)
                 : 0;
        uint64_t sums = d.io ? figure_get(&d.io->figures.checksum_errors) : 0;
        if (errors || sums)
            warn(list,
                 "look at the kernel's log and the disk's SMART data, check the cable; `vpool "
                 "clear POOL` "
                 "starts the counters again",
                 "disk %u (%s) had %llu I/O errors and %llu wrong checksums, %llu blocks were "
                 "healed",
                 d.index, name, (unsigned long long)errors, (unsigned long long)sums,
                 (unsigned long long)figure_get(&d.io->figures.healed_blocks));
    }
}

static void warn_space(json_t *list, const struct pool_space *space)
{
    if (space->level != POOL_OK)
        warn(list, "delete volumes that are not needed, or discard inside the guests (fstrim)",
             "space is %s: %llu MiB are free", show_level(space->level),
             (unsigned long long)(space->free_bytes >> 20));
}

/* Metadata that do not survive what volumes do. */
static void warn_promise(json_t *list, const struct pool *pool)
{
    unsigned promised = pool_promised_width(pool), least = pool_meta_copies_least(pool);
    if (least < promised)
        warn(list,
             least < POOL_META_COPIES_MAX
                 ? "make room on disks of the pool that are in service, for more copies"
                 : "move the data to volumes of fewer copies: metadata never have more",
             "volumes have up to %u copies, and some metadata only %u: the pool survives the loss "
             "of %u disk%s",
             promised, least, least - 1, least == 2 ? "" : "s");
}

void show_warn_limits(json_t *shown, const struct control_pool *p)
{
    struct pool_space s;
    struct pool *pool = volumes_pool(p->vs);
    pool_space_get(pool, &s);
    if (s.unusable_bytes <= s.total_bytes / 100 * UNUSABLE_PERCENT)
        return;
    char lost[16], all[16], profile[RAID_PROFILE_TEXT];
    json_t *list = json_object_get(shown, "warnings");
    if (!list && json_object_set_new(shown, "warnings", list = json_array()))
        return; /* no memory: one warning less */
    warn(
        list, "use disks of about the same size, or volumes with fewer copies for the rest",
        "%s of %s cannot hold %s volumes: their copies lie on different disks, and the small disks "
        "leave the large ones without a partner",
        bytes_format_size(s.unusable_bytes, lost, sizeof(lost)),
        bytes_format_size(s.total_bytes, all, sizeof(all)),
        raid_profile_format(pool_default_profile(pool), profile));
}

/* By name, as many as fit on a screen. */
static void warn_volume(json_t *list, const struct control_pool *p, const struct volume_health *v)
{
    const char *name = volume_name_of_id(p->vs, v->id);
    if (!name)
        return;
    if (v->now & HEALTH_PAUSED)
        warn(list, "they go on by themselves as soon as there is room",
             "%s/%s is paused: %u requests wait for space, for %llu s now", p->name, name,
             v->waiting, (unsigned long long)(reactor_wall_seconds() - v->paused_since));
    if (v->now & HEALTH_FAULTED)
        warn(list, "`vpool volume show` says why; vpool-check explains the damage",
             "%s/%s is faulted", p->name, name);
    if (v->now & HEALTH_DAMAGED)
        warn(
            list,
            "copy what can be read, restore the rest from a backup; `vpool clear POOL` then starts "
            "the counters of errors again",
            "%s/%s is damaged: some of its data cannot be read or written", p->name, name);
    else if (v->now & HEALTH_DEGRADED)
        warn(list, "bring the disk back or replace it; it is whole when the disk is rebuilt",
             "%s/%s is degraded: a copy of its data is out of service, or not complete", p->name,
             name);
}

static void warn_volumes(json_t *list, const struct control_pool *p)
{
    unsigned count = 0;
    const struct volume_health *v;
    list_for_each (v, &p->health.all, link)
        if (v->now && count++ < VOLUMES_NAMED)
            warn_volume(list, p, v);
    if (count > VOLUMES_NAMED)
        warn(list, "`vpool volume list` shows all", "%u more volumes are not well",
             count - VOLUMES_NAMED);
}

struct jobs_paused {
    json_t *list;
    const struct control_pool *p;
    unsigned count;
};

/* What a paused job leaves undone; a job has no other that speaks for it. */
static int warn_job(struct pool_job *j, void *arg)
{
    struct jobs_paused *w = arg;
    char job[JOB_NAME_BYTES], subject[JOB_SUBJECT_BYTES], size[24], command[100];
    if (j->state != POOL_JOB_PAUSED || j->kind == POOL_JOB_SCRUB || j->kind == POOL_JOB_BALANCE ||
        w->count++ >= JOBS_NAMED)
        return 0;
    control_job_name(w->p, j->id, job);
    control_job_subject(w->p, j, subject);
    if (j->kind == POOL_JOB_DELETE)
        warn(w->list, "resume the job: writes that wait for space may need what it holds",
             "job %s, the deletion of %s, is paused and holds %s", job, subject,
             bytes_format_size(j->total - j->done, size, sizeof(size)));
    else if (j->kind == POOL_JOB_REMOVE)
        warn(w->list, "resume the job, or `vpool remove POOL DISK --cancel`",
             "job %s, the removal of %s, is paused", job, subject);
    else if (j->kind == POOL_JOB_REBUILD)
        warn(w->list, "resume the job",
             "job %s, the rebuild of %s, is paused: until it ends, data have a copy less", job,
             subject);
    else
        warn(w->list, "resume the job", "job %s, the %s of %s, is paused%s", job,
             pool_job_kind_name(j->kind), subject,
             j->kind == POOL_JOB_RESYNC ? ": until it ends, copies may differ" : "");
    (void)snprintf(command, sizeof(command), "vpool jobs resume %s", job);
    warn_command(w->list, command);
    return 0;
}

static void warn_jobs(json_t *list, const struct control_pool *p)
{
    struct jobs_paused w = {.list = list, .p = p};
    vp_ignore(pool_job_each(volumes_pool(p->vs), warn_job, &w), "warn_job never fails");
    if (w.count > JOBS_NAMED)
        warn(list, "`vpool jobs` shows all", "%u more jobs are paused", w.count - JOBS_NAMED);
}

/* By name, as many as fit on a screen. */
static void warn_left(json_t *list, const struct control_pool *p)
{
    unsigned count = 0;
    const char *name;
    json_t *left;
    json_object_foreach(migrations_left_of(p), name, left)
    {
        char command[VOLUME_FULL_NAME_BYTES + 40], text[MIGRATIONS_LEFT_TEXT];
        if (!migrations_left_unserved_is(p, name) || count++ >= VOLUMES_NAMED)
            continue;
        bool is_old = strcmp(json_string_value(json_object_get(left, "side")), "superseded") == 0;
        warn(list,
             is_old ? "another pool has a newer copy of it, and serves that one"
                    : "it is settled by itself once both pools are open and can record it; `vpool "
                      "migrate forget` gives a pool that is lost up",
             "%s/%s is %s; it %s", p->name, name, is_old ? "not served" : "in doubt and not served",
             migrations_left_text(left, text));
        (void)snprintf(command, sizeof(command), "vpool %s %s/%s --dry-run",
                       is_old ? "volume delete" : "migrate forget", p->name, name);
        warn_command(list, command);
    }
    if (count > VOLUMES_NAMED)
        warn(list, "`vpool migrate status` shows all", "%u more volumes are in doubt after a move",
             count - VOLUMES_NAMED);
}

/* What the last scrub has found and could not heal. */
static void warn_scrub(json_t *list, const struct control_pool *p)
{
    const struct volumes_scrub_report *r = volumes_scrub_report(p->vs);
    char command[100];
    (void)snprintf(command, sizeof(command), "vpool scrub %s --show", p->name);
    if (r->lost_blocks) {
        warn(
            list,
            "restore what it names from a backup, then scrub again; a disk that is out may have it",
            "the last scrub found %" PRIu64 " blocks of which no copy in service is good",
            r->lost_blocks);
        warn_command(list, command);
    }
    if (r->bad_blocks) {
        warn(list, "replace the disk that it names, then scrub again",
             "the last scrub could not rewrite %" PRIu64 " bad copies of blocks", r->bad_blocks);
        warn_command(list, command);
    }
}

static void warn_spares(json_t *list, const struct control_pool *p)
{
    for (unsigned i = 0; i < p->spares.count; i++)
        if (p->spares.spare[i].rc)
            warn(list, "bring it in order, or take it away with `vpool remove`",
                 "the spare %s cannot be used: %s", p->spares.spare[i].path,
                 p->spares.spare[i].error);
}

static json_t *warnings_json(const struct control_pool *p, const struct pool_space *space)
{
    json_t *list = json_array();
    struct pool *pool = volumes_pool(p->vs);
    if (strcmp(pool_state(pool), "fenced") == 0)
        warn(list, "repair what is wrong with the disks, then restart vpoold",
             "the pool is fenced: its metadata cannot be written, so no write is acknowledged");
    warn_disks(list, p);
    warn_space(list, space);
    warn_promise(list, pool);
    warn_volumes(list, p);
    warn_jobs(list, p);
    warn_scrub(list, p);
    warn_spares(list, p);
    warn_left(list, p);
    for (const struct attachment *a = NULL; (a = attachment_next(p, a));)
        if (!a->served && !migrations_left_unserved_is(p, a->volume))
            warn(list, "remove what is in the way and attach it again, or detach it",
                 "the attachment of %s/%s at %s is not served: %s", p->name, a->volume, a->address,
                 a->error);
    return list;
}

/* ---- pools ----------------------------------------------------------------------------------- */

static json_t *paths_shown(const json_t *paths)
{
    char path[CONTROL_PATH_BYTES];
    json_t *shown = json_array(), *one;
    size_t i;
    json_array_foreach(
        paths, i,
        one) if (json_array_append_new(shown,
                                       path_shown(path_of_json(one, path) ? path : "?"))) break;
    return shown;
}

static json_t *closed_pool_json(const struct control_pool *p)
{
    char uuid[VP_UUID_TEXT];
    return json_pack("{s:s, s:s, s:s, s:o, s:s, s:s, s:o}", "name", p->name, "uuid",
                     vp_uuid_format(p->uuid, uuid), "state", "unavailable", "health",
                     health_json(HEALTH_UNAVAILABLE), "error_name", vp_err_name(p->rc), "error",
                     p->error, "paths", paths_shown(p->paths));
}

json_t *show_pool_brief(const struct control_pool *p)
{
    if (!p->vs)
        return closed_pool_json(p);
    struct pool_space space;
    struct sums sums = {0};
    struct pool *pool = volumes_pool(p->vs);
    pool_space_get(pool, &space);
    volume_each(p->vs, sum_volume, &sums);
    char uuid[VP_UUID_TEXT], raid[RAID_PROFILE_TEXT];
    return json_pack("{s:s, s:s, s:s, s:o, s:s, s:s, s:i, s:i, s:i, s:o}", "name", p->name, "uuid",
                     vp_uuid_format(p->uuid, uuid), "state", pool_state(pool), "health",
                     health_json(health_of_pool(p)), "level", show_level(space.level), "raid",
                     raid_profile_format(pool_default_profile(pool), raid), "disks",
                     (int)pool_disk_count(pool), "volumes", (int)sums.count, "attachments",
                     (int)attachment_count(p, NULL), "space", space_json(&space, &sums));
}

static json_t *risk_json(const struct pool_risk *r)
{
    return json_pack("{s:i, s:I, s:I, s:I}", "survives", (int)r->survives, "data_bytes",
                     INT(r->data_bytes), "degraded_bytes", INT(r->degraded_bytes), "lost_bytes",
                     INT(r->lost_bytes));
}

CO json_t *show_pool(const struct control_pool *p)
{
    if (!p->vs)
        return closed_pool_json(p);
    struct pool_space space;
    struct sums sums;
    struct pool *pool = volumes_pool(p->vs);
    struct pool_geometry g = pool_geometry(pool);
    struct pool_risk risk = pool_risk_now(pool);
    sum_exactly(p, &sums);
    pool_space_get(pool, &space);
    char uuid[VP_UUID_TEXT], raid[RAID_PROFILE_TEXT];
    return json_pack(
        "{s:s, s:s, s:s, s:o, s:s, s:s, s:i, s:i, s:i, s:o, s:o, s:o, s:o, s:o, s:{s:i, s:i, s:i}, "
        "s:i, "
        "s:o}",
        "name", p->name, "uuid", vp_uuid_format(p->uuid, uuid), "state", pool_state(pool), "health",
        health_json(health_of_pool(p)), "level", show_level(space.level), "raid",
        raid_profile_format(pool_default_profile(pool), raid), "chunk_bytes", (int)g.chunk_bytes,
        "extent_bytes", (int)g.extent_bytes, "checkpoint", (int)pool_checkpoint_number(pool),
        "space", space_json(&space, &sums), "disks", disks_json(p), "spares", spares_json(p),
        "risk", risk_json(&risk), "scrub", scrub_json(p, false), "volumes", "count",
        (int)sums.count, "faulted", (int)sums.faulted, "waiting_requests", (int)sums.waiting,
        "attachments", (int)attachment_count(p, NULL), "warnings", warnings_json(p, &space));
}

/* ---- volumes --------------------------------------------------------------------------------- */

json_t *show_volume_options(const struct volume_options *o)
{
    char raid[RAID_PROFILE_TEXT];
    return json_pack("{s:s, s:i, s:s, s:b, s:s, s:b, s:I}", "raid",
                     raid_profile_format(o->profile, raid), "sector", (int)o->sector_bytes,
                     "full-policy", o->full_policy == VOLUME_FULL_PAUSE ? "pause" : "enospc",
                     "zero-detect", o->zero_detect, "sync", o->sync_always ? "always" : "standard",
                     "read-only", o->read_only, "reserve", INT(o->reserve_bytes));
}

/* A volume that moves is not in a state of its own while it is faulted or deleted. */
static const char *volume_state(const struct control_pool *p, const struct volume_info *v)
{
    struct volume_owner_info o;
    if (v->state != VOLUME_ONLINE || volume_owner_get(p->vs, v->name, &o))
        return show_volume_state(v->state);
    if (o.ownership == VOLUME_TARGET)
        return "target";
    if (o.ownership == VOLUME_SUPERSEDED)
        return "superseded";
    if (o.ownership == VOLUME_INTENT)
        return o.in_doubt ? "in doubt" : "moving";
    return show_volume_state(v->state);
}

json_t *show_volume(const struct control_pool *p, const struct volume_info *v)
{
    char uuid[VP_UUID_TEXT];
    return json_pack("{s:s, s:s, s:i, s:s, s:s, s:s, s:o, s:o, s:I, s:I, s:I, s:I, s:I, s:o, s:i, "
                     "s:i, s:i, s:i, s:I, s:o, s:o, s:o}",
                     "pool", p->name, "name", v->name, "id", (int)v->id, "uuid",
                     vp_uuid_format(v->uuid, uuid), "state", volume_state(p, v), "fault", v->fault,
                     "health", health_json(health_of_volume(p, v)), "paused",
                     health_paused_json(p, v), "size_bytes", INT(v->options.size_bytes),
                     "allocated_bytes", INT(v->allocated_bytes), "valid_bytes", INT(v->valid_bytes),
                     "leased_bytes", INT(v->leased_bytes), "created", INT(v->created_seconds),
                     "options", show_volume_options(&v->options), "reactor", (int)v->reactor,
                     "open_count", (int)v->open_count, "waiting_requests",
                     (int)figure_get(&v->figures->waiting_for_space), "attachments",
                     (int)attachment_count(p, v->name), "errors_since", INT(v->errors_since),
                     "counters", show_figures(&volume_figure_set, v->figures, false), "map",
                     v->map ? show_figures(&thin_figure_set, v->map, false) : json_null(), "move",
                     migration_side_json(p->vs, v->name));
}

/* Private to control/: the daemon's state and how its parts call each other. Home reactor only. */
#ifndef VP_CONTROL_CONTROL_IMPL_H
#define VP_CONTROL_CONTROL_IMPL_H

#include "control/attachment_record.h"
#include "control/attachment_socket.h"
#include "control/block_users.h"
#include "control/config.h"
#include "control/control.h"
#include "control/disk_place.h"
#include "control/event.h"
#include "control/health.h"
#include "control/migrations.h"
#include "control/move_reports.h"
#include "control/receivers.h"
#include "control/rpc.h"
#include "control/server.h"
#include "control/spares.h"
#include "nbd/server.h"
#include "pool/job.h"
#include "pool/pool.h"
#include "volumes/volume.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* What the monitor saw last, so that it reports changes only. */
struct pool_seen {
    bool valid;
    char state[16];
    enum pool_level level;
    struct disk_seen {
        char state[16];
        uint64_t errors, healed;
        bool full, silent;
        char finding[sizeof(((struct pool_disk_info *)0)->finding)];
    } disk[POOL_DISKS_MAX];
    struct scrub_seen {
        bool valid;
        uint64_t started, ended; /* of the last one */
        unsigned findings;       /* that were told  */
    } scrub;
};

/*
 * A pool that the daemon knows: open, or one that could not be imported and says why. control.pools
 * owns it. A caller that yields while it uses a pool holds a reference (control_pool_get … _put).
 * Export and destroy first take the pool off the list and then wait until nobody holds a reference.
 */
struct control_pool {
    struct list link;
    struct control *control;
    char name[POOL_NAME_MAX + 1];
    struct vp_uuid uuid;
    struct volumes *vs;                /* NULL: not open */
    int rc;                            /* why it is not open … */
    char error[512];                   /* … in a sentence */
    json_t *paths;                     /* array (control/path.h): where its disks were seen last */
    uint64_t retry_ns, retry_after_ns; /* not open: when it is tried again, and the pause then */
    uint64_t wait_until_ns;            /* not open, some disks are here: when it goes on without */
    unsigned users;
    struct co_queue unused;
    uint64_t next_attachment;
    struct pool_seen seen;
    uint64_t next_look_ns; /* when its disks are looked at (pool_disk_look) */
    struct spares spares;
    uint64_t next_scrub_look_ns; /* when it is looked whether a scrub is due */
    struct health health;
    json_t *left;   /* volumes whose moves wait for another pool (migrations_left.c); or NULL */
    bool left_told; /* events have told of all of them */
    struct history {
        struct {
            uint64_t since;          /* seconds since 1970: what the counters count from */
            uint64_t saved, saving;  /* sums of the counters in the pool, and under way */
            struct disk_place place; /* where it is; of one that is missing: where it was */
            bool place_seen;         /* in this life */
            bool place_unsaved;      /* the pool has another one, or none */
        } disk[POOL_DISKS_MAX];
        uint64_t next_save_ns;
        uint64_t seen_event; /* of the ring: the newest that was looked at          */
        uint64_t next_event; /* number of this pool's next one                      */
    } history;
};
#define HISTORY_NOT_SAVED   UINT64_MAX
#define HISTORY_SAVE_ANYWAY (UINT64_MAX - 1) /* zeros as well */

struct export_kind;

struct attachment {
    struct list link;
    struct control_pool *pool; /* NULL: it is gone (attachment_drop) */
    uint64_t id;               /* key of its record */
    bool awaits; /* its volume has not arrived: clients wait, and the pool remembers nothing yet */
    uint32_t volume_id;
    char volume[VOLUME_NAME_MAX + 1];
    char address[ATTACHMENT_ADDRESS_MAX + 1];
    bool read_only;
    struct attachment_socket socket;   /* of a unix: address */
    struct attachment_aliases aliases; /* names beside the volume's; none of a block device */
    const struct export_kind *kind;    /* its row of the table (control/export.h) */
    void *served;     /* the kind's own, set by its start; NULL: not served, `error` says why */
    struct volume *v; /* open while it is served */
    struct {          /* while its volume moves (migrate_exports.h): what it will be there */
        struct volume *v;
        uint64_t id;
    } there;
    char uri[640];
    int rc;
    char error[512];
    bool told;         /* an event, or a reply, has said so */
    uint64_t retry_ns; /* when a failed one is tried again; the pauses grow */
    unsigned retries;
};

struct control {
    struct control_options options;
    const struct control_config *config;
    struct event_ring events;
    struct list pools; /* struct control_pool, in order of arrival */
    struct migrations migrations;
    struct receivers receivers;
    struct move_reports reports;
    struct list attachments; /* of all pools, so that one can change its pool and stay in place */
    struct list moves;       /* struct control_move, whose exports stay as they are */
    struct list attachment_changes;     /* struct attachment_change: attach and detach under way */
    struct co_queue attachment_changed; /* one of these has ended */
    bool tending;                       /* monitor_tend's coroutine runs */
    bool looking;                       /* one that looks at disks runs */
    bool state_unsaved;                 /* the cache of paths on disk is older than `pools` */
    uint64_t next_collect_ns;           /* when kept memory is looked at */
    uint64_t next_tend_ns;              /* when the monitor looks again at what failed */
    bool serves_page_cache; /* a block device is or was attached: reactors are made for it */
    struct co_mutex lock;   /* held by METHOD_ALONE methods, start and stop */
    bool started, stopping;
    struct co_queue state_changed; /* `started` or `stopping` */
    struct rpc rpc;
    struct control_server server;
    struct rpc peer_rpc;
    struct control_server peer_server; /* migrate.listen; listen_fd < 0: it is off */
    struct nbdx_address peer_address;  /* of the above */
    struct nbdx_total nbd_total;
    struct co *signal_watcher;
    bool signal_watcher_ended;
    uint64_t start_ns;
    int rc;
};

/* ---- pools.c ------------------------------------------------------------------------------- */

/* Finds by name or uuid and takes a reference. VP_E_NOT_FOUND with a sentence. */
int control_pool_get(struct control *c, const char *name, struct control_pool **out,
                     struct vp_error *err) must_check;
/* The same for one that is open; else the reason why it is not. */
int control_pool_get_open(struct control *c, const char *name, struct control_pool **out,
                          struct vp_error *err) must_check;
void control_pool_put(struct control_pool *p);
/* Calls fn for the open pool of this name, or (`name` NULL) for each open one, until fn returns
 * non-zero. fn does not yield. The errors are those of control_pool_get_open; what fn returns is
 * its own affair. */
int control_pools_each_open(struct control *c, const char *name,
                            int (*fn)(struct control_pool *p, void *arg), void *arg,
                            struct vp_error *err) must_check;
struct control_pool *control_pool_find(struct control *c, const char *name);

/* Splits "POOL/VOL" and takes a reference on the pool; *volume points into `text`. */
int control_volume_get(struct control *c, const char *text, struct control_pool **pool,
                       const char **volume, struct vp_error *err) must_check;
/* "POOL/VOL", and "POOL/?" of a volume that does not exist any more. Where there is an open volume,
 * volume_full_name has it. */
#define VOLUME_FULL_NAME_BYTES (VOLUME_FULL_NAME_MAX + 1)
void control_volume_name(const char *pool, const char *volume,
                         char out[static VOLUME_FULL_NAME_BYTES]);

/* Puts an open pool on the list, with its attachments, and remembers its disks. Owns vs. */
CO int control_pool_add(struct control *c, struct volumes *vs, struct control_pool **out,
                        struct vp_error *err) must_check;
/* volumes_create with the daemon's settings. */
CO int control_volumes_create(struct control *c, const struct pool_create_options *o,
                              const char *const *paths, unsigned count, struct volumes **out,
                              struct vp_error *err) must_check;
/* Imports what was found, starts the attachments. A pool of this uuid that could not be imported
 * before is replaced. `flags` as of pool_import. VP_E_EXISTS: another open pool has its name. */
CO int control_pool_import(struct control *c, const struct pool_found *f, unsigned flags,
                           struct control_pool **out, struct vp_error *err) must_check;
/* Under the lock: tries to import pools that are not open, each after a pause that grows. */
CO void control_pools_retry(struct control *c);
/* Off the list; waits for its users (the caller is not one). */
CO void control_pool_detach(struct control_pool *p);
/* Somebody waits for its users: what would hold it for long must not begin. */
static inline bool control_pool_is_leaving(const struct control_pool *p)
{
    return list_empty(&p->link);
}
/* Frees what control_pool_detach took off. */
void control_pool_free(struct control_pool *p);
/* Writes the cache of disks' paths. A failure gives an event, and the monitor tries again. */
CO int control_pools_save(struct control *c, struct vp_error *err) must_check;
/* The same where nobody is told: pools describe themselves. */
CO void control_pools_save_later(struct control *c);
/* A disk of the pool may be at this path soon: that is remembered before the pool counts on it, so
 * that a restart after a kill finds it. Afterwards control_pool_disks_changed, whatever came of it.
 */
CO void control_pool_disk_comes(struct control *c, struct control_pool *p, const char *path);
/* A disk of the open pool came, or is somewhere else: so does the cache. */
CO void control_pool_disks_changed(struct control *c, struct control_pool *p);
/* Start: everything that the cache knows. */
CO void control_pools_restore(struct control *c);
/* Stop: exports end, pools are closed; the first error. */
CO int control_pools_close(struct control *c) must_check;

/* ---- attachment.c -------------------------------------------------------------------------- */

/* Reads the pool's attachment records and starts all of them; one that fails says so in its
 * `error` and as an event. */
CO void attachments_start(struct control *c, struct control_pool *p);
/* Ends serving; the records stay. `leave`: the daemon ends and the next one goes on, so block
 * devices stay; else the pool leaves, and they go. */
CO void attachments_stop(struct control *c, struct control_pool *p, bool leave);
/* Tries those again that could not be started, when it is time. The caller holds control.lock. */
CO void attachments_retry(struct control *c, struct control_pool *p);

struct attachment_options {
    const struct export_kind *kind;
    const char *address;
    bool read_only;
    struct attachment_socket socket;
};
/* Serves and remembers. */
CO int attachment_add(struct control *c, struct control_pool *p, const char *volume,
                      const struct attachment_options *o, struct attachment **out,
                      struct vp_error *err) must_check;
/* VP_E_BUSY, naming the users: clients, mounts, swap, processes. Waits a moment for users that let
 * go by themselves. */
CO int attachment_check_unused(const struct attachment *a, struct vp_error *err) must_check;
/* Names who uses the volume through its attachments now, for a sentence; "" when nobody does. The
 * caller holds control.lock. */
CO void attachments_used_by(const struct control_pool *p, const char *volume, char *text,
                            size_t size);
/* Tells those who use a volume its new size; the caller holds control.lock. */
CO void attachments_resize(struct control *c, struct control_pool *p, const char *volume);
/* Ends an attachment for good, whoever uses it. */
CO int attachment_remove(struct control *c, struct attachment *a, struct vp_error *err) must_check;
/* Starts those again that are not served, without regard to their pauses: volumes that were in
 * doubt may not be any more. The caller holds control.lock. */
CO void attachments_retry_now(struct control *c);
/* Ends serving, so that users wait or come again. It is tried again as one that failed. */
CO void attachment_withdraw(struct control *c, struct attachment *a);
/* Ends serving for good, whoever uses it, and drops it: its volume has left the pool. The record
 * stays. The caller holds control.lock. */
CO void attachment_end(struct control *c, struct attachment *a);
/* The same without the lock, of one that awaits its volume: that will not arrive. What is left of
 * it is freed by attachments_reap. */
CO void attachment_drop(struct control *c, struct attachment *a);
/* The caller has control.lock, and holds no attachment. No yield. */
void attachments_reap(struct control *c);
/* Drops those of a volume that has left the pool. The caller holds control.lock, and deletes their
 * records. VP_E_BUSY: one of them is served, or a move has them in its hands; none is dropped. */
int attachments_forget(struct control *c, const struct volumes *vs, uint32_t volume_id) must_check;
/* Adds a's record to a batch, with another identity and names. */
void attachment_record_add(const struct attachment *a, uint64_t id, uint32_t volume_id,
                           const struct attachment_aliases *aliases, struct pool_batch *b);
/* The next attachment of the pool after `a`; NULL: the first one. Those of a volume that moves to
 * another pool change their pool also while somebody who holds control.lock walks. */
struct attachment *attachment_next(const struct control_pool *p, const struct attachment *a);
unsigned attachment_count(const struct control_pool *p, const char *volume);
CO json_t *attachment_json(const struct attachment *a);

/* ---- migrate_exports.c --------------------------------------------------------------------- */

/* Whoever makes, starts or ends attachments of a volume does so in between. */
struct attachment_change {
    struct list link;
    const struct control_pool *pool;
    const char *volume; /* the caller's until the end */
};
/* VP_E_VOLUME_MOVING: the volume moves, and attachments neither come nor go. */
int attachment_change_begin(struct control *c, struct attachment_change *ch,
                            const struct control_pool *p, const char *volume,
                            struct vp_error *err) must_check;
void attachment_change_end(struct control *c, struct attachment_change *ch);
/* Those of this volume that are under way end. */
CO void attachment_changes_await(struct control *c, const struct control_pool *p,
                                 const char *volume);
/* A move keeps the attachments of this volume as they are, and may have one in its hands. */
bool control_moves_hold(const struct control *c, const struct control_pool *p, const char *volume);

/* ---- show.c -------------------------------------------------------------------------------- */

/* No yield; of an open volume the figures of its last commit. */
json_t *show_pool_brief(const struct control_pool *p);
/* Asks open volumes; the caller holds a reference on p or control.lock. */
/* Into the "warnings" of what is shown: disks whose sizes do not fit each other. At create and
 * import only, since it is no state that gets better. */
void show_warn_limits(json_t *shown, const struct control_pool *p);
CO json_t *show_pool(const struct control_pool *p);
json_t *show_volume(const struct control_pool *p, const struct volume_info *info);
json_t *show_volume_options(const struct volume_options *o);
json_t *show_block_users(const struct block_users *users);
const char *show_level(enum pool_level level);
const char *show_volume_state(enum volume_state state);

/* ---- figures.c ----------------------------------------------------------------------------- */

/* All figures of a set, by name; histograms in short, or with their buckets as well. NULL: no
 * memory. */
json_t *show_figures(const struct figure_set *set, const void *figures, bool with_buckets);
/* Those of a disk, summed up over the reactors. */
json_t *show_disk_figures(const struct pool_disk_info *d, bool with_buckets);

/* ---- control.c ----------------------------------------------------------------------------- */

/*
 * Whether to try again after `rc`, having slept a little. The kernel tears down a killed process's
 * ring after the process is gone, so for a moment its sockets still answer and its disks are still
 * locked; a daemon that starts then waits for its predecessor's things, up to a limit.
 */
CO bool control_predecessor_lets_go(struct control *c, int rc);
/* The daemon ends, in order. `why` is told as an event. */
void control_request_stop(struct control *c, const char *why);

/* ---- history.c ----------------------------------------------------------------------------- */

/* Adds what the pool remembers to the counters of its disks and to the events. No yield. */
void history_load(struct control *c, struct control_pool *p);
/* Writes what has changed since; a failure is tried again by the next one. */
CO void history_save(struct control *c, struct control_pool *p);
/* Disk i came into service again, with another uuid and maybe at another path; another device
 * (`replaced`) starts with counters of zero. What is remembered of it is saved anew. No yield. */
void history_disk_came(struct control_pool *p, unsigned i, bool replaced);
/* Counters start again from zero. */
CO void history_clear(struct control *c, struct control_pool *p);

/* ---- jobs.c -------------------------------------------------------------------------------- */

/* The disk that a rebuild fills. Of one that the pool does not have only the index is set. */
void control_job_disk(const struct control_pool *p, const struct pool_job *j,
                      struct pool_disk_info *out);
/* What a job works on, for people: "POOL/VOL" by the volume's present name or by the one that it
 * had; of a rebuild "disk 1 (PATH) of POOL". */
#define JOB_SUBJECT_BYTES (VOLUME_FULL_NAME_BYTES + 300)
/* Its `volume` is the index of a disk. */
bool control_job_is_of_disk(const struct pool_job *j);
void control_job_subject(const struct control_pool *p, const struct pool_job *j,
                         char out[static JOB_SUBJECT_BYTES]);
/* The volume alone. The job is no rebuild. */
void control_job_volume(const struct control_pool *p, const struct pool_job *j,
                        char out[static VOLUME_FULL_NAME_BYTES]);
/* The job that fills the disk, as long as it has not ended; NULL: there is none, or not yet. */
const struct pool_job *control_disk_job(const struct control_pool *p, unsigned disk);
/* Adds events for jobs that began, ended, or were paused, since the last look. */
void jobs_look(struct control *c, struct control_pool *p);

/* "POOL/N" */
#define JOB_NAME_BYTES (POOL_NAME_MAX + 12)
const char *control_job_name(const struct control_pool *p, uint32_t id,
                             char out[static JOB_NAME_BYTES]);

/* ---- doctor.c ------------------------------------------------------------------------------ */

/* Once an hour: what was kept for pools that never came again goes. */
void doctor_collect(struct control *c);

/* ---- monitor.c, notify.c ------------------------------------------------------------------- */

/* Compares every pool with what was seen last and adds events for what changed. */
void monitor_look(struct control *c);
/* Starts, unless it still runs, what may wait for disks: a walk for health, what failed before is
 * tried again, histories are saved. Not while a command is under way. */
void monitor_tend(struct control *c);
/* method_disk.c: the device at `path` takes the place of a disk. As pool.replace. */
CO int control_disk_replace(struct control *c, struct control_pool *p, unsigned index,
                            const char *path, struct vp_error *err) must_check;
/* method_scrub.c: the last scrub of an open pool, without or with what it found. */
json_t *scrub_json(const struct control_pool *p, bool findings);
/* Begins the scrub that is due by vpoold.conf. The pool is pinned. */
CO void scrub_when_due(struct control *c, struct control_pool *p);
/* Events for what the scrub has found since the last look, and for its end. */
void scrub_look(struct control *c, struct control_pool *p);
/* Tells systemd, when it asked (NOTIFY_SOCKET). */
void notify_send(const char *text);

#define control_event(c, level, kind, subject, ...)                                                \
    event_add(&(c)->events, reactor_wall_seconds(), level, kind, subject, __VA_ARGS__)

/* ---- methods ------------------------------------------------------------------------------- */

extern const struct method methods_daemon[], methods_pool[], methods_disk[], methods_scrub[],
    methods_volume[], methods_attach[], methods_ublk[], methods_job[], methods_migrate[],
    methods_doctor[];
extern const struct method *const methods_all[];
extern const struct method *const methods_of_peers[];
/* How a method of those is run. */
CO rpc_run_fn control_peer_run;

#endif

/*
 * Exports of a volume follow it to another pool of this daemon, while their clients are connected.
 * They end after it has left for another daemon. This is what migrate/ asks of the layer above
 * (struct migrate_exports).
 *
 * From `prepare` until the move has ended, and the source is deleted or goes on, no attachment of
 * the volume comes or goes: attach, detach and their like are refused (attachment_change_begin).
 * That is so from before the freeze, since the kernel would wait for a frozen volume, and the
 * command that asked the kernel would wait with control.lock held. The move itself never holds that
 * lock.
 *
 * What may fail is done by `prepare`: each export that is served opens the target, besides the
 * source. So `switched` only exchanges what an attachment has, and tells its clients' names.
 *
 * To another daemon clients go by themselves, and attachments come and go until shortly before the
 * freeze.
 * Then its exports answer flushes, and refuse the rest, until their clients are gone, but for no
 * longer than ten seconds. Only then the lock is taken, for as long as they end.
 *
 * When the daemon ends between any two of these steps, the pools' records are what counts. The
 * record of a block device in /run (ublk_record.h) may still name the old pool then. The device is
 * found by the volume's uuid, and its record is written again when the device is taken over.
 */
#ifndef VP_CONTROL_MIGRATE_EXPORTS_H
#define VP_CONTROL_MIGRATE_EXPORTS_H

#include "control/control_impl.h"
#include "migrate/migrate.h"

/* One move. It stays where it is until the move has ended. */
struct control_move {
    struct migrate_exports exports; /* for struct migrate_options */
    struct list link;               /* in control.moves while it keeps exports as they are */
    struct control *control;
    struct control_pool *from, *to; /* pinned by the caller until the move has ended; to: NULL when
                                       that is another daemon's */
    char volume[VOLUME_NAME_MAX + 1],
        name[VOLUME_NAME_MAX + 1];         /* there and here; name: the same */
    char target[VOLUME_FULL_NAME_MAX + 1]; /* for people */
    uint32_t source_id, target_id;         /* numbers of the volume there and here */
};
void control_move_init(struct control_move *m, struct control *c, struct control_pool *from,
                       const char *volume, struct control_pool *to, const char *name);
/* To "POOL/VOL" in another daemon. */
void control_move_init_out(struct control_move *m, struct control *c, struct control_pool *from,
                           const char *volume, const char *target);
/* The move has ended, or could not be started: exports come and go again. */
void control_move_end(struct control_move *m);

/* For migrate_settle and migrate_forget; the caller holds control.lock. */
struct migrate_exports control_settle_exports(struct control *c);

#endif

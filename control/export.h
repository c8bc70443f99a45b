/*
 * The kinds of export, each a row of one table: all that attachment.c asks of them. A new kind is a
 * file with its row, a line in export.c, a number in attachment_format.h and a parameter of
 * `attach`. Home reactor; the caller holds control.lock.
 */
#ifndef VP_CONTROL_EXPORT_H
#define VP_CONTROL_EXPORT_H

#include "control/control_impl.h"

struct export_kind {
    const char *name; /* as `attach` and `attachments` have it */
    uint8_t number;   /* enum attachment_kind: as the pool's record has it */
    /* A block device of this machine. There is one a volume, since two would have two page caches;
     * people know it by its path, and any other export by its address. */
    bool is_device;

    /* Whether a volume could be served at o->address, as far as that can be said beforehand.
     * VP_E_INVALID, VP_E_PERMISSION (the configuration forbids it), VP_E_RPC_PARAMS (o->socket is
     * not for it). */
    int (*check)(struct control *c, const struct attachment_options *o, struct vp_error *err);
    /* Serves a->v, which is open. Sets a->served, a->uri, and a->address to what brings the same
     * export back after a restart. */
    CO int (*start)(struct control *c, struct attachment *a, struct vp_error *err);
    /* Ends the export for its users. After an error with a->served still set the export is served
     * on, and can be stopped again, or left. After another error the export has ended, and
     * something of it remains. What is no device may be stopped without control.lock
     * (attachment_drop): a->served is NULL before anything ends. */
    CO int (*stop)(struct attachment *a, struct vp_error *err);
    /* The next daemon goes on with the export, or a later start. It ends here so that its users
     * wait, or come again. Without control.lock when the volume is withdrawn (migrate_exports.h):
     * a->served is NULL before anything ends, since others may look at it. */
    CO void (*leave)(struct attachment *a);
    /* Tells the export's users the volume's new size. NULL: they ask by themselves. */
    CO int (*resize)(struct attachment *a, struct vp_error *err);
    /* Whether `target`, which is open, can take the place of a->v for the export's users.
     * VP_E_NOT_SUPPORTED. NULL: any volume can. */
    CO int (*check_move)(const struct attachment *a, struct volume *target, struct vp_error *err);
    /* The volume has moved to another pool: a->pool, a->volume, a->v and a->aliases are new. The
     * export goes on, and tells the new name. Its users wait meanwhile. Other commands may look at
     * it, so a->served stays. */
    CO void (*moved)(struct control *c, struct attachment *a);

    /* Takes no new users, who find nobody; those that are there go on. NULL: it cannot. */
    CO void (*close)(struct attachment *a);

    /* VP_E_BUSY, naming the users. Waits a moment for users that let go by themselves. */
    CO int (*check_unused)(const struct attachment *a, struct vp_error *err);
    /* The same for a sentence, "" when nobody is seen. */
    CO void (*users)(const struct attachment *a, char *text, size_t size);
    /* What is counted of it, as show_figures; zeros when it is not served. Does not wait. */
    json_t *(*figures)(const struct attachment *a, bool with_buckets);
    /* What `attachments` shows of it besides its figures and what all have; also when it is not
     * served. */
    CO json_t *(*describe)(const struct attachment *a);
    /* VP_E_EXISTS: `a`, which is not served, is not what `address` asks for. NULL: it always is,
     * once the addresses are the same. */
    int (*check_same)(const struct attachment *a, const char *address, struct vp_error *err);
};

extern const struct export_kind export_nbd, export_ublk;

/* All of them, ended by NULL. */
extern const struct export_kind *const export_kinds[];
/* NULL: a newer release's. */
const struct export_kind *export_by_number(unsigned number);

/* VP_E_RPC_PARAMS when `o` gives a socket file's owner, group or mode: this export has no such
 * file. */
int export_check_no_socket(const struct attachment_options *o, struct vp_error *err) must_check;

/* ---- export_ublk.c ------------------------------------------------------------------------- */

/* The number of the block device as which `a` is served; -1: it is not. */
int export_ublk_number(const struct attachment *a);

#endif

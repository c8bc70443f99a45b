/* All ublk devices of the kernel, whoever made them: what `vpool ublk` shows and removes. Home
 * reactor. The caller holds control.lock, so that attachments stay. */
#ifndef VP_CONTROL_UBLK_DEVICES_H
#define VP_CONTROL_UBLK_DEVICES_H

#include "control/block_users.h"
#include "control/control_impl.h"
#include "control/ublk_record.h"
#include "ublk/device.h"

enum ublk_owner {
    UBLK_SERVED_HERE,      /* an attachment of this daemon                    */
    UBLK_SERVED_ELSEWHERE, /* vpool's, by another daemon that lives           */
    UBLK_ORPHAN,           /* vpool's, without a server                       */
    UBLK_OF_OTHERS,        /* of another program: never touched               */
    UBLK_UNKNOWN,          /* the kernel does not say: never touched          */
};

struct ublk_seen {
    struct ublkx_device device;
    struct vp_error error; /* the kernel's, when it was asked: of `device` only the number holds */
    enum ublk_owner owner;
    bool recorded; /* `record` is this device's */
    struct ublk_record record;
    struct attachment *attachment; /* served here; until control.lock is let go */
    int server_pid;                /* 0: none */
    struct block_users users;      /* if they were asked for */
};

/* VP_E_NOT_FOUND, VP_E_UBLK_…, VP_E_NO_MEMORY, with a sentence. */
CO int ublk_look(struct control *c, int number, struct ublk_seen *out,
                 struct vp_error *err) must_check;
/* Calls `fn` for all devices of the kernel, by number, until `fn` fails; for none without the
 * driver. A device that does not answer has its error and is UBLK_UNKNOWN, unless it is served
 * here. Users of devices are looked for only if asked. */
CO int ublk_each(struct control *c, bool users,
                 int (*fn)(struct control *c, struct ublk_seen *s, void *arg), void *arg,
                 struct vp_error *err) must_check;
/* Writes the record of device `number`, or without `there` removes it; a failure is logged too.
 * `record` is a struct ublk_record: see ublkx_options.known. */
CO int ublk_device_known(void *record, int number, bool there, struct vp_error *err) must_check;
/* Whether the record of device `number` is that of r's volume. The pool may be another one, and
 * then *has_other_names: the volume has moved, and the daemon ended before the record was
 * written. */
CO bool ublk_device_is_recorded(const struct ublk_record *r, int number, bool *has_other_names);
/* Has udev read the record of device `number` again, which serves. Errors with a sentence. */
CO int ublk_device_announce(int number, struct vp_error *err) must_check;
/* Removes an orphan. Requests that wait end with errors. As ublkx_device_discard. */
CO int ublk_remove(const struct ublk_seen *s, struct vp_error *err) must_check;

/* At the start, when attachments are back: an event for each orphan; records without a device
 * go. */
CO void ublk_report_orphans(struct control *c);

#endif

/*
 * The kernel's ublk devices as this daemon sees them.
 *
 * A device is ours if there is a record (ublk_record.h) for it with its tag. The tag is a number of
 * 64 bits, the identity of a volume, and root wrote it into a directory of root's. No other device
 * is ever touched. An orphan is a device of ours without a server: its users wait for a daemon that
 * imports its pool, or until somebody removes the device.
 */
#include "control/ublk_devices.h"

#include "base/attr.h"
#include "control/export.h"
#include "io/offload.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CLASS_DIR "/sys/class/ublk-char"
#define BLOCK_DIR "/sys/class/block"

/* ---- one device ---------------------------------------------------------------------------- */

static struct attachment *find_served(struct control *c, int number)
{
    struct attachment *a;
    list_for_each (a, &c->attachments, link)
        if (export_ublk_number(a) == number)
            return a;
    return NULL;
}

/* What was asked for in one go, so that /proc is read once. */
struct sight {
    struct ublk_seen *seen;
    unsigned count;
    bool users;
};

static void name_device(struct block_users_of *of, const char *prefix, int number)
{
    (void)snprintf(of->device, sizeof(of->device), "%s%d", prefix, number);
}

/* Its server, if it has none, may be one that is about to take it over. */
static void look_at_files(struct ublk_seen *s, const struct block_users *openers)
{
    s->recorded = ublk_record_read(UBLK_RECORD_DIR, s->device.number, &s->record) == 0 &&
                  s->record.tag == s->device.tag;
    s->server_pid = s->device.life == UBLKX_SERVED ? s->device.server_pid
                    : openers->count               ? openers->user[0].pid
                                                   : 0;
}

static int look_blocking(void *arg)
{
    const struct sight *g = arg;
    AUTO_FREE struct block_users_of *servers = calloc(2 * (size_t)g->count, sizeof(*servers));
    if (!servers)
        return VP_E_NO_MEMORY;
    struct block_users_of *users = servers + g->count;
    for (unsigned i = 0; i < g->count; i++) {
        name_device(&servers[i], "ublkc", g->seen[i].device.number);
        name_device(&users[i], "ublkb", g->seen[i].device.number);
    }
    int rc = block_users_find(&block_users_kernel, servers, g->users ? 2 * g->count : g->count);
    for (unsigned i = 0; rc == 0 && i < g->count; i++) {
        look_at_files(&g->seen[i], &servers[i].users);
        g->seen[i].users = users[i].users;
    }
    return rc;
}

/* Asks the kernel. What does not answer has an error and, of `device`, only its number. */
static CO int ask(int number, struct ublk_seen *out)
{
    *out = (struct ublk_seen){.device.number = number};
    return ublkx_device_look(number, &out->device, &out->error);
}

static void judge(struct control *c, struct ublk_seen *s)
{
    s->attachment = find_served(c, s->device.number);
    s->owner = s->attachment   ? UBLK_SERVED_HERE
               : s->error.rc   ? UBLK_UNKNOWN
               : !s->recorded  ? UBLK_OF_OTHERS
               : s->server_pid ? UBLK_SERVED_ELSEWHERE
                               : UBLK_ORPHAN;
}

CO int ublk_look(struct control *c, int number, struct ublk_seen *out, struct vp_error *err)
{
    struct sight g = {.seen = out, .count = 1, .users = true};
    int rc = ask(number, out);
    if (rc)
        return vp_fail(err, rc, "%s", out->error.text);
    rc = offload_run(look_blocking, &g);
    if (rc)
        return vp_fail(err, rc, "looking at /dev/ublkb%d: %s", number, vp_err_text(rc));
    judge(c, out);
    return 0;
}

static int list_devices(void *arg)
{
    return ublk_numbers_in(CLASS_DIR, "ublkc", arg);
}

/* All that are there, in an array of the caller's. */
static CO int look_at_all(struct sight *g)
{
    AUTO_FREE struct ublk_numbers *n = malloc(sizeof(*n));
    int rc = n ? offload_run(list_devices, n) : VP_E_NO_MEMORY;
    if (rc || n->count == 0)
        return rc;
    g->seen = calloc(n->count, sizeof(*g->seen));
    if (!g->seen)
        return VP_E_NO_MEMORY;
    for (unsigned i = 0; i < n->count; i++)
        if (ask(n->number[i], &g->seen[g->count]) != VP_E_NOT_FOUND) /* it has just gone */
            g->count++;
    return g->count ? offload_run(look_blocking, g) : 0;
}

CO int ublk_each(struct control *c, bool users,
                 int (*fn)(struct control *c, struct ublk_seen *s, void *arg), void *arg,
                 struct vp_error *err)
{
    struct sight g = {.users = users};
    int rc = look_at_all(&g);
    if (rc)
        rc = vp_fail(err, rc, "listing ublk devices: %s", vp_err_text(rc));
    for (unsigned i = 0; rc == 0 && i < g.count; i++) {
        judge(c, &g.seen[i]);
        rc = fn(c, &g.seen[i], arg);
    }
    free(g.seen);
    return rc;
}

/* ---- records, removal ---------------------------------------------------------------------- */

static int write_blocking(void *arg)
{
    return ublk_record_write(UBLK_RECORD_DIR, arg);
}

static int remove_blocking(void *arg)
{
    return ublk_record_remove(UBLK_RECORD_DIR, ((const struct ublk_record *)arg)->number);
}

CO int ublk_device_known(void *arg, int number, bool there, struct vp_error *err)
{
    struct ublk_record *r = arg;
    r->number = number;
    int rc = offload_run(there ? write_blocking : remove_blocking, r);
    if (rc)
        vp_warn("/dev/ublkb%d: its record in " UBLK_RECORD_DIR " could not be %s (%s)", number,
                there ? "written" : "removed", vp_err_text(rc));
    return rc ? vp_fail(err, rc,
                        "the record of /dev/ublkb%d in " UBLK_RECORD_DIR
                        ", without which no daemon could take it over, could not be written: %s",
                        number, vp_err_text(rc))
              : 0;
}

struct known {
    int number;
    struct ublk_record record;
};

static int read_blocking(void *arg)
{
    struct known *k = arg;
    return ublk_record_read(UBLK_RECORD_DIR, k->number, &k->record);
}

CO bool ublk_device_is_recorded(const struct ublk_record *r, int number, bool *has_other_names)
{
    struct known k = {.number = number};
    *has_other_names = false;
    if (number < 0 || offload_run(read_blocking, &k) || !ublk_record_is_of(&k.record, r))
        return false;
    *has_other_names =
        strcmp(k.record.pool, r->pool) != 0 || strcmp(k.record.volume, r->volume) != 0;
    return true;
}

static int announce_blocking(void *number)
{
    return ublk_announce(BLOCK_DIR, *(const int *)number);
}

CO int ublk_device_announce(int number, struct vp_error *err)
{
    int rc = offload_run(announce_blocking, &number);
    return rc ? vp_fail(err, rc,
                        "/dev/ublkb%d keeps its names in /dev/vpool until `udevadm trigger "
                        "/dev/ublkb%d`: its change could not be announced: %s",
                        number, number, vp_err_text(rc))
              : 0;
}

CO int ublk_remove(const struct ublk_seen *s, struct vp_error *err)
{
    struct ublk_record record = s->record;
    return ublkx_device_discard(&s->device, ublk_device_known, &record, err);
}

/* ---- the start ----------------------------------------------------------------------------- */

static int report(struct control *c, struct ublk_seen *s, void *arg)
{
    (void)arg;
    if (s->owner == UBLK_UNKNOWN)
        vp_warn("whether /dev/ublkb%d has a server is not known: %s", s->device.number,
                s->error.text);
    if (s->owner != UBLK_ORPHAN)
        return 0;
    char subject[VOLUME_FULL_NAME_BYTES];
    control_volume_name(s->record.pool, s->record.volume, subject);
    control_event(c, VP_LOG_WARN, "ublk.orphan", subject,
                  "/dev/ublkb%d has no server and its users wait: import pool '%s', or end it with "
                  "`vpool ublk remove %d`",
                  s->device.number, s->record.pool, s->device.number);
    return 0;
}

static int forget_leftovers(void *arg)
{
    (void)arg;
    if (access("/sys/class", F_OK)) /* then no device can be seen */
        return vp_err_from_errno(errno);
    return ublk_records_forget_leftovers(UBLK_RECORD_DIR, CLASS_DIR);
}

CO void ublk_report_orphans(struct control *c)
{
    struct vp_error err = {0};
    int rc = offload_run(forget_leftovers, NULL);
    if (rc)
        vp_warn("looking for records in " UBLK_RECORD_DIR " whose devices are gone: %s",
                vp_err_text(rc));
    if (ublk_each(c, false, report, NULL, &err))
        vp_warn("looking for block devices without a server: %s", err.text);
}

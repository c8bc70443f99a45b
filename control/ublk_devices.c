/*
 * The kernel's ublk devices as this daemon sees them.
 *
 * Ours is a device for which there is a record (ublk_record.h) with its tag: a number of 64 bits that
 * is a volume's identity, written by root into a directory of root's. All others are somebody else's
 * and are never touched. An orphan is one of ours without a server: its users wait for a daemon that
 * imports its pool, or until somebody removes it.
 */
#include "control/ublk_devices.h"

#include "control/offload.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NUMBERS_MAX 4096

struct numbers {
    int number[NUMBERS_MAX];
    unsigned count;
};

static int compare(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

/* Offloaded. The numbers in files "PREFIXn" of a directory; none when it is not there. */
static void numbers_in(const char *dir, const char *prefix, struct numbers *out)
{
    out->count = 0;
    DIR *d = opendir(dir);
    const struct dirent *e;
    while (d && (e = readdir(d)) && out->count < NUMBERS_MAX) {
        int n = ublk_number_of(e->d_name, prefix);
        if (n >= 0)
            out->number[out->count++] = n;
    }
    if (d)
        closedir(d);
    qsort(out->number, out->count, sizeof(out->number[0]), compare);
}

static int list_devices(void *arg)
{
    numbers_in("/sys/class/ublk-char", "ublkc", arg);
    return 0;
}

static int list_records(void *arg)
{
    numbers_in(UBLK_RECORD_DIR, "ublkb", arg);
    return 0;
}

/* ---- one device ---------------------------------------------------------------------------- */

static struct attachment *find_served(struct control *c, int number)
{
    struct control_pool *p;
    list_for_each (p, &c->pools, link) {
        struct attachment *a;
        list_for_each (a, &p->attachments, link)
            if (a->target && ublkx_target_number(a->target) == number)
                return a;
    }
    return NULL;
}

static int look_blocking(void *arg)
{
    struct ublk_seen *s = arg;
    char name[32], server[32];
    s->recorded = ublk_record_read(UBLK_RECORD_DIR, s->device.number, &s->record) == 0 &&
                  s->record.tag == s->device.tag;
    (void)snprintf(name, sizeof(name), "ublkb%d", s->device.number);
    (void)snprintf(server, sizeof(server), "ublkc%d", s->device.number);
    block_users_find(&block_users_kernel, name, &s->users);
    if (s->device.life == UBLKX_SERVED) {
        s->server_pid = s->device.server_pid;
        return 0;
    }
    struct block_users servers; /* one may be about to take it over */
    block_users_find(&block_users_kernel, server, &servers);
    s->server_pid = servers.count ? servers.user[0].pid : 0;
    return 0;
}

int ublk_look(struct control *c, int number, struct ublk_seen *out, struct vp_error *err)
{
    *out = (struct ublk_seen){0};
    int rc = ublkx_device_look(number, &out->device, err);
    if (rc)
        return rc;
    rc = offload_run(look_blocking, out);
    if (rc)
        return vp_fail(err, rc, "looking at /dev/ublkb%d: %s", number, vp_err_text(rc));
    out->attachment = find_served(c, number);
    out->owner = out->attachment   ? UBLK_SERVED_HERE
                 : !out->recorded  ? UBLK_OF_OTHERS
                 : out->server_pid ? UBLK_SERVED_ELSEWHERE
                                   : UBLK_ORPHAN;
    return 0;
}

int ublk_each(struct control *c, int (*fn)(struct control *c, struct ublk_seen *s, void *arg),
              void *arg, struct vp_error *err)
{
    struct numbers *n = malloc(sizeof(*n));
    struct ublk_seen *s = malloc(sizeof(*s));
    int rc = n && s ? offload_run(list_devices, n) : VP_E_NO_MEMORY;
    if (rc)
        rc = vp_fail(err, rc, "listing ublk devices: %s", vp_err_text(rc));
    for (unsigned i = 0; rc == 0 && i < n->count; i++) {
        rc = ublk_look(c, n->number[i], s, err);
        if (rc == VP_E_NOT_FOUND) /* it has just gone */
            rc = 0;
        else if (rc == 0)
            rc = fn(c, s, arg);
    }
    free(n);
    free(s);
    return rc;
}

/* ---- removal ------------------------------------------------------------------------------- */

static int forget_blocking(void *arg)
{
    return ublk_record_remove(UBLK_RECORD_DIR, *(const int *)arg);
}

static CO void forget(void *arg)
{
    int rc = offload_run(forget_blocking, arg);
    if (rc)
        vp_warn(UBLK_RECORD_DIR "/ublkb%d could not be removed: %s", *(const int *)arg,
                vp_err_text(rc));
}

int ublk_remove(const struct ublk_seen *s, struct vp_error *err)
{
    int number = s->device.number;
    return ublkx_device_discard(&s->device, forget, &number, err);
}

/* ---- the start ----------------------------------------------------------------------------- */

static int report(struct control *c, struct ublk_seen *s, void *arg)
{
    (void)arg;
    if (s->owner != UBLK_ORPHAN)
        return 0;
    char subject[200];
    (void)snprintf(subject, sizeof(subject), "%s/%s", s->record.pool, s->record.volume);
    control_event(c, VP_LOG_WARN, "ublk.orphan", subject,
                  "/dev/ublkb%d has no server and its users wait: import pool '%s', or end it with "
                  "`vpool ublk remove %d`",
                  s->device.number, s->record.pool, s->device.number);
    return 0;
}

/* A record is there as long as its device is, so one without is of a device that somebody else
 * removed. */
static CO void forget_leftovers(void)
{
    struct numbers *devices = malloc(sizeof(*devices)), *records = malloc(sizeof(*records));
    /* The records first: a device that comes in between has no record in the list. */
    if (devices && records && offload_run(list_records, records) == 0 &&
        offload_run(list_devices, devices) == 0)
        for (unsigned i = 0; i < records->count; i++)
            if (!bsearch(&records->number[i], devices->number, devices->count, sizeof(int),
                         compare))
                forget(&records->number[i]);
    free(devices);
    free(records);
}

void ublk_report_orphans(struct control *c)
{
    struct vp_error err = {0};
    forget_leftovers();
    if (ublk_each(c, report, NULL, &err))
        vp_warn("looking for block devices without a server: %s", err.text);
}

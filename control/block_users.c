/*
 * Who uses a block device.
 *
 * The devices in question are collected first, from sysfs: the device, its partitions, and their
 * holders with theirs. Then the lists of mounts, of swap and of open files are searched for them,
 * once for all that are asked for (a `look` is one of those): /proc is long. A mount is known by
 * its device number; one of btrfs, which has numbers of its own, by the path in its source. With
 * other file systems the source proves nothing: whoever may use FUSE chooses it. Open files are
 * known by the target of their link in /proc, which is read and never followed: following it may
 * wait for a file system that hangs.
 */
#include "control/block_users.h"

#include "base/attr.h"
#include "base/bytes.h"

#include <ctype.h>
#include <dirent.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define DEVICES_MAX 64

const struct block_users_roots block_users_kernel = {"/proc", "/sys"};

struct device {
    char name[48];
    char number[24]; /* "259:1" */
};

struct look {
    const struct block_users_roots *roots;
    struct device device[DEVICES_MAX];
    unsigned count;
    struct block_users *users;
    int opener; /* the process that was found last: one is enough, however often it has it open */
};

struct looks {
    const struct block_users_roots *roots;
    struct look *look;
    unsigned count;
};

/* ---- small helpers ------------------------------------------------------------------------- */

#define PATH_BYTES 512

static bool path_format(char out[static PATH_BYTES], const char *fmt, va_list ap)
{
    int n = vsnprintf(out, PATH_BYTES, fmt, ap);
    return n > 0 && n < PATH_BYTES;
}

static FILE *open_text(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static FILE *open_text(const char *fmt, ...)
{
    char path[PATH_BYTES];
    va_list ap;
    va_start(ap, fmt);
    bool fits = path_format(path, fmt, ap);
    va_end(ap);
    return fits ? fopen(path, "re") : NULL;
}

static DIR *open_dir(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static DIR *open_dir(const char *fmt, ...)
{
    char path[PATH_BYTES];
    va_list ap;
    va_start(ap, fmt);
    bool fits = path_format(path, fmt, ap);
    va_end(ap);
    return fits ? opendir(path) : NULL;
}

static void first_line(FILE *f, char *out, size_t size)
{
    out[0] = 0;
    if (f && fgets(out, (int)size, f))
        out[strcspn(out, "\n")] = 0;
}

/* The kernel writes blanks and such in these lists as \ooo. In place. */
static void unescape(char *text)
{
    char *to = text;
    for (const char *p = text; *p; p++) {
        if (p[0] == '\\' && p[1] >= '0' && p[1] <= '3' && isdigit((unsigned char)p[2]) &&
            isdigit((unsigned char)p[3])) {
            *to++ = (char)((p[1] - '0') * 64 + (p[2] - '0') * 8 + (p[3] - '0'));
            p += 3;
        } else {
            *to++ = *p;
        }
    }
    *to = 0;
}

/* A mount namespace may have the same mount twice. */
static bool is_known(const struct block_users *users, const struct block_user *u)
{
    for (unsigned i = 0; i < users->count && i < BLOCK_USERS_MAX; i++) {
        const struct block_user *v = &users->user[i];
        if (v->use == u->use && v->pid == u->pid && strcmp(v->device, u->device) == 0 &&
            strcmp(v->what, u->what) == 0)
            return true;
    }
    return false;
}

static void add_user(struct look *l, enum block_use use, const char *device, const char *what,
                     int pid)
{
    struct block_user u = {.use = use, .pid = pid};
    (void)snprintf(u.device, sizeof(u.device), "%s", device);
    (void)snprintf(u.what, sizeof(u.what), "%s", what);
    bytes_make_printable(u.what);
    if (is_known(l->users, &u))
        return;
    if (l->users->count < BLOCK_USERS_MAX)
        l->users->user[l->users->count] = u;
    l->users->count++;
}

/* ---- the devices --------------------------------------------------------------------------- */

/* Whose path "/dev/NAME" is `path`; NULL: none of ours. */
static const struct device *by_path(const struct look *l, const char *path)
{
    if (strncmp(path, "/dev/", 5) != 0)
        return NULL;
    for (unsigned i = 0; i < l->count; i++)
        if (strcmp(l->device[i].name, path + 5) == 0)
            return &l->device[i];
    return NULL;
}

static bool add_device(struct look *l, const char *name)
{
    for (unsigned i = 0; i < l->count; i++)
        if (strcmp(l->device[i].name, name) == 0)
            return false;
    if (l->count == DEVICES_MAX || strlen(name) >= sizeof(l->device[0].name))
        return false;
    struct device *d = &l->device[l->count++];
    (void)snprintf(d->name, sizeof(d->name), "%s", name);
    AUTO_FILE FILE *f = open_text("%s/class/block/%s/dev", l->roots->sys, name);
    first_line(f, d->number, sizeof(d->number));
    return true;
}

/* Partitions are folders that are named after their disk. */
static void add_partitions(struct look *l, const char *disk)
{
    AUTO_DIR DIR *dir = open_dir("%s/class/block/%s", l->roots->sys, disk);
    const struct dirent *e;
    while (dir && (e = readdir(dir)))
        if (strncmp(e->d_name, disk, strlen(disk)) == 0)
            (void)add_device(l, e->d_name);
}

static void add_holders(struct look *l, const char *name)
{
    AUTO_DIR DIR *dir = open_dir("%s/class/block/%s/holders", l->roots->sys, name);
    const struct dirent *e;
    while (dir && (e = readdir(dir))) {
        if (e->d_name[0] == '.' || !add_device(l, e->d_name))
            continue;
        char text[200] = "";
        AUTO_FILE FILE *f = open_text("%s/class/block/%s/dm/name", l->roots->sys, e->d_name);
        first_line(f, text, sizeof(text));
        char what[256];
        (void)snprintf(what, sizeof(what), text[0] ? "%.40s (%s)" : "%.40s%s", e->d_name, text);
        add_user(l, BLOCK_HELD, name, what, 0);
    }
}

/* ---- the lists ----------------------------------------------------------------------------- */

struct mount {
    char number[24], at[256], btrfs[256]; /* its source; "" of other file systems */
};

/* "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue" (proc(5)) */
static bool mount_parse(const char *line, struct mount *m)
{
    char type[16];
    const char *tail = strstr(line, " - ");
    if (sscanf(line, "%*s %*s %23s %*s %255s", m->number, m->at) != 2)
        return false;
    unescape(m->at);
    if (!tail || sscanf(tail + 3, "%15s %255s", type, m->btrfs) != 2 || strcmp(type, "btrfs") != 0)
        m->btrfs[0] = 0;
    return true;
}

static void look_at_mount(struct look *l, const struct mount *m)
{
    const struct device *d = by_path(l, m->btrfs);
    for (unsigned i = 0; i < l->count && !d; i++)
        if (strcmp(l->device[i].number, m->number) == 0)
            d = &l->device[i];
    if (d)
        add_user(l, BLOCK_MOUNTED, d->name, m->at, 0);
}

static void look_at_mounts(const struct looks *all)
{
    AUTO_FREE char *line = NULL;
    size_t size = 0;
    struct mount m;
    AUTO_FILE FILE *f = open_text("%s/self/mountinfo", all->roots->proc);
    while (f && getline(&line, &size, f) > 0) {
        if (!mount_parse(line, &m))
            continue;
        for (unsigned i = 0; i < all->count; i++)
            look_at_mount(&all->look[i], &m);
    }
}

static void look_at_swap(const struct looks *all)
{
    AUTO_FREE char *line = NULL;
    size_t size = 0;
    AUTO_FILE FILE *f = open_text("%s/swaps", all->roots->proc);
    while (f && getline(&line, &size, f) > 0) {
        line[strcspn(line, " \t\n")] = 0;
        unescape(line);
        for (unsigned i = 0; i < all->count; i++) {
            const struct device *d = by_path(&all->look[i], line);
            if (d)
                add_user(&all->look[i], BLOCK_SWAP, d->name, "swap", 0);
        }
    }
}

static void add_opener(struct look *l, const char *device, int pid)
{
    char name[64];
    AUTO_FILE FILE *f = open_text("%s/%d/comm", l->roots->proc, pid);
    first_line(f, name, sizeof(name));
    add_user(l, BLOCK_OPEN, device, name, pid);
    l->opener = pid;
}

static void look_at_process(const struct looks *all, int pid)
{
    AUTO_DIR DIR *dir = open_dir("%s/%d/fd", all->roots->proc, pid);
    const struct dirent *e;
    while (dir && (e = readdir(dir))) {
        char target[64];
        ssize_t n = readlinkat(dirfd(dir), e->d_name, target, sizeof(target) - 1);
        target[n < 0 ? 0 : n] = 0;
        for (unsigned i = 0; i < all->count; i++) {
            struct look *l = &all->look[i];
            const struct device *d = l->opener == pid ? NULL : by_path(l, target);
            if (d)
                add_opener(l, d->name, pid);
        }
    }
}

static void look_at_processes(const struct looks *all)
{
    AUTO_DIR DIR *dir = open_dir("%s", all->roots->proc);
    const struct dirent *e;
    while (dir && (e = readdir(dir)))
        if (isdigit((unsigned char)e->d_name[0]))
            look_at_process(all, (int)strtol(e->d_name, NULL, 10));
}

static void look_begin(struct look *l, const struct block_users_roots *roots,
                       struct block_users_of *of)
{
    l->roots = roots;
    l->users = &of->users;
    of->users = (struct block_users){0};
    (void)add_device(l, of->device);
    add_partitions(l, of->device);
    for (unsigned i = 0; i < l->count; i++) /* grows meanwhile */
        add_holders(l, l->device[i].name);
}

int block_users_find(const struct block_users_roots *roots, struct block_users_of *of,
                     unsigned count)
{
    AUTO_FREE struct look *look = calloc(count, sizeof(*look));
    const struct looks all = {roots, look, count};
    if (count == 0)
        return 0;
    if (!look)
        return VP_E_NO_MEMORY;
    for (unsigned i = 0; i < count; i++)
        look_begin(&look[i], roots, &of[i]);
    look_at_mounts(&all);
    look_at_swap(&all);
    look_at_processes(&all);
    return 0;
}

/* ---- in words ------------------------------------------------------------------------------ */

const char *block_use_name(enum block_use use)
{
    static const char *const names[] = {"mount", "swap", "holder", "process"};
    return names[use];
}

static int user_text(const struct block_user *u, char *out, size_t size)
{
    switch (u->use) {
    case BLOCK_MOUNTED:
        return snprintf(out, size, "mounted at %s", u->what);
    case BLOCK_SWAP:
        return snprintf(out, size, "swap on %s", u->device);
    case BLOCK_HELD:
        return snprintf(out, size, "held by %s", u->what);
    default:
        return snprintf(out, size, "open in %s (pid %d)", u->what, u->pid);
    }
}

void block_users_text(const struct block_users *users, char *out, size_t size)
{
    size_t at = 0;
    const unsigned told = 4;
    out[0] = 0;
    for (unsigned i = 0; i < users->count && i < told && at < size; i++) {
        int n = snprintf(out + at, size - at, "%s", at ? "; " : "");
        at += n > 0 ? (size_t)n : 0;
        if (at < size)
            n = user_text(&users->user[i], out + at, size - at);
        at += n > 0 ? (size_t)n : 0;
    }
    if (users->count > told && at < size)
        (void)snprintf(out + at, size - at, "; %u more", users->count - told);
    bytes_make_printable(out); /* it may have been cut inside a character */
}

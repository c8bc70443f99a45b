/*
 * What a disk stands on, from sysfs, from above down: a partition has a disk, a device of the
 * device mapper or md has slaves, a loop device has a file. The kernel allows no circles, but what
 * is read here changes meanwhile, so the depth is bounded. Many ways may lead to one device (layers
 * of volumes on the same disks). It is looked at once, and again only on a shorter way, from which
 * the depth allows more.
 */
#include "control/block_below.h"

#include "base/attr.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

enum { DEPTH_MAX = 16, PATH_BYTES = 4096, SEEN_MAX = 1024 };

struct below {
    const struct block_users_roots *roots;
    const struct block_names *names;
    struct {
        dev_t dev;
        unsigned depth; /* the least */
    } seen[SEEN_MAX];   /* what is beyond is looked at on every way */
    unsigned seen_count;
};

/* The device is new, or was only seen deeper. */
static bool is_to_be_seen(struct below *b, dev_t dev, unsigned depth)
{
    unsigned i = 0;
    while (i < b->seen_count && b->seen[i].dev != dev)
        i++;
    if (i < b->seen_count && b->seen[i].depth <= depth)
        return false;
    if (i == SEEN_MAX)
        return true;
    b->seen[i].dev = dev;
    b->seen[i].depth = depth;
    b->seen_count += i == b->seen_count;
    return true;
}

static const char *below_device(struct below *b, dev_t dev, unsigned depth);

/* The first line of a file in a block device's folder in sysfs; false: there is no such file. */
static bool read_attribute(const struct below *b, dev_t dev, const char *file, char *out, int size)
{
    char path[PATH_BYTES];
    int n = snprintf(path, sizeof(path), "%s/dev/block/%u:%u/%s", b->roots->sys, major(dev),
                     minor(dev), file);
    AUTO_FILE FILE *f = n < PATH_BYTES ? fopen(path, "re") : NULL;
    if (!f || !fgets(out, size, f))
        return false;
    out[strcspn(out, "\n")] = 0;
    return true;
}

/* `file`, relative to the folder of `dev`, names the number of a device below it. */
static const char *below_number_in(struct below *b, dev_t dev, const char *file, unsigned depth)
{
    char text[32];
    unsigned major_number, minor_number;
    if (!read_attribute(b, dev, file, text, sizeof(text)) ||
        sscanf(text, "%u:%u", &major_number, &minor_number) != 2)
        return NULL;
    return below_device(b, makedev(major_number, minor_number), depth + 1);
}

static const char *below_slaves(struct below *b, dev_t dev, unsigned depth)
{
    char path[PATH_BYTES];
    int n = snprintf(path, sizeof(path), "%s/dev/block/%u:%u/slaves", b->roots->sys, major(dev),
                     minor(dev));
    AUTO_DIR DIR *dir = n < PATH_BYTES ? opendir(path) : NULL;
    const struct dirent *e;
    const char *found = NULL;
    while (dir && !found && (e = readdir(dir))) {
        char file[300];
        (void)snprintf(file, sizeof(file), "slaves/%s/dev", e->d_name);
        if (e->d_name[0] != '.')
            found = below_number_in(b, dev, file, depth);
    }
    return found;
}

static const char *below_path(struct below *b, const char *path, unsigned depth)
{
    char folder[PATH_BYTES];
    struct stat st;
    if (stat(path, &st) != 0) { /* it may be about to be created */
        const char *slash = strrchr(path, '/');
        int n = snprintf(folder, sizeof(folder), "%.*s/", slash ? (int)(slash - path) : 1,
                         slash ? path : ".");
        if (n >= PATH_BYTES || stat(folder, &st) != 0)
            return NULL;
    }
    return below_device(b, S_ISBLK(st.st_mode) ? st.st_rdev : st.st_dev, depth);
}

/* Its name is in what the kernel tells about it: sysfs's folders are links to ones of that name. */
static const char *name_of_device(const struct below *b, dev_t dev)
{
    char line[PATH_BYTES], wanted[BLOCK_NAME_MAX + 16], path[PATH_BYTES];
    int n = snprintf(path, sizeof(path), "%s/dev/block/%u:%u/uevent", b->roots->sys, major(dev),
                     minor(dev));
    AUTO_FILE FILE *f = n < PATH_BYTES ? fopen(path, "re") : NULL;
    while (f && fgets(line, sizeof(line), f)) {
        line[strcspn(line, "\n")] = 0;
        for (unsigned i = 0; i < b->names->count; i++) {
            (void)snprintf(wanted, sizeof(wanted), "DEVNAME=%s", b->names->name[i]);
            if (strcmp(line, wanted) == 0)
                return b->names->name[i];
        }
    }
    return NULL;
}

static const char *below_device(struct below *b, dev_t dev, unsigned depth)
{
    char file[PATH_BYTES];
    if (!is_to_be_seen(b, dev, depth))
        return NULL;
    const char *found = name_of_device(b, dev);
    if (found || depth == DEPTH_MAX)
        return found;
    if (read_attribute(b, dev, "partition", file, sizeof(file)))
        return below_number_in(b, dev, "../dev", depth);
    if (read_attribute(b, dev, "loop/backing_file", file, sizeof(file)))
        return below_path(b, file, depth + 1);
    return below_slaves(b, dev, depth);
}

const char *block_below(const struct block_users_roots *roots, dev_t dev,
                        const struct block_names *names)
{
    struct below b = {.roots = roots, .names = names};
    return below_device(&b, dev, 0);
}

const char *block_below_path(const struct block_users_roots *roots, const char *path,
                             const struct block_names *names)
{
    struct below b = {.roots = roots, .names = names};
    return below_path(&b, path, 0);
}

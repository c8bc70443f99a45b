/* Opening the disks, and their labels. */
#include "tools/vpool-check/check.h"

#include "pool/label_format.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

bool check_read(const struct check_disk *d, uint64_t at, void *buf, size_t len)
{
    size_t done = 0;
    if (at > d->size_bytes || len > d->size_bytes - at)
        return false;
    while (done < len) {
        ssize_t n = pread(d->fd, (uint8_t *)buf + done, len - done, (off_t)(at + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        done += (size_t)n;
    }
    return true;
}

void check_target_add(struct check *c, const char *kind, const struct check_disk *d, uint64_t at,
                      uint64_t len, uint64_t unit)
{
    if (!c->collect)
        return;
    if (is_pow2(c->targets + 1) || c->targets == 0)
        c->target = check_grow(c->target, 2 * (c->targets + 1), sizeof(*c->target));
    c->target[c->targets++] = (struct check_target){kind, (unsigned)(d - c->disk), at, len, unit};
}

static bool disk_size(int fd, uint64_t *out)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return false;
    if (S_ISBLK(st.st_mode))
        return ioctl(fd, BLKGETSIZE64, out) == 0;
    *out = (uint64_t)st.st_size;
    return S_ISREG(st.st_mode);
}

/* A lock that excludes a daemon's exclusive lock: disks that change meanwhile cannot be checked. */
static bool lock_disk(int fd, bool writable)
{
    struct flock lock = {.l_type = writable ? F_WRLCK : F_RDLCK, .l_whence = SEEK_SET};
    return fcntl(fd, F_OFD_SETLK, &lock) == 0 || (errno != EAGAIN && errno != EACCES);
}

static int open_path(const char *path, bool writable)
{
    struct stat st;
    int flags = (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC;
    if (stat(path, &st) == 0 && S_ISBLK(st.st_mode))
        flags |= O_EXCL;
    return open(path, flags);
}

static bool open_disk(struct check *c, struct check_disk *d, const char *path, bool writable)
{
    (void)snprintf(d->path, sizeof(d->path), "%s", path);
    d->index = -1;
    d->fd = open_path(path, writable);
    if (d->fd < 0) {
        check_problem(c, "disk", "%s cannot be opened: %s", path,
                      errno == EBUSY ? "it is in use; export the pool first" : strerror(errno));
        return false;
    }
    if (!disk_size(d->fd, &d->size_bytes))
        check_problem(c, "disk", "%s is neither a block device nor a file", path);
    else if (!lock_disk(d->fd, writable))
        check_problem(c, "disk", "%s is in use by a daemon; export the pool first", path);
    else if (d->size_bytes < pool_disk_min_bytes(POOL_EXTENT_MIN))
        check_problem(c, "disk", "%s is too small to be a disk of a pool", path);
    else
        return true;
    (void)close(d->fd);
    return false;
}

/* ---- labels -------------------------------------------------------------------------------- */

static json_t *label_json(const struct pool_label *l)
{
    json_t *o = json_pack("{s:o, s:o, s:o, s:s, s:i, s:i, s:I, s:I, s:I, s:I, s:I}", "pool_uuid",
                          check_uuid(l->pool_uuid), "disk_uuid", check_uuid(l->disk_uuid),
                          "was_uuid", check_uuid(l->was_uuid), "pool_name", l->pool_name,
                          "disk_index", (int)l->disk_index, "disk_count", (int)l->disk_count,
                          "chunk_bytes", (json_int_t)l->geometry.chunk_bytes, "extent_bytes",
                          (json_int_t)l->geometry.extent_bytes, "log_segment_bytes",
                          (json_int_t)l->geometry.log_segment_bytes, "size_bytes",
                          (json_int_t)l->size_bytes, "epoch", (json_int_t)l->epoch);
    if (!o) /* a name that is not UTF-8 */
        o = json_pack("{s:s}", "pool_name", "(not printable)");
    return o;
}

/* One copy; 0 or why it does not count. */
static int read_label(const struct check_disk *d, unsigned copy, struct pool_label *out)
{
    uint8_t block[POOL_BLOCK];
    if (!check_read(d, pool_label_at(d->tail_bytes, copy), block, sizeof(block)))
        return VP_E_IO;
    int rc = pool_label_decode(block, out);
    return rc ? rc : out->size_bytes > d->size_bytes ? VP_E_LABEL_BAD : 0;
}

static void choose_label(struct check_disk *d)
{
    d->tail_bytes = pool_tail_bytes(d->size_bytes);
    for (unsigned copy = 0; copy < POOL_LABEL_COPIES; copy++) {
        struct pool_label l;
        if (read_label(d, copy, &l) != 0 || (d->labelled && l.epoch <= d->label.epoch))
            continue;
        d->label = l;
        d->labelled = true;
        d->tail_bytes = pool_tail_bytes(l.size_bytes);
    }
}

static void check_labels(struct check *c, struct check_disk *d, json_t *out)
{
    json_t *copies = json_array();
    unsigned good = 0;
    uint64_t unit = c->units;
    choose_label(d);
    for (unsigned copy = 0; copy < POOL_LABEL_COPIES; copy++) {
        struct pool_label l;
        int rc = read_label(d, copy, &l);
        uint64_t at = pool_label_at(d->tail_bytes, copy);
        if (rc == 0 && l.epoch == d->label.epoch) {
            good++;
            check_target_add(c, "label", d, at, POOL_BLOCK, unit);
        } else if (rc == 0) {
            check_problem(c, "label", "%s: copy %u at byte %llu is old (epoch %llu)", d->path, copy,
                          (unsigned long long)at, (unsigned long long)l.epoch);
        } else if (d->labelled) {
            check_problem(c, "label", "%s: copy %u at byte %llu: %s", d->path, copy,
                          (unsigned long long)at, vp_err_text(rc));
        }
        json_array_append_new(copies, json_string(rc ? vp_err_name(rc) : "OK"));
    }
    c->units++;
    if (!d->labelled)
        check_problem(c, "label", "%s has no valid label", d->path);
    check_put(out, "label_copies", copies);
    check_put(out, "label", d->labelled ? label_json(&d->label) : json_null());
    if (d->labelled)
        check_say(c, "disk %s: \"%s\" disk %u of %u, %u of %u label copies good", d->path,
                  d->label.pool_name, d->label.disk_index, d->label.disk_count, good,
                  POOL_LABEL_COPIES);
}

/* The pool is that of the first label. Disks of other pools take no part. */
static bool choose_pool(struct check *c)
{
    const struct check_disk *first = NULL;
    for (unsigned i = 0; i < c->disks && !first; i++)
        if (c->disk[i].labelled)
            first = &c->disk[i];
    if (!first)
        return false;
    c->pool = first->label.pool_uuid;
    for (unsigned i = 0; i < c->disks; i++) {
        struct check_disk *d = &c->disk[i];
        if (d->labelled && !vp_uuid_equal(d->label.pool_uuid, c->pool)) {
            check_problem(c, "label", "%s belongs to another pool, \"%s\"; not looked at", d->path,
                          d->label.pool_name);
            d->labelled = false;
        }
    }
    return true;
}

bool check_disks_open(struct check *c, char **paths, unsigned count, bool writable)
{
    json_t *list = json_array();
    for (unsigned i = 0; i < count; i++) {
        struct check_disk *d = &c->disk[c->disks];
        if (!open_disk(c, d, paths[i], writable))
            continue;
        json_t *o =
            json_pack("{s:s, s:I}", "path", d->path, "size_bytes", (json_int_t)d->size_bytes);
        if (!o)
            check_out_of_memory();
        c->disks++;
        check_labels(c, d, o);
        json_array_append_new(list, o);
    }
    check_put(c->out, "disks", list);
    if (choose_pool(c))
        return true;
    check_problem(c, "label", "no disk of a pool is among those given");
    return false;
}

void check_disks_close(struct check *c)
{
    for (unsigned i = 0; i < c->disks; i++) {
        (void)close(c->disk[i].fd);
        free(c->disk[i].slots);
    }
}

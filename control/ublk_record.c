/* Records of block devices. */
#include "control/ublk_record.h"

#include "base/attr.h"
#include "ublk/target.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define RECORD_BYTES_MAX 1024

/* The last two of its components, world-readable as /run is: there is nothing secret in a name. */
static int make_dirs(const char *dir)
{
    char parent[256];
    const char *slash = strrchr(dir, '/');
    size_t len = slash ? (size_t)(slash - dir) : 0;
    if (len >= sizeof(parent))
        return VP_E_TOO_BIG;
    memcpy(parent, dir, len);
    parent[len] = 0;
    if (len && mkdir(parent, 0755) && errno != EEXIST)
        return vp_err_from_errno(errno);
    if (mkdir(dir, 0755) && errno != EEXIST)
        return vp_err_from_errno(errno);
    return 0;
}

static int path_of(char out[static 300], const char *dir, int number, const char *suffix)
{
    int n = snprintf(out, 300, "%s/ublkb%d%s", dir, number, suffix);
    return n > 0 && n < 300 ? 0 : VP_E_TOO_BIG;
}

static int write_file(const char *path, const char *text, size_t len)
{
    AUTO_FD int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0)
        return vp_err_from_errno(errno);
    ssize_t n = write(fd, text, len);
    return n == (ssize_t)len ? 0 : vp_err_from_errno(n < 0 ? errno : EIO);
}

int ublk_record_write(const char *dir, const struct ublk_record *r)
{
    char path[300], fresh[300], text[RECORD_BYTES_MAX];
    char pool_uuid[VP_UUID_TEXT], volume_uuid[VP_UUID_TEXT];
    if (path_of(path, dir, r->number, "") || path_of(fresh, dir, r->number, ".new"))
        return VP_E_TOO_BIG;
    int n = snprintf(text, sizeof(text),
                     "VPOOL_POOL=%s\nVPOOL_VOLUME=%s\nVPOOL_POOL_UUID=%s\nVPOOL_VOLUME_UUID=%s\n"
                     "VPOOL_TAG=%016" PRIx64 "\n",
                     r->pool, r->volume, vp_uuid_format(r->pool_uuid, pool_uuid),
                     vp_uuid_format(r->volume_uuid, volume_uuid), r->tag);
    int rc = n > 0 && n < (int)sizeof(text) ? make_dirs(dir) : VP_E_TOO_BIG;
    if (rc == 0)
        rc = write_file(fresh, text, (size_t)n);
    if (rc == 0 && rename(fresh, path))
        rc = vp_err_from_errno(errno);
    return rc;
}

/* Copies the value of the first line "KEY=VALUE" to `out`; NULL: there is none, or no room. */
static const char *value_of(const char *text, const char *key, char *out, size_t size)
{
    size_t len = strlen(key);
    for (const char *line = text; line && *line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, key, len) != 0 || line[len] != '=')
            continue;
        size_t n = strcspn(line + len + 1, "\n");
        if (n >= size)
            return NULL;
        memcpy(out, line + len + 1, n);
        out[n] = 0;
        return out;
    }
    return NULL;
}

static bool decode(const char *text, struct ublk_record *out)
{
    char uuid[VP_UUID_TEXT + 1], tag[17], *end;
    if (!value_of(text, "VPOOL_POOL", out->pool, sizeof(out->pool)) ||
        !volume_name_is_valid(out->pool) || /* the same rule, but for the length */
        !value_of(text, "VPOOL_VOLUME", out->volume, sizeof(out->volume)) ||
        !volume_name_is_valid(out->volume))
        return false;
    if (!value_of(text, "VPOOL_POOL_UUID", uuid, sizeof(uuid)) ||
        !vp_uuid_parse(uuid, &out->pool_uuid) ||
        !value_of(text, "VPOOL_VOLUME_UUID", uuid, sizeof(uuid)) ||
        !vp_uuid_parse(uuid, &out->volume_uuid))
        return false;
    if (!value_of(text, "VPOOL_TAG", tag, sizeof(tag)) || strlen(tag) != 16)
        return false;
    out->tag = strtoull(tag, &end, 16);
    return *end == 0 && out->tag != 0;
}

int ublk_record_read(const char *dir, int number, struct ublk_record *out)
{
    char path[300], text[RECORD_BYTES_MAX];
    if (path_of(path, dir, number, ""))
        return VP_E_TOO_BIG;
    AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return vp_err_from_errno(errno);
    ssize_t n = read(fd, text, sizeof(text) - 1);
    if (n < 0)
        return vp_err_from_errno(errno);
    text[n] = 0;
    *out = (struct ublk_record){.number = number};
    return decode(text, out) ? 0 : VP_E_INVALID;
}

bool ublk_record_is_of(const struct ublk_record *r, const struct ublk_record *volume)
{
    return r->tag == volume->tag && vp_uuid_equal(r->volume_uuid, volume->volume_uuid);
}

int ublk_record_remove(const char *dir, int number)
{
    char path[300];
    if (path_of(path, dir, number, ""))
        return VP_E_TOO_BIG;
    return unlink(path) == 0 || errno == ENOENT ? 0 : vp_err_from_errno(errno);
}

int ublk_number_of(const char *name, const char *prefix)
{
    size_t len = strlen(prefix);
    if (strncmp(name, prefix, len) != 0 || name[len] < '0' || name[len] > '9')
        return -1;
    char *end;
    long n = strtol(name + len, &end, 10);
    return *end == 0 && n <= (long)UBLKX_NUMBER_MAX ? (int)n : -1;
}

/* ---- names --------------------------------------------------------------------------------- */

/* A "change" event of the block device whose directory this is. */
static int change(const char *device_dir)
{
    char path[400];
    int n = snprintf(path, sizeof(path), "%s/uevent", device_dir);
    if (n < 0 || n >= (int)sizeof(path))
        return VP_E_TOO_BIG;
    AUTO_FD int fd = open(path, O_WRONLY | O_CLOEXEC);
    return fd < 0 || write(fd, "change", 6) != 6 ? vp_err_from_errno(errno) : 0;
}

/* Partitions take what they are called from their device, whose event udev handles first. */
int ublk_announce(const char *block_dir, int number)
{
    char device[300], partition[360];
    if (path_of(device, block_dir, number, ""))
        return VP_E_TOO_BIG;
    int rc = change(device);
    AUTO_DIR DIR *d = rc ? NULL : opendir(device);
    if (!d)
        return rc ? rc : vp_err_from_errno(errno);
    char prefix[24];
    (void)snprintf(prefix, sizeof(prefix), "ublkb%dp", number);
    for (const struct dirent *e; rc == 0 && (e = readdir(d));) {
        if (ublk_number_of(e->d_name, prefix) < 0)
            continue;
        int n = snprintf(partition, sizeof(partition), "%s/%s", device, e->d_name);
        rc = n > 0 && n < (int)sizeof(partition) ? change(partition) : VP_E_TOO_BIG;
    }
    return rc;
}

/* ---- many ------------------------------------------------------------------------------------ */

static int compare(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

int ublk_numbers_in(const char *dir, const char *prefix, struct ublk_numbers *out)
{
    out->count = 0;
    AUTO_DIR DIR *d = opendir(dir);
    if (!d)
        return errno == ENOENT ? 0 : vp_err_from_errno(errno);
    const struct dirent *e;
    while (errno = 0, (e = readdir(d)) && out->count < UBLK_NUMBERS_MAX) {
        int n = ublk_number_of(e->d_name, prefix);
        if (n >= 0)
            out->number[out->count++] = n;
    }
    if (!e && errno)
        return vp_err_from_errno(errno);
    qsort(out->number, out->count, sizeof(out->number[0]), compare);
    return 0;
}

static bool is_gone(const char *class_dir, int number)
{
    char path[300];
    int n = snprintf(path, sizeof(path), "%s/ublkc%d", class_dir, number);
    return n > 0 && n < (int)sizeof(path) && access(path, F_OK) && errno == ENOENT;
}

int ublk_records_forget_leftovers(const char *dir, const char *class_dir)
{
    AUTO_FREE struct ublk_numbers *records = malloc(sizeof(*records));
    if (!records)
        return VP_E_NO_MEMORY;
    int rc = ublk_numbers_in(dir, "ublkb", records);
    for (unsigned i = 0; i < records->count; i++) {
        int one = is_gone(class_dir, records->number[i])
                      ? ublk_record_remove(dir, records->number[i])
                      : 0;
        rc = one ? one : rc;
    }
    return rc;
}

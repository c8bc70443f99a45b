/* The state directory. */
#include "control/state.h"

#include "base/attr.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#define STATE_FILE_MAX (4U << 20)

static const struct {
    const char *name, *fresh, *list;
} files[] = {
    [STATE_POOLS] = {"pools.json", "pools.json.new", "pools"},
    [STATE_MOVES] = {"moves.json", "moves.json.new", "moves"},
};

static int join(char out[static 300], const char *dir, const char *file)
{
    int n = snprintf(out, 300, "%s/%s", dir, file);
    return n > 0 && n < 300 ? 0 : VP_E_TOO_BIG;
}

/* Creates the last component only: a mistyped path shall not become a tree. */
static int make_dir(const char *dir, struct vp_error *err)
{
    if (mkdir(dir, 0750) == 0 || errno == EEXIST)
        return 0;
    return vp_fail_errno(err, vp_err_from_errno(errno), errno, "state directory %s", dir);
}

static long lock_holder(int fd)
{
    char text[24] = {0};
    ssize_t n = pread(fd, text, sizeof(text) - 1, 0);
    return n > 0 ? strtol(text, NULL, 10) : 0;
}

static int open_lock(const char *dir, int flags, char path[static 300], int *fd,
                     struct vp_error *err)
{
    if (join(path, dir, "vpoold.lock"))
        return vp_fail(err, VP_E_TOO_BIG, "the state directory's path is too long");
    *fd = open(path, O_RDWR | O_CLOEXEC | flags, 0640);
    return *fd < 0 ? vp_fail_errno(err, vp_err_from_errno(errno), errno, "%s", path) : 0;
}

int state_lock_try(const char *dir, struct vp_error *err)
{
    char path[300];
    AUTO_FD int fd = -1;
    return open_lock(dir, 0, path, &fd, err);
}

int state_lock(const char *dir, int *out_fd, struct vp_error *err)
{
    char path[300];
    AUTO_FD int fd = -1;
    int rc = make_dir(dir, err);
    if (rc == 0)
        rc = open_lock(dir, O_CREAT, path, &fd, err);
    if (rc)
        return rc;
    if (flock(fd, LOCK_EX | LOCK_NB))
        return vp_fail(err, VP_E_BUSY,
                       "another vpoold (pid %ld) uses the state directory %s: stop it, or give "
                       "this one its own --state-dir and --socket",
                       lock_holder(fd), dir);
    char pid[24];
    int n = snprintf(pid, sizeof(pid), "%ld\n", (long)getpid());
    if (ftruncate(fd, 0) || pwrite(fd, pid, (size_t)n, 0) != n)
        return vp_fail_errno(err, VP_E_SYSTEM, errno, "writing %s", path);
    *out_fd = steal_fd(&fd);
    return 0;
}

int state_load(const char *dir, enum state_file file, json_t **out, struct vp_error *err)
{
    char path[300];
    if (join(path, dir, files[file].name))
        return vp_fail(err, VP_E_TOO_BIG, "the state directory's path is too long");
    *out = NULL;
    struct stat st = {0};
    bool known = stat(path, &st) == 0;
    if (!known && errno != ENOENT)
        return vp_fail_errno(err, vp_err_from_errno(errno), errno, "%s", path);
    if (!known)
        *out = json_pack("{s:i, s:[]}", "version", 1, files[file].list);
    else if (st.st_size > STATE_FILE_MAX)
        return vp_fail(err, VP_E_TOO_BIG, "%s is larger than 4 MiB", path);
    json_error_t why = {0};
    if (!*out)
        *out = json_load_file(path, 0, &why);
    if (!*out)
        return vp_fail(err, VP_E_INVALID, "%s: %s", path, why.text);
    if (!json_is_array(json_object_get(*out, files[file].list))) {
        json_decref(*out);
        *out = NULL;
        return vp_fail(err, VP_E_INVALID, "%s: no list of %s", path, files[file].list);
    }
    return 0;
}

/* The file system's errno, in its own words: "no space left" is not about the pool's space. */
static int save_failed(struct vp_error *err, const char *path)
{
    int why = errno ? errno : EIO;
    return vp_fail_errno(err, VP_E_SYSTEM, why, "%s could not be written", path);
}

static int write_all_sync(const char *path, const char *text, size_t len, struct vp_error *err)
{
    AUTO_FD int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
    if (fd < 0)
        return save_failed(err, path);
    while (len) {
        errno = 0;
        ssize_t n = write(fd, text, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return save_failed(err, path);
        text += n;
        len -= (size_t)n;
    }
    return fsync(fd) ? save_failed(err, path) : 0;
}

int state_save(const char *dir, enum state_file file, const char *text, struct vp_error *err)
{
    char path[300], fresh[300];
    if (join(path, dir, files[file].name) || join(fresh, dir, files[file].fresh))
        return vp_fail(err, VP_E_TOO_BIG, "the state directory's path is too long");
    int rc = write_all_sync(fresh, text, strlen(text), err);
    if (rc)
        return rc;
    if (rename(fresh, path))
        return save_failed(err, path);
    AUTO_FD int dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir_fd < 0 || fsync(dir_fd))
        return save_failed(err, dir);
    return 0;
}

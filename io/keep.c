/* Memory that outlives the process: POSIX shared memory (shm_overview(7)). */
#include "io/keep.h"

#include "base/attr.h"
#include "base/verify.h"
#include "io/memory_impl.h"
#include "io/reactor_impl.h"
#include "io/sim_impl.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#define SHM_DIR "/dev/shm" /* shm_open(3) */

static struct sim_world *world(void)
{
    return reactor_current ? reactor_current->config.sim : NULL;
}

static int shm(const char *name, int flags)
{
    char path[IO_KEEP_NAME_MAX + 2];
    if (snprintf(path, sizeof(path), "/%s", name) >= (int)sizeof(path)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    /* Without waiting: anybody may make a FIFO there. */
    return shm_open(path, flags | O_CLOEXEC | O_NONBLOCK, 0600);
}

/* ---- a mapping of one's own ---------------------------------------------------------------- */

static bool is_shortage(int err)
{
    return err == ENOMEM || err == ENOSPC || err == EMFILE || err == ENFILE || err == ENOLCK;
}

/* What cannot be opened for want of something is not taken for what is not there. */
static int shm_error(int err)
{
    return is_shortage(err) ? VP_E_NO_MEMORY : vp_err_from_errno(err);
}

int io_keep_new(const char *name, size_t capacity, struct io_keep *out)
{
    if (world())
        return sim_keep_new(world(), name, capacity, out);
    io_keep_remove(name);
    *out = (struct io_keep){.capacity = capacity, .fd = -1};
    AUTO_FD int fd = shm(name, O_RDWR | O_CREAT | O_EXCL);
    if (fd < 0 || ftruncate(fd, (off_t)capacity) != 0 || flock(fd, LOCK_EX | LOCK_NB) != 0)
        return is_shortage(errno) ? VP_E_NO_MEMORY : VP_E_KEEP_NONE;
    void *map = mmap(NULL, capacity, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) {
        io_keep_remove(name);
        return VP_E_NO_MEMORY;
    }
    out->base = map;
    out->fd = fd;
    fd = -1;
    return 0;
}

int io_keep_reserve(struct io_keep *k, size_t offset, size_t len)
{
    VP_VERIFY(offset + len, <=, k->capacity);
    if (k->sim)
        return sim_keep_reserve(k, offset, len);
    int rc = io_fault_in(k->base + offset, len);
    if (rc == 0)
        return 0;
    /* Gives back what fallocate got before it failed. Not by madvise, which refuses that for locked
     * memory. */
    (void)fallocate(k->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)len);
    return rc == -EINVAL ? VP_E_KEEP_NONE : VP_E_NO_MEMORY;
}

bool io_keep_has_room(const struct io_keep *k, size_t len)
{
    struct statvfs fs;
    if (k->sim)
        return true;
    return fstatvfs(k->fd, &fs) == 0 &&
           (uint64_t)fs.f_bavail * fs.f_frsize >= (uint64_t)fs.f_blocks * fs.f_frsize / 2 + len;
}

void io_keep_close(struct io_keep *k)
{
    if (k->base && k->sim)
        sim_keep_close(k);
    if (k->base && !k->sim) {
        munmap(k->base, k->capacity);
        close(k->fd);
    }
    *k = (struct io_keep){.fd = -1};
}

/* ---- by name --------------------------------------------------------------------------------- */

int io_keep_read(const char *name, size_t offset, void *bytes, size_t len)
{
    if (world())
        return sim_keep_read(world(), name, offset, bytes, len);
    struct stat st;
    AUTO_FD int fd = shm(name, O_RDONLY);
    if (fd < 0 || fstat(fd, &st) != 0)
        return shm_error(errno);
    if (st.st_uid != geteuid() || !S_ISREG(st.st_mode))
        return VP_E_PERMISSION;
    for (size_t at = 0; at < len;) {
        ssize_t n = pread(fd, (char *)bytes + at, len - at, (off_t)(offset + at));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? VP_E_IO : VP_E_IO_SHORT;
        at += (size_t)n;
    }
    return 0;
}

int io_keep_poke(const char *name, size_t offset, const void *bytes, size_t len)
{
    if (world())
        return sim_keep_poke(world(), name, offset, bytes, len);
    AUTO_FD int fd = shm(name, O_RDWR);
    if (fd < 0)
        return shm_error(errno);
    return pwrite(fd, bytes, len, (off_t)offset) == (ssize_t)len ? 0 : VP_E_IO;
}

void io_keep_remove(const char *name)
{
    char path[IO_KEEP_NAME_MAX + 2];
    if (world())
        sim_keep_remove(world(), name);
    else if (snprintf(path, sizeof(path), "/%s", name) < (int)sizeof(path))
        (void)shm_unlink(path);
}

int io_keep_is_owned(const char *name, bool *owned)
{
    *owned = false;
    if (world()) {
        *owned = sim_keep_is_owned(world(), name);
        return 0;
    }
    AUTO_FD int fd = shm(name, O_RDONLY);
    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0)
        return 0;
    *owned = fd >= 0 && errno == EWOULDBLOCK;
    return is_shortage(errno) ? VP_E_NO_MEMORY : 0;
}

int io_keep_look(const char *name, uint64_t *bytes, uint64_t *age_seconds)
{
    struct stat st;
    struct timespec now;
    if (world())
        return sim_keep_look(world(), name, bytes, age_seconds);
    AUTO_FD int fd = shm(name, O_RDONLY);
    if (fd < 0 || fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_uid != geteuid() ||
        clock_gettime(CLOCK_REALTIME, &now) != 0)
        return VP_E_NOT_FOUND;
    time_t changed = st.st_mtime > st.st_ctime ? st.st_mtime : st.st_ctime;
    *bytes = (uint64_t)st.st_blocks * 512;
    *age_seconds = now.tv_sec > changed ? (uint64_t)(now.tv_sec - changed) : 0;
    return 0;
}

int io_keep_each(const char *prefix, int (*fn)(const char *name, void *arg), void *arg)
{
    if (world())
        return sim_keep_each(world(), prefix, fn, arg);
    AUTO_DIR DIR *dir = opendir(SHM_DIR);
    if (!dir) /* no shared memory, or no right to it: nothing is kept */
        return errno == ENOENT || errno == EACCES ? 0 : shm_error(errno);
    const struct dirent *e;
    int rc = 0;
    while (!rc && (errno = 0, e = readdir(dir)))
        if (strncmp(e->d_name, prefix, strlen(prefix)) == 0 &&
            strlen(e->d_name) <= IO_KEEP_NAME_MAX)
            rc = fn(e->d_name, arg);
    return !rc && errno ? shm_error(errno) : rc;
}

int io_boot_id(unsigned char out[IO_BOOT_ID_BYTES])
{
    memset(out, 0, IO_BOOT_ID_BYTES);
    if (world())
        return 0; /* a simulated power cut takes the memory itself */
    char text[64] = "";
    AUTO_FD int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT || errno == EACCES ? 0 : shm_error(errno);
    if (read(fd, text, sizeof(text) - 1) <= 0)
        return VP_E_IO;
    unsigned n = 0; /* hexadecimal digits, with dashes between */
    for (const char *p = text; *p && n < 2 * IO_BOOT_ID_BYTES; p++) {
        const char *digits = "0123456789abcdef", *at = strchr(digits, *p);
        if (!at)
            continue;
        out[n / 2] = (unsigned char)(out[n / 2] << 4 | (at - digits));
        n++;
    }
    return 0;
}

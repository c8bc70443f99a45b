/* Does a disk hold something? Asked of libblkid, and of our own labels, before a disk is taken. */
#include "io/offload.h"
#include "pool/disk_impl.h"

#include <blkid.h>
#include <sys/stat.h>

bool pool_path_is_real(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode));
}

struct probe {
    const char *path;
    struct vp_error *err;
};

/* What libblkid recognises; NULL for nothing. Borrowed from the probe. */
static const char *recognised(blkid_probe probe, const char **kind)
{
    const char *name = NULL;
    *kind = "a file system or volume";
    if (blkid_probe_lookup_value(probe, "TYPE", &name, NULL) == 0)
        return name;
    *kind = "a partition table";
    if (blkid_probe_lookup_value(probe, "PTTYPE", &name, NULL) == 0)
        return name;
    *kind = "several signatures";
    return "ambiguous";
}

/* Not for a simulated disk. */
static int probe_blocking(void *arg)
{
    const char *path = ((const struct probe *)arg)->path;
    struct vp_error *err = ((const struct probe *)arg)->err;
    if (!pool_path_is_real(path))
        return 0;
    blkid_probe probe = blkid_new_probe_from_filename(path);
    if (!probe)
        return vp_fail(err, VP_E_IO, "%s: cannot be examined for other data", path);
    blkid_probe_enable_superblocks(probe, 1);
    blkid_probe_enable_partitions(probe, 1);
    int found = blkid_do_safeprobe(probe); /* 0 found, 1 nothing, -2 several, -1 error */
    int rc = 0;
    if (found == 0 || found == -2) {
        const char *kind;
        const char *name = recognised(probe, &kind);
        rc = vp_fail(err, VP_E_DISK_HOLDS_DATA,
                     "%s holds %s (%s): wipe it or use --force, which destroys it", path, kind,
                     name);
    } else if (found != 1) {
        rc = vp_fail(err, VP_E_IO, "%s: cannot be examined for other data", path);
    }
    blkid_free_probe(probe);
    return rc;
}

CO int pool_disk_probe(struct io_dev *dev, const char *path, struct vp_error *err)
{
    struct pool_label l;
    int rc = pool_label_read(dev, &l);
    if (rc == 0)
        return vp_fail(err, VP_E_DISK_HOLDS_DATA,
                       "%s is disk %u of the pool \"%s\": destroy that pool or use --force, "
                       "which destroys it",
                       path, l.disk_index, l.pool_name);
    if (rc != VP_E_LABEL_NONE)
        return vp_fail(err, VP_E_DISK_HOLDS_DATA,
                       "%s looks like a disk of a pool (%s): use --force if it is not "
                       "needed any more",
                       path, vp_err_text(rc));
    struct probe probe = {path, err};
    return offload_run(probe_blocking, &probe);
}

/*
 * A serial number is what udev has in its database (ID_SERIAL_SHORT, of every bus), else the
 * attribute `serial` of sysfs (NVMe, virtio). A partition's is that of its disk. All of it is
 * looked at on a thread of its own: the kernel asks some disks when the attribute is read.
 */
#include "control/disk_place.h"

#include "base/bytes.h"
#include "base/error.h"
#include "io/offload.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#define UDEV_SERIAL "E:ID_SERIAL_SHORT="

/* The printable rest of a line, without blanks around it. */
static void serial_take(char serial[static 64], const char *text)
{
    text += strspn(text, " \t");
    size_t len = strcspn(text, "\n");
    while (len > 0 && text[len - 1] == ' ')
        len--;
    (void)snprintf(serial, sizeof(((struct disk_place *)0)->serial), "%.*s", (int)len, text);
    bytes_make_printable(serial);
}

static void from_udev(dev_t dev, char serial[static 64])
{
    char path[64], line[512];
    (void)snprintf(path, sizeof(path), "/run/udev/data/b%u:%u", major(dev), minor(dev));
    FILE *f = fopen(path, "re");
    if (!f)
        return;
    while (!serial[0] && fgets(line, sizeof(line), f))
        if (strncmp(line, UDEV_SERIAL, strlen(UDEV_SERIAL)) == 0)
            serial_take(serial, line + strlen(UDEV_SERIAL));
    (void)fclose(f);
}

/* `where`: below the device's folder in sysfs; a partition's lies in its disk's. */
static void from_sysfs(dev_t dev, const char *where, char serial[static 64])
{
    char path[96], line[128];
    (void)snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/%s", major(dev), minor(dev), where);
    FILE *f = serial[0] ? NULL : fopen(path, "re");
    if (!f)
        return;
    if (fgets(line, sizeof(line), f))
        serial_take(serial, line);
    (void)fclose(f);
}

static int look(void *arg)
{
    struct disk_place *p = arg;
    struct stat st;
    if (stat(p->path, &st) || !S_ISBLK(st.st_mode))
        return 0;
    from_udev(st.st_rdev, p->serial);
    static const char *const where[] = {"serial", "device/serial", "../serial", "../device/serial"};
    for (unsigned i = 0; i < sizeof(where) / sizeof(where[0]); i++)
        from_sysfs(st.st_rdev, where[i], p->serial);
    return 0;
}

CO void disk_place_look(struct disk_place *place)
{
    place->serial[0] = 0;
    vp_ignore(offload_run(look, place), "no thread: no serial number");
}

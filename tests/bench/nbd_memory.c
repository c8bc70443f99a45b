/*
 * The NBD server over a volume in memory: what the protocol itself costs.
 *   nbd_memory SOCKET [SIZE]     serves until it is killed
 */
#include "base/bytes.h"
#include "nbd/server.h"
#include "tests/unit/nbd/fake_volume.h"

#include <stdio.h>

static struct front volume;
static const char *path;

static void begin(void *arg)
{
    (void)arg;
    struct nbdx_export export = {.name = "memory", .front = &volume};
    struct nbdx_server_options o = {.exports = &export, .export_count = 1};
    struct nbdx_server *server;
    struct vp_error err = {0};
    o.address = (struct nbdx_address){.kind = NBDX_UNIX};
    snprintf(o.address.path, sizeof(o.address.path), "%s", path);
    if (nbdx_server_start(&o, &server, &err)) {
        fprintf(stderr, "nbd_memory: %s\n", err.text);
        exit(1);
    }
}

int main(int argc, char **argv)
{
    uint64_t size = UINT64_C(1) << 30;
    if (argc < 2 || (argc > 2 && !bytes_parse_size(argv[2], &size))) {
        fprintf(stderr, "usage: nbd_memory SOCKET [SIZE]\n");
        return 2;
    }
    path = argv[1];
    struct reactor *r;
    struct vp_error err = {0};
    if (reactor_new(&(struct reactor_config){0}, &r, &err)) {
        fprintf(stderr, "nbd_memory: %s\n", err.text);
        return 1;
    }
    fake_volume_init(&volume, r, size);
    volume.synchronous = true;
    reactor_run(r, begin, NULL);
    return 0;
}

/*
 * The value of a POOL_RECORD_ATTACHMENT record (scope 0, key: attachment id): an export of a volume
 * that comes back with the pool. The log's checksum covers it.
 */
#ifndef VP_CONTROL_ATTACHMENT_FORMAT_H
#define VP_CONTROL_ATTACHMENT_FORMAT_H

#include "base/bytes.h"

#include <assert.h>

#define ATTACHMENT_VERSION     1
#define ATTACHMENT_ADDRESS_MAX 280

enum attachment_kind { ATTACHMENT_NBD = 1, ATTACHMENT_UBLK = 2 }; /* 3: vhost-user-blk */
enum attachment_flags { ATTACHMENT_READ_ONLY = 1, ATTACHMENT_SOCKET = 2, ATTACHMENT_ALIASES = 4 };

struct attachment_disk {
    struct le16 version;
    uint8_t kind;
    uint8_t flags;
    struct le32 volume_id;
    struct le16 address_len;
    uint8_t reserved[6]; /* zeros */
    char address[];      /* "unix:PATH", "tcp:HOST:PORT", "ublk:N,queues=N,depth=N"; no end */
} __attribute__((packed));

/* Behind the address where ATTACHMENT_SOCKET is set: what the socket file is given. All ones: the
 * default. Releases that do not know it serve the attachment with the defaults. */
struct attachment_socket_disk {
    struct le32 uid, gid;
    struct le16 mode;
    uint8_t reserved[2]; /* zeros */
} __attribute__((packed));

/*
 * Behind the socket, or the address, where ATTACHMENT_ALIASES is set: how many names there are (one
 * byte), and each of them as its length (one byte) and "POOL/VOL". Clients were told these before
 * the volume moved to another pool; the first one is the oldest. Releases that do not know the flag
 * serve the attachment by its present name only.
 */
#define ATTACHMENT_ALIASES_MAX 7

static_assert(sizeof(struct attachment_disk) == 16, "on-disk size");
static_assert(sizeof(struct attachment_socket_disk) == 12, "on-disk size");
static_assert(offsetof(struct attachment_disk, volume_id) == 4, "on-disk layout");
static_assert(offsetof(struct attachment_disk, address_len) == 8, "on-disk layout");
static_assert(offsetof(struct attachment_disk, address) == 16, "on-disk layout");

#endif

/* What the pool remembers of an attachment, to bytes (control/attachment_format.h) and back. */
#ifndef VP_CONTROL_ATTACHMENT_RECORD_H
#define VP_CONTROL_ATTACHMENT_RECORD_H

#include "control/attachment_format.h"
#include "control/attachment_socket.h"
#include "volumes/owner.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Former names of an export: clients were told them, and go on using them. */
struct attachment_aliases {
    unsigned count;
    char name[ATTACHMENT_ALIASES_MAX][VOLUME_FULL_NAME_MAX + 1]; /* "POOL/VOL", oldest first */
};
/*
 * The export is called `now` from now on, and no longer `before`. Each name is there once. When
 * there is no room, a name is dropped, which goes to `dropped` ("" otherwise): the oldest but for
 * the first, since the first is the one that people wrote down when they attached the volume.
 */
void attachment_aliases_follow(struct attachment_aliases *a, const char *before, const char *now,
                               char dropped[static VOLUME_FULL_NAME_MAX + 1]);

struct attachment_record {
    uint8_t kind; /* enum attachment_kind, or a newer release's */
    bool read_only;
    uint32_t volume_id;
    const char *address; /* borrowed */
    size_t address_len;  /* at most ATTACHMENT_ADDRESS_MAX */
    struct attachment_socket socket;
    struct attachment_aliases aliases;
};
#define ATTACHMENT_RECORD_MAX                                                                      \
    (sizeof(struct attachment_disk) + ATTACHMENT_ADDRESS_MAX +                                     \
     sizeof(struct attachment_socket_disk) + 1 +                                                   \
     ATTACHMENT_ALIASES_MAX * (1 + VOLUME_FULL_NAME_MAX))

/* Returns how many bytes there are. */
size_t attachment_record_encode(const struct attachment_record *r,
                                unsigned char out[static ATTACHMENT_RECORD_MAX]);
/* The bytes come from disk, so nothing about them is trusted. False: they are no attachment of this
 * version. What is behind the address and is not whole is left out. `out` borrows the address. */
bool attachment_record_decode(const void *value, size_t len, struct attachment_record *out);
/* Into bytes that decode; all others stay. */
void attachment_record_set_volume(void *value, uint32_t volume_id);

#endif

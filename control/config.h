/*
 * The daemon's settings and the file that they come from (libconfig syntax; vpoold.conf(5)).
 * Unknown keys, values of the wrong type and values out of bounds are refused with file and line.
 */
#ifndef VP_CONTROL_CONFIG_H
#define VP_CONTROL_CONFIG_H

#include "base/error.h"
#include "base/log.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CONTROL_PATH_MAX      256
#define CONTROL_SOCKET_MAX    108 /* sizeof(sun_path) */
#define CONTROL_REACTORS_MAX  64
#define CONTROL_DISK_DIRS_MAX 16

#define CONTROL_ADDRESS_MAX   300

enum control_tcp_bind { CONTROL_TCP_OFF, CONTROL_TCP_LOOPBACK, CONTROL_TCP_ANY };

struct control_config {
    char socket[CONTROL_SOCKET_MAX];
    char socket_group[64]; /* "" = the daemon's own group */
    char state_dir[CONTROL_PATH_MAX];
    char log_file[CONTROL_PATH_MAX]; /* "" = stderr; in the background STATE_DIR/vpoold.log */
    enum vp_log_level log_level;
    char disk_dirs[CONTROL_DISK_DIRS_MAX][CONTROL_PATH_MAX];
    unsigned disk_dir_count;
    uint64_t import_wait_s; /* at most, for disks that are not there yet */
    uint64_t scrub_days; /* a pool is scrubbed so many days after its last scrub; 0: by command */
    uint64_t spare_after_s, spare_after_missing_s; /* a spare takes the place of a disk that has
                                                      failed, or is missing, for so long */
    uint64_t scrub_limit;                          /* … so many bytes a second; 0: no limit */

    uint64_t reactors; /* 0 = one a core, at most 4 */
    uint64_t poll_us;
    uint64_t metadata_bytes;
    uint64_t buffer_bytes; /* of each reactor */
    uint64_t commit_interval_ms;

    uint64_t control_connections_max;
    uint64_t control_frame_timeout_ms;

    enum control_tcp_bind nbd_tcp_bind;
    uint64_t nbd_connections_max; /* all attachments together */
    uint64_t nbd_connections_per_volume;
    uint64_t nbd_handshake_timeout_ms;
    uint64_t nbd_requests_per_connection;
    uint64_t nbd_buffer_per_connection;

    char migrate_listen[CONTROL_ADDRESS_MAX]; /* "" = off */
    enum control_tcp_bind migrate_tcp_bind;
    uint64_t migrate_connections_max;
};

void control_config_defaults(struct control_config *c);

/* Reads the file over what *c holds already. Errors with a sentence that starts with FILE:LINE:
 * VP_E_CONFIG_BAD, VP_E_NOT_FOUND. *c is undefined after an error. Blocks. */
int control_config_load(struct control_config *c, const char *path,
                        struct vp_error *err) must_check;
/* The same from a text; `name` stands in messages. */
int control_config_parse(struct control_config *c, const char *text, const char *name,
                         struct vp_error *err) must_check;

/* What the start would refuse on this machine: a missing group, missing directories. Blocks. */
int control_config_check(const struct control_config *c, struct vp_error *err) must_check;

#endif

/*
 * libvpool: the client library of vpoold. SPDX-License-Identifier: Apache-2.0
 *
 * Blocking calls over the daemon's control socket. Every method of docs/rpc.md can be called as
 * text with vpool_call; the main ones have wrappers.
 *
 * Threads: a client is used by one thread at a time (several clients are independent). Nothing is
 * global, no signal is raised, no descriptor leaks into child processes.
 *
 * Errors: functions return 0 or -1 and fill *err (which may be NULL). After a failure of the
 * transport (err->name NO_DAEMON, TIMED_OUT, CLOSED, RPC_PROTOCOL) close the client; a method that
 * refuses leaves it usable. A call that timed out may still be carried out.
 */
#ifndef VPOOL_H
#define VPOOL_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define VPOOL_API            __attribute__((visibility("default")))
#define VPOOL_DEFAULT_SOCKET "/run/vpool/vpoold.sock"

struct vpool_error {
    int rpc_code;   /* JSON-RPC code; 0 when the failure is on this side         */
    int errnum;     /* an errno of the same class                                */
    char name[40];  /* "NO_SPACE": stable, for programs; base/errors.def         */
    char text[600]; /* the sentence: what was wrong and what to do, for people   */
};

struct vpool_client;

/* "0.1.0" */
VPOOL_API const char *vpool_version(void);

/* Connects to `socket` (NULL: the environment's VPOOL_SOCKET, else VPOOL_DEFAULT_SOCKET).
 * `timeout_ms` bounds each call (0 = 60000). */
VPOOL_API int vpool_connect(const char *socket, unsigned timeout_ms, struct vpool_client **out,
                            struct vpool_error *err);
/* NULL is fine. */
VPOOL_API void vpool_close(struct vpool_client *c);

/* Calls `method` with `params`, a JSON object as text (NULL: none). *result (may be NULL) is the
 * result as JSON text, to be freed with free(). */
VPOOL_API int vpool_call(struct vpool_client *c, const char *method, const char *params,
                         char **result, struct vpool_error *err);

/* ---- pools ---------------------------------------------------------------------------------- */

/* `raid` NULL means single. With `size_bytes` > 0 missing files are created. With `force`, disks
 * that hold something else are overwritten. */
VPOOL_API int vpool_pool_create(struct vpool_client *c, const char *pool, const char *raid,
                                uint64_t size_bytes, const char *const *disks, unsigned disk_count,
                                bool force, struct vpool_error *err);
VPOOL_API int vpool_pool_destroy(struct vpool_client *c, const char *pool, struct vpool_error *err);
/* `force` exports also when clients, mounts or processes use the pool's attachments; they see
 * errors then. Without `force` that is BUSY, and nothing ends. */
VPOOL_API int vpool_pool_export(struct vpool_client *c, const char *pool, bool force,
                                struct vpool_error *err);
/* `paths` are disks or directories to look at. Without paths the daemon looks where its
 * configuration says. */
VPOOL_API int vpool_pool_import(struct vpool_client *c, const char *pool, const char *const *paths,
                                unsigned path_count, struct vpool_error *err);

/* `disk` is a number, a path or a uuid, as pool.status has them. All three return when the disk is
 * in service, or out of it; it is filled in the background (job.list). `path` NULL: where the disk
 * was, or where the daemon finds it. `force` overwrites what the device holds. */
VPOOL_API int vpool_pool_online(struct vpool_client *c, const char *pool, const char *disk,
                                const char *path, struct vpool_error *err);
VPOOL_API int vpool_pool_replace(struct vpool_client *c, const char *pool, const char *disk,
                                 const char *path, bool force, struct vpool_error *err);
VPOOL_API int vpool_pool_offline(struct vpool_client *c, const char *pool, const char *disk,
                                 struct vpool_error *err);
/* One more disk, at `path`. `force` overwrites what the device holds. */
VPOOL_API int vpool_pool_add(struct vpool_client *c, const char *pool, const char *path, bool force,
                             struct vpool_error *err);
/* `action` is "start" or "stop". `limit`: so many bytes of volumes a second; 0: none. What is found
 * stands in pool.scrub's result (vpool_call) and in events. */
VPOOL_API int vpool_pool_scrub(struct vpool_client *c, const char *pool, const char *action,
                               uint64_t limit, struct vpool_error *err);

/* ---- volumes ("POOL/VOLUME") ----------------------------------------------------------------- */

struct vpool_volume_info {
    char name[128];
    char state[16]; /* "online", "faulted", "deleting" */
    uint64_t size_bytes, allocated_bytes, valid_bytes;
    unsigned sector_bytes, attachments, waiting_requests;
};

VPOOL_API int vpool_volume_create(struct vpool_client *c, const char *volume, uint64_t size_bytes,
                                  const char *raid, struct vpool_error *err);
VPOOL_API int vpool_volume_get(struct vpool_client *c, const char *volume,
                               struct vpool_volume_info *out, struct vpool_error *err);
VPOOL_API int vpool_volume_resize(struct vpool_client *c, const char *volume, uint64_t size_bytes,
                                  bool force, struct vpool_error *err);
VPOOL_API int vpool_volume_rename(struct vpool_client *c, const char *volume, const char *to,
                                  struct vpool_error *err);
VPOOL_API int vpool_volume_delete(struct vpool_client *c, const char *volume,
                                  struct vpool_error *err);

/* ---- attachments ------------------------------------------------------------------------------
 */

/* `address`: "unix:PATH" or "tcp:HOST:PORT". *uri (may be NULL) is what NBD clients connect to, to
 * be freed with free(). */
VPOOL_API int vpool_attach_nbd(struct vpool_client *c, const char *volume, const char *address,
                               bool read_only, char **uri, struct vpool_error *err);
/* `address` NULL means the only attachment, or with `all` every one. `force` as above. */
VPOOL_API int vpool_detach(struct vpool_client *c, const char *volume, const char *address,
                           bool all, bool force, struct vpool_error *err);

#ifdef __cplusplus
}
#endif

#endif

/*
 * The state directory: a lock, so that one daemon uses it, a cache of where the pools' disks were
 * last seen, and the reports of moves that ended. Pools describe themselves; losing the cache costs
 * a `vpool import`.
 */
#ifndef VP_CONTROL_STATE_H
#define VP_CONTROL_STATE_H

#include "base/error.h"

#include <jansson.h>

/* Creates the directory when missing and locks DIR/vpoold.lock, which then holds our pid. The
 * descriptor is kept for the process's life. VP_E_BUSY names the other daemon's pid. Blocks. */
int state_lock(const char *dir, int *out_fd, struct vp_error *err) must_check;

/* Whether this process may open the lock that another has made; takes nothing. Blocks. */
int state_lock_try(const char *dir, struct vp_error *err) must_check;

/* The files of the directory:
 *     pools  {"version": 1, "pools": [{"name", "uuid", "disks": [paths]}]}
 *     moves  {"version": 1, "moves": [a report of each]}, see docs/rpc.md */
enum state_file { STATE_POOLS, STATE_MOVES };

/* One with an empty list when there is no file. A damaged file is an error: the caller warns and
 * goes on with an empty one. Blocks. */
int state_load(const char *dir, enum state_file file, json_t **out,
               struct vp_error *err) must_check;

/* Replaces the file atomically and durably; the sentence names the file. Blocks (call by
 * offload_run). */
int state_save(const char *dir, enum state_file file, const char *text,
               struct vp_error *err) must_check;

#endif

/*
 * Paths of disks as JSON. A path is bytes, and JSON takes UTF-8 only: a path that is not UTF-8 must
 * not get lost, because its disk would be missing then.
 */
#ifndef VP_CONTROL_PATH_H
#define VP_CONTROL_PATH_H

#include <jansson.h>
#include <stdbool.h>

#define CONTROL_PATH_BYTES 256U /* with its NUL, as in pool.h */

/* For files of the daemon's own: a string, or {"bytes": "2f64…"} where the path is not printable
 * UTF-8. NULL: memory is out. */
json_t *path_to_json(const char *path);
/* The path that path_to_json made. False: it is neither form, or too long. Untrusted. */
bool path_of_json(const json_t *j, char out[static CONTROL_PATH_BYTES]);
/* For people: '?' for each byte that is not printable UTF-8. NULL: memory is out. */
json_t *path_shown(const char *path);

#endif

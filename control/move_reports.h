/*
 * Reports of the last moves that ended, over restarts: what `migrate.status` said of each at its
 * end, and what requests of its clients took afterwards. They are kept in the state directory
 * (moves.json), because a move has two pools, and may outlive both. HOME.
 */
#ifndef VP_CONTROL_MOVE_REPORTS_H
#define VP_CONTROL_MOVE_REPORTS_H

#include "io/co.h"

#include <jansson.h>
#include <stdbool.h>

#define MOVE_REPORTS_MAX 64 /* the newest ones */

struct control;

struct move_reports { /* part of struct control */
    json_t *all;      /* the oldest first; NULL: none */
    bool unsaved;
    bool told; /* an event has said that they cannot be saved */
};

void move_reports_fini(struct move_reports *r);
/* At start: those of the file. A damaged file is an event. Blocks. */
void move_reports_load(struct control *c);
/* Takes the reference; NULL: there was no memory for it. */
void move_report_add(struct control *c, json_t *report);
/* Adds what is known only some time after a move, "after_ns". No yield. */
void move_reports_look(struct control *c);
/* Writes them, if they have changed. An error is an event, and the next call tries again. */
CO void move_reports_save(struct control *c);
/* Those of a volume, by either name, or (NULL) all. A new reference. */
json_t *move_reports_json(const struct control *c, const char *volume);

#endif

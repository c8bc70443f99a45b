#include "control/control_impl.h"
#include "control/state.h"
#include "io/offload.h"

#include <string.h>

#define AFTER_SECONDS  2 /* so long requests are counted after a move */
#define AFTER_KEY      "after_ns"
#define AFTER_PERMILLE 990U

void move_reports_fini(struct move_reports *r)
{
    json_decref(r->all);
    r->all = NULL;
}

void move_reports_load(struct control *c)
{
    struct vp_error err = {0};
    json_t *file, *report;
    size_t i;
    if (state_load(c->config->state_dir, STATE_MOVES, &file, &err)) {
        control_event(c, VP_LOG_WARN, "daemon.reports-damaged", "daemon",
                      "%s: the reports of earlier moves are lost", err.text);
        return;
    }
    json_array_foreach(json_object_get(file, "moves"), i, report)
    {
        if (json_is_object(report) && !json_object_get(report, AFTER_KEY))
            vp_ignore(json_object_set_new(report, AFTER_KEY, json_null()), "it is shown as none");
        if (json_is_object(report))
            move_report_add(c, json_incref(report));
    }
    json_decref(file);
    c->reports.unsaved = false;
}

void move_report_add(struct control *c, json_t *report)
{
    struct move_reports *r = &c->reports;
    if (!r->all)
        r->all = json_array();
    if (json_array_append_new(r->all, report))
        return; /* no memory: the event says how it ended */
    while (json_array_size(r->all) > MOVE_REPORTS_MAX)
        vp_ignore(json_array_remove(r->all, 0), "it is there");
    r->unsaved = true;
}

/* What requests have taken since its volume was opened, that is since the switch; null: nobody has
 * sent any, or it is not here any more. */
static json_t *after_json(struct control *c, const char *target)
{
    struct control_pool *p;
    const char *volume;
    struct vp_error err = {0};
    struct volume_info info;
    struct histogram all = {0};
    if (control_volume_get(c, target, &p, &volume, &err))
        return json_null();
    if (p->vs && volume_info_get(p->vs, volume, &info) == 0) {
        histogram_merge(&all, info.figures->read_latency);
        histogram_merge(&all, info.figures->write_latency);
        histogram_merge(&all, info.figures->flush_latency);
    }
    control_pool_put(p);
    return histogram_count(&all)
               ? json_integer((json_int_t)histogram_permille_ns(&all, AFTER_PERMILLE))
               : json_null();
}

void move_reports_look(struct control *c)
{
    size_t i;
    json_t *report;
    json_array_foreach(c->reports.all, i, report)
    {
        uint64_t ended = (uint64_t)json_integer_value(json_object_get(report, "ended"));
        const char *phase = json_string_value(json_object_get(report, "phase"));
        const char *target = json_string_value(json_object_get(report, "to"));
        if (json_object_get(report, AFTER_KEY) || reactor_wall_seconds() < ended + AFTER_SECONDS)
            continue;
        const char *peer = json_string_value(json_object_get(report, "peer"));
        bool is_here = !peer || !peer[0];
        bool moved = is_here && phase && target && strcmp(phase, "done") == 0;
        vp_ignore(
            json_object_set_new(report, AFTER_KEY, moved ? after_json(c, target) : json_null()),
            "it is tried again");
        c->reports.unsaved = true;
    }
}

struct reports_save {
    const char *dir, *text;
    struct vp_error *err;
};

static int save_blocking(void *arg)
{
    const struct reports_save *s = arg;
    return state_save(s->dir, STATE_MOVES, s->text, s->err);
}

CO void move_reports_save(struct control *c)
{
    struct vp_error err = {0};
    json_t *file;
    if (!c->reports.unsaved)
        return;
    file = json_pack("{s:i, s:O}", "version", 1, "moves", c->reports.all);
    char *text = file ? json_dumps(file, JSON_INDENT(1)) : NULL;
    json_decref(file);
    c->reports.unsaved = false; /* unless another one comes meanwhile */
    struct reports_save save = {c->config->state_dir, text, &err};
    int rc = text ? offload_run(save_blocking, &save) : VP_E_NO_MEMORY;
    free(text);
    bool told = c->reports.told;
    c->reports.told = rc != 0;
    if (!rc)
        return;
    c->reports.unsaved = true;
    if (!told)
        control_event(c, VP_LOG_ERROR, "daemon.reports-unsaved", "daemon", "%s",
                      err.text[0] ? err.text : vp_err_text(rc));
}

json_t *move_reports_json(const struct control *c, const char *volume)
{
    json_t *out = json_array(), *report;
    size_t i;
    json_array_foreach(c->reports.all, i, report)
    {
        const char *from = json_string_value(json_object_get(report, "from"));
        const char *to = json_string_value(json_object_get(report, "to"));
        bool is_its = !volume || (from && strcmp(from, volume) == 0) || (to && !strcmp(to, volume));
        if (is_its && json_array_append(out, report))
            break; /* no memory: some are missing */
    }
    return out;
}

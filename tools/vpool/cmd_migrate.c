/* Commands about moves of volumes between pools, of one daemon or of two. */
#include "tools/vpool/cli.h"

#include <stdio.h>
#include <string.h>

static bool has_ended(const json_t *m)
{
    return json_is_integer(json_object_get(m, "ended"));
}

/* ---- progress and ends ----------------------------------------------------------------------- */

/* "45% of 1.2G"; "-" before it is counted. */
static const char *progress_text(const json_t *m, char *to, size_t size)
{
    uint64_t total = json_number(m, "total_bytes");
    uint64_t done = json_number(m, "copied_bytes") + json_number(m, "zero_bytes");
    if (!total)
        (void)snprintf(to, size, "-");
    else
        (void)snprintf(to, size, "%d%% of %s",
                       done < total ? (int)((double)done * 100 / (double)total) : 100,
                       size_text(total));
    return to;
}

/* "12.0 ms": how long clients waited; "~12.0 ms": how long they would wait now; "-": not known. */
static const char *pause_text(const json_t *m, char *to, size_t size)
{
    uint64_t ns = json_number(m, "frozen_ns");
    const json_t *would = json_object_get(m, "pause_ms");
    double ms = ns ? (double)ns / 1e6 : json_number_value(would);
    const char *about = ns ? "" : "~";
    if (!ns && !json_is_number(would))
        (void)snprintf(to, size, "-");
    else if (ms < 10000)
        (void)snprintf(to, size, "%s%.1f ms", about, ms);
    else
        (void)snprintf(to, size, "%s%.1f s", about, ms / 1000);
    return to;
}

/* "12 s"; "never": rounds alone do not come to an end at this rate; "-": not known. */
static const char *left_text(const json_t *m, char *to, size_t size)
{
    const json_t *left = json_object_get(m, "seconds_left");
    if (json_is_false(json_object_get(m, "converges")))
        (void)snprintf(to, size, "never");
    else if (json_is_number(left))
        (void)snprintf(to, size, "%llu s", (unsigned long long)json_number(m, "seconds_left"));
    else
        (void)snprintf(to, size, "-");
    return to;
}

static bool is_live(const json_t *m)
{
    return json_is_string(json_object_get(m, "mode")) &&
           strcmp(json_text(m, "mode"), "offline") != 0;
}

/* "far:POOL/VOL" of one that comes from another daemon. */
static const char *from_text(const json_t *m, char *to, size_t size)
{
    bool incoming = json_is_true(json_object_get(m, "incoming"));
    (void)snprintf(to, size, "%s%s%s", incoming ? json_text(m, "peer") : "", incoming ? ":" : "",
                   json_text(m, "from"));
    return to;
}

/* "POOL/VOL at ADDRESS" of one that goes to another daemon. */
static const char *to_text(const json_t *m, char *to, size_t size)
{
    bool out = json_text(m, "peer")[0] && !json_is_true(json_object_get(m, "incoming"));
    (void)snprintf(to, size, "%s%s%s", json_text(m, "to"), out ? " at " : "",
                   out ? json_text(m, "peer") : "");
    return to;
}

static const char *text_or_dash(const json_t *m, const char *key)
{
    return json_text(m, key)[0] ? json_text(m, key) : "-";
}

/* "; 96M were compared, 4K of the last changes were not" */
static const char *verify_text(const json_t *m, char *to, size_t size)
{
    const json_t *v = json_object_get(m, "verify");
    *to = '\0';
    if (json_is_object(v))
        (void)snprintf(to, size, "; %s were compared, %s of the last changes were not",
                       size_text(json_number(v, "compared_bytes")),
                       size_text(json_number(v, "not_compared_bytes")));
    return to;
}

static int print_end(const struct cli *cli, const json_t *m)
{
    char text[800], waited[40], verified[100], live[80] = "";
    const char *phase = json_text(m, "phase");
    if (strcmp(phase, "done") != 0) {
        (void)snprintf(text, sizeof(text), "the move of %s to %s has ended: %s%s%s",
                       json_text(m, "from"), json_text(m, "to"), phase,
                       json_text(m, "error")[0] ? ": " : "", json_text(m, "error"));
        return cli_refuse(cli, strcmp(phase, "cancelled") == 0 ? "CANCELLED" : "MIGRATION_FAILED",
                          text);
    }
    if (is_live(m))
        (void)snprintf(live, sizeof(live), "; of both, %s again; %s were mirrored",
                       size_text(json_number(m, "again_bytes")),
                       size_text(json_number(m, "mirrored_bytes")));
    if (cli->json)
        cli_print_json(m);
    else
        printf("%s is %s now: %s were copied, %s were zeros%s%s; clients waited %s\n",
               json_text(m, "from"), json_text(m, "to"), size_text(json_number(m, "copied_bytes")),
               size_text(json_number(m, "zero_bytes")), live,
               verify_text(m, verified, sizeof(verified)), pause_text(m, waited, sizeof(waited)));
    return EXIT_DONE;
}

#define WAIT_MS 30000 /* a call to the daemon */

/* ", 3M dirty in round 2, pause ~12.0 ms" */
static const char *live_text(const json_t *m, char *to, size_t size)
{
    uint64_t rounds = json_number(m, "rounds");
    char round[40] = "", pause[40];
    *to = '\0';
    if (!is_live(m) || !json_number(m, "rate_bytes"))
        return to;
    if (rounds)
        (void)snprintf(round, sizeof(round), " in round %llu", (unsigned long long)rounds);
    (void)snprintf(to, size, ", %s dirty%s, pause %s", size_text(json_number(m, "dirty_bytes")),
                   round, pause_text(m, pause, sizeof(pause)));
    return to;
}

static void show_progress(const json_t *m)
{
    char live[160];
    bool paused = json_is_true(json_object_get(m, "paused"));
    if (has_ended(m)) {
        progress_clear();
        return;
    }
    progress_show(&(struct progress){
        .phase = paused ? "paused" : json_text(m, "phase"),
        .done = json_number(m, "copied_bytes") + json_number(m, "zero_bytes") -
                json_number(m, "again_bytes"),
        .total = json_number(m, "total_bytes"),
        .rate = json_number(m, "rate_bytes"),
        .left_known = !paused && json_is_integer(json_object_get(m, "seconds_left")),
        .seconds_left = json_number(m, "seconds_left"),
        .more = live_text(m, live, sizeof(live)),
    });
}

/* Until it has ended; *out is a new reference. */
static int wait_for_end(struct cli *cli, const char *id, bool show, json_t **out)
{
    for (;;) {
        int rc = cli_call(
            cli, "migrate.wait",
            json_pack("{s:s, s:i}", "id", id, "wait_ms", show ? PROGRESS_MS : WAIT_MS), out);
        if (rc)
            return rc;
        if (show)
            show_progress(*out);
        if (has_ended(*out))
            return EXIT_DONE;
        json_decref(*out);
    }
}

/* ---- migrate --------------------------------------------------------------------------------- */

/* "12 s", "3.1 ms" */
static const char *duration_text(double seconds, char to[static 24])
{
    if (seconds < 1)
        (void)snprintf(to, 24, "%.1f ms", seconds * 1000);
    else
        (void)snprintf(to, 24, "%.0f s", seconds);
    return to;
}

static void print_estimate(const json_t *e)
{
    char took[24], pause[24];
    const json_t *seconds = json_object_get(e, "seconds");
    if (!json_is_object(e))
        return;
    printf("%s to copy, at about %s/s; clients write %s/s: ", size_text(json_number(e, "bytes")),
           size_text(json_number(e, "rate_bytes")), size_text(json_number(e, "written_bytes")));
    if (json_is_false(json_object_get(e, "converges")))
        printf("never at this rate by copying alone; it would be mirrored, or fail\n");
    else if (json_is_number(seconds))
        printf("about %s, and clients wait for about %s at the end\n",
               duration_text(json_number_value(seconds), took),
               duration_text((double)json_number(e, "pause_ns") / 1e9, pause));
    else
        printf("nothing is allocated\n");
    if (json_is_false(json_object_get(e, "meets_deadline")))
        printf("it would not end by its deadline, and then end without effect\n");
}

static void print_started(const json_t *result)
{
    const json_t *plan = json_object_get(result, "plan");
    bool dry_run = !json_is_string(json_object_get(result, "id"));
    char room[80] = "";
    if (json_is_integer(json_object_get(plan, "room_bytes")))
        (void)snprintf(room, sizeof(room), ", and there is room for %s",
                       size_text(json_number(plan, "room_bytes")));
    printf("%s %s to %s, %s: %s of %s are allocated%s%s\n", dry_run ? "would move" : "moving",
           json_text(plan, "from"), json_text(plan, "to"), json_text(plan, "mode"),
           size_text(json_number(plan, "allocated_bytes")),
           size_text(json_number(plan, "size_bytes")), room,
           json_is_true(json_object_get(plan, "clients_wait")) ? "; clients wait while it is copied"
                                                               : "");
    print_estimate(json_object_get(result, "estimate"));
    if (!dry_run)
        printf("`vpool migrate status` shows how far it is, `vpool jobs wait %s` waits for it\n",
               json_text(result, "job"));
}

static int start_and_wait(struct cli *cli, json_t *params)
{
    json_t *started, *ended;
    int rc = cli_call(cli, "migrate.start", params, &started);
    if (rc)
        return rc;
    rc = wait_for_end(cli, json_text(started, "id"), progress_is_seen(cli), &ended);
    json_decref(started);
    if (rc)
        return rc;
    rc = print_end(cli, ended);
    json_decref(ended);
    return rc;
}

static json_t *number_if_given(uint64_t n)
{
    return n == SIZE_NOT_GIVEN ? NULL : json_integer((json_int_t)n);
}

static json_t *ms_if_given(uint64_t seconds)
{
    return number_if_given(seconds < UINT64_MAX / 1000 ? seconds * 1000 : seconds);
}

static int migrate_or_estimate(struct cli *cli, int argc, char **argv, bool dry_run)
{
    const char *to = NULL, *mode = NULL, *peer = NULL;
    uint64_t max_downtime = SIZE_NOT_GIVEN, mirror_wait = SIZE_NOT_GIVEN;
    uint64_t bandwidth = SIZE_NOT_GIVEN, impact = SIZE_NOT_GIVEN, guest = SIZE_NOT_GIVEN;
    uint64_t deadline = SIZE_NOT_GIVEN;
    bool full_speed = false, verify = false, wait = false;
    const struct opt opts[] = {{"to", 0, OPT_TEXT, &to},
                               {"mode", 0, OPT_TEXT, &mode},
                               {"peer", 0, OPT_TEXT, &peer},
                               {"max-downtime", 0, OPT_NUMBER, &max_downtime},
                               {"mirror-wait", 0, OPT_NUMBER, &mirror_wait},
                               {"bandwidth", 0, OPT_SIZE, &bandwidth},
                               {"impact", 0, OPT_NUMBER, &impact},
                               {"deadline", 0, OPT_NUMBER, &deadline},
                               {"full-speed", 0, OPT_FLAG, &full_speed},
                               {"await-guest", 0, OPT_NUMBER, &guest},
                               {"verify", 0, OPT_FLAG, &verify},
                               {"wait", 'w', OPT_FLAG, &wait},
                               {"dry-run", 'n', OPT_FLAG, &dry_run},
                               {0}};
    int n = opts_parse(cli, argc, argv, opts, 1, 1);
    if (opts_failed(n))
        return opts_exit(n);
    if (!to)
        return cli_usage(cli, "--to POOL[/NAME] is missing");
    json_t *params = json_pack(
        "{s:s, s:s, s:s*, s:s*, s:o*, s:o*, s:o*, s:o*, s:o*, s:o*, s:b, s:b, s:b}", "volume",
        argv[1], "to", to, "mode", mode, "peer", peer, "max_downtime_ms",
        number_if_given(max_downtime), "mirror_wait_ms", number_if_given(mirror_wait),
        "bandwidth_bytes", number_if_given(bandwidth), "impact_percent", number_if_given(impact),
        "guest_wait_ms", ms_if_given(guest), "deadline_ms", ms_if_given(deadline), "full_speed",
        full_speed, "verify", verify, "dry_run", dry_run);
    return wait && !dry_run ? start_and_wait(cli, params)
                            : cli_show(cli, "migrate.start", params, print_started);
}

static int cmd_migrate(struct cli *cli, int argc, char **argv)
{
    return migrate_or_estimate(cli, argc, argv, false);
}

static int cmd_estimate(struct cli *cli, int argc, char **argv)
{
    return migrate_or_estimate(cli, argc, argv, true);
}

/* ---- status ---------------------------------------------------------------------------------- */

static void print_moves(const json_t *moves)
{
    static const char *const headers[] = {"FROM",   "TO",    "MODE",   "PHASE", ">DONE", ">RATE",
                                          ">DIRTY", ">LEFT", ">PAUSE", "JOB",   "ERROR", NULL};
    struct table t;
    size_t i;
    const json_t *m;
    table_init(&t, "", headers);
    json_array_foreach(moves, i, m)
    {
        char progress[60], pause[40], left[40], from[300], to[560];
        uint64_t rate = json_number(m, "rate_bytes");
        table_add(&t, "%s", from_text(m, from, sizeof(from)));
        table_add(&t, "%s", to_text(m, to, sizeof(to)));
        table_add(&t, "%s", text_or_dash(m, "mode"));
        table_add(&t, "%s%s%s", json_text(m, "phase"),
                  json_is_true(json_object_get(m, "ready")) ? ", ready" : "",
                  json_is_true(json_object_get(m, "paused")) ? ", paused" : "");
        table_add(&t, "%s", progress_text(m, progress, sizeof(progress)));
        table_add(&t, rate ? "%s/s" : "-", size_text(rate));
        table_add(&t, "%s", is_live(m) ? size_text(json_number(m, "dirty_bytes")) : "-");
        table_add(&t, "%s", left_text(m, left, sizeof(left)));
        table_add(&t, "%s", pause_text(m, pause, sizeof(pause)));
        table_add(&t, "%s", text_or_dash(m, "job"));
        table_add(&t, "%s%s", json_text(m, "waits")[0] ? "it has waited " : "",
                  json_text(m, "waits")[0]                   ? json_text(m, "waits")
                  : json_is_true(json_object_get(m, "late")) ? "it does not end by its deadline"
                                                             : text_or_dash(m, "error"));
    }
    table_print(&t);
}

static void print_status(const json_t *result)
{
    const json_t *moves = json_object_get(result, "migrations");
    const json_t *left = json_object_get(result, "in_doubt"), *l;
    size_t i;
    if (json_array_size(moves))
        print_moves(moves);
    else if (json_array_size(left) == 0)
        puts("no volume moves, and none has moved since the daemon started");
    json_array_foreach(left, i, l)
    {
        const char *side = json_text(l, "side");
        printf("%s %s %s: %s\n", json_text(l, "volume"),
               strcmp(side, "left") == 0         ? "may have moved to"
               : strcmp(side, "target") == 0     ? "is an unfinished copy of"
               : strcmp(side, "superseded") == 0 ? "is an older copy of"
               : strcmp(side, "gone") == 0       ? "has become"
                                                 : "has arrived from",
               json_text(l, "other"), json_text(l, "why"));
    }
    if (json_array_size(left))
        puts("→ it is settled by itself once both pools are open and can record it; `vpool migrate "
             "forget` gives a pool that is lost up");
}

static int cmd_status(struct cli *cli, int argc, char **argv)
{
    int n = opts_parse(cli, argc, argv, NULL, 0, 1);
    if (opts_failed(n))
        return opts_exit(n);
    return cli_show(cli, "migrate.status", json_pack("{s:s*}", "volume", n ? argv[1] : NULL),
                    print_status);
}

/* ---- report ---------------------------------------------------------------------------------- */

/* "1.2 ms"; "-": not known. */
static const char *ns_text(const json_t *m, const char *key, char to[static 24])
{
    const json_t *ns = json_object_get(m, key);
    double ms = json_number_value(ns) / 1e6;
    (void)snprintf(to, 24, !json_is_number(ns) ? "-" : ms < 10 ? "%.2f ms" : "%.0f ms", ms);
    return to;
}

/* More than one: clients were stopped, went on, and were stopped again. */
static void print_pauses(const json_t *m)
{
    char all[24], longest[24];
    if (json_number(m, "pauses") > 1)
        printf("  pauses        %llu, %s in all, the longest %s\n",
               (unsigned long long)json_number(m, "pauses"), ns_text(m, "frozen_all_ns", all),
               ns_text(m, "frozen_longest_ns", longest));
}

static void print_report_verify(const json_t *v)
{
    if (json_is_object(v))
        printf("  compared      %s in %llu passes, %s of the last changes were not compared\n",
               size_text(json_number(v, "compared_bytes")),
               (unsigned long long)json_number(v, "passes"),
               size_text(json_number(v, "not_compared_bytes")));
}

static void print_report(const json_t *m)
{
    char when[WHEN_TEXT], paused[24], predicted[24], before[24], during[24], after[24], longest[24];
    uint64_t took = json_number(m, "ended") - json_number(m, "started");
    printf("%s to %s, %s: %s%s%s\n", json_text(m, "from"), json_text(m, "to"), json_text(m, "mode"),
           json_text(m, "phase"), json_text(m, "error")[0] ? ": " : "", json_text(m, "error"));
    printf("  ended         %s, after %llu s\n", when_text(m, "ended", when),
           (unsigned long long)took);
    printf("  copied        %s, %s zeros, of both %s again in %llu rounds, %s mirrored\n",
           size_text(json_number(m, "copied_bytes")), size_text(json_number(m, "zero_bytes")),
           size_text(json_number(m, "again_bytes")), (unsigned long long)json_number(m, "rounds"),
           size_text(json_number(m, "mirrored_bytes")));
    print_report_verify(json_object_get(m, "verify"));
    printf("  pause         %s, predicted %s\n", ns_text(m, "frozen_ns", paused),
           ns_text(m, "predicted_ns", predicted));
    print_pauses(m);
    printf("  requests      99%% within %s before, %s during, %s after; the longest %s\n",
           ns_text(m, "before_ns", before), ns_text(m, "during_ns", during),
           ns_text(m, "after_ns", after), ns_text(m, "longest_ns", longest));
}

static void print_reports(const json_t *result)
{
    const json_t *moves = json_object_get(result, "moves"), *m;
    size_t i;
    if (json_array_size(moves) == 0)
        puts("no move has ended here");
    json_array_foreach(moves, i, m) print_report(m);
}

static int cmd_report(struct cli *cli, int argc, char **argv)
{
    int n = opts_parse(cli, argc, argv, NULL, 0, 1);
    if (opts_failed(n))
        return opts_exit(n);
    return cli_show(cli, "migrate.report", json_pack("{s:s*}", "volume", n ? argv[1] : NULL),
                    print_reports);
}

/* ---- cancel ---------------------------------------------------------------------------------- */

/* Returns when the move has ended, so that what follows finds it gone. */
static int cmd_cancel(struct cli *cli, int argc, char **argv)
{
    json_t *asked, *ended;
    char from[300];
    int n = opts_parse(cli, argc, argv, NULL, 1, 1);
    if (opts_failed(n))
        return opts_exit(n);
    int rc = cli_call(cli, "migrate.cancel", json_pack("{s:s}", "volume", argv[1]), &asked);
    if (rc)
        return rc;
    rc = wait_for_end(cli, json_text(asked, "id"), false, &ended);
    json_decref(asked);
    if (rc)
        return rc;
    if (strcmp(json_text(ended, "phase"), "cancelled") != 0)
        rc = print_end(cli, ended);
    else if (cli->json)
        cli_print_json(ended);
    else
        printf("cancelled: %s stays\n", from_text(ended, from, sizeof(from)));
    json_decref(ended);
    return rc;
}

/* ---- pause, resume --------------------------------------------------------------------------- */

static void print_paused(const json_t *m)
{
    char from[300], to[560];
    printf("paused: %s stays where it is, and its move to %s goes on after `vpool migrate resume "
           "%s`\n",
           from_text(m, from, sizeof(from)), to_text(m, to, sizeof(to)), json_text(m, "from"));
}

static void print_resumed(const json_t *m)
{
    char from[300], to[560];
    printf("resumed: %s moves to %s\n", from_text(m, from, sizeof(from)),
           to_text(m, to, sizeof(to)));
}

static int pause_or_resume(struct cli *cli, int argc, char **argv, const char *method,
                           void (*print)(const json_t *m))
{
    int n = opts_parse(cli, argc, argv, NULL, 1, 1);
    if (opts_failed(n))
        return opts_exit(n);
    return cli_show(cli, method, json_pack("{s:s}", "volume", argv[1]), print);
}

static int cmd_pause(struct cli *cli, int argc, char **argv)
{
    return pause_or_resume(cli, argc, argv, "migrate.pause", print_paused);
}

static int cmd_resume(struct cli *cli, int argc, char **argv)
{
    return pause_or_resume(cli, argc, argv, "migrate.resume", print_resumed);
}

/* ---- guest-paused ---------------------------------------------------------------------------- */

/* Returns at the switch: whoever has paused the guest lets it go on there then, and what is left to
 * do here may take seconds. */
static int cmd_guest_paused(struct cli *cli, int argc, char **argv)
{
    json_t *m;
    char from[300], to[560], pause[40];
    int n = opts_parse(cli, argc, argv, NULL, 1, 1);
    if (opts_failed(n))
        return opts_exit(n);
    int rc = cli_call(cli, "migrate.guest-paused", json_pack("{s:s}", "volume", argv[1]), &m);
    if (rc)
        return rc;
    if (strcmp(json_text(m, "phase"), "leaving") != 0)
        rc = print_end(cli, m);
    else if (cli->json)
        cli_print_json(m);
    else
        printf("switched: %s is %s now; it was stopped for %s\n", from_text(m, from, sizeof(from)),
               to_text(m, to, sizeof(to)), pause_text(m, pause, sizeof(pause)));
    json_decref(m);
    return rc;
}

/* ---- forget ---------------------------------------------------------------------------------- */

static const char *forget_meaning(const json_t *r)
{
    const char *side = json_text(r, "side");
    if (strcmp(json_text(r, "becomes"), "settled") == 0)
        return "is settled with the other pool, which is open: nothing is given up";
    if (strcmp(side, "left") == 0)
        return "becomes the volume again. If it had arrived there, what was written there since is "
               "not in it, and the other one is not served beside it any more";
    if (strcmp(side, "target") == 0)
        return "is deleted: it is not complete";
    if (strcmp(side, "gone") == 0)
        return "is gone from here, and the other daemon is not told so any more: the volume there "
               "cannot be deleted before `vpool migrate forget` is said there, too";
    return "stays the volume, and the other pool is not asked any more";
}

static void print_forgotten(const json_t *r)
{
    printf("%s%s (other side: %s) %s\n",
           json_is_true(json_object_get(r, "dry_run")) ? "would forget the move: " : "",
           json_text(r, "volume"), json_text(r, "other"), forget_meaning(r));
}

static int refuse_unforced(struct cli *cli, const char *volume)
{
    char text[800];
    json_t *r;
    int rc = cli_call(cli, "migrate.forget",
                      json_pack("{s:s, s:b}", "volume", volume, "dry_run", 1), &r);
    if (rc)
        return rc;
    (void)snprintf(
        text, sizeof(text),
        "%s (other side: %s) %s. Only when the other pool is lost for good: --force does "
        "it",
        json_text(r, "volume"), json_text(r, "other"), forget_meaning(r));
    json_decref(r);
    return cli_refuse(cli, "NOT_FORCED", text);
}

static int cmd_forget(struct cli *cli, int argc, char **argv)
{
    bool force = false, dry_run = false;
    const struct opt opts[] = {
        {"force", 'f', OPT_FLAG, &force}, {"dry-run", 'n', OPT_FLAG, &dry_run}, {0}};
    int n = opts_parse(cli, argc, argv, opts, 1, 1);
    if (opts_failed(n))
        return opts_exit(n);
    if (!force && !dry_run)
        return refuse_unforced(cli, argv[1]);
    return cli_show(cli, "migrate.forget",
                    json_pack("{s:s, s:b}", "volume", argv[1], "dry_run", dry_run),
                    print_forgotten);
}

/* Of commands that begin alike, the longer ones come first. */
const struct command commands_migrate[] = {
    {"migrate status", "[POOL/VOL]",
     "Volumes that move, the last 16 moves that ended, and volumes whose move waits for a pool.",
     cmd_status},
    {"migrate estimate", "POOL/VOL --to POOL2[/NAME] [the options of `migrate`]",
     "What a move would take: time, bytes and pause, as clients write now. Takes a second.",
     cmd_estimate},
    {"migrate report", "[POOL/VOL]",
     "What the last 64 moves took and cost, over restarts of the daemon.", cmd_report},
    {"migrate cancel", "POOL/VOL", "Ends a move without effect: the volume stays where it was.",
     cmd_cancel},
    {"migrate pause", "POOL/VOL",
     "Stops the copy of a move; clients go on, and what they write is copied afterwards.\n"
     "Not once its clients wait for it.",
     cmd_pause},
    {"migrate resume", "POOL/VOL", "Lets a move that was paused go on.", cmd_resume},
    {"migrate guest-paused", "POOL/VOL",
     "The guest that uses the volume is paused: a move that waits for that (--await-guest) goes\n"
     "to its end. Returns when the volume is at the other side.",
     cmd_guest_paused},
    {"migrate forget", "POOL/VOL --dry-run|--force",
     "Gives up the other side of a move whose pool is lost for good.\n"
     "  -n, --dry-run    only say what would become of the volume\n"
     "  -f, --force      do it",
     cmd_forget},
    {"migrate",
     "POOL/VOL --to POOL2[/NAME] [--mode live|mirror|offline] [--max-downtime MS] "
     "[--mirror-wait MS] [--bandwidth SIZE] [--impact PERCENT|--full-speed] [--await-guest "
     "SECONDS] "
     "[--deadline SECONDS] [--verify] [--wait] [--dry-run]",
     "Moves a volume to another pool; its exports go on there.\n"
     "  --to POOL2[/NAME]  where to; without NAME the volume keeps its own\n"
     "  --mode live        copied while clients write, and they wait for a moment at the end\n"
     "                     (this is the default)\n"
     "  --mode mirror      the same, but what clients write goes to both pools as soon as\n"
     "                     everything was copied once\n"
     "  --mode offline     clients wait, without an error, while everything is copied\n"
     "  --max-downtime MS  live, mirror: about how long clients may wait at the end (20)\n"
     "  --mirror-wait MS   live, mirror: how long a mirrored write waits for the new pool (1000)\n"
     "  --bandwidth SIZE   live, mirror: copies so much a second, on average; `vpool jobs limit`\n"
     "                     changes that later\n"
     "  --impact PERCENT   live, mirror: what requests of clients may take while it copies, of "
     "what\n"
     "                     they took before (200); it copies as fast as that allows\n"
     "  --full-speed       live, mirror: copies as fast as it can, whatever requests take\n"
     "  --await-guest S    live, mirror: when the rest is small, wait up to S seconds until the\n"
     "                     hypervisor has paused the guest and says so (`migrate guest-paused`)\n"
     "  --deadline S       unless the switch has begun after S seconds, the move ends without\n"
     "                     effect; the status says before whether that is to be expected\n"
     "  --verify           live, mirror: what was copied is read back from the new pool and\n"
     "                     compared, and the volume stays where it is when it differs\n"
     "  -w, --wait         wait until it has ended; exits with 1 unless it is done\n"
     "  -n, --dry-run      only say what would happen, as `migrate estimate` does",
     cmd_migrate},
    {0}};

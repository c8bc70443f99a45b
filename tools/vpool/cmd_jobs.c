/* Commands about jobs: long work in the background. */
#include "tools/vpool/cli.h"

#include "base/bytes.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

/* ---- list ------------------------------------------------------------------------------------ */

static void add_progress(struct table *t, const json_t *j)
{
    uint64_t done = json_number(j, "done"), total = json_number(j, "total");
    if (!json_is_integer(json_object_get(j, "total")))
        table_add(t, "-");
    else
        table_add(t, "%d%% of %s", (int)((double)done * 100 / (double)total), size_text(total));
}

static void add_rate(struct table *t, const json_t *j, const char *key)
{
    uint64_t rate = json_number(j, key);
    table_add(t, rate ? "%s/s" : "-", size_text(rate));
}

/* "1:02:03" */
static void add_left(struct table *t, const json_t *j)
{
    uint64_t s = json_number(j, "seconds_left");
    if (!json_is_integer(json_object_get(j, "seconds_left")))
        table_add(t, "-");
    else
        table_add(t, "%d:%02d:%02d", (int)(s / 3600), (int)(s / 60 % 60), (int)(s % 60));
}

/* A volume, or "disk 1 (PATH)". */
static void add_subject(struct table *t, const json_t *j)
{
    const json_t *disk = json_object_get(j, "disk");
    if (json_is_object(disk))
        table_add(t, "disk %d (%s)", (int)json_number(disk, "index"), json_text(disk, "path"));
    else
        table_add(t, "%s", json_text(j, "volume")[0] ? json_text(j, "volume") : "its pool");
}

static void print_jobs(const json_t *result)
{
    static const char *const headers[] = {"JOB",   "KIND",   "OF",    "STATE", ">DONE",
                                          ">RATE", ">LIMIT", ">LEFT", "ERROR", NULL};
    const json_t *jobs = json_object_get(result, "jobs"), *j;
    struct table t;
    size_t i;
    if (json_array_size(jobs) == 0) {
        puts("no jobs: nothing runs in the background");
        return;
    }
    table_init(&t, "", headers);
    json_array_foreach(jobs, i, j)
    {
        table_add(&t, "%s", json_text(j, "job"));
        table_add(&t, "%s", json_text(j, "kind"));
        add_subject(&t, j);
        table_add(&t, "%s", json_text(j, "state"));
        add_progress(&t, j);
        add_rate(&t, j, "rate");
        add_rate(&t, j, "limit");
        add_left(&t, j);
        table_add(&t, "%s", json_text(j, "error")[0] ? json_text(j, "error") : "-");
    }
    table_print(&t);
    if (json_number(result, "left_out"))
        printf("and %llu more\n", (unsigned long long)json_number(result, "left_out"));
}

static int cmd_list(struct cli *cli, int argc, char **argv)
{
    int n = opts_parse(cli, argc, argv, NULL, 0, 1);
    if (opts_failed(n))
        return opts_exit(n);
    return cli_show(cli, "job.list", json_pack("{s:s*}", "pool", n ? argv[1] : NULL), print_jobs);
}

/* ---- one job --------------------------------------------------------------------------------- */

static int call_one(struct cli *cli, int argc, char **argv, const char *method)
{
    int n = opts_parse(cli, argc, argv, NULL, 1, 1);
    if (opts_failed(n))
        return opts_exit(n);
    return cli_show(cli, method, json_pack("{s:s}", "job", argv[1]), NULL);
}

static int cmd_pause(struct cli *cli, int argc, char **argv)
{
    return call_one(cli, argc, argv, "job.pause");
}

static int cmd_resume(struct cli *cli, int argc, char **argv)
{
    return call_one(cli, argc, argv, "job.resume");
}

static int cmd_cancel(struct cli *cli, int argc, char **argv)
{
    return call_one(cli, argc, argv, "job.cancel");
}

/* "64M" or "none". */
static int cmd_limit(struct cli *cli, int argc, char **argv)
{
    uint64_t limit = 0;
    int n = opts_parse(cli, argc, argv, NULL, 2, 2);
    if (opts_failed(n))
        return opts_exit(n);
    if (strcmp(argv[2], "none") != 0 &&
        (!bytes_parse_size(argv[2], &limit) || !limit || limit > INT64_MAX))
        return cli_usage(cli, "'%s' is no limit: write a size, which is for a second, or none",
                         argv[2]);
    return cli_show(cli, "job.limit",
                    json_pack("{s:s, s:I}", "job", argv[1], "limit", (json_int_t)limit), NULL);
}

/* ---- wait ------------------------------------------------------------------------------------ */

#define WAIT_MS 30000 /* a call to the daemon */

static uint64_t now_ms(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static int wait_ended(const struct cli *cli, const json_t *job)
{
    char text[400];
    if (strcmp(json_text(job, "state"), "failed") == 0) {
        (void)snprintf(text, sizeof(text), "job %s failed: %s", json_text(job, "job"),
                       json_text(job, "error"));
        return cli_refuse(cli, "JOB_FAILED", text);
    }
    if (cli->json)
        cli_print_json(job);
    else
        printf("job %s is %s\n", json_text(job, "job"), json_text(job, "state"));
    return EXIT_DONE;
}

static int wait_late(const struct cli *cli, const json_t *job, uint64_t seconds)
{
    char text[200];
    (void)snprintf(text, sizeof(text),
                   "job %s has not ended after %llu s: it is %s, and %s of %s "
                   "are done",
                   json_text(job, "job"), (unsigned long long)seconds, json_text(job, "state"),
                   size_text(json_number(job, "done")), size_text(json_number(job, "total")));
    return cli_refuse(cli, "TIMED_OUT", text);
}

static void show_progress(const json_t *job)
{
    progress_show(&(struct progress){
        .phase = json_text(job, "state"),
        .done = json_number(job, "done"),
        .total = json_number(job, "total"),
        .rate = json_number(job, "rate"),
        .left_known = json_is_integer(json_object_get(job, "seconds_left")),
        .seconds_left = json_number(job, "seconds_left"),
    });
}

static int cmd_wait(struct cli *cli, int argc, char **argv)
{
    uint64_t seconds = 0;
    const struct opt opts[] = {{"timeout", 't', OPT_NUMBER, &seconds}, {0}};
    int n = opts_parse(cli, argc, argv, opts, 1, 1);
    if (opts_failed(n))
        return opts_exit(n);
    bool seen = progress_is_seen(cli);
    uint64_t look_ms = seen ? PROGRESS_MS : WAIT_MS;
    uint64_t deadline = seconds && seconds < UINT32_MAX ? now_ms() + seconds * 1000 : UINT64_MAX;
    for (;;) {
        json_t *job;
        uint64_t now = now_ms(), left = deadline > now ? deadline - now : 0;
        int rc = cli_call(cli, "job.wait",
                          json_pack("{s:s, s:I}", "job", argv[1], "wait_ms",
                                    (json_int_t)(left < look_ms ? left : look_ms)),
                          &job);
        if (rc)
            return rc;
        bool ended = !json_is_null(json_object_get(job, "ended"));
        bool late = !ended && now_ms() >= deadline;
        if (seen && (ended || late))
            progress_clear();
        else if (seen)
            show_progress(job);
        if (ended || late)
            rc = ended ? wait_ended(cli, job) : wait_late(cli, job, seconds);
        json_decref(job);
        if (ended || late)
            return rc;
    }
}

/* Of commands that begin alike, the longer ones come first. */
const struct command commands_jobs[] = {
    {"jobs pause", "POOL/N", "Stops a job until it is resumed, over restarts too.", cmd_pause},
    {"jobs resume", "POOL/N", "Lets a job that was paused go on.", cmd_resume},
    {"jobs limit", "POOL/N SIZE|none",
     "So much a second, on average: a job works in pieces. It holds over restarts.", cmd_limit},
    {"jobs wait", "POOL/N [-t SECONDS]",
     "Waits until a job has ended; exits with 1 when it failed or the time is over.\n"
     "  -t, --timeout SECONDS    no longer than this",
     cmd_wait},
    {"jobs cancel", "POOL/N", "Gives up a migration. No other job can be: the refusal says why.",
     cmd_cancel},
    {"jobs", "[POOL]",
     "Work in the background, of a pool or of all: how far, how fast, how long it still takes.",
     cmd_list},
    {0}};

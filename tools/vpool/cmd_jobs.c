/* Commands about jobs: long work in the background. */
#include "tools/vpool/cli.h"

#include <stdio.h>
#include <string.h>

/* ---- list ------------------------------------------------------------------------------------ */

static void add_progress(struct table *t, const json_t *j)
{
    uint64_t done = json_number(j, "done"), total = json_number(j, "total");
    if (!json_is_integer(json_object_get(j, "total")))
        table_add(t, "-");
    else
        table_add(t, "%d%% of %s", (int)((double)done * 100 / (double)total), size_text(total));
}

static void add_rate(struct table *t, const json_t *j)
{
    uint64_t rate = json_number(j, "rate");
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

static void print_jobs(const json_t *result)
{
    static const char *const headers[] = {"JOB",   "KIND",  "VOLUME", "STATE", ">DONE",
                                          ">RATE", ">LEFT", "ERROR",  NULL};
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
        table_add(&t, "%s", json_text(j, "volume"));
        table_add(&t, "%s", json_text(j, "state"));
        add_progress(&t, j);
        add_rate(&t, j);
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

/* Of commands that begin alike, the longer ones come first. */
const struct command commands_jobs[] = {
    {"jobs", "[POOL]",
     "Work in the background, of a pool or of all: how far, how fast, how long it still takes.",
     cmd_list},
    {0}};

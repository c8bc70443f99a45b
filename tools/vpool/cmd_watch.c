/* Commands that look over time: events, iostat; and the daemon's own. */
#include "base/figure.h"
#include "tools/vpool/cli.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* ---- events ---------------------------------------------------------------------------------- */

static void print_event(const struct cli *cli, const json_t *e)
{
    if (cli->json) {
        json_dumpf(e, stdout, JSON_COMPACT);
        putchar('\n');
        return;
    }
    char when[WHEN_TEXT];
    printf("%s  %-5s  %-20s  %s: %s\n", when_text(e, "time", when), json_text(e, "level"),
           json_text(e, "kind"), json_text(e, "subject"), json_text(e, "text"));
}

static int cmd_events(struct cli *cli, int argc, char **argv)
{
    bool follow = false;
    uint64_t since = 0;
    const struct opt opts[] = {
        {"follow", 'f', OPT_FLAG, &follow}, {"since", 0, OPT_NUMBER, &since}, {0}};
    int n = opts_parse(cli, argc, argv, opts, 0, 0);
    if (opts_failed(n))
        return opts_exit(n);
    if (!follow && cli->json)
        return cli_show(cli, "events", json_pack("{s:I}", "since", (json_int_t)since), NULL);
    do {
        json_t *result;
        int rc = cli_call(
            cli, "events",
            json_pack("{s:I, s:i}", "since", (json_int_t)since, "wait_ms", follow ? 30000 : 0),
            &result);
        if (rc)
            return rc;
        if (json_number(result, "lost"))
            fprintf(stderr, "vpool: %llu older events are no longer kept\n",
                    (unsigned long long)json_number(result, "lost"));
        size_t i;
        const json_t *e;
        json_array_foreach(json_object_get(result, "events"), i, e) print_event(cli, e);
        since = json_number(result, "last");
        json_decref(result);
        if (fflush(stdout))
            return EXIT_REFUSED;
    } while (follow);
    return EXIT_DONE;
}

/* ---- iostat ---------------------------------------------------------------------------------- */

/* The entry of `list` with the same `key` text as `like`. */
static const json_t *find_same(const json_t *list, const json_t *like, const char *key)
{
    size_t i;
    const json_t *e;
    json_array_foreach(list, i,
                       e) if (strcmp(json_text(e, key), json_text(like, key)) == 0) return e;
    return NULL;
}

struct interval {
    double seconds; /* 0: totals since the start */
};

/* How many requests of a kind: attachments count them by their latencies alone. */
static uint64_t count_of(const json_t *row, const char *counter, const char *latency)
{
    return json_object_get(row, counter) ? json_number(row, counter)
                                         : json_number(json_object_get(row, latency), "count");
}

static void add_rate(struct table *t, const struct interval *iv, uint64_t v, uint64_t was,
                     bool size)
{
    double d = v >= was ? (double)(v - was) : (double)v;
    if (iv->seconds > 0)
        d /= iv->seconds;
    if (size)
        table_add_size(t, (uint64_t)d);
    else
        table_add(t, "%.0f", d);
}

/* The buckets of a latency, as `iostat` has them. */
static void histogram_of(const json_t *latency, struct histogram *h)
{
    size_t i;
    const json_t *e;
    *h = (struct histogram){0};
    json_array_foreach(json_object_get(latency, "buckets"), i, e) figure_add(
        &h->bucket[histogram_bucket_of((uint64_t)json_integer_value(json_array_get(e, 0)))],
        (uint64_t)json_integer_value(json_array_get(e, 1)));
}

/* What came to `h` since `before`; all of it, when the daemon began anew in between. */
static void histogram_since(struct histogram *h, const struct histogram *before)
{
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
        if (figure_get(&before->bucket[i]) > figure_get(&h->bucket[i]))
            return;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
        figure_put(&h->bucket[i], figure_get(&h->bucket[i]) - figure_get(&before->bucket[i]));
}

static void add_duration(struct table *t, uint64_t ns)
{
    if (ns < 1000)
        table_add(t, "<1us");
    else if (ns < 10000000)
        table_add(t, "%" PRIu64 "us", ns / 1000);
    else
        table_add(t, "%" PRIu64 "ms", ns / 1000000);
}

static void add_latency(struct table *t, const json_t *now, const json_t *before, const char *key)
{
    struct histogram h, was;
    histogram_of(json_object_get(now, key), &h);
    histogram_of(json_object_get(before, key), &was);
    histogram_since(&h, &was);
    for (unsigned i = 0; i < 2; i++)
        if (histogram_count(&h))
            add_duration(t, histogram_permille_ns(&h, i == 0 ? 500 : 990));
        else
            table_add(t, "-");
}

static void add_rows(struct table *t, const struct interval *iv, const json_t *now,
                     const json_t *before, const char *pool, const char *key)
{
    static const char *const counters[] = {"reads", "writes", "flushes"};
    static const char *const latencies[] = {"read_latency", "write_latency", "flush_latency"};
    size_t i;
    const json_t *e;
    json_array_foreach(now, i, e)
    {
        const json_t *was = find_same(before, e, key);
        if (strcmp(key, "name") == 0)
            table_add(t, "%s/%s", pool, json_text(e, key));
        else
            table_add(t, "%s", json_text(e, key));
        for (unsigned k = 0; k < 3; k++)
            add_rate(t, iv, count_of(e, counters[k], latencies[k]),
                     count_of(was, counters[k], latencies[k]), false);
        add_rate(t, iv, json_number(e, "bytes_read"), json_number(was, "bytes_read"), true);
        add_rate(t, iv, json_number(e, "bytes_written"), json_number(was, "bytes_written"), true);
        add_latency(t, e, was, "read_latency");
        add_latency(t, e, was, "write_latency");
    }
}

static void print_iostat(const json_t *now, const json_t *before)
{
    const char *const headers[] = {before ? "PER SECOND" : "SINCE START",
                                   ">READS",
                                   ">WRITES",
                                   ">FLUSHES",
                                   ">READ",
                                   ">WRITTEN",
                                   ">READ P50",
                                   ">P99",
                                   ">WRITE P50",
                                   ">P99",
                                   NULL};
    struct interval iv = {0};
    if (before)
        iv.seconds = (double)(json_number(now, "time_ns") - json_number(before, "time_ns")) / 1e9;
    struct table t;
    table_init(&t, "", headers);
    size_t i;
    const json_t *p;
    json_array_foreach(json_object_get(now, "pools"), i, p)
    {
        const json_t *was = find_same(json_object_get(before, "pools"), p, "name");
        add_rows(&t, &iv, json_object_get(p, "disks"), json_object_get(was, "disks"),
                 json_text(p, "name"), "path");
        add_rows(&t, &iv, json_object_get(p, "volumes"), json_object_get(was, "volumes"),
                 json_text(p, "name"), "name");
        add_rows(&t, &iv, json_object_get(p, "attachments"), json_object_get(was, "attachments"),
                 json_text(p, "name"), "address");
    }
    table_print(&t);
}

static int iostat_loop(struct cli *cli, const char *pool, uint64_t seconds, uint64_t count)
{
    json_t *before = NULL;
    int rc;
    for (uint64_t i = 0;; i++) {
        json_t *now;
        rc = cli_call(cli, "iostat", json_pack("{s:s*, s:b}", "pool", pool, "buckets", !cli->json),
                      &now);
        if (rc)
            break;
        if (cli->json) {
            json_dumpf(now, stdout, JSON_COMPACT);
            putchar('\n');
        } else {
            print_iostat(now, before);
        }
        json_decref(before);
        before = now;
        if (fflush(stdout) || seconds == 0 || (count && i + 1 >= count))
            break;
        struct timespec wait = {.tv_sec = (time_t)seconds};
        nanosleep(&wait, NULL);
    }
    json_decref(before);
    return rc;
}

static int cmd_iostat(struct cli *cli, int argc, char **argv)
{
    uint64_t seconds = 0, count = 0;
    const struct opt opts[] = {
        {"interval", 'i', OPT_NUMBER, &seconds}, {"count", 'c', OPT_NUMBER, &count}, {0}};
    int n = opts_parse(cli, argc, argv, opts, 0, 1);
    if (opts_failed(n))
        return opts_exit(n);
    return iostat_loop(cli, n ? argv[1] : NULL, seconds, count);
}

/* ---- the daemon ------------------------------------------------------------------------------ */

static int cmd_info(struct cli *cli, int argc, char **argv)
{
    bool stats = false;
    const struct opt opts[] = {{"stats", 0, OPT_FLAG, &stats}, {0}};
    int n = opts_parse(cli, argc, argv, opts, 0, 0);
    if (opts_failed(n))
        return opts_exit(n);
    return cli_show(cli, stats ? "daemon.stats" : "daemon.info", json_object(), cli_print_json);
}

static int cmd_log_level(struct cli *cli, int argc, char **argv)
{
    int n = opts_parse(cli, argc, argv, NULL, 1, 1);
    if (opts_failed(n))
        return opts_exit(n);
    return cli_show(cli, "daemon.log-level", json_pack("{s:s}", "level", argv[1]), NULL);
}

/* ---- doctor --------------------------------------------------------------------------------- */

static void print_findings(const json_t *findings)
{
    size_t i;
    const json_t *f;
    if (json_array_size(findings) == 0)
        puts("nothing is open");
    json_array_foreach(findings, i, f)
        printf("%s: %s\n  → %s\n    %s\n", json_text(f, "subject"), json_text(f, "text"),
               json_text(f, "action"), json_text(f, "command"));
}

static int cmd_doctor(struct cli *cli, int argc, char **argv)
{
    const char *forget = NULL;
    const struct opt opts[] = {{"forget", 0, OPT_TEXT, &forget}, {0}};
    int n = opts_parse(cli, argc, argv, opts, 0, 0);
    if (opts_failed(n))
        return opts_exit(n);
    if (forget)
        return cli_show(cli, "doctor.forget", json_pack("{s:s}", "pool", forget), NULL);
    json_t *result;
    int rc = cli_call(cli, "doctor", NULL, &result);
    if (rc)
        return rc;
    const json_t *findings = json_object_get(result, "findings");
    if (cli->json)
        cli_print_json(result);
    else
        print_findings(findings);
    rc = json_array_size(findings) ? EXIT_ATTENTION : EXIT_DONE;
    json_decref(result);
    return rc;
}

const struct command commands_watch[] = {
    {"events", "[-f] [--since N]",
     "What has happened.\n"
     "  -f, --follow     wait for more, until interrupted\n"
     "  --since N        only events after number N",
     cmd_events},
    {"doctor", "[--forget UUID]",
     "What needs attention, each finding with the command that helps. Exits with 3 if any.\n"
     "  --forget UUID    frees what a killed daemon kept in memory for this pool",
     cmd_doctor},
    {"iostat", "[-i SECONDS] [-c COUNT] [POOL]",
     "Requests, bytes and latencies (median, 99th percentile) of disks, volumes and\n"
     "attachments.\n"
     "  -i SECONDS       again every so often, as rates after the first table\n"
     "  -c COUNT         so many tables",
     cmd_iostat},
    {"info", "[--stats]", "The daemon: version, reactors, io_uring features; its figures.",
     cmd_info},
    {"log-level", "error|warn|info|debug", "Changes what the daemon logs, until it ends.",
     cmd_log_level},
    {0}};

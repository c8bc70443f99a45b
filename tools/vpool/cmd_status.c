/* `vpool status`: everything that an operator asks first, on one screen a pool. */
#include "tools/vpool/cli.h"

#include <stdio.h>
#include <string.h>

static void print_space(const json_t *pool)
{
    const json_t *s = json_object_get(pool, "space");
    uint64_t total = json_number(s, "total_bytes"), used = json_number(s, "data_bytes");
    uint64_t meta = json_number(s, "metadata_bytes"), left = json_number(s, "free_bytes");
    uint64_t percent = total ? (used + meta) * 100 / total : 0;
    printf("  space     %s (%d%% used): %s total = %s data + %s metadata + %s free (%s of it "
           "reserved for metadata)\n",
           json_text(pool, "level"), (int)percent, size_text(total), size_text(used),
           size_text(meta), size_text(left), size_text(json_number(s, "reserved_bytes")));
    printf("            %s can still be written by volumes of the default redundancy, %s\n",
           size_text(json_number(s, "writable_bytes")), json_text(pool, "raid"));
    printf("  volumes   %d, %s provisioned, %s allocated, %s hold data\n",
           (int)json_number(json_object_get(pool, "volumes"), "count"),
           size_text(json_number(s, "provisioned_bytes")),
           size_text(json_number(s, "allocated_bytes")), size_text(json_number(s, "valid_bytes")));
}

/* "rebuilding 45%" */
static void add_state(struct table *t, const json_t *d)
{
    const json_t *rebuild = json_object_get(d, "rebuild");
    uint64_t total = json_number(rebuild, "total");
    if (total)
        table_add(t, "%s %d%%", json_text(d, "state"),
                  (int)((double)json_number(rebuild, "done") * 100 / (double)total));
    else
        table_add(t, "%s", json_text(d, "state"));
}

static void print_disks(const json_t *disks)
{
    static const char *const headers[] = {">N",      "DISK",      "STATE",   ">SIZE", ">USED",
                                          ">ERRORS", ">CHECKSUM", ">HEALED", NULL};
    struct table t;
    table_init(&t, "    ", headers);
    size_t i;
    const json_t *d;
    json_array_foreach(disks, i, d)
    {
        const json_t *c = json_object_get(d, "counters");
        uint64_t total = json_number(d, "extents_total");
        const char *path = json_text(d, "path");
        table_add(&t, "%d", (int)json_number(d, "index"));
        table_add(&t, path[0] ? "%s" : "(%s)", path[0] ? path : json_text(d, "last_path"));
        add_state(&t, d);
        table_add_size(&t, json_number(d, "size_bytes"));
        table_add(&t, "%d%%", total ? (int)(json_number(d, "extents_used") * 100 / total) : 0);
        table_add(
            &t, "%llu",
            (unsigned long long)(json_number(c, "read_errors") + json_number(c, "write_errors")));
        table_add(&t, "%llu", (unsigned long long)json_number(c, "checksum_errors"));
        table_add(&t, "%llu", (unsigned long long)json_number(c, "healed_blocks"));
    }
    table_print(&t);
}

static void print_warnings(const json_t *warnings)
{
    size_t i;
    const json_t *w;
    if (json_array_size(warnings) == 0)
        puts("  nothing to worry about");
    json_array_foreach(warnings, i, w)
        printf("  warning   %s\n            → %s\n", json_text(w, "text"), json_text(w, "action"));
}

static void print_unavailable(const json_t *p)
{
    printf("pool %s: unavailable\n  error     %s\n", json_text(p, "name"), json_text(p, "error"));
    size_t i;
    const json_t *path;
    json_array_foreach(json_object_get(p, "paths"), i, path)
        printf("  %s %s\n", i ? "         " : "last seen", json_string_value(path));
    printf(
        "            → bring its disks back and `vpool import %s`, or `vpool export %s` to forget "
        "it\n",
        json_text(p, "name"), json_text(p, "name"));
}

static void print_spares(const json_t *list)
{
    size_t i;
    const json_t *s;
    json_array_foreach(list, i, s)
        printf("  spare     %s%s\n", json_text(s, "path"),
               json_is_true(json_object_get(s, "usable")) ? "" : ", which cannot be used");
}

static void print_risk(const json_t *r)
{
    int survives = (int)json_number(r, "survives");
    uint64_t degraded = json_number(r, "degraded_bytes"), lost = json_number(r, "lost_bytes");
    if (survives)
        printf("  survives  the loss of any %d disk%s", survives, survives == 1 ? "" : "s");
    else
        printf("  survives  no loss of a disk without a loss of data");
    if (degraded)
        printf("; %s lack a copy", size_text(degraded));
    if (lost)
        printf("; of %s no copy is in service", size_text(lost));
    puts("");
}

/* Of the last scrub, if there was one. */
static void print_scrub(const json_t *s)
{
    const char *state = json_text(s, "state");
    char when[WHEN_TEXT];
    if (!state[0] || strcmp(state, "none") == 0)
        return;
    printf("  scrub     %s%s%s; %s compared", state, json_text(s, "job")[0] ? ", job " : "",
           json_text(s, "job"), size_text(json_number(s, "compared_bytes")));
    printf("; %llu blocks healed", (unsigned long long)json_number(s, "healed_blocks"));
    if (json_number(s, "ended"))
        printf("; ended %s", when_text(s, "ended", when));
    puts("");
}

static void print_pool(const json_t *p)
{
    if (!json_object_get(p, "space")) {
        print_unavailable(p);
        return;
    }
    printf("pool %s: %s\n", json_text(p, "name"), json_text(p, "state"));
    if (json_array_size(json_object_get(p, "health")))
        printf("  health    %s\n", json_health(p));
    printf("  default   %s, chunks of %s; %s\n", json_text(p, "raid"),
           size_text(json_number(p, "chunk_bytes")), json_text(p, "uuid"));
    print_space(p);
    printf("  exports   %s\n", count_text(json_number(p, "attachments"), "attachment"));
    print_risk(json_object_get(p, "risk"));
    print_scrub(json_object_get(p, "scrub"));
    puts("  disks");
    print_disks(json_object_get(p, "disks"));
    print_spares(json_object_get(p, "spares"));
    print_warnings(json_object_get(p, "warnings"));
}

/* The status of every pool of the list, or of one. */
static int collect(struct cli *cli, const char *only, json_t *out)
{
    json_t *list = NULL, *status;
    int rc = only ? EXIT_DONE : cli_call(cli, "pool.list", NULL, &list);
    size_t count = only ? 1 : json_array_size(json_object_get(list, "pools"));
    for (size_t i = 0; i < count && rc == EXIT_DONE; i++) {
        const char *name =
            only ? only : json_text(json_array_get(json_object_get(list, "pools"), i), "uuid");
        rc = cli_call(cli, "pool.status", json_pack("{s:s}", "pool", name), &status);
        if (rc == EXIT_DONE && json_array_append_new(out, status))
            rc = cli_refuse(cli, "NO_MEMORY", "out of memory");
    }
    json_decref(list);
    return rc;
}

int cmd_status(struct cli *cli, int argc, char **argv);

/* What -x shows of a pool. */
static void print_attention(const json_t *p)
{
    if (!json_object_get(p, "space")) {
        print_unavailable(p);
        return;
    }
    printf("pool %s: %s; %s\n", json_text(p, "name"), json_text(p, "state"), json_health(p));
    print_warnings(json_object_get(p, "warnings"));
}

/* Removes pools that are well; whether any is left. */
static bool keep_those_in_need(json_t *pools)
{
    for (size_t i = json_array_size(pools); i-- > 0;)
        if (json_array_size(json_object_get(json_array_get(pools, i), "health")) == 0)
            (void)json_array_remove(pools, i);
    return json_array_size(pools);
}

int cmd_status(struct cli *cli, int argc, char **argv)
{
    bool only_needy = false;
    const struct opt opts[] = {{"attention", 'x', OPT_FLAG, &only_needy}, {0}};
    int n = opts_parse(cli, argc, argv, opts, 0, 1);
    if (opts_failed(n))
        return opts_exit(n);
    json_t *pools = json_array();
    int rc = collect(cli, n ? argv[1] : NULL, pools);
    size_t i;
    const json_t *p;
    bool attention = only_needy && rc == EXIT_DONE && keep_those_in_need(pools);
    if (rc == EXIT_DONE && cli->json) {
        json_t *result = json_pack("{s:O}", "pools", pools);
        cli_print_json(result);
        json_decref(result);
    } else if (rc == EXIT_DONE) {
        if (json_array_size(pools) == 0 && !only_needy)
            puts("no pools: `vpool create` makes one, `vpool scan` looks for some to import");
        json_array_foreach(pools, i, p) only_needy ? print_attention(p) : print_pool(p);
    }
    json_decref(pools);
    return attention ? EXIT_ATTENTION : rc;
}

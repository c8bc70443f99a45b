/* Commands about pools. */
#include "tools/vpool/cli.h"

#include <stdio.h>
#include <string.h>

/* ---- create --------------------------------------------------------------------------------- */

static void print_pool_warnings(const json_t *pool)
{
    size_t i;
    const json_t *w;
    json_array_foreach(json_object_get(pool, "warnings"), i, w)
        fprintf(stderr, "vpool: %s; %s\n", json_text(w, "text"), json_text(w, "action"));
}

static void print_created(const json_t *pool)
{
    printf("pool %s: %s, %s for volumes of the default redundancy, %s\n", json_text(pool, "name"),
           count_text(json_array_size(json_object_get(pool, "disks")), "disk"),
           size_text(json_number(json_object_get(pool, "space"), "writable_bytes")),
           json_text(pool, "raid"));
    print_pool_warnings(pool);
}

static int cmd_create(struct cli *cli, int argc, char **argv)
{
    const char *raid = NULL;
    uint64_t size = SIZE_NOT_GIVEN;
    json_t *options = NULL;
    bool force = false;
    const struct opt opts[] = {{"raid", 'r', OPT_TEXT, &raid},
                               {"size", 0, OPT_SIZE, &size},
                               {"option", 'o', OPT_LIST, &options},
                               {"force", 0, OPT_FLAG, &force},
                               {0}};
    int n = opts_parse(cli, argc, argv, opts, 2, -1);
    if (opts_failed(n) || size == 0) {
        json_decref(options);
        return opts_failed(n) ? opts_exit(n)
                              : cli_usage(cli, "--size 0: a disk needs room for its labels");
    }
    json_t *params = json_pack("{s:s, s:s*, s:I, s:o, s:b, s:o*}", "pool", argv[1], "raid", raid,
                               "size", (json_int_t)(size == SIZE_NOT_GIVEN ? 0 : size), "disks",
                               cli_paths(argv + 2, n - 1), "force", force, "options", options);
    return cli_show(cli, "pool.create", params, print_created);
}

/* ---- list ---------------------------------------------------------------------------------------
 */

static void print_list(const json_t *result)
{
    static const char *const headers[] = {"NAME",     "STATE",     "SPACE",  ">TOTAL",
                                          ">FREE",    ">WRITABLE", ">DISKS", "RAID",
                                          ">VOLUMES", "HEALTH",    NULL};
    const json_t *pools = json_object_get(result, "pools");
    if (json_array_size(pools) == 0) {
        puts("no pools: `vpool create` makes one, `vpool scan` looks for some to import");
        return;
    }
    struct table t;
    table_init(&t, "", headers);
    size_t i;
    const json_t *p;
    json_array_foreach(pools, i, p)
    {
        const json_t *space = json_object_get(p, "space");
        table_add(&t, "%s", json_text(p, "name"));
        table_add(&t, "%s", json_text(p, "state"));
        table_add(&t, "%s", space ? json_text(p, "level") : "-");
        table_add(&t, "%s", space ? size_text(json_number(space, "total_bytes")) : "-");
        table_add(&t, "%s", space ? size_text(json_number(space, "free_bytes")) : "-");
        table_add(&t, "%s", space ? size_text(json_number(space, "writable_bytes")) : "-");
        table_add(&t, "%d", (int)json_number(p, "disks"));
        table_add(&t, "%s", space ? json_text(p, "raid") : "-");
        table_add(&t, "%d", (int)json_number(p, "volumes"));
        table_add(&t, "%s", json_health(p));
    }
    table_print(&t);
}

static int cmd_list(struct cli *cli, int argc, char **argv)
{
    int n = opts_parse(cli, argc, argv, NULL, 0, 0);
    return opts_failed(n) ? opts_exit(n) : cli_show(cli, "pool.list", json_object(), print_list);
}

/* ---- destroy, export ------------------------------------------------------------------------- */

static void print_destroyed(const json_t *r)
{
    bool dry = json_is_true(json_object_get(r, "dry_run"));
    printf("%s pool %s with %s holding %s\n", dry ? "would destroy" : "destroyed",
           json_text(r, "pool"), count_text(json_number(r, "volumes"), "volume"),
           size_text(json_number(json_object_get(r, "space"), "valid_bytes")));
}

static int cmd_destroy(struct cli *cli, int argc, char **argv)
{
    bool dry_run = false;
    const struct opt opts[] = {{"dry-run", 'n', OPT_FLAG, &dry_run}, {0}};
    int n = opts_parse(cli, argc, argv, opts, 1, 1);
    if (opts_failed(n))
        return opts_exit(n);
    return cli_show(cli, "pool.destroy",
                    json_pack("{s:s, s:b}", "pool", argv[1], "dry_run", dry_run), print_destroyed);
}

static void print_exported(const json_t *r)
{
    printf("%s pool %s\n", json_is_true(json_object_get(r, "was_open")) ? "exported" : "forgot",
           json_text(r, "pool"));
}

static int cmd_export(struct cli *cli, int argc, char **argv)
{
    bool force = false;
    const struct opt opts[] = {{"force", 'f', OPT_FLAG, &force}, {0}};
    int n = opts_parse(cli, argc, argv, opts, 1, 1);
    if (opts_failed(n))
        return opts_exit(n);
    return cli_show(cli, "pool.export", json_pack("{s:s, s:b}", "pool", argv[1], "force", force),
                    print_exported);
}

/* ---- scan, import ---------------------------------------------------------------------------- */

static void print_found(const json_t *result)
{
    static const char *const headers[] = {"NAME", "UUID", ">DISKS", "STATE", "WHERE", NULL};
    const json_t *pools = json_object_get(result, "pools");
    if (json_array_size(pools) == 0) {
        puts("no pools found; name disks or directories to look at");
        return;
    }
    struct table t;
    table_init(&t, "", headers);
    size_t i;
    const json_t *p;
    json_array_foreach(pools, i, p)
    {
        const json_t *paths = json_object_get(p, "paths");
        const char *first = json_string_value(json_array_get(paths, 0));
        table_add(&t, "%s", json_text(p, "name"));
        table_add(&t, "%s", json_text(p, "uuid"));
        table_add(&t, "%d of %d", (int)json_number(p, "disks_found"),
                  (int)json_number(p, "disks_total"));
        table_add(&t, "%s", json_is_true(json_object_get(p, "open")) ? "open" : "can be imported");
        table_add(&t, "%s%s", first ? first : "", json_array_size(paths) > 1 ? " …" : "");
    }
    table_print(&t);
}

static int cmd_scan(struct cli *cli, int argc, char **argv)
{
    int n = opts_parse(cli, argc, argv, NULL, 0, -1);
    if (opts_failed(n))
        return opts_exit(n);
    return cli_show(cli, "pool.scan", json_pack("{s:o}", "paths", cli_paths(argv + 1, n)),
                    print_found);
}

static void print_imported(const json_t *result)
{
    size_t i;
    const json_t *p;
    json_array_foreach(json_object_get(result, "imported"), i, p)
    {
        printf("imported pool %s: %s, %s, %s\n", json_text(p, "name"), json_text(p, "state"),
               count_text(json_number(p, "volumes"), "volume"),
               count_text(json_number(p, "attachments"), "attachment"));
        print_pool_warnings(p);
    }
    json_array_foreach(json_object_get(result, "failed"), i, p)
        fprintf(stderr, "vpool: pool %s: %s\n", json_text(p, "name"), json_text(p, "error"));
    if (json_array_size(json_object_get(result, "imported")) +
            json_array_size(json_object_get(result, "failed")) ==
        0)
        puts("nothing to import");
}

/* -d DIR|DISK, made absolute. */
static json_t *absolute_list(json_t *given)
{
    json_t *list = json_array();
    size_t i;
    const json_t *path;
    json_array_foreach(given, i, path)
    {
        char *text = (char *)(uintptr_t)json_string_value(path);
        json_t *one = cli_paths(&text, 1);
        if (one && json_array_extend(list, one) == 0) {
            json_decref(one);
            continue;
        }
        json_decref(one);
        json_decref(list);
        list = NULL;
        break;
    }
    json_decref(given);
    return list;
}

static int cmd_import(struct cli *cli, int argc, char **argv)
{
    bool all = false, degraded = false;
    json_t *dirs = NULL;
    const struct opt opts[] = {{"all", 'a', OPT_FLAG, &all},
                               {"degraded", 0, OPT_FLAG, &degraded},
                               {"dir", 'd', OPT_LIST, &dirs},
                               {0}};
    int n = opts_parse(cli, argc, argv, opts, 0, 1);
    if (opts_failed(n) || all == (n == 1)) {
        json_decref(dirs);
        return opts_failed(n) ? opts_exit(n) : cli_usage(cli, "name a pool, or give --all");
    }
    json_t *params = json_pack("{s:s*, s:b, s:b, s:o}", "pool", n ? argv[1] : NULL, "all", all,
                               "degraded", degraded, "paths", absolute_list(dirs));
    json_t *result;
    int rc = cli_call(cli, "pool.import", params, &result);
    if (rc)
        return rc;
    if (cli->json)
        cli_print_json(result);
    else
        print_imported(result);
    rc = json_array_size(json_object_get(result, "failed")) ? EXIT_REFUSED : EXIT_DONE;
    json_decref(result);
    return rc;
}

/* ---- get, set, checkpoint -------------------------------------------------------------------- */

static void print_value(const json_t *v)
{
    if (json_is_string(v))
        puts(json_string_value(v));
    else if (json_is_boolean(v))
        puts(json_is_true(v) ? "on" : "off");
    else
        printf("%lld\n", (long long)json_integer_value(v));
}

static int print_property(struct cli *cli, const json_t *all, const char *key)
{
    const json_t *value = json_object_get(all, key);
    if (!value) {
        char text[160];
        (void)snprintf(text, sizeof(text),
                       "no property '%.60s': `vpool get` without a key lists all", key);
        return cli_refuse(cli, "NOT_FOUND", text);
    }
    if (cli->json) {
        json_t *one = json_pack("{s:O}", key, value);
        cli_print_json(one);
        json_decref(one);
    } else {
        print_value(value);
    }
    return EXIT_DONE;
}

static void print_properties(const json_t *all)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)all, key, value)
    {
        printf("%-12s ", key);
        print_value(value);
    }
}

static int cmd_get(struct cli *cli, int argc, char **argv)
{
    int n = opts_parse(cli, argc, argv, NULL, 1, 2);
    if (opts_failed(n))
        return opts_exit(n);
    bool volume = strchr(argv[1], '/');
    json_t *params = json_pack("{s:s}", volume ? "volume" : "pool", argv[1]);
    const char *method = volume ? "volume.get" : "pool.get";
    if (n == 1)
        return cli_show(cli, method, params, print_properties);
    json_t *all;
    int rc = cli_call(cli, method, params, &all);
    if (rc)
        return rc;
    rc = print_property(cli, all, argv[2]);
    json_decref(all);
    return rc;
}

static int cmd_set(struct cli *cli, int argc, char **argv)
{
    int n = opts_parse(cli, argc, argv, NULL, 2, 2);
    if (opts_failed(n))
        return opts_exit(n);
    char *equals = strchr(argv[2], '=');
    if (!equals || equals == argv[2])
        return cli_usage(cli, "'%s' is not KEY=VALUE", argv[2]);
    *equals = 0;
    bool volume = strchr(argv[1], '/');
    return cli_show(cli, volume ? "volume.set" : "pool.set",
                    json_pack("{s:s, s:s, s:s}", volume ? "volume" : "pool", argv[1], "key",
                              argv[2], "value", equals + 1),
                    NULL);
}

static int cmd_checkpoint(struct cli *cli, int argc, char **argv)
{
    int n = opts_parse(cli, argc, argv, NULL, 1, 1);
    if (opts_failed(n))
        return opts_exit(n);
    return cli_show(cli, "pool.checkpoint", json_pack("{s:s}", "pool", argv[1]), NULL);
}

static int cmd_clear(struct cli *cli, int argc, char **argv)
{
    int n = opts_parse(cli, argc, argv, NULL, 1, 1);
    if (opts_failed(n))
        return opts_exit(n);
    return cli_show(cli, "pool.clear", json_pack("{s:s}", "pool", argv[1]), NULL);
}

int cmd_status(struct cli *cli, int argc, char **argv);

const struct command commands_pool[] = {
    {"create", "POOL [--raid PROFILE] [--size BYTES] [-o KEY=VALUE]… [--force] DISK…",
     "Makes a pool of block devices or files.\n"
     "  --raid PROFILE   default redundancy of its volumes: single, mirror, mirror:N (N up to 5);\n"
     "                   single when it is not given: nothing survives a disk that fails\n"
     "  --size BYTES     DISKs that are missing are created as sparse files of this size\n"
     "  -o KEY=VALUE     chunk=64K, extent=64M, log-segment=256K, comment=TEXT\n"
     "  --force          overwrite a device that holds something else",
     cmd_create},
    {"list", "", "All pools, one a line.", cmd_list},
    {"status", "[-x] [POOL]",
     "State, disks, space, warnings and what to do about them.\n"
     "  -x, --attention  only what needs attention; exits with 3 then, with 0 when all is well",
     cmd_status},
    {"destroy", "POOL [--dry-run]",
     "Ends a pool and all its data for good.\n"
     "  -n, --dry-run    only say what would be lost\n"
     "Refused while volumes are attached.",
     cmd_destroy},
    {"import", "POOL|--all [--degraded] [-d DIR|DISK]…",
     "Opens a pool from its disks.\n"
     "  -a, --all        every pool that is found\n"
     "  -d DIR|DISK      where to look, instead of the directories of vpoold.conf\n"
     "      --degraded   also with fewer than half of its disks: the others are lost, and are out\n"
     "                   of service from now on",
     cmd_import},
    {"export", "POOL [--force]",
     "Closes a pool, so that another host may import it. Its attachments end, and come back with\n"
     "the import.\n"
     "  -f, --force      also when clients use them: they then see errors",
     cmd_export},
    {"scan", "[DIR|DISK]…", "Pools that could be imported.", cmd_scan},
    {"get", "POOL[/VOL] [KEY]", "Properties of a pool or a volume.", cmd_get},
    {"set", "POOL[/VOL] KEY=VALUE",
     "Changes a property.\n"
     "A volume has full-policy=pause|enospc, zero-detect=on|off, sync=standard|always,\n"
     "read-only=on|off, reserve=BYTES; a pool has comment=TEXT.",
     cmd_set},
    {"checkpoint", "POOL", "Writes a metadata checkpoint now.", cmd_checkpoint},
    {"clear", "POOL", "Starts the error counters of the pool's disks and volumes again from zero.",
     cmd_clear},
    {0}};

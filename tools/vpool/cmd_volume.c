/* Commands about volumes. */
#include "tools/vpool/cli.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static bool size_is_possible(uint64_t size)
{
    return size != SIZE_NOT_GIVEN && size != 0;
}

static int refuse_size(const struct cli *cli, uint64_t size)
{
    return size ? cli_usage(cli, "--size is missing")
                : cli_usage(cli, "--size 0: a volume has at least one sector");
}

/* ---- create ------------------------------------------------------------------------------------
 */

static void print_created(const json_t *v)
{
    printf("volume %s/%s: %s, %s\n", json_text(v, "pool"), json_text(v, "name"),
           size_text(json_number(v, "size_bytes")),
           json_text(json_object_get(v, "options"), "raid"));
}

static int cmd_create(struct cli *cli, int argc, char **argv)
{
    uint64_t size = SIZE_NOT_GIVEN;
    const char *raid = NULL;
    json_t *options = NULL;
    const struct opt opts[] = {{"size", 0, OPT_SIZE, &size},
                               {"raid", 'r', OPT_TEXT, &raid},
                               {"option", 'o', OPT_LIST, &options},
                               {0}};
    int n = opts_parse(cli, argc, argv, opts, 1, 1);
    if (opts_failed(n) || !size_is_possible(size)) {
        json_decref(options);
        return opts_failed(n) ? opts_exit(n) : refuse_size(cli, size);
    }
    return cli_show(cli, "volume.create",
                    json_pack("{s:s, s:I, s:s*, s:o*}", "volume", argv[1], "size", (json_int_t)size,
                              "raid", raid, "options", options),
                    print_created);
}

/* ---- list ---------------------------------------------------------------------------------------
 */

/* All pages of a pool's volumes, appended to `out`. */
static int list_pool(struct cli *cli, const char *pool, json_t *out)
{
    json_t *after = NULL;
    int rc;
    do {
        json_t *page;
        rc = cli_call(cli, "volume.list", json_pack("{s:s, s:o*}", "pool", pool, "after", after),
                      &page);
        if (rc)
            return rc;
        after = json_incref(json_object_get(page, "next"));
        if (json_array_extend(out, json_object_get(page, "volumes")))
            rc = cli_refuse(cli, "NO_MEMORY", "out of memory");
        json_decref(page);
    } while (rc == EXIT_DONE && json_is_string(after));
    if (rc == EXIT_DONE)
        json_decref(after);
    return rc;
}

static int list_all(struct cli *cli, json_t *out)
{
    json_t *pools;
    int rc = cli_call(cli, "pool.list", NULL, &pools);
    if (rc)
        return rc;
    size_t i;
    const json_t *p;
    json_array_foreach(json_object_get(pools, "pools"), i,
                       p) if (rc == EXIT_DONE && json_object_get(p, "space")) rc =
        list_pool(cli, json_text(p, "name"), out);
    json_decref(pools);
    return rc;
}

static void print_list(const json_t *volumes)
{
    static const char *const headers[] = {"NAME",  "STATE", "HEALTH", ">SIZE", ">ALLOCATED",
                                          ">DATA", "RAID",  "USE",    NULL};
    struct table t;
    table_init(&t, "", headers);
    size_t i;
    const json_t *v;
    json_array_foreach(volumes, i, v)
    {
        table_add(&t, "%s/%s", json_text(v, "pool"), json_text(v, "name"));
        table_add(&t, "%s", json_text(v, "state"));
        table_add(&t, "%s", json_health(v));
        table_add_size(&t, json_number(v, "size_bytes"));
        table_add_size(&t, json_number(v, "allocated_bytes"));
        table_add_size(&t, json_number(v, "valid_bytes"));
        table_add(&t, "%s", json_text(json_object_get(v, "options"), "raid"));
        table_add(&t, "%s", json_number(v, "attachments") ? "attached" : "-");
    }
    table_print(&t);
}

static int cmd_list(struct cli *cli, int argc, char **argv)
{
    int n = opts_parse(cli, argc, argv, NULL, 0, 1);
    if (opts_failed(n))
        return opts_exit(n);
    json_t *volumes = json_array();
    int rc = n ? list_pool(cli, argv[1], volumes) : list_all(cli, volumes);
    if (rc == EXIT_DONE && cli->json) {
        json_t *result = json_pack("{s:O}", "volumes", volumes);
        cli_print_json(result);
        json_decref(result);
    } else if (rc == EXIT_DONE && json_array_size(volumes) == 0) {
        puts("no volumes: `vpool volume create POOL/NAME --size 10G` makes one");
    } else if (rc == EXIT_DONE) {
        print_list(volumes);
    }
    json_decref(volumes);
    return rc;
}

/* ---- show ---------------------------------------------------------------------------------------
 */

static void print_health(const json_t *v)
{
    const json_t *paused = json_object_get(v, "paused");
    printf("  health      %s\n",
           json_array_size(json_object_get(v, "health")) ? json_health(v) : "well");
    if (json_is_object(paused))
        printf("              %d requests wait for space, for %lld s now\n",
               (int)json_number(paused, "requests"),
               (long long)time(NULL) - (long long)json_number(paused, "since"));
}

static void print_volume(const json_t *v)
{
    const json_t *o = json_object_get(v, "options"), *c = json_object_get(v, "counters");
    char when[WHEN_TEXT];
    printf("volume %s/%s: %s\n", json_text(v, "pool"), json_text(v, "name"), json_text(v, "state"));
    if (json_text(v, "fault")[0])
        printf("  fault       %s\n              → vpool-check explains the damage\n",
               json_text(v, "fault"));
    print_health(v);
    printf("  size        %s (%llu bytes), sectors of %d\n",
           size_text(json_number(v, "size_bytes")),
           (unsigned long long)json_number(v, "size_bytes"), (int)json_number(o, "sector"));
    printf("  allocated   %s in chunks, %s hold data, %s leased\n",
           size_text(json_number(v, "allocated_bytes")), size_text(json_number(v, "valid_bytes")),
           size_text(json_number(v, "leased_bytes")));
    printf("  options     raid %s, full-policy %s, zero-detect %s, sync %s, read-only %s, reserve "
           "%s\n",
           json_text(o, "raid"), json_text(o, "full-policy"),
           json_is_true(json_object_get(o, "zero-detect")) ? "on" : "off", json_text(o, "sync"),
           json_is_true(json_object_get(o, "read-only")) ? "on" : "off",
           size_text(json_number(o, "reserve")));
    printf("  created     %s, %s\n", when_text(v, "created", when), json_text(v, "uuid"));
    printf("  use         %s, reactor %d\n",
           count_text(json_number(v, "attachments"), "attachment"), (int)json_number(v, "reactor"));
    printf("  since open  %llu reads (%s), %llu writes (%s), %llu flushes, %llu discards\n",
           (unsigned long long)json_number(c, "reads"), size_text(json_number(c, "bytes_read")),
           (unsigned long long)json_number(c, "writes"), size_text(json_number(c, "bytes_written")),
           (unsigned long long)json_number(c, "flushes"),
           (unsigned long long)json_number(c, "discards"));
    printf("  errors      %llu reads failed by wrong checksums, %llu blocks healed, since %s\n",
           (unsigned long long)json_number(c, "checksum_errors"),
           (unsigned long long)json_number(c, "healed_blocks"), when_text(v, "errors_since", when));
}

static int cmd_show(struct cli *cli, int argc, char **argv)
{
    int n = opts_parse(cli, argc, argv, NULL, 1, 1);
    if (opts_failed(n))
        return opts_exit(n);
    return cli_show(cli, "volume.show", json_pack("{s:s}", "volume", argv[1]), print_volume);
}

/* ---- resize, rename, delete ------------------------------------------------------------------ */

static void print_resized(const json_t *r)
{
    printf("%s %s from %s to %s\n",
           json_is_true(json_object_get(r, "dry_run")) ? "would resize" : "resized",
           json_text(r, "volume"), size_text(json_number(r, "from_bytes")),
           size_text(json_number(r, "to_bytes")));
    if (!json_text(r, "used_by")[0])
        return;
    if (json_is_true(json_object_get(r, "shrinks")))
        fprintf(stderr, "vpool: %s is in use: %s. What it had beyond the new end is lost.\n",
                json_text(r, "volume"), json_text(r, "used_by"));
    else
        printf("clients of NBD see the new size when they connect again; in QEMU, `block_resize` "
               "tells the guest\n");
}

static int cmd_resize(struct cli *cli, int argc, char **argv)
{
    uint64_t size = SIZE_NOT_GIVEN;
    bool force = false, dry_run = false;
    const struct opt opts[] = {{"size", 0, OPT_SIZE, &size},
                               {"force", 0, OPT_FLAG, &force},
                               {"dry-run", 'n', OPT_FLAG, &dry_run},
                               {0}};
    int n = opts_parse(cli, argc, argv, opts, 1, 1);
    if (opts_failed(n))
        return opts_exit(n);
    if (!size_is_possible(size))
        return refuse_size(cli, size);
    return cli_show(cli, "volume.resize",
                    json_pack("{s:s, s:I, s:b, s:b}", "volume", argv[1], "size", (json_int_t)size,
                              "force", force, "dry_run", dry_run),
                    print_resized);
}

static int cmd_rename(struct cli *cli, int argc, char **argv)
{
    int n = opts_parse(cli, argc, argv, NULL, 2, 2);
    if (opts_failed(n))
        return opts_exit(n);
    return cli_show(cli, "volume.rename", json_pack("{s:s, s:s}", "volume", argv[1], "to", argv[2]),
                    NULL);
}

static void print_deleted(const json_t *r)
{
    bool dry = json_is_true(json_object_get(r, "dry_run"));
    printf("%s %s, which has %s allocated", dry ? "would delete" : "deleted",
           json_text(r, "volume"), size_text(json_number(r, "allocated_bytes")));
    if (!dry)
        printf("; the space comes back in the background, by job %s", json_text(r, "job"));
    putchar('\n');
}

static int cmd_delete(struct cli *cli, int argc, char **argv)
{
    uint64_t limit = 0;
    bool dry_run = false;
    const struct opt opts[] = {
        {"limit", 0, OPT_SIZE, &limit}, {"dry-run", 'n', OPT_FLAG, &dry_run}, {0}};
    int n = opts_parse(cli, argc, argv, opts, 1, 1);
    if (opts_failed(n))
        return opts_exit(n);
    return cli_show(cli, "volume.delete",
                    json_pack("{s:s, s:I, s:b}", "volume", argv[1], "limit", (json_int_t)limit,
                              "dry_run", dry_run),
                    print_deleted);
}

const struct command commands_volume[] = {
    {"volume create", "POOL/VOL --size BYTES [--raid PROFILE] [-o KEY=VALUE]…",
     "Makes a thin volume.\n"
     "  --size BYTES     what its client sees; space is taken as it is written\n"
     "  --raid PROFILE   single, mirror, mirror:N (N up to 5); else the pool's default\n"
     "  -o KEY=VALUE     sector=512|4096, full-policy=pause|enospc, zero-detect=on|off,\n"
     "                   sync=standard|always, read-only=on|off, reserve=BYTES",
     cmd_create},
    {"volume list", "[POOL]", "Volumes of a pool, or of all.", cmd_list},
    {"volume show", "POOL/VOL", "Everything about a volume.", cmd_show},
    {"volume resize", "POOL/VOL --size BYTES [--force] [--dry-run]",
     "Grows or shrinks a volume. A block device has the new size at once; a client of NBD\n"
     "has it when it connects again.\n"
     "  --force          shrink: what is beyond the new end is discarded, also under users\n"
     "  -n, --dry-run    only say what would happen",
     cmd_resize},
    {"volume rename", "POOL/VOL NEWNAME", "Gives a volume another name; not while it is attached.",
     cmd_rename},
    {"volume delete", "POOL/VOL [--limit SIZE] [--dry-run]",
     "Deletes a volume and its data; not while it is attached. A job gives the space back.\n"
     "  --limit SIZE     the job gives back so much a second (`vpool jobs limit`)\n"
     "  -n, --dry-run    only say what would be lost",
     cmd_delete},
    {0}};

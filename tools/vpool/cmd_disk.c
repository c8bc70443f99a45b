/* Commands about disks of a pool that come and go. */
#include "base/bytes.h"
#include "tools/vpool/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A number or a uuid as it is, a path made absolute. NULL: no memory, or not UTF-8. */
static json_t *disk_param(const char *text)
{
    struct vp_uuid uuid;
    if (!text[0] || strspn(text, "0123456789") == strlen(text) || vp_uuid_parse(text, &uuid))
        return json_string(text);
    char *path = cli_absolute(text);
    json_t *param = path ? json_string(path) : NULL;
    free(path);
    return param;
}

static json_t *path_param(const char *path)
{
    char *absolute = cli_absolute(path);
    json_t *param = absolute ? json_string(absolute) : NULL;
    free(absolute);
    return param;
}

static void print_came(const json_t *r)
{
    const char *job = json_text(r, "job");
    printf("disk %d of pool %s is %s, at %s%s%s\n", (int)json_number(r, "disk"),
           json_text(r, "pool"), json_text(r, "state"), json_text(r, "path"),
           job[0] ? "; job " : "", job);
}

/* Of a dry run. */
static void print_plan(const json_t *r)
{
    int now = (int)json_number(r, "survives"), then = (int)json_number(r, "survives_then");
    printf("nothing was changed; disk %d of pool %s, %s: ", (int)json_number(r, "disk"),
           json_text(r, "pool"), json_text(r, "path"));
    printf("%s in use there; %d disk%s may be lost now without a loss of data, %d afterwards\n",
           size_text(json_number(r, "bytes")), now, now == 1 ? "" : "s", then);
}

static int cmd_online(struct cli *cli, int argc, char **argv)
{
    uint64_t limit = SIZE_NOT_GIVEN;
    bool dry_run = false;
    const struct opt opts[] = {
        {"limit", 0, OPT_SIZE, &limit}, {"dry-run", 0, OPT_FLAG, &dry_run}, {0}};
    int n = opts_parse(cli, argc, argv, opts, 2, 3);
    if (opts_failed(n))
        return opts_exit(n);
    json_t *params =
        json_pack("{s:s, s:o, s:I, s:b}", "pool", argv[1], "disk", disk_param(argv[2]), "limit",
                  (json_int_t)(limit == SIZE_NOT_GIVEN ? 0 : limit), "dry_run", dry_run);
    if (params && n == 3 && json_object_set_new(params, "path", path_param(argv[3]))) {
        json_decref(params);
        params = NULL;
    }
    return cli_show(cli, "pool.online", params, dry_run ? print_plan : print_came);
}

static int cmd_replace(struct cli *cli, int argc, char **argv)
{
    uint64_t limit = SIZE_NOT_GIVEN;
    bool force = false, dry_run = false;
    const struct opt opts[] = {{"force", 0, OPT_FLAG, &force},
                               {"limit", 0, OPT_SIZE, &limit},
                               {"dry-run", 0, OPT_FLAG, &dry_run},
                               {0}};
    int n = opts_parse(cli, argc, argv, opts, 3, 3);
    if (opts_failed(n))
        return opts_exit(n);
    return cli_show(cli, "pool.replace",
                    json_pack("{s:s, s:o, s:o, s:b, s:I, s:b}", "pool", argv[1], "disk",
                              disk_param(argv[2]), "path", path_param(argv[3]), "force", force,
                              "limit", (json_int_t)(limit == SIZE_NOT_GIVEN ? 0 : limit), "dry_run",
                              dry_run),
                    dry_run ? print_plan : print_came);
}

static void print_spares(const json_t *r)
{
    const json_t *list = json_object_get(r, "spares"), *s;
    size_t i;
    printf("pool %s has %s\n", json_text(r, "pool"),
           json_array_size(list) ? "these spares:" : "no spares");
    json_array_foreach(list, i, s) printf("  %s\n", json_text(s, "path"));
}

static void print_leaves(const json_t *r)
{
    const char *job = json_text(r, "job");
    if (json_object_get(r, "spares")) {
        print_spares(r);
        return;
    }
    printf("disk %d of pool %s, %s, is %s%s%s\n", (int)json_number(r, "disk"), json_text(r, "pool"),
           json_text(r, "path"), json_text(r, "state"), job[0] ? "; job " : "", job);
}

static int cmd_remove(struct cli *cli, int argc, char **argv)
{
    uint64_t limit = SIZE_NOT_GIVEN;
    bool dry_run = false, cancel = false;
    const struct opt opts[] = {{"limit", 0, OPT_SIZE, &limit},
                               {"cancel", 0, OPT_FLAG, &cancel},
                               {"dry-run", 0, OPT_FLAG, &dry_run},
                               {0}};
    int n = opts_parse(cli, argc, argv, opts, 2, 2);
    if (opts_failed(n))
        return opts_exit(n);
    if (cancel && (dry_run || limit != SIZE_NOT_GIVEN))
        return cli_usage(cli, "--cancel stands alone");
    return cli_show(cli, "pool.remove",
                    json_pack("{s:s, s:o, s:I, s:b, s:b}", "pool", argv[1], "disk",
                              disk_param(argv[2]), "limit",
                              (json_int_t)(limit == SIZE_NOT_GIVEN ? 0 : limit), "cancel", cancel,
                              "dry_run", dry_run),
                    dry_run ? print_plan : print_leaves);
}

static void print_balance(const json_t *r)
{
    const char *job = json_text(r, "job"), *pool = json_text(r, "pool");
    if (json_is_true(json_object_get(r, "dry_run")))
        printf("nothing was changed; %s would move to emptier disks of pool %s\n",
               size_text(json_number(r, "bytes")), pool);
    else
        printf("%s of pool %s to move to emptier disks%s%s\n", size_text(json_number(r, "bytes")),
               pool, job[0] ? "; job " : "", job);
}

static int cmd_rebalance(struct cli *cli, int argc, char **argv)
{
    uint64_t limit = SIZE_NOT_GIVEN;
    bool dry_run = false, cancel = false;
    const struct opt opts[] = {{"limit", 0, OPT_SIZE, &limit},
                               {"cancel", 0, OPT_FLAG, &cancel},
                               {"dry-run", 0, OPT_FLAG, &dry_run},
                               {0}};
    int n = opts_parse(cli, argc, argv, opts, 1, 1);
    if (opts_failed(n))
        return opts_exit(n);
    if (cancel && (dry_run || limit != SIZE_NOT_GIVEN))
        return cli_usage(cli, "--cancel stands alone");
    return cli_show(cli, "pool.rebalance",
                    json_pack("{s:s, s:I, s:b, s:b}", "pool", argv[1], "limit",
                              (json_int_t)(limit == SIZE_NOT_GIVEN ? 0 : limit), "cancel", cancel,
                              "dry_run", dry_run),
                    print_balance);
}

static int cmd_add(struct cli *cli, int argc, char **argv)
{
    bool force = false, spare = false, dry_run = false;
    const struct opt opts[] = {{"force", 0, OPT_FLAG, &force},
                               {"spare", 0, OPT_FLAG, &spare},
                               {"dry-run", 0, OPT_FLAG, &dry_run},
                               {0}};
    int n = opts_parse(cli, argc, argv, opts, 2, 2);
    if (opts_failed(n))
        return opts_exit(n);
    return cli_show(cli, "pool.add",
                    json_pack("{s:s, s:o, s:b, s:b, s:b}", "pool", argv[1], "path",
                              path_param(argv[2]), "force", force, "spare", spare, "dry_run",
                              dry_run),
                    dry_run ? print_plan
                    : spare ? print_spares
                            : print_came);
}

static void print_went(const json_t *r)
{
    printf("disk %d of pool %s is out of service\n", (int)json_number(r, "disk"),
           json_text(r, "pool"));
}

static int cmd_offline(struct cli *cli, int argc, char **argv)
{
    bool dry_run = false;
    const struct opt opts[] = {{"dry-run", 0, OPT_FLAG, &dry_run}, {0}};
    int n = opts_parse(cli, argc, argv, opts, 2, 2);
    if (opts_failed(n))
        return opts_exit(n);
    return cli_show(cli, "pool.offline",
                    json_pack("{s:s, s:o, s:b}", "pool", argv[1], "disk", disk_param(argv[2]),
                              "dry_run", dry_run),
                    dry_run ? print_plan : print_went);
}

/* ---- scrub ----------------------------------------------------------------------------------- */

static void print_findings(const json_t *r)
{
    static const char *const headers[] = {"VOLUME", ">OFFSET", ">BYTES", "DISK",
                                          "WHAT",   "RESULT",  "TIME",   NULL};
    const json_t *list = json_object_get(r, "findings"), *f;
    char when[WHEN_TEXT];
    struct table t;
    size_t i;
    if (!json_array_size(list))
        return;
    table_init(&t, "", headers);
    json_array_foreach(list, i, f)
    {
        table_add(&t, "%s", json_text(f, "volume"));
        table_add(&t, "%llu", (unsigned long long)json_number(f, "offset"));
        table_add(&t, "%llu", (unsigned long long)json_number(f, "bytes"));
        table_add(&t, "%d (%s)", (int)json_number(f, "disk"), json_text(f, "path"));
        table_add(&t, "%s%s", json_is_true(json_object_get(f, "metadata")) ? "metadata, " : "",
                  json_text(f, "what"));
        table_add(&t, "%s", json_text(f, "result"));
        table_add(&t, "%s", when_text(f, "time", when));
    }
    table_print(&t);
    if (json_number(r, "findings_left_out"))
        printf("and %llu more\n", (unsigned long long)json_number(r, "findings_left_out"));
}

static void print_scrub(const json_t *r)
{
    const char *job = json_text(r, "job"), *pool = json_text(r, "pool");
    if (strcmp(json_text(r, "state"), "none") == 0) {
        printf("pool %s was never scrubbed\n", pool);
        return;
    }
    printf("scrub of pool %s: %s%s%s\n", pool, json_text(r, "state"), job[0] ? ", job " : "", job);
    printf("%s of data and %s of metadata compared; blocks: %llu healed, %llu bad, %llu lost; %d "
           "volumes left out\n",
           size_text(json_number(r, "compared_bytes")), size_text(json_number(r, "metadata_bytes")),
           (unsigned long long)json_number(r, "healed_blocks"),
           (unsigned long long)json_number(r, "bad_blocks"),
           (unsigned long long)json_number(r, "lost_blocks"),
           (int)json_number(r, "skipped_volumes"));
    if (json_number(r, "missing_bytes"))
        printf("of %s no copy is in service\n", size_text(json_number(r, "missing_bytes")));
    print_findings(r);
}

static int cmd_scrub(struct cli *cli, int argc, char **argv)
{
    uint64_t limit = SIZE_NOT_GIVEN;
    bool stop = false, show = false;
    const struct opt opts[] = {{"limit", 0, OPT_SIZE, &limit},
                               {"stop", 0, OPT_FLAG, &stop},
                               {"show", 0, OPT_FLAG, &show},
                               {0}};
    int n = opts_parse(cli, argc, argv, opts, 1, 1);
    if (opts_failed(n))
        return opts_exit(n);
    if (stop + show + (limit != SIZE_NOT_GIVEN) > 1)
        return cli_usage(cli, "give one of --limit, --stop and --show");
    return cli_show(cli, "pool.scrub",
                    json_pack("{s:s, s:s, s:I}", "pool", argv[1], "action",
                              stop   ? "stop"
                              : show ? "show"
                                     : "start",
                              "limit", (json_int_t)(limit == SIZE_NOT_GIVEN ? 0 : limit)),
                    print_scrub);
}

/* DISK in all of them. */
#define DRY_HELP                                                                                   \
    "  --dry-run        changes nothing: says whether it is refused, what is in use on the "       \
    "disk,\n"                                                                                      \
    "                   and how many disks may be lost before and afterwards"
#define DISK_HELP "DISK is its number, its path or its uuid, as `vpool status` shows them."

const struct command commands_disk[] = {
    {"add", "POOL DEVICE [--spare] [--force] [--dry-run]",
     "Gives a pool one more disk, or a spare.\n"
     "New data go to a disk as well, a moment later; `vpool rebalance` moves data that are there.\n"
     "  --spare          DEVICE takes the place of a disk that fails, a while later (vpoold.conf)\n"
     "  --force          overwrite what DEVICE holds\n" DRY_HELP,
     cmd_add},
    {"remove", "POOL DISK|SPARE [--limit SIZE] [--cancel] [--dry-run]",
     "Removes a disk from a pool, or a spare.\n"
     "What the disk has moves to other disks, as a job in the background, while its volumes are "
     "in\n"
     "use; they keep all their copies meanwhile. Then it is no disk of the pool any more, and its\n"
     "labels are wiped. Refused where the other disks have no room.\n"
     "  --limit SIZE     the job's limit: so much a second\n"
     "  --cancel         the disk stays, with what has not moved yet\n" DRY_HELP "\n" DISK_HELP,
     cmd_remove},
    {"online", "POOL DISK [PATH] [--limit SIZE] [--dry-run]",
     "Takes a disk that was away into service again.\n"
     "It gets what it lacks, as a job in the background, and counts again when it has all.\n"
     "  PATH             where the disk is now; without, a missing disk is looked for where it\n"
     "                   was last and in the directories of vpoold.conf\n"
     "  --limit SIZE     the job's limit: so much a second\n" DRY_HELP "\n" DISK_HELP,
     cmd_online},
    {"replace", "POOL DISK DEVICE [--force] [--limit SIZE] [--dry-run]",
     "Puts another device in the place of a disk that is out of service.\n"
     "It gets all data from the other disks, as a job in the background. What has no other copy\n"
     "would be lost: then the command is refused.\n"
     "  --force          overwrite what DEVICE holds\n"
     "  --limit SIZE     the job's limit: so much a second\n" DRY_HELP "\n" DISK_HELP,
     cmd_replace},
    {"offline", "POOL DISK [--dry-run]",
     "Takes a disk out of service, for example to pull it.\n"
     "Refused where it has data or metadata that are nowhere else.\n" DRY_HELP "\n" DISK_HELP,
     cmd_offline},
    {"rebalance", "POOL [--limit SIZE] [--cancel] [--dry-run]",
     "Moves data from disks that are fuller than others to emptier ones, as a job.\n"
     "Volumes are in use meanwhile, and keep all their copies. Metadata do not move.\n"
     "  --limit SIZE     the job's limit: so much a second\n"
     "  --cancel         ends the one that is under way; what has moved has moved\n"
     "  --dry-run        changes nothing: says how much would move",
     cmd_rebalance},
    {"scrub", "POOL [--limit SIZE | --stop | --show]",
     "Reads all copies of all data, compares them with their checksums, and heals what is bad.\n"
     "It is a job in the background, which `vpool jobs` pauses, resumes and limits.\n"
     "  --limit SIZE     the job's limit: so much of the volumes a second\n"
     "  --stop           ends the one that is under way\n"
     "  --show           says what the last one has found, or has found so far",
     cmd_scrub},
    {0}};

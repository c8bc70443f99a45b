/* vpool-check: options, the order of the checks, the verdict. See docs/man/vpool-check.8. */
#include "tools/vpool-check/check.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

static const char help[] =
    "usage: vpool-check [--json | --dump] [--data] DISK...\n"
    "       vpool-check --damage KIND --seed N --i-mean-it DISK...\n\n"
    "Looks at the disks of a pool that no daemon serves, explains what is on them and says what "
    "is\n"
    "wrong. Nothing is changed, except by --damage.\n\n"
    "  --json       the report as one JSON object\n"
    "  --dump       the same with every record, batch, page and map entry\n"
    "  --data       read all data too and compare them with their checksums\n"
    "  --damage K   damage something, for tests; --damage list names the kinds\n"
    "  --seed N     which one; the same seed on the same disks damages the same place\n\n"
    "Exit codes: 0 clean, 1 problems (or nothing could be read), 2 usage.\n";

struct options {
    bool json, dump, data, sure;
    const char *damage;
    uint64_t seed;
};

enum { OPT_JSON = 256, OPT_DUMP, OPT_DATA, OPT_DAMAGE, OPT_SEED, OPT_SURE, OPT_VERSION };

static const struct option long_options[] = {{"json", no_argument, NULL, OPT_JSON},
                                             {"dump", no_argument, NULL, OPT_DUMP},
                                             {"data", no_argument, NULL, OPT_DATA},
                                             {"damage", required_argument, NULL, OPT_DAMAGE},
                                             {"seed", required_argument, NULL, OPT_SEED},
                                             {"i-mean-it", no_argument, NULL, OPT_SURE},
                                             {"version", no_argument, NULL, OPT_VERSION},
                                             {"help", no_argument, NULL, 'h'},
                                             {0}};

static int usage(const char *what)
{
    fprintf(stderr, "vpool-check: %s\n%s", what, help);
    return 2;
}

static bool parse_seed(const char *text, uint64_t *out)
{
    char *end;
    *out = strtoull(text, &end, 0);
    return *text && !*end;
}

/* -1: go on; else the exit code. */
static int parse_options(int argc, char **argv, struct options *o)
{
    int opt;
    while ((opt = getopt_long(argc, argv, "h", long_options, NULL)) != -1) {
        switch (opt) {
        case OPT_DUMP:
            o->dump = true; /* fall through */
        case OPT_JSON:
            o->json = true;
            break;
        case OPT_DATA:
            o->data = true;
            break;
        case OPT_DAMAGE:
            o->damage = optarg;
            break;
        case OPT_SEED:
            if (!parse_seed(optarg, &o->seed))
                return usage("--seed wants a number");
            break;
        case OPT_SURE:
            o->sure = true;
            break;
        case OPT_VERSION:
            puts("vpool-check " VPOOL_VERSION);
            return 0;
        case 'h':
            fputs(help, stdout);
            return 0;
        default:
            return 2;
        }
    }
    return -1;
}

static void dump_records(struct check *c)
{
    json_t *table = json_array(), *trees = json_array();
    for (size_t i = 0; i < c->table.count; i++)
        json_array_append_new(table, check_record_json(&c->table.r[i]));
    for (size_t i = 0; i < c->trees.count; i++)
        json_array_append_new(trees, check_record_json(&c->trees.r[i]));
    check_put(c->out, "records", table);
    check_put(c->out, "log_tree_records", trees);
}

static void run_checks(struct check *c, char **paths, unsigned count, bool writable)
{
    if (!check_disks_open(c, paths, count, writable) || !check_roots(c))
        return;
    check_chains(c);
    check_groups(c);
    check_segments_mark(c);
    check_volumes(c);
    check_metadata_space(c);
    if (c->dump)
        dump_records(c);
}

static void check_fini(struct check *c)
{
    check_disks_close(c);
    check_records_free(&c->table_image);
    check_records_free(&c->table);
    check_records_free(&c->trees);
    for (unsigned i = 0; i < c->groups; i++) {
        free(c->group[i].page_used);
        free(c->group[i].page_tree);
    }
    free(c->group);
    free(c->segment);
    free(c->slot_group);
    free(c->target);
    json_decref(c->out);
    json_decref(c->problems);
    json_decref(c->notes);
}

static int verdict(struct check *c)
{
    size_t problems = json_array_size(c->problems);
    check_put(c->out, "problems", json_incref(c->problems));
    check_put(c->out, "notes", json_incref(c->notes));
    check_put(c->out, "clean", json_boolean(problems == 0));
    if (c->json) {
        json_dumpf(c->out, stdout, JSON_INDENT(1) | JSON_SORT_KEYS);
        putchar('\n');
    } else if (problems) {
        printf("%zu problems\n", problems);
    } else {
        puts("clean");
    }
    return problems ? 1 : 0;
}

static int damage(struct check *c, const struct options *o)
{
    enum damage_result r = check_damage(c, o->damage, o->seed);
    if (r == DAMAGE_NO_TARGET)
        fprintf(stderr,
                "vpool-check: nothing was damaged: these disks have nothing for '%s' whose damage "
                "a check would notice\n",
                o->damage);
    return r == DAMAGE_DONE ? 0 : 1;
}

int main(int argc, char **argv)
{
    struct options o = {0};
    int code = parse_options(argc, argv, &o);
    if (code >= 0)
        return code;
    if (o.damage && strcmp(o.damage, "list") == 0) {
        check_damage_kinds();
        return 0;
    }
    if (optind == argc)
        return usage("no disks are given");
    if (argc - optind > (int)POOL_DISKS_MAX)
        return usage("too many disks");
    if (o.damage && !check_damage_is_known(o.damage))
        return usage("no such kind of damage; --damage list names them");
    if (o.damage && !o.sure)
        return usage("--damage destroys; say --i-mean-it");
    struct check *c = calloc(1, sizeof(*c));
    if (!c)
        check_out_of_memory();
    *c = (struct check){.json = o.json || o.damage,
                        .dump = o.dump,
                        .data = o.data || o.damage,
                        .collect = o.damage != NULL,
                        .out = json_object(),
                        .problems = json_array(),
                        .notes = json_array()};
    run_checks(c, argv + optind, (unsigned)(argc - optind), o.damage != NULL);
    code = o.damage ? damage(c, &o) : verdict(c);
    check_fini(c);
    free(c);
    return code;
}

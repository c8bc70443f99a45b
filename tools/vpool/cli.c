/* Options, calls, errors. */
#include "tools/vpool/cli.h"

#include "base/bytes.h"

#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define OPTIONS_MAX 16
#define CALL_MS     120000 /* events wait up to a minute; an import may take long */

/* ---- errors -----------------------------------------------------------------------------------
 */

int cli_usage(const struct cli *cli, const char *fmt, ...)
{
    char text[600];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    (void)cli_refuse(cli, "USAGE", text);
    if (!cli->json && cli->command)
        fprintf(stderr, "usage: vpool %s %s\n", cli->command->name, cli->command->args);
    return EXIT_USAGE;
}

int cli_refuse(const struct cli *cli, const char *name, const char *text)
{
    json_t *error =
        cli->json ? json_pack("{s:{s:s, s:s}}", "error", "name", name, "message", text) : NULL;
    if (error) {
        json_dumpf(error, stderr, JSON_COMPACT);
        fputc('\n', stderr);
        json_decref(error);
    } else {
        fprintf(stderr, "vpool: %s\n", text);
    }
    return EXIT_REFUSED;
}

/* ---- options ----------------------------------------------------------------------------------
 */

/* Codes for getopt: 256 + index for those without a letter. */
static int code_of(const struct opt *opts, int i)
{
    return opts[i].letter ? opts[i].letter : 256 + i;
}

struct getopt_table {
    struct option longs[OPTIONS_MAX + 3];
    char shorts[2 * OPTIONS_MAX + 4];
    int count;
};

static void getopt_table_make(struct getopt_table *t, const struct opt *opts)
{
    size_t s = 0;
    int i = 0;
    for (; opts && opts[i].name && i < OPTIONS_MAX; i++) {
        bool has_arg = opts[i].kind != OPT_FLAG;
        t->longs[i] = (struct option){opts[i].name, has_arg ? required_argument : no_argument, NULL,
                                      code_of(opts, i)};
        if (!opts[i].letter)
            continue;
        t->shorts[s++] = opts[i].letter;
        if (has_arg)
            t->shorts[s++] = ':';
    }
    t->shorts[s++] = 'h';
    t->shorts[s] = 0;
    t->count = i;
    t->longs[i] = (struct option){"json", no_argument, NULL, 1};
    t->longs[i + 1] = (struct option){"help", no_argument, NULL, 'h'};
    t->longs[i + 2] = (struct option){0};
}

static int take(struct cli *cli, const struct opt *o, const char *arg)
{
    switch (o->kind) {
    case OPT_FLAG:
        *(bool *)o->to = true;
        return 0;
    case OPT_TEXT:
        *(const char **)o->to = arg;
        return 0;
    case OPT_SIZE:
    case OPT_NUMBER:
        if (bytes_parse_size(arg, o->to))
            return 0;
        return cli_usage(cli, "--%s: '%s' is not a %s", o->name, arg,
                         o->kind == OPT_SIZE
                             ? "size: write a number below 2^63, with K, M, G, T or P if you like"
                             : "number");
    case OPT_LIST:
        if (!*(json_t **)o->to)
            *(json_t **)o->to = json_array();
        if (json_array_append_new(*(json_t **)o->to, json_string(arg)) == 0)
            return 0;
        return cli_usage(cli, "--%s: '%s' is not UTF-8", o->name, arg);
    }
    return 0;
}

static void print_help(const struct command *c)
{
    printf("usage: vpool %s %s\n\n%s\n", c->name, c->args, c->help);
}

/* 0 to go on, else an exit code + 1. */
static int take_code(struct cli *cli, const struct opt *opts, const struct getopt_table *t,
                     int code, const char *argument)
{
    if (code == 1) {
        cli->json = true;
        return 0;
    }
    if (code == 'h') {
        print_help(cli->command);
        return EXIT_DONE + 1;
    }
    for (int i = 0; i < t->count; i++) {
        if (code_of(opts, i) == code) {
            int rc = take(cli, &opts[i], optarg);
            return rc ? rc + 1 : 0;
        }
    }
    return cli_usage(cli, "unknown or incomplete option '%s': see `vpool %s --help`", argument,
                     cli->command->name) +
           1;
}

/* The argument of the command at `position` (0 is the first), as its help names it: "POOL --size
 * BYTES [KEY] DISK…" has POOL and DISK. An empty string: there is none. */
static void argument_name(const struct command *command, int position, char *to, size_t size)
{
    const char *at = command->args;
    bool optional = false, value = false; /* inside brackets; of the option before */
    to[0] = 0;
    for (size_t len; *at; at += len + strspn(at + len, " ")) {
        len = strcspn(at, " ");
        optional |= at[0] == '[';
        bool option = at[0] == '-';
        if (!optional && !option && !value && position-- == 0) {
            size_t name = strcspn(at, " …");
            (void)snprintf(to, size, "%.*s", (int)(name < len ? name : len), at);
            return;
        }
        value = option && !optional;
        optional &= !memchr(at, ']', len);
    }
}

static int too_few(const struct cli *cli, int count)
{
    char name[40];
    argument_name(cli->command, count, name, sizeof(name));
    return cli_usage(cli, "%s is missing", name[0] ? name : "an argument");
}

/* A size without its option is a mistake that many make. */
static int too_many(const struct cli *cli, const struct opt *opts, const char *argument)
{
    uint64_t bytes;
    for (; opts && opts->name; opts++)
        if (opts->kind == OPT_SIZE && bytes_parse_size(argument, &bytes))
            return cli_usage(cli, "unexpected argument '%s': write --%s %s", argument, opts->name,
                             argument);
    return cli_usage(cli, "unexpected argument '%s'", argument);
}

int opts_parse(struct cli *cli, int argc, char **argv, const struct opt *opts, int min, int max)
{
    struct getopt_table t;
    getopt_table_make(&t, opts);
    optind = 0; /* glibc: start over, and permute again */
    opterr = 0; /* what is wrong is said here, in the form that was asked for */
    int code;
    while ((code = getopt_long(argc, argv, t.shorts, t.longs, NULL)) != -1) {
        int ended = take_code(cli, opts, &t, code, argv[optind > 1 ? optind - 1 : 1]);
        if (ended)
            return -ended;
    }
    int count = argc - optind;
    memmove(argv + 1, argv + optind, (size_t)count * sizeof(*argv));
    if (count < min)
        return -too_few(cli, count) - 1;
    if (max >= 0 && count > max)
        return -too_many(cli, opts, argv[max + 1]) - 1;
    return count;
}

char *cli_absolute(const char *path)
{
    if (path[0] == '/')
        return strdup(path);
    char *cwd = getcwd(NULL, 0);
    char *out = NULL;
    if (cwd && asprintf(&out, "%s/%s", cwd, path) < 0)
        out = NULL;
    free(cwd);
    return out;
}

json_t *cli_paths(char *const *argv, int count)
{
    json_t *list = json_array();
    for (int i = 0; i < count; i++) {
        char *path = cli_absolute(argv[i]);
        int rc = path ? json_array_append_new(list, json_string(path)) : -1;
        free(path);
        if (rc) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

/* ---- calls ------------------------------------------------------------------------------------
 */

static int say(const struct cli *cli, const struct vpool_error *err)
{
    return cli_refuse(cli, err->name, err->text);
}

/* Takes the reference of params. */
static char *params_text(json_t *params)
{
    char *text = params ? json_dumps(params, JSON_COMPACT) : NULL;
    json_decref(params);
    return text;
}

int cli_call(struct cli *cli, const char *method, json_t *params, json_t **result)
{
    struct vpool_error err = {0};
    bool wanted = params;
    char *text = params_text(params);
    if (wanted && !text)
        return cli_refuse(cli, "INVALID", "an argument is not UTF-8, or memory is out");
    char *reply = NULL;
    int rc = cli->client ? 0 : vpool_connect(cli->socket, CALL_MS, &cli->client, &err);
    if (rc == 0)
        rc = vpool_call(cli->client, method, text, &reply, &err);
    free(text);
    if (rc)
        return say(cli, &err);
    json_t *value = json_loads(reply, JSON_DECODE_ANY, NULL);
    free(reply);
    if (!value)
        return cli_refuse(cli, "NO_MEMORY", "out of memory");
    if (result)
        *result = value;
    else
        json_decref(value);
    return EXIT_DONE;
}

int cli_show(struct cli *cli, const char *method, json_t *params,
             void (*print)(const json_t *result))
{
    if (!params)
        return cli_refuse(cli, "INVALID", "an argument is not UTF-8, or memory is out");
    json_t *result;
    int rc = cli_call(cli, method, params, &result);
    if (rc)
        return rc;
    if (cli->json)
        cli_print_json(result);
    else if (print)
        print(result);
    json_decref(result);
    return EXIT_DONE;
}

void cli_print_json(const json_t *value)
{
    json_dumpf(value, stdout, JSON_INDENT(2));
    putchar('\n');
}

const char *json_text(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

uint64_t json_number(const json_t *object, const char *key)
{
    return (uint64_t)json_integer_value(json_object_get(object, key));
}

const char *json_health(const json_t *object)
{
    static char text[160];
    const json_t *health = json_object_get(object, "health");
    size_t i, len = 0;
    const json_t *flag;
    (void)snprintf(text, sizeof(text), "-");
    json_array_foreach(health, i, flag) if (len < sizeof(text)) len += (size_t)snprintf(
        text + len, sizeof(text) - len, "%s%s", i ? ", " : "", json_string_value(flag));
    return text;
}

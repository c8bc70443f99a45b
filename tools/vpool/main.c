/* vpool: the command line. Finds the command and runs it; the commands are in cmd_*.c. */
#include "tools/vpool/cli.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int cmd_version(struct cli *cli, int argc, char **argv);
static int cmd_help(struct cli *cli, int argc, char **argv);

static const struct command commands_here[] = {
    {"version", "", "Versions of this tool and of the daemon.", cmd_version},
    {"help", "[COMMAND]", "This list, or a command's help.", cmd_help},
    {0}};

static const struct command *const tables[] = {
    commands_pool, commands_disk,    commands_volume, commands_attach, commands_ublk,
    commands_jobs, commands_migrate, commands_watch,  commands_here,   NULL};

/* Commands of the design whose feature is not in this release. */
static const char *const not_yet[] = {"history", "snapshot", "clone", "rollback", "diff", NULL};

static void print_commands(FILE *out)
{
    fputs("usage: vpool [-s SOCKET] [--json] COMMAND …\n\n", out);
    for (const struct command *const *t = tables; *t; t++)
        for (const struct command *c = *t; c->name; c++)
            fprintf(out, "  %-16s %.*s\n", c->name, (int)strcspn(c->help, "\n"), c->help);
    fputs(
        "\n`vpool COMMAND --help` says more. Sizes take K, M, G, T (powers of 1024). The daemon's\n"
        "socket is -s SOCKET, else $VPOOL_SOCKET, else " VPOOL_DEFAULT_SOCKET ".\n"
        "Exit codes: 0 done, 1 refused or failed, 2 usage, 3 needs attention (status -x).\n",
        out);
}

/* The command that the first words name; *words is how many. */
static const struct command *find(int argc, char **argv, int *words)
{
    for (const struct command *const *t = tables; *t; t++)
        for (const struct command *c = *t; c->name; c++) {
            const char *space = strchr(c->name, ' ');
            size_t first = space ? (size_t)(space - c->name) : strlen(c->name);
            *words = space ? 2 : 1;
            if (argc < *words || strlen(argv[0]) != first || strncmp(argv[0], c->name, first) != 0)
                continue;
            if (!space || strcmp(argv[1], space + 1) == 0)
                return c;
        }
    return NULL;
}

static bool is_prefix_of_commands(const char *word)
{
    size_t len = strlen(word);
    for (const struct command *const *t = tables; *t; t++)
        for (const struct command *c = *t; c->name; c++)
            if (strncmp(c->name, word, len) == 0 && c->name[len] == ' ')
                return true;
    return false;
}

static int unknown_command(struct cli *cli, int argc, char **argv)
{
    for (const char *const *n = not_yet; *n; n++) {
        if (strcmp(*n, argv[0]) == 0) {
            char text[80];
            (void)snprintf(text, sizeof(text), "'%s' is not supported by this release", *n);
            return cli_refuse(cli, "NOT_SUPPORTED", text);
        }
    }
    if (!is_prefix_of_commands(argv[0]))
        return cli_usage(cli, "unknown command '%s'; `vpool help` lists all", argv[0]);
    if (argc > 1)
        return cli_usage(cli, "unknown command '%s %s'; `vpool help` lists all", argv[0], argv[1]);
    return cli_usage(cli, "'%s' needs a second word; `vpool help` lists all", argv[0]);
}

static int cmd_version(struct cli *cli, int argc, char **argv)
{
    int n = opts_parse(cli, argc, argv, NULL, 0, 0);
    if (opts_failed(n))
        return opts_exit(n);
    struct vpool_error err;
    char *info = NULL;
    json_t *daemon = NULL;
    if (vpool_connect(cli->socket, 2000, &cli->client, &err) == 0 &&
        vpool_call(cli->client, "daemon.info", NULL, &info, &err) == 0)
        daemon = json_loads(info, 0, NULL);
    free(info);
    const char *version = daemon ? json_text(daemon, "version") : NULL;
    json_t *both = json_pack("{s:s, s:s?}", "tool", vpool_version(), "daemon", version);
    if (cli->json)
        cli_print_json(both);
    else
        printf("vpool %s, daemon %s\n", vpool_version(), version ? version : "does not answer");
    json_decref(both);
    json_decref(daemon);
    return EXIT_DONE;
}

static int cmd_help(struct cli *cli, int argc, char **argv)
{
    int words;
    if (argc < 2 || strcmp(argv[1], "--help") == 0) {
        print_commands(stdout);
        return EXIT_DONE;
    }
    const struct command *c = find(argc - 1, argv + 1, &words);
    if (!c)
        return unknown_command(cli, argc - 1, argv + 1);
    printf("usage: vpool %s %s\n\n%s\n", c->name, c->args, c->help);
    return EXIT_DONE;
}

/* Options before the command. 0 to go on, else an exit code + 1. */
static int parse_global(struct cli *cli, int argc, char **argv)
{
    static const struct option longs[] = {{"socket", required_argument, NULL, 's'},
                                          {"json", no_argument, NULL, 'j'},
                                          {"help", no_argument, NULL, 'h'},
                                          {"version", no_argument, NULL, 'V'},
                                          {0}};
    int ch;
    opterr = !cli->json;
    while ((ch = getopt_long(argc, argv, "+s:hV", longs, NULL)) != -1) {
        switch (ch) {
        case 's':
            cli->socket = optarg;
            break;
        case 'j':
            cli->json = true;
            break;
        case 'h':
            print_commands(stdout);
            return EXIT_DONE + 1;
        case 'V':
            printf("vpool %s\n", vpool_version());
            return EXIT_DONE + 1;
        default:
            if (cli->json)
                return cli_usage(cli, "unknown or incomplete option before the command") + 1;
            print_commands(stderr);
            return EXIT_USAGE + 1;
        }
    }
    return 0;
}

/* Asked before anything else, so that a wrong command line is reported in the form that was asked
 * for. */
static bool wants_json(int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "--json") == 0)
            return true;
    return false;
}

/* The daemon is spoken to in UTF-8. Arguments that are not UTF-8 are refused, because their bytes
 * would be dropped. 0, or an exit code. */
static int check_utf8(const struct cli *cli, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        json_t *text = json_string(argv[i]);
        json_decref(text);
        if (!text)
            return cli_usage(cli, "argument %d is not UTF-8: vpool takes no other names", i);
    }
    return 0;
}

/* A command whose output could not be written has failed. */
static int finish_output(const struct cli *cli, int rc)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return rc;
    char text[160];
    (void)snprintf(text, sizeof(text), "the output could not be written: %s", strerror(errno));
    (void)cli_refuse(cli, "SYSTEM", text);
    return rc == EXIT_DONE ? EXIT_REFUSED : rc;
}

int main(int argc, char **argv)
{
    struct cli cli = {.json = wants_json(argc, argv)};
    int wrong = check_utf8(&cli, argc, argv);
    if (wrong)
        return wrong;
    int ended = parse_global(&cli, argc, argv);
    if (ended)
        return finish_output(&cli, ended - 1);
    argc -= optind;
    argv += optind;
    if (argc == 0) {
        print_commands(stderr);
        return EXIT_USAGE;
    }
    int words, rc;
    cli.command = find(argc, argv, &words);
    if (cli.command)
        rc = cli.command->run(&cli, argc - words + 1, argv + words - 1);
    else
        rc = unknown_command(&cli, argc, argv);
    vpool_close(cli.client);
    return finish_output(&cli, rc);
}

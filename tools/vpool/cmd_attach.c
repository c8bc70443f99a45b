/* Commands about attachments. */
#include "tools/vpool/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* "unix:rel" becomes "unix:/cwd/rel"; anything else stays. In malloc'ed memory. */
static char *absolute_address(const char *address)
{
    if (strncmp(address, "unix:", 5) != 0)
        return strdup(address);
    char *path = cli_absolute(address + 5), *out = NULL;
    if (path && asprintf(&out, "unix:%s", path) < 0)
        out = NULL;
    free(path);
    return out;
}

static void print_attached(const json_t *a)
{
    puts(json_text(a, "uri"));
}

static int cmd_attach(struct cli *cli, int argc, char **argv)
{
    const char *nbd = NULL, *vhost = NULL;
    bool read_only = false, ublk = false;
    const struct opt opts[] = {{"nbd", 0, OPT_TEXT, &nbd},
                               {"readonly", 0, OPT_FLAG, &read_only},
                               {"read-only", 0, OPT_FLAG, &read_only},
                               {"ublk", 0, OPT_FLAG, &ublk},
                               {"vhost-user", 0, OPT_TEXT, &vhost},
                               {0}};
    int n = opts_parse(cli, argc, argv, opts, 1, 1);
    if (opts_failed(n))
        return opts_exit(n);
    if (ublk || vhost)
        return cli_refuse(cli, "NOT_SUPPORTED",
                          "ublk and vhost-user are not supported by this release: use --nbd");
    if (!nbd)
        return cli_usage(cli, "--nbd is missing: unix:PATH or tcp:HOST:PORT");
    char *address = absolute_address(nbd);
    json_t *params = address ? json_pack("{s:s, s:s, s:b}", "volume", argv[1], "nbd", address,
                                         "readonly", read_only)
                             : NULL;
    free(address);
    return cli_show(cli, "attach", params, print_attached);
}

static void print_detached(const json_t *r)
{
    printf("ended %d attachment%s\n", (int)json_number(r, "detached"),
           json_number(r, "detached") == 1 ? "" : "s");
}

static int cmd_detach(struct cli *cli, int argc, char **argv)
{
    const char *nbd = NULL;
    bool all = false;
    const struct opt opts[] = {{"nbd", 0, OPT_TEXT, &nbd}, {"all", 'a', OPT_FLAG, &all}, {0}};
    int n = opts_parse(cli, argc, argv, opts, 1, 1);
    if (opts_failed(n))
        return opts_exit(n);
    char *address = nbd ? absolute_address(nbd) : NULL;
    json_t *params = json_pack("{s:s, s:s*, s:b}", "volume", argv[1], "nbd", address, "all", all);
    free(address);
    return cli_show(cli, "detach", params, print_detached);
}

static void print_attachments(const json_t *result)
{
    static const char *const headers[] = {"VOLUME", "STATE", ">CLIENTS", "MODE", "URI", NULL};
    const json_t *list = json_object_get(result, "attachments");
    if (json_array_size(list) == 0) {
        puts("no attachments: `vpool attach POOL/VOL --nbd unix:PATH` makes one");
        return;
    }
    struct table t;
    table_init(&t, "", headers);
    size_t i;
    const json_t *a;
    json_array_foreach(list, i, a)
    {
        bool failed = strcmp(json_text(a, "state"), "failed") == 0;
        table_add(&t, "%s", json_text(a, "volume"));
        table_add(&t, "%s", json_text(a, "state"));
        table_add(&t, "%d", (int)json_number(a, "connections"));
        table_add(&t, "%s", json_is_true(json_object_get(a, "read_only")) ? "ro" : "rw");
        table_add(&t, "%s%s%s", json_text(a, failed ? "address" : "uri"), failed ? ": " : "",
                  failed ? json_text(a, "error") : "");
    }
    table_print(&t);
}

static int cmd_attachments(struct cli *cli, int argc, char **argv)
{
    int n = opts_parse(cli, argc, argv, NULL, 0, 0);
    return opts_failed(n) ? opts_exit(n) : cli_show(cli, "attachments", NULL, print_attachments);
}

const struct command commands_attach[] = {
    {"attach", "POOL/VOL --nbd unix:PATH|tcp:HOST:PORT [--readonly]",
     "Serves a volume; prints the URI for its clients.\n"
     "  --nbd ADDRESS    unix:PATH, or tcp:HOST:PORT (port 0 picks a free one)\n"
     "  --readonly       clients may not write\n"
     "The attachment comes back after a restart, until it is detached.",
     cmd_attach},
    {"detach", "POOL/VOL [--nbd ADDRESS] [--all]",
     "Ends serving a volume.\n"
     "  --nbd ADDRESS    which one, when there are several\n"
     "  -a, --all        every one",
     cmd_detach},
    {"attachments", "", "What is served, and where.", cmd_attachments},
    {0}};

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

/* "ublk:N,queues=N,depth=N", as far as given; the daemon checks it. In malloc'ed memory. */
static char *ublk_address(const char *number, const char *queues, const char *depth)
{
    char *out;
    int n = asprintf(&out, "ublk:%s%s%s%s%s", number ? number : "auto", queues ? ",queues=" : "",
                     queues ? queues : "", depth ? ",depth=" : "", depth ? depth : "");
    return n < 0 ? NULL : out;
}

static void print_attached(const json_t *a)
{
    puts(json_text(a, "uri"));
}

static int cmd_attach(struct cli *cli, int argc, char **argv)
{
    const char *nbd = NULL, *vhost = NULL, *queues = NULL, *depth = NULL, *number = NULL;
    const char *owner = NULL, *group = NULL, *mode = NULL;
    bool read_only = false, ublk = false;
    const struct opt opts[] = {{"nbd", 0, OPT_TEXT, &nbd},
                               {"readonly", 0, OPT_FLAG, &read_only},
                               {"read-only", 0, OPT_FLAG, &read_only},
                               {"ublk", 0, OPT_FLAG, &ublk},
                               {"queues", 0, OPT_TEXT, &queues},
                               {"depth", 0, OPT_TEXT, &depth},
                               {"number", 0, OPT_TEXT, &number},
                               {"owner", 0, OPT_TEXT, &owner},
                               {"group", 0, OPT_TEXT, &group},
                               {"mode", 0, OPT_TEXT, &mode},
                               {"vhost-user", 0, OPT_TEXT, &vhost},
                               {0}};
    int n = opts_parse(cli, argc, argv, opts, 1, 1);
    if (opts_failed(n))
        return opts_exit(n);
    if (vhost)
        return cli_refuse(cli, "NOT_SUPPORTED",
                          "vhost-user is not supported by this release: use --ublk or --nbd");
    if (!nbd == !ublk)
        return cli_usage(cli, "say how: --ublk, or --nbd unix:PATH or tcp:HOST:PORT");
    if (nbd && (queues || depth || number))
        return cli_usage(cli, "--queues, --depth and --number go with --ublk");
    if ((owner || group || mode) && (!nbd || strncmp(nbd, "unix:", 5) != 0))
        return cli_usage(cli, "--owner, --group and --mode go with --nbd unix:PATH");
    char *address = ublk ? ublk_address(number, queues, depth) : absolute_address(nbd);
    json_t *params = address ? json_pack("{s:s, s:s, s:b, s:s*, s:s*, s:s*}", "volume", argv[1],
                                         ublk ? "ublk" : "nbd", address, "readonly", read_only,
                                         "owner", owner, "group", group, "mode", mode)
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
    bool all = false, ublk = false, force = false;
    const struct opt opts[] = {{"nbd", 0, OPT_TEXT, &nbd},
                               {"ublk", 0, OPT_FLAG, &ublk},
                               {"all", 'a', OPT_FLAG, &all},
                               {"force", 'f', OPT_FLAG, &force},
                               {0}};
    int n = opts_parse(cli, argc, argv, opts, 1, 1);
    if (opts_failed(n))
        return opts_exit(n);
    char *address = nbd ? absolute_address(nbd) : NULL;
    json_t *params = json_pack("{s:s, s:s*, s:b, s:b, s:b}", "volume", argv[1], "nbd", address,
                               "all", all, "ublk", ublk, "force", force);
    free(address);
    return cli_show(cli, "detach", params, print_detached);
}

static void print_attachments(const json_t *result)
{
    static const char *const headers[] = {"VOLUME", "STATE",   ">CLIENTS", "MODE",
                                          "URI",    "USED BY", NULL};
    const json_t *list = json_object_get(result, "attachments");
    if (json_array_size(list) == 0) {
        puts("no attachments: `vpool attach POOL/VOL --ublk` makes one");
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
        table_add(&t, "%s", json_text(a, "used_by")[0] ? json_text(a, "used_by") : "-");
    }
    table_print(&t);
}

static int cmd_attachments(struct cli *cli, int argc, char **argv)
{
    int n = opts_parse(cli, argc, argv, NULL, 0, 0);
    return opts_failed(n) ? opts_exit(n)
                          : cli_show(cli, "attachments", json_object(), print_attachments);
}

const struct command commands_attach[] = {
    {"attach",
     "POOL/VOL --ublk|--nbd unix:PATH|tcp:HOST:PORT [--readonly] [--owner USER] [--group GROUP] "
     "[--mode MODE]",
     "Serves a volume; prints its block device, or the URI for its clients.\n"
     "  --ublk           as /dev/ublkbN of this machine\n"
     "  --number N       which N; the kernel chooses one\n"
     "  --queues N       hardware queues of the device: 1 to 16; 1\n"
     "  --depth N        requests in flight in each queue; 64\n"
     "  --nbd ADDRESS    unix:PATH, or tcp:HOST:PORT (port 0 picks a free one)\n"
     "  --owner USER, --group GROUP, --mode MODE\n"
     "                   of the unix socket, by name or number; the daemon's, and 0660\n"
     "  --readonly       clients may not write\n"
     "The attachment comes back after a restart, until it is detached.",
     cmd_attach},
    {"detach", "POOL/VOL [--nbd ADDRESS] [--ublk] [--all] [--force]",
     "Ends serving a volume.\n"
     "  --nbd ADDRESS    which one, when there are several\n"
     "  --ublk           its block device\n"
     "  -f, --force      also when it is in use: its users then see errors\n"
     "  -a, --all        every one",
     cmd_detach},
    {"attachments", "", "What is served, and where.", cmd_attachments},
    {0}};

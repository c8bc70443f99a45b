/* Commands about the block devices that the kernel has, attached or left behind. */
#include "tools/vpool/cli.h"

#include "ublk/target.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void print_devices(const json_t *result)
{
    static const char *const headers[] = {"DEVICE",  "OWNER",   "VOLUME", "STATE",
                                          ">SERVER", "USED BY", NULL};
    const json_t *list = json_object_get(result, "devices");
    const char *reason = json_text(result, "reason");
    if (json_array_size(list) == 0)
        puts("no ublk devices");
    if (reason[0])
        printf("new ones cannot be made: %s\n", reason);
    if (json_array_size(list) == 0)
        return;
    struct table t;
    table_init(&t, "", headers);
    size_t i;
    const json_t *d;
    json_array_foreach(list, i, d)
    {
        int pid = (int)json_number(d, "server_pid");
        const char *users = json_text(d, "used_by");
        table_add(&t, "%s", json_text(d, "device"));
        table_add(&t, "%s", json_text(d, "owner"));
        table_add(&t, "%s", json_text(d, "volume")[0] ? json_text(d, "volume") : "-");
        table_add(&t, "%s", json_text(d, "state"));
        if (pid > 0)
            table_add(&t, "%d", pid);
        else
            table_add(&t, "-");
        table_add(&t, "%s", users[0] ? users : "-");
    }
    table_print(&t);
    json_array_foreach(list, i, d)
    {
        if (json_text(d, "error")[0])
            printf("%s does not answer: %s\n", json_text(d, "device"), json_text(d, "error"));
    }
}

static int cmd_list(struct cli *cli, int argc, char **argv)
{
    int n = opts_parse(cli, argc, argv, NULL, 0, 0);
    return opts_failed(n) ? opts_exit(n) : cli_show(cli, "ublk.list", json_object(), print_devices);
}

static void print_removed(const json_t *r)
{
    const json_t *d = json_object_get(r, "device");
    const char *users = json_text(d, "used_by");
    printf("%s %s (of %s)",
           json_is_true(json_object_get(r, "dry_run")) ? "would remove" : "removed",
           json_text(d, "device"), json_text(d, "volume"));
    if (users[0])
        printf("; its users see errors: %s", users);
    putchar('\n');
}

static int cmd_remove(struct cli *cli, int argc, char **argv)
{
    bool force = false, dry_run = false;
    const struct opt opts[] = {
        {"force", 'f', OPT_FLAG, &force}, {"dry-run", 'n', OPT_FLAG, &dry_run}, {0}};
    int n = opts_parse(cli, argc, argv, opts, 1, 1);
    if (opts_failed(n))
        return opts_exit(n);
    const char *text = strncmp(argv[1], "/dev/ublkb", 10) == 0 ? argv[1] + 10 : argv[1];
    char *end;
    unsigned long number = strtoul(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end || number > UBLKX_NUMBER_MAX)
        return cli_usage(cli, "'%s' is not the number of a ublk device: write N or /dev/ublkbN",
                         argv[1]);
    return cli_show(cli, "ublk.remove",
                    json_pack("{s:I, s:b, s:b}", "number", (json_int_t)number, "force", force,
                              "dry_run", dry_run),
                    print_removed);
}

const struct command commands_ublk[] = {
    {"ublk list", "",
     "The ublk devices of this machine: whose, served or not, who uses them.\n"
     "  here       an attachment of this daemon\n"
     "  elsewhere  vpool's, served by another daemon\n"
     "  orphan     vpool's, without a daemon: its users wait\n"
     "  other      of another program\n"
     "  unknown    the kernel does not say",
     cmd_list},
    {"ublk remove", "N [--dry-run] [--force]",
     "Removes /dev/ublkbN, whose daemon does not come back. Requests that wait end with errors.\n"
     "Refused for devices that are served and for those of other programs.\n"
     "  -f, --force      also when it is in use, or this daemon knows its pool\n"
     "  -n, --dry-run    only say what would be done",
     cmd_remove},
    {0}};

/* Shared by the commands of the vpool tool. */
#ifndef VP_TOOLS_VPOOL_CLI_H
#define VP_TOOLS_VPOOL_CLI_H

#include "lib/vpool.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { EXIT_DONE = 0, EXIT_REFUSED = 1, EXIT_USAGE = 2, EXIT_ATTENTION = 3 };

struct command;

struct cli {
    const char *socket; /* NULL: the library's choice */
    bool json;
    struct vpool_client *client; /* connected on first use; owned */
    const struct command *command;
};

/* A command: `argv[0]` is its name. Returns the exit code. */
struct command {
    const char *name; /* "volume create" */
    const char *args; /* "POOL/VOL --size BYTES …" */
    const char *help; /* what --help says; the first line stands in the list of commands */
    int (*run)(struct cli *cli, int argc, char **argv);
};

extern const struct command commands_pool[], commands_disk[], commands_volume[], commands_attach[],
    commands_ublk[], commands_watch[], commands_jobs[], commands_migrate[];

/* ---- options -------------------------------------------------------------------------------- */

enum opt_kind { OPT_FLAG, OPT_TEXT, OPT_SIZE, OPT_NUMBER, OPT_LIST };

#define SIZE_NOT_GIVEN UINT64_MAX /* what an OPT_SIZE is set to before */

struct opt {
    const char *name; /* without "--"; NULL ends a table */
    char letter;      /* 0 = none */
    enum opt_kind kind;
    void *to; /* bool, const char *, uint64_t, uint64_t, json_t * (array, created on first use) */
};

/*
 * Parses options and positional arguments in any order. --json and --help are understood
 * everywhere. When the number of positional arguments is between `min` and `max`, returns that
 * number, and the arguments are moved to argv[1…]. Otherwise says what is wrong (opts_failed,
 * opts_exit) and returns a negative number: - exit code - 1.
 */
int opts_parse(struct cli *cli, int argc, char **argv, const struct opt *opts, int min, int max);
static inline bool opts_failed(int n)
{
    return n < 0;
}
static inline int opts_exit(int n)
{
    return -n - 1;
}
/* Says what is wrong with the command line; returns EXIT_USAGE. */
int cli_usage(const struct cli *cli, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* "/abs" for "rel", in malloc'ed memory: the daemon has a working directory of its own. */
char *cli_absolute(const char *path);
/* An array of strings from argv, made absolute. */
json_t *cli_paths(char *const *argv, int count);

/* ---- calls ---------------------------------------------------------------------------------- */

/* Calls the daemon; takes the reference of params (NULL: none). On failure prints the sentence and
 * returns the exit code; *result (may be NULL) is a new reference. */
int cli_call(struct cli *cli, const char *method, json_t *params, json_t **result);
/* The same; then prints the result with --json, else calls `print` (may be NULL). NULL params could
 * not be made. */
int cli_show(struct cli *cli, const char *method, json_t *params,
             void (*print)(const json_t *result));
void cli_print_json(const json_t *value);
/* Prints an error in the form that was asked for; returns EXIT_REFUSED. */
int cli_refuse(const struct cli *cli, const char *name, const char *text);

/* ---- progress -------------------------------------------------------------------------------- */

#define PROGRESS_MS 500 /* between two looks */

struct progress {
    const char *phase;
    uint64_t done, total; /* bytes; total 0: not counted */
    uint64_t rate;        /* bytes a second; 0: not known */
    bool left_known;
    uint64_t seconds_left;
    const char *more; /* NULL: nothing; cut where the line ends */
};
/* Standard error is a terminal, and the output is for people. */
bool progress_is_seen(const struct cli *cli);
/* Writes the line over the one before. */
void progress_show(const struct progress *p);
void progress_clear(void);

/* ---- reading JSON ---------------------------------------------------------------------------- */

const char *json_text(const json_t *object, const char *key); /* "" when absent */
uint64_t json_number(const json_t *object, const char *key);  /* 0 when absent */

/* "paused, degraded" of an object's `health`; "-" when all is well. In a static buffer. */
const char *json_health(const json_t *object);

/* ---- tables ---------------------------------------------------------------------------------- */

#define TABLE_COLUMNS_MAX 12

struct table {
    unsigned columns;
    bool right[TABLE_COLUMNS_MAX];
    size_t width[TABLE_COLUMNS_MAX];
    char **cell; /* owned; rows × columns, the header first */
    size_t count, capacity;
    const char *indent;
};

/* `headers` ends with NULL; one that starts with '>' is aligned right. */
void table_init(struct table *t, const char *indent, const char *const *headers);
/* Adds one cell; a row is complete after as many cells as there are headers. */
void table_add(struct table *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void table_add_size(struct table *t, uint64_t bytes);
/* Prints and frees. */
void table_print(struct table *t);

/* "1 disk", "2 disks" in one of a few static buffers. */
const char *count_text(uint64_t n, const char *what);
/* "1.5G" in one of a few static buffers. */
const char *size_text(uint64_t bytes);
/* Seconds since 1970, as local time. */
#define WHEN_TEXT 40
const char *when_text(const json_t *from, const char *key, char text[static WHEN_TEXT]);

#endif

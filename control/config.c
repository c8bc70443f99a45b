/* One table describes every key; the walk over the file looks each setting up in it. */
#include "control/config.h"

#include "base/attr.h"
#include "base/bytes.h"
#include "control/address.h"

#include <errno.h>
#include <grp.h>
#include <inttypes.h>
#include <libconfig.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define CONFIG_FILE_MAX (1U << 20)

enum key_kind {
    KEY_TEXT,
    KEY_PATH,
    KEY_ADDRESS,
    KEY_NUMBER,
    KEY_SIZE,
    KEY_LEVEL,
    KEY_BIND,
    KEY_DIRS
};

struct key {
    const char *group; /* "" = top level */
    const char *name;
    enum key_kind kind;
    size_t offset;
    uint64_t min, max; /* numbers: bounds; texts: max is the size of the field */
};

#define FIELD(f)      offsetof(struct control_config, f)
#define FIELD_SIZE(f) sizeof(((struct control_config *)0)->f)

static const struct key keys[] = {
    {"", "socket", KEY_PATH, FIELD(socket), 1, FIELD_SIZE(socket)},
    {"", "socket-group", KEY_TEXT, FIELD(socket_group), 0, FIELD_SIZE(socket_group)},
    {"", "state-dir", KEY_PATH, FIELD(state_dir), 1, FIELD_SIZE(state_dir)},
    {"", "log-level", KEY_LEVEL, FIELD(log_level), 0, 0},
    {"", "log-file", KEY_PATH, FIELD(log_file), 0, FIELD_SIZE(log_file)},
    {"", "disk-dirs", KEY_DIRS, FIELD(disk_dirs), 0, CONTROL_DISK_DIRS_MAX},
    {"", "import-wait", KEY_NUMBER, FIELD(import_wait_s), 0, 3600},
    {"", "reactors", KEY_NUMBER, FIELD(reactors), 0, CONTROL_REACTORS_MAX},
    {"", "poll-us", KEY_NUMBER, FIELD(poll_us), 0, 1000000},
    {"", "metadata-memory", KEY_SIZE, FIELD(metadata_bytes), 4 << 20, UINT64_C(1) << 40},
    {"", "buffer-memory", KEY_SIZE, FIELD(buffer_bytes), 4 << 20, UINT64_C(64) << 30},
    {"", "commit-interval-ms", KEY_NUMBER, FIELD(commit_interval_ms), 10, 3600000},
    {"spares", "after", KEY_NUMBER, FIELD(spare_after_s), 0, 604800},
    {"spares", "after-missing", KEY_NUMBER, FIELD(spare_after_missing_s), 0, 604800},
    {"scrub", "every-days", KEY_NUMBER, FIELD(scrub_days), 0, 3650},
    {"scrub", "limit", KEY_SIZE, FIELD(scrub_limit), 0, INT64_MAX},
    {"control", "max-connections", KEY_NUMBER, FIELD(control_connections_max), 1, 1024},
    {"control", "frame-timeout-ms", KEY_NUMBER, FIELD(control_frame_timeout_ms), 100, 600000},
    {"nbd", "tcp-bind", KEY_BIND, FIELD(nbd_tcp_bind), 0, 0},
    {"nbd", "max-connections", KEY_NUMBER, FIELD(nbd_connections_max), 1, 65536},
    {"nbd", "connections-per-volume", KEY_NUMBER, FIELD(nbd_connections_per_volume), 1, 4096},
    {"nbd", "handshake-timeout-ms", KEY_NUMBER, FIELD(nbd_handshake_timeout_ms), 100, 600000},
    {"nbd", "requests-per-connection", KEY_NUMBER, FIELD(nbd_requests_per_connection), 1, 1024},
    {"nbd", "buffer-per-connection", KEY_SIZE, FIELD(nbd_buffer_per_connection), 2 << 20,
     UINT64_C(1) << 30},
    {"migrate", "listen", KEY_ADDRESS, FIELD(migrate_listen), 0, FIELD_SIZE(migrate_listen)},
    {"migrate", "tcp-bind", KEY_BIND, FIELD(migrate_tcp_bind), 0, 0},
    {"migrate", "max-connections", KEY_NUMBER, FIELD(migrate_connections_max), 1, 1024},
};
#define KEY_COUNT (sizeof(keys) / sizeof(keys[0]))

void control_config_defaults(struct control_config *c)
{
    *c = (struct control_config){
        .socket = "/run/vpool/vpoold.sock",
        .state_dir = "/var/lib/vpool",
        .log_level = VP_LOG_INFO,
        .disk_dirs = {"/dev/disk/by-id"},
        .disk_dir_count = 1,
        .import_wait_s = 15,
        .spare_after_s = 60,
        .spare_after_missing_s = 600,
        .metadata_bytes = 256 << 20,
        .buffer_bytes = 64 << 20,
        .commit_interval_ms = 5000,
        .control_connections_max = 64,
        .control_frame_timeout_ms = 10000,
        .nbd_tcp_bind = CONTROL_TCP_LOOPBACK,
        .nbd_connections_max = 1024,
        .nbd_handshake_timeout_ms = 10000,
        .nbd_connections_per_volume = 64,
        .nbd_requests_per_connection = 128,
        .nbd_buffer_per_connection = 16 << 20,
        .migrate_tcp_bind = CONTROL_TCP_LOOPBACK,
        .migrate_connections_max = 64,
    };
}

/* What a decoder needs to complain: the place, and the name of a text that is not a file. */
struct place {
    const char *file;
    unsigned line;
    const char *key;
};

static struct place place_of(const config_setting_t *s, const char *name)
{
    const char *file = config_setting_source_file(s);
    const char *key = config_setting_name(s);
    return (struct place){file ? file : name, config_setting_source_line(s), key ? key : "?"};
}

static int want(struct vp_error *err, struct place at, const char *what)
{
    return vp_fail(err, VP_E_CONFIG_BAD, "%s:%u: '%s' must be %s", at.file, at.line, at.key, what);
}

static int copy_text(char *to, size_t size, const char *text, struct place at, struct vp_error *err)
{
    size_t len = strlen(text);
    if (len >= size)
        return vp_fail(err, VP_E_CONFIG_BAD, "%s:%u: '%s' is longer than %zu bytes", at.file,
                       at.line, at.key, size - 1);
    memcpy(to, text, len + 1);
    return 0;
}

static int decode_text(const struct key *k, const config_setting_t *s, struct place at, char *to,
                       struct vp_error *err)
{
    const char *text = config_setting_get_string(s);
    if (!text)
        return want(err, at, "a text in double quotes");
    if (k->kind == KEY_PATH && text[0] != '/' && (k->min || text[0]))
        return want(err, at, "an absolute path, \"/…\"");
    return copy_text(to, k->max, text, at, err);
}

static int decode_address(const struct key *k, const config_setting_t *s, struct place at, char *to,
                          struct vp_error *err)
{
    const char *text = config_setting_get_string(s);
    struct nbdx_address address;
    struct vp_error why;
    if (!text || (text[0] && nbdx_address_parse(text, &address, &why)))
        return want(err, at, "\"\", \"unix:/PATH\" or \"tcp:HOST:PORT\"");
    if (text[0] && address.kind == NBDX_UNIX && address.path[0] != '/')
        return want(err, at, "an absolute path, \"unix:/…\"");
    return copy_text(to, k->max, text, at, err);
}

static bool get_number(const config_setting_t *s, uint64_t *out)
{
    int type = config_setting_type(s);
    if (type != CONFIG_TYPE_INT && type != CONFIG_TYPE_INT64)
        return false;
    long long v = type == CONFIG_TYPE_INT ? config_setting_get_int(s) : config_setting_get_int64(s);
    if (v < 0)
        return false;
    *out = (uint64_t)v;
    return true;
}

static int check_bounds(const struct key *k, uint64_t v, struct place at, uint64_t *to,
                        struct vp_error *err)
{
    if (v < k->min || v > k->max)
        return vp_fail(err, VP_E_CONFIG_BAD,
                       "%s:%u: '%s' is %" PRIu64 ", which is not between %" PRIu64 " and %" PRIu64,
                       at.file, at.line, at.key, v, k->min, k->max);
    *to = v;
    return 0;
}

static int decode_number(const struct key *k, const config_setting_t *s, struct place at,
                         uint64_t *to, struct vp_error *err)
{
    uint64_t v;
    const char *text = config_setting_get_string(s);
    if (k->kind == KEY_SIZE && text) {
        if (!bytes_parse_size(text, &v))
            return want(err, at, "a size such as \"256M\"");
    } else if (!get_number(s, &v)) {
        return want(err, at,
                    k->kind == KEY_SIZE ? "a size such as \"256M\"" : "a number, not negative");
    }
    return check_bounds(k, v, at, to, err);
}

static int decode_level(const config_setting_t *s, struct place at, enum vp_log_level *to,
                        struct vp_error *err)
{
    const char *text = config_setting_get_string(s);
    int level = text ? vp_log_level_parse(text) : -1;
    if (level < 0)
        return want(err, at, "\"error\", \"warn\", \"info\" or \"debug\"");
    *to = (enum vp_log_level)level;
    return 0;
}

static int decode_bind(const config_setting_t *s, struct place at, enum control_tcp_bind *to,
                       struct vp_error *err)
{
    static const char *const names[] = {"off", "loopback", "any"};
    const char *text = config_setting_get_string(s);
    for (unsigned i = 0; text && i < 3; i++) {
        if (strcmp(text, names[i]) == 0) {
            *to = (enum control_tcp_bind)i;
            return 0;
        }
    }
    return want(err, at, "\"off\", \"loopback\" or \"any\"");
}

static int decode_dirs(const config_setting_t *s, struct place at, struct control_config *c,
                       struct vp_error *err)
{
    int type = config_setting_type(s);
    if (type != CONFIG_TYPE_ARRAY && type != CONFIG_TYPE_LIST)
        return want(err, at, "a list of directories: [\"/dev/disk/by-id\"]");
    int count = config_setting_length(s);
    if (count > CONTROL_DISK_DIRS_MAX)
        return want(err, at, "a list of at most 16 directories");
    for (int i = 0; i < count; i++) {
        const char *text = config_setting_get_string_elem(s, i);
        if (!text || text[0] != '/')
            return want(err, at, "a list of absolute paths in double quotes");
        int rc = copy_text(c->disk_dirs[i], CONTROL_PATH_MAX, text, at, err);
        if (rc)
            return rc;
    }
    c->disk_dir_count = (unsigned)count;
    return 0;
}

static int decode(const struct key *k, const config_setting_t *s, struct place at,
                  struct control_config *c, struct vp_error *err)
{
    void *to = (char *)c + k->offset;
    switch (k->kind) {
    case KEY_TEXT:
    case KEY_PATH:
        return decode_text(k, s, at, to, err);
    case KEY_ADDRESS:
        return decode_address(k, s, at, to, err);
    case KEY_NUMBER:
    case KEY_SIZE:
        return decode_number(k, s, at, to, err);
    case KEY_LEVEL:
        return decode_level(s, at, to, err);
    case KEY_BIND:
        return decode_bind(s, at, to, err);
    case KEY_DIRS:
        return decode_dirs(s, at, c, err);
    }
    return want(err, at, "known");
}

static const struct key *key_find(const char *group, const char *name)
{
    for (size_t i = 0; i < KEY_COUNT; i++)
        if (strcmp(keys[i].group, group) == 0 && strcmp(keys[i].name, name) == 0)
            return &keys[i];
    return NULL;
}

static bool group_is_known(const char *name)
{
    for (size_t i = 0; i < KEY_COUNT; i++)
        if (keys[i].group[0] && strcmp(keys[i].group, name) == 0)
            return true;
    return false;
}

static int refuse_unknown(const char *group, struct place at, struct vp_error *err)
{
    char known[400];
    size_t len = 0;
    known[0] = 0;
    for (size_t i = 0; i < KEY_COUNT && len < sizeof(known); i++)
        if (strcmp(keys[i].group, group) == 0)
            len += (size_t)snprintf(known + len, sizeof(known) - len, " %s", keys[i].name);
    return vp_fail(err, VP_E_CONFIG_BAD, "%s:%u: unknown key '%s'%s%s; known here are:%s", at.file,
                   at.line, at.key, group[0] ? " in group " : "", group, known);
}

static int decode_group(const char *group, const config_setting_t *g, const char *name,
                        struct control_config *c, struct vp_error *err)
{
    for (int i = 0; i < config_setting_length(g); i++) {
        const config_setting_t *s = config_setting_get_elem(g, (unsigned)i);
        struct place at = place_of(s, name);
        const struct key *k = key_find(group, at.key);
        int rc;
        if (!group[0] && group_is_known(at.key))
            rc = config_setting_is_group(s) ? decode_group(at.key, s, name, c, err)
                                            : want(err, at, "a group: { key = value; … }");
        else
            rc = k ? decode(k, s, at, c, err) : refuse_unknown(group, at, err);
        if (rc)
            return rc;
    }
    return 0;
}

static int decode_file(config_t *file, bool parsed, const char *name, struct control_config *c,
                       struct vp_error *err)
{
    if (!parsed)
        return vp_fail(err, VP_E_CONFIG_BAD, "%s:%d: %s",
                       config_error_file(file) ? config_error_file(file) : name,
                       config_error_line(file), config_error_text(file));
    return decode_group("", config_root_setting(file), name, c, err);
}

int control_config_parse(struct control_config *c, const char *text, const char *name,
                         struct vp_error *err)
{
    config_t file;
    config_init(&file);
    int rc = decode_file(&file, config_read_string(&file, text), name, c, err);
    config_destroy(&file);
    return rc;
}

/* libconfig takes the end of the file for the end of a comment: what stands behind it is lost. 0,
 * or the line where it begins. */
static unsigned unterminated_comment(const char *text)
{
    unsigned line = 1, began = 0;
    enum { CODE, STRING, LINE, BLOCK } in = CODE;
    for (const char *p = text; *p; p++) {
        line += *p == '\n';
        if (in == STRING && *p == '\\' && p[1])
            p++;
        else if (in == BLOCK ? p[0] == '*' && p[1] == '/' : in == LINE && *p == '\n')
            p += in == BLOCK, in = CODE;
        else if (in == STRING && *p == '"')
            in = CODE;
        else if (in != CODE)
            continue;
        else if (*p == '"')
            in = STRING;
        else if (*p == '#' || (p[0] == '/' && p[1] == '/'))
            in = LINE;
        else if (p[0] == '/' && p[1] == '*')
            in = BLOCK, began = line, p++;
    }
    return in == BLOCK ? began : 0;
}

/* The whole file, ended by a NUL; owned by the caller. */
static int read_file(const char *path, char **out, struct vp_error *err)
{
    AUTO_FILE FILE *in = fopen(path, "re");
    if (!in)
        return vp_fail_errno(err, vp_err_from_errno(errno), errno, "configuration %s", path);
    char *text = calloc(1, CONFIG_FILE_MAX + 1);
    if (!text)
        return vp_fail(err, VP_E_NO_MEMORY, "out of memory");
    size_t len = fread(text, 1, CONFIG_FILE_MAX, in);
    int rc = 0;
    if (ferror(in))
        rc = vp_fail_errno(err, vp_err_from_errno(errno), errno, "configuration %s", path);
    else if (len == CONFIG_FILE_MAX || strlen(text) != len)
        rc = vp_fail(err, VP_E_CONFIG_BAD, "configuration %s: not a text of less than 1 MiB", path);
    if (rc == 0)
        *out = text;
    else
        free(text);
    return rc;
}

int control_config_load(struct control_config *c, const char *path, struct vp_error *err)
{
    char *text = NULL;
    int rc = read_file(path, &text, err);
    if (rc)
        return rc;
    unsigned line = unterminated_comment(text);
    rc = line ? vp_fail(err, VP_E_CONFIG_BAD, "%s:%u: this comment has no end", path, line)
              : control_config_parse(c, text, path, err);
    free(text);
    return rc;
}

/* ---- against this machine ------------------------------------------------------------------ */

/* The directory in which `path` is, or would be, must be there. */
static int check_directory_of(const char *what, const char *path, struct vp_error *err)
{
    char dir[CONTROL_PATH_MAX];
    struct stat st;
    const char *slash = strrchr(path, '/');
    if (!slash)
        return 0;
    (void)snprintf(dir, sizeof(dir), "%.*s", slash == path ? 1 : (int)(slash - path), path);
    if (strcmp(dir, "/run/vpool") == 0) /* systemd makes it for the service, at its start */
        return 0;
    if (stat(dir, &st) == 0 && S_ISDIR(st.st_mode))
        return 0;
    return vp_fail(err, VP_E_NOT_FOUND, "%s %s: there is no directory %s", what, path, dir);
}

static int check_not_directory(const char *what, const char *path, struct vp_error *err)
{
    struct stat st;
    if (!path[0] || stat(path, &st) != 0 || !S_ISDIR(st.st_mode))
        return 0;
    return vp_fail(err, VP_E_INVALID, "%s %s is a directory", what, path);
}

static int check_migrate_listen(const struct control_config *c, struct vp_error *err)
{
    struct nbdx_address address;
    int rc = control_migrate_address(c, &address, err);
    if (rc || !c->migrate_listen[0] || address.kind != NBDX_UNIX)
        return rc;
    rc = check_directory_of("migrate.listen", address.path, err);
    return rc ? rc : check_not_directory("migrate.listen", address.path, err);
}

int control_config_check(const struct control_config *c, struct vp_error *err)
{
    if (c->socket_group[0] && !getgrnam(c->socket_group))
        return vp_fail(err, VP_E_NOT_FOUND,
                       "socket-group '%s' does not exist: create it or change the configuration",
                       c->socket_group);
    int rc = check_directory_of("socket", c->socket, err);
    if (rc == 0)
        rc = check_not_directory("socket", c->socket, err);
    if (rc == 0)
        rc = check_directory_of("state directory", c->state_dir, err);
    if (rc == 0)
        rc = check_migrate_listen(c, err);
    if (rc == 0 && c->log_file[0])
        rc = check_directory_of("log file", c->log_file, err);
    return rc ? rc : check_not_directory("log file", c->log_file, err);
}

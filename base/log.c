/* One write(2)-sized line per message, so that lines of several threads never mix. */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static _Atomic enum vp_log_level max_level = VP_LOG_INFO;
static void (*log_sink)(enum vp_log_level level, const char *line, void *arg);
static void *log_sink_arg;

/* systemd's <N> prefixes are not used: the level stands in the line, for people. */
static const char *const names[] = {"error", "warn", "info", "debug"};

void vp_log_set_level(enum vp_log_level level)
{
    max_level = level;
}

int vp_log_level_parse(const char *name)
{
    for (int i = 0; i < (int)(sizeof(names) / sizeof(names[0])); i++)
        if (strcmp(name, names[i]) == 0)
            return i;
    return -1;
}

void vp_log_set_sink(void (*sink)(enum vp_log_level level, const char *line, void *arg), void *arg)
{
    log_sink = sink;
    log_sink_arg = arg;
}

void vp_log(enum vp_log_level level, const char *fmt, ...)
{
    if (level > max_level)
        return;
    char line[1024];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(line, sizeof(line), fmt, ap);
    va_end(ap);
    if (n < 0)
        return;
    if (log_sink)
        log_sink(level, line, log_sink_arg);
    else
        (void)fprintf(stderr, "%s: %s\n", names[level], line);
}

/* One write(2)-sized line per message, so that lines of several threads never mix. */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static _Atomic enum vp_log_level max_level = VP_LOG_INFO;
static void (*log_sink)(enum vp_log_level level, const char *line, void *arg);
static void *log_sink_arg;

static _Atomic enum vp_log_form log_form = VP_LOG_PLAIN;

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

void vp_log_set_form(enum vp_log_form form)
{
    log_form = form;
}

static void write_line(enum vp_log_level level, const char *line)
{
    static const int priority[] = {3, 4, 6, 7}; /* syslog(3) */
    char when[40] = "";
    struct timespec now;
    struct tm tm;
    if (log_form == VP_LOG_FOR_JOURNAL) {
        (void)fprintf(stderr, "<%d>%s\n", priority[level], line);
        return;
    }
    if (log_form == VP_LOG_WITH_TIME && clock_gettime(CLOCK_REALTIME, &now) == 0 &&
        localtime_r(&now.tv_sec, &tm) && strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S", &tm))
        (void)fprintf(stderr, "%s.%03ld %s: %s\n", when, now.tv_nsec / 1000000, names[level], line);
    else
        (void)fprintf(stderr, "%s: %s\n", names[level], line);
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
        write_line(level, line);
}

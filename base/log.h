/*
 * The log: lines on stderr (journald reads them), or a sink that a test installs.
 * A function either logs or returns an error, never both.
 */
#ifndef VP_BASE_LOG_H
#define VP_BASE_LOG_H

enum vp_log_level { VP_LOG_ERROR, VP_LOG_WARN, VP_LOG_INFO, VP_LOG_DEBUG };

/* Lines above `level` are dropped; the default is VP_LOG_INFO. Any thread. */
void vp_log_set_level(enum vp_log_level level);

/* "error", "warn", "info", "debug" → level; -1 for anything else. */
int vp_log_level_parse(const char *name);

/* The start of each line on stderr: the level; the time and the level; or the priority that
 * journald takes ("<3>"). The default is the level alone, for tools. Any thread. */
enum vp_log_form { VP_LOG_PLAIN, VP_LOG_WITH_TIME, VP_LOG_FOR_JOURNAL };
void vp_log_set_form(enum vp_log_form form);

/* Replaces stderr as the target (NULL restores it). `line` has no newline. Any thread. */
void vp_log_set_sink(void (*sink)(enum vp_log_level level, const char *line, void *arg), void *arg);

void vp_log(enum vp_log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define vp_error_log(...) vp_log(VP_LOG_ERROR, __VA_ARGS__)
#define vp_warn(...)      vp_log(VP_LOG_WARN, __VA_ARGS__)
#define vp_info(...)      vp_log(VP_LOG_INFO, __VA_ARGS__)
#define vp_debug(...)     vp_log(VP_LOG_DEBUG, __VA_ARGS__)

#endif

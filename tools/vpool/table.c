/* Tables for people: columns as wide as their widest cell. */
#include "tools/vpool/cli.h"

#include "base/bytes.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void add_cell(struct table *t, char *text)
{
    if (t->count == t->capacity) {
        t->capacity = t->capacity ? t->capacity * 2 : 64;
        char **cell = realloc(t->cell, t->capacity * sizeof(*cell));
        if (!cell) {
            fputs("vpool: out of memory\n", stderr);
            exit(EXIT_REFUSED);
        }
        t->cell = cell;
    }
    size_t *width = &t->width[t->count % t->columns];
    size_t len = text ? strlen(text) : 0;
    *width = len > *width ? len : *width;
    t->cell[t->count++] = text;
}

void table_init(struct table *t, const char *indent, const char *const *headers)
{
    *t = (struct table){.indent = indent};
    while (headers[t->columns])
        t->columns++;
    for (unsigned i = 0; i < t->columns; i++) {
        t->right[i] = headers[i][0] == '>';
        add_cell(t, strdup(headers[i] + t->right[i]));
    }
}

void table_add(struct table *t, const char *fmt, ...)
{
    char *text = NULL;
    va_list ap;
    va_start(ap, fmt);
    if (vasprintf(&text, fmt, ap) < 0)
        text = NULL;
    va_end(ap);
    add_cell(t, text);
}

void table_add_size(struct table *t, uint64_t bytes)
{
    table_add(t, "%s", size_text(bytes));
}

void table_print(struct table *t)
{
    for (size_t i = 0; i < t->count; i++) {
        size_t column = i % t->columns;
        const char *text = t->cell[i] ? t->cell[i] : "";
        fputs(column == 0 ? t->indent : "  ", stdout);
        if (t->right[column])
            printf("%*s", (int)t->width[column], text);
        else if (column + 1 < t->columns)
            printf("%-*s", (int)t->width[column], text);
        else
            fputs(text, stdout);
        if (column + 1 == t->columns)
            putchar('\n');
        free(t->cell[i]);
    }
    free(t->cell);
    t->cell = NULL;
}

const char *when_text(const json_t *from, const char *key, char text[static WHEN_TEXT])
{
    time_t seconds = (time_t)json_number(from, key);
    struct tm tm;
    if (!localtime_r(&seconds, &tm) || !strftime(text, WHEN_TEXT, "%Y-%m-%d %H:%M:%S", &tm))
        return "?";
    return text;
}

const char *size_text(uint64_t bytes)
{
    static char buf[8][24];
    static unsigned next;
    char *to = buf[next++ % 8];
    return bytes_format_size(bytes, to, sizeof(buf[0]));
}

const char *count_text(uint64_t n, const char *what)
{
    static char buf[8][40];
    static unsigned next;
    char *to = buf[next++ % 8];
    (void)snprintf(to, sizeof(buf[0]), "%llu %s%s", (unsigned long long)n, what, n == 1 ? "" : "s");
    return to;
}

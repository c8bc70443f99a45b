/* What is said, as text or JSON. */
#include "tools/vpool-check/check.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

_Noreturn void check_out_of_memory(void)
{
    fputs("vpool-check: out of memory\n", stderr);
    exit(1);
}

void *check_grow(void *p, size_t count, size_t bytes)
{
    void *more = reallocarray(p, count ? count : 1, bytes);
    if (!more)
        check_out_of_memory();
    return more;
}

void check_put(json_t *object, const char *key, json_t *value)
{
    if (!value || json_object_set_new(object, key, value) != 0)
        check_out_of_memory();
}

json_t *check_uuid(struct vp_uuid u)
{
    char text[VP_UUID_TEXT];
    return json_string(vp_uuid_format(u, text));
}

static void finding(struct check *c, json_t *list, const char *word, const char *part,
                    const char *fmt, va_list args)
{
    char text[512];
    (void)vsnprintf(text, sizeof(text), fmt, args);
    json_t *o = json_pack("{s:s, s:s}", "part", part, "text", text);
    if (!o || json_array_append_new(list, o) != 0)
        check_out_of_memory();
    if (!c->json)
        printf("%s: %s: %s\n", word, part, text);
}

void check_problem(struct check *c, const char *part, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    finding(c, c->problems, "PROBLEM", part, fmt, args);
    va_end(args);
}

void check_note(struct check *c, const char *part, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    finding(c, c->notes, "note", part, fmt, args);
    va_end(args);
}

void check_say(struct check *c, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    if (!c->json) {
        vprintf(fmt, args);
        putchar('\n');
    }
    va_end(args);
}

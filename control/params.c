/* Decoding of parameters. */
#include "control/params.h"

#include <inttypes.h>
#include <string.h>

#define STRING_MAX 255

static int bad(struct vp_error *err, const struct param *p, const char *what)
{
    return vp_fail(err, VP_E_RPC_PARAMS, "parameter '%s' must be %s", p->name, what);
}

/* jansson has checked UTF-8; what is left are embedded NULs, control characters and the length. */
static int check_string(const struct param *p, const json_t *value, bool path, size_t longest,
                        struct vp_error *err)
{
    const char *text = json_string_value(value);
    size_t len = json_string_length(value);
    if (len > longest)
        return vp_fail(err, VP_E_RPC_PARAMS, "parameter '%s' is longer than %zu bytes", p->name,
                       longest);
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
            return bad(err, p, "free of control characters");
    if (path && text[0] != '/')
        return vp_fail(err, VP_E_RPC_PARAMS,
                       "parameter '%s': '%s' must be an absolute path (the daemon has a working "
                       "directory of its own)",
                       p->name, text);
    return 0;
}

static int decode_string(const struct param *p, const json_t *value, const char **to,
                         struct vp_error *err)
{
    if (!json_is_string(value))
        return bad(err, p, "a string");
    int rc = check_string(p, value, p->type == PARAM_PATH, p->max ? p->max : STRING_MAX, err);
    if (rc == 0)
        *to = json_string_value(value);
    return rc;
}

static int decode_strings(const struct param *p, const json_t *value, const json_t **to,
                          struct vp_error *err)
{
    if (!json_is_array(value))
        return bad(err, p, "an array of strings");
    size_t most = p->max ? p->max : PARAM_STRINGS_MAX;
    if (json_array_size(value) < p->min || json_array_size(value) > most)
        return vp_fail(err, VP_E_RPC_PARAMS,
                       "parameter '%s' has %zu elements, which is not between %" PRIu64 " and %zu",
                       p->name, json_array_size(value), p->min, most);
    for (size_t i = 0; i < json_array_size(value); i++) {
        const json_t *s = json_array_get(value, i);
        if (!json_is_string(s))
            return bad(err, p, "an array of strings");
        int rc = check_string(p, s, p->type == PARAM_PATHS, STRING_MAX, err);
        if (rc)
            return rc;
    }
    *to = value;
    return 0;
}

static int decode_number(const struct param *p, const json_t *value, uint64_t *to,
                         struct vp_error *err)
{
    json_int_t v = json_integer_value(value);
    if (!json_is_integer(value) || v < 0)
        return bad(err, p, "a whole number, not negative");
    if ((uint64_t)v < p->min || (uint64_t)v > p->max)
        return vp_fail(err, VP_E_RPC_PARAMS,
                       "parameter '%s' is %" PRIu64 ", which is not between %" PRIu64
                       " and %" PRIu64,
                       p->name, (uint64_t)v, p->min, p->max);
    *to = (uint64_t)v;
    return 0;
}

static int decode_one(const struct param *p, const json_t *value, void *args, struct vp_error *err)
{
    void *to = (char *)args + p->offset;
    switch (p->type) {
    case PARAM_STRING:
    case PARAM_PATH:
        return decode_string(p, value, to, err);
    case PARAM_NUMBER:
        return decode_number(p, value, to, err);
    case PARAM_BOOL:
        if (!json_is_boolean(value))
            return bad(err, p, "true or false");
        *(bool *)to = json_is_true(value);
        return 0;
    case PARAM_STRINGS:
    case PARAM_PATHS:
        return decode_strings(p, value, to, err);
    case PARAM_OBJECT: /* as deep as the tables are */
        return json_is_object(value) ? params_decode(p->fields, value, args, err)
                                     : bad(err, p, "an object");
    }
    return bad(err, p, "known");
}

static int refuse_unknown(const struct param *table, const json_t *params, struct vp_error *err)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)params, name, value)
    {
        const struct param *p = table;
        while (p->name && strcmp(p->name, name) != 0)
            p++;
        if (!p->name)
            return vp_fail(err, VP_E_RPC_PARAMS, "unknown parameter '%.60s'", name);
    }
    return 0;
}

int params_decode(const struct param *table, const json_t *params, void *args, struct vp_error *err)
{
    if (json_is_null(params)) /* as a parameter that is null: not given */
        params = NULL;
    if (params && !json_is_object(params))
        return vp_fail(err, VP_E_RPC_PARAMS, "params must be an object with named parameters");
    int rc = params ? refuse_unknown(table, params, err) : 0;
    for (const struct param *p = table; p->name && rc == 0; p++) {
        const json_t *value = json_object_get(params, p->name);
        if (value && !json_is_null(value))
            rc = decode_one(p, value, args, err);
        else if (p->required)
            rc = vp_fail(err, VP_E_RPC_PARAMS, "parameter '%s' is missing", p->name);
    }
    return rc;
}

unsigned params_count(const json_t *strings)
{
    return (unsigned)json_array_size(strings);
}

const char *params_string(const json_t *strings, unsigned i)
{
    return json_string_value(json_array_get(strings, i));
}

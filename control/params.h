/*
 * Parameters of a method: a table of names, types and bounds, from which a JSON object is decoded
 * into the method's own struct. Unknown, missing, ill-typed and out-of-bounds ones are refused.
 */
#ifndef VP_CONTROL_PARAMS_H
#define VP_CONTROL_PARAMS_H

#include "base/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PARAM_STRINGS_MAX 128
#define PARAM_ARGS_MAX    256 /* bytes of a method's struct */

enum param_type {
    PARAM_STRING,  /* const char *, borrowed from the request; NULL when absent  */
    PARAM_PATH,    /* the same, an absolute path                                 */
    PARAM_NUMBER,  /* uint64_t, min … max                                        */
    PARAM_BOOL,    /* bool                                                       */
    PARAM_STRINGS, /* json_t *, an array of strings; NULL when absent            */
    PARAM_PATHS,   /* the same, absolute paths                                   */
    PARAM_OBJECT,  /* an object with parameters of its own, into the same struct */
};

struct param {
    const char *name; /* NULL ends a table */
    enum param_type type;
    bool required;
    size_t offset;
    uint64_t min, max; /* number: bounds; string: longest (0 = 255); strings: most elements */
    const struct param *fields; /* object: its table */
};

#define PARAM(args, field, type_, required_, min_, max_)                                           \
    {                                                                                              \
        .name = #field, .type = (type_), .required = (required_), .offset = offsetof(args, field), \
        .min = (min_), .max = (max_)                                                               \
    }

#define PARAM_FIELDS(name_, required_, fields_)                                                    \
    {                                                                                              \
        .name = (name_), .type = PARAM_OBJECT, .required = (required_), .fields = (fields_)        \
    }

/* Decodes `params` (NULL = none given) into `args`, which the caller has zeroed. Errors:
 * VP_E_RPC_PARAMS with a sentence that names the parameter. */
int params_decode(const struct param *table, const json_t *params, void *args,
                  struct vp_error *err) must_check;

/* Strings of a PARAM_STRINGS value. NULL is an empty list. */
unsigned params_count(const json_t *strings);
const char *params_string(const json_t *strings, unsigned i);

#endif

/*
 * Errors: a code from one table (errors.def) on the data path; a code and a sentence on the
 * control path.
 */
#ifndef VP_BASE_ERROR_H
#define VP_BASE_ERROR_H

#include <stdbool.h>
#include <stddef.h>

#define must_check __attribute__((warn_unused_result))

enum vp_err {
    VP_OK = 0,
    VP_E_BASE = -100000,
#define VP_ERROR(name, errno_class, sentence) VP_E_##name,
#include "base/errors.def"
#undef VP_ERROR
    VP_E_END,
};

/* The sentence of a control-path failure; `text` is empty while rc is 0. Lives with its owner. */
struct vp_error {
    int rc;
    char text[512];
};

/* The errno (positive) that a client sees for `rc`; EIO for a number outside the table, 0 for 0. */
int vp_err_class(int rc);

/* "NO_SPACE" for VP_E_NO_SPACE; "OK" for 0; "UNKNOWN" outside the table. Static storage. */
const char *vp_err_name(int rc);

/* The code of that name; 0: there is none (a newer release's). */
int vp_err_from_name(const char *name);

/* The sentence of the table. Static storage. */
const char *vp_err_text(int rc);

/* The code for a positive errno of a system call; VP_E_SYSTEM when the table has no better one. */
int vp_err_from_errno(int err);

/* Sets *err (may be NULL) to `rc` and the formatted sentence; returns rc, so one can `return
 * vp_fail(err, VP_E_INVALID, "…")`. The text is cut to fit, and is UTF-8 always. The sentence says
 * what was wrong and what to do. */
int vp_fail(struct vp_error *err, int rc, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* As vp_fail, with errno's text appended after ": ". */
int vp_fail_errno(struct vp_error *err, int rc, int errnum, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* Spells out that a result is ignored, and why. */
static inline void vp_ignore(int rc, const char *why)
{
    (void)rc;
    (void)why;
}

#endif

/* Owner, group and mode of a socket file. */
#include "control/attachment_socket.h"

#include "io/offload.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAMES_BYTES 16384U /* of an entry of the user or group database */

bool attachment_socket_equal(struct attachment_socket a, struct attachment_socket b)
{
    return a.uid == b.uid && a.gid == b.gid && a.mode == b.mode;
}

bool attachment_socket_is_default(struct attachment_socket s)
{
    return attachment_socket_equal(s, attachment_socket_default());
}

/* ---- names --------------------------------------------------------------------------------- */

struct look_up {
    const char *owner, *group; /* NULL: not asked for */
    struct attachment_socket *to;
    struct vp_error *err;
};

static bool is_number(const char *text, uint32_t *out)
{
    char *end;
    unsigned long v = text[0] >= '0' && text[0] <= '9' ? strtoul(text, &end, 10) : UINT32_MAX;
    *out = (uint32_t)v;
    return v < UINT32_MAX && *end == 0;
}

static int look_up_owner(const char *name, uint32_t *uid, struct vp_error *err)
{
    char buf[NAMES_BYTES];
    struct passwd pw, *found = NULL;
    if (is_number(name, uid))
        return 0;
    int why = getpwnam_r(name, &pw, buf, sizeof(buf), &found);
    if (!found)
        return why ? vp_fail_errno(err, VP_E_SYSTEM, why, "looking up the user '%.60s'", name)
                   : vp_fail(err, VP_E_NOT_FOUND,
                             "there is no user '%.60s': give a name or a number", name);
    *uid = pw.pw_uid;
    return 0;
}

static int look_up_group(const char *name, uint32_t *gid, struct vp_error *err)
{
    char buf[NAMES_BYTES];
    struct group gr, *found = NULL;
    if (is_number(name, gid))
        return 0;
    int why = getgrnam_r(name, &gr, buf, sizeof(buf), &found);
    if (!found)
        return why ? vp_fail_errno(err, VP_E_SYSTEM, why, "looking up the group '%.60s'", name)
                   : vp_fail(err, VP_E_NOT_FOUND,
                             "there is no group '%.60s': give a name or a number", name);
    *gid = gr.gr_gid;
    return 0;
}

static int look_up_blocking(void *arg)
{
    const struct look_up *l = arg;
    int rc = l->owner ? look_up_owner(l->owner, &l->to->uid, l->err) : 0;
    return rc == 0 && l->group ? look_up_group(l->group, &l->to->gid, l->err) : rc;
}

static int mode_parse(const char *text, uint16_t *out, struct vp_error *err)
{
    char *end = NULL;
    unsigned long v = text[0] >= '0' && text[0] <= '7' ? strtoul(text, &end, 8) : 01000;
    if (v > 0777 || *end)
        return vp_fail(err, VP_E_INVALID,
                       "'%.20s' is not the mode of a socket: write octal digits, such as 0660",
                       text);
    *out = (uint16_t)v;
    return 0;
}

CO int attachment_socket_parse(const char *owner, const char *group, const char *mode,
                               struct attachment_socket *out, struct vp_error *err)
{
    *out = attachment_socket_default();
    struct look_up l = {.owner = owner, .group = group, .to = out, .err = err};
    int rc = mode ? mode_parse(mode, &out->mode, err) : 0;
    return rc || (!owner && !group) ? rc : offload_run(look_up_blocking, &l);
}

/* ---- the file ------------------------------------------------------------------------------ */

struct give_away {
    struct attachment_socket to;
    const char *path;
    struct vp_error *err;
};

static int give_away_blocking(void *arg)
{
    const struct give_away *g = arg;
    struct attachment_socket s = g->to;
    /* The mode first: nobody new may connect before it is what was asked for. */
    if (s.mode != ATTACHMENT_MODE_UNSET && chmod(g->path, s.mode))
        return vp_fail_errno(g->err, VP_E_SYSTEM, errno, "giving %s the mode %04o", g->path,
                             s.mode);
    if ((s.uid != ATTACHMENT_ID_UNSET || s.gid != ATTACHMENT_ID_UNSET) &&
        lchown(g->path, s.uid, s.gid))
        return vp_fail_errno(g->err, vp_err_from_errno(errno), errno,
                             "giving %s to user %d and group %d (-1: as they are)", g->path,
                             (int)s.uid, (int)s.gid);
    return 0;
}

CO int attachment_socket_apply(struct attachment_socket s, const char *path, struct vp_error *err)
{
    struct give_away g = {.to = s, .path = path, .err = err};
    return attachment_socket_is_default(s) ? 0 : offload_run(give_away_blocking, &g);
}

void attachment_socket_show(struct attachment_socket s, json_t *object)
{
    char mode[8];
    (void)snprintf(mode, sizeof(mode), "%04o", s.mode);
    /* No memory: a figure is missing in the reply. */
    (void)json_object_set_new(object, "owner",
                              s.uid == ATTACHMENT_ID_UNSET ? json_null() : json_integer(s.uid));
    (void)json_object_set_new(object, "group",
                              s.gid == ATTACHMENT_ID_UNSET ? json_null() : json_integer(s.gid));
    (void)json_object_set_new(object, "mode",
                              s.mode == ATTACHMENT_MODE_UNSET ? json_null() : json_string(mode));
}

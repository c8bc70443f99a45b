/* The table of kinds of export. */
#include "control/export.h"

const struct export_kind *const export_kinds[] = {&export_nbd, &export_ublk, NULL};

const struct export_kind *export_by_number(unsigned number)
{
    const struct export_kind *const *k = export_kinds;
    while (*k && (*k)->number != number)
        k++;
    return *k;
}

int export_check_no_socket(const struct attachment_options *o, struct vp_error *err)
{
    if (attachment_socket_is_default(o->socket))
        return 0;
    return vp_fail(err, VP_E_RPC_PARAMS,
                   "'owner', 'group' and 'mode' are those of a unix socket: they go with "
                   "unix:PATH only");
}

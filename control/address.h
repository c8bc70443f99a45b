/* Where the daemon may listen for others. There is no TLS yet: whoever reaches a port may use
 * it. */
#ifndef VP_CONTROL_ADDRESS_H
#define VP_CONTROL_ADDRESS_H

#include "control/config.h"
#include "nbd/server.h"

/* A unix socket, or TCP as `bind` allows. `what` and `key` stand in the sentence: "NBD",
 * "nbd.tcp-bind". VP_E_INVALID, VP_E_PERMISSION. */
int control_address_check(const struct nbdx_address *a, enum control_tcp_bind bind,
                          const char *what, const char *key, struct vp_error *err) must_check;
/* migrate.listen, if it is set. VP_E_INVALID, VP_E_PERMISSION. */
int control_migrate_address(const struct control_config *c, struct nbdx_address *out,
                            struct vp_error *err) must_check;

#endif

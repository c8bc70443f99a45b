/* A volume as what a ublk device serves. */
#ifndef VP_UBLK_VOLUME_BACKEND_H
#define VP_UBLK_VOLUME_BACKEND_H

#include "ublk/target.h"
#include "volumes/front.h"

/* On the home reactor. `v` is open. The caller closes it after the target was stopped or left.
 * Until then the volume keeps `client`, which is set up here. */
CO struct ublkx_backend ublkx_volume_backend(struct volume *v, struct front_client *client);

#endif

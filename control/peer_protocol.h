/*
 * What the two daemons of a move say to each other (docs/peer.md): what both sides need of it.
 * method_peer.c answers.
 */
#ifndef VP_CONTROL_PEER_PROTOCOL_H
#define VP_CONTROL_PEER_PROTOCOL_H

#include "migrate/receive.h"

#include <jansson.h>

#define PEER_VERSION    1
#define PEER_HOST_BYTES 65

/* 1 to 64 letters, digits and . _ - */
bool peer_host_is_valid(const char *host);
/* This machine's name, made valid. */
const char *peer_host_own(char out[static PEER_HOST_BYTES]);

/* Params of peer.make: a move to `to`, "POOL" or "POOL/VOL". A new reference; NULL: no memory. */
json_t *peer_offer_json(const struct migrate_offer *o, const char *to);
/* Params of peer.arrive, decide, decline and confirm. `pool`: the target's. */
json_t *peer_claim_json(const struct receive_claim *c, struct vp_uuid pool);

#endif

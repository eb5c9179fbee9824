/* SPDX-License-Identifier: Apache-2.0 */
/* `policy explain` about a packet inside a tunnel, and about what enters by a TUN device. */
#ifndef HERMES_SUPERVISOR_EXPLAIN_PACKET_H
#define HERMES_SUPERVISOR_EXPLAIN_PACKET_H

#include "supervisor/explain_args.h"

struct config_tunnel;
struct config_network;

/* --ip-protocol, --ip-source, --ip-destination, --ip-port: 0, -1: the value is not valid, 1: another option. */
int explain_packet_option(struct explain_args *args, const char *option, const char *value);
/* What belongs to a packet is there; 0, or -1 with error. */
int explain_packet_check(const struct explain_args *args, char *error, size_t size);

/* The device of that name, NULL: none. */
const struct config_tunnel *explain_device(const struct config *config, const char *name);
/* Asks as the device does: about the network that the packet (or --authority, a prefix) belongs to. headers of the network, and
 * its request, go into args. text: room for the authority. 0, or -1 with error. */
#define EXPLAIN_PREFIX_MAX 52u
int explain_pass_device(struct explain_args *args, const struct config_tunnel *device, char text[EXPLAIN_PREFIX_MAX],
                        const struct config_network **network, char *error, size_t size);

#endif

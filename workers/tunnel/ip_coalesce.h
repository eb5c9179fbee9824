/* SPDX-License-Identifier: Apache-2.0 */
/* UDP packets of one flow that came one after another and have one size, as one packet with segmentation offload: towards a far end
 * that takes segments a batch costs one capsule, and its machine one packet (what its kernel does with received ones, GRO). */
#ifndef HERMES_TUNNEL_IP_COALESCE_H
#define HERMES_TUNNEL_IP_COALESCE_H

#include "workers/tunnel/ip_packet.h"
#include "workers/tunnel/ip_segment.h"

struct ip_coalesce;

struct ip_coalesce *ip_coalesce_new(void);
/* Takes the packet (a copy) and returns true where it fits what is gathered, or where nothing is and it may begin a run. ip: as
 * parsed; only its TTL may have changed since. Its checksum must be for the kernel to do, or found right by it. */
bool ip_coalesce_add(struct ip_coalesce *gathered, const struct virtio_net_hdr *header, const uint8_t *packet, size_t length,
                     const struct ip_packet *ip);
/* What was gathered, with the header that describes it; lives until the next add. Returns its length; 0: nothing. Empty after. */
size_t ip_coalesce_take(struct ip_coalesce *gathered, struct virtio_net_hdr *header, uint8_t **packet);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* Packets with a virtio_net_hdr (linux/virtio_net.h) to ordinary ones: what a TUN device with offloads gives, for peers that
 * take only packets of the link's MTU. */
#ifndef HERMES_TUNNEL_IP_SEGMENT_H
#define HERMES_TUNNEL_IP_SEGMENT_H

#include <linux/virtio_net.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VNET_HEADER 10u               /* struct virtio_net_hdr, without num_buffers; its numbers little endian (TUNSETVNETLE) */
#ifndef VIRTIO_NET_HDR_GSO_UDP_L4
#define VIRTIO_NET_HDR_GSO_UDP_L4 5   /* Linux 6.2; Debian 12's headers are older */
#endif

/* Whether the header describes the packet of `length` bytes, which must then be the packet's own length: offsets inside it and on
 * nothing but a checksum, gso type that fits its protocol, gso size > 0, segments that fit SEGMENT_SCRATCH. From a peer or the
 * kernel alike; NULL, or the reason (static). Without offload anything goes: the packet itself is ip_parse()'s to judge. */
const char *vnet_check(const struct virtio_net_hdr *header, const uint8_t *packet, size_t length);

/* Finishes a partial checksum (VIRTIO_NET_HDR_F_NEEDS_CSUM) in place. Checked before. */
void vnet_checksum(const struct virtio_net_hdr *header, uint8_t *packet, size_t length);

/* Cuts a GSO packet (TCPv4, TCPv6, UDP_L4) into packets of its gso_size, each whole with lengths, ids, sequence numbers, flags
 * (PSH and FIN only on the last, CWR only on the first) and checksums, written one after another into scratch (at least
 * SEGMENT_SCRATCH bytes) and handed to each(). A packet without GSO is handed over as it is, its checksum finished. */
#define SEGMENT_SCRATCH (256u * 1024)
void ip_segment(const struct virtio_net_hdr *header, uint8_t *packet, size_t length, uint8_t *scratch,
                void (*each)(void *arg, uint8_t *packet, size_t length), void *arg);

#endif

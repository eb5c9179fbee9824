/* SPDX-License-Identifier: Apache-2.0 */
/* The leg that ends a stream of IP packets in capsules, for both ends of a tunnel: frames packets and hands them to the flow in
 * batches, reads those that come, and stops reading while its owner can take none. What packets are let through is the
 * owner's (ip_network.c, ip_exit.c; ip_way.h). */
#ifndef HERMES_TUNNEL_IP_LEG_H
#define HERMES_TUNNEL_IP_LEG_H

#include "workers/tunnel/device.h"
#include "workers/tunnel/flow.h"

struct ip_leg;

struct ip_leg_callbacks {
	void (*head)(struct ip_leg *leg, const struct head *head, bool end);
	void (*joined)(struct ip_leg *leg, const struct join *join);
	/* From the tunnel; header NULL: an ordinary packet. pieces live for the call. */
	void (*packet)(struct ip_leg *leg, const struct virtio_net_hdr *header, const struct capsule_piece *pieces, unsigned n,
	               size_t length);
	/* One of the three capsules of RFC 9484 4.7. Returns NULL, or why the stream must be aborted (static). */
	const char *(*control)(struct ip_leg *leg, uint64_t type, const uint8_t *value, size_t length);
	/* All of what came together was handed over. */
	void (*received)(struct ip_leg *leg);
	/* The batch is about to leave, or there is room again: put what waits, while ip_leg_room(). */
	void (*ready)(struct ip_leg *leg);
	void (*finished)(struct ip_leg *leg);
	/* The flow is over, by whichever side: no further callback but release(), which frees the memory. */
	void (*closed)(struct ip_leg *leg, enum flow_error error);
	void (*release)(struct ip_leg *leg);
	/* leg_ops.hand_over: what its owner adds; what the leg had begun is given. */
	bool (*hand_over)(struct ip_leg *leg, struct parcel *parcel);
};

/* Embedded first in its owner's struct. Zeroed, then ip_leg_init(). */
struct ip_leg {
	struct leg leg;               /* first */
	const struct ip_leg_callbacks *callbacks;
	struct device *device;        /* a reference */
	bool udp;                     /* packets as payload of CONNECT-UDP: no addresses, segments are runs of datagrams */
	bool joined, segments;
	bool declined;                /* the answer was no: what follows is its body, for nobody */
	bool ended;                   /* we said so */
	bool paused, giving, refused, closed;
	bool wanted;                  /* its owner has more to put than there was room for */
	const char *abort;            /* why the stream is about to be aborted */
	unsigned busy;
	size_t outstanding;           /* given to the flow, not yet taken */
	struct chunks batch;          /* capsules of this turn */
	struct chunks held;           /* received behind the capsule that it paused at */
	struct capsule_reader reader;
	struct device_flush flush;
};

void ip_leg_init(struct ip_leg *leg, struct device *device, bool client, const struct ip_leg_callbacks *callbacks, bool udp);
/* Before its memory goes (in release()), or for one that never met a flow. */
void ip_leg_dispose(struct ip_leg *leg);

/* Another packet or capsule may be put. */
bool ip_leg_room(const struct ip_leg *leg);
/* Frames a packet into the batch: whole with its header where the far end takes that, else as ordinary packets (then the packet's
 * memory is changed). The batch leaves before the device's turn, or the loop's, ends. header NULL: no offload. */
void ip_leg_put(struct ip_leg *leg, const struct virtio_net_hdr *header, uint8_t *packet, size_t length);
/* The same; neighbours of one UDP flow may become one packet with offload (ip_coalesce.h). ip: the packet's. */
void ip_leg_put_flowing(struct ip_leg *leg, const struct virtio_net_hdr *header, uint8_t *packet, size_t length,
                        const struct ip_packet *ip);
void ip_leg_put_capsule(struct ip_leg *leg, uint64_t type, const uint8_t *value, size_t length);
/* Calls ready() soon. */
void ip_leg_wake(struct ip_leg *leg);
/* Inside packet(): no further one until ip_leg_resume(); what comes meanwhile is refused, and its sender waits. */
void ip_leg_pause(struct ip_leg *leg);
void ip_leg_resume(struct ip_leg *leg);
/* Nothing more will be put; what was is still given. */
void ip_leg_end(struct ip_leg *leg);

#endif

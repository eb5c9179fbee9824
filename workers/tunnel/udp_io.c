/* SPDX-License-Identifier: Apache-2.0 */
/* UDP sockets: options, and receiving in batches. udp_send.c sends. */
#include "workers/tunnel/udp_io.h"

#include <errno.h>
#include <linux/errqueue.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>

#define BUFFER 65536u                 /* GRO hands out up to 64 KiB; a smaller one would truncate */
#define SOCKET_BUFFER (1 << 20)
#define LARGE 8192u                   /* messages of this size on average: few at a time, so that they stay in the cache */
#define LARGE_BATCH 4u
#define ERRORS_MAX 64u                /* read from the error queue in one go */

#ifndef IPV6_RECVORIGDSTADDR
#define IPV6_ORIGDSTADDR 74
#define IPV6_RECVORIGDSTADDR IPV6_ORIGDSTADDR
#endif

/* --- options ------------------------------------------------------------------------------------------------------- */

static int set(int fd, int level, int name, int value)
{
	return setsockopt(fd, level, name, &value, sizeof(value)) == 0 ? 0 : -errno;
}

/* Don't-fragment by the path's known MTU (RFC 9298 7); ECN stays not-ECT, the default. */
static int set_family(int fd, int family, unsigned flags)
{
	bool v6 = family == AF_INET6, fragments = flags & UDP_FRAGMENTS;
	int error = set(fd, IPPROTO_IP, IP_MTU_DISCOVER, fragments ? IP_PMTUDISC_WANT : IP_PMTUDISC_DO);
	if (v6)
		error = set(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, fragments ? IPV6_PMTUDISC_WANT : IPV6_PMTUDISC_DO);
	if (error == 0 && flags & UDP_PKTINFO)
		error = v6 ? set(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1) : set(fd, IPPROTO_IP, IP_PKTINFO, 1);
	if (error == 0 && flags & UDP_ORIGINAL)
		error = v6 ? set(fd, IPPROTO_IPV6, IPV6_RECVORIGDSTADDR, 1) : set(fd, IPPROTO_IP, IP_RECVORIGDSTADDR, 1);
	if (error == 0 && v6 && flags & UDP_ORIGINAL)
		error = set(fd, IPPROTO_IP, IP_RECVORIGDSTADDR, 1);   /* of what comes by IPv4 */
	if (error == 0 && flags & UDP_CONNECTED)
		error = v6 ? set(fd, IPPROTO_IPV6, IPV6_RECVERR, 1) : set(fd, IPPROTO_IP, IP_RECVERR, 1);
	return error;
}

/* Without privilege net.core.rmem_max and wmem_max are the limit; what the supervisor has raised above them stays. */
static void raise_buffer(int fd, int force, int name)
{
	int is = 0;
	socklen_t length = sizeof(is);
	if (getsockopt(fd, SOL_SOCKET, name, &is, &length) == 0 && is >= SOCKET_BUFFER)
		return;
	if (set(fd, SOL_SOCKET, force, SOCKET_BUFFER) != 0)
		set(fd, SOL_SOCKET, name, SOCKET_BUFFER);
}

int udp_setup(int fd, int family, unsigned flags)
{
	int error = set_family(fd, family, flags);
	if (error)
		return error;
	set(fd, IPPROTO_UDP, UDP_GRO, 1);              /* an old kernel gives single datagrams */
	set(fd, SOL_SOCKET, SO_RXQ_OVFL, 1);
	raise_buffer(fd, SO_RCVBUFFORCE, SO_RCVBUF);
	raise_buffer(fd, SO_SNDBUFFORCE, SO_SNDBUF);
	return 0;
}

/* --- receiving ----------------------------------------------------------------------------------------------------- */

/* One worker is one thread, and what was received lives until the next call. Pages that nothing was received into are
 * never touched. */
static struct {
	uint8_t data[UDP_BATCH][BUFFER];
	struct mmsghdr messages[UDP_BATCH];
	struct iovec iov[UDP_BATCH];
	struct sockaddr_storage from[UDP_BATCH], to[UDP_BATCH];
	_Alignas(struct cmsghdr) uint8_t control[UDP_BATCH][256];
	unsigned batch;                       /* 0: not used yet */
} rx;

static void prepare(unsigned max)
{
	for (unsigned i = 0; i < max; i++) {
		rx.iov[i] = (struct iovec){.iov_base = rx.data[i], .iov_len = BUFFER};
		rx.messages[i].msg_hdr = (struct msghdr){
			.msg_name = &rx.from[i], .msg_namelen = sizeof(rx.from[i]), .msg_iov = &rx.iov[i], .msg_iovlen = 1,
			.msg_control = rx.control[i], .msg_controllen = sizeof(rx.control[i])};
	}
}

static bool local_address(const struct cmsghdr *c, struct sockaddr_storage *to)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)to;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)to;
	if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
		struct in_pktinfo info;
		memcpy(&info, CMSG_DATA(c), sizeof(info));
		*v4 = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr = info.ipi_addr};
	} else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
		struct in6_pktinfo info;
		memcpy(&info, CMSG_DATA(c), sizeof(info));
		*v6 = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_addr = info.ipi6_addr};
		if (IN6_IS_ADDR_LINKLOCAL(&info.ipi6_addr))
			v6->sin6_scope_id = info.ipi6_ifindex;
	} else if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_ORIGDSTADDR) {
		memcpy(v4, CMSG_DATA(c), sizeof(*v4));
	} else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_ORIGDSTADDR) {
		memcpy(v6, CMSG_DATA(c), sizeof(*v6));
	} else {
		return false;
	}
	return true;
}

/* The original destination bears a port and wins over the mere address. */
static void describe(unsigned i, struct udp_received *out)
{
	struct msghdr *header = &rx.messages[i].msg_hdr;
	bool has_port = false;
	*out = (struct udp_received){.data = rx.data[i], .length = rx.messages[i].msg_len, .segment = rx.messages[i].msg_len,
	                             .from = header->msg_namelen > 0 ? &rx.from[i] : NULL};
	for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c; c = CMSG_NXTHDR(header, c)) {
		bool original = c->cmsg_type == IP_ORIGDSTADDR || c->cmsg_type == IPV6_ORIGDSTADDR;
		int segment;
		if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_GRO) {
			memcpy(&segment, CMSG_DATA(c), sizeof(segment));
			if (segment > 0 && (uint32_t)segment < out->length)
				out->segment = (uint32_t)segment;
		} else if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_RXQ_OVFL) {
			memcpy(&out->lost, CMSG_DATA(c), sizeof(out->lost));
		} else if (!has_port && local_address(c, &rx.to[i])) {
			out->to = &rx.to[i];
			has_port = original;
		}
	}
}

/* The error queue must be emptied, or the socket stays readable for it. Returns the last error that ends a peer, or 0. */
static int drain_errors(int fd)
{
	int last = 0;
	for (unsigned i = 0; i < ERRORS_MAX; i++) {
		_Alignas(struct cmsghdr) uint8_t control[512];
		struct msghdr header = {.msg_control = control, .msg_controllen = sizeof(control)};
		if (recvmsg(fd, &header, MSG_ERRQUEUE | MSG_DONTWAIT) < 0)
			break;
		for (struct cmsghdr *c = CMSG_FIRSTHDR(&header); c; c = CMSG_NXTHDR(&header, c)) {
			struct sock_extended_err error;
			bool v4 = c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_RECVERR;
			bool v6 = c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_RECVERR;
			if (!v4 && !v6)
				continue;
			memcpy(&error, CMSG_DATA(c), sizeof(error));
			if (error.ee_origin != SO_EE_ORIGIN_LOCAL && error.ee_errno != EMSGSIZE)
				last = (int)error.ee_errno;
		}
	}
	return last;
}

int udp_error(int fd, int error)
{
	int queued = drain_errors(fd);
	return queued ? queued : error == EMSGSIZE ? 0 : error;
}

/* Returns how many messages came, 0, or -errno. */
static int receive(int fd, unsigned max)
{
	for (unsigned i = 0; i < ERRORS_MAX; i++) {
		int n = recvmmsg(fd, rx.messages, max, MSG_DONTWAIT, NULL);
		if (n >= 0)
			return n;
		int why = errno, error = why == EINTR ? 0 : udp_error(fd, why == EAGAIN ? 0 : why);
		if (error)
			return -error;
		if (why == EAGAIN)
			return 0;
	}
	return 0;
}

int udp_receive(int fd, struct udp_received *out, unsigned max)
{
	unsigned n = 0;
	size_t bytes = 0;
	if (rx.batch == 0)
		rx.batch = UDP_BATCH;
	max = max < rx.batch ? max : rx.batch;
	prepare(max);
	int got = receive(fd, max);
	if (got <= 0)
		return got;
	for (unsigned i = 0; i < (unsigned)got; i++) {
		bytes += rx.messages[i].msg_len;
		if (!(rx.messages[i].msg_hdr.msg_flags & MSG_TRUNC))
			describe(i, &out[n++]);
	}
	rx.batch = bytes / (unsigned)got > LARGE ? LARGE_BATCH : UDP_BATCH;
	return (int)n;
}

uint32_t udp_losses(struct udp_losses *losses, const struct udp_received *in, int n)
{
	if (n <= 0)
		return 0;
	uint32_t more = losses->known ? in[n - 1].lost - losses->seen : 0;
	losses->known = true;
	losses->seen = in[n - 1].lost;
	return more;
}

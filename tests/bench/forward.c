/* Forwarders of datagrams written for the bench: what the work costs with nothing that a product needs.
 *   forward plain|gso ADDRESS PORT TARGET PORT      UDP to UDP, one client; plain: recvmmsg and sendmmsg; gso: UDP_GRO in,
 *                                                   UDP_SEGMENT out
 *   forward tun|tunoffload DEVICE ADDRESS PORT PEER PORT     a TUN device's packets to a peer of the same kind over UDP, without
 *                                                   encryption; tunoffload: segments of up to 64 KiB from the device, split
 *                                                   and put together by UDP offload */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/bench/lib/link.h"

#define BATCH 64
#define PLAIN_MAX 2048
#define WHOLE_MAX 65536
#define SEGMENT 1472
#define BUFFER (8 << 20)

static int udp_socket(const char *host, const char *port, bool gro)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), size = BUFFER, one = 1;

	if (fd < 0 || inet_pton(AF_INET, host, &a.sin_addr) != 1)
		die("%s: no socket", host);
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)))
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size));
	if (gro && setsockopt(fd, SOL_UDP, UDP_GRO, &one, sizeof(one)))
		die("UDP_GRO: %s", strerror(errno));
	if (bind(fd, (struct sockaddr *)&a, sizeof(a)))
		die("bind: %s", strerror(errno));
	return fd;
}

static struct sockaddr_in place(const char *host, const char *port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};

	if (inet_pton(AF_INET, host, &a.sin_addr) != 1)
		die("%s is no address", host);
	return a;
}

static void join(int fd, const struct sockaddr_in *to)
{
	if (connect(fd, (const struct sockaddr *)to, sizeof(*to)))
		die("connect: %s", strerror(errno));
}

/* --- UDP to UDP --------------------------------------------------------------------------------------------------------------- */

/* from: takes any client's, and learns who it is; to: connected. */
static void move_plain(int from, int to, struct sockaddr_in *client, bool learn)
{
	static char data[BATCH][PLAIN_MAX];
	static struct iovec v[BATCH];
	static struct mmsghdr m[BATCH];
	static struct sockaddr_in names[BATCH];

	for (unsigned i = 0; i < BATCH; i++) {
		v[i] = (struct iovec){data[i], sizeof(data[i])};
		m[i].msg_hdr = (struct msghdr){learn ? &names[i] : NULL, learn ? sizeof(names[i]) : 0, &v[i], 1, NULL, 0, 0};
	}
	int n = recvmmsg(from, m, BATCH, 0, NULL);
	if (n <= 0)
		return;
	if (learn)
		*client = names[0];
	for (int i = 0; i < n; i++) {
		v[i].iov_len = m[i].msg_len;
		m[i].msg_hdr.msg_name = learn ? NULL : client;
		m[i].msg_hdr.msg_namelen = learn ? 0 : sizeof(*client);
	}
	sendmmsg(to, m, (unsigned)n, 0);
}

static unsigned segment_size(struct msghdr *m)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c))
		if (c->cmsg_level == SOL_UDP && c->cmsg_type == UDP_GRO)
			return (unsigned)*(int *)(void *)CMSG_DATA(c);
	return 0;
}

static void send_segments(int fd, struct iovec *v, unsigned n, size_t length, unsigned segment, struct sockaddr_in *to)
{
	char control[CMSG_SPACE(sizeof(uint16_t))] = {0};
	struct msghdr m = {to, to ? sizeof(*to) : 0, v, n, NULL, 0, 0};

	if (segment && length > segment) {
		m.msg_control = control;
		m.msg_controllen = sizeof(control);
		struct cmsghdr *c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_UDP;
		c->cmsg_type = UDP_SEGMENT;
		c->cmsg_len = CMSG_LEN(sizeof(uint16_t));
		*(uint16_t *)(void *)CMSG_DATA(c) = (uint16_t)segment;
	}
	sendmsg(fd, &m, 0);
}

static ssize_t receive_segments(int fd, void *data, unsigned *segment, struct sockaddr_in *from)
{
	char control[64];
	struct iovec v = {data, WHOLE_MAX};
	struct msghdr m = {from, from ? sizeof(*from) : 0, &v, 1, control, sizeof(control), 0};
	ssize_t n = recvmsg(fd, &m, 0);

	*segment = n > 0 ? segment_size(&m) : 0;
	return n;
}

static void move_gso(int from, int to, struct sockaddr_in *client, bool learn)
{
	static char data[WHOLE_MAX];
	unsigned segment;

	for (unsigned i = 0; i < BATCH; i++) {
		ssize_t n = receive_segments(from, data, &segment, learn ? client : NULL);
		if (n <= 0)
			return;
		struct iovec v = {data, (size_t)n};
		send_segments(to, &v, 1, (size_t)n, segment, learn ? NULL : client);
	}
}

static void between_sockets(bool gso, char **argv)
{
	struct sockaddr_in target = place(argv[4], argv[5]), client = {0};
	int in = udp_socket(argv[2], argv[3], gso), out = udp_socket("0.0.0.0", "0", gso);
	struct pollfd p[2] = {{.fd = in, .events = POLLIN}, {.fd = out, .events = POLLIN}};

	join(out, &target);
	while (poll(p, 2, -1) > 0) {
		if (p[0].revents)
			(gso ? move_gso : move_plain)(in, out, &client, true);
		if (p[1].revents)
			(gso ? move_gso : move_plain)(out, in, &client, false);
	}
}

/* --- a TUN device --------------------------------------------------------------------------------------------------------------- */

static int open_tun(const char *name, bool offload)
{
	struct ifreq request = {.ifr_flags = (short)(IFF_TUN | IFF_NO_PI | (offload ? IFF_VNET_HDR : 0))};
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	unsigned features = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6;

	strncpy(request.ifr_name, name, sizeof(request.ifr_name) - 1);
	if (fd < 0 || ioctl(fd, TUNSETIFF, &request))
		die("%s: %s", name, strerror(errno));
#ifdef TUN_F_USO4
	if (offload && ioctl(fd, TUNSETOFFLOAD, features | TUN_F_USO4 | TUN_F_USO6) == 0)
		return fd;
#else
	if (offload && ioctl(fd, TUNSETOFFLOAD, features | 0x20 | 0x40) == 0)    /* USO4, USO6: newer than Debian 12's header */
		return fd;
#endif
	if (offload && ioctl(fd, TUNSETOFFLOAD, features))
		die("TUNSETOFFLOAD: %s", strerror(errno));
	return fd;
}

static void tun_to_peer_plain(int tun, int udp)
{
	static char data[BATCH][PLAIN_MAX];
	static struct iovec v[BATCH];
	static struct mmsghdr m[BATCH];
	unsigned n = 0;

	for (; n < BATCH; n++) {
		ssize_t length = read(tun, data[n], sizeof(data[n]));
		if (length <= 0)
			break;
		v[n] = (struct iovec){data[n], (size_t)length};
		m[n].msg_hdr = (struct msghdr){.msg_iov = &v[n], .msg_iovlen = 1};
	}
	if (n)
		sendmmsg(udp, m, n, 0);
}

static void peer_to_tun_plain(int udp, int tun)
{
	static char data[BATCH][PLAIN_MAX];
	static struct iovec v[BATCH];
	static struct mmsghdr m[BATCH];

	for (unsigned i = 0; i < BATCH; i++) {
		v[i] = (struct iovec){data[i], sizeof(data[i])};
		m[i].msg_hdr = (struct msghdr){.msg_iov = &v[i], .msg_iovlen = 1};
	}
	int n = recvmmsg(udp, m, BATCH, 0, NULL);
	for (int i = 0; i < n; i++)
		if (write(tun, data[i], m[i].msg_len) < 0)
			continue;
}

/* A packet with its virtio header is a run of segments; on a lossless link without reordering it arrives as it was sent. */
static void tun_to_peer_whole(int tun, int udp)
{
	static char data[WHOLE_MAX];

	for (unsigned i = 0; i < BATCH; i++) {
		ssize_t n = read(tun, data, sizeof(data));
		if (n <= 0)
			return;
		struct iovec v = {data, (size_t)n};
		send_segments(udp, &v, 1, (size_t)n, SEGMENT, NULL);
	}
}

static void peer_to_tun_whole(int udp, int tun)
{
	static char data[WHOLE_MAX];
	unsigned segment;

	for (unsigned i = 0; i < BATCH; i++) {
		ssize_t n = receive_segments(udp, data, &segment, NULL);
		if (n <= 0)
			return;
		if (write(tun, data, (size_t)n) < 0)
			continue;
	}
}

static void between_tun_and_peer(bool offload, char **argv)
{
	struct sockaddr_in peer = place(argv[5], argv[6]);
	int tun = open_tun(argv[2], offload), udp = udp_socket(argv[3], argv[4], offload);
	struct pollfd p[2] = {{.fd = tun, .events = POLLIN}, {.fd = udp, .events = POLLIN}};

	join(udp, &peer);
	while (poll(p, 2, -1) > 0) {
		if (p[0].revents)
			(offload ? tun_to_peer_whole : tun_to_peer_plain)(tun, udp);
		if (p[1].revents)
			(offload ? peer_to_tun_whole : peer_to_tun_plain)(udp, tun);
	}
}

int main(int argc, char **argv)
{
	const char *kind = argc > 1 ? argv[1] : "";

	if (argc == 6 && (!strcmp(kind, "plain") || !strcmp(kind, "gso")))
		between_sockets(*kind == 'g', argv);
	else if (argc == 7 && (!strcmp(kind, "tun") || !strcmp(kind, "tunoffload")))
		between_tun_and_peer(kind[3] != 0, argv);
	else
		die("usage: see tests/bench/forward.c");
	return 0;
}

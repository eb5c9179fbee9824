/* SPDX-License-Identifier: Apache-2.0 */
/* Sending UDP datagrams: equal-sized neighbours to one peer leave as one message with UDP_SEGMENT, messages in one
 * sendmmsg. */
#include <assert.h>
#include <errno.h>
#include <netinet/udp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "workers/tunnel/clock.h"
#include "workers/tunnel/udp_io.h"

#define GSO_BYTES 65507u              /* an IPv4 packet's payload; the kernel refuses more */
#define IOVECS (UDP_BATCH * UDP_SEGMENTS_MAX + 512u)
#define ADD_MESSAGES 4u               /* a run by itself needs no more */
#define PIECES_MAX 64u                /* of one datagram */
#define GSO_REST_US 1000000           /* a route that could not segment is tried again after that */
#define CONTROL (CMSG_SPACE(sizeof(uint16_t)) + CMSG_SPACE(sizeof(struct in6_pktinfo)))

/* One message: `count` datagrams of `segment` bytes, the last may be shorter. */
struct message {
	struct iovec *iov;
	unsigned n, count;
	uint32_t segment, length;
	unsigned adds;                /* udp_add() calls that end with this message */
	union resolve_address to, from;   /* family AF_UNSPEC: none */
};

struct udp_sender {
	struct message messages[UDP_BATCH];
	struct iovec iov[IOVECS];
	unsigned n, n_iov, adds;
	unsigned first_left, n_left;  /* messages that the last flush could not send */
	uint64_t no_gso_until;
};

struct udp_sender *udp_sender_new(void)
{
	struct udp_sender *sender = calloc(1, sizeof(*sender));
	if (!sender)
		abort();
	return sender;
}

void udp_sender_free(struct udp_sender *sender)
{
	free(sender);
}

/* --- collecting ------------------------------------------------------------------------------------------------ */

static void copy_address(union resolve_address *out, const struct sockaddr_storage *address)
{
	out->sa.sa_family = AF_UNSPEC;
	if (address && address->ss_family == AF_INET)
		memcpy(&out->v4, address, sizeof(out->v4));
	else if (address && address->ss_family == AF_INET6)
		memcpy(&out->v6, address, sizeof(out->v6));
}

static bool same_address(const union resolve_address *a, const struct sockaddr_storage *b)
{
	if (!b)
		return a->sa.sa_family == AF_UNSPEC;
	if (a->sa.sa_family != b->ss_family)
		return false;
	const struct sockaddr_in *v4 = (const struct sockaddr_in *)b;
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)b;
	if (b->ss_family == AF_INET)
		return a->v4.sin_port == v4->sin_port && a->v4.sin_addr.s_addr == v4->sin_addr.s_addr;
	return a->v6.sin6_port == v6->sin6_port && a->v6.sin6_scope_id == v6->sin6_scope_id &&
	       memcmp(&a->v6.sin6_addr, &v6->sin6_addr, sizeof(v6->sin6_addr)) == 0;
}

static unsigned segments_of(uint32_t length, uint32_t segment)
{
	return segment == 0 || length <= segment ? 1 : (length + segment - 1) / segment;
}

/* How many more bytes of a run with this segment the last message takes; all its datagrams must be whole so far. */
static uint32_t room_in_last(struct udp_sender *sender, const struct sockaddr_storage *to,
                             const struct sockaddr_storage *from, uint32_t segment, uint32_t length)
{
	struct message *last = sender->n > 0 ? &sender->messages[sender->n - 1] : NULL;
	if (!last || last->length == 0 || last->length != last->count * last->segment || last->count >= UDP_SEGMENTS_MAX)
		return 0;
	bool fits = segment == last->segment || (length < last->segment && segment >= length);
	if (!fits || length == 0 || !same_address(&last->to, to) || !same_address(&last->from, from))
		return 0;
	uint32_t room = (UDP_SEGMENTS_MAX - last->count) * last->segment, bytes = GSO_BYTES - last->length;
	if (last->length >= GSO_BYTES)
		return 0;
	if (bytes < room)
		room = bytes / last->segment * last->segment;
	return length < last->segment && bytes >= length ? length : room;
}

static struct message *new_message(struct udp_sender *sender, const struct sockaddr_storage *to,
                                   const struct sockaddr_storage *from, uint32_t segment)
{
	struct message *message = &sender->messages[sender->n++];
	message->iov = &sender->iov[sender->n_iov];
	message->n = message->count = 0;
	message->length = 0;
	message->segment = segment;
	copy_address(&message->to, to);
	copy_address(&message->from, from);
	return message;
}

/* Appends `take` bytes of the pieces to the message; *piece and *skip say where they go on. */
static void append(struct udp_sender *sender, struct message *message, const struct iovec **piece, size_t *skip,
                   uint32_t take)
{
	message->count += segments_of(take, message->segment);
	message->length += take;
	while (take > 0) {
		size_t left = (*piece)->iov_len - *skip, n = left < take ? left : take;
		if (n > 0) {
			message->iov[message->n++] = (struct iovec){.iov_base = (uint8_t *)(*piece)->iov_base + *skip, .iov_len = n};
			sender->n_iov++;
		}
		take -= (uint32_t)n;
		*skip += n;
		if (*skip == (*piece)->iov_len)
			(*piece)++, *skip = 0;
	}
}

/* How many bytes of a run one message takes. */
static uint32_t most_in_one(uint32_t segment, uint32_t length)
{
	if (segment == length || segment * 2 > GSO_BYTES)
		return segment;
	return UDP_SEGMENTS_MAX * segment < GSO_BYTES ? UDP_SEGMENTS_MAX * segment : GSO_BYTES / segment * segment;
}

bool udp_add(struct udp_sender *sender, const struct sockaddr_storage *to, const struct sockaddr_storage *from,
             const struct iovec *pieces, unsigned n, uint32_t segment)
{
	size_t total = 0, skip = 0;
	for (unsigned i = 0; i < n; i++)
		total += pieces[i].iov_len;
	uint32_t left = total < UINT32_MAX / 2 ? (uint32_t)total : UINT32_MAX / 2;
	if (segment == 0 || segment > left)
		segment = left;
	sender->n_left = 0;
	uint32_t take = room_in_last(sender, to, from, segment, left), most = most_in_one(segment, left);
	take = take < left ? take : left;
	unsigned messages = left == 0 ? 1 : (left - take + most - 1) / most;
	if (sender->n + messages > UDP_BATCH || sender->n_iov + n + messages > IOVECS) {
		assert(sender->n > 0 || n > IOVECS / 2 || segments_of(left, segment) > UDP_RUN_MAX);
		return false;
	}
	sender->adds++;
	if (take > 0)
		append(sender, &sender->messages[sender->n - 1], &pieces, &skip, take);
	left -= take;
	while (messages-- > 0) {
		take = left < most ? left : most;
		append(sender, new_message(sender, to, from, segment), &pieces, &skip, take);
		left -= take;
	}
	sender->messages[sender->n - 1].adds = sender->adds;
	return true;
}

bool udp_full(const struct udp_sender *sender)
{
	return sender->n + ADD_MESSAGES > UDP_BATCH || sender->n_iov + PIECES_MAX > IOVECS;
}

/* --- sending --------------------------------------------------------------------------------------------------- */

static void put_control(struct msghdr *header, struct cmsghdr **at, int level, int type, const void *data,
                        size_t length)
{
	struct cmsghdr *c = *at ? CMSG_NXTHDR(header, *at) : CMSG_FIRSTHDR(header);
	*c = (struct cmsghdr){.cmsg_level = level, .cmsg_type = type, .cmsg_len = CMSG_LEN(length)};
	memcpy(CMSG_DATA(c), data, length);
	*at = c;
}

/* control: CONTROL bytes. segment 0: one datagram. */
static void fill_header(struct msghdr *header, struct message *message, struct iovec *iov, size_t n, uint32_t segment,
                        uint8_t *control)
{
	struct cmsghdr *at = NULL;
	size_t used = 0;
	uint16_t size = (uint16_t)segment;
	*header = (struct msghdr){.msg_iov = iov, .msg_iovlen = n};
	if (message->to.sa.sa_family != AF_UNSPEC) {
		header->msg_name = &message->to;
		header->msg_namelen = message->to.sa.sa_family == AF_INET ? sizeof(message->to.v4) : sizeof(message->to.v6);
	}
	if (segment == 0 && message->from.sa.sa_family == AF_UNSPEC)
		return;
	memset(control, 0, CONTROL);
	header->msg_control = control;
	header->msg_controllen = CONTROL;
	if (segment > 0) {
		put_control(header, &at, IPPROTO_UDP, UDP_SEGMENT, &size, sizeof(size));
		used += CMSG_SPACE(sizeof(size));
	}
	if (message->from.sa.sa_family == AF_INET) {
		struct in_pktinfo info = {.ipi_spec_dst = message->from.v4.sin_addr};
		put_control(header, &at, IPPROTO_IP, IP_PKTINFO, &info, sizeof(info));
		used += CMSG_SPACE(sizeof(info));
	} else if (message->from.sa.sa_family == AF_INET6) {
		struct in6_pktinfo info = {.ipi6_addr = message->from.v6.sin6_addr,
		                           .ipi6_ifindex = message->from.v6.sin6_scope_id};
		put_control(header, &at, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof(info));
		used += CMSG_SPACE(sizeof(info));
	}
	header->msg_controllen = used;
}

/* What to do about an error of the first message: 0: it counts as gone (the network's matter), else -errno for the
 * caller. */
static int judge(const struct message *message, int error, int fd)
{
	if (error == EAGAIN || error == EWOULDBLOCK)
		return -EAGAIN;
	if (error == EPERM || error == ENOBUFS || error == ENOMEM)
		return 0;                      /* a firewall, a full queue of the device */
	if (message->to.sa.sa_family != AF_UNSPEC)
		return 0;                      /* one peer of many: its datagrams have no way */
	error = udp_error(fd, error);
	return -error;
}

/* The first `bytes` of a message have left. */
static void advance(struct message *message, uint32_t bytes)
{
	message->count -= segments_of(bytes, message->segment);
	message->length -= bytes;
	while (bytes > 0) {
		size_t n = message->iov->iov_len < bytes ? message->iov->iov_len : bytes;
		message->iov->iov_base = (uint8_t *)message->iov->iov_base + n;
		message->iov->iov_len -= n;
		bytes -= (uint32_t)n;
		if (message->iov->iov_len == 0)
			message->iov++, message->n--;
	}
}

/* The iovecs of a message's first datagram, cut out into `out`; returns how many. */
static size_t first_datagram(const struct message *message, struct iovec *out)
{
	size_t left = message->segment < message->length ? message->segment : message->length, n = 0;
	for (unsigned i = 0; left > 0 && n < PIECES_MAX; i++) {
		out[n] = message->iov[i];
		if (out[n].iov_len > left)
			out[n].iov_len = left;
		left -= out[n++].iov_len;
	}
	assert(left == 0);
	return n;
}

/* One datagram after the other, where the kernel or the route cannot segment. Returns 0 when all left (*some: at least
 * one did), or -errno. */
static int send_each(struct message *message, int fd, unsigned *sent, unsigned *too_long, bool *some)
{
	_Alignas(struct cmsghdr) uint8_t control[CONTROL];
	struct iovec iov[PIECES_MAX];
	while (message->count > 0) {
		struct msghdr header;
		uint32_t size = message->segment < message->length ? message->segment : message->length;
		fill_header(&header, message, iov, first_datagram(message, iov), 0, control);
		if (sendmsg(fd, &header, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0) {
			(*sent)++;
			*some = true;
		} else if (errno == EMSGSIZE) {
			(*too_long)++;
			udp_error(fd, EMSGSIZE);
		} else if (errno != EINTR) {
			int error = judge(message, errno, fd);
			if (error)
				return error;
		} else {
			continue;
		}
		if (message->count == 1)
			message->count = 0;
		else
			advance(message, size);
	}
	return 0;
}

/* The kernel did not take message `i`. Returns 0 to go on behind it. */
static int refused(struct udp_sender *sender, unsigned i, int fd, int error, unsigned *sent, unsigned *too_long)
{
	struct message *message = &sender->messages[i];
	bool gso = message->count > 1, some = false;
	bool cannot = gso && (error == EINVAL || error == EIO || error == EOPNOTSUPP);
	if (cannot || error == EMSGSIZE) {     /* or an ICMP message said so about another datagram */
		int result = send_each(message, fd, sent, too_long, &some);
		if (some && cannot && !sender->no_gso_until)
			sender->no_gso_until = now_us() + GSO_REST_US;
		return result;
	}
	return judge(message, error, fd);
}

/* Sends messages from `first` on with one call. Returns how many left, or -errno. */
static int send_some(struct udp_sender *sender, int fd, unsigned first)
{
	static _Alignas(struct cmsghdr) uint8_t control[UDP_BATCH][CONTROL];
	struct mmsghdr headers[UDP_BATCH];
	unsigned n = 0;
	for (unsigned i = first; i < sender->n; i++, n++) {
		struct message *message = &sender->messages[i];
		uint32_t segment = message->count > 1 ? message->segment : 0;
		if (segment > 0 && sender->no_gso_until)
			break;
		fill_header(&headers[n].msg_hdr, message, message->iov, message->n, segment, control[n]);
	}
	if (n == 0)
		return -EOPNOTSUPP;            /* refused() sends it one by one */
	int done = sendmmsg(fd, headers, n, MSG_DONTWAIT | MSG_NOSIGNAL);
	return done >= 0 ? done : -errno;
}

static unsigned adds_before(const struct udp_sender *sender, unsigned message)
{
	return message > 0 ? sender->messages[message - 1].adds : 0;
}

int udp_flush(struct udp_sender *sender, int fd, unsigned *taken, unsigned *sent, unsigned *too_long)
{
	unsigned at = 0;
	int error = 0;
	*sent = *too_long = 0;
	if (sender->no_gso_until && now_us() > sender->no_gso_until)
		sender->no_gso_until = 0;
	while (at < sender->n && error == 0) {
		int done = send_some(sender, fd, at);
		for (int i = 0; i < done; i++)
			*sent += sender->messages[at++].count;
		if (done == -EINTR || done > 0)
			continue;
		error = refused(sender, at, fd, -done, sent, too_long);
		if (error == 0)
			at++;
	}
	*taken = at == sender->n ? sender->adds : adds_before(sender, at);
	sender->first_left = at;
	sender->n_left = error == -EAGAIN ? sender->n - at : 0;
	sender->n = sender->n_iov = sender->adds = 0;
	return error;
}

/* --- what the socket did not take ------------------------------------------------------------------------------ */

struct udp_kept {
	unsigned first, n;
	struct { union resolve_address to, from; uint32_t segment, length; } messages[UDP_BATCH];
	uint8_t data[];
};

struct udp_kept *udp_keep(struct udp_sender *sender)
{
	size_t bytes = 0;
	for (unsigned i = 0; i < sender->n_left; i++)
		bytes += sender->messages[sender->first_left + i].length;
	if (sender->n_left == 0)
		return NULL;
	struct udp_kept *kept = malloc(sizeof(*kept) + bytes);
	if (!kept)
		abort();
	uint8_t *at = kept->data;
	kept->n = sender->n_left;
	for (unsigned i = 0; i < sender->n_left; i++) {
		const struct message *message = &sender->messages[sender->first_left + i];
		kept->messages[i].to = message->to;
		kept->messages[i].from = message->from;
		kept->messages[i].segment = message->count > 1 ? message->segment : 0;
		kept->messages[i].length = message->length;
		for (unsigned v = 0; v < message->n; v++) {
			memcpy(at, message->iov[v].iov_base, message->iov[v].iov_len);
			at += message->iov[v].iov_len;
		}
	}
	sender->n_left = 0;
	return kept;
}

static const struct sockaddr_storage *address_or_none(const union resolve_address *address,
                                                      struct sockaddr_storage *storage)
{
	if (address->sa.sa_family == AF_UNSPEC)
		return NULL;
	memcpy(storage, address, sizeof(*address));
	return storage;
}

int udp_flush_kept(struct udp_sender *sender, struct udp_kept **kept, int fd, unsigned *sent, unsigned *too_long)
{
	struct udp_kept *old = *kept;
	uint8_t *at = old->data;
	unsigned taken;
	assert(sender->n == 0);
	for (unsigned i = 0; i < old->n; i++) {
		struct sockaddr_storage to, from;
		struct iovec iov = {.iov_base = at, .iov_len = old->messages[i].length};
		udp_add(sender, address_or_none(&old->messages[i].to, &to), address_or_none(&old->messages[i].from, &from), &iov,
		        iov.iov_len > 0, old->messages[i].segment);
		at += iov.iov_len;
	}
	int error = udp_flush(sender, fd, &taken, sent, too_long);
	*kept = udp_keep(sender);
	free(old);
	return error;
}

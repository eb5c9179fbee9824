/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/tunnel/udp_capsule.h"

#include <assert.h>

void udp_capsule_put(struct chunks *to, bool segments, const uint8_t *data, uint32_t length, uint32_t segment)
{
	uint8_t size[2] = {(uint8_t)(segment >> 8), (uint8_t)segment};
	uint32_t most = segment == 0 ? length : segments ? segment * UDP_RUN_MAX : segment;
	do {
		uint32_t n = length < most ? length : most;
		if (segments && n > segment && segment > 0)
			capsule_put_datagram(to, CONTEXT_SEGMENTS, size, sizeof(size), data, n);
		else
			capsule_put_datagram(to, CONTEXT_PAYLOAD, NULL, 0, data, n);
		data += n;
		length -= n;
	} while (length > 0);
}

/* The segment size before a run, which may lie in two pieces; moves on behind it. 0: there is none. */
static uint32_t take_segment(struct iovec **pieces, unsigned *n)
{
	uint32_t size = 0;
	for (unsigned left = 2; left > 0; left--) {
		while (*n > 0 && (*pieces)->iov_len == 0)
			(*pieces)++, (*n)--;
		if (*n == 0)
			return 0;
		uint8_t *at = (*pieces)->iov_base;
		size = size << 8 | *at;
		(*pieces)->iov_base = at + 1;
		(*pieces)->iov_len--;
	}
	return size;
}

static const char *add_run(struct udp_sender *sender, const struct sockaddr_storage *to, const struct sockaddr_storage *from,
                           struct iovec *pieces, unsigned n, size_t length)
{
	uint32_t segment = take_segment(&pieces, &n);
	if (segment == 0 || length < 2 || segment > UDP_PAYLOAD_MAX)
		return "a run of datagrams without their size";
	length -= 2;
	if (length > UINT16_MAX || (length + segment - 1) / segment > UDP_RUN_MAX)
		return "a run of too many datagrams";
	bool added = length == 0 || udp_add(sender, to, from, pieces, n, segment);
	assert(added);
	(void)added;
	return NULL;
}

const char *udp_capsule_add(struct udp_sender *sender, const struct sockaddr_storage *to, const struct sockaddr_storage *from,
                            bool segments, uint64_t context, const struct capsule_piece *pieces, unsigned n, size_t length)
{
	struct iovec iov[CAPSULE_PIECES];
	if (context != CONTEXT_PAYLOAD && !(segments && context == CONTEXT_SEGMENTS))
		return NULL;
	for (unsigned i = 0; i < n; i++)
		iov[i] = (struct iovec){.iov_base = (void *)(uintptr_t)pieces[i].data, .iov_len = pieces[i].length};
	if (context == CONTEXT_SEGMENTS)
		return add_run(sender, to, from, iov, n, length);
	if (length > UDP_PAYLOAD_MAX)
		return "a payload longer than a UDP datagram";
	bool added = udp_add(sender, to, from, iov, n, 0);
	assert(added);
	(void)added;
	return NULL;
}

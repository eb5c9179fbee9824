/* SPDX-License-Identifier: Apache-2.0 */
/* What a peer may make a UDP sender do: datagrams and runs of any sizes, cut anyhow. Whatever passes fits the sender's batch
 * (its assertions hold). The first byte: how the bytes are cut, and whether runs are taken. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "workers/tunnel/udp_capsule.h"

#define CHECK(condition) do { if (!(condition)) abort(); } while (0)

static struct {
	struct capsule_reader reader;
	struct udp_sender *sender;
	struct chunks consumed;
	bool runs;
	int fd;                       /* takes nothing: all is kept, and can be looked at */
} world = {.fd = -1};

static void flush(void)
{
	unsigned taken, sent, too_long;
	int error = udp_flush(world.sender, world.fd, &taken, &sent, &too_long);
	CHECK(error == 0 || error == -EAGAIN);
	struct udp_kept *kept = udp_keep(world.sender);
	CHECK(!kept || error == -EAGAIN);
	if (kept) {                   /* the same once more: nothing is lost on the way */
		CHECK(udp_flush_kept(world.sender, &kept, world.fd, &sent, &too_long) == -EAGAIN);
		CHECK(kept);
	}
	free(kept);
}

static bool on_datagram(void *arg, uint64_t context, const struct capsule_piece *pieces, unsigned n, size_t length)
{
	(void)arg;
	const char *why = udp_capsule_add(world.sender, NULL, NULL, world.runs, context, pieces, n, length);
	if (why) {
		CHECK(context == CONTEXT_SEGMENTS || length > UDP_PAYLOAD_MAX);
		return false;
	}
	if (udp_full(world.sender))
		flush();
	return true;
}

static const struct capsule_callbacks callbacks = {.datagram = on_datagram};

static void set_up(void)
{
	int ends[2], small = 1;
	char byte = 0;
	CHECK(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, ends) == 0);
	setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	while (send(ends[0], &byte, 1, MSG_DONTWAIT) == 1)
		;
	world.fd = ends[0];
	world.sender = udp_sender_new();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 1)
		return 0;
	if (world.fd < 0)
		set_up();
	size_t step = (size_t)(data[0] & 0x7f) + 1;
	world.runs = data[0] & 0x80;
	world.reader = (struct capsule_reader){.callbacks = &callbacks, .consumed = &world.consumed};
	struct chunks chunks = {0};
	data++, size--;
	for (size_t at = 0; at < size; at += step)
		chunks_copy(&chunks, data + at, size - at < step ? size - at : step);
	capsule_read(&world.reader, &chunks);
	flush();
	chunks_clear(&world.consumed);
	capsule_reader_reset(&world.reader);
	return 0;
}

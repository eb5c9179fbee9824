/* SOCKS 5 from hostile clients: the same dialogue however the bytes are cut, and nothing but a sane authority out of it or out
 * of a relayed datagram's header. */
#include <stdlib.h>
#include <string.h>

#include "workers/tunnel/h1_parse.h"
#include "workers/tunnel/socks5.h"

#define CHECK(condition) do { if (!(condition)) abort(); } while (0)

struct talk {
	struct socks5 socks;
	enum socks5_event event;
	uint8_t out[4096];
	size_t n_out, used;
};

static void collect(struct talk *t)
{
	CHECK(t->n_out + t->socks.out_length <= sizeof(t->out));
	memcpy(t->out + t->n_out, t->socks.out, t->socks.out_length);
	t->n_out += t->socks.out_length;
	t->socks.out_length = 0;
}

static void talk(struct talk *t, const uint8_t *data, size_t size, size_t step, uint8_t mode)
{
	memset(t, 0, sizeof(*t));
	socks5_init(&t->socks, mode & 1, mode & 2);
	while (t->used < size) {
		size_t used, n = size - t->used < step ? size - t->used : step;
		t->event = socks5_feed(&t->socks, data + t->used, n, &used);
		CHECK(used <= n && (used > 0 || t->socks.out_length > 0));
		t->used += used;
		collect(t);
		if (t->event == SOCKS5_AUTH) {
			CHECK(t->socks.name[0]);
			t->event = socks5_proved(&t->socks, !(mode & 4));
			collect(t);
		}
		if (t->event != SOCKS5_MORE)
			return;
	}
}

static void check_authority(const char *text)
{
	const char *why;
	struct head *head = head_new();
	CHECK(h1_authority(head, text, strlen(text), true, &why) != NULL);
	head_free(head);
}

static void datagram(const uint8_t *data, size_t size)
{
	char target[SOCKS5_AUTHORITY];
	size_t header = socks5_datagram_header(data, size);
	CHECK(header <= size);
	if (header > 0 && socks5_datagram_target(data, header, target))
		check_authority(target);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct talk whole, cut;
	if (size < 1)
		return 0;
	uint8_t mode = data[0];
	datagram(data, size);
	talk(&whole, data + 1, size - 1, size, mode);
	talk(&cut, data + 1, size - 1, (mode >> 3) % 8 + 1, mode);
	CHECK(whole.event == cut.event && whole.n_out == cut.n_out && memcmp(whole.out, cut.out, whole.n_out) == 0);
	CHECK(strcmp(whole.socks.authority, cut.socks.authority) == 0);
	if (whole.event == SOCKS5_CONNECT) {
		check_authority(whole.socks.authority);
	}
	if (whole.event == SOCKS5_CONNECT || whole.event == SOCKS5_ASSOCIATE) {
		CHECK(!(mode & 2) || whole.socks.name[0]);    /* nobody passes without proof where it is required */
	}
	if (whole.event == SOCKS5_REFUSED)
		CHECK(whole.socks.why != NULL);
	return 0;
}

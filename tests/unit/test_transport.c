/* Two transports on a socket pair, plain and under TLS: what goes in comes out, whole and in order, with backpressure and
 * half-close. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>
#include <event2/event.h>
#include <openssl/evp.h>
#include <openssl/x509.h>

#include "workers/tunnel/transport.h"

struct end {
	struct transport *transport;
	size_t received, to_send, sent;
	bool ready, ended, broken, hold, refused;
	enum flow_error error;
	struct chunks first;
};

static struct event_base *base;
static SSL_CTX *server_ctx, *client_ctx;

static uint8_t byte_at(size_t position)
{
	return (uint8_t)(position * 2654435761u >> 13);
}

static void push(struct end *e)
{
	static uint8_t block[50000];
	while (e->sent < e->to_send) {
		size_t n = e->to_send - e->sent < sizeof(block) ? e->to_send - e->sent : sizeof(block);
		for (size_t i = 0; i < n; i++)
			block[i] = byte_at(e->sent + i);
		struct chunks chunks = {0};
		chunks_copy(&chunks, block, n);
		if (!transport_send(e->transport, &chunks, false)) {
			e->refused = true;
			chunks_clear(&chunks);
			return;
		}
		assert_null(chunks.head);
		e->sent += n;
	}
	transport_finish(e->transport);
}

static void on_ready(void *arg)
{
	((struct end *)arg)->ready = true;
}

static void on_received(void *arg, struct chunks *chunks)
{
	struct end *e = arg;
	for (struct chunk *c = chunks->head; c; c = c->next)
		for (uint32_t i = 0; i < c->length; i++)
			if (c->data[i] != byte_at(e->received++))
				fail_msg("byte %zu differs", e->received - 1);
	chunks_clear(chunks);
	if (e->hold)
		transport_pause(e->transport, true);
}

static void on_ended(void *arg)
{
	((struct end *)arg)->ended = true;
}

static void on_writable(void *arg)
{
	push(arg);
}

static void on_broken(void *arg, enum flow_error error, const char *detail)
{
	struct end *e = arg;
	(void)detail;
	e->broken = true;
	e->error = error;
	transport_free(e->transport, false);
	e->transport = NULL;
}

static const struct transport_callbacks callbacks = {
	.ready = on_ready, .received = on_received, .ended = on_ended, .writable = on_writable, .broken = on_broken};

static void pair(struct end *a, struct end *b, bool tls)
{
	int fds[2];
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
	SSL *server = tls ? SSL_new(server_ctx) : NULL, *client = tls ? SSL_new(client_ctx) : NULL;
	if (tls) {
		SSL_set_accept_state(server);
		SSL_set_connect_state(client);
	}
	a->transport = transport_new(base, fds[0], client, tls ? TRANSPORT_CONNECTING : TRANSPORT_ACCEPTED, &callbacks, a);
	b->transport = transport_new(base, fds[1], server, TRANSPORT_ACCEPTED, &callbacks, b);
}

/* Until nothing happens for a moment, or the condition holds. */
static void run_until(bool *done)
{
	for (int i = 0; i < 20000 && !*done; i++) {
		struct timeval wait = {.tv_usec = 1000};
		event_base_loopexit(base, &wait);
		event_base_loop(base, EVLOOP_ONCE);
	}
}

static void transfer(bool tls, bool striped)
{
	struct end a = {.to_send = 5u << 20}, b = {.to_send = 3u << 20};
	pair(&a, &b, tls);
	transport_set_striped(a.transport, striped);
	transport_set_striped(b.transport, striped);
	push(&a);
	push(&b);
	run_until(&a.ended);
	run_until(&b.ended);
	assert_true(a.ended && b.ended);
	assert_false(a.broken || b.broken);
	assert_int_equal(b.received, a.to_send);
	assert_int_equal(a.received, b.to_send);
	assert_true(a.refused);   /* 5 MiB do not fit at once */
	if (tls)
		assert_true(a.ready && b.ready);
	transport_free(a.transport, false);
	transport_free(b.transport, false);
}

static void plain_carries_both_ways(void **state) { (void)state; transfer(false, false); }
static void stripes_carry_both_ways(void **state) { (void)state; transfer(false, true); }
static void tls_carries_both_ways(void **state) { (void)state; transfer(true, false); }
static void tls_stripes_carry_both_ways(void **state) { (void)state; transfer(true, true); }

static void a_paused_reader_stops_the_writer(void **state)
{
	(void)state;
	struct end a = {.to_send = 64u << 20}, b = {.hold = true};
	bool never = false;
	pair(&a, &b, false);
	push(&a);
	for (int i = 0; i < 50; i++) {
		struct timeval wait = {.tv_usec = 1000};
		event_base_loopexit(base, &wait);
		event_base_loop(base, 0);
	}
	(void)never;
	assert_true(a.refused);
	assert_true(a.sent < 8u << 20);
	assert_true(b.received <= SLAB_SIZE);
	b.hold = false;
	transport_pause(b.transport, false);
	run_until(&b.ended);
	assert_int_equal(b.received, a.to_send);
	transport_free(a.transport, false);
	transport_free(b.transport, false);
}

static void what_was_read_too_far_comes_again(void **state)
{
	(void)state;
	struct end a = {.to_send = 1000}, b = {0};
	struct chunks again = {0};
	uint8_t first[10];
	for (size_t i = 0; i < sizeof(first); i++)
		first[i] = byte_at(i);
	pair(&a, &b, false);
	chunks_copy(&again, first, sizeof(first));
	transport_unread(b.transport, &again);
	a.sent = sizeof(first);
	push(&a);
	run_until(&b.ended);
	assert_int_equal(b.received, 1000);
	transport_free(a.transport, false);
	transport_free(b.transport, false);
}

static void a_vanished_peer_breaks_it(void **state)
{
	(void)state;
	struct end a = {.to_send = 8u << 20}, b = {.hold = true};
	pair(&a, &b, true);
	push(&a);
	run_until(&b.ready);
	transport_free(b.transport, true);
	run_until(&a.broken);
	assert_true(a.broken);
	assert_null(a.transport);
}

static void garbage_is_a_tls_error(void **state)
{
	(void)state;
	int fds[2];
	struct end b = {0};
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
	SSL *ssl = SSL_new(server_ctx);
	SSL_set_accept_state(ssl);
	b.transport = transport_new(base, fds[1], ssl, TRANSPORT_ACCEPTED, &callbacks, &b);
	assert_int_equal(write(fds[0], "GET / HTTP/1.1\r\n\r\n", 18), 18);
	run_until(&b.broken);
	assert_true(b.broken);
	assert_int_equal(b.error, FLOW_TLS_PROTOCOL);
	close(fds[0]);
}

/* Its owner is gone: that it wanted to send more does not keep the loop from going on. */
static void lingering_wants_nothing_more(void **state)
{
	(void)state;
	struct end a = {0}, b = {0};
	pair(&a, &b, true);
	run_until(&a.ready);
	transport_want(a.transport);
	transport_linger(a.transport);
	run_until(&b.ended);
	assert_true(b.ended);
	transport_free(b.transport, false);
	for (int i = 0; i < 10; i++)
		event_base_loop(base, EVLOOP_NONBLOCK);
}

static int make_contexts(void **state)
{
	(void)state;
	base = event_base_new();
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *x = X509_new();
	X509_gmtime_adj(X509_getm_notBefore(x), 0);
	X509_gmtime_adj(X509_getm_notAfter(x), 3600);
	X509_set_pubkey(x, key);
	X509_sign(x, key, EVP_sha256());
	server_ctx = SSL_CTX_new(TLS_server_method());
	client_ctx = SSL_CTX_new(TLS_client_method());
	SSL_CTX *both[] = {server_ctx, client_ctx};
	for (int i = 0; i < 2; i++)
		SSL_CTX_set_mode(both[i], SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
		                 SSL_MODE_RELEASE_BUFFERS);
	int ok = SSL_CTX_use_certificate(server_ctx, x) == 1 && SSL_CTX_use_PrivateKey(server_ctx, key) == 1;
	X509_free(x);
	EVP_PKEY_free(key);
	return ok ? 0 : -1;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(plain_carries_both_ways),
		cmocka_unit_test(stripes_carry_both_ways),
		cmocka_unit_test(tls_carries_both_ways),
		cmocka_unit_test(tls_stripes_carry_both_ways),
		cmocka_unit_test(a_paused_reader_stops_the_writer),
		cmocka_unit_test(what_was_read_too_far_comes_again),
		cmocka_unit_test(a_vanished_peer_breaks_it),
		cmocka_unit_test(garbage_is_a_tls_error),
		cmocka_unit_test(lingering_wants_nothing_more),
	};
	return cmocka_run_group_tests(tests, make_contexts, NULL);
}

/* Load generators' connections: plain TCP, HTTP/1.1 CONNECT, TLS, CONNECT over HTTP/2 and TLS; and tunnels in them. */
#ifndef HERMES_BENCH_LINK_H
#define HERMES_BENCH_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum link_kind { LINK_TCP, LINK_H1, LINK_TLS, LINK_H2 };

struct link;
struct tunnel;

/* Called from the loop; a tunnel may be freed by its owner in `closed` only, where the link is done with it. */
struct tunnel_events {
	void (*open)(struct tunnel *t);
	void (*data)(struct tunnel *t, const uint8_t *data, size_t length);
	void (*closed)(struct tunnel *t, bool clean);
};

/* One tunnel. What it is to send: head[0..head_length), then `fill` bytes of filler, then, with finish, the end. The owner
 * sets these in an event of the same link, and calls tunnel_kick(). */
struct tunnel {
	const struct tunnel_events *events;
	void *owner;
	struct link *link;
	uint8_t head[64];
	size_t head_length, head_sent;
	uint64_t fill;
	bool finish, finished, opened;             /* told to end; has ended; the far end is there */
	int32_t stream;
	uint64_t began;                            /* owner's clock */
	uint64_t received;                         /* owner's count */
};

struct link_target {
	enum link_kind kind;
	const char *host;                          /* numeric IPv4 */
	uint16_t port;
	const char *authority;                     /* of CONNECT */
};

void link_init(void);
/* Connects without blocking. Several tunnels only on LINK_H2. */
struct link *link_new(const struct link_target *target);
unsigned link_tunnels(const struct link *link);
/* Starts a tunnel once the link is up (at once where it is). */
void link_tunnel(struct link *link, struct tunnel *t);
/* Closes it; its tunnels get closed(clean = true when they had been finished). */
void link_close(struct link *link);
void tunnel_kick(struct tunnel *t);
/* Sends what the link has to send. */
void link_kick(struct link *link);
/* Runs until link_stop() or deadline (ns, 0: none). */
void link_loop(uint64_t deadline);
void link_stop(void);
uint64_t now_ns(void);
_Noreturn void die(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif

/* The server's side of SOCKS 5 (RFC 1928) with user names and passwords (RFC 1929), up to where bytes follow, and
 * the header of relayed datagrams. Pure: bytes in, bytes to be answered out. Names are not looked up here: the
 * overlay does that. */
#ifndef HERMES_TUNNEL_SOCKS5_H
#define HERMES_TUNNEL_SOCKS5_H

#include <sys/socket.h>

#include "workers/tunnel/head.h"

enum socks5_event {
	SOCKS5_MORE,                  /* feed on: bytes that are left when there is something in out, or those to come */
	SOCKS5_AUTH,                  /* name and password came: prove them, then socks5_proved() */
	SOCKS5_CONNECT,               /* authority is known; answer with socks5_reply() when the way is open or is not */
	SOCKS5_ASSOCIATE,             /* UDP: answer with socks5_reply_bound(); what the client says of itself is not believed */
	SOCKS5_REFUSED                /* send what is in out, then close */
};

/* RFC 1928 6 */
enum socks5_code {
	SOCKS5_OK = 0, SOCKS5_FAILURE = 1, SOCKS5_NOT_ALLOWED = 2, SOCKS5_NETWORK = 3, SOCKS5_HOST = 4, SOCKS5_CONNECTION = 5,
	SOCKS5_TTL = 6, SOCKS5_COMMAND = 7, SOCKS5_ADDRESS = 8
};

#define SOCKS5_REPLY 10u
#define SOCKS5_REPLY_MAX 22u
#define SOCKS5_AUTHORITY 272u

struct socks5 {
	/* results */
	char name[256], password[256];
	char authority[SOCKS5_AUTHORITY];   /* host:port in lower case, IPv6 in brackets */
	const char *why;              /* REFUSED: for logs, static */
	uint8_t out[SOCKS5_REPLY + 2];
	size_t out_length;            /* to be sent after each call */
	/* inside */
	int state;                    /* enum of socks5.c */
	bool passwords, required;
	uint8_t buffer[520];          /* the message under way; the longest has 513 bytes */
	size_t length;
};

/* passwords: there are users to be proved. required: nobody passes without. */
void socks5_init(struct socks5 *socks, bool passwords, bool required);
/* Returns as soon as there is something to tell; *used says how far. Not after REFUSED, CONNECT or
 * ASSOCIATE. */
enum socks5_event socks5_feed(struct socks5 *socks, const uint8_t *data, size_t length, size_t *used);
/* After AUTH. Returns MORE or REFUSED; the password is wiped. */
enum socks5_event socks5_proved(struct socks5 *socks, bool ok);
/* A reply with an unspecified bound address into to; returns its length. */
size_t socks5_reply(uint8_t to[SOCKS5_REPLY], enum socks5_code code);
/* Success, with the address that datagrams are to be sent to. */
size_t socks5_reply_bound(uint8_t to[SOCKS5_REPLY_MAX], const struct sockaddr_storage *bound);

/* RFC 1928 7: the length of a datagram's header; 0: malformed, or a fragment, which this relay does not put
 * together. */
size_t socks5_datagram_header(const uint8_t *data, size_t length);
/* Its target as host:port, from a header of that length. False: malformed name or port. */
bool socks5_datagram_target(const uint8_t *data, size_t header, char authority[SOCKS5_AUTHORITY]);
/* What a flow's answer to CONNECT means in SOCKS, by its status and the error in its Proxy-Status. */
enum socks5_code socks5_code(const struct head *response);

#endif

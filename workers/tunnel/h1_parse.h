/* HTTP/1.1 heads, strictly by RFC 9112, from bytes that come in any pieces.
 *
 * A head that lies whole in the bytes given is parsed in place; only one that is cut is held until the rest comes. */
#ifndef HERMES_TUNNEL_H1_PARSE_H
#define HERMES_TUNNEL_H1_PARSE_H

#include "workers/tunnel/head.h"

#define H1_FIELDS_MAX 256u            /* above: 431 */
#define H1_RESPONSE_LIMIT (64u * 1024)
#define H1_TRAILERS_LIMIT (8u * 1024)
#define WS_KEY_LENGTH 24              /* base64 of 16 bytes (RFC 6455 4.1) */

enum h1_kind { H1_REQUEST, H1_RESPONSE, H1_TRAILERS };
enum h1_result { H1_MORE, H1_DONE, H1_ERROR };
enum h1_framing { H1_NO_BODY, H1_LENGTH, H1_CHUNKED, H1_UNTIL_CLOSE };

/* What a head says about its own hop. */
struct h1_hop {
	unsigned minor;               /* HTTP/1.minor */
	enum h1_framing framing;      /* of a response: as if its request were a GET */
	uint64_t length;
	bool close;                   /* the connection ends with this message (RFC 9112 9.3) */
	bool upgrade;                 /* response: Connection: upgrade with an Upgrade field of one member */
	bool expect;                  /* Expect: 100-continue */
	char upgrade_to[16];          /* response 101: that member */
	const char *protocol;         /* request turned into extended CONNECT: the upgrade token (static); NULL: none */
	char key[WS_KEY_LENGTH + 1];  /* request turned into extended CONNECT websocket */
	char accept[32];              /* response: Sec-WebSocket-Accept */
};

struct h1_parser {
	enum h1_kind kind;
	bool secure;                  /* origin-form means https */
	uint32_t limit;               /* bytes of a head */
	/* error */
	unsigned status;              /* to answer with: 400, 404, 414, 431, 501, 505 */
	const char *why;              /* static */
	/* DONE: the caller takes head (NULL for trailers without fields) */
	struct head *head;
	struct h1_hop hop;
	/* a head that was cut */
	char *hold;
	size_t held, room;
	size_t start, line, scanned;  /* of the first line, the line under way, what was searched for its end */
	unsigned blank;               /* empty lines before the request (RFC 9112 2.2) */
};

void h1_parser_init(struct h1_parser *parser, enum h1_kind kind, uint32_t limit);
void h1_parser_clear(struct h1_parser *parser);
/* Part of a head has come. */
bool h1_parser_begun(const struct h1_parser *parser);
/* Consumes *used bytes of data: all with MORE, up to the head's end with DONE. After DONE the next head may be fed. */
enum h1_result h1_parser_feed(struct h1_parser *parser, const uint8_t *data, size_t length, size_t *used);

/* h1_target.c. The request-target (RFC 9112 3.2) into head->scheme, authority, path (authority stays NULL for origin-form
 * and asterisk-form). Returns false with *why. head->method is set. */
bool h1_target(struct head *head, const char *text, size_t length, bool secure, const char **why);
/* host, host:port, [v6]:port in lower case, in the head's arena; NULL with *why when it is anything else (userinfo,
 * percent-encoding, zone, port 0 or above 65535 or with leading zeros). port_required: for CONNECT. */
const char *h1_authority(struct head *head, const char *text, size_t length, bool port_required, const char **why);

/* Character classes of RFC 9110 5.6.2 and 5.5, for others who write heads. */
bool h1_is_token(const char *text, size_t length);
bool h1_is_value(const char *text, size_t length);

#endif

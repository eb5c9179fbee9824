#include "workers/tunnel/socks5.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "workers/tunnel/h1_parse.h"

enum state { METHODS, CREDENTIALS, PROVING, REQUEST, DONE };
enum { VERSION = 5, AUTH_VERSION = 1 };
enum { METHOD_NONE = 0, METHOD_PASSWORD = 2, METHOD_NO = 0xff };
enum { COMMAND_CONNECT = 1, COMMAND_ASSOCIATE = 3 };
enum { ADDRESS_IPV4 = 1, ADDRESS_NAME = 3, ADDRESS_IPV6 = 4 };

void socks5_init(struct socks5 *s, bool passwords, bool required)
{
	memset(s, 0, sizeof(*s));
	s->state = METHODS;
	s->passwords = passwords;
	s->required = required;
}

static void answer(struct socks5 *s, uint8_t version, uint8_t code)
{
	s->out[0] = version;
	s->out[1] = code;
	s->out_length = 2;
}

static enum socks5_event refuse(struct socks5 *s, const char *why)
{
	s->state = DONE;
	s->why = why;
	explicit_bzero(s->buffer, sizeof(s->buffer));
	return SOCKS5_REFUSED;
}

static enum socks5_event refuse_request(struct socks5 *s, enum socks5_code code, const char *why)
{
	s->out_length = socks5_reply(s->out, code);
	return refuse(s, why);
}

/* --- how long the message under way is ------------------------------------------------------------------------------------- */

/* Address and port behind `b`, whose fourth byte says of which kind they are: how many bytes in all, as far as n of them
 * tell; 5 at least, and for unknown kinds. */
static size_t with_address(const uint8_t *b, size_t n)
{
	if (n < 5)
		return 5;
	return b[3] == ADDRESS_IPV4 ? 10 : b[3] == ADDRESS_IPV6 ? 22 : b[3] == ADDRESS_NAME ? 7u + b[4] : 5;
}

/* Bytes that it has in all, as far as those that came tell: asked again when they are there. */
static size_t wanted(const struct socks5 *s)
{
	const uint8_t *b = s->buffer;
	size_t n = s->length;
	switch ((enum state)s->state) {
	case METHODS:
		return n < 2 ? 2 : 2u + b[1];
	case CREDENTIALS:
		return n < 2 ? 2 : n < 3u + b[1] ? 3u + b[1] : 3u + b[1] + b[2 + b[1]];
	case REQUEST:
		return with_address(b, n);
	case PROVING: case DONE:
		break;
	}
	return 0;
}

/* --- messages ------------------------------------------------------------------------------------------------------------ */

static enum socks5_event methods(struct socks5 *s)
{
	bool none = false, password = false;
	for (unsigned i = 0; i < s->buffer[1]; i++) {
		none |= s->buffer[2 + i] == METHOD_NONE;
		password |= s->buffer[2 + i] == METHOD_PASSWORD;
	}
	if (s->passwords && password) {
		answer(s, VERSION, METHOD_PASSWORD);
		s->state = CREDENTIALS;
		return SOCKS5_MORE;
	}
	if (none && !s->required) {
		answer(s, VERSION, METHOD_NONE);
		s->state = REQUEST;
		return SOCKS5_MORE;
	}
	answer(s, VERSION, METHOD_NO);
	return refuse(s, "no acceptable method offered");
}

static enum socks5_event credentials(struct socks5 *s)
{
	const uint8_t *name = s->buffer + 2, *password = name + s->buffer[1] + 1;
	size_t name_length = s->buffer[1], password_length = password[-1];
	if (name_length == 0 || memchr(name, 0, name_length) || memchr(password, 0, password_length)) {
		answer(s, AUTH_VERSION, 1);
		return refuse(s, "malformed name or password");
	}
	memcpy(s->name, name, name_length);
	memcpy(s->password, password, password_length);
	s->name[name_length] = s->password[password_length] = '\0';
	explicit_bzero(s->buffer, sizeof(s->buffer));
	s->state = PROVING;
	return SOCKS5_AUTH;
}

enum socks5_event socks5_proved(struct socks5 *s, bool ok)
{
	explicit_bzero(s->password, sizeof(s->password));
	answer(s, AUTH_VERSION, ok ? 0 : 1);
	if (!ok)
		return refuse(s, "wrong user name or password");
	s->state = REQUEST;
	return SOCKS5_MORE;
}

/* host as it came; names may also spell an IPv6 address. Returns false when it is neither. */
static bool put_host(const uint8_t *b, char *to, size_t size)
{
	char text[INET6_ADDRSTRLEN] = "";
	struct in6_addr in6;
	if (b[3] == ADDRESS_IPV4)
		return inet_ntop(AF_INET, b + 4, to, (socklen_t)size) != NULL;
	if (b[3] == ADDRESS_IPV6) {
		inet_ntop(AF_INET6, b + 4, text, sizeof(text));
		snprintf(to, size, "[%s]", text);
		return true;
	}
	size_t n = b[4];
	if (n == 0 || memchr(b + 5, 0, n))
		return false;
	if (n < sizeof(text) && memchr(b + 5, ':', n)) {
		memcpy(text, b + 5, n);
		text[n] = '\0';
		snprintf(to, size, "[%s]", text);
		return inet_pton(AF_INET6, text, &in6) == 1;
	}
	memcpy(to, b + 5, n);
	to[n] = '\0';
	return true;
}

/* host:port in its one spelling from a whole message of `length` bytes; NULL, or what is wrong. */
static const char *put_authority(const uint8_t *b, size_t length, char authority[SOCKS5_AUTHORITY])
{
	char text[SOCKS5_AUTHORITY];
	unsigned port = (unsigned)b[length - 2] << 8 | b[length - 1];
	const char *why;
	if (!put_host(b, text, 260))
		return "malformed name";
	size_t n = strlen(text);
	n += (size_t)snprintf(text + n, sizeof(text) - n, ":%u", port);
	struct head *head = head_new();
	const char *found = h1_authority(head, text, n, true, &why);
	if (found)
		snprintf(authority, SOCKS5_AUTHORITY, "%s", found);
	head_free(head);
	return found ? NULL : "malformed name or port";
}

static enum socks5_event request(struct socks5 *s)
{
	bool associate = s->buffer[1] == COMMAND_ASSOCIATE;
	const char *why = associate ? NULL : put_authority(s->buffer, s->length, s->authority);
	if (why)
		return refuse_request(s, SOCKS5_FAILURE, why);
	s->state = DONE;
	return associate ? SOCKS5_ASSOCIATE : SOCKS5_CONNECT;
}

static enum socks5_event message(struct socks5 *s)
{
	switch ((enum state)s->state) {
	case METHODS: return methods(s);
	case CREDENTIALS: return credentials(s);
	case REQUEST: return request(s);
	case PROVING: case DONE: break;
	}
	return SOCKS5_MORE;
}

/* What can be refused before the message is whole. */
static enum socks5_event check_begin(struct socks5 *s)
{
	const uint8_t *b = s->buffer;
	if (s->length >= 1 && b[0] != (s->state == CREDENTIALS ? AUTH_VERSION : VERSION)) {
		if (s->state == CREDENTIALS)
			answer(s, AUTH_VERSION, 1);
		return refuse(s, "not SOCKS 5");
	}
	if (s->state != REQUEST || s->length < 5)
		return SOCKS5_MORE;
	if (b[1] != COMMAND_CONNECT && b[1] != COMMAND_ASSOCIATE)
		return refuse_request(s, SOCKS5_COMMAND, "command other than CONNECT and UDP ASSOCIATE");
	if (b[3] != ADDRESS_IPV4 && b[3] != ADDRESS_IPV6 && b[3] != ADDRESS_NAME)
		return refuse_request(s, SOCKS5_ADDRESS, "unknown kind of address");
	return SOCKS5_MORE;
}

enum socks5_event socks5_feed(struct socks5 *s, const uint8_t *data, size_t length, size_t *used)
{
	*used = 0;
	s->out_length = 0;
	while (s->state != PROVING && s->state != DONE) {
		size_t want = wanted(s);
		while (s->length < want && *used < length) {
			s->buffer[s->length++] = data[(*used)++];
			if (s->length <= 5 && check_begin(s) == SOCKS5_REFUSED)
				return SOCKS5_REFUSED;
			want = wanted(s);
		}
		if (s->length < want)
			return SOCKS5_MORE;
		enum socks5_event event = message(s);
		s->length = 0;
		/* an answer goes out before the next message is looked at */
		if (event != SOCKS5_MORE || s->out_length > 0)
			return event;
	}
	return SOCKS5_MORE;
}

/* --- replies ------------------------------------------------------------------------------------------------------------- */

size_t socks5_reply(uint8_t to[SOCKS5_REPLY], enum socks5_code code)
{
	memset(to, 0, SOCKS5_REPLY);
	to[0] = VERSION;
	to[1] = (uint8_t)code;
	to[3] = ADDRESS_IPV4;
	return SOCKS5_REPLY;
}

size_t socks5_reply_bound(uint8_t to[SOCKS5_REPLY_MAX], const struct sockaddr_storage *bound)
{
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)bound;
	const struct sockaddr_in *v4 = (const struct sockaddr_in *)bound;
	memset(to, 0, SOCKS5_REPLY_MAX);
	to[0] = VERSION;
	if (bound->ss_family == AF_INET) {
		to[3] = ADDRESS_IPV4;
		memcpy(to + 4, &v4->sin_addr, 4);
		memcpy(to + 8, &v4->sin_port, 2);
		return 10;
	}
	to[3] = ADDRESS_IPV6;
	memcpy(to + 4, &v6->sin6_addr, 16);
	memcpy(to + 20, &v6->sin6_port, 2);
	return 22;
}

enum socks5_code socks5_code(const struct head *response)
{
	static const struct { const char *token; enum socks5_code code; } errors[] = {
		{"connection_refused", SOCKS5_CONNECTION}, {"connection_timeout", SOCKS5_HOST}, {"dns_error", SOCKS5_HOST},
		{"dns_timeout", SOCKS5_HOST}, {"destination_not_found", SOCKS5_HOST},
		{"destination_unavailable", SOCKS5_HOST}, {"destination_ip_unroutable", SOCKS5_NETWORK},
		{"destination_ip_prohibited", SOCKS5_NOT_ALLOWED}, {"http_request_denied", SOCKS5_NOT_ALLOWED},
		{"proxy_loop_detected", SOCKS5_TTL},
	};
	if (response->status >= 200 && response->status < 300)
		return SOCKS5_OK;
	const char *proxy_status = head_get(response, "proxy-status");
	const char *error = proxy_status ? strstr(proxy_status, "error=") : NULL;
	for (size_t i = 0; error && i < sizeof(errors) / sizeof(*errors); i++)
		if (strncmp(error + 6, errors[i].token, strlen(errors[i].token)) == 0)
			return errors[i].code;
	return response->status == 403 || response->status == 407 ? SOCKS5_NOT_ALLOWED :
	       response->status == 504 ? SOCKS5_HOST : SOCKS5_FAILURE;
}

/* --- datagrams ----------------------------------------------------------------------------------------------------------- */

size_t socks5_datagram_header(const uint8_t *data, size_t length)
{
	if (length < 5 || data[0] != 0 || data[1] != 0 || data[2] != 0)
		return 0;
	size_t header = with_address(data, length);
	return header > 5 && header <= length ? header : 0;
}

bool socks5_datagram_target(const uint8_t *data, size_t header, char authority[SOCKS5_AUTHORITY])
{
	return put_authority(data, header, authority) == NULL;
}

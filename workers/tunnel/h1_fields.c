/* What the fields of an HTTP/1.1 head mean for its own hop (RFC 9112). */
#include "workers/tunnel/h1_internal.h"

#include <string.h>
#include <strings.h>

#include "workers/tunnel/masque.h"

/* --- fields that belong to this hop ------------------------------------------------------------------------------- */

enum own {
	OWN_NONE, OWN_HOST, OWN_CONNECTION, OWN_LENGTH, OWN_ENCODING, OWN_UPGRADE, OWN_TE, OWN_EXPECT, OWN_KEY,
	OWN_VERSION, OWN_ACCEPT, OWN_DROPPED
};

static enum own own_field(const char *name, size_t n)
{
	static const struct { const char *name; uint8_t length, own; } table[] = {
		{"host", 4, OWN_HOST}, {"connection", 10, OWN_CONNECTION}, {"content-length", 14, OWN_LENGTH},
		{"transfer-encoding", 17, OWN_ENCODING}, {"upgrade", 7, OWN_UPGRADE}, {"te", 2, OWN_TE},
		{"expect", 6, OWN_EXPECT}, {"sec-websocket-key", 17, OWN_KEY}, {"sec-websocket-version", 21, OWN_VERSION},
		{"sec-websocket-accept", 20, OWN_ACCEPT}, {"keep-alive", 10, OWN_DROPPED},
		{"proxy-connection", 16, OWN_DROPPED}, {"http2-settings", 14, OWN_DROPPED},
	};
	for (size_t i = 0; i < sizeof(table) / sizeof(*table); i++)
		if (table[i].length == n && strncasecmp(table[i].name, name, n) == 0)
			return table[i].own;
	return OWN_NONE;
}

/* The lists are long: only what counts them is cleared. */
void h1_reading_init(struct h1_reading *r)
{
	memset(r, 0, offsetof(struct h1_reading, nominated));
	r->n_nominated = 0;
	r->keep_alive = r->connection_upgrade = r->te_trailers = false;
	r->masque = NULL;
}

static bool is(struct span span, const char *word)
{
	return span.n == strlen(word) && strncasecmp(span.text, word, span.n) == 0;
}

static struct span trimmed(const char *text, size_t n)
{
	while (n > 0 && (text[0] == ' ' || text[0] == '\t'))
		text++, n--;
	while (n > 0 && (text[n - 1] == ' ' || text[n - 1] == '\t'))
		n--;
	return (struct span){text, n};
}

/* The next member of a comma-separated list; empty ones are passed over. */
static bool next_member(struct span *list, struct span *member)
{
	while (list->n > 0) {
		const char *comma = memchr(list->text, ',', list->n);
		size_t n = comma ? (size_t)(comma - list->text) : list->n;
		*member = trimmed(list->text, n);
		list->text += comma ? n + 1 : n;
		list->n -= comma ? n + 1 : n;
		if (member->n > 0)
			return true;
	}
	return false;
}

static bool has_member(struct span list, const char *word)
{
	struct span member;
	while (next_member(&list, &member))
		if (is(member, word))
			return true;
	return false;
}

/* RFC 9110 7.6.1. false: too many names, or something that is no name. */
static bool read_connection(struct h1_hop *hop, struct h1_reading *r, struct span list)
{
	struct span member;
	while (next_member(&list, &member)) {
		if (!h1_is_token(member.text, member.n))
			return false;
		if (is(member, "close"))
			hop->close = true;
		else if (is(member, "keep-alive"))
			r->keep_alive = true;
		else if (is(member, "upgrade"))
			r->connection_upgrade = true;
		else if (own_field(member.text, member.n) == OWN_NONE) {
			if (r->n_nominated == H1_NOMINATED)
				return false;
			r->nominated[r->n_nominated++] = member;
		}
	}
	return true;
}

/* Fields that say what a message means in itself, or that guard against loops, are no hop's to take away. */
static bool removable(const char *name)
{
	return strncmp(name, "content-", 8) != 0 && strcmp(name, "via") != 0 && strcmp(name, "forwarded") != 0;
}

static void remove_nominated(struct head *head, const struct h1_reading *r)
{
	char name[128];
	for (unsigned i = 0; i < r->n_nominated; i++) {
		size_t n = r->nominated[i].n;
		if (n >= sizeof(name))
			continue;
		for (size_t j = 0; j <= n; j++) {
			char c = j < n ? r->nominated[i].text[j] : '\0';
			name[j] = c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
		}
		if (removable(name))
			head_remove(head, name);
	}
}

/* --- field lines -------------------------------------------------------------------------------------------------- */

/* RFC 9110 6.5.1: what a recipient would have needed before the body, or what frames or routes it. */
static bool allowed_in_trailers(const char *name, size_t n)
{
	static const char *const refused[] = {
		"authorization", "cache-control", "content-encoding", "content-range", "content-type", "cookie", "expires",
		"forwarded", "if-match", "if-modified-since", "if-none-match", "if-range", "if-unmodified-since", "location",
		"max-forwards", "pragma", "proxy-authenticate", "proxy-authorization", "range", "retry-after", "set-cookie",
		"trailer", "vary", "via", "www-authenticate",
	};
	for (size_t i = 0; i < sizeof(refused) / sizeof(*refused); i++)
		if (strlen(refused[i]) == n && strncasecmp(refused[i], name, n) == 0)
			return false;
	return true;
}

static void keep_span(struct span *where, unsigned *count, struct span value)
{
	*where = value;
	(*count)++;
}

static void read_tokens(struct h1_reading *r, struct span value)
{
	keep_span(&r->upgrade, &r->upgrades, value);
	if (has_member(value, "connect-udp"))
		r->masque = "connect-udp";
	else if (has_member(value, "connect-ip"))
		r->masque = "connect-ip";
}

static bool own_value(struct h1_parser *p, struct h1_reading *r, enum own own, struct span value)
{
	struct h1_hop *hop = &p->hop;
	switch (own) {
	case OWN_HOST: keep_span(&r->host, &r->hosts, value); return true;
	case OWN_LENGTH: r->lengths++; return true;
	case OWN_ENCODING: keep_span(&r->encoding, &r->encodings, value); return true;
	case OWN_UPGRADE: read_tokens(r, value); return true;
	case OWN_KEY: keep_span(&r->key, &r->keys, value); return true;
	case OWN_VERSION: keep_span(&r->version, &r->versions, value); return true;
	case OWN_ACCEPT: keep_span(&r->accept, &r->accepts, value); return true;
	case OWN_CONNECTION: return read_connection(hop, r, value);
	case OWN_TE: r->te_trailers |= has_member(value, "trailers"); return true;
	case OWN_EXPECT: hop->expect |= is(value, "100-continue"); return true;
	case OWN_NONE: case OWN_DROPPED: return true;
	}
	return true;
}

/* Whether a field with a meaning for this hop is also passed on. */
static bool passed_on(const struct h1_parser *p, enum own own)
{
	if (own == OWN_EXPECT)
		return p->hop.minor > 0;   /* RFC 9110 10.1.1: ignored in HTTP/1.0 */
	return own == OWN_NONE || own == OWN_LENGTH || own == OWN_KEY || own == OWN_VERSION || own == OWN_ACCEPT;
}

enum h1_result h1_field_line(struct h1_parser *p, struct h1_reading *r, const char *line, size_t n)
{
	const char *colon = memchr(line, ':', n);
	size_t name = colon ? (size_t)(colon - line) : 0;
	if (line[0] == ' ' || line[0] == '\t')
		return h1_fail(p, 400, "folded header line");   /* RFC 9112 5.2 */
	if (!h1_is_token(line, name))
		return h1_fail(p, 400, "bad header name");      /* also blanks before the colon, RFC 9112 5.1 */
	struct span value = trimmed(colon + 1, n - name - 1);
	if (!h1_is_value(value.text, value.n))
		return h1_fail(p, 400, "control character in a header value");
	if (p->head->n >= H1_FIELDS_MAX)
		return h1_fail(p, 431, "too many headers");
	enum own own = own_field(line, name);
	if (p->kind == H1_TRAILERS) {
		if (own == OWN_LENGTH || own == OWN_ENCODING)
			return h1_fail(p, 400, "framing header in the trailers");
		if (own == OWN_NONE && allowed_in_trailers(line, name))
			head_add_n(p->head, line, name, value.text, value.n);
		return H1_MORE;
	}
	if (own != OWN_NONE && !own_value(p, r, own, value))
		return h1_fail(p, 400, "bad Connection header");
	if (passed_on(p, own))
		head_add_n(p->head, line, name, value.text, value.n);
	return H1_MORE;
}

/* --- what the fields mean ----------------------------------------------------------------------------------------- */

/* RFC 9112 6.3, with nothing repaired: whoever contradicts himself is refused. */
static enum h1_result read_framing(struct h1_parser *p, const struct h1_reading *r)
{
	struct h1_hop *hop = &p->hop;
	hop->framing = p->kind == H1_RESPONSE ? H1_UNTIL_CLOSE : H1_NO_BODY;
	if (r->encodings > 0) {
		if (r->lengths > 0)
			return h1_fail(p, 400, "Content-Length with Transfer-Encoding");
		if (hop->minor == 0)
			return h1_fail(p, 400, "Transfer-Encoding in HTTP/1.0");
		if (r->encodings > 1)
			return h1_fail(p, 400, "more than one Transfer-Encoding");
		if (!is(r->encoding, "chunked"))
			return h1_fail(p, 501, "transfer coding other than chunked");
		hop->framing = H1_CHUNKED;
		return H1_MORE;
	}
	if (r->lengths == 0)
		return H1_MORE;
	if (r->lengths > 1)
		return h1_fail(p, 400, "more than one Content-Length");
	if (p->head->content_length < 0)
		return h1_fail(p, 400, "bad Content-Length");
	hop->length = (uint64_t)p->head->content_length;
	hop->framing = hop->length || p->kind == H1_RESPONSE ? H1_LENGTH : H1_NO_BODY;
	return H1_MORE;
}

static enum h1_result read_host(struct h1_parser *p, const struct h1_reading *r)
{
	struct head *head = p->head;
	if (r->hosts > 1)
		return h1_fail(p, 400, "more than one Host");
	if (r->hosts == 0 && (p->hop.minor > 0 || !head->authority))
		return h1_fail(p, 400, "no Host");   /* RFC 9112 3.2 */
	if (r->host.n == 0) {
		if (!head->authority)
			return h1_fail(p, 400, "empty Host");
		return H1_MORE;
	}
	const char *why, *host = h1_authority(head, r->host.text, r->host.n, false, &why);
	if (!host)
		return h1_fail(p, 400, "bad Host");
	if (!head->authority)
		head->authority = host;           /* else it is ignored, RFC 9112 3.2.2 */
	return H1_MORE;
}

static bool is_key(struct span key)
{
	if (key.n != WS_KEY_LENGTH || key.text[22] != '=' || key.text[23] != '=')
		return false;
	for (size_t i = 0; i < 22; i++) {
		char c = key.text[i];
		if (!(h1_is_token(&c, 1) ? strchr("!#$%&'*-.^_`|~", c) == NULL : c == '/'))
			return false;
	}
	return true;
}

static void make_extended(struct h1_parser *p, const char *protocol)
{
	p->head->method = "CONNECT";
	p->head->protocol = p->hop.protocol = protocol;
}

/* RFC 6455 4.2.1 */
static bool is_websocket(const struct h1_parser *p, const struct h1_reading *r)
{
	return r->connection_upgrade && r->upgrades == 1 && has_member(r->upgrade, "websocket") && r->keys == 1 &&
	       r->versions == 1 && is_key(r->key) && is(r->version, "13") && strcmp(p->head->method, "GET") == 0 &&
	       p->hop.framing == H1_NO_BODY;
}

/* RFC 9298 3.2, RFC 9484 4.2: what is less than a whole upgrade request is malformed. */
static enum h1_result read_masque(struct h1_parser *p, const struct h1_reading *r)
{
	if (!r->connection_upgrade || r->upgrades != 1 || strcmp(p->head->method, "GET") != 0)
		return h1_fail(p, 400, "bad request to upgrade to UDP or IP proxying");
	if (p->hop.framing != H1_NO_BODY)
		return h1_fail(p, 400, "request to upgrade to UDP or IP proxying with a body");
	make_extended(p, r->masque);
	unsigned status = masque_accept(p->head, &p->why);
	return status ? h1_fail(p, status, p->why) : H1_DONE;
}

/* An upgrade that we know becomes RFC 8441's extended CONNECT; any other is passed over (RFC 9110 7.8). */
static enum h1_result read_upgrade(struct h1_parser *p, const struct h1_reading *r)
{
	if (p->hop.minor == 0)
		return H1_DONE;
	if (!is_websocket(p, r))
		return r->masque ? read_masque(p, r) : H1_DONE;
	memcpy(p->hop.key, r->key.text, WS_KEY_LENGTH);
	p->hop.key[WS_KEY_LENGTH] = '\0';
	head_remove(p->head, "sec-websocket-key");
	head_remove(p->head, "content-length");
	make_extended(p, "websocket");
	return H1_DONE;
}

static void copy_span(char *to, size_t size, struct span span)
{
	size_t n = span.n < size ? span.n : size - 1;
	memcpy(to, span.text, n);
	to[n] = '\0';
}

static void read_upgraded(struct h1_parser *p, const struct h1_reading *r)
{
	struct span list = r->upgrade, first = {"", 0}, second;
	if (r->upgrades == 1)
		next_member(&list, &first);
	p->hop.upgrade = r->connection_upgrade && first.n > 0 && !next_member(&list, &second);
	copy_span(p->hop.upgrade_to, sizeof(p->hop.upgrade_to), first);
	if (r->accepts == 1)
		copy_span(p->hop.accept, sizeof(p->hop.accept), r->accept);
}

enum h1_result h1_fields_end(struct h1_parser *p, const struct h1_reading *r)
{
	if (p->kind == H1_TRAILERS)
		return H1_DONE;
	if (p->hop.minor == 0 && !(p->kind == H1_RESPONSE && r->keep_alive))
		p->hop.close = true;              /* HTTP/1.0 clients are not kept */
	if (read_framing(p, r) == H1_ERROR)
		return H1_ERROR;
	remove_nominated(p->head, r);
	if (p->kind == H1_RESPONSE) {
		read_upgraded(p, r);
		return H1_DONE;
	}
	if (read_host(p, r) == H1_ERROR)
		return H1_ERROR;
	if (head_is_connect(p->head)) {
		if (p->hop.framing != H1_NO_BODY)
			return h1_fail(p, 400, "CONNECT with a body");
		head_remove(p->head, "content-length");
	}
	if (r->te_trailers)
		head_add_n(p->head, "te", 2, "trailers", 8);
	return read_upgrade(p, r);
}

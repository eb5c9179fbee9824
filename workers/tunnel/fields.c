#include "workers/tunnel/fields.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "workers/tunnel/probe.h"

#define COMMENT "(hermes)"    /* marks our own members of Via */
#define TEXT_MAX 512

/* --- what comes in --------------------------------------------------------------------------------------------------------- */

static bool listed(const struct config_strs *strs, const char *name)
{
	for (size_t i = 0; i < strs->n; i++)
		if (strcmp(strs->v[i], name) == 0)
			return true;
	return false;
}

static int compare(const void *key, const void *member)
{
	return strcmp(key, *(char *const *)member);
}

/* "user" always is the overlay's own: the next node believes it, whether or not this one's configuration mentions it. */
static bool internal(const struct config *config, const char *name)
{
	const struct config_strs *names = &config->internal_headers;
	return strcmp(name, "user") == 0 ||
	       (names->n > 0 && bsearch(name, names->v, names->n, sizeof(*names->v), compare) != NULL);
}

/* Whether the peer may say it. Whom it may speak for, the flow checks by the peer's `users`. */
static bool peer_may_say(const struct config_listener *listener, const struct config_peer *peer, const char *name)
{
	if (listener->accept != CONFIG_OVERLAY)
		return false;
	return !peer || peer->any_header || strcmp(name, "user") == 0 || listed(&peer->headers, name);
}

static bool removed(const struct config *config, const struct config_listener *listener, const struct config_peer *peer,
                    const char *name)
{
	if (strcmp(name, "proxy-authorization") == 0 || strcmp(name, "proxy-connection") == 0)
		return true;
	if (strcmp(name, FIELDS_PEER) == 0)
		return true;                                 /* who asks the controller, only this node says */
	if (strcmp(name, PROBE_HEADER) == 0)
		return listener->accept != CONFIG_OVERLAY;   /* it makes nodes speak of themselves */
	return !listener->trust_headers && internal(config, name) && !peer_may_say(listener, peer, name);
}

void fields_clean_request(struct head *request, const struct config *config, const struct config_listener *listener,
                          const struct config_peer *peer)
{
	unsigned kept = 0;
	for (unsigned i = 0; i < request->n; i++) {
		struct field *field = &request->fields[i];
		if (removed(config, listener, peer, field->name))
			request->bytes -= field->name_length + field->value_length;
		else
			request->fields[kept++] = *field;
	}
	request->n = kept;
}

/* --- Via ------------------------------------------------------------------------------------------------------------------ */

/* Text put together without printf: it happens on every request. What does not fit is left out. */
struct text { char *at, *end; };

static void add(struct text *text, const char *string)
{
	while (*string && text->at + 1 < text->end)
		*text->at++ = *string++;
	*text->at = '\0';
}

static void own_name(const struct config *config, char *name, size_t size)
{
	struct text text = {name, name + size};
	add(&text, config->node_name);
	if (config->domain && config->domain[0]) {
		add(&text, ".");
		add(&text, config->domain);
	}
}

/* The next word of a Via member; blanks separate. Returns its length, 0 at the member's end. */
static size_t word(const char **at, const char **start)
{
	*at += strspn(*at, " \t");
	*start = *at;
	*at += strcspn(*at, " \t,(");
	return (size_t)(*at - *start);
}

/* Comments nest and may quote with a backslash (RFC 9110 5.6.5). Returns what follows. */
static const char *skip_comment(const char *at)
{
	unsigned depth = 0;
	for (; *at; at++) {
		if (*at == '\\' && at[1])
			at++;
		else if (*at == '(')
			depth++;
		else if (*at == ')' && --depth == 0)
			return at + 1;
	}
	return at;
}

static unsigned count_hops(const char *at, const char *name, bool *own)
{
	unsigned hops = 0;
	while (*at) {
		const char *protocol, *received_by;
		word(&at, &protocol);
		size_t n = word(&at, &received_by);
		at += strspn(at, " \t");
		const char *comment = at;
		if (*at == '(')
			at = skip_comment(at);
		if (n > 0 && (size_t)(at - comment) == strlen(COMMENT) && memcmp(comment, COMMENT, strlen(COMMENT)) == 0) {
			hops++;
			*own |= strlen(name) == n && strncasecmp(name, received_by, n) == 0;
		}
		while (*at && *at != ',')
			at = *at == '(' ? skip_comment(at) : at + 1;
		if (*at)
			at++;
	}
	return hops;
}

unsigned fields_hops(const struct head *request, const struct config *config, bool *own)
{
	char name[TEXT_MAX];
	unsigned hops = 0;
	*own = false;
	own_name(config, name, sizeof(name));
	for (unsigned i = 0; i < request->n; i++)
		if (strcmp(request->fields[i].name, "via") == 0)
			hops += count_hops(request->fields[i].value, name, own);
	return hops;
}

void fields_via(struct head *head, const struct config *config, const char *carry)
{
	char name[TEXT_MAX], member[TEXT_MAX + 32];
	struct text text = {member, member + sizeof(member)};
	own_name(config, name, sizeof(name));
	add(&text, carry && strcmp(carry, "h2") == 0 ? "2 " : "1.1 ");
	add(&text, name);
	add(&text, " " COMMENT);
	head_add_n(head, "via", 3, member, (size_t)(text.at - member));
}

/* --- Forwarded ------------------------------------------------------------------------------------------------------------ */

static void add_port(struct text *text, uint16_t port)
{
	char digits[8], *at = digits + sizeof(digits);
	*--at = '\0';
	do
		*--at = (char)('0' + port % 10);
	while (port /= 10);
	*--at = ':';
	add(text, at);
}

/* RFC 7239 6: anything with a colon or a bracket is quoted. */
static void add_node(struct text *text, const char *source, uint16_t port)
{
	struct in_addr in;
	struct in6_addr in6;
	bool v4 = source && inet_pton(AF_INET, source, &in) == 1;
	bool v6 = source && !v4 && inet_pton(AF_INET6, source, &in6) == 1;
	if (!v4 && !v6)
		return add(text, "unknown");
	bool quote = v6 || port;
	add(text, v6 ? "\"[" : quote ? "\"" : "");
	add(text, source);
	add(text, v6 ? "]" : "");
	if (port)
		add_port(text, port);
	add(text, quote ? "\"" : "");
}

void fields_forwarded(struct head *request, const char *source, uint16_t port)
{
	char value[TEXT_MAX];
	struct text text = {value, value + sizeof(value)};
	const char *authority = request->authority;
	add(&text, "for=");
	add_node(&text, source, port);
	if (request->scheme) {
		add(&text, ";proto=");
		add(&text, request->scheme);
	}
	/* an authority that was checked has no quote or backslash; a longer one than this is no host */
	if (authority && strlen(authority) < 280 && !strpbrk(authority, "\"\\")) {
		const char *quote = strpbrk(authority, ":[]") ? "\"" : "";
		add(&text, ";host=");
		add(&text, quote);
		add(&text, authority);
		add(&text, quote);
	}
	head_add_n(request, "forwarded", 9, value, (size_t)(text.at - value));
}

void fields_forward(struct head *request, const struct config *config, const char *carry, bool first_hop,
                    const char *source, uint16_t port)
{
	fields_via(request, config, carry);
	if (first_hop)
		fields_forwarded(request, source, port);
}

void fields_response(struct head *response, const struct config *config, const char *carry)
{
	fields_via(response, config, carry);
}

/* --- what decisions look at ------------------------------------------------------------------------------------------------ */

static const char *joined(struct head *head, const char *name, size_t length, unsigned from)
{
	size_t total = 0;
	for (unsigned i = from; i < head->n; i++)
		if (head->fields[i].name_length == length && memcmp(head->fields[i].name, name, length) == 0)
			total += head->fields[i].value_length + 2;
	char *text = malloc(total + 1), *at = text;
	if (!text)
		abort();
	for (unsigned i = from; i < head->n; i++) {
		const struct field *field = &head->fields[i];
		if (field->name_length != length || memcmp(field->name, name, length) != 0)
			continue;
		if (at != text)
			at = mempcpy(at, ", ", 2);
		at = mempcpy(at, field->value, field->value_length);
	}
	const char *kept = head_string(head, text, at - text);
	free(text);
	return kept;
}

/* The value of a header as one string, NULL where absent. Only several lines make a copy. */
static const char *whole_value(struct head *head, const char *name)
{
	size_t length = strlen(name);
	unsigned found = 0, first = 0;
	for (unsigned i = 0; i < head->n; i++) {
		if (head->fields[i].name_length != length || memcmp(head->fields[i].name, name, length) != 0)
			continue;
		if (found++ == 0)
			first = i;
	}
	return found == 0 ? NULL : found == 1 ? head->fields[first].value : joined(head, name, length, first);
}

static void put(struct ipc_pair *out, unsigned *n, unsigned max, const char *name, const char *value)
{
	if (*n < max)
		out[*n] = (struct ipc_pair){.name = name, .value = value};
	++*n;
}

static bool named_before(const struct head *request, unsigned i)
{
	for (unsigned k = 0; k < i; k++)
		if (strcmp(request->fields[k].name, request->fields[i].name) == 0)
			return true;
	return false;
}

static unsigned examined_all(struct head *request, struct ipc_pair *out, unsigned max)
{
	unsigned n = 0;
	for (unsigned i = 0; i < request->n && n <= max; i++)
		if (!named_before(request, i))
			put(out, &n, max, request->fields[i].name, whole_value(request, request->fields[i].name));
	return n;
}

unsigned fields_examined(const struct head *request, const struct config *config, struct ipc_pair *out, unsigned max)
{
	unsigned n = 0;
	if (config->examines.all_headers)
		return examined_all((struct head *)request, out, max);
	for (size_t i = 0; i < config->examined_headers.n && n <= max; i++) {
		const char *name = config->examined_headers.v[i];
		const char *value = whole_value((struct head *)request, name);
		if (value)
			put(out, &n, max, name, value);
	}
	return n;
}

/* --- configured headers ---------------------------------------------------------------------------------------------------- */

void fields_apply(struct head *head, const struct config_pairs *set, const struct config_strs *remove)
{
	for (size_t i = 0; remove && i < remove->n; i++)
		head_remove(head, remove->v[i]);
	for (size_t i = 0; set && i < set->n; i++)
		head_set(head, set->v[i].name, set->v[i].value);
}

void fields_apply_pairs(struct head *head, const struct ipc_pair *set, size_t n)
{
	for (size_t i = 0; i < n; i++)
		head_set(head, set[i].name, set[i].value);
}

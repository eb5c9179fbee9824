/* SPDX-License-Identifier: Apache-2.0 */
#include "store/match.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define DAY 86400

/* --- hosts ---------------------------------------------------------------------------------------------------------- */

bool match_address(const char *host, struct in6_addr *address)
{
	struct in_addr v4;

	if (inet_pton(AF_INET, host, &v4) == 1) {
		memset(address, 0, sizeof(*address));
		address->s6_addr[10] = address->s6_addr[11] = 0xff;
		memcpy(address->s6_addr + 12, &v4, 4);
		return true;
	}
	return inet_pton(AF_INET6, host, address) == 1;
}

static int parse_port(const char *text, size_t length)
{
	int port = 0;

	if (!length || length > 5)
		return -1;
	for (size_t i = 0; i < length; i++) {
		if (text[i] < '0' || text[i] > '9')
			return -1;
		port = port * 10 + (text[i] - '0');
	}
	return port <= 65535 ? port : -1;
}

static unsigned char lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (unsigned char)(c + 32) : (unsigned char)c;
}

static int copy_lower(char *host, const char *text, size_t length)
{
	if (!length || length >= MATCH_HOST_MAX)
		return -1;
	for (size_t i = 0; i < length; i++)
		host[i] = (char)lower(text[i]);
	host[length] = 0;
	return (int)length;
}

/* "[v6]" and "[v6]:port", with text behind the opening bracket. */
static int bracketed(const char *text, char *host, int *port)
{
	const char *end = strchr(text, ']');
	struct in6_addr address;

	if (!end || (end[1] && end[1] != ':'))
		return -1;
	if (end[1] && (*port = parse_port(end + 2, strlen(end + 2))) < 0)
		return -1;
	int length = copy_lower(host, text, (size_t)(end - text));
	if (length > 0 && inet_pton(AF_INET6, host, &address) == 1 &&
	    inet_ntop(AF_INET6, &address, host, MATCH_HOST_MAX))
		return (int)strlen(host);
	return length;
}

/* An IPv6 address without brackets, which has no port; or a prefix "2001:db8::/32", the target of a CONNECT-IP. */
static int bare_v6(const char *text, char *host)
{
	const char *slash = strchr(text, '/');
	size_t length = slash ? (size_t)(slash - text) : strlen(text), digits = slash ? strspn(slash + 1, "0123456789") : 0;
	struct in6_addr address;

	if (slash && (!digits || digits > 3 || slash[1 + digits]))
		return -1;
	if (copy_lower(host, text, length) < 0 || inet_pton(AF_INET6, host, &address) != 1 ||
	    !inet_ntop(AF_INET6, &address, host, INET6_ADDRSTRLEN))
		return -1;
	if (slash)
		strcat(host, slash);
	return (int)strlen(host);
}

int match_host(const char *authority, char host[MATCH_HOST_MAX], int *port)
{
	const char *first = strchr(authority, ':');
	const char *last = first ? strrchr(authority, ':') : NULL;
	size_t length;

	*port = -1;
	if (*authority == '[')
		return bracketed(authority + 1, host, port);
	if (first && first != last)
		return bare_v6(authority, host);
	length = first ? (size_t)(first - authority) : strlen(authority);
	if (first && (*port = parse_port(first + 1, strlen(first + 1))) < 0)
		return -1;
	if (length > 1 && authority[length - 1] == '.')
		length--;
	return copy_lower(host, authority, length);
}

/* As match_authority, with the authority already taken apart. */
static bool meets_authority(const char *pattern, const char *host, int length, int port)
{
	char want[MATCH_HOST_MAX];
	int want_port, n;

	if (!strcmp(pattern, "*"))
		return true;
	n = match_host(pattern, want, &want_port);
	if (n < 0 || length < 0 || (want_port >= 0 && want_port != port))
		return false;
	if (n > 2 && want[0] == '*' && want[1] == '.')  /* *.suffix: at least one label before the suffix */
		return length > n - 1 && !memcmp(host + length - (n - 1), want + 1, (size_t)n - 1);
	return (n == 1 && want[0] == '*') || (n == length && !memcmp(want, host, (size_t)n));
}

bool match_authority(const char *pattern, const char *authority)
{
	char host[MATCH_HOST_MAX];
	int port, length = match_host(authority, host, &port);

	return meets_authority(pattern, host, length, port);
}

/* --- time windows --------------------------------------------------------------------------------------------------- */

/* The zone's offset at `now`; *next: when it changes (INT64_MAX: never that we know of). */
static int64_t zone_offset(const struct config_window *w, int64_t now, int64_t *next)
{
	size_t low = 0, high = w->n_offsets;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (w->offsets[middle].from <= now)
			low = middle + 1;
		else
			high = middle;
	}
	*next = low < w->n_offsets ? w->offsets[low].from : INT64_MAX;
	if (!w->n_offsets)
		return 0;
	return w->offsets[low ? low - 1 : 0].seconds;
}

/* The second of the local day (0...86399) and the weekday (0: Monday). */
static int64_t local_time(const struct config_window *w, int64_t now, unsigned *weekday, int64_t *next)
{
	int64_t local = now + zone_offset(w, now, next);
	int64_t second = ((local % DAY) + DAY) % DAY;
	int64_t day = (local - second) / DAY;

	*weekday = (unsigned)((((day + 3) % 7) + 7) % 7);  /* day 0 was a Thursday */
	return second;
}

bool match_window(const struct config_window *window, int64_t now)
{
	unsigned today;
	int64_t next, second = local_time(window, now, &today, &next);
	int64_t from = window->from * 60, to = window->to * 60;

	if (from < to)
		return second >= from && second < to && (window->days >> today & 1);
	/* past midnight: the early hours belong to the day before; from == to lasts 24 hours */
	if (second >= from)
		return window->days >> today & 1;
	return second < to && (window->days >> ((today + 6) % 7) & 1);
}

int64_t match_holds_for(const struct config_match *match, int64_t now)
{
	int64_t least = INT64_MAX;

	for (size_t i = 0; i < match->n_times; i++) {
		const struct config_window *w = &match->times[i];
		unsigned weekday;
		int64_t next, second = local_time(w, now, &weekday, &next);
		int64_t edges[] = { w->from * 60 - second, w->to * 60 - second, DAY - second,
		                    next == INT64_MAX ? INT64_MAX : next - now };

		for (size_t k = 0; k < sizeof(edges) / sizeof(*edges); k++)
			if (edges[k] > 0 && edges[k] < least)
				least = edges[k];
	}
	return least;
}

/* --- conditions ----------------------------------------------------------------------------------------------------- */

__attribute__((format(printf, 3, 4))) static bool no(char *why, size_t size, const char *fmt, ...)
{
	va_list list;

	if (why && size) {
		va_start(list, fmt);
		vsnprintf(why, size, fmt, list);
		va_end(list);
	}
	return false;
}

static const char *or_none(const char *text)
{
	return text ? text : "none";
}

/* A list's first members, for people. */
static const char *listed(const struct config_strs *list, char *out, size_t size)
{
	size_t used = 0;

	out[0] = 0;
	for (size_t i = 0; i < list->n && used < size; i++) {
		int n = snprintf(out + used, size - used, "%s%s", i ? " or " : "", i < 3 ? list->v[i] : "others");
		used += n > 0 ? (size_t)n : 0;
		if (i == 3)
			break;
	}
	return out;
}

typedef bool equals(const char *a, const char *b);
static bool exact(const char *a, const char *b) { return !strcmp(a, b); }
static bool no_case(const char *a, const char *b) { return !strcasecmp(a, b); }

static bool in_list(const struct config_strs *list, const char *value, equals *same)
{
	if (!list->n)
		return true;
	for (size_t i = 0; value && i < list->n; i++)
		if (!strcmp(list->v[i], "*") || same(list->v[i], value))
			return true;
	return false;
}

static bool meets_list(const struct config_strs *list, const char *what, const char *value, equals *same, char *why,
                       size_t size)
{
	char text[160];

	if (in_list(list, value, same))
		return true;
	return why ? no(why, size, "%s is %s, wants %s", what, or_none(value), listed(list, text, sizeof(text))) : false;
}

/* CONNECT-UDP and CONNECT-IP are written as methods, and travel as a protocol (RFC 9298 3.4, RFC 9484 4.4). */
static bool meets_methods(const struct config_match *m, const struct match_input *in, char *why, size_t size)
{
	if (in_list(&m->methods, in->method, exact))
		return true;
	if (in->protocol && !strncasecmp(in->protocol, "connect-", 8) && in_list(&m->methods, in->protocol, no_case))
		return true;
	return meets_list(&m->methods, "method", in->method, exact, why, size);
}

static bool meets_authorities(const struct config_strs *list, const char *authority, char *why, size_t size)
{
	char host[MATCH_HOST_MAX], text[160];
	int port = -1, length;

	if (!list->n)
		return true;
	length = authority ? match_host(authority, host, &port) : -1;
	for (size_t i = 0; authority && i < list->n; i++)
		if (meets_authority(list->v[i], host, length, port))
			return true;
	if (!why)
		return false;
	return no(why, size, "authority is %s, wants %s", or_none(authority), listed(list, text, sizeof(text)));
}

static const char *wanted(const struct config_string_match *m, char *out, size_t size)
{
	const char *text = m->exact ? m->exact : m->prefix ? m->prefix : m->absent ? "none" : "any";

	snprintf(out, size, "%s%s", text, !m->exact && m->prefix ? "..." : "");
	return out;
}

static bool meets_path(const struct config_string_match *m, const char *path)
{
	size_t length;

	if (!path)
		return m->absent;
	if (m->prefix && !strncmp(path, m->prefix, strlen(m->prefix)))
		return true;
	if (!m->exact)
		return m->present;
	length = strcspn(path, "?");
	return !strcmp(path, m->exact) || (!strncmp(path, m->exact, length) && !m->exact[length]);
}

static bool meets_paths(const struct config_match *m, const char *path, char *why, size_t size)
{
	char text[160];

	if (!m->n_paths)
		return true;
	for (size_t i = 0; i < m->n_paths; i++)
		if (meets_path(&m->paths[i], path))
			return true;
	return why ? no(why, size, "path is %s, wants %s%s", or_none(path), wanted(&m->paths[0], text, sizeof(text)),
	                m->n_paths > 1 ? " or others" : "") : false;
}

static bool meets_value(const struct config_string_match *m, const char *value)
{
	return m->present || (m->exact && !strcmp(value, m->exact)) ||
	       (m->prefix && !strncmp(value, m->prefix, strlen(m->prefix)));
}

/* The last one added counts where there is one, else any of those that the request carries. */
static bool meets_header(const struct config_header_match *m, const struct match_input *in, bool *seen)
{
	*seen = true;
	for (size_t i = in->n_added; i-- > 0;)
		if (!strcasecmp(in->added[i].name, m->name))
			return meets_value(&m->match, in->added[i].value);
	*seen = false;
	for (size_t i = 0; i < in->n_headers; i++) {
		if (strcasecmp(in->headers[i].name, m->name))
			continue;
		*seen = true;
		if (meets_value(&m->match, in->headers[i].value))
			return true;
	}
	return !*seen && m->match.absent;
}

/* A header's value may be a secret (a token), so that it is named but never shown. */
static bool meets_headers(const struct config_match *m, const struct match_input *in, char *why, size_t size)
{
	bool seen;

	for (size_t i = 0; i < m->n_headers; i++)
		if (!meets_header(&m->headers[i], in, &seen))
			return no(why, size, "header %s is %s", m->headers[i].name,
			          seen ? m->headers[i].match.absent ? "present, wants it absent"
			                                            : "present with another value"
			               : "absent");
	return true;
}

static bool meets_source(const struct config_match *m, const struct match_input *in, char *why, size_t size)
{
	char text[INET6_ADDRSTRLEN] = "unknown";

	if (!m->sources.n || (in->has_source && config_prefixes_contain(&m->sources, &in->source)))
		return true;
	if (in->has_source)
		inet_ntop(AF_INET6, &in->source, text, sizeof(text));
	return no(why, size, "source is %s, in none of the prefixes", strncmp(text, "::ffff:", 7) ? text : text + 7);
}

static bool meets_time(const struct config_match *m, const struct match_input *in, char *why, size_t size)
{
	if (!m->n_times)
		return true;
	for (size_t i = 0; i < m->n_times; i++)
		if (match_window(&m->times[i], in->now))
			return true;
	return no(why, size, "time is outside %s%s", m->times[0].text ? m->times[0].text : "the window",
	          m->n_times > 1 ? " and others" : "");
}

static const char *address_text(const struct in6_addr *address, char out[INET6_ADDRSTRLEN])
{
	if (IN6_IS_ADDR_V4MAPPED(address))
		return inet_ntop(AF_INET, address->s6_addr + 12, out, INET6_ADDRSTRLEN);
	return inet_ntop(AF_INET6, address, out, INET6_ADDRSTRLEN);
}

/* Of the same family: "::/0" is no IPv4 address's network, though all are mapped into it. */
static bool in_networks(const struct config_prefixes *networks, const struct in6_addr *address)
{
	for (size_t i = 0; i < networks->n; i++) {
		const struct config_prefix *p = &networks->v[i];
		bool v4 = p->bits >= 96 && IN6_IS_ADDR_V4MAPPED(&p->address);

		if (v4 == !!IN6_IS_ADDR_V4MAPPED(address) && config_prefix_contains(p, address))
			return true;
	}
	return networks->n == 0;
}

static bool meets_packet(const struct config_ip_match *m, const struct match_packet *in, char *why, size_t size)
{
	char text[INET6_ADDRSTRLEN];

	if (!m->present)
		return true;
	if (!in->present)
		return no(why, size, "ip: is about packets inside tunnels");
	if (m->protocol && m->protocol != in->protocol)
		return no(why, size, "ip protocol is %u, wants %u", in->protocol, m->protocol);
	if (!in_networks(&m->source, &in->source))
		return no(why, size, "ip source is %s, in none of the prefixes", address_text(&in->source, text));
	if (!in_networks(&m->destination, &in->destination))
		return no(why, size, "ip destination is %s, in none of the prefixes", address_text(&in->destination, text));
	if (m->port_low && !in->port)
		return no(why, size, "ip port is none, wants %u-%u", m->port_low, m->port_high);
	if (m->port_low && (in->port < m->port_low || in->port > m->port_high))
		return no(why, size, "ip port is %u, wants %u-%u", in->port, m->port_low, m->port_high);
	return true;
}

bool match_packet(struct match_packet *out, bool inner, uint32_t protocol, const char *source, const char *destination,
                  uint32_t port)
{
	*out = (struct match_packet){ .present = inner };
	if (!inner)
		return true;
	out->protocol = (uint8_t)protocol;
	out->port = (uint16_t)port;
	return protocol <= 255 && port <= 65535 && source && match_address(source, &out->source) && destination &&
	       match_address(destination, &out->destination);
}

bool match_meets(const struct config_match *m, const struct match_input *in, char *why, size_t size)
{
	return meets_packet(&m->ip, &in->ip, why, size) && meets_authorities(&m->authorities, in->authority, why, size) &&
	       meets_methods(m, in, why, size) &&
	       meets_list(&m->users, "user", in->user, exact, why, size) &&
	       meets_list(&m->listeners, "listener", in->listener, exact, why, size) &&
	       meets_list(&m->identities, "identity", in->peer, exact, why, size) &&
	       meets_list(&m->protocols, "protocol", in->protocol, no_case, why, size) &&
	       meets_list(&m->schemes, "scheme", in->scheme, no_case, why, size) &&
	       meets_paths(m, in->path, why, size) && meets_headers(m, in, why, size) &&
	       meets_source(m, in, why, size) && meets_time(m, in, why, size);
}

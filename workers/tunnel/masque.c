/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/tunnel/masque.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "workers/tunnel/guard.h"

#define UDP_PATH "/.well-known/masque/udp/"   /* RFC 9298 2 */
#define IP_PATH "/.well-known/masque/ip/"     /* RFC 9484 3 */
#define HOST_MAX 256u
#define TARGET_MAX (HOST_MAX + 8)             /* brackets, colon, port; or slash, prefix length */
#define PATH_MAX_ (sizeof(UDP_PATH) + TARGET_MAX + 2 * INET6_ADDRSTRLEN + 16)

bool masque_is_udp(const struct head *head) { return head->protocol && strcmp(head->protocol, "connect-udp") == 0; }
bool masque_is_ip(const struct head *head) { return head->protocol && strcmp(head->protocol, "connect-ip") == 0; }

static bool bad(const char **why, const char *reason)
{
	*why = reason;
	return false;
}

/* --- template variables --------------------------------------------------------------------------------------------------- */

static int hex(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* The next path segment, percent-decoded once. What is not unreserved, "*" or encoded has no place in a value that simple
 * expansion made (RFC 6570 3.2.2), a colon included (RFC 9298 3). Advances *at past the slash that ends it. */
static bool variable(const char **at, char *out, size_t size, const char **why)
{
	const char *p = *at;
	size_t n = 0;
	for (; *p && *p != '/'; p++) {
		int c = (unsigned char)*p;
		if (c == '%') {
			if (hex(p[1]) < 0 || hex(p[2]) < 0)
				return bad(why, "bad percent-encoding in the path");
			c = hex(p[1]) << 4 | hex(p[2]);
			p += 2;
		} else if (c == ':') {
			return bad(why, "a colon of the target is not percent-encoded");
		} else if (c <= ' ' || c >= 0x7f || strchr("?#[]@!$&'()+,;=\"<>\\^`{|}", c)) {
			return bad(why, "a character of the path is not percent-encoded");
		}
		if (c <= ' ' || c >= 0x7f)
			return bad(why, "a character in the path that no target has");
		if (n + 1 >= size)
			return bad(why, "the target is too long");
		out[n++] = (char)c;
	}
	out[n] = '\0';
	if (*p != '/')
		return bad(why, "the path does not end with a slash");
	if (n == 0)
		return bad(why, "a part of the path is empty");
	*at = p + 1;
	return true;
}

/* Both variables, and nothing after. */
static bool variables(const char *path, char first[TARGET_MAX], char second[8], const char **why)
{
	return variable(&path, first, TARGET_MAX, why) && variable(&path, second, 8, why) &&
	       (!*path || bad(why, "something follows the template in the path"));
}

/* Decimal without leading zeros: one spelling of each number. */
static bool number(const char *text, unsigned max, unsigned *value)
{
	size_t n = strspn(text, "0123456789");
	if (n == 0 || n > 5 || text[n] || (text[0] == '0' && n > 1))
		return false;
	*value = (unsigned)atoi(text);
	return *value <= max;
}

static void lower(char *text)
{
	for (; *text; text++)
		if (*text >= 'A' && *text <= 'Z')
			*text = (char)(*text | 0x20);
}

/* --- targets: checked, in their one spelling ------------------------------------------------------------------------------ */

/* host: a name, a dotted quad or an IPv6 address without brackets. */
static bool udp_target(const char *host, unsigned port, char out[TARGET_MAX], const char **why)
{
	char authority[TARGET_MAX + 16], name[HOST_MAX];
	struct in6_addr v6;
	uint16_t checked;
	if (strlen(host) >= HOST_MAX)
		return bad(why, "the target is too long");
	bool is_v6 = strchr(host, ':') != NULL;
	snprintf(authority, sizeof(authority), is_v6 ? "[%s]:%u" : "%s:%u", host, port);
	if (guard_split(authority, 0, name, sizeof(name), &checked, why) != 0)
		return false;
	if (is_v6 && (inet_pton(AF_INET6, name, &v6) != 1 || !inet_ntop(AF_INET6, &v6, name, sizeof(name))))
		return bad(why, "not an IPv6 address");
	lower(name);
	snprintf(out, TARGET_MAX, is_v6 ? "[%s]:%u" : "%s:%u", name, port);
	return true;
}

/* Clears the bits past the prefix. */
static void mask(uint8_t *address, unsigned bytes, unsigned prefix)
{
	for (unsigned i = 0; i < bytes; i++) {
		unsigned kept = prefix >= 8 * (i + 1) ? 8 : prefix > 8 * i ? prefix - 8 * i : 0;
		address[i] &= (uint8_t)(0xff00u >> kept);
	}
}

static bool ip_prefix(int family, const char *address, const char *length, char out[TARGET_MAX], const char **why)
{
	uint8_t bytes[16];
	char text[INET6_ADDRSTRLEN];
	unsigned size = family == AF_INET ? 4 : 16, prefix = 8 * size;
	if (inet_pton(family, address, bytes) != 1)
		return bad(why, "not an address");
	if (length && !number(length, 8 * size, &prefix))
		return bad(why, "bad prefix length");
	mask(bytes, size, prefix);
	snprintf(out, TARGET_MAX, "%s/%u", inet_ntop(family, bytes, text, sizeof(text)), prefix);
	return true;
}

/* "*", a name, or an address with or without "/length" (then the whole address). */
static bool ip_target(const char *target, char out[TARGET_MAX], const char **why)
{
	char text[TARGET_MAX], name[HOST_MAX];
	struct in_addr v4;
	uint16_t port;
	if (strcmp(target, "*") == 0) {
		strcpy(out, "*");
		return true;
	}
	if (strlen(target) >= HOST_MAX)
		return bad(why, "the target is too long");
	strcpy(text, target);
	char *slash = strchr(text, '/');
	if (slash)
		*slash++ = '\0';
	if (strchr(text, ':'))
		return ip_prefix(AF_INET6, text, slash, out, why);
	if (inet_pton(AF_INET, text, &v4) == 1)
		return ip_prefix(AF_INET, text, slash, out, why);
	if (slash)
		return bad(why, "a prefix length belongs to an address");
	if (guard_split(text, 1, name, sizeof(name), &port, why) != 0)
		return false;
	if (inet_pton(AF_INET, name, &v4) == 1)           /* a dot after it was dropped */
		return ip_prefix(AF_INET, name, NULL, out, why);
	lower(name);
	strcpy(out, name);
	return true;
}

/* --- our own form --------------------------------------------------------------------------------------------------------- */

/* Appends text with what a path segment must encode encoded. */
static char *encoded(char *at, const char *text)
{
	for (; *text; text++) {
		if (*text == ':' || *text == '/')
			at += sprintf(at, "%%%02X", (unsigned char)*text);
		else
			*at++ = *text;
	}
	*at = '\0';
	return at;
}

/* path and authority always say the same: what a policy decided on is what the next hop reads. */
static void set_udp(struct head *head, const char *target)
{
	char path[PATH_MAX_], host[HOST_MAX];
	const char *colon = strrchr(target, ':');
	bool bracket = target[0] == '[';
	size_t n = (size_t)(colon - target) - 2 * bracket;
	memcpy(host, target + bracket, n);
	host[n] = '\0';
	sprintf(encoded(stpcpy(path, UDP_PATH), host), "/%s/", colon + 1);
	head->authority = head_string(head, target, -1);
	head->path = head_string(head, path, -1);
}

static void set_ip(struct head *head, const char *target, int ipproto)
{
	char path[PATH_MAX_], *at = encoded(stpcpy(path, IP_PATH), target);
	if (ipproto < 0)
		strcpy(at, "/*/");
	else
		sprintf(at, "/%d/", ipproto);
	head->authority = head_string(head, target, -1);
	head->path = head_string(head, path, -1);
}

static struct head *request_new(const char *protocol)
{
	struct head *head = head_new();
	head->method = "CONNECT";
	head->scheme = "https";
	head->protocol = protocol;
	head_add(head, "capsule-protocol", "?1");
	return head;
}

struct head *masque_udp_request(const char *target)
{
	char host[HOST_MAX], checked[TARGET_MAX];
	const char *why;
	uint16_t port;
	if (guard_split(target, 0, host, sizeof(host), &port, &why) != 0 || !udp_target(host, port, checked, &why))
		return NULL;
	struct head *head = request_new("connect-udp");
	set_udp(head, checked);
	return head;
}

struct head *masque_ip_request(const char *target, int ipproto)
{
	char checked[TARGET_MAX];
	const char *why;
	if (ipproto < -1 || ipproto > 255 || !ip_target(target, checked, &why))
		return NULL;
	struct head *head = request_new("connect-ip");
	set_ip(head, checked, ipproto);
	return head;
}

/* --- what comes in -------------------------------------------------------------------------------------------------------- */

static bool accept_udp(struct head *request, const char *rest, const char **why)
{
	char host[TARGET_MAX], port[8], target[TARGET_MAX];
	unsigned value;
	if (!variables(rest, host, port, why))
		return false;
	if (!number(port, 65535, &value) || value == 0)
		return bad(why, "the port is not a number from 1 to 65535");
	if (!udp_target(host, value, target, why))
		return false;
	set_udp(request, target);
	return true;
}

static bool read_ipproto(const char *text, int *ipproto)
{
	unsigned value;
	*ipproto = -1;
	if (strcmp(text, "*") == 0)
		return true;
	while (text[0] == '0' && text[1])         /* 1*3DIGIT (RFC 9484 4.6) */
		text++;
	if (!number(text, 255, &value))
		return false;
	*ipproto = (int)value;
	return true;
}

static bool accept_ip(struct head *request, const char *rest, const char **why)
{
	char asked[TARGET_MAX], protocol[8], target[TARGET_MAX];
	int ipproto;
	if (!variables(rest, asked, protocol, why))
		return false;
	if (strlen(protocol) > 3 || !read_ipproto(protocol, &ipproto))
		return bad(why, "the IP protocol is neither * nor a number from 0 to 255");
	if (!ip_target(asked, target, why))
		return false;
	set_ip(request, target, ipproto);
	return true;
}

/* RFC 9297 3.2: such a message is malformed. */
static bool no_content(const struct head *head, const char **why)
{
	static const char *const refused[] = {"content-length", "content-type", "transfer-encoding"};
	for (size_t i = 0; i < sizeof(refused) / sizeof(*refused); i++)
		if (head_get(head, refused[i]))
			return bad(why, "a tunnel's head with Content-Length, Content-Type or Transfer-Encoding");
	return true;
}

static const char *after(const char *path, const char *prefix)
{
	size_t n = strlen(prefix);
	return path && strncmp(path, prefix, n) == 0 ? path + n : NULL;
}

unsigned masque_accept(struct head *request, const char **why)
{
	bool udp = masque_is_udp(request);
	const char *rest = after(request->path, udp ? UDP_PATH : IP_PATH);
	if (!rest) {
		*why = udp ? "UDP is proxied at " UDP_PATH "HOST/PORT/ only" : "IP is proxied at " IP_PATH "TARGET/PROTOCOL/ only";
		return 404;
	}
	if (!no_content(request, why) || !(udp ? accept_udp(request, rest, why) : accept_ip(request, rest, why)))
		return 400;
	request->scheme = "https";
	/* Whatever the client said or left out: both protocols always use capsules. */
	head_set(request, "capsule-protocol", "?1");
	return 0;
}

int masque_ip_protocol(const struct head *request)
{
	const char *rest = after(request->path, IP_PATH), *last = rest ? strchr(rest, '/') : NULL;
	return last && last[1] >= '0' && last[1] <= '9' ? atoi(last + 1) : -1;
}

/* --- responses ------------------------------------------------------------------------------------------------------------ */

bool masque_opens(const struct head *response, const char **why)
{
	if (response->status < 200 || response->status > 299)
		return bad(why, "the status is not 2xx");
	if (response->status >= 204 && response->status <= 206)
		return bad(why, "a status that tunnels cannot have");
	return no_content(response, why);
}

struct head *masque_response(void)
{
	struct head *head = head_new();
	head->status = 200;
	head_add(head, "capsule-protocol", "?1");
	return head;
}

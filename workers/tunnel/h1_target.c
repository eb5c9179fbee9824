/* Request targets and authorities (RFC 9112 3.2, RFC 9110 4.2). */
#include <arpa/inet.h>
#include <string.h>
#include <strings.h>

#include "workers/tunnel/h1_parse.h"

static bool is_host_char(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' ||
	       c == '_';
}

/* 1..65535 without leading zeros: "080" must not slip past a policy on port 80. */
static bool is_port(const char *text, size_t n)
{
	unsigned port = 0;
	if (n == 0 || n > 5 || text[0] == '0')
		return false;
	for (size_t i = 0; i < n; i++) {
		if (text[i] < '0' || text[i] > '9')
			return false;
		port = port * 10 + (unsigned)(text[i] - '0');
	}
	return port <= 65535;
}

/* Length of the host at the front, or 0. */
static size_t host_length(const char *text, size_t n)
{
	size_t i = 0;
	if (n > 0 && text[0] == '[') {
		const char *end = memchr(text, ']', n);
		char address[INET6_ADDRSTRLEN];
		struct in6_addr in6;
		size_t inner = end ? (size_t)(end - text) - 1 : 0;
		if (inner == 0 || inner >= sizeof(address))
			return 0;
		memcpy(address, text + 1, inner);
		address[inner] = '\0';
		return strlen(address) == inner && inet_pton(AF_INET6, address, &in6) == 1 ? inner + 2 : 0;
	}
	while (i < n && is_host_char(text[i]))
		i++;
	return i;
}

const char *h1_authority(struct head *head, const char *text, size_t n, bool port_required, const char **why)
{
	size_t host = host_length(text, n);
	if (memchr(text, '@', n)) {
		*why = "userinfo in the authority";
		return NULL;
	}
	if (host == 0 || host > 255 || (host < n && text[host] != ':')) {
		*why = "bad host in the authority";
		return NULL;
	}
	if ((host < n && !is_port(text + host + 1, n - host - 1)) || (host == n && port_required)) {
		*why = "bad or missing port in the authority";
		return NULL;
	}
	char *lower = (char *)head_string(head, text, (long)n);
	for (size_t i = 0; i < n; i++)
		if (lower[i] >= 'A' && lower[i] <= 'Z')
			lower[i] = (char)(lower[i] | 0x20);
	return lower;
}

/* Visible ASCII without "#": fragments never travel (RFC 9110 7.1). */
static bool is_path(const char *text, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (text[i] <= ' ' || text[i] >= 0x7f || text[i] == '#')
			return false;
	return true;
}

static bool absolute_form(struct head *head, const char *text, size_t n, const char **why)
{
	size_t skip = n > 7 && strncasecmp(text, "http://", 7) == 0 ? 7 : n > 8 && strncasecmp(text, "https://", 8) == 0 ? 8 : 0;
	if (!skip) {
		*why = "request target is neither a path nor an http or https URI";
		return false;
	}
	head->scheme = skip == 7 ? "http" : "https";
	text += skip;
	n -= skip;
	size_t authority = 0;
	while (authority < n && text[authority] != '/' && text[authority] != '?')
		authority++;
	if (!(head->authority = h1_authority(head, text, authority, false, why)))
		return false;
	text += authority;
	n -= authority;
	if (!is_path(text, n)) {
		*why = "bad character in the request target";
		return false;
	}
	if (n == 0) {
		/* RFC 9112 3.2.4: OPTIONS on a server as a whole */
		head->path = strcmp(head->method, "OPTIONS") == 0 ? "*" : "/";
	} else if (text[0] == '?') {
		char *path = (char *)head_string(head, text - 1, (long)n + 1);   /* what stands before is the authority's end */
		path[0] = '/';
		head->path = path;
	} else {
		head->path = head_string(head, text, (long)n);
	}
	return true;
}

bool h1_target(struct head *head, const char *text, size_t n, bool secure, const char **why)
{
	if (head_is_connect(head)) {
		head->authority = h1_authority(head, text, n, true, why);
		return head->authority != NULL;
	}
	if (text[0] != '/' && !(n == 1 && text[0] == '*'))
		return absolute_form(head, text, n, why);
	if (!is_path(text, n)) {
		*why = "bad character in the request target";
		return false;
	}
	if (text[0] == '*' && strcmp(head->method, "OPTIONS") != 0) {
		*why = "* is a target of OPTIONS only";
		return false;
	}
	head->scheme = secure ? "https" : "http";
	head->path = head_string(head, text, (long)n);
	return true;
}

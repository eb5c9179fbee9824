/* SPDX-License-Identifier: Apache-2.0 */
#include "store/config_address.h"
#include "store/config_arena.h"
#include "store/config.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#define HOST_MAX 253

static char *keep(struct config_arena *arena, const char *text, size_t length)
{
	return arena ? config_arena_text(arena, text, length) : strndup(text, length);
}

static int refuse(const char **why, const char *text)
{
	if (why)
		*why = text;
	return -EINVAL;
}

/* Digits only: strtoul would take signs and blanks. */
static int parse_port(const char *text, uint16_t *port, const char **why)
{
	unsigned long v = 0;

	if (!*text || strlen(text) > 5 || strspn(text, "0123456789") != strlen(text))
		return refuse(why, "the port is not a number from 1 to 65535");
	v = strtoul(text, NULL, 10);
	if (v < 1 || v > 65535)
		return refuse(why, "the port is not a number from 1 to 65535");
	*port = (uint16_t)v;
	return 0;
}

/* Whether some resolver would read the last label as a number: then the whole must be a dotted quad (WHATWG URL 3.5). */
static bool ends_in_number(const char *host, size_t length)
{
	size_t end = length && host[length - 1] == '.' ? length - 1 : length, start = end;

	while (start && host[start - 1] != '.')
		start--;
	if (start == end)
		return false;
	if (end - start > 1 && host[start] == '0' && (host[start + 1] | 32) == 'x')
		return strspn(host + start + 2, "0123456789abcdefABCDEF") >= end - start - 2;
	return strspn(host + start, "0123456789") >= end - start;
}

static int check_name(const char *host, size_t length, const char **why)
{
	size_t label = 0;

	if (length > HOST_MAX)
		return refuse(why, "the host name is longer than 253 characters");
	for (size_t i = 0; i < length; i++) {
		char c = host[i];
		if (c == '.' && !label)
			return refuse(why, "the host name has an empty label");
		if (!isalnum((unsigned char)c) && c != '-' && c != '_' && c != '.')
			return refuse(why, "the host name has a character other than letters, digits, '-', '_' and '.'");
		label = c == '.' ? 0 : label + 1;
		if (label > 63)
			return refuse(why, "the host name has a label longer than 63 characters");
	}
	return 0;
}

static int check_host(const char *host, size_t length, const char **why)
{
	char text[INET_ADDRSTRLEN];
	struct in_addr v4;

	if (!length)
		return 0;                         /* ":port", any address */
	if (ends_in_number(host, length)) {
		if (length >= sizeof(text))
			return refuse(why, "the address is not a dotted quad like 192.0.2.1");
		memcpy(text, host, length);
		text[length] = '\0';
		return inet_pton(AF_INET, text, &v4) == 1 ? 0
		                                          : refuse(why, "the address is not a dotted quad like 192.0.2.1");
	}
	return check_name(host, length, why);
}

static int parse_unix(const char *text, struct config_arena *arena, struct config_address *out, const char **why)
{
	if (text[5] != '/')
		return refuse(why, "the path of a Unix socket is not absolute");
	if (strlen(text + 5) >= sizeof(((struct sockaddr_un *)0)->sun_path))
		return refuse(why, "the path of a Unix socket is longer than 107 bytes");
	out->unix_path = keep(arena, text + 5, strlen(text + 5));
	return out->unix_path ? 0 : refuse(why, "out of memory");
}

/* Finds host and port in the text. IPv6 literals come out without their brackets. */
static int split(const char *text, const char **host, size_t *length, const char **port, const char **why)
{
	const char *colon = strrchr(text, ':'), *end;
	struct in6_addr v6;
	char copy[INET6_ADDRSTRLEN];

	*port = NULL;
	if (*text == '[') {
		end = strchr(text, ']');
		if (!end || (end[1] && end[1] != ':') || (size_t)(end - text - 1) >= sizeof(copy))
			return refuse(why, "the IPv6 address in brackets is not readable");
		*host = text + 1;
		*length = (size_t)(end - text - 1);
		memcpy(copy, *host, *length);
		copy[*length] = '\0';
		*port = end[1] ? end + 2 : NULL;
		return inet_pton(AF_INET6, copy, &v6) == 1 ? 0 : refuse(why, "the IPv6 address in brackets is not readable");
	}
	*host = text;
	*length = colon ? (size_t)(colon - text) : strlen(text);
	*port = colon ? colon + 1 : NULL;
	if (!colon || !memchr(text, ':', *length))
		return check_host(text, *length, why);
	*length = strlen(text);                   /* several colons: an IPv6 address without port, or nothing */
	*port = NULL;
	return inet_pton(AF_INET6, text, &v6) == 1 ? 0 : refuse(why, "an IPv6 address with a port needs brackets: [::1]:80");
}

int config_address_parse(const char *text, bool port_required, struct config_arena *arena, struct config_address *out,
                         const char **why)
{
	const char *host, *port;
	size_t length;

	memset(out, 0, sizeof(*out));
	if (!*text)
		return refuse(why, "the address is empty");
	if (!strncmp(text, "unix:", 5)) {
		if (parse_unix(text, arena, out, why))
			return -EINVAL;
	} else {
		if (split(text, &host, &length, &port, why) || (port && parse_port(port, &out->port, why)))
			return -EINVAL;
		if (!port && (port_required || !length))
			return refuse(why, "the port is missing");
		out->host = keep(arena, host, length);
	}
	out->text = keep(arena, text, strlen(text));
	if (out->text && (out->host || out->unix_path))
		return 0;
	if (!arena)
		config_address_clear(out);
	return refuse(why, "out of memory");
}

void config_address_clear(struct config_address *address)
{
	free(address->text);
	free(address->host);
	free(address->unix_path);
	memset(address, 0, sizeof(*address));
}

bool config_address_is_literal(const struct config_address *address)
{
	struct in6_addr ignored;

	return address->host && (inet_pton(AF_INET, address->host, &ignored) == 1 ||
	                         inet_pton(AF_INET6, address->host, &ignored) == 1);
}

/* --- prefixes ------------------------------------------------------------------------------------------------------- */

/* *width: bits of the family. */
static int parse_ip(const char *text, size_t length, struct in6_addr *out, unsigned *width)
{
	char copy[INET6_ADDRSTRLEN];
	struct in_addr v4;

	if (length >= sizeof(copy))
		return -EINVAL;
	memcpy(copy, text, length);
	copy[length] = '\0';
	memset(out, 0, sizeof(*out));
	if (inet_pton(AF_INET, copy, &v4) == 1) {
		out->s6_addr[10] = out->s6_addr[11] = 0xff;
		memcpy(out->s6_addr + 12, &v4, sizeof(v4));
		*width = 32;
		return 0;
	}
	*width = 128;
	return inet_pton(AF_INET6, copy, out) == 1 ? 0 : -EINVAL;
}

static bool host_bits_zero(const struct in6_addr *address, unsigned bits)
{
	for (unsigned i = bits; i < 128; i++)
		if (address->s6_addr[i / 8] & (0x80 >> i % 8))
			return false;
	return true;
}

static int parse_prefix(const char *text, struct config_prefix *out, unsigned *width, const char **why)
{
	const char *slash = strchr(text, '/');
	unsigned bits;

	memset(out, 0, sizeof(*out));
	if (parse_ip(text, slash ? (size_t)(slash - text) : strlen(text), &out->address, width))
		return refuse(why, "not an IPv4 address in dotted form or an IPv6 address");
	bits = *width;
	if (slash) {
		size_t n = strlen(slash + 1);
		if (!n || n > 3 || strspn(slash + 1, "0123456789") != n || (bits = (unsigned)atoi(slash + 1)) > *width)
			return refuse(why, *width == 32 ? "the prefix length is not a number from 0 to 32"
			                                : "the prefix length is not a number from 0 to 128");
	}
	out->bits = (uint8_t)(bits + 128 - *width);
	return 0;
}

int config_prefix_parse(const char *text, struct config_prefix *out, const char **why)
{
	unsigned width;

	if (parse_prefix(text, out, &width, why))
		return -EINVAL;
	return host_bits_zero(&out->address, out->bits) ? 0 : refuse(why, "bits after the prefix length are not zero");
}

int config_device_address_parse(const char *text, struct config_prefix *out, const char **why)
{
	const uint8_t *v4 = out->address.s6_addr + 12;
	unsigned width;

	if (parse_prefix(text, out, &width, why))
		return -EINVAL;
	if (out->bits + width == 128)
		return refuse(why, "the prefix length is 0");
	if (width == 128 ? IN6_IS_ADDR_MULTICAST(&out->address) || IN6_IS_ADDR_UNSPECIFIED(&out->address)
	                 : v4[0] >= 224 || v4[0] == 0)
		return refuse(why, "no address that a device can have");
	return 0;
}

bool config_prefix_contains(const struct config_prefix *prefix, const struct in6_addr *address)
{
	unsigned bytes = prefix->bits / 8, rest = prefix->bits % 8;

	if (memcmp(&prefix->address, address, bytes))
		return false;
	return !rest || !((prefix->address.s6_addr[bytes] ^ address->s6_addr[bytes]) & (0xff00 >> rest & 0xff));
}

bool config_prefixes_contain(const struct config_prefixes *prefixes, const struct in6_addr *address)
{
	for (size_t i = 0; i < prefixes->n; i++)
		if (config_prefix_contains(&prefixes->v[i], address))
			return true;
	return false;
}

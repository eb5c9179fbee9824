#include "workers/tunnel/guard.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>

/* --- authorities ------------------------------------------------------------------------------------------------- */

static int bad(const char **why, const char *reason)
{
	*why = reason;
	return -EINVAL;
}

/* 1 to 65535, digits only. */
static int parse_port(const char *text, uint16_t *port, const char **why)
{
	unsigned long value = 0;
	size_t digits = 0;
	for (; text[digits]; digits++) {
		if (text[digits] < '0' || text[digits] > '9')
			return bad(why, "the port is not a number");
		value = value * 10 + (unsigned long)(text[digits] - '0');
		if (digits >= 5 || value > 65535)
			return bad(why, "the port is above 65535");
	}
	if (digits == 0)
		return bad(why, "the port is empty");
	if (value == 0)
		return bad(why, "port 0 cannot be reached");
	*port = (uint16_t)value;
	return 0;
}

/* What inet_aton(3) would take for a number: decimal, octal or hexadecimal. */
static bool numeric_label(const char *label, size_t length)
{
	size_t i = 0;
	if (length >= 2 && label[0] == '0' && (label[1] == 'x' || label[1] == 'X')) {
		for (i = 2; i < length; i++)
			if (!strchr("0123456789abcdefABCDEF", label[i]))
				return false;
		return true;
	}
	for (; i < length; i++)
		if (label[i] < '0' || label[i] > '9')
			return false;
	return true;
}

/* Letters, digits, hyphens and underscores (which names in use have); anything else has no business in a DNS query. */
static int check_name(const char *host, const char **why)
{
	size_t label = 0, last = 0, length = 0;
	for (const char *p = host;; p++, length++) {
		if (*p == '.' || !*p) {
			if (p == host + label)
				return bad(why, "the name has an empty label");
			if (p - (host + label) > 63)
				return bad(why, "the name has a label of more than 63 characters");
			last = label;
			label = length + 1;
			if (!*p)
				break;
			continue;
		}
		bool letter = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9');
		if (!letter && *p != '-' && *p != '_')
			return bad(why, "the name has a character that names do not have");
	}
	if (length > 253)
		return bad(why, "the name is longer than 253 characters");
	/* A last label that is a number makes the whole an address to resolvers (WHATWG URL 3.5, "ends in a number"). */
	if (numeric_label(host + last, length - last))
		return bad(why, "an address in a spelling other than four decimal numbers");
	return 0;
}

static int check_host(const char *host, const char **why)
{
	struct in_addr v4;
	/* inet_pton takes nothing but four decimal numbers; glibc's refuses leading zeros too */
	if (inet_pton(AF_INET, host, &v4) == 1)
		return 0;
	return check_name(host, why);
}

static int split_v6(const char *authority, char *host, size_t host_size, const char **rest, const char **why)
{
	struct in6_addr v6;
	const char *end = strchr(authority, ']');
	if (!end)
		return bad(why, "the bracket of an IPv6 address is not closed");
	size_t length = (size_t)(end - authority - 1);
	if (length >= host_size || length >= INET6_ADDRSTRLEN)
		return bad(why, "not an IPv6 address");
	memcpy(host, authority + 1, length);
	host[length] = 0;
	if (strchr(host, '%'))
		return bad(why, "an IPv6 address with a zone leads to one link only");
	if (inet_pton(AF_INET6, host, &v6) != 1)
		return bad(why, "not an IPv6 address");
	*rest = end + 1;
	return 0;
}

static int split_name(const char *authority, char *host, size_t host_size, const char **rest, const char **why)
{
	size_t length = strcspn(authority, ":");
	*rest = authority + length;
	if (**rest && strchr(*rest + 1, ':'))
		return bad(why, "an IPv6 address needs brackets");
	if (length == 0)
		return bad(why, "the host is empty");
	if (length > 254 || length >= host_size)
		return bad(why, "the name is longer than 253 characters");
	memcpy(host, authority, length);
	host[length] = 0;
	if (length > 1 && host[length - 1] == '.')
		host[length - 1] = 0;
	return check_host(host, why);
}

int guard_split(const char *authority, uint16_t default_port, char *host, size_t host_size, uint16_t *port,
                const char **why)
{
	const char *rest = NULL, *unused;
	why = why ? why : &unused;
	if (!authority || !*authority)
		return bad(why, "there is no authority");
	int error = authority[0] == '[' ? split_v6(authority, host, host_size, &rest, why) :
	            split_name(authority, host, host_size, &rest, why);
	if (error)
		return error;
	if (*rest == ':')
		return parse_port(rest + 1, port, why);
	if (*rest)
		return bad(why, "something follows the bracket");
	if (!default_port)
		return bad(why, "the port is missing");
	*port = default_port;
	return 0;
}

/* --- addresses --------------------------------------------------------------------------------------------------- */

/* What `allow_targets:` may open as a class. CLASS_NEVER: only an explicit prefix (or `any`) does. */
enum address_class { CLASS_PUBLIC, CLASS_LOOPBACK, CLASS_LINK_LOCAL, CLASS_PRIVATE, CLASS_NEVER };

struct range {
	uint8_t bytes[16], bits;
	enum address_class class;
	const char *reason;
};

/* IANA's special-purpose registries (RFC 6890 and its successors); first match wins. Of IPv6 only global unicast is public. */
static const struct range v4_ranges[] = {
	{{169, 254, 169, 254}, 32, CLASS_NEVER, "cloud metadata address"},
	{{0}, 8, CLASS_NEVER, "address of this network (0.0.0.0/8)"},
	{{127}, 8, CLASS_LOOPBACK, "loopback address"},
	{{169, 254}, 16, CLASS_LINK_LOCAL, "link-local address"},
	{{10}, 8, CLASS_PRIVATE, "private address"},
	{{172, 16}, 12, CLASS_PRIVATE, "private address"},
	{{192, 168}, 16, CLASS_PRIVATE, "private address"},
	{{100, 64}, 10, CLASS_PRIVATE, "carrier-grade NAT address"},
	{{192, 0, 0}, 24, CLASS_NEVER, "protocol assignment address"},
	{{192, 0, 2}, 24, CLASS_NEVER, "documentation address"},
	{{198, 51, 100}, 24, CLASS_NEVER, "documentation address"},
	{{203, 0, 113}, 24, CLASS_NEVER, "documentation address"},
	{{192, 88, 99}, 24, CLASS_NEVER, "6to4 relay address"},
	{{198, 18}, 15, CLASS_NEVER, "benchmark address"},
	{{224}, 4, CLASS_NEVER, "multicast address"},
	{{255, 255, 255, 255}, 32, CLASS_NEVER, "broadcast address"},
	{{240}, 4, CLASS_NEVER, "reserved address"},
};

static const struct range v6_ranges[] = {
	{{0xfd, 0x00, 0x0e, 0xc2, [14] = 0x02, [15] = 0x54}, 128, CLASS_NEVER, "cloud metadata address"},
	{{[15] = 1}, 128, CLASS_LOOPBACK, "loopback address"},
	{{0}, 128, CLASS_NEVER, "unspecified address"},
	{{0xfe, 0x80}, 10, CLASS_LINK_LOCAL, "link-local address"},
	{{0xfc}, 7, CLASS_PRIVATE, "private address"},
	{{0xfe, 0xc0}, 10, CLASS_PRIVATE, "site-local address"},
	{{0xff}, 8, CLASS_NEVER, "multicast address"},
	{{0x01, [8] = 0}, 64, CLASS_NEVER, "discard address"},
	{{0x20, 0x01, 0x0d, 0xb8}, 32, CLASS_NEVER, "documentation address"},
	{{0x3f, 0xff}, 20, CLASS_NEVER, "documentation address"},
	{{0x20, 0x01, 0x00, 0x02}, 48, CLASS_NEVER, "benchmark address"},
	{{0x00, 0x64, 0xff, 0x9b, 0x00, 0x01}, 48, CLASS_PRIVATE, "local NAT64 address"},
	{{0x00, 0x64, 0xff, 0x9b}, 96, CLASS_PUBLIC, NULL},     /* the IPv4 address inside decides */
	{{0x20}, 3, CLASS_PUBLIC, NULL},
	{{0}, 0, CLASS_NEVER, "address outside of global unicast"},
};

static bool has_prefix(const uint8_t *address, const uint8_t *prefix, unsigned bits)
{
	if (memcmp(address, prefix, bits / 8) != 0)
		return false;
	uint8_t mask = (uint8_t)(0xff00u >> (bits % 8));
	return bits % 8 == 0 || ((address[bits / 8] ^ prefix[bits / 8]) & mask) == 0;
}

static const struct range *find(const struct range *ranges, size_t n, const uint8_t *address)
{
	for (size_t i = 0; i < n; i++)
		if (has_prefix(address, ranges[i].bytes, ranges[i].bits))
			return &ranges[i];
	return NULL;
}

static bool class_allowed(const struct config_targets *targets, enum address_class class)
{
	return (class == CLASS_LOOPBACK && targets->loopback) || (class == CLASS_LINK_LOCAL && targets->link_local) ||
	       (class == CLASS_PRIVATE && targets->private_);
}

/* One address in one form (IPv4: mapped). */
static const char *judge(const struct config_cluster *cluster, const struct in6_addr *address)
{
	const struct config_targets *allow = &cluster->allow_targets, *deny = &cluster->deny_targets;
	static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
	bool v4 = memcmp(address->s6_addr, mapped, sizeof(mapped)) == 0;
	const struct range *range = v4 ?
		find(v4_ranges, sizeof(v4_ranges) / sizeof(*v4_ranges), address->s6_addr + 12) :
		find(v6_ranges, sizeof(v6_ranges) / sizeof(*v6_ranges), address->s6_addr);
	enum address_class class = range ? range->class : CLASS_PUBLIC;
	if (deny->any || class_allowed(deny, class) || config_prefixes_contain(&deny->prefixes, address))
		return "address that deny_targets closes";
	if (class == CLASS_PUBLIC || allow->any || class_allowed(allow, class) || config_prefixes_contain(&allow->prefixes, address))
		return NULL;
	return range->reason;
}

static void map_v4(const uint8_t *v4, struct in6_addr *out)
{
	*out = (struct in6_addr){.s6_addr = {[10] = 0xff, [11] = 0xff}};
	memcpy(out->s6_addr + 12, v4, 4);
}

/* The IPv4 address that a form of transition carries; false where there is none. */
static bool embedded_v4(const struct in6_addr *address, struct in6_addr *inner)
{
	const uint8_t *b = address->s6_addr;
	static const uint8_t zeros[12], nat64[12] = {0x00, 0x64, 0xff, 0x9b}, teredo[4] = {0x20, 0x01};
	if (b[0] == 0x20 && b[1] == 0x02)                      /* 6to4, RFC 3056 */
		map_v4(b + 2, inner);
	else if (memcmp(b, nat64, 12) == 0)                    /* RFC 6052 */
		map_v4(b + 12, inner);
	else if (memcmp(b, teredo, 4) == 0) {                  /* RFC 4380: the client's, inverted */
		uint8_t v4[4] = {(uint8_t)~b[12], (uint8_t)~b[13], (uint8_t)~b[14], (uint8_t)~b[15]};
		map_v4(v4, inner);
	} else if (memcmp(b, zeros, 12) == 0 && (b[12] | b[13] | b[14] | (b[15] & 0xfe)))
		map_v4(b + 12, inner);                         /* IPv4-compatible, RFC 4291 2.5.5.1 */
	else if (memcmp(b + 8, "\0\0\x5e\xfe", 4) == 0 || memcmp(b + 8, "\2\0\x5e\xfe", 4) == 0)
		map_v4(b + 12, inner);                         /* ISATAP, RFC 5214 */
	else
		return false;
	return true;
}

const char *guard_refuses(const struct config_cluster *cluster, const struct sockaddr *address)
{
	struct in6_addr v6, inner;
	if (address->sa_family == AF_INET) {
		const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)address;
		map_v4((const uint8_t *)&in->sin_addr, &v6);
	} else if (address->sa_family == AF_INET6) {
		v6 = ((const struct sockaddr_in6 *)(const void *)address)->sin6_addr;
	} else {
		return "not an Internet address";
	}
	const char *reason = judge(cluster, &v6);
	if (!reason && embedded_v4(&v6, &inner))
		reason = judge(cluster, &inner);
	/* A Teredo address names its server too. */
	if (!reason && memcmp(v6.s6_addr, "\x20\x01\0\0", 4) == 0) {
		map_v4(v6.s6_addr + 4, &inner);
		reason = judge(cluster, &inner);
	}
	return reason;
}

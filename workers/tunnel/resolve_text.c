#include "workers/tunnel/resolve_text.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <uthash.h>

bool address_parse(const char *text, union resolve_address *out)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)out;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)out;
	memset(out, 0, sizeof(*out));
	if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		return true;
	}
	if (inet_pton(AF_INET6, text, &v6->sin6_addr) == 1) {
		v6->sin6_family = AF_INET6;
		return true;
	}
	return false;
}

/* The next word of a line into word (cut to size); returns where it ended, NULL when there is none. */
static const char *next_word(const char *p, const char *end, char *word, size_t size)
{
	while (p < end && (*p == ' ' || *p == '\t' || *p == '\r'))
		p++;
	if (p >= end || *p == '#' || *p == ';')
		return NULL;
	const char *start = p;
	while (p < end && *p != ' ' && *p != '\t' && *p != '\r' && *p != '#')
		p++;
	size_t length = (size_t)(p - start);
	if (length >= size)
		length = size - 1;
	memcpy(word, start, length);
	word[length] = 0;
	return p;
}

static const char *line_end(const char *p)
{
	const char *end = strchr(p, '\n');
	return end ? end : p + strlen(p);
}

/* --- resolv.conf ------------------------------------------------------------------------------------------------------ */

/* A link-local server with a zone ("fe80::1%eth0") is nothing that c-ares 1.18 takes: skipped. */
static void parse_server(struct resolv_conf *out, const char *text)
{
	union resolve_address address;
	char bare[64];
	unsigned long port = 53;
	const char *end = text[0] == '[' ? strchr(text, ']') : NULL;
	snprintf(bare, sizeof(bare), "%.*s", end ? (int)(end - text - 1) : 63, end ? text + 1 : text);
	if (end && end[1])
		port = end[1] == ':' ? strtoul(end + 2, NULL, 10) : 0;
	if (!address_parse(bare, &address) || port < 1 || port > 65535 || out->n >= RESOLV_SERVERS)
		return;
	memcpy(out->servers[out->n].address, bare, sizeof(out->servers[0].address));
	out->servers[out->n++].port = (uint16_t)port;
}

static int bounded(const char *digits, int low, int high)
{
	int value = atoi(digits);
	return value < low ? low : value > high ? high : value;
}

static void parse_option(struct resolv_conf *out, const char *option)
{
	if (strncmp(option, "timeout:", 8) == 0)
		out->timeout_ms = bounded(option + 8, 1, 30) * 1000;
	else if (strncmp(option, "attempts:", 9) == 0)
		out->tries = bounded(option + 9, 1, 5);
	else if (strcmp(option, "rotate") == 0)
		out->rotate = true;
}

void resolv_conf_parse(const char *text, struct resolv_conf *out)
{
	memset(out, 0, sizeof(*out));        /* two of them are compared as bytes */
	*out = (struct resolv_conf){.timeout_ms = 2000, .tries = 3};
	for (const char *p = text; *p;) {
		const char *end = line_end(p);
		char word[64];
		const char *at = next_word(p, end, word, sizeof(word));
		bool options = at && strcmp(word, "options") == 0;
		if (at && strcmp(word, "nameserver") == 0 && next_word(at, end, word, sizeof(word)))
			parse_server(out, word);
		while (options && (at = next_word(at, end, word, sizeof(word))))
			parse_option(out, word);
		p = *end ? end + 1 : end;
	}
}

void resolv_conf_csv(const struct resolv_conf *conf, char *out, size_t size)
{
	size_t used = 0;
	out[0] = 0;
	for (unsigned i = 0; i < conf->n && used < size; i++) {
		const char *address = conf->servers[i].address;
		bool v6 = strchr(address, ':');
		int n = snprintf(out + used, size - used, "%s%s%s%s:%u", i ? "," : "", v6 ? "[" : "", address, v6 ? "]" : "",
		                 conf->servers[i].port);
		used += n > 0 ? (size_t)n : 0;
	}
}

/* --- hosts ------------------------------------------------------------------------------------------------------------ */

struct host_address {
	struct host_address *next;
	union resolve_address address;
};

struct host_name {
	UT_hash_handle hh;
	struct host_address *addresses, **tail;
	char name[];
};

struct hosts { struct host_name *names; size_t n; };

static void hosts_add(struct hosts *hosts, const char *name, const union resolve_address *address)
{
	struct host_name *entry;
	size_t length = strlen(name);
	if (hosts->n >= HOSTS_NAMES)
		return;
	HASH_FIND(hh, hosts->names, name, length, entry);
	if (!entry) {
		entry = calloc(1, sizeof(*entry) + length + 1);
		if (!entry)
			return;
		memcpy(entry->name, name, length);
		entry->tail = &entry->addresses;
		HASH_ADD_KEYPTR(hh, hosts->names, entry->name, length, entry);
	}
	struct host_address *a = calloc(1, sizeof(*a));
	if (!a)
		return;
	a->address = *address;
	*entry->tail = a;
	entry->tail = &a->next;
	hosts->n++;
}

struct hosts *hosts_parse(const char *text)
{
	struct hosts *hosts = calloc(1, sizeof(*hosts));
	for (const char *p = text; hosts && *p;) {
		const char *end = line_end(p);
		char word[256];
		union resolve_address address;
		const char *at = next_word(p, end, word, sizeof(word));
		bool valid = at && address_parse(word, &address);
		while (valid && (at = next_word(at, end, word, sizeof(word)))) {
			size_t length = strlen(word);
			if (length > 1 && word[length - 1] == '.')
				word[length - 1] = 0;
			for (char *c = word; *c; c++)
				*c = (char)tolower((unsigned char)*c);
			hosts_add(hosts, word, &address);
		}
		p = *end ? end + 1 : end;
	}
	return hosts;
}

void hosts_free(struct hosts *hosts)
{
	struct host_name *entry, *next;
	if (!hosts)
		return;
	HASH_ITER(hh, hosts->names, entry, next) {
		HASH_DEL(hosts->names, entry);
		while (entry->addresses) {
			struct host_address *a = entry->addresses;
			entry->addresses = a->next;
			free(a);
		}
		free(entry);
	}
	free(hosts);
}

const union resolve_address *hosts_find(const struct hosts *hosts, const char *name, unsigned i)
{
	struct host_name *entry = NULL;
	if (hosts)
		HASH_FIND(hh, hosts->names, name, strlen(name), entry);
	struct host_address *a = entry ? entry->addresses : NULL;
	while (a && i--)
		a = a->next;
	return a ? &a->address : NULL;
}

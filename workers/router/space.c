/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/router/space.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#define BITS 129   /* prefix lengths 0...128 */

struct user {
	UT_hash_handle hh;
	uint32_t space;
};
/* A name or a prefix in its space: key is the space's number, and the host or the address and length. */
struct entry {
	UT_hash_handle hh;
	const struct config_space_entry *entry;
	struct entry *next;    /* all of them, to be freed */
	char key[];
};
struct space_index {
	const struct config *config;
	struct user *users, *user_items;
	struct entry *names, *prefixes, *all;
	uint32_t everybody;    /* the space of "*"; UINT32_MAX: none */
	/* per space: the prefix lengths in use, longest first */
	struct lengths { uint8_t v[BITS], n; } *lengths;
};

struct prefix_key { uint32_t space; uint8_t address[16]; uint32_t bits; };

static struct prefix_key prefix_key(uint32_t space, const struct in6_addr *address, unsigned bits)
{
	struct prefix_key key = { .space = space, .bits = bits };
	unsigned whole = bits / 8;

	memcpy(key.address, address, whole);
	if (bits % 8)
		key.address[whole] = (uint8_t)(address->s6_addr[whole] & (0xff00 >> (bits % 8)));
	return key;
}

static size_t name_key(char *key, uint32_t space, const char *host, size_t length)
{
	memcpy(key, &space, sizeof(space));
	memcpy(key + sizeof(space), host, length);
	return sizeof(space) + length;
}

/* --- building ------------------------------------------------------------------------------------------------------- */

static bool add_users(struct space_index *index)
{
	size_t n = 0;

	for (size_t i = 0; i < index->config->n_spaces; i++)
		n += index->config->spaces[i].users.n;
	index->user_items = calloc(n + 1, sizeof(*index->user_items));
	if (!index->user_items)
		return false;
	n = 0;
	for (size_t i = 0; i < index->config->n_spaces; i++) {
		const struct config_strs *users = &index->config->spaces[i].users;
		for (size_t k = 0; k < users->n; k++) {
			struct user *u;
			if (!strcmp(users->v[k], "*")) {
				if (index->everybody == UINT32_MAX)
					index->everybody = (uint32_t)i;
				continue;
			}
			HASH_FIND_STR(index->users, users->v[k], u);
			if (u)
				continue;
			u = &index->user_items[n++];
			u->space = (uint32_t)i;
			HASH_ADD_KEYPTR(hh, index->users, users->v[k], strlen(users->v[k]), u);
			if (!u->hh.tbl)
				return false;
		}
	}
	return true;
}

static bool add_entry(struct space_index *index, struct entry **table, const void *key, size_t length,
                      const struct config_space_entry *what)
{
	struct entry *e;

	HASH_FIND(hh, *table, key, length, e);
	if (e)                 /* named twice: the first one counts */
		return true;
	e = calloc(1, sizeof(*e) + length);
	if (!e)
		return false;
	e->entry = what;
	memcpy(e->key, key, length);
	e->next = index->all;
	index->all = e;
	HASH_ADD_KEYPTR(hh, *table, e->key, length, e);
	return e->hh.tbl != NULL;
}

static void note_length(struct lengths *lengths, uint8_t bits)
{
	unsigned at = 0;

	while (at < lengths->n && lengths->v[at] > bits)
		at++;
	if (at < lengths->n && lengths->v[at] == bits)
		return;
	memmove(lengths->v + at + 1, lengths->v + at, lengths->n - at);
	lengths->v[at] = bits;
	lengths->n++;
}

static bool add_space(struct space_index *index, uint32_t number)
{
	const struct config_space *s = &index->config->spaces[number];
	char host[MATCH_HOST_MAX], key[MATCH_HOST_MAX + sizeof(number)];
	int port;

	for (size_t i = 0; i < s->n_names; i++) {
		int n = match_host(s->names[i].name, host, &port);
		if (n > 0 && !add_entry(index, &index->names, key, name_key(key, number, host, (size_t)n), &s->names[i]))
			return false;
	}
	for (size_t i = 0; i < s->n_prefixes; i++) {
		const struct config_prefix *p = &s->prefixes[i].prefix;
		if (p->bits >= BITS)
			continue;
		struct prefix_key k = prefix_key(number, &p->address, p->bits);
		if (!add_entry(index, &index->prefixes, &k, sizeof(k), &s->prefixes[i]))
			return false;
		note_length(&index->lengths[number], p->bits);
	}
	return true;
}

struct space_index *space_index_new(const struct config *config)
{
	struct space_index *index = calloc(1, sizeof(*index));
	bool good;

	if (!index)
		return NULL;
	index->config = config;
	index->everybody = UINT32_MAX;
	index->lengths = calloc(config->n_spaces + 1, sizeof(*index->lengths));
	good = index->lengths && add_users(index);
	for (size_t i = 0; good && i < config->n_spaces; i++)
		good = add_space(index, (uint32_t)i);
	if (good)
		return index;
	space_index_free(index);
	return NULL;
}

void space_index_free(struct space_index *index)
{
	struct entry *e;

	if (!index)
		return;
	HASH_CLEAR(hh, index->users);
	HASH_CLEAR(hh, index->names);
	HASH_CLEAR(hh, index->prefixes);
	while ((e = index->all)) {
		index->all = e->next;
		free(e);
	}
	free(index->user_items);
	free(index->lengths);
	free(index);
}

/* --- looking up ----------------------------------------------------------------------------------------------------- */

static uint32_t space_of(const struct space_index *index, const char *user)
{
	struct user *u = NULL;

	if (user)
		HASH_FIND_STR(index->users, user, u);
	return u ? u->space : index->everybody;
}

static const struct config_space_entry *find_name(const struct space_index *index, uint32_t space, const char *host,
                                                  size_t length)
{
	char key[MATCH_HOST_MAX + sizeof(space)];
	struct entry *e;

	HASH_FIND(hh, index->names, key, name_key(key, space, host, length), e);
	return e ? e->entry : NULL;
}

/* The whole of an address or, for an IP tunnel, of the prefix that it asks for ("10.0.0.0/8", "2001:db8::/32") lies in it. */
static const struct config_space_entry *find_prefix(const struct space_index *index, uint32_t space, const char *authority,
                                                    const char *host)
{
	const struct lengths *lengths = &index->lengths[space];
	struct config_prefix target = {.bits = 128};
	const char *why;
	struct entry *e;

	if (!lengths->n)
		return NULL;
	if (config_prefix_parse(authority, &target, &why) != 0) {
		target.bits = 128;
		if (!host || !match_address(host, &target.address))
			return NULL;
	}
	for (unsigned i = 0; i < lengths->n; i++) {
		if (lengths->v[i] > target.bits)
			continue;
		struct prefix_key k = prefix_key(space, &target.address, lengths->v[i]);
		HASH_FIND(hh, index->prefixes, &k, sizeof(k), e);
		if (e)
			return e->entry;
	}
	return NULL;
}

const struct config_space_entry *space_find(const struct space_index *index, const char *user, const char *authority,
                                            const struct config_space **space, struct trace *trace)
{
	const struct config_space_entry *entry = NULL;
	char host[MATCH_HOST_MAX];
	uint32_t number = space_of(index, user);
	int port, length;

	*space = NULL;
	if (number == UINT32_MAX) {
		if (index->config->n_spaces)
			trace_add(trace, "address spaces: none is user %s's", user ? user : "none");
		return NULL;
	}
	*space = &index->config->spaces[number];
	length = authority ? match_host(authority, host, &port) : -1;
	if (length > 0)
		entry = find_name(index, number, host, (size_t)length);
	if (!entry && authority)
		entry = find_prefix(index, number, authority, length > 0 ? host : NULL);
	if (entry)
		trace_add(trace, "address space %s of user %s names %s as %s: cluster %s", (*space)->name,
		          user ? user : "none", authority, entry->key, entry->cluster);
	else
		trace_add(trace, "address space %s of user %s does not name %s: left to the routes", (*space)->name,
		          user ? user : "none", authority ? authority : "a target");
	return entry;
}

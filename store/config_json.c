/* SPDX-License-Identifier: Apache-2.0 */
/* The effective document as JSON: the same keys as in the file, presets filled in, secrets as "***". */
#include "store/config_schema.h"

#include "ipc/json.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void write_object(struct json *j, const char *key, const struct config_object *object, const char *base);

static void write_duration(struct json *j, const char *key, uint64_t ms)
{
	char text[32];

	if (ms % 1000)
		snprintf(text, sizeof(text), "%llums", (unsigned long long)ms);
	else
		snprintf(text, sizeof(text), "%llus", (unsigned long long)(ms / 1000));
	json_str(j, key, text);
}

static void write_strings(struct json *j, const char *key, const struct config_strs *strs)
{
	if (!strs->n)
		return;
	json_array(j, key);
	for (size_t i = 0; i < strs->n; i++)
		json_str(j, NULL, strs->v[i]);
	json_end(j);
}

static void write_pairs(struct json *j, const char *key, const struct config_pairs *pairs)
{
	if (!pairs->n)
		return;
	json_object(j, key);
	for (size_t i = 0; i < pairs->n; i++)
		json_str(j, pairs->v[i].name, pairs->v[i].value);
	json_end(j);
}

static void write_prefix(struct json *j, const char *key, const struct config_prefix *prefix)
{
	char text[INET6_ADDRSTRLEN + 8], address[INET6_ADDRSTRLEN] = "";
	bool v4 = IN6_IS_ADDR_V4MAPPED(&prefix->address) && prefix->bits >= 96;

	if (v4)
		inet_ntop(AF_INET, prefix->address.s6_addr + 12, address, sizeof(address));
	else
		inet_ntop(AF_INET6, &prefix->address, address, sizeof(address));
	snprintf(text, sizeof(text), "%s/%u", address, v4 ? prefix->bits - 96u : prefix->bits);
	json_str(j, key, text);
}

static void write_prefixes(struct json *j, const char *key, const struct config_prefixes *prefixes)
{
	if (!prefixes->n)
		return;
	json_array(j, key);
	for (size_t i = 0; i < prefixes->n; i++)
		write_prefix(j, NULL, &prefixes->v[i]);
	json_end(j);
}

static void write_targets(struct json *j, const char *key, const struct config_targets *t)
{
	if (!t->loopback && !t->link_local && !t->private_ && !t->any && !t->prefixes.n)
		return;
	json_array(j, key);
	if (t->loopback)
		json_str(j, NULL, "loopback");
	if (t->link_local)
		json_str(j, NULL, "link_local");
	if (t->private_)
		json_str(j, NULL, "private");
	if (t->any)
		json_str(j, NULL, "any");
	for (size_t i = 0; i < t->prefixes.n; i++)
		write_prefix(j, NULL, &t->prefixes.v[i]);
	json_end(j);
}

static void write_condition(struct json *j, const char *key, const struct config_string_match *m)
{
	json_object(j, key);
	if (m->exact)
		json_str(j, "exact", m->exact);
	if (m->prefix)
		json_str(j, "prefix", m->prefix);
	if (m->present)
		json_bool(j, "present", true);
	if (m->absent)
		json_bool(j, "absent", true);
	json_end(j);
}

static void write_match_part(struct json *j, const struct config_field *f, const struct config_match *m)
{
	if (f->form == W_PATHS && m->n_paths) {
		json_array(j, f->key);
		for (size_t i = 0; i < m->n_paths; i++)
			write_condition(j, NULL, &m->paths[i]);
		json_end(j);
	} else if (f->form == W_HEADER_MATCHES && m->n_headers) {
		json_object(j, f->key);
		for (size_t i = 0; i < m->n_headers; i++)
			write_condition(j, m->headers[i].name, &m->headers[i].match);
		json_end(j);
	} else if (f->form == W_TIMES && m->n_times) {
		json_array(j, f->key);
		for (size_t i = 0; i < m->n_times; i++)
			json_str(j, NULL, m->times[i].text);
		json_end(j);
	}
}

static void write_tls(struct json *j, const struct config_field *f, const struct config_tls *tls)
{
	if (tls->off)
		json_str(j, f->key, "off");
	else if (tls->enabled)
		write_object(j, f->key, f->object, (const char *)tls);
}

static void write_list(struct json *j, const struct config_field *f, const char *base)
{
	const char *v = *(char *const *)(const void *)(base + f->offset);
	size_t n = *(const size_t *)(const void *)(base + f->count_offset);

	if (!n)
		return;
	if (f->form == W_KEYED)
		json_object(j, f->key);
	else
		json_array(j, f->key);
	for (size_t i = 0; i < n; i++)
		write_object(j, f->form == W_KEYED ? ((const struct config_space_entry *)(const void *)v)[i].key : NULL, f->object,
		             v + i * f->object->size);
	json_end(j);
}

static void write_words(struct json *j, const struct config_field *f, uint32_t bits)
{
	if (!bits)
		return;
	json_array(j, f->key);
	for (unsigned i = 0; f->names[i]; i++)
		if (bits >> i & 1)
			json_str(j, NULL, f->names[i]);
	json_end(j);
}

static void write_speaks(struct json *j, const struct config_field *f, const struct config_peer *peer)
{
	bool headers = f->offset == offsetof(struct config_peer, headers);

	if (headers ? peer->any_header : peer->any_user)
		json_str(j, f->key, "*");
	else
		write_strings(j, f->key, headers ? &peer->headers : &peer->users);
}

static void write_range(struct json *j, const struct config_field *f, const char *base)
{
	unsigned low = *(const uint16_t *)(const void *)(base + f->offset);
	unsigned high = *(const uint16_t *)(const void *)(base + f->count_offset);
	char range[16];

	snprintf(range, sizeof(range), "%u-%u", low, high);
	if (low)                                  /* 0: none given */
		json_str(j, f->key, range);
}

static void write_captured(struct json *j, const char *key, const struct config_capture *capture)
{
	json_array(j, key);
	if (capture->tcp)
		json_str(j, NULL, "tcp");
	if (capture->udp)
		json_str(j, NULL, "udp");
	json_end(j);
}

/* An object that is not there: a match without conditions is one that is. */
static bool is_absent(const struct config_field *f, const char *at)
{
	if (f->object->absent_is_zero || f->object->fields[0].flags & F_REQUIRED) {
		for (size_t i = 0; i < f->object->size; i++)
			if (at[i])
				return false;
		return true;
	}
	return false;
}

static void write_form(struct json *j, const struct config_field *f, const char *base)
{
	const void *at = base + f->offset;
	const struct config_rule *rule = (const void *)base;
	const struct config_cluster *cluster = (const void *)base;
	const struct config_tunnel *tunnel = (const void *)base;

	switch (f->form) {
	case W_TLS: write_tls(j, f, at); break;
	case W_ENDPOINTS:
		if (cluster->target)
			json_str(j, f->key, "target");
		else
			write_list(j, f, base);
		break;
	case W_TARGETS: write_targets(j, f->key, at); break;
	case W_PATHS: case W_HEADER_MATCHES: case W_TIMES: write_match_part(j, f, (const void *)base); break;
	case W_STATUS: case W_PORTS: write_range(j, f, base); break;
	case W_PROTOCOL:
		if (*(const uint8_t *)at)
			json_uint(j, f->key, *(const uint8_t *)at);
		break;
	case W_CAPTURED: write_captured(j, f->key, (const void *)base); break;
	case W_ALLOW: case W_DENY:
		if (rule->allow == (f->form == W_ALLOW))
			write_object(j, f->key, f->object, (const char *)&rule->match);
		break;
	case W_SPEAKS: write_speaks(j, f, (const void *)base); break;
	case W_DEVICE_ADDRESSES:
		if (tunnel->assigned)
			json_str(j, f->key, "assigned");
		else
			write_strings(j, f->key, at);
		break;
	default: break;
	}
}

static void write_value(struct json *j, const struct config_field *f, const char *base)
{
	const void *at = base + f->offset;
	const char *text = f->storage == S_STR ? *(char *const *)at : f->storage == S_ADDRESS ? *(char *const *)at : NULL;

	switch (f->form) {
	case W_TEXT: case W_NAME: case W_WORD: case W_HEADER: case W_ADDRESS: case W_TARGET: case W_LISTEN:
		if (text)                             /* an address begins with its text */
			json_str(j, f->key, text);
		break;
	case W_SECRET: json_str(j, f->key, "***"); break;
	case W_BOOL: case W_NOT: json_bool(j, f->key, *(const bool *)at != (f->form == W_NOT)); break;
	case W_FLAG: json_str(j, f->key, f->names[*(const bool *)at]); break;
	case W_ENUM: json_str(j, f->key, f->names[*(const uint32_t *)at]); break;
	case W_INT: case W_SIZE:
		json_uint(j, f->key, f->storage == S_U64 ? *(const uint64_t *)at : *(const uint32_t *)at);
		break;
	case W_MIB: json_uint(j, f->key, (uint64_t)*(const uint32_t *)at << 20); break;
	case W_DURATION: write_duration(j, f->key, *(const uint32_t *)at); break;
	case W_SECONDS: write_duration(j, f->key, *(const uint32_t *)at * 1000ull); break;
	case W_STRINGS: case W_SOME: case W_LOWER: case W_HEADERS: write_strings(j, f->key, at); break;
	case W_WORDS: write_words(j, f, *(const uint32_t *)at); break;
	case W_ADD_HEADERS: write_pairs(j, f->key, at); break;
	case W_PREFIX: write_prefix(j, f->key, at); break;
	case W_PREFIXES: write_prefixes(j, f->key, at); break;
	case W_OBJECTS: case W_KEYED: case W_HOPS: write_list(j, f, base); break;
	default: write_form(j, f, base);
	}
}

static void write_field(struct json *j, const struct config_field *f, const char *base)
{
	if (!f->key)
		return;
	if (f->form != W_OBJECT)
		write_value(j, f, base);
	else if (f->storage == S_GROUP && f->object->fields[0].storage == S_ADDRESS &&
	         !*(char *const *)(const void *)(base + f->object->fields[0].offset))
		return;                               /* telemetry without metrics */
	else if (f->storage == S_GROUP)
		write_object(j, f->key, f->object, base);
	else if (!is_absent(f, base + f->offset))
		write_object(j, f->key, f->object, base + f->offset);
}

static void write_object(struct json *j, const char *key, const struct config_object *object, const char *base)
{
	json_object(j, key);
	for (unsigned i = 0; i < object->n_fields; i++)
		write_field(j, &object->fields[i], base);
	json_end(j);
}

char *config_json(const struct config *config)
{
	struct json j = JSON_INIT;

	write_object(&j, NULL, &config_document, (const char *)config);
	if (!j.failed)
		return j.data;
	json_free(&j);
	return NULL;
}

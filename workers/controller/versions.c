/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/controller/versions.h"
#include "store/config_parser.h"
#include "store/digest.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define OPEN 4                    /* kept parsed, last used first */
#define PREFIX "document/"
#define HEAD "document-head"
#define DROP_MAX 20               /* with one new document */

struct versions { struct kv *kv; struct version *open[OPEN]; };

static void key_of(uint64_t number, char out[32])
{
	snprintf(out, 32, PREFIX "%010" PRIu64, number);
}

struct versions *versions_new(struct kv *kv)
{
	struct versions *v = calloc(1, sizeof(*v));

	if (v)
		v->kv = kv;
	return v;
}

void versions_free(struct versions *v)
{
	for (size_t i = 0; v && i < OPEN; i++)
		version_release(v->open[i]);
	free(v);
}

struct version *version_new(uint64_t number, struct document *document)
{
	struct version *v = calloc(1, sizeof(*v));

	if (v)
		*v = (struct version){.number = number, .document = document, .refs = 1};
	else
		document_free(document);
	return v;
}

struct version *version_keep(struct version *v)
{
	v->refs++;
	return v;
}

void version_release(struct version *v)
{
	if (!v || --v->refs)
		return;
	document_free(v->document);
	free(v);
}

static struct version *remember(struct versions *vs, struct version *v, size_t from)
{
	if (from == OPEN - 1 && vs->open[from] != v)
		version_release(vs->open[from]);
	memmove(&vs->open[1], &vs->open[0], from * sizeof(vs->open[0]));
	vs->open[0] = v;
	return version_keep(v);
}

struct version *versions_open(struct versions *vs, uint64_t number, struct config_report *report)
{
	struct config_parser p = {.report = report};
	struct document *d;
	char name[32];

	for (size_t i = 0; i < OPEN; i++)
		if (vs->open[i] && vs->open[i]->number == number)
			return remember(vs, vs->open[i], i);
	json_t *text = json_object_get(versions_record(vs->kv, number), "text");
	snprintf(name, sizeof(name), "document %" PRIu64, number);
	p.name = name;
	if (!text) {
		config_error(&p, &(struct yaml_node){.line = 1, .column = 1}, "there is no such version in the history");
		return NULL;
	}
	d = document_parse(name, json_string_value(text), json_string_length(text), NULL, report);
	struct version *v = d ? version_new(number, d) : NULL;
	return v ? remember(vs, v, OPEN - 1) : NULL;
}

uint64_t versions_head(struct kv *kv, uint64_t *revision)
{
	struct kv_value head = kv_get(kv, HEAD);

	if (revision)
		*revision = head.revision;
	return head.revision ? (uint64_t)json_integer_value(json_object_get(head.json, "version")) : 0;
}

json_t *versions_record(struct kv *kv, uint64_t number)
{
	char key[32];

	key_of(number, key);
	struct kv_value value = kv_get(kv, key);
	return value.revision ? value.json : NULL;
}

/* --- writing ------------------------------------------------------------------------------------------------------ */

static bool is_in_use(const json_t *in_use, uint64_t number)
{
	for (size_t i = 0; i < json_array_size(in_use); i++)
		if ((uint64_t)json_integer_value(json_array_get(in_use, i)) == number)
			return true;
	return false;
}

struct dropping { struct kv_txn *txn; const json_t *in_use; size_t excess, dropped; };

static bool drop_old(void *arg, const struct kv_value *value)
{
	struct dropping *d = arg;
	uint64_t number = (uint64_t)json_integer_value(json_object_get(value->json, "version"));

	if (!d->excess || d->dropped == DROP_MAX)
		return false;
	d->excess--;
	if (is_in_use(d->in_use, number))
		return true;
	d->dropped++;
	kv_txn_delete(d->txn, value->key);
	return true;
}

void versions_put(struct kv *kv, struct kv_txn *txn, uint64_t head, uint64_t head_revision, const char *author, const char *comment,
                  const char *text, const json_t *in_use)
{
	size_t count = kv_count(kv, PREFIX) + 1;
	struct dropping dropping = {txn, in_use, count > VERSIONS_KEPT ? count - VERSIONS_KEPT : 0, 0};
	uint8_t digest[32];
	char hex[65], key[32];

	digest_sha256(text, strlen(text), digest);
	digest_hex(digest, hex);
	key_of(head + 1, key);
	kv_txn_if(txn, HEAD, head_revision);
	kv_txn_put(txn, HEAD, json_pack("{s:I}", "version", (json_int_t)head + 1), false);
	kv_txn_put(txn, key, json_pack("{s:I, s:I, s:s, s:s?, s:s, s:s}", "version", (json_int_t)head + 1, "time",
	                               (json_int_t)time(NULL), "author", author, "comment", comment, "digest", hex, "text", text), false);
	kv_each(kv, PREFIX, drop_old, &dropping);
}

/* --- history ------------------------------------------------------------------------------------------------------ */

struct listing { json_t *list; };

static bool list_one(void *arg, const struct kv_value *value)
{
	struct listing *l = arg;
	json_t *line = json_copy(value->json);

	json_object_set_new(line, "bytes", json_integer((json_int_t)json_string_length(json_object_get(line, "text"))));
	json_object_del(line, "text");
	json_array_insert_new(l->list, 0, line);
	return true;
}

json_t *versions_list(struct kv *kv, size_t limit)
{
	struct listing listing = {json_array()};

	kv_each(kv, PREFIX, list_one, &listing);
	while (limit && json_array_size(listing.list) > limit)
		json_array_remove(listing.list, json_array_size(listing.list) - 1);
	return listing.list;
}

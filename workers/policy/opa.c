/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/policy/opa.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "ipc/json.h"

/* --- asking --------------------------------------------------------------------------------------------------------- */

static bool seen_before(const struct ipc_pairs *headers, size_t i)
{
	for (size_t k = 0; k < i; k++)
		if (!strcasecmp(headers->v[k].name, headers->v[i].name))
			return true;
	return false;
}

static void put_header(struct json *j, const struct ipc_pairs *headers, size_t i)
{
	const char *name = headers->v[i].name;
	size_t length = 1;
	char *joined;

	for (size_t k = i; k < headers->n; k++)
		if (!strcasecmp(headers->v[k].name, name))
			length += strlen(headers->v[k].value) + 2;
	joined = malloc(length);
	if (!joined) {
		j->failed = true;
		return;
	}
	strcpy(joined, headers->v[i].value);
	for (size_t k = i + 1; k < headers->n; k++)
		if (!strcasecmp(headers->v[k].name, name))
			strcat(strcat(joined, ", "), headers->v[k].value);
	json_str(j, name, joined);
	free(joined);
}

/* input.ip: where the question is about a packet inside a tunnel. */
static void put_packet(struct json *j, const struct ipc_question *q)
{
	if (!q->inner)
		return;
	json_begin_object(j, "ip");
	json_uint(j, "protocol", q->ip_protocol);
	json_str(j, "source", q->ip_source);
	json_str(j, "destination", q->ip_destination);
	if (q->ip_port)
		json_uint(j, "port", q->ip_port);
	json_end(j);
}

char *opa_input(const struct ipc_question *q)
{
	struct json j = JSON_INIT;

	json_begin_object(&j, NULL);
	json_begin_object(&j, "input");
	json_str(&j, "method", q->method);
	json_str(&j, "path", q->path);
	json_str(&j, "authority", q->authority);
	json_str(&j, "scheme", q->scheme);
	json_str(&j, "protocol", q->protocol);
	json_str(&j, "user", q->user);
	json_str(&j, "node", q->peer);
	json_str(&j, "source", q->source);
	json_str(&j, "listener", q->listener);
	put_packet(&j, q);
	json_begin_object(&j, "headers");
	for (size_t i = 0; i < q->headers.n; i++)
		if (!seen_before(&q->headers, i))
			put_header(&j, &q->headers, i);
	json_end(&j);
	json_end(&j);
	json_end(&j);
	if (!j.failed)
		return j.data;
	json_free(&j);
	return NULL;
}

/* --- the answer ----------------------------------------------------------------------------------------------------- */

/* A token (RFC 9110 5.6.2), and none of those that frame a message or end at the next hop (9110 7.6.1). */
static bool may_add(const char *name)
{
	static const char *const never[] = { "connection", "content-length", "host", "keep-alive", "proxy-authenticate",
		"proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "expect",
		"capsule-protocol" };

	for (const char *c = name; *c; c++)
		if (!((*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9') ||
		      strchr("!#$%&'*+-.^_`|~", *c)))
			return false;
	for (size_t i = 0; i < sizeof(never) / sizeof(*never); i++)
		if (!strcasecmp(name, never[i]))
			return false;
	return *name != 0;
}

/* RFC 9110 5.5: no control characters, no blanks around. */
static bool fits_value(const char *value)
{
	size_t n = strlen(value);

	for (const char *c = value; *c; c++)
		if (((unsigned char)*c < ' ' && *c != '\t') || *c == 0x7f)
			return false;
	return !n || (!strchr(" \t", value[0]) && !strchr(" \t", value[n - 1]));
}

/* Copies the headers into one piece of memory. Returns NULL, or what is wrong. */
static const char *take_headers(json_t *object, struct opa_result *out)
{
	const char *name;
	json_t *value;
	size_t size = 1;
	char *at;

	if (!json_is_object(object))
		return "answered headers that are not an object";
	if (json_object_size(object) > OPA_HEADERS_MAX)
		return "answered with more than 64 headers";
	json_object_foreach(object, name, value) {
		if (!json_is_string(value) || !may_add(name) || !fits_value(json_string_value(value)))
			return "answered with a header that may not be added";
		size += strlen(name) + json_string_length(value) + 2;
	}
	at = out->text = malloc(size);
	if (!at)
		return "could not be heard: out of memory";
	json_object_foreach(object, name, value) {
		struct match_header *h = &out->headers[out->n_headers++];
		h->name = at;
		for (const char *c = name; *c; c++)       /* the loop itself goes on from name */
			*at++ = *c >= 'A' && *c <= 'Z' ? (char)(*c + 32) : *c;
		*at++ = 0;
		h->value = strcpy(at, json_string_value(value));
		at += strlen(at) + 1;
	}
	return NULL;
}

static const char *take_result(json_t *root, struct opa_result *out)
{
	json_t *result = json_object_get(root, "result"), *allowed, *headers;

	if (!json_is_object(root))
		return "answered JSON that is not an object";
	if (!result)              /* OPA: the rule is undefined for this input */
		return NULL;
	if (json_is_boolean(result)) {
		out->allowed = json_is_true(result);
		return NULL;
	}
	allowed = json_object_get(result, "allowed");
	if (!json_is_boolean(allowed))
		return "answered a result that is neither a boolean nor has a boolean `allowed`";
	headers = json_object_get(result, "headers");
	if (headers && !json_is_null(headers) && json_is_true(allowed)) {
		const char *failed = take_headers(headers, out);
		if (failed)
			return failed;
	}
	out->allowed = json_is_true(allowed);
	return NULL;
}

void opa_result_parse(const char *body, size_t length, struct opa_result *out)
{
	json_error_t error;
	json_t *root = json_loadb(body, length, JSON_REJECT_DUPLICATES, &error);

	out->allowed = false;
	out->n_headers = 0;
	out->failed = NULL;
	out->text = NULL;
	out->failed = root ? take_result(root, out) : "did not answer JSON";
	json_decref(root);
}

void opa_result_clear(struct opa_result *result)
{
	free(result->text);
	result->text = NULL;
	result->n_headers = 0;
	result->allowed = false;
}

int opa_result_copy(const struct opa_result *from, struct opa_result *to)
{
	size_t size = 0;

	to->allowed = from->allowed;
	to->failed = from->failed;
	to->n_headers = 0;
	to->text = NULL;
	if (!from->n_headers)
		return 0;
	for (size_t i = 0; i < from->n_headers; i++)
		size += strlen(from->headers[i].name) + strlen(from->headers[i].value) + 2;
	char *at = to->text = malloc(size);
	if (!at) {
		to->allowed = false;
		return -ENOMEM;
	}
	for (size_t i = 0; i < from->n_headers; i++) {
		struct match_header *h = &to->headers[to->n_headers++];
		h->name = strcpy(at, from->headers[i].name);
		at += strlen(at) + 1;
		h->value = strcpy(at, from->headers[i].value);
		at += strlen(at) + 1;
	}
	return 0;
}

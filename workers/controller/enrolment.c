/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/controller/enrolment.h"
#include "ipc/log.h"
#include "store/digest.h"
#include "workers/controller/nodes.h"
#include "workers/controller/renewal.h"
#include "workers/controller/tokens.h"
#include "workers/keeper/keeper.h"

#include <event2/event.h>
#include <fnmatch.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <uthash.h>

#define REQUEST_MAX 16384             /* a PEM request */
#define KEY_MAX (NODES_NAME_MAX + 16)
#define FAILURES_MAX 60               /* wrong tokens in a minute, of all together */
#define WINDOW_S 60
#define DAYS 30
#define DAY_S 86400

/* A certificate that is being made. */
struct certify {
	struct enrolment *enrolment;
	struct api_request *request;
	char node[NODES_NAME_MAX + 1], author[80];
	char token_key[TOKEN_TEXT_MAX];       /* "": a renewal */
	uint64_t token_revision, node_revision;
	bool controller;
	json_int_t began;                     /* an enrolment's: Unix time */
	char *certificate, *authorities, *public;
	char serial[80];
	UT_hash_handle hh;                    /* by node: one at a time */
};

struct enrolment {
	struct controller *controller;
	struct event_base *base;
	struct certify *certifying;
	struct event *window;
	unsigned failures;
};

bool enrolment_pattern_fits(const char *pattern, const char *node, bool exact)
{
	if (!nodes_name_ok(node))
		return false;
	return exact ? !strcmp(pattern, node) : !fnmatch(pattern, node, 0);
}

bool enrolment_fingerprint(const char *pem, char out[44])
{
	static const char begin[] = "-----BEGIN CERTIFICATE-----", end[] = "-----END CERTIFICATE-----";
	const char *from = strstr(pem, begin), *to = from ? strstr(from, end) : NULL;
	uint8_t der[16384], digest[32];
	size_t length = 0;
	if (!to)
		return false;
	from += sizeof(begin) - 1;
	if (sodium_base642bin(der, sizeof(der), from, (size_t)(to - from), "\r\n \t", &length, NULL, sodium_base64_VARIANT_ORIGINAL) || !length)
		return false;
	digest_sha256(der, length, digest);
	sodium_bin2base64(out, 44, digest, sizeof(digest), sodium_base64_VARIANT_URLSAFE_NO_PADDING);
	return true;
}

/* --- certificates ----------------------------------------------------------------------------------------------------- */

static void certify_free(struct certify *c)
{
	HASH_DEL(c->enrolment->certifying, c);
	free(c->certificate);
	free(c->authorities);
	free(c->public);
	free(c);
}

static void give_up(struct certify *c, const char *error)
{
	log_error("certificate not made", "node=%s error=%s", log_value(c->node), log_value(error));
	api_error(c->request, 503, "keeper", "%s", error);
	certify_free(c);
}

/* Where a new node finds controllers: as our own node does, else where we listen. */
static json_t *controllers(const struct config *config)
{
	json_t *list = json_array();
	for (size_t i = 0; config && i < config->control.n_endpoints; i++)
		if (config->control.endpoints[i].address.text)
			json_array_append_new(list, json_string(config->control.endpoints[i].address.text));
	return list;
}

static void reply(struct certify *c)
{
	const struct config *config = c->enrolment->controller->config;
	json_t *out = json_pack("{s:s, s:s}", "certificate", c->certificate, "authorities", c->authorities);
	if (*c->token_key) {
		json_object_set_new(out, "node", json_string(c->node));
		json_object_set_new(out, "domain", json_string(config && config->domain ? config->domain : ""));
		json_object_set_new(out, "public", json_string(c->public));
		json_object_set_new(out, "controllers", controllers(config));
	}
	log_info("certificate made", "node=%s serial=%s why=%s author=%s", log_value(c->node), c->serial,
	         *c->token_key ? "enrolled" : "renewed", log_value(c->author));
	api_reply(c->request, 200, out);
	certify_free(c);
}

static void on_recorded(void *arg, int error)
{
	struct certify *c = arg;
	if (!error) {
		reply(c);
		return;
	}
	/* the certificate is thrown away: nobody has seen it */
	api_store_error(c->request, error);
	certify_free(c);
}

static void record(struct certify *c)
{
	struct kv *kv = c->enrolment->controller->kv;
	const json_int_t now = (json_int_t)time(NULL);
	char key[KEY_MAX];
	snprintf(key, sizeof(key), "node/%s", c->node);
	struct kv_value old = kv_get(kv, key);
	const json_t *enrolled = old.revision && !*c->token_key ? json_object_get(old.json, "enrolled") : NULL;
	json_t *json = json_pack("{s:s, s:s, s:I, s:I, s:b, s:b, s:s}", "name", c->node, "serial", c->serial, "enrolled",
	                         json_is_integer(enrolled) ? json_integer_value(enrolled) : now, "certified", now, "controller",
	                         c->controller, "revoked", false, "author", c->author);
	/* a name that was given before: the certificates of then are no longer good */
	json_t *begins = !old.revision ? NULL : *c->token_key ? json_integer(c->began - KEEPER_SKEW) :
	                 json_incref(json_object_get(old.json, "begins"));
	if (begins)
		json_object_set_new(json, "begins", begins);
	struct kv_txn *txn = kv_txn_new(kv);
	kv_txn_if(txn, key, c->node_revision);
	kv_txn_put(txn, key, json, false);
	if (*c->token_key) {
		kv_txn_if(txn, c->token_key, c->token_revision);      /* one use: whoever is second finds it gone */
		kv_txn_delete(txn, c->token_key);
	}
	kv_commit(txn, on_recorded, c);
}

static void on_public(void *arg, const char *text, const char *error)
{
	struct certify *c = arg;
	if (!error && !(c->public = strdup(text)))
		error = "out of memory";
	if (error)
		give_up(c, error);
	else
		record(c);
}

static void on_authorities(void *arg, const char *text, const char *error)
{
	struct certify *c = arg;
	if (!error && !(c->authorities = strdup(text)))
		error = "out of memory";
	if (error)
		give_up(c, error);
	else if (*c->token_key)
		keeper_ask(c->enrolment->controller->keeper, "public", NULL, 0, NULL, 0, on_public, c);
	else
		record(c);
}

/* The answer's first line is "serial HEX". */
static void on_certified(void *arg, const char *text, const char *error)
{
	struct certify *c = arg;
	const char *line = error ? NULL : strchr(text, '\n');
	if (!error && (!line || strncmp(text, "serial ", 7) || (size_t)(line - text - 7) >= sizeof(c->serial)))
		error = "the keeper's answer is malformed";
	if (!error) {
		memcpy(c->serial, text + 7, (size_t)(line - text - 7));
		c->certificate = strdup(line + 1);
		error = c->certificate ? NULL : "out of memory";
	}
	if (error)
		give_up(c, error);
	else
		keeper_ask(c->enrolment->controller->keeper, "authorities", NULL, 0, NULL, 0, on_authorities, c);
}

static const char *days_text(const struct config *config, char out[24])
{
	snprintf(out, 24, "%u", config && config->controller.certificate_days ? config->controller.certificate_days : DAYS);
	return out;
}

/* What `from` has of it goes on; answers itself where it cannot. */
static void certify(struct api_call *call, const struct certify *from, const char *request)
{
	struct enrolment *e = call->controller->enrolment;
	struct certify *c;
	char days[24];
	HASH_FIND_STR(e->certifying, from->node, c);
	if (c) {
		api_error(call->request, 409, "busy", "a certificate for %s is being made", from->node);
		return;
	}
	if (!(c = malloc(sizeof(*c)))) {
		api_error(call->request, 503, "memory", "out of memory");
		return;
	}
	*c = *from;
	c->enrolment = e;
	c->request = call->request;
	HASH_ADD_STR(e->certifying, node, c);
	const char *args[] = {c->node, days_text(call->controller->config, days), c->controller ? "controller" : ""};
	keeper_ask(call->controller->keeper, "certify", args, 3, request, strlen(request), on_certified, c);
}

static const char *text_of(const struct api_call *call, const char *name, size_t max)
{
	const char *text = json_string_value(json_object_get(call->body, name));
	return text && *text && strlen(text) <= max ? text : NULL;
}

/* --- enrolment -------------------------------------------------------------------------------------------------------- */

static void on_window(evutil_socket_t fd, short what, void *arg)
{
	struct enrolment *e = arg;
	(void)fd, (void)what;
	e->failures = 0;
}

/* Beyond the limit they are not logged; right ones are taken all the same, or strangers would keep new nodes out. */
static void wrong(struct api_call *call, const char *why)
{
	struct enrolment *e = call->controller->enrolment;
	if (e->failures >= FAILURES_MAX) {
		api_error(call->request, 429, "too-many", "too many wrong tokens: try again in a minute");
		return;
	}
	if (!e->failures++)
		evtimer_add(e->window, &(struct timeval){.tv_sec = WINDOW_S});
	log_warn("enrolment refused", "reason=%s", log_value(why));
	api_error(call->request, 403, "token", "%s", why);
}

/* Of a node that is there and not revoked only a token made for just that name makes another. */
static bool is_taken(struct kv *kv, const char *node, uint64_t *revision)
{
	char key[KEY_MAX];
	snprintf(key, sizeof(key), "node/%s", node);
	struct kv_value value = kv_get(kv, key);
	*revision = value.revision;
	return value.revision && !json_is_true(json_object_get(value.json, "revoked"));
}

static void enroll(struct api_call *call)
{
	const char *token = text_of(call, "token", TOKEN_TEXT_MAX), *node = text_of(call, "node", NODES_NAME_MAX);
	const char *request = text_of(call, "request", REQUEST_MAX);
	struct kv *kv = call->controller->kv;
	struct certify c = {.enrolment = call->controller->enrolment};
	struct token found;
	const char *why = token && request ? tokens_check(kv, token, &found) : NULL;
	if (why) {
		wrong(call, why);
		return;
	}
	if (token && request && !node)
		node = found.node;            /* a token for one name says which */
	if (!token || !request || !nodes_name_ok(node)) {
		api_error(call->request, 400, "bad-request", "token, node (letters, digits, - _ .) and request are texts");
		return;
	}
	bool taken = is_taken(kv, node, &c.node_revision);
	if (!enrolment_pattern_fits(found.node, node, taken)) {
		wrong(call, taken ? "there is a node of that name: only a token made for just that name can replace it"
		                  : "the token is for another node: --node must be the name that it was made for");
		return;
	}
	strcpy(c.node, node);
	c.began = (json_int_t)time(NULL);
	snprintf(c.author, sizeof(c.author), "token of %.60s", found.author);
	strcpy(c.token_key, found.key);
	c.token_revision = found.revision;
	c.controller = found.controller;
	certify(call, &c, request);
}

static void renew(struct api_call *call)
{
	const char *request = text_of(call, "request", REQUEST_MAX);
	struct certify c = {.enrolment = call->controller->enrolment};
	char key[KEY_MAX];
	if (!call->node || !nodes_name_ok(call->node)) {
		api_error(call->request, 403, "forbidden", "a node renews its own certificate");
		return;
	}
	if (!request) {
		api_error(call->request, 400, "bad-request", "request is a text");
		return;
	}
	snprintf(key, sizeof(key), "node/%s", call->node);
	struct kv_value value = kv_get(call->controller->kv, key);
	strcpy(c.node, call->node);
	snprintf(c.author, sizeof(c.author), "node %s", call->node);
	c.node_revision = value.revision;
	c.controller = value.revision && json_is_true(json_object_get(value.json, "controller"));
	certify(call, &c, request);
}

/* --- authorities ------------------------------------------------------------------------------------------------------ */

static void on_pem(void *arg, const char *text, const char *error)
{
	if (error)
		api_error(arg, 503, "keeper", "%s", error);
	else
		api_reply_text(arg, 200, "application/x-pem-file", text);
}

static void authorities(struct api_call *call)
{
	keeper_ask(call->controller->keeper, "authorities", NULL, 0, NULL, 0, on_pem, call->request);
}

/* --- revocation ------------------------------------------------------------------------------------------------------- */

static void on_revoked(void *arg, int error)
{
	if (error)
		api_store_error(arg, error);
	else
		api_reply(arg, 200, json_pack("{s:b}", "revoked", true));
}

static void revoke(struct api_call *call)
{
	const char *slash = strchr(call->rest, '/');
	char name[NODES_NAME_MAX + 1] = "", key[KEY_MAX];
	struct kv *kv = call->controller->kv;
	if ((size_t)(slash - call->rest) < sizeof(name))
		memcpy(name, call->rest, (size_t)(slash - call->rest));
	snprintf(key, sizeof(key), "node/%s", name);
	struct kv_value value = kv_get(kv, key);
	if (!*name || !value.revision) {
		api_error(call->request, 404, "not-found", "there is no node of that name");
		return;
	}
	json_t *json = json_copy(value.json);
	json_object_set_new(json, "revoked", json_true());
	json_object_set_new(json, "revoked_at", json_integer((json_int_t)time(NULL)));
	json_object_set_new(json, "revoked_by", json_string(call->author));
	struct kv_txn *txn = kv_txn_new(kv);
	kv_txn_if(txn, key, value.revision);
	kv_txn_put(txn, key, json, false);
	log_info("node revoked", "name=%s author=%s", log_value(name), log_value(call->author));
	kv_commit(txn, on_revoked, call->request);
}

/* --- life ------------------------------------------------------------------------------------------------------------- */

void enrolment_add(struct api *api)
{
	static const struct api_route routes[] = {
		{"/v1/authorities", "GET", API_ANYBODY, authorities, NULL},
		{"/v1/enroll", "POST", API_ANYBODY, enroll, NULL},
		{"/v1/renew", "POST", API_NODE, renew, NULL},
		{"/v1/nodes/", "POST", API_OPERATOR, revoke, "revoke"},
	};
	api_add(api, routes, sizeof(routes) / sizeof(*routes));
	tokens_add(api);
	renewal_add(api);
}

struct enrolment *enrolment_new(struct controller *controller, struct event_base *base)
{
	struct enrolment *e = calloc(1, sizeof(*e));
	if (!e)
		return NULL;
	*e = (struct enrolment){.controller = controller, .base = base, .window = evtimer_new(base, on_window, e)};
	if (e->window)
		return e;
	free(e);
	return NULL;
}

void enrolment_free(struct enrolment *e)
{
	struct certify *c, *next;
	if (!e)
		return;
	HASH_ITER(hh, e->certifying, c, next)
		give_up(c, "the controller ends");
	event_free(e->window);
	free(e);
}

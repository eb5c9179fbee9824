/* SPDX-License-Identifier: Apache-2.0 */
/* enroll: this machine becomes a node of a domain. Its key is made here and stays here; what the controller says is believed because
 * the token names the domain's authority by its fingerprint. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store/config.h"
#include "supervisor/admin_bootstrap.h"
#include "supervisor/admin_domain.h"
#include "supervisor/admin_http.h"
#include "supervisor/admin_options.h"
#include "supervisor/admin_rest.h"
#include "supervisor/admin_verbs.h"
#include "workers/keeper/pki.h"

#define CONTROLLERS_MAX 16

struct enrolment {
	struct bootstrap b;
	const char *token, *wanted;       /* --token, --node */
	char connect_to[300];             /* HOST:PORT */
	char port[8];
	char *authority, *domain;         /* that the token's fingerprint names, and what that names */
	char *key, *request;
	json_t *answer;
};

/* --- what was typed -------------------------------------------------------------------------------------------------- */

/* hermes1.ID.SECRET.FINGERPRINT */
static const char *token_fingerprint(const char *token)
{
	static const char digits[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
	const char *at = strncmp(token, "hermes1.", 8) ? NULL : token + 8;
	for (int part = 0; at && part < 2; part++) {
		size_t n = strspn(at, digits);
		at = n && at[n] == '.' ? at + n + 1 : NULL;
	}
	return at && strspn(at, digits) == PKI_FINGERPRINT_TEXT - 1 && strlen(at) == PKI_FINGERPRINT_TEXT - 1 ? at : NULL;
}

static int take_url(struct enrolment *e, const char *url)
{
	struct config_address address = {0};
	const char *why = "not https://HOST:PORT";
	size_t n = strncmp(url, "https://", 8) ? 0 : strlen(url + 8);
	while (n && url[8 + n - 1] == '/')
		n--;
	if (!n || n >= sizeof(e->connect_to))
		return admin_error("%s: not https://HOST:PORT", url);
	memcpy(e->connect_to, url + 8, n);
	e->connect_to[n] = '\0';
	bool ok = !config_address_parse(e->connect_to, true, NULL, &address, &why) && address.host && *address.host && address.port;
	snprintf(e->port, sizeof(e->port), "%u", address.port);
	config_address_clear(&address);
	return ok ? 0 : admin_error("%s: %s", url, why ? why : "not https://HOST:PORT");
}

/* This machine's name where no other is given. */
static const char *own_name(char out[64])
{
	if (gethostname(out, 63))
		return "";
	out[63] = '\0';
	out[strcspn(out, ".")] = '\0';
	for (char *p = out; *p; p++)
		*p = *p >= 'A' && *p <= 'Z' ? (char)(*p + 'a' - 'A') : *p;
	return out;
}

/* --- the controller -------------------------------------------------------------------------------------------------- */

/* Whoever answers: it is the fingerprint that makes it an authority. */
static int find_authority(struct enrolment *e)
{
	char url[340], why[PKI_WHY];
	snprintf(url, sizeof(url), "https://%s", e->connect_to);
	const struct admin_http http = {.url = url, .unverified = true};
	struct admin_answer answer;
	int result = 1;
	if (admin_http(&http, "GET", "/v1/authorities", NULL, NULL, 0, &answer))
		admin_error("%s", answer.error);
	else if (answer.status != 200)
		admin_error("%s: it answers %ld, and is no controller", e->connect_to, answer.status);
	else if (pki_find_authority(answer.body, token_fingerprint(e->token), &e->authority, why))
		admin_error("%s: %s: it is another domain's controller, or somebody is in between; nothing was sent", e->connect_to, why);
	else if (pki_authority_domain(e->authority, &e->domain, why))
		admin_error("%s: %s", e->connect_to, why);
	else
		result = 0;
	admin_answer_clear(&answer);
	return result;
}

static int ask(struct enrolment *e)
{
	char url[300], why[PKI_WHY];
	snprintf(url, sizeof(url), "https://controller.%s:%s", e->domain, e->port);
	const struct admin_http http = {.url = url, .connect_to = e->connect_to, .ca_text = e->authority};
	struct admin_answer answer;
	if (pki_make_key(&e->key, why) || pki_make_request(e->key, e->wanted, &e->request, why))
		return admin_error("%s", why);
	json_t *body = json_pack("{s:s, s:s, s:s}", "token", e->token, "request", e->request, "node", e->wanted);
	char *text = json_dumps(body, JSON_COMPACT);
	int result = admin_http(&http, "POST", "/v1/enroll", NULL, text, strlen(text), &answer);
	if (result)
		admin_error("%s", answer.error);
	else if ((result = answer.status != 200))
		rest_error(answer.status, answer.body);
	else if (!(e->answer = json_loads(answer.body, 0, NULL)))
		result = admin_error("%s: the answer is not JSON", e->connect_to);
	admin_answer_clear(&answer);
	pki_wipe(text);
	json_decref(body);
	return result;
}

static const char *member(const struct enrolment *e, const char *name)
{
	const char *text = json_string_value(json_object_get(e->answer, name));
	return text ? text : "";
}

/* What came is what was asked for, and will be believed by others. */
static int check(struct enrolment *e)
{
	char why[PKI_WHY], *found = NULL;
	const char *certificate = member(e, "certificate"), *authorities = member(e, "authorities"), *node = member(e, "node");
	const char *fault = pki_name_fault(node);
	if (fault)
		return admin_error("the controller names this node \"%.80s\": %s", node, fault);
	if (strcmp(e->wanted, node))
		return admin_error("the controller names this node %s, not %s", node, e->wanted);
	if (strcmp(member(e, "domain"), e->domain))
		return admin_error("the controller's domain is not its authority's");
	if (!pki_matches(e->key, certificate))
		return admin_error("the certificate is for another key");
	if (pki_check_certificate(certificate, authorities, e->domain, node, why))
		return admin_error("%s", why);
	if (pki_find_authority(authorities, token_fingerprint(e->token), &found, why))
		return admin_error("%s", why);
	free(found);
	return 0;
}

/* --- this machine ---------------------------------------------------------------------------------------------------- */

static int write_all(struct enrolment *e)
{
	const char *controllers[CONTROLLERS_MAX];
	const json_t *list = json_object_get(e->answer, "controllers");
	struct bootstrap *b = &e->b;
	for (size_t i = 0; i < json_array_size(list) && b->n_controllers < CONTROLLERS_MAX; i++)
		if (json_is_string(json_array_get(list, i)))
			controllers[b->n_controllers++] = json_string_value(json_array_get(list, i));
	if (!b->n_controllers)
		controllers[b->n_controllers++] = e->connect_to;
	b->controllers = controllers;
	b->node = member(e, "node");
	b->domain = e->domain;
	b->key = member(e, "public");
	bootstrap_add(b, "authorities.crt", member(e, "authorities"));
	bootstrap_add(b, "node.crt", member(e, "certificate"));
	bootstrap_add(b, "node.key", e->key);
	return bootstrap_write(b);
}

static void tell(const struct admin_call *call, const struct enrolment *e)
{
	char *keys = bootstrap_keys(e->b.state);
	if (call->json) {
		json_t *d = json_pack("{s:s, s:s, s:O*, s:s, s:s, s:I}", "domain", e->domain, "node", member(e, "node"), "controllers",
		                      json_object_get(e->answer, "controllers"), "config", e->b.config, "keys", keys, "expires",
		                      (json_int_t)pki_ends(member(e, "certificate")));
		json_dumpf(d, stdout, JSON_COMPACT);
		puts("");
		json_decref(d);
	} else {
		printf("this machine is node %s of %s\n  configuration  %s\n  keys           %s\nnext:\n"
		       "  systemctl restart hermes, or hermes-admin reload where it runs with this file\n",
		       member(e, "node"), e->domain, e->b.config, keys);
	}
	free(keys);
}

static void enrolment_clear(struct enrolment *e)
{
	pki_wipe(e->key);
	free(e->request);
	free(e->authority);
	free(e->domain);
	json_decref(e->answer);
}

int admin_enroll(const struct admin_call *call)
{
	struct enrolment e = {.b = {.config = BOOTSTRAP_CONFIG, .state = BOOTSTRAP_STATE}};
	const char *fault;
	char host[64];
	const struct admin_option options[] = {
		{"--token", &e.token, NULL},       {"--node", &e.wanted, NULL},     {"--config", &e.b.config, NULL},
		{"--state-dir", &e.b.state, NULL}, {"--force", NULL, &e.b.force},   {NULL, NULL, NULL},
	};
	int left = admin_options(call->argc, call->argv, options);
	if (left < 0)
		return 2;
	if (left != 1 || !e.token) {
		admin_error("usage: hermes-admin enroll https://HOST:PORT --token TOKEN");
		return 2;
	}
	if (!e.wanted)
		e.wanted = own_name(host);
	if ((fault = pki_name_fault(e.wanted)))
		return admin_error("--node %s: %s", e.wanted, fault);
	if (!token_fingerprint(e.token))
		return admin_error("this is no token: `hermes-admin controller token create` gives one, hermes1.ID.SECRET.FINGERPRINT");
	int result = take_url(&e, call->argv[0]);
	if (!result)
		result = bootstrap_check(&e.b);       /* a token is used up by its use */
	if (!result)
		result = find_authority(&e);
	if (!result)
		result = ask(&e);
	if (!result)
		result = check(&e);
	if (!result)
		result = write_all(&e);
	if (!result)
		tell(call, &e);
	enrolment_clear(&e);
	return result;
}

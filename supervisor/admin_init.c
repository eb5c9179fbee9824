/* SPDX-License-Identifier: Apache-2.0 */
/* controller init: the first machine of a domain. Works without hermesd, and without the network. */
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "store/config.h"
#include "supervisor/admin_bootstrap.h"
#include "supervisor/admin_domain.h"
#include "supervisor/admin_options.h"
#include "supervisor/admin_verbs.h"
#include "workers/keeper/keys.h"
#include "workers/keeper/pki.h"

#define FIRST_CERTIFICATE_DAYS 30u    /* keeper renews it like every node's */
#define LIST_MAX 16

struct domain_keys { char *ca_key, *ca, *domain_key, *public; };

static void forget(struct domain_keys *k)
{
	pki_wipe(k->ca_key);
	pki_wipe(k->domain_key);
	free(k->ca);
	free(k->public);
}

static int make(struct domain_keys *k, const char *domain)
{
	char why[PKI_WHY];
	if (pki_make_authority(domain, &k->ca_key, &k->ca, why) || pki_make_domain_key(&k->domain_key, &k->public, why))
		return admin_error("%s", why);
	return 0;
}

/* Of another controller of the domain, or from a backup. */
static int take(struct domain_keys *k, const char *folder, const char *domain)
{
	const struct { const char *name; char **text; } files[] = {
		{"ca.key", &k->ca_key}, {"ca.crt", &k->ca}, {"domain.key", &k->domain_key}, {"domain.pub", &k->public}};
	struct keys keys;
	char why[PKI_WHY], *of = NULL, *signature = NULL;
	if (access(folder, F_OK) || keys_open(&keys, folder))
		return admin_error("%s: cannot be opened", folder);
	int result = 0;
	for (size_t i = 0; i < 4 && !result; i++) {
		int error = keys_read(&keys, files[i].name, files[i].text);
		result = error ? admin_error("%s/%s: %s", folder, files[i].name, strerror(-error)) : 0;
	}
	keys_close(&keys);
	if (result)
		return result;
	k->public[strcspn(k->public, "\r\n")] = '\0';
	if (pki_authority_domain(k->ca, &of, why))
		result = admin_error("%s/ca.crt: %s", folder, why);
	else if (strcmp(of, domain))
		result = admin_error("%s: these are the keys of %s", folder, of);
	else if (!pki_matches(k->ca_key, k->ca))
		result = admin_error("%s: ca.key does not fit ca.crt", folder);
	else if (pki_sign(k->domain_key, "x", 1, &signature, why) || !pki_signed(k->public, "x", 1, signature))
		result = admin_error("%s: domain.key does not fit domain.pub", folder);
	free(signature);
	free(of);
	return result;
}

static int split(char *text, const char **v, size_t *n)
{
	for (char *at = text ? strtok(text, ",") : NULL; at; at = strtok(NULL, ",")) {
		if (*n == LIST_MAX)
			return admin_error("more than %d addresses", LIST_MAX);
		v[(*n)++] = at;
	}
	return 0;
}

/* Where it listens: at the very address where nodes reach it, or, where they know it by a name, at every one. */
static int listen_address(const char *address, char *out, size_t size)
{
	struct config_address a = {0};
	struct in6_addr in6;
	struct in_addr in;
	const char *why = "not HOST:PORT";
	if (config_address_parse(address, true, NULL, &a, &why) || a.unix_path || !a.host || !*a.host) {
		config_address_clear(&a);
		return admin_error("--address %s: %s", address, why ? why : "not HOST:PORT");
	}
	bool literal = inet_pton(AF_INET, a.host, &in) == 1 || inet_pton(AF_INET6, a.host, &in6) == 1;
	if (literal)
		snprintf(out, size, "%s", address);
	else
		snprintf(out, size, ":%u", a.port);
	config_address_clear(&a);
	return 0;
}

static int make_node(struct bootstrap *b, const struct domain_keys *k)
{
	const struct pki_subject subject = {.domain = b->domain, .node = b->node, .controller = true,
	                                    .seconds = (uint64_t)FIRST_CERTIFICATE_DAYS * PKI_DAY};
	char *key = NULL, *request = NULL, *certificate = NULL, why[PKI_WHY], serial[PKI_SERIAL_TEXT];
	int result = pki_make_key(&key, why) || pki_make_request(key, b->node, &request, why) ||
	             pki_certify(k->ca_key, k->ca, &subject, request, &certificate, serial, why);
	if (result) {
		admin_error("%s", why);
	} else {
		bootstrap_add(b, "ca.key", k->ca_key);
		bootstrap_add(b, "ca.crt", k->ca);
		bootstrap_add(b, "domain.key", k->domain_key);
		bootstrap_add(b, "domain.pub", k->public);
		bootstrap_add(b, "authorities.crt", k->ca);
		bootstrap_add(b, "node.crt", certificate);
		bootstrap_add(b, "node.key", key);
		result = bootstrap_write(b);
	}
	free(request);
	free(certificate);
	pki_wipe(key);
	return result ? 1 : 0;
}

static void tell(const struct admin_call *call, const struct bootstrap *b, const struct domain_keys *k, bool first)
{
	char fingerprint[PKI_FINGERPRINT_TEXT] = "", why[PKI_WHY], *keys = bootstrap_keys(b->state);
	pki_fingerprint(k->ca, fingerprint, why);
	if (call->json) {
		json_t *d = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "domain", b->domain, "node", b->node, "controller",
		                      b->controllers[0], "config", b->config, "keys", keys, "public", b->key, "fingerprint", fingerprint);
		json_dumpf(d, stdout, JSON_COMPACT);
		puts("");
		json_decref(d);
	} else {
		printf("%s is %s controller of %s\n"
		       "  configuration  %s\n  keys           %s (back them up: whoever has ca.key and domain.key rules the domain)\n"
		       "  authority      %s\nnext:\n"
		       "  systemctl restart hermes, or hermes-admin reload where it runs with this file\n"
		       "  hermes-admin controller token create --node NAME, for each node; see hermes-controller(7)\n",
		       b->node, first ? "the first" : "a", b->domain, b->config, keys, fingerprint);
	}
	free(keys);
}

int admin_controller_init(const struct admin_call *call)
{
	struct bootstrap b = {.config = BOOTSTRAP_CONFIG, .state = BOOTSTRAP_STATE};
	const char *address = NULL, *from = NULL, *etcd = NULL, *also = NULL, *fault, *controllers[LIST_MAX], *endpoints[LIST_MAX];
	const struct admin_option options[] = {
		{"--domain", &b.domain, NULL}, {"--name", &b.node, NULL},        {"--address", &address, NULL},
		{"--config", &b.config, NULL}, {"--state-dir", &b.state, NULL},  {"--keys-from", &from, NULL},
		{"--etcd", &etcd, NULL},       {"--also", &also, NULL},          {"--force", NULL, &b.force},
		{NULL, NULL, NULL},
	};
	struct domain_keys k = {0};
	char listen[300];
	int left = admin_options(call->argc, call->argv, options);
	if (left < 0)
		return 2;
	if (left || !b.domain || !b.node || !address) {
		admin_error("usage: hermes-admin controller init --domain D --name N --address HOST:PORT");
		return 2;
	}
	if ((fault = pki_domain_fault(b.domain)) || (fault = pki_name_fault(b.node)))
		return admin_error("%s", fault);
	if (listen_address(address, listen, sizeof(listen)))
		return 1;
	controllers[b.n_controllers++] = address;
	if (split((char *)also, controllers, &b.n_controllers) || split((char *)etcd, endpoints, &b.n_etcd))
		return 1;
	b.listen = listen;
	b.controllers = controllers;
	b.etcd = endpoints;
	int result = bootstrap_check(&b);
	if (!result)
		result = from ? take(&k, from, b.domain) : make(&k, b.domain);
	b.key = k.public;
	if (!result)
		result = make_node(&b, &k);
	if (!result)
		tell(call, &b, &k, !from);
	forget(&k);
	return result;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/tunnel/probe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "workers/tunnel/fields.h"
#include "workers/tunnel/flow_internal.h"
#include "workers/tunnel/masque.h"
#include "workers/tunnel/sf.h"

#define FORWARDS_MAX 255u         /* more is as good as endless */
#define TEXT_MAX 4096

struct probe {
	unsigned left;                /* Max-Forwards */
	bool has_method;
	char method[32], protocol[32], scheme[8], authority[300], path[2048];
};

void probe_free(struct probe *probe)
{
	free(probe);
}

/* --- the field ------------------------------------------------------------------------------------------------------------- */

static bool member(void *arg, const char *key, size_t n, const struct sf_item *item)
{
	struct probe *p = arg;
	if (sf_key_is(key, n, "method"))
		return p->has_method = sf_string(item, p->method, sizeof(p->method)) && p->method[0];
	if (sf_key_is(key, n, "protocol"))
		return sf_string(item, p->protocol, sizeof(p->protocol));
	if (sf_key_is(key, n, "scheme"))
		return sf_string(item, p->scheme, sizeof(p->scheme));
	if (sf_key_is(key, n, "authority"))
		return sf_string(item, p->authority, sizeof(p->authority));
	return !sf_key_is(key, n, "path") || sf_string(item, p->path, sizeof(p->path));
}

static struct probe *probe_read(const struct head *request, unsigned left)
{
	struct probe *probe = calloc(1, sizeof(*probe));
	if (!probe)
		abort();
	probe->left = left;
	if (sf_dictionary(request, PROBE_HEADER, member, probe) && probe->has_method)
		return probe;
	free(probe);
	return NULL;
}

/* The head becomes the one that is asked about. */
static void disguise(struct head *head, const struct probe *p)
{
	head_remove(head, PROBE_HEADER);
	head_remove(head, "max-forwards");
	head->method = head_string(head, p->method, -1);
	head->protocol = p->protocol[0] ? head_string(head, p->protocol, -1) : NULL;
	head->scheme = p->scheme[0] ? head_string(head, p->scheme, -1) : NULL;
	head->authority = head_string(head, p->authority, -1);
	head->path = p->path[0] ? head_string(head, p->path, -1) : NULL;
}

void probe_write(struct head *head, unsigned max_forwards)
{
	char text[TEXT_MAX] = "", digits[16];
	struct sf_writer w = {text, sizeof(text), 0};
	sf_put_string(&w, "method", head->method);
	sf_put_string(&w, "protocol", head->protocol);
	sf_put_string(&w, "scheme", head->scheme);
	sf_put_string(&w, "authority", head->authority);
	sf_put_string(&w, "path", head->path);
	snprintf(digits, sizeof(digits), "%u", max_forwards);
	head_set(head, PROBE_HEADER, text);
	head_set(head, "max-forwards", digits);
	/* The target may be nothing that an authority can be: it travels in the field. */
	head->method = "OPTIONS";
	head->protocol = NULL;
	head->scheme = "https";
	head->authority = "localhost";
	head->path = "*";
}

/* --- hops ------------------------------------------------------------------------------------------------------------------ */

static const char *carry_name(enum config_carry carry)
{
	static const char *const names[] = {[CONFIG_H1] = "h1", [CONFIG_H2] = "h2", [CONFIG_H3] = "h3", [CONFIG_CARRY_TCP] = "tcp",
	                                    [CONFIG_CARRY_UDP] = "udp", [CONFIG_CARRY_IP] = "ip"};
	return names[carry];
}

/* Whether the way leads to another proxy. */
static bool leads_on(const struct config_cluster *cluster)
{
	return !cluster->target && (cluster->carry == CONFIG_H1 || cluster->carry == CONFIG_H2);
}

/* All that the cluster has: which one it will be is seen when it is taken. */
static void put_endpoints(struct sf_writer *w, const struct config_cluster *cluster, const char *target)
{
	char text[480];
	size_t n = 0;
	if (cluster->target || cluster->carry == CONFIG_CARRY_IP)
		return sf_put_string(w, "endpoint", cluster->target ? target : cluster->device);
	for (size_t i = 0; i < cluster->n_endpoints; i++) {
		int wrote = snprintf(text + n, sizeof(text) - n, "%s%s", n ? " " : "", cluster->endpoints[i].address.text);
		if (wrote < 0 || n + (size_t)wrote >= sizeof(text)) {
			text[n] = '\0';
			break;
		}
		n += (size_t)wrote;
	}
	sf_put_string(w, "endpoint", n ? text : NULL);
}

/* What the real thing would hear there (attempt.c). */
static const char *cannot_carry(const struct config_cluster *cluster, const struct head *head)
{
	bool datagrams = masque_is(head);
	switch (cluster->carry) {
	case CONFIG_CARRY_UDP: return masque_is_udp(head) ? NULL : "the cluster carries UDP only";
	case CONFIG_CARRY_IP: return datagrams ? NULL : "the cluster carries IP packets only";
	case CONFIG_CARRY_TCP: return datagrams ? "the cluster carries neither UDP nor IP" : NULL;
	default: return datagrams && cluster->target ? "UDP and IP tunnels go on over HTTP to fixed endpoints only" : NULL;
	}
}

static void put_refusal(struct sf_writer *w, unsigned status, const char *error, const char *detail)
{
	sf_put_integer(w, "status", status);
	sf_put_string(w, "error", error);
	sf_put_string(w, "detail", detail);
}

static struct head *hop_head(const struct flow *flow, const struct config_cluster *cluster)
{
	char text[TEXT_MAX] = "";
	struct sf_writer w = {text, sizeof(text), 0};
	const struct config *config = flow->generation->config;
	const struct decision *d = flow->decision;
	const char *cannot = cluster ? cannot_carry(cluster, flow->request) : NULL;
	struct head *head = head_new();
	sf_put_string(&w, "node", config->node_name);
	sf_put_string(&w, "domain", config->domain && config->domain[0] ? config->domain : NULL);
	sf_put_string(&w, "route", d->route);
	if (cluster) {
		sf_put_string(&w, "cluster", cluster->name);
		sf_put_string(&w, "carry", carry_name(cluster->carry));
		put_endpoints(&w, cluster, flow->request->authority);
	}
	if (cannot)
		put_refusal(&w, fields_error_status(FLOW_NO_ENDPOINT), fields_error_token(FLOW_NO_ENDPOINT), cannot);
	else if (!cluster)
		put_refusal(&w, d->status ? d->status : 503, d->error, d->detail);
	if (!cluster || cannot || !leads_on(cluster))
		sf_put_true(&w, "end");
	head->status = 200;
	head_add(head, HOP_HEADER, text);
	head_add(head, "content-length", "0");
	return head;
}

static bool hop_member(void *arg, const char *key, size_t n, const struct sf_item *item)
{
	struct hop *hop = arg;
	const struct { const char *key; char *text; size_t size; } texts[] = {
		{"node", hop->node, sizeof(hop->node)}, {"domain", hop->domain, sizeof(hop->domain)},
		{"route", hop->route, sizeof(hop->route)}, {"cluster", hop->cluster, sizeof(hop->cluster)},
		{"carry", hop->carry, sizeof(hop->carry)}, {"endpoint", hop->endpoint, sizeof(hop->endpoint)},
		{"error", hop->error, sizeof(hop->error)}, {"detail", hop->detail, sizeof(hop->detail)},
	};
	for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++)
		if (sf_key_is(key, n, texts[i].key))
			return sf_string(item, texts[i].text, texts[i].size);
	if (sf_key_is(key, n, "status")) {
		hop->status = (unsigned)item->number;
		return item->kind == SF_INTEGER && item->number < 1000;
	}
	if (sf_key_is(key, n, "end")) {
		hop->end = item->number != 0;
		return item->kind == SF_BOOLEAN;
	}
	return true;
}

bool hop_read(const struct head *response, struct hop *hop)
{
	memset(hop, 0, sizeof(*hop));
	return sf_dictionary(response, HOP_HEADER, hop_member, hop) && hop->node[0];
}

/* --- the flow -------------------------------------------------------------------------------------------------------------- */

/* Our own answer, without a body; takes over the head. The flow has no question open and no way out. */
static void answer(struct flow *flow, struct head *head)
{
	flow->status = head->status;
	if (head->status < 300)
		stats_add(flow->origin->listener->stats, STATS_LISTENER_STATUS_2XX, 1);
	else
		stats_add(flow->origin->listener->stats, STATS_LISTENER_STATUS_4XX, 1);
	flow_set_state(flow, FLOW_STATE_STREAMING);
	flow->head_sent = true;
	flow->up.ended = flow->up.finished = flow->down.ended = flow->down.finished = true;
	flow->in->ops->head(flow->in, head, true);
	head_free(head);
	flow_end(flow, FLOW_NONE, FLOW_NONE);
}

/* RFC 9110 7.6.2, 9.3.7: as the final recipient, and of nothing that only we know. */
static void answer_plainly(struct flow *flow, bool options)
{
	struct head *head = head_new();
	head->status = options ? 200 : 405;
	if (!options)
		head_add(head, "allow", "GET, HEAD, POST, PUT, DELETE, CONNECT, OPTIONS, PATCH");
	head_add(head, "content-length", "0");
	answer(flow, head);
}

static bool forwards(const char *value, unsigned *left)
{
	size_t n = value ? strspn(value, "0123456789") : 0;
	if (n == 0 || value[n])
		return false;
	unsigned long number = n < 10 ? strtoul(value, NULL, 10) : FORWARDS_MAX;
	*left = number < FORWARDS_MAX ? (unsigned)number : FORWARDS_MAX;
	return true;
}

bool probe_begin(struct flow *flow)
{
	struct head *request = flow->request;
	bool options = strcmp(request->method, "OPTIONS") == 0, trace = strcmp(request->method, "TRACE") == 0;
	char digits[16];
	unsigned left;
	if (!(options || trace) || !forwards(head_get(request, "max-forwards"), &left))
		return false;
	if (options && flow->origin->listener->config->accept == CONFIG_OVERLAY && (flow->probe = probe_read(request, left))) {
		disguise(request, flow->probe);
		return false;
	}
	if (left == 0) {
		answer_plainly(flow, options);
		return true;
	}
	snprintf(digits, sizeof(digits), "%u", left - 1);
	head_set(request, "max-forwards", digits);
	return false;
}

struct decision *(*probe_named)(const struct leg *leg);

bool probe_decided(struct flow *flow)
{
	const struct config_cluster *cluster = NULL;
	struct decision *named = flow->in && probe_named ? probe_named(flow->in) : NULL;
	if (named) {
		decision_unref(flow->decision);
		flow->decision = named;
	}
	const struct decision *d = flow->decision;
	if (!d)
		return false;
	if (!d->status)
		cluster = config_cluster(flow->generation->config, d->cluster);
	if (cluster && leads_on(cluster) && flow->probe->left > 0 && !cannot_carry(cluster, flow->request)) {
		probe_write(flow->request, flow->probe->left - 1);
		return false;
	}
	struct head *head = hop_head(flow, cluster);
	decision_unref(flow->decision);         /* the flow never went that way: nothing is counted there */
	flow->decision = NULL;
	answer(flow, head);
	return true;
}

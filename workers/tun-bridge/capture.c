/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/tun-bridge/capture.h"
#include "ipc/net.h"
#include "store/config.h"
#include "workers/tun-bridge/plan.h"

#include <arpa/inet.h>
#include <string.h>

/* Which families a listener's socket takes, and the address that it is bound to in TPROXY's spelling ("": any). */
struct way {
	int family;
	char to[INET6_ADDRSTRLEN + 2];
};

static size_t ways(const struct config_listener *l, struct way out[2])
{
	const char *host = l->address.host ? l->address.host : "";
	uint8_t binary[16];
	if (strcmp(host, "localhost") == 0)
		host = "127.0.0.1";
	bool v4 = inet_pton(AF_INET, host, binary) == 1, v6 = !v4 && inet_pton(AF_INET6, host, binary) == 1;
	bool any = memcmp(binary, (const uint8_t[16]){0}, v4 ? 4 : 16) == 0;
	if (!v4 && !v6) {
		out[0] = (struct way){.family = AF_INET};
		out[1] = (struct way){.family = AF_INET6};
		return 2;
	}
	out[0] = (struct way){.family = v4 ? AF_INET : AF_INET6};
	if (!any)
		snprintf(out[0].to, sizeof(out[0].to), v4 ? "%s" : "[%s]", host);
	return 1;
}

/* Whether another prefix of the list covers it: nftables refuses sets whose intervals overlap. */
static bool covered(const struct config_prefixes *prefixes, size_t i)
{
	const struct config_prefix *p = &prefixes->v[i];
	for (size_t k = 0; k < prefixes->n; k++) {
		const struct config_prefix *other = &prefixes->v[k];
		bool wider = other->bits < p->bits || (other->bits == p->bits && k < i);
		if (wider && config_prefix_contains(other, &p->address))
			return true;
	}
	return false;
}

/* "ip daddr { a/b, c/d } ". False: the list has prefixes, but none of this family. */
static bool put_prefixes(const struct config_prefixes *prefixes, int family, const char *how, FILE *out)
{
	bool first = true;
	for (size_t i = 0; i < prefixes->n; i++) {
		struct net_item item = {0};
		char text[PLAN_TEXT];
		plan_prefix(&prefixes->v[i], &item);
		if (item.family != family || covered(prefixes, i))
			continue;
		if (first)
			fprintf(out, "%s daddr %s{ ", family == AF_INET ? "ip" : "ip6", how);
		fprintf(out, "%s%s", first ? "" : ", ", plan_text(&item, text));
		first = false;
	}
	if (!first)
		fputs(" } ", out);
	return !first || !prefixes->n;
}

static bool has_family(const struct config_prefixes *prefixes, int family)
{
	for (size_t i = 0; i < prefixes->n; i++) {
		struct net_item item = {0};
		plan_prefix(&prefixes->v[i], &item);
		if (item.family == family)
			return true;
	}
	return !prefixes->n;
}

static void put_match(const struct config_capture *c, int family, bool udp, FILE *out)
{
	fprintf(out, "meta nfproto %d ", family);
	put_prefixes(&c->destinations, family, "", out);
	put_prefixes(&c->exclude, family, "!= ", out);
	fprintf(out, "meta l4proto %d ", udp ? IPPROTO_UDP : IPPROTO_TCP);
	if (c->port_low && c->port_low == c->port_high)
		fprintf(out, "%s dport %u ", udp ? "udp" : "tcp", c->port_low);
	else if (c->port_low)
		fprintf(out, "%s dport %u-%u ", udp ? "udp" : "tcp", c->port_low, c->port_high);
}

/* Each listener's rules; local: those that mark what begins here, else those that hand over. */
static void put_rules(const struct plan *plan, const struct config *config, bool local, FILE *out)
{
	struct way way[2];
	for (size_t i = 0; i < config->n_listeners; i++) {
		const struct config_listener *l = &config->listeners[i];
		const struct config_capture *c = &l->capture;
		if (l->accept != CONFIG_TRANSPARENT || (local && !c->local))
			continue;
		for (size_t w = 0, n = ways(l, way); w < n; w++)
			for (int udp = 0; udp < 2; udp++) {
				if (!(udp ? c->udp : c->tcp) || !has_family(&c->destinations, way[w].family))
					continue;
				put_match(c, way[w].family, udp, out);
				if (!local)
					fprintf(out, "tproxy %s to %s:%u ", way[w].family == AF_INET ? "ip" : "ip6", way[w].to, l->address.port);
				fprintf(out, "meta mark set %u accept\n", plan_mark(plan));
			}
	}
}

static bool local_wanted(const struct config *config)
{
	for (size_t i = 0; i < config->n_listeners; i++)
		if (config->listeners[i].accept == CONFIG_TRANSPARENT && config->listeners[i].capture.local)
			return true;
	return false;
}

/* What answers somebody is no flow's beginning; and what is for this machine itself (loopback, and with it the listener's own
 * port) is left alone. */
#define LEAVE_ALONE "ct direction reply return\nfib daddr type { local, broadcast, anycast, multicast } return\n"

void capture_chains(const struct plan *plan, const struct config *config, FILE *out)
{
	if (!plan_captures(config))
		return;
	fputs("chain capture {\ntype filter hook prerouting priority -150; policy accept;\n" LEAVE_ALONE, out);
	put_rules(plan, config, false, out);
	fputs("}\n", out);
	if (!local_wanted(config))
		return;
	/* a changed mark has the packet routed again: to lo, where it meets the chain above */
	fprintf(out, "chain local {\ntype route hook output priority -150; policy accept;\nmeta skuid %u return\nmeta mark %u return\n",
	        plan->uid, NET_MARK_SELF);
	fputs(LEAVE_ALONE, out);
	put_rules(plan, config, true, out);
	fputs("}\n", out);
}

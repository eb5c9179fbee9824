/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/tun-bridge/nat.h"
#include "store/config.h"
#include "workers/tun-bridge/plan.h"

#include <sys/socket.h>

static bool wants(const struct config_cluster *c)
{
	return c->carry == CONFIG_CARRY_IP && c->nat && c->device && c->pool.n;
}

bool nat_wanted(const struct config *config, int family)
{
	for (size_t i = 0; config && i < config->n_clusters; i++)
		for (size_t k = 0; wants(&config->clusters[i]) && k < config->clusters[i].pool.n; k++) {
			struct net_item item = {0};
			plan_prefix(&config->clusters[i].pool.v[k], &item);
			if (item.family == family)
				return true;
		}
	return false;
}

void nat_chains(const struct config *config, FILE *out)
{
	if (!nat_wanted(config, AF_INET) && !nat_wanted(config, AF_INET6))
		return;
	fputs("chain nat {\ntype nat hook postrouting priority 100; policy accept;\n", out);
	for (size_t i = 0; i < config->n_clusters; i++) {
		const struct config_cluster *c = &config->clusters[i];
		for (size_t k = 0; wants(c) && k < c->pool.n; k++) {
			struct net_item item = {0};
			char text[PLAN_TEXT];
			plan_prefix(&c->pool.v[k], &item);
			fprintf(out, "oifname != \"%s\" %s saddr %s masquerade\n", c->device, item.family == AF_INET ? "ip" : "ip6",
			        plan_text(&item, text));
		}
	}
	fputs("}\n", out);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/router/health.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "ipc/endpoints.h"
#include "ipc/json.h"
#include "store/config.h"

#define KEY_MAX 1024
#define HEALTH_TUNNELS 1024       /* numbers of tunnel workers; one that is replaced and its successor have two */

/* Only what is not healthy and in service has an item. */
struct item {
	UT_hash_handle hh;
	uint64_t down[HEALTH_TUNNELS / 64];   /* bit set of tunnel workers */
	bool drained;
	char reason[128];      /* the last that was given for going down */
	char key[];            /* cluster NUL endpoint NUL */
};

struct health {
	struct item *items;
};

struct health *health_new(void)
{
	return calloc(1, sizeof(struct health));
}

static void item_free(struct health *health, struct item *item)
{
	HASH_DEL(health->items, item);
	free(item);
}

void health_free(struct health *health)
{
	struct item *item, *next;

	if (!health)
		return;
	HASH_ITER(hh, health->items, item, next)
		item_free(health, item);
	free(health);
}

/* --- items ---------------------------------------------------------------------------------------------------------- */

static size_t make_key(char *key, const char *cluster, const char *endpoint)
{
	int n = snprintf(key, KEY_MAX, "%s%c%s", cluster, 0, endpoint);

	return n > 0 && n < KEY_MAX ? (size_t)n + 1 : 0;
}

static struct item *find(const struct health *health, const char *cluster, const char *endpoint)
{
	char key[KEY_MAX];
	size_t length = make_key(key, cluster, endpoint);
	struct item *item = NULL;

	if (length)
		HASH_FIND(hh, health->items, key, length, item);
	return item;
}

static struct item *make(struct health *health, const char *cluster, const char *endpoint)
{
	struct item *item = find(health, cluster, endpoint);
	char key[KEY_MAX];
	size_t length = make_key(key, cluster, endpoint);

	if (item || !length)
		return item;
	item = calloc(1, sizeof(*item) + length);
	if (!item)
		return NULL;
	memcpy(item->key, key, length);
	HASH_ADD_KEYPTR(hh, health->items, item->key, length, item);
	if (item->hh.tbl)
		return item;
	free(item);
	return NULL;
}

static bool is_down(const struct item *item)
{
	for (size_t i = 0; item && i < HEALTH_TUNNELS / 64; i++)
		if (item->down[i])
			return true;
	return false;
}

static unsigned count_down(const struct item *item)
{
	unsigned n = 0;

	for (size_t i = 0; item && i < HEALTH_TUNNELS / 64; i++)
		n += (unsigned)__builtin_popcountll(item->down[i]);
	return n;
}

static void set_down(struct item *item, unsigned tunnel, bool down)
{
	uint64_t bit = UINT64_C(1) << (tunnel % 64), *word = &item->down[tunnel % HEALTH_TUNNELS / 64];

	*word = down ? *word | bit : *word & ~bit;
}

static void drop_if_clean(struct health *health, struct item *item)
{
	if (!is_down(item) && !item->drained)
		item_free(health, item);
}

int health_report(struct health *health, const char *cluster, const char *endpoint, unsigned tunnel, bool up,
                  const char *reason)
{
	struct item *item = up ? find(health, cluster, endpoint) : make(health, cluster, endpoint);

	if (!item)
		return up ? 0 : -ENOMEM;
	if (up) {
		set_down(item, tunnel, false);
		drop_if_clean(health, item);
		return 0;
	}
	set_down(item, tunnel, true);
	snprintf(item->reason, sizeof(item->reason), "%s", reason ? reason : "");
	return 0;
}

int health_drain(struct health *health, const char *cluster, const char *endpoint, bool drain)
{
	struct item *item = drain ? make(health, cluster, endpoint) : find(health, cluster, endpoint);

	if (!item)
		return drain ? -ENOMEM : 0;
	item->drained = drain;
	drop_if_clean(health, item);
	return 0;
}

void health_forget_tunnel(struct health *health, unsigned tunnel)
{
	struct item *item, *next;

	HASH_ITER(hh, health->items, item, next) {
		set_down(item, tunnel, false);
		drop_if_clean(health, item);
	}
}

void health_sweep(struct health *health, const struct config *const *configs, size_t n)
{
	struct item *item, *next;

	HASH_ITER(hh, health->items, item, next) {
		const char *endpoint = item->key + strlen(item->key) + 1;
		bool known = false;
		for (size_t i = 0; i < n; i++)
			known |= configs[i] && health_known(configs[i], item->key, endpoint);
		if (!known)
			memset(item->down, 0, sizeof(item->down));
		drop_if_clean(health, item);
	}
}

/* --- tables --------------------------------------------------------------------------------------------------------- */

/* As tunnel workers look for their own bit: by index & 31, which a worker and its successor share. */
static uint32_t folded(const struct item *item)
{
	uint64_t all = 0;

	for (size_t i = 0; item && i < HEALTH_TUNNELS / 64; i++)
		all |= item->down[i];
	return (uint32_t)(all | all >> 32);
}

static void write_slot(struct endpoint_table *table, size_t cluster, size_t endpoint, const struct item *item)
{
	struct endpoint_slot *slot = endpoint_table_slot(table, (unsigned)cluster, (unsigned)endpoint);

	if (!slot)
		return;
	/* tunnel workers read while we write; each word stands for itself */
	__atomic_store_n(&slot->down, folded(item), __ATOMIC_RELAXED);
	__atomic_store_n(&slot->drained, item && item->drained, __ATOMIC_RELAXED);
}

void health_apply(const struct health *health, const struct config *config, struct endpoint_table *table)
{
	for (size_t i = 0; i < config->n_clusters; i++) {
		const struct config_cluster *c = &config->clusters[i];
		for (size_t k = 0; k < c->n_endpoints; k++)
			write_slot(table, i, k, find(health, c->name, c->endpoints[k].address.text));
	}
}

void health_apply_one(const struct health *health, const struct config *config, struct endpoint_table *table,
                      const char *cluster, const char *endpoint)
{
	const struct config_cluster *c = config_cluster(config, cluster);
	const struct item *item = find(health, cluster, endpoint);

	for (size_t k = 0; c && k < c->n_endpoints; k++)
		if (!strcmp(c->endpoints[k].address.text, endpoint))
			write_slot(table, (size_t)(c - config->clusters), k, item);
}

bool health_known(const struct config *config, const char *cluster, const char *endpoint)
{
	const struct config_cluster *c = config_cluster(config, cluster);

	if (!c || !endpoint)
		return c != NULL;
	for (size_t k = 0; k < c->n_endpoints; k++)
		if (!strcmp(c->endpoints[k].address.text, endpoint))
			return true;
	return false;
}

/* --- listing -------------------------------------------------------------------------------------------------------- */

static const char *carry_name(enum config_carry carry)
{
	static const char *const names[] = { [CONFIG_H1] = "h1", [CONFIG_H2] = "h2", [CONFIG_H3] = "h3",
		[CONFIG_CARRY_TCP] = "tcp", [CONFIG_CARRY_UDP] = "udp", [CONFIG_CARRY_IP] = "ip" };

	return carry < sizeof(names) / sizeof(*names) ? names[carry] : "?";
}

/* A cluster whose requests name the address themselves has one row, "target", of which nothing is known. */
static void list_row(const struct config_cluster *c, const char *endpoint, uint32_t weight, const struct item *item,
                     bool checked, struct json *out)
{
	json_begin_object(out, NULL);
	json_str(out, "cluster", c->name);
	json_str(out, "carry", carry_name(c->carry));
	json_str(out, "endpoint", endpoint);
	json_uint(out, "weight", weight);
	json_str(out, "health", !checked ? "unknown" : is_down(item) ? "down" : "up");
	json_bool(out, "drained", item && item->drained);
	json_uint(out, "down_at", count_down(item));
	json_str(out, "reason", is_down(item) && item->reason[0] ? item->reason : NULL);
	json_end(out);
}

void health_list(const struct health *health, const struct config *config, const char *cluster, struct json *out)
{
	for (size_t i = 0; i < config->n_clusters; i++) {
		const struct config_cluster *c = &config->clusters[i];
		if (cluster && strcmp(c->name, cluster))
			continue;
		if (!c->n_endpoints)
			list_row(c, c->target ? "target" : "none", 0, NULL, false, out);
		for (size_t k = 0; k < c->n_endpoints; k++) {
			const char *text = c->endpoints[k].address.text;
			list_row(c, text, c->endpoints[k].weight, find(health, c->name, text), true, out);
		}
	}
}

/* SPDX-License-Identifier: Apache-2.0 */
/* What beside the document decides, and who is concerned by an objective. */
#include "store/digest.h"
#include "workers/controller/compose.h"
#include "workers/controller/kv.h"

#include <stdio.h>
#include <string.h>

/* --- inputs ------------------------------------------------------------------------------------------------------- */

struct reading { json_t *into; size_t prefix; };

static bool read_override(void *arg, const struct kv_value *value)
{
	struct reading *r = arg;

	json_object_set(r->into, value->key + r->prefix, value->json);
	return true;
}

static bool read_choice(void *arg, const struct kv_value *value)
{
	struct reading *r = arg;
	json_t *choice = json_object_get(value->json, "choice");

	if (json_is_string(choice))
		json_object_set(r->into, value->key + r->prefix, choice);
	return true;
}

bool compose_revoked(const struct kv_value *node, char *entry, size_t size)
{
	const json_t *begins = node->revision ? json_object_get(node->json, "begins") : NULL;
	const char *name = node->key + strlen("node/");

	if (node->revision && json_is_true(json_object_get(node->json, "revoked")))
		return snprintf(entry, size, "%s", name) < (int)size;
	return json_is_integer(begins) && snprintf(entry, size, "%s@%lld", name, (long long)json_integer_value(begins)) < (int)size;
}

static bool read_revoked(void *arg, const struct kv_value *value)
{
	struct reading *r = arg;
	char entry[96];

	if (compose_revoked(value, entry, sizeof(entry)))
		json_object_set_new(r->into, entry, json_true());
	return true;
}

void compose_inputs_read(struct kv *kv, struct compose_inputs *out)
{
	struct reading overrides = {json_object(), strlen("override/")}, steer = {json_object(), strlen("steer/")};
	struct reading revoked = {json_object(), strlen("node/")};

	kv_each(kv, "override/", read_override, &overrides);
	kv_each(kv, "steer/", read_choice, &steer);
	kv_each(kv, "node/", read_revoked, &revoked);
	*out = (struct compose_inputs){.overrides = overrides.into, .steer = steer.into, .revoked = revoked.into};
}

void compose_inputs_free(struct compose_inputs *inputs)
{
	json_decref(inputs->overrides);
	json_decref(inputs->steer);
	json_decref(inputs->revoked);
	*inputs = (struct compose_inputs){0};
}

/* --- objectives --------------------------------------------------------------------------------------------------- */

const char *compose_choice(const struct domain_objective *o, const struct compose_inputs *inputs)
{
	const char *choice = json_string_value(json_object_get(inputs->steer, o->name));

	for (size_t i = 0; choice && i < o->n_ways; i++)
		if (!strcmp(o->ways[i].cluster, choice))
			return o->ways[i].cluster;
	return o->ways[0].cluster;
}

void compose_probe_name(const struct domain_objective *o, const struct domain_way *way, char out[64])
{
	uint8_t digest[32];
	char text[160], hex[65];
	int n = snprintf(text, sizeof(text), "objective.%s.%s", o->name, way->cluster);

	if (n < 64) {
		memcpy(out, text, (size_t)n + 1);
		return;
	}
	digest_sha256(text, strlen(text), digest);
	digest_hex(digest, hex);
	snprintf(out, 64, "objective.%.40s", hex);
}

static bool listed(const struct config_strs *list, const char *name)
{
	for (size_t i = 0; i < list->n; i++)
		if (!strcmp(list->v[i], name))
			return true;
	return false;
}

bool compose_enters(const struct document *d, const struct domain_user *user, const char *node)
{
	ssize_t i = document_node(d, node);

	for (size_t g = 0; i >= 0 && g < user->groups.n; g++)
		if (listed(&d->nodes[i].groups, user->groups.v[g]))
			return true;
	return i >= 0 && listed(&user->nodes, node);
}

bool compose_measures(const struct document *d, const struct domain_objective *o, const char *node)
{
	ssize_t user = document_user(d, o->user);

	return o->nodes.n ? listed(&o->nodes, node) : user >= 0 && compose_enters(d, &d->users[user], node);
}

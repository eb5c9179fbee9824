/* SPDX-License-Identifier: Apache-2.0 */
/* The keys of a domain's document, walked by the configuration's own parser. A field of form W_NONE is a fragment that is only
 * understood where it has become part of a node's configuration. Object names differ from the configuration's, whose rules go by them. */
#include "workers/controller/document.h"

#define AT(type, member) .offset = offsetof(struct type, member)
#define LIST(type, member, of) .storage = S_LIST, AT(type, member), .count_offset = offsetof(struct type, n_##member), .object = &of
#define OBJECT(id, label, type, ...)                                                                                  \
	const struct config_object id = {.name = label, .size = sizeof(struct type), .fields = id##_fields,             \
	                                 .n_fields = sizeof(id##_fields) / sizeof(*id##_fields), ##__VA_ARGS__}
#define FIELDS(id) static const struct config_field id##_fields[]
#define NAMES(...) .names = (const char *const[]){__VA_ARGS__, NULL}
#define SECOND 1000ull
#define DAY (86400 * SECOND)

FIELDS(group) = {
	{"name", S_STR, W_NAME, AT(domain_group, name), .flags = F_REQUIRED, .doc = "Unique among the groups."},
	{"config", S_NONE, W_NONE, .doc = "What nodes of the group have: a fragment of a node's configuration."},
};
static OBJECT(group, "group of nodes", domain_group);

FIELDS(node) = {
	{"name", S_STR, W_NAME, AT(domain_node, name), .flags = F_REQUIRED, .doc = "The node's name in the domain."},
	{"address", S_ADDRESS, W_TARGET, AT(domain_node, address),
	 .doc = "HOST:PORT where other nodes reach its overlay listener."},
	{"groups", S_STRS, W_STRINGS, AT(domain_node, groups), .doc = "Groups that it is in; a later one prevails over an earlier."},
	{"labels", S_NONE, W_NONE, .doc = "A map of words for people and programs; Hermes does nothing with them."},
	{"config", S_NONE, W_NONE, .doc = "What it has of its own; prevails over groups and defaults."},
};
static OBJECT(node, "node of the domain", domain_node);

FIELDS(user) = {
	{"name", S_STR, W_TEXT, AT(domain_user, name), .flags = F_REQUIRED, .doc = "Unique; as flows bear it."},
	{"nodes", S_STRS, W_SOME, AT(domain_user, nodes), .doc = "Nodes where the user's traffic enters the overlay."},
	{"groups", S_STRS, W_SOME, AT(domain_user, groups), .doc = "Groups of such nodes."},
	{"password", S_STR, W_SECRET, AT(domain_user, password), .doc = "crypt(5) text; only nodes where the user enters get it."},
	{"address_space", S_NONE, W_NONE, .doc = "{names: ..., prefixes: ...}: where names and addresses lead this user."},
	{"policies", S_NONE, W_NONE, .doc = "Policies as of a node, asked about this user only."},
};
static OBJECT(user, "user of the domain", domain_user);

FIELDS(way) = {
	{"cluster", S_STR, W_NAME, AT(domain_way, cluster), .flags = F_REQUIRED, .doc = "The cluster that it goes by."},
	{"add_headers", S_PAIRS, W_ADD_HEADERS, AT(domain_way, add_headers), .doc = "Headers to add on this way."},
};
static OBJECT(way, "way", domain_way);

FIELDS(objective) = {
	{"name", S_STR, W_NAME, AT(domain_objective, name), .flags = F_REQUIRED, .doc = "Unique among the objectives."},
	{"user", S_STR, W_TEXT, AT(domain_objective, user), .flags = F_REQUIRED, .doc = "Whose traffic."},
	{"service", S_STRS, W_SOME, AT(domain_objective, services), .flags = F_REQUIRED,
	 .doc = "Names or prefixes of the service; a port says only what probes ask for."},
	{"target", S_STR, W_TEXT, AT(domain_objective, target),
	 .doc = "Authority that probes ask for; else the first service where it has a port, else the way's next hop itself."},
	{"method", S_STR, W_TEXT, AT(domain_objective, method),
	 .doc = "The method that probes ask about: GET for services of HTTP; without it CONNECT."},
	{"limit", S_U32, W_DURATION, AT(domain_objective, limit), .max = 60 * SECOND, .preset = "0",
	 .doc = "Round trip, median of ten seconds, that is too long. 0: none."},
	{"loss", S_STR, W_TEXT, AT(domain_objective, loss_text), .doc = "Share of probes lost that is too much, such as 1%."},
	{"for", S_U32, W_DURATION, AT(domain_objective, for_), .max = DAY, .preset = "30s",
	 .doc = "How long it must be violated before something is done."},
	{"hold", S_U32, W_DURATION, AT(domain_objective, hold), .max = DAY, .preset = "60s",
	 .doc = "How long a choice stays at least; doubles, up to 64 times, while choices change often."},
	{"margin", S_U32, W_INT, AT(domain_objective, margin), .max = 1000, .preset = "20",
	 .doc = "Percent by which a way that misses the objective too must be better to be taken."},
	{"interval", S_U32, W_DURATION, AT(domain_objective, interval), .min = 100, .max = 3600 * SECOND, .preset = "1s",
	 .doc = "Between probes."},
	{"nodes", S_STRS, W_SOME, AT(domain_objective, nodes), .doc = "Nodes that measure; without it those where the user enters."},
	{"ways", LIST(domain_objective, ways, way), .form = W_OBJECTS, .flags = F_REQUIRED,
	 .doc = "Clusters that lead there; the first is taken until there is a reason for another."},
};
static OBJECT(objective, "objective", domain_objective);

FIELDS(health) = {
	{"rejected", S_STR, W_TEXT, AT(domain_rollout, text.rejected), .preset = "0",
	 .doc = "Nodes, a number or a share of those moved, that may reject or roll back; one more stops."},
	{"not_ready", S_STR, W_TEXT, AT(domain_rollout, text.not_ready), .preset = "0", .doc = "Nodes moved that may be not ready."},
	{"silent", S_STR, W_TEXT, AT(domain_rollout, text.silent), .preset = "20%",
	 .doc = "Nodes moved, canaries apart, that may have fallen silent when the timeout comes: they count as away."},
	{"restarts", S_U32, W_INT, AT(domain_rollout, health.restarts), .max = 1000000, .preset = "2",
	 .doc = "Restarts of a node's workers since it was moved that are no reason to stop."},
	{"probe_loss", S_STR, W_TEXT, AT(domain_rollout, text.probe_loss),
	 .doc = "Share of lost probes of a node moved, any way, that stops; without it probes are not looked at."},
};
static OBJECT(health, "health of a rollout", domain_rollout);

FIELDS(rollout) = {
	{"canary", S_STRS, W_STRINGS, AT(domain_rollout, canary),
	 .doc = "Nodes that go first: their names, or one number or share of those concerned."},
	{"steps", S_STRS, W_STRINGS, AT(domain_rollout, steps), .doc = "Shares of nodes after that, rising: [10%, 50%, 100%]."},
	{"wait", S_U32, W_DURATION, AT(domain_rollout, wait), .max = DAY, .preset = "10s",
	 .doc = "How long the nodes of a stage must be healthy before the next."},
	{"timeout", S_U32, W_DURATION, AT(domain_rollout, timeout), .min = 1 * SECOND, .max = DAY, .preset = "2m",
	 .doc = "How long a stage may take until its nodes have answered."},
	{"on_stop", S_BOOL, W_FLAG, AT(domain_rollout, stay), NAMES("rollback", "stay"), .preset = "rollback",
	 .doc = "What nodes already moved do when it stops: rollback gives them what they had, stay leaves them."},
	{"health", S_GROUP, W_OBJECT, .object = &health, .doc = "What stops a rollout."},
};
static OBJECT(rollout, "rollout", domain_rollout);

FIELDS(domain_document) = {
	{"domain", S_STR, W_NAME, AT(document, domain), .flags = F_REQUIRED, .doc = "The domain's name, as nodes have it."},
	{"defaults", S_NONE, W_NONE, .doc = "What every node has: a fragment of a node's configuration."},
	{"groups", LIST(document, groups, group), .form = W_OBJECTS, .doc = "Fragments that several nodes share."},
	{"nodes", LIST(document, nodes, node), .form = W_OBJECTS, .doc = "The domain's nodes."},
	{"users", LIST(document, users, user), .form = W_OBJECTS, .doc = "Who uses the overlay, and where each enters it."},
	{"clusters", S_NONE, W_NONE, .doc = "Next hops; a node gets those that it refers to."},
	{"objectives", LIST(document, objectives, objective), .form = W_OBJECTS, .doc = "What users are to get, and the ways to it."},
	{"rollout", S_OBJECT, W_OBJECT, AT(document, rollout), .object = &rollout, .doc = "How a new version reaches the nodes."},
};
OBJECT(domain_document, "domain", document);

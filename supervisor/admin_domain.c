/* SPDX-License-Identifier: Apache-2.0 */
/* The verbs of a domain: controller, nodes, enroll. Most are one request to the controller each (rest_verbs). */
#include "supervisor/admin_domain.h"

#include <string.h>

#include "supervisor/admin_rest.h"

/* --- requests -------------------------------------------------------------------------------------------------------- */

#define WORD_NAME {NULL, "name", REST_PATH, false, true}

static const struct rest_verb rest_verbs[] = {
	{"controller", "status", "GET", "/v1/status", {{0}}, false, NULL, NULL, 0},
	{"controller", "token create", "POST", "/v1/tokens",
	 {{"--node", "node", REST_TEXT, false, false}, {"--controller", "controller", REST_FLAG, false, false},
	  {"--lifetime", "lifetime", REST_SECONDS, false, false}}, false, NULL, NULL, 0},
	{"controller", "token list", "GET", "/v1/tokens", {{0}}, false, NULL, NULL, 0},
	{"controller", "token delete", "DELETE", "/v1/tokens/%s", {WORD_NAME}, false, NULL, NULL, 0},
	{"controller", "document show", "GET", "/v1/document", {{NULL, "version", REST_NUMBER, true, false}}, false, NULL, NULL, 0},
	{"controller", "document check", "POST", "/v1/document/check", {{0}}, true, NULL, NULL, 120},
	{"controller", "document apply", "PUT", "/v1/document",
	 {{"--comment", "comment", REST_TEXT, true, false}, {"--dry-run", "dry_run", REST_FLAG, true, false},
	  {"--at-once", "at_once", REST_FLAG, true, false}, {"--base", "base", REST_NUMBER, true, false}}, true, NULL, NULL, 120},
	{"controller", "history", "GET", "/v1/versions", {{0}}, false, NULL, NULL, 0},
	{"controller", "diff", "GET", "/v1/diff",
	 {{NULL, "from", REST_NUMBER, true, true}, {NULL, "to", REST_NUMBER, true, false}}, false, NULL, NULL, 0},
	{"controller", "rollback", "POST", "/v1/rollback",
	 {{NULL, "version", REST_NUMBER, false, true}, {"--comment", "comment", REST_TEXT, false, false},
	  {"--at-once", "at_once", REST_FLAG, false, false}}, false, NULL, NULL, 120},
	{"controller", "rollout show", "GET", "/v1/rollout", {{0}}, false, NULL, NULL, 0},
	{"controller", "rollout pause", "POST", "/v1/rollout", {{0}}, false, "action", "pause", 0},
	{"controller", "rollout resume", "POST", "/v1/rollout", {{0}}, false, "action", "resume", 0},
	{"controller", "rollout abort", "POST", "/v1/rollout", {{0}}, false, "action", "abort", 0},
	{"controller", "rollout promote", "POST", "/v1/rollout", {{0}}, false, "action", "promote", 0},
	{"controller", "objectives list", "GET", "/v1/objectives", {{0}}, false, NULL, NULL, 0},
	{"controller", "objectives show", "GET", "/v1/objectives/%s", {WORD_NAME}, false, NULL, NULL, 0},
	{"nodes", "list", "GET", "/v1/nodes", {{0}}, false, NULL, NULL, 0},
	{"nodes", "watch", "GET", "/v1/nodes", {{0}}, false, NULL, NULL, 0},
	{"nodes", "show", "GET", "/v1/nodes/%s", {WORD_NAME}, false, NULL, NULL, 0},
	{"nodes", "config", "GET", "/v1/nodes/%s/config", {WORD_NAME}, false, NULL, NULL, 0},
	{"nodes", "revoke", "POST", "/v1/nodes/%s/revoke", {WORD_NAME}, false, NULL, NULL, 0},
	{"nodes", "renew", "POST", "/v1/nodes/%s/renew", {WORD_NAME}, false, NULL, NULL, 0},
	{"nodes", "drain", "POST", "/v1/nodes/%s/drain", {WORD_NAME}, false, NULL, NULL, 0},
	{"nodes", "undrain", "POST", "/v1/nodes/%s/undrain", {WORD_NAME}, false, NULL, NULL, 0},
	{"nodes", "scale", "POST", "/v1/nodes/%s/scale", {WORD_NAME, {NULL, "tunnel_workers", REST_NUMBER, false, true}}, false, NULL,
	 NULL, 0},
	{"nodes", "roles", "POST", "/v1/nodes/%s/roles",
	 {WORD_NAME, {NULL, "role", REST_TEXT, false, true}, {NULL, "on", REST_ON_OFF, false, true}}, false, NULL, NULL, 0},
};

static int run_rest(const struct admin_call *call)
{
	for (size_t i = 0; i < sizeof(rest_verbs) / sizeof(*rest_verbs); i++)
		if (!strcmp(rest_verbs[i].noun, call->verb->noun) && !strcmp(rest_verbs[i].verb, call->verb->verb))
			return rest_run(call, &rest_verbs[i]);
	return 2;
}

/* --- how answers look ------------------------------------------------------------------------------------------------ */

static const struct admin_column status_columns[] = {
	{"domain", "domain", ADMIN_TEXT},           {"node", "node", ADMIN_TEXT},
	{"store", "store", ADMIN_TEXT},             {"ready", "ready", ADMIN_TEXT},
	{"leads", "leads", ADMIN_TEXT},             {"document", "document.version", ADMIN_COUNT},
	{"nodes", "nodes", ADMIN_TEXT},             {"rollout", "rollout.state", ADMIN_TEXT},
	{NULL, NULL, ADMIN_TEXT},
};
static const struct admin_column token_columns[] = {
	{"ID", "id", ADMIN_TEXT},           {"NODE", "node", ADMIN_TEXT},   {"CONTROLLER", "controller", ADMIN_TEXT},
	{"EXPIRES", "expires", ADMIN_TIME}, {"BY", "author", ADMIN_TEXT},   {NULL, NULL, ADMIN_TEXT},
};
static const struct admin_column version_columns[] = {
	{"VERSION", "version", ADMIN_COUNT}, {"TIME", "time", ADMIN_TIME}, {"AUTHOR", "author", ADMIN_TEXT},
	{"COMMENT", "comment", ADMIN_TEXT},  {"BYTES", "bytes", ADMIN_BYTES}, {NULL, NULL, ADMIN_TEXT},
};
static const struct admin_column node_columns[] = {
	{"NAME", "name", ADMIN_TEXT},          {"STATE", "state", ADMIN_TEXT},     {"SINCE", "since", ADMIN_TIME},
	{"RUNS", "runs.version", ADMIN_COUNT}, {"WANTS", "wants.version", ADMIN_COUNT}, {"REPORTS", "runs.state", ADMIN_TEXT},
	{"OVERRIDE", "override", ADMIN_TEXT}, {NULL, NULL, ADMIN_TEXT},
};
static const struct admin_column override_columns[] = {
	{"node", "name", ADMIN_TEXT}, {"override", "override", ADMIN_TEXT}, {NULL, NULL, ADMIN_TEXT},
};
static const struct admin_column objective_columns[] = {
	{"NAME", "name", ADMIN_TEXT}, {"STATE", "state", ADMIN_TEXT}, {"CHOICE", "choice", ADMIN_TEXT}, {"SINCE", "since", ADMIN_TIME},
	{"REASON", "reason", ADMIN_TEXT}, {NULL, NULL, ADMIN_TEXT},
};
static const struct admin_column nothing[] = {{NULL, NULL, ADMIN_TEXT}};

static void print_token(const json_t *d)
{
	const char *token = json_string_value(json_object_get(d, "token"));
	puts(token ? token : "-");
}

/* --- the verbs ------------------------------------------------------------------------------------------------------- */

#define REMOTE " [--url URL --cert FILE --key FILE --ca FILE]"
#define REST(noun, verb, max, usage, help, rows, columns, print) \
	{noun, verb, 0, max + 8, usage REMOTE, help, rows, columns, run_rest, print, false}

const struct admin_verb domain_verbs[] = {
	{"enroll", NULL, 1, 200, "https://HOST:PORT --token TOKEN [--node NAME] [--config FILE] [--state-dir DIR] [--force]",
	 "make this machine a node of a domain", NULL, nothing, admin_enroll, NULL, false},
	{"controller", "init", 0, 200, "--domain D --name N --address HOST:PORT [--keys-from FOLDER] [--also HOST:PORT,...] "
	 "[--etcd HOST:PORT,...] [--config FILE] [--state-dir DIR] [--force]",
	 "make this machine a controller: the first of a new domain, or with --keys-from another of its own", NULL, nothing,
	 admin_controller_init, NULL, false},
	REST("controller", "status", 0, "", "how the controller is, and the domain", NULL, status_columns, NULL),
	REST("controller", "token create", 6, "[--node NAME] [--controller] [--lifetime 1h]", "a token that enrols one machine, once", NULL, nothing, print_token),
	REST("controller", "token list", 0, "", "tokens that are not used yet", "tokens", token_columns, NULL),
	REST("controller", "token delete", 1, "ID", "nobody enrols by it any more", NULL, nothing, NULL),
	REST("controller", "document show", 1, "[VERSION]", "the domain's document", NULL, nothing, admin_print_document),
	REST("controller", "document check", 1, "FILE|-", "what a document would change on which node", NULL, nothing, domain_print_dry_run),
	REST("controller", "document apply", 8, "FILE|- [--comment TEXT] [--dry-run] [--at-once] [--base VERSION] [--wait]",
	     "roll a document out, in stages or at once; --base: only as a change of that version; --wait: until it is over", NULL, nothing, domain_print_dry_run),
	REST("controller", "history", 0, "", "the documents so far", "versions", version_columns, NULL),
	REST("controller", "diff", 2, "VERSION [VERSION]", "what changed between two documents (default: to the newest)", NULL, nothing, admin_print_document),
	REST("controller", "rollback", 5, "VERSION [--comment TEXT] [--at-once] [--wait]", "roll an earlier document out, as a new version", NULL, nothing, domain_print_dry_run),
	REST("controller", "rollout show", 1, "[--watch]", "how far the document is rolled out; --watch: until that is over", NULL, nothing, domain_print_rollout),
	REST("controller", "rollout pause", 0, "", "no further node gets it", NULL, nothing, domain_print_rollout),
	REST("controller", "rollout resume", 0, "", "go on, also after it was stopped", NULL, nothing, domain_print_rollout),
	REST("controller", "rollout abort", 0, "", "back to the version before, everywhere", NULL, nothing, domain_print_rollout),
	REST("controller", "rollout promote", 0, "", "skip what is left of the waiting: to the next stage", NULL, nothing, domain_print_rollout),
	REST("controller", "objectives list", 0, "", "what is promised to users, and by which way it is kept", "objectives", objective_columns, NULL),
	REST("controller", "objectives show", 1, "NAME", "one objective, its ways and their measures", NULL, nothing, domain_print_objective),
	REST("nodes", "list", 0, "", "the nodes of the domain", "nodes", node_columns, NULL),
	REST("nodes", "show", 1, "NAME", "one node: what it runs, its health, links, traffic", NULL, nothing, domain_print_node),
	REST("nodes", "watch", 2, "[--interval S]", "the list, again and again (default each 2 s)", "nodes", node_columns, NULL),
	REST("nodes", "config", 1, "NAME", "the configuration that the controller composed for it", NULL, nothing, admin_print_document),
	REST("nodes", "revoke", 1, "NAME", "end its access at once", NULL, nothing, NULL),
	REST("nodes", "renew", 1, "NAME", "a new key and certificate, now instead of when two thirds of its life are over", NULL, nothing, NULL),
	REST("nodes", "drain", 1, "NAME", "for maintenance: nothing new goes there", NULL, override_columns, NULL),
	REST("nodes", "undrain", 1, "NAME", "use it again", NULL, override_columns, NULL),
	REST("nodes", "scale", 2, "NAME N", "as many tunnel workers; 0: as its document says", NULL, override_columns, NULL),
	REST("nodes", "roles", 3, "NAME ROLE on|off|default", "run a role there, or not; default: as the document says", NULL, override_columns, NULL),
};
const size_t n_domain_verbs = sizeof(domain_verbs) / sizeof(*domain_verbs);

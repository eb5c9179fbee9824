/* SPDX-License-Identifier: Apache-2.0 */
/* A domain's document, as an operator may send it: parsed, composed for its nodes; what comes out of that must be what a node can read. */
#include "workers/controller/compose.h"

#include <stdlib.h>
#include <string.h>

#define NODES_MAX 20

static const char own[] = "node: {name: local, domain: x}\nidentity: {certificate: a, key: b, authorities: [c]}\n"
                          "control: {endpoints: [\"c:1\"], key: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=}\n";

/* Twice the same text, and one that the node's parser takes. */
static void check(struct compose *c, size_t i)
{
	struct config_report report = {0}, other = {0};
	char *text = compose_node(c, i, &report), *again = text ? compose_node(c, i, &report) : NULL;

	if (text && (!again || strcmp(text, again)))
		abort();
	if (text) {
		struct config_layer layers[] = {{"own", own, strlen(own)}, {"controller", text, strlen(text)}};
		struct config *config = config_parse_layers(layers, 2, &other);
		if (!config)
			abort();
		config_free(config);
	}
	free(text);
	free(again);
	config_report_free(&report);
	config_report_free(&other);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct config_report report = {0};
	struct compose_inputs in = {.overrides = json_pack("{s:{s:b}, s:{s:i, s:{s:b}}}", "a", "drained", 1, "b", "tunnel_workers", 2,
	                                                   "roles", "telemetry", 0),
	                            .steer = json_pack("{s:s}", "o", "k"), .revoked = json_pack("{s:b}", "r", 1)};
	struct document *d = document_parse("d", (const char *)data, size, NULL, &report);
	struct compose *c = d ? compose_new(d, &in, &report) : NULL;

	for (size_t i = 0; c && i < d->n_nodes && i < NODES_MAX; i++)
		check(c, i);
	if (c)
		compose_check_rest(c, &report);
	if (!d && !report.n_errors)
		abort();
	compose_free(c);
	document_free(d);
	compose_inputs_free(&in);
	config_report_free(&report);
	return 0;
}

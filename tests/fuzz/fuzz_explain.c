/* The words of `route explain`, one per line. */
#include "store/config.h"
#include "supervisor/explain_args.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static const char document[] =
	"node: {name: alice, domain: example.net}\n"
	"listeners:\n"
	"  - {name: apps, address: 127.0.0.1:12000, accept: http, add_headers: {user: alice, zone: dmz}}\n"
	"  - {name: db, address: 127.0.0.1:3306, accept: tcp, target: MYSQL:3306}\n"
	"tunnels: [{name: tun0, networks: [{prefix: 10.0.0.0/8, add_headers: {user: u}}, {prefix: '2001:db8::/32', over_udp: 'P:7'}]}]\n"
	"overlay_headers: [x-secure]\n";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct config *config;
	struct config_report report = {0};
	struct explain_args args;
	const char *words[256];
	struct ipc_strs all = {words, 0};
	char error[256] = "", *text = strndup((const char *)data, size), *rest = text;
	if (!config)
		config = config_parse("fuzz", document, sizeof(document) - 1, &report);
	config_report_free(&report);
	assert(config);
	for (char *word; all.n < 256 && (word = strsep(&rest, "\n"));)
		words[all.n++] = word;
	if (explain_parse(&all, config, &args, error, sizeof(error)) == 0) {
		assert(args.question.authority && args.question.method && args.question.headers.n <= EXPLAIN_HEADERS_MAX);
		assert(!args.question.inner || (args.question.ip_source && args.question.ip_destination));
		explain_args_clear(&args);
	} else {
		assert(*error);
	}
	free(text);
	return 0;
}

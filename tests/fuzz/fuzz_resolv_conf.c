/* resolv.conf and hosts: any text is read within bounds, and what comes out can be used. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "workers/tunnel/resolve_text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int condition)
{
	if (!condition)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1), csv[RESOLV_SERVERS * 68];
	struct resolv_conf conf;
	union resolve_address address;
	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = 0;
	resolv_conf_parse(text, &conf);
	require(conf.n <= RESOLV_SERVERS && conf.timeout_ms >= 1000 && conf.timeout_ms <= 30000 && conf.tries >= 1 &&
	        conf.tries <= 5);
	for (unsigned i = 0; i < conf.n; i++)
		require(address_parse(conf.servers[i].address, &address) && conf.servers[i].port > 0);
	resolv_conf_csv(&conf, csv, sizeof(csv));
	require(strlen(csv) < sizeof(csv) && (conf.n == 0) == (csv[0] == 0));
	struct hosts *hosts = hosts_parse(text);
	for (unsigned i = 0; hosts_find(hosts, "localhost", i); i++)
		require(hosts_find(hosts, "localhost", i)->sa.sa_family != 0);
	hosts_free(hosts);
	free(text);
	return 0;
}

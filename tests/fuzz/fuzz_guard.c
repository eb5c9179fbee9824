/* Authorities: whatever is accepted is a sound host and port, splits the same when written again, and is no other spelling
 * of an address than the strict one. */
#include <arpa/inet.h>
#include <netdb.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "workers/tunnel/guard.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int condition)
{
	if (!condition)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char authority[600], host[256], again[600], host_again[256];
	uint16_t port = 0, port_again = 0;
	const char *why = NULL;
	struct in_addr strict, loose;
	struct in6_addr v6;
	if (size < 2 || size >= sizeof(authority))
		return 0;
	uint16_t preset = (uint16_t)(data[0] << 8 | data[1]);
	memcpy(authority, data + 2, size - 2);
	authority[size - 2] = 0;
	if (guard_split(authority, preset, host, sizeof(host), &port, &why) != 0) {
		require(why != NULL);
		return 0;
	}
	require(port > 0 && host[0] && strlen(host) <= 253);
	/* What inet_aton(3), and so many a resolver, takes for an address is the same address to us. */
	if (inet_aton(host, &loose))
		require(inet_pton(AF_INET, host, &strict) == 1 && strict.s_addr == loose.s_addr);
	require(strpbrk(host, "%/@\\ \t\r\n#?") == NULL);
	int is_v6 = inet_pton(AF_INET6, host, &v6) == 1;
	require(is_v6 || !strchr(host, ':'));
	snprintf(again, sizeof(again), is_v6 ? "[%s]:%u" : "%s:%u", host, port);
	require(guard_split(again, 0, host_again, sizeof(host_again), &port_again, &why) == 0);
	require(port == port_again && strcmp(host, host_again) == 0);
	return 0;
}

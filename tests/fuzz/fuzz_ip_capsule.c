/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as the value of each of CONNECT-IP's capsules. What is taken says the same when it is written and read again. The
 * first byte chooses. */
#include "workers/tunnel/ip_capsule.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define MAX 64u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void addresses(const uint8_t *value, size_t length, bool request)
{
	static struct ip_assigned v[MAX], again[MAX];
	static uint8_t out[MAX * 34 + 16];
	unsigned n, m;
	size_t written;

	if (ip_addresses_get(value, length, request, v, MAX, &n))
		return;
	assert(n <= MAX && (n || !request));
	written = ip_addresses_put(out, v, n);
	assert(written <= length && !ip_addresses_get(out, written, request, again, MAX, &m) && m == n);
	for (unsigned i = 0; i < n; i++)
		assert(v[i].request == again[i].request && v[i].prefix.bits == again[i].prefix.bits &&
		       !memcmp(&v[i].prefix.address, &again[i].prefix.address, 16));
}

static void routes(const uint8_t *value, size_t length)
{
	static struct ip_route v[MAX], again[MAX];
	static uint8_t out[MAX * 34 + 16];
	unsigned n, m;
	size_t written;

	if (ip_routes_get(value, length, v, MAX, &n))
		return;
	for (unsigned i = 0; i < n; i++)
		assert(ip_route_has(&v[i], v[i].protocol, &v[i].from) &&
		       (IN6_IS_ADDR_V4MAPPED(&v[i].from) != IN6_IS_ADDR_V4MAPPED(&v[i].to) ||     /* ends among the mapped ones */
		        ip_route_has(&v[i], v[i].protocol, &v[i].to)));
	written = ip_routes_put(out, v, n);
	assert(written <= length && !ip_routes_get(out, written, again, MAX, &m) && m <= n);
	if (written == length)        /* nothing touched: just as it came */
		assert(!memcmp(out, value, length));
}

/* Whatever order and overlap: what we write, others must not refuse. */
static void prefixes(const uint8_t *value, size_t length)
{
	static struct ip_route v[MAX], again[MAX];
	static uint8_t out[MAX * 34 + 16];
	unsigned n = 0, m;

	for (; n < MAX && length >= 17; value += 17, length -= 17, n++) {
		struct config_prefix p = { .bits = value[0] % 129 };
		memcpy(&p.address, value + 1, 16);
		if (value[0] & 0x80) {
			memcpy(&p.address, "\0\0\0\0\0\0\0\0\0\0\xff\xff", 12);
			p.bits = (uint8_t)(96 + p.bits % 33);
		}
		for (unsigned bit = p.bits; bit < 128; bit++)
			p.address.s6_addr[bit / 8] &= (uint8_t)~(0x80 >> bit % 8);
		if (p.bits > 80 && p.bits < 96 && IN6_IS_ADDR_V4MAPPED(&p.address))
			return;
		v[n] = ip_route_of(&p, 6);
	}
	assert(!ip_routes_get(out, ip_routes_put(out, v, n), again, MAX, &m));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *copy;

	if (!size)
		return 0;
	copy = malloc(size);
	memcpy(copy, data, size);
	switch (data[0] & 3) {
	case 0:
	case 1:
		addresses(copy + 1, size - 1, data[0] & 1);
		break;
	case 2:
		routes(copy + 1, size - 1);
		break;
	default:
		prefixes(copy + 1, size - 1);
	}
	free(copy);
	return 0;
}

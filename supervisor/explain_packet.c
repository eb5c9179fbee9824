/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/explain_packet.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/match.h"

/* --- options ----------------------------------------------------------------------------------------------------------- */

static int parse_number(const char *text, unsigned long max, uint32_t *out)
{
	char *end;
	unsigned long value = strtoul(text, &end, 10);
	if (*text < '0' || *text > '9' || *end || value > max)
		return -1;
	*out = (uint32_t)value;
	return 0;
}

static int parse_protocol(const char *text, uint32_t *out)
{
	static const struct { const char *name; uint32_t number; } names[] = {
		{"tcp", IPPROTO_TCP}, {"udp", IPPROTO_UDP}, {"icmp", IPPROTO_ICMP}, {"icmpv6", IPPROTO_ICMPV6},
		{"sctp", IPPROTO_SCTP},
	};
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		if (strcmp(names[i].name, text) == 0) {
			*out = names[i].number;
			return 0;
		}
	return parse_number(text, 255, out);
}

int explain_packet_option(struct explain_args *a, const char *option, const char *value)
{
	struct ipc_question *q = &a->question;
	struct in6_addr address;
	if (strncmp(option, "--ip-", 5) != 0)
		return 1;
	option += 5;
	q->inner = true;
	if (strcmp(option, "protocol") == 0)
		return parse_protocol(value, &q->ip_protocol);
	if (strcmp(option, "port") == 0)
		return parse_number(value, 65535, &q->ip_port);
	if (strcmp(option, "source") == 0)
		q->ip_source = value;
	else if (strcmp(option, "destination") == 0)
		q->ip_destination = value;
	else
		return 1;
	return match_address(value, &address) ? 0 : -1;
}

int explain_packet_check(const struct explain_args *a, char *error, size_t size)
{
	const struct ipc_question *q = &a->question;
	struct in6_addr from, to;
	if (!q->inner)
		return 0;
	if (!q->ip_protocol || !q->ip_source || !q->ip_destination) {
		snprintf(error, size, "a packet has --ip-protocol, --ip-source and --ip-destination");
		return -1;
	}
	if (match_address(q->ip_source, &from) && match_address(q->ip_destination, &to) &&
	    !IN6_IS_ADDR_V4MAPPED(&from) == !IN6_IS_ADDR_V4MAPPED(&to))
		return 0;
	snprintf(error, size, "--ip-source %s, --ip-destination %s: not of one family", q->ip_source, q->ip_destination);
	return -1;
}

/* --- devices ------------------------------------------------------------------------------------------------------------ */

const struct config_tunnel *explain_device(const struct config *config, const char *name)
{
	for (size_t i = 0; i < config->n_tunnels; i++)
		if (strcmp(config->tunnels[i].name, name) == 0)
			return &config->tunnels[i];
	return NULL;
}

static bool is_v4(const struct config_prefix *prefix)
{
	return prefix->bits >= 96 && IN6_IS_ADDR_V4MAPPED(&prefix->address);
}

static const char *prefix_text(const struct config_prefix *prefix, char out[EXPLAIN_PREFIX_MAX])
{
	char address[INET6_ADDRSTRLEN];
	bool v4 = is_v4(prefix);
	inet_ntop(v4 ? AF_INET : AF_INET6, prefix->address.s6_addr + (v4 ? 12 : 0), address, sizeof(address));
	snprintf(out, EXPLAIN_PREFIX_MAX, "%s/%u", address, v4 ? prefix->bits - 96u : prefix->bits);
	return out;
}

/* The longest prefix wins, as in the device. */
static const struct config_network *network_of(const struct config_tunnel *device, const char *text)
{
	const struct config_network *best = NULL;
	struct in6_addr address;
	if (!text || !match_address(text, &address))
		return NULL;
	for (size_t i = 0; i < device->n_networks; i++) {
		const struct config_network *n = &device->networks[i];
		if (is_v4(&n->prefix) == !!IN6_IS_ADDR_V4MAPPED(&address) && config_prefix_contains(&n->prefix, &address) &&
		    (!best || n->prefix.bits > best->prefix.bits))
			best = n;
	}
	return best;
}

static const struct config_network *network_named(const struct config_tunnel *device, const char *authority)
{
	char text[EXPLAIN_PREFIX_MAX];
	for (size_t i = 0; authority && i < device->n_networks; i++)
		if (strcmp(prefix_text(&device->networks[i].prefix, text), authority) == 0)
			return &device->networks[i];
	return NULL;
}

int explain_pass_device(struct explain_args *a, const struct config_tunnel *device, char text[EXPLAIN_PREFIX_MAX],
                        const struct config_network **network, char *error, size_t size)
{
	struct ipc_question *q = &a->question;
	const struct config_network *n = network_named(device, q->authority);
	n = n ? n : network_of(device, q->ip_destination);
	n = n ? n : network_of(device, q->ip_source);      /* what comes back */
	if (!n) {
		snprintf(error, size, "--listener %s: give the prefix of one of its networks, or a packet to one of them",
		         device->name);
		return -1;
	}
	*network = n;
	q->method = "CONNECT";
	q->scheme = "https";
	q->protocol = n->over_udp.text ? "connect-udp" : "connect-ip";
	q->authority = n->over_udp.text ? n->over_udp.text : prefix_text(&n->prefix, text);
	return 0;
}

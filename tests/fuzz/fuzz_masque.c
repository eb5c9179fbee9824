/* SPDX-License-Identifier: Apache-2.0 */
/* Paths of UDP and IP proxying, and the fields hermes-tunnel and hermes-hop: whatever is accepted has one spelling that is accepted again and
 * says the same, names a target that the guard takes, and holds nothing that a later hop could read as something else. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "workers/tunnel/guard.h"
#include "workers/tunnel/masque.h"
#include "workers/tunnel/probe.h"
#include "workers/tunnel/tunnel_header.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition)
{
	if (!condition)
		abort();
}

static struct head *request(const char *protocol, const char *path)
{
	struct head *head = head_new();
	head->method = "CONNECT";
	head->protocol = protocol;
	head->path = head_string(head, path, -1);
	return head;
}

static void same_again(const struct head *head, struct head *again)
{
	const char *why;
	require(again != NULL && masque_accept(again, &why) == 0);
	require(strcmp(again->path, head->path) == 0 && strcmp(again->authority, head->authority) == 0);
	head_free(again);
}

static void check_path(const char *protocol, const char *path)
{
	const char *why = NULL;
	char host[256];
	uint16_t port = 0;
	struct head *head = request(protocol, path);
	unsigned status = masque_accept(head, &why);
	require(status == 0 || ((status == 400 || status == 404) && why));
	if (status == 0) {
		require(strpbrk(head->path, " \t\r\n?#:@") == NULL && strpbrk(head->authority, "%@\\ ?#") == NULL);
		same_again(head, request(protocol, head->path));
		if (masque_is_udp(head)) {
			require(guard_split(head->authority, 0, host, sizeof(host), &port, &why) == 0 && port > 0);
			same_again(head, masque_udp_request(head->authority));
		} else {
			int ipproto = masque_ip_protocol(head);
			require(ipproto >= -1 && ipproto <= 255);
			same_again(head, masque_ip_request(head->authority, ipproto));
		}
	}
	head_free(head);
}

static void check_header(const char *value)
{
	struct tunnel_header header, again;
	struct head *head = head_new();
	head_add(head, TUNNEL_HEADER, value);
	tunnel_header_get(head, &header);
	if (header.present) {
		tunnel_header_set(head, &header);
		tunnel_header_get(head, &again);
		require(memcmp(&header, &again, sizeof(header)) == 0);
	}
	head_free(head);
}

static void check_hop(const char *value)
{
	struct hop hop;
	struct head *head = head_new();
	head_add(head, HOP_HEADER, value);
	if (hop_read(head, &hop))
		require(hop.node[0] && strlen(hop.node) < sizeof(hop.node) && strlen(hop.endpoint) < sizeof(hop.endpoint) && hop.status < 1000);
	head_free(head);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char text[2048];
	if (size < 2 || size > 1024)
		return 0;
	size_t n = 0;
	if (data[0] & 2)   /* spares the fuzzer finding the prefix */
		n = (size_t)(stpcpy(text, data[0] & 1 ? "/.well-known/masque/udp/" : "/.well-known/masque/ip/") - text);
	memcpy(text + n, data + 1, size - 1);
	text[n + size - 1] = '\0';
	if (data[0] & 8)
		check_hop(text);
	else if (data[0] & 4)
		check_header(text);
	else
		check_path(data[0] & 1 ? "connect-udp" : "connect-ip", text);
	return 0;
}

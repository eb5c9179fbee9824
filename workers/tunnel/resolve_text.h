/* The texts of resolv.conf(5) and hosts(5). */
#ifndef HERMES_TUNNEL_RESOLVE_TEXT_H
#define HERMES_TUNNEL_RESOLVE_TEXT_H

#include "workers/tunnel/resolve_address.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RESOLV_SERVERS 8
#define HOSTS_NAMES 65536             /* entries that are read; the rest of a larger file is left */

struct resolv_conf {
	struct { char address[48]; uint16_t port; } servers[RESOLV_SERVERS];
	unsigned n;
	int timeout_ms, tries;
	bool rotate;
};
/* Anything unknown is skipped: never fails. Search lists are not read: names of the overlay are absolute. A server may
 * be written with its port, as OpenBSD does: "[192.0.2.1]:5353". */
void resolv_conf_parse(const char *text, struct resolv_conf *out);
/* As ares_set_servers_ports_csv() takes it; out: at least RESOLV_SERVERS * 68 bytes. */
void resolv_conf_csv(const struct resolv_conf *conf, char *out, size_t size);

struct hosts;
struct hosts *hosts_parse(const char *text);
void hosts_free(struct hosts *hosts);
/* The i-th address of a lower-case name, or NULL. */
const union resolve_address *hosts_find(const struct hosts *hosts, const char *name, unsigned i);

/* A strict dotted quad or an IPv6 address into *out (port 0). */
bool address_parse(const char *text, union resolve_address *out);

#endif

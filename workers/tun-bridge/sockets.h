/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets bound to foreign addresses: captured UDP flows are answered from the address that their program sent to. */
#ifndef HERMES_TUN_BRIDGE_SOCKETS_H
#define HERMES_TUN_BRIDGE_SOCKETS_H

/* A UDP socket (non-blocking, IP_TRANSPARENT, SO_REUSEADDR) bound to "192.0.2.1:53" or "[2001:db8::1]:53", which must be no address
 * of this machine's own: those belong to other programs. Returns the descriptor, or -1 with *why (static text). */
int socket_foreign(const char *address, const char **why);

#endif

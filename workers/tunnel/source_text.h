/* SPDX-License-Identifier: Apache-2.0 */
/* Socket addresses as text. */
#ifndef HERMES_TUNNEL_SOURCE_TEXT_H
#define HERMES_TUNNEL_SOURCE_TEXT_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#define ADDRESS_PORT_TEXT 64

/* The address without its port (an IPv4-mapped one as IPv4; "unix" for Unix sockets), and the port. */
void source_text(const struct sockaddr_storage *source, char *text, size_t size, uint16_t *port);
/* "192.0.2.1:53", "[2001:db8::1]:53". */
void address_port_text(const struct sockaddr_storage *address, char text[ADDRESS_PORT_TEXT]);

#endif

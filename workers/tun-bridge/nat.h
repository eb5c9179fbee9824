/* SPDX-License-Identifier: Apache-2.0 */
/* Source NAT at the exit: packets from a pool of a cluster with `nat: true` leave other interfaces with this machine's address. */
#ifndef HERMES_TUN_BRIDGE_NAT_H
#define HERMES_TUN_BRIDGE_NAT_H

#include <stdbool.h>
#include <stdio.h>

struct config;

/* The chain, in nftables' language; nothing where no cluster wants it. */
void nat_chains(const struct config *config, FILE *out);
/* Whether a cluster wants it for pools of the family (AF_INET, AF_INET6): the machine must forward then. */
bool nat_wanted(const struct config *config, int family);

#endif

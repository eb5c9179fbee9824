/* SPDX-License-Identifier: Apache-2.0 */
/* Our own nftables table (`hermes`, in a later slot `hermes1` ...), through libnftables: written whole, in one transaction, and no
 * other table is ever touched. */
#ifndef HERMES_TUN_BRIDGE_FIREWALL_H
#define HERMES_TUN_BRIDGE_FIREWALL_H

#include <stdbool.h>
#include <stddef.h>

#include "workers/tun-bridge/plan.h"

struct firewall;

/* Reads its files (names of marks and the like) and opens its socket: before the sandbox closes. NULL: not in this kernel. */
struct firewall *firewall_new(unsigned slot);
void firewall_free(struct firewall *firewall);

/* The chains that a configuration needs; malloc'd, empty where none. NULL: out of memory. */
char *firewall_chains(const struct plan *plan, const struct config *config);
/* Whether the kernel takes them: tried out in a table that sleeps and goes again. 0, or -1 with a reason. firewall may be NULL. */
int firewall_check(struct firewall *firewall, const char *chains, char *error, size_t size);
/* Whether somebody took away what was applied; it is applied again then. */
bool firewall_lost(struct firewall *firewall);
/* Replaces what was there, in one step; empty: nothing is left. What does not work is logged. */
void firewall_apply(struct firewall *firewall, const char *chains);

#endif

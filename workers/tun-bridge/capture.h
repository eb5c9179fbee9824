/* SPDX-License-Identifier: Apache-2.0 */
/* Transparent capture (`accept: transparent`): what passes through this machine, and with `local` what begins on it, is handed to
 * the listener's socket with its destination unchanged (TPROXY). */
#ifndef HERMES_TUN_BRIDGE_CAPTURE_H
#define HERMES_TUN_BRIDGE_CAPTURE_H

#include <stdio.h>

struct config;
struct plan;

/* The chains, in nftables' language; nothing where no listener captures. Numbers only: names would be looked up in files. */
void capture_chains(const struct plan *plan, const struct config *config, FILE *out);

#endif

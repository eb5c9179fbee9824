/* SPDX-License-Identifier: Apache-2.0 */
/* Which tunnel worker a TUN device, its queues, and the tunnels and address pools that end on it belong to. */
#ifndef HERMES_IPC_OWNER_H
#define HERMES_IPC_OWNER_H

/* The same for everybody who knows how many tunnel workers there are (at least 1). */
unsigned device_owner(const char *name, unsigned workers);

#endif

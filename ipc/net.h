/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers by which the kernel's tables know what is Hermes'. */
#ifndef HERMES_IPC_NET_H
#define HERMES_IPC_NET_H

/* Several hermesd can live in one network namespace: each claims a slot (the abstract Unix socket "hermes-net-SLOT", held as long as
 * it lives), and its tables, rules and marks are numbered by it. A new owner of a slot removes what a killed one left there.
 * tun-bridge learns it from HERMES_NET_SLOT; without one (not root; NET_SLOTS: all are taken) it changes nothing. */
#define NET_SLOTS 16u

/* SO_MARK of sockets that the supervisor makes, and of connections accepted there: what they send is the overlay's own, never
 * enters a TUN device of ours and is never captured. (The workers' own sockets are known by their user.) */
#define NET_MARK_SELF 0x4845ff00u
/* Packets to be captured: + slot. */
#define NET_MARK_CAPTURE 0x48450000u

#endif

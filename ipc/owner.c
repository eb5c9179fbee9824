/* SPDX-License-Identifier: Apache-2.0 */
#include "ipc/owner.h"

#include <stdint.h>

/* FNV-1a: neighbouring releases must agree on it, since a hot upgrade runs both. */
unsigned device_owner(const char *name, unsigned workers)
{
	uint32_t hash = 2166136261u;
	for (const char *c = name; *c; c++)
		hash = (hash ^ (uint8_t)*c) * 16777619u;
	return workers ? hash % workers : 0;
}

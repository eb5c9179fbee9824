/* When payload fills the worker's budget although every reader keeps to its allowance: those go first who hold most of it
 * and take nothing. */
#ifndef HERMES_TUNNEL_PRESSURE_H
#define HERMES_TUNNEL_PRESSURE_H

#include <stdint.h>

struct tunnel;

/* Looks, about once a second, and ends flows on which nothing moved for 2 s until a quarter of `budget` (bytes) is free.
 * Returns how many it ended. */
unsigned pressure_relieve(struct tunnel *tunnel, uint64_t budget);

#endif

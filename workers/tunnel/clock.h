#ifndef HERMES_TUNNEL_CLOCK_H
#define HERMES_TUNNEL_CLOCK_H

#include <stdint.h>

/* CLOCK_MONOTONIC in µs. */
uint64_t now_us(void);
/* Wall clock, µs since 1970. */
uint64_t wall_us(void);

#endif

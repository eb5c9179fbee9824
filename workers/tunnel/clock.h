#ifndef HERMES_TUNNEL_CLOCK_H
#define HERMES_TUNNEL_CLOCK_H

#include <stdint.h>

/* CLOCK_MONOTONIC in µs. */
uint64_t now_us(void);

#endif

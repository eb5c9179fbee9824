/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers in network byte order at any alignment, for the IP modules. */
#ifndef HERMES_TUNNEL_IP_BYTES_H
#define HERMES_TUNNEL_IP_BYTES_H

#include <stdint.h>

#define V4_HEADER 20u                 /* bytes, without options */
#define V6_HEADER 40u                 /* without extension headers */

static inline uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static inline uint32_t get32(const uint8_t *p)
{
	return (uint32_t)get16(p) << 16 | get16(p + 2);
}

static inline void put16(uint8_t *p, uint32_t value)
{
	p[0] = (uint8_t)(value >> 8);
	p[1] = (uint8_t)value;
}

static inline void put32(uint8_t *p, uint32_t value)
{
	put16(p, value >> 16);
	put16(p + 2, value & 0xffff);
}

#endif

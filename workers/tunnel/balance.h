/* Which of several endpoints: round robin, least request, hash; all weighted. */
#ifndef HERMES_TUNNEL_BALANCE_H
#define HERMES_TUNNEL_BALANCE_H

#include <stdbool.h>
#include <stdint.h>

#include "store/config.h"

struct balance_candidate {
	uint32_t weight;              /* > 0 */
	uint32_t load;                /* requests and tunnels on it now */
	uint64_t hash;                /* of the endpoint's address: balance_hash() */
	int64_t *turn;                /* round robin's state of the endpoint, 0 at first */
};

/* The index of the one chosen among n > 0. key: of the request, for balance hash; where there is none, any number. */
unsigned balance_pick(enum config_balance how, const struct balance_candidate *candidates, unsigned n, uint64_t key);
/* The same in every process and release: nodes of one fleet send a key to the same endpoint. */
uint64_t balance_hash(const char *text);

#endif

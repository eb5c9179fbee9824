/* SPDX-License-Identifier: Apache-2.0 */
/* What a successor makes of what its predecessor sends: pieces and records of any content end the flow that they are about, and
 * nothing else. First byte of an input: how many pieces follow; each: its kind, two bytes of length, its bytes; then the record. */
#include <stdio.h>
#include <stdlib.h>

#define CHECK(condition)                                                                                              \
	do {                                                                                                          \
		if (!(condition)) {                                                                                   \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                               \
			abort();                                                                                      \
		}                                                                                                     \
	} while (0)
#pragma clang diagnostic ignored "-Wunused-function"
#include "tests/unit/flow_world.h"
#include "tests/unit/handover_world.h"

#include "ipc/log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const kinds[] = {
#define P(ID, kind) kind,
	PARCEL_PIECES(P)
#undef P
};

static void nothing(void *arg, const struct datagram_entry *entry, const uint8_t *bytes)
{
	volatile size_t *sum = arg;
	for (uint32_t i = 0; i < entry->prefix_length + entry->length; i++)
		*sum += bytes[i];
}

/* The pieces of an input. Returns what is left. */
static size_t pieces(struct parcel *parcel, struct ipc_arena *arena, const uint8_t *data, size_t size)
{
	size_t at = 1;
	const char *why;
	for (unsigned n = size > 0 ? data[0] % 12 : 0; n > 0 && size - at >= 3; n--) {
		size_t length = (size_t)data[at + 1] << 8 | data[at + 2];
		length = length < size - at - 3 ? length : size - at - 3;
		struct ipc_handover_flow m = {kinds[data[at] % PARCEL_PIECE_COUNT], {data + at + 3, length}};
		CHECK(!parcel_take(parcel, &m, arena, &why));
		at += 3 + length;
	}
	return at;
}

/* A restored client end seeks a way; only one can be under way in this world. */
static void drop_attempt(void)
{
	world.attempt.open = false;
}

static void restore(const uint8_t *data, size_t size)
{
	static struct ipc_arena *arena;
	struct parcel parcel;
	volatile size_t sum = 0;
	const char *why = NULL;
	if (!arena)
		arena = ipc_arena_new();
	parcel_init(&parcel);
	size_t at = pieces(&parcel, arena, data, size);
	struct ipc_handover_flow m = {"flow", {data + at, size - at}};
	CHECK(parcel_take(&parcel, &m, arena, &why));
	for (unsigned i = 0; i < PARCEL_PIECE_COUNT; i++)
		parcel_each_entry(&parcel, (enum parcel_piece)i, nothing, (void *)&sum);
	if (!why)
		why = handover_restore(&next, &parcel);
	CHECK(why || next.n_flows == 1);
	if (why)
		CHECK(next.n_flows == 0);
	for (unsigned i = 0; i < n_plains; i++)
		if (!plains[i].gone && plains[i].leg.flow && next.flows)
			plain_give(&plains[i], 3);
	parcel_clear(&parcel);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static bool begun;
	if (size == 0 || size > IPC_MESSAGE_MAX)
		return 0;
	if (!begun)
		log_set_level("error");
	begun = true;
	any_datagram = true;
	handover_world_begin();
	restore(data, size);
	end_flows(&next);
	drop_attempt();
	CHECK(!next.going && next.n_parked == 0);
	CHECK(listener_holds == 0);
	free(world.at_once);
	return 0;
}

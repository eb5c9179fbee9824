/* SPDX-License-Identifier: Apache-2.0 */
/* TCP tunnels between two Hermes ends: their bytes go as capsules (capsule_stream.h), are numbered, kept until the other end has
 * acknowledged them, and sent again over another way. Nothing is dropped: when too much is kept, the plain leg is not read.
 *
 * A direction's end is numbered and acknowledged like a byte, so both directions of the HTTP stream stay open until both ends have
 * all (settled). Then the far end ends its direction, and the client end follows. */
#include <stdio.h>
#include <string.h>

#include "ipc/log.h"
#include "workers/tunnel/flow_resume.h"

#define EARLY_MAX (1024u * 1024)      /* before the far end has answered */
#define FORSAKE_US 5000000u           /* for the far end to hear that the program broke off */
#define TIGHT 16u                     /* so much less is kept while memory is short */

/* The direction from the other end to the plain leg. */
static struct side *from_peer(const struct going *g)
{
	return g->role == GOING_FAR ? &g->flow->up : &g->flow->down;
}

static bool is_end(const struct going *g)
{
	return g && g->stream && (g->role == GOING_CLIENT || g->role == GOING_FAR);
}

bool going_listens(const struct flow *flow, bool up)
{
	return is_end(flow->going) && up == (flow->going->role == GOING_FAR);
}

/* --- what the plain leg gives ------------------------------------------------------------------------------------------- */

static size_t kept_max(const struct going *g)
{
	size_t limit = g->flow->generation->config->resume_bytes;
	return slab_tight() ? limit / TIGHT : limit;
}

bool stream_credits(const struct going *g)
{
	return !g->has_id || g->kept.bytes <= kept_max(g);
}

static uint64_t kept_from(const struct going *g)
{
	return g->given - g->kept.bytes;
}

static void give(struct going *g, struct chunks *chunks)
{
	if (g->has_id)
		chunks_refer(&g->kept, chunks);
	g->given += chunks->bytes;
	g->unsent += chunks->bytes;
	stream_frame(chunks);
}

bool stream_plausible(const struct going *g, uint64_t received)
{
	return received <= g->given - g->unsent + g->gave_end;
}

/* Returns the number that what is kept begins with. */
static uint64_t forget(struct going *g, uint64_t received)
{
	if (received > g->acked)
		g->acked = received;
	if (received > kept_from(g))
		chunks_drop(&g->kept, (size_t)(received - kept_from(g)));
	return kept_from(g);
}

uint64_t stream_replay(struct going *g, uint64_t received)
{
	struct side *side = going_to_peer(g);
	uint64_t from = forget(g, received);
	chunks_clear(&side->held);
	chunks_refer(&side->held, &g->kept);
	for (struct chunk *c = side->held.head; c; c = c->next)
		c->headroom = 0;
	stream_frame(&side->held);
	if (g->gave_end)
		stream_put_end(&side->held, g->given);
	g->unsent = g->kept.bytes;
	g->ack_waits = false;
	return from;
}

/* Credits what was withheld, once there is room. */
static void acknowledged(struct going *g)
{
	struct flow *flow = g->flow;
	struct side *side = going_to_peer(g);
	struct leg *plain = g->role == GOING_FAR ? flow->out : flow->in;
	forget(g, g->reader.ack);
	if (side->held.head || side->untaken == 0 || !plain || !stream_credits(g))
		return;
	size_t taken = side->untaken;
	side->untaken = 0;
	plain->ops->taken(plain, taken);
}

/* --- what the other end sends -------------------------------------------------------------------------------------------- */

static void malformed(struct flow *flow, const char *why)
{
	flow_fail(flow, flow->going->role == GOING_FAR ? FLOW_REQUEST : FLOW_RESPONSE, why);
}

/* Takes the capsules' headers off, and credits what is no byte of the stream. */
static bool unpack(struct flow *flow, struct leg *near, struct side *side, struct chunks *chunks)
{
	size_t before = chunks->bytes;
	bool ok = stream_read(&flow->going->reader, chunks);
	side->bytes += chunks->bytes - before;
	if (chunks->bytes >= before)           /* what had waited for the mark was credited when it came */
		return ok;
	side->untaken -= before - chunks->bytes;
	near->ops->taken(near, before - chunks->bytes);
	return ok;
}

static void receive(struct flow *flow, bool up, struct chunks *chunks)
{
	struct going *g = flow->going;
	struct side *side = from_peer(g);
	if (!unpack(flow, up ? flow->in : flow->out, side, chunks))
		return malformed(flow, "what the other end sends is no capsule stream");
	if (g->reader.acked && g->reader.ack > g->acked && !stream_plausible(g, g->reader.ack))
		return malformed(flow, "the other end acknowledges what it was not sent");
	if (g->reader.acked)
		acknowledged(g);
	g->reader.acked = false;
	if (g->reader.ended)
		side->ended = true;            /* the end goes on behind what is held, as it is pumped */
	if (g->reader.move && g->role == GOING_CLIENT)
		way_asked(flow);
	g->reader.move = false;
}

/* Nobody wants it any more. */
static void discard(struct side *side, struct leg *near, struct chunks *chunks)
{
	side->untaken -= chunks->bytes;
	if (near)
		near->ops->taken(near, chunks->bytes);
	chunks_clear(chunks);
}

void stream_data(struct flow *flow, bool up, struct chunks *chunks)
{
	struct going *g = flow->going;
	if (up == (g->role == GOING_CLIENT))
		give(g, chunks);
	else if (g->forsaken || g->over)
		discard(from_peer(g), up ? flow->in : flow->out, chunks);
	else
		receive(flow, up, chunks);
}

/* --- the beginning -------------------------------------------------------------------------------------------------------- */

bool flow_offer_waits(const struct flow *flow, bool end)
{
	size_t most = flow->generation->config->resume_bytes < EARLY_MAX ? flow->generation->config->resume_bytes : EARLY_MAX;
	return flow->offered && !flow->head_sent && (end || flow->replay.bytes > most);
}

void stream_open_client(struct going *g)
{
	struct flow *flow = g->flow;
	struct side *up = &flow->up;
	struct chunks held = {0};
	chunks_move(&g->kept, &flow->replay);
	g->given = g->kept.bytes;
	g->unsent = up->held.bytes;
	chunks_move(&held, &up->held);
	for (struct chunk *c = held.head; c; c = c->next)
		c->headroom = 0;                   /* shared with what is kept */
	stream_frame(&held);
	chunks_copy(&up->held, g->id, sizeof(g->id));
	chunks_move(&up->held, &held);
	if (!up->ended)
		return;
	up->ended = false;
	g->gave_end = true;
	stream_put_end(&up->held, g->given);
}

/* --- ends ------------------------------------------------------------------------------------------------------------------ */

bool stream_settled(const struct going *g)
{
	return g->reader.ended && g->gave_end && g->acked == g->given + 1;
}

/* The client end waits for the far end's end, by which it knows that its last acknowledgement came. */
void stream_check(struct flow *flow)
{
	struct going *g = flow->going;
	if (!is_end(g) || flow->state == FLOW_STATE_ENDED || !stream_settled(g) || !from_peer(g)->finished)
		return;
	if (!g->over && going_has(g) != g->told)
		return going_acknowledge(g);       /* comes back by going_sent() */
	if (g->over || (g->role == GOING_FAR && !going_to_peer(g)->held.head))
		flow_end(flow, FLOW_NONE, FLOW_NONE);
}

bool stream_over(struct flow *flow)
{
	struct going *g = flow->going;
	if (!is_end(g) || !stream_settled(g))
		return false;
	g->over = true;
	chunks_clear(&going_to_peer(g)->held);
	stream_check(flow);
	return true;
}

/* The HTTP stream ended, and was not broken: the other end is done, or has given up. */
static void peer_finished(struct flow *flow)
{
	struct going *g = flow->going;
	if (g->forsaken)
		return flow_end(flow, FLOW_NONE, FLOW_NONE);
	if (stream_over(flow))
		return;
	if (!flow->error)
		flow->error = FLOW_TERMINATED;
	snprintf(flow->detail, sizeof(flow->detail), "the other end broke off");
	flow_end(flow, FLOW_TERMINATED, FLOW_TERMINATED);
}

bool going_finish(struct flow *flow, bool up)
{
	struct going *g = flow->going;
	if (!is_end(g))
		return false;
	if (up != (g->role == GOING_CLIENT)) {
		peer_finished(flow);
		return true;
	}
	flow->last = now_us();
	g->gave_end = true;
	stream_put_end(&going_to_peer(g)->held, g->given);
	flow_pump(flow, up);
	return true;
}

bool going_forsake(struct flow *flow, const char *why)
{
	struct going *g = flow->going;
	if (!is_end(g) || g->role != GOING_CLIENT || flow->state != FLOW_STATE_STREAMING || !flow->out || g->next ||
	    !going_keep_origin(flow))
		return false;
	flow->error = FLOW_CANCELLED;
	snprintf(flow->detail, sizeof(flow->detail), "client: %s", why);
	g->forsaken = true;
	chunks_clear(&flow->up.held);
	chunks_clear(&flow->down.held);
	chunks_clear(&g->kept);
	if (flow->down.untaken > 0)
		flow->out->ops->taken(flow->out, flow->down.untaken);
	flow->down.untaken = 0;
	flow->up.finished = true;
	flow->out->ops->finish(flow->out, NULL);
	g->until = now_us() + FORSAKE_US;
	going_arm(g);
	return true;
}

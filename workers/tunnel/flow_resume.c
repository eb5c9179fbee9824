/* SPDX-License-Identifier: Apache-2.0 */
/* Tunnels that go on: both ends count what came in whole capsules, keep what was sent and not acknowledged, and send it again
 * over another way. What was kept is sent once more at most, and only to the far end that tells what it has. */
#include "workers/tunnel/flow_resume.h"

#include <string.h>

#define ACK_BYTES (128u * 1024)       /* received and not acknowledged; an eighth of resume_bytes where that is less */
#define ACK_STREAM (2 * ACK_BYTES)    /* of TCP tunnels, which come in runs as long */
#define ACK_US 100000u                /* the latest acknowledgement of fewer */
#define PARTIAL_MAX (128u * 1024)     /* a half capsule that is kept; no leg takes one so long */

static const struct capsule_cursor new_stream;

/* --- what comes ------------------------------------------------------------------------------------------------------ */

uint64_t source_received(const struct source *s)
{
	uint64_t here = s->cursor.boundary - s->cursor.own;
	return s->base + (here > s->skip ? here : s->skip);
}

void source_rewind(struct source *s)
{
	uint64_t received = source_received(s);
	chunks_clear(&s->partial);
	*s = (struct source){.base = received};
}

/* Drops what came by the former way already: capsules, but not Hermes' own among them. Returns how many bytes it dropped. */
static size_t skip(struct source *s, struct chunks *chunks)
{
	struct capsule_cursor *cursor = &s->cursor;
	size_t dropped = 0;
	while (chunks->head) {
		uint64_t seen = cursor->offset - cursor->own;      /* may count a half capsule of Hermes' own too much */
		bool done = seen >= s->skip;
		if (done && capsule_at_boundary(cursor))
			break;
		uint64_t n = !done ? s->skip - seen : cursor->in_value && cursor->left ? cursor->left : 1;
		struct chunks piece = {0};
		chunks_split(&piece, chunks, n < chunks->bytes ? (size_t)n : chunks->bytes);
		capsule_follow(cursor, &piece);
		dropped += piece.bytes;
		chunks_clear(&piece);
	}
	if (cursor->offset - cursor->own >= s->skip && capsule_at_boundary(cursor))
		s->skip = 0;
	return dropped;
}

size_t source_take(struct source *s, struct chunks *chunks)
{
	size_t credited = s->skip ? skip(s, chunks) : 0;
	capsule_follow(&s->cursor, chunks);
	uint64_t half = s->cursor.offset - s->cursor.boundary;
	if (s->through && half > chunks->bytes)
		return credited;
	s->through = false;
	struct chunks all = {0}, rest = {0};
	chunks_move(&all, &s->partial);
	if (half > chunks->bytes) {            /* no capsule ends here */
		credited += chunks->bytes;
		chunks_move(&all, chunks);
		if (all.bytes > PARTIAL_MAX) {
			s->through = true;
			chunks_move(chunks, &all);
		}
		chunks_move(&s->partial, &all);
		return credited;
	}
	credited += (size_t)half;
	chunks_split(&all, chunks, chunks->bytes - (size_t)half);
	chunks_move(&rest, chunks);
	chunks_move(chunks, &all);
	chunks_move(&s->partial, &rest);
	return credited;
}

/* --- what goes ------------------------------------------------------------------------------------------------------- */

struct side *going_to_peer(struct going *g)
{
	return g->role == GOING_FAR ? &g->flow->down : &g->flow->up;
}

/* `from` keeps its headroom, since nobody writes before what is kept. */
void chunks_refer(struct chunks *to, const struct chunks *from)
{
	for (const struct chunk *c = from->head; c; c = c->next)
		chunks_append(to, chunk_new(c->slab, c->data, c->length, 0));
}

static uint64_t kept_from(const struct going *g)
{
	return g->given - g->kept.bytes;
}

/* At least so many of the oldest, and the rest of a capsule. */
static void forget(struct going *g, size_t bytes)
{
	struct capsule_cursor *cursor = &g->forgotten;
	while (g->kept.head && (bytes > 0 || !capsule_at_boundary(cursor))) {
		struct chunks piece = {0};
		size_t n = bytes ? bytes : cursor->in_value && cursor->left ? (size_t)cursor->left : 1;
		chunks_split(&piece, &g->kept, n < g->kept.bytes ? n : g->kept.bytes);
		bytes -= bytes < piece.bytes ? bytes : piece.bytes;
		capsule_follow(cursor, &piece);
		chunks_clear(&piece);
	}
}

static void keep(struct going *g, const struct chunks *chunks)
{
	if (!g->has_id)
		return;
	size_t limit = g->flow->generation->config->resume_bytes;
	chunks_refer(&g->kept, chunks);
	g->given += chunks->bytes;
	g->unsent += chunks->bytes;
	limit += g->unsent;
	if (g->kept.bytes > limit)
		forget(g, g->kept.bytes - limit);
}

static void acknowledged(struct going *g)
{
	uint64_t ack = g->from.cursor.ack;
	if (ack <= g->acked || ack > g->given - g->unsent)
		return;
	g->acked = ack;
	if (ack <= kept_from(g))
		return;
	chunks_drop(&g->kept, (size_t)(ack - kept_from(g)));
	g->forgotten = new_stream;
}

bool going_plausible(const struct going *g, uint64_t received)
{
	if (g->stream)
		return stream_plausible(g, received);
	return received <= g->given - g->unsent;
}

uint64_t going_replay(struct going *g, uint64_t received)
{
	if (g->stream)
		return stream_replay(g, received);
	struct side *side = going_to_peer(g);
	if (received > g->acked)
		g->acked = received;
	if (received > kept_from(g)) {
		chunks_drop(&g->kept, (size_t)(received - kept_from(g)));
		g->forgotten = new_stream;
	}
	chunks_clear(&side->held);
	chunks_refer(&side->held, &g->kept);
	g->unsent = g->kept.bytes;
	g->ack_waits = false;
	return kept_from(g);
}

void going_begin_anew(struct going *g, bool has_id)
{
	struct side *side = going_to_peer(g);
	if (g->has_id) {                       /* without the acknowledgements to the former far end */
		chunks_drop(&g->kept, g->kept.bytes - g->unsent);
		chunks_clear(&side->held);
		chunks_move(&side->held, &g->kept);
	}
	chunks_clear(&g->kept);
	g->has_id = has_id;
	g->given = g->acked = g->told = 0;
	g->unsent = 0;
	g->ack_waits = false;
	g->forgotten = new_stream;
	if (g->role != GOING_BOTH)
		keep(g, &side->held);
}

/* --- Hermes' own capsules -------------------------------------------------------------------------------------------- */

static bool peer_is_there(const struct going *g)
{
	const struct flow *flow = g->flow;
	return flow->state == FLOW_STATE_STREAMING && (g->role == GOING_CLIENT ? flow->out && flow->out_ready : flow->in != NULL);
}

uint64_t going_has(const struct going *g)
{
	return g->stream ? stream_received(&g->reader) : source_received(&g->from);
}

void going_acknowledge(struct going *g)
{
	struct side *side = going_to_peer(g);
	uint8_t value[VARINT_MAX];
	uint64_t received = going_has(g);
	g->ack_at = 0;
	if (received == g->told || g->ack_waits || !peer_is_there(g) || side->ended || g->forsaken)
		return;
	capsule_put(&side->held, CAPSULE_HERMES_ACK, value, varint_put(value, received));
	g->told = received;
	g->ack_waits = true;
	flow_pump(g->flow, g->role == GOING_CLIENT);
}

/* Puts the wish in at the last capsule's end, if there is one in `chunks` or right before what comes next. */
static void put_move(struct going *g, struct chunks *chunks)
{
	uint64_t half = g->role == GOING_RELAY ? g->from.cursor.offset - g->from.cursor.boundary : 0;
	struct chunks rest = {0}, first = {0};
	if (half > chunks->bytes)
		return;
	chunks_split(&first, chunks, chunks->bytes - (size_t)half);
	chunks_move(&rest, chunks);
	capsule_put(&first, CAPSULE_HERMES_MOVE, NULL, 0);
	chunks_move(&first, &rest);
	chunks_move(chunks, &first);
	g->move_due = false;
}

/* --- up-calls -------------------------------------------------------------------------------------------------------- */

static void credit(struct flow *flow, bool up, size_t bytes)
{
	struct leg *near = up ? flow->in : flow->out;
	(up ? &flow->up : &flow->down)->untaken -= bytes;
	if (near && bytes)
		near->ops->taken(near, bytes);
}

void going_data(struct flow *flow, bool up, struct chunks *chunks)
{
	struct going *g = flow->going;
	if (g->role == GOING_BOTH || (g->role == GOING_RELAY && up))
		return;
	if (g->role == GOING_RELAY) {
		capsule_follow(&g->from.cursor, chunks);
		if (g->move_due)
			put_move(g, chunks);
		return;
	}
	if (g->stream)
		return stream_data(flow, up, chunks);
	if (up == (g->role == GOING_CLIENT))
		return keep(g, chunks);
	credit(flow, up, source_take(&g->from, chunks));
	if (g->has_id)
		acknowledged(g);
	if (g->from.cursor.move && g->role == GOING_CLIENT)
		way_asked(flow);
	g->from.cursor.move = false;
}

void going_received(struct flow *flow)
{
	struct going *g = flow->going;
	if (!g->has_id || (g->role != GOING_CLIENT && g->role != GOING_FAR))
		return;
	uint64_t waiting = going_has(g) - g->told, most = flow->generation->config->resume_bytes / 8;
	uint64_t usual = g->stream ? ACK_STREAM : ACK_BYTES;
	if (waiting >= (most < usual ? most : usual) || (g->reader.ended && waiting > 0)) {
		going_acknowledge(g);
	} else if (waiting > 0 && !g->ack_at) {
		g->ack_at = flow->last + ACK_US;
		going_arm(g);
	}
	stream_check(flow);
}

bool going_credits(const struct flow *flow, bool up)
{
	const struct going *g = flow->going;
	return !g || !g->stream || g->role == GOING_RELAY || up != (g->role == GOING_CLIENT) || stream_credits(g);
}

void going_sent(struct flow *flow, bool up)
{
	struct going *g = flow->going;
	if (up == (g->role == GOING_CLIENT)) {
		g->unsent = 0;
		g->ack_waits = false;
		stream_check(flow);
	}
	if (up || !g->old_untaken)
		return;
	size_t taken = g->old_untaken;
	g->old_untaken = 0;
	if (g->old)
		g->old->ops->taken(g->old, taken);
}

/* --- time ------------------------------------------------------------------------------------------------------------ */

static uint64_t earliest(uint64_t a, uint64_t b)
{
	return !a ? b : !b ? a : a < b ? a : b;
}

void going_arm(struct going *g)
{
	uint64_t at = earliest(earliest(g->ack_at, g->retry_at), earliest(g->way_until, earliest(g->drained_at, g->until)));
	if (!at)
		return;
	uint64_t now = now_us(), wait = at > now ? at - now : 0;
	struct timeval delay = {.tv_sec = (time_t)(wait / 1000000), .tv_usec = (suseconds_t)(wait % 1000000)};
	event_add(&g->timer, &delay);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct going *g = arg;
	struct flow *flow = g->flow;
	uint64_t now = now_us();
	(void)fd, (void)what;
	flow_enter(flow);
	if (g->ack_at && now >= g->ack_at) {
		chunks_settle(&g->from.partial);
		chunks_settle(&g->kept);
		going_acknowledge(g);
	}
	way_on_timer(flow, now);
	if (flow->state != FLOW_STATE_ENDED)
		going_arm(g);
	flow_leave(flow);
}

/* --- life ------------------------------------------------------------------------------------------------------------ */

struct going *going_new(struct flow *flow, enum going_role role)
{
	struct going *g = calloc(1, sizeof(*g));
	if (!g)
		abort();
	g->flow = flow;
	g->role = role;
	event_assign(&g->timer, flow->tunnel->base, -1, 0, on_timer, g);
	return flow->going = g;
}

/* The client end is told by a clean end, not by a reset, which would only make it come back. */
static bool end_cleanly(struct flow *flow)
{
	struct leg *in = flow->in;
	if (flow->going->role != GOING_FAR || !flow->going->has_id || !in)
		return false;
	if (!flow->down.finished)
		in->ops->finish(in, NULL);
	flow->down.finished = true;
	return true;
}

bool going_end(struct flow *flow)
{
	struct going *g = flow->going;
	struct leg *old = g->old, *next = g->next;
	bool cleanly = end_cleanly(flow);
	if (g->role == GOING_FAR && g->has_id)
		HASH_DEL(flow->tunnel->going, g);
	flow->tunnel->n_parked -= flow->state == FLOW_STATE_PARKED;
	g->has_id = false;
	event_del(&g->timer);
	g->old = g->next = NULL;
	if (old)
		old->ops->close(old, FLOW_CANCELLED);
	if (next)
		next->ops->close(next, FLOW_CANCELLED);
	return cleanly;
}

void going_free(struct going *g)
{
	if (!g)
		return;
	event_del(&g->timer);
	chunks_clear(&g->kept);
	chunks_clear(&g->from.partial);
	chunks_clear(&g->old_from.partial);
	decision_unref(g->decision);
	free(g);
}

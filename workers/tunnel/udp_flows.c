/* SPDX-License-Identifier: Apache-2.0 */
/* UDP flows of programs: the table, their begin and end, and datagrams on their way up. */
#include <event2/event.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "workers/tunnel/masque.h"
#include "workers/tunnel/source_text.h"
#include "workers/tunnel/udp_capsule.h"
#include "workers/tunnel/udp_flows_internal.h"

#define REFUSED_US 1000000u       /* a refusal is remembered so long: a flood asks no storm of questions */
#define GIVE_AT (128u * 1024)     /* of capsules: do not wait for the end of the batch */
#define QUEUE_TIGHT (16u * 1024)  /* of a flow's queue, while all queues together are long */

static size_t queued_total;       /* in all queues of the worker */

/* --- memory ------------------------------------------------------------------------------------------------------- */

static void all_unref(struct udp_flows *all)
{
	if (--all->alive > 0)
		return;
	event_free(all->forget);
	free(all->buckets);
	free(all);
}

void udp_flow_account(struct udp_flow *f)
{
	queued_total += f->queue.bytes - f->queued;
	f->queued = f->queue.bytes;
}

struct udp_flow *udp_flow_ref(struct udp_flow *f)
{
	f->refs++;
	return f;
}

void udp_flow_unref(struct udp_flow *f)
{
	struct udp_flows *all = f->all;
	if (--f->refs > 0)
		return;
	datagram_queue_clear(&f->queue);
	udp_flow_account(f);
	chunks_clear(&f->gathered);
	chunks_clear(&f->out);
	capsule_reader_reset(&f->reader);
	udp_socket_unref(f->socket);
	if (all->held)
		all->held(all->arg, -1);
	free(f);
	all_unref(all);
}

/* --- up ----------------------------------------------------------------------------------------------------------- */

static bool has_room(const struct udp_flow *f)
{
	return f->state == UDP_FLOW_JOINED && f->outstanding + f->gathered.bytes < slab_allowance();
}

static void gather_queued(struct udp_flow *f)
{
	const struct datagram_entry *entry;
	while (has_room(f) && (entry = datagram_queue_first(&f->queue))) {
		udp_capsule_put(&f->gathered, f->segments, entry->data, entry->length, entry->segment);
		datagram_queue_pop(&f->queue);
	}
	udp_flow_account(f);
}

static void end_if_closing(struct udp_flow *f)
{
	if (f->all->closing && f->state == UDP_FLOW_JOINED && f->queue.bytes == 0 && f->gathered.bytes == 0)
		flow_finish(f->leg.flow, &f->leg, NULL);
}

/* Hands over what was gathered, and what waits in the queue, as far as the far leg keeps up. */
static void give(struct udp_flow *f)
{
	if (f->giving || f->state != UDP_FLOW_JOINED)
		return;
	udp_flow_ref(f);
	f->giving = true;
	for (;;) {
		gather_queued(f);
		if (!f->gathered.head)
			break;
		struct chunks capsules = {0};
		chunks_move(&capsules, &f->gathered);
		f->outstanding += capsules.bytes;
		flow_data(f->leg.flow, &f->leg, &capsules);
		if (f->state != UDP_FLOW_JOINED)
			break;
	}
	f->giving = false;
	end_if_closing(f);
	udp_flow_unref(f);
}

/* Of all queues together at most an eighth of what the worker may buffer, but for a little per flow. */
static void enqueue(struct udp_flow *f, const uint8_t *data, size_t length, uint32_t segment)
{
	const struct config *config = f->all->tunnel->current->config;
	bool tight = queued_total > config->memory / 8;
	f->queue.limit = tight && config->datagram_queue > QUEUE_TIGHT ? QUEUE_TIGHT : (size_t)config->datagram_queue;
	datagram_queue_add(&f->queue, segment, NULL, 0, data, length);
	udp_flow_account(f);
}

void udp_flow_take(struct udp_flow *f, const uint8_t *data, size_t length, uint32_t segment)
{
	struct udp_flows *all = f->all;
	if (f->state == UDP_FLOW_REFUSED || f->state == UDP_FLOW_OVER)
		return datagram_count_drop(all->listener->stats, STATS_LISTENER_DROP_NO_TUNNEL, segment, length);
	if (has_room(f) && STAILQ_EMPTY(&f->queue.entries))
		udp_capsule_put(&f->gathered, f->segments, data, (uint32_t)length, segment);
	else
		enqueue(f, data, length, segment);
	if (f->gathered.bytes >= GIVE_AT)
		return give(f);
	if (f->is_gathered)
		return;
	f->is_gathered = true;
	TAILQ_INSERT_TAIL(&all->gathered, f, gathered_link);
}

static void not_gathered(struct udp_flow *f)
{
	if (f->is_gathered)
		TAILQ_REMOVE(&f->all->gathered, f, gathered_link);
	f->is_gathered = false;
}

void udp_flows_give(struct udp_flows *all)
{
	struct udp_flow *f;
	all->alive++;
	while ((f = TAILQ_FIRST(&all->gathered))) {
		not_gathered(f);
		give(f);
	}
	all_unref(all);
}

/* --- from the flow ------------------------------------------------------------------------------------------------ */

static void drop_queued(struct udp_flow *f)
{
	const struct datagram_entry *entry;
	while ((entry = datagram_queue_first(&f->queue))) {
		datagram_count_drop(f->all->listener->stats, STATS_LISTENER_DROP_NO_TUNNEL, entry->segment, entry->length);
		datagram_queue_pop(&f->queue);
	}
	udp_flow_account(f);
}

static void leg_head(struct leg *leg, const struct head *response, bool end)
{
	static const struct timeval later = {.tv_sec = 1};
	struct udp_flow *f = (struct udp_flow *)leg;
	struct udp_flows *all = f->all;
	(void)end;
	if (response->status < 300 || f->state != UDP_FLOW_BEGUN)
		return;
	drop_queued(f);
	f->forget_at = now_us() + REFUSED_US;
	if (TAILQ_EMPTY(&all->refused))
		event_add(all->forget, &later);
	udp_flow_set_state(f, UDP_FLOW_REFUSED);
}

static bool open_for_answers(const struct udp_flow *f)
{
	return f->state == UDP_FLOW_JOINED || f->state == UDP_FLOW_ENDING;
}

static void leg_joined(struct leg *leg, const struct join *join)
{
	struct udp_flow *f = (struct udp_flow *)leg;
	if (open_for_answers(f))
		udp_answers_restart(f);
	if (f->state == UDP_FLOW_BEGUN)
		udp_flow_set_state(f, UDP_FLOW_JOINED);
	f->segments = join->segments;
	give(f);
}

static bool leg_send(struct leg *leg, struct chunks *chunks)
{
	struct udp_flow *f = (struct udp_flow *)leg;
	if (open_for_answers(f))
		return udp_answers_take(f, chunks);
	chunks_clear(chunks);           /* the text of a refusal */
	return true;
}

static void leg_finish(struct leg *leg, const struct head *trailers)
{
	struct udp_flow *f = (struct udp_flow *)leg;
	(void)trailers;
	if (open_for_answers(f))
		udp_answers_last(f);
}

static void leg_taken(struct leg *leg, size_t bytes)
{
	struct udp_flow *f = (struct udp_flow *)leg;
	f->outstanding -= bytes;
	if (!STAILQ_EMPTY(&f->queue.entries) || f->all->closing)
		give(f);
}

/* Drops the flow's reference. */
static void over(struct udp_flow *f)
{
	f->leg.flow = NULL;
	not_gathered(f);
	if (f->state != UDP_FLOW_REFUSED || f->all->closing) {   /* a refusal is remembered for a while */
		drop_queued(f);
		udp_table_remove(f, UDP_FLOW_OVER);
	}
	udp_flow_unref(f);
}

static void leg_close(struct leg *leg, enum flow_error error)
{
	struct udp_flow *f = (struct udp_flow *)leg;
	udp_flow_ref(f);
	udp_answers_close(f, error == FLOW_NONE);
	over(f);
	udp_flow_unref(f);
}

/* The next datagram begins another flow; answers that are under way still leave. */
static void leg_idle(struct leg *leg)
{
	struct udp_flow *f = (struct udp_flow *)leg;
	not_gathered(f);
	udp_table_remove(f, UDP_FLOW_ENDING);
	flow_finish(leg->flow, leg, NULL);
}

static size_t leg_waiting(const struct leg *leg)
{
	return ((const struct udp_flow *)leg)->out.bytes;
}

static const struct leg_ops ops = {
	.kind = "udp",
	.head = leg_head,
	.send = leg_send,
	.finish = leg_finish,
	.taken = leg_taken,
	.close = leg_close,
	.waiting = leg_waiting,
	.joined = leg_joined,
	.idle = leg_idle,
	.hand_over = udp_flow_hand_over,
};

/* --- from the way back -------------------------------------------------------------------------------------------- */

void udp_flow_end(struct udp_flow *f)
{
	if (f->leg.flow)
		flow_finish(f->leg.flow, &f->leg, NULL);
}

void udp_flow_break(struct udp_flow *f, enum flow_error error, const char *detail)
{
	struct flow *flow = f->leg.flow;
	if (!flow)
		return;
	udp_flow_ref(f);
	f->leg.flow = NULL;
	flow_broken(flow, &f->leg, error, detail);
	udp_answers_close(f, false);
	over(f);
	udp_flow_unref(f);
}

/* --- begin -------------------------------------------------------------------------------------------------------- */

struct udp_flow *udp_flow_make(struct udp_flows *all, const struct udp_begin *begin)
{
	const struct config *config = all->tunnel->current->config;
	struct udp_flow *f = calloc(1, sizeof(*f) + begin->key_length + begin->header_length);
	if (!f)
		abort();
	*f = (struct udp_flow){.leg = {.ops = &ops}, .all = all, .refs = 2, .client = *begin->client,
	                       .hash = udp_table_hash(all, begin->key, begin->key_length),
	                       .key_length = (uint16_t)begin->key_length, .header_length = (uint16_t)begin->header_length};
	memcpy(f->key, begin->key, begin->key_length);
	if (begin->header_length > 0)
		memcpy(f->key + begin->key_length, begin->header, begin->header_length);
	f->has_local = begin->local != NULL;
	if (begin->local)
		f->local = *begin->local;
	if (begin->socket)
		f->socket = udp_socket_ref(begin->socket);
	f->origin = (struct origin){.listener = all->listener, .source = &f->client, .carry = begin->carry,
	                            .proven_user = begin->user};
	source_text(&f->client, f->origin.source_text, sizeof(f->origin.source_text), &f->origin.source_port);
	datagram_queue_init(&f->queue, (size_t)config->datagram_queue, (uint64_t)config->datagram_age * 1000,
	                    all->listener->stats);
	udp_answers_init(f);
	all->alive++;
	if (all->held)
		all->held(all->arg, 1);
	udp_table_insert(f);
	return f;
}

/* Room for one more; those that were refused go first, the oldest before the others. */
static bool make_room(struct udp_flows *all)
{
	uint32_t flows = all->listener->config->limits.flows;
	if (all->n < all->limit && all->listener->udp_flows < flows)
		return true;
	if (TAILQ_EMPTY(&all->refused))
		return false;
	udp_table_remove(TAILQ_FIRST(&all->refused), UDP_FLOW_OVER);
	return all->n < all->limit && all->listener->udp_flows < flows;
}

struct udp_flow *udp_flows_begin(struct udp_flows *all, const struct udp_begin *begin)
{
	struct head *request = all->closing ? NULL : masque_udp_request(begin->target);
	if (!request || !make_room(all)) {
		head_free(request);
		stats_add(all->listener->stats, STATS_LISTENER_DROP_TABLE_FULL, 1);
		return NULL;
	}
	struct udp_flow *f = udp_flow_make(all, begin);
	flow_new(all->tunnel, &f->origin, &f->leg, request, false);
	return f;
}

/* --- all of them -------------------------------------------------------------------------------------------------- */

struct udp_flows *udp_flows_new(struct tunnel *tunnel, struct listener *listener, unsigned limit,
                                void (*held)(void *arg, int change), void *arg)
{
	struct udp_flows *all = calloc(1, sizeof(*all));
	if (!all)
		abort();
	*all = (struct udp_flows){.tunnel = tunnel, .listener = listener, .limit = limit, .held = held, .arg = arg,
	                          .alive = 1};
	TAILQ_INIT(&all->gathered);
	TAILQ_INIT(&all->refused);
	TAILQ_INIT(&all->ending);
	all->forget = event_new(tunnel->base, -1, 0, udp_table_on_forget, all);
	if (!all->forget)
		abort();
	if (getrandom(&all->seed, sizeof(all->seed), GRND_NONBLOCK) < 0)
		all->seed = now_us() ^ (uint64_t)(uintptr_t)all;
	return all;
}

/* Each flow may go by what is done to it, and no other. */
static void each(struct udp_flows *all, void (*what)(struct udp_flow *f))
{
	for (unsigned i = 0; i < all->n_buckets; i++)
		for (struct udp_flow *f = all->buckets[i], *next; f; f = next) {
			next = f->next;
			what(f);
		}
}

static void end_soon(struct udp_flow *f)
{
	if (f->leg.flow)
		give(f);                /* and then ends it; one that is not joined, ends when it is */
	else
		udp_table_remove(f, UDP_FLOW_OVER);
}

static void end_now(struct udp_flow *f)
{
	if (f->leg.flow)
		udp_flow_break(f, FLOW_CANCELLED, "the association ended");
	else
		udp_table_remove(f, UDP_FLOW_OVER);
}

void udp_flows_close(struct udp_flows *all)
{
	all->closing = true;
	each(all, end_soon);
	all_unref(all);
}

void udp_flows_free(struct udp_flows *all)
{
	struct udp_flow *f;
	all->closing = true;
	each(all, end_now);
	while ((f = TAILQ_FIRST(&all->ending)))
		end_now(f);
	all_unref(all);
}

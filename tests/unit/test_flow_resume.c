/* SPDX-License-Identifier: Apache-2.0 */
/* Tunnels that go on: a client end and its far ends, both real flows, with links between them that break, and plain legs that
 * number what they give and check what they get. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define CHECK(condition) assert_true(condition)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#include "tests/unit/flow_world.h"
#pragma GCC diagnostic pop
#include "workers/tunnel/capsule.h"
#include "workers/tunnel/flow_drain.h"
#include "workers/tunnel/flow_resume.h"
#include "workers/tunnel/masque.h"

#define NUMBERS 100000u
#define NODES 4

/* --- plain legs: numbered datagrams ------------------------------------------------------------------------------------- */

struct plain {
	struct leg leg;
	struct flow *flow;            /* as leg.flow, for after the end */
	bool in, open, refuse, finished, gone;
	unsigned joins, fresh;
	unsigned series;              /* who gives; the other end checks by it */
	uint32_t gave, got;
	size_t untaken, padding;
	uint8_t seen[2][NUMBERS];     /* by series of the giver */
	uint32_t last;
	bool in_order;
	struct capsule_reader reader;
};
static struct plain plains[NODES];
static unsigned n_plains;

static bool on_datagram(void *arg, uint64_t context, const struct capsule_piece *pieces, unsigned n, size_t length)
{
	struct plain *p = arg;
	uint32_t head[2];
	uint8_t bytes[sizeof(head)];
	size_t have = 0;
	CHECK(context == 0 && length >= sizeof(head));
	for (unsigned i = 0; i < n && have < sizeof(bytes); i++)
		for (uint32_t j = 0; j < pieces[i].length && have < sizeof(bytes); j++)
			bytes[have++] = pieces[i].data[j];
	memcpy(head, bytes, sizeof(head));
	CHECK(head[0] < 2 && head[1] < NUMBERS && head[0] != p->series);
	CHECK(p->seen[head[0]][head[1]] == 0);
	CHECK(!p->in_order || head[1] == p->got);
	p->seen[head[0]][head[1]]++;
	p->got++;
	return true;
}

static void plain_give(struct plain *p, unsigned n, size_t padding)
{
	static uint8_t zero[70000];
	struct chunks chunks = {0};
	CHECK(p->open && !p->gone && n > 0);
	for (unsigned i = 0; i < n; i++) {
		uint32_t head[2] = {p->series, p->gave++};
		capsule_put_datagram(&chunks, 0, head, sizeof(head), zero, padding);
	}
	p->untaken += chunks.bytes;
	flow_data(p->leg.flow, &p->leg, &chunks);
}

static void plain_head(struct leg *leg, const struct head *head, bool end)
{
	struct plain *p = (struct plain *)leg;
	(void)end;
	if (p->in)
		return CHECK(head->status == 200);
	struct head *response = masque_response();
	flow_head(leg->flow, leg, response, false);
}

static bool plain_send(struct leg *leg, struct chunks *chunks)
{
	static const struct capsule_callbacks callbacks = {.datagram = on_datagram};
	struct plain *p = (struct plain *)leg;
	CHECK(p->open && !p->finished && !p->gone);
	if (p->refuse)
		return false;
	p->reader.callbacks = &callbacks;
	p->reader.arg = p;
	CHECK(capsule_read(&p->reader, chunks) == CAPSULE_OK);
	CHECK(capsule_read_end(&p->reader));    /* only whole capsules come */
	return true;
}

static void plain_finish(struct leg *leg, const struct head *trailers)
{
	struct plain *p = (struct plain *)leg;
	(void)trailers;
	p->finished = true;
}

static void plain_taken(struct leg *leg, size_t bytes)
{
	struct plain *p = (struct plain *)leg;
	CHECK(bytes <= p->untaken);
	p->untaken -= bytes;
}

static void plain_close(struct leg *leg, enum flow_error error)
{
	struct plain *p = (struct plain *)leg;
	(void)error;
	CHECK(!p->gone);
	p->gone = true;
	leg->flow = NULL;
	capsule_reader_reset(&p->reader);
}

static void plain_joined(struct leg *leg, const struct join *join)
{
	struct plain *p = (struct plain *)leg;
	p->open = true;
	p->joins++;
	p->fresh += join->fresh;
}

static const struct leg_ops plain_ops = {.kind = "udp", .head = plain_head, .send = plain_send, .finish = plain_finish,
                                         .taken = plain_taken, .close = plain_close, .joined = plain_joined};

static struct plain *plain_new(bool in)
{
	CHECK(n_plains < NODES);
	struct plain *p = &plains[n_plains++];
	memset(p, 0, sizeof(*p));
	p->leg.ops = &plain_ops;
	p->in = in;
	p->series = in ? 0 : 1;
	p->in_order = true;
	return p;
}

/* --- links: HTTP in between, as far as flows see it ---------------------------------------------------------------------- */

struct half {
	struct leg leg;
	struct link *link;
	bool in;                      /* the far end's in leg */
	bool gone, refuse;
	size_t given, taken;
	struct chunks out;            /* sent, on its way to the other half's flow */
	bool ended;                   /* finish() was called */
};
struct link {
	struct half a, b;             /* the client's out leg, the far end's in leg */
	struct head *request, *response;
	unsigned status;              /* answer of a hop that is no far end; 0: a far end */
};
static struct link *links[256];
static unsigned n_links;

static void half_head(struct leg *leg, const struct head *head, bool end)
{
	struct half *h = (struct half *)leg;
	(void)end;
	if (h->in)
		h->link->response = head_clone(head);
	else
		h->link->request = head_clone(head);
}

static bool half_send(struct leg *leg, struct chunks *chunks)
{
	struct half *h = (struct half *)leg;
	CHECK(!h->gone && !h->ended);
	if (h->refuse)
		return false;
	chunks_move(&h->out, chunks);
	return true;
}

static void half_finish(struct leg *leg, const struct head *trailers)
{
	struct half *h = (struct half *)leg;
	(void)trailers;
	CHECK(!h->ended);
	h->ended = true;
}

static void half_taken(struct leg *leg, size_t bytes)
{
	struct half *h = (struct half *)leg;
	h->taken += bytes;
	CHECK(h->taken <= h->given);
}

static void half_close(struct leg *leg, enum flow_error error)
{
	struct half *h = (struct half *)leg;
	(void)error;
	CHECK(!h->gone);
	h->gone = true;
	leg->flow = NULL;
}

static const struct leg_ops half_ops = {.kind = "h2", .head = half_head, .send = half_send, .finish = half_finish,
                                        .taken = half_taken, .close = half_close};

/* The client's attempt comes to something. */
static struct link *link_open(void)
{
	struct link *link = calloc(1, sizeof(*link));
	CHECK(link && n_links < 256);
	links[n_links++] = link;
	link->a = (struct half){.leg = {.ops = &half_ops}, .link = link};
	link->b = (struct half){.leg = {.ops = &half_ops}, .link = link, .in = true};
	CHECK(world.attempt.open);
	world.attempt.open = false;
	struct flow *flow = world.attempt.flow;
	link->a.leg.flow = flow;
	flow_opened(flow, &link->a.leg);
	return link;
}

/* The request arrives at a far end; a new leg towards the target where it begins a tunnel. Returns that, or NULL: joined. */
static struct plain *link_arrive(struct link *link)
{
	struct plain *plain = NULL;
	CHECK(link->request);
	flow_new(&world.tunnel, &world.origin, &link->b.leg, head_clone(link->request), false);
	if (world.attempt.open) {
		world.attempt.open = false;
		plain = plain_new(false);
		plain->leg.flow = plain->flow = world.attempt.flow;
		flow_opened(world.attempt.flow, &plain->leg);
	}
	return plain;
}

static void link_respond(struct link *link)
{
	CHECK(link->response && link->a.leg.flow);
	struct head *response = link->response;
	link->response = NULL;
	flow_head(link->a.leg.flow, &link->a.leg, response, false);
}

/* Bytes of one half reach the other's flow. */
static void carry(struct half *from, struct half *to, size_t bytes)
{
	struct chunks chunks = {0};
	chunks_split(&chunks, &from->out, bytes);
	if (!chunks.head)
		return;
	if (!to->leg.flow)
		return chunks_clear(&chunks);
	to->given += chunks.bytes;
	flow_data(to->leg.flow, &to->leg, &chunks);
}

static void carry_all(struct link *link)
{
	for (int i = 0; i < 4; i++) {
		carry(&link->a, &link->b, SIZE_MAX);
		carry(&link->b, &link->a, SIZE_MAX);
	}
}

static void half_break(struct half *h)
{
	struct flow *flow = h->leg.flow;
	chunks_clear(&h->out);
	if (!flow)
		return;
	h->gone = true;
	h->leg.flow = NULL;
	flow_broken(flow, &h->leg, h->in ? FLOW_CANCELLED : FLOW_TERMINATED, "it broke");
}

static void link_break(struct link *link)
{
	half_break(&link->a);
	half_break(&link->b);
}

/* --- set-up ----------------------------------------------------------------------------------------------------------------- */

static void hold(struct listener *listener, int change)
{
	(void)listener;
	world.reports_bad += (unsigned)change;    /* who holds the listener */
}

static struct decision *decision_to(const char *cluster)
{
	struct decision *d = decision_new();
	d->cluster = (char *)cluster;
	d->cluster_stats = stats_set(world.tunnel.stats, STATS_CLUSTER, cluster);
	return d;
}

static int setup(void **state)
{
	(void)state;
	world_begin();
	world.config.resume_timeout = 30000;
	world.config.resume_bytes = 1024 * 1024;
	world.origin.hold = hold;
	world.at_once = decision_to("c");
	n_plains = n_links = 0;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	for (unsigned i = 0; i < n_links; i++) {
		half_break(&links[i]->a);
		half_break(&links[i]->b);
		head_free(links[i]->request);
		head_free(links[i]->response);
		free(links[i]);
	}
	while (world.tunnel.flows && world.tunnel.flows->state != FLOW_STATE_ENDED) {
		struct flow *flow = world.tunnel.flows;
		flow_enter(flow);
		flow_end(flow, FLOW_NONE, FLOW_NONE);
		flow_leave(flow);
	}
	assert_int_equal(world.tunnel.n_parked, 0);
	assert_null(world.tunnel.going);
	assert_int_equal(world.reports_bad, 0);
	world_end();
	return 0;
}

static struct plain *client_begin(void)
{
	struct plain *p = plain_new(true);
	struct head *request = masque_udp_request("192.0.2.9:53");
	flow_new(&world.tunnel, &world.origin, &p->leg, request, false);
	p->flow = p->leg.flow;
	return p;
}

struct pair { struct plain *client, *far; struct link *link; };

static struct pair tunnel(void)
{
	struct pair t = {.client = client_begin()};
	t.link = link_open();
	t.far = link_arrive(t.link);
	link_respond(t.link);
	CHECK(t.client->open && t.far->open && t.client->fresh == 1 && t.far->fresh == 1);
	return t;
}

static void time_passes(struct flow *flow, uint64_t ms)
{
	world.now += ms * 1000;
	if (!flow->going || !event_pending(&flow->going->timer, EV_TIMEOUT, NULL))
		return;
	event_del(&flow->going->timer);
	event_get_callback(&flow->going->timer)(-1, 0, flow->going);
}

/* The client end comes back over a new link. */
static void come_back(struct pair *t)
{
	t->link = link_open();
	CHECK(!link_arrive(t->link));
	link_respond(t->link);
}

static void all_arrived(const struct pair *t)
{
	assert_int_equal(t->client->got, t->far->gave);
	assert_int_equal(t->far->got, t->client->gave);
	assert_int_equal(t->client->untaken, 0);
	assert_int_equal(t->far->untaken, 0);
}

/* --- the tests ------------------------------------------------------------------------------------------------------------ */

static void goes_on_after_a_break(void **state)
{
	(void)state;
	struct pair t = tunnel();
	plain_give(t.client, 10, 100);
	plain_give(t.far, 7, 50);
	carry(&t.link->a, &t.link->b, 555);       /* half a capsule */
	carry(&t.link->b, &t.link->a, 111);
	link_break(t.link);
	assert_int_equal(t.client->flow->state, FLOW_STATE_RESUMING);
	assert_int_equal(t.far->flow->state, FLOW_STATE_PARKED);
	assert_int_equal(world.reports_bad, 1);   /* the parked one keeps its listener */
	plain_give(t.client, 3, 0);               /* waits */
	plain_give(t.far, 3, 0);
	come_back(&t);
	assert_int_equal(world.reports_bad, 0);
	carry_all(t.link);
	all_arrived(&t);
	assert_int_equal(t.client->joins, 2);
	assert_int_equal(t.client->fresh, 1);     /* the same far end */
	assert_int_equal(world.records, 0);       /* the one that joined leaves none */
	assert_int_equal(world.tunnel.n_flows, 2);
}

static void the_far_end_need_not_have_noticed(void **state)
{
	(void)state;
	struct pair t = tunnel();
	struct link *former = t.link;
	plain_give(t.client, 10, 1000);
	plain_give(t.far, 10, 1000);
	carry(&t.link->a, &t.link->b, 3333);
	half_break(&t.link->a);
	plain_give(t.far, 5, 10);
	come_back(&t);
	assert_true(former->b.gone);
	carry_all(t.link);
	all_arrived(&t);
}

static void what_is_acknowledged_is_let_go(void **state)
{
	(void)state;
	struct pair t = tunnel();
	for (int i = 0; i < 200; i++) {
		plain_give(t.client, 1, 1000);
		carry_all(t.link);
	}
	assert_true(t.client->flow->going->kept.bytes < 128 * 1024 + 2000);
	plain_give(t.client, 1, 10);
	carry_all(t.link);
	assert_true(t.client->flow->going->kept.bytes > 0);
	time_passes(t.far->flow, 100);
	carry_all(t.link);
	assert_int_equal(t.client->flow->going->kept.bytes, 0);
	/* Acknowledgements are not acknowledged. */
	size_t sent = t.link->a.given;
	time_passes(t.client->flow, 1000);
	time_passes(t.far->flow, 1000);
	carry_all(t.link);
	assert_int_equal(t.link->a.given, sent);
	all_arrived(&t);
}

/* More than is kept was on its way: that is lost, but nothing else, and nothing comes twice. */
static void what_is_not_kept_is_lost(void **state)
{
	(void)state;
	world.config.resume_bytes = 10000;
	struct pair t = tunnel();
	t.client->in_order = t.far->in_order = false;
	plain_give(t.client, 20, 1000);
	plain_give(t.client, 20, 1000);
	plain_give(t.client, 1, 0);
	plain_give(t.far, 30, 1000);
	plain_give(t.far, 1, 0);
	carry(&t.link->a, &t.link->b, 5000);
	carry(&t.link->b, &t.link->a, 25000);
	link_break(t.link);
	come_back(&t);
	plain_give(t.far, 1, 1);
	plain_give(t.client, 1, 1);
	carry_all(t.link);
	assert_true(t.far->got >= 4 + 9 + 1 && t.far->got < 20);
	assert_int_equal(t.client->got, 32);
	uint32_t got = t.far->got, back = t.client->got;
	link_break(t.link);           /* both count alike still */
	come_back(&t);
	plain_give(t.far, 5, 1);
	plain_give(t.client, 5, 1);
	carry_all(t.link);
	assert_int_equal(t.far->got, got + 5);
	assert_int_equal(t.client->got, back + 5);
}

static void only_the_same_peer_and_user_join(void **state)
{
	(void)state;
	struct pair t = tunnel();
	link_break(t.link);
	world.origin.peer = "mallory";
	t.link = link_open();
	struct plain *other = link_arrive(t.link);
	assert_non_null(other);       /* a tunnel of its own */
	link_respond(t.link);
	assert_int_equal(t.client->fresh, 2);
	assert_int_equal(t.far->flow->state, FLOW_STATE_PARKED);
	world.origin.peer = NULL;
}

static void another_far_end_gets_what_was_never_sent(void **state)
{
	(void)state;
	struct pair t = tunnel();
	plain_give(t.client, 5, 100);
	link_break(t.link);           /* these five may have arrived: not again */
	plain_give(t.client, 4, 100);
	flows_drain(&world.tunnel);       /* ends it */
	assert_true(t.far->gone);
	t.link = link_open();
	t.far = link_arrive(t.link);
	t.far->in_order = false;
	link_respond(t.link);
	plain_give(t.client, 2, 100);
	carry_all(t.link);
	assert_int_equal(t.far->got, 6);
	assert_int_equal(t.client->fresh, 2);
	assert_int_equal(t.client->untaken, 0);
}

static void nobody_waits_for_ever(void **state)
{
	(void)state;
	struct pair t = tunnel();
	link_break(t.link);
	open_fails(FLOW_CONNECT_REFUSED, "refused");
	for (int i = 0; i < 100 && !t.client->gone; i++) {
		time_passes(t.client->flow, 500);
		if (world.attempt.open)
			open_fails(FLOW_CONNECT_REFUSED, "refused");
	}
	assert_true(t.client->gone);
	assert_true(world.attempts > 20 && world.attempts < 80);
	time_passes(t.far->flow, 1);
	assert_true(t.far->gone);
	assert_int_equal(world.records, 2);
}

static void a_refusal_is_final(void **state)
{
	(void)state;
	struct pair t = tunnel();
	link_break(t.link);
	struct link *link = link_open();
	link->response = head_new();
	link->response->status = 503;
	link_respond(link);
	assert_int_equal(t.client->flow->state, FLOW_STATE_RESUMING);
	time_passes(t.client->flow, 100);
	link = link_open();
	link->response = head_new();
	link->response->status = 403;
	link_respond(link);
	assert_true(t.client->gone);
}

static void a_clean_end_is_the_end(void **state)
{
	(void)state;
	struct pair t = tunnel();
	flow_finish(t.client->leg.flow, &t.client->leg, NULL);
	assert_true(t.link->a.ended);
	flow_finish(t.link->b.leg.flow, &t.link->b.leg, NULL);
	assert_true(t.far->finished);
	half_break(&t.link->b);
	assert_true(t.far->gone);     /* not parked */
	half_break(&t.link->a);
	assert_true(t.client->gone);
}

static void the_far_end_ends_it_cleanly(void **state)
{
	(void)state;
	struct pair t = tunnel();
	struct flow *flow = t.far->leg.flow;
	t.far->gone = true;
	t.far->leg.flow = NULL;
	flow_broken(flow, &t.far->leg, FLOW_CONNECT_REFUSED, "port unreachable");
	assert_true(t.link->b.ended && t.link->b.gone);
	flow_finish(t.link->a.leg.flow, &t.link->a.leg, NULL);
	assert_true(t.client->finished);
}

/* --- moves ------------------------------------------------------------------------------------------------------------------ */

/* A configuration of another number is in force, which decides so for the client's flow. */
static void changed(struct plain *client, const char *cluster)
{
	world.generation.number++;
	decision_unref(world.at_once);
	world.at_once = decision_to(cluster);
	flow_decide_anew(client->leg.flow);
}

static void moves_to_another_way_to_the_same_far_end(void **state)
{
	(void)state;
	struct pair t = tunnel();
	struct link *former = t.link;
	plain_give(t.client, 10, 500);
	plain_give(t.far, 10, 500);
	carry(&former->b, &former->a, 1700);
	changed(t.client, "d");
	decision_unref(world.at_once);             /* the far end's own decision is as before */
	world.at_once = decision_to("c");
	struct link *link = t.link = link_open();
	plain_give(t.client, 5, 500);              /* still by the old way */
	carry(&former->a, &former->b, 3000);
	carry(&former->b, &former->a, 2000);       /* beyond what the request said */
	assert_null(link_arrive(link));
	carry(&former->b, &former->a, 900);        /* was under way */
	link_respond(link);
	assert_true(former->a.gone && former->b.gone);
	plain_give(t.client, 5, 500);
	plain_give(t.far, 5, 500);
	while (link->b.out.head)
		carry(&link->b, &link->a, 77);
	carry_all(link);
	all_arrived(&t);
	assert_string_equal(t.client->flow->decision->cluster, "d");
	assert_int_equal(t.client->fresh, 1);
}

static void moves_to_another_far_end(void **state)
{
	(void)state;
	struct pair t = tunnel();
	struct link *former = t.link;
	struct plain *first = t.far;
	plain_give(t.client, 10, 500);
	carry(&former->a, &former->b, 1000);
	changed(t.client, "d");
	t.link = link_open();
	struct plain *second = t.far = link_arrive(t.link);
	second->gave = 1000;
	second->in_order = t.client->in_order = false;
	plain_give(t.client, 2, 500);
	link_respond(t.link);
	assert_int_equal(t.client->fresh, 2);
	assert_true(former->a.ended && !former->a.gone);
	plain_give(t.client, 3, 500);
	plain_give(first, 4, 500);                 /* answers on their way */
	plain_give(second, 4, 500);
	carry(&former->b, &former->a, 700);
	carry(&t.link->b, &t.link->a, 900);
	carry_all(former);
	carry_all(t.link);
	assert_int_equal(first->got, 12);
	assert_int_equal(second->got, 3);
	assert_int_equal(t.client->got, 8);
	flow_finish(former->b.leg.flow, &former->b.leg, NULL);
	assert_true(first->finished);
	flow_finish(first->leg.flow, &first->leg, NULL);
	flow_finish(former->a.leg.flow, &former->a.leg, NULL);
	assert_true(former->a.gone && first->gone);
	assert_int_equal(t.client->untaken, 0);
}

static void the_old_way_serves_until_the_new_one_is_open(void **state)
{
	(void)state;
	struct pair t = tunnel();
	changed(t.client, "d");
	open_fails(FLOW_CONNECT_REFUSED, "refused");
	plain_give(t.client, 5, 10);
	carry_all(t.link);
	assert_int_equal(t.far->got, 5);
	time_passes(t.client->flow, 200);
	assert_true(world.attempt.open);           /* again */
	changed(t.client, "c");                    /* taken back */
	if (world.attempt.open)
		open_fails(FLOW_CONNECT_REFUSED, "refused");
	time_passes(t.client->flow, 100000);
	plain_give(t.client, 5, 10);
	carry_all(t.link);
	assert_int_equal(t.far->got, 10);
	assert_false(t.client->gone);
}

/* What the client end acknowledges by the old way overtakes its request by the new one. */
static void acknowledgements_overtake_the_request(void **state)
{
	(void)state;
	struct pair t = tunnel();
	struct link *former = t.link;
	changed(t.client, "d");
	decision_unref(world.at_once);
	world.at_once = decision_to("c");
	t.link = link_open();
	for (int i = 0; i < 200; i++)
		plain_give(t.far, 1, 1000);
	carry(&former->b, &former->a, 180000);
	carry(&former->a, &former->b, SIZE_MAX);
	assert_true(t.far->flow->going->acked > 120000);
	assert_null(link_arrive(t.link));
	link_respond(t.link);
	carry_all(t.link);
	all_arrived(&t);
}

/* The way breaks while its successor is being opened: that one takes over. */
static void breaks_while_it_moves(void **state)
{
	(void)state;
	struct pair t = tunnel();
	plain_give(t.far, 10, 100);
	carry(&t.link->b, &t.link->a, 350);
	changed(t.client, "d");
	decision_unref(world.at_once);
	world.at_once = decision_to("c");
	struct link *former = t.link, *link = t.link = link_open();
	link_arrive(link);
	half_break(&former->a);
	link_respond(link);
	plain_give(t.client, 10, 100);
	carry_all(link);
	all_arrived(&t);
}

static void a_far_end_that_leads_elsewhere_asks_the_client(void **state)
{
	(void)state;
	struct pair t = tunnel();
	struct link *former = t.link;
	plain_give(t.far, 3, 100);
	changed(t.far, "d");                       /* its flow: in leg a link, out leg plain */
	plain_give(t.far, 3, 100);
	assert_false(world.attempt.open);
	carry_all(former);
	assert_true(world.attempt.open);           /* the client end heard */
	assert_int_equal(t.client->got, 6);
	t.link = link_open();
	struct plain *second = link_arrive(t.link);   /* the decision is another: not joined */
	assert_non_null(second);
	second->in_order = false;
	link_respond(t.link);
	plain_give(t.client, 3, 100);
	carry_all(t.link);
	assert_int_equal(second->got, 3);
	assert_int_equal(t.far->got, 0);
}

static void both_ends_here_move_too(void **state)
{
	(void)state;
	struct plain *client = client_begin();
	struct plain *first = plain_new(false), *second;
	world.attempt.open = false;
	first->leg.flow = first->flow = world.attempt.flow;
	flow_opened(world.attempt.flow, &first->leg);
	plain_give(client, 5, 100);
	assert_int_equal(first->got, 5);
	changed(client, "d");
	CHECK(world.attempt.open);
	world.attempt.open = false;
	second = plain_new(false);
	second->gave = 100;
	second->in_order = client->in_order = false;
	second->leg.flow = second->flow = world.attempt.flow;
	flow_opened(world.attempt.flow, &second->leg);
	assert_true(first->finished && second->open && client->fresh == 2);
	plain_give(client, 5, 100);
	plain_give(first, 5, 100);
	plain_give(second, 5, 100);
	assert_int_equal(second->got, 5);
	assert_int_equal(client->got, 10);
	time_passes(client->flow, 2001);
	assert_true(first->gone);
}

/* --- chance ------------------------------------------------------------------------------------------------------------------- */

static unsigned chance;
static unsigned dice(unsigned n)
{
	chance = chance * 1103515245u + 12345u;
	return (chance >> 8) % n;
}

static void some_data(struct pair *t)
{
	struct plain *p = dice(2) ? t->client : t->far;
	if (p->open && p->untaken < 256 * 1024)
		plain_give(p, 1 + dice(5), dice(20) ? dice(1500) : dice(60000));
}

static void turn(struct pair *t)
{
	struct link *l = t->link;
	switch (dice(12)) {
	case 0:
		carry(&l->a, &l->b, 1 + dice(5));
		break;
	case 1:
		carry(&l->b, &l->a, 1 + dice(5));
		break;
	case 2: case 3:
		carry(&l->a, &l->b, dice(40000));
		break;
	case 4: case 5:
		carry(&l->b, &l->a, dice(40000));
		break;
	case 6:
		time_passes(dice(2) ? t->client->flow : t->far->flow, dice(150));
		break;
	case 7: {
		struct half *h = dice(2) ? &l->a : &l->b;
		h->refuse = !h->refuse;
		if (!h->refuse && h->leg.flow)
			flow_writable(h->leg.flow, &h->leg);
		break;
	}
	case 8: {
		struct plain *p = dice(2) ? t->client : t->far;
		p->refuse = !p->refuse;
		if (!p->refuse)
			flow_writable(p->leg.flow, &p->leg);
		break;
	}
	default:
		some_data(t);
	}
}

static void break_and_come_back(struct pair *t)
{
	struct link *former = t->link;
	if (dice(2))
		half_break(&former->b);
	half_break(&former->a);
	for (unsigned i = dice(4); i > 0; i--)
		some_data(t);
	if (dice(3) == 0 && former->b.leg.flow)
		half_break(&former->b);
	come_back(t);
	if (dice(2))
		half_break(&former->b);
}

static void move_and_go_on(struct pair *t, const char *cluster)
{
	struct link *former = t->link;
	changed(t->client, cluster);
	decision_unref(world.at_once);
	world.at_once = decision_to("c");
	struct link *next = link_open();
	for (unsigned i = dice(60); i > 0; i--)
		turn(t);
	if (dice(4) == 0)
		half_break(&former->a);
	CHECK(!link_arrive(next));
	for (unsigned i = dice(10); i > 0; i--)
		carry(dice(2) ? &former->a : &former->b, &former->b, 0), some_data(t);
	if (former->a.leg.flow)
		carry(&former->b, &former->a, dice(20000));
	link_respond(next);
	t->link = next;
}

/* keep: bytes that are kept; where that is too little some are lost, but none is doubled. */
static void try_chances(uint32_t keep)
{
	unsigned seeds = getenv("SEEDS") ? (unsigned)atoi(getenv("SEEDS")) : 60;
	for (unsigned seed = 1; seed <= seeds; seed++) {
		chance = seed * 7919;
		if (keep)
			world.config.resume_bytes = keep;
		struct pair t = tunnel();
		t.client->in_order = t.far->in_order = !keep;
		for (unsigned round = 0; round < 3; round++) {
			for (unsigned i = 0; i < 60; i++)
				turn(&t);
			if (dice(2))
				break_and_come_back(&t);
			else
				move_and_go_on(&t, round == 0 ? "d" : round == 1 ? "e" : "f");
		}
		t.link->a.refuse = t.link->b.refuse = t.client->refuse = t.far->refuse = false;
		flow_writable(t.client->flow, &t.link->a.leg);
		flow_writable(t.far->flow, &t.link->b.leg);
		flow_writable(t.client->flow, &t.client->leg);
		flow_writable(t.far->flow, &t.far->leg);
		carry_all(t.link);
		if (!keep)
			all_arrived(&t);
		assert_int_equal(t.client->untaken, 0);
		assert_int_equal(t.far->untaken, 0);
		uint32_t got = t.far->got, back = t.client->got;
		plain_give(t.client, 1, 1);
		plain_give(t.far, 1, 1);
		carry_all(t.link);
		assert_int_equal(t.far->got, got + 1);
		assert_int_equal(t.client->got, back + 1);
		teardown(NULL);
		setup(NULL);
	}
}

static void by_chance(void **state)
{
	(void)state;
	try_chances(0);
}

static void by_chance_where_little_is_kept(void **state)
{
	(void)state;
	try_chances(5000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(goes_on_after_a_break, setup, teardown),
		cmocka_unit_test_setup_teardown(the_far_end_need_not_have_noticed, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_acknowledged_is_let_go, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_not_kept_is_lost, setup, teardown),
		cmocka_unit_test_setup_teardown(only_the_same_peer_and_user_join, setup, teardown),
		cmocka_unit_test_setup_teardown(another_far_end_gets_what_was_never_sent, setup, teardown),
		cmocka_unit_test_setup_teardown(nobody_waits_for_ever, setup, teardown),
		cmocka_unit_test_setup_teardown(a_refusal_is_final, setup, teardown),
		cmocka_unit_test_setup_teardown(a_clean_end_is_the_end, setup, teardown),
		cmocka_unit_test_setup_teardown(the_far_end_ends_it_cleanly, setup, teardown),
		cmocka_unit_test_setup_teardown(moves_to_another_way_to_the_same_far_end, setup, teardown),
		cmocka_unit_test_setup_teardown(moves_to_another_far_end, setup, teardown),
		cmocka_unit_test_setup_teardown(the_old_way_serves_until_the_new_one_is_open, setup, teardown),
		cmocka_unit_test_setup_teardown(acknowledgements_overtake_the_request, setup, teardown),
		cmocka_unit_test_setup_teardown(breaks_while_it_moves, setup, teardown),
		cmocka_unit_test_setup_teardown(a_far_end_that_leads_elsewhere_asks_the_client, setup, teardown),
		cmocka_unit_test_setup_teardown(both_ends_here_move_too, setup, teardown),
		cmocka_unit_test_setup_teardown(by_chance, setup, teardown),
		cmocka_unit_test_setup_teardown(by_chance_where_little_is_kept, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

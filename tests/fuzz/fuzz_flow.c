/* Flows between two legs that do whatever their contract allows, in any order: the input's bytes choose what happens next. The
 * checks are those of flow_world.h. */
#define CHECK(condition) do { if (!(condition)) { fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); abort(); } } while (0)

#include "tests/unit/flow_world.h"

static const uint8_t *input;
static size_t left;

static uint8_t next(void)
{
	if (!left)
		return 0;
	left--;
	return *input++;
}

static enum flow_error some_error(void)
{
	return (enum flow_error)(FLOW_DNS + next() % (FLOW_ERROR_COUNT - FLOW_DNS));
}

static struct decision *some_decision(void)
{
	uint8_t what = next();
	if (what % 8 == 7)
		return NULL;
	struct decision *d = decision_new();
	if (what % 8 == 6) {
		d->status = 403;
		d->error = (char *)"http_request_denied";
		d->detail = (char *)"policy says no";
		return d;
	}
	what = next();
	d->retry = (struct config_retry){.on = what & 15, .attempts = 1 + (what >> 4) % 4,
	                                 .per_try_timeout = what & 64 ? 50 : 0};
	d->timeout = (struct config_timeout){.request = what & 128 ? 400 : 0, .idle = what & 1 ? 200 : 0};
	return d;
}

static struct world_leg *begin_some(void)
{
	static const char *const methods[] = {"GET", "POST", "CONNECT", "HEAD"};
	uint8_t what = next();
	struct head *request = request_head(methods[what % 4]);
	if (what & 16)
		head_add(request, "proxy-authorization", what & 32 ? "Basic known:x" : what & 64 ? "Basic a:wrong" : "Basic a:b");
	if ((what & 0x8c) == 0x8c)
		head_add(request, "via", "2 a (hermes), 2 b (hermes), 2 c (hermes)");
	return begin(request, what & 4);
}

/* The out leg that lives, or NULL. */
static struct world_leg *out_of(const struct world_leg *in)
{
	return in->leg.flow && in->leg.flow->out ? (struct world_leg *)in->leg.flow->out : NULL;
}

static void out_step(struct world_leg *out, uint8_t op)
{
	switch (op % 10) {
	case 0:
		if (!out->gave_head)
			respond(out, 103, false);
		return;
	case 1:
	case 2:
		if (!out->gave_head)
			respond(out, 200 + next() * 2 % 400, op & 16);
		return;
	case 3:
		if (!out->gave_head)
			respond(out, 502 + next() % 3, op & 16);
		return;
	case 4:
	case 5:
	case 6:
		if (out->gave_head && !out->gave_end)
			give(out, 1 + next() * (op & 128 ? 600u : 3u));
		return;
	case 7:
		if (out->gave_head && !out->gave_end)
			give_end(out, op & 16);
		return;
	case 8:
		take_again(out);
		return;
	default:
		out->refuse = true;
	}
}

static void step(struct world_leg *in)
{
	uint8_t op = next();
	struct world_leg *out = out_of(in);
	switch (op >> 4) {
	case 0:
		if (world.query.open)
			decide(some_decision());
		break;
	case 1:
		if (world.auth.open)
			prove_now(op & 1);
		break;
	case 2:
		if (world.attempt.open)
			open_out(op & 1, op & 2);
		break;
	case 3:
		if (world.attempt.open)
			open_fails(some_error(), "no way");
		break;
	case 4:
	case 5:
		if (!in->gave_end)
			give(in, 1 + next() * (op & 1 ? 600u : 3u));
		break;
	case 6:
		if (!in->gave_end)
			give_end(in, op & 1);
		break;
	case 7:
		in->refuse = op & 1;
		if (!in->refuse)
			take_again(in);
		break;
	case 8:
		pass_time(in, op & 8 ? 300 : 1 + (op & 7) * 10);
		break;
	case 9:
		if (op & 8)
			break_leg(in, some_error());
		break;
	case 10:
		if (out)
			break_leg(out, some_error());
		break;
	default:
		if (out)
			out_step(out, (uint8_t)(op * 37 + next()));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	input = data;
	left = size;
	world_begin();
	uint8_t first = next();
	world.config.replay_bytes = first & 1 ? 64 : 64 * 1024;
	world.config.n_users = first & 2 ? 1 : 0;
	world.config.max_hops = 3;
	world.used.reused = first & 4;
	world.used.number = first & 8 ? 3 : -1;
	if (first & 16)
		world.at_once = some_decision();
	while (left > 0 && world.n_legs < LEGS - 2) {
		struct world_leg *in = begin_some();
		while (left > 0 && in->leg.flow && world.n_legs < LEGS - 1)
			step(in);
		if (in->leg.flow)
			break_leg(in, FLOW_CANCELLED);
		CHECK(in->gone && !world.tunnel.flows);
	}
	world_end();
	return 0;
}

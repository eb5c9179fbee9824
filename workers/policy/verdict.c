/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "ipc/log.h"
#include "workers/policy/policy.h"

#define HEADERS_MAX 512

/* Room that every question uses anew: the worker has one thread, and a verdict is sent before the next one is made. */
static struct assess_verdict verdict;
static struct trace trace;
static struct match_header headers[HEADERS_MAX];
static struct ipc_pair added[ASSESS_HEADERS_MAX];

/* A question names only headers that the configuration examines; more of them than this come from a liar, and so does a packet
 * that has no addresses. */
static bool fill_input(const struct ipc_question *q, struct match_input *in)
{
	if (q->headers.n > HEADERS_MAX)
		return false;
	for (size_t i = 0; i < q->headers.n; i++)
		headers[i] = (struct match_header){ q->headers.v[i].name, q->headers.v[i].value };
	*in = (struct match_input){
		.listener = q->listener, .peer = q->peer, .user = q->user, .method = q->method, .protocol = q->protocol,
		.scheme = q->scheme, .authority = q->authority, .path = q->path, .headers = headers,
		.n_headers = q->headers.n, .now = q->now,
	};
	in->has_source = q->source && match_address(q->source, &in->source);
	return match_packet(&in->ip, q->inner, q->ip_protocol, q->ip_source, q->ip_destination, q->ip_port);
}

static struct ipc_assessed copy_question(const struct ipc_question *q)
{
	struct ipc_assessed a = { 0 };

#define F(TYPE, field) a.field = q->field;
	IPC_FIELDS_question(F)
#undef F
	return a;
}

/* What is too large together (a question near the limit, and headers to add) is refused rather than cut. */
static void send_refusal(struct policy *p, const struct ipc_question *q, uint32_t status, const char *detail)
{
	struct ipc_assessed a = { .id = q->id, .generation = q->generation, .tunnel = q->tunnel, .deadline = q->deadline,
		.now = q->now, .status = status, .error = "http_request_error", .detail = detail };
	int error = ipc_send(p->router, IPC_MSG_ASSESSED, &a, -1);

	if (error)
		log_warn("verdict lost", "id=%llu error=%s", (unsigned long long)q->id, log_value(strerror(-error)));
}

static void send_verdict(struct policy *p, const struct ipc_question *q, bool explain)
{
	struct ipc_assessed a = copy_question(q);
	int error;

	for (size_t i = 0; i < verdict.n_added; i++)
		added[i] = (struct ipc_pair){ verdict.added[i].name, verdict.added[i].value };
	a.status = verdict.status;
	a.error = verdict.error;
	a.detail = verdict.status ? verdict.detail : NULL;
	a.policies = (struct ipc_strs){ verdict.policies, verdict.n_policies };
	a.add_headers = (struct ipc_pairs){ added, verdict.status ? 0 : verdict.n_added };
	a.valid_ms = verdict.valid_ms;
	if (explain)
		a.trace = (struct ipc_strs){ trace.v, trace.n };
	error = ipc_send(p->router, IPC_MSG_ASSESSED, &a, -1);
	if (error == -EMSGSIZE && explain) {
		a.trace = (struct ipc_strs){ 0 };
		error = ipc_send(p->router, IPC_MSG_ASSESSED, &a, -1);
	}
	if (error == -EMSGSIZE)
		send_refusal(p, q, 431, "the headers of the request and those to add are too large");
	else if (error)
		log_warn("verdict lost", "id=%llu error=%s", (unsigned long long)q->id, log_value(strerror(-error)));
}

enum assess_step verdict_give(struct policy *p, const struct ipc_question *question,
                              const struct assess_answer *answers, const struct config_policy **ask)
{
	struct ipc_question q = *question;
	const struct config *config = generations_find(&p->generations, q.generation, &q.generation);
	bool explain = q.tunnel == IPC_EXPLAIN;
	struct match_input input;

	if (!config || !p->router || (q.deadline && policy_now() > q.deadline))
		return ASSESS_DONE;
	if (!fill_input(&q, &input)) {
		send_refusal(p, &q, 431, "too many headers, or no packet");
		return ASSESS_DONE;
	}
	trace_reset(&trace);
	if (assess(config, &input, answers, &verdict, explain ? &trace : NULL) == ASSESS_ASK) {
		*ask = verdict.ask;
		return ASSESS_ASK;
	}
	send_verdict(p, &q, explain);
	return ASSESS_DONE;
}

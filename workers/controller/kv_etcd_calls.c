/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/controller/kv_etcd_internal.h"
#include "ipc/log.h"

#include <errno.h>
#include <event2/event.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BATCH_KEYS 50

/* --- calls ------------------------------------------------------------------------------------------------------------ */

struct etcd_call *etcd_call_new(const char *path, char *body,
                                void (*answered)(struct etcd *e, struct etcd_call *call, const json_t *json, int error))
{
	struct etcd_call *call = calloc(1, sizeof(*call));
	if (!call) {
		free(body);
		return NULL;
	}
	*call = (struct etcd_call){.path = path, .body = body, .answered = answered};
	return call;
}

void etcd_call_free(struct etcd_call *call)
{
	if (call->txn)
		kv_txn_free(call->txn);
	free(call->body);
	free(call);
}

/* Tells who waited for a transaction. */
static void finish(struct etcd_call *call, int error)
{
	kv_done *done = call->done;
	void *arg = call->arg;
	etcd_call_free(call);
	if (done)
		done(arg, error);
}

/* An answer without an error that is not what was asked for is none. */
static void on_answer(void *arg, const struct http_answer *answer)
{
	struct etcd *e = arg;
	struct etcd_call *call = e->current;
	json_t *json = NULL;
	int error = answer->error;
	if (!error && answer->status == 200 && !(json = json_loadb(answer->body, answer->length, JSON_DISABLE_EOF_CHECK, NULL)))
		error = -EPROTO;
	else if (!error && answer->status != 200)
		error = wire_error(answer->body, answer->length);
	if (answer->error || error == -ETIMEDOUT || error == -EPROTO) {
		etcd_fail(e, answer->reason ? answer->reason : "it has no leader");
		json_decref(json);
		return;
	}
	e->current = NULL;
	TAILQ_REMOVE(&e->calls, call, link);
	call->answered(e, call, json, error);
	json_decref(json);
	if (e->rpc && !e->current && !http_client_usable(e->rpc))
		etcd_fail(e, "closed the connection");
	else
		etcd_ask_next(e);
}

static char *make_body(struct etcd *e, const struct etcd_call *call)
{
	return wire_txn(e->prefix, call->txn, e->temporary, call->sent);
}

static bool needs_lease(const struct kv_txn *txn)
{
	for (size_t i = 0; i < txn->n_ops; i++)
		if (txn->ops[i].temporary)
			return true;
	return false;
}

void etcd_ask_next(struct etcd *e)
{
	struct etcd_call *call = TAILQ_FIRST(&e->calls);
	if (!call || e->current || !e->rpc)
		return;
	if (call->txn && (e->state != ETCD_UP || (!e->temporary && needs_lease(call->txn))))
		return;
	if (call->txn && !call->body)
		call->body = make_body(e, call);
	e->current = call;
	call->sent_at = kv_now();
	int error = call->body ? http_client_request(e->rpc, "POST", e->endpoints[e->next], call->path, NULL, call->body,
	                                             strlen(call->body), ETCD_CALL_MS, NULL, on_answer, e) : -ENOMEM;
	if (!error) {
		call->sent = true;
		return;
	}
	e->current = NULL;
	etcd_fail(e, error == -ENOTCONN ? "closed the connection" : strerror(-error));
}

static void ask(struct etcd *e, struct etcd_call *call)
{
	TAILQ_INSERT_TAIL(&e->calls, call, link);
	etcd_ask_next(e);
}

void etcd_ask_first(struct etcd *e, struct etcd_call *call)
{
	if (!call)
		return;
	if (e->current)
		TAILQ_INSERT_AFTER(&e->calls, e->current, call, link);
	else
		TAILQ_INSERT_HEAD(&e->calls, call, link);
	etcd_ask_next(e);
}

/* Transactions are asked again elsewhere; the rest is made anew there. */
void etcd_calls_lost(struct etcd *e)
{
	struct etcd_call *next;
	e->current = NULL;
	e->campaigning = false;
	for (struct etcd_call *call = TAILQ_FIRST(&e->calls); call; call = next) {
		next = TAILQ_NEXT(call, link);
		free(call->body);
		call->body = NULL;
		if (call->txn)
			continue;
		TAILQ_REMOVE(&e->calls, call, link);
		etcd_call_free(call);
	}
}

/* Callees may commit anew: the list is begun again after each. */
void etcd_calls_settle(struct etcd *e)
{
	for (struct etcd_call *call; (call = TAILQ_FIRST(&e->settled)) && call->revision <= e->revision;) {
		TAILQ_REMOVE(&e->settled, call, link);
		finish(call, 0);
	}
}

static struct etcd_call *find_expired(struct etcd *e, uint64_t now)
{
	struct etcd_call *call;
	TAILQ_FOREACH(call, &e->calls, link)
		if (call->txn && call != e->current && call->deadline <= now)
			return call;
	return NULL;
}

void etcd_calls_expire(struct etcd *e)
{
	uint64_t now = kv_now();
	for (struct etcd_call *call; (call = find_expired(e, now));) {
		TAILQ_REMOVE(&e->calls, call, link);
		finish(call, -ETIMEDOUT);
	}
}

void etcd_calls_end(struct etcd *e)
{
	for (struct etcd_call *call; (call = TAILQ_FIRST(&e->calls));) {
		TAILQ_REMOVE(&e->calls, call, link);
		finish(call, -ECONNRESET);
	}
	for (struct etcd_call *call; (call = TAILQ_FIRST(&e->settled));) {
		TAILQ_REMOVE(&e->settled, call, link);
		finish(call, 0);
	}
	for (size_t i = 0; i < e->n_waiters; i++)
		e->waiters[i].done(e->waiters[i].arg, -ECONNRESET);
	e->n_waiters = 0;
	if (e->batch)
		kv_txn_free(e->batch);
	e->batch = NULL;
}

/* --- transactions ----------------------------------------------------------------------------------------------------- */

static void on_txn(struct etcd *e, struct etcd_call *call, const json_t *json, int error)
{
	bool held = json && json_is_true(json_object_get(json, "succeeded"));
	bool was_done = json && !held && call->txn->n_conditions && wire_is_done(json, e->prefix, call->txn);
	if (error == -ESTALE)
		e->temporary_until = 0;       /* the lease under reports has ended: a new one for the next */
	if (error || (!held && !was_done)) {
		finish(call, error ? error : -EAGAIN);
		return;
	}
	call->revision = wire_revision(json);
	if ((held && !wire_changed(json)) || call->revision <= e->revision) {
		finish(call, 0);
		return;
	}
	TAILQ_INSERT_TAIL(&e->settled, call, link);
}

static void queue_txn(struct etcd *e, struct kv_txn *txn, kv_done *done, void *arg)
{
	struct etcd_call *call = etcd_call_new("/v3/kv/txn", NULL, on_txn);
	if (!call) {
		kv_txn_free(txn);
		if (done)
			done(arg, -ENOMEM);
		return;
	}
	call->txn = txn;
	call->done = done;
	call->arg = arg;
	call->deadline = kv_now() + ETCD_COMMIT_MS;
	ask(e, call);
}

/* --- reports: many small values, together ----------------------------------------------------------------------------- */

struct batch { struct etcd_waiter *waiters; size_t n; };

static void on_batch(void *arg, int error)
{
	struct batch *b = arg;
	for (size_t i = 0; i < b->n; i++)
		b->waiters[i].done(b->waiters[i].arg, error);
	free(b->waiters);
	free(b);
}

void etcd_flush(struct etcd *e)
{
	struct batch *b = e->batch ? malloc(sizeof(*b)) : NULL;
	struct kv_txn *txn = e->batch;
	if (!b)
		return;
	*b = (struct batch){.waiters = e->waiters, .n = e->n_waiters};
	e->batch = NULL;
	e->waiters = NULL;
	e->n_waiters = 0;
	event_del(e->flush);
	queue_txn(e, txn, on_batch, b);
}

static bool only_temporary(const struct kv_txn *txn)
{
	for (size_t i = 0; i < txn->n_ops; i++)
		if (!txn->ops[i].json || !txn->ops[i].temporary)
			return false;
	return txn->n_ops && !txn->n_conditions;
}

static void add_to_batch(struct etcd *e, struct kv_txn *txn, kv_done *done, void *arg)
{
	if (!e->batch)
		e->batch = kv_txn_new(&e->kv);
	for (size_t i = 0; i < txn->n_ops; i++)
		kv_txn_put(e->batch, txn->ops[i].key, json_incref(txn->ops[i].json), true);
	kv_txn_free(txn);
	struct etcd_waiter *larger = done ? reallocarray(e->waiters, e->n_waiters + 1, sizeof(*larger)) : NULL;
	if (larger) {
		e->waiters = larger;
		e->waiters[e->n_waiters++] = (struct etcd_waiter){done, arg};
	}
	if (e->batch->n_ops >= BATCH_KEYS)
		etcd_flush(e);
	else if (!evtimer_pending(e->flush, NULL))
		evtimer_add(e->flush, &(struct timeval){.tv_usec = ETCD_BATCH_MS * 1000});
	if (done && !larger)
		done(arg, -ENOMEM);
}

/* Where no member has answered for long nobody is kept waiting. */
void etcd_commit(struct kv *kv, struct kv_txn *txn, kv_done *done, void *arg)
{
	struct etcd *e = (struct etcd *)kv;
	if (e->state != ETCD_UP && kv_now() - e->changed_at > ETCD_COMMIT_MS && e->away) {
		kv_txn_free(txn);
		if (done)
			done(arg, -ENOTCONN);
	} else if (only_temporary(txn) && txn->n_ops < KV_TXN_MAX - BATCH_KEYS) {
		add_to_batch(e, txn, done, arg);
	} else {
		queue_txn(e, txn, done, arg);
	}
}

/* --- leases and leadership -------------------------------------------------------------------------------------------- */

static bool holds_leadership(struct etcd *e)
{
	struct kv_value value = kv_get(&e->kv, ETCD_LEADER);
	return e->lease && value.revision && wire_number(value.json, "lease") == e->lease && kv_now() < e->lease_until;
}

static void look(struct etcd *e)
{
	bool leads = holds_leadership(e);
	if (leads == e->leads)
		return;
	e->leads = leads;
	log_info("leadership", "mine=%d", leads);
	kv_tell_state(&e->kv);
}

static void on_campaign(struct etcd *e, struct etcd_call *call, const json_t *json, int error)
{
	(void)json;
	e->campaigning = false;
	if (error == -ESTALE)
		e->lease = 0;
	etcd_call_free(call);
}

/* Whoever writes the key first, under a lease that goes with its process. */
static void campaign(struct etcd *e)
{
	char id[24];
	if (!e->lease || e->campaigning || kv_now() >= e->lease_until || kv_get(&e->kv, ETCD_LEADER).revision)
		return;
	struct kv_txn *txn = kv_txn_new(&e->kv);
	snprintf(id, sizeof(id), "%" PRIu64, e->lease);
	kv_txn_if(txn, ETCD_LEADER, 0);
	kv_txn_put(txn, ETCD_LEADER, json_pack("{s:s}", "lease", id), true);
	struct etcd_call *call = etcd_call_new("/v3/kv/txn", wire_txn(e->prefix, txn, e->lease, false), on_campaign);
	kv_txn_free(txn);
	e->campaigning = call != NULL;
	etcd_ask_first(e, call);
}

static void on_lease(struct etcd *e, struct etcd_call *call, const json_t *json, int error)
{
	/* a keepalive's answer comes in "result" */
	const json_t *result = json_object_get(json, "result");
	const json_t *answer = result ? result : json;
	uint64_t id = wire_number(answer, "ID"), seconds = wire_number(answer, "TTL");
	if (error || !id || !seconds) {
		e->lease = 0;
		e->next_beat = kv_now() + 200;
	} else {
		e->lease = id;
		e->lease_until = call->sent_at + (seconds > 1 ? seconds - 1 : 0) * 1000;
	}
	etcd_call_free(call);
	etcd_lead(e);
}

static void on_temporary(struct etcd *e, struct etcd_call *call, const json_t *json, int error)
{
	uint64_t id = error ? 0 : wire_number(json, "ID");
	e->temporary = id ? id : e->temporary;
	e->temporary_until = id ? call->sent_at + ETCD_TEMPORARY_MS : kv_now() + 1000;
	etcd_call_free(call);
}

static void beat(struct etcd *e, uint64_t now)
{
	e->next_beat = now + ETCD_BEAT_MS;
	etcd_ask_first(e, e->lease ? etcd_call_new("/v3/lease/keepalive", wire_keepalive(e->lease), on_lease)
	                           : etcd_call_new("/v3/lease/grant", wire_grant(ETCD_LEASE_S), on_lease));
}

void etcd_lead(struct etcd *e)
{
	uint64_t now = kv_now();
	if (e->state == ETCD_UP && now >= e->next_beat)
		beat(e, now);
	if (e->state == ETCD_UP && now >= e->temporary_until) {
		e->temporary_until = now + ETCD_TEMPORARY_MS;
		etcd_ask_first(e, etcd_call_new("/v3/lease/grant", wire_grant(ETCD_TEMPORARY_S), on_temporary));
	}
	if (e->state == ETCD_UP)
		campaign(e);
	look(e);
}

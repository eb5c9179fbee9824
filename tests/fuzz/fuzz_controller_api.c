/* SPDX-License-Identifier: Apache-2.0 */
/* Requests to the controller as a connection brings them, into all its handlers, over a store in memory and a keeper that is none. The
 * first byte: whose connection it is, and whether the store fails. */
#include <errno.h>
#include <event2/event.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ipc/log.h"
#include "workers/controller/api_http.h"
#include "workers/controller/enrolment.h"
#include "workers/controller/kv_internal.h"
#include "workers/controller/nodes.h"
#include "workers/controller/polls.h"

#define PEM "-----BEGIN CERTIFICATE-----\nYWJj\n-----END CERTIFICATE-----\n"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct kv store;
static uint64_t revision;
static bool failing;

void keeper_ask(struct keeper_client *keeper, const char *op, const char *const *args, size_t n_args, const char *text,
                size_t length, keeper_done *done, void *arg)
{
	(void)keeper, (void)args, (void)n_args, (void)text, (void)length;
	done(arg, !strcmp(op, "certify") ? "serial 01\ncertificate" : !strcmp(op, "authorities") ? PEM : "c2lnbmVk", NULL);
}

static void mem_commit(struct kv *kv, struct kv_txn *txn, kv_done *done, void *arg)
{
	int error = failing ? -ENOSPC : kv_txn_holds(txn) ? kv_reserve(kv, txn->n_ops) : -EAGAIN;
	revision += !error;
	for (size_t i = 0; !error && i < txn->n_ops; i++)
		if (txn->ops[i].json)
			kv_apply_put(kv, txn->ops[i].key, json_incref(txn->ops[i].json), revision, 0);
		else
			kv_apply_delete(kv, txn->ops[i].key);
	kv_txn_free(txn);
	if (done)
		done(arg, error);
}

static bool mem_leads(const struct kv *kv)
{
	return kv->ready;
}

static void mem_free(struct kv *kv)
{
	kv_fini(kv);
}

static void put(const char *key, json_t *json)
{
	struct kv_txn *txn = kv_txn_new(&store);
	kv_txn_put(txn, key, json, false);
	kv_commit(txn, NULL, NULL);
}

/* What requests can refer to. */
static void fill(void)
{
	char hash[65] = "";
	for (int i = 0; i < 64; i++)
		hash[i] = 'a';
	put("node/alice", json_pack("{s:s, s:n, s:i, s:b, s:b}", "name", "alice", "serial", "enrolled", 1, "controller", 0, "revoked", 0));
	put("node/gone", json_pack("{s:s, s:b}", "name", "gone", "revoked", 1));
	put("want/alice", json_pack("{s:i, s:i, s:s, s:s}", "number", 5, "version", 1, "text", "x: 1\n", "digest", "d"));
	put("token/id", json_pack("{s:s, s:s, s:s, s:b, s:I, s:s}", "id", "id", "hash", hash, "node", "*", "controller", 0, "expires",
	                          (json_int_t)4000000000, "author", "root"));
}

static void turn(struct event_base *base, int times)
{
	for (int i = 0; i < times; i++)
		event_base_loop(base, EVLOOP_NONBLOCK);
}

static void converse(struct event_base *base, struct http_server *server, const uint8_t *data, size_t size)
{
	int ends[2];
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends))
		abort();
	http_server_take(server, ends[0]);
	while (size) {
		ssize_t n = send(ends[1], data, size, MSG_NOSIGNAL);
		if (n < 0 && errno != EAGAIN)
			break;
		data += n > 0 ? n : 0;
		size -= n > 0 ? (size_t)n : 0;
		turn(base, 4);
		char waste[65536];
		while (recv(ends[1], waste, sizeof(waste), 0) > 0)
			;
	}
	turn(base, 6);
	close(ends[1]);
	turn(base, 4);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct kv_kind kind = {.commit = mem_commit, .leads = mem_leads, .free = mem_free};
	static char domain[] = "example.net", own[] = "c1", boss[] = "boss", *operators[] = {boss};
	static struct event_base *base;
	struct config config = {.domain = domain, .node_name = own};
	if (!base) {
		base = event_base_new();
		signal(SIGPIPE, SIG_IGN);
		if (sodium_init() < 0 || log_set_level("error"))
			abort();
	}
	if (!size || size > 65536)
		return 0;
	config.controller.operators = (struct config_strs){.v = operators, .n = 1};
	struct controller world = {.config = &config, .kv = &store};
	store = (struct kv){0};
	revision = 0;
	failing = false;
	kv_init(&store, &kind, base, NULL, NULL);
	store.ready = true;
	world.api = api_new(&world, base);
	world.nodes = nodes_new(&world, base);
	world.polls = polls_new(&world, base);
	world.enrolment = enrolment_new(&world, base);
	api_nodes_add(world.api);
	fill();
	nodes_start(world.nodes);
	polls_start(world.polls);
	failing = data[0] & 2;
	api_set_self(world.api, data[0] & 1 ? getuid() + 1 : getuid());
	converse(base, api_server(world.api), data + 1, size - 1);
	polls_free(world.polls);
	enrolment_free(world.enrolment);
	kv_free(&store);
	nodes_free(world.nodes);
	api_free(world.api);
	turn(base, 1);
	return 0;
}

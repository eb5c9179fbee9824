/* SPDX-License-Identifier: Apache-2.0 */
/* hermes-policy: decides whether. Questions come in from the tunnel workers (and from the supervisor, which asks for
 * people) and go on to the router with a verdict. */
#include <errno.h>
#include <jansson.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "ipc/log.h"
#include "workers/policy/policy.h"

#define TUNNELS_MAX 1024

static struct policy policy;
static struct ipc_channel *tunnels[TUNNELS_MAX];

uint64_t policy_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void on_question(struct policy *p, const struct ipc_question *q)
{
	const struct config_policy *ask;

	if (p->pending && pending_repeat(p, q))
		return;
	if (verdict_give(p, q, NULL, &ask) == ASSESS_ASK)
		pending_begin(p, q, ask);
}

/* --- peers ---------------------------------------------------------------------------------------------------------- */

static void on_peer_message(struct ipc_channel *channel, enum ipc_type type, const union ipc_any *m, int *fd, void *arg)
{
	struct ipc_question q;

	(void)fd;
	if (type != IPC_MSG_QUESTION)
		return;
	q = m->question;
	/* the answer goes to whom the supervisor introduced, whatever the question claims */
	for (q.tunnel = 0; q.tunnel < TUNNELS_MAX; q.tunnel++)
		if (tunnels[q.tunnel] == channel) {
			on_question(arg, &q);
			return;
		}
}

static void on_peer_ended(struct ipc_channel *channel, const char *reason, void *arg)
{
	struct policy *p = arg;

	log_info("peer gone", "role=%s index=%u reason=%s", ipc_role_name(ipc_peer_role(channel)),
	         ipc_peer_index(channel), log_value(reason));
	if (p->router == channel)
		p->router = NULL;
	for (unsigned i = 0; i < TUNNELS_MAX; i++)
		if (tunnels[i] == channel)
			tunnels[i] = NULL;
	ipc_channel_free(channel);
}

static void on_peer(void *arg, enum ipc_role role, unsigned index, int fd)
{
	struct policy *p = arg;
	/* takes fd over, also when it fails */
	struct ipc_channel *channel = ipc_channel_new(worker_base(p->worker), fd, IPC_POLICY, worker_index(p->worker), role,
	                                              on_peer_message, on_peer_ended, p);

	if (!channel) {
		log_error("channel to a peer", "role=%s index=%u error=%s", ipc_role_name(role), index,
		          log_value(strerror(errno)));
		return;
	}
	if (role == IPC_ROUTER) {
		ipc_channel_free(p->router);
		p->router = channel;
	} else if (role == IPC_TUNNEL && index < TUNNELS_MAX) {
		ipc_channel_free(tunnels[index]);
		tunnels[index] = channel;
		pending_forget(p, index);
	} else {
		ipc_channel_free(channel);   /* telemetry and others: we have nothing to say to them */
	}
}

/* --- generations ---------------------------------------------------------------------------------------------------- */

static int on_prepare(void *arg, uint64_t generation, struct config *config, char *error, size_t error_size)
{
	struct policy *p = arg;

	(void)error, (void)error_size;
	generations_prepare(&p->generations, generation, config);
	return 0;
}

static void on_commit(void *arg, uint64_t generation)
{
	struct policy *p = arg;

	generations_commit(&p->generations, generation);
	pending_sweep(p);
}

static void on_abort(void *arg, uint64_t generation)
{
	struct policy *p = arg;

	generations_abort(&p->generations, generation);
}

static void release(void *object)
{
	config_free(object);
}

/* --- the supervisor ------------------------------------------------------------------------------------------------- */

static void on_message(void *arg, enum ipc_type type, const union ipc_any *m, int *fd)
{
	struct policy *p = arg;
	struct ipc_question q;

	switch (type) {
	case IPC_MSG_QUESTION:         /* `route explain`, `policy explain` */
		q = m->question;
		q.tunnel = IPC_EXPLAIN;
		on_question(p, &q);
		break;
	case IPC_MSG_DIALED:
		pending_dialed(p, m->dialed.id, fd, m->dialed.error);
		break;
	case IPC_MSG_ADMIN_REQUEST:
		worker_reply(p->worker, m->admin_request.id, 2, NULL, "policy knows no such verb");
		break;
	default:
		break;
	}
}

/* jansson would look for randomness in /dev, which the sandbox closes: keys of an authorizer's objects must not collide
 * on purpose. */
static void seed_hashes(void)
{
	size_t seed = 0;

	if (getrandom(&seed, sizeof(seed), 0) != sizeof(seed))
		fatal("randomness", "error=%s", log_value(strerror(errno)));
	json_object_seed(seed ? seed : 1);
}

int main(int argc, char **argv)
{
	static const struct worker_callbacks callbacks = { .prepare = on_prepare, .commit = on_commit, .abort = on_abort,
		.peer = on_peer, .message = on_message };
	int status;

	policy.generations.release = release;
	policy.worker = worker_start(IPC_POLICY, argc, argv, 0, &callbacks, &policy);
	policy.answers = answers_new();
	if (!policy.answers)
		fatal("out of memory", "%s", "at=start");
	seed_hashes();
	status = worker_run(policy.worker);
	generations_clear(&policy.generations);
	answers_free(policy.answers);
	return status;
}

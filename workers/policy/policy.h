/* The policy worker's parts, and what they know of each other: main.c speaks to the supervisor and the peers, verdict.c
 * judges a question and passes it on, pending.c holds those that wait for an authorizer. */
#ifndef HERMES_POLICY_POLICY_H
#define HERMES_POLICY_POLICY_H

#include "ipc/worker.h"
#include "store/generations.h"
#include "workers/policy/answers.h"
#include "workers/policy/assess.h"

struct policy {
	struct worker *worker;
	struct generations generations;   /* of struct config */
	struct ipc_channel *router;       /* NULL: gone; questions are dropped, the tunnel asks again */
	struct pending *pending;          /* questions waiting for an authorizer, by who asked and id */
	struct authorizers *authorizers;
	struct answers *answers;
};

/* CLOCK_MONOTONIC, ms */
uint64_t policy_now(void);

/* --- verdict.c --- */
/* Judges the question from the generation it carries with what authorizers said so far. ASSESS_DONE: it was passed on to
 * the router (or dropped, where there is none). ASSESS_ASK: *ask is whose authorizer must be asked first. */
enum assess_step verdict_give(struct policy *policy, const struct ipc_question *question,
                              const struct assess_answer *answers, const struct config_policy **ask);

/* --- pending.c --- */
/* Keeps a copy of the question and asks the authorizer of `ask`; what follows happens by itself. */
void pending_begin(struct policy *policy, const struct ipc_question *question, const struct config_policy *ask);
/* True: the same question waits already (the tunnel repeats it); it lives on with the new deadline. */
bool pending_repeat(struct policy *policy, const struct ipc_question *question);
/* Whoever asked is gone: its questions are forgotten when their answers come. */
void pending_forget(struct policy *policy, uint32_t tunnel);
void pending_dialed(struct policy *policy, uint64_t id, int *fd, const char *error);
/* Frees the authorizers that neither configuration names any more and nobody waits for. */
void pending_sweep(struct policy *policy);

#endif

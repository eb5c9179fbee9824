/* The connections to one external authorizer: HTTP/1.1 with keep-alive on sockets that the supervisor dials for us. */
#ifndef HERMES_POLICY_AUTHORIZER_H
#define HERMES_POLICY_AUTHORIZER_H

#include "workers/policy/opa.h"

#define AUTHORIZER_CONNECTIONS 8     /* at once */
#define AUTHORIZER_QUEUE 1024        /* questions waiting for one of them */

struct event_base;
struct authorizer;

/* Asks the supervisor for a connection; the answer comes by authorizer_dialed() with the same id (unique over all
 * authorizers of the process). Returns 0 or -errno. */
typedef int authorizer_dial(void *arg, uint64_t id, const char *address);
/* The answer, or result->failed. What stays must be copied (opa_result_copy). May come before authorizer_ask() returns. */
typedef void authorizer_done(void *arg, const struct opa_result *result);

struct authorizer *authorizer_new(struct event_base *base, const char *address, authorizer_dial *dial, void *arg);
/* Whoever still waits is told that there is no answer. */
void authorizer_free(struct authorizer *authorizer);
const char *authorizer_address(const struct authorizer *authorizer);
/* Nobody waits. */
bool authorizer_idle(const struct authorizer *authorizer);

/* POSTs body to path. False: the queue is full or memory is out; done is not called then. Otherwise done is called, once,
 * within timeout_ms. */
bool authorizer_ask(struct authorizer *authorizer, const char *path, const char *body, uint32_t timeout_ms,
                    authorizer_done *done, void *arg);
/* Takes fd over (-1: it failed, error says why). False: the id is not one of this authorizer's; fd is untouched. */
bool authorizer_dialed(struct authorizer *authorizer, uint64_t id, int fd, const char *error);

#endif

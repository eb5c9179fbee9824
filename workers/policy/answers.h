/* What authorizers answered lately, for policies with `cache`: kept by what was asked, bounded, oldest out first. */
#ifndef HERMES_POLICY_ANSWERS_H
#define HERMES_POLICY_ANSWERS_H

#include "workers/policy/opa.h"

#define ANSWERS_MAX 4096

struct answers;
struct answers *answers_new(void);
void answers_free(struct answers *answers);

/* The text that stands for a question: malloc'd; NULL: out of memory. */
char *answers_key(const char *address, const char *path, const char *body);
/* now: ms of any steady clock. The result lives until the next put; *left_ms: how long it still holds (> 0). NULL: none. */
const struct opa_result *answers_get(struct answers *answers, const char *key, uint64_t now, uint32_t *left_ms);
/* Copies both; what does not fit into memory is not kept. Failures are never to be kept. */
void answers_put(struct answers *answers, const char *key, const struct opa_result *result, uint64_t now,
                 uint32_t valid_ms);

#endif

/* What is asked of an external authorizer, and what it said: OPA's REST data API. */
#ifndef HERMES_POLICY_OPA_H
#define HERMES_POLICY_OPA_H

#include "ipc/messages.h"
#include "store/match.h"

#define OPA_HEADERS_MAX 64

/* {"input": {...}} for a question; malloc'd, NUL-terminated; NULL: out of memory. Headers of one name are joined by ", ";
 * there are those that the configuration examines. */
char *opa_input(const struct ipc_question *question);

struct opa_result {
	bool allowed;
	struct match_header headers[OPA_HEADERS_MAX]; size_t n_headers;  /* names lower case; the result owns them */
	const char *failed;           /* static text: not an answer; nothing is allowed then */
	char *text;                   /* the memory behind the headers */
};
/* {"result": bool} or {"result": {"allowed": bool, "headers": {name: value}}}. An undefined result (no "result") refuses.
 * Headers that are not headers, or that frame a message, make it no answer. */
void opa_result_parse(const char *body, size_t length, struct opa_result *out);
void opa_result_clear(struct opa_result *result);
/* A copy with memory of its own; 0 or -ENOMEM. */
int opa_result_copy(const struct opa_result *from, struct opa_result *to);

#endif

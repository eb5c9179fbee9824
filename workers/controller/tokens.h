/* SPDX-License-Identifier: Apache-2.0 */
/* Tokens of enrolment: "hermes1.ID.SECRET.FINGERPRINT". Of the secret only its hash is kept; one use; they expire. */
#ifndef HERMES_CONTROLLER_TOKENS_H
#define HERMES_CONTROLLER_TOKENS_H

#include "workers/controller/api.h"

#define TOKEN_ID 12                   /* random bytes */
#define TOKEN_SECRET 32

struct token {
	char key[64];                 /* token/ID */
	uint64_t revision;
	char node[64], author[80];    /* which nodes, as a name or pattern; who made it */
	bool controller;
};

/* NULL: it is good, and found says what for; else why it is not (static). After 10 wrong secrets a token is gone. */
const char *tokens_check(struct kv *kv, const char *text, struct token *found);
/* Routes: GET, POST /v1/tokens, DELETE /v1/tokens/ID. */
void tokens_add(struct api *api);

#endif

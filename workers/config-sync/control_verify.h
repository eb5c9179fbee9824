/* SPDX-License-Identifier: Apache-2.0 */
/* What a controller answers to GET /v1/config: believed only where the domain's key has signed it, for this node, and it is newer than
 * anything that was taken or refused. */
#ifndef HERMES_CONFIG_SYNC_CONTROL_VERIFY_H
#define HERMES_CONFIG_SYNC_CONTROL_VERIFY_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct control_trust {
	const char *domain, *node;
	const char *key;              /* base64 of 32 bytes */
	uint64_t last;                /* the highest number dealt with */
};

/* Strings point into root. */
struct control_version {
	uint64_t number, version;
	const char *author, *reason, *digest, *text;
	size_t length;
	json_t *root;
};
void control_version_clear(struct control_version *v);

/* 0, or -1 with the fault for people; v->number is then what it claimed, or 0. v is to be cleared in both cases. */
int control_verify(const char *body, size_t length, const struct control_trust *trust, struct control_version *v, char *why,
                   size_t size);

#endif

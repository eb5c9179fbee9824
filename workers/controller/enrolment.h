/* SPDX-License-Identifier: Apache-2.0 */
/* Who becomes a node: tokens, certificates, revocation. */
#ifndef HERMES_CONTROLLER_ENROLMENT_H
#define HERMES_CONTROLLER_ENROLMENT_H

#include "workers/controller/api.h"

#define TOKEN_TEXT_MAX 256

struct enrolment *enrolment_new(struct controller *controller, struct event_base *base);
void enrolment_free(struct enrolment *enrolment);
/* Its routes: authorities, enroll, renew, tokens, nodes/NAME/revoke. */
void enrolment_add(struct api *api);

/* Whether a token for `pattern` (a name; or with * and ?) is good for this node. exact: only one made for just this name is. */
bool enrolment_pattern_fits(const char *pattern, const char *node, bool exact);
/* base64url of the SHA-256 of the first certificate (DER) of a PEM text; false: there is none. out: 44 bytes. */
bool enrolment_fingerprint(const char *pem, char out[44]);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* Questions of our own to workers: ADMIN_REQUEST, as hermes-admin's are passed on, but nobody's at the socket. */
#ifndef HERMES_SUPERVISOR_INQUIRE_H
#define HERMES_SUPERVISOR_INQUIRE_H

#include "supervisor/child.h"

struct inquiries;
struct inquiries *inquiries_new(struct supervisor *s);
/* Nobody is told any more. */
void inquiries_free(struct inquiries *inquiries);

/* json: what the worker said (NULL where it did not), lives as long as the call; error: NULL, or why not. */
typedef void inquired(void *arg, const char *json, const char *error);
/* done is called once, within limit_ms, never before this returns. word: NULL, or the one argument. child NULL: nobody is there.
 * 0, or -ENOMEM (done is not called then). */
int inquire(struct inquiries *inquiries, struct child *child, const char *verb, const char *word, unsigned limit_ms, inquired *done,
            void *arg);
/* arg is told nothing any more. */
void inquire_forget(struct inquiries *inquiries, const void *arg);
/* False: it is no answer to one of ours. */
bool inquire_replied(struct inquiries *inquiries, struct child *child, const struct ipc_admin_reply *m, int fd);

#endif

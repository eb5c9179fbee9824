/* SPDX-License-Identifier: Apache-2.0 */
/* How the node does, gathered of its workers for the controllers. */
#ifndef HERMES_SUPERVISOR_REPORT_H
#define HERMES_SUPERVISOR_REPORT_H

struct supervisor;
struct report;

/* json: NULL: out of memory; lives as long as the call. */
typedef void report_done(void *arg, const char *json);
/* done is called once, within a second or two, never before this returns, unless report_free() comes first. NULL: out of memory. */
struct report *report_new(struct supervisor *s, report_done *done, void *arg);
/* By the owner, also from within done. */
void report_free(struct report *report);

#endif

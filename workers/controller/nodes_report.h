/* SPDX-License-Identifier: Apache-2.0 */
/* What a node says of itself (POST /v1/report). */
#ifndef HERMES_CONTROLLER_NODES_REPORT_H
#define HERMES_CONTROLLER_NODES_REPORT_H

#include <jansson.h>
#include <stdbool.h>

/* NULL, or what is wrong with it (static): members that others read have the kinds that they take them for. */
const char *nodes_report_fault(const json_t *report);
/* Whether the two say the same of what the node runs. */
bool nodes_report_same(const json_t *a, const json_t *b);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* Streams between tunnel workers: for flows whose far end belongs to another worker of the node. */
#ifndef HERMES_SUPERVISOR_LINKS_H
#define HERMES_SUPERVISOR_LINKS_H

#include "supervisor/child.h"

/* A tunnel worker wants a stream to another one: both get an end. Nothing happens where that one is not there: it asks again. */
void links_wanted(struct child *child, const struct ipc_link_wanted *m);

#endif

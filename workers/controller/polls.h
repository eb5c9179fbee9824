/* SPDX-License-Identifier: Apache-2.0 */
/* Nodes that wait for a configuration (GET /v1/config): answered when want/NAME gets a higher number than they have. */
#ifndef HERMES_CONTROLLER_POLLS_H
#define HERMES_CONTROLLER_POLLS_H

#include "workers/controller/api.h"

#define POLLS_WAIT_MAX 300        /* s */
#define POLLS_PER_NODE 4          /* beyond, the oldest is answered: nothing new */

struct polls *polls_new(struct controller *controller, struct event_base *base);
/* kv is ready. */
void polls_start(struct polls *polls);
/* Handler of GET /v1/config. */
void polls_config(struct api_call *call);
size_t polls_waiting(const struct polls *polls);
/* All are answered: nothing new. */
void polls_end(struct polls *polls);
void polls_free(struct polls *polls);

#endif

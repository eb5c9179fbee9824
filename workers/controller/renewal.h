/* SPDX-License-Identifier: Apache-2.0 */
#ifndef HERMES_CONTROLLER_RENEWAL_H
#define HERMES_CONTROLLER_RENEWAL_H

#include "workers/controller/api.h"

/* POST /v1/nodes/NAME/renew */
void renewal_add(struct api *api);

/* kv is ready. */
void renewal_start(struct controller *controller);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* What the controller counts, as OpenMetrics. */
#ifndef HERMES_CONTROLLER_METRICS_H
#define HERMES_CONTROLLER_METRICS_H

#include "workers/controller/controller.h"

/* malloc'd; NULL: out of memory. */
char *metrics_text(struct controller *controller);

#endif

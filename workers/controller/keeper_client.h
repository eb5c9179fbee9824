/* SPDX-License-Identifier: Apache-2.0 */
/* The channel to hermes-keeper; what others use of it is in controller.h. */
#ifndef HERMES_CONTROLLER_KEEPER_CLIENT_H
#define HERMES_CONTROLLER_KEEPER_CLIENT_H

#include "workers/controller/controller.h"

struct keeper_client *keeper_client_new(struct event_base *base);
/* A channel to a keeper: what is open is asked there (again). Takes over fd. */
void keeper_client_peer(struct keeper_client *keeper, int fd);
void keeper_client_free(struct keeper_client *keeper);

#endif

/* Addresses as written. Internal to store/ (the rest is in config.h). */
#ifndef HERMES_STORE_CONFIG_ADDRESS_H
#define HERMES_STORE_CONFIG_ADDRESS_H

#include <stdbool.h>

struct config_address;

/* Whether the host is an IP address and no name. */
bool config_address_is_literal(const struct config_address *address);

#endif

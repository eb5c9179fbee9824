/* What packer and unpacker share. Internal to store/. */
#ifndef HERMES_STORE_CONFIG_PACK_H
#define HERMES_STORE_CONFIG_PACK_H

#include <stddef.h>

struct config;
struct config_object;

#define CONFIG_PACK_MAGIC "hermes-config"
#define CONFIG_PACK_FORMAT 1u             /* raised only by what is not an appended field */
#define CONFIG_PACK_MAX ((size_t)256 * 1024 * 1024)

/* How many of an object's fields are packed. */
unsigned config_packed_fields(const struct config_object *object);

/* Makes the index for config_cluster() and config_listener(). Without memory for it they search. */
void config_index(struct config *config);

#endif

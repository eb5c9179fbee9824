/* Certificates and keys that the supervisor handed over, until the contexts of their generation are made. */
#ifndef HERMES_TUNNEL_FILES_H
#define HERMES_TUNNEL_FILES_H

#include <stdint.h>

#include "workers/tunnel/tls.h"

#define FILES_MAX (4u << 20)      /* bytes of one file */

struct files;
struct files *files_new(void);
/* Copies. */
void files_add(struct files *files, uint64_t generation, const char *kind, const char *path, const char *data, size_t length);
/* Those of a generation; valid until the next call. */
const struct tls_file *files_of(struct files *files, uint64_t generation, size_t *n);
/* Wipes those of this and earlier generations. */
void files_forget(struct files *files, uint64_t generation);

#endif

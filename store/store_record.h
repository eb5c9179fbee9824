/* Records of the store: a header with format and SHA-256, then fields that each end with a NUL. Internal to store/. */
#ifndef HERMES_STORE_STORE_RECORD_H
#define HERMES_STORE_STORE_RECORD_H

#include "store/store.h"

#define RECORD_FORMAT 1u
#define RECORD_MAX 2048

/* Returns the length. kind goes into the checksum, so that a record cannot stand in another's place. */
size_t record_write(char kind, const char *const *fields, unsigned n, uint8_t out[RECORD_MAX]);
/* Splits a record into exactly n fields, which lie in text. 0; -EUCLEAN: damaged; -EPROTONOSUPPORT: of another format. */
int record_read(char kind, const void *data, size_t length, char text[RECORD_MAX], const char **fields, unsigned n);

size_t record_write_version(const struct store_version *v, uint8_t out[RECORD_MAX]);
/* Also checks that the record is of that version. */
int record_read_version(const void *data, size_t length, uint64_t version, struct store_version *v);

#endif

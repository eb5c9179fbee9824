/* Writes JSON into a growing buffer: what replies, logs and records are made of. (Reading: jansson.) */
#ifndef HERMES_IPC_JSON_H
#define HERMES_IPC_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct json {
	char *data;      /* NUL-terminated; free with json_free */
	size_t length, size;
	unsigned depth;
	uint64_t comma;  /* a bit per depth: a value came already */
	bool failed;     /* out of memory, or over 63 deep: everything after is dropped */
	uint64_t arrays; /* a bit per depth: it is an array, to be closed as one */
};
#define JSON_INIT {0}
void json_free(struct json *j);
/* key: NULL inside arrays and at top level */
void json_begin_object(struct json *j, const char *key);
void json_begin_array(struct json *j, const char *key);
/* The short names are jansson's too: whoever reads and writes includes jansson.h first, and writes with the long ones. */
#ifndef JANSSON_H
#define json_object(j, key) json_begin_object(j, key)
#define json_array(j, key) json_begin_array(j, key)
#endif
void json_end(struct json *j);                      /* closes the innermost object or array */
void json_str(struct json *j, const char *key, const char *value);  /* NULL: null; invalid UTF-8 becomes U+FFFD */
void json_str_n(struct json *j, const char *key, const char *value, size_t length);
void json_int(struct json *j, const char *key, int64_t value);
void json_uint(struct json *j, const char *key, uint64_t value);
void json_double(struct json *j, const char *key, double value);
void json_bool(struct json *j, const char *key, bool value);
void json_raw(struct json *j, const char *key, const char *json);   /* already JSON */

#endif

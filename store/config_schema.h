/* The configuration's declaration: every key, once, with its type, default and explanation. The parser, the packer, the
 * JSON view and the test of hermes.yaml(5) walk these tables. Internal to store/. */
#ifndef HERMES_STORE_CONFIG_SCHEMA_H
#define HERMES_STORE_CONFIG_SCHEMA_H

#include "store/config.h"

/* How a field lies in memory and, following from it, in the packed form. */
enum config_storage {
	S_STR, S_BOOL, S_U8, S_U16, S_U32, S_U64, S_STRS, S_PAIRS, S_ADDRESS, S_PREFIX, S_PREFIXES, S_OFFSETS,
	S_OBJECT,      /* struct inside the struct */
	S_LIST,        /* pointer at offset, count at count_offset */
	S_GROUP,       /* an object in the document whose fields lie in the same struct */
	S_NONE,        /* only a key of the document, another field stores it */
};

/* How it is written. */
enum config_form {
	W_NONE,        /* not written: carried to the workers only */
	W_TEXT, W_NAME /* [A-Za-z0-9._-] */, W_SECRET, W_HEADER, W_WORD /* one of names, stored as text */,
	W_BOOL, W_NOT /* true is stored as false */, W_FLAG /* names[0]: false, names[1]: true */, W_INT, W_ENUM,
	W_SIZE, W_MIB /* a size, stored >> 20 */, W_DURATION /* stored in ms */, W_SECONDS /* a duration, stored in s */,
	W_STRINGS,     /* a list or a single string; may be empty */
	W_SOME,        /* a list or a single string; at least one */
	W_LOWER,       /* as W_SOME, made lower case */
	W_WORDS,       /* as W_SOME, each one of names; stored as bits */
	W_HEADERS,     /* list of header names */
	W_ADD_HEADERS, /* map of header names to values */
	W_ADDRESS, W_TARGET /* an address whose host may be a name; port needed */, W_LISTEN, W_PREFIX, W_PREFIXES,
	W_OBJECT, W_OBJECTS, W_KEYED /* map; the key goes into the element's `key` */,
	/* forms of their own, in config_forms.c */
	W_TLS, W_ENDPOINTS, W_TARGETS, W_PATHS, W_HEADER_MATCHES, W_TIMES, W_PROTOCOL, W_ALLOW, W_DENY,
	W_PORTS, W_STATUS /* S_NONE: the range's low end lies at offset, its high end at count_offset */,
	W_CAPTURED,    /* tcp, udp or both */
	W_SPEAKS,      /* peers: users or headers; "*" or none: any */
	W_DEVICE_ADDRESSES,
	W_HOPS,        /* as W_ENDPOINTS, but no `target` */
};

enum {
	F_REQUIRED = 1,
	F_ALWAYS = 2,  /* the parser sees to it that there is one: a packed form without it is refused */
};

struct config_object;
struct config_field {
	const char *key;                    /* NULL with W_NONE */
	enum config_storage storage;
	enum config_form form;
	size_t offset, count_offset;
	unsigned flags;
	const struct config_object *object; /* of S_OBJECT, S_LIST, S_GROUP; what a W_ALLOW etc. holds */
	const char *const *names;           /* NULL-terminated */
	uint64_t min, max;                  /* of numbers, sizes (bytes), durations (ms); max 0: what the storage holds */
	const char *preset;                 /* as it would be written; NULL: zero, none */
	const char *doc;                    /* one line for people */
};
struct config_object {
	const char *name;                   /* for people: "listener" */
	size_t size;
	const struct config_field *fields;  /* append only: the packed form is an array in this order */
	unsigned n_fields;
	bool absent_is_zero;                /* presets hold only where the object is written */
};

extern const struct config_object config_document, config_match_object, config_endpoint_object;

#define CONFIG_TLS_AUTO 2u              /* min_version: chosen by the parser, never seen outside it */

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* Structured fields (RFC 8941): dictionaries of ours, read no further than needed to pass over what we do not know. */
#ifndef HERMES_TUNNEL_SF_H
#define HERMES_TUNNEL_SF_H

#include "workers/tunnel/head.h"

/* OTHER: decimals, negative numbers, tokens, byte sequences, inner lists: none of ours has one. */
enum sf_kind { SF_BOOLEAN, SF_INTEGER, SF_STRING, SF_OTHER };
struct sf_item {
	enum sf_kind kind;
	uint64_t number;              /* of INTEGER, BOOLEAN */
	const char *text;             /* of STRING: between its quotes, escapes included */
	size_t length;
};

/* Called per member; pointers live for the call. false: the member is malformed for the callee. */
typedef bool sf_member(void *arg, const char *key, size_t length, const struct sf_item *item);
/* All lines of the field are one dictionary. false: absent, malformed or over 4 KiB; members may have been told of then. */
bool sf_dictionary(const struct head *head, const char *name, sf_member *member, void *arg);
bool sf_key_is(const char *key, size_t length, const char *name);
/* A STRING without its escapes; false: another kind, or it does not fit. */
bool sf_string(const struct sf_item *item, char *out, size_t size);

/* A dictionary under construction; what does not fit is left out, a member as a whole. Zero, with text and size set. */
struct sf_writer { char *text; size_t size, length; };
/* value NULL: nothing is written. What is not printable ASCII becomes "?". */
void sf_put_string(struct sf_writer *writer, const char *key, const char *value);
void sf_put_integer(struct sf_writer *writer, const char *key, uint64_t value);
void sf_put_true(struct sf_writer *writer, const char *key);

#endif

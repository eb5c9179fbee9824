/* SPDX-License-Identifier: Apache-2.0 */
/* etcd's JSON gateway (v3): bodies of requests, and what answers say. Keys and values travel as base64, 64-bit numbers as text. */
#ifndef HERMES_CONTROLLER_KV_ETCD_WIRE_H
#define HERMES_CONTROLLER_KV_ETCD_WIRE_H

#include "workers/controller/kv_internal.h"

/* Bodies: malloc'd; NULL: out of memory. prefix: before every key. */

/* A page of all keys, behind the key `after` (NULL: from the first), as of revision (0: now). */
char *wire_range(const char *prefix, const char *after, uint64_t revision, unsigned limit);
/* again: it may have been done already: the answer, where the conditions do not hold, then tells what is there now. */
char *wire_txn(const char *prefix, const struct kv_txn *txn, uint64_t lease, bool again);
char *wire_watch(const char *prefix, uint64_t from);
char *wire_grant(unsigned seconds);
char *wire_keepalive(uint64_t lease);

/* Answers. */

uint64_t wire_number(const json_t *object, const char *name);      /* 0 where there is none */
uint64_t wire_revision(const json_t *answer);                      /* of its header */
/* The key behind the prefix, decoded into out; false: not one of ours. */
bool wire_key(const json_t *kv, const char *prefix, char out[KV_KEY_MAX + 1]);
/* The value decoded and parsed; NULL: it is not JSON. */
json_t *wire_value(const json_t *kv);
/* Whether a transaction that was done changed anything (only then comes an event). */
bool wire_changed(const json_t *answer);
/* Whether what the answer to one asked `again` found there is what txn would write. */
bool wire_is_done(const json_t *answer, const char *prefix, const struct kv_txn *txn);
/* An answer that is no 200, as an error: -E2BIG, -ENOSPC, -ESTALE (the lease is gone), -ETIMEDOUT (no leader and the like), -EIO. */
int wire_error(const char *body, size_t length);

#endif

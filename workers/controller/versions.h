/* SPDX-License-Identifier: Apache-2.0 */
/* The domain's documents as kv holds them (document/N), parsed when they are needed. */
#ifndef HERMES_CONTROLLER_VERSIONS_H
#define HERMES_CONTROLLER_VERSIONS_H

#include "workers/controller/document.h"
#include "workers/controller/kv.h"

#define VERSIONS_KEPT 200         /* documents in the history, those in use apart */

struct version { uint64_t number; struct document *document; unsigned refs; };

struct versions;
struct versions *versions_new(struct kv *kv);
void versions_free(struct versions *versions);

/* One reference, to be given back; NULL with errors in report where there is none such, or it cannot be read any more. */
struct version *versions_open(struct versions *versions, uint64_t number, struct config_report *report);
/* For a document that is not kept (yet); takes it over. */
struct version *version_new(uint64_t number, struct document *document);
struct version *version_keep(struct version *version);
void version_release(struct version *version);

/* Number of the newest document; 0: none. revision (may be NULL): of document-head, for conditions. */
uint64_t versions_head(struct kv *kv, uint64_t *revision);
/* Its record {"version", "time", "author", "comment", "digest", "text"}, kv's; NULL: none. */
json_t *versions_record(struct kv *kv, uint64_t number);
/* Adds the document after `head` to txn, as the newest, and takes out what is too old. in_use: numbers (as a list) that stay. */
void versions_put(struct kv *kv, struct kv_txn *txn, uint64_t head, uint64_t head_revision, const char *author, const char *comment,
                  const char *text, const json_t *in_use);
/* [{"version", "time", "author", "comment", "digest", "bytes"}], newest first. */
json_t *versions_list(struct kv *kv, size_t limit);

#endif

/* The local store (LMDB): every configuration version, the one in force, the last confirmed good. config-sync is the only
 * writer. Every record carries a checksum; what does not check is reported, never used. */
#ifndef HERMES_STORE_STORE_H
#define HERMES_STORE_STORE_H

#include <stddef.h>
#include <stdint.h>

#define STORE_FILE "store.mdb"     /* in the folder; LMDB adds STORE_FILE "-lock" */

struct store;

/* The controller's document that a version is composed with. */
struct store_layer {
	uint64_t number;          /* the controller's; 0: there is no such layer */
	int64_t time;             /* Unix seconds when it was taken */
	char author[64], reason[256];
	char digest[65];
	char *text; size_t length;
};

/* A configuration: the node's own document, which wins, and where there is one the controller's under it. */
struct store_version {
	uint64_t version;         /* 1... */
	int64_t time;             /* Unix seconds when submitted */
	char source[16];          /* "file", "admin", "controller" */
	char author[64], name[256];
	char digest[65];          /* SHA-256 of the text, hex */
	char state[16];           /* "candidate", "in force", "superseded", "refused" */
	char reason[256];         /* why refused */
	char *text; size_t length;   /* the document; malloc'd, NULL where not asked for */
	struct store_layer controller;
	int64_t confirmed;        /* Unix seconds when a controller was reached over it, or 0 */
};
void store_version_clear(struct store_version *v);

/* Opens (makes) the store in folder; map_size bytes (0: 256 MiB). Returns 0, or a negative code: -errno, or
 * -EUCLEAN when it is damaged beyond its records' checksums, with *why (static text). */
int store_open(const char *folder, size_t map_size, struct store **store, const char **why);
void store_close(struct store *store);
/* Renames a damaged store's file to store.damaged-TIMESTAMP (path in moved), so that a new one can be made. */
int store_set_aside(const char *folder, char *moved, size_t size);

/* Adds a candidate; sets v->version. Synced to disk on return. -ENOSPC: disk or map full, nothing changed. */
int store_add(struct store *store, struct store_version *v);
/* Makes version the one in force (the one before becomes superseded), in one transaction, synced. */
int store_set_in_force(struct store *store, uint64_t version);
int store_refuse(struct store *store, uint64_t version, const char *reason);
/* v->version 0: none. A version whose record does not check is skipped for the newest older one that was in force: *skipped counts. */
int store_in_force(struct store *store, struct store_version *v, unsigned *skipped);
int store_get(struct store *store, uint64_t version, struct store_version *v);
/* Without texts. */
int store_peek(struct store *store, uint64_t version, struct store_version *v);
/* Newest first, without texts; malloc'd array. */
int store_history(struct store *store, size_t limit, struct store_version **v, size_t *n);
/* The digest of the last document taken from the file, to tell whether the file changed while we were down. */
int store_file_digest(struct store *store, char digest[65]);
int store_set_file_digest(struct store *store, const char *digest);
/* A controller was reached over this version; synced. Returns 0, -ENOENT ... */
int store_confirm(struct store *store, uint64_t version);
/* The last such version that is whole; 0: none. */
uint64_t store_confirmed(struct store *store);
/* The controller's layer of a version has this number too (its text is the same); synced. */
int store_renumber(struct store *store, uint64_t version, const struct store_layer *layer);
/* A short text (at most 500 bytes) under a name of its own, for whoever has something to remember (config-sync: "control"). Synced.
 * 0 or negative; out is empty where there is none, or where it is damaged (-EUCLEAN). */
int store_note(struct store *store, const char *name, char *out, size_t size);
int store_set_note(struct store *store, const char *name, const char *text);
/* Keeps the newest `keep` versions and always the one in force and the last confirmed. */
int store_prune(struct store *store, size_t keep);

#endif

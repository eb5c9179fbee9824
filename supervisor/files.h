/* What workers may not open: certificates, keys, authorities, revocation lists, resolv.conf, hosts, log files. The
 * supervisor reads a snapshot per generation (so that a replaced worker gets the same as its peers), and hands each
 * worker that needs it a sealed memfd; log files are opened for appending and handed over themselves. */
#ifndef HERMES_SUPERVISOR_FILES_H
#define HERMES_SUPERVISOR_FILES_H

#include "supervisor/child.h"

struct config;
struct event_base;
struct files;

/* config_file: relative paths count from its folder. */
struct files *files_new(struct supervisor *s, const char *config_file);
void files_free(struct files *files);

/* Reads and opens all that `config` names. Returns 0, or -1 with error naming the file; nothing changed then. Certificates,
 * keys, authorities and log files must be there; resolv.conf and hosts may be missing. */
int files_prepare(struct files *files, const struct config *config, char *error, size_t size);
void files_commit(struct files *files);
void files_abort(struct files *files);
/* FILE messages for the child's role; prepared: of what is being prepared, else of what is in force. */
void files_send(struct files *files, struct child *child, uint64_t generation, bool prepared);
/* Opens log files again, and reads resolv.conf and hosts where they changed: sent with generation 0. */
void files_refresh(struct files *files);
/* Whether a certificate, key, authority or revocation list is no longer what is in force. */
bool files_stale(const struct files *files);

/* For a restart in place: what is in force, each content in a memfd, which files_saved() closes; and back. 0 or -errno. */
struct state;
int files_save(struct files *files, struct state *state);
void files_saved(struct files *files);
int files_adopt(struct files *files, const struct state *state);

/* "dir of config_file/path", or path where absolute. malloc'd. */
char *files_resolve(const char *config_file, const char *path);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* A machine becomes a node: its folder of keys and the configuration that it starts with are written together, or nothing is. */
#ifndef HERMES_SUPERVISOR_ADMIN_BOOTSTRAP_H
#define HERMES_SUPERVISOR_ADMIN_BOOTSTRAP_H

#include <stdbool.h>
#include <stddef.h>

#define BOOTSTRAP_CONFIG "/etc/hermes/hermes.yaml"
#define BOOTSTRAP_STATE "/var/lib/hermes"
#define BOOTSTRAP_FILES_MAX 8

struct bootstrap {
	const char *config, *state;       /* the configuration file, the state folder */
	bool force;                       /* what is there already goes, under another name */
	const char *node, *domain;
	const char *listen;               /* a controller's `address`; NULL: it is none */
	const char *const *etcd; size_t n_etcd;
	const char *const *controllers; size_t n_controllers;
	const char *key;                  /* the domain's public key */
	struct { const char *name, *text; } files[BOOTSTRAP_FILES_MAX];   /* of the folder of keys */
	size_t n_files;
};

void bootstrap_add(struct bootstrap *b, const char *name, const char *text);
/* Whether it could be written: says why not. To be asked before anything is spent on it (a token). 0 or 1. */
int bootstrap_check(const struct bootstrap *b);
/* 0, or 1 after saying what is wrong; nothing has changed then. */
int bootstrap_write(const struct bootstrap *b);
/* STATE/keys, absolute. malloc'd. */
char *bootstrap_keys(const char *state);

#endif

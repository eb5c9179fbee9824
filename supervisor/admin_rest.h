/* SPDX-License-Identifier: Apache-2.0 */
/* The controller's REST interface from here: verbs as rows of a table, each one request. By default over controller.sock beside the
 * admin socket; --url, --cert, --key and --ca reach a controller over the network, with a node's certificate. */
#ifndef HERMES_SUPERVISOR_ADMIN_REST_H
#define HERMES_SUPERVISOR_ADMIN_REST_H

#include "supervisor/admin_http.h"
#include "supervisor/admin_verbs.h"

/* A word or an option, and where it goes: into the path (its next %s), the query or the body. */
enum rest_kind { REST_PATH, REST_TEXT, REST_NUMBER, REST_SECONDS, REST_FLAG, REST_ON_OFF, REST_LIST };
struct rest_field {
	const char *option;       /* "--comment"; NULL: the next plain word */
	const char *name;         /* member, or the query's parameter; REST_PATH: for errors */
	enum rest_kind kind;
	bool query, required;
};

#define REST_FIELDS_MAX 8
struct rest_verb {
	const char *noun, *verb;
	const char *method, *path;
	struct rest_field fields[REST_FIELDS_MAX];
	bool document;            /* the body is a YAML document; the first plain word names its file */
	const char *body;         /* a member that is always there: "action" */
	const char *value;        /* its value */
	long seconds;             /* for the answer; 0: the default */
};

struct rest {
	struct admin_http http;
	char socket[256], named[300];     /* named: the url with the name that controllers' certificates have */
	const char *url, *certificate, *key, *ca;
	bool wait, watch;
	const char *interval;
};

/* Asks, prints, returns the exit status. */
int rest_run(const struct admin_call *call, const struct rest_verb *verb);
/* One request; NULL after saying what went wrong. */
json_t *rest_get(const struct rest *rest, const char *path);
/* Says what a controller answered instead of 2xx. Returns 1. */
int rest_error(long status, const char *body);
int rest_print(const struct admin_call *call, const json_t *document);

/* admin_domain.c: what --wait and --watch look at after the request itself. Returns the exit status. */
int domain_follow(const struct admin_call *call, const struct rest *rest);
int domain_watch_nodes(const struct admin_call *call, const struct rest *rest);

#endif

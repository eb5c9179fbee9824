/* SPDX-License-Identifier: Apache-2.0 */
/* One HTTP request to a controller: over its Unix socket, or over TLS. Never by a proxy of the environment. */
#ifndef HERMES_SUPERVISOR_ADMIN_HTTP_H
#define HERMES_SUPERVISOR_ADMIN_HTTP_H

#include <stdbool.h>
#include <stddef.h>

#define ADMIN_HTTP_ERROR 320

struct admin_http {
	const char *socket;           /* a Unix socket; then url is only its path's beginning */
	const char *url;              /* "https://HOST:PORT" */
	const char *connect_to;       /* "HOST:PORT" that is dialled instead of url's; NULL: url's */
	const char *ca_text, *ca_file;/* whom to believe: PEM */
	bool unverified;              /* nobody is believed or asked: for what is checked by other means */
	const char *certificate, *key;/* files of ours; NULL: none */
	long seconds;                 /* for the whole; 0: 30 */
};

struct admin_answer {
	long status;                  /* 0: there is none, see error */
	char *body;                   /* NUL-terminated behind length; never NULL where there is a status */
	size_t length;
	char error[ADMIN_HTTP_ERROR];
};

/* type, body: NULL: none. Fills answer, to be cleared; 0 where there is one, of any status. */
int admin_http(const struct admin_http *http, const char *method, const char *path, const char *type, const char *body,
               size_t length, struct admin_answer *answer);
void admin_answer_clear(struct admin_answer *answer);

#endif

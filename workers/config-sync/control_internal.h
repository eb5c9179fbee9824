/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the controller's client share:
 *
 *   control.c          which configuration is in force, and whether a controller is within reach
 *   control_poll.c     versions: long poll, verification, CONFIG_WANTED and its outcome
 *   control_confirm.c  a change is confirmed by a controller, or rolled back
 *   control_report.c   reports: when, and what they say
 *   control_renew.c    the node's certificate is renewed
 *   control_link.c     a connection     control_verify.c  a version is believed     control_memory.c  what outlives us */
#ifndef HERMES_CONFIG_SYNC_CONTROL_INTERNAL_H
#define HERMES_CONFIG_SYNC_CONTROL_INTERNAL_H

#include <jansson.h>

#include "workers/config-sync/control.h"
#include "workers/config-sync/control_link.h"
#include "workers/config-sync/control_memory.h"

struct event;

/* A version that was put to the supervisor. id 0: none. */
struct control_offer { uint64_t id, number, version; char digest[65]; };

enum renew_state { RENEW_IDLE, RENEW_REQUEST, RENEW_ASKING, RENEW_INSTALL };

struct control {
	struct sync *sync;
	struct event_base *base;
	struct config *prepared, *config;      /* config: of the generation in force, NULL before */
	uint64_t prepared_generation, generation;
	struct control_memory memory;
	uint64_t last_id;                      /* of CONFIG_WANTED, ADMIN_REQUEST, KEEPER_REQUEST */

	bool connected;                        /* the last we heard was a good answer */
	int64_t since;                         /* Unix seconds: connected, or away, since; 0: never tried */
	char why[200];                         /* why away */

	struct control_link *poll;
	uint64_t asked;                        /* CLOCK_MONOTONIC ms of the request under way */
	struct control_offer offer;
	uint64_t tried;                        /* the number that failed once although it compiled */
	struct event *offer_limit;
	uint64_t bad_number;                   /* what was not believed last; 0: nothing */
	char bad_why[300];
	unsigned bad_delay_ms;
	struct event *bad_wait;                /* pending: no poll meanwhile */

	bool pending, armed;                   /* in force and not confirmed; to be rolled back without a controller */
	bool settled;                          /* a report that is answered now confirms */
	uint64_t deadline;                     /* CLOCK_MONOTONIC ms, where armed */
	uint64_t rolling_back;                 /* id of the CONFIG_WANTED; 0: not */
	struct event *settle, *confirm;

	struct control_link *reports;
	uint64_t gathering;                    /* id of the ADMIN_REQUEST; 0: not */
	bool reporting, report_again;          /* a report is on its way; another follows at once */
	bool report_settled;                   /* the one on its way confirms */
	char *body;                            /* what is to be sent when the connection is there */
	struct event *report_timer, *gather_limit;
	uint32_t report_ms;                    /* as the controller wishes; 0: as configured */
	json_t *errors;                        /* of the version refused last, in full; NULL: memory has the first */

	struct ipc_channel *keeper;
	struct control_link *renew;
	enum renew_state renew_state;
	uint64_t renew_id;
	char *renew_text;                      /* the request */
	struct event *renew_timer;
};

/* --- control.c --- */
bool control_enabled(const struct control *c);
uint64_t control_now_ms(void);
void control_after(struct event *timer, unsigned ms);
/* The controller's number of what is in force; 0: none. */
uint64_t control_number(const struct control *c);
/* A controller gave a good answer; or it is away, and why. */
void control_reached(struct control *c);
void control_away(void *control, const char *why);
/* DIAL, for all links. */
int control_dial(void *control, uint64_t id);
/* For people: what an answer lacks to be a good one. */
const char *control_fault(const struct http_answer *answer, char *text, size_t size);

/* --- control_poll.c --- */
int control_poll_init(struct control *c);
void control_poll_free(struct control *c);
void control_poll_start(struct control *c);
void control_poll_stop(struct control *c);
void control_poll_outcome(struct control *c, const struct ipc_config_outcome *m);

/* --- control_confirm.c --- */
int control_confirm_init(struct control *c);
void control_confirm_free(struct control *c);
/* A generation is in force (again). */
void control_confirm_begin(struct control *c);
void control_confirmed(struct control *c);
void control_confirm_outcome(struct control *c, const struct ipc_config_outcome *m);

/* --- control_report.c --- */
int control_report_init(struct control *c);
void control_report_free(struct control *c);
void control_report_now(struct control *c);
void control_report_stop(struct control *c);
/* The report's text out of what the supervisor gathered (NULL: it did not answer); malloc'd. */
char *control_report_write(const struct control *c, const char *gathered);

/* --- control_renew.c --- */
int control_renew_init(struct control *c);
void control_renew_free(struct control *c);
void control_renew_peer(struct control *c, int fd);
void control_renew_begin(struct control *c, const char *why);
void control_renew_stop(struct control *c);

#endif

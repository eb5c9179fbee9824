/* What Hermes adds to, and takes from, heads on their way: pure functions, used by flow.c and the HTTP legs. */
#ifndef HERMES_TUNNEL_FIELDS_H
#define HERMES_TUNNEL_FIELDS_H

#include "ipc/messages.h"
#include "store/config.h"
#include "workers/tunnel/leg.h"

/* --- the request ---------------------------------------------------------------------------------------------------------- */

/* Which node asks: set on requests to the controller from the certificate that was verified, and never taken from outside. */
#define FIELDS_PEER "hermes-peer"
/* Takes off what must not come from outside: the overlay's own headers (config->internal_headers) unless the listener
 * trusts them, or, at an overlay listener, the peer may speak for them (peer NULL: no peers list, all). And what never
 * goes on: Proxy-Authorization, Proxy-Connection, FIELDS_PEER. Call after the proof of the user. */
void fields_clean_request(struct head *request, const struct config *config, const struct config_listener *listener,
                          const struct config_peer *peer);
/* How many Hermes nodes the request came through, by their Via members (comment "(hermes)"). own: this node is among them. */
unsigned fields_hops(const struct head *request, const struct config *config, bool *own);
/* Appends this node to Via (RFC 9110 7.6.3). carry: as the request came in ("h1", "h2", "tcp", "socks5"). */
void fields_via(struct head *head, const struct config *config, const char *carry);
/* At the first hop: appends Forwarded (RFC 7239) with for, proto and host. source: the client's address without brackets;
 * port 0: left out. */
void fields_forwarded(struct head *request, const char *source, uint16_t port);
/* Both: Via always, Forwarded when first_hop. */
void fields_forward(struct head *request, const struct config *config, const char *carry, bool first_hop,
                    const char *source, uint16_t port);
/* The values of the headers that config->examined_headers names, in that order, those absent left out; where an authorizer is
 * told everything, all of the request's. Lines of one name are joined with ", " in the head's arena (the one change to
 * request); *out points into head and config. Returns how many; more than max: only max were written. */
unsigned fields_examined(const struct head *request, const struct config *config, struct ipc_pair *out, unsigned max);

/* --- both ----------------------------------------------------------------------------------------------------------------- */

/* Removes, then sets (replacing what has the name). Either list may be NULL. */
void fields_apply(struct head *head, const struct config_pairs *set, const struct config_strs *remove);
void fields_apply_pairs(struct head *head, const struct ipc_pair *set, size_t n);

/* --- the response --------------------------------------------------------------------------------------------------------- */

/* Via on the way back; carry: as the response came. */
void fields_response(struct head *response, const struct config *config, const char *carry);
/* Appends a member to Proxy-Status (RFC 9209). error FLOW_NONE: only names the node. detail, next_hop may be NULL. */
void fields_proxy_status(struct head *response, const char *node, enum flow_error error, const char *detail,
                         const char *next_hop);
/* RFC 9209 token and status of an error (static). */
const char *fields_error_token(enum flow_error error);
unsigned fields_error_status(enum flow_error error);
/* Our own answer: a new response head with Proxy-Status, and its text in body (malloc-free, cut at size). status 0: the
 * error's own. plain: with a short text/plain body; else Content-Length: 0 and *body empty. */
struct head *fields_error_response(enum flow_error error, unsigned status, const char *node, const char *detail,
                                   bool plain, char *body, size_t size);

#endif

/* TLS contexts from a configuration's certificates, and whom a peer's certificate names. */
#ifndef HERMES_TUNNEL_TLS_H
#define HERMES_TUNNEL_TLS_H

#include <openssl/ssl.h>

#include "store/config.h"

struct tls;

/* A file the supervisor handed over, by the path that the configuration writes; tls takes a copy. */
struct tls_file { const char *kind, *path; const char *data; size_t length; };

/* Makes every context that the configuration needs. NULL with a reason naming the listener or cluster and the file. */
struct tls *tls_new(const struct config *config, const struct tls_file *files, size_t n, char *error, size_t error_size);
void tls_free(struct tls *tls);
/* For an accepted connection; NULL when the listener is plain. */
SSL *tls_accept(struct tls *tls, const struct config_listener *listener);
/* For a connection to `host` (server_name or endpoint's name); NULL when the cluster is plain (or on failure). */
SSL *tls_connect(struct tls *tls, const struct config_cluster *cluster, const char *host);
/* What an endpoint is called in requests: by server_name, where that is no node's URI, else by its own name (may be NULL). */
const char *tls_host(const struct config_cluster *cluster, const char *own);

/* The node (NAME of hermes://DOMAIN/node/NAME, else a DNS name) that the verified peer certificate names, into name and domain
 * (domain "" for a DNS name). False: none. */
bool tls_peer(SSL *ssl, char *name, size_t name_size, char *domain, size_t domain_size);
/* The node of the own domain that the peer's certificate names, though it may not be verified yet; NULL: none. malloc'd. */
char *tls_own_node(SSL *ssl, const struct config *config);
/* The configuration in force, whose identity.revoked holds for every handshake from now on; lives until the next call. */
void tls_in_force(const struct config *config);
/* Whether a node is one that the configuration no longer believes (identity.revoked). domain "": it is a DNS name, no node's. */
bool tls_revoked(const struct config *config, const char *name, const char *domain);
/* The user that a program's verified certificate names: its subject's common name. False: none. */
bool tls_user(SSL *ssl, char *name, size_t size);
/* The reason of the last failure on ssl, for Proxy-Status and logs: the certificate's verify error or OpenSSL's. */
const char *tls_error(SSL *ssl, char *out, size_t size);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* Keys, requests, certificates and signatures as PEM and base64 texts: hermes-keeper's trade, and hermes-admin's for a machine that is
 * not yet a node. Nothing here touches files. Texts handed out are malloc'd; private keys go by pki_wipe(). Functions that return int:
 * 0, or -1 with the reason for people in `why`. */
#ifndef HERMES_KEEPER_PKI_H
#define HERMES_KEEPER_PKI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PKI_WHY 256
#define PKI_SERIAL_TEXT 41            /* 20 octets in hex (RFC 5280 4.1.2.2) */
#define PKI_FINGERPRINT_TEXT 44       /* SHA-256 in base64url without padding */
#define PKI_PUBLIC_BYTES 32           /* Ed25519 */
#define PKI_REQUEST_MAX 16384         /* of a request's text */
#define PKI_DAY 86400u

/* Loads what OpenSSL would else open later: to be called before a sandbox. */
void pki_init(void);
/* NULL is fine. */
void pki_wipe(char *secret);

/* A node's name: a DNS label (RFC 1123 2.1) in lower case, so that it means the same in a URI, a DNS name and a path. "controller" is
 * the domain's own (controller.DOMAIN is how nodes know their controllers). NULL, or why not (static). */
const char *pki_name_fault(const char *node);
/* A domain: labels with dots. */
const char *pki_domain_fault(const char *domain);

/* A private key on P-256. */
int pki_make_key(char **key, char why[static PKI_WHY]);
int pki_make_request(const char *key, const char *node, char **request, char why[static PKI_WHY]);
/* The authority of a domain: its key and its certificate, good for 20 years. It names its domain (URI hermes://DOMAIN). */
int pki_make_authority(const char *domain, char **key, char **certificate, char why[static PKI_WHY]);

struct pki_subject {
	const char *domain, *node;
	bool controller;              /* also speaks as controller.DOMAIN */
	uint64_t seconds;             /* that it is good for; never beyond the authority's own end */
};
/* A node's certificate: URI hermes://DOMAIN/node/NODE, DNS NODE and NODE.DOMAIN, for TLS both ways. Of the request only its key is
 * taken (EC P-256, P-384 or P-521, Ed25519, RSA of 2,048 to 8,192 bits), after its own signature was checked. */
int pki_certify(const char *ca_key, const char *ca_certificate, const struct pki_subject *subject, const char *request,
                char **certificate, char serial[static PKI_SERIAL_TEXT], char why[static PKI_WHY]);
/* Whether a request would be certified. */
int pki_check_request(const char *request, char why[static PKI_WHY]);

/* Ed25519. public: base64 of 32 bytes. */
int pki_make_domain_key(char **key, char **public, char why[static PKI_WHY]);
int pki_sign(const char *key, const void *data, size_t length, char **signature, char why[static PKI_WHY]);
bool pki_signed(const char *public, const void *data, size_t length, const char *signature);

/* What certificates say. */
bool pki_matches(const char *key, const char *certificate);
/* That one of the authorities has signed it, for a node of this name and domain, and that it is good now. */
int pki_check_certificate(const char *certificate, const char *authorities, const char *domain, const char *node,
                          char why[static PKI_WHY]);
/* SHA-256 of the first certificate (DER), base64url. */
int pki_fingerprint(const char *certificate, char out[static PKI_FINGERPRINT_TEXT], char why[static PKI_WHY]);
/* Of several certificates the one with this fingerprint: whoever is told only that trusts nothing else that came along. */
int pki_find_authority(const char *authorities, const char *fingerprint, char **certificate, char why[static PKI_WHY]);
/* The domain that an authority is for. */
int pki_authority_domain(const char *certificate, char **domain, char why[static PKI_WHY]);
/* Unix time of its end; 0: no certificate. */
int64_t pki_ends(const char *certificate);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* What pki.c and pki_certificate.c share. */
#ifndef HERMES_KEEPER_PKI_INTERNAL_H
#define HERMES_KEEPER_PKI_INTERNAL_H

#include <openssl/evp.h>
#include <openssl/x509.h>

#include "workers/keeper/pki.h"

/* -1, with what and OpenSSL's reason. */
int pki_failed(char why[static PKI_WHY], const char *what);
/* A writer's text as a malloc'd string; frees the BIO. NULL: out of memory. */
char *pki_text(BIO *bio);
/* NULL where the text holds none. Never asks for a passphrase. */
EVP_PKEY *pki_read_key(const char *text);
X509 *pki_read_certificate(const char *text);
char *pki_write_certificate(X509 *certificate);
X509_REQ *pki_read_request(const char *text, char why[static PKI_WHY]);

#endif

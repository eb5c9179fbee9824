/* SPDX-License-Identifier: Apache-2.0 */
/* A certificate request from a stranger: checked and certified without harm, and what comes out names the node that we say, never what
 * the request says. The first byte chooses: PEM as it is, or DER that is wrapped in PEM first. */
#include "workers/keeper/pki.h"

#include <assert.h>
#include <openssl/evp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char *as_pem(const uint8_t *der, size_t size)
{
	char *text = malloc(size * 2 + 200);
	unsigned char *body = malloc(size * 2 + 16);
	EVP_EncodeBlock(body, der, (int)size);
	char *at = text + sprintf(text, "-----BEGIN CERTIFICATE REQUEST-----\n");
	for (const char *p = (const char *)body; *p; p += strnlen(p, 64))
		at += sprintf(at, "%.64s\n", p);
	sprintf(at, "-----END CERTIFICATE REQUEST-----\n");
	free(body);
	return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char *key, *authority;
	char why[PKI_WHY], serial[PKI_SERIAL_TEXT], *certificate = NULL;
	static const struct pki_subject subject = {.domain = "example.net", .node = "alice", .seconds = 60};
	if (!key && pki_make_authority("example.net", &key, &authority, why))
		abort();
	if (size == 0 || size > 8192)
		return 0;
	char *text = data[0] & 1 ? as_pem(data + 1, size - 1) : strndup((const char *)data + 1, size - 1);
	int good = pki_check_request(text, why);
	assert(pki_certify(key, authority, &subject, text, &certificate, serial, why) == good);
	if (good == 0)
		assert(pki_check_certificate(certificate, authority, "example.net", "alice", why) == 0);
	free(certificate);
	free(text);
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* PEM of others: requests of whoever has a token, certificates of whoever answers at a controller's address. Nothing is believed that
 * our authority did not sign: the fuzzer does not have its key. First byte: which of them it is, and whether it comes as DER. */
#include <openssl/evp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "workers/controller/enrolment.h"
#include "workers/keeper/pki.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char *key, *authority, fingerprint[PKI_FINGERPRINT_TEXT];

static void check(bool holds)
{
	if (!holds)
		abort();
}

static void make_authority(void)
{
	char why[PKI_WHY];
	pki_init();
	check(!pki_make_authority("example.net", &key, &authority, why) && !pki_fingerprint(authority, fingerprint, why));
}

/* What is certified is for who asked, whatever the request says of itself. */
static void request(const char *text)
{
	static const struct pki_subject alice = {.domain = "example.net", .node = "alice", .seconds = PKI_DAY};
	char *certificate = NULL, serial[PKI_SERIAL_TEXT], why[PKI_WHY] = "";
	int bad = pki_check_request(text, why);
	check(!bad == !*why);
	int refused = pki_certify(key, authority, &alice, text, &certificate, serial, why);
	check(bad ? refused == -1 && !certificate : true);
	if (refused)
		return;
	check(!pki_check_certificate(certificate, authority, "example.net", "alice", why));
	check(pki_check_certificate(certificate, authority, "example.net", "bob", why) == -1);
	free(certificate);
}

static void certificates(const char *text)
{
	char why[PKI_WHY], out[PKI_FINGERPRINT_TEXT], theirs[PKI_FINGERPRINT_TEXT], *found = NULL, *domain = NULL;
	check(pki_check_certificate(text, authority, "example.net", "alice", why) == -1);
	check(!pki_matches(key, text) || strstr(text, "CERTIFICATE"));
	if (!pki_find_authority(text, fingerprint, &found, why)) {
		check(!pki_fingerprint(found, out, why) && !strcmp(out, fingerprint));
		free(found);
	}
	if (!pki_authority_domain(text, &domain, why))
		free(domain);
	/* the controller's own way, without OpenSSL, to the same */
	bool read = enrolment_fingerprint(text, theirs);
	if (read && !pki_fingerprint(text, out, why))
		check(strlen(theirs) == strlen(out));
	pki_ends(text);
}

static char *as_text(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1);
	check(text);
	memcpy(text, data, size);
	text[size] = '\0';
	return text;
}

/* PEM of DER, in lines of 64. */
static char *as_pem(const uint8_t *data, size_t size, const char *kind)
{
	char *text = malloc(2 * size + 200), *at = text;
	check(text);
	at += sprintf(at, "-----BEGIN %s-----\n", kind);
	for (size_t n; size; data += n, size -= n) {
		n = size < 48 ? size : 48;
		at += EVP_EncodeBlock((unsigned char *)at, data, (int)n);
		*at++ = '\n';
	}
	sprintf(at, "-----END %s-----\n", kind);
	return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!authority)
		make_authority();
	if (!size)
		return 0;
	char *text = data[0] & 2 ? as_pem(data + 1, size - 1, data[0] & 1 ? "CERTIFICATE REQUEST" : "CERTIFICATE")
	                         : as_text(data + 1, size - 1);
	if (data[0] & 1)
		request(text);
	else
		certificates(text);
	free(text);
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/keeper/pki_internal.h"

#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LABEL_MAX 63
#define DOMAIN_MAX 200            /* NODE.DOMAIN stays below the 255 of a DNS name */
#define RSA_BITS_MIN 2048
#define RSA_BITS_MAX 8192         /* a longer one only costs */

void pki_init(void)
{
	char *key = NULL, *public = NULL, *signature = NULL, why[PKI_WHY];
	OPENSSL_init_crypto(OPENSSL_INIT_LOAD_CONFIG | OPENSSL_INIT_ADD_ALL_CIPHERS | OPENSSL_INIT_ADD_ALL_DIGESTS, NULL);
	if (!pki_make_domain_key(&key, &public, why))
		pki_sign(key, "", 0, &signature, why);
	pki_wipe(key);
	free(public);
	free(signature);
}

void pki_wipe(char *secret)
{
	if (secret)
		OPENSSL_cleanse(secret, strlen(secret));
	free(secret);
}

/* --- names ----------------------------------------------------------------------------------------------------------- */

static size_t label_length(const char *s)
{
	size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789-_");
	return n > LABEL_MAX || (n && (s[0] == '-' || s[n - 1] == '-')) ? 0 : n;
}

const char *pki_name_fault(const char *node)
{
	size_t n = node ? label_length(node) : 0;
	if (!n || node[n])
		return "a node's name is 1 to 63 lower case letters, digits, - and _";
	return strcmp(node, "controller") && strcmp(node, "localhost") ? NULL : "this name is reserved";
}

const char *pki_domain_fault(const char *domain)
{
	static const char fault[] = "a domain's name is labels of lower case letters, digits, - and _, with dots between them";
	const char *at = domain;
	if (!domain || strlen(domain) > DOMAIN_MAX)
		return fault;
	for (;;) {
		size_t n = label_length(at);
		if (!n)
			return fault;
		at += n;
		if (!*at)
			return NULL;
		if (*at++ != '.')
			return fault;
	}
}

/* --- texts ----------------------------------------------------------------------------------------------------------- */

int pki_failed(char why[static PKI_WHY], const char *what)
{
	unsigned long code = ERR_peek_last_error();
	const char *reason = code ? ERR_reason_error_string(code) : NULL;
	snprintf(why, PKI_WHY, "%s%s%s", what, reason ? ": " : "", reason ? reason : "");
	ERR_clear_error();
	return -1;
}

char *pki_text(BIO *bio)
{
	char *data = NULL, *out = NULL;
	long n = bio ? BIO_get_mem_data(bio, &data) : -1;
	if (n >= 0 && (out = malloc((size_t)n + 1))) {
		memcpy(out, data, (size_t)n);
		out[n] = '\0';
	}
	BIO_free(bio);
	return out;
}

static int no_passphrase(char *buffer, int size, int writing, void *arg)
{
	(void)buffer, (void)size, (void)writing, (void)arg;
	return -1;
}

EVP_PKEY *pki_read_key(const char *text)
{
	BIO *bio = text ? BIO_new_mem_buf(text, -1) : NULL;
	EVP_PKEY *key = bio ? PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL) : NULL;
	BIO_free(bio);
	return key;
}

X509 *pki_read_certificate(const char *text)
{
	BIO *bio = text ? BIO_new_mem_buf(text, -1) : NULL;
	X509 *x = bio ? PEM_read_bio_X509(bio, NULL, no_passphrase, NULL) : NULL;
	BIO_free(bio);
	return x;
}

char *pki_write_certificate(X509 *certificate)
{
	BIO *bio = BIO_new(BIO_s_mem());
	if (bio && PEM_write_bio_X509(bio, certificate) == 1)
		return pki_text(bio);
	BIO_free(bio);
	return NULL;
}

/* In memory that is wiped when it goes. */
static char *write_key(EVP_PKEY *key)
{
	BIO *bio = BIO_new(BIO_s_secmem());
	if (bio && PEM_write_bio_PKCS8PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) == 1)
		return pki_text(bio);
	BIO_free(bio);
	return NULL;
}

/* --- keys and requests ----------------------------------------------------------------------------------------------- */

static int make_key(EVP_PKEY *key, char **text, char why[static PKI_WHY])
{
	*text = key ? write_key(key) : NULL;
	EVP_PKEY_free(key);
	return *text ? 0 : pki_failed(why, "no key could be made");
}

int pki_make_key(char **key, char why[static PKI_WHY])
{
	return make_key(EVP_EC_gen("P-256"), key, why);
}

int pki_make_request(const char *key_text, const char *node, char **request, char why[static PKI_WHY])
{
	EVP_PKEY *key = pki_read_key(key_text);
	X509_REQ *r = X509_REQ_new();
	BIO *bio = BIO_new(BIO_s_mem());
	bool ok = key && r && bio && X509_REQ_set_version(r, X509_REQ_VERSION_1) == 1 &&
	          X509_NAME_add_entry_by_txt(X509_REQ_get_subject_name(r), "CN", MBSTRING_UTF8, (const unsigned char *)node, -1, -1,
	                                     0) == 1 &&
	          X509_REQ_set_pubkey(r, key) == 1 && X509_REQ_sign(r, key, EVP_sha256()) > 0 &&
	          PEM_write_bio_X509_REQ(bio, r) == 1;
	*request = ok ? pki_text(bio) : NULL;
	if (!ok)
		BIO_free(bio);
	X509_REQ_free(r);
	EVP_PKEY_free(key);
	return *request ? 0 : pki_failed(why, "no certificate request could be made");
}

static bool key_allowed(EVP_PKEY *key)
{
	char group[32] = "";
	size_t length;
	int bits = EVP_PKEY_get_bits(key);
	switch (EVP_PKEY_get_base_id(key)) {
	case EVP_PKEY_ED25519: return true;
	case EVP_PKEY_RSA: return bits >= RSA_BITS_MIN && bits <= RSA_BITS_MAX;
	case EVP_PKEY_EC:
		return EVP_PKEY_get_group_name(key, group, sizeof(group), &length) == 1 &&
		       (!strcmp(group, "prime256v1") || !strcmp(group, "secp384r1") || !strcmp(group, "secp521r1"));
	default: return false;
	}
}

X509_REQ *pki_read_request(const char *text, char why[static PKI_WHY])
{
	if (!text || strlen(text) > PKI_REQUEST_MAX) {
		snprintf(why, PKI_WHY, "a request is a PEM text of at most %d bytes", PKI_REQUEST_MAX);
		return NULL;
	}
	BIO *bio = BIO_new_mem_buf(text, -1);
	X509_REQ *r = bio ? PEM_read_bio_X509_REQ(bio, NULL, no_passphrase, NULL) : NULL;
	EVP_PKEY *key = r ? X509_REQ_get0_pubkey(r) : NULL;
	BIO_free(bio);
	const char *fault = !r ? "not a certificate request in PEM" : !key ? "the request's key is not one that is understood" :
	                    !key_allowed(key) ? "the request's key is none of EC P-256, P-384, P-521, Ed25519, RSA of 2048 to 8192 bits" :
	                    X509_REQ_verify(r, key) != 1 ? "the request is not signed by its own key" : NULL;
	ERR_clear_error();
	if (!fault)
		return r;
	snprintf(why, PKI_WHY, "%s", fault);
	X509_REQ_free(r);
	return NULL;
}

int pki_check_request(const char *request, char why[static PKI_WHY])
{
	X509_REQ *r = pki_read_request(request, why);
	X509_REQ_free(r);
	return r ? 0 : -1;
}

/* --- the domain's key ------------------------------------------------------------------------------------------------ */

static char *base64(const uint8_t *data, size_t length)
{
	char *out = malloc((length + 2) / 3 * 4 + 1);
	if (out)
		EVP_EncodeBlock((unsigned char *)out, data, (int)length);
	return out;
}

/* Exactly `length` bytes, or false. */
static bool unbase64(const char *text, uint8_t *out, size_t length)
{
	uint8_t bytes[128];
	size_t n = text ? strlen(text) : 0;
	while (n && text[n - 1] == '\n')
		n--;
	if (n != (length + 2) / 3 * 4 || n / 4 * 3 > sizeof(bytes) ||
	    EVP_DecodeBlock(bytes, (const unsigned char *)text, (int)n) < (int)length)
		return false;
	memcpy(out, bytes, length);
	return true;
}

int pki_make_domain_key(char **key_text, char **public, char why[static PKI_WHY])
{
	uint8_t bytes[PKI_PUBLIC_BYTES];
	size_t n = sizeof(bytes);
	EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
	*public = key && EVP_PKEY_get_raw_public_key(key, bytes, &n) == 1 && n == sizeof(bytes) ? base64(bytes, n) : NULL;
	if (*public && !make_key(key, key_text, why))
		return 0;
	if (!*public)
		EVP_PKEY_free(key);
	free(*public);
	*public = NULL;
	return pki_failed(why, "no key of the domain could be made");
}

/* Thousands of configurations are signed by one key, and OpenSSL takes longer to read it than to sign. */
static EVP_PKEY *signing_key(const char *text)
{
	static EVP_PKEY *key;
	static char *kept;
	if (!key || !kept || strcmp(kept, text)) {
		EVP_PKEY_free(key);
		pki_wipe(kept);
		key = pki_read_key(text);
		kept = strdup(text);
	}
	return key;
}

int pki_sign(const char *key_text, const void *data, size_t length, char **signature, char why[static PKI_WHY])
{
	uint8_t bytes[64];
	size_t n = sizeof(bytes);
	EVP_PKEY *key = signing_key(key_text);
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	bool ok = key && ctx && EVP_PKEY_get_base_id(key) == EVP_PKEY_ED25519 &&
	          EVP_DigestSignInit(ctx, NULL, NULL, NULL, key) == 1 && EVP_DigestSign(ctx, bytes, &n, data, length) == 1;
	*signature = ok ? base64(bytes, n) : NULL;
	EVP_MD_CTX_free(ctx);
	return *signature ? 0 : pki_failed(why, "no signature could be made");
}

bool pki_signed(const char *public, const void *data, size_t length, const char *signature)
{
	uint8_t key_bytes[PKI_PUBLIC_BYTES], bytes[64];
	if (!unbase64(public, key_bytes, sizeof(key_bytes)) || !unbase64(signature, bytes, sizeof(bytes)))
		return false;
	EVP_PKEY *key = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, key_bytes, sizeof(key_bytes));
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	bool ok = key && ctx && EVP_DigestVerifyInit(ctx, NULL, NULL, NULL, key) == 1 &&
	          EVP_DigestVerify(ctx, bytes, sizeof(bytes), data, length) == 1;
	EVP_MD_CTX_free(ctx);
	EVP_PKEY_free(key);
	ERR_clear_error();
	return ok;
}

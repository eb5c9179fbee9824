/* SPDX-License-Identifier: Apache-2.0 */
/* Keys, certificates and the keeper's operations. */
#include "workers/keeper/ops.h"

#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static char *ca_key, *ca, why[PKI_WHY];

static int set_up(void **state)
{
	(void)state;
	pki_init();
	assert_int_equal(pki_make_authority("example.net", &ca_key, &ca, why), 0);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	pki_wipe(ca_key);
	free(ca);
	return 0;
}

static char *request_with(EVP_PKEY *key, EVP_PKEY *signer)
{
	char *text = NULL;
	X509_REQ *r = X509_REQ_new();
	BIO *bio = BIO_new(BIO_s_mem());
	char *data;
	X509_REQ_set_pubkey(r, key);
	X509_REQ_sign(r, signer, EVP_PKEY_get_base_id(signer) == EVP_PKEY_ED25519 ? NULL : EVP_sha256());
	PEM_write_bio_X509_REQ(bio, r);
	long n = BIO_get_mem_data(bio, &data);
	text = strndup(data, (size_t)n);
	BIO_free(bio);
	X509_REQ_free(r);
	return text;
}

static char *own_request(char **key)
{
	char *request = NULL;
	assert_int_equal(pki_make_key(key, why), 0);
	assert_int_equal(pki_make_request(*key, "mallory", &request, why), 0);
	return request;
}

static bool has_name(const char *certificate, int type, const char *text)
{
	BIO *bio = BIO_new_mem_buf(certificate, -1);
	X509 *x = PEM_read_bio_X509(bio, NULL, NULL, NULL);
	GENERAL_NAMES *names = X509_get_ext_d2i(x, NID_subject_alt_name, NULL, NULL);
	bool found = false;
	for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
		const GENERAL_NAME *n = sk_GENERAL_NAME_value(names, i);
		found |= n->type == type && !strcmp((const char *)ASN1_STRING_get0_data(n->d.ia5), text);
	}
	GENERAL_NAMES_free(names);
	X509_free(x);
	BIO_free(bio);
	return found;
}

static void test_certificate(void **state)
{
	char *key, *certificate = NULL, serial[PKI_SERIAL_TEXT], *request = own_request(&key);
	struct pki_subject s = {.domain = "example.net", .node = "alice", .seconds = 3600};
	(void)state;
	assert_int_equal(pki_certify(ca_key, ca, &s, request, &certificate, serial, why), 0);
	assert_int_equal(strlen(serial), 32);
	assert_true(pki_matches(key, certificate));
	assert_false(pki_matches(ca_key, certificate));
	assert_true(has_name(certificate, GEN_URI, "hermes://example.net/node/alice"));
	assert_true(has_name(certificate, GEN_DNS, "alice"));
	assert_true(has_name(certificate, GEN_DNS, "alice.example.net"));
	assert_false(has_name(certificate, GEN_DNS, "controller.example.net"));
	assert_false(has_name(certificate, GEN_DNS, "mallory"));     /* what the request says of itself */
	assert_int_equal(pki_check_certificate(certificate, ca, "example.net", "alice", why), 0);
	assert_int_equal(pki_check_certificate(certificate, ca, "example.net", "bob", why), -1);
	assert_int_equal(pki_check_certificate(certificate, ca, "example.org", "alice", why), -1);
	assert_true(pki_ends(certificate) <= time(NULL) + 3600);
	assert_true(pki_ends(certificate) > time(NULL) + 3500);
	free(certificate);
	s.controller = true;
	assert_int_equal(pki_certify(ca_key, ca, &s, request, &certificate, serial, why), 0);
	assert_true(has_name(certificate, GEN_DNS, "controller.example.net"));
	free(certificate);
	free(request);
	pki_wipe(key);
}

static void test_other_authority(void **state)
{
	char *key, *certificate = NULL, serial[PKI_SERIAL_TEXT], *request = own_request(&key), *key2, *ca2;
	struct pki_subject s = {.domain = "example.net", .node = "alice", .seconds = 3600};
	(void)state;
	assert_int_equal(pki_make_authority("example.net", &key2, &ca2, why), 0);
	assert_int_equal(pki_certify(key2, ca2, &s, request, &certificate, serial, why), 0);
	assert_int_equal(pki_check_certificate(certificate, ca, "example.net", "alice", why), -1);
	free(certificate);
	/* a key that is not the authority's */
	assert_int_equal(pki_certify(key2, ca, &s, request, &certificate, serial, why), -1);
	assert_null(certificate);
	pki_wipe(key2);
	free(ca2);
	free(request);
	pki_wipe(key);
}

static void test_names(void **state)
{
	static const char *const bad[] = {"", "Alice", "a.b", "a/b", "-a", "a-", "controller", "localhost", "a,DNS:b", "a b", "\xc3\xa9",
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
	static const char *const bad_domains[] = {"", ".", "a.", ".a", "a..b", "a b", "A.b", "a,DNS:x"};
	char *key, *certificate = NULL, serial[PKI_SERIAL_TEXT], *request = own_request(&key);
	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		struct pki_subject s = {.domain = "example.net", .node = bad[i], .seconds = 60};
		assert_non_null(pki_name_fault(bad[i]));
		assert_int_equal(pki_certify(ca_key, ca, &s, request, &certificate, serial, why), -1);
	}
	for (size_t i = 0; i < sizeof(bad_domains) / sizeof(*bad_domains); i++) {
		struct pki_subject s = {.domain = bad_domains[i], .node = "a", .seconds = 60};
		assert_int_equal(pki_certify(ca_key, ca, &s, request, &certificate, serial, why), -1);
	}
	assert_null(pki_name_fault("node-7_a"));
	assert_null(pki_domain_fault("example.net"));
	assert_null(pki_domain_fault("local"));
	struct pki_subject s = {.domain = "example.net", .node = "a", .seconds = 0};
	assert_int_equal(pki_certify(ca_key, ca, &s, request, &certificate, serial, why), -1);
	free(request);
	pki_wipe(key);
}

static void check_key(EVP_PKEY *key, bool good)
{
	char *request = request_with(key, key);
	assert_int_equal(pki_check_request(request, why), good ? 0 : -1);
	free(request);
	EVP_PKEY_free(key);
}

static void test_requests(void **state)
{
	(void)state;
	check_key(EVP_EC_gen("P-256"), true);
	check_key(EVP_EC_gen("P-384"), true);
	check_key(EVP_EC_gen("P-224"), false);
	check_key(EVP_EC_gen("secp256k1"), false);
	check_key(EVP_PKEY_Q_keygen(NULL, NULL, "ED25519"), true);
	check_key(EVP_RSA_gen(2048), true);
	check_key(EVP_RSA_gen(1024), false);
	EVP_PKEY *a = EVP_EC_gen("P-256"), *b = EVP_EC_gen("P-256");
	char *request = request_with(a, b);      /* somebody else's public key */
	assert_int_equal(pki_check_request(request, why), -1);
	assert_non_null(strstr(why, "not signed by its own key"));
	free(request);
	EVP_PKEY_free(a);
	EVP_PKEY_free(b);
	char *large = malloc(PKI_REQUEST_MAX + 2);
	memset(large, 'a', PKI_REQUEST_MAX + 1);
	large[PKI_REQUEST_MAX + 1] = '\0';
	assert_int_equal(pki_check_request(large, why), -1);
	free(large);
	assert_int_equal(pki_check_request("", why), -1);
	assert_int_equal(pki_check_request(ca, why), -1);
	assert_int_equal(pki_check_request(NULL, why), -1);
}

static void test_domain_key(void **state)
{
	static const char text[] = "hermes-config-1\nexample.net\nalice\n7\nabc\n";
	char *key, *public, *signature;
	(void)state;
	assert_int_equal(pki_make_domain_key(&key, &public, why), 0);
	assert_int_equal(strlen(public), 44);
	assert_int_equal(pki_sign(key, text, strlen(text), &signature, why), 0);
	assert_true(pki_signed(public, text, strlen(text), signature));
	assert_false(pki_signed(public, text, strlen(text) - 1, signature));
	signature[3] ^= 1;
	assert_false(pki_signed(public, text, strlen(text), signature));
	assert_false(pki_signed(public, text, strlen(text), ""));
	assert_false(pki_signed("", text, strlen(text), signature));
	free(signature);
	assert_int_equal(pki_sign(ca_key, text, strlen(text), &signature, why), -1);   /* not Ed25519 */
	free(public);
	pki_wipe(key);
}

static void test_fingerprint(void **state)
{
	char a[PKI_FINGERPRINT_TEXT], b[PKI_FINGERPRINT_TEXT], *key, *other;
	(void)state;
	assert_int_equal(pki_fingerprint(ca, a, why), 0);
	assert_int_equal(strlen(a), 43);
	assert_int_equal(strspn(a, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"), 43);
	assert_int_equal(pki_make_authority("example.net", &key, &other, why), 0);
	assert_int_equal(pki_fingerprint(other, b, why), 0);
	assert_string_not_equal(a, b);
	assert_int_equal(pki_fingerprint("x", b, why), -1);
	/* of what came along only the one that is known by its fingerprint */
	char *both = NULL, *found = NULL, *domain = NULL;
	assert_true(asprintf(&both, "%s%s", other, ca) > 0);
	assert_int_equal(pki_find_authority(both, a, &found, why), 0);
	assert_string_equal(found, ca);
	assert_int_equal(pki_find_authority(other, a, &domain, why), -1);
	assert_null(domain);
	assert_int_equal(pki_find_authority("", a, &domain, why), -1);
	assert_int_equal(pki_authority_domain(found, &domain, why), 0);
	assert_string_equal(domain, "example.net");
	free(domain);
	free(found);
	free(both);
	pki_wipe(key);
	free(other);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *where)
{
	(void)st, (void)type, (void)where;
	return remove(path);
}

static void remove_folder(const char *path)
{
	nftw(path, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static int run(struct ops *ops, enum ipc_role asker, const char *op, const char **words, size_t n, const char *text, char **answer)
{
	const struct ipc_strs args = {words, n};
	return ops_run(ops, asker, op, &args, text, strlen(text), answer, why);
}

static void test_operations(void **state)
{
	char folder[] = "/tmp/test-pki-XXXXXX", path[64], *request, *answer, *key, *public, *certificate;
	char *taken;
	const char *words[] = {"alice", "10s", ""};
	struct stat st;
	struct ops ops = {.keys.folder = -1};
	(void)state;
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/keys", folder);
	assert_int_equal(keys_open(&ops.keys, path), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0700);
	assert_int_equal(run(&ops, IPC_CONFIG_SYNC, "csr", NULL, 0, "", &answer), -1);
	ops_set_identity(&ops, "example.net", "alice");
	assert_int_equal(run(&ops, IPC_CONTROLLER, "authorities", NULL, 0, "", &answer), -1);
	assert_int_equal(pki_make_domain_key(&key, &public, why), 0);
	keys_write(&ops.keys, "ca.key", ca_key);
	keys_write(&ops.keys, "ca.crt", ca);
	keys_write(&ops.keys, "authorities.crt", ca);
	keys_write(&ops.keys, "domain.key", key);
	keys_write(&ops.keys, "domain.pub", public);
	/* each asker only what is its own */
	assert_int_equal(run(&ops, IPC_CONTROLLER, "csr", NULL, 0, "", &answer), -1);
	assert_int_equal(run(&ops, IPC_CONFIG_SYNC, "sign", NULL, 0, "x", &answer), -1);
	assert_int_equal(run(&ops, IPC_CONFIG_SYNC, "certify", words, 3, "x", &answer), -1);
	assert_int_equal(run(&ops, IPC_TUNNEL, "public", NULL, 0, "", &answer), -1);
	assert_int_equal(run(&ops, IPC_CONTROLLER, "sign", NULL, 0, "hello", &answer), 0);
	assert_true(pki_signed(public, "hello", 5, answer));
	free(answer);
	/* a certificate of a new key takes the place of the old */
	assert_int_equal(run(&ops, IPC_CONFIG_SYNC, "csr", NULL, 0, "", &request), 0);
	assert_int_equal(run(&ops, IPC_CONTROLLER, "certify", words, 3, request, &answer), 0);
	assert_int_equal(strncmp(answer, "serial ", 7), 0);
	certificate = strchr(answer, '\n') + 1;
	assert_false(ops.changed);
	assert_int_equal(run(&ops, IPC_CONFIG_SYNC, "install", NULL, 0, ca, &taken), -1);
	assert_int_equal(run(&ops, IPC_CONFIG_SYNC, "install", NULL, 0, certificate, &taken), 0);
	assert_true(ops.changed);
	free(taken);
	char *installed = NULL, *installed_key = NULL, *domain_public = NULL;
	assert_int_equal(run(&ops, IPC_CONTROLLER, "public", NULL, 0, "", &domain_public), 0);
	assert_int_equal(strlen(domain_public), 44);
	free(domain_public);
	assert_int_equal(keys_read(&ops.keys, "node.crt", &installed), 0);
	assert_int_equal(keys_read(&ops.keys, "node.key", &installed_key), 0);
	assert_string_equal(installed, certificate);
	assert_true(pki_matches(installed_key, installed));
	snprintf(path, sizeof(path), "%s/keys/node.key", folder);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	/* once only */
	assert_int_equal(run(&ops, IPC_CONFIG_SYNC, "install", NULL, 0, certificate, &taken), -1);
	/* nor for another key than that of the request: what of it peers would not believe */
	free(request);
	assert_int_equal(run(&ops, IPC_CONFIG_SYNC, "csr", NULL, 0, "", &request), 0);
	assert_int_equal(run(&ops, IPC_CONFIG_SYNC, "install", NULL, 0, certificate, &taken), -1);
	/* another node's certificate is not taken */
	free(request);
	free(answer);
	words[0] = "bob";
	assert_int_equal(run(&ops, IPC_CONFIG_SYNC, "csr", NULL, 0, "", &request), 0);
	assert_int_equal(run(&ops, IPC_CONTROLLER, "certify", words, 3, request, &answer), 0);
	assert_int_equal(run(&ops, IPC_CONFIG_SYNC, "install", NULL, 0, strchr(answer, '\n') + 1, &taken), -1);
	free(answer);
	free(request);
	free(installed);
	pki_wipe(installed_key);
	pki_wipe(key);
	free(public);
	ops_close(&ops);
	remove_folder(folder);
}

/* Ended between the two renames. */
static void test_mend(void **state)
{
	char folder[] = "/tmp/test-pki-XXXXXX", *key, *request, *certificate, *read, serial[PKI_SERIAL_TEXT];
	struct keys keys;
	struct pki_subject s = {.domain = "example.net", .node = "alice", .seconds = 3600};
	(void)state;
	assert_non_null(mkdtemp(folder));
	assert_int_equal(keys_open(&keys, folder), 0);
	request = own_request(&key);
	assert_int_equal(pki_certify(ca_key, ca, &s, request, &certificate, serial, why), 0);
	keys_write(&keys, "node.key", key);
	keys_write(&keys, "node.crt", ca);                  /* the one before */
	keys_write(&keys, ".node.crt.next", certificate);
	keys_mend(&keys);
	assert_int_equal(keys_read(&keys, "node.crt", &read), 0);
	assert_string_equal(read, certificate);
	free(read);
	keys_write(&keys, ".node.crt.next", ca);            /* of another key: not ours to use */
	keys_mend(&keys);
	assert_int_equal(keys_read(&keys, "node.crt", &read), 0);
	assert_string_equal(read, certificate);
	free(request);
	assert_int_equal(keys_read(&keys, ".node.crt.next", &request), -2);
	free(read);
	free(certificate);
	pki_wipe(key);
	keys_close(&keys);
	remove_folder(folder);
}

static void test_days(void **state)
{
	(void)state;
	assert_int_equal(ops_seconds("90"), 90 * 86400);
	assert_int_equal(ops_seconds("10s"), 10);
	assert_int_equal(ops_seconds(""), 0);
	assert_int_equal(ops_seconds(NULL), 0);
	assert_int_equal(ops_seconds("-1"), 0);
	assert_int_equal(ops_seconds("1x"), 0);
	assert_int_equal(ops_seconds("99999999999999999999"), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_certificate), cmocka_unit_test(test_other_authority), cmocka_unit_test(test_names),
		cmocka_unit_test(test_requests),    cmocka_unit_test(test_domain_key),      cmocka_unit_test(test_fingerprint),
		cmocka_unit_test(test_operations),  cmocka_unit_test(test_mend),            cmocka_unit_test(test_days),
	};
	return cmocka_run_group_tests(tests, set_up, tear_down);
}

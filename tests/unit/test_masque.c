/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "workers/tunnel/masque.h"

#define UDP "/.well-known/masque/udp/"
#define IP "/.well-known/masque/ip/"

static struct head *incoming(const char *protocol, const char *path)
{
	struct head *head = head_new();
	head->method = "CONNECT";
	head->protocol = protocol;
	head->scheme = "http";
	head->authority = "proxy.example:8443";
	head->path = head_string(head, path, -1);
	return head;
}

static void accepts(const char *protocol, const char *path, const char *authority, const char *path_out)
{
	const char *why = "";
	struct head *head = incoming(protocol, path);
	unsigned status = masque_accept(head, &why);
	if (status)
		fail_msg("%s refused with %u: %s", path, status, why);
	assert_string_equal(head->authority, authority);
	assert_string_equal(head->path, path_out);
	assert_string_equal(head->scheme, "https");
	assert_string_equal(head_get(head, "capsule-protocol"), "?1");
	head_free(head);
}

static void refuses(const char *protocol, const char *path, unsigned status)
{
	const char *why = NULL;
	struct head *head = incoming(protocol, path);
	unsigned got = masque_accept(head, &why);
	if (got != status)
		fail_msg("%s: %u, wanted %u (authority %s)", path, got, status, head->authority);
	assert_non_null(why);
	head_free(head);
}

static void udp_targets(void **state)
{
	(void)state;
	accepts("connect-udp", UDP "192.0.2.42/443/", "192.0.2.42:443", UDP "192.0.2.42/443/");
	accepts("connect-udp", UDP "example.com/1/", "example.com:1", UDP "example.com/1/");
	accepts("connect-udp", UDP "DEV/65535/", "dev:65535", UDP "dev/65535/");
	accepts("connect-udp", UDP "Example.COM./53/", "example.com:53", UDP "example.com/53/");
	accepts("connect-udp", UDP "2001%3Adb8%3A%3A42/443/", "[2001:db8::42]:443", UDP "2001%3Adb8%3A%3A42/443/");
	accepts("connect-udp", UDP "2001%3adb8%3A0%3A0%3A%3A42/443/", "[2001:db8::42]:443", UDP "2001%3Adb8%3A%3A42/443/");
	accepts("connect-udp", UDP "%65xample%2Ecom/%34%34%33/", "example.com:443", UDP "example.com/443/");
}

static void udp_refusals(void **state)
{
	(void)state;
	static const char *const bad[] = {
		/* ports */
		"a/0/", "a/65536/", "a/99999/", "a/100000/", "a/-1/", "a/+1/", "a/080/", "a/8x/", "a//", "a/ 1/", "a/%201/",
		/* IPv6: encoded once, no zone, no brackets */
		"2001:db8::42/443/", "2001%253Adb8%253A%253A42/443/", "%5B2001%3Adb8%3A%3A42%5D/443/", "[::1]/443/",
		"fe80%3A%3A1%25eth0/443/", "a%3A80/443/", "2001%3Adb8/443/",
		/* what would be another path, or cut, to somebody else */
		"a%2Fb/443/", "a%2F/443/", "%2F/443/", "a%00/443/", "a%00b/443/", "%00/443/", "a%0d%0a/443/", "a%20b/443/", "a b/443/",
		"a%/443/", "a%4/443/", "a%zz/443/", "a%C3%A9/443/", "a\xc3\xa9/443/",
		/* shape */
		"", "a", "a/", "a/443", "/443/", "a/443/x", "a/443//", "a/443/?x", "a/443/#x", "a?b/443/", "a@b/443/", "../443/", "*/443/",
		/* spellings of addresses that only some resolvers know */
		"0x7f.1/443/", "2130706433/443/", "0177.0.0.1/443/", "127.1/443/", "127.0.0.01/443/", "0x7f000001/443/",
		"127.0.0.256/443/", "a..b/443/",
	};
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		char path[512];
		snprintf(path, sizeof(path), UDP "%s", bad[i]);
		refuses("connect-udp", path, 400);
	}
	char path[1024] = UDP, *at = path + strlen(path);
	memset(at, 'a', 600);
	strcpy(at + 600, "/443/");
	refuses("connect-udp", path, 400);
	static const char *const elsewhere[] = {"/", "*", "/masque?h=a&p=1", "/.well-known/masque/", "/.well-known/masque/udp", IP "*/*/",
	                                        "/.well-known/MASQUE/udp/a/1/", "/%2Ewell-known/masque/udp/a/1/"};
	for (size_t i = 0; i < sizeof(elsewhere) / sizeof(*elsewhere); i++)
		refuses("connect-udp", elsewhere[i], 404);
}

static void ip_targets(void **state)
{
	(void)state;
	accepts("connect-ip", IP "*/*/", "*", IP "*/*/");
	accepts("connect-ip", IP "%2A/%2a/", "*", IP "*/*/");
	accepts("connect-ip", IP "10.0.0.0%2F8/6/", "10.0.0.0/8", IP "10.0.0.0%2F8/6/");
	accepts("connect-ip", IP "10.0.0.1/017/", "10.0.0.1/32", IP "10.0.0.1%2F32/17/");
	accepts("connect-ip", IP "10.1.2.3%2f0/000/", "0.0.0.0/0", IP "0.0.0.0%2F0/0/");
	accepts("connect-ip", IP "10.1.2.3%2F12/255/", "10.0.0.0/12", IP "10.0.0.0%2F12/255/");
	accepts("connect-ip", IP "2001%3Adb8%3A%3A42%2F33/58/", "2001:db8::/33", IP "2001%3Adb8%3A%3A%2F33/58/");
	accepts("connect-ip", IP "%3A%3A1/*/", "::1/128", IP "%3A%3A1%2F128/*/");
	accepts("connect-ip", IP "10.0.0.1./1/", "10.0.0.1/32", IP "10.0.0.1%2F32/1/");
	accepts("connect-ip", IP "Server1/*/", "server1", IP "server1/*/");
}

static void ip_refusals(void **state)
{
	(void)state;
	static const char *const bad[] = {
		"*/256/", "*/1000/", "*/-1/", "*/x/", "*/**/", "*/0000/", "*//", "//", "/*/", "*/*", "*/*/x", "10.0.0.0/8/6/", "10.0.0.0%2F33/*/",
		"10.0.0.0%2F/*/", "10.0.0.0%2F08/*/", "10.0.0.0%2F8%2F8/*/", "%3A%3A%2F129/*/", "::1/*/", "fe80%3A%3A1%25eth0/*/",
		"name%2F8/*/", "a%00/*/", "10.0/*/", "0x7f.1/*/", "a%3A80/*/", "10.0.0.1%3A80/*/", "10.0.0.0%252F8/*/",
	};
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		char path[512];
		snprintf(path, sizeof(path), IP "%s", bad[i]);
		refuses("connect-ip", path, 400);
	}
	refuses("connect-ip", UDP "a/1/", 404);
}

/* RFC 9297 3.2 */
static void requests_have_no_content(void **state)
{
	(void)state;
	static const char *const fields[][2] = {{"content-length", "0"}, {"content-type", "text/plain"}, {"transfer-encoding", "chunked"}};
	for (size_t i = 0; i < 3; i++) {
		const char *why = NULL;
		struct head *head = incoming("connect-udp", UDP "a/1/");
		head_add(head, fields[i][0], fields[i][1]);
		assert_int_equal(masque_accept(head, &why), 400);
		assert_non_null(why);
		head_free(head);
	}
}

/* RFC 9297 3.4: malformed, repeated or ?0 is as if it were not there, and it need not be there. */
static void capsule_protocol_is_made_true(void **state)
{
	(void)state;
	static const char *const values[] = {"?0", "?1", "yes", "", "?1, ?1", "1"};
	for (size_t i = 0; i < sizeof(values) / sizeof(*values); i++) {
		const char *why;
		struct head *head = incoming("connect-udp", UDP "a/1/");
		head_add(head, "capsule-protocol", values[i]);
		head_add(head, "capsule-protocol", values[i]);
		assert_int_equal(masque_accept(head, &why), 0);
		assert_string_equal(head_get(head, "capsule-protocol"), "?1");
		assert_int_equal(head->n, 1);
		head_free(head);
	}
}

static void own_requests(void **state)
{
	(void)state;
	static const char *const good[][3] = {
		{"DEV:6363", "dev:6363", UDP "dev/6363/"}, {"[2001:db8::1]:53", "[2001:db8::1]:53", UDP "2001%3Adb8%3A%3A1/53/"},
		{"192.0.2.1:1", "192.0.2.1:1", UDP "192.0.2.1/1/"},
	};
	for (size_t i = 0; i < 3; i++) {
		struct head *head = masque_udp_request(good[i][0]);
		assert_non_null(head);
		assert_true(masque_is_udp(head) && masque_is(head) && !masque_is_ip(head));
		assert_string_equal(head->method, "CONNECT");
		assert_string_equal(head->scheme, "https");
		assert_string_equal(head->authority, good[i][1]);
		assert_string_equal(head->path, good[i][2]);
		assert_string_equal(head_get(head, "capsule-protocol"), "?1");
		accepts("connect-udp", head->path, good[i][1], good[i][2]);
		head_free(head);
	}
	static const char *const bad[] = {"", "DEV", "DEV:0", "DEV:65536", "::1:53", "a/b:53", "0x7f.1:53", "*:53"};
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		assert_null(masque_udp_request(bad[i]));
}

static void own_ip_requests(void **state)
{
	(void)state;
	struct head *head = masque_ip_request("10.0.0.1/32", -1);
	assert_true(masque_is_ip(head));
	assert_string_equal(head->authority, "10.0.0.1/32");
	assert_string_equal(head->path, IP "10.0.0.1%2F32/*/");
	assert_int_equal(masque_ip_protocol(head), -1);
	head_free(head);
	head = masque_ip_request("*", 17);
	assert_string_equal(head->path, IP "*/17/");
	assert_int_equal(masque_ip_protocol(head), 17);
	head_free(head);
	head = masque_ip_request("fd00::/8", 0);
	assert_string_equal(head->path, IP "fd00%3A%3A%2F8/0/");
	assert_int_equal(masque_ip_protocol(head), 0);
	head_free(head);
	assert_null(masque_ip_request("", -1));
	assert_null(masque_ip_request("10.0.0.1/33", -1));
	assert_null(masque_ip_request("*", 256));
	assert_null(masque_ip_request("*", -2));
}

static void what_opens(void **state)
{
	(void)state;
	struct head *head = masque_response();
	const char *why = NULL;
	for (unsigned status = 100; status < 600; status++) {
		head->status = status;
		bool opens = status >= 200 && status < 300 && status != 204 && status != 205 && status != 206;
		why = NULL;
		assert_int_equal(masque_opens(head, &why), opens);
		assert_int_equal(why != NULL, !opens);
	}
	head->status = 200;
	head_add(head, "content-length", "0");
	assert_false(masque_opens(head, &why));
	head_remove(head, "content-length");
	head_add(head, "content-type", "x/y");
	assert_false(masque_opens(head, &why));
	head_free(head);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(udp_targets), cmocka_unit_test(udp_refusals), cmocka_unit_test(ip_targets),
		cmocka_unit_test(ip_refusals), cmocka_unit_test(requests_have_no_content),
		cmocka_unit_test(capsule_protocol_is_made_true), cmocka_unit_test(own_requests), cmocka_unit_test(own_ip_requests),
		cmocka_unit_test(what_opens),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

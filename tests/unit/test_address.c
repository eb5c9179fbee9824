#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <string.h>

#include "store/config.h"

static void good(const char *text, bool port_required, const char *host, unsigned port, const char *unix_path)
{
	struct config_address a;
	const char *why = "";

	if (config_address_parse(text, port_required, NULL, &a, &why))
		fail_msg("%s: %s", text, why);
	assert_string_equal(a.text, text);
	if (unix_path)
		assert_string_equal(a.unix_path, unix_path);
	else
		assert_string_equal(a.host, host);
	assert_int_equal(a.port, port);
	config_address_clear(&a);
}

static void bad(const char *text, bool port_required)
{
	struct config_address a;
	const char *why = NULL;

	if (!config_address_parse(text, port_required, NULL, &a, &why))
		fail_msg("%s was taken", text);
	assert_non_null(why);
	assert_null(a.text);
	assert_null(a.host);
	assert_null(a.unix_path);
}

static void test_addresses(void **state)
{
	(void)state;
	good("127.0.0.1:80", true, "127.0.0.1", 80, NULL);
	good("[::1]:65535", true, "::1", 65535, NULL);
	good(":8443", true, "", 8443, NULL);
	good("MYSQL:3306", true, "MYSQL", 3306, NULL);
	good("a-b_c.example.net.:1", true, "a-b_c.example.net.", 1, NULL);
	good("example.net", false, "example.net", 0, NULL);
	good("::1", false, "::1", 0, NULL);
	good("unix:/run/x.sock", true, NULL, 0, "/run/x.sock");
}

static void test_bad_addresses(void **state)
{
	static const char *const all[] = {
		"", ":", "a:", "a:0", "a:65536", "a:+1", "a: 1", "a:1x", "a:000001", "::1:80", "[::1:80", "[::1]80", "[::1%lo]:80",
		"[1.2.3.4]:80", "2130706433:80", "0x7f000001:80", "127.1:80", "127.0.0.1.:80", "1.2.3.256:80", "a..b:80", ".a:80",
		"a b:80", "a/b:80", "a@b:80", "unix:x", "unix:", "\xc3\xa9:80", "01.2.3.4:80"};
	char label[80], path[160];

	(void)state;
	for (unsigned i = 0; i < sizeof(all) / sizeof(*all); i++)
		bad(all[i], true);
	bad("a", true);
	memset(label, 'a', 64);
	strcpy(label + 64, ":80");
	bad(label, true);
	strcpy(path, "unix:/");
	memset(path + 6, 'x', 110);
	path[116] = '\0';
	bad(path, true);
}

static bool contains(const char *prefix, const char *address)
{
	struct config_prefix p, a;
	const char *why = "";

	if (config_prefix_parse(prefix, &p, &why) || config_prefix_parse(address, &a, &why))
		fail_msg("%s, %s: %s", prefix, address, why);
	return config_prefix_contains(&p, &a.address);
}

static void test_prefixes(void **state)
{
	struct config_prefix p;
	const char *why;
	static const char *const refused[] = {"10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/+8", "10.0/8", "::/129", "::1/127",
	                                      "x", "", "/8", "10.0.0.0/8/8", "0x0a000000/8"};

	(void)state;
	assert_true(contains("10.0.0.0/8", "10.255.1.2"));
	assert_false(contains("10.0.0.0/8", "11.0.0.0"));
	assert_true(contains("10.0.0.4/30", "10.0.0.7"));
	assert_false(contains("10.0.0.4/30", "10.0.0.8"));
	assert_true(contains("0.0.0.0/0", "1.2.3.4"));
	assert_false(contains("0.0.0.0/0", "::1"));
	assert_true(contains("::/0", "1.2.3.4"));
	assert_true(contains("2001:db8::/33", "2001:db8:7fff::1"));
	assert_false(contains("2001:db8::/33", "2001:db8:8000::1"));
	assert_true(contains("::1", "::1"));
	for (unsigned i = 0; i < sizeof(refused) / sizeof(*refused); i++)
		if (!config_prefix_parse(refused[i], &p, &why))
			fail_msg("%s was taken", refused[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_addresses), cmocka_unit_test(test_bad_addresses),
	                                   cmocka_unit_test(test_prefixes)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

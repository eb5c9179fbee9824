#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "workers/tunnel/guard.h"

static int split(const char *authority, uint16_t preset, char *host, uint16_t *port)
{
	const char *why = NULL;
	int error = guard_split(authority, preset, host, 256, port, &why);
	if (error)
		assert_non_null(why);
	return error;
}

static void check_split(const char *authority, uint16_t preset, const char *want_host, uint16_t want_port)
{
	char host[256];
	uint16_t port = 0;
	if (split(authority, preset, host, &port) != 0)
		fail_msg("%s refused", authority);
	assert_string_equal(host, want_host);
	assert_int_equal(port, want_port);
}

static void test_split(void **state)
{
	(void)state;
	check_split("example.com:443", 0, "example.com", 443);
	check_split("example.com", 80, "example.com", 80);
	check_split("example.com.:1", 0, "example.com", 1);
	check_split("VIDEO", 80, "VIDEO", 80);
	check_split("a_b-c.example:65535", 0, "a_b-c.example", 65535);
	check_split("192.0.2.1:080", 0, "192.0.2.1", 80);
	check_split("[2001:db8::1]:8443", 0, "2001:db8::1", 8443);
	check_split("[::1]", 80, "::1", 80);
	check_split("3com.com", 80, "3com.com", 80);
}

static void test_split_refuses(void **state)
{
	(void)state;
	static const char *const bad[] = {
		"", ":80", "a..b:1", ".a:1", "a:0", "a:65536", "a:99999999999", "a:", "a:1x", "a:+1", "a:-1", "a: 1", "a b:1",
		"a", "[::1", "[::1]x", "[::1]:", "[fe80::1%eth0]:1", "[fe80::1%25eth0]:1", "[127.0.0.1]:1", "::1:80", "::1",
		"2130706433:80", "0x7f000001:80", "0x7f.1:80", "0177.0.0.1:80", "127.1:80", "127.0.1:80", "127.0.0.01:80",
		"127.0.0.256:80", "1.2.3.4.5:80", "0:80", "0x:80", "foo.0x7f:80", "foo.1:80", "127.0.0.1..:80", "a%00b:80",
		"a/b:80", "a@b:80", "a,b:80", "\xc3\xa9.example:80", "..:80", ".:80", "[]:80", "[::g]:80",
	};
	char host[256];
	uint16_t port;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		if (split(bad[i], 0, host, &port) != -EINVAL)
			fail_msg("\"%s\" passed as %s:%u", bad[i], host, port);
}

static void test_split_long(void **state)
{
	char host[256], name[400];
	uint16_t port;
	(void)state;
	memset(name, 'a', sizeof(name));
	for (size_t i = 50; i < 250; i += 50)
		name[i] = '.';
	strcpy(name + 253, ":1");
	assert_int_equal(split(name, 0, host, &port), 0);
	memset(name + 201, 'a', 60);
	strcpy(name + 254, ":1");
	assert_int_equal(split(name, 0, host, &port), -EINVAL);
	memset(name, 'a', 64);
	strcpy(name + 64, ".example:1");
	assert_int_equal(split(name, 0, host, &port), -EINVAL);
}

static const char *refuses(const struct config_cluster *cluster, const char *text)
{
	struct sockaddr_in v4 = {.sin_family = AF_INET};
	struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
	if (inet_pton(AF_INET, text, &v4.sin_addr) == 1)
		return guard_refuses(cluster, (struct sockaddr *)&v4);
	assert_int_equal(inet_pton(AF_INET6, text, &v6.sin6_addr), 1);
	return guard_refuses(cluster, (struct sockaddr *)&v6);
}

static void test_public_only(void **state)
{
	(void)state;
	static const char *const open[] = {"8.8.8.8", "192.0.3.1", "172.32.0.1", "100.128.0.1", "198.20.0.1", "223.255.255.255",
	                                   "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1"};
	static const char *const closed[] = {
		"127.0.0.1", "127.255.255.254", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.1.1",
		"169.254.169.254", "100.64.0.1", "100.127.255.255", "0.0.0.0", "0.1.2.3", "224.0.0.1", "239.1.1.1", "240.0.0.1",
		"255.255.255.255", "192.0.2.1", "198.51.100.1", "203.0.113.1", "198.18.0.1", "198.19.255.255", "192.0.0.1",
		"192.88.99.1", "::", "::1", "fe80::1", "febf::1", "fec0::1", "fc00::1", "fd00:ec2::254", "fd12::1", "ff02::1",
		"::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "::10.1.2.3", "2002:7f00:1::",
		"2002:a00:1::1", "2002:c0a8:101::", "64:ff9b::127.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b:1::1", "2001:db8::1",
		"2001:2::1", "100::1", "2001:0:7f00:1::", "2001:0:808:808:0:0:80ff:fffe" /* client 127.0.0.1, inverted */,
		"3fff::1", "5f00::1", "4000::1", "2606:4700::5efe:127.0.0.1", "2606:4700::200:5efe:10.0.0.1"};
	struct config_cluster cluster = {.target = true};
	for (size_t i = 0; i < sizeof(open) / sizeof(*open); i++)
		if (refuses(&cluster, open[i]))
			fail_msg("%s refused: %s", open[i], refuses(&cluster, open[i]));
	for (size_t i = 0; i < sizeof(closed) / sizeof(*closed); i++)
		if (!refuses(&cluster, closed[i]))
			fail_msg("%s may be dialled", closed[i]);
	struct sockaddr un = {.sa_family = AF_UNIX};
	assert_non_null(guard_refuses(&cluster, &un));
}

static void test_allow_and_deny(void **state)
{
	(void)state;
	struct config_prefix ten, eight, metadata;
	const char *why;
	assert_int_equal(config_prefix_parse("10.1.0.0/16", &ten, &why), 0);
	assert_int_equal(config_prefix_parse("8.0.0.0/8", &eight, &why), 0);
	assert_int_equal(config_prefix_parse("169.254.169.254", &metadata, &why), 0);
	struct config_cluster cluster = {.allow_targets = {.loopback = true, .prefixes = {&ten, 1}}, .deny_targets = {.prefixes = {&eight, 1}}};
	assert_null(refuses(&cluster, "127.0.0.1"));
	assert_null(refuses(&cluster, "::1"));
	assert_null(refuses(&cluster, "::ffff:127.0.0.1"));
	assert_null(refuses(&cluster, "10.1.2.3"));
	assert_non_null(refuses(&cluster, "10.2.0.1"));
	assert_non_null(refuses(&cluster, "8.8.8.8"));
	assert_non_null(refuses(&cluster, "64:ff9b::8.8.8.8"));
	assert_null(refuses(&cluster, "9.9.9.9"));

	struct config_cluster classes = {.allow_targets = {.private_ = true, .link_local = true}};
	assert_null(refuses(&classes, "192.168.0.1"));
	assert_null(refuses(&classes, "fd12::1"));
	assert_null(refuses(&classes, "fe80::1"));
	assert_string_equal(refuses(&classes, "169.254.169.254"), "cloud metadata address");
	assert_string_equal(refuses(&classes, "fd00:ec2::254"), "cloud metadata address");
	assert_string_equal(refuses(&classes, "127.0.0.1"), "loopback address");
	classes.allow_targets.prefixes = (struct config_prefixes){&metadata, 1};
	assert_null(refuses(&classes, "169.254.169.254"));

	struct config_cluster any = {.allow_targets = {.any = true}, .deny_targets = {.loopback = true}};
	assert_null(refuses(&any, "10.0.0.1"));
	assert_null(refuses(&any, "192.0.2.1"));
	assert_non_null(refuses(&any, "127.0.0.1"));
	assert_non_null(refuses(&any, "::ffff:127.0.0.1"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_split), cmocka_unit_test(test_split_refuses), cmocka_unit_test(test_split_long),
		cmocka_unit_test(test_public_only), cmocka_unit_test(test_allow_and_deny),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

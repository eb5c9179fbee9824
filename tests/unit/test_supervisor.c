/* The supervisor's parts that decide without a process around them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "store/config.h"
#include "supervisor/bind.h"
#include "supervisor/explain_args.h"
#include "supervisor/files.h"
#include "supervisor/introduce.h"
#include "supervisor/lines.h"
#include "supervisor/watch.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* --- watch ---------------------------------------------------------------------------------------------------------- */

static void silence_alone_is_no_loop(void **state)
{
	(void)state;
	assert_null(watch_verdict(0, 0));
	assert_null(watch_verdict(WATCH_LOOP_MS, WATCH_LOOP_CPU_MS - 1));
	assert_null(watch_verdict(WATCH_LOOP_MS - 1, 10000));
	assert_null(watch_verdict(WATCH_HANG_MS - 1, 0));
	assert_non_null(strstr(watch_verdict(WATCH_LOOP_MS, WATCH_LOOP_CPU_MS), "loops"));
	assert_non_null(strstr(watch_verdict(WATCH_HANG_MS, 0), "did not answer"));
}

/* --- introduce ------------------------------------------------------------------------------------------------------ */

static void who_talks_to_whom(void **state)
{
	(void)state;
	for (unsigned a = IPC_TUN_BRIDGE; a <= IPC_CONFIG_SYNC; a++)
		for (unsigned b = IPC_TUN_BRIDGE; b <= IPC_CONFIG_SYNC; b++) {
			bool telemetry = (a == IPC_TELEMETRY) != (b == IPC_TELEMETRY);
			bool circle = a != b && (a == IPC_TUNNEL || a == IPC_POLICY || a == IPC_ROUTER) &&
			              (b == IPC_TUNNEL || b == IPC_POLICY || b == IPC_ROUTER);
			assert_int_equal(introduce_talk(a, b), telemetry || circle);
		}
}

/* --- addresses ------------------------------------------------------------------------------------------------------ */

static struct bind_address resolve(const char *text)
{
	struct config_address parsed = {0};
	struct bind_address out;
	const char *why;
	char error[256];
	assert_int_equal(config_address_parse(text, true, NULL, &parsed, &why), 0);
	assert_int_equal(bind_resolve(&parsed, &out, error, sizeof(error)), 0);
	config_address_clear(&parsed);
	return out;
}

static void numeric_addresses_resolve(void **state)
{
	(void)state;
	struct bind_address v4 = resolve("127.0.0.1:80"), v6 = resolve("[::1]:80"), any = resolve(":80"),
	                    local = resolve("localhost:80"), un = resolve("unix:/tmp/x");
	assert_int_equal(v4.address.ss_family, AF_INET);
	assert_int_equal(v6.address.ss_family, AF_INET6);
	assert_true(any.any && !v6.any);
	assert_true(bind_same(&v4, &local));
	assert_false(bind_same(&v4, &v6));
	assert_true(bind_same_port(&v4, &v6));
	assert_false(bind_same_port(&v4, &un));
	struct bind_address other = resolve("127.0.0.1:81");
	assert_false(bind_same(&v4, &other));
	assert_false(bind_same_port(&v4, &other));
	struct bind_address explicit = resolve("[::]:80");
	assert_false(bind_same(&any, &explicit));
}

static void names_are_refused(void **state)
{
	struct config_address name = {.text = (char *)"example.net:80", .host = (char *)"example.net", .port = 80};
	char path[300], error[256];
	struct bind_address out;
	(void)state;
	assert_int_equal(bind_resolve(&name, &out, error, sizeof(error)), -1);
	assert_non_null(strstr(error, "example.net"));
	memset(path, 'x', sizeof(path) - 1);
	path[0] = '/';
	path[sizeof(path) - 1] = '\0';
	struct config_address un = {.unix_path = path};
	assert_int_equal(bind_resolve(&un, &out, error, sizeof(error)), -1);
}

static void sockets_share_a_port_and_strangers_are_seen(void **state)
{
	char error[256], text[128], again[128];
	(void)state;
	struct bind_address a = resolve("127.0.0.1:1");
	((struct sockaddr_in *)&a.address)->sin_port = 0;
	int first = bind_open(&a, -1, error, sizeof(error));
	assert_true(first >= 0);
	int second = bind_open(&a, first, error, sizeof(error));
	assert_true(second >= 0);
	bind_describe(first, text, sizeof(text));
	bind_describe(second, again, sizeof(again));
	assert_string_equal(text, again);
	assert_int_equal(listen(first, 1), 0);
	struct bind_address same = resolve(text);
	assert_int_equal(bind_probe(&same, error, sizeof(error)), -1);
	assert_non_null(strstr(error, "another program"));
	close(first);
	close(second);
	assert_int_equal(bind_probe(&same, error, sizeof(error)), 0);
}

/* Datagrams to one port are spread over its sockets by client, and a client's all come to the same one. */
static void udp_sockets_share_a_port(void **state)
{
	char error[256], text[128], c;
	(void)state;
	struct bind_address a = resolve("127.0.0.1:1");
	((struct sockaddr_in *)&a.address)->sin_port = 0;
	a.datagrams = true;
	int socket_of[2];
	for (int i = 0; i < 2; i++)
		assert_true((socket_of[i] = bind_open(&a, i ? socket_of[0] : -1, error, sizeof(error))) >= 0);
	bind_describe(socket_of[0], text, sizeof(text));
	struct bind_address same = resolve(text), tcp = same;
	same.datagrams = true;
	assert_false(bind_same(&same, &tcp));
	assert_false(bind_same_port(&same, &tcp));
	assert_int_equal(bind_probe(&tcp, error, sizeof(error)), 0);
	assert_int_equal(bind_probe(&same, error, sizeof(error)), -1);
	assert_non_null(strstr(error, "ss -lunp"));
	unsigned got[2] = {0};
	for (int client = 0; client < 32; client++) {
		int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
		assert_int_equal(connect(fd, (struct sockaddr *)&same.address, same.length), 0);
		for (int n = 0; n < 3; n++)
			assert_int_equal(send(fd, "x", 1, 0), 1);
		unsigned mine[2] = {0};
		for (int i = 0; i < 2; i++)
			while (recv(socket_of[i], &c, 1, MSG_DONTWAIT) == 1)
				mine[i]++;
		assert_true((mine[0] == 3 && mine[1] == 0) || (mine[0] == 0 && mine[1] == 3));
		got[0] += mine[0], got[1] += mine[1];
		close(fd);
	}
	assert_true(got[0] > 0 && got[1] > 0);
	close(socket_of[0]);
	close(socket_of[1]);
}

static void unix_sockets_are_cleared_and_shared(void **state)
{
	char folder[] = "/tmp/test-bind-XXXXXX", path[64], text[128], error[256];
	(void)state;
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "unix:%s/s", folder);
	struct bind_address a = resolve(path);
	assert_int_equal(bind_probe(&a, error, sizeof(error)), 0);
	int first = bind_open(&a, -1, error, sizeof(error));
	assert_true(first >= 0);
	int second = bind_open(&a, first, error, sizeof(error));
	assert_true(second >= 0);
	bind_describe(second, text, sizeof(text));
	assert_string_equal(text, path);
	assert_int_equal(listen(first, 1), 0);
	assert_int_equal(bind_probe(&a, error, sizeof(error)), -1);       /* somebody answers */
	close(first);
	close(second);
	assert_int_equal(bind_probe(&a, error, sizeof(error)), 0);        /* left over: removed */
	assert_int_equal(access(path + 5, F_OK), -1);
	FILE *f = fopen(path + 5, "w");
	assert_non_null(f);
	fclose(f);
	assert_int_equal(bind_probe(&a, error, sizeof(error)), -1);       /* a file: left alone */
	assert_int_equal(access(path + 5, F_OK), 0);
	unlink(path + 5);
	rmdir(folder);
}

/* --- files ---------------------------------------------------------------------------------------------------------- */

static void paths_count_from_the_configuration(void **state)
{
	static const char *const cases[][3] = {
		{"/etc/hermes/hermes.yaml", "tls/a.crt", "/etc/hermes/tls/a.crt"},
		{"/etc/hermes/hermes.yaml", "/abs/a.crt", "/abs/a.crt"},
		{"hermes.yaml", "a.crt", "a.crt"},
		{"conf/hermes.yaml", "../a.crt", "conf/../a.crt"},
		{"/hermes.yaml", "a", "/a"},
	};
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		char *full = files_resolve(cases[i][0], cases[i][1]);
		assert_string_equal(full, cases[i][2]);
		free(full);
	}
}

static void lines_are_bounded(void **state)
{
	struct lines lines = {0};
	(void)state;
	assert_string_equal(lines_first(&lines), "");
	for (int i = 0; i < 1000; i++)
		lines_addf(&lines, "line %d", i);
	lines_add(&lines, NULL);
	assert_int_equal(lines.n, 64);
	assert_string_equal(lines_first(&lines), "line 0");
	lines_clear(&lines);
	assert_int_equal(lines.n, 0);
}

/* --- explain -------------------------------------------------------------------------------------------------------- */

#define WORDS(...) (const char *[]){__VA_ARGS__}, sizeof((const char *[]){__VA_ARGS__}) / sizeof(char *)

static int parse(const struct config *config, struct explain_args *out, char *error, const char **words, size_t n)
{
	struct ipc_strs args = {words, n};
	return explain_parse(&args, config, out, error, 256);
}

static void a_url_becomes_a_question(void **state)
{
	struct explain_args a;
	char error[256];
	(void)state;
	assert_int_equal(parse(NULL, &a, error, WORDS("--user", "alice", "--header", "Token=a=b", "http://VIDEO:80/Org/x")), 0);
	assert_string_equal(a.question.method, "GET");
	assert_string_equal(a.question.scheme, "http");
	assert_string_equal(a.question.authority, "video:80");
	assert_string_equal(a.question.path, "/Org/x");
	assert_int_equal(a.question.headers.n, 1);
	assert_string_equal(a.question.headers.v[0].name, "token");
	assert_string_equal(a.question.headers.v[0].value, "a=b");
	explain_args_clear(&a);
}

static void a_host_becomes_connect(void **state)
{
	struct explain_args a;
	char error[256];
	(void)state;
	assert_int_equal(parse(NULL, &a, error, WORDS("Example.org:443")), 0);
	assert_string_equal(a.question.method, "CONNECT");
	assert_string_equal(a.question.authority, "example.org:443");
	assert_null(a.question.path);
	assert_null(a.question.scheme);
	explain_args_clear(&a);
	assert_int_equal(parse(NULL, &a, error, WORDS("--authority", "Web", "--method", "POST", "--path", "/x")), 0);
	assert_string_equal(a.question.authority, "web");
	assert_string_equal(a.question.scheme, "http");
	explain_args_clear(&a);
}

static void wrong_words_are_named(void **state)
{
	struct explain_args a;
	char error[256];
	(void)state;
	assert_int_equal(parse(NULL, &a, error, WORDS("--user")), -1);
	assert_non_null(strstr(error, "--user"));
	assert_int_equal(parse(NULL, &a, error, WORDS("--colour", "red", "http://x/")), -1);
	assert_non_null(strstr(error, "--colour"));
	assert_int_equal(parse(NULL, &a, error, WORDS("--header", "novalue", "http://x/")), -1);
	assert_int_equal(parse(NULL, &a, error, WORDS("--time", "noon", "http://x/")), -1);
	assert_int_equal(parse(NULL, &a, error, WORDS("--user", "alice")), -1);
	assert_int_equal(parse(NULL, &a, error, WORDS("http:///path")), -1);
}

static void headers_are_bounded(void **state)
{
	const char *words[2 * (EXPLAIN_HEADERS_MAX + 1)];
	char names[EXPLAIN_HEADERS_MAX + 1][16], error[256];
	struct explain_args a;
	(void)state;
	for (int i = 0; i <= EXPLAIN_HEADERS_MAX; i++) {
		snprintf(names[i], sizeof(names[i]), "h%d=1", i);
		words[2 * i] = "--header";
		words[2 * i + 1] = names[i];
	}
	assert_int_equal(parse(NULL, &a, error, words, 2 * (EXPLAIN_HEADERS_MAX + 1)), -1);
}

static const char document[] =
	"node: {name: alice, domain: example.net}\n"
	"listeners:\n"
	"  - {name: apps, address: 127.0.0.1:12000, accept: http, add_headers: {user: alice, zone: dmz}}\n"
	"  - {name: db, address: 127.0.0.1:3306, accept: tcp, target: MYSQL:3306}\n"
	"tunnels: [{name: tun0, networks: [{prefix: 10.0.0.0/8, add_headers: {user: wide}},\n"
	"  {prefix: 10.1.0.0/16, add_headers: {user: narrow}}, {prefix: '2001:db8::/32', over_udp: 'PEER:7'}]}]\n"
	"overlay_headers: [x-secure]\n";

static void the_listener_does_its_part(void **state)
{
	struct config_report report = {0};
	struct config *config = config_parse("test", document, sizeof(document) - 1, &report);
	struct explain_args a;
	char error[256];
	(void)state;
	assert_non_null(config);
	assert_int_equal(parse(config, &a, error, WORDS("--listener", "apps", "--header", "x-secure=admin", "http://V/")), 0);
	assert_string_equal(a.question.user, "alice");
	for (size_t i = 0; i < a.question.headers.n; i++)
		assert_string_not_equal(a.question.headers.v[i].name, "x-secure");    /* the overlay's own word */
	assert_int_equal(a.question.headers.n, 2);
	explain_args_clear(&a);
	assert_int_equal(parse(config, &a, error, WORDS("--listener", "db")), 0);
	assert_string_equal(a.question.authority, "mysql:3306");
	assert_string_equal(a.question.method, "CONNECT");
	explain_args_clear(&a);
	assert_int_equal(parse(config, &a, error, WORDS("--listener", "nobody", "http://V/")), -1);
	assert_non_null(strstr(error, "no listener of that name"));
	config_free(config);
	config_report_free(&report);
}

#define PACKET(from, to) "--ip-protocol", "tcp", "--ip-source", from, "--ip-destination", to, "--ip-port", "80"

static void a_packet_in_a_tunnel(void **state)
{
	static const char *const bad[][2] = {{"--ip-protocol", "tpc"}, {"--ip-protocol", "256"}, {"--ip-port", "65536"},
	                                     {"--ip-port", "-1"}, {"--ip-source", "host"}, {"--ip-dest", "10.0.0.1"}};
	struct explain_args a;
	char error[256];
	(void)state;
	assert_int_equal(parse(NULL, &a, error, WORDS("--user", "u", PACKET("10.0.0.1", "10.0.0.2"), "server:1")), 0);
	assert_true(a.question.inner && a.question.ip_protocol == 6 && a.question.ip_port == 80);
	assert_string_equal(a.question.ip_destination, "10.0.0.2");
	explain_args_clear(&a);
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		assert_int_equal(parse(NULL, &a, error, WORDS(bad[i][0], bad[i][1], "server:1")), -1);
		assert_non_null(strstr(error, bad[i][0]));
	}
	assert_int_equal(parse(NULL, &a, error, WORDS("--ip-protocol", "17", "server:1")), -1);
	assert_non_null(strstr(error, "--ip-destination"));
	assert_int_equal(parse(NULL, &a, error, WORDS(PACKET("10.0.0.1", "::1"), "server:1")), -1);
	assert_non_null(strstr(error, "one family"));
}

static void the_device_does_its_part(void **state)
{
	static const struct { const char *from, *to, *authority, *protocol, *user; } table[] = {
		{"10.8.0.2", "10.1.2.3", "10.1.0.0/16", "connect-ip", "narrow"},
		{"10.8.0.2", "10.2.2.3", "10.0.0.0/8", "connect-ip", "wide"},
		{"10.1.2.3", "192.0.2.1", "10.1.0.0/16", "connect-ip", "narrow"},          /* comes back */
		{"2001:db8::1", "2001:db8::2", "PEER:7", "connect-udp", NULL},
	};
	struct config_report report = {0};
	struct config *config = config_parse("test", document, sizeof(document) - 1, &report);
	struct explain_args a;
	char error[256];
	(void)state;
	assert_non_null(config);
	for (size_t i = 0; i < sizeof(table) / sizeof(*table); i++) {
		assert_int_equal(parse(config, &a, error, WORDS("--listener", "tun0", PACKET(table[i].from, table[i].to))), 0);
		assert_string_equal(a.question.authority, table[i].authority);
		assert_string_equal(a.question.protocol, table[i].protocol);
		assert_string_equal(a.question.method, "CONNECT");
		assert_true(table[i].user ? a.question.user && !strcmp(a.question.user, table[i].user) : !a.question.user);
		explain_args_clear(&a);
	}
	assert_int_equal(parse(config, &a, error, WORDS("--listener", "tun0", "--authority", "10.0.0.0/8")), 0);   /* the tunnel */
	assert_false(a.question.inner);
	assert_string_equal(a.question.user, "wide");
	explain_args_clear(&a);
	assert_int_equal(parse(config, &a, error, WORDS("--listener", "tun0", PACKET("192.0.2.1", "192.0.2.2"))), -1);
	assert_non_null(strstr(error, "one of its networks"));
	config_free(config);
	config_report_free(&report);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(silence_alone_is_no_loop),
		cmocka_unit_test(who_talks_to_whom),
		cmocka_unit_test(numeric_addresses_resolve),
		cmocka_unit_test(names_are_refused),
		cmocka_unit_test(sockets_share_a_port_and_strangers_are_seen),
		cmocka_unit_test(udp_sockets_share_a_port),
		cmocka_unit_test(unix_sockets_are_cleared_and_shared),
		cmocka_unit_test(paths_count_from_the_configuration),
		cmocka_unit_test(lines_are_bounded),
		cmocka_unit_test(a_url_becomes_a_question),
		cmocka_unit_test(a_host_becomes_connect),
		cmocka_unit_test(wrong_words_are_named),
		cmocka_unit_test(headers_are_bounded),
		cmocka_unit_test(the_listener_does_its_part),
		cmocka_unit_test(a_packet_in_a_tunnel),
		cmocka_unit_test(the_device_does_its_part),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The resolver against a name server on the loopback that answers as the test wants. */
#include <arpa/inet.h>
#include <event2/event.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "workers/tunnel/resolve.h"
#include "workers/tunnel/resolve_text.h"

static struct event_base *base;
static struct resolver *resolver;

/* --- a name server ---------------------------------------------------------------------------------------------------- */

static struct {
	int fd;
	struct event *event;
	unsigned asked;               /* questions for A */
	bool silent, servfail;
	uint32_t ttl;
} server;

static size_t put(uint8_t *out, size_t at, const void *data, size_t length)
{
	memcpy(out + at, data, length);
	return at + length;
}

/* one.test: an A; both.test: A and AAAA; others: no such name. */
static size_t answer(const uint8_t *query, size_t length, uint8_t *out)
{
	char name[256] = "";
	size_t at = 12;
	while (at < length && query[at]) {
		strncat(name, (const char *)query + at + 1, query[at]);
		strcat(name, ".");
		at += query[at] + 1u;
	}
	uint16_t type = (uint16_t)(query[at + 1] << 8 | query[at + 2]);
	at += 5;
	server.asked += type == 1;
	bool one = strcmp(name, "one.test.") == 0, both = strcmp(name, "both.test.") == 0;
	bool have = (type == 1 && (one || both)) || (type == 28 && both);
	uint8_t rcode = server.servfail ? 2 : one || both ? 0 : 3;
	size_t n = put(out, 0, query, at);
	out[2] = 0x81, out[3] = (uint8_t)(0x80 | rcode);
	memset(out + 6, 0, 6);
	if (rcode || !have)
		return n;
	out[7] = 1;
	uint32_t ttl = htonl(server.ttl);
	n = put(out, n, type == 1 ? "\xc0\x0c\0\1\0\1" : "\xc0\x0c\0\x1c\0\1", 6);
	n = put(out, n, &ttl, 4);
	if (type == 1)
		return put(out, n, "\0\4\xc6\x33\x64\x07", 6);
	return put(out, n, "\0\x10\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\7", 18);
}

static void on_query(evutil_socket_t fd, short what, void *arg)
{
	uint8_t in[512], out[1024];
	struct sockaddr_in from;
	socklen_t size = sizeof(from);
	ssize_t n = recvfrom(fd, in, sizeof(in), 0, (struct sockaddr *)&from, &size);
	(void)what, (void)arg;
	if (n < 17 || server.silent)
		return;
	size_t length = answer(in, (size_t)n, out);
	assert_int_equal(sendto(fd, out, length, 0, (struct sockaddr *)&from, size), length);
}

static void use_server(const char *options)
{
	char text[128];
	struct sockaddr_in address;
	socklen_t size = sizeof(address);
	getsockname(server.fd, (struct sockaddr *)&address, &size);
	snprintf(text, sizeof(text), "search example.com\nnameserver [127.0.0.1]:%u\n%s\n", ntohs(address.sin_port), options);
	resolver_set_resolv_conf(resolver, text);
}

static int setup(void **state)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	(void)state;
	base = event_base_new();
	resolver = resolver_new(base);
	memset(&server, 0, sizeof(server));
	server.ttl = 100;
	server.fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
	assert_int_equal(bind(server.fd, (struct sockaddr *)&address, sizeof(address)), 0);
	server.event = event_new(base, server.fd, EV_READ | EV_PERSIST, on_query, NULL);
	event_add(server.event, NULL);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	resolver_free(resolver);
	event_free(server.event);
	close(server.fd);
	event_base_free(base);
	return 0;
}

/* --- asking ----------------------------------------------------------------------------------------------------------- */

struct result { unsigned n, awaited; enum flow_error error; struct resolved resolved; char reason[128]; };

static void on_done(void *arg, const struct resolved *resolved, enum flow_error error)
{
	struct result *result = arg;
	result->error = error;
	assert_true((resolved != NULL) == (error == FLOW_NONE));
	if (resolved)
		result->resolved = *resolved;
	else
		snprintf(result->reason, sizeof(result->reason), "%s", resolve_reason(resolver));
	if (++result->n == result->awaited)
		event_base_loopbreak(base);
}

static struct result ask_ttl(const char *name, uint32_t ttl_min, uint32_t ttl_max, bool *at_once)
{
	struct result result = {.awaited = 1};
	struct resolve_query *query = resolve(resolver, name, ttl_min, ttl_max, &result.resolved, on_done, &result);
	*at_once = !query;
	if (query) {
		assert_int_equal(result.n, 0);
		event_base_dispatch(base);
		assert_int_equal(result.n, 1);
	}
	return result;
}

static struct result ask(const char *name, bool *at_once)
{
	return ask_ttl(name, 5, 300, at_once);
}

static const char *text_of(const struct resolved *resolved, unsigned i)
{
	static char text[INET6_ADDRSTRLEN];
	const union resolve_address *a = &resolved->v[i];
	const void *address = a->sa.sa_family == AF_INET ? (const void *)&((const struct sockaddr_in *)a)->sin_addr :
	                      (const void *)&((const struct sockaddr_in6 *)a)->sin6_addr;
	return inet_ntop(a->sa.sa_family, address, text, sizeof(text));
}

static void test_known(void **state)
{
	bool at_once;
	(void)state;
	struct result r = ask("192.0.2.1", &at_once);
	assert_true(at_once);
	assert_string_equal(text_of(&r.resolved, 0), "192.0.2.1");
	r = ask("2001:db8::1", &at_once);
	assert_true(at_once);
	assert_string_equal(text_of(&r.resolved, 0), "2001:db8::1");
	r = ask("LocalHost.", &at_once);
	assert_true(at_once);
	assert_int_equal(r.resolved.n, 2);
	assert_string_equal(text_of(&r.resolved, 0), "127.0.0.1");
	r = ask("foo.localhost", &at_once);
	assert_true(at_once);
	resolver_set_hosts(resolver, "# a comment\n192.0.2.9 Web web.example # other\n2001:db8::9\tweb\nnonsense web\n");
	r = ask("WEB", &at_once);
	assert_true(at_once);
	assert_int_equal(r.resolved.n, 2);
	assert_string_equal(text_of(&r.resolved, 1), "2001:db8::9");
	r = ask("web.example.", &at_once);
	assert_int_equal(r.resolved.n, 1);
	resolver_set_hosts(resolver, NULL);
	r = ask("web", &at_once);
	assert_false(at_once);
	assert_int_equal(r.error, FLOW_DNS);
	assert_string_equal(r.reason, "no name server is known (resolv.conf has none)");
}

static void test_query_and_cache(void **state)
{
	bool at_once;
	(void)state;
	use_server("");
	struct result r = ask("one.test", &at_once);
	assert_false(at_once);
	assert_int_equal(r.error, FLOW_NONE);
	assert_int_equal(r.resolved.n, 1);
	assert_string_equal(text_of(&r.resolved, 0), "198.51.100.7");
	assert_int_equal(r.resolved.ttl, 100);
	r = ask("ONE.test.", &at_once);
	assert_true(at_once);
	assert_int_equal(server.asked, 1);
	assert_in_range(r.resolved.ttl, 90, 100);
	r = ask("both.test", &at_once);
	assert_int_equal(r.resolved.n, 2);
	assert_string_equal(text_of(&r.resolved, 0), "2001:db8::7");
	assert_string_equal(text_of(&r.resolved, 1), "198.51.100.7");
}

static void test_ttl_bounds(void **state)
{
	bool at_once;
	(void)state;
	use_server("");
	server.ttl = 0;
	ask_ttl("one.test", 0, 300, &at_once);
	ask_ttl("one.test", 0, 300, &at_once);
	assert_false(at_once);
	assert_int_equal(server.asked, 2);
	struct result r = ask_ttl("one.test", 60, 300, &at_once);
	assert_true(at_once);
	assert_in_range(r.resolved.ttl, 50, 60);
	server.ttl = 1000;
	r = ask_ttl("both.test", 1, 7, &at_once);
	assert_int_equal(r.resolved.ttl, 7);
}

static void test_failures(void **state)
{
	bool at_once;
	(void)state;
	use_server("options timeout:1 attempts:1");
	struct result r = ask("none.test", &at_once);
	assert_int_equal(r.error, FLOW_DNS);
	unsigned asked = server.asked;
	r = ask("none.test", &at_once);
	assert_false(at_once);                       /* never inside the call ... */
	assert_int_equal(r.error, FLOW_DNS);
	assert_int_equal(server.asked, asked);       /* ... but from the cache */
	server.servfail = true;
	r = ask("both.test", &at_once);
	assert_int_equal(r.error, FLOW_DNS);
	server.servfail = false;
	server.silent = true;
	r = ask("one.test", &at_once);
	assert_int_equal(r.error, FLOW_DNS_TIMEOUT);
	char name[300];
	memset(name, 'a', sizeof(name));
	name[299] = 0;
	r = ask(name, &at_once);
	assert_int_equal(r.error, FLOW_DNS);
	r = ask("", &at_once);
	assert_int_equal(r.error, FLOW_DNS);
}

static void test_joined_and_cancelled(void **state)
{
	struct result a = {.awaited = 1}, b = {.awaited = 9}, c = {.awaited = 9};
	(void)state;
	use_server("");
	struct resolve_query *first = resolve(resolver, "one.test", 5, 300, &b.resolved, on_done, &b);
	struct resolve_query *second = resolve(resolver, "one.test", 5, 300, &c.resolved, on_done, &c);
	assert_non_null(resolve(resolver, "ONE.TEST", 5, 300, &a.resolved, on_done, &a));
	assert_non_null(first);
	resolve_cancel(second);
	event_base_dispatch(base);
	event_base_loop(base, EVLOOP_NONBLOCK);
	assert_int_equal(a.n, 1);
	assert_int_equal(b.n, 1);
	assert_int_equal(c.n, 0);
	assert_int_equal(server.asked, 1);
}

static void test_servers_change(void **state)
{
	struct result r = {.awaited = 1};
	(void)state;
	/* A server that does not answer, replaced while it is asked. */
	resolver_set_resolv_conf(resolver, "nameserver [127.0.0.1]:1\noptions timeout:30\n");
	assert_non_null(resolve(resolver, "one.test", 5, 300, &r.resolved, on_done, &r));
	use_server("");
	event_base_dispatch(base);
	assert_int_equal(r.error, FLOW_NONE);
	resolver_set_resolv_conf(resolver, "");
	bool at_once;
	r = ask("both.test", &at_once);
	assert_int_equal(r.error, FLOW_DNS);
	use_server("");
	r = ask("both.test", &at_once);
	assert_int_equal(r.error, FLOW_NONE);
}

static void test_bounds(void **state)
{
	struct result r = {.awaited = 1100};
	(void)state;
	use_server("");
	server.silent = true;
	for (unsigned i = 0; i < 1100; i++) {
		char name[32];
		snprintf(name, sizeof(name), "n%u.test", i);
		assert_non_null(resolve(resolver, name, 5, 300, &r.resolved, on_done, &r));
	}
	event_base_loop(base, EVLOOP_NONBLOCK);
	assert_int_equal(r.n, 1100 - 1024);
	assert_string_equal(r.reason, "too many names are being resolved");
	/* Freed with all of them under way: nobody is told. */
}

static void test_texts(void **state)
{
	struct resolv_conf conf;
	char csv[RESOLV_SERVERS * 68];
	(void)state;
	resolv_conf_parse("; comment\n nameserver\t192.0.2.1  # x\nnameserver 2001:db8::53\nnameserver fe80::1%eth0\n"
	                  "nameserver nonsense\nnameserver [192.0.2.2]:0\nnameserver\noptions rotate timeout:99 attempts:0 ndots:3",
	                  &conf);
	assert_int_equal(conf.n, 2);
	assert_true(conf.rotate);
	assert_int_equal(conf.timeout_ms, 30000);
	assert_int_equal(conf.tries, 1);
	resolv_conf_csv(&conf, csv, sizeof(csv));
	assert_string_equal(csv, "192.0.2.1:53,[2001:db8::53]:53");
	resolv_conf_parse("", &conf);
	assert_int_equal(conf.n, 0);
	resolv_conf_csv(&conf, csv, sizeof(csv));
	assert_string_equal(csv, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_known, setup, teardown),
		cmocka_unit_test_setup_teardown(test_query_and_cache, setup, teardown),
		cmocka_unit_test_setup_teardown(test_ttl_bounds, setup, teardown),
		cmocka_unit_test_setup_teardown(test_failures, setup, teardown),
		cmocka_unit_test_setup_teardown(test_joined_and_cancelled, setup, teardown),
		cmocka_unit_test_setup_teardown(test_servers_change, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bounds, setup, teardown),
		cmocka_unit_test(test_texts),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

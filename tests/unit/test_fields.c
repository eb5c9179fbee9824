#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "workers/tunnel/fields.h"

#define T(text) ((char *)(text))      /* the configuration's strings are not const */

static char *internal_names[] = {T("ipaddress"), T("user"), T("x-secure")};
static char *examined_names[] = {T("cookie"), T("token"), T("x-absent")};
static struct config config = {
	.node_name = T("alice"), .domain = T("example.net"),
	.internal_headers = {internal_names, 3}, .examined_headers = {examined_names, 3},
};

static struct head *request(void)
{
	struct head *head = head_new();
	head->method = "GET";
	head->scheme = "http";
	head->authority = "video";
	head->path = "/";
	return head;
}

static struct head *with_internal(void)
{
	struct head *head = request();
	head_add(head, "x-secure", "admin");
	head_add(head, "accept", "*/*");
	head_add(head, "user", "mallory");
	head_add(head, "proxy-authorization", "Basic x");
	head_add(head, "ipaddress", "10.0.0.1");
	head_add(head, "hermes-peer", "mallory");     /* nobody says it but this node */
	return head;
}

static void cleans_at_program_listeners(void **state)
{
	(void)state;
	struct config_listener listener = {.accept = CONFIG_HTTP};
	struct head *head = with_internal();
	fields_clean_request(head, &config, &listener, NULL);
	assert_int_equal(head->n, 1);
	assert_string_equal(head_get(head, "accept"), "*/*");
	assert_int_equal(head->bytes, 9);
	head_free(head);

	listener.trust_headers = true;
	head = with_internal();
	fields_clean_request(head, &config, &listener, NULL);
	assert_int_equal(head->n, 4);
	assert_null(head_get(head, "proxy-authorization"));
	head_free(head);

	/* "user" is the overlay's own, even where no configuration says so */
	struct config bare = {.node_name = T("n")};
	listener.trust_headers = false;
	head = with_internal();
	fields_clean_request(head, &bare, &listener, NULL);
	assert_null(head_get(head, "user"));
	assert_non_null(head_get(head, "x-secure"));
	head_free(head);
}

static void cleans_at_overlay_listeners(void **state)
{
	(void)state;
	char *names[] = {T("x-secure")};
	struct config_listener listener = {.accept = CONFIG_OVERLAY};
	struct config_peer some = {.headers = {names, 1}}, any = {.any_header = true};
	struct head *head = with_internal();
	fields_clean_request(head, &config, &listener, NULL);
	assert_int_equal(head->n, 4);
	head_free(head);
	head = with_internal();
	fields_clean_request(head, &config, &listener, &any);
	assert_int_equal(head->n, 4);
	head_free(head);
	head = with_internal();
	fields_clean_request(head, &config, &listener, &some);
	assert_int_equal(head->n, 3);
	assert_null(head_get(head, "ipaddress"));
	assert_string_equal(head_get(head, "user"), "mallory");
	head_free(head);
}

static void hops(void **state)
{
	(void)state;
	static const struct { const char *via; unsigned hops; bool own; } cases[] = {
		{"1.1 proxy", 0, false}, {"1.1 a.example.net (hermes)", 1, false}, {"2 ALICE.example.net (hermes)", 1, true},
		{"1.1 alice.example.net", 0, false}, {"2 a (hermes), 1.1 b (squid, (hermes)) , 1.1 c (hermes)", 2, false},
		{"2 a (hermesx), 2 b (x) (hermes)", 0, false}, {"", 0, false}, {",, ,", 0, false}, {"(hermes)", 0, false},
		{"2 a (unclosed \\", 0, false}, {"2 a (her\\mes", 0, false}, {"HTTP/2 a (hermes)", 1, false},
		{"2 a\t(hermes)", 1, false},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct head *head = request();
		bool own;
		head_add(head, "via", cases[i].via);
		if (fields_hops(head, &config, &own) != cases[i].hops || own != cases[i].own)
			fail_msg("%s", cases[i].via);
		head_free(head);
	}
	struct head *head = request();
	bool own;
	for (int i = 0; i < 5; i++)
		fields_via(head, &config, i ? "h1" : "h2");
	assert_string_equal(head->fields[0].value, "2 alice.example.net (hermes)");
	assert_string_equal(head->fields[1].value, "1.1 alice.example.net (hermes)");
	assert_int_equal(fields_hops(head, &config, &own), 5);
	assert_true(own);
	head_free(head);
}

static void forwarded(void **state)
{
	(void)state;
	static const struct { const char *source; uint16_t port; const char *authority, *value; } cases[] = {
		{"192.0.2.1", 0, "video", "for=192.0.2.1;proto=http;host=video"},
		{"192.0.2.1", 4711, "video:80", "for=\"192.0.2.1:4711\";proto=http;host=\"video:80\""},
		{"2001:db8::1", 0, NULL, "for=\"[2001:db8::1]\";proto=http"},
		{"2001:db8::1", 65535, NULL, "for=\"[2001:db8::1]:65535\";proto=http"},
		{"@", 0, "a\"b", "for=unknown;proto=http"}, {NULL, 0, NULL, "for=unknown;proto=http"},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct head *head = request();
		head_add(head, "x-forwarded-for", "1.2.3.4");
		head->authority = cases[i].authority;
		fields_forward(head, &config, "h1", true, cases[i].source, cases[i].port);
		assert_string_equal(head_get(head, "forwarded"), cases[i].value);
		assert_string_equal(head_get(head, "x-forwarded-for"), "1.2.3.4");
		head_free(head);
	}
	struct head *head = request();
	fields_forward(head, &config, "h2", false, "192.0.2.1", 0);
	assert_null(head_get(head, "forwarded"));
	head_free(head);
}

static void examined(void **state)
{
	(void)state;
	struct head *head = request();
	struct ipc_pair pairs[4];
	head_add(head, "token", "a");
	head_add(head, "other", "z");
	head_add(head, "token", "b");
	head_add(head, "cookie", "c");
	assert_int_equal(fields_examined(head, &config, pairs, 4), 2);
	assert_string_equal(pairs[0].name, "cookie");
	assert_string_equal(pairs[0].value, "c");
	assert_string_equal(pairs[1].name, "token");
	assert_string_equal(pairs[1].value, "a, b");
	assert_int_equal(head->n, 4);
	/* too many: told, and no more written than there is room for */
	pairs[1].name = "mine";
	assert_true(fields_examined(head, &config, pairs, 1) > 1);
	assert_string_equal(pairs[1].name, "mine");
	struct config everything = config;
	everything.examines.all_headers = true;
	assert_int_equal(fields_examined(head, &everything, pairs, 4), 3);
	assert_string_equal(pairs[0].name, "token");
	assert_string_equal(pairs[0].value, "a, b");
	assert_string_equal(pairs[2].name, "cookie");
	head_free(head);
}

static void applied(void **state)
{
	(void)state;
	struct config_pair set[] = {{T("x"), T("2")}, {T("y"), T("1")}};
	char *remove[] = {T("gone")};
	struct head *head = request();
	head_add(head, "x", "1");
	head_add(head, "gone", "1");
	fields_apply(head, &(struct config_pairs){set, 2}, &(struct config_strs){remove, 1});
	assert_int_equal(head->n, 2);
	assert_string_equal(head_get(head, "x"), "2");
	fields_apply(head, NULL, NULL);
	struct ipc_pair pair = {"y", "3"};
	fields_apply_pairs(head, &pair, 1);
	assert_string_equal(head_get(head, "y"), "3");
	head_free(head);
}

static void proxy_status(void **state)
{
	(void)state;
	struct head *head = head_new();
	fields_proxy_status(head, "alice", FLOW_DNS, "no \"such\" \\name\n\xc3", NULL);
	fields_proxy_status(head, "1st node", FLOW_NONE, NULL, "192.0.2.1:80");
	assert_string_equal(head->fields[0].value,
	                    "alice; error=dns_error; details=\"no \\\"such\\\" \\\\name??\"");
	assert_string_equal(head->fields[1].value, "\"1st node\"; next-hop=\"192.0.2.1:80\"");
	char detail[5000];
	memset(detail, '"', sizeof(detail) - 1);
	detail[sizeof(detail) - 1] = '\0';
	fields_proxy_status(head, detail, FLOW_DNS, detail, detail);
	const char *value = head->fields[2].value;
	assert_true(strlen(value) < 1500);
	assert_int_equal(value[strlen(value) - 1], '"');
	head_free(head);
}

static void error_responses(void **state)
{
	(void)state;
	char body[64];
	struct head *head = fields_error_response(FLOW_CONNECT_REFUSED, 0, "alice", "10.0.0.1:80: refused", true, body, sizeof(body));
	assert_int_equal(head->status, 502);
	assert_string_equal(body, "hermes: connection_refused: 10.0.0.1:80: refused\n");
	assert_int_equal(head->content_length, strlen(body));
	assert_string_equal(head_get(head, "proxy-status"), "alice; error=connection_refused; details=\"10.0.0.1:80: refused\"");
	head_free(head);
	head = fields_error_response(FLOW_DENIED, 407, "alice", NULL, false, body, sizeof(body));
	assert_int_equal(head->status, 407);
	assert_int_equal(head->content_length, 0);
	assert_string_equal(body, "");
	head_free(head);
	char detail[500];
	memset(detail, 'x', sizeof(detail) - 1);
	detail[sizeof(detail) - 1] = '\0';
	head = fields_error_response(FLOW_DNS, 0, "alice", detail, true, body, sizeof(body));
	assert_int_equal(head->content_length, strlen(body));
	assert_true(strlen(body) < sizeof(body));
	head_free(head);
	for (int e = 0; e < FLOW_ERROR_COUNT; e++)
		assert_non_null(fields_error_token((enum flow_error)e));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(cleans_at_program_listeners), cmocka_unit_test(cleans_at_overlay_listeners), cmocka_unit_test(hops),
		cmocka_unit_test(forwarded), cmocka_unit_test(examined), cmocka_unit_test(applied),
		cmocka_unit_test(proxy_status), cmocka_unit_test(error_responses),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

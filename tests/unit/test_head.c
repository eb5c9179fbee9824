#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "workers/tunnel/head.h"

static void adds_and_finds(void **state)
{
	(void)state;
	struct head *head = head_new();
	assert_int_equal(head->content_length, -1);
	head_add(head, "X-One", "a");
	head_add(head, "x-one", "b");
	head_add(head, "x-two", "");
	assert_string_equal(head_get(head, "x-one"), "a");
	assert_string_equal(head_get(head, "x-two"), "");
	assert_null(head_get(head, "x-on"));
	assert_string_equal(head->fields[0].name, "x-one");
	assert_int_equal(head->bytes, 5 + 1 + 5 + 1 + 5);
	head_set(head, "x-one", "c");
	assert_int_equal(head->n, 2);
	assert_string_equal(head_get(head, "x-one"), "c");
	assert_int_equal(head_remove(head, "x-none"), 0);
	assert_int_equal(head_remove(head, "x-one"), 1);
	assert_int_equal(head->bytes, 5);
	head_free(head);
}

static void content_length_follows_its_field(void **state)
{
	(void)state;
	struct head *head = head_new();
	head_add(head, "Content-Length", "42");
	assert_int_equal(head->content_length, 42);
	head_set(head, "content-length", "7");
	assert_int_equal(head->content_length, 7);
	head_remove(head, "content-length");
	assert_int_equal(head->content_length, -1);
	head_add(head, "content-length", "-7");
	assert_int_equal(head->content_length, -1);
	head_free(head);
}

static void grows_and_clones(void **state)
{
	(void)state;
	struct head *head = head_new();
	char name[16], large[9000];
	memset(large, 'v', sizeof(large) - 1);
	large[sizeof(large) - 1] = '\0';
	for (int i = 0; i < 300; i++) {
		snprintf(name, sizeof(name), "name-%d", i);
		head_add(head, name, i == 150 ? large : name);
	}
	head->method = "PUT";
	head->authority = head_string(head, "host:80xxx", 7);
	struct head *copy = head_clone(head);
	assert_int_equal(copy->bytes, head->bytes);
	head_free(head);
	assert_int_equal(copy->n, 300);
	assert_string_equal(head_get(copy, "name-299"), "name-299");
	assert_string_equal(head_get(copy, "name-150"), large);
	assert_string_equal(copy->authority, "host:80");
	assert_null(copy->path);
	head_free(copy);
	head_free(NULL);
}

static void bodies(void **state)
{
	(void)state;
	assert_true(head_no_body("HEAD", 200));
	assert_true(head_no_body("GET", 204));
	assert_true(head_no_body("GET", 304));
	assert_true(head_no_body("GET", 103));
	assert_true(head_no_body("CONNECT", 200));
	assert_false(head_no_body("CONNECT", 403));
	assert_false(head_no_body("GET", 200));
	assert_false(head_no_body(NULL, 404));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(adds_and_finds), cmocka_unit_test(content_length_follows_its_field),
		cmocka_unit_test(grows_and_clones), cmocka_unit_test(bodies),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* What several workers say of the same things, by name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

#include "supervisor/control_internal.h"

static void merged(const char *list, const char *expected)
{
	char *text = merge_by_name(list);
	if (!expected)
		assert_null(text);
	else
		assert_string_equal(text, expected);
	free(text);
}

static void merges(void **state)
{
	(void)state;
	merged("[]", "[]");
	merged("[{\"name\":\"a\",\"x\":1}]", "[{\"name\":\"a\",\"x\":1}]");
	merged("[{\"name\":\"a\",\"x\":1},{\"name\":\"b\"},{\"name\":\"a\",\"x\":2,\"y\":[3]}]",
	       "[{\"name\":\"a\",\"x\":1,\"y\":[3]},{\"name\":\"b\"}]");
}

static void takes_what_is_no_list(void **state)
{
	(void)state;
	merged("", NULL);
	merged("{\"name\":\"a\"}", NULL);
	merged("[{\"name\":\"a\"}", NULL);
	merged("[1,null,{},{\"name\":1},\"a\",{\"name\":\"a\"}]", "[{\"name\":\"a\"}]");
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(merges), cmocka_unit_test(takes_what_is_no_list)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* hermes.yaml(5) names every key, its preset and what it says. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/memfd.h"
#include "store/config_schema.h"

/* As roff wants it. */
static void escape(const char *text, char *out)
{
	for (; text && *text; text++) {
		if (*text == '-' || *text == '\\')
			*out++ = '\\';
		*out++ = *text;
	}
	*out = '\0';
}

static void check_object(const char *page, const struct config_object *object, unsigned depth)
{
	char key[128], doc[1024], preset[128];

	assert_true(depth < 16);
	assert_true(object->n_fields <= 64);        /* the parser's set of seen keys */
	for (unsigned i = 0; i < object->n_fields; i++) {
		const struct config_field *f = &object->fields[i];
		if (f->object && f->object != &config_match_object)
			check_object(page, f->object, depth + 1);
		if (!f->key)
			continue;
		assert_non_null(f->doc);
		snprintf(key, sizeof(key), "\n.BR %s \" (", f->key);
		escape(f->doc, doc);
		escape(f->preset, preset);
		const char *at = page;
		for (at = strstr(at, key); at; at = strstr(at + 1, key)) {
			const char *text = strstr(at, ")\"\n");
			if (text && !strncmp(text + 3, doc, strlen(doc)) && text[3 + strlen(doc)] == '\n' &&
			    (!f->preset || memmem(at, (size_t)(text - at), preset, strlen(preset))))
				break;
		}
		if (!at)
			fail_msg("%s: %s is not in hermes.yaml(5) as in the schema: %s", object->name, f->key, f->doc);
	}
}

static void test_man_page(void **state)
{
	FILE *f = fopen("packaging/man/hermes.yaml.5", "r");
	char *page;
	size_t length;

	(void)state;
	if (!f)
		fail_msg("packaging/man/hermes.yaml.5: run from the top of the tree");
	assert_int_equal(fd_read_all(fileno(f), 1 << 20, &page, &length), 0);
	fclose(f);
	check_object(page, &config_document, 0);
	check_object(page, &config_match_object, 0);
	free(page);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_man_page)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* A domain's document becomes each node's configuration. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "store/config_arena.h"
#include "workers/controller/compose.h"
#include "workers/controller/kv.h"
#include "workers/controller/tree.h"

void kv_each(struct kv *kv, const char *prefix, bool (*visit)(void *arg, const struct kv_value *value), void *arg)
{
	(void)kv, (void)prefix, (void)visit, (void)arg;
}

static struct config_report report;

static struct document *parse(const char *text)
{
	struct document *d = document_parse("d", text, strlen(text), NULL, &report);

	for (size_t i = 0; !d && i < report.n_errors; i++)
		fprintf(stderr, "%s\n", report.errors[i]);
	assert_non_null(d);
	return d;
}

static char *file(const char *name)
{
	FILE *f = fopen(name, "r");
	char *text = calloc(1, 65536);

	assert_non_null(f);
	assert_true(fread(text, 1, 65535, f) > 0);
	fclose(f);
	return text;
}

static char *compose(const struct document *d, const char *node, const struct compose_inputs *in)
{
	struct compose *c = compose_new(d, in, &report);
	char *text = c ? compose_node(c, (size_t)document_node(d, node), &report) : NULL;

	for (size_t i = 0; !text && i < report.n_errors; i++)
		fprintf(stderr, "%s\n", report.errors[i]);
	assert_non_null(text);
	compose_free(c);
	return text;
}

static void test_example(void **state)
{
	char *text = file("packaging/examples/domain.yaml");
	struct document *d = parse(text);
	struct compose_inputs in = {0};
	(void)state;

	for (size_t i = 0; i < d->n_nodes; i++) {
		char *t = compose(d, d->nodes[i].name, &in);
		printf("--- %s\n%s", d->nodes[i].name, t);
		free(t);
	}
	document_free(d);
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_example),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "workers/tunnel/slab.h"

static void fill(struct chunks *q, const char *text)
{
	chunks_copy(q, text, strlen(text));
}

static char *text_of(const struct chunks *q)
{
	char *out = calloc(1, q->bytes + 1), *at = out;
	for (const struct chunk *c = q->head; c; c = c->next, at += 0)
		memcpy(at, c->data, c->length), at += c->length;
	return out;
}

static void expect(const struct chunks *q, const char *text)
{
	char *is = text_of(q);
	assert_string_equal(is, text);
	assert_int_equal(q->bytes, strlen(text));
	free(is);
}

static void queues_keep_order_and_count(void **state)
{
	(void)state;
	struct chunks a = {0}, b = {0};
	fill(&a, "one ");
	fill(&a, "two ");
	fill(&b, "three");
	chunks_move(&a, &b);
	expect(&a, "one two three");
	expect(&b, "");
	chunks_split(&b, &a, 6);
	expect(&b, "one tw");
	expect(&a, "o three");
	chunks_drop(&a, 2);
	expect(&a, "three");
	chunks_prepend(&a, chunks_pop(&b));
	expect(&a, "one three");
	chunks_clear(&a);
	chunks_clear(&b);
	expect(&a, "");
}

static void headroom_belongs_to_one_chunk_only(void **state)
{
	(void)state;
	struct chunks a = {0}, b = {0}, c = {0};
	fill(&a, "0123456789");
	assert_int_equal(a.head->headroom, STRIPE_HEADROOM);
	chunks_split(&b, &a, 4);
	assert_int_equal(b.head->headroom, STRIPE_HEADROOM);
	assert_int_equal(a.head->headroom, 0);   /* before it lies the other chunk's payload */
	chunks_share(&c, &b);
	assert_int_equal(b.head->headroom, 0);
	assert_int_equal(c.head->headroom, 0);
	chunks_clear(&a), chunks_clear(&b), chunks_clear(&c);
}

static void large_copies_become_stripes(void **state)
{
	(void)state;
	size_t length = 3 * STRIPE_PAYLOAD + 17;
	uint8_t *data = malloc(length);
	for (size_t i = 0; i < length; i++)
		data[i] = (uint8_t)(i * 31);
	struct chunks a = {0};
	chunks_copy(&a, data, length);
	assert_int_equal(a.bytes, length);
	size_t n = 0, at = 0;
	for (struct chunk *c = a.head; c; c = c->next, n++) {
		assert_true(c->length <= STRIPE_PAYLOAD);
		assert_memory_equal(c->data, data + at, c->length);
		at += c->length;
	}
	assert_int_equal(n, 4);
	chunks_clear(&a);
	free(data);
}

static void a_flow_that_keeps_up_uses_one_slab(void **state)
{
	(void)state;
	struct slab *first = slab_current(SLAB_SIZE);
	uint64_t before = slab_in_use();
	for (int i = 0; i < 1000; i++) {
		struct chunks a = {0};
		struct slab *slab = slab_current(SLAB_SIZE);
		assert_ptr_equal(slab, first);
		chunks_append(&a, chunk_new(slab, slab->data, 100, 0));
		slab->used = SLAB_SIZE;
		chunks_clear(&a);
	}
	assert_int_equal(slab_in_use(), before);
}

static void what_waits_does_not_pin_slabs(void **state)
{
	(void)state;
	struct chunks held[64] = {{0}};
	slab_budget(4 * SLAB_SIZE);
	uint64_t before = slab_in_use();
	for (size_t i = 0; i < 64; i++) {
		struct slab *slab = slab_current(SLAB_SIZE);
		memset(slab->data, 'x', 10);
		chunks_append(&held[i], chunk_new(slab, slab->data, 10, 0));
		slab->used = SLAB_SIZE;
		chunks_settle(&held[i]);
		expect(&held[i], "xxxxxxxxxx");
	}
	assert_true(slab_in_use() - before < 3 * SLAB_SIZE);
	assert_false(slab_spent());
	for (size_t i = 0; i < 64; i++)
		chunks_clear(&held[i]);
}

static void the_budget_tells_when_it_is_spent(void **state)
{
	(void)state;
	struct slab *taken[8];
	slab_budget(4 * SLAB_SIZE);
	for (size_t i = 0; i < 8; i++)
		taken[i] = slab_get();
	struct chunks pin = {0};
	struct slab *current = slab_current(16);
	chunks_append(&pin, chunk_new(current, current->data, 1, 0));
	assert_true(slab_spent());
	for (size_t i = 0; i < 8; i++)
		slab_unref(taken[i]);
	assert_false(slab_spent());
	chunks_clear(&pin);
}

/* However many take nothing, the budget is never spent: what one may hold shrinks with what is left. */
static void the_allowance_shrinks(void **state)
{
	(void)state;
	struct slab *held[64];
	unsigned n = 0;
	slab_budget(16u << 20);       /* 64 slabs: an even share is one */
	size_t before = slab_allowance();
	assert_in_range(before, SLAB_SIZE / 2, SLAB_SIZE);
	while (n < 48) {
		held[n++] = slab_get();
		assert_true(slab_allowance() < before);
		before = slab_allowance();
	}
	assert_in_range(before, 1, SLAB_SIZE / 3);
	while (n < 64)
		held[n++] = slab_get();
	assert_int_equal(slab_allowance() / 8192, 0);
	while (n > 0)
		slab_unref(held[--n]);
	slab_budget(256u << 20);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(queues_keep_order_and_count),
		cmocka_unit_test(headroom_belongs_to_one_chunk_only),
		cmocka_unit_test(large_copies_become_stripes),
		cmocka_unit_test(a_flow_that_keeps_up_uses_one_slab),
		cmocka_unit_test(what_waits_does_not_pin_slabs),
		cmocka_unit_test(the_budget_tells_when_it_is_spent),
		cmocka_unit_test(the_allowance_shrinks),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}

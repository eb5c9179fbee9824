/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/policy/answers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

struct kept {
	UT_hash_handle hh;         /* uthash keeps the order of insertion */
	struct opa_result result;
	uint64_t until;
	char key[];
};

struct answers {
	struct kept *items;
};

struct answers *answers_new(void)
{
	return calloc(1, sizeof(struct answers));
}

static void drop(struct answers *answers, struct kept *item)
{
	HASH_DEL(answers->items, item);
	opa_result_clear(&item->result);
	free(item);
}

void answers_free(struct answers *answers)
{
	if (!answers)
		return;
	while (answers->items)
		drop(answers, answers->items);
	free(answers);
}

char *answers_key(const char *address, const char *path, const char *body)
{
	size_t size = strlen(address) + strlen(path) + strlen(body) + 3;
	char *key = malloc(size);

	if (key)
		snprintf(key, size, "%s %s %s", address, path, body);
	return key;
}

const struct opa_result *answers_get(struct answers *answers, const char *key, uint64_t now, uint32_t *left_ms)
{
	struct kept *item;

	HASH_FIND_STR(answers->items, key, item);
	if (!item)
		return NULL;
	if (item->until <= now) {
		drop(answers, item);
		return NULL;
	}
	*left_ms = (uint32_t)(item->until - now);
	return &item->result;
}

void answers_put(struct answers *answers, const char *key, const struct opa_result *result, uint64_t now,
                 uint32_t valid_ms)
{
	size_t length = strlen(key);
	struct kept *item;

	HASH_FIND_STR(answers->items, key, item);
	if (item)
		drop(answers, item);
	if (HASH_COUNT(answers->items) >= ANSWERS_MAX)
		drop(answers, answers->items);
	item = calloc(1, sizeof(*item) + length + 1);
	if (!item)
		return;
	memcpy(item->key, key, length);
	item->until = now + valid_ms;
	if (opa_result_copy(result, &item->result) < 0) {
		free(item);
		return;
	}
	HASH_ADD_KEYPTR(hh, answers->items, item->key, length, item);
	if (!item->hh.tbl) {
		opa_result_clear(&item->result);
		free(item);
	}
}

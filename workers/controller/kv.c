/* SPDX-License-Identifier: Apache-2.0 */
/* The part of the store that lies in memory: the same for every kind behind it. */
#include "workers/controller/kv_internal.h"

#include <errno.h>
#include <event2/event.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

uint64_t kv_now(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* Makes room for n more elements of an array. */
static int grow(void *array, size_t *size, size_t used, size_t n, size_t element)
{
	void **at = array;
	if (used + n <= *size)
		return 0;
	size_t wanted = (used + n) * 2 + 16;
	void *larger = reallocarray(*at, wanted, element);
	if (!larger)
		return -ENOMEM;
	*at = larger;
	*size = wanted;
	return 0;
}

/* --- entries ------------------------------------------------------------------------------------------------------- */

/* The first entry whose key is not below `key`. */
static size_t lower_bound(const struct kv *kv, const char *key)
{
	size_t low = 0, high = kv->n_entries;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (strcmp(kv->entries[middle]->key, key) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static bool is_at(const struct kv *kv, size_t i, const char *key)
{
	return i < kv->n_entries && !strcmp(kv->entries[i]->key, key);
}

/* What was there before may be in somebody's hands until the event loop goes on. */
static void bury(struct kv *kv, char *key, json_t *json)
{
	if (grow(&kv->dead, &kv->dead_size, kv->n_dead, 1, sizeof(*kv->dead)))
		return;           /* rather lost than used when freed */
	kv->dead[kv->n_dead++] = (struct kv_entry){.key = key, .json = json};
	event_active(kv->later, EV_TIMEOUT, 0);
}

/* What is loaded at the start is no change. */
static void note_change(struct kv *kv, const char *key)
{
	char *copy = kv->ready ? strdup(key) : NULL;
	if (!copy || grow(&kv->changes, &kv->changes_size, kv->n_changes, 1, sizeof(*kv->changes))) {
		free(copy);
		return;
	}
	kv->changes[kv->n_changes++] = copy;
	event_active(kv->later, EV_TIMEOUT, 0);
}

int kv_reserve(struct kv *kv, size_t n)
{
	return grow(&kv->entries, &kv->entries_size, kv->n_entries, n, sizeof(*kv->entries));
}

static struct kv_entry *insert(struct kv *kv, size_t i, const char *key)
{
	struct kv_entry *entry = calloc(1, sizeof(*entry));
	if (!entry || !(entry->key = strdup(key)) || kv_reserve(kv, 1)) {
		if (entry)
			free(entry->key);
		free(entry);
		return NULL;
	}
	memmove(kv->entries + i + 1, kv->entries + i, (kv->n_entries - i) * sizeof(*kv->entries));
	kv->n_entries++;
	return kv->entries[i] = entry;
}

bool kv_apply_put(struct kv *kv, const char *key, json_t *json, uint64_t revision, uint64_t expires)
{
	size_t i = lower_bound(kv, key);
	struct kv_entry *entry = is_at(kv, i, key) ? kv->entries[i] : insert(kv, i, key);
	if (!entry) {
		json_decref(json);
		return false;
	}
	if (entry->json)
		bury(kv, NULL, entry->json);
	entry->json = json;
	entry->revision = revision;
	entry->expires = expires;
	note_change(kv, key);
	return true;
}

void kv_apply_delete(struct kv *kv, const char *key)
{
	size_t i = lower_bound(kv, key);
	if (!is_at(kv, i, key))
		return;
	struct kv_entry *entry = kv->entries[i];
	kv->n_entries--;
	memmove(kv->entries + i, kv->entries + i + 1, (kv->n_entries - i) * sizeof(*kv->entries));
	note_change(kv, entry->key);
	bury(kv, entry->key, entry->json);
	free(entry);
}

struct kv_value kv_get(struct kv *kv, const char *key)
{
	size_t i = lower_bound(kv, key);
	if (!is_at(kv, i, key))
		return (struct kv_value){.key = key};
	const struct kv_entry *entry = kv->entries[i];
	return (struct kv_value){.key = entry->key, .json = entry->json, .revision = entry->revision};
}

/* visit may write: the place is looked for anew where the table has moved. */
void kv_each(struct kv *kv, const char *prefix, bool (*visit)(void *arg, const struct kv_value *value), void *arg)
{
	size_t length = strlen(prefix);
	for (size_t i = lower_bound(kv, prefix); i < kv->n_entries && !strncmp(kv->entries[i]->key, prefix, length);) {
		struct kv_entry *entry = kv->entries[i];
		struct kv_value value = {.key = entry->key, .json = entry->json, .revision = entry->revision};
		if (!visit(arg, &value))
			return;
		if (i >= kv->n_entries || kv->entries[i] != entry)
			i = lower_bound(kv, value.key);
		i += is_at(kv, i, value.key);
	}
}

static bool count_one(void *arg, const struct kv_value *value)
{
	(void)value;
	++*(size_t *)arg;
	return true;
}

size_t kv_count(struct kv *kv, const char *prefix)
{
	size_t n = 0;
	kv_each(kv, prefix, count_one, &n);
	return n;
}

/* --- watchers ------------------------------------------------------------------------------------------------------ */

void kv_watch(struct kv *kv, const char *prefix, void (*changed)(void *arg, const struct kv_value *value), void *arg)
{
	struct kv_watcher *larger = reallocarray(kv->watchers, kv->n_watchers + 1, sizeof(*larger));
	char *copy = strdup(prefix);
	if (larger)
		kv->watchers = larger;
	if (!larger || !copy)
		abort();          /* at start only */
	kv->watchers[kv->n_watchers++] = (struct kv_watcher){.prefix = copy, .changed = changed, .arg = arg};
}

static void tell_watchers(struct kv *kv, const char *key)
{
	for (size_t i = 0; i < kv->n_watchers; i++) {
		const struct kv_watcher *w = &kv->watchers[i];
		struct kv_value value = kv_get(kv, key);
		if (!strncmp(key, w->prefix, strlen(w->prefix)))
			w->changed(w->arg, &value);
	}
}

static void free_dead(struct kv_entry *dead, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		free(dead[i].key);
		json_decref(dead[i].json);
	}
	free(dead);
}

/* Watchers may write, which makes new changes and new dead values: those are for the next turn. */
static void on_later(evutil_socket_t fd, short what, void *arg)
{
	struct kv *kv = arg;
	struct kv_entry *dead = kv->dead;
	char **changes = kv->changes;
	size_t n_dead = kv->n_dead, n_changes = kv->n_changes;
	bool tell_state = kv->tell_state;
	(void)fd, (void)what;
	kv->dead = NULL;
	kv->changes = NULL;
	kv->n_dead = kv->dead_size = kv->n_changes = kv->changes_size = 0;
	kv->tell_state = false;
	for (size_t i = 0; i < n_changes; i++) {
		tell_watchers(kv, changes[i]);
		free(changes[i]);
	}
	free(changes);
	if (tell_state && kv->state_changed)
		kv->state_changed(kv->state_arg);
	free_dead(dead, n_dead);
}

void kv_tell_state(struct kv *kv)
{
	kv->tell_state = true;
	event_active(kv->later, EV_TIMEOUT, 0);
}

/* --- transactions -------------------------------------------------------------------------------------------------- */

struct kv_txn *kv_txn_new(struct kv *kv)
{
	struct kv_txn *txn = calloc(1, sizeof(*txn));
	if (!txn)
		abort();          /* of all things that could be told, none would be */
	txn->kv = kv;
	return txn;
}

static char *checked_key(struct kv_txn *txn, const char *key)
{
	size_t length = strlen(key);
	char *copy = length && length <= KV_KEY_MAX ? strdup(key) : NULL;
	if (!copy && !txn->error)
		txn->error = length && length <= KV_KEY_MAX ? -ENOMEM : -EINVAL;
	return copy;
}

void kv_txn_if(struct kv_txn *txn, const char *key, uint64_t revision)
{
	char *copy = checked_key(txn, key);
	if (!copy)
		return;
	if (grow(&txn->conditions, &txn->conditions_size, txn->n_conditions, 1, sizeof(*txn->conditions))) {
		txn->error = txn->error ? txn->error : -ENOMEM;
		free(copy);
		return;
	}
	txn->conditions[txn->n_conditions++] = (struct kv_condition){.key = copy, .revision = revision};
}

/* The last word on a key counts: a store may refuse two. */
static void add_op(struct kv_txn *txn, const char *key, json_t *json, bool temporary)
{
	for (size_t i = 0; i < txn->n_ops; i++)
		if (!strcmp(txn->ops[i].key, key)) {
			json_decref(txn->ops[i].json);
			txn->ops[i].json = json;
			txn->ops[i].temporary = temporary;
			return;
		}
	char *copy = checked_key(txn, key);
	if (copy && !grow(&txn->ops, &txn->ops_size, txn->n_ops, 1, sizeof(*txn->ops))) {
		txn->ops[txn->n_ops++] = (struct kv_op){.key = copy, .json = json, .temporary = temporary};
		return;
	}
	txn->error = txn->error ? txn->error : -ENOMEM;
	free(copy);
	json_decref(json);
}

void kv_txn_put(struct kv_txn *txn, const char *key, json_t *json, bool temporary)
{
	if (json)
		add_op(txn, key, json, temporary);
	else if (!txn->error)
		txn->error = -ENOMEM;     /* that is what making it failed of */
}

void kv_txn_delete(struct kv_txn *txn, const char *key)
{
	add_op(txn, key, NULL, false);
}

void kv_txn_free(struct kv_txn *txn)
{
	for (size_t i = 0; i < txn->n_ops; i++) {
		free(txn->ops[i].key);
		json_decref(txn->ops[i].json);
	}
	for (size_t i = 0; i < txn->n_conditions; i++)
		free(txn->conditions[i].key);
	free(txn->ops);
	free(txn->conditions);
	free(txn);
}

bool kv_txn_holds(const struct kv_txn *txn)
{
	for (size_t i = 0; i < txn->n_conditions; i++)
		if (kv_get(txn->kv, txn->conditions[i].key).revision != txn->conditions[i].revision)
			return false;
	return true;
}

void kv_commit(struct kv_txn *txn, kv_done *done, void *arg)
{
	struct kv *kv = txn->kv;
	int error = txn->error;
	if (!error && txn->n_ops > KV_TXN_MAX)
		error = -E2BIG;
	if (!error) {
		kv->kind->commit(kv, txn, done, arg);
		return;
	}
	kv_txn_free(txn);
	if (done)
		done(arg, error);
}

/* --- life ---------------------------------------------------------------------------------------------------------- */

int kv_init(struct kv *kv, const struct kv_kind *kind, struct event_base *base, kv_state *changed, void *arg)
{
	kv->kind = kind;
	kv->base = base;
	kv->state_changed = changed;
	kv->state_arg = arg;
	kv->later = event_new(base, -1, 0, on_later, kv);
	return kv->later ? 0 : -ENOMEM;
}

void kv_fini(struct kv *kv)
{
	for (size_t i = 0; i < kv->n_entries; i++) {
		free(kv->entries[i]->key);
		json_decref(kv->entries[i]->json);
		free(kv->entries[i]);
	}
	for (size_t i = 0; i < kv->n_watchers; i++)
		free(kv->watchers[i].prefix);
	for (size_t i = 0; i < kv->n_changes; i++)
		free(kv->changes[i]);
	free_dead(kv->dead, kv->n_dead);
	free(kv->changes);
	free(kv->watchers);
	free(kv->entries);
	if (kv->later)
		event_free(kv->later);
}

bool kv_ready(const struct kv *kv)
{
	return kv && kv->ready;
}

bool kv_leads(const struct kv *kv)
{
	return kv && kv->kind->leads(kv);
}

void kv_free(struct kv *kv)
{
	if (kv)
		kv->kind->free(kv);
}

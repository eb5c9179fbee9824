/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/config-sync/control_memory.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define NOTE_MAX 512

static uint64_t load_number(struct store *store, const char *name)
{
	char text[NOTE_MAX];
	uint64_t n = 0;

	if (store_note(store, name, text, sizeof(text)) || sscanf(text, "%" SCNu64, &n) != 1)
		return 0;
	return n;
}

static int save_number(struct store *store, const char *name, uint64_t number)
{
	char text[32];

	snprintf(text, sizeof(text), "%" PRIu64, number);
	return store_set_note(store, name, text);
}

/* "NUMBER STATE_WITH_A_DASH error ..." */
static void load_refused(struct store *store, struct control_memory *m)
{
	char text[NOTE_MAX], state[16] = "";
	int at = 0;

	if (store_note(store, "control-refused", text, sizeof(text)) ||
	    sscanf(text, "%" SCNu64 " %15s %n", &m->refused, state, &at) != 2) {
		m->refused = 0;
		return;
	}
	snprintf(m->refused_state, sizeof(m->refused_state), "%s", strcmp(state, "rejected") ? "rolled back" : "rejected");
	snprintf(m->refused_error, sizeof(m->refused_error), "%s", at ? text + at : "");
}

static void load_known(struct store *store, struct control_memory *m)
{
	char text[NOTE_MAX];
	const char *p = text;
	int n = 0;

	if (store_note(store, "control-known", text, sizeof(text)))
		return;
	for (unsigned i = 0; i < MEMORY_KNOWN; i++, p += n) {
		struct control_known *k = &m->known[i];
		if (sscanf(p, "%" SCNu64 " %" SCNu64 " %64s %n", &k->number, &k->version, k->digest, &n) != 3) {
			memset(k, 0, sizeof(*k));
			return;
		}
	}
}

void control_memory_load(struct store *store, struct control_memory *m)
{
	memset(m, 0, sizeof(*m));
	m->last = load_number(store, "control-last");
	m->armed = load_number(store, "control-armed");
	load_refused(store, m);
	load_known(store, m);
	if (m->refused > m->last)             /* ended between the two notes */
		m->last = m->refused;
}

int control_memory_last(struct store *store, struct control_memory *m, uint64_t last)
{
	if (last <= m->last)
		return 0;
	m->last = last;
	return save_number(store, "control-last", last);
}

int control_memory_arm(struct store *store, struct control_memory *m, uint64_t version)
{
	if (m->armed == version)
		return 0;
	m->armed = version;
	return save_number(store, "control-armed", version);
}

int control_memory_refuse(struct store *store, struct control_memory *m, uint64_t number, const char *state, const char *error)
{
	char text[NOTE_MAX] = "";

	m->refused = state ? number : 0;
	snprintf(m->refused_state, sizeof(m->refused_state), "%s", state ? state : "");
	snprintf(m->refused_error, sizeof(m->refused_error), "%s", error ? error : "");
	if (state)
		snprintf(text, sizeof(text), "%" PRIu64 " %s %s", number, strcmp(state, "rejected") ? "rolled-back" : state,
		         m->refused_error);
	int result = store_set_note(store, "control-refused", text);
	int last = state ? control_memory_last(store, m, number) : 0;
	return result ? result : last;
}

int control_memory_know(struct store *store, struct control_memory *m, uint64_t number, uint64_t version, const char *digest)
{
	char text[NOTE_MAX];
	size_t used = 0;

	if (m->known[0].number == number && !strcmp(m->known[0].digest, digest))
		return 0;
	memmove(&m->known[1], &m->known[0], sizeof(m->known[0]) * (MEMORY_KNOWN - 1));
	m->known[0] = (struct control_known){.number = number, .version = version};
	snprintf(m->known[0].digest, sizeof(m->known[0].digest), "%s", digest);
	for (unsigned i = 0; i < MEMORY_KNOWN && m->known[i].number; i++)
		used += (size_t)snprintf(text + used, sizeof(text) - used, "%" PRIu64 " %" PRIu64 " %s ", m->known[i].number,
		                         m->known[i].version, m->known[i].digest);
	return store_set_note(store, "control-known", text);
}

const struct control_known *control_memory_find(const struct control_memory *m, uint64_t number)
{
	for (unsigned i = 0; number && i < MEMORY_KNOWN; i++)
		if (m->known[i].number == number)
			return &m->known[i];
	return NULL;
}

#include "supervisor/drains.h"
#include "supervisor/state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define DRAINS_MAX 4096

struct drain {
	char *cluster, *endpoint;
	LIST_ENTRY(drain) link;
};

struct drains {
	LIST_HEAD(, drain) list;
	unsigned count;
};

struct drains *drains_new(void)
{
	return calloc(1, sizeof(struct drains));
}

static void drop(struct drains *d, struct drain *x)
{
	LIST_REMOVE(x, link);
	d->count--;
	free(x->cluster);
	free(x->endpoint);
	free(x);
}

void drains_free(struct drains *d)
{
	if (!d)
		return;
	for (struct drain *x; (x = LIST_FIRST(&d->list));)
		drop(d, x);
	free(d);
}

static void add(struct drains *d, const char *cluster, const char *endpoint)
{
	struct drain *x = d->count < DRAINS_MAX ? calloc(1, sizeof(*x)) : NULL;
	if (!x)
		return;
	x->cluster = strdup(cluster);
	x->endpoint = strdup(endpoint);
	LIST_INSERT_HEAD(&d->list, x, link);
	d->count++;
	if (!x->cluster || !x->endpoint)
		drop(d, x);
}

void drains_note(struct drains *d, const char *cluster, const char *endpoint, bool drained)
{
	struct drain *x;
	LIST_FOREACH(x, &d->list, link)
		if (strcmp(x->cluster, cluster) == 0 && strcmp(x->endpoint, endpoint) == 0)
			break;
	if (x && !drained)
		drop(d, x);
	else if (!x && drained)
		add(d, cluster, endpoint);
}

/* Its answers are nobody's. What the configuration does not have any more, it refuses. */
void drains_send(const struct drains *d, struct child *router)
{
	const struct drain *x;
	LIST_FOREACH(x, &d->list, link) {
		const char *words[] = {x->cluster, x->endpoint};
		struct ipc_admin_request m = {.id = UINT64_MAX, .verb = "clusters drain", .args = {words, 2}};
		child_send(router, IPC_MSG_ADMIN_REQUEST, &m, -1);
	}
}

int drains_save(const struct drains *d, struct state *state)
{
	const struct drain *x;
	LIST_FOREACH(x, &d->list, link) {
		struct state_drain *to = STATE_ADD(state, drains);
		if (!to)
			return -ENOMEM;
		*to = (struct state_drain){.cluster = x->cluster, .endpoint = x->endpoint};
	}
	return 0;
}

void drains_adopt(struct drains *d, const struct state *state)
{
	for (size_t i = 0; i < state->n_drains; i++)
		add(d, state->drains[i].cluster, state->drains[i].endpoint);
}

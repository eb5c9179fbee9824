/* The workers, for people and programs. */
#include "ipc/json.h"
#include "supervisor/clock.h"
#include "supervisor/pool_internal.h"

static void draining_json(const struct pool *p, const struct slot *slot, struct json *j)
{
	const struct child *c;
	json_array(j, "draining");
	TAILQ_FOREACH(c, &p->children, link)
		if (c->slot == slot && c != slot->child && c != slot->successor)
			json_uint(j, NULL, (uint64_t)c->pid);
	json_end(j);
}

static void slot_json(const struct pool *p, const struct slot *slot, struct json *j)
{
	const struct child *c = slot->child;
	uint64_t now = clock_ms();
	json_object(j, NULL);
	json_str(j, "name", slot->name);
	json_str(j, "role", ipc_role_name(slot->role));
	json_uint(j, "index", slot->index);
	json_str(j, "state", c ? child_state_name(c->state) : "waiting");
	json_uint(j, "pid", c ? (uint64_t)c->pid : 0);
	json_double(j, "uptime_seconds", c ? (double)(now - c->started) / 1000.0 : 0);
	json_uint(j, "generation", c ? c->generation : 0);
	json_uint(j, "restarts", slot->restarts);
	json_uint(j, "rss_bytes", c ? c->rss : 0);
	json_uint(j, "silent_ms", c ? now - c->pong_at : 0);
	json_str(j, "last_end", *slot->last_end ? slot->last_end : NULL);
	json_str(j, "version", c ? child_version(c) : NULL);
	json_uint(j, "successor", slot->successor ? (uint64_t)slot->successor->pid : 0);
	draining_json(p, slot, j);
	json_end(j);
}

void pool_json(struct pool *p, struct json *j, const char *key)
{
	struct slot *slot;
	json_array(j, key);
	TAILQ_FOREACH(slot, &p->slots, link)
		if (!slot->gone)
			slot_json(p, slot, j);
	json_end(j);
}

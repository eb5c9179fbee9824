#include "workers/tunnel/flow_json.h"

#include <string.h>

#include "workers/tunnel/flow_resume.h"

/* As configurations write it. */
static const char *method_of(const struct flow *flow)
{
	if (flow->protocol && strcmp(flow->protocol, "connect-udp") == 0)
		return "CONNECT-UDP";
	return flow->protocol && strcmp(flow->protocol, "connect-ip") == 0 ? "CONNECT-IP" : flow->method;
}

/* What only tunnels have that can go on: how often they did, and what is kept to be sent again. */
static void tunnel(const struct going *going, struct json *j)
{
	json_uint(j, "resumed", going->resumed);
	json_uint(j, "moved", going->moved);
	json_uint(j, "unacknowledged_bytes", going->kept.bytes);
}

static void describe(const struct flow *flow, struct json *j)
{
	json_object(j, NULL);
	json_uint(j, "id", flow->id);
	json_uint(j, "worker", worker_index(flow->tunnel->worker));
	json_str(j, "state", flow_state_name(flow->state));
	json_str(j, "listener", flow->origin->inner ? "worker" : flow->origin->listener->name);
	json_str(j, "carry_in", flow->origin->carry);
	json_str(j, "source", flow->origin->source_text);
	json_str(j, "peer", flow->origin->peer);
	json_str(j, "user", flow->user);
	json_str(j, "method", method_of(flow));
	json_str(j, "protocol", flow->protocol);
	json_str(j, "authority", flow->authority);
	json_str(j, "path", flow->path);
	json_str(j, "route", flow->decision ? flow->decision->route : NULL);
	json_str(j, "cluster", flow->decision ? flow->decision->cluster : NULL);
	json_str(j, "carry_out", flow->out ? flow->out->ops->kind : NULL);
	json_str(j, "next_hop", flow->used.address[0] ? flow->used.address : NULL);
	json_uint(j, "status", flow->status);
	json_uint(j, "bytes_in", flow->up.bytes);
	json_uint(j, "bytes_out", flow->down.bytes);
	json_uint(j, "attempts", flow->attempts);
	json_double(j, "age_seconds", (double)(now_us() - flow->began) / 1e6);
	json_double(j, "idle_seconds", (double)(now_us() - flow->last) / 1e6);
	json_uint(j, "generation", flow->generation->number);
	if (flow->going)
		tunnel(flow->going, j);
	json_end(j);
}

void flows_json(const struct tunnel *tunnel, unsigned limit, struct json *json)
{
	for (const struct flow *flow = tunnel->flows; flow && limit-- > 0; flow = flow->next)
		describe(flow, json);
}

bool flow_json(const struct tunnel *tunnel, uint64_t id, struct json *json)
{
	for (const struct flow *flow = tunnel->flows; flow; flow = flow->next) {
		if (flow->id != id)
			continue;
		describe(flow, json);
		return true;
	}
	return false;
}

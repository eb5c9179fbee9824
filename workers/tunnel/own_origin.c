/* SPDX-License-Identifier: Apache-2.0 */
#include "workers/tunnel/own_origin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "workers/tunnel/listener.h"

struct own_origin {
	struct origin origin;
	struct sockaddr_storage source;
	struct listener listener;     /* inner: the name is the outer one's */
	char *peer, *user, *name;
};

static char *copy(const char *text)
{
	return text ? strdup(text) : NULL;
}

static struct own_origin *make(const struct origin *from, const char *peer)
{
	struct own_origin *own = calloc(1, sizeof(*own));
	if (!own)
		abort();
	own->origin = *from;
	if (from->source)
		own->source = *from->source;
	own->peer = copy(peer);
	own->user = copy(from->proven_user);
	own->origin.source = &own->source;
	own->origin.peer = own->peer;
	own->origin.proven_user = own->user;
	own->origin.peer_rule = NULL;      /* goes with its configuration; who comes back is judged anew */
	return own;
}

static struct own_origin *make_inner(const struct origin *from, const char *listener, const char *peer)
{
	struct own_origin *own = make(from, peer);
	own->name = copy(listener);
	own->listener = *from->listener;
	own->listener.name = own->name;
	own->origin.listener = &own->listener;
	return own;
}

struct own_origin *own_origin_new(const struct origin *from)
{
	if (from->inner)
		return make_inner(from, from->listener->name, from->peer);
	if (!from->hold)
		return NULL;
	from->hold(from->listener, 1);
	return make(from, from->peer);
}

struct own_origin *own_origin_inner(const struct origin *link, const char *listener, const char *source, const char *peer)
{
	struct own_origin *own = make_inner(link, listener, peer);
	snprintf(own->origin.source_text, sizeof(own->origin.source_text), "%s", source);
	return own;
}

void own_origin_free(struct own_origin *own)
{
	if (!own)
		return;
	if (own->origin.hold)
		own->origin.hold(own->origin.listener, -1);
	free(own->peer), free(own->user), free(own->name);
	free(own);
}

const struct origin *own_origin_get(const struct own_origin *own)
{
	return &own->origin;
}

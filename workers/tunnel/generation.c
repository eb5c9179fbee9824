#include "workers/tunnel/generation.h"

#include <assert.h>
#include <stdlib.h>

#include "ipc/endpoints.h"
#include "workers/tunnel/tls.h"

struct generation *generation_ref(struct generation *g)
{
	g->refs++;
	return g;
}

void generation_unref(struct generation *g)
{
	if (!g)
		return;
	assert(g->refs > 0);
	if (--g->refs > 0)
		return;
	if (g->tls)
		tls_free(g->tls);
	if (g->endpoints)
		endpoint_table_free(g->endpoints);
	config_free(g->config);
	free(g);
}

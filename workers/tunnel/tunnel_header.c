#include "workers/tunnel/tunnel_header.h"

#include <string.h>

/* Placeholder of the first hours: only `segments`. */
void tunnel_header_get(const struct head *head, struct tunnel_header *out)
{
	const char *value = head_get(head, TUNNEL_HEADER);
	*out = (struct tunnel_header){.present = value != NULL, .segments = value && strstr(value, "segments")};
}

void tunnel_header_set(struct head *head, const struct tunnel_header *header)
{
	head_set(head, TUNNEL_HEADER, header->segments ? "segments" : "received=0");
}

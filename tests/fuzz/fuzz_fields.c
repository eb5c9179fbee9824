/* Field handling on hostile heads: lines of "name: value" as input. What is written is well-formed, whatever came. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "workers/tunnel/fields.h"
#include "workers/tunnel/h1_parse.h"

#define CHECK(condition) do { if (!(condition)) abort(); } while (0)
#define T(text) ((char *)(text))

static char *names[] = {T("a"), T("user"), T("via"), T("x")};
static struct config config = {
	.node_name = T("n"), .domain = T("d"), .internal_headers = {names, 4}, .examined_headers = {names, 4},
};

static struct head *head_of(const uint8_t *data, size_t size)
{
	struct head *head = head_new();
	head->method = "GET";
	head->scheme = "http";
	while (size > 0) {
		const uint8_t *lf = memchr(data, '\n', size);
		size_t n = lf ? (size_t)(lf - data) : size;
		const uint8_t *colon = memchr(data, ':', n);
		size_t name = colon ? (size_t)(colon - data) : 0;
		if (h1_is_token((const char *)data, name) && h1_is_value((const char *)colon + 1, n - name - 1))
			head_add_n(head, (const char *)data, name, (const char *)colon + 1, n - name - 1);
		data += lf ? n + 1 : n;
		size -= lf ? n + 1 : n;
	}
	return head;
}

/* RFC 8941: parameters after a token or string; strings closed, only quotes and backslashes escaped. */
static void well_formed(const char *value)
{
	bool quoted = false;
	for (; *value; value++) {
		CHECK(*value >= ' ' && *value < 0x7f);
		if (quoted && *value == '\\') {
			value++;
			CHECK(*value == '"' || *value == '\\');
		} else if (*value == '"') {
			quoted = !quoted;
		}
	}
	CHECK(!quoted);
}

static size_t bytes_of(const struct head *head)
{
	size_t bytes = 0;
	for (unsigned i = 0; i < head->n; i++)
		bytes += strlen(head->fields[i].name) + strlen(head->fields[i].value);
	return bytes;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const enum config_accept accepts[] = {CONFIG_HTTP, CONFIG_OVERLAY};
	if (size < 2)
		return 0;
	uint8_t mode = data[0];
	char text[400], body[256];
	size_t n = size - 1 < sizeof(text) - 1 ? size - 1 : sizeof(text) - 1;
	memcpy(text, data + 1, n);
	text[n] = '\0';
	struct head *head = head_of(data + 1, size - 1);
	struct config_listener listener = {.accept = accepts[mode & 1], .trust_headers = mode & 2};
	struct config_peer peer = {.headers = {names, 1}};
	struct ipc_pair pairs[4];
	bool own;
	unsigned hops = fields_hops(head, &config, &own);
	CHECK(hops > 0 || !own);
	CHECK(fields_examined(head, &config, pairs, 4) <= 4);
	fields_clean_request(head, &config, &listener, mode & 4 ? &peer : NULL);
	CHECK(head->bytes == bytes_of(head));
	if (listener.accept == CONFIG_HTTP && !listener.trust_headers)
		CHECK(!head_get(head, "user") && !head_get(head, "x"));
	hops = fields_hops(head, &config, &own);
	head->authority = mode & 8 ? head_get(head, "host") : NULL;
	fields_forward(head, &config, "h2", true, text, mode);
	CHECK(fields_hops(head, &config, &own) == hops + 1 && own);
	head_free(head);
	head = fields_error_response((enum flow_error)(mode % FLOW_ERROR_COUNT), 0, text, text, true, body, sizeof(body));
	well_formed(head_get(head, "proxy-status"));
	CHECK(head->content_length == (int64_t)strlen(body));
	fields_proxy_status(head, "n", FLOW_DNS, text, text);
	well_formed(head->fields[head->n - 1].value);
	head_free(head);
	return 0;
}

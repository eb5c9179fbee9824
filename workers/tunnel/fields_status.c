/* Our own words in responses: Proxy-Status (RFC 9209) and error answers. */
#include <stdio.h>
#include <string.h>

#include "workers/tunnel/fields.h"

#define DETAIL_MAX 200        /* characters of a detail that travel */

static const struct { const char *token; unsigned status; } errors[FLOW_ERROR_COUNT] = {
#define E(ID, status, token, retry, metric) [FLOW_##ID] = {token, status},
	FLOW_ERRORS(E)
#undef E
};

const char *fields_error_token(enum flow_error error)
{
	return error < FLOW_ERROR_COUNT ? errors[error].token : "proxy_internal_error";
}

unsigned fields_error_status(enum flow_error error)
{
	return error < FLOW_ERROR_COUNT ? errors[error].status : 503;
}

/* A bounded text; what does not fit is left out. */
struct text { char *at, *end; };

static void put_char(struct text *text, char c)
{
	if (text->at + 1 < text->end)
		*text->at++ = c;
}

static void put(struct text *text, const char *string)
{
	while (*string)
		put_char(text, *string++);
}

/* RFC 8941 3.3.3: printable ASCII, quotes and backslashes escaped; other characters become "?". */
static void put_sf_string(struct text *text, const char *string)
{
	put_char(text, '"');
	for (size_t i = 0; string[i] && i < DETAIL_MAX; i++) {
		char c = string[i] >= ' ' && string[i] < 0x7f ? string[i] : '?';
		if (c == '"' || c == '\\')
			put_char(text, '\\');
		put_char(text, c);
	}
	put_char(text, '"');
}

/* RFC 8941 3.3.4 */
static bool is_sf_token(const char *string)
{
	static const char rest[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-.^_`|~:/";
	char c = string[0];
	return ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '*') && strspn(string, rest) == strlen(string);
}

void fields_proxy_status(struct head *response, const char *node, enum flow_error error, const char *detail,
                         const char *next_hop)
{
	char member[4 * DETAIL_MAX + 512];
	struct text text = {member, member + sizeof(member)};
	if (is_sf_token(node) && strlen(node) <= DETAIL_MAX)
		put(&text, node);
	else
		put_sf_string(&text, node);
	if (error != FLOW_NONE) {
		put(&text, "; error=");
		put(&text, fields_error_token(error));
	}
	if (next_hop && next_hop[0]) {
		put(&text, "; next-hop=");
		put_sf_string(&text, next_hop);
	}
	if (detail && detail[0]) {
		put(&text, "; details=");
		put_sf_string(&text, detail);
	}
	head_add_n(response, "proxy-status", 12, member, (size_t)(text.at - member));
}

/* The text stays printable, whatever a peer or a name put into the detail. */
static size_t body_text(char *body, size_t size, enum flow_error error, const char *detail)
{
	struct text text = {body, body + size};
	put(&text, "hermes: ");
	put(&text, fields_error_token(error));
	if (detail && detail[0])
		put(&text, ": ");
	for (size_t i = 0; detail && detail[i] && i < DETAIL_MAX; i++)
		put_char(&text, detail[i] >= ' ' && detail[i] < 0x7f ? detail[i] : '?');
	put_char(&text, '\n');
	*text.at = '\0';
	return (size_t)(text.at - body);
}

struct head *fields_error_response(enum flow_error error, unsigned status, const char *node, const char *detail,
                                   bool plain, char *body, size_t size)
{
	struct head *head = head_new();
	char length[24];
	head->status = status ? status : fields_error_status(error);
	if (size > 0)
		body[0] = '\0';
	size_t n = plain && size > 0 ? body_text(body, size, error, detail) : 0;
	if (n > 0)
		head_add(head, "content-type", "text/plain");
	snprintf(length, sizeof(length), "%zu", n);
	head_add(head, "content-length", length);
	fields_proxy_status(head, node, error, detail, NULL);
	return head;
}

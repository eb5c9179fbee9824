#include "workers/tunnel/h1_internal.h"

#include <stdlib.h>
#include <string.h>

#define BLANK_LINES 4u        /* tolerated before a request line */

/* Bit 0: token character (RFC 9110 5.6.2); bit 1: field value character (5.5); bit 2: visible ASCII. */
enum { TOKEN = 1, VALUE = 2, VISIBLE = 4 };
#define T (TOKEN | VALUE | VISIBLE)
#define V (VALUE | VISIBLE)
static const uint8_t classes[256] = {
	['\t'] = VALUE, [' '] = VALUE,
	['!'] = T, ['"'] = V, ['#'] = T, ['$'] = T, ['%'] = T, ['&'] = T, ['\''] = T, ['('] = V, [')'] = V, ['*'] = T,
	['+'] = T, [','] = V, ['-'] = T, ['.'] = T, ['/'] = V, ['0' ... '9'] = T, [':'] = V, [';'] = V, ['<'] = V,
	['='] = V, ['>'] = V, ['?'] = V, ['@'] = V, ['A' ... 'Z'] = T, ['['] = V, ['\\'] = V, [']'] = V, ['^'] = T,
	['_'] = T, ['`'] = T, ['a' ... 'z'] = T, ['{'] = V, ['|'] = T, ['}'] = V, ['~'] = T, [0x80 ... 0xff] = VALUE,
};
#undef T
#undef V

static bool all(const char *text, size_t n, uint8_t class)
{
	for (size_t i = 0; i < n; i++)
		if (!(classes[(uint8_t)text[i]] & class))
			return false;
	return true;
}

bool h1_is_token(const char *text, size_t n)
{
	return n > 0 && all(text, n, TOKEN);
}

bool h1_is_value(const char *text, size_t n)
{
	return all(text, n, VALUE);
}

enum h1_result h1_fail(struct h1_parser *p, unsigned status, const char *why)
{
	p->status = status;
	p->why = why;
	head_free(p->head);
	p->head = NULL;
	return H1_ERROR;
}

/* --- first lines -------------------------------------------------------------------------------------------------- */

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool version(struct h1_parser *p, const char *text, size_t n, bool *known)
{
	if (n != 8 || memcmp(text, "HTTP/", 5) != 0 || !is_digit(text[5]) || text[6] != '.' || !is_digit(text[7]))
		return false;
	*known = text[5] == '1';
	p->hop.minor = text[7] == '0' ? 0 : 1;
	return true;
}

static enum h1_result request_line(struct h1_parser *p, const char *line, size_t n)
{
	const char *space = memchr(line, ' ', n);
	const char *target = space ? space + 1 : NULL;
	const char *second = target ? memchr(target, ' ', n - (size_t)(target - line)) : NULL;
	bool known;
	if (!second || !h1_is_token(line, (size_t)(space - line)))
		return h1_fail(p, 400, "bad request line");
	if (!version(p, second + 1, n - (size_t)(second + 1 - line), &known))
		return h1_fail(p, 400, "bad HTTP version");
	if (!known)
		return h1_fail(p, 505, "HTTP version other than 1.x");
	p->head->method = head_string(p->head, line, space - line);
	if (second == target)
		return h1_fail(p, 400, "empty request target");
	if (!h1_target(p->head, target, (size_t)(second - target), p->secure, &p->why))
		return h1_fail(p, 400, p->why);
	return H1_MORE;
}

static enum h1_result status_line(struct h1_parser *p, const char *line, size_t n)
{
	bool known;
	if (n < 12 || !version(p, line, 8, &known) || !known || line[8] != ' ' || !is_digit(line[9]) ||
	    !is_digit(line[10]) || !is_digit(line[11]) || (n > 12 && line[12] != ' ') || !h1_is_value(line + 12, n - 12))
		return h1_fail(p, 400, "bad status line");
	p->head->status = (unsigned)(line[9] - '0') * 100 + (unsigned)(line[10] - '0') * 10 + (unsigned)(line[11] - '0');
	if (p->head->status < 100 || p->head->status > 599)
		return h1_fail(p, 400, "status outside 100 to 599");
	return H1_MORE;
}

/* text: complete lines, each with CRLF, without the empty line at the end. */
static enum h1_result parse(struct h1_parser *p, const char *text, size_t n)
{
	struct h1_reading r;
	h1_reading_init(&r);
	memset(&p->hop, 0, sizeof(p->hop));
	p->head = head_new();
	const char *end = text + n;
	bool first = p->kind != H1_TRAILERS;
	while (text < end) {
		const char *lf = memchr(text, '\n', (size_t)(end - text));
		size_t length = (size_t)(lf - text) - 1;
		enum h1_result result = !first ? h1_field_line(p, &r, text, length) :
		                        p->kind == H1_REQUEST ? request_line(p, text, length) : status_line(p, text, length);
		if (result == H1_ERROR)
			return result;
		first = false;
		text = lf + 1;
	}
	return h1_fields_end(p, &r);
}

/* --- pieces ------------------------------------------------------------------------------------------------------- */

void h1_parser_init(struct h1_parser *p, enum h1_kind kind, uint32_t limit)
{
	*p = (struct h1_parser){.kind = kind, .limit = limit};
}

void h1_parser_clear(struct h1_parser *p)
{
	free(p->hold);
	head_free(p->head);
	p->hold = NULL;
	p->head = NULL;
	p->held = p->room = p->start = p->line = p->scanned = 0;
	p->blank = 0;
}

bool h1_parser_begun(const struct h1_parser *p)
{
	return p->held > 0;
}

static void hold(struct h1_parser *p, const uint8_t *data, size_t n)
{
	if (p->held + n > p->room) {
		p->room = p->held + n < 1024 ? 1024 : 2 * (p->held + n);
		p->hold = realloc(p->hold, p->room);
		if (!p->hold)
			abort();
	}
	memcpy(p->hold + p->held, data, n);
	p->held += n;
}

/* Refuses what cannot become a head as soon as that can be seen. */
static enum h1_result check_begin(struct h1_parser *p, const char *text, size_t n)
{
	if (p->kind == H1_REQUEST && n > 0 && !(classes[(uint8_t)text[0]] & TOKEN) && text[0] != '\r' && text[0] != '\n')
		return h1_fail(p, 400, "not HTTP");
	if (p->kind == H1_RESPONSE && memcmp(text, "HTTP/1.", n < 7 ? n : 7) != 0)
		return h1_fail(p, 400, "not HTTP/1");
	return H1_MORE;
}

/* Looks for the empty line. DONE: it ends at p->scanned, the head's lines lie in start..line. */
static enum h1_result find_end(struct h1_parser *p, const char *text, size_t n)
{
	const char *lf;
	while (p->scanned < n && (lf = memchr(text + p->scanned, '\n', n - p->scanned))) {
		size_t at = (size_t)(lf - text);
		if (at == p->line || text[at - 1] != '\r')
			return h1_fail(p, 400, "line that ends without CR");
		p->scanned = at + 1;
		bool empty = at - 1 == p->line;
		if (empty && p->line == p->start && p->kind == H1_REQUEST) {
			if (++p->blank > BLANK_LINES)
				return h1_fail(p, 400, "empty lines before the request");
			p->start = p->scanned;
		} else if (empty) {
			return H1_DONE;
		}
		p->line = p->scanned;
	}
	p->scanned = n;
	return H1_MORE;
}

static enum h1_result too_long(struct h1_parser *p)
{
	if (p->kind == H1_REQUEST && p->line == p->start)
		return h1_fail(p, 414, "request line too long");
	return h1_fail(p, 431, "headers too large");
}

enum h1_result h1_parser_feed(struct h1_parser *p, const uint8_t *data, size_t length, size_t *used)
{
	size_t before = p->held, take = length;
	if (before > 0) {
		/* never holds much more than the limit, however much came */
		size_t most = p->start + p->limit + 1 > before ? p->start + p->limit + 1 - before : 1;
		take = length < most ? length : most;
		hold(p, data, take);
	}
	const char *text = before > 0 ? p->hold : (const char *)data;
	size_t n = before > 0 ? p->held : length;
	*used = take;
	enum h1_result result = find_end(p, text, n);
	if (result == H1_MORE || (result == H1_DONE && p->kind == H1_RESPONSE))
		result = check_begin(p, text + p->start, n - p->start) == H1_ERROR ? H1_ERROR : result;
	if (result != H1_ERROR && (result == H1_DONE ? p->scanned : n) - p->start > p->limit)
		return too_long(p);
	if (result == H1_MORE && before == 0)
		hold(p, data, length);
	if (result != H1_DONE)
		return result;
	*used = p->scanned - before;
	result = p->kind == H1_TRAILERS && p->line == p->start ? H1_DONE : parse(p, text + p->start, p->line - p->start);
	struct head *head = p->head;
	p->head = NULL;
	h1_parser_clear(p);
	p->head = head;
	return result;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "store/yaml_tree.h"
#include "store/config_arena.h"
#include "store/yaml_text.h"

#include <libfyaml.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEPTH_MAX 32
#define NODES_MAX 1000000
#define PARSER_ERRORS "the document is not YAML"

struct open_node { struct yaml_node *node, *last, *key; };

struct builder {
	const char *text;
	size_t length;
	struct config_arena *arena;
	struct yaml_fault *fault;
	struct yaml_node *root;
	struct open_node stack[DEPTH_MAX];
	unsigned depth;
	size_t nodes;
	bool failed, ended;
};

static void __attribute__((format(printf, 4, 5))) fail(struct builder *b, unsigned line, unsigned column,
                                                       const char *format, ...)
{
	va_list ap;

	if (b->failed)
		return;
	b->failed = true;
	b->fault->line = line;
	b->fault->column = column;
	va_start(ap, format);
	vsnprintf(b->fault->text, sizeof(b->fault->text), format, ap);
	va_end(ap);
}

/* --- duplicates ------------------------------------------------------------------------------------------------------ */

static int by_text(const void *a, const void *b)
{
	const struct yaml_node *x = *(struct yaml_node *const *)a, *y = *(struct yaml_node *const *)b;
	int order = strcmp(x->text, y->text);

	if (order)
		return order;
	return x->line != y->line ? (x->line < y->line ? -1 : 1) : (x->column < y->column ? -1 : x->column > y->column);
}

static void check_duplicates(struct builder *b, const struct yaml_node *map)
{
	size_t n = 0;
	struct yaml_node **v = map->n > 1 ? malloc(map->n * sizeof(*v)) : NULL;

	if (map->n > 1 && !v)
		fail(b, map->line, map->column, "out of memory");
	if (!v)
		return;
	for (struct yaml_node *k = map->first; k; k = k->next)
		v[n++] = k;
	qsort(v, n, sizeof(*v), by_text);
	for (size_t i = 1; i < n; i++)
		if (!strcmp(v[i]->text, v[i - 1]->text))
			fail(b, v[i]->line, v[i]->column, "the key \"%.100s\" is given twice; expected it once (first at line %u)",
			     v[i]->text, v[i - 1]->line);
	free(v);
}

/* --- building -------------------------------------------------------------------------------------------------------- */

static void place_in(struct builder *b, struct open_node *top, struct yaml_node *node)
{
	if (top->node->kind == YAML_MAP && top->key) {
		if (node->null && !*node->text) {         /* nothing there: it has no position of its own */
			node->line = top->key->line;
			node->column = top->key->column;
		}
		top->key->value = node;
		top->key = NULL;
		return;
	}
	if (top->node->kind == YAML_MAP) {
		if (node->kind != YAML_SCALAR)
			fail(b, node->line, node->column, "a key is a list or a map; expected a name");
		else if (node->plain && !strcmp(node->text, "<<"))
			fail(b, node->line, node->column, "merge keys are not supported; expected the keys themselves");
		top->key = node;
	}
	if (top->last)
		top->last->next = node;
	else
		top->node->first = node;
	top->last = node;
	top->node->n++;
}

static struct yaml_node *add(struct builder *b, enum yaml_kind kind, const struct fy_mark *mark)
{
	struct yaml_node *node = config_arena_alloc(b->arena, 1, sizeof(*node));
	unsigned line = mark && mark->line >= 0 ? (unsigned)mark->line + 1 : 1;
	unsigned column = mark && mark->column >= 0 ? (unsigned)mark->column + 1 : 1;

	if (!node || ++b->nodes > NODES_MAX) {
		fail(b, line, column, node ? "the document has more than a million values" : "out of memory");
		return NULL;
	}
	*node = (struct yaml_node){.kind = kind, .line = line, .column = column, .text = ""};
	return node;
}

static void place(struct builder *b, struct yaml_node *node)
{
	if (b->depth)
		place_in(b, &b->stack[b->depth - 1], node);
	else if (b->root)
		fail(b, node->line, node->column, "a second document begins; expected one");
	else
		b->root = node;
}

static void open_container(struct builder *b, enum yaml_kind kind, struct fy_event *event)
{
	struct yaml_node *node = add(b, kind, fy_event_start_mark(event));

	if (!node)
		return;
	place(b, node);
	if (b->depth == DEPTH_MAX)
		fail(b, node->line, node->column, "nested deeper than %d levels", DEPTH_MAX);
	else
		b->stack[b->depth++] = (struct open_node){.node = node};
}

static void close_container(struct builder *b)
{
	struct yaml_node *node = b->stack[--b->depth].node;

	if (node->kind == YAML_MAP)
		check_duplicates(b, node);
}

/* A run of line ends with the blanks around them becomes a blank or, when there are several, one line end less
 * (YAML 1.2.2 6.5). Returns how much it took; *used grows by less than that. */
static size_t fold(const char *at, size_t left, char *out, size_t *used)
{
	size_t n = 0, breaks = 0;

	while (*used && (out[*used - 1] == ' ' || out[*used - 1] == '\t'))
		--*used;
	for (; n < left && strchr(" \t\r\n", at[n]); n++)
		breaks += at[n] == '\n' || (at[n] == '\r' && (n + 1 == left || at[n + 1] != '\n'));
	if (breaks == 1)
		out[(*used)++] = ' ';
	for (; breaks > 1; breaks--)
		out[(*used)++] = '\n';
	return n;
}

/* What single quotes hold. libfyaml 0.7 would say, but leaks where eight quotes are doubled. NULL: out of memory, or the token
 * is not where it should be. */
static char *unquote(struct builder *b, const struct fy_mark *start, const struct fy_mark *end, size_t *length)
{
	size_t from = start->input_pos, to = end->input_pos, used = 0;

	if (from < 1 || from > to || to >= b->length || b->text[from - 1] != '\'' || b->text[to] != '\'')
		return NULL;
	char *out = config_arena_alloc(b->arena, to - from + 1, 1);
	while (out && from < to) {
		char c = b->text[from];
		if (c == '\r' || c == '\n') {
			from += fold(b->text + from, to - from, out, &used);
			continue;
		}
		out[used++] = c;
		from += c == '\'' ? 2 : 1;
	}
	*length = used;
	return out;
}

static const char *scalar_text(struct builder *b, struct fy_token *token, size_t *length)
{
	if (!token)
		return "";
	if (fy_token_scalar_style(token) != FYSS_SINGLE_QUOTED)
		return fy_token_get_text(token, length);
	return unquote(b, fy_token_start_mark(token), fy_token_end_mark(token), length);
}

static void add_scalar(struct builder *b, struct fy_event *event)
{
	struct yaml_node *node = add(b, YAML_SCALAR, fy_event_start_mark(event));
	struct fy_token *token = event->scalar.value;
	size_t length = 0;

	if (!node)
		return;
	const char *text = scalar_text(b, token, &length);
	if (!text || memchr(text, 0, length)) {
		fail(b, node->line, node->column, "the text has a NUL character; expected none");
		return;
	}
	enum fy_scalar_style style = token ? fy_token_scalar_style(token) : FYSS_PLAIN;
	node->plain = style == FYSS_PLAIN;
	if ((style == FYSS_SINGLE_QUOTED || style == FYSS_DOUBLE_QUOTED) && node->column > 1)
		node->column--;                   /* a token begins after its quote */
	node->text = config_arena_text(b->arena, text, length);
	if (!node->text) {
		node->text = "";
		fail(b, node->line, node->column, "out of memory");
	}
	node->null = node->plain && (!length || !strcmp(node->text, "~") || !strcmp(node->text, "null"));
	place(b, node);
}

static void refuse_decoration(struct builder *b, struct fy_event *event, struct fy_token *anchor, struct fy_token *tag)
{
	const struct fy_mark *mark = anchor || tag ? fy_token_start_mark(anchor ? anchor : tag) : NULL;

	if (!anchor && !tag)
		return;
	if (!mark)
		mark = fy_event_start_mark(event);
	/* an anchor's token begins after its '&' */
	fail(b, mark ? (unsigned)mark->line + 1 : 1, mark ? (unsigned)mark->column + (anchor && mark->column ? 0 : 1) : 1,
	     "%s are not supported; expected the value itself", anchor ? "anchors" : "tags");
}

static void on_event(struct builder *b, struct fy_event *event)
{
	const struct fy_mark *mark;

	switch (event->type) {
	case FYET_SCALAR:
		refuse_decoration(b, event, event->scalar.anchor, event->scalar.tag);
		add_scalar(b, event);
		break;
	case FYET_SEQUENCE_START:
		refuse_decoration(b, event, event->sequence_start.anchor, event->sequence_start.tag);
		open_container(b, YAML_LIST, event);
		break;
	case FYET_MAPPING_START:
		refuse_decoration(b, event, event->mapping_start.anchor, event->mapping_start.tag);
		open_container(b, YAML_MAP, event);
		break;
	case FYET_SEQUENCE_END:
	case FYET_MAPPING_END:
		close_container(b);
		break;
	case FYET_ALIAS:
		mark = fy_event_start_mark(event);
		fail(b, mark ? (unsigned)mark->line + 1 : 1, mark ? (unsigned)mark->column + 1 : 1,
		     "aliases are not supported; expected the value itself");
		break;
	case FYET_STREAM_END:
		b->ended = true;
		break;
	default:
		break;
	}
}

/* --- libfyaml's own errors -------------------------------------------------------------------------------------------- */

static void ignore(struct fy_diag *diag, void *user, const char *text, size_t length)
{
	(void)diag;
	(void)user;
	(void)text;
	(void)length;
}

static void take_error(struct builder *b, struct fy_diag *diag)
{
	void *at = NULL;
	const struct fy_diag_error *error = fy_diag_errors_iterate(diag, &at);

	if (!error || !error->msg) {
		fail(b, 1, 1, PARSER_ERRORS);
		return;
	}
	size_t length = strcspn(error->msg, "\n");
	fail(b, error->line > 0 ? (unsigned)error->line : 1, error->column > 0 ? (unsigned)error->column : 1,
	     PARSER_ERRORS ": %.*s", (int)(length < 180 ? length : 180), error->msg);
}

static struct fy_diag *make_diag(void)
{
	struct fy_diag_cfg cfg;

	fy_diag_cfg_default(&cfg);
	cfg.fp = NULL;
	cfg.output_fn = ignore;
	cfg.colorize = false;
	struct fy_diag *diag = fy_diag_create(&cfg);
	if (diag)
		fy_diag_set_collect_errors(diag, true);
	return diag;
}

struct yaml_node *yaml_parse(const char *text, size_t length, struct config_arena *arena, struct yaml_fault *fault)
{
	struct builder b = {.text = text, .length = length, .arena = arena, .fault = fault};
	struct fy_parse_cfg cfg = {.flags = FYPCF_QUIET | FYPCF_COLLECT_DIAG, .diag = make_diag()};
	struct fy_parser *parser = cfg.diag ? fy_parser_create(&cfg) : NULL;
	struct fy_event *event;

	if (!yaml_text_check(text, length, fault))
		b.failed = true;
	else if (!parser || fy_parser_set_string(parser, text, length))
		fail(&b, 1, 1, "out of memory");
	while (!b.failed && !b.ended && (event = fy_parser_parse(parser))) {
		on_event(&b, event);
		fy_parser_event_free(parser, event);
	}
	if (!b.failed && (!b.ended || fy_parser_get_stream_error(parser)))
		take_error(&b, cfg.diag);
	if (!b.failed && !b.root)
		fail(&b, 1, 1, "the document is empty; expected a configuration");
	if (parser)
		fy_parser_destroy(parser);
	if (cfg.diag)
		fy_diag_destroy(cfg.diag);
	return b.failed ? NULL : b.root;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Trees as text. A value is quoted where it could be read as anything else; one that was quoted stays so where that matters. */
#include "store/yaml_merge.h"
#include "store/yaml_text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define STEP 2                    /* of indentation */
#define LONG_KEY 500              /* YAML's short form of a key ends at 1,024 characters */
#define RUN 200                   /* blanks in a row; yaml_text.h refuses 256 */

static bool is_word(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '/';
}

/* No strspn(): every key and value of every document comes here. */
static bool is_plain(const char *text)
{
	size_t n = 0;

	if (!is_word(*text))
		return false;
	while (is_word(text[n]) || text[n] == '.' || text[n] == '_' || text[n] == '-' || text[n] == '+' || text[n] == ':')
		n++;
	return !text[n] && n < 256 && text[n - 1] != ':';
}

/* A quoted text that reads the same without its quotes, for this parser and others. */
static bool needs_no_quotes(const char *text)
{
	static const char *const words[] = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"};

	if (!is_plain(text) || (*text >= '0' && *text <= '9'))
		return false;
	for (unsigned i = 0; strlen(text) <= 5 && i < sizeof(words) / sizeof(*words); i++)
		if (!strcasecmp(words[i], text))
			return false;
	return true;
}

static void write_quoted(FILE *out, const char *text)
{
	size_t left = strlen(text), run = 0;
	unsigned bytes;

	fputc('"', out);
	for (; left; text += bytes, left -= bytes) {
		int32_t c = yaml_text_decode(text, left, &bytes);
		run = c == ' ' ? run + 1 : 0;
		if (c < 0) {
			fputc('?', out);                  /* no UTF-8: an escape may have made it */
			bytes = 1;
		} else if (c == '"' || c == '\\') {
			fprintf(out, "\\%c", (char)c);
		} else if (c == '\n' || c == '\t') {
			fputs(c == '\n' ? "\\n" : "\\t", out);
		} else if (c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0x2028 || c == 0x2029 || c == 0xfeff || c == 0xfffe ||
		           c == 0xffff || run > RUN) {
			fprintf(out, "\\u%04x", (unsigned)c);
			run = 0;
		} else {
			fwrite(text, 1, bytes, out);
		}
	}
	fputc('"', out);
}

static void write_scalar(FILE *out, const struct yaml_node *node)
{
	if (node->null)
		fputs("null", out);
	else if (node->plain ? is_plain(node->text) : needs_no_quotes(node->text))
		fputs(node->text, out);
	else
		write_quoted(out, node->text);
}

struct writer { FILE *out; bool origins; };

static void end_line(const struct writer *w, const struct yaml_node *node)
{
	if (w->origins && node->document) {
		fputs("  # ", w->out);
		for (const char *c = node->document; *c; c++)
			fputc((unsigned char)*c < 0x20 || *c == 0x7f ? '?' : *c, w->out);
	}
	fputc('\n', w->out);
}

static void write_node(const struct writer *w, const struct yaml_node *node, int indent, bool inline_first);

/* After "key:" or "-". */
static void write_value(const struct writer *w, const struct yaml_node *node, int indent, bool member)
{
	if (node->kind == YAML_SCALAR || !node->n) {
		fputc(' ', w->out);
		if (node->kind == YAML_SCALAR)
			write_scalar(w->out, node);
		else
			fputs(node->kind == YAML_LIST ? "[]" : "{}", w->out);
		end_line(w, node);
		return;
	}
	fputc(member ? ' ' : '\n', w->out);
	write_node(w, node, indent + STEP, member);
}

/* inline_first: its first line continues one that is begun. */
static void write_node(const struct writer *w, const struct yaml_node *node, int indent, bool inline_first)
{
	for (const struct yaml_node *k = node->first; k; k = k->next, inline_first = false) {
		if (!inline_first)
			fprintf(w->out, "%*s", indent, "");
		if (node->kind == YAML_LIST) {
			fputc('-', w->out);
			write_value(w, k, indent, true);
			continue;
		}
		bool lengthy = strlen(k->text) > LONG_KEY;
		if (lengthy)
			fputs("? ", w->out);
		if (needs_no_quotes(k->text) && !strchr(k->text, ':'))
			fputs(k->text, w->out);
		else
			write_quoted(w->out, k->text);
		if (lengthy)
			fprintf(w->out, "\n%*s", indent, "");
		fputc(':', w->out);
		write_value(w, k->value, indent, false);
	}
}

char *yaml_write(const struct yaml_node *root, bool origins)
{
	char *text = NULL;
	size_t size = 0;
	struct writer w = {.out = open_memstream(&text, &size), .origins = origins};

	if (!w.out)
		return NULL;
	if (root->kind == YAML_SCALAR || !root->n) {
		if (root->kind == YAML_SCALAR)
			write_scalar(w.out, root);
		else
			fputs(root->kind == YAML_LIST ? "[]" : "{}", w.out);
		end_line(&w, root);
	} else {
		write_node(&w, root, 0, false);
	}
	bool failed = ferror(w.out);
	if (!fclose(w.out) && !failed)
		return text;
	free(text);
	return NULL;
}

/* --- JSON ----------------------------------------------------------------------------------------------------------------- */

/* RFC 8259 6, whole numbers: what the configuration knows. */
static bool is_number(const char *text)
{
	size_t n = strlen(text);

	return n && n < 16 && strspn(text, "0123456789") == n && (*text != '0' || n == 1);
}

static void write_json(FILE *out, const struct yaml_node *node)
{
	bool map = node->kind == YAML_MAP, word = node->plain && (!strcmp(node->text, "true") || !strcmp(node->text, "false"));

	if (node->kind == YAML_SCALAR) {
		if (node->null)
			fputs("null", out);
		else if (node->plain && (word || is_number(node->text)))
			fputs(node->text, out);
		else
			write_quoted(out, node->text);
		return;
	}
	fputc(map ? '{' : '[', out);
	for (const struct yaml_node *k = node->first; k; k = k->next) {
		if (k != node->first)
			fputs(", ", out);
		if (map) {
			write_quoted(out, k->text);
			fputs(": ", out);
		}
		write_json(out, map ? k->value : k);
	}
	fputc(map ? '}' : ']', out);
}

char *yaml_write_json(const struct yaml_node *root)
{
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		return NULL;
	write_json(out, root);
	bool failed = ferror(out);
	if (!fclose(out) && !failed)
		return text;
	free(text);
	return NULL;
}

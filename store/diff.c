/* SPDX-License-Identifier: Apache-2.0 */
#include "store/diff.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONTEXT 3
#define CELLS_MAX ((size_t)8 * 1000 * 1000)   /* of the table, four bytes each */

struct line { const char *text; size_t length; };
struct lines { struct line *v; size_t n; };
/* ' ' both, '-' only a, '+' only b; a and b: the lines before this one */
struct step { char kind; size_t a, b; struct line line; };
struct steps { struct step *v; size_t n; };

static bool split(const char *text, struct lines *out)
{
	size_t n = 1;

	for (const char *c = text; *c; c++)
		n += *c == '\n';
	out->n = 0;
	out->v = calloc(n, sizeof(*out->v));
	while (out->v && *text) {
		size_t length = strcspn(text, "\n");
		out->v[out->n++] = (struct line){text, length};
		text += length + (text[length] == '\n');
	}
	return out->v;
}

static bool same(const struct line *a, const struct line *b)
{
	return a->length == b->length && !memcmp(a->text, b->text, a->length);
}

static void step(struct steps *s, char kind, size_t *i, size_t *j, const struct lines *a, const struct lines *b)
{
	s->v[s->n++] = (struct step){kind, *i, *j, kind == '+' ? b->v[*j] : a->v[*i]};
	*i += kind != '+';
	*j += kind != '-';
}

/* Longest common subsequence of a[i..ae) and b[j..be): table[x][y] is its length from there on. */
static void middle(struct steps *s, size_t *i, size_t ae, size_t *j, size_t be, const struct lines *a, const struct lines *b)
{
	size_t n = ae - *i, m = be - *j, i0 = *i, j0 = *j, width = m + 1;
	uint32_t *table = (n + 1) * width <= CELLS_MAX ? calloc((n + 1) * width, sizeof(*table)) : NULL;

	for (size_t x = n; table && x-- > 0;)
		for (size_t y = m; y-- > 0;) {
			uint32_t down = table[(x + 1) * width + y], right = table[x * width + y + 1];
			table[x * width + y] = same(&a->v[i0 + x], &b->v[j0 + y]) ? table[(x + 1) * width + y + 1] + 1
			                       : down > right ? down : right;
		}
	while (*i < ae || *j < be) {
		size_t x = *i - i0, y = *j - j0;
		if (table && *i < ae && *j < be && same(&a->v[*i], &b->v[*j]))
			step(s, ' ', i, j, a, b);
		else if (*i < ae && (*j == be || !table || table[(x + 1) * width + y] >= table[x * width + y + 1]))
			step(s, '-', i, j, a, b);
		else
			step(s, '+', i, j, a, b);
	}
	free(table);
}

static void compare(const struct lines *a, const struct lines *b, struct steps *s)
{
	size_t i = 0, j = 0, ae = a->n, be = b->n;

	while (i < ae && j < be && same(&a->v[i], &b->v[j]))
		step(s, ' ', &i, &j, a, b);
	while (ae > i && be > j && same(&a->v[ae - 1], &b->v[be - 1])) {
		ae--;
		be--;
	}
	middle(s, &i, ae, &j, be, a, b);
	while (i < a->n)
		step(s, ' ', &i, &j, a, b);
}

/* Steps from..to (not including) as one hunk. */
static void hunk(FILE *out, const struct steps *s, size_t from, size_t to)
{
	size_t a = 0, b = 0;

	for (size_t i = from; i < to; i++) {
		a += s->v[i].kind != '+';
		b += s->v[i].kind != '-';
	}
	fprintf(out, "@@ -%zu,%zu +%zu,%zu @@\n", s->v[from].a + (a > 0), a, s->v[from].b + (b > 0), b);
	for (size_t i = from; i < to; i++)
		fprintf(out, "%c%.*s\n", s->v[i].kind, (int)s->v[i].line.length, s->v[i].line.text);
}

static void write_hunks(FILE *out, const struct steps *s)
{
	for (size_t i = 0; i < s->n;) {
		if (s->v[i].kind == ' ') {
			i++;
			continue;
		}
		size_t from = i > CONTEXT ? i - CONTEXT : 0, to = i, quiet = 0;
		for (; to < s->n && quiet <= 2 * CONTEXT; to++)
			quiet = s->v[to].kind == ' ' ? quiet + 1 : 0;
		to -= quiet > CONTEXT ? quiet - CONTEXT : 0;
		hunk(out, s, from, to);
		i = to;
	}
}

char *diff_unified(const char *from, const char *a, const char *to, const char *b)
{
	struct lines la = {0}, lb = {0};
	struct steps s = {0};
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);
	bool ok = split(a, &la);
	ok = split(b, &lb) && ok && (s.v = calloc(la.n + lb.n + 1, sizeof(*s.v)));

	if (ok && out) {
		compare(&la, &lb, &s);
		bool differs = false;
		for (size_t i = 0; i < s.n; i++)
			differs |= s.v[i].kind != ' ';
		if (differs)
			fprintf(out, "--- %s\n+++ %s\n", from, to);
		write_hunks(out, &s);
	}
	free(la.v);
	free(lb.v);
	free(s.v);
	if (out)
		ok &= !fclose(out);
	if (ok && out)
		return text;
	free(text);
	return NULL;
}

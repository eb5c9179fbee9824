/* SPDX-License-Identifier: Apache-2.0 */
#include "store/config_parser.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEEP 50                   /* errors, and warnings */

/* Control characters of a hostile document must not reach a terminal. */
static void clean(char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < 0x20 || *text == 0x7f)
			*text = '?';
}

static void append(char ***list, size_t *n, char *line)
{
	char **grown = *n < KEEP ? realloc(*list, (*n + 1) * sizeof(**list)) : NULL;

	if (!grown) {
		free(line);
		return;
	}
	*list = grown;
	grown[(*n)++] = line;
}

__attribute__((format(printf, 3, 0)))
static char *line_of(const struct config_parser *p, const struct yaml_node *node, const char *format, va_list ap)
{
	char text[1024];
	char *line;

	vsnprintf(text, sizeof(text), format, ap);
	if (asprintf(&line, "%s:%u:%u: %s%s%s", node->document ? node->document : p->name, node->line, node->column, p->path, p->path_length ? ": " : "", text) < 0)
		return NULL;
	clean(line);
	return line;
}

void config_error(struct config_parser *p, const struct yaml_node *node, const char *format, ...)
{
	va_list ap;

	p->errors++;
	va_start(ap, format);
	char *line = line_of(p, node, format, ap);
	va_end(ap);
	if (line)
		append(&p->report->errors, &p->report->n_errors, line);
}

void config_warning(struct config_parser *p, const struct yaml_node *node, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	char *line = line_of(p, node, format, ap);
	va_end(ap);
	if (line)
		append(&p->report->warnings, &p->report->n_warnings, line);
}

/* No printf: every key of every document comes here. */
static size_t add_path(struct config_parser *p, const char *text, size_t max)
{
	size_t mark = p->path_length, room = sizeof(p->path) - mark - 1, n = strnlen(text, max);

	n = n < room ? n : room;
	memcpy(p->path + mark, text, n);
	p->path[mark + n] = '\0';
	p->path_length += n;
	return mark;
}

size_t config_enter(struct config_parser *p, const char *key)
{
	size_t mark = p->path_length;

	if (mark)
		add_path(p, ".", 1);
	add_path(p, key, 100);
	return mark;
}

size_t config_enter_index(struct config_parser *p, size_t index)
{
	char text[32];

	snprintf(text, sizeof(text), "[%zu]", index);
	return add_path(p, text, sizeof(text));
}

void config_leave(struct config_parser *p, size_t mark)
{
	p->path_length = mark;
	p->path[mark] = '\0';
}

void config_report_free(struct config_report *report)
{
	for (size_t i = 0; i < report->n_errors; i++)
		free(report->errors[i]);
	for (size_t i = 0; i < report->n_warnings; i++)
		free(report->warnings[i]);
	free(report->errors);
	free(report->warnings);
	memset(report, 0, sizeof(*report));
}

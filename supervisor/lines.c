#include "supervisor/lines.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LINES_MAX 64

void lines_add(struct lines *lines, const char *text)
{
	if (lines->n >= LINES_MAX || !text)
		return;
	if (!lines->v && !(lines->v = calloc(LINES_MAX, sizeof(*lines->v))))
		return;
	char *copy = strdup(text);
	if (copy)
		lines->v[lines->n++] = copy;
}

void lines_addf(struct lines *lines, const char *format, ...)
{
	char text[1024];
	va_list args;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	lines_add(lines, text);
}

void lines_add_all(struct lines *lines, const struct ipc_strs *from)
{
	for (size_t i = 0; i < from->n; i++)
		lines_add(lines, from->v[i]);
}

void lines_clear(struct lines *lines)
{
	for (size_t i = 0; i < lines->n; i++)
		free(lines->v[i]);
	free(lines->v);
	*lines = (struct lines){0};
}

const char *lines_first(const struct lines *lines)
{
	return lines->n ? lines->v[0] : "";
}

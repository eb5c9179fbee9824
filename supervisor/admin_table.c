#include "supervisor/admin_table.h"

#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define COLUMNS_MAX 16

static char *text(const char *format, ...) __attribute__((format(printf, 1, 2)));
static char *text(const char *format, ...)
{
	char *out = NULL;
	va_list args;
	va_start(args, format);
	if (vasprintf(&out, format, args) < 0)
		out = NULL;
	va_end(args);
	return out ? out : strdup("");
}

static char *bytes_text(double n)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
	unsigned unit = 0;
	while (n >= 1024 && unit < 5) {
		n /= 1024;
		unit++;
	}
	return unit ? text("%.1f %s", n, units[unit]) : text("%.0f B", n);
}

static char *seconds_text(double s)
{
	unsigned long whole = s > 0 ? (unsigned long)s : 0;
	if (s < 10)
		return text("%.2fs", s);
	if (whole < 60)
		return text("%lus", whole);
	if (whole < 3600)
		return text("%lum%02lus", whole / 60, whole % 60);
	if (whole < 86400)
		return text("%luh%02lum", whole / 3600, whole / 60 % 60);
	return text("%lud%luh", whole / 86400, whole / 3600 % 24);
}

static char *time_text(double seconds)
{
	time_t t = (time_t)seconds;
	struct tm tm;
	char out[32];
	if (!t || !localtime_r(&t, &tm) || !strftime(out, sizeof(out), "%Y-%m-%d %H:%M:%S %Z", &tm))
		return text("-");
	return text("%s", out);
}

/* What a peer put into a name must not steer the terminal. */
static char *printable(const char *from)
{
	char *out = strdup(from);
	for (char *p = out; p && *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = '?';
	return out ? out : strdup("");
}

static char *plain(const json_t *v);

static char *joined(const json_t *list)
{
	char *out = strdup("");
	for (size_t i = 0; out && i < json_array_size(list); i++) {
		char *one = plain(json_array_get(list, i));
		char *more = text("%s%s%s", out, i ? "," : "", one);
		free(one);
		free(out);
		out = more;
	}
	if (out && *out)
		return out;
	free(out);
	return text("-");
}

static char *members(const json_t *object)
{
	const char *key;
	json_t *value;
	char *out = strdup("");
	json_object_foreach((json_t *)object, key, value) {
		char *one = plain(value);
		char *more = text("%s%s%s=%s", out, *out ? " " : "", key, one);
		free(one);
		free(out);
		out = more;
	}
	if (*out)
		return out;
	free(out);
	return text("-");
}

static char *plain(const json_t *v)
{
	switch (v ? json_typeof(v) : JSON_NULL) {
	case JSON_STRING: return *json_string_value(v) ? printable(json_string_value(v)) : text("-");
	case JSON_INTEGER: return text("%lld", (long long)json_integer_value(v));
	case JSON_REAL: return text("%.6g", json_real_value(v));
	case JSON_TRUE: return text("yes");
	case JSON_FALSE: return text("no");
	case JSON_ARRAY: return joined(v);
	case JSON_OBJECT: return members(v);
	default: return text("-");
	}
}

static const json_t *member(const json_t *row, const char *key)
{
	char name[64];
	const char *dot;
	while (row && (dot = strchr(key, '.'))) {
		snprintf(name, sizeof(name), "%.*s", (int)(dot - key), key);
		row = json_object_get(row, name);
		key = dot + 1;
	}
	return row ? json_object_get(row, key) : NULL;
}

char *admin_cell(const json_t *row, const struct admin_column *column)
{
	const json_t *v = member(row, column->key);
	double n = v && json_is_number(v) ? json_number_value(v) : NAN;
	if (isnan(n))
		return plain(v);
	switch (column->format) {
	case ADMIN_BYTES: return bytes_text(n);
	case ADMIN_SECONDS: return seconds_text(n);
	case ADMIN_MS: return n >= 4294967295.0 ? text("ever") : n ? text("%.0f ms", n) : text("-");
	case ADMIN_US: return n ? text("%.2f ms", n / 1000) : text("-");
	case ADMIN_TIME: return time_text(n);
	default: return plain(v);
	}
}

/* --- layout --------------------------------------------------------------------------------------------------------- */

/* Columns on a screen, not bytes: continuation bytes of UTF-8 take no room. */
static int width(const char *s)
{
	int n = 0;
	for (; *s; s++)
		n += ((unsigned char)*s & 0xc0) != 0x80;
	return n;
}

static void put(FILE *out, const char *cell, int room, bool right, bool last)
{
	int pad = room - width(cell);
	if (right)
		fprintf(out, "%*s%s", pad, "", cell);
	else
		fprintf(out, "%s%*s", cell, last ? 0 : pad, "");
	fputs(last ? "\n" : "  ", out);
}

static bool right_aligned(const struct admin_column *c)
{
	return c->format != ADMIN_TEXT && c->format != ADMIN_TIME;
}

void admin_table(FILE *out, const json_t *rows, const struct admin_column *columns)
{
	int room[COLUMNS_MAX] = {0};
	size_t n = 0, count = json_array_size(rows);
	while (columns[n].title && n < COLUMNS_MAX) {
		room[n] = width(columns[n].title);
		n++;
	}
	char **cells = calloc(count * n + 1, sizeof(*cells));
	if (!cells)
		return;
	for (size_t i = 0; i < count * n; i++) {
		cells[i] = admin_cell(json_array_get(rows, i / n), &columns[i % n]);
		if (width(cells[i]) > room[i % n])
			room[i % n] = width(cells[i]);
	}
	for (size_t c = 0; c < n; c++)
		put(out, columns[c].title, room[c], right_aligned(&columns[c]), c + 1 == n);
	for (size_t i = 0; i < count * n; i++) {
		put(out, cells[i], room[i % n], right_aligned(&columns[i % n]), i % n + 1 == n);
		free(cells[i]);
	}
	free(cells);
}

void admin_pairs(FILE *out, const json_t *object, const struct admin_column *columns)
{
	int room = 0;
	for (const struct admin_column *c = columns; c->title; c++)
		if (width(c->title) > room)
			room = width(c->title);
	for (const struct admin_column *c = columns; c->title; c++) {
		char *cell = admin_cell(object, c);
		if (strcmp(cell, "-")) {
			put(out, c->title, room, false, false);
			fprintf(out, "%s\n", cell);
		}
		free(cell);
	}
}

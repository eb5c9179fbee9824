/* Documents for people: tables of lists, pairs of objects. */
#ifndef HERMES_SUPERVISOR_ADMIN_TABLE_H
#define HERMES_SUPERVISOR_ADMIN_TABLE_H

#include <jansson.h>
#include <stdio.h>

enum admin_format {
	ADMIN_TEXT,
	ADMIN_COUNT,      /* right-aligned from here on */
	ADMIN_BYTES,      /* 1.2 MiB */
	ADMIN_SECONDS,    /* 3d4h, 5m12s, 1.25s */
	ADMIN_MS,
	ADMIN_US,         /* 1.25 ms; - for 0 */
	ADMIN_TIME,       /* seconds since 1970 as local date and time */
};

/* key: a member's name, "a.b" for a member's member; lists are joined by commas. A spec ends with title NULL. */
struct admin_column {
	const char *title, *key;
	enum admin_format format;
};

/* The value as text; "-" where there is none. malloc'd. */
char *admin_cell(const json_t *row, const struct admin_column *column);
/* One line per element, columns as wide as they need to be. */
void admin_table(FILE *out, const json_t *rows, const struct admin_column *columns);
/* One line per column: "title  value" */
void admin_pairs(FILE *out, const json_t *object, const struct admin_column *columns);

#endif

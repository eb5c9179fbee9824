/* A growing buffer of text, and the escapes that keep what came from outside from doing harm in it. */
#ifndef HERMES_TELEMETRY_TEXT_H
#define HERMES_TELEMETRY_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct text {
	char *data;               /* NUL-terminated once something was put */
	size_t length, size;
	bool failed;              /* out of memory: everything after is dropped */
};
void text_free(struct text *text);
void text_clear(struct text *text);              /* keeps the memory */
void text_put(struct text *text, const char *data, size_t length);
void text_puts(struct text *text, const char *string);
void text_printf(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Reads one character of UTF-8 (RFC 3629); its length, or 0 where the bytes are none. */
size_t text_utf8(const char *s, size_t left, uint32_t *character);
/* A character that may make a terminal or a reader see something else than what is there: controls (C0, DEL, C1), line
 * and paragraph separators, directional overrides. */
bool text_is_control(uint32_t character);

/* As a value of logfmt: bare where that is plain, else in double quotes with \" \\ \n \r \t, and \xHH for every byte of a
 * control or of invalid UTF-8. */
void text_logfmt(struct text *text, const char *value);
/* As a label value of OpenMetrics, without its quotes: \\ \" \n; other controls and invalid bytes as \\xHH. */
void text_label(struct text *text, const char *value);

#endif

/* What may come before the YAML parser: libfyaml 0.7 loops for ever on some malformed UTF-8, leaks on other, and takes the
 * square of the length of a run of blanks. Internal to store/. */
#ifndef HERMES_STORE_YAML_TEXT_H
#define HERMES_STORE_YAML_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct yaml_fault;

/* Whether the text is UTF-8 without control characters (YAML 1.2.2 5.1), without directives (lines that begin with %),
 * without runs of more than 256 blanks and line ends, and with a million values at most; else *fault says where it is not. */
bool yaml_text_check(const char *text, size_t length, struct yaml_fault *fault);

/* The first character of text and, in *bytes, its length; -1: no UTF-8 (RFC 3629: shortest form, no surrogates). */
int32_t yaml_text_decode(const char *text, size_t left, unsigned *bytes);

#endif

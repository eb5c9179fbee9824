/* SPDX-License-Identifier: Apache-2.0 */
#include "store/yaml_text.h"
#include "store/yaml_tree.h"

#include <stdint.h>
#include <stdio.h>

#define RUN_MAX 256               /* 16 MiB of such runs take libfyaml some seconds */
#define VALUES_MAX 1000000        /* of a document that is one flow collection libfyaml keeps all tokens, 200 bytes each */
#define BOM 0xfeff

int32_t yaml_text_decode(const char *text, size_t left, unsigned *bytes)
{
	const unsigned char *at = (const unsigned char *)text;
	static const int32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	unsigned n = *at < 0x80 ? 1 : *at < 0xc2 ? 0 : *at < 0xe0 ? 2 : *at < 0xf0 ? 3 : *at < 0xf5 ? 4 : 0;
	int32_t c = n == 1 ? *at : *at & (0x7f >> n);

	*bytes = n;
	if (!n || n > left)
		return -1;
	for (unsigned i = 1; i < n; i++) {
		if ((at[i] & 0xc0) != 0x80)
			return -1;
		c = c << 6 | (at[i] & 0x3f);
	}
	return c < least[n] || (c >= 0xd800 && c < 0xe000) || c > 0x10ffff ? -1 : c;
}

/* YAML 1.2.2 [1] c-printable */
static bool printable(int32_t c)
{
	if (c < 0x20)
		return c == '\t' || c == '\n' || c == '\r';
	return c < 0x7f || c == 0x85 || (c >= 0xa0 && c != 0xfffe && c != 0xffff);
}

static bool refuse(struct yaml_fault *fault, unsigned line, unsigned column, const char *text)
{
	fault->line = line;
	fault->column = column;
	snprintf(fault->text, sizeof(fault->text), "%s", text);
	return false;
}

/* Whether a character may begin another value: a colon does before a blank and, as in JSON, after a quote. */
static bool separates(int32_t c, int32_t before)
{
	return c == '[' || c == '{' || c == ',' || ((c == ' ' || c == '\n') && before == ':') ||
	       (c == ':' && (before == '"' || before == '\''));
}

bool yaml_text_check(const char *text, size_t length, struct yaml_fault *fault)
{
	const unsigned char *at = (const unsigned char *)text, *end = at + length;
	unsigned line = 1, column = 1, run = 0, values = 0, bytes;
	int32_t before = 0;

	for (; at < end; at += bytes, column++) {
		int32_t c = yaml_text_decode((const char *)at, (size_t)(end - at), &bytes);
		if (c < 0)
			return refuse(fault, line, column, "a byte that is no UTF-8; expected text in UTF-8");
		if (!c)
			return refuse(fault, line, column, "a NUL character; expected text");
		if (!printable(c) || (c == BOM && before))
			return refuse(fault, line, column, "a control character; expected text (in double quotes, \"\\x1f\" stands for one)");
		if (c == '%' && column == 1)
			return refuse(fault, line, column, "a directive (a line that begins with %); expected the configuration alone");
		run = c == ' ' || c == '\t' || c == '\n' || c == '\r' ? run + 1 : 0;
		if (run > RUN_MAX)
			return refuse(fault, line, column, "more than 256 blanks and line ends in a row; expected fewer");
		values += separates(c, before);
		if (values > VALUES_MAX)
			return refuse(fault, line, column, "the document has more than a million values");
		if (c == '\r' || (c == '\n' && before != '\r'))
			line++;
		if (c == '\r' || c == '\n')
			column = 0;
		before = c;
	}
	return true;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor/admin_options.h"

#include <stdlib.h>
#include <string.h>

#include "supervisor/admin_verbs.h"

static const struct admin_option *find(const struct admin_option *options, const char *word)
{
	for (; options->name; options++)
		if (!strcmp(options->name, word))
			return options;
	return NULL;
}

int admin_options(int argc, char **argv, const struct admin_option *options)
{
	int left = 0;
	for (int i = 0; i < argc; i++) {
		const struct admin_option *o = find(options, argv[i]);
		if (!o && !strncmp(argv[i], "--", 2)) {
			admin_error("%s: no such option", argv[i]);
			return -1;
		}
		if (!o) {
			argv[left++] = argv[i];
		} else if (o->flag) {
			*o->flag = true;
		} else if (i + 1 < argc) {
			*o->value = argv[++i];
		} else {
			admin_error("%s: its value is missing", argv[i]);
			return -1;
		}
	}
	return left;
}

double admin_seconds(const char *text)
{
	static const struct { const char *unit; double seconds; } units[] = {
		{"", 1}, {"ms", 0.001}, {"s", 1}, {"m", 60}, {"h", 3600}, {"d", 86400}};
	char *end;
	double n = strtod(text, &end);
	for (size_t i = 0; end != text && n >= 0 && i < sizeof(units) / sizeof(*units); i++)
		if (!strcmp(end, units[i].unit))
			return n * units[i].seconds;
	return -1;
}

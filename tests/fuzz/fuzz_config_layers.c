/* Two documents, divided by a line "====", laid over each other: what is merged is written as text that says the same, and nothing of
 * what either says gets lost on the way through the parser. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/config.h"
#include "store/config_arena.h"
#include "store/yaml_merge.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define DIVIDER "====\n"

static char *merged(const struct config_layer *layers, size_t n, bool origins)
{
	struct config_report report = {0};
	char *text = config_merged(layers, n, origins, &report);

	if (!text && !report.n_errors)
		abort();
	config_report_free(&report);
	return text;
}

static char *model(const struct config_layer *layers, size_t n)
{
	struct config_report report = {0};
	struct config *config = config_parse_layers(layers, n, &report);
	char *json = config ? config_json(config) : NULL;

	if (!config && !report.n_errors)
		abort();
	config_free(config);
	config_report_free(&report);
	return json;
}

static void check_json(const struct config_layer *layers, size_t n)
{
	struct config_report report = {0};
	struct config_arena *arena = config_arena_new(0);
	struct yaml_fault fault;
	char *origins, *text = config_effective(layers, n, &origins, &report);

	if (text && !origins)
		abort();
	if (origins && !yaml_parse(origins, strlen(origins), arena, &fault) && !strstr(fault.text, "deep") &&
	    !strstr(fault.text, "million") && !strstr(fault.text, "blanks"))
		abort();
	free(text);
	free(origins);
	config_arena_free(arena);
	config_report_free(&report);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *cut = memmem(data, size, DIVIDER, strlen(DIVIDER));
	size_t first = cut ? (size_t)(cut - data) : size, rest = cut ? first + strlen(DIVIDER) : size;
	struct config_layer layers[2] = {{"local", (const char *)data, first}, {"controller 1", (const char *)data + rest, size - rest}};
	char *text = merged(layers, cut ? 2 : 1, false), *origins = merged(layers, cut ? 2 : 1, true);

	if (!text != !origins)
		abort();
	check_json(layers, cut ? 2 : 1);
	if (text) {
		struct config_layer again = {"local", text, strlen(text)}, commented = {"local", origins, strlen(origins)};
		char *twice = merged(&again, 1, false), *without = merged(&commented, 1, false);
		if (!twice || strcmp(text, twice) || !without || strcmp(text, without))
			abort();
		char *a = model(layers, cut ? 2 : 1), *b = model(&again, 1);
		if (!a != !b || (a && strcmp(a, b)))
			abort();
		free(a);
		free(b);
		free(twice);
		free(without);
	}
	free(text);
	free(origins);
	return 0;
}

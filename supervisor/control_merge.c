/* SPDX-License-Identifier: Apache-2.0 */
/* What several workers say of the same things, put together by name. */
#include <jansson.h>

#include "supervisor/control_internal.h"

#include <stdlib.h>
#include <string.h>

static json_t *find(json_t *list, const char *name)
{
	size_t i;
	json_t *one;
	json_array_foreach(list, i, one) {
		const char *its = json_string_value(json_object_get(one, "name"));
		if (its && strcmp(its, name) == 0)
			return one;
	}
	return NULL;
}

char *merge_by_name(const char *list)
{
	json_t *all = json_loads(list, 0, NULL), *merged = json_array(), *one;
	size_t i;
	json_array_foreach(all, i, one) {
		const char *name = json_string_value(json_object_get(one, "name"));
		json_t *known = name ? find(merged, name) : NULL;
		if (known)
			json_object_update_missing(known, one);
		else if (name)
			json_array_append(merged, one);
	}
	char *text = json_is_array(all) ? json_dumps(merged, JSON_COMPACT) : NULL;
	json_decref(all);
	json_decref(merged);
	return text;
}

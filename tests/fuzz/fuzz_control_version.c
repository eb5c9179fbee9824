/* SPDX-License-Identifier: Apache-2.0 */
/* What a controller answers with a version, and what is remembered of versions. Nothing is believed that the key has not signed: the
 * fuzzer does not have it. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "workers/config-sync/control_verify.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct control_trust trust = {.domain = "example.net", .node = "alice", .last = 3,
	                                           .key = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="};
	struct control_version v;
	char why[64] = "";

	assert(control_verify((const char *)data, size, &trust, &v, why, sizeof(why)) == -1);
	assert(*why && memchr(why, '\0', sizeof(why)));
	control_version_clear(&v);
	control_version_clear(&v);
	return 0;
}

/* Any bytes as a packed configuration: refused, or one that can be shown and packed again. */
#include "store/config.h"

#include <assert.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct config *config = config_unpack(data, size);
	uint8_t *packed;
	size_t length;

	if (!config)
		return 0;
	free(config_json(config));
	assert(!config_pack(config, &packed, &length));
	free(packed);
	config_cluster(config, "x");
	config_listener(config, "x");
	config_free(config);
	return 0;
}

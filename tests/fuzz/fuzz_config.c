/* Any document: no crash, no leak; what is taken packs, unpacks and shows as JSON. */
#include "store/config.h"

#include <assert.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct config_report report = {0};
	struct config *config = config_parse("fuzz", (const char *)data, size, &report), *copy;
	uint8_t *packed = NULL;
	size_t length;

	assert(config ? report.n_errors == 0 : report.n_errors > 0);
	if (config) {
		assert(!config_pack(config, &packed, &length));
		copy = config_unpack(packed, length);
		assert(copy);
		free(config_json(copy));
		config_free(copy);
		free(packed);
	}
	config_free(config);
	config_report_free(&report);
	return 0;
}

/* Any text as address and as prefix. */
#include "store/config.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = strndup((const char *)data, size);
	struct config_address address;
	struct config_prefix prefix;
	const char *why = NULL;

	for (int required = 0; required < 2; required++) {
		if (config_address_parse(text, required, NULL, &address, &why))
			continue;
		assert(address.text && !address.host != !address.unix_path && (!required || address.port || address.unix_path));
		config_address_clear(&address);
	}
	if (!config_prefix_parse(text, &prefix, &why))
		assert(config_prefix_contains(&prefix, &prefix.address));
	free(text);
	return 0;
}

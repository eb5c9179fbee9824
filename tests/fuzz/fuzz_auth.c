/* Proxy-Authorization: what is accepted is a name without a colon and a password, both within bounds, free of controls. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "workers/tunnel/auth.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int condition)
{
	if (!condition)
		abort();
}

static void check_text(const char *text)
{
	for (; *text; text++)
		require((unsigned char)*text >= 0x20 && *text != 0x7f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char value[4096], name[64], password[128];
	if (size >= sizeof(value))
		return 0;
	memcpy(value, data, size);
	value[size] = 0;
	if (auth_basic(value, name, sizeof(name), password, sizeof(password)) != 0)
		return 0;
	require(name[0] && strlen(name) < sizeof(name) && strlen(password) < sizeof(password) && !strchr(name, ':'));
	check_text(name);
	check_text(password);
	return 0;
}

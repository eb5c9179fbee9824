/* The metrics listener's request parser: no input reads past its end, a prefix never claims more than is there, and what
 * is complete stays so when more follows. */
#include "workers/telemetry/http_request.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int n, size_t length, const struct http_request *request)
{
	if (n > (int)length || (n < 0 && n != -400 && n != -431 && n != -505))
		abort();
	if (n <= 0 || request->method == HTTP_OTHER)
		return;
	if (!request->path_length || request->path_length > (size_t)n || (*request->path != '/' && *request->path != '*'))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct http_request request;
	if (size > 2 * HTTP_HEAD_MAX)
		size = 2 * HTTP_HEAD_MAX;
	char *copy = malloc(size ? size : 1);     /* of exactly this size: the sanitizer sees every byte too much */
	if (!copy)
		return 0;
	memcpy(copy, data, size);
	int whole = http_request_parse(copy, size, &request);
	check(whole, size, &request);
	for (size_t part = 0; part < size; part += 1 + size / 16) {
		char *prefix = malloc(part ? part : 1);
		if (!prefix)
			break;
		memcpy(prefix, data, part);
		int n = http_request_parse(prefix, part, &request);
		if (n > (int)part || (n > 0 && n != whole) || (n < 0 && n != whole))
			abort();
		free(prefix);
	}
	free(copy);
	return 0;
}

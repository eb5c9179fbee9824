/* Responses to health checks, HTTP/1.1 and HTTP/2 (first byte's bit), cut into pieces anywhere (second byte). */
#include <stdint.h>
#include <stdlib.h>

#include "workers/tunnel/health_http.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 2)
		return 0;
	struct health_http *http = health_http_new(data[0] & 1, data[0] & 2, "example.com", "/up");
	size_t piece = data[1] ? data[1] : 1000, at = 2;
	struct chunks chunks = {0};
	int status = 0;
	health_http_output(http, &chunks);
	chunks_clear(&chunks);
	while (at < size && status == 0) {
		size_t n = size - at < piece ? size - at : piece;
		chunks_copy(&chunks, data + at, n);
		status = health_http_input(http, &chunks);
		if (status < -1 || status > 999 || (status > 0 && status < 200) || chunks.head)
			abort();
		health_http_output(http, &chunks);
		chunks_clear(&chunks);
		at += n;
	}
	health_http_free(http);
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "store/digest.h"

#include <sha2.h>
#include <stdio.h>

void digest_sha256(const void *data, size_t length, uint8_t out[32])
{
	SHA2_CTX context;

	SHA256Init(&context);
	if (length)
		SHA256Update(&context, data, length);
	SHA256Final(out, &context);
}

void digest_hex(const uint8_t digest[32], char out[65])
{
	for (unsigned i = 0; i < 32; i++)
		snprintf(out + 2 * i, 3, "%02x", digest[i]);
}

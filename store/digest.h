/* SHA-256, for digests of documents and records (not for secrets): OpenSSL stays in tunnel. */
#ifndef HERMES_STORE_DIGEST_H
#define HERMES_STORE_DIGEST_H
#include <stddef.h>
#include <stdint.h>
/* FIPS 180-4 */
void digest_sha256(const void *data, size_t length, uint8_t out[32]);
void digest_hex(const uint8_t digest[32], char out[65]);
#endif

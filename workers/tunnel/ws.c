#include "workers/tunnel/ws.h"

#include <openssl/evp.h>
#include <openssl/rand.h>
#include <string.h>

bool ws_key(char key[WS_KEY_SIZE])
{
	unsigned char nonce[16];
	if (RAND_bytes(nonce, sizeof(nonce)) != 1)
		return false;
	EVP_EncodeBlock((unsigned char *)key, nonce, sizeof(nonce));
	return true;
}

void ws_accept(const char *key, char accept[WS_ACCEPT_SIZE])
{
	static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
	unsigned char digest[EVP_MAX_MD_SIZE];
	char text[WS_KEY_SIZE + sizeof(guid)];
	unsigned length = 0;
	size_t n = strnlen(key, WS_KEY_SIZE - 1);
	memcpy(text, key, n);
	memcpy(text + n, guid, sizeof(guid) - 1);
	if (EVP_Digest(text, n + sizeof(guid) - 1, digest, &length, EVP_sha1(), NULL) != 1)
		length = 0;
	EVP_EncodeBlock((unsigned char *)accept, digest, (int)length);
}

/* Keys of the WebSocket opening handshake (RFC 6455 4). */
#ifndef HERMES_TUNNEL_WS_H
#define HERMES_TUNNEL_WS_H

#include <stdbool.h>

#define WS_KEY_SIZE 25        /* with NUL */
#define WS_ACCEPT_SIZE 29

/* A fresh random key. false: no randomness. */
bool ws_key(char key[WS_KEY_SIZE]);
/* What answers it. */
void ws_accept(const char *key, char accept[WS_ACCEPT_SIZE]);

#endif

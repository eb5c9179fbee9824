#include "workers/tunnel/masque.h"

#include <string.h>

bool masque_is_udp(const struct head *head) { return head->protocol && strcmp(head->protocol, "connect-udp") == 0; }
bool masque_is_ip(const struct head *head) { return head->protocol && strcmp(head->protocol, "connect-ip") == 0; }

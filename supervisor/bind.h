/* Addresses to sockets: bound, non-blocking, not listening. (A UDP socket receives from then on; nobody reads before
 * the configuration that asked for it is in force.) */
#ifndef HERMES_SUPERVISOR_BIND_H
#define HERMES_SUPERVISOR_BIND_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/types.h>

struct config_address;

struct bind_address {
	struct sockaddr_storage address;
	socklen_t length;
	bool any;              /* no host given: IPv4 and IPv6 */
	bool datagrams;        /* UDP */
	int type;              /* of socket; 0: as datagrams says */
	bool transparent;      /* takes what is for other addresses (IP_TRANSPARENT) */
	bool made;             /* a Unix socket's name in the file system is ours to remove */
	mode_t mode;           /* of a Unix socket; 0: 0666, as open to local programs as a port on the loopback address */
	uid_t uid;             /* and its owners; -1: ours */
	gid_t gid;
};

/* Numeric addresses, "localhost", no host at all, and Unix paths: names would need a resolver that blocks. Returns
 * 0, or -1 with the reason in error. The caller says then whether it is datagrams or transparent. */
int bind_resolve(const struct config_address *text, struct bind_address *out, char *error, size_t size);
bool bind_same(const struct bind_address *a, const struct bind_address *b);
bool bind_same_port(const struct bind_address *a, const struct bind_address *b);
/* Whether somebody else has the address: SO_REUSEPORT would hide it from us, where it is the same user. */
int bind_probe(const struct bind_address *address, char *error, size_t size);
/* One more socket of the address (after the first: of the port that it got; a Unix socket is shared). -1: error. */
int bind_open(struct bind_address *address, int first, char *error, size_t size);
/* "127.0.0.1:80", "[::1]:80", "unix:/path" */
void bind_describe(int fd, char *text, size_t size);
/* Whether fd is a socket that bind_open() could have made for the address, in another life. */
bool bind_fits(const struct bind_address *address, int fd);
/* Removes a Unix socket's name. */
void bind_forget(struct bind_address *address);

#endif

#include "supervisor/bind.h"
#include "store/config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static struct sockaddr_un *as_unix(const struct bind_address *a)
{
	return (struct sockaddr_un *)&a->address;
}

static in_port_t *port_of(const struct bind_address *a)
{
	return a->address.ss_family == AF_INET6 ? &((struct sockaddr_in6 *)&a->address)->sin6_port
	                                        : &((struct sockaddr_in *)&a->address)->sin_port;
}

/* --- resolving ------------------------------------------------------------------------------------------------------ */

static int resolve_unix(const char *path, struct bind_address *out, char *error, size_t size)
{
	struct sockaddr_un *un = as_unix(out);
	if (strlen(path) >= sizeof(un->sun_path)) {
		snprintf(error, size, "the path is longer than %zu bytes", sizeof(un->sun_path) - 1);
		return -1;
	}
	un->sun_family = AF_UNIX;
	strcpy(un->sun_path, path);
	out->length = sizeof(*un);
	return 0;
}

static bool resolve_v4(const char *host, in_port_t port, struct bind_address *out)
{
	struct sockaddr_in *in = (struct sockaddr_in *)&out->address;
	if (inet_pton(AF_INET, host, &in->sin_addr) != 1)
		return false;
	in->sin_family = AF_INET;
	in->sin_port = port;
	out->length = sizeof(*in);
	return true;
}

static bool resolve_v6(const char *host, in_port_t port, struct bind_address *out)
{
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&out->address;
	if (inet_pton(AF_INET6, host, &in6->sin6_addr) != 1)
		return false;
	in6->sin6_family = AF_INET6;
	in6->sin6_port = port;
	out->length = sizeof(*in6);
	return true;
}

int bind_resolve(const struct config_address *text, struct bind_address *out, char *error, size_t size)
{
	const char *host = text->host;
	*out = (struct bind_address){.uid = (uid_t)-1, .gid = (gid_t)-1};
	if (text->unix_path)
		return resolve_unix(text->unix_path, out, error, size);
	if (!host || !*host) {
		out->any = true;
		host = "::";
	} else if (strcmp(host, "localhost") == 0) {
		host = "127.0.0.1";
	}
	if (resolve_v4(host, htons(text->port), out) || resolve_v6(host, htons(text->port), out))
		return 0;
	snprintf(error, size, "%s is not a numeric address", host);
	return -1;
}

bool bind_same(const struct bind_address *a, const struct bind_address *b)
{
	/* port 0 is another port every time, so only the same socket is the same */
	return a->length == b->length && a->any == b->any && a->datagrams == b->datagrams &&
	       a->transparent == b->transparent && memcmp(&a->address, &b->address, a->length) == 0;
}

bool bind_same_port(const struct bind_address *a, const struct bind_address *b)
{
	if (a->address.ss_family == AF_UNIX || b->address.ss_family == AF_UNIX || a->datagrams != b->datagrams)
		return false;
	return *port_of(a) == *port_of(b);
}

/* --- opening -------------------------------------------------------------------------------------------------------- */

static void describe_failure(const struct bind_address *a, int code, char *error, size_t size)
{
	bool unix_socket = a->address.ss_family == AF_UNIX;
	if (code == EACCES && !unix_socket)
		snprintf(error, size, "ports below 1024 need root or CAP_NET_BIND_SERVICE");
	else if (code == EADDRINUSE && !unix_socket)
		snprintf(error, size, "another program has this address (ss -l%cnp shows which)", a->datagrams ? 'u' : 't');
	else if (code == EPERM && a->transparent)
		snprintf(error, size, "capturing others' traffic needs root or CAP_NET_ADMIN");
	else
		snprintf(error, size, "%s", strerror(code));
}

/* On an IPv6 socket the IPv4 option reaches what comes by IPv4. */
static int make_transparent(const struct bind_address *a, int fd)
{
	int one = 1;
	if (a->address.ss_family == AF_INET6 && setsockopt(fd, IPPROTO_IPV6, IPV6_TRANSPARENT, &one, sizeof(one)))
		return -1;
	return setsockopt(fd, IPPROTO_IP, IP_TRANSPARENT, &one, sizeof(one));
}

/* What is accepted inherits it: a client that vanished without a word is gone after two minutes. */
static void keep_alive(int fd)
{
	int one = 1, idle = 60, interval = 15, count = 4;
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
}

static int new_socket(const struct bind_address *a)
{
	static const int datagram_buffer = 4 << 20;
	int one = 1, only = !a->any, type = a->datagrams ? SOCK_DGRAM : SOCK_STREAM;
	int fd = socket(a->address.ss_family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -1;
	/* more than net.core.rmem_max, which the worker could not ask for */
	if (a->datagrams)
		setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &datagram_buffer, sizeof(datagram_buffer));
	/* of UDP sockets with this option the last one would take all */
	if (a->address.ss_family != AF_UNIX && !a->datagrams) {
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		keep_alive(fd);
	}
	if (a->address.ss_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, sizeof(only));
	return fd;
}

/* Does a program answer at the Unix socket? What nobody answers at is left over from one that was killed. */
static bool unix_in_use(const struct bind_address *a)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	bool in_use = fd >= 0 && (connect(fd, (const struct sockaddr *)&a->address, a->length) == 0 || errno == EAGAIN);
	if (fd >= 0)
		close(fd);
	return in_use;
}

static int clear_unix(const struct bind_address *a, char *error, size_t size)
{
	struct stat st;
	const char *path = as_unix(a)->sun_path;
	if (lstat(path, &st))
		return 0;
	if (!S_ISSOCK(st.st_mode)) {
		snprintf(error, size, "something that is no socket is in the way");
		return -1;
	}
	if (unix_in_use(a)) {
		snprintf(error, size, "another program listens there");
		return -1;
	}
	unlink(path);
	return 0;
}

int bind_probe(const struct bind_address *a, char *error, size_t size)
{
	int result = 0;
	if (a->address.ss_family == AF_UNIX)
		return clear_unix(a, error, size);
	int fd = new_socket(a);
	if (fd < 0)
		return 0;          /* bind_open() will say it */
	if (*port_of(a) && bind(fd, (const struct sockaddr *)&a->address, a->length) && errno == EADDRINUSE) {
		describe_failure(a, EADDRINUSE, error, size);
		result = -1;
	}
	close(fd);
	return result;
}

/* A kernel without IPv6: every IPv4 address instead. */
static void fall_back_to_v4(struct bind_address *a)
{
	in_port_t port = *port_of(a);
	a->address = (struct sockaddr_storage){0};
	resolve_v4("0.0.0.0", port, a);
}

static int bind_unix(struct bind_address *a, int fd)
{
	if (bind(fd, (struct sockaddr *)&a->address, a->length))
		return -1;
	a->made = true;
	/* the folder's permissions close it further */
	if ((a->uid != (uid_t)-1 || a->gid != (gid_t)-1) && chown(as_unix(a)->sun_path, a->uid, a->gid))
		return -1;
	return chmod(as_unix(a)->sun_path, a->mode ? a->mode : 0666);
}

static int bind_inet(const struct bind_address *a, int fd, int first)
{
	int one = 1;
	struct sockaddr_storage address = a->address;
	socklen_t length = a->length;
	if (first >= 0 && getsockname(first, (struct sockaddr *)&address, &length))
		return -1;
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one)) || (a->transparent && make_transparent(a, fd)))
		return -1;
	return bind(fd, (struct sockaddr *)&address, length);
}

int bind_open(struct bind_address *a, int first, char *error, size_t size)
{
	bool unix_socket = a->address.ss_family == AF_UNIX;
	if (unix_socket && first >= 0) {
		int copy = fcntl(first, F_DUPFD_CLOEXEC, 0);
		if (copy < 0)
			describe_failure(a, errno, error, size);
		return copy;
	}
	int fd = new_socket(a);
	if (fd < 0 && errno == EAFNOSUPPORT && a->any && a->address.ss_family == AF_INET6) {
		fall_back_to_v4(a);
		fd = new_socket(a);
	}
	if (fd >= 0 && (unix_socket ? bind_unix(a, fd) : bind_inet(a, fd, first)) == 0)
		return fd;
	describe_failure(a, errno, error, size);
	if (fd >= 0)
		close(fd);
	return -1;
}

static int option(int fd, int level, int name)
{
	int value = 0;
	socklen_t size = sizeof(value);
	return getsockopt(fd, level, name, &value, &size) ? -1 : value;
}

static bool same_unix(const struct sockaddr_un *bound, const struct bind_address *a)
{
	struct stat st;
	/* one whose name is gone is reached by nobody */
	return strcmp(bound->sun_path, ((const struct sockaddr_un *)&a->address)->sun_path) == 0 &&
	       lstat(bound->sun_path, &st) == 0 && S_ISSOCK(st.st_mode);
}

static bool same_inet(const struct sockaddr_storage *bound, const struct bind_address *a)
{
	struct sockaddr_storage with_port = a->address;
	in_port_t port = bound->ss_family == AF_INET6 ? ((const struct sockaddr_in6 *)bound)->sin6_port
	                                              : ((const struct sockaddr_in *)bound)->sin_port;
	if (!*port_of(a) && a->address.ss_family == AF_INET6)
		((struct sockaddr_in6 *)&with_port)->sin6_port = port;
	else if (!*port_of(a))
		((struct sockaddr_in *)&with_port)->sin_port = port;
	return memcmp(bound, &with_port, a->length) == 0;
}

bool bind_fits(const struct bind_address *a, int fd)
{
	struct sockaddr_storage bound = {0};
	socklen_t length = sizeof(bound);
	if (getsockname(fd, (struct sockaddr *)&bound, &length) || bound.ss_family != a->address.ss_family ||
	    option(fd, SOL_SOCKET, SO_TYPE) != (a->type ? a->type : a->datagrams ? SOCK_DGRAM : SOCK_STREAM))
		return false;
	if (bound.ss_family == AF_UNIX)
		return same_unix((const struct sockaddr_un *)&bound, a);
	if (bound.ss_family == AF_INET6 && option(fd, IPPROTO_IPV6, IPV6_V6ONLY) != !a->any)
		return false;
	return option(fd, SOL_SOCKET, SO_REUSEPORT) == 1 && option(fd, IPPROTO_IP, IP_TRANSPARENT) == a->transparent &&
	       same_inet(&bound, a);
}

void bind_describe(int fd, char *text, size_t size)
{
	struct sockaddr_storage address = {0};
	socklen_t length = sizeof(address);
	char host[INET6_ADDRSTRLEN] = "";
	if (getsockname(fd, (struct sockaddr *)&address, &length)) {
		snprintf(text, size, "?");
		return;
	}
	if (address.ss_family == AF_UNIX) {
		snprintf(text, size, "unix:%s", ((struct sockaddr_un *)&address)->sun_path);
	} else if (address.ss_family == AF_INET6) {
		struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&address;
		inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof(host));
		snprintf(text, size, "[%s]:%u", host, ntohs(in6->sin6_port));
	} else {
		struct sockaddr_in *in = (struct sockaddr_in *)&address;
		inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host));
		snprintf(text, size, "%s:%u", host, ntohs(in->sin_port));
	}
}

void bind_forget(struct bind_address *a)
{
	if (a->made)
		unlink(as_unix(a)->sun_path);
	a->made = false;
}

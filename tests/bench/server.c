/* The far end of every measurement: server PORT [TLS-PORT CERTIFICATE KEY], on all addresses (run it in a namespace).
 * A connection may begin with an HTTP/1.1 CONNECT, which is answered 200. Then a command: one letter, eight bytes (big
 * endian):
 *   D n: sends n bytes      U n: reads n bytes, answers one      P: sends one byte, then echoes
 *   R n: sends n bytes and closes                                I: sends one byte, then keeps quiet */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "tests/bench/lib/link.h"

#define CHUNK (256 * 1024)

struct peer {
	int fd;
	SSL *ssl;
	bool shaken, writing;
	char head[2048];          /* until the command is complete */
	size_t head_length;
	char mode;                /* 0: command not complete */
	uint64_t to_send, to_read;
	bool close_after;
};

static int epoll_fd;
static SSL_CTX *context;
static uint8_t buffer[CHUNK], filler[CHUNK];

static void peer_free(struct peer *p)
{
	if (p->ssl) {
		if (p->shaken)
			SSL_shutdown(p->ssl);
		SSL_free(p->ssl);
	}
	close(p->fd);
	free(p);
}

static ssize_t peer_read(struct peer *p, void *out, size_t size)
{
	if (!p->ssl)
		return recv(p->fd, out, size, 0);
	int n = SSL_read(p->ssl, out, (int)size);
	if (n > 0)
		return n;
	errno = EAGAIN;
	return SSL_get_error(p->ssl, n) == SSL_ERROR_WANT_READ ? -1 : 0;
}

static ssize_t peer_send(struct peer *p, const void *data, size_t length)
{
	if (!p->ssl)
		return send(p->fd, data, length, MSG_NOSIGNAL);
	int n = SSL_write(p->ssl, data, (int)length);
	if (n > 0)
		return n;
	errno = EAGAIN;
	return -1;
}

static void want_write(struct peer *p, bool on)
{
	if (p->writing == on)
		return;
	p->writing = on;
	struct epoll_event e = {.events = EPOLLIN | (on ? EPOLLOUT : 0u), .data.ptr = p};
	epoll_ctl(epoll_fd, EPOLL_CTL_MOD, p->fd, &e);
}

/* false: the peer is to be freed */
static bool peer_write(struct peer *p)
{
	while (p->to_send > 0) {
		ssize_t n = peer_send(p, filler, p->to_send < CHUNK ? (size_t)p->to_send : CHUNK);
		if (n < 0) {
			if (errno != EAGAIN)
				return false;
			want_write(p, true);
			return true;
		}
		p->to_send -= (uint64_t)n;
	}
	want_write(p, false);
	return !p->close_after;
}

static void obey(struct peer *p, const char *command)
{
	uint64_t n = 0;

	for (int i = 1; i < 9; i++)
		n = n << 8 | (uint8_t)command[i];
	p->mode = command[0];
	p->to_send = p->mode == 'D' || p->mode == 'R' ? n : p->mode == 'P' || p->mode == 'I' ? 1 : 0;
	p->to_read = p->mode == 'U' ? n : 0;
	p->close_after = p->mode == 'R';
}

static bool take_payload(struct peer *p, const uint8_t *data, size_t length)
{
	if (p->mode == 'U' && p->to_read > 0) {
		p->to_read -= length < p->to_read ? length : p->to_read;
		p->to_send += p->to_read == 0;
	} else if (p->mode == 'P') {
		return peer_send(p, data, length) == (ssize_t)length;
	}
	return true;
}

/* Bytes while the command is not complete: a CONNECT is answered and taken away, then nine bytes are the command. */
static bool take_head(struct peer *p, const uint8_t *data, size_t length)
{
	static const char answer[] = "HTTP/1.1 200 OK\r\n\r\n";
	size_t n = sizeof(p->head) - 1 - p->head_length;

	n = length < n ? length : n;
	memcpy(p->head + p->head_length, data, n);
	p->head_length += n;
	p->head[p->head_length] = '\0';
	if (strncmp(p->head, "CONNECT ", 8) == 0) {
		char *end = strstr(p->head, "\r\n\r\n");
		if (!end)
			return p->head_length < sizeof(p->head) - 1;
		if (peer_send(p, answer, sizeof(answer) - 1) < 0)
			return false;
		p->head_length -= (size_t)(end + 4 - p->head);
		memmove(p->head, end + 4, p->head_length + 1);
	}
	if (p->head_length < 9)
		return true;
	obey(p, p->head);
	return take_payload(p, (const uint8_t *)p->head + 9, p->head_length - 9) &&
	       take_payload(p, data + n, length - n);
}

static bool peer_readable(struct peer *p)
{
	for (;;) {
		ssize_t n = peer_read(p, buffer, sizeof(buffer));
		if (n < 0)
			return errno == EAGAIN;
		if (n == 0)
			return false;
		if (!(p->mode ? take_payload(p, buffer, (size_t)n) : take_head(p, buffer, (size_t)n)))
			return false;
		if (!p->ssl && (size_t)n < sizeof(buffer))
			return true;
	}
}

static bool peer_event(struct peer *p)
{
	if (p->ssl && !p->shaken) {
		int r = SSL_accept(p->ssl);
		if (r != 1)
			return SSL_get_error(p->ssl, r) == SSL_ERROR_WANT_READ;
		p->shaken = true;
	}
	return peer_readable(p) && (p->to_send == 0 || peer_write(p));
}

static int listen_on(const char *port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 4096) < 0)
		die("port %s: %s", port, strerror(errno));
	return fd;
}

static void accept_all(int listener, bool tls)
{
	int fd, one = 1;

	while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
		struct peer *p = calloc(1, sizeof(*p));
		p->fd = fd;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		if (tls) {
			p->ssl = SSL_new(context);
			SSL_set_fd(p->ssl, fd);
		}
		struct epoll_event e = {.events = EPOLLIN, .data.ptr = p};
		epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &e);
	}
}

static void serve(int plain, int tls)
{
	struct epoll_event events[256], e = {.events = EPOLLIN};

	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	e.data.ptr = &plain;
	epoll_ctl(epoll_fd, EPOLL_CTL_ADD, plain, &e);
	e.data.ptr = &tls;
	if (tls >= 0)
		epoll_ctl(epoll_fd, EPOLL_CTL_ADD, tls, &e);
	for (;;) {
		int n = epoll_wait(epoll_fd, events, 256, -1);
		for (int i = 0; i < n; i++) {
			if (events[i].data.ptr == &plain)
				accept_all(plain, false);
			else if (events[i].data.ptr == &tls)
				accept_all(tls, true);
			else if (!peer_event(events[i].data.ptr))
				peer_free(events[i].data.ptr);
		}
	}
}

int main(int argc, char **argv)
{
	if (argc != 2 && argc != 5)
		die("usage: server PORT [TLS-PORT CERTIFICATE KEY]");
	signal(SIGPIPE, SIG_IGN);
	if (argc == 5) {
		context = SSL_CTX_new(TLS_server_method());
		SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
		if (SSL_CTX_use_certificate_chain_file(context, argv[3]) != 1 ||
		    SSL_CTX_use_PrivateKey_file(context, argv[4], SSL_FILETYPE_PEM) != 1)
			die("certificate %s, key %s", argv[3], argv[4]);
	}
	serve(listen_on(argv[1]), argc == 5 ? listen_on(argv[2]) : -1);
	return 0;
}

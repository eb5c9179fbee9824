#include "tests/bench/lib/link_internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#define CHUNK (256 * 1024)

static int epoll_fd = -1;
static bool stopped;
static SSL_CTX *context;
static uint8_t filler[CHUNK], scratch[CHUNK];
static struct link *graveyard[65536];
static size_t n_graveyard;

void die(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fputc('\n', stderr);
	exit(1);
}

uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void link_init(void)
{
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	context = SSL_CTX_new(TLS_client_method());
	SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
	if (SSL_CTX_set_ciphersuites(context, "TLS_AES_256_GCM_SHA384") != 1)
		die("no AES-256-GCM");
	SSL_CTX_set_verify(context, SSL_VERIFY_NONE, NULL);
	SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
}

static void want_write(struct link *l, bool on)
{
	if (l->writing == on)
		return;
	l->writing = on;
	struct epoll_event e = {.events = EPOLLIN | (on ? EPOLLOUT : 0u), .data.ptr = l};
	epoll_ctl(epoll_fd, EPOLL_CTL_MOD, l->fd, &e);
}

size_t tunnel_take(struct tunnel *t, uint8_t *out, size_t size)
{
	size_t n = t->head_length - t->head_sent;

	if (n > size)
		n = size;
	memcpy(out, t->head + t->head_sent, n);
	t->head_sent += n;
	size_t fill = size - n;
	if (fill > t->fill)
		fill = (size_t)t->fill;
	memcpy(out + n, filler, fill);
	t->fill -= fill;
	return n + fill;
}

bool tunnel_empty(const struct tunnel *t)
{
	return t->head_sent == t->head_length && t->fill == 0;
}

/* --- bytes towards the socket */

static bool flush_pending(struct link *l)
{
	while (l->pending_sent < l->pending_length) {
		ssize_t n = send(l->fd, l->pending + l->pending_sent, l->pending_length - l->pending_sent, MSG_NOSIGNAL);
		if (n < 0) {
			if (errno != EAGAIN && errno != ENOTCONN) {
				l->dead = true;
				return false;
			}
			want_write(l, true);
			return false;
		}
		l->pending_sent += (size_t)n;
	}
	l->pending_length = l->pending_sent = 0;
	return true;
}

/* What TLS has written so far goes to the socket; false: the socket is full. */
static bool flush_tls(struct link *l)
{
	for (;;) {
		if (!flush_pending(l))
			return false;
		char *data;
		long n = BIO_get_mem_data(l->out, &data);
		if (n <= 0)
			return true;
		ssize_t sent = send(l->fd, data, (size_t)n, MSG_NOSIGNAL);
		if (sent < 0 && errno != EAGAIN) {
			l->dead = true;
			return false;
		}
		size_t left = (size_t)n - (sent > 0 ? (size_t)sent : 0);
		if (left > 0) {
			l->pending = realloc(l->pending, left);
			memcpy(l->pending, data + (size_t)n - left, left);
			l->pending_length = left;
		}
		(void)BIO_reset(l->out);
	}
}

static size_t gather(struct link *l, uint8_t *out, size_t size)
{
	size_t length = 0;

	if (!l->h2)
		return l->single && l->state == UP ? tunnel_take(l->single, out, size) : 0;
	while (size - length > 17000) {
		const uint8_t *data;
		ssize_t n = nghttp2_session_mem_send(l->h2, &data);
		if (n < 0)
			die("nghttp2: %s", nghttp2_strerror((int)n));
		if (n == 0)
			break;
		memcpy(out + length, data, (size_t)n);
		length += (size_t)n;
	}
	return length;
}

static void write_tls(struct link *l)
{
	while (flush_tls(l)) {
		size_t n = gather(l, scratch, sizeof(scratch));
		if (n == 0) {
			want_write(l, false);
			if (l->single && l->single->finish && !l->single->finished) {
				l->single->finished = true;
				SSL_shutdown(l->ssl);
				flush_tls(l);
			}
			return;
		}
		if (SSL_write(l->ssl, scratch, (int)n) != (int)n)
			die("SSL_write");
	}
}

static void write_tcp(struct link *l)
{
	struct tunnel *t = l->single;

	if (!t || l->state != UP)
		return;
	while (!tunnel_empty(t)) {
		size_t head = t->head_length - t->head_sent;
		size_t fill = t->fill > sizeof(filler) ? sizeof(filler) : (size_t)t->fill;
		ssize_t n = head ? send(l->fd, t->head + t->head_sent, head, MSG_NOSIGNAL)
		                 : send(l->fd, filler, fill, MSG_NOSIGNAL);
		if (n < 0) {
			if (errno == EAGAIN)
				want_write(l, true);
			else
				l->dead = true;
			return;
		}
		if (head)
			t->head_sent += (size_t)n;
		else
			t->fill -= (size_t)n;
	}
	want_write(l, false);
	if (t->finish && !t->finished) {
		t->finished = true;
		shutdown(l->fd, SHUT_WR);
	}
}

static void link_write(struct link *l)
{
	if (l->dead || l->state == CONNECTING)
		return;
	if (l->ssl)
		write_tls(l);
	else
		write_tcp(l);
}

void link_kick(struct link *l)
{
	link_write(l);
}

void tunnel_kick(struct tunnel *t)
{
	if (t->link->h2 && t->stream > 0)
		nghttp2_session_resume_data(t->link->h2, t->stream);
}

/* --- ends */

void tunnel_closed(struct tunnel *t, bool clean)
{
	t->link->tunnels--;
	t->events->closed(t, clean);
}

static void link_bury(struct link *l)
{
	if (l->fd < 0)
		return;
	close(l->fd);
	l->fd = -1;
	if (n_graveyard < sizeof(graveyard) / sizeof(*graveyard))
		graveyard[n_graveyard++] = l;
}

void link_close(struct link *l)
{
	if (l->fd < 0)
		return;
	link_bury(l);
	if (l->single) {
		struct tunnel *t = l->single;
		l->single = NULL;
		tunnel_closed(t, !l->dead);
	}
}

static void link_free(struct link *l)
{
	if (l->h2)
		nghttp2_session_del(l->h2);
	SSL_free(l->ssl);
	free(l->pending);
	free(l->waiting);
	free(l);
}

static void dig_graves(void)
{
	while (n_graveyard > 0)
		link_free(graveyard[--n_graveyard]);
}

/* --- bytes from the socket */

static void single_up(struct link *l)
{
	l->state = UP;
	if (!l->single)
		return;
	l->single->opened = true;
	l->single->events->open(l->single);
}

static void h1_data(struct link *l, const uint8_t *data, size_t length)
{
	if (l->state == UP) {
		l->single->events->data(l->single, data, length);
		return;
	}
	size_t n = length < sizeof(l->head) - 1 - l->head_length ? length : sizeof(l->head) - 1 - l->head_length;
	size_t before = l->head_length;
	memcpy(l->head + before, data, n);
	l->head_length += n;
	l->head[l->head_length] = '\0';
	char *end = strstr(l->head, "\r\n\r\n");
	if (!end)
		return;
	if (strncmp(l->head, "HTTP/1.1 2", 10) != 0)
		die("CONNECT refused: %.60s", l->head);
	size_t used = (size_t)(end + 4 - l->head) - before;
	single_up(l);
	if (used < length)
		l->single->events->data(l->single, data + used, length - used);
}

static void handshake(struct link *l)
{
	int r = SSL_do_handshake(l->ssl);

	if (r != 1) {
		int error = SSL_get_error(l->ssl, r);
		if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE)
			die("TLS to %s:%u: %s", l->target.host, l->target.port, ERR_error_string(ERR_get_error(), NULL));
		flush_tls(l);
		return;
	}
	l->state = UP;
	if (l->target.kind == LINK_TLS) {
		single_up(l);
		return;
	}
	h2_start(l);
	for (size_t i = 0; i < l->n_waiting; i++)
		h2_tunnel(l, l->waiting[i]);
	l->n_waiting = 0;
}

static void read_tls(struct link *l)
{
	static uint8_t plain[CHUNK];

	if (l->state == HANDSHAKE)
		handshake(l);
	while (l->state == UP && l->fd >= 0) {
		int n = SSL_read(l->ssl, plain, sizeof(plain));
		if (n <= 0) {
			if (SSL_get_error(l->ssl, n) == SSL_ERROR_ZERO_RETURN)
				link_close(l);
			return;
		}
		if (!l->h2) {
			l->single->events->data(l->single, plain, (size_t)n);
			continue;
		}
		ssize_t used = nghttp2_session_mem_recv(l->h2, plain, (size_t)n);
		if (used < 0)
			die("nghttp2: %s", nghttp2_strerror((int)used));
	}
}

static void link_read(struct link *l)
{
	while (l->fd >= 0) {
		ssize_t n = recv(l->fd, scratch, sizeof(scratch), 0);
		if (n < 0 && errno == EAGAIN)
			return;
		if (n <= 0) {
			l->dead = n < 0;
			if (l->h2 && l->tunnels > 0)
				die("connection lost with %u tunnels: %s", l->tunnels, n < 0 ? strerror(errno) : "end");
			link_close(l);
			return;
		}
		if (l->ssl) {
			BIO_write(l->in, scratch, (int)n);
			read_tls(l);
		} else if (l->target.kind == LINK_H1) {
			h1_data(l, scratch, (size_t)n);
		} else {
			l->single->events->data(l->single, scratch, (size_t)n);
		}
		if ((size_t)n < sizeof(scratch))
			return;
	}
}

/* --- starting */

static void link_connected(struct link *l)
{
	int error = 0;
	socklen_t size = sizeof(error);

	getsockopt(l->fd, SOL_SOCKET, SO_ERROR, &error, &size);
	if (error)
		die("connect %s:%u: %s", l->target.host, l->target.port, strerror(error));
	want_write(l, false);
	if (l->ssl) {
		l->state = HANDSHAKE;
		handshake(l);
	} else if (l->target.kind == LINK_H1) {
		char head[512];
		int n = snprintf(head, sizeof(head), "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", l->target.authority,
		                 l->target.authority);
		l->state = CONNECT_SENT;
		if (send(l->fd, head, (size_t)n, MSG_NOSIGNAL) != n)
			die("send: %s", strerror(errno));
	} else {
		single_up(l);
	}
}

struct link *link_new(const struct link_target *target)
{
	struct link *l = calloc(1, sizeof(*l));
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(target->port)};
	int one = 1;

	l->target = *target;
	l->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (l->fd < 0 || inet_pton(AF_INET, target->host, &a.sin_addr) != 1)
		die("socket to %s: %s", target->host, strerror(errno));
	setsockopt(l->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (target->kind == LINK_TLS || target->kind == LINK_H2) {
		l->ssl = SSL_new(context);
		l->in = BIO_new(BIO_s_mem());
		l->out = BIO_new(BIO_s_mem());
		BIO_set_mem_eof_return(l->in, -1);
		SSL_set_bio(l->ssl, l->in, l->out);
		SSL_set_connect_state(l->ssl);
		if (target->kind == LINK_H2)
			SSL_set_alpn_protos(l->ssl, (const unsigned char *)"\2h2", 3);
	}
	if (connect(l->fd, (struct sockaddr *)&a, sizeof(a)) < 0 && errno != EINPROGRESS)
		die("connect %s:%u: %s", target->host, target->port, strerror(errno));
	l->writing = true;
	struct epoll_event e = {.events = EPOLLIN | EPOLLOUT, .data.ptr = l};
	epoll_ctl(epoll_fd, EPOLL_CTL_ADD, l->fd, &e);
	return l;
}

unsigned link_tunnels(const struct link *l)
{
	return l->tunnels;
}

void link_tunnel(struct link *l, struct tunnel *t)
{
	t->link = l;
	t->stream = 0;
	l->tunnels++;
	if (l->target.kind != LINK_H2) {
		l->single = t;
		return;
	}
	if (l->h2) {
		h2_tunnel(l, t);
		return;
	}
	l->waiting = realloc(l->waiting, (l->n_waiting + 1) * sizeof(struct tunnel *));
	l->waiting[l->n_waiting++] = t;
}

void link_stop(void)
{
	stopped = true;
}

void link_loop(uint64_t deadline)
{
	struct epoll_event events[256];

	stopped = false;
	while (!stopped) {
		if (deadline && now_ns() > deadline)
			return;
		int n = epoll_wait(epoll_fd, events, 256, deadline ? 100 : -1);
		for (int i = 0; i < n; i++) {
			struct link *l = events[i].data.ptr;
			if (l->fd < 0)
				continue;
			if (l->state == CONNECTING) {
				if (!(events[i].events & (EPOLLOUT | EPOLLERR | EPOLLHUP)))
					continue;
				link_connected(l);
			} else if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
				link_read(l);
			}
			if (l->fd >= 0)
				link_write(l);
			if (l->fd >= 0 && l->dead)
				link_close(l);
		}
		dig_graves();
	}
}

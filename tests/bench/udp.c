/* Load for UDP forwarders: a sender here, and the far end in another network namespace, which it joins. Prints one JSON object.
 *   udp flood NETNS ADDRESS PORT TARGET PORT SIZE COUNT FLOWS    COUNT datagrams to TARGET, at most WINDOW on their way
 *   udp ping NETNS ADDRESS PORT TARGET PORT SIZE ROUNDS          one there and back, after ROUNDS/10 to warm up
 * ADDRESS PORT: of the far end in NETNS; TARGET: where the sender sends to (the forwarder, or ADDRESS itself). Both ends use
 * segmentation offload, so that they cost little beside what is measured. Nothing is lost where the forwarder's buffers hold
 * WINDOW datagrams; what is lost is told. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/udp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "tests/bench/lib/link.h"

#define WINDOW 512
#define BATCH_BYTES 48000
#define SEGMENTS_MAX 64
#define BUFFER (8 << 20)

static struct {
	const char *netns, *address, *target;
	uint16_t port, target_port;
	unsigned size, flows;
	uint64_t count;
	bool echo;
	int wake;                     /* eventfd: the far end got something while the sender waited */
	_Atomic bool waiting, ready;
	_Atomic uint64_t received, bytes;
} job;

static struct sockaddr_in place(const char *host, uint16_t port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};

	if (inet_pton(AF_INET, host, &a.sin_addr) != 1)
		die("%s is no address", host);
	return a;
}

static int udp_socket(void)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), size = BUFFER;

	if (fd < 0)
		die("socket: %s", strerror(errno));
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)))
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size));
	return fd;
}

static void enter(const char *name)
{
	char path[128];

	snprintf(path, sizeof(path), "/run/netns/%s", name);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || setns(fd, CLONE_NEWNET))
		die("%s: %s", path, strerror(errno));
	close(fd);
}

/* --- the far end ------------------------------------------------------------------------------------------------------------ */

static unsigned segment_size(struct msghdr *message)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c))
		if (c->cmsg_level == SOL_UDP && c->cmsg_type == UDP_GRO)
			return (unsigned)*(int *)(void *)CMSG_DATA(c);
	return 0;
}

static void *far_end(void *unused)
{
	static char data[65536];
	char control[64];
	int one = 1;

	(void)unused;
	enter(job.netns);
	int fd = udp_socket();
	struct sockaddr_in here = place(job.address, job.port), from;
	if (bind(fd, (struct sockaddr *)&here, sizeof(here)))
		die("bind: %s", strerror(errno));
	if (!job.echo)
		setsockopt(fd, SOL_UDP, UDP_GRO, &one, sizeof(one));
	job.ready = true;
	for (;;) {
		struct iovec v = {data, sizeof(data)};
		struct msghdr m = {&from, sizeof(from), &v, 1, control, sizeof(control), 0};
		ssize_t n = recvmsg(fd, &m, 0);
		if (n < 0)
			continue;
		if (job.echo && sendto(fd, data, (size_t)n, 0, (struct sockaddr *)&from, sizeof(from)) < 0)
			die("sendto: %s", strerror(errno));
		unsigned segment = segment_size(&m);
		job.bytes += (uint64_t)n;
		job.received += segment ? ((uint64_t)n + segment - 1) / segment : 1;
		if (job.waiting) {
			job.waiting = false;
			eventfd_write(job.wake, 1);
		}
	}
	return NULL;
}

/* --- flood ------------------------------------------------------------------------------------------------------------------ */

/* Until something arrives, or for 200 ms: what is not there then is lost. Returns how many are on their way or lost. */
static uint64_t await(uint64_t sent, uint64_t *lost)
{
	struct pollfd p = {.fd = job.wake, .events = POLLIN};
	uint64_t before = job.received;
	eventfd_t ignored;

	job.waiting = true;
	if (job.received == before && poll(&p, 1, 200) == 0)
		*lost = sent - job.received;
	else if (p.revents)
		eventfd_read(job.wake, &ignored);
	job.waiting = false;
	return sent - job.received;
}

static void flood(const int *fds)
{
	static char data[BATCH_BYTES];
	unsigned batch = BATCH_BYTES / job.size < SEGMENTS_MAX ? BATCH_BYTES / job.size : SEGMENTS_MAX;
	uint64_t sent = 0, lost = 0, began = now_ns(), turn = 0;

	while (sent < job.count) {
		while (sent - job.received - lost + batch > WINDOW)
			await(sent, &lost);
		unsigned n = job.count - sent < batch ? (unsigned)(job.count - sent) : batch;
		if (send(fds[turn++ % job.flows], data, (size_t)n * job.size, 0) < 0)
			die("send: %s", strerror(errno));
		sent += n;
	}
	while (job.received + lost < sent)
		await(sent, &lost);
	double seconds = (double)(now_ns() - began) / 1e9;
	printf("{\"sent\": %lu, \"received\": %lu, \"seconds\": %.6f, \"per_s\": %.1f, \"gbit\": %.4f}\n", sent,
	       (uint64_t)job.received, seconds, (double)job.received / seconds, (double)job.bytes * 8 / seconds / 1e9);
}

/* --- ping ------------------------------------------------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void ping(int fd)
{
	uint64_t warm = job.count / 10 + 1, lost = 0, n = 0, *samples = calloc(job.count, sizeof(*samples));
	struct timeval patience = {.tv_sec = 1};
	char data[2048];

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	for (uint64_t i = 0; i < warm + job.count; i++) {
		uint64_t began = now_ns();
		if (send(fd, data, job.size, 0) < 0)
			die("send: %s", strerror(errno));
		if (recv(fd, data, sizeof(data), 0) < 0) {
			if (++lost > 10)
				die("no answers: %s", strerror(errno));
			continue;
		}
		if (i >= warm)
			samples[n++] = now_ns() - began;
	}
	qsort(samples, n, sizeof(*samples), by_value);
	printf("{\"count\": %lu, \"lost\": %lu, \"p50_us\": %.2f, \"p99_us\": %.2f}\n", n, lost, (double)samples[n / 2] / 1000,
	       (double)samples[(uint64_t)((double)n * 0.99)] / 1000);
	free(samples);
}

int main(int argc, char **argv)
{
	pthread_t thread;
	int fds[64];

	if (argc < 9)
		die("usage: see tests/bench/udp.c");
	job.echo = strcmp(argv[1], "ping") == 0;
	job.netns = argv[2];
	job.address = argv[3];
	job.port = (uint16_t)atoi(argv[4]);
	job.target = argv[5];
	job.target_port = (uint16_t)atoi(argv[6]);
	job.size = (unsigned)atoi(argv[7]);
	job.count = strtoull(argv[8], NULL, 10);
	job.flows = argc > 9 ? (unsigned)atoi(argv[9]) : 1;
	job.wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (job.size < 1 || job.size > 1472 || job.flows < 1 || job.flows > 64 || !job.count)
		die("sizes from 1 to 1472, flows from 1 to 64");
	if (pthread_create(&thread, NULL, far_end, NULL))
		die("pthread_create");
	while (!job.ready)
		usleep(1000);
	struct sockaddr_in to = place(job.target, job.target_port);
	for (unsigned i = 0; i < job.flows; i++) {
		int segment = (int)job.size;
		fds[i] = udp_socket();
		if (connect(fds[i], (struct sockaddr *)&to, sizeof(to)))
			die("connect: %s", strerror(errno));
		if (!job.echo && setsockopt(fds[i], SOL_UDP, UDP_SEGMENT, &segment, sizeof(segment)))
			die("UDP_SEGMENT: %s", strerror(errno));
	}
	if (job.echo)
		ping(fds[0]);
	else
		flood(fds);
	fflush(stdout);
	_exit(0);                         /* the far end waits for ever */
}

/* SPDX-License-Identifier: Apache-2.0 */
/* A link emulator in user space, for kernels without netem: two TUN devices in two network namespaces, and between them, for
 * each direction, what link_model.h says. Prints "ready" when the devices are there, and its counters as JSON at the end
 * (SIGTERM, SIGINT or "quit").
 *
 *   linkem --a NETNS:DEVICE --b NETNS:DEVICE [--control SOCKET] [--seed N] [--epoch NS] [--ab SHAPE] [--ba SHAPE]
 *   linkem --simulate COUNT,SIZE,INTERVAL [--seed N] [--ab SHAPE]        COUNT packets in virtual time, no network
 *
 * The control socket (Unix, datagrams) takes "stats", "quit", "set ab SHAPE", "set ba SHAPE", "set both SHAPE", and answers
 * with JSON. The epoch of outages is CLOCK_MONOTONIC, the same in all namespaces: links can take turns. */
#include "tests/netlab/link_model.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define PACKET_MAX 65536
#define BATCH 64                  /* packets read before the clock and the other direction are looked at again */
#define HELD_MAX ((size_t)512 << 20)

struct held { int64_t due; uint64_t order; unsigned length; unsigned char data[]; };

/* One direction; packets on their way lie in a heap by when they are due, and by arrival where that is the same. */
struct lane {
	struct link_way way;
	int in, out;
	struct held **heap;
	size_t n, size, held_bytes;
	uint64_t order, write_errors;
	double late_sum;              /* of writing after what was decided, ns */
	int64_t late_max;
	uint64_t late_over_100us;
	uint64_t written;
};

static struct lane lanes[2];      /* a to b, b to a */

static void die(const char *what)
{
	fprintf(stderr, "linkem: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int64_t clock_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* --- the heap --------------------------------------------------------------------------------------------------------------- */

static bool before(const struct held *a, const struct held *b)
{
	return a->due != b->due ? a->due < b->due : a->order < b->order;
}

static bool heap_push(struct lane *l, struct held *held)
{
	if (l->n == l->size) {
		size_t size = l->size ? l->size * 2 : 1024;
		struct held **heap = realloc(l->heap, size * sizeof(*heap));
		if (!heap)
			return false;
		l->heap = heap;
		l->size = size;
	}
	size_t i = l->n++;
	for (; i && before(held, l->heap[(i - 1) / 2]); i = (i - 1) / 2)
		l->heap[i] = l->heap[(i - 1) / 2];
	l->heap[i] = held;
	return true;
}

static struct held *heap_pop(struct lane *l)
{
	struct held *top = l->heap[0], *last = l->heap[--l->n];
	size_t i = 0, child;

	for (; (child = 2 * i + 1) < l->n; i = child) {
		if (child + 1 < l->n && before(l->heap[child + 1], l->heap[child]))
			child++;
		if (!before(l->heap[child], last))
			break;
		l->heap[i] = l->heap[child];
	}
	if (l->n)
		l->heap[i] = last;
	return top;
}

/* --- packets ---------------------------------------------------------------------------------------------------------------- */

static void deliver(struct lane *l, int64_t now, const void *data, unsigned length, int64_t due)
{
	int64_t late = now - due;

	if (write(l->out, data, length) != (ssize_t)length)
		l->write_errors++;
	l->written++;
	l->late_sum += (double)late;
	l->late_over_100us += late > 100000;
	if (late > l->late_max)
		l->late_max = late;
}

static void hold(struct lane *l, const void *data, unsigned length, int64_t due)
{
	struct held *held = l->held_bytes < HELD_MAX ? malloc(sizeof(*held) + length) : NULL;

	if (held) {
		held->due = due;
		held->order = l->order++;
		held->length = length;
		memcpy(held->data, data, length);
	}
	if (!held || !heap_push(l, held)) {
		free(held);
		l->way.fates[LINK_MEMORY]++;
		l->way.fates[LINK_DELIVERED]--;
		return;
	}
	l->held_bytes += length;
}

static void deliver_due(struct lane *l)
{
	for (int64_t now = 0; l->n; ) {
		if (l->heap[0]->due > now && l->heap[0]->due > (now = clock_now()))
			return;
		struct held *held = heap_pop(l);
		deliver(l, now, held->data, held->length, held->due);
		l->held_bytes -= held->length;
		free(held);
	}
}

/* Whether there may be more. */
static bool take_in(struct lane *l)
{
	static unsigned char packet[PACKET_MAX];
	enum link_fate fate;

	for (unsigned i = 0; i < BATCH; i++) {
		ssize_t n = read(l->in, packet, sizeof(packet));
		if (n <= 0)
			return false;
		int64_t now = clock_now(), due = link_offer(&l->way, now, (unsigned)n, &fate);
		if (due < 0)
			continue;
		if (due <= now && !l->n)
			deliver(l, now, packet, (unsigned)n, due);
		else
			hold(l, packet, (unsigned)n, due);
	}
	return true;
}

/* --- devices ---------------------------------------------------------------------------------------------------------------- */

/* A file of /dev/net/tun belongs to the namespace in which it was opened. where: NETNS:DEVICE. */
static int open_tun(const char *where)
{
	const char *colon = strrchr(where, ':');
	char path[128];
	struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI};

	if (!colon || strlen(colon + 1) >= sizeof(request.ifr_name)) {
		fprintf(stderr, "linkem: %s is not NETNS:DEVICE\n", where);
		exit(2);
	}
	snprintf(path, sizeof(path), "/run/netns/%.*s", (int)(colon - where), where);
	strcpy(request.ifr_name, colon + 1);
	int own = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC), other = open(path, O_RDONLY | O_CLOEXEC);
	if (own < 0 || other < 0 || setns(other, CLONE_NEWNET))
		die(path);
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0 || ioctl(fd, TUNSETIFF, &request))
		die("/dev/net/tun");
	if (setns(own, CLONE_NEWNET))
		die("setns");
	close(own);
	close(other);
	return fd;
}

/* --- control ---------------------------------------------------------------------------------------------------------------- */

static void lane_json(const struct lane *l, FILE *out)
{
	double n = (double)l->written;

	link_way_json(&l->way, out);
	fprintf(out, ",\"written\":%llu,\"held\":%zu,\"write_errors\":%llu,\"late_mean_s\":%.9f,\"late_max_s\":%.9f,"
	        "\"late_over_100us\":%llu}", (unsigned long long)l->written, l->n, (unsigned long long)l->write_errors,
	        n ? l->late_sum / n / 1e9 : 0, (double)l->late_max / 1e9, (unsigned long long)l->late_over_100us);
}

static void print_stats(FILE *out)
{
	fputs("{\"ab\":", out);
	lane_json(&lanes[0], out);
	fputs(",\"ba\":", out);
	lane_json(&lanes[1], out);
	fputs("}\n", out);
}

static void set_shapes(char *text, FILE *out)
{
	bool both = !strncmp(text, "both ", 5);
	const char *bad = text, *shape = text + (both ? 5 : 3);

	if (!both && strncmp(text, "ab ", 3) && strncmp(text, "ba ", 3))
		fprintf(out, "{\"error\":\"expected ab, ba or both\"}");
	else if ((both || *text == 'a' ? link_shape_parse(&lanes[0].way.shape, shape, &bad) : 0) ||
	         (both || *text == 'b' ? link_shape_parse(&lanes[1].way.shape, shape, &bad) : 0))
		fprintf(out, "{\"error\":\"not understood\"}");
	else
		fprintf(out, "{}");
}

/* Whether to go on. */
static bool control(int fd)
{
	char request[1024], answer[8192];
	struct sockaddr_un peer;
	socklen_t size = sizeof(peer);
	ssize_t n = recvfrom(fd, request, sizeof(request) - 1, MSG_DONTWAIT, (struct sockaddr *)&peer, &size);

	if (n < 0)
		return true;
	request[n] = '\0';
	FILE *out = fmemopen(answer, sizeof(answer), "w");
	if (!out)
		die("fmemopen");
	if (!strncmp(request, "set ", 4))
		set_shapes(request + 4, out);
	else
		print_stats(out);
	long length = ftell(out);
	fclose(out);
	if (sendto(fd, answer, (size_t)length, MSG_DONTWAIT, (struct sockaddr *)&peer, size) < 0)
		fprintf(stderr, "linkem: no answer to a request: %s\n", strerror(errno));
	return strcmp(request, "quit");
}

static int open_control(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (strlen(path) >= sizeof(address.sun_path)) {
		errno = ENAMETOOLONG;
		die(path);
	}
	strcpy(address.sun_path, path);
	unlink(path);
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)))
		die(path);
	return fd;
}

/* --- the loop --------------------------------------------------------------------------------------------------------------- */

static void watch(int epoll, int fd)
{
	struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};

	if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event))
		die("epoll_ctl");
}

/* Wakes when the next packet is due; a timerfd has no slack. */
static void set_timer(int fd)
{
	int64_t next = 0;
	struct itimerspec when = {0};

	for (unsigned i = 0; i < 2; i++)
		if (lanes[i].n && (!next || lanes[i].heap[0]->due < next))
			next = lanes[i].heap[0]->due;
	when.it_value.tv_sec = next / 1000000000;
	when.it_value.tv_nsec = next % 1000000000;
	if (timerfd_settime(fd, TFD_TIMER_ABSTIME, &when, NULL))
		die("timerfd_settime");
}

static void run(int control_fd)
{
	int epoll = epoll_create1(EPOLL_CLOEXEC), timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC), signals;
	struct epoll_event events[8];
	bool go_on = true;
	sigset_t set;
	uint64_t ticks;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signals = signalfd(-1, &set, SFD_CLOEXEC);
	watch(epoll, timer);
	watch(epoll, signals);
	for (unsigned i = 0; i < 2; i++)
		watch(epoll, lanes[i].in);
	if (control_fd >= 0)
		watch(epoll, control_fd);
	for (bool more = false; go_on; ) {
		int n = epoll_wait(epoll, events, 8, more ? 0 : -1);
		for (int i = 0; i < n; i++) {
			if (events[i].data.fd == signals)
				go_on = false;
			else if (events[i].data.fd == control_fd)
				go_on = control(control_fd) && go_on;
			else if (events[i].data.fd == timer && read(timer, &ticks, sizeof(ticks)) < 0)
				continue;
		}
		more = false;
		for (unsigned i = 0; i < 2; i++) {
			deliver_due(&lanes[i]);
			more |= take_in(&lanes[i]);
		}
		for (unsigned i = 0; i < 2; i++)
			deliver_due(&lanes[i]);
		set_timer(timer);
	}
	close(epoll);
	close(timer);
	close(signals);
}

/* --- without a network -------------------------------------------------------------------------------------------------------- */

static int simulate(const char *what)
{
	struct link_way *way = &lanes[0].way;
	enum link_fate fate;
	char text[64];
	char *size, *interval;
	int64_t last = 0, due;
	uint64_t overtaken = 0;

	snprintf(text, sizeof(text), "%s", what);
	size = strchr(text, ',');
	interval = size ? strchr(size + 1, ',') : NULL;
	int64_t step = interval ? link_duration(interval + 1) : -1;
	if (step < 0) {
		fprintf(stderr, "linkem: %s is not COUNT,SIZE,INTERVAL\n", what);
		return 2;
	}
	unsigned long count = strtoul(text, NULL, 10), length = strtoul(size + 1, NULL, 10);
	for (unsigned long i = 0; i < count; i++) {
		due = link_offer(way, way->epoch + (int64_t)i * step, (unsigned)length, &fate);
		overtaken += due >= 0 && due < last;
		if (due > last)
			last = due;
	}
	link_way_json(way, stdout);
	printf(",\"overtaken\":%llu}\n", (unsigned long long)overtaken);
	return 0;
}

static void shape_of(struct lane *l, const char *text)
{
	const char *bad;

	if (link_shape_parse(&l->way.shape, text, &bad)) {
		fprintf(stderr, "linkem: not understood: %s\n", bad);
		exit(2);
	}
}

int main(int argc, char **argv)
{
	const char *a = NULL, *b = NULL, *path = NULL, *ab = "", *ba = "", *virtual = NULL;
	uint64_t seed = 1;
	int64_t epoch = -1;

	for (int i = 1; i + 1 < argc; i += 2) {
		const char *value = argv[i + 1];
		const struct { const char *name; const char **to; } texts[] = {
			{"--a", &a}, {"--b", &b}, {"--control", &path}, {"--ab", &ab}, {"--ba", &ba}, {"--simulate", &virtual}};
		for (unsigned k = 0; k < sizeof(texts) / sizeof(*texts); k++)
			if (!strcmp(argv[i], texts[k].name))
				*texts[k].to = value;
		if (!strcmp(argv[i], "--seed"))
			seed = strtoull(value, NULL, 10);
		else if (!strcmp(argv[i], "--epoch"))
			epoch = strtoll(value, NULL, 10);
	}
	if (epoch < 0)
		epoch = virtual ? 0 : clock_now();
	for (unsigned i = 0; i < 2; i++)
		link_way_init(&lanes[i].way, seed * 2 + i, epoch);
	shape_of(&lanes[0], ab);
	shape_of(&lanes[1], ba);
	if (virtual)
		return simulate(virtual);
	if (!a || !b) {
		fprintf(stderr, "linkem: --a and --b are needed, each NETNS:DEVICE\n");
		return 2;
	}
	lanes[0].in = lanes[1].out = open_tun(a);
	lanes[0].out = lanes[1].in = open_tun(b);
	int control_fd = path ? open_control(path) : -1;
	prctl(PR_SET_TIMERSLACK, 1ul);
	/* As far as we may: a link does not wait for programs. */
	if (sched_setscheduler(0, SCHED_RR | SCHED_RESET_ON_FORK, &(struct sched_param){.sched_priority = 1}))
		setpriority(PRIO_PROCESS, 0, -15);
	puts("ready");
	fflush(stdout);
	run(control_fd);
	print_stats(stdout);
	for (unsigned i = 0; i < 2; i++) {
		while (lanes[i].n)
			free(heap_pop(&lanes[i]));
		free(lanes[i].heap);
		close(lanes[i].in);
	}
	if (path)
		unlink(path);
	return 0;
}

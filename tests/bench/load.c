/* The load generator's jobs. Prints one JSON object.
 *   load LINK HOST PORT AUTHORITY JOB ARGS     LINK: tcp, h1 (HTTP/1.1 CONNECT), tls, h2 (CONNECT over HTTP/2 and TLS)
 *     bulk up|down BYTES                        one tunnel
 *     ping ROUNDS                               one byte there and back, after ROUNDS/10 to warm up
 *     requests CONCURRENT TOTAL LINKS           a tunnel each, 1 KB back; h2: over LINKS connections
 *     hold TUNNELS LINKS                        opens them, says so, keeps them until standard input ends
 * The far end is tests/bench/server.c. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/bench/lib/link.h"

static struct link_target target;
static struct {
	uint64_t bytes, rounds, total, concurrent, links;
	uint64_t done, started, began, latest;
	uint64_t *samples;
	bool up;
	struct link **link;
} job;

static void command(struct tunnel *t, char what, uint64_t argument)
{
	t->head[0] = (uint8_t)what;
	for (int i = 0; i < 8; i++)
		t->head[1 + i] = (uint8_t)(argument >> (56 - 8 * i));
	t->head_length = 9;
	t->head_sent = 0;
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return x < y ? -1 : x > y;
}

static double microseconds(uint64_t *sorted, uint64_t n, double share)
{
	return n ? (double)sorted[(uint64_t)((double)(n - 1) * share)] / 1000 : 0;
}

static void print_samples(uint64_t n, double seconds)
{
	qsort(job.samples, n, sizeof(*job.samples), by_value);
	printf("{\"count\": %lu, \"seconds\": %.6f, \"p50_us\": %.2f, \"p99_us\": %.2f, \"min_us\": %.2f, \"max_us\": %.2f}\n",
	       n, seconds, microseconds(job.samples, n, 0.5), microseconds(job.samples, n, 0.99),
	       microseconds(job.samples, n, 0), microseconds(job.samples, n, 1));
}

static void unexpected_end(struct tunnel *t, bool clean)
{
	die("tunnel ended early (%s) after %lu bytes", clean ? "clean" : "reset", t->received);
}

/* --- bulk: 'D' n: the server sends n bytes; 'U' n: it reads n and answers one byte */

static void bulk_open(struct tunnel *t)
{
	job.began = now_ns();
	command(t, job.up ? 'U' : 'D', job.bytes);
	t->fill = job.up ? job.bytes : 0;
}

static void bulk_data(struct tunnel *t, const uint8_t *data, size_t length)
{
	(void)data;
	t->received += length;
	if (t->received < (job.up ? 1 : job.bytes))
		return;
	if (t->received > (job.up ? 1 : job.bytes))
		die("too many bytes: %lu", t->received);
	double seconds = (double)(now_ns() - job.began) / 1e9;
	printf("{\"bytes\": %lu, \"seconds\": %.6f, \"gbit\": %.3f}\n", job.bytes, seconds,
	       (double)job.bytes * 8 / seconds / 1e9);
	link_stop();
}

static const struct tunnel_events bulk_events = {bulk_open, bulk_data, unexpected_end};

/* --- ping: 'P': the server echoes */

static void ping_send(struct tunnel *t)
{
	t->head[0] = 'x';
	t->head_length = 1;
	t->head_sent = 0;
	t->began = now_ns();
}

static void ping_open(struct tunnel *t)
{
	command(t, 'P', 0);
}

static void ping_data(struct tunnel *t, const uint8_t *data, size_t length)
{
	(void)data;
	uint64_t warm = job.rounds / 10 + 1;
	if (length != 1)
		die("%zu bytes instead of one", length);
	if (t->received > warm)      /* the first byte is the server's greeting */
		job.samples[job.done++] = now_ns() - t->began;
	t->received++;
	if (job.done == job.rounds) {
		print_samples(job.done, 0);
		link_stop();
		return;
	}
	ping_send(t);
	tunnel_kick(t);
}

static const struct tunnel_events ping_events = {ping_open, ping_data, unexpected_end};

/* --- requests: 'R': the server sends 1 KB and closes */

static void request_start(struct tunnel *t);

static void request_open(struct tunnel *t)
{
	command(t, 'R', 1024);
}

static void request_data(struct tunnel *t, const uint8_t *data, size_t length)
{
	(void)data;
	t->received += length;
}

static void request_closed(struct tunnel *t, bool clean)
{
	if (t->received != 1024)
		die("%lu bytes instead of 1024, %s", t->received, clean ? "clean" : "reset");
	job.samples[job.done++] = now_ns() - t->began;
	if (job.done == job.total) {
		job.latest = now_ns();
		link_stop();
	} else if (job.started < job.total) {
		request_start(t);
	}
}

static const struct tunnel_events request_events = {request_open, request_data, request_closed};

static void request_start(struct tunnel *t)
{
	size_t place = (size_t)(uintptr_t)t->owner;

	*t = (struct tunnel){.events = &request_events, .owner = t->owner, .began = now_ns()};
	job.started++;
	link_tunnel(target.kind == LINK_H2 ? job.link[place % job.links] : link_new(&target), t);
}

static void requests(void)
{
	struct tunnel *tunnels = calloc(job.concurrent, sizeof(*tunnels));

	job.samples = calloc(job.total, sizeof(*job.samples));
	job.link = calloc(job.links, sizeof(struct link *));
	for (size_t i = 0; target.kind == LINK_H2 && i < job.links; i++)
		job.link[i] = link_new(&target);
	link_loop(now_ns() + 200000000u);        /* the links come up first */
	job.began = now_ns();
	for (size_t i = 0; i < job.concurrent; i++) {
		tunnels[i].owner = (void *)(uintptr_t)i;
		request_start(&tunnels[i]);
	}
	for (size_t i = 0; target.kind == LINK_H2 && i < job.links; i++)
		link_kick(job.link[i]);
	link_loop(job.began + 120000000000u);
	if (job.done < job.total)
		die("%lu of %lu requests in 120 s", job.done, job.total);
	print_samples(job.done, (double)(job.latest - job.began) / 1e9);
}

/* --- hold: 'I': the server answers one byte and keeps quiet */

static void hold_open(struct tunnel *t)
{
	command(t, 'I', 0);
}

static void hold_data(struct tunnel *t, const uint8_t *data, size_t length)
{
	(void)t, (void)data, (void)length;
	if (++job.done == job.total)
		link_stop();
}

static const struct tunnel_events hold_events = {hold_open, hold_data, unexpected_end};

static void hold(void)
{
	struct tunnel *tunnels = calloc(job.total, sizeof(*tunnels));
	struct link **links = calloc(job.links, sizeof(struct link *));
	char c;

	for (size_t i = 0; i < job.links; i++)
		links[i] = link_new(&target);
	for (size_t i = 0; i < job.total; i++) {
		tunnels[i].events = &hold_events;
		link_tunnel(links[i % job.links], &tunnels[i]);
	}
	link_loop(now_ns() + 60000000000u);
	if (job.done < job.total)
		die("%lu of %lu tunnels in 60 s", job.done, job.total);
	printf("{\"tunnels\": %lu}\n", job.done);
	fflush(stdout);
	while (read(0, &c, 1) > 0)
		;
}

static void one(const struct tunnel_events *events, struct tunnel *t)
{
	t->events = events;
	link_tunnel(link_new(&target), t);
	link_loop(0);
}

static uint64_t number(char **argv, int argc, int i)
{
	if (i >= argc)
		die("usage: see tests/bench/load.c");
	return strtoull(argv[i], NULL, 10);
}

int main(int argc, char **argv)
{
	static const char *const kinds[] = {"tcp", "h1", "tls", "h2"};
	struct tunnel t = {0};

	if (argc < 7)
		die("usage: see tests/bench/load.c");
	for (target.kind = LINK_TCP; strcmp(argv[1], kinds[target.kind]) != 0; target.kind++)
		if (target.kind == LINK_H2)
			die("no such link: %s", argv[1]);
	target.host = argv[2];
	target.port = (uint16_t)number(argv, argc, 3);
	target.authority = argv[4];
	link_init();
	if (strcmp(argv[5], "bulk") == 0) {
		job.up = strcmp(argv[6], "up") == 0;
		job.bytes = number(argv, argc, 7);
		one(&bulk_events, &t);
	} else if (strcmp(argv[5], "ping") == 0) {
		job.rounds = number(argv, argc, 6);
		job.samples = calloc(job.rounds, sizeof(*job.samples));
		one(&ping_events, &t);
	} else if (strcmp(argv[5], "requests") == 0) {
		job.concurrent = number(argv, argc, 6);
		job.total = number(argv, argc, 7);
		job.links = number(argv, argc, 8);
		requests();
	} else if (strcmp(argv[5], "hold") == 0) {
		job.total = number(argv, argc, 6);
		job.links = number(argv, argc, 7);
		hold();
	} else {
		die("no such job: %s", argv[5]);
	}
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/netlab/link_model.h"

#include <stdlib.h>
#include <string.h>

/* splitmix64: one stream for each kind of decision, so that switching one on leaves the others as they were. */
static double uniform(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}

void link_way_init(struct link_way *way, uint64_t seed, int64_t epoch)
{
	memset(way, 0, sizeof(*way));
	way->shape.loss_bad = 1;
	way->epoch = epoch;
	way->seed_loss = seed * 4 + 1;
	way->seed_burst = ~seed * 4 + 2;
	way->seed_jitter = (seed << 32 | seed >> 32) + 3;
	for (unsigned i = 0; i < 4; i++) {            /* neighbouring seeds part */
		way->seed_loss ^= (uint64_t)(uniform(&way->seed_loss) * 0x1p62);
		way->seed_burst ^= (uint64_t)(uniform(&way->seed_burst) * 0x1p62);
		way->seed_jitter ^= (uint64_t)(uniform(&way->seed_jitter) * 0x1p62);
	}
}

static bool is_up(const struct link_way *way, int64_t at)
{
	const struct link_shape *s = &way->shape;

	if (s->cut)
		return false;
	if (!s->down)
		return true;
	int64_t turn = s->up + s->down, position = (at - way->epoch - s->offset) % turn;
	return (position < 0 ? position + turn : position) < s->up;
}

static enum link_fate wire(struct link_way *way, int64_t left)
{
	const struct link_shape *s = &way->shape;
	enum link_fate fate = LINK_DELIVERED;

	if (s->p > 0) {
		bool bad = way->bad;
		double u = uniform(&way->seed_burst);
		way->bad = bad ? u >= s->r : u < s->p;
		way->bad_runs += way->bad && !bad;
	}
	double loss = s->p > 0 && way->bad ? s->loss_bad : s->loss;
	if (loss > 0 && uniform(&way->seed_loss) < loss)
		fate = s->p > 0 && way->bad ? LINK_LOST_BURST : LINK_LOST;
	return is_up(way, left) ? fate : LINK_OUTAGE;
}

/* When the packet's last bit has left, or -1: no room to wait. */
static int64_t line(struct link_way *way, int64_t now, unsigned length)
{
	const struct link_shape *s = &way->shape;

	if (!s->rate)
		return now;
	int64_t begin = way->line_free > now ? way->line_free : now;
	uint64_t backlog = (uint64_t)((double)(begin - now) * (double)s->rate / 8e9 + 0.5) + length;
	if (s->queue && backlog > s->queue && begin > now)
		return -1;
	if (backlog > way->backlog_max)
		way->backlog_max = backlog;
	return way->line_free = begin + (int64_t)((double)length * 8e9 / (double)s->rate + 0.5);
}

static int64_t due(struct link_way *way, int64_t left)
{
	const struct link_shape *s = &way->shape;
	int64_t delay = s->delay;

	if (s->jitter)
		delay += (int64_t)((uniform(&way->seed_jitter) * 2 - 1) * (double)s->jitter);
	if (delay < 0)
		delay = 0;
	int64_t at = left + delay;
	if (at < way->last_delivery && !s->reorder)
		at = way->last_delivery;
	if (at > way->last_delivery)
		way->last_delivery = at;
	return at;
}

int64_t link_offer(struct link_way *way, int64_t now, unsigned length, enum link_fate *fate)
{
	int64_t left = -1, at = -1;

	way->received++;
	way->received_bytes += length;
	*fate = LINK_OUTAGE;
	if (is_up(way, now)) {
		left = line(way, now, length);
		*fate = left < 0 ? LINK_QUEUE_FULL : wire(way, left);
	}
	way->fates[*fate]++;
	if (*fate != LINK_DELIVERED)
		return -1;
	at = due(way, left);
	way->delivered_bytes += length;
	way->delay_sum += (double)(at - now);
	if (way->fates[LINK_DELIVERED] == 1 || at - now < way->delay_min)
		way->delay_min = at - now;
	if (at - now > way->delay_max)
		way->delay_max = at - now;
	if (way->fates[LINK_DELIVERED] == 1) {
		way->first = left;
		way->first_bytes = length;
	}
	way->last = left;
	return at;
}

/* --- words ---------------------------------------------------------------------------------------------------------------- */

struct unit { const char *name; double factor; };

/* A number not below 0 with one of the units; 0 needs none. */
static double quantity(const char *text, const struct unit *units)
{
	char *end;
	double v = strtod(text, &end);

	if (end == text || *text == '-' || *text == '+' || !(v >= 0) || v > 1e15)
		return -1;
	if (v == 0 && !*end)
		return 0;
	for (; units->name; units++)
		if (!strcmp(units->name, end))
			return v * units->factor;
	return -1;
}

int64_t link_duration(const char *text)
{
	static const struct unit units[] = {{"ns", 1}, {"us", 1e3}, {"ms", 1e6}, {"s", 1e9}, {NULL, 0}};

	return (int64_t)quantity(text, units);
}

static int64_t read_rate(const char *text)
{
	static const struct unit units[] = {{"bit", 1}, {"kbit", 1e3}, {"mbit", 1e6}, {"gbit", 1e9}, {NULL, 0}};

	return (int64_t)quantity(text, units);
}

static int64_t read_size(const char *text)
{
	static const struct unit units[] = {{"", 1}, {"B", 1}, {"KiB", 1024}, {"MiB", 1048576}, {NULL, 0}};

	return (int64_t)quantity(text, units);
}

static bool read_share(const char *text, double *out)
{
	static const struct unit units[] = {{"", 1}, {"%", 0.01}, {NULL, 0}};
	double v = quantity(text, units);

	if (v < 0 || v > 1)
		return false;
	*out = v;
	return true;
}

/* Cuts "a:b:c" into at most three parts. */
static unsigned parts(char *text, const char *out[3])
{
	unsigned n = 0;

	for (char *save, *part = strtok_r(text, ":", &save); part; part = strtok_r(NULL, ":", &save)) {
		if (n == 3)
			return 0;
		out[n++] = part;
	}
	return n;
}

static bool set_burst(struct link_shape *s, char *text)
{
	const char *v[3];
	unsigned n = parts(text, v);
	double p, r, bad = 1;

	if (!strcmp(text, "0")) {
		s->p = 0;
		return true;
	}
	if (n < 2 || !read_share(v[0], &p) || !read_share(v[1], &r) || (n == 3 && !read_share(v[2], &bad)) || r <= 0)
		return false;
	s->p = p;
	s->r = r;
	s->loss_bad = bad;
	return true;
}

static bool set_outages(struct link_shape *s, char *text)
{
	const char *v[3];
	unsigned n = parts(text, v);

	if (n == 1 && !strcmp(v[0], "0")) {
		s->down = 0;
		return true;
	}
	int64_t up = n >= 2 ? link_duration(v[0]) : -1, down = n >= 2 ? link_duration(v[1]) : -1;
	int64_t offset = n == 3 ? link_duration(v[2]) : 0;
	if (up < 0 || down <= 0 || offset < 0)
		return false;
	s->up = up;
	s->down = down;
	s->offset = offset;
	return true;
}

static bool set_number(int64_t *out, int64_t value)
{
	if (value >= 0)
		*out = value;
	return value >= 0;
}

static bool set_flag(bool *out, const char *text)
{
	*out = *text == '1';
	return (*text == '0' || *text == '1') && !text[1];
}

static bool set(struct link_shape *s, const char *key, char *value)
{
	int64_t v;

	if (!strcmp(key, "delay"))
		return set_number(&s->delay, link_duration(value));
	if (!strcmp(key, "jitter"))
		return set_number(&s->jitter, link_duration(value));
	if (!strcmp(key, "loss"))
		return read_share(value, &s->loss);
	if (!strcmp(key, "burst"))
		return set_burst(s, value);
	if (!strcmp(key, "outages"))
		return set_outages(s, value);
	if (!strcmp(key, "reorder"))
		return set_flag(&s->reorder, value);
	if (!strcmp(key, "cut"))
		return set_flag(&s->cut, value);
	if (!strcmp(key, "rate") && (v = read_rate(value)) >= 0) {
		s->rate = (uint64_t)v;
		return true;
	}
	if (!strcmp(key, "queue") && (v = read_size(value)) >= 0) {
		s->queue = (uint64_t)v;
		return true;
	}
	return false;
}

int link_shape_parse(struct link_shape *shape, const char *text, const char **bad)
{
	struct link_shape next = *shape;
	char word[128];

	for (const char *at = text + strspn(text, " ,\n"); *at; at += strspn(at, " ,\n")) {
		size_t n = strcspn(at, " ,\n");
		const char *equals = memchr(at, '=', n);
		*bad = at;
		if (!equals || n >= sizeof(word))
			return -1;
		memcpy(word, at, n);
		word[n] = '\0';
		word[equals - at] = '\0';
		if (!set(&next, word, word + (equals - at) + 1))
			return -1;
		at += n;
	}
	*shape = next;
	return 0;
}

/* --- counters --------------------------------------------------------------------------------------------------------------- */

void link_way_json(const struct link_way *way, FILE *out)
{
	static const char *const names[LINK_FATES] = {"delivered", "lost", "lost_burst", "queue_full", "outage", "memory"};
	double n = (double)way->fates[LINK_DELIVERED];

	fprintf(out, "{\"received\":%llu,\"received_bytes\":%llu,\"delivered_bytes\":%llu", (unsigned long long)way->received,
	        (unsigned long long)way->received_bytes, (unsigned long long)way->delivered_bytes);
	for (unsigned i = 0; i < LINK_FATES; i++)
		fprintf(out, ",\"%s\":%llu", names[i], (unsigned long long)way->fates[i]);
	fprintf(out, ",\"bad_runs\":%llu,\"backlog_max\":%llu", (unsigned long long)way->bad_runs,
	        (unsigned long long)way->backlog_max);
	fprintf(out, ",\"span_s\":%.9f,\"span_bytes\":%llu", (double)(way->last - way->first) / 1e9,
	        (unsigned long long)(way->delivered_bytes - way->first_bytes));
	fprintf(out, ",\"delay_mean_s\":%.9f,\"delay_min_s\":%.9f,\"delay_max_s\":%.9f", n ? way->delay_sum / n / 1e9 : 0,
	        (double)way->delay_min / 1e9, (double)way->delay_max / 1e9);
}

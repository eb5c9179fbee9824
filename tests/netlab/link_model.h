/* One direction of an emulated link: what becomes of a packet, and when. No I/O and no clock: time (ns) is handed in, so that
 * a million packets can be tried in virtual time. Randomness is seeded: the same packets meet the same fate. */
#ifndef HERMES_NETLAB_LINK_MODEL_H
#define HERMES_NETLAB_LINK_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct link_shape {
	int64_t delay, jitter;        /* ns; the delay is uniform in delay -/+ jitter, never below 0 */
	bool reorder;                 /* jitter may let packets overtake each other; else they wait for those before them */
	double loss;                  /* probability, on the wire: lost packets have used the line */
	double p, r, loss_bad;        /* Gilbert-Elliott: from good to bad, back, loss while bad (loss is that while good) */
	uint64_t rate;                /* bit/s of IP packets; 0: no limit */
	uint64_t queue;               /* bytes that may wait for the line; 0: no limit */
	int64_t up, down, offset;     /* ns: up, then down, in turns that begin offset after the epoch; down 0: always up */
	bool cut;                     /* down until told otherwise */
};

enum link_fate { LINK_DELIVERED, LINK_LOST, LINK_LOST_BURST, LINK_QUEUE_FULL, LINK_OUTAGE, LINK_MEMORY, LINK_FATES };

struct link_way {
	struct link_shape shape;
	int64_t epoch;
	uint64_t seed_loss, seed_burst, seed_jitter;
	bool bad;
	int64_t line_free, last_delivery;
	uint64_t received, received_bytes, delivered_bytes;
	uint64_t fates[LINK_FATES];   /* packets; LINK_DELIVERED also for those on their way */
	uint64_t bad_runs;            /* times that the bad state was entered */
	int64_t first, last;          /* when the first and the last delivered packet had left the line; 0: none yet */
	uint64_t first_bytes;         /* of the first: bytes after it took last - first */
	double delay_sum; int64_t delay_min, delay_max;   /* of delivered packets, from arrival to delivery as decided */
	uint64_t backlog_max;         /* bytes */
};

void link_way_init(struct link_way *way, uint64_t seed, int64_t epoch);
/* A packet that arrives now: when it is due at the other end, or -1 when it is not, with *fate. */
int64_t link_offer(struct link_way *way, int64_t now, unsigned length, enum link_fate *fate);

/* "delay=20ms jitter=1ms loss=0.01 burst=0.01:0.2:1 rate=10mbit queue=64KiB outages=1s:2s:0s reorder=1 cut=0", separated by
 * blanks or commas; what is not named stays as it is. 0, or -1 with *bad pointing at the word. */
int link_shape_parse(struct link_shape *shape, const char *text, const char **bad);
/* A duration: 20ms, 100us, 1.5s, 0. -1: none. */
int64_t link_duration(const char *text);
/* The counters as one JSON object without its closing brace, for the caller's own. */
void link_way_json(const struct link_way *way, FILE *out);

#endif

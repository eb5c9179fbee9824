/* Counts what costs us more than it costs the peer, in windows of 10 s: Rapid Reset, MadeYouReset, floods of SETTINGS, PING,
 * empty DATA, PRIORITY and WINDOW_UPDATE. nghttp2 1.52 limits only the first two itself. */
#include "workers/tunnel/clock.h"
#include "workers/tunnel/h2_internal.h"

#define WINDOW_US 10000000u
#define SHARED_FACTOR 100        /* resets on a link that many users share are the users', not the link's */

void h2_abuse_init(struct h2_abuse *abuse, unsigned limit, bool shared)
{
	*abuse = (struct h2_abuse){.limit = limit, .reset_limit = shared ? limit * SHARED_FACTOR : limit};
}

static void roll(struct h2_abuse *abuse)
{
	uint64_t now = now_us();
	if (now - abuse->window_start < WINDOW_US)
		return;
	abuse->window_start = now;
	abuse->events = abuse->resets = 0;
}

bool h2_abuse_frame(struct h2_abuse *abuse, const nghttp2_frame_hd *frame)
{
	if (!abuse->limit)
		return true;
	switch (frame->type) {
	case NGHTTP2_RST_STREAM:
		roll(abuse);
		return ++abuse->resets <= abuse->reset_limit;
	case NGHTTP2_PING:
	case NGHTTP2_SETTINGS:
		if (frame->flags & NGHTTP2_FLAG_ACK)
			return true;
		break;
	case NGHTTP2_DATA:
		if (frame->length > 0 || (frame->flags & NGHTTP2_FLAG_END_STREAM))
			return true;
		break;
	case NGHTTP2_PRIORITY:
		break;
	case NGHTTP2_WINDOW_UPDATE:
		return true;   /* honest receivers send many */
	default:
		return true;
	}
	roll(abuse);
	return ++abuse->events <= abuse->limit;
}

bool h2_abuse_padding(struct h2_abuse *abuse, const nghttp2_frame *frame)
{
	if (!abuse->limit || frame->hd.type != NGHTTP2_DATA || !frame->hd.length || frame->hd.length != frame->data.padlen ||
	    (frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
		return true;
	roll(abuse);
	return ++abuse->events <= abuse->limit;
}

bool h2_abuse_reset_sent(struct h2_abuse *abuse)
{
	if (!abuse->limit)
		return true;
	roll(abuse);
	return ++abuse->resets <= abuse->reset_limit;
}

bool h2_abuse_tiny_window(struct h2_abuse *abuse)
{
	if (!abuse->limit)
		return true;
	roll(abuse);
	return ++abuse->events <= abuse->limit;
}

#include "workers/tunnel/h1_body.h"

#define DIGITS_MAX 15u            /* of a chunk size: below 2^60 */
#define EXTENSION_MAX 256u        /* bytes of extensions on one chunk line */
#define OVERHEAD_MAX (16 * 1024)  /* framing beyond 16 bytes a chunk and twice the payload: somebody pads */

enum step { SIZE, EXTENSION, SIZE_LF, PAYLOAD, PAYLOAD_CR, PAYLOAD_LF, TRAILERS, COMPLETE };

void h1_body_init(struct h1_body *body, enum h1_framing framing, uint64_t length)
{
	*body = (struct h1_body){.framing = framing, .left = length, .state = PAYLOAD};
	if (framing == H1_NO_BODY || (framing == H1_LENGTH && length == 0))
		body->state = COMPLETE;
	if (framing == H1_CHUNKED) {
		body->left = 0;
		body->state = SIZE;
		h1_parser_init(&body->trailers, H1_TRAILERS, H1_TRAILERS_LIMIT);
	}
}

void h1_body_clear(struct h1_body *body)
{
	h1_parser_clear(&body->trailers);
}

bool h1_body_complete(const struct h1_body *body)
{
	return body->state == COMPLETE;
}

enum h1_result h1_body_ended(const struct h1_body *body)
{
	return body->state == COMPLETE || body->framing == H1_UNTIL_CLOSE ? H1_DONE : H1_ERROR;
}

static enum h1_result fail(struct h1_body *body, unsigned status, const char *why)
{
	body->status = status;
	body->why = why;
	return H1_ERROR;
}

static int hex(uint8_t c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static enum h1_result chunk_line_end(struct h1_body *body)
{
	int64_t payload = body->left < OVERHEAD_MAX ? (int64_t)body->left : OVERHEAD_MAX;
	body->overhead += (int64_t)body->digits + body->extension - 12 - 2 * payload;
	if (body->overhead < 0)
		body->overhead = 0;
	if (body->overhead > OVERHEAD_MAX)
		return fail(body, 400, "too much chunk framing");
	body->state = body->left > 0 ? PAYLOAD : TRAILERS;
	body->digits = body->extension = 0;
	return H1_MORE;
}

/* One byte of framing (RFC 9112 7.1). */
static enum h1_result framing_byte(struct h1_body *body, uint8_t c)
{
	switch ((enum step)body->state) {
	case SIZE:
		if (hex(c) >= 0) {
			if (++body->digits > DIGITS_MAX)
				return fail(body, 400, "chunk size too large");
			body->left = body->left * 16 + (unsigned)hex(c);
			return H1_MORE;
		}
		if (body->digits == 0 || (c != ';' && c != '\r'))
			return fail(body, 400, "bad chunk size");
		body->state = c == ';' ? EXTENSION : SIZE_LF;
		return H1_MORE;
	case EXTENSION:
		if (++body->extension > EXTENSION_MAX)
			return fail(body, 400, "chunk extension too long");
		if (c == '\r')
			body->state = SIZE_LF;
		else if ((c < ' ' && c != '\t') || c == 0x7f)
			return fail(body, 400, "bad chunk extension");
		return H1_MORE;
	case SIZE_LF:
		return c == '\n' ? chunk_line_end(body) : fail(body, 400, "bad chunk size");
	case PAYLOAD_CR:
		body->state = PAYLOAD_LF;
		return c == '\r' ? H1_MORE : fail(body, 400, "chunk longer than its size");
	case PAYLOAD_LF:
		body->state = SIZE;
		return c == '\n' ? H1_MORE : fail(body, 400, "chunk longer than its size");
	case PAYLOAD: case TRAILERS: case COMPLETE:
		break;
	}
	return H1_MORE;
}

static enum h1_result read_trailers(struct h1_body *body, struct chunks *in)
{
	size_t used;
	enum h1_result result = h1_parser_feed(&body->trailers, in->head->data, in->head->length, &used);
	if (result == H1_ERROR)
		return fail(body, body->trailers.status, body->trailers.why);
	chunks_drop(in, used);
	if (result == H1_DONE)
		body->state = COMPLETE;
	return result;
}

static void read_payload(struct h1_body *body, struct chunks *in, struct chunks *out)
{
	if (body->framing == H1_UNTIL_CLOSE) {
		chunks_move(out, in);
		return;
	}
	size_t n = in->bytes < body->left ? in->bytes : (size_t)body->left;
	chunks_split(out, in, n);
	body->left -= n;
	if (body->left == 0)
		body->state = body->framing == H1_CHUNKED ? PAYLOAD_CR : COMPLETE;
}

static enum h1_result read_framing(struct h1_body *body, struct chunks *in)
{
	const struct chunk *chunk = in->head;
	uint32_t i = 0;
	enum h1_result result = H1_MORE;
	while (i < chunk->length && result == H1_MORE && body->state != PAYLOAD && body->state != TRAILERS)
		result = framing_byte(body, chunk->data[i++]);
	chunks_drop(in, i);
	return result;
}

enum h1_result h1_body_read(struct h1_body *body, struct chunks *in, struct chunks *out)
{
	while (body->state != COMPLETE && in->head) {
		enum h1_result result = H1_MORE;
		if (body->state == PAYLOAD)
			read_payload(body, in, out);
		else if (body->state == TRAILERS)
			result = read_trailers(body, in);
		else
			result = read_framing(body, in);
		if (result == H1_ERROR)
			return result;
	}
	return body->state == COMPLETE ? H1_DONE : H1_MORE;
}
